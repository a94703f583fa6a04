/* bench_table.c - `mirzam bench` for people: tables, and in words what they say. */
#include <math.h>
#include <string.h>

#include "bench.h"

enum { NAME = 26, WIDTH = 80 };

/* ---- cells ---- */

/* Three or four digits that matter, right-aligned; "-" when not defined. */
static void put_number(FILE *out, double x, int width, const char *unit)
{
	char cell[48];
	int digits = fabs(x) < 9.9995 ? 3 : fabs(x) < 99.995 ? 2 : fabs(x) < 999.95 ? 1 : 0;
	if (isnan(x))
		snprintf(cell, sizeof cell, "-");
	else
		snprintf(cell, sizeof cell, "%.*f%s", digits, x, unit);
	fprintf(out, "%*s", width, cell);
}

/* With as many decimals as said. */
static void put_fixed(FILE *out, double x, int decimals, int width, const char *unit)
{
	char cell[48];
	if (isnan(x))
		snprintf(cell, sizeof cell, "-");
	else
		snprintf(cell, sizeof cell, "%.*f%s", decimals, x, unit);
	fprintf(out, "%*s", width, cell);
}

static void put_heading(FILE *out, const char *title, const char *columns)
{
	fprintf(out, "\n%s%-*s%s%s%s%s\n", mzm_cli_sgr(out, MZM_SGR_BOLD), NAME, title,
		mzm_cli_sgr(out, MZM_SGR_RESET), mzm_cli_sgr(out, MZM_SGR_DIM), columns,
		mzm_cli_sgr(out, MZM_SGR_RESET));
}

static void put_note(FILE *out, const char *note)
{
	fprintf(out, "%s%s\n", note[0] ? "  " : "", note);
}

/* ---- tables ---- */

static void put_times(FILE *out, const mzm_bench_row *row)
{
	const char *kind = mzm_bench_kind_name(row->kind), *name = row->name;
	if (row->kind == MZM_BENCH_GENERATE && strncmp(name, kind, strlen(kind)) == 0)
		name += strlen(kind) + 1; /* the heading says it */
	fprintf(out, "  %-*s", NAME - 2, name);
	put_number(out, row->ms_median, 9, "");
	put_number(out, row->ms_min, 9, "");
	put_number(out, row->ms_max, 9, "");
	put_fixed(out, row->spread_percent, 0, 7, "%");
}

static void put_machine(const mzm_cli_bench *b, FILE *out)
{
	put_heading(out, "Machine", "       ms      min      max spread           best");
	for (int32_t i = 0; i < b->result->n_rows; i++) {
		const mzm_bench_row *row = &b->result->rows[i];
		bool is_read = row->kind == MZM_BENCH_READ;
		if (!is_read && row->kind != MZM_BENCH_MATMUL)
			continue;
		put_times(out, row);
		put_number(out, is_read ? row->gb_per_s : row->gflop_per_s, 8, "");
		put_number(out, is_read ? b->result->best_gb_per_s : b->result->best_gflop_per_s, 8, "");
		fprintf(out, " %s", is_read ? "GB/s" : "GFLOP/s");
		put_note(out, row->note);
	}
}

static void put_prefill(const mzm_cli_bench *b, FILE *out)
{
	const mzm_bench_row *row = mzm_cli_bench_find(b->result, MZM_BENCH_PREFILL, 0, MZM_MODE_DENSE);
	if (!row)
		return;
	put_heading(out, "Prompt", "       ms      min      max spread    tok/s GFLOP/s   peak");
	put_times(out, row);
	put_number(out, row->tok_per_s, 9, "");
	put_number(out, row->gflop_per_s, 8, "");
	put_fixed(out, row->percent_of_peak, 0, 7, "%");
	put_note(out, row->note);
}

static bool is_pass(const mzm_bench_row *row)
{
	return row->kind == MZM_BENCH_DENSE || row->kind == MZM_BENCH_SPARSE || row->kind == MZM_BENCH_CHECK ||
	       row->kind == MZM_BENCH_CONTEXT;
}

static void put_passes(const mzm_cli_bench *b, FILE *out)
{
	put_heading(out, "Passes",
		    "       ms      min      max spread    tok/s    GB/s   peak  x dense  bound");
	for (int32_t i = 0; i < b->result->n_rows; i++) {
		const mzm_bench_row *row = &b->result->rows[i];
		if (!is_pass(row))
			continue;
		put_times(out, row);
		put_number(out, row->tok_per_s, 9, "");
		put_number(out, row->gb_per_s, 8, "");
		put_fixed(out, row->percent_of_peak, 0, 7, "%");
		put_fixed(out, row->ratio_to_dense, 2, 8, "x");
		put_fixed(out, row->bound_ratio, 2, 7, "");
		put_note(out, row->note);
	}
}

static void put_generations(const mzm_cli_bench *b, FILE *out)
{
	bool any = false;
	for (int32_t i = 0; i < b->result->n_rows; i++) {
		const mzm_bench_row *row = &b->result->rows[i];
		if (row->kind != MZM_BENCH_GENERATE)
			continue;
		if (!any)
			put_heading(out, "Generations",
				    "   ms/tok      min      max spread    tok/s    GB/s   peak speed-up     AAL"
				    " kept");
		any = true;
		put_times(out, row);
		put_number(out, row->tok_per_s, 9, "");
		put_number(out, row->gb_per_s, 8, "");
		put_fixed(out, row->percent_of_peak, 0, 7, "%");
		put_fixed(out, row->speedup, 2, 9, "x");
		put_fixed(out, row->aal, 2, 8, "");
		put_fixed(out, 100 * row->accept_rate, 0, 5, "%");
		put_note(out, row->note);
	}
}

void mzm_cli_bench_table(const mzm_cli_bench *b, FILE *out)
{
	const mzm_bench_result *r = b->result;
	char size[32], took[32];
	fprintf(out, "%s: %s, %d layer%s, %s a token", b->name, b->info->dtype, b->info->n_layers,
		b->info->n_layers == 1 ? "" : "s", mzm_cli_format_bytes(size, b->info->bytes_per_token));
	fprintf(out, "; %d thread%s, %s\n", r->n_threads, r->n_threads == 1 ? "" : "s", b->info->isa);
	fprintf(out, "%d rounds in %s%s; passes behind %d tokens\n", r->n_rounds,
		mzm_cli_format_seconds(took, r->seconds),
		r->shortened ? " (fewer rounds or tokens, to fit --time)" : "", r->context);
	put_machine(b, out);
	put_prefill(b, out);
	put_passes(b, out);
	put_generations(b, out);
}

/* ---- words ---- */

/* Prints a paragraph, wrapped. */
static void put_paragraph(FILE *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put_paragraph(FILE *out, const char *fmt, ...)
{
	char text[1200];
	int column = 0;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	fputc('\n', out);
	for (const char *word = text; *word;) {
		size_t n = strcspn(word, " ");
		int columns = mzm_cli_text_width(word, n);
		if (column > 0 && column + 1 + columns > WIDTH) {
			fputc('\n', out);
			column = 0;
		}
		fprintf(out, "%s%.*s", column > 0 ? " " : "", (int)n, word);
		column += columns + (column > 0);
		word += n + (word[n] == ' ');
	}
	fputc('\n', out);
}

static void put_meaning(const mzm_cli_bench *b, FILE *out)
{
	const mzm_bench_row *dense = mzm_cli_bench_find(b->result, MZM_BENCH_DENSE, 0, MZM_MODE_DENSE);
	const mzm_bench_row *check = mzm_cli_bench_find(b->result, MZM_BENCH_CHECK, 8, MZM_MODE_DENSE);
	char size[32], checks[160] = "";
	if (!dense)
		return;
	if (check)
		snprintf(checks, sizeof checks, " A check of 8 tokens costs as much as %.2f dense ones.",
			 check->ratio_to_dense);
	put_paragraph(out,
		      "A dense token reads %s, at %.0f%% of what plain reading reaches on this machine in the same "
		      "rounds (peak). Times are medians, spread is (max - min) / median, x dense is a pass's time in "
		      "dense tokens, and bound what its bytes and operations at the peaks would allow it to be. Drafts "
		      "pay when sparse tokens stay far enough below 1 and checks near it.%s",
		      mzm_cli_format_bytes(size, (uint64_t)dense->bytes_per_pass), dense->percent_of_peak, checks);
}

static void put_warnings(const mzm_cli_bench *b, FILE *out)
{
	const mzm_bench_result *r = b->result;
	char cache[32];
	if (mzm_cli_bench_in_cache(b))
		put_paragraph(out,
			      "This model fits the last-level cache (%s). Its GB/s are the cache's, so that they can "
			      "be more than 100%% of the memory peak, and a sparse pass saves little time: nothing "
			      "follows from them for a model that must be read from memory.",
			      mzm_cli_format_bytes(cache, r->cache_bytes));
	if (b->origin)
		put_paragraph(out, "The weights: %s.", b->origin);
	if (r->forced_accept > 0)
		put_paragraph(out,
			      "Forced acceptance %.4g: checks kept each draft token with that probability, whatever it "
			      "was. Speeds of checked generations are what such drafts would give; texts mean nothing.",
			      r->forced_accept);
	if (r->disturbed)
		put_paragraph(out,
			      "The read peak varied by %.0f%% between rounds: this machine did other work meanwhile. "
			      "Ratios are better than times here, and a quieter run is better than both.",
			      r->peak_spread_percent);
	if (r->stopped)
		put_paragraph(out, "Interrupted after %d whole round%s: these are what was measured.", r->n_rounds,
			      r->n_rounds == 1 ? "" : "s");
}

void mzm_cli_bench_words(const mzm_cli_bench *b, FILE *out)
{
	put_meaning(b, out);
	put_warnings(b, out);
}
