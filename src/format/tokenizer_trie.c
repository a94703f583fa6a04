/* tokenizer_trie.c - tokens by their beginnings: which of them start at this place of a text?
 *
 * One hash table holds the edges, (node, byte) -> (node, token that ends there), so a step is one look-up and what
 * real text walks through stays in the cache. A table of 250,000 tokens takes 16 to 32 MB and some 50 ms. Its
 * factor is random and odd (multiply-shift hashing), so a file cannot prepare collisions. */
#include "format/tokenizer_impl.h"

#define FIRST_BITS 10

static mzm_status make_slots(mzm_trie *t, int bits, mzm_err *err)
{
	MZM_TRY(mzm_alloc_for((void **)&t->slots, sizeof *t->slots << bits, "tokens", err));
	t->mask = ((uint64_t)1 << bits) - 1;
	t->shift = 64 - bits;
	return MZM_OK;
}

mzm_status mzm_trie_init(mzm_trie *t, uint64_t seed, mzm_err *err)
{
	*t = (mzm_trie){.factor = seed | 1, .n_nodes = 1};
	return make_slots(t, FIRST_BITS, err);
}

void mzm_trie_free(mzm_trie *t)
{
	mzm_free(t->slots);
	*t = (mzm_trie){0};
}

/* The edge's slot, or the free one where it would go. */
static mzm_trie_slot *slot_of(mzm_trie *t, uint64_t key)
{
	uint64_t i = key * t->factor >> t->shift;
	while (t->slots[i].key && t->slots[i].key != key)
		i = (i + 1) & t->mask;
	return &t->slots[i];
}

static mzm_status double_slots(mzm_trie *t, mzm_err *err)
{
	mzm_trie old = *t;
	if (t->n_nodes > UINT32_MAX / 4)
		return mzm_fail(err, MZM_EUNSUPPORTED, "the vocabulary is too large");
	mzm_status st = make_slots(t, 64 - old.shift + 1, err);
	if (st != MZM_OK) {
		*t = old;
		return st;
	}
	for (uint64_t i = 0; i <= old.mask; i++)
		if (old.slots[i].key)
			*slot_of(t, old.slots[i].key) = old.slots[i];
	mzm_free(old.slots);
	return MZM_OK;
}

mzm_status mzm_trie_add(mzm_trie *t, const char *s, size_t len, int32_t id, mzm_err *err)
{
	uint32_t node = 0;
	for (size_t i = 0; i < len; i++) {
		if ((uint64_t)t->n_nodes * 2 > t->mask)
			MZM_TRY(double_slots(t, err));
		uint64_t key = ((uint64_t)node + 1) << 8 | (unsigned char)s[i];
		mzm_trie_slot *slot = slot_of(t, key);
		if (!slot->key)
			*slot = (mzm_trie_slot){.key = key, .child = t->n_nodes++, .id = -1};
		if (i + 1 == len)
			slot->id = id;
		node = slot->child;
	}
	if (len > t->max_len)
		t->max_len = len;
	return MZM_OK;
}
