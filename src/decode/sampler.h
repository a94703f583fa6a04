/* sampler.h - from logits to a token: penalty, temperature, filters, choice.
 *
 * A choice is a pure function of (logits, earlier tokens, position, seed): temperature sampling adds
 * Gumbel noise fixed by (seed, position, token) and takes the maximum, which is an exact draw from the
 * filtered distribution. So drafts roll back without state, a draft and the full model share their
 * noise (drafter-invariant sampling, arXiv 2408.07978), and exact mode equals dense mode at any
 * temperature. Order of steps as in Hugging Face generate: penalty, temperature, top-k, top-p, min-p.
 * Nothing allocates after creation; one session owns one sampler.
 *
 * Lossless mode draws instead: drafts from what a draft pass says, and the check from what that leaves of the full
 * model's distribution (lossless.h). There a distribution is an array of weights, and what is drawn from and what is
 * judged are the same numbers. */
#ifndef MZM_SAMPLER_H
#define MZM_SAMPLER_H

#include "base/err.h"
#include "kern/kern.h"

typedef struct mzm_sampler mzm_sampler;

mzm_status mzm_sampler_create(mzm_sampler **out, int32_t n_vocab, const mzm_kern *kern, mzm_err *err);
size_t     mzm_sampler_bytes(int32_t n_vocab); /* what it takes */
void       mzm_sampler_free(mzm_sampler *s);
/* Takes temp, filters, penalty and seed from checked params. */
void       mzm_sampler_configure(mzm_sampler *s, const mzm_gen_params *params);

/* Logits after the repetition penalty over ids[0..n): the input itself when there is none, else the
 * sampler's copy, until the next call. */
const float *mzm_sampler_process(mzm_sampler *s, const float *logits, const int32_t *ids, int32_t n);
/* The token for position pos from processed logits; greedy ties go to the lower id. */
int32_t      mzm_sampler_choose(mzm_sampler *s, const float *processed, int32_t pos);

/* The likeliest token, whatever the temperature. */
int32_t      mzm_sampler_likeliest(const mzm_sampler *s, const float *processed);

/* What a random number is drawn for. The numbers of different purposes, positions, rounds and lines are independent,
 * and so they are of the noise of choices. */
typedef enum mzm_purpose { MZM_FOR_DRAFT = 1, MZM_FOR_ACCEPT, MZM_FOR_RESIDUAL, MZM_FOR_BONUS } mzm_purpose;

/* In (0, 1). round: a key of this round of drafting and checking; line: the number of a drafter. */
double  mzm_sampler_unit(const mzm_sampler *s, mzm_purpose purpose, int32_t pos, uint64_t round, int32_t line);
/* The distribution that choosing draws from (temp > 0): weights w[n_vocab], 0 for what the filters drop. Returns their
 * sum, which is above 0. */
double  mzm_sampler_weights(mzm_sampler *s, float *w, const float *processed);
/* The token where the running sum of the weights passes u * total. */
int32_t mzm_sampler_draw(const mzm_sampler *s, const float *w, double total, double u);

/* How sure a distribution is. */
typedef struct mzm_certainty {
	float prob;    /* of the token asked about */
	float margin;  /* best minus second-best logit */
	float entropy; /* nats */
} mzm_certainty;
mzm_certainty mzm_sampler_certainty(mzm_sampler *s, const float *logits, int32_t id);

/* softmax(logits / temp)[id]; *max (may be NULL): the largest; *entropy (may be NULL): in nats. */
float mzm_sampler_prob(mzm_sampler *s, const float *logits, int32_t id, float temp, float *max, float *entropy);

#endif
