/* fit_svd.c - the truncated SVD of a gate's weights (arXiv 2603.14110); the inputs of the sample are not looked at. */
#include "predictors/factor_fit.h"

#define SHARE 0.375 /* rank by the width of the model: that of aware */

static mzm_status svd_layer(const mzm_fit_layer *l, const mzm_fit_options *o, mzm_calib_writer *out, mzm_err *err)
{
	mzm_factor_fit f;
	double explained;
	mzm_factor_want want = {.target = MZM_FACTOR_GATE, .rank = mzm_factor_rank(l->cfg, o->rank, SHARE), .bits = 4};
	MZM_TRY(mzm_factor_make(&f, &explained, l, &want, err));
	mzm_status st = mzm_factor_write(out, "svd", l->layer, &f, err);
	mzm_factor_free(&f);
	return st;
}

const mzm_fit mzm_fit_svd = {
	.name = "svd",
	.about = "truncated SVD of the gate (arXiv 2603.14110)",
	.layer = svd_layer,
};
