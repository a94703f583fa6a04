/* test_calibrate.c - calibration of the demo models: the side-car, the report, and the predictors that live on it, all
 * of them in a small random model of either kind, the quick ones in the demo models too.
 *
 * MIRZAM_LONG=1 runs all of them in the demo models. */
#include "testing.h"

#include <math.h>

#include "demo.h"
#include "engine/engine.h"
#include "model/forward.h"
#include "predictors/fit.h"
#include "tiny_model.h" /* before temp_dir.h, whose names it has inside */

#include "temp_dir.h"

#define TEXTS "data/gsmini-calib.jsonl"

static char side_car[300];
static const char *const cheap[] = {"cats", "static"};
static const char *const all_fits[] = {"static", "cats", "teal", "svd", "aware", "lowrank", "countdown-d"};
enum { N_QUICK = 3 }; /* of these */

#define COUNT(list) ((int32_t)(sizeof(list) / sizeof *(list)))

static mzm_calibrate_params small(void)
{
	mzm_calibrate_params p = mzm_calibrate_params_default();
	p.n_train = 256;
	p.n_test = 96;
	p.n_report = 16;
	p.fits = cheap;
	p.n_fits = 2;
	p.n_threads = 1;
	return p;
}

static mzm_model *open_model(const char *from, const char *calib)
{
	mzm_model *m;
	mzm_err err = {0};
	mzm_model_params p = mzm_model_params_default();
	p.calib = calib;
	if (mzm_model_open(&m, from, &p, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return m;
}

/* The first n texts. */
static void add_texts(mzm_calibration *c, const mzm_model *m, int n)
{
	char *line = NULL, *text;
	size_t cap = 0, n_ids;
	FILE *f = fopen(TEXTS, "r");
	assert_non_null(f);
	for (int i = 0; i < n && getline(&line, &cap, f) > 0; i++) {
		int32_t *ids;
		json_t *o = json_loads(line, 0, NULL);
		const char *question = json_string_value(json_object_get(o, "question"));
		const char *answer = json_string_value(json_object_get(o, "answer"));
		const mzm_tokenizer *tok = mzm_model_tokenizer(m);
		assert_true(asprintf(&text, "Question: %s\nAnswer: %s", question, answer) > 0);
		assert_int_equal(mzm_tokenize(tok, text, strlen(text), 0, &ids, &n_ids, NULL), MZM_OK);
		assert_int_equal(mzm_calibration_add(c, ids, n_ids, NULL), MZM_OK);
		mzm_ids_free(ids);
		free(text);
		json_decref(o);
	}
	free(line);
	fclose(f);
}

static mzm_status calibrate(const mzm_model *m, const mzm_calibrate_params *p, const char *to, json_t **report,
			    mzm_err *err)
{
	mzm_calibration *c;
	char *text = NULL;
	mzm_status st = mzm_calibration_create(&c, m, p, err);
	if (st == MZM_OK) {
		add_texts(c, m, 12);
		st = mzm_calibration_finish(c, to, &text, err);
		mzm_calibration_free(c);
	}
	if (report)
		*report = text ? json_loads(text, 0, NULL) : NULL;
	assert_true((st == MZM_OK) == (text != NULL));
	mzm_string_free(text);
	return st;
}

/* dir holds model.mzm, a link to the demo model, and its side-car model.mzc. */
static mzm_model *calibrated_by(const char *demo, const char *const *fits, int32_t n)
{
	char whole[4096];
	static const float keep[] = {0.3f};
	mzm_calibrate_params p = small();
	p.fits = fits;
	p.n_fits = n;
	p.n_train = p.n_test = 64; /* enough to be something */
	p.keep = keep;
	p.n_epochs = p.n_report = p.n_keep = 1;
	assert_non_null(realpath(demo, whole));
	assert_int_equal(symlink(whole, path), 0);
	snprintf(side_car, sizeof side_car, "%s/model.mzc", dir);
	mzm_model *m = open_model(path, NULL);
	assert_null(m->calib);
	assert_int_equal(calibrate(m, &p, side_car, NULL, NULL), MZM_OK);
	mzm_model_close(m);
	m = open_model(path, NULL);
	assert_non_null(m->calib);
	return m;
}

static mzm_model *calibrated(const char *demo)
{
	return calibrated_by(demo, cheap, COUNT(cheap));
}

/* ---- the report ---- */

static const json_t *row_of(const json_t *report, const char *predictor, double keep)
{
	size_t i;
	json_t *row;
	json_array_foreach(json_object_get(report, "report"), i, row)
		if (strcmp(json_string_value(json_object_get(row, "predictor")), predictor) == 0 &&
		    json_number_value(json_object_get(row, "keep")) == keep)
			return row;
	fail_msg("no row %s %g", predictor, keep);
	return NULL;
}

static double mean(const json_t *report, const char *predictor, double keep, const char *key)
{
	const json_t *v = json_object_get(json_object_get(row_of(report, predictor, keep), "mean"), key);
	assert_true(json_is_number(v));
	return json_number_value(v);
}

static void report_is_plausible(void **state)
{
	(void)state;
	json_t *r;
	mzm_model *m = open_model(DEMO_MODEL, "off");
	mzm_calibrate_params p = small();
	assert_int_equal(calibrate(m, &p, NULL, &r, NULL), MZM_OK);
	assert_int_equal(json_integer_value(json_object_get(r, "n_train")), 256);
	assert_int_equal(json_integer_value(json_object_get(r, "n_test")), 96);
	assert_int_equal(json_array_size(json_object_get(row_of(r, "topk", 0.25), "layers")), 6);
	assert_true(mean(r, "oracle", 0.25, "recall") == 1);
	assert_true(mean(r, "oracle", 0.25, "error") < mean(r, "topk", 0.25, "error"));
	assert_true(mean(r, "topk", 0.25, "error") < 0.5 * mean(r, "random", 0.25, "error"));
	assert_true(mean(r, "random", 0.25, "recall") > 0.2 && mean(r, "random", 0.25, "recall") < 0.3);
	assert_true(mean(r, "static", 0.25, "recall") > mean(r, "random", 0.25, "recall") + 0.05);
	assert_true(mean(r, "topk", 0.5, "error") < mean(r, "topk", 0.1, "error"));
	double kept = mean(r, "cats", 0.25, "kept");
	assert_true(kept > 0.2 && kept < 0.3);
	assert_true(mean(r, "topk", 0.25, "read") == 0.5 && mean(r, "static", 0.25, "read") == 0.25);
	assert_null(json_object_get(json_object_get(row_of(r, "topk", 0.25), "mean"), "active_recall"));
	json_decref(r);
	mzm_model_close(m);
}

static void report_of_relu_counts_active_neurons(void **state)
{
	(void)state;
	json_t *r;
	mzm_model *m = open_model(DEMO_MODEL_RELU, "off");
	mzm_calibrate_params p = small();
	assert_int_equal(calibrate(m, &p, NULL, &r, NULL), MZM_OK);
	assert_true(mean(r, "cats", 0.5, "active_recall") > 0.999);
	assert_true(mean(r, "cats", 0.5, "kept") < 0.1); /* not one that is 0 */
	assert_true(mean(r, "cats", 0.5, "error") < 1e-3);
	assert_true(mean(r, "random", 0.5, "active_recall") < 0.6);
	json_decref(r);
	mzm_model_close(m);
}

/* Of the report those predictors and keeps that were asked for. */
static void report_on_what_was_asked(void **state)
{
	(void)state;
	json_t *r;
	static const char *const predictors[] = {"topk", "cats", "lowrank"};
	static const float keep[] = {0.125f};
	mzm_model *m = open_model(DEMO_MODEL, "off");
	mzm_calibrate_params p = small();
	p.predictors = predictors;
	p.n_predictors = 3;
	p.keep = keep;
	p.n_keep = 1;
	assert_int_equal(calibrate(m, &p, NULL, &r, NULL), MZM_OK);
	assert_int_equal(json_array_size(json_object_get(r, "report")), 2); /* lowrank was not fitted */
	(void)mean(r, "cats", 0.125, "recall");
	json_decref(r);
	mzm_model_close(m);
}

/* ---- the file ---- */

static void file_depends_on_no_threads(void **state)
{
	(void)state;
	char other[300];
	size_t n, k;
	mzm_model *m = open_model(DEMO_MODEL_RELU, "off");
	mzm_calibrate_params p = small();
	snprintf(side_car, sizeof side_car, "%s/a.mzc", dir);
	snprintf(other, sizeof other, "%s/b.mzc", dir);
	assert_int_equal(calibrate(m, &p, side_car, NULL, NULL), MZM_OK);
	p.n_threads = 3;
	assert_int_equal(calibrate(m, &p, other, NULL, NULL), MZM_OK);
	char *a = testing_read(side_car, &n), *b = testing_read(other, &k);
	assert_int_equal(n, k);
	assert_memory_equal(a, b, n);
	free(a);
	free(b);
	mzm_model_close(m);
}

static mzm_status opens(const char *from, const char *calib, const char *words)
{
	mzm_model *m;
	mzm_err err = {0};
	mzm_model_params p = mzm_model_params_default();
	p.calib = calib;
	mzm_status st = mzm_model_open(&m, from, &p, &err);
	if (words && !strstr(err.message, words))
		fail_msg("\"%s\" does not say \"%s\"", err.message, words);
	mzm_model_close(m);
	return st;
}

static void wrong_side_cars_are_refused(void **state)
{
	(void)state;
	size_t n;
	mzm_model_close(calibrated(DEMO_MODEL));
	assert_int_equal(opens(DEMO_MODEL, side_car, NULL), MZM_OK); /* the same model elsewhere */
	assert_int_equal(opens(DEMO_MODEL_RELU, side_car, "made for another model"), MZM_EFORMAT);
	assert_int_equal(opens(DEMO_MODEL, "data/none.mzc", "no such side-car"), MZM_EFORMAT);
	char *bytes = testing_read(side_car, &n);
	bytes[n - 7] ^= 1;
	testing_write(side_car, bytes, n);
	assert_int_equal(opens(path, NULL, "damaged"), MZM_EFORMAT);
	testing_write(side_car, bytes, n / 2);
	assert_int_equal(opens(path, NULL, side_car), MZM_EFORMAT);
	assert_int_equal(opens(path, NULL, "--calib off"), MZM_EFORMAT);
	assert_int_equal(opens(path, "off", NULL), MZM_OK);
	free(bytes);
}

static void side_car_has_its_place(void **state)
{
	(void)state;
	char *at, want[300];
	assert_int_equal(mzm_calibration_path(&at, "some.dir/model.mzm", NULL), MZM_OK);
	assert_string_equal(at, "some.dir/model.mzc");
	mzm_string_free(at);
	assert_int_equal(mzm_calibration_path(&at, "some.dir/model", NULL), MZM_OK);
	assert_string_equal(at, "some.dir/model.mzc");
	mzm_string_free(at);
	assert_int_equal(mzm_calibration_path(&at, ".hidden", NULL), MZM_OK);
	assert_string_equal(at, ".hidden.mzc");
	mzm_string_free(at);
	assert_int_equal(mzm_calibration_path(&at, dir, NULL), MZM_OK);
	snprintf(want, sizeof want, "%s/mirzam.mzc", dir);
	assert_string_equal(at, want);
	mzm_string_free(at);
}

static void plan_counts_it(void **state)
{
	(void)state;
	mzm_plan with, without;
	mzm_model_params p = mzm_model_params_default();
	mzm_model_close(calibrated(DEMO_MODEL));
	char *big = calloc(1, 64 << 20);
	assert_non_null(big);
	testing_write(side_car, big, 64 << 20); /* a plan reads nothing of it */
	free(big);
	assert_int_equal(mzm_plan_make(&with, path, &p, NULL), MZM_OK);
	p.calib = "off";
	assert_int_equal(mzm_plan_make(&without, path, &p, NULL), MZM_OK);
	assert_true(with.needed_bytes > without.needed_bytes + (60 << 20));
}

/* ---- predictors that need it ---- */

typedef struct record {
	int32_t ids[160];
	int32_t n;
	mzm_gen_result result;
	long    n_alloc; /* calls of the second time */
} record;

/* A problem; of a model without a tokenizer any tokens. */
static int32_t prompt_of(const mzm_model *m, int32_t ids[512])
{
	int32_t *found, n = 20;
	size_t n_found;
	for (int32_t i = 0; i < n; i++)
		ids[i] = (i * 37 + 11) % m->info.n_vocab;
	if (!mzm_model_tokenizer(m))
		return n;
	char *text = demo_prompt(7);
	assert_int_equal(mzm_tokenize(mzm_model_tokenizer(m), text, strlen(text), MZM_TOK_ADD_SPECIAL, &found, &n_found,
				      NULL), MZM_OK);
	assert_in_range(n_found, 1, 512);
	memcpy(ids, found, n_found * sizeof *ids);
	mzm_ids_free(found);
	free(text);
	return (int32_t)n_found;
}

static record generate(const mzm_model *m, mzm_mode mode, const char *predictor, float keep, int threads, int width)
{
	record r = {0};
	mzm_err err = {0};
	mzm_session *s;
	mzm_session_params sp = {.n_ctx = 512, .n_threads = threads};
	mzm_gen_params p = mzm_gen_params_default();
	int32_t prompt[512], n_prompt = prompt_of(m, prompt);
	p.mode = mode;
	p.predictor = predictor;
	p.keep = keep;
	p.tree_width = width;
	p.max_tokens = mzm_model_tokenizer(m) ? 100 : 40;
	assert_int_equal(mzm_session_create(&s, m, &sp, NULL), MZM_OK);
	for (int i = 0; i < (mode == MZM_MODE_SIRIUS ? 2 : 1); i++) { /* the second time the session has all it needs */
		mzm_mem_fail_nth(0);
		if (mzm_generate(s, prompt, n_prompt, &p, &r.result, &err) != MZM_OK)
			fail_msg("%s", err.message);
		r.n_alloc = mzm_mem_fail_nth(0);
	}
	r.n = r.result.n_tokens;
	assert_in_range(r.n, 1, 100);
	memcpy(r.ids, r.result.tokens, (size_t)r.n * sizeof r.ids[0]);
	mzm_session_free(s);
	return r;
}

static bool same(const record *a, const record *b)
{
	return a->n == b->n && memcmp(a->ids, b->ids, (size_t)a->n * sizeof a->ids[0]) == 0;
}

/* In exact mode, in a tree of drafts, with all neurons, by several threads, and in memory. */
static void expect_invariants(const mzm_model *m, int32_t n)
{
	record dense = generate(m, MZM_MODE_DENSE, "griffin", 0.5f, 1, 1);
	record griffin = generate(m, MZM_MODE_SIRIUS, "griffin", 0.5f, 1, 1);
	for (int32_t i = 0; i < n; i++) {
		const char *name = all_fits[i];
		record exact = generate(m, MZM_MODE_EXACT, name, 0.3f, 2, 1);
		record tree = generate(m, MZM_MODE_EXACT, name, 0.3f, 1, 3);
		record all = generate(m, MZM_MODE_SPARSE, name, 1, 1, 1);
		record one = generate(m, MZM_MODE_SPARSE, name, 0.3f, 1, 1);
		record two = generate(m, MZM_MODE_SPARSE, name, 0.3f, 2, 1);
		record sirius = generate(m, MZM_MODE_SIRIUS, name, 0.3f, 1, 1);
		assert_true(same(&exact, &dense) && exact.result.n_rolled_back + exact.result.n_accepted > 0);
		assert_true(same(&tree, &dense) && tree.result.n_nodes > tree.result.n_sparse_passes);
		assert_true(same(&all, &dense));
		assert_true(same(&one, &two));
		assert_true(one.result.density < 0.9 && one.result.density > 0.1);
		assert_true(sirius.result.n_checks > 0);
		assert_int_equal(sirius.n_alloc, griffin.n_alloc);
	}
}

static void predictors_keep_the_invariants(void **state)
{
	int32_t n = (int32_t)testing_count(N_QUICK, COUNT(all_fits));
	(void)state;
	for (int relu = 0; relu < 2; relu++) {
		mzm_model *m = calibrated_by(relu ? DEMO_MODEL_RELU : DEMO_MODEL, all_fits, n);
		expect_invariants(m, n);
		mzm_model_close(m);
		assert_int_equal(unlink(path), 0);
		assert_int_equal(unlink(side_car), 0);
	}
}

/* From random tokens, which is all that a random model knows. */
static void calibrate_tiny(const char *from)
{
	static const float keep[] = {0.3f};
	mzm_calibrate_params p = small();
	mzm_calibration *c;
	mzm_err err = {0};
	uint64_t seed = 9;
	int32_t ids[500];
	mzm_model *m = open_model(from, "off");
	p.fits = all_fits;
	p.n_fits = COUNT(all_fits);
	p.keep = keep;
	p.n_epochs = p.n_report = p.n_keep = 1;
	for (int i = 0; i < COUNT(ids); i++)
		ids[i] = (int32_t)(testing_random(&seed) % (uint64_t)m->info.n_vocab);
	if (mzm_calibration_create(&c, m, &p, &err) != MZM_OK ||
	    mzm_calibration_add(c, ids, COUNT(ids), &err) != MZM_OK ||
	    mzm_calibration_finish(c, side_car, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_calibration_free(c);
	mzm_model_close(m);
}

static void all_predictors_keep_the_invariants(void **state)
{
	(void)state;
	snprintf(side_car, sizeof side_car, "%s/tiny.mzc", dir);
	for (int relu = 0; relu < 2; relu++) {
		const tiny_spec spec = {.n_layers = 2, .dim = 64, .n_ffn = 160, .n_heads = 4, .n_kv_heads = 2,
					.head_dim = 16, .n_vocab = 300, .n_ctx = 512, .dtype = "F32", .eos = -1,
					.relu = relu};
		tiny_model *t = tiny_make(&spec, 21);
		calibrate_tiny(t->dir);
		mzm_model *m = open_model(t->dir, side_car);
		expect_invariants(m, COUNT(all_fits));
		mzm_model_close(m);
		tiny_free(t);
	}
}

/* Every predictor that needs a calibration is among those. */
static void no_predictor_is_left_out(void **state)
{
	int n = 0;
	(void)state;
	for (int i = 0; mzm_predictor_at(i); i++)
		n += mzm_predictor_at(i)->calibration != NULL;
	assert_int_equal(n, COUNT(all_fits));
	for (int32_t i = 0; i < COUNT(all_fits); i++)
		assert_non_null(mzm_predictor_find(all_fits[i])->calibration);
}

/* ---- shares of layers ---- */

static const char *const with_shares[] = {"static", "alloc"};

static mzm_calibrate_params for_shares(void)
{
	static const float keep[] = {0.5f};
	mzm_calibrate_params p = small();
	p.fits = with_shares;
	p.n_fits = COUNT(with_shares);
	p.n_report = 6;
	p.n_test = 200;
	p.keep = keep;
	p.n_keep = 1;
	return p;
}

/* Every predictor that layers can allot to is tried, means are kept, and what is said to be written is there. */
static void shares_are_found(void **state)
{
	(void)state;
	json_t *r, *one, *point, *share;
	size_t i, k, l, n_written = 0;
	mzm_err err = {0};
	mzm_calib *calib;
	mzm_model *m = open_model(DEMO_MODEL, "off");
	mzm_calibrate_params p = for_shares();
	snprintf(side_car, sizeof side_car, "%s/a.mzc", dir);
	if (calibrate(m, &p, side_car, &r, &err) != MZM_OK ||
	    mzm_calib_open(&calib, side_car, m->info.hash, &err) != MZM_OK)
		fail_msg("%s", err.message);
	const json_t *list = json_object_get(r, "alloc");
	assert_int_equal(json_array_size(list), 6); /* griffin, griffin-live, topk, wina, countdown, static */
	json_array_foreach(list, i, one) {
		char name[64];
		const char *predictor = json_string_value(json_object_get(one, "predictor"));
		bool is_written = json_is_true(json_object_get(one, "written")), uneven = false;
		assert_true(mzm_predictor_find(predictor)->allocates);
		snprintf(name, sizeof name, "alloc.%s", predictor);
		json_array_foreach(json_object_get(one, "points"), k, point) {
			double keep = json_number_value(json_object_get(point, "keep")), sum = 0;
			json_array_foreach(json_object_get(point, "shares"), l, share) {
				sum += json_number_value(share);
				uneven |= fabs(json_number_value(share) - keep) > 1e-5;
			}
			assert_true(fabs(sum / 6 - keep) < 1e-4);
			assert_true(json_number_value(json_object_get(point, "kld_even")) > 0);
		}
		n_written += is_written;
		assert_int_equal(is_written, uneven);
		assert_int_equal(is_written, mzm_calib_find(calib, name, -1, MZM_F32, 6, 6) != NULL);
	}
	assert_true(n_written > 0); /* or nothing is tested here: griffin gains by a lot */
	mzm_calib_close(calib);
	json_decref(r);
	mzm_model_close(m);
}

static void shares_depend_on_no_threads(void **state)
{
	(void)state;
	size_t n[2];
	char *bytes[2];
	mzm_model *m = open_model(DEMO_MODEL_RELU, "off");
	mzm_calibrate_params p = for_shares();
	p.n_report = 1;
	snprintf(side_car, sizeof side_car, "%s/a.mzc", dir);
	for (int i = 0; i < 2; i++) {
		p.n_threads = 1 + i;
		assert_int_equal(calibrate(m, &p, side_car, NULL, NULL), MZM_OK);
		bytes[i] = testing_read(side_car, &n[i]);
	}
	assert_int_equal(n[0], n[1]);
	assert_memory_equal(bytes[0], bytes[1], n[0]);
	free(bytes[0]);
	free(bytes[1]);
	mzm_model_close(m);
}

/* Or the test above could not fail. */
static void static_sets_alter_the_text(void **state)
{
	(void)state;
	mzm_model *m = calibrated(DEMO_MODEL);
	record dense = generate(m, MZM_MODE_DENSE, "griffin", 0.5f, 1, 1);
	record sparse = generate(m, MZM_MODE_SPARSE, "static", 0.2f, 1, 1);
	assert_false(same(&sparse, &dense));
	mzm_model_close(m);
}

/* Its numbers are the same from every number of threads, and a session starts from them. */
static void monitor_is_fitted(void **state)
{
	(void)state;
	static const char *const only[] = {MZM_MONITOR_TENSOR};
	char whole[4096];
	float fitted[2 * MZM_MONITOR_FEATURES];
	mzm_calibrate_params p = small();
	p.fits = only;
	p.n_fits = 1;
	p.n_judged = 150;
	assert_non_null(realpath(DEMO_MODEL, whole));
	assert_int_equal(symlink(whole, path), 0);
	snprintf(side_car, sizeof side_car, "%s/model.mzc", dir);
	for (p.n_threads = 1; p.n_threads <= 2; p.n_threads++) {
		mzm_session *s;
		json_t *report;
		mzm_model *m = open_model(path, "off");
		assert_int_equal(calibrate(m, &p, side_car, &report, NULL), MZM_OK);
		assert_in_range(json_integer_value(json_object_get(report, "n_judged")), 400, 1200);
		json_decref(report);
		mzm_model_close(m);
		m = open_model(path, NULL);
		const float *found = mzm_calib_find(m->calib, MZM_MONITOR_TENSOR, -1, MZM_F32, 2, MZM_MONITOR_FEATURES);
		assert_non_null(found);
		if (p.n_threads == 1)
			memcpy(fitted, found, sizeof fitted);
		assert_memory_equal(fitted, found, sizeof fitted);
		assert_int_equal(mzm_session_create(&s, m, NULL, NULL), MZM_OK);
		double moved = 0;
		for (int i = 0; i < MZM_MONITOR_FEATURES; i++) {
			assert_true(s->monitor.weight[i] == (double)found[i]);
			moved += fabs((double)found[i] - (double)mzm_monitor_builtin.weight[i]);
		}
		assert_true(moved > 0.01);
		mzm_session_free(s);
		mzm_model_close(m);
	}
}

static void predictors_say_what_they_need(void **state)
{
	(void)state;
	mzm_err err;
	mzm_session *s;
	mzm_gen_result result;
	mzm_session_params sp = {.n_ctx = 256, .n_threads = 1};
	mzm_model *m = open_model(DEMO_MODEL, "off");
	assert_int_equal(mzm_session_create(&s, m, &sp, NULL), MZM_OK);
	for (int i = 0; mzm_predictor_at(i); i++) {
		mzm_gen_params p = mzm_gen_params_default();
		p.mode = MZM_MODE_SPARSE;
		p.predictor = mzm_predictor_at(i)->name;
		p.max_tokens = 2;
		err = (mzm_err){0};
		mzm_status st = mzm_generate_text(s, "Question:", &p, &result, &err);
		assert_int_equal(st, mzm_predictor_at(i)->calibration ? MZM_EUNDEFINED : MZM_OK);
		if (st != MZM_OK)
			assert_non_null(strstr(err.message, "mirzam calibrate -m " DEMO_MODEL));
		if (mzm_predictor_at(i)->calibration)
			assert_non_null(mzm_fit_find(mzm_predictor_at(i)->calibration));
	}
	mzm_session_free(s);
	mzm_model_close(m);
}

/* ---- misuse and misfortune ---- */

static int stop_at(void *user, const char *stage, uint64_t done, uint64_t total)
{
	assert_true(done <= total);
	return strcmp(stage, user) == 0;
}

static void a_cancelled_one_leaves_nothing(void **state)
{
	(void)state;
	static char reading[] = "reading", fitting[] = "fitting", weighing[] = "weighing layers",
		    measuring[] = "measuring";
	char *const stages[] = {reading, fitting, weighing, measuring};
	mzm_model *m = open_model(DEMO_MODEL, "off");
	mzm_calibrate_params p = for_shares();
	snprintf(side_car, sizeof side_car, "%s/a.mzc", dir);
	for (int i = 0; i < COUNT(stages); i++) {
		p.progress = stop_at;
		p.user = stages[i];
		assert_int_equal(calibrate(m, &p, side_car, NULL, NULL), MZM_ECANCELLED);
		assert_int_equal(testing_dir_entries(dir), 0);
	}
	mzm_model_close(m);
}

static void nonsense_is_refused(void **state)
{
	(void)state;
	static const char *const unknown[] = {"none"}, *const twice[] = {"cats", "cats"};
	static const float keep[] = {0};
	mzm_model *m = open_model(DEMO_MODEL, "off");
	mzm_calibration *c;
	int32_t ids[] = {1, 2, 3, -1};
	mzm_calibrate_params p = small();
	p.fits = unknown;
	p.n_fits = 1;
	assert_int_equal(mzm_calibration_create(&c, m, &p, NULL), MZM_EARG);
	p.fits = twice;
	p.n_fits = 2;
	assert_int_equal(mzm_calibration_create(&c, m, &p, NULL), MZM_EARG);
	p = small();
	p.keep = keep;
	p.n_keep = 1;
	assert_int_equal(mzm_calibration_create(&c, m, &p, NULL), MZM_EARG);
	p = small();
	p.predictors = unknown;
	p.n_predictors = 1;
	assert_int_equal(mzm_calibration_create(&c, m, &p, NULL), MZM_EARG);
	p = small();
	p.n_test = -1;
	assert_int_equal(mzm_calibration_create(&c, m, &p, NULL), MZM_EARG);
	assert_null(c);

	p = small();
	assert_int_equal(mzm_calibration_create(&c, m, &p, NULL), MZM_OK);
	assert_int_equal(mzm_calibration_add(c, ids, 4, NULL), MZM_EARG);
	assert_int_equal(mzm_calibration_add(c, ids, 3, NULL), MZM_OK);
	assert_int_equal(mzm_calibration_finish(c, NULL, NULL, NULL), MZM_EARG); /* too little */
	assert_int_equal(mzm_calibration_finish(c, NULL, NULL, NULL), MZM_EARG); /* once only */
	mzm_calibration_free(c);
	mzm_calibration_free(NULL);
	mzm_model_close(m);
}

static void streamed_weights_are_refused(void **state)
{
	(void)state;
	mzm_model *m;
	mzm_calibration *c;
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	mp.store = "stream";
	assert_int_equal(mzm_model_open(&m, DEMO_MODEL, &mp, NULL), MZM_OK);
	assert_int_equal(mzm_calibration_create(&c, m, NULL, &err), MZM_EUNDEFINED);
	assert_non_null(strstr(err.message, "--store resident"));
	mzm_model_close(m);
}

static void failed_memory_is_reported(void **state)
{
	(void)state;
	mzm_model *m = open_model(DEMO_MODEL, "off");
	mzm_calibrate_params p = small();
	static const float keep[] = {0.5f};
	static const char *const predictors[] = {"cats", "griffin"}, *const some[] = {"cats", "alloc"};
	p.fits = some;
	p.n_fits = 2;
	p.n_train = 50;
	p.n_test = 34;
	p.n_report = 1;
	p.keep = keep;
	p.n_keep = 1;
	p.predictors = predictors;
	p.n_predictors = 2;
	mzm_status st = MZM_ENOMEM;
	size_t live = mzm_mem_live();
	for (long nth = 1; st != MZM_OK; nth += testing_count(5, 1)) {
		mzm_calibration *c;
		int32_t ids[100];
		for (int i = 0; i < 100; i++)
			ids[i] = i * 7 % 1000;
		mzm_mem_fail_nth(nth);
		st = mzm_calibration_create(&c, m, &p, NULL);
		if (st == MZM_OK)
			st = mzm_calibration_add(c, ids, 100, NULL);
		if (st == MZM_OK)
			st = mzm_calibration_finish(c, NULL, NULL, NULL);
		mzm_mem_fail_nth(0);
		mzm_calibration_free(c);
		assert_true(st == MZM_OK || st == MZM_ENOMEM);
		assert_int_equal(mzm_mem_live(), live);
	}
	mzm_model_close(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(report_is_plausible),
		cmocka_unit_test(report_of_relu_counts_active_neurons),
		cmocka_unit_test(report_on_what_was_asked),
		IN_DIR(file_depends_on_no_threads),
		IN_DIR(wrong_side_cars_are_refused),
		IN_DIR(side_car_has_its_place),
		IN_DIR(plan_counts_it),
		IN_DIR(predictors_keep_the_invariants),
		IN_DIR(all_predictors_keep_the_invariants),
		cmocka_unit_test(no_predictor_is_left_out),
		IN_DIR(static_sets_alter_the_text),
		IN_DIR(shares_are_found),
		IN_DIR(shares_depend_on_no_threads),
		IN_DIR(monitor_is_fitted),
		cmocka_unit_test(predictors_say_what_they_need),
		IN_DIR(a_cancelled_one_leaves_nothing),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(streamed_weights_are_refused),
		cmocka_unit_test(failed_memory_is_reported),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
