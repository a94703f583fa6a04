/* checked.c - drafts and checks, the loop of sirius and exact mode: propose -> check -> roll back -> emit.
 *
 * At the top of the loop every KV row is the full model's, the KV has one row fewer than there are tokens, and the last
 * token is verified; a check gains at least one token. */
#include "engine/generate_impl.h"

#include <string.h>

#include "base/rng.h"

#define FORCED_STREAM 0x666f /* of the random numbers of a forced acceptance */

bool mzm_gen_is_checked(mzm_mode mode)
{
	return mzm_verifier_for(mode) != NULL;
}

static bool draft_is_stop(void *ctx, int32_t id)
{
	return mzm_output_push(ctx, id) != MZM_GO_ON;
}

mzm_draft_job mzm_gen_draft_job(mzm_generation *g)
{
	mzm_session *s = g->s;
	int32_t room = g->limit - g->n; /* tokens still allowed: a check brings one more than it keeps */
	int32_t block = g->p->period ? g->p->period : MZM_MAX_PERIOD;
	return (mzm_draft_job){
		.state = s->state, .sampler = s->sampler, .predictor = s->predictor, .monitor = &s->monitor,
		.image = s->drafting.image, .held = s->drafting.held, .adaptive = g->p->period == 0,
		.ids = s->ids, .n = g->n, .max = (block < room ? block : room) - 1,
		.check_below = g->p->check_below, .classes = s->model->token_classes,
		.is_stop = draft_is_stop, .ctx = g->probe, .evidence = g->evidence, .confidence = g->confidence,
		.n_vocab = s->model->weights->cfg.n_vocab,
	};
}

void mzm_gen_count_draft(mzm_generation *g, const mzm_draft_job *job)
{
	g->r->n_sparse_passes += job->n_passes;
	g->r->n_sparse_positions += job->n_positions;
	g->ffn_share += job->ffn_share;
	g->node_share += job->node_share;
}

static mzm_status draft(mzm_generation *g, const mzm_drafter *drafter, int32_t *n_draft)
{
	mzm_draft_job job = mzm_gen_draft_job(g);
	mzm_output_probe(g->probe, g->out);
	MZM_TRY(drafter->propose(&job, g->err));
	mzm_gen_count_draft(g, &job);
	*n_draft = job.n_draft;
	return MZM_OK;
}

/* ---- ablations ---- */

static bool leaves_out(const mzm_generation *g, mzm_ablation part)
{
	return g->p->mode == MZM_MODE_SIRIUS && (g->p->ablate & part);
}

mzm_status mzm_gen_prepare_checked(mzm_generation *g)
{
	size_t per_token = 2 * (size_t)g->kv->n_layers * (size_t)g->kv->n_kv_heads * g->kv->row_bytes;
	MZM_TRY(mzm_gen_prepare_tree(g));
	if (!leaves_out(g, MZM_ABLATE_KV_REWRITE))
		return MZM_OK;
	if (g->s->model->plan.ram_bytes)
		return mzm_fail(g->err, MZM_EUNDEFINED, "no study of the KV rewrite (ablate) under a memory budget");
	return mzm_alloc_for((void **)&g->sparse_rows, MZM_MAX_PERIOD * per_token, "rows of drafts", g->err);
}

void mzm_gen_free_checked(mzm_generation *g)
{
	mzm_free(g->sparse_rows);
	mzm_free(g->tree);
}

/* Copies rows [first, first + n) of all layers out of the KV, or back. */
static void copy_rows(mzm_generation *g, int32_t first, int32_t n, bool back)
{
	size_t bytes = (size_t)n * g->kv->row_bytes;
	char *at = g->sparse_rows;
	for (int32_t i = 0; at && i < 2 * g->kv->n_layers * g->kv->n_kv_heads; i++, at += bytes) {
		int32_t layer = i / 2 / g->kv->n_kv_heads, head = i / 2 % g->kv->n_kv_heads;
		char *rows = i % 2 ? mzm_kv_v(g->kv, layer, head, first) : mzm_kv_k(g->kv, layer, head, first);
		memcpy(back ? rows : at, back ? at : rows, bytes);
	}
}

/* ---- checks ---- */

/* A benchmark's decision, see engine.h. */
static bool chance_keeps(const mzm_session *s, int32_t pos)
{
	return mzm_rng_unit(s->forced_seed, FORCED_STREAM, (uint64_t)pos) < s->forced_accept;
}

bool mzm_gen_stands(mzm_generation *g, const mzm_verifier *verifier, const float *logits, int32_t id, int32_t choice,
		    int32_t pos)
{
	mzm_judgement j = {logits, id, choice, g->p->accept, g->p->threshold, g->p->check_temp, g->s->sampler};
	if (leaves_out(g, MZM_ABLATE_ROLLBACK))
		return true;
	return g->s->forced_accept > 0 ? chance_keeps(g->s, pos) : verifier->stands(&j);
}

/* How many of the n draft tokens behind g->n stand; *next: the full model's own token after those. */
static int32_t judge(mzm_generation *g, const mzm_verifier *verifier, const float *rows, int32_t n, int32_t *next)
{
	const int32_t *ids = g->s->ids;
	size_t n_vocab = (size_t)g->s->model->weights->cfg.n_vocab;
	for (int32_t i = 0;; i++) {
		const float *logits = mzm_sampler_process(g->s->sampler, rows + (size_t)i * n_vocab, ids, g->n + i);
		*next = mzm_sampler_choose(g->s->sampler, logits, g->n + i);
		bool stands = false;
		if (i < n) {
			stands = mzm_gen_stands(g, verifier, logits, ids[g->n + i], *next, g->n + i);
			g->full_prob[i] = mzm_gen_traced_prob(g, logits, ids[g->n + i]);
		}
		if (!stands) {
			g->next_prob = mzm_gen_traced_prob(g, logits, *next);
			return i;
		}
	}
}

static mzm_token_event draft_event(const mzm_generation *g, mzm_token_kind kind, int32_t first, int32_t i,
				   int32_t block)
{
	mzm_token_event e = mzm_gen_event(g, kind, first + i, g->s->ids[first + i]);
	e.draft_prob = g->evidence[i].certainty.prob;
	e.margin = g->evidence[i].certainty.margin;
	e.entropy = g->evidence[i].certainty.entropy;
	e.confidence = g->confidence[i];
	e.check = g->r->n_checks;
	e.block = block;
	return e;
}

/* Emits what the check kept, reports what it dropped, and writes the full model's token behind it. */
static void settle_check(mzm_generation *g, int32_t n_draft, int32_t n_kept, int32_t next)
{
	int32_t first = g->n, block = n_draft + 1, emitted = 0;
	for (; emitted < n_kept && !g->done; emitted++) {
		mzm_token_event e = draft_event(g, MZM_TOKEN_ACCEPTED, first, emitted, block);
		e.full_prob = g->full_prob[emitted];
		mzm_gen_emit(g, &e);
		g->r->n_accepted++;
	}
	for (int32_t i = emitted; i < n_draft; i++) {
		mzm_token_event e = draft_event(g, MZM_TOKEN_ROLLED_BACK, first, i, block);
		if (i <= n_kept)
			e.full_prob = g->full_prob[i];
		mzm_gen_report(g, &e);
		g->r->n_rolled_back++;
	}
	bool bonus = n_kept == n_draft;
	if (!g->done && !(bonus && n_draft > 0 && leaves_out(g, MZM_ABLATE_BONUS))) {
		mzm_token_event e = mzm_gen_event(g, bonus ? MZM_TOKEN_BONUS : MZM_TOKEN_CORRECTED, g->n, next);
		e.full_prob = g->next_prob;
		e.check = g->r->n_checks;
		e.block = block;
		mzm_gen_emit(g, &e);
		*(bonus ? &g->r->n_bonus : &g->r->n_corrected) += 1;
	}
	g->last_gained = g->n - first;
	g->r->n_gained += g->last_gained;
}

/* Before a check: held neurons that stream by with it anyway are chosen anew. Who learns from it, or NULL. */
static mzm_predictor *refresh(const mzm_generation *g)
{
	mzm_session *s = g->s;
	const mzm_predictor_ops *ops = s->predictor->ops;
	bool held = s->drafting.held && ops->learns;
	if (held)
		mzm_state_rehold(s->state, s->predictor);
	return held || ops->refreshes ? s->predictor : NULL;
}

mzm_status mzm_gen_check(mzm_generation *g, mzm_pass *pass, float **rows)
{
	pass->observer = refresh(g);
	MZM_TRY(mzm_forward(g->s->state, pass, rows, NULL, g->err));
	if (g->s->predictor->ops->refreshes)
		g->s->predictor->ops->settle(g->s->predictor);
	g->r->n_checks++;
	g->r->n_dense_passes++;
	g->r->n_dense_positions += pass->n_pos;
	return MZM_OK;
}

static mzm_status line_round(mzm_generation *g, const mzm_verifier *verifier, mzm_round *r)
{
	int32_t base = g->n - 1;
	float *rows;
	MZM_TRY(draft(g, mzm_drafter_find(g->p->draft), &r->n_draft));
	copy_rows(g, base, r->n_draft, false); /* the last token of a draft has none */
	mzm_kv_truncate(g->kv, base);
	mzm_pass pass = {.ids = g->s->ids + base, .n_pos = r->n_draft + 1, .n_rows = r->n_draft + 1};
	MZM_TRY(mzm_gen_check(g, &pass, &rows));
	copy_rows(g, base, r->n_draft, true);
	r->n_kept = judge(g, verifier, rows, r->n_draft, &r->next);
	mzm_monitor_learn(&g->s->monitor, g->evidence, r->n_draft, r->n_kept, r->n_kept + 1, r->n_draft + 1);
	return MZM_OK;
}

mzm_status mzm_gen_decode_checked(mzm_generation *g)
{
	const mzm_verifier *verifier = mzm_verifier_for(g->p->mode);
	while (!g->done) {
		mzm_round r = {0};
		MZM_TRY(g->tree ? mzm_gen_tree_round(g, verifier, &r) : line_round(g, verifier, &r));
		settle_check(g, r.n_draft, r.n_kept, r.next);
		mzm_kv_truncate(g->kv, g->n - 1);
	}
	g->r->n_checks_paper = g->r->n_checks > 0 ? g->r->n_checks - 1 : 0;
	g->r->n_gained_paper = g->r->n_gained - g->last_gained;
	return MZM_OK;
}
