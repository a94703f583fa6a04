/* run.h - the parts of `mirzam run`: the request, the marked text, the trace, the report, the comparison.
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

/* ---- run_report.c ---- */

/* {"model": {...}, "settings": {...}, ...}: what precedes the numbers. NULL: out of memory. */
json_t *mzm_run_head_json(const mzm_run *run, const mzm_gen_params *gen);
/* Adds tokens, text, finish and the counters. Non-zero: out of memory. */
int mzm_run_answer_json(json_t *object, const mzm_gen_result *r, const mzm_gen_params *gen, const char *text, size_t n);
void mzm_run_print_stats(const mzm_gen_result *r, const mzm_gen_params *gen); /* on stderr */

/* ---- run_compare.c ---- */

int mzm_run_compare(mzm_run *run);

#endif
