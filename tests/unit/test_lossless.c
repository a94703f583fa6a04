/* test_lossless.c - speculative sampling on tables of eight tokens: whatever is proposed, and however badly, the first
 * three tokens of 200,000 texts are distributed as direct sampling has them; and the same test sees a rule that is
 * wrong. test_lossless_text.c has the engine's own loop. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "chi_square.h"
#include "decode/lossless.h"
#include "decode/sampler.h"
#include "direct.h"
#include "testing.h"

enum { V = 8, LENGTH = 3, MAX_LINES = 3, CELLS = V * V * V, PREFIXES = 1 + V + V * V };
#define SURE 1e-6

/* ---- a full model and drafters: logits by the last token, and what the sampler makes of them ---- */

typedef enum drafter_kind {
	OTHER,     /* another model */
	SAME,      /* the full model */
	SHIFTED,   /* the same, up to rounding: its logits and a constant */
	HOLES,     /* knows three of the tokens */
	DISJOINT,  /* knows only tokens that the full model does not */
	GUESS,     /* one token, from nowhere */
	BEST_GUESS /* the full model's likeliest, as a point */
} drafter_kind;

typedef enum mistake {
	NONE,
	ARGMAX_AS_DRAW, /* the likeliest token, with the softmax recorded */
	NO_RESIDUAL,    /* what does not stand is followed by a draw from p */
	RAW_DRAFT,      /* q without the filters that its token was drawn with */
	SHARED_NUMBER,  /* one random number draws the draft and judges it */
	STALE_RESIDUAL, /* the second candidate is judged by the first one's p */
	SHARED_ROOM,    /* a line without room keeps a token if another line has it, too */
} mistake;

typedef struct setting {
	const char  *name;
	float        temp, top_p, min_p, penalty;
	int32_t      top_k;
	int          n_lines;
	drafter_kind kind[MAX_LINES];
	mistake      mistake;
} setting;

typedef struct table {
	float  w[PREFIXES][V];
	double total[PREFIXES]; /* 0: not there yet */
} table;

typedef struct rig {
	const setting *how;
	mzm_sampler   *sampler;
	mzm_gen_params params;
	float          logits[1 + MAX_LINES][V + 1][V]; /* of the model and its drafters, behind each token or none */
	table          table[1 + MAX_LINES], raw[1 + MAX_LINES];
	mzm_lossless   place;
	double         left[V];
	long           n_proposed, n_kept;
	int            count[CELLS];
} rig;

static void fill_logits(float logits[V + 1][V], drafter_kind kind, float model[V + 1][V], uint64_t seed)
{
	for (int last = 0; last <= V; last++) {
		for (int i = 0; i < V; i++) {
			float x = (float)(3 * mzm_rng_unit(seed, (uint64_t)last, (uint64_t)i));
			if (kind == SAME || kind == SHIFTED || kind == BEST_GUESS)
				x = model[last][i] + (kind == SHIFTED ? 0.7f : 0);
			bool knows = kind == HOLES ? (i + last) % 3 == 0 : kind == DISJOINT ? i >= V / 2 : true;
			logits[last][i] = knows ? x : -1e5f;
		}
	}
}

static rig *rig_create(const setting *how)
{
	rig *r = calloc(1, sizeof *r);
	r->how = how;
	r->params = mzm_gen_params_default();
	r->params.temp = how->temp;
	r->params.top_k = how->top_k;
	r->params.top_p = how->top_p > 0 ? how->top_p : 1;
	r->params.min_p = how->min_p;
	r->params.repeat_penalty = how->penalty > 0 ? how->penalty : 1;
	r->place = (mzm_lossless){.n_vocab = V, .left = r->left};
	assert_int_equal(mzm_sampler_create(&r->sampler, V, mzm_kern_find(NULL), NULL), MZM_OK);
	fill_logits(r->logits[0], OTHER, NULL, 11);
	for (int i = 0; i < how->n_lines; i++)
		fill_logits(r->logits[1 + i], how->kind[i], r->logits[0], 12 + (uint64_t)i);
	for (int last = 0; last <= V && how->kind[0] == DISJOINT; last++) {
		for (int i = V / 2; i < V; i++)
			r->logits[0][last][i] = -1e5f;
	}
	return r;
}

static void rig_free(rig *r)
{
	mzm_sampler_free(r->sampler);
	free(r);
}

static int prefix_number(const int32_t *ids, int n)
{
	int number = 0;
	for (int i = 0; i < n; i++)
		number = number * V + ids[i];
	return number + (n > 0) + (n > 1 ? V : 0);
}

/* The weights of model m behind a prefix, by the sampler; made once, for they are all that is drawn from. */
static const float *weights_of(rig *r, int m, bool raw, const int32_t *ids, int n, double *total)
{
	table *t = raw ? &r->raw[m] : &r->table[m];
	int at = prefix_number(ids, n);
	assert_true(at < PREFIXES);
	if (t->total[at] == 0) {
		mzm_gen_params p = r->params;
		p.top_k = raw ? 0 : p.top_k;
		p.top_p = raw ? 1 : p.top_p;
		p.min_p = raw ? 0 : p.min_p;
		mzm_sampler_configure(r->sampler, &p);
		const float *x = mzm_sampler_process(r->sampler, r->logits[m][n ? ids[n - 1] : V], ids, n);
		t->total[at] = mzm_sampler_weights(r->sampler, t->w[at], x);
	}
	*total = t->total[at];
	return t->w[at];
}

/* ---- the distribution wanted, written out independently ---- */

static void direct(const rig *r, const int32_t *ids, int n, double want[V])
{
	direct_probabilities(V, &r->params, r->logits[0][n ? ids[n - 1] : V], ids, n, want);
}

static void direct_texts(const rig *r, double prob[CELLS])
{
	double at[V];
	int32_t ids[LENGTH];
	for (int cell = 0; cell < CELLS; cell++) {
		ids[0] = cell / V / V, ids[1] = cell / V % V, ids[2] = cell % V;
		prob[cell] = 1;
		for (int n = 0; n < LENGTH; n++) {
			direct(r, ids, n, at);
			prob[cell] *= at[ids[n]];
		}
	}
}

/* ---- rounds of drafting and checking ---- */

typedef struct line {
	int          len;
	int32_t      id[LENGTH];
	const float *q[LENGTH];
	double       q_total[LENGTH];
} line;

static int32_t largest(const float *w)
{
	int32_t best = 0;
	for (int32_t i = 1; i < V; i++)
		best = w[i] > w[best] ? i : best;
	return best;
}

/* One token for the end of a line. */
static void propose(rig *r, line *l, int i, int32_t *ids, int n, int round)
{
	drafter_kind kind = r->how->kind[i];
	int k = l->len++;
	l->q[k] = weights_of(r, 1 + i, false, ids, n, &l->q_total[k]);
	double u = mzm_sampler_unit(r->sampler, MZM_FOR_DRAFT, n, (uint64_t)round, i);
	l->id[k] = mzm_sampler_draw(r->sampler, l->q[k], l->q_total[k], u);
	if (r->how->mistake == ARGMAX_AS_DRAW)
		l->id[k] = largest(l->q[k]);
	if (r->how->mistake == RAW_DRAFT)
		l->q[k] = weights_of(r, 1 + i, true, ids, n, &l->q_total[k]);
	if (kind == GUESS || kind == BEST_GUESS) {
		l->id[k] = kind == GUESS ? (n ? ids[n - 1] * 5 + 3 : 3) % V : largest(l->q[k]);
		l->q[k] = NULL;
	}
	ids[n] = l->id[k];
}

/* Lines of drafters behind n tokens; in a check of SHARED_ROOM there is none behind the first line's first token. */
static void propose_lines(rig *r, line lines[MAX_LINES], const int32_t *text, int n, int round)
{
	for (int i = 0; i < r->how->n_lines; i++) {
		int32_t ids[LENGTH];
		memcpy(ids, text, sizeof ids);
		lines[i].len = 0;
		while (n + lines[i].len < LENGTH)
			propose(r, &lines[i], i, ids, n + lines[i].len, round);
		for (int k = 0; i > 0 && k < lines[i].len && r->how->mistake == SHARED_ROOM; k++) {
			if (lines[i].id[k] != lines[0].id[k])
				lines[i].len = k;
		}
	}
}

/* Whether a candidate stands; its drafter's mistakes apart this is what the engine does. */
static bool judge(rig *r, const line *l, int i, int k, int n, int round)
{
	mzm_purpose purpose = r->how->mistake == SHARED_NUMBER ? MZM_FOR_DRAFT : MZM_FOR_ACCEPT;
	double before[V], total = r->place.total;
	memcpy(before, r->left, sizeof before);
	bool stands = mzm_lossless_judge(&r->place, l->id[k], l->q[k], l->q_total[k],
					 mzm_sampler_unit(r->sampler, purpose, n, (uint64_t)round, i));
	if (r->how->mistake == NO_RESIDUAL || (r->how->mistake == STALE_RESIDUAL && i < r->how->n_lines - 1)) {
		memcpy(r->left, before, sizeof before);
		r->place.total = total;
	}
	r->n_proposed++;
	r->n_kept += stands;
	return stands;
}

/* Appends what a check of the lines brings; returns the length of the text. */
static int check(rig *r, const line lines[MAX_LINES], int32_t *ids, int n, int round)
{
	bool passes[MAX_LINES] = {true, true, true};
	for (int k = 0;; k++, n++) {
		double total;
		int winner = -1;
		const float *p = weights_of(r, 0, false, ids, n, &total);
		mzm_lossless_begin(&r->place, p, total);
		for (int i = 0; i < r->how->n_lines && winner < 0; i++) {
			if (passes[i] && k < lines[i].len && judge(r, &lines[i], i, k, n, round))
				winner = i;
		}
		if (winner < 0) {
			ids[n] = mzm_lossless_draw(&r->place,
						   mzm_sampler_unit(r->sampler, MZM_FOR_RESIDUAL, n, (uint64_t)round,
								    0));
			return n + 1;
		}
		ids[n] = lines[winner].id[k];
		for (int i = 0; i < r->how->n_lines; i++)
			passes[i] = passes[i] && k < lines[i].len && lines[i].id[k] == ids[n];
		if (n + 1 == LENGTH)
			return LENGTH;
	}
}

/* The chance of texts so far from direct sampling. */
static double texts(rig *r, int n_texts)
{
	double prob[CELLS];
	direct_texts(r, prob);
	for (int t = 0; t < n_texts; t++) {
		int32_t ids[LENGTH + 1];
		line lines[MAX_LINES];
		r->params.seed = (uint64_t)t;
		mzm_sampler_configure(r->sampler, &r->params);
		for (int n = 0, round = 0; n < LENGTH; round++) {
			propose_lines(r, lines, ids, n, round);
			n = check(r, lines, ids, n, round);
		}
		r->count[(ids[0] * V + ids[1]) * V + ids[2]]++;
	}
	return chi_square_p(r->count, prob, CELLS);
}

static int n_texts(void)
{
	return getenv("MIRZAM_SHORT") ? 50000 : 200000;
}

/* ---- what must be right ---- */

static void test_distribution(void **state)
{
	(void)state;
	static const setting settings[] = {
		{"plain", .temp = 1, .n_lines = 1, .kind = {OTHER}},
		{"hot", .temp = 2.5f, .n_lines = 1, .kind = {OTHER}},
		{"top-k", .temp = 1, .top_k = 3, .n_lines = 1, .kind = {OTHER}},
		{"top-p", .temp = 1, .top_p = 0.7f, .n_lines = 1, .kind = {OTHER}},
		{"min-p", .temp = 1, .min_p = 0.3f, .n_lines = 1, .kind = {OTHER}},
		{"penalty", .temp = 1, .penalty = 1.8f, .n_lines = 1, .kind = {OTHER}},
		{"all filters", .temp = 1.3f, .top_k = 6, .top_p = 0.9f, .min_p = 0.1f, .penalty = 1.4f, .n_lines = 1,
		 .kind = {OTHER}},
		{"q with zeros", .temp = 1, .n_lines = 1, .kind = {HOLES}},
		{"p = q", .temp = 1, .n_lines = 1, .kind = {SHIFTED}},
		{"guess", .temp = 1, .n_lines = 1, .kind = {GUESS}},
		{"guess, filters", .temp = 0.8f, .top_k = 5, .top_p = 0.95f, .penalty = 1.3f, .n_lines = 1,
		 .kind = {GUESS}},
		{"best guess", .temp = 1, .n_lines = 1, .kind = {BEST_GUESS}},
		{"two lines", .temp = 1, .n_lines = 2, .kind = {OTHER, OTHER}},
		{"twice the same", .temp = 1, .penalty = 1.5f, .n_lines = 2, .kind = {OTHER, SAME}},
		{"guess and draw", .temp = 1, .top_k = 6, .n_lines = 2, .kind = {BEST_GUESS, OTHER}},
		{"draw and guess", .temp = 1, .n_lines = 2, .kind = {HOLES, GUESS}},
		{"three lines", .temp = 1.2f, .n_lines = 3, .kind = {OTHER, HOLES, GUESS}},
		{"three guesses", .temp = 1, .top_p = 0.9f, .n_lines = 3, .kind = {GUESS, BEST_GUESS, GUESS}},
	};
	for (unsigned i = 0; i < sizeof settings / sizeof *settings; i++) {
		rig *r = rig_create(&settings[i]);
		double p = texts(r, n_texts());
		print_message("%-15s p %.3g, %.1f %% of %ld stand\n", settings[i].name, p,
			      100.0 * (double)r->n_kept / (double)r->n_proposed, r->n_proposed);
		assert_true(p > SURE);
		assert_true(r->n_kept > 0 && r->n_kept <= r->n_proposed);
		rig_free(r);
	}
}

/* A draft that is the full model's stands always; one of other tokens never; the text is right in both. */
static void test_limits(void **state)
{
	(void)state;
	static const setting same = {"same", .temp = 1, .top_p = 0.9f, .penalty = 1.2f, .n_lines = 1, .kind = {SAME}};
	static const setting apart = {"disjoint", .temp = 1, .n_lines = 1, .kind = {DISJOINT}};
	rig *r = rig_create(&same);
	assert_true(texts(r, n_texts()) > SURE);
	assert_int_equal(r->n_kept, r->n_proposed);
	rig_free(r);
	r = rig_create(&apart);
	assert_true(texts(r, n_texts()) > SURE);
	assert_int_equal(r->n_kept, 0);
	assert_true(r->n_proposed >= n_texts());
	rig_free(r);
}

static void test_mistakes_are_seen(void **state)
{
	(void)state;
	static const setting settings[] = {
		{"argmax as a draw", .temp = 1, .n_lines = 1, .kind = {OTHER}, .mistake = ARGMAX_AS_DRAW},
		{"no residual", .temp = 1, .n_lines = 1, .kind = {OTHER}, .mistake = NO_RESIDUAL},
		{"no residual of guesses", .temp = 1, .n_lines = 1, .kind = {GUESS}, .mistake = NO_RESIDUAL},
		{"raw q", .temp = 1, .top_k = 3, .n_lines = 1, .kind = {OTHER}, .mistake = RAW_DRAFT},
		{"one number for both", .temp = 1, .n_lines = 1, .kind = {OTHER}, .mistake = SHARED_NUMBER},
		{"stale p", .temp = 1, .n_lines = 2, .kind = {OTHER, OTHER}, .mistake = STALE_RESIDUAL},
		{"shared room", .temp = 0.5f, .n_lines = 2, .kind = {HOLES, OTHER}, .mistake = SHARED_ROOM},
	};
	for (unsigned i = 0; i < sizeof settings / sizeof *settings; i++) {
		rig *r = rig_create(&settings[i]);
		double p = texts(r, n_texts());
		print_message("%-22s p %.3g\n", settings[i].name, p);
		assert_true(p < SURE);
		rig_free(r);
	}
}

/* ---- one place ---- */

static void test_judging(void **state)
{
	(void)state;
	const float p[V] = {4, 2, 1, 1, 0, 0, 0, 0}, q[V] = {1, 1, 1, 1, 0, 0, 0, 0};
	double left[V];
	mzm_lossless l = {V, left, 0};
	mzm_lossless_begin(&l, p, 8);
	assert_true(mzm_lossless_judge(&l, 1, q, 4, 0.999999)); /* 1/4 against 1/4 */
	assert_true(mzm_lossless_judge(&l, 2, q, 4, 0.49)); /* 1/8 against 1/4 */
	assert_false(mzm_lossless_judge(&l, 2, q, 4, 0.51));
	assert_true(left[0] == 0.25 && l.total == 0.25); /* all that is left */
	assert_int_equal(mzm_lossless_draw(&l, 0.999), 0);
	assert_false(mzm_lossless_judge(&l, 1, q, 4, 1e-9)); /* a second candidate: 0 of it is left */

	mzm_lossless_begin(&l, p, 8);
	assert_false(mzm_lossless_judge(&l, 5, q, 4, 1e-9)); /* q does not have it */
	for (int i = 0; i < V; i++)
		assert_true(left[i] == (double)p[i]);
	assert_false(mzm_lossless_judge(&l, 0, NULL, 0, 0.51)); /* a guess */
	assert_true(left[0] == 0 && l.total == 4);
	assert_int_equal(mzm_lossless_draw(&l, 0.49), 1);
	assert_int_equal(mzm_lossless_draw(&l, 0.51), 2);
	assert_false(mzm_lossless_judge(&l, 0, q, 0, 1e-9)); /* the same guess again */
	assert_true(l.total == 4);

	const float sure[V] = {0, 0, 0, 1, 0, 0, 0, 0};
	mzm_lossless_begin(&l, sure, 1);
	assert_true(mzm_lossless_judge(&l, 3, NULL, 0, 1 - 0x1p-53));
	assert_false(mzm_lossless_judge(&l, 2, NULL, 0, 0x1p-53));
	assert_int_equal(mzm_lossless_draw(&l, 0.5), 3);
}

/* p = q up to rounding leaves nothing: then p stays. */
static void test_nothing_is_left(void **state)
{
	(void)state;
	const float p[V] = {1, 1, 1, 1, 1, 1, 1, 1}, q[V] = {2, 2, 2, 2, 2, 2, 2, 2};
	double left[V];
	mzm_lossless l = {V, left, 0};
	mzm_lossless_begin(&l, p, 8);
	assert_true(mzm_lossless_judge(&l, 1, q, 16, 1 - 0x1p-53));
	assert_false(mzm_lossless_judge(&l, 1, q, 16, 1)); /* beyond any number that is drawn */
	assert_true(l.total == 8);
	assert_int_equal(mzm_lossless_draw(&l, 0.99), 7);
}

/* ---- the sampler's part ---- */

static mzm_sampler *sampler_with(mzm_gen_params p)
{
	mzm_sampler *s;
	assert_int_equal(mzm_sampler_create(&s, V, mzm_kern_find(NULL), NULL), MZM_OK);
	mzm_sampler_configure(s, &p);
	return s;
}

static void test_weights_of_broken_logits(void **state)
{
	(void)state;
	mzm_gen_params p = mzm_gen_params_default();
	float w[V], nan[V], inf[V] = {0, 0, INFINITY, 0, 0, 0, 0, 0}, low[V];
	p.temp = 1;
	for (int filters = 0; filters < 2; filters++) {
		p.top_k = filters ? 3 : 0;
		p.top_p = filters ? 0.5f : 1;
		mzm_sampler *s = sampler_with(p);
		for (int i = 0; i < V; i++)
			nan[i] = NAN, low[i] = -INFINITY;
		assert_true(mzm_sampler_weights(s, w, nan) == 1 && w[0] == 1);
		assert_true(mzm_sampler_weights(s, w, low) == 1 && w[0] == 1);
		assert_true(mzm_sampler_weights(s, w, inf) == 1 && w[2] == 1 && w[3] == 0);
		assert_int_equal(mzm_sampler_draw(s, w, 1, 1 - 0x1p-53), 2);
		nan[5] = 1; /* one good one */
		double total = mzm_sampler_weights(s, w, nan);
		int32_t id = mzm_sampler_draw(s, w, total, 0.5);
		assert_true(total > 0 && id >= 0 && id < V && w[id] > 0);
		mzm_sampler_free(s);
	}
}

/* The numbers of a position know nothing of each other. */
static void test_purposes_are_independent(void **state)
{
	(void)state;
	mzm_gen_params p = mzm_gen_params_default();
	double tenth[100], same[100];
	p.temp = 1, p.seed = 5;
	mzm_sampler *s = sampler_with(p);
	for (int i = 0; i < 100; i++) {
		tenth[i] = 0.01;
		same[i] = i % 11 == 0 ? 0.1 : 0;
	}
	for (int32_t k = 0; k < 5; k++) { /* another purpose, round, line, position */
		int pairs[100] = {0}, reused[100] = {0};
		for (int pos = 0; pos < 10000; pos++) {
			double a = mzm_sampler_unit(s, MZM_FOR_DRAFT, pos, 3, 0);
			double b = k == 0   ? mzm_sampler_unit(s, MZM_FOR_ACCEPT, pos, 3, 0)
				   : k == 1 ? mzm_sampler_unit(s, MZM_FOR_DRAFT, pos, 4, 0)
				   : k == 2 ? mzm_sampler_unit(s, MZM_FOR_DRAFT, pos, 3, 1)
				   : k == 3 ? mzm_sampler_unit(s, MZM_FOR_DRAFT, pos + 1, 3, 0)
					    : mzm_rng_unit(p.seed, (uint64_t)pos, 3); /* noise of choices */
			pairs[(int)(10 * a) * 10 + (int)(10 * b)]++;
			reused[(int)(10 * a) * 11]++;
		}
		assert_true(chi_square_p(pairs, tenth, 100) > SURE);
		assert_true(chi_square_p(reused, same, 100) > SURE);
		assert_true(chi_square_p(reused, tenth, 100) < SURE);
	}
	mzm_sampler_free(s);
}

/* The choices of exact mode are as they were: a draw from the same distribution, by other numbers. */
static void test_choices_follow_the_weights(void **state)
{
	(void)state;
	const float logits[V] = {1.0f, 2.5f, -1.0f, 2.0f, 0.0f, 2.4f, -3.0f, 0.5f};
	mzm_gen_params p = mzm_gen_params_default();
	float w[V];
	p.temp = 1.1f, p.top_k = 6, p.top_p = 0.95f, p.min_p = 0.2f;
	mzm_sampler *s = sampler_with(p);
	double total = mzm_sampler_weights(s, w, logits), prob[V];
	int chosen[V] = {0}, drawn[V] = {0}, n_zero = 0;
	for (int i = 0; i < V; i++) {
		prob[i] = (double)w[i] / total;
		n_zero += prob[i] == 0;
	}
	assert_int_equal(n_zero, 4); /* two by top-k, one by top-p, one by min-p */
	for (int i = 0; i < 100000; i++) {
		chosen[mzm_sampler_choose(s, logits, i)]++;
		drawn[mzm_sampler_draw(s, w, total, mzm_sampler_unit(s, MZM_FOR_DRAFT, i, 0, 0))]++;
	}
	assert_true(chi_square_p(chosen, prob, V) > SURE);
	assert_true(chi_square_p(drawn, prob, V) > SURE);
	assert_int_equal(mzm_sampler_likeliest(s, logits), 1);
	mzm_sampler_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_judging),         cmocka_unit_test(test_nothing_is_left),
		cmocka_unit_test(test_distribution),    cmocka_unit_test(test_limits),
		cmocka_unit_test(test_mistakes_are_seen), cmocka_unit_test(test_weights_of_broken_logits),
		cmocka_unit_test(test_purposes_are_independent), cmocka_unit_test(test_choices_follow_the_weights),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
