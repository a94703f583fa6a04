/* drafter.h - who proposes tokens for the full model to judge. A new idea is a new file.
 *
 * A drafter sees verified tokens only, appends its proposals behind them and may leave provisional rows in the KV: the
 * driver rolls them back. It may be wrong, slow or silent, never harmful. One is made for each generation; proposing
 * allocates nothing. Some run passes (sparse, skip, model), and their tokens are what a distribution says; others only
 * guess (ngram, jacobi). */
#ifndef MZM_DRAFTER_H
#define MZM_DRAFTER_H

#include "decode/monitor.h"
#include "format/calib.h"
#include "format/tokenizer.h"
#include "model/forward.h"

typedef struct mzm_draft_job {
	mzm_state     *state;     /* KV holds rows for all verified tokens but the last */
	mzm_sampler   *sampler;
	mzm_predictor *predictor; /* of sparse passes */
	mzm_monitor   *monitor;   /* of this drafter */
	bool           image;     /* drafts read the model's draft image */
	bool           held;      /* drafts use the neurons that the state holds */
	bool           adaptive;  /* the monitor may end the draft; else only max does */
	float          check_below; /* a token of less confidence ends the draft, too; 0: none does */
	const uint8_t *classes;   /* [n_vocab] of tokens (token_class.h); NULL: not known */
	int32_t       *ids;       /* [n + max] verified tokens, then room for the draft */
	int32_t        n;
	int32_t        max;       /* draft tokens at most */
	bool         (*is_stop)(void *ctx, int32_t id); /* this token would end the text: check at once */
	void          *ctx;
	int32_t        n_vocab;
	int32_t        width;     /* lines of a tree (draft_tree.h) */
	/* Of a tree, in place of is_stop: the text would end with the last of these n draft tokens. */
	bool         (*line_stops)(void *ctx, const int32_t *ids, int32_t n);
	const int32_t *sparse;    /* [n_sparse] the line of sparse passes in the same check, if they came before; else
				   * NULL */
	int32_t        n_sparse;

	/* Lossless sampling: tokens are drawn from what draft passes say, and that is kept for the check. Else NULL. */
	float         *q;         /* out: [max, n_vocab] weights (mzm_sampler_weights) */
	double        *q_total;   /* out: [max] their sums; 0: a guess */
	uint64_t       round;     /* of the random numbers (mzm_sampler_unit), as line is */
	int32_t        line;

	mzm_evidence  *evidence;  /* out: [max]; NaN of guesses */
	float         *confidence; /* out: [max]; NaN of guesses */
	int32_t        n_draft;   /* out */
	int32_t        n_passes;  /* out: draft passes run */
	int32_t        n_positions; /* out: positions of those */
	double         ffn_share; /* out, of sparse passes: sum of the share of FFN weights they read */
	double         node_share; /* out: the same, each pass weighted by its positions */
	double         work;      /* out, of others: sum of what they cost, in dense passes (spec: W) */
} mzm_draft_job;

/* What a drafter is made with. All outlives it. */
typedef struct mzm_draft_env {
	const mzm_gen_params *p;
	const mzm_config     *cfg;       /* of the full model */
	int32_t               n_ctx;     /* tokens that a text can have */
	mzm_state            *state;     /* of the full model */
	mzm_sampler          *sampler;
	const mzm_calib      *calib;     /* side-car; NULL: there is none */
	const mzm_tokenizer  *tokenizer; /* NULL: there is none */
	mzm_predictor        *predictor; /* of sparse passes; NULL: this generation has none */
	bool                  image, held; /* as in a job */
	double                sparse_work; /* what a sparse pass costs, in dense passes */
	double                sparse_share; /* of the FFN weights it reads */
	bool                  whole_image; /* the draft image is in memory, all of it, and may be read */
	struct {
		double base, per_share;
	} work[2]; /* what a pass costs by the share of the FFN weights that it reads; [1]: over the draft image */
	mzm_state            *own;       /* of the draft model; NULL: there is none */
	const mzm_config     *own_cfg;
	int32_t              *own_ids;   /* [n_ctx of that state] the tokens whose rows it has */
	double                own_work;  /* what its pass costs, in the full model's */
	bool                  own_gemm;  /* it reads whole chunks through oneDNN */
	/* For tests: Jacobi's new guess for a place of the text. NULL: its own. */
	int32_t             (*guess)(void *ctx, int32_t place);
	void                 *guess_ctx;
} mzm_draft_env;

/* What a check found out. */
typedef struct mzm_draft_news {
	const int32_t *ids;      /* [n] the text now, prompt included */
	int32_t        n, n_before; /* n_before: up to the round */
	/* This drafter's own line, judged by the full model; n_draft -1: it had none in this round. */
	const int32_t *draft;    /* [n_draft] */
	int32_t        n_draft, n_kept;
	const int32_t *choice;   /* [n_draft + 1] if ops->wants_choices, else NULL: [i] the full model's token behind
				  * i tokens of the line, whether or not they stand; in lossless sampling, which draws
				  * only what it needs, the likeliest */
} mzm_draft_news;

typedef struct mzm_drafter mzm_drafter;

typedef struct mzm_drafter_ops {
	const char *name, *about;
	bool        runs_passes;   /* it has evidence for the monitor, and each token costs a pass */
	bool        wants_choices;
	bool        needs_predictor; /* env->predictor must be there */
	/* Runs sparse passes with these params, though needs_predictor does not say so; NULL: no. */
	bool       (*predicts)(const mzm_drafter *d);
	mzm_status (*create)(mzm_drafter **out, const mzm_draft_env *env, mzm_err *err);
	void       (*free)(mzm_drafter *d);
	/* The prompt has been read; what of it the drafter reads with passes of its own. May be NULL. */
	mzm_status (*read)(mzm_drafter *d, const int32_t *ids, int32_t n, mzm_err *err);
	/* Behind that. May be NULL. */
	void       (*begin)(mzm_drafter *d, const int32_t *ids, int32_t n);
	mzm_status (*propose)(mzm_drafter *d, mzm_draft_job *job, mzm_err *err);
	/* After every check and what it emitted, those with other drafters' lines too. May be NULL. */
	void       (*learn)(mzm_drafter *d, const mzm_draft_news *news);
	/* What a draft token costs, in dense passes, by the weights that it reads; NULL: nothing. */
	double     (*cost)(const mzm_drafter *d);
	/* A hash of what its drafts depend on beside predictor and draft model. What a session measured and learnt of
	 * its drafts is worth nothing for others. NULL: nothing. */
	uint64_t   (*settings)(const mzm_drafter *d);
	/* Runs a draft pass over token 0 that leaves nothing behind, to be timed; NULL with cost. */
	mzm_status (*try_pass)(mzm_drafter *d, mzm_err *err);
} mzm_drafter_ops;

struct mzm_drafter {
	const mzm_drafter_ops *ops;
};

extern const mzm_drafter_ops mzm_draft_sparse; /* the model itself on predicted neurons */
extern const mzm_drafter_ops mzm_draft_ngram;  /* what followed when the text read so before */
extern const mzm_drafter_ops mzm_draft_jacobi; /* the model's own words behind its last guesses */
extern const mzm_drafter_ops mzm_draft_skip;   /* the model itself without some of its layers */
extern const mzm_drafter_ops mzm_draft_model;  /* a second, smaller model */

/* Names of mzm_gen_params.jacobi and jacobi_seed, the default first; NULL past the last. */
const char *mzm_jacobi_form_at(int i);
const char *mzm_jacobi_seed_at(int i);
/* Its first guesses come from sparse passes of its own, not from a sparse draft before it in the list. */
bool        mzm_jacobi_predicts(const mzm_gen_params *p);

#define MZM_DRAFT_AUTO   "auto"

/* The i-th, NULL past the last; by its name, -1: unknown. */
const mzm_drafter_ops *mzm_drafter_at(int i);
int  mzm_drafter_index(const char *name, size_t len);
/* Drafters by names joined with +, each once, in the order given; "auto" alone is all. Their number; -1: a name is
 * unknown or comes twice. */
int  mzm_drafter_list(int list[MZM_MAX_DRAFTERS], const char *names);
bool mzm_draft_is_auto(const char *names);

/* ---- for drafters (draft_line.c) ---- */

/* The next token of a line by the logits of a draft pass: chosen as the sampler does, in lossless sampling drawn;
 * appended, and what is known about it noted. True: the draft ends here. */
bool mzm_draft_take(mzm_draft_job *job, const float *logits);
/* The next token of a line as a guess. True: the draft ends here. */
bool mzm_draft_guess(mzm_draft_job *job, int32_t id);
/* A sparse pass over the last token of the line (draft_sparse.c); one to be timed, as try_pass. */
mzm_status mzm_draft_sparse_pass(mzm_draft_job *job, float **logits, mzm_err *err);
mzm_status mzm_draft_sparse_try(const mzm_draft_env *env, mzm_err *err);

#endif
