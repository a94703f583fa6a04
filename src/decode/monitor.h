/* monitor.h - the confidence monitor: how likely the full model keeps a draft token, and whether to check now.
 *
 * Two estimates, both refitted after every check: (1) a logistic model of acceptance over what the
 * draft knows for free (log-odds of its token, margin, entropy, classes of the token and of the one
 * before it), which starts from a prior and learns online; (2) the long-run rate
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

/* What is known about a draft token when it has been chosen. */
typedef struct mzm_evidence {
	mzm_certainty certainty;
	uint8_t       class, before; /* classes (token_class.h) of the token, and of the one it follows; 0: not known */
} mzm_evidence;

#define MZM_MONITOR_FEATURES 8

/* What the logistic model starts from: weights, and how firmly each is known (inverse variances). In a side-car: tensor
 * MZM_MONITOR_TENSOR of the model, [2, MZM_MONITOR_FEATURES] f32. */
typedef struct mzm_monitor_prior {
	float weight[MZM_MONITOR_FEATURES];
	float precision[MZM_MONITOR_FEATURES];
} mzm_monitor_prior;

#define MZM_MONITOR_TENSOR "monitor"

extern const mzm_monitor_prior mzm_monitor_builtin; /* of models that have none of their own */

/* A judged draft token, to fit a prior to. */
typedef struct mzm_monitor_case {
	mzm_evidence evidence;
	float        weight;   /* of this case: 1, or less for one of a setting with many cases */
	bool         accepted;
} mzm_monitor_case;

/* Where a monitor writes what it learns from, as long as there is room. */
typedef struct mzm_monitor_log {
	mzm_monitor_case *cases; /* [n] of cap */
	size_t            n, cap;
} mzm_monitor_log;

typedef struct mzm_monitor {
	mzm_costs costs;
	const mzm_monitor_prior *prior;            /* NULL: mzm_monitor_builtin */
	mzm_monitor_log *log;                      /* may be NULL */
	double    weight[MZM_MONITOR_FEATURES];    /* of the logistic model, and their precisions */
	double    precision[MZM_MONITOR_FEATURES];
	double    accepted, rejected;              /* judged tokens, with forgetting */
	double    gained, spent;                   /* tokens and cost, with forgetting */
	double    survival;                        /* of the block under way */
	int32_t   block;                           /* its length, the verified first token included */
	int32_t   idle;                            /* blocks in a row without a draft */
} mzm_monitor;

void mzm_monitor_reset(mzm_monitor *m); /* forgets all but the costs, the prior and the log */
void mzm_monitor_set_costs(mzm_monitor *m, const mzm_costs *costs);

float mzm_monitor_confidence(const mzm_monitor *m, const mzm_evidence *e);
/* A new block. False: not even one draft token is worth its cost; every 16th such block drafts one all the
 * same, or the monitor could never learn better. */
bool  mzm_monitor_begin(mzm_monitor *m);
/* One more draft token of that confidence; true: check now. */
bool  mzm_monitor_push(mzm_monitor *m, float confidence);
/* What a check of n_checked positions found: of n draft tokens the first n_accepted stood; the next one, if any, did
 * not. n_gained: tokens that the check brought in all. */
void  mzm_monitor_learn(mzm_monitor *m, const mzm_evidence *draft, int32_t n, int32_t n_accepted, int32_t n_gained,
			int32_t n_checked);

/* Tokens per cost at acceptance p with the best fixed block length, which goes to *n (may be NULL). */
double mzm_monitor_best_rate(const mzm_costs *costs, double p, int32_t *n);

/* The features of the logistic model; false: a number is not finite, and nothing is to be learned from it. */
bool mzm_monitor_features(double f[MZM_MONITOR_FEATURES], const mzm_evidence *e);
/* The prior that such cases make of the built-in one. A function of the cases and their order alone (monitor_fit.c). */
void mzm_monitor_fit(mzm_monitor_prior *out, const mzm_monitor_case *cases, size_t n);

#endif
