/* test_tokenizer_wordpiece.c - WordPiece and what stands around it in BERT's files: normaliser, words, decoder. The
 * published vocabulary is in test_gguf_tokenizer.c. */
#include "testing.h"

#include "base/str.h"
#include "format/tokenizer_impl.h"

/* Ids by place: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, then the words. */
static const char *const words[] = {"[PAD]",
				    "[UNK]",
				    "[CLS]",
				    "[SEP]",
				    "hello",
				    "world",
				    "un",
				    "##want",
				    "##ed",
				    "runn",
				    "##ing",
				    "!",
				    ",",
				    ".",
				    "how",
				    "are",
				    "you",
				    "?",
				    "don",
				    "'",
				    "##t",
				    "t",
				    "s",
				    "\xe5\x8d\x9a",
				    "\xe6\x8e\xa8",
				    "ah",
				    "zz",
				    "h\xc3\xa4llo",
				    "Hello",
				    "##\xc3\xa9",
				    "caf",
				    "'s",
				    "a",
				    "##a"};
#define N_WORDS ((int)(sizeof words / sizeof *words))

/* JSON is easier to read here with ' for "; words that hold a ' stand between ". -> mzm_str_free */
static mzm_str make_json(const char *normalizer, const char *members)
{
	mzm_str s = {0};
	mzm_str_printf(&s,
		       "{'added_tokens':[{'id':2,'content':'[CLS]','special':true},"
		       "{'id':3,'content':'[SEP]','special':true}],'normalizer':%s,"
		       "'pre_tokenizer':{'type':'BertPreTokenizer'},'decoder':{'type':'WordPiece'},"
		       "'post_processor':{'type':'BertProcessing','cls':['[CLS]',2],'sep':['[SEP]',3]},"
		       "'model':{'type':'WordPiece',%s'vocab':{",
		       normalizer, members);
	for (int i = 0; i < N_WORDS; i++)
		mzm_str_printf(&s, strchr(words[i], '\'') ? "%s\"%s\":%d" : "%s'%s':%d", i ? "," : "", words[i], i);
	mzm_str_puts(&s, "}}}");
	bool inside = false;
	for (char *c = s.data; *c; c++) {
		inside ^= *c == '"';
		if (*c == '\'' && !inside)
			*c = '"';
	}
	return s;
}

static mzm_status parse(mzm_tokenizer **tok, const char *normalizer, const char *members, mzm_err *err)
{
	mzm_str s = make_json(normalizer, members);
	mzm_status st = mzm_tokenizer_parse(tok, s.data, s.len, NULL, 0, "test", err);
	mzm_str_free(&s);
	return st;
}

static mzm_tokenizer *must_parse(const char *normalizer, const char *members)
{
	mzm_err err = {0};
	mzm_tokenizer *tok;
	if (parse(&tok, normalizer, members, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return tok;
}

/* Tokens with blanks between. */
static const char *tokens_of(const mzm_tokenizer *tok, const char *text, unsigned flags)
{
	static char out[4096];
	int32_t *ids;
	size_t n, used = 0;
	mzm_err err = {0};
	if (mzm_tokenize(tok, text, strlen(text), flags, &ids, &n, &err) != MZM_OK)
		fail_msg("%s", err.message);
	out[0] = 0;
	for (size_t i = 0; i < n && used < sizeof out - 64; i++)
		used += (size_t)snprintf(out + used, 64, i ? " %s" : "%s", mzm_token_content(tok, ids[i]));
	mzm_ids_free(ids);
	return out;
}

#define BERT(members)       "{'type':'BertNormalizer'" members "}"
#define CHECK(text, tokens) assert_string_equal(tokens_of(tok, text, 0), tokens)

static void test_pieces(void **state)
{
	(void)state;
	mzm_tokenizer *tok = must_parse(BERT(""), "");
	CHECK("", "");
	CHECK("unwanted running", "un ##want ##ed runn ##ing");
	CHECK("unwantedX running", "[UNK] runn ##ing"); /* all of a word, or nothing */
	CHECK("aaaa", "a ##a ##a ##a");
	CHECK("[UNK]", "[UNK] [UNK] [UNK]"); /* three words, none of them known */
	CHECK("a[CLS]a", "a [UNK] [UNK] [UNK] a");
	assert_string_equal(tokens_of(tok, "a[CLS]a", MZM_TOK_PARSE_SPECIAL), "a [CLS] a");
	assert_string_equal(tokens_of(tok, "hello", MZM_TOK_ADD_SPECIAL), "[CLS] hello [SEP]");
	CHECK("a\xff\xfe"
	      "a",
	      "a [UNK] a"); /* invalid bytes are one unknown word */
	mzm_tokenizer_close(tok);
	tok = must_parse(BERT(""), "'max_input_chars_per_word':3,");
	CHECK("aaa aaaa", "a ##a ##a [UNK]");
	mzm_tokenizer_close(tok);
	tok = must_parse(BERT(""), "'continuing_subword_prefix':'',");
	CHECK("aaworld", "a a world");
	mzm_tokenizer_close(tok);
	tok = must_parse(BERT(""), "'continuing_subword_prefix':'@@',");
	CHECK("aa a", "[UNK] a");
	mzm_tokenizer_close(tok);
}

/* The examples are those of BERT's own tests. */
static void test_normalizer(void **state)
{
	(void)state;
	mzm_tokenizer *tok = must_parse(BERT(""), "");
	CHECK(" \tHeLLo!how  \n Are yoU?  ", "hello ! how are you ?");
	CHECK("H\xc3\xa9llo", "hello");
	CHECK("ah\xe5\x8d\x9a\xe6\x8e\xa8zz", "ah \xe5\x8d\x9a \xe6\x8e\xa8 zz");
	CHECK("he\xc2\xadl\x01lo\xe2\x80\x8b \xef\xbf\xbd\x7f", "hello"); /* controls, U+00AD, U+200B, U+FFFD */
	CHECK("hello\xc2\xa0world\xe3\x80\x80you\xe2\x80\xa8"
	      "a",
	      "hello world you a");          /* blanks of all kinds */
	CHECK("hel\x0blo\xc2\x85", "hello"); /* these are controls */
	mzm_tokenizer_close(tok);
	tok = must_parse(BERT(",'strip_accents':false"), "");
	CHECK("H\xc3\xa4LLo caf\xc3\x89", "h\xc3\xa4llo caf ##\xc3\xa9");
	mzm_tokenizer_close(tok);
	tok = must_parse(BERT(",'lowercase':false"), "");
	CHECK("Hello hello h\xc3\xa4llo", "Hello hello h\xc3\xa4llo");
	mzm_tokenizer_close(tok);
	tok = must_parse(BERT(",'lowercase':false,'strip_accents':true"), "");
	CHECK("H\xc3\xa9llo", "Hello");
	mzm_tokenizer_close(tok);
	tok = must_parse(BERT(",'handle_chinese_chars':false"), "");
	CHECK("ah\xe5\x8d\x9a", "[UNK]");
	mzm_tokenizer_close(tok);
	tok = must_parse(BERT(",'clean_text':false"), "");
	CHECK("he\x01llo", "[UNK]");
	mzm_tokenizer_close(tok);
	tok = must_parse(
		"{'type':'Sequence','normalizers':[{'type':'NFD'},{'type':'StripAccents'},{'type':'Lowercase'}]}", "");
	CHECK("H\xc3\xa9LLo", "hello");
	mzm_tokenizer_close(tok);
}

static void check_text(const mzm_tokenizer *tok, const char *text, const char *want)
{
	int32_t *ids;
	size_t n, len;
	char *back;
	assert_int_equal(mzm_tokenize(tok, text, strlen(text), MZM_TOK_ADD_SPECIAL, &ids, &n, NULL), MZM_OK);
	assert_int_equal(mzm_detokenize(tok, ids, n, &back, &len, NULL), MZM_OK);
	assert_string_equal(back, want);
	mzm_string_free(back);
	mzm_ids_free(ids);
}

static void test_decoder(void **state)
{
	(void)state;
	mzm_tokenizer *tok = must_parse(BERT(""), "");
	check_text(tok, "Hello, world!", "hello, world!");
	check_text(tok, "unwanted  RUNNING?", "unwanted running?");
	check_text(tok, "don't", "don ' t");
	check_text(tok, ". . .", "...");
	mzm_tokenizer_close(tok);
}

static void test_refused(void **state)
{
	static const char *const cases[][2] = {{"'unk_token':'nope',", "unk_token \"nope\" is not in the vocabulary"},
					       {"'max_input_chars_per_word':0,", "max_input_chars_per_word"},
					       {"'continuing_subword_prefix':7,", "continuing_subword_prefix"}};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		mzm_err err = {0};
		mzm_tokenizer *tok;
		assert_int_equal(parse(&tok, BERT(""), cases[i][0], &err), MZM_EFORMAT);
		if (!strstr(err.message, cases[i][1]))
			fail_msg("%s", err.message);
	}
	mzm_err err = {0};
	mzm_tokenizer *tok;
	assert_int_equal(parse(&tok, BERT(",'lowercase':1"), "", &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "BertNormalizer"));
}

static void test_no_memory(void **state)
{
	mzm_str json = make_json(BERT(""), "");
	size_t live = mzm_mem_live();
	bool failed = true;
	(void)state;
	for (long k = 1; failed; k++) {
		mzm_tokenizer *tok = NULL;
		int32_t *ids = NULL;
		size_t n;
		mzm_mem_fail_nth(k);
		mzm_status st = mzm_tokenizer_parse(&tok, json.data, json.len, NULL, 0, "test", NULL);
		if (st == MZM_OK)
			st = mzm_tokenize(tok, "H\xc3\xa9llo \xe5\x8d\x9a", 10, 0, &ids, &n, NULL);
		failed = mzm_mem_fail_nth(0) >= k;
		assert_int_equal(st, failed ? MZM_ENOMEM : MZM_OK);
		mzm_ids_free(ids);
		mzm_tokenizer_close(tok);
		assert_int_equal(mzm_mem_live(), live);
		assert_true(k < 10000);
	}
	mzm_str_free(&json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),  cmocka_unit_test(test_normalizer), cmocka_unit_test(test_decoder),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
