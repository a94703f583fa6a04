/* cmd_tokenize.c - `mirzam tokenize`: text to tokens and back, without loading a model. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const mzm_cli_command command = {
	.name = "tokenize",
	.usage = "[-m MODEL] [--ids] [--special] [--parse-special] TEXT|-\n[-m MODEL] --decode ID...|-",
	.summary = "Shows the tokens of a text, one a line: id and spelling. With --decode, the text of ids. MODEL may "
		   "also be a tokenizer.json. A - reads standard input.",
	.examples = "mirzam tokenize \"17 + 5 = 22\"\n"
		    "mirzam tokenize -m tokenizer.json --ids --special - < text.txt\n"
		    "mirzam tokenize --decode 721 333 692",
};

typedef struct tokenize_options {
	const char *model;
	bool ids, special, parse_special, decode;
} tokenize_options;

#define TOKENIZE(field) .at = offsetof(tokenize_options, field), .group = "Tokens"

static const mzm_opt tokenize_rows[] = {
	{.name = "model", .letter = 'm', .type = MZM_OPT_STRING, TOKENIZE(model), .arg = "MODEL",
	 .shown = "the demo model", .help = "A container, a model directory or a tokenizer.json."},
	{.name = "ids", .type = MZM_OPT_FLAG, TOKENIZE(ids), .help = "Only the ids, on one line."},
	{.name = "special", .type = MZM_OPT_FLAG, TOKENIZE(special),
	 .help = "Add what the model wants around a text, such as a start token."},
	{.name = "parse-special", .type = MZM_OPT_FLAG, TOKENIZE(parse_special),
	 .help = "The text of a special token becomes that token."},
	{.name = "decode", .type = MZM_OPT_FLAG, TOKENIZE(decode), .help = "The arguments are ids; print their text."},
};

/* All arguments as one text, one blank between them (ids); or standard input. */
static mzm_status gather(mzm_cli_bytes *text, const mzm_cli_args *args, mzm_err *err)
{
	if (args->n == 1 && strcmp(args->item[0], "-") == 0)
		return mzm_cli_read_stream(text, stdin, "standard input", err);
	for (int i = 0; i < args->n; i++) {
		mzm_cli_bytes_add(text, " ", i > 0);
		mzm_cli_bytes_add(text, args->item[i], strlen(args->item[i]));
	}
	return text->failed ? mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for the text") : MZM_OK;
}

/* ---- text to tokens ---- */

static void print_tokens(const mzm_tokenizer *tok, const int32_t *ids, size_t n, bool only_ids)
{
	for (size_t i = 0; i < n; i++) {
		const char *content = mzm_token_content(tok, ids[i]);
		if (only_ids) {
			printf("%s%d", i ? " " : "", ids[i]);
			continue;
		}
		printf("%8d  ", ids[i]);
		mzm_cli_put_inline(stdout, content ? content : "?", content ? strlen(content) : 1, 0);
		putchar('\n');
	}
	if (only_ids)
		putchar('\n');
}

static mzm_status encode(const mzm_tokenizer *tok, const mzm_cli_bytes *text, const tokenize_options *o, mzm_err *err)
{
	int32_t *ids;
	size_t n;
	unsigned flags = (o->special ? MZM_TOK_ADD_SPECIAL : 0) | (o->parse_special ? MZM_TOK_PARSE_SPECIAL : 0);
	mzm_status st = mzm_tokenize(tok, text->data ? text->data : "", text->n, flags, &ids, &n, err);
	if (st != MZM_OK)
		return st;
	print_tokens(tok, ids, n, o->ids);
	mzm_ids_free(ids);
	return MZM_OK;
}

/* ---- tokens to text ---- */

/* Ids separated by blanks, commas or brackets, so that a JSON array will do. */
static mzm_status read_ids(int32_t *ids, size_t *n, const char *s, int32_t n_vocab, mzm_err *err)
{
	static const char gaps[] = " ,[]\n\t\r";
	*n = 0;
	for (s += strspn(s, gaps); *s; s += strspn(s, gaps)) {
		char *end;
		size_t len = strcspn(s, gaps);
		errno = 0;
		long id = *s >= '0' && *s <= '9' ? strtol(s, &end, 10) : -1;
		if (id < 0 || end != s + len || errno || id >= n_vocab)
			return mzm_cli_set_err(err, MZM_EARG, "\"%.*s\" is no token id; they go from 0 to %d",
					       len < 64 ? (int)len : 64, s, n_vocab - 1);
		ids[(*n)++] = (int32_t)id;
		s += len;
	}
	return MZM_OK;
}

static mzm_status decode(const mzm_tokenizer *tok, mzm_cli_bytes *text, mzm_err *err)
{
	char *out = NULL;
	size_t n = 0, len = 0;
	mzm_cli_bytes_add(text, "", 1); /* the final NUL */
	int32_t *ids = malloc(text->n * sizeof *ids); /* an id takes a byte at least */
	if (!ids || text->failed) {
		free(ids);
		return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for the ids");
	}
	mzm_status st = strlen(text->data) + 1 == text->n ? read_ids(ids, &n, text->data, mzm_token_count(tok), err)
							  : mzm_cli_set_err(err, MZM_EARG, "a NUL byte is no token id");
	if (st == MZM_OK)
		st = mzm_detokenize(tok, ids, n, &out, &len, err);
	if (st == MZM_OK) {
		mzm_cli_put(stdout, out, len);
		if (len == 0 || out[len - 1] != '\n')
			putchar('\n');
	}
	mzm_string_free(out);
	free(ids);
	return st;
}

/* ---- command ---- */

static mzm_status work(const tokenize_options *o, const mzm_cli_args *args, mzm_err *err)
{
	mzm_cli_model model = {.path = o->model};
	mzm_cli_bytes text = {0};
	mzm_tokenizer *tok = NULL;
	char *path = NULL;
	mzm_status st = mzm_cli_model_path(&path, &model, err);
	if (st == MZM_OK)
		st = mzm_tokenizer_open(&tok, path, err);
	if (st == MZM_OK)
		st = gather(&text, args, err);
	if (st == MZM_OK)
		st = o->decode ? decode(tok, &text, err) : encode(tok, &text, o, err);
	if (st == MZM_OK)
		st = mzm_cli_flush(stdout, "standard output", err);
	mzm_tokenizer_close(tok);
	free(text.data);
	free(path);
	return st;
}

int mzm_cmd_tokenize(int argc, char **argv)
{
	tokenize_options o = {0};
	mzm_cli_args args = {.max = argc};
	mzm_err err = {0};
	const mzm_opt_table tables[] = {{tokenize_rows, MZM_CLI_COUNT(tokenize_rows), &o}, mzm_cli_common_table()};
	int code = mzm_cli_parse(&command, tables, MZM_CLI_COUNT(tables), argc, argv, &args);
	if (code != MZM_CLI_GO)
		return code;
	if (args.n == 0)
		return mzm_cli_usage_error(&command, o.decode ? "no ids to decode"
							      : "no text: give TEXT, or - for standard input");
	if (!o.decode && args.n > 1)
		return mzm_cli_usage_error(&command, "more than one text; put it in quotes");
	if (o.decode && (o.ids || o.special || o.parse_special))
		return mzm_cli_usage_error(&command, "--decode goes with none of --ids, --special and --parse-special");
	return work(&o, &args, &err) == MZM_OK ? MZM_CLI_DONE : mzm_cli_fail_usage(&command, &err);
}
