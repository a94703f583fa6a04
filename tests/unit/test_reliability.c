/* test_reliability.c - AUC against all pairs, Brier score and bins against their definitions; what counts. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/reliability.h"

enum { N = 400 };

static double draw(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return (*seed >> 8) / 16777216.0;
}

static void against_all_pairs(void **state)
{
	(void)state;
	uint32_t seed = 5;
	for (int round = 0; round < 20; round++) {
		mze_judged judged[N];
		mze_reliability r;
		double pairs = 0, won = 0, squares = 0;
		for (int i = 0; i < N; i++) { /* few values: many are equal */
			judged[i].confidence = floor(draw(&seed) * (5 + 10 * round)) / (5 + 10 * round);
			judged[i].accepted = draw(&seed) < 0.2 + 0.7 * judged[i].confidence;
		}
		for (int i = 0; i < N; i++) {
			squares += pow(judged[i].confidence - judged[i].accepted, 2);
			for (int k = 0; k < N; k++) {
				if (!judged[i].accepted || judged[k].accepted)
					continue;
				pairs++;
				won += judged[i].confidence > judged[k].confidence   ? 1
				       : judged[i].confidence < judged[k].confidence ? 0
										     : 0.5;
			}
		}
		mze_reliability_of(&r, judged, N);
		assert_true(r.n == N && fabs(r.auc - won / pairs) < 1e-12 && fabs(r.brier - squares / N) < 1e-12);
	}
}

static void bins(void **state)
{
	(void)state;
	mze_judged judged[] = {{1, true}, {0.95, false}, {0.05, false}, {0, false}, {0.5, true}, {0.59, true}};
	mze_reliability r;
	mze_reliability_of(&r, judged, 6);
	assert_true(r.bin[0].n == 2 && r.bin[5].n == 2 && r.bin[9].n == 2 && r.bin[4].n == 0);
	assert_true(fabs(r.bin[9].confidence - 0.975) < 1e-12 && r.bin[9].accepted == 0.5);
	assert_true(r.bin[5].accepted == 1 && r.bin[0].accepted == 0 && isnan(r.bin[4].accepted));
}

static void degenerate(void **state)
{
	(void)state;
	mze_judged all_right[] = {{0.9, true}, {0.8, true}};
	mze_reliability r;
	mze_reliability_of(&r, NULL, 0);
	assert_true(r.n == 0 && isnan(r.auc) && isnan(r.brier));
	mze_reliability_of(&r, all_right, 2);
	assert_true(isnan(r.auc) && fabs(r.brier - 0.025) < 1e-12);
}

static size_t judged_of(const char *kinds, mze_judged judged[16])
{
	int32_t confidence[16];
	for (int i = 0; i < 16; i++)
		confidence[i] = 1000 * (i + 1);
	return mze_judged_of(judged, kinds, strlen(kinds), confidence);
}

static void which_were_judged(void **state)
{
	(void)state;
	mze_judged j[16];
	assert_int_equal(judged_of("FAARRCRCAB", j), 5);
	assert_true(j[0].accepted && j[1].accepted && !j[2].accepted && !j[3].accepted && j[4].accepted);
	assert_true(fabs(j[2].confidence - 0.003) < 1e-12);
	assert_true(fabs(j[3].confidence - 0.005) < 1e-12); /* the one between was never judged */
	assert_int_equal(judged_of("FAARR", j), 2); /* the text ended before them */
	assert_int_equal(judged_of("FPPP", j), 0);
	assert_int_equal(judged_of("", j), 0);
	assert_int_equal(mze_judged_of(j, "FAA", 3, (int32_t[]){-1, 1000000}), 1); /* one is not known */
	assert_true(j[0].confidence == 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(against_all_pairs),
		cmocka_unit_test(bins),
		cmocka_unit_test(degenerate),
		cmocka_unit_test(which_were_judged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
