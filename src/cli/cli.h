/* cli.h - what the commands of the program share: options, help, terminal, progress, files, exit codes.
 *
 * Workload: a few hundred calls a run; nothing here is on the token path except mzm_cli_interrupted.
 * Design: every option is one row of a const table; parsing, range checks, error messages, --help and
 * the defaults it shows all come from that row, so they cannot disagree. A row names its destination
 * by offset, so that one table serves every command that has the struct. Commands are plain functions
 * `int mzm_cmd_NAME(int argc, char **argv)`, argv[0] being the command's name, that return the exit
 * code of the program. Uses mirzam.h only.
 *
 * A command:
 *
 *     static const mzm_opt options[] = {
 *         {.name = "limit", .type = MZM_OPT_INT, .at = offsetof(struct mine, limit), .max = 1e6,
 *          .group = "Task", .arg = "N", .help = "Stop after N problems (0 = all)."},
 *     };
 *     struct mine my = {0};
 *     mzm_cli_model m = mzm_cli_model_default();
 *     mzm_cli_decode d = mzm_cli_decode_default();
 *     mzm_cli_args args = {.max = 1};
 *     const mzm_opt_table tables[] = {{options, MZM_CLI_COUNT(options), &my}, mzm_cli_model_table(&m),
 *                                     mzm_cli_decode_table(&d), mzm_cli_common_table()};
 *     int code = mzm_cli_parse(&command, tables, MZM_CLI_COUNT(tables), argc, argv, &args);
 *     if (code == MZM_CLI_GO && (code = mzm_cli_decode_finish(&command, &d)) == MZM_CLI_GO) ...
 *
 * Not here: any decision about decoding. That is the library's. */
#ifndef MZM_CLI_H
#define MZM_CLI_H

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>

#include "mirzam.h"

#define MZM_CLI_COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

/* ---- Exit codes ----------------------------------------------------------------------------- */

enum {
	MZM_CLI_GO = -1,    /* no exit: carry on */
	MZM_CLI_DONE = 0,
	MZM_CLI_FAILED = 1, /* failed at work */
	MZM_CLI_USAGE = 2,  /* wrong usage: EARG, EUNDEFINED */
	MZM_CLI_BAD_FILE = 3, /* bad or unsupported input file: EFORMAT, EUNSUPPORTED */
	MZM_CLI_INTERRUPTED = 130,
};

/* Exit code of a status. Anything after Ctrl-C (MZM_OK too) and ECANCELLED is 130; after a closed pipe, 0. */
int mzm_cli_exit_code(mzm_status status);
/* Prints `mirzam: message` for a failure (nothing when it was cancelled) and returns its exit code. */
int mzm_cli_fail(const mzm_err *err);
/* Prints `mirzam: text` on stderr. Control characters are made visible. */
void mzm_cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Fills err as the library does: the first failure wins. Returns code. */
mzm_status mzm_cli_set_err(mzm_err *err, mzm_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- Options -------------------------------------------------------------------------------- */

typedef enum mzm_opt_type { /* and what the field at `at` is */
	MZM_OPT_FLAG,   /* bool: set to true; takes no value */
	MZM_OPT_STRING, /* const char *: the argument itself */
	MZM_OPT_LIST,   /* mzm_cli_list: the option may be repeated; -> mzm_cli_list_free */
	MZM_OPT_INT,    /* int32_t in min..max */
	MZM_OPT_U64,    /* uint64_t, the whole range */
	MZM_OPT_FLOAT,  /* float in min..max, finite */
	MZM_OPT_SIZE,   /* uint64_t bytes in min..max: 123, 64K, 1.5G (powers of 1024) */
	MZM_OPT_MEMORY, /* the same, or a share of the machine's memory: 50% */
	MZM_OPT_ENUM,   /* int32_t (or an enum): index of the choice */
	MZM_OPT_CHOICE, /* const char *: the choice itself */
} mzm_opt_type;

typedef struct mzm_opt {
	const char  *name;        /* without the dashes */
	char         letter;      /* short form, or 0 */
	mzm_opt_type type;
	size_t       at;          /* offset of the field in the table's struct */
	double       min, max;    /* INT, FLOAT, SIZE */
	bool         open_min;    /* the value must be greater than min */
	const char  *word;        /* INT: a word also accepted ("auto") ... */
	int32_t      word_value;  /* ... and what it stores */
	const char  *word2;       /* a second one */
	int32_t      word2_value;
	const char *(*choice)(int i); /* ENUM, CHOICE: name of the i-th, NULL past the last */
	const char  *group;       /* heading in --help; rows of a group stand together */
	const char  *arg;         /* placeholder in --help: "N", "FILE" */
	const char  *help;        /* sentences, wrapped by --help */
	const char  *shown;       /* default to show instead of the field's value; "" = none */
} mzm_opt;

typedef struct mzm_opt_table {
	const mzm_opt *rows; /* [n_rows] */
	int            n_rows;
	void          *base; /* the struct that the offsets refer to, holding the defaults */
} mzm_opt_table;

typedef struct mzm_cli_command {
	const char *name;     /* "run" */
	const char *usage;    /* "[-m MODEL] -p PROMPT [options]"; '\n' starts another form */
	const char *summary;  /* paragraph under it */
	const char *examples; /* lines, '\n' between them; printed as they are */
} mzm_cli_command;

typedef struct mzm_cli_args {
	int          max;  /* in: arguments beside options that the command takes */
	int          n;    /* out */
	const char **item; /* out: [n], argument order, sits in argv */
} mzm_cli_args;

/* Reads argv[1..argc) by the tables; when two have an option of one name or letter, the earlier table
 * has it (and help shows that one). `--` ends the options. MZM_CLI_GO; or 0 after --help was printed;
 * or 2 after the message was. --help and --color belong to every command (mzm_cli_common_table). */
int mzm_cli_parse(const mzm_cli_command *cmd, const mzm_opt_table *tables, int n_tables, int argc, char **argv,
		  mzm_cli_args *args);
void mzm_cli_print_help(FILE *out, const mzm_cli_command *cmd, const mzm_opt_table *tables, int n_tables);
/* True when the command line set this option; only between parse and the next parse. */
bool mzm_cli_was_given(const char *name);
/* Gives the option of that name a value as a command line would. EARG: there is none, or the value is wrong, and
 * nothing changed. */
mzm_status mzm_cli_option_set(const mzm_opt_table *table, const char *name, const char *value, mzm_err *err);
/* Its row; NULL: there is none. */
const mzm_opt *mzm_cli_option_find(const mzm_opt_table *table, const char *name);
/* The value that the field at base + opt->at holds, as text; "" where there is nothing to show. */
void mzm_cli_option_value(char *buf, size_t cap, const mzm_opt *opt, const void *base);
/* Prints the message and `try: mirzam CMD --help`; returns MZM_CLI_USAGE. cmd may be NULL. */
int mzm_cli_usage_error(const mzm_cli_command *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* As mzm_cli_fail, but an error of usage also prints the line `try: mirzam CMD --help`. */
int mzm_cli_fail_usage(const mzm_cli_command *cmd, const mzm_err *err);
/* The candidate nearest to text, NULL when none is near: for "did you mean". */
const char *mzm_cli_nearest(const char *text, const char *(*candidate)(int i, const void *user), const void *user);

typedef struct mzm_cli_list {
	const char **item; /* [n] */
	int32_t      n, cap;
} mzm_cli_list;

bool mzm_cli_list_add(mzm_cli_list *list, const char *item); /* false: out of memory */
void mzm_cli_list_free(mzm_cli_list *list);

/* ---- Options that commands share ------------------------------------------------------------ */

/* --help --color --quiet. Stateful: --color and --quiet act on the whole program. */
mzm_opt_table mzm_cli_common_table(void);

/* -m/--model --isa --threads --ctx --kv --no-onednn --ram --store --io --calib --plan */
typedef struct mzm_cli_model {
	const char *path; /* NULL: the shipped demo model */
	const char *isa;
	const char *kv;
	int32_t     n_threads, n_ctx;
	bool        no_onednn;
	const char *store, *io;
	const char *calib;        /* side-car; NULL: the model's own, if it has one */
	uint64_t    ram;          /* 0: no budget */
	bool        plan;         /* show it before loading */
	int32_t     n_sessions;   /* the command will open; 0: one */
	uint64_t    reserve;      /* bytes it will take beside them */
	const mzm_gen_params *drafts; /* what it will generate with */
} mzm_cli_model;

mzm_cli_model mzm_cli_model_default(void);
mzm_opt_table mzm_cli_model_table(mzm_cli_model *m);
/* The path given, or the demo model's. *path -> free. */
mzm_status mzm_cli_model_path(char **path, const mzm_cli_model *m, mzm_err *err);
/* Opens the model with a progress bar, and a session on it unless session is NULL. Prints its own
 * message. MZM_CLI_GO, or the exit code with nothing left open. */
int mzm_cli_open(mzm_model **model, mzm_session **session, const mzm_cli_command *cmd, const mzm_cli_model *m);

/* Before it, the draft model, whole and in memory; what sessions take for it is added to m->reserve. *draft NULL: path
 * is. Prints its own message. MZM_CLI_GO or an exit code. -> mzm_model_close, after the sessions */
int mzm_cli_open_draft(mzm_model **draft, const char *path, const mzm_cli_command *cmd, mzm_cli_model *m);

/* The plan of a model, to stderr, with the speed of the disk if weights stream. */
void mzm_cli_print_plan(const mzm_plan *plan, const char *path);
/* A model is mapped: from now on a page that cannot be read ends the program with a message and exit code 1. */
void mzm_cli_catch_bus_error(const char *path);
int64_t mzm_cli_peak_rss(void); /* bytes of memory this process has held at most */
json_t *mzm_cli_plan_json(const mzm_plan *plan); /* new reference */
/* The plan's figures as a generation found them, to stderr. */
void mzm_cli_print_outcome(const mzm_plan *plan, const mzm_gen_result *r);
/* What streaming did for a generation, to stderr, one line; nothing if nothing streamed. */
void mzm_cli_print_streaming(const mzm_gen_result *r);

/* --mode --draft --predictor --keep --attn-keep --no-alloc --period --check-below --no-draft-image --threshold
 * --check-temp --accept --temp --tree --tree-path --ablate --top-k --top-p --min-p --repeat-penalty --repeat-last
 * --seed -n/--max-tokens --stop --ignore-eos --no-special */
typedef struct mzm_cli_decode {
	mzm_gen_params gen;  /* filled but for the callbacks */
	mzm_cli_list   stop;
	const char    *ablate; /* NULL: none */
	const char    *exit;   /* NULL: adaptive */
	const char    *draft_path; /* of the draft model; NULL: none */
	mzm_model     *draft;      /* which mzm_cli_open_draft opened; closed by mzm_cli_decode_free */
} mzm_cli_decode;

mzm_cli_decode mzm_cli_decode_default(void);
mzm_opt_table  mzm_cli_decode_table(mzm_cli_decode *d);
/* After the parse: ties gen to the stop list and runs mzm_gen_params_check. MZM_CLI_GO or an exit code. */
int  mzm_cli_decode_finish(const mzm_cli_command *cmd, mzm_cli_decode *d);
/* Where several lists of drafters are compared: "a,b+c" of gen as strings one behind the other, an empty one the last;
 * gen gets the first. Before decode_finish. *strings -> free */
int mzm_cli_split_drafts(const mzm_cli_command *cmd, char **strings, mzm_gen_params *gen);
void mzm_cli_decode_free(mzm_cli_decode *d);

/* Path of a shipped file: $MIRZAM_DATA, else beside the executable (../share/mirzam, ../data,
 * ../../data, ../../../data), else the installation directory. *path -> free. The message of a
 * failure lists where it looked and what to do. */
mzm_status mzm_cli_data_path(char **path, const char *name, mzm_err *err);

/* ---- Terminal ------------------------------------------------------------------------------- */

typedef enum mzm_color { MZM_COLOR_AUTO, MZM_COLOR_ALWAYS, MZM_COLOR_NEVER } mzm_color;

/* SGR escape sequences; the empty string when this stream is not to be coloured. auto = a terminal,
 * NO_COLOR unset or empty, TERM not "dumb". */
#define MZM_SGR_RESET     "\033[0m"
#define MZM_SGR_BOLD      "\033[1m"
#define MZM_SGR_DIM       "\033[2m"
#define MZM_SGR_RED       "\033[31m"
#define MZM_SGR_GREEN     "\033[32m"
#define MZM_SGR_YELLOW    "\033[33m"
#define MZM_SGR_CORRECTED "\033[1;4;33m" /* bold, underlined, yellow */
#define MZM_SGR_STRUCK    "\033[9;2;31m" /* struck out, dim, red */

bool        mzm_cli_has_color(FILE *f);
const char *mzm_cli_sgr(FILE *f, const char *sequence);
bool        mzm_cli_is_tty(FILE *f);
bool        mzm_cli_quiet(void);              /* --quiet: no progress, no notes */
int         mzm_cli_width(FILE *f);           /* columns: the terminal, else $COLUMNS, else 80; 20 at least */
/* Columns that UTF-8 text takes, up to its end; broken bytes count one. */
int mzm_cli_text_width(const char *text, size_t n);
/* Bytes of the character at text[0..n), and its columns. n > 0; never more than n. */
size_t mzm_cli_char(const char *text, size_t n, int *columns);
/* Writes text; to a terminal, control characters but \n and \t are made visible (^[, U+FFFD), so that no model can
 * drive it. */
void mzm_cli_put(FILE *f, const char *text, size_t n);
/* Writes text on one line whatever f is: line ends as \n, tabs as \t, other control characters as ^[; cut with ".." to
 * max_columns when that is above 0. Returns its columns. */
int mzm_cli_put_inline(FILE *f, const char *text, size_t n, int max_columns);

/* ---- Interruption --------------------------------------------------------------------------- */

/* First Ctrl-C: mzm_cli_interrupted turns true, callbacks return it. Second: the end. Call it after stdin was read. */
void mzm_cli_catch_interrupt(void);
bool mzm_cli_interrupted(void);
/* Forgets one that came. noted: from now on they are only noted, and end a poll(); else they end the program. */
void mzm_cli_forget_interrupt(bool noted);
/* True once the reader of stdout went away: stop, quietly. Set by mzm_cli_flush. */
bool mzm_cli_pipe_closed(void);

/* ---- Progress ------------------------------------------------------------------------------- */

/* A bar on stderr with rate and time left, once the work has taken a second; off a terminal, one plain line every
 * ten seconds. Never with --quiet. */
typedef struct mzm_cli_progress {
	const char *unit;      /* "tokens", "problems"; NULL = bytes */
	const char *note;      /* written after the bar, e.g. "accuracy 82%"; NULL: none. Caller's. */
	char        stage[40];  /* of the last report */
	int64_t     begin_ns;   /* of all the work: since init */
	int64_t     stage_ns;   /* when the stage began */
	uint64_t    stage_from; /* what it had done then */
	int64_t     drawn_ns;   /* last drawing */
	bool        drawn;      /* a bar stands on the line */
} mzm_cli_progress;

mzm_cli_progress mzm_cli_progress_init(const char *unit);
/* mzm_progress_fn; user = mzm_cli_progress *. Non-zero once interrupted. */
int  mzm_cli_progress_report(void *user, const char *stage, uint64_t done, uint64_t total);
void mzm_cli_progress_clear(mzm_cli_progress *p); /* wipes the bar, e.g. before a line is printed; and at the end */
int64_t mzm_cli_now_ns(void);                     /* monotonic */
/* "1.5 GiB", "312 KiB"; "1.2M", "34.5k"; "2m05s", "1.3s". In buf, which is returned. */
const char *mzm_cli_format_bytes(char buf[32], uint64_t bytes);
const char *mzm_cli_format_count(char buf[32], double count);
const char *mzm_cli_format_seconds(char buf[32], double seconds);

/* ---- Bytes ---------------------------------------------------------------------------------- */

typedef struct mzm_cli_bytes { /* a growing byte string; failure is sticky: test it once, at the end */
	char  *data;           /* [n] -> free */
	size_t n, cap;
	bool   failed;
} mzm_cli_bytes;

#define MZM_CLI_MAX_TEXT ((size_t)64 << 20) /* of a prompt or a text to tokenize */

void mzm_cli_bytes_add(mzm_cli_bytes *b, const void *data, size_t n);
/* All of f, MZM_CLI_MAX_TEXT at most; name is for messages. */
mzm_status mzm_cli_read_stream(mzm_cli_bytes *b, FILE *f, const char *name, mzm_err *err);

/* The texts of a file, in order: of a .jsonl file one a line, "text" of the object or its "question" and "answer" as
 * the demo model was taught them; any other file is one text. A failure of fn ends it; messages get the line. */
typedef mzm_status (*mzm_cli_text_fn)(void *user, const char *text, size_t len, mzm_err *err);
mzm_status mzm_cli_read_texts(const char *path, mzm_cli_text_fn fn, void *user, mzm_err *err);

/* ---- Output --------------------------------------------------------------------------------- */

/* A file under construction: a temporary name beside it, then fsync and rename, so that the path is the
 * old file, absent, or complete. Devices and pipes are written directly; "-" is stdout. */
typedef struct mzm_cli_file {
	FILE *f;    /* to write to */
	char *path; /* target, links resolved */
	char *temp; /* NULL: written directly */
} mzm_cli_file;

/* Refuses a path that names a file this run reads (EARG). */
mzm_status mzm_cli_file_create(mzm_cli_file *file, const char *path, mzm_err *err);
void       mzm_cli_note_input(const char *path); /* this run reads it; NULL and absent files are forgotten */
mzm_status mzm_cli_check_output(const char *path, mzm_err *err);
/* Flushes, checks for errors of all earlier writes, renames. Always ends the file. */
mzm_status mzm_cli_file_commit(mzm_cli_file *file, mzm_err *err);
void       mzm_cli_file_abort(mzm_cli_file *file); /* removes the temporary; after a commit, or zeroed: no effect */
/* Before long work: can this file be made? Leaves nothing behind; NULL and "-" always can. */
mzm_status mzm_cli_file_probe(const char *path, mzm_err *err);
mzm_status mzm_cli_write_file(const char *path, const char *bytes, size_t n, mzm_err *err); /* all in one */

/* Flushes; EIO with the reason when that or any write before failed ("name: No space left on device"). A
 * closed pipe on stdout gives ECANCELLED and sets mzm_cli_pipe_closed. */
mzm_status mzm_cli_flush(FILE *f, const char *name, mzm_err *err);

/* Writes root, indented, with a final newline; path NULL or "-": stdout. */
mzm_status mzm_cli_json_write(const json_t *root, const char *path, mzm_err *err);
/* One line, no indentation, newline at the end. */
mzm_status mzm_cli_json_line(FILE *f, const json_t *value, const char *name, mzm_err *err);
/* Numbers as people write them (0.1, not 0.10000000149); NaN and infinities are null. */
json_t *mzm_cli_json_float(float x);
json_t *mzm_cli_json_double(double x);
/* Text that may not be UTF-8: broken bytes become U+FFFD. */
json_t *mzm_cli_json_text(const char *text, size_t n);

/* After an import, on stderr unless --quiet: size, time, types (cmd_import.c). */
void mzm_cli_print_written(const char *path, const mzm_import_report *report, double seconds);

/* ---- Numbers of a generation ---------------------------------------------------------------- */

/* Derived from the counters of one generation, or of several added up by mzm_cli_counters_add. NaN: not
 * defined (no checks, period auto, one token). */
typedef struct mzm_cli_derived {
	double aal, aal_paper;    /* tokens gained a check; without each answer's last check */
	double effective_density; /* ((period-1) * density + 1) / aal_paper, fixed period only */
	double work_per_token;    /* (sparse work + dense passes) / (tokens - 1), each answer's first token left out */
	double w_nodes;           /* the same, passes weighted by their positions */
	double prefill_tok_per_s, tok_per_s; /* the latter by decode wall time, first tokens left out */
} mzm_cli_derived;

/* n_answers: how many generations r is the sum of. */
mzm_cli_derived mzm_cli_derive(const mzm_gen_result *r, const mzm_gen_params *gen, int32_t n_answers);
/* Adds the counters, times and work of one more generation; density is the latest, tokens is untouched. */
void mzm_cli_counters_add(mzm_gen_result *sum, const mzm_gen_result *r);
/* Sets checks, aal, aal_paper, density, effective_density, work_per_token, sparse_passes, dense_passes,
 * rollback_tokens, accepted, corrected, prefill_tok_per_s, tok_per_s, bytes_read (and costs, when measured). */
int mzm_cli_counters_json(json_t *object, const mzm_gen_result *r, const mzm_gen_params *gen, int32_t n_answers);
/* {"mode", "draft", "predictor", "keep", "period", ... } NULL: out of memory. */
json_t *mzm_cli_settings_json(const mzm_gen_params *gen);

/* ---- Commands ------------------------------------------------------------------------------- */

int mzm_cmd_run(int argc, char **argv);
int mzm_cmd_chat(int argc, char **argv);
int mzm_cmd_import(int argc, char **argv);
int mzm_cmd_inspect(int argc, char **argv);
int mzm_cmd_synth(int argc, char **argv);
int mzm_cmd_tokenize(int argc, char **argv);
int mzm_cmd_eval(int argc, char **argv);
int mzm_cmd_bench(int argc, char **argv);
int mzm_cmd_calibrate(int argc, char **argv);

#endif
