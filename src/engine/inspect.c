/* inspect.c - mzm_inspect: what a model file holds, as JSON, without loading its weights.
 *
 * A tokenizer that is absent or unsupported is part of the answer, not a failure; so is everything else
 * that does not keep the weights from being described. With verify, every byte is read and checked first. */
#include <string.h>

#include "base/str.h"
#include "format/source.h"

/* "BPE", as tokenizer.json names its model; NULL when it names none. */
static json_t *tokenizer_kind(const char *text, size_t len)
{
	json_t *root, *kind = NULL;
	if (mzm_json_parse(&root, text, len, "tokenizer.json", NULL) == MZM_OK) {
		json_t *type = json_object_get(json_object_get(root, "model"), "type");
		kind = json_is_string(type) ? json_incref(type) : NULL;
		json_decref(root);
	}
	return kind ? kind : json_null();
}

static json_t *describe_tokenizer(const mzm_source *src)
{
	mzm_err why = {0};
	mzm_tokenizer *tok;
	size_t len;
	const char *text = mzm_source_side_file(src, MZM_TOKENIZER_JSON, &len);
	if (!text)
		return json_pack("{s:b}", "present", 0);
	if (mzm_source_tokenizer(&tok, src, &why) != MZM_OK)
		return json_pack("{s:b, s:I, s:o, s:o}", "present", 1, "bytes", (json_int_t)len, "kind",
				 tokenizer_kind(text, len), "error", mzm_json_text(why.message));
	json_t *o = json_pack("{s:b, s:I, s:o, s:i}", "present", 1, "bytes", (json_int_t)len, "kind",
			      tokenizer_kind(text, len), "n_tokens", (int)mzm_token_count(tok));
	mzm_tokenizer_close(tok);
	return o;
}

static int add_text(const char *bytes, size_t n, void *str)
{
	mzm_str_add(str, bytes, n);
	return ((mzm_str *)str)->failed ? -1 : 0;
}

mzm_status mzm_inspect(const char *path, bool verify, mzm_progress_fn progress, void *user, char **json, mzm_err *err)
{
	mzm_status st;
	mzm_source *src = NULL;
	json_t *o = NULL;
	mzm_str text = {0};
	if (!path || !json)
		return mzm_fail(err, MZM_EARG, "inspect needs a path and a place for its answer");
	*json = NULL;
	MZM_TRY_OUT(mzm_source_open(&src, path, err));
	if (verify)
		MZM_TRY_OUT(mzm_source_verify(src, progress, user, err));
	MZM_TRY_OUT(mzm_source_describe(src, &o, err));
	if (json_object_set_new(o, "tokenizer", describe_tokenizer(src)) != 0 ||
	    json_object_set_new(o, "verified", json_boolean(verify)) != 0 ||
	    json_dump_callback(o, add_text, &text, JSON_INDENT(1)) != 0)
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "%s: out of memory: description", path));
	*json = text.data;
	text.data = NULL;
out:
	mzm_str_free(&text);
	json_decref(o);
	mzm_source_close(src);
	return st;
}
