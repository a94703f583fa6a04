/* lowrank.c - the neurons that a small trained network finds likeliest to matter: two linear maps a layer, from its
 * input to logits (Deja Vu, arXiv 2310.17157). fit_lowrank.c trains it. */
#include "predictors/guess.h"
#include "predictors/registry.h"

static mzm_status lowrank_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	mzm_guess *g;
	MZM_TRY(mzm_guess_create(&g, sizeof *g, &mzm_pred_lowrank, env, err));
	*out = &g->base;
	return MZM_OK;
}

/* By the odds, which order logits as probabilities do, but do not crowd at 1. */
static int32_t lowrank_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	mzm_guess *g = (mzm_guess *)base;
	int32_t n = g->cfg->n_ffn, keep = mzm_pred_keep(base, layer);
	(void)pos, (void)score;
	for (int32_t j = 0; j < n; j++)
		g->score[j] = mzm_expf(g->y[j]);
	mzm_select_top(rows, keep, g->score, n, g->scratch);
	return keep;
}

const mzm_predictor_ops mzm_pred_lowrank = {
	.name = "lowrank",
	.source = "likeliest by a trained low-rank network (Deja Vu, arXiv 2310.17157)",
	.stage = MZM_PRED_INPUT,
	.calibration = "lowrank",
	.create = lowrank_create,
	.free = mzm_guess_free,
	.score = mzm_guess_score,
	.refine = mzm_guess_drop_zeros,
	.cost = mzm_guess_cost,
	.select = lowrank_select,
};
