/* draft_policy.c - see draft_policy.h: a bandit with upper confidence bounds and forgetting. */
#include "decode/draft_policy.h"

#include <math.h>

#define PRIOR_RATE 2   /* of a drafter of which nothing is expected */
#define OPTIMISM   1.5 /* one of which nothing is known may be so many times as good as expected */
#define BONUS      0.7 /* for what is known by one dense pass alone; falls with the root of the passes */
#define FORGET     0.98
#define FORGOTTEN  0.5 /* dense passes' worth of knowledge below which nothing is known of a drafter */

static double promise_of(const mzm_draft_policy *p, int i)
{
	double expected = p->of[i].expected > 0 ? p->of[i].expected : PRIOR_RATE, cost = 1 + p->of[i].cost;
	if (p->of[i].cost < FORGOTTEN)
		return OPTIMISM * expected;
	return (expected + p->of[i].gained) / cost + BONUS / sqrt(cost);
}

int mzm_draft_policy_choose(const mzm_draft_policy *p, unsigned available)
{
	int best = -1;
	for (int i = 0; i < MZM_MAX_DRAFTERS; i++)
		if (available & 1u << i && (best < 0 || promise_of(p, i) > promise_of(p, best)))
			best = i;
	return best;
}

void mzm_draft_policy_expect(mzm_draft_policy *p, int i, double rate)
{
	p->of[i].expected = rate;
}

void mzm_draft_policy_learn(mzm_draft_policy *p, int i, double gained, double cost)
{
	for (int k = 0; k < MZM_MAX_DRAFTERS; k++) {
		p->of[k].gained *= FORGET;
		p->of[k].cost *= FORGET;
	}
	p->of[i].gained += gained;
	p->of[i].cost += cost;
}
