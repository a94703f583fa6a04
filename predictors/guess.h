/* guess.h - what predictors share that guess the gate from a low-rank product (factors.h): lowrank, svd, aware.
 *
 * Where memory has room for a part of the neurons only, they choose among those, and want the ones that carried most
 * lately, over the prompt and then the checks (history.h), as topk does. */
#ifndef MZM_GUESS_H
#define MZM_GUESS_H

#include "predictors/factors.h"
#include "predictors/history.h"

typedef struct mzm_guess {
	mzm_predictor     base;
	const mzm_config *cfg;
	mzm_factors       factors;
	float            *y;       /* [max_out] what was guessed */
	float            *score;   /* [n_ffn] */
	float            *scratch; /* [n_ffn] */
	mzm_history       history; /* kept where not all neurons are in memory; else of no layer */
	uint8_t          *held;    /* [n_layers, n_ffn] 1: in memory; NULL: all are */
} mzm_guess; /* first member of theirs */

/* Everything but what is behind the guess in their own struct of so many bytes; ops->name is also that of the
 * tensors. -> mzm_guess_free */
mzm_status mzm_guess_create(mzm_guess **out, size_t n_bytes, const mzm_predictor_ops *ops, const mzm_pred_env *env,
			    mzm_err *err);
void       mzm_guess_free(mzm_predictor *p);
void       mzm_guess_score(mzm_predictor *p, int32_t layer, const float *x, float *score, mzm_team *team, int rank);
uint64_t   mzm_guess_cost(const mzm_predictor *p);
void       mzm_guess_reset(mzm_predictor *p);
void       mzm_guess_observe(mzm_predictor *p, int32_t layer, const float *z, int32_t n_pos);
int32_t    mzm_guess_want(mzm_predictor *p, int32_t layer, int32_t n, int32_t *rows);
/* The n best of g->score that are in memory, n at most. Scores are not negative; returns how many. */
int32_t    mzm_guess_best(mzm_guess *g, int32_t layer, int32_t n, int32_t *rows);
/* Drops those whose gate turned out to be zero, as most are behind a ReLU; the first stays if all are. */
int32_t    mzm_guess_drop_zeros(mzm_predictor *p, int32_t layer, float *gate, int32_t *rows, int32_t n);

/* Most values of that activation are zero. */
static inline bool mzm_act_is_sparse(mzm_act act)
{
	return act == MZM_ACT_RELU || act == MZM_ACT_FATRELU;
}

#endif
