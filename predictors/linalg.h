/* linalg.h - the linear algebra that fits need (fit.h): products, symmetric eigenvectors, Cholesky factors.
 *
 * Workload: square matrices up to the width of a model, once a layer when it is calibrated. Products are those of the
 * row kernels, in f32; what is sensitive is in double. Work is split by output, so a result does not depend on the
 * number of threads. All matrices are row-major and packed. Not a LAPACK: what it does is enough for fits, no more. */
#ifndef MZM_LINALG_H
#define MZM_LINALG_H

#include "kern/threads.h"

/* y [m, k] = x [m, n] times w [k, n] transposed. */
mzm_status mzm_times_t(float *y, const float *x, const float *w, int32_t m, int32_t k, int32_t n, mzm_team *team,
		       mzm_err *err);

/* g [n, n] = sum over i of weight[i] m_i m_i^T, m_i the rows of m [n_rows, n]. weight NULL: ones. */
mzm_status mzm_gram(double *g, const float *m, const float *weight, int32_t n_rows, int32_t n, mzm_team *team,
		    mzm_err *err);

/* The r largest eigenvalues, descending, of the symmetric positive semidefinite s [n, n], and their eigenvectors, unit
 * rows of vectors [r, n]. Up to MZM_EIGEN_DIRECT exact to rounding, by Jacobi's rotations. Above: by subspace
 * iteration from a start that the seed fixes, which leaves in the space that it finds at least 1 - 1e-3 of what the
 * best one holds (measured on spectra that fall as 1/i; faster ones are held better). */
#define MZM_EIGEN_DIRECT 384
mzm_status mzm_eigen_top(double *values, float *vectors, const double *s, int32_t r, int32_t n, uint64_t seed,
			 mzm_team *team, mzm_err *err);
/* All of them by rotations; destroys s. vectors: [n, n] */
void mzm_eigen_jacobi(double *values, double *vectors, double *s, int32_t n);

/* Lower Cholesky factor in place; above the diagonal stands rubbish. EARG: s is not positive definite. */
mzm_status mzm_cholesky(double *s, int32_t n, mzm_team *team, mzm_err *err);

#endif
