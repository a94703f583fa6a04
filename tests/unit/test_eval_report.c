/* test_eval_report.c - table, Markdown, JSON and HTML of an evaluation; hostile text must stay text. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <math.h>

#include "eval_rig.h"

/* -> free */
static char *report_text(const mze_eval *e)
{
	char *text = NULL;
	size_t n = 0;
	mzm_err err = {0};
	FILE *f = open_memstream(&text, &n);
	assert_non_null(f);
	assert_int_equal(mze_eval_report(e, f, &err), MZM_OK);
	fclose(f);
	assert_int_equal(strlen(text), n); /* no NUL inside */
	return text;
}

static int count(const char *text, const char *what)
{
	int n = 0;
	for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what))
		n++;
	return n;
}

/* ---- a small checker of HTML: tags balanced, quotes closed, nothing bare ---- */

typedef struct html {
	const char *at;
	char        open[64][16];
	int         depth;
} html;

static bool is_void(const char *name)
{
	return strcmp(name, "meta") == 0 || strcmp(name, "br") == 0;
}

/* Attributes up to '>'; returns whether the tag closed itself. */
static bool skip_attributes(html *h)
{
	bool self = false;
	for (; *h->at && *h->at != '>'; h->at++) {
		assert_true(*h->at != '<' && *h->at != '\'');
		self = *h->at == '/';
		if (*h->at == '"') {
			h->at = strchr(h->at + 1, '"');
			assert_non_null(h->at);
		}
	}
	assert_int_equal(*h->at, '>');
	h->at++;
	return self;
}

static void check_tag(html *h)
{
	char name[16] = "";
	bool closes = h->at[1] == '/';
	size_t n = 0;
	for (h->at += closes ? 2 : 1; isalnum((unsigned char)*h->at) && n < sizeof name - 1; h->at++)
		name[n++] = *h->at;
	assert_true(n > 0);
	bool self = skip_attributes(h);
	if (closes) {
		assert_true(h->depth > 0);
		assert_string_equal(name, h->open[--h->depth]);
	} else if (!self && !is_void(name)) {
		assert_true(h->depth < 64);
		memcpy(h->open[h->depth++], name, sizeof name);
	}
	if (!closes && (strcmp(name, "script") == 0 || strcmp(name, "style") == 0)) {
		char end[32];
		snprintf(end, sizeof end, "</%s>", name);
		h->at = strstr(h->at, end);
		assert_non_null(h->at);
	}
}

static void check_html(const char *text)
{
	static const char start[] = "<!DOCTYPE html>\n";
	html h = {.at = text + strlen(start)};
	assert_memory_equal(text, start, strlen(start));
	while (*h.at) {
		if (*h.at == '<') {
			check_tag(&h);
		} else {
			assert_true(*h.at != '>' && *h.at != '"');
			assert_true((unsigned char)*h.at >= 0x20 || *h.at == '\n' || *h.at == '\t');
			if (*h.at == '&')
				assert_true(strspn(h.at + 1, "abcdefghijklmnopqrstuvwxyz#0123456789") ==
					    strcspn(h.at + 1, ";"));
			h.at++;
		}
	}
	assert_int_equal(h.depth, 0);
}

static void report_is_valid(void **state)
{
	(void)state;
	mze_eval *e;
	rig r;
	rig_init(&r);
	r.params.results_path = NULL;
	r.rows[2].period = 0; /* a hollow point in the chart */
	must_run(&e, &r);
	char *text = report_text(e);
	check_html(text);
	assert_null(strstr(text, "http"));
	assert_null(strstr(text, "src="));
	assert_null(strstr(text, "href="));
	assert_null(strstr(text, "url("));
	assert_null(strstr(text, "@import"));
	assert_int_equal(count(text, "<details class=\"q\""), N_PROBLEMS);
	assert_int_equal(count(text, "<section data-row=\"2\">"), N_PROBLEMS);
	assert_int_equal(count(text, "<s>"), 4 + 1);      /* one dropped token in each odd answer; the legend */
	assert_int_equal(count(text, "<s>&lt;</s><b>"), 4); /* and the correction behind it */
	assert_int_equal(count(text, "data-right=\"101\" data-differs=\"010\""), 4);
	assert_int_equal(count(text, "<svg"), 2);
	assert_int_equal(count(text, "<figure>"), 1); /* of the row that has checks */
	free(text);
	mze_eval_free(e);
}

static void hostile_text_is_text(void **state)
{
	(void)state;
	static const char line[] = "{\"question\": \"</pre><script>alert(1)</script> \\\"' & \\u0001\\u202e <img src=x "
				   "onerror=alert(2)> ]]> 7\","
				   " \"answer\": \"</details><b onclick='x'>&amp;\\n#### 7\"}\n";
	mze_eval *e;
	rig r;
	fake.padding = "</pre></section><script>alert(3)</script>&amp;<!-- \" ' \x01\x1b[31m \xff\xc0\xaf <style>";
	rig_init(&r);
	write_text(r.params.data_path, line);
	must_run(&e, &r);
	char *text = report_text(e);
	check_html(text);
	assert_int_equal(count(text, "<script"), 1);
	assert_int_equal(count(text, "<style"), 1);
	assert_int_equal(count(text, "<img") + count(text, "<!--") + count(text, "<b onclick"), 0);
	assert_true(count(text, "&lt;script&gt;alert(3)&lt;/script&gt;&amp;amp;") >= 1);
	assert_null(strchr(text, '\x1b'));
	assert_null(strchr(text, '\xff'));
	free(text);
	mze_eval_free(e);
	r.params.resume = true; /* such text survives the results file, too */
	must_run(&e, &r);
	assert_int_equal(mze_eval_row(e, 0)->n_strict, 1);
	mze_eval_free(e);
}

/* ---- JSON ---- */

static const json_t *member(const json_t *row, const char *key, json_type type)
{
	const json_t *value = json_object_get(row, key);
	if (!value || json_typeof(value) != type)
		fail_msg("%s: %s", key, value ? "wrong type" : "absent");
	return value;
}

/* The fake engine's confidence is .9 in what it keeps and .25 in what it drops. */
static void check_monitor(const json_t *rows)
{
	const json_t *checked = json_array_get(rows, 2), *monitor = member(checked, "monitor", JSON_OBJECT);
	const json_t *bins = member(monitor, "bins", JSON_ARRAY), *low = json_array_get(bins, 0);
	member(json_array_get(rows, 0), "monitor", JSON_NULL);
	member(json_array_get(rows, 1), "monitor", JSON_NULL);
	json_int_t n_kept = json_integer_value(member(checked, "accepted", JSON_INTEGER));
	json_int_t n_dropped = json_integer_value(member(checked, "rollback_tokens", JSON_INTEGER));
	assert_int_equal(json_integer_value(member(monitor, "judged", JSON_INTEGER)), n_kept + n_dropped);
	assert_true(json_real_value(member(monitor, "auc", JSON_REAL)) == 1);
	double brier = (0.1 * 0.1 * (double)n_kept + 0.25 * 0.25 * (double)n_dropped) / (double)(n_kept + n_dropped);
	assert_true(fabs(json_real_value(member(monitor, "brier", JSON_REAL)) - brier) < 1e-9);
	assert_int_equal(json_array_size(bins), 2);
	assert_int_equal(json_integer_value(member(low, "n", JSON_INTEGER)), n_dropped);
	assert_true(fabs(json_real_value(member(low, "confidence", JSON_REAL)) - 0.25) < 1e-9);
	assert_true(json_real_value(member(low, "accepted", JSON_REAL)) == 0);
}

static void json_has_the_contract(void **state)
{
	(void)state;
	static const char *const integers[] = {"n", "correct", "checks", "tokens", "sparse_passes", "dense_passes",
					       "rollback_tokens", "bytes_read", "period", "peak_rss_bytes", "seed",
					       "corrected", "accepted", "bonus"};
	static const char *const reals[] = {"keep",
					    "threshold",
					    "accuracy",
					    "same_as_dense",
					    "aal",
					    "aal_paper",
					    "density",
					    "effective_density",
					    "work_per_token",
					    "prefill_tok_per_s",
					    "tok_per_s",
					    "w_nodes",
					    "read_density",
					    "prefill_s",
					    "decode_s",
					    "wall_s",
					    "corrections_per_100_tokens"};
	static const char *const strings[] = {"mode", "draft", "predictor", "accept"};
	mze_eval *e;
	rig r;
	rig_init(&r);
	must_run(&e, &r);
	json_t *json = mze_eval_json(e), *rows = json_object_get(json, "rows");
	assert_int_equal(json_array_size(rows), N_ROWS);
	for (size_t i = 0; i < N_ROWS; i++) {
		const json_t *row = json_array_get(rows, i);
		for (size_t k = 0; k < sizeof integers / sizeof integers[0]; k++)
			member(row, integers[k], JSON_INTEGER);
		for (size_t k = 0; k < sizeof reals / sizeof reals[0]; k++)
			member(row, reals[k], JSON_REAL);
		for (size_t k = 0; k < sizeof strings / sizeof strings[0]; k++)
			member(row, strings[k], JSON_STRING);
		assert_int_equal(json_array_size(member(row, "ci95", JSON_ARRAY)), 2);
		assert_int_equal(json_integer_value(member(member(row, "finish", JSON_OBJECT), "stop", JSON_INTEGER)),
				 9);
	}
	const json_t *sparse = json_array_get(rows, 1), *mcnemar = member(sparse, "mcnemar", JSON_OBJECT);
	assert_true(json_real_value(member(sparse, "accuracy", JSON_REAL)) == 5. / 9);
	assert_int_equal(json_integer_value(member(mcnemar, "c", JSON_INTEGER)), 4);
	member(mcnemar, "p_holm", JSON_REAL);
	member(json_array_get(rows, 0), "mcnemar", JSON_NULL);
	check_monitor(rows);
	member(member(json, "settings", JSON_OBJECT), "engine", JSON_OBJECT);
	const json_t *machine = member(json, "machine", JSON_OBJECT);
	assert_true(json_is_false(json_object_get(machine, "onednn"))); /* the build says "no oneDNN" */
	member(machine, "cpu", JSON_STRING);
	member(machine, "threads", JSON_INTEGER);
	member(machine, "kernel", JSON_STRING);
	member(machine, "mem_bytes", JSON_INTEGER);
	json_decref(json);
	mze_eval_free(e);
}

static void without_dense_nothing_is_compared(void **state)
{
	(void)state;
	mze_eval *e;
	rig r;
	rig_init(&r);
	r.params.rows = r.rows + 1;
	r.params.n_rows = 2;
	must_run(&e, &r);
	json_t *json = mze_eval_json(e), *row = json_array_get(json_object_get(json, "rows"), 0);
	member(row, "same_as_dense", JSON_NULL);
	member(row, "mcnemar", JSON_NULL);
	member(row, "first_difference", JSON_NULL);
	json_decref(json);
	char *text = report_text(e);
	check_html(text);
	assert_null(strstr(text, "differing from dense"));
	free(text);
	mze_eval_free(e);
}

/* ---- tables ---- */

static void tables_line_up(void **state)
{
	(void)state;
	mze_eval *e;
	rig r;
	char *text = NULL, *line, *rest;
	size_t n = 0, width = 0;
	rig_init(&r);
	must_run(&e, &r);
	FILE *f = open_memstream(&text, &n);
	mze_eval_markdown(e, f);
	fclose(f);
	assert_memory_equal(text, "**gsm8k@3.0, 0-shot, all 9 problems**\n\n", 39);
	rest = text + 39;
	int n_lines = 0, bars = count(strchr(rest, '\n') + 1, "|") / (N_ROWS + 1);
	while ((line = strsep(&rest, "\n")) != NULL && *line) {
		assert_int_equal(count(line, "|"), bars);
		n_lines++;
	}
	assert_int_equal(n_lines, N_ROWS + 2);
	free(text);
	f = open_memstream(&text, &n);
	mze_eval_table(e, f);
	fclose(f);
	rest = strchr(text, '\n') + 2;
	for (int i = 0; i <= N_ROWS; i++) {
		line = strsep(&rest, "\n");
		width = width ? width : strlen(line);
		assert_int_equal(strlen(line), width);
	}
	assert_non_null(strstr(rest, "no difference shown"));
	assert_non_null(strstr(rest, "ended by: stop 9"));
	free(text);
	mze_eval_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(report_is_valid, set_up),
		cmocka_unit_test_setup(hostile_text_is_text, set_up),
		cmocka_unit_test_setup(json_has_the_contract, set_up),
		cmocka_unit_test_setup(without_dense_nothing_is_compared, set_up),
		cmocka_unit_test_setup(tables_line_up, set_up),
	};
	if (make_dir() != 0)
		return 1;
	int code = cmocka_run_group_tests(tests, NULL, NULL);
	remove_dir();
	return code;
}
