/* registry.h - every predictor of this build by name. A new strategy is a new file and one line here. */
#ifndef MZM_REGISTRY_H
#define MZM_REGISTRY_H

#include "model/predictor.h"

const mzm_predictor_ops *mzm_predictor_find(const char *name); /* NULL: unknown */
const mzm_predictor_ops *mzm_predictor_at(int i);              /* NULL past the last */

extern const mzm_predictor_ops mzm_pred_dense, mzm_pred_random, mzm_pred_griffin, mzm_pred_topk, mzm_pred_oracle,
	mzm_pred_wina, mzm_pred_countdown, mzm_pred_griffin_live, mzm_pred_cats, mzm_pred_static;
extern const mzm_predictor_ops mzm_pred_lowrank, mzm_pred_countdown_d, mzm_pred_svd, mzm_pred_aware, mzm_pred_teal;

#endif
