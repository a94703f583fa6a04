/* run_sink.c - the callbacks of a generation that is shown: its text as it comes, marked where there is colour, the
 * trace, the progress of a long prompt; see run.h. */
#include "run.h"

#include <string.h>

/* Bytes at the front that are blanks before any text. */
static size_t leading_blanks(const mzm_run_sink *s, const char *bytes, size_t n)
{
	size_t i = 0;
	while (s->trims && !s->last && i < n && strchr(" \t\r\n", bytes[i]))
		i++;
	return i;
}

/* A dropped line end must not end the line: it is shown as \\n. */
static void put_struck(const char *bytes, size_t n)
{
	while (n) {
		const char *end = memchr(bytes, '\n', n);
		size_t part = end ? (size_t)(end - bytes) : n;
		mzm_cli_put(stdout, bytes, part);
		fputs(end ? "\\n" : "", stdout);
		part += end != NULL;
		bytes += part;
		n -= part;
	}
}

static void emit_styled(void *user, mzm_run_style style, const char *bytes, size_t n)
{
	static const char *const sgr[] = {"", MZM_SGR_CORRECTED, MZM_SGR_STRUCK};
	mzm_run_sink *s = user;
	bool struck = style == MZM_RUN_STRUCK;
	size_t skip = struck ? 0 : leading_blanks(s, bytes, n);
	if (skip == n)
		return;
	fputs(sgr[style], stdout);
	if (struck)
		put_struck(bytes, n);
	else
		mzm_cli_put(stdout, bytes + skip, n - skip);
	s->last = struck ? ' ' : bytes[n - 1];
	fputs(style == MZM_RUN_PLAIN ? "" : MZM_SGR_RESET, stdout);
}

static int on_text(void *user, const char *bytes, size_t n)
{
	mzm_run_sink *s = user;
	mzm_cli_bytes_add(&s->text, bytes, n);
	mzm_cli_progress_clear(&s->progress);
	size_t skip = leading_blanks(s, bytes, n);
	if (s->stream && s->marked) {
		mzm_run_show_text(&s->show, bytes, n);
	} else if (s->stream && n > skip) {
		mzm_cli_put(stdout, bytes + skip, n - skip);
		s->last = bytes[n - 1];
	}
	if (s->stream)
		mzm_cli_flush(stdout, "standard output", &s->err);
	return s->err.code != MZM_OK || mzm_cli_interrupted();
}

static int on_token(void *user, const mzm_token_event *event)
{
	mzm_run_sink *s = user;
	mzm_cli_progress_clear(&s->progress);
	mzm_run_trace_token(&s->trace, event, &s->err);
	if (s->stream && s->marked)
		mzm_run_show_token(&s->show, event);
	return s->err.code != MZM_OK || mzm_cli_interrupted();
}

static int on_prefill(void *user, const char *stage, uint64_t done, uint64_t total)
{
	mzm_run_sink *s = user;
	return mzm_cli_progress_report(&s->progress, stage, done, total);
}

/* The first pass over a prompt may take long; later ones show in the text. */
static int on_stream(void *user, const char *stage, uint64_t done, uint64_t total)
{
	mzm_run_sink *s = user;
	if (s->text.n == 0)
		return mzm_cli_progress_report(&s->progress, stage, done, total);
	return mzm_cli_interrupted();
}

mzm_status mzm_run_sink_open(mzm_run_sink *s, const mzm_tokenizer *tok, bool stream, bool drafts, const char *trace,
			     mzm_err *err)
{
	*s = (mzm_run_sink){.progress = mzm_cli_progress_init("tokens"), .stream = stream};
	s->marked = mzm_cli_has_color(stdout);
	mzm_status st = mzm_run_show_init(&s->show, tok, drafts, emit_styled, s, err);
	if (st == MZM_OK)
		st = mzm_run_trace_open(&s->trace, trace, tok, err);
	return st;
}

void mzm_run_sink_bind(mzm_run_sink *s, mzm_gen_params *gen)
{
	gen->on_text = on_text;
	gen->on_token = on_token;
	gen->on_prefill = on_prefill;
	gen->on_stream = on_stream;
	gen->user = s;
}

void mzm_run_sink_close(mzm_run_sink *s, mzm_err *err)
{
	mzm_cli_progress_clear(&s->progress);
	if (s->stream) {
		mzm_run_show_end(&s->show);
		if (s->last && s->last != '\n')
			fputc('\n', stdout);
		mzm_cli_flush(stdout, "standard output", &s->err);
	}
	mzm_run_trace_close(&s->trace, &s->err);
	if (s->show.failed || s->text.failed)
		mzm_cli_set_err(&s->err, MZM_ENOMEM, "out of memory for the text");
	mzm_run_show_free(&s->show);
	if (s->err.code != MZM_OK)
		mzm_cli_set_err(err, s->err.code, "%s", s->err.message);
}
