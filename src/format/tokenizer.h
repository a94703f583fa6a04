/* tokenizer.h - Hugging Face tokenizer.json: byte-level BPE, SentencePiece-style BPE, unigram models, WordPiece.
 *
 * The type and its public calls (tokenize, decode, look-ups) are in mirzam.h; this header adds what the
 * library itself needs. Immutable after creation; encoding may run in any number of threads at once.
 *
 * Any bytes can be encoded. Those that are not UTF-8 are neither normalised nor split by patterns: they become
 * their byte's token where the pre-tokenizer is ByteLevel or the model has byte_fallback, so that the bytes
 * of the tokens (mzm_token_bytes) are the input again; else the unknown token, or nothing where there is none.
 *
 * A text decoder drops the blank that a SentencePiece-style file puts in front of a text. To decode the
 * continuation of a text, push the text's tokens first, or set `started`. */
#ifndef MZM_TOKENIZER_H
#define MZM_TOKENIZER_H

#include "base/err.h"

/* From the text of tokenizer.json and, when present, tokenizer_config.json (may be NULL): it decides
 * add_bos_token where the post-processor is silent. where: the name used in messages. Steps of the
 * pipeline that are not supported are refused by name. -> mzm_tokenizer_close */
mzm_status mzm_tokenizer_parse(mzm_tokenizer **out, const char *json, size_t len, const char *config_json,
			       size_t config_len, const char *where, mzm_err *err);

/* The tokenizer of a directory that has no tokenizer.json, as the text of one: from tokenizer.model (SentencePiece),
 * from vocab.json and merges.txt, or from encoder.json and vocab.bpe. *json stays NULL where none of these is there.
 * config_json: that of the directory, or NULL. -> mzm_free (tokenizer_dir.c) */
mzm_status mzm_tokenizer_dir_json(char **json, size_t *len, const char *dir, const char *config_json, size_t config_len,
				  mzm_err *err);

/* Raw bytes of one token for matching stop strings (special tokens give none); borrowed. */
const char *mzm_token_bytes(const mzm_tokenizer *tok, int32_t id, size_t *len);

#endif
