/* test_dijiang_import.c - models with DiJiang attention from directories and containers: scales out of the projection,
 * decay out of tables that are not geometric, what a container says of it, and everything that is refused, by its name:
 * forms, shapes, zeros, infinities, other projections, keys that contradict each other. */
#include "dijiang_rig.h"

#include <math.h>

#include "format/dijiang.h"
#include "format/source.h"
#include "kern/dct.h"

enum { D = 16, HEADS = 3, LEN = 40 };

/* ---- tables ---- */

static void test_scales(void **state)
{
	float projection[D * D], want[D], got[D];
	mzm_err err = {0};
	(void)state;
	for (int j = 0; j < D; j++)
		want[j] = (float)(j % 3 == 0 ? -0.7 * j : j == 5 ? 0 : 0.3 * j);
	for (int k = 0; k < D; k++)
		for (int j = 0; j < D; j++)
			projection[k * D + j] = (float)mzm_dct_element(D, k, j) * want[j];
	assert_int_equal(mzm_dijiang_scales(got, projection, D, NULL), MZM_OK);
	for (int j = 0; j < D; j++)
		assert_float_equal(got[j], want[j], 1e-5);
	projection[3 * D + 4] += 0.1f;
	assert_int_equal(mzm_dijiang_scales(got, projection, D, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "no scaled cosine transform"));
	err = (mzm_err){0};
	projection[3 * D + 4] = NAN;
	assert_int_equal(mzm_dijiang_scales(got, projection, D, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "not finite"));
}

/* Whole tables, handed over in pieces of any length. */
static mzm_status decay(float *out, const float *d1, const float *d2, bool goes_on, mzm_err *err)
{
	static uint64_t seed = 30;
	mzm_dijiang_tables tables = {.len = LEN, .goes_on = goes_on};
	mzm_status st = MZM_OK;
	for (size_t at = 0, n; at < HEADS * LEN && st == MZM_OK; at += n) {
		n = 1 + (size_t)(testing_random(&seed) % 60);
		n = n < HEADS * LEN - at ? n : HEADS * LEN - at;
		st = mzm_dijiang_decay(out + 2 * at, &tables, d1 + at, d2 + at, n, err);
	}
	return st;
}

/* The recurrence gives D1[n] D2[m] between any two positions. */
static void test_decay(void **state)
{
	float d1[HEADS * LEN], d2[HEADS * LEN], out[HEADS * LEN * 2];
	uint64_t seed = 8;
	(void)state;
	for (int i = 0; i < HEADS * LEN; i++) {
		double noise = (double)(testing_random(&seed) >> 11) * 0x1p-53 - 0.5;
		d1[i] = (float)(pow(0.97, i % LEN) * (1 + 0.3 * noise));
		d2[i] = (float)(pow(0.97, -(i % LEN)) * (1 - 0.2 * noise));
	}
	d1[7] = -d1[7];
	assert_int_equal(decay(out, d1, d2, false, NULL), MZM_OK);
	for (int h = 0; h < HEADS; h++) {
		for (int n = 0; n < LEN; n++) {
			double weight = 1;
			for (int m = n; m >= 0; m--) {
				const float *at = out + 2 * (h * LEN + m);
				double want = (double)d1[h * LEN + n] * (double)d2[h * LEN + m];
				assert_true(fabs(weight * (double)at[1] - want) <= 1e-5 * fabs(want));
				weight *= 1 - (double)at[0];
			}
		}
	}
}

static void expect_bad(float *table, int at, float value, float *other, bool first, const char *text)
{
	float out[HEADS * LEN * 2], was = table[at];
	mzm_err err = {0};
	table[at] = value;
	mzm_status st = decay(out, first ? table : other, first ? other : table, false, &err);
	assert_int_equal(st, MZM_EFORMAT);
	if (!strstr(err.message, text))
		fail_msg("\"%s\" is not in \"%s\"", text, err.message);
	table[at] = was;
}

/* What grows at its end may not go on behind it. */
static void test_growing_decay(void **state)
{
	float d1[HEADS * LEN], d2[HEADS * LEN], out[HEADS * LEN * 2];
	mzm_err err = {0};
	(void)state;
	for (int i = 0; i < HEADS * LEN; i++)
		d1[i] = d2[i] = 1;
	assert_int_equal(decay(out, d1, d2, true, NULL), MZM_OK);
	d1[2 * LEN - 1] = -1.5f;
	assert_int_equal(decay(out, d1, d2, false, NULL), MZM_OK);
	assert_int_equal(decay(out, d1, d2, true, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "D1 of head 1 grows"));
}

static void test_bad_decay(void **state)
{
	float d1[HEADS * LEN], d2[HEADS * LEN];
	(void)state;
	for (int i = 0; i < HEADS * LEN; i++)
		d1[i] = d2[i] = 1;
	expect_bad(d1, LEN + 3, 0, d2, true, "D1 of head 1 at position 3 is 0");
	expect_bad(d2, 2 * LEN, 0, d1, false, "D2 of head 2 at position 0 is 0");
	expect_bad(d1, 0, INFINITY, d2, true, "D1 of head 0");
	expect_bad(d2, 5, NAN, d1, false, "D2 of head 0 at position 5");
	expect_bad(d1, 6, 1e-45f, d2, true, "ratio or product"); /* the next ratio is beyond f32 */
}

/* ---- directories ---- */

static void expect_refused(const char *name, const char *changes, const char *text)
{
	dj_dir d = dj_copy(name, changes);
	dj_refused(d.path, text);
	testing_remove(d.path);
}

static void test_refused(void **state)
{
	(void)state;
	expect_refused("dijiang", "{\"dijiang_form\": \"other\"}", "\"dijiang_form\" is \"other\"");
	expect_refused("dijiang", "{\"dijiang_form\": 3}", "dijiang_form");
	expect_refused("dijiang", "{\"dijiang_form\": null}", "belongs to no part");
	expect_refused("dijiang", "{\"dijiang_table_len\": 64}", "self_attn.D1: expected shape [1, 4, 64, 1]");
	expect_refused("dijiang", "{\"dijiang_table_len\": 1}", "dijiang_table_len");
	expect_refused("dijiang", "{\"dijiang_table_len\": 1e9}", "dijiang_table_len");
	expect_refused("dijiang", "{\"dijiang_table_len\": 5000000}", "heads times the length of the decay tables");
	expect_refused("dijiang", "{\"max_position_embeddings\": 256}", "self_attn.D1: expected shape [1, 4, 256, 1]");
	expect_refused("dijiang", "{\"dijiang_form\": \"paper\"}", "tensor model.layers.0.self_attn.T [8] is missing");
	expect_refused("dijiang-paper", "{\"dijiang_form\": \"released\"}", "self_attn.proj_matrix [8, 8] is missing");
	expect_refused("dijiang-paper", "{\"dijiang_denominator\": 2}", "dijiang_denominator");
	expect_refused("mistral", "{\"dijiang_form\": \"paper\"}", "\"dijiang_form\" is not supported");
	expect_refused("gemma2", "{\"dijiang_table_len\": 2}", "\"dijiang_table_len\" is not supported");
	expect_refused("dijiang-groups", "{\"num_key_value_heads\": 4}", "expected shape [32, 32]");
}

static void expect_bad_table(const char *tensor, size_t i, float value, const char *text)
{
	char name[128];
	snprintf(name, sizeof name, "model.layers.1.self_attn.%s", tensor);
	dj_dir d = dj_copy("dijiang", "{}");
	dj_plant(d.path, name, i, value);
	dj_refused(d.path, text);
	testing_remove(d.path);
}

static void test_bad_tables(void **state)
{
	(void)state;
	expect_bad_table("D1", 129, 0, "layers.1.self_attn.D1: D1 of head 1 at position 1 is 0");
	expect_bad_table("D2", 3, INFINITY, "D2 of head 0 at position 3 is inf");
	expect_bad_table("proj_matrix", 9, 5, "layers.1.self_attn.proj_matrix: entry 0, 1");
}

enum { LONG = 40000 };

/* As if trained, long, and so that f32 holds them. */
static void fill_long(void *ctx, float *table, bool is_d2, size_t n_heads, size_t n)
{
	(void)ctx;
	for (size_t i = 0; i < n_heads * n; i++)
		table[i] = (float)(2 + sin((double)(i * (is_d2 ? 7 : 3))));
}

/* Tables that are read piece by piece come out as those that are not; one that is bad is given up where it is. */
static void test_long_tables(void **state)
{
	const char *const name = "model.layers.1.self_attn.D1";
	float *d1 = malloc(4 * LONG * sizeof *d1), *d2 = malloc(4 * LONG * sizeof *d2);
	float *want = malloc(8 * LONG * sizeof *want), *got = malloc(8 * LONG * sizeof *got);
	mzm_source *src;
	mzm_err err = {0};
	(void)state;
	dj_dir d = dj_copy("dijiang", "{\"max_position_embeddings\": 40000}");
	dj_tables(d.path, LONG, fill_long, NULL);
	fill_long(NULL, d1, false, 4, LONG);
	fill_long(NULL, d2, true, 4, LONG);
	mzm_dijiang_tables tables = {.len = LONG};
	assert_int_equal(mzm_dijiang_decay(want, &tables, d1, d2, 4 * LONG, NULL), MZM_OK);
	for (int i = 0; i < 3; i++) {
		static const size_t bad[] = {0, 3, 3 * LONG + 39990};
		if (i > 0)
			dj_plant(d.path, name, bad[i], 0);
		assert_int_equal(mzm_source_open(&src, d.path, &err), MZM_OK);
		int32_t at = mzm_tensor_index(&src->cfg, MZM_T_DECAY, 1);
		uint64_t before = mzm_source_bytes_read(src);
		mzm_status st = mzm_source_read(src, at, got, &err);
		uint64_t read = mzm_source_bytes_read(src) - before;
		assert_int_equal(st, i == 0 ? MZM_OK : MZM_EFORMAT);
		assert_true(i == 1 ? read < 4 * LONG : read > 4 * LONG);
		if (i == 0)
			assert_memory_equal(got, want, 8 * LONG * sizeof *want);
		else
			assert_non_null(strstr(err.message, i == 1 ? "head 0 at position 3 is 0"
								   : "head 3 at position 39990 is 0"));
		if (i == 1)
			dj_plant(d.path, name, bad[1], d1[bad[1]]);
		err = (mzm_err){0};
		mzm_source_close(src);
	}
	testing_remove(d.path);
	free(d1);
	free(d2);
	free(want);
	free(got);
}

/* ---- containers ---- */

static void expect_same_config(const mzm_config *a, const mzm_config *b)
{
	json_t *x = mzm_config_to_json(a), *y = mzm_config_to_json(b);
	assert_true(x && json_equal(x, y));
	json_decref(x);
	json_decref(y);
}

static void test_container(void **state)
{
	static const char *const names[] = {"dijiang", "dijiang-groups", "dijiang-paper", "dijiang-neox"};
	char file[300];
	(void)state;
	for (int i = 0; i < 4; i++) {
		mzm_err err = {0};
		mzm_import_params ip = mzm_import_params_default();
		dj_dir d = dj_copy(names[i], i == 2 ? "{\"dijiang_denominator\": false}" : "{}");
		snprintf(file, sizeof file, "%s/form.mzm", d.path);
		if (mzm_import(d.path, file, &ip, &err) != MZM_OK)
			fail_msg("%s", err.message);
		mzm_model *a = dj_open(d.path, NULL, NULL), *b = dj_open(file, NULL, NULL);
		expect_same_config(&a->weights->cfg, &b->weights->cfg);
		assert_int_equal(b->weights->cfg.attn, i == 2 ? MZM_ATTN_DIJIANG_PAPER : MZM_ATTN_DIJIANG);
		assert_true(b->weights->cfg.no_denominator == (i == 2));
		mzm_model_close(a);
		mzm_model_close(b);
		testing_remove(d.path);
	}
}

static void expect_bad_config(const mzm_config *good, const char *changes, const char *text)
{
	mzm_config got;
	mzm_err err = {0};
	json_t *o = mzm_config_to_json(good), *more = json_loads(changes, 0, NULL);
	assert_true(o && more);
	assert_int_equal(mzm_config_from_json(&got, o, NULL), MZM_OK);
	expect_same_config(&got, good);
	json_object_update(o, more);
	assert_int_not_equal(mzm_config_from_json(&got, o, &err), MZM_OK);
	if (!strstr(err.message, text))
		fail_msg("\"%s\" is not in \"%s\"", text, err.message);
	json_decref(o);
	json_decref(more);
}

static void test_configs(void **state)
{
	mzm_model *m = dj_open("tests/golden/dijiang", NULL, NULL);
	const mzm_config *c = &m->weights->cfg;
	(void)state;
	expect_bad_config(c, "{\"attention\": \"hyena\"}", "\"attention\" is \"hyena\"");
	expect_bad_config(c, "{\"attention\": \"softmax\"}", "decay_len without attention that decays");
	expect_bad_config(c, "{\"attention\": \"dijiang-paper\"}", "decay_len without attention that decays");
	expect_bad_config(c, "{\"decay_len\": 1}", "the length of the decay tables is 1");
	expect_bad_config(c, "{\"decay_len\": 200000000}", "heads times the length of the decay tables");
	expect_bad_config(c, "{\"no_denominator\": true}", "no_denominator with attention \"dijiang\"");
	expect_bad_config(c, "{\"attn_softcap\": 3.0}", "\"attn_softcap\" is not supported with attention");
	expect_bad_config(c, "{\"attn_scale\": 0.5}", "\"attn_scale\" is not supported with attention");
	expect_bad_config(c, "{\"window\": 5, \"local_layers\": [0]}", "\"window\" is not supported with attention");
	expect_bad_config(c, "{\"head_dim\": 4096, \"rope_dim\": 8}", "the head size of linear attention is 4096");
	mzm_model_close(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scales), cmocka_unit_test(test_decay), cmocka_unit_test(test_bad_decay),
		cmocka_unit_test(test_growing_decay),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_bad_tables),
		cmocka_unit_test(test_long_tables), cmocka_unit_test(test_container),
		cmocka_unit_test(test_configs),
	};
	if (access("tests/golden/dijiang", R_OK) != 0) {
		print_message("no tests/golden: run in the root of the source tree\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
