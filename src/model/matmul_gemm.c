/* matmul_gemm.c - products of a prefill chunk through oneDNN, block by block of fixed shape: weights of a block are
 * widened to f32 into this rank's scratch, so there is no second copy of the model, and results do not depend on the
 * number of threads. */
#include <stdatomic.h>

#include "kern/gemm.h"
#include "model/state.h"

static const void *row_at(const mzm_matrix *m, int32_t row)
{
	return (const char *)m->w + (size_t)row * m->stride;
}

static void note_failure(mzm_state *s, mzm_status st)
{
	if (st != MZM_OK)
		atomic_store_explicit(&s->failed, (int)st, memory_order_relaxed);
}

void mzm_gemm_rows(mzm_state *s, const mzm_matrix *m, const float *x, float *y, size_t ldy, int32_t n_pos, int rank,
		      int32_t begin, int32_t end)
{
	float *wide = s->wide + (size_t)rank * s->wide_len; /* [MZM_GEMM_ROWS, n_cols] */
	for (int32_t r = begin; r < end; r += MZM_GEMM_ROWS) {
		int32_t n = end - r < MZM_GEMM_ROWS ? end - r : MZM_GEMM_ROWS;
		for (int32_t i = 0; i < n; i++)
			s->kern->to_f32(wide + (size_t)i * (size_t)m->n_cols, row_at(m, r + i), m->dtype, m->n_cols);
		note_failure(s, mzm_gemm_nt(y + r, ldy, x, (size_t)m->n_cols, wide, (size_t)m->n_cols, n_pos, n,
					    m->n_cols, NULL));
	}
}

void mzm_gemm_down(mzm_state *s, const mzm_matrix *m, const float *a, size_t lda, float *y, int32_t n_pos, int rank,
		      int32_t begin, int32_t end)
{
	float *wide = s->wide + (size_t)rank * s->wide_len; /* [MZM_GEMM_DEPTH, MZM_COL_GRAIN] */
	size_t es = mzm_dtype_bytes(m->dtype), ldy = (size_t)m->n_cols;
	for (int32_t c = begin; c < end; c += MZM_COL_GRAIN) {
		int32_t n = end - c < MZM_COL_GRAIN ? end - c : MZM_COL_GRAIN;
		for (int32_t j = 0; j < m->n_rows; j += MZM_GEMM_DEPTH) {
			int32_t k = m->n_rows - j < MZM_GEMM_DEPTH ? m->n_rows - j : MZM_GEMM_DEPTH;
			for (int32_t i = 0; i < k; i++)
				s->kern->to_f32(wide + (size_t)i * MZM_COL_GRAIN,
						(const char *)row_at(m, j + i) + (size_t)c * es, m->dtype, n);
			note_failure(s, mzm_gemm_nn(y + c, ldy, a + j, lda, wide, MZM_COL_GRAIN, n_pos, n, k, j > 0, NULL));
		}
	}
}
