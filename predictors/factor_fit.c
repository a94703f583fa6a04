/* factor_fit.c - see factor_fit.h. */
#include "predictors/factor_fit.h"

#include <math.h>
#include <string.h>

#include "kern/quant.h"
#include "predictors/eigen.h"
#include "predictors/linalg.h"

#define RIDGE 1e-3 /* of the mean variance: directions that the sample never took keep a little weight */
#define FLOOR 1e-8 /* where there is no variance at all */

int32_t mzm_factor_rank(const mzm_config *cfg, int32_t wanted, double share)
{
	int32_t rank = wanted > 0 ? wanted : (int32_t)(share * (double)cfg->dim);
	rank = (rank + MZM_Q_BLOCK - 1) / MZM_Q_BLOCK * MZM_Q_BLOCK;
	return rank < cfg->dim ? rank : cfg->dim;
}

/* Room of one fit. */
typedef struct work {
	int32_t dim, n_out, rank;
	float  *w;        /* [n_out, dim] gate, and up behind it */
	float  *mean;     /* [dim] */
	double *lower;    /* [dim, dim] Cholesky factor of the covariance */
	float  *upper;    /* [dim, dim] its transpose */
	float  *l;        /* [dim, dim] it */
	double *s;        /* [dim, dim] */
	float  *t;        /* [dim, dim] */
	double *values;   /* [rank] */
	float  *v;        /* [rank, dim] */
	float  *m;        /* [rank, dim] */
	void   *block;
} work;

static void work_layout(work *k, mzm_carve *c)
{
	size_t square = (size_t)k->dim * (size_t)k->dim, thin = (size_t)k->rank * (size_t)k->dim;
	k->w = MZM_CARVE(c, float, (size_t)k->n_out * (size_t)k->dim);
	k->mean = MZM_CARVE(c, float, k->dim);
	k->lower = MZM_CARVE(c, double, square);
	k->upper = MZM_CARVE(c, float, square);
	k->l = MZM_CARVE(c, float, square);
	k->s = MZM_CARVE(c, double, square);
	k->t = MZM_CARVE(c, float, square);
	k->values = MZM_CARVE(c, double, k->rank);
	k->v = MZM_CARVE(c, float, thin);
	k->m = MZM_CARVE(c, float, thin);
}

static mzm_status work_create(work *k, const mzm_fit_layer *l, const mzm_factor_want *want, mzm_err *err)
{
	mzm_carve c = {0};
	size_t n_ffn = (size_t)l->cfg->n_ffn, dim = (size_t)l->cfg->dim;
	*k = (work){.dim = l->cfg->dim, .rank = want->rank,
		    .n_out = want->target == MZM_FACTOR_GATE_UP ? 2 * l->cfg->n_ffn : l->cfg->n_ffn};
	work_layout(k, &c);
	if (c.overflow)
		return mzm_fail(err, MZM_ENOMEM, "factors of %d columns are too large", (int)k->dim);
	MZM_TRY(mzm_alloc_for(&k->block, c.used, "low-rank factors", err));
	c = (mzm_carve){.base = k->block};
	work_layout(k, &c);
	memcpy(k->w, l->w_gate, n_ffn * dim * sizeof *k->w);
	if (want->target == MZM_FACTOR_GATE_UP)
		memcpy(k->w + n_ffn * dim, l->w_up, n_ffn * dim * sizeof *k->w);
	return MZM_OK;
}

/* ---- the inputs ---- */

static void take_mean(work *k, const mzm_fit_layer *l)
{
	for (int32_t c = 0; c < k->dim; c++) {
		double sum = 0;
		for (int32_t p = 0; p < l->n_train; p++)
			sum += (double)l->x[(size_t)p * (size_t)k->dim + (size_t)c];
		k->mean[c] = (float)(sum / l->n_train);
	}
}

/* lower = the factor of the covariance, l and upper the same in single precision, and nothing in their other half. */
static mzm_status factor_inputs(work *k, const mzm_fit_layer *l, mzm_err *err)
{
	size_t n = (size_t)k->dim;
	double trace = 0;
	take_mean(k, l);
	MZM_TRY(mzm_gram(k->lower, l->x, NULL, l->n_train, k->dim, l->team, err));
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < n; j++)
			k->lower[i * n + j] = k->lower[i * n + j] / l->n_train -
					      (double)k->mean[i] * (double)k->mean[j];
		trace += k->lower[i * n + i];
	}
	for (size_t i = 0; i < n; i++)
		k->lower[i * n + i] += RIDGE * trace / (double)n + FLOOR;
	MZM_TRY(mzm_cholesky(k->lower, k->dim, l->team, err));
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j <= i; j++)
			k->l[i * n + j] = k->upper[j * n + i] = (float)k->lower[i * n + j];
	return MZM_OK;
}

/* s = L^T W^T W L */
static mzm_status meet_inputs(work *k, const mzm_fit_layer *l, mzm_err *err)
{
	size_t n = (size_t)k->dim;
	float *product;
	MZM_TRY(mzm_alloc_for((void **)&product, n * n * sizeof *product, "low-rank factors", err));
	for (size_t i = 0; i < n * n; i++)
		k->t[i] = (float)k->s[i];
	mzm_status st = mzm_times_t(product, k->upper, k->t, k->dim, k->dim, k->dim, l->team, err);
	if (st == MZM_OK)
		st = mzm_times_t(k->t, product, k->upper, k->dim, k->dim, k->dim, l->team, err);
	for (size_t i = 0; i < n && st == MZM_OK; i++)
		for (size_t j = 0; j <= i; j++)
			k->s[i * n + j] = k->s[j * n + i] = (double)k->t[i * n + j];
	mzm_free(product);
	return st;
}

/* ---- the factors ---- */

static mzm_status find_space(work *k, double *total, const mzm_fit_layer *l, const mzm_factor_want *want, mzm_err *err)
{
	size_t n = (size_t)k->dim;
	MZM_TRY(mzm_gram(k->s, k->w, NULL, k->n_out, k->dim, l->team, err));
	if (want->inputs) {
		MZM_TRY(factor_inputs(k, l, err));
		MZM_TRY(meet_inputs(k, l, err));
	}
	*total = 0;
	for (size_t i = 0; i < n; i++)
		*total += k->s[i * n + i];
	return mzm_eigen_top(k->values, k->v, k->s, k->rank, k->dim, l->seed, l->team, err);
}

/* The least rank, in blocks, that explains what is wanted. */
static int32_t choose_rank(const work *k, double total, double energy, double *explained)
{
	double sum = 0;
	int32_t r = 0;
	for (; r < k->rank; r++) {
		if (energy > 0 && r % MZM_Q_BLOCK == 0 && sum >= energy * total)
			break;
		sum += k->values[r];
	}
	*explained = total > 0 ? sum / total : 1;
	return r;
}

/* The rows of A = V^T L^-1, of this rank of the team: a triangular system each, from its last column to the first; so
 * many together as stand beside each other in A. */
#define TOGETHER 16

typedef struct solving {
	const work *k;
	float      *a; /* [dim, rank] */
	int32_t     rank;
} solving;

static void solve_some(const solving *q, size_t first, size_t width)
{
	const work *k = q->k;
	size_t n = (size_t)k->dim, rank = (size_t)q->rank;
	for (size_t c = n; c-- > 0;) {
		const float *column = k->upper + c * n;
		double v[TOGETHER];
		for (size_t i = 0; i < width; i++)
			v[i] = (double)k->v[(first + i) * n + c];
		for (size_t j = c + 1; j < n; j++)
			for (size_t i = 0; i < width; i++)
				v[i] -= (double)q->a[j * rank + first + i] * (double)column[j];
		for (size_t i = 0; i < width; i++)
			q->a[c * rank + first + i] = (float)(v[i] / k->lower[c * n + c]);
	}
}

static void solve_rows(void *ctx, mzm_team *team, int rank)
{
	const solving *q = ctx;
	int32_t begin, end;
	mzm_team_range(q->rank, TOGETHER, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i += TOGETHER)
		solve_some(q, (size_t)i, end - i < TOGETHER ? (size_t)(end - i) : TOGETHER);
}

static mzm_status make_a(mzm_factor_fit *f, work *k, const mzm_fit_layer *l, bool inputs, mzm_err *err)
{
	size_t n = (size_t)k->dim;
	solving q = {k, f->a, f->rank};
	if (inputs) {
		mzm_team_run(l->team, solve_rows, &q);
		return mzm_times_t(k->m, k->v, k->l, f->rank, k->dim, k->dim, l->team, err);
	}
	memcpy(k->m, k->v, (size_t)f->rank * n * sizeof *k->m);
	for (size_t i = 0; i < (size_t)f->rank; i++)
		for (size_t c = 0; c < n; c++)
			f->a[c * (size_t)f->rank + i] = k->v[i * n + c];
	return MZM_OK;
}

/* What the mean input gives, less what the factors make of it: then they are right on average. */
static void set_bias(mzm_factor_fit *f, const work *k, const mzm_fit_layer *l, bool inputs)
{
	size_t n_ffn = (size_t)f->n_ffn, rank = (size_t)f->rank, n_out = (size_t)k->n_out;
	for (size_t j = 0; j < n_out; j++) {
		const float *b = j < n_ffn ? l->b_gate : l->b_up;
		double v = b ? (double)b[j % n_ffn] : 0;
		for (int32_t c = 0; inputs && c < k->dim; c++)
			v += (double)k->w[j * (size_t)k->dim + (size_t)c] * (double)k->mean[c];
		f->bias[j] = (float)v;
	}
	for (size_t i = 0; inputs && i < rank; i++) {
		double h = 0;
		for (int32_t c = 0; c < k->dim; c++)
			h += (double)f->a[(size_t)c * rank + i] * (double)k->mean[c];
		for (size_t j = 0; j < n_out; j++)
			f->bias[j] -= f->b[i * n_out + j] * (float)h;
	}
}

static mzm_status factor_alloc(mzm_factor_fit *f, mzm_err *err)
{
	size_t n_out = (size_t)f->times * (size_t)f->n_ffn, rank = (size_t)f->rank, dim = (size_t)f->dim;
	MZM_TRY(mzm_alloc_for((void **)&f->a, ((dim + n_out) * rank + n_out) * sizeof *f->a, "low-rank factors", err));
	f->b = f->a + dim * rank;
	f->bias = f->b + rank * n_out;
	return MZM_OK;
}

void mzm_factor_free(mzm_factor_fit *f)
{
	mzm_free(f->a);
	f->a = f->b = f->bias = NULL;
}

mzm_status mzm_factor_make(mzm_factor_fit *out, double *explained, const mzm_fit_layer *l, const mzm_factor_want *want,
			   mzm_err *err)
{
	mzm_status st;
	work k;
	double total;
	*out = (mzm_factor_fit){.dim = l->cfg->dim, .n_ffn = l->cfg->n_ffn, .bits = want->bits,
				.times = want->target == MZM_FACTOR_GATE_UP ? 2 : 1};
	MZM_TRY(work_create(&k, l, want, err));
	MZM_TRY_OUT(find_space(&k, &total, l, want, err));
	out->rank = choose_rank(&k, total, want->energy, explained);
	MZM_TRY_OUT(factor_alloc(out, err));
	MZM_TRY_OUT(make_a(out, &k, l, want->inputs, err));
	MZM_TRY_OUT(mzm_times_t(out->b, k.m, k.w, out->rank, k.n_out, k.dim, l->team, err));
	if (want->round)
		MZM_TRY_OUT(mzm_factor_round(out, err));
	set_bias(out, &k, l, want->inputs);
out:
	mzm_free(k.block);
	if (st != MZM_OK)
		mzm_factor_free(out);
	return st;
}

mzm_status mzm_factor_predict(float *y, const mzm_factor_fit *f, const float *x, int32_t n, mzm_team *team,
			      mzm_err *err)
{
	mzm_status st;
	int32_t n_out = f->times * f->n_ffn;
	float *at, *bt, *h;
	size_t rank = (size_t)f->rank, all = (size_t)f->dim + (size_t)n_out + (size_t)n;
	const mzm_kern *kern = mzm_kern_find(NULL);
	MZM_TRY(mzm_alloc_for((void **)&at, all * rank * sizeof *at, "low-rank factors", err));
	bt = at + rank * (size_t)f->dim;
	h = bt + rank * (size_t)n_out;
	mzm_transpose(at, f->a, f->dim, f->rank, team);
	mzm_transpose(bt, f->b, f->rank, n_out, team);
	MZM_TRY_OUT(mzm_times_t(h, x, at, n, f->rank, f->dim, team, err));
	MZM_TRY_OUT(mzm_times_t(y, h, bt, n, n_out, f->rank, team, err));
	for (int32_t p = 0; p < n; p++)
		kern->add(y + (size_t)p * (size_t)n_out, f->bias, n_out);
	st = MZM_OK;
out:
	mzm_free(at);
	return st;
}
