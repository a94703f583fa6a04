/* select.c - the k largest of n magnitudes in linear time (radix selection on the float's bits), with a
 * result that depends on nothing but the values: ties go to the lower index (equality E11). */
#include "model/predictor.h"

#include "base/half.h"

/* Bits of |score|: for non-negative floats, integer order is numeric order. NaN counts as largest. */
static uint32_t key_of(float score)
{
	return mzm_f32_bits(score) & 0x7fffffffu;
}

/* The k-th largest key; *n_equal: how many keys equal to it belong to the k largest. */
static uint32_t kth_key(const uint32_t *key, int32_t n, int32_t k, int32_t *n_equal)
{
	uint32_t prefix = 0, mask = 0;
	for (int shift = 24; shift >= 0; shift -= 8) {
		int32_t count[256] = {0};
		for (int32_t i = 0; i < n; i++)
			count[(key[i] >> shift) & 255u] += (key[i] & mask) == prefix;
		int bucket = 255;
		while (count[bucket] < k)
			k -= count[bucket--];
		prefix |= (uint32_t)bucket << shift;
		mask |= 255u << shift;
	}
	*n_equal = k;
	return prefix;
}

void mzm_select_top(int32_t *rows, int32_t k, const float *score, int32_t n, float *scratch)
{
	uint32_t *key = (uint32_t *)(void *)scratch;
	for (int32_t i = 0; i < n; i++)
		key[i] = key_of(score[i]);
	int32_t n_equal, n_rows = 0;
	uint32_t bound = kth_key(key, n, k, &n_equal);
	for (int32_t i = 0; i < n; i++) {
		if (key[i] > bound || (key[i] == bound && n_equal-- > 0))
			rows[n_rows++] = i;
	}
}
