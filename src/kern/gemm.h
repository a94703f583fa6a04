/* gemm.h - matrix products for long prefills, through oneDNN (2.6 and 3.x); the only file that
 * includes its header is gemm_dnnl.c. Built without oneDNN, mzm_gemm_available() is false.
 *
 * Each call computes a block of fixed shape on the calling thread alone, so results do not depend on
 * the number of threads. They differ in the last bits from the row kernels: callers use it on a fixed
 * grid of positions, the same in every mode. */
#ifndef MZM_GEMM_H
#define MZM_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

bool        mzm_gemm_available(void);
const char *mzm_gemm_version(void); /* "oneDNN 2.6.0", or "none" */

/* c[m, ldc] = a[m, lda] * b[n, ldb]^T, k columns, f32, row-major; safe to call from a team's thread. */
mzm_status mzm_gemm_nt(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, int32_t m,
		       int32_t n, int32_t k, mzm_err *err);
/* c[m, ldc] (+)= a[m, lda] * b[k, ldb]: accumulate adds to c. */
mzm_status mzm_gemm_nn(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, int32_t m,
		       int32_t n, int32_t k, bool accumulate, mzm_err *err);

#endif
