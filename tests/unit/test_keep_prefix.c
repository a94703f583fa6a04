/* test_keep_prefix.c - generations that go on from the rows of the one before (mzm_gen_params.keep_prefix), on the demo
 * model: they equal fresh ones wherever passes do not go through oneDNN, and the same passes made one by one where they
 * do; nothing of another prompt, a sparse pass or a predictor's past is kept. */
#include "demo.h"
#include "state_rig.h"

enum { MAX_TOK = 600, ANSWER = 40 };

typedef struct talk { /* tokens of a conversation, its last answer included */
	int32_t ids[MAX_TOK];
	int32_t n;
} talk;

static mzm_model *rows_only, *with_gemm; /* without and with oneDNN */

static mzm_session *new_session(const mzm_model *m)
{
	mzm_session *s;
	mzm_session_params sp = {.n_threads = 1};
	assert_int_equal(mzm_session_create(&s, m, &sp, NULL), MZM_OK);
	return s;
}

static mzm_gen_params params(mzm_mode mode, const char *predictor)
{
	mzm_gen_params p = mzm_gen_params_default();
	p.mode = mode;
	p.predictor = predictor;
	p.max_tokens = ANSWER;
	p.ignore_eos = true;
	p.keep_prefix = true;
	return p;
}

/* The i-th problem behind what is there. */
static void ask(talk *t, int i)
{
	int32_t *ids;
	size_t n;
	char *prompt = demo_prompt(i);
	assert_int_equal(mzm_tokenize(rows_only->tokenizer, prompt, strlen(prompt), 0, &ids, &n, NULL), MZM_OK);
	assert_true(t->n + (int32_t)n + ANSWER < MAX_TOK);
	memcpy(t->ids + t->n, ids, n * sizeof *ids);
	t->n += (int32_t)n;
	mzm_ids_free(ids);
	free(prompt);
}

/* Generates; the answer becomes part of the talk. */
static mzm_gen_result answer(mzm_session *s, talk *t, mzm_gen_params p)
{
	mzm_gen_result r;
	mzm_err err = {0};
	if (mzm_generate(s, t->ids, t->n, &p, &r, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(r.n_prompt, t->n);
	memcpy(t->ids + t->n, r.tokens, (size_t)r.n_tokens * sizeof *t->ids);
	t->n += r.n_tokens;
	return r;
}

/* The same as answer(), in a session that knows nothing; the tokens must be those of t. */
static void assert_fresh(const mzm_model *m, const talk *t, int32_t n_prompt, mzm_gen_params p)
{
	mzm_session *fresh = new_session(m);
	talk other = *t;
	other.n = n_prompt;
	p.keep_prefix = false;
	mzm_gen_result r = answer(fresh, &other, p);
	assert_int_equal(r.n_kept, 0);
	assert_int_equal(other.n, t->n);
	assert_memory_equal(other.ids, t->ids, (size_t)t->n * sizeof *t->ids);
	mzm_session_free(fresh);
}

/* ---- going on ---- */

static void test_going_on_equals_fresh(void **state)
{
	static const mzm_mode modes[] = {MZM_MODE_DENSE, MZM_MODE_EXACT};
	static const char *const predictors[] = {"griffin", "topk", "random"};
	(void)state;
	for (int c = 0; c < 6; c++) {
		mzm_session *s = new_session(rows_only);
		mzm_gen_params p = params(modes[c % 2], predictors[c / 2]);
		talk t = {.n = 0};
		p.period = c < 2 ? 0 : 8; /* auto: costs are measured in the middle */
		for (int turn = 0; turn < 3; turn++) {
			int32_t known = t.n;
			ask(&t, 10 * c + turn);
			int32_t n_prompt = t.n;
			mzm_gen_result r = answer(s, &t, p);
			assert_int_equal(r.n_kept, known ? known - 1 : 0); /* its last token has no row yet */
			assert_int_equal(mzm_session_len(s), t.n - 1);
			p.mode = MZM_MODE_DENSE;
			assert_fresh(rows_only, &t, n_prompt, p);
			p.mode = modes[c % 2];
		}
		mzm_session_free(s);
	}
}

/* With oneDNN, what was read by chunks stays so, and answers are read token by token. */
static void test_going_on_equals_the_same_passes(void **state)
{
	(void)state;
	for (int c = 0; c < 2; c++) {
		mzm_session *s = new_session(with_gemm), *by_hand = new_session(with_gemm);
		mzm_gen_params p = params(c ? MZM_MODE_EXACT : MZM_MODE_DENSE, "topk");
		talk t = {.n = 0};
		ask(&t, 3);
		ask(&t, 4); /* longer than a chunk */
		assert_true(t.n > MZM_CHUNK);
		int32_t first = t.n, n_prompt;
		answer(s, &t, p);
		mzm_gen_params one = p;
		one.max_tokens = 1;
		talk start = t;
		start.n = first;
		answer(by_hand, &start, one);
		for (int32_t i = first; i < t.n - 1; i++)
			assert_int_equal(mzm_session_forward(by_hand, NULL, &t.ids[i], 1, 0, NULL), MZM_OK);
		rig_same_rows(s, by_hand);
		talk other = t;
		ask(&t, 5);
		ask(&other, 5);
		n_prompt = t.n;
		mzm_gen_result a = answer(s, &t, p), b = answer(by_hand, &other, p);
		assert_int_equal(a.n_kept, b.n_kept);
		assert_true(a.n_kept > first && a.n_kept < n_prompt);
		assert_memory_equal(t.ids, other.ids, (size_t)t.n * sizeof *t.ids);
		rig_same_rows(s, by_hand);
		mzm_session_free(s);
		mzm_session_free(by_hand);
	}
}

/* The model after sparse mode is the full one: only the prompt's rows are. */
static void test_sparse_rows_are_not_kept(void **state)
{
	(void)state;
	mzm_session *s = new_session(rows_only);
	mzm_gen_params p = params(MZM_MODE_SPARSE, "topk");
	talk t = {.n = 0};
	ask(&t, 20);
	int32_t first = t.n;
	answer(s, &t, p);
	ask(&t, 21);
	int32_t n_prompt = t.n;
	assert_int_equal(answer(s, &t, p).n_kept, first);
	assert_fresh(rows_only, &t, n_prompt, p);
	p.mode = MZM_MODE_DENSE;
	ask(&t, 22);
	int32_t then = t.n;
	assert_int_equal(answer(s, &t, p).n_kept, n_prompt);
	assert_fresh(rows_only, &t, then, p);
	mzm_session_free(s);
}

/* ---- other prompts ---- */

static void test_another_prompt(void **state)
{
	(void)state;
	mzm_session *s = new_session(rows_only);
	mzm_gen_params p = params(MZM_MODE_EXACT, "topk");
	talk t = {.n = 0};
	ask(&t, 30);
	answer(s, &t, p);
	for (int32_t at = 0; at < t.n; at += 7) { /* it differs there, and is longer, as long or shorter */
		talk other = t;
		other.ids[at] = other.ids[at] == 300 ? 301 : 300;
		other.n = at + 1 + (at % 3) * 5 < t.n ? at + 1 + (at % 3) * 5 : t.n;
		int32_t n_prompt = other.n;
		mzm_gen_result r = answer(s, &other, p);
		assert_int_equal(r.n_kept, at);
		assert_fresh(rows_only, &other, n_prompt, p);
		talk again = t;
		again.n = t.n - ANSWER;
		n_prompt = again.n;
		assert_int_equal(answer(s, &again, p).n_kept, at < n_prompt ? at : n_prompt - 1);
		assert_memory_equal(again.ids, t.ids, (size_t)t.n * sizeof *t.ids);
	}
	p.keep_prefix = false; /* not asked for, not kept */
	talk again = t;
	again.n = t.n - ANSWER;
	assert_int_equal(answer(s, &again, p).n_kept, 0);
	mzm_session_free(s);
}

static int stop_at(void *user, const mzm_token_event *e)
{
	int *left = user;
	return e->kind != MZM_TOKEN_ROLLED_BACK && --*left == 0;
}

static int stop_prefill(void *user, const char *stage, uint64_t done, uint64_t total)
{
	(void)user, (void)stage, (void)done, (void)total;
	return 1;
}

static void test_cancelled_in_between(void **state)
{
	static const mzm_mode modes[] = {MZM_MODE_DENSE, MZM_MODE_EXACT, MZM_MODE_SPARSE};
	(void)state;
	for (int c = 0; c < 3; c++) {
		mzm_session *s = new_session(rows_only);
		mzm_gen_params p = params(modes[c], "griffin"), q;
		mzm_gen_result r;
		talk t = {.n = 0};
		ask(&t, 40);
		for (int stop = 1; stop < ANSWER; stop += 6) {
			talk cut = t;
			int left = stop;
			q = p;
			q.on_token = stop_at;
			q.user = &left;
			r = answer(s, &cut, q);
			assert_int_equal(r.finish, MZM_FINISH_CANCELLED);
			assert_int_equal(r.n_tokens, stop);
			ask(&cut, 41);
			int32_t n_prompt = cut.n;
			answer(s, &cut, p);
			if (modes[c] != MZM_MODE_SPARSE)
				assert_fresh(rows_only, &cut, n_prompt, p);
		}
		q = p;
		q.on_prefill = stop_prefill;
		talk other = {.n = 0};
		ask(&other, 42);
		assert_int_equal(mzm_generate(s, other.ids, other.n, &q, &r, NULL), MZM_ECANCELLED);
		ask(&t, 43);
		int32_t n_prompt = t.n;
		answer(s, &t, p);
		assert_fresh(rows_only, &t, n_prompt, p);
		mzm_session_free(s);
	}
}

/* Rows of mzm_session_forward count; what was cut off does not come back. */
static void test_forward_and_truncate(void **state)
{
	(void)state;
	mzm_session *s = new_session(rows_only);
	mzm_gen_params p = params(MZM_MODE_DENSE, "topk");
	talk t = {.n = 0};
	ask(&t, 50);
	assert_int_equal(mzm_session_forward(s, NULL, t.ids, t.n, 0, NULL), MZM_OK);
	int32_t n_prompt = t.n, zeros[10] = {0};
	assert_int_equal(answer(s, &t, p).n_kept, n_prompt - 1);
	assert_fresh(rows_only, &t, n_prompt, p);
	mzm_session_truncate(s, 20);
	assert_int_equal(mzm_session_forward(s, NULL, zeros, 10, 0, NULL), MZM_OK);
	ask(&t, 51);
	n_prompt = t.n;
	assert_int_equal(answer(s, &t, p).n_kept, 20);
	assert_fresh(rows_only, &t, n_prompt, p);
	mzm_session_free(s);
}

/* ---- predictors that learn from the prompt ---- */

/* griffin has seen all prompts so far, and goes on; whoever does the same gets the same. */
static void test_learning_goes_on(void **state)
{
	(void)state;
	mzm_session *s[2] = {new_session(rows_only), new_session(rows_only)};
	mzm_gen_params p = params(MZM_MODE_SPARSE, "griffin");
	p.keep = 0.3f;
	talk t[2] = {{.n = 0}, {.n = 0}};
	int32_t known = 0;
	for (int turn = 0; turn < 3; turn++) {
		for (int i = 0; i < 2; i++) {
			ask(&t[i], 60 + turn);
			int32_t n_prompt = t[i].n;
			mzm_gen_result r = answer(s[i], &t[i], p);
			assert_int_equal(r.n_kept, known);
			for (int again = 0; again < 25; again++) { /* the same, from the same set */
				talk retried = t[i];
				retried.n = n_prompt;
				assert_int_equal(answer(s[i], &retried, p).n_kept, n_prompt - 1);
				assert_memory_equal(retried.ids, t[i].ids, (size_t)t[i].n * sizeof *t[i].ids);
			}
		}
		known = t[0].n - ANSWER; /* a sparse pass made the rows of the answer */
		assert_int_equal(t[1].n, t[0].n);
		assert_memory_equal(t[0].ids, t[1].ids, (size_t)t[0].n * sizeof(int32_t));
	}
	mzm_session_free(s[0]);
	mzm_session_free(s[1]);
}

/* It keeps nothing when it saw what is gone, when it missed something, and when it is another one. */
static void test_learning_starts_anew(void **state)
{
	(void)state;
	mzm_session *s = new_session(rows_only);
	mzm_gen_params p = params(MZM_MODE_SIRIUS, "griffin");
	talk t = {.n = 0}, undone;
	ask(&t, 70);
	answer(s, &t, p);
	undone = t;
	ask(&t, 71);
	answer(s, &t, p);
	ask(&undone, 72); /* in place of 71, which it has seen */
	int32_t n_prompt = undone.n;
	assert_int_equal(answer(s, &undone, p).n_kept, 0);
	assert_fresh(rows_only, &undone, n_prompt, p);

	t = undone;
	p.mode = MZM_MODE_DENSE;
	ask(&t, 73);
	assert_int_equal(answer(s, &t, p).n_kept, undone.n - 1);
	p.mode = MZM_MODE_SIRIUS; /* it did not see 73 */
	ask(&t, 74);
	n_prompt = t.n;
	assert_int_equal(answer(s, &t, p).n_kept, 0);
	assert_fresh(rows_only, &t, n_prompt, p);

	p.keep = 0.3f;
	ask(&t, 75);
	n_prompt = t.n;
	assert_int_equal(answer(s, &t, p).n_kept, 0);
	assert_fresh(rows_only, &t, n_prompt, p);

	p.predictor = "topk"; /* which learns nothing from prompts */
	talk u = t;
	ask(&u, 76);
	assert_int_equal(answer(s, &u, p).n_kept, t.n - 1);
	mzm_session_free(s);
}

static int open_all(void **state)
{
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	(void)state;
	if (mzm_model_open(&with_gemm, DEMO_MODEL, &mp, &err) == MZM_OK) {
		mp.no_onednn = true;
		mzm_model_open(&rows_only, DEMO_MODEL, &mp, &err);
	}
	if (err.code != MZM_OK)
		print_error("%s\n", err.message);
	return err.code != MZM_OK ? -1 : 0;
}

static int close_all(void **state)
{
	(void)state;
	mzm_model_close(rows_only);
	mzm_model_close(with_gemm);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_going_on_equals_fresh),
		cmocka_unit_test(test_going_on_equals_the_same_passes),
		cmocka_unit_test(test_sparse_rows_are_not_kept),
		cmocka_unit_test(test_another_prompt),
		cmocka_unit_test(test_cancelled_in_between),
		cmocka_unit_test(test_forward_and_truncate),
		cmocka_unit_test(test_learning_goes_on),
		cmocka_unit_test(test_learning_starts_anew),
	};
	return cmocka_run_group_tests_name("keep_prefix", tests, open_all, close_all);
}
