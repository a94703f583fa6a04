/* draft_exit.h - the exit rule of Draft & Verify (arXiv 2309.08168): a draft ends behind a token to which it gave a
 * probability below gamma, which follows how much of the drafts is kept.
 *
 * After each check with a draft: m <- m / 2 + kept / drafted / 2; the target is gamma + .01 if m < .9, else gamma
 * - .01, or gamma where the draft was as long as it may be; gamma <- .9 gamma + .1 target. m starts at 0, gamma at .8
 * (greedy) or .5 (sampling), for each generation anew: a text does not depend on those before it. Where the monitor
 * decides (period auto), an adaptive gamma is off: the monitor knows costs, too. */
#ifndef MZM_DRAFT_EXIT_H
#define MZM_DRAFT_EXIT_H

#include "decode/drafter.h"

typedef struct mzm_exit {
	bool    adapts;
	double  gamma;   /* 0: no probability is below it */
	double  matched; /* m */
	int32_t longest; /* a draft can be */
} mzm_exit;

void mzm_exit_start(mzm_exit *e, const mzm_gen_params *p);
/* mzm_draft_take, then the rule. True: the draft ends here. */
bool mzm_exit_take(const mzm_exit *e, mzm_draft_job *job, const float *logits);
/* A hash of what it goes by. */
uint64_t mzm_exit_settings(const mzm_gen_params *p);
/* A check kept so many of the draft's tokens. */
void mzm_exit_learn(mzm_exit *e, int32_t n_draft, int32_t n_kept);

#endif
