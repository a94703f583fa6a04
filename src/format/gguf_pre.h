/* gguf_pre.h - what tokenizer.ggml.pre means: the names that GGUF files give to pre-tokenizers.
 *
 * A name stands for regular expressions, applied one behind the other, each of which cuts the pieces that the one
 * before has left: its matches and what lies between them. */
#ifndef MZM_GGUF_PRE_H
#define MZM_GGUF_PRE_H

#include <stdbool.h>
#include <stddef.h>

#define MZM_GGUF_MAX_PATTERNS 6

typedef struct mzm_gguf_pre {
	const char *patterns[MZM_GGUF_MAX_PATTERNS]; /* NULL behind the last */
	bool        ignore_merges; /* a word that is a token is taken whole */
	bool        add_bos;       /* where the file does not say */
} mzm_gguf_pre;

/* name: [n]; NULL: unknown. */
const mzm_gguf_pre *mzm_gguf_pre_find(const char *name, size_t n);

#endif
