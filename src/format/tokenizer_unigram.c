/* tokenizer_unigram.c - unigram model: of all ways to cut a word into tokens, the one with the best sum of scores.
 *
 * Viterbi's algorithm from left to right. A place that no token crosses lies on every way, so all before it is decided:
 * the tokens up to there are given out and its memory is used anew. A text without such places (one letter a million
 * times) takes 4 bytes a byte. Sums are taken in double precision from the start of the word, never anew, and of
 * equal sums the one found first stays, so ties are broken as in the reference.
 *
 * A character that is no token is unknown, at a score below all others; neighbouring unknown ones are one, which
 * becomes its bytes where the vocabulary has them all, else the unknown token, else nothing. Special tokens, the
 * unknown one and the names of bytes are never found in text. */
#include <math.h>

#include "format/tokenizer_impl.h"

#define UNK_PENALTY 10.0
#define UNKNOWN     (-1) /* in back: one character that is no token */
#define NOWHERE     (-2) /* in back: no way leads here */

/* ---- reading ---- */

static mzm_status read_scores(mzm_tokenizer *tok, const json_t *vocab, mzm_err *err)
{
	mzm_unigram *u = &tok->unigram;
	size_t n = json_array_size(vocab);
	double least = INFINITY;
	MZM_TRY(mzm_alloc_for((void **)&u->scores, (n + 1) * sizeof *u->scores, "scores", err));
	for (size_t i = 0; i < n; i++) {
		const json_t *pair = json_array_get(vocab, i), *score = json_array_get(pair, 1);
		if (json_array_size(pair) != 2 || !json_is_number(score) || !isfinite(json_number_value(score)))
			return mzm_fail(err, MZM_EFORMAT, "vocab[%zu] is not a token and its score", i);
		u->scores[i] = json_number_value(score);
		least = fmin(least, u->scores[i]);
	}
	u->n_scores = (int32_t)n;
	u->unk_score = least - UNK_PENALTY;
	return MZM_OK;
}

/* Tokens that text can become. */
static mzm_status fill_trie(mzm_tokenizer *tok, mzm_err *err)
{
	mzm_unigram *u = &tok->unigram;
	MZM_TRY(mzm_trie_init(&u->trie, mzm_vocab_hash(&tok->vocab, "unigram", 7), err));
	for (int32_t id = 0; id < u->n_scores; id++) {
		size_t len = tok->vocab.tokens[id].content_len;
		const char *s = mzm_vocab_content(&tok->vocab, id);
		bool is_byte = u->byte_fallback && mzm_byte_of_name(s, len) >= 0;
		if (!len || is_byte || id == u->unk_id || (tok->vocab.flags[id] & MZM_TOKEN_SPECIAL))
			continue;
		if (len > MZM_TOK_MAX_PIECE)
			return mzm_fail(err, MZM_EUNSUPPORTED, "token \"%s\" has %zu bytes, more than %zu",
					mzm_tok_quote(s, len).s, len, MZM_TOK_MAX_PIECE);
		MZM_TRY(mzm_trie_add(&u->trie, s, len, id, err));
	}
	return MZM_OK;
}

static mzm_status unigram_parse(mzm_tokenizer *tok, const json_t *model, mzm_err *err)
{
	mzm_unigram *u = &tok->unigram;
	const json_t *vocab = json_object_get(model, "vocab");
	int64_t unk;
	MZM_TRY(read_scores(tok, vocab, err));
	MZM_TRY(mzm_json_int(model, "unk_id", 0, u->n_scores - 1, -1, &unk, err));
	MZM_TRY(mzm_json_bool(model, "byte_fallback", false, &u->byte_fallback, err));
	u->unk_id = (int32_t)unk;
	mzm_vocab_byte_ids(&tok->vocab, u->byte_ids);
	return fill_trie(tok, err);
}

static void unigram_free(mzm_tokenizer *tok)
{
	mzm_trie_free(&tok->unigram.trie);
	mzm_free(tok->unigram.scores);
}

/* ---- the best way ---- */

/* One word on its way. Positions are bytes of s. */
typedef struct lattice {
	mzm_tok_enc *enc;
	const char *s;
	size_t base;      /* all before it is given out; back[i] is about base + i */
	size_t reach;     /* the furthest place that a way leads to */
	size_t ring_mask; /* of enc->best */
	size_t unknown;   /* s[unknown..base) waits: it is unknown, and what follows may be too */
} lattice;

/* Gives out what waits, which ends at `end`. */
static mzm_status flush_unknown(lattice *l, size_t end)
{
	const mzm_unigram *u = &l->enc->tok->unigram;
	bool bytes = u->byte_fallback;
	for (size_t i = l->unknown; i < end && bytes; i++)
		bytes = u->byte_ids[(unsigned char)l->s[i]] >= 0;
	if (bytes)
		for (size_t i = l->unknown; i < end; i++)
			MZM_TRY(mzm_tok_emit(l->enc, u->byte_ids[(unsigned char)l->s[i]]));
	else if (l->unknown < end && u->unk_id >= 0)
		MZM_TRY(mzm_tok_emit(l->enc, u->unk_id));
	l->unknown = end;
	return MZM_OK;
}

static size_t length_back(const lattice *l, int32_t id, size_t end)
{
	return id == UNKNOWN ? end - mzm_utf8_back(l->s, end) : l->enc->tok->vocab.tokens[id].content_len;
}

/* Gives out the best way from base to end. Going back turns "the token that ends here" into "that starts here". */
static mzm_status give_out(lattice *l, size_t end)
{
	int32_t *back = l->enc->back, id = back[end - l->base];
	for (size_t at = end; at > l->base;) {
		size_t start = at - length_back(l, id, at);
		int32_t before = back[start - l->base];
		back[start - l->base] = id;
		id = before;
		at = start;
	}
	for (size_t at = l->base; at < end;) {
		id = back[at - l->base];
		size_t len = id == UNKNOWN ? mzm_utf8_need((unsigned char)l->s[at])
					   : l->enc->tok->vocab.tokens[id].content_len;
		if (id != UNKNOWN) {
			MZM_TRY(flush_unknown(l, at));
			MZM_TRY(mzm_tok_emit(l->enc, id));
			l->unknown = at + len;
		}
		at += len;
	}
	l->base = end;
	return MZM_OK;
}

static mzm_status stretch(lattice *l, size_t to)
{
	mzm_tok_enc *enc = l->enc;
	if (to - l->base >= enc->cap_back)
		MZM_TRY(mzm_tok_grow((void **)&enc->back, &enc->cap_back, to - l->base + 1, sizeof *enc->back,
				     enc->err));
	while (l->reach < to)
		enc->back[++l->reach - l->base] = NOWHERE;
	return MZM_OK;
}

/* A way to `to` by this token: taken where it is the first or better. */
static mzm_status offer(lattice *l, size_t to, int32_t id, double score)
{
	double *best = &l->enc->best[to & l->ring_mask];
	if (to > l->reach)
		MZM_TRY(stretch(l, to));
	int32_t *back = &l->enc->back[to - l->base];
	if (*back == NOWHERE || score > *best) {
		*back = id;
		*best = score;
	}
	return MZM_OK;
}

/* All tokens that start at `at`; the character alone is unknown where it is none. */
static mzm_status extend(lattice *l, size_t at, size_t len)
{
	const mzm_unigram *u = &l->enc->tok->unigram;
	double score = l->enc->best[at & l->ring_mask];
	size_t n_char = mzm_utf8_need((unsigned char)l->s[at]), i = at;
	bool single = false;
	uint32_t node = 0;
	for (const mzm_trie_slot *e; i < len && (e = mzm_trie_step(&u->trie, node, l->s[i])); node = e->child) {
		i++;
		if (e->id < 0)
			continue;
		single |= i == at + n_char;
		MZM_TRY(offer(l, i, e->id, score + u->scores[e->id]));
	}
	return single ? MZM_OK : offer(l, at + n_char, UNKNOWN, score + u->unk_score);
}

static mzm_status make_ring(mzm_tok_enc *enc, size_t *mask)
{
	size_t n = 8;
	while (n <= enc->tok->unigram.trie.max_len)
		n *= 2;
	*mask = n - 1;
	return enc->best ? MZM_OK : mzm_alloc_for((void **)&enc->best, n * sizeof *enc->best, "scores", enc->err);
}

static mzm_status unigram_encode_word(mzm_tok_enc *enc, const char *s, size_t len)
{
	lattice l = {.enc = enc, .s = s};
	MZM_TRY(make_ring(enc, &l.ring_mask));
	MZM_TRY(mzm_tok_grow((void **)&enc->back, &enc->cap_back, 1, sizeof *enc->back, enc->err));
	enc->best[0] = 0;
	for (size_t at = 0; at < len; at += mzm_utf8_need((unsigned char)s[at])) {
		if (at == l.reach && at > l.base)
			MZM_TRY(give_out(&l, at));
		if (at == l.base || enc->back[at - l.base] != NOWHERE)
			MZM_TRY(extend(&l, at, len));
	}
	if (len > l.base)
		MZM_TRY(give_out(&l, len));
	return flush_unknown(&l, len);
}

/* Bytes that are no text are unknown together. */
static mzm_status unigram_encode_bytes(mzm_tok_enc *enc, const char *s, size_t len)
{
	lattice l = {.enc = enc, .s = s};
	return flush_unknown(&l, len);
}

const mzm_tok_model mzm_tok_unigram = {
	.name = "Unigram",
	.listed = true,
	.parse = unigram_parse,
	.free = unigram_free,
	.encode_word = unigram_encode_word,
	.encode_bytes = unigram_encode_bytes,
};
