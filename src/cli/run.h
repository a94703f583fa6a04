/* run.h - the parts of `mirzam run`: the request, the marked text, the trace, the report, the comparison. `mirzam chat`
 * shares those that show an answer.
 *
 * cmd_run.c owns the request and calls the rest. Each part checks its own output; the first failure
 * stops the generation and is what the command reports. */
#ifndef MZM_CLI_RUN_H
#define MZM_CLI_RUN_H

#include "cli.h"

typedef struct mzm_run {
	const mzm_cli_command *cmd;
	mzm_cli_model  model_options;
	mzm_cli_decode decode;
	const char *prompt, *file, *question, *trace; /* as given */
	bool json, stats, compare, show_drafts, parse_special;

	mzm_cli_bytes text; /* the prompt */
	int32_t *ids;       /* [n_ids] its tokens */
	size_t   n_ids;
	mzm_model   *model;
	mzm_session *session;
} mzm_run;

/* ---- run_show.c: text with the origin of each piece ---- */

typedef enum mzm_run_style { MZM_RUN_PLAIN, MZM_RUN_CORRECTED, MZM_RUN_STRUCK } mzm_run_style;

typedef void (*mzm_run_emit_fn)(void *user, mzm_run_style style, const char *bytes, size_t n);

typedef struct mzm_run_piece { /* text of neighbouring tokens of one style */
	mzm_run_style style;
	size_t n; /* bytes; of the verified text, or of `struck` */
} mzm_run_piece;

/* Joins the two callbacks of a generation: verified text says what is shown, token events say how. They
 * may arrive in any order; text waits for its events. */
typedef struct mzm_run_show {
	mzm_run_emit_fn emit;
	void *user;
	bool drafts;             /* show rolled-back tokens too */
	mzm_text_decoder dec;    /* of the kept tokens: gives the bytes of each */
	mzm_text_decoder shadow; /* of a run of rolled-back ones, from where they began */
	bool in_struck;
	char  *buf;              /* [cap] text of one token */
	size_t cap;
	mzm_run_piece *pieces;   /* [n_pieces] */
	size_t n_pieces, first, cap_pieces;
	mzm_cli_bytes text, struck; /* not yet emitted from their positions on */
	size_t text_at, struck_at;
	bool failed;             /* out of memory */
} mzm_run_show;

mzm_status mzm_run_show_init(mzm_run_show *show, const mzm_tokenizer *tok, bool drafts, mzm_run_emit_fn emit,
			     void *user, mzm_err *err);
void       mzm_run_show_token(mzm_run_show *show, const mzm_token_event *event);
void       mzm_run_show_text(mzm_run_show *show, const char *bytes, size_t n);
void       mzm_run_show_end(mzm_run_show *show); /* emits what is left */
void       mzm_run_show_free(mzm_run_show *show);

/* ---- run_trace.c: one JSON line a token event ---- */

typedef struct mzm_run_trace {
	FILE *f; /* NULL: no trace */
	const char *path;
	const mzm_tokenizer *tok;
	char  *buf; /* [cap] text of one token */
	size_t cap;
} mzm_run_trace;

mzm_status mzm_run_trace_open(mzm_run_trace *trace, const char *path, const mzm_tokenizer *tok, mzm_err *err);
mzm_status mzm_run_trace_token(mzm_run_trace *trace, const mzm_token_event *event, mzm_err *err);
mzm_status mzm_run_trace_close(mzm_run_trace *trace, mzm_err *err); /* flushes, checks; a closed one: no effect */

/* ---- run_sink.c: where the text of a generation goes ---- */

typedef struct mzm_run_sink { /* what the callbacks of one generation write to */
	mzm_cli_bytes text;  /* all verified text; the caller's after the end: -> free */
	mzm_run_show  show;
	mzm_run_trace trace;
	mzm_cli_progress progress;
	bool stream, marked; /* text to stdout as it comes; in colour */
	bool trims;          /* no blanks before the first character */
	char last;           /* byte written, 0: none */
	mzm_err err;         /* of writing */
} mzm_run_sink;

/* drafts: dropped draft tokens are shown too. trace: file, or NULL. Close it even if that fails. */
mzm_status mzm_run_sink_open(mzm_run_sink *s, const mzm_tokenizer *tok, bool stream, bool drafts, const char *trace,
			     mzm_err *err);
/* Sets the callbacks of gen. They stop the generation on Ctrl-C and on the first output that fails. */
void       mzm_run_sink_bind(mzm_run_sink *s, mzm_gen_params *gen);
/* Ends text and trace; the first failure of any output goes to err. */
void       mzm_run_sink_close(mzm_run_sink *s, mzm_err *err);

/* ---- run_report.c ---- */

/* {"model": {...}, "settings": {...}, ...}: what precedes the numbers. NULL: out of memory. */
json_t *mzm_run_head_json(const mzm_run *run, const mzm_gen_params *gen);
json_t *mzm_run_ids_json(const int32_t *ids, size_t n);
/* Adds tokens, text, finish and the counters. Non-zero: out of memory. */
int mzm_run_answer_json(json_t *object, const mzm_gen_result *r, const mzm_gen_params *gen, const char *text, size_t n);
void mzm_run_print_stats(const mzm_gen_result *r, const mzm_gen_params *gen); /* on stderr */

/* ---- run_compare.c ---- */

int mzm_run_compare(mzm_run *run);

#endif
