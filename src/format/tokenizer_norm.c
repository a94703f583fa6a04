/* tokenizer_norm.c - the normaliser: rewrites a run of valid UTF-8 before it is cut into words.
 *
 * Each step goes from one of two buffers into the other; a text that a step leaves alone is not copied.
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

/* True when the text is already in the form: ASCII; for NFC, all below the first combining mark. */
static bool is_plain(const char *s, size_t len, int32_t option)
{
	unsigned char limit = (option & (UTF8PROC_COMPOSE | UTF8PROC_COMPAT)) == UTF8PROC_COMPOSE ? 0xcc : 0x80;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] >= limit)
			return false;
	return true;
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

static mzm_status unicode_form(passage *p, const mzm_step *step)
{
	mzm_tok_enc *enc = p->enc;
	if (is_plain(p->s, p->len, step->option))
		return MZM_OK;
	MZM_TRY(decompose(enc, p->s, p->len, step->option));
	MZM_TRY(order_marks(enc));
	utf8proc_ssize_t n =
		utf8proc_normalize_utf32(enc->points, (utf8proc_ssize_t)enc->n_points, (utf8proc_option_t)step->option);
	if (n < 0)
		return mzm_fail(enc->err, MZM_EINTERNAL, "normalising: %s", utf8proc_errmsg(n));
	mzm_str *out = begin(p);
	char *to = mzm_tok_room(out, (size_t)n * 4);
	for (utf8proc_ssize_t i = 0; to && i < n; i++)
		out->len += mzm_utf8_put((uint32_t)enc->points[i], out->data + out->len);
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
		uint32_t low = c == 0x130 ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
		out->len += mzm_utf8_put(low, out->data + out->len);
		if (c == 0x130)
			out->len += mzm_utf8_put(0x307, out->data + out->len);
	}
	return finish(p, out);
}

static void strip(passage *p, bool left, bool right)
{
	size_t n;
	while (left && p->len && mzm_is_space(mzm_utf8_next(p->s, &n))) {
		p->s += n;
		p->len -= n;
	}
	while (right && p->len) {
		size_t at = mzm_utf8_back(p->s, p->len);
		if (!mzm_is_space(mzm_utf8_next(p->s + at, &n)))
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
			MZM_TRY(unicode_form(&p, step));
			break;
		case MZM_NORM_REPLACE:
			MZM_TRY(replace(&p, step));
			break;
		case MZM_NORM_LOWERCASE:
			MZM_TRY(lowercase(&p));
			break;
		case MZM_NORM_STRIP:
			strip(&p, step->left && run.first, step->right && run.last);
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
