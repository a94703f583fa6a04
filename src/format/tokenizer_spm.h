/* tokenizer_spm.h - SentencePiece's own files (tokenizer.model), for directories that have no tokenizer.json. */
#ifndef MZM_TOKENIZER_SPM_H
#define MZM_TOKENIZER_SPM_H

#include "base/json.h"
#include "base/mem.h"

/* True when the bytes begin as such a file does. */
bool mzm_spm_is(const char *bytes, size_t len);

/* The tree of a tokenizer.json with the same ids. Such files do not say what stands around a text: <s> in front with
 * BPE, as Llama has it, and </s> behind with unigram, as T5 has it, where the file has these. EUNSUPPORTED: word and
 * character models. -> json_decref */
mzm_status mzm_spm_tree(json_t **out, const char *bytes, size_t len, mzm_err *err);

#endif
