/* fit_aware.c - what the predictor aware knows of a layer: factors of gate and up that are best for the inputs of the
 * sample, how far off they are, and how much each neuron weighs.
 *
 * The rank differs from layer to layer: the least that explains ENERGY of the outputs, up to SHARE of the width. On
 * the SwiGLU demo model, where a quarter of the FFN is read in all, the output is off by 0.154 with the rank of 0.375
 * of the width and by 0.165 with that of 0.25; but where a ninth is, by 0.33 and by 0.29. There drafts are at their
 * best: SPEED.md. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "predictors/aware.h"
#include "predictors/factor_fit.h"
#include "predictors/guess.h"

#define SHARE  0.25
#define ENERGY 0.95
#define LOOKS  2048 /* positions of the sample that deviations are taken over */

/* guess: [n, n_out] */
typedef struct sums {
	const mzm_fit_layer *l;
	int32_t      n;
	const float *guess;
	int32_t      n_out;
	float       *weight, *spread; /* [n_ffn] */
	double      *active;          /* [n_ffn] */
} sums;

/* What act(gate) is multiplied with; where that is 0 it does not matter. */
static double up_of(const mzm_fit_layer *l, size_t at)
{
	return l->gate[at] != 0 ? (double)l->z[at] / (double)l->gate[at] : 0;
}

/* The true gate before its activation is not kept, but by the weights. */
static double gate_of(const mzm_fit_layer *l, int32_t p, int32_t j, const mzm_kern *kern)
{
	const float *x = l->x + (size_t)p * (size_t)l->cfg->dim, *w = l->w_gate + (size_t)j * (size_t)l->cfg->dim;
	return (double)kern->dot(x, w, l->cfg->dim) + (l->b_gate ? (double)l->b_gate[j] : 0);
}

static void add_up(const sums *q, int32_t j, const mzm_kern *kern)
{
	const mzm_fit_layer *l = q->l;
	bool ups = q->n_out > l->cfg->n_ffn;
	double off = 0, up = 0, n = 0;
	for (int32_t p = 0; p < q->n; p++) {
		size_t at = (size_t)p * (size_t)l->cfg->n_ffn + (size_t)j, row = (size_t)p * (size_t)q->n_out;
		double truth = ups ? up_of(l, at) : gate_of(l, p, j, kern);
		double d = truth - (double)q->guess[row + (size_t)j + (ups ? (size_t)l->cfg->n_ffn : 0)];
		off += ups && l->gate[at] == 0 ? 0 : d * d;
		up += fabs(up_of(l, at));
		n += l->gate[at] != 0;
	}
	q->active[j] = n / q->n;
	q->spread[j] = (float)sqrt(off / q->n) + 1e-6f;
	q->weight[j] = l->down_norm[j] * (ups ? 1 : n > 0 ? (float)(up / n) : 1);
}

static void sums_rank(void *ctx, mzm_team *team, int rank)
{
	const sums *q = ctx;
	const mzm_kern *kern = mzm_kern_find(NULL);
	int32_t begin, end;
	mzm_team_range(q->l->cfg->n_ffn, 16, rank, mzm_team_size(team), &begin, &end);
	for (int32_t j = begin; j < end; j++)
		add_up(q, j, kern);
}

static mzm_status write_weights(const sums *q, mzm_calib_writer *out, mzm_err *err)
{
	int32_t n = q->l->cfg->n_ffn;
	uint16_t *both;
	double active = 0;
	MZM_TRY(mzm_alloc_for((void **)&both, AWARE_ROWS * (size_t)n * sizeof *both, "weights of neurons", err));
	for (int32_t j = 0; j < n; j++) {
		both[j] = mzm_f32_to_bf16(q->weight[j]);
		both[n + j] = mzm_f32_to_bf16(q->spread[j]);
		active += q->active[j] / n;
	}
	mzm_status st = mzm_calib_add(out, "aware.weight", q->l->layer, MZM_BF16, AWARE_ROWS, n, both, err);
	mzm_free(both);
	if (st == MZM_OK)
		st = mzm_calib_add(out, "aware.active", q->l->layer, MZM_F32, 1, 1, &(float){(float)active}, err);
	return st;
}

/* How far off the guesses are, over the sample. */
static mzm_status weigh(const mzm_fit_layer *l, const mzm_factor_fit *f, mzm_calib_writer *out, mzm_err *err)
{
	mzm_status st;
	size_t n = (size_t)l->cfg->n_ffn, n_out = n * (size_t)f->times;
	int32_t n_pos = l->n_train < LOOKS ? l->n_train : LOOKS;
	float *guess = NULL, *weight = NULL;
	double *active = NULL;
	MZM_TRY_OUT(mzm_alloc_for((void **)&guess, (size_t)n_pos * n_out * sizeof *guess, "guesses", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&weight, 2 * n * sizeof *weight, "weights of neurons", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&active, n * sizeof *active, "weights of neurons", err));
	MZM_TRY_OUT(mzm_factor_predict(guess, f, l->x, n_pos, l->team, err));
	sums q = {l, n_pos, guess, (int32_t)n_out, weight, weight + n, active};
	mzm_team_run(l->team, sums_rank, &q);
	st = write_weights(&q, out, err);
out:
	mzm_free(guess);
	mzm_free(weight);
	mzm_free(active);
	return st;
}

static mzm_status aware_layer(const mzm_fit_layer *l, const mzm_fit_options *o, mzm_calib_writer *out, mzm_err *err)
{
	mzm_factor_fit f;
	double explained;
	bool ups = l->w_up && !mzm_act_is_sparse(l->cfg->act);
	mzm_factor_want want = {.target = ups ? MZM_FACTOR_GATE_UP : MZM_FACTOR_GATE, .inputs = true,
				.rank = mzm_factor_rank(l->cfg, o->rank, SHARE), .energy = o->rank > 0 ? 0 : ENERGY,
				.bits = 4, .round = true};
	MZM_TRY(mzm_factor_make(&f, &explained, l, &want, err));
	mzm_status st = mzm_factor_write(out, "aware", l->layer, &f, err);
	if (st == MZM_OK)
		st = weigh(l, &f, out, err);
	mzm_factor_free(&f);
	return st;
}

const mzm_fit mzm_fit_aware = {
	.name = "aware",
	.about = "low-rank gate and up, best for the inputs the model has",
	.layer = aware_layer,
};
