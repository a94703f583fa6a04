/* rng.h - counter-based random numbers: a pure function of (seed, stream, counter).
 *
 * No state means that a draw at a position is the same however often a draft was rolled back, and
 * on any number of threads. The mixer is SplitMix64's finaliser (Steele, Lea, Flood 2014). */
#ifndef MZM_RNG_H
#define MZM_RNG_H

#include <stdint.h>

static inline uint64_t mzm_rng_mix(uint64_t z)
{
	z += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}
static inline uint64_t mzm_rng_u64(uint64_t seed, uint64_t stream, uint64_t counter)
{
	return mzm_rng_mix(mzm_rng_mix(mzm_rng_mix(seed) ^ stream) ^ counter);
}
/* uniform in (0, 1), never 0 or 1 */
static inline double mzm_rng_unit(uint64_t seed, uint64_t stream, uint64_t counter)
{
	return ((double)(mzm_rng_u64(seed, stream, counter) >> 12) + 0.5) * 0x1p-52;
}

#endif
