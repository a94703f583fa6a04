/* convert.h - a tensor in another type, worked out by all cores. Shared by the files of this folder only.
 *
 * Each row is converted by itself, so the result does not depend on the number of threads. */
#ifndef MZM_CONVERT_H
#define MZM_CONVERT_H

#include "format/config.h"
#include "kern/quant.h"

typedef struct mzm_converter mzm_converter;

/* For rows of up to max_cols weights. -> mzm_converter_free */
mzm_status mzm_converter_create(mzm_converter **out, int32_t max_cols, mzm_quant_method method, mzm_err *err);
void mzm_converter_free(mzm_converter *c);

/* dst, the tensor in type `to`, from src, which is f32, f16 or bf16 and has t's type. Rounds to nearest, ties to even.
 * EUNSUPPORTED when finite weights are too large for the new type, or weights to be quantised are not finite. */
mzm_status mzm_convert(mzm_converter *c, void *dst, mzm_dtype to, const void *src, const mzm_tensor *t, mzm_err *err);

#endif
