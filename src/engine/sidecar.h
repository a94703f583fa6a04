/* sidecar.h - finds and opens what calibration left beside a model. */
#ifndef MZM_SIDECAR_H
#define MZM_SIDECAR_H

#include "engine/engine.h"

/* The side-car that the params ask for, of a model at this path with this hash; *out NULL: none. The message of a
 * failure says how to do without. */
mzm_status mzm_sidecar_open(mzm_calib **out, const char *model_path, const char *hash, const mzm_model_params *params,
			    mzm_err *err);
/* What it will take in memory, about; 0: there is none, or it cannot be read. */
uint64_t   mzm_sidecar_bytes(const char *model_path, const mzm_model_params *params);
/* What the predictors of sessions will take that have factors (predictors/factors.h) made from it: at most 8 bits of
 * each 16, where the drafts of the params name such a predictor. */
uint64_t   mzm_sidecar_factor_bytes(const char *model_path, const mzm_model_params *params);

#endif
