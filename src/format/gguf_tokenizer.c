/* gguf_tokenizer.c - the tokenizer in a GGUF file's metadata, as the texts of tokenizer.json and tokenizer_config.json.
 *
 * There is one reader of tokenizers (tokenizer_parse.c), and this file writes for it. Two kinds: "gpt2" is byte-level
 * BPE, merges and all; "llama" is SentencePiece BPE, which has scores instead. There, two neighbours may be merged
 * whenever both together are a piece, the best score first, so every cut of a piece into two pieces is a merge
 * (gguf_merges.c).
 *
 * Tokens of type 2, 3 and 4 (unknown, control, user-defined) are found in the raw text before anything else, the first
 * two only where special tokens are asked for. Whatever text may say, merging never makes one of type 2, 3 or 6 (byte)
 * of a "llama" file; llama.cpp would where its pieces allow it.
 *
 * Strings of the file may be any bytes: what cannot be a string of JSON is refused with its place. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "format/gguf_merges.h"
#include "format/gguf_pre.h"
#include "format/tokenizer_utf8.h"

#define KEY(name)    "tokenizer.ggml." name
#define MAX_TOKENS   ((uint64_t)1 << 24)
#define EMPTY_NAME   32 /* bytes that "[EMPTY_<id>]" needs */
#define METASPACE    "\xe2\x96\x81"

typedef enum token_type { T_NORMAL = 1, T_UNKNOWN = 2, T_CONTROL = 3, T_USER = 4, T_BYTE = 6 } token_type;

typedef struct reading {
	const mzm_gguf *g;
	mzm_gguf_array tokens, types; /* types.n 0: all are normal */
	bool spm;
	const mzm_gguf_pre *pre; /* of gpt2 */
	int32_t bos, eos, unk, pad; /* -1: none */
	bool add_bos, add_eos, add_space;
	bool rstrip; /* blanks behind special tokens belong to them */
} reading;

/* ---- strings ---- */

/* A name of the file made safe to print. */
static const char *printable(char out[64], mzm_gguf_text t)
{
	size_t n = t.n < 60 ? t.n : 60;
	for (size_t i = 0; i < n; i++)
		out[i] = t.s[i];
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)out[i] < 0x20 || (unsigned char)out[i] >= 0x7f)
			out[i] = '?';
	out[n] = 0;
	return out;
}

static mzm_status no_memory(mzm_err *err)
{
	return mzm_fail(err, MZM_ENOMEM, "out of memory for the tokenizer");
}

static mzm_status check_text(mzm_gguf_text t, const char *key, uint64_t i, mzm_err *err)
{
	char name[64];
	if (memchr(t.s, 0, t.n))
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s[%" PRIu64 "] \"%s\" holds a NUL", key, i,
				printable(name, t));
	if (mzm_utf8_valid(t.s, t.n) != t.n)
		return mzm_fail(err, MZM_EFORMAT, "%s[%" PRIu64 "] \"%s\" is not UTF-8", key, i, printable(name, t));
	return MZM_OK;
}

/* The token's text; an empty one has a name of its own, as llama.cpp gives it. */
static mzm_gguf_text token_text(const reading *r, int32_t id, char empty[EMPTY_NAME])
{
	mzm_gguf_text t = ((const mzm_gguf_text *)r->tokens.data)[id];
	if (!t.n) {
		t.n = (size_t)snprintf(empty, EMPTY_NAME, "[EMPTY_%d]", (int)id);
		t.s = empty;
	}
	return t;
}

static json_t *token_json(const reading *r, int32_t id)
{
	char empty[EMPTY_NAME];
	mzm_gguf_text t = token_text(r, id, empty);
	return json_stringn_nocheck(t.s, t.n);
}

static token_type type_of(const reading *r, int32_t id)
{
	return r->types.n ? (token_type)((const int32_t *)r->types.data)[id] : T_NORMAL;
}

/* ---- reading the metadata ---- */

static mzm_status read_model(reading *r, mzm_gguf_text model, mzm_err *err)
{
	char name[64];
	mzm_gguf_text pre = {.s = "default", .n = 7};
	r->spm = model.n == 5 && memcmp(model.s, "llama", 5) == 0;
	if (!r->spm && (model.n != 4 || memcmp(model.s, "gpt2", 4) != 0))
		return mzm_fail(err, MZM_EUNSUPPORTED, KEY("model") " \"%s\" is not supported (gpt2 and llama are)",
				printable(name, model));
	(void)mzm_gguf_string(r->g, KEY("pre"), &pre);
	r->pre = r->spm ? NULL : mzm_gguf_pre_find(pre.s, pre.n);
	if (!r->spm && !r->pre)
		return mzm_fail(err, MZM_EUNSUPPORTED, KEY("pre") " \"%s\" is not a known pre-tokenizer",
				printable(name, pre));
	return MZM_OK;
}

static mzm_status read_tokens(reading *r, mzm_err *err)
{
	if (!mzm_gguf_get_array(r->g, KEY("tokens"), &r->tokens) || r->tokens.type != MZM_GGUF_STRING || !r->tokens.n)
		return mzm_fail(err, MZM_EFORMAT, KEY("tokens") " is not an array of strings");
	if (r->tokens.n > MAX_TOKENS)
		return mzm_fail(err, MZM_EUNSUPPORTED, KEY("tokens") ": %" PRIu64 " tokens", r->tokens.n);
	for (uint64_t i = 0; i < r->tokens.n; i++)
		MZM_TRY(check_text(((const mzm_gguf_text *)r->tokens.data)[i], KEY("tokens"), i, err));
	if (!mzm_gguf_get_array(r->g, KEY("token_type"), &r->types))
		return MZM_OK;
	if (r->types.type != MZM_GGUF_I32 && r->types.type != MZM_GGUF_U32)
		return mzm_fail(err, MZM_EFORMAT, KEY("token_type") " is not an array of 32-bit integers");
	if (r->types.n != r->tokens.n)
		return mzm_fail(err, MZM_EFORMAT, KEY("token_type") " has %" PRIu64 " elements for %" PRIu64 " tokens",
				r->types.n, r->tokens.n);
	return MZM_OK;
}

/* An id that is no token's counts as not given. */
static int32_t special_id(const reading *r, const char *key, int32_t fallback)
{
	uint64_t id;
	if (mzm_gguf_u64(r->g, key, &id) && id < r->tokens.n)
		return (int32_t)id;
	return fallback < (int64_t)r->tokens.n ? fallback : -1;
}

static void read_specials(reading *r)
{
	mzm_gguf_text name;
	r->bos = special_id(r, KEY("bos_token_id"), r->spm ? 1 : -1);
	r->eos = special_id(r, KEY("eos_token_id"), r->spm ? 2 : -1);
	r->unk = special_id(r, KEY("unknown_token_id"), r->spm ? 0 : -1);
	r->pad = special_id(r, KEY("padding_token_id"), -1);
	r->add_bos = r->spm || r->pre->add_bos;
	r->add_space = r->spm;
	(void)mzm_gguf_flag(r->g, KEY("add_bos_token"), &r->add_bos);
	(void)mzm_gguf_flag(r->g, KEY("add_eos_token"), &r->add_eos);
	(void)mzm_gguf_flag(r->g, KEY("add_space_prefix"), &r->add_space);
	/* the one attribute that llama.cpp goes by the model's name for */
	r->rstrip = mzm_gguf_string(r->g, "general.name", &name) &&
		    (strcasestr(name.s, "phi-3") || strcasestr(name.s, "phi3"));
}

/* ---- the model: vocabulary and merges ---- */

static mzm_status make_vocab(const reading *r, json_t **out, mzm_err *err)
{
	json_t *vocab = *out = json_object();
	char empty[EMPTY_NAME], name[64];
	for (int32_t id = 0; id < (int32_t)r->tokens.n; id++) {
		mzm_gguf_text t = token_text(r, id, empty);
		if (json_object_setn_new_nocheck(vocab, t.s, t.n, json_integer(id)) != 0)
			return no_memory(err);
		if (json_object_size(vocab) != (size_t)id + 1)
			return mzm_fail(err, MZM_EFORMAT, KEY("tokens") "[%d]: \"%s\" is there twice", (int)id,
					printable(name, t));
	}
	return MZM_OK;
}

static mzm_status given_merges(const reading *r, json_t **out, mzm_err *err)
{
	mzm_gguf_array merges;
	*out = json_array();
	if (!mzm_gguf_get_array(r->g, KEY("merges"), &merges) || (merges.n && merges.type != MZM_GGUF_STRING))
		return mzm_fail(err, MZM_EFORMAT, KEY("merges") " is not an array of strings");
	for (uint64_t i = 0; i < merges.n; i++) {
		mzm_gguf_text t = ((const mzm_gguf_text *)merges.data)[i];
		MZM_TRY(check_text(t, KEY("merges"), i, err));
		if (json_array_append_new(*out, json_stringn_nocheck(t.s, t.n)) != 0)
			return no_memory(err);
	}
	return MZM_OK;
}

/* Only what a text can be made of takes part: no special tokens, and nothing with a blank, as texts have none. */
static mzm_status derived_merges(const reading *r, json_t *model, mzm_err *err)
{
	mzm_gguf_array scores;
	mzm_gguf_piece *pieces = NULL;
	mzm_status st;
	size_t bytes, n = 0;
	if (!mzm_gguf_get_array(r->g, KEY("scores"), &scores) || scores.type != MZM_GGUF_F32)
		return mzm_fail(err, MZM_EFORMAT, KEY("scores") " is not an array of 32-bit reals");
	if (scores.n != r->tokens.n)
		return mzm_fail(err, MZM_EFORMAT, KEY("scores") " has %" PRIu64 " elements for %" PRIu64 " tokens",
				scores.n, r->tokens.n);
	if (!mzm_mul_size((size_t)r->tokens.n, sizeof *pieces, &bytes))
		return no_memory(err);
	MZM_TRY(mzm_alloc_for((void **)&pieces, bytes, "pieces", err));
	for (int32_t id = 0; id < (int32_t)r->tokens.n; id++) {
		mzm_gguf_text t = ((const mzm_gguf_text *)r->tokens.data)[id];
		token_type type = type_of(r, id);
		bool odd = type == T_UNKNOWN || type == T_CONTROL || type == T_BYTE || id == r->unk;
		if (!odd && t.n && !memchr(t.s, ' ', t.n))
			pieces[n++] = (mzm_gguf_piece){.text = t, .id = id, .score = ((const float *)scores.data)[id]};
	}
	st = mzm_gguf_merges(model, pieces, n, err);
	mzm_free(pieces);
	return st;
}

static mzm_status make_model(const reading *r, json_t *root, mzm_err *err)
{
	json_t *vocab = NULL, *merges = NULL, *unk = r->unk >= 0 && r->spm ? token_json(r, r->unk) : json_null();
	json_t *model = json_pack("{s:s,s:o,s:b,s:b,s:b}", "type", "BPE", "unk_token", unk, "fuse_unk", r->spm,
				  "byte_fallback", r->spm, "ignore_merges", r->pre && r->pre->ignore_merges);
	mzm_status st = model ? MZM_OK : no_memory(err);
	if (st == MZM_OK)
		st = make_vocab(r, &vocab, err);
	if (st == MZM_OK)
		st = r->spm ? derived_merges(r, model, err) : given_merges(r, &merges, err);
	if (st == MZM_OK && merges && json_object_set(model, "merges", merges) != 0)
		st = no_memory(err);
	if (st == MZM_OK && (json_object_set(model, "vocab", vocab) != 0 || json_object_set(root, "model", model) != 0))
		st = no_memory(err);
	json_decref(vocab);
	json_decref(merges);
	json_decref(model);
	return st;
}

/* ---- what stands around the model ---- */

static bool keeps_blanks(mzm_gguf_text t)
{
	static const char *const names[] = {"<unk>", "<s>", "<|endoftext|>"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (t.n == strlen(names[i]) && memcmp(t.s, names[i], t.n) == 0)
			return true;
	return false;
}

static mzm_status make_added(const reading *r, json_t *root, mzm_err *err)
{
	char empty[EMPTY_NAME];
	json_t *list = json_array();
	if (json_object_set_new(root, "added_tokens", list) != 0)
		return no_memory(err);
	for (int32_t id = 0; id < (int32_t)r->tokens.n; id++) {
		token_type type = type_of(r, id);
		if (type != T_UNKNOWN && type != T_CONTROL && type != T_USER)
			continue;
		bool strip = r->rstrip && !keeps_blanks(token_text(r, id, empty));
		json_t *one = json_pack("{s:i,s:o,s:b,s:b,s:b,s:b,s:b}", "id", (int)id, "content", token_json(r, id),
					"single_word", 0, "lstrip", 0, "rstrip", strip, "normalized", 0, "special",
					type != T_USER);
		if (json_array_append_new(list, one) != 0)
			return no_memory(err);
	}
	return MZM_OK;
}

/* "gpt2": cut by patterns, then bytes. */
static json_t *byte_level_steps(const mzm_gguf_pre *pre)
{
	json_t *list = json_array();
	for (int i = 0; i < MZM_GGUF_MAX_PATTERNS && pre->patterns[i]; i++)
		json_array_append_new(list, json_pack("{s:s,s:{s:s},s:s,s:b}", "type", "Split", "pattern", "Regex",
						      pre->patterns[i], "behavior", "Isolated", "invert", 0));
	json_array_append_new(list, json_pack("{s:s,s:b,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", 0,
					      "trim_offsets", 0, "use_regex", 0));
	return json_pack("{s:s,s:o}", "type", "Sequence", "pretokenizers", list);
}

/* "llama": blanks become marks, and one is put in front. */
static json_t *mark_steps(bool add_space)
{
	json_t *list = json_array();
	if (add_space)
		json_array_append_new(list, json_pack("{s:s,s:s}", "type", "Prepend", "prepend", METASPACE));
	json_array_append_new(list, json_pack("{s:s,s:{s:s},s:s}", "type", "Replace", "pattern", "String", " ",
					      "content", METASPACE));
	return json_pack("{s:s,s:o}", "type", "Sequence", "normalizers", list);
}

static json_t *unmark_steps(bool add_space)
{
	json_t *list = json_pack("[{s:s,s:{s:s},s:s},{s:s},{s:s}]", "type", "Replace", "pattern", "String", METASPACE,
				 "content", " ", "type", "ByteFallback", "type", "Fuse");
	if (add_space)
		json_array_append_new(list, json_pack("{s:s,s:s,s:i,s:i}", "type", "Strip", "content", " ", "start", 1,
						      "stop", 0));
	return json_pack("{s:s,s:o}", "type", "Sequence", "decoders", list);
}

static mzm_status make_steps(const reading *r, json_t *root, mzm_err *err)
{
	int bad = json_object_set_new(root, "normalizer", r->spm ? mark_steps(r->add_space) : json_null());
	bad |= json_object_set_new(root, "pre_tokenizer", r->spm ? json_null() : byte_level_steps(r->pre));
	bad |= json_object_set_new(root, "decoder",
				   r->spm ? unmark_steps(r->add_space) : json_pack("{s:s}", "type", "ByteLevel"));
	return bad ? no_memory(err) : MZM_OK;
}

static int add_wrapping(const reading *r, json_t *single, json_t *specials, int32_t id)
{
	char empty[EMPTY_NAME];
	mzm_gguf_text t = token_text(r, id, empty);
	int bad = json_array_append_new(single, json_pack("{s:{s:o,s:i}}", "SpecialToken", "id", token_json(r, id),
							  "type_id", 0));
	json_t *what = json_pack("{s:o,s:[i],s:[o]}", "id", token_json(r, id), "ids", (int)id, "tokens",
				 token_json(r, id));
	return bad | json_object_setn_new_nocheck(specials, t.s, t.n, what);
}

static mzm_status make_processor(const reading *r, json_t *root, mzm_err *err)
{
	if ((r->add_bos && r->bos < 0) || (r->add_eos && r->eos < 0))
		return mzm_fail(err, MZM_EFORMAT,
				r->add_bos && r->bos < 0
					? KEY("add_bos_token") " is set, but " KEY("bos_token_id") " names no token"
					: KEY("add_eos_token") " is set, but " KEY("eos_token_id") " names no token");
	json_t *single = json_array(), *specials = json_object();
	int bad = r->add_bos ? add_wrapping(r, single, specials, r->bos) : 0;
	bad |= json_array_append_new(single, json_pack("{s:{s:s,s:i}}", "Sequence", "id", "A", "type_id", 0));
	bad |= r->add_eos ? add_wrapping(r, single, specials, r->eos) : 0;
	bad |= json_object_set_new(root, "post_processor",
				   json_pack("{s:s,s:o,s:o}", "type", "TemplateProcessing", "single", single,
					     "special_tokens", specials));
	return bad ? no_memory(err) : MZM_OK;
}

/* ---- texts ---- */

static int put(const char *bytes, size_t n, void *to)
{
	mzm_str *s = to;
	mzm_str_add(s, bytes, n);
	return s->failed ? -1 : 0;
}

static mzm_status write_text(char **out, const json_t *root, mzm_err *err)
{
	mzm_str s = {0};
	if (json_dump_callback(root, put, &s, JSON_COMPACT) != 0) {
		mzm_str_free(&s);
		return no_memory(err);
	}
	*out = s.data;
	return MZM_OK;
}

static mzm_status make_json(char **out, const reading *r, mzm_err *err)
{
	json_t *root = json_pack("{s:s,s:n,s:n}", "version", "1.0", "truncation", "padding");
	mzm_status st = root ? MZM_OK : no_memory(err);
	if (st == MZM_OK)
		st = make_added(r, root, err);
	if (st == MZM_OK)
		st = make_steps(r, root, err);
	if (st == MZM_OK)
		st = make_processor(r, root, err);
	if (st == MZM_OK)
		st = make_model(r, root, err);
	if (st == MZM_OK)
		st = write_text(out, root, err);
	json_decref(root);
	return st;
}

static mzm_status make_config(char **out, const reading *r, mzm_err *err)
{
	const char *const keys[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
	const int32_t ids[] = {r->bos, r->eos, r->unk, r->pad};
	mzm_gguf_text template;
	json_t *root = json_pack("{s:b,s:b}", "add_bos_token", r->add_bos, "add_eos_token", r->add_eos);
	mzm_status st = root ? MZM_OK : no_memory(err);
	for (int i = 0; i < 4 && st == MZM_OK; i++)
		if (ids[i] >= 0 && json_object_set_new(root, keys[i], token_json(r, ids[i])) != 0)
			st = no_memory(err);
	if (st == MZM_OK && mzm_gguf_string(r->g, "tokenizer.chat_template", &template)) {
		if (mzm_utf8_valid(template.s, template.n) != template.n)
			st = mzm_fail(err, MZM_EFORMAT, "tokenizer.chat_template is not UTF-8");
		else if (json_object_set_new(root, "chat_template", json_stringn_nocheck(template.s, template.n)) != 0)
			st = no_memory(err);
	}
	if (st == MZM_OK)
		st = write_text(out, root, err);
	json_decref(root);
	return st;
}

mzm_status mzm_gguf_tokenizer_json(char **json, char **config, const mzm_gguf *g, mzm_err *err)
{
	reading r = {.g = g};
	mzm_gguf_text model;
	*json = *config = NULL;
	if (!mzm_gguf_string(g, KEY("model"), &model) || (model.n == 8 && memcmp(model.s, "no_vocab", 8) == 0))
		return MZM_OK;
	MZM_TRY(read_model(&r, model, err));
	MZM_TRY(read_tokens(&r, err));
	read_specials(&r);
	MZM_TRY(make_json(json, &r, err));
	mzm_status st = make_config(config, &r, err);
	if (st != MZM_OK) {
		mzm_free(*json);
		*json = NULL;
	}
	return st;
}
