/* token_class.c - see token_class.h. */
#include "decode/token_class.h"

#include <string.h>

#include "base/mem.h"

/* Bytes beyond ASCII belong to letters of other scripts far more often than to anything else. */
static bool is_letter(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
}

static uint8_t class_of(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return MZM_CLASS_DIGIT;
	if (c && strchr("+-*/=%$", c))
		return MZM_CLASS_OPERATOR;
	if (c == '\n' || c == '\r')
		return MZM_CLASS_NEWLINE;
	return c && strchr(")]}", c) ? MZM_CLASS_CLOSING : 0;
}

uint8_t mzm_token_class(const char *bytes, size_t n)
{
	uint8_t class = 0;
	size_t n_letters = 0, n_blanks = 0;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)bytes[i];
		class |= class_of(c);
		n_letters += is_letter(c);
		n_blanks += c == ' ';
	}
	if (n_letters > 0 && n_letters + n_blanks == n)
		class |= MZM_CLASS_WORD;
	return class;
}

mzm_status mzm_token_classes_create(uint8_t **out, const mzm_tokenizer *tok, int32_t n_vocab, mzm_err *err)
{
	*out = NULL;
	if (!tok)
		return MZM_OK;
	MZM_TRY(mzm_alloc_for((void **)out, (size_t)n_vocab, "the token classes", err));
	for (int32_t id = 0; id < n_vocab; id++) {
		size_t len;
		const char *bytes = mzm_token_bytes(tok, id, &len);
		(*out)[id] = mzm_token_class(bytes, len);
	}
	return MZM_OK;
}
