/* test_drafters.c - drafters together: lists of names, the policy that picks one, and generations with one, several or
 * "auto": exact mode is dense mode token for token and bit for bit, at a temperature too, whatever proposes; after a
 * text the session is as one that wrote it densely; random programs of rounds, cuts and restarts; counters; limits and
 * the end of the context inside shared checks; no allocation while decoding.
 *
 * MIRZAM_LONG=1 runs all lists over many problems; MIRZAM_SHORT=1, for sanitizers, a few. */
#include "counting.h"
#include "guess_rig.h"

#include <math.h>

#include "base/rng.h"

/* Those that need no other file; "model" and "skip" have tests of their own. */
static const char *const lists[] = {"sparse", "ngram", "jacobi", "sparse+ngram", "ngram+sparse", "jacobi+ngram",
				    "sparse+jacobi+ngram", "auto"};
enum { N_LISTS = sizeof lists / sizeof *lists };

/* ---- names ---- */

static void lists_are_read(void **state)
{
	int list[MZM_MAX_DRAFTERS];
	(void)state;
	assert_int_equal(mzm_drafter_list(list, "sparse"), 1);
	assert_string_equal(mzm_drafter_at(list[0])->name, "sparse");
	assert_int_equal(mzm_drafter_list(list, "ngram+sparse"), 2);
	assert_string_equal(mzm_drafter_at(list[0])->name, "ngram");
	assert_string_equal(mzm_drafter_at(list[1])->name, "sparse");
	int n_all = mzm_drafter_list(list, "auto");
	assert_true(n_all > 1 && mzm_drafter_at(n_all - 1) && !mzm_drafter_at(n_all) && !mzm_drafter_at(-1));
	for (int i = 0; i < n_all; i++) {
		const char *name = mzm_drafter_name(i);
		assert_int_equal(mzm_drafter_index(name, strlen(name)), i);
		assert_non_null(mzm_drafter_about(i));
	}
	static const char *const wrong[] = {"", "+", "sparse+", "+sparse", "sparse+sparse", "sparse++ngram", "spars",
					    "sparse+auto", "sparse ngram", "sparse+ngram+sparse"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		mzm_gen_params p = rig_params(wrong[i], 8);
		mzm_err err = {0};
		assert_int_equal(mzm_gen_params_check(&p, &err), MZM_EARG);
		assert_non_null(strstr(err.message, "jacobi"));
	}
}

/* ---- the policy ---- */

static void best_rate_has_the_turn(void **state)
{
	static const double gained[] = {2, 3, 9, 1.5};
	mzm_draft_policy p = {0};
	int turns[4] = {0};
	(void)state;
	for (int round = 0; round < 400; round++) {
		int i = mzm_draft_policy_choose(&p, 0xb); /* 2 is not available */
		turns[i]++;
		mzm_draft_policy_learn(&p, i, gained[i], i == 1 ? 1.2 : 1);
	}
	assert_int_equal(turns[2], 0);
	assert_true(turns[1] > 300 && turns[0] >= 5 && turns[3] >= 3); /* now and then the others */
	for (int round = 0; round < 400; round++) { /* things change */
		int i = mzm_draft_policy_choose(&p, 0xb);
		mzm_draft_policy_learn(&p, i, i == 3 ? 4 : 2, 1);
	}
	assert_int_equal(mzm_draft_policy_choose(&p, 0xb), 3);
	assert_int_equal(mzm_draft_policy_choose(&p, 0x2), 1);
}

/* ---- exact is dense ---- */

static void expect_dense(const int32_t *prompt, size_t n, mzm_gen_params p, int which, bool rows)
{
	static rig_text dense, exact;
	mzm_gen_params q = p;
	q.mode = MZM_MODE_DENSE;
	q.draft = "sparse";
	rig_write(&dense, rig_session[1], prompt, n, q);
	rig_write(&exact, rig_session[2 - which % 2], prompt, n, p);
	rig_assert_same(&exact, &dense);
	if (rows && which % 2 == 0)
		rig_assert_same_rows(rig_session[2], rig_session[1]);
	const mzm_gen_result *r = &exact.result;
	int64_t drafted = 0, accepted = 0;
	assert_true(r->n_drafters >= 1);
	for (int i = 0; i < r->n_drafters; i++) {
		assert_true(r->drafts[i].n_accepted <= r->drafts[i].n_drafted);
		assert_true(r->drafts[i].n_rounds <= r->n_checks);
		drafted += r->drafts[i].n_drafted;
		accepted += r->drafts[i].n_accepted;
	}
	assert_true(drafted >= r->n_accepted + r->n_rolled_back - (r->n_cut > 0 ? r->n_cut : 0));
	assert_true(accepted >= r->n_accepted);
	assert_int_equal(r->n_tokens, 1 + r->n_accepted + r->n_corrected + r->n_bonus);
	assert_true(r->n_checks <= r->n_tokens && r->n_dense_positions <= 32 * (int64_t)r->n_checks);
}

static void every_list_is_dense(void **state)
{
	static const int periods[] = {16, 1, 8, 0, 2, 32, 5};
	int n_problems = getenv("MIRZAM_SHORT") ? 1 : (int)testing_count(3, 40), turn = 0;
	(void)state;
	for (int i = 0; i < n_problems; i++) {
		int32_t *ids;
		size_t n;
		rig_problem(&ids, &n, 300 + i);
		for (int l = 0; l < N_LISTS; l++) {
			for (int k = 0; k < testing_count(2, 7); k++, turn++) {
				mzm_gen_params p = rig_params(lists[l], periods[(turn + i) % 7]);
				p.predictor = turn % 3 ? "griffin" : "topk";
				p.keep = 0.4f;
				expect_dense(ids, n, p, turn, true);
			}
		}
		mzm_ids_free(ids);
	}
}

static void every_list_is_dense_when_sampling(void **state)
{
	int n_seeds = getenv("MIRZAM_SHORT") ? 1 : (int)testing_count(3, 30);
	int32_t *ids;
	size_t n;
	(void)state;
	rig_problem(&ids, &n, 7);
	for (int l = 0; l < N_LISTS; l++) {
		for (int i = 0; i < n_seeds; i++) {
			mzm_gen_params p = rig_params(lists[l], i % 2 ? 0 : 8);
			p.temp = 1.5f;
			p.top_k = i % 2 ? 30 : 0;
			p.top_p = i % 3 ? 0.97f : 1;
			p.min_p = i % 2 ? 0 : 0.01f;
			p.repeat_penalty = i % 3 ? 1 : 1.2f;
			p.seed = 11 + (uint64_t)i;
			p.max_tokens = 60;
			expect_dense(ids, n, p, i, true);
		}
	}
	mzm_ids_free(ids);
}

/* In sirius mode what others propose is kept by the full model's choice alone. */
static void guesses_have_no_threshold(void **state)
{
	static rig_text dense, sirius;
	int32_t *ids;
	size_t n;
	(void)state;
	rig_problem(&ids, &n, 12);
	rig_write(&dense, rig_session[1], ids, n, rig_params(NULL, 8));
	for (int l = 1; l < 6; l++) {
		mzm_gen_params p = rig_params(lists[l], 8);
		p.mode = MZM_MODE_SIRIUS;
		p.threshold = 1e-6f; /* nearly any token stands */
		p.keep = 0.1f;
		if (strstr(lists[l], "sparse")) {
			rig_write(&sirius, rig_session[1], ids, n, p);
			assert_true(sirius.n != dense.n || memcmp(sirius.ids, dense.ids, 4 * (size_t)dense.n) != 0);
		} else {
			rig_write(&sirius, rig_session[1], ids, n, p);
			rig_assert_same(&sirius, &dense);
		}
	}
	mzm_ids_free(ids);
}

/* ---- limits ---- */

static void limits_inside_shared_checks(void **state)
{
	mzm_session *small[2];
	int32_t *ids;
	size_t n;
	(void)state;
	rig_problem(&ids, &n, 3);
	for (int i = 0; i < 2; i++) {
		mzm_session_params sp = {.n_threads = 1, .n_ctx = (int32_t)n + 19};
		assert_int_equal(mzm_session_create(&small[i], rig_model, &sp, NULL), MZM_OK);
	}
	for (int l = 3; l < N_LISTS; l++) {
		static rig_text dense, exact;
		int step = getenv("MIRZAM_SHORT") ? 7 : 2;
		for (int most = 1; most < 30; most += step) { /* beyond 19: the context ends */
			mzm_gen_params p = rig_params(lists[l], 12), q = rig_params(NULL, 1);
			p.max_tokens = q.max_tokens = most;
			p.ignore_eos = q.ignore_eos = true;
			rig_write(&dense, small[0], ids, n, q);
			rig_write(&exact, small[1], ids, n, p);
			rig_assert_same(&exact, &dense);
			assert_int_equal(exact.result.finish, most < 19 ? MZM_FINISH_LENGTH : dense.result.finish);
			rig_assert_same_rows(small[0], small[1]);
		}
	}
	mzm_session_free(small[0]);
	mzm_session_free(small[1]);
	mzm_ids_free(ids);
}

/* Stop strings that a draft runs over. */
static void stops_inside_shared_checks(void **state)
{
	static const char *const stops[] = {"####", ".", " the"};
	int32_t *ids;
	size_t n;
	(void)state;
	rig_problem(&ids, &n, 9);
	for (int l = 0; l < N_LISTS; l++) {
		for (int i = 0; i < 3; i++) {
			mzm_gen_params p = rig_params(lists[l], 16);
			p.stop = &stops[i];
			p.n_stop = 1;
			expect_dense(ids, n, p, i, false);
		}
	}
	mzm_ids_free(ids);
}

/* ---- roll-back ---- */

/* Random programs over one session: texts of any drafters, cut anywhere, gone on with or begun anew. Whatever was
 * drafted and dropped before, a text is what a fresh session writes. */
static void random_programs(void **state)
{
	enum { STEPS = 10 };
	static rig_text got, want;
	int n_programs = getenv("MIRZAM_SHORT") ? 2 : (int)testing_count(6, 100);
	mzm_session_params sp = {.n_threads = 1, .n_ctx = 256};
	mzm_session *used;
	(void)state;
	for (int k = 0; k < n_programs; k++) {
		int32_t prompt[256];
		size_t n = 0;
		assert_int_equal(mzm_session_create(&used, rig_model, &sp, NULL), MZM_OK);
		for (int step = 0; step < STEPS; step++) {
			uint64_t u = mzm_rng_u64(5, (uint64_t)k, (uint64_t)step);
			if (n == 0 || n > 150 || u % 5 == 0) { /* another prompt */
				n = 5 + u / 16 % 40;
				for (size_t i = 0; i < n; i++)
					prompt[i] = (int32_t)(mzm_rng_u64(6, u, i) % 2000);
			} else if (u % 5 == 1) { /* a part of the text */
				n = 1 + u / 16 % n;
				mzm_session_truncate(used, (int32_t)(u / 1024 % (n + 1)));
			}
			mzm_gen_params p = rig_params(lists[u / 64 % N_LISTS], (const int[]){0, 3, 16, 32}[u / 8 % 4]);
			mzm_gen_params q = rig_params(NULL, 1);
			p.keep_prefix = u % 2;
			p.max_tokens = q.max_tokens = 1 + (int32_t)(u / 128 % 40);
			p.temp = q.temp = u / 4096 % 3 ? 0 : 1;
			p.seed = q.seed = u;
			p.ignore_eos = q.ignore_eos = true;
			mzm_session *fresh;
			assert_int_equal(mzm_session_create(&fresh, rig_model, &sp, NULL), MZM_OK);
			rig_write(&want, fresh, prompt, n, q);
			rig_write(&got, used, prompt, n, p);
			assert_int_equal(got.n, want.n);
			assert_memory_equal(got.ids, want.ids, 4 * (size_t)got.n);
			mzm_session_free(fresh);
			memcpy(prompt + n, got.ids, 4 * (size_t)got.n);
			n += (size_t)got.n;
		}
		mzm_session_free(used);
	}
}

/* ---- memory and repetition ---- */

static void nothing_is_allocated_while_decoding(void **state)
{
	static rig_text t;
	int32_t *ids;
	size_t n;
	(void)state;
	rig_problem(&ids, &n, 30);
	for (int l = 0; l < N_LISTS; l++) {
		rig_write(&t, rig_session[1], ids, n, rig_params(lists[l], l % 2 ? 0 : 8));
		assert_true(t.n > 10);
		assert_int_equal(t.first_allocations, t.last_allocations);
	}
	mzm_ids_free(ids);
}

static void auto_can_be_repeated(void **state)
{
	static rig_text a, b;
	int32_t *ids;
	size_t n;
	(void)state;
	rig_problem(&ids, &n, 31);
	mzm_gen_params p = rig_params("auto", 8);
	p.fresh_monitor = true;
	rig_write(&a, rig_session[1], ids, n, p);
	rig_write(&b, rig_session[2], ids, n, p);
	assert_int_equal(a.result.n_checks, b.result.n_checks);
	assert_int_equal(a.result.n_rolled_back, b.result.n_rolled_back);
	assert_true(a.result.n_drafters >= 3);
	for (int i = 0; i < a.result.n_drafters; i++)
		assert_int_equal(a.result.drafts[i].n_drafted, b.result.drafts[i].n_drafted);
	mzm_ids_free(ids);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_are_read),
		cmocka_unit_test(best_rate_has_the_turn),
		cmocka_unit_test(every_list_is_dense),
		cmocka_unit_test(every_list_is_dense_when_sampling),
		cmocka_unit_test(guesses_have_no_threshold),
		cmocka_unit_test(limits_inside_shared_checks),
		cmocka_unit_test(stops_inside_shared_checks),
		cmocka_unit_test(random_programs),
		cmocka_unit_test(nothing_is_allocated_while_decoding),
		cmocka_unit_test(auto_can_be_repeated),
	};
	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
