/* test_predictors.c - the choice of neurons: selection against sorting, GRIFFIN's statistic against its
 * formula, each predictor's own score against layers computed by hand, and that each choice is a function of its inputs
 * alone. Predictors that predict gates: test_fit.c. */
#include "testing.h"

#include <math.h>

#include "base/rng.h"
#include "engine/engine.h"
#include "predictors/cats.h"
#include "predictors/fit.h"
#include "tiny_model.h"

static const mzm_config cfg = {.n_layers = 2, .dim = 8, .n_ffn = 50};

static mzm_predictor *make(const char *name, float keep, const float *down_norm)
{
	mzm_predictor *p = NULL;
	mzm_pred_env env = {.cfg = &cfg, .keep = keep, .seed = 42, .down_norm = down_norm};
	const mzm_predictor_ops *ops = mzm_predictor_find(name);
	assert_non_null(ops);
	assert_int_equal(ops->create(&p, &env, NULL), MZM_OK);
	return p;
}

static const float *sort_key;

static int by_magnitude(const void *a, const void *b)
{
	int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
	float x = fabsf(sort_key[i]), y = fabsf(sort_key[j]);
	return x > y ? -1 : x < y ? 1 : i - j;
}

static int by_index(const void *a, const void *b)
{
	return *(const int32_t *)a - *(const int32_t *)b;
}

static void test_select_top(void **state)
{
	(void)state;
	enum { MAX = 700 };
	float score[MAX], scratch[MAX];
	int32_t got[MAX], want[MAX];
	for (uint64_t trial = 0; trial < 400; trial++) {
		int32_t n = 1 + (int32_t)(mzm_rng_u64(1, trial, 0) % MAX),
			k = 1 + (int32_t)(mzm_rng_u64(1, trial, 1) % (uint64_t)n);
		int levels = trial % 3 == 0 ? 5 : 1 << 20; /* every third one is full of ties */
		for (int32_t i = 0; i < n; i++) {
			double u = mzm_rng_unit(2, trial, (uint64_t)i);
			score[i] = (float)((floor(u * levels) - levels / 2) * (trial % 2 ? 1e-30 : 1e10));
			want[i] = i;
		}
		sort_key = score;
		qsort(want, (size_t)n, sizeof *want, by_magnitude);
		qsort(want, (size_t)k, sizeof *want, by_index);
		mzm_select_top(got, k, score, n, scratch);
		assert_memory_equal(got, want, (size_t)k * sizeof *got);
	}
}

static float draw(int stream, int t, int j)
{
	return (float)mzm_rng_unit((uint64_t)stream, (uint64_t)t, (uint64_t)j);
}

static void test_griffin_formula(void **state)
{
	(void)state;
	enum { T = 9 };
	float z[T][50], score[50];
	int32_t want[50], got[50];
	mzm_predictor *p = make("griffin", 0.3f, NULL);
	assert_int_equal(p->n_keep, 15);
	for (int round = 0; round < 2; round++) { /* the second request must not see the first */
		p->ops->reset(p);
		for (int l = 0; l < 2; l++) {
			for (int t = 0; t < T; t++)
				for (int j = 0; j < 50; j++)
					z[t][j] = t == 4 ? 0 : draw(round * 2 + l, t, j) - 0.5f;
			for (int j = 0; j < 50; j++) {
				double s = 0;
				for (int t = 0; t < T; t++) {
					double norm = 0;
					for (int i = 0; i < 50; i++)
						norm += (double)z[t][i] * (double)z[t][i];
					if (norm > 0)
						s += pow((double)z[t][j] / sqrt(norm), 2);
				}
				score[j] = (float)sqrt(s);
			}
			p->ops->observe(p, l, z[0], 2); /* in pieces, as a prefill gives them */
			p->ops->observe(p, l, z[2], 7);
			p->ops->settle(p);
			mzm_select_top(want, 15, score, 50, (float[50]){0});
			assert_int_equal(p->ops->select(p, l, 0, NULL, got), 15);
			assert_memory_equal(got, want, 15 * sizeof *got);
			assert_int_equal(p->ops->select(p, l, 99, NULL, got), 15);
			assert_memory_equal(got, want, 15 * sizeof *got);
		}
	}
	p->ops->free(p);
}

/* What a check saw counts in full, what was known before for 0.6 of it. */
static void test_griffin_live_follows(void **state)
{
	(void)state;
	float prompt[3][50], check[2][50], score[50];
	int32_t want[50], got[50];
	double stat[50] = {0};
	mzm_predictor *p = make("griffin-live", 0.2f, NULL);
	assert_true(p->ops->refreshes && p->observes);
	p->ops->reset(p);
	for (int j = 0; j < 50; j++) {
		for (int t = 0; t < 3; t++)
			prompt[t][j] = draw(7, t, j) - 0.5f;
		for (int t = 0; t < 2; t++)
			check[t][j] = j >= 40 ? 2 : draw(8, t, j) - 0.5f; /* others matter now */
	}
	for (int t = 0; t < 5; t++) {
		const float *z = t < 3 ? prompt[t] : check[t - 3];
		double norm2 = 0;
		for (int j = 0; j < 50; j++)
			norm2 += (double)z[j] * (double)z[j];
		for (int j = 0; j < 50; j++)
			stat[j] = (t == 3 ? 0.6 : 1) * stat[j] + (double)z[j] * (double)z[j] / norm2;
	}
	for (int l = 0; l < 2; l++)
		p->ops->observe(p, l, prompt[0], 3);
	p->ops->settle(p);
	p->ops->select(p, 1, 0, NULL, got);
	for (int l = 0; l < 2; l++)
		p->ops->observe(p, l, check[0], 2);
	p->ops->select(p, 1, 0, NULL, want);
	assert_memory_equal(got, want, 10 * sizeof *got); /* not before it settles */
	p->ops->settle(p);
	assert_int_equal(p->ops->select(p, 1, 0, NULL, got), 10);
	for (int j = 0; j < 50; j++)
		score[j] = (float)stat[j];
	mzm_select_top(want, 10, score, 50, (float[50]){0});
	assert_memory_equal(got, want, 10 * sizeof *got);
	assert_true(got[9] == 49 && got[0] == 40);
	p->ops->free(p);
}

static void test_random_uniform(void **state)
{
	(void)state;
	mzm_predictor *p = make("random", 0.5f, NULL);
	int32_t rows[50], again[50];
	int count[50] = {0};
	for (int32_t pos = 0; pos < 4000; pos++) {
		assert_int_equal(p->ops->select(p, 1, pos, NULL, rows), 25);
		for (int i = 0; i < 25; i++) {
			assert_true(rows[i] >= 0 && rows[i] < 50 && (i == 0 || rows[i] > rows[i - 1]));
			count[rows[i]]++;
		}
	}
	for (int i = 0; i < 50; i++) /* 2000 expected, sigma 31.6: six sigma */
		assert_true(abs(count[i] - 2000) < 190);
	p->ops->select(p, 0, 7, NULL, rows);
	p->ops->select(p, 1, 7, NULL, again);
	assert_true(memcmp(rows, again, sizeof(int32_t) * 25) != 0); /* layers differ */
	p->ops->select(p, 0, 7, NULL, again);
	assert_memory_equal(rows, again, sizeof(int32_t) * 25); /* and a position repeats */
	p->ops->free(p);
}

static void test_topk_and_oracle(void **state)
{
	(void)state;
	float score[50], norm[100], weighted[50], scratch[50];
	int32_t want[50], got[50];
	for (int i = 0; i < 50; i++)
		score[i] = (float)(mzm_rng_unit(5, 0, (uint64_t)i) - 0.5);
	for (int i = 0; i < 100; i++)
		norm[i] = (float)mzm_rng_unit(6, 0, (uint64_t)i);
	mzm_predictor *p = make("topk", 0.2f, NULL);
	mzm_select_top(want, 10, score, 50, scratch);
	assert_int_equal(p->ops->select(p, 1, 0, score, got), 10);
	assert_memory_equal(got, want, 10 * sizeof *got);
	p->ops->free(p);
	p = make("oracle", 0.2f, norm);
	for (int i = 0; i < 50; i++)
		weighted[i] = score[i] * norm[50 + i];
	mzm_select_top(want, 10, weighted, 50, scratch);
	assert_int_equal(p->ops->select(p, 1, 0, score, got), 10);
	assert_memory_equal(got, want, 10 * sizeof *got);
	p->ops->free(p);
}

/* ---- scores, by hand ---- */

enum { FEW = 6 };

static const mzm_config two_layers = {.n_layers = 2, .dim = 4, .n_ffn = FEW};

/* Tensors of this name, `cols` numbers a layer. -> free_calib */
static mzm_calib *make_calib(mzm_calib_writer **w, const char *const *names, const float *const *data, int n,
			     int32_t n_layers, int32_t n_rows, int32_t n_cols)
{
	mzm_calib *c;
	assert_int_equal(mzm_calib_create(w, "0", NULL), MZM_OK);
	for (int i = 0; i < n; i++) {
		for (int32_t l = 0; l < n_layers; l++)
			assert_int_equal(mzm_calib_add(*w, names[i], l, MZM_F32, n_rows, n_cols,
						       data[i] + (size_t)l * (size_t)n_rows * (size_t)n_cols, NULL),
					 MZM_OK);
	}
	assert_int_equal(mzm_calib_preview(&c, *w, NULL), MZM_OK);
	return c;
}

static void free_calib(mzm_calib *c, mzm_calib_writer *w)
{
	mzm_calib_close(c);
	mzm_calib_writer_free(w);
}

/* Of a third of six neurons, this predictor takes just these two. */
static void expect_two(const char *name, const mzm_pred_env *env, int32_t layer, const float *score, int32_t i,
		       int32_t j)
{
	mzm_predictor *p;
	int32_t rows[FEW];
	assert_int_equal(mzm_predictor_find(name)->create(&p, env, NULL), MZM_OK);
	assert_int_equal(p->ops->select(p, layer, 0, score, rows), 2);
	if (rows[0] != i || rows[1] != j)
		fail_msg("%s, layer %d: %d and %d in place of %d and %d", name, (int)layer, (int)rows[0], (int)rows[1],
			 (int)i, (int)j);
	p->ops->free(p);
}

static void test_wina_by_hand(void **state)
{
	/* In the second layer |gate| is largest for 0 and 1; times up's norms for 0 and 3; times down's for 1 and 4;
	 * times both it is .5, 2, 3, 8, 9, 6. In the first all norms are 1 but down's of the last. */
	static const float gate[FEW] = {5, -4, 3, -2, -1, 0.5f};
	static const float up[2 * FEW] = {1, 1, 1, 1, 1, 1, 1, 0.5f, 1, 4, 1, 6};
	static const float down[2 * FEW] = {1, 1, 1, 1, 1, 9, 0.1f, 1, 1, 1, 9, 2};
	mzm_pred_env env = {.cfg = &two_layers, .keep = 1 / 3.0f, .down_norm = down, .up_norm = up};
	(void)state;
	expect_two("topk", &env, 1, gate, 0, 1);
	expect_two("wina", &env, 1, gate, 3, 4);
	expect_two("wina", &env, 0, gate, 0, 5);
	expect_two("oracle", &env, 1, gate, 1, 4);
	env.up_norm = NULL; /* a model without a gate: there gate is z */
	expect_two("wina", &env, 1, gate, 1, 4);
}

static void test_static_by_hand(void **state)
{
	static const float means[2 * FEW] = {0.1f, 0.9f, 0.2f, 0.05f, 0.8f, 0.3f, 0.3f, 0.1f, 0.4f, 0.2f, 0.1f, 0.5f};
	static const float loud[FEW] = {9, 0, 0, 8, 0, 0};
	static const char *const name[] = {"static"};
	mzm_calib_writer *w;
	const float *data[] = {means};
	mzm_calib *c = make_calib(&w, name, data, 1, 2, 1, FEW);
	mzm_pred_env env = {.cfg = &two_layers, .keep = 1 / 3.0f, .calib = c};
	(void)state;
	expect_two("static", &env, 0, loud, 1, 4);
	expect_two("static", &env, 1, loud, 2, 5);
	expect_two("topk", &env, 1, loud, 0, 3);
	free_calib(c, w);
}

/* The mean share of each neuron in the squares of a position: a loud position counts no more than a soft one. */
static void test_static_fit_by_hand(void **state)
{
	/* shares .09 .16 .75 0, then 1 0 0 0; sums of squares would be 10, 16, 75, 0, of sizes 4, 4, 8.7, 0 */
	static const float z[3 * 4] = {3, -4, 8.6602540f, 0, -1, 0, 0, 0, 0, 0, 0, 1e6f};
	static const float want[4] = {0.545f, 0.08f, 0.375f, 0};
	const mzm_config four = {.n_layers = 1, .dim = 4, .n_ffn = 4};
	mzm_fit_layer l = {.cfg = &four, .n_train = 2, .n_test = 1, .z = z}; /* the last is held out */
	mzm_calib_writer *w;
	mzm_calib *c;
	(void)state;
	assert_int_equal(mzm_calib_create(&w, "0", NULL), MZM_OK);
	assert_int_equal(mzm_fit_find("static")->layer(&l, &(mzm_fit_options){0}, w, NULL), MZM_OK);
	assert_int_equal(mzm_calib_preview(&c, w, NULL), MZM_OK);
	const float *found = mzm_calib_find(c, "static", 0, MZM_F32, 1, 4);
	assert_non_null(found);
	for (int i = 0; i < 4; i++)
		assert_true(fabsf(found[i] - want[i]) < 1e-6f);
	free_calib(c, w);
}

/* Thresholds of the layer and of the share of neurons; each predictor has its own. */
static void test_thresholds_by_hand(void **state)
{
	static const char *const names[] = {"teal", "cats"};
	static const float score[FEW] = {2.5f, -1.5f, 0.5f, -3, 0, 1};
	float found[2][2 * CATS_POINTS];
	for (int i = 0; i < CATS_POINTS; i++) { /* teal: 2 up to a half, then .75; twice that in the second layer */
		found[0][i] = cats_keep[i] <= 0.5f ? 2 : 0.75f;
		found[0][CATS_POINTS + i] = 2 * found[0][i];
		found[1][i] = found[1][CATS_POINTS + i] = 1.25f;
	}
	const float *data[] = {found[0], found[1]};
	mzm_calib_writer *w;
	mzm_calib *c = make_calib(&w, names, data, 2, 2, CATS_POINTS, 1);
	mzm_pred_env env = {.cfg = &two_layers, .calib = c};
	static const struct {
		const char *name;
		float       keep;
		int32_t     layer, n, rows[FEW];
	} cases[] = {
		{"teal", 0.5f, 0, 2, {0, 3}},       {"teal", 0.6f, 0, 4, {0, 1, 3, 5}}, {"teal", 0.6f, 1, 2, {0, 3}},
		{"teal", 0.5f, 1, 1, {3}}, /* none is above 4: the largest */
		{"teal", 1, 1, 6, {0, 1, 2, 3, 4, 5}}, {"cats", 0.5f, 1, 3, {0, 1, 3}},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		mzm_predictor *p;
		int32_t rows[FEW];
		env.keep = cases[i].keep;
		assert_int_equal(mzm_predictor_find(cases[i].name)->create(&p, &env, NULL), MZM_OK);
		assert_int_equal(p->ops->select(p, cases[i].layer, 0, score, rows), cases[i].n);
		assert_memory_equal(rows, cases[i].rows, (size_t)cases[i].n * sizeof *rows);
		p->ops->free(p);
	}
	free_calib(c, w);
}

/* ---- scores, in a model ---- */

enum { LAYERS = 2, DIM = 32, NEURONS = 48, KEPT = 12 };

/* Asks a predictor, and remembers what it said and what the layer read. */
typedef struct spy {
	mzm_predictor     base; /* the other one's, but for the operations */
	mzm_predictor_ops ops;
	mzm_predictor    *asked;
	int32_t           rows[LAYERS][NEURONS], n[LAYERS];
	float             x[LAYERS][DIM];
} spy;

static int32_t spy_select(mzm_predictor *p, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	spy *s = (spy *)p;
	int32_t n = s->asked->ops->select(s->asked, layer, pos, score, rows);
	s->n[layer] = n;
	memcpy(s->rows[layer], rows, (size_t)n * sizeof *rows);
	return n;
}

static void spy_see(void *ctx, int32_t layer, const float *x, int32_t n_pos)
{
	assert_int_equal(n_pos, 1);
	memcpy(((spy *)ctx)->x[layer], x, sizeof ((spy *)ctx)->x[layer]);
}

/* What a layer makes of its input, in double. */
typedef struct by_hand {
	double gate[NEURONS], up[NEURONS], z[NEURONS], up_norm[NEURONS], down_norm[NEURONS];
} by_hand;

static void compute(by_hand *h, const tiny_model *m, int32_t layer, const float *x)
{
	const tiny_layer *l = &m->layer[layer];
	memset(h, 0, sizeof *h);
	for (int j = 0; j < NEURONS; j++) {
		double g = 0, up2 = 0, down2 = 0;
		for (int i = 0; i < DIM; i++) {
			double u = (double)l->up[j * DIM + i], d = (double)l->down[i * NEURONS + j];
			g += (double)l->gate[j * DIM + i] * (double)x[i];
			h->up[j] += u * (double)x[i];
			up2 += u * u;
			down2 += d * d;
		}
		h->gate[j] = m->spec.relu ? (g > 0 ? g : 0) : g / (1 + exp(-g));
		h->z[j] = h->gate[j] * h->up[j];
		h->up_norm[j] = sqrt(up2);
		h->down_norm[j] = sqrt(down2);
	}
}

typedef double (*score_fn)(const by_hand *h, int j);

static double of_gate(const by_hand *h, int j)
{
	return fabs(h->gate[j]);
}
static double of_gate_and_norms(const by_hand *h, int j)
{
	return fabs(h->gate[j]) * h->up_norm[j] * h->down_norm[j];
}
static double of_up(const by_hand *h, int j)
{
	return fabs(h->up[j]);
}
static double of_z(const by_hand *h, int j)
{
	return fabs(h->z[j]);
}
static double of_contribution(const by_hand *h, int j)
{
	return fabs(h->z[j]) * h->down_norm[j];
}

static const struct {
	const char *name;
	score_fn    score;
	float       threshold; /* 0: the KEPT largest */
} formulas[] = {
	{"topk", of_gate, 0}, {"wina", of_gate_and_norms, 0}, {"countdown", of_up, 0}, {"oracle", of_contribution, 0},
	{"teal", of_z, 0.3f}, {"cats", of_gate, 0.4f},
};

/* Ascending; or how many are above the threshold. Nothing is so near to the border that rounding decides. */
static int32_t best(int32_t *rows, const by_hand *h, score_fn score, float threshold)
{
	double border = (double)threshold, sorted[NEURONS];
	int32_t n = 0;
	for (int j = 0; j < NEURONS && threshold == 0; j++) { /* insertion, the largest first */
		int k = j;
		for (; k > 0 && sorted[k - 1] < score(h, j); k--)
			sorted[k] = sorted[k - 1];
		sorted[k] = score(h, j);
	}
	if (threshold == 0)
		border = (sorted[KEPT - 1] + sorted[KEPT]) / 2;
	for (int j = 0; j < NEURONS; j++) {
		assert_true(fabs(score(h, j) - border) > 1e-5 * border);
		rows[n] = j;
		n += score(h, j) > border;
	}
	return n;
}

static mzm_predictor *formula_create(size_t i, const mzm_model *m, const mzm_calib *c)
{
	mzm_predictor *p;
	mzm_err err = {0};
	mzm_pred_env env = mzm_model_pred_env(m, (float)KEPT / NEURONS, 1, (mzm_drafting){0});
	env.calib = c;
	if (mzm_predictor_find(formulas[i].name)->create(&p, &env, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return p;
}

/* What a predictor names in sparse passes over a text, against its formula. Returns how often topk's would have named
 * others. */
static int compare_formula(size_t f, const tiny_model *t, mzm_session *s, const mzm_calib *c)
{
	mzm_predictor *p = formula_create(f, s->model, c);
	spy watch = {.base = *p, .ops = *p->ops, .asked = p};
	int n_others = 0;
	watch.ops.select = spy_select;
	watch.base.ops = &watch.ops;
	mzm_session_truncate(s, 0);
	for (int32_t pos = 0; pos < 12; pos++) {
		int32_t id = (pos * 7 + 3) % t->spec.n_vocab, want[NEURONS], other[NEURONS];
		mzm_pass pass = {.ids = &id, .n_pos = 1, .sparse = &watch.base, .see_input = spy_see,
				 .see_ctx = &watch};
		assert_int_equal(mzm_forward(s->state, &pass, NULL, NULL, NULL), MZM_OK);
		for (int32_t l = 0; l < LAYERS; l++) {
			by_hand h;
			compute(&h, t, l, watch.x[l]);
			int32_t n = best(want, &h, formulas[f].score, formulas[f].threshold);
			assert_true(n > 0 && n < NEURONS);
			assert_int_equal(watch.n[l], n);
			if (memcmp(watch.rows[l], want, (size_t)n * sizeof *want) != 0)
				fail_msg("%s, position %d, layer %d: other neurons", formulas[f].name, (int)pos,
					 (int)l);
			n_others += best(other, &h, of_gate, 0) != n || memcmp(other, want, (size_t)n * sizeof *want);
		}
	}
	p->ops->free(p);
	return n_others;
}

static void test_formulas(void **state)
{
	static const char *const names[] = {"teal", "cats"};
	static float found[2][LAYERS * CATS_POINTS];
	(void)state;
	for (int i = 0; i < LAYERS * CATS_POINTS; i++) {
		found[0][i] = formulas[4].threshold;
		found[1][i] = formulas[5].threshold;
	}
	for (int relu = 0; relu < 2; relu++) {
		const tiny_spec spec = {.n_layers = LAYERS, .dim = DIM, .n_ffn = NEURONS, .n_heads = 2, .n_kv_heads = 1,
					.head_dim = 16, .n_vocab = 40, .n_ctx = 32, .dtype = "F32", .eos = -1,
					.relu = relu};
		const float *data[] = {found[0], found[1]};
		const mzm_session_params sp = {.n_threads = 2};
		mzm_calib_writer *w;
		mzm_calib *c = make_calib(&w, names, data, 2, LAYERS, CATS_POINTS, 1);
		tiny_model *t = tiny_make(&spec, 11);
		mzm_model *m;
		mzm_session *s;
		assert_int_equal(mzm_model_open(&m, t->dir, NULL, NULL), MZM_OK);
		assert_int_equal(mzm_session_create(&s, m, &sp, NULL), MZM_OK);
		for (size_t f = 0; f < sizeof formulas / sizeof *formulas; f++) {
			int n = compare_formula(f, t, s, c);
			if (f == 0 ? n > 0 : n < LAYERS * 12 / 4) /* each but topk's differs from it */
				fail_msg("%s: topk would have been another %d times", formulas[f].name, n);
		}
		mzm_session_free(s);
		mzm_model_close(m);
		tiny_free(t);
		free_calib(c, w);
	}
}

static void test_counts_and_shares(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++) { /* keep 0.1 .. 1.0 of 50: whole numbers that floats miss */
		mzm_pred_env env = {.cfg = &cfg, .keep = (float)(i + 1) / 10};
		assert_int_equal(mzm_pred_n_keep(&env), 5 * (i + 1));
	}
	mzm_pred_env tiny = {.cfg = &cfg, .keep = 1e-6f};
	assert_int_equal(mzm_pred_n_keep(&tiny), 1);
	assert_true(fabs(mzm_pred_ffn_share(MZM_PRED_INPUT, 0.5, false) - 0.5) < 1e-12);
	assert_true(fabs(mzm_pred_ffn_share(MZM_PRED_GATE, 0.5, false) - 2.0 / 3) < 1e-12);
	assert_true(fabs(mzm_pred_ffn_share(MZM_PRED_FULL, 0.5, false) - 2.5 / 3) < 1e-12);
	assert_null(mzm_predictor_find("clairvoyant"));
	for (int i = 0; mzm_predictor_at(i); i++)
		assert_ptr_equal(mzm_predictor_find(mzm_predictor_at(i)->name), mzm_predictor_at(i));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_select_top),       cmocka_unit_test(test_griffin_formula),
		cmocka_unit_test(test_griffin_live_follows),
		cmocka_unit_test(test_random_uniform),   cmocka_unit_test(test_topk_and_oracle),
		cmocka_unit_test(test_wina_by_hand),     cmocka_unit_test(test_static_by_hand),
		cmocka_unit_test(test_static_fit_by_hand), cmocka_unit_test(test_thresholds_by_hand),
		cmocka_unit_test(test_formulas),         cmocka_unit_test(test_counts_and_shares),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
