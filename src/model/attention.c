/* attention.c - grouped-query attention with rotary positions, softmax over the KV of the session.
 *
 * Query heads that share a KV head, at all positions of the pass, share one walk over its keys and one over its values:
 * both are matrices with a row a token, so the row kernels do the work, in their fixed order. A position sees the
 * tokens up to its own, in a local layer the last few of them; the weights of the others are zeros, which add nothing.
 * So a row does not depend on how many positions share the pass.
 *
 * Linear attention shares the projections and is in dijiang.c.
 *
 * Nodes of a tree see different tokens. Each walks alone, over a list of the rows that its own line of tokens has: what
 * the kernels compute over a list is what they compute over the same rows side by side. */
#include <math.h>
#include <string.h>

#include "model/state.h"

#define TOKEN_STEP 64 /* walks over tokens begin at multiples of it, so that kernels group them alike */

void mzm_turn_head(const mzm_state *s, float *head, const float *norm, int table, int32_t p)
{
	const mzm_config *cfg = &s->w->cfg;
	const float *cos_sin = s->rope + ((size_t)table * (size_t)s->max_pos + (size_t)p) * (size_t)s->rope_dim;
	if (norm)
		s->kern->rmsnorm(head, head, norm, cfg->norm_eps, cfg->head_dim);
	if (s->rope_dim > 0)
		s->kern->rope(head, cos_sin, s->rope_dim);
}

/* Rotates queries and keys of the pass and moves keys and values into the KV: this rank's (position, head) pairs. */
static void store_kv(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	int table = cfg->rope_local_theta != 0 && mzm_config_is_local(cfg, layer);
	int32_t hd = cfg->head_dim, begin, end;
	float scale = cfg->attn_scale != 0 ? (float)cfg->attn_scale : 1.0f / sqrtf((float)hd);
	mzm_team_range(s->pass->n_pos * cfg->n_kv_heads, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i++) {
		int32_t p = i / cfg->n_kv_heads, head = i % cfg->n_kv_heads;
		size_t at = (size_t)i * (size_t)hd;
		mzm_turn_head(s, s->k + at, l->k_norm, table, p);
		s->kern->narrow(mzm_kv_k(s->kv, layer, head, s->pos0 + p), s->k + at, s->kv->type, hd);
		s->kern->narrow(mzm_kv_v(s->kv, layer, head, s->pos0 + p), s->v + at, s->kv->type, hd);
	}
	mzm_team_range(s->pass->n_pos * cfg->n_heads, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i++) {
		float *q = s->q + (size_t)i * (size_t)hd;
		mzm_turn_head(s, q, l->q_norm, table, i / cfg->n_heads);
		for (int32_t c = 0; c < hd; c++)
			q[c] *= scale;
	}
	mzm_team_barrier(team, rank);
}

/* Rows of queries that one KV head serves, counted over positions and then over its query heads. */
typedef struct q_rows {
	int32_t kv_head, group;
	int32_t first, n;
	int32_t window; /* tokens that a position sees */
	const int32_t *slots; /* where the tokens are, from the first that is walked over; NULL: in order */
} q_rows;

static int32_t position_of(const mzm_state *s, const q_rows *r, int32_t i)
{
	return mzm_pass_position(s, (r->first + i) / r->group);
}

static int32_t first_seen(const q_rows *r, int32_t pos)
{
	return pos < r->window ? 0 : pos - r->window + 1;
}

static size_t q_at(const mzm_config *cfg, const q_rows *r, int32_t i)
{
	int32_t p = (r->first + i) / r->group, head = r->kv_head * r->group + (r->first + i) % r->group;
	return ((size_t)p * (size_t)cfg->n_heads + (size_t)head) * (size_t)cfg->head_dim;
}

/* The KV rows of the tokens from t0 on that node p of the pass sees, its own the last. */
static void list_path(const mzm_state *s, int32_t p, int32_t t0, int32_t *slots)
{
	const mzm_tree *tree = s->pass->tree;
	int32_t node = s->pos0 - tree->root + p, t = tree->root + tree->depth[node];
	for (; t >= t0 && t >= tree->root; t--, node = tree->parent[node])
		slots[t - t0] = tree->root + node;
	for (; t >= t0; t--)
		slots[t - t0] = t;
}

/* score[i, t - t0] = softmax of query row i over the tokens t it sees, zero elsewhere. Returns the tokens walked over,
 * which begin at t0. */
static int32_t attend_keys(mzm_state *s, int32_t layer, const q_rows *r, int32_t t0, float *score, char *packed)
{
	const mzm_config *cfg = &s->w->cfg;
	mzm_kv *kv = s->kv;
	size_t stride = mzm_pack_stride(s->kern, kv->type, cfg->head_dim), ld = (size_t)s->n_ctx;
	int32_t n_tok = position_of(s, r, r->n - 1) + 1 - t0;
	for (int32_t i = 0; i < r->n; i++)
		s->kern->pack(packed + (size_t)i * stride, s->q + q_at(cfg, r, i), kv->type, cfg->head_dim);
	mzm_rows_job job = {
		.dtype = kv->type, .w = mzm_kv_k(kv, layer, r->kv_head, r->slots ? 0 : t0), .stride = kv->row_bytes,
		.rows = r->slots, .n_rows = n_tok, .n_cols = cfg->head_dim, .x = packed, .ldx = stride, .n_pos = r->n,
		.y = score, .ldy = ld,
	};
	s->kern->rows(&job, 0, n_tok);
	for (int32_t i = 0; i < r->n; i++) {
		float *row = score + (size_t)i * ld;
		int32_t pos = position_of(s, r, i), lo = first_seen(r, pos) - t0, seen = pos + 1 - t0;
		if (cfg->attn_softcap != 0)
			s->kern->softcap(row + lo, (float)cfg->attn_softcap, seen - lo);
		s->kern->softmax(row + lo, seen - lo);
		memset(row, 0, (size_t)lo * sizeof *row);
		memset(row + seen, 0, (size_t)(n_tok - seen) * sizeof *row);
	}
	return n_tok;
}

static void attend(mzm_state *s, int32_t layer, q_rows *r, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	size_t hd = (size_t)cfg->head_dim;
	float *score = s->score + (size_t)rank * MZM_ATT_ROWS * (size_t)s->n_ctx;
	float *value = s->value + (size_t)rank * MZM_ATT_ROWS * hd;
	int32_t t0 = first_seen(r, position_of(s, r, 0)) / TOKEN_STEP * TOKEN_STEP;
	if (s->pass->tree) {
		int32_t *slots = s->slots + (size_t)rank * (size_t)s->n_ctx;
		list_path(s, r->first / r->group, t0, slots);
		r->slots = slots;
	}
	int32_t n_tok = attend_keys(s, layer, r, t0, score, s->packed + (size_t)rank * s->packed_len);
	mzm_accum_job job = {
		.dtype = s->kv->type, .w = mzm_kv_v(s->kv, layer, r->kv_head, r->slots ? 0 : t0),
		.stride = s->kv->row_bytes, .rows = r->slots, .n_rows = n_tok, .n_cols = cfg->head_dim, .a = score,
		.lda = (size_t)s->n_ctx, .n_pos = r->n, .y = value, .ldy = hd,
		.scratch = s->sums + (size_t)rank * (MZM_ACCUM_SCRATCH / sizeof(float)),
	};
	memset(value, 0, (size_t)r->n * hd * sizeof *value);
	s->kern->accum(&job, 0, mzm_accum_units(job.dtype, job.n_cols));
	for (int32_t i = 0; i < r->n; i++)
		memcpy(s->att + q_at(cfg, r, i), value + (size_t)i * hd, hd * sizeof *value);
}

/* Shares out (KV head, rows of queries): as many rows together as leave every rank something to do; of nodes of a tree
 * those of one. */
static void attend_all(mzm_state *s, int32_t layer, mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	int32_t group = cfg->n_heads / cfg->n_kv_heads, step = MZM_ATT_ROWS;
	int32_t n_walks = s->pass->tree ? s->pass->n_pos : 1, n_rows = s->pass->n_pos / n_walks * group;
	while (step > 1 && n_walks * ((n_rows + step - 1) / step) * cfg->n_kv_heads < mzm_team_size(team))
		step /= 2;
	int32_t n_tiles = (n_rows + step - 1) / step, n_shared = n_walks * n_tiles, begin, end;
	int32_t window = mzm_config_is_local(cfg, layer) ? cfg->window : INT32_MAX;
	mzm_team_range(n_shared * cfg->n_kv_heads, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i++) {
		int32_t walk = i % n_shared / n_tiles, first = i % n_tiles * step;
		q_rows r = {.kv_head = i / n_shared, .group = group, .first = walk * n_rows + first, .window = window};
		r.n = n_rows - first < step ? n_rows - first : step;
		attend(s, layer, &r, rank);
	}
	mzm_team_barrier(team, rank);
}

/* What a projection is computed from: all inputs, or a list. */
typedef struct source {
	mzm_acts       x;
	const int32_t *rows; /* [n] ascending inputs, whose values alone are in x; NULL: all */
	int32_t        n;
} source;

/* Inputs that are larger than the threshold at one of the positions, for this rank: nobody need wait for another. */
static source large_inputs(mzm_state *s, const float *x, int32_t n, float threshold, int rank)
{
	int32_t n_pos = s->pass->n_pos, n_large = 0;
	int32_t *rows = s->inputs + (size_t)rank * (size_t)s->input_len;
	float *values = s->values + (size_t)rank * MZM_MAX_TREE_WIDTH * (size_t)s->input_len;
	for (int32_t i = 0; i < n; i++) {
		bool large = false;
		for (int32_t p = 0; p < n_pos; p++) /* NaN counts as large */
			large = large || !(fabsf(x[(size_t)p * (size_t)n + (size_t)i]) <= threshold);
		rows[n_large] = i;
		n_large += large;
	}
	for (int32_t p = 0; p < n_pos; p++)
		for (int32_t i = 0; i < n_large; i++)
			values[(size_t)p * (size_t)n + (size_t)i] = x[(size_t)p * (size_t)n + (size_t)rows[i]];
	return (source){{.x = values}, rows, n_large};
}

/* m: one of the matrices that read x [n_pos, n]. of_o: x is the attention's output. */
static source source_of(mzm_state *s, const mzm_matrix *m, int32_t layer, bool of_o, const float *x, int rank)
{
	const mzm_pass *pass = s->pass;
	int32_t n = m->by_input ? m->n_rows : m->n_cols;
	if (pass->see_attention && rank == 0)
		pass->see_attention(pass->see_ctx, layer, of_o, x, pass->n_pos, n);
	if (!pass->sparse || !pass->sparse->attn_threshold || !m->by_input || pass->n_pos > MZM_MAX_TREE_WIDTH)
		return (source){{.x = x}, NULL, n};
	return large_inputs(s, x, n, pass->sparse->attn_threshold[2 * layer + of_o], rank);
}

/* y[n_pos, outputs of m] = from times m, and the bias if there is one. */
static void project(mzm_state *s, const mzm_matrix *m, const float *bias, source *from, float *y, mzm_after_fn after,
		    mzm_team *team, int rank)
{
	mzm_product p = {.m = m, .rows = from->rows, .n_rows = m->by_input ? from->n : m->n_rows, .x = &from->x, .y = y,
			 .ldy = (size_t)(m->by_input ? m->n_cols : m->n_rows), .n_pos = s->pass->n_pos, .bias = bias,
			 .after = after};
	mzm_matmul(s, &p, team, rank);
	if (rank == 0 && m->by_input)
		s->attn_skipped += (double)(m->n_rows - from->n) * mzm_row_size(m, s->pass->draft);
}

void mzm_attention(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	int32_t n_pos = s->pass->n_pos;
	mzm_norm(s, s->h, s->x, l->attn_norm, l->attn_norm_bias, n_pos, team, rank);
	source h = source_of(s, &l->wq, layer, false, s->h, rank);
	project(s, &l->wq, l->bq, &h, s->q, NULL, team, rank);
	project(s, &l->wk, l->bk, &h, s->k, NULL, team, rank);
	project(s, &l->wv, l->bv, &h, s->v, NULL, team, rank);
	if (l->wg.n_rows > 0)
		project(s, &l->wg, NULL, &h, s->dijiang.gate, NULL, team, rank);
	mzm_team_barrier(team, rank);
	if (s->w->cfg.parallel == MZM_PARALLEL) /* the FFN reads x as it is now */
		mzm_norm(s, s->h, s->x, l->ffn_norm, l->ffn_norm_bias, n_pos, team, rank);
	if (mzm_config_is_linear(&s->w->cfg)) {
		mzm_linear_attention(s, l, layer, team, rank);
	} else {
		store_kv(s, l, layer, team, rank);
		attend_all(s, layer, team, rank);
	}
	source att = source_of(s, &l->wo, layer, true, s->att, rank);
	project(s, &l->wo, l->bo, &att, s->proj, l->attn_post_norm ? NULL : mzm_add_residual, team, rank);
	mzm_team_barrier(team, rank);
	if (l->attn_post_norm)
		mzm_join_normed(s, s->proj, l->attn_post_norm, team, rank);
}
