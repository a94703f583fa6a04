/* teal.c - of the down projection the inputs whose size exceeds the layer's threshold, |z_j| > t, which a calibration
 * found for each share of neurons (TEAL, arXiv 2408.14690).
 *
 * TEAL asks this of the inputs of every matrix. Rows of gate and up are outputs here, so a zero among their inputs
 * saves nothing: they are computed whole, and only down rows are left out. */
#include "predictors/cats.h"
#include "predictors/registry.h"

static mzm_status teal_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	return mzm_cats_create(out, env, &mzm_pred_teal, "teal", err);
}

const mzm_predictor_ops mzm_pred_teal = {
	.name = "teal",
	.source = "down's inputs above a calibrated threshold (the FFN's part of TEAL, arXiv 2408.14690)",
	.stage = MZM_PRED_FULL,
	.calibration = "teal",
	.create = teal_create,
	.free = mzm_cats_free,
	.select = mzm_cats_select,
};
