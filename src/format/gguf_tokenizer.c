/* gguf_tokenizer.c - the tokenizer in a GGUF file's metadata, for tokenizer_write.c to write down as tokenizer.json.
 *
 * Four kinds: "gpt2" is byte-level BPE, merges and all; "llama" is SentencePiece BPE, which has scores instead; "t5" is
 * SentencePiece's unigram model; "bert" is WordPiece. Where the file is silent, what llama.cpp takes for granted is:
 * it made the files. */
#include <inttypes.h>
#include <string.h>

#include "format/tokenizer_write.h"

#define KEY(name) "tokenizer.ggml." name

static const struct known_model {
	const char *name;
	mzm_vocab_kind kind;
	int32_t bos, eos, unk; /* where the file does not say; -1: none */
	bool add_bos, add_eos, add_space;
} models[] = {
	{"gpt2", MZM_VOCAB_BYTES, -1, -1, -1, false, false, false},
	{"llama", MZM_VOCAB_SPM, 1, 2, 0, true, false, true},
	{"t5", MZM_VOCAB_UNIGRAM, -1, 1, 2, false, true, false},
	{"bert", MZM_VOCAB_BERT, 101, 102, 100, true, true, false},
};

/* Files from before May 2024 do not name their pre-tokenizer; where all models of an architecture have the same one, it
 * is known all the same. */
static mzm_gguf_text pre_name(const mzm_gguf *g)
{
	static const char *const known[][2] = {{"gptneox", "gpt-neox"}, {"gpt2", "gpt-2"},  {"mpt", "mpt"},
					       {"falcon", "falcon"},    {"qwen2", "qwen2"}, {"starcoder", "starcoder"},
					       {"refact", "refact"},    {"phi2", "phi-2"}};
	mzm_gguf_text name, pre = {.s = "default", .n = 7};
	if (mzm_gguf_string(g, KEY("pre"), &pre) || !mzm_gguf_string(g, "general.architecture", &name))
		return pre;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (name.n == strlen(known[i][0]) && memcmp(name.s, known[i][0], name.n) == 0)
			pre = (mzm_gguf_text){.s = known[i][1], .n = strlen(known[i][1])};
	return pre;
}

static mzm_status read_model(mzm_vocab_list *l, const mzm_gguf *g, mzm_gguf_text model,
			     const struct known_model **known, mzm_err *err)
{
	char name[64];
	*known = NULL;
	for (size_t i = 0; i < sizeof models / sizeof *models; i++)
		if (model.n == strlen(models[i].name) && memcmp(model.s, models[i].name, model.n) == 0)
			*known = &models[i];
	if (!*known)
		return mzm_fail(err, MZM_EUNSUPPORTED,
				KEY("model") " \"%s\" is not supported (gpt2, llama, t5 and bert are)",
				mzm_vocab_printable(name, model));
	l->kind = (*known)->kind;
	if (l->kind != MZM_VOCAB_BYTES)
		return MZM_OK;
	mzm_gguf_text pre = pre_name(g);
	l->pre = mzm_gguf_pre_find(pre.s, pre.n);
	if (!l->pre)
		return mzm_fail(err, MZM_EUNSUPPORTED, KEY("pre") " \"%s\" is not a known pre-tokenizer",
				mzm_vocab_printable(name, pre));
	return MZM_OK;
}

static mzm_status same_count(const mzm_vocab_list *l, const char *key, const mzm_gguf_array *a, mzm_err *err)
{
	if (a->n == l->n)
		return MZM_OK;
	return mzm_fail(err, MZM_EFORMAT, "%s has %" PRIu64 " elements for %" PRIu64 " tokens", key, a->n, l->n);
}

static mzm_status read_tokens(mzm_vocab_list *l, const mzm_gguf *g, mzm_err *err)
{
	mzm_gguf_array tokens, types;
	l->tokens_name = KEY("tokens");
	if (!mzm_gguf_get_array(g, KEY("tokens"), &tokens) || tokens.type != MZM_GGUF_STRING || !tokens.n)
		return mzm_fail(err, MZM_EFORMAT, KEY("tokens") " is not an array of strings");
	l->tokens = tokens.data;
	l->n = tokens.n;
	if (!mzm_gguf_get_array(g, KEY("token_type"), &types))
		return MZM_OK;
	if (types.type != MZM_GGUF_I32 && types.type != MZM_GGUF_U32)
		return mzm_fail(err, MZM_EFORMAT, KEY("token_type") " is not an array of 32-bit integers");
	l->types = types.data;
	return same_count(l, KEY("token_type"), &types, err);
}

static mzm_status read_scores(mzm_vocab_list *l, const mzm_gguf *g, mzm_err *err)
{
	mzm_gguf_array scores;
	if (!mzm_gguf_get_array(g, KEY("scores"), &scores) || scores.type != MZM_GGUF_F32)
		return mzm_fail(err, MZM_EFORMAT, KEY("scores") " is not an array of 32-bit reals");
	l->scores = scores.data;
	return same_count(l, KEY("scores"), &scores, err);
}

static mzm_status read_merges(mzm_vocab_list *l, const mzm_gguf *g, mzm_err *err)
{
	mzm_gguf_array merges;
	l->merges_name = KEY("merges");
	if (!mzm_gguf_get_array(g, KEY("merges"), &merges) || (merges.n && merges.type != MZM_GGUF_STRING))
		return mzm_fail(err, MZM_EFORMAT, KEY("merges") " is not an array of strings");
	l->merges = merges.data;
	l->n_merges = merges.n;
	return MZM_OK;
}

static mzm_status read_charsmap(mzm_vocab_list *l, const mzm_gguf *g, mzm_err *err)
{
	mzm_gguf_array map;
	if (!mzm_gguf_has(g, KEY("precompiled_charsmap")))
		return MZM_OK;
	if (!mzm_gguf_get_array(g, KEY("precompiled_charsmap"), &map) ||
	    (map.n && map.type != MZM_GGUF_U8 && map.type != MZM_GGUF_I8))
		return mzm_fail(err, MZM_EFORMAT, KEY("precompiled_charsmap") " is not an array of bytes");
	l->charsmap = map.data;
	l->n_charsmap = (size_t)map.n;
	return MZM_OK;
}

/* What SentencePiece can do and no file of "t5" is known to ask for is refused by name. */
static mzm_status read_unigram(mzm_vocab_list *l, const mzm_gguf *g, mzm_err *err)
{
	bool suffix = false, escape = true;
	MZM_TRY(read_scores(l, g, err));
	MZM_TRY(read_charsmap(l, g, err));
	(void)mzm_gguf_flag(g, KEY("treat_whitespace_as_suffix"), &suffix);
	(void)mzm_gguf_flag(g, KEY("escape_whitespaces"), &escape);
	if (suffix || !escape)
		return mzm_fail(err, MZM_EUNSUPPORTED, KEY("%s") " is not supported",
				suffix ? "treat_whitespace_as_suffix" : "escape_whitespaces = false");
	(void)mzm_gguf_flag(g, KEY("remove_extra_whitespaces"), &l->merge_spaces);
	l->add_space = l->add_space || l->merge_spaces; /* then each word has its mark, the first one too */
	return MZM_OK;
}

/* An id that is no token's counts as not given. */
static int32_t special_id(const mzm_vocab_list *l, const mzm_gguf *g, const char *key, int32_t fallback)
{
	uint64_t id;
	if (mzm_gguf_u64(g, key, &id) && id < l->n)
		return (int32_t)id;
	return fallback < (int64_t)l->n ? fallback : -1;
}

static void read_specials(mzm_vocab_list *l, const mzm_gguf *g, const struct known_model *known)
{
	mzm_gguf_text name;
	l->bos = special_id(l, g, KEY("bos_token_id"), known->bos);
	l->eos = special_id(l, g, KEY("eos_token_id"), known->eos);
	l->unk = special_id(l, g, KEY("unknown_token_id"), known->unk);
	l->pad = special_id(l, g, KEY("padding_token_id"), -1);
	if (l->kind == MZM_VOCAB_BERT) { /* the format's own spelling */
		l->bos = special_id(l, g, KEY("cls_token_id"), l->bos);
		l->eos = special_id(l, g, KEY("seperator_token_id"), l->eos);
	}
	l->add_bos = known->add_bos || (l->pre && l->pre->add_bos);
	l->add_eos = known->add_eos;
	l->add_space = known->add_space;
	l->lower = l->strip = true;
	(void)mzm_gguf_flag(g, KEY("add_bos_token"), &l->add_bos);
	(void)mzm_gguf_flag(g, KEY("add_eos_token"), &l->add_eos);
	(void)mzm_gguf_flag(g, KEY("add_space_prefix"), &l->add_space);
	(void)mzm_gguf_flag(g, KEY("normalizer.lowercase"), &l->lower);
	(void)mzm_gguf_flag(g, KEY("normalizer.strip_accents"), &l->strip);
	/* the one attribute that llama.cpp goes by the model's name for */
	l->rstrip = mzm_gguf_string(g, "general.name", &name) &&
		    (strcasestr(name.s, "phi-3") || strcasestr(name.s, "phi3"));
	if (mzm_gguf_string(g, "tokenizer.chat_template", &name)) {
		l->chat_template = name.s;
		l->n_template = name.n;
	}
}

mzm_status mzm_gguf_tokenizer_json(char **json, char **config, const mzm_gguf *g, mzm_err *err)
{
	mzm_vocab_list l = {0};
	mzm_gguf_text model;
	const struct known_model *known;
	*json = *config = NULL;
	if (!mzm_gguf_string(g, KEY("model"), &model) || (model.n == 8 && memcmp(model.s, "no_vocab", 8) == 0))
		return MZM_OK;
	MZM_TRY(read_model(&l, g, model, &known, err));
	MZM_TRY(read_tokens(&l, g, err));
	read_specials(&l, g, known);
	if (l.kind == MZM_VOCAB_BYTES)
		MZM_TRY(read_merges(&l, g, err));
	else if (l.kind == MZM_VOCAB_SPM)
		MZM_TRY(read_scores(&l, g, err));
	else if (l.kind == MZM_VOCAB_UNIGRAM)
		MZM_TRY(read_unigram(&l, g, err));
	return mzm_tokenizer_write(json, config, &l, err);
}
