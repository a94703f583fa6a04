/* reliability.c - see reliability.h. */
#include "eval/reliability.h"

#include <math.h>
#include <stdlib.h>

static int by_confidence(const void *a, const void *b)
{
	const mze_judged *x = a, *y = b;
	return (x->confidence > y->confidence) - (x->confidence < y->confidence);
}

/* Mann and Whitney's statistic over all pairs; sorted input. */
static double area(const mze_judged *judged, size_t n)
{
	double below = 0, won = 0, n_accepted = 0; /* rejected ones of less confidence */
	for (size_t i = 0, end; i < n; i = end) {
		double accepted = 0;
		for (end = i; end < n && judged[end].confidence <= judged[i].confidence; end++)
			accepted += judged[end].accepted;
		double rejected = (double)(end - i) - accepted;
		won += accepted * (below + rejected / 2);
		below += rejected;
		n_accepted += accepted;
	}
	return n_accepted > 0 && below > 0 ? won / (n_accepted * below) : (double)NAN;
}

static int bin_of(double confidence)
{
	int bin = (int)(confidence * MZE_N_BINS);
	return bin < 0 ? 0 : bin < MZE_N_BINS ? bin : MZE_N_BINS - 1;
}

void mze_reliability_of(mze_reliability *out, mze_judged *judged, size_t n)
{
	double squares = 0;
	*out = (mze_reliability){.n = (int64_t)n};
	if (n > 0)
		qsort(judged, n, sizeof *judged, by_confidence);
	for (size_t i = 0; i < n; i++) {
		double miss = judged[i].confidence - judged[i].accepted;
		mze_bin *bin = &out->bin[bin_of(judged[i].confidence)];
		squares += miss * miss;
		bin->confidence += judged[i].confidence;
		bin->accepted += judged[i].accepted;
		bin->n++;
	}
	for (int i = 0; i < MZE_N_BINS; i++) {
		mze_bin *bin = &out->bin[i];
		bin->confidence = bin->n ? bin->confidence / (double)bin->n : (double)NAN;
		bin->accepted = bin->n ? bin->accepted / (double)bin->n : (double)NAN;
	}
	out->auc = area(judged, n);
	out->brier = n ? squares / (double)n : (double)NAN;
}

/* A run of dropped tokens was cut by a rejection if a correction follows; else the text just ended before them. */
static bool is_rejection(const char *kinds, size_t n, size_t i)
{
	if (i > 0 && kinds[i - 1] == 'R')
		return false;
	while (i < n && kinds[i] == 'R')
		i++;
	return i < n && kinds[i] == 'C';
}

size_t mze_judged_of(mze_judged *judged, const char *kinds, size_t n_kinds, const int32_t *confidence)
{
	size_t n = 0, draft = 0;
	for (size_t i = 0; i < n_kinds; i++) {
		if (kinds[i] != 'A' && kinds[i] != 'R')
			continue;
		int32_t millionths = confidence[draft++];
		if (millionths >= 0 && (kinds[i] == 'A' || is_rejection(kinds, n_kinds, i)))
			judged[n++] = (mze_judged){millionths * 1e-6, kinds[i] == 'A'};
	}
	return n;
}
