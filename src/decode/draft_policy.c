/* draft_policy.c - see draft_policy.h. */
#include "decode/draft_policy.h"

#define TRIALS 2    /* rounds of each before rates are compared */
#define EVERY  24   /* rounds after which an available drafter is tried again */
#define FORGET 0.85

int mzm_draft_policy_choose(const mzm_draft_policy *p, unsigned available)
{
	int best = -1, oldest = -1;
	double best_rate = -1;
	for (int i = 0; i < MZM_MAX_DRAFTERS; i++) {
		if (!(available & 1u << i))
			continue;
		if (p->of[i].n_rounds < TRIALS)
			return i;
		double rate = p->of[i].gained / p->of[i].cost;
		if (rate > best_rate) {
			best_rate = rate;
			best = i;
		}
		if (p->round - p->of[i].last >= EVERY && (oldest < 0 || p->of[i].last < p->of[oldest].last))
			oldest = i;
	}
	return oldest >= 0 ? oldest : best;
}

void mzm_draft_policy_learn(mzm_draft_policy *p, int i, double gained, double cost)
{
	p->of[i].gained = p->of[i].gained * FORGET + gained;
	p->of[i].cost = p->of[i].cost * FORGET + cost;
	p->of[i].n_rounds++;
	p->of[i].last = ++p->round;
}
