/* test_monitor.c - what the confidence monitor starts from: token classes of a real vocabulary, features, the fit of a
 * prior, its use; the rest of the monitor is in test_decode.c. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "decode/monitor.h"
#include "decode/token_class.h"
#include "demo.h"
#include "engine/engine.h"
#include "temp_dir.h"

/* ---- token classes ---- */

static void test_class_of_bytes(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		unsigned    class;
	} rows[] = {
		{"7", MZM_CLASS_DIGIT}, {" 12", MZM_CLASS_DIGIT}, {"x2", MZM_CLASS_DIGIT}, {"", 0}, {" ", 0}, {".", 0},
		{" +", MZM_CLASS_OPERATOR}, {"=", MZM_CLASS_OPERATOR}, {" $4", MZM_CLASS_OPERATOR | MZM_CLASS_DIGIT},
		{"%", MZM_CLASS_OPERATOR}, {"\n", MZM_CLASS_NEWLINE}, {".\r\n", MZM_CLASS_NEWLINE},
		{" apples", MZM_CLASS_WORD}, {"apples ", MZM_CLASS_WORD}, {"a", MZM_CLASS_WORD}, {"don't", 0},
		{"\xc3\xa9t\xc3\xa9", MZM_CLASS_WORD}, {"word\n", MZM_CLASS_NEWLINE}, {")", MZM_CLASS_CLOSING},
		{"]);", MZM_CLASS_CLOSING}, {"}\n", MZM_CLASS_CLOSING | MZM_CLASS_NEWLINE},
		{"x)", MZM_CLASS_CLOSING}, {"a-b", MZM_CLASS_OPERATOR},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		assert_int_equal(mzm_token_class(rows[i].text, strlen(rows[i].text)), rows[i].class);
	assert_int_equal(mzm_token_class("\0" "1", 2), MZM_CLASS_DIGIT); /* a NUL is a byte like others */
}

static void test_classes_of_a_vocabulary(void **state)
{
	(void)state;
	mzm_tokenizer *tok;
	mzm_err err = {0};
	uint8_t *classes;
	if (mzm_tokenizer_open(&tok, DEMO_MODEL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	int32_t n = mzm_token_count(tok), n_digits = 0, n_words = 0;
	assert_int_equal(mzm_token_classes_create(&classes, tok, n + 3, NULL), MZM_OK);
	for (int32_t id = 0; id < n; id++) {
		size_t len;
		char *text;
		assert_int_equal(mzm_detokenize(tok, &id, 1, &text, &len, NULL), MZM_OK);
		bool digit = strpbrk(text, "0123456789") != NULL;
		assert_int_equal(!!(classes[id] & MZM_CLASS_DIGIT), digit);
		n_digits += digit;
		n_words += !!(classes[id] & MZM_CLASS_WORD);
		mzm_string_free(text);
		if (mzm_token_is_special(tok, id))
			assert_int_equal(classes[id], 0);
	}
	assert_true(n_digits >= 10 && n_words > 100);
	assert_true(classes[n] == 0 && classes[n + 2] == 0); /* rows of the model that no token has */
	mzm_free(classes);
	mzm_tokenizer_close(tok);
	assert_int_equal(mzm_token_classes_create(&classes, NULL, 10, NULL), MZM_OK);
	assert_null(classes);
}

/* ---- fitting ---- */

enum { MANY = 20000 };

/* Tokens of all sorts whose acceptance follows the given weights. */
static mzm_monitor_case *made_up_cases(size_t n, const double weight[MZM_MONITOR_FEATURES], uint64_t seed)
{
	static const uint8_t classes[] = {0, MZM_CLASS_DIGIT, MZM_CLASS_OPERATOR, MZM_CLASS_WORD};
	mzm_monitor_case *cases = calloc(n, sizeof *cases);
	for (uint64_t i = 0; i < n; i++) {
		double f[MZM_MONITOR_FEATURES], z = 0;
		mzm_evidence e = {{(float)mzm_rng_unit(seed, 1, i), (float)(8 * mzm_rng_unit(seed, 2, i)),
				   (float)(2 * mzm_rng_unit(seed, 3, i))},
				  classes[(int)(4 * mzm_rng_unit(seed, 4, i))],
				  classes[(int)(4 * mzm_rng_unit(seed, 5, i))]};
		assert_true(mzm_monitor_features(f, &e));
		for (int j = 0; j < MZM_MONITOR_FEATURES; j++)
			z += weight[j] * f[j];
		cases[i] = (mzm_monitor_case){e, 1, mzm_rng_unit(seed, 6, i) < 1 / (1 + exp(-z))};
	}
	return cases;
}

static void test_fit_finds_the_weights(void **state)
{
	(void)state;
	static const double truth[MZM_MONITOR_FEATURES] = {0.5, 1.2, 0.4, -0.7, -1.0, -0.4, -1.5, 0.6};
	mzm_monitor_case *cases = made_up_cases(MANY, truth, 3);
	mzm_monitor_prior got, again;
	mzm_monitor_fit(&got, cases, MANY);
	for (int j = 0; j < MZM_MONITOR_FEATURES; j++) {
		if (fabs((double)got.weight[j] - truth[j]) > 0.2) /* four standard errors of the least certain one */
			fail_msg("weight %d is %.3f, not %.3f", j, (double)got.weight[j], truth[j]);
		assert_true(got.precision[j] > 0 && isfinite(got.precision[j]));
	}
	mzm_monitor_fit(&again, cases, MANY);
	assert_memory_equal(&got, &again, sizeof got);
	for (int i = 0; i < MANY; i += 2) /* a case that does not count is one that is not there */
		cases[i].weight = 0;
	mzm_monitor_fit(&got, cases, MANY);
	for (int i = 0; i < MANY / 2; i++)
		cases[i] = cases[2 * i + 1];
	mzm_monitor_fit(&again, cases, MANY / 2);
	assert_memory_equal(&got, &again, sizeof got);
	free(cases);
}

static void test_fit_of_little(void **state)
{
	(void)state;
	mzm_monitor_prior got;
	mzm_monitor_case odd[64] = {0};
	mzm_monitor_fit(&got, NULL, 0); /* nothing was seen */
	assert_memory_equal(got.weight, mzm_monitor_builtin.weight, sizeof got.weight);
	for (int i = 0; i < 64; i++) /* separable, and with numbers that are none */
		odd[i] = (mzm_monitor_case){
			{{i < 32 ? 0.99f : 0.2f, i < 32 ? 9.0f : 0.1f, i % 5 ? 0.3f : NAN}, 0, 0}, 1, i < 32};
	mzm_monitor_fit(&got, odd, 64);
	for (int j = 0; j < MZM_MONITOR_FEATURES; j++)
		assert_true(fabs((double)got.weight[j]) < 20 && got.precision[j] > 0);
}

/* ---- use ---- */

static void test_prior_and_log(void **state)
{
	(void)state;
	static const mzm_monitor_prior mine = {.weight = {-1, 2, 0, 0, -3, 0, 0, 0},
					       .precision = {1e30f, -5, 4, 4, 1e30f, 4, 4, 4}};
	mzm_evidence plain = {{0.9f, 3, 0.3f}, 0, 0}, digit = {{0.9f, 3, 0.3f}, MZM_CLASS_DIGIT, 0};
	mzm_monitor_case room[3];
	mzm_monitor_log journal = {room, 0, 3};
	mzm_monitor m = {.prior = &mine, .log = &journal};
	mzm_monitor_reset(&m);
	float before = mzm_monitor_confidence(&m, &digit);
	double lo = log(0.9 / 0.1) / 4;
	assert_true(fabs((double)before - 1 / (1 + exp(4 - 2 * lo))) < 1e-5);
	assert_true(mzm_monitor_confidence(&m, &plain) > before);
	mzm_evidence draft[4] = {digit, plain, digit, plain};
	for (int i = 0; i < 50; i++)
		mzm_monitor_learn(&m, draft, 4, 2, 3, 5); /* the last one was never judged */
	assert_true(journal.n == 3 && room[0].accepted && room[1].accepted && !room[2].accepted);
	assert_true(room[1].evidence.class == 0 && room[2].evidence.class == MZM_CLASS_DIGIT);
	float after = mzm_monitor_confidence(&m, &digit);
	assert_true(isfinite(after) && after > 0 && after < 1); /* a precision below 0 is nobody's */
	mzm_monitor_reset(&m);
	assert_true(mzm_monitor_confidence(&m, &digit) == before);
}

/* A model's own prior comes with its side-car, if it has the shape of ours. */
static void test_prior_of_a_side_car(void **state)
{
	(void)state;
	static const mzm_monitor_prior mine = {.weight = {-1, 2, 0, 0, -3, 0, 0, 0},
					       .precision = {9, 8, 7, 6, 5, 4, 3, 2}};
	for (int n_rows = 1; n_rows <= 2; n_rows++) {
		mzm_calib_writer *w;
		mzm_model *model;
		mzm_session *s;
		mzm_err err = {0};
		json_t *info = json_object();
		assert_int_equal(mzm_model_open(&model, DEMO_MODEL, NULL, &err), MZM_OK);
		assert_int_equal(mzm_calib_create(&w, mzm_model_get_info(model)->hash, &err), MZM_OK);
		mzm_model_close(model);
		assert_int_equal(mzm_calib_add(w, MZM_MONITOR_TENSOR, -1, MZM_F32, n_rows, MZM_MONITOR_FEATURES, &mine,
					       &err), MZM_OK);
		assert_int_equal(mzm_calib_finish(w, path, info, &err), MZM_OK);
		mzm_calib_writer_free(w);
		json_decref(info);
		mzm_model_params params = {.calib = path};
		if (mzm_model_open(&model, DEMO_MODEL, &params, &err) != MZM_OK)
			fail_msg("%s", err.message);
		assert_int_equal(mzm_session_create(&s, model, NULL, &err), MZM_OK);
		const float *want = n_rows == 2 ? mine.weight : mzm_monitor_builtin.weight;
		for (int j = 0; j < MZM_MONITOR_FEATURES; j++)
			assert_true(s->monitor.weight[j] == (double)want[j]);
		assert_true(n_rows == 1 || s->monitor.precision[1] == 8);
		mzm_session_free(s);
		mzm_model_close(model);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_class_of_bytes), cmocka_unit_test(test_classes_of_a_vocabulary),
		cmocka_unit_test(test_fit_finds_the_weights), cmocka_unit_test(test_fit_of_little),
		cmocka_unit_test(test_prior_and_log), IN_DIR(test_prior_of_a_side_car),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
