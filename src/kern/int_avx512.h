/* int_avx512.h - sixteen 32-bit integer lanes in one 512-bit register; vocabulary in int_scalar.h, and the two ways to
 * multiply bytes in int_avx2.h. */
#ifndef MZM_INT_AVX512_H
#define MZM_INT_AVX512_H

#include "kern/vec_avx512.h"

typedef __m512i n16;

#ifdef __AVX512VNNI__
#define Q8_BIAS_SHIFT 7
typedef __m512i qw;
#else
#define Q8_BIAS_SHIFT (-1)
typedef struct qw {
	__m512i   magnitude;
	__mmask64 negative;
} qw;
#endif

VEC n16 n16_zero(void)
{
	return _mm512_setzero_si512();
}
VEC n16 n16_load(const int32_t *p)
{
	return _mm512_loadu_si512(p);
}
VEC n16 n16_load_bytes(const char *p, int32_t m)
{
	return m == 16 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi32(first(m), p);
}
VEC n16 n16_shl(n16 v, int n)
{
	return _mm512_slli_epi32(v, (unsigned)n);
}
VEC v16 n16_to_f32(n16 v)
{
	return _mm512_cvtepi32_ps(v);
}
VEC v16 n16_byte(n16 v, int b)
{
	return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, (unsigned)(24 - 8 * b)), 24));
}
VEC v16 n16_nibble(n16 v, int b, int high)
{
	__m512i n = _mm512_and_si512(_mm512_srli_epi32(v, (unsigned)(8 * b + 4 * high)), _mm512_set1_epi32(15));
	return _mm512_cvtepi32_ps(_mm512_sub_epi32(n, _mm512_set1_epi32(8)));
}
VEC v16 v16_load_i8(const int8_t *p)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i_u *)(const void *)p)));
}
VEC void v16_store_i8(int8_t *p, v16 v)
{
	_mm_storeu_si128((__m128i_u *)(void *)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
}
VEC qw qw_q8(n16 v)
{
#ifdef __AVX512VNNI__
	return _mm512_xor_si512(v, _mm512_set1_epi8(-128));
#else
	return (qw){_mm512_abs_epi8(v), _mm512_movepi8_mask(v)};
#endif
}
VEC qw qw_positive(n16 v)
{
#ifdef __AVX512VNNI__
	return v;
#else
	return (qw){v, 0};
#endif
}
VEC qw qw_low(n16 v)
{
	return qw_positive(_mm512_and_si512(v, _mm512_set1_epi8(15)));
}
VEC qw qw_high(n16 v)
{
	return qw_positive(_mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15)));
}
VEC n16 qw_dot(n16 acc, qw w, const int8_t *x)
{
	__m512i xs = _mm512_loadu_si512(x);
#ifdef __AVX512VNNI__
	return _mm512_dpbusd_epi32(acc, w, xs);
#else
	xs = _mm512_mask_sub_epi8(xs, w.negative, _mm512_setzero_si512(), xs);
	__m512i pairs = _mm512_maddubs_epi16(w.magnitude, xs);
	return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#endif
}

#endif
