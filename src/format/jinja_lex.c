/* jinja_lex.c - the tokens of a template.
 *
 * Outside of tags there is text, given out with the white space already taken from it: by a - in the tag behind or in
 * front of it, by lstrip_blocks (blanks between the start of a line and a block or comment) and trim_blocks (one new
 * line behind them). Comments and raw blocks end here. Tokens are made as they are asked for: none are kept. */
#include "format/jinja_impl.h"

#include <errno.h>
#include <stdlib.h>

#include "format/tokenizer_utf8.h"

static mzm_status fail_at(mzm_jlex *lex, mzm_status code, const char *what)
{
	return mzm_fail(lex->err, code, "line %d: %s", lex->line, what);
}

/* ---- white space ---- */

static bool is_space(uint32_t c)
{
	return mzm_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

size_t mzm_jlex_spaces(const char *s, size_t n)
{
	size_t at = 0, len;
	while (at < n && is_space(mzm_utf8_next(s + at, &len)))
		at += len;
	return at;
}

size_t mzm_jlex_spaces_behind(const char *s, size_t n)
{
	size_t end = n, len;
	while (end > 0) {
		size_t start = mzm_utf8_back(s, end);
		if (!is_space(mzm_utf8_next(s + start, &len)))
			break;
		end = start;
	}
	return n - end;
}

/* Moves on, counting lines. */
static void skip_to(mzm_jlex *lex, size_t at)
{
	const char *from = lex->s + lex->at, *to = lex->s + at;
	while (from < to && (from = memchr(from, '\n', (size_t)(to - from)))) {
		lex->line++;
		from++;
	}
	lex->at = at;
}

static bool at_text(const mzm_jlex *lex, size_t at, const char *what)
{
	size_t n = strlen(what);
	return n <= lex->n - at && memcmp(lex->s + at, what, n) == 0;
}

/* Behind the end of a tag: all white space after a -, one new line after a block or comment without a sign. */
static void skip_behind(mzm_jlex *lex, size_t at, char sign, bool trims)
{
	if (sign == '-')
		at += mzm_jlex_spaces(lex->s + at, lex->n - at);
	else if (sign != '+' && trims && at < lex->n && lex->s[at] == '\n')
		at++;
	skip_to(lex, at);
	lex->line_start = lex->s[at - 1] == '\n';
}

/* ---- text ---- */

/* Where the next tag begins, from at; n when there is none. */
static size_t find_tag(const mzm_jlex *lex, size_t at)
{
	while (at < lex->n) {
		const char *brace = memchr(lex->s + at, '{', lex->n - at);
		if (!brace)
			break;
		at = (size_t)(brace - lex->s);
		if (at + 1 < lex->n && strchr("{%#", brace[1]) && brace[1])
			return at;
		at++;
	}
	return lex->n;
}

/* How much of the text s[from..tag) stays when the tag behind it begins with this sign. */
static size_t text_end(const mzm_jlex *lex, size_t from, size_t tag, char kind, char sign)
{
	size_t n = tag - from;
	if (sign == '-')
		return tag - mzm_jlex_spaces_behind(lex->s + from, n);
	if (sign == '+' || kind == '{')
		return tag;
	const char *line = n ? memrchr(lex->s + from, '\n', n) : NULL;
	size_t start = line ? (size_t)(line - lex->s) + 1 : from;
	if (!line && !lex->line_start)
		return tag;
	return mzm_jlex_spaces(lex->s + start, tag - start) == tag - start ? start : tag;
}

static char sign_at(const mzm_jlex *lex, size_t at)
{
	return at < lex->n && (lex->s[at] == '-' || lex->s[at] == '+') ? lex->s[at] : 0;
}

/* Is there, from at on, the word and then the end of a block? Gives the place behind it, and the sign before it. */
static bool at_word_tag(const mzm_jlex *lex, size_t at, const char *word, size_t *behind, char *sign)
{
	at += mzm_jlex_spaces(lex->s + at, lex->n - at);
	if (!at_text(lex, at, word))
		return false;
	at += strlen(word);
	at += mzm_jlex_spaces(lex->s + at, lex->n - at);
	*sign = sign_at(lex, at);
	at += *sign != 0;
	*behind = at + 2;
	return at_text(lex, at, "%}");
}

static void give_text(mzm_jlex *lex, mzm_jtoken *out, size_t end)
{
	*out = (mzm_jtoken){.kind = MZM_JT_TEXT, .line = lex->line};
	out->value = mzm_jv_str(lex->s + lex->at, end - lex->at);
}

/* {# ... #}; lex->at is where it begins. */
static mzm_status skip_comment(mzm_jlex *lex)
{
	const char *end = memmem(lex->s + lex->at + 2, lex->n - lex->at - 2, "#}", 2);
	if (!end)
		return fail_at(lex, MZM_EFORMAT, "the comment does not end");
	size_t at = (size_t)(end - lex->s);
	char sign = at > lex->at + 2 && (end[-1] == '-' || end[-1] == '+') ? end[-1] : 0;
	skip_behind(lex, at + 2, sign, true);
	return MZM_OK;
}

/* {% raw %}: what stands up to {% endraw %} is text. lex->at is behind the tag. */
static mzm_status raw_text(mzm_jlex *lex, mzm_jtoken *out)
{
	for (size_t tag = lex->at; tag < lex->n; tag++) {
		const char *hit = memmem(lex->s + tag, lex->n - tag, "{%", 2);
		if (!hit)
			break;
		tag = (size_t)(hit - lex->s);
		char first = sign_at(lex, tag + 2), last;
		size_t behind;
		if (!at_word_tag(lex, tag + 2 + (first != 0), "endraw", &behind, &last))
			continue;
		give_text(lex, out, text_end(lex, lex->at, tag, '%', first));
		skip_behind(lex, behind, last, true);
		return MZM_OK;
	}
	return fail_at(lex, MZM_EFORMAT, "the raw block does not end");
}

/* At a tag, its text given out already. Comments give no token: *out is then an empty text. */
static mzm_status open_tag(mzm_jlex *lex, mzm_jtoken *out)
{
	char kind = lex->s[lex->at + 1], sign = sign_at(lex, lex->at + 2), last;
	size_t behind;
	*out = (mzm_jtoken){.kind = MZM_JT_TEXT, .line = lex->line};
	out->value = mzm_jv_str("", 0);
	lex->line_start = false;
	if (kind == '#')
		return skip_comment(lex);
	if (kind == '%' && at_word_tag(lex, lex->at + 2 + (sign != 0), "raw", &behind, &last) && last != '+') {
		skip_behind(lex, behind, last, false);
		return raw_text(lex, out);
	}
	out->kind = lex->open = kind == '%' ? MZM_JT_BLOCK : MZM_JT_PRINT;
	skip_to(lex, lex->at + 2 + (sign != 0));
	return MZM_OK;
}

/* Text up to the next tag, or that tag. */
static mzm_status next_outside(mzm_jlex *lex, mzm_jtoken *out)
{
	do {
		if (lex->pending) {
			lex->pending = false;
			MZM_TRY(open_tag(lex, out));
		} else if (lex->at == lex->n) {
			*out = (mzm_jtoken){.kind = MZM_JT_END, .line = lex->line};
		} else {
			size_t tag = find_tag(lex, lex->at), end = tag;
			if (tag < lex->n)
				end = text_end(lex, lex->at, tag, lex->s[tag + 1], sign_at(lex, tag + 2));
			give_text(lex, out, end);
			skip_to(lex, tag);
			lex->pending = tag < lex->n;
		}
	} while (out->kind == MZM_JT_TEXT && !out->value.len);
	return MZM_OK;
}

/* ---- inside of tags ---- */

static bool is_name_start(uint32_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static size_t digits(const mzm_jlex *lex, size_t at)
{
	size_t from = at;
	while (at < lex->n && (is_digit(lex->s[at]) ||
			       (lex->s[at] == '_' && at > from && at + 1 < lex->n && is_digit(lex->s[at + 1]))))
		at++;
	return at;
}

/* 1, 1.5, 1e5, 1.5e-5, 1_000. What Python calls an old octal (07) is refused, as are 0x.., 0o.. and 0b... */
static mzm_status number(mzm_jlex *lex, mzm_jtoken *out)
{
	size_t from = lex->at, end = digits(lex, from), more = end;
	char text[64];
	bool real = false;
	if (more + 1 < lex->n && lex->s[more] == '.' && is_digit(lex->s[more + 1])) {
		end = more = digits(lex, more + 1);
		real = true;
	}
	if (more < lex->n && (lex->s[more] | 0x20) == 'e') {
		more++;
		more += sign_at(lex, more) != 0;
		if (more < lex->n && is_digit(lex->s[more])) {
			end = digits(lex, more);
			real = true;
		}
	}
	bool old = !real && lex->s[from] == '0' && end > from + 1;
	size_t n = 0;
	for (size_t i = from; i < end && n < sizeof text - 1; i++)
		if (lex->s[i] != '_')
			text[n++] = lex->s[i];
	text[n] = 0;
	errno = 0;
	out->kind = MZM_JT_CONST;
	out->value = real ? mzm_jv_float(strtod(text, NULL)) : mzm_jv_int(strtoll(text, NULL, 10));
	if (old || end - from >= sizeof text || (!real && errno == ERANGE) ||
	    (end < lex->n && is_name_start((unsigned char)lex->s[end])))
		return fail_at(lex, MZM_EUNSUPPORTED, "this number is not supported");
	skip_to(lex, end);
	return MZM_OK;
}

static int hex_value(const char *s, size_t n, uint32_t *value)
{
	*value = 0;
	for (size_t i = 0; i < n; i++) {
		const char *set = "0123456789abcdef", sign = is_digit(s[i]) ? s[i] : (char)(s[i] | 0x20);
		const char *hit = s[i] ? strchr(set, sign) : NULL;
		if (!hit)
			return -1;
		*value = *value << 4 | (uint32_t)(hit - set);
	}
	return 0;
}

/* The escape s[0..n) behind a backslash: bytes it takes, and what it stands for; 0: it stands for itself, with its
 * backslash; -1: it is broken. */
static int escape(const char *s, size_t n, char out[4], size_t *len)
{
	static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
	const char *hit = s[0] ? strchr(from, s[0]) : NULL;
	uint32_t c = 0;
	*len = 0;
	if (hit) {
		out[(*len)++] = to[hit - from];
		return 1;
	}
	if (s[0] == '\n')
		return 1;
	if (s[0] >= '0' && s[0] <= '7') {
		int used = 0;
		while (used < 3 && (size_t)used < n && s[used] >= '0' && s[used] <= '7')
			c = c * 8 + (uint32_t)(s[used++] - '0');
		*len = mzm_utf8_put(c, out);
		return used;
	}
	size_t wide = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : s[0] == 'U' ? 8 : 0;
	if (s[0] == 'N')
		return -1;
	if (!wide)
		return 0;
	if (n < 1 + wide || hex_value(s + 1, wide, &c) != 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return -1;
	*len = mzm_utf8_put(c, out);
	return (int)wide + 1;
}

/* s[0..n): what stands between the quotes. */
static mzm_status unescape(mzm_jlex *lex, mzm_jv *out, const char *s, size_t n)
{
	*out = mzm_jv_str(s, n);
	if (!n || !memchr(s, '\\', n))
		return MZM_OK;
	char *text = mzm_jarena_text(lex->mem, n);
	if (!text)
		return fail_at(lex, lex->mem->over ? MZM_EFORMAT : MZM_ENOMEM, "out of memory");
	size_t len = 0, n_char;
	for (size_t i = 0; i < n; i++) {
		char put[4];
		int used = 0;
		if (s[i] == '\\') {
			used = escape(s + i + 1, n - i - 1, put, &n_char);
			if (used < 0)
				return fail_at(lex, MZM_EUNSUPPORTED, "an escape in this string is not supported");
		}
		if (!used) {
			text[len++] = s[i];
			continue;
		}
		memcpy(text + len, put, n_char);
		len += n_char;
		i += (size_t)used;
	}
	*out = mzm_jv_str(text, len);
	return MZM_OK;
}

static mzm_status string(mzm_jlex *lex, mzm_jtoken *out)
{
	char quote = lex->s[lex->at];
	size_t end = lex->at + 1;
	while (end < lex->n && lex->s[end] != quote)
		end += lex->s[end] == '\\' ? 2 : 1;
	if (end >= lex->n)
		return fail_at(lex, MZM_EFORMAT, "the string does not end");
	out->kind = MZM_JT_CONST;
	MZM_TRY(unescape(lex, &out->value, lex->s + lex->at + 1, end - lex->at - 1));
	skip_to(lex, end + 1);
	return MZM_OK;
}

static mzm_status name(mzm_jlex *lex, mzm_jtoken *out)
{
	size_t end = lex->at;
	while (end < lex->n && (is_name_start((unsigned char)lex->s[end]) || is_digit(lex->s[end])))
		end++;
	if (end - lex->at > MZM_J_MAX_NAME)
		return fail_at(lex, MZM_EUNSUPPORTED, "a name this long is not supported");
	out->kind = MZM_JT_NAME;
	out->value = mzm_jv_str(lex->s + lex->at, end - lex->at);
	lex->at = end;
	return MZM_OK;
}

/* Brackets must match; the end of a tag counts only outside of them. */
static mzm_status bracket(mzm_jlex *lex, char c)
{
	static const char opening[] = "([{", closing[] = ")]}";
	const char *hit = strchr(opening, c);
	if (hit) {
		if (lex->n_brackets == sizeof lex->brackets)
			return fail_at(lex, MZM_EFORMAT, "brackets are nested too deeply");
		lex->brackets[lex->n_brackets++] = closing[hit - opening];
	} else if (strchr(closing, c)) {
		if (!lex->n_brackets || lex->brackets[--lex->n_brackets] != c)
			return fail_at(lex, MZM_EFORMAT, "a bracket closes that was not opened");
	}
	return MZM_OK;
}

static mzm_status operator(mzm_jlex *lex, mzm_jtoken *out)
{
	static const char pairs[][3] = {"==", "!=", ">=", "<=", "**", "//"};
	static const char ops[] = {MZM_JOP_EQ, MZM_JOP_NE, MZM_JOP_GE, MZM_JOP_LE, MZM_JOP_POW, MZM_JOP_FLOOR};
	char c = lex->s[lex->at];
	out->kind = MZM_JT_OP;
	out->op = c;
	for (size_t i = 0; i < sizeof ops; i++) {
		if (at_text(lex, lex->at, pairs[i])) {
			out->op = ops[i];
			lex->at += 2;
			return MZM_OK;
		}
	}
	if (!c || !strchr("+-*/%~[](){}><=.:|,;", c))
		return fail_at(lex, MZM_EFORMAT, "unexpected character in a tag");
	MZM_TRY(bracket(lex, c));
	lex->at++;
	return MZM_OK;
}

/* The end of the open tag, if it is here. */
static bool close_tag(mzm_jlex *lex, mzm_jtoken *out)
{
	bool block = lex->open == MZM_JT_BLOCK;
	char sign = sign_at(lex, lex->at);
	if (lex->n_brackets || (sign == '+' && !block) || !at_text(lex, lex->at + (sign != 0), block ? "%}" : "}}"))
		return false;
	out->kind = MZM_JT_CLOSE;
	skip_behind(lex, lex->at + 2 + (sign != 0), sign, block);
	lex->open = MZM_JT_TEXT;
	return true;
}

mzm_status mzm_jlex_next(mzm_jlex *lex, mzm_jtoken *out)
{
	if (lex->open == MZM_JT_TEXT)
		return next_outside(lex, out);
	skip_to(lex, lex->at + mzm_jlex_spaces(lex->s + lex->at, lex->n - lex->at));
	*out = (mzm_jtoken){.line = lex->line};
	if (lex->at == lex->n)
		return fail_at(lex, MZM_EFORMAT, "the template ends inside of a tag");
	if (close_tag(lex, out))
		return MZM_OK;
	char c = lex->s[lex->at];
	if (c == '\'' || c == '"')
		return string(lex, out);
	if (is_digit(c))
		return number(lex, out);
	if (is_name_start((unsigned char)c))
		return name(lex, out);
	return operator(lex, out);
}
