/* calibrate.h - what the files of calibration share: a sample of the model's work on a text, and room to redo that of
 * one layer.
 *
 * Workload: a few thousand positions. The inputs of all layers' FFNs are kept (as bf16: half the memory, and closer
 * than any predictor comes); what a layer makes of them is computed when its turn comes, once to learn from, and once,
 * for the held-out positions, to measure on. */
#ifndef MZM_CALIBRATE_H
#define MZM_CALIBRATE_H

#include "base/carve.h"
#include "engine/engine.h"
#include "predictors/fit.h"

#define MZM_MAX_TRIES 4096 /* of a search for layers that drafts can do without */

#define MZM_CALIBRATE_WINDOW 256 /* tokens of a text that are read together */
#define MZM_CALIBRATE_LEAST  64  /* positions, or there is nothing to learn */
#define MZM_MAX_FITS         32

/* Tokens that are read together, whose first n_rows become rows of the sample. */
typedef struct mzm_window {
	size_t  first; /* of the ids */
	int32_t n_tok;
	bool    held_out;
	int32_t row, n_rows;
} mzm_window;

/* What one layer does, all f32. n: of all positions. */
typedef struct mzm_layer_work {
	void    *block;
	float   *x;       /* [n, dim] normed inputs of the FFN */
	float   *gate;    /* [n, n_ffn] act(gate) */
	float   *z;       /* [n, n_ffn] */
	float   *up;      /* [n_test, n_ffn] of held-out positions, once they are measured on */
	float   *w_gate;  /* [n_ffn, dim] */
	float   *w_up;    /* [n_ffn, dim]; without a gate nobody's */
	float   *ones;    /* [n_ffn] */
	char    *packed;  /* [n_ranks, packed_len] inputs as the kernels want them */
	float   *sums;    /* [n_ranks, MZM_ACCUM_SCRATCH bytes] */
	size_t   packed_len;
	int      n_ranks;
} mzm_layer_work;

struct mzm_calibration {
	const mzm_model     *model;
	mzm_calibrate_params params;   /* zeros are replaced */
	mzm_session         *session;
	const mzm_fit       *fits[MZM_MAX_FITS];
	int32_t              n_fits;
	double               fit_seconds[MZM_MAX_FITS];
	bool                 fits_monitor, fits_alloc, fits_skip;
	size_t               n_judged; /* draft tokens that it was fitted to */
	int32_t             *ids;      /* [n_ids] of ids_cap: all texts */
	size_t              *ends;     /* [n_texts] of texts_cap: where each ends */
	size_t               n_ids, ids_cap, n_texts, texts_cap;
	bool                 is_finished;

	mzm_window          *windows;  /* [n_windows] in the order of the texts */
	int32_t              n_windows;
	int32_t              n_train, n_test; /* rows; the held-out ones come last */
	uint64_t            *attn_bins; /* [n_layers, 2, MZM_TEAL_BINS] of what is learned from; NULL: nobody asks */
	uint16_t            *x;        /* [n_layers, n_train + n_test, dim] bf16 */
	mzm_layer_work       work;
};

/* Chooses the windows, and so n_train and n_test; no more than `most` positions. EARG: too little text. */
mzm_status mzm_calibrate_choose(mzm_calibration *c, int32_t most, mzm_err *err);
/* Runs the model over them: fills x. */
mzm_status mzm_calibrate_sample(mzm_calibration *c, mzm_err *err);

/* What x and work take for so many positions, in bytes; false: more than memory can be. */
bool       mzm_calibrate_measure(uint64_t *bytes, const mzm_calibration *c, int32_t n_train, int32_t n_test);
mzm_status mzm_calibrate_alloc(mzm_calibration *c, mzm_err *err);
/* The layer's work on all positions, with w_gate; or on the held-out ones only, with up. */
void       mzm_calibrate_layer(mzm_calibration *c, int32_t layer, bool held_out);

/* What a predictor, asked as a sparse pass asks it (ffn.c), chooses for a held-out position of the layer at hand. */
typedef struct mzm_ask {
	mzm_calibration *c;
	mzm_predictor   *p;
	int32_t          layer;
	const float     *x, *gate, *up, *z;
	int32_t          n, n_chosen; /* kept neurons: rows [n]; of n_chosen, where it refines */
	int32_t         *rows;        /* [n_ffn] */
	float           *score, *picked; /* [n_ffn] */
	int64_t          ns, score_ns; /* it took; of that score(), but for waking threads: in a pass they are awake */
} mzm_ask;

void       mzm_calibrate_ask_layout(mzm_ask *q, const mzm_config *cfg, mzm_carve *c); /* c and layer: the caller's */
/* Position `at` of the held-out ones, of the layer's work (mzm_calibrate_layer). */
void       mzm_calibrate_ask_at(mzm_ask *q, int32_t at);
/* pos: in its text. */
void       mzm_calibrate_ask(mzm_ask *q, mzm_predictor *p, int32_t pos);
/* The first half of a held-out window, as if it were a prompt. */
void       mzm_calibrate_show_prompt(mzm_predictor *p, const mzm_calibration *c, int32_t layer, const mzm_window *w);
/* What the predictor needs was fitted. */
bool       mzm_calibrate_is_ready(const mzm_calibration *c, const mzm_predictor_ops *ops, const mzm_calib *fitted);

/* What the next one takes for predictions to compare with. */
uint64_t   mzm_calibrate_shares_bytes(const mzm_calibration *c);
/* Looks for each layer's share of neurons (alloc.h), for all predictors that use such and are ready, and adds those
 * that prove themselves. *report: an array of what was measured; NULL: nothing was. */
mzm_status mzm_calibrate_shares(json_t **report, mzm_calibration *c, mzm_calib_writer *to, mzm_err *err);

uint64_t   mzm_calibrate_skip_bytes(const mzm_calibration *c); /* the next one takes, at most */
/* Looks for the layers that drafts can do without (calibrate_skip.h). *report: what it found. */
mzm_status mzm_calibrate_skip(json_t **report, mzm_calibration *c, mzm_calib_writer *to, mzm_err *err);

/* Measures every predictor of the params that is ready, on the held-out positions, with what was fitted so far. An
 * array, a row for each predictor and keep. timed: with what depends on the machine. */
typedef struct mzm_calibrate_report mzm_calibrate_report;
mzm_status mzm_calibrate_report_make(mzm_calibrate_report **out, mzm_calibration *c, const mzm_calib *fitted,
				     mzm_err *err);
json_t    *mzm_calibrate_report_json(const mzm_calibrate_report *r, bool timed); /* NULL: out of memory */
void       mzm_calibrate_report_free(mzm_calibrate_report *r);

/* Fits the confidence monitor to what checks find on the texts; without any of enough length nothing is added. */
mzm_status mzm_calibrate_monitor(mzm_calibration *c, mzm_calib_writer *to, mzm_err *err);

/* Tells the caller how far it is; ECANCELLED when it wants no more. */
mzm_status mzm_calibrate_tell(const mzm_calibration *c, const char *stage, uint64_t done, uint64_t total, mzm_err *err);

#endif
