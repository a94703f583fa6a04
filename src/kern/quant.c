/* quant.c - see quant.h. Once a weight at import; the kernels read rows in their own way.
 *
 * The scale that minimises the squared error of a block has no closed form, as the rounding depends on it. So a few
 * dozen scales around the one that maps the largest weight to the end of the range are tried; each rounds the weights
 * and is then refitted to them by least squares, rounded to f16, and judged by the error it really leaves. */
#include "kern/quant.h"

#include <math.h>
#include <string.h>

#include "base/half.h"

#define N_STEPS 15   /* candidates on either side of the plain scale */
#define STEP    0.02f

typedef struct range {
	float least, most; /* of q */
} range;

static range range_of(mzm_dtype dtype)
{
	return dtype == MZM_Q4 ? (range){-8, 7} : (range){-127, 127};
}

/* To the nearest integer, ties to even: the addition rounds. |v| below 2^22. */
static float nearest(float v)
{
	const float magic = 12582912.0f;
	return (v + magic) - magic;
}

static float clamp(float v, range r)
{
	v = v < r.least ? r.least : v;
	return v > r.most ? r.most : v;
}

/* q of every weight under scale d, and the squared error. */
static float round_block(float *q, const float *x, float d, range r)
{
	float inverse = d != 0 ? 1 / d : 0, error = 0;
	for (int i = 0; i < MZM_Q_BLOCK; i++) {
		q[i] = nearest(clamp(x[i] * inverse, r));
		float e = x[i] - d * q[i];
		error += e * e;
	}
	return error;
}

/* The f16 scale that fits x to q best. */
static float refit(const float *q, const float *x)
{
	float qx = 0, qq = 0;
	for (int i = 0; i < MZM_Q_BLOCK; i++) {
		qx += q[i] * x[i];
		qq += q[i] * q[i];
	}
	return qq > 0 ? mzm_f16_to_f32(mzm_f32_to_f16(qx / qq)) : 0;
}

/* The weight that is farthest from zero, with its sign: the range of q4 reaches one farther below than above. */
static float farthest(const float *x)
{
	float far = 0;
	for (int i = 0; i < MZM_Q_BLOCK; i++)
		far = fabsf(x[i]) > fabsf(far) ? x[i] : far;
	return far;
}

/* Fills q and *d; false when the block cannot be represented. */
static bool quantise(float *q, float *d, const float *x, mzm_dtype dtype, mzm_quant_method method)
{
	range r = range_of(dtype);
	float far = farthest(x), trial[MZM_Q_BLOCK];
	for (int i = 0; i < MZM_Q_BLOCK; i++)
		if (!isfinite(x[i]))
			return false;
	float plain = far / r.least;
	*d = mzm_f16_to_f32(mzm_f32_to_f16(plain));
	if (!isfinite(*d))
		return false;
	float best = round_block(q, x, *d, r);
	for (int i = -N_STEPS; method == MZM_QUANT_BEST && i <= N_STEPS; i++) {
		round_block(trial, x, plain * (1 + STEP * (float)i), r);
		float fitted = refit(trial, x);
		float error = round_block(trial, x, fitted, r);
		if (error < best && isfinite(fitted)) {
			best = error;
			*d = fitted;
			memcpy(q, trial, sizeof trial);
		}
	}
	return true;
}

/* Where weight i of a block lies in its group of m blocks; *high: in the upper half of the byte (q4). */
static size_t place(mzm_dtype dtype, int m, int block, int i, bool *high)
{
	int k = i / 4, step = dtype == MZM_Q4 ? k % 4 : k;
	*high = dtype == MZM_Q4 && k >= 4;
	return (size_t)(4 * m * step + 4 * block + i % 4);
}

static void put_block(uint8_t *group, const float *q, mzm_dtype dtype, int m, int block)
{
	for (int i = 0; i < MZM_Q_BLOCK; i++) {
		bool high;
		uint8_t *at = group + place(dtype, m, block, i, &high);
		int v = (int)q[i];
		if (dtype == MZM_Q8)
			*at = (uint8_t)(int8_t)v;
		else
			*at = (uint8_t)(high ? (*at & 0x0f) | (v + 8) << 4 : (*at & 0xf0) | (v + 8));
	}
}

static void get_block(float *y, const uint8_t *group, float d, mzm_dtype dtype, int m, int block)
{
	for (int i = 0; i < MZM_Q_BLOCK; i++) {
		bool high;
		uint8_t byte = group[place(dtype, m, block, i, &high)];
		y[i] = d * (float)(dtype == MZM_Q8 ? (int8_t)byte : (high ? byte >> 4 : byte & 15) - 8);
	}
}

static int blocks_of_group(int32_t n_blocks, int32_t block)
{
	int32_t left = n_blocks - block / 16 * 16;
	return left < 16 ? (int)left : 16;
}

static size_t group_offset(mzm_dtype dtype, int32_t block)
{
	return mzm_quant_bytes(dtype, block / 16 * MZM_Q_GROUP);
}

bool mzm_quant_row(void *dst, const float *x, mzm_dtype dtype, int32_t n_cols, mzm_quant_method method)
{
	uint8_t *row = dst;
	int32_t n_blocks = n_cols / MZM_Q_BLOCK;
	memset(row, 0, mzm_row_bytes(dtype, n_cols));
	for (int32_t i = 0; i < n_blocks; i++) {
		float q[MZM_Q_BLOCK], d;
		if (!quantise(q, &d, x + (size_t)i * MZM_Q_BLOCK, dtype, method))
			return false;
		uint16_t h = mzm_f32_to_f16(d);
		memcpy(row + mzm_quant_bytes(dtype, n_cols) + 2 * (size_t)i, &h, 2);
		put_block(row + group_offset(dtype, i), q, dtype, blocks_of_group(n_blocks, i), (int)(i % 16));
	}
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
			  blocks_of_group(n_blocks, i), (int)(i % 16));
	}
}
