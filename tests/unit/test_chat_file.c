/* test_chat_file.c - a chat template from a file of its own in the text of tokenizer_config.json. */
#include "testing.h"

#include "format/chat.h"
#include "format/chat_file.h"

#define TEMPLATE "{{ \"say \\\"\" ~ messages[0].content ~ bos_token }}\n\xe2\x82\xac"

static char *copy(const char *text, size_t *len)
{
	*len = text ? strlen(text) : 0;
	return text ? mzm_strdup(text) : NULL;
}

/* The text that comes of config is one that renders by want. */
static void assert_renders(const char *config, const char *want)
{
	static const char *const roles[] = {"user"}, *const contents[] = {"hi"};
	mzm_chat_template *t;
	mzm_err err = {0};
	size_t len, n;
	char *text = copy(config, &len), *got;
	if (mzm_chat_add_template(&text, &len, TEMPLATE, strlen(TEMPLATE), &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(strlen(text), len);
	if (mzm_chat_template_create(&t, text, len, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(mzm_chat_template_render(t, roles, contents, 1, true, NULL, &got, &n, NULL), MZM_OK);
	assert_string_equal(got, want);
	mzm_free(got);
	mzm_chat_template_free(t);
	mzm_free(text);
}

static void test_joined(void **state)
{
	(void)state;
	assert_renders(NULL, "say \"hi\n\xe2\x82\xac");
	assert_renders("{}", "say \"hi\n\xe2\x82\xac");
	assert_renders(" \n{ }", "say \"hi\n\xe2\x82\xac");
	assert_renders("{\"bos_token\": \"<s>\", \"model_max_length\": 1000000000000000019884624838656}",
		       "say \"hi<s>\n\xe2\x82\xac");
	assert_renders("{\"chat_template\": \"its own\"}", "its own");
}

static void test_the_rest_stays(void **state)
{
	static const char rest[] = "\"a\": 1000000000000000019884624838656, \"b\": [1, 2.50]}\n";
	char config[128];
	size_t len;
	(void)state;
	snprintf(config, sizeof config, "{%s", rest);
	char *text = copy(config, &len);
	assert_int_equal(mzm_chat_add_template(&text, &len, "x", 1, NULL), MZM_OK);
	snprintf(config, sizeof config, "{\"chat_template\": \"x\", %s", rest);
	assert_string_equal(text, config);
	mzm_free(text);
}

static void test_refused(void **state)
{
	static const struct {
		const char *config, *template, *why;
	} cases[] = {
		{"[1]", "x", "not an object"}, {"{", "x", "tokenizer_config.json"},
		{"\"{\"", "x", "tokenizer_config.json"}, {"{}", "\xff", "UTF-8"}, {NULL, "a\xc3", "UTF-8"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		mzm_err err = {0};
		size_t len;
		char *text = copy(cases[i].config, &len);
		size_t n = strlen(cases[i].template);
		assert_int_equal(mzm_chat_add_template(&text, &len, cases[i].template, n, &err), MZM_EFORMAT);
		assert_non_null(strstr(err.message, cases[i].why));
		if (text)
			assert_string_equal(text, cases[i].config);
		mzm_free(text);
	}
	char *none = NULL;
	size_t len = 0;
	assert_int_equal(mzm_chat_add_template(&none, &len, "a\0b", 3, NULL), MZM_EFORMAT);
	assert_null(none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_joined),
		cmocka_unit_test(test_the_rest_stays),
		cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests_name("chat_file", tests, NULL, NULL);
}
