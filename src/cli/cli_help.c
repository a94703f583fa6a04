/* cli_help.c - prints --help from the option tables; see cli.h.
 *
 * 80 columns whatever the terminal, so that the text is the same everywhere. Defaults are read from the
 * structs that the tables fill, before the command line has touched them. */
#include "cli.h"

#include <string.h>

enum { WIDTH = 80, HELP_AT = 28, TEXT_MAX = 1024 };

typedef struct help {
	FILE *out;
	const mzm_opt_table *tables; /* [n_tables] */
	int n_tables;
} help;

/* Writes text wrapped at WIDTH, starting at column `at`, continued at column `indent`. '\n' in text breaks. */
static void put_wrapped(FILE *out, const char *text, int at, int indent)
{
	bool fresh = true; /* no word on this line yet */
	while (*text) {
		size_t n = strcspn(text, *text == '[' ? "]\n" : " \n"); /* "[default: x]" stays together */
		n += text[n] == ']';
		if (!fresh && at + 1 + (int)n > WIDTH) {
			fprintf(out, "\n%*s", indent, "");
			at = indent;
			fresh = true;
		}
		fprintf(out, "%s%.*s", fresh ? "" : " ", (int)n, text);
		at += (int)n + !fresh;
		fresh = false;
		text += n;
		if (*text == '\n') {
			fprintf(out, "\n%*s", indent, "");
			at = indent;
			fresh = true;
		}
		text += *text != 0;
	}
	fputc('\n', out);
}

void mzm_cli_option_value(char *buf, size_t cap, const mzm_opt *opt, const void *base)
{
	const void *at = (const char *)base + opt->at;
	char bytes[32];
	buf[0] = 0;
	switch (opt->type) {
	case MZM_OPT_FLAG:
	case MZM_OPT_LIST:
		break;
	case MZM_OPT_STRING:
	case MZM_OPT_CHOICE:
		snprintf(buf, cap, "%s", *(const char *const *)at ? *(const char *const *)at : "");
		break;
	case MZM_OPT_INT:
		if (opt->word && *(const int32_t *)at == opt->word_value)
			snprintf(buf, cap, "%s", opt->word);
		else if (opt->word2 && *(const int32_t *)at == opt->word2_value)
			snprintf(buf, cap, "%s", opt->word2);
		else
			snprintf(buf, cap, "%d", *(const int32_t *)at);
		break;
	case MZM_OPT_U64:
		snprintf(buf, cap, "%llu", (unsigned long long)*(const uint64_t *)at);
		break;
	case MZM_OPT_FLOAT:
		snprintf(buf, cap, "%.6g", (double)*(const float *)at);
		break;
	case MZM_OPT_SIZE:
	case MZM_OPT_MEMORY:
		snprintf(buf, cap, "%s", mzm_cli_format_bytes(bytes, *(const uint64_t *)at));
		break;
	case MZM_OPT_ENUM:
		snprintf(buf, cap, "%s", opt->choice(*(const int32_t *)at));
		break;
	}
}

/* "help text One of: a, b, c. [default: x]" */
static void compose(char *buf, size_t cap, const mzm_opt *opt, const void *base)
{
	char value[128];
	size_t n = (size_t)snprintf(buf, cap, "%s", opt->help);
	if (opt->type == MZM_OPT_ENUM || opt->type == MZM_OPT_CHOICE) {
		const char *name;
		for (int i = 0; n < cap && (name = opt->choice(i)) != NULL; i++)
			n += (size_t)snprintf(buf + n, cap - n, "%s %s", i ? "," : " One of:", name);
		n += n < cap ? (size_t)snprintf(buf + n, cap - n, ".") : 0;
	}
	if (opt->shown)
		snprintf(value, sizeof value, "%s", opt->shown);
	else
		mzm_cli_option_value(value, sizeof value, opt, base);
	if (value[0] && n < cap)
		snprintf(buf + n, cap - n, " [default: %s]", value);
}

static void put_option(FILE *out, const mzm_opt *opt, const void *base)
{
	char text[TEXT_MAX];
	bool takes = opt->type != MZM_OPT_FLAG;
	char letter[8] = "   ";
	if (opt->letter)
		snprintf(letter, sizeof letter, "-%c,", opt->letter);
	int at = fprintf(out, "  %s --%s%s%s", letter, opt->name, takes ? " " : "",
			 takes ? (opt->arg ? opt->arg : "VALUE") : "");
	if (at + 1 >= HELP_AT) {
		fputc('\n', out);
		at = 0;
	}
	fprintf(out, "%*s", HELP_AT - at, "");
	compose(text, sizeof text, opt, base);
	put_wrapped(out, text, HELP_AT, HELP_AT);
}

/* True when an earlier table has an option of this name. */
static bool is_hidden(const help *h, int table, const char *name)
{
	for (int t = 0; t < table; t++)
		for (int i = 0; i < h->tables[t].n_rows; i++)
			if (strcmp(h->tables[t].rows[i].name, name) == 0)
				return true;
	return false;
}

static const char *group_of(const mzm_opt *opt)
{
	return opt->group ? opt->group : "Options";
}

/* Prints the options of one group, whatever table they are in. */
static void put_group(const help *h, const char *group)
{
	fprintf(h->out, "\n%s%s%s\n", mzm_cli_sgr(h->out, MZM_SGR_BOLD), group, mzm_cli_sgr(h->out, MZM_SGR_RESET));
	for (int t = 0; t < h->n_tables; t++)
		for (int i = 0; i < h->tables[t].n_rows; i++) {
			const mzm_opt *opt = &h->tables[t].rows[i];
			if (strcmp(group_of(opt), group) == 0 && !is_hidden(h, t, opt->name))
				put_option(h->out, opt, h->tables[t].base);
		}
}

/* True when (table, row) is the first visible option of its group. */
static bool opens_group(const help *h, int table, int row)
{
	const char *group = group_of(&h->tables[table].rows[row]);
	for (int t = 0; t <= table; t++)
		for (int i = 0; i < (t < table ? h->tables[t].n_rows : row); i++)
			if (strcmp(group_of(&h->tables[t].rows[i]), group) == 0 &&
			    !is_hidden(h, t, h->tables[t].rows[i].name))
				return false;
	return !is_hidden(h, table, h->tables[table].rows[row].name);
}

static void put_usage(FILE *out, const mzm_cli_command *cmd)
{
	const char *line = cmd->usage, *lead = "Usage: ";
	while (*line) {
		size_t n = strcspn(line, "\n");
		int at = fprintf(out, "%smirzam %s ", lead, cmd->name);
		char form[256];
		snprintf(form, sizeof form, "%.*s", (int)n, line);
		put_wrapped(out, form, at, at);
		line += n + (line[n] != 0);
		lead = "       ";
	}
}

/* Bytes of line[0..n) that fit in `width` when " \\" must follow: up to a blank outside quotes, else all. */
static size_t fitting(const char *line, size_t n, size_t width)
{
	bool quoted = false;
	size_t best = 0;
	for (size_t i = 0; i < n && (i + 2 <= width || best == 0); i++) {
		quoted ^= line[i] == '"';
		if (line[i] == ' ' && !quoted)
			best = i;
	}
	return best ? best : n;
}

/* A command line, continued as a shell would read it when it is too long. */
static void put_example(FILE *out, const char *line, size_t n)
{
	int indent = 2;
	while (n > (size_t)(WIDTH - indent)) {
		size_t part = fitting(line, n, (size_t)(WIDTH - indent));
		if (part == n)
			break;
		fprintf(out, "%*s%.*s \\\n", indent, "", (int)part, line);
		line += part + 1;
		n -= part + 1;
		indent = 6;
	}
	fprintf(out, "%*s%.*s\n", indent, "", (int)n, line);
}

void mzm_cli_print_help(FILE *out, const mzm_cli_command *cmd, const mzm_opt_table *tables, int n_tables)
{
	help h = {out, tables, n_tables};
	put_usage(out, cmd);
	fputc('\n', out);
	put_wrapped(out, cmd->summary, 0, 0);
	for (int t = 0; t < n_tables; t++)
		for (int i = 0; i < tables[t].n_rows; i++)
			if (opens_group(&h, t, i))
				put_group(&h, group_of(&tables[t].rows[i]));
	if (!cmd->examples)
		return;
	fprintf(out, "\n%sExamples%s\n", mzm_cli_sgr(out, MZM_SGR_BOLD), mzm_cli_sgr(out, MZM_SGR_RESET));
	for (const char *line = cmd->examples; *line;) {
		size_t n = strcspn(line, "\n");
		put_example(out, line, n);
		line += n + (line[n] != 0);
	}
}
