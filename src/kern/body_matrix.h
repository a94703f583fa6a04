/* body_matrix.h - the two matrix products over vec_*.h; compiled once per instruction set.
 *
 * Workload: a weight matrix far larger than the caches, read once, against 1..32 positions. A register tile of rows
 * x positions holds one v16 sum per output, the sum kern.h prescribes; tiles differ in which outputs run side by
 * side, never in how one of them is summed. The tiles of all positions follow each other over the same few rows, so
 * the weights come from memory once and from L1 afterwards. */
#ifndef MZM_BODY_MATRIX_H
#define MZM_BODY_MATRIX_H

#include <string.h>

#include "kern/kern.h"

#define MAX_TILE 8

VEC size_t elem_bytes(mzm_dtype dtype)
{
	return dtype == MZM_F32 ? 4 : 2;
}

/* Sixteen weights from column c on. */
VEC v16 load_w(const char *row, int32_t c, mzm_dtype dtype)
{
	const char *p = row + (size_t)c * elem_bytes(dtype);
	if (dtype == MZM_BF16)
		return v16_load_bf16(p);
	return dtype == MZM_F16 ? v16_load_f16(p) : v16_load((const float *)(const void *)p);
}

/* The n < 16 weights from column c on, then zeros. */
VEC v16 load_w_tail(const char *row, int32_t c, int32_t n, mzm_dtype dtype)
{
	const char *p = row + (size_t)c * elem_bytes(dtype);
	if (dtype == MZM_BF16)
		return v16_load_bf16_tail(p, n);
	return dtype == MZM_F16 ? v16_load_f16_tail(p, n) : v16_load_tail((const float *)(const void *)p, n, 0.0f);
}

/* The i-th row of a list, or row i where there is none. */
VEC const char *row_at(const void *w, size_t stride, const int32_t *rows, int32_t i)
{
	return (const char *)w + (size_t)(rows ? rows[i] : i) * stride;
}

/* ---- rows ---- */

/* Outputs of n_r list entries from i on and n_p positions from p0 on; n_r, n_p and dtype are constants. */
VEC void rows_tile(const mzm_rows_job *job, int32_t i, int32_t p0, int n_r, int n_p, mzm_dtype dtype)
{
	const char *w[MAX_TILE];
	const float *x = job->x + (size_t)p0 * job->ldx;
	size_t ldx = job->ldx;
	v16 sum[MAX_TILE][MAX_TILE];
	UNROLL for (int r = 0; r < n_r; r++) {
		w[r] = row_at(job->w, job->stride, job->rows, i + r);
		UNROLL for (int p = 0; p < n_p; p++)
			sum[r][p] = v16_set1(0.0f);
	}
	int32_t c = 0, n_cols = job->n_cols;
	for (; c + 16 <= n_cols; c += 16) {
		v16 wide[MAX_TILE];
		UNROLL for (int r = 0; r < n_r; r++)
			wide[r] = load_w(w[r], c, dtype);
		UNROLL for (int p = 0; p < n_p; p++) {
			v16 xs = v16_load(x + (size_t)p * ldx + c);
			UNROLL for (int r = 0; r < n_r; r++)
				sum[r][p] = v16_fma(wide[r], xs, sum[r][p]);
		}
	}
	if (c < n_cols) {
		UNROLL for (int p = 0; p < n_p; p++) {
			v16 xs = v16_load_tail(x + (size_t)p * ldx + c, n_cols - c, 0.0f);
			UNROLL for (int r = 0; r < n_r; r++)
				sum[r][p] = v16_fma(load_w_tail(w[r], c, n_cols - c, dtype), xs, sum[r][p]);
		}
	}
	UNROLL for (int p = 0; p < n_p; p++) {
		UNROLL for (int r = 0; r < n_r; r++)
			job->y[(size_t)(p0 + p) * job->ldy + (size_t)(i + r)] = v16_fold_add(sum[r][p]);
	}
}

/* All positions of n_r list entries from i on, VEC_POS at a time. */
VEC void rows_strip(const mzm_rows_job *job, int32_t i, int n_r, mzm_dtype dtype)
{
	int32_t p = 0;
	for (; p + VEC_POS <= job->n_pos; p += VEC_POS)
		rows_tile(job, i, p, n_r, VEC_POS, dtype);
	switch (job->n_pos - p) {
	case 3:
		rows_tile(job, i, p, n_r, 3, dtype);
		break;
	case 2:
		rows_tile(job, i, p, n_r, 2, dtype);
		break;
	case 1:
		rows_tile(job, i, p, n_r, 1, dtype);
		break;
	}
}

VEC void rows_range(const mzm_rows_job *job, int32_t i, int32_t i1, mzm_dtype dtype)
{
	if (job->n_pos == 1)
		for (; i + VEC_DECODE_ROWS <= i1; i += VEC_DECODE_ROWS)
			rows_tile(job, i, 0, VEC_DECODE_ROWS, 1, dtype);
	for (; i + VEC_ROWS <= i1; i += VEC_ROWS)
		rows_strip(job, i, VEC_ROWS, dtype);
	for (; i < i1; i++)
		rows_strip(job, i, 1, dtype);
}

static void rows_f32(const mzm_rows_job *job, int32_t i0, int32_t i1)
{
	rows_range(job, i0, i1, MZM_F32);
}
static void rows_f16(const mzm_rows_job *job, int32_t i0, int32_t i1)
{
	rows_range(job, i0, i1, MZM_F16);
}
static void rows_bf16(const mzm_rows_job *job, int32_t i0, int32_t i1)
{
	rows_range(job, i0, i1, MZM_BF16);
}

static void rows(const mzm_rows_job *job, int32_t i0, int32_t i1)
{
	static void (*const by_dtype[MZM_N_DTYPES])(const mzm_rows_job *, int32_t, int32_t) = {
		[MZM_F32] = rows_f32, [MZM_F16] = rows_f16, [MZM_BF16] = rows_bf16};
	by_dtype[job->dtype](job, i0, i1);
}

/* ---- accum ---- */

/* Rows of one group, read side by side; y is loaded and stored once per group. */
#define GROUP 16
/* The part of y that stays in L1 while the rows pass by. */
#define Y_BLOCK_BYTES (32 << 10)

typedef struct group {
	const char  *w[GROUP];
	const float *a; /* [n_pos, lda], from the group's first row on */
	int32_t      n;
} group;

/* Adds a group of rows to VEC_POS or fewer positions of y, n_c vectors from column c on; n_tail > 0: only that
 * many columns. n_p, n_c and dtype are constants. */
VEC void accum_tile(const mzm_accum_job *job, const group *g, int32_t p0, int32_t c, int32_t n_tail, int n_p, int n_c,
		    mzm_dtype dtype)
{
	float *y = job->y + (size_t)p0 * job->ldy + c;
	const float *a = g->a + (size_t)p0 * job->lda;
	size_t lda = job->lda, ldy = job->ldy;
	v16 sum[MAX_TILE][MAX_TILE];
	UNROLL for (int p = 0; p < n_p; p++) {
		UNROLL for (int k = 0; k < n_c; k++) {
			const float *at = y + (size_t)p * ldy + 16 * k;
			sum[p][k] = n_tail ? v16_load_tail(at, n_tail, 0.0f) : v16_load(at);
		}
	}
	for (int32_t i = 0; i < g->n; i++) {
		v16 wide[MAX_TILE];
		UNROLL for (int k = 0; k < n_c; k++)
			wide[k] = n_tail ? load_w_tail(g->w[i], c, n_tail, dtype) : load_w(g->w[i], c + 16 * k, dtype);
		UNROLL for (int p = 0; p < n_p; p++) {
			v16 as = v16_set1(a[(size_t)p * lda + (size_t)i]);
			UNROLL for (int k = 0; k < n_c; k++)
				sum[p][k] = v16_fma(as, wide[k], sum[p][k]);
		}
	}
	UNROLL for (int p = 0; p < n_p; p++) {
		UNROLL for (int k = 0; k < n_c; k++) {
			float *at = y + (size_t)p * ldy + 16 * k;
			if (n_tail)
				v16_store_tail(at, sum[p][k], n_tail);
			else
				v16_store(at, sum[p][k]);
		}
	}
}

/* A group of rows into columns c .. c1-1 of n_p positions from p0 on. */
VEC void accum_strip(const mzm_accum_job *job, const group *g, int32_t p0, int32_t c, int32_t c1, int n_p,
		     mzm_dtype dtype)
{
	for (; c + 16 * VEC_COLS <= c1; c += 16 * VEC_COLS)
		accum_tile(job, g, p0, c, 0, n_p, VEC_COLS, dtype);
	for (; c + 16 <= c1; c += 16)
		accum_tile(job, g, p0, c, 0, n_p, 1, dtype);
	if (c < c1)
		accum_tile(job, g, p0, c, c1 - c, n_p, 1, dtype);
}

/* A group of rows into columns c .. c1-1 of all positions. */
VEC void accum_group(const mzm_accum_job *job, const group *g, int32_t c, int32_t c1, mzm_dtype dtype)
{
	int32_t p = 0;
	for (; p + VEC_POS <= job->n_pos; p += VEC_POS)
		accum_strip(job, g, p, c, c1, VEC_POS, dtype);
	switch (job->n_pos - p) {
	case 3:
		accum_strip(job, g, p, c, c1, 3, dtype);
		break;
	case 2:
		accum_strip(job, g, p, c, c1, 2, dtype);
		break;
	case 1:
		accum_strip(job, g, p, c, c1, 1, dtype);
		break;
	}
}

VEC void accum_range(const mzm_accum_job *job, int32_t c0, int32_t c1, mzm_dtype dtype)
{
	int32_t width = Y_BLOCK_BYTES / (int32_t)sizeof(float) / job->n_pos / 64 * 64;
	for (int32_t c = c0; c < c1; c += width) {
		int32_t end = c1 - c < width ? c1 : c + width;
		for (int32_t p = 0; p < job->n_pos; p++)
			memset(job->y + (size_t)p * job->ldy + c, 0, (size_t)(end - c) * sizeof(float));
		for (int32_t i = 0; i < job->n_rows; i += GROUP) {
			group g = {.a = job->a + i, .n = job->n_rows - i < GROUP ? job->n_rows - i : GROUP};
			for (int32_t k = 0; k < g.n; k++)
				g.w[k] = row_at(job->w, job->stride, job->rows, i + k);
			accum_group(job, &g, c, end, dtype);
		}
	}
}

static void accum_f32(const mzm_accum_job *job, int32_t c0, int32_t c1)
{
	accum_range(job, c0, c1, MZM_F32);
}
static void accum_f16(const mzm_accum_job *job, int32_t c0, int32_t c1)
{
	accum_range(job, c0, c1, MZM_F16);
}
static void accum_bf16(const mzm_accum_job *job, int32_t c0, int32_t c1)
{
	accum_range(job, c0, c1, MZM_BF16);
}

static void accum(const mzm_accum_job *job, int32_t c0, int32_t c1)
{
	static void (*const by_dtype[MZM_N_DTYPES])(const mzm_accum_job *, int32_t, int32_t) = {
		[MZM_F32] = accum_f32, [MZM_F16] = accum_f16, [MZM_BF16] = accum_bf16};
	by_dtype[job->dtype](job, c0, c1);
}

#endif
