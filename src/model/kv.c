/* kv.c - see kv.h. */
#include "model/kv.h"

#include <string.h>

#include "base/carve.h"

static void kv_layout(mzm_kv *kv, mzm_carve *c)
{
	size_t rows = (size_t)kv->n_layers * (size_t)kv->n_kv_heads; /* both checked against small limits */
	size_t n;
	if (!mzm_mul_size(rows, (size_t)kv->max_tok, &n) || !mzm_mul_size(n, kv->row_bytes, &n))
		c->overflow = true;
	else {
		kv->k = mzm_carve_take(c, 1, n);
		kv->v = mzm_carve_take(c, 1, n);
	}
}

static mzm_kv shape(const mzm_config *cfg, int32_t max_tok, mzm_dtype type)
{
	return (mzm_kv){.n_layers = cfg->n_layers, .n_kv_heads = cfg->n_kv_heads, .head_dim = cfg->head_dim,
			.max_tok = max_tok, .type = type, .row_bytes = mzm_row_bytes(type, cfg->head_dim)};
}

bool mzm_kv_measure(size_t *bytes, const mzm_config *cfg, int32_t max_tok, mzm_dtype type)
{
	mzm_kv kv = shape(cfg, max_tok, type);
	mzm_carve c = {0};
	kv_layout(&kv, &c);
	*bytes = c.used;
	return !c.overflow;
}

mzm_status mzm_kv_create(mzm_kv **out, const mzm_config *cfg, int32_t max_tok, mzm_dtype type, mzm_err *err)
{
	mzm_kv *kv;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&kv, sizeof *kv, "the KV cache", err));
	*kv = shape(cfg, max_tok, type);
	mzm_carve c = {0};
	kv_layout(kv, &c);
	mzm_status st =
		c.overflow ? mzm_fail(err, MZM_EARG, "a context of %d tokens is larger than memory can be", max_tok)
			   : mzm_alloc_for(&kv->block, c.used, "the KV cache (a smaller context needs less)", err);
	if (st != MZM_OK) {
		mzm_free(kv);
		return st;
	}
	c = (mzm_carve){.base = kv->block};
	kv_layout(kv, &c);
	*out = kv;
	return MZM_OK;
}

void mzm_kv_free(mzm_kv *kv)
{
	if (!kv)
		return;
	mzm_free(kv->block);
	mzm_free(kv);
}

size_t mzm_kv_bytes(const mzm_kv *kv)
{
	return 2 * mzm_kv_at(kv, kv->n_layers, 0, 0);
}

static void gather(char *head, size_t row_bytes, int32_t first, const int32_t *rows, int32_t n)
{
	for (int32_t i = 0; i < n; i++) {
		if (rows[i] != first + i)
			memcpy(head + (size_t)(first + i) * row_bytes, head + (size_t)rows[i] * row_bytes, row_bytes);
	}
}

void mzm_kv_gather(mzm_kv *kv, int32_t first, const int32_t *rows, int32_t n)
{
	for (int32_t l = 0; l < kv->n_layers; l++) {
		for (int32_t h = 0; h < kv->n_kv_heads; h++) {
			gather(mzm_kv_k(kv, l, h, 0), kv->row_bytes, first, rows, n);
			gather(mzm_kv_v(kv, l, h, 0), kv->row_bytes, first, rows, n);
		}
	}
}
