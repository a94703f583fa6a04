/* config_hf.h - what the two halves of reading config.json share: config_hf.c and config_hf_rope.c. */
#ifndef MZM_CONFIG_HF_H
#define MZM_CONFIG_HF_H

#include "format/config_impl.h"

/* How a family writes its rotation. Keys that its class does not know are NULL. */
typedef struct mzm_hf_rope {
	const char *theta_key;
	double      theta;         /* where the key is missing: the class's */
	const char *partial_key;   /* old name of "partial_rotary_factor" */
	double      partial;       /* where both are missing; 0: the class rotates whole heads, always */
	bool        can_long;      /* "longrope" */
	bool        by_layer_type; /* "rope_parameters" may hold one object a type of layer */
} mzm_hf_rope;

/* All of c's rope_* members from "rope_scaling" or (newer) "rope_parameters" and the keys beside them. c's shape and
 * window are known. */
mzm_status mzm_hf_read_rope(mzm_config *c, const json_t *config, const mzm_hf_rope *how, mzm_err *err);

#endif
