/* carve.h - lays many arrays out in one block.
 *
 * A `*_layout(x, carve)` function runs twice: with base NULL to measure, then with the block to
 * place. One function decides both, so size and layout cannot disagree. Overflow is sticky: test
 * c->overflow once, after measuring. */
#ifndef MZM_CARVE_H
#define MZM_CARVE_H

#include "base/mem.h"

typedef struct mzm_carve {
	char  *base;     /* NULL while measuring */
	size_t used;     /* bytes so far */
	bool   overflow;
} mzm_carve;

/* Next array of n elements of the given size, 64-byte aligned; NULL while measuring. */
static inline void *mzm_carve_take(mzm_carve *c, size_t n, size_t elem_bytes)
{
	size_t bytes, padded, used;
	if (!mzm_mul_size(n, elem_bytes, &bytes) || !mzm_pad_size(bytes, MZM_ALIGN, &padded) ||
	    !mzm_add_size(c->used, padded, &used)) {
		c->overflow = true;
		return NULL;
	}
	void *p = c->base ? c->base + c->used : NULL;
	c->used = used;
	return p;
}

#define MZM_CARVE(c, type, n) ((type *)mzm_carve_take((c), (size_t)(n), sizeof(type)))

#endif
