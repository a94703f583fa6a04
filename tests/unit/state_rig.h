/* state_rig.h - what sessions keep of a text, compared bit for bit: keys and values, or the sums that linear attention
 * has in place of old ones, and the logits that follow. */
#ifndef STATE_RIG_H
#define STATE_RIG_H

#include "testing.h"

#include "engine/engine.h"

static inline int32_t rig_lesser(int32_t a, int32_t b)
{
	return a < b ? a : b;
}

/* Rows of a head; where a power may stand behind each, what is behind that is nobody's. */
static inline void rig_same_run(const mzm_kv *kv, const char *a, const char *b, int32_t n, bool keys)
{
	bool has_power = kv->row_bytes > mzm_row_bytes(kv->type, kv->head_dim);
	size_t bytes = ((size_t)kv->head_dim + keys) * sizeof(float);
	if (!has_power)
		assert_memory_equal(a, b, (size_t)n * kv->row_bytes);
	for (int32_t i = 0; has_power && i < n; i++)
		assert_memory_equal(a + (size_t)i * kv->row_bytes, b + (size_t)i * kv->row_bytes, bytes);
}

/* One head of a layer, from the token `from` on. */
static inline void rig_same_head(mzm_kv *x, mzm_kv *y, int32_t l, int32_t h, int32_t from)
{
	size_t d = (size_t)x->head_dim, sums = (d + 1) * d * sizeof(float);
	rig_same_run(x, mzm_kv_k(x, l, h, from), mzm_kv_k(y, l, h, from), x->len - from, true);
	rig_same_run(x, mzm_kv_v(x, l, h, from), mzm_kv_v(y, l, h, from), x->len - from, false);
	if (from > 0)
		assert_memory_equal(mzm_kv_sums(x, l, h, from), mzm_kv_sums(y, l, h, from), sums);
	if (from > 0 && x->row_bytes > mzm_row_bytes(x->type, x->head_dim))
		assert_memory_equal(mzm_kv_power(x, l, h, from), mzm_kv_power(y, l, h, from), sizeof(float));
}

/* All rows; of linear attention the latest state that both have and the next token may see, and the rows behind it. */
static inline void rig_same_kv(mzm_kv *x, mzm_kv *y)
{
	assert_int_equal(x->len, y->len);
	assert_int_equal(x->row_bytes, y->row_bytes);
	for (int32_t l = 0; l < x->n_layers; l++) {
		int32_t from = rig_lesser(x->place[l].base, y->place[l].base);
		for (int32_t h = 0; h < x->n_kv_heads; h++)
			rig_same_head(x, y, l, h, x->is_linear ? rig_lesser(from, mzm_kv_base(x->len)) : 0);
	}
}

static inline void rig_same_rows(mzm_session *a, mzm_session *b)
{
	rig_same_kv(mzm_state_kv(a->state), mzm_state_kv(b->state));
}

/* Logits behind one more token; the session is left as it was, and does not know of it. */
static inline const float *rig_next_logits(mzm_session *s, int32_t id)
{
	float *logits;
	mzm_err err = {0};
	mzm_kv *kv = mzm_state_kv(s->state);
	int32_t len = kv->len;
	mzm_pass pass = {.ids = &id, .n_pos = 1, .n_rows = 1};
	if (mzm_forward(s->state, &pass, &logits, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_kv_truncate(kv, len);
	assert_int_equal(kv->len, len);
	return logits;
}

/* Rows, and what follows them and the token `last`. */
static inline void rig_same_state(mzm_session *a, mzm_session *b, int32_t last)
{
	rig_same_rows(a, b);
	if (mzm_session_len(a) == mzm_session_n_ctx(a) || mzm_session_len(b) == mzm_session_n_ctx(b))
		return;
	const float *x = rig_next_logits(a, last), *y = rig_next_logits(b, last);
	assert_memory_equal(x, y, (size_t)a->model->info.n_vocab * sizeof *x);
	rig_same_rows(a, b);
}

#endif
