/* teal.c - of the down projection the inputs whose size exceeds the layer's threshold, |z_j| > t, which a calibration
 * found for each share of neurons (TEAL, arXiv 2408.14690).
 *
 * TEAL asks this of the inputs of every matrix. Rows of gate and up are outputs here, so a zero among their inputs
 * saves nothing: they are computed whole, and only down rows are left out. The attention's matrices can lie by input;
 * their thresholds are here too, for use beside any predictor. */
#include "predictors/teal.h"

#include "predictors/cats.h"
#include "predictors/registry.h"

mzm_status mzm_teal_attention(float *threshold, const mzm_calib *calib, const mzm_config *cfg, float keep, mzm_err *err)
{
	for (int32_t l = 0; l < cfg->n_layers; l++) {
		const float *found = mzm_calib_find(calib, MZM_TEAL_ATTENTION, l, MZM_F32, CATS_POINTS, 2);
		if (!found)
			return mzm_fail(err, MZM_EUNDEFINED,
					"thresholds of the attention's inputs are missing (layer %d): mirzam calibrate",
					(int)l);
		for (int i = 0; i < 2; i++)
			threshold[2 * l + i] = keep >= 1 ? -1 : mzm_cats_threshold(found + i, 2, (double)keep);
	}
	return MZM_OK;
}

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
