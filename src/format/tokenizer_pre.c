/* tokenizer_pre.c - the pre-tokenizer: cuts normalised text into words, which no token crosses.
 *
 * Words are spans of one text. A step is one or more of four operations: it cuts spans (Split, Digits, ..), writing
 * the other span list; or it writes a new text with new spans (a blank in front, marks for blanks, characters for
 * bytes). Spans are never empty, except a whole text that is.
 *
 * Operations work on each span alone, so only up to the first cut is the whole text passed on at once; from there
 * on it goes in batches of some thousand words, which stay in the cache, and a long text needs no memory for all
 * its words. */
#include "format/tokenizer_impl.h"

#define BYTE_SHIFT 256u /* characters for bytes that cannot be printed start at U+0100 */
#define BATCH      4096 /* words */

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

static mzm_status push(mzm_tok_enc *enc, int to, mzm_span span)
{
	if (enc->n_spans[to] == enc->cap_spans[to])
		MZM_TRY(mzm_tok_grow((void **)&enc->spans[to], &enc->cap_spans[to], enc->n_spans[to] + 1,
				     sizeof **enc->spans, enc->err));
	enc->spans[to][enc->n_spans[to]++] = span;
	return MZM_OK;
}

static mzm_status flush_held(mzm_cutter *c)
{
	if (!c->held)
		return MZM_OK;
	c->held = false;
	return push(c->enc, c->to, c->wait);
}

static mzm_status add_piece(mzm_cutter *c, mzm_span piece, bool match)
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

/* Goes on cutting the span until there are n_max pieces or it ends; true in *ended then. */
static mzm_status cut_some(mzm_cutter *c, mzm_find *find, const mzm_step *step, size_t n_max, bool *ended)
{
	size_t len = c->span.end - c->span.start, start = c->span.start;
	while (c->from < len) {
		bool found;
		if (c->enc->n_spans[c->to] >= n_max)
			return MZM_OK;
		MZM_TRY(mzm_find_next(find, &step->find, &found, c->enc->err));
		mzm_span match = found ? find->match : (mzm_span){len, len};
		if (match.start > c->from)
			MZM_TRY(add_piece(c, (mzm_span){start + c->from, start + match.start}, step->invert));
		if (found)
			MZM_TRY(add_piece(c, (mzm_span){start + match.start, start + match.end}, !step->invert));
		c->from = match.end;
	}
	*ended = true;
	return flush_held(c);
}

static mzm_status cut_span(mzm_tok_enc *enc, const mzm_step *step, int to, mzm_span span)
{
	mzm_cutter c = {.enc = enc, .to = to, .behavior = step->behavior, .span = span};
	bool ended;
	mzm_find_text(&enc->find, enc->base + span.start, span.end - span.start);
	return cut_some(&c, &enc->find, step, SIZE_MAX, &ended);
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

/* Spans are rewritten in place, their text goes to a buffer that nobody needs. */
static mzm_str *other_text(mzm_tok_enc *enc)
{
	mzm_str *out = enc->text;
	while (out->data && (out->data == enc->base || out->data == enc->words.base))
		out++;
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
		bool wanted = run.first || i + enc->words.n_before > 0;
		if (wanted && (span->start == span->end || enc->base[span->start] != ' '))
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

/* Blanks become marks, and a mark is put in front of what does not start with one. */
static mzm_status put_marks(mzm_tok_enc *enc, const mzm_step *step, int which, mzm_run run)
{
	mzm_str *out = other_text(enc);
	const mzm_str *mark = &step->content;
	for (size_t i = 0; i < enc->n_spans[which]; i++) {
		mzm_span *span = &enc->spans[which][i];
		const char *s = enc->base + span->start, *end = enc->base + span->end;
		size_t start = out->len, len = span->end - span->start;
		bool marked = len && (*s == ' ' || (len >= mark->len && memcmp(s, mark->data, mark->len) == 0));
		bool leads = i + enc->words.n_before == 0;
		bool wanted = (run.first || !leads) &&
			      (step->scheme == MZM_PREPEND_ALWAYS ||
			       (step->scheme == MZM_PREPEND_FIRST && run.at_start && leads && span->start == 0));
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
	return set_text(enc, out);
}

/* ---- operations ---- */

static void add_op(mzm_tok_words *w, mzm_pre_op_kind kind, const mzm_step *step)
{
	w->ops[w->n_ops++] = (mzm_pre_op){kind, step};
}

static void list_ops(mzm_tok_words *w, const mzm_steps *steps)
{
	static const mzm_step blanks = {.find.kind = MZM_FIND_SPACE, .behavior = MZM_REMOVED};
	static const mzm_step marks = {.find.kind = MZM_FIND_PUNCT, .behavior = MZM_ISOLATED};
	w->n_ops = 0;
	for (int32_t i = 0; i < steps->n; i++) {
		const mzm_step *step = &steps->v[i];
		bool bytes = step->kind == MZM_PRE_BYTELEVEL, meta = step->kind == MZM_PRE_METASPACE;
		if (step->kind == MZM_PRE_BERT) { /* blanks part words and are gone; each punctuation is a word */
			add_op(w, MZM_OP_CUT, &blanks);
			add_op(w, MZM_OP_CUT, &marks);
			continue;
		}
		if (bytes && step->prefix)
			add_op(w, MZM_OP_BLANK, step);
		if (meta)
			add_op(w, MZM_OP_MARKS, step);
		if (step->kind == MZM_PRE_SPLIT || step->split)
			add_op(w, MZM_OP_CUT, step);
		if (bytes)
			add_op(w, MZM_OP_BYTES, step);
	}
}

static mzm_status apply(mzm_tok_enc *enc, const mzm_pre_op *op, int *which)
{
	switch (op->kind) {
	case MZM_OP_CUT:
		return cut(enc, op->step, which);
	case MZM_OP_BLANK:
		return add_blank(enc, *which, enc->words.run);
	case MZM_OP_MARKS:
		return put_marks(enc, op->step, *which, enc->words.run);
	case MZM_OP_BYTES:
		return map_bytes(enc, *which);
	}
	return MZM_OK;
}

mzm_status mzm_tok_pre(mzm_tok_enc *enc, const char *s, size_t len, mzm_run run)
{
	mzm_tok_words *w = &enc->words;
	int which = 0;
	list_ops(w, &enc->tok->pre);
	w->run = run;
	w->n_before = 0;
	w->ended = w->carries = false;
	w->base = NULL;
	enc->base = s;
	enc->n_spans[0] = 0;
	MZM_TRY(push(enc, 0, (mzm_span){0, len}));
	for (w->first_cut = 0; w->first_cut < w->n_ops && w->ops[w->first_cut].kind != MZM_OP_CUT; w->first_cut++)
		MZM_TRY(apply(enc, &w->ops[w->first_cut], &which));
	w->base = enc->base;
	mzm_span all = enc->spans[0][0];
	w->cutter = (mzm_cutter){.enc = enc, .span = all};
	if (w->first_cut < w->n_ops) {
		w->cutter.behavior = w->ops[w->first_cut].step->behavior;
		mzm_find_begin(&enc->outer, all.end - all.start);
		mzm_find_text(&enc->outer, w->base + all.start, all.end - all.start);
	}
	return MZM_OK;
}

/* The next words of the first cut in list 0; the last of them waits, as it may become longer. */
static mzm_status next_batch(mzm_tok_enc *enc)
{
	mzm_tok_words *w = &enc->words;
	enc->base = w->base;
	enc->n_spans[0] = 0;
	size_t n_max = (w->n_max ? w->n_max : BATCH) + w->carries;
	if (w->carries)
		MZM_TRY(push(enc, 0, w->carry));
	MZM_TRY(cut_some(&w->cutter, &enc->outer, w->ops[w->first_cut].step, n_max, &w->ended));
	w->carries = !w->ended;
	if (w->carries)
		w->carry = enc->spans[0][--enc->n_spans[0]];
	return MZM_OK;
}

mzm_status mzm_tok_pre_next(mzm_tok_enc *enc, int *which, bool *more)
{
	mzm_tok_words *w = &enc->words;
	*which = 0;
	*more = !w->ended;
	if (w->ended)
		return MZM_OK;
	if (w->first_cut == w->n_ops) { /* nothing cuts: list 0 is as it was left */
		w->ended = true;
		return MZM_OK;
	}
	MZM_TRY(next_batch(enc));
	size_t n = enc->n_spans[0];
	for (int32_t i = w->first_cut + 1; i < w->n_ops; i++)
		MZM_TRY(apply(enc, &w->ops[i], which));
	w->n_before += n;
	return MZM_OK;
}
