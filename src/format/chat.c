/* chat.c - see chat.h. */
#include "format/chat.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "format/jinja.h"
#include "format/tokenizer_utf8.h"

static const char *const token_keys[] = {"bos_token", "eos_token", "unk_token", "pad_token"};

struct mzm_chat_template {
	mzm_jinja *jinja;
	json_t    *tokens; /* object: those of token_keys that the model has, as strings */
	bool       writes_bos;
};

/* ---- tokenizer_config.json ---- */

static const json_t *template_named(const json_t *list, const char *name)
{
	size_t i;
	const json_t *entry;
	json_array_foreach(list, i, entry) {
		const char *has = json_string_value(json_object_get(entry, "name"));
		if (has && strcmp(has, name) == 0)
			return json_object_get(entry, "template");
	}
	return NULL;
}

/* The template that config names: a string, or of a list the one called default, else chat, else the only one. */
static mzm_status find_template(const json_t *config, const json_t **out, mzm_err *err)
{
	const json_t *t = json_object_get(config, "chat_template");
	*out = t;
	if (json_is_array(t)) {
		*out = template_named(t, "default");
		if (!*out)
			*out = template_named(t, "chat");
		if (!*out && json_array_size(t) == 1)
			*out = json_object_get(json_array_get(t, 0), "template");
		if (!*out)
			return mzm_fail(err, MZM_EUNSUPPORTED, "none of the %zu chat templates is called default",
					json_array_size(t));
	}
	if (!*out || json_is_null(*out))
		return mzm_fail(err, MZM_EUNSUPPORTED, "the model has no chat template");
	if (!json_is_string(*out))
		return mzm_fail(err, MZM_EFORMAT, "chat_template is not a string");
	return MZM_OK;
}

/* "<s>", or {"content": "<s>", ...} */
static mzm_status read_tokens(mzm_chat_template *t, const json_t *config, mzm_err *err)
{
	for (size_t i = 0; i < sizeof token_keys / sizeof *token_keys; i++) {
		json_t *v = json_object_get(config, token_keys[i]);
		if (json_is_object(v))
			v = json_object_get(v, "content");
		if (!v || json_is_null(v))
			continue;
		if (!json_is_string(v))
			return mzm_fail(err, MZM_EFORMAT, "%s is not a string", token_keys[i]);
		if (json_object_set(t->tokens, token_keys[i], v) != 0)
			return mzm_fail(err, MZM_ENOMEM, "out of memory for special tokens");
	}
	return MZM_OK;
}

/* ---- rendering ---- */

static mzm_status add_message(json_t *messages, size_t i, const char *role, const char *content, mzm_err *err)
{
	if (mzm_utf8_valid(role, strlen(role)) != strlen(role) ||
	    mzm_utf8_valid(content, strlen(content)) != strlen(content))
		return mzm_fail(err, MZM_EARG, "message %zu is not UTF-8", i + 1);
	if (json_array_append_new(messages, json_pack("{ssss}", "role", role, "content", content)) != 0)
		return mzm_fail(err, MZM_ENOMEM, "out of memory for the conversation");
	return MZM_OK;
}

static mzm_status set_all(json_t *variables, const mzm_chat_template *t, json_t *messages, bool generate,
			  const struct tm *now, mzm_err *err)
{
	char stamp[64];
	bool ok = json_object_update(variables, t->tokens) == 0;
	ok = ok && json_object_set(variables, "messages", messages) == 0;
	ok = ok && json_object_set_new(variables, "add_generation_prompt", json_boolean(generate)) == 0;
	ok = ok && json_object_set_new(variables, "tools", json_null()) == 0;
	ok = ok && json_object_set_new(variables, "documents", json_null()) == 0;
	if (now && ok) {
		snprintf(stamp, sizeof stamp, "%04d-%02d-%02dT%02d:%02d:%02d", now->tm_year + 1900, now->tm_mon + 1,
			 now->tm_mday, now->tm_hour, now->tm_min, now->tm_sec);
		ok = json_object_set_new(variables, "strftime_now", json_string(stamp)) == 0;
	}
	return ok ? MZM_OK : mzm_fail(err, MZM_ENOMEM, "out of memory for the conversation");
}

mzm_status mzm_chat_template_render(const mzm_chat_template *t, const char *const *roles, const char *const *contents,
				    size_t n, bool generate, const struct tm *now, char **text, size_t *len,
				    mzm_err *err)
{
	json_t *variables = json_object(), *messages = json_array();
	mzm_status st;
	*text = NULL;
	if (!variables || !messages)
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "out of memory for the conversation"));
	for (size_t i = 0; i < n; i++)
		MZM_TRY_OUT(add_message(messages, i, roles[i], contents[i], err));
	MZM_TRY_OUT(set_all(variables, t, messages, generate, now, err));
	MZM_TRY_OUT(mzm_jinja_render(t->jinja, variables, text, len, err));
out:
	json_decref(messages);
	json_decref(variables);
	return st;
}

/* ---- templates ---- */

/* Some templates refuse to begin without a system message, some to begin with one: both are tried. A template that
 * refuses both is one that has not been seen to write BOS. */
static mzm_status probe_bos(mzm_chat_template *t, mzm_err *err)
{
	static const char *const roles[] = {"system", "user"}, *const contents[] = {"a", "b"};
	const char *bos = mzm_chat_template_token(t, "bos_token");
	for (size_t skip = 2; bos && *bos && skip-- > 0;) {
		char *text;
		mzm_status st = mzm_chat_template_render(t, roles + skip, contents + skip, 2 - skip, true, NULL, &text,
							 NULL, NULL);
		if (st == MZM_OK) {
			t->writes_bos = strncmp(text, bos, strlen(bos)) == 0;
			mzm_free(text);
			break;
		}
		if (st == MZM_ENOMEM)
			return mzm_fail(err, st, "out of memory for a first rendering");
	}
	return MZM_OK;
}

static mzm_status fill(mzm_chat_template *t, const char *config, size_t config_len, const char *text, mzm_err *err)
{
	json_t *root = NULL;
	const json_t *found;
	mzm_status st = MZM_OK;
	t->tokens = json_object();
	if (!t->tokens)
		return mzm_fail(err, MZM_ENOMEM, "out of memory for special tokens");
	if (config)
		MZM_TRY_OUT(mzm_json_parse(&root, config, config_len, "tokenizer_config.json", err));
	if (root && !json_is_object(root))
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "tokenizer_config.json: not an object"));
	if (root)
		MZM_TRY_OUT(read_tokens(t, root, err));
	if (text) {
		MZM_TRY_OUT(mzm_jinja_parse(&t->jinja, text, strlen(text), err));
	} else {
		MZM_TRY_OUT(find_template(root, &found, err));
		MZM_TRY_OUT(mzm_jinja_parse(&t->jinja, json_string_value(found), json_string_length(found), err));
	}
	MZM_TRY_OUT(probe_bos(t, err));
out:
	json_decref(root);
	return st;
}

mzm_status mzm_chat_template_create(mzm_chat_template **out, const char *config, size_t config_len, const char *text,
				    mzm_err *err)
{
	mzm_chat_template *t;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&t, sizeof *t, "a chat template", err));
	mzm_status st = fill(t, config, config_len, text, err);
	if (st != MZM_OK) {
		mzm_chat_template_free(t);
		return st;
	}
	*out = t;
	return MZM_OK;
}

void mzm_chat_template_free(mzm_chat_template *t)
{
	if (!t)
		return;
	mzm_jinja_free(t->jinja);
	json_decref(t->tokens);
	mzm_free(t);
}

bool mzm_chat_template_writes_bos(const mzm_chat_template *t)
{
	return t->writes_bos;
}

const char *mzm_chat_template_token(const mzm_chat_template *t, const char *key)
{
	return json_string_value(json_object_get(t->tokens, key));
}
