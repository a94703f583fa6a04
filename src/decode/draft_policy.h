/* draft_policy.h - which drafter the next round is given to (--draft auto).
 *
 * Each has a rate, tokens gained per cost, over its rounds with forgetting. The one that promises most has the turn:
 * the rate, and a bonus that is greater the less is known of it (upper confidence bounds: Auer et al. 2002), so that
 * one that may be better is tried, and tried again when what is known of it is old; one that could not be, by what is
 * expected of it, is not. A function of what it was told alone. */
#ifndef MZM_DRAFT_POLICY_H
#define MZM_DRAFT_POLICY_H

#include "decode/drafter.h"

typedef struct mzm_draft_policy {
	struct {
		double gained, cost;
		double expected; /* rate, while nothing is known of it; 0: PRIOR_RATE */
	} of[MZM_MAX_DRAFTERS];
} mzm_draft_policy;

/* One of the available (bits), of which there must be some. */
int  mzm_draft_policy_choose(const mzm_draft_policy *p, unsigned available);
/* Before its first round: what drafter i is expected to gain a cost. */
void mzm_draft_policy_expect(mzm_draft_policy *p, int i, double rate);
/* A round of drafter i gained so many tokens at that cost. */
void mzm_draft_policy_learn(mzm_draft_policy *p, int i, double gained, double cost);

#endif
