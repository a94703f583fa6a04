/* token_class.h - what kind of text a token is: the little of it that tells the confidence monitor where drafts
 * go wrong.
 *
 * A byte of bits for each id of the vocabulary, made once from the tokenizer when a model is opened. The monitor
 * uses digits, operators and words (what is left are marks, the safest); lines and closing brackets did not pay on
 * arithmetic text, and are there for code. Knows bytes only, not what they mean in a sentence. */
#ifndef MZM_TOKEN_CLASS_H
#define MZM_TOKEN_CLASS_H

#include "format/tokenizer.h"

#define MZM_CLASS_DIGIT    1u  /* holds a digit */
#define MZM_CLASS_OPERATOR 2u  /* holds one of + - * / = % $ */
#define MZM_CLASS_NEWLINE  4u  /* holds a line end */
#define MZM_CLASS_WORD     8u  /* letters only, but for blanks around them */
#define MZM_CLASS_CLOSING  16u /* holds one of ) ] } */

/* Of a token's bytes; none (a special token): 0. */
uint8_t mzm_token_class(const char *bytes, size_t n);

/* [n_vocab] of all ids, 0 for those that the tokenizer lacks; NULL without a tokenizer. -> mzm_free */
mzm_status mzm_token_classes_create(uint8_t **out, const mzm_tokenizer *tok, int32_t n_vocab, mzm_err *err);

#endif
