/* cmd_import.c - `mirzam import`: a Hugging Face directory, a GGUF file or a container becomes a .mzm container.
 *
 * Reading, writing and atomicity are the library's; here are the options, the progress and the summary. */
#include "cli.h"

#include <string.h>
#include <sys/stat.h>

static const mzm_cli_command command = {
	.name = "import",
	.usage = "SRC -o FILE.mzm [options]",
	.summary = "Writes one container file from a Hugging Face directory (config.json, *.safetensors, "
		   "tokenizer.json), a GGUF file or another container. The output is complete, or it is what it was "
		   "before.",
	.examples = "mirzam import ./Llama-3.2-1B -o llama.mzm\n"
		    "mirzam import model-Q8_0.gguf -o model.mzm\n"
		    "mirzam import model.mzm -o smaller.mzm --quant q8 --zstd 9\n"
		    "mirzam import ./Llama-3.2-1B -o two.mzm --draft-quant q4",
};

typedef struct import_options {
	const char *out, *quant, *draft_quant, *method, *layout;
	int32_t     zstd;
	bool        allow_nonfinite;
} import_options;

static const char *quant_choice(int i)
{
	static const char *const names[] = {"source", "bf16", "f16", "f32", "q8", "q4"};
	return i < MZM_CLI_COUNT(names) ? names[i] : NULL;
}

static const char *draft_choice(int i)
{
	static const char *const names[] = {"source", "q8", "q4", "off"};
	return i < MZM_CLI_COUNT(names) ? names[i] : NULL;
}

static const char *method_choice(int i)
{
	static const char *const names[] = {"best", "nearest"};
	return i < MZM_CLI_COUNT(names) ? names[i] : NULL;
}

static const char *layout_choice(int i)
{
	static const char *const names[] = {"source", "output", "input"};
	return i < MZM_CLI_COUNT(names) ? names[i] : NULL;
}

#define IMPORT(field) .at = offsetof(import_options, field), .group = "Import"

static const mzm_opt import_rows[] = {
	{.name = "output", .letter = 'o', .type = MZM_OPT_STRING, IMPORT(out), .arg = "FILE",
	 .help = "The container to write."},
	{.name = "quant", .type = MZM_OPT_CHOICE, IMPORT(quant), .choice = quant_choice, .arg = "TYPE",
	 .help = "Type of the matrices; source: as they are. q8 and q4 are blocks of 32 weights with a scale, 8.5 and "
		 "4.5 bits a weight; with q4, embedding and head are q8."},
	{.name = "draft-quant", .type = MZM_OPT_CHOICE, IMPORT(draft_quant), .choice = draft_choice, .arg = "TYPE",
	 .help = "Type of a second image of the matrices, for drafts, beside the model's own; source: the one that is "
		 "there, if there is one."},
	{.name = "quant-method", .type = MZM_OPT_CHOICE, IMPORT(method), .choice = method_choice, .arg = "NAME",
	 .help = "How scales are chosen. best: for the least squared error; nearest: by the largest weight of a "
		 "block."},
	{.name = "attn-layout", .type = MZM_OPT_CHOICE, IMPORT(layout), .choice = layout_choice, .arg = "ORDER",
	 .help = "How the attention's matrices lie: input, a row an input, so that sparse passes may leave inputs out "
		 "(--attn-keep); output, a row an output, which makes checks a little faster."},
	{.name = "zstd", .type = MZM_OPT_INT, IMPORT(zstd), .min = 1, .max = 19, .word = "off", .word_value = 0,
	 .word2 = "auto", .word2_value = -1, .arg = "LEVEL",
	 .help = "Compression: a level from 1 to 19, off, or auto: where it pays."},
	{.name = "allow-nonfinite", .type = MZM_OPT_FLAG, IMPORT(allow_nonfinite),
	 .help = "Keep weights that are NaN or infinite instead of refusing the file."},
};

/* How the weights are stored, where that was decided by measuring. */
static void print_packing(const mzm_import_report *r)
{
	const mzm_file_speed *s = &r->sample;
	char disk[32], unpack[32];
	if (s->raw_bytes == 0)
		return;
	mzm_cli_format_bytes(disk, (uint64_t)s->disk_bytes_per_s);
	mzm_cli_format_bytes(unpack, (uint64_t)(s->unpack_bytes_per_s * s->unpack_threads));
	if (!s->is_compressed)
		fprintf(stderr, "compression: saves nothing in a sample: packed where it does\n");
	else
		fprintf(stderr, "compression: the disk reads %s/s, %d thread%s unpack%s %s/s, %s %.0f %%: %s\n", disk,
			s->unpack_threads, s->unpack_threads == 1 ? "" : "s", s->unpack_threads == 1 ? "s" : "",
			unpack, r->is_raw ? "would save" : "saves",
			100 - 100 * (double)s->stored_bytes / (double)s->raw_bytes,
			r->is_raw ? "stored raw" : "packed");
}

void mzm_cli_print_written(const char *path, const mzm_import_report *r, double seconds)
{
	struct stat sb;
	char size[32], time[32], rate[32], weights[32];
	if (mzm_cli_quiet() || stat(path, &sb) != 0)
		return;
	double bytes = (double)sb.st_size;
	fprintf(stderr, "%s: %s in %s (%s/s)\n", path, mzm_cli_format_bytes(size, (uint64_t)sb.st_size),
		mzm_cli_format_seconds(time, seconds),
		mzm_cli_format_bytes(rate, (uint64_t)(seconds > 0 ? bytes / seconds : 0)));
	fprintf(stderr, "matrices: %s, %s\n", r->dtype, mzm_cli_format_bytes(weights, r->weight_bytes));
	print_packing(r);
	if (r->n_unchanged)
		fprintf(stderr, "%d matrices kept their type: their rows are no whole blocks of 32 weights\n",
			r->n_unchanged);
	if (r->n_draft)
		fprintf(stderr, "draft image: %d matrices, %s\n", r->n_draft,
			mzm_cli_format_bytes(weights, r->draft_bytes));
}

/* "source" and NULL are the same to the library. */
static const char *unless_source(const char *choice)
{
	return choice && strcmp(choice, "source") != 0 ? choice : NULL;
}

static int import(const char *src, const import_options *o)
{
	mzm_err err = {0};
	mzm_cli_progress progress = mzm_cli_progress_init(NULL);
	mzm_import_params params = mzm_import_params_default();
	mzm_import_report report = {0};
	params.quant = unless_source(o->quant);
	params.draft_quant = unless_source(o->draft_quant);
	params.quant_method = o->method;
	params.attn_layout = unless_source(o->layout);
	params.report = &report;
	params.zstd = o->zstd;
	params.allow_nonfinite = o->allow_nonfinite;
	params.progress = mzm_cli_progress_report;
	params.user = &progress;
	mzm_cli_catch_interrupt();
	mzm_status st = mzm_import(src, o->out, &params, &err);
	mzm_cli_progress_clear(&progress);
	if (st != MZM_OK)
		return mzm_cli_fail(&err);
	mzm_cli_print_written(o->out, &report, (double)(mzm_cli_now_ns() - progress.begin_ns) * 1e-9);
	return MZM_CLI_DONE;
}

int mzm_cmd_import(int argc, char **argv)
{
	import_options o = {.quant = "source", .draft_quant = "source", .method = "best",
			    .zstd = mzm_import_params_default().zstd};
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
