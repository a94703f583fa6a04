/* calibrate_monitor.c - the prior of a model's confidence monitor (decode/monitor.h), from what checks find on the
 * calibration texts: continuations are drafted and checked in exact mode under a few settings, each of which counts
 * the same, whatever it drafts. */
#include "engine/calibrate.h"

#include <string.h>

#define PROMPT_TOKENS 64 /* of a text, or half of it; the model goes on from there */
#define NEW_TOKENS    48
#define LEAST_PROMPT  8
#define PERIOD        12

static const struct setting {
	const char *predictor;
	float       keep;
} settings[] = {{"griffin", 0.5f}, {"griffin-live", 0.5f}, {"topk", 0.1f}, {"countdown", 0.1f}};

enum { N_SETTINGS = sizeof settings / sizeof settings[0] };

/* Judges about n_wanted draft tokens of one setting; they end up in the session's log. */
static mzm_status judge(mzm_calibration *c, const struct setting *s, size_t n_wanted, mzm_err *err)
{
	mzm_monitor_log *log = c->session->monitor.log;
	mzm_gen_params p = mzm_gen_params_default();
	mzm_gen_result result;
	size_t first = log->n;
	p.mode = MZM_MODE_EXACT;
	p.predictor = s->predictor;
	p.keep = s->keep;
	p.period = PERIOD;
	p.max_tokens = NEW_TOKENS;
	p.ignore_eos = true;
	for (size_t t = 0; t < c->n_texts && log->n - first < n_wanted; t++) {
		size_t begin = t ? c->ends[t - 1] : 0, n = (c->ends[t] - begin) / 2;
		n = n < PROMPT_TOKENS ? n : PROMPT_TOKENS;
		if (n < LEAST_PROMPT || (int32_t)n + NEW_TOKENS > mzm_session_n_ctx(c->session))
			continue;
		MZM_TRY(mzm_generate(c->session, c->ids + begin, (int32_t)n, &p, &result, err));
		MZM_TRY(mzm_calibrate_tell(c, "judging drafts", log->n, N_SETTINGS * n_wanted, err));
	}
	for (size_t i = first; i < log->n; i++)
		log->cases[i].weight = (float)((double)n_wanted / (double)(log->n - first));
	return MZM_OK;
}

mzm_status mzm_calibrate_monitor(mzm_calibration *c, mzm_calib_writer *to, mzm_err *err)
{
	mzm_status st = MZM_OK;
	mzm_monitor_prior prior;
	size_t n_wanted = (size_t)c->params.n_judged;
	mzm_monitor_log log = {.cap = N_SETTINGS * (n_wanted + 2 * MZM_MAX_PERIOD + NEW_TOKENS)};
	MZM_TRY(mzm_alloc_for((void **)&log.cases, log.cap * sizeof log.cases[0], "judged tokens", err));
	c->session->monitor.log = &log;
	for (int i = 0; i < N_SETTINGS && st == MZM_OK; i++) {
		mzm_monitor_reset(&c->session->monitor);
		st = judge(c, &settings[i], n_wanted, err);
	}
	c->session->monitor.log = NULL;
	c->n_judged = log.n;
	if (st == MZM_OK && log.n > 0) {
		mzm_monitor_fit(&prior, log.cases, log.n);
		st = mzm_calib_add(to, MZM_MONITOR_TENSOR, -1, MZM_F32, 2, MZM_MONITOR_FEATURES, &prior, err);
	}
	mzm_free(log.cases);
	return st;
}
