/* weights.h - the weight image: every canonical tensor once; in memory, or where the store has it.
 *
 * Dense and sparse passes read the same bytes (invariant 1): FFN matrices are neuron-major, so a
 * choice of neurons is a list of rows. Immutable after loading; shared by all sessions. */
#ifndef MZM_WEIGHTS_H
#define MZM_WEIGHTS_H

#include "model/store.h"

typedef struct mzm_matrix {
	mzm_dtype   dtype;
	int32_t     n_rows, n_cols;
	size_t      stride;    /* bytes from row to row */
	const void *w;         /* NULL: it streams, as the spans that follow */
	int32_t     span;      /* number of the first */
	int32_t     span_rows; /* rows of this matrix in each but the last */
	size_t      offset;    /* of its first row in a span */
	bool        by_input;  /* rows are inputs: products are sums of rows */
} mzm_matrix;

typedef struct mzm_layer {
	const float *attn_norm, *ffn_norm; /* [dim]; ffn_norm NULL: the FFN reads what the attention reads */
	mzm_matrix   wq, wk, wv, wo;       /* all four by input, or none */
	mzm_matrix   gate;                 /* [n_ffn, dim] */
	mzm_matrix   up, down;             /* [n_ffn, dim] each: row j is neuron j's; interleaved, down behind up. up
					    * has no rows in an ungated model */
	/* NULL where the model has none (config.h) */
	const float *attn_norm_bias, *ffn_norm_bias;  /* [dim] */
	const float *bq, *bk, *bv, *bo;               /* as many as the matrix has outputs */
	const float *q_norm, *k_norm;                 /* [head_dim] */
	const float *attn_post_norm, *ffn_post_norm;  /* [dim] */
	const float *b_gate, *b_up, *b_down;          /* [n_ffn], [n_ffn], [dim] */
	/* of linear attention */
	mzm_matrix   wg;                              /* [n_heads * head_dim, dim]; no rows: there is no gate */
	const float *freq, *feature;                  /* [head_dim] scales of frequencies, weights of features */
	const float *decay;                           /* [n_kv_heads, decay_len, 2] 1 - rho, sigma */
	const float *group_norm, *group_norm_bias;    /* [n_heads * head_dim] */
} mzm_layer;

/* The second matrix of a neuron, which streams as one: up with down behind it, or down alone. */
static inline const mzm_matrix *mzm_layer_pairs(const mzm_layer *l)
{
	return l->up.n_rows ? &l->up : &l->down;
}

typedef struct mzm_weights {
	mzm_config   cfg;
	mzm_matrix   embed, head;          /* [n_vocab, dim]; the same matrix when tied */
	mzm_matrix   pos;                  /* [n_ctx, dim] learned positions; no rows: there are none */
	const float *out_norm, *out_norm_bias; /* [dim] */
	mzm_layer   *layer;                /* [n_layers] */
	mzm_layer   *draft;                /* [n_layers] of the draft image, norms shared; NULL: there is none */
	mzm_matrix   draft_head;
	int32_t      n_held;               /* neurons a layer that a state holds for sparse passes (held.h); 0: none */
	const mzm_layer *held_of;          /* [n_layers] whose: the draft image's, or the model's; NULL: none */
	float       *down_norm;            /* [n_layers, n_ffn] Euclidean norms of down rows; NULL where they stream */
	float       *up_norm;              /* the same of up rows; NULL without a gate too */
	mzm_store   *store;                /* NULL: all is in memory */
	void        *block;
	size_t       bytes;                /* of the image */
} mzm_weights;

/* Reads what is to be in memory: all when residency is NULL; with a store the source must outlive the weights. progress
 * may be NULL; non-zero from it cancels. */
mzm_status mzm_weights_load(mzm_weights **out, mzm_source *src, const mzm_residency *residency,
			    mzm_progress_fn progress, void *user, mzm_err *err);
void       mzm_weights_free(mzm_weights *w);

#endif
