/* lossless.h - speculative sampling: candidates for a token are judged so that what stands in the end is an exact draw
 * from the full model's distribution, whatever drafters propose (arXiv 2211.17192, 2302.01318; several candidates for
 * one place: SpecInfer, arXiv 2305.09781).
 *
 * At a place with the distribution p, candidates come one after the other. x, drawn from q, stands with probability
 * min(1, p(x) / q(x)); when it does not, p becomes norm(max(0, p - q)) for those behind it. When nobody is left, the
 * token is drawn from what p has become. A guess is drawn from a point: it stands with p(x), else p loses it.
 *
 * Why that is right. Let x ~ q given all that decided before it, and r = 1 - sum_v min(p(v), q(v)) the chance that it
 * does not stand. Token v comes out by x with q(v) min(1, p(v) / q(v)) = min(p(v), q(v)); else, with chance r, it is
 * drawn from what p becomes, max(0, p(v) - q(v)) / r. The sum is p(v). What comes behind x draws from that remainder by
 * the same argument, so by induction over the candidates the outcome is distributed as p, for any number of them. The
 * next place has its own p, given the tokens that stand: by induction over places the text is a draw from the model.
 *
 * What it takes: "x ~ q given all that decided before it".
 * - Lines may be of any length if whether a token is drafted depends on tokens before it alone: the monitor, a stop and
 *   the room in a check see x only when it is in the draft. (A token must not be dropped for what it is: a line
 *   that has room for x only where another line has it, too, has none.)
 * - Lines are judged in the order of drafters. Those before x's that passed here have just lost their token, and
 *   nobody looks at the rest of them again: that x's place in the check depended on it (room) decides nothing more.
 * - Where x stands, all lines whose token it is go on. What is known of them is that their token is x.
 * - Random numbers are fresh in each round (mzm_sampler_unit), or a policy that knows what earlier rounds drafted in
 *   vain would choose by numbers that are yet to be drawn. A guess may be made of anything known before the check. */
#ifndef MZM_LOSSLESS_H
#define MZM_LOSSLESS_H

#include <stdbool.h>
#include <stdint.h>

/* A place that is being judged. */
typedef struct mzm_lossless {
	int32_t n_vocab;
	double *left;  /* [n_vocab] weights of what the token is still to be drawn from */
	double  total; /* their sum */
} mzm_lossless;

/* A new place: weights of the full model (mzm_sampler_weights). */
void    mzm_lossless_begin(mzm_lossless *l, const float *p, double total);
/* Whether the next candidate stands: id, drawn from the weights q with that sum, or a guess (q NULL, or q_total 0). If
 * not, l is changed. A token that q does not have can only be a drafter's mistake: it does not stand, and l stays. */
bool    mzm_lossless_judge(mzm_lossless *l, int32_t id, const float *q, double q_total, double u);
/* The token of a place where no candidate stood. */
int32_t mzm_lossless_draw(const mzm_lossless *l, double u);

#endif
