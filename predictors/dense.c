/* dense.c - keeps every neuron: the index-list path with the dense result (equality E1). */
#include "predictors/registry.h"

static mzm_status dense_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	MZM_TRY(mzm_alloc_for((void **)out, sizeof **out, "the dense predictor", err));
	**out = (mzm_predictor){.ops = &mzm_pred_dense, .n_keep = env->cfg->n_ffn};
	return MZM_OK;
}

static void dense_free(mzm_predictor *p)
{
	mzm_free(p);
}

static int32_t dense_select(mzm_predictor *p, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	(void)layer, (void)pos, (void)score;
	for (int32_t i = 0; i < p->n_keep; i++)
		rows[i] = i;
	return p->n_keep;
}

const mzm_predictor_ops mzm_pred_dense = {
	.name = "dense",
	.source = "every neuron; --keep has no effect",
	.stage = MZM_PRED_INPUT,
	.create = dense_create,
	.free = dense_free,
	.select = dense_select,
};
