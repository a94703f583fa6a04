/* kv.c - see kv.h. */
#include "model/kv.h"

#include <string.h>

#include "base/carve.h"

_Static_assert(MZM_KV_LAG >= MZM_MAX_POS && MZM_KV_LAG >= MZM_MAX_PERIOD, "no state holds a token of a draft");
_Static_assert(MZM_KV_ROWS >= MZM_KV_KEPT + MZM_KV_LAG + MZM_KV_STEP, "what is kept, and positions that share a walk");

static void kv_layout(mzm_kv *kv, mzm_carve *c)
{
	size_t heads = (size_t)kv->n_layers * (size_t)kv->n_kv_heads; /* both checked against small limits */
	size_t d = (size_t)kv->head_dim, n;
	if (!mzm_mul_size(heads, (size_t)kv->n_rows, &n) || !mzm_mul_size(n, kv->row_bytes, &n))
		c->overflow = true;
	else {
		kv->k = mzm_carve_take(c, 1, n);
		kv->v = mzm_carve_take(c, 1, n);
	}
	if (kv->is_linear && !mzm_mul_size(heads, MZM_KV_STATES * (d + 1) * d, &n))
		c->overflow = true;
	else if (kv->is_linear)
		kv->sums = MZM_CARVE(c, float, n);
	if (kv->is_linear)
		kv->powers = MZM_CARVE(c, float, heads * MZM_KV_STATES);
	kv->place = MZM_CARVE(c, mzm_kv_place, kv->n_layers);
}

static mzm_kv shape(const mzm_config *cfg, int32_t max_tok, mzm_dtype type)
{
	bool linear = mzm_config_is_linear(cfg);
	mzm_kv kv = {.n_layers = cfg->n_layers, .n_kv_heads = cfg->n_kv_heads, .head_dim = cfg->head_dim,
		     .max_tok = max_tok, .n_rows = max_tok, .is_linear = linear, .type = linear ? MZM_F32 : type};
	if (linear && max_tok > MZM_KV_ROWS)
		kv.n_rows = MZM_KV_ROWS;
	kv.row_bytes = mzm_row_bytes(kv.type, cfg->head_dim);
	if (cfg->attn == MZM_ATTN_DIJIANG_PAPER)
		kv.row_bytes += MZM_ALIGN; /* a power behind it */
	return kv;
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
	memset(kv->place, 0, (size_t)kv->n_layers * sizeof *kv->place);
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
	size_t heads = (size_t)kv->n_layers * (size_t)kv->n_kv_heads, d = (size_t)kv->head_dim;
	size_t states = kv->sums ? heads * MZM_KV_STATES * ((d + 1) * d + 1) * sizeof(float) : 0;
	return 2 * heads * (size_t)kv->n_rows * kv->row_bytes + states;
}

double mzm_kv_bytes_read(const mzm_kv *kv, double n_tokens)
{
	double most = MZM_KV_LAG + MZM_KV_STEP / 2, d = kv->head_dim;
	double row = (double)mzm_row_bytes(kv->type, kv->head_dim);
	if (!kv->sums)
		return 2.0 * kv->n_kv_heads * row * n_tokens;
	bool has_state = n_tokens > most;
	return kv->n_kv_heads * (2.0 * row * (has_state ? most : n_tokens) +
				 (has_state ? (d + 1) * d * (double)sizeof(float) : 0));
}

/* ---- linear attention ---- */

int32_t mzm_kv_reach(const mzm_kv *kv, int32_t len)
{
	int32_t base = mzm_kv_base(len);
	for (int32_t l = 0; kv->sums && l < kv->n_layers; l++) {
		if (base < kv->place[l].oldest)
			return 0;
	}
	return len;
}

void mzm_kv_restore(mzm_kv *kv, int32_t len)
{
	len = mzm_kv_reach(kv, len);
	for (int32_t l = 0; kv->sums && l < kv->n_layers; l++) {
		mzm_kv_place *p = &kv->place[l];
		if (len == 0)
			*p = (mzm_kv_place){0};
		while (p->base > len) /* that state has tokens that are gone */
			p->base -= MZM_KV_STEP;
	}
	kv->len = len;
}

void mzm_kv_pretend(mzm_kv *kv, int32_t len)
{
	int32_t base = len > 0 ? mzm_kv_base(len - 1) : 0, span = (MZM_KV_STATES - 1) * MZM_KV_STEP;
	int32_t oldest = base < span ? 0 : base - span;
	for (int32_t l = 0; kv->sums && l < kv->n_layers; l++)
		kv->place[l] = (mzm_kv_place){.first = oldest, .base = base, .oldest = oldest};
	kv->len = len;
}

/* at: where the row of token first is. */
static void gather(char *at, size_t row_bytes, int32_t first, const int32_t *rows, int32_t n)
{
	for (int32_t i = 0; i < n; i++) {
		if (rows[i] != first + i)
			memcpy(at + (size_t)i * row_bytes, at + (size_t)(rows[i] - first) * row_bytes, row_bytes);
	}
}

void mzm_kv_gather(mzm_kv *kv, int32_t first, const int32_t *rows, int32_t n)
{
	for (int32_t l = 0; l < kv->n_layers; l++) {
		for (int32_t h = 0; h < kv->n_kv_heads; h++) {
			gather(mzm_kv_k(kv, l, h, first), kv->row_bytes, first, rows, n);
			gather(mzm_kv_v(kv, l, h, first), kv->row_bytes, first, rows, n);
		}
	}
}
