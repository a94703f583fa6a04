/* chat.h - the parts of `mirzam chat`: the talk, its input, the built-in templates, the commands.
 *
 * cmd_chat.c owns the request and the loop; chat_talk.c the conversation and its place in the context; chat_answer.c
 * one answer; chat_line.c what is typed or piped in; chat_command.c the lines that begin with a slash. Standard output
 * carries answers and nothing else (with a terminal, also what is typed); everything for people goes to stderr. */
#ifndef MZM_CLI_CHAT_H
#define MZM_CLI_CHAT_H

#include "run.h"

/* ---- chat_line.c: messages from a terminal or a pipe ---- */

typedef struct mzm_chat_line mzm_chat_line;

typedef enum mzm_line_kind {
	MZM_LINE_TEXT,  /* a message or a command */
	MZM_LINE_BLOCK, /* a message, whatever it begins with */
	MZM_LINE_END,   /* no more, or Ctrl-C twice */
	MZM_LINE_FAILED,
} mzm_line_kind;

/* Lines of a terminal are edited, with a history file unless history is NULL, where libedit was built in.
 * -> mzm_chat_line_close */
mzm_status    mzm_chat_line_open(mzm_chat_line **out, const char *history, mzm_err *err);
void          mzm_chat_line_close(mzm_chat_line *in); /* writes the history */
bool          mzm_chat_line_is_terminal(const mzm_chat_line *in);
/* The next message, joined of several lines where they ask for it, as UTF-8 without NULs: *text -> free, for TEXT and
 * BLOCK. FAILED fills err. */
mzm_line_kind mzm_chat_line_read(mzm_chat_line *in, char **text, mzm_err *err);
/* $XDG_STATE_HOME/mirzam/history, else ~/.local/state/mirzam/history; NULL: neither is known. -> free */
char *mzm_chat_history_path(void);
/* Words that begin a line, for completion: name of the i-th, NULL past the last (chat_command.c). */
const char *mzm_chat_command_name(int i);

/* ---- chat_template.c ---- */

typedef struct mzm_chat_form {
	char       *text; /* of the template; NULL: the model's own. -> free */
	const char *name; /* as given, or "of the model" */
	const char *stop; /* text that ends an answer where the model has no token for it; NULL: none */
} mzm_chat_form;

/* name: a file, else one of those built in, else NULL for the model's own. EARG: neither. */
mzm_status  mzm_chat_form_find(mzm_chat_form *form, const char *name, mzm_err *err);
const char *mzm_chat_form_names(void); /* of those built in: "chatml, llama2, ..." */

/* ---- chat_talk.c: what was said ---- */

typedef struct mzm_chat_turn {
	char *question, *answer; /* UTF-8 -> free; answer NULL: not yet */
} mzm_chat_turn;

typedef struct mzm_talk {
	const mzm_chat *chat;
	char           *system; /* NULL: none. -> free */
	mzm_chat_turn  *turns;  /* [n] */
	int32_t         n, cap;
	int32_t         first;  /* turn that the prompt begins with: those before had no room */
} mzm_talk;

void       mzm_talk_free(mzm_talk *talk);
void       mzm_talk_clear(mzm_talk *talk); /* forgets the turns */
mzm_status mzm_talk_ask(mzm_talk *talk, const char *question, mzm_err *err); /* a turn without an answer yet */
/* Its answer, without blanks around it; takes the place of one that was there. */
mzm_status mzm_talk_answer(mzm_talk *talk, const char *text, size_t n, mzm_err *err);
void       mzm_talk_undo(mzm_talk *talk);  /* the last turn is gone */
/* The talk as tokens, up to where the next answer begins if `generate`. *ids -> mzm_ids_free. */
mzm_status mzm_talk_tokenize(const mzm_talk *talk, bool generate, int32_t **ids, size_t *n_ids, mzm_err *err);
/* The same for the next answer, with `room` tokens left for it in a context of n_ctx: the oldest turns go until it is
 * so, and then until half the context is free, for else the next answer would be read from its start again; the
 * last one stays. ECONTEXT: it alone is too long. */
mzm_status mzm_talk_fit(mzm_talk *talk, int32_t n_ctx, int32_t room, int32_t **ids, size_t *n_ids, mzm_err *err);
/* One JSON line a message: {"role", "content"}. A file that holds anything else is refused as a whole. */
mzm_status mzm_talk_save(const mzm_talk *talk, const char *path, mzm_err *err);
mzm_status mzm_talk_load(mzm_talk *talk, const char *path, mzm_err *err);

/* ---- cmd_chat.c, chat_answer.c, chat_command.c ---- */

typedef struct mzm_chat_run {
	const mzm_cli_command *cmd;
	mzm_cli_model  model_options;
	mzm_cli_decode decode;
	const char *system, *system_file, *template, *load, *save; /* as given */
	bool json, stats, show_drafts, no_history;
	bool hide;              /* marks off, by /show */
	mzm_chat_form  form;
	mzm_model     *model;
	mzm_session   *session;
	mzm_chat      *chat;
	mzm_chat_line *in;
	mzm_talk       talk;
	mzm_gen_result last;    /* of the last answer; its tokens are gone */
	mzm_gen_params last_gen; /* what it was made with */
	char           last_draft[128]; /* its drafters: /draft forgets what it had */
	bool           has_last;
	char          *draft;   /* names that /draft gave; NULL: none */
	bool           over;    /* the output is gone: nothing more can be said */
} mzm_chat_run;

/* Answers the last turn of the talk. Prints its own message of a failure; the turn is withdrawn then, and where nothing
 * was said. MZM_CLI_GO, or the exit code that this failure stands for. */
int mzm_chat_answer(mzm_chat_run *run);
/* As above, in place of the answer that is there, which stays if no other comes. */
int mzm_chat_retry(mzm_chat_run *run);
/* Carries out a line that begins with a slash. *leave: it was /quit. MZM_CLI_GO, or as above. */
int mzm_chat_command(mzm_chat_run *run, const char *line, bool *leave);

#endif
