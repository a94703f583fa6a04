/* monitor.c - see monitor.h. */
#include "decode/monitor.h"

#include <math.h>
#include <string.h>

#include "decode/token_class.h"

#define FORGET       0.995 /* per judged token, of the acceptance rate */
#define FORGET_RATE  0.98  /* per check, of tokens and cost */
#define PROBE_AFTER  16
#define PRIOR_ACCEPTED 19.0 /* one failure in twenty */
#define PRIOR_REJECTED 1.0
#define PRIOR_CHECKS 4.0   /* the formula's rate counts as much as so many checks */

/* Fitted to 62,600 judged tokens of the demo models' answers to 150 calibration problems, in ten settings (griffin
 * .3, .5, .75, topk .05, .1) that count the same each. On the last 50, fitted to the first 100: mean AUC .955 over
 * the settings with rejections, mean log loss .103; without the classes .935 and .125. They pay where drafts are bad
 * (griffin .5 on the SwiGLU model: AUC .855 -> .951). Leaving out digits makes it .949 and .111, operators .948 and
 * .114, what follows one .941 and .118, words .951 and .108, margin or entropy .954 and .103. The change against the
 * recent past and the overlap of neurons add nothing (tests/bench/bench_features.c). */
const mzm_monitor_prior mzm_monitor_builtin = {
	.weight = {2.9f, 1.7f, 0.93f, -0.42f, -2.2f, -2.95f, -4.1f, -2.1f},
	.precision = {4, 4, 4, 4, 4, 4, 4, 4},
};

/* A side-car's numbers are finite, but anybody's. */
static double bounded(float x, double lo, double hi)
{
	return (double)x < lo ? lo : (double)x > hi ? hi : (double)x;
}

void mzm_monitor_reset(mzm_monitor *m)
{
	const mzm_monitor_prior *prior = m->prior ? m->prior : &mzm_monitor_builtin;
	for (int i = 0; i < MZM_MONITOR_FEATURES; i++) {
		m->weight[i] = bounded(prior->weight[i], -100, 100);
		m->precision[i] = bounded(prior->precision[i], 0.1, 1e6);
	}
	m->accepted = PRIOR_ACCEPTED;
	m->rejected = PRIOR_REJECTED;
	m->gained = m->spent = 0;
	m->idle = 0;
}

void mzm_monitor_set_costs(mzm_monitor *m, const mzm_costs *costs)
{
	if (memcmp(&m->costs, costs, sizeof *costs) == 0)
		return;
	m->costs = *costs;
	m->gained = m->spent = 0; /* counted in the old unit */
}

static double clamp(double x, double lo, double hi)
{
	return x < lo ? lo : x > hi ? hi : x;
}

bool mzm_monitor_features(double f[MZM_MONITOR_FEATURES], const mzm_evidence *e)
{
	const mzm_certainty *c = &e->certainty;
	double p = clamp(c->prob, 1e-6, 1 - 1e-6);
	f[0] = 1;
	f[1] = clamp(log(p / (1 - p)), -8, 12) / 4;
	f[2] = clamp(c->margin, 0, 12) / 4;
	f[3] = clamp(c->entropy, 0, 4);
	f[4] = (e->class & MZM_CLASS_DIGIT) != 0;
	f[5] = (e->class & MZM_CLASS_OPERATOR) != 0;
	f[6] = (e->before & MZM_CLASS_OPERATOR) != 0;
	f[7] = (e->class & MZM_CLASS_WORD) != 0;
	return isfinite(c->prob) && isfinite(c->margin) && isfinite(c->entropy);
}

static double logistic(const mzm_monitor *m, const double f[MZM_MONITOR_FEATURES])
{
	double z = 0;
	for (int i = 0; i < MZM_MONITOR_FEATURES; i++)
		z += m->weight[i] * f[i];
	return 1 / (1 + exp(-clamp(z, -30, 30)));
}

float mzm_monitor_confidence(const mzm_monitor *m, const mzm_evidence *e)
{
	double f[MZM_MONITOR_FEATURES];
	(void)mzm_monitor_features(f, e);
	return (float)logistic(m, f);
}

double mzm_monitor_best_rate(const mzm_costs *costs, double p, int32_t *n)
{
	double best = 0, gain = 0, power = 1;
	for (int32_t i = 1; i <= MZM_MAX_PERIOD; i++, power *= p) {
		gain += power; /* 1 + p + ... + p^(i-1) */
		double rate = gain / ((i - 1) * (double)costs->sparse + (double)costs->check[i]);
		if (rate > best) {
			best = rate;
			if (n)
				*n = i;
		}
	}
	return best;
}

static double acceptance(const mzm_monitor *m)
{
	return m->accepted / (m->accepted + m->rejected);
}

/* Tokens per cost in the long run: measured, with the formula as prior. */
static double long_run_rate(const mzm_monitor *m)
{
	int32_t n = 1;
	double rate = mzm_monitor_best_rate(&m->costs, acceptance(m), &n);
	double prior_cost = PRIOR_CHECKS * ((n - 1) * (double)m->costs.sparse + (double)m->costs.check[n]);
	return (m->gained + rate * prior_cost) / (m->spent + prior_cost);
}

/* Whether some number of further tokens is worth its cost: the next alone may not be, as the step from a check of one
 * token to one of two can cost more than all that follow. */
static bool worth_drafting(const mzm_monitor *m)
{
	double p = acceptance(m), rate = long_run_rate(m), gain = 0, stands = m->survival;
	for (int32_t n = m->block + 1; n <= MZM_MAX_PERIOD; n++) {
		double cost = (n - m->block) * (double)m->costs.sparse + (double)m->costs.check[n] -
			      (double)m->costs.check[m->block];
		stands *= p;
		gain += stands;
		if (gain > rate * cost)
			return true;
	}
	return false;
}

bool mzm_monitor_begin(mzm_monitor *m)
{
	m->survival = 1;
	m->block = 1;
	if (!worth_drafting(m) && ++m->idle < PROBE_AFTER)
		return false;
	m->idle = 0;
	return true;
}

bool mzm_monitor_push(mzm_monitor *m, float confidence)
{
	m->survival *= (double)confidence;
	m->block++;
	return !worth_drafting(m);
}

/* One step of online logistic regression with a diagonal Gaussian posterior (Laplace's approximation). */
static void refit(mzm_monitor *m, const mzm_evidence *e, bool accepted)
{
	double f[MZM_MONITOR_FEATURES];
	if (!mzm_monitor_features(f, e))
		return; /* a broken model teaches nothing */
	double p = logistic(m, f), miss = (accepted ? 1 : 0) - p;
	for (int i = 0; i < MZM_MONITOR_FEATURES; i++) {
		m->precision[i] += p * (1 - p) * f[i] * f[i];
		m->weight[i] += miss * f[i] / m->precision[i];
	}
	if (m->log && m->log->n < m->log->cap)
		m->log->cases[m->log->n++] = (mzm_monitor_case){*e, 1, accepted};
}

void mzm_monitor_learn(mzm_monitor *m, const mzm_evidence *draft, int32_t n, int32_t n_accepted, int32_t n_gained,
		       int32_t n_checked)
{
	for (int32_t i = 0; i < n && i <= n_accepted; i++) {
		refit(m, &draft[i], i < n_accepted);
		m->accepted = m->accepted * FORGET + (i < n_accepted);
		m->rejected = m->rejected * FORGET + (i == n_accepted);
	}
	m->gained = m->gained * FORGET_RATE + n_gained;
	m->spent = m->spent * FORGET_RATE + n * (double)m->costs.sparse + (double)m->costs.check[n_checked];
}
