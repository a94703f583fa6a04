/* select.c - the k largest of n magnitudes in linear time (radix selection on the float's bits), with a
 * result that depends on nothing but the values: ties go to the lower index (equality E11). */
#include "model/predictor.h"

#include "base/half.h"

/* Bits of |score|: for non-negative floats, integer order is numeric order. NaN counts as largest. */
static uint32_t key_of(float score)
{
	return mzm_f32_bits(score) & 0x7fffffffu;
}

/* Narrows cand[0..n) to the keys whose bits from shift on are those of the k-th largest; returns how many, and
 * lowers *k by the keys above them. width: bits a digit has, 11 at most. Branch-free over the keys. */
static int32_t narrow(uint32_t *cand, int32_t n, int32_t *k, int shift, int width)
{
	int32_t count[1 << 11] = {0}, kept = 0;
	uint32_t mask = (1u << width) - 1, digit = mask;
	for (int32_t i = 0; i < n; i++)
		count[(cand[i] >> shift) & mask]++;
	while (count[digit] < *k)
		*k -= count[digit--];
	for (int32_t i = 0; i < n; i++) {
		uint32_t key = cand[i];
		cand[kept] = key;
		kept += ((key >> shift) & mask) == digit;
	}
	return kept;
}

void mzm_select_top(int32_t *rows, int32_t k, const float *score, int32_t n, float *scratch)
{
	uint32_t *cand = (uint32_t *)(void *)scratch;
	int32_t n_equal = k, n_cand = n, n_rows = 0, n_ties = 0;
	for (int32_t i = 0; i < n; i++)
		cand[i] = key_of(score[i]);
	for (int shift = 20; shift >= 0; shift -= 10) /* the sign bit is clear: 11 + 10 + 10 bits */
		n_cand = narrow(cand, n_cand, &n_equal, shift, shift == 20 ? 11 : 10);
	uint32_t bound = cand[0]; /* all that are left are equal, and n_equal of them are wanted */
	for (int32_t i = 0; i < n && n_rows < k; i++) {
		uint32_t key = key_of(score[i]);
		rows[n_rows] = i;
		n_rows += key > bound || (key == bound && n_ties++ < n_equal);
	}
}
