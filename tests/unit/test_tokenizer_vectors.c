/* test_tokenizer_vectors.c - the tokenizer against published vectors: ids that other implementations give
 * for nine tokenizers of real models (MIRZAM_SHARED/tokenizers) and the prompts of the small models. What
 * decoding gives back is checked on the same texts. Skips where the data is absent. */
#include "testing.h"

#include <jansson.h>
#include <libgen.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "format/tokenizer.h"

#define SEPARATOR "\n__ggml_vocab_test__\n"

static const char *const names[] = {"llama2", "llama3", "qwen2", "gpt2",       "gpt_neox",
				    "falcon", "phi2",   "phi3",  "roberta_opt"};
#define N_NAMES (sizeof names / sizeof *names)

/* ---- opening ---- */

/* A file of the shared data, NULL where it is absent. -> free */
static char *shared_text(const char *name, size_t *len)
{
	char path[512];
	return testing_shared(name, path) ? testing_read(path, len) : NULL;
}

/* gpt2 has OpenAI's two files, which are read by the names of their directory. */
static char *dir_json(const char *dir, const char *config, size_t *len)
{
	mzm_err err = {0};
	char *json, *copy;
	if (mzm_tokenizer_dir_json(&json, len, dir, config, config ? strlen(config) : 0, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_non_null(json);
	copy = strdup(json);
	mzm_free(json);
	return copy;
}

static char *gpt2_json(size_t *len)
{
	char path[512];
	return testing_shared("tokenizers/gpt2/vocab.bpe", path) ? dir_json(dirname(path), NULL, len) : NULL;
}

static mzm_tokenizer *open_shared(const char *name)
{
	mzm_str file = {0};
	size_t len;
	mzm_err err = {0};
	mzm_tokenizer *tok = NULL;
	mzm_str_puts(&file, strchr(name, '/') ? "" : "tokenizers/");
	mzm_str_path(&file, name, "tokenizer.json");
	char *json = strcmp(name, "gpt2") == 0 ? gpt2_json(&len) : shared_text(file.data, &len);
	mzm_str_free(&file);
	if (!json)
		return NULL;
	int64_t start = mzm_now_ns();
	if (mzm_tokenizer_parse(&tok, json, len, NULL, 0, name, &err) != MZM_OK)
		fail_msg("%s", err.message);
	double ms = (double)(mzm_now_ns() - start) * 1e-6;
	print_message("%s: %.1f MB read in %.0f ms\n", name, (double)len * 1e-6, ms);
	free(json);
	return tok;
}

/* ---- comparing ---- */

static void say_ids(const char *what, const int32_t *ids, size_t n)
{
	print_message("  %s:", what);
	for (size_t i = 0; i < n && i < 40; i++)
		print_message(" %d", ids[i]);
	print_message("\n");
}

static bool same_ids(const mzm_tokenizer *tok, const char *text, size_t len, unsigned flags, const int32_t *want,
		     size_t n_want)
{
	int32_t *ids;
	size_t n;
	mzm_err err = {0};
	if (mzm_tokenize(tok, text, len, flags, &ids, &n, &err) != MZM_OK)
		fail_msg("%s", err.message);
	bool same = n == n_want && memcmp(ids, want, n * sizeof *ids) == 0;
	if (!same) {
		print_message("  text: \"%.*s\"\n", (int)(len < 200 ? len : 200), text);
		say_ids("want", want, n_want);
		say_ids("got ", ids, n);
	}
	mzm_ids_free(ids);
	return same;
}

/* decode(encode(text)) must give the text back, and streamed what is given at once. */
static bool round_trip(const mzm_tokenizer *tok, const char *text, size_t len)
{
	int32_t *ids;
	size_t n, n_back, n_stream = 0;
	char *back;
	assert_int_equal(mzm_tokenize(tok, text, len, 0, &ids, &n, NULL), MZM_OK);
	assert_int_equal(mzm_detokenize(tok, ids, n, &back, &n_back, NULL), MZM_OK);
	size_t cap = mzm_text_decoder_max(tok);
	char *stream = malloc(n_back + cap);
	mzm_text_decoder dec = mzm_text_decoder_init(tok);
	for (size_t i = 0; i < n; i++) {
		n_stream += mzm_text_decoder_push(&dec, ids[i], stream + n_stream, cap);
		assert_true(n_stream <= n_back);
	}
	n_stream += mzm_text_decoder_flush(&dec, stream + n_stream, cap);
	assert_int_equal(n_stream, n_back);
	assert_memory_equal(stream, back, n_back);
	bool same = n_back == len && memcmp(back, text, len) == 0;
	if (!same)
		print_message("  \"%.*s\" came back as \"%s\"\n", (int)(len < 200 ? len : 200), text, back);
	free(stream);
	mzm_string_free(back);
	mzm_ids_free(ids);
	return same;
}

/* ---- tests ---- */

/* 46 strings of llama.cpp for six vocabularies. */
static void test_ggml_vectors(void **state)
{
	static const char *const pairs[][2] = {{"llama-spm", "llama2"}, {"llama-bpe", "llama3"}, {"qwen2", "qwen2"},
					       {"gpt-2", "gpt2"},       {"falcon", "falcon"},    {"phi-3", "phi3"}};
	(void)state;
	for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
		char file[128];
		size_t len;
		int n = 0, n_same = 0, n_back = 0;
		snprintf(file, sizeof file, "tokenizers/ggml-vocab/ggml-vocab-%s.gguf.inp", pairs[p][0]);
		char *in = shared_text(file, &len);
		memcpy(strstr(file, ".inp"), ".out", 4);
		char *out = shared_text(file, &len);
		mzm_tokenizer *tok = open_shared(pairs[p][1]);
		if (!in || !out || !tok)
			skip();
		char *text = in, *line = out;
		for (char *end; (end = strstr(text, SEPARATOR)); text = end + strlen(SEPARATOR), n++) {
			int32_t want[512];
			char *eol = strchr(line, '\n');
			assert_non_null(eol);
			*eol = 0;
			size_t n_want = testing_parse_ids(line, want, 512);
			n_same += same_ids(tok, text, (size_t)(end - text), 0, want, n_want);
			n_back += round_trip(tok, text, (size_t)(end - text));
			line = eol + 1;
		}
		print_message("ggml %s: %d of %d vectors, %d round trips\n", pairs[p][0], n_same, n, n_back);
		assert_int_equal(n, 46);
		assert_int_equal(n_same, 46);
		assert_int_equal(n_back, 46);
		mzm_tokenizer_close(tok);
		free(in);
		free(out);
	}
}

static json_t *read_texts(void)
{
	size_t len;
	char *text = shared_text("tokenizers/hf-vectors/texts.jsonl", &len), *next;
	json_t *texts = text ? json_array() : NULL;
	for (char *line = text; line && *line; line = next) {
		char *eol = strchr(line, '\n');
		next = eol ? eol + 1 : line + strlen(line);
		json_t *obj = json_loadb(line, (size_t)(next - line), JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, NULL);
		assert_non_null(obj);
		json_array_append(texts, json_object_get(obj, "text"));
		json_decref(obj);
	}
	free(text);
	return texts;
}

/* Texts that a normaliser changes (NFC, blanks to U+2581) cannot come back as they were. */
static bool gives_back(const char *name, const char *text)
{
	if (strcmp(name, "llama2") == 0 || strcmp(name, "phi3") == 0)
		return !strstr(text, "\xe2\x96\x81");
	if (strcmp(name, "qwen2") != 0 && strcmp(name, "gpt_neox") != 0)
		return true;
	for (; *text; text++)
		if ((unsigned char)*text >= 0xcc)
			return false;
	return true;
}

/* False: the ids are absent. */
static bool check_hf(const mzm_tokenizer *tok, const char *name, const json_t *texts)
{
	char file[128];
	size_t len, n = json_array_size(texts), n_same = 0, n_back = 0, n_tried = 0;
	snprintf(file, sizeof file, "tokenizers/hf-vectors/%s.ids.txt", name);
	char *ids = shared_text(file, &len), *line = ids;
	int32_t *want = malloc(65536 * sizeof *want);
	for (size_t i = 0; i < n && ids; i++) {
		const json_t *text = json_array_get(texts, i);
		char *eol = strchr(line, '\n');
		assert_non_null(eol);
		*eol = 0;
		size_t n_want = testing_parse_ids(line, want, 65536);
		const char *s = json_string_value(text);
		n_same += same_ids(tok, s, json_string_length(text), MZM_TOK_PARSE_SPECIAL, want, n_want);
		if (gives_back(name, s)) {
			n_tried++;
			n_back += round_trip(tok, s, json_string_length(text));
		}
		line = eol + 1;
	}
	print_message("hf %s: %zu of %zu vectors, %zu of %zu round trips\n", name, n_same, n, n_back, n_tried);
	assert_int_equal(n, 199);
	assert_true(!ids || n_same == n);
	assert_int_equal(n_back, n_tried);
	free(want);
	free(ids);
	return ids != NULL;
}

static void test_hf_vectors(void **state)
{
	(void)state;
	json_t *texts = read_texts();
	if (!texts)
		skip();
	for (size_t t = 0; t < N_NAMES; t++) {
		mzm_tokenizer *tok = open_shared(names[t]);
		if (!tok || !check_hf(tok, names[t], texts))
			skip();
		mzm_tokenizer_close(tok);
	}
	json_decref(texts);
}

/* Directories without tokenizer.json: a pair of files, SentencePiece's own file. The same ids. */
static void test_directories(void **state)
{
	static const char *const dirs[][3] = {{"roberta_opt", "vocab.json", "merges.txt"},
					      {"llama2", "tokenizer.model", "tokenizer_config.json"},
					      {"gpt2", "encoder.json", "vocab.bpe"}};
	(void)state;
	json_t *texts = read_texts();
	if (!texts)
		skip();
	for (size_t d = 0; d < sizeof dirs / sizeof *dirs; d++) {
		char dir[256], file[128], path[512];
		size_t len;
		testing_temp_dir(dir);
		for (int i = 1; i < 3; i++) {
			snprintf(file, sizeof file, "tokenizers/%s/%s", dirs[d][0], dirs[d][i]);
			char *bytes = shared_text(file, &len);
			if (!bytes) {
				testing_remove(dir);
				skip();
			}
			snprintf(path, sizeof path, "%s/%s", dir, dirs[d][i]);
			testing_write(path, bytes, len);
			free(bytes);
		}
		mzm_err err = {0};
		mzm_tokenizer *tok;
		char *json = dir_json(dir, NULL, &len);
		if (mzm_tokenizer_parse(&tok, json, len, NULL, 0, dirs[d][0], &err) != MZM_OK)
			fail_msg("%s", err.message);
		assert_true(check_hf(tok, dirs[d][0], texts));
		mzm_tokenizer_close(tok);
		free(json);
		testing_remove(dir);
	}
	json_decref(texts);
}

static void test_with_special_tokens(void **state)
{
	size_t len;
	(void)state;
	char *json = shared_text("tokenizers/hf-vectors/with_special_tokens.json", &len);
	if (!json)
		skip();
	json_t *root = json_loadb(json, len, 0, NULL);
	const json_t *texts = json_object_get(root, "texts");
	for (size_t t = 0; t < N_NAMES; t++) {
		mzm_tokenizer *tok = open_shared(names[t]);
		if (!tok)
			skip();
		for (size_t i = 0; i < json_array_size(texts); i++) {
			const json_t *ids = json_array_get(json_object_get(root, names[t]), i);
			const char *s = json_string_value(json_array_get(texts, i));
			int32_t want[64];
			for (size_t k = 0; k < json_array_size(ids); k++)
				want[k] = (int32_t)json_integer_value(json_array_get(ids, k));
			assert_true(same_ids(tok, s, strlen(s), MZM_TOK_ADD_SPECIAL, want, json_array_size(ids)));
		}
		mzm_tokenizer_close(tok);
	}
	json_decref(root);
	free(json);
}

/* Prompts of the small models; BOS comes from the post-processor of stories260K. */
static void test_model_prompts(void **state)
{
	static const char *const files[][2] = {{"models/stories260K", "models/stories260K/expected.json"},
					       {"models/gsmini-6m", "models/gsmini-6m/expected/logits.json"}};
	(void)state;
	for (size_t f = 0; f < 2; f++) {
		size_t len, n_prompts = 0;
		char *json = shared_text(files[f][1], &len);
		mzm_tokenizer *tok = open_shared(files[f][0]);
		if (!json || !tok)
			skip();
		json_t *root = json_loadb(json, len, 0, NULL);
		const json_t *prompts = json_is_array(root) ? root : json_object_get(root, "prompts");
		for (; n_prompts < json_array_size(prompts); n_prompts++) {
			const json_t *p = json_array_get(prompts, n_prompts), *ids = json_object_get(p, "prompt_ids");
			const char *s = json_string_value(json_object_get(p, "prompt"));
			int32_t want[512];
			for (size_t k = 0; k < json_array_size(ids); k++)
				want[k] = (int32_t)json_integer_value(json_array_get(ids, k));
			assert_true(same_ids(tok, s, strlen(s), MZM_TOK_ADD_SPECIAL, want, json_array_size(ids)));
		}
		print_message("%s: %zu prompts\n", files[f][0], n_prompts);
		assert_true(n_prompts >= 3);
		json_decref(root);
		mzm_tokenizer_close(tok);
		free(json);
	}
}

/* Each byte string comes back from the bytes of its tokens, less the blank that was put in front. */
static void check_bytes(const mzm_tokenizer *tok, const char *s, size_t len, bool blank)
{
	int32_t *ids;
	size_t n, used = 0, k;
	char *all = malloc(2 * len + 64);
	assert_int_equal(mzm_tokenize(tok, s, len, 0, &ids, &n, NULL), MZM_OK);
	for (size_t i = 0; i < n; i++) {
		const char *bytes = mzm_token_bytes(tok, ids[i], &k);
		assert_true(used + k <= len + blank);
		memcpy(all + used, bytes, k);
		used += k;
	}
	assert_int_equal(used, len ? len + blank : 0);
	assert_memory_equal(all + (len && blank), s, len);
	if (len && blank)
		assert_int_equal(all[0], ' ');
	free(all);
	mzm_ids_free(ids);
}

/* falcon is left out: its vocabulary lacks 32 of the bytes. */
static void test_random_bytes(void **state)
{
	static const char *const promising[] = {"llama2", "llama3", "gpt2", "phi2", "roberta_opt"};
	(void)state;
	for (size_t t = 0; t < sizeof promising / sizeof *promising; t++) {
		mzm_tokenizer *tok = open_shared(promising[t]);
		if (!tok)
			skip();
		srand(7);
		for (int i = 0; i < 2000; i++) {
			char s[64];
			size_t len = (size_t)rand() % sizeof s;
			for (size_t k = 0; k < len; k++)
				s[k] = (char)(i & 1 ? rand() : "a \n\xe2\x82\xac\xf0\x9f\x98\x80"[rand() % 10]);
			check_bytes(tok, s, len, t == 0);
		}
		mzm_tokenizer_close(tok);
	}
}

static double cpu_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Megabytes a second over the published texts, and growth with one long run of a character. */
static void test_speed(void **state)
{
	size_t len, n, n_run = (size_t)1 << (getenv("MIRZAM_SHORT") ? 14 : 16);
	(void)state;
	char *texts = shared_text("tokenizers/hf-vectors/texts.jsonl", &len);
	if (!texts)
		skip();
	for (size_t t = 0; t < N_NAMES; t++) {
		double seconds[3];
		mzm_tokenizer *tok = open_shared(names[t]);
		if (!tok)
			skip();
		char *run = malloc(16 * n_run);
		memset(run, t & 1 ? ' ' : 'a', 16 * n_run);
		for (int i = 0; i < 3; i++) {
			int32_t *ids;
			double start = cpu_seconds();
			const char *s = i ? run : texts;
			size_t k = i == 0 ? len : i == 1 ? n_run : 16 * n_run;
			assert_int_equal(mzm_tokenize(tok, s, k, 0, &ids, &n, NULL), MZM_OK);
			seconds[i] = cpu_seconds() - start;
			mzm_ids_free(ids);
		}
		print_message("%s: %.1f MB/s; a run of %zu bytes %.3f s, of 16 times as many %.3f s\n", names[t],
			      (double)len * 1e-6 / seconds[0], n_run, seconds[1], seconds[2]);
		assert_true(seconds[2] < 80 * (seconds[1] + 0.01)); /* linear would be 16; quadratic 256 */
		mzm_tokenizer_close(tok);
		free(run);
	}
	free(texts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ggml_vectors),        cmocka_unit_test(test_hf_vectors),
		cmocka_unit_test(test_directories),
		cmocka_unit_test(test_with_special_tokens), cmocka_unit_test(test_model_prompts),
		cmocka_unit_test(test_random_bytes),        cmocka_unit_test(test_speed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
