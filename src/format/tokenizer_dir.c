/* tokenizer_dir.c - the tokenizer of a directory without tokenizer.json, as the text of one.
 *
 * Older models are published with SentencePiece's tokenizer.model, or with vocab.json and merges.txt (GPT-2, OPT,
 * RoBERTa; OpenAI's own names are encoder.json and vocab.bpe). What such files do not say stands in
 * special_tokens_map.json, added_tokens.json and tokenizer_config.json, if anywhere: which tokens are special, which
 * were added, and what stands around a text (for that, the reader of tokenizer.json asks tokenizer_config.json itself).
 */
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/str.h"
#include "format/tokenizer.h"
#include "format/tokenizer_spm.h"
#include "format/tokenizer_write.h"

#define MAX_FILE ((size_t)256 << 20)

/* ---- files ---- */

/* *data stays NULL where the file is absent. */
static mzm_status read_optional(char **data, size_t *len, const char *dir, const char *name, mzm_err *err)
{
	mzm_str path = {0};
	mzm_status st = MZM_OK;
	*data = NULL;
	*len = 0;
	mzm_str_path(&path, dir, name);
	if (path.failed)
		st = mzm_fail(err, MZM_ENOMEM, "%s: out of memory", dir);
	else if (mzm_path_exists(path.data))
		st = mzm_read_all(path.data, MAX_FILE, data, len, err);
	mzm_str_free(&path);
	return st;
}

/* An object; *out stays NULL where the file is absent. */
static mzm_status read_object(json_t **out, const char *dir, const char *name, mzm_err *err)
{
	char *text;
	size_t len;
	*out = NULL;
	MZM_TRY(read_optional(&text, &len, dir, name, err));
	mzm_status st = text ? mzm_json_parse(out, text, len, name, err) : MZM_OK;
	if (*out && !json_is_object(*out)) {
		json_decref(*out);
		*out = NULL;
		st = mzm_fail(err, MZM_EFORMAT, "%s: not an object", name);
	}
	mzm_free(text);
	return st;
}

/* ---- tokens that stand beside the vocabulary ---- */

typedef struct beside {
	json_t *list;        /* "added_tokens", being made */
	const json_t *vocab; /* of the model: an object, or a list of [token, score] */
	json_t *ids;         /* of those in the list, by content */
	bool special_seen;
} beside;

static mzm_status no_memory(mzm_err *err)
{
	return mzm_fail(err, MZM_ENOMEM, "out of memory for added tokens");
}

/* One token; how: an object with flags, or NULL. Those that are in the list already stay as they are. */
static mzm_status put(beside *b, const char *content, const json_t *id, const json_t *how, bool special, mzm_err *err)
{
	static const char *const flags[] = {"lstrip", "rstrip", "single_word", "normalized"};
	if (!content || !*content || json_object_get(b->ids, content))
		return MZM_OK;
	json_t *one = json_pack("{s:O,s:s,s:b}", "id", id, "content", content, "special", special);
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
		bool on = json_is_true(json_object_get(how, flags[i]));
		if (!how && i == 0) /* what RoBERTa's tokenizer knows of its mask */
			on = strcmp(content, "<mask>") == 0;
		if (json_object_set_new(one, flags[i], json_boolean(on)) != 0)
			return json_decref(one), no_memory(err);
	}
	b->special_seen |= special;
	if (json_array_append_new(b->list, one) != 0 ||
	    json_object_set(b->ids, content, json_object_get(one, "id")) != 0)
		return no_memory(err);
	return MZM_OK;
}

static mzm_status put_special(beside *b, const json_t *value, mzm_err *err)
{
	const json_t *how = json_is_object(value) ? value : NULL;
	const char *content = json_string_value(how ? json_object_get(how, "content") : value);
	const json_t *id = content ? json_object_get(b->vocab, content) : NULL;
	return id ? put(b, content, id, how, true, err) : MZM_OK;
}

/* bos_token and so on, of special_tokens_map.json or tokenizer_config.json. */
static mzm_status put_named(beside *b, const json_t *obj, mzm_err *err)
{
	static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
					    "pad_token", "cls_token", "mask_token"};
	const json_t *more = json_object_get(obj, "additional_special_tokens");
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		MZM_TRY(put_special(b, json_object_get(obj, names[i]), err));
	for (size_t i = 0; i < json_array_size(more); i++)
		MZM_TRY(put_special(b, json_array_get(more, i), err));
	return MZM_OK;
}

/* added_tokens_decoder of tokenizer_config.json: id -> token. */
static mzm_status put_decoder(beside *b, const json_t *config, mzm_err *err)
{
	json_t *obj = json_object_get(config, "added_tokens_decoder");
	for (void *it = json_object_iter(obj); it; it = json_object_iter_next(obj, it)) {
		const json_t *how = json_object_iter_value(it);
		char *end;
		long id = strtol(json_object_iter_key(it), &end, 10);
		json_t *number = json_integer(id);
		mzm_status st = *end || id < 0 ? mzm_fail(err, MZM_EFORMAT, "added_tokens_decoder: a key is no id")
					       : put(b, json_string_value(json_object_get(how, "content")), number, how,
						     json_is_true(json_object_get(how, "special")), err);
		json_decref(number);
		MZM_TRY(st);
	}
	return MZM_OK;
}

/* added_tokens.json: content -> id. */
static mzm_status put_added(beside *b, json_t *obj, mzm_err *err)
{
	for (void *it = json_object_iter(obj); it; it = json_object_iter_next(obj, it))
		MZM_TRY(put(b, json_object_iter_key(it), json_object_iter_value(it), NULL, false, err));
	return MZM_OK;
}

/* What vocabularies of this kind call their special tokens, where no file says it: RoBERTa's, else GPT-2's. */
static mzm_status put_usual(beside *b, mzm_err *err)
{
	static const char *const names[] = {"<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"};
	size_t n = sizeof names / sizeof *names, from = json_object_get(b->vocab, "<s>") ? 0 : n - 1;
	for (size_t i = from; i < (from ? n : n - 1); i++) {
		const json_t *id = json_object_get(b->vocab, names[i]);
		if (id)
			MZM_TRY(put(b, names[i], id, NULL, true, err));
	}
	return MZM_OK;
}

static mzm_status list_known(beside *b, mzm_err *err)
{
	for (size_t i = 0; i < json_array_size(b->list); i++) {
		const json_t *one = json_array_get(b->list, i);
		if (json_object_set(b->ids, json_string_value(json_object_get(one, "content")),
				    json_object_get(one, "id")) != 0)
			return no_memory(err);
	}
	return MZM_OK;
}

static mzm_status add_beside(json_t *root, const char *dir, const json_t *config, mzm_err *err)
{
	beside b = {.list = json_object_get(root, "added_tokens"),
		    .vocab = json_object_get(json_object_get(root, "model"), "vocab"),
		    .ids = json_object()};
	json_t *map = NULL, *added = NULL;
	mzm_status st;
	MZM_TRY_OUT(b.ids ? MZM_OK : no_memory(err));
	MZM_TRY_OUT(list_known(&b, err));
	MZM_TRY_OUT(read_object(&map, dir, "special_tokens_map.json", err));
	MZM_TRY_OUT(read_object(&added, dir, "added_tokens.json", err));
	MZM_TRY_OUT(put_decoder(&b, config, err));
	MZM_TRY_OUT(put_named(&b, map, err));
	MZM_TRY_OUT(put_named(&b, config, err));
	MZM_TRY_OUT(put_added(&b, added, err));
	if (!b.special_seen)
		MZM_TRY_OUT(put_usual(&b, err));
out:
	json_decref(b.ids);
	json_decref(map);
	json_decref(added);
	return st;
}

/* ---- vocab.json and merges.txt ---- */

/* Lines but the first, if it tells the version. */
static mzm_status merges_of(json_t *list, const char *text, size_t len, mzm_err *err)
{
	const char *end = text + len, *next;
	for (const char *line = text; line < end; line = next) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));
		next = stop ? stop + 1 : end;
		size_t n = (size_t)((stop ? stop : end) - line);
		n -= n && line[n - 1] == '\r';
		if (!n || (line == text && n >= 8 && memcmp(line, "#version", 8) == 0))
			continue;
		json_t *one = json_stringn(line, n);
		if (!one)
			return mzm_fail(err, MZM_EFORMAT, "merges: byte %zu begins a line that is not UTF-8",
					(size_t)(line - text));
		if (json_array_append_new(list, one) != 0)
			return no_memory(err);
	}
	return MZM_OK;
}

/* RoBERTa's kind has <s> .. </s> around a text; its tokenizer_config.json does not say so but by the class. */
static json_t *processor_of(const json_t *vocab, const json_t *config)
{
	const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
	const json_t *cls = json_object_get(vocab, "<s>"), *sep = json_object_get(vocab, "</s>");
	bool wraps = class && (strncmp(class, "Roberta", 7) == 0 || strncmp(class, "Bart", 4) == 0 ||
			       strncmp(class, "Longformer", 10) == 0);
	if (!wraps || !cls || !sep)
		return json_null();
	return json_pack("{s:s,s:[s,O],s:[s,O]}", "type", "RobertaProcessing", "cls", "<s>", cls, "sep", "</s>", sep);
}

static mzm_status pair_tree(json_t **out, const char *dir, const char *const names[2], const json_t *config,
			    mzm_err *err)
{
	json_t *vocab = NULL, *merges = json_array();
	char *text = NULL;
	size_t len;
	mzm_status st;
	MZM_TRY_OUT(read_optional(&text, &len, dir, names[1], err));
	if (text)
		MZM_TRY_OUT(read_object(&vocab, dir, names[0], err));
	if (!vocab)
		goto out;
	MZM_TRY_OUT(merges_of(merges, text, len, err));
	*out = json_pack("{s:{s:s,s:O,s:O},s:{s:s,s:b},s:{s:s},s:[],s:o}", "model", "type", "BPE", "vocab", vocab,
			 "merges", merges, "pre_tokenizer", "type", "ByteLevel", "add_prefix_space",
			 json_is_true(json_object_get(config, "add_prefix_space")), "decoder", "type", "ByteLevel",
			 "added_tokens", "post_processor", processor_of(vocab, config));
	if (!*out)
		st = no_memory(err);
out:
	mzm_free(text);
	json_decref(vocab);
	json_decref(merges);
	return st;
}

/* ---- tokenizer.model ---- */

static mzm_status model_tree(json_t **out, const char *dir, const json_t *config, mzm_err *err)
{
	char *bytes;
	size_t len;
	MZM_TRY(read_optional(&bytes, &len, dir, "tokenizer.model", err));
	mzm_status st = MZM_OK;
	if (bytes && !mzm_spm_is(bytes, len))
		st = mzm_fail(err, MZM_EUNSUPPORTED, "not a file of SentencePiece (tiktoken's are not supported)");
	else if (bytes)
		st = mzm_spm_tree(out, bytes, len, err);
	if (st != MZM_OK)
		mzm_err_prefix(err, "tokenizer.model");
	mzm_free(bytes);
	/* then the reader asks tokenizer_config.json */
	if (*out && (json_object_get(config, "add_bos_token") || json_object_get(config, "add_eos_token")))
		(void)json_object_del(*out, "post_processor");
	return st;
}

mzm_status mzm_tokenizer_dir_json(char **json, size_t *len, const char *dir, const char *config_json, size_t config_len,
				  mzm_err *err)
{
	static const char *const pairs[2][2] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};
	json_t *root = NULL, *config = NULL;
	mzm_status st;
	*json = NULL;
	*len = 0;
	if (config_json)
		MZM_TRY_OUT(mzm_json_parse(&config, config_json, config_len, "tokenizer_config.json", err));
	MZM_TRY_OUT(model_tree(&root, dir, config, err));
	for (int i = 0; i < 2 && !root; i++)
		MZM_TRY_OUT(pair_tree(&root, dir, pairs[i], config, err));
	if (!root)
		goto out;
	MZM_TRY_OUT(add_beside(root, dir, config, err));
	MZM_TRY_OUT(mzm_tokenizer_text(json, root, err));
	*len = strlen(*json);
out:
	if (st != MZM_OK)
		mzm_err_prefix(err, "%s", dir);
	json_decref(root);
	json_decref(config);
	return st;
}
