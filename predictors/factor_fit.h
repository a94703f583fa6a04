/* factor_fit.h - the best factors (factors.h) of given rank in closed form: shared by the fits of low-rank predictors.
 *
 * W x is to be predicted as B (A x) + bias. With C = L L^T the covariance of the inputs, the mean squared error over
 * them is |(W - B A) L|^2: a plain truncated SVD, of W L. Its right singular vectors V are the eigenvectors of
 * L^T W^T W L, so nothing as tall as W is ever factored: B = W L V, A = V^T L^-1. Without inputs (L = 1) it is the
 * truncated SVD of W. */
#ifndef MZM_FACTOR_FIT_H
#define MZM_FACTOR_FIT_H

#include "predictors/factors.h"
#include "predictors/fit.h"

typedef enum mzm_factor_target { MZM_FACTOR_GATE, MZM_FACTOR_GATE_UP } mzm_factor_target;

typedef struct mzm_factor_want {
	mzm_factor_target target;
	bool    inputs;   /* best over the sample's inputs, not over all directions alike */
	int32_t rank;     /* the most */
	double  energy;   /* as much of it as explains this share of the squared outputs; 0: all of it */
	int32_t bits;
	bool    round;    /* as the predictor will have them, and the bias right for that */
} mzm_factor_want;

/* -> mzm_factor_free. *explained: share of the squared outputs, their mean taken off, that the rank holds. */
mzm_status mzm_factor_make(mzm_factor_fit *out, double *explained, const mzm_fit_layer *l, const mzm_factor_want *want,
			   mzm_err *err);
void       mzm_factor_free(mzm_factor_fit *f);

/* y [n, n_out] of inputs x [n, dim]. */
mzm_status mzm_factor_predict(float *y, const mzm_factor_fit *f, const float *x, int32_t n, mzm_team *team,
			      mzm_err *err);

/* The default: so much of the width of the model, in multiples of what a quantised row's block holds. */
int32_t    mzm_factor_rank(const mzm_config *cfg, int32_t wanted, double share);

#endif
