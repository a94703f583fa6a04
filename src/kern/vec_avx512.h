/* vec_avx512.h - sixteen float lanes in one 512-bit register; vocabulary in vec_scalar.h. */
#ifndef MZM_VEC_AVX512_H
#define MZM_VEC_AVX512_H

#include <immintrin.h>

#include "kern/exp_poly.h"

#define VEC static inline __attribute__((always_inline))

#define VEC_DECODE_ROWS 8
#define VEC_ROWS 4
#define VEC_POS 4
#define VEC_COLS 4

typedef __m512 v16;

VEC __mmask16 first(int32_t n)
{
	return (__mmask16)((1u << n) - 1);
}
VEC v16 v16_set1(float a)
{
	return _mm512_set1_ps(a);
}
VEC v16 v16_load(const float *p)
{
	return _mm512_loadu_ps(p);
}
VEC v16 v16_load_tail(const float *p, int32_t n, float fill)
{
	return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(n), p);
}
VEC v16 widen_bf16(__m256i h)
{
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
VEC v16 v16_load_bf16(const char *p)
{
	return widen_bf16(_mm256_loadu_si256((const __m256i_u *)(const void *)p));
}
VEC v16 v16_load_bf16_tail(const char *p, int32_t n)
{
	return widen_bf16(_mm256_maskz_loadu_epi16(first(n), p));
}
VEC v16 v16_load_f16(const char *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i_u *)(const void *)p));
}
VEC v16 v16_load_f16_tail(const char *p, int32_t n)
{
	return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p));
}
VEC void v16_store(float *p, v16 v)
{
	_mm512_storeu_ps(p, v);
}
VEC void v16_store_tail(float *p, v16 v, int32_t n)
{
	_mm512_mask_storeu_ps(p, first(n), v);
}
VEC void v16_store_bf16(uint16_t *p, v16 v)
{
	__m512i u = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
	__m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
	r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
	_mm256_storeu_si256((__m256i_u *)(void *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
}
VEC void v16_store_f16(uint16_t *p, v16 v)
{
	_mm256_storeu_si256((__m256i_u *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
VEC v16 v16_add(v16 a, v16 b)
{
	return _mm512_add_ps(a, b);
}
VEC v16 v16_sub(v16 a, v16 b)
{
	return _mm512_sub_ps(a, b);
}
VEC v16 v16_mul(v16 a, v16 b)
{
	return _mm512_mul_ps(a, b);
}
VEC v16 v16_div(v16 a, v16 b)
{
	return _mm512_div_ps(a, b);
}
VEC v16 v16_fma(v16 a, v16 b, v16 c)
{
	return _mm512_fmadd_ps(a, b, c);
}
VEC v16 v16_max(v16 a, v16 b)
{
	return _mm512_max_ps(a, b);
}
VEC v16 v16_min(v16 a, v16 b)
{
	return _mm512_min_ps(a, b);
}
VEC v16 v16_max_abs(v16 acc, v16 x)
{
	__m512i mag = _mm512_castps_si512(_mm512_abs_ps(x));
	return _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(acc), mag));
}
VEC v16 v16_scale(v16 p, v16 t)
{
	return _mm512_scalef_ps(p, _mm512_sub_ps(t, _mm512_set1_ps(EXP_ROUNDER)));
}
VEC __m256 upper_half(v16 v)
{
	return _mm512_extractf32x8_ps(v, 1);
}
VEC float v16_fold_add(v16 v)
{
	__m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), upper_half(v));
	__m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
	b = _mm_add_ps(b, _mm_movehl_ps(b, b));
	return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
VEC v16 fold_four(v16 a, v16 b, v16 c, v16 d)
{
	v16 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
	v16 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
	return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}
VEC void v16_store_fold4(float *y, const v16 *v, size_t step)
{
	v16 s = fold_four(v[0], v[step], v[2 * step], v[3 * step]); /* four lanes of each left */
	s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4e));
	s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
	_mm_storeu_ps(y, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, s)));
}
VEC float v16_fold_max(v16 v)
{
	__m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), upper_half(v));
	__m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
	b = _mm_max_ps(b, _mm_movehl_ps(b, b));
	return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

#endif
