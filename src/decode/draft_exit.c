/* draft_exit.c - see draft_exit.h. */
#include "decode/draft_exit.h"

#include "base/half.h"
#include "base/rng.h"

#define GAMMA_GREEDY   0.8
#define GAMMA_SAMPLING 0.5
#define STEP           0.01
#define ENOUGH         0.9  /* of the drafted tokens kept */
#define KEEP_MATCHED   0.5
#define KEEP_GAMMA     0.9

void mzm_exit_start(mzm_exit *e, const mzm_gen_params *p)
{
	bool adapts = p->draft_exit < 0 && p->period > 0;
	double start = p->temp > 0 ? GAMMA_SAMPLING : GAMMA_GREEDY;
	*e = (mzm_exit){.adapts = adapts, .longest = p->period - 1,
			.gamma = adapts ? start : p->draft_exit > 0 ? (double)p->draft_exit : 0};
}

uint64_t mzm_exit_settings(const mzm_gen_params *p)
{
	return mzm_rng_mix(mzm_f32_bits(p->draft_exit));
}

bool mzm_exit_take(const mzm_exit *e, mzm_draft_job *job, const float *logits)
{
	bool ends = mzm_draft_take(job, logits);
	return ends || (double)job->evidence[job->n_draft - 1].certainty.prob < e->gamma;
}

void mzm_exit_learn(mzm_exit *e, int32_t n_draft, int32_t n_kept)
{
	if (!e->adapts || n_draft < 1)
		return;
	e->matched = KEEP_MATCHED * e->matched + (1 - KEEP_MATCHED) * ((double)n_kept / n_draft);
	double target = e->matched < ENOUGH ? e->gamma + STEP : n_draft == e->longest ? e->gamma : e->gamma - STEP;
	e->gamma = KEEP_GAMMA * e->gamma + (1 - KEEP_GAMMA) * target;
}
