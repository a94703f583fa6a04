/* cmd_bench.c - `mirzam bench`: what the machine can do, and what each kind of pass of a model makes of it.
 *
 * The measuring is the library's; here are the options, the progress line and the outputs. Tables go to standard
 * output, everything else for people to stderr. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { MAX_LIST = 16 };

static const mzm_cli_command command = {
	.name = "bench",
	.usage = "[-m MODEL] [options]\n--arch NAME [--layers N] [options]",
	.summary = "Measures this machine and a model on it: reading memory and multiplying, then prefill, dense and "
		   "sparse tokens, checks of several tokens, and generations in every mode. Every round measures "
		   "everything once; figures are medians over the rounds.",
	.examples = "mirzam bench\n"
		    "mirzam bench -m model.mzm --time 300 --json bench.json --svg bench.svg\n"
		    "mirzam bench -m model.mzm --only check,sparse --predictor topk --keep 0.15,0.3\n"
		    "mirzam bench -m model.mzm --only generate --gen-predictor topk --gen-keep 0.15 --period 12\n"
		    "mirzam bench --arch llama-2-7b --layers 8 --accept-rate 0.95 --quick",
};

typedef struct bench_options {
	mzm_bench_params p;
	mzm_cli_model    model;
	const char      *arch, *predictors, *keep, *only, *json, *svg;
	const char      *exit, *draft_path;
	mzm_model       *draft;
	char            *drafts; /* lists of drafters, each a string */
	const char      *drafter[MAX_LIST];
	int32_t          n_layers;
	uint64_t         seed;
	float            seconds, accept_rate;
	bool             quick;

	const char *predictor[MAX_LIST];
	float       share[MAX_LIST];
} bench_options;

static const char *accept_choice(int i)
{
	return i <= MZM_ACCEPT_TYPICAL ? mzm_accept_name((mzm_accept)i) : NULL;
}

#define RANDOM(field) .at = offsetof(bench_options, field), .group = "Random weights"
#define BENCH(field) .at = offsetof(bench_options, field), .group = "Measurements"
#define GEN(field)   .at = offsetof(bench_options, p.gen.field), .group = "Generations"
#define TIMES(field) .at = offsetof(bench_options, field), .group = "Time"
#define OUT(field)   .at = offsetof(bench_options, field), .group = "Output"

static const mzm_opt bench_rows[] = {
	{.name = "arch", .type = MZM_OPT_CHOICE, RANDOM(arch), .choice = mzm_synth_arch_name, .arg = "NAME",
	 .shown = "off", .help = "Instead of a model file: random bf16 weights in this shape, made in memory."},
	{.name = "layers", .type = MZM_OPT_INT, RANDOM(n_layers), .max = 4096, .arg = "N",
	 .help = "Only its first N layers; 0: all."},
	{.name = "seed", .type = MZM_OPT_U64, RANDOM(seed), .arg = "N", .help = "Of the weights."},

	{.name = "only", .type = MZM_OPT_STRING, BENCH(only), .arg = "LIST", .shown = "all",
	 .help = "Of prefill, dense, context, check, sparse and generate. The peaks and a dense token are always "
		 "measured."},
	{.name = "prompt", .type = MZM_OPT_INT, BENCH(p.n_prompt), .max = INT32_MAX, .arg = "N",
	 .shown = "512, or what the context holds", .help = "Tokens of the prefill."},
	{.name = "context", .type = MZM_OPT_INT, BENCH(p.context), .max = INT32_MAX, .arg = "N", .shown = "128",
	 .help = "Tokens before those of a pass."},
	{.name = "long-context", .type = MZM_OPT_INT, BENCH(p.long_context), .max = INT32_MAX, .arg = "N",
	 .shown = "8192, or the model's limit, or 4 GiB of KV",
	 .help = "Tokens before the one that measures attention."},
	{.name = "predictor", .type = MZM_OPT_STRING, BENCH(predictors), .arg = "LIST",
	 .help = "Predictors of sparse tokens."},
	{.name = "keep", .type = MZM_OPT_STRING, BENCH(keep), .arg = "LIST",
	 .help = "Shares of FFN neurons that sparse tokens keep."},
	{.name = "peak-buffer", .type = MZM_OPT_SIZE, BENCH(p.peak_bytes), .max = 68719476736., .arg = "SIZE",
	 .shown = "512M, or four times the last-level cache", .help = "What the read peak reads."},

	{.name = "tokens", .letter = 'n', .type = MZM_OPT_INT, GEN(max_tokens), .max = INT32_MAX, .arg = "N",
	 .shown = "128, or fewer for the time", .help = "Tokens of a generation at most."},
	{.name = "draft", .type = MZM_OPT_STRING, GEN(draft), .arg = "NAMES,...",
	 .help = "What writes the drafts; several with + between them, or auto. All behind the first comma are "
		 "measured in exact mode, beside it."},
	{.name = "skip", .type = MZM_OPT_STRING, GEN(skip), .arg = "SET",
	 .help = "Layers that --draft skip leaves out, such as \"attn:3,4 mlp:1-5\"; auto: those of the side-car."},
	{.name = "skip-keep", .type = MZM_OPT_FLOAT, GEN(skip_keep), .open_min = true, .max = 1, .arg = "SHARE",
	 .help = "Share of neurons that its FFNs keep."},
	{.name = "exit", .type = MZM_OPT_STRING, .at = offsetof(bench_options, exit), .group = "Generations",
	 .arg = "P", .shown = "adaptive",
	 .help = "Probability below which a token ends a draft of skip or model; off; adaptive."},
	{.name = "draft-model", .type = MZM_OPT_STRING, .at = offsetof(bench_options, draft_path),
	 .group = "Generations", .arg = "MODEL", .shown = "none", .help = "The model of --draft model."},
	{.name = "gen-predictor", .type = MZM_OPT_CHOICE, GEN(predictor), .choice = mzm_predictor_name, .arg = "NAME",
	 .help = "What chooses the neurons of drafts."},
	{.name = "gen-keep", .type = MZM_OPT_FLOAT, GEN(keep), .open_min = true, .max = 1, .arg = "SHARE",
	 .help = "Share of FFN neurons that drafts keep."},
	{.name = "period", .type = MZM_OPT_INT, GEN(period), .min = 1, .max = MZM_MAX_PERIOD, .word = "auto",
	 .word_value = 0, .arg = "N", .help = "Tokens a check. Checked modes are also measured with auto."},
	{.name = "accept", .type = MZM_OPT_ENUM, GEN(accept), .choice = accept_choice, .arg = "RULE",
	 .help = "When sirius mode keeps a draft token."},
	{.name = "threshold", .type = MZM_OPT_FLOAT, GEN(threshold), .max = 1, .arg = "P",
	 .help = "Probability by the full model from which it does."},
	{.name = "accept-rate", .type = MZM_OPT_FLOAT, .at = offsetof(bench_options, accept_rate),
	 .group = "Generations", .max = 1, .arg = "R", .shown = "off",
	 .help = "Keep each draft token with this probability, whatever it is: for models of random weights. Every "
		 "such line says so."},

	{.name = "repeats", .type = MZM_OPT_INT, TIMES(p.n_repeats), .min = 3, .max = 99, .arg = "N", .shown = "7",
	 .help = "Rounds."},
	{.name = "time", .type = MZM_OPT_FLOAT, TIMES(seconds), .open_min = true, .max = 1e6, .arg = "SECONDS",
	 .help = "About how long all may take: fewer tokens and rounds, 3 at least, when it would be longer."},
	{.name = "quick", .type = MZM_OPT_FLAG, TIMES(quick), .help = "3 short rounds: a first look."},

	{.name = "json", .type = MZM_OPT_STRING, OUT(json), .arg = "FILE",
	 .help = "Write settings, machine and one row a measurement; -: to standard output, instead of the tables."},
	{.name = "svg", .type = MZM_OPT_STRING, OUT(svg), .arg = "FILE", .help = "Draw the ratios as a picture."},
};

/* ---- options ---- */

static const char *part_name(int i, const void *user)
{
	(void)user;
	return i <= MZM_BENCH_GENERATE ? mzm_bench_kind_name((mzm_bench_kind)i) : NULL;
}

static const char *predictor_name(int i, const void *user)
{
	(void)user;
	return mzm_predictor_name(i);
}

/* "; did you mean X?", or what there is. */
static const char *hint(char buf[96], const char *near, const char *otherwise)
{
	if (near)
		snprintf(buf, 96, "; did you mean %s?", near);
	else
		snprintf(buf, 96, "%s", otherwise);
	return buf;
}

static int take_part(bench_options *o, const char *name)
{
	char buf[96];
	for (int i = MZM_BENCH_PREFILL; i <= MZM_BENCH_GENERATE; i++) {
		if (strcmp(name, mzm_bench_kind_name((mzm_bench_kind)i)) == 0) {
			o->p.parts |= MZM_BENCH_PART(i);
			return MZM_CLI_GO;
		}
	}
	return mzm_cli_usage_error(&command, "--only: no measurement '%s'%s", name,
				   hint(buf, mzm_cli_nearest(name, part_name, NULL),
					" (prefill, dense, context, check, sparse, generate)"));
}

static int take_predictor(bench_options *o, const char *name)
{
	char buf[96];
	if (o->p.n_predictors == MAX_LIST)
		return mzm_cli_usage_error(&command, "--predictor: more than %d", MAX_LIST);
	for (int i = 0; mzm_predictor_name(i); i++) {
		if (strcmp(name, mzm_predictor_name(i)) == 0) {
			o->predictor[o->p.n_predictors++] = mzm_predictor_name(i);
			return MZM_CLI_GO;
		}
	}
	return mzm_cli_usage_error(&command, "--predictor: unknown predictor '%s'%s", name,
				   hint(buf, mzm_cli_nearest(name, predictor_name, NULL), ""));
}

static int take_share(bench_options *o, const char *word)
{
	char *end;
	errno = 0;
	float x = strtof(word, &end);
	if (o->p.n_keep == MAX_LIST)
		return mzm_cli_usage_error(&command, "--keep: more than %d", MAX_LIST);
	if (errno || end == word || *end || !(x > 0 && x <= 1))
		return mzm_cli_usage_error(&command, "--keep: '%s' is no share above 0 and at most 1", word);
	o->share[o->p.n_keep++] = x;
	return MZM_CLI_GO;
}

/* Hands each word of a comma-separated list to take; the list is cut up. */
static int for_words(bench_options *o, char *list, int (*take)(bench_options *o, const char *word))
{
	int code = MZM_CLI_GO;
	char *word;
	while (code == MZM_CLI_GO && (word = strsep(&list, ",")) != NULL)
		code = take(o, word);
	return code;
}

static int read_list(bench_options *o, const char *list, int (*take)(bench_options *o, const char *word))
{
	char *copy = strdup(list);
	if (!copy)
		return mzm_cli_exit_code(MZM_ENOMEM);
	int code = for_words(o, copy, take);
	free(copy);
	return code;
}

static int take_drafts(bench_options *o)
{
	mzm_err err = {0};
	int code = mzm_cli_split_drafts(&command, &o->drafts, &o->p.gen);
	for (const char *list = o->drafts; code == MZM_CLI_GO && *list; list += strlen(list) + 1) {
		mzm_gen_params gen = o->p.gen;
		gen.draft = list;
		if (o->p.n_drafts == MAX_LIST)
			return mzm_cli_usage_error(&command, "--draft: more than %d", MAX_LIST);
		if (mzm_gen_params_check(&gen, &err) != MZM_OK)
			return mzm_cli_fail_usage(&command, &err);
		o->drafter[o->p.n_drafts++] = list;
	}
	o->p.drafts = o->drafter;
	return code;
}

static int finish_options(bench_options *o)
{
	mzm_err err = {0};
	int code = o->only ? read_list(o, o->only, take_part) : MZM_CLI_GO;
	if (code == MZM_CLI_GO)
		code = read_list(o, o->predictors, take_predictor);
	if (code == MZM_CLI_GO)
		code = read_list(o, o->keep, take_share);
	if (code == MZM_CLI_GO && o->arch && o->model.path)
		code = mzm_cli_usage_error(&command, "--arch and --model exclude each other");
	if (code == MZM_CLI_GO && o->n_layers > 0 && !o->arch)
		code = mzm_cli_usage_error(&command, "--layers needs --arch NAME");
	if (o->json && o->svg && strcmp(o->json, "-") == 0 && strcmp(o->svg, "-") == 0 && code == MZM_CLI_GO)
		code = mzm_cli_usage_error(&command, "--json and --svg cannot both go to standard output");
	o->p.predictors = o->predictor;
	o->p.keep = o->share;
	if (code == MZM_CLI_GO && o->exit && mzm_draft_exit_parse(&o->p.gen.draft_exit, o->exit, &err) != MZM_OK)
		code = mzm_cli_fail_usage(&command, &err);
	if (code == MZM_CLI_GO)
		code = take_drafts(o);
	o->p.n_gen = o->p.gen.max_tokens;
	o->p.accept_rate = (double)o->accept_rate;
	o->p.seconds = (double)o->seconds;
	o->p.session.n_ctx = o->model.n_ctx;
	o->p.session.n_threads = o->model.n_threads;
	o->p.session.kv_type = o->model.kv;
	if (o->quick) {
		o->p.n_repeats = mzm_cli_was_given("repeats") ? o->p.n_repeats : 3;
		o->p.sample_seconds = 0.01;
	}
	return code;
}

/* ---- output ---- */

static mzm_status write_json(const mzm_cli_bench *b, const char *path, mzm_err *err)
{
	json_t *root = mzm_cli_bench_json(b);
	mzm_status st = root ? mzm_cli_json_write(root, path, err) : mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
	json_decref(root);
	return st;
}

static mzm_status write_svg(const mzm_cli_bench *b, const char *path, mzm_err *err)
{
	mzm_cli_file file = {0};
	mzm_status st = mzm_cli_file_create(&file, path, err);
	if (st != MZM_OK)
		return st;
	mzm_cli_bench_svg(b, file.f);
	return mzm_cli_file_commit(&file, err);
}

static mzm_status write_all(const mzm_cli_bench *b, const bench_options *o, mzm_err *err)
{
	bool taken = (o->json && strcmp(o->json, "-") == 0) || (o->svg && strcmp(o->svg, "-") == 0);
	mzm_status st = MZM_OK;
	if (!taken) {
		mzm_cli_bench_table(b, stdout);
		if (!mzm_cli_quiet())
			mzm_cli_bench_words(b, stdout);
		st = mzm_cli_flush(stdout, "standard output", err);
	}
	if (st == MZM_OK && o->json)
		st = write_json(b, o->json, err);
	if (st == MZM_OK && o->svg)
		st = write_svg(b, o->svg, err);
	return st;
}

static void name_model(char *name, size_t cap, const char *path)
{
	const char *slash = strrchr(path, '/');
	snprintf(name, cap, "%s", slash && slash[1] ? slash + 1 : path);
}

/* What must be said of weights that nobody trained in this form; "" for a model as published. */
static void describe_origin(char *text, size_t cap, const bench_options *o, const mzm_model_info *info)
{
	char *json = NULL;
	const char *shape = o->arch;
	text[0] = 0;
	if (!o->arch)
		mzm_inspect(info->path, false, NULL, NULL, &json, NULL);
	json_t *root = json ? json_loads(json, 0, NULL) : NULL, *origin = json_object_get(root, "origin");
	const char *kind = json_string_value(json_object_get(origin, "kind"));
	if (kind && strcmp(kind, "synthetic") == 0)
		shape = json_string_value(json_object_get(origin, "shape"));
	if (info->inflated > 0)
		snprintf(text, cap, "inflated %d times, the same function in more weights; quantisation error partly "
			 "averages out in it", info->inflated);
	else if (shape)
		snprintf(text, cap, "random, in the shape of %s; texts mean nothing, nor does acceptance", shape);
	json_decref(root);
	mzm_string_free(json);
}

/* ---- command ---- */

static int bench(bench_options *o, const mzm_model *model)
{
	mzm_err err = {0}, out_err = {0};
	mzm_cli_progress progress = mzm_cli_progress_init("samples");
	mzm_bench_result *result = NULL;
	char origin[160];
	mzm_cli_bench b = {.info = mzm_model_get_info(model), .params = &o->p, .model = model};
	o->p.progress = mzm_cli_progress_report;
	o->p.user = &progress;
	mzm_status st = mzm_bench(&result, model, &o->p, &err);
	mzm_cli_progress_clear(&progress);
	if (st != MZM_OK && st != MZM_ECANCELLED)
		return mzm_cli_fail_usage(&command, &err);
	if (!result) {
		mzm_cli_error("%s", err.message);
		return MZM_CLI_INTERRUPTED;
	}
	b.result = result;
	name_model(b.name, sizeof b.name, b.info->path);
	describe_origin(origin, sizeof origin, o, b.info);
	b.origin = origin[0] ? origin : NULL;
	mzm_status written = write_all(&b, o, &out_err);
	mzm_bench_free(result);
	if (written != MZM_OK)
		return mzm_cli_fail(&out_err);
	return st == MZM_OK ? MZM_CLI_DONE : MZM_CLI_INTERRUPTED;
}

#define BUDGET_BUFFER ((uint64_t)64 << 20) /* of the read peak, when a budget is to be kept */

static int open_random(mzm_model **model, const bench_options *o)
{
	mzm_err err = {0};
	mzm_cli_progress progress = mzm_cli_progress_init(NULL);
	mzm_model_params mp = mzm_model_params_default();
	mp.isa = o->model.isa;
	mp.no_onednn = o->model.no_onednn;
	mp.progress = mzm_cli_progress_report;
	mp.user = &progress;
	mzm_status st = mzm_model_open_synth(model, o->arch, o->n_layers, o->seed, &mp, &err);
	mzm_cli_progress_clear(&progress);
	return st == MZM_OK ? MZM_CLI_GO : mzm_cli_fail_usage(&command, &err);
}

static int open_and_bench(bench_options *o)
{
	mzm_err err = {0};
	mzm_model *model = NULL;
	mzm_cli_catch_interrupt();
	if (o->model.ram && !o->p.peak_bytes)
		o->p.peak_bytes = BUDGET_BUFFER;
	o->model.reserve = o->p.peak_bytes;
	int code = mzm_cli_open_draft(&o->draft, o->draft_path, &command, &o->model);
	o->p.gen.draft_model = o->draft;
	mzm_gen_params drafts = o->p.gen;
	drafts.mode = MZM_MODE_SIRIUS;
	o->model.drafts = &drafts;
	if (code == MZM_CLI_GO)
		code = o->arch ? open_random(&model, o) : mzm_cli_open(&model, NULL, &command, &o->model);
	if (code == MZM_CLI_GO &&
	    (mzm_cli_file_probe(o->json, &err) != MZM_OK || mzm_cli_file_probe(o->svg, &err) != MZM_OK))
		code = mzm_cli_fail(&err);
	if (code == MZM_CLI_GO)
		code = bench(o, model);
	mzm_model_close(model);
	mzm_model_close(o->draft);
	return code;
}

int mzm_cmd_bench(int argc, char **argv)
{
	bench_options o = {.p = mzm_bench_params_default(), .model = mzm_cli_model_default(),
			   .predictors = "griffin,topk", .keep = "0.1,0.25,0.5,0.75", .seconds = 60};
	mzm_cli_args args = {.max = 0};
	const mzm_opt_table tables[] = {{bench_rows, MZM_CLI_COUNT(bench_rows), &o}, mzm_cli_model_table(&o.model),
					mzm_cli_common_table()};
	int code = mzm_cli_parse(&command, tables, MZM_CLI_COUNT(tables), argc, argv, &args);
	if (code == MZM_CLI_GO)
		code = finish_options(&o);
	if (code == MZM_CLI_GO && o.arch && (o.model.ram || strcmp(o.model.store, "auto") != 0))
		code = mzm_cli_usage_error(&command,
					   "--arch makes its weights in memory: it takes no --ram and no --store");
	if (code == MZM_CLI_GO)
		code = open_and_bench(&o);
	free(o.drafts);
	return code;
}
