/* body_dot.h - products by vdpbf16ps, two bf16 products a lane and instruction; AVX-512 BF16 only.
 *
 * rows: activations are rounded to bf16; lane i sums columns 2i, 2i+1, 2i+32, ...; the rest is as in kern.h. With more
 * positions than a register tile holds, columns are cut into blocks that stay in L1 while the tiles of all positions
 * pass over them; a sum goes on where it stopped, so that the cut does not change it.
 *
 * accum: two rows at a time. Their weights, widened to bf16 (all of -127 .. 127 fit exactly), lie side by side in a
 * lane, and meet the pair of their activations, times the scales of the blocks where there are some, rounded to bf16.
 * A group of rows is turned into pairs once, into L1, and serves all positions from there. */
#ifndef MZM_BODY_DOT_H
#define MZM_BODY_DOT_H

#define DOT_BF16 1

#include "kern/body_quant.h"

static void pack_bf16(void *dst, const float *x, int32_t n_cols)
{
	for (int32_t i = 0; i < n_cols; i += 32) {
		int32_t left = n_cols - i;
		v16 lo = left >= 16 ? v16_load(x + i) : v16_load_tail(x + i, left, 0.0f);
		v16 hi = left >= 32 ? v16_load(x + i + 16) : v16_set1(0.0f);
		if (left > 16 && left < 32)
			hi = v16_load_tail(x + i + 16, left - 16, 0.0f);
		_mm512_store_si512((char *)dst + 2 * (size_t)i, (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
	}
}

/* ---- rows ---- */

#define DOT_POS 2
#define DOT_ROWS 8     /* so many streams of reading keep memory busy; fewer do not */
#define DOT_BLOCK 1024 /* columns: DOT_ROWS of them fill a third of L1 */

VEC v16 dot_pairs(v16 sum, __m512i a, __m512i b)
{
	return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

VEC __m512i load_pairs(const char *row, int32_t c, int32_t left)
{
	const char *at = row + 2 * (size_t)c;
	return left >= 32 ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi16((__mmask32)((1ull << left) - 1), at);
}

/* Columns c0 .. c1-1 into the sums of a tile; those past the last 32 of a row are zeros in x. left: 32, or the number
 * of columns when there are fewer. */
VEC void dot_block(v16 *sum, const char *const *w, const uintptr_t *ahead, const char *x, size_t ldx, int32_t c0,
		   int32_t c1, int32_t left, int n_ahead, int n_r, int n_p)
{
	for (int32_t c = c0; c < c1; c += 32) {
		__m512i wide[DOT_ROWS];
		UNROLL
		for (int r = 0; r < n_r; r++)
			wide[r] = load_pairs(w[r], c, left);
		UNROLL
		for (int r = 0; r < n_r; r++)
			if (r < n_ahead)
				prefetch(ahead[r] + 2 * (size_t)c, 2);
		UNROLL
		for (int p = 0; p < n_p; p++) {
			__m512i xs = _mm512_load_si512(x + (size_t)p * ldx + 2 * (size_t)c);
			UNROLL
			for (int r = 0; r < n_r; r++)
				sum[r * n_p + p] = dot_pairs(sum[r * n_p + p], wide[r], xs);
		}
	}
}

/* The rows of a strip and what to fetch meanwhile. */
typedef struct strip {
	const char *w[DOT_ROWS];
	uintptr_t   ahead[DOT_ROWS];
} strip;

VEC strip make_strip(const mzm_rows_job *job, int32_t i, int n_r)
{
	strip s;
	UNROLL
	for (int r = 0; r < n_r; r++) {
		s.w[r] = row_at(job->w, job->stride, job->rows, i + r);
		s.ahead[r] = look_ahead(job->w, job->stride, job->rows, job->n_rows, i + r, n_r, 2);
	}
	return s;
}

/* With one position four rows side by side and nothing fetched: so many plain loads wait at once that memory is as busy
 * as it gets, which fetching by instructions does not reach (SPEED.md). */
#define ONE_ROWS 4

/* n_r rows from i on against position p. */
VEC void dot_one(const mzm_rows_job *job, int32_t i, int32_t p, int n_r)
{
	const char *w[ONE_ROWS], *x = (const char *)job->x + (size_t)p * job->ldx;
	v16 sum[ONE_ROWS];
	int32_t whole = job->n_cols / 32 * 32;
	UNROLL
	for (int r = 0; r < n_r; r++) {
		w[r] = row_at(job->w, job->stride, job->rows, i + r);
		sum[r] = v16_set1(0.0f);
	}
	dot_block(sum, w, NULL, x, job->ldx, 0, whole, 32, 0, n_r, 1);
	if (whole < job->n_cols)
		dot_block(sum, w, NULL, x, job->ldx, whole, job->n_cols, job->n_cols - whole, 0, n_r, 1);
	store_sums(job, sum, i, p, n_r, 1);
}

/* Columns c0 .. c1-1 of a strip for n_p positions; their sums wait in `sum` [n_p][DOT_ROWS] between blocks. */
VEC void dot_tile(v16 *sum, const strip *s, const char *x, size_t ldx, int32_t c0, int32_t c1, int r0, int r1, int n_p)
{
	v16 t[DOT_ROWS * DOT_POS];
	UNROLL
	for (int k = 0; k < DOT_ROWS * n_p; k++)
		t[k % DOT_ROWS * n_p + k / DOT_ROWS] = c0 ? sum[k] : v16_set1(0.0f);
	if (c1 % 32 == 0)
		dot_block(t, s->w, s->ahead + r0, x, ldx, c0, c1, 32, r1 - r0, DOT_ROWS, n_p);
	else
		dot_block(t, s->w, s->ahead + r0, x, ldx, c0, c1, c1 - c0, 0, DOT_ROWS, n_p);
	UNROLL
	for (int k = 0; k < DOT_ROWS * n_p; k++)
		sum[k] = t[k % DOT_ROWS * n_p + k / DOT_ROWS];
}

typedef void (*dot_fn)(v16 *sum, const strip *s, const char *x, size_t ldx, int32_t c0, int32_t c1, int r0,
		       int r1);

#define DOT_TILE(n_p)                                                                                                \
	static void dot_tile_##n_p(v16 *sum, const strip *s, const char *x, size_t ldx, int32_t c0, int32_t c1,      \
				   int r0, int r1)                                                                   \
	{                                                                                                            \
		dot_tile(sum, s, x, ldx, c0, c1, r0, r1, n_p);                                                       \
	}
DOT_TILE(1)
DOT_TILE(2)

/* DOT_ROWS rows from i on against all positions. */
static void dot_strip(const mzm_rows_job *job, int32_t i)
{
	static const dot_fn fn[DOT_POS + 1] = {NULL, dot_tile_1, dot_tile_2};
	v16 sum[MZM_MAX_POS * DOT_ROWS];
	strip s = make_strip(job, i, DOT_ROWS);
	int32_t n_tiles = (job->n_pos + DOT_POS - 1) / DOT_POS, whole = job->n_cols / 32 * 32;
	for (int32_t c = 0, end; c < job->n_cols; c = end) {
		end = whole - c > DOT_BLOCK ? c + DOT_BLOCK : c < whole ? whole : job->n_cols;
		for (int32_t t = 0; t < n_tiles; t++) {
			int32_t p = t * DOT_POS, n = job->n_pos - p < DOT_POS ? job->n_pos - p : DOT_POS;
			int r0, r1;
			fetch_share(t, n_tiles, DOT_ROWS, &r0, &r1);
			fn[n](sum + (size_t)p * DOT_ROWS, &s, (const char *)job->x + (size_t)p * job->ldx,
				     job->ldx, c, end, r0, r1);
		}
	}
	for (int32_t p = 0; p < job->n_pos; p++)
		for (int r = 0; r < DOT_ROWS; r += 4)
			v16_store_fold4(job->y + (size_t)p * job->ldy + (size_t)(i + r),
					sum + (size_t)p * DOT_ROWS + r, 1);
}

static void rows_dot(const mzm_rows_job *job, int32_t i0, int32_t i1)
{
	int32_t i = i0;
	for (; job->n_pos == 1 && i1 - i >= ONE_ROWS; i += ONE_ROWS)
		dot_one(job, i, 0, ONE_ROWS);
	for (; i1 - i >= DOT_ROWS; i += DOT_ROWS)
		dot_strip(job, i);
	if (i < i1 && i1 - i0 >= DOT_ROWS && job->n_pos > 1) {
		dot_strip(job, i1 - DOT_ROWS); /* overlaps: an output computed twice is the same twice */
		return;
	}
	for (; i < i1; i++)
		for (int32_t p = 0; p < job->n_pos; p++)
			dot_one(job, i, p, 1);
}

/* ---- accum ---- */

#define MAX_PAIRS (GROUP_MAX / 2)
#define ODD_WORDS 0xaaaaaaaau

/* a, rounded to bf16, in the lower and b in the upper half of each lane. */
VEC __m512i join_bf16(v16 a, v16 b)
{
	static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
					   8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
	return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), (__m512i)_mm512_cvtne2ps_pbh(b, a));
}

/* The second row of a pair. An odd group's last pair has none: its first row stands in, and counts as zeros. */
VEC int32_t partner(const group *g, int32_t i)
{
	return i + 1 < g->n ? i + 1 : i;
}

/* act: [n_pos, MAX_PAIRS] pairs of activations. */
static void pair_acts(uint32_t *act, const mzm_accum_job *job, const group *g)
{
	for (int32_t p = 0; p < job->n_pos; p++, act += MAX_PAIRS) {
		const float *a = g->a + (size_t)p * job->lda;
		for (int32_t i = 0; i < g->n; i += 16) {
			v16 v = g->n - i < 16 ? v16_load_tail(a + i, g->n - i, 0.0f) : v16_load(a + i);
			_mm256_storeu_si256((__m256i_u *)(void *)(act + i / 2), (__m256i)_mm512_cvtneps_pbh(v));
		}
	}
}

/* act: [n_pos, MAX_PAIRS] pairs of activations times the scales of the blocks, lane l those of block l. */
static void pair_scaled(__m512i *act, const mzm_accum_job *job, const group *g, int32_t of_group, int32_t m)
{
	for (int32_t i = 0; i < g->n; i += 2) {
		v16 s0 = load_scales(g->w[i], job->dtype, job->n_cols, of_group, m);
		v16 s1 = load_scales(g->w[partner(g, i)], job->dtype, job->n_cols, of_group, m);
		for (int32_t p = 0; p < job->n_pos; p++) {
			const float *a = g->a + (size_t)p * job->lda + i;
			v16 first_row = v16_mul(v16_set1(a[0]), s0);
			v16 second_row = i + 1 < g->n ? v16_mul(v16_set1(a[1]), s1) : v16_set1(0.0f);
			act[p * MAX_PAIRS + i / 2] = join_bf16(first_row, second_row);
		}
	}
}

/* n_p positions of n_v vectors: sums += pairs of weights [n_pairs, n_v] times pairs of activations, one for all lanes
 * (same) or one for each (scaled). */
VEC void add_pairs(float *sum, size_t ld, const __m512i *w, const uint32_t *same, const __m512i *scaled,
		   int32_t n_pairs, int n_p, int n_v)
{
	v16 t[24];
	UNROLL
	for (int k = 0; k < n_p * n_v; k++)
		t[k] = v16_load(sum + (size_t)(k / n_v) * ld + 16 * (k % n_v));
	for (int32_t i = 0; i < n_pairs; i++) {
		__m512i a[4];
		UNROLL
		for (int p = 0; p < n_p; p++)
			a[p] = same ? _mm512_set1_epi32((int)same[p * MAX_PAIRS + i]) : scaled[p * MAX_PAIRS + i];
		UNROLL
		for (int k = 0; k < n_v; k++) {
			__m512i pair = w[i * n_v + k];
			UNROLL
			for (int p = 0; p < n_p; p++)
				t[p * n_v + k] = dot_pairs(t[p * n_v + k], pair, a[p]);
		}
	}
	UNROLL
	for (int k = 0; k < n_p * n_v; k++)
		v16_store(sum + (size_t)(k / n_v) * ld + 16 * (k % n_v), t[k]);
}

/* Pairs of a group: n_u units of 64 columns in order, from column c on, `left` of them there. w: [n_u][n_pairs][4]. */
#define COLS_VECS 4
#define COLS_UNITS 4 /* a run of 512 bytes of each row */

/* Words 0, 32, 1, 33, ... of two registers; the upper halves likewise, 16 further on. */
static const uint16_t lower_words[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
					 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};

VEC void join_cols(__m512i *w, const group *g, int32_t c, int32_t left, int n_u)
{
	__m512i lower = _mm512_loadu_si512(lower_words), upper = _mm512_add_epi16(lower, _mm512_set1_epi16(16));
	int32_t n_pairs = (g->n + 1) / 2;
	for (int32_t i = 0; i < n_pairs; i++) {
		int32_t second = partner(g, 2 * i);
		UNROLL
		for (int k = 0; k < 2 * n_u; k++) {
			int32_t at = c + 32 * k, n = left - 32 * k < 0 ? 0 : left - 32 * k;
			__m512i a = load_pairs(g->w[2 * i], at, n), b = _mm512_setzero_si512();
			if (second > 2 * i)
				b = load_pairs(g->w[second], at, n);
			__m512i *to = w + (k / 2 * n_pairs + i) * COLS_VECS + k % 2 * 2;
			to[0] = _mm512_permutex2var_epi16(a, lower, b);
			to[1] = _mm512_permutex2var_epi16(a, upper, b);
			prefetch(g->ahead[2 * i] + 2 * (size_t)at, 1);
			prefetch(g->ahead[second] + 2 * (size_t)at, 1);
		}
	}
}

/* One position needs no pairs in L1: the rows of a group go side by side, as in dot_one. */
#define ONE_GROUP 16
#define BF16_GROUP ONE_GROUP
#define ONE_HEAD 128 /* columns of the next group's rows that are fetched: the rest follows by itself */

/* Columns c0 .. c1-1 of a group; `back` bytes before them lie those that are fetched of the next one, if any. */
VEC void add_one_block(float *sum, const group *g, const __m512i *act, int32_t c0, int32_t c1, int32_t left,
		       size_t back)
{
	__m512i lower = _mm512_loadu_si512(lower_words), upper = _mm512_add_epi16(lower, _mm512_set1_epi16(16));
	for (int32_t c = c0; c < c1; c += 32, sum += 32) {
		v16 t0 = v16_load(sum), t1 = v16_load(sum + 16);
		UNROLL
		for (int i = 0; i < ONE_GROUP; i += 2) {
			__m512i a = load_pairs(g->w[i], c, left), b = load_pairs(g->w[i + 1], c, left);
			t0 = dot_pairs(t0, _mm512_permutex2var_epi16(a, lower, b), act[i / 2]);
			t1 = dot_pairs(t1, _mm512_permutex2var_epi16(a, upper, b), act[i / 2]);
			if (back) {
				prefetch(g->ahead[i] + 2 * (size_t)c - back, 1);
				prefetch(g->ahead[i + 1] + 2 * (size_t)c - back, 1);
			}
		}
		v16_store(sum, t0);
		v16_store(sum + 16, t1);
	}
}

/* Units u0 .. u1-1 of a whole group of ONE_GROUP rows. */
static void add_one(float *sum, const mzm_accum_job *job, const group *g, int32_t u0, int32_t u1)
{
	uint32_t pair[MAX_PAIRS];
	__m512i act[ONE_GROUP / 2];
	int32_t c0 = u0 * UNIT_COLS, c1 = u1 * UNIT_COLS < job->n_cols ? u1 * UNIT_COLS : job->n_cols;
	int32_t whole = c0 + (c1 - c0) / 32 * 32, head = whole - c0 > ONE_HEAD ? whole - ONE_HEAD : c0;
	pair_acts(pair, job, g);
	UNROLL
	for (int i = 0; i < ONE_GROUP / 2; i++)
		act[i] = _mm512_set1_epi32((int)pair[i]);
	add_one_block(sum, g, act, c0, head, 32, 0);
	if (head > c0)
		add_one_block(sum + (head - c0), g, act, head, whole, 32, 2 * (size_t)(head - c0));
	else
		add_one_block(sum, g, act, c0, whole, 32, 0);
	if (whole < c1)
		add_one_block(sum + (whole - c0), g, act, whole, c1, c1 - whole, 0);
}

static void add_bf16(float *sum, size_t ld, const mzm_accum_job *job, const group *g, int32_t u0, int32_t u1)
{
	__m512i w[COLS_UNITS * MAX_PAIRS * COLS_VECS];
	uint32_t act[MAX_PAIRS * MZM_MAX_POS];
	int32_t n_pairs = (g->n + 1) / 2, n_pos = job->n_pos, n_u;
	if (n_pos == 1 && g->n == ONE_GROUP) {
		add_one(sum, job, g, u0, u1);
		return;
	}
	pair_acts(act, job, g);
	for (int32_t u = u0; u < u1; u += n_u) {
		int32_t c = u * UNIT_COLS, left = job->n_cols - c;
		n_u = u1 - u >= COLS_UNITS && left >= COLS_UNITS * UNIT_COLS ? COLS_UNITS : 1;
		if (n_u > 1)
			join_cols(w, g, c, COLS_UNITS * UNIT_COLS, COLS_UNITS);
		else
			join_cols(w, g, c, left, 1);
		for (int32_t k = 0; k < n_u; k++, sum += UNIT_COLS) {
			const __m512i *of_unit = w + k * n_pairs * COLS_VECS;
			int32_t p = 0;
			for (; p + 4 <= n_pos; p += 4)
				add_pairs(sum + (size_t)p * ld, ld, of_unit, act + p * MAX_PAIRS, NULL, n_pairs, 4,
					  COLS_VECS);
			for (; p < n_pos; p++)
				add_pairs(sum + (size_t)p * ld, ld, of_unit, act + p * MAX_PAIRS, NULL, n_pairs, 1,
					  COLS_VECS);
		}
	}
}

/* Four vectors of pairs from step k of two rows: byte b of each lane, widened. */
VEC void join_q8(__m512i *w, n16 a, n16 b)
{
	UNROLL
	for (int e = 0; e < 4; e++) {
		__m512i fa = _mm512_castps_si512(n16_byte(a, e)), fb = _mm512_castps_si512(n16_byte(b, e));
		w[e] = _mm512_mask_blend_epi16(ODD_WORDS, _mm512_srli_epi32(fa, 16), fb);
	}
}

/* Eight vectors from 64 bytes of halves of two rows: a table turns each half into bf16; the fifth bit of its index is
 * the next half's and does not matter. */
VEC void join_q4(__m512i *w, n16 a, n16 b)
{
	static const uint16_t less_8[32] = {
		0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000,
		0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040,
		0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};
	__m512i table = _mm512_loadu_si512(less_8);
	__m512i half[2] = {_mm512_mask_blend_epi16(ODD_WORDS, a, _mm512_slli_epi32(b, 16)),
			   _mm512_mask_blend_epi16(ODD_WORDS, _mm512_srli_epi32(a, 16), b)};
	UNROLL
	for (int k = 0; k < 8; k++) { /* byte 2 (k / 4) + k / 2 % 2, its half k % 2 */
		__m512i index = _mm512_srli_epi32(half[k / 4], (unsigned)(4 * (k % 4)));
		w[2 * (k / 4) + k / 2 % 2 + 4 * (k % 2)] = _mm512_permutexvar_epi16(index, table);
	}
}

/* Pairs of a group in unit u, in the order of unit_vec(). */
VEC void join_unit(__m512i *w, const group *g, int32_t u, int32_t m, mzm_dtype dtype)
{
	size_t second = (size_t)(16 * m), at = mzm_quant_bytes(dtype, u / 4 * MZM_Q_GROUP) + (size_t)(4 * m * (u % 4));
	for (int32_t i = 0; i < g->n; i += 2, w += Q_UNIT_VECS) {
		int32_t k = partner(g, i);
		n16 a = n16_load_bytes(g->w[i] + at, m), b = n16_load_bytes(g->w[k] + at, m);
		prefetch(g->ahead[i] + at, 1);
		prefetch(g->ahead[k] + at, 1);
		if (dtype == MZM_Q4) {
			join_q4(w, a, b);
			continue;
		}
		join_q8(w, a, b);
		a = n16_load_bytes(g->w[i] + at + second, m);
		b = n16_load_bytes(g->w[k] + at + second, m);
		join_q8(w + 4, a, b);
		prefetch(g->ahead[i] + at + second, 1);
		prefetch(g->ahead[k] + at + second, 1);
	}
}

VEC void add_quant(float *sum, size_t ld, const mzm_accum_job *job, const group *g, int32_t u0, int32_t u1,
		   mzm_dtype dtype)
{
	__m512i w[MAX_PAIRS * Q_UNIT_VECS], act[MAX_PAIRS * MZM_MAX_POS];
	int32_t n_pairs = (g->n + 1) / 2, n_pos = job->n_pos;
	for (int32_t u = u0; u < u1; u++, sum += Q_UNIT) {
		int32_t m = group_blocks(job->n_cols, u / 4), p = 0;
		if (u == u0 || u % 4 == 0)
			pair_scaled(act, job, g, u / 4, m);
		if (m == 16)
			join_unit(w, g, u, 16, dtype);
		else
			join_unit(w, g, u, m, dtype);
		for (; p + 3 <= n_pos; p += 3)
			add_pairs(sum + (size_t)p * ld, ld, w, NULL, act + p * MAX_PAIRS, n_pairs, 3, Q_UNIT_VECS);
		if (p + 2 == n_pos)
			add_pairs(sum + (size_t)p * ld, ld, w, NULL, act + p * MAX_PAIRS, n_pairs, 2, Q_UNIT_VECS);
		else if (p < n_pos)
			add_pairs(sum + (size_t)p * ld, ld, w, NULL, act + p * MAX_PAIRS, n_pairs, 1, Q_UNIT_VECS);
	}
}

static void add_q8(float *sum, size_t ld, const mzm_accum_job *job, const group *g, int32_t u0, int32_t u1)
{
	add_quant(sum, ld, job, g, u0, u1, MZM_Q8);
}

static void add_q4(float *sum, size_t ld, const mzm_accum_job *job, const group *g, int32_t u0, int32_t u1)
{
	add_quant(sum, ld, job, g, u0, u1, MZM_Q4);
}

#endif
