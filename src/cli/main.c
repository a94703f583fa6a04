/* main.c - the program `mirzam`: finds the command, and sees that the output arrived. */
#include "cli.h"

#include <signal.h>
#include <string.h>

typedef struct command_row {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
} command_row;

static const command_row commands[] = {
	{"run", mzm_cmd_run, "continue a prompt; compare dense, sparse and corrected decoding"},
	{"chat", mzm_cmd_chat, "talk with a model, by its own template"},
	{"eval", mzm_cmd_eval, "measure accuracy, work and speed on a set of problems"},
	{"bench", mzm_cmd_bench, "measure speeds against what this machine can do"},
	{"calibrate", mzm_cmd_calibrate, "learn from text which neurons a model uses when"},
	{"import", mzm_cmd_import, "write a .mzm container from a Hugging Face directory or a GGUF file"},
	{"inspect", mzm_cmd_inspect, "describe a model file, check its checksums"},
	{"synth", mzm_cmd_synth, "write a model for measuring speed: random weights, or one made wider"},
	{"tokenize", mzm_cmd_tokenize, "text to tokens and back"},
};

static const command_row *find(const char *name)
{
	for (int i = 0; i < MZM_CLI_COUNT(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static const char *command_name(int i, const void *user)
{
	(void)user;
	return i < MZM_CLI_COUNT(commands) ? commands[i].name : NULL;
}

static int print_help(FILE *out)
{
	fprintf(out,
		"Usage: mirzam COMMAND [options]\n\n"
		"Language models on the CPU: a sparse pass drafts tokens, the full model corrects them.\n\nCommands\n");
	for (int i = 0; i < MZM_CLI_COUNT(commands); i++)
		fprintf(out, "  %-10s  %s\n", commands[i].name, commands[i].summary);
	fprintf(out, "\n  mirzam COMMAND --help   options of a command, with examples\n"
		     "  mirzam --version        version, build, kernels of this CPU\n\n"
		     "Without -m, commands use the demo model that comes with the program.\n"
		     "Exit codes: 0 done, 1 failed at work, 2 wrong usage, 3 bad or unsupported input file,\n"
		     "130 interrupted.\n");
	return MZM_CLI_DONE;
}

static int print_version(void)
{
	const char *name;
	printf("mirzam %s\n%s\nkernels:", mzm_version(), mzm_build_info());
	for (int i = 0; (name = mzm_isa_name(i)) != NULL; i++)
		printf(" %s", name);
	printf("\ndrafters:");
	for (int i = 0; (name = mzm_drafter_name(i)) != NULL; i++)
		printf(" %s", name);
	printf("\npredictors:");
	for (int i = 0; (name = mzm_predictor_name(i)) != NULL; i++)
		printf(" %s", name);
	putchar('\n');
	return MZM_CLI_DONE;
}

static int no_command(const char *name)
{
	const char *near = name[0] == '-' ? NULL : mzm_cli_nearest(name, command_name, NULL);
	return mzm_cli_usage_error(NULL, "unknown %s %s%s%s%s", name[0] == '-' ? "option" : "command", name,
				   near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static int help_on(const char *name)
{
	char command[32], option[] = "--help", *argv[] = {command, option, NULL};
	const command_row *row = find(name);
	if (!row)
		return no_command(name);
	snprintf(command, sizeof command, "%s", row->name);
	return row->run(2, argv);
}

static int dispatch(int argc, char **argv)
{
	if (argc < 2) {
		print_help(stderr);
		return MZM_CLI_USAGE;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
		return print_version();
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return print_help(stdout);
	if (strcmp(argv[1], "help") == 0)
		return argc > 2 ? help_on(argv[2]) : print_help(stdout);
	const command_row *row = find(argv[1]);
	return row ? row->run(argc - 1, argv + 1) : no_command(argv[1]);
}

int main(int argc, char **argv)
{
	mzm_err err = {0};
	signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of writing, found by mzm_cli_flush */
	int code = dispatch(argc, argv);
	if (code == MZM_CLI_DONE && mzm_cli_flush(stdout, "standard output", &err) != MZM_OK)
		code = mzm_cli_fail(&err);
	return code;
}
