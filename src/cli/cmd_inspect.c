/* cmd_inspect.c - `mirzam inspect`: what a model file holds, or how near it is to another, as tables or as JSON.
 *
 * The description is the library's JSON object, the comparison that of inspect_quality.c. Both are printed by their
 * shape, not by their names: scalars as aligned lines, objects as sections, arrays of objects as tables; so a new field
 * needs no change here. */
#include "inspect.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 8, MAX_COLUMNS = 16, CELL_MAX = 44, LONG_LIST = 12 };

static const mzm_cli_command command = {
	.name = "inspect",
	.usage = "MODEL [--verify] [--tensors] [--speed] [--json]\n"
		 "MODEL --quality [--against SOURCE] [--text FILE] [--limit TOKENS] [--json]",
	.summary = "Describes a container or a model directory without loading its weights. With --quality, compares "
		   "its predictions with those of a reference: mean, median and 99th percentile of the "
		   "Kullback-Leibler divergence in nats a token, how often the most likely token is the same, and "
		   "both perplexities.",
	.examples = "mirzam inspect model.mzm\n"
		    "mirzam inspect model.mzm --verify && echo whole\n"
		    "mirzam inspect model.mzm --json > model.json\n"
		    "mirzam inspect model-q4.mzm --quality --against ./Llama-3.2-1B --text wiki.txt",
};

typedef struct inspect_options {
	bool verify, json, tensors, quality, speed;
	mzm_cli_quality compare;
} inspect_options;

#define INSPECT(field) .at = offsetof(inspect_options, field), .group = "Inspect"
#define QUALITY(field) .at = offsetof(inspect_options, field), .group = "Quality"
#define DEFAULT_LIMIT  20000

static const mzm_opt inspect_rows[] = {
	{.name = "verify", .type = MZM_OPT_FLAG, INSPECT(verify), .help = "Read every byte and check every checksum."},
	{.name = "tensors", .type = MZM_OPT_FLAG, INSPECT(tensors), .help = "Also list every tensor."},
	{.name = "speed", .type = MZM_OPT_FLAG, INSPECT(speed),
	 .help = "Also measure how fast the file is read past the cache and unpacked, and whether compression pays."},
	{.name = "json", .type = MZM_OPT_FLAG, INSPECT(json),
	 .help = "Print the whole description, or the comparison, as JSON."},
	{.name = "quality", .type = MZM_OPT_FLAG, QUALITY(quality),
	 .help = "Compare predictions over a text: the weights with those of --against, a draft image with the "
		 "weights."},
	{.name = "against", .type = MZM_OPT_STRING, QUALITY(compare.against), .arg = "MODEL",
	 .help = "The reference: the container or directory that the model was made from."},
	{.name = "text", .type = MZM_OPT_STRING, QUALITY(compare.text), .arg = "FILE",
	 .help = "Text to compare on; of a .jsonl file \"question\" and \"answer\" of each line. Without it: the "
		 "shipped problems."},
	{.name = "limit", .type = MZM_OPT_INT, QUALITY(compare.limit), .max = 2e9, .arg = "TOKENS",
	 .help = "How much of the text is read (0 = all)."},
};

/* ---- one value on one line ---- */

static bool ends_in(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);
	return n >= m && strcmp(text + n - m, end) == 0;
}

/* The value as text -> free; NULL when out of memory. Byte counts are also given in units. */
static char *value_text(const char *key, const json_t *value)
{
	char *text = NULL, unit[32];
	if (json_is_string(value))
		return strdup(json_string_value(value));
	if (json_is_boolean(value))
		return strdup(json_is_true(value) ? "yes" : "no");
	if (json_is_null(value))
		return strdup("-");
	if (json_is_number(value) && ends_in(key, "bytes") && json_number_value(value) >= 1024 &&
	    json_number_value(value) < 1e18) {
		uint64_t n = json_is_integer(value) ? (uint64_t)json_integer_value(value)
						    : (uint64_t)json_real_value(value); /* from the metadata */
		mzm_cli_format_bytes(unit, n);
		return asprintf(&text, "%llu (%s)", (unsigned long long)n, unit) < 0 ? NULL : text;
	}
	return json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
}

static int put_value(const char *key, const json_t *value, int max_columns)
{
	char *text = value_text(key, value);
	int used = mzm_cli_put_inline(stdout, text ? text : "?", text ? strlen(text) : 1, max_columns);
	free(text);
	return used;
}

static int value_width(const char *key, const json_t *value)
{
	char *text = value_text(key, value);
	int width = text ? mzm_cli_text_width(text, strlen(text)) : 1;
	free(text);
	return width > CELL_MAX ? CELL_MAX : width;
}

/* ---- tables ---- */

static bool is_table(const json_t *value)
{
	return json_is_array(value) && json_is_object(json_array_get(value, 0));
}

/* Columns are the members of the first row; numbers stand to the right. */
static void put_table(const json_t *rows)
{
	const char *keys[MAX_COLUMNS], *key;
	int widths[MAX_COLUMNS], n = 0;
	json_t *row, *cell;
	size_t i;
	json_object_foreach(json_array_get(rows, 0), key, cell) {
		if (n == MAX_COLUMNS)
			break;
		widths[n] = (int)strlen(key);
		keys[n++] = key;
	}
	json_array_foreach(rows, i, row) for (int c = 0; c < n; c++) {
		int width = value_width(keys[c], json_object_get(row, keys[c]));
		widths[c] = width > widths[c] ? width : widths[c];
	}
	for (int c = 0; c < n; c++)
		printf("  %s%-*s%s", mzm_cli_sgr(stdout, MZM_SGR_DIM), c + 1 < n ? widths[c] : 0, keys[c],
		       mzm_cli_sgr(stdout, MZM_SGR_RESET));
	putchar('\n');
	json_array_foreach(rows, i, row) {
		for (int c = 0; c < n; c++) {
			cell = json_object_get(row, keys[c]);
			int pad = widths[c] - value_width(keys[c], cell);
			printf("  %*s", json_is_number(cell) ? pad : 0, "");
			put_value(keys[c], cell, CELL_MAX);
			printf("%*s", json_is_number(cell) || c + 1 == n ? 0 : pad, "");
		}
		putchar('\n');
	}
}

/* ---- sections ---- */

static bool is_section(const json_t *value)
{
	return json_is_object(value) || is_table(value);
}

static void put_lines(const json_t *object, int depth)
{
	const char *key;
	json_t *value;
	int widest = 0, width = mzm_cli_is_tty(stdout) ? mzm_cli_width(stdout) : 0;
	json_object_foreach((json_t *)(uintptr_t)object, key, value) {
		if (!is_section(value) && (int)strlen(key) > widest)
			widest = (int)strlen(key);
	}
	json_object_foreach((json_t *)(uintptr_t)object, key, value) {
		if (is_section(value))
			continue;
		int room = width - 2 * depth - widest - 2;
		printf("%*s%-*s  ", 2 * depth, "", widest, key);
		put_value(key, value, width == 0 ? 0 : room < CELL_MAX ? CELL_MAX : room);
		putchar('\n');
	}
}

static void put_object(const json_t *object, int depth, bool all)
{
	const char *key;
	json_t *value;
	put_lines(object, depth);
	json_object_foreach((json_t *)(uintptr_t)object, key, value) {
		if (!is_section(value) || depth == MAX_DEPTH)
			continue;
		bool is_long = is_table(value) && json_array_size(value) > LONG_LIST && !all;
		printf("\n%*s%s%s%s", 2 * depth, "", mzm_cli_sgr(stdout, MZM_SGR_BOLD), key,
		       mzm_cli_sgr(stdout, MZM_SGR_RESET));
		if (is_long)
			printf(": %zu (--tensors lists them)", json_array_size(value));
		putchar('\n');
		if (json_is_object(value))
			put_object(value, depth + 1, all);
		else if (!is_long)
			put_table(value);
	}
}

/* ---- command ---- */

static mzm_status print(const json_t *root, const inspect_options *o, mzm_err *err)
{
	if (o->json)
		return mzm_cli_json_write(root, NULL, err);
	put_object(root, 0, o->tensors);
	return mzm_cli_flush(stdout, "standard output", err);
}

#define SPEED_SECONDS 1.0

static mzm_status add_speed(json_t *root, const char *path, mzm_err *err)
{
	mzm_file_speed s;
	mzm_status st = mzm_file_measure(&s, path, SPEED_SECONDS, err);
	if (st != MZM_OK)
		return st;
	json_t *o = json_pack("{s:I, s:I, s:b, s:b}", "disk_read_a_second_bytes", (json_int_t)s.disk_bytes_per_s,
			      "thread_unpacks_a_second_bytes", (json_int_t)s.unpack_bytes_per_s, "is_compressed",
			      (int)s.is_compressed, "compression_pays", (int)s.pays);
	return json_object_set_new(root, "speed", o) == 0 ? MZM_OK : mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
}

static mzm_status print_description(const char *text, const char *path, const inspect_options *o, mzm_err *err)
{
	json_error_t bad;
	json_t *root = json_loads(text, 0, &bad);
	mzm_status st = MZM_OK;
	if (!json_is_object(root))
		st = mzm_cli_set_err(err, MZM_EINTERNAL, "the description of the model is no JSON object: %s",
				     bad.text);
	if (st == MZM_OK && o->speed)
		st = add_speed(root, path, err);
	if (st == MZM_OK)
		st = print(root, o, err);
	json_decref(root);
	return st;
}

static int quality(const inspect_options *o)
{
	mzm_err err = {0};
	json_t *root = NULL;
	mzm_cli_catch_interrupt();
	mzm_status st = mzm_cli_quality_measure(&root, &o->compare, &err);
	if (st == MZM_OK)
		st = print(root, o, &err);
	json_decref(root);
	return st == MZM_OK ? MZM_CLI_DONE : mzm_cli_fail_usage(&command, &err);
}

static int inspect(const char *path, const inspect_options *o)
{
	mzm_err err = {0};
	mzm_cli_progress progress = mzm_cli_progress_init(NULL);
	char *text = NULL;
	mzm_cli_catch_interrupt();
	mzm_status st = mzm_inspect(path, o->verify, mzm_cli_progress_report, &progress, &text, &err);
	mzm_cli_progress_clear(&progress);
	if (st == MZM_OK)
		st = print_description(text, path, o, &err);
	mzm_string_free(text);
	if (st != MZM_OK)
		return mzm_cli_fail(&err);
	if (o->verify && !o->json && !mzm_cli_quiet())
		fprintf(stderr, "%s: every checksum fits\n", path);
	return MZM_CLI_DONE;
}

int mzm_cmd_inspect(int argc, char **argv)
{
	inspect_options o = {.compare.limit = DEFAULT_LIMIT};
	mzm_cli_args args = {.max = 1};
	const mzm_opt_table tables[] = {{inspect_rows, MZM_CLI_COUNT(inspect_rows), &o}, mzm_cli_common_table()};
	int code = mzm_cli_parse(&command, tables, MZM_CLI_COUNT(tables), argc, argv, &args);
	if (code != MZM_CLI_GO)
		return code;
	if (args.n == 0)
		return mzm_cli_usage_error(&command, "no model: name a container or a model directory");
	if (!o.quality && (o.compare.against || o.compare.text || mzm_cli_was_given("limit")))
		return mzm_cli_usage_error(&command, "--against, --text and --limit go with --quality");
	if (o.quality && (o.verify || o.tensors || o.speed))
		return mzm_cli_usage_error(&command, "--quality goes with none of --verify, --tensors and --speed");
	o.compare.model = args.item[0];
	return o.quality ? quality(&o) : inspect(args.item[0], &o);
}
