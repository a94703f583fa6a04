/* aware.c - the neurons that will contribute most, by low-rank factors of gate and up that are best for the inputs the
 * model really has (factor_fit.h), and by the sizes of their down rows; ours.
 *
 * The factors guess gate g and up u. A neuron contributes |act(g) u| times the norm of its down row, where u^2 counts
 * with the variance that the guess leaves. From those the candidates are taken, some more than are kept; their gates
 * are computed as they are, and the best by the true act(g) and the guessed u stay. So two thirds of a wrong
 * candidate's weights are not read, and the gate of a chosen one is never a guess.
 *
 * Why up is guessed too: half of what decides is in it. On the SwiGLU demo model, layer 2, the best 15 % by the whole
 * true gate and norms hold 59 % of the best by contribution; by gate and up from 4 bits of rank 96, at a quarter of the
 * cost, 75 %; by the true gate and that up, 84 %. Over all layers and held-out text, keep 0.1, a pass reads 0.17 of the
 * FFN and its output is off by 0.21, where topk reads 0.40 and is off by 0.25, and the oracle's is off by 0.17.
 *
 * Tried and left out: what a neuron carried over the prompt, added to its score (worse for every weight); another
 * number of neurons for each token, by a threshold relative to the token's scores (no better at equal reading).
 *
 * Where most activations are zero (ReLU), gates alone decide: only they are guessed, as the mean of what the activation
 * may be, given the error that guesses have; all of whose true gate is not zero stay, up to keep. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "predictors/aware.h"
#include "predictors/guess.h"
#include "predictors/registry.h"

/* For each neuron that is kept. At a quarter of the FFN read, the output is off by 0.156 with 1.0 or 1.5, by 0.152
 * between 1.12 and 1.25, by 0.168 with 2. */
#define CANDIDATES 1.25

typedef struct aware {
	mzm_guess guess;
	const uint16_t **weight; /* [n_layers] of [AWARE_ROWS, n_ffn] bf16, the side-car's */
	float           *other;  /* [n_ffn] what act(gate) is multiplied with, by the guess */
	float           *own;    /* [n_ffn] refine: scores in list order */
	int32_t         *order;  /* [n_ffn] refine: places in the list */
	double           share;
} aware;

static mzm_status find_weights(aware *p, const mzm_pred_env *env, mzm_err *err)
{
	for (int32_t l = 0; l < env->cfg->n_layers; l++) {
		p->weight[l] = mzm_calib_find(env->calib, "aware.weight", l, MZM_BF16, AWARE_ROWS, env->cfg->n_ffn);
		if (!p->weight[l])
			return mzm_fail(err, MZM_EFORMAT, "the side-car has no fitting \"aware.weight\" of layer %d",
					(int)l);
	}
	return MZM_OK;
}

static int32_t n_candidates(const aware *p, int32_t layer)
{
	double n = CANDIDATES * (double)mzm_pred_keep(&p->guess.base, layer);
	return n < (double)p->guess.cfg->n_ffn ? (int32_t)n : p->guess.cfg->n_ffn;
}

/* What a pass is expected to read. Behind a ReLU no more neurons stay than are active. */
static double expected_share(const aware *p, const mzm_pred_env *env)
{
	double candidates = 0, kept = 0, all = (double)env->cfg->n_ffn * env->cfg->n_layers;
	double rest = mzm_config_n_ffn_matrices(env->cfg) - 1;
	for (int32_t l = 0; l < env->cfg->n_layers; l++) {
		const float *active = mzm_calib_find(env->calib, "aware.active", l, MZM_F32, 1, 1);
		double keep = mzm_pred_keep(&p->guess.base, l), most = keep;
		if (active && *active >= 0 && *active < 1)
			most = (double)*active * env->cfg->n_ffn;
		candidates += n_candidates(p, l);
		kept += keep < most ? keep : most;
	}
	return (candidates + rest * kept) / ((1 + rest) * all);
}

static void aware_layout(aware *p, mzm_carve *c)
{
	p->weight = (const uint16_t **)mzm_carve_take(c, (size_t)p->guess.cfg->n_layers, sizeof *p->weight);
	p->other = MZM_CARVE(c, float, p->guess.cfg->n_ffn);
	p->own = MZM_CARVE(c, float, p->guess.cfg->n_ffn);
	p->order = MZM_CARVE(c, int32_t, p->guess.cfg->n_ffn);
}

static mzm_status aware_create(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err)
{
	mzm_status st;
	mzm_carve c = {0};
	mzm_guess *g;
	aware *p;
	MZM_TRY(mzm_guess_create(&g, sizeof *p, &mzm_pred_aware, env, err));
	p = (aware *)g;
	aware_layout(p, &c);
	MZM_TRY_OUT(mzm_alloc_for((void **)&c.base, c.used, "the predictor", err));
	c.used = 0;
	aware_layout(p, &c);
	MZM_TRY_OUT(find_weights(p, env, err));
	p->share = expected_share(p, env);
	*out = &g->base;
	return MZM_OK;
out:
	mzm_free(p->weight);
	mzm_guess_free(&g->base);
	return st;
}

static void aware_free(mzm_predictor *base)
{
	if (base)
		mzm_free(((aware *)base)->weight);
	mzm_guess_free(base);
}

/* The mean of max(g, 0) where g is normal around the guess t, all in units of the deviation: phi(t) + t Phi(t), within
 * 2 % for t > -3. */
static float mean_above_zero(float t)
{
	float below = t < 0 ? t : -t;
	float tail = mzm_expf(-0.919f + 1.207f * below - 0.359f * below * below);
	return t > 0 ? t + tail : tail;
}

/* Scores of gate and up as guessed: g->score, and in other what act(gate) is to be multiplied with. */
static void judge_dense(aware *p, int32_t layer)
{
	mzm_guess *g = &p->guess;
	int32_t n = g->cfg->n_ffn;
	const uint16_t *down = p->weight[layer], *spread = down + n;
	const float *up = g->factors.of[layer].n_out > n ? g->y + n : NULL;
	memcpy(g->score, g->y, (size_t)n * sizeof *g->score);
	g->factors.kern->act(g->score, g->cfg->act, g->cfg->act_threshold, n);
	for (int32_t j = 0; j < n; j++) {
		float s = mzm_bf16_to_f32(spread[j]);
		p->other[j] = mzm_bf16_to_f32(down[j]) * (up ? sqrtf(up[j] * up[j] + s * s) : 1);
		g->score[j] *= p->other[j];
	}
}

/* The same where gates decide alone. */
static void judge_sparse(aware *p, int32_t layer)
{
	mzm_guess *g = &p->guess;
	int32_t n = g->cfg->n_ffn;
	const uint16_t *down = p->weight[layer], *spread = down + n;
	for (int32_t j = 0; j < n; j++) {
		float s = mzm_bf16_to_f32(spread[j]);
		p->other[j] = mzm_bf16_to_f32(down[j]);
		g->score[j] = s * mean_above_zero((g->y[j] - g->cfg->act_threshold) / s) * p->other[j];
	}
}

static int32_t aware_select(mzm_predictor *base, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	aware *p = (aware *)base;
	mzm_guess *g = &p->guess;
	int32_t n = n_candidates(p, layer);
	(void)pos, (void)score;
	if (mzm_act_is_sparse(g->cfg->act))
		judge_sparse(p, layer);
	else
		judge_dense(p, layer);
	return mzm_guess_best(g, layer, n, rows);
}

static int32_t aware_refine(mzm_predictor *base, int32_t layer, float *gate, int32_t *rows, int32_t n)
{
	aware *p = (aware *)base;
	int32_t keep = mzm_pred_keep(base, layer);
	n = mzm_guess_drop_zeros(base, layer, gate, rows, n);
	if (n <= keep)
		return n;
	for (int32_t i = 0; i < n; i++)
		p->own[i] = gate[i] * p->other[rows[i]];
	mzm_select_top(p->order, keep, p->own, n, p->guess.scratch);
	for (int32_t i = 0; i < keep; i++) { /* ascending, so nothing is overwritten that is still to be read */
		gate[i] = gate[p->order[i]];
		rows[i] = rows[p->order[i]];
	}
	return keep;
}

static double aware_share(const mzm_predictor *base)
{
	return ((const aware *)base)->share;
}

/* And the two weights of each neuron. */
static uint64_t aware_cost(const mzm_predictor *base)
{
	const mzm_config *cfg = ((const mzm_guess *)base)->cfg;
	return mzm_guess_cost(base) + AWARE_ROWS * sizeof(uint16_t) * (uint64_t)cfg->n_ffn * (uint64_t)cfg->n_layers;
}

const mzm_predictor_ops mzm_pred_aware = {
	.name = "aware",
	.source = "candidates by low-rank gate and up made for the model's inputs, then true gates",
	.stage = MZM_PRED_INPUT,
	.calibration = "aware",
	.allocates = true,
	.learns = true,
	.create = aware_create,
	.free = aware_free,
	.score = mzm_guess_score,
	.refine = aware_refine,
	.cost = aware_cost,
	.share = aware_share,
	.reset = mzm_guess_reset,
	.observe = mzm_guess_observe,
	.select = aware_select,
	.want = mzm_guess_want,
};
