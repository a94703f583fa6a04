/* test_teal.c - thresholds of inputs (TEAL): the attention stored by input, and sparse passes that leave inputs out.
 * The layout turns every weight round and back; every golden model computes the same by it; passes keep their bits over
 * positions, threads, stores; a sparse pass is the sum over the large inputs, formed here in double precision; exact
 * equals dense; density; no allocation; what is refused. */
#include "testing.h"

#include <limits.h>
#include <math.h>

#include "base/half.h"
#include "counting.h"
#include "demo.h"
#include "engine/engine.h"
#include "format/inflate.h"
#include "predictors/teal.h"
#include "temp_dir.h"

enum { N_TOK = 24 };

/* ---- rig ---- */

static mzm_status import_as(const char *from, const char *to, const char *layout, const char *quant, const char *draft,
			    int zstd, mzm_err *err)
{
	mzm_import_params p = mzm_import_params_default();
	p.attn_layout = layout;
	p.quant = quant;
	p.draft_quant = draft;
	p.zstd = zstd;
	return mzm_import(from, to, &p, err);
}

static void must_import(const char *from, const char *to, const char *layout, const char *quant, const char *draft)
{
	mzm_err err = {0};
	if (import_as(from, to, layout, quant, draft, 0, &err) != MZM_OK)
		fail_msg("%s: %s", from, err.message);
}

static void import_fails(const char *from, const char *layout, const char *quant, mzm_status want, const char *say)
{
	mzm_err err = {0};
	assert_int_equal(import_as(from, path, layout, quant, NULL, 0, &err), want);
	assert_non_null(strstr(err.message, say));
	assert_int_equal(access(path, F_OK), -1);
}

static mzm_model *open_model(const char *from, const char *store, uint64_t ram)
{
	mzm_model *m;
	mzm_err err = {0};
	mzm_session_params sp = mzm_session_params_default();
	mzm_model_params p = mzm_model_params_default();
	sp.n_ctx = 128;
	sp.n_threads = 2;
	sp.kv_type = "f32";
	p.session = &sp;
	p.store = store;
	p.ram_bytes = ram;
	if (mzm_model_open(&m, from, &p, &err) != MZM_OK)
		fail_msg("%s: %s", from, err.message);
	return m;
}

static mzm_session *open_session(mzm_model *m, int n_threads, const char *kv_type)
{
	mzm_session *s;
	mzm_err err = {0};
	mzm_session_params p = mzm_session_params_default();
	p.n_threads = n_threads;
	p.n_ctx = m->weights->cfg.n_ctx < 128 ? 0 : 128;
	p.kv_type = kv_type;
	if (mzm_session_create(&s, m, &p, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return s;
}

/* Logits [n, n_vocab] of tokens that mean nothing, `step` positions a pass. -> free */
static float *logits_of(mzm_model *m, int n, int step, int n_threads)
{
	mzm_session *s = open_session(m, n_threads, "f32");
	size_t n_vocab = (size_t)m->weights->cfg.n_vocab;
	float *out = malloc((size_t)n * n_vocab * sizeof *out);
	assert_non_null(out);
	for (int i = 0; i < n; i += step) {
		int32_t ids[64];
		int k = n - i < step ? n - i : step;
		for (int j = 0; j < k; j++)
			ids[j] = (int32_t)((i + j) * 37 + 5) % m->weights->cfg.n_vocab;
		mzm_status st = mzm_session_forward(s, out + (size_t)i * n_vocab, ids, k, k, NULL);
		assert_int_equal(st, MZM_OK);
	}
	mzm_session_free(s);
	return out;
}

static void assert_same_bits(mzm_model *m, int step, int n_threads, const float *want)
{
	float *got = logits_of(m, N_TOK, step, n_threads);
	assert_memory_equal(got, want, (size_t)N_TOK * (size_t)m->weights->cfg.n_vocab * sizeof *got);
	free(got);
}

static double distance(const float *a, const float *b, size_t n)
{
	double most = 0;
	for (size_t i = 0; i < n; i++)
		most = fmax(most, fabs((double)a[i] - (double)b[i]));
	return most;
}

/* ---- the layout ---- */

static void *read_tensor(mzm_source *src, mzm_tensor_kind kind, mzm_tensor *t)
{
	int32_t i = mzm_tensor_index(mzm_source_config(src), kind, 3);
	*t = mzm_source_tensor(src, i);
	void *bytes = malloc(mzm_tensor_bytes(t));
	assert_int_equal(mzm_source_read(src, i, bytes, NULL), MZM_OK);
	return bytes;
}

static void test_layout_turns_weights(void **state)
{
	(void)state;
	static const mzm_tensor_kind kinds[] = {MZM_T_WQ, MZM_T_WK, MZM_T_WV, MZM_T_WO, MZM_T_GATE};
	char back[300];
	mzm_source *a, *b, *c;
	mzm_tensor x, y;
	snprintf(back, sizeof back, "%s/back.mzm", dir);
	must_import(DEMO_MODEL, path, "input", NULL, NULL);
	must_import(path, back, "output", NULL, NULL);
	assert_int_equal(mzm_source_open(&a, DEMO_MODEL, NULL), MZM_OK);
	assert_int_equal(mzm_source_open(&b, path, NULL), MZM_OK);
	assert_int_equal(mzm_source_open(&c, back, NULL), MZM_OK);
	assert_true(mzm_source_config(b)->attn_by_input && !mzm_source_config(c)->attn_by_input);
	assert_string_not_equal(mzm_source_hash(a), mzm_source_hash(b));
	assert_string_equal(mzm_source_hash(a), mzm_source_hash(c));
	assert_int_equal(mzm_source_verify(b, NULL, NULL, NULL), MZM_OK);
	for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
		uint16_t *from = read_tensor(a, kinds[k], &x), *to = read_tensor(b, kinds[k], &y);
		bool turned = k < 4;
		assert_int_equal(y.by_input, turned);
		assert_int_equal(y.n_rows, turned ? x.n_cols : x.n_rows);
		for (int32_t r = 0; r < x.n_rows; r++)
			for (int32_t col = 0; col < x.n_cols; col++)
				assert_int_equal(from[r * x.n_cols + col],
						 to[turned ? col * x.n_rows + r : r * x.n_cols + col]);
		free(from);
		free(to);
	}
	mzm_source_close(a);
	mzm_source_close(b);
	mzm_source_close(c);
}

/* Nothing asked for: it stays as it is, byte by byte. */
static void test_layout_stays(void **state)
{
	(void)state;
	char again[300];
	mzm_source *a, *b;
	snprintf(again, sizeof again, "%s/again.mzm", dir);
	must_import(DEMO_MODEL, path, "input", "q8", "q4");
	must_import(path, again, NULL, NULL, NULL);
	assert_int_equal(mzm_source_open(&a, path, NULL), MZM_OK);
	assert_int_equal(mzm_source_open(&b, again, NULL), MZM_OK);
	assert_string_equal(mzm_source_hash(a), mzm_source_hash(b));
	assert_string_equal(mzm_source_draft_hash(a), mzm_source_draft_hash(b));
	assert_true(mzm_source_config(b)->attn_by_input);
	mzm_source_close(a);
	mzm_source_close(b);
}

static void test_golden_models_compute_the_same(void **state)
{
	(void)state;
	static const char *const names[] = {"gemma", "gemma2", "gemma3", "gptneox", "gptneox-serial", "llama-bias",
					    "llama3", "mistral", "opt", "phi3", "prosparse", "qwen2", "qwen3",
					    "stablelm", "stablelm-parallel"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char from[64], out[300];
		snprintf(from, sizeof from, "tests/golden/%s", names[i]);
		snprintf(out, sizeof out, "%s/out.mzm", dir);
		must_import(from, path, "input", "f32", NULL);
		must_import(from, out, "output", "f32", NULL);
		mzm_model *a = open_model(path, NULL, 0), *b = open_model(out, NULL, 0);
		size_t n = (size_t)N_TOK * (size_t)a->weights->cfg.n_vocab;
		float *x = logits_of(a, N_TOK, N_TOK, 2), *y = logits_of(b, N_TOK, N_TOK, 1);
		if (!(distance(x, y, n) < 2e-4))
			fail_msg("%s: %g apart", names[i], distance(x, y, n));
		free(x);
		free(y);
		mzm_model_close(a);
		mzm_model_close(b);
	}
}

/* ---- bits ---- */

static void test_bits_of_every_pass(void **state)
{
	(void)state;
	static const char *const types[] = {"f32", "f16", "bf16", "q8", "q4"};
	for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
		must_import(DEMO_MODEL, path, "input", types[t], NULL);
		mzm_model *m = open_model(path, "resident", 0);
		float *want = logits_of(m, N_TOK, 1, 1);
		assert_same_bits(m, N_TOK, 1, want);
		assert_same_bits(m, 5, 2, want);
		assert_same_bits(m, 7, 3, want);
		mzm_model_close(m);
		m = open_model(path, "mmap", 0);
		assert_same_bits(m, 9, 2, want);
		mzm_model_close(m);
		free(want);
	}
}

/* Parts of an attention matrix come and go: of a model so wide that they are several sections. */
static void test_bits_where_it_streams(void **state)
{
	(void)state;
	char wide[300];
	mzm_err err = {0};
	mzm_synth_params p = mzm_synth_params_default();
	snprintf(wide, sizeof wide, "%s/wide.mzm", dir);
	p.inflate = DEMO_MODEL;
	p.factor = 5;
	p.import.attn_layout = "input";
	p.import.zstd = 0;
	if (mzm_synth(wide, &p, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_model *m = open_model(wide, "resident", 0);
	assert_true(m->weights->cfg.attn_by_input && m->weights->cfg.dim > 2 * 512);
	float *want = logits_of(m, N_TOK, 8, 1);
	mzm_model_close(m);
	mzm_plan plan;
	mzm_session_params sp = mzm_session_params_default();
	mzm_model_params mp = mzm_model_params_default();
	sp.n_ctx = 128;
	sp.n_threads = 2;
	sp.kv_type = "f32";
	mp.session = &sp;
	mp.store = "stream";
	mp.ram_bytes = (uint64_t)1 << 40;
	assert_int_equal(mzm_plan_make(&plan, wide, &mp, &err), MZM_OK);
	m = open_model(wide, "stream", plan.smallest_bytes + plan.smallest_bytes / 50);
	assert_null(m->weights->layer[2].wq.w);
	assert_same_bits(m, N_TOK, 2, want);
	mzm_model_close(m);
	free(want);
}

/* Chunks of a prompt go through oneDNN: near the row kernels, and the same bits for every number of threads. */
static void test_prompts(void **state)
{
	(void)state;
	static const char *const types[] = {NULL, "f32", "q8"};
	for (size_t t = 0; t < 3; t++) {
		int32_t ids[100];
		float *rows[3];
		must_import(DEMO_MODEL, path, "input", types[t], NULL);
		mzm_model *m = open_model(path, NULL, 0);
		size_t n_vocab = (size_t)m->weights->cfg.n_vocab;
		for (int i = 0; i < 100; i++)
			ids[i] = (i * 37 + 5) % m->weights->cfg.n_vocab;
		for (int k = 0; k < 3; k++) {
			mzm_session *s = open_session(m, k == 2 ? 3 : 1, "f32");
			mzm_pass pass = {.ids = ids, .n_pos = 64, .gemm = k > 0 && m->gemm};
			float *got;
			for (int i = 0; i < 64; i += pass.n_pos) {
				pass.ids = ids + i;
				pass.n_pos = pass.gemm ? 64 : 32;
				assert_int_equal(mzm_forward(s->state, &pass, NULL, NULL, NULL), MZM_OK);
			}
			pass = (mzm_pass){.ids = ids + 64, .n_pos = 1, .n_rows = 1};
			assert_int_equal(mzm_forward(s->state, &pass, &got, NULL, NULL), MZM_OK);
			rows[k] = malloc(n_vocab * sizeof(float));
			memcpy(rows[k], got, n_vocab * sizeof(float));
			mzm_session_free(s);
		}
		assert_true(distance(rows[0], rows[1], n_vocab) < (t == 1 ? 1e-3 : 0.7));
		assert_memory_equal(rows[1], rows[2], n_vocab * sizeof(float));
		for (int k = 0; k < 3; k++)
			free(rows[k]);
		mzm_model_close(m);
	}
}

/* ---- sparse passes ---- */

static mzm_model *model;      /* the demo model by input, calibrated: closed by the group's teardown */
static char model_dir[256], model_path[300];

static void add_texts(mzm_calibration *c, const mzm_model *m, int n)
{
	for (int i = 0; i < n; i++) {
		int32_t *ids;
		size_t n_ids;
		char *text = demo_prompt(499 - i);
		assert_int_equal(mzm_tokenize(mzm_model_tokenizer(m), text, strlen(text), 0, &ids, &n_ids, NULL),
				 MZM_OK);
		assert_int_equal(mzm_calibration_add(c, ids, n_ids, NULL), MZM_OK);
		mzm_ids_free(ids);
		free(text);
	}
}

static void calibrate(const char *from, const char *to)
{
	static const char *const fits[] = {"teal"}, *const predictors[] = {"teal"};
	mzm_calibration *c;
	mzm_err err = {0};
	mzm_calibrate_params p = mzm_calibrate_params_default();
	mzm_model *m = open_model(from, NULL, 0);
	p.n_train = 800;
	p.n_test = 100;
	p.n_report = 4;
	p.fits = fits;
	p.predictors = predictors;
	p.n_fits = p.n_predictors = 1;
	p.n_threads = 1;
	assert_int_equal(mzm_calibration_create(&c, m, &p, NULL), MZM_OK);
	add_texts(c, m, 30);
	if (mzm_calibration_finish(c, to, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_calibration_free(c);
	mzm_model_close(m);
}

static int open_calibrated(void **state)
{
	(void)state;
	char side_car[300];
	testing_temp_dir(model_dir);
	snprintf(model_path, sizeof model_path, "%s/model.mzm", model_dir);
	snprintf(side_car, sizeof side_car, "%s/model.mzc", model_dir);
	must_import(DEMO_MODEL, model_path, "input", NULL, "q8");
	calibrate(model_path, side_car);
	model = open_model(model_path, NULL, 0);
	return model->calib ? 0 : -1;
}

static int close_calibrated(void **state)
{
	(void)state;
	mzm_model_close(model);
	testing_remove(model_dir);
	return 0;
}

/* The predictor that keeps all neurons, with thresholds t of the attention's inputs. */
static mzm_predictor *thresholds(float *t, float of_x, float of_o)
{
	mzm_predictor *p;
	mzm_pred_env env = {.cfg = &model->weights->cfg, .keep = 1, .kern = model->kern};
	assert_int_equal(mzm_predictor_find("dense")->create(&p, &env, NULL), MZM_OK);
	for (int32_t l = 0; l < model->weights->cfg.n_layers; l++) {
		t[2 * l] = of_x;
		t[2 * l + 1] = of_o;
	}
	p->attn_threshold = t;
	return p;
}

typedef struct seen {
	float x[256]; /* the first layer's input */
	int   n_calls;
} seen;

static void see_attention(void *ctx, int32_t layer, bool of_o, const float *x, int32_t n_pos, int32_t n)
{
	seen *s = ctx;
	assert_int_equal(n, 256);
	assert_int_equal(n_pos, 1);
	if (layer == 0 && !of_o)
		memcpy(s->x, x, sizeof s->x);
	s->n_calls++;
}

/* One token; its row of values in the first layer against the sum over the inputs above the threshold. */
static void check_sum(float threshold, mzm_source *src)
{
	mzm_tensor t;
	float limits[64];
	seen sight = {0};
	double share;
	const mzm_config *cfg = &model->weights->cfg;
	mzm_session *s = open_session(model, 2, "f32");
	mzm_predictor *p = thresholds(limits, threshold, -1);
	int32_t id = 77, i = mzm_tensor_index(cfg, MZM_T_WV, 0), n_large = 0;
	mzm_pass pass = {.ids = &id, .n_pos = 1, .n_rows = 1, .sparse = p, .see_attention = see_attention,
			 .see_ctx = &sight};
	float *logits;
	assert_int_equal(mzm_forward(s->state, &pass, &logits, &share, NULL), MZM_OK);
	assert_int_equal(sight.n_calls, 2 * cfg->n_layers);
	t = mzm_source_tensor(src, i);
	uint16_t *w = malloc(mzm_tensor_bytes(&t));
	assert_int_equal(mzm_source_read(src, i, w, NULL), MZM_OK);
	for (int32_t c = 0; c < t.n_cols; c++) {
		double want = 0, size = 1e-6;
		n_large = 0;
		for (int32_t k = 0; k < t.n_rows; k++) {
			double term = (double)sight.x[k] * (double)mzm_bf16_to_f32(w[k * t.n_cols + c]);
			bool large = fabsf(sight.x[k]) > threshold;
			want += large ? term : 0;
			size += large ? fabs(term) : 0;
			n_large += large;
		}
		const float *row = mzm_kv_v(mzm_state_kv(s->state), 0, c / cfg->head_dim, 0);
		assert_true(fabs((double)row[c % cfg->head_dim] - want) < size * 0.01); /* inputs round to bf16 */
	}
	assert_true(threshold > 100 ? n_large == 0 : threshold < 0 ? n_large == 256 : n_large > 20 && n_large < 236);
	assert_true(threshold < 0 ? share == 1 : share < 1);
	free(w);
	p->ops->free(p);
	mzm_session_free(s);
}

static void test_a_sparse_pass_is_the_sum_of_large_inputs(void **state)
{
	(void)state;
	mzm_source *src;
	assert_int_equal(mzm_source_open(&src, model_path, NULL), MZM_OK);
	check_sum(-1, src);
	check_sum(0.3f, src);
	check_sum(0.8f, src);
	check_sum(1e6f, src); /* none is left: its values are zeros */
	mzm_source_close(src);
}

/* A list of all inputs computes what no list does. */
static void test_all_inputs_are_the_dense_pass(void **state)
{
	(void)state;
	float limits[64];
	mzm_predictor *p = thresholds(limits, -1, -1);
	mzm_session *a = open_session(model, 1, NULL), *b = open_session(model, 2, NULL);
	for (int32_t i = 0; i < 20; i++) {
		int32_t id = i * 91 % 2000;
		float *x, *y;
		mzm_pass dense = {.ids = &id, .n_pos = 1, .n_rows = 1}, sparse = dense;
		sparse.sparse = p;
		assert_int_equal(mzm_forward(a->state, &dense, &x, NULL, NULL), MZM_OK);
		assert_int_equal(mzm_forward(b->state, &sparse, &y, NULL, NULL), MZM_OK);
		assert_memory_equal(x, y, (size_t)model->weights->cfg.n_vocab * sizeof *x);
	}
	p->ops->free(p);
	mzm_session_free(a);
	mzm_session_free(b);
}

/* ---- generation ---- */

typedef struct answer {
	int32_t ids[160];
	int     n;
	long    at_first, at_last; /* allocations */
	double  density;
	int64_t n_checks;
} answer;

static int on_token(void *user, const mzm_token_event *e)
{
	answer *a = user;
	if (e->kind == MZM_TOKEN_ROLLED_BACK)
		return 0;
	a->at_last = atomic_load(&n_allocations);
	a->at_first = a->n ? a->at_first : a->at_last;
	a->ids[a->n++] = e->id;
	return 0;
}

static mzm_gen_params params(mzm_mode mode, const char *predictor, float keep, float attn_keep)
{
	mzm_gen_params p = mzm_gen_params_default();
	p.mode = mode;
	p.predictor = predictor;
	p.keep = keep;
	p.attn_keep = attn_keep;
	p.max_tokens = 120;
	p.fresh_monitor = true;
	p.no_draft_image = true;
	return p;
}

static answer generate(mzm_session *s, int problem, mzm_gen_params p)
{
	answer a = {0};
	mzm_gen_result r;
	mzm_err err = {0};
	char *prompt = demo_prompt(problem);
	p.on_token = on_token;
	p.user = &a;
	if (mzm_generate_text(s, prompt, &p, &r, &err) != MZM_OK)
		fail_msg("%s", err.message);
	free(prompt);
	a.density = r.density;
	a.n_checks = r.n_checks;
	return a;
}

static void assert_same(const answer *a, const answer *b)
{
	assert_int_equal(a->n, b->n);
	assert_memory_equal(a->ids, b->ids, sizeof(int32_t) * (size_t)a->n);
}

static void test_exact_is_dense(void **state)
{
	(void)state;
	mzm_session *one = open_session(model, 1, NULL), *two = open_session(model, 2, NULL);
	for (int i = 0; i < 6; i++) {
		answer dense = generate(one, i, params(MZM_MODE_DENSE, "topk", 1, 1));
		mzm_gen_params p = params(MZM_MODE_EXACT, "topk", 0.15f, i % 2 ? 0.5f : 0.3f);
		answer a = generate(one, i, p), b = generate(two, i, p);
		assert_same(&a, &dense);
		assert_same(&b, &dense);
		assert_int_equal(a.n_checks, b.n_checks);
		assert_true(a.density == b.density && a.density < 0.55);
		p.tree_width = 3;
		a = generate(two, i, p);
		assert_same(&a, &dense);
		p.tree_width = 1;
		p.no_draft_image = false; /* which is by input, too */
		a = generate(two, i, p);
		assert_same(&a, &dense);
		answer all = generate(one, i, params(MZM_MODE_SPARSE, "topk", 1, 1));
		assert_same(&all, &dense);
	}
	mzm_session_free(one);
	mzm_session_free(two);
}

/* A sparse answer depends on nothing but the settings, and 1 is as if nothing had been said. */
static void test_settings_take_turns(void **state)
{
	(void)state;
	mzm_session *one = open_session(model, 1, NULL), *two = open_session(model, 2, NULL);
	answer half = generate(one, 3, params(MZM_MODE_SPARSE, "topk", 0.3f, 0.35f));
	answer whole = generate(one, 3, params(MZM_MODE_SPARSE, "topk", 0.3f, 1));
	answer again = generate(two, 3, params(MZM_MODE_SPARSE, "topk", 0.3f, 0.35f));
	answer zero = generate(two, 3, params(MZM_MODE_SPARSE, "topk", 0.3f, 0));
	assert_same(&half, &again);
	assert_same(&whole, &zero);
	assert_true(half.density < whole.density - 0.05 && half.density == again.density);
	assert_true(half.n != whole.n || memcmp(half.ids, whole.ids, sizeof half.ids) != 0);
	mzm_session_free(one);
	mzm_session_free(two);
}

/* q, k, v and o are 0.1836 of the model, the FFN 0.734. */
static void test_density(void **state)
{
	(void)state;
	static const float keeps[] = {0.25f, 0.5f, 0.75f};
	mzm_session *s = open_session(model, 1, NULL);
	for (int i = 0; i < 3; i++) {
		double want = 1 - 0.18359 * (1 - (double)keeps[i]), cost;
		answer a = generate(s, 10, params(MZM_MODE_SPARSE, "dense", 1, keeps[i]));
		assert_true(fabs(a.density - want) < 0.012);
		cost = mzm_model_density(model, mzm_session_ffn_share(s), false);
		assert_true(fabs(cost - want) < 1e-4);
		a = generate(s, 10, params(MZM_MODE_SPARSE, "teal", keeps[i], 1));
		assert_true(fabs(a.density - (1 - 0.73422 * (1 - (double)keeps[i]) / 3)) < 0.012);
	}
	mzm_session_free(s);
}

static void test_no_allocation_while_decoding(void **state)
{
	(void)state;
#ifdef NO_COUNTING
	skip();
#endif
	mzm_session *s = open_session(model, 2, NULL);
	generate(s, 0, params(MZM_MODE_EXACT, "topk", 0.2f, 0.4f));
	answer a = generate(s, 1, params(MZM_MODE_EXACT, "topk", 0.2f, 0.4f));
	assert_true(a.n > 10);
	assert_int_equal(a.at_first, a.at_last);
	mzm_session_free(s);
}

/* Thresholds fall as more is kept, and lie between what was found. */
static void test_thresholds(void **state)
{
	(void)state;
	const mzm_config *cfg = &model->weights->cfg;
	float few[64], mid[64], more[64], all[64];
	assert_int_equal(mzm_teal_attention(few, model->calib, cfg, 0.4f, NULL), MZM_OK);
	assert_int_equal(mzm_teal_attention(mid, model->calib, cfg, 0.425f, NULL), MZM_OK);
	assert_int_equal(mzm_teal_attention(more, model->calib, cfg, 0.45f, NULL), MZM_OK);
	assert_int_equal(mzm_teal_attention(all, model->calib, cfg, 1, NULL), MZM_OK);
	for (int i = 0; i < 2 * cfg->n_layers; i++) {
		assert_true(few[i] > more[i] && more[i] > 0 && all[i] < 0);
		assert_true(fabsf(mid[i] - (few[i] + more[i]) / 2) < 1e-5f * few[i]);
	}
}

static void test_counting(void **state)
{
	(void)state;
	static uint64_t bins[MZM_TEAL_BINS];
	const float x[] = {1.0f, -1.0f, 1.001f, 0, -0.0f, 2.0f, INFINITY};
	memset(bins, 0, sizeof bins);
	mzm_teal_count(bins, x, 7);
	assert_int_equal(bins[0], 2);
	assert_int_equal(bins[0x3f800000u >> MZM_TEAL_BITS], 3);
	assert_int_equal(bins[0x40000000u >> MZM_TEAL_BITS], 1);
	assert_int_equal(bins[0x7f800000u >> MZM_TEAL_BITS], 1);
}

/* ---- refusals ---- */

static void refused(mzm_model *m, mzm_gen_params p, mzm_status want, const char *say)
{
	mzm_err err = {0};
	mzm_gen_result r;
	mzm_session *s = open_session(m, 1, NULL);
	assert_int_equal(mzm_generate_text(s, "1 + 1", &p, &r, &err), want);
	assert_non_null(strstr(err.message, say));
	mzm_session_free(s);
}

static void test_what_is_refused_at_work(void **state)
{
	(void)state;
	mzm_err err = {0};
	mzm_model *plain = open_model(DEMO_MODEL, NULL, 0), *m;
	refused(plain, params(MZM_MODE_EXACT, "topk", 0.5f, 0.5f), MZM_EUNDEFINED, "--attn-layout input");
	mzm_model_close(plain);
	must_import(DEMO_MODEL, path, "input", NULL, NULL);
	m = open_model(path, NULL, 0);
	refused(m, params(MZM_MODE_EXACT, "topk", 0.5f, 0.5f), MZM_EUNDEFINED, "needs a calibration");
	refused(m, params(MZM_MODE_EXACT, "teal", 0.5f, 1), MZM_EUNDEFINED, "needs a calibration");
	refused(m, params(MZM_MODE_EXACT, "topk", 0.5f, -0.1f), MZM_EARG, "attn-keep");
	refused(m, params(MZM_MODE_EXACT, "topk", 0.5f, 1.1f), MZM_EARG, "attn-keep");
	refused(m, params(MZM_MODE_EXACT, "topk", 0.5f, NAN), MZM_EARG, "attn-keep");
	mzm_model_close(m);
	mzm_model_params p = mzm_model_params_default(); /* the same weights the other way round: another model */
	char side_car[300];
	snprintf(side_car, sizeof side_car, "%s/model.mzc", model_dir);
	p.calib = side_car;
	assert_int_equal(mzm_model_open(&m, DEMO_MODEL, &p, &err), MZM_EFORMAT);
}

static void test_what_is_refused_at_import(void **state)
{
	(void)state;
	char quant[300];
	mzm_source *src, *wide;
	snprintf(quant, sizeof quant, "%s/quant.mzm", dir);
	import_fails(DEMO_MODEL, "diagonal", NULL, MZM_EARG, "no layout \"diagonal\"");
	must_import(DEMO_MODEL, quant, NULL, "q8", NULL);
	import_fails(quant, "input", NULL, MZM_EUNSUPPORTED, "layers.0.wq is q8 already and cannot be turned round");
	must_import(DEMO_MODEL, quant, NULL, NULL, "q4");
	import_fails(quant, "input", NULL, MZM_EUNSUPPORTED, "draft.layers.0.wq");
	must_import(quant, path, "input", NULL, "q4"); /* made anew from the model's weights */
	assert_int_equal(mzm_source_open(&src, path, NULL), MZM_OK);
	assert_int_equal(mzm_source_open_inflated(&wide, src, 2, 1, NULL), MZM_EUNSUPPORTED);
	mzm_source_close(src);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_DIR(test_layout_turns_weights),
		IN_DIR(test_layout_stays),
		IN_DIR(test_golden_models_compute_the_same),
		IN_DIR(test_bits_of_every_pass),
		IN_DIR(test_bits_where_it_streams),
		IN_DIR(test_prompts),
		cmocka_unit_test(test_a_sparse_pass_is_the_sum_of_large_inputs),
		cmocka_unit_test(test_all_inputs_are_the_dense_pass),
		cmocka_unit_test(test_exact_is_dense),
		cmocka_unit_test(test_settings_take_turns),
		cmocka_unit_test(test_density),
		cmocka_unit_test(test_no_allocation_while_decoding),
		cmocka_unit_test(test_thresholds),
		cmocka_unit_test(test_counting),
		IN_DIR(test_what_is_refused_at_work),
		IN_DIR(test_what_is_refused_at_import),
	};
	return cmocka_run_group_tests(tests, open_calibrated, close_calibrated);
}
