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

void mzm_cats_count(uint64_t *bins, int bits, const float *values, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bins[(mzm_f32_bits(values[i]) & 0x7fffffffu) >> bits]++;
}

float mzm_cats_exceeded_by(const uint64_t *bins, int bits, uint64_t most)
{
	uint64_t above = 0;
	size_t bin = MZM_CATS_BINS(bits) - 1;
	while (bin > 0 && above + bins[bin] <= most)
		above += bins[bin--];
	return bin ? mzm_bits_f32((uint32_t)(bin << bits | (((size_t)1 << bits) - 1))) : 0;
}

mzm_status mzm_cats_fit(float found[CATS_POINTS], const float *values, size_t n, mzm_err *err)
{
	uint64_t *bins;
	MZM_TRY(mzm_alloc_for((void **)&bins, MZM_CATS_BINS(DROPPED_BITS) * sizeof *bins, "counting activations", err));
	mzm_cats_count(bins, DROPPED_BITS, values, n);
	for (int i = 0; i < CATS_POINTS; i++)
		found[i] = mzm_cats_exceeded_by(bins, DROPPED_BITS, (uint64_t)((double)cats_keep[i] * (double)n));
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
