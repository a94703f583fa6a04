/* chat_file.c - see chat_file.h. The rest of the configuration keeps its text, byte for byte: numbers that do not fit
 * 64 bits are common in it. */
#include "format/chat_file.h"

#include <string.h>

#include "base/json.h"
#include "base/str.h"

static int add_bytes(const char *bytes, size_t n, void *user)
{
	mzm_str_add(user, bytes, n);
	return ((mzm_str *)user)->failed ? -1 : 0;
}

/* {"chat_template": "..." */
static mzm_status open_object(mzm_str *out, const char *template, size_t n, mzm_err *err)
{
	json_t *text = memchr(template, 0, n) ? NULL : json_stringn(template, n);
	if (!text)
		return mzm_fail(err, MZM_EFORMAT, "chat_template.jinja is not UTF-8, or holds a NUL");
	mzm_str_puts(out, "{\"chat_template\": ");
	int bad = json_dump_callback(text, add_bytes, out, JSON_ENCODE_ANY);
	json_decref(text);
	return bad ? mzm_fail(err, MZM_ENOMEM, "out of memory for the chat template") : MZM_OK;
}

mzm_status mzm_chat_add_template(char **config, size_t *len, const char *template, size_t n, mzm_err *err)
{
	mzm_status st = MZM_OK;
	mzm_str out = {0};
	json_t *root = NULL;
	if (*config)
		MZM_TRY(mzm_json_parse(&root, *config, *len, "tokenizer_config.json", err));
	if (root && !json_is_object(root))
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "tokenizer_config.json: not an object"));
	if (json_object_get(root, "chat_template"))
		goto out;
	MZM_TRY_OUT(open_object(&out, template, n, err));
	const char *rest = root ? strchr(*config, '{') + 1 : "}";
	mzm_str_puts(&out, json_object_size(root) ? ", " : "");
	mzm_str_puts(&out, rest);
	if (out.failed)
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "out of memory for the chat template"));
	mzm_free(*config);
	*config = out.data;
	*len = out.len;
	out = (mzm_str){0};
out:
	json_decref(root);
	mzm_str_free(&out);
	return st;
}
