/* chi_square.h - do counts follow given probabilities? Cells that expect fewer than five are counted as one. */
#ifndef CHI_SQUARE_H
#define CHI_SQUARE_H

#include <math.h>

/* Upper tail of the chi-square distribution: the regularised incomplete gamma function Q(df / 2, chi / 2). */
static inline double chi_square_tail(double chi, int df)
{
	double a = df / 2.0, x = chi / 2, scale = exp(a * log(x) - x - lgamma(a));
	if (x < a + 1) { /* 1 - P by its series */
		double term = 1 / a, sum = term;
		for (double n = a + 1; term > sum * 1e-16; n++)
			sum += term *= x / n;
		return 1 - scale * sum;
	}
	double b = x + 1 - a, c = 1e300, d = 1 / b, f = d; /* Lentz's continued fraction */
	for (int i = 1; i < 10000; i++) {
		double an = -i * (i - a);
		b += 2;
		d = 1 / (an * d + b);
		c = b + an / c;
		f *= c * d;
		if (fabs(c * d - 1) < 1e-14)
			break;
	}
	return scale * f;
}

/* The chance of counts at least so far from the n_cells probabilities; 0 where something impossible was counted. */
static inline double chi_square_p(const int *count, const double *prob, int n_cells)
{
	double n = 0, chi = 0, rest = 0, rest_count = 0;
	int df = -1;
	for (int i = 0; i < n_cells; i++)
		n += count[i];
	for (int i = 0; i < n_cells; i++) {
		if (prob[i] <= 0 && count[i] > 0)
			return 0;
		if (n * prob[i] < 5) {
			rest += n * prob[i];
			rest_count += count[i];
			continue;
		}
		chi += pow(count[i] - n * prob[i], 2) / (n * prob[i]);
		df++;
	}
	if (rest >= 5) { /* else too few to say anything about */
		chi += pow(rest_count - rest, 2) / rest;
		df++;
	}
	return df < 1 ? 1 : chi > 0 ? chi_square_tail(chi, df) : 1;
}

#endif
