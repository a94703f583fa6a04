/* dijiang.c - see dijiang.h. */
#include "format/dijiang.h"

#include <math.h>

#include "kern/dct.h"

#define TOLERANCE 4e-3 /* of an entry, relative to the largest: the matrix may have been stored in bf16 */

/* What C diag(t) has in row k and column j is C[k][j] t[j]; C's columns have length 1. */
static double column_scale(const float *projection, int32_t d, int32_t j)
{
	double t = 0;
	for (int32_t k = 0; k < d; k++)
		t += mzm_dct_element(d, k, j) * (double)projection[(size_t)k * (size_t)d + (size_t)j];
	return t;
}

mzm_status mzm_dijiang_scales(float *t, const float *projection, int32_t d, mzm_err *err)
{
	double most = 0;
	for (int32_t j = 0; j < d; j++) {
		double scale = column_scale(projection, d, j);
		if (!isfinite(scale))
			return mzm_fail(err, MZM_EFORMAT, "column %d of the projection is not finite", (int)j);
		t[j] = (float)scale;
		most = fabs(scale) > most ? fabs(scale) : most;
	}
	for (int32_t k = 0; k < d; k++) {
		for (int32_t j = 0; j < d; j++) {
			double want = mzm_dct_element(d, k, j) * (double)t[j];
			double found = (double)projection[(size_t)k * (size_t)d + (size_t)j];
			if (!(fabs(want - found) <= TOLERANCE * most))
				return mzm_fail(err, MZM_EFORMAT,
						"entry %d, %d is %g instead of %g: the projection is no scaled cosine "
						"transform", (int)k, (int)j, found, want);
		}
	}
	return MZM_OK;
}

static mzm_status bad_entry(const char *table, int32_t head, int32_t n, float value, mzm_err *err)
{
	return mzm_fail(err, MZM_EFORMAT, "%s of head %d at position %d is %g: it takes finite numbers other than 0",
			table, (int)head, (int)n, (double)value);
}

mzm_status mzm_dijiang_decay(float *out, const float *d1, const float *d2, int32_t n_heads, int32_t len, bool goes_on,
			     mzm_err *err)
{
	for (int32_t h = 0; h < n_heads; h++) {
		const float *a = d1 + (size_t)h * (size_t)len, *b = d2 + (size_t)h * (size_t)len;
		float *to = out + 2 * (size_t)h * (size_t)len;
		for (int32_t n = 0; n < len; n++) {
			if (!isfinite(a[n]) || a[n] == 0)
				return bad_entry("D1", h, n, a[n], err);
			if (!isfinite(b[n]) || b[n] == 0)
				return bad_entry("D2", h, n, b[n], err);
			to[2 * n] = n == 0 ? 0.0f : (float)(1 - (double)a[n] / (double)a[n - 1]);
			to[2 * n + 1] = (float)((double)a[n] * (double)b[n]);
			if (!isfinite(to[2 * n]) || !isfinite(to[2 * n + 1]))
				return bad_entry("the ratio or product of D1 and D2", h, n, to[2 * n + 1], err);
		}
		if (goes_on && fabs(1 - (double)to[2 * len - 2]) > 1)
			return mzm_fail(err, MZM_EFORMAT,
					"D1 of head %d grows at its end: behind its %d positions the state would grow "
					"without bound; max_position_embeddings may be %d at most",
					(int)h, (int)len, (int)len);
	}
	return MZM_OK;
}
