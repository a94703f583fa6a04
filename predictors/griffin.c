/* griffin.c - one neuron set per layer and request, chosen from the dense prefill (GRIFFIN, arXiv
 * 2404.01365; CSparse in Sirius, arXiv 2409.03856): the neurons that carried most over the prompt (history.h).
 *
 * "griffin-live" chooses anew after every check, which computes all neurons of its tokens anyway: what was known counts
 * for less, what the check saw is added, rejected tokens included. So the set follows the text. */
#include "predictors/history.h"
#include "predictors/registry.h"

#include <string.h>

#define FADE 0.6 /* from check to check: tokens a check on 60 problems, keep 0.5: see SPEED.md */

typedef struct griffin {
	mzm_predictor base;
	bool          settled; /* the prompt is over: what comes are checks */
	mzm_history   history;
	int32_t      *rows; /* [n_layers, n_keep] the settled sets */
} griffin;

static void griffin_layout(griffin *g, mzm_carve *c)
{
	mzm_history_layout(&g->history, c);
	g->rows = MZM_CARVE(c, int32_t, (size_t)g->history.n_layers * (size_t)g->base.n_keep);
}

static mzm_status create(mzm_predictor **out, const mzm_predictor_ops *ops, const mzm_pred_env *env, mzm_err *err)
{
	griffin shape = {.base = {.ops = ops, .n_keep = mzm_pred_most(env), .keep_of = env->keep_of,
				  .observes = true},
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

static mzm_status griffin_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	return create(out, &mzm_pred_griffin, env, err);
}

static mzm_status live_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	return create(out, &mzm_pred_griffin_live, env, err);
}

static void griffin_free(mzm_predictor *p)
{
	mzm_free(p);
}

static void griffin_reset(mzm_predictor *base)
{
	griffin *g = (griffin *)base;
	mzm_history_reset(&g->history);
	g->settled = false;
}

static void live_observe(mzm_predictor *base, int32_t layer, const float *z, int32_t n_pos)
{
	griffin *g = (griffin *)base;
	if (g->settled)
		mzm_history_fade(&g->history, layer, FADE);
	mzm_history_add(&g->history, layer, z, n_pos);
}

static void griffin_observe(mzm_predictor *base, int32_t layer, const float *z, int32_t n_pos)
{
	mzm_history_add(&((griffin *)base)->history, layer, z, n_pos);
}

static void griffin_settle(mzm_predictor *base)
{
	griffin *g = (griffin *)base;
	for (int32_t l = 0; l < g->history.n_layers; l++)
		mzm_history_top(&g->history, l, mzm_pred_keep(base, l),
				g->rows + (size_t)l * (size_t)base->n_keep);
	g->settled = true;
}

static int32_t griffin_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	const griffin *g = (const griffin *)base;
	int32_t n = mzm_pred_keep(base, layer);
	(void)pos, (void)score;
	memcpy(rows, g->rows + (size_t)layer * (size_t)base->n_keep, sizeof *rows * (size_t)n);
	return n;
}

/* Its set, which it stays with, or the best of it. */
static int32_t griffin_want(mzm_predictor *base, int32_t layer, int32_t n, int32_t *rows)
{
	int32_t keep = mzm_pred_keep(base, layer);
	n = n < keep ? n : keep;
	mzm_history_top(&((griffin *)base)->history, layer, n, rows);
	return n;
}

const mzm_predictor_ops mzm_pred_griffin = {
	.name = "griffin",
	.source = "one set a request, from the prompt (arXiv 2404.01365; CSparse)",
	.stage = MZM_PRED_INPUT,
	.allocates = true,
	.create = griffin_create,
	.free = griffin_free,
	.reset = griffin_reset,
	.observe = griffin_observe,
	.settle = griffin_settle,
	.select = griffin_select,
	.want = griffin_want,
};

const mzm_predictor_ops mzm_pred_griffin_live = {
	.name = "griffin-live",
	.source = "griffin, chosen anew after every check from what it saw",
	.stage = MZM_PRED_INPUT,
	.learns = true,
	.refreshes = true,
	.allocates = true,
	.create = live_create,
	.free = griffin_free,
	.reset = griffin_reset,
	.observe = live_observe,
	.settle = griffin_settle,
	.select = griffin_select,
	.want = griffin_want,
};
