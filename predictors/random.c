/* random.c - a uniformly random set of neurons for each token and layer: the lower bound that any
 * predictor must beat. A set is a function of (seed, layer, position), so it survives roll-back. */
#include "predictors/registry.h"

#include "base/rng.h"

typedef struct random_pred {
	mzm_predictor base;
	int32_t       n_ffn;
	uint64_t      seed;
} random_pred;

static mzm_status random_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	random_pred *p;
	MZM_TRY(mzm_alloc_for((void **)&p, sizeof *p, "the random predictor", err));
	p->base = (mzm_predictor){.ops = &mzm_pred_random, .n_keep = mzm_pred_n_keep(env)};
	p->n_ffn = env->cfg->n_ffn;
	p->seed = env->seed;
	*out = &p->base;
	return MZM_OK;
}

static void random_free(mzm_predictor *p)
{
	mzm_free(p);
}

/* Selection sampling (Knuth, TAOCP 2, 3.4.2 S): ascending, each set equally likely. */
static int32_t random_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	random_pred *p = (random_pred *)base;
	uint64_t stream = mzm_rng_u64(p->seed, (uint64_t)layer, (uint64_t)pos);
	int32_t n = 0;
	(void)score;
	for (int32_t i = 0; n < base->n_keep; i++) {
		if (mzm_rng_unit(p->seed, stream, (uint64_t)i) * (p->n_ffn - i) < base->n_keep - n)
			rows[n++] = i;
	}
	return n;
}

const mzm_predictor_ops mzm_pred_random = {
	.name = "random",
	.source = "uniform, anew for each token and layer",
	.stage = MZM_PRED_INPUT,
	.create = random_create,
	.free = random_free,
	.select = random_select,
};
