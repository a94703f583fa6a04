/* lowrank.c - the neurons that a small trained network finds likeliest to matter: two linear maps a layer, from its
 * input to logits (Deja Vu, arXiv 2310.17157). fit_lowrank.c trains it.
 *
 * Behind a ReLU how many neurons are active differs from token to token and from layer to layer: the true ones, cut to
 * the same number for each, would miss a quarter. So those are taken whose logit exceeds one threshold, the same in all
 * layers, by which keep is the share taken on average. Elsewhere the best are taken, always as many.
 *
 * "countdown-d" is D-COUNTDOWN (arXiv 2505.17701), whose predictor has the same form and is trained on the coefficients
 * of the down projection. */
#include "predictors/lowrank.h"
#include "predictors/guess.h"
#include "predictors/registry.h"

#include <stdio.h>

#define LEAST (-1e30f) /* a threshold that all logits exceed */

typedef struct lowrank {
	mzm_guess guess;
	const mzm_calib *calib;
	const char *name; /* of the tensors */
	float     keep;
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
static mzm_status read_shares(double share[LOWRANK_POINTS], const lowrank *p, int32_t first, int32_t end, mzm_err *err)
{
	char name[64];
	snprintf(name, sizeof name, "%s.share", p->name);
	for (int i = 0; i < LOWRANK_POINTS; i++)
		share[i] = 0;
	for (int32_t l = first; l < end; l++) {
		const float *of = mzm_calib_find(p->calib, name, l, MZM_F32, 1, LOWRANK_POINTS);
		if (!of)
			return mzm_fail(err, MZM_EFORMAT, "the side-car has no fitting \"%s\" of layer %d", name,
					(int)l);
		for (int i = 0; i < LOWRANK_POINTS; i++)
			share[i] += (double)of[i] / (end - first);
	}
	return MZM_OK;
}

static mzm_status set_thresholds(lowrank *p, mzm_err *err)
{
	double share[LOWRANK_POINTS];
	const mzm_config *cfg = p->guess.cfg;
	const int32_t *keep_of = p->guess.base.keep_of;
	for (int32_t l = 0; l < cfg->n_layers; l++) {
		double keep = keep_of ? (double)keep_of[l] / cfg->n_ffn : (double)p->keep;
		if (keep_of || l == 0)
			MZM_TRY(read_shares(share, p, keep_of ? l : 0, keep_of ? l + 1 : cfg->n_layers, err));
		p->threshold[l] = threshold_at(share, keep);
	}
	return MZM_OK;
}

/* What keep_of says may have changed; that the shares are there is known. */
static void lowrank_settle(mzm_predictor *base)
{
	if (base->keep_of)
		(void)set_thresholds((lowrank *)base, NULL);
}

static mzm_status create(mzm_predictor **out, const mzm_predictor_ops *ops, const mzm_pred_env *env, mzm_err *err)
{
	mzm_status st;
	mzm_guess *g;
	MZM_TRY(mzm_guess_create(&g, sizeof(lowrank), ops, env, err));
	lowrank *p = (lowrank *)g;
	p->calib = env->calib;
	p->name = ops->name;
	p->keep = env->keep;
	MZM_TRY_OUT(mzm_alloc_for((void **)&p->threshold, (size_t)env->cfg->n_layers * sizeof *p->threshold,
				  "the predictor", err));
	MZM_TRY_OUT(set_thresholds(p, err));
	*out = &g->base;
	return MZM_OK;
out:
	mzm_free(p->threshold);
	mzm_guess_free(&g->base);
	return st;
}

static mzm_status lowrank_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	return create(out, &mzm_pred_lowrank, env, err);
}

static mzm_status countdown_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	return create(out, &mzm_pred_countdown_d, env, err);
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
	return mzm_guess_best(g, layer, keep, rows);
}

const mzm_predictor_ops mzm_pred_lowrank = {
	.name = "lowrank",
	.source = "likeliest by a trained low-rank network (Deja Vu, arXiv 2310.17157)",
	.stage = MZM_PRED_INPUT,
	.calibration = "lowrank",
	.allocates = true,
	.learns = true,
	.create = lowrank_create,
	.free = lowrank_free,
	.settle = lowrank_settle,
	.score = mzm_guess_score,
	.refine = mzm_guess_drop_zeros,
	.cost = mzm_guess_cost,
	.reset = mzm_guess_reset,
	.observe = mzm_guess_observe,
	.select = lowrank_select,
	.want = mzm_guess_want,
};

const mzm_predictor_ops mzm_pred_countdown_d = {
	.name = "countdown-d",
	.source = "likeliest to have a large coefficient of down (D-COUNTDOWN, arXiv 2505.17701)",
	.stage = MZM_PRED_INPUT,
	.calibration = "countdown-d",
	.allocates = true,
	.learns = true,
	.create = countdown_create,
	.free = lowrank_free,
	.settle = lowrank_settle,
	.score = mzm_guess_score,
	.refine = mzm_guess_drop_zeros,
	.cost = mzm_guess_cost,
	.reset = mzm_guess_reset,
	.observe = mzm_guess_observe,
	.select = lowrank_select,
	.want = mzm_guess_want,
};
