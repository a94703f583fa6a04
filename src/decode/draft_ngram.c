/* draft_ngram.c - guesses what followed the last time that the text read as it does now (prompt lookup), without a
 * model: the continuation of the latest match of the longest ending of the text. It does not go past a special token,
 * and where guesses have failed again and again it rests for a while, longer each time. */
#include "decode/drafter.h"
#include "decode/ngram.h"

#include "base/mem.h"

#define MISSES      16 /* in a row, after which it rests */
#define SHORT_REST  8  /* rounds */
#define LONG_REST   64

typedef struct ngram_drafter {
	mzm_drafter          base;
	const mzm_tokenizer *tokenizer; /* NULL: there is none */
	mzm_ngram           *index;
	int32_t              n_misses;  /* lines in a row of which not even the first token stood */
	int32_t              rest;      /* rounds still to be silent for */
} ngram_drafter;

static mzm_status ngram_create(mzm_drafter **out, const mzm_draft_env *env, mzm_err *err)
{
	mzm_status st;
	ngram_drafter *d;
	MZM_TRY(mzm_alloc_for((void **)&d, sizeof *d, "the drafter", err));
	*d = (ngram_drafter){.base = {&mzm_draft_ngram}, .tokenizer = env->tokenizer};
	MZM_TRY_OUT(mzm_ngram_create(&d->index, env->n_ctx, err));
	*out = &d->base;
	return MZM_OK;
out:
	mzm_free(d);
	return st;
}

static void ngram_free(mzm_drafter *base)
{
	ngram_drafter *d = (ngram_drafter *)base;
	mzm_ngram_free(d->index);
	mzm_free(d);
}

static void ngram_begin(mzm_drafter *base, const int32_t *ids, int32_t n)
{
	mzm_ngram_extend(((ngram_drafter *)base)->index, ids, n);
}

static mzm_status ngram_propose(mzm_drafter *base, mzm_draft_job *job, mzm_err *err)
{
	ngram_drafter *d = (ngram_drafter *)base;
	int32_t k;
	(void)err;
	if (d->rest > 0)
		d->rest--;
	if (d->rest > 0 || job->max < 1)
		return MZM_OK;
	int32_t at = mzm_ngram_find(d->index, job->ids, job->n, &k);
	/* Past the end of the text the continuation is the guess itself, as LZ77 copies: if the match has a whole
	 * repetition of it. */
	int32_t end = k >= job->n - at ? INT32_MAX : job->n;
	for (bool ends = at < 0; !ends && at < end; at++)
		ends = (d->tokenizer && mzm_token_is_special(d->tokenizer, job->ids[at])) ||
		       mzm_draft_guess(job, job->ids[at]);
	return MZM_OK;
}

static void ngram_learn(mzm_drafter *base, const mzm_draft_news *news)
{
	ngram_drafter *d = (ngram_drafter *)base;
	mzm_ngram_extend(d->index, news->ids, news->n);
	if (news->n_draft < 1)
		return;
	d->n_misses = news->n_kept ? 0 : d->n_misses + 1;
	if (d->n_misses < MISSES)
		return;
	int32_t doubled = d->n_misses - MISSES;
	d->rest = doubled > 3 ? LONG_REST : SHORT_REST << doubled;
}

const mzm_drafter_ops mzm_draft_ngram = {
	.name = "ngram", .about = "what followed when the text read so before",
	.create = ngram_create, .free = ngram_free, .begin = ngram_begin, .propose = ngram_propose,
	.learn = ngram_learn,
};
