/* monitor.c - see monitor.h. */
#include "decode/monitor.h"

#include <math.h>
#include <string.h>

#define FORGET       0.995 /* per judged token, of the acceptance rate */
#define FORGET_RATE  0.98  /* per check, of tokens and cost */
#define PROBE_AFTER  16
#define PRIOR_ACCEPTED 19.0 /* one failure in twenty */
#define PRIOR_REJECTED 1.0
#define PRIOR_CHECKS 4.0   /* the formula's rate counts as much as so many checks */

void mzm_monitor_reset(mzm_monitor *m)
{
	/* fitted to 80,000 judged tokens of the demo models under seven predictors, each counting the same */
	static const double weight[MZM_MONITOR_FEATURES] = {0.1, 2.4, 0.55, 0.0};
	memcpy(m->weight, weight, sizeof weight);
	for (int i = 0; i < MZM_MONITOR_FEATURES; i++)
		m->precision[i] = 4.0;
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

static void features(double f[MZM_MONITOR_FEATURES], const mzm_certainty *c)
{
	double p = clamp(c->prob, 1e-6, 1 - 1e-6);
	f[0] = 1;
	f[1] = clamp(log(p / (1 - p)), -8, 12) / 4;
	f[2] = clamp(c->margin, 0, 12) / 4;
	f[3] = clamp(c->entropy, 0, 4);
}

static double logistic(const mzm_monitor *m, const double f[MZM_MONITOR_FEATURES])
{
	double z = 0;
	for (int i = 0; i < MZM_MONITOR_FEATURES; i++)
		z += m->weight[i] * f[i];
	return 1 / (1 + exp(-clamp(z, -30, 30)));
}

float mzm_monitor_confidence(const mzm_monitor *m, const mzm_certainty *c)
{
	double f[MZM_MONITOR_FEATURES];
	features(f, c);
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
static void fit(mzm_monitor *m, const mzm_certainty *c, bool accepted)
{
	double f[MZM_MONITOR_FEATURES];
	if (!isfinite(c->prob) || !isfinite(c->margin) || !isfinite(c->entropy))
		return; /* a broken model teaches nothing */
	features(f, c);
	double p = logistic(m, f), miss = (accepted ? 1 : 0) - p;
	for (int i = 0; i < MZM_MONITOR_FEATURES; i++) {
		m->precision[i] += p * (1 - p) * f[i] * f[i];
		m->weight[i] += miss * f[i] / m->precision[i];
	}
}

void mzm_monitor_learn(mzm_monitor *m, const mzm_certainty *draft, int32_t n, int32_t n_accepted)
{
	for (int32_t i = 0; i < n && i <= n_accepted; i++) {
		fit(m, &draft[i], i < n_accepted);
		m->accepted = m->accepted * FORGET + (i < n_accepted);
		m->rejected = m->rejected * FORGET + (i == n_accepted);
	}
	m->gained = m->gained * FORGET_RATE + n_accepted + 1;
	m->spent = m->spent * FORGET_RATE + n * (double)m->costs.sparse + (double)m->costs.check[n + 1];
}
