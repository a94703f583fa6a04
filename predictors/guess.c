/* guess.c - see guess.h. */
#include "predictors/guess.h"

#include <string.h>

#define FADE 0.5 /* from check to check: as of topk */

static void layout(mzm_guess *g, mzm_carve *c)
{
	g->y = MZM_CARVE(c, float, g->factors.max_out);
	g->score = MZM_CARVE(c, float, g->cfg->n_ffn);
	g->scratch = MZM_CARVE(c, float, g->cfg->n_ffn);
	mzm_factors_layout(&g->factors, c);
	mzm_history_layout(&g->history, c);
	g->held = g->history.n_layers ? MZM_CARVE(c, uint8_t, (size_t)g->cfg->n_layers * (size_t)g->cfg->n_ffn) : NULL;
}

static mzm_status place(mzm_guess **out, mzm_guess shape, size_t n_bytes, mzm_err *err)
{
	mzm_carve c = {0};
	void *block;
	mzm_carve_take(&c, n_bytes, 1);
	layout(&shape, &c);
	if (c.overflow)
		return mzm_fail(err, MZM_ENOMEM, "the predictor is larger than memory can be");
	MZM_TRY(mzm_alloc_for(&block, c.used, "the predictor", err));
	c = (mzm_carve){.base = block};
	mzm_guess *g = mzm_carve_take(&c, n_bytes, 1);
	*g = shape;
	layout(g, &c);
	*out = g;
	return MZM_OK;
}

mzm_status mzm_guess_create(mzm_guess **out, size_t n_bytes, const mzm_predictor_ops *ops, const mzm_pred_env *env,
			    mzm_err *err)
{
	mzm_status st;
	mzm_factor *found;
	mzm_guess *g = NULL, shape = {.base = {.ops = ops, .n_keep = mzm_pred_most(env), .keep_of = env->keep_of,
					       .observes = env->partial},
				      .cfg = env->cfg,
				      .history = {.n_layers = env->partial ? env->cfg->n_layers : 0,
						  .n_ffn = env->cfg->n_ffn}};
	MZM_TRY(mzm_alloc_for((void **)&found, (size_t)env->cfg->n_layers * sizeof *found, "the predictor", err));
	MZM_TRY_OUT(mzm_factors_find(&shape.factors, found, env, ops->name, err));
	MZM_TRY_OUT(place(&g, shape, n_bytes, err));
	MZM_TRY_OUT(mzm_factors_load(&g->factors, env, ops->name, err));
	if (g->held) /* a layer that nobody asks about is there whole */
		memset(g->held, 1, (size_t)env->cfg->n_layers * (size_t)env->cfg->n_ffn);
	*out = g;
	g = NULL;
out:
	mzm_free(found);
	mzm_free(g);
	return st;
}

void mzm_guess_free(mzm_predictor *p)
{
	mzm_free(p);
}

void mzm_guess_score(mzm_predictor *p, int32_t layer, const float *x, float *score, mzm_team *team, int rank)
{
	mzm_guess *g = (mzm_guess *)p;
	(void)score; /* too short where up is guessed too */
	mzm_factors_apply(&g->factors, layer, x, g->y, team, rank);
}

uint64_t mzm_guess_cost(const mzm_predictor *p)
{
	return mzm_factors_bytes(&((const mzm_guess *)p)->factors);
}

int32_t mzm_guess_drop_zeros(mzm_predictor *p, int32_t layer, float *gate, int32_t *rows, int32_t n)
{
	int32_t kept = 0;
	(void)p, (void)layer;
	for (int32_t i = 0; i < n; i++) {
		gate[kept] = gate[i];
		rows[kept] = rows[i];
		kept += gate[i] != 0;
	}
	return kept > 0 || n == 0 ? kept : 1;
}

/* ---- where not all neurons are in memory ---- */

void mzm_guess_reset(mzm_predictor *p)
{
	mzm_history_reset(&((mzm_guess *)p)->history);
}

void mzm_guess_observe(mzm_predictor *p, int32_t layer, const float *z, int32_t n_pos)
{
	mzm_history_add(&((mzm_guess *)p)->history, layer, z, n_pos);
}

int32_t mzm_guess_want(mzm_predictor *p, int32_t layer, int32_t n, int32_t *rows)
{
	mzm_guess *g = (mzm_guess *)p;
	uint8_t *held = g->held + (size_t)layer * (size_t)g->cfg->n_ffn;
	mzm_history_top(&g->history, layer, n, rows);
	mzm_history_fade(&g->history, layer, FADE);
	memset(held, 0, (size_t)g->cfg->n_ffn);
	for (int32_t i = 0; i < n; i++)
		held[rows[i]] = 1;
	return n;
}

int32_t mzm_guess_best(mzm_guess *g, int32_t layer, int32_t n, int32_t *rows)
{
	int32_t n_ffn = g->cfg->n_ffn, n_held = 0;
	const uint8_t *held = g->held ? g->held + (size_t)layer * (size_t)n_ffn : NULL;
	for (int32_t j = 0; held && j < n_ffn; j++) {
		n_held += held[j];
		g->score[j] = held[j] ? g->score[j] : 0;
	}
	n = held && n_held < n ? n_held : n;
	mzm_select_top(rows, n, g->score, n_ffn, g->scratch);
	return n;
}
