/* int_avx2.h - sixteen 32-bit integer lanes in two 256-bit registers; vocabulary in int_scalar.h.
 *
 * With AVX-VNNI one instruction multiplies and sums, unsigned weights by signed activations. Without it products of
 * bytes are summed in pairs to 16 bits: magnitudes of weights times activations with the weights' signs are at most
 * 2 * 128 * 127, which fits. */
#ifndef MZM_INT_AVX2_H
#define MZM_INT_AVX2_H

#include "kern/vec_avx2.h"

typedef struct n16 {
	__m256i lo, hi;
} n16;

typedef n16 qw;

#ifdef __AVXVNNI__
#define Q8_BIAS_SHIFT 7
#else
#define Q8_BIAS_SHIFT (-1)
#endif

VEC __m256i load_ints(const void *p)
{
	return _mm256_loadu_si256((const __m256i_u *)p);
}
VEC n16 n16_zero(void)
{
	return (n16){_mm256_setzero_si256(), _mm256_setzero_si256()};
}
VEC n16 n16_load(const int32_t *p)
{
	return (n16){load_ints(p), load_ints(p + 8)};
}
VEC n16 n16_load_bytes(const char *p, int32_t m)
{
	if (m == 16)
		return (n16){load_ints(p), load_ints(p + 32)};
	const int *at = (const int *)(const void *)p;
	return (n16){_mm256_maskload_epi32(at, first8(m)), _mm256_maskload_epi32(m > 8 ? at + 8 : at, first8(m - 8))};
}
VEC n16 n16_shl(n16 v, int n)
{
	return (n16){_mm256_slli_epi32(v.lo, n), _mm256_slli_epi32(v.hi, n)};
}
VEC v16 n16_to_f32(n16 v)
{
	return (v16){_mm256_cvtepi32_ps(v.lo), _mm256_cvtepi32_ps(v.hi)};
}
VEC __m256 byte8(__m256i v, int b)
{
	return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(v, 24 - 8 * b), 24));
}
VEC v16 n16_byte(n16 v, int b)
{
	return (v16){byte8(v.lo, b), byte8(v.hi, b)};
}
VEC __m256 nibble8(__m256i v, int shift)
{
	__m256i n = _mm256_and_si256(_mm256_srli_epi32(v, shift), _mm256_set1_epi32(15));
	return _mm256_cvtepi32_ps(_mm256_sub_epi32(n, _mm256_set1_epi32(8)));
}
VEC v16 n16_nibble(n16 v, int b, int high)
{
	return (v16){nibble8(v.lo, 8 * b + 4 * high), nibble8(v.hi, 8 * b + 4 * high)};
}
VEC __m256 load8_i8(const int8_t *p)
{
	return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i_u *)(const void *)p)));
}
VEC v16 v16_load_i8(const int8_t *p)
{
	return (v16){load8_i8(p), load8_i8(p + 8)};
}
VEC void v16_store_i8(int8_t *p, v16 v)
{
	__m256i pairs = _mm256_packs_epi32(_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi));
	pairs = _mm256_permute4x64_epi64(pairs, 0xd8); /* packs works in halves of the register */
	__m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
	_mm_storeu_si128((__m128i_u *)(void *)p, bytes);
}
VEC qw qw_q8(n16 v)
{
#ifdef __AVXVNNI__
	const __m256i bias = _mm256_set1_epi8(-128);
	return (qw){_mm256_xor_si256(v.lo, bias), _mm256_xor_si256(v.hi, bias)};
#else
	return v;
#endif
}
VEC qw qw_low(n16 v)
{
	const __m256i mask = _mm256_set1_epi8(15);
	return (qw){_mm256_and_si256(v.lo, mask), _mm256_and_si256(v.hi, mask)};
}
VEC qw qw_high(n16 v)
{
	return qw_low((n16){_mm256_srli_epi16(v.lo, 4), _mm256_srli_epi16(v.hi, 4)});
}
VEC __m256i dot8(__m256i acc, __m256i w, __m256i x)
{
#ifdef __AVXVNNI__
	return _mm256_dpbusd_avx_epi32(acc, w, x);
#else
	__m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
	return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}
VEC n16 qw_dot(n16 acc, qw w, const int8_t *x)
{
	return (n16){dot8(acc.lo, w.lo, load_ints(x)), dot8(acc.hi, w.hi, load_ints(x + 32))};
}

#endif
