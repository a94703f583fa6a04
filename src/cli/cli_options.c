/* cli_options.c - reads a command line by option tables; see cli.h.
 *
 * Workload: one command line a process. Every message names the option, what it wants and what it got.
 * Not here: --help (cli_help.c), the tables themselves (cli_params.c and the commands). */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_GIVEN = 128, TEXT_MAX = 512, NAME_MAX_LEN = 48 };

typedef struct parser {
	const mzm_cli_command *cmd;
	const mzm_opt_table   *tables; /* [n_tables] */
	int                    n_tables;
} parser;

static const char *given[MAX_GIVEN]; /* names set by the command line last read */
static int n_given;

/* ---- lists ---- */

bool mzm_cli_list_add(mzm_cli_list *list, const char *item)
{
	if (list->n == list->cap) {
		int32_t cap = list->cap ? list->cap * 2 : 8;
		const char **grown = list->cap > INT_MAX / 2 ? NULL : realloc(list->item, (size_t)cap * sizeof *grown);
		if (!grown)
			return false;
		list->item = grown;
		list->cap = cap;
	}
	list->item[list->n++] = item;
	return true;
}

void mzm_cli_list_free(mzm_cli_list *list)
{
	free(list->item);
	*list = (mzm_cli_list){0};
}

/* ---- did you mean ---- */

/* Edits (insert, delete, replace, swap of neighbours) between a and b; large when either is long. */
static int edit_distance(const char *a, const char *b)
{
	int row[3][NAME_MAX_LEN + 1];
	size_t na = strlen(a), nb = strlen(b);
	if (na > NAME_MAX_LEN || nb > NAME_MAX_LEN)
		return INT_MAX;
	for (size_t i = 0; i <= na; i++) {
		int *cur = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];
		cur[0] = (int)i;
		for (size_t j = 1; j <= nb; j++) {
			if (i == 0) {
				cur[j] = (int)j;
				continue;
			}
			int best = up[j - 1] + (a[i - 1] != b[j - 1]);
			best = up[j] + 1 < best ? up[j] + 1 : best;
			best = cur[j - 1] + 1 < best ? cur[j - 1] + 1 : best;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && up2[j - 2] + 1 < best)
				best = up2[j - 2] + 1;
			cur[j] = best;
		}
	}
	return row[na % 3][nb];
}

const char *mzm_cli_nearest(const char *text, const char *(*candidate)(int i, const void *user), const void *user)
{
	const char *nearest = NULL, *name;
	size_t len = strlen(text);
	int best = len < 4 ? 2 : 3; /* further away than this minus one is a guess */
	for (int i = 0; (name = candidate(i, user)) != NULL; i++) {
		int d = edit_distance(text, name);
		if (d > 1 && len >= 3 && strncmp(text, name, len) == 0)
			d = 1; /* an abbreviation */
		if (d < best && d < (int)strlen(name)) {
			best = d;
			nearest = name;
		}
	}
	return nearest;
}

/* ---- look-up ---- */

static const mzm_opt *row_at(const parser *p, int i, void **base)
{
	for (int t = 0; t < p->n_tables; i -= p->tables[t++].n_rows)
		if (i < p->tables[t].n_rows) {
			*base = p->tables[t].base;
			return &p->tables[t].rows[i];
		}
	return NULL;
}

static const char *row_name(int i, const void *user)
{
	void *base;
	const mzm_opt *opt = row_at(user, i, &base);
	return opt ? opt->name : NULL;
}

/* By name[0..n), or by letter when name is NULL. The first table wins. */
static const mzm_opt *find(const parser *p, const char *name, size_t n, char letter, void **base)
{
	const mzm_opt *opt;
	for (int i = 0; (opt = row_at(p, i, base)) != NULL; i++)
		if (name ? strlen(opt->name) == n && memcmp(opt->name, name, n) == 0 : opt->letter == letter)
			return opt;
	return NULL;
}

bool mzm_cli_was_given(const char *name)
{
	for (int i = 0; i < n_given; i++)
		if (strcmp(given[i], name) == 0)
			return true;
	return false;
}

static void note_given(const char *name)
{
	if (n_given < MAX_GIVEN && !mzm_cli_was_given(name))
		given[n_given++] = name;
}

/* ---- values ---- */

static const char *choice_at(int i, const void *user)
{
	return ((const mzm_opt *)user)->choice(i);
}

static void describe_range(char *buf, size_t cap, const mzm_opt *opt, const char *what)
{
	bool open = opt->type == MZM_OPT_INT ? opt->max >= INT32_MAX : opt->max >= 1e9;
	char words[NAME_MAX_LEN] = "";
	if (opt->word)
		snprintf(words, sizeof words, "%s%s%s%s", opt->word2 ? ", " : " or ", opt->word,
			 opt->word2 ? " or " : "", opt->word2 ? opt->word2 : "");
	if (opt->open_min && open)
		snprintf(buf, cap, "%s above %.10g%s", what, opt->min, words);
	else if (opt->open_min)
		snprintf(buf, cap, "%s above %.10g and at most %.10g%s", what, opt->min, opt->max, words);
	else if (open)
		snprintf(buf, cap, "%s of %.10g or more%s", what, opt->min, words);
	else
		snprintf(buf, cap, "%s from %.10g to %.10g%s", what, opt->min, opt->max, words);
}

/* What the option wants, for messages: "a number above 0 and at most 1". */
static const char *describe(char *buf, size_t cap, const mzm_opt *opt)
{
	char low[32], high[32];
	switch (opt->type) {
	case MZM_OPT_INT:
		describe_range(buf, cap, opt, "a whole number");
		break;
	case MZM_OPT_FLOAT:
		describe_range(buf, cap, opt, "a number");
		break;
	case MZM_OPT_U64:
		snprintf(buf, cap, "a whole number of 0 or more");
		break;
	case MZM_OPT_MEMORY:
		snprintf(buf, cap,
			 "a size such as 512M or 1.5G, at least 1M, or a share of the machine's memory such as 50%%");
		break;
	case MZM_OPT_SIZE:
		snprintf(buf, cap, "a size from %s to %s, such as 512M or 1.5G",
			 mzm_cli_format_bytes(low, (uint64_t)opt->min), mzm_cli_format_bytes(high, (uint64_t)opt->max));
		break;
	case MZM_OPT_ENUM:
	case MZM_OPT_CHOICE: {
		size_t n = (size_t)snprintf(buf, cap, "one of");
		const char *name;
		for (int i = 0; n < cap && (name = opt->choice(i)) != NULL; i++)
			n += (size_t)snprintf(buf + n, cap - n, "%s %s", i ? "," : "", name);
		break;
	}
	default:
		snprintf(buf, cap, "%s", opt->arg ? opt->arg : "a value");
	}
	return buf;
}

/* "wants a number above 0 and at most 1, not "x"" */
static void describe_bad(char *buf, size_t cap, const mzm_opt *opt, const char *value)
{
	char wanted[TEXT_MAX], hint[NAME_MAX_LEN + 32] = "";
	if (opt->type == MZM_OPT_ENUM || opt->type == MZM_OPT_CHOICE) {
		const char *near = mzm_cli_nearest(value, choice_at, opt);
		if (near)
			snprintf(hint, sizeof hint, "; did you mean %s?", near);
	}
	snprintf(buf, cap, "%s wants %s, not \"%s\"%s", opt->name, describe(wanted, sizeof wanted, opt), value, hint);
}

static int bad_value(const parser *p, const mzm_opt *opt, const char *value)
{
	char text[2 * TEXT_MAX];
	describe_bad(text, sizeof text, opt, value);
	return mzm_cli_usage_error(p->cmd, "--%s", text);
}

static bool in_range(const mzm_opt *opt, double x)
{
	return isfinite(x) && x <= opt->max && (opt->open_min ? x > opt->min : x >= opt->min);
}

/* A number must start with a digit, a sign or a point: strtod also takes blanks, "inf", "nan" and hexadecimal. */
static bool looks_decimal(const char *s)
{
	return *s && strspn(s, "0123456789+-.eE") == strlen(s);
}

static bool read_int(const mzm_opt *opt, const char *s, void *at)
{
	char *end;
	if (opt->word && strcmp(s, opt->word) == 0) {
		*(int32_t *)at = opt->word_value;
		return true;
	}
	if (opt->word2 && strcmp(s, opt->word2) == 0) {
		*(int32_t *)at = opt->word2_value;
		return true;
	}
	errno = 0;
	long long x = looks_decimal(s) ? strtoll(s, &end, 10) : 0;
	if (!looks_decimal(s) || *end || errno || !in_range(opt, (double)x))
		return false;
	*(int32_t *)at = (int32_t)x;
	return true;
}

static bool read_u64(const char *s, void *at)
{
	char *end;
	if (!*s || strspn(s, "0123456789") != strlen(s))
		return false;
	errno = 0;
	uint64_t x = strtoull(s, &end, 10);
	if (errno)
		return false;
	*(uint64_t *)at = x;
	return true;
}

static bool read_float(const mzm_opt *opt, const char *s, void *at)
{
	char *end;
	if (!looks_decimal(s))
		return false;
	float x = strtof(s, &end);
	if (*end || !in_range(opt, (double)x) || !in_range(opt, strtod(s, NULL)))
		return false;
	*(float *)at = x;
	return true;
}

static bool read_size(const mzm_opt *opt, const char *s, void *at)
{
	static const char units[] = "KMGT";
	char *end;
	if (*s < '0' || *s > '9' || (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')))
		return false;
	double x = strtod(s, &end);
	const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
	if (unit) {
		for (const char *u = units; u <= unit; u++)
			x *= 1024;
		end++;
		end += *end == 'i' && end[1] == 'B' ? 2 : *end == 'B';
	}
	if (*end || !in_range(opt, x))
		return false;
	*(uint64_t *)at = (uint64_t)x;
	return true;
}

/* A size, or a share of the machine's memory. */
static bool read_memory(const mzm_opt *opt, const char *s, void *at)
{
	char *end;
	if (!strchr(s, '%'))
		return read_size(opt, s, at);
	if (*s < '0' || *s > '9')
		return false;
	double share = strtod(s, &end);
	if (strcmp(end, "%") != 0 || share <= 0 || share > 100)
		return false;
	*(uint64_t *)at = (uint64_t)((double)mzm_machine_memory() * share / 100);
	return true;
}

static bool read_choice(const mzm_opt *opt, const char *s, void *at)
{
	const char *name;
	for (int i = 0; (name = opt->choice(i)) != NULL; i++)
		if (strcmp(name, s) == 0) {
			if (opt->type == MZM_OPT_ENUM)
				*(int32_t *)at = i;
			else
				*(const char **)at = name;
			return true;
		}
	return false;
}

static bool store(const mzm_opt *opt, const char *value, void *at)
{
	switch (opt->type) {
	case MZM_OPT_FLAG:
		*(bool *)at = true;
		return true;
	case MZM_OPT_STRING:
		*(const char **)at = value;
		return true;
	case MZM_OPT_LIST:
		return mzm_cli_list_add(at, value);
	case MZM_OPT_INT:
		return read_int(opt, value, at);
	case MZM_OPT_U64:
		return read_u64(value, at);
	case MZM_OPT_FLOAT:
		return read_float(opt, value, at);
	case MZM_OPT_SIZE:
		return read_size(opt, value, at);
	case MZM_OPT_MEMORY:
		return read_memory(opt, value, at);
	case MZM_OPT_ENUM:
	case MZM_OPT_CHOICE:
		return read_choice(opt, value, at);
	}
	return false;
}

const mzm_opt *mzm_cli_option_find(const mzm_opt_table *table, const char *name)
{
	for (int i = 0; i < table->n_rows; i++)
		if (strcmp(table->rows[i].name, name) == 0)
			return &table->rows[i];
	return NULL;
}

mzm_status mzm_cli_option_set(const mzm_opt_table *table, const char *name, const char *value, mzm_err *err)
{
	char text[2 * TEXT_MAX];
	const mzm_opt *opt = mzm_cli_option_find(table, name);
	if (!opt)
		return mzm_cli_set_err(err, MZM_EARG, "there is no option %s", name);
	if (store(opt, value, (char *)table->base + opt->at))
		return MZM_OK;
	describe_bad(text, sizeof text, opt, value);
	return mzm_cli_set_err(err, MZM_EARG, "%s", text);
}

/* ---- the walk over argv ---- */

static int unknown(const parser *p, const char *arg, size_t n)
{
	char name[NAME_MAX_LEN + 1];
	const char *near = NULL;
	if (n > 2 && arg[1] == '-' && n - 2 <= NAME_MAX_LEN) {
		snprintf(name, sizeof name, "%.*s", (int)(n - 2), arg + 2);
		near = mzm_cli_nearest(name, row_name, p);
	}
	if (near)
		return mzm_cli_usage_error(p->cmd, "unknown option %.*s; did you mean --%s?", (int)n, arg, near);
	return mzm_cli_usage_error(p->cmd, "unknown option %.*s", (int)n, arg);
}

/* One argument taken apart: the option it names, and the value when it stands in the same argument. */
typedef struct option_arg {
	const mzm_opt *opt; /* NULL: unknown */
	void          *base;
	const char    *value; /* NULL: none in this argument */
	size_t         n_name; /* bytes of the argument that name the option, dashes included */
} option_arg;

static option_arg take_apart(const parser *p, const char *arg)
{
	option_arg o = {0};
	if (arg[1] == '-') {
		o.n_name = strcspn(arg, "=");
		o.opt = find(p, arg + 2, o.n_name - 2, 0, &o.base);
		o.value = arg[o.n_name] ? arg + o.n_name + 1 : NULL;
	} else {
		o.n_name = 2;
		o.opt = find(p, NULL, 0, arg[1], &o.base);
		o.value = arg[2] ? arg + 2 : NULL;
	}
	return o;
}

static bool is_option(const char *arg)
{
	return arg[0] == '-' && arg[1];
}

/* Looked for before anything is stored, so that the defaults shown are defaults. */
static bool wants_help(const parser *p, int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (!is_option(argv[i]))
			continue;
		option_arg o = take_apart(p, argv[i]);
		if (o.opt && strcmp(o.opt->name, "help") == 0)
			return true;
		if (o.opt && o.opt->type != MZM_OPT_FLAG && !o.value)
			i++;
	}
	return false;
}

/* Reads the option at argv[*i], moving on over its value. */
static int read_option(const parser *p, int argc, char **argv, int *i)
{
	const char *arg = argv[*i];
	char wanted[TEXT_MAX];
	option_arg o = take_apart(p, arg);
	if (!o.opt)
		return unknown(p, arg, o.n_name);
	if (o.opt->type == MZM_OPT_FLAG && o.value)
		return mzm_cli_usage_error(p->cmd, "--%s takes no value", o.opt->name);
	if (o.opt->type != MZM_OPT_FLAG && !o.value) {
		if (*i + 1 == argc)
			return mzm_cli_usage_error(p->cmd, "--%s needs a value: %s", o.opt->name,
						   describe(wanted, sizeof wanted, o.opt));
		o.value = argv[++*i];
	}
	if (!store(o.opt, o.value, (char *)o.base + o.opt->at))
		return bad_value(p, o.opt, o.value);
	note_given(o.opt->name);
	return MZM_CLI_GO;
}

static int take_argument(const parser *p, mzm_cli_args *args, char *arg)
{
	if (args->n == args->max)
		return mzm_cli_usage_error(p->cmd, "unexpected argument \"%s\"", arg);
	args->item[args->n++] = arg;
	return MZM_CLI_GO;
}

int mzm_cli_parse(const mzm_cli_command *cmd, const mzm_opt_table *tables, int n_tables, int argc, char **argv,
		  mzm_cli_args *args)
{
	parser p = {cmd, tables, n_tables};
	bool options = true;
	int code = MZM_CLI_GO;
	n_given = 0;
	args->n = 0;
	args->item = (const char **)(argv + 1); /* filled no faster than argv is read */
	if (wants_help(&p, argc, argv)) {
		mzm_cli_print_help(stdout, cmd, tables, n_tables);
		return MZM_CLI_DONE;
	}
	for (int i = 1; i < argc && code == MZM_CLI_GO; i++) {
		if (options && strcmp(argv[i], "--") == 0)
			options = false;
		else if (options && is_option(argv[i]))
			code = read_option(&p, argc, argv, &i);
		else
			code = take_argument(&p, args, argv[i]);
	}
	return code;
}

static int try_help(const mzm_cli_command *cmd)
{
	if (cmd)
		fprintf(stderr, "try: mirzam %s --help\n", cmd->name);
	else
		fprintf(stderr, "try: mirzam --help\n");
	return MZM_CLI_USAGE;
}

int mzm_cli_usage_error(const mzm_cli_command *cmd, const char *fmt, ...)
{
	char text[2 * TEXT_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	mzm_cli_error("%s", text);
	return try_help(cmd);
}

int mzm_cli_fail_usage(const mzm_cli_command *cmd, const mzm_err *err)
{
	int code = mzm_cli_fail(err);
	return code == MZM_CLI_USAGE ? try_help(cmd) : code;
}
