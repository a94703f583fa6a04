/* item.c - see item.h. */
#include "eval/item.h"

#include <stdlib.h>
#include <string.h>

#include "eval/util.h"

/* The counters of a line: name and place, once for both directions. */
#define COUNTERS(X)                          \
	X("n_prompt", n_prompt)              \
	X("checks", n_checks)                \
	X("gained", n_gained)                \
	X("checks_paper", n_checks_paper)    \
	X("gained_paper", n_gained_paper)    \
	X("accepted", n_accepted)            \
	X("corrected", n_corrected)          \
	X("bonus", n_bonus)                  \
	X("rolled_back", n_rolled_back)      \
	X("sparse_passes", n_sparse_passes)  \
	X("dense_passes", n_dense_passes)    \
	X("dense_positions", n_dense_positions) \
	X("bytes_read", bytes_read)

/* Of answers by trees of drafts only. */
#define TREE_COUNTERS(X)                          \
	X("nodes", n_nodes)                       \
	X("live_nodes", n_live)                   \
	X("dead_nodes", n_dead)                   \
	X("cut_nodes", n_cut)                     \
	X("sparse_positions", n_sparse_positions)

/* The times of a line, at its end: the only members that differ between two runs. */
#define TIMES(X)                            \
	X("prefill_ns", gen.prefill_ns)     \
	X("decode_ns", gen.decode_ns)       \
	X("wall_ns", wall_ns)

/* More times; files of before streaming lack them. */
#define STREAM_TIMES(X)                 \
	X("read_ns", gen.read_ns)       \
	X("unpack_ns", gen.unpack_ns)   \
	X("wait_ns", gen.wait_ns)

static const char kind_letters[] = "FPACBR"; /* in the order of mzm_token_kind */

char mze_kind_letter(mzm_token_kind kind)
{
	return (int)kind >= 0 && (size_t)kind < sizeof kind_letters - 1 ? kind_letters[kind] : '?';
}

mzm_token_kind mze_kind_of(char letter)
{
	const char *at = strchr(kind_letters, letter);
	return at && *at ? (mzm_token_kind)(at - kind_letters) : MZM_TOKEN_PLAIN;
}

void mze_item_free(mze_item *item)
{
	free((void *)(uintptr_t)item->gen.tokens);
	free(item->text);
	free(item->kinds);
	free(item->event_id);
	free(item->confidence);
	*item = (mze_item){0};
}

/* ---- writing ---- */

static json_t *ids_json(const int32_t *ids, int32_t n)
{
	json_t *array = json_array();
	for (int32_t i = 0; array && i < n; i++) {
		if (json_array_append_new(array, json_integer(ids[i])) != 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

static json_t *span_json(mze_span span)
{
	return span.data ? mze_json_text(span.data, span.len) : json_string("[invalid]");
}

json_t *mze_drafters_json(const mzm_draft_stats *drafts, int32_t n)
{
	json_t *list = json_array();
	for (int32_t i = 0; list && i < n; i++) {
		const mzm_draft_stats *d = &drafts[i];
		if (json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I}", "name", d->name, "checks",
							  (json_int_t)d->n_rounds, "drafted", (json_int_t)d->n_drafted,
							  "accepted", (json_int_t)d->n_accepted)) != 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static int set_counters(json_t *line, const mzm_gen_result *gen)
{
	int bad = 0;
#define X(key, field) bad |= json_object_set_new(line, key, json_integer((json_int_t)gen->field));
	COUNTERS(X)
#undef X
	bad |= json_object_set_new(line, "sparse_work", mze_json_real(gen->sparse_work));
	if (gen->n_nodes > 0) {
#define X(key, field) bad |= json_object_set_new(line, key, json_integer((json_int_t)gen->field));
		TREE_COUNTERS(X)
#undef X
		bad |= json_object_set_new(line, "sparse_node_work", mze_json_real(gen->sparse_node_work));
	}
	bad |= json_object_set_new(line, "density", mze_json_real(gen->density));
	bad |= json_object_set_new(line, "read_density", mze_json_real(gen->read_density));
	return bad;
}

char *mze_item_print(const mze_item *item, int32_t row, const char *mode, int32_t id)
{
	char *text = NULL;
	json_t *line = json_object();
	int bad = !line;
#define SET(key, value) bad |= json_object_set_new(line, key, value)
	SET("row", json_integer(row));
	SET("mode", json_string(mode));
	SET("id", json_integer(id));
	SET("prompt_hash", json_string(item->prompt_hash));
	SET("finish", json_string(mzm_finish_name(item->gen.finish)));
	SET("strict", span_json(item->score.strict));
	SET("flexible", span_json(item->score.flexible));
	SET("strict_correct", json_boolean(item->score.strict_right));
	SET("flexible_correct", json_boolean(item->score.flexible_right));
	SET("text", mze_json_text(item->text, item->text_len));
	SET("tokens", ids_json(item->gen.tokens, item->gen.n_tokens));
	SET("kinds", json_stringn(item->kinds, (size_t)item->n_events));
	SET("event_ids", ids_json(item->event_id, item->n_events));
	if (item->confidence)
		SET("confidence", ids_json(item->confidence, item->n_drafts));
	bad |= set_counters(line, &item->gen);
	if (item->gen.n_drafters > 0)
		SET("drafters", mze_drafters_json(item->gen.drafts, item->gen.n_drafters));
#define X(key, field) SET(key, json_integer((json_int_t)item->field));
	TIMES(X)
	STREAM_TIMES(X)
#undef X
#undef SET
	if (!bad)
		text = json_dumps(line, JSON_COMPACT);
	json_decref(line);
	return text;
}

/* ---- reading ---- */

static mzm_status get_int(int64_t *out, const json_t *line, const char *key, int64_t max, mzm_err *err)
{
	const json_t *value = json_object_get(line, key);
	if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > max)
		return mze_fail(err, MZM_EFORMAT, "\"%s\" is not a whole number from 0 to %lld", key, (long long)max);
	*out = json_integer_value(value);
	return MZM_OK;
}

static mzm_status get_real(double *out, const json_t *line, const char *key, mzm_err *err)
{
	const json_t *value = json_object_get(line, key);
	*out = json_number_value(value);
	if (!json_is_number(value) || !(*out >= 0))
		return mze_fail(err, MZM_EFORMAT, "\"%s\" is not a number of at least 0", key);
	return MZM_OK;
}

static mzm_status get_text(char **out, size_t *len, const json_t *line, const char *key, mzm_err *err)
{
	const json_t *value = json_object_get(line, key);
	if (!json_is_string(value))
		return mze_fail(err, MZM_EFORMAT, "\"%s\" is not a string", key);
	*len = json_string_length(value);
	*out = mze_strndup(json_string_value(value), *len);
	return *out ? MZM_OK : mze_no_memory(err);
}

/* Whole numbers from least to most. *out [*n] -> free */
static mzm_status get_array(int32_t **out, int32_t *n, const json_t *line, const char *key, int32_t least, int32_t most,
			    const char *what, mzm_err *err)
{
	const json_t *array = json_object_get(line, key);
	if (!json_is_array(array) || json_array_size(array) > INT32_MAX)
		return mze_fail(err, MZM_EFORMAT, "\"%s\" is not an array", key);
	*n = (int32_t)json_array_size(array);
	*out = mze_calloc((size_t)*n, sizeof **out);
	if (!*out)
		return mze_no_memory(err);
	for (int32_t i = 0; i < *n; i++) {
		const json_t *value = json_array_get(array, (size_t)i);
		if (!json_is_integer(value) || json_integer_value(value) < least || json_integer_value(value) > most)
			return mze_fail(err, MZM_EFORMAT, "\"%s\"[%d] is not %s", key, i, what);
		(*out)[i] = (int32_t)json_integer_value(value);
	}
	return MZM_OK;
}

/* *out [*n] -> free */
static mzm_status get_ids(int32_t **out, int32_t *n, const json_t *line, const char *key, int32_t n_vocab, mzm_err *err)
{
	return get_array(out, n, line, key, 0, n_vocab - 1, "a token of this model", err);
}

static mzm_status get_numbers(mze_item *item, const json_t *line, mzm_err *err)
{
	mzm_gen_result *gen = &item->gen;
	int64_t value = 0;
#define X(key, field)                                                                      \
	MZE_TRY(get_int(&value, line, key, sizeof gen->field == 4 ? INT32_MAX : INT64_MAX, err)); \
	gen->field = (__typeof__(gen->field))value;
	COUNTERS(X)
#undef X
#define X(key, field)                                            \
	MZE_TRY(get_int(&value, line, key, INT64_MAX / 4096, err)); \
	item->field = value;
	TIMES(X)
#undef X
#define X(key, field)                                                        \
	if (json_object_get(line, key))                                      \
		MZE_TRY(get_int(&value, line, key, INT64_MAX / 4096, err));  \
	else                                                                 \
		value = 0;                                                   \
	item->field = value;
	STREAM_TIMES(X)
#undef X
	if (json_object_get(line, "nodes")) {
#define X(key, field)                                                        \
	MZE_TRY(get_int(&value, line, key, INT64_MAX / 4096, err));          \
	gen->field = value;
		TREE_COUNTERS(X)
#undef X
		MZE_TRY(get_real(&gen->sparse_node_work, line, "sparse_node_work", err));
	}
	MZE_TRY(get_real(&gen->sparse_work, line, "sparse_work", err));
	MZE_TRY(get_real(&gen->density, line, "density", err));
	return get_real(&gen->read_density, line, "read_density", err);
}

/* The engine's own spelling of a drafter's name, which outlives all; NULL: there is none such. */
static const char *drafter_name(const char *name)
{
	const char *known;
	for (int i = 0; name && (known = mzm_drafter_name(i)) != NULL; i++) {
		if (strcmp(known, name) == 0)
			return known;
	}
	return NULL;
}

/* Files of before there was any lack them. */
static mzm_status get_drafters(mzm_gen_result *gen, const json_t *line, mzm_err *err)
{
	const json_t *list = json_object_get(line, "drafters");
	if (list && (!json_is_array(list) || json_array_size(list) > MZM_MAX_DRAFTERS))
		return mze_fail(err, MZM_EFORMAT, "\"drafters\" is not a list of %d at most", MZM_MAX_DRAFTERS);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *one = json_array_get(list, i);
		mzm_draft_stats *d = &gen->drafts[i];
		int64_t n_rounds = 0;
		d->name = drafter_name(json_string_value(json_object_get(one, "name")));
		if (!d->name)
			return mze_fail(err, MZM_EFORMAT, "\"drafters\"[%zu] has no known name", i);
		MZE_TRY(get_int(&n_rounds, one, "checks", INT32_MAX, err));
		MZE_TRY(get_int(&d->n_drafted, one, "drafted", INT64_MAX / 4096, err));
		MZE_TRY(get_int(&d->n_accepted, one, "accepted", INT64_MAX / 4096, err));
		d->n_rounds = (int32_t)n_rounds;
	}
	gen->n_drafters = (int32_t)json_array_size(list);
	return MZM_OK;
}

static mzm_status get_finish(mzm_finish *out, const json_t *line, mzm_err *err)
{
	const char *name = json_string_value(json_object_get(line, "finish"));
	for (mzm_finish f = MZM_FINISH_EOS; f < MZM_FINISH_CANCELLED; f++) {
		if (name && strcmp(name, mzm_finish_name(f)) == 0) {
			*out = f;
			return MZM_OK;
		}
	}
	return mze_fail(err, MZM_EFORMAT, "\"finish\" is not a known reason");
}

static int32_t count_drafts(const mze_item *item)
{
	int32_t n = 0;
	for (int32_t i = 0; i < item->n_events; i++)
		n += mze_kind_is_draft(item->kinds[i]);
	return n;
}

/* Files of before there was any lack it. */
static mzm_status get_confidence(mze_item *item, const json_t *line, mzm_err *err)
{
	if (!json_object_get(line, "confidence"))
		return MZM_OK;
	MZE_TRY(get_array(&item->confidence, &item->n_drafts, line, "confidence", -1, 1000000,
			  "a number of millionths, or -1", err));
	if (item->n_drafts != count_drafts(item))
		return mze_fail(err, MZM_EFORMAT, "\"confidence\" does not go with \"kinds\"");
	return MZM_OK;
}

static mzm_status get_events(mze_item *item, const json_t *line, int32_t n_vocab, mzm_err *err)
{
	size_t n_kinds = 0;
	MZE_TRY(get_ids(&item->event_id, &item->n_events, line, "event_ids", n_vocab, err));
	MZE_TRY(get_text(&item->kinds, &n_kinds, line, "kinds", err));
	if (n_kinds != (size_t)item->n_events || strspn(item->kinds, kind_letters) != n_kinds)
		return mze_fail(err, MZM_EFORMAT, "\"kinds\" does not go with \"event_ids\"");
	return get_confidence(item, line, err);
}

static mzm_status get_item(mze_item *item, int32_t *row, int32_t *id, const json_t *line, int32_t n_vocab, mzm_err *err)
{
	int64_t at_row = 0, at_id = 0;
	int32_t *tokens = NULL;
	MZE_TRY(get_int(&at_row, line, "row", INT32_MAX, err));
	MZE_TRY(get_int(&at_id, line, "id", INT32_MAX, err));
	*row = (int32_t)at_row;
	*id = (int32_t)at_id;
	MZE_TRY(get_finish(&item->gen.finish, line, err));
	MZE_TRY(get_numbers(item, line, err));
	MZE_TRY(get_drafters(&item->gen, line, err));
	mzm_status st = get_ids(&tokens, &item->gen.n_tokens, line, "tokens", n_vocab, err);
	item->gen.tokens = tokens;
	MZE_TRY(st);
	MZE_TRY(get_events(item, line, n_vocab, err));
	const char *hash = json_string_value(json_object_get(line, "prompt_hash"));
	if (!hash || strlen(hash) != sizeof item->prompt_hash - 1)
		return mze_fail(err, MZM_EFORMAT, "\"prompt_hash\" is not 16 characters long");
	memcpy(item->prompt_hash, hash, sizeof item->prompt_hash);
	return get_text(&item->text, &item->text_len, line, "text", err);
}

mzm_status mze_item_parse(mze_item *out, int32_t *row, int32_t *id, const char *line, size_t len, int32_t n_vocab,
			  mzm_err *err)
{
	json_error_t why;
	*out = (mze_item){0};
	json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
	if (!object)
		return mze_fail(err, MZM_EFORMAT, "not JSON: %s (byte %d)", why.text, why.position);
	mzm_status st = json_is_object(object) ? get_item(out, row, id, object, n_vocab, err)
					       : mze_fail(err, MZM_EFORMAT, "not a JSON object");
	json_decref(object);
	if (st == MZM_OK)
		out->is_done = true;
	else
		mze_item_free(out);
	return st;
}
