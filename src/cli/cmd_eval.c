/* cmd_eval.c - `mirzam eval`: problems answered in several modes, and what each mode costs and gets right.
 *
 * The work is eval/'s; here are the options, the files it writes to, progress and interruption. Tables go to
 * standard output, everything else for people to stderr. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "eval/eval.h"

#define DEMO_DATA "gsmini-test.jsonl"

static const mzm_cli_command command = {
	.name = "eval",
	.usage = "[-m MODEL] [--task NAME] [--data FILE.jsonl] [options]",
	.summary = "Answers problems in several modes and prints, for each, accuracy with its 95 % interval, the share "
		   "of answers equal to the dense model's, tokens gained a check (AAL), densities, work per token (W) "
		   "and speed. Problems are lines of JSON: {\"question\": ..., \"answer\": ...}.",
	.examples = "mirzam eval --limit 100\n"
		    "mirzam eval --mode dense,sirius --predictor topk --keep 0.3 --report report.html\n"
		    "mirzam eval -m model.mzm --data test.jsonl --fewshot train.jsonl --shots 5 --json rows.json\n"
		    "mirzam eval --mode dense,exact --draft sparse,ngram,jacobi,sparse+ngram,auto --period auto\n"
		    "mirzam eval --mode dense,exact --period auto --results run.jsonl\n"
		    "mirzam eval --mode dense,exact --period auto --results run.jsonl --resume",
};

typedef struct eval_options {
	const char *task, *data, *fewshot, *modes;
	const char *json, *report, *results, *costs;
	int32_t     n_shots, limit, sample, n_jobs, max_tokens;
	bool        resume, skip_bad_lines, markdown;

	mzm_cli_model  model;
	mzm_cli_decode decode;
	char          *drafts; /* lists of drafters, each a string */
	mzm_gen_params rows[MZE_MAX_ROWS];
	int32_t        n_rows;
} eval_options;

static const char *cost_kind(int i)
{
	static const char *const names[] = {"measured", "nominal"};
	return i < 2 ? names[i] : NULL;
}

#define EVAL(field) .at = offsetof(eval_options, field)
#define TASK        .group = "Task"
#define OUTPUT      .group = "Output"

static const mzm_opt eval_rows[] = {
	{.name = "task", .type = MZM_OPT_CHOICE, EVAL(task), TASK, .choice = mze_task_name, .arg = "NAME",
	 .help = "Prompts, stops and how answers are read, as lm-evaluation-harness has them (both version 3.0)."},
	{.name = "data", .type = MZM_OPT_STRING, EVAL(data), TASK, .arg = "FILE", .shown = "the shipped problems",
	 .help = "The problems, one JSON object a line."},
	{.name = "limit", .type = MZM_OPT_INT, EVAL(limit), TASK, .max = INT32_MAX, .arg = "N",
	 .help = "Only the first N problems; 0: all."},
	{.name = "sample", .type = MZM_OPT_INT, EVAL(sample), TASK, .max = INT32_MAX, .arg = "N",
	 .help = "Only N problems, drawn by --seed; 0: all."},
	{.name = "fewshot", .type = MZM_OPT_STRING, EVAL(fewshot), TASK, .arg = "FILE", .shown = "none: zero-shot",
	 .help = "Examples to put before each question, in the form of the problems."},
	{.name = "shots", .type = MZM_OPT_INT, EVAL(n_shots), TASK, .max = 64, .arg = "N",
	 .shown = "5 for gsm8k, 8 for gsm8k_cot",
	 .help = "How many: gsm8k draws them anew for each question, gsm8k_cot takes the first of the file."},
	{.name = "skip-bad-lines", .type = MZM_OPT_FLAG, EVAL(skip_bad_lines), TASK,
	 .help = "Leave broken lines of the problem file out (they are counted) instead of refusing the file."},
	{.name = "mode", .type = MZM_OPT_STRING, EVAL(modes), TASK, .arg = "M1,M2,...",
	 .help = "Modes to compare, of dense, sparse, sirius, exact and lossless; the other options are common to "
		 "them."},
	{.name = "costs", .type = MZM_OPT_CHOICE, EVAL(costs), TASK, .choice = cost_kind, .arg = "KIND",
	 .help = "What --period auto reckons with. measured: how long passes take, tried before the first answer. "
		 "nominal: what they read, a check as much as a dense token, so that answers are the same anywhere."},
	{.name = "max-tokens", .letter = 'n', .type = MZM_OPT_INT, EVAL(max_tokens), TASK, .min = 1, .max = INT32_MAX,
	 .arg = "N", .help = "New tokens an answer at most."},
	{.name = "jobs", .type = MZM_OPT_INT, EVAL(n_jobs), TASK, .min = 1, .max = 1024, .arg = "N",
	 .help = "Answers in work at a time, each in a session of its own; the threads are split among them. Answers "
		 "do not depend on it, speeds do."},

	{.name = "json", .type = MZM_OPT_STRING, EVAL(json), OUTPUT, .arg = "FILE",
	 .help = "Write settings, machine and one row a mode; -: to standard output, instead of the table."},
	{.name = "report", .type = MZM_OPT_STRING, EVAL(report), OUTPUT, .arg = "FILE",
	 .help = "Write one self-contained HTML page with tables, a chart and every answer token by token."},
	{.name = "results", .type = MZM_OPT_STRING, EVAL(results), OUTPUT, .arg = "FILE",
	 .help = "Append one JSON line an answer as soon as it is there."},
	{.name = "resume", .type = MZM_OPT_FLAG, EVAL(resume), OUTPUT,
	 .help = "Go on with the results file of an interrupted run with the same settings."},
	{.name = "markdown", .type = MZM_OPT_FLAG, EVAL(markdown), OUTPUT, .help = "Print the table as Markdown."},
};

/* ---- options ---- */

static const char *mode_name(int i, const void *user)
{
	(void)user;
	return i <= MZM_MODE_LOSSLESS ? mzm_mode_name((mzm_mode)i) : NULL;
}

static int add_row(eval_options *o, mzm_mode mode, const char *draft)
{
	mzm_err err = {0};
	mzm_gen_params gen = o->decode.gen;
	if (o->n_rows == MZE_MAX_ROWS)
		return mzm_cli_usage_error(&command, "more than %d modes and drafts to compare", MZE_MAX_ROWS);
	gen.mode = mode;
	gen.draft = draft;
	gen.max_tokens = o->max_tokens;
	if (mzm_gen_params_check(&gen, &err) != MZM_OK)
		return mzm_cli_fail_usage(&command, &err);
	o->rows[o->n_rows++] = gen;
	return MZM_CLI_GO;
}

/* A row, or, where drafts are checked, one for each list of drafters. */
static int add_mode(eval_options *o, const char *name)
{
	mzm_mode mode;
	int code = MZM_CLI_GO;
	if (mzm_mode_parse(&mode, name, NULL) != MZM_OK) {
		const char *near = mzm_cli_nearest(name, mode_name, NULL);
		return mzm_cli_usage_error(&command, "--mode: unknown mode '%s'%s%s%s", name,
					   near ? "; did you mean " : "", near ? near : "",
					   near ? "?" : " (dense, sparse, sirius, exact, lossless)");
	}
	if (mode == MZM_MODE_DENSE || mode == MZM_MODE_SPARSE)
		return add_row(o, mode, "sparse");
	for (const char *draft = o->drafts; *draft && code == MZM_CLI_GO; draft += strlen(draft) + 1)
		code = add_row(o, mode, draft);
	return code;
}

/* Rows for each name of the comma-separated list. */
static int read_modes(eval_options *o)
{
	char *copy = strdup(o->modes), *rest = copy, *name;
	int code = MZM_CLI_GO;
	if (!copy)
		return mzm_cli_exit_code(MZM_ENOMEM);
	while (code == MZM_CLI_GO && (name = strsep(&rest, ",")) != NULL)
		code = add_mode(o, name);
	free(copy);
	return code;
}

static int check_usage(const eval_options *o)
{
	if (o->decode.stop.n > 0)
		return mzm_cli_usage_error(&command, "--stop: the task decides where its answers end");
	if (o->limit > 0 && o->sample > 0)
		return mzm_cli_usage_error(&command, "--limit and --sample exclude each other");
	if (o->n_shots > 0 && !o->fewshot)
		return mzm_cli_usage_error(&command, "--shots needs --fewshot FILE");
	if (o->resume && !o->results)
		return mzm_cli_usage_error(&command, "--resume needs --results FILE");
	return MZM_CLI_GO;
}

/* ---- progress ---- */

typedef struct watcher {
	mzm_cli_progress bar;
	char             note[96];
} watcher;

static void on_progress(void *user, const mze_progress *at)
{
	watcher *w = user;
	w->note[0] = 0;
	if (at->row_done > 0)
		snprintf(w->note, sizeof w->note, "%s %.0f%%", at->label, 100. * at->row_right / at->row_done);
	w->bar.note = w->note;
	mzm_cli_progress_report(&w->bar, "eval", (uint64_t)at->n_done, (uint64_t)at->n_total);
}

static bool is_cancelled(void *user)
{
	(void)user;
	return mzm_cli_interrupted();
}

/* ---- output ---- */

static mzm_status write_json(const mze_eval *eval, const char *path, mzm_err *err)
{
	json_t *root = mze_eval_json(eval);
	mzm_status st = root ? mzm_cli_json_write(root, path, err) : mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
	json_decref(root);
	return st;
}

static mzm_status write_report(const mze_eval *eval, const char *path, mzm_err *err)
{
	mzm_cli_file file = {0};
	mzm_status st = mzm_cli_file_create(&file, path, err);
	if (st == MZM_OK)
		st = mze_eval_report(eval, file.f, err);
	if (st == MZM_OK)
		st = mzm_cli_file_commit(&file, err);
	mzm_cli_file_abort(&file);
	return st;
}

static mzm_status write_all(const mze_eval *eval, const eval_options *o, mzm_err *err)
{
	bool stdout_is_taken = (o->json && strcmp(o->json, "-") == 0) || (o->report && strcmp(o->report, "-") == 0);
	mzm_status st = MZM_OK;
	if (!stdout_is_taken) {
		(o->markdown ? mze_eval_markdown : mze_eval_table)(eval, stdout);
		st = mzm_cli_flush(stdout, "standard output", err);
	}
	if (st == MZM_OK && o->json)
		st = write_json(eval, o->json, err);
	if (st == MZM_OK && o->report)
		st = write_report(eval, o->report, err);
	return st;
}

/* The command line again, quoted for the shell, with --resume. */
static void print_how_to_go_on(const eval_options *o, int argc, char **argv)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%";
	if (!o->results) {
		fprintf(stderr, "nothing is kept: with --results FILE an interrupted run can go on later\n");
		return;
	}
	fprintf(stderr, "to go on: mirzam");
	for (int i = 0; i < argc; i++) {
		bool is_plain = *argv[i] && argv[i][strspn(argv[i], plain)] == 0;
		fputs(is_plain ? " " : " '", stderr);
		for (const char *at = argv[i]; *at; at++) {
			if (*at == '\'')
				fputs("'\\''", stderr);
			else
				mzm_cli_put(stderr, at, 1);
		}
		fputs(is_plain ? "" : "'", stderr);
	}
	fprintf(stderr, "%s\n", o->resume ? "" : " --resume");
}

/* ---- command ---- */

static mze_params params_of(const eval_options *o, const char *data, watcher *w)
{
	mze_params p = mze_params_default();
	p.task = o->task;
	p.data_path = data;
	p.fewshot_path = o->fewshot;
	p.n_shots = o->n_shots;
	p.limit = o->limit;
	p.sample = o->sample;
	p.sample_seed = o->decode.gen.seed;
	p.skip_bad_lines = o->skip_bad_lines;
	p.no_onednn = o->model.no_onednn;
	p.nominal_costs = strcmp(o->costs, "nominal") == 0;
	p.rows = o->rows;
	p.n_rows = o->n_rows;
	p.n_ctx = o->model.n_ctx;
	p.n_threads = o->model.n_threads;
	p.kv_type = o->model.kv;
	p.n_jobs = o->n_jobs;
	p.results_path = o->results;
	p.resume = o->resume;
	p.progress = on_progress;
	p.cancelled = is_cancelled;
	p.user = w;
	return p;
}

static int evaluate(const eval_options *o, const char *data, const mzm_model *model, int argc, char **argv)
{
	mzm_err err = {0};
	mze_eval *eval = NULL;
	watcher w = {.bar = mzm_cli_progress_init("answers")};
	mze_params params = params_of(o, data, &w);
	mzm_status st = mze_eval_run(&eval, model, &params, &err);
	mzm_cli_progress_clear(&w.bar);
	if (st == MZM_ECANCELLED) {
		mzm_cli_error("%s", err.message);
		print_how_to_go_on(o, argc, argv);
		return MZM_CLI_INTERRUPTED;
	}
	if (st == MZM_OK && mze_eval_n_skipped(eval) > 0 && !mzm_cli_quiet())
		fprintf(stderr, "%s: %d broken lines skipped\n", data, mze_eval_n_skipped(eval));
	if (st == MZM_OK)
		st = write_all(eval, o, &err);
	mze_eval_free(eval);
	return st == MZM_OK ? MZM_CLI_DONE : mzm_cli_fail(&err);
}

static int open_and_evaluate(eval_options *o, int argc, char **argv)
{
	mzm_err err = {0};
	mzm_model *model = NULL;
	char *data = o->data ? strdup(o->data) : NULL;
	mzm_status st = o->data ? MZM_OK : mzm_cli_data_path(&data, DEMO_DATA, &err);
	if (st == MZM_OK && !data)
		st = mzm_cli_set_err(&err, MZM_ENOMEM, "out of memory");
	mzm_cli_catch_interrupt();
	mzm_cli_model wanted = o->model;
	mzm_gen_params drafts = o->decode.gen;
	drafts.mode = strcmp(o->modes, mzm_mode_name(MZM_MODE_DENSE)) == 0 ? MZM_MODE_DENSE : MZM_MODE_SIRIUS;
	for (int32_t i = 0; i < o->n_rows; i++) { /* room for the row that takes most */
		if (mzm_gen_lossless_bytes(&o->rows[i], 1 << 10) > mzm_gen_lossless_bytes(&drafts, 1 << 10))
			drafts = o->rows[i];
	}
	wanted.n_sessions = o->n_jobs;
	wanted.drafts = &drafts;
	int code = st == MZM_OK ? mzm_cli_open_draft(&o->decode.draft, o->decode.draft_path, &command, &wanted)
				: mzm_cli_fail(&err);
	for (int32_t i = 0; i < o->n_rows; i++)
		o->rows[i].draft_model = o->decode.draft;
	if (code == MZM_CLI_GO)
		code = mzm_cli_open(&model, NULL, &command, &wanted);
	mzm_cli_note_input(data);
	mzm_cli_note_input(o->fewshot);
	if (code == MZM_CLI_GO && !mzm_model_tokenizer(model))
		st = mzm_cli_set_err(&err, MZM_EFORMAT, "%s: no tokenizer.json; without it no problem can be read",
				     mzm_model_get_info(model)->path);
	if (code == MZM_CLI_GO && st == MZM_OK)
		st = mzm_cli_file_probe(o->json, &err);
	if (code == MZM_CLI_GO && st == MZM_OK)
		st = mzm_cli_file_probe(o->report, &err);
	if (code == MZM_CLI_GO && st != MZM_OK)
		code = mzm_cli_fail(&err);
	if (code == MZM_CLI_GO)
		code = evaluate(o, data, model, argc, argv);
	mzm_model_close(model);
	free(data);
	return code;
}

int mzm_cmd_eval(int argc, char **argv)
{
	eval_options o = {.task = "gsm8k", .modes = "dense,sparse,sirius", .costs = "measured", .n_jobs = 1,
			  .max_tokens = MZE_DEFAULT_MAX_TOKENS, .model = mzm_cli_model_default(),
			  .decode = mzm_cli_decode_default()};
	mzm_cli_args args = {.max = 0};
	const mzm_opt_table tables[] = {{eval_rows, MZM_CLI_COUNT(eval_rows), &o}, mzm_cli_model_table(&o.model),
					mzm_cli_decode_table(&o.decode), mzm_cli_common_table()};
	int code = mzm_cli_parse(&command, tables, MZM_CLI_COUNT(tables), argc, argv, &args);
	if (code == MZM_CLI_GO)
		code = check_usage(&o);
	if (mzm_cli_was_given("draft") && !mzm_cli_was_given("mode"))
		o.modes = "dense,exact";
	if (code == MZM_CLI_GO)
		code = mzm_cli_split_drafts(&command, &o.drafts, &o.decode.gen);
	if (code == MZM_CLI_GO)
		code = mzm_cli_decode_finish(&command, &o.decode);
	if (code == MZM_CLI_GO)
		code = read_modes(&o);
	if (code == MZM_CLI_GO)
		code = open_and_evaluate(&o, argc, argv);
	mzm_cli_decode_free(&o.decode);
	free(o.drafts);
	return code;
}
