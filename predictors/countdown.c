/* countdown.c - M-COUNTDOWN (arXiv 2505.17701): the choice falls by |up x|, the coefficient that the down projection
 * will meet but for the gate; up is computed whole, gate and down for the chosen. Its D form predicts that coefficient:
 * countdown-d in lowrank.c. */
#include "predictors/registry.h"

#include "base/carve.h"

typedef struct countdown {
	mzm_predictor base;
	int32_t       n_ffn;
	float        *scratch; /* [n_ffn] */
} countdown;

static mzm_status countdown_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	mzm_carve c = {0};
	MZM_CARVE(&c, countdown, 1);
	MZM_CARVE(&c, float, env->cfg->n_ffn);
	MZM_TRY(mzm_alloc_for((void **)&c.base, c.used, "the countdown predictor", err));
	c.used = 0;
	countdown *p = MZM_CARVE(&c, countdown, 1);
	p->base = (mzm_predictor){.ops = &mzm_pred_countdown, .n_keep = mzm_pred_most(env), .keep_of = env->keep_of};
	p->n_ffn = env->cfg->n_ffn;
	p->scratch = MZM_CARVE(&c, float, p->n_ffn);
	*out = &p->base;
	return MZM_OK;
}

static void countdown_free(mzm_predictor *p)
{
	mzm_free(p);
}

static int32_t countdown_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	countdown *p = (countdown *)base;
	int32_t n = mzm_pred_keep(base, layer);
	(void)pos;
	mzm_select_top(rows, n, score, p->n_ffn, p->scratch);
	return n;
}

const mzm_predictor_ops mzm_pred_countdown = {
	.name = "countdown",
	.source = "largest |up| of each token (M-COUNTDOWN, arXiv 2505.17701)",
	.stage = MZM_PRED_UP,
	.allocates = true,
	.create = countdown_create,
	.free = countdown_free,
	.select = countdown_select,
};
