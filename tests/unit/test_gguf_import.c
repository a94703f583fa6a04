/* test_gguf_import.c - GGUF files to containers of other types: what is converted is made of the numbers that the
 * file's blocks stand for, not of what they were rounded to on the way. */
#include "gguf_build.h"

#include "format/gguf_types.h"
#include "format/source.h"
#include "kern/quant.h"
#include "mirzam.h"

static char dir[256], gguf[300];
static const uint32_t types[] = {0, 1, 30, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23};
#define N_TYPES (sizeof types / sizeof types[0])

static int make_dir(void **state)
{
	(void)state;
	testing_temp_dir(dir);
	snprintf(gguf, sizeof gguf, "%s/model.gguf", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	testing_remove(dir);
	return 0;
}

static void write_model(gb *g, const char *arch, uint32_t type)
{
	gb_family_model(g, gb_family_of(arch), type, 256, 1);
	gb_tokenizer(g);
	gb_bytes b = gb_file(g);
	testing_write(gguf, b.p, b.n);
	free(b.p);
}

/* A container of `from`, named so. */
static mzm_source *import_as(const char *from, const char *name, mzm_import_params params)
{
	static char paths[4][300];
	static int next;
	char *to = paths[next++ % 4];
	mzm_source *src = NULL;
	mzm_err err = {0};
	snprintf(to, sizeof paths[0], "%s/%s.mzm", dir, name);
	params.zstd = 0;
	if (mzm_import(from, to, &params, &err) != MZM_OK || mzm_source_open(&src, to, &err) != MZM_OK)
		fail_msg("%s: %s", name, err.message);
	return src;
}

static char *read_tensor(mzm_source *src, int32_t i, mzm_tensor *t)
{
	mzm_err err = {0};
	*t = mzm_source_tensor(src, i);
	char *data = malloc(mzm_tensor_bytes(t));
	if (mzm_source_read(src, i, data, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return data;
}

/* The file's tensor as f32. */
static float *wide_of(gb *g, const char *name)
{
	gb_tensor *t = gb_find(g, name);
	size_t n = (size_t)(t->dims[0] * t->dims[1]);
	float *x = malloc(n * sizeof *x);
	mzm_ggml_to_f32(x, t->data, t->type, n);
	return x;
}

/* Of Qwen 3, whose rows stay where they are, but for up and down: --quant f32 is what the blocks stand for, bit for
 * bit. */
static void test_f32(void **state)
{
	(void)state;
	for (size_t k = 0; k < N_TYPES; k++) {
		gb g;
		mzm_tensor t;
		write_model(&g, "qwen3", types[k]);
		mzm_source *src = import_as(gguf, "f32", (mzm_import_params){.quant = "f32"});
		const mzm_config *c = mzm_source_config(src);
		float *q = wide_of(&g, "blk.0.attn_q.weight"), *up = wide_of(&g, "blk.0.ffn_up.weight");
		float *down = wide_of(&g, "blk.0.ffn_down.weight"), *embed = wide_of(&g, "token_embd.weight");
		char *x = read_tensor(src, mzm_tensor_index(c, MZM_T_WQ, 0), &t);
		assert_true(t.dtype == MZM_F32 && memcmp(x, q, 256 * 256 * 4) == 0);
		free(x);
		x = read_tensor(src, 0, &t);
		assert_true(t.dtype == MZM_F32 && memcmp(x, embed, 40 * 256 * 4) == 0);
		free(x);
		x = read_tensor(src, mzm_tensor_index(c, MZM_T_UPDOWN, 0), &t);
		const float *pairs = (const float *)(const void *)x;
		assert_true(t.dtype == MZM_F32);
		for (size_t j = 0; j < 512; j++) {
			assert_memory_equal(pairs + 2 * j * 256, up + j * 256, 256 * 4);
			for (size_t i = 0; i < 256; i++)
				assert_true(pairs[(2 * j + 1) * 256 + i] == down[i * 512 + j]);
		}
		free(x);
		free(q);
		free(up);
		free(down);
		free(embed);
		mzm_source_close(src);
		gb_free(&g);
	}
}

/* By way of an exact f32 container, or straight: the same bytes. */
static void test_straight(void **state)
{
	(void)state;
	static const char *const quants[] = {"f16", "bf16", "q8", "q4"};
	static const char *const archs[] = {"llama", "phi3", "gptneox"};
	for (size_t k = 0; k < N_TYPES; k++)
		for (size_t q = 0; q < 4; q++) {
			gb g;
			if (types[k] != 12 && q != k % 4 && testing_count(0, 1) == 0)
				continue; /* one for each type, all for Q4_K */
			char f32[300];
			const char *method = k % 2 ? "best" : "nearest";
			write_model(&g, archs[(k + q) % 3], types[k]);
			mzm_source_close(import_as(gguf, "f32", (mzm_import_params){.quant = "f32"}));
			snprintf(f32, sizeof f32, "%s/f32.mzm", dir);
			mzm_import_params params = {.quant = quants[q], .quant_method = method, .draft_quant = "q4"};
			bool kept = types[k] == 8 || types[k] == 2; /* their blocks may be ours */
			mzm_source *a = import_as(f32, "a", params), *b = import_as(gguf, "b", params);
			assert_true(mzm_source_has_draft(a) && mzm_source_has_draft(b));
			if (!kept || q < 2) {
				assert_string_equal(mzm_source_hash(a), mzm_source_hash(b));
				assert_true(types[k] == 2 ||
					    strcmp(mzm_source_draft_hash(a), mzm_source_draft_hash(b)) == 0);
			}
			mzm_source_close(a);
			mzm_source_close(b);
			gb_free(&g);
		}
}

/* Without --quant the model is what it is when the file itself is opened, and the draft is made of the file's numbers.
 */
static void test_draft(void **state)
{
	(void)state;
	gb g;
	char f32[300];
	write_model(&g, "llama", 12);
	mzm_source *direct;
	assert_int_equal(mzm_source_open(&direct, gguf, NULL), MZM_OK);
	for (int32_t i = 0; i < mzm_source_n_tensors(direct); i++) {
		mzm_tensor t;
		free(read_tensor(direct, i, &t));
	}
	mzm_source *a = import_as(gguf, "a", (mzm_import_params){.draft_quant = "q4"});
	mzm_source_close(import_as(gguf, "f32", (mzm_import_params){.quant = "f32"}));
	snprintf(f32, sizeof f32, "%s/f32.mzm", dir);
	mzm_source *b = import_as(f32, "b", (mzm_import_params){.quant = "q8", .draft_quant = "q4"});
	assert_string_equal(mzm_source_hash(a), mzm_source_hash(direct));
	assert_string_equal(mzm_source_hash(a), mzm_source_hash(b));
	assert_string_equal(mzm_source_draft_hash(a), mzm_source_draft_hash(b));
	mzm_source_close(a);
	mzm_source_close(b);
	mzm_source_close(direct);
	gb_free(&g);
}

/* Q4_0 has a q8 of the same values. */
static void test_q4_to_q8(void **state)
{
	(void)state;
	gb g;
	mzm_tensor t;
	write_model(&g, "qwen2", 2);
	mzm_source *src = import_as(gguf, "q8", (mzm_import_params){.quant = "q8", .quant_method = "nearest"});
	float *want = wide_of(&g, "blk.0.attn_q.weight"), row[256];
	char *x = read_tensor(src, mzm_tensor_index(mzm_source_config(src), MZM_T_WQ, 0), &t);
	assert_int_equal(t.dtype, MZM_Q8);
	for (size_t r = 0; r < 256; r++) {
		mzm_dequant_row(row, x + r * mzm_row_bytes(MZM_Q8, 256), MZM_Q8, 256);
		assert_memory_equal(row, want + r * 256, sizeof row);
	}
	free(x);
	free(want);
	mzm_source_close(src);
	gb_free(&g);
}

static void test_type_for(void **state)
{
	(void)state;
	gb g;
	mzm_source *src;
	write_model(&g, "llama", 8);
	assert_int_equal(mzm_source_open(&src, gguf, NULL), MZM_OK);
	const mzm_config *c = mzm_source_config(src);
	int32_t wo = mzm_tensor_index(c, MZM_T_WO, 0), updown = mzm_tensor_index(c, MZM_T_UPDOWN, 0);
	assert_int_equal(mzm_source_type_for(src, wo, MZM_Q8), MZM_Q8);
	assert_int_equal(mzm_source_type_for(src, wo, MZM_Q4), MZM_F32);
	assert_int_equal(mzm_source_type_for(src, updown, MZM_Q8), MZM_F32);
	assert_int_equal(mzm_source_type_for(src, mzm_tensor_index(c, MZM_T_OUT_NORM, -1), MZM_Q8), MZM_F32);
	assert_int_equal(mzm_source_read_as(src, -1, MZM_F32, NULL, NULL), MZM_EARG);
	mzm_source_close(src);
	mzm_source *mzm = import_as(gguf, "own", (mzm_import_params){0});
	assert_int_equal(mzm_source_type_for(mzm, wo, MZM_F32), MZM_Q8);
	assert_int_equal(mzm_source_read_as(mzm, wo, MZM_F32, NULL, NULL), MZM_EARG);
	mzm_source_close(mzm);
	gb_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_f32),
		cmocka_unit_test(test_straight),
		cmocka_unit_test(test_draft),
		cmocka_unit_test(test_q4_to_q8),
		cmocka_unit_test(test_type_for),
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
