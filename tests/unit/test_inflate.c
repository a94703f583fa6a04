/* test_inflate.c - an inflated model computes what its source computes, its copies add up and differ, and it says
 * what it is. */
#include "testing.h"

#include "base/json.h"
#include "base/mem.h"
#include "demo.h"
#include "format/inflate.h"
#include "tiny_model.h"

#include "temp_dir.h"

static const tiny_spec base_spec = {
	.n_layers = 2, .dim = 48, .n_ffn = 70, .n_heads = 6, .n_kv_heads = 2, .head_dim = 8, .n_vocab = 131,
	.n_ctx = 128, .dtype = "BF16", .eos = -1,
};

static mzm_source *open_source(const char *from)
{
	mzm_err err = {0};
	mzm_source *src;
	if (mzm_source_open(&src, from, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return src;
}

static mzm_source *open_wide(const char *from, int32_t factor, uint64_t seed)
{
	mzm_err err = {0};
	mzm_source *src;
	if (mzm_source_open_inflated(&src, open_source(from), factor, seed, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return src;
}

static void *read_tensor(mzm_source *src, int32_t i)
{
	mzm_err err = {0};
	mzm_tensor t = mzm_source_tensor(src, i);
	void *data = malloc(mzm_tensor_bytes(&t));
	if (mzm_source_read(src, i, data, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return data;
}

static double value(const void *data, mzm_dtype dtype, size_t i)
{
	float f;
	uint16_t h;
	if (dtype == MZM_F32) {
		memcpy(&f, (const char *)data + 4 * i, 4);
		return (double)f;
	}
	memcpy(&h, (const char *)data + 2 * i, 2);
	return (double)(dtype == MZM_BF16 ? mzm_bf16_to_f32(h) : mzm_f16_to_f32(h));
}

/* ---- copies ---- */

typedef struct pair {
	mzm_tensor  t;     /* of the small model */
	const void *small, *wide;
	size_t      factor;
} pair;

static double small_at(const pair *p, size_t row, size_t col)
{
	return value(p->small, p->t.dtype, row * (size_t)p->t.n_cols + col);
}

/* Of copy s of the row, copy r of the column. */
static double wide_at(const pair *p, size_t s, size_t row, size_t r, size_t col)
{
	size_t n_rows = (size_t)p->t.n_rows, n_cols = (size_t)p->t.n_cols;
	return value(p->wide, p->t.dtype, ((s * n_rows + row) * p->factor + r) * n_cols + col);
}

static bool is_norm(const pair *p)
{
	return p->t.kind == MZM_T_ATTN_NORM || p->t.kind == MZM_T_FFN_NORM || p->t.kind == MZM_T_OUT_NORM;
}

static void expect_repeats(const pair *p, double scale)
{
	for (size_t row = 0; row < (size_t)p->t.n_rows; row++)
		for (size_t r = 0; r < p->factor; r++)
			for (size_t col = 0; col < (size_t)p->t.n_cols; col++)
				assert_true(wide_at(p, 0, row, r, col) ==
					    (double)(float)(small_at(p, row, col) / scale));
}

/* Half a unit of the last copy, whose factor is below 3 / n; and the factors' own rounding. */
static double tolerance(const pair *p, double w)
{
	double unit = p->t.dtype == MZM_BF16 ? 0x1p-8 : p->t.dtype == MZM_F16 ? 0x1p-11 : 0x1p-24;
	double tiny = p->t.dtype == MZM_F16 ? 0x1p-25 : 1e-30;
	return p->factor == 1 ? 0 : fabs(w) * (3 * unit / (double)p->factor + 0x1p-22) + tiny;
}

static void expect_sums(const pair *p, size_t row, size_t n_copies)
{
	bool down = p->t.kind == MZM_T_UPDOWN && row % 2 == 1;
	for (size_t col = 0; col < (size_t)p->t.n_cols; col++) {
		double w = small_at(p, row, col);
		for (size_t a = 0; a < (down ? p->factor : n_copies); a++) {
			double sum = 0;
			for (size_t b = 0; b < p->factor; b++) {
				double part = down ? wide_at(p, b, row, a, col) : wide_at(p, a, row, b, col);
				assert_true(fabs(part) <= 3.1 * fabs(w) / (double)p->factor + 1e-7);
				assert_true(fabs(w) < 1e-3 || part / w > 0.3 / (double)p->factor);
				sum += part;
			}
			if (!(fabs(sum - w) <= tolerance(p, w)))
				fail_msg("row %zu col %zu copy %zu: %.9g instead of %.9g", row, col, a, sum, w);
		}
	}
}

/* No two blocks of a matrix are the same bytes. */
static void expect_different_blocks(const pair *p, size_t n_copies)
{
	size_t n = n_copies * p->factor, elem = mzm_dtype_bytes(p->t.dtype), bytes = (size_t)p->t.n_cols * elem;
	for (size_t row = 0; row < 2; row++)
		for (size_t i = 0; i < n; i++)
			for (size_t k = 0; k < i; k++) {
				const char *rows = p->wide;
				size_t a = (i / p->factor * (size_t)p->t.n_rows + row) * p->factor + i % p->factor;
				size_t b = (k / p->factor * (size_t)p->t.n_rows + row) * p->factor + k % p->factor;
				assert_memory_not_equal(rows + a * bytes, rows + b * bytes, bytes);
			}
}

static void expect_copies(const pair *p, bool tied)
{
	size_t n_copies = p->t.kind == MZM_T_HEAD ? 1 : p->factor;
	if (p->t.kind == MZM_T_EMBED || is_norm(p)) {
		expect_repeats(p, p->t.kind == MZM_T_OUT_NORM && tied ? (double)p->factor : 1);
		return;
	}
	for (size_t row = 0; row < (size_t)p->t.n_rows; row++)
		expect_sums(p, row, n_copies);
	expect_different_blocks(p, n_copies);
}

static void expect_inflated(const tiny_spec *spec, int32_t factor)
{
	tiny_model *tiny = tiny_make(spec, 7);
	mzm_source *small = open_source(tiny->dir), *wide = open_wide(tiny->dir, factor, 3);
	assert_int_equal(mzm_source_n_tensors(wide), mzm_source_n_tensors(small));
	for (int32_t i = 0; i < mzm_source_n_tensors(small); i++) {
		pair p = {.t = mzm_source_tensor(small, i), .factor = (size_t)factor};
		mzm_tensor t = mzm_source_tensor(wide, i);
		assert_int_equal(t.dtype, p.t.dtype);
		assert_int_equal(t.n_cols, p.t.n_cols * factor);
		void *a = read_tensor(small, i), *b = read_tensor(wide, i);
		p.small = a;
		p.wide = b;
		expect_copies(&p, spec->tied);
		free(a);
		free(b);
	}
	mzm_source_close(small);
	mzm_source_close(wide);
	tiny_free(tiny);
}

static void test_copies(void **state)
{
	(void)state;
	static const char *const dtypes[] = {"BF16", "F16", "F32"};
	static const int32_t factors[] = {1, 2, 3, 5};
	for (int i = 0; i < 12; i++) {
		tiny_spec s = base_spec;
		s.dtype = dtypes[i % 3];
		s.tied = i & 1;
		expect_inflated(&s, factors[i / 3]);
	}
}

static void test_one_is_identity(void **state)
{
	(void)state;
	tiny_spec s = base_spec;
	for (int tied = 0; tied < 2; tied++) {
		s.tied = tied;
		tiny_model *tiny = tiny_make(&s, 8);
		mzm_source *small = open_source(tiny->dir), *wide = open_wide(tiny->dir, 1, 3);
		for (int32_t i = 0; i < mzm_source_n_tensors(small); i++) {
			mzm_tensor t = mzm_source_tensor(small, i);
			void *a = read_tensor(small, i), *b = read_tensor(wide, i);
			assert_memory_equal(a, b, mzm_tensor_bytes(&t));
			free(a);
			free(b);
		}
		assert_string_equal(mzm_source_hash(wide), mzm_source_hash(small));
		mzm_source_close(small);
		mzm_source_close(wide);
		tiny_free(tiny);
	}
}

static void test_threads_and_seeds(void **state)
{
	(void)state;
	tiny_spec s = base_spec;
	s.dim = 128, s.n_ffn = 300;
	tiny_model *tiny = tiny_make(&s, 9);
	enum { GATE = 7, FACTOR = 9 }; /* large enough for several threads */
	mzm_source *first = open_wide(tiny->dir, FACTOR, 1);
	for (int32_t i = GATE; i <= GATE + 1; i++) {
		mzm_tensor t = mzm_source_tensor(first, i);
		mzm_inflate_set_threads(first, 1);
		void *want = read_tensor(first, i);
		for (int n = 2; n <= 7; n += 5) {
			mzm_inflate_set_threads(first, n);
			void *got = read_tensor(first, i);
			assert_memory_equal(got, want, mzm_tensor_bytes(&t));
			free(got);
		}
		mzm_source *other = open_wide(tiny->dir, FACTOR, 2);
		void *got = read_tensor(other, i);
		assert_memory_not_equal(got, want, mzm_tensor_bytes(&t));
		mzm_source_close(other);
		free(got);
		free(want);
	}
	mzm_source_close(first);
	tiny_free(tiny);
}

/* ---- what the model computes ---- */

static mzm_status inflate_to(const char *from, int32_t factor, mzm_err *err)
{
	mzm_synth_params p = mzm_synth_params_default();
	p.inflate = from;
	p.factor = factor;
	p.seed = 5;
	return mzm_synth(path, &p, err);
}

static void make_wide(const char *from, int32_t factor)
{
	mzm_err err = {0};
	if (inflate_to(from, factor, &err) != MZM_OK)
		fail_msg("%s", err.message);
}

enum { N_IDS = 60 };

static void logits_of(float *logits, const char *from, const int32_t *ids)
{
	mzm_err err = {0};
	mzm_model *model = NULL;
	mzm_session *session = NULL;
	mzm_model_params mp = mzm_model_params_default();
	mzm_session_params sp = mzm_session_params_default();
	mp.isa = "scalar"; /* activations and KV unrounded: what differs is the weights' */
	sp.kv_type = "f32";
	sp.n_threads = 2;
	if (mzm_model_open(&model, from, &mp, &err) != MZM_OK ||
	    mzm_session_create(&session, model, &sp, &err) != MZM_OK ||
	    mzm_session_forward(session, logits, ids, N_IDS, N_IDS, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_session_free(session);
	mzm_model_close(model);
}

/* Largest difference, in standard deviations of the small model's logits. */
static double difference(const float *a, const double *b, size_t n)
{
	double worst = 0, squares = 0;
	for (size_t i = 0; i < n; i++) {
		worst = fmax(worst, fabs((double)a[i] - b[i]));
		squares += b[i] * b[i];
	}
	return worst / sqrt(squares / (double)n);
}

static void expect_same_logits(const tiny_spec *spec, int32_t factor, double most)
{
	tiny_model *tiny = tiny_make(spec, 11);
	int32_t ids[N_IDS];
	size_t n = (size_t)N_IDS * (size_t)spec->n_vocab;
	float *got = malloc(n * sizeof *got);
	double *want = malloc(n * sizeof *want);
	uint64_t seed = 77;
	for (int i = 0; i < N_IDS; i++)
		ids[i] = (int32_t)(testing_random(&seed) % (uint64_t)spec->n_vocab);
	tiny_forward(tiny, ids, N_IDS, want);
	make_wide(tiny->dir, factor);
	logits_of(got, path, ids);
	double d = difference(got, want, n);
	print_message("%s%s%s x%d: largest difference %.2e deviations\n", spec->dtype, spec->tied ? " tied" : "",
		      spec->relu ? " relu" : "", (int)factor, d);
	assert_true(d < most);
	free(got);
	free(want);
	tiny_free(tiny);
}

static void test_logits(void **state)
{
	(void)state;
	static const int32_t factors[] = {1, 2, 3, 5};
	for (int i = 0; i < 8; i++) {
		tiny_spec s = base_spec;
		s.tied = i & 1;
		s.relu = i & 2;
		s.dtype = "F32";
		expect_same_logits(&s, factors[i / 2], 1e-4);
		s.dtype = "BF16";
		s.n_kv_heads = i & 4 ? 6 : 2;
		expect_same_logits(&s, factors[i / 2], 0.05);
	}
}

/* ---- the demo models ---- */

static mzm_session *open_session(mzm_model **model, const char *from)
{
	mzm_err err = {0};
	mzm_session *session = NULL;
	if (mzm_model_open(model, from, NULL, &err) != MZM_OK ||
	    mzm_session_create(&session, *model, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return session;
}

static void expect_same_tokens(const char *from, int32_t factor, int n_problems)
{
	mzm_model *small_model, *wide_model;
	make_wide(from, factor);
	mzm_session *small = open_session(&small_model, from), *wide = open_session(&wide_model, path);
	mzm_gen_params gen = mzm_gen_params_default();
	gen.max_tokens = getenv("MIRZAM_SHORT") ? 40 : 100;
	for (int i = 0; i < n_problems; i++) {
		mzm_gen_result a, b;
		mzm_err err = {0};
		char *prompt = demo_prompt(i);
		if (mzm_generate_text(small, prompt, &gen, &a, &err) != MZM_OK ||
		    mzm_generate_text(wide, prompt, &gen, &b, &err) != MZM_OK)
			fail_msg("%s", err.message);
		assert_true(a.n_tokens > 5);
		assert_int_equal(a.n_tokens, b.n_tokens);
		assert_memory_equal(a.tokens, b.tokens, (size_t)a.n_tokens * sizeof a.tokens[0]);
		free(prompt);
	}
	mzm_session_free(small);
	mzm_session_free(wide);
	mzm_model_close(small_model);
	mzm_model_close(wide_model);
}

static void test_demo_tokens(void **state)
{
	(void)state;
	int n = getenv("MIRZAM_SHORT") ? 2 : (int)testing_count(4, 30);
	expect_same_tokens(DEMO_MODEL, 3, n);
	expect_same_tokens(DEMO_MODEL_RELU, 2, n);
}

/* ---- what it says of itself ---- */

static json_t *origin_of(const char *from)
{
	char *json;
	mzm_err err = {0};
	json_t *tree;
	if (mzm_inspect(from, true, NULL, NULL, &json, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(mzm_json_parse(&tree, json, strlen(json), "inspect", &err), MZM_OK);
	mzm_string_free(json);
	json_t *origin = json_incref(json_object_get(tree, "origin"));
	json_decref(tree);
	return origin;
}

static void expect_origin(const char *from, int factor, const char *source_hash)
{
	json_t *o = origin_of(from);
	assert_string_equal(json_string_value(json_object_get(o, "kind")), "inflated");
	assert_int_equal((int)json_number_value(json_object_get(o, "factor")), factor);
	assert_string_equal(json_string_value(json_object_get(o, "seed")), "5");
	assert_string_equal(json_string_value(json_object_get(o, "source_hash")), source_hash);
	json_decref(o);
	mzm_source *src = open_source(from);
	assert_int_equal(mzm_source_inflated(src), factor);
	assert_false(mzm_source_synthetic(src));
	mzm_source_close(src);
}

static void test_origin(void **state)
{
	(void)state;
	char again[320], hash[33];
	mzm_err err = {0};
	mzm_import_params how = mzm_import_params_default();
	mzm_source *small = open_source(DEMO_MODEL);
	snprintf(hash, sizeof hash, "%s", mzm_source_hash(small));
	assert_int_equal(mzm_source_inflated(small), 0);
	assert_null(mzm_source_origin(small));
	mzm_source_close(small);
	make_wide(DEMO_MODEL, 2);
	expect_origin(path, 2, hash);
	snprintf(again, sizeof again, "%s/again.mzm", dir);
	how.quant = "f16";
	if (mzm_import(path, again, &how, &err) != MZM_OK)
		fail_msg("%s", err.message);
	expect_origin(again, 2, hash);
}

/* A directory's hash is known only once it was read. */
static void test_origin_of_directory(void **state)
{
	(void)state;
	tiny_model *tiny = tiny_make(&base_spec, 12);
	mzm_source *small = open_source(tiny->dir);
	for (int32_t i = 0; i < mzm_source_n_tensors(small); i++)
		free(read_tensor(small, i));
	make_wide(tiny->dir, 2);
	expect_origin(path, 2, mzm_source_hash(small));
	mzm_source_close(small);
	tiny_free(tiny);
}

static void test_bad_origin(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"[1]", "{}", "{\"kind\":7}", "{\"kind\":\"trained\"}", "{\"kind\":\"inflated\"}",
		"{\"kind\":\"inflated\",\"factor\":0}", "{\"kind\":\"inflated\",\"factor\":\"2\"}",
		"{\"kind\":\"inflated\",\"factor\":2.5}", "{\"kind\":\"inflated\",\"factor\":1e12}",
		"{\"kind\":\"inflated\",\"factor\":2,\"synthetic\":1}",
	};
	mzm_source *src = open_source(DEMO_MODEL);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		mzm_err err = {0};
		json_t *o = json_loads(bad[i], 0, NULL);
		assert_non_null(o);
		mzm_status st = mzm_source_set_origin(src, o, &err);
		if (st != MZM_EFORMAT && st != MZM_EUNSUPPORTED)
			fail_msg("%s: status %d", bad[i], st);
		assert_true(strstr(err.message, "origin") || strstr(err.message, "factor") ||
			    strstr(err.message, "kind") || strstr(err.message, "synthetic"));
		assert_int_equal(mzm_source_inflated(src), 0);
		json_decref(o);
	}
	assert_int_equal(mzm_source_set_origin(src, NULL, NULL), MZM_OK);
	mzm_source_close(src);
}

/* ---- refusals ---- */

static void refused(const char *from, int32_t factor, mzm_status code, const char *word)
{
	mzm_err err = {0};
	size_t live = mzm_mem_live();
	mzm_status st = inflate_to(from, factor, &err);
	if (st != code || !strstr(err.message, word))
		fail_msg("status %d, wanted %d and \"%s\": %s", st, code, word, err.message);
	assert_int_equal(mzm_mem_live(), live);
}

static void test_refusals(void **state)
{
	(void)state;
	char wide[320], quantised[320];
	mzm_err err = {0};
	mzm_import_params how = mzm_import_params_default();
	refused(DEMO_MODEL, 0, MZM_EARG, "1 .. 1024");
	refused(DEMO_MODEL, -1, MZM_EARG, "1 .. 1024");
	refused(DEMO_MODEL, 1025, MZM_EARG, "1 .. 1024");
	refused("no/such/model", 2, MZM_EIO, "no/such/model");
	assert_int_equal(testing_dir_entries(dir), 0);
	make_wide(DEMO_MODEL, 2);
	snprintf(wide, sizeof wide, "%s/wide.mzm", dir);
	assert_int_equal(rename(path, wide), 0);
	refused(wide, 2, MZM_EUNSUPPORTED, "inflated already");
	refused("tests/golden/dijiang-paper", 2, MZM_EUNSUPPORTED, "is linear (DiJiang)");
	refused("tests/golden/gemma", 2, MZM_EUNSUPPORTED, "built as Llama is");
	snprintf(quantised, sizeof quantised, "%s/q8.mzm", dir);
	how.quant = "q8";
	if (mzm_import(DEMO_MODEL, quantised, &how, &err) != MZM_OK)
		fail_msg("%s", err.message);
	refused(quantised, 2, MZM_EUNSUPPORTED, "q8");
	snprintf(path, sizeof path, "%s", DEMO_MODEL);
	refused(DEMO_MODEL, 2, MZM_EARG, "part of the source");
}

/* A wide model leaves less room. */
static void test_bounds(void **state)
{
	(void)state;
	tiny_spec s = base_spec;
	s.n_ffn = 3000;
	tiny_model *tiny = tiny_make(&s, 13);
	refused(tiny->dir, 350, MZM_EARG, "1 .. 349 are possible"); /* 2^20 / 3000 */
	tiny_free(tiny);
}

static int stop_late(void *user, const char *stage, uint64_t done, uint64_t total)
{
	(void)user;
	(void)stage;
	return done > total / 2;
}

static void test_cancel_leaves_nothing(void **state)
{
	(void)state;
	mzm_err err = {0};
	mzm_synth_params p = mzm_synth_params_default();
	size_t live = mzm_mem_live();
	p.inflate = DEMO_MODEL;
	p.factor = 2;
	p.import.progress = stop_late;
	assert_int_equal(mzm_synth(path, &p, &err), MZM_ECANCELLED);
	assert_int_equal(testing_dir_entries(dir), 0);
	assert_int_equal(mzm_mem_live(), live);
}

/* Every allocation fails once: an error, nothing lost, inner still the caller's. */
static void test_no_memory(void **state)
{
	(void)state;
	tiny_model *tiny = tiny_make(&base_spec, 14);
	size_t live = mzm_mem_live();
	long n_failed = 0;
	for (long k = 1;; k++) {
		mzm_err err = {0};
		mzm_source *small = open_source(tiny->dir), *wide;
		void *data = malloc(1 << 20);
		mzm_mem_fail_nth(k);
		mzm_status st = mzm_source_open_inflated(&wide, small, 3, 1, &err);
		mzm_source *owner = st == MZM_OK ? wide : small;
		for (int32_t i = 0; st == MZM_OK && i < mzm_source_n_tensors(wide); i++)
			st = mzm_source_read(wide, i, data, &err);
		mzm_mem_fail_nth(0);
		mzm_source_close(owner);
		free(data);
		assert_int_equal(mzm_mem_live(), live);
		if (st == MZM_OK)
			break;
		assert_int_equal(st, MZM_ENOMEM);
		n_failed++;
	}
	assert_true(n_failed > 10);
	tiny_free(tiny);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copies),
		cmocka_unit_test(test_one_is_identity),
		cmocka_unit_test(test_threads_and_seeds),
		IN_DIR(test_logits),
		IN_DIR(test_demo_tokens),
		IN_DIR(test_origin),
		IN_DIR(test_origin_of_directory),
		cmocka_unit_test(test_bad_origin),
		IN_DIR(test_refusals),
		IN_DIR(test_bounds),
		IN_DIR(test_cancel_leaves_nothing),
		cmocka_unit_test(test_no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
