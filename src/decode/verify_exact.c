/* verify_exact.c - a draft token stands when the full model would have chosen it: the text is then the
 * dense model's, greedy or sampled with the same seed. */
#include "decode/verifier.h"

static bool exact_stands(const mzm_judgement *j)
{
	return j->id == j->choice;
}

const mzm_verifier mzm_verify_exact = {"exact", exact_stands};
