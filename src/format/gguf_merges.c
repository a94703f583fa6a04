/* gguf_merges.c - see gguf_merges.h.
 *
 * A hash table finds the pieces; each piece is cut between all its characters. 32,000 pieces have some 200,000
 * cuts, of which 60,000 are merges. Files are strangers': a piece longer than MAX_PIECE bytes is refused, because
 * its cuts take time by the square of its length, and more than MAX_MERGES merges are, because they take memory. */
#include "format/gguf_merges.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/str.h"
#include "format/tokenizer_utf8.h"

#define MAX_PIECE  ((size_t)512)
#define MAX_MERGES ((size_t)1 << 22)

typedef struct slot {
	uint32_t tag;
	uint32_t i1; /* index of the piece + 1; 0 = free */
} slot;

typedef struct merge {
	float score;
	uint32_t piece; /* index */
	uint32_t cut;   /* bytes of the left half */
} merge;

typedef struct deriving {
	const mzm_gguf_piece *pieces;
	size_t n;
	slot *slots; /* [mask + 1] open addressing */
	size_t mask;
	uint64_t seed;
	merge *merges; /* [n_merges] */
	size_t n_merges, cap;
} deriving;

static slot *slot_of(const deriving *d, const char *s, size_t len)
{
	uint64_t h = XXH3_64bits_withSeed(s, len, d->seed);
	for (size_t i = (size_t)h & d->mask;; i = (i + 1) & d->mask) {
		slot *at = &d->slots[i];
		if (!at->i1)
			return at;
		const mzm_gguf_text *t = &d->pieces[at->i1 - 1].text;
		if (at->tag == (uint32_t)(h >> 32) && t->n == len && memcmp(t->s, s, len) == 0)
			return at;
	}
}

static mzm_status fill_table(deriving *d, mzm_err *err)
{
	size_t n_slots = 16;
	while (n_slots < 2 * d->n)
		n_slots *= 2;
	d->mask = n_slots - 1;
	d->seed = mzm_rng_mix((uint64_t)mzm_now_ns() ^ (uint64_t)(uintptr_t)d);
	MZM_TRY(mzm_alloc_for((void **)&d->slots, n_slots * sizeof *d->slots, "pieces", err));
	for (size_t i = 0; i < d->n; i++) {
		const mzm_gguf_piece *p = &d->pieces[i];
		if (p->text.n > MAX_PIECE)
			return mzm_fail(err, MZM_EUNSUPPORTED, "token %d has %zu bytes, more than %zu", (int)p->id,
					p->text.n, MAX_PIECE);
		if (!isfinite(p->score))
			return mzm_fail(err, MZM_EFORMAT, "the score of token %d is not a number", (int)p->id);
		slot *at = slot_of(d, p->text.s, p->text.n);
		at->tag = (uint32_t)(XXH3_64bits_withSeed(p->text.s, p->text.n, d->seed) >> 32);
		at->i1 = (uint32_t)i + 1;
	}
	return MZM_OK;
}

static mzm_status add_merge(deriving *d, size_t piece, size_t cut, mzm_err *err)
{
	if (d->n_merges == MAX_MERGES)
		return mzm_fail(err, MZM_EUNSUPPORTED, "the tokens make more than %zu merges", MAX_MERGES);
	if (d->n_merges == d->cap) {
		size_t cap = d->cap ? 2 * d->cap : 1024;
		merge *grown = mzm_realloc(d->merges, d->cap * sizeof *grown, cap * sizeof *grown);
		if (!grown)
			return mzm_fail(err, MZM_ENOMEM, "out of memory for merges");
		d->merges = grown;
		d->cap = cap;
	}
	d->merges[d->n_merges++] =
		(merge){.score = d->pieces[piece].score, .piece = (uint32_t)piece, .cut = (uint32_t)cut};
	return MZM_OK;
}

static mzm_status find_merges(deriving *d, mzm_err *err)
{
	for (size_t i = 0; i < d->n; i++) {
		const mzm_gguf_text t = d->pieces[i].text;
		size_t len;
		for (size_t cut = 0; cut < t.n; cut += len) {
			mzm_utf8_next(t.s + cut, &len);
			if (cut && slot_of(d, t.s, cut)->i1 && slot_of(d, t.s + cut, t.n - cut)->i1)
				MZM_TRY(add_merge(d, i, cut, err));
		}
	}
	return MZM_OK;
}

/* Best score first, then the order of the file. */
static int by_score(const void *a, const void *b)
{
	const merge *x = a, *y = b;
	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	if (x->piece != y->piece)
		return x->piece < y->piece ? -1 : 1;
	return x->cut < y->cut ? -1 : x->cut > y->cut;
}

static mzm_status write_merges(const deriving *d, json_t *list, json_t *ranks, mzm_err *err)
{
	char text[MAX_PIECE + 1];
	json_int_t rank = 0;
	for (size_t i = 0; i < d->n_merges; i++) {
		const merge *m = &d->merges[i];
		const mzm_gguf_text t = d->pieces[m->piece].text;
		memcpy(text, t.s, m->cut);
		text[m->cut] = ' ';
		memcpy(text + m->cut + 1, t.s + m->cut, t.n - m->cut);
		rank += i > 0 && d->merges[i - 1].score != m->score;
		if (json_array_append_new(list, json_stringn_nocheck(text, t.n + 1)) != 0 ||
		    json_array_append_new(ranks, json_integer(rank)) != 0)
			return mzm_fail(err, MZM_ENOMEM, "out of memory for merges");
	}
	return MZM_OK;
}

mzm_status mzm_gguf_merges(json_t *model, const mzm_gguf_piece *pieces, size_t n, mzm_err *err)
{
	deriving d = {.pieces = pieces, .n = n};
	json_t *list = json_array(), *ranks = json_array();
	mzm_status st = MZM_OK;
	if (json_object_set_new(model, "merges", list) != 0 || json_object_set_new(model, "ranks", ranks) != 0)
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "out of memory for merges"));
	MZM_TRY_OUT(fill_table(&d, err));
	MZM_TRY_OUT(find_merges(&d, err));
	if (d.n_merges > 1)
		qsort(d.merges, d.n_merges, sizeof *d.merges, by_score);
	MZM_TRY_OUT(write_merges(&d, list, ranks, err));
out:
	mzm_free(d.slots);
	mzm_free(d.merges);
	return st;
}
