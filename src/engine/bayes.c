/* bayes.c - see bayes.h. */
#include "engine/bayes.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "predictors/linalg.h"

#define NOISE    1e-2 /* variance of a measurement, in that of all */
#define N_GOOD   6    /* strings whose neighbours and mixtures are looked at */
#define N_MIXED  96
#define N_CLIMB  16   /* steps from the best of them */
#define REFIT    8    /* measurements after which the kernel is chosen anew */

static const double lengths[] = {0.05, 0.1, 0.2, 0.4, 0.8}; /* in bits, of all bits */
static const double linears[] = {0, 0.3, 0.6, 0.9};         /* share of the linear part */

struct mzm_bayes {
	int32_t   n_bits, n, most;
	int32_t   n_fitted; /* measurements when the kernel was chosen */
	uint64_t  seed, n_draws;
	mzm_team *team;
	uint8_t  *bits;     /* [most, n_bits] */
	double   *value;    /* [most] */
	double   *factor;   /* [n, n] Cholesky factor of the kernel matrix */
	double   *weight;   /* [most] inverse of the kernel matrix times the standardised values */
	double   *column;   /* [most] scratch */
	double    mean, scale, best; /* of the values; best: standardised */
	double    length, linear;
	uint8_t  *trial, *good; /* [n_bits] each */
	void     *block;
};

mzm_status mzm_bayes_create(mzm_bayes **out, int32_t n_bits, int32_t most, uint64_t seed, mzm_team *team, mzm_err *err)
{
	mzm_bayes *b;
	size_t n = (size_t)most, strings = ((n + 2) * (size_t)n_bits + 7) / 8 * 8;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&b, sizeof *b, "the search", err));
	*b = (mzm_bayes){.n_bits = n_bits, .most = most, .seed = seed, .team = team, .n_fitted = -REFIT};
	mzm_status st = mzm_alloc_for(&b->block, strings + (n * n + 3 * n) * sizeof(double), "the search", err);
	if (st != MZM_OK) {
		mzm_free(b);
		return st;
	}
	b->factor = b->block;
	b->value = b->factor + n * n;
	b->weight = b->value + n;
	b->column = b->weight + n;
	b->bits = (uint8_t *)(b->column + n);
	b->trial = b->bits + n * (size_t)n_bits;
	b->good = b->trial + n_bits;
	*out = b;
	return MZM_OK;
}

void mzm_bayes_free(mzm_bayes *b)
{
	if (!b)
		return;
	mzm_free(b->block);
	mzm_free(b);
}

static const uint8_t *string_at(const mzm_bayes *b, int32_t i)
{
	return b->bits + (size_t)i * (size_t)b->n_bits;
}

bool mzm_bayes_knows(const mzm_bayes *b, const uint8_t *bits)
{
	for (int32_t i = 0; i < b->n; i++) {
		if (memcmp(string_at(b, i), bits, (size_t)b->n_bits) == 0)
			return true;
	}
	return false;
}

void mzm_bayes_tell(mzm_bayes *b, const uint8_t *bits, double value)
{
	if (b->n == b->most || mzm_bayes_knows(b, bits))
		return;
	memcpy(b->bits + (size_t)b->n * (size_t)b->n_bits, bits, (size_t)b->n_bits);
	b->value[b->n++] = value;
}

const uint8_t *mzm_bayes_best(const mzm_bayes *b, double *value)
{
	int32_t best = 0;
	for (int32_t i = 1; i < b->n; i++)
		best = b->value[i] > b->value[best] ? i : best;
	*value = b->value[best];
	return string_at(b, best);
}

/* ---- the process ---- */

/* Bits count as -1 and 1 in the linear part, so that no string is nearer to the origin than others. */
static double kernel(const mzm_bayes *b, const uint8_t *x, const uint8_t *y)
{
	int32_t differ = 0;
	for (int32_t i = 0; i < b->n_bits; i++)
		differ += (x[i] != 0) != (y[i] != 0);
	double share = (double)differ / b->n_bits;
	return b->linear * (1 - 2 * share) + (1 - b->linear) * exp(-share / b->length);
}

static void standardise(mzm_bayes *b)
{
	double sum = 0, squares = 0, best = -INFINITY;
	for (int32_t i = 0; i < b->n; i++)
		sum += b->value[i];
	b->mean = sum / b->n;
	for (int32_t i = 0; i < b->n; i++) {
		squares += (b->value[i] - b->mean) * (b->value[i] - b->mean);
		best = b->value[i] > best ? b->value[i] : best;
	}
	b->scale = squares > 0 ? sqrt(squares / b->n) : 1;
	b->best = (best - b->mean) / b->scale;
}

/* x = L^-1 x, or with transpose L^-T x. */
static void solve(const mzm_bayes *b, double *x, bool transpose)
{
	size_t n = (size_t)b->n;
	for (size_t k = 0; k < n; k++) {
		size_t i = transpose ? n - 1 - k : k, from = transpose ? i + 1 : 0, to = transpose ? n : i;
		double sum = x[i];
		for (size_t j = from; j < to; j++)
			sum -= (transpose ? b->factor[j * n + i] : b->factor[i * n + j]) * x[j];
		x[i] = sum / b->factor[i * n + i];
	}
}

/* Factor and weights by the kernel as it is; *fit: log likelihood of the values, but for a constant. */
static mzm_status factorise(mzm_bayes *b, double *fit, mzm_err *err)
{
	size_t n = (size_t)b->n;
	for (int32_t i = 0; i < b->n; i++)
		for (int32_t j = 0; j <= i; j++)
			b->factor[(size_t)i * n + (size_t)j] = b->factor[(size_t)j * n + (size_t)i] =
				kernel(b, string_at(b, i), string_at(b, j)) + (i == j ? NOISE : 0);
	MZM_TRY(mzm_cholesky(b->factor, b->n, b->team, err));
	*fit = 0;
	for (size_t i = 0; i < n; i++)
		b->weight[i] = (b->value[i] - b->mean) / b->scale;
	solve(b, b->weight, false);
	for (size_t i = 0; i < n; i++)
		*fit -= b->weight[i] * b->weight[i] / 2 + log(b->factor[i * n + i]);
	solve(b, b->weight, true);
	return MZM_OK;
}

static mzm_status fit(mzm_bayes *b, mzm_err *err)
{
	double likely = -INFINITY, now, length = lengths[0], linear = linears[0];
	standardise(b);
	bool anew = b->n - b->n_fitted >= REFIT;
	for (size_t i = 0; anew && i < sizeof lengths / sizeof *lengths; i++) {
		for (size_t k = 0; k < sizeof linears / sizeof *linears; k++) {
			b->length = lengths[i];
			b->linear = linears[k];
			MZM_TRY(factorise(b, &now, err));
			if (now > likely) {
				likely = now;
				length = b->length;
				linear = b->linear;
			}
		}
	}
	if (anew) {
		b->length = length;
		b->linear = linear;
		b->n_fitted = b->n;
	}
	return factorise(b, &now, err);
}

/* Expected improvement over the best, in standard deviations of the values; 0 for what is known. */
static double improvement(mzm_bayes *b, const uint8_t *x)
{
	double mean = 0, variance = 1 + NOISE;
	if (mzm_bayes_knows(b, x))
		return 0;
	for (int32_t i = 0; i < b->n; i++) {
		b->column[i] = kernel(b, x, string_at(b, i));
		mean += b->column[i] * b->weight[i];
	}
	solve(b, b->column, false);
	for (int32_t i = 0; i < b->n; i++)
		variance -= b->column[i] * b->column[i];
	double sd = sqrt(variance > 1e-9 ? variance : 1e-9), u = (mean - b->best) / sd;
	return sd * (u * 0.5 * erfc(-u * M_SQRT1_2) + exp(-u * u / 2) / sqrt(2 * M_PI));
}

/* ---- what to ask ---- */

static double draw(mzm_bayes *b)
{
	return mzm_rng_unit(b->seed, (uint64_t)b->n, b->n_draws++);
}

/* The i-th best of what is known; fewer are known than i: the worst. */
static const uint8_t *good(const mzm_bayes *b, int32_t i)
{
	int32_t at = -1;
	for (int32_t k = 0; k <= i && k < b->n; k++) {
		int32_t next = -1;
		for (int32_t j = 0; j < b->n; j++) {
			bool later = at < 0 || b->value[j] < b->value[at] || (b->value[j] == b->value[at] && j > at);
			if (later && (next < 0 || b->value[j] > b->value[next]))
				next = j;
		}
		at = next;
	}
	return string_at(b, at);
}

/* Keeps b->trial in b->good if it promises more than *most. */
static void consider(mzm_bayes *b, double *most)
{
	double promise = improvement(b, b->trial);
	if (promise > *most) {
		*most = promise;
		memcpy(b->good, b->trial, (size_t)b->n_bits);
	}
}

/* All strings that differ from x in one bit. */
static void consider_around(mzm_bayes *b, const uint8_t *x, double *most)
{
	memcpy(b->trial, x, (size_t)b->n_bits);
	for (int32_t i = 0; i < b->n_bits; i++) {
		b->trial[i] = !b->trial[i];
		consider(b, most);
		b->trial[i] = !b->trial[i];
	}
}

/* Each bit from one of two good strings, a few turned round. */
static void mix(mzm_bayes *b)
{
	const uint8_t *x = good(b, (int32_t)(draw(b) * N_GOOD)), *y = good(b, (int32_t)(draw(b) * N_GOOD));
	double turned = 2.0 / b->n_bits;
	for (int32_t i = 0; i < b->n_bits; i++) {
		b->trial[i] = draw(b) < 0.5 ? x[i] : y[i];
		if (draw(b) < turned)
			b->trial[i] = !b->trial[i];
	}
}

mzm_status mzm_bayes_ask(mzm_bayes *b, uint8_t *bits, bool *found, mzm_err *err)
{
	double most = 0, before = -1;
	b->n_draws = 0;
	MZM_TRY(fit(b, err));
	for (int32_t i = 0; i < N_GOOD && i < b->n; i++)
		consider_around(b, good(b, i), &most);
	for (int32_t i = 0; i < N_MIXED; i++) {
		mix(b);
		consider(b, &most);
	}
	for (int32_t i = 0; i < N_CLIMB && most > before && most > 0; i++) {
		before = most;
		memcpy(bits, b->good, (size_t)b->n_bits);
		consider_around(b, bits, &most);
	}
	*found = most > 0;
	if (*found)
		memcpy(bits, b->good, (size_t)b->n_bits);
	return MZM_OK;
}
