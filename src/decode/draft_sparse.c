/* draft_sparse.c - drafts with sparse passes of the model itself, one token after the other, until the
 * block is full, a stop is proposed, or the monitor or a threshold wants a check. The token that made it
 * doubt stays. */
#include "decode/drafter.h"

#include <string.h>

static mzm_evidence evidence_of(const mzm_draft_job *job, mzm_certainty certainty)
{
	const int32_t *last = job->ids + job->n + job->n_draft;
	return (mzm_evidence){certainty, job->classes ? job->classes[*last] : 0,
			      job->classes ? job->classes[last[-1]] : 0};
}

static mzm_status sparse_propose(mzm_draft_job *job, mzm_err *err)
{
	bool worth = mzm_monitor_begin(job->monitor);
	int32_t max = worth || !job->adaptive ? job->max : 0;
	for (job->n_draft = 0; job->n_draft < max;) {
		int32_t i = job->n_draft, n = job->n + i;
		float *logits;
		double share;
		mzm_pass pass = {.ids = job->ids + n - 1, .n_pos = 1, .n_rows = 1, .sparse = job->predictor,
				 .draft = job->image, .held = job->held};
		MZM_TRY(mzm_forward(job->state, &pass, &logits, &share, err));
		const float *processed = mzm_sampler_process(job->sampler, logits, job->ids, n);
		int32_t id = mzm_sampler_choose(job->sampler, processed, n);
		job->ids[n] = id;
		job->evidence[i] = evidence_of(job, mzm_sampler_certainty(job->sampler, processed, id));
		job->confidence[i] = mzm_monitor_confidence(job->monitor, &job->evidence[i]);
		job->n_draft++;
		job->n_passes++;
		job->n_positions++;
		job->ffn_share += share;
		job->node_share += share;
		bool check = mzm_monitor_push(job->monitor, job->confidence[i]);
		if (job->is_stop(job->ctx, id) || (job->adaptive && check) || job->confidence[i] < job->check_below)
			break;
	}
	return MZM_OK;
}

const mzm_drafter mzm_draft_sparse = {"sparse", sparse_propose};

const mzm_drafter *mzm_drafter_find(const char *name)
{
	return strcmp(name, mzm_draft_sparse.name) == 0 ? &mzm_draft_sparse : NULL;
}
