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
 * behind its own earlier guess. The pool is of fixed size and lives as long as the text. Nothing here runs a pass.
 *
 * Tokens a pass on 60 problems by the demo model at period 16, slide / block: prompt 1.20 / 1.17, ngram 1.64 / 1.57,
 * pool 1.62 / 1.55; with n-grams only for places without a guess 1.21 / 1.28 and 1.20 / 1.25. A model trained for
 * this (scripts/demo-model/cllm.py) does better alone: 3.06 / 2.56 by prompt on 100 problems. */
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

#define FORGET 0.95 /* a round, of which source was right */
#define MARGIN 2.0  /* so much more often must the model have been right than n-grams, to go before them */

_Static_assert((N_PLACES & (N_PLACES - 1)) == 0 && (N_GRAMS & (N_GRAMS - 1)) == 0, "indices are masked");

/* What the model said at one place, behind what it had said at the place before one iteration earlier, and so on. */
typedef struct chain {
	int32_t id[GRAM]; /* the last n of these */
	int32_t n;        /* 0: nothing is known */
} chain;

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
	int32_t              first_said, first_gram; /* for the first place of the line; -1: nothing */
	double               lead;           /* how much more often n-grams were right there, with forgetting */
} jacobi_drafter;

static const char *const forms[] = {"slide", "block"};
static const char *const seeds[] = {"prompt", "ngram", "pool"};

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

/* ---- create ---- */

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
	*d = (jacobi_drafter){.base = {&mzm_draft_jacobi}, .env = *env, .slides = is(form, "slide"),
			      .first_said = -1, .first_gram = -1};
	d->seed = env->p->jacobi_seed ? env->p->jacobi_seed : seeds[0];
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

/* The next guess of the line. What the model said was behind guesses of which one was wrong, or it would be text by
 * now; models that were trained for this are right all the same, and go before n-grams. */
static int32_t next_guess(jacobi_drafter *d, const mzm_draft_job *job)
{
	int32_t place = job->n + job->n_draft, i = place & (N_PLACES - 1);
	int32_t said = d->place[i] == place ? d->guess[i] : -1, gram = -1;
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

static mzm_status jacobi_propose(mzm_drafter *base, mzm_draft_job *job, mzm_err *err)
{
	jacobi_drafter *d = (jacobi_drafter *)base;
	int32_t n = line_length(d, job);
	bool ends = false;
	(void)err;
	d->run = NULL;
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

/* What a check said behind every token of the line, backwards: chains grow from those of the iteration before. */
static void jacobi_learn(mzm_drafter *base, const mzm_draft_news *news)
{
	jacobi_drafter *d = (jacobi_drafter *)base;
	compare_sources(d, news);
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
	.learn = jacobi_learn,
};
