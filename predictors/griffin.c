/* griffin.c - one neuron set per layer and request, chosen from the dense prefill (GRIFFIN, arXiv
 * 2404.01365; CSparse in Sirius, arXiv 2409.03856).
 *
 * With z_t the FFN activations of prompt position t: s_j = sqrt(sum over t of (z_tj / |z_t|)^2), and
 * the largest s_j of each layer are kept. Every position counts once; one with |z_t| = 0 adds
 * nothing. Sums run over positions ascending, in double, so the set depends on nothing else. */
#include "predictors/registry.h"

#include <string.h>

#include "base/carve.h"

typedef struct griffin {
	mzm_predictor base;
	int32_t       n_layers, n_ffn;
	double       *stat;    /* [n_layers, n_ffn] sum of squares so far */
	int32_t      *rows;    /* [n_layers, n_keep] the settled sets */
	float        *score;   /* [n_ffn] */
	float        *scratch; /* [n_ffn] */
} griffin;

static void griffin_layout(griffin *g, mzm_carve *c)
{
	size_t layers = (size_t)g->n_layers, n_ffn = (size_t)g->n_ffn;
	g->stat = MZM_CARVE(c, double, layers * n_ffn);
	g->rows = MZM_CARVE(c, int32_t, layers * (size_t)g->base.n_keep);
	g->score = MZM_CARVE(c, float, n_ffn);
	g->scratch = MZM_CARVE(c, float, n_ffn);
}

static mzm_status griffin_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	griffin shape = {.base = {&mzm_pred_griffin, mzm_pred_n_keep(env)},
			 .n_layers = env->cfg->n_layers, .n_ffn = env->cfg->n_ffn};
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
	griffin *g = (griffin *)base;
	memset(g->stat, 0, sizeof *g->stat * (size_t)g->n_layers * (size_t)g->n_ffn);
}

static void griffin_observe(mzm_predictor *base, int32_t layer, const float *z, int32_t n_pos)
{
	griffin *g = (griffin *)base;
	double *stat = g->stat + (size_t)layer * (size_t)g->n_ffn;
	for (int32_t p = 0; p < n_pos; p++, z += g->n_ffn) {
		double norm2 = 0;
		for (int32_t j = 0; j < g->n_ffn; j++)
			norm2 += (double)z[j] * z[j];
		if (!(norm2 > 0))
			continue;
		double scale = 1 / norm2;
		for (int32_t j = 0; j < g->n_ffn; j++)
			stat[j] += (double)z[j] * z[j] * scale;
	}
}

static void griffin_settle(mzm_predictor *base)
{
	griffin *g = (griffin *)base;
	for (int32_t l = 0; l < g->n_layers; l++) {
		const double *stat = g->stat + (size_t)l * (size_t)g->n_ffn;
		for (int32_t j = 0; j < g->n_ffn; j++)
			g->score[j] = (float)stat[j];
		mzm_select_top(g->rows + (size_t)l * (size_t)base->n_keep, base->n_keep, g->score, g->n_ffn,
			       g->scratch);
	}
}

static int32_t griffin_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	const griffin *g = (const griffin *)base;
	(void)pos, (void)score;
	memcpy(rows, g->rows + (size_t)layer * (size_t)base->n_keep, sizeof *rows * (size_t)base->n_keep);
	return base->n_keep;
}

const mzm_predictor_ops mzm_pred_griffin = {
	.name = "griffin",
	.source = "one set a request, from the prompt (arXiv 2404.01365; CSparse)",
	.stage = MZM_PRED_INPUT,
	.observes = true,
	.create = griffin_create,
	.free = griffin_free,
	.reset = griffin_reset,
	.observe = griffin_observe,
	.settle = griffin_settle,
	.select = griffin_select,
};
