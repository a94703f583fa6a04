/* draft_skip.c - drafts with the model itself, some of whose attentions and FFNs are left out (arXiv 2309.08168). The
 * FFNs that are left run dense, or (skip_keep) on the neurons that the predictor chooses. Rows that a skipped attention
 * does not write are nobody's: the check writes all of them. */
#include <string.h>

#include "base/rng.h"
#include "decode/draft_exit.h"
#include "decode/skip_set.h"

typedef struct skip_drafter {
	mzm_drafter    base;
	mzm_draft_env  env;
	mzm_exit       exit;
	uint64_t       settings;
	mzm_predictor *predictor; /* NULL: what is left is dense */
	bool           image, held;
	uint8_t        skip[];    /* [2 * n_layers] */
} skip_drafter;

static mzm_status choose_set(skip_drafter *d, mzm_err *err)
{
	const mzm_draft_env *env = &d->env;
	int32_t n = env->cfg->n_layers;
	const char *text = env->p->skip ? env->p->skip : MZM_SKIP_AUTO;
	if (strcmp(text, MZM_SKIP_AUTO) != 0)
		return mzm_skip_parse(d->skip, n, text, err);
	if (!mzm_skip_find(d->skip, env->calib, n))
		return mzm_fail(err, MZM_EUNDEFINED,
				"drafts that skip layers need to know which: give a set (skip), or let mirzam "
				"calibrate --skip find one");
	if (mzm_skip_count(d->skip, n, false) + mzm_skip_count(d->skip, n, true) == 0)
		return mzm_fail(err, MZM_EUNDEFINED,
				"the calibration found no layers whose omission pays on this model; a set can be given "
				"(skip)");
	return MZM_OK;
}

/* What is left out, and how the rest is read. */
static uint64_t settings_of(const skip_drafter *d)
{
	unsigned how = (d->predictor ? 1u : 0) + (d->image ? 2u : 0) + (d->held ? 4u : 0);
	uint64_t hash = mzm_exit_settings(d->env.p) ^ how;
	for (int32_t i = 0; i < 2 * d->env.cfg->n_layers; i++)
		hash = mzm_rng_mix(hash) ^ d->skip[i];
	return mzm_rng_mix(hash);
}

static uint64_t skip_settings(const mzm_drafter *d)
{
	return ((const skip_drafter *)d)->settings;
}

static mzm_status skip_create(mzm_drafter **out, const mzm_draft_env *env, mzm_err *err)
{
	mzm_status st;
	skip_drafter *d;
	size_t n = 2 * (size_t)env->cfg->n_layers;
	bool sparse = env->p->skip_keep > 0 && env->p->skip_keep < 1;
	MZM_TRY(mzm_alloc_for((void **)&d, sizeof *d + n, "the drafter", err));
	d->base.ops = &mzm_draft_skip;
	d->env = *env;
	d->predictor = sparse ? env->predictor : NULL;
	d->image = sparse ? env->image : env->whole_image;
	d->held = sparse && env->held;
	mzm_exit_start(&d->exit, env->p);
	if (!d->image && !d->held && mzm_state_streams(env->state))
		MZM_TRY_OUT(mzm_fail(err, MZM_EUNDEFINED,
				     "drafts that skip layers need the whole model in memory (--store resident), or a "
				     "draft image of it"));
	MZM_TRY_OUT(choose_set(d, err));
	d->settings = settings_of(d);
	*out = &d->base;
	return MZM_OK;
out:
	mzm_free(d);
	return st;
}

static void skip_free(mzm_drafter *d)
{
	mzm_free(d);
}

static bool skip_predicts(const mzm_drafter *d)
{
	return ((const skip_drafter *)d)->predictor != NULL;
}

static mzm_pass pass_of(const skip_drafter *d, const int32_t *ids)
{
	return (mzm_pass){.ids = ids, .n_pos = 1, .n_rows = 1, .sparse = d->predictor, .draft = d->image,
			  .held = d->held, .skip = d->skip};
}

/* In dense passes, by the share of the FFN weights that a pass read. */
static double work_of(const skip_drafter *d, double share)
{
	return d->env.work[d->image].base + d->env.work[d->image].per_share * share;
}

static mzm_status skip_propose(mzm_drafter *base, mzm_draft_job *job, mzm_err *err)
{
	skip_drafter *d = (skip_drafter *)base;
	bool ends = job->max < 1;
	while (!ends) {
		float *logits;
		double share;
		mzm_pass pass = pass_of(d, job->ids + job->n + job->n_draft - 1);
		MZM_TRY(mzm_forward(job->state, &pass, &logits, &share, err));
		job->n_passes++;
		job->n_positions++;
		job->work += work_of(d, share);
		ends = mzm_exit_take(&d->exit, job, logits);
	}
	return MZM_OK;
}

static void skip_learn(mzm_drafter *base, const mzm_draft_news *news)
{
	mzm_exit_learn(&((skip_drafter *)base)->exit, news->n_draft, news->n_kept);
}

/* Of a sparse pass the share is foreseen: that of one over all layers, less what is skipped of it. */
static double skip_cost(const mzm_drafter *base)
{
	const skip_drafter *d = (const skip_drafter *)base;
	int32_t n = d->env.cfg->n_layers;
	double left = 1 - (double)mzm_skip_count(d->skip, n, true) / n;
	double dense = mzm_state_skip_share(d->env.state, d->skip, d->image);
	return work_of(d, d->predictor ? dense - left + left * d->env.sparse_share : dense);
}

static mzm_status skip_try_pass(mzm_drafter *base, mzm_err *err)
{
	skip_drafter *d = (skip_drafter *)base;
	mzm_kv *kv = mzm_state_kv(d->env.state);
	int32_t id = 0, len = kv->len;
	mzm_pass pass = pass_of(d, &id);
	MZM_TRY(mzm_forward(d->env.state, &pass, NULL, NULL, err));
	mzm_kv_truncate(kv, len);
	return MZM_OK;
}

const mzm_drafter_ops mzm_draft_skip = {
	.name = "skip", .about = "the model itself without some of its layers",
	.runs_passes = true, .predicts = skip_predicts,
	.create = skip_create, .free = skip_free, .propose = skip_propose, .learn = skip_learn, .cost = skip_cost,
	.settings = skip_settings, .try_pass = skip_try_pass,
};
