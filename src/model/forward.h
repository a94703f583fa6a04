/* forward.h - one pass of the model over a few tokens: dense, or sparse by a predictor.
 *
 * A state is the scratch of one session. Passes are SPMD over its team. After a pass the KV holds a
 * row for each of its tokens; roll-back is mzm_kv_truncate. Nothing here allocates after creation. */
#ifndef MZM_FORWARD_H
#define MZM_FORWARD_H

#include "kern/threads.h"
#include "model/kv.h"
#include "model/predictor.h"
#include "model/weights.h"

/* Positions of a prefill chunk through oneDNN, the large one where the context is long enough to have room for it.
 * Chunks start at multiples of their size, so that what a token's KV is does not depend on how the prompt arrived;
 * everything else takes the row kernels. A pass may have several chunks and a rest, which share one reading of weights
 * that stream. */
#define MZM_CHUNK     64
#define MZM_CHUNK_BIG 512

typedef struct mzm_state mzm_state;

mzm_status mzm_state_create(mzm_state **out, const mzm_weights *w, const mzm_kern *kern, mzm_team *team, int32_t n_ctx,
			    mzm_dtype kv_type, mzm_err *err);
void       mzm_state_free(mzm_state *s);
mzm_kv    *mzm_state_kv(mzm_state *s);
size_t     mzm_state_bytes(const mzm_state *s); /* KV and scratch */
int32_t    mzm_state_max_pos(const mzm_state *s); /* of a pass */
/* What a state would take, for a team of n_ranks; has_bf16: the model has matrices of bf16, q8 or q4. False: more than
 * memory can be. */
bool       mzm_state_measure(size_t *bytes, const mzm_config *cfg, bool has_bf16, const mzm_kern *kern, int n_ranks,
			     int32_t n_ctx, mzm_dtype kv_type);

/* Where weights stream: called before each span of a pass, by the thread that runs it, with the spans so far and those
 * of a pass. Non-zero ends the pass with ECANCELLED. NULL: nobody watches. */
void       mzm_state_watch(mzm_state *s, mzm_progress_fn on_span, void *user);

uint64_t   mzm_state_bytes_streamed(const mzm_state *s); /* by its passes so far */

/* Where the weights say that states hold neurons (weights.h): takes those that the predictor wants, and reads what is
 * not there yet; by rehold it comes with the next dense pass, where that streams them. A held pass needs all of it. */
mzm_status mzm_state_hold(mzm_state *s, mzm_predictor *p, mzm_err *err);
void       mzm_state_rehold(mzm_state *s, mzm_predictor *p);

/* Several continuations of one text, as a tree of tokens. Node 0 is its last token; node i has the KV row root + i, the
 * position root + depth[i], and sees the text and its ancestors, whose numbers are lower. Its row of logits has the
 * bits that a pass over the text and that path would give. */
typedef struct mzm_tree {
	int32_t        root;    /* position of node 0 */
	const int32_t *parent;  /* [n] of node 0: -1 */
	const int32_t *depth;   /* [n] of node 0: 0 */
} mzm_tree;

typedef struct mzm_pass {
	const int32_t *ids;      /* [n_pos] tokens at positions kv->len .. */
	int32_t        n_pos;    /* 1..mzm_state_max_pos() */
	int32_t        n_rows;   /* logits wanted: of the last n_rows positions, 0..min(n_pos, MZM_MAX_POS) */
	mzm_predictor *sparse;   /* NULL = dense pass; else n_pos must be 1, or in a tree at most MZM_MAX_TREE_WIDTH:
				  * these share their neurons */
	const mzm_tree *tree;    /* the tokens are the nodes kv->len - root .. of it; NULL: they follow each other */
	mzm_predictor *observer; /* sees z of a dense pass; NULL = nobody */
	/* Shown the normed inputs [n_pos, dim] of every layer's FFN, by one thread; NULL: nobody looks. */
	void         (*see_input)(void *ctx, int32_t layer, const float *x, int32_t n_pos);
	void          *see_ctx;
	/* The same of the inputs of q, k and v (of_o: of o) [n_pos, n]. */
	void         (*see_attention)(void *ctx, int32_t layer, bool of_o, const float *x, int32_t n_pos, int32_t n);
	/* Dense: what act(gate) of one layer is multiplied with [n_pos, n_ffn], so that a calibration sees what neurons
	 * are worth; NULL: nothing. */
	const float   *mask;
	int32_t        mask_layer;
	bool           draft;    /* read the draft image; the model must have one */
	/* [2 * n_layers] attention and FFN of each layer that are left out: what they would add to the residual is not
	 * there, and a skipped attention leaves its KV rows unwritten. NULL: none. Not where the pass streams. */
	const uint8_t *skip;
	bool           held;     /* sparse: on the neurons that the state holds (held.h) */
	bool           gemm;     /* whole chunks of the grid go through oneDNN */
} mzm_pass;

/* What the predictor itself reads for a token (its cost), in the FFN weights of the model or of its draft image. */
double     mzm_state_cost_share(const mzm_state *s, const mzm_predictor *p, bool draft);

/* What the attention's matrices are, in the same. */
double     mzm_state_attention_share(const mzm_state *s, bool draft);

/* What a pass that is dense but for what it skips reads, as *ffn_share of mzm_forward has it. */
double     mzm_state_skip_share(const mzm_state *s, const uint8_t *skip, bool draft);
/* Passes over the model's own weights read some of them from the file. */
bool       mzm_state_streams(const mzm_state *s);

/* Runs the pass. *logits: [n_rows, n_vocab], the state's, until the next pass; may be NULL when n_rows is 0.
 * *ffn_share: share of the FFN weights that the pass read, the predictor's cost added, and what it did not read of the
 * attention subtracted, so that it may be below 0; may be NULL. ids must be in the
 * vocabulary and the KV must have room: callers check, once, at the border. */
mzm_status mzm_forward(mzm_state *s, const mzm_pass *pass, float **logits, double *ffn_share, mzm_err *err);

#endif
