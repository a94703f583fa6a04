/* tokenizer_write.h - a list of tokens, types and scores as the texts of tokenizer.json and tokenizer_config.json.
 *
 * GGUF metadata and SentencePiece's own files describe a tokenizer by such a list and some switches;
 * tokenizer.json says the same in steps. There is one reader of tokenizers (tokenizer_parse.c), so what others read is
 * written for it. */
#ifndef MZM_TOKENIZER_WRITE_H
#define MZM_TOKENIZER_WRITE_H

#include "base/json.h"
#include "format/gguf.h"
#include "format/gguf_pre.h"

typedef enum mzm_vocab_kind {
	MZM_VOCAB_BYTES,   /* byte-level BPE: merges, pre */
	MZM_VOCAB_SPM,     /* BPE by scores */
	MZM_VOCAB_UNIGRAM, /* scores */
	MZM_VOCAB_BERT,    /* WordPiece, a blank's mark in front of what starts a word */
} mzm_vocab_kind;

typedef enum mzm_vocab_type { /* numbers of both formats */
	MZM_VOCAB_NORMAL = 1, MZM_VOCAB_UNKNOWN = 2, MZM_VOCAB_CONTROL = 3, MZM_VOCAB_USER = 4, MZM_VOCAB_UNUSED = 5,
	MZM_VOCAB_BYTE = 6
} mzm_vocab_type;

typedef struct mzm_vocab_list {
	mzm_vocab_kind kind;
	const char *tokens_name, *merges_name; /* what messages call them */
	const mzm_gguf_text *tokens;       /* [n] */
	const int32_t *types;              /* [n] or NULL: all normal */
	const float *scores;               /* [n]; SPM and UNIGRAM */
	const mzm_gguf_text *merges;       /* [n_merges]; BYTES */
	uint64_t n, n_merges;
	const mzm_gguf_pre *pre;           /* BYTES */
	int32_t bos, eos, unk, pad;        /* -1: none */
	bool add_bos, add_eos;
	bool add_space;      /* SPM and UNIGRAM: a blank in front of a text */
	bool merge_spaces;   /* UNIGRAM: blanks at both ends go, of others one stays */
	bool lower, strip;   /* BERT: small letters; no accents */
	bool rstrip;         /* blanks behind special tokens belong to them */
	const char *charsmap; /* [n_charsmap] UNIGRAM, SPM; 0: none */
	size_t n_charsmap;
	const char *chat_template; /* [n_template]; NULL: none */
	size_t n_template;
} mzm_vocab_list;

/* Both -> mzm_free. EFORMAT names the token that cannot be. */
mzm_status mzm_tokenizer_write(char **json, char **config, const mzm_vocab_list *list, mzm_err *err);

/* The first of them as a tree. -> json_decref */
mzm_status mzm_tokenizer_tree(json_t **out, const mzm_vocab_list *list, mzm_err *err);
mzm_status mzm_tokenizer_text(char **out, const json_t *root, mzm_err *err); /* -> mzm_free */

/* A name made safe to print. */
const char *mzm_vocab_printable(char out[64], mzm_gguf_text t);

#endif
