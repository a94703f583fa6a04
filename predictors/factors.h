/* factors.h - a cheap stand-in for the gate, or for gate and up: y = (x A) B + bias, of small rank, from the side-car.
 *
 * Workload: one position, in every layer of a sparse pass, by all ranks of the team together. Both matrices lie so that
 * the kernels add up rows, A as [dim, rank] and B as [rank, n_out]: rows are then long enough to be quantised, and what
 * a wide matrix of few columns would waste on padding is not read. In the side-car they are bf16; in memory they have
 * the bits that their fit asks for: at equal bytes, 4 bits and three times the rank find far more than 16 bits (on the
 * demo models, of the active neurons 73 % against 43 %).
 *
 * Tensors of a layer, NAME being the predictor's: NAME.shape f32 [1, 3] (rank, n_out / n_ffn, bits), NAME.a bf16 [dim,
 * rank], NAME.b bf16 [rank, n_out], NAME.bias bf16 [1, n_out]. */
#ifndef MZM_FACTORS_H
#define MZM_FACTORS_H

#include "base/carve.h"
#include "model/predictor.h"

typedef struct mzm_factor {
	int32_t        rank, n_out;
	mzm_dtype      dtype;
	char          *a, *b;  /* rows as that dtype has them */
	const uint16_t *bias;  /* [n_out] bf16, the side-car's */
} mzm_factor;

typedef struct mzm_factors {
	const mzm_kern *kern;
	int32_t         n_layers, dim, n_ffn;
	int32_t         max_rank, max_out;
	mzm_factor     *of; /* [n_layers] */
	float          *h;  /* [max_rank] x A */
} mzm_factors;

/* The shapes of all layers by the side-car of env; EFORMAT: it lacks a tensor, or one has another shape. of: [n_layers]
 * of the caller, who may free it once they are laid out. */
mzm_status mzm_factors_find(mzm_factors *f, mzm_factor *of, const mzm_pred_env *env, const char *name, mzm_err *err);
void       mzm_factors_layout(mzm_factors *f, mzm_carve *c);
/* Fills what was laid out. */
mzm_status mzm_factors_load(mzm_factors *f, const mzm_pred_env *env, const char *name, mzm_err *err);
/* y [n_out] of x [dim]: this rank's share. All ranks call it; y is whole behind the next barrier. */
void       mzm_factors_apply(mzm_factors *f, int32_t layer, const float *x, float *y, mzm_team *team, int rank);
uint64_t   mzm_factors_bytes(const mzm_factors *f); /* that applying all of them reads */

/* ---- for fits ---- */

typedef struct mzm_factor_fit {
	int32_t dim, n_ffn, rank, times, bits; /* n_out = times * n_ffn */
	float  *a;    /* [dim, rank] */
	float  *b;    /* [rank, n_out] */
	float  *bias; /* [n_out] */
} mzm_factor_fit;

/* a and b as the predictor will have them, as floats again. */
mzm_status mzm_factor_round(mzm_factor_fit *fit, mzm_err *err);
mzm_status mzm_factor_write(mzm_calib_writer *out, const char *name, int32_t layer, const mzm_factor_fit *fit,
			    mzm_err *err);

#endif
