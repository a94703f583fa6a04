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

/* Where in the tables of all heads, one behind the other, the next part begins. Zero but for len and goes_on. */
typedef struct mzm_dijiang_tables {
	int32_t len;     /* positions of a head */
	bool    goes_on; /* texts may be longer; then the last rho of a head must not be above 1 */
	size_t  n_done;
	float   before;  /* D1 there */
} mzm_dijiang_tables;

/* The next n entries of MZM_T_DECAY, out [n, 2], from those of the tables of queries and keys, D1 and D2 [n]: at
 * position i the past is multiplied with rho = D1[i] / D1[i - 1], of which 1 - rho is stored (f32 holds that more
 * exactly), and the position itself has the weight sigma = D1[i] D2[i]. EFORMAT at a zero, infinity or NaN. */
mzm_status mzm_dijiang_decay(float *out, mzm_dijiang_tables *tables, const float *d1, const float *d2, size_t n,
			     mzm_err *err);

#endif
