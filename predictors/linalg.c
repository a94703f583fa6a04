/* linalg.c - see linalg.h. */
#include "predictors/linalg.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kern/kern.h"

/* Asking a processor what it can do takes longer than a small product, in a virtual machine above all. */
static const mzm_kern *best_kernels(void)
{
	static _Atomic(const mzm_kern *) found;
	const mzm_kern *kern = atomic_load_explicit(&found, memory_order_relaxed);
	if (!kern) {
		kern = mzm_kern_find(NULL);
		atomic_store_explicit(&found, kern, memory_order_relaxed);
	}
	return kern;
}

/* ---- products ---- */

typedef struct product {
	const mzm_kern *kern;
	float          *y;
	const float    *x, *w;
	int32_t         m, k, n;
	float          *packed; /* [n_ranks, MZM_MAX_POS, ld] positions as the kernel wants them */
	size_t          ld;
} product;

/* A tile of at most MZM_MAX_POS rows of x against all of w. */
static void product_tile(const product *p, float *packed, int32_t first, int32_t n_pos)
{
	for (int32_t i = 0; i < n_pos; i++)
		p->kern->pack(packed + (size_t)i * p->ld, p->x + (size_t)(first + i) * (size_t)p->n, MZM_F32, p->n);
	mzm_rows_job job = {.dtype = MZM_F32, .w = p->w, .stride = (size_t)p->n * sizeof(float), .n_rows = p->k,
			    .n_cols = p->n, .x = packed, .ldx = p->ld * sizeof(float), .n_pos = n_pos,
			    .y = p->y + (size_t)first * (size_t)p->k, .ldy = (size_t)p->k};
	p->kern->rows(&job, 0, p->k);
}

static void product_rank(void *ctx, mzm_team *team, int rank)
{
	const product *p = ctx;
	int32_t begin, end;
	mzm_team_range(p->m, MZM_MAX_POS, rank, mzm_team_size(team), &begin, &end);
	float *packed = p->packed + (size_t)rank * MZM_MAX_POS * p->ld;
	for (int32_t i = begin; i < end; i += MZM_MAX_POS)
		product_tile(p, packed, i, end - i < MZM_MAX_POS ? end - i : MZM_MAX_POS);
}

mzm_status mzm_times_t(float *y, const float *x, const float *w, int32_t m, int32_t k, int32_t n, mzm_team *team,
		       mzm_err *err)
{
	product p = {.kern = best_kernels(), .y = y, .x = x, .w = w, .m = m, .k = k, .n = n};
	size_t stride = mzm_pack_stride(p.kern, MZM_F32, n), bytes;
	p.ld = stride / sizeof(float);
	if (!mzm_mul_size((size_t)mzm_team_size(team) * MZM_MAX_POS, stride, &bytes))
		return mzm_fail(err, MZM_ENOMEM, "a product of %d columns is too large", (int)n);
	MZM_TRY(mzm_alloc_for((void **)&p.packed, bytes, "a matrix product", err));
	mzm_team_run(team, product_rank, &p);
	mzm_free(p.packed);
	return MZM_OK;
}

/* ---- Gram matrices ---- */

#define GRAM_ROWS 256 /* of m at a time: summed in f32, then added in double */

typedef struct gram {
	double      *g;
	const float *m, *weight;
	float       *t, *wt; /* [n, GRAM_ROWS] some rows transposed; and times their weights */
	float       *part;   /* [n, n] */
	int32_t      n, first, n_rows;
} gram;

static void gram_transpose(void *ctx, mzm_team *team, int rank)
{
	const gram *q = ctx;
	int32_t begin, end;
	mzm_team_range(q->n, 16, rank, mzm_team_size(team), &begin, &end);
	for (int32_t c = begin; c < end; c++) {
		float *t = q->t + (size_t)c * GRAM_ROWS, *wt = q->wt + (size_t)c * GRAM_ROWS;
		for (int32_t i = 0; i < GRAM_ROWS; i++) {
			size_t row = (size_t)(q->first + i);
			t[i] = i < q->n_rows ? q->m[row * (size_t)q->n + (size_t)c] : 0;
			wt[i] = i < q->n_rows && q->weight ? t[i] * q->weight[row] : t[i];
		}
	}
}

static void gram_add(void *ctx, mzm_team *team, int rank)
{
	const gram *q = ctx;
	int32_t begin, end;
	mzm_team_range(q->n, 1, rank, mzm_team_size(team), &begin, &end);
	size_t at = (size_t)begin * (size_t)q->n, stop = (size_t)end * (size_t)q->n;
	for (; at < stop; at++)
		q->g[at] += (double)q->part[at];
}

/* Sums of rounded products differ in their last bits on the two sides of the diagonal. */
static void mirror(double *g, int32_t n)
{
	size_t ld = (size_t)n;
	for (size_t i = 0; i < ld; i++)
		for (size_t j = 0; j < i; j++)
			g[j * ld + i] = g[i * ld + j];
}

mzm_status mzm_gram(double *g, const float *m, const float *weight, int32_t n_rows, int32_t n, mzm_team *team,
		    mzm_err *err)
{
	gram q = {.g = g, .m = m, .weight = weight, .n = n};
	mzm_status st;
	size_t square = (size_t)n * (size_t)n;
	memset(g, 0, square * sizeof *g);
	MZM_TRY_OUT(mzm_alloc_for((void **)&q.t, (size_t)n * GRAM_ROWS * sizeof(float), "a Gram matrix", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&q.wt, (size_t)n * GRAM_ROWS * sizeof(float), "a Gram matrix", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&q.part, square * sizeof(float), "a Gram matrix", err));
	for (q.first = 0; q.first < n_rows; q.first += GRAM_ROWS) {
		q.n_rows = n_rows - q.first < GRAM_ROWS ? n_rows - q.first : GRAM_ROWS;
		mzm_team_run(team, gram_transpose, &q);
		MZM_TRY_OUT(mzm_times_t(q.part, q.wt, q.t, n, n, GRAM_ROWS, team, err));
		mzm_team_run(team, gram_add, &q);
	}
	mirror(g, n);
	st = MZM_OK;
out:
	mzm_free(q.t);
	mzm_free(q.wt);
	mzm_free(q.part);
	return st;
}

/* ---- eigenvectors ---- */

/* Turns rows i and j of a [n, n] by the angle with that cosine and sine. */
static void turn_rows(double *a, int32_t n, int32_t i, int32_t j, double c, double s)
{
	double *x = a + (size_t)i * (size_t)n, *y = a + (size_t)j * (size_t)n;
	for (int32_t k = 0; k < n; k++) {
		double xk = x[k], yk = y[k];
		x[k] = c * xk - s * yk;
		y[k] = s * xk + c * yk;
	}
}

/* Makes s[i][j] zero. The matrix stays symmetric, so its columns are its rows, turned already. */
static void rotate(double *s, double *vectors, int32_t n, int32_t i, int32_t j)
{
	size_t ld = (size_t)n, ii = (size_t)i * ld + (size_t)i, jj = (size_t)j * ld + (size_t)j;
	double off = s[(size_t)i * ld + (size_t)j], theta = (s[jj] - s[ii]) / (2 * off);
	double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
	double c = 1 / sqrt(t * t + 1), sine = t * c, di = s[ii] - t * off, dj = s[jj] + t * off;
	turn_rows(s, n, i, j, c, sine);
	s[ii] = di;
	s[jj] = dj;
	s[(size_t)i * ld + (size_t)j] = s[(size_t)j * ld + (size_t)i] = 0;
	for (size_t k = 0; k < ld; k++) {
		s[k * ld + (size_t)i] = s[(size_t)i * ld + k];
		s[k * ld + (size_t)j] = s[(size_t)j * ld + k];
	}
	turn_rows(vectors, n, i, j, c, sine);
}

static double sum_off_diagonal(const double *s, int32_t n, double *diagonal)
{
	double off = 0;
	*diagonal = 0;
	for (size_t i = 0, ld = (size_t)n; i < ld; i++) {
		*diagonal += s[i * ld + i] * s[i * ld + i];
		for (size_t j = i + 1; j < ld; j++)
			off += s[i * ld + j] * s[i * ld + j];
	}
	return off;
}

/* Descending, by selection: n is small. */
static void sort_pairs(double *values, double *vectors, int32_t n)
{
	for (int32_t i = 0; i < n; i++) {
		int32_t best = i;
		for (int32_t j = i + 1; j < n; j++)
			best = values[j] > values[best] ? j : best;
		double v = values[i];
		values[i] = values[best];
		values[best] = v;
		for (int32_t k = 0; k < n && best != i; k++) {
			double *a = vectors + (size_t)i * (size_t)n + k, *b = vectors + (size_t)best * (size_t)n + k;
			v = *a;
			*a = *b;
			*b = v;
		}
	}
}

void mzm_eigen_jacobi(double *values, double *vectors, double *s, int32_t n)
{
	enum { MAX_SWEEPS = 30 }; /* some 10 are needed */
	size_t ld = (size_t)n;
	memset(vectors, 0, ld * ld * sizeof *vectors);
	for (size_t i = 0; i < ld; i++)
		vectors[i * ld + i] = 1;
	for (int sweep = 0; sweep < MAX_SWEEPS; sweep++) {
		double diagonal, off = sum_off_diagonal(s, n, &diagonal);
		if (!(off > 1e-26 * diagonal))
			break;
		double least = sqrt(off) * 1e-3 / (double)n; /* not worth a rotation in this sweep */
		for (int32_t i = 0; i < n; i++)
			for (int32_t j = i + 1; j < n; j++)
				if (fabs(s[(size_t)i * ld + (size_t)j]) > least)
					rotate(s, vectors, n, i, j);
	}
	for (size_t i = 0; i < ld; i++)
		values[i] = s[i * ld + i];
	sort_pairs(values, vectors, n);
}

/* Modified Gram-Schmidt, twice, on the p rows of q [p, n]; a row that vanishes stays zero. */
static void orthonormalise(float *q, int32_t p, int32_t n, const mzm_kern *kern)
{
	for (int32_t i = 0; i < p; i++) {
		float *row = q + (size_t)i * (size_t)n;
		float before = sqrtf(kern->dot(row, row, n));
		for (int pass = 0; pass < 2; pass++)
			for (int32_t j = 0; j < i; j++) {
				const float *done = q + (size_t)j * (size_t)n;
				kern->axpy(row, -kern->dot(row, done, n), done, n);
			}
		float norm = sqrtf(kern->dot(row, row, n)), scale = norm > 1e-6f * before ? 1 / norm : 0;
		for (int32_t k = 0; k < n; k++)
			row[k] *= scale;
	}
}

typedef struct subspace {
	int32_t p, n;
	float  *s;          /* [n, n] */
	float  *q, *next;   /* [p, n] */
	float  *small;      /* [p, p] */
	double *ritz, *turn, *values; /* [p, p], [p, p], [p] */
	void   *block;
} subspace;

static mzm_status subspace_create(subspace *u, mzm_err *err)
{
	size_t p = (size_t)u->p, n = (size_t)u->n;
	size_t floats = n * n + 2 * p * n + p * p, doubles = 2 * p * p + p;
	MZM_TRY(mzm_alloc_for(&u->block, doubles * sizeof(double) + floats * sizeof(float), "eigenvectors", err));
	u->ritz = u->block;
	u->turn = u->ritz + p * p;
	u->values = u->turn + p * p;
	u->s = (float *)(void *)(u->values + p);
	u->q = u->s + n * n;
	u->next = u->q + p * n;
	u->small = u->next + p * n;
	return MZM_OK;
}

static void swap(float **a, float **b)
{
	float *t = *a;
	*a = *b;
	*b = t;
}

/* The eigenvectors of s within the space of q's rows: vectors [r, n]. */
static mzm_status rayleigh_ritz(subspace *u, double *values, float *vectors, int32_t r, mzm_team *team, mzm_err *err)
{
	const mzm_kern *kern = best_kernels();
	size_t p = (size_t)u->p, n = (size_t)u->n;
	MZM_TRY(mzm_times_t(u->next, u->q, u->s, u->p, u->n, u->n, team, err));
	MZM_TRY(mzm_times_t(u->small, u->next, u->q, u->p, u->p, u->n, team, err));
	for (size_t i = 0; i < p * p; i++)
		u->ritz[i] = (double)u->small[i];
	mirror(u->ritz, u->p);
	mzm_eigen_jacobi(u->values, u->turn, u->ritz, u->p);
	memset(vectors, 0, (size_t)r * n * sizeof *vectors);
	for (size_t i = 0; i < (size_t)r; i++) {
		values[i] = u->values[i];
		for (size_t j = 0; j < p; j++)
			kern->axpy(vectors + i * n, (float)u->turn[i * p + j], u->q + j * n, u->n);
	}
	return MZM_OK;
}

#define OVERSAMPLE 16
#define ITERATIONS 8

static mzm_status eigen_iterated(double *values, float *vectors, const double *s, int32_t r, int32_t n, uint64_t seed,
				 mzm_team *team, mzm_err *err)
{
	subspace u = {.p = r + OVERSAMPLE < n ? r + OVERSAMPLE : n, .n = n};
	mzm_status st;
	MZM_TRY(subspace_create(&u, err));
	for (size_t i = 0; i < (size_t)n * (size_t)n; i++)
		u.s[i] = (float)s[i];
	for (size_t i = 0; i < (size_t)u.p * (size_t)n; i++)
		u.q[i] = (float)(mzm_rng_unit(seed, (uint64_t)n, (uint64_t)i) - 0.5);
	for (int i = 0; i < ITERATIONS; i++) {
		MZM_TRY_OUT(mzm_times_t(u.next, u.q, u.s, u.p, n, n, team, err));
		swap(&u.q, &u.next);
		orthonormalise(u.q, u.p, n, best_kernels());
	}
	st = rayleigh_ritz(&u, values, vectors, r, team, err);
out:
	mzm_free(u.block);
	return st;
}

static mzm_status eigen_direct(double *values, float *vectors, const double *s, int32_t r, int32_t n, mzm_err *err)
{
	size_t square = (size_t)n * (size_t)n;
	double *all, *turned;
	MZM_TRY(mzm_alloc_for((void **)&all, (2 * square + (size_t)n) * sizeof *all, "eigenvectors", err));
	turned = all + square;
	memcpy(all, s, square * sizeof *all);
	mzm_eigen_jacobi(turned + square, turned, all, n);
	memcpy(values, turned + square, (size_t)r * sizeof *values);
	for (size_t i = 0; i < (size_t)r * (size_t)n; i++)
		vectors[i] = (float)turned[i];
	mzm_free(all);
	return MZM_OK;
}

mzm_status mzm_eigen_top(double *values, float *vectors, const double *s, int32_t r, int32_t n, uint64_t seed,
			 mzm_team *team, mzm_err *err)
{
	if (n <= MZM_EIGEN_DIRECT)
		return eigen_direct(values, vectors, s, r, n, err);
	return eigen_iterated(values, vectors, s, r, n, seed, team, err);
}

/* ---- Cholesky ---- */

#define BLOCK 32 /* columns at a time: their rows so far stay in the cache while all others meet them */

typedef struct factor {
	double *s;
	int32_t n;
	bool    failed;
} factor;

static double dot(const double *a, const double *b, int32_t n)
{
	double sum[4] = {0};
	int32_t i = 0;
	for (; i + 4 <= n; i += 4)
		for (int k = 0; k < 4; k++)
			sum[k] += a[i + k] * b[i + k];
	for (; i < n; i++)
		sum[0] += a[i] * b[i];
	return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Columns [c0, c1) of row i, or those up to its diagonal, less what the columns [from, ...) left of them contribute. */
static void subtract(const factor *f, int32_t i, int32_t c0, int32_t c1)
{
	double *row = f->s + (size_t)i * (size_t)f->n;
	for (int32_t j = c0; j < c1 && j <= i; j++)
		row[j] -= dot(row, f->s + (size_t)j * (size_t)f->n, c0);
}

/* The same columns finished, those of the rows above being so. */
static void solve_row(factor *f, int32_t i, int32_t c0, int32_t c1)
{
	double *row = f->s + (size_t)i * (size_t)f->n;
	for (int32_t j = c0; j < c1 && j <= i; j++) {
		const double *above = f->s + (size_t)j * (size_t)f->n;
		double v = row[j] - dot(row + c0, above + c0, j - c0);
		if (j == i && !(v > 0 && isfinite(v)))
			f->failed = true;
		row[j] = j == i ? sqrt(v) : v / above[j];
	}
}

static void cholesky_rank(void *ctx, mzm_team *team, int rank)
{
	factor *f = ctx;
	for (int32_t c0 = 0; c0 < f->n; c0 += BLOCK) {
		int32_t c1 = f->n - c0 < BLOCK ? f->n : c0 + BLOCK, begin, end;
		mzm_team_range(f->n - c0, 1, rank, mzm_team_size(team), &begin, &end);
		for (int32_t i = c0 + begin; i < c0 + end; i++)
			subtract(f, i, c0, c1);
		mzm_team_barrier(team, rank);
		for (int32_t i = c0; rank == 0 && i < c1; i++)
			solve_row(f, i, c0, c1);
		mzm_team_barrier(team, rank);
		if (f->failed)
			return;
		mzm_team_range(f->n - c1, 1, rank, mzm_team_size(team), &begin, &end);
		for (int32_t i = c1 + begin; i < c1 + end; i++)
			solve_row(f, i, c0, c1);
		mzm_team_barrier(team, rank);
	}
}

mzm_status mzm_cholesky(double *s, int32_t n, mzm_team *team, mzm_err *err)
{
	factor f = {.s = s, .n = n};
	mzm_team_run(team, cholesky_rank, &f);
	if (f.failed)
		return mzm_fail(err, MZM_EARG, "a matrix of %d rows is not positive definite", (int)n);
	return MZM_OK;
}
