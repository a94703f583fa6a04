/* mt19937.h - the Mersenne Twister as Python's random module seeds it with a small integer.
 *
 * Matsumoto and Nishimura, ACM TOMACS 8(1), 1998; seeding by an array of one word, their revision of 2002. */
#ifndef MZE_MT19937_H
#define MZE_MT19937_H

#include <stdint.h>

typedef struct mze_mt {
	uint32_t state[624];
	int      next;
} mze_mt;

void     mze_mt_seed(mze_mt *mt, uint32_t seed);
uint32_t mze_mt_u32(mze_mt *mt);
/* Uniform in 0..n-1, n > 0: the top bits of a draw, drawn again while they are n or more. */
uint32_t mze_mt_below(mze_mt *mt, uint32_t n);

#endif
