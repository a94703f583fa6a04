/* ngram.c - see ngram.h. */
#include "decode/ngram.h"

#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

struct mzm_ngram {
	int32_t  n;        /* tokens of the text that are indexed */
	uint32_t mask;     /* slots of a table, less one */
	uint64_t n_probes;
	int32_t *slot[MZM_NGRAM_MAX]; /* [mask + 1] of k-grams, k = 1 ..: the place behind one; 0: empty */
	int32_t  slots[];
};

/* Half of the slots stay empty, so that probing is short. */
static size_t slots_for(int32_t n_ctx)
{
	size_t n = 16;
	while (n < 2 * (size_t)n_ctx)
		n *= 2;
	return n;
}

size_t mzm_ngram_bytes(int32_t n_ctx)
{
	size_t bytes;
	bool fits = mzm_mul_size(slots_for(n_ctx), MZM_NGRAM_MAX * sizeof(int32_t), &bytes) &&
		    mzm_add_size(bytes, sizeof(mzm_ngram), &bytes);
	return fits ? bytes : SIZE_MAX;
}

mzm_status mzm_ngram_create(mzm_ngram **out, int32_t n_ctx, mzm_err *err)
{
	mzm_ngram *x;
	if (n_ctx < 1)
		return mzm_fail(err, MZM_EARG, "no index of n-grams for a context of %d tokens", n_ctx);
	size_t n_slots = slots_for(n_ctx);
	MZM_TRY(mzm_alloc_for((void **)&x, mzm_ngram_bytes(n_ctx), "the index of n-grams", err));
	x->mask = (uint32_t)(n_slots - 1);
	for (int32_t k = 0; k < MZM_NGRAM_MAX; k++)
		x->slot[k] = x->slots + (size_t)k * n_slots;
	*out = x;
	return MZM_OK;
}

void mzm_ngram_free(mzm_ngram *x)
{
	mzm_free(x);
}

uint64_t mzm_ngram_probes(const mzm_ngram *x)
{
	return x->n_probes;
}

/* The slot of the k tokens before `end`: theirs, or the empty one that they would take. NULL: too many others are in
 * the way, and this k-gram is not indexed. */
static int32_t *slot_for(mzm_ngram *x, const int32_t *ids, int32_t end, int32_t k, uint64_t hash)
{
	int32_t *table = x->slot[k - 1];
	for (uint32_t i = 0; i < MZM_NGRAM_PROBES; i++) {
		int32_t *slot = table + (((uint32_t)hash + i) & x->mask);
		x->n_probes++;
		if (*slot == 0 || memcmp(ids + *slot - k, ids + end - k, (size_t)k * sizeof *ids) == 0)
			return slot;
	}
	return NULL;
}

static uint64_t hash_of(uint64_t hash, int32_t id)
{
	return mzm_rng_mix(hash ^ (uint64_t)(uint32_t)id);
}

/* Token `at` follows the k-grams that end before it. */
static void insert(mzm_ngram *x, const int32_t *ids, int32_t at)
{
	uint64_t hash = 0;
	for (int32_t k = 1; k <= MZM_NGRAM_MAX && k <= at; k++) {
		hash = hash_of(hash, ids[at - k]);
		int32_t *slot = slot_for(x, ids, at, k, hash);
		if (slot)
			*slot = at;
	}
}

void mzm_ngram_extend(mzm_ngram *x, const int32_t *ids, int32_t n)
{
	for (; x->n < n; x->n++)
		insert(x, ids, x->n);
}

int32_t mzm_ngram_find(mzm_ngram *x, const int32_t *ids, int32_t n, int32_t *k)
{
	uint64_t hash = 0;
	int32_t found = -1;
	*k = 0;
	for (int32_t len = 1; len <= MZM_NGRAM_MAX && len <= n; len++) { /* of a longer one the shorter is an ending */
		hash = hash_of(hash, ids[n - len]);
		const int32_t *slot = slot_for(x, ids, n, len, hash);
		if (!slot || *slot == 0)
			break;
		found = *slot;
		*k = len;
	}
	return found;
}
