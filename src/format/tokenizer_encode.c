/* tokenizer_encode.c - drives a text through the stages: added tokens, normaliser, pre-tokenizer, model.
 *
 * Added tokens are looked for twice, as in the reference: those marked "normalized": false in the raw
 * text, the others in the normalised text between them. Invalid UTF-8 is neither normalised nor matched
 * against patterns; it goes to the model byte by byte, so that byte-level and byte-fallback vocabularies
 * give back any bytes. What a step puts at the start of a text (a blank, a mark) it puts once, in front of
 * the first run, even if the text starts with an invalid byte. */
#include "format/tokenizer_impl.h"

static mzm_status encode_words(mzm_tok_enc *enc, const char *s, size_t len, mzm_run run)
{
	int which;
	bool more;
	MZM_TRY(mzm_tok_pre(enc, s, len, run));
	for (;;) {
		MZM_TRY(mzm_tok_pre_next(enc, &which, &more));
		if (!more)
			return MZM_OK;
		for (size_t i = 0; i < enc->n_spans[which]; i++) {
			mzm_span span = enc->spans[which][i];
			size_t n = span.end - span.start;
			if (n)
				MZM_TRY(enc->tok->model->encode_word(enc, enc->base + span.start, n));
		}
	}
}

/* A run of valid text: normalised, then cut at the added tokens that are looked for in normalised text. */
static mzm_status encode_run(mzm_tok_enc *enc, const char *s, size_t len, mzm_run run)
{
	const mzm_added_set *added = &enc->tok->added[1];
	size_t pos = 0;
	MZM_TRY(mzm_tok_normalize(enc, &s, &len, run));
	do {
		mzm_added_hit hit = mzm_added_next(added, s, len, pos, enc->parse_special);
		mzm_run part = {.first = run.first || pos > 0, .last = run.last, .at_start = run.at_start && pos == 0};
		if (hit.span.start > pos || (!len && run.first && !run.last))
			MZM_TRY(encode_words(enc, s + pos, hit.span.start - pos, part));
		if (hit.id >= 0)
			MZM_TRY(mzm_tok_emit(enc, hit.id));
		pos = hit.span.end;
	} while (pos < len);
	return MZM_OK;
}

static size_t invalid_bytes(const char *s, size_t len)
{
	size_t n = 0, used;
	while (n < len && mzm_utf8_scan(s + n, len - n, &used) != MZM_UTF8_WHOLE)
		n++;
	return n;
}

/* Raw text between added tokens, len >= 1: valid runs and invalid bytes in turn. */
static mzm_status encode_segment(mzm_tok_enc *enc, const char *s, size_t len, bool at_start)
{
	mzm_run run = {.first = true, .at_start = at_start};
	for (size_t pos = 0; pos < len; run.first = run.at_start = false) {
		size_t valid = mzm_utf8_valid(s + pos, len - pos);
		size_t bad = invalid_bytes(s + pos + valid, len - pos - valid);
		run.last = pos + valid + bad == len && bad == 0;
		if (valid || run.first)
			MZM_TRY(encode_run(enc, s + pos, valid, run));
		if (bad)
			MZM_TRY(enc->tok->model->encode_bytes(enc, s + pos + valid, bad));
		pos += valid + bad;
	}
	return MZM_OK;
}

mzm_status mzm_tok_encode(mzm_tok_enc *enc, const char *text, size_t len)
{
	const mzm_added_set *added = &enc->tok->added[0];
	for (size_t pos = 0; pos < len;) {
		mzm_added_hit hit = mzm_added_next(added, text, len, pos, enc->parse_special);
		if (hit.span.start > pos)
			MZM_TRY(encode_segment(enc, text + pos, hit.span.start - pos, pos == 0));
		if (hit.id >= 0)
			MZM_TRY(mzm_tok_emit(enc, hit.id));
		pos = hit.span.end;
	}
	return MZM_OK;
}

void mzm_tok_enc_free(mzm_tok_enc *enc)
{
	mzm_find_free(&enc->find);
	mzm_find_free(&enc->outer);
	for (int i = 0; i < 2; i++) {
		mzm_str_free(&enc->norm[i]);
		mzm_free(enc->spans[i]);
	}
	for (int i = 0; i < 3; i++)
		mzm_str_free(&enc->text[i]);
	mzm_free(enc->ids);
	mzm_free(enc->points);
	mzm_free(enc->marks);
	mzm_free(enc->symbols);
	mzm_free(enc->queue.rest.v);
	mzm_free(enc->queue.ranks.v);
	mzm_free(enc->queue.ends);
	mzm_free(enc->queue.nodes);
	mzm_free(enc->back);
	mzm_free(enc->best);
	*enc = (mzm_tok_enc){0};
}
