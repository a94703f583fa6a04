/* direct.h - the distribution that the sampler's settings make of logits, written out in double without the sampler. */
#ifndef DIRECT_H
#define DIRECT_H

#include <math.h>
#include <stdlib.h>

#include "mirzam.h"

enum { DIRECT_MOST = 16 };

static inline int direct_by_probability(const void *a, const void *b)
{
	const double *x = a, *y = b;
	return x[0] > y[0] ? -1 : x[0] < y[0] ? 1 : x[1] < y[1] ? -1 : 1;
}

/* [n_vocab] what is drawn from behind n tokens with these logits; n_vocab <= DIRECT_MOST. */
static inline void direct_probabilities(int n_vocab, const mzm_gen_params *p, const float *logits, const int32_t *ids,
					int n, double *want)
{
	double list[DIRECT_MOST][2], sum = 0, acc = 0, kept = 0;
	for (int i = 0; i < n_vocab; i++) {
		double x = (double)logits[i];
		bool seen = false;
		for (int k = n > p->repeat_last ? n - p->repeat_last : 0; k < n; k++)
			seen = seen || ids[k] == i;
		if (seen)
			x = x > 0 ? x / (double)p->repeat_penalty : x * (double)p->repeat_penalty;
		list[i][0] = exp(x / (double)p->temp);
		list[i][1] = i;
		want[i] = 0;
	}
	qsort(list, (size_t)n_vocab, sizeof *list, direct_by_probability);
	int most = p->top_k > 0 && p->top_k < n_vocab ? p->top_k : n_vocab;
	for (int i = 0; i < most; i++)
		sum += list[i][0];
	for (int i = 0; i < most && acc < (double)p->top_p * sum; i++) {
		acc += list[i][0];
		want[(int)list[i][1]] = list[i][0] >= (double)p->min_p * list[0][0] ? list[i][0] : 0;
	}
	for (int i = 0; i < n_vocab; i++)
		kept += want[i];
	for (int i = 0; i < n_vocab; i++)
		want[i] /= kept;
}

#endif
