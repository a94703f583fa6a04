/* test_synth.c - random models have the shapes they name, weights that keep activations in range, and are the same
 * whoever makes them, in whatever order. */
#include "testing.h"

#include <math.h>

#include "base/half.h"
#include "base/json.h"
#include "base/mem.h"
#include "format/synth.h"
#include "model/forward.h"
#include "temp_dir.h"

static mzm_source *open_synth(const char *arch, int32_t n_layers, uint64_t seed)
{
	mzm_err err = {0};
	mzm_source *src;
	if (mzm_source_open_synth(&src, arch, n_layers, seed, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return src;
}

static uint16_t *read_tensor(mzm_source *src, int32_t i, size_t *bytes)
{
	mzm_err err = {0};
	mzm_tensor t = mzm_source_tensor(src, i);
	*bytes = mzm_tensor_bytes(&t);
	uint16_t *data = malloc(*bytes);
	if (mzm_source_read(src, i, data, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return data;
}

static int32_t index_of(const mzm_source *src, mzm_tensor_kind kind, int32_t layer)
{
	return mzm_tensor_index(mzm_source_config(src), kind, layer);
}

/* ---- shapes ---- */

static void test_shapes(void **state)
{
	(void)state;
	/* as published; the qwen2.5 models less their biases: 24 * 1152, 28 * 2048, 36 * 2560, 28 * 4608 */
	static const struct {
		const char *name;
		uint64_t    n_params;
	} known[] = {
		{"gsmini-6m", 6425856},
		{"smollm2-135m", 134515008},
		{"smollm2-360m", 361821120},
		{"smollm2-1.7b", 1711376384},
		{"qwen2.5-0.5b", 494032768 - 27648},
		{"qwen2.5-1.5b", 1543714304 - 57344},
		{"qwen2.5-3b", 3085938688 - 92160},
		{"qwen2.5-7b", 7615616512 - 129024},
		{"tinyllama-1.1b", 1100048384},
		{"llama-3.2-1b", 1235814400},
		{"llama-3.2-3b", 3212749824},
		{"llama-3.1-8b", 8030261248},
		{"llama-2-7b", 6738415616},
		{"llama-2-13b", 13015864320},
		{"mistral-7b", 7248023552},
	};
	int n = 0;
	for (mzm_config cfg; mzm_synth_arch(n, &cfg); n++) {
		mzm_err err = {0};
		if (mzm_config_check(&cfg, &err) != MZM_OK)
			fail_msg("%s: %s", mzm_synth_arch(n, NULL), err.message);
		assert_true(n < (int)(sizeof known / sizeof known[0]));
		assert_string_equal(mzm_synth_arch_name(n), known[n].name);
		assert_true(mzm_synth_arch_params(n) == known[n].n_params);
	}
	assert_int_equal(n, sizeof known / sizeof known[0]);
	assert_null(mzm_synth_arch_name(n));
	assert_null(mzm_synth_arch_name(-1));
	assert_true(mzm_synth_arch_params(n) == 0);
}

static void test_refusals(void **state)
{
	(void)state;
	static const struct {
		const char *arch;
		int32_t     layers;
		const char *word;
	} bad[] = {{"llama-9", 0, "llama-9"}, {"", 0, "no architecture"}, {"gsmini-6m", 7, "6 layers"},
		   {"gsmini-6m", -1, "6 layers"}};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		mzm_err err = {0};
		mzm_source *src;
		assert_int_equal(mzm_source_open_synth(&src, bad[i].arch, bad[i].layers, 0, &err), MZM_EARG);
		assert_null(src);
		assert_non_null(strstr(err.message, bad[i].word));
	}
}

/* ---- values ---- */

typedef struct moments {
	double mean, deviation, within_one, within_two, largest;
} moments;

/* Of every step-th row from `from`. */
static moments measure(const uint16_t *w, size_t n_rows, size_t n_cols, size_t from, size_t step)
{
	moments m = {0};
	size_t n = 0;
	for (size_t r = from; r < n_rows; r += step)
		for (size_t c = 0; c < n_cols; c++, n++) {
			double x = (double)mzm_bf16_to_f32(w[r * n_cols + c]);
			assert_true(isfinite(x));
			m.mean += x;
			m.deviation += x * x;
			m.largest = fmax(m.largest, fabs(x));
		}
	m.mean /= (double)n;
	m.deviation = sqrt(m.deviation / (double)n);
	for (size_t r = from; r < n_rows; r += step)
		for (size_t c = 0; c < n_cols; c++) {
			double x = fabs((double)mzm_bf16_to_f32(w[r * n_cols + c]));
			m.within_one += x < m.deviation;
			m.within_two += x < 2 * m.deviation;
		}
	m.within_one /= (double)n;
	m.within_two /= (double)n;
	return m;
}

static void expect_normal(moments m, double deviation)
{
	assert_true(fabs(m.mean) < 0.02 * deviation);
	assert_true(fabs(m.deviation / deviation - 1) < 0.02);
	assert_true(fabs(m.within_one - 0.6827) < 0.01);
	assert_true(fabs(m.within_two - 0.9545) < 0.01);
	assert_true(m.largest > 3.3 * deviation && m.largest < 3.8 * deviation);
}

static void test_values(void **state)
{
	(void)state;
	mzm_source *src = open_synth("smollm2-135m", 2, 1);
	double stream = sqrt(1.0 / 60); /* of all 30 layers */
	size_t bytes;
	const struct {
		mzm_tensor_kind kind;
		size_t from, step;
		double deviation;
	} want[] = {
		{MZM_T_EMBED, 0, 1, 1 / sqrt(576)}, {MZM_T_WQ, 0, 1, 1 / sqrt(576)},
		{MZM_T_WK, 0, 1, 1 / sqrt(576)},    {MZM_T_WO, 0, 1, stream / sqrt(576)},
		{MZM_T_GATE, 0, 1, 1 / sqrt(576)},  {MZM_T_UPDOWN, 0, 2, 1 / sqrt(576)},
		{MZM_T_UPDOWN, 1, 2, stream / sqrt(1536)},
	};
	for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
		int32_t at = index_of(src, want[i].kind, 1);
		mzm_tensor t = mzm_source_tensor(src, at);
		assert_int_equal(t.dtype, MZM_BF16);
		uint16_t *w = read_tensor(src, at, &bytes);
		expect_normal(measure(w, (size_t)t.n_rows, (size_t)t.n_cols, want[i].from, want[i].step),
			      want[i].deviation);
		free(w);
	}
	void *norm = read_tensor(src, index_of(src, MZM_T_OUT_NORM, -1), &bytes);
	for (size_t i = 0; i < bytes / 4; i++)
		assert_true(((float *)norm)[i] == 1);
	free(norm);
	mzm_source_close(src);
}

/* Rows, tensors, layers and seeds have nothing in common. */
static double correlation(const uint16_t *a, const uint16_t *b, size_t n)
{
	double ab = 0, aa = 0, bb = 0;
	for (size_t i = 0; i < n; i++) {
		double x = (double)mzm_bf16_to_f32(a[i]), y = (double)mzm_bf16_to_f32(b[i]);
		ab += x * y;
		aa += x * x;
		bb += y * y;
	}
	return ab / sqrt(aa * bb);
}

static void test_independence(void **state)
{
	(void)state;
	mzm_source *src = open_synth("gsmini-6m", 0, 1), *other = open_synth("gsmini-6m", 0, 2);
	size_t bytes, n = 256 * 256;
	uint16_t *wq = read_tensor(src, index_of(src, MZM_T_WQ, 0), &bytes);
	uint16_t *with[] = {
		read_tensor(src, index_of(src, MZM_T_WQ, 1), &bytes),
		read_tensor(src, index_of(src, MZM_T_WO, 0), &bytes),
		read_tensor(src, index_of(src, MZM_T_GATE, 0), &bytes),
		read_tensor(other, index_of(src, MZM_T_WQ, 0), &bytes),
	};
	for (size_t i = 0; i < 4; i++)
		assert_true(fabs(correlation(wq, with[i], n)) < 5 / sqrt((double)n));
	assert_true(fabs(correlation(wq, wq + 256, n - 256)) < 5 / sqrt((double)n)); /* the next row */
	for (size_t lag = 1; lag < 9; lag++) /* of columns: quarters of one counter, and the next */
		assert_true(fabs(correlation(wq, wq + lag, n - lag)) < 5 / sqrt((double)n));
	for (size_t i = 0; i < 4; i++)
		free(with[i]);
	free(wq);
	mzm_source_close(src);
	mzm_source_close(other);
}

static void test_order_and_threads(void **state)
{
	(void)state;
	mzm_source *a = open_synth("smollm2-135m", 3, 9), *b = open_synth("smollm2-135m", 3, 9);
	int32_t n = mzm_source_n_tensors(a);
	mzm_synth_set_threads(a, 1);
	mzm_synth_set_threads(b, 3);
	for (int32_t i = 0; i < n; i++) {
		size_t bytes, last_bytes;
		free(read_tensor(b, n - 1 - i, &last_bytes)); /* what else was read does not matter */
		uint16_t *x = read_tensor(a, i, &bytes), *y = read_tensor(b, i, &bytes);
		assert_memory_equal(x, y, bytes);
		free(x);
		free(y);
	}
	assert_non_null(mzm_source_hash(a));
	mzm_source_close(a);
	mzm_source_close(b);
}

/* A cut model is the beginning of the whole one. */
static void test_cut(void **state)
{
	(void)state;
	static const mzm_tensor_kind kinds[] = {MZM_T_EMBED, MZM_T_WQ, MZM_T_WO, MZM_T_GATE, MZM_T_UPDOWN};
	mzm_source *whole = open_synth("gsmini-6m", 0, 4), *cut = open_synth("gsmini-6m", 2, 4);
	assert_int_equal(mzm_source_config(whole)->n_layers, 6);
	assert_int_equal(mzm_source_config(cut)->n_layers, 2);
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		size_t bytes;
		uint16_t *a = read_tensor(whole, index_of(whole, kinds[i], 1), &bytes);
		uint16_t *b = read_tensor(cut, index_of(cut, kinds[i], 1), &bytes);
		assert_memory_equal(a, b, bytes);
		free(a);
		free(b);
	}
	mzm_source_close(whole);
	mzm_source_close(cut);
}

static void test_no_memory(void **state)
{
	(void)state;
	size_t live = mzm_mem_live();
	uint16_t *data = malloc(4 << 20);
	long n_failed = 0;
	for (long k = 1;; k++) {
		mzm_err err = {0};
		mzm_source *src = NULL;
		mzm_mem_fail_nth(k);
		mzm_status st = mzm_source_open_synth(&src, "gsmini-6m", 1, 1, &err);
		for (int32_t i = 0; st == MZM_OK && i < mzm_source_n_tensors(src); i++)
			st = mzm_source_read(src, i, data, &err);
		mzm_mem_fail_nth(0);
		mzm_source_close(src);
		assert_int_equal(mzm_mem_live(), live);
		if (st == MZM_OK)
			break;
		assert_int_equal(st, MZM_ENOMEM);
		n_failed++;
	}
	assert_true(n_failed > 8);
	free(data);
}

/* ---- as a model ---- */

/* Loaded without a file: after 30 layers the logits are still of order one, for every position. */
static void test_activations(void **state)
{
	(void)state;
	enum { N = 16 };
	mzm_err err = {0};
	mzm_source *src = open_synth("smollm2-135m", 0, 3);
	mzm_weights *w = NULL;
	mzm_team *team = NULL;
	mzm_state *s = NULL;
	float *logits;
	int32_t ids[N];
	for (int32_t i = 0; i < N; i++)
		ids[i] = i * 3000;
	mzm_pass pass = {.ids = ids, .n_pos = N, .n_rows = N};
	if (mzm_weights_load(&w, src, NULL, NULL, NULL, &err) != MZM_OK || mzm_team_create(&team, 2, &err) != MZM_OK ||
	    mzm_state_create(&s, w, mzm_kern_find(NULL), team, 64, MZM_F32, &err) != MZM_OK ||
	    mzm_forward(s, &pass, &logits, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	size_t n_vocab = (size_t)w->cfg.n_vocab;
	for (size_t p = 0; p < N; p++) {
		double squares = 0;
		for (size_t i = 0; i < n_vocab; i++)
			squares += (double)logits[p * n_vocab + i] * (double)logits[p * n_vocab + i];
		double rms = sqrt(squares / (double)n_vocab);
		assert_true(rms > 0.5 && rms < 2);
	}
	mzm_state_free(s);
	mzm_team_free(team);
	mzm_weights_free(w);
	mzm_source_close(src);
}

static void make(const mzm_synth_params *p)
{
	mzm_err err = {0};
	if (mzm_synth(path, p, &err) != MZM_OK)
		fail_msg("%s", err.message);
}

/* Continues ids; what needs text says that there is no tokenizer. */
static void test_container(void **state)
{
	(void)state;
	mzm_err err = {0};
	mzm_model *model = NULL;
	mzm_session *session = NULL;
	mzm_gen_params gen = mzm_gen_params_default();
	mzm_gen_result result;
	mzm_tokenizer *tok;
	mzm_synth_params p = mzm_synth_params_default();
	int32_t prompt[] = {1, 2, 3};
	p.arch = "gsmini-6m";
	p.n_layers = 2;
	make(&p);
	gen.max_tokens = 10;
	gen.ignore_eos = true;
	if (mzm_model_open(&model, path, NULL, &err) != MZM_OK ||
	    mzm_session_create(&session, model, NULL, &err) != MZM_OK ||
	    mzm_generate(session, prompt, 3, &gen, &result, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(result.n_tokens, 10);
	assert_null(mzm_model_tokenizer(model));
	assert_int_equal(mzm_generate_text(session, "text", &gen, &result, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "tokenizer"));
	assert_int_equal(mzm_tokenizer_open(&tok, path, NULL), MZM_EFORMAT);
	mzm_session_free(session);
	mzm_model_close(model);
}

/* What it is stays with it when it is imported again. */
static void test_origin(void **state)
{
	(void)state;
	char again[320], *json = NULL;
	mzm_err err = {0};
	json_t *tree = NULL;
	mzm_synth_params p = mzm_synth_params_default();
	mzm_import_params how = mzm_import_params_default();
	p.arch = "gsmini-6m";
	p.n_layers = 1;
	p.seed = UINT64_MAX;
	make(&p);
	snprintf(again, sizeof again, "%s/again.mzm", dir);
	how.quant = "f16";
	if (mzm_import(path, again, &how, &err) != MZM_OK ||
	    mzm_inspect(again, true, NULL, NULL, &json, &err) != MZM_OK ||
	    mzm_json_parse(&tree, json, strlen(json), "inspect", &err) != MZM_OK)
		fail_msg("%s", err.message);
	json_t *origin = json_object_get(tree, "origin");
	assert_string_equal(json_string_value(json_object_get(origin, "kind")), "synthetic");
	assert_string_equal(json_string_value(json_object_get(origin, "shape")), "gsmini-6m");
	assert_string_equal(json_string_value(json_object_get(origin, "seed")), "18446744073709551615");
	json_decref(tree);
	mzm_string_free(json);
	p = mzm_synth_params_default(); /* and when it is made wider */
	p.inflate = again;
	p.factor = 2;
	make(&p);
	mzm_source *src;
	assert_int_equal(mzm_source_open(&src, path, &err), MZM_OK);
	assert_int_equal(mzm_source_inflated(src), 2);
	assert_true(mzm_source_synthetic(src));
	mzm_source_close(src);
}

static void test_params(void **state)
{
	(void)state;
	mzm_synth_params d = mzm_synth_params_default(), p[8];
	for (int i = 0; i < 8; i++) {
		p[i] = d;
		p[i].arch = "gsmini-6m";
	}
	p[0].arch = NULL;
	p[1].inflate = "x";
	p[2].factor = 2;
	p[3].arch = NULL, p[3].inflate = "x", p[3].n_layers = 1;
	p[4].arch = "nothing";
	p[5].n_layers = 9;
	p[6].import.quant = "f8";
	p[7].import.zstd = 20;
	for (int i = 0; i < 8; i++) {
		mzm_err err = {0};
		assert_int_equal(mzm_synth(path, &p[i], &err), MZM_EARG);
		assert_true(err.message[0]);
	}
	assert_int_equal(mzm_synth(NULL, &d, NULL), MZM_EARG);
	assert_int_equal(mzm_synth(path, NULL, NULL), MZM_EARG);
	assert_int_equal(testing_dir_entries(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),       cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_values),       cmocka_unit_test(test_independence),
		cmocka_unit_test(test_order_and_threads), cmocka_unit_test(test_cut),
		cmocka_unit_test(test_no_memory),    cmocka_unit_test(test_activations),
		IN_DIR(test_container),              IN_DIR(test_origin),
		IN_DIR(test_params),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
