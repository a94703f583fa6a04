/* guess.c - see guess.h. */
#include "predictors/guess.h"

static void layout(mzm_guess *g, mzm_carve *c)
{
	g->y = MZM_CARVE(c, float, g->factors.max_out);
	g->score = MZM_CARVE(c, float, g->cfg->n_ffn);
	g->scratch = MZM_CARVE(c, float, g->cfg->n_ffn);
	mzm_factors_layout(&g->factors, c);
}

static int32_t most_kept(const mzm_pred_env *env)
{
	int32_t most = env->keep_of ? 1 : mzm_pred_n_keep(env);
	for (int32_t l = 0; env->keep_of && l < env->cfg->n_layers; l++)
		most = env->keep_of[l] > most ? env->keep_of[l] : most;
	return most;
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
	mzm_guess *g = NULL, shape = {.base = {.ops = ops, .n_keep = most_kept(env), .keep_of = env->keep_of},
				      .cfg = env->cfg};
	MZM_TRY(mzm_alloc_for((void **)&found, (size_t)env->cfg->n_layers * sizeof *found, "the predictor", err));
	MZM_TRY_OUT(mzm_factors_find(&shape.factors, found, env, ops->name, err));
	MZM_TRY_OUT(place(&g, shape, n_bytes, err));
	MZM_TRY_OUT(mzm_factors_load(&g->factors, env, ops->name, err));
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
	return kept > 0 ? kept : 1;
}
