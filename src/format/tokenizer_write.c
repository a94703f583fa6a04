/* tokenizer_write.c - see tokenizer_write.h.
 *
 * In a SentencePiece vocabulary with scores for merging, two neighbours may be merged whenever both together are a
 * piece, the best score first, so every cut of a piece into two pieces is a merge (gguf_merges.c).
 *
 * Tokens of the types unknown, control and user-defined are found in the raw text before anything else, the first two
 * only where special tokens are asked for. Whatever text may say, merging never makes an unknown, control or byte
 * token of a SentencePiece vocabulary; llama.cpp would where its pieces allow it.
 *
 * Tokens may be any bytes: what cannot be a string of JSON is refused with its place. */
#include "format/tokenizer_write.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "format/gguf_merges.h"
#include "format/tokenizer_utf8.h"

#define MAX_TOKENS ((uint64_t)1 << 24)
#define EMPTY_NAME 32 /* bytes that "[EMPTY_<id>]" needs */
#define METASPACE  "\xe2\x96\x81"

typedef struct writing {
	const mzm_vocab_list *list;
	mzm_gguf_text *names; /* [list->n] what the tokens are called in tokenizer.json */
	char *arena;          /* where they lie */
	bool scored;          /* SPM or UNIGRAM: blanks are marks */
} writing;

/* ---- names ---- */

const char *mzm_vocab_printable(char out[64], mzm_gguf_text t)
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
				mzm_vocab_printable(name, t));
	if (mzm_utf8_valid(t.s, t.n) != t.n)
		return mzm_fail(err, MZM_EFORMAT, "%s[%" PRIu64 "] \"%s\" is not UTF-8", key, i,
				mzm_vocab_printable(name, t));
	return MZM_OK;
}

/* BERT's: the mark in front of what starts a word becomes "##" in front of what does not; [CLS] stays. */
static size_t bert_name(char *out, mzm_gguf_text t)
{
	size_t mark = sizeof METASPACE - 1;
	if (t.n >= mark && memcmp(t.s, METASPACE, mark) == 0) {
		memcpy(out, t.s + mark, t.n - mark);
		return t.n - mark;
	}
	size_t prefix = t.s[0] == '[' && t.s[t.n - 1] == ']' ? 0 : 2;
	memcpy(out, "##", prefix);
	memcpy(out + prefix, t.s, t.n);
	return t.n + prefix;
}

/* An empty token has a name of its own, as llama.cpp gives it. */
static mzm_status name_tokens(writing *w, mzm_err *err)
{
	const mzm_vocab_list *list = w->list;
	size_t bytes, total = 1;
	for (uint64_t i = 0; i < list->n; i++) {
		MZM_TRY(check_text(list->tokens[i], list->tokens_name, i, err));
		if (!mzm_add_size(total, list->tokens[i].n + EMPTY_NAME, &total))
			return no_memory(err);
	}
	if (!mzm_mul_size((size_t)list->n, sizeof *w->names, &bytes))
		return no_memory(err);
	MZM_TRY(mzm_alloc_for((void **)&w->names, bytes, "tokens", err));
	MZM_TRY(mzm_alloc_for((void **)&w->arena, total, "tokens", err));
	char *out = w->arena;
	for (uint64_t i = 0; i < list->n; i++) {
		mzm_gguf_text t = list->tokens[i];
		size_t n = t.n;
		if (n && list->kind == MZM_VOCAB_BERT)
			n = bert_name(out, t);
		else
			memcpy(out, t.s, n);
		if (!n)
			n = (size_t)snprintf(out, EMPTY_NAME, "[EMPTY_%d]", (int)i);
		w->names[i] = (mzm_gguf_text){.s = out, .n = n};
		out += n;
	}
	return MZM_OK;
}

static json_t *token_json(const writing *w, int32_t id)
{
	return json_stringn_nocheck(w->names[id].s, w->names[id].n);
}

static mzm_vocab_type type_of(const writing *w, int32_t id)
{
	return w->list->types ? (mzm_vocab_type)w->list->types[id] : MZM_VOCAB_NORMAL;
}

/* ---- the model: vocabulary and merges ---- */

static mzm_status make_vocab(const writing *w, json_t **out, mzm_err *err)
{
	json_t *vocab = *out = json_object();
	char name[64];
	for (int32_t id = 0; id < (int32_t)w->list->n; id++) {
		mzm_gguf_text t = w->names[id];
		if (json_object_setn_new_nocheck(vocab, t.s, t.n, json_integer(id)) != 0)
			return no_memory(err);
		if (json_object_size(vocab) != (size_t)id + 1)
			return mzm_fail(err, MZM_EFORMAT, "%s[%d]: \"%s\" is there twice", w->list->tokens_name,
					(int)id, mzm_vocab_printable(name, t));
	}
	return MZM_OK;
}

static mzm_status make_scores(const writing *w, json_t **out, mzm_err *err)
{
	json_t *vocab = *out = json_array();
	for (int32_t id = 0; id < (int32_t)w->list->n; id++) {
		json_t *pair = json_array();
		if (!isfinite(w->list->scores[id]))
			return json_decref(pair),
			       mzm_fail(err, MZM_EFORMAT, "score of token %d is not finite", (int)id);
		if (json_array_append_new(vocab, pair) != 0 || json_array_append_new(pair, token_json(w, id)) != 0 ||
		    json_array_append_new(pair, json_real((double)w->list->scores[id])) != 0)
			return no_memory(err);
	}
	return MZM_OK;
}

static mzm_status given_merges(const writing *w, json_t *model, mzm_err *err)
{
	json_t *merges = json_array();
	if (json_object_set_new(model, "merges", merges) != 0)
		return no_memory(err);
	for (uint64_t i = 0; i < w->list->n_merges; i++) {
		mzm_gguf_text t = w->list->merges[i];
		MZM_TRY(check_text(t, w->list->merges_name, i, err));
		if (json_array_append_new(merges, json_stringn_nocheck(t.s, t.n)) != 0)
			return no_memory(err);
	}
	return MZM_OK;
}

/* Only what a text can be made of takes part: no special tokens, and nothing with a blank, as texts have none. */
static mzm_status derived_merges(const writing *w, json_t *model, mzm_err *err)
{
	const mzm_vocab_list *list = w->list;
	mzm_gguf_piece *pieces = NULL;
	size_t bytes, n = 0;
	if (!mzm_mul_size((size_t)list->n, sizeof *pieces, &bytes))
		return no_memory(err);
	MZM_TRY(mzm_alloc_for((void **)&pieces, bytes, "pieces", err));
	for (int32_t id = 0; id < (int32_t)list->n; id++) {
		mzm_gguf_text t = list->tokens[id];
		mzm_vocab_type type = type_of(w, id);
		bool odd = type == MZM_VOCAB_UNKNOWN || type == MZM_VOCAB_CONTROL || type == MZM_VOCAB_BYTE ||
			   id == list->unk;
		if (!odd && t.n && !memchr(t.s, ' ', t.n))
			pieces[n++] = (mzm_gguf_piece){.text = t, .id = id, .score = list->scores[id]};
	}
	mzm_status st = mzm_gguf_merges(model, pieces, n, err);
	mzm_free(pieces);
	return st;
}

static bool has_bytes(const writing *w)
{
	for (int32_t id = 0; id < (int32_t)w->list->n; id++)
		if (type_of(w, id) == MZM_VOCAB_BYTE)
			return true;
	return false;
}

/* What the model is but for its vocabulary and merges. */
static json_t *model_head(const writing *w)
{
	const mzm_vocab_list *list = w->list;
	bool spm = list->kind == MZM_VOCAB_SPM;
	switch (list->kind) {
	case MZM_VOCAB_UNIGRAM:
		return json_pack("{s:s,s:o,s:b}", "type", "Unigram", "unk_id",
				 list->unk >= 0 ? json_integer(list->unk) : json_null(), "byte_fallback", has_bytes(w));
	case MZM_VOCAB_BERT:
		return json_pack("{s:s,s:o,s:s,s:i}", "type", "WordPiece", "unk_token", token_json(w, list->unk),
				 "continuing_subword_prefix", "##", "max_input_chars_per_word", 100);
	default:
		return json_pack("{s:s,s:o,s:b,s:b,s:b}", "type", "BPE", "unk_token",
				 spm && list->unk >= 0 ? token_json(w, list->unk) : json_null(), "fuse_unk", spm,
				 "byte_fallback", spm, "ignore_merges", list->pre && list->pre->ignore_merges);
	}
}

static mzm_status make_model(const writing *w, json_t *root, mzm_err *err)
{
	json_t *vocab = NULL, *model = model_head(w);
	mzm_status st = MZM_OK;
	if (!model)
		return no_memory(err);
	MZM_TRY_OUT(w->list->kind == MZM_VOCAB_UNIGRAM ? make_scores(w, &vocab, err) : make_vocab(w, &vocab, err));
	if (w->list->kind == MZM_VOCAB_SPM)
		MZM_TRY_OUT(derived_merges(w, model, err));
	if (w->list->kind == MZM_VOCAB_BYTES)
		MZM_TRY_OUT(given_merges(w, model, err));
	if (json_object_set(model, "vocab", vocab) != 0 || json_object_set(root, "model", model) != 0)
		st = no_memory(err);
out:
	json_decref(vocab);
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

static mzm_status make_added(const writing *w, json_t *root, mzm_err *err)
{
	json_t *list = json_array();
	if (json_object_set_new(root, "added_tokens", list) != 0)
		return no_memory(err);
	for (int32_t id = 0; id < (int32_t)w->list->n; id++) {
		mzm_vocab_type type = type_of(w, id);
		if (type != MZM_VOCAB_UNKNOWN && type != MZM_VOCAB_CONTROL && type != MZM_VOCAB_USER)
			continue;
		bool strip = w->list->rstrip && !keeps_blanks(w->names[id]);
		json_t *one = json_pack("{s:i,s:o,s:b,s:b,s:b,s:b,s:b}", "id", (int)id, "content", token_json(w, id),
					"single_word", 0, "lstrip", 0, "rstrip", strip, "normalized", 0, "special",
					type != MZM_VOCAB_USER);
		if (json_array_append_new(list, one) != 0)
			return no_memory(err);
	}
	return MZM_OK;
}

/* Cut by patterns, then bytes. */
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

static json_t *base64_json(const char *bytes, size_t n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	mzm_str s = {0};
	for (size_t i = 0; i < n; i += 3) {
		uint32_t three = 0;
		for (size_t k = 0; k < 3; k++)
			three = three << 8 | (i + k < n ? (unsigned char)bytes[i + k] : 0u);
		const char four[4] = {digits[three >> 18], digits[three >> 12 & 63],
				      i + 1 < n ? digits[three >> 6 & 63] : '=', i + 2 < n ? digits[three & 63] : '='};
		mzm_str_add(&s, four, sizeof four);
	}
	json_t *text = s.failed ? NULL : json_stringn_nocheck(s.len ? s.data : "", s.len);
	mzm_str_free(&s);
	return text;
}

static json_t *replace_step(const char *kind, const char *what, const char *by)
{
	return json_pack("{s:s,s:{s:s},s:s}", "type", "Replace", "pattern", kind, what, "content", by);
}

/* SentencePiece's normaliser: its table, blanks merged, a mark in front, blanks become marks. */
static json_t *mark_steps(const mzm_vocab_list *l)
{
	json_t *list = json_array();
	if (l->n_charsmap)
		json_array_append_new(list, json_pack("{s:s,s:o}", "type", "Precompiled", "precompiled_charsmap",
						      base64_json(l->charsmap, l->n_charsmap)));
	if (l->merge_spaces) {
		json_array_append_new(list, json_pack("{s:s,s:s,s:b,s:b}", "type", "Strip", "content", " ",
						      "strip_left", 1, "strip_right", 1));
		json_array_append_new(list, replace_step("Regex", " {2,}", " "));
	}
	if (l->add_space)
		json_array_append_new(list, json_pack("{s:s,s:s}", "type", "Prepend", "prepend", METASPACE));
	json_array_append_new(list, replace_step("String", " ", METASPACE));
	return json_pack("{s:s,s:o}", "type", "Sequence", "normalizers", list);
}

static json_t *unmark_steps(bool add_space)
{
	json_t *list = json_pack("[o,{s:s},{s:s}]", replace_step("String", METASPACE, " "), "type", "ByteFallback",
				 "type", "Fuse");
	if (add_space)
		json_array_append_new(
			list, json_pack("{s:s,s:s,s:i,s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
	return json_pack("{s:s,s:o}", "type", "Sequence", "decoders", list);
}

static json_t *bert_normalizer(const mzm_vocab_list *l)
{
	return json_pack("{s:s,s:b,s:b,s:b,s:b}", "type", "BertNormalizer", "clean_text", 1, "handle_chinese_chars", 1,
			 "strip_accents", l->strip, "lowercase", l->lower);
}

static mzm_status make_steps(const writing *w, json_t *root, mzm_err *err)
{
	const mzm_vocab_list *l = w->list;
	json_t *norm = json_null(), *pre = json_null(), *dec;
	if (w->scored) {
		norm = mark_steps(l);
		dec = unmark_steps(l->add_space);
	} else if (l->kind == MZM_VOCAB_BERT) {
		norm = bert_normalizer(l);
		pre = json_pack("{s:s}", "type", "BertPreTokenizer");
		dec = json_pack("{s:s,s:s,s:b}", "type", "WordPiece", "prefix", "##", "cleanup", 1);
	} else {
		pre = byte_level_steps(l->pre);
		dec = json_pack("{s:s}", "type", "ByteLevel");
	}
	int bad = json_object_set_new(root, "normalizer", norm);
	bad |= json_object_set_new(root, "pre_tokenizer", pre);
	bad |= json_object_set_new(root, "decoder", dec);
	return bad ? no_memory(err) : MZM_OK;
}

static int add_wrapping(const writing *w, json_t *single, json_t *specials, int32_t id)
{
	mzm_gguf_text t = w->names[id];
	int bad = json_array_append_new(
		single, json_pack("{s:{s:o,s:i}}", "SpecialToken", "id", token_json(w, id), "type_id", 0));
	json_t *what =
		json_pack("{s:o,s:[i],s:[o]}", "id", token_json(w, id), "ids", (int)id, "tokens", token_json(w, id));
	return bad | json_object_setn_new_nocheck(specials, t.s, t.n, what);
}

static mzm_status make_processor(const writing *w, json_t *root, mzm_err *err)
{
	const mzm_vocab_list *l = w->list;
	if ((l->add_bos && l->bos < 0) || (l->add_eos && l->eos < 0))
		return mzm_fail(err, MZM_EFORMAT, "add_%s_token is set, but %s_token_id names no token",
				l->add_bos && l->bos < 0 ? "bos" : "eos", l->add_bos && l->bos < 0 ? "bos" : "eos");
	json_t *single = json_array(), *specials = json_object();
	int bad = l->add_bos ? add_wrapping(w, single, specials, l->bos) : 0;
	bad |= json_array_append_new(single, json_pack("{s:{s:s,s:i}}", "Sequence", "id", "A", "type_id", 0));
	bad |= l->add_eos ? add_wrapping(w, single, specials, l->eos) : 0;
	bad |= json_object_set_new(
		root, "post_processor",
		json_pack("{s:s,s:o,s:o}", "type", "TemplateProcessing", "single", single, "special_tokens", specials));
	return bad ? no_memory(err) : MZM_OK;
}

/* ---- texts ---- */

static int put(const char *bytes, size_t n, void *to)
{
	mzm_str *s = to;
	mzm_str_add(s, bytes, n);
	return s->failed ? -1 : 0;
}

mzm_status mzm_tokenizer_text(char **out, const json_t *root, mzm_err *err)
{
	mzm_str s = {0};
	if (json_dump_callback(root, put, &s, JSON_COMPACT) != 0) {
		mzm_str_free(&s);
		return no_memory(err);
	}
	*out = s.data;
	return MZM_OK;
}

static mzm_status make_tree(json_t **out, const writing *w, mzm_err *err)
{
	json_t *root = json_pack("{s:s,s:n,s:n}", "version", "1.0", "truncation", "padding");
	mzm_status st = root ? MZM_OK : no_memory(err);
	MZM_TRY_OUT(st);
	MZM_TRY_OUT(make_added(w, root, err));
	MZM_TRY_OUT(make_steps(w, root, err));
	MZM_TRY_OUT(make_processor(w, root, err));
	MZM_TRY_OUT(make_model(w, root, err));
	*out = root;
	root = NULL;
out:
	json_decref(root);
	return st;
}

static mzm_status make_config(char **out, const writing *w, mzm_err *err)
{
	const mzm_vocab_list *l = w->list;
	const char *const keys[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
	const int32_t ids[] = {l->bos, l->eos, l->unk, l->pad};
	json_t *root = json_pack("{s:b,s:b}", "add_bos_token", l->add_bos, "add_eos_token", l->add_eos);
	mzm_status st = root ? MZM_OK : no_memory(err);
	for (int i = 0; i < 4 && st == MZM_OK; i++)
		if (ids[i] >= 0 && json_object_set_new(root, keys[i], token_json(w, ids[i])) != 0)
			st = no_memory(err);
	if (st == MZM_OK && l->chat_template) {
		if (mzm_utf8_valid(l->chat_template, l->n_template) != l->n_template)
			st = mzm_fail(err, MZM_EFORMAT, "tokenizer.chat_template is not UTF-8");
		else if (json_object_set_new(root, "chat_template",
					     json_stringn_nocheck(l->chat_template, l->n_template)) != 0)
			st = no_memory(err);
	}
	if (st == MZM_OK)
		st = mzm_tokenizer_text(out, root, err);
	json_decref(root);
	return st;
}

static mzm_status begin(writing *w, const mzm_vocab_list *list, mzm_err *err)
{
	*w = (writing){.list = list, .scored = list->kind == MZM_VOCAB_SPM || list->kind == MZM_VOCAB_UNIGRAM};
	if (list->n > MAX_TOKENS)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: %" PRIu64 " tokens", list->tokens_name, list->n);
	if (list->kind == MZM_VOCAB_BERT && list->unk < 0)
		return mzm_fail(err, MZM_EFORMAT, "unknown_token_id names no token");
	return name_tokens(w, err);
}

static void end(writing *w)
{
	mzm_free(w->names);
	mzm_free(w->arena);
}

mzm_status mzm_tokenizer_tree(json_t **out, const mzm_vocab_list *list, mzm_err *err)
{
	writing w;
	*out = NULL;
	mzm_status st = begin(&w, list, err);
	if (st == MZM_OK)
		st = make_tree(out, &w, err);
	end(&w);
	return st;
}

mzm_status mzm_tokenizer_write(char **json, char **config, const mzm_vocab_list *list, mzm_err *err)
{
	writing w;
	json_t *root = NULL;
	mzm_status st;
	*json = *config = NULL;
	MZM_TRY_OUT(begin(&w, list, err));
	MZM_TRY_OUT(make_tree(&root, &w, err));
	MZM_TRY_OUT(mzm_tokenizer_text(json, root, err));
	MZM_TRY_OUT(make_config(config, &w, err));
out:
	if (st != MZM_OK) {
		mzm_free(*json);
		*json = NULL;
	}
	json_decref(root);
	end(&w);
	return st;
}
