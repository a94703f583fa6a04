/* generate_impl.h - what the files of generation share: its state, and the ways a token takes into the text. */
#ifndef MZM_GENERATE_IMPL_H
#define MZM_GENERATE_IMPL_H

#include "decode/lossless.h"
#include "engine/output.h"

/* A drafter of a generation. */
typedef struct mzm_gen_drafter {
	mzm_drafter *d;
	int          index;   /* of its kind (mzm_drafter_at) */
	mzm_monitor *monitor; /* the session's, of this kind */
	float        cost;    /* of a draft token, in dense passes */
	mzm_draft_stats *stats;
} mzm_gen_drafter;

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
	double                node_share;  /* the same, weighted by their positions */
	int32_t               n_shares;    /* of those */
	int64_t               n_share_positions;
	double                work;        /* of draft passes of other kinds, in dense passes */
	mzm_gen_drafter       drafter[MZM_MAX_DRAFTERS];
	int32_t               n_drafters;
	int32_t               line[MZM_MAX_PERIOD]; /* of the latest round with one */
	int32_t              *choice;      /* [MZM_MAX_PERIOD] of the latest line, if somebody wants them */
	struct mzm_draft_lines *lines;     /* several drafters share a check; else NULL */
	mzm_evidence          evidence[MZM_MAX_PERIOD];   /* of the draft under way */
	float                 confidence[MZM_MAX_PERIOD];
	float                 full_prob[MZM_MAX_PERIOD];  /* the full model's, of those it judged */
	char                 *sparse_rows; /* ablation of the KV rewrite: [period] rows of all layers; else NULL */
	float                 next_prob;                  /* and of its own token behind them */
	struct mzm_draft_tree *tree;   /* drafts are trees; NULL: lines */
	struct mzm_gen_lossless *lossless; /* drafts and checks draw (checked_lossless.c); else NULL */
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

/* What a draft and its check came to: the draft tokens behind g->n in s->ids, how many of them stand, and the full
 * model's own token behind these. */
typedef struct mzm_round {
	int32_t n_draft, n_kept, next;
	int     drafter; /* whose line it is; -1: several lines, or a tree */
} mzm_round;

/* The drafters of a generation, and what they cost (drafters.c). A generation that drafts nothing has none. */
mzm_status mzm_gen_open_drafters(mzm_generation *g);
mzm_status mzm_gen_settle_costs(mzm_generation *g);
void       mzm_gen_close_drafters(mzm_generation *g);

/* Parts of a round that lines and trees share (checked.c): a job for drafter i, and its numbers; the dense pass. */
mzm_draft_job mzm_gen_draft_job(mzm_generation *g, int i);
void          mzm_gen_count_draft(mzm_generation *g, const mzm_draft_job *job);
/* Lets drafter i propose behind the verified tokens. Its rows are gone when this returns, but for a single line's. */
mzm_status    mzm_gen_propose(mzm_generation *g, int i, mzm_draft_job *job);
mzm_status    mzm_gen_check(mzm_generation *g, mzm_pass *pass, float **rows);
/* Tells a drafter's monitor and its numbers what became of its line. */
void          mzm_gen_learn_line(mzm_generation *g, int i, const mzm_evidence *evidence, int32_t n_draft,
				 int32_t n_kept, int32_t n_gained, int32_t n_checked);
/* The rule by which tokens of a drafter are kept: the mode's for what sparse passes say, else the full model's choice,
 * so that sirius' threshold keeps its meaning. */
const mzm_verifier *mzm_gen_verifier(const mzm_generation *g, int i);
/* Whether a draft token stands at pos, by the processed logits and the choice of the full model. */
bool          mzm_gen_stands(mzm_generation *g, const mzm_verifier *verifier, const float *logits, int32_t id,
			     int32_t choice, int32_t pos);

/* A round with a tree (checked_tree.c), if this generation has them. */
mzm_status mzm_gen_prepare_tree(mzm_generation *g);
mzm_status mzm_gen_tree_round(mzm_generation *g, mzm_round *r);

/* The lines of several drafters, which share a check as a tree (checked_lines.c). */
typedef struct mzm_draft_lines {
	int32_t      n;                                   /* lines: of drafter 0, 1, ... */
	int32_t      len[MZM_MAX_DRAFTERS];
	int32_t      id[MZM_MAX_DRAFTERS][MZM_MAX_PERIOD];
	int32_t      node[MZM_MAX_DRAFTERS][MZM_MAX_PERIOD]; /* of the tree, behind the root */
	int32_t      kept[MZM_MAX_DRAFTERS];
	mzm_evidence evidence[MZM_MAX_DRAFTERS][MZM_MAX_PERIOD];
	float        confidence[MZM_MAX_DRAFTERS][MZM_MAX_PERIOD];
} mzm_draft_lines;

mzm_status mzm_gen_prepare_lines(mzm_generation *g);
mzm_status mzm_gen_lines_round(mzm_generation *g, mzm_round *r);
/* Checks g->tree and takes one of its paths, whoever grew it. */
mzm_status mzm_gen_check_tree(mzm_generation *g, mzm_round *r);

/* Lossless mode at a temperature (checked_lossless.c): what drafts drew from, and the place that is judged. */
typedef struct mzm_gen_lossless {
	mzm_lossless place;
	float       *p;                         /* [n_vocab] the full model's weights there */
	float       *q[MZM_MAX_DRAFTERS];       /* [period - 1, n_vocab] of each drafter; NULL: it only guesses */
	double      *q_total[MZM_MAX_DRAFTERS]; /* [period - 1] */
	uint64_t     prompt;                    /* a hash of it: with one seed, texts of many prompts are independent */
	uint64_t     reserved;                  /* of the model's budget */
} mzm_gen_lossless;

mzm_status mzm_gen_prepare_lossless(mzm_generation *g);
void       mzm_gen_free_lossless(mzm_generation *g);
/* What drafter i needs to draw its line. */
void       mzm_gen_lossless_job(const mzm_generation *g, int i, mzm_draft_job *job);
/* A place: what the full model says there (processed logits); whether token k of drafter i's line, proposed for it,
 * stands; and if nobody's does, or nobody proposed any, its token. */
void       mzm_gen_lossless_begin(mzm_generation *g, const float *logits);
bool       mzm_gen_lossless_stands(mzm_generation *g, int i, int32_t k, int32_t id);
int32_t    mzm_gen_lossless_draw(mzm_generation *g, int32_t k, bool bonus);

/* The decode loop of modes that check (checked.c). prepare: what it needs memory for, before the prompt is read; begin:
 * drafters and costs, behind it. The rest of a generation is freed by free. */
bool       mzm_gen_is_checked(mzm_mode mode);
mzm_status mzm_gen_prepare_checked(mzm_generation *g);
mzm_status mzm_gen_begin_checked(mzm_generation *g);
mzm_status mzm_gen_decode_checked(mzm_generation *g);
void       mzm_gen_free_checked(mzm_generation *g);

#endif
