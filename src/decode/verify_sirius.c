/* verify_sirius.c - a draft token stands when the full model finds it likely enough (Sirius, arXiv
 * 2409.03856), with P = softmax(logits / check_temp). The published rule is `reference`; `sirius` also
 * keeps the best token of a distribution too flat for the threshold. */
#include "decode/verifier.h"

#include <math.h>

#define TYPICAL_DELTA 0.3f /* Medusa's default */

static bool sirius_stands(const mzm_judgement *j)
{
	float max, entropy;
	if (j->accept == MZM_ACCEPT_SIRIUS && j->id == j->choice)
		return true;
	if (j->accept == MZM_ACCEPT_RELATIVE && j->threshold >= 1) /* the limit is exact mode, ties included */
		return j->id == j->choice;
	float p = mzm_sampler_prob(j->sampler, j->logits, j->id, j->check_temp, &max,
				   j->accept == MZM_ACCEPT_TYPICAL ? &entropy : NULL);
	switch (j->accept) {
	case MZM_ACCEPT_RELATIVE:
		return p >= j->threshold * max;
	case MZM_ACCEPT_TYPICAL:
		return p > fminf(j->threshold, TYPICAL_DELTA * expf(-entropy));
	case MZM_ACCEPT_SIRIUS:
	case MZM_ACCEPT_REFERENCE:
		break;
	}
	return p >= j->threshold;
}

const mzm_verifier mzm_verify_sirius = {"sirius", sirius_stands};

const mzm_verifier *mzm_verifier_for(mzm_mode mode)
{
	switch (mode) {
	case MZM_MODE_SIRIUS:
		return &mzm_verify_sirius;
	case MZM_MODE_EXACT:
	case MZM_MODE_LOSSLESS: /* greedily; at a temperature it draws (lossless.h) */
		return &mzm_verify_exact;
	case MZM_MODE_DENSE:
	case MZM_MODE_SPARSE:
		break;
	}
	return NULL;
}
