/* attention.c - grouped-query attention with rotary positions, softmax over the KV of the session.
 *
 * Query heads that share a KV head, at all positions of the pass, share one walk over its keys and one over its values:
 * both are matrices with a row a token, so the row kernels do the work, in their fixed order. A position sees the
 * tokens up to its own; the weights of those behind are zeros, which add nothing. So a row does not depend on how many
 * positions share the pass. */
#include <math.h>
#include <string.h>

#include "model/state.h"

/* Rotates queries and keys of the pass and moves keys and values into the KV: this rank's (position, head) pairs. */
static void store_kv(mzm_state *s, int32_t layer, mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	int32_t hd = cfg->head_dim, begin, end;
	float scale = 1.0f / sqrtf((float)hd);
	mzm_team_range(s->pass->n_pos * cfg->n_kv_heads, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i++) {
		int32_t p = i / cfg->n_kv_heads, head = i % cfg->n_kv_heads;
		size_t at = (size_t)i * (size_t)hd;
		s->kern->rope(s->k + at, s->rope + (size_t)p * (size_t)hd, hd);
		s->kern->narrow(mzm_kv_k(s->kv, layer, head, s->pos0 + p), s->k + at, s->kv->type, hd);
		s->kern->narrow(mzm_kv_v(s->kv, layer, head, s->pos0 + p), s->v + at, s->kv->type, hd);
	}
	mzm_team_range(s->pass->n_pos * cfg->n_heads, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i++) {
		float *q = s->q + (size_t)i * (size_t)hd;
		s->kern->rope(q, s->rope + (size_t)(i / cfg->n_heads) * (size_t)hd, hd);
		for (int32_t c = 0; c < hd; c++)
			q[c] *= scale;
	}
	mzm_team_barrier(team, rank);
}

/* Rows of queries that one KV head serves, counted over positions and then over its query heads. */
typedef struct q_rows {
	int32_t kv_head, group;
	int32_t first, n;
} q_rows;

static size_t q_at(const mzm_config *cfg, const q_rows *r, int32_t i)
{
	int32_t p = (r->first + i) / r->group, head = r->kv_head * r->group + (r->first + i) % r->group;
	return ((size_t)p * (size_t)cfg->n_heads + (size_t)head) * (size_t)cfg->head_dim;
}

/* score[i, t] = softmax of query row i over the tokens it sees, zero behind them. Returns the last row's tokens. */
static int32_t attend_keys(mzm_state *s, int32_t layer, const q_rows *r, float *score, char *packed)
{
	const mzm_config *cfg = &s->w->cfg;
	mzm_kv *kv = s->kv;
	size_t stride = mzm_pack_stride(s->kern, kv->type, cfg->head_dim), ld = (size_t)s->n_ctx;
	int32_t n_tok = s->pos0 + (r->first + r->n - 1) / r->group + 1;
	for (int32_t i = 0; i < r->n; i++)
		s->kern->pack(packed + (size_t)i * stride, s->q + q_at(cfg, r, i), kv->type, cfg->head_dim);
	mzm_rows_job job = {
		.dtype = kv->type, .w = mzm_kv_k(kv, layer, r->kv_head, 0), .stride = kv->row_bytes, .n_rows = n_tok,
		.n_cols = cfg->head_dim, .x = packed, .ldx = stride, .n_pos = r->n, .y = score, .ldy = ld,
	};
	s->kern->rows(&job, 0, n_tok);
	for (int32_t i = 0; i < r->n; i++) {
		int32_t seen = s->pos0 + (r->first + i) / r->group + 1;
		s->kern->softmax(score + (size_t)i * ld, seen);
		memset(score + (size_t)i * ld + seen, 0, (size_t)(n_tok - seen) * sizeof *score);
	}
	return n_tok;
}

static void attend(mzm_state *s, int32_t layer, const q_rows *r, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	size_t hd = (size_t)cfg->head_dim;
	float *score = s->score + (size_t)rank * MZM_ATT_ROWS * (size_t)s->n_ctx;
	float *value = s->value + (size_t)rank * MZM_ATT_ROWS * hd;
	int32_t n_tok = attend_keys(s, layer, r, score, s->packed + (size_t)rank * s->packed_len);
	mzm_accum_job job = {
		.dtype = s->kv->type, .w = mzm_kv_v(s->kv, layer, r->kv_head, 0), .stride = s->kv->row_bytes,
		.n_rows = n_tok, .n_cols = cfg->head_dim, .a = score, .lda = (size_t)s->n_ctx, .n_pos = r->n,
		.y = value, .ldy = hd, .scratch = s->sums + (size_t)rank * (MZM_ACCUM_SCRATCH / sizeof(float)),
	};
	memset(value, 0, (size_t)r->n * hd * sizeof *value);
	s->kern->accum(&job, 0, mzm_accum_units(job.dtype, job.n_cols));
	for (int32_t i = 0; i < r->n; i++)
		memcpy(s->att + q_at(cfg, r, i), value + (size_t)i * hd, hd * sizeof *value);
}

/* Shares out (KV head, rows of queries): as many rows together as leave every rank something to do. */
static void attend_all(mzm_state *s, int32_t layer, mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	int32_t group = cfg->n_heads / cfg->n_kv_heads, n_rows = s->pass->n_pos * group, step = MZM_ATT_ROWS;
	while (step > 1 && (n_rows + step - 1) / step * cfg->n_kv_heads < mzm_team_size(team))
		step /= 2;
	int32_t n_tiles = (n_rows + step - 1) / step, begin, end;
	mzm_team_range(n_tiles * cfg->n_kv_heads, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i++) {
		q_rows r = {.kv_head = i / n_tiles, .group = group, .first = i % n_tiles * step};
		r.n = n_rows - r.first < step ? n_rows - r.first : step;
		attend(s, layer, &r, rank);
	}
	mzm_team_barrier(team, rank);
}

/* y[n_pos, rows of m] = x times m. */
static void project(mzm_state *s, const mzm_matrix *m, mzm_acts *x, float *y, mzm_after_fn after, mzm_team *team,
		    int rank)
{
	mzm_product p = {.m = m, .n_rows = m->n_rows, .x = x, .y = y, .ldy = (size_t)m->n_rows,
			 .n_pos = s->pass->n_pos, .after = after};
	mzm_matmul(s, &p, team, rank);
}

void mzm_attention(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	mzm_acts h = {.x = s->h}, att = {.x = s->att};
	mzm_norm(s, s->h, s->x, l->attn_norm, s->pass->n_pos, team, rank);
	project(s, &l->wq, &h, s->q, NULL, team, rank);
	project(s, &l->wk, &h, s->k, NULL, team, rank);
	project(s, &l->wv, &h, s->v, NULL, team, rank);
	mzm_team_barrier(team, rank);
	store_kv(s, layer, team, rank);
	attend_all(s, layer, team, rank);
	project(s, &l->wo, &att, s->proj, mzm_add_residual, team, rank);
	mzm_team_barrier(team, rank);
}
