/* tokenizer_pre.c - the pre-tokenizer: cuts normalised text into words, which no token crosses.
 *
 * Words are spans of one text. A step either cuts spans (Split, Digits, Punctuation), writing the other
 * span list, or writes a new text with new spans (ByteLevel, Metaspace) and may cut that. Spans are never
 * empty, except a whole text that is. */
#include "format/tokenizer_impl.h"

#define BYTE_SHIFT 256u /* characters for bytes that cannot be printed start at U+0100 */

/* ---- GPT-2's alphabet of bytes: printable Latin-1 stands for itself, the other 68 follow from U+0100 ---- */

static bool is_printable(unsigned b)
{
	return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
}

uint32_t mzm_byte_to_char(unsigned char byte)
{
	unsigned b = byte;
	if (is_printable(b))
		return b;
	return BYTE_SHIFT + (b <= 0x20 ? b : b <= 0xa0 ? b - 0x7f + 0x21 : 0x43);
}

int mzm_char_to_byte(uint32_t cp)
{
	if (cp < BYTE_SHIFT)
		return is_printable(cp) ? (int)cp : -1;
	uint32_t k = cp - BYTE_SHIFT;
	return k <= 0x20 ? (int)k : k <= 0x42 ? (int)(k - 0x21 + 0x7f) : k == 0x43 ? 0xad : -1;
}

/* ---- cutting ---- */

/* The pieces of one span on their way to the list: matches and what lies between, merged as asked. */
typedef struct cutter {
	mzm_tok_enc *enc;
	int to; /* list written */
	mzm_split behavior;
	bool any;        /* the span has given a piece */
	bool last_match; /* kind of the piece before */
	bool held;       /* MERGED_NEXT: a match that waits for what follows it */
	mzm_span wait;
} cutter;

static mzm_status push(mzm_tok_enc *enc, int to, mzm_span span)
{
	if (enc->n_spans[to] == enc->cap_spans[to])
		MZM_TRY(mzm_tok_grow((void **)&enc->spans[to], &enc->cap_spans[to], enc->n_spans[to] + 1,
				     sizeof **enc->spans, enc->err));
	enc->spans[to][enc->n_spans[to]++] = span;
	return MZM_OK;
}

static mzm_status flush_held(cutter *c)
{
	if (!c->held)
		return MZM_OK;
	c->held = false;
	return push(c->enc, c->to, c->wait);
}

static mzm_status add_piece(cutter *c, mzm_span piece, bool match)
{
	bool extend = false;
	if (c->behavior == MZM_REMOVED && match)
		return MZM_OK;
	if (c->behavior == MZM_CONTIGUOUS)
		extend = c->any && match == c->last_match;
	else if (c->behavior == MZM_MERGED_PREVIOUS)
		extend = c->any && match && !c->last_match;
	c->any = true;
	c->last_match = match;
	if (extend) {
		c->enc->spans[c->to][c->enc->n_spans[c->to] - 1].end = piece.end;
		return MZM_OK;
	}
	if (c->behavior == MZM_MERGED_NEXT && match) {
		MZM_TRY(flush_held(c));
		c->held = true;
		c->wait = piece;
		return MZM_OK;
	}
	if (c->held) {
		piece.start = c->wait.start;
		c->held = false;
	}
	return push(c->enc, c->to, piece);
}

static mzm_status cut_span(mzm_tok_enc *enc, const mzm_step *step, int to, mzm_span span)
{
	cutter c = {.enc = enc, .to = to, .behavior = step->behavior};
	const char *s = enc->base + span.start;
	size_t len = span.end - span.start, from = 0;
	bool found = true;
	mzm_find_text(&enc->find, s, len);
	while (found && from < len) {
		MZM_TRY(mzm_find_next(&enc->find, &step->find, &found, enc->err));
		mzm_span match = found ? enc->find.match : (mzm_span){len, len};
		if (match.start > from)
			MZM_TRY(add_piece(&c, (mzm_span){span.start + from, span.start + match.start}, step->invert));
		if (found)
			MZM_TRY(add_piece(&c, (mzm_span){span.start + match.start, span.start + match.end},
					  !step->invert));
		from = match.end;
	}
	return flush_held(&c);
}

static mzm_status cut(mzm_tok_enc *enc, const mzm_step *step, int *which)
{
	int from = *which, to = from ^ 1;
	size_t n_bytes = 0;
	for (size_t i = 0; i < enc->n_spans[from]; i++)
		n_bytes += enc->spans[from][i].end - enc->spans[from][i].start;
	mzm_find_begin(&enc->find, n_bytes);
	enc->n_spans[to] = 0;
	for (size_t i = 0; i < enc->n_spans[from]; i++)
		MZM_TRY(cut_span(enc, step, to, enc->spans[from][i]));
	*which = to;
	return MZM_OK;
}

/* ---- rewriting ---- */

/* Spans are rewritten in place, their text goes to the buffer that base does not point into. */
static mzm_str *other_text(mzm_tok_enc *enc)
{
	mzm_str *out = &enc->text[enc->text[0].len && enc->base == enc->text[0].data];
	out->len = 0;
	return out;
}

static mzm_status set_text(mzm_tok_enc *enc, mzm_str *out)
{
	if (out->failed)
		return mzm_fail(enc->err, MZM_ENOMEM, "out of memory for cutting into words");
	enc->base = out->len ? out->data : "";
	return MZM_OK;
}

static mzm_status add_blank(mzm_tok_enc *enc, int which, mzm_run run)
{
	mzm_str *out = other_text(enc);
	for (size_t i = 0; i < enc->n_spans[which]; i++) {
		mzm_span *span = &enc->spans[which][i];
		size_t start = out->len;
		if ((run.first || i > 0) && (span->start == span->end || enc->base[span->start] != ' '))
			mzm_str_puts(out, " ");
		mzm_str_add(out, enc->base + span->start, span->end - span->start);
		*span = (mzm_span){start, out->len};
	}
	return set_text(enc, out);
}

static mzm_status map_bytes(mzm_tok_enc *enc, int which)
{
	mzm_str *out = other_text(enc);
	char map[256][2];
	for (unsigned b = 0; b < 256; b++)
		mzm_utf8_put(mzm_byte_to_char((unsigned char)b), map[b]);
	for (size_t i = 0; i < enc->n_spans[which]; i++) {
		mzm_span *span = &enc->spans[which][i];
		char *to = mzm_tok_room(out, 2 * (span->end - span->start));
		size_t start = out->len;
		if (!to)
			break;
		for (size_t k = span->start; k < span->end; k++) {
			const char *c = map[(unsigned char)enc->base[k]];
			*to++ = c[0];
			if ((unsigned char)c[0] >= 0x80)
				*to++ = c[1];
		}
		out->len = (size_t)(to - out->data);
		*span = (mzm_span){start, out->len};
	}
	return set_text(enc, out);
}

static mzm_status byte_level(mzm_tok_enc *enc, const mzm_step *step, int *which, mzm_run run)
{
	if (step->prefix)
		MZM_TRY(add_blank(enc, *which, run));
	if (step->split)
		MZM_TRY(cut(enc, step, which));
	return map_bytes(enc, *which);
}

/* Blanks become marks, and a mark is put in front of what does not start with one. */
static mzm_status metaspace(mzm_tok_enc *enc, const mzm_step *step, int *which, mzm_run run)
{
	mzm_str *out = other_text(enc);
	const mzm_str *mark = &step->content;
	for (size_t i = 0; i < enc->n_spans[*which]; i++) {
		mzm_span *span = &enc->spans[*which][i];
		const char *s = enc->base + span->start, *end = enc->base + span->end;
		size_t start = out->len, len = span->end - span->start;
		bool marked = len && (*s == ' ' || (len >= mark->len && memcmp(s, mark->data, mark->len) == 0));
		bool wanted = (run.first || i > 0) &&
			      (step->scheme == MZM_PREPEND_ALWAYS ||
			       (step->scheme == MZM_PREPEND_FIRST && run.at_start && span->start == 0));
		if (wanted && !marked)
			mzm_str_add(out, mark->data, mark->len);
		while (s < end) {
			const char *blank = memchr(s, ' ', (size_t)(end - s));
			mzm_str_add(out, s, (size_t)((blank ? blank : end) - s));
			if (blank)
				mzm_str_add(out, mark->data, mark->len);
			s = blank ? blank + 1 : end;
		}
		*span = (mzm_span){start, out->len};
	}
	MZM_TRY(set_text(enc, out));
	return step->split ? cut(enc, step, which) : MZM_OK;
}

mzm_status mzm_tok_pre(mzm_tok_enc *enc, int *which, const char *s, size_t len, mzm_run run)
{
	*which = 0;
	enc->base = s;
	enc->n_spans[0] = 0;
	MZM_TRY(push(enc, 0, (mzm_span){0, len}));
	for (int32_t i = 0; i < enc->tok->pre.n; i++) {
		const mzm_step *step = &enc->tok->pre.v[i];
		if (step->kind == MZM_PRE_SPLIT)
			MZM_TRY(cut(enc, step, which));
		else if (step->kind == MZM_PRE_BYTELEVEL)
			MZM_TRY(byte_level(enc, step, which, run));
		else
			MZM_TRY(metaspace(enc, step, which, run));
	}
	return MZM_OK;
}
