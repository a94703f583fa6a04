/* test_programs.c - random programs over one session: texts by any drafters, trees and modes that check, cut anywhere,
 * gone on with or begun anew. Whatever was drafted and dropped before, a text is what a fresh session writes (in exact
 * mode one that runs dense), and then the session has the bits of that one; so have the rows of a draft model. With
 * softmax and with linear attention, in the model and in the draft model. No oneDNN: with it, rows depend on chunks.
 *
 * MIRZAM_LONG=1 runs many programs; MIRZAM_SHORT=1, for sanitizers, few. */
#include "demo.h"
#include "dijiang_rig.h"
#include "state_rig.h"

#include "base/rng.h"

enum { MAX_IDS = 512, STEPS = 10 };

/* Models that have the same tokens. */
typedef struct world {
	const char *model, *draft;
	const char *changes;  /* to the configuration of those with DiJiang attention; NULL: none */
	const char *skips[2];
	int32_t n_ctx, n_vocab;
	int     n_programs, n_long; /* without and with MIRZAM_LONG */
} world;

static const world worlds[] = {
	{DEMO_MODEL, DEMO_MODEL_DRAFT, NULL, {"attn:4-5 mlp:1-4", "mlp:2"}, 256, 2000, 6, 100},
	{"dijiang-groups", "relu-llama", DJ_LONG, {"attn:1", "attn:0 mlp:1"}, 400, DJ_VOCAB, 6, 300},
	{"llama3", "dijiang", NULL, {"attn:1 mlp:0,2", "mlp:1"}, 120, DJ_VOCAB, 6, 300},
	{"dijiang-paper", "dijiang-groups", DJ_LONG, {"mlp:0-1", "attn:0"}, 300, DJ_VOCAB, 3, 200},
};
enum { N_WORLDS = sizeof worlds / sizeof *worlds };

static const char *const lists[] = {"sparse", "skip", "model", "jacobi", "sparse+ngram", "jacobi+ngram", "skip+model",
				    "model+ngram", "sparse+jacobi+ngram", "sparse+skip+model+ngram+jacobi", "auto"};
enum { N_LISTS = sizeof lists / sizeof *lists };

/* What has been tried, over all programs of a world. */
typedef struct tally {
	int n_exact, n_lossless, n_trees, n_kept_rows, n_own;
	int64_t n_rolled_back;
} tally;

typedef struct program {
	const world *w;
	mzm_model   *model, *draft;
	mzm_session *used;
	uint64_t     seed;
	int32_t      ids[MAX_IDS]; /* the prompt of the step, then the text so far */
	int32_t      n;
	tally       *tally;
} program;

/* One of n things. */
static uint32_t pick(program *p, uint32_t n)
{
	return (uint32_t)(testing_random(&p->seed) % n);
}

static mzm_session *new_session(const mzm_model *m, int32_t n_ctx)
{
	mzm_session *s;
	mzm_err err = {0};
	mzm_session_params sp = {.n_threads = 1, .n_ctx = n_ctx};
	if (mzm_session_create(&s, m, &sp, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return s;
}

/* ---- a step ---- */

/* Another prompt, the text so far, or a part of it in a session that may have been cut, too. */
static void choose_prompt(program *p)
{
	uint32_t what = pick(p, 5);
	if (p->n == 0 || p->n > p->w->n_ctx * 3 / 5 || what == 0) {
		p->n = 5 + (int32_t)pick(p, 40);
		for (int32_t i = 0; i < p->n; i++)
			p->ids[i] = (int32_t)pick(p, (uint32_t)p->w->n_vocab);
	} else if (what == 1) {
		p->n = 1 + (int32_t)pick(p, (uint32_t)p->n);
		mzm_session_truncate(p->used, (int32_t)pick(p, (uint32_t)p->n + 1));
	}
}

static void choose_draft(program *p, mzm_gen_params *g)
{
	static const char *const predictors[] = {"topk", "griffin", "wina", "countdown"};
	static const int periods[] = {0, 3, 16, 32};
	g->draft = lists[pick(p, N_LISTS)];
	g->period = periods[pick(p, 4)];
	g->predictor = predictors[pick(p, 4)];
	g->keep = pick(p, 2) ? 0.5f : 0.1f;
	g->skip = p->w->skips[pick(p, 2)];
	g->skip_keep = pick(p, 3) ? 1 : g->keep;
	g->draft_exit = pick(p, 2) ? 0 : -1;
	g->draft_model = p->draft;
	g->jacobi = mzm_jacobi_name((int)pick(p, 2));
	g->jacobi_seed = mzm_jacobi_seed_name((int)pick(p, 3));
	g->fresh_monitor = pick(p, 2);
}

static mzm_gen_params choose_params(program *p, const mzm_costs *costs)
{
	mzm_gen_params g = mzm_gen_params_default();
	choose_draft(p, &g);
	g.costs = costs;
	g.mode = MZM_MODE_EXACT;
	g.keep_prefix = pick(p, 3) > 0;
	g.max_tokens = 1 + (int32_t)pick(p, 40);
	g.temp = pick(p, 3) ? 0 : 1;
	g.repeat_penalty = pick(p, 5) ? 1 : 1.2f;
	g.seed = testing_random(&p->seed);
	g.ignore_eos = true;
	if (pick(p, 4) == 0) {
		g.draft = "sparse";
		g.temp = 0;
		g.tree_width = 2 + (int32_t)pick(p, 5);
		g.tree_path = (mzm_tree_path)pick(p, 3);
	} else if (pick(p, 3) == 0) { /* drafts decide what is drawn: nothing of before may be in them */
		g.mode = MZM_MODE_LOSSLESS;
		g.temp = 1;
		g.predictor = "topk";
		g.fresh_monitor = true;
	}
	return g;
}

/* The draft model's rows are those of its tokens, read anew. */
static void expect_own_rows(program *p)
{
	mzm_kv *own = p->used->own ? mzm_state_kv(p->used->own) : NULL;
	if (!own || own->len == 0)
		return;
	mzm_session *fresh = new_session(p->draft, own->max_tok);
	assert_int_equal(mzm_session_forward(fresh, NULL, p->used->own_ids, own->len, 0, NULL), MZM_OK);
	rig_same_kv(own, mzm_state_kv(fresh->state));
	mzm_session_free(fresh);
	p->tally->n_own++;
}

static void step(program *p)
{
	mzm_costs costs = {.sparse = 0.4f};
	mzm_gen_result got, want;
	mzm_err err = {0};
	for (int m = 1; m <= MZM_MAX_PERIOD; m++)
		costs.check[m] = 1.0f + 0.01f * (float)(m - 1);
	choose_prompt(p);
	mzm_gen_params g = choose_params(p, &costs), plain = g;
	if (g.mode == MZM_MODE_EXACT)
		plain.mode = MZM_MODE_DENSE;
	mzm_session *fresh = new_session(p->model, p->w->n_ctx);
	if (mzm_generate(fresh, p->ids, p->n, &plain, &want, &err) != MZM_OK ||
	    mzm_generate(p->used, p->ids, p->n, &g, &got, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(got.n_tokens, want.n_tokens);
	assert_memory_equal(got.tokens, want.tokens, sizeof *got.tokens * (size_t)got.n_tokens);
	assert_true(p->n + got.n_tokens <= MAX_IDS);
	memcpy(p->ids + p->n, got.tokens, sizeof *got.tokens * (size_t)got.n_tokens);
	p->n += got.n_tokens;
	rig_same_state(p->used, fresh, p->ids[p->n - 1]);
	expect_own_rows(p);
	mzm_session_free(fresh);
	p->tally->n_exact += g.mode == MZM_MODE_EXACT && g.tree_width == 1;
	p->tally->n_lossless += g.mode == MZM_MODE_LOSSLESS;
	p->tally->n_trees += g.tree_width > 1;
	p->tally->n_kept_rows += got.n_kept > 0;
	p->tally->n_rolled_back += got.n_rolled_back;
}

/* ---- worlds ---- */

static mzm_model *open_model(const char *path)
{
	mzm_model *m;
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	mp.no_onednn = true;
	mp.calib = "off";
	if (mzm_model_open(&m, path, &mp, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return m;
}

static mzm_model *open_golden(const char *name, const char *changes)
{
	char path[64];
	if (strncmp(name, "dijiang", 7) == 0 && changes) {
		dj_dir d = dj_copy(name, changes);
		mzm_model *m = open_model(d.path);
		testing_remove(d.path);
		return m;
	}
	snprintf(path, sizeof path, "tests/golden/%s", name);
	return open_model(strchr(name, '/') ? name : path);
}

static void run_world(const world *w, int number)
{
	tally all = {0};
	int n = getenv("MIRZAM_SHORT") ? 1 : (int)testing_count(w->n_programs, w->n_long);
	program p = {.w = w, .model = open_golden(w->model, w->changes), .draft = open_golden(w->draft, w->changes),
		     .tally = &all};
	for (int k = 0; k < n; k++) {
		p.seed = mzm_rng_u64(5, (uint64_t)number, (uint64_t)k);
		p.n = 0;
		p.used = new_session(p.model, w->n_ctx);
		for (int i = 0; i < STEPS; i++)
			step(&p);
		mzm_session_free(p.used);
	}
	mzm_model_close(p.model);
	mzm_model_close(p.draft);
	print_message("%s with %s: %d texts exact, %d lossless, %d by trees; rows kept for %d; a draft "
		      "model's compared %d times; %lld tokens rolled back\n",
		      w->model, w->draft, all.n_exact, all.n_lossless, all.n_trees, all.n_kept_rows, all.n_own,
		      (long long)all.n_rolled_back);
	assert_true(all.n_exact > 0 && all.n_lossless > 0 && all.n_rolled_back > 0); /* or little is tested here */
	if (!getenv("MIRZAM_SHORT"))
		assert_true(all.n_trees > 0 && all.n_kept_rows > 0 && all.n_own > 0);
}

static void test_random_programs(void **state)
{
	(void)state;
	for (int i = 0; i < N_WORLDS; i++)
		run_world(&worlds[i], i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_programs)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
