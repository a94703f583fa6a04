/* dct.h - the orthonormal discrete cosine transform of short vectors, heads of an attention.
 *
 * C is the DCT-II: C[k][i] = c_k cos(pi (2i + 1) k / 2n), c_0 = sqrt(1/n), else sqrt(2/n). Forward is C x, inverse C^T
 * x (the DCT-III). Two ways that agree to single precision: by halving, O(n log n) for the power of two in n and a
 * matrix for its odd rest, several vectors side by side; and the matrix, for the row kernels. SPEED.md says where
 * which wins. */
#ifndef MZM_DCT_H
#define MZM_DCT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/carve.h"

#define MZM_DCT_LANES 8 /* vectors side by side */

typedef struct mzm_dct {
	int32_t n, n_odd;
	double *halves; /* [n] 2 cos(pi (2i + 1) / 2m) of length m at m / 2 + i */
	double *odd;    /* [n_odd, n_odd] cos(pi (2i + 1) k / 2 n_odd) */
} mzm_dct;

void mzm_dct_layout(mzm_dct *d, int32_t n, mzm_carve *c); /* n >= 1 */
void mzm_dct_fill(mzm_dct *d);                            /* once it has its place */

static inline size_t mzm_dct_scratch(int32_t n) /* doubles */
{
	return 2 * (size_t)n * MZM_DCT_LANES;
}

/* n_vec <= MZM_DCT_LANES vectors of n, one behind the other, in place; scratch is 64-byte aligned. A vector's bits do
 * not depend on the others. */
void mzm_dct_forward(const mzm_dct *d, float *x, int32_t n_vec, double *scratch);
void mzm_dct_inverse(const mzm_dct *d, float *x, int32_t n_vec, double *scratch);

/* Whether that is faster than the matrix with the row kernels, on CPUs with wide vectors: measured, SPEED.md. */
static inline bool mzm_dct_wins(int32_t n)
{
	return n >= 512 && n % 64 == 0;
}

/* C itself, row by row, or what inverse multiplies with. */
void mzm_dct_matrix(float *out, int32_t n, bool inverse);
double mzm_dct_element(int32_t n, int32_t k, int32_t i);

#endif
