/* fuzz_tokenizer.c - a hostile tokenizer.json; behind a byte 0x1e, a hostile tokenizer_config.json. Whatever is
 * accepted must encode and decode without harm, give ids that exist, and stream what it gives at once. */
#include <stdlib.h>

#include "format/tokenizer_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char probe[] = "Hello  the\n\tworld 12345 don't <|end|><tool> \xe2\x96\x81\xc3\xa9"
			    "e\xcc\x81\xff\xe2\x82 aaaaaaaaa";

static void demand(bool ok)
{
	if (!ok)
		abort();
}

static void decode(const mzm_tokenizer *tok, const int32_t *ids, size_t n)
{
	char *text;
	size_t len, used = 0, cap = mzm_text_decoder_max(tok);
	if (mzm_detokenize(tok, ids, n, &text, &len, NULL) != MZM_OK)
		return;
	mzm_text_decoder dec = mzm_text_decoder_init(tok);
	char *out = malloc(len + cap);
	for (size_t i = 0; i < n && out; i++) {
		demand(ids[i] >= 0 && ids[i] < mzm_token_count(tok) && mzm_token_content(tok, ids[i]));
		size_t got = mzm_text_decoder_push(&dec, ids[i], out + used, cap);
		demand(mzm_utf8_valid(out + used, got) == got);
		used += got;
		demand(used <= len);
	}
	used += out ? mzm_text_decoder_flush(&dec, out + used, cap) : 0;
	demand(!out || (used == len && memcmp(out, text, len) == 0));
	free(out);
	mzm_string_free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	mzm_tokenizer *tok;
	mzm_err err = {0};
	const uint8_t *cut = memchr(data, 0x1e, size);
	size_t len = cut ? (size_t)(cut - data) : size;
	const char *config = cut ? (const char *)cut + 1 : NULL;
	if (mzm_tokenizer_parse(&tok, (const char *)data, len, config, cut ? size - len - 1 : 0, "input", &err) !=
	    MZM_OK) {
		demand(!tok && err.code != MZM_OK && err.message[0]);
		return 0;
	}
	for (unsigned flags = 0; flags < 4; flags++) {
		int32_t *ids;
		size_t n;
		if (mzm_tokenize(tok, probe, sizeof probe - 1, flags, &ids, &n, NULL) == MZM_OK)
			decode(tok, ids, n);
		mzm_ids_free(ids);
	}
	mzm_tokenizer_close(tok);
	return 0;
}
