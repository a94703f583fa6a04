/* mt19937.c - see mt19937.h. */
#include "eval/mt19937.h"

#define N 624
#define M 397

void mze_mt_seed(mze_mt *mt, uint32_t seed)
{
	uint32_t *s = mt->state;
	s[0] = 19650218u;
	for (uint32_t i = 1; i < N; i++)
		s[i] = 1812433253u * (s[i - 1] ^ (s[i - 1] >> 30)) + i;
	uint32_t i = 1;
	for (int k = 0; k < N; k++) { /* the key is one word, so its index stays 0 */
		s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1664525u)) + seed;
		if (++i == N) {
			s[0] = s[N - 1];
			i = 1;
		}
	}
	for (int k = 0; k < N - 1; k++) {
		s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1566083941u)) - i;
		if (++i == N) {
			s[0] = s[N - 1];
			i = 1;
		}
	}
	s[0] = 0x80000000u;
	mt->next = N;
}

static void refill(mze_mt *mt)
{
	uint32_t *s = mt->state;
	for (int i = 0; i < N; i++) {
		uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % N] & 0x7fffffffu);
		s[i] = s[(i + M) % N] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
	}
	mt->next = 0;
}

uint32_t mze_mt_u32(mze_mt *mt)
{
	if (mt->next == N)
		refill(mt);
	uint32_t y = mt->state[mt->next++];
	y ^= y >> 11;
	y ^= (y << 7) & 0x9d2c5680u;
	y ^= (y << 15) & 0xefc60000u;
	return y ^ (y >> 18);
}

uint32_t mze_mt_below(mze_mt *mt, uint32_t n)
{
	int bits = 32 - __builtin_clz(n);
	uint32_t x;
	do
		x = mze_mt_u32(mt) >> (32 - bits);
	while (x >= n);
	return x;
}
