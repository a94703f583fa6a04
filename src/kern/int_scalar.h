/* int_scalar.h - sixteen 32-bit integer lanes as an array, for the quantised formats: the reference the others equal.
 *
 * The vocabulary every int_*.h offers to body_quant.h. A lane holds four weights or activations of one block:
 *   n16                             sixteen int32 lanes
 *   n16_zero, n16_load              load: from [16] int32
 *   n16_load_bytes                  the 4 m bytes of m <= 16 lanes and no byte more; lanes from m on are 0
 *   n16_shl                         every lane shifted left
 *   n16_to_f32                      exact below 2^24
 *   n16_byte                        lane -> byte b of it, signed, as a float
 *   n16_nibble                      lane -> low or high half of byte b of it, less 8, as a float
 *   v16_load_i8, v16_store_i8       sixteen int8; store rounds to nearest even, |v| <= 127.5
 *   qw                              64 weights ready to be multiplied
 *   qw_q8, qw_low, qw_high          from n16_load_bytes: signed bytes; low and high halves, 0 .. 15
 *   qw_dot                          lane + the sum of its four products with signed bytes x; exact
 *   Q8_BIAS_SHIFT                   qw_q8 weights are off by 1 << this, -1: they are not */
#ifndef MZM_INT_SCALAR_H
#define MZM_INT_SCALAR_H

#include "kern/vec_scalar.h"

#define Q8_BIAS_SHIFT (-1)

typedef struct n16 {
	int32_t i[16];
} n16;

typedef struct qw {
	int8_t b[64];
} qw;

#define INTS(expr)                           \
	({                                   \
		n16 out_;                    \
		for (int i = 0; i < 16; i++) \
			out_.i[i] = (expr);  \
		out_;                        \
	})

VEC n16 n16_zero(void)
{
	return INTS(0);
}
VEC n16 n16_load(const int32_t *p)
{
	n16 v;
	memcpy(v.i, p, sizeof v.i);
	return v;
}
VEC n16 n16_load_bytes(const char *p, int32_t m)
{
	n16 v = {{0}};
	memcpy(v.i, p, 4 * (size_t)m);
	return v;
}
VEC n16 n16_shl(n16 v, int n)
{
	return INTS((int32_t)((uint32_t)v.i[i] << n));
}
VEC v16 n16_to_f32(n16 v)
{
	return LANES((float)v.i[i]);
}
VEC v16 n16_byte(n16 v, int b)
{
	return LANES((float)(int8_t)((uint32_t)v.i[i] >> (8 * b)));
}
VEC v16 n16_nibble(n16 v, int b, int high)
{
	return LANES((float)((int32_t)((uint32_t)v.i[i] >> (8 * b + 4 * high) & 15) - 8));
}
VEC v16 v16_load_i8(const int8_t *p)
{
	return LANES((float)p[i]);
}
VEC void v16_store_i8(int8_t *p, v16 v)
{
	for (int i = 0; i < 16; i++)
		p[i] = (int8_t)(v.f[i] + EXP_ROUNDER - EXP_ROUNDER);
}
VEC qw qw_q8(n16 v)
{
	qw w;
	memcpy(w.b, v.i, sizeof w.b);
	return w;
}
VEC qw qw_low(n16 v)
{
	qw w = qw_q8(v);
	for (int k = 0; k < 64; k++)
		w.b[k] = (int8_t)(w.b[k] & 15);
	return w;
}
VEC qw qw_high(n16 v)
{
	qw w = qw_q8(v);
	for (int k = 0; k < 64; k++)
		w.b[k] = (int8_t)((uint8_t)w.b[k] >> 4);
	return w;
}
VEC n16 qw_dot(n16 acc, qw w, const int8_t *x)
{
	for (int k = 0; k < 64; k++)
		acc.i[k / 4] += w.b[k] * x[k];
	return acc;
}

#endif
