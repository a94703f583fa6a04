/* registry.c - see registry.h. */
#include "predictors/registry.h"

#include <string.h>

static const mzm_predictor_ops *const registry[] = {
	&mzm_pred_griffin, &mzm_pred_griffin_live, &mzm_pred_topk,   &mzm_pred_wina,  &mzm_pred_countdown,
	&mzm_pred_cats,    &mzm_pred_teal,  &mzm_pred_static,
	&mzm_pred_svd,     &mzm_pred_lowrank, &mzm_pred_countdown_d, &mzm_pred_aware,
	&mzm_pred_oracle,  &mzm_pred_random,  &mzm_pred_dense,
};

const mzm_predictor_ops *mzm_predictor_at(int i)
{
	return i >= 0 && i < (int)(sizeof registry / sizeof *registry) ? registry[i] : NULL;
}

const mzm_predictor_ops *mzm_predictor_find(const char *name)
{
	for (int i = 0; mzm_predictor_at(i); i++) {
		if (strcmp(registry[i]->name, name) == 0)
			return registry[i];
	}
	return NULL;
}
