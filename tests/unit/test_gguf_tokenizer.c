/* test_gguf_tokenizer.c - tokenizers from GGUF metadata: llama.cpp's vectors for the vocabularies in
 * MIRZAM_SHARED/tokenizers/ggml-vocab, and small files made here, good and hostile. Skips where the data is absent. */
#include "testing.h"

#include <jansson.h>
#include <math.h>

#include "base/clock.h"
#include "base/str.h"
#include "format/gguf.h"
#include "format/tokenizer.h"

#define SEPARATOR "\n__ggml_vocab_test__\n"
#define KEY(name) "tokenizer.ggml." name

/* ---- a GGUF file in memory: metadata only ---- */

typedef struct builder {
	mzm_str kv;
	uint64_t n_kv;
} builder;

static void put_u32(mzm_str *s, uint32_t v)
{
	mzm_str_add(s, &v, 4);
}

static void put_u64(mzm_str *s, uint64_t v)
{
	mzm_str_add(s, &v, 8);
}

static void put_text(mzm_str *s, const char *text, size_t n)
{
	put_u64(s, n);
	mzm_str_add(s, text, n);
}

static void begin(builder *b, const char *key, mzm_gguf_type type)
{
	b->n_kv++;
	put_text(&b->kv, key, strlen(key));
	put_u32(&b->kv, (uint32_t)type);
}

static void add_string(builder *b, const char *key, const char *text)
{
	begin(b, key, MZM_GGUF_STRING);
	put_text(&b->kv, text, strlen(text));
}

static void add_u32(builder *b, const char *key, uint32_t v)
{
	begin(b, key, MZM_GGUF_U32);
	put_u32(&b->kv, v);
}

static void add_flag(builder *b, const char *key, bool v)
{
	begin(b, key, MZM_GGUF_BOOL);
	mzm_str_add(&b->kv, v ? "\1" : "\0", 1);
}

static void begin_array(builder *b, const char *key, mzm_gguf_type type, uint64_t n)
{
	begin(b, key, MZM_GGUF_ARRAY);
	put_u32(&b->kv, (uint32_t)type);
	put_u64(&b->kv, n);
}

static void add_strings(builder *b, const char *key, const char *const *v, size_t n)
{
	begin_array(b, key, MZM_GGUF_STRING, n);
	for (size_t i = 0; i < n; i++)
		put_text(&b->kv, v[i], strlen(v[i]));
}

static void add_i32s(builder *b, const char *key, const int32_t *v, size_t n)
{
	begin_array(b, key, MZM_GGUF_I32, n);
	mzm_str_add(&b->kv, v, 4 * n);
}

static void add_f32s(builder *b, const char *key, const float *v, size_t n)
{
	begin_array(b, key, MZM_GGUF_F32, n);
	mzm_str_add(&b->kv, v, 4 * n);
}

/* ---- from a file to a tokenizer ---- */

static mzm_status from_gguf(const char *path, mzm_tokenizer **tok, char **json, char **config, mzm_err *err)
{
	mzm_gguf *g = NULL;
	*tok = NULL;
	*json = *config = NULL;
	mzm_status st = mzm_gguf_open(&g, path, err);
	if (st == MZM_OK) {
		st = mzm_gguf_tokenizer_json(json, config, g, err);
		mzm_gguf_close(g);
	}
	if (st == MZM_OK && *json)
		st = mzm_tokenizer_parse(tok, *json, strlen(*json), *config, strlen(*config), "gguf", err);
	return st;
}

static mzm_status open_gguf(const char *path, mzm_tokenizer **tok, mzm_err *err)
{
	char *json, *config;
	mzm_status st = from_gguf(path, tok, &json, &config, err);
	mzm_free(json);
	mzm_free(config);
	return st;
}

/* Frees the builder and the buffer. */
static void write_gguf(builder *b, mzm_str *all, const char *path)
{
	mzm_str_add(all, "GGUF", 4);
	put_u32(all, 3);
	put_u64(all, 0);
	put_u64(all, b->n_kv);
	mzm_str_add(all, b->kv.data, b->kv.len);
	assert_false(all->failed || b->kv.failed);
	testing_write(path, all->data, all->len);
	mzm_str_free(all);
	mzm_str_free(&b->kv);
	*b = (builder){0};
}

/* Writes what was built and opens it. */
static mzm_status open_built(builder *b, mzm_tokenizer **tok, mzm_err *err)
{
	char dir[256], path[300];
	mzm_str all = {0};
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/v.gguf", dir);
	write_gguf(b, &all, path);
	mzm_status st = open_gguf(path, tok, err);
	testing_remove(dir);
	return st;
}

static mzm_tokenizer *must_open(builder *b)
{
	mzm_err err = {0};
	mzm_tokenizer *tok = NULL;
	if (open_built(b, &tok, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_non_null(tok);
	return tok;
}

/* The message must name what is wrong. */
static void must_fail(builder *b, mzm_status want, const char *words)
{
	mzm_err err = {0};
	mzm_tokenizer *tok = NULL;
	mzm_status st = open_built(b, &tok, &err);
	if (st != want || !strstr(err.message, words))
		fail_msg("status %d, \"%s\"; wanted %d, \"%s\"", (int)st, err.message, (int)want, words);
	assert_null(tok);
}

static void check_ids(const mzm_tokenizer *tok, const char *text, unsigned flags, const int32_t *want, size_t n_want)
{
	int32_t *ids;
	size_t n;
	mzm_err err = {0};
	if (mzm_tokenize(tok, text, strlen(text), flags, &ids, &n, &err) != MZM_OK)
		fail_msg("%s", err.message);
	if (n != n_want || memcmp(ids, want, n * sizeof *ids) != 0) {
		for (size_t i = 0; i < n; i++)
			print_message(" %d", ids[i]);
		fail_msg("is what \"%s\" gave; %zu ids wanted", text, n_want);
	}
	mzm_ids_free(ids);
}

#define CHECK_IDS(tok, text, flags, ...)                                                     \
	do {                                                                                 \
		const int32_t want_[] = {__VA_ARGS__};                                       \
		check_ids(tok, text, flags, want_, sizeof want_ / sizeof *want_);            \
	} while (0)

/* ---- llama.cpp's vectors ---- */

static bool same_ids(const mzm_tokenizer *tok, const char *text, size_t len, unsigned flags, const int32_t *want,
		     size_t n_want)
{
	int32_t *ids;
	size_t n;
	assert_int_equal(mzm_tokenize(tok, text, len, flags, &ids, &n, NULL), MZM_OK);
	bool same = n == n_want && memcmp(ids, want, n * sizeof *ids) == 0;
	if (!same)
		print_message("  \"%.*s\"\n", (int)(len < 200 ? len : 200), text);
	mzm_ids_free(ids);
	return same;
}

/* -1: the vectors are absent. */
static int same_vectors(const mzm_tokenizer *tok, const char *name)
{
	char in_name[160], out_name[160], path[512];
	size_t len;
	int n_same = 0;
	snprintf(in_name, sizeof in_name, "tokenizers/ggml-vocab/ggml-vocab-%s.gguf.inp", name);
	snprintf(out_name, sizeof out_name, "tokenizers/ggml-vocab/ggml-vocab-%s.gguf.out", name);
	char *in = testing_shared(in_name, path) ? testing_read(path, &len) : NULL;
	char *out = in && testing_shared(out_name, path) ? testing_read(path, &len) : NULL;
	if (!out) {
		free(in);
		return -1;
	}
	char *text = in, *line = out;
	for (char *end; (end = strstr(text, SEPARATOR)); text = end + strlen(SEPARATOR)) {
		int32_t want[512];
		char *eol = strchr(line, '\n');
		assert_non_null(eol);
		*eol = 0;
		size_t n_want = testing_parse_ids(line, want, 512);
		n_same += same_ids(tok, text, (size_t)(end - text), 0, want, n_want);
		line = eol + 1;
	}
	free(in);
	free(out);
	return n_same;
}

/* A vocabulary of the shared data; NULL where it is absent. */
static mzm_tokenizer *open_vocab(const char *name)
{
	char file[160], path[512];
	mzm_err err = {0};
	mzm_tokenizer *tok;
	snprintf(file, sizeof file, "tokenizers/ggml-vocab/ggml-vocab-%s.gguf", name);
	if (!testing_shared(file, path))
		return NULL;
	int64_t start = mzm_now_ns();
	if (open_gguf(path, &tok, &err) != MZM_OK)
		fail_msg("%s: %s", name, err.message);
	print_message("%s: open in %.0f ms\n", name, (double)(mzm_now_ns() - start) * 1e-6);
	return tok;
}

static void test_vectors(void **state)
{
	static const char *const names[] = {"llama-spm", "phi-3", "gpt-2",          "falcon",      "starcoder",
					    "refact",    "mpt",   "deepseek-coder", "deepseek-llm", "bert-bge"};
	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		mzm_tokenizer *tok = open_vocab(names[i]);
		int n = tok ? same_vectors(tok, names[i]) : -1;
		mzm_tokenizer_close(tok);
		if (n < 0)
			skip();
		print_message("%s: %d of 46\n", names[i], n);
		assert_int_equal(n, 46);
	}
}

/* The published tokenizer.json gives the ids; it brings text into the form NFC first, which GGUF files do not say. */
static void test_neox(void **state)
{
	char path[512], path_ids[512];
	size_t len, n_same = 0, n = 0;
	(void)state;
	mzm_tokenizer *neox = open_vocab("gpt-neox");
	if (!neox || !testing_shared("tokenizers/hf-vectors/texts.jsonl", path) ||
	    !testing_shared("tokenizers/hf-vectors/gpt_neox.ids.txt", path_ids)) {
		mzm_tokenizer_close(neox);
		skip();
	}
	CHECK_IDS(neox, "a<|endoftext|>", MZM_TOK_PARSE_SPECIAL, 66, 0);
	char *texts = testing_read(path, &len), *line = texts, *lines = testing_read(path_ids, &len), *want = lines;
	int32_t *ids = malloc(65536 * sizeof *ids);
	for (; *line && *want; line = strchr(line, '\n') + 1, want = strchr(want, '\n') + 1) {
		json_t *obj = json_loads(line, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, NULL);
		const json_t *text = json_object_get(obj, "text");
		const char *s = json_string_value(text);
		size_t n_text = json_string_length(text), i = 0;
		while (i < n_text && (unsigned char)s[i] < 0xcc)
			i++;
		*strchr(want, '\n') = 0;
		size_t n_want = testing_parse_ids(want, ids, 65536);
		want += strlen(want);
		*want = '\n';
		if (i == n_text) { /* NFC leaves it alone */
			n++;
			n_same += same_ids(neox, s, n_text, MZM_TOK_PARSE_SPECIAL, ids, n_want);
		}
		json_decref(obj);
	}
	print_message("gpt-neox: %zu of %zu\n", n_same, n);
	assert_true(n > 90);
	assert_int_equal(n_same, n);
	free(ids);
	free(texts);
	free(lines);
	mzm_tokenizer_close(neox);
}

static void test_baichuan(void **state)
{
	int32_t *ids;
	size_t n, n_back;
	char *back;
	(void)state;
	mzm_tokenizer *baichuan = open_vocab("baichuan");
	if (!baichuan)
		skip();
	assert_int_equal(mzm_tokenize(baichuan, "Hello world", 11, MZM_TOK_ADD_SPECIAL, &ids, &n, NULL), MZM_OK);
	assert_int_equal(ids[0], 1);
	assert_int_equal(mzm_detokenize(baichuan, ids, n, &back, &n_back, NULL), MZM_OK);
	assert_string_equal(back, "Hello world");
	mzm_string_free(back);
	mzm_ids_free(ids);
	mzm_tokenizer_close(baichuan);
}

static void test_model_prompts(void **state)
{
	char path[512];
	size_t len;
	mzm_err err = {0};
	mzm_tokenizer *tok;
	(void)state;
	if (!testing_shared("models/stories260K-gguf/stories260K-Q8_0.gguf", path))
		skip();
	if (open_gguf(path, &tok, &err) != MZM_OK)
		fail_msg("%s", err.message);
	if (!testing_shared("models/stories260K-gguf/expected.json", path)) {
		mzm_tokenizer_close(tok);
		skip();
	}
	char *json = testing_read(path, &len);
	json_t *root = json_loadb(json, len, 0, NULL);
	const char *name;
	json_t *file;
	size_t n_prompts = 0;
	json_object_foreach(json_object_get(root, "files"), name, file) {
		const json_t *prompts = json_object_get(file, "prompts");
		for (size_t i = 0; i < json_array_size(prompts); i++, n_prompts++) {
			const json_t *p = json_array_get(prompts, i), *ids = json_object_get(p, "prompt_ids");
			int32_t want[512];
			assert_true(json_array_size(ids) <= 512);
			for (size_t k = 0; k < json_array_size(ids); k++)
				want[k] = (int32_t)json_integer_value(json_array_get(ids, k));
			check_ids(tok, json_string_value(json_object_get(p, "prompt")), MZM_TOK_ADD_SPECIAL, want,
				  json_array_size(ids));
		}
	}
	assert_true(n_prompts >= 5);
	json_decref(root);
	free(json);
	mzm_tokenizer_close(tok);
}

/* A published tokenizer.json as a GGUF file: the two vocabularies that have vectors but no file. */
static void build_from_json(builder *b, const json_t *root, const char *pre)
{
	const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
	json_t *vocab = json_object_get(model, "vocab");
	size_t n = json_object_size(vocab) + json_array_size(added), i;
	const char **tokens = calloc(n, sizeof *tokens), *content;
	int32_t *types = calloc(n, sizeof *types);
	json_t *id, *merge, *one;
	json_object_foreach(vocab, content, id) {
		tokens[json_integer_value(id)] = content;
		types[json_integer_value(id)] = 1;
	}
	json_array_foreach(added, i, one) {
		json_int_t at = json_integer_value(json_object_get(one, "id"));
		assert_true((size_t)at < n);
		tokens[at] = json_string_value(json_object_get(one, "content"));
		types[at] = 3;
	}
	add_string(b, KEY("model"), "gpt2");
	add_string(b, KEY("pre"), pre);
	add_strings(b, KEY("tokens"), tokens, n);
	add_i32s(b, KEY("token_type"), types, n);
	begin_array(b, KEY("merges"), MZM_GGUF_STRING, json_array_size(json_object_get(model, "merges")));
	json_array_foreach(json_object_get(model, "merges"), i, merge) {
		mzm_str s = {0};
		mzm_str_puts(&s, json_string_value(json_is_array(merge) ? json_array_get(merge, 0) : merge));
		if (json_is_array(merge)) {
			mzm_str_puts(&s, " ");
			mzm_str_puts(&s, json_string_value(json_array_get(merge, 1)));
		}
		put_text(&b->kv, s.data, s.len);
		mzm_str_free(&s);
	}
	free(tokens);
	free(types);
}

static void test_big_vocabularies(void **state)
{
	static const char *const names[][3] = {{"llama3", "llama-bpe", "llama-bpe"}, {"qwen2", "qwen2", "qwen2"}};
	(void)state;
	for (int i = 0; i < 2; i++) {
		char file[128], path[512];
		size_t len;
		builder b = {0};
		snprintf(file, sizeof file, "tokenizers/%s/tokenizer.json", names[i][0]);
		if (!testing_shared(file, path))
			skip();
		char *json = testing_read(path, &len);
		json_t *root = json_loadb(json, len, 0, NULL);
		build_from_json(&b, root, names[i][1]);
		if (i == 0)
			add_u32(&b, KEY("bos_token_id"), 128000);
		json_decref(root);
		free(json);
		int64_t start = mzm_now_ns();
		mzm_tokenizer *tok = must_open(&b);
		print_message("%s: written and open in %.0f ms\n", names[i][0], (double)(mzm_now_ns() - start) * 1e-6);
		int n = same_vectors(tok, names[i][2]);
		if (i == 0)
			CHECK_IDS(tok, "", MZM_TOK_ADD_SPECIAL, 128000); /* llama-bpe: where the file does not say */
		mzm_tokenizer_close(tok);
		if (n < 0)
			skip();
		assert_int_equal(n, 46);
	}
}

/* ---- small files ---- */

static const char *const spm_tokens[] = {"<unk>", "<s>", "</s>", "a", "b", "ab", "aa", "\xe2\x96\x81",
					 "\342\226\201a", "<x>", "< s", ">", "", "s", "<"};
static const int32_t spm_types[] = {2, 3, 3, 1, 1, 1, 1, 1, 1, 4, 5, 1, 1, 1, 1};
static const float spm_scores[] = {0, 0, 0, -9, -9, -1, -1, -9, -3, 0, 0, -9, -9, -9, -9};
#define N_SPM (sizeof spm_tokens / sizeof *spm_tokens)

static void build_spm(builder *b)
{
	add_string(b, KEY("model"), "llama");
	add_strings(b, KEY("tokens"), spm_tokens, N_SPM);
	add_i32s(b, KEY("token_type"), spm_types, N_SPM);
	add_f32s(b, KEY("scores"), spm_scores, N_SPM);
}

static void test_spm(void **state)
{
	builder b = {0};
	(void)state;
	build_spm(&b);
	mzm_tokenizer *tok = must_open(&b);
	/* ab and aa are equally good: the leftmost is merged first, not the first of the file */
	CHECK_IDS(tok, "baab", 0, 7, 4, 6, 4);
	CHECK_IDS(tok, "bab", 0, 7, 4, 5);
	CHECK_IDS(tok, "a", MZM_TOK_ADD_SPECIAL, 1, 8);
	/* added tokens in the raw text; a blank in front of each part */
	CHECK_IDS(tok, "a<x>a", 0, 8, 9, 8);
	CHECK_IDS(tok, "a</s>", MZM_TOK_PARSE_SPECIAL, 8, 2);
	CHECK_IDS(tok, "<s>", 0, 7, 14, 13, 11); /* text never becomes a special token */
	CHECK_IDS(tok, "z", 0, 7, 0);
	mzm_tokenizer_close(tok);
	build_spm(&b);
	add_flag(&b, KEY("add_space_prefix"), false);
	add_flag(&b, KEY("add_bos_token"), false);
	add_flag(&b, KEY("add_eos_token"), true);
	tok = must_open(&b);
	CHECK_IDS(tok, "aab", MZM_TOK_ADD_SPECIAL, 6, 4, 2);
	mzm_tokenizer_close(tok);
	build_spm(&b);
	add_string(&b, "general.name", "My Phi-3 mini");
	tok = must_open(&b);
	CHECK_IDS(tok, "</s>  a", MZM_TOK_PARSE_SPECIAL, 2, 8);
	CHECK_IDS(tok, "<s> a", MZM_TOK_PARSE_SPECIAL, 1, 7, 8);
	mzm_tokenizer_close(tok);
}

static const char *const bpe_tokens[] = {"a", "b", "ab", "\xc4\xa0", "\304\240a", "<e>", "1", "."};
static const int32_t bpe_types[] = {1, 1, 1, 1, 1, 3, 1, 1};
static const char *const bpe_merges[] = {"a b", "\xc4\xa0 a"};
#define N_BPE (sizeof bpe_tokens / sizeof *bpe_tokens)

static void build_bpe(builder *b, const char *pre, const char *const *merges, size_t n_merges)
{
	add_string(b, KEY("model"), "gpt2");
	if (pre)
		add_string(b, KEY("pre"), pre);
	add_strings(b, KEY("tokens"), bpe_tokens, N_BPE);
	add_i32s(b, KEY("token_type"), bpe_types, N_BPE);
	if (merges)
		add_strings(b, KEY("merges"), merges, n_merges);
}

static void test_pre_names(void **state)
{
	static const char *const names[] = {
		"default",    "llama3",         "llama-v3",    "llama-bpe",     "falcon3",   "deepseek-llm",
		"exaone",     "deepseek-coder", "deepseek-v3", "falcon",        "mpt",       "starcoder",
		"gpt-2",      "phi-2",          "refact",      "command-r",     "qwen2",     "stablelm2",
		"olmo",       "dbrx",           "smaug-bpe",   "poro-chat",     "viking",    "chatglm-bpe",
		"jais",       "tekken",         "smollm",      "codeshell",     "bloom",     "minerva-7b",
		"gpt-4o",     "llama4",         "bailingmoe",  "seed-coder",    "hunyuan",   "grok-2",
		"gpt-neox",   "hunyuan-dense",  NULL};
	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		builder b = {0};
		build_bpe(&b, names[i], bpe_merges, 2);
		add_flag(&b, KEY("add_bos_token"), false);
		mzm_tokenizer *tok = must_open(&b);
		CHECK_IDS(tok, "ab ab", MZM_TOK_ADD_SPECIAL, 2, 3, 2);
		CHECK_IDS(tok, "ab<e>1.", MZM_TOK_PARSE_SPECIAL, 2, 5, 6, 7);
		mzm_tokenizer_close(tok);
	}
	builder b = {0};
	build_bpe(&b, "superbpe", bpe_merges, 2);
	must_fail(&b, MZM_EUNSUPPORTED, "\"superbpe\"");
	add_string(&b, KEY("model"), "rwkv");
	must_fail(&b, MZM_EUNSUPPORTED, "\"rwkv\"");
}

static void test_none(void **state)
{
	builder b = {0};
	mzm_tokenizer *tok;
	mzm_err err = {0};
	(void)state;
	add_string(&b, "general.architecture", "llama");
	assert_int_equal(open_built(&b, &tok, &err), MZM_OK);
	assert_null(tok);
}

/* ---- hostile files ---- */

static void build_tokens(builder *b, const char *const *tokens, size_t n)
{
	add_string(b, KEY("model"), "gpt2");
	add_strings(b, KEY("tokens"), tokens, n);
	add_strings(b, KEY("merges"), NULL, 0);
}

static void test_hostile(void **state)
{
	static const char *const twice[] = {"a", "b", "a"}, *const broken[] = {"a", "\xff\xfe"};
	static const char *const unknown[] = {"a b", "a q"}, *const no_blank[] = {"ab"};
	static const float nan_scores[N_SPM] = {[3] = NAN};
	builder b = {0};
	(void)state;
	build_tokens(&b, twice, 3);
	must_fail(&b, MZM_EFORMAT, "there twice");
	build_tokens(&b, broken, 2);
	must_fail(&b, MZM_EFORMAT, "tokens[1] \"??\" is not UTF-8");
	add_string(&b, KEY("model"), "gpt2");
	begin_array(&b, KEY("tokens"), MZM_GGUF_STRING, 1);
	put_text(&b.kv, "x\0y", 3);
	add_strings(&b, KEY("merges"), NULL, 0);
	must_fail(&b, MZM_EUNSUPPORTED, "holds a NUL");
	add_string(&b, KEY("model"), "gpt2");
	must_fail(&b, MZM_EFORMAT, "tokens is not an array of strings");
	add_string(&b, KEY("model"), "gpt2");
	add_i32s(&b, KEY("tokens"), spm_types, 3);
	must_fail(&b, MZM_EFORMAT, "tokens is not an array of strings");
	build_tokens(&b, twice, 2);
	add_i32s(&b, KEY("token_type"), spm_types, 3);
	must_fail(&b, MZM_EFORMAT, "token_type has 3 elements for 2 tokens");
	build_bpe(&b, NULL, unknown, 2);
	must_fail(&b, MZM_EFORMAT, "merges[1]: \"q\" is not in the vocabulary");
	build_bpe(&b, NULL, no_blank, 1);
	must_fail(&b, MZM_EFORMAT, "merges[0]");
	build_bpe(&b, NULL, NULL, 0);
	must_fail(&b, MZM_EFORMAT, "merges is not an array of strings");
	build_bpe(&b, NULL, bpe_merges, 2);
	add_flag(&b, KEY("add_bos_token"), true);
	add_u32(&b, KEY("bos_token_id"), N_BPE);
	must_fail(&b, MZM_EFORMAT, "bos_token_id names no token");
	add_string(&b, KEY("model"), "llama");
	add_strings(&b, KEY("tokens"), spm_tokens, N_SPM);
	must_fail(&b, MZM_EFORMAT, "scores is not an array");
	add_string(&b, KEY("model"), "llama");
	add_strings(&b, KEY("tokens"), spm_tokens, N_SPM);
	add_f32s(&b, KEY("scores"), spm_scores, N_SPM - 1);
	must_fail(&b, MZM_EFORMAT, "scores has 14 elements for 15 tokens");
	add_string(&b, KEY("model"), "llama");
	add_strings(&b, KEY("tokens"), spm_tokens, N_SPM);
	add_f32s(&b, KEY("scores"), nan_scores, N_SPM);
	must_fail(&b, MZM_EFORMAT, "score of token 3");
	build_spm(&b);
	add_string(&b, "tokenizer.chat_template", "\xc3(");
	must_fail(&b, MZM_EFORMAT, "chat_template");
}

/* Many tokens, and tokens of which every beginning is a token too. */
static void test_large(void **state)
{
	size_t n = (size_t)testing_count(200000, 1000000), n_runs = 600;
	builder b = {0};
	char text[700];
	(void)state;
	add_string(&b, KEY("model"), "llama");
	begin_array(&b, KEY("tokens"), MZM_GGUF_STRING, n);
	for (size_t i = 0; i < n; i++)
		put_text(&b.kv, text, (size_t)snprintf(text, sizeof text, "%zx", i));
	begin_array(&b, KEY("scores"), MZM_GGUF_F32, n);
	for (size_t i = 0; i < n; i++)
		put_u32(&b.kv, 0);
	int64_t start = mzm_now_ns();
	mzm_tokenizer *tok = must_open(&b);
	double ms = (double)(mzm_now_ns() - start) * 1e-6;
	print_message("%zu tokens: %.0f ms\n", n, ms);
	assert_true(ms < 60000);
	mzm_tokenizer_close(tok);
	memset(text, 'a', sizeof text);
	for (int longer = 0; longer < 2; longer++) {
		size_t n_tokens = longer ? n_runs : 500;
		add_string(&b, KEY("model"), "llama");
		begin_array(&b, KEY("tokens"), MZM_GGUF_STRING, n_tokens);
		for (size_t i = 1; i <= n_tokens; i++)
			put_text(&b.kv, text, i);
		begin_array(&b, KEY("scores"), MZM_GGUF_F32, n_tokens);
		for (size_t i = 0; i < n_tokens; i++)
			put_u32(&b.kv, 0);
		if (longer)
			must_fail(&b, MZM_EUNSUPPORTED, "more than 512");
		else
			mzm_tokenizer_close(must_open(&b));
	}
}

/* The member "ranks" of a model, this library's own. */
static void test_ranks(void **state)
{
	static const char *const bad[] = {"1", "[1]", "[1,-1]", "[1,0.5]", "[1,\"0\"]", "[1,2147483647]"};
	static const char file[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"ba\":3},"
				   "\"merges\":[\"a b\",\"b a\"],\"ranks\":%s}}";
	char json[256];
	mzm_tokenizer *tok;
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		mzm_err err = {0};
		int n = snprintf(json, sizeof json, file, bad[i]);
		assert_int_equal(mzm_tokenizer_parse(&tok, json, (size_t)n, NULL, 0, "x", &err), MZM_EFORMAT);
		assert_non_null(strstr(err.message, "rank"));
	}
	int n = snprintf(json, sizeof json, file, "[1,0]");
	assert_int_equal(mzm_tokenizer_parse(&tok, json, (size_t)n, NULL, 0, "x", NULL), MZM_OK);
	CHECK_IDS(tok, "aba", 0, 0, 3);
	mzm_tokenizer_close(tok);
	n = snprintf(json, sizeof json, file, "[7,7]");
	assert_int_equal(mzm_tokenizer_parse(&tok, json, (size_t)n, NULL, 0, "x", NULL), MZM_OK);
	CHECK_IDS(tok, "aba", 0, 2, 0);
	CHECK_IDS(tok, "bab", 0, 3, 1);
	mzm_tokenizer_close(tok);
}

/* The k-th allocation fails, for every k: an error that says so, and nothing is lost. */
static void test_no_memory(void **state)
{
	builder b = {0};
	char dir[256], path[300];
	mzm_str all = {0};
	bool failed = true;
	(void)state;
	build_spm(&b);
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/v.gguf", dir);
	write_gguf(&b, &all, path);
	size_t live = mzm_mem_live();
	for (long k = 1; failed; k++) {
		mzm_tokenizer *tok = NULL;
		mzm_err err = {0};
		mzm_mem_fail_nth(k);
		mzm_status st = open_gguf(path, &tok, &err);
		failed = mzm_mem_fail_nth(0) >= k;
		mzm_tokenizer_close(tok);
		assert_int_equal(st, failed ? MZM_ENOMEM : MZM_OK);
		assert_int_equal(mzm_mem_live(), live);
		assert_true(k < 100000);
	}
	testing_remove(dir);
}

/* Whatever bytes stand in the metadata: an error or a tokenizer, never worse. */
static void test_random(void **state)
{
	long n = testing_count(300, 20000), n_good = 0;
	(void)state;
	srand(11);
	for (long i = 0; i < n; i++) {
		builder b = {0};
		mzm_tokenizer *tok = NULL;
		mzm_err err = {0};
		if (i & 1)
			build_spm(&b);
		else
			build_bpe(&b, "qwen2", bpe_merges, 2);
		for (int k = rand() % 4; k > 0; k--)
			b.kv.data[(size_t)rand() % b.kv.len] = (char)rand();
		if (open_built(&b, &tok, &err) == MZM_OK)
			n_good++;
		else
			assert_true(err.message[0] != 0);
		mzm_tokenizer_close(tok);
	}
	assert_true(n_good > 0 && n_good < n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),          cmocka_unit_test(test_neox),
		cmocka_unit_test(test_baichuan),
		cmocka_unit_test(test_model_prompts),    cmocka_unit_test(test_big_vocabularies),
		cmocka_unit_test(test_spm),              cmocka_unit_test(test_pre_names),
		cmocka_unit_test(test_none),             cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_large),            cmocka_unit_test(test_random),
		cmocka_unit_test(test_no_memory),        cmocka_unit_test(test_ranks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
