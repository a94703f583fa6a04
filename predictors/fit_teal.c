/* fit_teal.c - thresholds of |z|, the input of the down projection: order statistics of all neurons of a layer over the
 * sample (TEAL, arXiv 2408.14690). */
#include "predictors/cats.h"
#include "predictors/fit.h"

static mzm_status teal_layer(const mzm_fit_layer *l, const mzm_fit_options *o, mzm_calib_writer *out, mzm_err *err)
{
	float found[CATS_POINTS];
	(void)o;
	MZM_TRY(mzm_cats_fit(found, l->z, (size_t)l->n_train * (size_t)l->cfg->n_ffn, err));
	return mzm_calib_add(out, "teal", l->layer, MZM_F32, CATS_POINTS, 1, found, err);
}

const mzm_fit mzm_fit_teal = {
	.name = "teal",
	.about = "thresholds of down's inputs for each share of neurons (arXiv 2408.14690)",
	.layer = teal_layer,
};
