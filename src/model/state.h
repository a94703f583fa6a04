/* state.h - the scratch of a session, shared by the files of the forward pass only. */
#ifndef MZM_STATE_H
#define MZM_STATE_H

#include "base/carve.h"
#include "kern/gemm.h"
#include "model/dijiang.h"
#include "model/forward.h"
#include "model/held.h"

#define MZM_ATT_ROWS    16  /* heads times positions that share a pass over keys and values */
#define MZM_COL_GRAIN   64  /* columns of a down projection a thread takes at once: whole cache lines */

/* The products of chunks whose activations have k columns, cut into equal parts. */
enum { MZM_N_CHUNKS = 2 }; /* sizes: MZM_CHUNK, MZM_CHUNK_BIG */

typedef struct mzm_gemm_input {
	int32_t   k, n_parts, depth; /* depth of a part; the last one is filled up with zeros */
	bool      sections;          /* parts are sections of sums, else equal ones */
	mzm_gemm *of[MZM_N_CHUNKS];  /* NULL: the state has no chunk of this size */
} mzm_gemm_input;

/* What chunks take from oneDNN, and their scratch (matmul_gemm.c). */
typedef struct mzm_gemm_scratch {
	bool           bf16;      /* else all in f32 */
	int            n_inputs;
	mzm_gemm_input input[4];  /* by outputs: dim, n_heads * head_dim if it differs; in sections: these, n_ffn */
	uint16_t      *acts;      /* [n_parts, max_pos, depth] rounded activations */
	uint16_t      *panel;     /* [n_ranks, panel_len] packed weights */
	uint16_t      *rows;      /* [n_ranks, rows_len] quantised weights as bf16 */
	float         *block;     /* [n_ranks, block_len] results */
	float         *wide;      /* [n_ranks, wide_len] weights in f32 */
	size_t         panel_len, rows_len, block_len, wide_len;
} mzm_gemm_scratch;

struct mzm_state {
	const mzm_weights *w;
	const mzm_kern    *kern;
	mzm_team          *team;
	mzm_kv            *kv;
	int32_t            n_ctx;

	int32_t            max_pos; /* of a pass: a chunk */

	/* of the pass under way */
	const mzm_pass *pass;
	int32_t   pos0;     /* KV row of its first token; its position, but in a tree */
	float    *x;        /* [max_pos, dim] residual stream */
	float    *h;        /* [max_pos, dim] normed input of a block */
	float    *q;        /* [max_pos, n_heads * head_dim] */
	float    *k, *v;    /* [max_pos, n_kv_heads * head_dim] before they go to the KV */
	float    *att;      /* [max_pos, n_heads * head_dim] */
	float    *proj;     /* [max_pos, dim] output of a block before it is added to x */
	float    *post;     /* [max_pos, dim] output of the FFN, where that is normalised first; else NULL */
	float    *gate;     /* [max_pos, n_ffn] act(gate), then z */
	float    *up;       /* [max_pos, n_ffn] */
	float    *rope;     /* [2, max_pos, rope_dim/2, 2] cos, sin; the second of local layers, if theirs differ */
	double   *inv_freq; /* [2, rope_dim/2] radians per position */
	int32_t   rope_dim; /* of a head, that rotate; 0: none */
	int32_t   walk;     /* tokens that a walk of the attention can be over: n_ctx; of linear attention few */
	float    *score;    /* [n_ranks, MZM_ATT_ROWS, walk] attention weights */
	float    *value;    /* [n_ranks, MZM_ATT_ROWS, head_dim] weighted values */
	char     *packed;   /* [n_ranks, packed_len] activations as the kernels want them */
	size_t    packed_len;
	float    *sums;     /* [n_ranks, MZM_ACCUM_SCRATCH bytes] */
	float    *logits;   /* [MZM_MAX_POS, n_vocab] */
	int32_t  *rows;     /* [n_ffn] neurons of a sparse pass */
	int32_t  *at;       /* [n_ffn] where those are, if they are held */
	float    *sizes;    /* [n_ffn] by which they are chosen, where that is not what one position computed */
	int32_t  *slots;    /* [n_ranks, walk] KV rows of the tokens that a node of a tree sees */
	mzm_held *held;     /* NULL: none */
	mzm_dijiang dijiang;
	mzm_gemm_scratch gemm;
	int32_t  *inputs;   /* [n_ranks, input_len] of the attention that a sparse pass uses; input_len 0: that lies by
			     * output */
	float    *values;   /* [n_ranks, MZM_MAX_TREE_WIDTH, input_len] and what these are */
	int32_t   input_len;
	int32_t   n_rows;   /* length of rows */
	int64_t   n_read;   /* rows of gate, up and down that a sparse pass read */
	double    attn_skipped; /* of attention matrices it did not read: weights; bytes of the draft image */
	_Atomic int failed; /* a status of a rank, else MZM_OK */
	const char *span;   /* streamed weights at hand, chosen by rank 0 between two barriers; NULL: none */
	mzm_err     why;    /* of a span that could not be read */
	uint64_t    bytes_streamed; /* by its passes, as the file has them */
	mzm_progress_fn on_span;
	void           *user;
	void     *block;
	size_t    bytes;
};

/* Of a token of the pass in the text. */
static inline int32_t mzm_pass_position(const mzm_state *s, int32_t i)
{
	const mzm_tree *tree = s->pass->tree;
	return tree ? tree->root + tree->depth[s->pos0 - tree->root + i] : s->pos0 + i;
}

/* The pieces of a layer; every rank of the team calls them in the same order. Each ends in a barrier. */
void mzm_attention(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank);
void mzm_ffn(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank);

/* What attention is where the model's is linear, in place of rows of scores (dijiang.c): from s->q, s->k, s->v and the
 * gate's projection to s->att. And its scratch: laid out, then filled. */
void mzm_linear_attention(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank);
void mzm_dijiang_layout(mzm_state *s, int n_ranks, mzm_carve *c);
void mzm_dijiang_fill(mzm_state *s);
/* Normalises a head of position p of the pass, unless norm is NULL, and rotates it. table: 1 in local layers that
 * rotate differently. */
void mzm_turn_head(const mzm_state *s, float *head, const float *norm, int table, int32_t p);

/* Activations [n_pos, n_cols] and, once a product has wanted it, their packed form in the rank's scratch: one at a
 * time, so the last to be packed is the one that is there. */
typedef struct mzm_acts {
	const float *x;
	bool         is_packed;
	mzm_dtype    form;
} mzm_acts;

/* Rows of a matrix that are in memory together: all of them, or those of a streamed span. base is where row 0 would
 * lie: row i is at base + i * stride. */
typedef struct mzm_part {
	int32_t     row0, row1;
	const char *base;
} mzm_part;

/* Goes on to the next part, from a zeroed one to the first. False behind the last, or when one could not be read, which
 * the state then remembers. Where the matrix streams, all ranks meet here. */
bool mzm_next_part(mzm_state *s, const mzm_matrix *m, mzm_part *part, mzm_team *team, int rank);

/* The next span of the store's order, at s->span, unless somebody wants the pass to end; why: s->why. */
mzm_status mzm_pin_span(mzm_state *s, mzm_store_order order, int32_t span);

/* List entries whose rows are in [row0, row1): [*lo, *hi). rows: ascending, or NULL for 0 .. n-1. */
void mzm_list_range(const int32_t *rows, int32_t n, int32_t row0, int32_t row1, int32_t *lo, int32_t *hi);

/* What to do with the outputs begin .. end-1 of every position, by the rank that computed them; their bias is added. */
typedef struct mzm_product mzm_product;
typedef void (*mzm_after_fn)(mzm_state *s, const mzm_product *p, int32_t begin, int32_t end);

/* y[n_pos, ldy] = x times rows of a matrix, one output a list entry; then after(), unless NULL. Where it lies by input:
 * x [n_pos, rows of m], values of the listed inputs in list order, times these rows, summed up to all outputs. */
struct mzm_product {
	const mzm_matrix *m;
	const int32_t    *rows; /* [n_rows] ascending, or NULL: all */
	int32_t           n_rows;
	mzm_acts         *x;
	float            *y;
	size_t            ldy;
	int32_t           n_pos;
	const float      *bias;    /* by neuron, or row of m; NULL: none */
	const int32_t    *bias_at; /* [n_rows] whose bias an output gets; NULL: rows */
	mzm_after_fn      after;
	float            *z;    /* of after(): [n_pos, ldy] */
	int32_t           pos;  /* of after(): the first position, counted in the pass */
};

/* Positions of a pass that take part in a product together: a chunk, by oneDNN, or what the row kernels take. */
typedef struct mzm_group {
	int32_t first, n;
} mzm_group;

/* Goes on to the next group of n_pos positions, from a zeroed one to the first; false behind the last. */
bool mzm_next_group(const mzm_state *s, int32_t n_pos, mzm_group *g);

/* This rank's share of a product; all parts of the matrix, or the one given. No barrier behind it. */
void mzm_matmul(mzm_state *s, const mzm_product *p, mzm_team *team, int rank);
void mzm_matmul_part(mzm_state *s, const mzm_product *p, const mzm_part *part, mzm_team *team, int rank);

/* Sums of rows, those of a down projection too, are taken over sections of so many rows, one after the other: what is
 * in memory together is whole sections, so that streaming does not change a sum. */
#define MZM_SECTION 512

/* Neurons of a pass: a list, or all. */
typedef struct mzm_neurons {
	const int32_t *rows; /* [n] ascending; NULL: all */
	const int32_t *at;   /* [n] the rows of the matrices that are theirs, in any order; NULL: their own */
	int32_t        n;
} mzm_neurons;

/* Where the output of the FFN is summed up: the residual stream, or s->post. */
static inline float *mzm_ffn_sink(const mzm_state *s)
{
	return s->post ? s->post : s->x;
}

/* mzm_ffn_sink()[n_pos, dim] += a[n_pos, n_ffn] times the rows of m (down projection) that are in the part and on the
 * list, this rank's share of columns. a lies in list order. */
void mzm_matmul_down(mzm_state *s, const mzm_matrix *m, const mzm_part *part, mzm_neurons of, const float *a,
		     mzm_team *team, int rank);
/* The same two through oneDNN, for a chunk (matmul_gemm.c); the products are of its positions alone. */
void mzm_gemm_rows(mzm_state *s, const mzm_product *p, const mzm_part *part, mzm_team *team, int rank, int32_t *begin,
		   int32_t *end);
void mzm_gemm_down(mzm_state *s, const mzm_matrix *m, const mzm_part *part, mzm_group g, const float *a, mzm_team *team,
		   int rank);
/* p->y += what the part adds to a chunk, by input. */
void mzm_gemm_sums(mzm_state *s, const mzm_product *p, const mzm_part *part, mzm_team *team, int rank);
/* What they need, by the weights and the team of the state: the shapes (start does that too), products compiled, both
 * before the layout; its arrays. */
void       mzm_gemm_shape(mzm_state *s, bool has_bf16);
mzm_status mzm_gemm_start(mzm_state *s, mzm_err *err);
void       mzm_gemm_stop(mzm_state *s);
void       mzm_gemm_layout(mzm_state *s, int n_ranks, mzm_carve *c);
/* What a row counts for in densities: its weights, or its bytes. */
double mzm_row_size(const mzm_matrix *m, bool bytes);

/* h = norm(x), of the kind that the model has, for this rank's share of the positions, then a barrier. */
void mzm_norm(mzm_state *s, float *h, const float *x, const float *weight, const float *bias, int32_t n_pos,
	      mzm_team *team, int rank);
/* x += norm(y), y being overwritten, for this rank's share of the positions of the pass, then a barrier. */
void mzm_join_normed(mzm_state *s, float *y, const float *weight, mzm_team *team, int rank);

/* sink += proj, or x += proj, over columns [begin, end) of every position of the product. */
void mzm_add_to_sink(mzm_state *s, const mzm_product *p, int32_t begin, int32_t end);
void mzm_add_residual(mzm_state *s, const mzm_product *p, int32_t begin, int32_t end);

#endif
