/* test_ablation.c - parts of the correction that sirius mode does without (mzm_gen_params.ablate), on the demo model:
 * without any of them the text is that of sparse mode; each alone leaves out what its name says, and nothing else. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "demo.h"

enum { ANSWER = 100, N_PROBLEMS = 6 };
static const uint32_t ALL = MZM_ABLATE_KV_REWRITE | MZM_ABLATE_ROLLBACK | MZM_ABLATE_BONUS;

static mzm_model *model;
static mzm_session *session;

typedef struct answer {
	int32_t        ids[ANSWER];
	mzm_gen_result r;
} answer;

static answer generate(int problem, mzm_mode mode, uint32_t ablate, int32_t period)
{
	answer a = {0};
	mzm_err err = {0};
	char *prompt = demo_prompt(problem);
	mzm_gen_params p = mzm_gen_params_default();
	assert_non_null(prompt);
	p.mode = mode;
	p.keep = 0.5f;
	p.period = period;
	p.ablate = ablate;
	p.max_tokens = ANSWER;
	if (mzm_generate_text(session, prompt, &p, &a.r, &err) != MZM_OK)
		fail_msg("%s", err.message);
	memcpy(a.ids, a.r.tokens, (size_t)a.r.n_tokens * sizeof *a.ids);
	free(prompt);
	return a;
}

static bool same_text(const answer *a, const answer *b)
{
	return a->r.n_tokens == b->r.n_tokens && memcmp(a->ids, b->ids, sizeof a->ids) == 0;
}

static void test_all_is_sparse_mode(void **state)
{
	(void)state;
	static const int32_t periods[] = {2, 7, 16};
	for (int i = 0; i < N_PROBLEMS; i++) {
		answer sparse = generate(i, MZM_MODE_SPARSE, 0, 16);
		answer none = generate(i, MZM_MODE_SIRIUS, ALL, periods[i % 3]);
		assert_int_equal(none.r.n_rolled_back + none.r.n_corrected, 0);
		/* where the limit leaves no room for a draft, a check is a dense step */
		assert_true(none.r.n_bonus <= 1);
		assert_int_equal(sparse.r.n_tokens, none.r.n_tokens);
		assert_memory_equal(sparse.ids, none.ids,
				    (size_t)(none.r.n_tokens - none.r.n_bonus) * sizeof *none.ids);
	}
}

/* And other modes that have no correction take no notice. */
static void test_each_part(void **state)
{
	(void)state;
	int n_other_rows = 0, n_other_text = 0;
	for (int i = 0; i < N_PROBLEMS; i++) {
		answer full = generate(i, MZM_MODE_SIRIUS, 0, 8);
		answer rows = generate(i, MZM_MODE_SIRIUS, MZM_ABLATE_KV_REWRITE, 8);
		answer kept = generate(i, MZM_MODE_SIRIUS, MZM_ABLATE_ROLLBACK, 8);
		answer bare = generate(i, MZM_MODE_SIRIUS, MZM_ABLATE_BONUS, 8);
		answer plain = generate(i, MZM_MODE_SPARSE, 0, 8), same = generate(i, MZM_MODE_SPARSE, ALL, 8);
		assert_int_equal(kept.r.n_rolled_back + kept.r.n_corrected, 0);
		assert_true(kept.r.n_bonus > 0);
		assert_true(bare.r.n_bonus <= 1); /* as above */
		assert_true(full.r.n_bonus > 0 && full.r.n_corrected > 0 && full.r.n_rolled_back > 0);
		assert_int_equal(full.r.n_gained, full.r.n_tokens - 1);
		assert_int_equal(bare.r.n_gained, bare.r.n_tokens - 1);
		assert_int_equal(rows.r.n_gained, rows.r.n_tokens - 1);
		assert_true(same_text(&plain, &same));
		n_other_rows += rows.r.n_rolled_back != full.r.n_rolled_back;
		n_other_text += !same_text(&full, &kept);
	}
	assert_true(n_other_rows > 0 && n_other_text > 0);
}

/* Rows that sparse passes made are not gone on from. */
static void test_kept_prefix(void **state)
{
	(void)state;
	mzm_gen_params p = mzm_gen_params_default();
	int32_t ids[64];
	for (int i = 0; i < 64; i++)
		ids[i] = 100 + i;
	p.mode = MZM_MODE_SIRIUS;
	p.ignore_eos = true;
	p.keep_prefix = true;
	p.max_tokens = 20;
	for (int i = 0; i < 2; i++) {
		mzm_gen_result r;
		int32_t all[64 + 20];
		p.ablate = i ? MZM_ABLATE_KV_REWRITE : 0;
		assert_int_equal(mzm_generate(session, ids, 64, &p, &r, NULL), MZM_OK);
		memcpy(all, ids, sizeof ids);
		memcpy(all + 64, r.tokens, 20 * sizeof *all);
		assert_int_equal(mzm_generate(session, all, 84, &p, &r, NULL), MZM_OK);
		assert_int_equal(r.n_kept, i ? 64 : 83);
	}
}

static void test_names(void **state)
{
	(void)state;
	char text[64];
	uint32_t set = 99;
	mzm_err err = {0};
	for (uint32_t i = 0; i <= ALL; i++) {
		mzm_ablation_print(text, i);
		assert_int_equal(mzm_ablation_parse(&set, text, &err), MZM_OK);
		assert_int_equal(set, i);
	}
	static const char *const bad[] = {"", "roll", "rollback,", ",bonus", "bonus,none", "kv-rewrites"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(mzm_ablation_parse(&set, bad[i], &err), MZM_EARG);
		assert_non_null(strstr(err.message, "there are kv-rewrite, rollback and bonus"));
	}
	mzm_gen_params p = mzm_gen_params_default();
	p.ablate = ALL + 1;
	assert_int_equal(mzm_gen_params_check(&p, &err), MZM_EARG);
	p.ablate = MZM_ABLATE_BONUS;
	p.mode = MZM_MODE_EXACT;
	assert_int_equal(mzm_gen_params_check(&p, &err), MZM_EUNDEFINED);
}

static int open_model(void **state)
{
	(void)state;
	mzm_session_params sp = {.n_threads = 1};
	mzm_model_params mp = {0};
	return mzm_model_open(&model, DEMO_MODEL, &mp, NULL) || mzm_session_create(&session, model, &sp, NULL);
}

static int close_model(void **state)
{
	(void)state;
	mzm_session_free(session);
	mzm_model_close(model);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_is_sparse_mode),
		cmocka_unit_test(test_each_part),
		cmocka_unit_test(test_kept_prefix),
		cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, open_model, close_model);
}
