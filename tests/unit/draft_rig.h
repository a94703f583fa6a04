/* draft_rig.h - generations with drafters, recorded and compared: what they write, the KV they leave, what comes next.
 * Include in one file of a program. The working directory is the source tree's root. */
#ifndef DRAFT_RIG_H
#define DRAFT_RIG_H

#include "testing.h"

#include "counting.h"
#include "demo.h"
#include "state_rig.h"

enum { RIG_MAX_TOK = 512 };

typedef struct rig_record {
	int32_t ids[RIG_MAX_TOK];
	int     n, longest;      /* longest: draft tokens of a check, at most */
	char    text[8192];
	size_t  text_len;
	long    allocations_at_first, allocations_at_last;
	int     last_check;
} rig_record;

static int rig_on_token(void *user, const mzm_token_event *e)
{
	rig_record *r = user;
	r->longest = e->block - 1 > r->longest ? e->block - 1 : r->longest;
	if (e->kind == MZM_TOKEN_ROLLED_BACK)
		return 0;
	if (r->n == 0)
		r->allocations_at_first = atomic_load(&n_allocations);
	r->allocations_at_last = atomic_load(&n_allocations);
	assert_true(r->n < RIG_MAX_TOK);
	r->ids[r->n++] = e->id;
	return 0;
}

static int rig_on_text(void *user, const char *bytes, size_t n)
{
	rig_record *r = user;
	assert_true(r->text_len + n < sizeof r->text);
	memcpy(r->text + r->text_len, bytes, n);
	r->text_len += n;
	return 0;
}

static inline mzm_gen_result rig_generate_ids(rig_record *r, mzm_session *s, const int32_t *ids, int32_t n,
					      mzm_gen_params p)
{
	mzm_gen_result result;
	mzm_err err = {0};
	memset(r, 0, sizeof *r);
	p.on_token = rig_on_token;
	p.on_text = rig_on_text;
	p.user = r;
	if (mzm_generate(s, ids, n, &p, &result, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(result.n_tokens, r->n);
	assert_memory_equal(result.tokens, r->ids, sizeof(int32_t) * (size_t)r->n);
	return result;
}

/* The continuation of problem i. */
static inline mzm_gen_result rig_generate(rig_record *r, mzm_session *s, int i, mzm_gen_params p)
{
	int32_t *ids;
	size_t n;
	char *prompt = demo_prompt(i);
	assert_int_equal(mzm_tokenize(s->model->tokenizer, prompt, strlen(prompt), 0, &ids, &n, NULL), MZM_OK);
	mzm_gen_result result = rig_generate_ids(r, s, ids, (int32_t)n, p);
	mzm_ids_free(ids);
	free(prompt);
	return result;
}

static inline void rig_same_text(const rig_record *a, const rig_record *b)
{
	assert_int_equal(a->n, b->n);
	assert_memory_equal(a->ids, b->ids, sizeof(int32_t) * (size_t)a->n);
	assert_int_equal(a->text_len, b->text_len);
	assert_memory_equal(a->text, b->text, a->text_len);
}

static inline mzm_model *rig_open(const char *from, const char *calib)
{
	mzm_model *m;
	mzm_err err = {0};
	mzm_model_params p = mzm_model_params_default();
	p.calib = calib;
	if (mzm_model_open(&m, from, &p, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return m;
}

static inline mzm_session *rig_session(const mzm_model *m, int n_threads, int32_t n_ctx)
{
	mzm_session *s;
	mzm_err err = {0};
	mzm_session_params p = {.n_threads = n_threads, .n_ctx = n_ctx};
	if (mzm_session_create(&s, m, &p, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return s;
}

static inline mzm_gen_params rig_params(mzm_mode mode, const char *draft, int period)
{
	mzm_gen_params p = mzm_gen_params_default();
	p.mode = mode;
	p.draft = draft;
	p.period = period;
	p.max_tokens = 120;
	p.fresh_monitor = true;
	return p;
}

/* Costs that let a monitor draft. */
static inline mzm_costs rig_costs(void)
{
	mzm_costs c = {.sparse = 0.4f};
	for (int m = 1; m <= MZM_MAX_PERIOD; m++)
		c.check[m] = 1.0f + 0.01f * (float)(m - 1);
	return c;
}

/* Problem i by these params has the text and leaves the state of dense mode, and a fixed period allocates nothing. */
static inline mzm_gen_result rig_as_dense(mzm_session *s, mzm_session *of_dense, int i, mzm_gen_params p)
{
	static rig_record drafted, dense;
	mzm_gen_params q = p;
	q.mode = MZM_MODE_DENSE;
	rig_generate(&dense, of_dense, i, q);
	mzm_gen_result r = rig_generate(&drafted, s, i, p);
	rig_same_text(&drafted, &dense);
	rig_same_state(s, of_dense, drafted.ids[drafted.n - 1]);
#ifndef NO_COUNTING
	if (p.period > 0)
		assert_int_equal(drafted.allocations_at_last, drafted.allocations_at_first);
#endif
	return r;
}

/* This generation fails so, and says so. */
static inline void rig_refuses(mzm_session *s, mzm_gen_params p, mzm_status status, const char *words)
{
	mzm_gen_result result;
	mzm_err err = {0};
	int32_t ids[3] = {1, 2, 3};
	assert_int_equal(mzm_generate(s, ids, 3, &p, &result, &err), status);
	if (!strstr(err.message, words))
		fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

#endif
