/* stats.c - see stats.h. */
#include "eval/stats.h"

#include <math.h>
#include <stdlib.h>

#define Z95 1.959964

mze_interval mze_wilson(int64_t correct, int64_t n)
{
	if (n <= 0)
		return (mze_interval){0, 1};
	double m = (double)n, p = (double)correct / m, zz = Z95 * Z95;
	double centre = p + zz / (2 * m);
	double half = Z95 * sqrt(p * (1 - p) / m + zz / (4 * m * m));
	double lo = (centre - half) / (1 + zz / m), hi = (centre + half) / (1 + zz / m);
	/* at the ends the formula is exact but for rounding */
	return (mze_interval){correct == 0 ? 0 : fmax(lo, 0), correct == n ? 1 : fmin(hi, 1)};
}

double mze_accuracy_se(int64_t correct, int64_t n)
{
	if (n < 2)
		return NAN;
	double p = (double)correct / (double)n;
	return sqrt(p * (1 - p) / (double)(n - 1));
}

/* log of 2 * sum_{i <= k} C(n, i) / 2^n. The terms are summed relative to the largest, the last. */
static double log_two_tails(int64_t n, int64_t k)
{
	double log_term = 0, sum = 1; /* C(n, i) / C(n, k), from i = k down */
	for (int64_t i = k; i > 0; i--) {
		log_term += log((double)i) - log((double)(n - i + 1));
		sum += exp(log_term);
		if (log_term < -60)
			break; /* the rest falls faster than a geometric series */
	}
	double log_c = lgamma((double)n + 1) - lgamma((double)k + 1) - lgamma((double)(n - k) + 1);
	return M_LN2 + log_c + log(sum) - (double)n * M_LN2;
}

mze_mcnemar mze_mcnemar_test(int64_t b, int64_t c, int64_t m)
{
	mze_mcnemar t = {.b = b, .c = c, .p = 1};
	double diff = (double)(b - c);
	if (m > 0) {
		t.effect = diff / (double)m;
		t.se = sqrt((double)(b + c) - diff * diff / (double)m) / (double)m;
	}
	if (b != c)
		t.p = fmin(1, exp(log_two_tails(b + c, b < c ? b : c)));
	return t;
}

void mze_holm(double *adjusted, const double *p, int n)
{
	int order[64];
	if (n > 64)
		n = 64;
	for (int i = 0; i < n; i++) { /* insertion sort: ascending p */
		int j = i;
		for (; j > 0 && p[order[j - 1]] > p[i]; j--)
			order[j] = order[j - 1];
		order[j] = i;
	}
	double running = 0;
	for (int i = 0; i < n; i++) {
		running = fmax(running, fmin(1, (double)(n - i) * p[order[i]]));
		adjusted[order[i]] = running;
	}
}

double mze_quantile(const double *x, size_t n, double q)
{
	if (n == 0)
		return NAN;
	double at = q * (double)(n - 1);
	size_t i = (size_t)at;
	if (i + 1 >= n)
		return x[n - 1];
	return x[i] + (at - (double)i) * (x[i + 1] - x[i]);
}

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next_u64(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

mze_interval mze_bootstrap_mean(const double *x, size_t n, int n_draws, uint64_t seed)
{
	double *means = n && n_draws > 0 ? malloc((size_t)n_draws * sizeof *means) : NULL;
	if (!means)
		return (mze_interval){NAN, NAN};
	for (int d = 0; d < n_draws; d++) {
		double sum = 0;
		for (size_t i = 0; i < n; i++) /* the bias of the modulo is below 2^-40 */
			sum += x[next_u64(&seed) % n];
		means[d] = sum / (double)n;
	}
	qsort(means, (size_t)n_draws, sizeof *means, ascending);
	mze_interval ci = {mze_quantile(means, (size_t)n_draws, .025), mze_quantile(means, (size_t)n_draws, .975)};
	free(means);
	return ci;
}
