/* test_kern.c - every table the CPU has, against the order that kern.h states and against double precision.
 *
 * The order is written out once more here, one fused multiply-add after the other. That a table equals it bit for bit
 * is the strongest test: it makes tables, ranges, numbers of positions and index lists equal among themselves. The
 * double-precision bound guards against an error that code and reference share. Inputs sit in a sea of NaN, and once
 * against an unreadable page; outputs in a pattern that must survive. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"
#include "kern/kern.h"

#define MARGIN 64 /* floats around every buffer */
#define CANARY 0x7fc0dead

/* For each table this CPU can run. */
#define EACH_TABLE(t) \
	for (const mzm_kern *const *t = mzm_kern_tables; *t; t++) \
		if (!(*t)->supported()) \
			continue; \
		else

static bool same(float a, float b)
{
	return mzm_f32_bits(a) == mzm_f32_bits(b) || (isnan(a) && isnan(b));
}

static void check_same(const float *got, const float *want, size_t n, const char *table, const char *what)
{
	for (size_t i = 0; i < n; i++)
		if (!same(got[i], want[i]))
			fail_msg("%s, %s: element %zu is %a, not %a", table, what, i, (double)got[i], (double)want[i]);
}

/* ---- buffers ---- */

static uint64_t draw; /* counter of the random numbers */

/* Mostly in -1 .. 1, some large, some tiny, some zero. */
static float random_value(void)
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
static float *floats_new(size_t n)
{
	float *p = malloc((n + 2 * MARGIN) * sizeof *p);
	assert_non_null(p);
	for (size_t i = 0; i < n + 2 * MARGIN; i++)
		p[i] = mzm_bits_f32(CANARY);
	return p + MARGIN;
}

static float *floats_random(size_t n)
{
	float *p = floats_new(n);
	for (size_t i = 0; i < n; i++)
		p[i] = random_value();
	return p;
}

static void floats_free(float *p)
{
	free(p - MARGIN);
}

static bool untouched(const float *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (mzm_f32_bits(p[i]) != CANARY)
			return false;
	return true;
}

/* The margins of a buffer of n floats, and the gaps behind the first n_used of every ld. */
static void check_untouched(const float *p, size_t n, size_t ld, size_t n_used)
{
	assert_true(untouched(p - MARGIN, MARGIN));
	assert_true(untouched(p + n, MARGIN));
	for (size_t row = 0; row < n; row += ld)
		assert_true(untouched(p + row + n_used, ld - n_used));
}

/* ---- matrices ---- */

typedef struct matrix {
	mzm_dtype dtype;
	int32_t   n_rows, n_cols;
	size_t    stride;
	char     *block, *w; /* NaN everywhere between and around the rows */
	float    *wide;      /* [n_rows, n_cols] */
} matrix;

static void put_element(char *p, mzm_dtype dtype, float v)
{
	uint16_t h = dtype == MZM_BF16 ? mzm_f32_to_bf16(v) : mzm_f32_to_f16(v);
	if (dtype == MZM_F32)
		memcpy(p, &v, 4);
	else
		memcpy(p, &h, 2);
}

static float get_element(const char *p, mzm_dtype dtype)
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

/* pad: elements between the rows; the first row sits one element off any alignment. */
static matrix matrix_new(mzm_dtype dtype, int32_t n_rows, int32_t n_cols, int32_t pad)
{
	size_t elem = mzm_dtype_bytes(dtype);
	matrix m = {.dtype = dtype, .n_rows = n_rows, .n_cols = n_cols, .stride = (size_t)(n_cols + pad) * elem};
	size_t bytes = (size_t)n_rows * m.stride + 2 * 64 * elem;
	m.block = malloc(bytes);
	m.wide = malloc((size_t)n_rows * (size_t)n_cols * sizeof(float));
	assert_true(m.block && m.wide);
	for (size_t i = 0; i < bytes; i += elem)
		put_element(m.block + i, dtype, NAN);
	m.w = m.block + 63 * elem;
	for (int32_t r = 0; r < n_rows; r++) {
		for (int32_t c = 0; c < n_cols; c++) {
			char *p = m.w + (size_t)r * m.stride + (size_t)c * elem;
			put_element(p, dtype, random_value());
			m.wide[(size_t)r * (size_t)n_cols + (size_t)c] = get_element(p, dtype);
		}
	}
	return m;
}

static void matrix_free(matrix *m)
{
	free(m->block);
	free(m->wide);
}

static const float *wide_row(const matrix *m, int32_t r)
{
	return m->wide + (size_t)r * (size_t)m->n_cols;
}

/* ---- the stated order, written out ---- */

static float fold(float *lane)
{
	for (int half = 8; half > 0; half /= 2)
		for (int i = 0; i < half; i++)
			lane[i] = lane[i] + lane[i + half];
	return lane[0];
}

static float stated_dot(const float *a, const float *b, int32_t n)
{
	float lane[16] = {0};
	for (int32_t i = 0; i < (n + 15) / 16 * 16; i++)
		lane[i % 16] = i < n ? fmaf(a[i], b[i], lane[i % 16]) : fmaf(0.0f, 0.0f, lane[i % 16]);
	return fold(lane);
}

static void stated_rows(const mzm_rows_job *job, const matrix *m, float *y)
{
	for (int32_t p = 0; p < job->n_pos; p++)
		for (int32_t i = 0; i < job->n_rows; i++)
			y[(size_t)p * job->ldy + (size_t)i] = stated_dot(wide_row(m, job->rows ? job->rows[i] : i),
									 job->x + (size_t)p * job->ldx, m->n_cols);
}

static void stated_accum(const mzm_accum_job *job, const matrix *m, float *y)
{
	for (int32_t p = 0; p < job->n_pos; p++) {
		for (int32_t c = 0; c < job->n_cols; c++) {
			float sum = 0.0f;
			for (int32_t i = 0; i < job->n_rows; i++)
				sum = fmaf(job->a[(size_t)p * job->lda + (size_t)i],
					   wide_row(m, job->rows ? job->rows[i] : i)[c], sum);
			y[(size_t)p * job->ldy + (size_t)c] = sum;
		}
	}
}

/* |got - sum| <= 2 g sum |products|, g = m u / (1 - m u); and what one rounding in the denormals costs a term. */
static void check_bound(double got, double sum, double sum_abs, int32_t n_terms)
{
	double mu = n_terms * 0x1p-24;
	double bound = 2 * mu / (1 - mu) * sum_abs + n_terms * 0x1p-149;
	if (!(fabs(got - sum) <= bound))
		fail_msg("%d terms: %.9g is not within %.3g of %.9g", (int)n_terms, got, bound, sum);
}

static void check_rows_bound(const mzm_rows_job *job, const matrix *m)
{
	for (int32_t p = 0; p < job->n_pos; p++) {
		for (int32_t i = 0; i < job->n_rows; i++) {
			const float *w = wide_row(m, job->rows ? job->rows[i] : i), *x = job->x + (size_t)p * job->ldx;
			double sum = 0, sum_abs = 0;
			for (int32_t c = 0; c < job->n_cols; c++) {
				sum += (double)w[c] * (double)x[c];
				sum_abs += fabs((double)w[c] * (double)x[c]);
			}
			check_bound((double)job->y[(size_t)p * job->ldy + (size_t)i], sum, sum_abs, job->n_cols);
		}
	}
}

static void check_accum_bound(const mzm_accum_job *job, const matrix *m)
{
	for (int32_t p = 0; p < job->n_pos; p++) {
		for (int32_t c = 0; c < job->n_cols; c++) {
			double sum = 0, sum_abs = 0;
			for (int32_t i = 0; i < job->n_rows; i++) {
				double term = (double)job->a[(size_t)p * job->lda + (size_t)i] *
					      (double)wide_row(m, job->rows ? job->rows[i] : i)[c];
				sum += term;
				sum_abs += fabs(term);
			}
			check_bound((double)job->y[(size_t)p * job->ldy + (size_t)c], sum, sum_abs, job->n_rows);
		}
	}
}

/* ---- rows and accum ---- */

/* Every other row or so, ascending; -> free */
static int32_t *random_list(int32_t n_rows, int32_t *n)
{
	int32_t *rows = malloc((size_t)(n_rows + 1) * sizeof *rows);
	assert_non_null(rows);
	*n = 0;
	for (int32_t r = 0; r < n_rows; r++)
		if (mzm_rng_u64(7, 2, draw++) & 1)
			rows[(*n)++] = r;
	return rows;
}

static float *padded_random(int32_t n, int32_t used, size_t ld)
{
	float *x = floats_new((size_t)n * ld);
	for (int32_t p = 0; p < n; p++)
		for (int32_t c = 0; c < used; c++)
			x[(size_t)p * ld + (size_t)c] = random_value();
	return x;
}

/* One shape, with and without a list, in all tables. */
static void try_rows(mzm_dtype dtype, int32_t n_rows, int32_t n_cols, int32_t n_pos, int32_t pad, bool listed)
{
	matrix m = matrix_new(dtype, n_rows, n_cols, pad);
	int32_t n = n_rows;
	int32_t *rows = listed ? random_list(n_rows, &n) : NULL;
	size_t ldx = (size_t)n_cols + 5, ldy = (size_t)n + 3, n_y = (size_t)n_pos * ldy;
	float *x = padded_random(n_pos, n_cols, ldx), *want = floats_new(n_y);
	mzm_rows_job job = {.dtype = dtype, .w = m.w, .stride = m.stride, .rows = rows, .n_rows = n,
			    .n_cols = n_cols, .x = x, .ldx = ldx, .n_pos = n_pos, .ldy = ldy};
	stated_rows(&job, &m, want);
	EACH_TABLE (t) {
		job.y = floats_new(n_y);
		(*t)->rows(&job, 0, n);
		check_same(job.y, want, n_y, (*t)->name, mzm_dtype_name(dtype));
		check_untouched(job.y, n_y, ldy, (size_t)n);
		check_rows_bound(&job, &m);
		floats_free(job.y);
	}
	floats_free(want);
	floats_free(x);
	free(rows);
	matrix_free(&m);
}

static void try_accum(mzm_dtype dtype, int32_t n_rows, int32_t n_cols, int32_t n_pos, int32_t pad, bool listed)
{
	matrix m = matrix_new(dtype, n_rows, n_cols, pad);
	int32_t n = n_rows;
	int32_t *rows = listed ? random_list(n_rows, &n) : NULL;
	size_t lda = (size_t)n + 5, ldy = (size_t)n_cols + 3, n_y = (size_t)n_pos * ldy;
	float *a = padded_random(n_pos, n, lda), *want = floats_new(n_y);
	mzm_accum_job job = {.dtype = dtype, .w = m.w, .stride = m.stride, .rows = rows, .n_rows = n,
			     .n_cols = n_cols, .a = a, .lda = lda, .n_pos = n_pos, .ldy = ldy};
	stated_accum(&job, &m, want);
	EACH_TABLE (t) {
		job.y = floats_new(n_y);
		(*t)->accum(&job, 0, n_cols);
		check_same(job.y, want, n_y, (*t)->name, mzm_dtype_name(dtype));
		check_untouched(job.y, n_y, ldy, (size_t)n_cols);
		check_accum_bound(&job, &m);
		floats_free(job.y);
	}
	floats_free(want);
	floats_free(a);
	free(rows);
	matrix_free(&m);
}

typedef void (*try_fn)(mzm_dtype dtype, int32_t n_rows, int32_t n_cols, int32_t n_pos, int32_t pad, bool listed);

static void try_shapes(try_fn try_one)
{
	static const int32_t long_cols[] = {127, 172, 256, 1000, 1029};
	for (mzm_dtype d = 0; d < MZM_N_DTYPES; d++) {
		for (int32_t n_cols = 1; n_cols <= 70; n_cols++) {
			try_one(d, 1 + n_cols % 13, n_cols, 1 + n_cols % 5, n_cols % 3, false);
			try_one(d, 2 + n_cols % 29, n_cols, 1, n_cols % 2, true);
		}
		for (int32_t n_pos = 1; n_pos <= MZM_MAX_POS; n_pos++)
			try_one(d, 19, 45, n_pos, 4, n_pos & 1);
		for (size_t k = 0; k < sizeof long_cols / sizeof *long_cols; k++) {
			try_one(d, 7, long_cols[k], 3, 0, false);
			try_one(d, 37, long_cols[k], 1, 1, true);
			try_one(d, 21, long_cols[k], 32, 0, true);
		}
		try_one(d, 1, 1, 1, 0, false);
		try_one(d, 300, 20, 2, 0, true);
	}
}

static void rows_keep_the_stated_order(void **state)
{
	(void)state;
	try_shapes(try_rows);
}

static void accum_keeps_the_stated_order(void **state)
{
	(void)state;
	try_shapes(try_accum);
	for (mzm_dtype d = 0; d < MZM_N_DTYPES; d++) /* wider than the part of y that is held in L1 */
		try_accum(d, 5, 9001, 1, 0, false);
}

static void rows_equal_when_split(void **state)
{
	(void)state;
	enum { N = 43, COLS = 77, POS = 5 };
	for (mzm_dtype d = 0; d < MZM_N_DTYPES; d++) {
		matrix m = matrix_new(d, N, COLS, 0);
		float *x = floats_random(POS * COLS), *want = floats_new(POS * N);
		mzm_rows_job job = {.dtype = d, .w = m.w, .stride = m.stride, .n_rows = N, .n_cols = COLS, .x = x,
				    .ldx = COLS, .n_pos = POS, .ldy = N};
		stated_rows(&job, &m, want);
		EACH_TABLE (t) {
			for (int32_t cut = 0; cut <= N; cut++) {
				job.y = floats_new(POS * N);
				(*t)->rows(&job, cut, N);
				for (int32_t p = 0; p < POS; p++) /* a range writes its own outputs only */
					assert_true(untouched(job.y + p * N, (size_t)cut));
				(*t)->rows(&job, 0, cut);
				check_same(job.y, want, POS * N, (*t)->name, "split");
				check_untouched(job.y, POS * N, N, N);
				floats_free(job.y);
			}
		}
		floats_free(x);
		floats_free(want);
		matrix_free(&m);
	}
}

static void accum_equal_when_split(void **state)
{
	(void)state;
	enum { N = 21, COLS = 300, POS = 5 };
	for (mzm_dtype d = 0; d < MZM_N_DTYPES; d++) {
		matrix m = matrix_new(d, N, COLS, 0);
		float *a = floats_random(POS * N), *want = floats_new(POS * COLS);
		mzm_accum_job job = {.dtype = d, .w = m.w, .stride = m.stride, .n_rows = N, .n_cols = COLS, .a = a,
				     .lda = N, .n_pos = POS, .ldy = COLS};
		stated_accum(&job, &m, want);
		EACH_TABLE (t) {
			for (int32_t cut = 0; cut <= COLS; cut += 16) {
				job.y = floats_new(POS * COLS);
				(*t)->accum(&job, cut, COLS);
				for (int32_t p = 0; p < POS; p++)
					assert_true(untouched(job.y + p * COLS, (size_t)cut));
				(*t)->accum(&job, 0, cut);
				check_same(job.y, want, POS * COLS, (*t)->name, "split");
				check_untouched(job.y, POS * COLS, COLS, COLS);
				floats_free(job.y);
			}
		}
		floats_free(a);
		floats_free(want);
		matrix_free(&m);
	}
}

/* Position by position, and by an explicit list of all rows: what a check and a keep of 1.0 rely on. */
static void positions_and_lists_change_nothing(void **state)
{
	(void)state;
	enum { N = 51, COLS = 172, POS = 32 };
	int32_t all[N];
	for (int32_t i = 0; i < N; i++)
		all[i] = i;
	matrix m = matrix_new(MZM_BF16, N, COLS, 2);
	float *x = floats_random(POS * COLS), *a = floats_random(POS * N);
	EACH_TABLE (t) {
		float *y = floats_new(POS * N), *y1 = floats_new(POS * N);
		float *z = floats_new(POS * COLS), *z1 = floats_new(POS * COLS);
		mzm_rows_job rows = {MZM_BF16, m.w, m.stride, NULL, N, COLS, x, COLS, POS, y, N};
		mzm_accum_job accum = {MZM_BF16, m.w, m.stride, NULL, N, COLS, a, N, POS, z, COLS};
		(*t)->rows(&rows, 0, N);
		(*t)->accum(&accum, 0, COLS);
		for (int32_t p = 0; p < POS; p++) {
			mzm_rows_job r1 = {MZM_BF16, m.w, m.stride, all, N, COLS, x + p * COLS, COLS, 1, y1 + p * N, N};
			mzm_accum_job a1 = {MZM_BF16, m.w, m.stride, all, N, COLS, a + p * N, N, 1, z1 + p * COLS, COLS};
			(*t)->rows(&r1, 0, N);
			(*t)->accum(&a1, 0, COLS);
		}
		check_same(y1, y, POS * N, (*t)->name, "rows, one position");
		check_same(z1, z, POS * COLS, (*t)->name, "accum, one position");
		floats_free(y);
		floats_free(y1);
		floats_free(z);
		floats_free(z1);
	}
	floats_free(x);
	floats_free(a);
	matrix_free(&m);
}

static void empty_products(void **state)
{
	(void)state;
	EACH_TABLE (t) {
		float x[20] = {1}, *y = floats_new(20);
		mzm_accum_job none = {.dtype = MZM_BF16, .n_cols = 20, .a = x, .n_pos = 1, .y = y, .ldy = 20};
		(*t)->accum(&none, 0, 20); /* no rows: zeros */
		for (int i = 0; i < 20; i++)
			assert_int_equal(mzm_f32_bits(y[i]), 0);
		check_untouched(y, 20, 20, 20);
		mzm_rows_job nothing = {.dtype = MZM_BF16, .n_cols = 20, .x = x, .ldx = 20, .n_pos = 1, .y = y};
		(*t)->rows(&nothing, 0, 0);
		floats_free(y);
	}
}

/* One NaN or infinity shows in the outputs it belongs to and in no other. */
static void non_finite_weights_stay_where_they_are(void **state)
{
	(void)state;
	enum { N = 9, COLS = 40 };
	for (mzm_dtype d = 0; d < MZM_N_DTYPES; d++) {
		matrix m = matrix_new(d, N, COLS, 0);
		size_t elem = mzm_dtype_bytes(d);
		put_element(m.w + 3 * m.stride + 38 * elem, d, NAN);
		put_element(m.w + 6 * m.stride + 2 * elem, d, INFINITY);
		float x[COLS], a[N], y[N], z[COLS];
		for (int i = 0; i < COLS; i++)
			x[i] = 1.0f;
		for (int i = 0; i < N; i++)
			a[i] = 1.0f;
		mzm_rows_job rows = {d, m.w, m.stride, NULL, N, COLS, x, COLS, 1, y, N};
		mzm_accum_job accum = {d, m.w, m.stride, NULL, N, COLS, a, N, 1, z, COLS};
		EACH_TABLE (t) {
			(*t)->rows(&rows, 0, N);
			(*t)->accum(&accum, 0, COLS);
			for (int i = 0; i < N; i++)
				assert_true(i == 3 ? isnan(y[i]) : i == 6 ? y[i] == INFINITY : isfinite(y[i]));
			for (int i = 0; i < COLS; i++)
				assert_true(i == 38 ? isnan(z[i]) : i == 2 ? z[i] == INFINITY : isfinite(z[i]));
		}
		matrix_free(&m);
	}
}

/* n floats that end where an unreadable page begins. */
static float *at_the_fence(size_t n, void **map, size_t *map_bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t room = (n * sizeof(float) + page - 1) / page * page;
	*map_bytes = room + page;
	*map = mmap(NULL, *map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(*map != MAP_FAILED);
	assert_int_equal(mprotect((char *)*map + room, page, PROT_NONE), 0);
	return (float *)(void *)((char *)*map + room) - n;
}

/* Reading one byte past a last row or a vector would be a fault here. */
static void nothing_is_read_past_the_end(void **state)
{
	(void)state;
	void *map[3];
	size_t bytes[3];
	for (int32_t n = 1; n <= 50; n++) {
		float *x = at_the_fence((size_t)n, &map[0], &bytes[0]);
		float *y = at_the_fence((size_t)n, &map[1], &bytes[1]);
		float *w32 = at_the_fence(2 * (size_t)n, &map[2], &bytes[2]);
		EACH_TABLE (t) {
			for (mzm_dtype d = 0; d < MZM_N_DTYPES; d++) {
				size_t stride = (size_t)n * mzm_dtype_bytes(d);
				const char *w = (const char *)(w32 + 2 * n) - 2 * stride;
				mzm_rows_job rows = {d, w, stride, NULL, 2, n, x, (size_t)n, 1, y + n - 1, 0};
				mzm_accum_job accum = {d, w, stride, NULL, 1, n, x, (size_t)n, 1, y, (size_t)n};
				accum.w = w + stride;
				(*t)->rows(&rows, 1, 1);
				rows.w = w + stride;
				(*t)->rows(&rows, 0, 1);
				(*t)->accum(&accum, 0, n);
				(*t)->to_f32(y, w + stride, d, n);
			}
			(*t)->dot(x, y, n);
			(*t)->axpy(y, 0.5f, x, n);
			(*t)->add(y, x, n);
			(*t)->mul(y, x, n);
			(*t)->act(y, MZM_ACT_SILU, n);
			(*t)->act(y, MZM_ACT_RELU, n);
			(*t)->rmsnorm(y, x, x, 1e-5f, n);
			(*t)->softmax(y, n);
			(*t)->max_abs(y, n);
			(*t)->rope(y + n % 2, x + n % 2, n - n % 2);
		}
		for (int i = 0; i < 3; i++)
			munmap(map[i], bytes[i]);
	}
}

/* ---- vectors ---- */

static void vectors_keep_the_stated_order(void **state)
{
	(void)state;
	for (int32_t n = 1; n <= 150; n++) {
		float *a = floats_random((size_t)n), *b = floats_random((size_t)n), *want = floats_new((size_t)n);
		float s = random_value(), top = 0.0f;
		for (int32_t i = 0; i < n; i++)
			top = fmaxf(top, fabsf(a[i]));
		EACH_TABLE (t) {
			float *y = floats_new((size_t)n);
			float d = (*t)->dot(a, b, n), ref = stated_dot(a, b, n);
			check_same(&d, &ref, 1, (*t)->name, "dot");
#define TRY(call, expr, what)                                                     \
	for (int32_t i = 0; i < n; i++) {                                         \
		y[i] = a[i];                                                      \
		want[i] = (expr);                                                 \
	}                                                                         \
	call;                                                                     \
	check_same(y, want, (size_t)n, (*t)->name, what);                         \
	check_untouched(y, (size_t)n, (size_t)n, (size_t)n)
			TRY((*t)->axpy(y, s, b, n), fmaf(s, b[i], a[i]), "axpy");
			TRY((*t)->add(y, b, n), a[i] + b[i], "add");
			TRY((*t)->mul(y, b, n), a[i] * b[i], "mul");
			TRY((*t)->act(y, MZM_ACT_RELU, n), a[i] < 0 ? 0.0f : a[i], "relu");
			TRY((*t)->act(y, MZM_ACT_SILU, n), a[i] / (1.0f + mzm_expf(0.0f - a[i])), "silu");
#undef TRY
			assert_true((*t)->max_abs(a, n) == top);
			floats_free(y);
		}
		floats_free(a);
		floats_free(b);
		floats_free(want);
	}
}

static void max_abs_reports_nan(void **state)
{
	(void)state;
	float x[37] = {0};
	EACH_TABLE (t) {
		for (int i = 0; i < 37; i++) {
			x[i] = -NAN;
			x[(i + 5) % 37] = -INFINITY;
			assert_true(isnan((*t)->max_abs(x, 37)));
			x[i] = 0.0f;
			assert_true((*t)->max_abs(x, 37) == INFINITY);
			x[(i + 5) % 37] = 0.0f;
		}
		assert_true((*t)->max_abs(x, 0) == 0.0f);
	}
}

static void all_halves_widen_exactly(void **state)
{
	(void)state;
	enum { N = 65536 };
	uint16_t *h = malloc(N * sizeof *h);
	assert_non_null(h);
	for (int i = 0; i < N; i++)
		h[i] = (uint16_t)i;
	EACH_TABLE (t) {
		float *y = floats_new(N);
		(*t)->to_f32(y, h, MZM_BF16, N);
		for (int i = 0; i < N; i++) {
			assert_int_equal(mzm_f32_bits(y[i]), mzm_f32_bits(mzm_bf16_to_f32((uint16_t)i)));
			assert_int_equal(mzm_f32_to_bf16(y[i]), isnan(y[i]) ? i | 0x40 : i);
		}
		(*t)->to_f32(y, h, MZM_F16, N);
		for (int i = 0; i < N; i++) {
			assert_int_equal(mzm_f32_bits(y[i]), mzm_f32_bits(mzm_f16_to_f32((uint16_t)i)));
			assert_int_equal(mzm_f32_to_f16(y[i]), isnan(y[i]) ? i | 0x200 : i);
		}
		check_untouched(y, N, N, N);
		floats_free(y);
	}
	free(h);
}

/* ---- exp, silu, softmax ---- */

/* Distance of got from the exact value in units of the last place of the exact value. */
static double ulps(float got, double exact)
{
	if (fabs(exact) >= 0x1.ffffffp+127)
		return isinf(got) ? 0 : INFINITY;
	int e;
	frexp(exact, &e);
	double ulp = ldexp(1, e - 24 < -149 ? -149 : e - 24);
	return fabs((double)got - exact) / ulp;
}

/* f of every step-th float, all signs and exponents. */
static double worst_ulps(float (*f)(float x), double (*exact)(double x), uint32_t step, float low)
{
	double worst = 0;
	for (uint64_t bits = 0; bits <= 0xffffffffu; bits += step) {
		float x = mzm_bits_f32((uint32_t)bits);
		if (isnan(x) || x < low)
			continue;
		double u = ulps(f(x), exact((double)x));
		worst = u > worst ? u : worst;
	}
	return worst;
}

static void exp_is_close_everywhere(void **state)
{
	(void)state;
	double worst = worst_ulps(mzm_expf, exp, 2003, -INFINITY);
	for (float x = -104.5f; x < 89.5f; x += 0x1.8p-14f) { /* evenly where it matters */
		double u = ulps(mzm_expf(x), exp((double)x));
		worst = u > worst ? u : worst;
	}
	print_message("exp: at most %.3f ulp\n", worst);
	assert_true(worst <= 2);
	assert_true(isnan(mzm_expf(NAN)) && isnan(mzm_expf(-NAN)));
	assert_true(mzm_expf(INFINITY) == INFINITY && mzm_expf(-INFINITY) == 0.0f);
	assert_true(mzm_expf(0.0f) == 1.0f && mzm_expf(-0.0f) == 1.0f);
	assert_true(mzm_expf(88.72283f) <= 0x1.fffffep+127f && mzm_expf(88.7229f) == INFINITY);
	assert_int_equal(mzm_f32_bits(mzm_expf(-103.2f)), 1); /* the smallest denormal */
}

static double exact_silu(double x)
{
	return x / (1 + exp(-x));
}

static float stated_silu(float x)
{
	return x / (1.0f + mzm_expf(0.0f - x));
}

static void silu_is_close_everywhere(void **state)
{
	(void)state;
	double worst = worst_ulps(stated_silu, exact_silu, 2003, -88.0f);
	print_message("silu: at most %.3f ulp\n", worst);
	assert_true(worst <= 4);
	enum { N = 1 << 16 }; /* a vector of all floats that 16 bits can tell apart */
	float *y = floats_new(N), *want = floats_new(N);
	EACH_TABLE (t) {
		for (uint32_t i = 0; i < N; i++) {
			y[i] = mzm_bits_f32(i << 16 | 0x1234);
			want[i] = stated_silu(y[i]);
		}
		(*t)->act(y, MZM_ACT_SILU, N);
		check_same(y, want, N, (*t)->name, "silu");
	}
	/* below -88.7 exp(-x) is infinite: the result is -0, and what is lost is less than 1e-36 */
	assert_true(stated_silu(-90.0f) == 0.0f && fabs(exact_silu(-88.72)) < 1e-36);
	floats_free(y);
	floats_free(want);
}

/* What softmax states: lanes summed with Kahan's correction, folded, then a division. */
static void stated_softmax(float *x, int32_t n)
{
	float max = -INFINITY, sum[16] = {0}, lost[16] = {0};
	for (int32_t i = 0; i < n; i++)
		max = x[i] > max ? x[i] : max;
	for (int32_t i = 0; i < (n + 15) / 16 * 16; i++) {
		float e = i < n ? mzm_expf(x[i] - (max == -INFINITY ? 0.0f : max)) : 0.0f;
		float term = e - lost[i % 16], next = sum[i % 16] + term;
		lost[i % 16] = (next - sum[i % 16]) - term;
		sum[i % 16] = next;
		if (i < n)
			x[i] = e;
	}
	float total = fold(sum);
	for (int32_t i = 0; i < n; i++)
		x[i] /= total == 0.0f ? 1.0f : total;
}

static void check_softmax(const float *in, int32_t n)
{
	float *want = floats_new((size_t)n), *y = floats_new((size_t)n);
	double total = 0, max = -INFINITY;
	memcpy(want, in, (size_t)n * sizeof *in);
	stated_softmax(want, n);
	for (int32_t i = 0; i < n; i++)
		max = (double)in[i] > max ? (double)in[i] : max;
	for (int32_t i = 0; i < n; i++)
		total += exp((double)(in[i] - (float)max)); /* the difference rounded, as the kernel must */
	EACH_TABLE (t) {
		memcpy(y, in, (size_t)n * sizeof *in);
		(*t)->softmax(y, n);
		check_same(y, want, (size_t)n, (*t)->name, "softmax");
		check_untouched(y, (size_t)n, (size_t)n, (size_t)n);
		double sum = 0;
		for (int32_t i = 0; i < n; i++) {
			assert_true(ulps(y[i], exp((double)(in[i] - (float)max)) / total) <= 4);
			sum += (double)y[i];
		}
		assert_true(fabs(sum - 1) <= 1e-6);
	}
	floats_free(want);
	floats_free(y);
}

static void softmax_sums_to_one(void **state)
{
	(void)state;
	static const int32_t sizes[] = {1000, 4096, 131072};
	for (int32_t n = 1; n <= 70; n++) {
		float *x = floats_random((size_t)n);
		check_softmax(x, n);
		x[n / 2] = 3e38f; /* all others vanish */
		check_softmax(x, n);
		for (int32_t i = 0; i < n / 2; i++)
			x[i] = -INFINITY; /* masked */
		check_softmax(x, n);
		floats_free(x);
	}
	for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
		int32_t n = sizes[k];
		float *x = floats_random((size_t)n);
		for (int32_t i = 0; i < n; i++)
			x[i] = 3 * fmodf(x[i], 1.0f);
		check_softmax(x, n);
		for (int32_t i = 0; i < n; i++)
			x[i] = i == 0 ? 0.0f : -1.2f; /* equal terms: every rounding errs the same way */
		check_softmax(x, n);
		floats_free(x);
	}
}

static void softmax_of_nothing_and_of_nan(void **state)
{
	(void)state;
	EACH_TABLE (t) {
		for (int32_t n = 1; n <= 40; n++) {
			float x[40];
			for (int32_t i = 0; i < n; i++)
				x[i] = -INFINITY;
			(*t)->softmax(x, n);
			for (int32_t i = 0; i < n; i++)
				assert_true(x[i] == 0.0f);
			for (int32_t i = 0; i < n; i++)
				x[i] = i == n / 2 ? NAN : -INFINITY;
			(*t)->softmax(x, n);
			for (int32_t i = 0; i < n; i++)
				assert_true(isnan(x[i]));
		}
	}
}

/* ---- rmsnorm, rope ---- */

static void try_rmsnorm(int32_t n, float eps)
{
	float *x = floats_random((size_t)n), *w = floats_random((size_t)n), *want = floats_new((size_t)n);
	float r = 1.0f / sqrtf(stated_dot(x, x, n) / (float)n + eps);
	double squares = 0;
	for (int32_t i = 0; i < n; i++) {
		squares += (double)x[i] * (double)x[i];
		want[i] = (x[i] * r) * w[i];
	}
	double exact_r = 1 / sqrt(squares / n + (double)eps);
	EACH_TABLE (t) {
		float *y = floats_new((size_t)n);
		(*t)->rmsnorm(y, x, w, eps, n);
		check_same(y, want, (size_t)n, (*t)->name, "rmsnorm");
		check_untouched(y, (size_t)n, (size_t)n, (size_t)n);
		for (int32_t i = 0; i < n; i++) {
			double exact = (double)x[i] * exact_r * (double)w[i];
			assert_true(fabs((double)y[i] - exact) <= 1e-6 * fabs(exact) + 0x1p-149);
		}
		memcpy(y, x, (size_t)n * sizeof *x);
		(*t)->rmsnorm(y, y, w, eps, n); /* in place */
		check_same(y, want, (size_t)n, (*t)->name, "rmsnorm in place");
		floats_free(y);
	}
	floats_free(x);
	floats_free(w);
	floats_free(want);
}

static void rmsnorm_is_close(void **state)
{
	(void)state;
	for (int32_t n = 1; n <= 70; n++)
		try_rmsnorm(n, 1e-5f);
	try_rmsnorm(1000, 1e-6f);
	try_rmsnorm(4096, 1e-5f);
	try_rmsnorm(16384, 1e-6f);
	EACH_TABLE (t) { /* an all-zero row stays zero */
		float x[20] = {0}, w[20] = {1, 2, 3}, y[20];
		(*t)->rmsnorm(y, x, w, 1e-5f, 20);
		for (int i = 0; i < 20; i++)
			assert_true(y[i] == 0.0f);
	}
}

static void rope_rotates(void **state)
{
	(void)state;
	for (int32_t n = 2; n <= 160; n += 2) {
		int32_t half = n / 2;
		float *x = floats_new((size_t)n), *cs = floats_new((size_t)n), *want = floats_new((size_t)n);
		for (int32_t i = 0; i < half; i++) {
			double angle = 131072 * pow(10000, -2.0 * i / n);
			cs[2 * i] = (float)cos(angle);
			cs[2 * i + 1] = (float)sin(angle);
		}
		for (int32_t i = 0; i < n; i++)
			x[i] = fmodf(random_value(), 1.0f);
		for (int32_t i = 0; i < half; i++) {
			want[i] = fmaf(x[i], cs[2 * i], -(x[i + half] * cs[2 * i + 1]));
			want[i + half] = fmaf(x[i + half], cs[2 * i], x[i] * cs[2 * i + 1]);
		}
		EACH_TABLE (t) {
			float *y = floats_new((size_t)n);
			memcpy(y, x, (size_t)n * sizeof *x);
			(*t)->rope(y, cs, n);
			check_same(y, want, (size_t)n, (*t)->name, "rope");
			check_untouched(y, (size_t)n, (size_t)n, (size_t)n);
			for (int32_t i = 0; i < half; i++) {
				double angle = 131072 * pow(10000, -2.0 * i / n);
				double a = (double)x[i], b = (double)x[i + half];
				assert_true(fabs((double)y[i] - (a * cos(angle) - b * sin(angle))) <= 1e-6);
				assert_true(fabs((double)y[i + half] - (b * cos(angle) + a * sin(angle))) <= 1e-6);
			}
			floats_free(y);
		}
		floats_free(x);
		floats_free(cs);
		floats_free(want);
	}
}

/* ---- names ---- */

static void tables_and_types_have_names(void **state)
{
	(void)state;
	const mzm_kern *best = mzm_kern_find(NULL);
	assert_non_null(best);
	assert_true(best->supported());
	assert_ptr_equal(mzm_kern_find("auto"), best);
	assert_null(mzm_kern_find("neon"));
	assert_null(mzm_kern_find(""));
	assert_non_null(mzm_kern_find("scalar"));
	bool before_best = true;
	for (const mzm_kern *const *t = mzm_kern_tables; *t; t++) {
		before_best = before_best && *t != best;
		assert_true(!before_best || !(*t)->supported());
		assert_ptr_equal(mzm_kern_find((*t)->name), (*t)->supported() ? *t : NULL);
		print_message("%s: %s\n", (*t)->name, (*t)->supported() ? "tested" : "NOT TESTED, this CPU lacks it");
	}
	for (mzm_dtype d = 0; d < MZM_N_DTYPES; d++) {
		mzm_dtype parsed;
		assert_true(mzm_dtype_parse(&parsed, mzm_dtype_name(d)));
		assert_int_equal(parsed, d);
		assert_int_equal(mzm_dtype_bytes(d), d == MZM_F32 ? 4 : 2);
		assert_false(mzm_dtype_parse(&parsed, "f64"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_and_types_have_names),
		cmocka_unit_test(rows_keep_the_stated_order),
		cmocka_unit_test(accum_keeps_the_stated_order),
		cmocka_unit_test(rows_equal_when_split),
		cmocka_unit_test(accum_equal_when_split),
		cmocka_unit_test(positions_and_lists_change_nothing),
		cmocka_unit_test(empty_products),
		cmocka_unit_test(non_finite_weights_stay_where_they_are),
		cmocka_unit_test(nothing_is_read_past_the_end),
		cmocka_unit_test(vectors_keep_the_stated_order),
		cmocka_unit_test(max_abs_reports_nan),
		cmocka_unit_test(all_halves_widen_exactly),
		cmocka_unit_test(exp_is_close_everywhere),
		cmocka_unit_test(silu_is_close_everywhere),
		cmocka_unit_test(softmax_sums_to_one),
		cmocka_unit_test(softmax_of_nothing_and_of_nan),
		cmocka_unit_test(rmsnorm_is_close),
		cmocka_unit_test(rope_rotates),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
