/* test_tokenizer_open.c - a tokenizer from a path: a file, a directory with and without tokenizer_config.json, a
 * container, and what is none of these. */
#include "testing.h"

#include "base/io.h"
#include "tiny_tokenizer.h"

static void write_in(const char *dir, const char *name, const char *text)
{
	char path[512];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	testing_write(path, text, strlen(text));
}

static size_t n_with_special(const char *path)
{
	mzm_tokenizer *tok;
	mzm_err err = {0};
	int32_t *ids;
	size_t n;
	if (mzm_tokenizer_open(&tok, path, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(mzm_tokenize(tok, "the", 3, MZM_TOK_ADD_SPECIAL, &ids, &n, NULL), MZM_OK);
	mzm_ids_free(ids);
	mzm_tokenizer_close(tok);
	return n;
}

static void refused(const char *path, mzm_status want, const char *words)
{
	mzm_tokenizer *tok = (mzm_tokenizer *)(uintptr_t)1;
	mzm_err err = {0};
	size_t live = mzm_mem_live();
	mzm_status st = mzm_tokenizer_open(&tok, path, &err);
	if (st != want || !strstr(err.message, words))
		fail_msg("status %d, message \"%s\"; wanted %d, \"%s\"", (int)st, err.message, (int)want, words);
	assert_null(tok);
	assert_int_equal(mzm_mem_live(), live);
}

static void test_paths(void **state)
{
	char dir[256], path[512];
	mzm_str json = tiny_json(&tiny_bytes, false);
	(void)state;
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/tokenizer.json", dir);
	refused(path, MZM_EIO, "tokenizer.json");
	refused(dir, MZM_EFORMAT, "tokenizer.json");
	write_in(dir, "tokenizer.json", json.data);
	assert_int_equal(n_with_special(path), 2);
	assert_int_equal(n_with_special(dir), 2);
	write_in(dir, "tokenizer_config.json", "{\"add_bos_token\":true,\"bos_token\":\"<|end|>\"}");
	assert_int_equal(n_with_special(dir), 3);
	assert_int_equal(n_with_special(path), 2); /* the file alone */
	write_in(dir, "tokenizer_config.json", "{");
	refused(dir, MZM_EFORMAT, "tokenizer_config.json");
	write_in(dir, "tokenizer.json", " \n{\"model\":7}");
	refused(path, MZM_EFORMAT, "tokenizer.json: \"model\" is not an object");
	mzm_str_free(&json);
	testing_remove(dir);
}

static void test_no_tokenizer(void **state)
{
	char dir[256], path[512];
	(void)state;
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/x", dir);
	write_in(dir, "x", "");
	refused(path, MZM_EFORMAT, "x");
	write_in(dir, "x",
		 "\x7f"
		 "ELF, not a model at all");
	refused(path, MZM_EFORMAT, "x");
	write_in(dir, "x", "[1]");
	refused(path, MZM_EFORMAT, "x");
	refused("/dev/null", MZM_EIO, "/dev/null");
	testing_remove(dir);
}

static void check_text(const char *dir, const char *text, unsigned flags, const int32_t *want, size_t n_want)
{
	mzm_tokenizer *tok;
	mzm_err err = {0};
	int32_t *ids;
	size_t n;
	if (mzm_tokenizer_open(&tok, dir, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(mzm_tokenize(tok, text, strlen(text), flags, &ids, &n, NULL), MZM_OK);
	assert_int_equal(n, n_want);
	assert_memory_equal(ids, want, n * sizeof *ids);
	mzm_ids_free(ids);
	mzm_tokenizer_close(tok);
}

#define CHECK_IDS(dir, text, flags, ...)                                                     \
	do {                                                                                 \
		const int32_t want_[] = {__VA_ARGS__};                                       \
		check_text(dir, text, flags, want_, sizeof want_ / sizeof *want_);           \
	} while (0)

#define BOTH (MZM_TOK_ADD_SPECIAL | MZM_TOK_PARSE_SPECIAL)

/* A vocabulary and merges in two files, and what other files say about them. */
static void test_pair(void **state)
{
	char dir[256];
	(void)state;
	testing_temp_dir(dir);
	write_in(dir, "vocab.json", "{\"<s>\":0,\"</s>\":1,\"<mask>\":2,\"a\":3,\"b\":4,\"ab\":5,\"\xc4\xa0\":6}");
	refused(dir, MZM_EFORMAT, "or vocab.json with merges.txt");
	write_in(dir, "merges.txt", "#version: 0.2\r\na b\r\n\n");
	CHECK_IDS(dir, "ab<s> a", BOTH, 5, 0, 6, 3); /* special by their usual names */
	CHECK_IDS(dir, "a <mask>", BOTH, 3, 2);     /* which takes the blanks before it */
	write_in(dir, "tokenizer_config.json", "{\"tokenizer_class\":\"RobertaTokenizer\",\"add_prefix_space\":true}");
	CHECK_IDS(dir, "ab", BOTH, 0, 6, 5, 1);
	write_in(dir, "tokenizer_config.json", "{\"add_bos_token\":true,\"bos_token\":{\"content\":\"</s>\"}}");
	CHECK_IDS(dir, "ab", BOTH, 1, 5); /* as OPT has it */
	write_in(dir, "added_tokens.json", "{\"<x>\":9}");
	CHECK_IDS(dir, "a<x>b", 0, 3, 9, 4);
	write_in(dir, "special_tokens_map.json", "{\"eos_token\":\"b\",\"additional_special_tokens\":[\"<x>\",\"a\"]}");
	CHECK_IDS(dir, "a<x>b", MZM_TOK_PARSE_SPECIAL, 3, 9, 4);
	write_in(dir, "tokenizer_config.json",
		 "{\"added_tokens_decoder\":{\"8\":{\"content\":\"<y>\",\"rstrip\":true,\"special\":true}}}");
	CHECK_IDS(dir, "a<y> b", MZM_TOK_PARSE_SPECIAL, 3, 8, 4);
	write_in(dir, "tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{\"content\":\"<y>\"}}}");
	refused(dir, MZM_EFORMAT, "added_tokens_decoder: a key is no id");
	write_in(dir, "tokenizer_config.json", "[]");
	refused(dir, MZM_EFORMAT, "tokenizer_config.json");
	write_in(dir, "tokenizer_config.json", "{}");
	write_in(dir, "added_tokens.json", "[7]");
	refused(dir, MZM_EFORMAT, "added_tokens.json: not an object");
	write_in(dir, "added_tokens.json", "{\"<x>\":\"9\"}");
	refused(dir, MZM_EFORMAT, "the id is not a number");
	write_in(dir, "added_tokens.json", "{}");
	write_in(dir, "merges.txt", "a b\na \xff");
	refused(dir, MZM_EFORMAT, "merges: byte 4 begins a line that is not UTF-8");
	write_in(dir, "merges.txt", "a q\n");
	refused(dir, MZM_EFORMAT, "merges[0]");
	testing_remove(dir);
}

/* SentencePiece's own file: a few pieces in the wire format. */
static void test_model_file(void **state)
{
	static const char pieces[] = "\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02"
				     "\x0a\x0c\x0a\x03<s>\x15\0\0\0\0\x18\x03"
				     "\x0a\x0d\x0a\x04</s>\x15\0\0\0\0\x18\x03"
				     "\x0a\x0a\x0a\x03" TINY_MARK "\x15\0\0\x80\xbf"
				     "\x0a\x08\x0a\x01" "a\x15\0\0\x80\xbf"
				     "\x0a\x0b\x0a\x04" TINY_MARK "a\x15\0\0\0\xc0"
				     "\x12\x02\x18\x02"; /* BPE */
	char dir[256], path[512], bytes[sizeof pieces];
	(void)state;
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/tokenizer.model", dir);
	testing_write(path, pieces, sizeof pieces - 1);
	CHECK_IDS(dir, "a a", BOTH, 1, 5, 5);
	CHECK_IDS(dir, "aza</s>", BOTH, 1, 5, 0, 4, 2);
	write_in(dir, "tokenizer_config.json",
		 "{\"add_bos_token\":false,\"add_eos_token\":true,\"eos_token\":\"</s>\"}");
	CHECK_IDS(dir, "a", BOTH, 5, 2);
	write_in(dir, "added_tokens.json", "{\"<x>\":6}");
	CHECK_IDS(dir, "a<x>", BOTH, 5, 6, 2);
	for (size_t n = 0; n < sizeof pieces - 1; n++) { /* cut off anywhere: refused, or an empty trainer's unigram */
		mzm_tokenizer *tok;
		mzm_err err = {0};
		testing_write(path, pieces, n);
		if (mzm_tokenizer_open(&tok, dir, &err) != MZM_OK)
			assert_non_null(strstr(err.message, "tokenizer"));
		mzm_tokenizer_close(tok);
	}
	memcpy(bytes, pieces, sizeof pieces);
	bytes[sizeof pieces - 2] = 3;
	testing_write(path, bytes, sizeof pieces - 1);
	refused(dir, MZM_EUNSUPPORTED, "\"word\"");
	write_in(dir, "tokenizer.model", "IQ== 0\nIg== 1\n");
	refused(dir, MZM_EUNSUPPORTED, "tiktoken");
	testing_remove(dir);
}

/* The shipped container holds the tokenizer it was made with. */
static void test_container(void **state)
{
	mzm_tokenizer *tok;
	mzm_err err = {0};
	(void)state;
	if (!mzm_path_exists("data/gsmini-6m.mzm")) {
		print_message("skipped: data/gsmini-6m.mzm is missing\n");
		skip();
	}
	if (mzm_tokenizer_open(&tok, "data/gsmini-6m.mzm", &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(mzm_token_count(tok), 2048);
	assert_int_equal(mzm_token_find(tok, "<|endoftext|>"), 2047);
	mzm_tokenizer_close(tok);
}

/* Every allocation of opening a directory fails once: an error, nothing lost. */
static void test_failing_memory(void **state)
{
	char dir[256];
	mzm_str json = tiny_json(&tiny_bytes, false);
	size_t live = mzm_mem_live();
	long n_calls = 0;
	(void)state;
	testing_temp_dir(dir);
	write_in(dir, "tokenizer.json", json.data);
	write_in(dir, "tokenizer_config.json", "{}");
	for (long k = 1; k <= n_calls + 1; k++) {
		mzm_tokenizer *tok;
		mzm_err err = {0};
		mzm_mem_fail_nth(k);
		mzm_status st = mzm_tokenizer_open(&tok, dir, &err);
		n_calls = mzm_mem_fail_nth(0);
		assert_int_equal(st != MZM_OK, tok == NULL);
		assert_true(st == MZM_OK || st == MZM_ENOMEM);
		if (k > n_calls)
			assert_int_equal(st, MZM_OK);
		mzm_tokenizer_close(tok);
		assert_int_equal(mzm_mem_live(), live);
	}
	assert_true(n_calls > 10);
	mzm_str_free(&json);
	testing_remove(dir);
}

/* The n-th read fails: an error that says why. */
static void test_failing_reads(void **state)
{
	char dir[256];
	mzm_str json = tiny_json(&tiny_bytes, false);
	(void)state;
	testing_temp_dir(dir);
	write_in(dir, "tokenizer.json", json.data);
	write_in(dir, "tokenizer_config.json", "{}");
	for (long k = 1; k <= 2; k++) {
		mzm_io_fail_nth(k, 5); /* EIO */
		refused(dir, MZM_EIO, k == 1 ? "tokenizer.json: reading" : "tokenizer_config.json: reading");
		mzm_io_fail_nth(k, 0);
		refused(dir, MZM_EIO, "truncated");
		mzm_io_fail_nth(0, 0);
	}
	mzm_str_free(&json);
	testing_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),         cmocka_unit_test(test_no_tokenizer),
		cmocka_unit_test(test_pair),          cmocka_unit_test(test_model_file),
		cmocka_unit_test(test_container),     cmocka_unit_test(test_failing_memory),
		cmocka_unit_test(test_failing_reads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
