/* quant.h - rows of 8-bit and 4-bit weights: their layout, and the way there and back.
 *
 * A row of n_cols weights (a multiple of 32) is cut into blocks of 32, each with one scale d in f16:
 *     q8   weight = d * q,        q in -127 .. 127
 *     q4   weight = d * (u - 8),  u in 0 .. 15
 * Blocks form groups of 16 (the last group of a row may have fewer): 512 weights, so that a 512-bit register
 * holds four neighbours of each block in one 32-bit lane a block, and integer sums of whole blocks need no
 * shuffling. With m blocks in the group, block l = 0 .. m-1, step k = 0 .. 7 and byte b = 0 .. 3, weight
 * 32 l + 4 k + b of the group lies
 *     q8   in byte 4 m k + 4 l + b of the group's 32 m bytes
 *     q4   in byte 4 m (k mod 4) + 4 l + b of the group's 16 m bytes: the low half of it for k < 4, else the high half
 * A row: the bytes of its groups, the scales of its blocks in order, zeros up to a multiple of 64 bytes. */
#ifndef MZM_QUANT_H
#define MZM_QUANT_H

#include "kern/kern.h"

#define MZM_Q_BLOCK 32
#define MZM_Q_GROUP 512 /* weights: 16 blocks */

/* How a scale is chosen: from the largest weight alone (round to nearest), or as the one of a few dozen near
 * it whose rounded weights have the least squared error, made unbiased (quant.c). */
typedef enum mzm_quant_method { MZM_QUANT_NEAREST, MZM_QUANT_BEST } mzm_quant_method;

/* dst: [mzm_row_bytes(dtype, n_cols)]; x: [n_cols]. False, and dst undefined, when x has a NaN or a weight too large
 * for an f16 scale. */
bool mzm_quant_row(void *dst, const float *x, mzm_dtype dtype, int32_t n_cols, mzm_quant_method method);
void mzm_dequant_row(float *y, const void *row, mzm_dtype dtype, int32_t n_cols);

/* Bytes before the scales. */
static inline size_t mzm_quant_bytes(mzm_dtype dtype, int32_t n_cols)
{
	return (size_t)n_cols / (dtype == MZM_Q4 ? 2 : 1);
}

#endif
