/* eigen.h - eigenvectors of symmetric matrices, for fits (fit.h).
 *
 * Workload: the width of a model, once for each fit of a layer: the upper half of up to some thousand eigenvectors. The
 * same bits for any number of threads and on any processor. */
#ifndef MZM_EIGEN_H
#define MZM_EIGEN_H

#include "kern/threads.h"

/* The r largest eigenvalues, descending, of the symmetric positive semidefinite s [n, n], and their eigenvectors, unit
 * rows of vectors [r, n]. EARG: s is not finite. Up to MZM_EIGEN_DIRECT exact to rounding. Above: by subspace
 * iteration from a start that the seed fixes, which leaves in the space that it finds at least 1 - 1e-3 of what the
 * best one holds (measured on spectra that fall as 1/i; faster ones are held better). */
#define MZM_EIGEN_DIRECT 384
mzm_status mzm_eigen_top(double *values, float *vectors, const double *s, int32_t r, int32_t n, uint64_t seed,
			 mzm_team *team, mzm_err *err);
/* All of them by rotations; destroys s. vectors: [n, n] */
void mzm_eigen_jacobi(double *values, double *vectors, double *s, int32_t n);

#endif
