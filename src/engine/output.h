/* output.h - from verified tokens to text: decoding, stop strings, end-of-text tokens.
 *
 * Text that may still turn out to be the beginning of a stop string is held back. A draft is tried out
 * on a probe: a second output that copies the first one's state and releases nothing. */
#ifndef MZM_OUTPUT_H
#define MZM_OUTPUT_H

#include "engine/engine.h"

#define MZM_MAX_STOP_IDS 64

typedef struct mzm_output {
	const mzm_gen_params *params;
	const mzm_tokenizer  *tok;         /* may be NULL: no text */
	mzm_text_decoder      decoder;
	char                 *held;        /* [cap] text not yet released */
	size_t                n_held, cap;
	size_t                longest_stop;
	int32_t               stop_ids[MZM_MAX_STOP_IDS]; /* end-of-text tokens, and stops that are special tokens */
	int32_t               n_eos, n_stop_ids;          /* the first n_eos are the model's own */
	bool                  releases;    /* false: a probe */
	bool                  cancelled;   /* a callback said so */
} mzm_output;

typedef enum mzm_verdict { MZM_GO_ON, MZM_AT_EOS, MZM_AT_STOP } mzm_verdict;

mzm_status  mzm_output_create(mzm_output **out, const mzm_model *model, const mzm_gen_params *params, mzm_err *err);
void        mzm_output_free(mzm_output *o);
/* The next token of the text; what follows MZM_AT_EOS or MZM_AT_STOP is not text. */
mzm_verdict mzm_output_push(mzm_output *o, int32_t id);
void        mzm_output_finish(mzm_output *o); /* releases what was held back */
void        mzm_output_probe(mzm_output *probe, const mzm_output *from);

#endif
