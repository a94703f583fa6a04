/* draft_sparse.c - drafts with sparse passes of the model itself, one token after the other, until the block is full, a
 * stop is proposed, or the monitor or a threshold wants a check. */
#include "decode/drafter.h"

typedef struct sparse_drafter {
	mzm_drafter   base;
	mzm_draft_env env;
} sparse_drafter;

static mzm_status sparse_create(mzm_drafter **out, const mzm_draft_env *env, mzm_err *err)
{
	sparse_drafter *d;
	MZM_TRY(mzm_alloc_for((void **)&d, sizeof *d, "the drafter", err));
	*d = (sparse_drafter){{&mzm_draft_sparse}, *env};
	*out = &d->base;
	return MZM_OK;
}

static void sparse_free(mzm_drafter *d)
{
	mzm_free(d);
}

mzm_status mzm_draft_sparse_pass(mzm_draft_job *job, float **logits, mzm_err *err)
{
	double share;
	mzm_pass pass = {.ids = job->ids + job->n + job->n_draft - 1, .n_pos = 1, .n_rows = 1,
			 .sparse = job->predictor, .draft = job->image, .held = job->held};
	MZM_TRY(mzm_forward(job->state, &pass, logits, &share, err));
	job->n_passes++;
	job->n_positions++;
	job->ffn_share += share;
	job->node_share += share;
	return MZM_OK;
}

static mzm_status sparse_propose(mzm_drafter *d, mzm_draft_job *job, mzm_err *err)
{
	bool ends = job->max < 1;
	(void)d;
	while (!ends) {
		float *logits;
		MZM_TRY(mzm_draft_sparse_pass(job, &logits, err));
		ends = mzm_draft_take(job, logits);
	}
	return MZM_OK;
}

static double sparse_cost(const mzm_drafter *d)
{
	return ((const sparse_drafter *)d)->env.sparse_work;
}

mzm_status mzm_draft_sparse_try(const mzm_draft_env *env, mzm_err *err)
{
	mzm_kv *kv = mzm_state_kv(env->state);
	int32_t id = 0, len = kv->len;
	mzm_pass pass = {.ids = &id, .n_pos = 1, .n_rows = 1, .sparse = env->predictor, .draft = env->image,
			 .held = env->held};
	MZM_TRY(mzm_forward(env->state, &pass, NULL, NULL, err));
	mzm_kv_truncate(kv, len);
	return MZM_OK;
}

static mzm_status sparse_try_pass(mzm_drafter *d, mzm_err *err)
{
	return mzm_draft_sparse_try(&((sparse_drafter *)d)->env, err);
}

const mzm_drafter_ops mzm_draft_sparse = {
	.name = "sparse", .about = "the model itself on predicted neurons",
	.runs_passes = true, .needs_predictor = true,
	.create = sparse_create, .free = sparse_free, .propose = sparse_propose, .cost = sparse_cost,
	.try_pass = sparse_try_pass,
};
