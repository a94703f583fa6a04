/* fit.h - what predictors learn from a sample of a model's work, layer by layer: for `mirzam calibrate`.
 *
 * A fit turns the inputs of a layer's FFN, and what the layer makes of them, into tensors of the side-car (calib.h).
 * It is a pure function of its arguments: the same for every number of threads. */
#ifndef MZM_FIT_H
#define MZM_FIT_H

#include "format/calib.h"
#include "format/config.h"
#include "kern/threads.h"

/* One layer, all in f32. Positions n_train .. n_train + n_test - 1 are held out: they measure, and teach nothing. */
typedef struct mzm_fit_layer {
	const mzm_config *cfg;
	int32_t layer;
	int32_t n_train, n_test;
	const float *x;         /* [n_train + n_test, dim] normed inputs of the FFN */
	const float *gate;      /* [n_train + n_test, n_ffn] act(gate) */
	const float *z;         /* [n_train + n_test, n_ffn] act(gate) * up; without a gate the same as gate */
	const float *w_gate;    /* [n_ffn, dim] */
	const float *b_gate;    /* [n_ffn], or NULL */
	const float *w_up;      /* [n_ffn, dim]; NULL without a gate */
	const float *b_up;      /* [n_ffn], or NULL */
	const float *up_norm;   /* [n_ffn] Euclidean norms of the rows of up; of ones without a gate */
	const float *down_norm; /* [n_ffn] of the rows of down */
	const uint64_t *attn_bins; /* [2, MZM_TEAL_BINS] sizes of the attention's inputs (teal.h); NULL: not counted */
	uint64_t     seed;
	mzm_team    *team;      /* for what takes long */
} mzm_fit_layer;

/* What the caller wants of a fit. */
typedef struct mzm_fit_options {
	int32_t rank;         /* of low-rank predictors; 0: their own choice */
	int32_t n_epochs;     /* of training; 0: their own choice */
	mzm_progress_fn progress; /* may be NULL; non-zero from it ends the fit with ECANCELLED */
	void   *user;
} mzm_fit_options;

typedef struct mzm_fit {
	const char *name;  /* "lowrank": that of the predictor which needs it */
	const char *about; /* one line */
	bool        slow;  /* trains: more than a pass over the sample */
	bool        named_only; /* not among those of a calibration that names none */
	mzm_status (*layer)(const mzm_fit_layer *l, const mzm_fit_options *o, mzm_calib_writer *out, mzm_err *err);
} mzm_fit;

const mzm_fit *mzm_fit_at(int i);              /* NULL past the last */
const mzm_fit *mzm_fit_find(const char *name); /* NULL: unknown */

extern const mzm_fit mzm_fit_teal;
extern const mzm_fit mzm_fit_cats, mzm_fit_static, mzm_fit_lowrank, mzm_fit_svd, mzm_fit_aware, mzm_fit_countdown_d;

#endif
