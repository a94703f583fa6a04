/* eigen.c - see eigen.h.
 *
 * Three ways. Up to MZM_EIGEN_DIRECT columns: Jacobi's rotations, the simplest that is exact. Within a subspace, which
 * may be a thousand wide: reflections to tridiagonal form, then implicit QL, whose rotations are kept and applied many
 * sweeps at a time, by all threads, to parts of the vectors that fit the cache (Golub and Van Loan, Matrix
 * Computations, 8.3). Around it: subspace iteration, made orthogonal by panels, so most of it is matrix products. */
#include "predictors/eigen.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/carve.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "predictors/linalg.h"

/* ---- rotations ---- */

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

/* ---- tridiagonal form ---- */

#define CHUNK 32 /* components of all vectors that are turned together: a thousand vectors' fit the second cache */
#define SWEEPS 24 /* whose rotations are kept */

typedef struct turn {
	int32_t i; /* vectors i and i + 1 */
	double  c, s;
} turn;

typedef struct tridiagonal {
	double *s;       /* [n, n] row k holds reflection k behind its diagonal */
	double *d, *e;   /* [n] diagonal, and beside it */
	double *tau;     /* [n] reflection k is 1 - tau v v^T */
	double *p;       /* [n] */
	double *z;       /* [n_chunks, n, CHUNK] vectors of the tridiagonal matrix, by parts */
	double *x;       /* [n_ranks, n] */
	turn   *turns;
	int32_t *order;  /* [n] of the values, descending */
	float  *out;     /* [r, n] */
	int32_t n, r, n_turns, cap, n_ranks;
	void   *block;
} tridiagonal;

static void tridiagonal_layout(tridiagonal *t, mzm_carve *c)
{
	size_t n = (size_t)t->n, n_chunks = (n + CHUNK - 1) / CHUNK;
	t->d = MZM_CARVE(c, double, n);
	t->e = MZM_CARVE(c, double, n);
	t->tau = MZM_CARVE(c, double, n);
	t->p = MZM_CARVE(c, double, n);
	t->z = MZM_CARVE(c, double, n_chunks * n * CHUNK);
	t->x = MZM_CARVE(c, double, (size_t)t->n_ranks * n);
	t->turns = MZM_CARVE(c, turn, t->cap);
	t->order = MZM_CARVE(c, int32_t, n);
}

/* Of what stands behind the diagonal in row k: all but its first element is to vanish. */
static void make_reflection(tridiagonal *t, int32_t k)
{
	double *v = t->s + (size_t)k * (size_t)t->n + k + 1;
	int32_t n = t->n - k - 1;
	double norm = sqrt(mzm_dot(v, v, n)), alpha = v[0] > 0 ? -norm : norm;
	t->d[k] = v[-1];
	t->e[k] = alpha;
	t->tau[k] = 0;
	if (!(norm > 0))
		return;
	t->tau[k] = (alpha - v[0]) / alpha; /* of v scaled so that its first element is one */
	double scale = 1 / (v[0] - alpha);
	v[0] = 1;
	for (int32_t i = 1; i < n; i++)
		v[i] *= scale;
}

/* p becomes w, with which the matrix becomes S - v w^T - w v^T. */
static void finish_product(tridiagonal *t, int32_t k)
{
	const double *v = t->s + (size_t)k * (size_t)t->n;
	double half = t->tau[k] / 2 * mzm_dot(t->p + k + 1, v + k + 1, t->n - k - 1);
	for (int32_t i = k + 1; i < t->n; i++)
		t->p[i] -= half * v[i];
}

static void reflect_rank(void *ctx, mzm_team *team, int rank)
{
	tridiagonal *t = ctx;
	size_t ld = (size_t)t->n;
	for (int32_t k = 0; k < t->n - 2; k++) {
		const double *v = t->s + (size_t)k * ld;
		int32_t begin, end;
		if (rank == 0)
			make_reflection(t, k);
		mzm_team_barrier(team, rank);
		mzm_team_range(t->n - k - 1, 8, rank, mzm_team_size(team), &begin, &end);
		for (int32_t i = k + 1 + begin; i < k + 1 + end; i++)
			t->p[i] = t->tau[k] * mzm_dot(t->s + (size_t)i * ld + k + 1, v + k + 1, t->n - k - 1);
		mzm_team_barrier(team, rank);
		if (rank == 0)
			finish_product(t, k);
		mzm_team_barrier(team, rank);
		for (int32_t i = k + 1 + begin; i < k + 1 + end; i++) {
			double *row = t->s + (size_t)i * ld, vi = v[i], wi = t->p[i];
			for (int32_t j = k + 1; j < t->n; j++)
				row[j] -= vi * t->p[j] + wi * v[j];
		}
		mzm_team_barrier(team, rank);
	}
}

static void reflect(tridiagonal *t, mzm_team *team)
{
	int32_t n = t->n;
	size_t ld = (size_t)n;
	mzm_team_run(team, reflect_rank, t);
	for (int32_t k = n > 2 ? n - 2 : 0; k < n; k++) {
		t->d[k] = t->s[(size_t)k * ld + (size_t)k];
		t->e[k] = k + 1 < n ? t->s[(size_t)k * ld + (size_t)k + 1] : 0;
	}
}

/* ---- its eigenvectors ---- */

/* The kept rotations, in their order, of this rank's components. */
static void turn_rank(void *ctx, mzm_team *team, int rank)
{
	const tridiagonal *t = ctx;
	int32_t begin, end;
	mzm_team_range((t->n + CHUNK - 1) / CHUNK, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t c = begin; c < end; c++)
		for (int32_t k = 0; k < t->n_turns; k++) {
			turn q = t->turns[k];
			double *x = t->z + ((size_t)c * (size_t)t->n + (size_t)q.i) * CHUNK, *y = x + CHUNK;
			for (int j = 0; j < CHUNK; j++) {
				double xj = x[j], yj = y[j];
				x[j] = q.c * xj - q.s * yj;
				y[j] = q.s * xj + q.c * yj;
			}
		}
}

static void apply_turns(tridiagonal *t, mzm_team *team)
{
	mzm_team_run(team, turn_rank, t);
	t->n_turns = 0;
}

/* One sweep of implicit QL over rows first .. last, with a shift near the value that stands first. */
static void sweep(tridiagonal *t, int32_t first, int32_t last)
{
	double *d = t->d, *e = t->e, c = 1, s = 1, p = 0;
	double g = (d[first + 1] - d[first]) / (2 * e[first]), r = sqrt(g * g + 1);
	g = d[last] - d[first] + e[first] / (g + (g < 0 ? -r : r));
	for (int32_t i = last - 1; i >= first; i--) {
		double f = s * e[i], b = c * e[i];
		r = sqrt(f * f + g * g);
		e[i + 1] = r;
		if (!(r > 0)) { /* it fell apart here */
			d[i + 1] -= p;
			e[last] = 0;
			return;
		}
		s = f / r;
		c = g / r;
		g = d[i + 1] - p;
		r = (d[i] - g) * s + 2 * c * b;
		p = s * r;
		d[i + 1] = g + p;
		g = c * r - b;
		t->turns[t->n_turns++] = (turn){i, c, s};
	}
	d[first] -= p;
	e[first] = g;
	e[last] = 0;
}

static mzm_status diagonalise(tridiagonal *t, mzm_team *team, mzm_err *err)
{
	enum { MAX_SWEEPS = 60 }; /* for one value; two are usual */
	double size = 0;
	for (int32_t i = 0; i < t->n; i++)
		size = fmax(size, fabs(t->d[i]) + fabs(t->e[i]));
	for (int32_t l = 0; l < t->n; l++)
		for (int n_sweeps = 0;; n_sweeps++) {
			int32_t m = l;
			while (m < t->n - 1 &&
			       fabs(t->e[m]) > DBL_EPSILON * (fabs(t->d[m]) + fabs(t->d[m + 1]) + 1e-3 * size))
				m++;
			if (m == l)
				break;
			if (n_sweeps == MAX_SWEEPS)
				return mzm_fail(err, MZM_EARG, "the eigenvectors of a matrix of %d rows were not found",
						(int)t->n);
			if (t->n_turns + t->n > t->cap)
				apply_turns(t, team);
			sweep(t, l, m);
		}
	apply_turns(t, team);
	return MZM_OK;
}

static void sort_values(tridiagonal *t)
{
	for (int32_t i = 0; i < t->n; i++) {
		int32_t j = i;
		for (; j > 0 && t->d[t->order[j - 1]] < t->d[i]; j--)
			t->order[j] = t->order[j - 1];
		t->order[j] = i;
	}
}

/* Vectors of this rank, from the tridiagonal matrix's to those of the matrix: its reflections, the last one first. */
static void reflect_back(void *ctx, mzm_team *team, int rank)
{
	const tridiagonal *t = ctx;
	int32_t begin, end, n = t->n;
	size_t ld = (size_t)n;
	mzm_team_range(t->r, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i++) {
		double *x = t->x + (size_t)rank * ld;
		for (int32_t j = 0; j < n; j++)
			x[j] = t->z[((size_t)(j / CHUNK) * ld + (size_t)t->order[i]) * CHUNK + (size_t)(j % CHUNK)];
		for (int32_t k = n - 3; k >= 0; k--) {
			const double *v = t->s + (size_t)k * ld;
			double a = t->tau[k] * mzm_dot(v + k + 1, x + k + 1, n - k - 1);
			for (int32_t j = k + 1; j < n; j++)
				x[j] -= a * v[j];
		}
		for (int32_t j = 0; j < n; j++)
			t->out[(size_t)i * ld + (size_t)j] = (float)x[j];
	}
}

/* The r largest of s [n, n], which is destroyed. */
static mzm_status eigen_tridiagonal(double *values, float *vectors, double *s, int32_t r, int32_t n, mzm_team *team,
				    mzm_err *err)
{
	mzm_status st;
	mzm_carve c = {0};
	tridiagonal t = {.s = s, .out = vectors, .n = n, .r = r, .cap = SWEEPS * n, .n_ranks = mzm_team_size(team)};
	tridiagonal_layout(&t, &c);
	if (c.overflow)
		return mzm_fail(err, MZM_ENOMEM, "a matrix of %d rows is too large", (int)n);
	MZM_TRY(mzm_alloc_for(&t.block, c.used, "eigenvectors", err));
	c = (mzm_carve){.base = t.block};
	tridiagonal_layout(&t, &c);
	for (int32_t i = 0; i < n; i++)
		t.z[((size_t)(i / CHUNK) * (size_t)n + (size_t)i) * CHUNK + (size_t)(i % CHUNK)] = 1;
	reflect(&t, team);
	MZM_TRY_OUT(diagonalise(&t, team, err));
	sort_values(&t);
	for (int32_t i = 0; i < r; i++)
		values[i] = t.d[t.order[i]];
	mzm_team_run(team, reflect_back, &t);
	st = MZM_OK;
out:
	mzm_free(t.block);
	return st;
}

/* ---- subspace iteration ---- */

#define PANEL 32   /* rows made orthogonal together */
#define STRIPE 256 /* components: those of a panel stay in the first cache */
#define OVERSAMPLE 16
#define ITERATIONS 8

typedef struct subspace {
	int32_t p, n;
	const mzm_kern *kern;
	float  *s;          /* [n, n] */
	float  *q, *next;   /* [p, n] */
	float  *meet;       /* [p, PANEL] products of rows with those of a panel */
	int32_t first, width; /* the panel */
	float  *small;      /* [p, p] */
	double *ritz;       /* [p, p] */
	double *values;     /* [p] */
	float  *turned;     /* [p, p] */
	void   *block;
} subspace;

static void subspace_layout(subspace *u, mzm_carve *c)
{
	size_t p = (size_t)u->p, n = (size_t)u->n;
	u->s = MZM_CARVE(c, float, n * n);
	u->q = MZM_CARVE(c, float, p * n);
	u->next = MZM_CARVE(c, float, p * n);
	u->meet = MZM_CARVE(c, float, p * PANEL);
	u->small = MZM_CARVE(c, float, p * p);
	u->ritz = MZM_CARVE(c, double, p * p);
	u->values = MZM_CARVE(c, double, p);
	u->turned = MZM_CARVE(c, float, p * p);
}

static mzm_status subspace_create(subspace *u, mzm_err *err)
{
	mzm_carve c = {0};
	subspace_layout(u, &c);
	if (c.overflow)
		return mzm_fail(err, MZM_ENOMEM, "a matrix of %d rows is too large", (int)u->n);
	MZM_TRY(mzm_alloc_for(&u->block, c.used, "eigenvectors", err));
	c = (mzm_carve){.base = u->block};
	subspace_layout(u, &c);
	return MZM_OK;
}

/* What the rows above have in common with the panel's is taken off these; of this rank's components. */
static void take_off(void *ctx, mzm_team *team, int rank)
{
	const subspace *u = ctx;
	int32_t begin, end;
	mzm_team_range(u->n, STRIPE, rank, mzm_team_size(team), &begin, &end);
	for (int32_t c = begin; c < end; c += STRIPE) {
		int32_t width = end - c < STRIPE ? end - c : STRIPE;
		for (int32_t j = 0; j < u->first; j++)
			for (int32_t i = 0; i < u->width; i++)
				u->kern->axpy(u->q + (size_t)(u->first + i) * (size_t)u->n + c,
					      -u->meet[(size_t)j * (size_t)u->width + (size_t)i],
					      u->q + (size_t)j * (size_t)u->n + c, width);
	}
}

/* Modified Gram-Schmidt on the rows of the panel, which have nothing in common with those above any more; a row of
 * which only rounding is left, against its size before, becomes zero. */
static void order_panel(const subspace *u, const float *before)
{
	for (int32_t i = 0; i < u->width; i++) {
		float *row = u->q + (size_t)(u->first + i) * (size_t)u->n;
		for (int32_t j = 0; j < i; j++) {
			const float *done = u->q + (size_t)(u->first + j) * (size_t)u->n;
			u->kern->axpy(row, -u->kern->dot(row, done, u->n), done, u->n);
		}
		float norm = sqrtf(u->kern->dot(row, row, u->n)), scale = norm > 1e-6f * before[i] ? 1 / norm : 0;
		for (int32_t k = 0; k < u->n; k++)
			row[k] *= scale;
	}
}

/* The rows of q; twice, as what is taken off a row leaves rounding of its size. */
static mzm_status orthonormalise(subspace *u, mzm_team *team, mzm_err *err)
{
	float before[PANEL];
	for (u->first = 0; u->first < u->p; u->first += PANEL) {
		u->width = u->p - u->first < PANEL ? u->p - u->first : PANEL;
		float *panel = u->q + (size_t)u->first * (size_t)u->n;
		for (int pass = 0; pass < 2; pass++) {
			for (int32_t i = 0; i < u->width; i++) {
				const float *row = panel + (size_t)i * (size_t)u->n;
				before[i] = sqrtf(u->kern->dot(row, row, u->n));
			}
			if (u->first > 0)
				MZM_TRY(mzm_times_t(u->meet, u->q, panel, u->first, u->width, u->n, team, err));
			mzm_team_run(team, take_off, u);
			order_panel(u, before);
		}
	}
	return MZM_OK;
}

static void swap(float **a, float **b)
{
	float *t = *a;
	*a = *b;
	*b = t;
}

/* The eigenvectors of s within the space of q's rows (Rayleigh and Ritz): vectors [r, n]. */
static mzm_status within(subspace *u, double *values, float *vectors, int32_t r, mzm_team *team, mzm_err *err)
{
	size_t p = (size_t)u->p;
	MZM_TRY(mzm_times_t(u->next, u->q, u->s, u->p, u->n, u->n, team, err));
	MZM_TRY(mzm_times_t(u->small, u->next, u->q, u->p, u->p, u->n, team, err));
	for (size_t i = 0; i < p * p; i++)
		u->ritz[i] = (double)u->small[i];
	mzm_mirror(u->ritz, u->p);
	MZM_TRY(eigen_tridiagonal(u->values, u->turned, u->ritz, r, u->p, team, err));
	memcpy(values, u->values, (size_t)r * sizeof *values);
	mzm_transpose(u->next, u->q, u->p, u->n, team);
	return mzm_times_t(vectors, u->turned, u->next, r, u->n, u->p, team, err);
}

static mzm_status eigen_iterated(double *values, float *vectors, const double *s, int32_t r, int32_t n, uint64_t seed,
				 mzm_team *team, mzm_err *err)
{
	subspace u = {.p = r + OVERSAMPLE < n ? r + OVERSAMPLE : n, .n = n, .kern = mzm_kern_find(NULL)};
	mzm_status st;
	MZM_TRY(subspace_create(&u, err));
	for (size_t i = 0; i < (size_t)n * (size_t)n; i++)
		u.s[i] = (float)s[i];
	for (size_t i = 0; i < (size_t)u.p * (size_t)n; i++)
		u.q[i] = (float)(mzm_rng_unit(seed, (uint64_t)n, (uint64_t)i) - 0.5);
	for (int i = 0; i < ITERATIONS; i++) {
		MZM_TRY_OUT(mzm_times_t(u.next, u.q, u.s, u.p, n, n, team, err));
		swap(&u.q, &u.next);
		MZM_TRY_OUT(orthonormalise(&u, team, err));
	}
	st = within(&u, values, vectors, r, team, err);
out:
	mzm_free(u.block);
	return st;
}

/* ---- the way ---- */

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
	double trace = 0;
	for (size_t i = 0; i < (size_t)n; i++)
		trace += s[i * (size_t)n + i];
	if (!isfinite(trace))
		return mzm_fail(err, MZM_EARG, "a matrix of %d rows has values that are not finite", (int)n);
	if (n <= MZM_EIGEN_DIRECT)
		return eigen_direct(values, vectors, s, r, n, err);
	return eigen_iterated(values, vectors, s, r, n, seed, team, err);
}
