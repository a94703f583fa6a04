/* guess_rig.h - for tests of drafters that guess: texts of the demo model with any drafter, compared with dense
 * mode's, logits too, and what they took. Include after counting.h where allocations are counted. */
#ifndef GUESS_RIG_H
#define GUESS_RIG_H

#include "demo.h"
#include "model/state.h"
#include "state_rig.h"

enum { RIG_MAX_TOK = 300 };

typedef struct rig_text {
	int32_t        ids[RIG_MAX_TOK];
	float          full_prob[RIG_MAX_TOK];
	int            n;
	mzm_gen_result result;
	mzm_session   *session;
#ifdef COUNTING_H
	long first_allocations, last_allocations;
#endif
} rig_text;

static mzm_model *rig_model;
static mzm_session *rig_session[3]; /* by number of threads; 0: one, for dense texts */
static float *rig_logits;           /* [RIG_MAX_TOK, n_vocab] what a dense text's tokens were chosen by; ... */
static const rig_text *rig_dense;   /* ... that of this text */
static int rig_n_other;             /* tokens of the latest text that were not chosen by these bits */

static int rig_setup(void **state)
{
	mzm_err err = {0};
	(void)state;
	if (mzm_model_open(&rig_model, DEMO_MODEL, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	for (int i = 0; i < 3; i++) {
		mzm_session_params sp = mzm_session_params_default();
		sp.n_threads = i ? i : 1;
		assert_int_equal(mzm_session_create(&rig_session[i], rig_model, &sp, &err), MZM_OK);
	}
	rig_logits = malloc(RIG_MAX_TOK * (size_t)rig_model->info.n_vocab * sizeof *rig_logits);
	assert_non_null(rig_logits);
	return 0;
}

static int rig_teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++)
		mzm_session_free(rig_session[i]);
	mzm_model_close(rig_model);
	free(rig_logits);
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
	t->session = s;
	p.on_token = p.on_token ? p.on_token : rig_on_token;
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

/* ---- drafts against dense ---- */

static int rig_keep_logits(void *user, const mzm_token_event *e)
{
	const rig_text *t = user;
	size_t n_vocab = (size_t)rig_model->info.n_vocab;
	memcpy(rig_logits + (size_t)t->n * n_vocab, t->session->state->logits, n_vocab * sizeof *rig_logits);
	return rig_on_token(user, e);
}

/* One of the rows of the check must be the dense one; which it is, only the engine knows. Of the first token, which the
 * prefill brings, the row may be gone: passes are timed behind it. */
static int rig_compare_logits(void *user, const mzm_token_event *e)
{
	const rig_text *t = user;
	size_t n_vocab = (size_t)rig_model->info.n_vocab;
	const float *want = rig_logits + (size_t)t->n * n_vocab, *rows = t->session->state->logits;
	bool found = e->kind == MZM_TOKEN_ROLLED_BACK || e->kind == MZM_TOKEN_FIRST;
	for (size_t i = 0; i < MZM_MAX_POS && !found; i++)
		found = memcmp(rows + i * n_vocab, want, n_vocab * sizeof *want) == 0;
	rig_n_other += !found;
	return rig_on_token(user, e);
}

/* The dense text that belongs to these params. */
static inline void rig_write_dense(rig_text *dense, const int32_t *prompt, size_t n, mzm_gen_params p)
{
	p.mode = MZM_MODE_DENSE;
	p.on_token = rig_keep_logits;
	rig_write(dense, rig_session[0], prompt, n, p);
	rig_dense = dense;
}

/* By p the text is the latest dense one, each token by the same logits, and so is what it leaves. */
static inline void rig_expect_dense(rig_text *t, const rig_text *dense, int threads, const int32_t *prompt, size_t n,
				    mzm_gen_params p)
{
	assert_ptr_equal(dense, rig_dense);
	p.mode = MZM_MODE_EXACT;
	p.on_token = rig_compare_logits;
	rig_n_other = 0;
	rig_write(t, rig_session[threads], prompt, n, p);
	rig_assert_same(t, dense);
	assert_int_equal(rig_n_other, 0);
	rig_same_state(rig_session[threads], rig_session[0], t->ids[t->n - 1]);
}

static mzm_gen_params rig_params(const char *draft, int period)
{
	mzm_gen_params p = mzm_gen_params_default();
	p.mode = draft ? MZM_MODE_EXACT : MZM_MODE_DENSE;
	p.draft = draft ? draft : "sparse";
	p.period = period;
	return p;
}

/* Texts of n problems, each by other settings of the sampler, limits and stops; vary() says who drafts. */
static inline void rig_sampling_is_dense(int n, void (*vary)(mzm_gen_params *p, int i))
{
	static const char *const stops[] = {" apples", "\n#"};
	static rig_text dense, t;
	for (int i = 0; i < n; i++) {
		int32_t *ids;
		size_t n_ids;
		mzm_gen_params p = rig_params("sparse", 16);
		rig_problem(&ids, &n_ids, i);
		p.temp = i % 3 == 0 ? 0 : i % 3 == 1 ? 0.8f : 1.5f;
		p.top_k = i % 5 ? 0 : 40;
		p.top_p = i % 2 ? 0.9f : 1;
		p.min_p = i % 7 == 4 ? 0.01f : 0;
		p.repeat_penalty = i % 4 ? 1.1f : 1;
		p.seed = (uint64_t)i;
		p.max_tokens = 10 + 9 * (i % 18);
		p.stop = stops;
		p.n_stop = i % 3;
		p.ignore_eos = i % 7 == 0;
		vary(&p, i);
		rig_write_dense(&dense, ids, n_ids, p);
		rig_expect_dense(&t, &dense, 1 + i % 2, ids, n_ids, p);
		mzm_ids_free(ids);
	}
}

#endif
