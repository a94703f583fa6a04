/* fill.h - tensors that are computed instead of read: their rows, made by several threads. */
#ifndef MZM_FILL_H
#define MZM_FILL_H

#include <stdint.h>

/* Makes rows begin .. end-1. What a row becomes may depend on nothing but its number, so that the result does not
 * depend on who made it. */
typedef void (*mzm_fill_fn)(void *ctx, int32_t begin, int32_t end);

/* All n_rows rows, n_bytes in all, by up to n_threads threads; fewer when that is not worth it, or the system
 * refuses. Returns when all are made. */
void mzm_fill_rows(mzm_fill_fn fn, void *ctx, int32_t n_rows, uint64_t n_bytes, int n_threads);

#endif
