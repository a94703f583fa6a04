/* test_eval.c - problems, prompts and the numbers of a run of eval/, on a scripted engine. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "eval_rig.h"

#include "eval/problems.h"
#include "eval/task.h"

/* ---- problems ---- */

static mzm_status read_problems(mze_problems *p, const char *bytes, size_t n, bool skip, mzm_err *err)
{
	const char *path = in_dir("problems.jsonl");
	*err = (mzm_err){0};
	write_bytes(path, bytes, n);
	return mze_problems_read(p, path, skip, err);
}

static void problems_of_all_shapes(void **state)
{
	(void)state;
	static const char text[] = "\xef\xbb\xbf{\"question\": \"a\", \"answer\": \"1\", \"steps\": 3}\r\n"
				   "\n \t\r\n"
				   "{\"answer\": \"2\", \"question\": \"\\u00e4 \\n\"}\n"
				   "{\"question\": \"c\", \"answer\": \"#### 3\"}";
	mze_problems p;
	mzm_err err;
	assert_int_equal(read_problems(&p, text, sizeof text - 1, false, &err), MZM_OK);
	assert_int_equal(p.n, 3);
	assert_string_equal(p.item[1].question, "\xc3\xa4 \n");
	assert_int_equal(p.item[1].line, 4);
	assert_int_equal(p.item[2].line, 5);
	assert_int_equal(strlen(p.hash), 32);
	mze_problems_free(&p);
}

static void broken_lines(void **state)
{
	(void)state;
	static const struct {
		const char *line;
		size_t n;
		const char *says;
	} bad[] = {
		{"{\"question\": \"a\"", 0, "not JSON"},
		{"[1]", 0, "not a JSON object"},
		{"{\"question\": \"a\"}", 0, "\"answer\" is missing"},
		{"{\"question\": 5, \"answer\": \"1\"}", 0, "\"question\" is not a string"},
		{"{\"question\": \"\", \"answer\": \"1\"}", 0, "\"question\" is empty"},
		{"{\"question\": \"a\", \"question\": \"b\", \"answer\": \"1\"}", 0, "duplicate"},
		{"{\"question\": \"a\\u0000\", \"answer\": \"1\"}", 0, "not JSON"},
		{"{\"question\": \"a\0\", \"answer\": \"1\"}", 33, "not JSON"},
		{"{\"question\": \"\xff\", \"answer\": \"1\"}", 0, "not JSON"},
		{"{\"question\": \"a\", \"answer\": \"1\"} x", 0, "not JSON"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		char text[256];
		mze_problems p;
		mzm_err err;
		size_t n = bad[i].n ? bad[i].n : strlen(bad[i].line), head;
		head = (size_t)sprintf(text, "{\"question\": \"x\", \"answer\": \"1\"}\n");
		memcpy(text + head, bad[i].line, n);
		text[head + n] = '\n';
		assert_int_equal(read_problems(&p, text, head + n + 1, false, &err), MZM_EFORMAT);
		assert_non_null(strstr(err.message, "problems.jsonl: line 2: "));
		assert_non_null(strstr(err.message, bad[i].says));
		mze_problems_free(&p);
		assert_int_equal(read_problems(&p, text, head + n + 1, true, &err), MZM_OK);
		assert_int_equal(p.n, 1);
		assert_int_equal(p.n_skipped, 1);
		assert_int_equal(p.skipped_line[0], 2);
		mze_problems_free(&p);
	}
}

static void lines_are_bounded(void **state)
{
	(void)state;
	size_t n = MZE_MAX_LINE_BYTES + 100;
	char *text = malloc(n);
	mze_problems p;
	mzm_err err;
	memset(text, 'a', n);
	text[n - 1] = '\n';
	assert_int_equal(read_problems(&p, text, n, false, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "line 1: longer than"));
	mze_problems_free(&p);
	assert_int_equal(read_problems(&p, text, n, true, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "every line is broken"));
	mze_problems_free(&p);
	free(text);
	assert_int_equal(read_problems(&p, "", 0, false, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "no problem"));
	err = (mzm_err){0};
	assert_int_equal(mze_problems_read(&p, in_dir("absent"), false, &err), MZM_EIO);
	err = (mzm_err){0};
	assert_int_equal(mze_problems_read(&p, dir, false, &err), MZM_EIO);
	assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
	err = (mzm_err){0};
	assert_int_equal(mze_problems_read(&p, in_dir("fifo"), false, &err), MZM_EIO);
	unlink(in_dir("fifo"));
}

/* ---- prompts and shots ---- */

static void shot_draw(void **state)
{
	(void)state;
	static const int32_t want[15] = {6374, 3610, 957,  61,  742, 7462, 6610, 4769,
					 286,  5501, 5677, 687, 806, 6279, 2905};
	int32_t shot[1319 * 5];
	mze_task_draw_shots(shot, 1319, 5, 7473);
	assert_memory_equal(shot, want, sizeof want);
	for (int i = 0; i < 1319 * 5; i++) {
		assert_in_range(shot[i], 0, 7472);
		for (int k = i / 5 * 5; k < i; k++)
			assert_int_not_equal(shot[k], shot[i]);
	}
	mze_task_draw_shots(shot, 1, 4, 4); /* all there are */
	assert_int_equal(shot[0] + shot[1] + shot[2] + shot[3], 6);
}

static void prompts(void **state)
{
	(void)state;
	mze_problem shots[2] = {{.question = "a?", .answer = "b\n#### 1"}, {.question = "c?", .answer = "d"}};
	mze_problems examples = {.item = shots, .n = 2};
	mze_problem problem = {.question = "How many?", .answer = "5"};
	const int32_t order[2] = {1, 0};
	mze_buf out = {0};
	mze_task_prompt(&out, mze_task_find("gsm8k"), &problem, NULL, NULL, 0);
	assert_string_equal(out.data, "Question: How many?\nAnswer:");
	out.len = 0;
	mze_task_prompt(&out, mze_task_find("gsm8k"), &problem, &examples, order, 2);
	assert_string_equal(
		out.data, "Question: c?\nAnswer: d\n\nQuestion: a?\nAnswer: b\n#### 1\n\nQuestion: How many?\nAnswer:");
	out.len = 0;
	mze_task_prompt(&out, mze_task_find("gsm8k_cot"), &problem, &examples, order, 1);
	assert_string_equal(out.data, "Q: c?\nA: d\n\nQ: How many?\nA:");
	mze_buf_free(&out);
	assert_null(mze_task_find("gsm9k"));
}

/* FNV-1a over the bytes of a prompt and a NUL behind it. */
static uint64_t add_prompt(uint64_t h, const mze_buf *prompt)
{
	for (size_t i = 0; i <= prompt->len; i++)
		h = (h ^ (unsigned char)prompt->data[i]) * 0x100000001b3u;
	return h;
}

/* All 1,319 five-shot prompts of gsm8k 3.0. The sum comes from Python: random.Random(1234).sample(train, 5) for
 * each question in file order. */
static void harness_prompts(void **state)
{
	(void)state;
	char path[2][4096];
	const char *shared = getenv("MIRZAM_SHARED");
	mze_problems test, train;
	mze_buf prompt = {0};
	uint64_t h = 0xcbf29ce484222325u;
	size_t n = 0;
	snprintf(path[0], sizeof path[0], "%s/evals/gsm8k/test.jsonl", shared ? shared : "");
	snprintf(path[1], sizeof path[1], "%s/evals/gsm8k/train.jsonl", shared ? shared : "");
	if (!shared || access(path[0], R_OK) != 0 || access(path[1], R_OK) != 0) {
		print_message("skipped: no evals/gsm8k/test.jsonl or train.jsonl under MIRZAM_SHARED\n");
		skip();
	}
	assert_int_equal(mze_problems_read(&test, path[0], false, NULL), MZM_OK);
	assert_int_equal(mze_problems_read(&train, path[1], false, NULL), MZM_OK);
	assert_int_equal(test.n, 1319);
	int32_t *shot = calloc(1319 * 5, sizeof *shot);
	mze_task_draw_shots(shot, 1319, 5, train.n);
	for (int i = 0; i < 1319; i++) {
		prompt.len = 0;
		mze_task_prompt(&prompt, mze_task_find("gsm8k"), &test.item[i], &train, shot + i * 5, 5);
		h = add_prompt(h, &prompt);
		n += prompt.len + 1;
	}
	assert_int_equal(n, 3917789);
	assert_true(h == 0xf0c36d0518f6854du);
	free(shot);
	mze_buf_free(&prompt);
	mze_problems_free(&test);
	mze_problems_free(&train);
}

static void cot_scores(void **state)
{
	(void)state;
	static const char text[] = "Well. The answer is 1,018. Bye";
	mze_score score;
	const mze_task *cot = mze_task_find("gsm8k_cot");
	assert_int_equal(mze_task_score(&score, cot, text, sizeof text - 1, "x #### y ####  1018 \n", NULL), MZM_OK);
	assert_true(score.strict_right && score.flexible_right);
	assert_int_equal(mze_task_score(&score, cot, text, sizeof text - 1, "1019", NULL), MZM_OK);
	assert_false(score.strict_right || score.flexible_right);
}

/* ---- runs ---- */

static void rows_are_counted(void **state)
{
	(void)state;
	mze_eval *e;
	rig r;
	rig_init(&r);
	must_run(&e, &r);
	const mze_row *dense = mze_eval_row(e, 0), *sparse = mze_eval_row(e, 1), *sirius = mze_eval_row(e, 2);
	assert_null(mze_eval_row(e, 3));
	assert_int_equal(dense->n_strict, 9);
	assert_int_equal(sparse->n_strict, 5); /* the even ones of 10..18 */
	assert_int_equal(sparse->n_flexible, 5);
	assert_int_equal(sparse->strict_vs.b, 0);
	assert_int_equal(sparse->strict_vs.c, 4);
	assert_true(fabs(sparse->strict_vs.p - .125) < 1e-12 && fabs(sparse->p_holm - .25) < 1e-12);
	assert_int_equal(sparse->n_same, 5);
	assert_true(sparse->diff_min == 10); /* " so #### 1|1" */
	assert_int_equal(sirius->n_same, 9);
	assert_int_equal(sirius->n_corrected, 4);
	assert_int_equal(sirius->n_rolled_back, 4);
	assert_int_equal(sirius->n_finish[MZM_FINISH_STOP], 9);
	/* an answer is 11 tokens: the first, then 4 + 4 + 2 */
	assert_int_equal(sirius->n_tok, 99);
	assert_int_equal(sirius->n_checks, 27);
	assert_true(sirius->aal == 90. / 27 && sirius->aal_paper == 4);
	assert_true(sirius->density == .75 && sirius->effective_density == (3 * .75 + 1) / 4);
	assert_true(sirius->work_per_token == (81 * .75 + 27) / 90);
	assert_true(dense->work_per_token == 1 && dense->effective_density == 1 && dense->aal == 0);
	assert_true(sparse->effective_density == .75 && sparse->work_per_token == .75);
	assert_string_equal(mze_eval_title(e), "gsm8k@3.0, 0-shot, all 9 problems");
	mze_eval_free(e);
}

/* What each drafter proposed, summed over the answers; where only one did, the table does not say so. */
static void drafters_are_counted(void **state)
{
	(void)state;
	for (int k = 0; k < 2; k++) {
		mze_eval *e;
		char *text = NULL;
		size_t n = 0;
		rig r;
		rig_init(&r);
		r.rows[2].draft = k ? "ngram" : "sparse+ngram";
		must_run(&e, &r);
		const mze_row *row = mze_eval_row(e, 2);
		assert_int_equal(mze_eval_row(e, 1)->n_drafters, 0);
		assert_int_equal(row->n_drafters, k ? 1 : 2);
		for (int i = 0; i < row->n_drafters; i++) {
			assert_string_equal(row->drafter[i].name, i || k ? "ngram" : "sparse");
			assert_int_equal(row->drafter[i].n_rounds, 27);
			assert_int_equal(row->drafter[i].n_drafted, 81 - (i || k ? 9 : 0));
			assert_int_equal(row->drafter[i].n_accepted, row->n_accepted - (i || k ? 9 : 0));
		}
		json_t *json = mze_eval_json(e), *rows = json_object_get(json, "rows");
		json_t *list = json_object_get(json_array_get(rows, 2), "drafters");
		json_t *last = json_array_get(list, k ? 0 : 1);
		assert_int_equal(json_array_size(list), row->n_drafters);
		assert_string_equal(json_string_value(json_object_get(last, "name")), "ngram");
		assert_int_equal(json_integer_value(json_object_get(last, "checks")), 27);
		assert_int_equal(json_integer_value(json_object_get(last, "drafted")), 72);
		assert_int_equal(json_integer_value(json_object_get(last, "accepted")), row->n_accepted - 9);
		assert_true(json_is_null(json_object_get(json_array_get(rows, 0), "drafters")));
		json_decref(json);
		FILE *f = open_memstream(&text, &n);
		mze_eval_table(e, f);
		fclose(f);
		assert_int_equal(strstr(text, "  drafts: sparse 81 in 27 checks, ") != NULL, !k);
		assert_int_equal(strstr(text, "ngram 72 in 27 checks") != NULL, !k);
		free(text);
		mze_eval_free(e);
		unlink(in_dir("results.jsonl"));
	}
}

/* Without tails W equals the paper's effective density. */
static void w_equals_effective_density(void **state)
{
	(void)state;
	mze_eval *e;
	rig r;
	fake.padding = " so  "; /* 12 tokens: the first, then 4 + 4 + 3 */
	rig_init(&r);
	r.params.results_path = NULL;
	must_run(&e, &r);
	assert_true(mze_eval_row(e, 2)->work_per_token > mze_eval_row(e, 2)->effective_density);
	mze_eval_free(e);
	fake.padding = " so   "; /* 13: the first, then 4 + 4 + 4 */
	must_run(&e, &r);
	assert_true(mze_eval_row(e, 2)->work_per_token == mze_eval_row(e, 2)->effective_density);
	mze_eval_free(e);
}

static void wrong_parameters(void **state)
{
	(void)state;
	mze_eval *e;
	mzm_err err;
	rig r;
#define REFUSED(change, code)                                    \
	do {                                                     \
		rig_init(&r);                                    \
		change;                                          \
		assert_int_equal(run_rig(&e, &r, &err), code);   \
		assert_null(e);                                  \
	} while (0)
	REFUSED(r.params.task = "nonsense", MZM_EARG);
	REFUSED(r.params.task = NULL, MZM_EARG);
	REFUSED(r.params.data_path = NULL, MZM_EARG);
	REFUSED(r.params.n_rows = 0, MZM_EARG);
	REFUSED(r.params.n_rows = MZE_MAX_ROWS + 1, MZM_EARG);
	REFUSED((r.params.limit = 2, r.params.sample = 2), MZM_EARG);
	REFUSED(r.params.limit = -1, MZM_EARG);
	REFUSED(r.params.n_jobs = 0, MZM_EARG);
	REFUSED(r.params.n_shots = 3, MZM_EARG);
	REFUSED((r.params.resume = true, r.params.results_path = NULL), MZM_EARG);
	REFUSED(r.rows[1].keep = 2, MZM_EARG);
	REFUSED((r.params.fewshot_path = r.params.data_path, r.params.n_shots = 10), MZM_EFORMAT);
	REFUSED((r.params.fewshot_path = r.params.data_path, r.params.n_shots = MZE_MAX_SHOTS + 1), MZM_EARG);
	assert_true(access(in_dir("results.jsonl"), F_OK) != 0); /* refused before anything was written */
}

static void parts_of_the_problems(void **state)
{
	(void)state;
	mze_eval *e;
	rig r;
	int32_t seen = 0;
	rig_init(&r);
	r.params.results_path = NULL;
	r.params.limit = 2;
	must_run(&e, &r);
	assert_string_equal(mze_eval_title(e), "gsm8k@3.0, 0-shot, first 2 of 9 problems");
	assert_int_equal(mze_eval_row(e, 1)->n_strict, 1);
	mze_eval_free(e);
	r.params.limit = 0;
	r.params.sample = 4;
	for (uint64_t seed = 0; seed < 20; seed++) {
		r.params.sample_seed = seed;
		must_run(&e, &r);
		assert_int_equal(mze_eval_row(e, 0)->n, 4);
		seen |= 1 << mze_eval_row(e, 1)->n_strict;
		mze_eval_free(e);
	}
	assert_true((seen & (seen - 1)) != 0); /* not always the same subset */
	r.params.sample = 0;
	r.params.fewshot_path = r.params.data_path;
	must_run(&e, &r);
	assert_string_equal(mze_eval_title(e), "gsm8k@3.0, 5-shot, all 9 problems");
	assert_int_equal(mze_eval_row(e, 0)->n_strict, 9); /* the question still stands last */
	mze_eval_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(problems_of_all_shapes, set_up),
		cmocka_unit_test_setup(broken_lines, set_up),
		cmocka_unit_test_setup(lines_are_bounded, set_up),
		cmocka_unit_test_setup(shot_draw, set_up),
		cmocka_unit_test_setup(prompts, set_up),
		cmocka_unit_test_setup(harness_prompts, set_up),
		cmocka_unit_test_setup(cot_scores, set_up),
		cmocka_unit_test_setup(rows_are_counted, set_up),
		cmocka_unit_test_setup(drafters_are_counted, set_up),
		cmocka_unit_test_setup(w_equals_effective_density, set_up),
		cmocka_unit_test_setup(wrong_parameters, set_up),
		cmocka_unit_test_setup(parts_of_the_problems, set_up),
	};
	if (make_dir() != 0)
		return 1;
	int code = cmocka_run_group_tests(tests, NULL, NULL);
	remove_dir();
	return code;
}
