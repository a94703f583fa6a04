/* quant.c - see quant.h. Once a weight at import; the kernels read rows in their own way.
 *
 * The scale that minimises the squared error of a block has no closed form, as the rounding depends on it. But for
 * given q the best scale has: d = sum(q x) / sum(q q), which leaves the error sum(x x) - sum(q x)^2 / sum(q q). So a
 * few dozen scales around the one that maps the largest weight to the end of the range are tried by that figure alone,
 * one pass each; the winner is refitted until it stays. Then the scale is made unbiased, rounded to f16, and the block
 * judged by the error that is really left: where rounding to nearest leaves less, that is taken.
 * Plain SSE2, which every x86-64 has: the result is the same on all of them. */
#include "kern/quant.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "base/half.h"

#define LANES   4
#define VECTORS (MZM_Q_BLOCK / LANES)

/* Scales tried, as multiples of the plain one: from first on, n of them, step apart. Ten times as many, and the other
 * sign too, leave 0.03 % less error in q4 rows. */
typedef struct search {
	float least, most; /* range of q */
	float first, step;
	int n;
} search;

static const search searches[2] = {
	{-127, 127, 0.992f, 0.004f, 24},
	{-8, 7, 0.80f, 0.025f, 20},
};

static const search *search_of(mzm_dtype dtype)
{
	return &searches[dtype == MZM_Q4];
}

typedef struct weights {
	__m128 x[VECTORS];
} weights;

static float sum(__m128 v)
{
	float f[LANES];
	_mm_storeu_ps(f, v);
	return (f[0] + f[2]) + (f[1] + f[3]);
}

static float inverse(float d)
{
	return d != 0 ? 1 / d : 0;
}

/* Nearest q under the scale 1 / inv, ties to even. */
static inline __m128i round_vector(__m128 x, __m128 inv, const search *s)
{
	__m128 v = _mm_mul_ps(x, inv);
	v = _mm_max_ps(_mm_min_ps(v, _mm_set1_ps(s->most)), _mm_set1_ps(s->least));
	return _mm_cvtps_epi32(v);
}

/* Rounds the block under scale d; *fitted is the scale that fits the rounded weights best. Returns how much of sum(x x)
 * that scale explains. */
static float fit(float *fitted, const weights *b, float d, const search *s)
{
	__m128 inv = _mm_set1_ps(inverse(d)), qx = _mm_setzero_ps(), qq = _mm_setzero_ps();
	for (int i = 0; i < VECTORS; i++) {
		__m128 q = _mm_cvtepi32_ps(round_vector(b->x[i], inv, s));
		qx = _mm_add_ps(qx, _mm_mul_ps(q, b->x[i]));
		qq = _mm_add_ps(qq, _mm_mul_ps(q, q));
	}
	float sum_qx = sum(qx), sum_qq = sum(qq);
	*fitted = sum_qq > 0 ? sum_qx / sum_qq : 0;
	return *fitted * sum_qx;
}

static void round_block(int32_t q[MZM_Q_BLOCK], const weights *b, float d, const search *s)
{
	__m128 inv = _mm_set1_ps(inverse(d));
	for (int i = 0; i < VECTORS; i++)
		_mm_storeu_si128((__m128i *)(q + LANES * i), round_vector(b->x[i], inv, s));
}

/* In double: it may be too small or too large for a float. */
static double squared_error(const int32_t q[MZM_Q_BLOCK], const float *x, float d)
{
	double error = 0;
	for (int i = 0; i < MZM_Q_BLOCK; i++) {
		double e = (double)x[i] - (double)d * q[i];
		error += e * e;
	}
	return error;
}

/* The scale of least squared error makes weights shorter, by their relative error squared: 0.7 % in q4, matrix after
 * matrix. This one keeps their length along x, for 0.7 % more squared error. */
static float unbiased_scale(const int32_t q[MZM_Q_BLOCK], const float *x)
{
	double xx = 0, qx = 0;
	for (int i = 0; i < MZM_Q_BLOCK; i++) {
		xx += (double)x[i] * (double)x[i];
		qx += (double)q[i] * (double)x[i];
	}
	return qx != 0 ? (float)(xx / qx) : 0;
}

static float to_f16(float d)
{
	return mzm_f16_to_f32(mzm_f32_to_f16(d)) + 0.0f; /* never -0, so that zeros have one form */
}

/* The scale that explains most, of those tried, before it is rounded to f16. */
static float best_scale(const weights *b, float plain, const search *s)
{
	float best = plain, most = -1, fitted;
	for (int i = 0; i < s->n; i++) {
		float got = fit(&fitted, b, plain * (s->first + s->step * (float)i), s);
		if (got > most) {
			most = got;
			best = fitted;
		}
	}
	for (int i = 0; i < 2; i++) {
		(void)fit(&fitted, b, best, s);
		best = fitted;
	}
	return best;
}

/* False when a weight is NaN or infinite. *far: the weight farthest from zero, with its sign. */
static bool load(weights *b, float *far, const float *x)
{
	__m128 least = _mm_setzero_ps(), most = _mm_setzero_ps(), zero = _mm_setzero_ps();
	for (int i = 0; i < VECTORS; i++) {
		b->x[i] = _mm_loadu_ps(x + LANES * i);
		least = _mm_min_ps(least, b->x[i]);
		most = _mm_max_ps(most, b->x[i]);
		zero = _mm_add_ps(zero, _mm_mul_ps(b->x[i], _mm_setzero_ps())); /* NaN once one is not finite */
	}
	float low[LANES], high[LANES];
	_mm_storeu_ps(low, least);
	_mm_storeu_ps(high, most);
	for (int i = 1; i < LANES; i++) {
		low[0] = low[i] < low[0] ? low[i] : low[0];
		high[0] = high[i] > high[0] ? high[i] : high[0];
	}
	*far = -low[0] > high[0] ? low[0] : high[0];
	return sum(zero) == 0;
}

/* Fills q and *d; false when the block cannot be represented. */
static bool quantise(int32_t q[MZM_Q_BLOCK], float *d, const float *x, const search *s, mzm_quant_method method)
{
	weights b;
	float far;
	if (!load(&b, &far, x))
		return false;
	float plain = far / s->least;
	*d = to_f16(plain);
	if (!isfinite(*d))
		return false;
	round_block(q, &b, *d, s);
	double error = squared_error(q, x, *d);
	if (method == MZM_QUANT_NEAREST || error == 0)
		return true;
	int32_t trial[MZM_Q_BLOCK];
	round_block(trial, &b, best_scale(&b, plain, s), s);
	float fitted = to_f16(unbiased_scale(trial, x));
	if (isfinite(fitted) && squared_error(trial, x, fitted) < error) {
		*d = fitted;
		memcpy(q, trial, sizeof trial);
	}
	return true;
}

/* ---- the layout: step k of a block is four bytes; a row of m such words, one a block, is a step of the group ---- */

static void put_block(uint8_t *group, const int32_t *q, mzm_dtype dtype, size_t m, size_t block)
{
	uint8_t word[4];
	for (size_t k = 0; k < (dtype == MZM_Q4 ? 4 : 8); k++) {
		for (size_t b = 0; b < 4; b++)
			word[b] = (uint8_t)(dtype == MZM_Q4 ? (q[4 * k + b] + 8) | (q[16 + 4 * k + b] + 8) << 4
							    : q[4 * k + b]);
		memcpy(group + 4 * (m * k + block), word, 4);
	}
}

static void get_block(float *y, const uint8_t *group, float d, mzm_dtype dtype, size_t m, size_t block)
{
	for (size_t k = 0; k < (dtype == MZM_Q4 ? 4 : 8); k++) {
		const uint8_t *word = group + 4 * (m * k + block);
		for (size_t b = 0; b < 4; b++) {
			if (dtype == MZM_Q8) {
				y[4 * k + b] = d * (float)(int8_t)word[b];
				continue;
			}
			y[4 * k + b] = d * (float)((word[b] & 15) - 8);
			y[16 + 4 * k + b] = d * (float)((word[b] >> 4) - 8);
		}
	}
}

static size_t blocks_of_group(int32_t n_blocks, int32_t block)
{
	int32_t left = n_blocks - block / 16 * 16;
	return left < 16 ? (size_t)left : 16;
}

static size_t group_offset(mzm_dtype dtype, int32_t block)
{
	return mzm_quant_bytes(dtype, block / 16 * MZM_Q_GROUP);
}

bool mzm_quant_row(void *dst, const float *x, mzm_dtype dtype, int32_t n_cols, mzm_quant_method method)
{
	uint8_t *row = dst, *scales = row + mzm_quant_bytes(dtype, n_cols);
	int32_t n_blocks = n_cols / MZM_Q_BLOCK, q[MZM_Q_BLOCK];
	const search *s = search_of(dtype);
	float d;
	for (int32_t i = 0; i < n_blocks; i++) {
		if (!quantise(q, &d, x + (size_t)i * MZM_Q_BLOCK, s, method))
			return false;
		uint16_t h = mzm_f32_to_f16(d);
		memcpy(scales + 2 * (size_t)i, &h, 2);
		put_block(row + group_offset(dtype, i), q, dtype, blocks_of_group(n_blocks, i), (size_t)(i % 16));
	}
	uint8_t *end = scales + 2 * (size_t)n_blocks;
	memset(end, 0, mzm_row_bytes(dtype, n_cols) - (size_t)(end - row));
	return true;
}

void mzm_dequant_row(float *y, const void *src, mzm_dtype dtype, int32_t n_cols)
{
	const uint8_t *row = src;
	int32_t n_blocks = n_cols / MZM_Q_BLOCK;
	for (int32_t i = 0; i < n_blocks; i++) {
		uint16_t h;
		memcpy(&h, row + mzm_quant_bytes(dtype, n_cols) + 2 * (size_t)i, 2);
		get_block(y + (size_t)i * MZM_Q_BLOCK, row + group_offset(dtype, i), mzm_f16_to_f32(h), dtype,
			  blocks_of_group(n_blocks, i), (size_t)(i % 16));
	}
}
