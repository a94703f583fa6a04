/* oracle.c - the neurons that contribute most, |z_j| times the norm of down row j, known only after gate
 * and up were computed whole: an upper bound for what choosing neurons can reach, not a way to save. */
#include "predictors/registry.h"

#include "base/carve.h"

typedef struct oracle {
	mzm_predictor base;
	int32_t       n_ffn;
	const float  *down_norm; /* [n_layers, n_ffn] */
	float        *score;     /* [n_ffn] */
	float        *scratch;   /* [n_ffn] */
} oracle;

static mzm_status oracle_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	mzm_carve c = {0};
	MZM_CARVE(&c, oracle, 1);
	MZM_CARVE(&c, float, env->cfg->n_ffn);
	MZM_CARVE(&c, float, env->cfg->n_ffn);
	MZM_TRY(mzm_alloc_for((void **)&c.base, c.used, "the oracle predictor", err));
	c.used = 0;
	oracle *p = MZM_CARVE(&c, oracle, 1);
	p->base = (mzm_predictor){.ops = &mzm_pred_oracle, .n_keep = mzm_pred_most(env), .keep_of = env->keep_of};
	p->n_ffn = env->cfg->n_ffn;
	p->down_norm = env->down_norm;
	p->score = MZM_CARVE(&c, float, p->n_ffn);
	p->scratch = MZM_CARVE(&c, float, p->n_ffn);
	*out = &p->base;
	return MZM_OK;
}

static void oracle_free(mzm_predictor *p)
{
	mzm_free(p);
}

static int32_t oracle_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	oracle *p = (oracle *)base;
	const float *norm = p->down_norm + (size_t)layer * (size_t)p->n_ffn;
	int32_t n = mzm_pred_keep(base, layer);
	(void)pos;
	for (int32_t j = 0; j < p->n_ffn; j++)
		p->score[j] = score[j] * norm[j];
	mzm_select_top(rows, n, p->score, p->n_ffn, p->scratch);
	return n;
}

const mzm_predictor_ops mzm_pred_oracle = {
	.name = "oracle",
	.source = "largest true contribution; upper bound, saves only down",
	.stage = MZM_PRED_FULL,
	.needs_down_norm = true,
	.create = oracle_create,
	.free = oracle_free,
	.select = oracle_select,
};
