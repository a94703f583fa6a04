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
		cmocka_unit_test(test_container),     cmocka_unit_test(test_failing_memory),
		cmocka_unit_test(test_failing_reads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
