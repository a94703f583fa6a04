/* matmul.c - products of activations with weight matrices, split over the team by output. Row kernels serve up to
 * MZM_MAX_POS positions; prefill chunks go through oneDNN (matmul_gemm.c). */
#include "model/state.h"

#define ROW_GRAIN 16 /* rows a thread takes at once: whole register tiles */

void mzm_matmul(mzm_state *s, const mzm_matrix *m, const int32_t *rows, int32_t n_rows, const float *x, float *y,
		size_t ldy, int32_t n_pos, mzm_team *team, int rank, int32_t *begin, int32_t *end)
{
	bool gemm = n_pos > MZM_MAX_POS;
	mzm_team_range(n_rows, gemm ? MZM_GEMM_ROWS : ROW_GRAIN, rank, mzm_team_size(team), begin, end);
	if (gemm) {
		mzm_gemm_rows(s, m, x, y, ldy, n_pos, rank, *begin, *end);
		return;
	}
	mzm_rows_job job = {
		.dtype = m->dtype, .w = m->w, .stride = m->stride, .rows = rows, .n_rows = n_rows, .n_cols = m->n_cols,
		.x = x, .ldx = (size_t)m->n_cols, .n_pos = n_pos, .y = y, .ldy = ldy,
	};
	if (*begin < *end)
		s->kern->rows(&job, *begin, *end);
}

void mzm_matmul_down(mzm_state *s, const mzm_matrix *m, const int32_t *rows, int32_t n_rows, const float *a, size_t lda,
		     float *y, int32_t n_pos, mzm_team *team, int rank, int32_t *begin, int32_t *end)
{
	mzm_team_range(m->n_cols, MZM_COL_GRAIN, rank, mzm_team_size(team), begin, end);
	if (n_pos > MZM_MAX_POS) {
		mzm_gemm_down(s, m, a, lda, y, n_pos, rank, *begin, *end);
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
