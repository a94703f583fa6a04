/* half.h - bf16 and IEEE f16 against f32: round to nearest even, NaN stays NaN, denormals kept. */
#ifndef MZM_HALF_H
#define MZM_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t mzm_f32_bits(float f)
{
	uint32_t u;
	memcpy(&u, &f, 4);
	return u;
}
static inline float mzm_bits_f32(uint32_t u)
{
	float f;
	memcpy(&f, &u, 4);
	return f;
}
static inline float mzm_bf16_to_f32(uint16_t h)
{
	return mzm_bits_f32((uint32_t)h << 16);
}
static inline uint16_t mzm_f32_to_bf16(float f)
{
	uint32_t u = mzm_f32_bits(f);
	if ((u & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)((u >> 16) | 0x40u); /* quiet NaN, payload kept */
	return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
static inline float mzm_f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
	uint32_t exp = (h >> 10) & 0x1fu, man = h & 0x3ffu;
	if (exp == 31)
		return mzm_bits_f32(sign | 0x7f800000u | (man << 13) | (man ? 0x400000u : 0));
	if (exp == 0) { /* zero or denormal: man * 2^-24 is exact */
		float f = (float)man * 0x1p-24f;
		return mzm_bits_f32(mzm_f32_bits(f) | sign);
	}
	return mzm_bits_f32(sign | ((exp + 112u) << 23) | (man << 13));
}
static inline uint16_t mzm_f32_to_f16(float f)
{
	uint32_t u = mzm_f32_bits(f), sign = (u >> 16) & 0x8000u, mag = u & 0x7fffffffu;
	if (mag > 0x7f800000u)
		return (uint16_t)(sign | 0x7e00u | ((mag >> 13) & 0x3ffu));
	if (mag >= 0x47800000u) /* 65536 and above, infinity */
		return (uint16_t)(sign | 0x7c00u);
	if (mag < 0x38800000u) { /* below 2^-14: denormal; adding 0.5 leaves man rounded in the low bits */
		float d = mzm_bits_f32(mag) + 0.5f;
		return (uint16_t)(sign | (mzm_f32_bits(d) - 0x3f000000u));
	}
	uint32_t r = mag - 0x38000000u; /* rebias the exponent by -112 */
	return (uint16_t)(sign | ((r + 0xfffu + ((r >> 13) & 1u)) >> 13));
}

#endif
