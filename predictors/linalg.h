/* linalg.h - the linear algebra that fits need (fit.h) beside eigen.h: products, transposes, Cholesky factors.
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

/* g becomes symmetric, by what stands below its diagonal: sums of rounded products differ in their last bits on its two
 * sides. */
void       mzm_mirror(double *g, int32_t n);

/* to [n_cols, n_rows] = from [n_rows, n_cols] transposed. */
void       mzm_transpose(float *to, const float *from, int32_t n_rows, int32_t n_cols, mzm_team *team);

double     mzm_dot(const double *a, const double *b, int32_t n);

/* Lower Cholesky factor in place; above the diagonal stands rubbish. EARG: s is not positive definite. */
mzm_status mzm_cholesky(double *s, int32_t n, mzm_team *team, mzm_err *err);

#endif
