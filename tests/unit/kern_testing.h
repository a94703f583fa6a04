/* kern_testing.h - what test_kern.c and test_kern_vec.c share: buffers in a sea of NaN, random numbers, and the order
 * of a dot product that kern.h states, written out once more. */
#ifndef MZM_KERN_TESTING_H
#define MZM_KERN_TESTING_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"
#include "kern/kern.h"

#define MARGIN 64 /* floats around every buffer */
#define CANARY 0x7fc0dead

/* For each table this CPU can run. */
#define EACH_TABLE(t) \
	for (const mzm_kern *const *t = mzm_kern_tables; *t; t++) \
		if (!(*t)->supported()) \
			continue; \
		else

static inline bool same(float a, float b)
{
	return mzm_f32_bits(a) == mzm_f32_bits(b) || (isnan(a) && isnan(b));
}

static inline void check_same(const float *got, const float *want, size_t n, const char *table, const char *what)
{
	for (size_t i = 0; i < n; i++)
		if (!same(got[i], want[i]))
			fail_msg("%s, %s: element %zu is %a, not %a", table, what, i, (double)got[i], (double)want[i]);
}

/* ---- buffers ---- */

static uint64_t draw; /* counter of the random numbers */

/* Mostly in -1 .. 1, some large, some tiny, some zero. */
static inline float random_value(void)
{
	uint64_t r = mzm_rng_u64(7, 1, draw++);
	float v = (float)(r >> 40) * 0x1p-23f - 1.0f;
	switch (r & 31) {
	case 0:
		return v * 1000.0f;
	case 1:
		return v * 1e-6f;
	case 2:
		return (r & 32) ? 0.0f : -0.0f;
	default:
		return v;
	}
}

/* n floats of canary with a margin before and behind; -> floats_free */
static inline float *floats_new(size_t n)
{
	float *p = malloc((n + 2 * MARGIN) * sizeof *p);
	assert_non_null(p);
	for (size_t i = 0; i < n + 2 * MARGIN; i++)
		p[i] = mzm_bits_f32(CANARY);
	return p + MARGIN;
}

static inline float *floats_random(size_t n)
{
	float *p = floats_new(n);
	for (size_t i = 0; i < n; i++)
		p[i] = random_value();
	return p;
}

static inline void floats_free(float *p)
{
	free(p - MARGIN);
}

static inline bool untouched(const float *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (mzm_f32_bits(p[i]) != CANARY)
			return false;
	return true;
}

/* The margins of a buffer of n floats, and the gaps behind the first n_used of every ld. */
static inline void check_untouched(const float *p, size_t n, size_t ld, size_t n_used)
{
	assert_true(untouched(p - MARGIN, MARGIN));
	assert_true(untouched(p + n, MARGIN));
	for (size_t row = 0; row < n; row += ld)
		assert_true(untouched(p + row + n_used, ld - n_used));
}

/* ---- the stated order ---- */

static inline float fold(float *lane)
{
	for (int half = 8; half > 0; half /= 2)
		for (int i = 0; i < half; i++)
			lane[i] = lane[i] + lane[i + half];
	return lane[0];
}

static inline float stated_dot(const float *a, const float *b, int32_t n)
{
	float lane[16] = {0};
	for (int32_t i = 0; i < (n + 15) / 16 * 16; i++)
		lane[i % 16] = i < n ? fmaf(a[i], b[i], lane[i % 16]) : fmaf(0.0f, 0.0f, lane[i % 16]);
	return fold(lane);
}

#endif
