/* cats.h - the shares of neurons for which a calibration has thresholds: what fit_cats.c writes and cats.c reads; and
 * what teal.c, which compares another number with its thresholds, has in common with both. */
#ifndef MZM_CATS_H
#define MZM_CATS_H

#include "model/predictor.h"

/* Tensor "cats" of a layer: [CATS_POINTS, 1] f32, the threshold of |act(gate)| that this share of the sample's values
 * exceeds. Close to 0, where a ReLU is at home, the points are closer. */
#define CATS_POINTS 22
static const float cats_keep[CATS_POINTS] = {0.01f, 0.02f, 0.03f, 0.05f, 0.1f,  0.15f, 0.2f,  0.25f,
					     0.3f,  0.35f, 0.4f,  0.45f, 0.5f,  0.55f, 0.6f,  0.65f,
					     0.7f,  0.75f, 0.8f,  0.85f, 0.9f,  0.95f};

/* Thresholds by the tensor of that name and of this form: select() names those scores that exceed their layer's, at
 * least the largest. */
mzm_status mzm_cats_create(mzm_predictor **out, const mzm_pred_env *env, const mzm_predictor_ops *ops,
			   const char *tensor, mzm_err *err);
void       mzm_cats_free(mzm_predictor *p);
int32_t    mzm_cats_select(mzm_predictor *p, int32_t layer, int32_t pos, const float *score, int32_t *rows);

/* That of a share of neurons, between what was found for some; found[i * step] belongs to cats_keep[i]. */
float mzm_cats_threshold(const float *found, size_t step, double keep);

/* Counts magnitudes by the leading bits of the float, without the last `bits` of the mantissa. */
#define MZM_CATS_BINS(bits) ((size_t)1 << (31 - (bits)))
void  mzm_cats_count(uint64_t *bins, int bits, const float *values, size_t n);
/* The least end of a bin that at most so many of them exceed; 0 where that is what most are, not the end of its bin. */
float mzm_cats_exceeded_by(const uint64_t *bins, int bits, uint64_t most);

/* The thresholds of n magnitudes. */
mzm_status mzm_cats_fit(float found[CATS_POINTS], const float *values, size_t n, mzm_err *err);

#endif
