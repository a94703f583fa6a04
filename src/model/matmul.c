/* matmul.c - products of activations with weight matrices, split over the team by output.
 *
 * Row kernels serve up to MZM_MAX_POS positions. A prefill chunk goes through oneDNN instead, block
 * by block of fixed shape: weights of a block are widened to f32 into this rank's scratch, so there is
 * no second copy of the model, and results do not depend on the number of threads. */
#include "model/state.h"

#include <stdatomic.h>

#include "kern/gemm.h"

#define ROW_GRAIN 16 /* rows a thread takes at once: whole register tiles */
#define COL_GRAIN 64 /* columns: whole cache lines of y and of bf16 weights */

static const void *row_at(const mzm_matrix *m, int32_t row)
{
	return (const char *)m->w + (size_t)row * m->stride;
}

static void note_failure(mzm_state *s, mzm_status st)
{
	if (st != MZM_OK)
		atomic_store_explicit(&s->failed, (int)st, memory_order_relaxed);
}

static void gemm_rows(mzm_state *s, const mzm_matrix *m, const float *x, float *y, size_t ldy, int32_t n_pos, int rank,
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

void mzm_matmul(mzm_state *s, const mzm_matrix *m, const int32_t *rows, int32_t n_rows, const float *x, float *y,
		size_t ldy, int32_t n_pos, mzm_team *team, int rank, int32_t *begin, int32_t *end)
{
	bool gemm = n_pos > MZM_MAX_POS;
	mzm_team_range(n_rows, gemm ? MZM_GEMM_ROWS : ROW_GRAIN, rank, mzm_team_size(team), begin, end);
	if (gemm) {
		gemm_rows(s, m, x, y, ldy, n_pos, rank, *begin, *end);
		return;
	}
	mzm_rows_job job = {
		.dtype = m->dtype, .w = m->w, .stride = m->stride, .rows = rows, .n_rows = n_rows, .n_cols = m->n_cols,
		.x = x, .ldx = (size_t)m->n_cols, .n_pos = n_pos, .y = y, .ldy = ldy,
	};
	if (*begin < *end)
		s->kern->rows(&job, *begin, *end);
}

static void gemm_down(mzm_state *s, const mzm_matrix *m, const float *a, size_t lda, float *y, int32_t n_pos, int rank,
		      int32_t begin, int32_t end)
{
	float *wide = s->wide + (size_t)rank * s->wide_len; /* [MZM_GEMM_DEPTH, COL_GRAIN] */
	size_t es = mzm_dtype_bytes(m->dtype), ldy = (size_t)m->n_cols;
	for (int32_t c = begin; c < end; c += COL_GRAIN) {
		int32_t n = end - c < COL_GRAIN ? end - c : COL_GRAIN;
		for (int32_t j = 0; j < m->n_rows; j += MZM_GEMM_DEPTH) {
			int32_t k = m->n_rows - j < MZM_GEMM_DEPTH ? m->n_rows - j : MZM_GEMM_DEPTH;
			for (int32_t i = 0; i < k; i++)
				s->kern->to_f32(wide + (size_t)i * COL_GRAIN,
						(const char *)row_at(m, j + i) + (size_t)c * es, m->dtype, n);
			note_failure(s, mzm_gemm_nn(y + c, ldy, a + j, lda, wide, COL_GRAIN, n_pos, n, k, j > 0, NULL));
		}
	}
}

void mzm_matmul_down(mzm_state *s, const mzm_matrix *m, const int32_t *rows, int32_t n_rows, const float *a, size_t lda,
		     float *y, int32_t n_pos, mzm_team *team, int rank, int32_t *begin, int32_t *end)
{
	mzm_team_range(m->n_cols, COL_GRAIN, rank, mzm_team_size(team), begin, end);
	if (n_pos > MZM_MAX_POS) {
		gemm_down(s, m, a, lda, y, n_pos, rank, *begin, *end);
		return;
	}
	mzm_accum_job job = {
		.dtype = m->dtype, .w = m->w, .stride = m->stride, .rows = rows, .n_rows = n_rows, .n_cols = m->n_cols,
		.a = a, .lda = lda, .n_pos = n_pos, .y = y, .ldy = (size_t)m->n_cols,
	};
	if (*begin < *end)
		s->kern->accum(&job, *begin, *end);
}

void mzm_norm(mzm_state *s, float *h, const float *x, const float *weight, int32_t n_pos, mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	size_t dim = (size_t)cfg->dim;
	int32_t begin, end;
	mzm_team_range(n_pos, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t p = begin; p < end; p++)
		s->kern->rmsnorm(h + (size_t)p * dim, x + (size_t)p * dim, weight, cfg->norm_eps, cfg->dim);
	mzm_team_barrier(team, rank);
}

void mzm_add_residual(mzm_state *s, int32_t begin, int32_t end)
{
	size_t dim = (size_t)s->w->cfg.dim;
	for (int32_t p = 0; p < s->pass->n_pos && begin < end; p++)
		s->kern->add(s->x + (size_t)p * dim + begin, s->proj + (size_t)p * dim + begin, end - begin);
}
