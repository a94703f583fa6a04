/* plan.h - decides what of a model stays in memory. */
#ifndef MZM_PLAN_H
#define MZM_PLAN_H

#include "engine/engine.h"

/* The plan, and the residency that carries it out. streamed: [n_tensors of src], filled, pointed to by r. EARG: the
 * budget is too small, with the smallest that works and its parts. */
mzm_status mzm_plan_residency(mzm_plan *p, mzm_residency *r, bool *streamed, mzm_source *src,
			      const mzm_model_params *params, const mzm_kern *kern, mzm_err *err);

/* Whether matrices of the model take part in oneDNN's products as bf16. */
bool mzm_plan_has_bf16(const mzm_source *src);

uint64_t mzm_memory_available(void); /* of the machine, now */

#endif
