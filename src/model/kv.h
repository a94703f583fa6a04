/* kv.h - attention keys and values of one session, one row per token and layer.
 *
 * Row t of layer l holds K and V of token t. Rows at or past len are garbage by definition: truncate
 * only moves len. Not thread-safe; one session owns one mzm_kv. Each KV head's rows are contiguous,
 * so that attention over one head reads memory in order: a matrix of len rows for the row kernels. */
#ifndef MZM_KV_H
#define MZM_KV_H

#include "format/config.h"

typedef struct mzm_kv {
	int32_t n_layers, n_kv_heads, head_dim, max_tok;
	int32_t len;          /* tokens present */
	mzm_dtype type;       /* f32, f16 or bf16 */
	size_t  row_bytes;    /* of one head's key or value */
	char   *k, *v;        /* [n_layers, n_kv_heads, max_tok, head_dim] of that type */
	void   *block;
} mzm_kv;

mzm_status mzm_kv_create(mzm_kv **out, const mzm_config *cfg, int32_t max_tok, mzm_dtype type, mzm_err *err);
void       mzm_kv_free(mzm_kv *kv);
size_t     mzm_kv_bytes(const mzm_kv *kv);
bool       mzm_kv_measure(size_t *bytes, const mzm_config *cfg, int32_t max_tok, mzm_dtype type); /* false: too large */

/* len <= kv->len shortens; O(1). */
static inline void mzm_kv_truncate(mzm_kv *kv, int32_t len)
{
	if (len < kv->len)
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
	size_t row = ((size_t)layer * (size_t)kv->n_kv_heads + (size_t)head) * (size_t)kv->max_tok + (size_t)tok;
	return row * kv->row_bytes;
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
