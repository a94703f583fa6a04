/* jinja_text.c - values as text: Python's str() and repr(), and JSON as json.dumps writes it.
 *
 * Strings have an arena of their own. The one that is last in it grows in place, so what a filter or an operator
 * appends costs its own bytes alone; growing never changes the bytes that others may already share. */
#include "format/jinja_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "format/tokenizer_utf8.h"

mzm_status mzm_jv_append(mzm_jrun *r, mzm_jv *s, const char *bytes, size_t n)
{
	MZM_TRY(mzm_jrun_charge_bytes(r, n));
	if (!n)
		return MZM_OK;
	mzm_jarena *mem = &r->text;
	if (!s->len || s->s + s->len != mem->top || (size_t)(mem->end - mem->top) < n) {
		MZM_TRY(mzm_jrun_charge_bytes(r, s->len));
		size_t whole = s->len + n;
		char *copy = mzm_jarena_text(mem, 2 * whole); /* what is appended next has room */
		if (!copy)
			return mzm_jrun_full(r);
		mem->top -= whole;
		if (s->len)
			memcpy(copy, s->s, s->len);
		memcpy(copy + s->len, bytes, n);
		*s = mzm_jv_str(copy, whole);
		return MZM_OK;
	}
	memcpy(mem->top, bytes, n);
	mem->top += n;
	s->len += (uint32_t)n;
	return MZM_OK;
}

char *mzm_jrun_text(mzm_jrun *r, size_t n)
{
	return mzm_jarena_text(&r->text, n);
}

static mzm_status puts_to(mzm_jrun *r, mzm_jv *s, const char *text)
{
	return mzm_jv_append(r, s, text, strlen(text));
}

size_t mzm_jv_chars(const mzm_jv *str)
{
	size_t n = 0;
	for (uint32_t i = 0; i < str->len; i++)
		n += ((unsigned char)str->s[i] & 0xc0) != 0x80;
	return n;
}

size_t mzm_jv_byte_of(const mzm_jv *str, size_t chr)
{
	size_t at = 0;
	for (; chr > 0 && at < str->len; chr--)
		at += mzm_utf8_need((unsigned char)str->s[at]);
	return at;
}

/* ---- numbers ---- */

/* The shortest digits that are read back as the same number, placed as Python's repr() places them. */
static void print_float(char out[48], double f)
{
	char digits[40];
	int precision = 0;
	if (!isfinite(f)) {
		snprintf(out, 48, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
		return;
	}
	do
		snprintf(digits, sizeof digits, "%.*e", precision, f);
	while (strtod(digits, NULL) != f && precision++ < 17);
	int exponent = atoi(strchr(digits, 'e') + 1);
	if (exponent >= 16 || exponent < -4)
		snprintf(out, 48, "%.*e", precision, f);
	else
		snprintf(out, 48, "%.*f", precision > exponent ? precision - exponent : 0, f);
	if (!strpbrk(out, ".e"))
		snprintf(out + strlen(out), 4, ".0");
}

static mzm_status add_number(mzm_jrun *r, mzm_jv *s, const mzm_jv *v)
{
	char text[48];
	if (v->kind == MZM_J_FLOAT)
		print_float(text, v->f);
	else
		snprintf(text, sizeof text, "%lld", (long long)v->i);
	return puts_to(r, s, text);
}

/* ---- repr ---- */

static bool is_printable(uint32_t c)
{
	if (c < 0x7f)
		return c >= 0x20;
	switch (utf8proc_category((utf8proc_int32_t)c)) {
	case UTF8PROC_CATEGORY_CN:
	case UTF8PROC_CATEGORY_ZS:
	case UTF8PROC_CATEGORY_ZL:
	case UTF8PROC_CATEGORY_ZP:
	case UTF8PROC_CATEGORY_CC:
	case UTF8PROC_CATEGORY_CF:
	case UTF8PROC_CATEGORY_CS:
	case UTF8PROC_CATEGORY_CO:
		return false;
	default:
		return true;
	}
}

static mzm_status add_escaped(mzm_jrun *r, mzm_jv *s, uint32_t c, char quote)
{
	char text[16];
	if (c == (uint32_t)quote || c == '\\')
		snprintf(text, sizeof text, "\\%c", (char)c);
	else if (c == '\n' || c == '\r' || c == '\t')
		snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
	else
		snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
	return puts_to(r, s, text);
}

static mzm_status add_quoted(mzm_jrun *r, mzm_jv *s, const mzm_jv *v)
{
	bool single = v->len && memchr(v->s, '\'', v->len), dbl = v->len && memchr(v->s, '"', v->len);
	char quote = single && !dbl ? '"' : '\'';
	MZM_TRY(mzm_jv_append(r, s, &quote, 1));
	size_t from = 0, at = 0, len;
	for (; at < v->len; at += len) {
		uint32_t c = mzm_utf8_next(v->s + at, &len);
		if (c != (uint32_t)quote && c != '\\' && is_printable(c))
			continue;
		MZM_TRY(mzm_jv_append(r, s, v->s + from, at - from));
		MZM_TRY(add_escaped(r, s, c, quote));
		from = at + len;
	}
	MZM_TRY(mzm_jv_append(r, s, v->s + from, at - from));
	return mzm_jv_append(r, s, &quote, 1);
}

static mzm_status add_list(mzm_jrun *r, mzm_jv *s, const mzm_jv *v)
{
	bool tuple = v->kind == MZM_J_TUPLE;
	MZM_TRY(puts_to(r, s, tuple ? "(" : "["));
	for (uint32_t i = 0; i < v->list->n; i++) {
		MZM_TRY(puts_to(r, s, i ? ", " : ""));
		MZM_TRY(mzm_jv_add_repr(r, s, &v->list->items[i]));
	}
	return puts_to(r, s, tuple ? v->list->n == 1 ? ",)" : ")" : "]");
}

static mzm_status add_dict(mzm_jrun *r, mzm_jv *s, const mzm_jv *v)
{
	bool space = v->kind == MZM_J_NAMESPACE;
	MZM_TRY(puts_to(r, s, space ? "<Namespace {" : "{"));
	for (uint32_t i = 0; i < v->dict->n; i++) {
		MZM_TRY(puts_to(r, s, i ? ", " : ""));
		MZM_TRY(mzm_jv_add_repr(r, s, &v->dict->keys[i]));
		MZM_TRY(puts_to(r, s, ": "));
		MZM_TRY(mzm_jv_add_repr(r, s, &v->dict->values[i]));
	}
	return puts_to(r, s, space ? "}>" : "}");
}

static mzm_status add_repr_deep(mzm_jrun *r, mzm_jv *s, const mzm_jv *v)
{
	switch (v->kind) {
	case MZM_J_UNDEFINED:
		return puts_to(r, s, "Undefined");
	case MZM_J_NONE:
		return puts_to(r, s, "None");
	case MZM_J_BOOL:
		return puts_to(r, s, v->b ? "True" : "False");
	case MZM_J_INT:
	case MZM_J_FLOAT:
		return add_number(r, s, v);
	case MZM_J_STR:
		return add_quoted(r, s, v);
	case MZM_J_LIST:
	case MZM_J_TUPLE:
		return add_list(r, s, v);
	case MZM_J_DICT:
	case MZM_J_NAMESPACE:
		return add_dict(r, s, v);
	default: /* Python prints addresses of those; no template means that */
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s has no text; |list makes a list of what has items",
				     mzm_jv_kind(v));
	}
}

mzm_status mzm_jv_add_repr(mzm_jrun *r, mzm_jv *s, const mzm_jv *v)
{
	MZM_TRY(mzm_jrun_charge(r, 1));
	MZM_TRY(mzm_jrun_enter(r));
	MZM_TRY(add_repr_deep(r, s, v));
	r->level--;
	return MZM_OK;
}

mzm_status mzm_jv_add_text(mzm_jrun *r, mzm_jv *s, const mzm_jv *v)
{
	if (v->kind == MZM_J_UNDEFINED)
		return MZM_OK;
	if (v->kind == MZM_J_STR)
		return mzm_jv_append(r, s, v->s, v->len);
	return mzm_jv_add_repr(r, s, v);
}

mzm_status mzm_jv_text(mzm_jrun *r, mzm_jv *out, const mzm_jv *v)
{
	if (v->kind == MZM_J_STR) {
		*out = *v;
		return MZM_OK;
	}
	mzm_jv text = mzm_jv_str("", 0);
	MZM_TRY(mzm_jv_add_text(r, &text, v));
	*out = text;
	return MZM_OK;
}

/* ---- JSON ---- */

static mzm_status add_json_char(mzm_jrun *r, mzm_jv *s, uint32_t c)
{
	static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
	char text[16];
	const char *hit = c && c < 0x80 ? strchr(plain, (int)c) : NULL;
	if (hit)
		snprintf(text, sizeof text, "\\%c", letter[hit - plain]);
	else if (c < 0x10000)
		snprintf(text, sizeof text, "\\u%04x", c);
	else
		snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
	return puts_to(r, s, text);
}

static mzm_status add_json_text(mzm_jrun *r, mzm_jv *s, const mzm_jv *v, bool ascii)
{
	MZM_TRY(puts_to(r, s, "\""));
	size_t from = 0, at = 0, len;
	for (; at < v->len; at += len) {
		uint32_t c = mzm_utf8_next(v->s + at, &len);
		if (c >= 0x20 && c != '"' && c != '\\' && (c < 0x7f || !ascii))
			continue;
		MZM_TRY(mzm_jv_append(r, s, v->s + from, at - from));
		MZM_TRY(add_json_char(r, s, c));
		from = at + len;
	}
	MZM_TRY(mzm_jv_append(r, s, v->s + from, at - from));
	return puts_to(r, s, "\"");
}

static mzm_status add_json_float(mzm_jrun *r, mzm_jv *s, const mzm_jv *v)
{
	if (isfinite(v->f))
		return add_number(r, s, v);
	return puts_to(r, s, isnan(v->f) ? "NaN" : v->f < 0 ? "-Infinity" : "Infinity");
}

/* A new line and the indentation of the level that the text is at; nothing where there is no indentation. */
static mzm_status add_break(mzm_jrun *r, mzm_jv *s, const mzm_jjson *how, int32_t level)
{
	if (how->indent.kind == MZM_J_ABSENT)
		return MZM_OK;
	MZM_TRY(puts_to(r, s, "\n"));
	for (int32_t i = 0; i < level; i++)
		MZM_TRY(mzm_jv_append(r, s, how->indent.s, how->indent.len));
	return MZM_OK;
}

static mzm_status add_json_key(mzm_jrun *r, mzm_jv *s, const mzm_jv *key, const mzm_jjson *how)
{
	if (key->kind == MZM_J_STR)
		return add_json_text(r, s, key, how->ascii);
	if (key->kind == MZM_J_TUPLE)
		return mzm_jrun_fail(r, MZM_EFORMAT, "tojson: %s cannot be a key", mzm_jv_kind(key));
	MZM_TRY(puts_to(r, s, "\""));
	MZM_TRY(mzm_jv_add_json(r, s, key, how));
	return puts_to(r, s, "\"");
}

static mzm_status sort_keys(mzm_jrun *r, uint32_t **out, const mzm_jdict *d)
{
	uint32_t *order = mzm_jarena_take(&r->mem, d->n + 1, sizeof *order);
	if (!order)
		return mzm_jrun_full(r);
	for (uint32_t i = 0; i < d->n; i++) {
		uint32_t at = i;
		for (; at > 0; at--) {
			int sign;
			MZM_TRY(mzm_jv_order(r, &sign, &d->keys[order[at - 1]], &d->keys[i]));
			if (sign <= 0)
				break;
			order[at] = order[at - 1];
		}
		order[at] = i;
	}
	*out = order;
	return MZM_OK;
}

/* level: of what stands between the brackets */
static mzm_status add_json_items(mzm_jrun *r, mzm_jv *s, const mzm_jv *v, const mzm_jjson *how, int32_t level)
{
	bool dict = v->kind == MZM_J_DICT;
	uint32_t n = dict ? v->dict->n : v->list->n, *order = NULL;
	if (dict && how->sort)
		MZM_TRY(sort_keys(r, &order, v->dict));
	for (uint32_t i = 0; i < n; i++) {
		uint32_t k = order ? order[i] : i;
		if (i)
			MZM_TRY(mzm_jv_append(r, s, how->item.s, how->item.len));
		MZM_TRY(add_break(r, s, how, level));
		if (dict) {
			MZM_TRY(add_json_key(r, s, &v->dict->keys[k], how));
			MZM_TRY(mzm_jv_append(r, s, how->colon.s, how->colon.len));
		}
		MZM_TRY(mzm_jv_add_json(r, s, dict ? &v->dict->values[k] : &v->list->items[k], how));
	}
	return n ? add_break(r, s, how, level - 1) : MZM_OK;
}

static mzm_status add_json_deep(mzm_jrun *r, mzm_jv *s, const mzm_jv *v, const mzm_jjson *how, int32_t level)
{
	switch (v->kind) {
	case MZM_J_NONE:
		return puts_to(r, s, "null");
	case MZM_J_BOOL:
		return puts_to(r, s, v->b ? "true" : "false");
	case MZM_J_INT:
		return add_number(r, s, v);
	case MZM_J_FLOAT:
		return add_json_float(r, s, v);
	case MZM_J_STR:
		return add_json_text(r, s, v, how->ascii);
	case MZM_J_LIST:
	case MZM_J_TUPLE:
	case MZM_J_DICT:
		MZM_TRY(puts_to(r, s, v->kind == MZM_J_DICT ? "{" : "["));
		MZM_TRY(add_json_items(r, s, v, how, level));
		return puts_to(r, s, v->kind == MZM_J_DICT ? "}" : "]");
	default:
		return mzm_jrun_fail(r, MZM_EFORMAT, "tojson: %s has no form in JSON", mzm_jv_kind(v));
	}
}

mzm_status mzm_jv_add_json(mzm_jrun *r, mzm_jv *s, const mzm_jv *v, const mzm_jjson *how)
{
	MZM_TRY(mzm_jrun_charge(r, 1));
	MZM_TRY(mzm_jrun_enter(r));
	MZM_TRY(add_json_deep(r, s, v, how, r->level - how->level));
	r->level--;
	return MZM_OK;
}
