/* test_alloc.c - shares of layers: the search against trying everything, whole neurons of any shares, side-cars that
 * hold such and what sessions make of them. */
#include "testing.h"

#include <errno.h>
#include <math.h>

#include "base/rng.h"
#include "demo.h"
#include "engine/alloc.h"
#include "engine/engine.h"
#include "temp_dir.h"

static float draw(uint64_t stream, uint64_t i)
{
	return (float)mzm_rng_unit(91, stream, i);
}

/* ---- whole neurons ---- */

static void sums_are_those_of_even_shares(void **state)
{
	(void)state;
	enum { MOST = 40 };
	for (uint64_t t = 0; t < 3000; t++) {
		float rows[3 * MOST];
		int32_t counts[MOST], n = 1 + (int32_t)(t % 3);
		mzm_config cfg = {.n_layers = 1 + (int32_t)(mzm_rng_u64(2, t, 0) % MOST),
				  .n_ffn = 1 + (int32_t)(mzm_rng_u64(2, t, 1) % 3000)};
		for (int32_t i = 0; i < n * cfg.n_layers; i++) /* means ascend: a later row is larger throughout */
			rows[i] = fminf(1, 0.3f * (float)(i / cfg.n_layers) + 0.001f + 0.3f * draw(t, (uint64_t)i));
		float keep = t % 5 ? 1e-4f + (1 - 1e-4f) * draw(t, 999) : 1;
		mzm_pred_env even = {.cfg = &cfg, .keep = keep};
		mzm_alloc_count(counts, rows, n, &cfg, keep);
		int64_t sum = 0;
		for (int32_t l = 0; l < cfg.n_layers; l++) {
			assert_in_range(counts[l], 1, cfg.n_ffn);
			sum += counts[l];
		}
		assert_int_equal(sum, (int64_t)mzm_pred_n_keep(&even) * cfg.n_layers);
	}
}

static void counts_follow_the_shares(void **state)
{
	(void)state;
	const mzm_config cfg = {.n_layers = 4, .n_ffn = 1000};
	const float rows[] = {0.05f, 0.1f, 0.1f, 0.15f, /* mean 0.1 */ 0.4f, 0.2f, 0.2f, 0.4f /* mean 0.3 */};
	const struct {
		float   keep;
		int32_t want[4];
	} cases[] = {{0.1f, {50, 100, 100, 150}},  {0.3f, {400, 200, 200, 400}}, {0.2f, {225, 150, 150, 275}},
		     {0.05f, {25, 50, 50, 75}},    {0.65f, {700, 600, 600, 700}}, {1, {1000, 1000, 1000, 1000}}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int32_t counts[4];
		mzm_alloc_count(counts, rows, 2, &cfg, cases[i].keep);
		for (int l = 0; l < 4; l++)
			assert_true(abs(counts[l] - cases[i].want[l]) <= 1);
	}
}

/* ---- the search ---- */

enum { LAYERS = 4, POINTS = 6 };
static const float points[POINTS] = {0.01f, 0.03f, 0.1f, 0.3f, 0.8f, 0.99f};

/* Harm weight * share^-power, which the curve has exactly, between its points and below them. */
typedef struct truth {
	double weight[LAYERS], power[LAYERS];
} truth;

static double harm(const truth *t, int l, double share)
{
	return t->weight[l] * pow(share, -t->power[l]);
}

/* Of all shares in eighths of the mean, from half of it to twice as much. */
static double best_of_all(const truth *t, double mean)
{
	double best = INFINITY, step = mean / 8;
	for (int a = 4; a <= 16; a++)
		for (int b = 4; b <= 16; b++)
			for (int c = 4; c <= 16; c++) {
				int d = 32 - a - b - c;
				if (d < 4 || d > 16)
					continue;
				double sum = harm(t, 0, a * step) + harm(t, 1, b * step) + harm(t, 2, c * step) +
					     harm(t, 3, d * step);
				best = sum < best ? sum : best;
			}
	return best;
}

static void solve(float share[LAYERS], const truth *t, double mean)
{
	double harms[LAYERS][POINTS];
	mzm_alloc_curve curves[LAYERS];
	for (int l = 0; l < LAYERS; l++) {
		for (int i = 0; i < POINTS; i++)
			harms[l][i] = harm(t, l, (double)points[i]);
		curves[l] = (mzm_alloc_curve){points, harms[l], POINTS};
	}
	assert_int_equal(mzm_alloc_solve(share, curves, LAYERS, mean, NULL), MZM_OK);
}

static void search_finds_the_least_harm(void **state)
{
	(void)state;
	for (uint64_t t = 0; t < 40; t++) {
		truth of;
		float share[LAYERS];
		double mean = 0.02 + 0.4 * (double)draw(300 + t, 0), sum = 0, all = 0;
		for (int l = 0; l < LAYERS; l++) {
			of.weight[l] = exp(8 * (double)draw(400 + t, (uint64_t)l));
			of.power[l] = l % 2 ? 1 : 1 / (1 + 3 * (double)draw(500 + t, (uint64_t)l));
		}
		for (int l = 1; l < LAYERS; l += 2)
			of.power[l] = 1; /* as below the first point */
		solve(share, &of, mean);
		for (int l = 0; l < LAYERS; l++) {
			sum += harm(&of, l, (double)share[l]);
			all += (double)share[l];
		}
		assert_true(fabs(all / LAYERS - mean) < 1e-6);
		double best = best_of_all(&of, mean);
		if (!(sum < best * (1 + 1e-3)))
			fail_msg("harm %g where %g is possible", sum, best);
	}
}

static void who_suffers_keeps_more(void **state)
{
	(void)state;
	const truth equal = {{1, 1, 1, 1}, {1, 1, 1, 1}}, first = {{50, 1, 1, 1}, {1, 1, 1, 1}};
	float share[LAYERS];
	solve(share, &equal, 0.1);
	for (int l = 0; l < LAYERS; l++)
		assert_true(fabs((double)share[l] - 0.1) < 1e-6);
	solve(share, &first, 0.1);
	assert_true(fabs((double)share[0] - 0.2) < 1e-6); /* as much as may be */
	solve(share, &first, 1);
	for (int l = 0; l < LAYERS; l++)
		assert_true(share[l] == 1);
}

/* Noise that says a layer does more harm when it keeps more is not believed; a curve of zeros divides by none. */
static void odd_curves_are_endured(void **state)
{
	(void)state;
	double rising[POINTS] = {1, 2, 3, 4, 5, 6}, zero[POINTS] = {0};
	mzm_alloc_curve curves[LAYERS];
	float share[LAYERS];
	for (int k = 0; k < 2; k++) {
		double sum = 0;
		for (int l = 0; l < LAYERS; l++)
			curves[l] = (mzm_alloc_curve){points, k || l % 2 ? zero : rising, POINTS};
		assert_int_equal(mzm_alloc_solve(share, curves, LAYERS, 0.2, NULL), MZM_OK);
		for (int l = 0; l < LAYERS; l++) {
			assert_true(share[l] > 0.09f && share[l] < 0.41f);
			sum += (double)share[l];
		}
		assert_true(fabs(sum - 0.2 * LAYERS) < 1e-6);
	}
	mzm_mem_fail_nth(1);
	assert_int_equal(mzm_alloc_solve(share, curves, LAYERS, 0.2, NULL), MZM_ENOMEM);
	mzm_mem_fail_nth(0);
}

/* ---- side-cars ---- */

/* The demo model at path, whose side-car has these shares [2, 6] of griffin. */
/* Shares of 2 * 6 / n_cols means. */
static mzm_model *open_with(const float *rows, int32_t n_cols)
{
	char whole[4096], car[300];
	mzm_err err = {0};
	mzm_model *m;
	mzm_calib_writer *w;
	json_t *info = json_object();
	if (!realpath(DEMO_MODEL, whole) || (symlink(whole, path) != 0 && errno != EEXIST))
		fail_msg("no link to the demo model");
	snprintf(car, sizeof car, "%s/model.mzc", dir);
	unlink(car);
	assert_int_equal(mzm_model_open(&m, path, NULL, NULL), MZM_OK);
	assert_int_equal(mzm_calib_create(&w, m->info.hash, NULL), MZM_OK);
	assert_int_equal(mzm_calib_add(w, "alloc.griffin", -1, MZM_F32, 12 / n_cols, n_cols, rows, NULL), MZM_OK);
	mzm_model_close(m);
	assert_int_equal(mzm_calib_finish(w, car, info, NULL), MZM_OK);
	mzm_calib_writer_free(w);
	json_decref(info);
	if (mzm_model_open(&m, path, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return m;
}

typedef struct text {
	int32_t ids[80], n;
	double  density;
	bool    uneven; /* layers keep as many as the side-car says */
} text;

static text write_text(const mzm_model *m, mzm_mode mode, const char *predictor, bool no_alloc, int threads)
{
	text t;
	mzm_session *s;
	mzm_gen_result r;
	mzm_err err = {0};
	mzm_session_params sp = {.n_ctx = 512, .n_threads = threads};
	mzm_gen_params p = mzm_gen_params_default();
	char *prompt = demo_prompt(3);
	p.mode = mode;
	p.predictor = predictor;
	p.no_alloc = no_alloc;
	p.keep = 0.25f;
	p.max_tokens = 80;
	assert_int_equal(mzm_session_create(&s, m, &sp, NULL), MZM_OK);
	if (mzm_generate_text(s, prompt, &p, &r, &err) != MZM_OK)
		fail_msg("%s", err.message);
	t = (text){.n = r.n_tokens, .density = r.density, .uneven = s->predictor && s->predictor->keep_of != NULL};
	memcpy(t.ids, r.tokens, (size_t)t.n * sizeof t.ids[0]);
	mzm_session_free(s);
	free(prompt);
	return t;
}

static bool same(const text *a, const text *b)
{
	return a->n == b->n && memcmp(a->ids, b->ids, (size_t)a->n * sizeof a->ids[0]) == 0;
}

static const float shares[2][6] = {{0.3f, 0.1f, 0.1f, 0.2f, 0.2f, 0.3f}, {0.7f, 0.3f, 0.4f, 0.6f, 0.5f, 0.6f}};

static void sessions_keep_what_it_says(void **state)
{
	(void)state;
	mzm_model *m = open_with(shares[0], 6);
	text dense = write_text(m, MZM_MODE_DENSE, "griffin", false, 1);
	text one = write_text(m, MZM_MODE_SPARSE, "griffin", false, 1);
	text two = write_text(m, MZM_MODE_SPARSE, "griffin", false, 2);
	text even = write_text(m, MZM_MODE_SPARSE, "griffin", true, 1);
	text exact = write_text(m, MZM_MODE_EXACT, "griffin", false, 2);
	text other = write_text(m, MZM_MODE_SPARSE, "topk", false, 1);
	assert_true(same(&one, &two) && same(&exact, &dense));
	assert_false(same(&one, &even));
	assert_true(one.uneven && exact.uneven && !even.uneven && !other.uneven);
	assert_true(fabs(one.density - even.density) < 1e-6); /* 0.25 of 1,024 is whole */
	mzm_model_close(m);
}

/* A session whose settings change from text to text. */
static void sessions_change_their_mind(void **state)
{
	(void)state;
	mzm_session *s;
	mzm_model *m = open_with(shares[0], 6);
	mzm_gen_params p = mzm_gen_params_default();
	mzm_gen_result r;
	static const float keeps[] = {0.5f, 0.2f, 0.2f, 0.9f, 0.5f};
	p.mode = MZM_MODE_SPARSE;
	p.max_tokens = 5;
	assert_int_equal(mzm_session_create(&s, m, NULL, NULL), MZM_OK);
	for (int i = 0; i < 5; i++) {
		int64_t sum = 0;
		p.keep = keeps[i];
		p.no_alloc = i == 2;
		assert_int_equal(mzm_generate_text(s, "Question: 7 apples and 5 pears.", &p, &r, NULL), MZM_OK);
		for (int32_t l = 0; l < 6; l++)
			sum += mzm_pred_keep(s->predictor, l);
		assert_int_equal(sum, 6 * (int64_t)((double)keeps[i] * 1024 + 1e-3));
		assert_true((mzm_pred_keep(s->predictor, 0) != mzm_pred_keep(s->predictor, 1)) == (i != 2));
	}
	mzm_session_free(s);
	mzm_model_close(m);
}

static void nonsense_is_refused(void **state)
{
	(void)state;
	for (int i = 0; i < 5; i++) {
		float rows[12];
		mzm_err err = {0};
		mzm_session *s;
		mzm_gen_params p = mzm_gen_params_default();
		mzm_gen_result r;
		memcpy(rows, shares, sizeof rows);
		if (i < 3)
			rows[7] = (const float[]){0, -0.5f, 1.01f}[i];
		else if (i == 3)
			memcpy(rows, shares[1], sizeof shares[1]); /* means that do not ascend */
		mzm_model *m = open_with(rows, i == 4 ? 4 : 6); /* of a model of four layers */
		p.mode = MZM_MODE_SPARSE;
		p.max_tokens = 3;
		assert_int_equal(mzm_session_create(&s, m, NULL, NULL), MZM_OK);
		assert_int_equal(mzm_generate_text(s, "Question:", &p, &r, &err), MZM_EFORMAT);
		assert_non_null(strstr(err.message, "alloc.griffin"));
		p.no_alloc = true;
		assert_int_equal(mzm_generate_text(s, "Question:", &p, &r, NULL), MZM_OK);
		mzm_session_free(s);
		mzm_model_close(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_are_those_of_even_shares),
		cmocka_unit_test(counts_follow_the_shares),
		cmocka_unit_test(search_finds_the_least_harm),
		cmocka_unit_test(who_suffers_keeps_more),
		cmocka_unit_test(odd_curves_are_endured),
		IN_DIR(sessions_keep_what_it_says),
		IN_DIR(sessions_change_their_mind),
		IN_DIR(nonsense_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
