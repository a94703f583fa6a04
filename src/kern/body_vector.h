/* body_vector.h - what happens to single vectors between the matrix products; compiled once per instruction set.
 *
 * Written over vec_*.h, every operation in a stated order, so that the tables give equal bits. A loop takes sixteen
 * elements at a time; get and put mask the last few. */
#ifndef MZM_BODY_VECTOR_H
#define MZM_BODY_VECTOR_H

#include <math.h>

#include "kern/exp_poly.h"
#include "kern/kern.h"

/* Sixteen elements, or the `left` that there are and then `fill`. */
VEC v16 get_or(const float *p, int32_t left, float fill)
{
	return left >= 16 ? v16_load(p) : v16_load_tail(p, left, fill);
}
VEC v16 get(const float *p, int32_t left)
{
	return get_or(p, left, 0.0f);
}
VEC void put(float *p, v16 v, int32_t left)
{
	if (left >= 16)
		v16_store(p, v);
	else
		v16_store_tail(p, v, left);
}

/* The steps of exp_poly.h. */
VEC v16 v16_exp(v16 x)
{
	x = v16_max(v16_set1(EXP_MIN), x);
	x = v16_min(v16_set1(EXP_MAX), x);
	v16 t = v16_fma(x, v16_set1(EXP_LOG2E), v16_set1(EXP_ROUNDER));
	v16 n = v16_sub(t, v16_set1(EXP_ROUNDER));
	v16 r = v16_fma(n, v16_set1(-EXP_LN2_HI), x);
	r = v16_fma(n, v16_set1(-EXP_LN2_LO), r);
	v16 q = v16_fma(v16_set1(EXP_Q4), r, v16_set1(EXP_Q3));
	q = v16_fma(q, r, v16_set1(EXP_Q2));
	q = v16_fma(q, r, v16_set1(EXP_Q1));
	q = v16_fma(q, r, v16_set1(EXP_Q0));
	v16 p = v16_add(v16_set1(1.0f), v16_fma(v16_mul(r, r), q, r));
	return v16_scale(p, t);
}

static float dot(const float *a, const float *b, int32_t n)
{
	v16 sum = v16_set1(0.0f);
	for (int32_t i = 0; i < n; i += 16)
		sum = v16_fma(get(a + i, n - i), get(b + i, n - i), sum);
	return v16_fold_add(sum);
}

static void axpy(float *y, float a, const float *x, int32_t n)
{
	v16 as = v16_set1(a);
	for (int32_t i = 0; i < n; i += 16)
		put(y + i, v16_fma(as, get(x + i, n - i), get(y + i, n - i)), n - i);
}

static void add(float *y, const float *x, int32_t n)
{
	for (int32_t i = 0; i < n; i += 16)
		put(y + i, v16_add(get(y + i, n - i), get(x + i, n - i)), n - i);
}

static void mul(float *y, const float *x, int32_t n)
{
	for (int32_t i = 0; i < n; i += 16)
		put(y + i, v16_mul(get(y + i, n - i), get(x + i, n - i)), n - i);
}

static void silu(float *y, int32_t n)
{
	v16 one = v16_set1(1.0f), zero = v16_set1(0.0f);
	for (int32_t i = 0; i < n; i += 16) {
		v16 x = get(y + i, n - i);
		put(y + i, v16_div(x, v16_add(one, v16_exp(v16_sub(zero, x)))), n - i);
	}
}

/* NaN stays NaN: max takes the second operand when unordered. */
static void relu(float *y, int32_t n)
{
	for (int32_t i = 0; i < n; i += 16)
		put(y + i, v16_max(v16_set1(0.0f), get(y + i, n - i)), n - i);
}

/* x Phi(x) = max(x, 0) - |x| / 2 erfc(|x| / sqrt 2); erfc by Abramowitz and Stegun 7.1.26, off by 1.5e-7 at most. */
VEC v16 v16_gelu(v16 x)
{
	static const float coefficient[] = {1.061405429f, -1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
	v16 zero = v16_set1(0.0f), size = v16_max(v16_sub(zero, x), x);
	v16 z = v16_mul(size, v16_set1(0.70710678f));
	v16 t = v16_div(v16_set1(1.0f), v16_fma(v16_set1(0.3275911f), z, v16_set1(1.0f)));
	v16 p = v16_set1(coefficient[0]);
	for (int i = 1; i < 5; i++)
		p = v16_fma(p, t, v16_set1(coefficient[i]));
	v16 erfc = v16_mul(v16_mul(p, t), v16_exp(v16_sub(zero, v16_mul(z, z))));
	return v16_sub(v16_max(zero, x), v16_mul(v16_mul(size, v16_set1(0.5f)), erfc));
}

/* x / 2 (1 + tanh u) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
VEC v16 v16_gelu_tanh(v16 x)
{
	v16 u = v16_mul(x, v16_fma(v16_mul(x, x), v16_set1(0.044715f), v16_set1(1.0f)));
	v16 e = v16_exp(v16_mul(u, v16_set1(-1.5957691216f)));
	return v16_div(x, v16_add(v16_set1(1.0f), e));
}

static void gelu(float *y, bool by_tanh, int32_t n)
{
	for (int32_t i = 0; i < n; i += 16) {
		v16 x = get(y + i, n - i);
		put(y + i, by_tanh ? v16_gelu_tanh(x) : v16_gelu(x), n - i);
	}
}

static void fatrelu(float *y, float threshold, int32_t n)
{
	for (int32_t i = 0; i < n; i++)
		y[i] = y[i] <= threshold ? 0.0f : y[i]; /* NaN stays NaN */
}

static void act(float *y, mzm_act kind, float threshold, int32_t n)
{
	switch (kind) {
	case MZM_ACT_SILU: silu(y, n); break;
	case MZM_ACT_RELU: relu(y, n); break;
	case MZM_ACT_FATRELU: fatrelu(y, threshold, n); break;
	case MZM_ACT_GELU:
	case MZM_ACT_GELU_TANH: gelu(y, kind == MZM_ACT_GELU_TANH, n); break;
	}
}

/* cap * (1 - 2 / (1 + exp(2 y / cap))) */
static void softcap(float *y, float cap, int32_t n)
{
	v16 one = v16_set1(1.0f), two = v16_set1(2.0f), caps = v16_set1(cap);
	for (int32_t i = 0; i < n; i += 16) {
		v16 e = v16_exp(v16_div(v16_mul(get(y + i, n - i), two), caps));
		put(y + i, v16_mul(caps, v16_sub(one, v16_div(two, v16_add(one, e)))), n - i);
	}
}

/* (x * r) * weight, r = 1 / sqrt(mean + eps). y may be x. */
static void rmsnorm(float *y, const float *x, const float *weight, float eps, int32_t n)
{
	v16 r = v16_set1(1.0f / sqrtf(dot(x, x, n) / (float)n + eps));
	for (int32_t i = 0; i < n; i += 16)
		put(y + i, v16_mul(v16_mul(get(x + i, n - i), r), get(weight + i, n - i)), n - i);
}

static float sum_of(const float *x, int32_t n)
{
	v16 sum = v16_set1(0.0f);
	for (int32_t i = 0; i < n; i += 16)
		sum = v16_add(sum, get(x + i, n - i));
	return v16_fold_add(sum);
}

/* ((x - mean) * r) * weight + bias, r = 1 / sqrt(variance + eps). y may be x. */
static void layernorm(float *y, const float *x, const float *weight, const float *bias, float eps, int32_t n)
{
	v16 mean = v16_set1(sum_of(x, n) / (float)n);
	v16 sum = v16_set1(0.0f);
	for (int32_t i = 0; i < n; i += 16) {
		v16 d = v16_sub(get(x + i, n - i), mean);
		float part[16] = {0}; /* nothing behind the end */
		put(part, d, n - i);
		d = v16_load(part);
		sum = v16_fma(d, d, sum);
	}
	v16 r = v16_set1(1.0f / sqrtf(v16_fold_add(sum) / (float)n + eps));
	for (int32_t i = 0; i < n; i += 16) {
		v16 d = v16_mul(v16_sub(get(x + i, n - i), mean), r);
		put(y + i, v16_fma(d, get(weight + i, n - i), get(bias + i, n - i)), n - i);
	}
}

static float greatest(const float *x, int32_t n)
{
	v16 top = v16_set1(-INFINITY);
	for (int32_t i = 0; i < n; i += 16)
		top = v16_max(top, get_or(x + i, n - i, -INFINITY));
	return v16_fold_max(top);
}

/* Lanes are summed with Kahan's correction: over 100,000 equal terms a plain float sum is off by far more than the
 * 1e-6 a softmax may be. Where everything is -inf there is nothing to choose from, and all weights are 0. */
static void softmax(float *x, int32_t n)
{
	float max = greatest(x, n);
	v16 top = v16_set1(max == -INFINITY ? 0.0f : max);
	v16 sum = v16_set1(0.0f), lost = v16_set1(0.0f);
	for (int32_t i = 0; i < n; i += 16) {
		v16 e = v16_exp(v16_sub(get_or(x + i, n - i, -INFINITY), top)); /* 0 behind the end */
		put(x + i, e, n - i);
		v16 term = v16_sub(e, lost);
		v16 next = v16_add(sum, term);
		lost = v16_sub(v16_sub(next, sum), term);
		sum = next;
	}
	float total = v16_fold_add(sum);
	v16 divisor = v16_set1(total == 0.0f ? 1.0f : total);
	for (int32_t i = 0; i < n; i += 16)
		put(x + i, v16_div(get(x + i, n - i), divisor), n - i);
}

static float max_abs(const float *x, int32_t n)
{
	v16 top = v16_set1(0.0f);
	for (int32_t i = 0; i < n; i += 16)
		top = v16_max_abs(top, get(x + i, n - i));
	float lanes[16], best = 0.0f;
	v16_store(lanes, top);
	for (int i = 0; i < 16; i++) /* without signs the bits are in the order of the values, NaN on top */
		if (mzm_f32_bits(lanes[i]) > mzm_f32_bits(best))
			best = lanes[i];
	return best;
}

VEC void widen(float *y, const void *x, mzm_dtype dtype, int32_t n)
{
	int32_t i = 0;
	for (; i + 16 <= n; i += 16)
		v16_store(y + i, load_w(x, i, dtype));
	if (i < n)
		v16_store_tail(y + i, load_w_tail(x, i, n - i, dtype), n - i);
}

static void rope(float *x, const float *cos_sin, int32_t n)
{
	int32_t half = n / 2;
	for (int32_t i = 0; i < half; i++) {
		float c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
		float a = x[i], b = x[i + half];
		x[i] = fmaf(a, c, -(b * s));
		x[i + half] = fmaf(b, c, a * s);
	}
}

#endif
