/* test_kern.c - the matrix products of every table the CPU has, against the order that kern.h states and against double
 * precision; the functions on single vectors are in test_kern_vec.c.
 *
 * The order is written out once more here, one fused multiply-add after the other. That a table equals it bit for bit
 * is the strongest test: it makes tables, ranges, numbers of positions and index lists equal among themselves. The
 * double-precision bound guards against an error that code and reference share. Inputs sit in a sea of NaN, and once
 * against an unreadable page; outputs in a pattern that must survive. */
#include <sys/mman.h>
#include <unistd.h>

#include "kern_testing.h"

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
			mzm_rows_job r1 = rows;
			mzm_accum_job a1 = accum;
			r1.rows = a1.rows = all;
			r1.n_pos = a1.n_pos = 1;
			r1.x = x + p * COLS;
			r1.y = y1 + p * N;
			a1.a = a + p * N;
			a1.y = z1 + p * COLS;
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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
