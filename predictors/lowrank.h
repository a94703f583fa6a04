/* lowrank.h - what the predictor lowrank has in the side-car besides its factors (factors.h).
 *
 * lowrank.share f32 [1, LOWRANK_POINTS]: of the neurons of a layer, the share whose logit is no less than that of
 * point i, LOWRANK_FIRST + i * LOWRANK_STEP. */
#ifndef MZM_LOWRANK_H
#define MZM_LOWRANK_H

#define LOWRANK_POINTS 128
#define LOWRANK_FIRST  (-16.0f)
#define LOWRANK_STEP   0.25f

#endif
