/* jinja_methods.c - Python's methods of strings, lists and dictionaries, as far as templates call them. Those that
 * would change a value are refused: Hugging Face renders in Jinja's immutable sandbox. */
#include "format/jinja_str.h"

#include <utf8proc.h>

#include "format/tokenizer_utf8.h"

#define METHOD(name) static mzm_status name(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
#define UNUSED       ((void)r, (void)args)

static mzm_status want_text(mzm_jrun *r, const mzm_jv *v)
{
	if (v->kind != MZM_J_STR)
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s where a string is wanted", mzm_jv_kind(v));
	return MZM_OK;
}

static mzm_status want_whole(mzm_jrun *r, int64_t *out, const mzm_jv *v, int64_t missing)
{
	*out = missing;
	if (v->kind == MZM_J_ABSENT || v->kind == MZM_J_NONE)
		return MZM_OK;
	if (!mzm_jv_is_whole(v))
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s where a whole number is wanted", mzm_jv_kind(v));
	*out = mzm_jv_whole(v);
	return MZM_OK;
}

/* ---- strings ---- */

METHOD(str_upper)
{
	(void)args;
	return mzm_jstr_case(r, out, in, MZM_JCASE_UPPER);
}

METHOD(str_lower)
{
	(void)args;
	return mzm_jstr_case(r, out, in, MZM_JCASE_LOWER);
}

METHOD(str_title)
{
	(void)args;
	return mzm_jstr_case(r, out, in, MZM_JCASE_TITLE);
}

METHOD(str_capitalize)
{
	(void)args;
	return mzm_jstr_case(r, out, in, MZM_JCASE_CAPITALIZE);
}

METHOD(str_strip)
{
	return mzm_jstr_strip(r, out, in, &args->v[0], MZM_JSTRIP_BOTH);
}

METHOD(str_lstrip)
{
	return mzm_jstr_strip(r, out, in, &args->v[0], MZM_JSTRIP_LEFT);
}

METHOD(str_rstrip)
{
	return mzm_jstr_strip(r, out, in, &args->v[0], MZM_JSTRIP_RIGHT);
}

METHOD(str_replace)
{
	int64_t count;
	MZM_TRY(want_text(r, &args->v[0]));
	MZM_TRY(want_text(r, &args->v[1]));
	MZM_TRY(want_whole(r, &count, &args->v[2], -1));
	return mzm_jstr_replace(r, out, in, &args->v[0], &args->v[1], count);
}

/* startswith and endswith: one string, or a tuple of which one must fit. */
static mzm_status fits(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jv *what, bool at_end)
{
	mzm_jlist one = {.items = what, .n = 1};
	const mzm_jlist *all = what->kind == MZM_J_TUPLE ? what->list : &one;
	bool hit = false;
	for (uint32_t i = 0; i < all->n && !hit; i++) {
		const mzm_jv *part = &all->items[i];
		MZM_TRY(want_text(r, part));
		MZM_TRY(mzm_jrun_charge_bytes(r, MZM_J_STEP_BYTES + part->len));
		if (part->len <= in->len)
			hit = memcmp(at_end ? in->s + in->len - part->len : in->s, part->s, part->len) == 0;
	}
	*out = mzm_jv_bool(hit);
	return MZM_OK;
}

METHOD(str_startswith)
{
	return fits(r, out, in, &args->v[0], false);
}

METHOD(str_endswith)
{
	return fits(r, out, in, &args->v[0], true);
}

METHOD(str_removeprefix)
{
	mzm_jv hit;
	MZM_TRY(want_text(r, &args->v[0]));
	MZM_TRY(fits(r, &hit, in, &args->v[0], false));
	*out = hit.b ? mzm_jv_str(in->s + args->v[0].len, in->len - args->v[0].len) : *in;
	return MZM_OK;
}

METHOD(str_removesuffix)
{
	mzm_jv hit;
	MZM_TRY(want_text(r, &args->v[0]));
	MZM_TRY(fits(r, &hit, in, &args->v[0], true));
	*out = hit.b ? mzm_jv_str(in->s, in->len - args->v[0].len) : *in;
	return MZM_OK;
}

/* Position of the first or last place, in characters. */
static mzm_status place_of(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jv *what, bool last)
{
	size_t at;
	MZM_TRY(want_text(r, what));
	MZM_TRY(mzm_jstr_find(r, &at, in, what, last));
	*out = mzm_jv_int(-1);
	if (at == SIZE_MAX)
		return MZM_OK;
	mzm_jv before = mzm_jv_str(in->s, at);
	*out = mzm_jv_int((int64_t)mzm_jv_chars(&before));
	return mzm_jrun_charge_bytes(r, at);
}

METHOD(str_find)
{
	return place_of(r, out, in, &args->v[0], false);
}

METHOD(str_rfind)
{
	return place_of(r, out, in, &args->v[0], true);
}

METHOD(str_index)
{
	MZM_TRY(place_of(r, out, in, &args->v[0], false));
	return out->i >= 0 ? MZM_OK : mzm_jrun_fail(r, MZM_EFORMAT, "index: not found");
}

METHOD(str_count)
{
	const mzm_jv *what = &args->v[0];
	mzm_jv rest = *in;
	int64_t n = 0;
	MZM_TRY(want_text(r, what));
	if (!what->len) {
		*out = mzm_jv_int((int64_t)mzm_jv_chars(in) + 1);
		return mzm_jrun_charge_bytes(r, in->len);
	}
	for (;; n++) {
		size_t at;
		MZM_TRY(mzm_jrun_charge(r, 1));
		MZM_TRY(mzm_jstr_find(r, &at, &rest, what, false));
		if (at == SIZE_MAX)
			break;
		rest = mzm_jv_str(rest.s + at + what->len, rest.len - at - what->len);
	}
	*out = mzm_jv_int(n);
	return MZM_OK;
}

/* ---- splitting ---- */

/* A growing list of parts: a dictionary's values without its search. */
static mzm_status add_part(mzm_jrun *r, mzm_jv **parts, size_t *n, size_t *cap, const char *s, size_t len)
{
	if (*n == *cap) {
		mzm_jv *grown;
		size_t more = *cap ? 2 * *cap : 8;
		MZM_TRY(mzm_jv_room(r, &grown, more));
		if (*n)
			memcpy(grown, *parts, *n * sizeof *grown);
		*parts = grown;
		*cap = more;
	}
	(*parts)[(*n)++] = mzm_jv_str(s, len);
	return mzm_jrun_charge(r, 1);
}

static size_t to_blank(const char *s, size_t n)
{
	size_t at = 0;
	while (at < n && !mzm_jlex_spaces(s + at, mzm_utf8_need((unsigned char)s[at])))
		at += mzm_utf8_need((unsigned char)s[at]);
	return at;
}

/* At runs of white space; there are no empty parts. */
static mzm_status split_blanks(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, int64_t most)
{
	mzm_jv *parts = NULL;
	size_t n = 0, cap = 0, at = mzm_jlex_spaces(in->s, in->len);
	MZM_TRY(mzm_jrun_charge_bytes(r, in->len));
	while (at < in->len) {
		size_t len = most >= 0 && n == (size_t)most ? in->len - at : to_blank(in->s + at, in->len - at);
		MZM_TRY(add_part(r, &parts, &n, &cap, in->s + at, len));
		at += len;
		at += mzm_jlex_spaces(in->s + at, in->len - at);
	}
	return mzm_jv_list(r, out, MZM_J_LIST, parts, n);
}

static mzm_status split_at(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jv *by, int64_t most)
{
	mzm_jv *parts = NULL, rest = *in;
	size_t n = 0, cap = 0, at;
	MZM_TRY(want_text(r, by));
	if (!by->len)
		return mzm_jrun_fail(r, MZM_EFORMAT, "split: an empty separator");
	while (most < 0 || n < (size_t)most) {
		MZM_TRY(mzm_jstr_find(r, &at, &rest, by, false));
		if (at == SIZE_MAX)
			break;
		MZM_TRY(add_part(r, &parts, &n, &cap, rest.s, at));
		rest = mzm_jv_str(rest.s + at + by->len, rest.len - at - by->len);
	}
	MZM_TRY(add_part(r, &parts, &n, &cap, rest.s, rest.len));
	return mzm_jv_list(r, out, MZM_J_LIST, parts, n);
}

METHOD(str_split)
{
	int64_t most;
	MZM_TRY(want_whole(r, &most, &args->v[1], -1));
	if (args->v[0].kind == MZM_J_ABSENT || args->v[0].kind == MZM_J_NONE)
		return split_blanks(r, out, in, most);
	return split_at(r, out, in, &args->v[0], most);
}

/* From the end; without a bound that is split. */
METHOD(str_rsplit)
{
	mzm_jv *parts = NULL, rest = *in;
	const mzm_jv *by = &args->v[0];
	size_t n = 0, cap = 0, at;
	int64_t most;
	MZM_TRY(want_whole(r, &most, &args->v[1], -1));
	if (most < 0)
		return str_split(r, out, in, args);
	MZM_TRY(want_text(r, by));
	if (!by->len)
		return mzm_jrun_fail(r, MZM_EFORMAT, "rsplit: an empty separator");
	while (n < (size_t)most) {
		MZM_TRY(mzm_jstr_find(r, &at, &rest, by, true));
		if (at == SIZE_MAX)
			break;
		MZM_TRY(add_part(r, &parts, &n, &cap, rest.s + at + by->len, rest.len - at - by->len));
		rest.len = (uint32_t)at;
	}
	MZM_TRY(add_part(r, &parts, &n, &cap, rest.s, rest.len));
	for (size_t i = 0; i < n / 2; i++) {
		mzm_jv swap = parts[i];
		parts[i] = parts[n - 1 - i];
		parts[n - 1 - i] = swap;
	}
	return mzm_jv_list(r, out, MZM_J_LIST, parts, n);
}

METHOD(str_splitlines)
{
	mzm_jlist lines;
	MZM_TRY(mzm_jstr_lines(r, &lines, in, mzm_jv_truth(&args->v[0])));
	return mzm_jv_list(r, out, MZM_J_LIST, lines.items, lines.n);
}

static mzm_status partition(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jv *by, bool last)
{
	mzm_jv *parts;
	size_t at;
	MZM_TRY(want_text(r, by));
	if (!by->len)
		return mzm_jrun_fail(r, MZM_EFORMAT, "partition: an empty separator");
	MZM_TRY(mzm_jv_room(r, &parts, 3));
	MZM_TRY(mzm_jstr_find(r, &at, in, by, last));
	parts[0] = parts[1] = parts[2] = mzm_jv_str("", 0);
	if (at == SIZE_MAX) {
		parts[last ? 2 : 0] = *in;
	} else {
		parts[0] = mzm_jv_str(in->s, at);
		parts[1] = *by;
		parts[2] = mzm_jv_str(in->s + at + by->len, in->len - at - by->len);
	}
	return mzm_jv_list(r, out, MZM_J_TUPLE, parts, 3);
}

METHOD(str_partition)
{
	return partition(r, out, in, &args->v[0], false);
}

METHOD(str_rpartition)
{
	return partition(r, out, in, &args->v[0], true);
}

METHOD(str_join)
{
	mzm_jlist items;
	mzm_jv text = mzm_jv_str("", 0);
	MZM_TRY(mzm_jv_items(r, &items, &args->v[0]));
	for (uint32_t i = 0; i < items.n; i++) {
		MZM_TRY(want_text(r, &items.items[i]));
		MZM_TRY(mzm_jrun_charge(r, 1));
		if (i)
			MZM_TRY(mzm_jv_append(r, &text, in->s, in->len));
		MZM_TRY(mzm_jv_append(r, &text, items.items[i].s, items.items[i].len));
	}
	*out = text;
	return MZM_OK;
}

/* ---- what a string is made of ---- */

typedef bool (*char_test)(uint32_t c);

static bool is_decimal(uint32_t c)
{
	return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ND;
}

static bool is_letter(uint32_t c)
{
	utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
	return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

static bool is_letter_or_digit(uint32_t c)
{
	utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
	return is_letter(c) || (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

static bool is_blank(uint32_t c)
{
	return mzm_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

static mzm_status made_of(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, char_test test)
{
	bool holds = in->len > 0;
	size_t len;
	for (size_t at = 0; at < in->len && holds; at += len)
		holds = test(mzm_utf8_next(in->s + at, &len));
	*out = mzm_jv_bool(holds);
	return mzm_jrun_charge_bytes(r, in->len);
}

METHOD(str_isdigit)
{
	(void)args;
	return made_of(r, out, in, is_decimal);
}

METHOD(str_isalpha)
{
	(void)args;
	return made_of(r, out, in, is_letter);
}

METHOD(str_isalnum)
{
	(void)args;
	return made_of(r, out, in, is_letter_or_digit);
}

METHOD(str_isspace)
{
	(void)args;
	return made_of(r, out, in, is_blank);
}

METHOD(refused)
{
	(void)args;
	(void)out;
	return mzm_jrun_fail(r, MZM_EUNSUPPORTED, "a method of %s that is not supported, or would change it",
			     mzm_jv_kind(in));
}

static const mzm_jrow str_methods[] = {
	{"capitalize", "", 0, str_capitalize},
	{"casefold", "*", 0, refused},
	{"center", "*", 0, refused},
	{"count", "sub", 1, str_count},
	{"encode", "*", 0, refused},
	{"endswith", "suffix", 1, str_endswith},
	{"expandtabs", "*", 0, refused},
	{"find", "sub", 1, str_find},
	{"format", "*", 0, refused},
	{"format_map", "*", 0, refused},
	{"index", "sub", 1, str_index},
	{"isalnum", "", 0, str_isalnum},
	{"isalpha", "", 0, str_isalpha},
	{"isascii", "*", 0, refused},
	{"isdecimal", "", 0, str_isdigit},
	{"isdigit", "", 0, str_isdigit},
	{"isidentifier", "*", 0, refused},
	{"islower", "*", 0, refused},
	{"isnumeric", "", 0, str_isdigit},
	{"isprintable", "*", 0, refused},
	{"isspace", "", 0, str_isspace},
	{"istitle", "*", 0, refused},
	{"isupper", "*", 0, refused},
	{"join", "iterable", 1, str_join},
	{"ljust", "*", 0, refused},
	{"lower", "", 0, str_lower},
	{"lstrip", "chars", 0, str_lstrip},
	{"partition", "sep", 1, str_partition},
	{"removeprefix", "prefix", 1, str_removeprefix},
	{"removesuffix", "suffix", 1, str_removesuffix},
	{"replace", "old new count", 2, str_replace},
	{"rfind", "sub", 1, str_rfind},
	{"rindex", "*", 0, refused},
	{"rjust", "*", 0, refused},
	{"rpartition", "sep", 1, str_rpartition},
	{"rsplit", "sep maxsplit", 0, str_rsplit},
	{"rstrip", "chars", 0, str_rstrip},
	{"split", "sep maxsplit", 0, str_split},
	{"splitlines", "keepends", 0, str_splitlines},
	{"startswith", "prefix", 1, str_startswith},
	{"strip", "chars", 0, str_strip},
	{"swapcase", "*", 0, refused},
	{"title", "", 0, str_title},
	{"translate", "*", 0, refused},
	{"upper", "", 0, str_upper},
	{"zfill", "*", 0, refused},
	{0},
};

/* ---- lists and dictionaries ---- */

METHOD(list_count)
{
	int64_t n = 0;
	for (uint32_t i = 0; i < in->list->n; i++) {
		bool same;
		MZM_TRY(mzm_jv_equal(r, &same, &in->list->items[i], &args->v[0]));
		n += same;
	}
	*out = mzm_jv_int(n);
	return MZM_OK;
}

METHOD(list_index)
{
	for (uint32_t i = 0; i < in->list->n; i++) {
		bool same;
		MZM_TRY(mzm_jv_equal(r, &same, &in->list->items[i], &args->v[0]));
		if (same) {
			*out = mzm_jv_int(i);
			return MZM_OK;
		}
	}
	return mzm_jrun_fail(r, MZM_EFORMAT, "index: not found");
}

static const mzm_jrow tuple_methods[] = {
	{"count", "value", 1, list_count},
	{"index", "value", 1, list_index},
	{0},
};

static const mzm_jrow list_methods[] = {
	{"append", "*", 0, refused},
	{"clear", "*", 0, refused},
	{"copy", "*", 0, refused},
	{"count", "value", 1, list_count},
	{"extend", "*", 0, refused},
	{"index", "value", 1, list_index},
	{"insert", "*", 0, refused},
	{"pop", "*", 0, refused},
	{"remove", "*", 0, refused},
	{"reverse", "*", 0, refused},
	{"sort", "*", 0, refused},
	{0},
};

METHOD(dict_get)
{
	const mzm_jv *v;
	MZM_TRY(mzm_jv_get(r, &v, in->dict, &args->v[0]));
	*out = v ? *v : args->v[1];
	if (out->kind == MZM_J_ABSENT)
		out->kind = MZM_J_NONE;
	return MZM_OK;
}

METHOD(dict_items)
{
	(void)args;
	return mzm_jv_pairs(r, out, MZM_J_VIEW, in->dict);
}

METHOD(dict_keys)
{
	(void)args;
	return mzm_jv_list(r, out, MZM_J_VIEW, in->dict->keys, in->dict->n);
}

METHOD(dict_values)
{
	(void)args;
	return mzm_jv_list(r, out, MZM_J_VIEW, in->dict->values, in->dict->n);
}

METHOD(dict_copy)
{
	UNUSED;
	*out = *in; /* nothing changes a dictionary */
	return MZM_OK;
}

static const mzm_jrow dict_methods[] = {
	{"clear", "*", 0, refused},
	{"copy", "", 0, dict_copy},
	{"fromkeys", "*", 0, refused},
	{"get", "key default", 1, dict_get},
	{"items", "", 0, dict_items},
	{"keys", "", 0, dict_keys},
	{"pop", "*", 0, refused},
	{"popitem", "*", 0, refused},
	{"setdefault", "*", 0, refused},
	{"update", "*", 0, refused},
	{"values", "", 0, dict_values},
	{0},
};

/* ---- loops ---- */

METHOD(loop_cycle)
{
	if (!args->n_pos || args->n_named)
		return mzm_jrun_fail(r, MZM_EFORMAT, "loop.cycle: nothing to go through");
	*out = args->pos[in->loop->at % args->n_pos];
	return MZM_OK;
}

METHOD(loop_changed)
{
	mzm_jv now;
	bool same;
	MZM_TRY(mzm_jv_list(r, &now, MZM_J_TUPLE, args->pos, args->n_pos));
	MZM_TRY(mzm_jv_equal(r, &same, &now, &in->loop->changed));
	in->loop->changed = now;
	*out = mzm_jv_bool(!same);
	return MZM_OK;
}

static const mzm_jrow loop_methods[] = {
	{"changed", "*", 0, loop_changed},
	{"cycle", "*", 0, loop_cycle},
	{0},
};

const mzm_jrow *mzm_jinja_method(const mzm_jv *self, const mzm_jv *name)
{
	switch (self->kind) {
	case MZM_J_STR:
		return mzm_jrow_find(str_methods, name);
	case MZM_J_LIST:
		return mzm_jrow_find(list_methods, name);
	case MZM_J_TUPLE:
		return mzm_jrow_find(tuple_methods, name);
	case MZM_J_DICT:
		return mzm_jrow_find(dict_methods, name);
	case MZM_J_LOOP:
		return mzm_jrow_find(loop_methods, name);
	default:
		return NULL;
	}
}
