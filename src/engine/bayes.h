/* bayes.h - the best of many strings of bits by few measurements: Bayesian optimisation with a Gaussian process.
 *
 * The process has a linear part (what each bit is worth by itself) and one that falls off with the number of bits that
 * differ; how much of each, and how fast, is what makes the measurements likeliest. Next comes the string of the
 * largest expected improvement among those near the best so far, mixtures of good ones and random ones. Up to a few
 * hundred measurements of a few hundred bits. A function of the seed and what it was told, on any number of threads. */
#ifndef MZM_BAYES_H
#define MZM_BAYES_H

#include "kern/threads.h"

typedef struct mzm_bayes mzm_bayes;

/* most: measurements that it will be told of. -> mzm_bayes_free */
mzm_status mzm_bayes_create(mzm_bayes **out, int32_t n_bits, int32_t most, uint64_t seed, mzm_team *team, mzm_err *err);
void       mzm_bayes_free(mzm_bayes *b);
/* A measurement: larger is better. A string that was told before is passed over. */
void       mzm_bayes_tell(mzm_bayes *b, const uint8_t *bits, double value);
bool       mzm_bayes_knows(const mzm_bayes *b, const uint8_t *bits);
/* What to measure next: bits [n_bits], which it was not told of. False: it knows nothing better to ask. */
mzm_status mzm_bayes_ask(mzm_bayes *b, uint8_t *bits, bool *found, mzm_err *err);
/* The best so far, and what it was worth. There must be one. */
const uint8_t *mzm_bayes_best(const mzm_bayes *b, double *value);

#endif
