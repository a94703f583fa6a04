/* svd.c - the largest |act(gate)| by a truncated SVD of the gate's own weights (arXiv 2603.14110): nothing is trained,
 * and no text is needed. */
#include "predictors/guess.h"
#include "predictors/registry.h"

#include <string.h>

static mzm_status svd_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	mzm_guess *g;
	MZM_TRY(mzm_guess_create(&g, sizeof *g, &mzm_pred_svd, env, err));
	*out = &g->base;
	return MZM_OK;
}

/* Behind a ReLU, where most guesses are zero, those closest to it come next. */
static int32_t svd_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	mzm_guess *g = (mzm_guess *)base;
	int32_t n = g->cfg->n_ffn, keep = mzm_pred_keep(base, layer);
	(void)pos, (void)score;
	memcpy(g->score, g->y, (size_t)n * sizeof *g->score);
	if (mzm_act_is_sparse(g->cfg->act)) {
		for (int32_t j = 0; j < n; j++)
			g->score[j] = mzm_expf(g->score[j]);
	} else {
		g->factors.kern->act(g->score, g->cfg->act, g->cfg->act_threshold, n);
	}
	return mzm_guess_best(g, layer, keep, rows);
}

const mzm_predictor_ops mzm_pred_svd = {
	.name = "svd",
	.source = "largest |act(gate)| by the gate's truncated SVD (arXiv 2603.14110)",
	.stage = MZM_PRED_INPUT,
	.calibration = "svd",
	.allocates = true,
	.learns = true,
	.create = svd_create,
	.free = mzm_guess_free,
	.score = mzm_guess_score,
	.refine = mzm_guess_drop_zeros,
	.cost = mzm_guess_cost,
	.reset = mzm_guess_reset,
	.observe = mzm_guess_observe,
	.select = svd_select,
	.want = mzm_guess_want,
};
