/* fit_teal.c - thresholds of the inputs of the down projection, |z|, and of the attention's: order statistics of a
 * layer over the sample (TEAL, arXiv 2408.14690).
 *
 * All projections of a layer leave out the same share. TEAL divides a budget by what each error does to the output;
 * on the demo models divisions tried by hand gained 0.005 of a token's work at most (SPEED.md). */
#include "predictors/cats.h"
#include "predictors/fit.h"
#include "predictors/teal.h"

void mzm_teal_count(uint64_t bins[MZM_TEAL_BINS], const float *x, size_t n)
{
	mzm_cats_count(bins, MZM_TEAL_BITS, x, n);
}

static mzm_status fit_attention(const mzm_fit_layer *l, mzm_calib_writer *out, mzm_err *err)
{
	float found[CATS_POINTS][2];
	for (int i = 0; i < 2; i++) {
		const uint64_t *bins = l->attn_bins + (size_t)i * MZM_TEAL_BINS;
		uint64_t n = 0;
		for (size_t b = 0; b < MZM_TEAL_BINS; b++)
			n += bins[b];
		for (int k = 0; k < CATS_POINTS; k++)
			found[k][i] = mzm_cats_exceeded_by(bins, MZM_TEAL_BITS,
							   (uint64_t)((double)cats_keep[k] * (double)n));
	}
	return mzm_calib_add(out, MZM_TEAL_ATTENTION, l->layer, MZM_F32, CATS_POINTS, 2, found, err);
}

static mzm_status teal_layer(const mzm_fit_layer *l, const mzm_fit_options *o, mzm_calib_writer *out, mzm_err *err)
{
	float found[CATS_POINTS];
	(void)o;
	MZM_TRY(mzm_cats_fit(found, l->z, (size_t)l->n_train * (size_t)l->cfg->n_ffn, err));
	MZM_TRY(mzm_calib_add(out, "teal", l->layer, MZM_F32, CATS_POINTS, 1, found, err));
	return l->attn_bins ? fit_attention(l, out, err) : MZM_OK;
}

const mzm_fit mzm_fit_teal = {
	.name = "teal",
	.about = "thresholds of down's and the attention's inputs for each share of them (arXiv 2408.14690)",
	.layer = teal_layer,
};
