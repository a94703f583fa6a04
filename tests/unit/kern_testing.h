/* kern_testing.h - what the tests of kernels share: buffers in a sea of NaN, random numbers, matrices of every type and
 * what their bytes mean, products run by one table in many ways. */
#ifndef MZM_KERN_TESTING_H
#define MZM_KERN_TESTING_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"
#include "kern/quant.h"

#define MARGIN 64 /* floats around every buffer */
#define CANARY 0x7fc0dead

/* For each table this CPU can run. */
#define EACH_TABLE(t) \
	for (const mzm_kern *const *t = mzm_kern_tables; *t; t++) \
		if (!(*t)->supported()) \
			continue; \
		else

static inline bool same(float a, float b)
{
	return mzm_f32_bits(a) == mzm_f32_bits(b) || (isnan(a) && isnan(b));
}

static inline void check_same(const float *got, const float *want, size_t n, const char *table, const char *what)
{
	for (size_t i = 0; i < n; i++)
		if (!same(got[i], want[i]))
			fail_msg("%s, %s: element %zu is %a, not %a", table, what, i, (double)got[i], (double)want[i]);
}

/* ---- buffers ---- */

static uint64_t draw; /* counter of the random numbers */

/* Mostly in -1 .. 1, some large, some tiny, some zero. */
static inline float random_value(void)
{
	uint64_t r = mzm_rng_u64(7, 1, draw++);
	float v = (float)(r >> 40) * 0x1p-23f - 1.0f;
	switch (r & 31) {
	case 0:
		return v * 1000.0f;
	case 1:
		return v * 1e-6f;
	case 2:
		return (r & 32) ? 0.0f : -0.0f;
	default:
		return v;
	}
}

/* n floats of canary with a margin before and behind; -> floats_free */
static inline float *floats_new(size_t n)
{
	float *p = malloc((n + 2 * MARGIN) * sizeof *p);
	assert_non_null(p);
	for (size_t i = 0; i < n + 2 * MARGIN; i++)
		p[i] = mzm_bits_f32(CANARY);
	return p + MARGIN;
}

static inline float *floats_random(size_t n)
{
	float *p = floats_new(n);
	for (size_t i = 0; i < n; i++)
		p[i] = random_value();
	return p;
}

static inline void floats_free(float *p)
{
	free(p - MARGIN);
}

static inline bool untouched(const float *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (mzm_f32_bits(p[i]) != CANARY)
			return false;
	return true;
}

/* The margins of a buffer of n floats, and the gaps behind the first n_used of every ld. */
static inline void check_untouched(const float *p, size_t n, size_t ld, size_t n_used)
{
	assert_true(untouched(p - MARGIN, MARGIN));
	assert_true(untouched(p + n, MARGIN));
	for (size_t row = 0; row < n; row += ld)
		assert_true(untouched(p + row + n_used, ld - n_used));
}

/* ---- the stated order ---- */

static inline float fold(float *lane)
{
	for (int half = 8; half > 0; half /= 2)
		for (int i = 0; i < half; i++)
			lane[i] = lane[i] + lane[i + half];
	return lane[0];
}

static inline float stated_dot(const float *a, const float *b, int32_t n)
{
	float lane[16] = {0};
	for (int32_t i = 0; i < (n + 15) / 16 * 16; i++)
		lane[i % 16] = i < n ? fmaf(a[i], b[i], lane[i % 16]) : fmaf(0.0f, 0.0f, lane[i % 16]);
	return fold(lane);
}

/* ---- matrices ---- */

static inline void put_element(char *p, mzm_dtype dtype, float v)
{
	uint16_t h = dtype == MZM_BF16 ? mzm_f32_to_bf16(v) : mzm_f32_to_f16(v);
	if (dtype == MZM_F32)
		memcpy(p, &v, 4);
	else
		memcpy(p, &h, 2);
}

static inline float get_element(const char *p, mzm_dtype dtype)
{
	float v;
	uint16_t h;
	memcpy(&h, p, 2);
	if (dtype == MZM_F32)
		memcpy(&v, p, 4);
	else
		v = dtype == MZM_BF16 ? mzm_bf16_to_f32(h) : mzm_f16_to_f32(h);
	return v;
}

/* Integer of weight c of a quantised row, by the formulas of quant.h. */
static inline int quant_q(const char *row, mzm_dtype dtype, int32_t n_cols, int32_t c)
{
	int group = c / 512, l = c % 512 / 32, k = c % 32 / 4, b = c % 4;
	int m = n_cols - 512 * group >= 512 ? 16 : (n_cols - 512 * group) / 32; /* blocks of this group */
	const uint8_t *at = (const uint8_t *)row + (dtype == MZM_Q8 ? 512 : 256) * group;
	if (dtype == MZM_Q8)
		return (int8_t)at[4 * m * k + 4 * l + b];
	uint8_t both = at[4 * m * (k % 4) + 4 * l + b];
	return (k < 4 ? both & 15 : both >> 4) - 8;
}

static inline char *quant_scale_at(char *row, mzm_dtype dtype, int32_t n_cols, int32_t block)
{
	return row + (dtype == MZM_Q8 ? n_cols : n_cols / 2) + 2 * block;
}

static inline float quant_scale(const char *row, mzm_dtype dtype, int32_t n_cols, int32_t block)
{
	return get_element(row + (dtype == MZM_Q8 ? n_cols : n_cols / 2) + 2 * block, MZM_F16);
}

typedef struct matrix {
	mzm_dtype dtype;
	int32_t   n_rows, n_cols;
	size_t    stride;
	char     *block, *w; /* NaN everywhere between and around the rows */
	float    *wide;      /* [n_rows, n_cols] */
} matrix;

static inline const float *wide_row(const matrix *m, int32_t r)
{
	return m->wide + (size_t)r * (size_t)m->n_cols;
}

static inline char *matrix_row(const matrix *m, int32_t r)
{
	return m->w + (size_t)r * m->stride;
}

/* Any bytes as weights; scales of any size that f16 has, of both signs. */
static inline void fill_quant_row(char *row, mzm_dtype dtype, int32_t n_cols)
{
	int32_t n_bytes = dtype == MZM_Q8 ? n_cols : n_cols / 2;
	for (int32_t i = 0; i < n_bytes; i++)
		row[i] = (char)mzm_rng_u64(7, 3, draw++);
	for (int32_t i = 0; i < n_cols / 32; i++)
		put_element(quant_scale_at(row, dtype, n_cols, i), MZM_F16, random_value() * 0.01f);
}

static inline void matrix_widen(matrix *m)
{
	for (int32_t r = 0; r < m->n_rows; r++) {
		for (int32_t c = 0; c < m->n_cols; c++) {
			const char *row = matrix_row(m, r);
			float *to = m->wide + (size_t)r * (size_t)m->n_cols + (size_t)c;
			if (mzm_dtype_is_quant(m->dtype))
				*to = quant_scale(row, m->dtype, m->n_cols, c / 32) *
				      (float)quant_q(row, m->dtype, m->n_cols, c);
			else
				*to = get_element(row + (size_t)c * mzm_dtype_bytes(m->dtype), m->dtype);
		}
	}
}

/* pad: elements between the rows (of quantised ones: lines of 64 bytes). The first row sits one element off any
 * alignment, if it is not one of blocks. -> matrix_free */
static inline matrix matrix_new(mzm_dtype dtype, int32_t n_rows, int32_t n_cols, int32_t pad)
{
	bool quant = mzm_dtype_is_quant(dtype);
	size_t elem = quant ? 64 : mzm_dtype_bytes(dtype), row_bytes = mzm_row_bytes(dtype, n_cols);
	matrix m = {.dtype = dtype, .n_rows = n_rows, .n_cols = n_cols, .stride = row_bytes + (size_t)pad * elem};
	size_t bytes = ((size_t)n_rows * m.stride + 2 * 64 * elem + 63) / 64 * 64;
	m.block = aligned_alloc(64, bytes);
	m.wide = malloc((size_t)n_rows * (size_t)n_cols * sizeof(float));
	assert_true(m.block && m.wide);
	memset(m.block, 0xff, bytes); /* NaN in every type */
	m.w = m.block + (quant ? 64 : 63 * elem);
	for (int32_t r = 0; r < n_rows; r++) {
		if (quant)
			fill_quant_row(matrix_row(&m, r), dtype, n_cols);
		for (int32_t c = 0; !quant && c < n_cols; c++)
			put_element(matrix_row(&m, r) + (size_t)c * elem, dtype, random_value());
	}
	matrix_widen(&m);
	return m;
}

static inline void matrix_free(matrix *m)
{
	free(m->block);
	free(m->wide);
}

/* ---- products ---- */

/* y[n_pos, n] = rows of m times x[n_pos, n_cols]; or y[n_pos, n_cols] = y0 + a[n_pos, n] times the rows. */
typedef struct product {
	matrix   m;
	int32_t *rows; /* list of n rows, or NULL: all n */
	int32_t  n, n_pos;
	float   *x;    /* [n_pos, n_cols] */
	float   *a;    /* [n_pos, n] */
	float   *y0;   /* [n_pos, n_cols] what the transposed product is added to */
} product;

/* Every other row or so, ascending; -> free */
static inline int32_t *random_list(int32_t n_rows, int32_t *n)
{
	int32_t *rows = malloc((size_t)(n_rows + 1) * sizeof *rows);
	assert_non_null(rows);
	*n = 0;
	for (int32_t r = 0; r < n_rows; r++)
		if (mzm_rng_u64(7, 2, draw++) & 1)
			rows[(*n)++] = r;
	return rows;
}

/* -> product_free */
static inline product product_new(mzm_dtype dtype, int32_t n_rows, int32_t n_cols, int32_t n_pos, int32_t pad,
				  bool listed)
{
	product p = {.m = matrix_new(dtype, n_rows, n_cols, pad), .n = n_rows, .n_pos = n_pos};
	if (listed)
		p.rows = random_list(n_rows, &p.n);
	p.x = floats_random((size_t)n_pos * (size_t)n_cols);
	p.a = floats_random((size_t)n_pos * (size_t)p.n);
	p.y0 = floats_random((size_t)n_pos * (size_t)n_cols);
	return p;
}

static inline void product_free(product *p)
{
	floats_free(p->x);
	floats_free(p->a);
	floats_free(p->y0);
	free(p->rows);
	matrix_free(&p->m);
}

static inline const char *product_row(const product *p, int32_t i)
{
	return matrix_row(&p->m, p->rows ? p->rows[i] : i);
}

static inline const float *product_wide(const product *p, int32_t i)
{
	return wide_row(&p->m, p->rows ? p->rows[i] : i);
}

/* Positions [p0, p0 + n_pos) packed for a table, all NaN where pack does not write; -> packed_free */
static inline char *packed_new(const mzm_kern *t, const product *p, int32_t p0, int32_t n_pos, size_t *ld)
{
	*ld = mzm_pack_stride(t, p->m.dtype, p->m.n_cols);
	assert_true(*ld % 64 == 0);
	size_t bytes = *ld * (size_t)n_pos;
	char *block = aligned_alloc(64, bytes + 128);
	assert_non_null(block);
	memset(block, 0xff, bytes + 128);
	for (int32_t i = 0; i < n_pos; i++)
		t->pack(block + 64 + (size_t)i * *ld, p->x + (size_t)(p0 + i) * (size_t)p->m.n_cols, p->m.dtype,
			p->m.n_cols);
	for (int i = 0; i < 64; i++)
		assert_true((uint8_t)block[i] == 0xff && (uint8_t)block[64 + bytes + (size_t)i] == 0xff);
	return block + 64;
}

static inline void packed_free(char *packed)
{
	free(packed - 64);
}

/* List entries [i0, i1), positions [p0, p0 + n_pos) by a table into y [.., ldy]. */
static inline void run_rows(const mzm_kern *t, const product *p, int32_t i0, int32_t i1, int32_t p0, int32_t n_pos,
			    float *y, size_t ldy)
{
	size_t ldx;
	char *x = packed_new(t, p, p0, n_pos, &ldx);
	mzm_rows_job job = {
		.dtype = p->m.dtype, .w = p->m.w, .stride = p->m.stride, .rows = p->rows, .n_rows = p->n,
		.n_cols = p->m.n_cols, .x = x, .ldx = ldx, .n_pos = n_pos, .y = y + (size_t)p0 * ldy, .ldy = ldy,
	};
	t->rows(&job, i0, i1);
	packed_free(x);
}

/* Units [u0, u1), positions [p0, p0 + n_pos) by a table, added to y [.., ldy]. */
static inline void run_accum(const mzm_kern *t, const product *p, int32_t u0, int32_t u1, int32_t p0, int32_t n_pos,
			     float *y, size_t ldy)
{
	static _Alignas(64) char scratch[MZM_ACCUM_SCRATCH + 64];
	memset(scratch, 0xff, sizeof scratch);
	mzm_accum_job job = {
		.dtype = p->m.dtype, .w = p->m.w, .stride = p->m.stride, .rows = p->rows, .n_rows = p->n,
		.n_cols = p->m.n_cols, .a = p->a + (size_t)p0 * (size_t)p->n, .lda = (size_t)p->n, .n_pos = n_pos,
		.y = y + (size_t)p0 * ldy, .ldy = ldy, .scratch = (float *)(void *)scratch,
	};
	t->accum(&job, u0, u1);
	for (size_t i = 0; i < 64; i++)
		assert_int_equal((uint8_t)scratch[MZM_ACCUM_SCRATCH + i], 0xff);
}

/* y0 in rows of ld floats, canaries behind each; -> floats_free */
static inline float *accum_start(const product *p, size_t ld)
{
	float *y = floats_new((size_t)p->n_pos * ld);
	for (int32_t i = 0; i < p->n_pos; i++)
		memcpy(y + (size_t)i * ld, p->y0 + (size_t)i * (size_t)p->m.n_cols,
		       (size_t)p->m.n_cols * sizeof *y);
	return y;
}

/* Products in bf16 by this table have an order of their own. */
static inline bool rounds(const mzm_kern *t, const product *p)
{
	return t->bf16_acts && p->m.dtype == MZM_BF16;
}

/* The whole product by one table, one output or unit and one position at a time. */
static inline void rows_one_by_one(const mzm_kern *t, const product *p, float *y, size_t ldy)
{
	for (int32_t i = 0; i < p->n; i++)
		for (int32_t k = 0; k < p->n_pos; k++)
			run_rows(t, p, i, i + 1, k, 1, y, ldy);
}

static inline void accum_one_by_one(const mzm_kern *t, const product *p, float *y, size_t ldy)
{
	for (int32_t u = 0; u < mzm_accum_units(p->m.dtype, p->m.n_cols); u++)
		for (int32_t k = 0; k < p->n_pos; k++)
			run_accum(t, p, u, u + 1, k, 1, y, ldy);
}

/* Against want, bit for bit: all at once, and cut in two. Writes nothing else. */
static inline void check_rows(const mzm_kern *t, const product *p, const float *want, size_t ldy, int32_t cut)
{
	size_t n_y = (size_t)p->n_pos * ldy;
	float *y = floats_new(n_y);
	run_rows(t, p, cut, p->n, 0, p->n_pos, y, ldy);
	for (int32_t k = 0; k < p->n_pos; k++) /* a range writes its own outputs only */
		assert_true(untouched(y + (size_t)k * ldy, (size_t)cut));
	run_rows(t, p, 0, cut, 0, p->n_pos, y, ldy);
	check_same(y, want, n_y, t->name, mzm_dtype_name(p->m.dtype));
	check_untouched(y, n_y, ldy, (size_t)p->n);
	floats_free(y);
}

static inline void check_accum(const mzm_kern *t, const product *p, const float *want, size_t ldy, int32_t cut)
{
	size_t n_y = (size_t)p->n_pos * ldy;
	float *y = accum_start(p, ldy);
	run_accum(t, p, cut, mzm_accum_units(p->m.dtype, p->m.n_cols), 0, p->n_pos, y, ldy);
	run_accum(t, p, 0, cut, 0, p->n_pos, y, ldy);
	check_same(y, want, n_y, t->name, mzm_dtype_name(p->m.dtype));
	check_untouched(y, n_y, ldy, (size_t)p->m.n_cols);
	floats_free(y);
}

/* |got - sum| <= 2 g sum |products|, g = m u / (1 - m u); and what the terms may lose among the denormals. Returns the
 * share of the bound that is used. */
static inline double check_bound(double got, double sum, double sum_abs, int32_t n_terms, double lost)
{
	double mu = n_terms * 0x1p-24;
	double bound = 2 * mu / (1 - mu) * sum_abs + n_terms * lost;
	if (!(fabs(got - sum) <= bound))
		fail_msg("%d terms: %.9g is not within %.3g of %.9g", (int)n_terms, got, bound, sum);
	return bound > 0 ? fabs(got - sum) / bound : 0;
}

#endif
