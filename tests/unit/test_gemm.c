/* test_gemm.c - products for long prefills: right to the bound, whatever surrounds the operands, and the same bits
 * however many threads there are; panels of bf16 weights, byte by byte. What a chunk of a model makes of them is
 * test_chunk.c's. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/mem.h"
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
		mzm_gemm *g;
		assert_int_equal(mzm_gemm_create(&g, 64, 64, 1, &err), MZM_EUNSUPPORTED);
		assert_null(g);
		assert_string_equal(mzm_gemm_version(), "none");
		return;
	}
	assert_int_equal(mzm_gemm_nt(x, 2, x, 1, x, 2, 2, 2, 2, &err), MZM_EINTERNAL); /* lda < k */
	assert_non_null(strstr(err.message, "oneDNN"));
	assert_int_equal(strncmp(mzm_gemm_version(), "oneDNN ", 7), 0);
	print_message("%s\n", mzm_gemm_version());
}

/* ---- bf16 ---- */

#define GAP 0x7fc1 /* a NaN */

/* n_rows rows of n_cols random bf16 numbers, ld apart and ending with the block; GAP between and before. -> free */
static uint16_t *half_new(int32_t n_rows, int32_t n_cols, size_t ld, uint64_t stream)
{
	size_t n = (size_t)(n_rows - 1) * ld + (size_t)n_cols;
	uint16_t *p = malloc(n * sizeof *p);
	assert_non_null(p);
	for (size_t i = 0; i < n; i++)
		p[i] = i % ld < (size_t)n_cols ? mzm_f32_to_bf16((float)(2 * mzm_rng_unit(5, stream, i) - 1)) : GAP;
	return p;
}

static const struct pack_case {
	int32_t n, k, depth;
	size_t  gap;
} packs[] = {{64, 64, 64, 0},   {64, 96, 96, 64},  {1, 1, 32, 0},    {7, 33, 64, 3},   {64, 32, 160, 5},
	     {63, 2048, 2048, 1}, {8, 31, 32, 2048}, {57, 130, 192, 7}, {64, 1000, 1024, 0}};

/* Pair k of output j is at [k/2][j]; what the weights do not reach is zero, and nothing behind the panel is written. */
static void check_panel(const uint16_t *panel, const uint16_t *w, size_t of_n, size_t of_k, const struct pack_case *c)
{
	size_t len = mzm_gemm_panel_len(c->depth);
	for (size_t k = 0; k < (size_t)c->depth; k++) {
		for (size_t j = 0; j < MZM_GEMM_COLS; j++) {
			bool inside = j < (size_t)c->n && k < (size_t)c->k;
			uint16_t want = inside ? w[j * of_n + k * of_k] : 0;
			assert_int_equal(panel[k / 2 * 2 * MZM_GEMM_COLS + 2 * j + k % 2], want);
		}
	}
	for (size_t i = len; i < len + 64; i++)
		assert_int_equal(panel[i], GAP);
}

static void panels_hold_every_weight_once(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof packs / sizeof *packs; i++) {
		const struct pack_case *c = &packs[i];
		size_t len = mzm_gemm_panel_len(c->depth) + 64;
		size_t ld_nt = (size_t)c->k + c->gap, ld_nn = (size_t)c->n + c->gap;
		uint16_t *panel = mzm_alloc(len * sizeof *panel);
		uint16_t *nt = half_new(c->n, c->k, ld_nt, 1), *nn = half_new(c->k, c->n, ld_nn, 2);
		assert_non_null(panel);
		for (size_t j = 0; j < len; j++)
			panel[j] = GAP;
		mzm_gemm_pack_nt(panel, nt, ld_nt * sizeof *nt, c->n, c->k, c->depth);
		check_panel(panel, nt, ld_nt, 1, c);
		for (size_t j = 0; j < len; j++)
			panel[j] = GAP;
		mzm_gemm_pack_nn(panel, nn, ld_nn * sizeof *nn, c->n, c->k, c->depth);
		check_panel(panel, nn, 1, ld_nn, c);
		mzm_free(panel);
		free(nt);
		free(nn);
	}
}

/* A product, or NULL after a message where this machine has none. */
static mzm_gemm *gemm_or_skip(int32_t m, int32_t k, int n_ranks)
{
	mzm_gemm *g;
	mzm_err err = {0};
	mzm_status st = mzm_gemm_create(&g, m, k, n_ranks, &err);
	if (st == MZM_EUNSUPPORTED) {
		print_message("skipped: %s\n", err.message);
		skip();
	}
	assert_int_equal(st, MZM_OK);
	return g;
}

/* Inputs are exact; a sum of k products in any order, each rounded twice at most, stays in this bound. */
static void bf16_close_to_double(void **state)
{
	static const int32_t ms[] = {1, 5, 64, 512}, ks[] = {32, 96, 1024, 1760, 4096};
	(void)state;
	for (size_t i = 0; i < sizeof ms / sizeof *ms; i++) {
		for (size_t j = 0; j < sizeof ks / sizeof *ks; j++) {
			int32_t m = ms[i], k = ks[j], step = m > 64 ? 37 : 1;
			mzm_gemm *g = gemm_or_skip(m, k, 1);
			size_t n_c = (size_t)m * MZM_GEMM_COLS, n = (size_t)k;
			uint16_t *a = half_new(m, k, n, 1), *b = half_new(MZM_GEMM_COLS, k, n, 2);
			uint16_t *panel = mzm_alloc(mzm_gemm_panel_len(k) * sizeof *panel);
			float *c = mat_new(m, 0, MZM_GEMM_COLS, 3);
			mzm_gemm_pack_nt(panel, b, n * sizeof *b, MZM_GEMM_COLS, k, k);
			assert_int_equal(mzm_gemm_run(g, 0, c, a, panel, NULL), MZM_OK);
			for (size_t e = 0; e < n_c; e += (size_t)step) {
				double sum = 0, sum_abs = 0, u = (k + 1) * 0x1p-23;
				for (size_t l = 0; l < n; l++) {
					double term = (double)mzm_bf16_to_f32(a[e / MZM_GEMM_COLS * n + l]) *
						      (double)mzm_bf16_to_f32(b[e % MZM_GEMM_COLS * n + l]);
					sum += term;
					sum_abs += fabs(term);
				}
				assert_true(fabs((double)c[e] - sum) <= u * sum_abs);
			}
			check_gaps(c, m, MZM_GEMM_COLS, MZM_GEMM_COLS);
			mzm_gemm_free(g);
			mzm_free(panel);
			mat_free(c);
			free(a);
			free(b);
		}
	}
}

typedef struct crew {
	mzm_gemm       *g;
	const uint16_t *a, *panel;
	float          *c; /* [ranks, M, MZM_GEMM_COLS] */
} crew;

static void same_product(void *ctx, mzm_team *team, int rank)
{
	crew *w = ctx;
	(void)team;
	for (int i = 0; i < 8; i++)
		if (mzm_gemm_run(w->g, rank, w->c + (size_t)rank * M * MZM_GEMM_COLS, w->a, w->panel, NULL) != MZM_OK)
			w->c[0] = NAN;
}

/* Ranks use one product at the same time, whatever OpenMP was set to when it was made. */
static void bf16_same_bits_on_every_rank(void **state)
{
	enum { RANKS = 4, BLOCK_LEN = M * MZM_GEMM_COLS };
	(void)state;
	int threads = omp_get_max_threads();
	uint16_t *a = half_new(M, K, K, 1), *b = half_new(K, MZM_GEMM_COLS, MZM_GEMM_COLS, 2);
	uint16_t *panel = mzm_alloc(mzm_gemm_panel_len(K) * sizeof *panel);
	float *first = malloc(sizeof(float) * BLOCK_LEN), *c = malloc(sizeof(float) * RANKS * BLOCK_LEN);
	mzm_gemm_pack_nn(panel, b, MZM_GEMM_COLS * sizeof *b, MZM_GEMM_COLS, K, K);
	for (int n = 1; n <= RANKS; n++) {
		mzm_team *team;
		omp_set_num_threads(n);
		mzm_gemm *g = gemm_or_skip(M, K, n);
		crew w = {g, a, panel, c};
		assert_int_equal(omp_get_max_threads(), n);
		assert_int_equal(mzm_team_create(&team, n, NULL), MZM_OK);
		memset(c, 0xff, sizeof(float) * RANKS * BLOCK_LEN);
		mzm_team_run(team, same_product, &w);
		if (n == 1)
			memcpy(first, c, sizeof(float) * BLOCK_LEN);
		for (int r = 0; r < mzm_team_size(team); r++)
			assert_memory_equal(c + (size_t)r * BLOCK_LEN, first, sizeof(float) * BLOCK_LEN);
		mzm_team_free(team);
		mzm_gemm_free(g);
	}
	omp_set_num_threads(threads);
	mzm_free(panel);
	free(first);
	free(c);
	free(a);
	free(b);
}

static void creating_one_fails_cleanly(void **state)
{
	(void)state;
	mzm_gemm *g = gemm_or_skip(M, K, 3);
	mzm_gemm_free(g);
	size_t live = mzm_mem_live();
	mzm_status st = MZM_ENOMEM;
	long nth = 0;
	while (st == MZM_ENOMEM) {
		mzm_mem_fail_nth(++nth);
		st = mzm_gemm_create(&g, M, K, 3, NULL);
		mzm_mem_fail_nth(0);
		if (st == MZM_ENOMEM)
			assert_null(g);
	}
	assert_int_equal(st, MZM_OK);
	assert_true(nth > 2);
	mzm_gemm_free(g);
	assert_int_equal(mzm_mem_live(), live);
	assert_int_equal(mzm_gemm_create(&g, M, 33, 1, NULL), MZM_EARG);
	assert_int_equal(mzm_gemm_create(&g, 0, K, 1, NULL), MZM_EARG);
	assert_int_equal(mzm_gemm_create(&g, M, K, 0, NULL), MZM_EARG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(close_to_double),
		cmocka_unit_test(same_bits_on_any_number_of_threads),
		cmocka_unit_test(same_bits_at_any_address),
		cmocka_unit_test(impossible_shapes_are_errors),
		cmocka_unit_test(panels_hold_every_weight_once),
		cmocka_unit_test(bf16_close_to_double),
		cmocka_unit_test(bf16_same_bits_on_every_rank),
		cmocka_unit_test(creating_one_fails_cleanly),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
