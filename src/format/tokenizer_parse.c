/* tokenizer_parse.c - tokenizer.json (and two switches of tokenizer_config.json) into a tokenizer.
 *
 * Everything is checked here, once: ids, contents, merges, steps. What is absent or null means "no such
 * step"; what is unknown is refused by name. truncation and padding are for training and are not applied. */
#include "format/tokenizer_impl.h"

/* ---- added tokens ---- */

static mzm_status parse_added(mzm_added *a, const json_t *obj, mzm_err *err)
{
	a->id = (int32_t)json_number_value(json_object_get(obj, "id")); /* checked by the vocabulary */
	MZM_TRY(mzm_json_bool(obj, "special", false, &a->special, err));
	MZM_TRY(mzm_json_bool(obj, "lstrip", false, &a->lstrip, err));
	MZM_TRY(mzm_json_bool(obj, "rstrip", false, &a->rstrip, err));
	MZM_TRY(mzm_json_bool(obj, "single_word", false, &a->single_word, err));
	return mzm_json_bool(obj, "normalized", !a->special, &a->normalized, err);
}

/* Those marked "normalized" are looked for in normalised text, so what is looked for is normalised too. */
static mzm_status set_match(mzm_tokenizer *tok, mzm_added *a, mzm_err *err)
{
	const mzm_tok_token *t = &tok->vocab.tokens[a->id];
	const char *s = mzm_vocab_content(&tok->vocab, a->id);
	size_t len = t->content_len;
	mzm_tok_enc enc = {.tok = tok, .err = err, .norm_left = MZM_TOK_GROWTH_MIN};
	mzm_status st = MZM_OK;
	if (len > MZM_TOK_MAX_ADDED)
		goto out;
	if (a->normalized)
		MZM_TRY_OUT(mzm_tok_normalize(&enc, &s, &len, (mzm_run){.first = true, .last = true}));
	a->match = mzm_strndup(s, len);
	a->len = len;
	if (!a->match)
		st = mzm_fail(err, MZM_ENOMEM, "out of memory for added tokens");
out:
	if (len > MZM_TOK_MAX_ADDED && st == MZM_OK)
		st = mzm_fail(err, MZM_EUNSUPPORTED, "%zu bytes, more than %zu", len, MZM_TOK_MAX_ADDED);
	mzm_tok_enc_free(&enc);
	return st;
}

static mzm_status add_added(mzm_tokenizer *tok, const json_t *obj, mzm_err *err)
{
	mzm_added a = {0};
	mzm_status st;
	MZM_TRY_OUT(parse_added(&a, obj, err));
	MZM_TRY_OUT(set_match(tok, &a, err));
	if (a.len) {
		mzm_added_set *set = &tok->added[a.normalized];
		set->v[set->n++] = a;
		a.match = NULL;
	}
out:
	mzm_free(a.match);
	return st;
}

static mzm_status build_added(mzm_tokenizer *tok, const json_t *added, mzm_err *err)
{
	size_t n = json_array_size(added), bytes;
	for (int i = 0; i < 2 && n; i++) {
		if (!mzm_mul_size(n, sizeof(mzm_added), &bytes))
			return mzm_fail(err, MZM_ENOMEM, "out of memory for added tokens");
		MZM_TRY(mzm_alloc_for((void **)&tok->added[i].v, bytes, "added tokens", err));
	}
	for (size_t i = 0; i < n; i++) {
		mzm_status st = add_added(tok, json_array_get(added, i), err);
		if (st != MZM_OK) {
			mzm_err_prefix(err, "added_tokens[%zu]", i);
			return st;
		}
	}
	mzm_added_sort(&tok->added[0]);
	mzm_added_sort(&tok->added[1]);
	return MZM_OK;
}

/* ---- post-processor ---- */

/* Ids around a text, collected while one processor is read. */
typedef struct wrapping {
	int32_t before[MZM_TOK_MAX_WRAP], behind[MZM_TOK_MAX_WRAP];
	int32_t n_before, n_behind;
	bool seen_text;
} wrapping;

static mzm_status wrap_id(const mzm_tokenizer *tok, wrapping *w, int32_t id, mzm_err *err)
{
	int32_t *n = w->seen_text ? &w->n_behind : &w->n_before;
	if (!mzm_vocab_has(&tok->vocab, id))
		return mzm_fail(err, MZM_EFORMAT, "id %d is no token", id);
	if (*n == MZM_TOK_MAX_WRAP)
		return mzm_fail(err, MZM_EUNSUPPORTED, "more than %d special tokens", MZM_TOK_MAX_WRAP);
	(w->seen_text ? w->behind : w->before)[(*n)++] = id;
	return MZM_OK;
}

/* A later processor of a Sequence stands outside the earlier ones. */
static mzm_status wrap(mzm_tokenizer *tok, const wrapping *w, mzm_err *err)
{
	if (tok->n_before + w->n_before > MZM_TOK_MAX_WRAP || tok->n_behind + w->n_behind > MZM_TOK_MAX_WRAP)
		return mzm_fail(err, MZM_EUNSUPPORTED, "more than %d special tokens", MZM_TOK_MAX_WRAP);
	memmove(tok->before + w->n_before, tok->before, (size_t)tok->n_before * sizeof *tok->before);
	memcpy(tok->before, w->before, (size_t)w->n_before * sizeof *tok->before);
	memcpy(tok->behind + tok->n_behind, w->behind, (size_t)w->n_behind * sizeof *tok->behind);
	tok->n_before += w->n_before;
	tok->n_behind += w->n_behind;
	return MZM_OK;
}

static mzm_status as_id(const json_t *value, int32_t *id, mzm_err *err)
{
	double d = json_is_number(value) ? json_number_value(value) : -1;
	*id = -1;
	if (!(d >= 0 && d < MZM_TOK_MAX_ID) || d != (double)(int32_t)d)
		return mzm_fail(err, MZM_EFORMAT, "an id is not a whole number of 0 .. %d", MZM_TOK_MAX_ID - 1);
	*id = (int32_t)d;
	return MZM_OK;
}

static mzm_status template_special(const mzm_tokenizer *tok, const json_t *obj, const json_t *item, wrapping *w,
				   mzm_err *err)
{
	const char *name;
	int32_t id;
	MZM_TRY(mzm_json_string(item, "id", "", &name, err));
	const json_t *ids = json_object_get(json_object_get(json_object_get(obj, "special_tokens"), name), "ids");
	if (!json_is_array(ids))
		return mzm_fail(err, MZM_EFORMAT, "no ids for the special token \"%s\"",
				mzm_tok_quote(name, strlen(name)).s);
	for (size_t i = 0; i < json_array_size(ids); i++) {
		MZM_TRY(as_id(json_array_get(ids, i), &id, err));
		MZM_TRY(wrap_id(tok, w, id, err));
	}
	return MZM_OK;
}

static mzm_status parse_template(const mzm_tokenizer *tok, const json_t *obj, wrapping *w, mzm_err *err)
{
	const json_t *single = json_object_get(obj, "single");
	const char *name;
	if (!json_is_array(single))
		return mzm_fail(err, MZM_EFORMAT, "\"single\" is not an array");
	for (size_t i = 0; i < json_array_size(single); i++) {
		const json_t *item = json_array_get(single, i);
		const json_t *special = json_object_get(item, "SpecialToken"),
			     *text = json_object_get(item, "Sequence");
		if (special) {
			MZM_TRY(template_special(tok, obj, special, w, err));
			continue;
		}
		MZM_TRY(mzm_json_string(text, "id", "", &name, err));
		if (!text || w->seen_text || strcmp(name, "A") != 0)
			return mzm_fail(err, MZM_EUNSUPPORTED, "single[%zu] is neither a special token nor the text",
					i);
		w->seen_text = true;
	}
	return w->seen_text ? MZM_OK : mzm_fail(err, MZM_EUNSUPPORTED, "\"single\" leaves the text out");
}

/* RobertaProcessing and BertProcessing: cls, text, sep; each ["content", id]. */
static mzm_status parse_cls_sep(const mzm_tokenizer *tok, const json_t *obj, wrapping *w, mzm_err *err)
{
	static const char *const keys[] = {"cls", "sep"};
	for (int i = 0; i < 2; i++) {
		int32_t id;
		const json_t *pair = json_object_get(obj, keys[i]);
		if (json_array_size(pair) != 2)
			return mzm_fail(err, MZM_EFORMAT, "\"%s\" is not a pair", keys[i]);
		MZM_TRY(as_id(json_array_get(pair, 1), &id, err));
		w->seen_text = i == 1;
		MZM_TRY(wrap_id(tok, w, id, err));
	}
	return MZM_OK;
}

static mzm_status parse_processor(mzm_tokenizer *tok, const json_t *obj, int depth, bool *spoken, mzm_err *err)
{
	wrapping w = {0};
	const char *type;
	if (!json_is_object(obj))
		return mzm_fail(err, MZM_EFORMAT, "not an object");
	MZM_TRY(mzm_json_string(obj, "type", "", &type, err));
	if (strcmp(type, "ByteLevel") == 0)
		return MZM_OK; /* moves offsets only */
	if (strcmp(type, "Sequence") == 0) {
		const json_t *parts = json_object_get(obj, "processors");
		if (depth == MZM_TOK_MAX_DEPTH)
			return mzm_fail(err, MZM_EUNSUPPORTED, "Sequences nested more than %d deep", MZM_TOK_MAX_DEPTH);
		if (!json_is_array(parts))
			return mzm_fail(err, MZM_EFORMAT, "Sequence: \"processors\" is not an array");
		for (size_t i = 0; i < json_array_size(parts); i++)
			MZM_TRY(parse_processor(tok, json_array_get(parts, i), depth + 1, spoken, err));
		return MZM_OK;
	}
	*spoken = true;
	if (strcmp(type, "TemplateProcessing") == 0)
		MZM_TRY(parse_template(tok, obj, &w, err));
	else if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
		MZM_TRY(parse_cls_sep(tok, obj, &w, err));
	else
		return mzm_fail(err, MZM_EUNSUPPORTED, "type \"%s\" is not supported",
				mzm_tok_quote(type, strlen(type)).s);
	return wrap(tok, &w, err);
}

/* ---- tokenizer_config.json: asked only where no post-processor says what goes around a text ---- */

static mzm_status config_token(const mzm_tokenizer *tok, const json_t *config, const char *add, const char *key,
			       wrapping *w, mzm_err *err)
{
	bool wanted;
	MZM_TRY(mzm_json_bool(config, add, false, &wanted, err));
	if (!wanted)
		return MZM_OK;
	const json_t *value = json_object_get(config, key);
	if (json_is_object(value))
		value = json_object_get(value, "content");
	int32_t id = json_is_string(value)
			     ? mzm_vocab_find(&tok->vocab, json_string_value(value), json_string_length(value))
			     : -1;
	if (id < 0)
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is true, but \"%s\" names no token", add, key);
	return wrap_id(tok, w, id, err);
}

static mzm_status parse_config(mzm_tokenizer *tok, const char *text, size_t len, mzm_err *err)
{
	json_t *config = NULL;
	wrapping w = {0};
	mzm_status st = mzm_json_parse(&config, text, len, "tokenizer_config.json", err);
	if (st != MZM_OK)
		return st;
	if (!json_is_object(config))
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "not an object"));
	MZM_TRY_OUT(config_token(tok, config, "add_bos_token", "bos_token", &w, err));
	w.seen_text = true;
	MZM_TRY_OUT(config_token(tok, config, "add_eos_token", "eos_token", &w, err));
	MZM_TRY_OUT(wrap(tok, &w, err));
out:
	if (st != MZM_OK)
		mzm_err_prefix(err, "tokenizer_config.json");
	json_decref(config);
	return st;
}

/* ---- the whole ---- */

static const mzm_tok_model *const models[] = {&mzm_tok_bpe, &mzm_tok_unigram, &mzm_tok_wordpiece};

/* Files written before the member existed are BPE where they have merges, Unigram where the vocabulary is a list. */
static mzm_status choose_model(mzm_tokenizer *tok, const json_t *model, mzm_err *err)
{
	const char *type;
	bool listed = json_is_array(json_object_get(model, "vocab"));
	const char *fallback = json_object_get(model, "merges") ? "BPE" : listed ? "Unigram" : "";
	MZM_TRY(mzm_json_string(model, "type", fallback, &type, err));
	for (size_t i = 0; i < sizeof models / sizeof *models; i++)
		if (strcmp(type, models[i]->name) == 0)
			tok->model = models[i];
	if (!tok->model)
		return mzm_fail(err, MZM_EUNSUPPORTED, "model: type \"%s\" is not supported",
				mzm_tok_quote(type, strlen(type)).s);
	return MZM_OK;
}

static mzm_status parse_model(mzm_tokenizer *tok, const json_t *root, mzm_err *err)
{
	const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
	if (!json_is_object(model))
		return mzm_fail(err, MZM_EFORMAT, "\"model\" is not an object");
	MZM_TRY(choose_model(tok, model, err));
	const json_t *vocab = json_object_get(model, "vocab");
	if (tok->model->listed ? !json_is_array(vocab) : !json_is_object(vocab))
		return mzm_fail(err, MZM_EFORMAT, "model: \"vocab\" is not an %s",
				tok->model->listed ? "array" : "object");
	if (added && !json_is_array(added) && !json_is_null(added))
		return mzm_fail(err, MZM_EFORMAT, "\"added_tokens\" is not an array");
	MZM_TRY(mzm_vocab_build(&tok->vocab, vocab, added, err));
	mzm_status st = tok->model->parse(tok, model, err);
	if (st != MZM_OK)
		mzm_err_prefix(err, "model");
	return st;
}

static mzm_status parse_pipeline(mzm_tokenizer *tok, const json_t *root, bool *spoken, mzm_err *err)
{
	const json_t *processor = json_object_get(root, "post_processor");
	const json_t *decoder = json_object_get(root, "decoder");
	mzm_steps dec = {0};
	mzm_status st;
	MZM_TRY_OUT(mzm_steps_parse(&tok->norm, root, "normalizer", err));
	MZM_TRY_OUT(mzm_steps_parse(&tok->pre, root, "pre_tokenizer", err));
	MZM_TRY_OUT(mzm_steps_parse(&dec, root, "decoder", err));
	for (int32_t i = 0; i < tok->pre.n; i++)
		tok->byte_level |= tok->pre.v[i].kind == MZM_PRE_BYTELEVEL;
	MZM_TRY_OUT(build_added(tok, json_object_get(root, "added_tokens"), err));
	MZM_TRY_OUT(mzm_tok_build_bytes(tok, &dec, decoder && !json_is_null(decoder), err));
	if (processor && !json_is_null(processor)) {
		st = parse_processor(tok, processor, 0, spoken, err);
		if (st != MZM_OK)
			mzm_err_prefix(err, "post_processor");
	}
out:
	mzm_steps_free(&dec);
	return st;
}

static mzm_status parse_root(mzm_tokenizer *tok, const json_t *root, const char *config_json, size_t config_len,
			     mzm_err *err)
{
	bool spoken = false;
	if (!json_is_object(root))
		return mzm_fail(err, MZM_EFORMAT, "not an object");
	MZM_TRY(parse_model(tok, root, err));
	MZM_TRY(parse_pipeline(tok, root, &spoken, err));
	return config_json && !spoken ? parse_config(tok, config_json, config_len, err) : MZM_OK;
}

mzm_status mzm_tokenizer_parse(mzm_tokenizer **out, const char *json, size_t len, const char *config_json,
			       size_t config_len, const char *where, mzm_err *err)
{
	json_t *root = NULL;
	mzm_tokenizer *tok = NULL;
	mzm_status st;
	*out = NULL;
	if (len > MZM_TOK_MAX_TEXT)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: %zu bytes, more than %zu", where, len, MZM_TOK_MAX_TEXT);
	MZM_TRY(mzm_json_parse(&root, json, len, where, err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&tok, sizeof *tok, "a tokenizer", err));
	MZM_TRY_OUT(parse_root(tok, root, config_json, config_len, err));
	*out = tok;
	tok = NULL;
out:
	if (st != MZM_OK)
		mzm_err_prefix(err, "%s", where);
	mzm_tokenizer_close(tok);
	json_decref(root);
	return st;
}
