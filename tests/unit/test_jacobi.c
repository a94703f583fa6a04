/* test_jacobi.c - Jacobi decoding on the shipped demo model: its texts are dense mode's for every width, form, seed
 * and whatever is guessed; passes never exceed tokens; right guesses take one pass a block; and its share in
 * combinations. */
#include "counting.h"
#include "guess_rig.h"

#include <pthread.h>

#include "base/mem.h"

static const char *const forms[] = {"slide", "block"};
static const char *const seeds[] = {"prompt", "ngram", "pool", "sparse"};

enum { N_SEEDS = sizeof seeds / sizeof *seeds };

/* ---- guesses from outside ---- */

typedef enum guess_kind { ZERO, RANDOM, ORACLE, ADVERSARIAL, N_KINDS } guess_kind;

typedef struct guesser {
	guess_kind      kind;
	const rig_text *truth;
	int32_t         n_prompt;
	uint64_t        seed;
} guesser;

static int32_t guess(void *ctx, int32_t place)
{
	guesser *g = ctx;
	int32_t n_vocab = rig_model->info.n_vocab, i = place - g->n_prompt;
	int32_t right = i >= 0 && i < g->truth->n ? g->truth->ids[i] : 0;
	switch (g->kind) {
	case ORACLE:
		return right;
	case ADVERSARIAL:
		return (right + 1) % n_vocab;
	case RANDOM:
		return (int32_t)(testing_random(&g->seed) % (uint64_t)n_vocab);
	default:
		return 0;
	}
}

static void test_any_guess(void **state)
{
	static const int periods[] = {1, 2, 4, 8, 16, 32};
	rig_text dense, t;
	(void)state;
	for (int i = 0; i < (int)testing_count(2, 60); i++) {
		int32_t *ids;
		size_t n;
		rig_problem(&ids, &n, i);
		mzm_gen_params plain = rig_params(NULL, 16);
		plain.max_tokens = (int32_t)testing_count(40, i ? 40 : 0);
		rig_write_dense(&dense, ids, n, plain);
		for (int k = 0; k < 6 * N_KINDS * 2; k++) {
			mzm_session *s = rig_session[2 - k % 2];
			guesser g = {(guess_kind)(k / 2 % N_KINDS), &dense, (int32_t)n, (uint64_t)k};
			mzm_gen_params p = rig_params("jacobi", periods[k / 2 / N_KINDS]);
			p.jacobi = forms[k % 2];
			p.max_tokens = plain.max_tokens;
			s->guess = guess;
			s->guess_ctx = &g;
			rig_expect_dense(&t, &dense, 2 - k % 2, ids, n, p);
			s->guess = NULL;
			assert_true(t.result.n_checks < t.n); /* the first token is the prefill's */
			if (g.kind == ORACLE)
				assert_int_equal(t.result.n_checks, (t.n - 1 + p.period - 1) / p.period);
			if (g.kind == ADVERSARIAL && p.period == 2 && k % 2)
				assert_int_equal(t.result.n_accepted, 0); /* every guess of such a block is new */
		}
		mzm_ids_free(ids);
	}
}

/* ---- its own guesses ---- */

static void test_text_is_dense(void **state)
{
	static const int periods[] = {2, 8, 16, 0};
	rig_text dense, t;
	int n_passes = 0, n_tokens = 0;
	(void)state;
	for (int i = 0; i < (int)testing_count(2, 100); i++) {
		int32_t *ids;
		size_t n;
		rig_problem(&ids, &n, i);
		rig_write_dense(&dense, ids, n, rig_params(NULL, 16));
		for (int k = 0; k < 4 * N_SEEDS; k++) { /* each problem by half of the seeds */
			mzm_gen_params p = rig_params("jacobi", periods[k / N_SEEDS]);
			p.jacobi = forms[k % 2];
			p.jacobi_seed = seeds[(k / 2 * 2 + i) % N_SEEDS];
			rig_expect_dense(&t, &dense, 2 - k % 2, ids, n, p);
			assert_true(t.result.n_checks < t.n);
			n_passes += p.period == 16 ? t.result.n_checks : 0;
			n_tokens += p.period == 16 ? t.n - 1 : 0;
		}
		mzm_ids_free(ids);
	}
	print_message("%.3f tokens a pass at period 16\n", (double)n_tokens / n_passes);
	assert_true(n_passes < n_tokens);
}

static int write_with(mzm_session *s, const int32_t *ids, size_t n, const char *form, rig_text *t)
{
	mzm_gen_params p = rig_params(form ? "jacobi" : NULL, 16);
	p.mode = form ? MZM_MODE_EXACT : MZM_MODE_DENSE;
	p.jacobi = form;
	rig_write(t, s, ids, n, p);
	return t->result.n_checks;
}

/* A consistency model writes several tokens a pass in either form, and still its own text. */
static void test_trained_to_guess(void **state)
{
	mzm_err err = {0};
	mzm_model *own = rig_model;
	mzm_session *s;
	rig_text dense, t;
	int n_passes[2] = {0}, n_tokens = 0;
	(void)state;
	if (mzm_model_open(&rig_model, DEMO_MODEL_CLLM, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(mzm_session_create(&s, rig_model, NULL, &err), MZM_OK);
	for (int i = 0; i < (int)testing_count(4, 100); i++) {
		int32_t *ids;
		size_t n;
		rig_problem(&ids, &n, i);
		write_with(s, ids, n, NULL, &dense);
		for (int k = 0; k < 2; k++) {
			n_passes[k] += write_with(s, ids, n, forms[k], &t);
			rig_assert_same(&t, &dense);
		}
		n_tokens += dense.n - 1;
		mzm_ids_free(ids);
	}
	print_message("%.2f tokens a pass (%s), %.2f (%s)\n", (double)n_tokens / n_passes[0], forms[0],
		      (double)n_tokens / n_passes[1], forms[1]);
	assert_true(n_tokens > 2 * n_passes[0] && n_tokens > 2 * n_passes[1]);
	mzm_session_free(s);
	mzm_model_close(rig_model);
	rig_model = own;
}

/* The same guesses, and so the same passes, whatever the number of threads. */
static void test_runs_repeat(void **state)
{
	rig_text a, b;
	int32_t *ids;
	size_t n;
	(void)state;
	rig_problem(&ids, &n, 7);
	for (int k = 0; k < 2 * N_SEEDS; k++) {
		mzm_gen_params p = rig_params("jacobi", 16);
		p.jacobi = forms[k % 2];
		p.jacobi_seed = seeds[k / 2];
		rig_write(&a, rig_session[1], ids, n, p);
		rig_write(&b, rig_session[2], ids, n, p);
		rig_assert_same(&a, &b);
		assert_int_equal(a.result.n_checks, b.result.n_checks);
		assert_int_equal(a.result.n_rolled_back, b.result.n_rolled_back);
	}
	mzm_ids_free(ids);
}

static void by_jacobi(mzm_gen_params *p, int i)
{
	p->draft = "jacobi";
	p->jacobi = forms[i % 2];
	p->jacobi_seed = seeds[i / 2 % N_SEEDS];
}

static void test_sampling_and_limits(void **state)
{
	(void)state;
	rig_sampling_is_dense(24, by_jacobi);
}

/* ---- the drafter alone ---- */

typedef struct hand {
	mzm_drafter *d;
	mzm_gen_params p;
	int32_t      ids[200], n;
	mzm_evidence evidence[MZM_MAX_PERIOD];
	float        confidence[MZM_MAX_PERIOD];
	int32_t      line[MZM_MAX_PERIOD], n_line;
} hand;

static bool never(void *ctx, int32_t id)
{
	(void)ctx;
	(void)id;
	return false;
}

static void hand_begin(hand *h, const char *form, const char *seed, const char *draft)
{
	mzm_draft_env env = {.p = &h->p, .n_ctx = 200};
	memset(h, 0, sizeof *h);
	h->p = rig_params(draft, 16);
	h->p.jacobi = form;
	h->p.jacobi_seed = seed;
	for (h->n = 0; h->n < 6; h->n++)
		h->ids[h->n] = 10 + h->n;
	assert_int_equal(mzm_draft_jacobi.create(&h->d, &env, NULL), MZM_OK);
	mzm_draft_jacobi.begin(h->d, h->ids, h->n);
}

/* Proposes beside a sparse line, if there is one, and compares: -1 stands for any token of the prompt. */
static void hand_expect_with(hand *h, int32_t max, const int32_t *sparse, int32_t n_sparse, const int32_t *want,
			     int32_t n)
{
	mzm_draft_job j = {.ids = h->ids, .n = h->n, .max = max, .is_stop = never, .evidence = h->evidence,
			   .confidence = h->confidence, .sparse = sparse, .n_sparse = n_sparse};
	assert_int_equal(mzm_draft_jacobi.propose(h->d, &j, NULL), MZM_OK);
	assert_int_equal(j.n_draft, n);
	h->n_line = n;
	for (int32_t i = 0; i < n; i++) {
		h->line[i] = h->ids[h->n + i];
		if (want[i] >= 0)
			assert_int_equal(h->line[i], want[i]);
		else
			assert_in_range(h->line[i], 10, 15);
	}
}

static void hand_expect(hand *h, int32_t max, const int32_t *want, int32_t n)
{
	hand_expect_with(h, max, NULL, 0, want, n);
}

/* The check kept n_kept, and said `said` behind the others, from the first that it did not keep on. */
static void hand_learn(hand *h, int32_t n_kept, const int32_t *said)
{
	int32_t choice[MZM_MAX_PERIOD], before = h->n;
	memcpy(choice, h->line, (size_t)n_kept * sizeof *choice);
	memcpy(choice + n_kept, said, (size_t)(h->n_line + 1 - n_kept) * sizeof *choice);
	memcpy(h->ids + h->n, choice, (size_t)(n_kept + 1) * sizeof *choice);
	h->n += n_kept + 1;
	mzm_draft_news news = {.ids = h->ids, .n = h->n, .n_before = before, .draft = h->line,
			       .n_draft = h->n_line, .n_kept = n_kept, .choice = choice};
	mzm_draft_jacobi.learn(h->d, &news);
}

static const int32_t any[] = {-1, -1, -1, -1, -1, -1};

static void test_guesses_keep_their_places(void **state)
{
	static const int32_t said[] = {90, 91, 92, 93}, more[] = {81, 82, 83, 84}, right[] = {70};
	static const int32_t window[] = {91, 92, 93, -1}, later[] = {82, 83, 84, -1};
	hand h;
	(void)state;
	hand_begin(&h, "slide", "prompt", "jacobi");
	hand_expect(&h, 4, any, 4);
	hand_learn(&h, 1, said); /* one stands, 90 is text, the others are for the places behind it */
	hand_expect(&h, 4, window, 4);
	mzm_draft_news others = {.ids = h.ids, .n = h.n + 1, .n_before = h.n, .n_draft = -1};
	h.ids[h.n++] = 50;
	mzm_draft_jacobi.learn(h.d, &others); /* a round of another drafter: the places stay */
	hand_expect(&h, 2, window + 1, 2);
	hand_expect(&h, 4, (const int32_t[]){92, 93, -1, -1}, 4);
	hand_learn(&h, 1, more);
	hand_expect(&h, 4, later, 4);
	hand_expect(&h, 0, any, 0);
	mzm_draft_jacobi.free(h.d);
	hand_begin(&h, "block", "prompt", "jacobi");
	hand_expect(&h, 4, any, 4);
	hand_learn(&h, 1, said);
	hand_expect(&h, 4, window, 2); /* what is left of the block */
	hand_learn(&h, 2, right);
	hand_expect(&h, 4, any, 4); /* it has converged: a new one */
	hand_learn(&h, 3, said);
	hand_expect(&h, 4, any, 0); /* the block's last token is there, but not checked */
	hand_learn(&h, 0, right);
	hand_expect(&h, 4, any, 4);
	mzm_draft_jacobi.free(h.d);
}

static void test_pool_has_the_iteration_s_grams(void **state)
{
	/* place 6 + i; what was said behind each guess is the guess for the next place, one iteration later */
	static const int32_t first[] = {60, 21, 32, 43}, second[] = {70, 22, 33}, third[] = {71, 23};
	hand h;
	(void)state;
	hand_begin(&h, "slide", "pool", "jacobi");
	hand_expect(&h, 3, any, 3);
	int32_t head = h.line[0];
	hand_learn(&h, 0, first);
	hand_expect(&h, 2, first + 1, 2);
	hand_learn(&h, 0, second);
	hand_expect(&h, 1, second + 1, 1);
	hand_learn(&h, 0, third);
	/* the text's own 15, 60, 70, 71, and behind the first guess 21, behind that 22, behind that 23 */
	h.ids[h.n++] = 15;
	hand_expect(&h, 4, (const int32_t[]){60, 70, 71, -1}, 4);
	assert_int_not_equal(head, 15);
	h.ids[h.n++] = head;
	hand_expect(&h, 3, (const int32_t[]){21, 22, 23}, 3);
	mzm_draft_jacobi.free(h.d);
}

/* N-grams go first until the model has been right more often. */
static void test_the_better_source_goes_first(void **state)
{
	hand h;
	int n_grams = 0, n_said = 0;
	(void)state;
	hand_begin(&h, "slide", "ngram", "jacobi");
	for (int32_t i = 0; i < 20; i++) {
		h.ids[h.n] = 10 + i % 5; /* a token of the prompt: an n-gram knows what followed */
		h.n++;
		int32_t truth = 100 + i;
		mzm_draft_job j = {.ids = h.ids, .n = h.n, .max = 1, .is_stop = never, .evidence = h.evidence,
				   .confidence = h.confidence};
		assert_int_equal(mzm_draft_jacobi.propose(h.d, &j, NULL), MZM_OK);
		bool said = j.n_draft == 1 && h.ids[h.n] == truth;
		n_said += said;
		n_grams += !said;
		if (i > 10)
			assert_true(said);
		h.n_line = j.n_draft;
		h.line[0] = h.ids[h.n];
		/* the truth is text now, and two places on the model says the next */
		int32_t choice[2] = {truth, 7}, before = h.n;
		h.ids[h.n++] = truth;
		mzm_draft_news news = {.ids = h.ids, .n = h.n, .n_before = before, .draft = h.line,
				       .n_draft = h.n_line, .n_kept = said, .choice = choice};
		mzm_draft_jacobi.learn(h.d, &news);
		mzm_draft_news next = {.ids = h.ids, .n = h.n, .n_before = h.n + 1, .draft = h.line, .n_draft = 0,
				       .choice = (const int32_t[]){truth + 1}};
		h.ids[h.n + 1] = -1;
		mzm_draft_jacobi.learn(h.d, &next);
	}
	assert_true(n_grams >= 2 && n_said >= 9);
	mzm_draft_jacobi.free(h.d);
}

/* The sparse line of a check is where it starts; what the model said goes before that. */
static void test_starts_from_a_sparse_line(void **state)
{
	static const int32_t first[] = {60, 61, 62}, said[] = {91, 92, 93, 94}, second[] = {70, 71, 72, 73};
	hand h;
	(void)state;
	hand_begin(&h, "slide", "sparse", "sparse+jacobi");
	hand_expect_with(&h, 4, first, 3, first, 3); /* it has no more guesses than that line */
	hand_learn(&h, 1, said);                     /* 60 and 91 are text */
	hand_expect_with(&h, 4, second, 4, (const int32_t[]){92, 93, 72, 73}, 4);
	hand_expect_with(&h, 3, second, 4, (const int32_t[]){92, 93, 72}, 3);
	hand_expect_with(&h, 4, second, 0, (const int32_t[]){92, 93}, 2); /* the sparse draft was not worth it */
	hand_learn(&h, 0, said);
	hand_expect_with(&h, 0, second, 4, any, 0);
	mzm_draft_jacobi.free(h.d);
	hand_begin(&h, "block", "sparse", "sparse+jacobi");
	hand_expect_with(&h, 4, second, 4, second, 4);
	hand_learn(&h, 1, said);
	hand_expect_with(&h, 4, first, 3, (const int32_t[]){92, 93}, 2); /* what is left of the block */
	mzm_draft_jacobi.free(h.d);
}

/* It makes sparse passes of its own where no sparse draft stands before it in the list. */
static void test_who_runs_passes(void **state)
{
	static const struct {
		const char *draft, *seed;
		bool        passes;
	} rows[] = {
		{"jacobi", "sparse", true}, {"jacobi", "pool", false}, {"jacobi", NULL, false},
		{"sparse+jacobi", "sparse", false}, {"ngram+jacobi+sparse", "sparse", true}, {"auto", "sparse", true},
		{"ngram", "sparse", false}, {"sparse", "sparse", false}, {"sparse+ngram+jacobi", "sparse", false},
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		hand h;
		hand_begin(&h, "slide", rows[i].seed, rows[i].draft);
		assert_int_equal(mzm_jacobi_predicts(&h.p), rows[i].passes);
		assert_int_equal(h.d->ops->cost != NULL, rows[i].passes);
		mzm_draft_jacobi.free(h.d);
	}
}

/* A line costs sparse passes only where it has no guess, or where new drafts gain more: neuron by neuron the model
 * itself is right, so each round has one. */
static void test_a_draft_is_made_when_it_pays(void **state)
{
	static const float keep[] = {0.5f, 1};
	int64_t n_drafts[2] = {0}, n_rounds[2] = {0};
	(void)state;
	for (int i = 0; i < 8; i++) {
		int32_t *ids;
		size_t n;
		rig_text dense, t;
		mzm_gen_params p = rig_params("jacobi", 16);
		p.jacobi_seed = "sparse";
		p.keep = keep[i % 2];
		rig_problem(&ids, &n, 80 + i / 2);
		rig_write_dense(&dense, ids, n, rig_params(NULL, 16));
		rig_expect_dense(&t, &dense, 1, ids, n, p);
		n_drafts[i % 2] += (t.result.n_sparse_passes + 14) / 15;
		n_rounds[i % 2] += t.result.n_checks;
		assert_true(t.result.sparse_work > 0 && t.result.density > 0);
		if (keep[i % 2] == 1)
			assert_int_equal(t.result.n_checks, (t.n - 1 + 15) / 16);
		mzm_ids_free(ids);
	}
	print_message("%d drafts in %d rounds at keep .5, %d in %d at 1\n", (int)n_drafts[0], (int)n_rounds[0],
		      (int)n_drafts[1], (int)n_rounds[1]);
	assert_true(2 * n_drafts[0] < n_rounds[0]);
	assert_int_equal(n_drafts[1], n_rounds[1]);
}

/* ---- with others ---- */

static void test_combinations(void **state)
{
	static const char *const drafts[] = {"jacobi+ngram", "ngram+jacobi", "sparse+jacobi", "sparse+ngram+jacobi",
					     "auto"};
	static const int periods[] = {2, 16, 0};
	rig_text dense, t;
	(void)state;
	for (int i = 0; i < (int)testing_count(2, 60); i++) {
		int32_t *ids;
		size_t n;
		rig_problem(&ids, &n, 20 + i);
		rig_write_dense(&dense, ids, n, rig_params(NULL, 16));
		for (int k = 0; k < 5 * N_SEEDS / 2; k++) {
			mzm_gen_params p = rig_params(drafts[k % 5], periods[k % 3]);
			p.jacobi = forms[k % 2];
			p.jacobi_seed = seeds[(k / 5 * 2 + i) % N_SEEDS];
			rig_expect_dense(&t, &dense, 2, ids, n, p);
			assert_true(t.result.n_checks < t.n);
		}
		mzm_ids_free(ids);
	}
}

/* With another drafter's right line beside it, its own guesses are still those for these places. */
static void test_guesses_outlive_other_lines(void **state)
{
	rig_text dense, alone, t;
	int n_alone = 0, n_both = 0;
	int64_t n_kept = 0;
	(void)state;
	for (int i = 0; i < 6; i++) {
		int32_t *ids;
		size_t n;
		rig_problem(&ids, &n, 40 + i);
		rig_write(&dense, rig_session[1], ids, n, rig_params(NULL, 16));
		rig_write(&alone, rig_session[2], ids, n, rig_params("ngram", 16));
		rig_write(&t, rig_session[2], ids, n, rig_params("ngram+jacobi", 16));
		rig_assert_same(&dense, &t);
		n_alone += alone.result.n_checks;
		n_both += t.result.n_checks;
		n_kept += t.result.drafts[1].n_accepted;
		mzm_ids_free(ids);
	}
	print_message("%d passes by ngram, %d by both\n", n_alone, n_both);
	assert_true(n_both < n_alone && n_kept > 0);
}

/* ---- sessions at once, memory, names ---- */

typedef struct job {
	mzm_session *s;
	int32_t     *ids;
	size_t       n;
	int32_t      text[RIG_MAX_TOK];
	int32_t      n_text;
	mzm_status   st;
} job;

static void *write_one(void *arg)
{
	job *j = arg;
	mzm_gen_params p = rig_params("jacobi+ngram", 16);
	mzm_gen_result r;
	p.max_tokens = RIG_MAX_TOK;
	p.jacobi_seed = "pool";
	j->st = mzm_generate(j->s, j->ids, (int32_t)j->n, &p, &r, NULL);
	if (j->st == MZM_OK) {
		j->n_text = r.n_tokens;
		memcpy(j->text, r.tokens, (size_t)r.n_tokens * sizeof *j->text);
	}
	return NULL;
}

static void test_two_sessions_at_once(void **state)
{
	pthread_t thread[2];
	job jobs[2] = {{.s = rig_session[1]}, {.s = rig_session[2]}};
	rig_text dense;
	(void)state;
	for (int i = 0; i < 2; i++)
		rig_problem(&jobs[i].ids, &jobs[i].n, 60 + i);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, write_one, &jobs[i]), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(jobs[i].st, MZM_OK);
		rig_write(&dense, rig_session[1], jobs[i].ids, jobs[i].n, rig_params(NULL, 16));
		assert_int_equal(jobs[i].n_text, dense.n);
		assert_memory_equal(jobs[i].text, dense.ids, (size_t)dense.n * sizeof *dense.ids);
		mzm_ids_free(jobs[i].ids);
	}
}

static void test_no_allocation_while_decoding(void **state)
{
	static const char *const drafts[] = {"jacobi", "jacobi+ngram", "auto"};
	(void)state;
#ifdef NO_COUNTING
	print_message("a sanitizer owns malloc: not counted in this build\n");
	skip();
#endif
	int32_t *ids;
	size_t n;
	rig_text t;
	rig_problem(&ids, &n, 4);
	for (int k = 0; k < 3 * N_SEEDS; k++) {
		mzm_gen_params p = rig_params(drafts[k % 3], 16);
		p.jacobi_seed = seeds[k / 3];
		rig_write(&t, rig_session[2], ids, n, p);
		assert_true(t.n > 5);
		assert_int_equal(t.first_allocations, t.last_allocations);
	}
	mzm_ids_free(ids);
}

static void test_without_memory(void **state)
{
	int32_t *ids;
	size_t n;
	mzm_gen_result r;
	(void)state;
	rig_problem(&ids, &n, 0);
	for (int k = 0; k < N_SEEDS; k++) {
		mzm_gen_params p = rig_params("jacobi+ngram", 16);
		mzm_status st = MZM_ENOMEM;
		long i = 0;
		p.jacobi_seed = seeds[k];
		p.max_tokens = 3;
		/* what the session itself keeps from now on */
		assert_int_equal(mzm_generate(rig_session[1], ids, (int32_t)n, &p, &r, NULL), MZM_OK);
		size_t live = mzm_mem_live();
		for (i = 1; st == MZM_ENOMEM; i++) {
			mzm_mem_fail_nth(i);
			st = mzm_generate(rig_session[1], ids, (int32_t)n, &p, &r, NULL);
		}
		mzm_mem_fail_nth(0);
		assert_int_equal(st, MZM_OK);
		assert_true(i > 4);
		assert_int_equal(mzm_mem_live(), live);
	}
	mzm_ids_free(ids);
}

static void test_names(void **state)
{
	mzm_gen_params p = rig_params("jacobi", 16);
	(void)state;
	for (int i = 0; i < 2; i++)
		assert_string_equal(mzm_jacobi_name(i), forms[i]);
	for (int i = 0; i < N_SEEDS; i++)
		assert_string_equal(mzm_jacobi_seed_name(i), seeds[i]);
	assert_null(mzm_jacobi_name(2));
	assert_null(mzm_jacobi_name(-1));
	assert_null(mzm_jacobi_seed_name(N_SEEDS));
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_OK);
	p.jacobi = p.jacobi_seed = NULL;
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_OK);
	p.jacobi = "round";
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_EARG);
	p.jacobi = "block";
	p.jacobi_seed = "stars";
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_EARG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_guess),
		cmocka_unit_test(test_text_is_dense), cmocka_unit_test(test_trained_to_guess),
		cmocka_unit_test(test_runs_repeat),
		cmocka_unit_test(test_sampling_and_limits),
		cmocka_unit_test(test_guesses_keep_their_places),
		cmocka_unit_test(test_pool_has_the_iteration_s_grams),
		cmocka_unit_test(test_the_better_source_goes_first),
		cmocka_unit_test(test_starts_from_a_sparse_line),
		cmocka_unit_test(test_who_runs_passes),
		cmocka_unit_test(test_a_draft_is_made_when_it_pays),
		cmocka_unit_test(test_combinations),
		cmocka_unit_test(test_guesses_outlive_other_lines),
		cmocka_unit_test(test_two_sessions_at_once),
		cmocka_unit_test(test_no_allocation_while_decoding),
		cmocka_unit_test(test_without_memory),
		cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
