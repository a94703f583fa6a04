/* draft_line.c - drafts that are lines: how a token joins one, and when the draft has to end. The token that made it
 * doubt stays. */
#include "decode/drafter.h"

#include <math.h>

static mzm_evidence evidence_of(const mzm_draft_job *job, mzm_certainty certainty)
{
	const int32_t *last = job->ids + job->n + job->n_draft;
	return (mzm_evidence){certainty, job->classes ? job->classes[*last] : 0,
			      job->classes ? job->classes[last[-1]] : 0};
}

/* In lossless sampling it is drawn, by random numbers that nothing else uses. */
static int32_t next_token(mzm_draft_job *job, const float *processed, int32_t i)
{
	int32_t pos = job->n + i;
	if (!job->q)
		return mzm_sampler_choose(job->sampler, processed, pos);
	float *q = job->q + (size_t)i * (size_t)job->n_vocab;
	job->q_total[i] = mzm_sampler_weights(job->sampler, q, processed);
	return mzm_sampler_draw(job->sampler, q, job->q_total[i],
				mzm_sampler_unit(job->sampler, MZM_FOR_DRAFT, pos, job->round, job->line));
}

bool mzm_draft_take(mzm_draft_job *job, const float *logits)
{
	int32_t i = job->n_draft, n = job->n + i;
	const float *processed = mzm_sampler_process(job->sampler, logits, job->ids, n);
	int32_t id = next_token(job, processed, i);
	job->ids[n] = id;
	job->evidence[i] = evidence_of(job, mzm_sampler_certainty(job->sampler, processed, id));
	job->confidence[i] = mzm_monitor_confidence(job->monitor, &job->evidence[i]);
	job->n_draft++;
	bool check = mzm_monitor_push(job->monitor, job->confidence[i]);
	return job->is_stop(job->ctx, id) || (job->adaptive && check) || job->confidence[i] < job->check_below ||
	       job->n_draft == job->max;
}

bool mzm_draft_guess(mzm_draft_job *job, int32_t id)
{
	int32_t i = job->n_draft;
	if (job->q)
		job->q_total[i] = 0;
	job->ids[job->n + i] = id;
	job->evidence[i] = evidence_of(job, (mzm_certainty){NAN, NAN, NAN});
	job->confidence[i] = NAN;
	job->n_draft++;
	return job->is_stop(job->ctx, id) || job->n_draft == job->max;
}
