/* draft_jacobi.c - parallel decoding as a fixed-point iteration (arXiv 2305.10427): the check over the last token and
 * the guesses behind it is the iteration, and what the full model says behind each guess is the next guess for the
 * place after it, whether or not the guess stood. So guesses are kept by their place in the text. They outlive rounds
 * in which others drafted.
 *
 * Two forms. "block", as published: guesses for a block of a period's tokens, which shrinks until it has converged;
 * then comes the next. "slide": a window of that width moves with the text and is filled up in every round. New
 * guesses are tokens of the prompt, drawn by place. With seeds "ngram" and "pool" an n-gram that begins with the
 * token before goes first, while such are right more often than the model was: of the text (ngram.h), or of a pool of
 * those that the iteration itself has brought forth (lookahead, arXiv 2402.02057), token by token what the model said
 * behind its own earlier guess. The pool is of fixed size and lives as long as the text. None of these runs a pass.
 *
 * With seed "sparse" first guesses are a sparse draft: that of the same check, if there is one before it in the list,
 * else one of its own. The iteration goes on from there, and its line has no other guesses. The next draft is made when
 * none is left, in a block when it has converged; sliding, also when rounds with new drafts gain more for what they
 * cost.
 *
 * Tokens a pass on 60 problems by the demo model at period 16, slide / block: prompt 1.20 / 1.17, ngram 1.64 / 1.57,
 * pool 1.62 / 1.55; with n-grams only for places without a guess 1.21 / 1.28 and 1.20 / 1.25. A model trained for
 * this (scripts/demo-model/cllm.py) does better alone: 3.06 / 2.56 by prompt on 100 problems. By sparse (griffin .5)
 * 2.09 / 3.21 on 40, where sparse drafts gain 7.97 a check but cost 1.22 dense passes a token, this .85 / .92. */
#include "decode/drafter.h"
#include "decode/ngram.h"

#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

enum {
	N_PLACES = 2 * MZM_MAX_PERIOD, /* guesses kept: those of a line, and as many behind it */
	GRAM = 4,                      /* tokens of an n-gram of the pool */
	N_GRAMS = 1024,                /* in the pool: the latest of those whose first token leads to a slot */
	MAX_DRAWS = 8,                 /* from the prompt, for a token that is not special */
	STREAM = 0x6a62,               /* of random numbers */
};

#define FORGET     0.95 /* a round, of what was right and what paid */
#define PRIOR_RATE 1.5  /* of rounds that go on, as two such would tell it */
#define MARGIN     2.0  /* so much more often must the model have been right than n-grams, to go before them */

_Static_assert((N_PLACES & (N_PLACES - 1)) == 0 && (N_GRAMS & (N_GRAMS - 1)) == 0, "indices are masked");

/* What the model said at one place, behind what it had said at the place before one iteration earlier, and so on. */
typedef struct chain {
	int32_t id[GRAM]; /* the last n of these */
	int32_t n;        /* 0: nothing is known */
} chain;

/* Tokens that rounds gained, and what these cost in dense passes, with forgetting. */
typedef struct rate {
	double gained, cost;
} rate;

typedef struct jacobi_drafter {
	mzm_drafter          base;
	mzm_draft_env        env;
	bool                 slides;
	const char          *seed;
	int32_t              n_prompt;
	int32_t              end;            /* of the block; 0: before the first */
	int32_t              place[N_PLACES]; /* that guess and chain are for */
	int32_t              guess[N_PLACES];
	chain                chain[N_PLACES];
	mzm_ngram           *index;          /* of seeds by "ngram", else NULL */
	int32_t            (*pool)[GRAM];    /* [N_GRAMS] of seeds by "pool", else NULL */
	const int32_t       *run;            /* of the pool, being copied to the line, from `ran` on */
	int32_t              ran;
	bool                 seeds_sparse;   /* seeds by "sparse" */
	int32_t              n_passes;       /* of the latest line */
	rate                 drafting, going_on; /* of rounds with a draft of its own, and of those without */
	int32_t              first_said, first_gram; /* for the first place of the line; -1: nothing */
	double               lead;           /* how much more often n-grams were right there, with forgetting */
} jacobi_drafter;

#define SPARSE "sparse"

static const char *const forms[] = {"slide", "block"};
static const char *const seeds[] = {"prompt", "ngram", "pool", SPARSE};

#define COUNT(names) ((int)(sizeof(names) / sizeof *(names)))

const char *mzm_jacobi_form_at(int i)
{
	return i >= 0 && i < COUNT(forms) ? forms[i] : NULL;
}

const char *mzm_jacobi_seed_at(int i)
{
	return i >= 0 && i < COUNT(seeds) ? seeds[i] : NULL;
}

static bool is(const char *name, const char *other)
{
	return strcmp(name, other) == 0;
}

bool mzm_jacobi_predicts(const mzm_gen_params *p)
{
	int list[MZM_MAX_DRAFTERS], n = mzm_drafter_list(list, p->draft), i = 0;
	if (!p->jacobi_seed || !is(p->jacobi_seed, SPARSE))
		return false;
	while (i < n && mzm_drafter_at(list[i]) != &mzm_draft_jacobi &&
	       (mzm_drafter_at(list[i]) != &mzm_draft_sparse || mzm_draft_is_auto(p->draft)))
		i++;
	return i < n && mzm_drafter_at(list[i]) == &mzm_draft_jacobi;
}

/* ---- create ---- */

static const mzm_drafter_ops with_passes;

static void jacobi_free(mzm_drafter *base)
{
	jacobi_drafter *d = (jacobi_drafter *)base;
	mzm_ngram_free(d->index);
	mzm_free(d->pool);
	mzm_free(d);
}

static mzm_status make_pool(jacobi_drafter *d, mzm_err *err)
{
	MZM_TRY(mzm_alloc_for((void **)&d->pool, N_GRAMS * sizeof *d->pool, "the pool of n-grams", err));
	for (int i = 0; i < N_GRAMS; i++)
		d->pool[i][0] = -1; /* no token */
	return MZM_OK;
}

static mzm_status jacobi_create(mzm_drafter **out, const mzm_draft_env *env, mzm_err *err)
{
	mzm_status st;
	jacobi_drafter *d;
	const char *form = env->p->jacobi ? env->p->jacobi : forms[0];
	MZM_TRY(mzm_alloc_for((void **)&d, sizeof *d, "the drafter", err));
	*d = (jacobi_drafter){.env = *env, .slides = is(form, "slide"), .first_said = -1, .first_gram = -1};
	d->base.ops = mzm_jacobi_predicts(env->p) ? &with_passes : &mzm_draft_jacobi;
	d->seed = env->p->jacobi_seed ? env->p->jacobi_seed : seeds[0];
	d->seeds_sparse = is(d->seed, SPARSE);
	d->going_on = (rate){2 * PRIOR_RATE, 2};
	for (int i = 0; i < N_PLACES; i++)
		d->place[i] = -1;
	if (is(d->seed, "ngram"))
		MZM_TRY_OUT(mzm_ngram_create(&d->index, env->n_ctx, err));
	if (is(d->seed, "pool"))
		MZM_TRY_OUT(make_pool(d, err));
	*out = &d->base;
	return MZM_OK;
out:
	jacobi_free(&d->base);
	return st;
}

static void jacobi_begin(mzm_drafter *base, const int32_t *ids, int32_t n)
{
	jacobi_drafter *d = (jacobi_drafter *)base;
	d->n_prompt = n;
	if (d->index)
		mzm_ngram_extend(d->index, ids, n);
}

/* Guesses of another source, or another form, are right more or less often, and cost more or less. */
static uint64_t jacobi_settings(const mzm_drafter *base)
{
	const jacobi_drafter *d = (const jacobi_drafter *)base;
	uint64_t seed = 0;
	while (!is(seeds[seed], d->seed))
		seed++;
	return mzm_rng_mix(seed << 2 | (uint64_t)d->slides << 1 | (base->ops == &with_passes));
}

/* ---- new guesses ---- */

/* A token of the prompt, by the place alone, so that it is the same whatever was tried before. */
static int32_t draw(const jacobi_drafter *d, const int32_t *ids, int32_t place)
{
	int32_t id = ids[0];
	for (uint64_t i = 0; i < MAX_DRAWS; i++) {
		uint64_t random = mzm_rng_u64(d->env.p->seed, STREAM + i, (uint64_t)place);
		id = ids[random % (uint64_t)d->n_prompt];
		if (!d->env.tokenizer || !mzm_token_is_special(d->env.tokenizer, id))
			break;
	}
	return id;
}

static int32_t *gram_for(const jacobi_drafter *d, int32_t id)
{
	return d->pool[mzm_rng_mix((uint64_t)(uint32_t)id) & (N_GRAMS - 1)];
}

/* The next token of the n-gram that is being copied, or of one that begins with the token before; -1: there is none. */
static int32_t from_pool(jacobi_drafter *d, int32_t before)
{
	if (!d->run || d->ran == GRAM || d->run[d->ran - 1] != before) {
		d->run = gram_for(d, before);
		d->ran = 1;
	}
	if (d->run[0] >= 0 && d->run[d->ran - 1] == before)
		return d->run[d->ran++];
	d->run = NULL;
	return -1;
}

/* What the n-grams know to follow; -1: nothing. */
static int32_t from_grams(jacobi_drafter *d, const mzm_draft_job *job, int32_t place)
{
	int32_t k, at = d->index ? mzm_ngram_find(d->index, job->ids, place, &k) : -1;
	if (at >= 0)
		return job->ids[at];
	return d->pool ? from_pool(d, job->ids[place - 1]) : -1;
}

static int32_t said_at(const jacobi_drafter *d, int32_t place)
{
	int32_t i = place & (N_PLACES - 1);
	return d->place[i] == place ? d->guess[i] : -1;
}

/* The next guess of the line. What the model said was behind guesses of which one was wrong, or it would be text by
 * now; models that were trained for this are right all the same, and go before n-grams. */
static int32_t next_guess(jacobi_drafter *d, const mzm_draft_job *job)
{
	int32_t place = job->n + job->n_draft, said = said_at(d, place), gram = -1;
	bool gram_first = d->lead >= -MARGIN || said < 0;
	if (gram_first || job->n_draft == 0)
		gram = from_grams(d, job, place);
	if (job->n_draft == 0) {
		d->first_said = said;
		d->first_gram = gram;
	}
	if (gram >= 0 && gram_first)
		return gram;
	if (said >= 0)
		return said;
	return d->env.guess ? d->env.guess(d->env.guess_ctx, place) : draw(d, job->ids, place);
}

/* Of the first place of a line both are known, and what was right. */
static void compare_sources(jacobi_drafter *d, const mzm_draft_news *news)
{
	int32_t right = news->ids[news->n_before];
	if (d->first_said >= 0 && d->first_gram >= 0 && news->n > news->n_before)
		d->lead = d->lead * FORGET + (d->first_gram == right) - (d->first_said == right);
	d->first_said = d->first_gram = -1;
}

/* ---- the iteration ---- */

/* How many guesses this round wants. The head of a block is verified: its last place alone needs no guess. */
static int32_t line_length(jacobi_drafter *d, const mzm_draft_job *job)
{
	if (d->slides)
		return job->max;
	if (job->n > d->end)
		d->end = job->n + job->max;
	return d->end - job->n < job->max ? d->end - job->n : job->max;
}

/* First guesses by sparse passes. In lossless sampling the likeliest tokens: a guess must not depend on the random
 * numbers of its check. */
static mzm_status draft_sparsely(jacobi_drafter *d, mzm_draft_job *job, int32_t n, mzm_err *err)
{
	bool ends = n < 1;
	while (!ends) {
		float *logits;
		int32_t pos = job->n + job->n_draft;
		MZM_TRY(mzm_draft_sparse_pass(job, &logits, err));
		const float *processed = mzm_sampler_process(job->sampler, logits, job->ids, pos);
		int32_t id = d->env.p->mode == MZM_MODE_LOSSLESS ? mzm_sampler_likeliest(job->sampler, processed)
								 : mzm_sampler_choose(job->sampler, processed, pos);
		ends = mzm_draft_guess(job, id) || job->n_draft == n;
	}
	d->n_passes = job->n_passes;
	return MZM_OK;
}

/* The guess for the next place of the line: what the model said there, else what the sparse line of this check has. */
static int32_t kept_guess(const jacobi_drafter *d, const mzm_draft_job *job)
{
	int32_t said = said_at(d, job->n + job->n_draft);
	return said < 0 && job->n_draft < job->n_sparse ? job->sparse[job->n_draft] : said;
}

static bool goes_on(const jacobi_drafter *d, const mzm_draft_job *job)
{
	bool pays = d->going_on.gained * d->drafting.cost >= d->drafting.gained * d->going_on.cost;
	return job->sparse || (said_at(d, job->n) >= 0 && (pays || !d->slides));
}

static mzm_status propose_seeded(jacobi_drafter *d, mzm_draft_job *job, int32_t n, mzm_err *err)
{
	bool ends = false;
	if (!goes_on(d, job))
		return draft_sparsely(d, job, n, err);
	for (int32_t id; !ends && job->n_draft < n && (id = kept_guess(d, job)) >= 0;)
		ends = mzm_draft_guess(job, id);
	return MZM_OK;
}

static mzm_status jacobi_propose(mzm_drafter *base, mzm_draft_job *job, mzm_err *err)
{
	jacobi_drafter *d = (jacobi_drafter *)base;
	int32_t n = line_length(d, job);
	bool ends = false;
	d->run = NULL;
	d->n_passes = 0;
	if (d->seeds_sparse)
		return propose_seeded(d, job, n, err);
	while (!ends && job->n_draft < n)
		ends = mzm_draft_guess(job, next_guess(d, job));
	return MZM_OK;
}

/* The chain of the token before a place, which stood there when the model spoke, and what it said then. */
static chain longer(const jacobi_drafter *d, int32_t place, int32_t before, int32_t said)
{
	int32_t i = (place - 1) & (N_PLACES - 1);
	chain c = {.id[GRAM - 1] = before, .n = 1};
	if (d->place[i] == place - 1 && d->chain[i].n > 0 && d->chain[i].id[GRAM - 1] == before)
		c = d->chain[i];
	memmove(c.id, c.id + 1, (GRAM - 1) * sizeof *c.id);
	c.id[GRAM - 1] = said;
	c.n += c.n < GRAM;
	return c;
}

static void learn_rate(jacobi_drafter *d, const mzm_draft_news *news)
{
	rate *r = d->n_passes > 0 ? &d->drafting : &d->going_on;
	r->gained = r->gained * FORGET + news->n_kept + 1;
	r->cost = r->cost * FORGET + 1 + d->n_passes * d->env.sparse_work;
}

/* What a check said behind every token of the line, backwards: chains grow from those of the iteration before. */
static void jacobi_learn(mzm_drafter *base, const mzm_draft_news *news)
{
	jacobi_drafter *d = (jacobi_drafter *)base;
	compare_sources(d, news);
	if (d->seeds_sparse && news->n_draft > 0)
		learn_rate(d, news);
	if (d->index)
		mzm_ngram_extend(d->index, news->ids, news->n);
	for (int32_t k = news->n_draft; k >= 0; k--) {
		int32_t place = news->n_before + k, i = place & (N_PLACES - 1);
		int32_t before = k > 0 ? news->draft[k - 1] : news->ids[news->n_before - 1];
		if (d->pool) {
			d->chain[i] = longer(d, place, before, news->choice[k]);
			if (d->chain[i].n == GRAM)
				memcpy(gram_for(d, d->chain[i].id[0]), d->chain[i].id, sizeof d->chain[i].id);
		}
		d->place[i] = place;
		d->guess[i] = news->choice[k];
	}
}

const mzm_drafter_ops mzm_draft_jacobi = {
	.name = "jacobi", .about = "the model's own words behind its last guesses",
	.wants_choices = true,
	.create = jacobi_create, .free = jacobi_free, .begin = jacobi_begin, .propose = jacobi_propose,
	.learn = jacobi_learn, .settings = jacobi_settings,
};

/* ---- seeds by sparse passes of its own: these cost something ---- */

static bool predicts(const mzm_drafter *d)
{
	(void)d;
	return true;
}

static double cost(const mzm_drafter *d)
{
	return ((const jacobi_drafter *)d)->env.sparse_work;
}

static mzm_status try_pass(mzm_drafter *d, mzm_err *err)
{
	return mzm_draft_sparse_try(&((jacobi_drafter *)d)->env, err);
}

static const mzm_drafter_ops with_passes = {
	.name = "jacobi", .about = "the model's own words behind its last guesses",
	.wants_choices = true, .predicts = predicts,
	.create = jacobi_create, .free = jacobi_free, .begin = jacobi_begin, .propose = jacobi_propose,
	.learn = jacobi_learn, .settings = jacobi_settings, .cost = cost, .try_pass = try_pass,
};
