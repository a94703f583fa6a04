/* monitor.h - the confidence monitor: how likely the full model keeps a draft token, and whether to check now.
 *
 * Two estimates, both refitted after every check: (1) a logistic model of acceptance over what the
 * draft knows for free (log-odds of its token, margin, entropy), learned online; (2) the long-run rate
 * of tokens per cost. The policy is that of a renewal process: go on drafting while some k more tokens are
 * expected to gain more than their cost is worth at that rate,
 *     S * (p + ... + p^k) > rate * (k sparse + check[m+k] - check[m]),
 * with S the probability that everything drafted so far stands. With equal confidences this is the
 * best fixed period of spec formula cost(n) = ((n-1) d + c(n)) (1-p) / (1-p^n); with unequal ones the
 * check comes early when a wrong token is likely and late when not. Costs are measured (mzm_costs) and
 * frozen; so the monitor's decisions are a function of the tokens alone. */
#ifndef MZM_MONITOR_H
#define MZM_MONITOR_H

#include "decode/sampler.h"

#define MZM_MONITOR_FEATURES 4

typedef struct mzm_monitor {
	mzm_costs costs;
	double    weight[MZM_MONITOR_FEATURES];    /* logistic model; precision: how firmly each is known */
	double    precision[MZM_MONITOR_FEATURES];
	double    accepted, rejected;              /* judged tokens, with forgetting */
	double    gained, spent;                   /* tokens and cost, with forgetting */
	double    survival;                        /* of the block under way */
	int32_t   block;                           /* its length, the verified first token included */
	int32_t   idle;                            /* blocks in a row without a draft */
} mzm_monitor;

void mzm_monitor_reset(mzm_monitor *m); /* forgets all but the costs */
void mzm_monitor_set_costs(mzm_monitor *m, const mzm_costs *costs);

float mzm_monitor_confidence(const mzm_monitor *m, const mzm_certainty *c);
/* A new block. False: not even one draft token is worth its cost; every 16th such block drafts one all the
 * same, or the monitor could never learn better. */
bool  mzm_monitor_begin(mzm_monitor *m);
/* One more draft token of that confidence; true: check now. */
bool  mzm_monitor_push(mzm_monitor *m, float confidence);
/* What a check found: of n draft tokens the first n_accepted stood; the next one, if any, did not. */
void  mzm_monitor_learn(mzm_monitor *m, const mzm_certainty *draft, int32_t n, int32_t n_accepted);

/* Tokens per cost at acceptance p with the best fixed block length, which goes to *n (may be NULL). */
double mzm_monitor_best_rate(const mzm_costs *costs, double p, int32_t *n);

#endif
