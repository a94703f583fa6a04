/* cats.c - the neurons whose |act(gate)| exceeds the layer's threshold, which a calibration found for each share of
 * neurons (CATS, arXiv 2404.08763). How many that are varies with the token: more where more is going on. */
#include <string.h>

#include "base/carve.h"
#include "predictors/cats.h"
#include "predictors/registry.h"

typedef struct cats {
	mzm_predictor base;
	int32_t       n_ffn;
	float        *threshold; /* [n_layers] */
} cats;

/* Between the points linear in the share; beyond the first the first, and all neurons from the last on to 1. */
float mzm_cats_threshold(const float *found, size_t step, double keep)
{
	size_t i = 1;
	if (keep <= (double)cats_keep[0])
		return found[0];
	while (i < CATS_POINTS && keep > (double)cats_keep[i])
		i++;
	double from = (double)cats_keep[i - 1], to = i < CATS_POINTS ? (double)cats_keep[i] : 1;
	double high = (double)found[(i - 1) * step], low = i < CATS_POINTS ? (double)found[i * step] : 0;
	return (float)(high + (low - high) * (keep - from) / (to - from));
}

mzm_status mzm_cats_create(mzm_predictor **out, const mzm_pred_env *env, const mzm_predictor_ops *ops,
			   const char *tensor, mzm_err *err)
{
	mzm_carve c = {0};
	int32_t n_layers = env->cfg->n_layers;
	MZM_CARVE(&c, cats, 1);
	MZM_CARVE(&c, float, n_layers);
	MZM_TRY(mzm_alloc_for((void **)&c.base, c.used, "a predictor by thresholds", err));
	c.used = 0;
	cats *p = MZM_CARVE(&c, cats, 1);
	p->base = (mzm_predictor){.ops = ops, .n_keep = mzm_pred_n_keep(env)};
	p->n_ffn = env->cfg->n_ffn;
	p->threshold = MZM_CARVE(&c, float, n_layers);
	for (int32_t l = 0; l < n_layers; l++) {
		const float *found = mzm_calib_find(env->calib, tensor, l, MZM_F32, CATS_POINTS, 1);
		if (!found) {
			mzm_free(p);
			return mzm_fail(err, MZM_EFORMAT, "the side-car has no fitting \"%s\" of layer %d", tensor,
					(int)l);
		}
		p->threshold[l] = env->keep >= 1 ? -1 : mzm_cats_threshold(found, 1, (double)env->keep);
	}
	*out = &p->base;
	return MZM_OK;
}

void mzm_cats_free(mzm_predictor *p)
{
	mzm_free(p);
}

static float magnitude(float x)
{
	return x < 0 ? -x : x;
}

static int32_t largest(const float *score, int32_t n)
{
	int32_t best = 0;
	for (int32_t j = 1; j < n; j++)
		best = magnitude(score[j]) > magnitude(score[best]) ? j : best;
	return best;
}

int32_t mzm_cats_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	const cats *p = (const cats *)base;
	float threshold = p->threshold[layer];
	int32_t n = 0;
	(void)pos;
	for (int32_t j = 0; j < p->n_ffn; j++) {
		rows[n] = j;
		n += magnitude(score[j]) > threshold;
	}
	if (n == 0)
		rows[n++] = largest(score, p->n_ffn);
	return n;
}

static mzm_status cats_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	return mzm_cats_create(out, env, &mzm_pred_cats, "cats", err);
}

const mzm_predictor_ops mzm_pred_cats = {
	.name = "cats",
	.source = "|act(gate)| above the layer's calibrated threshold (arXiv 2404.08763)",
	.stage = MZM_PRED_GATE,
	.calibration = "cats",
	.create = cats_create,
	.free = mzm_cats_free,
	.select = mzm_cats_select,
};
