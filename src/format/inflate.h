/* inflate.h - a source that is another one made wider without changing what it computes.
 *
 * Net2Net (arXiv 1511.05641) on every axis: residual stream, attention heads (queries and keys alike) and FFN neurons
 * are repeated `factor` times; copy s of element j is element s * n + j. A matrix W becomes factor x factor blocks;
 * block (s, r), which maps input copy r to output copy s, is c[s][r] W with the sum of c[s][r] over the copies of the
 * input equal to 1. The c are random, (1 + u) / factor normalised, u in (-0.5, 0.5), other ones for each tensor, so
 * that no two copies are equal bytes. Embedding rows and norms are repeated as they are; the output norm of a model
 * with a tied head is divided by factor, because each logit is then the sum of that many equal parts.
 *
 * Rounding: what a copy loses when it is rounded to the weight's type is added to the next copy before that one is
 * rounded. So the copies add up to the original weight within what the last one alone lost: in bf16 at most 2^-8 of
 * that copy, so about 2^-9 / factor of the weight. The tokens are those of the source, up to ties. Further
 * quantisation hurts less than it would hurt a trained model of that size, because its errors partly average out over
 * the copies: whoever shows figures of such a model must say that it is inflated. Weights that are NaN or infinite
 * are refused. */
#ifndef MZM_INFLATE_H
#define MZM_INFLATE_H

#include "format/source.h"

#define MZM_MAX_INFLATE 1024

/* 1 <= factor <= MZM_MAX_INFLATE; 1 changes nothing. On success inner belongs to the new source and is closed with
 * it; on failure it stays the caller's. Types and tokenizer are inner's. EUNSUPPORTED for quantised weights and for
 * a model that is inflated already. -> mzm_source_close */
mzm_status mzm_source_open_inflated(mzm_source **out, mzm_source *inner, int32_t factor, uint64_t seed, mzm_err *err);
/* Threads that make a tensor; 0: the cores this process may use, as after opening. */
void mzm_inflate_set_threads(mzm_source *src, int n_threads);

#endif
