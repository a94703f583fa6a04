/* tokenizer_bpe.c - byte-pair encoding: reads the merges, and turns words into ids with them.
 *
 * A word starts as one symbol per character; the neighbouring pair of lowest rank, leftmost among equals,
 * is merged until none is left. Merges lie in a hash table (left id, right id) -> (rank, id made).
 *
 * Short words scan an array for the lowest rank. Long ones (SentencePiece-style files have no words: the
 * whole text is one) keep a queue of candidates over a linked list, n log n at worst. But first a long word is cut
 * wherever no merge can ever join the two symbols: every pair of neighbouring characters inside a token
 * was joined by some merge, at whose seam they stand, so a filter over all seams knows. Cutting there
 * cannot change the result, and nearly every blank is such a place. */
#include "format/tokenizer_impl.h"

#define CUT_FROM    16 /* symbols before a word is worth cutting */
#define SCAN_MAX    48 /* symbols merged by scanning; more need the queue */
#define LISTS_FROM  512 /* symbols before lists by rank are worth their table */
#define MAX_RANKS   ((uint32_t)1 << 22)
#define MAX_SYMBOLS ((size_t)1 << 30)

/* ---- reading ---- */

static uint64_t pair_hash(const mzm_tokenizer *tok, int32_t left, int32_t right)
{
	const int32_t pair[2] = {left, right};
	return mzm_vocab_hash(&tok->vocab, pair, sizeof pair);
}

/* The slot of the pair, or the free one where it would go. */
static mzm_merge *merge_slot(const mzm_tokenizer *tok, int32_t left, int32_t right)
{
	const mzm_bpe *b = &tok->bpe;
	for (uint32_t i = (uint32_t)pair_hash(tok, left, right) & b->mask;; i = (i + 1) & b->mask) {
		mzm_merge *m = &b->slots[i];
		if (!m->rank1 || (m->left == left && m->right == right))
			return m;
	}
}

static bool may_join(const mzm_tokenizer *tok, int32_t left, int32_t right)
{
	uint64_t h = (pair_hash(tok, left, right) >> 20) & tok->bpe.join_mask;
	return tok->bpe.joins[h >> 6] >> (h & 63) & 1;
}

/* The two halves of one merge, "a b" or ["a", "b"]. */
typedef struct halves {
	const char *s[2];
	size_t len[2];
} halves;

static mzm_status get_halves(const json_t *merge, halves *h, mzm_err *err)
{
	if (json_is_string(merge)) {
		const char *s = json_string_value(merge);
		size_t len = json_string_length(merge);
		const char *blank = memchr(s, ' ', len);
		if (!blank || memchr(blank + 1, ' ', len - (size_t)(blank + 1 - s)))
			return mzm_fail(err, MZM_EFORMAT, "\"%s\" is not two tokens with a blank between",
					mzm_tok_quote(s, len).s);
		*h = (halves){.s = {s, blank + 1}, .len = {(size_t)(blank - s), len - (size_t)(blank + 1 - s)}};
	} else if (json_is_array(merge) && json_array_size(merge) == 2 && json_is_string(json_array_get(merge, 0)) &&
		   json_is_string(json_array_get(merge, 1))) {
		for (size_t i = 0; i < 2; i++) {
			h->s[i] = json_string_value(json_array_get(merge, i));
			h->len[i] = json_string_length(json_array_get(merge, i));
		}
	} else {
		return mzm_fail(err, MZM_EFORMAT, "neither a string nor a pair of strings");
	}
	if (!h->len[0] || !h->len[1])
		return mzm_fail(err, MZM_EFORMAT, "an empty half");
	return MZM_OK;
}

static mzm_status find_token(const mzm_tokenizer *tok, const char *s, size_t len, int32_t *id, mzm_err *err)
{
	*id = mzm_vocab_find_model(&tok->vocab, s, len);
	if (*id < 0)
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is not in the vocabulary", mzm_tok_quote(s, len).s);
	return MZM_OK;
}

/* A byte or the unknown token. */
static bool is_odd_symbol(const mzm_bpe *b, int32_t id, const char *s, size_t len)
{
	return id == b->unk_id || (b->byte_fallback && mzm_byte_of_name(s, len) >= 0);
}

/* Marks the two symbols at the seam of this merge as joinable. */
static void add_seam(mzm_tokenizer *tok, const halves *h, int32_t left, int32_t right)
{
	size_t at = mzm_utf8_back(h->s[0], h->len[0]);
	int32_t last = mzm_vocab_find_model(&tok->vocab, h->s[0] + at, h->len[0] - at);
	int32_t first = mzm_vocab_find_model(&tok->vocab, h->s[1], mzm_utf8_need((unsigned char)h->s[1][0]));
	const mzm_bpe *b = &tok->bpe;
	/* these are symbols though their content is longer than a character: their seams are not known */
	if (is_odd_symbol(b, left, h->s[0], h->len[0]) || is_odd_symbol(b, right, h->s[1], h->len[1]))
		tok->bpe.cuts = false;
	if (last < 0 || first < 0)
		return; /* this merge can never apply */
	uint64_t bit = (pair_hash(tok, last, first) >> 20) & b->join_mask;
	b->joins[bit >> 6] |= (uint64_t)1 << (bit & 63);
}

/* Our own addition to the format: "ranks" gives each merge a rank that others may share. */
static mzm_status get_rank(const json_t *ranks, size_t i, size_t *rank, mzm_err *err)
{
	*rank = i;
	if (!ranks)
		return MZM_OK;
	const json_t *value = json_array_get(ranks, i);
	double d = json_is_number(value) ? json_number_value(value) : -1;
	if (!(d >= 0 && d < INT32_MAX) || d != (double)(int32_t)d)
		return mzm_fail(err, MZM_EFORMAT, "its rank is not a whole number of 0 .. %d", INT32_MAX - 1);
	*rank = (size_t)d;
	return MZM_OK;
}

static mzm_status add_merge(mzm_tokenizer *tok, const json_t *merge, size_t rank, mzm_str *both, mzm_err *err)
{
	halves h;
	int32_t left, right, made;
	MZM_TRY(get_halves(merge, &h, err));
	MZM_TRY(find_token(tok, h.s[0], h.len[0], &left, err));
	MZM_TRY(find_token(tok, h.s[1], h.len[1], &right, err));
	both->len = 0;
	mzm_str_add(both, h.s[0], h.len[0]);
	mzm_str_add(both, h.s[1], h.len[1]);
	if (both->failed)
		return mzm_fail(err, MZM_ENOMEM, "out of memory for merges");
	MZM_TRY(find_token(tok, both->data, both->len, &made, err));
	*merge_slot(tok, left, right) =
		(mzm_merge){.left = left, .right = right, .made = made, .rank1 = (uint32_t)rank + 1};
	add_seam(tok, &h, left, right);
	if (rank + 2 > tok->bpe.n_ranks)
		tok->bpe.n_ranks = (uint32_t)rank + 2;
	return MZM_OK;
}

static mzm_status parse_merges(mzm_tokenizer *tok, const json_t *model, mzm_err *err)
{
	const json_t *merges = json_object_get(model, "merges"), *ranks = json_object_get(model, "ranks");
	size_t n = json_array_size(merges), n_slots = 16, n_bits = 1024, rank;
	if (!json_is_array(merges))
		return mzm_fail(err, MZM_EFORMAT, "\"merges\" is not an array");
	if (ranks && (!json_is_array(ranks) || json_array_size(ranks) != n))
		return mzm_fail(err, MZM_EFORMAT, "\"ranks\" is not an array as long as \"merges\"");
	if (n > INT32_MAX / 4)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%zu merges", n);
	while (n_slots < n + n / 2 + 1)
		n_slots *= 2;
	while (n_bits < 16 * n)
		n_bits *= 2;
	tok->bpe.mask = (uint32_t)n_slots - 1;
	tok->bpe.join_mask = n_bits - 1;
	tok->bpe.cuts = true;
	MZM_TRY(mzm_alloc_for((void **)&tok->bpe.slots, n_slots * sizeof *tok->bpe.slots, "merges", err));
	MZM_TRY(mzm_alloc_for((void **)&tok->bpe.joins, n_bits / 8, "merges", err));
	mzm_str both = {0};
	mzm_status st = MZM_OK;
	for (size_t i = 0; i < n && st == MZM_OK; i++) {
		st = get_rank(ranks, i, &rank, err);
		if (st == MZM_OK)
			st = add_merge(tok, json_array_get(merges, i), rank, &both, err);
		if (st != MZM_OK)
			mzm_err_prefix(err, "merges[%zu]", i);
	}
	mzm_str_free(&both);
	if (tok->bpe.n_ranks > MAX_RANKS)
		tok->bpe.n_ranks = 0;
	return st;
}

static mzm_status refuse_options(const json_t *model, mzm_err *err)
{
	static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
	double dropout;
	const char *s;
	MZM_TRY(mzm_json_real(model, "dropout", 0, 1, 0, &dropout, err));
	if (dropout != 0)
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"dropout\" is not supported");
	for (int i = 0; i < 2; i++) {
		MZM_TRY(mzm_json_string(model, affixes[i], "", &s, err));
		if (*s)
			return mzm_fail(err, MZM_EUNSUPPORTED, "\"%s\" is not supported", affixes[i]);
	}
	return MZM_OK;
}

/* Ids of single bytes and of the first characters: what a word is made of before merging. */
static void find_symbols(mzm_tokenizer *tok)
{
	char utf8[4];
	mzm_vocab_byte_ids(&tok->vocab, tok->bpe.byte_ids);
	for (uint32_t c = 0; c < sizeof tok->bpe.char_ids / sizeof *tok->bpe.char_ids; c++)
		tok->bpe.char_ids[c] = mzm_vocab_find_model(&tok->vocab, utf8, mzm_utf8_put(c, utf8));
}

static mzm_status bpe_parse(mzm_tokenizer *tok, const json_t *model, mzm_err *err)
{
	mzm_bpe *b = &tok->bpe;
	const char *unk;
	b->unk_id = -1;
	MZM_TRY(refuse_options(model, err));
	MZM_TRY(mzm_json_bool(model, "ignore_merges", false, &b->ignore_merges, err));
	MZM_TRY(mzm_json_bool(model, "byte_fallback", false, &b->byte_fallback, err));
	MZM_TRY(mzm_json_bool(model, "fuse_unk", false, &b->fuse_unk, err));
	MZM_TRY(mzm_json_string(model, "unk_token", NULL, &unk, err));
	if (unk) {
		size_t len = strlen(unk);
		b->unk_id = mzm_vocab_find_model(&tok->vocab, unk, len);
		if (b->unk_id < 0)
			return mzm_fail(err, MZM_EFORMAT, "unk_token \"%s\" is not in the vocabulary",
					mzm_tok_quote(unk, len).s);
	}
	find_symbols(tok);
	return parse_merges(tok, model, err);
}

static void bpe_free(mzm_tokenizer *tok)
{
	mzm_free(tok->bpe.slots);
	mzm_free(tok->bpe.joins);
}

/* ---- merging a short word ---- */

static const mzm_merge *look_up(const mzm_tokenizer *tok, int32_t left, int32_t right)
{
	static const mzm_merge none = {.rank1 = UINT32_MAX};
	const mzm_merge *m = merge_slot(tok, left, right);
	return m->rank1 ? m : &none;
}

/* Symbols and, for i and i + 1, the rank (UINT32_MAX: none) and the result of merging them. */
typedef struct scan {
	size_t n;
	int32_t id[SCAN_MAX], made[SCAN_MAX];
	uint32_t rank[SCAN_MAX];
} scan;

static void rate(const mzm_tokenizer *tok, scan *w, size_t i)
{
	const mzm_merge *m = look_up(tok, w->id[i], w->id[i + 1]);
	w->rank[i] = m->rank1;
	w->made[i] = m->made;
}

static void merge_at(const mzm_tokenizer *tok, scan *w, size_t at)
{
	size_t behind = --w->n - at - 1; /* symbols behind the pair */
	w->id[at] = w->made[at];
	memmove(w->id + at + 1, w->id + at + 2, behind * sizeof *w->id);
	if (behind) { /* the pair at the end has none behind it */
		memmove(w->rank + at + 1, w->rank + at + 2, (behind - 1) * sizeof *w->rank);
		memmove(w->made + at + 1, w->made + at + 2, (behind - 1) * sizeof *w->made);
		rate(tok, w, at);
	}
	if (at > 0)
		rate(tok, w, at - 1);
}

/* Merges symbols[0..n) by scanning for the lowest rank, and emits what is left. */
static mzm_status merge_by_scan(mzm_tok_enc *enc, size_t n)
{
	scan w;
	w.n = n;
	for (size_t i = 0; i < n; i++)
		w.id[i] = enc->symbols[i].id;
	for (size_t i = 0; i + 1 < n; i++)
		rate(enc->tok, &w, i);
	while (w.n > 1) {
		size_t best = 0;
		for (size_t i = 1; i + 1 < w.n; i++)
			if (w.rank[i] < w.rank[best])
				best = i;
		if (w.rank[best] == UINT32_MAX)
			break;
		merge_at(enc->tok, &w, best);
	}
	for (size_t i = 0; i < w.n; i++)
		MZM_TRY(mzm_tok_emit(enc, w.id[i]));
	return MZM_OK;
}

/* ---- merging a long word ---- */

/* Four-ary, half as deep as a binary one. */
static mzm_status heap_push(mzm_heap *h, uint64_t key, mzm_err *err)
{
	if (h->n == h->cap)
		MZM_TRY(mzm_tok_grow((void **)&h->v, &h->cap, h->n + 1, sizeof *h->v, err));
	size_t i = h->n++;
	for (; i > 0 && key < h->v[(i - 1) / 4]; i = (i - 1) / 4)
		h->v[i] = h->v[(i - 1) / 4];
	h->v[i] = key;
	return MZM_OK;
}

static uint64_t heap_pop(mzm_heap *h)
{
	uint64_t *v = h->v, top = v[0], key = v[--h->n];
	size_t i = 0, child;
	while ((child = 4 * i + 1) < h->n) {
		size_t end = child + 4 < h->n ? child + 4 : h->n, least = child;
		for (size_t k = child + 1; k < end; k++)
			if (v[k] < v[least])
				least = k;
		if (key <= v[least])
			break;
		v[i] = v[least];
		i = least;
	}
	v[i] = key;
	return top;
}

/* Appends the position to the rank's list, which it does not fit behind: false. */
static mzm_status list_push(mzm_tok_enc *enc, uint32_t rank, uint32_t pos, bool *fits)
{
	mzm_bpe_queue *q = &enc->queue;
	uint32_t *ends = &q->ends[2 * (size_t)rank], node = q->free1;
	*fits = !ends[0] || (uint32_t)q->nodes[ends[1] - 1] < pos;
	if (!*fits)
		return MZM_OK;
	if (node) {
		q->free1 = (uint32_t)(q->nodes[node - 1] >> 32);
	} else {
		if (q->n_nodes == q->cap_nodes)
			MZM_TRY(mzm_tok_grow((void **)&q->nodes, &q->cap_nodes, q->n_nodes + 1, sizeof *q->nodes,
					     enc->err));
		node = (uint32_t)++q->n_nodes;
	}
	q->nodes[node - 1] = pos;
	if (ends[0])
		q->nodes[ends[1] - 1] |= (uint64_t)node << 32;
	else
		MZM_TRY(heap_push(&q->ranks, rank, enc->err));
	ends[0] = ends[0] ? ends[0] : node;
	ends[1] = node;
	return MZM_OK;
}

static uint64_t list_pop(mzm_bpe_queue *q)
{
	uint64_t rank = q->ranks.v[0];
	uint32_t *ends = &q->ends[2 * rank], node = ends[0];
	uint64_t at = q->nodes[node - 1];
	ends[0] = (uint32_t)(at >> 32);
	q->nodes[node - 1] = (uint64_t)q->free1 << 32;
	q->free1 = node;
	if (!ends[0])
		(void)heap_pop(&q->ranks);
	return rank << 32 | (uint32_t)at;
}

/* A candidate is rank << 32 | position, so the smallest number is the next merge. It may be out of date:
 * the pair that now stands at its position tells. Those of a rank mostly come in the order of their positions and
 * stand in a list; a heap has the others. So what long runs of few characters cost is linear. */
static mzm_status candidate_push(mzm_tok_enc *enc, uint32_t pos)
{
	const mzm_merge *m = look_up(enc->tok, enc->symbols[pos].id, enc->symbols[enc->symbols[pos].next].id);
	bool fits = false;
	if (m->rank1 == UINT32_MAX)
		return MZM_OK;
	if (enc->queue.lists)
		MZM_TRY(list_push(enc, m->rank1, pos, &fits));
	return fits ? MZM_OK : heap_push(&enc->queue.rest, (uint64_t)m->rank1 << 32 | pos, enc->err);
}

static bool candidate_pop(mzm_bpe_queue *q, uint64_t *key)
{
	uint64_t rank = q->ranks.n ? q->ranks.v[0] : UINT64_MAX;
	uint64_t list = q->ranks.n ? rank << 32 | (uint32_t)q->nodes[q->ends[2 * rank] - 1] : UINT64_MAX;
	if (!q->ranks.n && !q->rest.n)
		return false;
	*key = q->rest.n && q->rest.v[0] < list ? heap_pop(&q->rest) : list_pop(q);
	return true;
}

static mzm_status begin_queue(mzm_tok_enc *enc, uint32_t n)
{
	mzm_bpe_queue *q = &enc->queue;
	uint32_t n_ranks = enc->tok->bpe.n_ranks;
	q->rest.n = q->ranks.n = q->n_nodes = 0;
	q->free1 = 0;
	q->lists = n >= LISTS_FROM && n_ranks;
	if (q->lists && !q->ends)
		return mzm_alloc_for((void **)&q->ends, 2 * n_ranks * sizeof *q->ends, "merges", enc->err);
	return MZM_OK;
}

/* Merges the pair at pos if it still has the rank it was pushed with. */
static mzm_status merge_candidate(mzm_tok_enc *enc, uint64_t key, uint32_t n)
{
	mzm_bpe_symbol *sym = enc->symbols, *at = &sym[(uint32_t)key];
	if (at->id < 0 || at->next >= n)
		return MZM_OK;
	const mzm_merge *m = look_up(enc->tok, at->id, sym[at->next].id);
	if (m->rank1 != (uint32_t)(key >> 32))
		return MZM_OK;
	at->id = m->made;
	sym[at->next].id = -1;
	at->next = sym[at->next].next;
	if (at->next < n) {
		sym[at->next].prev = (uint32_t)key;
		MZM_TRY(candidate_push(enc, (uint32_t)key));
	}
	return at->prev != UINT32_MAX ? candidate_push(enc, at->prev) : MZM_OK;
}

/* Merges symbols[0..n) by the queue; n also stands for the end of the list. */
static mzm_status merge_by_queue(mzm_tok_enc *enc, uint32_t n)
{
	mzm_bpe_symbol *sym = enc->symbols;
	uint64_t key;
	MZM_TRY(begin_queue(enc, n));
	for (uint32_t i = 0; i < n; i++) {
		sym[i].prev = i - 1; /* of the first: UINT32_MAX */
		sym[i].next = i + 1;
	}
	for (uint32_t i = 0; i + 1 < n; i++)
		MZM_TRY(candidate_push(enc, i));
	while (candidate_pop(&enc->queue, &key))
		MZM_TRY(merge_candidate(enc, key, n));
	for (uint32_t i = 0; i < n; i = sym[i].next)
		MZM_TRY(mzm_tok_emit(enc, sym[i].id));
	return MZM_OK;
}

/* ---- from text to symbols ---- */

static mzm_status merge_symbols(mzm_tok_enc *enc)
{
	size_t n = enc->n_symbols;
	enc->n_symbols = 0;
	enc->after_unk = false;
	return n <= SCAN_MAX ? merge_by_scan(enc, n) : merge_by_queue(enc, (uint32_t)n);
}

/* Adds a symbol to the word, or to a new one where the two can never be joined. */
static mzm_status add_symbol(mzm_tok_enc *enc, int32_t id)
{
	size_t n = enc->n_symbols;
	if (n >= CUT_FROM && enc->tok->bpe.cuts && !may_join(enc->tok, enc->symbols[n - 1].id, id)) {
		MZM_TRY(merge_symbols(enc));
		n = 0;
	}
	if (n == MAX_SYMBOLS)
		return mzm_fail(enc->err, MZM_EUNSUPPORTED, "a word of more than %zu symbols", n);
	if (n == enc->cap_symbols)
		MZM_TRY(mzm_tok_grow((void **)&enc->symbols, &enc->cap_symbols, n + 1, sizeof *enc->symbols, enc->err));
	enc->symbols[n].id = id;
	enc->n_symbols = n + 1;
	enc->after_unk = false;
	return MZM_OK;
}

/* What is not in the vocabulary: its bytes, else the unknown token, else nothing, as in the reference. */
static mzm_status add_unknown(mzm_tok_enc *enc, const char *s, size_t len)
{
	const mzm_bpe *b = &enc->tok->bpe;
	bool known = b->byte_fallback;
	for (size_t i = 0; i < len && known; i++)
		known = b->byte_ids[(unsigned char)s[i]] >= 0;
	for (size_t i = 0; i < len && known; i++)
		MZM_TRY(add_symbol(enc, b->byte_ids[(unsigned char)s[i]]));
	if (known || b->unk_id < 0 || (b->fuse_unk && enc->after_unk))
		return MZM_OK;
	MZM_TRY(add_symbol(enc, b->unk_id));
	enc->after_unk = true;
	return MZM_OK;
}

static mzm_status bpe_encode_word(mzm_tok_enc *enc, const char *s, size_t len)
{
	const mzm_tokenizer *tok = enc->tok;
	size_t n;
	if (tok->bpe.ignore_merges) {
		int32_t id = mzm_vocab_find_model(&tok->vocab, s, len);
		if (id >= 0 && !(tok->vocab.flags[id] & MZM_TOKEN_SPECIAL)) /* text never becomes a special token */
			return mzm_tok_emit(enc, id);
	}
	for (size_t i = 0; i < len; i += n) {
		uint32_t c = mzm_utf8_next(s + i, &n);
		int32_t id = c < sizeof tok->bpe.char_ids / sizeof *tok->bpe.char_ids
				     ? tok->bpe.char_ids[c]
				     : mzm_vocab_find_model(&tok->vocab, s + i, n);
		if (id >= 0)
			MZM_TRY(add_symbol(enc, id));
		else
			MZM_TRY(add_unknown(enc, s + i, n));
	}
	return merge_symbols(enc);
}

/* Bytes that are no text: as bytes where the vocabulary has them, else each is unknown. */
static mzm_status bpe_encode_bytes(mzm_tok_enc *enc, const char *s, size_t len)
{
	const mzm_tokenizer *tok = enc->tok;
	for (size_t i = 0; i < len; i++) {
		int32_t id = tok->byte_level ? tok->bpe.char_ids[mzm_byte_to_char((unsigned char)s[i])] : -1;
		if (id >= 0)
			MZM_TRY(add_symbol(enc, id));
		else
			MZM_TRY(add_unknown(enc, s + i, 1));
	}
	return merge_symbols(enc);
}

const mzm_tok_model mzm_tok_bpe = {
	.name = "BPE",
	.parse = bpe_parse,
	.free = bpe_free,
	.encode_word = bpe_encode_word,
	.encode_bytes = bpe_encode_bytes,
};
