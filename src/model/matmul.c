/* matmul.c - products of activations with weight matrices, split over the team by output. Row kernels serve up to
 * MZM_MAX_POS positions; prefill chunks go through oneDNN (matmul_gemm.c). */
#include "model/state.h"

#define ROW_GRAIN 16 /* rows a thread takes at once: whole register tiles */

static void pack(mzm_state *s, const mzm_matrix *m, mzm_acts *x, char *packed, size_t stride, int32_t n_pos)
{
	if (x->is_packed && x->form == m->dtype)
		return;
	for (int32_t p = 0; p < n_pos; p++)
		s->kern->pack(packed + (size_t)p * stride, x->x + (size_t)p * (size_t)m->n_cols, m->dtype, m->n_cols);
	x->is_packed = true;
	x->form = m->dtype;
}

void mzm_matmul(mzm_state *s, const mzm_matrix *m, const int32_t *rows, int32_t n_rows, mzm_acts *x, float *y,
		size_t ldy, int32_t n_pos, mzm_team *team, int rank, int32_t *begin, int32_t *end)
{
	if (n_pos > MZM_MAX_POS) {
		mzm_gemm_rows(s, m, x, y, ldy, team, rank, begin, end);
		return;
	}
	mzm_team_range(n_rows, ROW_GRAIN, rank, mzm_team_size(team), begin, end);
	if (*begin >= *end)
		return;
	char *packed = s->packed + (size_t)rank * s->packed_len;
	size_t stride = mzm_pack_stride(s->kern, m->dtype, m->n_cols);
	pack(s, m, x, packed, stride, n_pos);
	mzm_rows_job job = {
		.dtype = m->dtype, .w = m->w, .stride = m->stride, .rows = rows, .n_rows = n_rows, .n_cols = m->n_cols,
		.x = packed, .ldx = stride, .n_pos = n_pos, .y = y, .ldy = ldy,
	};
	s->kern->rows(&job, *begin, *end);
}

void mzm_matmul_down(mzm_state *s, const mzm_matrix *m, const int32_t *rows, int32_t n_rows, const float *a, size_t lda,
		     mzm_team *team, int rank)
{
	int32_t n_pos = s->pass->n_pos, begin, end;
	if (n_pos > MZM_MAX_POS) {
		mzm_gemm_down(s, m, a, lda, team, rank);
		return;
	}
	mzm_team_range(mzm_accum_units(m->dtype, m->n_cols), 1, rank, mzm_team_size(team), &begin, &end);
	mzm_accum_job job = {
		.dtype = m->dtype, .w = m->w, .stride = m->stride, .rows = rows, .n_rows = n_rows, .n_cols = m->n_cols,
		.a = a, .lda = lda, .n_pos = n_pos, .y = s->x, .ldy = (size_t)m->n_cols,
		.scratch = s->sums + (size_t)rank * (MZM_ACCUM_SCRATCH / sizeof(float)),
	};
	if (begin < end)
		s->kern->accum(&job, begin, end);
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
