/* test_stats.c - intervals and tests against published vectors and brute force. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>

#include "eval/stats.h"

#define NEAR(got, want, tol) assert_true(fabs((got) - (want)) <= (tol))

static void wilson(void **state)
{
	(void)state;
	static const struct {
		int64_t right, n;
		double lo, hi;
	} v[] = {{994, 1319, .7296, .7761}, {92, 164, .4845, .6347}, {0, 100, 0, .0370}, {100, 100, .9630, 1}};
	for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
		mze_interval ci = mze_wilson(v[i].right, v[i].n);
		NEAR(ci.lo, v[i].lo, 6e-5);
		NEAR(ci.hi, v[i].hi, 6e-5);
	}
	assert_true(mze_wilson(0, 100).lo == 0 && mze_wilson(7, 7).hi == 1);
	assert_true(mze_wilson(0, 0).lo == 0 && mze_wilson(0, 0).hi == 1);
}

static void standard_error(void **state)
{
	(void)state;
	NEAR(mze_accuracy_se(989, 1319), .0119, 5e-5); /* the specification: 1.2 points near .75 */
	NEAR(mze_accuracy_se(92, 164), .0389, 5e-5);
	assert_true(isnan(mze_accuracy_se(1, 1)));
}

/* Two tails of the binomial distribution by Pascal's triangle, n < 60. */
static double two_tails(int b, int c)
{
	double row[64] = {1};
	int n = b + c, k = b < c ? b : c;
	for (int i = 1; i <= n; i++) {
		for (int j = i; j > 0; j--)
			row[j] += row[j - 1];
	}
	double sum = 0;
	for (int i = 0; i <= k; i++)
		sum += row[i];
	return fmin(1, 2 * sum / pow(2, n));
}

static void mcnemar(void **state)
{
	(void)state;
	NEAR(mze_mcnemar_test(10, 2, 100).p, .03857, 5e-6);
	NEAR(mze_mcnemar_test(2, 10, 100).p, .03857, 5e-6);
	NEAR(mze_mcnemar_test(33, 17, 1319).p, .0328, 5e-5);
	NEAR(mze_mcnemar_test(61, 39, 1319).p, .0352, 5e-5);
	for (int b = 0; b < 30; b++) {
		for (int c = 0; c < 30; c++)
			NEAR(mze_mcnemar_test(b, c, 100).p, b == c ? 1 : two_tails(b, c), 1e-11);
	}
	mze_mcnemar t = mze_mcnemar_test(33, 17, 1319);
	NEAR(t.effect, 16. / 1319, 1e-12);
	NEAR(t.se, sqrt(50 - 256. / 1319) / 1319, 1e-12);
	assert_true(mze_mcnemar_test(0, 0, 10).p == 1);
	t = mze_mcnemar_test(3000, 1000, 10000); /* far below what 2^-n alone could hold */
	assert_true(t.p > 0 && t.p < 1e-200);
	assert_true(mze_mcnemar_test(200000, 199000, 1000000).p > .1);
}

/* What the specification says can be seen on 1,319 items. */
static void smallest_visible_difference(void **state)
{
	(void)state;
	static const int discordant[] = {50, 100, 200}, visible[] = {16, 22, 30};
	for (int i = 0; i < 3; i++) {
		int b = (discordant[i] + visible[i]) / 2;
		assert_true(mze_mcnemar_test(b, discordant[i] - b, 1319).p < .05);
		assert_true(mze_mcnemar_test(b - 1, discordant[i] - b + 1, 1319).p > .05);
	}
}

static void holm(void **state)
{
	(void)state;
	const double p[] = {.01, .04, .03, .005};
	const double want[] = {.03, .06, .06, .02}; /* by hand: 3*.01, max(.06,1*.04), 2*.03, 4*.005 */
	double got[4];
	mze_holm(got, p, 4);
	for (int i = 0; i < 4; i++)
		NEAR(got[i], want[i], 1e-12);
	const double high[] = {.9, .6};
	mze_holm(got, high, 2);
	assert_true(got[0] == 1 && got[1] == 1);
	mze_holm(got, p, 1);
	assert_true(got[0] == .01);
}

static void quantiles(void **state)
{
	(void)state;
	const double x[] = {1, 2, 4, 8};
	NEAR(mze_quantile(x, 4, 0), 1, 0);
	NEAR(mze_quantile(x, 4, .5), 3, 1e-12);
	NEAR(mze_quantile(x, 4, .9), 4 + .7 * 4, 1e-12);
	NEAR(mze_quantile(x, 4, 1), 8, 0);
	NEAR(mze_quantile(x, 1, .3), 1, 0);
	assert_true(isnan(mze_quantile(x, 0, .5)));
}

static void bootstrap(void **state)
{
	(void)state;
	double x[400];
	for (int i = 0; i < 400; i++)
		x[i] = i % 20; /* mean 9.5, standard deviation 5.766: standard error .2883 */
	mze_interval a = mze_bootstrap_mean(x, 400, 4000, 1), b = mze_bootstrap_mean(x, 400, 4000, 1);
	assert_true(a.lo == b.lo && a.hi == b.hi);
	NEAR(a.lo, 9.5 - 1.96 * .2883, .05);
	NEAR(a.hi, 9.5 + 1.96 * .2883, .05);
	assert_true(isnan(mze_bootstrap_mean(x, 0, 100, 1).lo));
	for (int i = 0; i < 5; i++)
		x[i] = 3;
	a = mze_bootstrap_mean(x, 5, 100, 1);
	assert_true(a.lo == 3 && a.hi == 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wilson),  cmocka_unit_test(standard_error), cmocka_unit_test(mcnemar),
		cmocka_unit_test(smallest_visible_difference), cmocka_unit_test(holm),
		cmocka_unit_test(quantiles), cmocka_unit_test(bootstrap),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
