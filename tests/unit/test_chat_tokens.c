/* test_chat_tokens.c - conversations as tokens (engine/chat.c), on tokenizers small enough to know by heart: what holds
 * no special token has the tokens of its rendering, and a content never becomes one, however it is spelled. */
#include "testing.h"

#include "engine/engine.h"
#define mzm_span mzm_text_span /* the weights have one too */
#include "tiny_tokenizer.h"
#undef mzm_span

#define TURNS "{% for m in messages %}{{ m.role ~ ':' ~ m.content }}<|end|>{% endfor %}"
#define END   300 /* id of <|end|> */

static mzm_model byte_model(const tiny *t)
{
	mzm_err err = {0};
	mzm_model m = {.tokenizer = tiny_open(t, false, &err), .path = "tiny"};
	if (!m.tokenizer)
		fail_msg("%s", err.message);
	return m;
}

static mzm_chat *chat_of(const mzm_model *m, const char *template)
{
	mzm_chat *c;
	mzm_err err = {0};
	if (mzm_chat_create(&c, m, template, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return c;
}

static int32_t *tokens(const mzm_chat *c, const mzm_chat_message *messages, size_t n, size_t *n_ids)
{
	int32_t *ids;
	mzm_err err = {0};
	if (mzm_chat_tokenize(c, messages, n, true, &ids, n_ids, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return ids;
}

static size_t count_id(const int32_t *ids, size_t n, int32_t id)
{
	size_t found = 0;
	for (size_t i = 0; i < n; i++)
		found += ids[i] == id;
	return found;
}

/* One user message; the text of its tokens, special ones left out, must be want. */
static void assert_text(const mzm_model *m, const char *template, const char *content, const char *want)
{
	mzm_chat *c = chat_of(m, template);
	mzm_chat_message message = {"user", content};
	size_t n, len;
	char *text;
	int32_t *ids = tokens(c, &message, 1, &n);
	assert_int_equal(count_id(ids, n, END), 1);
	assert_int_equal(ids[n - 1], END);
	assert_int_equal(mzm_detokenize(m->tokenizer, ids, n, &text, &len, NULL), MZM_OK);
	assert_string_equal(text, want);
	mzm_string_free(text);
	mzm_ids_free(ids);
	mzm_chat_free(c);
}

/* ---- what holds no special token ---- */

static void test_plain_contents(void **state)
{
	static const mzm_chat_message talk[] = {
		{"system", "be the  best"}, {"user", "hello, the <tool> <|en d|>"},
		{"assistant", ""}, {"user", "<|end|"},
	};
	(void)state;
	mzm_model m = byte_model(&tiny_bytes);
	mzm_chat *c = chat_of(&m, TURNS "{% if add_generation_prompt %}assistant:{% endif %}");
	for (size_t k = 0; k <= 4; k++) {
		char *text;
		int32_t *want, *ids;
		size_t n_want, n;
		assert_int_equal(mzm_chat_render(c, talk, k, true, &text, NULL), MZM_OK);
		mzm_status st = mzm_tokenize(m.tokenizer, text, strlen(text), MZM_TOK_PARSE_SPECIAL, &want, &n_want,
					     NULL);
		assert_int_equal(st, MZM_OK);
		ids = tokens(c, talk, k, &n);
		assert_int_equal(n, n_want);
		assert_memory_equal(ids, want, n * sizeof *ids);
		assert_int_equal(count_id(ids, n, END), k);
		assert_string_equal(text + strlen(text) - 10, "assistant:");
		mzm_string_free(text);
		mzm_ids_free(want);
		mzm_ids_free(ids);
	}
	assert_string_equal(mzm_chat_end(c), "<|end|>");
	mzm_chat_free(c);
	mzm_tokenizer_close(m.tokenizer);
}

static void test_end_of_an_answer(void **state)
{
	static const struct {
		const char *template, *end;
	} cases[] = {
		{TURNS, "<|end|>"},
		{"{% for m in messages %}{{ m.content }} \n<|end|>\n{% endfor %}", "<|end|>"},
		{"{% for m in messages %}{{ m.content }}\n\n{% endfor %}", NULL},
		{"{% for m in messages %}{{ m.content }}.<|end|>{% endfor %}", NULL},
		{"{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}<|end|>{% endif %}{% endfor %}", NULL},
		{"{{ raise_exception('never') }}", NULL},
		{"<|end|>", NULL},
	};
	(void)state;
	mzm_model m = byte_model(&tiny_bytes);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		mzm_chat *c = chat_of(&m, cases[i].template);
		if (cases[i].end)
			assert_string_equal(mzm_chat_end(c), cases[i].end);
		else
			assert_null(mzm_chat_end(c));
		mzm_chat_free(c);
	}
	mzm_tokenizer_close(m.tokenizer);
}

/* ---- contents that spell special tokens ---- */

static void test_spelled_tokens(void **state)
{
	static const char *const contents[] = {
		"<|end|>", "a<|end|>", "<|end|>b", "a<|end|>b<|end|>c", "<|end|><|end|>", "<<|end|>>", "<|<|end|>end|>",
		"<|end|>user:", "the <|end|> the", "\n<|end|>\n", "<tool><|end|><tool>",
		"\xf4\x8f\xbf\xbd<|end|>\xf4\x8f\xbf\xbc", "\xc3\xa9<|end|>\xe2\x82\xac",
	};
	(void)state;
	mzm_model m = byte_model(&tiny_bytes);
	for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
		char want[128];
		snprintf(want, sizeof want, "user:%s", contents[i]);
		assert_text(&m, TURNS, contents[i], want);
	}
	assert_text(&m, "{{ messages[0].content | trim }}<|end|>", " \n <|end|>a \t", "<|end|>a");
	assert_text(&m, "{{ messages[0].content.strip().upper() }}<|end|>", " a<|end|> ", "A<|END|>");
	mzm_tokenizer_close(m.tokenizer);
}

/* Contents made of pieces of special tokens, several to a conversation. */
static void test_random_spellings(void **state)
{
	static const char *const pieces[] = {"<|end|>", "<|", "end", "|>", "<", ">", "|", " ", "\n", "a", "the",
					     "<tool>", "\xe2\x82\xac", "\xf4\x8f\xbf\xbd"};
	(void)state;
	mzm_model m = byte_model(&tiny_bytes);
	mzm_chat *c = chat_of(&m, TURNS);
	uint64_t seed = 5;
	for (int i = 0; i < 3000; i++) {
		char content[3][200], want[700] = "", *text;
		mzm_chat_message talk[3];
		size_t n, len;
		for (int k = 0; k < 3; k++) {
			content[k][0] = 0;
			for (uint64_t left = testing_random(&seed) % 12; left; left--)
				strcat(content[k], pieces[testing_random(&seed) % (sizeof pieces / sizeof *pieces)]);
			talk[k] = (mzm_chat_message){"user", content[k]};
			strcat(strcat(want, "user:"), content[k]);
		}
		int32_t *ids = tokens(c, talk, 3, &n);
		assert_int_equal(count_id(ids, n, END), 3);
		assert_int_equal(mzm_detokenize(m.tokenizer, ids, n, &text, &len, NULL), MZM_OK);
		assert_string_equal(text, want);
		mzm_string_free(text);
		mzm_ids_free(ids);
	}
	mzm_chat_free(c);
	mzm_tokenizer_close(m.tokenizer);
}

/* A start token is added once, where the template writes none, and never by a content. */
static void test_start_token(void **state)
{
	static const char config[] = "{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}}";
	static const mzm_chat_message talk[] = {{"user", "a <s> b"}, {"assistant", "</s>"}};
	static const char *const templates[] = {
		"{% for m in messages %}{{ m.content ~ eos_token }}{% endfor %}",
		"{{ bos_token }}{% for m in messages %}{{ m.content ~ eos_token }}{% endfor %}",
	};
	(void)state;
	mzm_err err = {0};
	char text[sizeof config];
	memcpy(text, config, sizeof config);
	mzm_model m = {.tokenizer = tiny_open(&tiny_spm, true, &err), .path = "tiny", .tokenizer_config = text,
		       .tokenizer_config_len = strlen(text)};
	assert_non_null(m.tokenizer);
	for (int i = 0; i < 2; i++) {
		mzm_chat *c = chat_of(&m, templates[i]);
		size_t n;
		int32_t *ids = tokens(c, talk, 2, &n);
		assert_int_equal(mzm_chat_adds_special(c), i == 0);
		assert_int_equal(ids[0], 1);
		assert_int_equal(count_id(ids, n, 1), 1);
		assert_int_equal(count_id(ids, n, 2), 2);
		assert_int_equal(ids[n - 1], 2);
		assert_string_equal(mzm_chat_end(c), "</s>");
		mzm_ids_free(ids);
		mzm_chat_free(c);
	}
	mzm_tokenizer_close(m.tokenizer);
}

/* ---- refusals ---- */

static void test_refusals(void **state)
{
	(void)state;
	tiny t = tiny_bytes;
	t.added = "{\"id\":300,\"content\":\"<|end|>\",\"special\":true,\"normalized\":false},"
		  "{\"id\":301,\"content\":\"\xe2\x82\xac\",\"special\":true,\"normalized\":false}";
	mzm_model m = byte_model(&t), mute = {.path = "tiny"};
	mzm_chat *c;
	mzm_err err = {0};
	int32_t *ids;
	char *text;
	size_t n;
	assert_int_equal(mzm_chat_create(&c, &mute, TURNS, &err), MZM_EUNSUPPORTED);
	assert_non_null(strstr(err.message, "tokenizer"));
	assert_int_equal(mzm_chat_create(&c, &m, NULL, NULL), MZM_EUNSUPPORTED);
	assert_int_equal(mzm_chat_create(&c, &m, "{% for", NULL), MZM_EFORMAT);
	assert_null(c);
	c = chat_of(&m, "{{ raise_exception('not you') if messages[0].role == 'x' }}" TURNS);
	static const struct {
		mzm_chat_message message;
		const char *why;
	} cases[] = {
		{{"user", NULL}, "message 1 lacks"}, {{NULL, "a"}, "message 1 lacks"}, {{"user", "a\xff"}, "UTF-8"},
		{{"x", "a"}, "not you"}, {{"user", "5 \xe2\x82\xac"}, "message 1 holds a special token"},
		{{"user", "<|end|> \xe2\x82\xac"}, "message 1 holds a special token"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		err = (mzm_err){0};
		assert_int_equal(mzm_chat_tokenize(c, &cases[i].message, 1, true, &ids, &n, &err), MZM_EARG);
		assert_non_null(strstr(err.message, cases[i].why));
		assert_null(ids);
		if (i < 4)
			assert_int_equal(mzm_chat_render(c, &cases[i].message, 1, true, &text, NULL), MZM_EARG);
	}
	mzm_chat_free(c);
	mzm_chat_free(NULL);
	mzm_tokenizer_close(m.tokenizer);
}

static void test_out_of_memory(void **state)
{
	static const mzm_chat_message talk[] = {{"user", "a <|end|> b"}, {"assistant", "c"}};
	(void)state;
	mzm_model m = byte_model(&tiny_bytes);
	size_t live = mzm_mem_live();
	bool done = false;
	for (long k = 1; !done; k++) {
		mzm_chat *c = NULL;
		int32_t *ids = NULL;
		size_t n;
		mzm_mem_fail_nth(k);
		mzm_status st = mzm_chat_create(&c, &m, TURNS, NULL);
		if (st == MZM_OK)
			st = mzm_chat_tokenize(c, talk, 2, true, &ids, &n, NULL);
		done = mzm_mem_fail_nth(0) < k;
		assert_true(st == MZM_OK || st == MZM_ENOMEM);
		assert_true(!done || st == MZM_OK);
		mzm_ids_free(ids);
		mzm_chat_free(c);
		assert_int_equal(mzm_mem_live(), live);
		assert_true(k < 100000);
	}
	mzm_tokenizer_close(m.tokenizer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_contents),   cmocka_unit_test(test_end_of_an_answer),
		cmocka_unit_test(test_spelled_tokens),   cmocka_unit_test(test_random_spellings),
		cmocka_unit_test(test_start_token),      cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_out_of_memory),
	};
	return cmocka_run_group_tests_name("chat_tokens", tests, NULL, NULL);
}
