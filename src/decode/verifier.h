/* verifier.h - does a draft token stand against the full model? Pure functions of logits.
 *
 * A verifier judges one token at a time, in order; the driver keeps the longest prefix that stands. */
#ifndef MZM_VERIFIER_H
#define MZM_VERIFIER_H

#include "decode/sampler.h"

typedef struct mzm_judgement {
	const float *logits;  /* [n_vocab] the full model's, processed as the sampler does */
	int32_t      id;      /* the draft token */
	int32_t      choice;  /* what the full model would have chosen */
	mzm_accept   accept;
	float        threshold, check_temp;
	mzm_sampler *sampler; /* for its scratch */
} mzm_judgement;

typedef struct mzm_verifier {
	const char *name;
	bool (*stands)(const mzm_judgement *j);
} mzm_verifier;

extern const mzm_verifier mzm_verify_exact;  /* it is the full model's own choice */
extern const mzm_verifier mzm_verify_sirius; /* it is likely enough (arXiv 2409.03856), by j->accept */

const mzm_verifier *mzm_verifier_for(mzm_mode mode); /* NULL: the mode checks nothing */

#endif
