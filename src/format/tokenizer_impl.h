/* tokenizer_impl.h - what the tokenizer's own files share; nobody else includes it.
 *
 * The way of a text (the words are those of Hugging Face's tokenizers):
 *
 *     text --(added tokens)--> segments --(normaliser)--> --(pre-tokenizer)--> words --(model)--> ids
 *            tokenizer_added.c            tokenizer_norm.c   tokenizer_pre.c      tokenizer_bpe.c
 *                                         tokenizer_charsmap.c                    tokenizer_unigram.c
 *                                                                                 tokenizer_wordpiece.c
 *
 * driven by tokenizer_encode.c. Bytes that are not valid UTF-8 never meet the normaliser or a pattern:
 * a segment is cut into valid runs and the invalid bytes between them, which the model takes as bytes.
 * The way back (tokenizer_decode.c) is a table: the bytes of each token are computed once, when the file
 * is read. mzm_tokenizer is immutable after that; all that changes while encoding is in mzm_tok_enc. */
#ifndef MZM_TOKENIZER_IMPL_H
#define MZM_TOKENIZER_IMPL_H

#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "format/tokenizer.h"
#include "format/tokenizer_utf8.h"

/* Limits on what a file may ask for; each is refused with a message that names it. */
#define MZM_TOK_MAX_ID      ((int32_t)1 << 24)
#define MZM_TOK_ID_SLACK    65536              /* ids may reach this + 8 per token, so holes cost bounded memory */
#define MZM_TOK_MAX_CONTENT ((size_t)1 << 20)
#define MZM_TOK_MAX_ADDED   ((size_t)1024)     /* bytes of an added token: bounds the search at each position */
#define MZM_TOK_MAX_STEPS   32
#define MZM_TOK_MAX_DEPTH   8                  /* of Sequence in Sequence */
#define MZM_TOK_MAX_WRAP    64                 /* ids a post-processor puts before or behind */
#define MZM_TOK_MAX_TEXT    ((size_t)1 << 30)  /* bytes, of a file as of a text to encode */
#define MZM_TOK_MAX_PIECE   ((size_t)1024)     /* bytes of a piece of Unigram and WordPiece, for linear time */
#define MZM_TOK_GROWTH      64                 /* a normaliser may grow a text by this factor ... */
#define MZM_TOK_GROWTH_MIN  65536              /* ... and by this much */

typedef struct mzm_span {
	size_t start, end;
} mzm_span;

typedef struct mzm_tok_enc mzm_tok_enc;

/* A piece of the file, made safe to print: cut at 60 bytes, control characters replaced. */
typedef struct mzm_quoted {
	char s[64];
} mzm_quoted;
mzm_quoted mzm_tok_quote(const char *s, size_t len);

/* Makes room for `need` elements; contents kept, new ones zero. */
mzm_status mzm_tok_grow(void **array, size_t *cap, size_t need, size_t elem_bytes, mzm_err *err);
/* Room for n more bytes behind s->data + s->len, which the caller fills and counts; NULL when refused. */
char *mzm_tok_room(mzm_str *s, size_t n);

/* ---- tokenizer_pattern.c: finding ---- */

typedef enum mzm_finder_kind {
	MZM_FIND_NOTHING,
	MZM_FIND_LITERAL,
	MZM_FIND_REGEX,
	MZM_FIND_DIGIT, /* one character of category N */
	MZM_FIND_PUNCT, /* one character of category P, or ASCII punctuation */
	MZM_FIND_SPACE, /* one character of White_Space */
} mzm_finder_kind;

typedef struct mzm_finder {
	mzm_finder_kind kind;
	char           *text; /* [len] the literal, or the pattern as the file has it */
	size_t          len;
	void           *code; /* pcre2_code */
} mzm_finder;

mzm_status mzm_finder_literal(mzm_finder *out, const char *text, size_t len, mzm_err *err);
mzm_status mzm_finder_regex(mzm_finder *out, const char *pattern, size_t len, mzm_err *err);
void       mzm_finder_free(mzm_finder *f);

/* A walk over the matches in one text after the other, with a budget of matching steps. */
typedef struct mzm_find {
	const char *s;
	size_t      len, pos;
	mzm_span    match;    /* the last match; never empty */
	void       *data, *context; /* pcre2_match_data, pcre2_match_context */
	uint64_t    budget;   /* steps left, see mzm_find_begin */
	int64_t     slow_ns, stop_ns; /* processor time at which compiled code, and all matching, is given up */
	uint32_t    n_calls;
	bool        interpret;
} mzm_find;

void       mzm_find_start(mzm_find *find, size_t n_bytes); /* limits the time of all that follows; else begin does */
void       mzm_find_begin(mzm_find *find, size_t n_bytes); /* a new budget of steps, for texts of n bytes in all */
void       mzm_find_text(mzm_find *find, const char *s, size_t len); /* the next text, valid UTF-8 */
mzm_status mzm_find_next(mzm_find *find, const mzm_finder *f, bool *found, mzm_err *err);
void       mzm_find_free(mzm_find *find);

/* ---- tokenizer_steps.c: the configured steps ---- */

typedef struct mzm_charsmap mzm_charsmap;

typedef enum mzm_step_kind {
	MZM_NORM_UNICODE, /* NFC, NFD, NFKC, NFKD: option */
	MZM_NORM_ACCENTS, /* marks are removed */
	MZM_NORM_BERT,
	MZM_NORM_CHARSMAP,
	MZM_NORM_PREPEND,
	MZM_NORM_REPLACE,
	MZM_NORM_LOWERCASE,
	MZM_NORM_STRIP,
	MZM_PRE_SPLIT, /* Split, Digits, Punctuation, WhitespaceSplit, Whitespace */
	MZM_PRE_BERT,
	MZM_PRE_BYTELEVEL,
	MZM_PRE_METASPACE,
	MZM_DEC_BYTELEVEL,
	MZM_DEC_REPLACE,
	MZM_DEC_BYTE_FALLBACK,
	MZM_DEC_FUSE,
	MZM_DEC_STRIP,
	MZM_DEC_METASPACE,
	MZM_DEC_WORDPIECE,
} mzm_step_kind;

typedef enum mzm_split { MZM_REMOVED, MZM_ISOLATED, MZM_MERGED_PREVIOUS, MZM_MERGED_NEXT, MZM_CONTIGUOUS } mzm_split;
typedef enum mzm_scheme { MZM_PREPEND_NEVER, MZM_PREPEND_FIRST, MZM_PREPEND_ALWAYS } mzm_scheme;

typedef struct mzm_step {
	mzm_step_kind kind;
	mzm_finder    find;    /* what Split, Replace, Metaspace and ByteLevel look for */
	mzm_str       content; /* Prepend and Replace: what is put there; Metaspace: its mark; Strip: its character;
				* the decoder WordPiece: what continuing tokens begin with */
	mzm_charsmap *map;     /* Precompiled */
	mzm_split     behavior;
	mzm_scheme    scheme;  /* Metaspace */
	bool          invert;  /* Split */
	bool          prefix;  /* ByteLevel: add_prefix_space */
	bool          split;   /* ByteLevel: use_regex; Metaspace: split */
	bool          left, right; /* the normaliser's Strip */
	bool          clean, spread, strip, lower; /* BertNormalizer: its members; the decoder WordPiece: cleanup */
	int32_t       n_start, n_stop; /* the decoder's Strip */
	int32_t       option;  /* utf8proc's */
} mzm_step;

typedef struct mzm_steps {
	mzm_step *v; /* [n] Sequences are flattened */
	int32_t   n;
} mzm_steps;

/* From one member of tokenizer.json: "normalizer", "pre_tokenizer" or "decoder"; null gives no steps. */
mzm_status mzm_steps_parse(mzm_steps *out, const json_t *root, const char *member, mzm_err *err);
void       mzm_steps_free(mzm_steps *steps);

/* ---- tokenizer_vocab.c: tokens by id and by content ---- */

typedef enum mzm_token_flag {
	MZM_TOKEN_PRESENT = 1, /* else the id is a hole */
	MZM_TOKEN_MODEL = 2,   /* in the model's vocabulary */
	MZM_TOKEN_ADDED = 4,
	MZM_TOKEN_SPECIAL = 8,
} mzm_token_flag;

typedef struct mzm_tok_token {
	uint32_t content, content_len; /* in vocab.arena, NUL-terminated */
	uint32_t bytes, bytes_len;     /* in vocab.bytes: what it decodes to */
} mzm_tok_token;

typedef struct mzm_tok_slot {
	uint32_t hash;
	uint32_t id1; /* id + 1; 0 = free */
} mzm_tok_slot;

typedef struct mzm_vocab {
	mzm_tok_token *tokens; /* [n] */
	uint8_t       *flags;  /* [n] mzm_token_flag */
	int32_t        n;      /* highest id + 1 */
	char          *arena;
	size_t         arena_len;
	mzm_str        bytes;
	mzm_tok_slot  *slots;  /* [mask + 1] open addressing */
	uint32_t       mask;
	uint64_t       seed;   /* of all hashes: collisions cannot be prepared in a file */
} mzm_vocab;

/* vocab: an object, token -> id; or an array of tokens or of [token, ..], whose places are the ids. */
mzm_status mzm_vocab_build(mzm_vocab *v, const json_t *vocab, const json_t *added, mzm_err *err);
void       mzm_vocab_free(mzm_vocab *v);
int32_t    mzm_vocab_find(const mzm_vocab *v, const char *s, size_t len); /* any token; -1: none */
int32_t    mzm_vocab_find_model(const mzm_vocab *v, const char *s, size_t len);
uint64_t   mzm_vocab_hash(const mzm_vocab *v, const void *s, size_t len);
void       mzm_vocab_byte_ids(const mzm_vocab *v, int32_t ids[256]); /* of "<0x00>" ..; -1: not in the vocabulary */
static inline bool mzm_vocab_has(const mzm_vocab *v, int32_t id)
{
	return id >= 0 && id < v->n && (v->flags[id] & MZM_TOKEN_PRESENT);
}
static inline const char *mzm_vocab_content(const mzm_vocab *v, int32_t id)
{
	return v->arena + v->tokens[id].content;
}

/* ---- tokenizer_added.c: added tokens in running text ---- */

typedef struct mzm_added {
	char    *match; /* [len] what is looked for: the content, normalised where asked */
	size_t   len;
	int32_t  id;
	bool     special, lstrip, rstrip, single_word, normalized;
} mzm_added;

typedef struct mzm_added_set {
	mzm_added *v;          /* [n] sorted by match */
	int32_t    n;
	int32_t    first[257]; /* v[first[b]..first[b+1]) start with byte b */
} mzm_added_set;

typedef struct mzm_added_hit {
	int32_t  id;   /* -1: none up to the end */
	mzm_span span; /* blanks that lstrip and rstrip take included */
} mzm_added_hit;

void          mzm_added_sort(mzm_added_set *set);
void          mzm_added_free(mzm_added_set *set);
/* The first added token at or after pos; special ones only where asked. */
mzm_added_hit mzm_added_next(const mzm_added_set *set, const char *s, size_t len, size_t pos, bool special);

/* ---- tokenizer_charsmap.c: SentencePiece's table of replacements ---- */

/* From the base64 of a file; -> mzm_charsmap_free */
mzm_status mzm_charsmap_parse(mzm_charsmap **out, const char *base64, size_t len, mzm_err *err);
void       mzm_charsmap_free(mzm_charsmap *map);
/* Appends s, replaced: at each place the longest text that the table knows. No more than max bytes. */
mzm_status mzm_charsmap_apply(mzm_str *out, const mzm_charsmap *map, const char *s, size_t len, size_t max,
			      mzm_err *err);

/* ---- tokenizer_trie.c: which tokens start here? ---- */

typedef struct mzm_trie_slot {
	uint64_t key;   /* (parent + 1) << 8 | byte; 0 = free */
	uint32_t child;
	int32_t  id;    /* of the token that ends here; -1 */
} mzm_trie_slot;

/* Nodes are numbers, 0 the root; edges lie in one hash table. */
typedef struct mzm_trie {
	mzm_trie_slot *slots; /* [mask + 1] */
	uint64_t mask, factor;
	int      shift;
	uint32_t n_nodes;
	size_t   max_len;     /* of any token */
} mzm_trie;

mzm_status mzm_trie_init(mzm_trie *t, uint64_t seed, mzm_err *err);
void       mzm_trie_free(mzm_trie *t);
mzm_status mzm_trie_add(mzm_trie *t, const char *s, size_t len, int32_t id, mzm_err *err); /* len > 0 */
/* The edge from this node; NULL: there is none. */
static inline const mzm_trie_slot *mzm_trie_step(const mzm_trie *t, uint32_t node, char byte)
{
	uint64_t key = ((uint64_t)node + 1) << 8 | (unsigned char)byte;
	for (uint64_t i = key * t->factor >> t->shift;; i = (i + 1) & t->mask) {
		const mzm_trie_slot *slot = &t->slots[i];
		if (slot->key == key)
			return slot;
		if (!slot->key)
			return NULL;
	}
}

/* ---- the models: tokenizer_bpe.c, tokenizer_unigram.c, tokenizer_wordpiece.c ---- */

typedef struct mzm_merge {
	int32_t  left, right, made;
	uint32_t rank1; /* rank + 1; 0 = a free slot */
} mzm_merge;

typedef struct mzm_bpe {
	mzm_merge *slots; /* [mask + 1] */
	uint32_t   mask;
	uint64_t  *joins; /* [join_mask + 1 bits] which neighbouring symbols some merge joins; no false negatives */
	uint64_t   join_mask;
	uint32_t   n_ranks; /* above any rank1; 0: there are too many for lists */
	bool       cuts;  /* joins is complete: words may be cut where it says no */
	bool       ignore_merges, byte_fallback, fuse_unk;
	int32_t    unk_id;         /* -1: none */
	int32_t    byte_ids[256];  /* "<0x00>" ..; -1: not in the vocabulary */
	int32_t    char_ids[1024]; /* of the first code points; -1 */
} mzm_bpe;

typedef struct mzm_unigram {
	mzm_trie trie;
	double  *scores;        /* [n_scores] by id */
	double   unk_score;
	int32_t  n_scores, unk_id; /* -1: none */
	int32_t  byte_ids[256];
	bool     byte_fallback;
} mzm_unigram;

typedef struct mzm_wordpiece {
	mzm_trie trie;
	uint32_t inside;    /* where the tokens that continue a word start in it */
	bool     continues; /* there are such tokens */
	int32_t  unk_id;
	int32_t  max_chars; /* of a word; a longer one is unknown */
} mzm_wordpiece;

typedef struct mzm_tok_model {
	const char *name;
	bool        listed; /* its vocabulary is an array, ids in order */
	mzm_status (*parse)(mzm_tokenizer *tok, const json_t *model, mzm_err *err); /* after the vocabulary */
	void (*free)(mzm_tokenizer *tok);
	mzm_status (*encode_word)(mzm_tok_enc *enc, const char *s, size_t len); /* valid UTF-8 */
	mzm_status (*encode_bytes)(mzm_tok_enc *enc, const char *s, size_t len); /* invalid UTF-8 */
} mzm_tok_model;

extern const mzm_tok_model mzm_tok_bpe, mzm_tok_unigram, mzm_tok_wordpiece;

struct mzm_tokenizer {
	const mzm_tok_model *model;
	mzm_bpe       bpe;       /* that of the model */
	mzm_unigram   unigram;
	mzm_wordpiece wordpiece;
	mzm_vocab     vocab;
	mzm_steps     norm, pre;
	mzm_added_set added[2]; /* looked for in the raw text, in the normalised text */
	bool          byte_level; /* the pre-tokenizer turns bytes into characters */
	int32_t       before[MZM_TOK_MAX_WRAP], behind[MZM_TOK_MAX_WRAP]; /* of the post-processor */
	int32_t       n_before, n_behind;
	bool          drop_first; /* decoding: the text loses a first first_char */
	char          first_char;
	bool          join_blank; /* no decoder: a blank between tokens */
	size_t        max_bytes;  /* of any token */
};

/* ---- what one call of mzm_tokenize works with ---- */

typedef struct mzm_bpe_symbol {
	int32_t  id;        /* -1: merged away */
	uint32_t prev, next; /* long words only */
} mzm_bpe_symbol;

/* Where a run of valid text stands: what puts something in front does so at the first only. */
typedef struct mzm_run {
	bool first, last; /* run of its segment */
	bool at_start;    /* the segment is the text's first */
} mzm_run;

/* The pieces of one span on their way to a list: matches and what lies between, merged as asked. */
typedef struct mzm_cutter {
	mzm_tok_enc *enc;
	mzm_span span;
	size_t from;     /* bytes of it that are cut */
	int to;          /* list written */
	mzm_split behavior;
	bool any;        /* the span has given a piece */
	bool last_match; /* kind of the piece before */
	bool held;       /* MERGED_NEXT: a match that waits for what follows it */
	mzm_span wait;
} mzm_cutter;

typedef enum mzm_pre_op_kind { MZM_OP_CUT, MZM_OP_BLANK, MZM_OP_MARKS, MZM_OP_BYTES } mzm_pre_op_kind;

typedef struct mzm_pre_op {
	mzm_pre_op_kind kind;
	const mzm_step *step;
} mzm_pre_op;

/* A text on its way through the pre-tokenizer: see tokenizer_pre.c. */
typedef struct mzm_tok_words {
	mzm_pre_op ops[3 * MZM_TOK_MAX_STEPS];
	int32_t    n_ops, first_cut; /* n_ops: nothing cuts */
	mzm_run    run;
	const char *base;   /* the text that the first cut cuts */
	mzm_cutter cutter;
	mzm_span   carry;   /* the last word of the batch before, where carries */
	bool       carries, ended;
	size_t     n_before; /* words of the batches before */
	size_t     n_max;    /* words of a batch; 0: some thousand. Words do not depend on it */
} mzm_tok_words;

/* The smallest number first. */
typedef struct mzm_heap {
	uint64_t *v; /* [n] */
	size_t    n, cap;
} mzm_heap;

/* Merges to do in a long word: see tokenizer_bpe.c. */
typedef struct mzm_bpe_queue {
	mzm_heap  rest;  /* rank << 32 | position */
	mzm_heap  ranks; /* those that have a list */
	uint32_t *ends;  /* [2 * n_ranks] first and last node of each list, + 1; first 0: it is empty */
	uint64_t *nodes; /* [n_nodes] (next node + 1) << 32 | position */
	size_t    n_nodes, cap_nodes;
	uint32_t  free1; /* unused nodes, a list; 0: none */
	bool      lists; /* this word is long enough for them */
} mzm_bpe_queue;

struct mzm_tok_enc {
	const mzm_tokenizer *tok;
	mzm_err   *err;
	bool       parse_special;
	int32_t   *ids; /* [n_ids] the result */
	size_t     n_ids, cap_ids;
	mzm_find   find, outer; /* outer: the first cut's */
	mzm_tok_words words;
	size_t     norm_left; /* bytes the normaliser may still make */
	mzm_str    norm[2];
	int32_t   *points;    /* code points, for NFC and the like */
	size_t     n_points, cap_points;
	int32_t   *marks;     /* reordering of combining marks */
	size_t     cap_marks;
	mzm_str    text[3];
	const char *base;     /* what spans[which_span] index */
	mzm_span  *spans[2];
	size_t     n_spans[2], cap_spans[2];
	mzm_bpe_symbol *symbols; /* [n_symbols] of the word, or of a part that can be merged on its own */
	size_t     n_symbols, cap_symbols;
	bool       after_unk; /* the last symbol is unk_id for want of another */
	mzm_bpe_queue queue;
	int32_t   *back;      /* Unigram: the token that ends, and later starts, at each byte */
	size_t     cap_back;
	double    *best;      /* Unigram: scores of the best ways to the last bytes, a ring */
};

/* Ids of text without the post-processor's; the result is in enc->ids. */
mzm_status mzm_tok_encode(mzm_tok_enc *enc, const char *text, size_t len);
void       mzm_tok_enc_free(mzm_tok_enc *enc);
static inline mzm_status mzm_tok_emit(mzm_tok_enc *enc, int32_t id)
{
	if (enc->n_ids == enc->cap_ids)
		MZM_TRY(mzm_tok_grow((void **)&enc->ids, &enc->cap_ids, enc->n_ids + 1, sizeof *enc->ids, enc->err));
	enc->ids[enc->n_ids++] = id;
	return MZM_OK;
}

/* tokenizer_norm.c: *s, *len become the normalised text, in enc or unchanged. */
mzm_status mzm_tok_normalize(mzm_tok_enc *enc, const char **s, size_t *len, mzm_run run);
/* Appends s to out with what f finds replaced by content. */
mzm_status mzm_tok_replace(mzm_str *out, mzm_find *find, const mzm_step *step, const char *s, size_t len,
			   mzm_err *err);
/* tokenizer_pre.c: the words of s, which stays; then as often as there are more, the next of them in enc->base and
 * enc->spans[*which]. */
mzm_status mzm_tok_pre(mzm_tok_enc *enc, const char *s, size_t len, mzm_run run);
mzm_status mzm_tok_pre_next(mzm_tok_enc *enc, int *which, bool *more);
/* GPT-2's printable stand-in for a byte, and back (-1: none). */
uint32_t mzm_byte_to_char(unsigned char byte);
int      mzm_char_to_byte(uint32_t cp);
/* The byte that "<0x0A>" names, capital digits only; -1: not such a name. */
int        mzm_byte_of_name(const char *s, size_t len);
/* tokenizer_decode.c: fills vocab.bytes and the decoding fields. */
mzm_status mzm_tok_build_bytes(mzm_tokenizer *tok, const mzm_steps *decoder, bool has_decoder, mzm_err *err);

#endif
