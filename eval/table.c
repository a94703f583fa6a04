/* table.c - the rows as a text table and as Markdown. Cells are plain ASCII and shared with the report. */
#include <math.h>
#include <string.h>

#include "eval/report.h"

enum { MODE, DRAFT, PREDICTOR, KEEP, PERIOD, THRESHOLD, RIGHT, STRICT, FLEXIBLE, SAME, VERSUS, KEPT, AAL, AAL_PAPER,
       DENSITY, EFFECTIVE, WORK, NODES, AUC, PREFILL, SPEED, N_COLUMNS };

static const char *const heads[N_COLUMNS] = {
	"mode", "draft", "predictor", "keep", "period", "thr", "right", "strict % [95 %]", "flexible %", "= dense %",
	"vs dense", "kept %", "AAL", "AAL paper", "density", "ED", "W", "W nodes", "AUC", "prefill tok/s", "tok/s",
};

const char *mze_table_head(int c)
{
	return c >= 0 && c < N_COLUMNS ? heads[c] : NULL;
}

static void number(char out[96], double x, int digits)
{
	if (isfinite(x))
		snprintf(out, 96, "%.*f", digits, x);
	else
		snprintf(out, 96, "-");
}

static double percent(int64_t part, int64_t whole)
{
	return whole ? 100 * (double)part / (double)whole : (double)NAN;
}

/* "16", "auto"; "16 <0.8" where a confidence below .8 calls the check earlier; "16 x4" with trees of four lines. */
static void period_cell(char out[96], const mzm_gen_params *g)
{
	int n = g->period ? snprintf(out, 96, "%d", g->period) : snprintf(out, 96, "auto");
	if (g->check_below > 0)
		n += snprintf(out + n, 96 - (size_t)n, " <%.4g", (double)g->check_below);
	if (g->tree_width > 1)
		snprintf(out + n, 96 - (size_t)n, " x%d", (int)g->tree_width);
}

static void setting_cell(char out[96], const mzm_gen_params *g, int c)
{
	bool checked = mze_has_checks(g->mode), drafts = mze_uses_predictor(g);
	snprintf(out, 96, "-");
	if (c == MODE)
		snprintf(out, 96, "%s", mzm_mode_name(g->mode));
	else if (c == DRAFT && checked && g->draft)
		snprintf(out, 96, "%.80s", g->draft);
	else if (c == PREDICTOR && drafts && g->predictor)
		snprintf(out, 96, "%.80s", g->predictor);
	else if (c == KEEP && drafts)
		snprintf(out, 96, "%.4g", (double)g->keep);
	else if (c == PERIOD && checked)
		period_cell(out, g);
	else if (c == THRESHOLD && g->mode == MZM_MODE_SIRIUS)
		snprintf(out, 96, "%.4g", (double)g->threshold);
}

/* Effect in points and raw p; a dash for the dense row itself and without one. */
static void versus_cell(char out[96], const mze_row *r)
{
	if (!r->has_dense || !isfinite(r->p_holm))
		snprintf(out, 96, "-");
	else
		snprintf(out, 96, "%+.1f (p %.3g)", 100 * r->strict_vs.effect, r->strict_vs.p);
}

const char *mze_table_cell(char out[96], const mze_eval *e, const mze_row *r, int c)
{
	bool checked = r->n_checks > 0;
	(void)e;
	switch (c) {
	case RIGHT:
		snprintf(out, 96, "%d/%d", r->n_strict, r->n);
		break;
	case STRICT:
		snprintf(out, 96, "%.1f [%.1f, %.1f]", percent(r->n_strict, r->n), 100 * r->strict_ci.lo,
			 100 * r->strict_ci.hi);
		break;
	case FLEXIBLE: number(out, percent(r->n_flexible, r->n), 1); break;
	case SAME: number(out, r->has_dense ? percent(r->n_same, r->n) : (double)NAN, 1); break;
	case VERSUS: versus_cell(out, r); break;
	case KEPT: number(out, percent(r->n_accepted, r->n_accepted + r->n_rolled_back), 1); break;
	case AAL: number(out, checked ? r->aal : (double)NAN, 2); break;
	case AAL_PAPER: number(out, r->n_checks_paper ? r->aal_paper : (double)NAN, 2); break;
	case DENSITY: number(out, r->density, 3); break;
	case EFFECTIVE: number(out, r->effective_density, 3); break;
	case WORK: number(out, r->work_per_token, 3); break;
	case NODES: number(out, r->w_nodes, 3); break;
	case AUC: number(out, r->monitor.n ? r->monitor.auc : (double)NAN, 3); break;
	case PREFILL: number(out, r->prefill_tok_per_s, 1); break;
	case SPEED: number(out, r->tok_per_s, 1); break;
	default: setting_cell(out, r->gen, c); break;
	}
	return out;
}

/* ---- notes under the table ---- */

static void note_differences(const mze_row *r, FILE *out)
{
	if (!r->has_dense || !isfinite(r->p_holm))
		return;
	fprintf(out, "  against dense: %+.1f points +- %.1f (standard error), %lld only here right, %lld only there,\n",
		100 * r->strict_vs.effect, 100 * r->strict_vs.se, (long long)r->strict_vs.b, (long long)r->strict_vs.c);
	fprintf(out, "    McNemar p %.4g, Holm %.4g: %s\n", r->strict_vs.p, r->p_holm,
		r->p_holm < .05 ? "a difference" : "no difference shown");
	if (r->n_same < r->n)
		fprintf(out, "  tokens differ in %d answers, from token %.0f on at the earliest, %.0f in the median\n",
			r->n - r->n_same, r->diff_min, r->diff_median);
}

/* Where several drafters took part. */
static void note_drafters(const mze_row *r, FILE *out)
{
	for (int32_t i = 0; r->n_drafters > 1 && i < r->n_drafters; i++) {
		const mzm_draft_stats *d = &r->drafter[i];
		fprintf(out, "%s %s %lld in %d checks", i ? "," : "  drafts:", d->name, (long long)d->n_drafted,
			(int)d->n_rounds);
		if (d->n_drafted)
			fprintf(out, ", %lld kept (%.0f %%)", (long long)d->n_accepted,
				percent(d->n_accepted, d->n_drafted));
	}
	if (r->n_drafters > 1)
		fputc('\n', out);
}

static void note_row(const mze_row *r, FILE *out)
{
	fprintf(out, "%s\n  ended by:", r->label);
	for (mzm_finish f = MZM_FINISH_EOS; f < MZM_FINISH_CANCELLED; f++) {
		if (r->n_finish[f])
			fprintf(out, " %s %d", mzm_finish_name(f), r->n_finish[f]);
	}
	fprintf(out, "; no answer found: strict %d, flexible %d", r->n_invalid_strict, r->n_invalid_flexible);
	if (r->n_cut)
		fprintf(out, "; numbers cut by the strict filter: %d", r->n_cut);
	fputc('\n', out);
	note_differences(r, out);
	if (r->n_checks)
		fprintf(out, "  %lld checks: %.2f corrections per 100 tokens, %.2f draft tokens dropped a check\n",
			(long long)r->n_checks, percent(r->n_corrected, r->n_tok),
			(double)r->n_rolled_back / (double)r->n_checks);
	note_drafters(r, out);
	fprintf(out, "  %.2f s prefill, %.2f s decode; %.2f ms a token (median; p10 %.2f, p90 %.2f)",
		(double)r->prefill_ns / 1e9, (double)r->decode_ns / 1e9, r->ms_median, r->ms_p10, r->ms_p90);
	if (r->bytes_read)
		fprintf(out, "; %.0f bytes read a token", (double)r->bytes_read / (double)(r->n_tok ? r->n_tok : 1));
	fputc('\n', out);
}

void mze_table_notes(const mze_eval *e, FILE *out)
{
	for (int32_t i = 0; i < e->n_rows; i++)
		note_row(&e->row[i], out);
	if (e->n_jobs > 1)
		fprintf(out, "tok/s are those of one job of %d that ran at a time, with %d threads each\n", e->n_jobs,
			e->n_threads);
	if (e->n_resumed)
		fprintf(out, "%d answers were taken over from the results file\n", e->n_resumed);
}

/* ---- both forms ---- */

static void widths(int width[N_COLUMNS], const mze_eval *e)
{
	char cell[96];
	for (int c = 0; c < N_COLUMNS; c++) {
		width[c] = (int)strlen(heads[c]);
		for (int32_t i = 0; i < e->n_rows; i++) {
			int n = (int)strlen(mze_table_cell(cell, e, &e->row[i], c));
			width[c] = n > width[c] ? n : width[c];
		}
	}
}

bool mze_table_is_shown(const mze_eval *e, int c)
{
	char cell[96];
	for (int32_t i = 0; i < e->n_rows; i++) {
		if (strcmp(mze_table_cell(cell, e, &e->row[i], c), "-") != 0)
			return true;
	}
	return false;
}

/* Text columns to the left, numbers to the right; columns that no row has anything in are left out. */
static void print_line(const mze_eval *e, const mze_row *r, const int width[N_COLUMNS], const char *edge,
		       const char *bar, FILE *out)
{
	char cell[96];
	const char *between = edge;
	for (int c = 0; c < N_COLUMNS; c++) {
		if (!mze_table_is_shown(e, c))
			continue;
		const char *text = r ? mze_table_cell(cell, e, r, c) : heads[c];
		fprintf(out, "%s%*s", between, c <= PREDICTOR ? -width[c] : width[c], text);
		between = bar;
	}
	fprintf(out, "%s\n", *edge ? " |" : "");
}

void mze_eval_table(const mze_eval *e, FILE *out)
{
	int width[N_COLUMNS];
	widths(width, e);
	fprintf(out, "%s\n\n", e->title);
	print_line(e, NULL, width, "", "  ", out);
	for (int32_t i = 0; i < e->n_rows; i++)
		print_line(e, &e->row[i], width, "", "  ", out);
	fputc('\n', out);
	mze_table_notes(e, out);
}

void mze_eval_markdown(const mze_eval *e, FILE *out)
{
	int width[N_COLUMNS];
	widths(width, e);
	fprintf(out, "**%s**\n\n", e->title);
	print_line(e, NULL, width, "| ", " | ", out);
	for (int c = 0; c < N_COLUMNS; c++) {
		if (mze_table_is_shown(e, c))
			fputs(c <= PREDICTOR ? "| --- " : "| ---: ", out);
	}
	fputs("|\n", out);
	for (int32_t i = 0; i < e->n_rows; i++)
		print_line(e, &e->row[i], width, "| ", " | ", out);
}
