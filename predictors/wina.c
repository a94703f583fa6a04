/* wina.c - topk by what a neuron is worth, not by its gate alone: |act(gate_j)| times the norms of the rows of up and
 * down that it meets (after WINA, arXiv 2505.19427, which weighs an activation by the norm of the weights behind it).
 * What up will make of the input is not known yet; for an input of no preferred direction the norm of its row is the
 * best guess. The gate is computed whole. */
#include "predictors/registry.h"

#include "base/carve.h"

typedef struct wina {
	mzm_predictor base;
	int32_t       n_ffn;
	float        *weight;  /* [n_layers, n_ffn] product of the norms */
	float        *score;   /* [n_ffn] */
	float        *scratch; /* [n_ffn] */
} wina;

static void wina_layout(wina *p, const mzm_pred_env *env, mzm_carve *c)
{
	p->weight = MZM_CARVE(c, float, (size_t)env->cfg->n_layers * (size_t)p->n_ffn);
	p->score = MZM_CARVE(c, float, p->n_ffn);
	p->scratch = MZM_CARVE(c, float, p->n_ffn);
}

static mzm_status wina_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	wina shape = {.base = {.ops = &mzm_pred_wina, .n_keep = mzm_pred_most(env), .keep_of = env->keep_of},
		      .n_ffn = env->cfg->n_ffn};
	mzm_carve c = {0};
	MZM_CARVE(&c, wina, 1);
	wina_layout(&shape, env, &c);
	MZM_TRY(mzm_alloc_for((void **)&c.base, c.used, "the wina predictor", err));
	c.used = 0;
	wina *p = MZM_CARVE(&c, wina, 1);
	*p = shape;
	wina_layout(p, env, &c);
	size_t n = (size_t)env->cfg->n_layers * (size_t)p->n_ffn;
	for (size_t i = 0; i < n; i++)
		p->weight[i] = env->down_norm[i] * (env->up_norm ? env->up_norm[i] : 1.0f);
	*out = &p->base;
	return MZM_OK;
}

static void wina_free(mzm_predictor *p)
{
	mzm_free(p);
}

static int32_t wina_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	wina *p = (wina *)base;
	const float *weight = p->weight + (size_t)layer * (size_t)p->n_ffn;
	int32_t n = mzm_pred_keep(base, layer);
	(void)pos;
	for (int32_t j = 0; j < p->n_ffn; j++)
		p->score[j] = score[j] * weight[j];
	mzm_select_top(rows, n, p->score, p->n_ffn, p->scratch);
	return n;
}

const mzm_predictor_ops mzm_pred_wina = {
	.name = "wina",
	.source = "largest |act(gate)| times the norms of up and down (after WINA, arXiv 2505.19427)",
	.stage = MZM_PRED_GATE,
	.needs_down_norm = true,
	.allocates = true,
	.create = wina_create,
	.free = wina_free,
	.select = wina_select,
};
