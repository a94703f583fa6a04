/* attention.c - grouped-query attention with rotary positions, softmax over the KV of the session.
 *
 * One (position, head) pair is computed by one thread from start to end: scores, softmax and the sum
 * of values in order of position. So a row does not depend on how many positions share the pass. */
#include "model/state.h"

#include <math.h>
#include <string.h>

/* Rotates keys of the pass and moves keys and values into the KV: this rank's (position, head) pairs. */
static void store_kv(mzm_state *s, int32_t layer, mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	int32_t hd = cfg->head_dim, begin, end;
	mzm_team_range(s->pass->n_pos * cfg->n_kv_heads, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i++) {
		int32_t p = i / cfg->n_kv_heads, head = i % cfg->n_kv_heads;
		size_t at = (size_t)i * (size_t)hd;
		s->kern->rope(s->k + at, s->rope + (size_t)p * (size_t)hd, hd);
		memcpy(mzm_kv_k(s->kv, layer, head, s->pos0 + p), s->k + at, (size_t)hd * sizeof(float));
		memcpy(mzm_kv_v(s->kv, layer, head, s->pos0 + p), s->v + at, (size_t)hd * sizeof(float));
	}
	mzm_team_barrier(team, rank);
}

static void attend(mzm_state *s, int32_t layer, int32_t p, int32_t head, float *score)
{
	const mzm_config *cfg = &s->w->cfg;
	int32_t hd = cfg->head_dim, n = s->pos0 + p + 1;
	int32_t kv_head = head / (cfg->n_heads / cfg->n_kv_heads);
	size_t at = ((size_t)p * (size_t)cfg->n_heads + (size_t)head) * (size_t)hd;
	float *q = s->q + at, *out = s->att + at, scale = 1.0f / sqrtf((float)hd);
	const float *k = mzm_kv_k(s->kv, layer, kv_head, 0), *v = mzm_kv_v(s->kv, layer, kv_head, 0);

	s->kern->rope(q, s->rope + (size_t)p * (size_t)hd, hd);
	for (int32_t t = 0; t < n; t++)
		score[t] = s->kern->dot(q, k + (size_t)t * (size_t)hd, hd) * scale;
	s->kern->softmax(score, n);
	memset(out, 0, (size_t)hd * sizeof *out);
	for (int32_t t = 0; t < n; t++)
		s->kern->axpy(out, score[t], v + (size_t)t * (size_t)hd, hd);
}

void mzm_attention(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	int32_t n_pos = s->pass->n_pos, begin, end;
	size_t q_dim = (size_t)l->wq.n_rows, kv_dim = (size_t)l->wk.n_rows;

	mzm_norm(s, s->h, s->x, l->attn_norm, n_pos, team, rank);
	mzm_matmul(s, &l->wq, NULL, l->wq.n_rows, s->h, s->q, q_dim, n_pos, team, rank, &begin, &end);
	mzm_matmul(s, &l->wk, NULL, l->wk.n_rows, s->h, s->k, kv_dim, n_pos, team, rank, &begin, &end);
	mzm_matmul(s, &l->wv, NULL, l->wv.n_rows, s->h, s->v, kv_dim, n_pos, team, rank, &begin, &end);
	mzm_team_barrier(team, rank);
	store_kv(s, layer, team, rank);

	float *score = s->score + (size_t)rank * (size_t)s->n_ctx;
	mzm_team_range(n_pos * cfg->n_heads, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i++)
		attend(s, layer, i / cfg->n_heads, i % cfg->n_heads, score);
	mzm_team_barrier(team, rank);

	mzm_matmul(s, &l->wo, NULL, l->wo.n_rows, s->att, s->proj, (size_t)cfg->dim, n_pos, team, rank, &begin, &end);
	mzm_add_residual(s, begin, end);
	mzm_team_barrier(team, rank);
}
