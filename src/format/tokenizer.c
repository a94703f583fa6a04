/* tokenizer.c - the public calls: tokenize, look up, close; and the small helpers all parts use. */
#include "format/tokenizer_impl.h"

mzm_quoted mzm_tok_quote(const char *s, size_t len)
{
	mzm_quoted q;
	size_t n = 0, used;
	for (size_t i = 0; i < len; i += used, n += used) {
		if (mzm_utf8_scan(s + i, len - i, &used) != MZM_UTF8_WHOLE)
			used = 1;
		if (n + used > 57) {
			memcpy(q.s + n, "...", 3);
			n += 3;
			break;
		}
		memcpy(q.s + n, s + i, used);
		if (used == 1 && ((unsigned char)s[i] < 0x20 || (unsigned char)s[i] >= 0x7f))
			q.s[n] = '?';
	}
	q.s[n] = 0;
	return q;
}

mzm_status mzm_tok_grow(void **array, size_t *cap, size_t need, size_t elem_bytes, mzm_err *err)
{
	size_t n = *cap ? *cap : 64, bytes;
	while (n < need)
		n = n > SIZE_MAX / 2 ? need : 2 * n;
	if (n == *cap)
		return MZM_OK;
	void *grown = mzm_mul_size(n, elem_bytes, &bytes) ? mzm_realloc(*array, *cap * elem_bytes, bytes) : NULL;
	if (!grown)
		return mzm_fail(err, MZM_ENOMEM, "out of memory for %zu elements", need);
	*array = grown;
	*cap = n;
	return MZM_OK;
}

char *mzm_tok_room(mzm_str *s, size_t n)
{
	size_t need, cap = s->cap ? s->cap : 64;
	if (s->failed || !mzm_add_size(s->len, n, &need) || !mzm_add_size(need, 1, &need)) {
		s->failed = true;
		return NULL;
	}
	while (cap < need)
		cap = cap > SIZE_MAX / 2 ? need : 2 * cap;
	if (cap > s->cap) {
		char *grown = mzm_realloc(s->data, s->len, cap);
		if (!grown) {
			s->failed = true;
			return NULL;
		}
		s->data = grown;
		s->cap = cap;
	}
	return s->data + s->len;
}

void mzm_tokenizer_close(mzm_tokenizer *tok)
{
	if (!tok)
		return;
	if (tok->model)
		tok->model->free(tok);
	mzm_vocab_free(&tok->vocab);
	mzm_steps_free(&tok->norm);
	mzm_steps_free(&tok->pre);
	mzm_added_free(&tok->added[0]);
	mzm_added_free(&tok->added[1]);
	mzm_free(tok);
}

static mzm_status emit_all(mzm_tok_enc *enc, const int32_t *ids, int32_t n)
{
	for (int32_t i = 0; i < n; i++)
		MZM_TRY(mzm_tok_emit(enc, ids[i]));
	return MZM_OK;
}

mzm_status mzm_tokenize(const mzm_tokenizer *tok, const char *text, size_t len, unsigned flags, int32_t **ids,
			size_t *n_ids, mzm_err *err)
{
	mzm_tok_enc enc = {.tok = tok, .err = err, .parse_special = flags & MZM_TOK_PARSE_SPECIAL};
	mzm_status st;
	*ids = NULL;
	*n_ids = 0;
	if (flags & ~(MZM_TOK_ADD_SPECIAL | MZM_TOK_PARSE_SPECIAL))
		return mzm_fail(err, MZM_EARG, "unknown flags %#x", flags);
	if (len > MZM_TOK_MAX_TEXT)
		return mzm_fail(err, MZM_EARG, "a text of %zu bytes, more than %zu", len, MZM_TOK_MAX_TEXT);
	mzm_find_start(&enc.find, len);
	mzm_find_start(&enc.outer, len);
	enc.norm_left = MZM_TOK_GROWTH * len + MZM_TOK_GROWTH_MIN;
	MZM_TRY_OUT(mzm_tok_grow((void **)&enc.ids, &enc.cap_ids, len / 4 + 16, sizeof *enc.ids, err));
	if (flags & MZM_TOK_ADD_SPECIAL)
		MZM_TRY_OUT(emit_all(&enc, tok->before, tok->n_before));
	MZM_TRY_OUT(mzm_tok_encode(&enc, text, len));
	if (flags & MZM_TOK_ADD_SPECIAL)
		MZM_TRY_OUT(emit_all(&enc, tok->behind, tok->n_behind));
	*ids = enc.ids;
	*n_ids = enc.n_ids;
	enc.ids = NULL;
out:
	mzm_tok_enc_free(&enc);
	return st;
}

void mzm_ids_free(int32_t *ids)
{
	mzm_free(ids);
}

int32_t mzm_token_count(const mzm_tokenizer *tok)
{
	return tok->vocab.n;
}

int32_t mzm_token_find(const mzm_tokenizer *tok, const char *content)
{
	return mzm_vocab_find(&tok->vocab, content, strlen(content));
}

bool mzm_token_is_special(const mzm_tokenizer *tok, int32_t id)
{
	return mzm_vocab_has(&tok->vocab, id) && (tok->vocab.flags[id] & MZM_TOKEN_SPECIAL);
}

const char *mzm_token_content(const mzm_tokenizer *tok, int32_t id)
{
	return mzm_vocab_has(&tok->vocab, id) ? mzm_vocab_content(&tok->vocab, id) : NULL;
}
