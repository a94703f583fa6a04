/* calibrate_skip.h - which sub-layers drafts leave out: how good a set is, and the search for the best one. */
#ifndef MZM_CALIBRATE_SKIP_H
#define MZM_CALIBRATE_SKIP_H

#include "engine/calibrate.h"

/* What a set is worth where passes cost what they read. */
typedef struct mzm_skip_score {
	double  draft;   /* what a draft pass reads, in dense passes */
	double  agrees;  /* share of the tokens that are the dense model's */
	double  rate;    /* tokens a dense pass, with the best period: 1 is what dense decoding gives */
	int32_t period;
} mzm_skip_score;

typedef struct mzm_skip_judge mzm_skip_judge;

/* On the windows of the calibration, which must be chosen. -> mzm_skip_judge_free */
mzm_status mzm_skip_judge_create(mzm_skip_judge **out, mzm_calibration *c, mzm_err *err);
void       mzm_skip_judge_free(mzm_skip_judge *j);
/* skip: [2 * n_layers], a byte 0 or 1 a sub-layer, on windows to learn from, or on those held out. */
mzm_status mzm_skip_judge_score(mzm_skip_judge *j, mzm_skip_score *out, const uint8_t *skip, bool held_out,
				mzm_err *err);
/* The best of n_tries sets on the windows to learn from; *n_tried: there may be fewer. */
mzm_status mzm_skip_judge_search(mzm_skip_judge *j, uint8_t *skip, int32_t n_tries, int32_t *n_tried, mzm_err *err);

#endif
