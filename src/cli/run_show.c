/* run_show.c - generated text with the origin of each piece; see run.h.
 *
 * The verified text is the authority: a stop string is cut from it but not from the events, so events
 * only lend their style to bytes that did arrive. The decoder here sees the same tokens as the library's
 * and therefore gives the same bytes for each. */
#include "run.h"

#include <stdlib.h>

mzm_status mzm_run_show_init(mzm_run_show *show, const mzm_tokenizer *tok, bool drafts, mzm_run_emit_fn emit,
			     void *user, mzm_err *err)
{
	*show = (mzm_run_show){.emit = emit, .user = user, .drafts = drafts, .dec = mzm_text_decoder_init(tok)};
	show->cap = mzm_text_decoder_max(tok);
	show->buf = malloc(show->cap ? show->cap : 1);
	return show->buf ? MZM_OK : mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
}

void mzm_run_show_free(mzm_run_show *show)
{
	free(show->buf);
	free(show->pieces);
	free(show->text.data);
	free(show->struck.data);
	*show = (mzm_run_show){0};
}

static void add_piece(mzm_run_show *show, mzm_run_style style, size_t n)
{
	if (n == 0)
		return;
	mzm_run_piece *last = show->n_pieces > show->first ? &show->pieces[show->n_pieces - 1] : NULL;
	if (last && last->style == style && style != MZM_RUN_CORRECTED) { /* each correction is shown on its own */
		last->n += n;
		return;
	}
	if (show->n_pieces == show->cap_pieces) {
		size_t cap = show->cap_pieces ? 2 * show->cap_pieces : 64;
		mzm_run_piece *grown = realloc(show->pieces, cap * sizeof *grown);
		if (!grown) {
			show->failed = true;
			return;
		}
		show->pieces = grown;
		show->cap_pieces = cap;
	}
	show->pieces[show->n_pieces++] = (mzm_run_piece){style, n};
}

/* Emits what both the text and the events have reached. */
static void drain(mzm_run_show *show)
{
	while (show->first < show->n_pieces) {
		mzm_run_piece *piece = &show->pieces[show->first];
		bool struck = piece->style == MZM_RUN_STRUCK;
		mzm_cli_bytes *from = struck ? &show->struck : &show->text;
		size_t *at = struck ? &show->struck_at : &show->text_at;
		size_t n = piece->n < from->n - *at ? piece->n : from->n - *at;
		if (n == 0)
			return; /* the text is not there yet */
		show->emit(show->user, piece->style, from->data + *at, n);
		*at += n;
		piece->n -= n;
		show->first += piece->n == 0;
	}
}

static mzm_run_style style_of(mzm_token_kind kind)
{
	switch (kind) {
	case MZM_TOKEN_ROLLED_BACK:
		return MZM_RUN_STRUCK;
	case MZM_TOKEN_CORRECTED:
		return MZM_RUN_CORRECTED;
	default:
		return MZM_RUN_PLAIN;
	}
}

void mzm_run_show_token(mzm_run_show *show, const mzm_token_event *event)
{
	bool struck = event->kind == MZM_TOKEN_ROLLED_BACK;
	if (struck && !show->drafts)
		return;
	if (struck && !show->in_struck)
		show->shadow = show->dec;
	show->in_struck = struck;
	size_t n = mzm_text_decoder_push(struck ? &show->shadow : &show->dec, event->id, show->buf, show->cap);
	if (struck)
		mzm_cli_bytes_add(&show->struck, show->buf, n);
	add_piece(show, style_of(event->kind), n);
	drain(show);
}

void mzm_run_show_text(mzm_run_show *show, const char *bytes, size_t n)
{
	mzm_cli_bytes_add(&show->text, bytes, n);
	drain(show);
}

void mzm_run_show_end(mzm_run_show *show)
{
	drain(show);
	if (show->text_at < show->text.n)
		show->emit(show->user, MZM_RUN_PLAIN, show->text.data + show->text_at, show->text.n - show->text_at);
	show->text_at = show->text.n;
	show->failed |= show->text.failed || show->struck.failed;
}
