/* cmd_import.c - `mirzam import`: a Hugging Face directory or a container becomes a .mzm container.
 *
 * Reading, writing and atomicity are the library's; here are the options, the progress and the summary. */
#include "cli.h"

#include <string.h>
#include <sys/stat.h>

static const mzm_cli_command command = {
	.name = "import",
	.usage = "SRC -o FILE.mzm [options]",
	.summary = "Writes one container file from a Hugging Face directory (config.json, *.safetensors, "
		   "tokenizer.json) or from another container. The output is complete, or it is what it was before.",
	.examples = "mirzam import ./Llama-3.2-1B -o llama.mzm\n"
		    "mirzam import model.mzm -o smaller.mzm --quant f16 --zstd 9",
};

typedef struct import_options {
	const char *out, *quant;
	int32_t     zstd;
	bool        allow_nonfinite;
} import_options;

static const char *quant_choice(int i)
{
	static const char *const names[] = {"source", "bf16", "f16", "f32"};
	return i < MZM_CLI_COUNT(names) ? names[i] : NULL;
}

#define IMPORT(field) .at = offsetof(import_options, field), .group = "Import"

static const mzm_opt import_rows[] = {
	{.name = "output", .letter = 'o', .type = MZM_OPT_STRING, IMPORT(out), .arg = "FILE",
	 .help = "The container to write."},
	{.name = "quant", .type = MZM_OPT_CHOICE, IMPORT(quant), .choice = quant_choice, .arg = "TYPE",
	 .help = "Type of the matrices; source: as they are."},
	{.name = "zstd", .type = MZM_OPT_INT, IMPORT(zstd), .min = 1, .max = 19, .word = "off", .word_value = 0,
	 .word2 = "auto", .word2_value = -1, .arg = "LEVEL",
	 .help = "Compression: a level from 1 to 19, off, or auto: where it pays."},
	{.name = "allow-nonfinite", .type = MZM_OPT_FLAG, IMPORT(allow_nonfinite),
	 .help = "Keep weights that are NaN or infinite instead of refusing the file."},
};

static void print_summary(const char *path, double seconds)
{
	struct stat sb;
	char size[32], time[32], rate[32];
	if (mzm_cli_quiet() || stat(path, &sb) != 0)
		return;
	double bytes = (double)sb.st_size;
	fprintf(stderr, "%s: %s in %s (%s/s)\n", path, mzm_cli_format_bytes(size, (uint64_t)sb.st_size),
		mzm_cli_format_seconds(time, seconds),
		mzm_cli_format_bytes(rate, (uint64_t)(seconds > 0 ? bytes / seconds : 0)));
}

static int import(const char *src, const import_options *o)
{
	mzm_err err = {0};
	mzm_cli_progress progress = mzm_cli_progress_init(NULL);
	mzm_import_params params = mzm_import_params_default();
	params.quant = o->quant && strcmp(o->quant, "source") != 0 ? o->quant : NULL;
	params.zstd = o->zstd;
	params.allow_nonfinite = o->allow_nonfinite;
	params.progress = mzm_cli_progress_report;
	params.user = &progress;
	mzm_cli_catch_interrupt();
	mzm_status st = mzm_import(src, o->out, &params, &err);
	mzm_cli_progress_clear(&progress);
	if (st != MZM_OK)
		return mzm_cli_fail(&err);
	print_summary(o->out, (double)(mzm_cli_now_ns() - progress.begin_ns) * 1e-9);
	return MZM_CLI_DONE;
}

int mzm_cmd_import(int argc, char **argv)
{
	import_options o = {.quant = "source", .zstd = mzm_import_params_default().zstd};
	mzm_cli_args args = {.max = 1};
	const mzm_opt_table tables[] = {{import_rows, MZM_CLI_COUNT(import_rows), &o}, mzm_cli_common_table()};
	int code = mzm_cli_parse(&command, tables, MZM_CLI_COUNT(tables), argc, argv, &args);
	if (code != MZM_CLI_GO)
		return code;
	if (args.n == 0)
		return mzm_cli_usage_error(&command, "no source: name a model directory or a container");
	if (!o.out)
		return mzm_cli_usage_error(&command, "no output: give -o FILE.mzm");
	return import(args.item[0], &o);
}
