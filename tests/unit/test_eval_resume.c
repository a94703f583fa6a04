/* test_eval_resume.c - results files: interrupted, resumed, foreign and broken ones; independence of jobs. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "eval_rig.h"

#include "eval/item.h"
#include "eval/results.h"

/* Drops the times of a results file's lines: "..._ns":123 becomes "..._ns":0. */
static inline void drop_times(char *text)
{
	char *to = text;
	for (char *at = text; *at;) {
		bool is_time = strncmp(at, "_ns\":", 5) == 0;
		if (is_time) {
			memcpy(to, at, 5);
			to += 5;
			at += 5;
			while (*at >= '0' && *at <= '9')
				at++;
		} else {
			*to++ = *at++;
		}
	}
	*to = 0;
}

static inline int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The lines of the results file without times, sorted, as one text. -> free */
static inline char *results_text(bool sort)
{
	size_t n, n_lines = 0;
	char *text = read_file(in_dir("results.jsonl"), &n), *line[256], *at = text, *one;
	drop_times(text);
	while ((one = strsep(&at, "\n")) != NULL && n_lines < 256)
		line[n_lines++] = one;
	if (sort)
		qsort(line, n_lines, sizeof line[0], by_text);
	char *out = calloc(1, n + 2);
	for (size_t i = 0; i < n_lines; i++) {
		strcat(out, line[i]);
		strcat(out, "\n");
	}
	free(text);
	return out;
}

static void jobs_change_nothing(void **state)
{
	(void)state;
	mze_eval *e;
	rig r;
	rig_init(&r);
	must_run(&e, &r);
	mze_eval_free(e);
	char *one = results_text(true);
	unlink(r.params.results_path);
	fake.wait_us = 200;
	r.params.n_jobs = 4;
	r.params.n_threads = 2;
	must_run(&e, &r);
	assert_int_equal(mze_eval_row(e, 1)->n_strict, 5);
	assert_int_equal(mze_eval_row(e, 2)->n_checks, 27);
	mze_eval_free(e);
	char *four = results_text(true);
	char *jobs = strstr(four, "\"jobs\":4");
	assert_non_null(jobs);
	jobs[7] = '1';
	assert_string_equal(one, four);
	free(one);
	free(four);
}

/* ---- resuming ---- */

/* The file is cut at every byte from the start of the last lines on, and in its header; each time the run goes
 * on to the same file. */
static void cut_anywhere_and_resume(void **state)
{
	(void)state;
	mze_eval *e;
	rig r;
	size_t n, n_again, from;
	rig_init(&r);
	must_run(&e, &r);
	mze_eval_free(e);
	char *whole = read_file(r.params.results_path, &n), *want = results_text(false);
	from = n - 1200; /* two lines and a bit */
	r.params.resume = true;
	for (size_t at = 0; at < n; at = at < 600 ? at + 7 : at < from ? from : at + 1) {
		write_bytes(r.params.results_path, whole, at);
		int before = atomic_load(&fake.n_generated);
		must_run(&e, &r);
		int made = atomic_load(&fake.n_generated) - before;
		assert_true(at < from ? made == N_PROBLEMS * N_ROWS : made >= 1 && made <= 4);
		assert_int_equal(mze_eval_row(e, 1)->n_strict, 5);
		mze_eval_free(e);
		char *got = results_text(false);
		assert_string_equal(got, want);
		free(got);
	}
	free(whole);
	whole = read_file(r.params.results_path, &n);
	must_run(&e, &r); /* nothing left to do: not a byte changes */
	mze_eval_free(e);
	char *again = read_file(r.params.results_path, &n_again);
	assert_int_equal(n_again, n);
	assert_memory_equal(again, whole, n);
	free(again);
	free(whole);
	free(want);
}

/* What drafters did is in the file; of one that was written before there were such, nothing is said. */
static void drafters_are_resumed(void **state)
{
	(void)state;
	mze_eval *e;
	mzm_err err;
	rig r;
	size_t n;
	rig_init(&r);
	r.rows[2].draft = "sparse+ngram";
	r.stop_after = 12;
	assert_int_equal(run_rig(&e, &r, &err), MZM_ECANCELLED);
	r.stop_after = 0;
	r.params.resume = true;
	must_run(&e, &r);
	assert_int_equal(mze_eval_row(e, 2)->n_drafters, 2);
	assert_int_equal(mze_eval_row(e, 2)->drafter[1].n_drafted, 72);
	mze_eval_free(e);
	char *text = read_file(in_dir("results.jsonl"), &n), *at = strstr(text, "\"drafters\"");
	assert_non_null(at);
	memcpy(at, "\"gone_now\"", 10); /* a member that nobody reads */
	write_bytes(in_dir("results.jsonl"), text, n);
	free(text);
	must_run(&e, &r);
	assert_int_equal(mze_eval_row(e, 2)->n_drafters, 0);
	mze_eval_free(e);
}

static void cancel_and_resume(void **state)
{
	(void)state;
	mze_eval *e;
	mzm_err err;
	rig r;
	rig_init(&r);
	must_run(&e, &r);
	mze_eval_free(e);
	char *want = results_text(true);
	unlink(r.params.results_path);
	for (int k = 1; k < N_PROBLEMS * N_ROWS; k += 5) {
		r.stop_after = k;
		r.params.resume = k > 1;
		assert_int_equal(run_rig(&e, &r, &err), MZM_ECANCELLED);
		assert_null(e);
		assert_non_null(strstr(err.message, "of 27 answers"));
	}
	r.stop_after = 0;
	r.params.resume = true;
	must_run(&e, &r);
	mze_eval_free(e);
	char *got = results_text(true);
	assert_string_equal(got, want);
	free(got);
	free(want);
}

static void other_settings_are_refused(void **state)
{
	(void)state;
	mze_eval *e;
	mzm_err err;
	rig r;
	size_t n, n_after;
	rig_init(&r);
	must_run(&e, &r);
	mze_eval_free(e);
	char *before = read_file(r.params.results_path, &n);
	assert_int_equal(run_rig(&e, &r, &err), MZM_EARG); /* not asked to resume */
	r.params.resume = true;
	r.rows[1].keep = .75f;
	assert_int_equal(run_rig(&e, &r, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "rows[1].keep: 0.5 in the file, 0.75 now"));
	r.rows[1].keep = .5f;
	r.params.limit = 3;
	assert_int_equal(run_rig(&e, &r, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "data.limit: null in the file, 3 now"));
	r.params.limit = 0;
	r.params.n_rows = 2;
	assert_int_equal(run_rig(&e, &r, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "rows: "));
	r.params.n_rows = N_ROWS;
	fake.hash = "other";
	assert_int_equal(run_rig(&e, &r, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "model.hash: \"00fake\" in the file, \"other\" now"));
	char *after = read_file(r.params.results_path, &n_after);
	assert_int_equal(n, n_after);
	assert_memory_equal(before, after, n);
	free(before);
	free(after);
}

static void foreign_files_are_left_alone(void **state)
{
	(void)state;
	static const char *const foreign[] = {"my diary",  "my diary\n", "{\"question\": 1}\n",
					      "{\"mirzam", "[]\n",       "\n"};
	for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
		mze_eval *e;
		mzm_err err;
		rig r;
		size_t n;
		rig_init(&r);
		r.params.resume = true;
		write_text(r.params.results_path, foreign[i]);
		bool is_torn_header = strcmp(foreign[i], "{\"mirzam") == 0;
		assert_int_equal(run_rig(&e, &r, &err), is_torn_header ? MZM_OK : MZM_EFORMAT);
		mze_eval_free(e);
		char *after = read_file(r.params.results_path, &n);
		assert_true(is_torn_header || strcmp(after, foreign[i]) == 0);
		free(after);
	}
}

/* A line that does not fit in the middle of the file is an error with its number; at the end it is torn. */
static void broken_result_lines(void **state)
{
	(void)state;
	static const char *const bad[] = {"{}", "x", "[]", "{\"row\":0,\"id\":0}", "", "\xff"};
	mze_eval *e;
	mzm_err err;
	rig r;
	size_t n;
	rig_init(&r);
	must_run(&e, &r);
	mze_eval_free(e);
	char *whole = read_file(r.params.results_path, &n), *want = results_text(false);
	char *second = strchr(whole, '\n') + 1, *rest = strchr(second, '\n') + 1;
	r.params.resume = true;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		char *text = calloc(1, n + 100);
		sprintf(text, "%.*s%s\n%s", (int)(second - whole), whole, bad[i], rest);
		write_text(r.params.results_path, text);
		assert_int_equal(run_rig(&e, &r, &err), MZM_EFORMAT);
		assert_non_null(strstr(err.message, "line 2: "));
		sprintf(text, "%s%s\n", whole, bad[i]);
		write_text(r.params.results_path, text);
		must_run(&e, &r);
		mze_eval_free(e);
		char *got = results_text(false);
		assert_string_equal(got, want);
		free(got);
		free(text);
	}
	char *twice = calloc(1, 2 * n + 1); /* an answer twice */
	sprintf(twice, "%.*s%s", (int)(rest - whole), whole, second);
	write_text(r.params.results_path, twice);
	assert_int_equal(run_rig(&e, &r, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "stands there twice"));
	free(twice);
	free(whole);
	free(want);
}

/* Every byte of a line changed to something else: read or refused, never worse. */
static void mutated_result_lines(void **state)
{
	(void)state;
	mze_item item;
	mzm_err err = {0};
	int32_t row, id, n_read = 0;
	static const char line[] =
		"{\"row\":1,\"mode\":\"sparse\",\"id\":3,\"prompt_hash\":\"0123456789abcdef\",\"finish\":\"eos\","
		"\"text\":\" a\","
		"\"tokens\":[32,97],\"kinds\":\"FR\",\"event_ids\":[32,97],\"confidence\":[250000],\"n_prompt\":5,"
		"\"checks\":1,\"gained\":1,"
		"\"drafters\":[{\"name\":\"ngram\",\"checks\":1,\"drafted\":2,\"accepted\":1}],"
		"\"checks_paper\":0,\"gained_paper\":0,\"accepted\":0,\"corrected\":0,\"bonus\":0,\"rolled_back\":1,"
		"\"sparse_passes\":2,\"dense_passes\":1,\"dense_positions\":4,\"bytes_read\":0,\"sparse_work\":1.5,"
		"\"density\":0.75,\"read_density\":0.7,\"prefill_ns\":1,\"decode_ns\":2,\"wall_ns\":3}";
	assert_int_equal(mze_item_parse(&item, &row, &id, line, sizeof line - 1, 257, &err), MZM_OK);
	assert_true(row == 1 && id == 3 && item.gen.n_tokens == 2 && item.n_events == 2);
	assert_true(item.n_drafts == 1 && item.confidence[0] == 250000);
	assert_true(item.gen.n_drafters == 1 && item.gen.drafts[0].n_drafted == 2);
	assert_string_equal(item.gen.drafts[0].name, "ngram");
	mze_item_free(&item);
	assert_int_equal(mze_item_parse(&item, &row, &id, line, sizeof line - 1, 97, &err), MZM_EFORMAT); /* token 97 */
	for (size_t i = 0; i < sizeof line - 1; i++) {
		static const char change[] = "0-9a\"],{}";
		for (size_t k = 0; k < sizeof change - 1; k++) {
			char copy[sizeof line];
			memcpy(copy, line, sizeof line);
			copy[i] = change[k];
			err = (mzm_err){0};
			if (mze_item_parse(&item, &row, &id, copy, sizeof line - 1, 257, &err) == MZM_OK) {
				n_read++;
				mze_item_free(&item);
			} else {
				assert_int_equal(err.code, MZM_EFORMAT);
			}
		}
	}
	assert_in_range(n_read, 50, 3000);
}

static void one_writer_at_a_time(void **state)
{
	(void)state;
	mze_results *a, *b;
	json_t *stored;
	mzm_err err = {0};
	assert_int_equal(mze_results_open(&a, &stored, in_dir("results.jsonl"), false, &err), MZM_OK);
	assert_int_equal(mze_results_open(&b, &stored, in_dir("results.jsonl"), true, &err), MZM_EIO);
	assert_non_null(strstr(err.message, "another run is writing"));
	mze_results_close(a);
	err = (mzm_err){0};
	assert_int_equal(mze_results_open(&b, &stored, in_dir("results.jsonl"), true, &err), MZM_OK);
	mze_results_close(b);
}

/* Costs are measured once; a resumed run keeps those of its file. */
static void costs_are_frozen(void **state)
{
	(void)state;
	mze_eval *e;
	rig r;
	rig_init(&r);
	r.rows[2].period = 0;
	r.stop_after = 12;
	fake.cost = .3f;
	mzm_err err;
	assert_int_equal(run_rig(&e, &r, &err), MZM_ECANCELLED);
	r.stop_after = 0;
	r.params.resume = true;
	fake.cost = .9f;
	must_run(&e, &r);
	assert_int_equal(mze_eval_row(e, 2)->bytes_read, 300 * N_PROBLEMS);
	assert_true(isnan(mze_eval_row(e, 2)->effective_density));
	json_t *json = mze_eval_json(e), *row = json_array_get(json_object_get(json, "rows"), 2);
	assert_string_equal(json_string_value(json_object_get(row, "period")), "auto");
	assert_true(json_is_null(json_object_get(row, "effective_density")));
	assert_true((float)json_real_value(json_object_get(json_object_get(row, "costs"), "sparse")) == .3f);
	json_decref(json);
	mze_eval_free(e);
}

/* Nominal costs do not depend on what measuring would find; a file made with them goes on with nothing else. */
static void nominal_costs(void **state)
{
	(void)state;
	mze_eval *e;
	mzm_err err;
	rig r;
	rig_init(&r);
	r.rows[2].period = 0;
	r.params.nominal_costs = true;
	r.stop_after = 12;
	assert_int_equal(run_rig(&e, &r, &err), MZM_ECANCELLED);
	r.stop_after = 0;
	r.params.resume = true;
	r.params.nominal_costs = false;
	assert_int_equal(run_rig(&e, &r, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "cost_kind: \"nominal\" in the file, \"measured\" now"));
	r.params.nominal_costs = true;
	must_run(&e, &r);
	assert_int_equal(mze_eval_row(e, 2)->bytes_read, 750 * N_PROBLEMS);
	mze_eval_free(e);
}

static void failures_say_where(void **state)
{
	(void)state;
	mze_eval *e;
	mzm_err err;
	rig r;
	for (int jobs = 1; jobs <= 3; jobs += 2) {
		rig_init(&r);
		r.params.n_jobs = jobs;
		r.params.resume = true;
		unlink(r.params.results_path);
		fake.fail_at = atomic_load(&fake.n_generated) + 6;
		assert_int_equal(run_rig(&e, &r, &err), MZM_EIO);
		assert_non_null(strstr(err.message, "problem "));
		assert_non_null(strstr(err.message, ": disk on fire"));
		if (jobs == 1)
			assert_string_equal(err.message, "problem 1 (line 2), sirius griffin: disk on fire");
		must_run(&e, &r);
		mze_eval_free(e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(jobs_change_nothing, set_up),
		cmocka_unit_test_setup(cut_anywhere_and_resume, set_up),
		cmocka_unit_test_setup(drafters_are_resumed, set_up),
		cmocka_unit_test_setup(cancel_and_resume, set_up),
		cmocka_unit_test_setup(other_settings_are_refused, set_up),
		cmocka_unit_test_setup(foreign_files_are_left_alone, set_up),
		cmocka_unit_test_setup(broken_result_lines, set_up),
		cmocka_unit_test_setup(mutated_result_lines, set_up),
		cmocka_unit_test_setup(one_writer_at_a_time, set_up),
		cmocka_unit_test_setup(costs_are_frozen, set_up),
		cmocka_unit_test_setup(nominal_costs, set_up),
		cmocka_unit_test_setup(failures_say_where, set_up),
	};
	if (make_dir() != 0)
		return 1;
	int code = cmocka_run_group_tests(tests, NULL, NULL);
	remove_dir();
	return code;
}
