/* test_drafters.c - drafters together: lists of names, the policy that picks one, and generations with one, several or
 * "auto": exact mode is dense mode token for token and logit for logit, at a temperature too, whatever proposes; after
 * a text the session is as one that wrote it densely; counters; limits and the end of the context inside shared checks;
 * no allocation while decoding. Random programs over sessions: test_programs.c.
 *
 * MIRZAM_LONG=1 runs all lists over all 500 problems; MIRZAM_SHORT=1, for sanitizers, a few. */
#include "counting.h"
#include "guess_rig.h"

#include <math.h>

/* One of each, pairs of each with others, all, and whoever is best. */
static const char *const lists[] = {"sparse", "skip", "model", "ngram", "jacobi", "sparse+ngram", "ngram+sparse",
				    "jacobi+ngram", "skip+jacobi", "model+ngram", "model+skip", "sparse+model",
				    "sparse+jacobi+ngram", "skip+model+ngram+jacobi",
				    "sparse+skip+model+ngram+jacobi", "auto"};
enum { N_LISTS = sizeof lists / sizeof *lists };

static mzm_model *draft_model;

static int setup(void **state)
{
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	mp.calib = "off";
	if (mzm_model_open(&draft_model, DEMO_MODEL_DRAFT, &mp, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return rig_setup(state);
}

static int teardown(void **state)
{
	rig_teardown(state); /* sessions first: they know the model */
	mzm_model_close(draft_model);
	return 0;
}

/* With all that any drafter needs, and costs that let all of them draft. */
static mzm_gen_params params(const char *draft, int period)
{
	static mzm_costs costs = {.sparse = 0.4f};
	mzm_gen_params p = rig_params(draft, period);
	for (int m = 1; m <= MZM_MAX_PERIOD; m++)
		costs.check[m] = 1.0f + 0.01f * (float)(m - 1);
	p.costs = &costs;
	p.skip = "attn:4-5 mlp:1-4";
	p.draft_model = draft_model;
	return p;
}

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

static void expect_counters(const mzm_gen_result *r)
{
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

/* Some settings of what drafters have, other ones each turn. */
static mzm_gen_params varied(const char *draft, int turn)
{
	static const int periods[] = {16, 1, 8, 0, 2, 32, 5};
	static const char *const skips[] = {"attn:4-5 mlp:1-4", "mlp:2", "attn:0-5 mlp:0-5", "none", "attn:1,3"};
	mzm_gen_params p = params(draft, periods[turn % 7]);
	p.predictor = turn % 3 ? "griffin" : "topk";
	p.keep = 0.4f;
	p.skip = skips[turn % 5];
	p.skip_keep = turn % 4 == 1 ? 0.4f : 1;
	p.draft_exit = turn % 3 == 1 ? 0 : -1;
	p.jacobi_seed = mzm_jacobi_seed_name(turn % 3);
	return p;
}

/* Every drafter, alone and in company, has drafted, and something of it stood. */
static void expect_all_drafted(const int64_t *drafted, const int64_t *accepted)
{
	for (int i = 0; mzm_drafter_name(i); i++) {
		if (drafted[i] == 0 || accepted[i] == 0)
			fail_msg("%s: %lld drafted, %lld kept", mzm_drafter_name(i), (long long)drafted[i],
				 (long long)accepted[i]);
	}
}

static void every_list_is_dense(void **state)
{
	static rig_text dense, exact;
	int n_problems = getenv("MIRZAM_SHORT") ? 1 : (int)testing_count(2, 500), turn = 0;
	int64_t drafted[MZM_MAX_DRAFTERS] = {0}, accepted[MZM_MAX_DRAFTERS] = {0};
	(void)state;
	for (int i = 0; i < n_problems; i++) {
		int32_t *ids;
		size_t n;
		rig_problem(&ids, &n, (300 + i) % 500);
		rig_write_dense(&dense, ids, n, rig_params(NULL, 16));
		for (int l = 0; l < N_LISTS; l++, turn++) {
			rig_expect_dense(&exact, &dense, 1 + turn % 2, ids, n, varied(lists[l], turn + i));
			expect_counters(&exact.result);
			for (int d = 0; d < exact.result.n_drafters; d++) {
				const mzm_draft_stats *stats = &exact.result.drafts[d];
				int at = mzm_drafter_index(stats->name, strlen(stats->name));
				drafted[at] += stats->n_drafted;
				accepted[at] += stats->n_accepted;
			}
		}
		mzm_ids_free(ids);
		if (i % 50 == 49)
			print_message("%d problems\n", i + 1);
	}
	expect_all_drafted(drafted, accepted);
}

static void by_list(mzm_gen_params *p, int i)
{
	mzm_gen_params q = varied(lists[i % N_LISTS], i);
	p->draft = q.draft;
	p->period = i % 2 ? 0 : 8;
	p->costs = q.costs;
	p->predictor = q.predictor;
	p->keep = q.keep;
	p->skip = q.skip;
	p->skip_keep = q.skip_keep;
	p->draft_exit = q.draft_exit;
	p->draft_model = q.draft_model;
}

static void every_list_is_dense_when_sampling(void **state)
{
	(void)state;
	rig_sampling_is_dense(getenv("MIRZAM_SHORT") ? N_LISTS : (int)testing_count(2 * N_LISTS, 30 * N_LISTS),
			      by_list);
}

/* In sirius mode what others propose is kept by the full model's choice alone. */
static void guesses_have_no_threshold(void **state)
{
	static rig_text dense, sirius;
	int32_t *ids;
	size_t n;
	(void)state;
	rig_problem(&ids, &n, 12);
	rig_write(&dense, rig_session[0], ids, n, rig_params(NULL, 8));
	for (int l = 1; l < N_LISTS - 1; l++) {
		mzm_gen_params p = params(lists[l], 8);
		p.mode = MZM_MODE_SIRIUS;
		p.threshold = 1e-6f; /* nearly any token stands */
		p.keep = 0.1f;
		rig_write(&sirius, rig_session[1], ids, n, p);
		bool same = sirius.n == dense.n && memcmp(sirius.ids, dense.ids, 4 * (size_t)dense.n) == 0;
		bool sparse = strstr(lists[l], "sparse") != NULL;
		if (sparse && strstr(lists[l], "model"))
			continue; /* whose line may be the longer one, always */
		if (same == sparse)
			fail_msg("%s: %s text", lists[l], same ? "the dense" : "another");
	}
	mzm_ids_free(ids);
}

/* ---- limits ---- */

static void limits_inside_shared_checks(void **state)
{
	int step = getenv("MIRZAM_SHORT") ? 9 : (int)testing_count(4, 1);
	mzm_session *small[2];
	int32_t *ids;
	size_t n;
	(void)state;
	rig_problem(&ids, &n, 3);
	for (int i = 0; i < 2; i++) {
		mzm_session_params sp = {.n_threads = 1, .n_ctx = (int32_t)n + 19};
		assert_int_equal(mzm_session_create(&small[i], rig_model, &sp, NULL), MZM_OK);
	}
	for (int most = 1; most < 30; most += step) { /* beyond 19: the context ends */
		static rig_text dense, exact;
		mzm_gen_params q = rig_params(NULL, 1);
		q.max_tokens = most;
		q.ignore_eos = true;
		rig_write(&dense, small[0], ids, n, q);
		for (int l = 0; l < N_LISTS; l++) {
			mzm_gen_params p = params(lists[l], 12);
			p.max_tokens = most;
			p.ignore_eos = true;
			rig_write(&exact, small[1], ids, n, p);
			rig_assert_same(&exact, &dense);
			assert_int_equal(exact.result.finish, most < 19 ? MZM_FINISH_LENGTH : dense.result.finish);
			rig_same_state(small[0], small[1], exact.ids[exact.n - 1]);
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
	static rig_text dense, exact;
	int32_t *ids;
	size_t n;
	(void)state;
	rig_problem(&ids, &n, 9);
	for (int i = 0; i < 3; i++) {
		mzm_gen_params q = rig_params(NULL, 16);
		q.stop = &stops[i];
		q.n_stop = 1;
		rig_write_dense(&dense, ids, n, q);
		for (int l = 0; l < N_LISTS; l++) {
			mzm_gen_params p = params(lists[l], 16);
			p.stop = &stops[i];
			p.n_stop = 1;
			rig_expect_dense(&exact, &dense, 1 + (l + i) % 2, ids, n, p);
			expect_counters(&exact.result);
		}
	}
	mzm_ids_free(ids);
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
		rig_write(&t, rig_session[1], ids, n, params(lists[l], l % 2 ? 0 : 8));
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
	mzm_gen_params p = params("auto", 8);
	p.fresh_monitor = true;
	rig_write(&a, rig_session[1], ids, n, p);
	rig_write(&b, rig_session[2], ids, n, p);
	assert_int_equal(a.result.n_checks, b.result.n_checks);
	assert_int_equal(a.result.n_rolled_back, b.result.n_rolled_back);
	assert_int_equal(a.result.n_drafters, 5);
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
		cmocka_unit_test(nothing_is_allocated_while_decoding),
		cmocka_unit_test(auto_can_be_repeated),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
