/* draft_model.c - drafts with another, smaller model that has the same tokens (arXiv 2211.17192, 2302.01318).
 *
 * It has a state of its own, which the session keeps: own_ids are the tokens whose rows that has. What they share with
 * the text stays, the rest is rolled back, and the tokens that are missing are read, in one pass where that has room. A
 * text that is longer than the draft model's context, or that has a token the draft model does not know, gets no more
 * drafts. */
#include <string.h>

#include "decode/draft_exit.h"

#define IMPOSSIBLE -1e30f /* logit of a token that the draft model does not have; finite, so that sums are */

typedef struct model_drafter {
	mzm_drafter   base;
	mzm_draft_env env;
	mzm_exit      exit;
	uint64_t      settings;
	int32_t       n_vocab; /* of the full model */
	int32_t       n_own;   /* of the draft model */
	float         wide[];  /* [n_vocab] logits, if the draft model's are fewer */
} model_drafter;

static mzm_status model_create(mzm_drafter **out, const mzm_draft_env *env, mzm_err *err)
{
	model_drafter *d;
	if (!env->own)
		return mzm_fail(err, MZM_EUNDEFINED, "drafts of a second model need that model (draft-model)");
	int32_t n = env->cfg->n_vocab, n_own = env->own_cfg->n_vocab;
	size_t n_wide = n_own < n ? (size_t)n : 0;
	MZM_TRY(mzm_alloc_for((void **)&d, sizeof *d + n_wide * sizeof d->wide[0], "the drafter", err));
	d->base.ops = &mzm_draft_model;
	d->env = *env;
	d->n_vocab = n;
	d->n_own = n_own;
	for (size_t i = (size_t)n_own; i < n_wide; i++)
		d->wide[i] = IMPOSSIBLE;
	mzm_exit_start(&d->exit, env->p);
	d->settings = mzm_exit_settings(env->p);
	*out = &d->base;
	return MZM_OK;
}

static void model_free(mzm_drafter *d)
{
	mzm_free(d);
}

/* Rows that stand for the first tokens of the text; but the last token is to be read in any case. */
static void keep_rows(model_drafter *d, const int32_t *ids, int32_t n)
{
	mzm_kv *kv = mzm_state_kv(d->env.own);
	int32_t most = kv->len < n - 1 ? kv->len : n - 1, same = 0;
	while (same < most && d->env.own_ids[same] == ids[same])
		same++;
	mzm_kv_truncate(kv, same);
}

static bool knows(const model_drafter *d, const int32_t *ids, int32_t first, int32_t n)
{
	for (int32_t i = first; i < n; i++) {
		if (ids[i] >= d->n_own)
			return false;
	}
	return true;
}

/* The next pass over ids[kv->len .. n), of *step positions; *logits, unless NULL: behind the last of them. There must
 * be room. */
static mzm_status read_some(model_drafter *d, const int32_t *ids, int32_t n, float **logits, int32_t *step,
			    mzm_err *err)
{
	int32_t first = mzm_state_kv(d->env.own)->len, most = mzm_state_max_pos(d->env.own);
	*step = n - first < most ? n - first : most;
	mzm_pass pass = {.ids = ids + first, .n_pos = *step, .n_rows = logits && first + *step == n,
			 .gemm = d->env.own_gemm};
	memcpy(d->env.own_ids + first, ids + first, (size_t)*step * sizeof *ids);
	return mzm_forward(d->env.own, &pass, logits, NULL, err);
}

/* For a draft: all of it. */
static mzm_status read_on(model_drafter *d, mzm_draft_job *job, int32_t n, float **logits, mzm_err *err)
{
	mzm_kv *kv = mzm_state_kv(d->env.own);
	for (int32_t step; kv->len < n;) {
		MZM_TRY(read_some(d, job->ids, n, logits, &step, err));
		job->n_passes++;
		job->n_positions += step;
		job->work += d->env.own_work;
	}
	return MZM_OK;
}

/* Of the prompt, with progress. What was read stays, also where it ends early. */
static mzm_status read_prompt(model_drafter *d, const int32_t *ids, int32_t n, mzm_err *err)
{
	const mzm_gen_params *p = d->env.p;
	mzm_kv *kv = mzm_state_kv(d->env.own);
	for (int32_t step; kv->len < n;) {
		MZM_TRY(read_some(d, ids, n, NULL, &step, err));
		if (p->on_prefill && p->on_prefill(p->user, "draft prompt", (uint64_t)kv->len, (uint64_t)n))
			return mzm_fail(err, MZM_ECANCELLED, "cancelled while the draft model read the prompt");
	}
	return MZM_OK;
}

/* So that the first draft need not; anew, unless the session itself goes on from what it has: in lossless sampling
 * drafts decide the text, and that shall not depend on earlier ones. */
static mzm_status model_read(mzm_drafter *base, const int32_t *ids, int32_t n, mzm_err *err)
{
	model_drafter *d = (model_drafter *)base;
	mzm_kv *kv = mzm_state_kv(d->env.own);
	if (!d->env.p->keep_prefix)
		mzm_kv_truncate(kv, 0);
	keep_rows(d, ids, n);
	if (n >= kv->max_tok || !knows(d, ids, kv->len, n))
		return MZM_OK;
	mzm_state_watch(d->env.own, d->env.p->on_stream, d->env.p->user);
	mzm_status st = read_prompt(d, ids, n, err);
	mzm_state_watch(d->env.own, NULL, NULL);
	return st;
}

/* Logits as long as the full model's vocabulary. */
static const float *widen(model_drafter *d, const float *logits)
{
	if (d->n_own >= d->n_vocab)
		return logits;
	memcpy(d->wide, logits, (size_t)d->n_own * sizeof *d->wide);
	return d->wide;
}

static mzm_status model_propose(mzm_drafter *base, mzm_draft_job *job, mzm_err *err)
{
	model_drafter *d = (model_drafter *)base;
	mzm_kv *kv = mzm_state_kv(d->env.own);
	bool ends = job->max < 1;
	if (!ends)
		keep_rows(d, job->ids, job->n);
	while (!ends) {
		float *logits;
		int32_t n = job->n + job->n_draft;
		if (n > kv->max_tok || !knows(d, job->ids, kv->len, n))
			break;
		MZM_TRY(read_on(d, job, n, &logits, err));
		ends = mzm_exit_take(&d->exit, job, widen(d, logits));
	}
	return MZM_OK;
}

static void model_learn(mzm_drafter *base, const mzm_draft_news *news)
{
	mzm_exit_learn(&((model_drafter *)base)->exit, news->n_draft, news->n_kept);
}

static double model_cost(const mzm_drafter *d)
{
	return ((const model_drafter *)d)->env.own_work;
}

static uint64_t model_settings(const mzm_drafter *d)
{
	return ((const model_drafter *)d)->settings;
}

static mzm_status model_try_pass(mzm_drafter *base, mzm_err *err)
{
	model_drafter *d = (model_drafter *)base;
	mzm_kv *kv = mzm_state_kv(d->env.own);
	mzm_kv_truncate(kv, kv->max_tok - 1);
	int32_t id = 0, len = kv->len;
	mzm_pass pass = {.ids = &id, .n_pos = 1, .n_rows = 1};
	MZM_TRY(mzm_forward(d->env.own, &pass, NULL, NULL, err));
	mzm_kv_truncate(kv, len);
	return MZM_OK;
}

const mzm_drafter_ops mzm_draft_model = {
	.name = "model", .about = "a second, smaller model with the same tokens",
	.runs_passes = true,
	.create = model_create, .free = model_free, .read = model_read, .propose = model_propose,
	.learn = model_learn, .cost = model_cost, .settings = model_settings, .try_pass = model_try_pass,
};
