/* test_skip.c - drafts that leave layers out: the text stays the dense model's, whatever is left out, in every kind of
 * model; sets as text and in side-cars; the exit rule, by hand; what a pass counts for; the search. */
#include "draft_rig.h"

#include <math.h>

#include "base/rng.h"
#include "decode/draft_exit.h"
#include "decode/skip_set.h"
#include "engine/bayes.h"
#include "engine/calibrate_skip.h"
#include "temp_dir.h"

static mzm_model *models[2]; /* SwiGLU, ReGLU */
static mzm_session *dense_of[2], *sessions[2][3]; /* by threads */

/* ---- sets as text ---- */

static void test_text(void **state)
{
	static const struct {
		const char *text, *printed; /* NULL: refused */
	} cases[] = {
		{"none", "none"}, {"attn:0", "attn:0"}, {"mlp:5", "mlp:5"}, {"attn:3,4 mlp:1-5", "attn:3-4 mlp:1-5"},
		{"mlp:1 attn:2", "attn:2 mlp:1"}, {" attn:0-2,4  mlp:5,1 ", "attn:0-2,4 mlp:1,5"},
		{"attn:1 attn:3", "attn:1,3"}, {"attn:2-2", "attn:2"},
		{"", NULL}, {"attn:", NULL}, {"attn:6", NULL}, {"mlp:4-6", NULL}, {"attn:3-1", NULL}, {"attn:1,", NULL},
		{"attn:1;2", NULL}, {"ffn:1", NULL}, {"attn:-1", NULL}, {"attn:1mlp:2", NULL}, {"auto", NULL},
		{"attn:99999999999999999999", NULL}, {"attn:1-", NULL}, {"none attn:1", NULL}, {"attn 1", NULL},
	};
	uint8_t skip[12];
	char text[64];
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		mzm_err err = {0};
		mzm_status st = mzm_skip_parse(skip, 6, cases[i].text, &err);
		assert_int_equal(st, cases[i].printed ? MZM_OK : MZM_EARG);
		if (cases[i].printed)
			assert_string_equal(mzm_skip_print(text, sizeof text, skip, 6), cases[i].printed);
		else
			assert_true(strstr(err.message, "skip:") != NULL);
	}
	assert_int_equal(mzm_skip_parse(NULL, 0, "attn:77", NULL), MZM_OK); /* of a model that is not known yet */
	memset(skip, 1, sizeof skip);
	assert_string_equal(mzm_skip_print(text, 9, skip, 6), "attn:0-5");
	assert_int_equal(mzm_skip_count(skip, 6, true), 6);
}

/* ---- the exit rule ---- */

static void near(double a, double b)
{
	assert_true(fabs(a - b) < 1e-12);
}

static void test_exit_rule(void **state)
{
	static const struct {
		int    n_draft, n_kept;
		double matched, gamma; /* behind the check */
	} steps[] = {
		{4, 4, 0.5, 0.801}, {4, 4, 0.75, 0.802}, {2, 2, 0.875, 0.803}, /* few kept yet: up */
		{1, 1, 0.9375, 0.802},                                         /* nearly all: down */
		{8, 8, 0.96875, 0.802},                                        /* and as long as it may be: stays */
		{0, 0, 0.96875, 0.802},                                        /* no draft */
		{8, 2, 0.609375, 0.803}, {8, 0, 0.3046875, 0.804},
	};
	mzm_gen_params p = rig_params(MZM_MODE_EXACT, "skip", 9);
	mzm_exit e;
	(void)state;
	mzm_exit_start(&e, &p);
	near(e.gamma, 0.8);
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		mzm_exit_learn(&e, steps[i].n_draft, steps[i].n_kept);
		near(e.matched, steps[i].matched);
		near(e.gamma, steps[i].gamma);
	}
	p.temp = 0.7f;
	mzm_exit_start(&e, &p);
	near(e.gamma, 0.5);
	p.draft_exit = 0.25f;
	mzm_exit_start(&e, &p);
	mzm_exit_learn(&e, 8, 0);
	near(e.gamma, 0.25);
	p.draft_exit = 0;
	mzm_exit_start(&e, &p);
	near(e.gamma, 0);
	p.draft_exit = -1;
	p.period = 0; /* the monitor decides */
	mzm_exit_start(&e, &p);
	mzm_exit_learn(&e, 8, 0);
	near(e.gamma, 0);
}

static void test_exit_words(void **state)
{
	static const struct {
		const char *text;
		double      value; /* -2: refused */
	} cases[] = {{"adaptive", -1}, {"off", 0}, {"0.5", 0.5}, {"1", 1}, {"0", -2}, {"1.5", -2}, {"-0.5", -2},
		     {"", -2}, {"offf", -2}, {"nan", -2}, {"0.5x", -2}};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		float x, again;
		char text[32];
		mzm_status st = mzm_draft_exit_parse(&x, cases[i].text, NULL);
		assert_int_equal(st, cases[i].value == -2 ? MZM_EARG : MZM_OK);
		if (st != MZM_OK)
			continue;
		assert_true((double)x == cases[i].value);
		mzm_draft_exit_print(text, x);
		assert_int_equal(mzm_draft_exit_parse(&again, text, NULL), MZM_OK);
		assert_true(again == x);
	}
}

/* With 1 hardly a draft has a second token; with off all are as long as they may be, but for the end of the text. */
static void test_exit_in_drafts(void **state)
{
	static rig_record r, dense;
	(void)state;
	mzm_gen_params p = rig_params(MZM_MODE_EXACT, "skip", 8);
	p.skip = "attn:4-5 mlp:1-4";
	rig_generate(&dense, dense_of[0], 0, rig_params(MZM_MODE_DENSE, "sparse", 8));
	p.draft_exit = 1;
	mzm_gen_result one = rig_generate(&r, sessions[0][1], 0, p);
	rig_same_text(&r, &dense);
	p.draft_exit = 0;
	mzm_gen_result off = rig_generate(&r, sessions[0][1], 0, p);
	rig_same_text(&r, &dense);
	assert_int_equal(r.longest, 7);
	p.draft_exit = -1;
	mzm_gen_result adaptive = rig_generate(&r, sessions[0][1], 0, p);
	rig_same_text(&r, &dense);
	assert_true(one.n_checks > adaptive.n_checks && adaptive.n_checks >= off.n_checks);
	assert_true(adaptive.n_rolled_back < off.n_rolled_back && one.n_rolled_back < off.n_rolled_back);
	mzm_gen_result again = rig_generate(&r, sessions[0][1], 0, p); /* gamma starts anew */
	assert_int_equal(again.n_checks, adaptive.n_checks);
	assert_int_equal(again.n_rolled_back, adaptive.n_rolled_back);
}

/* ---- the text ---- */

static void random_set(char text[64], uint64_t *seed, int32_t n_layers)
{
	uint8_t skip[128] = {0};
	for (int32_t i = 0; i < 2 * n_layers; i++)
		skip[i] = testing_random(seed) % 10 < 4;
	mzm_skip_print(text, 64, skip, n_layers);
}

/* A generation of problem i with these params is the dense one, and so are its rows. */
static mzm_gen_result same_as_dense(int m, int threads, int i, mzm_gen_params p)
{
	return rig_as_dense(sessions[m][threads], dense_of[m], i, p);
}

static void test_exact_equals_dense(void **state)
{
	static const char *const sets[] = {"none", "mlp:0-5", "attn:0-5", "attn:0 mlp:0", "attn:0-5 mlp:0-5",
					   "attn:2,4", "mlp:1-4 attn:4-5"};
	enum { N_SETS = sizeof sets / sizeof *sets, N_RANDOM = 5 };
	uint64_t seed = 11;
	(void)state;
	for (int k = 0; k < N_SETS + N_RANDOM; k++) {
		char text[64];
		mzm_gen_params p = rig_params(MZM_MODE_EXACT, "skip", k % 3 == 0 ? 16 : k % 3 == 1 ? 5 : 32);
		random_set(text, &seed, 6);
		p.skip = k < N_SETS ? sets[k] : text;
		p.draft_exit = k % 2 ? -1.0f : 0;
		for (int i = 0; i < testing_count(2, 60); i++) {
			p.temp = i % 3 == 1 ? 0.8f : 0;
			p.top_p = i % 3 == 1 ? 0.9f : 1;
			p.seed = (uint64_t)i;
			mzm_gen_result r = same_as_dense(k % 2, i == 0 && k % 5 == 1 ? 2 : 1, 3 * k + i, p);
			assert_true(r.drafts[0].n_drafted > 0 && strcmp(r.drafts[0].name, "skip") == 0);
			if (k == 0)
				assert_true(r.drafts[0].n_accepted == r.drafts[0].n_drafted);
			if (k == 4)
				assert_true(r.drafts[0].n_accepted < r.drafts[0].n_drafted / 2);
		}
	}
}

static void test_monitor_decides(void **state)
{
	mzm_costs costs = rig_costs();
	(void)state;
	for (int i = 0; i < 3; i++) {
		mzm_gen_params p = rig_params(MZM_MODE_EXACT, "skip", 0);
		p.skip = "mlp:2,3";
		p.costs = i == 2 ? NULL : &costs; /* measured */
		mzm_gen_result r = same_as_dense(i % 2, 1, i, p);
		assert_true(r.costs.sparse > 0);
	}
}

/* Norms and residuals of every kind; parallel blocks; windows; linear attention. */
static void test_golden_models(void **state)
{
	static const char *const names[] = {"gemma2", "gemma3", "mistral", "phi3-window", "opt", "gptneox", "stablelm",
					    "stablelm-parallel", "relu-llama", "dijiang-groups", "dijiang-neox"};
	static rig_record dense, drafted;
	uint64_t seed = 5;
	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char from[64], text[64];
		int32_t prompt[20];
		snprintf(from, sizeof from, "tests/golden/%s", names[i]);
		mzm_model *m = rig_open(from, "off");
		mzm_session *a = rig_session(m, 1, 96), *b = rig_session(m, i == 4 ? 2 : 1, 96);
		for (int32_t k = 0; k < 20; k++)
			prompt[k] = (k * 37 + 11) % m->info.n_vocab;
		mzm_gen_params p = rig_params(MZM_MODE_DENSE, "skip", 9);
		p.ignore_eos = true;
		p.max_tokens = 0;
		p.draft_exit = 0;
		rig_generate_ids(&dense, a, prompt, 20, p);
		int32_t last = dense.ids[dense.n - 1];
		p.mode = MZM_MODE_EXACT;
		for (int k = 0; k < 4; k++) {
			random_set(text, &seed, m->info.n_layers);
			p.skip = text;
			rig_generate_ids(&drafted, b, prompt, 20, p);
			rig_same_text(&drafted, &dense);
			mzm_session_truncate(a, 20 + dense.n - 1);
			rig_same_state(b, a, last);
		}
		mzm_session_free(a);
		mzm_session_free(b);
		mzm_model_close(m);
	}
}

/* ---- what a skipping pass computes ---- */

typedef struct seen {
	float x[512];
	int   n;
} seen;

static void see(void *ctx, int32_t layer, const float *x, int32_t n_pos)
{
	seen *s = ctx;
	assert_int_equal(n_pos, 1);
	if (layer == 0)
		memcpy(s->x, x, (size_t)s->n * sizeof *x);
}

/* In a parallel block the FFN reads what the attention reads: without the attention nothing changes for it. */
static void test_parallel_input(void **state)
{
	static const char *const names[] = {"gptneox", "stablelm-parallel"};
	(void)state;
	for (int i = 0; i < 2; i++) {
		char from[64];
		int32_t id = 7;
		snprintf(from, sizeof from, "tests/golden/%s", names[i]);
		mzm_model *m = rig_open(from, "off");
		mzm_session *s = rig_session(m, 2, 16);
		uint8_t skip[64] = {1}; /* the first attention */
		seen whole = {.n = m->info.dim}, left = {.n = m->info.dim};
		assert_true(m->info.dim <= 512);
		mzm_pass pass = {.ids = &id, .n_pos = 1, .see_input = see, .see_ctx = &whole};
		assert_int_equal(mzm_forward(s->state, &pass, NULL, NULL, NULL), MZM_OK);
		mzm_session_truncate(s, 0);
		pass.skip = skip;
		pass.see_ctx = &left;
		assert_int_equal(mzm_forward(s->state, &pass, NULL, NULL, NULL), MZM_OK);
		assert_memory_equal(whole.x, left.x, (size_t)m->info.dim * sizeof(float));
		mzm_session_free(s);
		mzm_model_close(m);
	}
}

/* Logits of one token at position 0 without the layers behind `from` are those of a model that ends there: with all
 * layers skipped they are the head's of the embedding. */
static void test_empty_model(void **state)
{
	const mzm_weights *w = models[0]->weights;
	size_t dim = (size_t)w->cfg.dim, n_vocab = (size_t)w->cfg.n_vocab;
	mzm_session *s = sessions[0][2];
	uint8_t skip[12];
	int32_t id = 300;
	float *logits, *x = malloc(dim * sizeof *x), *row = malloc(dim * sizeof *row);
	double squares = 0, share;
	(void)state;
	memset(skip, 1, sizeof skip);
	mzm_session_truncate(s, 0);
	mzm_pass pass = {.ids = &id, .n_pos = 1, .n_rows = 1, .skip = skip};
	assert_int_equal(mzm_forward(s->state, &pass, &logits, &share, NULL), MZM_OK);
	models[0]->kern->to_f32(x, (const char *)w->embed.w + (size_t)id * w->embed.stride, w->embed.dtype, w->cfg.dim);
	for (size_t i = 0; i < dim; i++)
		squares += (double)x[i] * (double)x[i];
	double scale = 1 / sqrt(squares / (double)dim + w->cfg.norm_eps);
	for (size_t v = 0; v < n_vocab; v += 97) {
		double sum = 0;
		models[0]->kern->to_f32(row, (const char *)w->head.w + v * w->head.stride, w->head.dtype, w->cfg.dim);
		for (size_t i = 0; i < dim; i++)
			sum += (double)row[i] * (double)x[i] * scale * (double)w->out_norm[i];
		assert_true(fabs(sum - (double)logits[v]) < 0.02 * (1 + fabs(sum)));
	}
	double attention = 6.0 * 256 * (256 + 128 + 128 + 256), ffn = 6.0 * 3 * 1024 * 256;
	assert_true(fabs(share + attention / ffn) < 1e-9);
	mzm_session_truncate(s, 0);
	free(x);
	free(row);
}

/* ---- what passes count for ---- */

static void test_work(void **state)
{
	double attention = 256.0 * (256 + 128 + 128 + 256), ffn = 3.0 * 1024 * 256;
	double all = (double)models[0]->info.n_params;
	mzm_gen_params p = rig_params(MZM_MODE_EXACT, "skip", 16);
	mzm_costs costs;
	(void)state;
	p.skip = "attn:1,3-4 mlp:2,5";
	double density = 1 - (3 * attention + 2 * ffn) / all;
	mzm_gen_result r = same_as_dense(0, 1, 2, p);
	assert_true(fabs(r.density - density) < 1e-6 && fabs(r.read_density - density) < 1e-6);
	assert_true(fabs(r.sparse_work - density * r.n_sparse_passes) < 1e-6 * r.n_sparse_passes);
	assert_int_equal(mzm_session_nominal_costs(sessions[0][1], &p, &costs, NULL), MZM_OK);
	assert_true(fabs((double)costs.sparse - density) < 1e-6);
	p.skip_keep = 0.5f; /* and half of the neurons of the four FFNs that are left */
	density -= 4 * ffn / 2 / all;
	r = same_as_dense(0, 1, 2, p);
	assert_true(fabs(r.density - density) < 1e-6);
	assert_int_equal(mzm_session_nominal_costs(sessions[0][1], &p, &costs, NULL), MZM_OK);
	assert_true(fabs((double)costs.sparse - density) < 1e-6);
	assert_int_equal(mzm_session_measure_costs(sessions[0][1], &p, &costs, NULL), MZM_OK);
	assert_true(costs.sparse > 0);
}

/* Where no pass ran, no figure says what one would have cost. */
static void test_no_pass(void **state)
{
	static rig_record r;
	mzm_costs dear = rig_costs();
	(void)state;
	dear.sparse = dear.draft[mzm_drafter_index("skip", 4)] = 100; /* no pass is worth it */
	for (int i = 0; i < 4; i++) {
		static const char *const drafts[] = {"skip+ngram", "auto", "skip", "sparse"};
		mzm_gen_params p = rig_params(i == 3 ? MZM_MODE_SPARSE : MZM_MODE_EXACT, drafts[i], 0);
		p.costs = &dear;
		p.skip = "mlp:2";
		p.max_tokens = i == 0 ? 15 : 1; /* so soon no pass is tried */
		mzm_gen_result result = rig_generate(&r, sessions[0][1], 0, p);
		int64_t guesses = 0;
		for (int k = 0; k < result.n_drafters; k++)
			guesses += result.drafts[k].n_drafted;
		assert_int_equal(result.n_sparse_passes, 0);
		assert_true(result.sparse_work == 0);
		assert_true(result.density == (guesses > 0 ? 0 : 1) && result.read_density == result.density);
		assert_true((guesses > 0) == (i == 0));
	}
}

/* What was measured and learnt of one set, or exit, is not used for another. */
static void test_settings(void **state)
{
	enum { PLANTED = 77 };
	static rig_record r;
	static const struct {
		const char *skip;
		float       draft_exit;
		bool        same; /* as the one before */
	} cases[] = {{"mlp:2,3", -1, false}, {"mlp:2-3", -1, true}, {"mlp:2,3 attn:1", -1, false},
		     {"mlp:2,3 attn:1", 0.5f, false}, {"mlp:2,3 attn:1", 0.5f, true}, {"none", 0.5f, false}};
	int index = mzm_drafter_index("skip", 4);
	mzm_session *s = rig_session(models[0], 1, 256);
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		mzm_gen_params p = rig_params(MZM_MODE_EXACT, "skip", 0);
		p.skip = cases[i].skip;
		p.draft_exit = cases[i].draft_exit;
		p.fresh_monitor = false;
		p.max_tokens = 6;
		s->costs_of[index].sparse = i > 0 ? PLANTED : 0;
		s->monitor_of[index].accepted = PLANTED;
		s->policy.of[index].cost = PLANTED;
		mzm_gen_result result = rig_generate(&r, s, 1, p);
		assert_true((result.costs.sparse == PLANTED) == cases[i].same);
		assert_true((s->costs_of[index].sparse == PLANTED) == cases[i].same);
		assert_true((s->monitor_of[index].accepted > PLANTED / 2) == cases[i].same);
		assert_true((s->policy.of[index].cost > PLANTED / 2) == cases[i].same);
	}
	mzm_session_free(s);
}

/* ---- with others ---- */

static void test_sparse_too(void **state)
{
	static const char *const predictors[] = {"griffin", "topk", "cats"};
	(void)state;
	for (int i = 0; i < 2; i++) { /* cats wants a calibration */
		mzm_gen_params p = rig_params(MZM_MODE_EXACT, "skip", 8);
		p.skip = "attn:4 mlp:2";
		p.predictor = predictors[i];
		p.keep = 0.9f; /* not the one that counts */
		p.skip_keep = 0.3f;
		mzm_gen_result r = same_as_dense(i, 1, i, p);
		assert_true(fabs((double)sessions[i][1]->keep - 0.3) < 1e-6 && r.density < 0.75);
		p.skip_keep = 1;
		assert_true(same_as_dense(i, 1, i, p).density > r.density);
	}
}

static void test_combinations(void **state)
{
	static const char *const names[] = {"skip+sparse", "sparse+skip", "skip+ngram", "ngram+skip+sparse", "auto"};
	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		int list[MZM_MAX_DRAFTERS];
		mzm_gen_params p = rig_params(MZM_MODE_EXACT, names[i], 8);
		p.skip = "mlp:3";
		p.keep = p.skip_keep = i % 2 ? 0.5f : 1;
		assert_true(mzm_drafter_list(list, names[i]) > 1);
		for (int k = 0; k < 2; k++) {
			p.temp = k ? 0.7f : 0;
			mzm_gen_result r = same_as_dense((int)i % 2, i == 3 && k == 0 ? 2 : 1, (int)i, p);
			const mzm_draft_stats *skip = NULL;
			for (int d = 0; d < r.n_drafters; d++)
				skip = strcmp(r.drafts[d].name, "skip") == 0 ? &r.drafts[d] : skip;
			assert_non_null(skip);
			assert_true(skip->n_drafted > 0 || strcmp(names[i], "auto") == 0); /* which may have better */
		}
	}
}

static void test_refusals(void **state)
{
	mzm_gen_params p = rig_params(MZM_MODE_EXACT, "skip", 8), q;
	(void)state;
	rig_refuses(sessions[0][1], p, MZM_EUNDEFINED, "calibrate");
	q = p;
	q.skip = "mlp:6";
	rig_refuses(sessions[0][1], q, MZM_EARG, "no layer 6");
	q.skip = "everything";
	rig_refuses(sessions[0][1], q, MZM_EARG, "no set of layers");
	q = p;
	q.draft = "sparse+skip";
	q.skip = "mlp:1";
	q.skip_keep = 0.3f;
	rig_refuses(sessions[0][1], q, MZM_EUNDEFINED, "skip-keep");
	q.skip_keep = 1.5f;
	rig_refuses(sessions[0][1], q, MZM_EARG, "skip-keep");
	q = p;
	q.draft_exit = 2;
	rig_refuses(sessions[0][1], q, MZM_EARG, "exit");
	q = p;
	q.draft = "auto"; /* does without it */
	q.max_tokens = 4;
	static rig_record r;
	mzm_gen_result result = rig_generate(&r, sessions[0][1], 0, q);
	for (int i = 0; i < result.n_drafters; i++)
		assert_string_not_equal(result.drafts[i].name, "skip");
}

/* ---- where weights stream ---- */

static void test_streaming(void **state)
{
	static rig_record dense, drafted;
	mzm_err err = {0};
	(void)state;
	for (int image = 0; image < 2; image++) {
		mzm_model *m = NULL;
		mzm_import_params ip = mzm_import_params_default();
		mzm_model_params mp = mzm_model_params_default();
		ip.draft_quant = image ? "q8" : "off";
		mp.store = "stream";
		if (mzm_import(DEMO_MODEL, path, &ip, &err) != MZM_OK || mzm_model_open(&m, path, &mp, &err) != MZM_OK)
			fail_msg("%s", err.message);
		mzm_session *s = rig_session(m, 2, 512), *t = rig_session(m, 1, 512);
		mzm_gen_params p = rig_params(MZM_MODE_EXACT, "skip", 8);
		p.skip = "attn:4 mlp:2,3";
		p.max_tokens = 30;
		if (!image) {
			rig_refuses(s, p, MZM_EUNDEFINED, "in memory");
		} else {
			mzm_gen_params q = p;
			q.mode = MZM_MODE_DENSE;
			rig_generate(&dense, t, 1, q);
			mzm_gen_result r = rig_generate(&drafted, s, 1, p);
			rig_same_text(&drafted, &dense);
			rig_same_state(s, t, dense.ids[dense.n - 1]);
			assert_true(r.density < 0.5 && r.n_gained > r.n_checks);
		}
		int32_t id = 1;
		uint8_t skip[12] = {1};
		mzm_pass pass = {.ids = &id, .n_pos = 1, .skip = skip};
		mzm_session_truncate(s, 0);
		assert_int_equal(mzm_forward(s->state, &pass, NULL, NULL, &err), MZM_EUNDEFINED);
		mzm_session_free(s);
		mzm_session_free(t);
		mzm_model_close(m);
	}
}

/* ---- the optimiser ---- */

enum { N_BITS = 14 };

/* Bits are worth something each, some only with their neighbour. */
static double worth(const uint8_t *bits, uint64_t seed)
{
	double sum = 0;
	for (int i = 0; i < N_BITS; i++) {
		sum += bits[i] * (mzm_rng_unit(seed, 1, (uint64_t)i) - 0.5);
		if (bits[i] && bits[(i + 1) % N_BITS])
			sum += 0.6 * (mzm_rng_unit(seed, 2, (uint64_t)i) - 0.5);
	}
	return sum;
}

static void test_optimiser(void **state)
{
	enum { N_TRIES = 100 };
	(void)state;
	for (uint64_t seed = 1; seed <= 4; seed++) {
		mzm_bayes *b;
		uint8_t bits[N_BITS];
		double best = -1e9, by_chance = -1e9, found_best;
		bool found = true;
		for (uint32_t all = 0; all < 1u << N_BITS; all++) {
			for (int i = 0; i < N_BITS; i++)
				bits[i] = all >> i & 1;
			double w = worth(bits, seed);
			best = w > best ? w : best;
			if (mzm_rng_unit(seed, 3, all) < (double)N_TRIES / (1 << N_BITS))
				by_chance = w > by_chance ? w : by_chance;
		}
		assert_int_equal(mzm_bayes_create(&b, N_BITS, N_TRIES, seed, sessions[0][1]->team, NULL), MZM_OK);
		memset(bits, 0, sizeof bits);
		mzm_bayes_tell(b, bits, worth(bits, seed));
		for (int i = 1; i < N_TRIES && found; i++) {
			assert_int_equal(mzm_bayes_ask(b, bits, &found, NULL), MZM_OK);
			assert_true(!found || !mzm_bayes_knows(b, bits));
			if (found)
				mzm_bayes_tell(b, bits, worth(bits, seed));
		}
		const uint8_t *winner = mzm_bayes_best(b, &found_best);
		assert_true(fabs(worth(winner, seed) - found_best) < 1e-12);
		assert_true(found_best > by_chance && found_best > best - 0.02);
		mzm_bayes_free(b);
	}
}

/* ---- the search, and the side-car ---- */

#define TEXTS "data/gsmini-calib.jsonl"

static void add_texts(mzm_calibration *c, const mzm_model *m, int n)
{
	char *line = NULL, *text;
	size_t cap = 0, n_ids;
	FILE *f = fopen(TEXTS, "r");
	assert_non_null(f);
	for (int i = 0; i < n && getline(&line, &cap, f) > 0; i++) {
		int32_t *ids;
		json_t *o = json_loads(line, 0, NULL);
		assert_true(asprintf(&text, "Question: %s\nAnswer: %s",
				     json_string_value(json_object_get(o, "question")),
				     json_string_value(json_object_get(o, "answer"))) > 0);
		assert_int_equal(mzm_tokenize(m->tokenizer, text, strlen(text), 0, &ids, &n_ids, NULL), MZM_OK);
		assert_int_equal(mzm_calibration_add(c, ids, n_ids, NULL), MZM_OK);
		mzm_ids_free(ids);
		json_decref(o);
		free(text);
	}
	free(line);
	fclose(f);
}

static mzm_calibrate_params search_params(int n_threads)
{
	static const char *const fits[] = {"skip"};
	static const char *const predictors[] = {"griffin"};
	mzm_calibrate_params p = mzm_calibrate_params_default();
	p.fits = fits;
	p.n_fits = 1;
	p.n_train = 800;
	p.n_test = 300;
	p.n_report = 8;
	p.predictors = predictors;
	p.n_predictors = 1;
	p.n_tries = 48;
	p.n_threads = n_threads;
	return p;
}

/* Writes the side-car; the report of the search. */
static json_t *calibrate(const mzm_model *m, const char *to, mzm_calibrate_params p)
{
	mzm_calibration *c;
	mzm_err err = {0};
	char *report;
	assert_int_equal(mzm_calibration_create(&c, m, &p, &err), MZM_OK);
	add_texts(c, m, 12);
	if (mzm_calibration_finish(c, to, &report, &err) != MZM_OK)
		fail_msg("%s", err.message);
	json_t *all = json_loads(report, 0, NULL), *skip = json_incref(json_object_get(all, "skip"));
	json_decref(all);
	mzm_string_free(report);
	mzm_calibration_free(c);
	return skip;
}

static void test_side_car(void **state)
{
	static rig_record drafted, dense;
	char cars[2][300];
	size_t n[2];
	char *bytes[2];
	json_t *report = NULL;
	(void)state;
	for (int i = 0; i < 2; i++) {
		snprintf(cars[i], sizeof cars[i], "%s/%d.mzc", dir, i);
		json_decref(report);
		report = calibrate(models[0], cars[i], search_params(1 + i));
		bytes[i] = testing_read(cars[i], &n[i]);
	}
	assert_int_equal(n[0], n[1]); /* whatever the threads */
	assert_memory_equal(bytes[0], bytes[1], n[0]);
	assert_true(json_is_true(json_object_get(report, "pays")));
	assert_true(json_real_value(json_object_get(report, "rate")) > 1.1);

	mzm_model *m = rig_open(DEMO_MODEL, cars[0]);
	mzm_session *s = rig_session(m, 1, 0);
	uint8_t skip[12];
	char text[64];
	assert_true(mzm_skip_find(skip, m->calib, 6));
	assert_string_equal(mzm_skip_print(text, sizeof text, skip, 6),
			    json_string_value(json_object_get(report, "set")));
	mzm_gen_params p = rig_params(MZM_MODE_DENSE, "skip", 8);
	rig_generate(&dense, dense_of[0], 5, p);
	p.mode = MZM_MODE_EXACT;
	mzm_gen_result r = rig_generate(&drafted, s, 5, p);
	rig_same_text(&drafted, &dense);
	assert_true(fabs(r.density - json_real_value(json_object_get(report, "draft"))) < 1e-6);
	p.draft = "auto";
	r = rig_generate(&drafted, s, 5, p);
	rig_same_text(&drafted, &dense);
	bool there = false;
	for (int i = 0; i < r.n_drafters; i++)
		there = there || strcmp(r.drafts[i].name, "skip") == 0;
	assert_true(there);
	mzm_session_free(s);
	mzm_model_close(m);

	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	mp.calib = cars[0]; /* it is of another model */
	assert_int_equal(mzm_model_open(&m, DEMO_MODEL_RELU, &mp, &err), MZM_EFORMAT);
	assert_true(strstr(err.message, "another model") != NULL);
	json_decref(report);
	free(bytes[0]);
	free(bytes[1]);
}

/* From nothing, one more sub-layer as long as that makes it better. */
static double remove_greedily(mzm_skip_judge *j, int32_t n, int32_t *n_tried)
{
	uint8_t skip[64] = {0};
	mzm_skip_score score;
	assert_int_equal(mzm_skip_judge_score(j, &score, skip, false, NULL), MZM_OK);
	double best = score.rate;
	*n_tried = 1;
	for (bool better = true; better;) {
		int32_t at = -1;
		for (int32_t i = 0; i < n; i++) {
			if (skip[i])
				continue;
			skip[i] = 1;
			assert_int_equal(mzm_skip_judge_score(j, &score, skip, false, NULL), MZM_OK);
			skip[i] = 0;
			++*n_tried;
			if (score.rate > best) {
				best = score.rate;
				at = i;
			}
		}
		better = at >= 0;
		if (better)
			skip[at] = 1;
	}
	return best;
}

static void test_search_against_greedy(void **state)
{
	(void)state;
	for (int m = 0; m < 2; m++) {
		mzm_calibration *c;
		mzm_skip_judge *j;
		mzm_skip_score score;
		uint8_t skip[12];
		int32_t n_greedy, n_tried;
		mzm_calibrate_params p = search_params(1);
		assert_int_equal(mzm_calibration_create(&c, models[m], &p, NULL), MZM_OK);
		add_texts(c, models[m], 12);
		assert_int_equal(mzm_calibrate_choose(c, p.n_train + p.n_test, NULL), MZM_OK);
		assert_int_equal(mzm_skip_judge_create(&j, c, NULL), MZM_OK);
		memset(skip, 0, sizeof skip);
		assert_int_equal(mzm_skip_judge_score(j, &score, skip, false, NULL), MZM_OK);
		assert_true(score.draft == 1 && score.agrees > 0.99); /* the model itself agrees with itself */
		double greedy = remove_greedily(j, 12, &n_greedy);
		assert_int_equal(mzm_skip_judge_search(j, skip, n_greedy, &n_tried, NULL), MZM_OK);
		assert_true(n_tried <= n_greedy);
		assert_int_equal(mzm_skip_judge_score(j, &score, skip, false, NULL), MZM_OK);
		print_message("model %d: greedy %.3f in %d tries, search %.3f\n", m, greedy, (int)n_greedy, score.rate);
		assert_true(score.rate >= 0.99 * greedy && score.rate > 1.1);
		mzm_skip_judge_free(j);
		mzm_calibration_free(c);
	}
}

static int cancel_at(void *user, const char *stage, uint64_t done, uint64_t total)
{
	(void)total;
	int *n = user;
	*n += strcmp(stage, "trying layers to skip") == 0;
	return *n > 5 && done > 0;
}

static void test_cancel(void **state)
{
	mzm_calibration *c;
	mzm_err err = {0};
	int n = 0;
	mzm_calibrate_params p = search_params(1);
	(void)state;
	p.progress = cancel_at;
	p.user = &n;
	assert_int_equal(mzm_calibration_create(&c, models[0], &p, NULL), MZM_OK);
	add_texts(c, models[0], 12);
	assert_int_equal(mzm_calibration_finish(c, path, NULL, &err), MZM_ECANCELLED);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(n, 6);
	mzm_calibration_free(c);
}

static int open_all(void **state)
{
	(void)state;
	for (int m = 0; m < 2; m++) {
		models[m] = rig_open(m ? DEMO_MODEL_RELU : DEMO_MODEL, "off");
		dense_of[m] = rig_session(models[m], 1, 0);
		for (int i = 1; i < 3; i++)
			sessions[m][i] = rig_session(models[m], i, 0);
	}
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	for (int m = 0; m < 2; m++) {
		mzm_session_free(dense_of[m]);
		for (int i = 1; i < 3; i++)
			mzm_session_free(sessions[m][i]);
		mzm_model_close(models[m]);
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_exit_rule),
		cmocka_unit_test(test_exit_words),
		cmocka_unit_test(test_exit_in_drafts),
		cmocka_unit_test(test_exact_equals_dense),
		cmocka_unit_test(test_monitor_decides),
		cmocka_unit_test(test_golden_models),
		cmocka_unit_test(test_parallel_input),
		cmocka_unit_test(test_empty_model),
		cmocka_unit_test(test_work),
		cmocka_unit_test(test_no_pass),
		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_sparse_too),
		cmocka_unit_test(test_combinations),
		cmocka_unit_test(test_refusals),
		IN_DIR(test_streaming),
		cmocka_unit_test(test_optimiser),
		IN_DIR(test_side_car),
		cmocka_unit_test(test_search_against_greedy),
		IN_DIR(test_cancel),
	};
	return cmocka_run_group_tests(tests, open_all, close_all);
}
