/* linalg.c - see linalg.h. */
#include "predictors/linalg.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
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

/* ---- transposing ---- */

#define TILE 32 /* its rows, and those it becomes, stay in the first cache */

typedef struct turning {
	float       *to;
	const float *from;
	int32_t      n_rows, n_cols;
} turning;

static void turn_tile(const turning *q, size_t i0, size_t j0)
{
	size_t rows = (size_t)q->n_rows, cols = (size_t)q->n_cols;
	size_t i1 = rows - i0 < TILE ? rows : i0 + TILE, j1 = cols - j0 < TILE ? cols : j0 + TILE;
	for (size_t j = j0; j < j1; j++)
		for (size_t i = i0; i < i1; i++)
			q->to[j * rows + i] = q->from[i * cols + j];
}

static void turn_rank(void *ctx, mzm_team *team, int rank)
{
	const turning *q = ctx;
	int32_t begin, end;
	mzm_team_range(q->n_cols, TILE, rank, mzm_team_size(team), &begin, &end);
	for (int32_t j = begin; j < end; j += TILE)
		for (int32_t i = 0; i < q->n_rows; i += TILE)
			turn_tile(q, (size_t)i, (size_t)j);
}

void mzm_transpose(float *to, const float *from, int32_t n_rows, int32_t n_cols, mzm_team *team)
{
	turning q = {to, from, n_rows, n_cols};
	mzm_team_run(team, turn_rank, &q);
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

void mzm_mirror(double *g, int32_t n)
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
	mzm_mirror(g, n);
	st = MZM_OK;
out:
	mzm_free(q.t);
	mzm_free(q.wt);
	mzm_free(q.part);
	return st;
}

/* ---- Cholesky ---- */

#define BLOCK 32 /* columns at a time: their rows so far stay in the cache while all others meet them */

typedef struct factor {
	double *s;
	int32_t n;
	bool    failed;
} factor;

double mzm_dot(const double *a, const double *b, int32_t n)
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
		row[j] -= mzm_dot(row, f->s + (size_t)j * (size_t)f->n, c0);
}

/* The same columns finished, those of the rows above being so. */
static void solve_row(factor *f, int32_t i, int32_t c0, int32_t c1)
{
	double *row = f->s + (size_t)i * (size_t)f->n;
	for (int32_t j = c0; j < c1 && j <= i; j++) {
		const double *above = f->s + (size_t)j * (size_t)f->n;
		double v = row[j] - mzm_dot(row + c0, above + c0, j - c0);
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
