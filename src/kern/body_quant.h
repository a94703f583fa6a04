/* body_quant.h - the two matrix products over rows of 8-bit and 4-bit blocks (quant.h); compiled once per instruction
 * set over vec_*.h and int_*.h.
 *
 * rows: activations are rounded to int8, each block of 32 with its own scale, so a block's sum is one of integers and
 * exact; lane l of a v16 adds up block l of every group, and lanes fold at the end. accum: weights become floats, as
 * the scales differ from row to row. Both orders are the same in every table, so the tables give equal bits. */
#ifndef MZM_BODY_QUANT_H
#define MZM_BODY_QUANT_H

#include "kern/body_matrix.h"
#include "kern/quant.h"

/* ---- activations ---- */

/* A group of a packed position; lanes that the last group lacks are zero. */
typedef struct xgroup {
	int8_t  q[8][64];  /* [step k][4 l + b] */
	float   scale[16];
	int32_t minus[16]; /* minus the sum of the block's q: what takes a bias out of the weights */
} xgroup;

#define GROUPS(n_cols) (((n_cols) + MZM_Q_GROUP - 1) / MZM_Q_GROUP)

/* Blocks of group g. */
VEC int32_t group_blocks(int32_t n_cols, int32_t g)
{
	int32_t left = n_cols / MZM_Q_BLOCK - 16 * g;
	return left < 16 ? left : 16;
}

/* One block to q = round(x * 127 / max|x|). One with a NaN or an infinity gets a NaN as its scale. */
static void pack_block(xgroup *g, int l, const float *x)
{
	int8_t q[MZM_Q_BLOCK];
	v16 lo = v16_load(x), hi = v16_load(x + 16);
	float most = v16_fold_max(v16_max_abs(v16_max_abs(v16_set1(0.0f), lo), hi));
	float poison = v16_fold_add(v16_add(v16_sub(lo, lo), v16_sub(hi, hi))); /* 0; NaN if one is not finite */
	bool tiny = !(most >= 1e-30f);
	v16 inverse = v16_set1(tiny ? 0.0f : 127.0f / most);
	if (poison != 0.0f) { /* what a NaN is as an integer is not defined */
		memset(q, 0, sizeof q);
	} else {
		v16_store_i8(q, v16_mul(lo, inverse));
		v16_store_i8(q + 16, v16_mul(hi, inverse));
	}
	int32_t sum = 0;
	for (int i = 0; i < MZM_Q_BLOCK; i++)
		sum += q[i];
	for (int k = 0; k < 8; k++)
		memcpy(&g->q[k][4 * l], q + 4 * k, 4);
	g->scale[l] = poison != 0.0f ? poison : tiny ? 0.0f : most / 127.0f;
	g->minus[l] = -sum;
}

static void pack_quant(void *dst, const float *x, int32_t n_cols)
{
	xgroup *groups = dst;
	for (int32_t g = 0; g < GROUPS(n_cols); g++) {
		int32_t m = group_blocks(n_cols, g);
		if (m < 16)
			memset(&groups[g], 0, sizeof groups[g]);
		for (int32_t l = 0; l < m; l++)
			pack_block(&groups[g], l, x + (size_t)g * MZM_Q_GROUP + (size_t)l * MZM_Q_BLOCK);
	}
}

/* ---- rows ---- */

/* Rows side by side for one position. More than a tile's keep memory busy without fetching; q4 computes too long for
 * that. */
#ifdef VEC_IS_ARRAY
#define Q8_DECODE_ROWS 1
#define Q4_DECODE_ROWS 1
#else
#define Q8_DECODE_ROWS (VEC_ROWS == 4 ? 8 : 2)
#define Q4_DECODE_ROWS 2
#endif

/* Scales of a group's m blocks. */
VEC v16 load_scales(const char *row, mzm_dtype dtype, int32_t n_cols, int32_t g, int32_t m)
{
	const char *at = row + mzm_quant_bytes(dtype, n_cols) + 32 * (size_t)g;
	return m == 16 ? v16_load_f16(at) : v16_load_f16_tail(at, m);
}

/* What the integer sums of a position start from. */
VEC n16 start_sum(const xgroup *x, mzm_dtype dtype)
{
	if (dtype == MZM_Q4)
		return n16_shl(n16_load(x->minus), 3);
	return Q8_BIAS_SHIFT < 0 ? n16_zero() : n16_shl(n16_load(x->minus), Q8_BIAS_SHIFT & 7);
}

/* One load of weights of n_r rows against n_p positions: step v, and for q4 step v + 4 as well. */
VEC void quant_step(n16 *sum, const char *const *w, size_t offset, const xgroup *const *x, int v, int32_t m, int n_r,
		    int n_p, mzm_dtype dtype)
{
	qw low[MAX_SIDE], high[MAX_SIDE];
	UNROLL
	for (int r = 0; r < n_r; r++) {
		n16 raw = n16_load_bytes(w[r] + offset + (size_t)(4 * m * v), m);
		low[r] = dtype == MZM_Q4 ? qw_low(raw) : qw_q8(raw);
		if (dtype == MZM_Q4)
			high[r] = qw_high(raw);
	}
	UNROLL
	for (int p = 0; p < n_p; p++) {
		UNROLL
		for (int r = 0; r < n_r; r++) {
			sum[r * n_p + p] = qw_dot(sum[r * n_p + p], low[r], x[p]->q[v]);
			if (dtype == MZM_Q4)
				sum[r * n_p + p] = qw_dot(sum[r * n_p + p], high[r], x[p]->q[v + 4]);
		}
	}
}

/* Group g of n_r rows and n_p positions into the sums of a tile; fetches for rows [r0, r1). */
VEC void quant_group(v16 *total, const char *const *w, const uintptr_t *ahead, const xgroup *const *x, int32_t n_cols,
		     int32_t g, int32_t m, int n_r, int n_p, int r0, int r1, mzm_dtype dtype)
{
	n16 sum[MAX_SUMS];
	size_t offset = mzm_quant_bytes(dtype, g * MZM_Q_GROUP);
	UNROLL
	for (int p = 0; p < n_p; p++) {
		n16 start = start_sum(x[p], dtype);
		UNROLL
		for (int r = 0; r < n_r; r++)
			sum[r * n_p + p] = start;
	}
	UNROLL
	for (int v = 0; v < 8; v++) {
		if (dtype == MZM_Q4 && v >= 4)
			break;
		UNROLL
		for (int r = 0; r < n_r; r++)
			if (r0 <= r && r < r1)
				prefetch(ahead[r] + offset + (size_t)(64 * v), 1);
		quant_step(sum, w, offset, x, v, m, n_r, n_p, dtype);
	}
	UNROLL
	for (int r = 0; r < n_r; r++) {
		v16 ws = load_scales(w[r], dtype, n_cols, g, m);
		UNROLL
		for (int p = 0; p < n_p; p++) {
			v16 *at = &total[r * n_p + p];
			*at = v16_fma(n16_to_f32(sum[r * n_p + p]), v16_mul(ws, v16_load(x[p]->scale)), *at);
		}
	}
}

VEC void quant_tile(const mzm_rows_job *job, int32_t i, int32_t p0, int n_r, int n_p, mzm_dtype dtype)
{
	const char *w[MAX_SIDE];
	uintptr_t ahead[MAX_SIDE];
	const xgroup *x[MAX_SIDE];
	v16 total[MAX_SUMS];
	int32_t n_cols = job->n_cols;
	int r0, r1;
	fetch_share(p0 / VEC_POS, (job->n_pos + VEC_POS - 1) / VEC_POS, n_r > VEC_ROWS ? 0 : n_r, &r0, &r1);
	UNROLL
	for (int r = 0; r < n_r; r++) {
		w[r] = row_at(job->w, job->stride, job->rows, i + r);
		ahead[r] = look_ahead(job->w, job->stride, job->rows, job->n_rows, i + r, n_r, 2);
	}
	UNROLL
	for (int p = 0; p < n_p; p++)
		x[p] = (const xgroup *)(const void *)((const char *)job->x + (size_t)(p0 + p) * job->ldx);
	UNROLL
	for (int k = 0; k < n_r * n_p; k++)
		total[k] = v16_set1(0.0f);
	for (int32_t g = 0; g < GROUPS(n_cols); g++) {
		int32_t m = group_blocks(n_cols, g);
		if (m == 16)
			quant_group(total, w, ahead, x, n_cols, g, 16, n_r, n_p, r0, r1, dtype);
		else
			quant_group(total, w, ahead, x, n_cols, g, m, n_r, n_p, r0, r1, dtype);
		UNROLL
		for (int p = 0; p < n_p; p++)
			x[p]++;
	}
	store_sums(job, total, i, p0, n_r, n_p);
}

#define QUANT_TILE(name, n_r, n_p, dtype)                                \
	static void name(const mzm_rows_job *job, int32_t i, int32_t p)  \
	{                                                                \
		quant_tile(job, i, p, n_r, n_p, dtype);                  \
	}
#define QUANT_TILES(t, dtype, n_decode)                            \
	QUANT_TILE(rows_##t##_decode, n_decode, 1, dtype)          \
	QUANT_TILE(rows_##t##_1, VEC_ROWS, 1, dtype)               \
	QUANT_TILE(rows_##t##_2, VEC_ROWS, 2, dtype)               \
	QUANT_TILE(rows_##t##_3, VEC_ROWS, 3, dtype)               \
	QUANT_TILE(rows_##t##_4, VEC_ROWS, 4, dtype)               \
	QUANT_TILE(rows_##t##_single, 1, 1, dtype)
/* ---- accum ---- */

/* A quarter of a group: the weights of steps v and v + 4, 8 vectors of m columns. */
#define Q_UNIT_VECS 8
#define Q_UNIT (16 * Q_UNIT_VECS)

/* Vector e of a unit of one row as floats: step v for e < 4, else v + 4; byte e mod 4. */
VEC v16 unit_vec(n16 low, n16 high, int e, mzm_dtype dtype)
{
	if (dtype == MZM_Q4)
		return n16_nibble(low, e % 4, e / 4);
	return e < 4 ? n16_byte(low, e) : n16_byte(high, e - 4);
}

/* Adds a group of rows to unit u, of a group of m blocks, for n_p positions from p0 on; sum: [n_p, ld]. */
VEC void quant_accum_tile(float *sum, size_t ld, const mzm_accum_job *job, const group *g, int32_t p0, int32_t u,
			  int32_t m, int n_p, mzm_dtype dtype)
{
	v16 total[2 * Q_UNIT_VECS];
	const float *a = g->a + (size_t)p0 * job->lda;
	size_t second = (size_t)(16 * m), at = mzm_quant_bytes(dtype, u / 4 * MZM_Q_GROUP) + (size_t)(4 * m * (u % 4));
	UNROLL
	for (int k = 0; k < n_p * Q_UNIT_VECS; k++)
		total[k] = v16_load(sum + (size_t)(k / Q_UNIT_VECS) * ld + 16 * (k % Q_UNIT_VECS));
	for (int32_t i = 0; i < g->n; i++) {
		n16 low = n16_load_bytes(g->w[i] + at, m), high = low;
		v16 scale = load_scales(g->w[i], dtype, job->n_cols, u / 4, m), as[2];
		if (dtype == MZM_Q8)
			high = n16_load_bytes(g->w[i] + at + second, m);
		if (p0 == 0)
			prefetch(g->ahead[i] + at, 1);
		if (p0 == 0 && dtype == MZM_Q8)
			prefetch(g->ahead[i] + at + second, 1);
		UNROLL
		for (int p = 0; p < n_p; p++)
			as[p] = v16_mul(scale, v16_set1(a[(size_t)p * job->lda + (size_t)i]));
		UNROLL
		for (int e = 0; e < Q_UNIT_VECS; e++) {
			v16 q = unit_vec(low, high, e, dtype);
			UNROLL
			for (int p = 0; p < n_p; p++)
				total[p * Q_UNIT_VECS + e] = v16_fma(q, as[p], total[p * Q_UNIT_VECS + e]);
		}
	}
	UNROLL
	for (int k = 0; k < n_p * Q_UNIT_VECS; k++)
		v16_store(sum + (size_t)(k / Q_UNIT_VECS) * ld + 16 * (k % Q_UNIT_VECS), total[k]);
}

#define QUANT_ADD(name, dtype)                                                                                       \
	static void name(float *sum, size_t ld, const mzm_accum_job *job, const group *g, int32_t u0, int32_t u1)    \
	{                                                                                                            \
		for (int32_t u = u0; u < u1; u++, sum += Q_UNIT) {                                                   \
			int32_t m = group_blocks(job->n_cols, u / 4), p = 0;                                         \
			for (; p + 2 <= job->n_pos; p += 2)                                                          \
				quant_accum_tile(sum + (size_t)p * ld, ld, job, g, p, u, m, 2, dtype);               \
			if (p < job->n_pos)                                                                          \
				quant_accum_tile(sum + (size_t)p * ld, ld, job, g, p, u, m, 1, dtype);               \
		}                                                                                                    \
	}

static void finish_unit(float *y, const float *sum, int32_t n_cols, int32_t u)
{
	int32_t m = group_blocks(n_cols, u / 4);
	float *of_group = y + (size_t)(u / 4) * MZM_Q_GROUP;
	for (int e = 0; e < Q_UNIT_VECS; e++) {
		float *at = of_group + 4 * (u % 4 + e / 4 * 4) + e % 4;
		for (int32_t l = 0; l < m; l++)
			at[(size_t)l * MZM_Q_BLOCK] += sum[16 * e + l];
	}
}

/* ---- widening ---- */

/* One row to floats. The four bytes a step of a block are gathered, so that columns come out in order. */
static void widen_quant(float *y, const char *row, mzm_dtype dtype, int32_t n_cols)
{
	for (int32_t block = 0; block < n_cols / MZM_Q_BLOCK; block++) {
		int32_t g = block / 16, l = block % 16, m = group_blocks(n_cols, g);
		const char *from = row + mzm_quant_bytes(dtype, g * MZM_Q_GROUP) + 4 * l;
		int8_t q[MZM_Q_BLOCK];
		uint16_t h;
		memcpy(&h, row + mzm_quant_bytes(dtype, n_cols) + 2 * (size_t)block, 2);
		v16 d = v16_set1(mzm_f16_to_f32(h));
		for (int k = 0; k < (dtype == MZM_Q4 ? 4 : 8); k++)
			memcpy(q + 4 * k, from + (size_t)(4 * m * k), 4);
		for (int i = 0; dtype == MZM_Q4 && i < 16; i++) {
			uint8_t both = (uint8_t)q[i];
			q[i] = (int8_t)((both & 15) - 8);
			q[i + 16] = (int8_t)((both >> 4) - 8);
		}
		v16_store(y + (size_t)block * MZM_Q_BLOCK, v16_mul(v16_load_i8(q), d));
		v16_store(y + (size_t)block * MZM_Q_BLOCK + 16, v16_mul(v16_load_i8(q + 16), d));
	}
}

#endif
