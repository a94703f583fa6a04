/* dijiang.h - what the checkpoints of DiJiang's released code hold as tables, as canonical tensors.
 *
 * Its explicit decay tables overflow in f32 from some thousand tokens on; as a recurrence nothing does. All is computed
 * in double, once, at import. */
#ifndef MZM_FORMAT_DIJIANG_H
#define MZM_FORMAT_DIJIANG_H

#include "base/err.h"

/* MZM_T_FREQ [d] from a projection matrix [d, d], which is C diag(t) with C the orthonormal DCT-II: queries and keys
 * times it are t * (C^T x). EFORMAT when it is another matrix. */
mzm_status mzm_dijiang_scales(float *t, const float *projection, int32_t d, mzm_err *err);

/* MZM_T_DECAY [n_heads, len, 2] from the tables of queries and keys, D1 and D2 [n_heads, len]: at position n the past
 * is multiplied with rho = D1[n] / D1[n - 1], of which 1 - rho is stored (f32 holds that more exactly), and the
 * position itself has the weight sigma = D1[n] D2[n]. EFORMAT at a zero, infinity or NaN. goes_on: texts may be longer
 * than the tables; then the last rho must not be above 1. */
mzm_status mzm_dijiang_decay(float *out, const float *d1, const float *d2, int32_t n_heads, int32_t len, bool goes_on,
			     mzm_err *err);

#endif
