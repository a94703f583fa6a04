/* cmd_chat.c - `mirzam chat`: questions and answers until there are no more; see chat.h for the parts.
 *
 * At a terminal each failure is shown and the talk goes on. Where questions are piped in it goes on too, and the
 * program ends with the exit code of the first failure. */
#include "chat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const mzm_cli_command command = {
	.name = "chat",
	.usage = "[-m MODEL] [--template FILE] [options]",
	.summary = "Talks with a model. Without a terminal each line of standard input is a question, and standard "
		   "output has the answers alone. A line that ends in \\ goes on; \"\"\" begins and ends a message of "
		   "several lines; a line that begins with / is a command (/help lists them), with // a message.",
	.examples =
		"mirzam chat -m model.gguf --system \"You are brief.\"\n"
		"mirzam chat -m model.mzm --mode exact --predictor topk --stats\n"
		"mirzam chat -m base.gguf --template chatml -n 200\n"
		"echo \"There are 17 apples. Ben buys 5 more. How many are there?\" | mirzam chat --template plain\n"
		"mirzam chat -m model.mzm --json < questions.txt > answers.jsonl\n"
		"mirzam chat -m model.mzm --load talk.jsonl --save talk.jsonl",
};

#define CHAT(field) .at = offsetof(mzm_chat_run, field)
#define TALK        .group = "Conversation"
#define OUTPUT      .group = "Output"

static const mzm_opt chat_options[] = {
	{.name = "system", .type = MZM_OPT_STRING, CHAT(system), TALK, .arg = "TEXT",
	 .help = "What the model is told before all else."},
	{.name = "system-file", .type = MZM_OPT_STRING, CHAT(system_file), TALK, .arg = "FILE",
	 .help = "The same from a file."},
	{.name = "template", .type = MZM_OPT_STRING, CHAT(template), TALK, .arg = "FILE",
	 .shown = "the model's own",
	 .help = "How a conversation becomes a prompt: a file with a Jinja template, or one that is built in: chatml, "
		 "llama2, llama3, mistral, zephyr, plain (\"Question:\", \"Answer:\")."},
	{.name = "load", .type = MZM_OPT_STRING, CHAT(load), TALK, .arg = "FILE",
	 .help = "Go on with a conversation that was saved."},
	{.name = "save", .type = MZM_OPT_STRING, CHAT(save), TALK, .arg = "FILE",
	 .help = "Write the conversation at the end, one JSON line a message."},
	{.name = "no-history", .type = MZM_OPT_FLAG, CHAT(no_history), TALK,
	 .help = "Neither read nor write the file of lines typed before ($XDG_STATE_HOME/mirzam/history)."},

	{.name = "show-drafts", .type = MZM_OPT_FLAG, CHAT(show_drafts), OUTPUT,
	 .help = "Also show dropped draft tokens, struck out (in colour only)."},
	{.name = "stats", .type = MZM_OPT_FLAG, CHAT(stats), OUTPUT, .help = "A summary on stderr after each answer."},
	{.name = "json", .type = MZM_OPT_FLAG, CHAT(json), OUTPUT,
	 .help = "Instead of the text, one line of JSON an answer, with tokens, text and every counter."},
};

/* ---- set-up ---- */

static mzm_status read_system(mzm_chat_run *run, mzm_err *err)
{
	mzm_cli_bytes text = {0};
	if (run->system && !*run->system)
		return MZM_OK;
	if (run->system) {
		run->talk.system = strdup(run->system);
		return run->talk.system ? MZM_OK : mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
	}
	if (!run->system_file)
		return MZM_OK;
	FILE *f = fopen(run->system_file, "re");
	if (!f)
		return mzm_cli_set_err(err, MZM_EIO, "%s: %s", run->system_file, strerror(errno));
	mzm_status st = mzm_cli_read_stream(&text, f, run->system_file, err);
	mzm_cli_note_input(run->system_file);
	fclose(f);
	if (st == MZM_OK && text.n && text.data[text.n - 1] == '\n')
		text.n--;
	mzm_cli_bytes_add(&text, "", 1);
	if (st == MZM_OK && (text.failed || strlen(text.data) + 1 != text.n))
		st = mzm_cli_set_err(err, MZM_EFORMAT, "%s: a NUL in the text", run->system_file);
	run->talk.system = text.data;
	return st;
}

/* What is given with the command, before a model is opened. */
static mzm_status gather(mzm_chat_run *run, mzm_err *err)
{
	mzm_status st = mzm_chat_form_find(&run->form, run->template, err);
	if (st == MZM_OK && run->load)
		st = mzm_talk_load(&run->talk, run->load, err);
	if (st == MZM_OK && (run->system || run->system_file)) {
		free(run->talk.system);
		run->talk.system = NULL;
		st = read_system(run, err);
	}
	return st == MZM_OK ? mzm_cli_file_probe(run->save, err) : st;
}

static bool is_listed(const mzm_cli_list *list, const char *text)
{
	for (int32_t i = 0; i < list->n; i++)
		if (strcmp(list->item[i], text) == 0)
			return true;
	return false;
}

/* Answers end at the template's own end too. */
static mzm_status add_stops(mzm_chat_run *run, mzm_err *err)
{
	const char *ends[] = {mzm_chat_end(run->chat), run->form.stop};
	mzm_cli_list *stop = &run->decode.stop;
	for (int i = 0; i < MZM_CLI_COUNT(ends); i++)
		if (ends[i] && !is_listed(stop, ends[i]) && !mzm_cli_list_add(stop, ends[i]))
			return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
	run->decode.gen.stop = stop->item;
	run->decode.gen.n_stop = stop->n;
	return MZM_OK;
}

/* A template that refuses this system message would refuse every question. */
static mzm_status try_template(mzm_chat_run *run, mzm_err *err)
{
	mzm_talk probe = {.chat = run->chat, .system = run->talk.system};
	int32_t *ids = NULL;
	size_t n;
	mzm_status st = mzm_talk_ask(&probe, "?", err);
	if (st == MZM_OK)
		st = mzm_talk_tokenize(&probe, true, &ids, &n, err);
	mzm_ids_free(ids);
	probe.system = NULL;
	mzm_talk_free(&probe);
	return st;
}

static int open_chat(mzm_chat_run *run)
{
	mzm_err err = {0}, inner = {0};
	mzm_status st = mzm_chat_create(&run->chat, run->model, run->form.text, &inner);
	run->talk.chat = run->chat;
	if (st == MZM_OK)
		st = try_template(run, &inner);
	if (st != MZM_OK && run->template)
		mzm_cli_set_err(&err, st, "template %s: %s", run->template, inner.message);
	else if (st == MZM_EUNSUPPORTED || st == MZM_EFORMAT)
		mzm_cli_set_err(&err, st, "%s\nname a template with --template: a file, or one of %s", inner.message,
				mzm_chat_form_names());
	else if (st != MZM_OK)
		mzm_cli_set_err(&err, st, "the template of the model: %s", inner.message);
	if (st == MZM_OK)
		st = add_stops(run, &err);
	return st == MZM_OK ? MZM_CLI_GO : mzm_cli_fail(&err);
}

/* ---- the talk ---- */

static void greet(const mzm_chat_run *run)
{
	if (!mzm_chat_line_is_terminal(run->in) || mzm_cli_quiet())
		return;
	fprintf(stderr, "%s, template %s, %s mode, %d tokens of context. /help lists commands, Ctrl-D ends.\n",
		mzm_model_get_info(run->model)->path, run->form.name, mzm_mode_name(run->decode.gen.mode),
		(int)mzm_session_n_ctx(run->session));
}

static int ask(mzm_chat_run *run, const char *question)
{
	mzm_err err = {0};
	if (mzm_talk_ask(&run->talk, question, &err) != MZM_OK)
		return mzm_cli_fail(&err);
	return mzm_chat_answer(run);
}

static int handle(mzm_chat_run *run, const char *text, bool block, bool *leave)
{
	if (!text[strspn(text, " \t\n")])
		return MZM_CLI_GO;
	if (text[0] != '/' || block)
		return ask(run, text);
	return text[1] == '/' ? ask(run, text + 1) : mzm_chat_command(run, text, leave);
}

/* The exit code: at a terminal that of what ended the talk, else that of the first failure. */
static int converse(mzm_chat_run *run)
{
	int first = MZM_CLI_DONE;
	bool leave = false;
	while (!leave && !run->over) {
		mzm_err err = {0};
		char *text;
		mzm_line_kind kind = mzm_chat_line_read(run->in, &text, &err);
		if (kind == MZM_LINE_END)
			break;
		if (kind == MZM_LINE_FAILED)
			return mzm_cli_fail(&err);
		int code = handle(run, text, kind == MZM_LINE_BLOCK, &leave);
		free(text);
		if (code == MZM_CLI_INTERRUPTED || run->over)
			return code;
		if (code != MZM_CLI_GO && first == MZM_CLI_DONE && !mzm_chat_line_is_terminal(run->in))
			first = code;
	}
	return first;
}

static int work(mzm_chat_run *run)
{
	mzm_err err = {0};
	if (gather(run, &err) != MZM_OK)
		return mzm_cli_fail_usage(&command, &err);
	mzm_cli_catch_interrupt();
	run->model_options.drafts = &run->decode.gen;
	int code = mzm_cli_open_draft(&run->decode.draft, run->decode.draft_path, &command, &run->model_options);
	run->decode.gen.draft_model = run->decode.draft;
	if (code == MZM_CLI_GO)
		code = mzm_cli_open(&run->model, &run->session, &command, &run->model_options);
	if (code == MZM_CLI_GO)
		code = open_chat(run);
	if (code != MZM_CLI_GO || mzm_cli_interrupted())
		return code != MZM_CLI_GO ? code : MZM_CLI_INTERRUPTED;
	char *history = run->no_history ? NULL : mzm_chat_history_path();
	mzm_status st = mzm_chat_line_open(&run->in, history, &err);
	free(history);
	if (st != MZM_OK)
		return mzm_cli_fail(&err);
	mzm_cli_forget_interrupt(mzm_chat_line_is_terminal(run->in));
	greet(run);
	code = converse(run);
	if (run->save && mzm_talk_save(&run->talk, run->save, &err) != MZM_OK && code == MZM_CLI_DONE)
		code = mzm_cli_fail(&err);
	return code;
}

static int check_usage(const mzm_chat_run *run)
{
	if (run->system && run->system_file)
		return mzm_cli_usage_error(&command, "more than one system message: give one of --system and "
						     "--system-file");
	if (run->decode.gen.no_special)
		return mzm_cli_usage_error(&command, "--no-special is of run: the template says what begins a prompt");
	return MZM_CLI_GO;
}

int mzm_cmd_chat(int argc, char **argv)
{
	mzm_chat_run run = {.cmd = &command, .model_options = mzm_cli_model_default(),
			    .decode = mzm_cli_decode_default()};
	mzm_cli_args args = {0};
	const mzm_opt_table tables[] = {{chat_options, MZM_CLI_COUNT(chat_options), &run},
					mzm_cli_model_table(&run.model_options), mzm_cli_decode_table(&run.decode),
					mzm_cli_common_table()};
	int code = mzm_cli_parse(&command, tables, MZM_CLI_COUNT(tables), argc, argv, &args);
	if (code == MZM_CLI_GO)
		code = check_usage(&run);
	if (code == MZM_CLI_GO)
		code = mzm_cli_decode_finish(&command, &run.decode);
	if (code == MZM_CLI_GO)
		code = work(&run);
	mzm_chat_line_close(run.in);
	mzm_talk_free(&run.talk);
	mzm_chat_free(run.chat);
	mzm_session_free(run.session);
	mzm_model_close(run.model);
	mzm_cli_decode_free(&run.decode);
	free(run.form.text);
	free(run.draft);
	return code;
}
