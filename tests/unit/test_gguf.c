/* test_gguf.c - headers of GGUF files and what a model may be: whole ones, every way to lie that we know, truncations
 * and random changes. Tensors: their canonical form against blocks computed here. */
#include <fcntl.h>
#include <math.h>
#include <time.h>

#include "gguf_faults.h"
#include "gguf_rig.h"

#include "base/io.h"
#include "base/mem.h"
#include "format/gguf_source.h"
#include "format/gguf_types.h"
#include "kern/quant.h"

static mzm_status open_bytes(const uint8_t *bytes, size_t n, bool as_model, mzm_err *err)
{
	mzm_status st;
	size_t live = mzm_mem_live();
	*err = (mzm_err){0};
	testing_write(path, bytes, n);
	if (as_model) {
		mzm_source *src;
		st = mzm_source_open(&src, path, err);
		mzm_source_close(src);
	} else {
		mzm_gguf *g;
		st = mzm_gguf_open(&g, path, err);
		mzm_gguf_close(g);
	}
	assert_int_equal(st, err->code);
	assert_int_equal(mzm_mem_live(), live);
	return st;
}

/* Frees g. */
static void expect_of(gb *g, bool as_model, mzm_status code, const char *word)
{
	mzm_err err;
	gb_bytes b = gb_file(g);
	mzm_status st = open_bytes(b.p, b.n, as_model, &err);
	if (st != code || !strstr(err.message, word))
		fail_msg("status %d, wanted %d and \"%s\": %s", st, code, word, err.message);
	free(b.p);
	gb_free(g);
}

/* ---- headers ---- */

static void test_metadata(void **state)
{
	(void)state;
	gb g = {.magic = "GGUF", .version = 2, .alignment = 32};
	uint64_t u = 0;
	double d = 0;
	bool flag = false;
	mzm_gguf_text text;
	mzm_gguf_array a;
	mzm_gguf *f;
	const int32_t minus = -5;
	const float reals[3] = {1, 2.5f, -3};
	gb_int(&g, "count", 7);
	gb_real(&g, "real", 0.5f);
	gb_flag(&g, "flag", 1);
	gb_string(&g, "text", "a\nb");
	gb_key(&g, "minus", 5);
	gb_add(&g.meta, &minus, 4);
	gb_real(&g, "nan", NAN);
	gb_key(&g, "reals", 9);
	gb_u32(&g.meta, 6);
	gb_u64(&g.meta, 3);
	gb_add(&g.meta, reals, sizeof reals);
	gb_key(&g, "texts", 9);
	gb_u32(&g.meta, 8);
	gb_u64(&g.meta, 2);
	gb_text(&g.meta, "");
	gb_text(&g.meta, "xyz");
	gb_add_tensor(&g, "w", 8, 64, 3);
	gb_add_tensor(&g, "new", 0, 5, 0)->type = 99;
	gb_bytes b = gb_file(&g);
	testing_write(path, b.p, b.n);
	assert_true(mzm_gguf_is(path));
	assert_int_equal(mzm_gguf_open(&f, path, NULL), MZM_OK);
	assert_true(mzm_gguf_u64(f, "count", &u) && u == 7 && mzm_gguf_f64(f, "count", &d) && d == 7);
	assert_true(mzm_gguf_f64(f, "real", &d) && d == 0.5 && !mzm_gguf_u64(f, "real", &u));
	assert_true(mzm_gguf_flag(f, "flag", &flag) && flag && !mzm_gguf_u64(f, "flag", &u));
	assert_true(mzm_gguf_string(f, "text", &text) && text.n == 3 && strcmp(text.s, "a\nb") == 0);
	assert_false(mzm_gguf_u64(f, "minus", &u) || mzm_gguf_f64(f, "minus", &d) || mzm_gguf_f64(f, "nan", &d));
	assert_true(mzm_gguf_has(f, "nan") && !mzm_gguf_has(f, "absent") && !mzm_gguf_u64(f, "absent", &u) && u == 7);
	assert_true(mzm_gguf_get_array(f, "reals", &a) && a.type == MZM_GGUF_F32 && a.n == 3);
	assert_memory_equal(a.data, reals, sizeof reals);
	assert_true(mzm_gguf_get_array(f, "texts", &a) && a.type == MZM_GGUF_STRING && a.n == 2);
	const mzm_gguf_text *texts = a.data;
	assert_true(texts[0].n == 0 && texts[0].s[0] == 0 && texts[1].n == 3 && strcmp(texts[1].s, "xyz") == 0);
	assert_int_equal(mzm_gguf_n_tensors(f), 2);
	const mzm_gguf_tensor *t = mzm_gguf_find(f, "w");
	assert_true(t == mzm_gguf_tensor_at(f, 0) && t->n_dims == 2 && t->dims[0] == 64 && t->dims[1] == 3);
	assert_int_equal(t->bytes, 3 * 2 * 34);
	char data[204];
	assert_int_equal(mzm_gguf_read(f, t, 4, 200, data, NULL), MZM_OK);
	assert_memory_equal(data, g.t[0].data + 4, 200);
	assert_int_equal(mzm_gguf_read(f, t, 5, 200, data, NULL), MZM_EARG);
	assert_int_equal(mzm_gguf_find(f, "new")->bytes, 0);
	assert_null(mzm_gguf_find(f, "W"));
	mzm_gguf_close(f);
	mzm_gguf_close(NULL);
	free(b.p);
	gb_free(&g);
}

#define BROKEN(code, word, ...)                    \
	do {                                       \
		gb g;                              \
		gb_model(&g, 0, 8);                \
		__VA_ARGS__;                       \
		expect_of(&g, false, code, word);  \
	} while (0)

static void test_hostile_headers(void **state)
{
	(void)state;
	static const uint64_t huge[] = {1000, (uint64_t)1 << 31, (uint64_t)1 << 32, (uint64_t)1 << 60,
					(uint64_t)1 << 63, UINT64_MAX - 11};
	BROKEN(MZM_OK, "", (void)g);
	BROKEN(MZM_EFORMAT, "not a GGUF", g.magic[0] = 'X');
	BROKEN(MZM_EFORMAT, "version 0", g.version = 0);
	BROKEN(MZM_EUNSUPPORTED, "version 1", g.version = 1);
	BROKEN(MZM_EUNSUPPORTED, "version 4", g.version = 4);
	BROKEN(MZM_EUNSUPPORTED, "big-endian", g.version = 0x03000000);
	for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
		uint64_t n = huge[i], more = n | 1 << 24;
		BROKEN(MZM_EFORMAT, "", g.n_more_tensors = n);
		BROKEN(MZM_EFORMAT, "", g.n_more_keys = n);
		BROKEN(MZM_EFORMAT, "does not fit", gb_key(&g, "s", 8); gb_u64(&g.meta, more));
		BROKEN(MZM_EFORMAT, "does not fit", gb_key(&g, "a", 9); gb_u32(&g.meta, 0); gb_u64(&g.meta, more));
		BROKEN(MZM_EFORMAT, "does not fit", gb_key(&g, "a", 9); gb_u32(&g.meta, 10); gb_u64(&g.meta, more));
		BROKEN(MZM_EFORMAT, "does not fit", gb_key(&g, "a", 9); gb_u32(&g.meta, 8); gb_u64(&g.meta, more));
		BROKEN(MZM_EFORMAT, "does not fit", g.n_keys++; gb_u64(&g.meta, more));
		BROKEN(MZM_EFORMAT, "tensor", gb_find(&g, "blk.0.attn_k.weight")->dims[1] = n);
		BROKEN(MZM_EFORMAT, "end behind", gb_find(&g, "blk.0.attn_k.weight")->shift = n / 32 * 32 + (1 << 20));
	}
	BROKEN(MZM_EUNSUPPORTED, "array of arrays", gb_key(&g, "a", 9); gb_u32(&g.meta, 9); gb_u64(&g.meta, 0));
	BROKEN(MZM_EFORMAT, "type 13", gb_key(&g, "a", 13));
	BROKEN(MZM_EFORMAT, "type 4294967295", gb_key(&g, "a", UINT32_MAX));
	BROKEN(MZM_EFORMAT, "type 13", gb_key(&g, "a", 9); gb_u32(&g.meta, 13); gb_u64(&g.meta, 0));
	BROKEN(MZM_EFORMAT, "truth value", gb_flag(&g, "f", 2));
	BROKEN(MZM_EFORMAT, "is there twice", gb_int(&g, "llama.block_count", 1));
	BROKEN(MZM_EFORMAT, "key is empty", gb_int(&g, "", 1));
	BROKEN(MZM_EFORMAT, "key is empty or not", gb_int(&g, "a\tb", 1));
	BROKEN(MZM_EFORMAT, "split.no is missing", gb_int(&g, "split.count", 2));
	BROKEN(MZM_OK, "", gb_int(&g, "split.count", 1));
	static const uint32_t alignments[] = {0, 1, 3, 4, 33, 1u << 17, 1u << 31};
	for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++)
		BROKEN(MZM_EFORMAT, "general.alignment", gb_int(&g, "general.alignment", alignments[i]));
	BROKEN(MZM_EFORMAT, "general.alignment", gb_string(&g, "general.alignment", "32"));
	BROKEN(MZM_OK, "", g.alignment = 8; gb_int(&g, "general.alignment", 8));
	BROKEN(MZM_OK, "", g.alignment = 4096; gb_int(&g, "general.alignment", 4096));
	BROKEN(MZM_EFORMAT, "no multiple", g.t[1].shift = 4);
	BROKEN(MZM_EFORMAT, "overlap", g.t[1].shift = (uint64_t)-32);
	BROKEN(MZM_EFORMAT, "overlap", g.t[2].shift = (uint64_t)-64);
	BROKEN(MZM_EFORMAT, "end behind", g.t[0].shift = (uint64_t)-32);
	BROKEN(MZM_EFORMAT, "twice", strcpy(g.t[1].name, g.t[2].name));
	BROKEN(MZM_EFORMAT, "name of a tensor", g.t[1].name[0] = 0);
	BROKEN(MZM_EFORMAT, "0 dimensions", g.t[1].n_dims = 0);
	BROKEN(MZM_EFORMAT, "5 dimensions", g.t[1].n_dims = 5);
	BROKEN(MZM_EFORMAT, "dimension 0", g.t[2].dims[0] = 0);
	BROKEN(MZM_EFORMAT, "dimension 0", g.t[2].dims[0] = UINT64_MAX);
	BROKEN(MZM_EFORMAT, "larger than any", g.t[2].dims[0] = (uint64_t)1 << 62; g.t[2].dims[1] = 1);
	BROKEN(MZM_EFORMAT, "dimension 1", g.t[2].dims[0] = (uint64_t)1 << 62; g.t[2].dims[1] = 4);
	BROKEN(MZM_EFORMAT, "end behind", g.t[2].dims[0] = ((uint64_t)1 << 62) - 1; g.t[2].dims[1] = 1);
	BROKEN(MZM_EFORMAT, "end behind", g.t[2].n_dims = 3; g.t[2].dims[0] = 4; g.t[2].dims[1] = (1 << 30) - 1;
	       g.t[2].dims[2] = (1 << 30) + 1);
	BROKEN(MZM_EFORMAT, "whole blocks", g.t[2].type = 8);
}

/* What is odd but whole, and what is no file at all. */
static void test_odd_files(void **state)
{
	(void)state;
	mzm_gguf *f;
	mzm_source *src;
	mzm_err err;
	const char *const others[] = {"/dev/zero", "/dev/null", dir};
	for (int i = 0; i < 2; i++) {
		gb empty = {.magic = "GGUF", .version = 3, .alignment = 32};
		expect_of(&empty, i, i ? MZM_EFORMAT : MZM_OK, i ? "general.architecture is missing" : "");
	}
	gb more;
	gb_model(&more, 0, 8);
	gb_bytes b = gb_file(&more);
	gb_add(&b, "junk", 4);
	assert_int_equal(open_bytes(b.p, b.n, true, &err), MZM_OK);
	free(b.p);
	gb_free(&more);
	char *key = calloc(1, 65537);
	memset(key, 'k', 65536);
	BROKEN(MZM_EFORMAT, "longer than 65535", gb_int(&g, key, 1));
	free(key);
	BROKEN(MZM_EFORMAT, "does not fit", { /* of three strings the last one */
		gb_key(&g, "a", 9);
		gb_u32(&g.meta, 8);
		gb_u64(&g.meta, 3);
		gb_text(&g.meta, "one");
		gb_text(&g.meta, "two");
		gb_u64(&g.meta, 1 << 20);
	});
	BROKEN(MZM_EFORMAT, "general.alignment", gb_key(&g, "general.alignment", 5); gb_u32(&g.meta, 32));
	for (int i = 0; i < 3; i++) {
		err = (mzm_err){0};
		assert_int_equal(mzm_gguf_open(&f, others[i], &err), MZM_EIO);
		assert_true(err.message[0]);
	}
	assert_int_equal(mzm_source_open(&src, "/dev/zero", NULL), MZM_EIO);
}

static void test_truncations(void **state)
{
	(void)state;
	gb g;
	mzm_err err;
	gb_model(&g, 0, 8);
	gb_bytes b = gb_file(&g);
	size_t n_data = 0;
	for (int i = 0; i < g.n; i++)
		n_data += (g.t[i].bytes + 31) / 32 * 32;
	assert_int_equal(open_bytes(b.p, b.n, true, &err), MZM_OK);
	for (size_t n = 0; n < b.n; n += n < b.n - n_data ? 1 : 97) {
		assert_int_equal(open_bytes(b.p, n, false, &err), MZM_EFORMAT);
		assert_true(err.message[0]);
	}
	assert_int_equal(open_bytes(b.p, b.n - 1, true, &err), MZM_EFORMAT);
	free(b.p);
	gb_free(&g);
}

/* A file with a hole, so that what it claims is there: memory is taken when a tensor is read, not before. */
static void test_claims(void **state)
{
	(void)state;
	for (int k = 0; k < 2; k++) {
		gb g;
		mzm_gguf *f;
		mzm_err err = {0};
		size_t live = mzm_mem_live();
		gb_model(&g, 0, 8);
		if (k) {
			gb_key(&g, "array", 9);
			gb_u32(&g.meta, 0);
			gb_u64(&g.meta, (uint64_t)30 << 30);
		} else {
			g.t[g.n - 1].n_dims = 2;
			g.t[g.n - 1].dims[0] = 1 << 20;
			g.t[g.n - 1].dims[1] = 30 << 8;
		}
		gb_bytes b = gb_file(&g);
		testing_write(path, b.p, b.n);
		if (truncate(path, (off_t)31 << 30) != 0) {
			print_message("skipped: no file of 31 GiB here\n");
			k = 2;
		} else if (k) {
			assert_int_equal(mzm_gguf_open(&f, path, &err), MZM_EFORMAT);
			assert_non_null(strstr(err.message, "does not fit"));
		} else {
			assert_int_equal(mzm_gguf_open(&f, path, NULL), MZM_OK);
			assert_true(mzm_gguf_find(f, "output_norm.weight")->bytes == (uint64_t)30 << 30);
			assert_true(mzm_mem_live() - live < 1 << 20);
			mzm_gguf_close(f);
		}
		assert_int_equal(mzm_mem_live(), live);
		testing_remove(path);
		free(b.p);
		gb_free(&g);
	}
}

/* Values that lie next to limits, or anything. */
static size_t mutate(uint8_t *p, size_t n, uint64_t *seed)
{
	static const uint64_t values[] = {0, 1, 255, 0x7fffffff, 0x80000000, 0xffffffff, INT64_MAX, UINT64_MAX};
	uint64_t r = testing_random(seed);
	size_t at = (size_t)(r >> 8) % n, width = (size_t)1 << (r & 3);
	uint64_t v = r & 4 ? testing_random(seed) : values[r >> 3 & 7];
	width = n - at < width ? n - at : width;
	memcpy(p + at, &v, width);
	return at;
}

/* Bytes of a file before the first of its tensors. */
static size_t header_bytes(const gb *g, const gb_bytes *file)
{
	size_t n = 0;
	for (int i = 0; i < g->n; i++)
		n += (g->t[i].bytes + 31) / 32 * 32;
	return file->n - n;
}

/* Headers of a family's file with one to three changes; returns how many are still a model. */
static long mutate_family(const gb_family *f, long n, uint64_t *seed)
{
	gb g;
	long n_good = 0;
	char *tensor = malloc(1 << 20);
	gb_family_model(&g, f, f->fused_qkv ? 0 : 8, 32, 1);
	gb_bytes b = gb_file(&g);
	size_t header = header_bytes(&g, &b);
	uint8_t *changed = malloc(header);
	testing_write(path, b.p, b.n);
	int fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	size_t live = mzm_mem_live();
	for (long i = 0; i < n; i++) {
		mzm_source *src;
		mzm_err err = {0};
		memcpy(changed, b.p, header);
		for (uint64_t k = testing_random(seed) % 3 + 1; k; k--)
			(void)mutate(changed, header, seed);
		assert_int_equal(pwrite(fd, changed, header, 0), header);
		mzm_status st = mzm_gguf_source_open(&src, path, &err);
		assert_int_equal(st, err.code);
		assert_true(st == MZM_OK || st == MZM_EFORMAT || st == MZM_EUNSUPPORTED);
		n_good += st == MZM_OK;
		for (int32_t t = 0; st == MZM_OK && i % 8 == 0 && t < mzm_source_n_tensors(src); t++) {
			mzm_tensor x = mzm_source_tensor(src, t);
			assert_true(mzm_tensor_bytes(&x) <= 1 << 20);
			(void)mzm_source_read(src, t, tensor, NULL);
		}
		mzm_source_close(src);
		assert_int_equal(mzm_mem_live(), live);
	}
	close(fd);
	free(tensor);
	free(changed);
	free(b.p);
	gb_free(&g);
	return n_good;
}

static void test_mutations(void **state)
{
	(void)state;
	uint64_t seed = 99;
	long n_good = 0, n = getenv("MIRZAM_SHORT") ? 1000 : 112000, n_all = n * (long)GB_N_FAMILIES;
	for (size_t i = 0; i < GB_N_FAMILIES; i++)
		n_good += mutate_family(&gb_families[i], n, &seed);
	print_message("%ld changed headers, %ld of them still a model\n", n_all, n_good);
	assert_true(n_good < n_all / 2 && n_good > 0);
}

/* ---- models ---- */

#define MODEL(code, word, ...)                    \
	do {                                      \
		gb g;                             \
		gb_model(&g, 0, 8);               \
		__VA_ARGS__;                      \
		expect_of(&g, true, code, word);  \
	} while (0)

static void test_refusals(void **state)
{
	(void)state;
	static const char *const numbers[] = {"llama.expert_count", "llama.attn_logit_softcapping",
					      "llama.final_logit_softcapping", "llama.logit_scale",
					      "llama.rope.scaling.attn_factor", "llama.attention.clamp_kqv",
					      "llama.unheard_of", "llama.rope.scaling.yarn_beta_fast"};
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		MODEL(MZM_EUNSUPPORTED, numbers[i], gb_real(&g, numbers[i], 8));
	MODEL(MZM_OK, "", gb_int(&g, "llama.expert_count", 0); gb_int(&g, "llama.vocab_size", 40));
	MODEL(MZM_EFORMAT, "general.architecture", g.meta.p[8] = 'G');
	MODEL(MZM_EUNSUPPORTED, "\"lloma\"", memcpy(memmem(g.meta.p, g.meta.n, "llama", 5), "lloma", 5));
	MODEL(MZM_EUNSUPPORTED, "general.type", gb_string(&g, "general.type", "adapter"));
	MODEL(MZM_EUNSUPPORTED, "attention.causal", gb_flag(&g, "llama.attention.causal", 0));
	MODEL(MZM_EUNSUPPORTED, "\"yarn\"", gb_string(&g, "llama.rope.scaling.type", "yarn"));
	MODEL(MZM_EFORMAT, "scaling factor 0.5", gb_real(&g, "llama.rope.scaling.factor", 0.5));
	MODEL(MZM_EUNSUPPORTED, "scaling.factor 2", {
		gb_real(&g, "llama.rope.scaling.factor", 2);
		const float f[2] = {1, 3};
		memcpy(gb_add_tensor(&g, "rope_freqs.weight", 0, 2, 0)->data, f, sizeof f);
	});
	MODEL(MZM_EUNSUPPORTED, "dimension_count 2", gb_int(&g, "llama.rope.dimension_count", 2));
	MODEL(MZM_OK, "", gb_int(&g, "llama.rope.dimension_count", 4));
	MODEL(MZM_EUNSUPPORTED, "value_length", gb_int(&g, "llama.attention.value_length", 2));
	MODEL(MZM_EFORMAT, "attn_q.weight: expected [8, 16]", gb_int(&g, "llama.attention.key_length", 8));
	MODEL(MZM_EFORMAT, "eos_token_id", gb_int(&g, "tokenizer.ggml.eos_token_id", 40));
	MODEL(MZM_OK, "", gb_int(&g, "tokenizer.ggml.eos_token_id", UINT32_MAX));
	MODEL(MZM_EFORMAT, "attn_k.bias is missing", gb_add_tensor(&g, "blk.0.attn_q.bias", 0, 8, 0));
	MODEL(MZM_EUNSUPPORTED, "attn_k.bias belongs to no part", gb_add_tensor(&g, "blk.0.attn_k.bias", 0, 4, 0));
	MODEL(MZM_EUNSUPPORTED, "attn_q_norm", gb_add_tensor(&g, "blk.0.attn_q_norm.weight", 0, 4, 0));
	MODEL(MZM_EFORMAT, "blk.0.ffn_down.weight is missing", strcpy(gb_find(&g, "blk.0.ffn_down.weight")->name, "x"));
	MODEL(MZM_EFORMAT, "token_embd.weight is missing", strcpy(gb_find(&g, "token_embd.weight")->name, "x"));
	MODEL(MZM_EFORMAT, "ffn_up.weight: expected [8, 16]", gb_find(&g, "blk.0.ffn_up.weight")->dims[1] = 15);
	MODEL(MZM_EUNSUPPORTED, "(IQ2_XXS)", gb_find(&g, "blk.0.ffn_up.weight")->type = 16);
	MODEL(MZM_EFORMAT, "rope_freqs.weight", {
		const float f[2] = {1, NAN};
		memcpy(gb_add_tensor(&g, "rope_freqs.weight", 0, 2, 0)->data, f, sizeof f);
	});
	MODEL(MZM_EFORMAT, "rope_freqs.weight", gb_add_tensor(&g, "rope_freqs.weight", 0, 3, 0));
}

/* Weights that are no numbers are found when they are read: of numbers one, of blocks all of a scale. */
static void test_nonfinite(void **state)
{
	(void)state;
	for (uint32_t type = 0; type <= 14; type += 2) {
		gb g;
		mzm_source *src;
		mzm_err err = {0};
		int at[2];
		if (type == 4)
			continue;
		gb_model(&g, type, 256);
		gb_tensor *t = gb_find(&g, "blk.0.ffn_down.weight");
		const float nan = NAN;
		gb_scales(type, at);
		if (type == 0)
			memcpy(t->data + 16, &nan, 4);
		else
			t->data[at[0] + 1] = 0x7e;
		gb_bytes b = gb_file(&g);
		testing_write(path, b.p, b.n);
		assert_int_equal(mzm_source_open(&src, path, &err), MZM_OK);
		mzm_tensor x = mzm_source_tensor(src, 8);
		void *data = malloc(mzm_tensor_bytes(&x));
		assert_int_equal(mzm_source_read(src, 8, data, &err), MZM_EFORMAT);
		assert_non_null(strstr(err.message, "NaN"));
		free(data);
		mzm_source_close(src);
		free(b.p);
		gb_free(&g);
	}
}

/* ---- tensors ---- */

/* The file's tensor as f32. [dims[1], dims[0]] */
static float *wide_of(gb *g, const char *name)
{
	gb_tensor *t = gb_find(g, name);
	size_t n = (size_t)(t->dims[0] * t->dims[1]);
	float *x = malloc(n * sizeof *x);
	mzm_ggml_to_f32(x, t->data, t->type, n);
	return x;
}

/* Tensor i of the source as f32; *error: root of the mean square of its distance from want, relative. */
static double distance(mzm_source *src, int32_t i, const float *want)
{
	mzm_tensor t = mzm_source_tensor(src, i);
	mzm_err err = {0};
	size_t n = (size_t)t.n_cols, step = mzm_row_bytes(t.dtype, t.n_cols);
	char *data = malloc(mzm_tensor_bytes(&t));
	float *row = malloc(n * sizeof *row);
	double error = 0, norm = 0;
	if (mzm_source_read(src, i, data, &err) != MZM_OK)
		fail_msg("%s", err.message);
	for (size_t r = 0; r < (size_t)t.n_rows; r++) {
		if (mzm_dtype_is_quant(t.dtype))
			mzm_dequant_row(row, data + r * step, t.dtype, t.n_cols);
		else
			mzm_ggml_to_f32(row, data + r * step, t.dtype == MZM_F32 ? 0 : t.dtype == MZM_F16 ? 1 : 30, n);
		for (size_t c = 0; c < n; c++) {
			double e = (double)row[c] - (double)want[r * n + c];
			error += e * e;
			norm += (double)want[r * n + c] * (double)want[r * n + c];
		}
	}
	free(data);
	free(row);
	return sqrt(error / norm);
}

/* Rows in the order of paired halves, and up and down interleaved, written the long way. */
static float *canonical_of(gb *g, const char *name, size_t dim)
{
	float *x = wide_of(g, name), *y;
	if (strstr(name, "attn_q") || strstr(name, "attn_k")) {
		size_t half = dim / 4, n_heads = strstr(name, "attn_q") ? 2 : 1;
		y = malloc(2 * n_heads * half * dim * sizeof *y);
		for (size_t h = 0; h < n_heads; h++)
			for (size_t i = 0; i < half; i++)
				for (size_t k = 0; k < 2; k++)
					memcpy(y + (2 * half * h + half * k + i) * dim,
					       x + (2 * half * h + 2 * i + k) * dim, dim * sizeof *y);
	} else if (strstr(name, "ffn_up")) {
		float *down = wide_of(g, "blk.0.ffn_down.weight");
		y = malloc(4 * dim * dim * sizeof *y);
		for (size_t j = 0; j < 2 * dim; j++)
			for (size_t c = 0; c < dim; c++) {
				y[2 * j * dim + c] = x[j * dim + c];
				y[(2 * j + 1) * dim + c] = down[c * 2 * dim + j];
			}
		free(down);
	} else {
		return x;
	}
	free(x);
	return y;
}

static void check_type(uint32_t type, size_t dim)
{
	static const char *const names[10] = {
		"token_embd.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.weight", "blk.0.attn_k.weight",
		"blk.0.attn_v.weight", "blk.0.attn_output.weight", "blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight",
		"blk.0.ffn_up.weight", "output_norm.weight"};
	gb g;
	mzm_source *src;
	mzm_err err = {0};
	double worst = 0;
	gb_model(&g, type, (uint32_t)dim);
	gb_bytes b = gb_file(&g);
	testing_write(path, b.p, b.n);
	if (mzm_source_open(&src, path, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_string_equal(mzm_source_format(src), "gguf");
	assert_int_equal(mzm_source_n_tensors(src), 10);
	assert_null(mzm_source_hash(src));
	for (int32_t i = 0; i < 10; i++) {
		float *want = canonical_of(&g, names[i], dim);
		double d = distance(src, i, want);
		bool exact = !mzm_ggml_is_quant(type) || i == 1 || i == 6 || i == 9 ||
			     ((type == 8 || type == 2) && i != 8);
		if (exact ? d != 0 : !(d < 0.008))
			fail_msg("%s: %s: relative error %g", mzm_ggml_name(type), names[i], d);
		worst = d > worst ? d : worst;
		free(want);
	}
	assert_non_null(mzm_source_hash(src));
	print_message("%s: largest relative error of a tensor %.2e\n", mzm_ggml_name(type), worst);
	json_t *o;
	assert_int_equal(mzm_source_describe(src, &o, NULL), MZM_OK);
	json_t *list = json_object_get(o, "conversions");
	double said = -1;
	for (size_t i = 0; i < json_array_size(list); i++) {
		double e = json_number_value(json_object_get(json_array_get(list, i), "relative_rms_error"));
		said = e > said ? e : said;
	}
	assert_int_equal(json_array_size(list), mzm_ggml_is_quant(type) ? 7 : 0);
	assert_true(json_array_size(list) == 0 || fabs(said - worst) <= 1e-6 * worst);
	json_decref(o);
	mzm_source_close(src);
	free(b.p);
	gb_free(&g);
}

static void test_tensors(void **state)
{
	(void)state;
	static const uint32_t types[] = {0, 1, 30, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23};
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
		check_type(types[i], 256);
	check_type(8, 32); /* one block a row */
	check_type(2, 544); /* a group and one block */
	check_type(1, 8);
	check_type(12, 768); /* large enough for several threads */
}

/* Q8_0 has a number that q8 has not. */
static void test_least_weight(void **state)
{
	(void)state;
	gb g;
	mzm_source *src;
	gb_model(&g, 8, 32);
	gb_find(&g, "token_embd.weight")->data[5 * 34 + 2 + 7] = 0x80;
	float *want = wide_of(&g, "token_embd.weight");
	gb_bytes b = gb_file(&g);
	testing_write(path, b.p, b.n);
	assert_int_equal(mzm_source_open(&src, path, NULL), MZM_OK);
	double d = distance(src, 0, want);
	assert_true(d > 0 && d < 0.002);
	mzm_source_close(src);
	free(want);
	free(b.p);
	gb_free(&g);
}

static void test_rope(void **state)
{
	(void)state;
	const double pi = 3.14159265358979323846;
	for (int k = 0; k < 3; k++) { /* k 1: one factor is none of Llama 3's; k 2: all are 1 */
		gb g;
		mzm_source *src;
		mzm_err err = {0};
		gb_model(&g, 0, 256);
		gb_real(&g, "llama.rope.freq_base", 500000);
		float *f = (float *)(void *)gb_add_tensor(&g, "rope_freqs.weight", 0, 64, 0)->data;
		for (int i = 0; i < 64; i++) {
			double length = 2 * pi * pow(500000, i / 64.0), smooth = (8192 / length - 1) / 3;
			f[i] = length < 2048 ? 1 : length > 8192 ? 32 : (float)(1 / ((1 - smooth) / 32 + smooth));
			f[i] = k == 2 ? 1 : f[i];
		}
		f[32] *= k == 1 ? 1.01f : 1;
		gb_bytes b = gb_file(&g);
		testing_write(path, b.p, b.n);
		mzm_status st = mzm_source_open(&src, path, &err);
		assert_int_equal(st, MZM_OK);
		const mzm_config *c = mzm_source_config(src);
		assert_int_equal(c->rope, k == 0 ? MZM_ROPE_LLAMA3 : k == 1 ? MZM_ROPE_LONG : MZM_ROPE_PLAIN);
		assert_true(k != 0 || (c->rope_factor == 32 && c->rope_low_freq == 1 && c->rope_high_freq == 4 &&
				       c->rope_orig_ctx == 8192));
		assert_true(k != 1 || (c->rope_factor == 0 && c->rope_orig_ctx == c->n_ctx &&
				       c->rope_attn_factor == 1 && memcmp(c->rope_short, f, 64 * sizeof *f) == 0 &&
				       memcmp(c->rope_long, f, 64 * sizeof *f) == 0));
		mzm_source_close(src);
		free(b.p);
		gb_free(&g);
	}
}

static void test_faults(void **state)
{
	(void)state;
	gb g;
	gb_model(&g, 8, 32);
	gb_bytes b = gb_file(&g);
	testing_write(path, b.p, b.n);
	gguf_failures f = fail_each(path);
	assert_true(f.n_memory > 10 && f.n_reads > 5);
	free(b.p);
	gb_free(&g);
}

/* A vocabulary and merges of the size that models have. */
static void test_large_header(void **state)
{
	(void)state;
	gb g;
	mzm_gguf *f;
	struct timespec a, z;
	gb_model(&g, 0, 8);
	for (int k = 0; k < 2; k++) {
		gb_key(&g, k ? "tokenizer.ggml.merges" : "tokenizer.ggml.tokens", 9);
		gb_u32(&g.meta, 8);
		gb_u64(&g.meta, k ? 280000 : 128256);
		for (int i = 0; i < (k ? 280000 : 128256); i++) {
			char text[32];
			snprintf(text, sizeof text, "token %d", i);
			gb_text(&g.meta, text);
		}
	}
	for (int i = 0; i < 20000; i++) {
		char key[32];
		snprintf(key, sizeof key, "key.%d", i * 7919 % 20000);
		gb_int(&g, key, (uint32_t)i);
	}
	gb_bytes b = gb_file(&g);
	testing_write(path, b.p, b.n);
	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_int_equal(mzm_gguf_open(&f, path, NULL), MZM_OK);
	clock_gettime(CLOCK_MONOTONIC, &z);
	double s = (double)(z.tv_sec - a.tv_sec) + 1e-9 * (double)(z.tv_nsec - a.tv_nsec);
	print_message("408,256 strings and 20,000 keys in %.0f ms\n", 1e3 * s);
	assert_true(s < 1 || getenv("MIRZAM_SHORT"));
	mzm_gguf_close(f);
	free(b.p);
	gb_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_metadata),
		cmocka_unit_test(test_hostile_headers),
		cmocka_unit_test(test_odd_files),
		cmocka_unit_test(test_truncations),
		cmocka_unit_test(test_claims),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_nonfinite),
		cmocka_unit_test(test_tensors),
		cmocka_unit_test(test_least_weight),
		cmocka_unit_test(test_rope),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_large_header),
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
