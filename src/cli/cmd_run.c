/* cmd_run.c - `mirzam run`: one prompt, its continuation; see run.h for the parts.
 *
 * Standard output carries the text (or the JSON) and nothing else; everything for people goes to
 * stderr. */
#include "run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const mzm_cli_command command = {
	.name = "run",
	.usage = "[-m MODEL] -p PROMPT [options]\n[-m MODEL] -f FILE [options]\n[-m MODEL] --question TEXT [options]",
	.summary = "Continues a prompt. The text goes to standard output as it is verified; on a terminal, tokens that "
		   "the full model corrected are marked.",
	.examples =
		"mirzam run --compare --question \"There are 17 apples. Ben buys 5 more. How many apples are there?\"\n"
		"mirzam run -m model.mzm -p \"Once upon a time\" -n 100 --mode exact --stats\n"
		"mirzam run --mode sirius --predictor topk --keep 0.3 --period auto -p \"...\"\n"
		"mirzam run -p \"...\" --mode sirius --json --trace tokens.jsonl\n"
		"mirzam run -p - < prompt.txt\n"
		"mirzam run -p \"...\" --stop $'\\n\\n' --temp 0.8 --top-p 0.95 --seed 7",
};

#define RUN(field) .at = offsetof(mzm_run, field)
#define PROMPT     .group = "Prompt"
#define OUTPUT     .group = "Output"

static const mzm_opt run_options[] = {
	{.name = "prompt", .letter = 'p', .type = MZM_OPT_STRING, RUN(prompt), PROMPT, .arg = "TEXT",
	 .help = "The prompt; -: read standard input."},
	{.name = "file", .letter = 'f', .type = MZM_OPT_STRING, RUN(file), PROMPT, .arg = "FILE",
	 .help = "The prompt from a file (as from standard input, one final line end is dropped)."},
	{.name = "question", .type = MZM_OPT_STRING, RUN(question), PROMPT, .arg = "TEXT",
	 .help = "The prompt \"Question: TEXT\", new line, \"Answer:\", as the demo model was taught."},
	{.name = "parse-special", .type = MZM_OPT_FLAG, RUN(parse_special), PROMPT,
	 .help = "The text of a special token in the prompt becomes that token."},

	{.name = "compare", .type = MZM_OPT_FLAG, RUN(compare), OUTPUT,
	 .help = "Run dense, sparse and sirius mode and show them side by side."},
	{.name = "show-drafts", .type = MZM_OPT_FLAG, RUN(show_drafts), OUTPUT,
	 .help = "Also show dropped draft tokens, struck out (in colour only)."},
	{.name = "stats", .type = MZM_OPT_FLAG, RUN(stats), OUTPUT, .help = "A summary on stderr at the end."},
	{.name = "json", .type = MZM_OPT_FLAG, RUN(json), OUTPUT,
	 .help = "Instead of the text, one JSON object with tokens, text and every counter."},
	{.name = "trace", .type = MZM_OPT_STRING, RUN(trace), OUTPUT, .arg = "FILE",
	 .help = "Write one JSON line a token decided: kept, corrected or rolled back, with its probabilities."},
};

/* ---- prompt ---- */

/* A text file ends in a line end that is not part of the prompt. */
static mzm_status read_text(mzm_cli_bytes *text, FILE *f, const char *name, mzm_err *err)
{
	mzm_status st = mzm_cli_read_stream(text, f, name, err);
	if (st == MZM_OK && text->n && text->data[text->n - 1] == '\n')
		text->n--;
	return st;
}

static mzm_status read_file(mzm_cli_bytes *text, const char *path, mzm_err *err)
{
	FILE *f = fopen(path, "re");
	if (!f)
		return mzm_cli_set_err(err, MZM_EIO, "%s: %s", path, strerror(errno));
	mzm_status st = read_text(text, f, path, err);
	mzm_cli_note_input(path);
	fclose(f);
	return st;
}

static mzm_status read_prompt(mzm_run *run, mzm_err *err)
{
	mzm_status st = MZM_OK;
	if (run->file)
		st = read_file(&run->text, run->file, err);
	else if (run->prompt && strcmp(run->prompt, "-") == 0)
		st = read_text(&run->text, stdin, "standard input", err);
	else if (run->prompt)
		mzm_cli_bytes_add(&run->text, run->prompt, strlen(run->prompt));
	if (run->question) {
		mzm_cli_bytes_add(&run->text, "Question: ", 10);
		mzm_cli_bytes_add(&run->text, run->question, strlen(run->question));
		mzm_cli_bytes_add(&run->text, "\nAnswer:", 8);
	}
	if (st == MZM_OK && run->text.failed)
		st = mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for the prompt");
	return st;
}

static mzm_status tokenize_prompt(mzm_run *run, mzm_err *err)
{
	const mzm_tokenizer *tok = mzm_model_tokenizer(run->model);
	unsigned flags = run->decode.gen.no_special ? 0 : MZM_TOK_ADD_SPECIAL;
	if (run->parse_special)
		flags |= MZM_TOK_PARSE_SPECIAL;
	if (!tok)
		return mzm_cli_set_err(err, MZM_EFORMAT,
				       "%s: no tokenizer.json; without it there is no text to continue",
				       mzm_model_get_info(run->model)->path);
	mzm_status st = mzm_tokenize(tok, run->text.data ? run->text.data : "", run->text.n, flags, &run->ids,
				     &run->n_ids, err);
	if (st == MZM_OK && run->n_ids > INT32_MAX)
		st = mzm_cli_set_err(err, MZM_ECONTEXT, "the prompt has %zu tokens", run->n_ids);
	return st;
}

/* ---- generation ---- */

static void print_json(const mzm_run *run, const mzm_gen_params *gen, const mzm_gen_result *r,
		       const mzm_run_sink *s, mzm_err *err)
{
	json_t *root = mzm_run_head_json(run, gen);
	if (!root || mzm_run_answer_json(root, r, gen, s->text.data, s->text.n))
		mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for JSON output");
	else
		mzm_cli_json_write(root, NULL, err);
	json_decref(root);
}

static int generate(mzm_run *run)
{
	mzm_err err = {0}, gen_err = {0};
	mzm_gen_params gen = run->decode.gen;
	mzm_gen_result result = {0};
	mzm_run_sink s;
	mzm_status done = MZM_OK;
	if (mzm_run_sink_open(&s, mzm_model_tokenizer(run->model), !run->json, run->show_drafts, run->trace, &err) ==
	    MZM_OK) {
		mzm_run_sink_bind(&s, &gen);
		done = mzm_generate(run->session, run->ids, (int32_t)run->n_ids, &gen, &result, &gen_err);
	}
	mzm_run_sink_close(&s, &err); /* err keeps the first failure */
	if (err.code == MZM_OK && done == MZM_OK && run->json)
		print_json(run, &gen, &result, &s, &err);
	free(s.text.data);
	if (err.code != MZM_OK)
		return mzm_cli_fail(&err);
	if (done == MZM_OK && run->stats)
		mzm_run_print_stats(&result, &gen);
	if (done == MZM_OK && run->model_options.plan)
		mzm_cli_print_outcome(mzm_model_get_plan(run->model), &result);
	return done == MZM_OK ? mzm_cli_exit_code(MZM_OK) : mzm_cli_fail_usage(run->cmd, &gen_err);
}

/* ---- command ---- */

static int check_usage(const mzm_run *run)
{
	int n = (run->prompt != NULL) + (run->file != NULL) + (run->question != NULL);
	if (n == 0)
		return mzm_cli_usage_error(&command,
					   "no prompt: give -p TEXT, -f FILE or --question TEXT, or -p - to read "
					   "standard input");
	if (n > 1)
		return mzm_cli_usage_error(&command, "more than one prompt: give one of -p, -f and --question");
	if (run->compare && mzm_cli_was_given("mode"))
		return mzm_cli_usage_error(&command, "--compare runs dense, sparse and sirius; it takes no --mode");
	if (run->compare && run->trace)
		return mzm_cli_usage_error(&command, "--trace is of one generation; it does not go with --compare");
	return MZM_CLI_GO;
}

static int work(mzm_run *run)
{
	mzm_err err = {0};
	if (read_prompt(run, &err) != MZM_OK)
		return mzm_cli_fail_usage(&command, &err);
	mzm_cli_catch_interrupt();
	run->model_options.drafts = &run->decode.gen;
	int code = mzm_cli_open_draft(&run->decode.draft, run->decode.draft_path, &command, &run->model_options);
	run->decode.gen.draft_model = run->decode.draft;
	if (code == MZM_CLI_GO)
		code = mzm_cli_open(&run->model, &run->session, &command, &run->model_options);
	if (code != MZM_CLI_GO)
		return code;
	if (tokenize_prompt(run, &err) != MZM_OK)
		return mzm_cli_fail(&err);
	return run->compare ? mzm_run_compare(run) : generate(run);
}

int mzm_cmd_run(int argc, char **argv)
{
	mzm_run run = {.cmd = &command, .model_options = mzm_cli_model_default(), .decode = mzm_cli_decode_default()};
	mzm_cli_args args = {0};
	const mzm_opt_table tables[] = {{run_options, MZM_CLI_COUNT(run_options), &run},
					mzm_cli_model_table(&run.model_options), mzm_cli_decode_table(&run.decode),
					mzm_cli_common_table()};
	int code = mzm_cli_parse(&command, tables, MZM_CLI_COUNT(tables), argc, argv, &args);
	if (code == MZM_CLI_GO)
		code = check_usage(&run);
	if (run.compare)
		run.decode.gen.mode = MZM_MODE_SIRIUS; /* the check is for the strictest of the three */
	if (code == MZM_CLI_GO)
		code = mzm_cli_decode_finish(&command, &run.decode);
	if (code == MZM_CLI_GO)
		code = work(&run);
	mzm_ids_free(run.ids);
	mzm_session_free(run.session);
	mzm_model_close(run.model);
	mzm_cli_decode_free(&run.decode);
	free(run.text.data);
	return code;
}
