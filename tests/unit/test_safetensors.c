/* test_safetensors.c - safetensors headers and shard sets: valid forms, and every way to lie that we know.
 * The last tests go through mzm_source_open, where names and shapes are matched with the model. */
#include "hf_build.h"

#include <time.h>

#include "base/io.h"
#include "base/mem.h"
#include "format/safetensors.h"
#include "format/source.h"

static mzm_status parse(const char *json, uint64_t data_bytes, mzm_st_header *h, mzm_err *err)
{
	*err = (mzm_err){0};
	return mzm_st_header_parse(h, json, strlen(json), data_bytes, err);
}

static void bad(const char *json, uint64_t data_bytes, mzm_status code, const char *word)
{
	mzm_st_header h;
	mzm_err err;
	mzm_status st = parse(json, data_bytes, &h, &err);
	if (st != code || !strstr(err.message, word))
		fail_msg("%s: status %d, wanted %d and \"%s\": %s", json, st, code, word, err.message);
	assert_null(h.tensors);
}

#define T(name, dtype, shape, begin, end) \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void test_header(void **state)
{
	(void)state;
	mzm_st_header h;
	mzm_err err;
	mzm_dtype dtype;
	assert_int_equal(parse("{" T("b", "BF16", "[2,3]", 8, 20) "," T(
				       "a", "F32", "[2]", 0,
				       8) ",\"__metadata__\":{\"x\":\"y\"}," T("e1", "F16", "[0,7]", 20,
									       20) "," T("e2", "I8", "[0]", 20,
											 20) "," T("s", "F64", "[]", 20,
												   28) "}   ",
			       28, &h, &err),
			 MZM_OK);
	assert_int_equal(h.n, 5);
	assert_string_equal(h.tensors[0].name, "a");
	assert_string_equal(h.tensors[1].name, "b");
	assert_true(h.tensors[1].n_dims == 2 && h.tensors[1].shape[1] == 3 && h.tensors[1].begin == 8);
	assert_true(mzm_st_dtype(&dtype, &h.tensors[1]) && dtype == MZM_BF16);
	assert_true(mzm_st_dtype(&dtype, &h.tensors[0]) && dtype == MZM_F32);
	assert_true(mzm_st_dtype(&dtype, &h.tensors[2]) && dtype == MZM_F16);
	assert_false(mzm_st_dtype(&dtype, &h.tensors[3]));
	mzm_st_header_free(&h);
	assert_int_equal(parse("{}", 0, &h, &err), MZM_OK);
	assert_int_equal(h.n, 0);
	mzm_st_header_free(&h);
	mzm_st_header_free(&h); /* twice is harmless */
}

static void test_header_length(void **state)
{
	(void)state;
	size_t n;
	uint8_t first[8] = {16, 0, 0, 0, 0, 0, 0, 0};
	assert_int_equal(mzm_st_header_bytes(&n, first, 24, NULL), MZM_OK);
	assert_int_equal(n, 16);
	assert_int_equal(mzm_st_header_bytes(&n, first, 23, NULL), MZM_EFORMAT);
	assert_int_equal(mzm_st_header_bytes(&n, first, 4, NULL), MZM_EFORMAT);
	first[0] = 1;
	assert_int_equal(mzm_st_header_bytes(&n, first, 24, NULL), MZM_EFORMAT);
	first[7] = 0x80;
	assert_int_equal(mzm_st_header_bytes(&n, first, UINT64_MAX, NULL), MZM_EFORMAT);
	memset(first, 0xff, 8);
	assert_int_equal(mzm_st_header_bytes(&n, first, UINT64_MAX, NULL), MZM_EFORMAT);
	memcpy(first, "\x01\xe1\xf5\x05\0\0\0\0", 8); /* 100,000,001 */
	assert_int_equal(mzm_st_header_bytes(&n, first, 1u << 30, NULL), MZM_EFORMAT);
	first[0] = 0;
	assert_int_equal(mzm_st_header_bytes(&n, first, 1u << 30, NULL), MZM_OK);
}

static void test_header_lies(void **state)
{
	(void)state;
	bad("", 0, MZM_EFORMAT, "object");
	bad("[]", 0, MZM_EFORMAT, "object");
	bad(" {}", 0, MZM_EFORMAT, "object");
	bad("{", 0, MZM_EFORMAT, "header");
	bad("{\"a\xff\":1}", 0, MZM_EFORMAT, "decode");
	bad("{\"a\":1}", 0, MZM_EFORMAT, "tensor a");
	bad("{\"\":{}}", 0, MZM_EFORMAT, "name");
	bad("{\"a\\u001b[2J\":{}}", 0, MZM_EFORMAT, "name");
	bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, MZM_EFORMAT, "tensor a");
	bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, MZM_EFORMAT, "tensor a");
	bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[[[[[1]]]]],\"data_offsets\":[0,4]}}", 4, MZM_EFORMAT, "shape");
	bad("{" T("a", "F31", "[1]", 0, 4) "}", 4, MZM_EUNSUPPORTED, "F31");
	bad("{" T("a", "F32\\u0000", "[1]", 0, 4) "}", 4, MZM_EFORMAT, "dtype");
	bad("{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, MZM_EFORMAT, "dtype");
	bad("{" T("a", "F32", "[-1]", 0, 4) "}", 4, MZM_EFORMAT, "shape");
	bad("{" T("a", "F32", "[1.5]", 0, 6) "}", 6, MZM_EFORMAT, "shape");
	bad("{" T("a", "F32", "[\"1\"]", 0, 4) "}", 4, MZM_EFORMAT, "shape");
	bad("{" T("a", "F32", "7", 0, 28) "}", 28, MZM_EFORMAT, "shape");
	bad("{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, MZM_EFORMAT, "shape");
	bad("{" T("a", "F32", "[4611686018427387903]", 0, 4) "}", 4, MZM_EFORMAT, "shape"); /* 2^62 - 1 elements */
	bad("{" T("a", "F32", "[4,1073741823,1073741825]", 0, 4) "}", 4, MZM_EFORMAT, "spans"); /* 2^64 - 16 bytes */
	bad("{" T("a", "F32", "[4294967296,4294967296]", 0, 4) "}", 4, MZM_EFORMAT, "elements");
	bad("{" T("a", "F32", "[2]", 8, 0) "}", 8, MZM_EFORMAT, "behind");
	bad("{" T("a", "F32", "[2]", 0, 4) "}", 4, MZM_EFORMAT, "spans 4 bytes, but dtype and shape need 8");
	bad("{" T("a", "F32", "[1]", -4, 0) "}", 4, MZM_EFORMAT, "data_offsets");
	bad("{" T("a", "F32", "[2]", 0, 8) "}", 4, MZM_EFORMAT, "past the end");
	bad("{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 8, 12) "}", 12, MZM_EFORMAT, "hole");
	bad("{" T("a", "F32", "[1]", 4, 8) "}", 8, MZM_EFORMAT, "hole");
	bad("{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[1]", 4, 8) "}", 8, MZM_EFORMAT, "overlap");
	bad("{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 0, 4) "}", 4, MZM_EFORMAT, "overlap");
	bad("{" T("a", "F32", "[1]", 0, 4) "," T("z", "F32", "[0]", 2, 2) "}", 4, MZM_EFORMAT, "overlap");
	bad("{" T("a", "F32", "[1]", 0, 4) "}", 5, MZM_EFORMAT, "follow the last");
	bad("{" T("a", "F32", "[1]", 0, 4) "," T("a", "F32", "[1]", 4, 8) "}", 8, MZM_EFORMAT, "duplicate");
	bad("{\"__metadata__\":[]}", 0, MZM_EFORMAT, "__metadata__");
	bad("{\"__metadata__\":{\"a\":1}}", 0, MZM_EFORMAT, "__metadata__");
	char deep[8192] = "{\"a\":"; /* deeper than the parser's own limit */
	memset(deep + 5, '[', 5000);
	bad(deep, 0, MZM_EFORMAT, "depth");
}

static void test_map(void **state)
{
	(void)state;
	mzm_st_map map;
	const char *ok = "{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\",\"c\":\"2.safetensors\"}}";
	assert_int_equal(mzm_st_map_parse(&map, ok, strlen(ok), NULL), MZM_OK);
	assert_true(map.n_files == 2 && map.n_tensors == 3);
	assert_string_equal(map.files[0], "1.safetensors");
	mzm_st_map_free(&map);
	static const char *const wrong[] = {
		"",
		"{}",
		"[]",
		"{\"weight_map\":[]}",
		"{\"weight_map\":{}}",
		"{\"weight_map\":{\"a\":1}}",
		"{\"weight_map\":{\"a\":\"../x\"}}",
		"{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
		"{\"weight_map\":{\"a\":\"..\"}}",
		"{\"weight_map\":{\"a\":\"x/y\"}}",
		"{\"weight_map\":{\"a\":\"\"}}",
		"{\"weight_map\":{\"a\":\"x\\u0000y\"}}",
		"{\"weight_map\":{\"\":\"x\"}}",
		"{\"weight_map\":{\"a\":\"x\",\"a\":\"x\"}}",
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		mzm_err err = {0};
		if (mzm_st_map_parse(&map, wrong[i], strlen(wrong[i]), &err) != MZM_EFORMAT || !err.message[0])
			fail_msg("accepted: %s", wrong[i]);
	}
	char *many = malloc(64 * 1100);
	size_t n = (size_t)sprintf(many, "{\"weight_map\":{");
	for (int i = 0; i < 1001; i++)
		n += (size_t)sprintf(many + n, "%s\"t%d\":\"f%d\"", i ? "," : "", i, i);
	n += (size_t)sprintf(many + n, "}}");
	assert_int_equal(mzm_st_map_parse(&map, many, n, NULL), MZM_EUNSUPPORTED);
	free(many);
}

/* ---- whole directories ---- */

static char dir[256];

static int make_dir(void **state)
{
	(void)state;
	testing_temp_dir(dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	testing_remove(dir);
	return 0;
}

/* Opens what b says; the message must hold `word` (NULL: it must open and every tensor must be readable). */
static void open_expect(hf_build *b, mzm_status code, const char *word)
{
	mzm_source *src;
	mzm_err err = {0};
	size_t live = mzm_mem_live();
	testing_remove(dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	hf_write(b, dir);
	mzm_status st = mzm_source_open(&src, dir, &err);
	if (st == MZM_OK) {
		for (int32_t i = 0; i < mzm_tensor_count(mzm_source_config(src)) && st == MZM_OK; i++) {
			mzm_tensor t = mzm_source_tensor(src, i);
			void *data = malloc(mzm_tensor_bytes(&t));
			st = mzm_source_read(src, i, data, &err);
			free(data);
		}
		mzm_source_close(src);
	}
	if (st != code || (word && !strstr(err.message, word)))
		fail_msg("status %d, wanted %d and \"%s\": %s", st, code, word ? word : "", err.message);
	assert_int_equal(mzm_mem_live(), live);
	hf_free(b);
}

static void test_dir_forms(void **state)
{
	(void)state;
	static const char *const dtypes[] = {"F32", "F16", "BF16"};
	for (int i = 0; i < 12; i++) {
		hf_build b;
		hf_init(&b, dtypes[i % 3], i % 2);
		b.n_shards = i / 3;
		open_expect(&b, MZM_OK, NULL);
	}
}

static void test_dir_tensors(void **state)
{
	(void)state;
	hf_build b;
	hf_init(&b, "F32", true);
	hf_drop(&b, "model.layers.1.mlp.up_proj.weight");
	open_expect(&b, MZM_EFORMAT, "model.layers.1.mlp.up_proj.weight [6, 8] is missing");
	hf_init(&b, "F32", false);
	hf_drop(&b, "lm_head.weight");
	open_expect(&b, MZM_EFORMAT, "lm_head.weight [300, 8] is missing");
	hf_init(&b, "F32", true);
	hf_add(&b, "model.layers.2.input_layernorm.weight", "F32", 8, 0);
	open_expect(&b, MZM_EUNSUPPORTED, "model.layers.2.input_layernorm.weight");
	hf_init(&b, "F32", true);
	hf_add(&b, "model.layers.0.self_attn.q_proj.bias", "F32", 8, 0);
	open_expect(&b, MZM_EUNSUPPORTED, "q_proj.bias");
	hf_init(&b, "F32", true);
	hf_remake(&b, "model.layers.0.mlp.down_proj.weight", "F32", 6, 8);
	open_expect(&b, MZM_EFORMAT, "expected shape [8, 6], found [6, 8]");
	hf_init(&b, "F32", true);
	hf_remake(&b, "model.norm.weight", "F32", 1, 8);
	open_expect(&b, MZM_EFORMAT, "expected shape [8], found [1, 8]");
	hf_init(&b, "F32", true);
	hf_remake(&b, "model.layers.0.mlp.gate_proj.weight", "I8", 6, 8);
	open_expect(&b, MZM_EUNSUPPORTED, "model.layers.0.mlp.gate_proj.weight: type I8");
}

static void test_dir_ignored(void **state)
{
	(void)state;
	hf_build b;
	hf_init(&b, "F32", true);
	hf_add(&b, "model.layers.0.self_attn.rotary_emb.inv_freq", "F32", 2, 0);
	hf_add(&b, "lm_head.weight", "F32", 300, 8); /* tied: ignored, as Hugging Face does */
	open_expect(&b, MZM_OK, NULL);
	hf_init(&b, "F32", true);
	hf_add(&b, "lm_head.weight", "F32", 300, 4);
	open_expect(&b, MZM_EFORMAT, "lm_head.weight");
}

static void test_dir_nonfinite(void **state)
{
	(void)state;
	static const struct {
		const char *dtype;
		uint32_t bits;
	} cases[] = {{"F32", 0x7fc00000u}, {"F32", 0xff800000u}, {"F16", 0x7c00u},
		     {"F16", 0xfe00u},     {"BF16", 0x7f80u},    {"BF16", 0xffc0u}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		hf_build b;
		hf_init(&b, cases[i].dtype, true);
		hf_weight *w = hf_find(&b, "model.layers.1.mlp.down_proj.weight");
		size_t width = hf_width(w->dtype);
		memcpy(w->data + 3 * width, &cases[i].bits, width);
		memcpy(w->data + 17 * width, &cases[i].bits, width);
		open_expect(&b, MZM_EFORMAT, "layers.1.updown: 2 weights are NaN or infinite");
	}
}

/* Up and down of different types are widened; elsewhere each tensor keeps its own. */
static void test_dir_mixed_types(void **state)
{
	(void)state;
	hf_build b;
	hf_init(&b, "BF16", true);
	hf_remake(&b, "model.layers.0.mlp.up_proj.weight", "F16", 6, 8);
	hf_remake(&b, "model.layers.1.self_attn.q_proj.weight", "F32", 8, 8);
	hf_remake(&b, "model.norm.weight", "F16", 8, 0);
	testing_remove(dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	hf_write(&b, dir);
	mzm_source *src;
	assert_int_equal(mzm_source_open(&src, dir, NULL), MZM_OK);
	const mzm_config *cfg = mzm_source_config(src);
	for (int32_t i = 0; i < mzm_tensor_count(cfg); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		uint8_t *data = malloc(mzm_tensor_bytes(&t));
		mzm_dtype want = t.n_rows == 1 || (t.kind == MZM_T_UPDOWN && t.layer == 0) ||
						 (t.kind == MZM_T_WQ && t.layer == 1)
					 ? MZM_F32
					 : MZM_BF16;
		assert_int_equal(t.dtype, want);
		assert_int_equal(mzm_source_read(src, i, data, NULL), MZM_OK);
		for (int r = 0; r < t.n_rows; r++)
			for (int c = 0; c < t.n_cols; c++) {
				char name[96];
				size_t at = hf_locate(name, &t, cfg, r, c);
				const hf_weight *w = hf_find(&b, name);
				float got = hf_value(want == MZM_F32 ? "F32" : "BF16", data,
						     (size_t)r * (size_t)t.n_cols + (size_t)c);
				assert_true(got == hf_value(w->dtype, w->data, at));
			}
		free(data);
	}
	assert_non_null(mzm_source_hash(src));
	assert_true(mzm_source_bytes_read(src) > 0);
	mzm_source_close(src);
	hf_free(&b);
}

static void open_fails(const char *word)
{
	mzm_source *src;
	mzm_err err = {0};
	if (mzm_source_open(&src, dir, &err) == MZM_OK || !strstr(err.message, word))
		fail_msg("wanted \"%s\": %s", word, err.message);
	assert_null(src);
}

static void test_dir_shards(void **state)
{
	(void)state;
	hf_build b;
	char path[512], *text;
	size_t len;
	hf_init(&b, "F32", true);
	b.n_shards = 3;
	hf_write(&b, dir);
	snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
	text = testing_read(path, &len);
	/* both forms at once */
	hf_put(dir, "model.safetensors", "x", 1);
	open_fails("both");
	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	remove(path);
	/* the index names another shard for one tensor */
	char *at = strstr(text, "model-1");
	at[6] = '2';
	hf_put(dir, "model.safetensors.index.json", text, len);
	open_fails("where the index has it");
	at[6] = '9';
	hf_put(dir, "model.safetensors.index.json", text, len);
	open_fails("model-9.safetensors");
	at[6] = '1';
	/* the same tensor in two shards; a tensor that is not listed; a shard that is a folder */
	uint8_t *file;
	size_t n;
	b.w[0].shard = 1;
	hf_safetensors(&b, 1, &file, &n);
	hf_put(dir, "model-1.safetensors", file, n);
	free(file);
	hf_put(dir, "model.safetensors.index.json", text, len);
	open_fails("is in two shards");
	b.w[0].shard = 0;
	hf_weight *extra = hf_add(&b, "not.listed", "F32", 2, 0);
	extra->shard = 1;
	hf_safetensors(&b, 1, &file, &n);
	hf_put(dir, "model-1.safetensors", file, n);
	free(file);
	open_fails("not.listed");
	snprintf(path, sizeof path, "%s/model-1.safetensors", dir);
	remove(path);
	assert_int_equal(mkdir(path, 0700), 0);
	open_fails("is a directory");
	rmdir(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	open_fails("not a regular file");
	remove(path);
	open_fails("model-1.safetensors");
	free(text);
	hf_free(&b);
}

static void test_dir_incomplete(void **state)
{
	(void)state;
	char path[512];
	hf_build b;
	open_fails("config.json is missing");
	hf_init(&b, "F32", true);
	hf_write(&b, dir);
	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	remove(path);
	open_fails("neither");
	for (size_t n = 0; n < 9; n++) {
		hf_put(dir, "model.safetensors", "\x40\0\0\0\0\0\0\0", n < 8 ? n : 8);
		open_fails("model.safetensors");
	}
	hf_put(dir, "config.json", "{\"model_type\":", 14);
	open_fails("config.json");
	hf_put(dir, "config.json", "", 0);
	open_fails("config.json");
	hf_write(&b, dir);
	hf_put(dir, "generation_config.json", "{\"eos_token_id\":300}", 20);
	open_fails("eos_token_id");
	hf_put(dir, "generation_config.json", "{", 1);
	open_fails("generation_config.json");
	hf_free(&b);
}

/* A header cut at every length, then bytes changed at random. */
static void test_mutations(void **state)
{
	(void)state;
	hf_build b;
	uint8_t *file;
	size_t n, header = 0;
	uint64_t seed = 3;
	hf_init(&b, "F32", true);
	int all = b.n;
	b.n = 6;
	hf_safetensors(&b, -1, &file, &n);
	b.n = all;
	hf_free(&b);
	for (int i = 7; i >= 0; i--)
		header = header << 8 | file[i];
	mzm_st_header h;
	assert_int_equal(mzm_st_header_parse(&h, (char *)file + 8, header, n - 8 - header, NULL), MZM_OK);
	mzm_st_header_free(&h);
	size_t live = mzm_mem_live(), text = header;
	while (file[8 + text - 1] == ' ')
		text--;
	for (size_t len = 0; len < text; len++)
		assert_int_not_equal(mzm_st_header_parse(&h, (char *)file + 8, len, n - 8 - header, NULL), MZM_OK);
	char *copy = malloc(header);
	for (long i = testing_count(5000, 100000); i > 0; i--) {
		static const char likely[] = "0123456789-.eE\"[]{},: FB16IU";
		memcpy(copy, file + 8, header);
		for (uint64_t k = testing_random(&seed) % 3 + 1; k > 0; k--) {
			uint64_t r = testing_random(&seed);
			copy[r % header] = r >> 40 & 3 ? likely[(r >> 32) % (sizeof likely - 1)] : (char)(r >> 24);
		}
		mzm_err err = {0};
		mzm_status st = mzm_st_header_parse(&h, copy, header, n - 8 - header, &err);
		assert_int_equal(st, err.code);
		for (size_t t = 0; st == MZM_OK && t < h.n; t++)
			assert_true(h.tensors[t].begin <= h.tensors[t].end && h.tensors[t].end <= n - 8 - header);
		if (st == MZM_OK)
			mzm_st_header_free(&h);
		assert_int_equal(mzm_mem_live(), live);
	}
	free(copy);
	free(file);
}

/* A header of 20,000 tensors is no work: nothing is quadratic. */
static void test_many_tensors(void **state)
{
	(void)state;
	size_t n = 20000, at = 1;
	char *json = malloc(n * 96);
	json[0] = '{';
	for (size_t i = 0; i < n; i++)
		at += (size_t)sprintf(json + at,
				      "%s\"t%zu\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}",
				      i ? "," : "", i * 7919 % n, i, i + 1);
	json[at++] = '}';
	mzm_st_header h;
	clock_t start = clock();
	assert_int_equal(mzm_st_header_parse(&h, json, at, n, NULL), MZM_OK);
	assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 10.0); /* 0.03 s without sanitizers and valgrind */
	assert_int_equal(h.n, n);
	mzm_st_header_free(&h);
	free(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header), cmocka_unit_test(test_header_length), cmocka_unit_test(test_header_lies),
		cmocka_unit_test(test_map),
		cmocka_unit_test_setup_teardown(test_dir_forms, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_dir_tensors, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_dir_ignored, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_dir_nonfinite, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_dir_mixed_types, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_dir_shards, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_dir_incomplete, make_dir, remove_dir),
		cmocka_unit_test(test_mutations), cmocka_unit_test(test_many_tensors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
