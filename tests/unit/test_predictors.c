/* test_predictors.c - the choice of neurons: selection against sorting, GRIFFIN's statistic against its
 * formula, and that each choice is a function of its inputs alone. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "predictors/registry.h"

static const mzm_config cfg = {.n_layers = 2, .dim = 8, .n_ffn = 50};

static mzm_predictor *make(const char *name, float keep, const float *down_norm)
{
	mzm_predictor *p = NULL;
	mzm_pred_env env = {.cfg = &cfg, .keep = keep, .seed = 42, .down_norm = down_norm};
	const mzm_predictor_ops *ops = mzm_predictor_find(name);
	assert_non_null(ops);
	assert_int_equal(ops->create(&p, &env, NULL), MZM_OK);
	return p;
}

static const float *sort_key;

static int by_magnitude(const void *a, const void *b)
{
	int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
	float x = fabsf(sort_key[i]), y = fabsf(sort_key[j]);
	return x > y ? -1 : x < y ? 1 : i - j;
}

static int by_index(const void *a, const void *b)
{
	return *(const int32_t *)a - *(const int32_t *)b;
}

static void test_select_top(void **state)
{
	(void)state;
	enum { MAX = 700 };
	float score[MAX], scratch[MAX];
	int32_t got[MAX], want[MAX];
	for (uint64_t trial = 0; trial < 400; trial++) {
		int32_t n = 1 + (int32_t)(mzm_rng_u64(1, trial, 0) % MAX),
			k = 1 + (int32_t)(mzm_rng_u64(1, trial, 1) % (uint64_t)n);
		int levels = trial % 3 == 0 ? 5 : 1 << 20; /* every third one is full of ties */
		for (int32_t i = 0; i < n; i++) {
			double u = mzm_rng_unit(2, trial, (uint64_t)i);
			score[i] = (float)((floor(u * levels) - levels / 2) * (trial % 2 ? 1e-30 : 1e10));
			want[i] = i;
		}
		sort_key = score;
		qsort(want, (size_t)n, sizeof *want, by_magnitude);
		qsort(want, (size_t)k, sizeof *want, by_index);
		mzm_select_top(got, k, score, n, scratch);
		assert_memory_equal(got, want, (size_t)k * sizeof *got);
	}
}

static float draw(int stream, int t, int j)
{
	return (float)mzm_rng_unit((uint64_t)stream, (uint64_t)t, (uint64_t)j);
}

static void test_griffin_formula(void **state)
{
	(void)state;
	enum { T = 9 };
	float z[T][50], score[50];
	int32_t want[50], got[50];
	mzm_predictor *p = make("griffin", 0.3f, NULL);
	assert_int_equal(p->n_keep, 15);
	for (int round = 0; round < 2; round++) { /* the second request must not see the first */
		p->ops->reset(p);
		for (int l = 0; l < 2; l++) {
			for (int t = 0; t < T; t++)
				for (int j = 0; j < 50; j++)
					z[t][j] = t == 4 ? 0 : draw(round * 2 + l, t, j) - 0.5f;
			for (int j = 0; j < 50; j++) {
				double s = 0;
				for (int t = 0; t < T; t++) {
					double norm = 0;
					for (int i = 0; i < 50; i++)
						norm += (double)z[t][i] * (double)z[t][i];
					if (norm > 0)
						s += pow((double)z[t][j] / sqrt(norm), 2);
				}
				score[j] = (float)sqrt(s);
			}
			p->ops->observe(p, l, z[0], 2); /* in pieces, as a prefill gives them */
			p->ops->observe(p, l, z[2], 7);
			p->ops->settle(p);
			mzm_select_top(want, 15, score, 50, (float[50]){0});
			assert_int_equal(p->ops->select(p, l, 0, NULL, got), 15);
			assert_memory_equal(got, want, 15 * sizeof *got);
			assert_int_equal(p->ops->select(p, l, 99, NULL, got), 15);
			assert_memory_equal(got, want, 15 * sizeof *got);
		}
	}
	p->ops->free(p);
}

/* What a check saw counts in full, what was known before for 0.6 of it. */
static void test_griffin_live_follows(void **state)
{
	(void)state;
	float prompt[3][50], check[2][50], score[50];
	int32_t want[50], got[50];
	double stat[50] = {0};
	mzm_predictor *p = make("griffin-live", 0.2f, NULL);
	assert_true(p->ops->refreshes && p->observes);
	p->ops->reset(p);
	for (int j = 0; j < 50; j++) {
		for (int t = 0; t < 3; t++)
			prompt[t][j] = draw(7, t, j) - 0.5f;
		for (int t = 0; t < 2; t++)
			check[t][j] = j >= 40 ? 2 : draw(8, t, j) - 0.5f; /* others matter now */
	}
	for (int t = 0; t < 5; t++) {
		const float *z = t < 3 ? prompt[t] : check[t - 3];
		double norm2 = 0;
		for (int j = 0; j < 50; j++)
			norm2 += (double)z[j] * (double)z[j];
		for (int j = 0; j < 50; j++)
			stat[j] = (t == 3 ? 0.6 : 1) * stat[j] + (double)z[j] * (double)z[j] / norm2;
	}
	for (int l = 0; l < 2; l++)
		p->ops->observe(p, l, prompt[0], 3);
	p->ops->settle(p);
	p->ops->select(p, 1, 0, NULL, got);
	for (int l = 0; l < 2; l++)
		p->ops->observe(p, l, check[0], 2);
	p->ops->select(p, 1, 0, NULL, want);
	assert_memory_equal(got, want, 10 * sizeof *got); /* not before it settles */
	p->ops->settle(p);
	assert_int_equal(p->ops->select(p, 1, 0, NULL, got), 10);
	for (int j = 0; j < 50; j++)
		score[j] = (float)stat[j];
	mzm_select_top(want, 10, score, 50, (float[50]){0});
	assert_memory_equal(got, want, 10 * sizeof *got);
	assert_true(got[9] == 49 && got[0] == 40);
	p->ops->free(p);
}

static void test_random_uniform(void **state)
{
	(void)state;
	mzm_predictor *p = make("random", 0.5f, NULL);
	int32_t rows[50], again[50];
	int count[50] = {0};
	for (int32_t pos = 0; pos < 4000; pos++) {
		assert_int_equal(p->ops->select(p, 1, pos, NULL, rows), 25);
		for (int i = 0; i < 25; i++) {
			assert_true(rows[i] >= 0 && rows[i] < 50 && (i == 0 || rows[i] > rows[i - 1]));
			count[rows[i]]++;
		}
	}
	for (int i = 0; i < 50; i++) /* 2000 expected, sigma 31.6: six sigma */
		assert_true(abs(count[i] - 2000) < 190);
	p->ops->select(p, 0, 7, NULL, rows);
	p->ops->select(p, 1, 7, NULL, again);
	assert_true(memcmp(rows, again, sizeof(int32_t) * 25) != 0); /* layers differ */
	p->ops->select(p, 0, 7, NULL, again);
	assert_memory_equal(rows, again, sizeof(int32_t) * 25); /* and a position repeats */
	p->ops->free(p);
}

static void test_topk_and_oracle(void **state)
{
	(void)state;
	float score[50], norm[100], weighted[50], scratch[50];
	int32_t want[50], got[50];
	for (int i = 0; i < 50; i++)
		score[i] = (float)(mzm_rng_unit(5, 0, (uint64_t)i) - 0.5);
	for (int i = 0; i < 100; i++)
		norm[i] = (float)mzm_rng_unit(6, 0, (uint64_t)i);
	mzm_predictor *p = make("topk", 0.2f, NULL);
	mzm_select_top(want, 10, score, 50, scratch);
	assert_int_equal(p->ops->select(p, 1, 0, score, got), 10);
	assert_memory_equal(got, want, 10 * sizeof *got);
	p->ops->free(p);
	p = make("oracle", 0.2f, norm);
	for (int i = 0; i < 50; i++)
		weighted[i] = score[i] * norm[50 + i];
	mzm_select_top(want, 10, weighted, 50, scratch);
	assert_int_equal(p->ops->select(p, 1, 0, score, got), 10);
	assert_memory_equal(got, want, 10 * sizeof *got);
	p->ops->free(p);
}

static void test_counts_and_shares(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++) { /* keep 0.1 .. 1.0 of 50: whole numbers that floats miss */
		mzm_pred_env env = {.cfg = &cfg, .keep = (float)(i + 1) / 10};
		assert_int_equal(mzm_pred_n_keep(&env), 5 * (i + 1));
	}
	mzm_pred_env tiny = {.cfg = &cfg, .keep = 1e-6f};
	assert_int_equal(mzm_pred_n_keep(&tiny), 1);
	assert_true(fabs(mzm_pred_ffn_share(MZM_PRED_INPUT, 0.5, false) - 0.5) < 1e-12);
	assert_true(fabs(mzm_pred_ffn_share(MZM_PRED_GATE, 0.5, false) - 2.0 / 3) < 1e-12);
	assert_true(fabs(mzm_pred_ffn_share(MZM_PRED_FULL, 0.5, false) - 2.5 / 3) < 1e-12);
	assert_null(mzm_predictor_find("clairvoyant"));
	for (int i = 0; mzm_predictor_at(i); i++)
		assert_ptr_equal(mzm_predictor_find(mzm_predictor_at(i)->name), mzm_predictor_at(i));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_select_top),       cmocka_unit_test(test_griffin_formula),
		cmocka_unit_test(test_griffin_live_follows),
		cmocka_unit_test(test_random_uniform),   cmocka_unit_test(test_topk_and_oracle),
		cmocka_unit_test(test_counts_and_shares),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
