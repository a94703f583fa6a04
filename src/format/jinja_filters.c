/* jinja_filters.c - the filters, with the argument names and the defaults of Jinja. What Jinja's filters give as
 * generators is a stream here, so that it is walked once, always true and without a length there and here. */
#include "format/jinja_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "format/jinja_str.h"

/* ---- arguments ---- */

static bool given(const mzm_jargs *args, int i)
{
	return args->v[i].kind != MZM_J_ABSENT && args->v[i].kind != MZM_J_NONE;
}

static bool flag(const mzm_jargs *args, int i)
{
	return args->v[i].kind != MZM_J_ABSENT && mzm_jv_truth(&args->v[i]);
}

static mzm_status whole_arg(mzm_jrun *r, int64_t *out, const mzm_jargs *args, int i, int64_t fallback)
{
	*out = fallback;
	if (!given(args, i))
		return MZM_OK;
	if (!mzm_jv_is_whole(&args->v[i]))
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s where a whole number is wanted", mzm_jv_kind(&args->v[i]));
	*out = mzm_jv_whole(&args->v[i]);
	return MZM_OK;
}

/* The attribute "a.b.0" of an item; without an attribute the item itself. */
static mzm_status pick(mzm_jrun *r, mzm_jv *out, const mzm_jv *item, const mzm_jv *path)
{
	*out = *item;
	if (path->kind == MZM_J_ABSENT || path->kind == MZM_J_NONE)
		return MZM_OK;
	if (mzm_jv_is_whole(path)) {
		mzm_jv of = *out;
		return mzm_jrun_item(r, out, &of, path);
	}
	if (path->kind != MZM_J_STR)
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s is no attribute", mzm_jv_kind(path));
	for (size_t at = 0; at <= path->len;) {
		size_t end = at;
		while (end < path->len && path->s[end] != '.')
			end++;
		mzm_jv of = *out, key = mzm_jv_str(path->s + at, end - at);
		if (end - at > 0 && end - at < 10 && strspn(key.s, "0123456789") >= key.len)
			key = mzm_jv_int(strtol(key.s, NULL, 10));
		MZM_TRY(mzm_jrun_item(r, out, &of, &key));
		at = end + 1;
	}
	return MZM_OK;
}

static mzm_status stream_of(mzm_jrun *r, mzm_jv *out, const mzm_jv *items, size_t n)
{
	return mzm_jv_list(r, out, MZM_J_STREAM, items, n);
}

/* ---- text ---- */

static mzm_status do_string(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	(void)args;
	return mzm_jv_text(r, out, in);
}

static mzm_status do_upper(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jv text;
	(void)args;
	MZM_TRY(mzm_jv_text(r, &text, in));
	return mzm_jstr_case(r, out, &text, MZM_JCASE_UPPER);
}

static mzm_status do_lower(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jv text;
	(void)args;
	MZM_TRY(mzm_jv_text(r, &text, in));
	return mzm_jstr_case(r, out, &text, MZM_JCASE_LOWER);
}

static mzm_status do_capitalize(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jv text;
	(void)args;
	MZM_TRY(mzm_jv_text(r, &text, in));
	return mzm_jstr_case(r, out, &text, MZM_JCASE_CAPITALIZE);
}

static mzm_status do_title(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jv text;
	(void)args;
	MZM_TRY(mzm_jv_text(r, &text, in));
	return mzm_jstr_case(r, out, &text, MZM_JCASE_TITLE_FILTER);
}

static mzm_status do_trim(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jv text;
	MZM_TRY(mzm_jv_text(r, &text, in));
	return mzm_jstr_strip(r, out, &text, &args->v[0], MZM_JSTRIP_BOTH);
}

static mzm_status do_replace(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jv text, old, new;
	int64_t count;
	MZM_TRY(mzm_jv_text(r, &text, in));
	MZM_TRY(mzm_jv_text(r, &old, &args->v[0]));
	MZM_TRY(mzm_jv_text(r, &new, &args->v[1]));
	MZM_TRY(whole_arg(r, &count, args, 2, -1));
	return mzm_jstr_replace(r, out, &text, &old, &new, count);
}

static mzm_status do_join(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jlist items;
	mzm_jv text = mzm_jv_str("", 0), between = mzm_jv_str("", 0), *parts, part;
	if (args->v[0].kind != MZM_J_ABSENT)
		MZM_TRY(mzm_jv_text(r, &between, &args->v[0]));
	MZM_TRY(mzm_jv_items(r, &items, in));
	MZM_TRY(mzm_jv_room(r, &parts, items.n));
	for (uint32_t i = 0; i < items.n; i++) { /* first all of them, so that the text grows undisturbed */
		MZM_TRY(pick(r, &part, &items.items[i], &args->v[1]));
		MZM_TRY(mzm_jv_text(r, &parts[i], &part));
	}
	for (uint32_t i = 0; i < items.n; i++) {
		MZM_TRY(mzm_jrun_charge(r, 1));
		if (i)
			MZM_TRY(mzm_jv_append(r, &text, between.s, between.len));
		MZM_TRY(mzm_jv_append(r, &text, parts[i].s, parts[i].len));
	}
	*out = text;
	return MZM_OK;
}

static mzm_status blanks(mzm_jrun *r, mzm_jv *out, const mzm_jv *width, int64_t fallback)
{
	const mzm_jv blank = mzm_jv_str(" ", 1), times = width->kind == MZM_J_ABSENT ? mzm_jv_int(fallback) : *width;
	if (times.kind == MZM_J_STR) {
		*out = times;
		return MZM_OK;
	}
	return mzm_jrun_math(r, out, '*', &blank, &times);
}

static mzm_status do_indent(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jv text, shift, result = mzm_jv_str("", 0);
	mzm_jlist lines;
	MZM_TRY(mzm_jv_text(r, &text, in));
	MZM_TRY(blanks(r, &shift, &args->v[0], 4));
	MZM_TRY(mzm_jv_append(r, &text, "\n", 1)); /* a new line at the end stays one */
	MZM_TRY(mzm_jstr_lines(r, &lines, &text, false));
	bool blank = flag(args, 2);
	for (uint32_t i = 0; i < lines.n; i++) {
		const mzm_jv *line = &lines.items[i];
		MZM_TRY(mzm_jrun_charge(r, 1));
		if (i)
			MZM_TRY(mzm_jv_append(r, &result, "\n", 1));
		if (i ? blank || line->len : flag(args, 1))
			MZM_TRY(mzm_jv_append(r, &result, shift.s, shift.len));
		MZM_TRY(mzm_jv_append(r, &result, line->s, line->len));
	}
	*out = result;
	return MZM_OK;
}

static mzm_status do_safe(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	MZM_TRY(do_string(r, out, in, args));
	out->safe = true;
	return MZM_OK;
}

/* As Hugging Face has it, not as Jinja: plain JSON, nothing escaped for HTML. */
static mzm_status do_tojson(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jv text = mzm_jv_str("", 0);
	mzm_jjson how = {.item = mzm_jv_str(", ", 2), .colon = mzm_jv_str(": ", 2), .level = r->level};
	how.ascii = flag(args, 0);
	how.sort = flag(args, 3);
	if (given(args, 1)) {
		MZM_TRY(blanks(r, &how.indent, &args->v[1], 0));
		how.item = mzm_jv_str(",", 1);
	}
	if (given(args, 2)) {
		const mzm_jv *pair = &args->v[2];
		if ((pair->kind != MZM_J_LIST && pair->kind != MZM_J_TUPLE) || pair->list->n != 2 ||
		    pair->list->items[0].kind != MZM_J_STR || pair->list->items[1].kind != MZM_J_STR)
			return mzm_jrun_fail(r, MZM_EFORMAT, "tojson: the separators are two strings");
		how.item = pair->list->items[0];
		how.colon = pair->list->items[1];
	}
	MZM_TRY(mzm_jv_add_json(r, &text, in, &how));
	*out = text;
	return MZM_OK;
}

/* ---- numbers ---- */

/* What int() and float() read from a text: a number with white space around it. False: it is none. */
static bool read_number(const mzm_jv *text, double *real, int64_t *whole, bool *is_whole)
{
	char copy[64], *end;
	size_t skip = mzm_jlex_spaces(text->s, text->len), n = text->len - skip;
	n -= mzm_jlex_spaces_behind(text->s + skip, n);
	if (!n || n >= sizeof copy || strspn(text->s + skip, "0123456789+-.eE") < n)
		return false;
	memcpy(copy, text->s + skip, n);
	copy[n] = 0;
	*is_whole = !strpbrk(copy, ".eE");
	*whole = *is_whole ? strtoll(copy, &end, 10) : 0;
	if (*is_whole && (*whole == INT64_MAX || *whole == INT64_MIN))
		return false;
	*real = strtod(copy, &end);
	return !*end;
}

static mzm_status do_int(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	double real = 0;
	int64_t whole = 0;
	bool is_whole = false, reads = false;
	if (given(args, 1) && (!mzm_jv_is_whole(&args->v[1]) || mzm_jv_whole(&args->v[1]) != 10))
		return mzm_jrun_fail(r, MZM_EUNSUPPORTED, "int: only base 10 is supported");
	if (in->kind == MZM_J_UNDEFINED)
		return mzm_jrun_fail(r, MZM_EFORMAT, "int: %.*s is undefined", (int)(in->len % 100), in->s);
	if (in->kind == MZM_J_STR)
		reads = in->len && read_number(in, &real, &whole, &is_whole);
	else if ((reads = mzm_jv_is_number(in)))
		real = mzm_jv_real(in);
	if (mzm_jv_is_whole(in))
		*out = mzm_jv_int(mzm_jv_whole(in));
	else if (reads && is_whole)
		*out = mzm_jv_int(whole);
	else if (reads && fabs(real) < 0x1p63)
		*out = mzm_jv_int((int64_t)real);
	else
		*out = args->v[0].kind == MZM_J_ABSENT ? mzm_jv_int(0) : args->v[0];
	return MZM_OK;
}

static mzm_status do_float(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	double real = 0;
	int64_t whole;
	bool is_whole, reads = mzm_jv_is_number(in);
	if (in->kind == MZM_J_UNDEFINED)
		return mzm_jrun_fail(r, MZM_EFORMAT, "float: %.*s is undefined", (int)(in->len % 100), in->s);
	if (reads)
		real = mzm_jv_real(in);
	else if (in->kind == MZM_J_STR && in->len)
		reads = read_number(in, &real, &whole, &is_whole);
	*out = reads ? mzm_jv_float(real) : args->v[0].kind == MZM_J_ABSENT ? mzm_jv_float(0) : args->v[0];
	return MZM_OK;
}

static mzm_status do_abs(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	const mzm_jv zero = mzm_jv_int(0);
	(void)args;
	if (!mzm_jv_is_number(in))
		return mzm_jrun_fail(r, MZM_EFORMAT, "abs: %s is no number", mzm_jv_kind(in));
	if (in->kind == MZM_J_FLOAT) {
		*out = mzm_jv_float(fabs(in->f));
		return MZM_OK;
	}
	return mzm_jrun_math(r, out, mzm_jv_whole(in) < 0 ? '-' : '+', &zero, in);
}

/* round(precision, "common"|"ceil"|"floor"); Python rounds halves to even, and so does printf. */
static mzm_status do_round(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	int64_t precision;
	char text[400];
	const mzm_jv *method = &args->v[1];
	bool common = method->kind == MZM_J_ABSENT || (method->kind == MZM_J_STR && mzm_jv_is(method, "common"));
	bool ceils = method->kind == MZM_J_STR && mzm_jv_is(method, "ceil");
	MZM_TRY(whole_arg(r, &precision, args, 0, 0));
	if (!mzm_jv_is_number(in) || precision < 0 || precision > 20)
		return mzm_jrun_fail(r, MZM_EUNSUPPORTED, "round: %s to %lld places", mzm_jv_kind(in),
				     (long long)precision);
	if (!common && !ceils && !(method->kind == MZM_J_STR && mzm_jv_is(method, "floor")))
		return mzm_jrun_fail(r, MZM_EFORMAT, "round: the method is common, ceil or floor");
	if (common && mzm_jv_is_whole(in)) {
		*out = mzm_jv_int(mzm_jv_whole(in));
		return MZM_OK;
	}
	double value = mzm_jv_real(in), scale = pow(10, (double)precision);
	if (common && isfinite(value)) {
		snprintf(text, sizeof text, "%.*f", (int)precision, value);
		value = strtod(text, NULL);
	} else if (!common) {
		value = (ceils ? ceil(value * scale) : floor(value * scale)) / scale;
	}
	*out = mzm_jv_float(value);
	return MZM_OK;
}

/* ---- sequences ---- */

static mzm_status do_length(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	size_t n;
	(void)args;
	MZM_TRY(mzm_jv_length(r, &n, in));
	*out = mzm_jv_int((int64_t)n);
	return MZM_OK;
}

static mzm_status do_default(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	(void)r;
	*out = *in;
	if (in->kind == MZM_J_UNDEFINED || (flag(args, 1) && !mzm_jv_truth(in)))
		*out = args->v[0].kind == MZM_J_ABSENT ? mzm_jv_str("", 0) : args->v[0];
	return MZM_OK;
}

static mzm_status do_first(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jlist items;
	(void)args;
	MZM_TRY(mzm_jv_items(r, &items, in));
	*out = items.n ? items.items[0] : mzm_jv_undefined(NULL);
	return MZM_OK;
}

static mzm_status do_last(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jlist items;
	(void)args;
	if (in->kind == MZM_J_STREAM)
		return mzm_jrun_fail(r, MZM_EFORMAT, "last: a generator has no end to begin from");
	MZM_TRY(mzm_jv_items(r, &items, in));
	*out = items.n ? items.items[items.n - 1] : mzm_jv_undefined(NULL);
	return MZM_OK;
}

static mzm_status do_list(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jlist items;
	(void)args;
	MZM_TRY(mzm_jv_items(r, &items, in));
	return mzm_jv_list(r, out, MZM_J_LIST, items.items, items.n);
}

static mzm_status do_items(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	(void)args;
	if (in->kind == MZM_J_UNDEFINED)
		return stream_of(r, out, NULL, 0);
	if (in->kind != MZM_J_DICT)
		return mzm_jrun_fail(r, MZM_EFORMAT, "items: %s has none", mzm_jv_kind(in));
	return mzm_jv_pairs(r, out, MZM_J_STREAM, in->dict);
}

static mzm_status do_reverse(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jlist items;
	mzm_jv *turned, text = mzm_jv_str("", 0);
	(void)args;
	MZM_TRY(mzm_jv_items(r, &items, in));
	MZM_TRY(mzm_jv_room(r, &turned, items.n));
	for (uint32_t i = 0; i < items.n; i++)
		turned[i] = items.items[items.n - 1 - i];
	if (in->kind != MZM_J_STR)
		return stream_of(r, out, turned, items.n);
	for (uint32_t i = 0; i < items.n; i++)
		MZM_TRY(mzm_jv_append(r, &text, turned[i].s, turned[i].len));
	*out = text;
	return MZM_OK;
}

static mzm_status do_batch(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jlist items;
	mzm_jv *rows, *all;
	int64_t width;
	MZM_TRY(whole_arg(r, &width, args, 0, 0));
	MZM_TRY(mzm_jv_items(r, &items, in));
	if (width < 1 || width > MZM_J_MAX_RANGE)
		return mzm_jrun_fail(r, MZM_EFORMAT, "batch: %lld items a row", (long long)width);
	uint32_t wide = (uint32_t)width, n = (items.n + wide - 1) / wide;
	MZM_TRY(mzm_jv_room(r, &rows, n));
	MZM_TRY(mzm_jv_room(r, &all, (size_t)n * wide));
	for (uint32_t i = 0; i < n * wide; i++)
		all[i] = i < items.n ? items.items[i] : args->v[1];
	for (uint32_t i = 0; i < n; i++) {
		uint32_t left = items.n - i * wide, have = left < wide && !given(args, 1) ? left : wide;
		MZM_TRY(mzm_jv_list(r, &rows[i], MZM_J_LIST, all + (size_t)i * wide, have));
	}
	return stream_of(r, out, rows, n);
}

/* ---- order ---- */

typedef struct sort_key {
	mzm_jv by, item;
} sort_key;

static mzm_status make_keys(mzm_jrun *r, sort_key **out, const mzm_jlist *items, const mzm_jv *path, bool fold)
{
	sort_key *keys = mzm_jarena_take(&r->mem, 2 * (size_t)items->n + 1, sizeof *keys);
	if (!keys)
		return mzm_jrun_full(r);
	for (uint32_t i = 0; i < items->n; i++) {
		mzm_jv by;
		keys[i].item = items->items[i];
		MZM_TRY(pick(r, &by, &items->items[i], path));
		keys[i].by = by;
		if (fold && by.kind == MZM_J_STR)
			MZM_TRY(mzm_jstr_case(r, &keys[i].by, &by, MZM_JCASE_LOWER));
	}
	*out = keys;
	return MZM_OK;
}

/* Merges a[0..m) and a[m..n), each in order, by way of spare; equal ones keep their order, reversed or not. */
static mzm_status merge(mzm_jrun *r, sort_key *a, size_t m, size_t n, sort_key *spare, bool reverse)
{
	size_t left = 0, right = m, to = 0;
	while (left < m && right < n) {
		int sign;
		MZM_TRY(mzm_jv_order(r, &sign, &a[right].by, &a[left].by));
		spare[to++] = (reverse ? sign > 0 : sign < 0) ? a[right++] : a[left++];
	}
	while (left < m)
		spare[to++] = a[left++];
	memcpy(a, spare, to * sizeof *a);
	return MZM_OK;
}

static mzm_status sort_keys(mzm_jrun *r, sort_key *keys, size_t n, bool reverse)
{
	for (size_t width = 1; width < n; width *= 2)
		for (size_t at = 0; at + width < n; at += 2 * width) {
			size_t end = n - at < 2 * width ? n - at : 2 * width;
			MZM_TRY(merge(r, keys + at, width, end, keys + n, reverse));
		}
	return MZM_OK;
}

static mzm_status give_sorted(mzm_jrun *r, mzm_jv *out, const mzm_jlist *items, const mzm_jv *path, bool fold,
			      bool reverse)
{
	sort_key *keys;
	mzm_jv *sorted;
	MZM_TRY(make_keys(r, &keys, items, path, fold));
	MZM_TRY(sort_keys(r, keys, items->n, reverse));
	MZM_TRY(mzm_jv_room(r, &sorted, items->n));
	for (uint32_t i = 0; i < items->n; i++)
		sorted[i] = keys[i].item;
	return mzm_jv_list(r, out, MZM_J_LIST, sorted, items->n);
}

static mzm_status do_sort(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jlist items;
	MZM_TRY(mzm_jv_items(r, &items, in));
	return give_sorted(r, out, &items, &args->v[2], !flag(args, 1), flag(args, 0));
}

static mzm_status do_dictsort(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jv pairs, by = mzm_jv_int(0);
	if (in->kind != MZM_J_DICT)
		return mzm_jrun_fail(r, MZM_EFORMAT, "dictsort: %s is no dict", mzm_jv_kind(in));
	if (given(args, 1) && (args->v[1].kind != MZM_J_STR || !mzm_jv_is(&args->v[1], "key")))
		by = mzm_jv_int(1);
	MZM_TRY(mzm_jv_pairs(r, &pairs, MZM_J_LIST, in->dict));
	return give_sorted(r, out, pairs.list, &by, !flag(args, 0), flag(args, 2));
}

static mzm_status extreme(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args, int wanted)
{
	mzm_jlist items;
	sort_key *keys;
	uint32_t best = 0;
	MZM_TRY(mzm_jv_items(r, &items, in));
	MZM_TRY(make_keys(r, &keys, &items, &args->v[1], !flag(args, 0)));
	for (uint32_t i = 1; i < items.n; i++) {
		int sign;
		MZM_TRY(mzm_jv_order(r, &sign, &keys[i].by, &keys[best].by));
		if (sign == wanted)
			best = i;
	}
	*out = items.n ? items.items[best] : mzm_jv_undefined(NULL);
	return MZM_OK;
}

static mzm_status do_min(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	return extreme(r, out, in, args, -1);
}

static mzm_status do_max(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	return extreme(r, out, in, args, 1);
}

static mzm_status do_sum(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jlist items;
	mzm_jv sum = args->v[1].kind == MZM_J_ABSENT ? mzm_jv_int(0) : args->v[1], item;
	MZM_TRY(mzm_jv_items(r, &items, in));
	for (uint32_t i = 0; i < items.n; i++) {
		MZM_TRY(mzm_jrun_charge(r, 1));
		MZM_TRY(pick(r, &item, &items.items[i], &args->v[0]));
		if (sum.kind == MZM_J_STR || item.kind == MZM_J_STR)
			return mzm_jrun_fail(r, MZM_EFORMAT, "sum: strings are joined, not summed");
		MZM_TRY(mzm_jrun_math(r, &sum, '+', &sum, &item));
	}
	*out = sum;
	return MZM_OK;
}

static mzm_status do_unique(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jlist items;
	sort_key *keys;
	mzm_jv *kept, seen, one = mzm_jv_bool(true);
	uint32_t n = 0;
	MZM_TRY(mzm_jv_items(r, &items, in));
	MZM_TRY(make_keys(r, &keys, &items, &args->v[1], !flag(args, 0)));
	MZM_TRY(mzm_jv_room(r, &kept, items.n));
	MZM_TRY(mzm_jv_dict(r, &seen, MZM_J_DICT, 0));
	for (uint32_t i = 0; i < items.n; i++) {
		uint32_t before = seen.dict->n;
		MZM_TRY(mzm_jv_put(r, seen.dict, &keys[i].by, &one));
		if (seen.dict->n > before)
			kept[n++] = items.items[i];
	}
	return stream_of(r, out, kept, n);
}

/* ---- map and select ---- */

/* The arguments behind the first `skip`. */
static mzm_jargs rest_of(const mzm_jargs *args, uint32_t skip)
{
	mzm_jargs rest = *args;
	rest.pos += skip;
	rest.n_pos -= skip;
	return rest;
}

static const mzm_jv *named(const mzm_jargs *args, const char *name)
{
	for (uint32_t i = 0; i < args->n_named; i++)
		if (mzm_jv_is(&args->names[i], name))
			return &args->named[i];
	return NULL;
}

static mzm_status find_row(mzm_jrun *r, const mzm_jrow **row, const mzm_jv *name,
			   const mzm_jrow *(*find)(const mzm_jv *), const char *what)
{
	*row = name->kind == MZM_J_STR ? find(name) : NULL;
	if (!*row)
		return mzm_jrun_fail(r, MZM_EUNSUPPORTED, "the %s %.*s is not supported", what,
				     name->kind != MZM_J_STR || name->len > 60 ? 0 : (int)name->len, name->s);
	return MZM_OK;
}

/* map and select take whatever is not true, none as well, for nothing. */
static mzm_status items_if_any(mzm_jrun *r, mzm_jlist *out, const mzm_jv *in)
{
	*out = (mzm_jlist){0};
	return mzm_jv_truth(in) ? mzm_jv_items(r, out, in) : MZM_OK;
}

static mzm_status map_attribute(mzm_jrun *r, mzm_jv *items, uint32_t n, const mzm_jargs *args)
{
	const mzm_jv *path = named(args, "attribute"), *fallback = named(args, "default");
	if (args->n_pos || !path || args->n_named != 1u + (fallback != NULL))
		return mzm_jrun_fail(r, MZM_EFORMAT, "map: a filter, or attribute and default");
	for (uint32_t i = 0; i < n; i++) {
		mzm_jv item = items[i];
		MZM_TRY(pick(r, &items[i], &item, path));
		if (fallback && items[i].kind == MZM_J_UNDEFINED)
			items[i] = *fallback;
	}
	return MZM_OK;
}

static mzm_status do_map(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	mzm_jlist items;
	mzm_jv *mapped;
	const mzm_jrow *row;
	MZM_TRY(items_if_any(r, &items, in));
	MZM_TRY(mzm_jv_room(r, &mapped, items.n));
	if (items.n)
		memcpy(mapped, items.items, items.n * sizeof *mapped);
	if (named(args, "attribute") || !args->n_pos) {
		MZM_TRY(map_attribute(r, mapped, items.n, args));
		return stream_of(r, out, mapped, items.n);
	}
	MZM_TRY(find_row(r, &row, &args->pos[0], mzm_jinja_filter, "filter"));
	MZM_TRY(mzm_jrun_enter(r)); /* map may map maps */
	for (uint32_t i = 0; i < items.n; i++) {
		mzm_jargs rest = rest_of(args, 1);
		mzm_jv item = mapped[i];
		MZM_TRY(mzm_jrun_row(r, &mapped[i], row, &item, &rest));
	}
	r->level--;
	return stream_of(r, out, mapped, items.n);
}

/* Keeps the items, or their attributes by args[0], that pass (or not) the test that follows; without one their truth.
 */
static mzm_status filter_by(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args, bool by_attr,
			    bool wanted)
{
	uint32_t skip = by_attr, n = 0;
	mzm_jlist items;
	mzm_jv *kept, path = {0};
	const mzm_jrow *row = NULL;
	if (by_attr && !args->n_pos)
		return mzm_jrun_fail(r, MZM_EFORMAT, "the attribute to select by is missing");
	if (by_attr)
		path = args->pos[0];
	if (args->n_pos > skip)
		MZM_TRY(find_row(r, &row, &args->pos[skip], mzm_jinja_test, "test"));
	MZM_TRY(items_if_any(r, &items, in));
	MZM_TRY(mzm_jv_room(r, &kept, items.n));
	for (uint32_t i = 0; i < items.n; i++) {
		mzm_jv value, verdict;
		MZM_TRY(mzm_jrun_charge(r, 1));
		MZM_TRY(pick(r, &value, &items.items[i], &path));
		verdict = value;
		if (row) {
			mzm_jargs rest = rest_of(args, skip + 1);
			MZM_TRY(mzm_jrun_row(r, &verdict, row, &value, &rest));
		}
		if (mzm_jv_truth(&verdict) == wanted)
			kept[n++] = items.items[i];
	}
	return stream_of(r, out, kept, n);
}

static mzm_status do_select(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	return filter_by(r, out, in, args, false, true);
}

static mzm_status do_reject(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	return filter_by(r, out, in, args, false, false);
}

static mzm_status do_selectattr(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	return filter_by(r, out, in, args, true, true);
}

static mzm_status do_rejectattr(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
{
	return filter_by(r, out, in, args, true, false);
}

static const mzm_jrow filters[] = {
	{"abs", "", 0, do_abs},
	{"batch", "linecount fill_with", 1, do_batch},
	{"capitalize", "", 0, do_capitalize},
	{"count", "", 0, do_length},
	{"d", "default_value boolean", 0, do_default},
	{"default", "default_value boolean", 0, do_default},
	{"dictsort", "case_sensitive by reverse", 0, do_dictsort},
	{"first", "", 0, do_first},
	{"float", "default", 0, do_float},
	{"indent", "width first blank", 0, do_indent},
	{"int", "default base", 0, do_int},
	{"items", "", 0, do_items},
	{"join", "d attribute", 0, do_join},
	{"last", "", 0, do_last},
	{"length", "", 0, do_length},
	{"list", "", 0, do_list},
	{"lower", "", 0, do_lower},
	{"map", "*", 0, do_map},
	{"max", "case_sensitive attribute", 0, do_max},
	{"min", "case_sensitive attribute", 0, do_min},
	{"reject", "*", 0, do_reject},
	{"rejectattr", "*", 0, do_rejectattr},
	{"replace", "old new count", 2, do_replace},
	{"reverse", "", 0, do_reverse},
	{"round", "precision method", 0, do_round},
	{"safe", "", 0, do_safe},
	{"select", "*", 0, do_select},
	{"selectattr", "*", 0, do_selectattr},
	{"sort", "reverse case_sensitive attribute", 0, do_sort},
	{"string", "", 0, do_string},
	{"sum", "attribute start", 0, do_sum},
	{"title", "", 0, do_title},
	{"tojson", "ensure_ascii indent separators sort_keys", 0, do_tojson},
	{"trim", "chars", 0, do_trim},
	{"unique", "case_sensitive attribute", 0, do_unique},
	{"upper", "", 0, do_upper},
	{0},
};

const mzm_jrow *mzm_jinja_filter(const mzm_jv *name)
{
	return mzm_jrow_find(filters, name);
}
