/* fuzz_encode.c - any bytes through two small tokenizers. Without a normaliser the bytes of the tokens are the
 * input again, byte for byte; with SentencePiece's there is one blank in front of each stretch of text. The
 * first byte of the input chooses the flags. */
#include <stdlib.h>

#include "tiny_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool ok)
{
	if (!ok)
		abort();
}

/* Bytes of all tokens against the text; special tokens have none, and are spelled out. */
static void check_bytes(const mzm_tokenizer *tok, const int32_t *ids, size_t n, const char *text, size_t len, bool spm)
{
	size_t at = 0, k;
	bool blank = spm; /* one may stand in front */
	for (size_t i = 0; i < n; i++) {
		const char *s = mzm_token_bytes(tok, ids[i], &k);
		bool special = mzm_token_is_special(tok, ids[i]);
		if (special) {
			s = mzm_token_content(tok, ids[i]);
			k = strlen(s);
		} else if (blank) {
			demand(k && *s == ' ');
			s++;
			k--;
		}
		blank = special && spm;
		demand(k <= len - at && memcmp(text + at, s, k) == 0);
		at += k;
	}
	demand(at == len);
}

static void check_text(const mzm_tokenizer *tok, const int32_t *ids, size_t n)
{
	char *text, *out;
	size_t len, used = 0, cap = mzm_text_decoder_max(tok);
	demand(mzm_detokenize(tok, ids, n, &text, &len, NULL) == MZM_OK);
	demand(mzm_utf8_valid(text, len) == len);
	demand((out = malloc(len + cap)) != NULL);
	mzm_text_decoder dec = mzm_text_decoder_init(tok);
	for (size_t i = 0; i < n; i++)
		demand((used += mzm_text_decoder_push(&dec, ids[i], out + used, cap)) <= len);
	used += mzm_text_decoder_flush(&dec, out + used, cap);
	demand(used == len && memcmp(out, text, len) == 0);
	free(out);
	mzm_string_free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static mzm_tokenizer *toks[2];
	if (!toks[0]) {
		toks[0] = tiny_open(&tiny_bytes, false, NULL);
		toks[1] = tiny_open(&tiny_spm, true, NULL);
		demand(toks[0] && toks[1]);
	}
	if (!size)
		return 0;
	/* U+2581 in the input is a blank to SentencePiece's normaliser: nothing to compare then */
	bool marked = memmem(data, size, TINY_MARK, 3) != NULL;
	for (int i = 0; i < 2; i++) {
		int32_t *ids;
		size_t n;
		const char *text = (const char *)data + 1;
		unsigned flags = data[0] & MZM_TOK_PARSE_SPECIAL;
		demand(mzm_tokenize(toks[i], text, size - 1, flags, &ids, &n, NULL) == MZM_OK);
		if (!i || !marked)
			check_bytes(toks[i], ids, n, text, size - 1, i == 1);
		check_text(toks[i], ids, n);
		mzm_ids_free(ids);
	}
	return 0;
}
