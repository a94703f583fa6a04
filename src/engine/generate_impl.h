/* generate_impl.h - what the files of generation share: its state, and the ways a token takes into the text. */
#ifndef MZM_GENERATE_IMPL_H
#define MZM_GENERATE_IMPL_H

#include "engine/output.h"

typedef struct mzm_generation {
	mzm_session          *s;
	const mzm_gen_params *p;
	mzm_gen_result       *r;
	mzm_err              *err;
	mzm_output           *out, *probe;
	mzm_kv               *kv;
	int32_t               n;       /* verified tokens in s->ids */
	int32_t               n_same;  /* of the prompt, from its first on: tokens whose rows the session has */
	int32_t               limit;   /* tokens there may be */
	bool                  done;
	bool                  cancelled; /* by a callback */
	int64_t               start_ns;
	double                prefill_pass_ns; /* of the last pass over the prompt, if it had few positions; else 0 */
	int32_t               last_gained; /* by the latest check */
	double                ffn_share;   /* sum over sparse passes */
	mzm_evidence          evidence[MZM_MAX_PERIOD];   /* of the draft under way */
	float                 confidence[MZM_MAX_PERIOD];
	float                 full_prob[MZM_MAX_PERIOD];  /* the full model's, of those it judged */
	char                 *sparse_rows; /* ablation of the KV rewrite: [period] rows of all layers; else NULL */
	float                 next_prob;                  /* and of its own token behind them */
} mzm_generation;

void            mzm_gen_end(mzm_generation *g, mzm_finish why); /* the first reason counts */
mzm_token_event mzm_gen_event(const mzm_generation *g, mzm_token_kind kind, int32_t pos, int32_t id);
void            mzm_gen_report(mzm_generation *g, const mzm_token_event *e);
/* Appends a verified token: the only way into the text. */
void            mzm_gen_emit(mzm_generation *g, const mzm_token_event *e);

/* The probability of a token, when somebody listens, else NAN: it costs a pass over the vocabulary. */
float           mzm_gen_traced_prob(mzm_generation *g, const float *logits, int32_t id);
/* The token that comes behind n, by the sampler. */
int32_t         mzm_gen_choose(mzm_generation *g, const float *logits, int32_t n, float *prob);

/* The decode loop of sirius and exact mode (checked.c). prepare: what it needs memory for; before the prompt is read.
 * The rest of a generation is freed by free. */
bool       mzm_gen_is_checked(mzm_mode mode);
mzm_status mzm_gen_prepare_checked(mzm_generation *g);
mzm_status mzm_gen_decode_checked(mzm_generation *g);
void       mzm_gen_free_checked(mzm_generation *g);

#endif
