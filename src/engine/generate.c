/* generate.c - the loop: prefill, then propose -> check -> roll back -> emit until the text ends.
 *
 * Invariants (Sirius, arXiv 2409.03856): at the top of the loop every KV row is the full model's, the KV has one row
 * fewer than there are tokens, and the last token is verified; a check gains at least one token;
 * only verified tokens reach the caller. Allocates before the first token only. */
#include "engine/output.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"

#define FORCED_STREAM 0x666f /* of the random numbers of a forced acceptance */

typedef struct generation {
	mzm_session          *s;
	const mzm_gen_params *p;
	mzm_gen_result       *r;
	mzm_err              *err;
	mzm_output           *out, *probe;
	mzm_kv               *kv;
	int32_t               n;       /* verified tokens in s->ids */
	int32_t               n_same;  /* of the prompt, from its first on: tokens whose rows the session has */
	int32_t               limit;   /* tokens there may be */
	bool                  done;
	bool                  cancelled; /* by a callback */
	int64_t               start_ns;
	double                prefill_pass_ns; /* of the last pass over the prompt, if it had few positions; else 0 */
	int32_t               last_gained; /* by the latest check */
	double                ffn_share;   /* sum over sparse passes */
	mzm_evidence          evidence[MZM_MAX_PERIOD];   /* of the draft under way */
	float                 confidence[MZM_MAX_PERIOD];
	float                 full_prob[MZM_MAX_PERIOD];  /* the full model's, of those it judged */
	float                 next_prob;                  /* and of its own token behind them */
} generation;

/* ---- emitting ---- */

static void finish(generation *g, mzm_finish why)
{
	if (!g->done)
		g->r->finish = why;
	g->done = true;
}

static mzm_token_event event_at(const generation *g, mzm_token_kind kind, int32_t pos, int32_t id)
{
	return (mzm_token_event){
		.kind = kind, .pos = pos, .id = id, .draft_prob = NAN, .margin = NAN, .entropy = NAN, .confidence = NAN,
		.full_prob = NAN, .time_ns = mzm_now_ns() - g->start_ns,
	};
}

static void report(generation *g, const mzm_token_event *e)
{
	if (!g->cancelled && g->p->on_token && g->p->on_token(g->p->user, e)) {
		g->cancelled = true; /* nothing more reaches the caller */
		finish(g, MZM_FINISH_CANCELLED);
	}
}

/* Appends a verified token: the only way into the text. */
static void emit(generation *g, const mzm_token_event *e)
{
	g->s->ids[g->n++] = e->id;
	g->r->n_tokens++;
	report(g, e);
	if (g->cancelled)
		return;
	mzm_verdict v = mzm_output_push(g->out, e->id);
	if (v != MZM_GO_ON)
		finish(g, v == MZM_AT_EOS ? MZM_FINISH_EOS : MZM_FINISH_STOP);
	if (g->out->cancelled) {
		g->cancelled = true;
		finish(g, MZM_FINISH_CANCELLED);
	}
	if (g->p->max_tokens && g->r->n_tokens >= g->p->max_tokens)
		finish(g, MZM_FINISH_LENGTH);
	if (g->n >= g->limit)
		finish(g, MZM_FINISH_CONTEXT);
}

/* ---- prefill ---- */

/* The next dense pass over the prompt. A kept prefix may end in the middle of what the predictor has observed already:
 * up to there it does not look again. */
static mzm_status read_prompt(generation *g, mzm_predictor *observer, float **logits)
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
static mzm_status prefill(generation *g, float **logits)
{
	mzm_session *s = g->s;
	mzm_predictor *pred = g->p->mode == MZM_MODE_DENSE ? NULL : s->predictor;
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

/* The probability of a token, when somebody listens: it costs a pass over the vocabulary. */
static float traced_prob(generation *g, const float *logits, int32_t id)
{
	return g->p->on_token ? mzm_sampler_prob(g->s->sampler, logits, id, 1.0f, NULL, NULL) : NAN;
}

static int32_t choose(generation *g, const float *logits, int32_t n, float *prob)
{
	const float *processed = mzm_sampler_process(g->s->sampler, logits, g->s->ids, n);
	int32_t id = mzm_sampler_choose(g->s->sampler, processed, n);
	*prob = traced_prob(g, processed, id);
	return id;
}

/* ---- one token a pass: dense and sparse mode ---- */

static mzm_status decode_plain(generation *g)
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
		mzm_token_event e = event_at(g, MZM_TOKEN_PLAIN, g->n, 0);
		e.id = choose(g, logits, g->n, sparse ? &e.draft_prob : &e.full_prob);
		if (sparse) {
			g->r->n_sparse_passes++;
			g->ffn_share += share;
		} else {
			g->r->n_dense_passes++;
			g->r->n_dense_positions++;
		}
		emit(g, &e);
	}
	return MZM_OK;
}

/* ---- drafts and checks: sirius and exact mode ---- */

static bool draft_is_stop(void *ctx, int32_t id)
{
	return mzm_output_push(ctx, id) != MZM_GO_ON;
}

static mzm_status draft(generation *g, const mzm_drafter *drafter, int32_t *n_draft)
{
	mzm_session *s = g->s;
	int32_t room = g->limit - g->n; /* tokens still allowed: a check brings one more than it keeps */
	int32_t block = g->p->period ? g->p->period : MZM_MAX_PERIOD;
	mzm_draft_job job = {
		.state = s->state, .sampler = s->sampler, .predictor = s->predictor, .monitor = &s->monitor,
		.image = s->drafting.image, .held = s->drafting.held, .adaptive = g->p->period == 0,
		.ids = s->ids, .n = g->n, .max = (block < room ? block : room) - 1,
		.check_below = g->p->check_below, .classes = s->model->token_classes,
		.is_stop = draft_is_stop, .ctx = g->probe, .evidence = g->evidence, .confidence = g->confidence,
	};
	mzm_output_probe(g->probe, g->out);
	MZM_TRY(drafter->propose(&job, g->err));
	g->r->n_sparse_passes += job.n_passes;
	g->ffn_share += job.ffn_share;
	*n_draft = job.n_draft;
	return MZM_OK;
}

/* A benchmark's decision, see engine.h. */
static bool chance_keeps(const mzm_session *s, int32_t pos)
{
	return mzm_rng_unit(s->forced_seed, FORCED_STREAM, (uint64_t)pos) < s->forced_accept;
}

/* How many of the n draft tokens behind g->n stand; *next: the full model's own token after those. */
static int32_t judge(generation *g, const mzm_verifier *verifier, const float *rows, int32_t n, int32_t *next)
{
	const int32_t *ids = g->s->ids;
	size_t n_vocab = (size_t)g->s->model->weights->cfg.n_vocab;
	for (int32_t i = 0;; i++) {
		const float *logits = mzm_sampler_process(g->s->sampler, rows + (size_t)i * n_vocab, ids, g->n + i);
		*next = mzm_sampler_choose(g->s->sampler, logits, g->n + i);
		bool stands = false;
		if (i < n) {
			mzm_judgement j = {logits, ids[g->n + i], *next, g->p->accept, g->p->threshold,
					   g->p->check_temp, g->s->sampler};
			stands = g->s->forced_accept > 0 ? chance_keeps(g->s, g->n + i) : verifier->stands(&j);
			g->full_prob[i] = traced_prob(g, logits, ids[g->n + i]);
		}
		if (!stands) {
			g->next_prob = traced_prob(g, logits, *next);
			return i;
		}
	}
}

static mzm_token_event draft_event(const generation *g, mzm_token_kind kind, int32_t first, int32_t i, int32_t block)
{
	mzm_token_event e = event_at(g, kind, first + i, g->s->ids[first + i]);
	e.draft_prob = g->evidence[i].certainty.prob;
	e.margin = g->evidence[i].certainty.margin;
	e.entropy = g->evidence[i].certainty.entropy;
	e.confidence = g->confidence[i];
	e.check = g->r->n_checks;
	e.block = block;
	return e;
}

/* Emits what the check kept, reports what it dropped, and writes the full model's token behind it. */
static void settle_check(generation *g, int32_t n_draft, int32_t n_kept, int32_t next)
{
	int32_t first = g->n, block = n_draft + 1, emitted = 0;
	for (; emitted < n_kept && !g->done; emitted++) {
		mzm_token_event e = draft_event(g, MZM_TOKEN_ACCEPTED, first, emitted, block);
		e.full_prob = g->full_prob[emitted];
		emit(g, &e);
		g->r->n_accepted++;
	}
	for (int32_t i = emitted; i < n_draft; i++) {
		mzm_token_event e = draft_event(g, MZM_TOKEN_ROLLED_BACK, first, i, block);
		if (i <= n_kept)
			e.full_prob = g->full_prob[i];
		report(g, &e);
		g->r->n_rolled_back++;
	}
	if (!g->done) {
		bool bonus = n_kept == n_draft;
		mzm_token_event e = event_at(g, bonus ? MZM_TOKEN_BONUS : MZM_TOKEN_CORRECTED, g->n, next);
		e.full_prob = g->next_prob;
		e.check = g->r->n_checks;
		e.block = block;
		emit(g, &e);
		*(bonus ? &g->r->n_bonus : &g->r->n_corrected) += 1;
	}
	g->last_gained = g->n - first;
	g->r->n_gained += g->last_gained;
}

/* Before a check: held neurons that stream by with it anyway are chosen anew. Who learns from it, or NULL. */
static mzm_predictor *refresh(const generation *g)
{
	mzm_session *s = g->s;
	const mzm_predictor_ops *ops = s->predictor->ops;
	bool held = s->drafting.held && ops->learns;
	if (held)
		mzm_state_rehold(s->state, s->predictor);
	return held || ops->refreshes ? s->predictor : NULL;
}

static mzm_status decode_checked(generation *g)
{
	const mzm_drafter *drafter = mzm_drafter_find(g->p->draft);
	const mzm_verifier *verifier = mzm_verifier_for(g->p->mode);
	while (!g->done) {
		int32_t base = g->n - 1, n_draft = 0, next = 0;
		float *rows;
		MZM_TRY(draft(g, drafter, &n_draft));
		mzm_kv_truncate(g->kv, base);
		mzm_pass pass = {.ids = g->s->ids + base, .n_pos = n_draft + 1, .n_rows = n_draft + 1,
				 .observer = refresh(g)};
		MZM_TRY(mzm_forward(g->s->state, &pass, &rows, NULL, g->err));
		if (g->s->predictor->ops->refreshes)
			g->s->predictor->ops->settle(g->s->predictor);
		g->r->n_checks++;
		g->r->n_dense_passes++;
		g->r->n_dense_positions += n_draft + 1;
		int32_t n_kept = judge(g, verifier, rows, n_draft, &next);
		mzm_monitor_learn(&g->s->monitor, g->evidence, n_draft, n_kept);
		settle_check(g, n_draft, n_kept, next);
		mzm_kv_truncate(g->kv, g->n - 1);
	}
	g->r->n_checks_paper = g->r->n_checks > 0 ? g->r->n_checks - 1 : 0;
	g->r->n_gained_paper = g->r->n_gained - g->last_gained;
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

static bool is_checked(mzm_mode mode)
{
	return mzm_verifier_for(mode) != NULL;
}

/* How many of the prompt's tokens keep their rows: those that the session has, but the last one, whose logits are
 * wanted. A predictor that learns from prompts must have observed these, and nothing that is gone: else all is read
 * again. */
static mzm_status keep_rows(generation *g)
{
	mzm_session *s = g->s;
	int32_t n_same = g->n_same;
	if (g->p->mode == MZM_MODE_DENSE) {
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
	s->n_full = g->r->n_kept = n_same < g->n ? n_same : g->n - 1;
	mzm_kv_truncate(g->kv, s->n_full);
	return MZM_OK;
}

/* Everything a generation needs, so that decoding allocates nothing. */
static mzm_status prepare(generation *g)
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

/* The costs that the monitor reckons with: given, measured once a session, or nominal when it has no say. */
static mzm_status settle_costs(generation *g)
{
	mzm_session *s = g->s;
	mzm_costs costs = {0};
	if (g->p->fresh_monitor)
		mzm_monitor_reset(&s->monitor);
	if (g->p->period > 0) {
		costs.sparse = (float)mzm_model_density(s->model, mzm_session_ffn_share(s), s->drafting.image);
		for (int i = 1; i <= MZM_MAX_PERIOD; i++)
			costs.check[i] = 1;
	} else if (g->p->costs) {
		costs = *g->p->costs;
	} else {
		costs = s->costs;
		if (costs.sparse <= 0)
			MZM_TRY(mzm_session_complete_costs(s, g->p, g->prefill_pass_ns, &costs, g->err));
		if (mzm_session_n_ctx(s) - g->kv->len >= MZM_MAX_PERIOD)
			s->costs = costs; /* with less room long checks were not measured */
	}
	mzm_monitor_set_costs(&s->monitor, &costs);
	if (g->p->period == 0)
		g->r->costs = costs;
	return MZM_OK;
}

static void fill_densities(generation *g)
{
	mzm_gen_result *r = g->r;
	const mzm_model *m = g->s->model;
	r->density = r->read_density = 1;
	if (g->p->mode == MZM_MODE_DENSE)
		return;
	double share = r->n_sparse_passes ? g->ffn_share / r->n_sparse_passes : mzm_session_ffn_share(g->s);
	r->density = mzm_model_density(m, share, g->s->drafting.image);
	r->read_density = mzm_model_read_density(m, share, g->s->drafting.image);
	r->sparse_work = r->density * r->n_sparse_passes; /* density is linear in the share */
}

static mzm_status run(generation *g)
{
	float *logits;
	MZM_TRY(prepare(g));
	MZM_TRY(prefill(g, &logits));
	mzm_token_event first = event_at(g, MZM_TOKEN_FIRST, g->n, 0);
	first.id = choose(g, logits, g->n, &first.full_prob);
	if (is_checked(g->p->mode))
		MZM_TRY(settle_costs(g));
	int64_t decode_start = mzm_now_ns();
	g->r->prefill_ns = decode_start - g->start_ns;
	emit(g, &first);
	mzm_status st = is_checked(g->p->mode) ? decode_checked(g) : decode_plain(g);
	if (st == MZM_ECANCELLED) { /* by on_stream, in the middle of a pass: what was verified stands */
		finish(g, MZM_FINISH_CANCELLED);
		mzm_kv_truncate(g->kv, g->n - 1);
		g->cancelled = true;
		st = MZM_OK;
		if (g->err)
			*g->err = (mzm_err){0};
	}
	if (st == MZM_OK && g->p->mode != MZM_MODE_SPARSE)
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
	generation g = {.s = s, .p = params ? params : &defaults, .r = result, .err = err, .n = n_prompt};
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
