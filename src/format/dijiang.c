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

static mzm_status bad_entry(const char *table, size_t head, size_t at, float value, mzm_err *err)
{
	return mzm_fail(err, MZM_EFORMAT, "%s of head %zu at position %zu is %g: it takes finite numbers other than 0",
			table, head, at, (double)value);
}

mzm_status mzm_dijiang_decay(float *out, mzm_dijiang_tables *tables, const float *d1, const float *d2, size_t n,
			     mzm_err *err)
{
	size_t len = (size_t)tables->len;
	for (size_t i = 0; i < n; i++, out += 2) {
		size_t head = tables->n_done / len, at = tables->n_done % len;
		double a = (double)d1[i], b = (double)d2[i];
		if (!isfinite(a) || a == 0)
			return bad_entry("D1", head, at, d1[i], err);
		if (!isfinite(b) || b == 0)
			return bad_entry("D2", head, at, d2[i], err);
		out[0] = at == 0 ? 0.0f : (float)(1 - a / (double)tables->before);
		out[1] = (float)(a * b);
		if (!isfinite(out[0]) || !isfinite(out[1]))
			return bad_entry("the ratio or product of D1 and D2", head, at, out[isfinite(out[0])], err);
		if (tables->goes_on && at == len - 1 && fabs(1 - (double)out[0]) > 1)
			return mzm_fail(err, MZM_EFORMAT,
					"D1 of head %zu grows at its end: behind its %zu positions the state would "
					"grow without bound; max_position_embeddings may be %zu at most",
					head, len, len);
		tables->before = d1[i];
		tables->n_done++;
	}
	return MZM_OK;
}
