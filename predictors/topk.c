/* topk.c - per token and layer the neurons with the largest |act(gate)|; the gate is computed whole
 * (FSparse in Sirius, arXiv 2409.03856). */
#include "predictors/registry.h"

#include "base/carve.h"

typedef struct topk {
	mzm_predictor base;
	int32_t       n_ffn;
	float        *scratch; /* [n_ffn] */
} topk;

static mzm_status topk_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	mzm_carve c = {0};
	MZM_CARVE(&c, topk, 1);
	MZM_CARVE(&c, float, env->cfg->n_ffn);
	MZM_TRY(mzm_alloc_for((void **)&c.base, c.used, "the topk predictor", err));
	c.used = 0;
	topk *p = MZM_CARVE(&c, topk, 1);
	p->base = (mzm_predictor){&mzm_pred_topk, mzm_pred_n_keep(env)};
	p->n_ffn = env->cfg->n_ffn;
	p->scratch = MZM_CARVE(&c, float, p->n_ffn);
	*out = &p->base;
	return MZM_OK;
}

static void topk_free(mzm_predictor *p)
{
	mzm_free(p);
}

static int32_t topk_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	topk *p = (topk *)base;
	(void)layer, (void)pos;
	mzm_select_top(rows, base->n_keep, score, p->n_ffn, p->scratch);
	return base->n_keep;
}

const mzm_predictor_ops mzm_pred_topk = {
	.name = "topk",
	.source = "largest |act(gate)| of each token (FSparse, arXiv 2409.03856)",
	.stage = MZM_PRED_GATE,
	.create = topk_create,
	.free = topk_free,
	.select = topk_select,
};
