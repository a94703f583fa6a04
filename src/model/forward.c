/* forward.c - see forward.h: embedding, layers, output head; and the state's layout. */
#include "model/state.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/carve.h"

/* Radians per position of each rotated pair. Llama 3 stretches the slow ones (Llama 3.1 report); "longrope" has a
 * divisor for each (arXiv 2402.13753), another set where the context is longer than the one trained with. */
static void rope_frequencies(double *inv_freq, const mzm_config *cfg, int32_t n_ctx, bool local)
{
	const double two_pi = 6.283185307179586476925;
	int32_t n_dims = mzm_config_rope_dim(cfg);
	mzm_rope_kind kind = local ? MZM_ROPE_PLAIN : cfg->rope;
	const float *divisor = n_ctx > cfg->rope_orig_ctx ? cfg->rope_long : cfg->rope_short;
	for (int32_t i = 0; i < n_dims / 2; i++) {
		double f = pow(local ? cfg->rope_local_theta : cfg->rope_theta, -2.0 * i / n_dims);
		if (kind == MZM_ROPE_LLAMA3) {
			double turns = cfg->rope_orig_ctx * f / two_pi; /* within the original context */
			double smooth = (turns - cfg->rope_low_freq) / (cfg->rope_high_freq - cfg->rope_low_freq);
			smooth = smooth < 0 ? 0 : smooth > 1 ? 1 : smooth;
			f = (1 - smooth) * f / cfg->rope_factor + smooth * f;
		} else if (kind == MZM_ROPE_LINEAR) {
			f /= cfg->rope_factor;
		} else if (kind == MZM_ROPE_LONG) {
			f /= (double)divisor[i];
		}
		inv_freq[i] = f;
	}
}

static int n_rope_tables(const mzm_config *cfg)
{
	return cfg->rope_local_theta != 0 ? 2 : 1;
}

/* Bytes that a position of n_cols activations takes, whatever the type of the weights. */
static size_t widest_pack(const mzm_kern *kern, int32_t n_cols)
{
	size_t most = 0;
	for (int d = 0; d < MZM_N_DTYPES; d++) {
		size_t n = mzm_pack_stride(kern, (mzm_dtype)d, n_cols);
		most = n > most ? n : most;
	}
	return most;
}

static void state_layout(mzm_state *s, int n_ranks, mzm_carve *c)
{
	const mzm_config *cfg = &s->w->cfg;
	size_t max_pos = (size_t)s->max_pos, dim = (size_t)cfg->dim, n_ffn = (size_t)cfg->n_ffn;
	size_t q_dim = (size_t)cfg->n_heads * (size_t)cfg->head_dim;
	size_t kv_dim = (size_t)cfg->n_kv_heads * (size_t)cfg->head_dim;
	size_t widest = dim > q_dim ? dim : q_dim;
	s->x = MZM_CARVE(c, float, max_pos * dim);
	s->h = MZM_CARVE(c, float, max_pos * dim);
	s->q = MZM_CARVE(c, float, max_pos * q_dim);
	s->k = MZM_CARVE(c, float, max_pos * kv_dim);
	s->v = MZM_CARVE(c, float, max_pos * kv_dim);
	s->att = MZM_CARVE(c, float, max_pos * q_dim);
	s->proj = MZM_CARVE(c, float, max_pos * dim);
	s->gate = MZM_CARVE(c, float, max_pos * n_ffn);
	s->up = MZM_CARVE(c, float, max_pos * n_ffn);
	if (cfg->post_norm)
		s->post = MZM_CARVE(c, float, max_pos * dim);
	s->rope_dim = mzm_config_rope_dim(cfg);
	s->rope = MZM_CARVE(c, float, (size_t)n_rope_tables(cfg) * max_pos * (size_t)s->rope_dim);
	s->inv_freq = MZM_CARVE(c, double, n_rope_tables(cfg) * s->rope_dim / 2);
	s->walk = mzm_config_is_linear(cfg) ? MZM_KV_LAG + MZM_KV_STEP : s->n_ctx;
	s->score = MZM_CARVE(c, float, (size_t)n_ranks * MZM_ATT_ROWS * (size_t)s->walk);
	s->value = MZM_CARVE(c, float, (size_t)n_ranks * MZM_ATT_ROWS * (size_t)cfg->head_dim);
	s->packed_len = MZM_MAX_POS * widest_pack(s->kern, (int32_t)widest);
	s->packed = mzm_carve_take(c, (size_t)n_ranks, s->packed_len);
	s->sums = MZM_CARVE(c, float, (size_t)n_ranks * (MZM_ACCUM_SCRATCH / sizeof(float)));
	s->logits = MZM_CARVE(c, float, MZM_MAX_POS * (size_t)cfg->n_vocab);
	s->rows = MZM_CARVE(c, int32_t, n_ffn);
	s->at = MZM_CARVE(c, int32_t, n_ffn);
	s->sizes = MZM_CARVE(c, float, n_ffn);
	s->slots = MZM_CARVE(c, int32_t, (size_t)n_ranks * (size_t)s->walk);
	mzm_dijiang_layout(s, n_ranks, c);
	s->input_len = cfg->attn_by_input ? (int32_t)widest : 0;
	s->inputs = MZM_CARVE(c, int32_t, (size_t)n_ranks * (size_t)s->input_len);
	s->values = MZM_CARVE(c, float, (size_t)n_ranks * MZM_MAX_TREE_WIDTH * (size_t)s->input_len);
	mzm_gemm_layout(s, n_ranks, c);
	s->bytes = c->used;
}

static int32_t max_positions(int32_t n_ctx)
{
	return !mzm_gemm_available() ? MZM_MAX_POS : n_ctx < MZM_CHUNK_BIG ? MZM_CHUNK : MZM_CHUNK_BIG;
}

bool mzm_state_measure(size_t *bytes, const mzm_config *cfg, bool has_bf16, const mzm_kern *kern, int n_ranks,
		       int32_t n_ctx, mzm_dtype kv_type)
{
	mzm_weights w = {.cfg = *cfg};
	mzm_state s = {.w = &w, .kern = kern, .n_ctx = n_ctx, .max_pos = max_positions(n_ctx)};
	mzm_carve c = {0};
	size_t kv;
	mzm_gemm_shape(&s, has_bf16);
	state_layout(&s, n_ranks, &c);
	return !c.overflow && mzm_kv_measure(&kv, cfg, n_ctx, kv_type) && mzm_add_size(c.used, kv, bytes);
}

mzm_status mzm_state_create(mzm_state **out, const mzm_weights *w, const mzm_kern *kern, mzm_team *team, int32_t n_ctx,
			    mzm_dtype kv_type, mzm_err *err)
{
	mzm_status st;
	mzm_state *s;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&s, sizeof *s, "the session", err));
	s->w = w;
	s->kern = kern;
	s->team = team;
	s->n_ctx = n_ctx;
	s->max_pos = max_positions(n_ctx);
	MZM_TRY_OUT(mzm_gemm_start(s, err));
	mzm_carve c = {0};
	state_layout(s, mzm_team_size(team), &c);
	if (c.overflow)
		MZM_TRY_OUT(mzm_fail(err, MZM_EARG, "the session is larger than memory can be"));
	MZM_TRY_OUT(mzm_alloc_for(&s->block, c.used, "the scratch of a session", err));
#ifdef MZM_DEBUG
	memset(s->block, 0xff, c.used); /* NaN: whoever reads what nobody wrote is seen */
#endif
	c = (mzm_carve){.base = s->block};
	state_layout(s, mzm_team_size(team), &c);
	for (int i = 0; i < n_rope_tables(&w->cfg); i++)
		rope_frequencies(s->inv_freq + i * s->rope_dim / 2, &w->cfg, n_ctx, i > 0);
	mzm_dijiang_fill(s);
	MZM_TRY_OUT(mzm_kv_create(&s->kv, &w->cfg, n_ctx, kv_type, err));
	if (w->held_of)
		MZM_TRY_OUT(mzm_held_create(&s->held, &w->cfg, w->held_of, w->n_held, kern, err));
	*out = s;
	return MZM_OK;
out:
	mzm_state_free(s);
	return st;
}

void mzm_state_free(mzm_state *s)
{
	if (!s)
		return;
	mzm_kv_free(s->kv);
	mzm_held_free(s->held);
	mzm_gemm_stop(s);
	mzm_free(s->block);
	mzm_free(s);
}

mzm_kv *mzm_state_kv(mzm_state *s)
{
	return s->kv;
}

void mzm_state_watch(mzm_state *s, mzm_progress_fn on_span, void *user)
{
	s->on_span = on_span;
	s->user = user;
}

int32_t mzm_state_max_pos(const mzm_state *s)
{
	return s->max_pos;
}

uint64_t mzm_state_bytes_streamed(const mzm_state *s)
{
	return s->bytes_streamed;
}

size_t mzm_state_bytes(const mzm_state *s)
{
	return s->bytes + mzm_kv_bytes(s->kv);
}

/* Cosines and sines of a position of the pass, by table. */
static void rotations(mzm_state *s, int32_t p)
{
	const mzm_config *cfg = &s->w->cfg;
	double factor = cfg->rope == MZM_ROPE_LONG ? cfg->rope_attn_factor : 1;
	for (int t = 0; t < n_rope_tables(cfg); t++) {
		float *cos_sin = s->rope + ((size_t)t * (size_t)s->max_pos + (size_t)p) * (size_t)s->rope_dim;
		const double *inv_freq = s->inv_freq + t * s->rope_dim / 2;
		for (int32_t i = 0; i < s->rope_dim / 2; i++) {
			double angle = inv_freq[i] * mzm_pass_position(s, p), by = t == 0 ? factor : 1;
			cos_sin[2 * i] = (float)(by * cos(angle));
			cos_sin[2 * i + 1] = (float)(by * sin(angle));
		}
	}
}

/* Embeds this rank's share of the tokens and turns their positions into rotations. */
static void embed(mzm_state *s, mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	const mzm_matrix *m = &s->w->embed, *pos = &s->w->pos;
	float scale = cfg->embed_scale != 0 ? (float)cfg->embed_scale : 1.0f;
	int32_t begin, end;
	mzm_team_range(s->pass->n_pos, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t p = begin; p < end; p++) {
		float *x = s->x + (size_t)p * (size_t)cfg->dim;
		s->kern->to_f32(x, (const char *)m->w + (size_t)s->pass->ids[p] * m->stride, m->dtype, cfg->dim);
		for (int32_t i = 0; scale != 1.0f && i < cfg->dim; i++)
			x[i] *= scale;
		if (pos->n_rows > 0) { /* s->h is free yet */
			float *of_pos = s->h + (size_t)p * (size_t)cfg->dim;
			size_t at = (size_t)mzm_pass_position(s, p) * pos->stride;
			s->kern->to_f32(of_pos, (const char *)pos->w + at, pos->dtype, cfg->dim);
			s->kern->add(x, of_pos, cfg->dim);
		}
		rotations(s, p);
	}
	mzm_team_barrier(team, rank);
}

/* A streamed head that nobody asked for is passed over: the stream has one order. */
static void pass_over(mzm_state *s, const mzm_matrix *m, mzm_team *team, int rank)
{
	mzm_part part = {0};
	while (!m->w && mzm_next_part(s, m, &part, team, rank))
		;
}

static void cap_logits(mzm_state *s, const mzm_product *p, int32_t begin, int32_t end)
{
	for (int32_t i = 0; i < p->n_pos; i++)
		s->kern->softcap(p->y + (size_t)i * p->ldy + begin, (float)s->w->cfg.logit_softcap, end - begin);
}

static void output_head(mzm_state *s, mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	int32_t n = s->pass->n_rows;
	const float *x = s->x + (size_t)(s->pass->n_pos - n) * (size_t)cfg->dim;
	const mzm_matrix *head = s->pass->draft ? &s->w->draft_head : &s->w->head;
	mzm_acts h = {.x = s->h};
	if (n == 0) {
		pass_over(s, head, team, rank);
		return;
	}
	mzm_norm(s, s->h, x, s->w->out_norm, s->w->out_norm_bias, n, team, rank);
	mzm_product p = {.m = head, .n_rows = cfg->n_vocab, .x = &h, .y = s->logits, .ldy = (size_t)cfg->n_vocab,
			 .n_pos = n, .after = cfg->logit_softcap != 0 ? cap_logits : NULL};
	mzm_matmul(s, &p, team, rank);
}

static bool skips(const mzm_pass *pass, int32_t layer, bool ffn)
{
	return pass->skip && pass->skip[2 * layer + ffn];
}

static void run_layer(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	bool ffn = !skips(s->pass, layer, true);
	if (!skips(s->pass, layer, false))
		mzm_attention(s, l, layer, team, rank);
	else if (ffn && s->w->cfg.parallel != MZM_SERIAL) /* it would have made the FFN's input, too */
		mzm_norm(s, s->h, s->x, l->ffn_norm ? l->ffn_norm : l->attn_norm,
			 l->ffn_norm ? l->ffn_norm_bias : l->attn_norm_bias, s->pass->n_pos, team, rank);
	if (ffn)
		mzm_ffn(s, l, layer, team, rank);
}

static void forward_rank(void *ctx, mzm_team *team, int rank)
{
	mzm_state *s = ctx;
	const mzm_layer *layer = s->pass->draft ? s->w->draft : s->w->layer;
	embed(s, team, rank);
	for (int32_t l = 0; l < s->w->cfg.n_layers; l++)
		run_layer(s, &layer[l], l, team, rank);
	output_head(s, team, rank);
}

static double n_ffn_rows(const mzm_config *cfg)
{
	return (double)mzm_config_n_ffn_matrices(cfg) * cfg->n_layers * cfg->n_ffn;
}

double mzm_row_size(const mzm_matrix *m, bool bytes)
{
	return bytes ? (double)m->stride : (double)m->n_cols;
}

static double ffn_size(const mzm_layer *layer, int32_t n, bool bytes)
{
	double sum = 0;
	for (int32_t l = 0; l < n; l++) {
		const mzm_matrix *pairs = mzm_layer_pairs(&layer[l]);
		double pair = mzm_row_size(pairs, bytes);
		if (!bytes && layer[l].up.n_rows > 0) /* its stride would count both */
			pair += mzm_row_size(&layer[l].down, false);
		sum += (double)layer[l].gate.n_rows * mzm_row_size(&layer[l].gate, bytes) +
		       (double)pairs->n_rows * pair;
	}
	return sum;
}

double mzm_state_cost_share(const mzm_state *s, const mzm_predictor *p, bool draft)
{
	if (!p->ops->cost)
		return 0;
	return (double)p->ops->cost(p) / ffn_size(draft ? s->w->draft : s->w->layer, s->w->cfg.n_layers, true);
}

static double attention_size(const mzm_layer *l, bool bytes)
{
	const mzm_matrix *const m[] = {&l->wq, &l->wk, &l->wv, &l->wo, &l->wg};
	double sum = 0;
	for (int i = 0; i < 5; i++)
		sum += (double)m[i]->n_rows * mzm_row_size(m[i], bytes);
	return sum;
}

double mzm_state_attention_share(const mzm_state *s, bool draft)
{
	const mzm_layer *layer = draft ? s->w->draft : s->w->layer;
	double sum = 0;
	for (int32_t l = 0; l < s->w->cfg.n_layers; l++)
		sum += attention_size(&layer[l], draft);
	return sum / ffn_size(layer, s->w->cfg.n_layers, draft);
}

/* Of the FFNs, those that are not skipped. */
static double ffns_left(const mzm_state *s, const uint8_t *skip)
{
	int32_t n = 0;
	for (int32_t l = 0; skip && l < s->w->cfg.n_layers; l++)
		n += skip[2 * l + 1] != 0;
	return 1 - (double)n / s->w->cfg.n_layers;
}

static double skipped_attention(const mzm_state *s, const uint8_t *skip, bool draft)
{
	const mzm_layer *layer = draft ? s->w->draft : s->w->layer;
	double sum = 0;
	for (int32_t l = 0; skip && l < s->w->cfg.n_layers; l++)
		sum += skip[2 * l] ? attention_size(&layer[l], draft) : 0;
	return sum;
}

double mzm_state_skip_share(const mzm_state *s, const uint8_t *skip, bool draft)
{
	return ffns_left(s, skip) - skipped_attention(s, skip, draft) /
					    ffn_size(draft ? s->w->draft : s->w->layer, s->w->cfg.n_layers, draft);
}

bool mzm_state_streams(const mzm_state *s)
{
	return mzm_store_n_spans(s->w->store, MZM_ORDER_PASS) > 0;
}

static double share_read(const mzm_state *s)
{
	const mzm_pass *pass = s->pass;
	if (!pass->sparse)
		return mzm_state_skip_share(s, pass->skip, pass->draft);
	int32_t n_scored = pass->sparse->ops->score ? pass->n_pos : 1;
	return (double)s->n_read / n_ffn_rows(&s->w->cfg) +
	       n_scored * ffns_left(s, pass->skip) * mzm_state_cost_share(s, pass->sparse, pass->draft) -
	       (s->attn_skipped + skipped_attention(s, pass->skip, pass->draft)) /
		       ffn_size(pass->draft ? s->w->draft : s->w->layer, s->w->cfg.n_layers, pass->draft);
}

mzm_status mzm_forward(mzm_state *s, const mzm_pass *pass, float **logits, double *ffn_share, mzm_err *err)
{
	s->pass = pass;
	s->pos0 = s->kv->len;
	s->n_read = 0;
	s->attn_skipped = 0;
	s->span = NULL;
	s->why = (mzm_err){0};
	atomic_store_explicit(&s->failed, MZM_OK, memory_order_relaxed);
	mzm_store_order order = pass->draft || pass->held ? MZM_ORDER_NONE : MZM_ORDER_PASS;
	if (pass->held && !mzm_held_is_complete(s->held))
		return mzm_fail(err, MZM_EINTERNAL, "a sparse pass on neurons that are not in memory");
	if (pass->tree && s->pos0 < pass->tree->root)
		return mzm_fail(err, MZM_EINTERNAL, "a tree behind tokens that are not there");
	if (pass->skip && order == MZM_ORDER_PASS && mzm_state_streams(s))
		return mzm_fail(err, MZM_EUNDEFINED,
				"a pass that skips layers reads from memory, and some weights are not there");
	MZM_TRY(mzm_store_begin(s->w->store, order, err));
	mzm_team_run(s->team, forward_rank, s);
	mzm_store_end(s->w->store, order);
	bool failed = atomic_load_explicit(&s->failed, memory_order_relaxed) != MZM_OK;
	if (s->why.code != MZM_OK || failed)
		mzm_kv_restore(s->kv, s->pos0); /* linear attention may be past it */
	if (s->why.code != MZM_OK)
		return mzm_fail(err, s->why.code, "%s", s->why.message);
	if (failed)
		return mzm_fail(err, MZM_EINTERNAL, "oneDNN refused a matrix product of the prefill");
	s->bytes_streamed += mzm_store_streamed_bytes(s->w->store, order);
	s->kv->len += pass->n_pos;
	if (logits)
		*logits = s->logits;
	if (ffn_share)
		*ffn_share = share_read(s);
	return MZM_OK;
}
