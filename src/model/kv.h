/* kv.h - attention keys and values of one session, one row per token and layer.
 *
 * Row t of layer l holds K and V of token t. Rows at or past len are garbage by definition: truncate
 * only moves len. Not thread-safe; one session owns one mzm_kv. Each KV head's rows are contiguous,
 * so that attention over one head reads memory in order: a matrix of len rows for the row kernels.
 *
 * Linear attention (config.h) keeps the last tokens as rows, in f32, features in place of keys; what came before is in
 * a state a head, the sum of features times values. A position sees the state up to mzm_kv_base() of it, which lies on
 * a grid and at least MZM_KV_LAG tokens back, and the rows from there on: so what is computed depends on the position
 * alone, drafts and trees of them are rows, and going back moves a length as ever, by MZM_KV_LAG and the steps between
 * the MZM_KV_STATES latest states, which are kept. Where none serves, because it is to go further back, nothing is
 * left: see mzm_kv_reach. None of this grows with the context.
 *
 * Features of the paper's form are kept divided by a power of two, those of a row or of a state by the same one: that
 * stands behind a row's key, at [head_dim], and in powers. */
#ifndef MZM_KV_H
#define MZM_KV_H

#include "format/config.h"

#define MZM_KV_LAG  32  /* >= MZM_MAX_PERIOD, MZM_MAX_POS: no state holds a token of a draft */
#define MZM_KV_STEP 32  /* the grid */
#define MZM_KV_STATES 4
#define MZM_KV_ROWS 256 /* of linear attention: those that are kept, at most; and so many more that moving these is rare
			 * and a tree of drafts has room */
#define MZM_KV_KEPT (MZM_KV_LAG + MZM_KV_STATES * MZM_KV_STEP + 2)

/* Where a layer of linear attention stands. The others: zeros. */
typedef struct mzm_kv_place {
	int32_t first;  /* token of row 0 */
	int32_t base;   /* the latest state is of the tokens before it; 0: none */
	int32_t oldest; /* the same of the oldest one that is kept */
} mzm_kv_place;

typedef struct mzm_kv {
	int32_t n_layers, n_kv_heads, head_dim, max_tok;
	int32_t n_rows;       /* there is room for: max_tok, or fewer */
	bool    is_linear;
	int32_t len;          /* tokens present */
	mzm_dtype type;       /* f32, f16 or bf16 */
	size_t  row_bytes;    /* from one row of a head to the next */
	char   *k, *v;        /* [n_layers, n_kv_heads, n_rows, head_dim] of that type */
	float  *sums;         /* [n_layers, n_kv_heads, MZM_KV_STATES, head_dim + 1, head_dim] the last row is the sum
			       * of features; that of base b is number b / MZM_KV_STEP % MZM_KV_STATES. NULL: softmax */
	float  *powers;       /* [n_layers, n_kv_heads, MZM_KV_STATES] of those states; NULL: there are none */
	mzm_kv_place *place;  /* [n_layers] */
	void   *block;
} mzm_kv;

/* The tokens of the state that position pos sees; the rows from there on are at most MZM_KV_LAG + MZM_KV_STEP. */
static inline int32_t mzm_kv_base(int32_t pos)
{
	return pos < MZM_KV_LAG ? 0 : (pos - MZM_KV_LAG) / MZM_KV_STEP * MZM_KV_STEP;
}

mzm_status mzm_kv_create(mzm_kv **out, const mzm_config *cfg, int32_t max_tok, mzm_dtype type, mzm_err *err);
void       mzm_kv_free(mzm_kv *kv);
size_t     mzm_kv_bytes(const mzm_kv *kv);
bool       mzm_kv_measure(size_t *bytes, const mzm_config *cfg, int32_t max_tok, mzm_dtype type); /* false: too large */

/* len where tokens up to there can be kept, else 0: then they must be read again. */
int32_t    mzm_kv_reach(const mzm_kv *kv, int32_t len);
/* Goes back to mzm_kv_reach(len), also after a pass that failed, whatever it wrote. */
void       mzm_kv_restore(mzm_kv *kv, int32_t len);
/* Rows that there is room for behind len tokens. */
static inline int32_t mzm_kv_room(const mzm_kv *kv, int32_t len)
{
	int32_t left = kv->max_tok - len, most = MZM_KV_ROWS - MZM_KV_KEPT;
	return kv->sums && left > most ? most : left;
}
/* Makes it as if len tokens had been read, for benchmarks: what they are is what memory holds. */
void       mzm_kv_pretend(mzm_kv *kv, int32_t len);
/* What a pass over a position behind so many tokens reads of a layer. */
double     mzm_kv_bytes_read(const mzm_kv *kv, double n_tokens);

/* len <= kv->len shortens, of linear attention to mzm_kv_reach(len); O(layers). */
static inline void mzm_kv_truncate(mzm_kv *kv, int32_t len)
{
	if (len >= kv->len)
		return;
	if (kv->sums)
		mzm_kv_restore(kv, len);
	else
		kv->len = len;
}

/* Leaves n rows empty: they must not be looked at. n >= 0. */
static inline void mzm_kv_skip(mzm_kv *kv, int32_t n)
{
	kv->len += n;
}

/* Moves n rows, of ascending numbers, to first, first + 1 and so on; rows[i] >= first + i. All layers and heads. */
void       mzm_kv_gather(mzm_kv *kv, int32_t first, const int32_t *rows, int32_t n);

/* Where the row of a token begins, in bytes. */
static inline size_t mzm_kv_at(const mzm_kv *kv, int32_t layer, int32_t head, int32_t tok)
{
	size_t row = ((size_t)layer * (size_t)kv->n_kv_heads + (size_t)head) * (size_t)kv->n_rows;
	return (row + (size_t)(tok - kv->place[layer].first)) * kv->row_bytes;
}
static inline size_t mzm_kv_state(const mzm_kv *kv, int32_t layer, int32_t head, int32_t base)
{
	return ((size_t)layer * (size_t)kv->n_kv_heads + (size_t)head) * MZM_KV_STATES +
	       (size_t)(base / MZM_KV_STEP % MZM_KV_STATES);
}
static inline float *mzm_kv_sums(mzm_kv *kv, int32_t layer, int32_t head, int32_t base) /* [head_dim + 1, head_dim] */
{
	return kv->sums + mzm_kv_state(kv, layer, head, base) * ((size_t)kv->head_dim + 1) * (size_t)kv->head_dim;
}
static inline float *mzm_kv_power(mzm_kv *kv, int32_t layer, int32_t head, int32_t base)
{
	return kv->powers + mzm_kv_state(kv, layer, head, base);
}
static inline void *mzm_kv_k(mzm_kv *kv, int32_t layer, int32_t head, int32_t tok) /* [head_dim] */
{
	return kv->k + mzm_kv_at(kv, layer, head, tok);
}
static inline void *mzm_kv_v(mzm_kv *kv, int32_t layer, int32_t head, int32_t tok) /* [head_dim] */
{
	return kv->v + mzm_kv_at(kv, layer, head, tok);
}

#endif
