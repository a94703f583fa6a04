/* test_jinja.c - the template engine against what Jinja2 itself gave (tests/tools/jinja_vectors.py), and against
 * templates that are made to harm: bounds of steps, bytes and nesting, every truncation, memory that runs out. */
#include "format/jinja.h"

#include <jansson.h>

#include "base/mem.h"
#include "testing.h"

/* Parses and renders; the text is NULL when either failed. */
static mzm_status render(const char *text, size_t len, const json_t *variables, char **out, size_t *out_len,
			 mzm_err *err)
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
		print_error("%s\n  wanted: %s\n  got:    %s\n", text,
			    wanted   ? json_string_value(wanted)
			    : raised ? raised
				     : json_string_value(json_object_get(line, "error")),
			    out ? out : err.message);
	mzm_free(out);
	return !ok;
}

static void as_jinja2_does(void **state)
{
	(void)state;
	char line[8192];
	FILE *f = fopen("tests/data/jinja_vectors.jsonl", "r");
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

/* ---- variables ---- */

static void variables_of_all_kinds(void **state)
{
	(void)state;
	gives("{{ a }} {{ b }} {{ c }} {{ d }} {{ e }} {{ f }}", "{\"a\": 1, \"b\": 1.5, \"c\": true, \"d\": null, "
	      "\"e\": [1, \"x\"], \"f\": {\"k\": {}}}", "1 1.5 True None [1, 'x'] {'k': {}}");
	gives("{{ range }}{{ namespace(x=1).x }}", "{\"range\": \"mine\"}", "mine1");
	gives("{{ strftime_now('%Y-%m-%d %e|%-m|%-H|%A') }}", "{\"strftime_now\": \"2024-02-29\"}",
	      "2024-02-29 29|2|0|Thursday");
	gives("{{ strftime_now('%j %a %y %I%p') }}", "{\"strftime_now\": \"2000-12-31T12:00:00\"}", "366 Sun 00 12PM");
	gives("{% set n = namespace() %}{% set n.x = n %}ok", "{}", "ok");
	char *out;
	mzm_err err;
	assert_int_equal(render_text("{{ strftime_now('%Y') }}", "{\"strftime_now\": \"2023-02-29\"}", &out, &err),
			 MZM_EARG);
	assert_int_equal(render_text("{{ strftime_now('%Q') }}", "{\"strftime_now\": \"2023-02-28\"}", &out, &err),
			 MZM_EUNSUPPORTED);
	json_t *list = json_array();
	mzm_jinja *t;
	assert_int_equal(mzm_jinja_parse(&t, "x", 1, NULL), MZM_OK);
	assert_int_equal(mzm_jinja_render(t, list, &out, NULL, NULL), MZM_EARG);
	mzm_jinja_free(t);
	json_decref(list);
}

static void messages_name_the_line(void **state)
{
	(void)state;
	fails("a\nb\n{{ 1 + }}", MZM_EFORMAT, "line 3: ");
	fails("a\r\nb\r{% if a %}\n", MZM_EFORMAT, "endif is missing");
	fails("{{ a\n\n\n| nosuch }}", MZM_EUNSUPPORTED, "line 4: the filter nosuch is not supported");
	fails("\n{{ a is nosuch }}", MZM_EUNSUPPORTED, "line 2: the test nosuch is not supported");
	fails("{# a\n b #}\n{{ zz.y }}", MZM_EFORMAT, "line 3: zz is undefined");
	fails("{% for x in l %}\n{{ x.y.z }}\n{% endfor %}", MZM_EFORMAT, "line 2: y is undefined");
	fails("{% include 'x' %}", MZM_EUNSUPPORTED, "the tag include is not supported");
	fails("{% for x in l recursive %}{% endfor %}", MZM_EUNSUPPORTED, "recursive loops");
	fails("{% call a() %}{% endcall %}", MZM_EUNSUPPORTED, "the tag call");
	fails("{% macro m() %}{{ varargs }}{% endmacro %}", MZM_EUNSUPPORTED, "varargs is not supported");
	fails("{{ joiner(',') }}", MZM_EUNSUPPORTED, "joiner is not supported");
	fails("{{ 'a'.encode() }}", MZM_EUNSUPPORTED, "a method of a string");
	fails("{{ '%s' % 1 }}", MZM_EUNSUPPORTED, "formatting with %");
	fails("{{ 9223372036854775807 + 1 }}", MZM_EUNSUPPORTED, "beyond 64 bits");
	fails("{{ 99999999999999999999 }}", MZM_EUNSUPPORTED, "this number");
	fails("{{ a \xff }}", MZM_EFORMAT, "not UTF-8");
	fails("{{ raise_exception('why: ' ~ a) }}", MZM_EARG, "why: b");
}

static void whole_numbers_at_their_end(void **state)
{
	(void)state;
	const char *v = "{\"m\": -9223372036854775808, \"x\": 9223372036854775807, \"l\": [1, 2, 3], \"s\": \"abc\"}";
	gives("{{ m }} {{ x }} {{ x - 1 }} {{ m + 1 }} {{ m // 1 }} {{ x % -2 }}", v,
	      "-9223372036854775808 9223372036854775807 9223372036854775806 -9223372036854775807 -9223372036854775808 "
	      "-1");
	gives("{{ l[m:x] }}{{ l[x:m:-1] }}{{ l[m:] }}{{ s[m:x] }}{{ s[x:m:-1] }}{{ l[m] }}{{ l[x] }}{{ l[::x] }}", v,
	      "[1, 2, 3][3, 2, 1][1, 2, 3]abccba[1]");
	gives("{{ range(x - 1, x) | list }}{{ range(m, x, x) | length }}{{ range(x, m) | length }}", v,
	      "[9223372036854775806]30");
	gives("{{ 'a' * m }}{{ [1] * m }}{{ 'a'.split('b', m) }}{{ 'aa'.replace('a', 'b', m) }}", v, "[]['a']bb");
	const char *const refused[] = {"{{ m // -1 }}", "{{ -m }}", "{{ m | abs }}", "{{ x * 2 }}", "{{ 3 ** 99 }}",
				       "{{ m - 1 }}", "{{ l[::m] }}", "{{ range(0, 1, m) }}", "{{ m % -1 }}"};
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		char *out;
		mzm_err err;
		if (render_text(refused[i], v, &out, &err) == MZM_OK)
			fail_msg("%s gave %s", refused[i], out);
	}
}

/* ---- harm ---- */

static void stays_in_bounds(void **state)
{
	(void)state;
	static const char *const harmful[] = {
		"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
		"{% macro a(x) %}{{ b(x ~ 'x') }}{% endmacro %}{% macro b(x) %}{{ a(x) }}{% endmacro %}{{ a('') }}",
		"{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(30) }}",
		"{{ range(1000000000) }}",
		"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
		"{% for a in range(99999) %}{% for b in range(99999) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}"
		"{% endfor %}{% endfor %}",
		"{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
		"{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
		"{% set n = namespace(s=[1]) %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
		"{% set n = namespace(s=[1]) %}{% for a in range(9999) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
		"{{ n.s }}",
		"{% set n = namespace(s=[1]) %}{% for a in range(9999) %}{% set n.s = [n.s] %}{% endfor %}"
		"{{ n.s | tojson }}",
		"{% set n = namespace(s=[], t=[]) %}{% for a in range(9999) %}{% set n.s = [n.s] %}"
		"{% set n.t = [n.t] %}{% endfor %}{{ n.s == n.t }}",
		"{% set n = namespace(s=[1]) %}{% for a in range(40) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
		"{{ n.s == n.s }}{{ n.s < n.s }}",
		"{% set n = namespace(s=[], t=[]) %}{% for a in range(999) %}{% set n.s = [n.s, 1] %}"
		"{% set n.t = [n.t, 2] %}{% endfor %}{{ n.s < n.t }}",
		"{% set n = namespace() %}{% set n.x = n %}{{ n }}",
		"{{ 'x' * 999999999999 }}",
		"{{ [1] * 999999999999 }}",
		"{{ ('x' * 1000000) * 1000000 }}",
		"{{ ('x' * 60000000)[::-1] }}",
		"{{ ('x' * 30000000) | list }}",
		"{{ ('ab' * 9999999).replace('a', 'bbbbbbbbbbbbbbbb') }}",
		"{{ ('a' * 9999999).replace('', 'bbb') }}",
		"{{ ('a' * 30000000).rfind('a' * 10000000 ~ 'b') }}",
		"{{ ('a' * 9999999).strip('b' * 9999999 ~ 'a') }}",
		"{{ ('a,' * 9999999).split(',') }}",
		"{{ ('\\n' * 9999999) | indent(100, blank=true) }}",
		"{{ 'x' | indent(99999999) }}",
		"{{ range(100000) | map('string') | map('indent', 100000) | list }}",
		"{{ l | tojson(indent=99999999) }}",
		"{{ range(100000) | map('string') | unique | list | length }}",
		"{% set s = 'a' * 1000000 %}{% set d = {s: 1} %}{% for i in range(99999) %}{% if d[s ~ ''] %}"
		"{% endif %}{% endfor %}",
		"{% set s = 'a' * 30000000 %}{% for i in range(99999) %}{{ 'b' in s }}{% endfor %}",
		"{% set s = 'a' * 30000000 %}{% for i in range(99999) %}{{ s | length }}{% endfor %}",
		"{% set s = 'a' * 30000000 %}{% for i in range(99999) %}{% if s.startswith(s) %}{% endif %}"
		"{% endfor %}",
		"{% set s = ' ' * 30000000 %}{% for i in range(99999) %}{{ s | trim }}{% endfor %}",
		"{% set s = 'a' * 9000000 %}{% for i in range(99999) %}{{ s.upper() | length }}{% endfor %}",
		"{% for i in range(99999) %}{{ range(99999) | length }}{% endfor %}",
		"{% for i in range(99999) %}{{ l * 99999 == l }}{% endfor %}",
	};
	for (size_t i = 0; i < sizeof harmful / sizeof *harmful; i++) {
		char *out;
		mzm_err err;
		mzm_status st = render_text(harmful[i], "{\"l\": [1, {\"a\": []}]}", &out, &err);
		bool bound = strstr(err.message, " more than ") != NULL; /* and not by some other mistake */
		if (st != MZM_EFORMAT || !bound)
			fail_msg("%s: %s", harmful[i], out ? "was rendered" : err.message);
		assert_true(mzm_mem_live() < 1000);
	}
}

/* n times `open`, `middle`, n times `close`. */
static char *nested(const char *open, const char *middle, const char *close, size_t n)
{
	char *text = malloc(n * (strlen(open) + strlen(close)) + strlen(middle) + 1), *p = text;
	assert_non_null(text);
	for (size_t i = 0; i < n; i++)
		p = stpcpy(p, open);
	p = stpcpy(p, middle);
	for (size_t i = 0; i < n; i++)
		p = stpcpy(p, close);
	return text;
}

static void nesting_is_bounded(void **state)
{
	(void)state;
	static const char *const kinds[][3] = {
		{"{% if a %}", "x", "{% endif %}"},       {"{% for x in l %}", "x", "{% endfor %}"},
		{"{% macro m() %}", "x", "{% endmacro %}"}, {"{% set x %}", "x", "{% endset %}"},
		{"{{ (", "1", ") }}"},                    {"{{ [", "1", "] }}"},
		{"{% filter upper %}", "x", "{% endfilter %}"}, {"{% with %}", "x", "{% endwith %}"},
	};
	static const char *const inside[][3] = {
		{"(", "1", ")"},         {"[", "1", "]"},    {"{1: ", "1", "}"},   {"-", "1", ""},
		{"not ", "1", ""},       {"l[", "0", "]"},   {"range(", "1", ")"}, {"1 if 1 else ", "2", ""},
		{"", "a", ".x"},         {"", "a", "[0]"},   {"", "a", "()"},      {"", "a", "|trim"},
		{"", "a", " is string"}, {"", "a", " if a"}, {"a ~ (", "a", ")"},  {"a is in (", "a", ")"},
		{"l|map(", "a", ")"},    {"a(b=", "a", ")"},
	};
	char *out;
	mzm_err err;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		char *text = nested(kinds[i][0], kinds[i][1], kinds[i][2], 10000);
		assert_true(render_text(text, "{\"a\": 1}", &out, &err) == MZM_EFORMAT);
		free(text);
	}
	for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
		char *middle = nested(inside[i][0], inside[i][1], inside[i][2], 10000);
		char *text = nested("{{ ", middle, " }}", 1);
		if (render_text(text, "{\"a\": 1}", &out, &err) != MZM_EFORMAT)
			fail_msg("%s%s%s: %s", inside[i][0], inside[i][1], inside[i][2], err.message);
		free(middle);
		free(text);
	}
	char *chain = nested("{{ 1", " + 1 }}", "", 1); /* what is long but not deep is no harm */
	free(chain);
	chain = nested("1 + ", "1", " - 1", 10000);
	char *text = nested("{{ ", chain, " }}", 1);
	gives(text, "{}", "1");
	free(chain);
	free(text);
}

static void deep_variables(void **state)
{
	(void)state;
	char *deep = nested("[", "1", "]", 1500), *text = nested("{\"a\": ", deep, "}", 1), *out;
	mzm_err err;
	assert_int_equal(render_text("{{ a }}", text, &out, &err), MZM_EFORMAT);
	gives("untouched", text, "untouched");
	free(deep);
	free(text);
}

static void long_templates(void **state)
{
	(void)state;
	size_t n = MZM_JINJA_MAX_TEXT;
	char *text = malloc(2 * n + 1), *out;
	assert_non_null(text);
	memset(text, 'x', 2 * n);
	text[2 * n] = 0;
	mzm_err err;
	assert_int_equal(render_text(text, "{}", &out, &err), MZM_EUNSUPPORTED);
	text[n] = 0;
	gives(text, "{}", text);
	static const char *const units[] = {"{{a}}",
					    "{#",
					    "{%",
					    "{{",
					    "{% if a %}",
					    "((",
					    "'",
					    "{{a|",
					    "a.",
					    "\n",
					    "{# #}",
					    "{{[a,a,a,a,a,a,a]}}",
					    "{%if a%}{%endif%}",
					    "{%raw%}{%endraw%}",
					    "{%raw%}",
					    "{{'\\x41'}}",
					    "{%set a=a%}",
					    "{{- a -}} ",
					    "{% endraw",
					    "{{ a ~ 'b' }}",
					    "{{a+a*a-a}}"};
	for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
		size_t len = strlen(units[i]);
		for (size_t at = 0; at + len <= n; at += len)
			memcpy(text + at, units[i], len);
		text[n / len * len] = 0;
		mzm_status st = render_text(text, "{\"a\": 1}", &out, &err);
		assert_true(st == MZM_OK || st == MZM_EFORMAT);
		mzm_free(out);
	}
	free(text);
}

/* Every beginning of every vector, with what Jinja2 needs to say about none of them. */
static void every_truncation(void **state)
{
	(void)state;
	char line[8192];
	FILE *f = fopen("tests/data/jinja_vectors.jsonl", "r");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof line, f));
	json_t *head = json_loads(line, 0, NULL), *data = json_object_get(head, "data");
	size_t live = mzm_mem_live();
	while (fgets(line, sizeof line, f)) {
		json_t *vector = json_loads(line, JSON_ALLOW_NUL, NULL);
		const char *text = json_string_value(json_object_get(vector, "t"));
		for (size_t n = strlen(text); n-- > 0;) {
			char *out, *cut = malloc(n + 1); /* of its own, so that reading behind it is seen */
			size_t len;
			mzm_err err = {0};
			assert_non_null(cut);
			memcpy(cut, text, n);
			render(cut, n, data, &out, &len, &err);
			mzm_free(out);
			free(cut);
		}
		json_decref(vector);
	}
	fclose(f);
	json_decref(head);
	assert_int_equal(mzm_mem_live(), live);
}

/* Vectors with characters exchanged at random: no template is rendered differently in two runs, and none does harm. */
static void mutations(void **state)
{
	(void)state;
	static const char signs[] = "{}%#'\"-+|.,:()[] \n\\=<>!~*/09aifn";
	char line[8192];
	uint64_t seed = 7;
	FILE *f = fopen("tests/data/jinja_vectors.jsonl", "r");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof line, f));
	json_t *head = json_loads(line, 0, NULL), *data = json_object_get(head, "data");
	long turns = testing_count(20, 2000);
	while (fgets(line, sizeof line, f)) {
		json_t *vector = json_loads(line, JSON_ALLOW_NUL, NULL);
		const char *text = json_string_value(json_object_get(vector, "t"));
		for (long i = 0; i < turns && *text; i++) {
			char *copy = strdup(text), *out;
			size_t n = strlen(copy), len;
			mzm_err err = {0};
			for (uint64_t k = 0; k < 1 + testing_random(&seed) % 3; k++)
				copy[testing_random(&seed) % n] = signs[testing_random(&seed) % (sizeof signs - 1)];
			render(copy, n, data, &out, &len, &err);
			mzm_free(out);
			free(copy);
		}
		json_decref(vector);
	}
	fclose(f);
	json_decref(head);
}

static void memory_runs_out(void **state)
{
	(void)state;
	static const char text[] = "{% macro m(a, b=2) %}{{ a ~ b }}{% endmacro %}{% set ns = namespace(x='') %}{% for "
				   "k, v in d | dictsort if v %}"
				   "{% set ns.x = ns.x + m(k) + v | tojson(indent=1) %}{% endfor %}{{ ns.x }}{{ l | "
				   "sort | map('string') | join(',') }}"
				   "{{ s.split(',') | unique | list }}{% set y %}{{ s.upper().replace('A', 'b') }}{% "
				   "endset %}{{ y[::-1] }}{{ [1, 2] * 999 }}";
	json_t *v = json_loads("{\"d\": {\"b\": 1, \"a\": [1]}, \"l\": [2, 1], \"s\": \"a,b,a\"}", 0, NULL);
	assert_non_null(v);
	size_t live = mzm_mem_live(), len;
	long k = 1;
	for (;; k++) {
		char *out;
		mzm_err err = {0};
		mzm_mem_fail_nth(k);
		mzm_status st = render(text, sizeof text - 1, v, &out, &len, &err);
		bool done = mzm_mem_fail_nth(0) < k;
		mzm_free(out);
		assert_int_equal(st, done ? MZM_OK : MZM_ENOMEM);
		assert_int_equal(mzm_mem_live(), live);
		if (done)
			break;
	}
	assert_true(k > 5);
	json_decref(v);
}

/* What is appended to costs its own length, not that of all before it. */
static void long_texts_in_linear_time(void **state)
{
	(void)state;
	gives("{% set ns = namespace(s='') %}{% for i in range(20000) %}{% set ns.s = ns.s + 'abcdefgh' %}{% endfor %}"
	      "{{ ns.s | length }}", "{}", "160000");
	gives("{% set x %}{% for i in range(99999) %}{{ 'abcdefghij' }}{% endfor %}{% endset %}{{ x | length }}", "{}",
	      "999990");
	gives("{{ (['abcdefghij'] * 99999) | join('-') | length }}", "{}", "1099988");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_jinja2_does),
		cmocka_unit_test(variables_of_all_kinds),
		cmocka_unit_test(messages_name_the_line),
		cmocka_unit_test(whole_numbers_at_their_end),
		cmocka_unit_test(stays_in_bounds),
		cmocka_unit_test(nesting_is_bounded),
		cmocka_unit_test(deep_variables),
		cmocka_unit_test(long_templates),
		cmocka_unit_test(every_truncation),
		cmocka_unit_test(mutations),
		cmocka_unit_test(memory_runs_out),
		cmocka_unit_test(long_texts_in_linear_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
