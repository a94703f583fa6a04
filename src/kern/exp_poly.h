/* exp_poly.h - constants and scaling of the one exponential, shared by mzm_expf and the tables.
 *
 * exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= ln(2)/2, exp(r) = 1 + (r + r^2 q(r)). q is a minimax fit of
 * degree 4 (Remez, then rounded to float); the relative error of the whole is 3.7e-9, a sixteenth of an ulp. The
 * steps, each one IEEE operation, the same in kern.c and body_vector.h:
 *
 *     x = min(EXP_MAX, max(EXP_MIN, x))          the second operand when unordered, so NaN stays NaN
 *     t = fma(x, LOG2E, ROUNDER); n = t - ROUNDER
 *     r = fma(n, -LN2_HI, x); r = fma(n, -LN2_LO, r)
 *     q = Horner by fma; p = 1 + fma(r * r, q, r)
 *     p * 2^n, rounded once, so that denormal results are right as well */
#ifndef MZM_EXP_POLY_H
#define MZM_EXP_POLY_H

#include <math.h>

#include "base/half.h"

#define EXP_MIN -104.0f        /* exp of it rounds to 0 */
#define EXP_MAX 89.0f          /* exp of it is infinity */
#define EXP_ROUNDER 0x1.8p+23f /* adding it leaves the nearest integer in the low bits */
#define EXP_LOG2E 0x1.715476p+0f
#define EXP_LN2_HI 0x1.62e43p-1f
#define EXP_LN2_LO -0x1.05c61p-29f
#define EXP_Q0 0x1.fffffcp-2f
#define EXP_Q1 0x1.555492p-3f
#define EXP_Q2 0x1.5558f2p-5f
#define EXP_Q3 0x1.123a2p-7f
#define EXP_Q4 0x1.6a23dp-10f

/* p * 2^n for p near 1 and t = n + EXP_ROUNDER, n in -150 .. 128: the first product is exact. */
static inline float exp_scale(float p, float t)
{
	int32_t n = isnan(t) ? 0 : (int32_t)(mzm_f32_bits(t) - mzm_f32_bits(EXP_ROUNDER));
	int32_t half = n / 2, rest = n - half;
	return p * mzm_bits_f32((uint32_t)(half + 127) << 23) * mzm_bits_f32((uint32_t)(rest + 127) << 23);
}

#endif
