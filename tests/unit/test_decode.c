/* test_decode.c - sampler, verifiers and confidence monitor, each against its definition. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "decode/monitor.h"
#include "decode/verifier.h"

enum { V = 8 };
static const float logits[V] = {1.0f, 2.5f, -1.0f, 2.0f, 0.0f, 2.5f, -3.0f, 0.5f};

static mzm_sampler *sampler_with(mzm_gen_params p)
{
	mzm_sampler *s;
	assert_int_equal(mzm_sampler_create(&s, V, mzm_kern_find(NULL), NULL), MZM_OK);
	mzm_sampler_configure(s, &p);
	return s;
}

static void test_greedy(void **state)
{
	(void)state;
	mzm_sampler *s = sampler_with(mzm_gen_params_default());
	assert_int_equal(mzm_sampler_choose(s, logits, 0), 1); /* the tie goes to the lower id */
	assert_ptr_equal(mzm_sampler_process(s, logits, (int32_t[]){1}, 1), logits);
	mzm_sampler_free(s);
}

/* ---- sampling: frequencies against the filtered distribution, written out independently ---- */

static int by_prob(const void *a, const void *b)
{
	const double *x = a, *y = b;
	return x[0] > y[0] ? -1 : x[0] < y[0] ? 1 : x[1] < y[1] ? -1 : 1;
}

static void expected_distribution(double want[V], const mzm_gen_params *p)
{
	double list[V][2], sum = 0;
	for (int i = 0; i < V; i++) {
		list[i][0] = exp((double)logits[i] / (double)p->temp);
		list[i][1] = i;
	}
	qsort(list, V, sizeof *list, by_prob);
	int n = p->top_k > 0 && p->top_k < V ? p->top_k : V;
	for (int i = 0; i < n; i++)
		sum += list[i][0];
	if (p->top_p < 1) {
		double acc = 0;
		int m = 0;
		while (m < n && acc < (double)p->top_p * sum)
			acc += list[m++][0];
		n = m > 0 ? m : 1;
	}
	double kept = 0, best = list[0][0];
	for (int i = 0; i < V; i++)
		want[i] = 0;
	for (int i = 0; i < n; i++) {
		if (list[i][0] >= (double)p->min_p * best)
			want[(int)list[i][1]] = list[i][0];
	}
	for (int i = 0; i < V; i++)
		kept += want[i];
	for (int i = 0; i < V; i++)
		want[i] /= kept;
}

/* Chi-square over 100,000 draws; returns the statistic, *df its degrees of freedom. */
static double chi_square(mzm_sampler *s, const mzm_gen_params *p, int *df)
{
	enum { DRAWS = 100000 };
	double want[V], chi = 0;
	int count[V] = {0};
	expected_distribution(want, p);
	for (int i = 0; i < DRAWS; i++)
		count[mzm_sampler_choose(s, logits, i)]++;
	*df = -1;
	for (int i = 0; i < V; i++) {
		if (want[i] == 0) {
			assert_int_equal(count[i], 0);
			continue;
		}
		chi += pow(count[i] - DRAWS * want[i], 2) / (DRAWS * want[i]);
		(*df)++;
	}
	return chi;
}

static void test_sampling_distribution(void **state)
{
	(void)state;
	/* upper 1e-6 points of chi-square for 0..7 degrees of freedom */
	static const double bound[] = {1e-9, 23.9, 27.6, 30.7, 33.4, 35.9, 38.3, 40.5};
	static const struct {
		float temp;
		int   top_k;
		float top_p, min_p;
	} cases[] = {{1, 0, 1, 0},     {0.7f, 0, 1, 0},   {2, 0, 1, 0},      {1, 3, 1, 0},        {1, 0, 0.8f, 0},
		     {1, 0, 1, 0.3f},  {1, 5, 0.7f, 0},   {1, 6, 0.9f, 0.1f}, {1, 1, 1, 0},        {1, 0, 0, 0},
		     {1.5f, 100, 1, 0}};
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		mzm_gen_params p = mzm_gen_params_default();
		p.temp = cases[i].temp, p.top_k = cases[i].top_k, p.top_p = cases[i].top_p, p.min_p = cases[i].min_p;
		p.seed = 7 + i;
		mzm_sampler *s = sampler_with(p);
		int df;
		double chi = chi_square(s, &p, &df);
		assert_true(chi < bound[df]);
		if (i == 0) { /* a planted bias is caught */
			p.temp = 1.05f;
			assert_true(chi_square(s, &p, &df) > bound[df]);
		}
		mzm_sampler_free(s);
	}
}

static void test_sampling_is_pure(void **state)
{
	(void)state;
	mzm_gen_params p = mzm_gen_params_default();
	p.temp = 1, p.seed = 3;
	mzm_sampler *a = sampler_with(p), *b = sampler_with(p);
	int32_t first[50];
	for (int i = 0; i < 50; i++)
		first[i] = mzm_sampler_choose(a, logits, i);
	for (int i = 49; i >= 0; i--) /* another order, another sampler: positions decide */
		assert_int_equal(mzm_sampler_choose(b, logits, i), first[i]);
	p.seed = 4;
	mzm_sampler_configure(b, &p);
	int differ = 0;
	for (int i = 0; i < 50; i++)
		differ += mzm_sampler_choose(b, logits, i) != first[i];
	assert_true(differ > 10);
	p.temp = 1e-9f; /* the limit is greedy, without a division by zero */
	mzm_sampler_configure(b, &p);
	int32_t id = mzm_sampler_choose(b, logits, 0);
	assert_true(id == 1 || id == 5);
	mzm_sampler_free(a);
	mzm_sampler_free(b);
}

static void test_penalty(void **state)
{
	(void)state;
	mzm_gen_params p = mzm_gen_params_default();
	p.repeat_penalty = 2;
	p.repeat_last = 3;
	mzm_sampler *s = sampler_with(p);
	const int32_t ids[] = {5, 2, 1, 1, 2}; /* 5 lies beyond the window; repeats count once */
	const float *x = mzm_sampler_process(s, logits, ids, 5);
	for (int i = 0; i < V; i++) {
		float want = i == 1 ? 1.25f : i == 2 ? -2.0f : logits[i];
		assert_true(x[i] == want);
	}
	assert_int_equal(mzm_sampler_choose(s, x, 5), 5);
	x = mzm_sampler_process(s, logits, ids, 1);
	assert_true(x[5] == 1.25f && x[1] == logits[1]);
	mzm_sampler_free(s);
}

static void test_certainty(void **state)
{
	(void)state;
	mzm_sampler *s = sampler_with(mzm_gen_params_default());
	double z = 0, h = 0, z6 = 0;
	for (int i = 0; i < V; i++) {
		z += exp((double)logits[i]);
		z6 += exp((double)logits[i] / 0.6);
	}
	for (int i = 0; i < V; i++)
		h -= exp((double)logits[i]) / z * log(exp((double)logits[i]) / z);
	mzm_certainty c = mzm_sampler_certainty(s, logits, 3);
	assert_true(fabs((double)c.prob - exp(2) / z) < 1e-6);
	assert_true(fabs((double)c.entropy - h) < 1e-5);
	assert_true(c.margin == 0);
	float max;
	assert_true(fabs((double)mzm_sampler_prob(s, logits, 0, 0.6f, &max, NULL) - exp(1 / 0.6) / z6) < 1e-6);
	assert_true(fabs((double)max - exp(2.5 / 0.6) / z6) < 1e-6);
	mzm_sampler_free(s);
}

/* ---- verifiers ---- */

static bool stands(mzm_sampler *s, const float *x, int32_t id, mzm_accept accept, float threshold)
{
	mzm_judgement j = {x, id, mzm_sampler_choose(s, x, 0), accept, threshold, 0.6f, s};
	return mzm_verify_sirius.stands(&j);
}

static void test_verifiers(void **state)
{
	(void)state;
	mzm_sampler *s = sampler_with(mzm_gen_params_default());
	/* two candidates at .7 and .2 (ratio .286): .11 at temperature .6, as the spec derives */
	float two[V] = {logf(0.7f), logf(0.2f), -30, -30, -30, -30, -30, -30}, flat[V] = {0};
	assert_true(stands(s, two, 1, MZM_ACCEPT_REFERENCE, 0.1f));
	assert_false(stands(s, two, 1, MZM_ACCEPT_REFERENCE, 0.12f));
	/* a flat distribution: the published rule refuses even the best token, ours keeps it */
	assert_true(stands(s, flat, 0, MZM_ACCEPT_SIRIUS, 0.2f));
	assert_false(stands(s, flat, 0, MZM_ACCEPT_REFERENCE, 0.2f));
	assert_false(stands(s, flat, 1, MZM_ACCEPT_SIRIUS, 0.2f));
	assert_true(stands(s, flat, 1, MZM_ACCEPT_RELATIVE, 0.99f));
	assert_false(stands(s, flat, 1, MZM_ACCEPT_RELATIVE, 1.0f)); /* alpha 1 is exact mode: ties to the lower id */
	assert_true(stands(s, flat, 0, MZM_ACCEPT_RELATIVE, 1.0f));
	assert_false(stands(s, two, 1, MZM_ACCEPT_RELATIVE, 0.2f));
	assert_true(stands(s, flat, 1, MZM_ACCEPT_TYPICAL, 0.09f)); /* 0.3 exp(-H) = 0.3/8 */
	assert_false(stands(s, two, 1, MZM_ACCEPT_TYPICAL, 0.5f));
	/* a threshold above one half keeps exactly the choice */
	for (int i = 0; i < V; i++) {
		mzm_judgement j = {logits, i, 1, MZM_ACCEPT_SIRIUS, 0.51f, 0.6f, s};
		assert_int_equal(mzm_verify_sirius.stands(&j), mzm_verify_exact.stands(&j));
	}
	mzm_sampler_free(s);
}

/* ---- monitor ---- */

static mzm_costs flat_costs(float sparse, float check)
{
	mzm_costs c = {.sparse = sparse};
	for (int i = 1; i <= MZM_MAX_PERIOD; i++)
		c.check[i] = check;
	return c;
}

/* The table of spec/sirius.md, section 8: best period and cost per token for (p, d), check cost 1. */
static void test_best_rate(void **state)
{
	(void)state;
	static const struct {
		double p;
		float  d;
		int    n;
		double cost;
	} rows[] = {{.90, .35f, 5, .586}, {.90, .5f, 4, .727}, {.90, .649f, 3, .848}, {.90, .766f, 2, .929},
		    {.95, .35f, 8, .513}, {.95, .5f, 6, .661}, {.95, .649f, 4, .794}, {.98, .35f, 13, .450},
		    {.98, .5f, 10, .601}, {.98, .649f, 7, .742}, {.98, .766f, 5, .846}, {.99, .649f, 10, .715},
		    {.995, .5f, 20, .550}, {.998, .649f, 23, .679}};
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		mzm_costs c = flat_costs(rows[i].d, 1);
		int32_t n;
		double rate = mzm_monitor_best_rate(&c, rows[i].p, &n);
		assert_int_equal(n, rows[i].n);
		assert_true(fabs(1 / rate - rows[i].cost) < 0.0006);
	}
}

/* The monitor drives a made-up draft whose tokens stand with known probabilities. */
static double simulate(mzm_monitor *m, bool adaptive, int period, uint64_t seed)
{
	double gained = 0, spent = 0;
	uint64_t n = 0;
	for (int check = 0; check < 4000; check++) {
		mzm_evidence c[MZM_MAX_PERIOD];
		int drafted = 0, kept = 0;
		bool alive = true, worth = mzm_monitor_begin(m);
		int max = (adaptive ? worth ? MZM_MAX_PERIOD : 1 : period) - 1;
		while (drafted < max) {
			bool doubtful = mzm_rng_unit(seed, 1, n) < 0.1; /* one in ten tokens is a coin toss */
			double p = doubtful ? 0.5 : 0.995;
			c[drafted] = (mzm_evidence){{(float)p, doubtful ? 0.1f : 6.0f, doubtful ? 1.2f : 0.05f}, 0, 0};
			alive = alive && mzm_rng_unit(seed, 2, n++) < p;
			kept += alive;
			float conf = mzm_monitor_confidence(m, &c[drafted++]);
			if (mzm_monitor_push(m, conf) && adaptive)
				break;
		}
		mzm_monitor_learn(m, c, drafted, kept, kept + 1, drafted + 1);
		gained += kept + 1;
		spent += drafted * (double)m->costs.sparse + (double)m->costs.check[drafted + 1];
	}
	return spent / gained;
}

static void test_monitor_learns(void **state)
{
	(void)state;
	mzm_monitor m = {0};
	mzm_costs costs = flat_costs(0.6f, 1.1f);
	mzm_monitor_reset(&m);
	mzm_monitor_set_costs(&m, &costs);
	double adaptive = simulate(&m, true, 0, 9), best = 1e9;
	mzm_evidence sure = {{0.995f, 6.0f, 0.05f}, 0, 0}, unsure = {{0.5f, 0.1f, 1.2f}, 0, 0};
	float p_sure = mzm_monitor_confidence(&m, &sure), p_unsure = mzm_monitor_confidence(&m, &unsure);
	print_message("learned: sure %.3f (true .995), unsure %.3f (true .5)\n", (double)p_sure, (double)p_unsure);
	assert_true(p_sure > 0.97f && p_unsure > 0.4f && p_unsure < 0.6f);
	for (int n = 1; n <= MZM_MAX_PERIOD; n++) {
		mzm_monitor_reset(&m);
		best = fmin(best, simulate(&m, false, n, 9));
	}
	print_message("cost per token: adaptive %.4f, best fixed period %.4f\n", adaptive, best);
	assert_true(adaptive < best);
}

static void test_monitor_idle_and_purity(void **state)
{
	(void)state;
	mzm_monitor m = {0};
	mzm_costs dear = flat_costs(3.0f, 1.0f); /* a draft that costs more than it can bring */
	mzm_monitor_reset(&m);
	mzm_monitor_set_costs(&m, &dear);
	int drafted = 0;
	for (int i = 0; i < 64; i++)
		drafted += mzm_monitor_begin(&m);
	assert_int_equal(drafted, 4); /* it only probes */

	mzm_costs costs = flat_costs(0.5f, 1.0f);
	mzm_monitor a = {0}, b = {0};
	mzm_monitor_reset(&a);
	mzm_monitor_set_costs(&a, &costs);
	double first = simulate(&a, true, 0, 4);
	mzm_monitor_reset(&b);
	mzm_monitor_set_costs(&b, &costs);
	assert_true(simulate(&b, true, 0, 4) == first);
	mzm_monitor_reset(&a); /* forgets everything */
	assert_true(simulate(&a, true, 0, 4) == first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_greedy),        cmocka_unit_test(test_sampling_distribution),
		cmocka_unit_test(test_sampling_is_pure), cmocka_unit_test(test_penalty),
		cmocka_unit_test(test_certainty),     cmocka_unit_test(test_verifiers),
		cmocka_unit_test(test_best_rate),     cmocka_unit_test(test_monitor_learns),
		cmocka_unit_test(test_monitor_idle_and_purity),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
