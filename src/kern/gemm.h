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

/* ---- f32, any shape ---- */

/* c[m, ldc] = a[m, lda] * b[n, ldb]^T, k columns, f32, row-major; safe to call from a team's thread. */
mzm_status mzm_gemm_nt(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, int32_t m,
		       int32_t n, int32_t k, mzm_err *err);
/* c[m, ldc] (+)= a[m, lda] * b[k, ldb]: accumulate adds to c. */
mzm_status mzm_gemm_nn(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, int32_t m,
		       int32_t n, int32_t k, bool accumulate, mzm_err *err);

/* ---- bf16, blocks of one shape ---- */

#define MZM_GEMM_COLS 64 /* outputs of a block */
#define MZM_GEMM_STEP 32 /* k is a multiple of it */

/* A panel is a block of weights in the order in which oneDNN's fastest kernel reads them: [k/2, MZM_GEMM_COLS] pairs
 * of bf16, the pair being the weights of one output for two neighbouring inputs. 64-byte aligned. */
static inline size_t mzm_gemm_panel_len(int32_t k) /* uint16_t */
{
	return (size_t)k * MZM_GEMM_COLS;
}
/* From n <= MZM_GEMM_COLS rows of k weights, a row an output; or from k rows of n weights, a row an input. Rows lie
 * stride bytes apart. Up to depth, a multiple of MZM_GEMM_STEP and not less than k, and for the outputs from n on,
 * the panel is filled with zeros. */
void mzm_gemm_pack_nt(uint16_t *panel, const void *rows, size_t stride, int32_t n, int32_t k, int32_t depth);
void mzm_gemm_pack_nn(uint16_t *panel, const void *rows, size_t stride, int32_t n, int32_t k, int32_t depth);

/* The product of m positions and a panel, compiled for its shape, with what each of n_ranks callers at a time needs.
 * MZM_EUNSUPPORTED where this CPU or this oneDNN has no fast kernel for it. -> mzm_gemm_free */
typedef struct mzm_gemm mzm_gemm;
mzm_status mzm_gemm_create(mzm_gemm **out, int32_t m, int32_t k, int n_ranks, mzm_err *err);
void       mzm_gemm_free(mzm_gemm *g);
/* c[m, MZM_GEMM_COLS] = a[m, k] * panel, sums in f32. */
mzm_status mzm_gemm_run(mzm_gemm *g, int rank, float *c, const void *a, const void *panel, mzm_err *err);

/* What oneDNN itself can do, to be measured against: the whole product c[m, n] = a[m, k] * weights, all bf16 or all f32
 * but c, with the weights in the order it likes best (whichever: mzm_gemm_weight_bytes of them) and as many threads as
 * OpenMP is set to. One caller, rank 0. */
mzm_status mzm_gemm_create_whole(mzm_gemm **out, int32_t m, int32_t n, int32_t k, bool bf16, mzm_err *err);
size_t     mzm_gemm_weight_bytes(const mzm_gemm *g);

#endif
