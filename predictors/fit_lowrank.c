/* fit_lowrank.c - training of Deja Vu's predictor (arXiv 2310.17157): two linear maps from the input of a layer to the
 * odds that a neuron matters, by AdamW on weighted binary cross-entropy.
 *
 * What matters: behind a ReLU an activation that is not zero; else one of the LABELLED largest contributions, |z| times
 * the norm of the down row. Two things differ from the paper. It starts from the factors of the gate that are best for
 * the inputs (factor_fit.h), not from noise. And behind a ReLU a label is not 0 or 1 but a steep logistic of the gate,
 * which says how near it was: with the same text (8,000 positions, layer 2 of the ReGLU demo model, rank 96) the half
 * as many again that are likeliest hold 90 % of the active neurons, with hard labels 75 %, as those are learnt by heart
 * (training: 93 and 84 %). 4 bits instead of 8 take 5 points off; rank 128 instead of 96 adds 5. With rank 160 and
 * 9,600 positions, over all layers and held-out text, 1.37 neurons are chosen for each active one, and 97.4 % found.
 *
 * D-COUNTDOWN (arXiv 2505.17701) learns in the same way what its paper's predictor does: hard labels for the largest
 * coefficients |z| of the down projection, whatever the activation and the norms of what they meet.
 *
 * Each step is a few products over a batch; every output is one rank's of the team, so no sum depends on how many. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "predictors/factor_fit.h"
#include "predictors/guess.h"
#include "predictors/linalg.h"
#include "predictors/lowrank.h"

#define SHARE      0.625 /* rank by the width of the model */
#define BITS       8
#define EPOCHS     8
#define BATCH      256
#define RATE       2e-3
#define DECAY      0.01
#define BETA1      0.9
#define BETA2      0.999
#define POSITIVE   4.0f /* weight of a neuron that matters against one that does not */
#define LABELLED   0.25f
#define SHARP      4.0f /* of soft labels, in deviations of the gate */
#define LOOKS      2048  /* positions over which shares are counted */

typedef struct adam {
	float *w, *grad, *m, *v;
	size_t n;
} adam;

/* What is learnt: of which predictor, and how it is labelled. */
typedef struct lesson {
	const char *name;
	bool        contributes; /* by |z| times the norm of the down row, behind a ReLU softly by the gate; else |z| */
} lesson;

typedef struct training {
	const mzm_fit_layer *l;
	const lesson        *of_what;
	mzm_factor_fit      *f;
	int32_t  rank, dim, n_ffn, n_batch;
	float   *at, *bt;      /* [rank, dim], [n_ffn, rank] what is trained; f is their transpose */
	float   *x, *xt;       /* [BATCH, dim], [dim, BATCH] */
	float   *h, *ht;       /* [BATCH, rank], [rank, BATCH] */
	float   *d, *dt;       /* [BATCH, n_ffn], [n_ffn, BATCH] logits, then their gradients */
	float   *dh, *dht;     /* [BATCH, rank], [rank, BATCH] */
	float   *bias;         /* [n_ffn] */
	float   *g;            /* [BATCH, n_ffn] the true gates */
	uint8_t *label;        /* [n_train, n_ffn] */
	float    sharp;        /* behind a ReLU: labels are the logistic of so many times the gate; else 0 */
	int32_t *order;        /* [n_train] positions in the order of the epoch */
	adam     of[3];        /* at, bt, bias */
	float    rate, fix1, fix2; /* of this step */
	void    *block;
} training;

static void adam_layout(adam *a, float *w, size_t n, mzm_carve *c)
{
	a->w = w;
	a->n = n;
	a->grad = MZM_CARVE(c, float, n);
	a->m = MZM_CARVE(c, float, n);
	a->v = MZM_CARVE(c, float, n);
}

static void training_layout(training *t, mzm_carve *c)
{
	size_t r = (size_t)t->rank, dim = (size_t)t->dim, n = (size_t)t->n_ffn, n_train = (size_t)t->l->n_train;
	t->at = MZM_CARVE(c, float, r * dim);
	t->bt = MZM_CARVE(c, float, n * r);
	t->x = MZM_CARVE(c, float, BATCH * dim);
	t->xt = MZM_CARVE(c, float, BATCH * dim);
	t->h = MZM_CARVE(c, float, BATCH * r);
	t->ht = MZM_CARVE(c, float, BATCH * r);
	t->d = MZM_CARVE(c, float, BATCH * n);
	t->dt = MZM_CARVE(c, float, BATCH * n);
	t->dh = MZM_CARVE(c, float, BATCH * r);
	t->dht = MZM_CARVE(c, float, BATCH * r);
	t->bias = MZM_CARVE(c, float, n);
	t->g = MZM_CARVE(c, float, t->sharp > 0 ? BATCH * n : 0);
	t->label = MZM_CARVE(c, uint8_t, t->sharp > 0 ? 0 : n_train * n);
	t->order = MZM_CARVE(c, int32_t, n_train);
	adam_layout(&t->of[0], t->at, r * dim, c);
	adam_layout(&t->of[1], t->bt, n * r, c);
	adam_layout(&t->of[2], t->bias, n, c);
}

/* ---- labels ---- */

typedef struct labelling {
	const mzm_fit_layer *l;
	bool     contributes;
	uint8_t *label;
	float   *score, *scratch; /* [n_ranks, n_ffn] */
	int32_t *rows;            /* [n_ranks, n_ffn] */
} labelling;

static void label_position(const labelling *q, int32_t p, int rank)
{
	const mzm_fit_layer *l = q->l;
	size_t n = (size_t)l->cfg->n_ffn, mine = (size_t)rank * n;
	const float *z = l->z + (size_t)p * n;
	uint8_t *label = q->label + (size_t)p * n;
	int32_t keep = (int32_t)(LABELLED * (float)n) + 1;
	for (size_t j = 0; j < n; j++)
		q->score[mine + j] = z[j] * (q->contributes ? l->down_norm[j] : 1);
	mzm_select_top(q->rows + mine, keep, q->score + mine, (int32_t)n, q->scratch + mine);
	memset(label, 0, n);
	for (int32_t i = 0; i < keep; i++)
		label[q->rows[mine + (size_t)i]] = z[q->rows[mine + (size_t)i]] != 0;
}

static void label_rank(void *ctx, mzm_team *team, int rank)
{
	const labelling *q = ctx;
	int32_t begin, end;
	mzm_team_range(q->l->n_train, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t p = begin; p < end; p++)
		label_position(q, p, rank);
}

static mzm_status make_labels(training *t, mzm_err *err)
{
	size_t n = (size_t)mzm_team_size(t->l->team) * (size_t)t->n_ffn;
	float *block;
	MZM_TRY(mzm_alloc_for((void **)&block, n * (2 * sizeof(float) + sizeof(int32_t)), "labels", err));
	labelling q = {t->l, t->of_what->contributes, t->label, block, block + n, (int32_t *)(void *)(block + 2 * n)};
	mzm_team_run(t->l->team, label_rank, &q);
	mzm_free(block);
	return MZM_OK;
}

/* ---- a step ---- */

#define STRIP 16 /* neurons: a cache line of logits at a time */

static float logistic(float x)
{
	return 1 / (1 + mzm_expf(-x));
}

/* What the logit of neuron j in position i of the batch should have been: its probability. */
static float target(const training *t, size_t i, size_t j)
{
	if (t->sharp > 0)
		return logistic(t->sharp * (t->g[i * (size_t)t->n_ffn + j] - t->l->cfg->act_threshold));
	return t->label[(size_t)t->order[i] * (size_t)t->n_ffn + j];
}

/* Neurons j0 .. j0 + STRIP - 1, or those up to n. */
static void judge_strip(training *t, size_t j0, size_t n, float scale)
{
	size_t width = n - j0 < STRIP ? n - j0 : STRIP, m = (size_t)t->n_batch;
	float sum[STRIP] = {0};
	for (size_t i = 0; i < m; i++) {
		float *d = t->d + i * n + j0;
		for (size_t j = 0; j < width; j++) {
			float p = logistic(d[j] + t->bias[j0 + j]), y = target(t, i, j0 + j);
			d[j] = scale * ((1 - y) * p - POSITIVE * y * (1 - p));
			t->dt[(j0 + j) * m + i] = d[j];
			sum[j] += d[j];
		}
	}
	memcpy(t->of[2].grad + j0, sum, width * sizeof *sum);
}

/* Logits become gradients, transposed beside; and that of the bias. This rank's neurons. */
static void judge_rank(void *ctx, mzm_team *team, int rank)
{
	training *t = ctx;
	int32_t begin, end;
	float scale = 1 / ((float)t->n_batch * LABELLED);
	mzm_team_range(t->n_ffn, STRIP, rank, mzm_team_size(team), &begin, &end);
	for (int32_t j = begin; j < end; j += STRIP)
		judge_strip(t, (size_t)j, (size_t)t->n_ffn, scale);
}

static void adam_step(const training *t, const adam *a, float decay, mzm_team *team, int rank)
{
	size_t size = (size_t)mzm_team_size(team), begin = a->n * (size_t)rank / size,
	       end = a->n * ((size_t)rank + 1) / size;
	for (size_t i = begin; i < end; i++) {
		float g = a->grad[i];
		a->m[i] += (float)(1 - BETA1) * (g - a->m[i]);
		a->v[i] += (float)(1 - BETA2) * (g * g - a->v[i]);
		float step = a->m[i] * t->fix1 / (sqrtf(a->v[i] * t->fix2) + 1e-8f);
		a->w[i] -= t->rate * (step + decay * a->w[i]);
	}
}

static void update_rank(void *ctx, mzm_team *team, int rank)
{
	const training *t = ctx;
	adam_step(t, &t->of[0], (float)DECAY, team, rank);
	adam_step(t, &t->of[1], (float)DECAY, team, rank);
	adam_step(t, &t->of[2], 0, team, rank);
}

static mzm_status true_gates(training *t, mzm_err *err)
{
	const mzm_fit_layer *l = t->l;
	MZM_TRY(mzm_times_t(t->g, t->x, l->w_gate, t->n_batch, t->n_ffn, t->dim, l->team, err));
	for (size_t i = 0; l->b_gate && i < (size_t)t->n_batch * (size_t)t->n_ffn; i++)
		t->g[i] += l->b_gate[i % (size_t)t->n_ffn];
	return MZM_OK;
}

/* n_batch positions from `first` of the order on. */
static mzm_status step(training *t, mzm_err *err)
{
	mzm_team *team = t->l->team;
	int32_t m = t->n_batch, r = t->rank, dim = t->dim, n = t->n_ffn;
	for (int32_t i = 0; i < m; i++)
		memcpy(t->x + (size_t)i * (size_t)dim, t->l->x + (size_t)t->order[i] * (size_t)dim,
		       (size_t)dim * sizeof *t->x);
	MZM_TRY(mzm_times_t(t->h, t->x, t->at, m, r, dim, team, err));
	MZM_TRY(mzm_times_t(t->d, t->h, t->bt, m, n, r, team, err));
	if (t->sharp > 0)
		MZM_TRY(true_gates(t, err));
	mzm_team_run(team, judge_rank, t);
	mzm_transpose(t->xt, t->x, m, dim, team);
	mzm_transpose(t->ht, t->h, m, r, team);
	mzm_transpose(t->f->b, t->bt, n, r, team);
	MZM_TRY(mzm_times_t(t->of[1].grad, t->dt, t->ht, n, r, m, team, err));
	MZM_TRY(mzm_times_t(t->dh, t->d, t->f->b, m, r, n, team, err));
	mzm_transpose(t->dht, t->dh, m, r, team);
	MZM_TRY(mzm_times_t(t->of[0].grad, t->dht, t->xt, r, dim, m, team, err));
	mzm_team_run(team, update_rank, t);
	return MZM_OK;
}

/* ---- training ---- */

static void shuffle(int32_t *order, int32_t n, uint64_t seed, uint64_t epoch)
{
	for (int32_t i = 0; i < n; i++)
		order[i] = i;
	for (int32_t i = n - 1; i > 0; i--) {
		int32_t j = (int32_t)(mzm_rng_u64(seed, epoch, (uint64_t)i) % ((uint64_t)i + 1)), v = order[i];
		order[i] = order[j];
		order[j] = v;
	}
}

/* The rate falls to nothing by half a cosine. */
static mzm_status train(training *t, const mzm_fit_options *o, mzm_err *err)
{
	int32_t n = t->l->n_train, n_epochs = o->n_epochs > 0 ? o->n_epochs : EPOCHS, n_steps = 0;
	int32_t *all = t->order, total = n_epochs * ((n + BATCH - 1) / BATCH);
	for (int32_t e = 0; e < n_epochs; e++) {
		if (o->progress && o->progress(o->user, "training", (uint64_t)e, (uint64_t)n_epochs))
			return mzm_fail(err, MZM_ECANCELLED, "cancelled while a predictor was trained");
		shuffle(all, n, t->l->seed + (uint64_t)t->l->layer, (uint64_t)e);
		for (int32_t first = 0; first < n; first += BATCH) {
			n_steps++;
			t->order = all + first;
			t->n_batch = n - first < BATCH ? n - first : BATCH;
			t->rate = (float)(RATE * 0.5 * (1 + cos(3.14159265358979 * n_steps / total)));
			t->fix1 = (float)(1 / (1 - pow(BETA1, n_steps)));
			t->fix2 = (float)(1 / (1 - pow(BETA2, n_steps)));
			MZM_TRY(step(t, err));
		}
	}
	t->order = all;
	return MZM_OK;
}

/* Of the gates as the factors have them, about: the inputs of B are of unit variance, and independent. */
static float deviation(const mzm_factor_fit *f)
{
	double squares = 0;
	for (size_t i = 0; i < (size_t)f->rank * (size_t)f->n_ffn; i++)
		squares += (double)f->b[i] * (double)f->b[i];
	return (float)sqrt(squares / f->n_ffn);
}

static mzm_status begin(training *t, const lesson *of_what, const mzm_fit_layer *l, mzm_factor_fit *f, mzm_err *err)
{
	mzm_carve c = {0};
	*t = (training){.l = l, .of_what = of_what, .f = f, .rank = f->rank, .dim = l->cfg->dim,
			.n_ffn = l->cfg->n_ffn};
	if (of_what->contributes && mzm_act_is_sparse(l->cfg->act))
		t->sharp = SHARP / (deviation(f) + 1e-6f); /* gates that are all the same have none */
	training_layout(t, &c);
	if (c.overflow)
		return mzm_fail(err, MZM_ENOMEM, "a sample of %d positions is too large to train on", (int)l->n_train);
	MZM_TRY(mzm_alloc_for(&t->block, c.used, "training", err));
	c = (mzm_carve){.base = t->block};
	training_layout(t, &c);
	mzm_transpose(t->at, f->a, f->dim, f->rank, l->team);
	mzm_transpose(t->bt, f->b, f->rank, t->n_ffn, l->team);
	memcpy(t->bias, f->bias, (size_t)t->n_ffn * sizeof *t->bias);
	for (size_t i = 0; t->sharp > 0 && i < (size_t)f->rank * (size_t)t->n_ffn; i++)
		t->bt[i] *= t->sharp;
	for (int32_t j = 0; t->sharp > 0 && j < t->n_ffn; j++)
		t->bias[j] = t->sharp * (t->bias[j] - l->cfg->act_threshold);
	return t->sharp > 0 ? MZM_OK : make_labels(t, err);
}

/* ---- how many have which odds ---- */

/* Shares of the neurons, over some positions, whose logit is no less than each point of the grid. */
static mzm_status write_shares(const lesson *of_what, const mzm_fit_layer *l, const mzm_factor_fit *f,
			       mzm_calib_writer *out, mzm_err *err)
{
	mzm_status st;
	char name[64];
	float *y, *x, share[LOWRANK_POINTS] = {0};
	int32_t n = l->n_train < LOOKS ? l->n_train : LOOKS;
	size_t n_y = (size_t)n * (size_t)f->n_ffn, dim = (size_t)f->dim;
	uint64_t count[LOWRANK_POINTS] = {0}, sum = 0;
	MZM_TRY(mzm_alloc_for((void **)&y, (n_y + (size_t)n * dim) * sizeof *y, "logits", err));
	x = y + n_y;
	for (size_t i = 0; i < (size_t)n; i++) /* evenly over the text */
		memcpy(x + i * dim, l->x + i * (size_t)l->n_train / (size_t)n * dim, dim * sizeof *x);
	MZM_TRY_OUT(mzm_factor_predict(y, f, x, n, l->team, err));
	for (size_t i = 0; i < n_y; i++) {
		float at = (y[i] - LOWRANK_FIRST) / LOWRANK_STEP;
		if (at >= 0)
			count[at < LOWRANK_POINTS - 1 ? (int)at : LOWRANK_POINTS - 1]++;
	}
	for (int i = LOWRANK_POINTS - 1; i >= 0; i--) {
		sum += count[i];
		share[i] = (float)((double)sum / (double)n_y);
	}
	snprintf(name, sizeof name, "%s.share", of_what->name);
	st = mzm_calib_add(out, name, l->layer, MZM_F32, 1, LOWRANK_POINTS, share, err);
out:
	mzm_free(y);
	return st;
}

static mzm_status write_layer(const lesson *of_what, const mzm_fit_layer *l, mzm_factor_fit *f, mzm_calib_writer *out,
			      mzm_err *err)
{
	MZM_TRY(mzm_factor_write(out, of_what->name, l->layer, f, err));
	MZM_TRY(mzm_factor_round(f, err));
	return write_shares(of_what, l, f, out, err);
}

static mzm_status learn(const lesson *of_what, const mzm_fit_layer *l, const mzm_fit_options *o, mzm_calib_writer *out,
			mzm_err *err)
{
	mzm_status st;
	mzm_factor_fit f;
	training t = {0};
	double explained;
	mzm_factor_want want = {.target = MZM_FACTOR_GATE, .inputs = true, .bits = BITS,
				.rank = mzm_factor_rank(l->cfg, o->rank, SHARE)};
	MZM_TRY(mzm_factor_make(&f, &explained, l, &want, err));
	MZM_TRY_OUT(begin(&t, of_what, l, &f, err));
	MZM_TRY_OUT(train(&t, o, err));
	mzm_transpose(f.a, t.at, f.rank, f.dim, l->team);
	mzm_transpose(f.b, t.bt, t.n_ffn, f.rank, l->team);
	memcpy(f.bias, t.bias, (size_t)t.n_ffn * sizeof *f.bias);
	st = write_layer(of_what, l, &f, out, err);
out:
	mzm_free(t.block);
	mzm_factor_free(&f);
	return st;
}

static const lesson lowrank = {"lowrank", true}, countdown = {"countdown-d", false};

static mzm_status lowrank_layer(const mzm_fit_layer *l, const mzm_fit_options *o, mzm_calib_writer *out, mzm_err *err)
{
	return learn(&lowrank, l, o, out, err);
}

static mzm_status countdown_layer(const mzm_fit_layer *l, const mzm_fit_options *o, mzm_calib_writer *out, mzm_err *err)
{
	return learn(&countdown, l, o, out, err);
}

const mzm_fit mzm_fit_lowrank = {
	.name = "lowrank",
	.about = "a trained low-rank network (Deja Vu, arXiv 2310.17157)",
	.slow = true,
	.layer = lowrank_layer,
};

const mzm_fit mzm_fit_countdown_d = {
	.name = "countdown-d",
	.about = "lowrank, by the largest coefficients of down (D-COUNTDOWN, arXiv 2505.17701); only if named",
	.slow = true,
	.named_only = true,
	.layer = countdown_layer,
};
