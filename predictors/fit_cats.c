/* fit_cats.c - thresholds of |act(gate)|: order statistics of all neurons of a layer over the sample (CATS, arXiv
 * 2404.08763).
 *
 * Counted by the leading bits of the float, 2^-11 of a value apart: a sample is tens of millions of numbers, which
 * nobody needs in order. */
#include "base/half.h"
#include "base/mem.h"
#include "predictors/cats.h"
#include "predictors/fit.h"

#define DROPPED_BITS 11
#define N_BINS       ((size_t)1 << (31 - DROPPED_BITS))

static void count(uint64_t *bins, const float *values, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bins[(mzm_f32_bits(values[i]) & 0x7fffffffu) >> DROPPED_BITS]++;
}

/* The least threshold that at most so many numbers exceed. 0, not the end of its bin, where that is what most are. */
static float threshold(const uint64_t *bins, uint64_t most)
{
	uint64_t above = 0;
	size_t bin = N_BINS - 1;
	while (bin > 0 && above + bins[bin] <= most)
		above += bins[bin--];
	return bin ? mzm_bits_f32((uint32_t)(bin << DROPPED_BITS | ((1u << DROPPED_BITS) - 1))) : 0;
}

mzm_status mzm_cats_fit(float found[CATS_POINTS], const float *values, size_t n, mzm_err *err)
{
	uint64_t *bins;
	MZM_TRY(mzm_alloc_for((void **)&bins, N_BINS * sizeof *bins, "counting activations", err));
	count(bins, values, n);
	for (int i = 0; i < CATS_POINTS; i++)
		found[i] = threshold(bins, (uint64_t)((double)cats_keep[i] * (double)n));
	mzm_free(bins);
	return MZM_OK;
}

static mzm_status cats_layer(const mzm_fit_layer *l, const mzm_fit_options *o, mzm_calib_writer *out, mzm_err *err)
{
	float found[CATS_POINTS];
	(void)o;
	MZM_TRY(mzm_cats_fit(found, l->gate, (size_t)l->n_train * (size_t)l->cfg->n_ffn, err));
	return mzm_calib_add(out, "cats", l->layer, MZM_F32, CATS_POINTS, 1, found, err);
}

const mzm_fit mzm_fit_cats = {
	.name = "cats",
	.about = "thresholds of |act(gate)| for each share of neurons (arXiv 2404.08763)",
	.layer = cats_layer,
};
