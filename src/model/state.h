/* state.h - the scratch of a session, shared by the files of the forward pass only. */
#ifndef MZM_STATE_H
#define MZM_STATE_H

#include "model/forward.h"

#define MZM_COL_GRAIN   64  /* columns of a down projection a thread takes at once: whole cache lines */
#define MZM_GEMM_ROWS   64  /* output rows of a oneDNN block */
#define MZM_GEMM_DEPTH  256 /* neurons of a oneDNN block of the down projection */

struct mzm_state {
	const mzm_weights *w;
	const mzm_kern    *kern;
	mzm_team          *team;
	mzm_kv            *kv;
	int32_t            n_ctx;

	/* of the pass under way; max_pos = MZM_CHUNK */
	const mzm_pass *pass;
	int32_t   pos0;     /* position of its first token */
	float    *x;        /* [max_pos, dim] residual stream */
	float    *h;        /* [max_pos, dim] normed input of a block */
	float    *q;        /* [max_pos, n_heads * head_dim] */
	float    *k, *v;    /* [max_pos, n_kv_heads * head_dim] before they go to the KV */
	float    *att;      /* [max_pos, n_heads * head_dim] */
	float    *proj;     /* [max_pos, dim] output of a block before it is added to x */
	float    *gate;     /* [max_pos, n_ffn] act(gate), then z */
	float    *up;       /* [max_pos, n_ffn] */
	float    *rope;     /* [max_pos, head_dim/2, 2] cos, sin */
	double   *inv_freq; /* [head_dim/2] radians per position */
	float    *score;    /* [n_ranks, n_ctx] attention weights of one head */
	float    *logits;   /* [MZM_MAX_POS, n_vocab] */
	int32_t  *rows;     /* [n_ffn] neurons of a sparse pass */
	float    *picked;   /* [n_ffn] act(gate) or z of those */
	float    *wide;     /* [n_ranks, gemm block] weights widened for oneDNN */
	size_t    wide_len; /* floats a rank has there */
	int32_t   n_rows;   /* length of rows */
	int64_t   n_picked; /* sum of n_rows over the layers */
	_Atomic int failed; /* a status of a rank, else MZM_OK */
	void     *block;
	size_t    bytes;
};

/* The pieces of a layer; every rank of the team calls them in the same order. Each ends in a barrier. */
void mzm_attention(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank);
void mzm_ffn(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank);

/* y[n_pos, ldy] = x times the matrix, this rank's share of its rows [*begin, *end); rows: list or NULL. */
void mzm_matmul(mzm_state *s, const mzm_matrix *m, const int32_t *rows, int32_t n_rows, const float *x, float *y,
		size_t ldy, int32_t n_pos, mzm_team *team, int rank, int32_t *begin, int32_t *end);
/* y[n_pos, dim] = a[n_pos, lda] times the rows of m (down projection), this rank's share of the columns. */
void mzm_matmul_down(mzm_state *s, const mzm_matrix *m, const int32_t *rows, int32_t n_rows, const float *a, size_t lda,
		     float *y, int32_t n_pos, mzm_team *team, int rank, int32_t *begin, int32_t *end);
/* The same two through oneDNN, for a chunk (matmul_gemm.c): rows, or columns, [begin, end). */
void mzm_gemm_rows(mzm_state *s, const mzm_matrix *m, const float *x, float *y, size_t ldy, int32_t n_pos, int rank,
		   int32_t begin, int32_t end);
void mzm_gemm_down(mzm_state *s, const mzm_matrix *m, const float *a, size_t lda, float *y, int32_t n_pos, int rank,
		   int32_t begin, int32_t end);
/* h = rmsnorm(x) for this rank's share of the positions, then a barrier. */
void mzm_norm(mzm_state *s, float *h, const float *x, const float *weight, int32_t n_pos, mzm_team *team, int rank);

/* x += proj over columns [begin, end) of every position. */
void mzm_add_residual(mzm_state *s, int32_t begin, int32_t end);

#endif
