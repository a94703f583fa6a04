/* static.c - one set of neurons for all requests: those that carried most over the calibration text. What any
 * predictor that looks at the prompt or the token must beat. */
#include <string.h>

#include "base/carve.h"
#include "predictors/registry.h"

typedef struct static_pred {
	mzm_predictor    base;
	int32_t          n_layers, n_ffn;
	const mzm_calib *calib;
	int32_t         *rows;    /* [n_layers, n_keep] of which a layer's first mzm_pred_keep() count */
	float           *scratch; /* [n_ffn] */
} static_pred;

static void static_layout(static_pred *p, mzm_carve *c)
{
	p->rows = MZM_CARVE(c, int32_t, (size_t)p->n_layers * (size_t)p->base.n_keep);
	p->scratch = MZM_CARVE(c, float, p->n_ffn);
}

static const float *means(const static_pred *p, int32_t layer)
{
	return mzm_calib_find(p->calib, "static", layer, MZM_F32, 1, p->n_ffn);
}

static mzm_status find_means(const static_pred *p, mzm_err *err)
{
	for (int32_t l = 0; l < p->n_layers; l++)
		if (!means(p, l))
			return mzm_fail(err, MZM_EFORMAT, "the side-car has no fitting \"static\" of layer %d", (int)l);
	return MZM_OK;
}

static void static_settle(mzm_predictor *base)
{
	static_pred *p = (static_pred *)base;
	for (int32_t l = 0; l < p->n_layers; l++)
		mzm_select_top(p->rows + (size_t)l * (size_t)base->n_keep, mzm_pred_keep(base, l), means(p, l),
			       p->n_ffn, p->scratch);
}

static mzm_status static_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	static_pred shape = {.base = {.ops = &mzm_pred_static, .n_keep = mzm_pred_most(env), .keep_of = env->keep_of},
			     .n_layers = env->cfg->n_layers, .n_ffn = env->cfg->n_ffn, .calib = env->calib};
	mzm_carve c = {0};
	MZM_CARVE(&c, static_pred, 1);
	static_layout(&shape, &c);
	MZM_TRY(mzm_alloc_for((void **)&c.base, c.used, "the static predictor", err));
	c.used = 0;
	static_pred *p = MZM_CARVE(&c, static_pred, 1);
	*p = shape;
	static_layout(p, &c);
	mzm_status st = find_means(p, err);
	if (st != MZM_OK) {
		mzm_free(p);
		return st;
	}
	static_settle(&p->base);
	*out = &p->base;
	return MZM_OK;
}

static void static_free(mzm_predictor *p)
{
	mzm_free(p);
}

static int32_t static_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	const static_pred *p = (const static_pred *)base;
	int32_t n = mzm_pred_keep(base, layer);
	(void)pos, (void)score;
	memcpy(rows, p->rows + (size_t)layer * (size_t)base->n_keep, sizeof *rows * (size_t)n);
	return n;
}

static int32_t static_want(mzm_predictor *base, int32_t layer, int32_t n, int32_t *rows)
{
	static_pred *p = (static_pred *)base;
	int32_t keep = mzm_pred_keep(base, layer);
	n = n < keep ? n : keep;
	mzm_select_top(rows, n, means(p, layer), p->n_ffn, p->scratch);
	return n;
}

const mzm_predictor_ops mzm_pred_static = {
	.name = "static",
	.source = "one set for all requests, from the calibration text",
	.stage = MZM_PRED_INPUT,
	.calibration = "static",
	.allocates = true,
	.create = static_create,
	.free = static_free,
	.settle = static_settle,
	.select = static_select,
	.want = static_want,
};
