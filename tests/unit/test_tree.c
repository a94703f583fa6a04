/* test_tree.c - generation with trees of drafts: a tree of width 1 is the line, event by event and bit by bit; exact
 * mode equals dense at any width, on the demo models and on those of tests/golden; the lines are those of a plain beam
 * search; the three ways to choose a path; counters; stops, limits and the end of the context inside trees; no
 * allocation while decoding. Passes over trees: test_tree_pass.c; trees of calibrated predictors: test_calibrate.c. */
#include "testing.h"

#include <math.h>

#include "counting.h"
#include "decode/draft_tree.h"
#include "demo.h"
#include "state_rig.h"

/* ---- rig ---- */

enum { MAX_EVENTS = 4000, MAX_TOK = 400 };

typedef struct record {
	mzm_token_event event[MAX_EVENTS];
	int     n_events, n, stop_after;
	int32_t ids[MAX_TOK];
	long    allocations_at_first, allocations_at_last;
	char    text[8192];
	size_t  text_len;
} record;

static mzm_model *models[2];      /* SwiGLU, ReGLU */
static mzm_session *sessions[2][4]; /* by number of threads; 0: one thread, for dense answers */

static int on_token(void *user, const mzm_token_event *e)
{
	record *r = user;
	assert_true(r->n_events < MAX_EVENTS && r->n < MAX_TOK);
	r->event[r->n_events] = *e;
	r->event[r->n_events++].time_ns = 0;
	if (e->kind == MZM_TOKEN_ROLLED_BACK)
		return 0;
	if (r->n == 0)
		r->allocations_at_first = atomic_load(&n_allocations);
	r->allocations_at_last = atomic_load(&n_allocations);
	r->ids[r->n++] = e->id;
	return r->stop_after && r->n >= r->stop_after;
}

static int on_text(void *user, const char *bytes, size_t n)
{
	record *r = user;
	memcpy(r->text + r->text_len, bytes, n);
	r->text_len += n;
	return 0;
}

static mzm_gen_params params(mzm_mode mode, const char *predictor, double keep, int period, int width)
{
	mzm_gen_params p = mzm_gen_params_default();
	p.mode = mode;
	p.predictor = predictor;
	p.keep = (float)keep;
	p.period = period;
	p.tree_width = width;
	p.max_tokens = 140;
	p.fresh_monitor = true;
	return p;
}

static mzm_gen_result generate(record *r, mzm_session *s, const char *prompt, mzm_gen_params p)
{
	mzm_gen_result result;
	mzm_err err = {0};
	int stop_after = r->stop_after;
	memset(r, 0, sizeof *r);
	r->stop_after = stop_after;
	p.on_token = on_token;
	p.on_text = on_text;
	p.user = r;
	if (mzm_generate_text(s, prompt, &p, &result, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(result.n_tokens, r->n);
	assert_memory_equal(result.tokens, r->ids, sizeof(int32_t) * (size_t)r->n);
	assert_true(result.n_nodes == result.n_live + result.n_dead + result.n_cut);
	assert_int_equal(mzm_session_len(s), result.n_prompt + result.n_tokens - 1);
	return result;
}

static void assert_same_text(const record *a, const record *b)
{
	assert_int_equal(a->n, b->n);
	assert_memory_equal(a->ids, b->ids, sizeof(int32_t) * (size_t)a->n);
	assert_int_equal(a->text_len, b->text_len);
	assert_memory_equal(a->text, b->text, a->text_len);
}

static mzm_costs some_costs(void)
{
	mzm_costs c = {.sparse = 0.5f};
	for (int m = 1; m <= MZM_MAX_PERIOD; m++)
		c.check[m] = 1.0f + 0.01f * (float)(m - 1);
	return c;
}

/* ---- a tree of width 1 is the line ---- */

static bool same_float(float a, float b)
{
	return a == b || (isnan(a) && isnan(b));
}

static void assert_same_events(const record *a, const record *b)
{
	assert_int_equal(a->n_events, b->n_events);
	for (int i = 0; i < a->n_events; i++) {
		const mzm_token_event *x = &a->event[i], *y = &b->event[i];
		assert_true(x->kind == y->kind && x->pos == y->pos && x->id == y->id && x->check == y->check);
		assert_int_equal(x->block, y->block);
		assert_true(same_float(x->draft_prob, y->draft_prob) && same_float(x->margin, y->margin));
		assert_true(same_float(x->entropy, y->entropy) && same_float(x->confidence, y->confidence));
		assert_true(same_float(x->full_prob, y->full_prob));
	}
}

static void assert_same_counters(const mzm_gen_result *a, const mzm_gen_result *b)
{
	assert_int_equal(a->finish, b->finish);
	assert_int_equal(a->n_checks, b->n_checks);
	assert_int_equal(a->n_gained, b->n_gained);
	assert_int_equal(a->n_checks_paper, b->n_checks_paper);
	assert_int_equal(a->n_gained_paper, b->n_gained_paper);
	assert_int_equal(a->n_accepted, b->n_accepted);
	assert_int_equal(a->n_corrected, b->n_corrected);
	assert_int_equal(a->n_bonus, b->n_bonus);
	assert_int_equal(a->n_rolled_back, b->n_rolled_back);
	assert_int_equal(a->n_sparse_passes, b->n_sparse_passes);
	assert_int_equal(a->n_dense_passes, b->n_dense_passes);
	assert_true(a->n_dense_positions == b->n_dense_positions && a->n_sparse_positions == b->n_sparse_positions);
	assert_true(a->density == b->density && a->sparse_work == b->sparse_work);
	assert_true(a->sparse_node_work == b->sparse_node_work);
}

static void test_width_one(void **state)
{
	static const char *const names[] = {"griffin", "topk", "griffin-live", "countdown"};
	static const int periods[] = {16, 5, 0, 2};
	static record line, tree;
	(void)state;
	for (int i = 0; i < testing_count(getenv("MIRZAM_SHORT") ? 4 : 12, 64); i++) {
		char *prompt = demo_prompt(i);
		mzm_session *a = sessions[i % 2][1], *b = sessions[i % 2][2 + i / 2 % 2];
		mzm_costs costs = some_costs();
		mzm_mode mode = i / 2 % 2 ? MZM_MODE_EXACT : MZM_MODE_SIRIUS;
		mzm_gen_params p = params(mode, names[i % 4], i % 3 ? 0.4 : 0.1, periods[i / 4 % 4], 1);
		p.costs = &costs;
		p.check_below = i % 5 == 4 ? 0.6f : 0;
		p.repeat_penalty = i % 7 == 6 ? 1.1f : 1;
		mzm_gen_result x = generate(&line, a, prompt, p);
		b->always_tree = true;
		mzm_gen_result y = generate(&tree, b, prompt, p);
		b->always_tree = false;
		assert_same_events(&line, &tree);
		assert_same_text(&line, &tree);
		assert_same_counters(&x, &y);
		assert_true(x.n_nodes == 0 && y.n_nodes == y.n_sparse_passes + y.n_checks && y.n_dead == 0);
		rig_same_rows(a, b);
		free(prompt);
	}
}

/* ---- exact equals dense ---- */

static void test_exact_equals_dense(void **state)
{
	static const char *const names[] = {"griffin", "topk", "wina", "griffin-live", "random"};
	static record dense, exact;
	int n_wide = 0;
	(void)state;
	for (int i = 0; i < testing_count(getenv("MIRZAM_SHORT") ? 2 : 6, 200); i++) {
		int m = i % 2;
		char *prompt = demo_prompt(100 + i);
		mzm_costs costs = some_costs();
		generate(&dense, sessions[m][0], prompt, params(MZM_MODE_DENSE, "griffin", 1, 16, 4));
		for (int k = 0; k < 4; k++) {
			static const int widths[] = {2, 3, 5, 10}, periods[] = {16, 7, 0, 32};
			mzm_session *s = sessions[m][1 + (i + k) % 3];
			mzm_gen_params p = params(MZM_MODE_EXACT, names[(i + k) % 5], k % 2 ? 0.5 : 0.2,
						  periods[(i / 2 + k) % 4], widths[(i + k) % 4]);
			p.tree_path = (mzm_tree_path)(k % 3);
			p.costs = &costs;
			mzm_gen_result r = generate(&exact, s, prompt, p);
			assert_same_text(&exact, &dense);
			assert_int_equal(r.finish, MZM_FINISH_EOS);
			rig_same_rows(s, sessions[m][0]);
			n_wide += r.n_nodes > r.n_sparse_passes + r.n_checks;
		}
		free(prompt);
	}
	assert_true(n_wide > 0);
}

/* A threshold above one half lets nothing stand but the full model's choice. */
static void test_high_threshold(void **state)
{
	static record dense, sirius;
	(void)state;
	for (int i = 0; i < 4; i++) {
		char *prompt = demo_prompt(60 + i);
		generate(&dense, sessions[i % 2][0], prompt, params(MZM_MODE_DENSE, "griffin", 1, 16, 1));
		mzm_gen_params p = params(MZM_MODE_SIRIUS, "griffin", 0.5, 12, 4);
		p.accept = MZM_ACCEPT_REFERENCE;
		p.threshold = 0.51f;
		p.tree_path = (mzm_tree_path)(i % 3);
		generate(&sirius, sessions[i % 2][2], prompt, p);
		assert_same_text(&sirius, &dense);
		free(prompt);
	}
}

/* Windows, capped scores, learned positions, other norms. */
static void test_exact_on_golden_models(void **state)
{
	static const char *const names[] = {"gemma2", "gemma3", "mistral", "qwen2-window", "phi3-window", "opt",
					    "gptneox", "stablelm"};
	static record dense, exact;
	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char path[64];
		mzm_model *model;
		mzm_session *s[2];
		mzm_gen_result r;
		int32_t prompt[20];
		mzm_session_params sp = {.n_ctx = 72, .n_threads = 1 + (int)i % 3};
		snprintf(path, sizeof path, "tests/golden/%s", names[i]);
		assert_int_equal(mzm_model_open(&model, path, NULL, NULL), MZM_OK);
		for (int k = 0; k < 2; k++)
			assert_int_equal(mzm_session_create(&s[k], model, &sp, NULL), MZM_OK);
		for (int32_t k = 0; k < 20; k++)
			prompt[k] = (k * 37 + 11) % model->info.n_vocab;
		mzm_gen_params p = params(MZM_MODE_DENSE, "topk", 0.3, 9, 1);
		p.ignore_eos = true;
		p.max_tokens = 0;
		p.on_token = on_token;
		p.user = &dense;
		memset(&dense, 0, sizeof dense);
		assert_int_equal(mzm_generate(s[0], prompt, 20, &p, &r, NULL), MZM_OK);
		p.mode = MZM_MODE_EXACT;
		p.user = &exact;
		for (p.tree_width = 2; p.tree_width <= 8; p.tree_width += 3) {
			memset(&exact, 0, sizeof exact);
			assert_int_equal(mzm_generate(s[1], prompt, 20, &p, &r, NULL), MZM_OK);
			assert_int_equal(r.finish, MZM_FINISH_CONTEXT);
			assert_int_equal(exact.n, 52);
			assert_memory_equal(exact.ids, dense.ids, 52 * sizeof(int32_t));
			rig_same_rows(s[0], s[1]);
		}
		mzm_session_free(s[0]);
		mzm_session_free(s[1]);
		mzm_model_close(model);
	}
}

static void test_threads(void **state)
{
	static record one, more;
	(void)state;
	for (int i = 0; i < testing_count(3, 6); i++) {
		char *prompt = demo_prompt(30 + i);
		mzm_gen_params p = params(MZM_MODE_SIRIUS, i / 2 % 2 ? "topk" : "griffin", 0.3, 10, 2 + i);
		p.tree_path = (mzm_tree_path)(i % 3);
		mzm_gen_result a = generate(&one, sessions[i % 2][1], prompt, p);
		for (int threads = 2; threads <= 3; threads++) {
			mzm_gen_result b = generate(&more, sessions[i % 2][threads], prompt, p);
			assert_same_events(&one, &more);
			assert_same_counters(&a, &b);
			assert_true(a.n_live == b.n_live && a.n_dead == b.n_dead && a.n_cut == b.n_cut);
			rig_same_rows(sessions[i % 2][1], sessions[i % 2][threads]);
		}
		free(prompt);
	}
}

/* ---- the lines are those of a plain beam search ---- */

enum { WIDTH = 4, DEPTH = 7 };

typedef struct beam {
	int32_t ids[DEPTH];
	double  score;
} beam;

/* log softmax(X / 0.6) behind the text and a line, each token in a sparse pass of its own. */
static void line_scores(mzm_session *s, int32_t root, int32_t last, const beam *b, int32_t depth, double *out)
{
	int32_t n_vocab = s->model->info.n_vocab;
	float *x = NULL;
	double sum = 0;
	mzm_session_truncate(s, root);
	for (int32_t d = 0; d <= depth; d++) {
		mzm_pass pass = {.ids = d ? &b->ids[d - 1] : &last, .n_pos = 1, .n_rows = 1, .sparse = s->predictor};
		assert_int_equal(mzm_forward(s->state, &pass, &x, NULL, NULL), MZM_OK);
	}
	for (int32_t i = 0; i < n_vocab; i++)
		sum += exp((double)x[i] / 0.6);
	for (int32_t i = 0; i < n_vocab; i++)
		out[i] = (double)x[i] / 0.6 - log(sum);
}

/* One step: all continuations of all lines, the best WIDTH of them in order. */
static int plain_step(mzm_session *s, int32_t root, int32_t last, beam *beams, int n, int32_t depth)
{
	int32_t n_vocab = s->model->info.n_vocab;
	double *all = malloc((size_t)n * (size_t)n_vocab * sizeof *all);
	beam next[WIDTH];
	for (int b = 0; b < n; b++) {
		double *of = all + (size_t)b * (size_t)n_vocab;
		line_scores(s, root, last, &beams[b], depth, of);
		for (int32_t i = 0; i < n_vocab; i++)
			of[i] += beams[b].score;
	}
	for (int k = 0; k < WIDTH; k++) {
		size_t best = 0;
		for (size_t i = 1; i < (size_t)n * (size_t)n_vocab; i++)
			best = all[i] > all[best] ? i : best;
		next[k] = beams[best / (size_t)n_vocab];
		next[k].ids[depth] = (int32_t)(best % (size_t)n_vocab);
		next[k].score = all[best];
		all[best] = -INFINITY;
	}
	memcpy(beams, next, sizeof next);
	free(all);
	return WIDTH;
}

static bool never(void *ctx, const int32_t *ids, int32_t n)
{
	(void)ctx, (void)ids, (void)n;
	return false;
}

static void test_beam_search(void **state)
{
	static mzm_draft_tree t;
	static record r;
	(void)state;
	for (int i = 0; i < 6; i++) {
		mzm_session *s = sessions[i % 2][1];
		char *prompt = demo_prompt(200 + i);
		mzm_gen_params p = params(MZM_MODE_EXACT, "griffin", 0.3, 16, 1);
		p.max_tokens = 6 + 5 * i;
		mzm_gen_result res = generate(&r, s, prompt, p); /* leaves the text and a predictor that has seen it */
		int32_t root = mzm_session_len(s), ids[MZM_MAX_PERIOD + 2000], n = 1;
		memcpy(ids, s->ids, (size_t)(root + 1) * sizeof *ids);
		mzm_draft_job job = {.state = s->state, .sampler = s->sampler, .predictor = s->predictor,
				     .monitor = &s->monitor, .ids = ids, .n = root + 1, .max = DEPTH,
				     .n_vocab = s->model->info.n_vocab, .width = WIDTH, .line_stops = never};
		assert_int_equal(mzm_draft_tree_grow(&t, &job, NULL), MZM_OK);
		assert_int_equal(job.n_passes, DEPTH);
		assert_int_equal(job.n_positions, 1 + (DEPTH - 1) * WIDTH);
		assert_int_equal(t.n, 1 + DEPTH * WIDTH);
		beam beams[WIDTH] = {{{0}, 0}};
		for (int32_t d = 0; d < DEPTH; d++)
			n = plain_step(s, root, res.tokens[res.n_tokens - 1], beams, n, d);
		for (int k = 0; k < WIDTH; k++) {
			int32_t got[DEPTH];
			mzm_draft_tree_tokens(&t, t.leaf[k], got);
			assert_int_equal(t.depth[t.leaf[k]], DEPTH);
			assert_memory_equal(got, beams[k].ids, sizeof got);
			assert_true(fabs(t.score[t.leaf[k]] - beams[k].score) < 1e-3);
		}
		mzm_session_truncate(s, root);
		free(prompt);
	}
}

/* ---- paths ---- */

/* What the full model says of a line, by a pass over it alone. */
typedef struct line_facts {
	int32_t ids[MZM_MAX_PERIOD], n;
	int32_t choice[MZM_MAX_PERIOD]; /* [i]: in place of ids[i]; [n]: behind the last */
	bool    stands[MZM_MAX_PERIOD];
	double  mean_log_p;
} line_facts;

static line_facts facts_of(mzm_session *s, const mzm_draft_tree *t, int32_t leaf, const mzm_gen_params *p)
{
	line_facts f = {.n = t->depth[leaf]};
	int32_t ids[MZM_MAX_PERIOD] = {t->id[0]}, root = mzm_session_len(s), n_vocab = s->model->info.n_vocab;
	float *x = malloc((size_t)n_vocab * MZM_MAX_PERIOD * sizeof *x);
	mzm_draft_tree_tokens(t, leaf, f.ids);
	memcpy(ids + 1, f.ids, (size_t)f.n * sizeof *ids);
	assert_int_equal(mzm_session_forward(s, x, ids, f.n + 1, f.n + 1, NULL), MZM_OK);
	mzm_session_truncate(s, root);
	for (int32_t i = 0; i <= f.n; i++) {
		const float *row = x + (size_t)i * (size_t)n_vocab;
		double sum = 0;
		for (int32_t id = 0; id < n_vocab; id++) {
			f.choice[i] = row[id] > row[f.choice[i]] ? id : f.choice[i];
			sum += exp((double)row[id] / (double)p->check_temp);
		}
		if (i == f.n)
			break;
		double log_p = (double)row[f.ids[i]] / (double)p->check_temp - log(sum);
		f.mean_log_p += log_p / f.n;
		f.stands[i] = exp(log_p) >= (double)p->threshold || f.ids[i] == f.choice[i];
	}
	free(x);
	return f;
}

static int32_t n_standing(const line_facts *f)
{
	int32_t n = 0;
	while (n < f->n && f->stands[n])
		n++;
	return n;
}

/* A line whose first n tokens are those; -1: none. The best comes first. */
static int line_with(const line_facts *f, int n_lines, const int32_t *ids, int32_t n)
{
	for (int i = 0; i < n_lines; i++) {
		if (f[i].n >= n && memcmp(f[i].ids, ids, (size_t)n * sizeof *ids) == 0)
			return i;
	}
	return -1;
}

/* The line that jump ends on, and how much of it is kept. */
static int expected_jump(const line_facts *f, int n_lines, int32_t *n_kept)
{
	int at = 0;
	for (*n_kept = 0; *n_kept < f[at].n; ++*n_kept) {
		int32_t prefix[MZM_MAX_PERIOD];
		if (f[at].stands[*n_kept])
			continue;
		memcpy(prefix, f[at].ids, (size_t)*n_kept * sizeof *prefix);
		prefix[*n_kept] = f[at].choice[*n_kept];
		int other = line_with(f, n_lines, prefix, *n_kept + 1);
		if (other < 0)
			break;
		at = other;
	}
	return at;
}

static int expected_line(const mzm_draft_tree *t, const line_facts *f, mzm_tree_path path, int32_t *n_kept)
{
	int best = 0;
	double best_score = -INFINITY;
	if (path == MZM_TREE_JUMP)
		return expected_jump(f, t->n_leaves, n_kept);
	*n_kept = -1;
	for (int i = 0; i < t->n_leaves; i++) {
		int32_t n = n_standing(&f[i]), nodes[MZM_MAX_PERIOD];
		mzm_draft_tree_path(t, t->leaf[i], nodes);
		double score = path == MZM_TREE_LIKELIEST ? f[i].mean_log_p : t->score[nodes[n]];
		bool better = path == MZM_TREE_LIKELIEST ? score > best_score
							  : n > *n_kept || (n == *n_kept && score > best_score);
		if (!better)
			continue;
		best = i;
		best_score = score;
		*n_kept = n;
	}
	return best;
}

/* The first check of an answer: its tree grown here once more, its lines judged one by one. */
static int first_check(int problem, mzm_tree_path path)
{
	static mzm_draft_tree t;
	static record r;
	line_facts facts[MZM_MAX_TREE_WIDTH];
	int32_t ids[2000], n_kept, n = 0, n_accepted = 0;
	mzm_session *s = sessions[0][1];
	char *prompt = demo_prompt(problem);
	mzm_gen_params p = params(MZM_MODE_SIRIUS, "griffin", 0.3, 12, 4);
	p.tree_path = path;
	p.threshold = problem % 2 ? 0.15f : 0; /* then all lines stand to their ends */
	p.max_tokens = 1;
	mzm_gen_result first = generate(&r, s, prompt, p);
	memcpy(ids, s->ids, (size_t)(first.n_prompt + 1) * sizeof *ids);
	mzm_draft_job job = {.state = s->state, .sampler = s->sampler, .predictor = s->predictor,
			     .monitor = &s->monitor, .ids = ids, .n = first.n_prompt + 1, .max = 11,
			     .n_vocab = s->model->info.n_vocab, .width = 4, .line_stops = never};
	assert_int_equal(mzm_draft_tree_grow(&t, &job, NULL), MZM_OK);
	mzm_draft_tree_prune(&t, MZM_MAX_POS);
	mzm_session_truncate(s, first.n_prompt);
	for (int i = 0; i < t.n_leaves; i++)
		facts[i] = facts_of(s, &t, t.leaf[i], &p);
	const line_facts *want = &facts[expected_line(&t, facts, path, &n_kept)];
	p.max_tokens = 60;
	generate(&r, s, prompt, p);
	for (int i = 0; i < r.n_events; i++) {
		const mzm_token_event *e = &r.event[i];
		if (e->check != 1 || e->kind == MZM_TOKEN_CORRECTED || e->kind == MZM_TOKEN_BONUS)
			continue;
		assert_true(n < want->n && e->id == want->ids[n]);
		n++;
		n_accepted += e->kind == MZM_TOKEN_ACCEPTED;
	}
	assert_int_equal(n, want->n);
	assert_int_equal(n_accepted, n_kept);
	assert_int_equal(r.event[n + 1].id, want->choice[n_kept]); /* behind the first token and the draft */
	free(prompt);
	return n_kept;
}

static void test_paths(void **state)
{
	int n_differ = 0;
	(void)state;
	for (int i = 0; i < testing_count(12, 100); i++) {
		int longest = first_check(i, MZM_TREE_LONGEST), likeliest = first_check(i, MZM_TREE_LIKELIEST);
		int jump = first_check(i, MZM_TREE_JUMP);
		assert_true(longest >= likeliest && longest >= jump);
		n_differ += longest > likeliest || longest > jump;
	}
	assert_true(n_differ > 0);
}

/* ---- counters ---- */

static void test_counters(void **state)
{
	static record r;
	(void)state;
	for (int i = 0; i < 8; i++) {
		char *prompt = demo_prompt(140 + i);
		int width = 2 + i, n_kind[6] = {0};
		mzm_gen_params p = params(MZM_MODE_SIRIUS, "griffin", 0.5, 8, width);
		mzm_gen_result res = generate(&r, sessions[i % 2][1], prompt, p);
		for (int k = 0; k < r.n_events; k++)
			n_kind[r.event[k].kind]++;
		assert_int_equal(n_kind[MZM_TOKEN_ACCEPTED], res.n_accepted);
		assert_int_equal(n_kind[MZM_TOKEN_CORRECTED], res.n_corrected);
		assert_int_equal(n_kind[MZM_TOKEN_BONUS], res.n_bonus);
		assert_int_equal(n_kind[MZM_TOKEN_ROLLED_BACK], res.n_rolled_back);
		assert_int_equal(res.n_gained, res.n_tokens - 1);
		assert_int_equal(res.n_gained, res.n_accepted + res.n_corrected + res.n_bonus);
		assert_true(res.n_dense_positions == res.n_live && res.n_live <= (int64_t)res.n_checks * MZM_MAX_POS);
		assert_true(res.n_nodes <= (int64_t)res.n_checks * (7 * width + 1));
		assert_true(res.n_sparse_positions > res.n_sparse_passes);
		assert_true(res.n_sparse_positions <= (int64_t)res.n_sparse_passes * width);
		/* griffin reads the same neurons for each */
		assert_true(fabs(res.sparse_node_work - res.density * (double)res.n_sparse_positions) < 1e-9);
		free(prompt);
	}
}

/* ---- ends of a text inside a tree ---- */

static void test_limits(void **state)
{
	static record dense, exact;
	(void)state;
	char *prompt = demo_prompt(7);
	for (int n = 1; n <= 24; n += n < 4 ? 1 : 3) {
		mzm_gen_params p = params(MZM_MODE_DENSE, "griffin", 0.5, 16, 5);
		p.max_tokens = n;
		p.ignore_eos = true;
		generate(&dense, sessions[0][0], prompt, p);
		p.mode = MZM_MODE_EXACT;
		mzm_gen_result r = generate(&exact, sessions[0][2], prompt, p);
		assert_same_text(&exact, &dense);
		assert_int_equal(r.finish, MZM_FINISH_LENGTH);
		assert_int_equal(r.n_tokens, n);
	}
	free(prompt);
}

static void test_stop_strings(void **state)
{
	static record dense, exact;
	static const char *const stops[] = {" is", "=", "\n", "#### ", "each", "9"};
	int n_stopped = 0;
	(void)state;
	for (int i = 0; i < 7; i++) {
		char *prompt = demo_prompt(50 + i);
		mzm_gen_params p = params(MZM_MODE_DENSE, i % 2 ? "topk" : "griffin", 0.3, 11, 2 + i % 6);
		p.stop = &stops[i % 6];
		p.n_stop = 1;
		mzm_gen_result want = generate(&dense, sessions[0][0], prompt, p);
		p.mode = MZM_MODE_EXACT;
		mzm_gen_result got = generate(&exact, sessions[0][1 + i % 3], prompt, p);
		assert_same_text(&exact, &dense);
		assert_int_equal(got.finish, want.finish);
		n_stopped += got.finish == MZM_FINISH_STOP;
		free(prompt);
	}
	assert_true(n_stopped > 2);
}

/* Every distance from the end of the context: the tree narrows, the text is the same. */
static void test_context_end(void **state)
{
	static record dense, exact;
	int n_narrow = 0;
	(void)state;
	for (int32_t left = 1; left <= 40; left += left < 12 ? 1 : 7) {
		mzm_session *s[2];
		mzm_gen_result r;
		int32_t ids[64];
		mzm_session_params sp = {.n_ctx = 64 + left, .n_threads = 1};
		for (int i = 0; i < 64; i++)
			ids[i] = (i * 31 + left) % models[0]->info.n_vocab;
		for (int k = 0; k < 2; k++)
			assert_int_equal(mzm_session_create(&s[k], models[0], &sp, NULL), MZM_OK);
		mzm_gen_params p = params(MZM_MODE_DENSE, "griffin", 0.5, 16, 1);
		p.max_tokens = 0;
		p.ignore_eos = true;
		p.on_token = on_token;
		p.user = &dense;
		memset(&dense, 0, sizeof dense);
		assert_int_equal(mzm_generate(s[0], ids, 64, &p, &r, NULL), MZM_OK);
		p.mode = MZM_MODE_EXACT;
		p.tree_width = 10;
		p.user = &exact;
		memset(&exact, 0, sizeof exact);
		assert_int_equal(mzm_generate(s[1], ids, 64, &p, &r, NULL), MZM_OK);
		assert_int_equal(r.finish, MZM_FINISH_CONTEXT);
		assert_int_equal(exact.n, dense.n);
		assert_memory_equal(exact.ids, dense.ids, (size_t)dense.n * sizeof(int32_t));
		rig_same_rows(s[0], s[1]);
		n_narrow += r.n_checks > 0 && r.n_nodes < 10 * (int64_t)r.n_sparse_passes;
		mzm_session_free(s[0]);
		mzm_session_free(s[1]);
	}
	assert_true(n_narrow > 0);
}

static void test_cancel(void **state)
{
	static record all, part;
	(void)state;
	char *prompt = demo_prompt(9);
	mzm_gen_params p = params(MZM_MODE_SIRIUS, "griffin", 0.5, 16, 4);
	generate(&all, sessions[0][2], prompt, p);
	for (int n = 1; n < 20; n += 3) {
		part.stop_after = n;
		mzm_gen_result r = generate(&part, sessions[0][2], prompt, p);
		assert_int_equal(r.finish, MZM_FINISH_CANCELLED);
		assert_int_equal(part.n, n);
		assert_memory_equal(part.ids, all.ids, sizeof(int32_t) * (size_t)n);
	}
	free(prompt);
}

/* The next request goes on from rows that a tree left. */
static void test_keep_prefix(void **state)
{
	static record first, again, fresh;
	(void)state;
	char *prompt = demo_prompt(11);
	mzm_gen_params p = params(MZM_MODE_EXACT, "griffin", 0.5, 16, 6);
	mzm_session *s = sessions[0][1];
	mzm_gen_result a = generate(&first, s, prompt, p), b;
	int32_t n = a.n_prompt + a.n_tokens, ids[1024];
	memcpy(ids, s->ids, (size_t)n * sizeof *ids);
	p.keep_prefix = true;
	p.ignore_eos = true;
	p.max_tokens = 30;
	p.on_token = on_token;
	p.user = &again;
	memset(&again, 0, sizeof again);
	assert_int_equal(mzm_generate(s, ids, n, &p, &b, NULL), MZM_OK);
	assert_int_equal(b.n_kept, n - 1);
	p.mode = MZM_MODE_DENSE;
	p.user = &fresh;
	memset(&fresh, 0, sizeof fresh);
	generate(&first, sessions[0][0], prompt, params(MZM_MODE_DENSE, "griffin", 0.5, 16, 1));
	assert_int_equal(mzm_generate(sessions[0][0], ids, n, &p, &b, NULL), MZM_OK);
	assert_int_equal(again.n, fresh.n);
	assert_memory_equal(again.ids, fresh.ids, sizeof(int32_t) * (size_t)fresh.n);
	free(prompt);
}

static void test_no_allocation_while_decoding(void **state)
{
	static record r;
	static const char *const stops[] = {"never there"};
	(void)state;
#ifdef NO_COUNTING
	print_message("a sanitizer owns malloc: not counted in this build\n");
	skip();
#endif
	char *prompt = demo_prompt(4);
	for (int i = 0; i < 6; i++) {
		mzm_costs costs = some_costs();
		mzm_gen_params p = params(i % 2 ? MZM_MODE_EXACT : MZM_MODE_SIRIUS, i / 2 % 2 ? "topk" : "griffin-live",
					  0.5, i == 5 ? 0 : 16, 2 + i);
		p.tree_path = (mzm_tree_path)(i / 2);
		p.costs = &costs;
		p.stop = stops;
		p.n_stop = 1;
		generate(&r, sessions[0][2], prompt, p);
		assert_true(r.n > 5 && r.allocations_at_first > 0);
		assert_int_equal(r.allocations_at_last, r.allocations_at_first);
	}
	free(prompt);
}

/* ---- refusals ---- */

static void test_refusals(void **state)
{
	mzm_err err = {0};
	mzm_tree_path path;
	(void)state;
	mzm_gen_params p = params(MZM_MODE_SIRIUS, "griffin", 0.5, 16, 0);
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_EARG);
	p.tree_width = MZM_MAX_TREE_WIDTH + 1;
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_EARG);
	p.tree_width = 2;
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_OK);
	p.tree_path = (mzm_tree_path)3;
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_EARG);
	p.tree_path = MZM_TREE_JUMP;
	p.ablate = MZM_ABLATE_BONUS;
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_EUNDEFINED);
	p.ablate = 0;
	p.mode = MZM_MODE_EXACT;
	p.temp = 0.5f;
	assert_int_equal(mzm_gen_params_check(&p, &err), MZM_EUNDEFINED);
	assert_non_null(strstr(err.message, "tree"));
	p.mode = MZM_MODE_DENSE; /* has no drafts */
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_OK);
	for (int i = 0; i < 3; i++)
		assert_true(mzm_tree_path_parse(&path, mzm_tree_path_name((mzm_tree_path)i), NULL) == MZM_OK &&
			    (int)path == i);
	assert_int_equal(mzm_tree_path_parse(&path, "garden", &err), MZM_EARG);
}

static int open_all(void **state)
{
	static const char *const paths[] = {DEMO_MODEL, DEMO_MODEL_RELU};
	mzm_err err = {0};
	(void)state;
	for (int m = 0; m < 2; m++) {
		if (mzm_model_open(&models[m], paths[m], NULL, &err) != MZM_OK) {
			print_error("%s\n", err.message);
			return -1;
		}
		for (int i = 0; i < 4; i++) {
			mzm_session_params sp = {.n_threads = i ? i : 1};
			if (mzm_session_create(&sessions[m][i], models[m], &sp, &err) != MZM_OK)
				return -1;
		}
	}
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	for (int m = 0; m < 2; m++) {
		for (int i = 0; i < 4; i++)
			mzm_session_free(sessions[m][i]);
		mzm_model_close(models[m]);
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_width_one),
		cmocka_unit_test(test_exact_equals_dense),
		cmocka_unit_test(test_high_threshold),
		cmocka_unit_test(test_exact_on_golden_models),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_beam_search),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_counters),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_stop_strings),
		cmocka_unit_test(test_context_end),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_keep_prefix),
		cmocka_unit_test(test_no_allocation_while_decoding),
		cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests(tests, open_all, close_all);
}
