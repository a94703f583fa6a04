/* test_ngram.c - the index of a text's n-grams against a plain search, its cost in operations, and the drafter on it:
 * what it proposes and when it is silent, and that its texts are dense mode's. */
#include "counting.h"
#include "guess_rig.h"

#include "base/mem.h"
#include "decode/ngram.h"

/* ---- the index ---- */

/* The latest token of ids[0..n_text) that follows the longest ending of ids[0..n), MZM_NGRAM_MAX at most. */
static int32_t search(const int32_t *ids, int32_t n_text, int32_t n, int32_t *k)
{
	for (*k = n < MZM_NGRAM_MAX ? n : MZM_NGRAM_MAX; *k > 0; --*k) {
		for (int32_t at = n_text - 1; at >= *k; at--) {
			if (memcmp(ids + at - *k, ids + n - *k, (size_t)*k * sizeof *ids) == 0)
				return at;
		}
	}
	return -1;
}

static void test_finds_the_latest_of_the_longest(void **state)
{
	enum { N = 700, AHEAD = 12 };
	uint64_t seed = 7;
	int32_t ids[N + AHEAD], k, want_k;
	(void)state;
	for (int trial = 0; trial < 24; trial++) {
		mzm_ngram *x;
		int32_t n_kinds = 1 + trial % 12, n_text = 0;
		assert_int_equal(mzm_ngram_create(&x, N, NULL), MZM_OK);
		while (n_text < N) {
			int32_t n = 1 + (int32_t)(testing_random(&seed) % 30);
			n = n_text + n < N ? n_text + n : N;
			for (int32_t i = n_text; i < n + AHEAD; i++)
				ids[i] = (int32_t)(testing_random(&seed) % (uint64_t)n_kinds) * 1000003;
			mzm_ngram_extend(x, ids, n);
			n_text = n;
			for (int32_t end = n; end < n + AHEAD; end += 3) { /* the text, and with guesses behind it */
				int32_t want = search(ids, n, end, &want_k);
				assert_int_equal(mzm_ngram_find(x, ids, end, &k), want);
				assert_int_equal(k, want < 0 ? 0 : want_k);
			}
		}
		mzm_ngram_free(x);
	}
}

/* Texts of 100k tokens: random, of few kinds, one token again and again, a period, and hashes that meet. */
static int32_t hostile(int kind, int32_t i, uint64_t *seed)
{
	switch (kind) {
	case 0:
		return (int32_t)(testing_random(seed) % 150000);
	case 1:
		return (int32_t)(testing_random(seed) % 3);
	case 2:
		return 5;
	case 3:
		return i % 977;
	default:
		return i;
	}
}

static void test_cost_is_linear(void **state)
{
	enum { N = 100000 };
	static int32_t ids[N];
	uint64_t seed = 3;
	(void)state;
	for (int kind = 0; kind < 5; kind++) {
		mzm_ngram *x;
		int32_t k;
		assert_int_equal(mzm_ngram_create(&x, N, NULL), MZM_OK);
		for (int32_t i = 0; i < N; i++)
			ids[i] = hostile(kind, i, &seed);
		mzm_ngram_extend(x, ids, N / 2);
		uint64_t half = mzm_ngram_probes(x);
		mzm_ngram_extend(x, ids, N);
		uint64_t whole = mzm_ngram_probes(x);
		assert_true(whole <= (uint64_t)N * MZM_NGRAM_MAX * 2); /* two slots an insertion, on average */
		assert_true(whole - half <= half * 2);
		for (int i = 0; i < 1000; i++)
			(void)mzm_ngram_find(x, ids, N - i, &k);
		assert_true(mzm_ngram_probes(x) - whole <= 1000ull * MZM_NGRAM_MAX * MZM_NGRAM_PROBES);
		mzm_ngram_free(x);
	}
}

static void test_without_memory(void **state)
{
	mzm_ngram *x = NULL;
	mzm_err err = {0};
	(void)state;
	mzm_mem_fail_nth(1);
	assert_int_equal(mzm_ngram_create(&x, 1000, &err), MZM_ENOMEM);
	mzm_mem_fail_nth(0);
	assert_null(x);
	assert_int_equal(mzm_ngram_create(&x, 0, NULL), MZM_EARG);
	mzm_ngram_free(NULL);
}

/* ---- the drafter alone ---- */

enum { ROOM = 600 };

typedef struct hand {
	mzm_drafter *d;
	int32_t      ids[ROOM];
	int32_t      n, stop; /* the token that would end the text */
	mzm_evidence evidence[MZM_MAX_PERIOD];
	float        confidence[MZM_MAX_PERIOD];
	mzm_draft_job job;
} hand;

static bool hand_stops(void *ctx, int32_t id)
{
	return id == ((hand *)ctx)->stop;
}

static void hand_begin(hand *h, const int32_t *ids, int32_t n, const mzm_tokenizer *tok)
{
	mzm_gen_params p = mzm_gen_params_default();
	mzm_draft_env env = {.p = &p, .n_ctx = ROOM, .tokenizer = tok};
	memset(h, 0, sizeof *h);
	h->stop = -1;
	h->n = n;
	memcpy(h->ids, ids, (size_t)n * sizeof *ids);
	assert_int_equal(mzm_draft_ngram.create(&h->d, &env, NULL), MZM_OK);
	mzm_draft_ngram.begin(h->d, h->ids, n);
}

static int32_t hand_propose(hand *h, int32_t max)
{
	h->job = (mzm_draft_job){.ids = h->ids, .n = h->n, .max = max, .is_stop = hand_stops, .ctx = h,
				 .evidence = h->evidence, .confidence = h->confidence};
	assert_int_equal(mzm_draft_ngram.propose(h->d, &h->job, NULL), MZM_OK);
	assert_true(h->job.n_draft <= (max > 0 ? max : 0));
	return h->job.n_draft;
}

/* The text goes on with n_kept of the proposed tokens and one other. */
static void hand_learn(hand *h, int32_t n_kept, int32_t next)
{
	int32_t draft[MZM_MAX_PERIOD], n_draft = h->job.n_draft, before = h->n;
	memcpy(draft, h->ids + h->n, (size_t)n_draft * sizeof *draft);
	h->n += n_kept;
	h->ids[h->n++] = next;
	mzm_draft_news news = {.ids = h->ids, .n = h->n, .n_before = before, .draft = draft, .n_draft = n_draft,
			       .n_kept = n_kept};
	mzm_draft_ngram.learn(h->d, &news);
}

static void expect_line(hand *h, int32_t max, const int32_t *want, int32_t n)
{
	assert_int_equal(hand_propose(h, max), n);
	assert_memory_equal(h->ids + h->n, want, (size_t)n * sizeof *want);
}

static void test_what_it_proposes(void **state)
{
	static const int32_t twice[] = {7, 1, 2, 3, 4, 9, 1, 2, 3, 5, 8, 8, 1, 2, 3};
	static const int32_t latest[] = {5, 8, 8, 1, 2, 3};
	static const int32_t cycle[] = {4, 5, 6, 4, 5, 6}, on[] = {4, 5, 6, 4, 5, 6, 4, 5};
	static const int32_t once[] = {1, 2, 3, 1}, rest[] = {2, 3, 1};
	hand h;
	(void)state;
	hand_begin(&h, twice, 15, NULL);
	expect_line(&h, 15, latest, 6); /* the later match; short, for the text ends there */
	expect_line(&h, 4, latest, 4);
	expect_line(&h, 0, latest, 0);
	h.stop = 8;
	expect_line(&h, 15, latest, 2);
	mzm_draft_ngram.free(h.d);
	hand_begin(&h, cycle, 6, NULL);
	expect_line(&h, 8, on, 8); /* a repetition goes on beyond the end of the text */
	mzm_draft_ngram.free(h.d);
	hand_begin(&h, once, 4, NULL);
	expect_line(&h, 8, rest, 3); /* one token that came twice is no repetition */
	mzm_draft_ngram.free(h.d);
	hand_begin(&h, rest, 3, NULL);
	expect_line(&h, 8, rest, 0);
	mzm_draft_ngram.free(h.d);
}

static void test_special_tokens_end_it(void **state)
{
	const mzm_tokenizer *tok = mzm_model_tokenizer(rig_model);
	int32_t special = mzm_token_find(tok, "<|endoftext|>");
	int32_t ids[] = {40, 41, 42, special, 43, 44, 40, 41};
	hand h;
	(void)state;
	assert_true(special >= 0 && mzm_token_is_special(tok, special));
	hand_begin(&h, ids, 8, NULL);
	assert_true(hand_propose(&h, 10) > 1); /* without a tokenizer nothing is known to be special */
	mzm_draft_ngram.free(h.d);
	hand_begin(&h, ids, 8, tok);
	expect_line(&h, 10, ids + 2, 1);
	mzm_draft_ngram.free(h.d);
	hand_begin(&h, ids, 7, tok);
	h.ids[7] = 42;
	h.n = 8;
	expect_line(&h, 10, ids, 0); /* the very next token is special */
	mzm_draft_ngram.free(h.d);
}

static void test_rests_after_misses(void **state)
{
	int32_t ids[] = {3, 3, 3, 3};
	int n_lines = 0, n_last = 0;
	hand h;
	(void)state;
	hand_begin(&h, ids, 4, NULL);
	for (int32_t i = 0; i < 500; i++) {
		bool drafted = hand_propose(&h, 4) > 0;
		n_lines += drafted;
		n_last += drafted && i >= 250;
		hand_learn(&h, 0, i % 2 ? 3 : 4 + i % 7); /* there is a match now and then; it never stands */
	}
	assert_in_range(n_lines, 5, 25);
	assert_in_range(n_last, 1, 10); /* it goes on trying */
	for (int32_t i = 0; i < 64 && hand_propose(&h, 4) == 0; i++)
		hand_learn(&h, 0, i % 2 ? 3 : 4);
	hand_learn(&h, 1, 3);
	n_lines = 0;
	for (int i = 0; i < 10; i++) { /* one that stood ends the rests */
		n_lines += hand_propose(&h, 1) > 0;
		hand_learn(&h, h.job.n_draft, 3);
	}
	assert_int_equal(n_lines, 10);
	mzm_draft_ngram.free(h.d);
}

/* ---- with the model ---- */

static void test_text_is_dense(void **state)
{
	static const char *const drafts[] = {"ngram", "sparse+ngram", "auto"};
	static const int periods[] = {1, 2, 4, 16, 32, 0};
	rig_text dense, t;
	(void)state;
	for (int i = 0; i < (int)testing_count(3, 100); i++) {
		int32_t *ids;
		size_t n;
		rig_problem(&ids, &n, i);
		rig_write_dense(&dense, ids, n, rig_params(NULL, 16));
		for (int k = 0; k < 18; k++) {
			rig_expect_dense(&t, &dense, 2 - k % 2, ids, n, rig_params(drafts[k % 3], periods[k / 3]));
			assert_true(t.result.n_checks < t.n);
		}
		mzm_ids_free(ids);
	}
}

/* A problem, its answer, and the same problem again: the model writes the same answer. */
static void test_repeating_text_takes_few_passes(void **state)
{
	rig_text dense, t;
	int n_tokens = 0, n_checks = 0;
	(void)state;
	for (int i = 0; i < 4; i++) {
		int32_t *ids, twice[800];
		size_t n, n_twice;
		rig_problem(&ids, &n, i);
		rig_write(&dense, rig_session[1], ids, n, rig_params(NULL, 16));
		assert_true(2 * n + (size_t)dense.n < 800);
		memcpy(twice, ids, n * sizeof *ids);
		memcpy(twice + n, dense.ids, (size_t)dense.n * sizeof *ids);
		n_twice = n + (size_t)dense.n;
		memcpy(twice + n_twice, ids, n * sizeof *ids);
		n_twice += n;
		rig_write(&dense, rig_session[1], twice, n_twice, rig_params(NULL, 16));
		rig_write(&t, rig_session[2], twice, n_twice, rig_params("ngram", 16));
		rig_assert_same(&dense, &t);
		n_tokens += t.n;
		n_checks += t.result.n_checks;
		mzm_ids_free(ids);
	}
	print_message("%d tokens, %d passes\n", n_tokens, n_checks);
	assert_true(n_checks * 2 < n_tokens);
}

static void by_ngram(mzm_gen_params *p, int i)
{
	(void)i;
	p->draft = "ngram";
}

static void test_sampling_and_limits(void **state)
{
	(void)state;
	rig_sampling_is_dense(12, by_ngram);
}

static void test_no_allocation_while_decoding(void **state)
{
	(void)state;
#ifdef NO_COUNTING
	print_message("a sanitizer owns malloc: not counted in this build\n");
	skip();
#endif
	int32_t *ids;
	size_t n;
	rig_text t;
	rig_problem(&ids, &n, 4);
	rig_write(&t, rig_session[2], ids, n, rig_params("ngram", 16));
	assert_true(t.n > 5);
	assert_int_equal(t.first_allocations, t.last_allocations);
	mzm_ids_free(ids);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds_the_latest_of_the_longest),
		cmocka_unit_test(test_cost_is_linear),
		cmocka_unit_test(test_without_memory),
		cmocka_unit_test(test_what_it_proposes),
		cmocka_unit_test(test_special_tokens_end_it),
		cmocka_unit_test(test_rests_after_misses),
		cmocka_unit_test(test_text_is_dense),
		cmocka_unit_test(test_repeating_text_takes_few_passes),
		cmocka_unit_test(test_sampling_and_limits),
		cmocka_unit_test(test_no_allocation_while_decoding),
	};
	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
