/* lowrank.c - the neurons that a small trained network finds likeliest to matter: two linear maps a layer, from its
 * input to logits (Deja Vu, arXiv 2310.17157). fit_lowrank.c trains it.
 *
 * Behind a ReLU how many neurons are active differs from token to token and from layer to layer: the true ones, cut to
 * the same number for each, would miss a quarter. So those are taken whose logit exceeds one threshold, the same in all
 * layers, by which keep is the share taken on average. Elsewhere the best are taken, always as many. */
#include "predictors/lowrank.h"
#include "predictors/guess.h"
#include "predictors/registry.h"

#define LEAST (-1e30f) /* a threshold that all logits exceed */

typedef struct lowrank {
	mzm_guess guess;
	float    *threshold; /* [n_layers] */
} lowrank;

/* The logit that so large a share exceeds, between the points linear in the share. */
static float threshold_at(const double share[LOWRANK_POINTS], double keep)
{
	int i = 0;
	if (keep >= share[0])
		return LEAST;
	while (i + 1 < LOWRANK_POINTS && share[i + 1] > keep)
		i++;
	double low = i + 1 < LOWRANK_POINTS ? share[i + 1] : 0, width = share[i] - low;
	return LOWRANK_FIRST + LOWRANK_STEP * ((float)i + (width > 0 ? (float)((share[i] - keep) / width) : 0));
}

/* Of one layer, or the mean of all. */
static mzm_status read_shares(double share[LOWRANK_POINTS], const mzm_pred_env *env, int32_t first, int32_t end,
			      mzm_err *err)
{
	for (int i = 0; i < LOWRANK_POINTS; i++)
		share[i] = 0;
	for (int32_t l = first; l < end; l++) {
		const float *of = mzm_calib_find(env->calib, "lowrank.share", l, MZM_F32, 1, LOWRANK_POINTS);
		if (!of)
			return mzm_fail(err, MZM_EFORMAT, "the side-car has no fitting \"lowrank.share\" of layer %d",
					(int)l);
		for (int i = 0; i < LOWRANK_POINTS; i++)
			share[i] += (double)of[i] / (end - first);
	}
	return MZM_OK;
}

static mzm_status set_thresholds(lowrank *p, const mzm_pred_env *env, mzm_err *err)
{
	double share[LOWRANK_POINTS];
	int32_t n_layers = env->cfg->n_layers;
	for (int32_t l = 0; l < n_layers; l++) {
		double keep = env->keep_of ? (double)env->keep_of[l] / env->cfg->n_ffn : (double)env->keep;
		if (env->keep_of || l == 0)
			MZM_TRY(read_shares(share, env, env->keep_of ? l : 0, env->keep_of ? l + 1 : n_layers, err));
		p->threshold[l] = threshold_at(share, keep);
	}
	return MZM_OK;
}

static mzm_status lowrank_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	mzm_status st;
	mzm_guess *g;
	MZM_TRY(mzm_guess_create(&g, sizeof(lowrank), &mzm_pred_lowrank, env, err));
	lowrank *p = (lowrank *)g;
	MZM_TRY_OUT(mzm_alloc_for((void **)&p->threshold, (size_t)env->cfg->n_layers * sizeof *p->threshold,
				  "the predictor", err));
	MZM_TRY_OUT(set_thresholds(p, env, err));
	*out = &g->base;
	return MZM_OK;
out:
	mzm_free(p->threshold);
	mzm_guess_free(&g->base);
	return st;
}

static void lowrank_free(mzm_predictor *base)
{
	if (base)
		mzm_free(((lowrank *)base)->threshold);
	mzm_guess_free(base);
}

static int32_t above(const mzm_guess *g, float threshold, int32_t *rows)
{
	int32_t n = 0;
	for (int32_t j = 0; j < g->cfg->n_ffn; j++) {
		rows[n] = j;
		n += !(g->y[j] < threshold); /* what is not a number counts, as for mzm_select_top */
	}
	if (n == 0)
		rows[n++] = 0;
	return n;
}

/* The best by their odds, which order logits as probabilities do, but do not crowd at 1. */
static int32_t lowrank_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	mzm_guess *g = (mzm_guess *)base;
	int32_t n = g->cfg->n_ffn, keep = mzm_pred_keep(base, layer);
	(void)pos, (void)score;
	if (mzm_act_is_sparse(g->cfg->act) && keep < n)
		return above(g, ((const lowrank *)base)->threshold[layer], rows);
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
	.free = lowrank_free,
	.score = mzm_guess_score,
	.refine = mzm_guess_drop_zeros,
	.cost = mzm_guess_cost,
	.select = lowrank_select,
};
