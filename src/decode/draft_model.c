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

/* Reads ids[kv->len .. n); *logits: behind the last of them, unless NULL. There must be room. */
static mzm_status read_on(model_drafter *d, const int32_t *ids, int32_t n, float **logits, mzm_draft_job *job,
			  mzm_err *err)
{
	mzm_kv *kv = mzm_state_kv(d->env.own);
	int32_t most = mzm_state_max_pos(d->env.own);
	while (kv->len < n) {
		int32_t first = kv->len, step = n - first < most ? n - first : most;
		mzm_pass pass = {.ids = ids + first, .n_pos = step, .n_rows = logits && first + step == n,
				 .gemm = d->env.own_gemm};
		memcpy(d->env.own_ids + first, ids + first, (size_t)step * sizeof *ids);
		MZM_TRY(mzm_forward(d->env.own, &pass, logits, NULL, err));
		if (job) {
			job->n_passes++;
			job->n_positions += step;
			job->work += d->env.own_work;
		}
	}
	return MZM_OK;
}

/* Reads the prompt, so that the first draft need not; anew, unless the session itself goes on from what it has: in
 * lossless sampling drafts decide the text, and that shall not depend on earlier ones. What fails here fails again when
 * a draft is wanted. */
static void model_begin(mzm_drafter *base, const int32_t *ids, int32_t n)
{
	model_drafter *d = (model_drafter *)base;
	mzm_kv *kv = mzm_state_kv(d->env.own);
	if (!d->env.p->keep_prefix)
		mzm_kv_truncate(kv, 0);
	keep_rows(d, ids, n);
	if (n < kv->max_tok && knows(d, ids, kv->len, n))
		(void)read_on(d, ids, n, NULL, NULL, NULL);
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
		MZM_TRY(read_on(d, job->ids, n, &logits, job, err));
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
	.create = model_create, .free = model_free, .begin = model_begin, .propose = model_propose,
	.learn = model_learn, .cost = model_cost, .try_pass = model_try_pass,
};
