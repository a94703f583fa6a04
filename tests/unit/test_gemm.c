/* test_gemm.c - products for long prefills: right to the bound, whatever surrounds the operands, and the same bits
 * however many threads there are. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "kern/gemm.h"
#include "kern/threads.h"

static const struct shape {
	int32_t m, n, k;
} shapes[] = {{1, 1, 1},      {1, 7, 33},     {5, 3, 2},       {16, 16, 16},
	      {17, 65, 100}, {64, 172, 256}, {128, 96, 1000}, {33, 512, 64}};

#define N_SHAPES (sizeof shapes / sizeof *shapes)

static void need_onednn(void)
{
	if (!mzm_gemm_available()) {
		print_message("skipped: built without oneDNN\n");
		skip();
	}
}

/* rows of n_cols random numbers, ld apart, NaN between and 16 of them around; -> mat_free */
static float *mat_new(int32_t n_rows, int32_t n_cols, size_t ld, uint64_t stream)
{
	size_t n = (size_t)n_rows * ld + 32;
	float *p = malloc(n * sizeof *p);
	assert_non_null(p);
	for (size_t i = 0; i < n; i++)
		p[i] = NAN;
	for (int32_t r = 0; r < n_rows; r++)
		for (int32_t c = 0; c < n_cols; c++)
			p[16 + (size_t)r * ld + (size_t)c] =
				(float)(2 * mzm_rng_unit(3, stream, (uint64_t)r * (uint64_t)n_cols + (uint64_t)c) - 1);
	return p + 16;
}

static void mat_free(float *p)
{
	free(p - 16);
}

static void check_gaps(const float *p, int32_t n_rows, int32_t n_cols, size_t ld)
{
	for (size_t i = 0; i < 16; i++)
		assert_true(isnan(p[-1 - (ptrdiff_t)i]) && isnan(p[(size_t)n_rows * ld + i]));
	for (int32_t r = 0; r < n_rows; r++)
		for (size_t c = (size_t)n_cols; c < ld; c++)
			assert_true(isnan(p[(size_t)r * ld + c]));
}

/* c = start + a b, b read by row (nn) or by column (nt), to twice the bound of one float sum. */
static void check_product(const float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb,
			  struct shape s, bool nt, double start)
{
	double u = (s.k + 1) * 0x1p-24;
	for (int32_t i = 0; i < s.m; i++) {
		for (int32_t j = 0; j < s.n; j++) {
			double sum = start, sum_abs = fabs(start);
			for (int32_t l = 0; l < s.k; l++) {
				size_t at = nt ? (size_t)j * ldb + (size_t)l : (size_t)l * ldb + (size_t)j;
				double term = (double)a[(size_t)i * lda + (size_t)l] * (double)b[at];
				sum += term;
				sum_abs += fabs(term);
			}
			double got = (double)c[(size_t)i * ldc + (size_t)j];
			assert_true(fabs(got - sum) <= 2 * u / (1 - u) * sum_abs);
		}
	}
}

static void close_to_double(void **state)
{
	(void)state;
	need_onednn();
	for (size_t k = 0; k < N_SHAPES; k++) {
		struct shape s = shapes[k];
		size_t lda = (size_t)s.k + 3, ldb_t = (size_t)s.k + 5, ldb = (size_t)s.n + 7, ldc = (size_t)s.n + 2;
		mzm_err err = {0};
		float *a = mat_new(s.m, s.k, lda, 1), *bt = mat_new(s.n, s.k, ldb_t, 2);
		float *b = mat_new(s.k, s.n, ldb, 3), *c = mat_new(s.m, 0, ldc, 4); /* c: NaN all over */
		assert_int_equal(mzm_gemm_nt(c, ldc, a, lda, bt, ldb_t, s.m, s.n, s.k, &err), MZM_OK);
		check_product(c, ldc, a, lda, bt, ldb_t, s, true, 0);
		check_gaps(c, s.m, s.n, ldc);
		assert_int_equal(mzm_gemm_nn(c, ldc, a, lda, b, ldb, s.m, s.n, s.k, false, &err), MZM_OK);
		check_product(c, ldc, a, lda, b, ldb, s, false, 0);
		for (int32_t i = 0; i < s.m; i++)
			for (int32_t j = 0; j < s.n; j++)
				c[(size_t)i * ldc + (size_t)j] = 2.5f;
		assert_int_equal(mzm_gemm_nn(c, ldc, a, lda, b, ldb, s.m, s.n, s.k, true, &err), MZM_OK);
		check_product(c, ldc, a, lda, b, ldb, s, false, 2.5);
		check_gaps(c, s.m, s.n, ldc);
		mat_free(a);
		mat_free(bt);
		mat_free(b);
		mat_free(c);
	}
}

/* The chunk of a prefill: rank r computes the columns that mzm_team_range gives it, in blocks of BLOCK. */
enum { M = 64, N = 320, K = 512, BLOCK = 32 };

typedef struct grid {
	const float *a, *b;
	float       *c;
	mzm_status   st[4];
} grid;

static void compute_part(void *ctx, mzm_team *team, int rank)
{
	grid *g = ctx;
	int32_t begin, end;
	mzm_team_range(N, BLOCK, rank, mzm_team_size(team), &begin, &end);
	g->st[rank] = MZM_OK;
	for (int32_t j = begin; j < end && g->st[rank] == MZM_OK; j += BLOCK)
		g->st[rank] = mzm_gemm_nt(g->c + j, N, g->a, K, g->b + (size_t)j * K, K, M, BLOCK, K, NULL);
}

static void same_bits_on_any_number_of_threads(void **state)
{
	(void)state;
	need_onednn();
	float *a = mat_new(M, K, K, 1), *b = mat_new(N, K, K, 2), *c = mat_new(M, N, N, 3), *first = NULL;
	for (int n = 1; n <= 4; n++) {
		mzm_team *team;
		assert_int_equal(mzm_team_create(&team, n, NULL), MZM_OK);
		for (int round = 0; round < 3; round++) {
			grid g = {.a = a, .b = b, .c = c};
			memset(c, 0xff, sizeof(float) * M * N);
			mzm_team_run(team, compute_part, &g);
			for (int r = 0; r < n; r++)
				assert_int_equal(g.st[r], MZM_OK);
			if (!first) {
				first = malloc(sizeof(float) * M * N);
				assert_non_null(first);
				memcpy(first, c, sizeof(float) * M * N);
			}
			assert_memory_equal(first, c, sizeof(float) * M * N);
		}
		mzm_team_free(team);
	}
	free(first);
	mat_free(a);
	mat_free(b);
	mat_free(c);
}

/* The same product wherever the operands lie, and while the host's OpenMP would use any number of threads. */
static void same_bits_at_any_address(void **state)
{
	(void)state;
	need_onednn();
	int threads = omp_get_max_threads();
	for (size_t k = 0; k < N_SHAPES; k++) {
		struct shape s = shapes[k];
		size_t lda = (size_t)s.k, ldb = (size_t)s.k, ldc = (size_t)s.n, n_c = (size_t)s.m * ldc;
		float *a = mat_new(s.m, s.k, lda, 1), *b = mat_new(s.n, s.k, ldb, 2);
		float *want = mat_new(s.m, 0, ldc, 3), *c = mat_new(s.m, 0, ldc, 3);
		float *moved = mat_new(s.m + 1, 0, lda, 3);
		assert_int_equal(mzm_gemm_nt(want, ldc, a, lda, b, ldb, s.m, s.n, s.k, NULL), MZM_OK);
		for (size_t shift = 0; shift < 16; shift++) {
			memcpy(moved + shift, a, (size_t)s.m * lda * sizeof *a);
			omp_set_num_threads(1 + (int)shift % 4);
			assert_int_equal(mzm_gemm_nt(c, ldc, moved + shift, lda, b, ldb, s.m, s.n, s.k, NULL), MZM_OK);
			assert_int_equal(omp_get_max_threads(), 1 + (int)shift % 4); /* left as it was */
			assert_memory_equal(c, want, n_c * sizeof *c);
		}
		mat_free(a);
		mat_free(b);
		mat_free(c);
		mat_free(want);
		mat_free(moved);
	}
	omp_set_num_threads(threads);
}

static void impossible_shapes_are_errors(void **state)
{
	(void)state;
	mzm_err err = {0};
	float x[4] = {0};
	if (!mzm_gemm_available()) {
		assert_int_equal(mzm_gemm_nt(x, 2, x, 2, x, 2, 2, 2, 2, &err), MZM_EUNSUPPORTED);
		assert_string_equal(mzm_gemm_version(), "none");
		return;
	}
	assert_int_equal(mzm_gemm_nt(x, 2, x, 1, x, 2, 2, 2, 2, &err), MZM_EINTERNAL); /* lda < k */
	assert_non_null(strstr(err.message, "oneDNN"));
	assert_int_equal(strncmp(mzm_gemm_version(), "oneDNN ", 7), 0);
	print_message("%s\n", mzm_gemm_version());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(close_to_double),
		cmocka_unit_test(same_bits_on_any_number_of_threads),
		cmocka_unit_test(same_bits_at_any_address),
		cmocka_unit_test(impossible_shapes_are_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
