/* tokenizer_norm.c - the normaliser: rewrites a run of valid UTF-8 before it is cut into words.
 *
 * Each step goes from one of two buffers into the other; a text that a step leaves alone is not copied.
 * SentencePiece's tables are elsewhere (tokenizer_charsmap.c).
 * Unicode forms decompose and compose by utf8proc; ordering the combining marks is done here, because
 * utf8proc does it by exchanges, quadratic in the length of a run of marks, and texts come from strangers.
 * How much all steps of one call may write is bounded (MZM_TOK_GROWTH). */
#include <utf8proc.h>

#include "format/tokenizer_impl.h"

/* The text between two steps. */
typedef struct passage {
	mzm_tok_enc *enc;
	const char *s;
	size_t len;
	int free_buf; /* enc->norm[free_buf] does not hold s */
} passage;

static mzm_str *begin(passage *p)
{
	mzm_str *out = &p->enc->norm[p->free_buf];
	out->len = 0;
	return out;
}

/* The text is now what the step has written. */
static mzm_status finish(passage *p, mzm_str *out)
{
	if (out->failed)
		return mzm_fail(p->enc->err, MZM_ENOMEM, "out of memory for normalising");
	if (out->len > p->enc->norm_left)
		return mzm_fail(p->enc->err, MZM_EUNSUPPORTED, "the normalizer grows this text too much");
	p->enc->norm_left -= out->len;
	p->s = out->len ? out->data : "";
	p->len = out->len;
	p->free_buf ^= 1;
	return MZM_OK;
}

/* ---- Unicode forms ---- */

/* How much of s is in the form already, as ASCII is; to NFC, all below the first combining mark. */
static size_t plain_bytes(const char *s, size_t len, int32_t option)
{
	unsigned char limit = (option & (UTF8PROC_COMPOSE | UTF8PROC_COMPAT)) == UTF8PROC_COMPOSE ? 0xcc : 0x80;
	size_t i = 0;
	for (uint64_t eight; i + 8 <= len && (memcpy(&eight, s + i, 8), !(eight & 0x8080808080808080u)); i += 8)
		;
	while (i < len && (unsigned char)s[i] < limit)
		i++;
	return i;
}

static mzm_status decompose(mzm_tok_enc *enc, const char *s, size_t len, int32_t option)
{
	size_t n;
	int boundary = 0;
	enc->n_points = 0;
	for (size_t i = 0; i < len; i += n) {
		uint32_t c = mzm_utf8_next(s + i, &n);
		if (enc->n_points + 32 > enc->cap_points)
			MZM_TRY(mzm_tok_grow((void **)&enc->points, &enc->cap_points, enc->n_points + 32,
					     sizeof *enc->points, enc->err));
		int32_t *to = enc->points + enc->n_points;
		utf8proc_ssize_t got =
			utf8proc_decompose_char((utf8proc_int32_t)c, to, 32, (utf8proc_option_t)option, &boundary);
		if (got < 0 || got > 32)
			return mzm_fail(enc->err, MZM_EINTERNAL, "U+%04X does not decompose", c);
		enc->n_points += (size_t)got;
		if (enc->n_points > enc->norm_left)
			return mzm_fail(enc->err, MZM_EUNSUPPORTED, "the normalizer grows this text too much");
	}
	return MZM_OK;
}

static unsigned mark_class(int32_t c)
{
	return c < 0x300 ? 0 : (unsigned)utf8proc_get_property(c)->combining_class;
}

/* Stable order of a run of marks by class: by insertion when short, else by counting. */
static mzm_status order_run(mzm_tok_enc *enc, int32_t *run, size_t n)
{
	if (n <= 16) {
		for (size_t i = 1; i < n; i++) {
			int32_t c = run[i];
			unsigned class = mark_class(c);
			size_t j = i;
			for (; j > 0 && mark_class(run[j - 1]) > class; j--)
				run[j] = run[j - 1];
			run[j] = c;
		}
		return MZM_OK;
	}
	size_t at[257] = {0};
	if (n > enc->cap_marks)
		MZM_TRY(mzm_tok_grow((void **)&enc->marks, &enc->cap_marks, n, sizeof *enc->marks, enc->err));
	for (size_t i = 0; i < n; i++)
		at[(mark_class(run[i]) & 255) + 1]++;
	for (int k = 0; k < 256; k++)
		at[k + 1] += at[k];
	for (size_t i = 0; i < n; i++)
		enc->marks[at[mark_class(run[i]) & 255]++] = run[i];
	memcpy(run, enc->marks, n * sizeof *run);
	return MZM_OK;
}

static mzm_status order_marks(mzm_tok_enc *enc)
{
	for (size_t i = 0; i < enc->n_points;) {
		size_t start = i;
		while (i < enc->n_points && mark_class(enc->points[i]) != 0)
			i++;
		if (i - start > 1)
			MZM_TRY(order_run(enc, enc->points + start, i - start));
		i += i == start;
	}
	return MZM_OK;
}

/* Appends s in the form. */
static mzm_status add_form(mzm_str *out, mzm_tok_enc *enc, const char *s, size_t len, int32_t option)
{
	MZM_TRY(decompose(enc, s, len, option));
	MZM_TRY(order_marks(enc));
	utf8proc_ssize_t n =
		utf8proc_normalize_utf32(enc->points, (utf8proc_ssize_t)enc->n_points, (utf8proc_option_t)option);
	if (n < 0)
		return mzm_fail(enc->err, MZM_EINTERNAL, "normalising: %s", utf8proc_errmsg(n));
	if (mzm_tok_room(out, (size_t)n * 4))
		for (utf8proc_ssize_t i = 0; i < n; i++)
			out->len += mzm_utf8_put((uint32_t)enc->points[i], out->data + out->len);
	return MZM_OK;
}

/* Only what is not plain is taken apart, with the character before it; nothing reaches across an ASCII character that
 * follows. */
static mzm_status unicode_form(passage *p, int32_t option)
{
	const char *s = p->s;
	size_t len = p->len, plain = plain_bytes(s, len, option), stop;
	if (plain == len)
		return MZM_OK;
	mzm_str *out = begin(p);
	for (size_t i = 0; i < len; i = stop) {
		size_t odd = i + (i ? plain_bytes(s + i, len - i, option) : plain);
		size_t keep = odd > i && odd < len ? mzm_utf8_back(s, odd) : odd;
		for (stop = odd; stop < len && (unsigned char)s[stop] >= 0x80; stop++)
			;
		mzm_str_add(out, s + i, keep - i);
		if (odd < len)
			MZM_TRY(add_form(out, p->enc, s + keep, stop - keep, option));
	}
	return finish(p, out);
}

/* ---- the other steps ---- */

mzm_status mzm_tok_replace(mzm_str *out, mzm_find *find, const mzm_step *step, const char *s, size_t len, mzm_err *err)
{
	bool found;
	size_t from = 0;
	mzm_find_begin(find, len);
	mzm_find_text(find, s, len);
	for (;;) {
		MZM_TRY(mzm_find_next(find, &step->find, &found, err));
		size_t to = found ? find->match.start : len;
		mzm_str_add(out, s + from, to - from);
		if (!found)
			return MZM_OK;
		mzm_str_add(out, step->content.data, step->content.len);
		from = find->match.end;
		/* a step that makes much of little is found out before it fills the memory */
		if (out->len / MZM_TOK_GROWTH > len + MZM_TOK_GROWTH_MIN)
			return mzm_fail(err, MZM_EUNSUPPORTED, "Replace grows this text too much");
	}
}

static mzm_status replace(passage *p, const mzm_step *step)
{
	mzm_str *out = begin(p);
	MZM_TRY(mzm_tok_replace(out, &p->enc->find, step, p->s, p->len, p->enc->err));
	return finish(p, out);
}

static mzm_status prepend(passage *p, const mzm_step *step)
{
	mzm_str *out = begin(p);
	mzm_str_add(out, step->content.data, step->content.len);
	mzm_str_add(out, p->s, p->len);
	return finish(p, out);
}

/* Character by character as in Rust: the one that becomes two is U+0130. */
static mzm_status lowercase(passage *p)
{
	mzm_str *out = begin(p);
	size_t n;
	char *room = mzm_tok_room(out, p->len * 3);
	for (size_t i = 0; room && i < p->len; i += n) {
		uint32_t c = mzm_utf8_next(p->s + i, &n);
		if (c < 0x80) {
			out->data[out->len++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
			continue;
		}
		uint32_t low = c == 0x130 ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
		out->len += mzm_utf8_put(low, out->data + out->len);
		if (c == 0x130)
			out->len += mzm_utf8_put(0x307, out->data + out->len);
	}
	return finish(p, out);
}

static bool is_control(utf8proc_category_t k)
{
	return k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CN ||
	       k == UTF8PROC_CATEGORY_CO || k == UTF8PROC_CATEGORY_CS;
}

/* What BERT calls Chinese characters. */
static bool is_han(uint32_t c)
{
	return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
	       (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
	       (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

/* What becomes of a character when text is cleaned: itself, a blank, or nothing (0). */
static uint32_t clean(uint32_t c)
{
	if (c >= 0x20 && c < 0x7f)
		return c;
	if (mzm_is_space(c))
		return c == 0x0b || c == 0x0c || c == 0x85 ? 0 : ' '; /* of the controls only \t \n \r are blanks */
	return c == 0xfffd || is_control(utf8proc_category((utf8proc_int32_t)c)) ? 0 : c;
}

/* clean_text and handle_chinese_chars in one go. */
static mzm_status clean_and_spread(passage *p, const mzm_step *step)
{
	mzm_str *out = begin(p);
	size_t n;
	char *to = mzm_tok_room(out, p->len * 2); /* a character of three bytes gets two blanks */
	for (size_t i = 0; to && i < p->len; i += n) {
		uint32_t c = mzm_utf8_next(p->s + i, &n);
		bool han = c >= 0x3400 && step->spread && is_han(c);
		if (step->clean && !(c = clean(c)))
			continue;
		if (han)
			*to++ = ' ';
		to += mzm_utf8_put(c, to);
		if (han)
			*to++ = ' ';
	}
	out->len = to ? (size_t)(to - out->data) : 0;
	return finish(p, out);
}

static bool is_mark(uint32_t c, bool all)
{
	utf8proc_category_t k = c < 0x300 ? UTF8PROC_CATEGORY_LU : utf8proc_category((utf8proc_int32_t)c);
	return k == UTF8PROC_CATEGORY_MN || (all && (k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME));
}

/* Removes marks: all, or those that take no room of their own. */
static mzm_status remove_marks(passage *p, bool all)
{
	size_t n;
	if (plain_bytes(p->s, p->len, UTF8PROC_COMPOSE) == p->len)
		return MZM_OK;
	mzm_str *out = begin(p);
	char *to = mzm_tok_room(out, p->len);
	for (size_t i = 0; to && i < p->len; i += n) {
		if (is_mark(mzm_utf8_next(p->s + i, &n), all))
			continue;
		memcpy(to, p->s + i, n);
		to += n;
	}
	out->len = to ? (size_t)(to - out->data) : 0;
	return finish(p, out);
}

static mzm_status bert(passage *p, const mzm_step *step)
{
	if (step->clean || step->spread)
		MZM_TRY(clean_and_spread(p, step));
	if (step->strip) {
		MZM_TRY(unicode_form(p, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE));
		MZM_TRY(remove_marks(p, false));
	}
	return step->lower ? lowercase(p) : MZM_OK;
}

static mzm_status charsmap(passage *p, const mzm_step *step)
{
	mzm_str *out = begin(p);
	MZM_TRY(mzm_charsmap_apply(out, step->map, p->s, p->len, p->enc->norm_left, p->enc->err));
	return finish(p, out);
}

/* only: the one character that goes; empty: all blanks do. */
static bool goes(const mzm_str *only, uint32_t c)
{
	size_t n;
	return only->len ? c == mzm_utf8_next(only->data, &n) : mzm_is_space(c);
}

static void strip(passage *p, const mzm_str *only, bool left, bool right)
{
	size_t n;
	while (left && p->len && goes(only, mzm_utf8_next(p->s, &n))) {
		p->s += n;
		p->len -= n;
	}
	while (right && p->len) {
		size_t at = mzm_utf8_back(p->s, p->len);
		if (!goes(only, mzm_utf8_next(p->s + at, &n)))
			break;
		p->len = at;
	}
}

mzm_status mzm_tok_normalize(mzm_tok_enc *enc, const char **s, size_t *len, mzm_run run)
{
	passage p = {.enc = enc, .s = *s, .len = *len};
	for (int32_t i = 0; i < enc->tok->norm.n; i++) {
		const mzm_step *step = &enc->tok->norm.v[i];
		switch (step->kind) {
		case MZM_NORM_UNICODE:
			MZM_TRY(unicode_form(&p, step->option));
			break;
		case MZM_NORM_ACCENTS:
			MZM_TRY(remove_marks(&p, true));
			break;
		case MZM_NORM_BERT:
			MZM_TRY(bert(&p, step));
			break;
		case MZM_NORM_CHARSMAP:
			MZM_TRY(charsmap(&p, step));
			break;
		case MZM_NORM_REPLACE:
			MZM_TRY(replace(&p, step));
			break;
		case MZM_NORM_LOWERCASE:
			MZM_TRY(lowercase(&p));
			break;
		case MZM_NORM_STRIP:
			strip(&p, &step->content, step->left && run.first, step->right && run.last);
			break;
		case MZM_NORM_PREPEND:
			if (run.first && (p.len || !run.last))
				MZM_TRY(prepend(&p, step));
			break;
		default:
			return mzm_fail(enc->err, MZM_EINTERNAL, "step %d is no normalizer", (int)step->kind);
		}
	}
	*s = p.s;
	*len = p.len;
	return MZM_OK;
}
