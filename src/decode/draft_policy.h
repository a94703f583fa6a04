/* draft_policy.h - which drafter the next round is given to (--draft auto).
 *
 * Each has a rate, tokens gained per cost, over its rounds with forgetting; the best has the turn, and now and then the
 * one that was not tried for longest, or nobody would notice that it got better. A function of what it was told alone. */
#ifndef MZM_DRAFT_POLICY_H
#define MZM_DRAFT_POLICY_H

#include "decode/drafter.h"

typedef struct mzm_draft_policy {
	int32_t round;
	struct {
		double  gained, cost;
		int32_t last; /* its latest round */
	} of[MZM_MAX_DRAFTERS];
} mzm_draft_policy;

/* One of the available (bits), of which there must be some. */
int  mzm_draft_policy_choose(const mzm_draft_policy *p, unsigned available);
/* A round of drafter i gained so many tokens at that cost. */
void mzm_draft_policy_learn(mzm_draft_policy *p, int i, double gained, double cost);

#endif
