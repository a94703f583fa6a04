/* test_tokenizer_unigram.c - unigram models: SentencePiece's own ids for 269 texts and two models (tests/data/unigram,
 * made by tests/tools/unigram_vectors.py), read from its files and in the steps of published tokenizer.json; the best
 * way against all ways; ties; unknown characters; bytes; tables of replacements. */
#include "testing.h"

#include <jansson.h>
#include <math.h>
#include <time.h>

#include "base/str.h"
#include "format/gguf.h"
#include "format/tokenizer_impl.h"
#include "format/tokenizer_spm.h"
#include "format/tokenizer_write.h"
#include "gguf_build.h"

#define DATA "tests/data/unigram/"
#define MARK "\xe2\x96\x81"

/* ---- opening ---- */

static mzm_tokenizer *must_parse(const char *json, size_t len)
{
	mzm_err err = {0};
	mzm_tokenizer *tok;
	if (mzm_tokenizer_parse(&tok, json, len, NULL, 0, "test", &err) != MZM_OK)
		fail_msg("%s", err.message);
	return tok;
}

static mzm_tokenizer *from_tree(const json_t *root)
{
	char *json = json_dumps(root, JSON_COMPACT);
	assert_non_null(json);
	mzm_tokenizer *tok = must_parse(json, strlen(json));
	free(json);
	return tok;
}

static json_t *model_tree(const char *name)
{
	char path[256];
	size_t len;
	mzm_err err = {0};
	json_t *root;
	snprintf(path, sizeof path, DATA "%s.model", name);
	char *bytes = testing_read(path, &len);
	assert_true(mzm_spm_is(bytes, len));
	if (mzm_spm_tree(&root, bytes, len, &err) != MZM_OK)
		fail_msg("%s", err.message);
	free(bytes);
	return root;
}

/* JSON is easier to read here with ' for ". */
static mzm_tokenizer *open_quoted(const char *text)
{
	char *copy = strdup(text);
	for (char *c = copy; (c = strchr(c, '\'')); c++)
		*c = '"';
	mzm_tokenizer *tok = must_parse(copy, strlen(copy));
	free(copy);
	return tok;
}

/* ---- comparing ---- */

static bool same_ids(const mzm_tokenizer *tok, const char *text, size_t len, const int32_t *want, size_t n_want)
{
	int32_t *ids;
	size_t n;
	mzm_err err = {0};
	if (mzm_tokenize(tok, text, len, 0, &ids, &n, &err) != MZM_OK)
		fail_msg("%s", err.message);
	bool same = n == n_want && memcmp(ids, want, n * sizeof *ids) == 0;
	if (!same) {
		print_message("  \"%.*s\":", (int)(len < 200 ? len : 200), text);
		for (size_t i = 0; i < n && i < 30; i++)
			print_message(" %d", ids[i]);
		print_message("; wanted");
		for (size_t i = 0; i < n_want && i < 30; i++)
			print_message(" %d", want[i]);
		print_message("\n");
	}
	mzm_ids_free(ids);
	return same;
}

#define CHECK_IDS(tok, text, ...)                                                                                      \
	do {                                                                                                           \
		const int32_t want_[] = {-1, __VA_ARGS__};                                                             \
		assert_true(same_ids(tok, text, strlen(text), want_ + 1, sizeof want_ / 4 - 1));                       \
	} while (0)

/* Lines of the texts for which `skip_text` is not true: how many, and how many have SentencePiece's ids. */
static size_t n_same(const mzm_tokenizer *tok, const char *name, bool (*skip_text)(const char *), size_t *n)
{
	char path[256];
	size_t len, same = 0;
	char *texts = testing_read(DATA "texts.txt", &len), *text = texts;
	snprintf(path, sizeof path, DATA "%s.ids.txt", name);
	char *lines = testing_read(path, &len), *line = lines;
	for (*n = 0; *text; text += strlen(text) + 1, line += strlen(line) + 1) {
		int32_t want[1024];
		assert_non_null(strchr(text, '\n'));
		*strchr(text, '\n') = 0;
		*strchr(line, '\n') = 0;
		if (skip_text && skip_text(text))
			continue;
		++*n;
		same += same_ids(tok, text, strlen(text), want, testing_parse_ids(line, want, 1024));
	}
	free(texts);
	free(lines);
	print_message("%s: %zu of %zu\n", name, same, *n);
	return same;
}

/* ---- against SentencePiece ---- */

static void check_all(const json_t *root, const char *name, bool (*skip_text)(const char *), size_t n_least)
{
	size_t n, same;
	mzm_tokenizer *tok = from_tree(root);
	same = n_same(tok, name, skip_text, &n);
	assert_int_equal(same, n);
	assert_true(n >= n_least);
	mzm_tokenizer_close(tok);
}

static void test_vectors(void **state)
{
	static const char *const names[] = {"nfkc", "bytes"};
	(void)state;
	for (int i = 0; i < 2; i++) {
		json_t *root = model_tree(names[i]);
		check_all(root, names[i], NULL, 269);
		json_decref(root);
	}
}

/* U+0085 is a blank to the steps of published files, to SentencePiece it is not. */
static bool holds_next_line(const char *text)
{
	return strstr(text, "\xc2\x85") != NULL;
}

/* A Metaspace step puts no second mark in front of a blank. */
static bool starts_blank(const char *text)
{
	return *text == ' ';
}

static void set_steps(json_t *root, const char *normalizer, const char *pre)
{
	const char *const texts[] = {normalizer, pre}, *const names[] = {"normalizer", "pre_tokenizer"};
	for (int i = 0; i < 2; i++) {
		char *copy = strdup(texts[i]);
		for (char *c = copy; (c = strchr(c, '\'')); c++)
			*c = '"';
		json_t *step = json_loads(copy, JSON_DECODE_ANY, NULL);
		assert_non_null(step);
		json_object_set_new(root, names[i], step);
		free(copy);
	}
}

/* As published: the table, blanks at the end, runs of blanks, Metaspace; by its old and its new members; T5's steps. */
static void test_published_steps(void **state)
{
	static const char *const
		old = "{'type':'Metaspace','replacement':'" MARK "','add_prefix_space':true}",
		*const new = "{'type':'Metaspace','replacement':'" MARK "','prepend_scheme':'always','split':true}",
		*const t5 = "{'type':'Sequence','pretokenizers':[{'type':'WhitespaceSplit'},{'type':'Metaspace',"
			    "'replacement':'" MARK "','add_prefix_space':true}]}",
		*const rest = "{'type':'Sequence','normalizers':["
			      "{'type':'Strip','strip_left':false,'strip_right':true},"
			      "{'type':'Replace','pattern':{'Regex':' {2,}'},'content':'" MARK "'}]}";
	(void)state;
	json_t *root = model_tree("nfkc"), *list = json_object_get(json_object_get(root, "normalizer"), "normalizers");
	json_t *table = json_incref(json_array_get(list, 0));
	assert_string_equal(json_string_value(json_object_get(table, "type")), "Precompiled");
	for (int i = 0; i < 3; i++) {
		set_steps(root, i == 2 ? "{'type':'Sequence','normalizers':[]}" : rest,
			  i == 0   ? old
			  : i == 1 ? new
				   : t5);
		json_array_insert(json_object_get(json_object_get(root, "normalizer"), "normalizers"), 0, table);
		check_all(root, "nfkc", holds_next_line, 240);
	}
	json_decref(table);
	json_decref(root);
	root = model_tree("bytes");
	for (int i = 0; i < 2; i++) {
		set_steps(root, "null", i == 0 ? old : new);
		check_all(root, "bytes", starts_blank, 230);
	}
	json_decref(root);
}

/* ---- the same models as GGUF files ---- */

static unsigned sextet(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = strchr(digits, c);
	return at ? (unsigned)(at - digits) : 0;
}

static void add_table(gb *g, const json_t *root)
{
	const json_t *list = json_object_get(json_object_get(root, "normalizer"), "normalizers");
	const char *s = json_string_value(json_object_get(json_array_get(list, 0), "precompiled_charsmap"));
	if (!s)
		return;
	size_t len = strlen(s), n = len / 4 * 3 - (s[len - 1] == '=') - (s[len - 2] == '=');
	gb_key(g, "tokenizer.ggml.precompiled_charsmap", 9);
	gb_u32(&g->meta, 1); /* i8 */
	gb_u64(&g->meta, n);
	for (size_t i = 0; i < n; i++) {
		const char *four = s + i / 3 * 4;
		unsigned bits = sextet(four[0]) << 18 | sextet(four[1]) << 12 | sextet(four[2]) << 6 | sextet(four[3]);
		gb_add(&g->meta, &(uint8_t){(uint8_t)(bits >> (16 - 8 * (i % 3)))}, 1);
	}
}

/* Types: unknown and control as in added_tokens, bytes by their names. */
static uint32_t type_of(const json_t *root, size_t id, const char *content)
{
	const json_t *one;
	size_t i;
	json_array_foreach(json_object_get(root, "added_tokens"), i,
			   one) if ((size_t)json_integer_value(json_object_get(one, "id")) == id) return id ==
			(size_t)json_integer_value(json_object_get(json_object_get(root, "model"), "unk_id"))
		? 2
		: 3;
	return mzm_byte_of_name(content, strlen(content)) >= 0 ? 6 : 1;
}

static mzm_status open_gguf(const gb *g, mzm_tokenizer **tok, mzm_err *err)
{
	char dir[256], path[300], *json = NULL, *config = NULL;
	mzm_gguf *file = NULL;
	gb_bytes bytes = gb_file(g);
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/v.gguf", dir);
	testing_write(path, bytes.p, bytes.n);
	free(bytes.p);
	mzm_status st = mzm_gguf_open(&file, path, err);
	if (st == MZM_OK)
		st = mzm_gguf_tokenizer_json(&json, &config, file, err);
	if (st == MZM_OK)
		st = mzm_tokenizer_parse(tok, json, strlen(json), config, strlen(config), "gguf", err);
	mzm_free(json);
	mzm_free(config);
	mzm_gguf_close(file);
	testing_remove(dir);
	return st;
}

static gb as_gguf(const json_t *root)
{
	gb g = {.magic = "GGUF", .version = 3, .alignment = 32};
	const json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab"), *pair;
	size_t n = json_array_size(vocab), i;
	gb_string(&g, "tokenizer.ggml.model", "t5");
	for (int part = 0; part < 3; part++) {
		static const char *const keys[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.scores",
						   "tokenizer.ggml.token_type"};
		gb_key(&g, keys[part], 9);
		gb_u32(&g.meta, part == 0 ? 8 : part == 1 ? 6 : 5);
		gb_u64(&g.meta, n);
		json_array_foreach(vocab, i, pair)
		{
			const char *content = json_string_value(json_array_get(pair, 0));
			float score = (float)json_number_value(json_array_get(pair, 1));
			if (part == 0)
				gb_text(&g.meta, content);
			else if (part == 1)
				gb_add(&g.meta, &score, 4);
			else
				gb_u32(&g.meta, type_of(root, i, content));
		}
	}
	gb_int(&g, "tokenizer.ggml.unknown_token_id",
	       (uint32_t)json_integer_value(json_object_get(json_object_get(root, "model"), "unk_id")));
	return g;
}

static void test_gguf(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		const char *name = i ? "bytes" : "nfkc";
		mzm_err err = {0};
		mzm_tokenizer *tok;
		size_t n, same;
		json_t *root = model_tree(name);
		gb g = as_gguf(root);
		add_table(&g, root);
		gb_flag(&g, i ? "tokenizer.ggml.add_space_prefix" : "tokenizer.ggml.remove_extra_whitespaces", 1);
		if (open_gguf(&g, &tok, &err) != MZM_OK)
			fail_msg("%s", err.message);
		same = n_same(tok, name, NULL, &n);
		assert_int_equal(same, n);
		assert_int_equal(n, 269);
		int32_t *ids;
		assert_int_equal(mzm_tokenize(tok, "", 0, MZM_TOK_ADD_SPECIAL, &ids, &n, NULL), MZM_OK);
		assert_int_equal(n, 1);
		assert_int_equal(ids[0], 1); /* T5's </s>, where the file does not say */
		mzm_ids_free(ids);
		mzm_tokenizer_close(tok);
		gb_flag(&g, "tokenizer.ggml.treat_whitespace_as_suffix", 1);
		assert_int_equal(open_gguf(&g, &tok, &err), MZM_EUNSUPPORTED);
		assert_non_null(strstr(err.message, "treat_whitespace_as_suffix"));
		gb_free(&g);
		json_decref(root);
	}
}

/* Without a table and with all bytes, whatever goes in comes back. */
static void test_round_trip(void **state)
{
	json_t *root = model_tree("bytes");
	mzm_tokenizer *tok = from_tree(root);
	uint64_t rng = 3;
	(void)state;
	for (int i = 0; i < 3000; i++) {
		char s[96], *back;
		int32_t *ids;
		size_t len = testing_random(&rng) % sizeof s, n, n_back, used = 0, k;
		for (size_t j = 0; j < len; j++)
			s[j] = (char)(i & 1 ? testing_random(&rng)
					    : (uint64_t) "Uma has \n\xe2\x82\xac\xf0\x9f\x98\x80 12"
						      [testing_random(&rng) % 20]);
		if (memmem(s, len, MARK, 3))
			continue;
		assert_int_equal(mzm_tokenize(tok, s, len, 0, &ids, &n, NULL), MZM_OK);
		char *all = malloc(len + 1);
		for (size_t j = 0; j < n; j++) {
			const char *bytes = mzm_token_bytes(tok, ids[j], &k);
			assert_true(used + k <= len + 1);
			memcpy(all + used, bytes, k);
			used += k;
		}
		assert_int_equal(used, len ? len + 1 : 0);
		assert_memory_equal(all + (len > 0), s, len);
		assert_int_equal(mzm_detokenize(tok, ids, n, &back, &n_back, NULL), MZM_OK);
		if (mzm_utf8_valid(s, len) == len) {
			assert_int_equal(n_back, len);
			assert_memory_equal(back, s, len);
		}
		free(all);
		mzm_string_free(back);
		mzm_ids_free(ids);
	}
	mzm_tokenizer_close(tok);
	json_decref(root);
}

/* ---- the best way ---- */

typedef struct small {
	char text[16][8];
	double score[16];
	int n;
} small;

/* The best sum over all ways to cut s; -INFINITY: there is none. */
static double best_of_all(const small *v, const char *s)
{
	double best = *s ? -INFINITY : 0;
	for (int i = 0; i < v->n; i++) {
		size_t len = strlen(v->text[i]);
		if (strncmp(s, v->text[i], len) == 0)
			best = fmax(best, v->score[i] + best_of_all(v, s + len));
	}
	return best;
}

static mzm_tokenizer *random_small(small *v, uint64_t *rng)
{
	json_t *list = json_pack("[[s,i]]", "<unk>", 0);
	v->n = 0;
	for (int tries = 0; tries < 30 && v->n < 12; tries++) {
		char *t = v->text[v->n];
		size_t len = v->n < 3 ? 1 : 2 + testing_random(rng) % 4;
		for (size_t k = 0; k < len; k++)
			t[k] = (char)('a' + (v->n < 3 ? (uint64_t)v->n : testing_random(rng) % 3));
		t[len] = 0;
		bool twice = false;
		for (int i = 0; i < v->n; i++)
			twice |= strcmp(v->text[i], t) == 0;
		if (twice)
			continue;
		v->score[v->n] = -(double)(1 + testing_random(rng) % 6) * (double)len * 0.5; /* many are equal */
		json_array_append_new(list, json_pack("[s,f]", t, v->score[v->n]));
		v->n++;
	}
	json_t *root = json_pack("{s:{s:s,s:i,s:o}}", "model", "type", "Unigram", "unk_id", 0, "vocab", list);
	mzm_tokenizer *tok = from_tree(root);
	json_decref(root);
	return tok;
}

static void test_best_way(void **state)
{
	uint64_t rng = 9;
	(void)state;
	for (int i = 0; i < 400; i++) {
		small v;
		mzm_tokenizer *tok = random_small(&v, &rng);
		for (int k = 0; k < 10; k++) {
			char s[12] = {0};
			int32_t *ids;
			size_t n, used = 0, len = 1 + testing_random(&rng) % 10;
			double sum = 0;
			for (size_t j = 0; j < len; j++)
				s[j] = (char)('a' + testing_random(&rng) % 3);
			assert_int_equal(mzm_tokenize(tok, s, len, 0, &ids, &n, NULL), MZM_OK);
			for (size_t j = 0; j < n; j++) {
				assert_true(ids[j] > 0 && ids[j] <= v.n);
				const char *t = v.text[ids[j] - 1];
				assert_int_equal(strncmp(s + used, t, strlen(t)), 0);
				used += strlen(t);
				sum += v.score[ids[j] - 1];
			}
			assert_int_equal(used, len);
			assert_true(sum == best_of_all(&v, s));
			mzm_ids_free(ids);
		}
		mzm_tokenizer_close(tok);
	}
}

#define UNIGRAM(members, vocab) "{'model':{'type':'Unigram'," members "'vocab':[" vocab "]}}"

/* Of equal ways the one whose last token starts first, as in the reference. */
static void test_ties(void **state)
{
	(void)state;
	mzm_tokenizer *tok = open_quoted(UNIGRAM("'unk_id':0,", "['<unk>',0],['a',-1],['b',-1],['ab',-2],['aa',-2]"));
	CHECK_IDS(tok, "ab", 3);
	CHECK_IDS(tok, "aaa", 1, 4);
	CHECK_IDS(tok, "aaaa", 4, 4);
	mzm_tokenizer_close(tok);
}

static void test_unknown(void **state)
{
	(void)state;
	mzm_tokenizer *tok = open_quoted(UNIGRAM("'unk_id':0,", "['<unk>',0],['a',-1],['zb',-3]"));
	CHECK_IDS(tok, "zz", 0);
	CHECK_IDS(tok,
		  "\xc3\xa9"
		  "aqz\xe2\x82\xac"
		  "aa",
		  0, 1, 0, 1, 1);
	CHECK_IDS(tok, "zzb", 0, 2);
	CHECK_IDS(tok, "<unk>", 0);
	CHECK_IDS(tok,
		  "\xff\xfe"
		  "a\x80",
		  0, 1, 0);
	CHECK_IDS(tok, "", );
	mzm_tokenizer_close(tok);
	tok = open_quoted(UNIGRAM("", "['a',-1]"));
	CHECK_IDS(tok, "zaz", 0);
	mzm_tokenizer_close(tok);
	/* bytes where all of the unknown text has them */
	tok = open_quoted(
		UNIGRAM("'byte_fallback':true,'unk_id':0,", "['<unk>',0],['a',-1],['<0xC3>',0],['<0xA9>',0],['',-2]"));
	CHECK_IDS(tok, "a\xc3\xa9", 1, 2, 3);
	CHECK_IDS(tok, "a\xc3\xa9z", 1, 0);
	CHECK_IDS(tok, "\xc3", 2);
	CHECK_IDS(tok, "<0xC3>", 0);
	mzm_tokenizer_close(tok);
	/* special tokens are not found in text, unless they are looked for */
	tok = open_quoted(
		"{'added_tokens':[{'id':1,'content':'<s>','special':true}],'model':{'type':'Unigram','unk_id':0,"
		"'vocab':[['<unk>',0],['<s>',0],['<',-1],['s',-1],['>',-1]]}}");
	CHECK_IDS(tok, "<s>", 2, 3, 4);
	mzm_tokenizer_close(tok);
}

/* ---- long texts ---- */

static double seconds_of(const mzm_tokenizer *tok, const char *unit, size_t len)
{
	struct timespec t[2];
	size_t k = strlen(unit), n;
	char *text = malloc(len);
	int32_t *ids;
	for (size_t i = 0; i < len; i++)
		text[i] = unit[i % k];
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t[0]);
	assert_int_equal(mzm_tokenize(tok, text, len, 0, &ids, &n, NULL), MZM_OK);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t[1]);
	mzm_ids_free(ids);
	free(text);
	return (double)(t[1].tv_sec - t[0].tv_sec) + (double)(t[1].tv_nsec - t[0].tv_nsec) * 1e-9;
}

static void test_long_texts(void **state)
{
	static const char *const names[] = {"nfkc", "bytes"};
	static const char *const units[] = {
		"a", " ", "a ", "\t", "\xcc\x81", "e\xcc\x81", "\xf0\x9f\x98\x80", "\x80", "\xe1\x84\x80"};
	const size_t len = (size_t)1 << (getenv("MIRZAM_SHORT") ? 14 : 16);
	(void)state;
	for (int i = 0; i < 2; i++) {
		json_t *root = model_tree(names[i]);
		mzm_tokenizer *tok = from_tree(root);
		for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
			double few = seconds_of(tok, units[u], len), many = seconds_of(tok, units[u], 16 * len);
			if (many > 80 * (few + 0.01)) /* linear: 16, quadratic: 256 */
				fail_msg("%s, unit %zu: %.3f s, 16 times as much %.3f s", names[i], u, few, many);
		}
		mzm_tokenizer_close(tok);
		json_decref(root);
	}
}

/* ---- hostile files ---- */

/* An error with words, or a tokenizer that works. */
static bool survives(const char *bytes, size_t len)
{
	static const char text[] = "  Uma\thas \xef\xac\x81 \xe1\x84\x80\xe1\x85\xa1 e\xcc\x81 \xff stickers ";
	json_t *root = NULL;
	char *json, *exact = malloc(len ? len : 1), *back;
	mzm_err err = {0};
	size_t live = mzm_mem_live(), n, n_back;
	mzm_tokenizer *tok = NULL;
	int32_t *ids;
	memcpy(exact, bytes, len);
	mzm_status st = mzm_spm_tree(&root, exact, len, &err);
	if (st == MZM_OK) {
		assert_int_equal(mzm_tokenizer_text(&json, root, &err), MZM_OK);
		st = mzm_tokenizer_parse(&tok, json, strlen(json), NULL, 0, "damaged", &err);
		mzm_free(json);
	}
	assert_true(st == MZM_OK || err.message[0]);
	if (tok && mzm_tokenize(tok, text, sizeof text - 1, 0, &ids, &n, NULL) == MZM_OK) {
		assert_int_equal(mzm_detokenize(tok, ids, n, &back, &n_back, NULL), MZM_OK);
		mzm_string_free(back);
		mzm_ids_free(ids);
	}
	mzm_tokenizer_close(tok);
	json_decref(root);
	free(exact);
	assert_int_equal(mzm_mem_live(), live);
	return st == MZM_OK;
}

static void test_damaged_models(void **state)
{
	size_t len, n_good = 0, n_tried = 0;
	uint64_t rng = 4;
	(void)state;
	char *bytes = testing_read(DATA "bytes.model", &len);
	for (size_t n = 0; n < len; n += getenv("MIRZAM_SHORT") ? 37 : 1)
		survives(bytes, n);
	free(bytes);
	/* the table of replacements is most of this one */
	for (long i = testing_count(60, 5000); i > 0; i--, n_tried++) {
		bytes = testing_read(DATA "nfkc.model", &len);
		for (uint64_t k = testing_random(&rng) % 4; k < 4; k++) {
			size_t at = testing_random(&rng) % (i & 1 ? len : len - 8192) + (i & 1 ? 0 : 8192);
			bytes[at] = (char)testing_random(&rng);
		}
		n_good += survives(bytes, len);
		free(bytes);
	}
	print_message("%zu of %zu damaged models are taken\n", n_good, n_tried);
	assert_true(n_good < n_tried);
}

typedef struct table {
	uint32_t bytes, units[600];
	char texts[4];
} table;

static mzm_status parse_table(mzm_charsmap **map, const void *blob, size_t n, mzm_err *err)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *b = blob;
	char text[8192];
	size_t len = 0;
	for (size_t i = 0; i < n; i += 3) {
		uint32_t bits =
			(uint32_t)b[i] << 16 | (i + 1 < n ? (uint32_t)b[i + 1] << 8 : 0) | (i + 2 < n ? b[i + 2] : 0);
		for (int k = 3; k >= 0; k--)
			text[len++] = digits[bits >> (6 * k) & 63];
	}
	len -= n % 3 ? 3 - n % 3 : 0;
	return mzm_charsmap_parse(map, text, len, err);
}

/* A trie whose every 'a' leads back to where it came from, and what each check of a table refuses. */
static void test_hostile_tables(void **state)
{
	static table t;
	mzm_charsmap *map;
	mzm_err err = {0};
	mzm_str out = {0};
	char many[5000];
	(void)state;
	memset(many, 'a', sizeof many);
	t.bytes = sizeof t.units;
	t.units[0] = 256u << 10;                                  /* the root: children from 256 */
	t.units[256 ^ 'a'] = 'a' | (uint32_t)'a' << 10 | 1u << 8; /* back to 256, where a value stands */
	t.units[256] = 1u << 31 | 1;                              /* texts[1] */
	memcpy(t.texts, "\0x\0", 4);
	if (parse_table(&map, &t, sizeof t, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(mzm_charsmap_apply(&out, map, many, sizeof many, 1 << 20, &err), MZM_OK);
	assert_int_equal(out.len, (sizeof many + 255) / 256); /* each key is as long as keys may be */
	mzm_str_free(&out);
	mzm_charsmap_free(map);
	t.units[256] = 1u << 31 | 4;
	assert_int_equal(parse_table(&map, &t, sizeof t, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "names no text"));
	t.units[256] = 1u << 31 | 1;
	const struct {
		uint32_t bytes;
		const char *texts, *words;
	} cases[] = {{sizeof t.units + 8, "\0x\0", "a trie of"},
		     {3, "\0x\0", "a trie of"},
		     {0, "\0x\0", "a trie of"},
		     {sizeof t.units, "\0xyz", "no end"},
		     {sizeof t.units, "\0\xff\0", "UTF-8"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		err = (mzm_err){0};
		t.bytes = cases[i].bytes;
		memcpy(t.texts, cases[i].texts, 4);
		assert_int_equal(parse_table(&map, &t, sizeof t, &err), MZM_EFORMAT);
		assert_non_null(strstr(err.message, cases[i].words));
		assert_null(map);
	}
	assert_int_equal(mzm_charsmap_parse(&map, "ab*d", 4, NULL), MZM_EFORMAT);
	assert_int_equal(mzm_charsmap_parse(&map, "", 0, NULL), MZM_EFORMAT);
}

/* The k-th allocation fails, for every k. */
static void test_no_memory(void **state)
{
	size_t len, live = mzm_mem_live();
	bool failed = true;
	(void)state;
	char *bytes = testing_read(DATA "bytes.model", &len);
	for (long k = 1; failed; k++) {
		json_t *root = NULL;
		char *json = NULL;
		mzm_tokenizer *tok = NULL;
		int32_t *ids = NULL;
		size_t n;
		mzm_mem_fail_nth(k);
		mzm_status st = mzm_spm_tree(&root, bytes, len, NULL);
		if (st == MZM_OK)
			st = mzm_tokenizer_text(&json, root, NULL);
		if (st == MZM_OK)
			st = mzm_tokenizer_parse(&tok, json, strlen(json), NULL, 0, "x", NULL);
		if (st == MZM_OK)
			st = mzm_tokenize(tok, "Uma has \xc3\xa9", 10, 0, &ids, &n, NULL);
		failed = mzm_mem_fail_nth(0) >= k;
		mzm_ids_free(ids);
		mzm_tokenizer_close(tok);
		mzm_free(json);
		json_decref(root);
		assert_int_equal(st, failed ? MZM_ENOMEM : MZM_OK);
		assert_int_equal(mzm_mem_live(), live);
		assert_true(k < 100000);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),        cmocka_unit_test(test_published_steps),
		cmocka_unit_test(test_gguf),           cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_best_way),       cmocka_unit_test(test_ties),
		cmocka_unit_test(test_unknown),        cmocka_unit_test(test_long_texts),
		cmocka_unit_test(test_damaged_models), cmocka_unit_test(test_hostile_tables),
		cmocka_unit_test(test_no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
