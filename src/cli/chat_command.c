/* chat_command.c - the lines of `mirzam chat` that begin with a slash; see chat.h.
 *
 * Settings are the decoding options of the command line under their names, read by the same rows, so that ranges and
 * messages are the same. A wrong value changes nothing. */
#include "chat.h"

#include <stdlib.h>
#include <string.h>

typedef struct chat_command {
	const char *name, *arg, *help;
	int (*act)(mzm_chat_run *run, const char *arg, bool *leave); /* NULL: a decoding option of that name */
} chat_command;

static int show_help(mzm_chat_run *run, const char *arg, bool *leave);

static int usage(const char *text)
{
	mzm_cli_error("%s", text);
	return MZM_CLI_USAGE;
}

static int set_show(mzm_chat_run *run, const char *arg, bool *leave)
{
	(void)leave;
	bool drafts = strcmp(arg, "drafts") == 0, off = strcmp(arg, "off") == 0;
	if (!*arg) {
		fprintf(stderr, "show %s\n", run->hide ? "off" : run->show_drafts ? "drafts" : "on");
		return MZM_CLI_GO;
	}
	if (!drafts && !off && strcmp(arg, "on") != 0)
		return usage("show wants one of on, drafts, off");
	run->hide = off;
	run->show_drafts = drafts;
	return MZM_CLI_GO;
}

static int set_system(mzm_chat_run *run, const char *arg, bool *leave)
{
	(void)leave;
	if (!*arg) {
		const char *text = run->talk.system ? run->talk.system : "(none)";
		mzm_cli_put(stderr, text, strlen(text));
		fputc('\n', stderr);
		return MZM_CLI_GO;
	}
	bool none = strcmp(arg, "\"\"") == 0;
	char *text = none ? NULL : strdup(arg);
	if (!none && !text)
		return usage("out of memory");
	free(run->talk.system);
	run->talk.system = text;
	return MZM_CLI_GO;
}

static int clear(mzm_chat_run *run, const char *arg, bool *leave)
{
	(void)arg, (void)leave;
	mzm_talk_clear(&run->talk);
	return MZM_CLI_GO;
}

static int undo(mzm_chat_run *run, const char *arg, bool *leave)
{
	(void)arg, (void)leave;
	if (run->talk.n == 0)
		return usage("there is no turn to undo");
	const char *question = run->talk.turns[run->talk.n - 1].question;
	fputs("forgotten: ", stderr);
	mzm_cli_put_inline(stderr, question, strlen(question), mzm_cli_width(stderr) - 12);
	fputc('\n', stderr);
	mzm_talk_undo(&run->talk);
	return MZM_CLI_GO;
}

static int retry(mzm_chat_run *run, const char *arg, bool *leave)
{
	(void)arg, (void)leave;
	return run->talk.n ? mzm_chat_retry(run) : usage("there is no answer to try again");
}

static int show_stats(mzm_chat_run *run, const char *arg, bool *leave)
{
	(void)arg, (void)leave;
	if (!run->has_last)
		return usage("there is no answer to speak of");
	mzm_run_print_stats(&run->last, &run->last_gen);
	return MZM_CLI_GO;
}

static int show_tokens(mzm_chat_run *run, const char *arg, bool *leave)
{
	(void)arg, (void)leave;
	mzm_err err = {0};
	const mzm_talk *talk = &run->talk;
	int32_t *ids = NULL, n_ctx = mzm_session_n_ctx(run->session);
	size_t n = 0;
	if ((talk->n || talk->system) && mzm_talk_tokenize(talk, false, &ids, &n, &err) != MZM_OK)
		return mzm_cli_fail(&err);
	mzm_ids_free(ids);
	fprintf(stderr, "%zu of %d tokens used, %lld left; %d turn%s", n, (int)n_ctx,
		n < (size_t)n_ctx ? (long long)n_ctx - (long long)n : 0, (int)talk->n, talk->n == 1 ? "" : "s");
	if (talk->first)
		fprintf(stderr, ", %d of them left out", (int)talk->first);
	fputc('\n', stderr);
	return MZM_CLI_GO;
}

static int save(mzm_chat_run *run, const char *arg, bool *leave)
{
	(void)leave;
	mzm_err err = {0};
	if (!*arg)
		return usage("save wants a file");
	return mzm_talk_save(&run->talk, arg, &err) == MZM_OK ? MZM_CLI_GO : mzm_cli_fail(&err);
}

static int load(mzm_chat_run *run, const char *arg, bool *leave)
{
	(void)leave;
	mzm_err err = {0};
	if (!*arg)
		return usage("load wants a file");
	return mzm_talk_load(&run->talk, arg, &err) == MZM_OK ? MZM_CLI_GO : mzm_cli_fail(&err);
}

/* The names stay as long as they are the setting. */
static int set_draft(mzm_chat_run *run, const char *arg, bool *leave)
{
	(void)leave;
	mzm_err err = {0};
	mzm_gen_params next = run->decode.gen;
	if (!*arg) {
		fprintf(stderr, "draft %s\n", next.draft);
		return MZM_CLI_GO;
	}
	next.draft = arg;
	if (mzm_gen_params_check(&next, &err) != MZM_OK)
		return mzm_cli_fail(&err);
	char *names = strdup(arg);
	if (!names)
		return usage("out of memory");
	free(run->draft);
	run->decode.gen.draft = run->draft = names;
	return MZM_CLI_GO;
}

static int quit(mzm_chat_run *run, const char *arg, bool *leave)
{
	(void)run, (void)arg;
	*leave = true;
	return MZM_CLI_GO;
}

static const chat_command commands[] = {
	{"help", "", "this list", show_help},
	{"mode", "MODE", "dense, sparse, sirius, exact or lossless", NULL},
	{"draft", "NAMES", "what writes the drafts; several with + between them, or auto", set_draft},
	{"keep", "SHARE", "share of FFN neurons that a sparse pass keeps", NULL},
	{"period", "N|auto", "tokens a check", NULL},
	{"predictor", "NAME", "what chooses the neurons of a sparse pass", NULL},
	{"check-below", "P", "check early behind a draft token less likely to be kept; 0 = never", NULL},
	{"threshold", "P", "probability from which sirius mode keeps a draft token", NULL},
	{"accept", "RULE", "when sirius mode keeps a draft token", NULL},
	{"check-temp", "T", "temperature of that test", NULL},
	{"temp", "T", "temperature; 0: always the likeliest token", NULL},
	{"top-k", "K", "only the K likeliest tokens; 0: off", NULL},
	{"top-p", "P", "only the likeliest that together have probability P; 1: off", NULL},
	{"min-p", "P", "only tokens at least P times as likely as the likeliest", NULL},
	{"repeat-penalty", "X", "penalty on tokens that were there before; 1: off", NULL},
	{"repeat-last", "N", "how many tokens back it looks", NULL},
	{"seed", "N", "of sampling", NULL},
	{"max-tokens", "N", "of an answer; 0: until the context is full", NULL},
	{"show", "on|drafts|off", "mark corrected tokens; drafts: dropped ones too (in colour only)", set_show},
	{"system", "TEXT", "what the model is told before all else; \"\": nothing", set_system},
	{"clear", "", "forget what was said", clear},
	{"undo", "", "forget the last question and its answer", undo},
	{"retry", "", "answer the last question again", retry},
	{"stats", "", "speed, tokens a check and density of the last answer", show_stats},
	{"tokens", "", "how much of the context is used", show_tokens},
	{"save", "FILE", "write the conversation, one JSON line a message", save},
	{"load", "FILE", "go on with one that was saved", load},
	{"quit", "", "leave (as Ctrl-D does)", quit},
};

static int show_help(mzm_chat_run *run, const char *arg, bool *leave)
{
	(void)run, (void)arg, (void)leave;
	for (int i = 0; i < MZM_CLI_COUNT(commands); i++) {
		int at = fprintf(stderr, "  /%s %s", commands[i].name, commands[i].arg);
		fprintf(stderr, "%*s%s\n", at < 24 ? 24 - at : 2, "", commands[i].help);
	}
	fputs("A setting without a value shows its value. A line that ends in \\ goes on; \"\"\" begins and ends a\n"
	      "message of several lines; // begins one that starts with a slash. Ctrl-C stops an answer.\n",
	      stderr);
	return MZM_CLI_GO;
}

const char *mzm_chat_command_name(int i)
{
	return i < MZM_CLI_COUNT(commands) ? commands[i].name : NULL;
}

static const chat_command *find(const char *name)
{
	for (int i = 0; i < MZM_CLI_COUNT(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static const char *candidate(int i, const void *user)
{
	(void)user;
	return mzm_chat_command_name(i);
}

static int unknown(const char *name)
{
	const char *near = mzm_cli_nearest(name, candidate, NULL);
	int at = 0;
	mzm_cli_error("unknown command /%s%s%s%s", name, near ? "; did you mean /" : "", near ? near : "",
		      near ? "?" : "");
	for (int i = 0; i < MZM_CLI_COUNT(commands); i++) {
		int n = (int)strlen(commands[i].name) + 2;
		if (at + n > 78) {
			fputc('\n', stderr);
			at = 0;
		}
		at += fprintf(stderr, "%s/%s", at ? " " : "", commands[i].name);
	}
	fputc('\n', stderr);
	return MZM_CLI_USAGE;
}

/* On a copy: it becomes the setting only when the whole of it is right. */
static int set_option(mzm_chat_run *run, const char *name, const char *arg)
{
	mzm_err err = {0};
	mzm_cli_decode next = run->decode;
	mzm_opt_table table = mzm_cli_decode_table(&next);
	if (!*arg) {
		char value[64];
		mzm_cli_option_value(value, sizeof value, mzm_cli_option_find(&table, name), &next);
		fprintf(stderr, "%s %s\n", name, value);
		return MZM_CLI_GO;
	}
	if (mzm_cli_option_set(&table, name, arg, &err) != MZM_OK || mzm_gen_params_check(&next.gen, &err) != MZM_OK)
		return mzm_cli_fail(&err);
	run->decode.gen = next.gen;
	return MZM_CLI_GO;
}

int mzm_chat_command(mzm_chat_run *run, const char *line, bool *leave)
{
	char name[32], *arg;
	size_t n = strcspn(line + 1, " \t\n");
	*leave = false;
	snprintf(name, sizeof name, "%.*s", n < sizeof name ? (int)n : (int)sizeof name - 1, line + 1);
	line += 1 + n;
	line += strspn(line, " \t\n");
	if (!(arg = strdup(line)))
		return usage("out of memory");
	for (n = strlen(arg); n && strchr(" \t\n", arg[n - 1]); n--)
		arg[n - 1] = 0;
	const chat_command *command = find(name);
	int code = !command ? unknown(name)
		   : command->act ? command->act(run, arg, leave)
				  : set_option(run, name, arg);
	free(arg);
	return code;
}
