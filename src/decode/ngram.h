/* ngram.h - where the latest tokens of a text stood before, and what followed them there.
 *
 * Workload: one text at a time, a prompt of up to 100k tokens at once, then a few tokens a round, and a look-up for
 * each draft. For every k up to MZM_NGRAM_MAX a hash table with open addressing maps the text's k-grams to the latest
 * place where a token followed; an entry is its place in the text, which tells whether it is the right one. A token
 * costs MZM_NGRAM_MAX insertions of a bounded number of probes, whatever the text is. All memory is taken when it is
 * made: 64 to 128 bytes for each token of the context. It does not keep the text, which callers hand in. */
#ifndef MZM_NGRAM_H
#define MZM_NGRAM_H

#include "base/err.h"

#define MZM_NGRAM_MAX 8 /* tokens of the longest match */
#define MZM_NGRAM_PROBES 64 /* of a look-up in one table, at most */

typedef struct mzm_ngram mzm_ngram;

mzm_status mzm_ngram_create(mzm_ngram **out, int32_t n_ctx, mzm_err *err);
size_t     mzm_ngram_bytes(int32_t n_ctx); /* what it takes; SIZE_MAX: more than there can be */
void       mzm_ngram_free(mzm_ngram *x);

/* The text has become ids[0..n), n <= n_ctx: what it was at the last call, and more. */
void       mzm_ngram_extend(mzm_ngram *x, const int32_t *ids, int32_t n);
/* ids[0..n) are the text, or the text and guesses behind it. Of the longest ending of ids that a token follows in the
 * text: where the latest such token is; *k: the tokens of that ending. -1: none. */
int32_t    mzm_ngram_find(mzm_ngram *x, const int32_t *ids, int32_t n, int32_t *k);

/* For tests: slots looked at so far. */
uint64_t   mzm_ngram_probes(const mzm_ngram *x);

#endif
