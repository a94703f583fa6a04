/* tokenizer_steps.c - the steps that tokenizer.json asks for, read into flat lists.
 *
 * normalizer, pre_tokenizer and decoder are each one step, or a Sequence of steps that may hold
 * Sequences; applying a Sequence is applying its parts, so they are flattened. A step that is not in the
 * table below is refused by name: guessing would give wrong ids without a word. */
#include <stdio.h>
#include <utf8proc.h>

#include "format/tokenizer_impl.h"

#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define WORD_PATTERN "\\w+|[^\\w\\s]+"
#define METASPACE    "\xe2\x96\x81"

/* ---- members of a step ---- */

/* A string member, whole even if it holds NULs. required: absent is an error. */
static mzm_status get_string(const json_t *obj, const char *key, bool required, const char **s, size_t *len,
			     mzm_err *err)
{
	*len = 0;
	MZM_TRY(mzm_json_string(obj, key, NULL, s, err));
	if (!*s && required)
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is missing", key);
	if (*s)
		*len = json_string_length(json_object_get(obj, key));
	return MZM_OK;
}

static mzm_status set_content(mzm_step *step, const char *s, size_t len, mzm_err *err)
{
	mzm_str_add(&step->content, s, len);
	return step->content.failed ? mzm_fail(err, MZM_ENOMEM, "out of memory for a step") : MZM_OK;
}

static mzm_status get_content(const json_t *obj, const char *key, mzm_step *step, mzm_err *err)
{
	const char *s;
	size_t len;
	MZM_TRY(get_string(obj, key, true, &s, &len, err));
	return set_content(step, s, len, err);
}

/* "pattern": {"String": ..} or {"Regex": ..} */
static mzm_status get_pattern(const json_t *obj, mzm_step *step, mzm_err *err)
{
	const json_t *pattern = json_object_get(obj, "pattern");
	const char *s;
	size_t len;
	if (!json_is_object(pattern) || json_object_size(pattern) != 1)
		return mzm_fail(err, MZM_EFORMAT, "\"pattern\" is not an object with one member");
	MZM_TRY(get_string(pattern, "String", false, &s, &len, err));
	if (s)
		return mzm_finder_literal(&step->find, s, len, err);
	MZM_TRY(get_string(pattern, "Regex", false, &s, &len, err));
	if (s)
		return mzm_finder_regex(&step->find, s, len, err);
	return mzm_fail(err, MZM_EFORMAT, "\"pattern\" has neither \"String\" nor \"Regex\"");
}

static mzm_status get_behavior(const json_t *obj, mzm_step *step, mzm_err *err)
{
	static const char *const names[] = {[MZM_REMOVED] = "Removed",
					    [MZM_ISOLATED] = "Isolated",
					    [MZM_MERGED_PREVIOUS] = "MergedWithPrevious",
					    [MZM_MERGED_NEXT] = "MergedWithNext",
					    [MZM_CONTIGUOUS] = "Contiguous"};
	const char *s;
	MZM_TRY(mzm_json_string(obj, "behavior", "Isolated", &s, err));
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (strcmp(s, names[i]) == 0) {
			step->behavior = (mzm_split)i;
			return MZM_OK;
		}
	}
	return mzm_fail(err, MZM_EUNSUPPORTED, "behavior \"%s\" is unknown", mzm_tok_quote(s, strlen(s)).s);
}

/* ---- normalizers ---- */

static mzm_status parse_unicode(mzm_step *step, const json_t *obj, mzm_err *err)
{
	const char *type = json_string_value(json_object_get(obj, "type"));
	(void)err;
	step->option = UTF8PROC_STABLE | (strchr(type, 'C') ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
		       (type[2] == 'K' ? UTF8PROC_COMPAT : 0);
	return MZM_OK;
}

/* strip_accents unless it is said follows lowercase. */
static mzm_status parse_bert(mzm_step *step, const json_t *obj, mzm_err *err)
{
	MZM_TRY(mzm_json_bool(obj, "clean_text", true, &step->clean, err));
	MZM_TRY(mzm_json_bool(obj, "handle_chinese_chars", true, &step->spread, err));
	MZM_TRY(mzm_json_bool(obj, "lowercase", true, &step->lower, err));
	return mzm_json_bool(obj, "strip_accents", step->lower, &step->strip, err);
}

static mzm_status parse_charsmap(mzm_step *step, const json_t *obj, mzm_err *err)
{
	const char *s;
	size_t len;
	MZM_TRY(get_string(obj, "precompiled_charsmap", true, &s, &len, err));
	return mzm_charsmap_parse(&step->map, s, len, err);
}

static mzm_status parse_prepend(mzm_step *step, const json_t *obj, mzm_err *err)
{
	return get_content(obj, "prepend", step, err);
}

static mzm_status parse_replace(mzm_step *step, const json_t *obj, mzm_err *err)
{
	MZM_TRY(get_pattern(obj, step, err));
	return get_content(obj, "content", step, err);
}

static mzm_status parse_nothing(mzm_step *step, const json_t *obj, mzm_err *err)
{
	(void)step, (void)obj, (void)err;
	return MZM_OK;
}

/* Our own addition to the format: "content" is the one character that is stripped, not all blanks. */
static mzm_status parse_norm_strip(mzm_step *step, const json_t *obj, mzm_err *err)
{
	const char *only;
	MZM_TRY(mzm_json_string(obj, "content", "", &only, err));
	if (*only && mzm_utf8_need((unsigned char)*only) != strlen(only))
		return mzm_fail(err, MZM_EFORMAT, "\"content\" is not one character");
	MZM_TRY(set_content(step, only, strlen(only), err));
	MZM_TRY(mzm_json_bool(obj, "strip_left", true, &step->left, err));
	return mzm_json_bool(obj, "strip_right", true, &step->right, err);
}

/* ---- pre-tokenizers ---- */

static mzm_status parse_split(mzm_step *step, const json_t *obj, mzm_err *err)
{
	MZM_TRY(get_pattern(obj, step, err));
	MZM_TRY(mzm_json_bool(obj, "invert", false, &step->invert, err));
	return get_behavior(obj, step, err);
}

static mzm_status parse_digits(mzm_step *step, const json_t *obj, mzm_err *err)
{
	bool individual;
	MZM_TRY(mzm_json_bool(obj, "individual_digits", false, &individual, err));
	step->find.kind = MZM_FIND_DIGIT;
	step->behavior = individual ? MZM_ISOLATED : MZM_CONTIGUOUS;
	return MZM_OK;
}

static mzm_status parse_punctuation(mzm_step *step, const json_t *obj, mzm_err *err)
{
	step->find.kind = MZM_FIND_PUNCT;
	return get_behavior(obj, step, err);
}

static mzm_status parse_whitespace_split(mzm_step *step, const json_t *obj, mzm_err *err)
{
	(void)obj, (void)err;
	step->find.kind = MZM_FIND_SPACE;
	step->behavior = MZM_REMOVED;
	return MZM_OK;
}

static mzm_status parse_whitespace(mzm_step *step, const json_t *obj, mzm_err *err)
{
	(void)obj;
	step->invert = true;
	step->behavior = MZM_REMOVED;
	return mzm_finder_regex(&step->find, WORD_PATTERN, sizeof WORD_PATTERN - 1, err);
}

static mzm_status parse_bytelevel(mzm_step *step, const json_t *obj, mzm_err *err)
{
	MZM_TRY(mzm_json_bool(obj, "add_prefix_space", true, &step->prefix, err));
	MZM_TRY(mzm_json_bool(obj, "use_regex", true, &step->split, err));
	step->behavior = MZM_ISOLATED;
	return step->split ? mzm_finder_regex(&step->find, GPT2_PATTERN, sizeof GPT2_PATTERN - 1, err) : MZM_OK;
}

/* Newer files say prepend_scheme, older ones add_prefix_space. */
static mzm_status parse_metaspace(mzm_step *step, const json_t *obj, mzm_err *err)
{
	static const char *const names[] = {"never", "first", "always"};
	const char *mark, *scheme;
	bool prefix;
	int32_t i = 0;
	MZM_TRY(mzm_json_string(obj, "replacement", METASPACE, &mark, err));
	MZM_TRY(mzm_json_bool(obj, "add_prefix_space", true, &prefix, err));
	MZM_TRY(mzm_json_string(obj, "prepend_scheme", prefix ? "always" : "never", &scheme, err));
	MZM_TRY(mzm_json_bool(obj, "split", true, &step->split, err));
	if (!*mark || mzm_utf8_need((unsigned char)*mark) != strlen(mark))
		return mzm_fail(err, MZM_EFORMAT, "\"replacement\" is not one character");
	while (i < 3 && strcmp(scheme, names[i]) != 0)
		i++;
	if (i == 3)
		return mzm_fail(err, MZM_EUNSUPPORTED, "prepend_scheme \"%s\" is unknown",
				mzm_tok_quote(scheme, strlen(scheme)).s);
	step->scheme = (mzm_scheme)i;
	step->behavior = MZM_MERGED_NEXT;
	MZM_TRY(set_content(step, mark, strlen(mark), err));
	return mzm_finder_literal(&step->find, mark, strlen(mark), err);
}

/* ---- decoders ---- */

static mzm_status parse_dec_strip(mzm_step *step, const json_t *obj, mzm_err *err)
{
	int64_t start, stop;
	MZM_TRY(mzm_json_int(obj, "start", 0, 1 << 20, 0, &start, err));
	MZM_TRY(mzm_json_int(obj, "stop", 0, 1 << 20, 0, &stop, err));
	step->n_start = (int32_t)start;
	step->n_stop = (int32_t)stop;
	MZM_TRY(get_content(obj, "content", step, err));
	if (!step->content.len || mzm_utf8_need((unsigned char)step->content.data[0]) != step->content.len)
		return mzm_fail(err, MZM_EFORMAT, "\"content\" is not one character");
	return MZM_OK;
}

static mzm_status parse_wordpiece(mzm_step *step, const json_t *obj, mzm_err *err)
{
	const char *prefix;
	MZM_TRY(mzm_json_string(obj, "prefix", "##", &prefix, err));
	MZM_TRY(mzm_json_bool(obj, "cleanup", true, &step->clean, err));
	return set_content(step, prefix, strlen(prefix), err);
}

/* ---- lists ---- */

typedef struct known_step {
	const char *type;
	mzm_step_kind kind;
	mzm_status (*parse)(mzm_step *step, const json_t *obj, mzm_err *err);
} known_step;

static const known_step normalizers[] = {
	{"NFC", MZM_NORM_UNICODE, parse_unicode},
	{"NFD", MZM_NORM_UNICODE, parse_unicode},
	{"NFKC", MZM_NORM_UNICODE, parse_unicode},
	{"NFKD", MZM_NORM_UNICODE, parse_unicode},
	{"Prepend", MZM_NORM_PREPEND, parse_prepend},
	{"Replace", MZM_NORM_REPLACE, parse_replace},
	{"Strip", MZM_NORM_STRIP, parse_norm_strip},
	{"Lowercase", MZM_NORM_LOWERCASE, parse_nothing},
	{"StripAccents", MZM_NORM_ACCENTS, parse_nothing},
	{"BertNormalizer", MZM_NORM_BERT, parse_bert},
	{"Precompiled", MZM_NORM_CHARSMAP, parse_charsmap},
	{NULL, 0, NULL},
};

static const known_step pre_tokenizers[] = {
	{"Split", MZM_PRE_SPLIT, parse_split},
	{"Digits", MZM_PRE_SPLIT, parse_digits},
	{"Punctuation", MZM_PRE_SPLIT, parse_punctuation},
	{"WhitespaceSplit", MZM_PRE_SPLIT, parse_whitespace_split},
	{"Whitespace", MZM_PRE_SPLIT, parse_whitespace},
	{"BertPreTokenizer", MZM_PRE_BERT, parse_nothing},
	{"ByteLevel", MZM_PRE_BYTELEVEL, parse_bytelevel},
	{"Metaspace", MZM_PRE_METASPACE, parse_metaspace},
	{NULL, 0, NULL},
};

static const known_step decoders[] = {
	{"ByteLevel", MZM_DEC_BYTELEVEL, parse_nothing},
	{"Replace", MZM_DEC_REPLACE, parse_replace},
	{"ByteFallback", MZM_DEC_BYTE_FALLBACK, parse_nothing},
	{"Fuse", MZM_DEC_FUSE, parse_nothing},
	{"Strip", MZM_DEC_STRIP, parse_dec_strip},
	{"Metaspace", MZM_DEC_METASPACE, parse_metaspace},
	{"WordPiece", MZM_DEC_WORDPIECE, parse_wordpiece},
	{NULL, 0, NULL},
};

static const struct step_list {
	const char *member; /* of tokenizer.json */
	const char *parts;  /* of its Sequence */
	const known_step *known;
} lists[] = {
	{"normalizer", "normalizers", normalizers},
	{"pre_tokenizer", "pretokenizers", pre_tokenizers},
	{"decoder", "decoders", decoders},
};

static mzm_status parse_step(mzm_steps *out, const struct step_list *list, const json_t *obj, mzm_err *err)
{
	const char *type = json_string_value(json_object_get(obj, "type"));
	const known_step *known = list->known;
	while (known->type && strcmp(known->type, type) != 0)
		known++;
	if (!known->type)
		return mzm_fail(err, MZM_EUNSUPPORTED, "type \"%s\" is not supported",
				mzm_tok_quote(type, strlen(type)).s);
	if (out->n == MZM_TOK_MAX_STEPS)
		return mzm_fail(err, MZM_EUNSUPPORTED, "more than %d steps", MZM_TOK_MAX_STEPS);
	if (!out->v)
		MZM_TRY(mzm_alloc_for((void **)&out->v, MZM_TOK_MAX_STEPS * sizeof *out->v, "steps", err));
	mzm_step *step = &out->v[out->n++];
	step->kind = known->kind;
	mzm_status st = known->parse(step, obj, err);
	if (st != MZM_OK)
		mzm_err_prefix(err, "%s", known->type);
	return st;
}

static mzm_status parse_list(mzm_steps *out, const struct step_list *list, const json_t *obj, int depth, mzm_err *err)
{
	const char *type;
	if (!json_is_object(obj))
		return mzm_fail(err, MZM_EFORMAT, "not an object");
	MZM_TRY(mzm_json_string(obj, "type", NULL, &type, err));
	if (!type)
		return mzm_fail(err, MZM_EFORMAT, "\"type\" is missing");
	if (strcmp(type, "Sequence") != 0)
		return parse_step(out, list, obj, err);
	const json_t *parts = json_object_get(obj, list->parts);
	if (!json_is_array(parts))
		return mzm_fail(err, MZM_EFORMAT, "Sequence: \"%s\" is not an array", list->parts);
	if (depth == MZM_TOK_MAX_DEPTH)
		return mzm_fail(err, MZM_EUNSUPPORTED, "Sequences nested more than %d deep", MZM_TOK_MAX_DEPTH);
	for (size_t i = 0; i < json_array_size(parts); i++) {
		mzm_status st = parse_list(out, list, json_array_get(parts, i), depth + 1, err);
		if (st != MZM_OK) {
			mzm_err_prefix(err, "%s[%zu]", list->parts, i);
			return st;
		}
	}
	return MZM_OK;
}

mzm_status mzm_steps_parse(mzm_steps *out, const json_t *root, const char *member, mzm_err *err)
{
	const json_t *obj = json_object_get(root, member);
	const struct step_list *list = lists;
	*out = (mzm_steps){0};
	if (!obj || json_is_null(obj))
		return MZM_OK;
	while (strcmp(list->member, member) != 0)
		list++;
	mzm_status st = parse_list(out, list, obj, 0, err);
	if (st != MZM_OK) {
		mzm_err_prefix(err, "%s", member);
		mzm_steps_free(out);
	}
	return st;
}

void mzm_steps_free(mzm_steps *steps)
{
	for (int32_t i = 0; i < steps->n; i++) {
		mzm_finder_free(&steps->v[i].find);
		mzm_str_free(&steps->v[i].content);
		mzm_charsmap_free(steps->v[i].map);
	}
	mzm_free(steps->v);
	*steps = (mzm_steps){0};
}
