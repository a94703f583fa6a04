/* test_extract.c - the answer scanners against the specification's table, real model outputs and Python's re. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/extract.h"
#include "eval/task.h"

#define VECTORS "tests/data/extract_vectors.tsv"
#define OUTPUTS "evals/gsm8k_extraction.jsonl"

static mze_span strict(const char *text)
{
	return mze_extract_strict(text, strlen(text));
}

static mze_span cot(const char *text)
{
	return mze_extract_cot(text, strlen(text), NULL);
}

static mze_span flexible(const char *text)
{
	return mze_extract_flexible(text, strlen(text));
}

/* want NULL: no match; else compared after normalising, as the table prints it. */
static void check(mze_span got, const char *want)
{
	char copy[128];
	if (!want) {
		assert_null(got.data);
		return;
	}
	assert_non_null(got.data);
	assert_true(got.len < sizeof copy);
	memcpy(copy, got.data, got.len);
	copy[mze_normalise(copy, got.len)] = 0;
	assert_string_equal(copy, want);
}

static void spec_table(void **state)
{
	(void)state;
	static const struct row {
		const char *text, *strict, *flexible;
	} hashes[] =
		{
			{"#### 18", "18", "18"}, {"#### 18.", "18", "18"}, {"#### 1,234", "1234", "1234"},
			{"####18", NULL, "18"},  {"#### $18", NULL, "18"}, {"#### 5 #### 6", "5", "6"},
			{"3-2", NULL, "-2"},     {"5%", NULL, "5"},        {"10, ", NULL, "10"},
			{"1.0", NULL, "1.0"},
		},
	  answers[] = {
		  {"The answer is 18.", "18", "18"},      {"The answer is 18 dollars.", "18", "18"},
		  {"The answer is 18. Next", "18", "18"}, {"The answer is 18", "1", "18"},
		  {"The answer is 8", NULL, "8"},         {"The answer is $18.", NULL, "18"},
		  {"So the answer is 18.", NULL, "18"},
	  };
	for (size_t i = 0; i < sizeof hashes / sizeof hashes[0]; i++) {
		check(strict(hashes[i].text), hashes[i].strict);
		check(flexible(hashes[i].text), hashes[i].flexible);
	}
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		check(cot(answers[i].text), answers[i].strict);
		check(flexible(answers[i].text), answers[i].flexible);
	}
	/* the last match of these is the points alone, whose final one normalising drops */
	mze_span points = flexible("is 18. Done...");
	assert_int_equal(points.len, 3);
	assert_memory_equal(points.data, "...", 3);
	points = flexible("He has 8...");
	assert_int_equal(points.len, 4);
	assert_memory_equal(points.data, "8...", 4);
	check(points, "8..");
}

static void cut_numbers_are_told(void **state)
{
	(void)state;
	bool cut = false;
	mze_extract_cot("The answer is 18", 16, &cut);
	assert_true(cut);
	mze_extract_cot("The answer is 18\nmore", 21, &cut);
	assert_true(cut);
	mze_extract_cot("The answer is 18.", 17, &cut); /* lost its point, not a digit */
	assert_false(cut);
	mze_extract_cot("The answer is 18 eggs", 21, &cut);
	assert_false(cut);
}

static void normalising(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{"1,234", "1234"}, {"$5.00", "5.00"}, {"18.", "18"}, {"18..", "18."}, {"a #### b #### C.", "c"},
		{"18.\n", "18\n"}, {"18.\n\n", "18.\n\n"}, {"#,### 7", "7"}, {".", ""}, {"", ""}, {"18.0", "18.0"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char copy[32];
		size_t n = strlen(cases[i][0]);
		memcpy(copy, cases[i][0], n + 1);
		copy[mze_normalise(copy, n)] = 0;
		assert_string_equal(copy, cases[i][1]);
	}
}

/* ---- Python's answers to 2,000 random strings ---- */

static size_t unescape(char *s)
{
	size_t n = 0;
	for (size_t i = 0; s[i]; i++) {
		if (s[i] == '\\' && s[i + 1]) {
			i++;
			s[n++] = s[i] == 'n' ? '\n' : s[i] == 't' ? '\t' : s[i];
		} else {
			s[n++] = s[i];
		}
	}
	s[n] = 0;
	return n;
}

static void same_span(mze_span got, char *want, const char *text)
{
	bool none = strcmp(want, "!") == 0;
	size_t n = unescape(want);
	if (none != !got.data || (!none && (got.len != n || memcmp(got.data, want, n) != 0)))
		fail_msg("'%s': wanted '%s', got '%.*s'", text, want, (int)got.len, got.data ? got.data : "");
}

static void python_vectors(void **state)
{
	(void)state;
	char line[1024];
	int n_lines = 0;
	FILE *f = fopen(VECTORS, "r");
	if (!f)
		fail_msg("%s: run the tests from the root of the sources", VECTORS);
	while (f && fgets(line, sizeof line, f)) {
		char *field[5], *at = line;
		line[strcspn(line, "\n")] = 0;
		for (int i = 0; i < 5; i++)
			field[i] = strsep(&at, "\t");
		assert_non_null(field[4]);
		size_t n = unescape(field[0]);
		same_span(mze_extract_strict(field[0], n), field[1], field[0]);
		same_span(mze_extract_cot(field[0], n, NULL), field[2], field[0]);
		same_span(mze_extract_flexible(field[0], n), field[3], field[0]);
		unescape(field[4]);
		field[0][mze_normalise(field[0], n)] = 0;
		assert_string_equal(field[0], field[4]);
		n_lines++;
	}
	fclose(f);
	assert_int_equal(n_lines, 2000);
}

/* ---- 400 real outputs, scored by the harness itself ---- */

static void check_output(const json_t *line)
{
	const char *text = json_string_value(json_object_get(line, "output"));
	const char *want[2] = {json_string_value(json_object_get(line, "strict")),
			       json_string_value(json_object_get(line, "flexible"))};
	char answer[64];
	mze_score score;
	assert_true(text && want[0] && want[1]);
	snprintf(answer, sizeof answer, "Because.\n#### %s", json_string_value(json_object_get(line, "gold")));
	assert_int_equal(mze_task_score(&score, mze_task_find("gsm8k"), text, strlen(text), answer, NULL), MZM_OK);
	const mze_span got[2] = {score.strict, score.flexible};
	for (int i = 0; i < 2; i++) {
		bool none = strcmp(want[i], "[invalid]") == 0;
		assert_int_equal(none, !got[i].data);
		assert_true(none || (got[i].len == strlen(want[i]) && memcmp(got[i].data, want[i], got[i].len) == 0));
	}
	assert_int_equal(score.strict_right, json_is_true(json_object_get(line, "strict_correct")));
	assert_int_equal(score.flexible_right, json_is_true(json_object_get(line, "flexible_correct")));
}

static void harness_outputs(void **state)
{
	(void)state;
	char path[4096], *line = NULL;
	size_t cap = 0;
	int n_lines = 0;
	const char *shared = getenv("MIRZAM_SHARED");
	snprintf(path, sizeof path, "%s/%s", shared ? shared : "", OUTPUTS);
	FILE *f = shared ? fopen(path, "r") : NULL;
	if (!f) {
		print_message("skipped: no %s under MIRZAM_SHARED\n", OUTPUTS);
		skip();
		return;
	}
	while (getline(&line, &cap, f) > 0) {
		json_t *json = json_loads(line, 0, NULL);
		assert_non_null(json);
		check_output(json);
		json_decref(json);
		n_lines++;
	}
	free(line);
	fclose(f);
	assert_int_equal(n_lines, 400);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spec_table),	  cmocka_unit_test(cut_numbers_are_told), cmocka_unit_test(normalising),
		cmocka_unit_test(python_vectors), cmocka_unit_test(harness_outputs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
