/* gguf_rows.c - rows of GGUF files in our own types (gguf_source.h).
 *
 * Q8_0 and Q4_0 have blocks of 32 weights and an f16 scale, as our q8 and q4 do: only the order of the bytes differs
 * (kern/quant.h), so nothing is rounded. Q4_0 goes to q8 as exactly. All other types of blocks are rounded to the
 * nearest q8 row, and the error is measured. */
#include <string.h>

#include "format/gguf_source.h"
#include "format/gguf_types.h"
#include "kern/quant.h"

mzm_status mzm_gguf_rows_init(mzm_gguf_rows *r, uint32_t from, mzm_dtype to, int32_t n_cols, mzm_err *err)
{
	size_t bytes = (size_t)n_cols * sizeof(float);
	*r = (mzm_gguf_rows){.from = from, .to = to, .n_cols = n_cols};
	MZM_TRY(mzm_alloc_for((void **)&r->wide, bytes, "a row", err));
	return mzm_alloc_for((void **)&r->back, bytes, "a row", err);
}

void mzm_gguf_rows_free(mzm_gguf_rows *r)
{
	mzm_free(r->wide);
	mzm_free(r->back);
}

size_t mzm_gguf_row_bytes(uint32_t type, int32_t n_cols)
{
	uint32_t n_weights = 1, n_bytes = 0;
	(void)mzm_ggml_block(type, &n_weights, &n_bytes);
	return (size_t)n_cols / n_weights * n_bytes;
}

/* The bytes of a block in the order of steps; false when a weight is -128 scales, which q8 does not have. */
static bool steps_of(uint8_t steps[32], const uint8_t *block, uint32_t from, mzm_dtype to)
{
	bool fits = true;
	if (from == MZM_GGML_Q8_0) {
		memcpy(steps, block + 2, 32);
		for (int i = 0; i < 32; i++)
			fits = fits && steps[i] != 0x80;
	} else if (to == MZM_Q4) {
		memcpy(steps, block + 2, 16); /* the same nibbles in the same bytes */
	} else {
		for (int i = 0; i < 16; i++) {
			steps[i] = (uint8_t)((block[2 + i] & 15) - 8);
			steps[16 + i] = (uint8_t)((block[2 + i] >> 4) - 8);
		}
	}
	return fits;
}

/* Q8_0 to q8, Q4_0 to q4 or q8. */
static bool repack(uint8_t *row, const uint8_t *src, uint32_t from, mzm_dtype to, int32_t n_cols)
{
	size_t n_blocks = (size_t)n_cols / MZM_Q_BLOCK, step = to == MZM_Q4 ? 16 : 32;
	size_t from_bytes = mzm_gguf_row_bytes(from, MZM_Q_BLOCK);
	uint8_t steps[32], *scales = row + mzm_quant_bytes(to, n_cols), *end = scales + 2 * n_blocks;
	for (size_t i = 0; i < n_blocks; i++, src += from_bytes) {
		size_t first = i / 16 * 16, m = n_blocks - first < 16 ? n_blocks - first : 16;
		if (!steps_of(steps, src, from, to))
			return false;
		for (size_t k = 0; k < step / 4; k++)
			memcpy(row + first * step + 4 * (m * k + i - first), steps + 4 * k, 4);
		memcpy(scales + 2 * i, src, 2);
	}
	memset(end, 0, mzm_row_bytes(to, n_cols) - (size_t)(end - row));
	return true;
}

bool mzm_gguf_quant(mzm_gguf_rows *r, void *dst, const float *x)
{
	if (!mzm_quant_row(dst, x, r->to, r->n_cols, MZM_QUANT_BEST))
		return false;
	mzm_dequant_row(r->back, dst, r->to, r->n_cols);
	for (int32_t i = 0; i < r->n_cols; i++) {
		double e = (double)x[i] - (double)r->back[i];
		r->error += e * e;
		r->norm += (double)x[i] * (double)x[i];
	}
	return true;
}

bool mzm_gguf_is_exact(uint32_t from, mzm_dtype to)
{
	return (from == MZM_GGML_Q8_0 && to == MZM_Q8) || (from == MZM_GGML_Q4_0 && mzm_dtype_is_quant(to));
}

static bool is_same(uint32_t from, mzm_dtype to)
{
	return (from == MZM_GGML_F32 && to == MZM_F32) || (from == MZM_GGML_F16 && to == MZM_F16) ||
	       (from == MZM_GGML_BF16 && to == MZM_BF16);
}

bool mzm_gguf_row(mzm_gguf_rows *r, void *dst, const void *src)
{
	if (is_same(r->from, r->to)) {
		memcpy(dst, src, mzm_row_bytes(r->to, r->n_cols));
		return true;
	}
	mzm_ggml_to_f32(r->wide, src, r->from, (size_t)r->n_cols);
	if (r->to == MZM_F32) {
		memcpy(dst, r->wide, (size_t)r->n_cols * sizeof(float));
		return true;
	}
	if (mzm_gguf_is_exact(r->from, r->to) && repack(dst, src, r->from, r->to, r->n_cols)) {
		for (int32_t i = 0; i < r->n_cols; i++)
			r->norm += (double)r->wide[i] * (double)r->wide[i];
		return true;
	}
	return mzm_gguf_quant(r, dst, r->wide);
}
