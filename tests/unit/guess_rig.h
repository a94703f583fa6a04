/* guess_rig.h - for tests of drafters that guess: texts of the demo model with any drafter, compared with dense
 * mode's, and what they took. Include after counting.h where allocations are counted. */
#ifndef GUESS_RIG_H
#define GUESS_RIG_H

#include "demo.h"
#include "engine/engine.h"
#include "testing.h"

enum { RIG_MAX_TOK = 300 };

typedef struct rig_text {
	int32_t        ids[RIG_MAX_TOK];
	float          full_prob[RIG_MAX_TOK];
	int            n;
	mzm_gen_result result;
#ifdef COUNTING_H
	long first_allocations, last_allocations;
#endif
} rig_text;

static mzm_model *rig_model;
static mzm_session *rig_session[3]; /* by number of threads */

static int rig_setup(void **state)
{
	mzm_err err = {0};
	(void)state;
	if (mzm_model_open(&rig_model, DEMO_MODEL, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	for (int i = 1; i < 3; i++) {
		mzm_session_params sp = mzm_session_params_default();
		sp.n_threads = i;
		assert_int_equal(mzm_session_create(&rig_session[i], rig_model, &sp, &err), MZM_OK);
	}
	return 0;
}

static int rig_teardown(void **state)
{
	(void)state;
	mzm_session_free(rig_session[1]);
	mzm_session_free(rig_session[2]);
	mzm_model_close(rig_model);
	return 0;
}

static int rig_on_token(void *user, const mzm_token_event *e)
{
	rig_text *t = user;
	if (e->kind == MZM_TOKEN_ROLLED_BACK)
		return 0;
#ifdef COUNTING_H
	if (t->n == 0)
		t->first_allocations = atomic_load(&n_allocations);
	t->last_allocations = atomic_load(&n_allocations);
#endif
	t->full_prob[t->n] = e->full_prob;
	t->ids[t->n++] = e->id;
	return 0;
}

/* Text behind prompt ids; the session is the caller's. */
static void rig_write(rig_text *t, mzm_session *s, const int32_t *prompt, size_t n, mzm_gen_params p)
{
	mzm_err err = {0};
	memset(t, 0, sizeof *t);
	p.on_token = rig_on_token;
	p.user = t;
	if (p.max_tokens == 0 || p.max_tokens > RIG_MAX_TOK)
		p.max_tokens = RIG_MAX_TOK;
	if (mzm_generate(s, prompt, (int32_t)n, &p, &t->result, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(t->result.n_tokens, t->n);
	assert_memory_equal(t->result.tokens, t->ids, (size_t)t->n * sizeof *t->ids);
}

static void rig_tokens(int32_t **ids, size_t *n, const char *text)
{
	assert_int_equal(mzm_tokenize(mzm_model_tokenizer(rig_model), text, strlen(text), 0, ids, n, NULL), MZM_OK);
}

static void rig_problem(int32_t **ids, size_t *n, int i)
{
	char *prompt = demo_prompt(i);
	rig_tokens(ids, n, prompt);
	free(prompt);
}

/* Tokens, and the full model's probability of each to the bit. */
static void rig_assert_same(const rig_text *a, const rig_text *b)
{
	assert_int_equal(a->n, b->n);
	assert_memory_equal(a->ids, b->ids, (size_t)a->n * sizeof *a->ids);
	assert_memory_equal(a->full_prob, b->full_prob, (size_t)a->n * sizeof *a->full_prob);
	assert_int_equal(a->result.finish, b->result.finish);
}

/* Bits of the rows that two sessions hold. */
static void rig_assert_same_rows(mzm_session *a, mzm_session *b)
{
	mzm_kv *x = mzm_state_kv(a->state), *y = mzm_state_kv(b->state);
	assert_int_equal(x->len, y->len);
	for (int l = 0; l < x->n_layers; l++) {
		for (int h = 0; h < x->n_kv_heads; h++) {
			size_t bytes = (size_t)x->len * x->row_bytes;
			assert_memory_equal(mzm_kv_k(x, l, h, 0), mzm_kv_k(y, l, h, 0), bytes);
			assert_memory_equal(mzm_kv_v(x, l, h, 0), mzm_kv_v(y, l, h, 0), bytes);
		}
	}
}

static mzm_gen_params rig_params(const char *draft, int period)
{
	mzm_gen_params p = mzm_gen_params_default();
	p.mode = draft ? MZM_MODE_EXACT : MZM_MODE_DENSE;
	p.draft = draft ? draft : "sparse";
	p.period = period;
	return p;
}

#endif
