/* test_import.c - mzm_import and mzm_inspect as a caller sees them: the tensors of real and of tiny models
 * against an independent transposition, one hash for all forms, conversions, refusals. Faults are in
 * test_import_faults.c. */
#include "import_env.h"

#include <math.h>

#include "base/io.h"
#include "format/source.h"
#include "kern/quant.h"

/* ---- an independent reading of a safetensors file ---- */

typedef struct golden {
	char   *file;
	size_t  n, data;
	json_t *header;
} golden;

static void golden_open(golden *g, const char *path)
{
	uint64_t len;
	g->file = testing_read(path, &g->n);
	memcpy(&len, g->file, 8);
	g->data = 8 + (size_t)len;
	g->header = json_loadb(g->file + 8, (size_t)len, 0, NULL);
	assert_non_null(g->header);
}

static void golden_close(golden *g)
{
	free(g->file);
	json_decref(g->header);
}

static const char *dtype_name(mzm_dtype dtype)
{
	return dtype == MZM_F32 ? "F32" : dtype == MZM_BF16 ? "BF16" : "F16";
}

/* Compares a source, element by element. */
static void compare(mzm_source *src, const golden *g)
{
	const mzm_config *cfg = mzm_source_config(src);
	for (int32_t i = 0; i < mzm_tensor_count(cfg); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		uint8_t *data = malloc(mzm_tensor_bytes(&t));
		assert_int_equal(mzm_source_read(src, i, data, NULL), MZM_OK);
		for (int r = 0; r < t.n_rows; r++) {
			char name[96];
			hf_locate(name, &t, cfg, r, 0);
			const json_t *entry = json_object_get(g->header, name);
			assert_non_null(entry);
			const char *dtype = json_string_value(json_object_get(entry, "dtype"));
			const json_t *offsets = json_object_get(entry, "data_offsets");
			const char *base = g->file + g->data + json_integer_value(json_array_get(offsets, 0));
			for (int c = 0; c < t.n_cols; c++) {
				size_t at = hf_locate(name, &t, cfg, r, c),
				       here = (size_t)r * (size_t)t.n_cols + (size_t)c;
				float want = hf_value(dtype, (const uint8_t *)base, at);
				float got = hf_value(dtype_name(t.dtype), data, here);
				if (mzm_f32_bits(want) != mzm_f32_bits(got))
					fail_msg("tensor %d, row %d, column %d: %g, wanted %g", (int)i, r, c,
						 (double)got, (double)want);
			}
		}
		free(data);
	}
}

static void golden_model(const char *name, uint64_t n_params, size_t max_bytes)
{
	char src_path[512], file[1024], hash[33], other[33];
	if (!testing_shared(name, src_path))
		skip();
	golden g;
	mzm_source *src;
	snprintf(file, sizeof file, "%s/model.safetensors", src_path);
	golden_open(&g, file);
	assert_int_equal(mzm_source_open(&src, src_path, NULL), MZM_OK);
	assert_null(mzm_source_hash(src));
	compare(src, &g);
	assert_non_null(mzm_source_hash(src));
	strcpy(hash, mzm_source_hash(src));
	mzm_source_close(src);
	static const int levels[] = {0, -1, 19};
	for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
		import_ok(src_path, out, levels[i], NULL);
		hash_of(out, other);
		assert_string_equal(hash, other);
		assert_int_equal(mzm_source_open(&src, out, NULL), MZM_OK);
		assert_string_equal(mzm_source_hash(src), hash);
		compare(src, &g);
		mzm_source_close(src);
		json_t *tree = inspect(out, false);
		assert_int_equal((uint64_t)json_number_value(json_object_get(tree, "n_params")), n_params);
		double bytes = json_number_value(json_object_get(tree, "file_bytes"));
		print_message("%s, zstd %d: %.0f bytes, ratio %.3f\n", name, levels[i], bytes,
			      json_number_value(json_object_get(json_object_get(tree, "totals"), "ratio")));
		assert_true(levels[i] == 0 || bytes < (double)max_bytes);
		json_decref(tree);
	}
	/* through two containers */
	char second[400];
	snprintf(second, sizeof second, "%s/second.mzm", dir);
	import_ok(out, second, 0, NULL);
	hash_of(second, other);
	assert_string_equal(hash, other);
	golden_close(&g);
}

static void test_golden_gsmini(void **state)
{
	(void)state;
	golden_model("models/gsmini-6m", 6425856, 9000000);
}

static void test_golden_stories(void **state)
{
	(void)state;
	golden_model("models/stories260K", 260032, 950000);
}

/* ---- forms of tiny models ---- */

static void test_forms(void **state)
{
	(void)state;
	static const char *const dtypes[] = {"F32", "F16", "BF16"};
	for (int i = 0; i < 6; i++) {
		hf_build b;
		char first[33], other[33];
		for (int shards = 0; shards <= 3; shards += 3) {
			hf_init(&b, dtypes[i % 3], i % 2);
			b.n_shards = shards;
			if (i == 0)
				b.config_extra = ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,"
						 "\"low_freq_factor\":1,\"high_freq_factor\":4,"
						 "\"original_max_position_embeddings\":32}";
			testing_remove(src_dir);
			mkdir(src_dir, 0700);
			hf_write(&b, src_dir);
			hf_free(&b);
			hash_of(src_dir, shards ? other : first);
			if (shards)
				assert_string_equal(first, other);
			import_ok(src_dir, out, -1, NULL);
			hash_of(out, other);
			assert_string_equal(first, other);
		}
	}
}

static float value_at(mzm_source *src, int32_t i, size_t k, mzm_dtype *dtype)
{
	mzm_tensor t = mzm_source_tensor(src, i);
	uint8_t *data = malloc(mzm_tensor_bytes(&t));
	assert_int_equal(mzm_source_read(src, i, data, NULL), MZM_OK);
	float f = hf_value(dtype_name(t.dtype), data, k);
	free(data);
	*dtype = t.dtype;
	return f;
}

static void test_conversions(void **state)
{
	(void)state;
	static const char *const from[] = {"F32", "F16", "BF16"}, *const to[] = {"f32", "f16", "bf16"};
	for (int i = 0; i < 9; i++) {
		mzm_source *a, *b;
		mzm_dtype want, dtype, before;
		char hash_a[33], hash_b[33];
		write_tiny(from[i / 3]);
		import_ok(src_dir, out, i % 2 ? 0 : -1, to[i % 3]);
		assert_true(mzm_dtype_parse(&want, to[i % 3]));
		assert_int_equal(mzm_source_open(&a, src_dir, NULL), MZM_OK);
		assert_int_equal(mzm_source_open(&b, out, NULL), MZM_OK);
		for (int32_t k = 0; k < mzm_tensor_count(mzm_source_config(a)); k++) {
			mzm_tensor t = mzm_source_tensor(b, k);
			assert_int_equal(t.dtype, t.n_rows == 1 ? MZM_F32 : want);
			for (size_t e = 0; e < 8; e++) {
				float x = value_at(a, k, e, &before), y = value_at(b, k, e, &dtype);
				if (dtype == MZM_BF16)
					x = mzm_bf16_to_f32(mzm_f32_to_bf16(x));
				if (dtype == MZM_F16)
					x = mzm_f16_to_f32(mzm_f32_to_f16(x));
				assert_true(x == y);
			}
		}
		mzm_source_close(a);
		mzm_source_close(b);
		hash_of(src_dir, hash_a);
		hash_of(out, hash_b);
		assert_int_equal(strcmp(hash_a, hash_b) == 0,
				 i / 3 == i % 3); /* the hash is of what is computed with */
		json_t *tree = inspect(out, false), *from_where = json_object_get(tree, "provenance");
		assert_string_equal(json_string_value(json_object_get(from_where, "source_hash")), hash_a);
		assert_string_equal(json_string_value(json_object_get(from_where, "source")), "src");
		json_decref(tree);
	}
}

static void test_overflow(void **state)
{
	(void)state;
	hf_build b;
	mzm_import_params params = mzm_import_params_default();
	float large = 65520.0f, most = 65519.0f; /* rounds to infinity; rounds to 65504 */
	hf_init(&b, "F32", true);
	memcpy(hf_find(&b, "model.layers.0.mlp.up_proj.weight")->data + 8, &most, 4);
	hf_write(&b, src_dir);
	import_ok(src_dir, out, 0, "f16");
	memcpy(hf_find(&b, "model.layers.0.mlp.up_proj.weight")->data + 8, &large, 4);
	hf_write(&b, src_dir);
	hf_free(&b);
	params.quant = "f16";
	import_fails(src_dir, out, &params, MZM_EUNSUPPORTED, "layers.0.updown: 1 weights are too large for f16");
	import_ok(src_dir, out, 0, "bf16");
}

static void test_nonfinite(void **state)
{
	(void)state;
	hf_build b;
	mzm_import_params params = mzm_import_params_default();
	char *json;
	float nan = NAN, inf = -INFINITY;
	hf_init(&b, "F32", true);
	memcpy(hf_find(&b, "model.layers.1.self_attn.o_proj.weight")->data + 4, &nan, 4);
	memcpy(hf_find(&b, "model.layers.1.self_attn.o_proj.weight")->data + 8, &inf, 4);
	hf_write(&b, src_dir);
	hf_free(&b);
	import_fails(src_dir, out, NULL, MZM_EFORMAT, "tensor layers.1.wo: 2 weights are NaN or infinite");
	assert_false(mzm_path_exists(out));
	assert_int_equal(mzm_inspect(src_dir, true, NULL, NULL, &json, NULL), MZM_EFORMAT);
	params.allow_nonfinite = true;
	assert_int_equal(mzm_import(src_dir, out, &params, NULL), MZM_OK);
	mzm_source *src;
	mzm_dtype dtype;
	assert_int_equal(mzm_source_open(&src, out, NULL), MZM_OK);
	int32_t i = mzm_tensor_index(mzm_source_config(src), MZM_T_WO, 1);
	assert_true(isnan(value_at(src, i, 1, &dtype)));
	assert_true(isinf(value_at(src, i, 2, &dtype)));
	mzm_source_close(src);
	json_decref(inspect(out, true));
	char second[400];
	snprintf(second, sizeof second, "%s/second.mzm", dir);
	import_fails(out, second, NULL, MZM_EFORMAT, "2 weights");
	params.quant = "bf16"; /* infinity stays infinity: no overflow */
	assert_int_equal(mzm_import(out, second, &params, NULL), MZM_OK);
}

static void test_refusals(void **state)
{
	(void)state;
	mzm_import_params params = mzm_import_params_default();
	char path[600];
	write_tiny("F32");
	params.zstd = 20;
	import_fails(src_dir, out, &params, MZM_EARG, "zstd level 20");
	params.zstd = -2;
	import_fails(src_dir, out, &params, MZM_EARG, "zstd level -2");
	params = mzm_import_params_default();
	params.quant = "q5";
	import_fails(src_dir, out, &params, MZM_EARG, "\"q5\"; known are f32, f16, bf16, q8, q4");
	params = mzm_import_params_default();
	params.draft_quant = "bf16";
	import_fails(src_dir, out, &params, MZM_EARG, "no draft image of type \"bf16\"");
	params.draft_quant = "q4";
	import_fails(src_dir, out, &params, MZM_EUNSUPPORTED, "tensor layers.0.wq has 8 columns");
	params = mzm_import_params_default();
	params.quant_method = "worst";
	import_fails(src_dir, out, &params, MZM_EARG, "unknown method \"worst\"");
	import_fails(src_dir, NULL, NULL, MZM_EARG, "target");
	import_fails(src_dir, src_dir, NULL, MZM_EARG, "part of the source");
	snprintf(path, sizeof path, "%s/model.safetensors", src_dir);
	import_fails(src_dir, path, NULL, MZM_EARG, "part of the source");
	snprintf(path, sizeof path, "%s/../src/config.json", src_dir);
	import_fails(src_dir, path, NULL, MZM_EARG, "part of the source");
	import_fails(src_dir, dir, NULL, MZM_EIO, "not a regular file");
	snprintf(path, sizeof path, "%s/absent/x.mzm", dir);
	import_fails(src_dir, path, NULL, MZM_EIO, "absent/x.mzm");
	import_ok(src_dir, out, -1, NULL);
	import_fails(out, out, NULL, MZM_EARG, "part of the source");
	snprintf(path, sizeof path, "%s/link.mzm", dir);
	assert_int_equal(symlink(out, path), 0);
	import_fails(out, path, NULL, MZM_EARG, "part of the source");
	snprintf(path, sizeof path, "%s/tokenizer.json", src_dir);
	assert_int_equal(remove(path), 0);
	import_fails(src_dir, out, NULL, MZM_EFORMAT, "tokenizer.json is missing");
	json_t *tree = inspect(src_dir, true); /* inspection does without */
	assert_true(json_is_false(json_object_get(json_object_get(tree, "tokenizer"), "present")));
	json_decref(tree);
	hf_put(src_dir, "tokenizer.json", "{\"model\":{\"type\":\"Unigram\"}}", 28);
	assert_int_not_equal(mzm_import(src_dir, out, NULL, NULL), MZM_OK);
	tree = inspect(src_dir, false);
	assert_non_null(json_object_get(json_object_get(tree, "tokenizer"), "error"));
	assert_string_equal(json_string_value(json_object_get(json_object_get(tree, "tokenizer"), "kind")), "Unigram");
	json_decref(tree);
	assert_int_equal(mzm_inspect(NULL, false, NULL, NULL, NULL, NULL), MZM_EARG);
}

/* The name of a source is text in the metadata, whatever bytes it has. */
static void test_odd_names(void **state)
{
	(void)state;
	char odd[400], slash[404];
	snprintf(odd, sizeof odd, "%s/n\xff\xfe", dir);
	snprintf(slash, sizeof slash, "%s//", odd);
	write_tiny("F32");
	assert_int_equal(rename(src_dir, odd), 0);
	import_ok(slash, out, -1, NULL);
	json_t *tree = inspect(out, true);
	assert_string_equal(json_string_value(json_object_get(json_object_get(tree, "provenance"), "source")), "n??");
	json_decref(tree);
	json_decref(inspect(odd, true));
}

/* ---- quantised ---- */

static mzm_status import_with(const char *src, const char *target, const char *quant, const char *draft,
			      mzm_import_report *report, mzm_err *err)
{
	mzm_import_params params = mzm_import_params_default();
	params.quant = quant;
	params.draft_quant = draft;
	params.report = report;
	return mzm_import(src, target, &params, err);
}

/* Tensor i of b is tensor k of a, quantised row by row, byte for byte. */
static void expect_quantised(mzm_source *a, int32_t k, mzm_source *b, int32_t i, mzm_dtype dtype)
{
	mzm_tensor from = mzm_source_tensor(a, k), t = mzm_source_tensor(b, i);
	size_t n_cols = (size_t)t.n_cols, step = mzm_row_bytes(dtype, t.n_cols);
	uint8_t *old = malloc(mzm_tensor_bytes(&from)), *new = malloc(mzm_tensor_bytes(&t)), *row = malloc(step);
	float *x = malloc(n_cols * sizeof *x);
	assert_int_equal(t.dtype, dtype);
	assert_int_equal(mzm_tensor_bytes(&t), (size_t)t.n_rows * step);
	assert_int_equal(mzm_source_read(a, k, old, NULL), MZM_OK);
	assert_int_equal(mzm_source_read(b, i, new, NULL), MZM_OK);
	for (size_t r = 0; r < (size_t)t.n_rows; r++) {
		for (size_t c = 0; c < n_cols; c++)
			x[c] = hf_value(dtype_name(from.dtype), old, r * n_cols + c);
		assert_true(mzm_quant_row(row, x, dtype, t.n_cols, MZM_QUANT_BEST));
		assert_memory_equal(row, new + r * step, step);
	}
	free(old);
	free(new);
	free(row);
	free(x);
}

/* Every matrix of a container against the source it was made from. */
static void expect_container(const char *src_path, mzm_dtype layers, mzm_dtype tables, mzm_dtype draft)
{
	mzm_source *a, *b;
	assert_int_equal(mzm_source_open(&a, src_path, NULL), MZM_OK);
	assert_int_equal(mzm_source_open(&b, out, NULL), MZM_OK);
	const mzm_config *cfg = mzm_source_config(b);
	int32_t n = mzm_tensor_count(cfg);
	for (int32_t i = 0; i < n; i++) {
		mzm_tensor t = mzm_source_tensor(b, i);
		mzm_dtype want = t.kind == MZM_T_EMBED || t.kind == MZM_T_HEAD ? tables : layers;
		if (t.n_rows == 1)
			assert_int_equal(t.dtype, MZM_F32);
		else if (mzm_dtype_is_quant(want))
			expect_quantised(a, i, b, i, want);
		else
			assert_int_equal(t.dtype, want);
	}
	assert_int_equal(mzm_source_has_draft(b), draft != MZM_F32);
	assert_int_equal(mzm_source_n_tensors(b), draft == MZM_F32 ? n : n + mzm_draft_count(cfg));
	for (int32_t i = n; i < mzm_source_n_tensors(b); i++) {
		mzm_tensor t = mzm_source_tensor(b, i);
		mzm_tensor_kind kind = t.kind == MZM_T_HEAD && cfg->tied ? MZM_T_EMBED : t.kind;
		assert_int_equal(t.role, MZM_ROLE_DRAFT);
		expect_quantised(a, mzm_tensor_index(cfg, kind, t.layer), b, i, draft);
	}
	mzm_source_close(a);
	mzm_source_close(b);
}

static void test_quantised(void **state)
{
	(void)state;
	static const char *const from[] = {"F32", "F16", "BF16"};
	char hash[33], source_hash[33];
	for (int i = 0; i < 12; i++) {
		mzm_import_report r;
		mzm_err err = {0};
		const char *quant = i % 4 == 0 ? NULL : i % 4 == 1 ? "q8" : i % 4 == 2 ? "q4" : "f16";
		const char *draft = i % 3 == 0 ? NULL : i % 3 == 1 ? "q8" : "q4";
		mzm_dtype dtype = i % 4 == 1 ? MZM_Q8 : i % 4 == 2 ? MZM_Q4 : MZM_F16;
		mzm_dtype draft_type = i % 3 == 0 ? MZM_F32 : i % 3 == 1 ? MZM_Q8 : MZM_Q4;
		bool tied = i % 2;
		write_blocks(from[i / 4], tied);
		if (import_with(src_dir, out, quant, draft, &r, &err) != MZM_OK)
			fail_msg("%s", err.message);
		mzm_dtype source = i / 4 == 0 ? MZM_F32 : i / 4 == 1 ? MZM_F16 : MZM_BF16, is = quant ? dtype : source;
		expect_container(src_dir, is, is == MZM_Q4 ? MZM_Q8 : is, draft_type);
		assert_int_equal(r.n_tensors, tied ? 18 : 19);
		assert_int_equal(r.n_converted, is == source ? 0 : tied ? 13 : 14);
		assert_int_equal(r.n_unchanged, 0);
		assert_int_equal(r.n_draft, draft ? 13 : 0);
		assert_true((r.draft_bytes > 0) == (draft != NULL));
		assert_string_equal(r.dtype, is == MZM_Q4 ? "q4 (embedding and head q8)" : mzm_dtype_name(is));
		json_t *tree = inspect(out, true), *q = json_object_get(tree, "quant");
		json_t *d = json_object_get(tree, "draft");
		assert_string_equal(json_string_value(json_object_get(q, "dtype")), r.dtype);
		assert_int_equal(json_number_value(json_object_get(tree, "version")),
				 draft || is == MZM_Q8 || is == MZM_Q4 ? 2 : 1);
		if (draft)
			assert_string_equal(json_string_value(json_object_get(d, "dtype")), draft);
		else
			assert_true(json_is_null(d));
		json_decref(tree);
		hash_of(out, hash); /* the draft image is no part of it */
		hash_of(src_dir, source_hash);
		assert_int_equal(strcmp(hash, source_hash) == 0, is == source);
	}
}

/* Once quantised, weights are copied or refused; a draft image is kept, replaced or dropped. */
static void test_quantised_again(void **state)
{
	(void)state;
	static const struct {
		const char *have, *have_draft, *quant, *draft, *refusal;
		bool        keeps_draft;
	} cases[] = {
		{"q8", NULL, NULL, NULL, NULL, false},
		{"q8", NULL, "q8", NULL, NULL, false},
		{"q4", NULL, "q4", NULL, NULL, false}, /* embedding and head are q8, as they would become */
		{"q4", "q4", NULL, NULL, NULL, true},
		{"q4", "q4", "q4", "q4", NULL, true},  /* as it is: there is nothing to make it from */
		{"bf16", "q4", NULL, "q4", NULL, true},
		{"bf16", "q8", NULL, "off", NULL, false},
		{"bf16", "q8", NULL, NULL, NULL, true},
		{"q8", NULL, "q4", NULL, "tensor layers.0.wq is q8 already and cannot become q4", false},
		{"q4", NULL, "q8", NULL, "tensor layers.0.wq is q4 already and cannot become q8", false},
		{"q8", NULL, "bf16", NULL, "tensor embed is q8 already and cannot become bf16", false},
		{"q8", NULL, NULL, "q4", "layers.0.wq is q8 already and cannot become a draft image of q4", false},
		{"q8", "q8", NULL, "q4", "cannot become a draft image of q4", false},
	};
	char first[400], hash[33], again[33];
	snprintf(first, sizeof first, "%s/first.mzm", dir);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		mzm_err err = {0};
		mzm_import_params params = mzm_import_params_default();
		mzm_import_report r = {0};
		write_blocks("BF16", true);
		assert_int_equal(import_with(src_dir, first, cases[i].have, cases[i].have_draft, NULL, NULL), MZM_OK);
		params.quant = cases[i].quant;
		params.draft_quant = cases[i].draft;
		params.report = &r;
		if (cases[i].refusal) {
			import_fails(first, out, &params, MZM_EUNSUPPORTED, cases[i].refusal);
			assert_false(mzm_path_exists(out));
			assert_int_equal(r.n_tensors, 0);
			continue;
		}
		if (mzm_import(first, out, &params, &err) != MZM_OK)
			fail_msg("%s", err.message);
		hash_of(first, hash);
		hash_of(out, again);
		assert_string_equal(hash, again);
		assert_int_equal(r.n_converted, 0);
		assert_int_equal(r.n_draft, cases[i].keeps_draft ? 13 : 0);
		if (cases[i].keeps_draft) {
			json_t *a = inspect(first, true), *b = inspect(out, true);
			assert_true(json_equal(json_object_get(a, "draft"), json_object_get(b, "draft")));
			json_decref(a);
			json_decref(b);
		}
		remove(out);
	}
}

/* The result does not depend on the number of threads, nor on how often it is made. */
static void test_same_bytes(void **state)
{
	(void)state;
	size_t n[2];
	char *file[2], second[400];
	json_t *draft[2];
	snprintf(second, sizeof second, "%s/second.mzm", dir);
	write_blocks("F32", false);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(import_with(src_dir, i ? second : out, "q4", "q8", NULL, NULL), MZM_OK);
		json_t *tree = inspect(i ? second : out, true);
		draft[i] = json_incref(json_object_get(tree, "draft"));
		json_decref(tree);
		file[i] = testing_read(i ? second : out, &n[i]);
	}
	assert_true(json_equal(draft[0], draft[1]));
	uint64_t meta;
	memcpy(&meta, file[0] + 24, 8);
	assert_memory_equal(file[0] + 4096, file[1] + 4096, (size_t)meta - 4096); /* all weights */
	for (int i = 0; i < 2; i++) {
		free(file[i]);
		json_decref(draft[i]);
	}
}

/* Rows that are no whole blocks keep their type, and that is said; the others do not. */
static void test_odd_columns(void **state)
{
	(void)state;
	mzm_import_report r;
	hf_build b;
	hf_init_sized(&b, "BF16", true, 64, 6, 12); /* wo has 24 columns, the others 64 */
	hf_write(&b, src_dir);
	hf_free(&b);
	assert_int_equal(import_with(src_dir, out, "q8", NULL, &r, NULL), MZM_OK);
	assert_int_equal(r.n_unchanged, 2);
	assert_int_equal(r.n_converted, 11);
	assert_string_equal(r.dtype, "mixed");
	mzm_source *src;
	assert_int_equal(mzm_source_open(&src, out, NULL), MZM_OK);
	const mzm_config *cfg = mzm_source_config(src);
	assert_int_equal(mzm_source_tensor(src, mzm_tensor_index(cfg, MZM_T_WO, 1)).dtype, MZM_BF16);
	assert_int_equal(mzm_source_tensor(src, mzm_tensor_index(cfg, MZM_T_WQ, 1)).dtype, MZM_Q8);
	mzm_source_close(src);
	json_decref(inspect(out, true));
	mzm_import_params params = mzm_import_params_default();
	params.draft_quant = "q8";
	import_fails(src_dir, out, &params, MZM_EUNSUPPORTED,
		     "no draft image of this model: tensor layers.0.wo has 24 columns");
	write_tiny("BF16"); /* no matrix fits */
	assert_int_equal(import_with(src_dir, out, "q4", NULL, &r, NULL), MZM_OK);
	assert_true(r.n_unchanged == 13 && r.n_converted == 0);
	assert_string_equal(r.dtype, "bf16");
}

/* What cannot be quantised is refused by name, allowed or not. */
static void test_quantised_nonfinite(void **state)
{
	(void)state;
	static const float bad[] = {NAN, INFINITY, 1e30f};
	for (int i = 0; i < 6; i++) {
		hf_build b;
		mzm_import_params params = mzm_import_params_default();
		hf_init_blocks(&b, "F32", true);
		memcpy(hf_find(&b, "model.layers.1.mlp.down_proj.weight")->data + 40, &bad[i % 3], 4);
		hf_write(&b, src_dir);
		hf_free(&b);
		params.allow_nonfinite = true;
		params.quant = i < 3 ? "q4" : NULL;
		params.draft_quant = i < 3 ? NULL : "q8";
		import_fails(src_dir, out, &params, MZM_EUNSUPPORTED, "tensor layers.1.updown: 1 rows have weights");
		params.allow_nonfinite = false;
		import_fails(src_dir, out, &params, i % 3 == 2 ? MZM_EUNSUPPORTED : MZM_EFORMAT, "layers.1.updown: 1 ");
	}
}

static void test_quantised_demo(void **state)
{
	(void)state;
	mzm_import_report r;
	mzm_err err = {0};
	if (import_with("data/gsmini-6m.mzm", out, "q4", "q8", &r, &err) != MZM_OK)
		fail_msg("%s", err.message);
	expect_container("data/gsmini-6m.mzm", MZM_Q4, MZM_Q8, MZM_Q8);
	json_decref(inspect(out, true));
	if (import_with("data/gsmini-6m.mzm", out, NULL, "q4", &r, &err) != MZM_OK)
		fail_msg("%s", err.message);
	expect_container("data/gsmini-6m.mzm", MZM_BF16, MZM_BF16, MZM_Q4);
	char hash[33], source_hash[33];
	hash_of(out, hash);
	hash_of("data/gsmini-6m.mzm", source_hash);
	assert_string_equal(hash, source_hash);
}

/* More tokens than rows of the embedding. */
static void test_vocabulary(void **state)
{
	(void)state;
	hf_build b;
	hf_init(&b, "F32", true);
	b.n_vocab = 256;
	hf_remake(&b, "model.embed_tokens.weight", "F32", 256, 8);
	hf_write(&b, src_dir);
	hf_free(&b);
	import_fails(src_dir, out, NULL, MZM_EFORMAT, "embedding");
}

static void test_inspect_answer(void **state)
{
	(void)state;
	write_tiny("F32");
	import_ok(src_dir, out, -1, NULL);
	for (int form = 0; form < 2; form++) {
		json_t *tree = inspect(form ? out : src_dir, false), *tensors = json_object_get(tree, "tensors");
		assert_string_equal(json_string_value(json_object_get(tree, "format")), form ? "mzm" : "huggingface");
		assert_int_equal(json_array_size(tensors), 18);
		json_t *updown = json_array_get(tensors, 8);
		assert_string_equal(json_string_value(json_object_get(updown, "name")), "layers.0.updown");
		assert_true(json_number_value(json_object_get(updown, "raw_bytes")) == 12 * 8 * 4);
		assert_true(json_number_value(json_array_get(json_object_get(updown, "shape"), 0)) == 12);
		assert_true(json_is_false(json_object_get(tree, "verified")));
		assert_true(json_number_value(json_object_get(json_object_get(tree, "tokenizer"), "n_tokens")) == 257);
		json_t *eos = json_object_get(json_object_get(tree, "config"), "eos_ids");
		assert_true(json_array_size(eos) == 2 && json_number_value(json_array_get(eos, 1)) == 4);
		assert_int_equal(json_is_null(json_object_get(tree, "hash")), form == 0);
		json_decref(tree);
	}
	mzm_source *src;
	size_t len;
	assert_int_equal(mzm_source_open(&src, out, NULL), MZM_OK);
	assert_string_equal(mzm_source_side_file(src, MZM_GENERATION_CONFIG, &len), "{\"eos_token_id\":[3,4]}");
	assert_int_equal(len, 22);
	assert_null(mzm_source_side_file(src, MZM_TOKENIZER_CONFIG, &len));
	assert_int_equal(len, 0);
	mzm_source_close(src);
}

/* ---- progress ---- */

typedef struct steps {
	int      n, stop_at;
	uint64_t last, total;
} steps;

static int on_progress(void *user, const char *stage, uint64_t done, uint64_t total)
{
	steps *s = user;
	assert_true(stage && done > s->last && done <= total);
	s->last = done;
	s->total = total;
	return ++s->n == s->stop_at;
}

static void test_progress(void **state)
{
	(void)state;
	steps s = {0};
	char *json;
	mzm_import_params params = mzm_import_params_default();
	write_tiny("F32");
	params.progress = on_progress;
	params.user = &s;
	assert_int_equal(mzm_import(src_dir, out, &params, NULL), MZM_OK);
	assert_true(s.n == 18 && s.last == s.total);
	s = (steps){0};
	assert_int_equal(mzm_inspect(out, true, on_progress, &s, &json, NULL), MZM_OK);
	assert_true(s.n == 18 && s.last == s.total);
	mzm_string_free(json);
	size_t n, n_after;
	char *before = testing_read(out, &n), *after;
	for (int k = 1; k <= 18; k++) {
		s = (steps){.stop_at = k};
		import_fails(src_dir, out, &params, MZM_ECANCELLED, "cancelled");
		s = (steps){.stop_at = k};
		assert_int_equal(mzm_inspect(out, true, on_progress, &s, &json, NULL), MZM_ECANCELLED);
	}
	after = testing_read(out, &n_after);
	assert_int_equal(n, n_after);
	assert_memory_equal(before, after, n); /* untouched by what was cancelled */
	assert_int_equal(testing_dir_entries(dir), 2);
	free(before);
	free(after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_DIR(test_golden_gsmini),  IN_DIR(test_golden_stories), IN_DIR(test_forms),
		IN_DIR(test_conversions),    IN_DIR(test_overflow),       IN_DIR(test_nonfinite),
		IN_DIR(test_refusals),       IN_DIR(test_vocabulary),     IN_DIR(test_odd_names),
		IN_DIR(test_inspect_answer), IN_DIR(test_progress),       IN_DIR(test_quantised),
		IN_DIR(test_quantised_again), IN_DIR(test_same_bytes),    IN_DIR(test_odd_columns),
		IN_DIR(test_quantised_nonfinite), IN_DIR(test_quantised_demo),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
