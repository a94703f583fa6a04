/* topk.c - per token and layer the neurons with the largest |act(gate)|; the gate is computed whole
 * (FSparse in Sirius, arXiv 2409.03856).
 *
 * Where memory has room for a part of the neurons only, it chooses among those, and wants the ones that carried most
 * lately, over the prompt and then the checks (history.h). */
#include "predictors/history.h"
#include "predictors/registry.h"

#define FADE 0.5 /* from check to check; 0.3 to 0.8 are within a tenth of each other */

typedef struct topk {
	mzm_predictor base;
	int32_t       n_ffn;
	float        *scratch; /* [n_ffn] */
	mzm_history   history; /* kept where not all neurons are in memory; else of no layer */
} topk;

static void topk_layout(topk *p, mzm_carve *c)
{
	p->scratch = MZM_CARVE(c, float, p->n_ffn);
	mzm_history_layout(&p->history, c);
}

static mzm_status topk_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	topk shape = {.base = {.ops = &mzm_pred_topk, .n_keep = mzm_pred_most(env), .keep_of = env->keep_of,
			       .observes = env->partial},
		      .n_ffn = env->cfg->n_ffn,
		      .history = {.n_layers = env->partial ? env->cfg->n_layers : 0, .n_ffn = env->cfg->n_ffn}};
	mzm_carve c = {0};
	MZM_CARVE(&c, topk, 1);
	topk_layout(&shape, &c);
	MZM_TRY(mzm_alloc_for((void **)&c.base, c.used, "the topk predictor", err));
	c.used = 0;
	topk *p = MZM_CARVE(&c, topk, 1);
	*p = shape;
	topk_layout(p, &c);
	*out = &p->base;
	return MZM_OK;
}

static void topk_free(mzm_predictor *p)
{
	mzm_free(p);
}

static void topk_reset(mzm_predictor *base)
{
	mzm_history_reset(&((topk *)base)->history);
}

static void topk_observe(mzm_predictor *base, int32_t layer, const float *z, int32_t n_pos)
{
	mzm_history_add(&((topk *)base)->history, layer, z, n_pos);
}

static int32_t topk_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	topk *p = (topk *)base;
	int32_t n = mzm_pred_keep(base, layer);
	(void)pos;
	mzm_select_top(rows, n, score, p->n_ffn, p->scratch);
	return n;
}

static int32_t topk_want(mzm_predictor *base, int32_t layer, int32_t n, int32_t *rows)
{
	mzm_history *h = &((topk *)base)->history;
	mzm_history_top(h, layer, n, rows);
	mzm_history_fade(h, layer, FADE);
	return n;
}

const mzm_predictor_ops mzm_pred_topk = {
	.name = "topk",
	.source = "largest |act(gate)| of each token (FSparse, arXiv 2409.03856)",
	.stage = MZM_PRED_GATE,
	.learns = true,
	.allocates = true,
	.create = topk_create,
	.free = topk_free,
	.reset = topk_reset,
	.observe = topk_observe,
	.select = topk_select,
	.want = topk_want,
};
