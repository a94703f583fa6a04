/* tokenizer_vocab.c - the tokens of one tokenizer, by id and by content.
 *
 * Contents lie in one arena, each with a NUL behind it; two tables lead there, one by id and a hash
 * table by content. 150,000 tokens take some 6 MB and 30 ms. Ids may have holes, within bounds that keep
 * memory in proportion to the file. Hashes are seeded per tokenizer, so a file cannot prepare collisions. */
#include <math.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/clock.h"
#include "base/rng.h"
#include "format/tokenizer_impl.h"

uint64_t mzm_vocab_hash(const mzm_vocab *v, const void *s, size_t len)
{
	return XXH3_64bits_withSeed(s, len, v->seed);
}

/* The slot of this content, or the free one where it would go. */
static mzm_tok_slot *slot_of(const mzm_vocab *v, const char *s, size_t len)
{
	uint64_t h = mzm_vocab_hash(v, s, len);
	uint32_t tag = (uint32_t)(h >> 32);
	for (uint32_t i = (uint32_t)h & v->mask;; i = (i + 1) & v->mask) {
		mzm_tok_slot *slot = &v->slots[i];
		if (!slot->id1)
			return slot;
		const mzm_tok_token *t = &v->tokens[slot->id1 - 1];
		if (slot->hash == tag && t->content_len == len && memcmp(v->arena + t->content, s, len) == 0)
			return slot;
	}
}

int32_t mzm_vocab_find(const mzm_vocab *v, const char *s, size_t len)
{
	return (int32_t)slot_of(v, s, len)->id1 - 1;
}

int32_t mzm_vocab_find_model(const mzm_vocab *v, const char *s, size_t len)
{
	int32_t id = mzm_vocab_find(v, s, len);
	return id >= 0 && (v->flags[id] & MZM_TOKEN_MODEL) ? id : -1;
}

/* A whole number that can be an id. */
static mzm_status check_id(const json_t *value, const char *content, size_t len, int32_t *id, mzm_err *err)
{
	if (!json_is_number(value))
		return mzm_fail(err, MZM_EFORMAT, "token \"%s\": the id is not a number",
				mzm_tok_quote(content, len).s);
	double d = json_number_value(value);
	if (!(d >= 0) || d != floor(d) || d >= MZM_TOK_MAX_ID)
		return mzm_fail(err, MZM_EFORMAT, "token \"%s\": id %.17g is not a whole number of 0 .. %d",
				mzm_tok_quote(content, len).s, d, MZM_TOK_MAX_ID - 1);
	if (len > MZM_TOK_MAX_CONTENT)
		return mzm_fail(err, MZM_EFORMAT, "token \"%s\" has %zu bytes, more than %zu",
				mzm_tok_quote(content, len).s, len, MZM_TOK_MAX_CONTENT);
	*id = (int32_t)d;
	return MZM_OK;
}

/* What both passes over the file see of one token. */
typedef struct entry {
	const char *s;
	size_t len;
	int32_t id;
	unsigned flags;
} entry;

static mzm_status added_entry(const json_t *added, size_t i, entry *e, mzm_err *err)
{
	const json_t *obj = json_array_get(added, i);
	bool special;
	mzm_status st;
	const json_t *content = json_object_get(obj, "content");
	if (!json_is_string(content)) {
		st = mzm_fail(err, MZM_EFORMAT, "no string \"content\"");
	} else {
		e->s = json_string_value(content);
		e->len = json_string_length(content);
		st = check_id(json_object_get(obj, "id"), e->s, e->len, &e->id, err);
	}
	if (st == MZM_OK)
		st = mzm_json_bool(obj, "special", false, &special, err);
	if (st != MZM_OK) {
		mzm_err_prefix(err, "added_tokens[%zu]", i);
		return st;
	}
	e->flags = MZM_TOKEN_ADDED | (special ? MZM_TOKEN_SPECIAL : 0u);
	return MZM_OK;
}

typedef mzm_status visitor(mzm_vocab *v, const entry *e, mzm_err *err);

/* A list: each token's place is its id. */
static mzm_status each_listed(const json_t *vocab, mzm_vocab *v, visitor *visit, mzm_err *err)
{
	for (size_t i = 0; i < json_array_size(vocab); i++) {
		const json_t *text = json_array_get(vocab, i);
		if (json_is_array(text))
			text = json_array_get(text, 0);
		if (!json_is_string(text))
			return mzm_fail(err, MZM_EFORMAT, "vocab[%zu] has no string", i);
		entry e = {.s = json_string_value(text), .len = json_string_length(text), .flags = MZM_TOKEN_MODEL};
		if (i >= (size_t)MZM_TOK_MAX_ID || e.len > MZM_TOK_MAX_CONTENT)
			return mzm_fail(err, MZM_EFORMAT, "vocab[%zu] \"%s\": too many or too long", i,
					mzm_tok_quote(e.s, e.len).s);
		e.id = (int32_t)i;
		MZM_TRY(visit(v, &e, err));
	}
	return MZM_OK;
}

static mzm_status each_named(const json_t *vocab, mzm_vocab *v, visitor *visit, mzm_err *err)
{
	json_t *obj = (json_t *)(uintptr_t)vocab; /* jansson's iterator wants it so; nothing is changed */
	for (void *it = json_object_iter(obj); it; it = json_object_iter_next(obj, it)) {
		entry e = {.s = json_object_iter_key(it), .flags = MZM_TOKEN_MODEL};
		e.len = strlen(e.s);
		MZM_TRY(check_id(json_object_iter_value(it), e.s, e.len, &e.id, err));
		MZM_TRY(visit(v, &e, err));
	}
	return MZM_OK;
}

/* Calls visit for each token: the model's in the file's order, then the added ones. */
static mzm_status each(const json_t *vocab, const json_t *added, mzm_vocab *v, visitor *visit, mzm_err *err)
{
	MZM_TRY(json_is_array(vocab) ? each_listed(vocab, v, visit, err) : each_named(vocab, v, visit, err));
	for (size_t i = 0; i < json_array_size(added); i++) {
		entry e = {0};
		MZM_TRY(added_entry(added, i, &e, err));
		MZM_TRY(visit(v, &e, err));
	}
	return MZM_OK;
}

static mzm_status measure(mzm_vocab *v, const entry *e, mzm_err *err)
{
	if (e->id >= v->n)
		v->n = e->id + 1;
	if (v->arena_len > MZM_TOK_MAX_TEXT)
		return mzm_fail(err, MZM_EFORMAT, "more than %zu bytes of tokens", MZM_TOK_MAX_TEXT);
	v->arena_len += e->len + 1;
	return MZM_OK;
}

/* The model's tokens first, then added ones: new, or naming one of the model's by its id and content. */
static mzm_status insert(mzm_vocab *v, const entry *e, mzm_err *err)
{
	mzm_tok_slot *slot = slot_of(v, e->s, e->len);
	int32_t known = (int32_t)slot->id1 - 1;
	if (known == e->id && (v->flags[known] & MZM_TOKEN_ADDED))
		return mzm_fail(err, MZM_EFORMAT, "added token \"%s\" is there twice", mzm_tok_quote(e->s, e->len).s);
	if (known >= 0 && known != e->id)
		return mzm_fail(err, MZM_EFORMAT, "token \"%s\" has the ids %d and %d", mzm_tok_quote(e->s, e->len).s,
				known, e->id);
	if (known < 0 && v->flags[e->id])
		return mzm_fail(err, MZM_EFORMAT, "id %d is given to \"%s\" and to \"%s\"", e->id,
				mzm_tok_quote(mzm_vocab_content(v, e->id), v->tokens[e->id].content_len).s,
				mzm_tok_quote(e->s, e->len).s);
	v->flags[e->id] = (uint8_t)(v->flags[e->id] | MZM_TOKEN_PRESENT | e->flags);
	if (known >= 0)
		return MZM_OK;
	v->tokens[e->id].content = (uint32_t)v->arena_len;
	v->tokens[e->id].content_len = (uint32_t)e->len;
	memcpy(v->arena + v->arena_len, e->s, e->len);
	v->arena_len += e->len + 1;
	slot->hash = (uint32_t)(mzm_vocab_hash(v, e->s, e->len) >> 32);
	slot->id1 = (uint32_t)e->id + 1;
	return MZM_OK;
}

mzm_status mzm_vocab_build(mzm_vocab *v, const json_t *vocab, const json_t *added, mzm_err *err)
{
	size_t n_slots = 16, n = json_object_size(vocab) + json_array_size(vocab) + json_array_size(added);
	if (!n)
		return mzm_fail(err, MZM_EFORMAT, "there is no token at all");
	MZM_TRY(each(vocab, added, v, measure, err));
	if ((size_t)v->n > MZM_TOK_ID_SLACK + 8 * n)
		return mzm_fail(err, MZM_EFORMAT, "id %d, but only %zu tokens", v->n - 1, n);
	while (n_slots < 2 * n)
		n_slots *= 2;
	v->mask = (uint32_t)n_slots - 1;
	v->seed = mzm_rng_mix((uint64_t)mzm_now_ns() ^ (uint64_t)(uintptr_t)v);
	MZM_TRY(mzm_alloc_for((void **)&v->tokens, (size_t)v->n * sizeof *v->tokens, "tokens", err));
	MZM_TRY(mzm_alloc_for((void **)&v->flags, (size_t)v->n, "tokens", err));
	MZM_TRY(mzm_alloc_for((void **)&v->arena, v->arena_len, "tokens", err));
	MZM_TRY(mzm_alloc_for((void **)&v->slots, n_slots * sizeof *v->slots, "tokens", err));
	v->arena_len = 0;
	return each(vocab, added, v, insert, err);
}

void mzm_vocab_byte_ids(const mzm_vocab *v, int32_t ids[256])
{
	static const char digits[] = "0123456789ABCDEF";
	for (unsigned i = 0; i < 256; i++) {
		const char name[6] = {'<', '0', 'x', digits[i >> 4], digits[i & 15], '>'};
		ids[i] = mzm_vocab_find_model(v, name, sizeof name);
	}
}

void mzm_vocab_free(mzm_vocab *v)
{
	mzm_free(v->tokens);
	mzm_free(v->flags);
	mzm_free(v->arena);
	mzm_free(v->slots);
	mzm_str_free(&v->bytes);
	*v = (mzm_vocab){0};
}
