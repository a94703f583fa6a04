/* checked.c - drafts and checks, the loop of all modes that check: propose -> check -> roll back -> emit.
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

mzm_draft_job mzm_gen_draft_job(mzm_generation *g, int i)
{
	mzm_session *s = g->s;
	int32_t room = g->limit - g->n; /* tokens still allowed: a check brings one more than it keeps */
	int32_t block = g->p->period ? g->p->period : MZM_MAX_PERIOD;
	mzm_draft_job job = {
		.state = s->state, .sampler = s->sampler, .predictor = s->predictor, .monitor = g->drafter[i].monitor,
		.image = s->drafting.image, .held = s->drafting.held, .adaptive = g->p->period == 0,
		.ids = s->ids, .n = g->n, .max = (block < room ? block : room) - 1,
		.check_below = g->p->check_below, .classes = s->model->token_classes,
		.is_stop = draft_is_stop, .ctx = g->probe, .evidence = g->evidence, .confidence = g->confidence,
		.n_vocab = s->model->weights->cfg.n_vocab,
	};
	if (g->lossless)
		mzm_gen_lossless_job(g, i, &job);
	return job;
}

void mzm_gen_count_draft(mzm_generation *g, const mzm_draft_job *job)
{
	g->r->n_sparse_passes += job->n_passes;
	g->r->n_sparse_positions += job->n_positions;
	g->ffn_share += job->ffn_share;
	g->node_share += job->node_share;
	g->work += job->work;
	if (job->ffn_share > 0) {
		g->n_shares += job->n_passes;
		g->n_share_positions += job->n_positions;
	}
}

/* How long a line of guesses pays, by what became of those before: costs and acceptance know no single token. */
static int32_t guesses(const mzm_draft_job *job)
{
	const mzm_monitor *m = job->monitor;
	int32_t n;
	mzm_monitor_best_rate(&m->costs, (m->accepted + 1) / (m->accepted + m->rejected + 2), &n);
	return n < 2 ? 1 : n - 1;
}

mzm_status mzm_gen_propose(mzm_generation *g, int i, mzm_draft_job *job)
{
	mzm_drafter *d = g->drafter[i].d;
	bool worth = mzm_monitor_begin(job->monitor);
	mzm_output_probe(g->probe, g->out);
	if (job->adaptive && d->ops->runs_passes && !worth)
		job->max = 0;
	if (job->adaptive && !d->ops->runs_passes && job->max > guesses(job))
		job->max = guesses(job);
	mzm_kv_truncate(g->kv, g->n - 1);
	MZM_TRY(d->ops->propose(d, job, g->err));
	mzm_gen_count_draft(g, job);
	return MZM_OK;
}

void mzm_gen_learn_line(mzm_generation *g, int i, const mzm_evidence *evidence, int32_t n_draft, int32_t n_kept,
			int32_t n_gained, int32_t n_checked)
{
	mzm_draft_stats *stats = g->drafter[i].stats;
	stats->n_rounds += n_draft > 0;
	stats->n_drafted += n_draft;
	stats->n_accepted += n_kept;
	mzm_monitor_learn(g->drafter[i].monitor, evidence, n_draft, n_kept, n_gained, n_checked);
}

const mzm_verifier *mzm_gen_verifier(const mzm_generation *g, int i)
{
	const mzm_verifier *v = mzm_verifier_for(g->p->mode);
	bool sparse = g->drafter[i].d->ops == &mzm_draft_sparse;
	return v == &mzm_verify_sirius && !sparse ? &mzm_verify_exact : v;
}

/* ---- ablations ---- */

static bool leaves_out(const mzm_generation *g, mzm_ablation part)
{
	return g->p->mode == MZM_MODE_SIRIUS && (g->p->ablate & part);
}

mzm_status mzm_gen_prepare_checked(mzm_generation *g)
{
	size_t per_token = 2 * (size_t)g->kv->n_layers * (size_t)g->kv->n_kv_heads * g->kv->row_bytes;
	MZM_TRY(mzm_gen_open_drafters(g));
	MZM_TRY(mzm_gen_prepare_lossless(g));
	MZM_TRY(mzm_gen_prepare_tree(g));
	MZM_TRY(mzm_gen_prepare_lines(g));
	if (!leaves_out(g, MZM_ABLATE_KV_REWRITE))
		return MZM_OK;
	if (g->s->model->plan.ram_bytes)
		return mzm_fail(g->err, MZM_EUNDEFINED, "no study of the KV rewrite (ablate) under a memory budget");
	return mzm_alloc_for((void **)&g->sparse_rows, MZM_MAX_PERIOD * per_token, "rows of drafts", g->err);
}

mzm_status mzm_gen_begin_checked(mzm_generation *g)
{
	for (int i = 0; i < g->n_drafters; i++) {
		mzm_drafter *d = g->drafter[i].d;
		if (d->ops->read)
			MZM_TRY(d->ops->read(d, g->s->ids, g->n, g->err));
		if (d->ops->begin)
			d->ops->begin(d, g->s->ids, g->n);
	}
	return mzm_gen_settle_costs(g);
}

void mzm_gen_free_checked(mzm_generation *g)
{
	mzm_gen_close_drafters(g);
	mzm_gen_free_lossless(g);
	mzm_free(g->lines);
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

/* What the full model would have chosen behind each of the n draft tokens, those that stand or not. In lossless
 * sampling, which draws only what it needs, the likeliest: the best guess there is. */
static void choose_all(mzm_generation *g, const float *rows, int32_t n)
{
	size_t n_vocab = (size_t)g->s->model->weights->cfg.n_vocab;
	for (int32_t i = 0; i <= n; i++) {
		const float *logits =
			mzm_sampler_process(g->s->sampler, rows + (size_t)i * n_vocab, g->s->ids, g->n + i);
		g->choice[i] = g->lossless ? mzm_sampler_likeliest(g->s->sampler, logits)
					   : mzm_sampler_choose(g->s->sampler, logits, g->n + i);
	}
}

/* How many of the n draft tokens behind g->n stand; *next: the full model's own token after those. */
static int32_t judge(mzm_generation *g, int drafter, const float *rows, int32_t n, int32_t *next)
{
	const int32_t *ids = g->s->ids;
	const mzm_verifier *verifier = mzm_gen_verifier(g, drafter);
	size_t n_vocab = (size_t)g->s->model->weights->cfg.n_vocab;
	for (int32_t i = 0;; i++) {
		const float *logits = mzm_sampler_process(g->s->sampler, rows + (size_t)i * n_vocab, ids, g->n + i);
		bool stands = false;
		if (g->lossless)
			mzm_gen_lossless_begin(g, logits);
		else
			*next = mzm_sampler_choose(g->s->sampler, logits, g->n + i);
		if (i < n) {
			stands = g->lossless ? mzm_gen_lossless_stands(g, drafter, i, ids[g->n + i])
					     : mzm_gen_stands(g, verifier, logits, ids[g->n + i], *next, g->n + i);
			g->full_prob[i] = mzm_gen_traced_prob(g, logits, ids[g->n + i]);
		}
		if (!stands) {
			if (g->lossless)
				*next = mzm_gen_lossless_draw(g, i, i == n);
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
	if (!mzm_gen_needs_predictor(g->p))
		return NULL;
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
	if (pass->observer && pass->observer->ops->refreshes)
		g->s->predictor->ops->settle(g->s->predictor);
	g->r->n_checks++;
	g->r->n_dense_passes++;
	g->r->n_dense_positions += pass->n_pos;
	return MZM_OK;
}

static mzm_status propose_line(mzm_generation *g, int i, mzm_round *r)
{
	mzm_draft_job job = mzm_gen_draft_job(g, i);
	MZM_TRY(mzm_gen_propose(g, i, &job));
	r->drafter = i;
	r->n_draft = job.n_draft;
	return MZM_OK;
}

/* Checks the line of one drafter. */
static mzm_status check_line(mzm_generation *g, mzm_round *r)
{
	int32_t base = g->n - 1;
	int i = r->drafter;
	float *rows;
	copy_rows(g, base, r->n_draft, false); /* the last token of a draft has none */
	mzm_kv_truncate(g->kv, base);
	mzm_pass pass = {.ids = g->s->ids + base, .n_pos = r->n_draft + 1, .n_rows = r->n_draft + 1};
	MZM_TRY(mzm_gen_check(g, &pass, &rows));
	copy_rows(g, base, r->n_draft, true);
	if (g->choice && g->drafter[i].d->ops->wants_choices)
		choose_all(g, rows, r->n_draft);
	r->n_kept = judge(g, i, rows, r->n_draft, &r->next);
	mzm_gen_learn_line(g, i, g->evidence, r->n_draft, r->n_kept, r->n_kept + 1, r->n_draft + 1);
	memcpy(g->line, g->s->ids + g->n, (size_t)r->n_draft * sizeof *g->line);
	return MZM_OK;
}

static mzm_status line_round(mzm_generation *g, mzm_round *r)
{
	MZM_TRY(propose_line(g, 0, r));
	return check_line(g, r);
}

/* "auto": the drafter with the best rate so far. One that has no guess costs nothing, and another has the turn. */
static mzm_status auto_round(mzm_generation *g, mzm_round *r)
{
	int32_t passes = g->r->n_sparse_passes;
	unsigned available = 0;
	int at[MZM_MAX_DRAFTERS];
	for (int i = 0; i < g->n_drafters; i++) {
		at[g->drafter[i].index] = i;
		available |= 1u << g->drafter[i].index;
	}
	for (; available; available &= ~(1u << g->drafter[r->drafter].index)) {
		MZM_TRY(propose_line(g, at[mzm_draft_policy_choose(&g->s->policy, available)], r));
		if (r->n_draft > 0 || g->drafter[r->drafter].d->ops->runs_passes)
			break;
	}
	MZM_TRY(check_line(g, r));
	const mzm_gen_drafter *d = &g->drafter[r->drafter];
	double cost = (g->r->n_sparse_passes - passes) * (double)d->cost +
		      (double)d->monitor->costs.check[r->n_draft + 1];
	mzm_draft_policy_learn(&g->s->policy, d->index, r->n_kept + 1, cost);
	return MZM_OK;
}

/* What drafters are told behind a round: in one with several lines each has its own. */
static void tell(mzm_generation *g, const mzm_round *r, int32_t n_before)
{
	for (int i = 0; i < g->n_drafters; i++) {
		mzm_drafter *d = g->drafter[i].d;
		mzm_draft_news news = {.ids = g->s->ids, .n = g->n, .n_before = n_before, .n_draft = -1};
		if (g->lines) {
			news.draft = g->lines->id[i];
			news.n_draft = g->lines->len[i];
			news.n_kept = g->lines->kept[i];
		} else if (r->drafter == i) {
			news.draft = g->line;
			news.n_draft = r->n_draft;
			news.n_kept = r->n_kept;
		}
		news.choice = d->ops->wants_choices && news.n_draft >= 0 ? g->choice : NULL;
		if (d->ops->learn)
			d->ops->learn(d, &news);
	}
}

static mzm_status one_round(mzm_generation *g, mzm_round *r)
{
	if (g->lines)
		return mzm_gen_lines_round(g, r);
	if (g->tree)
		return mzm_gen_tree_round(g, r);
	return mzm_draft_is_auto(g->p->draft) ? auto_round(g, r) : line_round(g, r);
}

mzm_status mzm_gen_decode_checked(mzm_generation *g)
{
	while (!g->done) {
		mzm_round r = {.drafter = -1};
		int32_t n_before = g->n;
		MZM_TRY(one_round(g, &r));
		settle_check(g, r.n_draft, r.n_kept, r.next);
		mzm_kv_truncate(g->kv, g->n - 1);
		tell(g, &r, n_before);
	}
	g->r->n_checks_paper = g->r->n_checks > 0 ? g->r->n_checks - 1 : 0;
	g->r->n_gained_paper = g->r->n_gained - g->last_gained;
	return MZM_OK;
}
