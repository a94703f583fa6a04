/* run_trace.c - one JSON line a token event, for people who study drafts and checks; see run.h.
 *
 * Written as the tokens are decided, so that a run can be watched; values that do not apply are null. */
#include "run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

mzm_status mzm_run_trace_open(mzm_run_trace *trace, const char *path, const mzm_tokenizer *tok, mzm_err *err)
{
	*trace = (mzm_run_trace){.path = path, .tok = tok};
	if (!path)
		return MZM_OK;
	if (strcmp(path, "-") == 0)
		return mzm_cli_set_err(err, MZM_EARG, "--trace needs a file: the text is on standard output");
	if (mzm_cli_check_output(path, err) != MZM_OK)
		return MZM_EARG;
	trace->cap = 2 * mzm_text_decoder_max(tok); /* a token and the flush */
	trace->buf = malloc(trace->cap ? trace->cap : 1);
	if (!trace->buf)
		return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
	trace->f = fopen(path, "we");
	if (trace->f)
		return MZM_OK;
	mzm_cli_set_err(err, MZM_EIO, "%s: %s", path, strerror(errno));
	free(trace->buf);
	trace->buf = NULL;
	return MZM_EIO;
}

/* What the token adds inside a text: broken UTF-8 as U+FFFD; the name of a special token. */
static json_t *token_text(mzm_run_trace *trace, int32_t id)
{
	mzm_text_decoder dec = mzm_text_decoder_init(trace->tok);
	const char *content = mzm_token_content(trace->tok, id);
	if (mzm_token_is_special(trace->tok, id) && content)
		return mzm_cli_json_text(content, strlen(content));
	dec.started = true; /* keep the blank before a word */
	size_t n = mzm_text_decoder_push(&dec, id, trace->buf, trace->cap);
	n += mzm_text_decoder_flush(&dec, trace->buf + n, trace->cap - n);
	return mzm_cli_json_text(trace->buf, n);
}

mzm_status mzm_run_trace_token(mzm_run_trace *trace, const mzm_token_event *e, mzm_err *err)
{
	if (!trace->f)
		return MZM_OK;
	json_t *line =
		json_pack("{s:i, s:i, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:i, s:i, s:I}", "pos", (int)e->pos, "id",
			  (int)e->id, "token", token_text(trace, e->id), "kind", mzm_token_kind_name(e->kind),
			  "draft_prob", mzm_cli_json_float(e->draft_prob), "margin", mzm_cli_json_float(e->margin),
			  "entropy", mzm_cli_json_float(e->entropy), "confidence", mzm_cli_json_float(e->confidence),
			  "full_prob", mzm_cli_json_float(e->full_prob), "check", (int)e->check, "block", (int)e->block,
			  "time_us", (json_int_t)(e->time_ns / 1000));
	mzm_status st = mzm_cli_json_line(trace->f, line, trace->path, err);
	json_decref(line);
	return st;
}

mzm_status mzm_run_trace_close(mzm_run_trace *trace, mzm_err *err)
{
	mzm_status st = MZM_OK;
	if (trace->f) {
		st = mzm_cli_flush(trace->f, trace->path, err);
		if (fclose(trace->f) != 0 && st == MZM_OK)
			st = mzm_cli_set_err(err, MZM_EIO, "%s: %s", trace->path, strerror(errno));
	}
	free(trace->buf);
	*trace = (mzm_run_trace){0};
	return st;
}
