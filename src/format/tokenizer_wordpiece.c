/* tokenizer_wordpiece.c - WordPiece: a word is cut from left to right, each time as much as is a token.
 *
 * Tokens that continue a word carry a prefix ("##"), so in the trie of all tokens they start behind it. Where no token
 * fits, and where the word has too many characters, the whole word is the unknown token. */
#include "format/tokenizer_impl.h"

static mzm_status fill_trie(mzm_tokenizer *tok, mzm_err *err)
{
	mzm_wordpiece *w = &tok->wordpiece;
	MZM_TRY(mzm_trie_init(&w->trie, mzm_vocab_hash(&tok->vocab, "wordpiece", 9), err));
	for (int32_t id = 0; id < tok->vocab.n; id++) {
		size_t len = tok->vocab.tokens[id].content_len;
		const char *s = mzm_vocab_content(&tok->vocab, id);
		unsigned flags = tok->vocab.flags[id];
		if (!len || !(flags & MZM_TOKEN_MODEL) || (flags & MZM_TOKEN_SPECIAL) || id == w->unk_id)
			continue;
		if (len > MZM_TOK_MAX_PIECE)
			return mzm_fail(err, MZM_EUNSUPPORTED, "token \"%s\" has %zu bytes, more than %zu",
					mzm_tok_quote(s, len).s, len, MZM_TOK_MAX_PIECE);
		MZM_TRY(mzm_trie_add(&w->trie, s, len, id, err));
	}
	return MZM_OK;
}

/* The node behind the prefix. An empty prefix leads to the root: words continue as they start. */
static bool find_inside(mzm_wordpiece *w, const char *prefix, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		const mzm_trie_slot *e = mzm_trie_step(&w->trie, w->inside, prefix[i]);
		if (!e)
			return false;
		w->inside = e->child;
	}
	return true;
}

static mzm_status wordpiece_parse(mzm_tokenizer *tok, const json_t *model, mzm_err *err)
{
	mzm_wordpiece *w = &tok->wordpiece;
	const char *prefix, *unk;
	int64_t max_chars;
	MZM_TRY(mzm_json_string(model, "continuing_subword_prefix", "##", &prefix, err));
	MZM_TRY(mzm_json_string(model, "unk_token", "[UNK]", &unk, err));
	MZM_TRY(mzm_json_int(model, "max_input_chars_per_word", 1, MZM_TOK_MAX_CONTENT, 100, &max_chars, err));
	w->max_chars = (int32_t)max_chars;
	w->unk_id = mzm_vocab_find_model(&tok->vocab, unk, strlen(unk));
	if (w->unk_id < 0)
		return mzm_fail(err, MZM_EFORMAT, "unk_token \"%s\" is not in the vocabulary",
				mzm_tok_quote(unk, strlen(unk)).s);
	MZM_TRY(fill_trie(tok, err));
	w->continues = find_inside(w, prefix, strlen(prefix));
	return MZM_OK;
}

static void wordpiece_free(mzm_tokenizer *tok)
{
	mzm_trie_free(&tok->wordpiece.trie);
}

/* The longest token that starts here; -1. */
static int32_t longest(const mzm_wordpiece *w, uint32_t node, const char *s, size_t len, size_t *used)
{
	int32_t id = -1;
	for (size_t i = 0; i < len; i++) {
		const mzm_trie_slot *e = mzm_trie_step(&w->trie, node, s[i]);
		if (!e)
			break;
		node = e->child;
		if (e->id >= 0) {
			id = e->id;
			*used = i + 1;
		}
	}
	return id;
}

static bool is_too_long(const char *s, size_t len, int32_t max_chars)
{
	size_t n = 0;
	if (len <= (size_t)max_chars)
		return false;
	for (size_t i = 0; i < len && n <= (size_t)max_chars; i++)
		n += ((unsigned char)s[i] & 0xc0) != 0x80;
	return n > (size_t)max_chars;
}

static mzm_status wordpiece_encode_word(mzm_tok_enc *enc, const char *s, size_t len)
{
	const mzm_wordpiece *w = &enc->tok->wordpiece;
	size_t n_before = enc->n_ids, used = 0;
	bool fits = !is_too_long(s, len, w->max_chars);
	for (size_t i = 0; i < len && fits; i += used) {
		int32_t id = i == 0 || w->continues ? longest(w, i ? w->inside : 0, s + i, len - i, &used) : -1;
		fits = id >= 0;
		if (fits)
			MZM_TRY(mzm_tok_emit(enc, id));
	}
	if (fits)
		return MZM_OK;
	enc->n_ids = n_before;
	return mzm_tok_emit(enc, w->unk_id);
}

static mzm_status wordpiece_encode_bytes(mzm_tok_enc *enc, const char *s, size_t len)
{
	(void)s, (void)len;
	return mzm_tok_emit(enc, enc->tok->wordpiece.unk_id);
}

const mzm_tok_model mzm_tok_wordpiece = {
	.name = "WordPiece",
	.parse = wordpiece_parse,
	.free = wordpiece_free,
	.encode_word = wordpiece_encode_word,
	.encode_bytes = wordpiece_encode_bytes,
};
