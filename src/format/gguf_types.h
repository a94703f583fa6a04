/* gguf_types.h - the weight types of GGUF files: how many bytes, and what they mean in f32.
 *
 * Every type is blocks of weights that lie one behind the other in a row; a row is whole blocks. What a block holds is
 * described in gguf_types.c. */
#ifndef MZM_GGUF_TYPES_H
#define MZM_GGUF_TYPES_H

#include "kern/kern.h"

/* ggml's numbers of the types that this build reads. */
enum {
	MZM_GGML_F32 = 0,
	MZM_GGML_F16 = 1,
	MZM_GGML_Q4_0 = 2,
	MZM_GGML_Q4_1 = 3,
	MZM_GGML_Q5_0 = 6,
	MZM_GGML_Q5_1 = 7,
	MZM_GGML_Q8_0 = 8,
	MZM_GGML_Q2_K = 10,
	MZM_GGML_Q3_K = 11,
	MZM_GGML_Q4_K = 12,
	MZM_GGML_Q5_K = 13,
	MZM_GGML_Q6_K = 14,
	MZM_GGML_IQ4_NL = 20,
	MZM_GGML_IQ4_XS = 23,
	MZM_GGML_BF16 = 30,
	MZM_GGML_N_TYPES
};

/* "Q4_K"; also of types that are known by name alone; "unknown" for the others. */
const char *mzm_ggml_name(uint32_t type);
/* Weights and bytes of a block; false: not a type that this build reads. */
bool        mzm_ggml_block(uint32_t type, uint32_t *n_weights, uint32_t *n_bytes);
bool        mzm_ggml_is_quant(uint32_t type);
/* src: n_cols / weights of a block, blocks; n_cols is a multiple of it. Of a type that this build reads. */
void        mzm_ggml_to_f32(float *dst, const void *src, uint32_t type, size_t n_cols);

#endif
