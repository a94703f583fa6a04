/* vec_scalar.h - sixteen float lanes as an array: the reference the vector headers must equal.
 *
 * The vocabulary every vec_*.h offers to body_*.h:
 *   v16                             sixteen lanes
 *   v16_set1, load, load_tail       load_tail reads n < 16 elements and no byte more; the others are `fill`
 *   v16_load_{bf16,f16}[_tail]      sixteen (n < 16, others 0) 16-bit elements, widened
 *   v16_store_{bf16,f16}            sixteen elements rounded to nearest even, a NaN stays one
 *   v16_store, store_tail           store_tail writes n < 16 elements and no byte more
 *   v16_add, sub, mul, div, fma     one IEEE operation a lane; fma(a, b, c) = a * b + c
 *   v16_max, min                    a > b ? a : b and a < b ? a : b: the second when unordered
 *   v16_max_abs                     greater of acc and |x| by their bits: a NaN wins and stays
 *   v16_scale                       p * 2^n rounded once, n in the low bits of t (exp_poly.h)
 *   v16_fold_add, fold_max          16 -> 8 -> 4 -> 2 -> 1, lane i with lane i + half
 *   v16_store_fold4                 stores fold_add of four of them side by side
 * and VEC_DECODE_ROWS, VEC_ROWS x VEC_POS, VEC_COLS: the register tiles that fit (body_matrix.h). */
#ifndef MZM_VEC_SCALAR_H
#define MZM_VEC_SCALAR_H

#include <math.h>
#include <string.h>

#include "kern/exp_poly.h"

#define VEC static inline /* forced inlining only makes it slow to compile */

#define VEC_DECODE_ROWS 2
#define VEC_ROWS 2
#define VEC_POS 2
#define VEC_COLS 1
#define VEC_IS_ARRAY 1

typedef struct v16 {
	float f[16];
} v16;

/* A v16 whose lane i is `expr`. */
#define LANES(expr)                          \
	({                                   \
		v16 out_;                    \
		for (int i = 0; i < 16; i++) \
			out_.f[i] = (expr);  \
		out_;                        \
	})

VEC v16 v16_set1(float a)
{
	return LANES(a);
}
VEC v16 v16_load(const float *p)
{
	v16 v;
	memcpy(v.f, p, sizeof v.f);
	return v;
}
VEC v16 v16_load_tail(const float *p, int32_t n, float fill)
{
	return LANES(i < n ? p[i] : fill);
}
VEC uint16_t half_at(const char *p, int i)
{
	uint16_t h;
	memcpy(&h, p + 2 * i, sizeof h);
	return h;
}
VEC v16 v16_load_bf16(const char *p)
{
	return LANES(mzm_bf16_to_f32(half_at(p, i)));
}
VEC v16 v16_load_bf16_tail(const char *p, int32_t n)
{
	return LANES(i < n ? mzm_bf16_to_f32(half_at(p, i)) : 0.0f);
}
VEC v16 v16_load_f16(const char *p)
{
	return LANES(mzm_f16_to_f32(half_at(p, i)));
}
VEC v16 v16_load_f16_tail(const char *p, int32_t n)
{
	return LANES(i < n ? mzm_f16_to_f32(half_at(p, i)) : 0.0f);
}
VEC void v16_store(float *p, v16 v)
{
	memcpy(p, v.f, sizeof v.f);
}
VEC void v16_store_tail(float *p, v16 v, int32_t n)
{
	memcpy(p, v.f, (size_t)n * sizeof *p);
}
VEC void v16_store_bf16(uint16_t *p, v16 v)
{
	for (int i = 0; i < 16; i++)
		p[i] = mzm_f32_to_bf16(v.f[i]);
}
VEC void v16_store_f16(uint16_t *p, v16 v)
{
	for (int i = 0; i < 16; i++)
		p[i] = mzm_f32_to_f16(v.f[i]);
}
VEC v16 v16_add(v16 a, v16 b)
{
	return LANES(a.f[i] + b.f[i]);
}
VEC v16 v16_sub(v16 a, v16 b)
{
	return LANES(a.f[i] - b.f[i]);
}
VEC v16 v16_mul(v16 a, v16 b)
{
	return LANES(a.f[i] * b.f[i]);
}
VEC v16 v16_div(v16 a, v16 b)
{
	return LANES(a.f[i] / b.f[i]);
}
VEC v16 v16_fma(v16 a, v16 b, v16 c)
{
	return LANES(fmaf(a.f[i], b.f[i], c.f[i]));
}
VEC v16 v16_max(v16 a, v16 b)
{
	return LANES(a.f[i] > b.f[i] ? a.f[i] : b.f[i]);
}
VEC v16 v16_min(v16 a, v16 b)
{
	return LANES(a.f[i] < b.f[i] ? a.f[i] : b.f[i]);
}
VEC uint32_t abs_bits(float f)
{
	return mzm_f32_bits(f) & 0x7fffffffu;
}
VEC v16 v16_max_abs(v16 acc, v16 x)
{
	return LANES(abs_bits(acc.f[i]) > abs_bits(x.f[i]) ? acc.f[i] : mzm_bits_f32(abs_bits(x.f[i])));
}
VEC v16 v16_scale(v16 p, v16 t)
{
	return LANES(exp_scale(p.f[i], t.f[i]));
}
VEC float v16_fold_add(v16 v)
{
	for (int half = 8; half > 0; half /= 2)
		for (int i = 0; i < half; i++)
			v.f[i] += v.f[i + half];
	return v.f[0];
}
VEC void v16_store_fold4(float *y, const v16 *v, size_t step)
{
	for (int i = 0; i < 4; i++)
		y[i] = v16_fold_add(v[(size_t)i * step]);
}
VEC float v16_fold_max(v16 v)
{
	for (int half = 8; half > 0; half /= 2)
		for (int i = 0; i < half; i++)
			v.f[i] = v.f[i] > v.f[i + half] ? v.f[i] : v.f[i + half];
	return v.f[0];
}

#endif
