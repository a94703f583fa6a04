/* test_tree_pass.c - passes over trees of tokens: every row of logits and of keys and values has the bits of a pass
 * over that line alone, dense and sparse, for random trees, every kernel table, type of keys and values, and number of
 * threads, on models with windows, capped scores, learned positions and parallel blocks; lines of equal scores; and the
 * parts that are pure: pruning, and gathering rows. */
#include "testing.h"

#include "decode/draft_tree.h"
#include "demo.h"
#include "engine/engine.h"
#include "tiny_model.h"

enum { MAX_NODES = MZM_MAX_POS, MAX_TEXT = 300 };

typedef struct rig {
	mzm_model   *model;
	mzm_session *tree, *line; /* of different numbers of threads */
	int32_t      n_vocab;
} rig;

typedef struct how {
	const char *path, *isa, *kv_type;
	int         n_threads;
	int32_t     n_ctx;
} how;

static rig rig_open(how h)
{
	rig r;
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	mzm_session_params sp = {.n_ctx = h.n_ctx, .n_threads = h.n_threads, .kv_type = h.kv_type};
	mp.isa = h.isa;
	mp.calib = "off";
	if (mzm_model_open(&r.model, h.path, &mp, &err) != MZM_OK ||
	    mzm_session_create(&r.tree, r.model, &sp, &err) != MZM_OK)
		fail_msg("%s: %s", h.path, err.message);
	sp.n_threads = 1;
	assert_int_equal(mzm_session_create(&r.line, r.model, &sp, NULL), MZM_OK);
	r.n_vocab = r.model->info.n_vocab;
	return r;
}

static void rig_close(rig *r)
{
	mzm_session_free(r->tree);
	mzm_session_free(r->line);
	mzm_model_close(r->model);
}

/* ---- random trees ---- */

typedef struct random_tree {
	int32_t n, id[MAX_NODES], parent[MAX_NODES], depth[MAX_NODES];
	int32_t step[MAX_NODES + 1]; /* where each depth begins; nodes come by depth */
	int32_t n_steps;
	mzm_tree shape;
} random_tree;

/* Of at most n nodes, max_step at one depth. */
static void make_tree(random_tree *t, int32_t root, int32_t n, int32_t max_step, int32_t n_vocab, uint64_t *seed)
{
	*t = (random_tree){.n = 1, .parent = {-1}, .n_steps = 1, .step = {0, 1}};
	t->id[0] = (int32_t)(testing_random(seed) % (uint64_t)n_vocab);
	while (t->n < n) {
		int32_t first = t->step[t->n_steps - 1], end = t->n;
		int32_t size = 1 + (int32_t)(testing_random(seed) % (uint64_t)max_step);
		for (int32_t i = 0; i < size && t->n < n; i++, t->n++) {
			t->parent[t->n] = first + (int32_t)(testing_random(seed) % (uint64_t)(end - first));
			t->depth[t->n] = t->depth[first] + 1;
			t->id[t->n] = (int32_t)(testing_random(seed) % (uint64_t)n_vocab);
		}
		t->step[++t->n_steps] = t->n;
	}
	t->shape = (mzm_tree){root, t->parent, t->depth};
}

static void read_text(rig *r, int32_t len, uint64_t seed)
{
	int32_t ids[MAX_TEXT];
	for (int32_t i = 0; i < len; i++)
		ids[i] = (int32_t)(testing_random(&seed) % (uint64_t)r->n_vocab);
	mzm_session_truncate(r->tree, 0);
	mzm_session_truncate(r->line, 0);
	assert_int_equal(mzm_session_forward(r->tree, NULL, ids, len, 0, NULL), MZM_OK);
	assert_int_equal(mzm_session_forward(r->line, NULL, ids, len, 0, NULL), MZM_OK);
}

/* Nodes of the line to one, and their tokens. */
static int32_t line_of(const random_tree *t, int32_t node, int32_t *nodes, int32_t *ids)
{
	int32_t n = t->depth[node] + 1;
	for (; node >= 0; node = t->parent[node]) {
		nodes[t->depth[node]] = node;
		ids[t->depth[node]] = t->id[node];
	}
	return n;
}

static void expect_rows(mzm_kv *a, int32_t row_a, mzm_kv *b, int32_t row_b)
{
	for (int l = 0; l < a->n_layers; l++) {
		for (int h = 0; h < a->n_kv_heads; h++) {
			assert_memory_equal(mzm_kv_k(a, l, h, row_a), mzm_kv_k(b, l, h, row_b), a->row_bytes);
			assert_memory_equal(mzm_kv_v(a, l, h, row_a), mzm_kv_v(b, l, h, row_b), a->row_bytes);
		}
	}
}

static float *run_pass(mzm_session *s, const mzm_pass *pass)
{
	float *logits;
	mzm_err err = {0};
	if (mzm_forward(s->state, pass, &logits, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return logits;
}

/* The last row of logits of a line behind the text, run dense as one pass, or token by token. */
static const float *run_line(rig *r, int32_t root, const int32_t *ids, int32_t n, mzm_predictor *sparse, bool whole)
{
	float *logits = NULL;
	mzm_session_truncate(r->line, root);
	for (int32_t i = 0; i < n; i += whole ? n : 1) {
		mzm_pass pass = {.ids = ids + i, .n_pos = whole ? n : 1, .n_rows = 1, .sparse = sparse};
		logits = run_pass(r->line, &pass);
	}
	return logits;
}

/* ---- dense ---- */

static void expect_dense(rig *r, int32_t len, int32_t n, int32_t width, uint64_t seed)
{
	random_tree t;
	int32_t nodes[MAX_NODES], ids[MAX_NODES];
	size_t row_bytes = (size_t)r->n_vocab * sizeof(float);
	make_tree(&t, len, n, width, r->n_vocab, &seed);
	read_text(r, len, seed);
	mzm_pass pass = {.ids = t.id, .n_pos = t.n, .n_rows = t.n, .tree = &t.shape};
	float *rows = run_pass(r->tree, &pass);
	for (int32_t i = 0; i < t.n; i++) {
		int32_t m = line_of(&t, i, nodes, ids);
		const float *want = run_line(r, len, ids, m, NULL, testing_random(&seed) % 2);
		assert_memory_equal(rows + (size_t)i * (size_t)r->n_vocab, want, row_bytes);
		expect_rows(mzm_state_kv(r->tree->state), len + i, mzm_state_kv(r->line->state), len + m - 1);
	}
	int32_t last = (int32_t)(testing_random(&seed) % (uint64_t)t.n), slots[MAX_NODES];
	int32_t m = line_of(&t, last, nodes, ids);
	run_line(r, len, ids, m, NULL, true);
	for (int32_t i = 0; i < m; i++)
		slots[i] = len + nodes[i];
	mzm_kv_gather(mzm_state_kv(r->tree->state), len, slots, m);
	for (int32_t i = 0; i < len + m; i++)
		expect_rows(mzm_state_kv(r->tree->state), i, mzm_state_kv(r->line->state), i);
}

static const char *const kv_types[] = {"f32", "f16", "bf16"};

/* Texts that end around the multiples of 64 at which walks over tokens begin, of models with windows shorter and longer
 * than the tree is deep. */
static void test_dense(void **state)
{
	static const char *const models[] = {
		DEMO_MODEL, DEMO_MODEL_RELU, "tests/golden/gemma2", "tests/golden/gemma2-scale", "tests/golden/gemma3",
		"tests/golden/mistral", "tests/golden/qwen2-window", "tests/golden/phi3-window", "tests/golden/opt",
		"tests/golden/gptneox", "tests/golden/stablelm-parallel", "tests/golden/llama3"};
	(void)state;
	for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
		static const int32_t lens[] = {1, 5, 30, 31, 33, 60};
		for (int i = 0; i < 3; i++) {
			uint64_t seed = 100 * m + (uint64_t)i;
			rig r = rig_open((how){models[m], NULL, kv_types[(m + (size_t)i) % 3], 1 + i, 96});
			for (int k = 0; k < 2; k++) {
				int32_t n = i == 0 ? MAX_NODES : 4 + (int32_t)(testing_random(&seed) % 20);
				expect_dense(&r, lens[2 * i + k], n, k ? 10 : 2, seed);
			}
			rig_close(&r);
		}
	}
}

static void test_dense_kernels(void **state)
{
	(void)state;
	for (int i = 0; mzm_isa_name(i); i++) {
		for (int k = 0; k < 3; k++) {
			static const int32_t lens[] = {64, 127, 200};
			bool windows = (i + k) % 2;
			rig r = rig_open((how){windows ? "tests/golden/mistral" : DEMO_MODEL, mzm_isa_name(i),
					       kv_types[k], 2, windows ? 96 : 300});
			expect_dense(&r, windows ? 64 - 10 * k : lens[k], 24 + k, 5, (uint64_t)(10 * i + k));
			rig_close(&r);
		}
	}
}

/* ---- sparse ---- */

static mzm_predictor *predictor_of(rig *r, const char *name, float keep)
{
	mzm_predictor *p;
	mzm_pred_env env = mzm_model_pred_env(r->model, keep, 1, (mzm_drafting){0});
	assert_int_equal(mzm_predictor_find(name)->create(&p, &env, NULL), MZM_OK);
	return p;
}

/* Depth by depth, as a draft grows. twins: all nodes of a depth have the same line of tokens. */
static void expect_sparse(rig *r, const char *name, float keep, int32_t width, bool twins, uint64_t seed)
{
	random_tree t;
	int32_t nodes[MAX_NODES], ids[MAX_NODES], len = 20 + (int32_t)(seed % 7);
	make_tree(&t, len, MAX_NODES, width, r->n_vocab, &seed);
	read_text(r, len, seed);
	mzm_predictor *p = predictor_of(r, name, keep);
	for (int32_t i = 0; i < t.n && twins; i++)
		t.id[i] = t.id[t.step[t.depth[i]]];
	if (p->observes) {
		mzm_pass pass = {.ids = t.id, .n_pos = 3, .observer = p};
		p->ops->reset(p);
		run_pass(r->line, &pass);
		p->ops->settle(p);
	}
	for (int32_t d = 0; d < t.n_steps; d++) {
		int32_t n = t.step[d + 1] - t.step[d];
		mzm_pass pass = {.ids = t.id + t.step[d], .n_pos = n, .n_rows = n, .sparse = p, .tree = &t.shape};
		float *rows = run_pass(r->tree, &pass);
		for (int32_t i = 0; i < n; i++) {
			int32_t m = line_of(&t, t.step[d] + i, nodes, ids);
			const float *want = run_line(r, len, ids, m, keep < 1 ? p : NULL, false);
			assert_memory_equal(rows + (size_t)i * (size_t)r->n_vocab, want,
					    (size_t)r->n_vocab * sizeof(float));
		}
	}
	p->ops->free(p);
}

static void test_sparse(void **state)
{
	static const char *const models[] = {DEMO_MODEL, DEMO_MODEL_RELU, "tests/golden/gemma2", "tests/golden/opt"};
	static const char *const names[] = {"griffin", "topk", "wina", "countdown", "oracle", "random"};
	(void)state;
	for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
		for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
			uint64_t seed = 31 * m + i;
			rig r = rig_open((how){models[m], NULL, kv_types[i % 3], 1 + (int)(i + m) % 3, 96});
			expect_sparse(&r, names[i], 1, MZM_MAX_TREE_WIDTH, false, seed); /* all neurons: dense */
			if (strcmp(names[i], "griffin") == 0) /* one set, whatever the tokens are */
				expect_sparse(&r, names[i], 0.4f, MZM_MAX_TREE_WIDTH, false, seed);
			else
				expect_sparse(&r, names[i], 0.4f, 4, true, seed);
			rig_close(&r);
		}
	}
}

/* Neurons that several positions share: the best by the mean, as many as of one. */
static void test_shared_neurons(void **state)
{
	(void)state;
	rig r = rig_open((how){DEMO_MODEL, NULL, NULL, 2, 96});
	uint64_t seed = 5;
	random_tree t;
	make_tree(&t, 10, 11, 10, r.n_vocab, &seed);
	read_text(&r, 10, seed);
	mzm_predictor *p = predictor_of(&r, "topk", 0.25f);
	double one, ten;
	for (int i = 0; i < 2; i++) {
		int32_t first = t.step[i], n = t.step[i + 1] - first;
		mzm_pass pass = {.ids = t.id + first, .n_pos = n, .n_rows = n, .sparse = p, .tree = &t.shape};
		assert_int_equal(mzm_forward(r.tree->state, &pass, NULL, i ? &ten : &one, NULL), MZM_OK);
	}
	assert_true(one == ten);
	p->ops->free(p);
	rig_close(&r);
}

/* ---- growing ---- */

static bool never(void *ctx, const int32_t *ids, int32_t n)
{
	(void)ctx, (void)ids, (void)n;
	return false;
}

/* Where all tokens are equally likely: the lower id first, and the line that came first. */
static void test_ties(void **state)
{
	static mzm_draft_tree t;
	static const tiny_spec spec = {.n_layers = 1, .dim = 32, .n_ffn = 48, .n_heads = 2, .n_kv_heads = 1,
				       .head_dim = 16, .n_vocab = 40, .n_ctx = 64, .dtype = "F32", .eos = -1,
				       .scale = 1e-45f}; /* all matrices are zeros */
	static const int32_t prompt[] = {3, 1, 4};
	(void)state;
	tiny_model *tiny = tiny_make(&spec, 1);
	mzm_model *m;
	mzm_session *s;
	mzm_gen_result r;
	int32_t ids[64] = {0};
	assert_int_equal(mzm_model_open(&m, tiny->dir, NULL, NULL), MZM_OK);
	assert_int_equal(mzm_session_create(&s, m, NULL, NULL), MZM_OK);
	mzm_gen_params p = mzm_gen_params_default();
	p.mode = MZM_MODE_EXACT;
	p.max_tokens = 1;
	assert_int_equal(mzm_generate(s, prompt, 3, &p, &r, NULL), MZM_OK);
	mzm_draft_job job = {.state = s->state, .sampler = s->sampler, .predictor = s->predictor,
			     .monitor = &s->monitor, .ids = ids, .n = 4, .max = 3,
			     .n_vocab = spec.n_vocab, .width = 4, .line_stops = never};
	assert_int_equal(mzm_draft_tree_grow(&t, &job, NULL), MZM_OK);
	for (int k = 0; k < 4; k++) {
		int32_t got[3];
		mzm_draft_tree_tokens(&t, t.leaf[k], got);
		assert_true(got[0] == 0 && got[1] == 0 && got[2] == k);
	}
	mzm_session_free(s);
	mzm_model_close(m);
	tiny_free(tiny);
}

/* ---- pruning ---- */

static void random_draft(mzm_draft_tree *d, random_tree *t, uint64_t *seed)
{
	int32_t n = 1 + (int32_t)(testing_random(seed) % MAX_NODES);
	make_tree(t, 0, n, 6, 1000, seed);
	*d = (mzm_draft_tree){.n = t->n};
	for (int32_t i = 0; i < t->n; i++) {
		d->id[i] = t->id[i];
		d->parent[i] = t->parent[i];
		d->depth[i] = t->depth[i];
		d->score[i] = -i;
		d->confidence[i] = (float)i;
	}
	d->n_leaves = 1 + (int32_t)(testing_random(seed) % MZM_MAX_TREE_WIDTH);
	for (int32_t i = 0; i < d->n_leaves; i++)
		d->leaf[i] = (int32_t)(testing_random(seed) % (uint64_t)t->n);
}

static bool is_above(const random_tree *t, int32_t node, int32_t below)
{
	while (t->depth[below] > t->depth[node])
		below = t->parent[below];
	return below == node;
}

/* Nodes above a leaf stay and no others; confidence tells which they were. */
static void test_prune(void **state)
{
	static mzm_draft_tree d;
	random_tree t;
	uint64_t seed = 1;
	(void)state;
	for (int round = 0; round < testing_count(2000, 50000); round++) {
		random_draft(&d, &t, &seed);
		int32_t leaf[MZM_MAX_TREE_WIDTH], n_live = 0, n_leaves = d.n_leaves;
		bool live[MAX_NODES] = {false};
		memcpy(leaf, d.leaf, sizeof leaf);
		for (int32_t i = 0; i < t.n; i++) {
			for (int32_t k = 0; k < n_leaves; k++)
				live[i] = live[i] || is_above(&t, i, leaf[k]);
			n_live += live[i];
		}
		assert_int_equal(mzm_draft_tree_prune(&d, MAX_NODES), 0);
		assert_int_equal(d.n, n_live);
		assert_int_equal(d.parent[0], -1);
		for (int32_t i = 0; i < d.n; i++) {
			int32_t was = (int32_t)d.confidence[i];
			assert_true(live[was] && d.id[i] == t.id[was] && d.depth[i] == t.depth[was]);
			assert_true(d.score[i] == -was);
			if (i > 0)
				assert_true(d.parent[i] < i && (int32_t)d.confidence[d.parent[i]] == t.parent[was]);
		}
		for (int32_t k = 0; k < n_leaves; k++)
			assert_int_equal((int32_t)d.confidence[d.leaf[k]], leaf[k]);
	}
}

/* Too many: the best line stays whole, a worse one loses its end, and what is lost is counted. */
static void test_prune_cuts(void **state)
{
	static mzm_draft_tree d, before;
	random_tree t;
	uint64_t seed = 2;
	(void)state;
	for (int round = 0; round < testing_count(2000, 50000); round++) {
		random_draft(&d, &t, &seed);
		before = d;
		int32_t most = t.depth[d.leaf[0]] + 1 + (int32_t)(testing_random(&seed) % 8);
		int32_t n_cut = mzm_draft_tree_prune(&d, most), path[MZM_MAX_PERIOD];
		int32_t n_whole = mzm_draft_tree_prune(&before, MAX_NODES) + before.n;
		assert_true(d.n <= most);
		assert_int_equal(d.n + n_cut, n_whole);
		assert_true(n_cut == 0 || d.n == most);
		assert_int_equal(d.depth[d.leaf[0]], before.depth[before.leaf[0]]);
		for (int32_t k = 0; k < d.n_leaves; k++) {
			mzm_draft_tree_path(&d, d.leaf[k], path);
			assert_int_equal(path[0], 0);
			assert_true(d.depth[d.leaf[k]] <= before.depth[before.leaf[k]]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dense),	      cmocka_unit_test(test_dense_kernels),
		cmocka_unit_test(test_sparse),	      cmocka_unit_test(test_shared_neurons),
		cmocka_unit_test(test_prune),	      cmocka_unit_test(test_prune_cuts),
		cmocka_unit_test(test_ties),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
