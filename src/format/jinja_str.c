/* jinja_str.c - see jinja_str.h. */
#include "format/jinja_str.h"

#include <utf8proc.h>

#include "format/tokenizer_utf8.h"

/* ---- case ---- */

static bool is_cased(uint32_t c)
{
	utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
	return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT;
}

static uint32_t to_case(uint32_t c, bool upper)
{
	if (c < 0x80) {
		uint32_t small = c | 0x20;
		return small < 'a' || small > 'z' ? c : upper ? small & ~0x20u : small;
	}
	return (uint32_t)(upper ? utf8proc_toupper((utf8proc_int32_t)c) : utf8proc_tolower((utf8proc_int32_t)c));
}

static bool raises(mzm_jcase how, uint32_t before, bool first)
{
	switch (how) {
	case MZM_JCASE_UPPER:
		return true;
	case MZM_JCASE_LOWER:
		return false;
	case MZM_JCASE_CAPITALIZE:
		return first;
	case MZM_JCASE_TITLE:
		return first || !is_cased(before);
	default:
		return first || mzm_is_space(before) || (before < 0x80 && before && strchr("-({[<", (int)before));
	}
}

/* One character for one: what becomes several in Unicode's full tables (only sharp s in what people write) is those. */
mzm_status mzm_jstr_case(mzm_jrun *r, mzm_jv *out, const mzm_jv *s, mzm_jcase how)
{
	mzm_jv text = mzm_jv_str("", 0);
	uint32_t before = 0;
	size_t len;
	MZM_TRY(mzm_jrun_charge_bytes(r, s->len));
	for (size_t at = 0; at < s->len; at += len) {
		char put[4];
		uint32_t c = mzm_utf8_next(s->s + at, &len);
		bool upper = raises(how, before, at == 0);
		if (c == 0xdf && upper)
			MZM_TRY(mzm_jv_append(r, &text, how == MZM_JCASE_UPPER ? "SS" : "Ss", 2));
		else
			MZM_TRY(mzm_jv_append(r, &text, put, mzm_utf8_put(to_case(c, upper), put)));
		before = c;
	}
	*out = text;
	return MZM_OK;
}

/* ---- strip ---- */

/* Bytes that go from the start (or the end) of s[0..n) because their characters are among chars. */
static mzm_status stripped(mzm_jrun *r, size_t *out, const char *s, size_t n, const mzm_jv *chars, bool at_end)
{
	size_t gone = 0;
	while (gone < n) {
		size_t start = at_end ? mzm_utf8_back(s, n - gone) : gone;
		size_t len = at_end ? n - gone - start : mzm_utf8_need((unsigned char)s[start]);
		MZM_TRY(mzm_jrun_charge_bytes(r, MZM_J_STEP_BYTES / 4 + chars->len));
		if (!chars->len || !memmem(chars->s, chars->len, s + start, len))
			break;
		gone += len;
	}
	*out = gone;
	return MZM_OK;
}

mzm_status mzm_jstr_strip(mzm_jrun *r, mzm_jv *out, const mzm_jv *s, const mzm_jv *chars, mzm_jstrip sides)
{
	bool blanks = chars->kind == MZM_J_ABSENT || chars->kind == MZM_J_NONE;
	size_t left = 0, right = 0;
	if (!blanks && chars->kind != MZM_J_STR)
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s where the characters to strip are wanted", mzm_jv_kind(chars));
	if (blanks) {
		left = sides & MZM_JSTRIP_LEFT ? mzm_jlex_spaces(s->s, s->len) : 0;
		right = sides & MZM_JSTRIP_RIGHT ? mzm_jlex_spaces_behind(s->s + left, s->len - left) : 0;
	} else {
		if (sides & MZM_JSTRIP_LEFT)
			MZM_TRY(stripped(r, &left, s->s, s->len, chars, false));
		if (sides & MZM_JSTRIP_RIGHT)
			MZM_TRY(stripped(r, &right, s->s + left, s->len - left, chars, true));
	}
	*out = mzm_jv_str(s->s + left, s->len - left - right);
	return mzm_jrun_charge_bytes(r, left + right);
}

/* ---- find and replace ---- */

static mzm_status find_last(mzm_jrun *r, size_t *out, const mzm_jv *s, const mzm_jv *what)
{
	*out = SIZE_MAX;
	for (size_t at = s->len - what->len + 1; at-- > 0;) {
		if (s->s[at] != what->s[0])
			continue;
		MZM_TRY(mzm_jrun_charge_bytes(r, what->len));
		if (memcmp(s->s + at, what->s, what->len) == 0) {
			*out = at;
			break;
		}
	}
	return MZM_OK;
}

mzm_status mzm_jstr_find(mzm_jrun *r, size_t *out, const mzm_jv *s, const mzm_jv *what, bool last)
{
	*out = SIZE_MAX;
	if (what->len > s->len)
		return MZM_OK;
	if (!what->len) {
		*out = last ? s->len : 0;
		return MZM_OK;
	}
	if (last)
		return find_last(r, out, s, what);
	/* in windows: what is near is found without all that is behind being touched, which sanitizers do */
	size_t window = 256 + (size_t)what->len, at = 0;
	for (; *out == SIZE_MAX && at + what->len <= s->len; at += window) {
		size_t span = window + what->len - 1, left = s->len - at;
		const char *hit = memmem(s->s + at, span < left ? span : left, what->s, what->len);
		if (hit)
			*out = (size_t)(hit - s->s);
	}
	return mzm_jrun_charge_bytes(r, at < s->len ? at : s->len);
}

/* Nothing is replaced in front of each character and at the end. */
static mzm_status replace_nothing(mzm_jrun *r, mzm_jv *out, const mzm_jv *s, const mzm_jv *fresh, int64_t count)
{
	mzm_jv text = mzm_jv_str("", 0);
	size_t len;
	for (size_t at = 0; at <= s->len; at += len) {
		if (count-- != 0)
			MZM_TRY(mzm_jv_append(r, &text, fresh->s, fresh->len));
		else
			count = 0;
		MZM_TRY(mzm_jrun_charge(r, 1));
		len = at < s->len ? mzm_utf8_need((unsigned char)s->s[at]) : 1;
		if (at < s->len)
			MZM_TRY(mzm_jv_append(r, &text, s->s + at, len));
	}
	*out = text;
	return MZM_OK;
}

mzm_status mzm_jstr_replace(mzm_jrun *r, mzm_jv *out, const mzm_jv *s, const mzm_jv *old, const mzm_jv *fresh,
			    int64_t count)
{
	mzm_jv text = mzm_jv_str("", 0), rest = *s;
	if (!old->len)
		return replace_nothing(r, out, s, fresh, count);
	while (count != 0) {
		size_t at;
		MZM_TRY(mzm_jstr_find(r, &at, &rest, old, false));
		if (at == SIZE_MAX)
			break;
		MZM_TRY(mzm_jrun_charge(r, 1));
		MZM_TRY(mzm_jv_append(r, &text, rest.s, at));
		MZM_TRY(mzm_jv_append(r, &text, fresh->s, fresh->len));
		rest = mzm_jv_str(rest.s + at + old->len, rest.len - at - old->len);
		if (count > 0)
			count--;
	}
	MZM_TRY(mzm_jv_append(r, &text, rest.s, rest.len));
	*out = text;
	return MZM_OK;
}

/* ---- lines ---- */

/* Bytes of the line break at s; 0: there is none. Those of Python's splitlines. */
static size_t line_break(const char *s, size_t n)
{
	size_t len;
	uint32_t c = mzm_utf8_next(s, &len);
	if (c == '\r' && n > 1 && s[1] == '\n')
		return 2;
	bool breaks = (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
	return breaks ? len : 0;
}

mzm_status mzm_jstr_lines(mzm_jrun *r, mzm_jlist *out, const mzm_jv *s, bool keep_ends)
{
	mzm_jv *lines;
	uint32_t n = 0;
	size_t from = 0, len;
	for (size_t at = 0; at < s->len; at += len ? len : mzm_utf8_need((unsigned char)s->s[at])) {
		len = line_break(s->s + at, s->len - at);
		n += len > 0;
	}
	MZM_TRY(mzm_jrun_charge_bytes(r, 2 * (size_t)s->len));
	MZM_TRY(mzm_jv_room(r, &lines, (size_t)n + 1));
	n = 0;
	for (size_t at = 0; at < s->len; at += len ? len : mzm_utf8_need((unsigned char)s->s[at])) {
		len = line_break(s->s + at, s->len - at);
		if (len) {
			lines[n++] = mzm_jv_str(s->s + from, at - from + (keep_ends ? len : 0));
			from = at + len;
		}
	}
	if (from < s->len)
		lines[n++] = mzm_jv_str(s->s + from, s->len - from);
	*out = (mzm_jlist){.items = lines, .n = n};
	return MZM_OK;
}
