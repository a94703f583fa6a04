/* calib.h - the side-car of a model (".mzc"): what was measured on it, for predictors and the confidence monitor.
 *
 * A safetensors file whose metadata bind it to the hash of one model's weights, with a checksum over all tensors: it is
 * refused for any other model, and when a byte differs. All of it is in memory while open. Immutable; any number of
 * threads. FORMAT.md describes it. */
#ifndef MZM_CALIB_H
#define MZM_CALIB_H

#include "base/json.h"
#include "kern/kern.h"

typedef struct mzm_calib mzm_calib;

/* EFORMAT: no such file, damaged, or of another model; the message says which. -> mzm_calib_close */
mzm_status mzm_calib_open(mzm_calib **out, const char *path, const char *model_hash, mzm_err *err);
void       mzm_calib_close(mzm_calib *c);
/* A tensor by its name, of a layer or (layer -1) of the model: rows one behind the other, the first 64-byte aligned.
 * NULL: there is none, or it has another type or shape, or c is NULL. Borrowed. */
const void *mzm_calib_find(const mzm_calib *c, const char *name, int32_t layer, mzm_dtype dtype, int32_t n_rows,
			   int32_t n_cols);
/* How many of n_layers layers have a tensor of that name, or one "NAME.something": 0, all of them, or a broken file's
 * number. c may be NULL: 0. */
/* Whether there is a tensor of that name, whatever its shape. */
bool          mzm_calib_has(const mzm_calib *c, const char *name, int32_t layer);
int32_t       mzm_calib_count(const mzm_calib *c, const char *name, int32_t n_layers);
const json_t *mzm_calib_info(const mzm_calib *c); /* what calibration said of itself: an object; borrowed */
size_t        mzm_calib_bytes(const mzm_calib *c); /* in memory */

typedef struct mzm_calib_writer mzm_calib_writer;
mzm_status mzm_calib_create(mzm_calib_writer **out, const char *model_hash, mzm_err *err);
/* Keeps a copy. dtype: f32, f16 or bf16. name: [a-z0-9._-]+, each once a layer. */
mzm_status mzm_calib_add(mzm_calib_writer *w, const char *name, int32_t layer, mzm_dtype dtype, int32_t n_rows,
			 int32_t n_cols, const void *data, mzm_err *err);
/* What there is so far, for use before it is written; borrows the tensors, and knows no info. -> mzm_calib_close,
 * before the next mzm_calib_add */
mzm_status mzm_calib_preview(mzm_calib **out, const mzm_calib_writer *w, mzm_err *err);
/* Writes the file, atomically. info: an object, borrowed. */
mzm_status mzm_calib_finish(mzm_calib_writer *w, const char *path, const json_t *info, mzm_err *err);
void       mzm_calib_writer_free(mzm_calib_writer *w);

#endif
