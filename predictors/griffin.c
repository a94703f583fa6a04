/* griffin.c - one neuron set per layer and request, chosen from the dense prefill (GRIFFIN, arXiv
 * 2404.01365; CSparse in Sirius, arXiv 2409.03856): the neurons that carried most over the prompt (history.h). */
#include "predictors/history.h"
#include "predictors/registry.h"

#include <string.h>

typedef struct griffin {
	mzm_predictor base;
	mzm_history   history;
	int32_t      *rows; /* [n_layers, n_keep] the settled sets */
} griffin;

static void griffin_layout(griffin *g, mzm_carve *c)
{
	mzm_history_layout(&g->history, c);
	g->rows = MZM_CARVE(c, int32_t, (size_t)g->history.n_layers * (size_t)g->base.n_keep);
}

static mzm_status griffin_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	griffin shape = {.base = {.ops = &mzm_pred_griffin, .n_keep = mzm_pred_n_keep(env), .observes = true},
			 .history = {.n_layers = env->cfg->n_layers, .n_ffn = env->cfg->n_ffn}};
	mzm_carve c = {0};
	MZM_CARVE(&c, griffin, 1);
	griffin_layout(&shape, &c);
	MZM_TRY(mzm_alloc_for((void **)&c.base, c.used, "the griffin predictor", err));
	c.used = 0;
	griffin *g = MZM_CARVE(&c, griffin, 1);
	*g = shape;
	griffin_layout(g, &c);
	*out = &g->base;
	return MZM_OK;
}

static void griffin_free(mzm_predictor *p)
{
	mzm_free(p);
}

static void griffin_reset(mzm_predictor *base)
{
	mzm_history_reset(&((griffin *)base)->history);
}

static void griffin_observe(mzm_predictor *base, int32_t layer, const float *z, int32_t n_pos)
{
	mzm_history_add(&((griffin *)base)->history, layer, z, n_pos);
}

static void griffin_settle(mzm_predictor *base)
{
	griffin *g = (griffin *)base;
	for (int32_t l = 0; l < g->history.n_layers; l++)
		mzm_history_top(&g->history, l, base->n_keep, g->rows + (size_t)l * (size_t)base->n_keep);
}

static int32_t griffin_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	const griffin *g = (const griffin *)base;
	(void)pos, (void)score;
	memcpy(rows, g->rows + (size_t)layer * (size_t)base->n_keep, sizeof *rows * (size_t)base->n_keep);
	return base->n_keep;
}

/* Its set, which it stays with, or the best of it. */
static int32_t griffin_want(mzm_predictor *base, int32_t layer, int32_t n, int32_t *rows)
{
	n = n < base->n_keep ? n : base->n_keep;
	mzm_history_top(&((griffin *)base)->history, layer, n, rows);
	return n;
}

const mzm_predictor_ops mzm_pred_griffin = {
	.name = "griffin",
	.source = "one set a request, from the prompt (arXiv 2404.01365; CSparse)",
	.stage = MZM_PRED_INPUT,
	.create = griffin_create,
	.free = griffin_free,
	.reset = griffin_reset,
	.observe = griffin_observe,
	.settle = griffin_settle,
	.select = griffin_select,
	.want = griffin_want,
};
