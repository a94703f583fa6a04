/* stats.h - the statistics of the reports: intervals, paired tests, corrections for several tests.
 *
 * Pure functions in double precision; none is ever on a hot path. */
#ifndef MZE_STATS_H
#define MZE_STATS_H

#include <stddef.h>
#include <stdint.h>

typedef struct mze_interval {
	double lo, hi;
} mze_interval;

/* 95 % Wilson interval of correct out of n; n = 0 gives [0, 1]. */
mze_interval mze_wilson(int64_t correct, int64_t n);
/* Standard error sqrt(p(1-p)/(n-1)); NaN below two items. */
double       mze_accuracy_se(int64_t correct, int64_t n);

typedef struct mze_mcnemar {
	int64_t b, c;   /* only A right, only B right */
	double  p;      /* exact, two-sided */
	double  effect; /* (b - c) / m: the difference of the accuracies */
	double  se;     /* of the effect */
} mze_mcnemar;

/* b + c discordant pairs out of m. */
mze_mcnemar mze_mcnemar_test(int64_t b, int64_t c, int64_t m);

/* Holm's step-down correction of a family of n tests: adjusted[i] belongs to p[i]. n <= 64. */
void mze_holm(double *adjusted, const double *p, int n);

/* Quantile q of ascending x[n], linear between neighbours; NaN when n = 0. */
double mze_quantile(const double *x, size_t n, double q);

/* 95 % percentile interval of the mean of x[n] over n_draws resamples; the same for the same seed.
 * NaN when n = 0. */
mze_interval mze_bootstrap_mean(const double *x, size_t n, int n_draws, uint64_t seed);

#endif
