/* engine.h - what a model and a session are made of; shared by the files of this folder only. */
#ifndef MZM_ENGINE_H
#define MZM_ENGINE_H

#include <pthread.h>

#include "decode/draft_policy.h"
#include "decode/token_class.h"
#include "decode/verifier.h"
#include "format/tokenizer.h"
#include "predictors/registry.h"

#define MZM_NOT_OBSERVED INT32_MAX
#define MZM_DEFAULT_CTX 4096 /* of a session that names none, when the model allows more */

/* Memory that sessions took of what the plan left for them. */
typedef struct mzm_ledger {
	pthread_mutex_t lock;
	uint64_t        spent;
} mzm_ledger;

struct mzm_model {
	mzm_weights    *weights;
	mzm_tokenizer  *tokenizer; /* NULL: the source had none */
	const mzm_kern *kern;
	bool            gemm;      /* prefill through oneDNN */
	bool            has_bf16;  /* matrices that take part in that as bf16 */
	mzm_model_info  info;
	mzm_plan        plan;
	mzm_ledger     *ledger;
	mzm_calib      *calib;     /* the side-car; NULL: there is none */
	uint8_t        *token_classes; /* [n_vocab], see token_class.h; NULL without a tokenizer */
	mzm_source     *source;    /* NULL: all was read from it; else the store reads on */
	char           *path;
	char           *tokenizer_config; /* text of tokenizer_config.json, for chat templates; NULL: there is none */
	size_t          tokenizer_config_len;
};

/* What sparse passes read. */
typedef struct mzm_drafting {
	bool image; /* the draft image: there is one, and nobody forbids it */
	bool held;  /* neurons that the session holds, for there is no room for all */
} mzm_drafting;

struct mzm_session {
	const mzm_model *model;
	uint64_t         reserved;   /* of the model's ledger */
	mzm_team        *team;
	mzm_state       *state;
	mzm_dtype        kv_type;    /* of keys and values, as asked for */
	mzm_sampler     *sampler;
	mzm_monitor      monitor;      /* of sparse drafts */
	mzm_monitor      monitor_of[MZM_MAX_DRAFTERS]; /* of others */
	mzm_draft_policy policy;       /* of drafts "auto" */
	double           forced_accept; /* bench: a check keeps draft tokens by this chance alone; 0 = off */
	uint64_t         forced_seed;   /* of that chance, which is a function of it and the token's position */
	bool             always_tree;   /* tests: drafts of width 1 are trees too */
	int32_t        (*guess)(void *ctx, int32_t place); /* tests: Jacobi's new guesses; NULL: its own */
	void            *guess_ctx;
	int32_t         *ids;        /* [n_ctx + MZM_MAX_PERIOD] the timeline, drafts behind its end */

	/* what a next generation may go on from (keep_prefix) */
	int32_t          n_full;     /* leading rows of the KV that dense passes made of the tokens in ids */
	int32_t          n_high;     /* most verified tokens since the text was last read from its beginning */
	int32_t          n_observed; /* the predictor has observed the prompt passes over these leading tokens, and
				      * no others; MZM_NOT_OBSERVED: it missed some, or saw what is gone */

	/* the predictor of the last generation, kept while its settings stay the same */
	mzm_predictor   *predictor;
	int32_t         *keep_of;    /* [n_layers] what it keeps in each, if the side-car says so */
	float           *attn_threshold; /* [n_layers, 2] of its sparse passes, if attn_keep is below 1 */
	float            keep, attn_keep;
	bool             no_alloc;
	uint64_t         seed;
	mzm_drafting     drafting;
	mzm_costs        costs_of[MZM_MAX_DRAFTERS]; /* measured, of drafters by number; sparse 0 = not yet */
	uint64_t         settings_of[MZM_MAX_DRAFTERS]; /* for which, and for which monitor_of and policy learnt */

	/* the draft model of the last generation that had one */
	const mzm_model *own_of;
	mzm_state       *own;
	int32_t         *own_ids;    /* [n_ctx of that] the tokens whose rows it has */
};

/* What a session of these params takes at most: keys, values, scratch, sampler, tokens, predictor. */
mzm_status mzm_session_measure(uint64_t *bytes, const mzm_config *cfg, bool has_bf16, const mzm_kern *kern,
			       const mzm_session_params *params, mzm_err *err);

/* Under a budget sessions take their memory out of what the plan left for them; else these do nothing. ENOMEM: "WHAT
 * needs ..." */
mzm_status mzm_model_reserve(const mzm_model *m, uint64_t bytes, const char *what, mzm_err *err);
void       mzm_model_release(const mzm_model *m, uint64_t bytes);


/* What drafters of these params are made with; what the session keeps for them is made now. */
mzm_status mzm_session_draft_env(mzm_draft_env *out, mzm_session *s, const mzm_gen_params *p, mzm_err *err);
bool  mzm_gen_needs_predictor(const mzm_gen_params *p);
float mzm_gen_keep(const mzm_gen_params *p); /* share of neurons that its sparse passes keep */

/* EARG: the draft model has other tokens; the message names the first (draft_state.c). */
mzm_status mzm_model_check_draft(const mzm_model *m, const mzm_model *draft, mzm_err *err);
/* The session's state for this draft model in s->own, made anew if it is another one. */
mzm_status mzm_session_use_draft(mzm_session *s, const mzm_model *draft, mzm_err *err);
/* What the session measured and learnt of drafter `index` with other settings than these is gone. */
void       mzm_session_note_settings(mzm_session *s, int index, uint64_t settings);
void       mzm_session_drop_draft(mzm_session *s);
float mzm_drafter_cost(const mzm_drafter *d); /* of a draft token; NULL or of guesses: next to nothing */

/* What a draft token costs, in dense passes of dense_ns. */
mzm_status mzm_session_draft_cost(mzm_session *s, mzm_drafter *d, double dense_ns, float *out, mzm_err *err);

/* As mzm_session_measure_costs, of a drafter that is there (NULL: checks alone). dense_ns: what a dense pass over a few
 * tokens just took, which saves running one where weights stream; 0: not known. */
mzm_status mzm_session_complete_costs(mzm_session *s, mzm_drafter *d, double dense_ns, mzm_costs *out, mzm_err *err);

/* EUNDEFINED: it needs the whole model in memory, and it is not there. */
mzm_status mzm_model_check_predictor(const mzm_model *m, const mzm_predictor_ops *ops, mzm_err *err);

/* The predictor for these params in s->predictor, made anew if it is another one. */
mzm_status mzm_session_use_predictor(mzm_session *s, const mzm_gen_params *params, mzm_err *err);

/* Share of the FFN weights that a sparse pass of the session's predictor is to read. */
double mzm_session_ffn_share(const mzm_session *s);

/* Share of the whole model (density), or of the weights a dense pass reads, that a sparse pass touches: of parameters;
 * of bytes when it reads the draft image. */
double mzm_model_density(const mzm_model *m, double ffn_share, bool draft_image);
double mzm_model_read_density(const mzm_model *m, double ffn_share, bool draft_image);

mzm_drafting mzm_model_drafting(const mzm_model *m, const mzm_predictor_ops *ops, bool no_draft_image);
/* What a predictor for such passes is made with: of held neurons it cannot keep more than there are. */
mzm_pred_env mzm_model_pred_env(const mzm_model *m, float keep, uint64_t seed, mzm_drafting d);

/* As mzm_model_open, from a source that is open already, which it closes in any case; name: for messages. */
mzm_status mzm_model_open_source(mzm_model **out, mzm_source *src, const char *name, const mzm_model_params *params,
				 mzm_err *err);

#endif
