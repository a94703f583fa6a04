/* vec_avx2.h - sixteen float lanes in two 256-bit registers; vocabulary in vec_scalar.h. */
#ifndef MZM_VEC_AVX2_H
#define MZM_VEC_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "kern/exp_poly.h"

#define VEC static inline __attribute__((always_inline))

/* 16 registers of 8 lanes: a tile of six sums takes 12. */
#define VEC_DECODE_ROWS 4
#define VEC_ROWS 2
#define VEC_POS 3
#define VEC_COLS 2

typedef struct v16 {
	__m256 lo, hi;
} v16;

VEC v16 v16_set1(float a)
{
	return (v16){_mm256_set1_ps(a), _mm256_set1_ps(a)};
}
VEC v16 v16_load(const float *p)
{
	return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
/* All ones in the first n lanes of eight; n may lie outside 0 .. 8. */
VEC __m256i first8(int32_t n)
{
	return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
VEC __m256 load8_tail(const float *p, int32_t n, float fill)
{
	__m256i m = first8(n);
	return _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, m), _mm256_castsi256_ps(m));
}
VEC v16 v16_load_tail(const float *p, int32_t n, float fill)
{
	/* the second half's address only counts when n > 8 */
	return (v16){load8_tail(p, n, fill), load8_tail(n > 8 ? p + 8 : p, n - 8, fill)};
}
VEC __m128i load8_half(const char *p)
{
	return _mm_loadu_si128((const __m128i_u *)(const void *)p);
}
VEC __m256 widen_bf16(__m128i h)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
VEC v16 v16_load_bf16(const char *p)
{
	return (v16){widen_bf16(load8_half(p)), widen_bf16(load8_half(p + 16))};
}
VEC v16 v16_load_f16(const char *p)
{
	return (v16){_mm256_cvtph_ps(load8_half(p)), _mm256_cvtph_ps(load8_half(p + 16))};
}
/* AVX2 has no masked load of 16-bit elements: they go through a zeroed copy. */
VEC v16 v16_load_bf16_tail(const char *p, int32_t n)
{
	char copy[32] = {0};
	memcpy(copy, p, (size_t)n * 2);
	return v16_load_bf16(copy);
}
VEC v16 v16_load_f16_tail(const char *p, int32_t n)
{
	char copy[32] = {0};
	memcpy(copy, p, (size_t)n * 2);
	return v16_load_f16(copy);
}
VEC void v16_store(float *p, v16 v)
{
	_mm256_storeu_ps(p, v.lo);
	_mm256_storeu_ps(p + 8, v.hi);
}
VEC void v16_store_tail(float *p, v16 v, int32_t n)
{
	_mm256_maskstore_ps(p, first8(n), v.lo);
	if (n > 8)
		_mm256_maskstore_ps(p + 8, first8(n - 8), v.hi);
}
VEC __m256i round_bf16(__m256 v)
{
	__m256i u = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
	__m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
	__m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
	return _mm256_srli_epi32(_mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan), 16);
}
VEC void v16_store_bf16(uint16_t *p, v16 v)
{
	__m256i both = _mm256_packus_epi32(round_bf16(v.lo), round_bf16(v.hi));
	_mm256_storeu_si256((__m256i_u *)(void *)p, _mm256_permute4x64_epi64(both, 0xd8));
}
VEC void v16_store_f16(uint16_t *p, v16 v)
{
	_mm_storeu_si128((__m128i_u *)(void *)p, _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT));
	_mm_storeu_si128((__m128i_u *)(void *)(p + 8), _mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT));
}
VEC v16 v16_add(v16 a, v16 b)
{
	return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
VEC v16 v16_sub(v16 a, v16 b)
{
	return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
VEC v16 v16_mul(v16 a, v16 b)
{
	return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
VEC v16 v16_div(v16 a, v16 b)
{
	return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
VEC v16 v16_fma(v16 a, v16 b, v16 c)
{
	return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
VEC v16 v16_max(v16 a, v16 b)
{
	return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
VEC v16 v16_min(v16 a, v16 b)
{
	return (v16){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
VEC __m256 max_abs8(__m256 acc, __m256 x)
{
	__m256i mag = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
	return _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(acc), mag));
}
VEC v16 v16_max_abs(v16 acc, v16 x)
{
	return (v16){max_abs8(acc.lo, x.lo), max_abs8(acc.hi, x.hi)};
}
/* 2^n as a float, for n in -126 .. 127 */
VEC __m256 pow2(__m256i n)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
/* In two factors: the first product is exact, the second rounds once. A NaN in t is in p as well and stays. */
VEC __m256 scale8(__m256 p, __m256 t)
{
	__m256i n = _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_castps_si256(_mm256_set1_ps(EXP_ROUNDER)));
	__m256i half = _mm256_srai_epi32(n, 1);
	return _mm256_mul_ps(_mm256_mul_ps(p, pow2(half)), pow2(_mm256_sub_epi32(n, half)));
}
VEC v16 v16_scale(v16 p, v16 t)
{
	return (v16){scale8(p.lo, t.lo), scale8(p.hi, t.hi)};
}
VEC float v16_fold_add(v16 v)
{
	__m256 a = _mm256_add_ps(v.lo, v.hi);
	__m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
	b = _mm_add_ps(b, _mm_movehl_ps(b, b));
	return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
VEC void v16_store_fold4(float *y, const v16 *v, size_t step)
{
	for (int i = 0; i < 4; i++)
		y[i] = v16_fold_add(v[(size_t)i * step]);
}
VEC float v16_fold_max(v16 v)
{
	__m256 a = _mm256_max_ps(v.lo, v.hi);
	__m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
	b = _mm_max_ps(b, _mm_movehl_ps(b, b));
	return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

#endif
