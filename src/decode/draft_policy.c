/* draft_policy.c - see draft_policy.h. */
#include "decode/draft_policy.h"

/* What is believed of a drafter beforehand: a rate somewhat better than that of most, and as much of it as so many dense
 * passes would tell, so that a few bad rounds do not rule it out. */
#define PRIOR_COST 8
#define PRIOR_RATE 1.6
#define EVERY      24   /* rounds after which an available drafter is tried again */
#define FORGET     0.98

static double rate_of(const mzm_draft_policy *p, int i)
{
	return (PRIOR_COST * PRIOR_RATE + p->of[i].gained) / (PRIOR_COST + p->of[i].cost);
}

int mzm_draft_policy_choose(const mzm_draft_policy *p, unsigned available)
{
	int best = -1, oldest = -1;
	for (int i = 0; i < MZM_MAX_DRAFTERS; i++) {
		if (!(available & 1u << i))
			continue;
		if (best < 0 || rate_of(p, i) > rate_of(p, best))
			best = i;
		if (p->round - p->of[i].last >= EVERY && (oldest < 0 || p->of[i].last < p->of[oldest].last))
			oldest = i;
	}
	return oldest >= 0 ? oldest : best;
}

void mzm_draft_policy_learn(mzm_draft_policy *p, int i, double gained, double cost)
{
	p->of[i].gained = p->of[i].gained * FORGET + gained;
	p->of[i].cost = p->of[i].cost * FORGET + cost;
	p->of[i].last = ++p->round;
}
