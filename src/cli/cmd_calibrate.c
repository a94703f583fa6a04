/* cmd_calibrate.c - `mirzam calibrate`: texts in, the model's side-car and a table of what was found out.
 *
 * The work is the library's; here are the options, the texts, progress and the tables. The table goes to standard
 * output, everything else for people to stderr. An interrupted run leaves nothing behind. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define DEMO_TEXT "gsmini-calib.jsonl"
#define FIT_SKIP "skip"
enum { MAX_NAMES = 32 };

static const mzm_cli_command command = {
	.name = "calibrate",
	.usage = "[-m MODEL] --data FILE [--data FILE ...] [-o FILE.mzc] [options]",
	.summary = "Runs the model over texts like those it will be used for, and learns which neurons it uses when: "
		   "thresholds, averages, and small models that predict neurons. It goes to a side-car beside the "
		   "model, which is loaded with it from then on. Prints, for each predictor and share of neurons kept, "
		   "how many of the neurons that contribute most it finds, on text held out, and what it costs.",
	.examples = "mirzam calibrate\n"
		    "mirzam calibrate -m model.mzm --data text.txt --data problems.jsonl\n"
		    "mirzam calibrate -m model.mzm --data text.txt --fit cats,static --tokens 20000 -o model.mzc\n"
		    "mirzam eval -m model.mzm --predictor cats --keep 0.3",
};

typedef struct calibrate_options {
	mzm_cli_list data;
	const char  *out, *fits, *keep, *json;
	int32_t      limit, tokens, rank, epochs, tries;
	uint64_t     seed;
	bool         layers, skip;
	mzm_cli_model model;
} calibrate_options;

#define CALIBRATE(field, heading) .at = offsetof(calibrate_options, field), .group = heading

static const mzm_opt calibrate_rows[] = {
	{.name = "data", .type = MZM_OPT_LIST, CALIBRATE(data, "Texts"), .arg = "FILE",
	 .help = "A text; or, named .jsonl, objects of \"text\" or of \"question\" and \"answer\", one a line. May be "
		 "repeated. For the demo model there is one."},
	{.name = "limit", .type = MZM_OPT_INT, CALIBRATE(limit, "Texts"), .max = INT32_MAX, .arg = "N",
	 .help = "Only the first N texts; 0: all."},
	{.name = "tokens", .type = MZM_OPT_INT, CALIBRATE(tokens, "Texts"), .min = 64, .max = 1 << 22, .arg = "N",
	 .help = "How many tokens to draw from the texts, evenly; of five, one is held out to measure on."},
	{.name = "fit", .type = MZM_OPT_STRING, CALIBRATE(fits, "Learning"), .arg = "NAME,...",
	 .shown = "all but countdown-d and skip",
	 .help = "What to learn; \"list\" lists it."},
	{.name = "skip", .type = MZM_OPT_FLAG, CALIBRATE(skip, "Learning"),
	 .help = "Also search for the layers that drafts can do without (--draft skip)."},
	{.name = "tries", .type = MZM_OPT_INT, CALIBRATE(tries, "Learning"), .max = 1 << 12, .word = "auto", .arg = "N",
	 .help = "Sets of layers that the search tries."},
	{.name = "rank", .type = MZM_OPT_INT, CALIBRATE(rank, "Learning"), .max = 1 << 16, .word = "auto", .arg = "N",
	 .help = "Of low-rank predictors."},
	{.name = "epochs", .type = MZM_OPT_INT, CALIBRATE(epochs, "Learning"), .max = 1000, .word = "auto", .arg = "N",
	 .help = "How often training goes over the sample."},
	{.name = "seed", .type = MZM_OPT_U64, CALIBRATE(seed, "Learning"), .arg = "N", .help = "Of training."},
	{.name = "keep", .type = MZM_OPT_STRING, CALIBRATE(keep, "Output"), .arg = "SHARE,...",
	 .help = "Shares of neurons kept to report on."},
	{.name = "output", .letter = 'o', .type = MZM_OPT_STRING, CALIBRATE(out, "Output"), .arg = "FILE",
	 .shown = "the model's path with .mzc", .help = "The side-car to write."},
	{.name = "layers", .type = MZM_OPT_FLAG, CALIBRATE(layers, "Output"),
	 .help = "Print a line for each layer, too."},
	{.name = "json", .type = MZM_OPT_STRING, CALIBRATE(json, "Output"), .arg = "FILE",
	 .help = "Write all figures, layer by layer; -: to standard output, instead of the table."},
};

/* ---- options ---- */

/* Of the model's options those that matter here. */
static mzm_opt_table model_table(mzm_opt rows[], mzm_cli_model *m)
{
	static const char *const names[] = {"model", "isa", "threads", "ram", "no-onednn"};
	mzm_opt_table all = mzm_cli_model_table(m);
	int n = 0;
	for (int i = 0; i < MZM_CLI_COUNT(names); i++) {
		const mzm_opt *opt = mzm_cli_option_find(&all, names[i]);
		if (opt)
			rows[n++] = *opt;
	}
	return (mzm_opt_table){rows, n, m};
}

/* Cuts a list at its commas; list is changed. Returns how many, -1: more than MAX_NAMES. */
static int32_t split(const char *names[MAX_NAMES], char *list)
{
	int32_t n = 0;
	for (char *name; (name = strsep(&list, ",")) != NULL;) {
		if (n == MAX_NAMES)
			return -1;
		names[n++] = name;
	}
	return n;
}

static bool parse_keeps(float keep[MAX_NAMES], int32_t *n, const char *text)
{
	char *end;
	for (*n = 0; *n < MAX_NAMES; text = end + 1) {
		double x = strtod(text, &end);
		if (end == text || !(x > 0 && x <= 1) || (*end && *end != ','))
			return false;
		keep[(*n)++] = (float)x;
		if (!*end)
			return true;
	}
	return false;
}

static int list_fits(void)
{
	for (int i = 0; mzm_fit_name(i); i++)
		printf("%-10s %s\n", mzm_fit_name(i), mzm_fit_about(i));
	return MZM_CLI_DONE;
}

static const char *fit_name(int i, const void *user)
{
	(void)user;
	return mzm_fit_name(i);
}

static bool is_fit(const char *name)
{
	for (int i = 0; mzm_fit_name(i); i++)
		if (strcmp(mzm_fit_name(i), name) == 0)
			return true;
	return false;
}

static bool is_listed(const char *name, const char *const list[], int32_t n)
{
	for (int32_t i = 0; i < n; i++)
		if (strcmp(list[i], name) == 0)
			return true;
	return false;
}

/* ---- tables ---- */

static double number(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);
	return json_is_number(v) ? json_number_value(v) : NAN;
}

static void put_share(double x, int width)
{
	char cell[32] = "-";
	if (!isnan(x))
		snprintf(cell, sizeof cell, "%.3f", x);
	printf("%*s", width, cell);
}

/* What one line says of a predictor, or of one of its layers. */
static void put_tally(const json_t *o, bool relu)
{
	put_share(number(o, "chosen"), 8);
	put_share(number(o, "kept"), 7);
	put_share(number(o, "recall"), 8);
	put_share(number(o, "precision"), 11);
	put_share(number(o, "error"), 7);
	put_share(number(o, "read"), 7);
	if (relu) {
		put_share(number(o, "active_recall"), 8);
		put_share(number(o, "chosen_per_active"), 8);
	}
}

static void put_row(const json_t *row, bool relu, bool layers)
{
	char bytes[32];
	size_t i;
	json_t *layer;
	printf("%-13s%5g", json_string_value(json_object_get(row, "predictor")), number(row, "keep"));
	put_tally(json_object_get(row, "mean"), relu);
	double cost = number(row, "cost_bytes");
	printf("%10s%9.3f\n", cost > 0 ? mzm_cli_format_bytes(bytes, (uint64_t)cost) : "-", number(row, "ms_per_pass"));
	json_array_foreach(json_object_get(row, "layers"), i, layer) {
		if (!layers)
			break;
		printf("  layer %-9zu", i);
		put_tally(layer, relu);
		putchar('\n');
	}
}

static void put_table(const json_t *report, bool layers)
{
	size_t i;
	json_t *row, *rows = json_object_get(report, "report");
	const json_t *first = json_object_get(json_array_get(rows, 0), "mean");
	bool relu = json_object_get(first, "active_recall") != NULL;
	printf("%s%-13s%5s%8s%7s%8s%11s%7s%7s%s%10s%9s%s\n", mzm_cli_sgr(stdout, MZM_SGR_BOLD), "predictor", "keep",
	       "chosen", "kept", "recall", "precision", "error", "read", relu ? "  active   /act." : "", "cost",
	       "ms/pass", mzm_cli_sgr(stdout, MZM_SGR_RESET));
	json_array_foreach(rows, i, row)
		put_row(row, relu, layers);
	printf("\nchosen: share of neurons that a predictor names; kept: what is left when it knows their gates.\n"
	       "recall, precision: against the neurons that contribute most, as many as were to be kept.\n"
	       "error: of the FFN's output, relative. read: share of the FFN's bytes a token reads, the predictor's\n"
	       "own included. cost: what it reads itself. ms/pass: to choose, on warm caches.%s\n",
	       relu ? "\nactive: share of the neurons that are not 0 which are chosen; /act.: chosen for each." : "");
}

static void put_point(const char *predictor, const json_t *point)
{
	size_t l;
	json_t *share;
	printf("%-13s%5g%11.4f%9.4f ", predictor, number(point, "keep"), number(point, "kld_even"),
	       number(point, "kld"));
	json_array_foreach(json_object_get(point, "shares"), l, share)
		printf(" %.3f", json_number_value(share));
	putchar('\n');
}

/* Where layers keep other shares than the even one, and what they gain by it. */
static void put_shares(const json_t *report)
{
	size_t i, k, n = 0;
	json_t *one, *point;
	json_array_foreach(json_object_get(report, "alloc"), i, one)
		json_array_foreach(json_object_get(one, "points"), k, point) {
			if (!json_is_true(json_object_get(point, "better")))
				continue;
			if (n++ == 0)
				printf("\nLayers that keep more or less than the average (--no-alloc: all the same).\n"
				       "kld: of the next token, from the dense model's, nats.\n"
				       "%spredictor     keep   kld even  kld      shares%s\n",
				       mzm_cli_sgr(stdout, MZM_SGR_BOLD), mzm_cli_sgr(stdout, MZM_SGR_RESET));
			put_point(json_string_value(json_object_get(one, "predictor")), point);
		}
}

/* Which layers drafts leave out, and what that is worth on text held out. */
static void put_skip(const json_t *report)
{
	const json_t *s = json_object_get(report, "skip");
	if (!s)
		return;
	printf("\nLayers that drafts of --draft skip leave out, of %g sets tried%s: %s\n", number(s, "tried"),
	       json_is_true(json_object_get(s, "pays")) ? "" : " (none pays; this is the best)",
	       json_string_value(json_object_get(s, "set")));
	printf("A draft token reads %.3f of a dense one; %.3f of them are the dense model's. If reading is all that\n"
	       "costs, that is %.2f tokens in the time of one, with %g tokens a check.\n",
	       number(s, "draft"), number(s, "agrees"), number(s, "rate"), number(s, "period"));
}

/* ---- work ---- */

typedef struct reader {
	mzm_calibration     *c;
	const mzm_tokenizer *tok;
	int32_t              n, limit;
} reader;

static mzm_status add_text(void *user, const char *text, size_t len, mzm_err *err)
{
	reader *r = user;
	int32_t *ids;
	size_t n;
	if (r->limit && r->n >= r->limit)
		return MZM_OK;
	mzm_status st = mzm_tokenize(r->tok, text, len, MZM_TOK_ADD_SPECIAL, &ids, &n, err);
	if (st == MZM_OK)
		st = mzm_calibration_add(r->c, ids, n, err);
	r->n++;
	mzm_ids_free(ids);
	return st;
}

static mzm_status add_files(mzm_calibration *c, const calibrate_options *o, const mzm_model *model, mzm_err *err)
{
	reader r = {c, mzm_model_tokenizer(model), 0, o->limit};
	char *demo = NULL;
	mzm_status st = MZM_OK;
	if (!r.tok)
		return mzm_cli_set_err(err, MZM_EFORMAT, "%s: no tokenizer.json; without it no text can be read",
				       mzm_model_get_info(model)->path);
	if (o->data.n == 0 && (st = mzm_cli_data_path(&demo, DEMO_TEXT, err)) == MZM_OK)
		st = mzm_cli_read_texts(demo, add_text, &r, err);
	for (int32_t i = 0; st == MZM_OK && i < o->data.n; i++)
		st = mzm_cli_read_texts(o->data.item[i], add_text, &r, err);
	free(demo);
	return st;
}

static mzm_status show(const calibrate_options *o, const char *out, const char *text, mzm_err *err)
{
	mzm_status st = MZM_OK;
	json_error_t bad;
	json_t *report = json_loads(text, 0, &bad);
	if (!report)
		return mzm_cli_set_err(err, MZM_EINTERNAL, "the report is no JSON object: %s", bad.text);
	if (!o->json || strcmp(o->json, "-") != 0)
		put_table(report, o->layers);
	if (!o->json || strcmp(o->json, "-") != 0)
		put_shares(report);
	if (!o->json || strcmp(o->json, "-") != 0)
		put_skip(report);
	if (o->json)
		st = mzm_cli_json_write(report, o->json, err);
	if (st == MZM_OK)
		st = mzm_cli_flush(stdout, "standard output", err);
	if (st == MZM_OK && !mzm_cli_quiet())
		fprintf(stderr, "%s: learned from %g tokens, measured on %g held out\n", out, number(report, "n_train"),
			number(report, "n_test"));
	json_decref(report);
	return st;
}

static mzm_status calibrate(const calibrate_options *o, const mzm_model *model, const mzm_calibrate_params *params,
			    mzm_err *err)
{
	mzm_calibration *c = NULL;
	char *beside = NULL, *report = NULL;
	mzm_status st = MZM_OK;
	if (!o->out)
		st = mzm_calibration_path(&beside, mzm_model_get_info(model)->path, err);
	const char *out = o->out ? o->out : beside;
	if (st == MZM_OK)
		st = mzm_cli_check_output(out, err);
	if (st == MZM_OK)
		st = mzm_cli_file_probe(out, err);
	if (st == MZM_OK)
		st = mzm_cli_file_probe(o->json, err);
	if (st == MZM_OK)
		st = mzm_calibration_create(&c, model, params, err);
	if (st == MZM_OK)
		st = add_files(c, o, model, err);
	if (st == MZM_OK)
		st = mzm_calibration_finish(c, out, &report, err);
	mzm_cli_progress_clear(params->user);
	if (st == MZM_OK)
		st = show(o, out, report, err);
	mzm_calibration_free(c);
	mzm_string_free(report);
	mzm_string_free(beside);
	return st;
}

static int run(calibrate_options *o, mzm_calibrate_params *params)
{
	mzm_err err = {0};
	mzm_model *model = NULL;
	mzm_cli_progress progress = mzm_cli_progress_init("steps");
	params->rank = o->rank;
	params->n_epochs = o->epochs;
	params->seed = o->seed;
	params->n_tries = o->tries;
	params->n_test = o->tokens / 5;
	params->n_train = o->tokens - o->tokens / 5;
	params->n_threads = o->model.n_threads;
	params->progress = mzm_cli_progress_report;
	params->user = &progress;
	o->model.calib = "off";
	mzm_cli_catch_interrupt();
	int code = mzm_cli_open(&model, NULL, &command, &o->model);
	for (int32_t i = 0; i < o->data.n; i++)
		mzm_cli_note_input(o->data.item[i]);
	if (code == MZM_CLI_GO)
		code = calibrate(o, model, params, &err) == MZM_OK ? MZM_CLI_DONE : mzm_cli_fail_usage(&command, &err);
	mzm_model_close(model);
	return code;
}

/* What the lists say, and what must not be left out. */
static int check(const calibrate_options *o, mzm_calibrate_params *params, const char *fits[MAX_NAMES], char *list,
		 float keep[MAX_NAMES])
{
	int32_t n = list ? split(fits, list) : 0;
	if (o->model.path && o->data.n == 0)
		return mzm_cli_usage_error(&command, "no text to learn from: give --data FILE");
	if (n < 0 || n + o->skip > MAX_NAMES)
		return mzm_cli_usage_error(&command, "--fit: more than %d names", MAX_NAMES);
	for (int32_t i = 0; i < n; i++) {
		const char *near = mzm_cli_nearest(fits[i], fit_name, NULL);
		if (!is_fit(fits[i]))
			return mzm_cli_usage_error(&command, "--fit: unknown '%s'%s%s%s", fits[i],
						   near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
	}
	if (!parse_keeps(keep, &params->n_keep, o->keep))
		return mzm_cli_usage_error(&command, "--keep: '%s' is no list of shares above 0 and up to 1", o->keep);
	params->keep = keep;
	params->with_skip = o->skip;
	if (o->skip && list && !is_listed(FIT_SKIP, fits, n))
		fits[n++] = FIT_SKIP;
	params->fits = list ? fits : NULL;
	params->n_fits = n;
	return MZM_CLI_GO;
}

int mzm_cmd_calibrate(int argc, char **argv)
{
	calibrate_options o = {.tokens = 5120, .keep = "0.1,0.25,0.5", .model = mzm_cli_model_default()};
	mzm_calibrate_params params = mzm_calibrate_params_default();
	mzm_opt model_rows[8];
	mzm_cli_args args = {.max = 0};
	const char *fits[MAX_NAMES];
	float keep[MAX_NAMES];
	char *list = NULL;
	const mzm_opt_table tables[] = {{calibrate_rows, MZM_CLI_COUNT(calibrate_rows), &o},
					model_table(model_rows, &o.model), mzm_cli_common_table()};
	int code = mzm_cli_parse(&command, tables, MZM_CLI_COUNT(tables), argc, argv, &args);
	if (code == MZM_CLI_GO && o.fits && strcmp(o.fits, "list") == 0)
		code = list_fits();
	if (code == MZM_CLI_GO && o.fits && !(list = strdup(o.fits)))
		code = mzm_cli_exit_code(MZM_ENOMEM);
	if (code == MZM_CLI_GO)
		code = check(&o, &params, fits, list, keep);
	if (code == MZM_CLI_GO)
		code = run(&o, &params);
	free(list);
	mzm_cli_list_free(&o.data);
	return code;
}
