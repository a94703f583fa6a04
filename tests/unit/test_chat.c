/* test_chat.c - conversations through chat templates, against what Jinja2 made of them (tests/tools/jinja_vectors.py);
 * where the template and the special tokens come from; templates cut off anywhere. */
#include "format/chat.h"

#include <jansson.h>

#include "base/mem.h"
#include "testing.h"

#define FOLDER "tests/data/chat_templates/"

static const struct tm vector_time = {
	.tm_year = 124, .tm_mon = 6, .tm_mday = 6, .tm_hour = 15, .tm_min = 4, .tm_sec = 5}; /* 2024-07-06 15:04:05 */

/* The template of a file, and the JSON of its first line, which is a comment: what tokenizer_config.json would say. */
static char *read_template(const char *file, char *config, size_t cap)
{
	char path[512];
	size_t n;
	snprintf(path, sizeof path, FOLDER "%s", file);
	char *text = testing_read(path, &n), *end = strstr(text, "#}\n");
	assert_true(end && end - text > 2 && (size_t)(end - text) - 2 < cap);
	memcpy(config, text + 2, (size_t)(end - text) - 2);
	config[end - text - 2] = 0;
	return text;
}

static mzm_chat_template *open_template(const char *config, const char *text)
{
	mzm_chat_template *t;
	mzm_err err = {0};
	if (mzm_chat_template_create(&t, config, config ? strlen(config) : 0, text, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_non_null(t);
	return t;
}

/* ---- Jinja2's own renderings ---- */

typedef struct opened {
	char               file[64];
	mzm_chat_template *t;
} opened;

static void reopen(opened *now, const char *file)
{
	char config[512];
	if (strcmp(now->file, file) == 0)
		return;
	mzm_chat_template_free(now->t);
	char *text = read_template(file, config, sizeof config);
	now->t = open_template(config, text);
	snprintf(now->file, sizeof now->file, "%s", file);
	free(text);
}

static int check_line(const mzm_chat_template *t, const json_t *line)
{
	const char *roles[8], *contents[8];
	const json_t *turns = json_object_get(line, "turns"), *wanted = json_object_get(line, "out");
	const char *raised = json_string_value(json_object_get(line, "raise"));
	size_t n = json_array_size(turns), len = 0;
	char *text;
	mzm_err err = {0};
	assert_true(n <= 8);
	for (size_t i = 0; i < n; i++) {
		roles[i] = json_string_value(json_array_get(json_array_get(turns, i), 0));
		contents[i] = json_string_value(json_array_get(json_array_get(turns, i), 1));
	}
	mzm_status st = mzm_chat_template_render(t, roles, contents, n, json_is_true(json_object_get(line, "generate")),
						 json_is_true(json_object_get(line, "now")) ? &vector_time : NULL,
						 &text, &len, &err);
	assert_true((st == MZM_OK) == (text != NULL));
	bool ok = wanted ? text && len == json_string_length(wanted) && strcmp(text, json_string_value(wanted)) == 0
		  : raised ? st == MZM_EARG && strcmp(err.message, raised) == 0 : st == MZM_EFORMAT && err.message[0];
	if (!ok)
		print_error("%s, %s\n  wanted: %s\n  got:    %s\n", json_string_value(json_object_get(line, "file")),
			    json_string_value(json_object_get(line, "name")),
			    wanted ? json_string_value(wanted) : raised, text ? text : err.message);
	mzm_free(text);
	return !ok;
}

static void as_jinja2_renders(void **state)
{
	(void)state;
	char line[8192];
	opened now = {0};
	int n = 0, wrong = 0, n_raised = 0;
	FILE *f = fopen("tests/data/chat_vectors.jsonl", "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f)) {
		json_t *vector = json_loads(line, 0, NULL);
		assert_non_null(vector);
		reopen(&now, json_string_value(json_object_get(vector, "file")));
		wrong += check_line(now.t, vector);
		n_raised += json_object_get(vector, "raise") != NULL;
		n++;
		json_decref(vector);
	}
	fclose(f);
	mzm_chat_template_free(now.t);
	print_message("%d renderings, %d of them refused by the template\n", n, n_raised);
	assert_int_equal(wrong, 0);
	assert_true(n > 500 && n_raised > 40);
}

/* ---- BOS ---- */

static void who_writes_bos(void **state)
{
	(void)state;
	static const struct {
		const char *file;
		bool        writes;
	} cases[] = {{"chatml.jinja", false},  {"gemma.jinja", true},   {"llama2.jinja", true},
		     {"llama3.jinja", true},   {"llama31.jinja", true}, {"mistral-v1.jinja", true},
		     {"phi3.jinja", false},    {"qwen3.jinja", false},  {"granite.jinja", false},
		     {"deepseek.jinja", true}, {"zephyr.jinja", false}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		opened now = {0};
		reopen(&now, cases[i].file);
		if (mzm_chat_template_writes_bos(now.t) != cases[i].writes)
			fail_msg("%s: BOS", cases[i].file);
		mzm_chat_template_free(now.t);
	}
}

/* Some templates want a system message first: the second probe tells. */
static void bos_behind_a_demand(void **state)
{
	(void)state;
	mzm_chat_template *t = open_template("{\"bos_token\": \"<s>\"}", "{% if messages[0].role != 'system' %}"
					     "{{ raise_exception('system first') }}{% endif %}{{ bos_token }}x");
	assert_true(mzm_chat_template_writes_bos(t));
	mzm_chat_template_free(t);
	t = open_template("{\"bos_token\": \"<s>\"}", "{{ raise_exception('never') }}{{ bos_token }}");
	assert_false(mzm_chat_template_writes_bos(t));
	mzm_chat_template_free(t);
}

/* ---- where things come from ---- */

static void renders(const char *config, const char *text, const char *wanted)
{
	const char *role = "user", *content = "hi";
	char *out;
	mzm_err err = {0};
	mzm_chat_template *t = open_template(config, text);
	if (mzm_chat_template_render(t, &role, &content, 1, true, NULL, &out, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_string_equal(out, wanted);
	mzm_free(out);
	mzm_chat_template_free(t);
}

static void refuses(const char *config, const char *text, mzm_status status, const char *message)
{
	mzm_err err = {0};
	mzm_chat_template *t;
	assert_int_equal(mzm_chat_template_create(&t, config, config ? strlen(config) : 0, text, &err), status);
	assert_null(t);
	if (!strstr(err.message, message))
		fail_msg("\"%s\" does not say \"%s\"", err.message, message);
}

static void choice_of_template(void **state)
{
	(void)state;
	renders("{\"chat_template\": \"{{ messages[0].content }}\"}", NULL, "hi");
	renders("{\"chat_template\": \"other\"}", "{{ messages[0].role }}", "user");
	renders(NULL, "no config", "no config");
	renders("{\"chat_template\": [{\"name\": \"rag\", \"template\": \"R\"}, {\"name\": \"default\", \"template\": "
		"\"D\"}, {\"name\": \"chat\", \"template\": \"C\"}]}", NULL, "D");
	renders("{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"T\"}, {\"name\": \"chat\", "
		"\"template\": "
		"\"C\"}]}",
		NULL, "C");
	renders("{\"chat_template\": [{\"name\": \"only\", \"template\": \"O\"}]}", NULL, "O");
	refuses("{\"chat_template\": [{\"name\": \"a\", \"template\": \"A\"}, {\"name\": \"b\", \"template\": \"B\"}]}",
		NULL, MZM_EUNSUPPORTED, "none of the 2 chat templates");
	refuses("{\"chat_template\": []}", NULL, MZM_EUNSUPPORTED, "none of the 0");
	refuses("{\"chat_template\": [\"x\", 5, null, {}]}", NULL, MZM_EUNSUPPORTED, "none of the 4");
	refuses("{}", NULL, MZM_EUNSUPPORTED, "no chat template");
	refuses("{\"chat_template\": null}", NULL, MZM_EUNSUPPORTED, "no chat template");
	refuses(NULL, NULL, MZM_EUNSUPPORTED, "no chat template");
	refuses("{\"chat_template\": 5}", NULL, MZM_EFORMAT, "not a string");
	refuses("{\"chat_template\": \"a\\n{% if %}\"}", NULL, MZM_EFORMAT, "line 2: ");
	refuses("{\"chat_template\": \"{% include 'x' %}\"}", NULL, MZM_EUNSUPPORTED, "line 1: the tag include");
	refuses("{\"chat_template\": ", NULL, MZM_EFORMAT, "tokenizer_config.json: line 1");
	refuses("[]", "x", MZM_EFORMAT, "not an object");
}

static void special_tokens(void **state)
{
	(void)state;
	renders("{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\", \"lstrip\": false}, \"unk_token\": "
		"null}",
		"{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}{{ pad_token is defined }}",
		"<s></s>FalseFalse");
	renders("{\"pad_token\": \"P\", \"unk_token\": {\"content\": \"U\"}, \"chat_template\": \"{{ pad_token ~ "
		"unk_token }}\"}",
		NULL, "PU");
	renders(NULL,
		"{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}{{ strftime_now is defined }}",
		"TrueTrueTrueFalse");
	refuses("{\"bos_token\": 5}", "x", MZM_EFORMAT, "bos_token is not a string");
	refuses("{\"eos_token\": {\"content\": []}}", "x", MZM_EFORMAT, "eos_token is not a string");
	mzm_chat_template *t = open_template("{\"bos_token\": {\"content\": \"B\"}}", "x");
	assert_string_equal(mzm_chat_template_token(t, "bos_token"), "B");
	assert_null(mzm_chat_template_token(t, "eos_token"));
	mzm_chat_template_free(t);
}

static void bad_messages(void **state)
{
	(void)state;
	const char *roles[] = {"user", "user"}, *contents[] = {"ok", "\xff"};
	char *text;
	mzm_err err = {0};
	mzm_chat_template *t = open_template(NULL, "{{ messages[1].content }}");
	assert_int_equal(mzm_chat_template_render(t, roles, contents, 2, true, NULL, &text, NULL, &err), MZM_EARG);
	assert_null(text);
	assert_string_equal(err.message, "message 2 is not UTF-8");
	mzm_chat_template_free(t);
}

/* ---- templates that are cut off, or out of memory ---- */

static void each_template(void (*check)(char *text, size_t n, const char *config))
{
	DIR *d = opendir(FOLDER);
	struct dirent *e;
	int n = 0;
	assert_non_null(d);
	while ((e = readdir(d))) {
		char config[512];
		if (!strstr(e->d_name, ".jinja"))
			continue;
		char *text = read_template(e->d_name, config, sizeof config);
		check(text, strlen(text), config);
		free(text);
		n++;
	}
	closedir(d);
	assert_true(n >= 15);
}

static mzm_status create_and_render(const char *config, const char *text, mzm_err *err)
{
	static const char *const roles[] = {"system", "user", "assistant", "user"};
	static const char *const contents[] = {"s", "a", "<think>x</think>b", "c"};
	mzm_chat_template *t;
	char *out = NULL;
	mzm_status st = mzm_chat_template_create(&t, config, strlen(config), text, err);
	if (st == MZM_OK)
		st = mzm_chat_template_render(t, roles, contents, 4, true, &vector_time, &out, NULL, err);
	assert_true((st == MZM_OK) == (out != NULL));
	mzm_free(out);
	mzm_chat_template_free(t);
	return st;
}

static void check_truncations(char *text, size_t n, const char *config)
{
	for (size_t cut = 0; cut < n; cut++) {
		char was = text[cut];
		mzm_err err = {0};
		text[cut] = 0;
		mzm_status st = create_and_render(config, text, &err);
		assert_int_equal(st, err.code);
		text[cut] = was;
	}
}

static void every_truncation(void **state)
{
	(void)state;
	size_t live = mzm_mem_live();
	each_template(check_truncations);
	assert_int_equal(mzm_mem_live(), live);
}

static void check_memory(char *text, size_t n, const char *config)
{
	(void)n;
	mzm_err err = {0};
	mzm_status with_all = create_and_render(config, text, &err);
	for (long k = 1;; k++) {
		err = (mzm_err){0};
		mzm_mem_fail_nth(k);
		mzm_status st = create_and_render(config, text, &err);
		bool done = mzm_mem_fail_nth(0) < k;
		if (done) {
			assert_int_equal(st, with_all);
			break;
		}
		assert_int_equal(st, MZM_ENOMEM);
		assert_int_equal(err.code, st);
		assert_true(k < 1000);
	}
}

static void memory_runs_out(void **state)
{
	(void)state;
	size_t live = mzm_mem_live();
	each_template(check_memory);
	assert_int_equal(mzm_mem_live(), live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_jinja2_renders), cmocka_unit_test(who_writes_bos),
		cmocka_unit_test(bos_behind_a_demand), cmocka_unit_test(choice_of_template),
		cmocka_unit_test(special_tokens),    cmocka_unit_test(bad_messages),
		cmocka_unit_test(every_truncation),  cmocka_unit_test(memory_runs_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
