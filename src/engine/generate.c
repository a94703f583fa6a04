/* generate.c - a generation from the prompt to the end: prefill, then one token a pass, or the loop of checked.c. Only
 * verified tokens reach the caller; nothing is allocated after the first. */
#include "engine/generate_impl.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"

/* ---- emitting ---- */

void mzm_gen_end(mzm_generation *g, mzm_finish why)
{
	if (!g->done)
		g->r->finish = why;
	g->done = true;
}

mzm_token_event mzm_gen_event(const mzm_generation *g, mzm_token_kind kind, int32_t pos, int32_t id)
{
	return (mzm_token_event){
		.kind = kind, .pos = pos, .id = id, .draft_prob = NAN, .margin = NAN, .entropy = NAN, .confidence = NAN,
		.full_prob = NAN, .time_ns = mzm_now_ns() - g->start_ns,
	};
}

void mzm_gen_report(mzm_generation *g, const mzm_token_event *e)
{
	if (!g->cancelled && g->p->on_token && g->p->on_token(g->p->user, e)) {
		g->cancelled = true; /* nothing more reaches the caller */
		mzm_gen_end(g, MZM_FINISH_CANCELLED);
	}
}

void mzm_gen_emit(mzm_generation *g, const mzm_token_event *e)
{
	g->s->ids[g->n++] = e->id;
	g->r->n_tokens++;
	mzm_gen_report(g, e);
	if (g->cancelled)
		return;
	mzm_verdict v = mzm_output_push(g->out, e->id);
	if (v != MZM_GO_ON)
		mzm_gen_end(g, v == MZM_AT_EOS ? MZM_FINISH_EOS : MZM_FINISH_STOP);
	if (g->out->cancelled) {
		g->cancelled = true;
		mzm_gen_end(g, MZM_FINISH_CANCELLED);
	}
	if (g->p->max_tokens && g->r->n_tokens >= g->p->max_tokens)
		mzm_gen_end(g, MZM_FINISH_LENGTH);
	if (g->n >= g->limit)
		mzm_gen_end(g, MZM_FINISH_CONTEXT);
}

float mzm_gen_traced_prob(mzm_generation *g, const float *logits, int32_t id)
{
	return g->p->on_token ? mzm_sampler_prob(g->s->sampler, logits, id, 1.0f, NULL, NULL) : NAN;
}

int32_t mzm_gen_choose(mzm_generation *g, const float *logits, int32_t n, float *prob)
{
	const float *processed = mzm_sampler_process(g->s->sampler, logits, g->s->ids, n);
	int32_t id = mzm_sampler_choose(g->s->sampler, processed, n);
	*prob = mzm_gen_traced_prob(g, processed, id);
	return id;
}

/* ---- prefill ---- */

/* The next dense pass over the prompt. A kept prefix may end in the middle of what the predictor has observed already:
 * up to there it does not look again. */
static mzm_status read_prompt(mzm_generation *g, mzm_predictor *observer, float **logits)
{
	mzm_session *s = g->s;
	int32_t left = g->n - g->kv->len, most = mzm_state_max_pos(s->state);
	mzm_pass pass = {.ids = s->ids + g->kv->len, .observer = observer, .gemm = s->model->gemm};
	if (observer && g->kv->len < s->n_observed) {
		pass.observer = NULL;
		most = s->n_observed - g->kv->len < most ? s->n_observed - g->kv->len : most;
	}
	pass.n_pos = left < most ? left : most;
	pass.n_rows = pass.n_pos == left;
	if (pass.observer)
		s->n_observed = MZM_NOT_OBSERVED; /* a pass that fails may have shown it some layers */
	MZM_TRY(mzm_forward(s->state, &pass, logits, NULL, g->err));
	if (pass.observer)
		s->n_observed = g->kv->len;
	s->n_full = g->kv->len;
	return MZM_OK;
}

/* Dense passes over the prompt: whole chunks of the grid through oneDNN, the rest by rows. */
static mzm_status prefill(mzm_generation *g, float **logits)
{
	mzm_session *s = g->s;
	mzm_predictor *pred = g->p->mode == MZM_MODE_DENSE || !mzm_gen_needs_predictor(g->p) ? NULL : s->predictor;
	mzm_predictor *observer = pred && pred->observes ? pred : NULL;
	while (g->kv->len < g->n) {
		int32_t before = g->kv->len;
		int64_t start = mzm_now_ns();
		MZM_TRY(read_prompt(g, observer, logits));
		g->prefill_pass_ns = g->kv->len - before < 2 * MZM_CHUNK ? (double)(mzm_now_ns() - start) : 0;
		if (g->p->on_prefill && g->p->on_prefill(g->p->user, "prompt", (uint64_t)g->kv->len, (uint64_t)g->n))
			return mzm_fail(g->err, MZM_ECANCELLED, "cancelled while reading the prompt");
	}
	if (pred && pred->ops->settle)
		pred->ops->settle(pred);
	return pred && s->drafting.held ? mzm_state_hold(s->state, pred, g->err) : MZM_OK;
}

/* ---- one token a pass: dense and sparse mode ---- */

static mzm_status decode_plain(mzm_generation *g)
{
	bool sparse = g->p->mode == MZM_MODE_SPARSE;
	mzm_drafting d = g->s->drafting;
	while (!g->done) {
		float *logits;
		double share;
		mzm_pass pass = {.ids = g->s->ids + g->n - 1, .n_pos = 1, .n_rows = 1,
				 .sparse = sparse ? g->s->predictor : NULL, .draft = sparse && d.image,
				 .held = sparse && d.held};
		MZM_TRY(mzm_forward(g->s->state, &pass, &logits, &share, g->err));
		mzm_token_event e = mzm_gen_event(g, MZM_TOKEN_PLAIN, g->n, 0);
		e.id = mzm_gen_choose(g, logits, g->n, sparse ? &e.draft_prob : &e.full_prob);
		if (sparse) {
			g->r->n_sparse_passes++;
			g->r->n_sparse_positions++;
			g->ffn_share += share;
			g->node_share += share;
			g->n_shares++;
			g->n_share_positions++;
		} else {
			g->r->n_dense_passes++;
			g->r->n_dense_positions++;
		}
		mzm_gen_emit(g, &e);
	}
	return MZM_OK;
}

/* ---- a generation from start to end ---- */

static mzm_status check_prompt(const mzm_session *s, const int32_t *prompt, int32_t n, mzm_err *err)
{
	int32_t n_vocab = s->model->weights->cfg.n_vocab;
	if (n < 1)
		return mzm_fail(err, MZM_EARG, "the prompt is empty: it has no token to continue from");
	if (n >= mzm_session_n_ctx(s))
		return mzm_fail(err, MZM_ECONTEXT,
				"the prompt has %d tokens; the context holds %d, one new token included", n,
				mzm_session_n_ctx(s));
	for (int32_t i = 0; i < n; i++) {
		if (prompt[i] < 0 || prompt[i] >= n_vocab)
			return mzm_fail(err, MZM_EARG, "prompt token %d is %d; the vocabulary has 0 to %d", i,
					prompt[i], n_vocab - 1);
	}
	return MZM_OK;
}

/* How many of the prompt's tokens keep their rows: those that the session has, but the last one, whose logits are
 * wanted. A predictor that learns from prompts must have observed these, and nothing that is gone, and linear attention
 * can only go back a little: else all is read again. */
static mzm_status keep_rows(mzm_generation *g)
{
	mzm_session *s = g->s;
	int32_t n_same = g->n_same, wanted = n_same < g->n ? n_same : g->n - 1;
	/* by verified tokens alone: how far linear attention could go back depends on drafts, too, but not so near */
	if (g->kv->sums && (wanted + MZM_KV_LAG < s->n_high || mzm_kv_reach(g->kv, wanted) < wanted))
		n_same = 0;
	if (g->p->mode == MZM_MODE_DENSE) {
		s->n_observed = MZM_NOT_OBSERVED;
	} else if (!mzm_gen_needs_predictor(g->p)) {
		s->n_observed = MZM_NOT_OBSERVED;
	} else {
		MZM_TRY(mzm_session_use_predictor(s, g->p, g->err));
		if (s->predictor->observes && s->n_observed > n_same)
			n_same = 0;
		if (n_same == 0 && s->predictor->ops->reset)
			s->predictor->ops->reset(s->predictor);
		if (n_same == 0)
			s->n_observed = 0;
	}
	mzm_kv_truncate(g->kv, n_same < g->n ? n_same : g->n - 1);
	s->n_full = g->r->n_kept = g->kv->len;
	s->n_high = g->kv->len > 0 ? s->n_high : 0;
	return MZM_OK;
}

/* Everything a generation needs, so that decoding allocates nothing. */
static mzm_status prepare(mzm_generation *g)
{
	mzm_session *s = g->s;
	int32_t n_ctx = mzm_session_n_ctx(s);
	g->limit = g->p->max_tokens && g->p->max_tokens < n_ctx - g->n ? g->n + g->p->max_tokens : n_ctx;
	g->kv = mzm_state_kv(s->state);
	mzm_sampler_configure(s->sampler, g->p);
	MZM_TRY(mzm_output_create(&g->out, s->model, g->p, g->err));
	MZM_TRY(mzm_output_create(&g->probe, s->model, g->p, g->err));
	return keep_rows(g);
}

/* Where no pass drafted: guesses read nothing; without these either, all tokens were made by dense passes. */
static double density_of_none(const mzm_generation *g)
{
	bool passes = g->p->mode == MZM_MODE_SPARSE;
	int64_t n_drafted = 0;
	for (int i = 0; i < g->n_drafters; i++) {
		passes = passes || g->drafter[i].d->ops->cost;
		n_drafted += g->drafter[i].stats->n_drafted;
	}
	return passes && n_drafted == 0 ? 1 : 0;
}

static void fill_densities(mzm_generation *g)
{
	mzm_gen_result *r = g->r;
	const mzm_model *m = g->s->model;
	if (g->p->mode == MZM_MODE_DENSE || r->n_sparse_passes == 0) {
		r->density = r->read_density = g->p->mode == MZM_MODE_DENSE ? 1 : density_of_none(g);
		return;
	}
	if (g->n_shares) {
		double share = g->ffn_share / g->n_shares;
		r->density = mzm_model_density(m, share, g->s->drafting.image);
		r->read_density = mzm_model_read_density(m, share, g->s->drafting.image);
	}
	r->sparse_work = r->density * g->n_shares + g->work; /* density is linear in the share */
	r->sparse_node_work = g->work;
	if (g->n_share_positions)
		r->sparse_node_work += (double)g->n_share_positions *
				       mzm_model_density(m, g->node_share / (double)g->n_share_positions,
							 g->s->drafting.image);
	if (g->n_shares < r->n_sparse_passes) /* drafts of other kinds, too: their mean */
		r->density = r->read_density = r->sparse_work / r->n_sparse_passes;
}

static mzm_status run(mzm_generation *g)
{
	float *logits;
	MZM_TRY(prepare(g));
	if (mzm_gen_is_checked(g->p->mode))
		MZM_TRY(mzm_gen_prepare_checked(g));
	MZM_TRY(prefill(g, &logits));
	mzm_token_event first = mzm_gen_event(g, MZM_TOKEN_FIRST, g->n, 0);
	first.id = mzm_gen_choose(g, logits, g->n, &first.full_prob);
	if (mzm_gen_is_checked(g->p->mode))
		MZM_TRY(mzm_gen_begin_checked(g));
	int64_t decode_start = mzm_now_ns();
	g->r->prefill_ns = decode_start - g->start_ns;
	mzm_gen_emit(g, &first);
	mzm_status st = mzm_gen_is_checked(g->p->mode) ? mzm_gen_decode_checked(g) : decode_plain(g);
	mzm_kv_truncate(g->kv, g->n - 1); /* a pass that failed leaves rows of its draft */
	g->s->n_high = g->s->n_high > g->n ? g->s->n_high : g->n;
	if (st == MZM_ECANCELLED) { /* by on_stream, in the middle of a pass: what was verified stands */
		mzm_gen_end(g, MZM_FINISH_CANCELLED);
		g->cancelled = true;
		st = MZM_OK;
		if (g->err)
			*g->err = (mzm_err){0};
	}
	if (st == MZM_OK && g->p->mode != MZM_MODE_SPARSE && !g->sparse_rows)
		g->s->n_full = g->kv->len;
	if (!g->cancelled)
		mzm_output_finish(g->out);
	if (g->out->cancelled)
		g->r->finish = MZM_FINISH_CANCELLED;
	g->r->decode_ns = mzm_now_ns() - decode_start;
	fill_densities(g);
	return st;
}

/* Tokens, from the first on, that the prompt shares with the rows of the session. */
static int32_t same_tokens(const mzm_session *s, const int32_t *prompt, int32_t n)
{
	int32_t most = n < s->n_full ? n : s->n_full, i = 0;
	while (i < most && s->ids[i] == prompt[i])
		i++;
	return i;
}

static void count_times(mzm_gen_result *r, const mzm_stream_stats *before, const mzm_model *model)
{
	mzm_stream_stats after = mzm_model_stream_stats(model);
	r->read_ns = after.read_ns - before->read_ns;
	r->unpack_ns = after.unpack_ns - before->unpack_ns;
	r->wait_ns = after.wait_ns - before->wait_ns;
}

mzm_status mzm_generate(mzm_session *s, const int32_t *prompt, int32_t n_prompt, const mzm_gen_params *params,
			mzm_gen_result *result, mzm_err *err)
{
	mzm_gen_params defaults = mzm_gen_params_default();
	mzm_generation g = {.s = s, .p = params ? params : &defaults, .r = result, .err = err, .n = n_prompt};
	memset(result, 0, sizeof *result);
	MZM_TRY(mzm_gen_params_check(g.p, err));
	MZM_TRY(check_prompt(s, prompt, n_prompt, err));
	g.n_same = s->n_full = g.p->keep_prefix ? same_tokens(s, prompt, n_prompt) : 0;
	memmove(s->ids, prompt, (size_t)n_prompt * sizeof *prompt);
	result->n_prompt = n_prompt;
	result->tokens = s->ids + n_prompt;
	g.start_ns = mzm_now_ns();
	mzm_stream_stats before = mzm_model_stream_stats(s->model);
	uint64_t streamed = mzm_state_bytes_streamed(s->state);
	mzm_state_watch(s->state, g.p->on_stream, g.p->user);
	mzm_status st = run(&g);
	mzm_state_watch(s->state, NULL, NULL);
	count_times(result, &before, s->model);
	result->bytes_read = mzm_state_bytes_streamed(s->state) - streamed;
	mzm_gen_free_checked(&g);
	mzm_output_free(g.out);
	mzm_output_free(g.probe);
	return st;
}

mzm_status mzm_generate_text(mzm_session *s, const char *prompt, const mzm_gen_params *params, mzm_gen_result *result,
			     mzm_err *err)
{
	int32_t *ids;
	size_t n;
	if (!s->model->tokenizer)
		return mzm_fail(err, MZM_EFORMAT, "%s: the model has no tokenizer", s->model->path);
	unsigned flags = params && params->no_special ? 0 : MZM_TOK_ADD_SPECIAL;
	MZM_TRY(mzm_tokenize(s->model->tokenizer, prompt, strlen(prompt), flags, &ids, &n, err));
	mzm_status st = n > INT32_MAX ? mzm_fail(err, MZM_ECONTEXT, "the prompt has %zu tokens", n)
				      : mzm_generate(s, ids, (int32_t)n, params, result, err);
	mzm_ids_free(ids);
	return st;
}
