/* tokenizer_pattern.c - finding things in text: literals, character classes, and patterns by PCRE2.
 *
 * The patterns of tokenizer.json are written for Oniguruma. Where PCRE2 reads the same letters in
 * another way (\s and U+180E, \h, \w, \u, {n,m}+, (?m)) they are rewritten; what has no equivalent is
 * refused. Patterns come from strangers, so time and memory are bounded: each search starts with a small
 * limit on matching steps and is repeated with a larger one, all of it charged to a budget that is linear
 * in the text. Compiled code counts its steps coarsely; where it takes suspiciously long the interpreter,
 * which counts more of them, takes over and finds the same matches. What neither counts (a simple loop over
 * the rest of the text, at every position) ends at a limit of processor time, some hundred times what real
 * patterns take.
 *
 * Does not decide what becomes of a match (tokenizer_norm.c, tokenizer_pre.c). */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <time.h>
#include <utf8proc.h>

#include "format/tokenizer_impl.h"

#define MAX_PATTERN    ((size_t)16 << 10)
#define FIRST_LIMIT    128u /* steps of a first attempt */
#define STEPS_PER_BYTE 512u
#define STEPS_MIN      ((uint64_t)1 << 20)
#define HEAP_KIB       65536u
#define SLOW_NS        512               /* per byte: then the interpreter */
#define STOP_NS        8192              /* per byte: then the end */
#define TIME_MIN_BYTES ((size_t)1 << 18) /* a shorter text has the time of this many bytes */

/* Rust's char::is_whitespace, Oniguruma's \s; and Oniguruma's \w. */
#define SPACES "\\t-\\r\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define WORDS  "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}"
#define HEXES  "0-9a-fA-F"

/* ---- from Oniguruma to PCRE2 ---- */

typedef struct translation {
	const char *s;
	size_t n, i;
	mzm_str out;
	bool in_class;
	size_t brace; /* in out: where the last quantifier {..} starts; SIZE_MAX: none */
	mzm_err *err;
} translation;

static mzm_status refuse(translation *t, const char *what)
{
	return mzm_fail(t->err, MZM_EUNSUPPORTED, "pattern \"%s\": %s at byte %zu is not supported",
			mzm_tok_quote(t->s, t->n).s, what, t->i);
}

/* A shorthand such as \s: its set inside a class, the class around it outside. */
static mzm_status put_set(translation *t, const char *set, bool negated)
{
	if (t->in_class && negated)
		return refuse(t, "a negated shorthand in a class");
	mzm_str_puts(&t->out, t->in_class ? "" : negated ? "[^" : "[");
	mzm_str_puts(&t->out, set);
	mzm_str_puts(&t->out, t->in_class ? "" : "]");
	t->i += 2;
	return MZM_OK;
}

static bool is_hex4(const char *s, size_t n)
{
	for (size_t i = 0; i < 4; i++)
		if (i >= n || !strchr("0123456789abcdefABCDEF", s[i]) || !s[i])
			return false;
	return true;
}

/* \p{L}, \x{2581}: the braces belong to the escape. */
static void copy_escape(translation *t)
{
	size_t n = 2;
	if (t->i + 2 < t->n && t->s[t->i + 2] == '{' && strchr("pPxo", t->s[t->i + 1])) {
		const char *end = memchr(t->s + t->i, '}', t->n - t->i);
		n = end ? (size_t)(end - (t->s + t->i)) + 1 : 2;
	}
	mzm_str_add(&t->out, t->s + t->i, n);
	t->i += n;
}

static mzm_status translate_escape(translation *t)
{
	char c = t->i + 1 < t->n ? t->s[t->i + 1] : 0;
	switch (c) {
	case 's':
	case 'S':
		return put_set(t, SPACES, c == 'S');
	case 'w':
	case 'W':
		return put_set(t, WORDS, c == 'W');
	case 'h':
	case 'H':
		return put_set(t, HEXES, c == 'H');
	case 'Q':
	case 'E':
	case 'K':
	case 'N':
	case 'g':
		return refuse(t, "this escape");
	case 0:
		return refuse(t, "a backslash without a character");
	case 'u':
		if (!is_hex4(t->s + t->i + 2, t->n - t->i - 2))
			return refuse(t, "\\u without four hexadecimal digits");
		mzm_str_printf(&t->out, "\\x{%.4s}", t->s + t->i + 2);
		t->i += 6;
		return MZM_OK;
	default:
		copy_escape(t);
		return MZM_OK;
	}
}

static mzm_status translate_in_class(translation *t)
{
	const char *s = t->s + t->i;
	size_t left = t->n - t->i;
	if (*s == '[' && left > 1 && s[1] == ':') {
		const char *end = memmem(s, left, ":]", 2);
		size_t n = end ? (size_t)(end - s) + 2 : left;
		mzm_str_add(&t->out, s, n);
		t->i += n;
		return MZM_OK;
	}
	if (*s == '[')
		return refuse(t, "a class in a class");
	if (*s == '&' && left > 1 && s[1] == '&')
		return refuse(t, "an intersection of classes");
	if (*s == ']')
		t->in_class = false;
	mzm_str_add(&t->out, s, 1);
	t->i++;
	return MZM_OK;
}

static void open_class(translation *t)
{
	size_t n = 1;
	if (t->i + n < t->n && t->s[t->i + n] == '^')
		n++;
	if (t->i + n < t->n && t->s[t->i + n] == ']')
		n++;
	mzm_str_add(&t->out, t->s + t->i, n);
	t->i += n;
	t->in_class = true;
}

/* Oniguruma's option m is what others call s: the point matches a line end. */
static mzm_status translate_group(translation *t)
{
	const char *s = t->s + t->i;
	size_t left = t->n - t->i, n = 1;
	if (left > 1 && s[1] == '*')
		return refuse(t, "(*");
	if (left > 2 && s[1] == '?') {
		n = 2;
		while (n < left && s[n] && strchr("imx-", s[n]))
			n++;
		if (n == left || (s[n] != ':' && s[n] != ')'))
			n = 2;
	}
	for (size_t i = 0; i < n; i++)
		mzm_str_add(&t->out, i >= 2 && s[i] == 'm' ? "s" : s + i, 1);
	t->i += n;
	return MZM_OK;
}

/* X{n,m}+ is (?:X{n,m})+ in Oniguruma, and possessive in PCRE2. For n = 0 and 1 that is X* and X+. */
static mzm_status translate_braced_plus(translation *t)
{
	char least = t->out.data[t->brace + 1], behind = t->out.data[t->brace + 2];
	if ((least != '0' && least != '1') || (behind != ',' && behind != '}'))
		return refuse(t, "this repeated repetition");
	t->out.len = t->brace;
	mzm_str_puts(&t->out, least == '0' ? "*" : "+");
	t->brace = SIZE_MAX;
	t->i++;
	return MZM_OK;
}

static mzm_status translate_one(translation *t)
{
	char c = t->s[t->i];
	if (c == '\\')
		return translate_escape(t);
	if (t->in_class)
		return translate_in_class(t);
	if (c == '(')
		return translate_group(t);
	if (c == '+' && t->i > 0 && t->s[t->i - 1] == '}' && t->brace != SIZE_MAX && !t->out.failed)
		return translate_braced_plus(t);
	if (c == '[') {
		open_class(t);
		return MZM_OK;
	}
	if (c == '{')
		t->brace = t->out.len;
	else if (c != '}' && c != ',' && (c < '0' || c > '9'))
		t->brace = SIZE_MAX;
	mzm_str_add(&t->out, &c, 1);
	t->i++;
	return MZM_OK;
}

static mzm_status translate(translation *t)
{
	t->brace = SIZE_MAX;
	while (t->i < t->n) {
		if (t->s[t->i] == '\\' || t->in_class)
			t->brace = SIZE_MAX;
		MZM_TRY(translate_one(t));
	}
	if (t->out.failed)
		return mzm_fail(t->err, MZM_ENOMEM, "out of memory for a pattern");
	return MZM_OK;
}

/* ---- making finders ---- */

static void *pcre_alloc(size_t n, void *user)
{
	(void)user;
	return mzm_alloc(n);
}

static void pcre_free(void *p, void *user)
{
	(void)user;
	mzm_free(p);
}

static mzm_status set_text(mzm_finder *f, const char *text, size_t len, mzm_err *err)
{
	*f = (mzm_finder){0};
	f->text = mzm_strndup(text, len);
	f->len = len;
	return f->text ? MZM_OK : mzm_fail(err, MZM_ENOMEM, "out of memory for a pattern");
}

mzm_status mzm_finder_literal(mzm_finder *out, const char *text, size_t len, mzm_err *err)
{
	MZM_TRY(set_text(out, text, len, err));
	out->kind = len ? MZM_FIND_LITERAL : MZM_FIND_NOTHING;
	return MZM_OK;
}

static mzm_status compile(mzm_finder *f, const char *pattern, size_t len, mzm_err *err)
{
	int code;
	PCRE2_SIZE at;
	mzm_status st = MZM_OK;
	pcre2_general_context *general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
	pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
	if (!context) {
		st = mzm_fail(err, MZM_ENOMEM, "out of memory for a pattern");
		goto out;
	}
	pcre2_set_parens_nest_limit(context, 64);
	f->code = pcre2_compile((PCRE2_SPTR)pattern, len,
				PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at, context);
	if (!f->code && code == PCRE2_ERROR_HEAP_FAILED) {
		st = mzm_fail(err, MZM_ENOMEM, "out of memory for a pattern");
	} else if (!f->code) {
		PCRE2_UCHAR reason[128];
		pcre2_get_error_message(code, reason, sizeof reason);
		st = mzm_fail(err, MZM_EFORMAT, "pattern \"%s\" does not compile: %s, near byte %zu",
			      mzm_tok_quote(f->text, f->len).s, (const char *)reason, (size_t)at);
	} else {
		(void)pcre2_jit_compile(f->code, PCRE2_JIT_COMPLETE); /* a wish: the interpreter does the same */
	}
out:
	pcre2_compile_context_free(context);
	pcre2_general_context_free(general);
	return st;
}

mzm_status mzm_finder_regex(mzm_finder *out, const char *pattern, size_t len, mzm_err *err)
{
	translation t = {.s = pattern, .n = len, .err = err};
	*out = (mzm_finder){0};
	if (len > MAX_PATTERN)
		return mzm_fail(err, MZM_EUNSUPPORTED, "a pattern of %zu bytes, more than %zu", len, MAX_PATTERN);
	mzm_status st;
	MZM_TRY_OUT(set_text(out, pattern, len, err));
	MZM_TRY_OUT(translate(&t));
	out->kind = MZM_FIND_REGEX;
	MZM_TRY_OUT(compile(out, t.out.data ? t.out.data : "", t.out.len, err));
out:
	mzm_str_free(&t.out);
	if (st != MZM_OK)
		mzm_finder_free(out);
	return st;
}

void mzm_finder_free(mzm_finder *f)
{
	mzm_free(f->text);
	pcre2_code_free(f->code);
	*f = (mzm_finder){0};
}

/* ---- finding ---- */

static int64_t thread_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void mzm_find_start(mzm_find *find, size_t n_bytes)
{
	int64_t now = thread_ns(), n = (int64_t)(n_bytes > TIME_MIN_BYTES ? n_bytes : TIME_MIN_BYTES);
	find->slow_ns = now + n * SLOW_NS;
	find->stop_ns = now + n * STOP_NS;
	find->interpret = false;
}

void mzm_find_begin(mzm_find *find, size_t n_bytes)
{
	find->budget = STEPS_MIN + (uint64_t)n_bytes * STEPS_PER_BYTE;
	if (!find->stop_ns)
		mzm_find_start(find, n_bytes);
}

void mzm_find_text(mzm_find *find, const char *s, size_t len)
{
	find->s = s;
	find->len = len;
	find->pos = 0;
}

void mzm_find_free(mzm_find *find)
{
	pcre2_match_data_free(find->data);
	pcre2_match_context_free(find->context);
	*find = (mzm_find){0};
}

static mzm_status make_scratch(mzm_find *find, mzm_err *err)
{
	pcre2_general_context *general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
	if (general && !find->data)
		find->data = pcre2_match_data_create(1, general);
	if (general && !find->context)
		find->context = pcre2_match_context_create(general);
	pcre2_general_context_free(general);
	if (!find->data || !find->context)
		return mzm_fail(err, MZM_ENOMEM, "out of memory for matching");
	pcre2_set_heap_limit(find->context, HEAP_KIB);
	return MZM_OK;
}

/* False when the time is over. */
static bool has_time(mzm_find *find)
{
	int64_t now = thread_ns();
	if (now > find->slow_ns)
		find->interpret = true;
	return now <= find->stop_ns;
}

/* One search, repeated with eight times the steps while they do not suffice. */
static int search(mzm_find *find, const mzm_finder *f, size_t from)
{
	uint64_t limit = FIRST_LIMIT;
	for (;;) {
		if (limit > find->budget)
			return PCRE2_ERROR_MATCHLIMIT;
		find->budget -= limit;
		pcre2_set_match_limit(find->context, limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX);
		uint32_t options = PCRE2_NO_UTF_CHECK | (find->interpret ? PCRE2_NO_JIT : 0);
		int rc = pcre2_match(f->code, (PCRE2_SPTR)find->s, find->len, from, options, find->data, find->context);
		if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !find->interpret)
			find->interpret = true;
		else if (rc != PCRE2_ERROR_MATCHLIMIT)
			return rc;
		else
			limit *= 8;
		if (!has_time(find))
			return PCRE2_ERROR_MATCHLIMIT;
	}
}

static mzm_status next_regex(mzm_find *find, const mzm_finder *f, bool *found, mzm_err *err)
{
	if (!find->data || !find->context)
		MZM_TRY(make_scratch(find, err));
	size_t from = find->pos;
	while (from < find->len) {
		bool in_time = (++find->n_calls & 63) != 0 || has_time(find);
		int rc = in_time ? search(find, f, from) : PCRE2_ERROR_MATCHLIMIT;
		if (rc == PCRE2_ERROR_NOMATCH)
			return MZM_OK;
		if (rc == PCRE2_ERROR_NOMEMORY)
			return mzm_fail(err, MZM_ENOMEM, "out of memory for matching");
		if (rc < 0)
			return mzm_fail(err, MZM_EUNSUPPORTED, "pattern \"%s\" takes too long on this text",
					mzm_tok_quote(f->text, f->len).s);
		const PCRE2_SIZE *at = pcre2_get_ovector_pointer(find->data);
		if (at[0] >= from && at[1] > at[0] && at[1] <= find->len) {
			find->match = (mzm_span){at[0], at[1]};
			find->pos = at[1];
			*found = true;
			return MZM_OK;
		}
		size_t step, empty = at[0] > from && at[0] < find->len ? at[0] : from;
		mzm_utf8_next(find->s + empty, &step); /* an empty match is none */
		from = empty + step;
	}
	return MZM_OK;
}

static bool is_wanted(mzm_finder_kind kind, uint32_t c)
{
	if (kind == MZM_FIND_SPACE)
		return mzm_is_space(c);
	if (c < 0x80) {
		if (kind == MZM_FIND_DIGIT)
			return c >= '0' && c <= '9';
		return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
		       (c >= '{' && c <= '~');
	}
	utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
	return kind == MZM_FIND_DIGIT ? category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO
				      : category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

static void next_char(mzm_find *find, const mzm_finder *f, bool *found)
{
	size_t len;
	for (size_t i = find->pos; i < find->len; i += len) {
		if (!is_wanted(f->kind, mzm_utf8_next(find->s + i, &len)))
			continue;
		find->match = (mzm_span){i, i + len};
		find->pos = i + len;
		*found = true;
		return;
	}
}

mzm_status mzm_find_next(mzm_find *find, const mzm_finder *f, bool *found, mzm_err *err)
{
	*found = false;
	switch (f->kind) {
	case MZM_FIND_NOTHING:
		break;
	case MZM_FIND_LITERAL: {
		const char *hit = memmem(find->s + find->pos, find->len - find->pos, f->text, f->len);
		if (hit) {
			find->match.start = (size_t)(hit - find->s);
			find->match.end = find->pos = find->match.start + f->len;
			*found = true;
		}
		break;
	}
	case MZM_FIND_REGEX:
		return next_regex(find, f, found, err);
	case MZM_FIND_DIGIT:
	case MZM_FIND_PUNCT:
	case MZM_FIND_SPACE:
		next_char(find, f, found);
		break;
	}
	return MZM_OK;
}
