/* test_lossless_text.c - lossless mode end to end: on a random model of eight tokens, whose texts can all be
 * enumerated, every drafter leaves the distribution of texts, of their lengths and of their ends what the model makes
 * it; and on the demo model greedy texts are dense mode's, threads do not matter, and nothing is allocated while
 * decoding. test_lossless.c has the rule itself. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "chi_square.h"
#include "counting.h"
#include "demo.h"
#include "direct.h"
#include "engine/engine.h"
#include "testing.h"
#include "tiny_model.h"

enum { V = 8, LENGTH = 4, BASE = V + 1, CELLS = BASE * BASE * BASE, EOS = 6 };
#define SURE 1e-6

static const int32_t prompt[] = {1, 5, 2, 3, 1, 5, 2, 0}; /* lookups find something in it */
enum { N_PROMPT = sizeof prompt / sizeof *prompt };

/* ---- models ---- */

static tiny_model *files, *draft_files;
static mzm_model *model, *draft_model, *demo;

static mzm_model *open_model(const char *path, const mzm_model_params *mp)
{
	mzm_model *m;
	mzm_err err = {0};
	if (mzm_model_open(&m, path, mp, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return m;
}

static mzm_session *session_of(const mzm_model *m, int n_ctx, int n_threads)
{
	mzm_session *s;
	mzm_session_params sp = {.n_ctx = n_ctx, .n_threads = n_threads, .kv_type = "f32"};
	assert_int_equal(mzm_session_create(&s, m, &sp, NULL), MZM_OK);
	return s;
}

static int open_models(void **state)
{
	tiny_spec spec = {.n_layers = 1, .dim = 32, .n_ffn = 48, .n_heads = 2, .n_kv_heads = 1, .head_dim = 16,
			  .n_vocab = V, .n_ctx = 64, .dtype = "F32", .eos = EOS};
	(void)state;
	files = tiny_make(&spec, 3);
	tiny_write_tokenizer(files);
	draft_files = tiny_make(&spec, 4);
	tiny_write_tokenizer(draft_files);
	model = open_model(files->dir, NULL);
	draft_model = open_model(draft_files->dir, NULL);
	demo = open_model(DEMO_MODEL, NULL);
	return 0;
}

static int close_models(void **state)
{
	(void)state;
	mzm_model_close(model);
	mzm_model_close(draft_model);
	mzm_model_close(demo);
	tiny_free(files);
	tiny_free(draft_files);
	return 0;
}

/* ---- all texts and what they are worth, from plain passes and sums in double ---- */

/* A text's cell: its tokens behind the first, which no draft has a part in. */
static int cell_of(const int32_t *ids, int n)
{
	int cell = 0;
	for (int i = 1; i < LENGTH; i++)
		cell = cell * BASE + (i < n ? ids[i] + 1 : 0);
	return cell;
}

/* Adds the texts that begin with ids[0..n), of which the last is new, to their cells. */
static void add_texts(mzm_session *s, const mzm_gen_params *p, int32_t *ids, int n, double chance, double prob[CELLS])
{
	float logits[V];
	double next[V];
	int len = mzm_session_len(s), n_new = n - N_PROMPT;
	if (n_new == p->max_tokens || (n_new > 0 && ids[n - 1] == EOS && !p->ignore_eos)) {
		prob[cell_of(ids + N_PROMPT, n_new)] += chance;
		return;
	}
	assert_int_equal(mzm_session_forward(s, logits, ids + len, n - len, 1, NULL), MZM_OK);
	direct_probabilities(V, p, logits, ids, n, next);
	for (int32_t i = 0; i < V; i++) {
		ids[n] = i;
		if (next[i] > 0)
			add_texts(s, p, ids, n + 1, chance * next[i], prob);
	}
	mzm_session_truncate(s, len);
}

static void direct_texts(const mzm_gen_params *p, double prob[CELLS])
{
	int32_t ids[N_PROMPT + LENGTH + 1];
	mzm_session *s = session_of(model, 0, 1);
	memset(prob, 0, CELLS * sizeof *prob);
	memcpy(ids, prompt, sizeof prompt);
	add_texts(s, p, ids, N_PROMPT, 1, prob);
	mzm_session_free(s);
}

/* ---- generations ---- */

static mzm_gen_params params(mzm_mode mode, const char *draft)
{
	mzm_gen_params p = mzm_gen_params_default();
	p.mode = mode;
	p.draft = draft;
	p.predictor = "random";
	p.keep = 0.3f;
	p.skip = "attn:0";
	p.draft_model = draft_model;
	p.temp = 1;
	p.period = 4;
	p.max_tokens = LENGTH;
	p.ignore_eos = true;
	return p;
}

typedef struct tally {
	int  count[CELLS];
	long n_drafted, n_kept, n_cut;
} tally;

static void expect_end(const mzm_gen_result *r, const mzm_gen_params *p)
{
	bool eos = r->tokens[r->n_tokens - 1] == EOS && !p->ignore_eos;
	assert_int_equal(r->finish, eos ? MZM_FINISH_EOS : MZM_FINISH_LENGTH);
	assert_true(eos || r->n_tokens == p->max_tokens);
	for (int i = 0; i < r->n_tokens - 1 && !p->ignore_eos; i++)
		assert_int_not_equal(r->tokens[i], EOS);
}

static void generate_texts(mzm_gen_params p, int n_ctx, int n_texts, tally *t)
{
	mzm_session *s = session_of(model, n_ctx, 1);
	memset(t, 0, sizeof *t);
	for (int i = 0; i < n_texts; i++) {
		mzm_gen_result r;
		mzm_err err = {0};
		p.seed = 1000003 * (uint64_t)i + 17;
		if (mzm_generate(s, prompt, N_PROMPT, &p, &r, &err) != MZM_OK)
			fail_msg("%s", err.message);
		expect_end(&r, &p);
		if (r.n_drafters > 0)
			assert_int_equal(r.n_tokens, 1 + r.n_accepted + r.n_corrected + r.n_bonus);
		t->count[cell_of(r.tokens, r.n_tokens)]++;
		for (int d = 0; d < r.n_drafters; d++) {
			t->n_drafted += r.drafts[d].n_drafted;
			t->n_kept += r.drafts[d].n_accepted;
		}
		t->n_cut += r.n_cut;
	}
	mzm_session_free(s);
}

static int n_texts(int normal)
{
	return getenv("MIRZAM_SHORT") ? normal / 20 : normal;
}

/* The smallest chance of the counts of texts, and of those of each token alone, which show a small bias better. */
static double chance_of(const tally *t, const double prob[CELLS])
{
	double least = chi_square_p(t->count, prob, CELLS);
	for (int unit = 1; unit < CELLS; unit *= BASE) {
		int count[BASE] = {0};
		double sum[BASE] = {0};
		for (int i = 0; i < CELLS; i++) {
			count[i / unit % BASE] += t->count[i];
			sum[i / unit % BASE] += prob[i];
		}
		least = fmin(least, chi_square_p(count, sum, BASE));
	}
	return least;
}

static long expect_distribution_in(int n_ctx, const char *name, const mzm_gen_params *p, int n)
{
	static double prob[CELLS];
	static tally t;
	direct_texts(p, prob);
	generate_texts(*p, n_ctx, n, &t);
	double chance = chance_of(&t, prob);
	print_message("%-28s p %.3g, %.1f %% of %ld stand\n", name, chance,
		      100.0 * (double)t.n_kept / (double)t.n_drafted, t.n_drafted);
	assert_true(chance > SURE);
	assert_true(t.n_drafted > 0 && t.n_kept > 0 && t.n_kept < t.n_drafted);
	return t.n_cut;
}

static void expect_distribution(const char *name, const mzm_gen_params *p, int n)
{
	(void)expect_distribution_in(0, name, p, n);
}

static mzm_costs some_costs(void)
{
	mzm_costs c = {.sparse = 0.3f};
	for (int m = 1; m <= MZM_MAX_PERIOD; m++)
		c.check[m] = 1.0f + 0.05f * (float)m;
	return c;
}

static void test_sparse(void **state)
{
	(void)state;
	mzm_gen_params p = params(MZM_MODE_LOSSLESS, "sparse");
	expect_distribution("sparse", &p, n_texts(20000));
	p.temp = 1.4f, p.top_k = 6, p.top_p = 0.95f, p.min_p = 0.02f, p.repeat_penalty = 1.3f, p.repeat_last = 5;
	expect_distribution("sparse, all filters", &p, n_texts(10000));
	mzm_costs costs = some_costs();
	p = params(MZM_MODE_LOSSLESS, "sparse");
	p.period = 0; /* the monitor ends drafts, and learns */
	p.costs = &costs;
	p.check_below = 0.3f;
	expect_distribution("sparse, period auto", &p, n_texts(10000));
}

/* EOS inside drafts, and limits: lengths and ends are part of a text's cell. */
static void test_ends_inside_drafts(void **state)
{
	(void)state;
	mzm_gen_params p = params(MZM_MODE_LOSSLESS, "sparse");
	p.ignore_eos = false;
	p.period = 16;
	expect_distribution("sparse, EOS", &p, n_texts(10000));
	p.draft = "ngram+sparse";
	p.max_tokens = 3;
	expect_distribution("ngram+sparse, EOS", &p, n_texts(10000));
}

static void test_every_drafter(void **state)
{
	(void)state;
	static const char *const drafts[] = {"ngram", "jacobi", "skip", "model"};
	for (unsigned i = 0; i < sizeof drafts / sizeof *drafts; i++) {
		mzm_gen_params p = params(MZM_MODE_LOSSLESS, drafts[i]);
		p.repeat_penalty = i % 2 ? 1.2f : 1;
		p.top_p = i % 2 ? 1 : 0.97f;
		expect_distribution(drafts[i], &p, n_texts(10000));
	}
}

static void test_several_drafters(void **state)
{
	(void)state;
	static const char *const drafts[] = {"sparse+ngram", "model+sparse", "skip+model", "jacobi+sparse+model",
					     "auto"};
	mzm_costs costs = some_costs();
	for (unsigned i = 0; i < sizeof drafts / sizeof *drafts; i++) {
		mzm_gen_params p = params(MZM_MODE_LOSSLESS, drafts[i]);
		p.period = i % 2 ? 0 : 4;
		p.costs = &costs;
		p.top_k = i == 1 ? 5 : 0;
		expect_distribution(drafts[i], &p, n_texts(10000));
	}
}

/* Guesses that start from what sparse passes say: from the likeliest, or from tokens that another line has drawn. */
static void test_guesses_from_sparse_passes(void **state)
{
	(void)state;
	static const char *const drafts[] = {"jacobi", "sparse+jacobi", "jacobi+sparse", "ngram+sparse+jacobi+model"};
	for (unsigned i = 0; i < sizeof drafts / sizeof *drafts; i++) {
		mzm_gen_params p = params(MZM_MODE_LOSSLESS, drafts[i]);
		p.jacobi_seed = "sparse";
		p.jacobi = i % 2 ? "slide" : "block";
		p.period = 4;
		expect_distribution(drafts[i], &p, n_texts(10000));
	}
}

/* What the counts would be without a correction is seen. */
static void test_a_bias_is_seen(void **state)
{
	(void)state;
	static double prob[CELLS];
	static tally t;
	mzm_gen_params p = params(MZM_MODE_SPARSE, "sparse");
	direct_texts(&p, prob);
	generate_texts(p, 0, 2000, &t);
	assert_true(chance_of(&t, prob) < SURE);
	p.mode = MZM_MODE_DENSE; /* and dense mode is what the sums say */
	generate_texts(p, 0, 2000, &t);
	assert_true(chance_of(&t, prob) > SURE);
}

/* Drafts that are the full model's all stand. */
static void test_identical_drafts(void **state)
{
	(void)state;
	static tally t;
	mzm_gen_params p = params(MZM_MODE_LOSSLESS, "sparse");
	p.keep = 1;
	p.period = 16;
	p.max_tokens = 40;
	p.repeat_penalty = 1.1f;
	generate_texts(p, 0, 20, &t);
	assert_int_equal(t.n_kept, t.n_drafted);
	assert_true(t.n_drafted > 20 * 30);
	p.draft = "skip";
	p.skip = "none";
	p.draft_exit = 0;
	generate_texts(p, 0, 20, &t);
	assert_int_equal(t.n_kept, t.n_drafted);
	p.draft = "model";
	p.draft_model = model;
	generate_texts(p, 0, 20, &t);
	assert_int_equal(t.n_kept, t.n_drafted);
	p.draft = "model+sparse+skip"; /* in one check they all draw, and the first is right */
	p.period = 9;
	generate_texts(p, 0, 20, &t);
	assert_true(t.n_kept * 3 >= t.n_drafted);
}

/* Where a check has no room for all lines, here at the end of the context, they are cut: and not for what they say. */
static void test_no_room_in_a_check(void **state)
{
	(void)state;
	mzm_gen_params p = params(MZM_MODE_LOSSLESS, "jacobi+model+skip");
	p.draft_exit = 0;
	p.temp = 0.4f;
	assert_true(expect_distribution_in(N_PROMPT + LENGTH, "no room", &p, n_texts(30000)) > n_texts(30000) / 2);
}

/* ---- the demo model ---- */

static mzm_gen_result demo_text(mzm_session *s, int i, mzm_gen_params p, int32_t ids[256])
{
	mzm_gen_result r;
	mzm_err err = {0};
	char *text = demo_prompt(i);
	p.draft_model = demo;
	if (mzm_generate_text(s, text, &p, &r, &err) != MZM_OK)
		fail_msg("%s", err.message);
	memcpy(ids, r.tokens, (size_t)r.n_tokens * sizeof *ids);
	free(text);
	return r;
}

static mzm_gen_params demo_params(mzm_mode mode, const char *draft)
{
	mzm_gen_params p = params(mode, draft);
	p.period = 8;
	p.max_tokens = getenv("MIRZAM_SHORT") ? 12 : 40;
	p.ignore_eos = false;
	p.skip = "attn:2 mlp:3";
	return p;
}

static const char *const every_draft[] = {"sparse", "ngram", "jacobi", "skip", "model", "ngram+sparse"};
enum { N_DRAFTS = sizeof every_draft / sizeof *every_draft };

/* Greedily it is dense mode's text, and so it is in exact mode for five seeds. */
static void test_texts_of_dense_mode(void **state)
{
	(void)state;
	mzm_session *s = session_of(demo, 512, 1);
	for (int i = 0; i < 5; i++) {
		mzm_gen_params p = demo_params(MZM_MODE_DENSE, "sparse");
		int32_t greedy[256], drawn[256], got[256];
		p.temp = 0;
		int32_t n_greedy = demo_text(s, i, p, greedy).n_tokens;
		p.temp = 0.9f, p.seed = (uint64_t)i;
		int32_t n_drawn = demo_text(s, 0, p, drawn).n_tokens;
		for (int d = 0; d < N_DRAFTS; d++) {
			p = demo_params(MZM_MODE_LOSSLESS, every_draft[d]);
			p.temp = 0;
			assert_int_equal(demo_text(s, i, p, got).n_tokens, n_greedy);
			assert_memory_equal(got, greedy, (size_t)n_greedy * sizeof *got);
			p.mode = MZM_MODE_EXACT;
			p.temp = 0.9f, p.seed = (uint64_t)i;
			assert_int_equal(demo_text(s, 0, p, got).n_tokens, n_drawn);
			assert_memory_equal(got, drawn, (size_t)n_drawn * sizeof *got);
		}
	}
	mzm_session_free(s);
}

static void test_threads_do_not_matter(void **state)
{
	(void)state;
	mzm_session *one = session_of(demo, 512, 1), *two = session_of(demo, 512, 2);
	int n_other = 0;
	for (int d = 0; d < N_DRAFTS; d++) {
		int32_t a[256], b[256];
		mzm_gen_params p = demo_params(MZM_MODE_LOSSLESS, every_draft[d]);
		p.temp = 2.5f, p.seed = 40 + (uint64_t)d;
		int32_t n = demo_text(one, d, p, a).n_tokens;
		assert_int_equal(demo_text(two, d, p, b).n_tokens, n);
		assert_memory_equal(a, b, (size_t)n * sizeof *a);
		p.seed += 100;
		n_other += demo_text(two, d, p, b).n_tokens != n || memcmp(a, b, (size_t)n * sizeof *a) != 0;
	}
	assert_true(n_other > 0); /* the seed matters */
	mzm_session_free(one);
	mzm_session_free(two);
}

static long at_first, at_last;

static int note_allocations(void *user, const mzm_token_event *e)
{
	(void)user;
	at_first = e->kind == MZM_TOKEN_FIRST ? atomic_load(&n_allocations) : at_first;
	at_last = atomic_load(&n_allocations);
	return 0;
}

static void test_no_allocation_while_decoding(void **state)
{
	(void)state;
#ifdef NO_COUNTING
	print_message("a sanitizer owns malloc: not counted in this build\n");
	skip();
#endif
	mzm_session *s = session_of(demo, 512, 1);
	for (int d = 0; d < N_DRAFTS; d++) {
		int32_t ids[256];
		mzm_gen_params p = demo_params(MZM_MODE_LOSSLESS, every_draft[d]);
		p.on_token = note_allocations;
		demo_text(s, d, p, ids);
		assert_true(at_first > 0);
		assert_int_equal(at_last, at_first);
	}
	mzm_session_free(s);
}

/* ---- budgets and what is refused ---- */

/* Under a budget the distributions are planned for, or refused; what they took is given back. */
static void test_budget(void **state)
{
	(void)state;
	mzm_gen_params p = params(MZM_MODE_LOSSLESS, "sparse"), exact = p;
	mzm_session_params sp = {.n_ctx = 256, .n_threads = 1};
	mzm_gen_result r;
	exact.mode = MZM_MODE_EXACT;
	for (int told = 0; told < 2; told++) {
		mzm_model_params mp = mzm_model_params_default();
		mp.ram_bytes = (uint64_t)1 << 30;
		mp.session = &sp;
		mp.drafts = told ? &p : &exact;
		mzm_model *m = open_model(DEMO_MODEL, &mp);
		mzm_session *s;
		assert_int_equal(mzm_session_create(&s, m, &sp, NULL), MZM_OK);
		for (int i = 0; i < 3; i++) {
			mzm_err err = {0};
			mzm_status st = mzm_generate(s, prompt, N_PROMPT, &p, &r, &err);
			assert_int_equal(st, told ? MZM_OK : MZM_ENOMEM);
			assert_true(told || strstr(err.message, "lossless sampling needs"));
			assert_int_equal(mzm_generate(s, prompt, N_PROMPT, &exact, &r, NULL), MZM_OK);
		}
		mzm_session_free(s);
		assert_int_equal(m->ledger->spent, 0);
		mzm_model_close(m);
	}
}

/* Memory that is not there fails the generation and leaves nothing behind. */
static void test_out_of_memory(void **state)
{
	(void)state;
	mzm_session *s = session_of(model, 0, 1);
	mzm_gen_params p = params(MZM_MODE_LOSSLESS, "model+ngram");
	mzm_gen_result r;
	assert_int_equal(mzm_generate(s, prompt, N_PROMPT, &p, &r, NULL), MZM_OK);
	size_t live = mzm_mem_live();
	mzm_status st = MZM_ENOMEM;
	for (long k = 1; st != MZM_OK; k++) {
		mzm_err err = {0};
		mzm_mem_fail_nth(k);
		st = mzm_generate(s, prompt, N_PROMPT, &p, &r, &err);
		mzm_mem_fail_nth(0);
		assert_true(st == MZM_OK || (st == MZM_ENOMEM && err.message[0]));
		assert_int_equal(mzm_mem_live(), live);
		assert_true(k < 200);
	}
	mzm_session_free(s);
}

static void test_refused(void **state)
{
	(void)state;
	mzm_err err = {0};
	mzm_gen_params p = params(MZM_MODE_LOSSLESS, "sparse");
	mzm_mode mode;
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_OK);
	p.ablate = MZM_ABLATE_BONUS;
	assert_int_equal(mzm_gen_params_check(&p, &err), MZM_EUNDEFINED);
	assert_non_null(strstr(err.message, "lossless mode leaves no part"));
	p.ablate = 0;
	p.tree_width = 3;
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_EUNDEFINED);
	p.temp = 0;
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_OK);
	assert_int_equal(mzm_mode_parse(&mode, "lossless", NULL), MZM_OK);
	assert_int_equal(mode, MZM_MODE_LOSSLESS);
	assert_string_equal(mzm_mode_name(MZM_MODE_LOSSLESS), "lossless");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused), cmocka_unit_test(test_sparse),
		cmocka_unit_test(test_ends_inside_drafts),
		cmocka_unit_test(test_every_drafter), cmocka_unit_test(test_several_drafters),
		cmocka_unit_test(test_guesses_from_sparse_passes),
		cmocka_unit_test(test_a_bias_is_seen), cmocka_unit_test(test_identical_drafts),
		cmocka_unit_test(test_no_room_in_a_check), cmocka_unit_test(test_texts_of_dense_mode),
		cmocka_unit_test(test_threads_do_not_matter), cmocka_unit_test(test_no_allocation_while_decoding),
		cmocka_unit_test(test_budget), cmocka_unit_test(test_out_of_memory),
	};
	return cmocka_run_group_tests(tests, open_models, close_models);
}
