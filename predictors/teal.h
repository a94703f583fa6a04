/* teal.h - TEAL's thresholds of the attention's inputs (arXiv 2408.14690), for models whose attention lies by input
 * (mzm_config.attn_by_input): any predictor may have them beside its own choice (mzm_predictor.attn_threshold). */
#ifndef MZM_TEAL_H
#define MZM_TEAL_H

#include "format/calib.h"
#include "format/config.h"

/* Tensor of a layer: [CATS_POINTS, 2] f32 thresholds of the inputs of q, k and v, and of o. */
#define MZM_TEAL_ATTENTION "teal.attn"

/* threshold [n_layers, 2]: those that a share `keep` of the inputs exceeds. EUNDEFINED: the side-car has none. */
mzm_status mzm_teal_attention(float *threshold, const mzm_calib *calib, const mzm_config *cfg, float keep,
			      mzm_err *err);

/* How many inputs of a sample have which size, by the leading bits of the float. */
#define MZM_TEAL_BITS 16 /* the mantissa's last, which are not looked at */
#define MZM_TEAL_BINS ((size_t)1 << (31 - MZM_TEAL_BITS))
void mzm_teal_count(uint64_t bins[MZM_TEAL_BINS], const float *x, size_t n);

#endif
