/* cmd_synth.c - `mirzam synth`: containers for measuring speed, random or inflated.
 *
 * The weights are the library's; here are the options, the progress and the summary. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

static const mzm_cli_command command = {
	.name = "synth",
	.usage = "--arch NAME -o FILE.mzm [--layers N] [options]\n"
		 "--inflate N [-m MODEL] -o FILE.mzm [options]",
	.summary = "Writes a model for measuring speed. With --arch: random weights in the shape of a known model "
		   "(qwen2.5 without its attention biases, mistral as of version 0.3), without a tokenizer. With "
		   "--inflate: a model made N times as wide, about N x N times as large, that still gives the same "
		   "tokens: width, heads and neurons are repeated and the weights between the copies divided among "
		   "them at random. So speed and accuracy can be measured in one run on a model that memory bounds. "
		   "Quantisation hurts an inflated model less than a trained one of that size: its errors partly "
		   "average out over the copies. The output says what it is: see mirzam inspect.",
	.examples = "mirzam synth --inflate 14 -o big.mzm --draft-quant q4\n"
		    "mirzam eval -m big.mzm --limit 100 --mode dense,sirius\n"
		    "mirzam synth --arch llama-3.2-1b -o 1b.mzm\n"
		    "mirzam synth --arch llama-2-7b --layers 8 -o quarter.mzm",
};

typedef struct synth_options {
	const char *out, *arch, *model, *quant, *draft_quant;
	int32_t     layers, inflate, zstd;
	uint64_t    seed;
} synth_options;

static const char *quant_choice(int i)
{
	static const char *const names[] = {"source", "bf16", "f16", "f32", "q8", "q4"};
	return i < MZM_CLI_COUNT(names) ? names[i] : NULL;
}

static const char *draft_choice(int i)
{
	static const char *const names[] = {"off", "q8", "q4"};
	return i < MZM_CLI_COUNT(names) ? names[i] : NULL;
}

#define SYNTH(field, heading) .at = offsetof(synth_options, field), .group = heading

static const mzm_opt synth_rows[] = {
	{.name = "arch", .type = MZM_OPT_CHOICE, SYNTH(arch, "Weights"), .choice = mzm_synth_arch_name, .arg = "NAME",
	 .help = "Random weights in this shape."},
	{.name = "layers", .type = MZM_OPT_INT, SYNTH(layers, "Weights"), .max = 4096, .arg = "N",
	 .help = "Of --arch: only the first N layers; 0: all."},
	{.name = "inflate", .type = MZM_OPT_INT, SYNTH(inflate, "Weights"), .min = 1, .max = 1024, .arg = "N",
	 .shown = "", .help = "Make a model N times as wide."},
	{.name = "model", .letter = 'm', .type = MZM_OPT_STRING, SYNTH(model, "Weights"), .arg = "MODEL",
	 .shown = "the demo model", .help = "Of --inflate: a container or a model directory, not quantised."},
	{.name = "seed", .type = MZM_OPT_U64, SYNTH(seed, "Weights"), .arg = "N",
	 .help = "Of the weights; with --inflate, of their division among the copies."},
	{.name = "output", .letter = 'o', .type = MZM_OPT_STRING, SYNTH(out, "Output"), .arg = "FILE",
	 .help = "The container to write."},
	{.name = "quant", .type = MZM_OPT_CHOICE, SYNTH(quant, "Output"), .choice = quant_choice, .arg = "TYPE",
	 .help = "Type of the matrices; source: those of the model, bf16 for random ones."},
	{.name = "draft-quant", .type = MZM_OPT_CHOICE, SYNTH(draft_quant, "Output"), .choice = draft_choice,
	 .arg = "TYPE", .help = "Type of a second image of the matrices, for drafts."},
	{.name = "zstd", .type = MZM_OPT_INT, SYNTH(zstd, "Output"), .min = 1, .max = 19, .word = "off",
	 .word_value = 0, .word2 = "auto", .word2_value = -1, .arg = "LEVEL",
	 .help = "Compression: a level from 1 to 19, off, or auto: where it pays."},
};

/* "source" and NULL are the same to the library. */
static const char *unless_source(const char *choice)
{
	return choice && strcmp(choice, "source") != 0 ? choice : NULL;
}

static int synth(const synth_options *o, const char *model)
{
	mzm_err err = {0};
	mzm_cli_progress progress = mzm_cli_progress_init(NULL);
	mzm_import_report report = {0};
	mzm_synth_params params = mzm_synth_params_default();
	params.arch = o->arch;
	params.n_layers = o->layers;
	params.inflate = model;
	params.factor = o->inflate;
	params.seed = o->seed;
	params.import.quant = unless_source(o->quant);
	params.import.draft_quant = unless_source(o->draft_quant);
	params.import.report = &report;
	params.import.zstd = o->zstd;
	params.import.progress = mzm_cli_progress_report;
	params.import.user = &progress;
	mzm_cli_catch_interrupt();
	mzm_status st = mzm_synth(o->out, &params, &err);
	mzm_cli_progress_clear(&progress);
	if (st != MZM_OK)
		return mzm_cli_fail_usage(&command, &err);
	mzm_cli_print_written(o->out, &report, (double)(mzm_cli_now_ns() - progress.begin_ns) * 1e-9);
	return MZM_CLI_DONE;
}

static int check(const synth_options *o)
{
	if (!o->arch && !o->inflate)
		return mzm_cli_usage_error(&command, "nothing to make: give --arch NAME or --inflate N");
	if (o->arch && o->inflate)
		return mzm_cli_usage_error(&command, "--arch and --inflate exclude each other");
	if (o->arch && o->model)
		return mzm_cli_usage_error(&command, "-m belongs to --inflate; --arch needs no model");
	if (o->inflate && o->layers)
		return mzm_cli_usage_error(&command, "--layers belongs to --arch");
	if (!o->out)
		return mzm_cli_usage_error(&command, "no output: give -o FILE.mzm");
	return MZM_CLI_GO;
}

int mzm_cmd_synth(int argc, char **argv)
{
	synth_options o = {.quant = "source", .draft_quant = "off", .zstd = mzm_import_params_default().zstd};
	mzm_cli_args args = {.max = 0};
	mzm_err err = {0};
	char *model = NULL;
	const mzm_opt_table tables[] = {{synth_rows, MZM_CLI_COUNT(synth_rows), &o}, mzm_cli_common_table()};
	int code = mzm_cli_parse(&command, tables, MZM_CLI_COUNT(tables), argc, argv, &args);
	code = code == MZM_CLI_GO ? check(&o) : code;
	if (code != MZM_CLI_GO)
		return code;
	mzm_cli_model from = mzm_cli_model_default();
	from.path = o.model;
	if (o.inflate && mzm_cli_model_path(&model, &from, &err) != MZM_OK)
		return mzm_cli_fail(&err);
	code = synth(&o, model);
	free(model);
	return code;
}
