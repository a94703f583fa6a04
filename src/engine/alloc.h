/* alloc.h - how many neurons each layer keeps where all keep a given share on average: the shares of a side-car, and
 * the search that finds them.
 *
 * A tensor alloc.NAME f32 [points, n_layers] says for predictor NAME what share of its neurons each layer keeps; rows
 * by ascending mean, which is the --keep that they are for. Between them shares are linear; below the first they shrink
 * with it, beyond the last they grow towards 1. */
#ifndef MZM_ENGINE_ALLOC_H
#define MZM_ENGINE_ALLOC_H

#include "format/calib.h"
#include "format/config.h"

#define MZM_ALLOC_MOST_POINTS 32

/* Fills counts [n_layers] for that keep: their sum is that of floor(keep * n_ffn), at least 1, in every layer. rows:
 * [n, n_layers] such shares, n at least 1. */
void       mzm_alloc_count(int32_t *counts, const float *rows, int32_t n, const mzm_config *cfg, float keep);
/* The same by what a side-car (may be NULL) says of a predictor. *keep_of: counts, or as it was where that is nothing,
 * or the same for all layers.
 * EFORMAT: it makes no sense. */
mzm_status mzm_alloc_read(const int32_t **keep_of, int32_t *counts, const mzm_calib *calib, const char *predictor,
			  const mzm_config *cfg, float keep, mzm_err *err);

/* What harm a layer does that keeps so much. */
typedef struct mzm_alloc_curve {
	const float  *keep; /* [n_points] ascending, below 1 */
	const double *harm; /* [n_points] 0 at keep 1 */
	int32_t       n_points;
} mzm_alloc_curve;

/* share [n_layers] with that mean, of the least sum of harms: by dynamic programming over eighths of the mean, from
 * half of it to twice as much (with wider bounds more of what was found did not stand the trial: harms that are large
 * do not add up). Between points of a curve the logarithm of harm is linear in that of the share; a layer that keeps
 * more is never taken to do more harm. */
mzm_status mzm_alloc_solve(float *share, const mzm_alloc_curve *of, int32_t n_layers, double mean, mzm_err *err);

#endif
