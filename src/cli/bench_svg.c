/* bench_svg.c - `mirzam bench --svg`: what checks cost, what sparse tokens cost, and how near the peak all of it is.
 *
 * One picture of three charts on white, each curve named where it ends, no fonts or scripts from elsewhere. A dashed
 * line is what the peaks allow, a solid one what was measured. */
#include <math.h>
#include <string.h>

#include "bench.h"

enum { PAGE_W = 960, CHART_W = 300, CHART_H = 230, TOP = 96, BAR_H = 18, BAR_X = 230, BAR_W = 560, MAX_CURVES = 16 };
enum { MAX_POINTS = 32, LABEL_GAP = 14 };

static const char *const colors[] = {"#1f6f9f", "#b8482e", "#3d8b45", "#7a5aa6", "#8a6d1f", "#3f7f7f"};

typedef struct curve {
	char        label[64];
	const char *color;
	bool        dashed;
	int         n;
	double      x[MAX_POINTS], y[MAX_POINTS];
	double      label_y;
} curve;

typedef struct chart {
	FILE  *out;
	double left, top; /* of the plot */
	double x_min, x_max, y_max;
	bool   log_x;
	curve  curves[MAX_CURVES];
	int    n_curves;
} chart;

/* ---- text ---- */

static const char *escape(unsigned char c)
{
	return c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : NULL;
}

/* Text as XML; control characters and broken bytes become '?'. */
static void put_xml(FILE *out, const char *s)
{
	for (size_t n = strlen(s), len; n > 0; s += len, n -= len) {
		int columns;
		len = mzm_cli_char(s, n, &columns);
		unsigned char c = (unsigned char)*s;
		const char *safe = escape(c);
		if (safe)
			fputs(safe, out);
		else if (c < 0x20 || c == 0x7f || (len == 1 && c >= 0x80))
			fputc('?', out);
		else
			fwrite(s, 1, len, out);
	}
}

/* anchor: start, middle, end. */
static void put_text(FILE *out, double x, double y, const char *anchor, const char *style, const char *text)
{
	fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" %s>", x, y, anchor, style);
	put_xml(out, text);
	fputs("</text>\n", out);
}

/* stroke: a colour and its closing quote, and attributes that follow. */
static void put_line(FILE *out, double x1, double y1, double x2, double y2, const char *stroke)
{
	fprintf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s/>\n", x1, y1, x2, y2, stroke);
}

/* ---- charts of curves ---- */

static double at_x(const chart *c, double x)
{
	double lo = c->log_x ? log2(c->x_min) : c->x_min, hi = c->log_x ? log2(c->x_max) : c->x_max;
	double v = c->log_x ? log2(x) : x;
	return c->left + CHART_W * (hi > lo ? (v - lo) / (hi - lo) : 0.5);
}

static double at_y(const chart *c, double y)
{
	return c->top + CHART_H * (1 - y / c->y_max);
}

static curve *new_curve(chart *c, const char *color, bool dashed)
{
	if (c->n_curves == MAX_CURVES)
		return NULL;
	curve *k = &c->curves[c->n_curves++];
	*k = (curve){.color = color, .dashed = dashed};
	return k;
}

static void add_point(curve *k, double x, double y)
{
	if (k && k->n < MAX_POINTS && isfinite(x) && isfinite(y)) {
		k->x[k->n] = x;
		k->y[k->n++] = y;
	}
}

/* Labels stand where curves end, moved apart until none covers another. */
static void place_labels(chart *c)
{
	curve *order[MAX_CURVES];
	int n = 0;
	for (int i = 0; i < c->n_curves; i++) {
		curve *k = &c->curves[i];
		if (k->n == 0)
			continue;
		k->label_y = at_y(c, k->y[k->n - 1]) + 4;
		int at = n++;
		for (; at > 0 && order[at - 1]->label_y > k->label_y; at--)
			order[at] = order[at - 1];
		order[at] = k;
	}
	for (int i = 1; i < n; i++)
		if (order[i]->label_y < order[i - 1]->label_y + LABEL_GAP)
			order[i]->label_y = order[i - 1]->label_y + LABEL_GAP;
	double over = n > 0 ? order[n - 1]->label_y - (c->top + CHART_H + 4) : 0;
	for (int i = n - 1; i >= 0 && over > 0; i--) { /* and back up from the bottom */
		order[i]->label_y -= over;
		over = i > 0 ? LABEL_GAP - (order[i]->label_y - order[i - 1]->label_y) : 0;
	}
}

static void put_curve(const chart *c, const curve *k)
{
	if (k->n == 0)
		return;
	fprintf(c->out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s points=\"", k->color,
		k->dashed ? " stroke-dasharray=\"5 4\" stroke-opacity=\"0.7\"" : "");
	for (int i = 0; i < k->n; i++)
		fprintf(c->out, "%.1f,%.1f ", at_x(c, k->x[i]), at_y(c, k->y[i]));
	fputs("\"/>\n", c->out);
	for (int i = 0; !k->dashed && i < k->n; i++)
		fprintf(c->out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", at_x(c, k->x[i]),
			at_y(c, k->y[i]), k->color);
	char style[64];
	snprintf(style, sizeof style, "font-size=\"11\" fill=\"%s\"", k->color);
	put_text(c->out, at_x(c, k->x[k->n - 1]) + 8, k->label_y, "start", style, k->label);
}

static double nice_step(double max)
{
	double step = pow(10, floor(log10(max)));
	return max / step > 5 ? step : max / step > 2 ? step / 2 : step / 5;
}

static void put_axes(const chart *c, const char *title, const char *x_title, const char *y_title, const double *ticks,
		     int n_ticks)
{
	FILE *out = c->out;
	char label[32];
	double step = nice_step(c->y_max), bottom = c->top + CHART_H;
	put_text(out, c->left - 40, c->top - 16, "start", "font-size=\"14\" font-weight=\"bold\"", title);
	for (double y = 0; y <= c->y_max * 1.0001; y += step) {
		put_line(out, c->left, at_y(c, y), c->left + CHART_W, at_y(c, y), y > 0 ? "#e4e4e4\"" : "#555\"");
		snprintf(label, sizeof label, "%.4g", y);
		put_text(out, c->left - 6, at_y(c, y) + 4, "end", "font-size=\"11\" fill=\"#555\"", label);
	}
	for (int i = 0; i < n_ticks; i++) {
		put_line(out, at_x(c, ticks[i]), bottom, at_x(c, ticks[i]), bottom + 4, "#555\"");
		snprintf(label, sizeof label, "%.4g", ticks[i]);
		put_text(out, at_x(c, ticks[i]), bottom + 17, "middle", "font-size=\"11\" fill=\"#555\"", label);
	}
	put_text(out, c->left + CHART_W / 2.0, bottom + 36, "middle", "font-size=\"12\"", x_title);
	fprintf(out, "<g transform=\"translate(%.1f %.1f) rotate(-90)\">", c->left - 40, c->top + CHART_H / 2.0);
	put_text(out, 0, 0, "middle", "font-size=\"12\"", y_title);
	fputs("</g>\n", out);
}

static void put_chart(chart *c, const char *title, const char *x_title, const double *ticks, int n_ticks)
{
	c->y_max = 1.2;
	for (int i = 0; i < c->n_curves; i++)
		for (int k = 0; k < c->curves[i].n; k++)
			c->y_max = fmax(c->y_max, 1.08 * c->curves[i].y[k]);
	put_axes(c, title, x_title, "time, in dense tokens", ticks, n_ticks);
	put_line(c->out, c->left, at_y(c, 1), c->left + CHART_W, at_y(c, 1), "#222\" stroke-dasharray=\"2 3\"");
	put_text(c->out, c->left + 4, at_y(c, 1) + 13, "start", "font-size=\"11\" fill=\"#222\"", "one dense token");
	place_labels(c);
	for (int i = 0; i < c->n_curves; i++)
		put_curve(c, &c->curves[i]);
}

/* ---- the two charts of curves ---- */

static void put_checks(const mzm_cli_bench *b, chart *c)
{
	double ticks[MAX_POINTS];
	int n_ticks = 0;
	curve *measured = new_curve(c, colors[0], false), *bound = new_curve(c, colors[0], true);
	snprintf(measured->label, sizeof measured->label, "measured");
	snprintf(bound->label, sizeof bound->label, "bound by the peaks");
	for (int32_t i = 0; i < b->result->n_rows; i++) {
		const mzm_bench_row *row = &b->result->rows[i];
		if (row->kind != MZM_BENCH_CHECK || n_ticks == MAX_POINTS)
			continue;
		add_point(measured, row->n_pos, row->ratio_to_dense);
		add_point(bound, row->n_pos, row->bound_ratio);
		ticks[n_ticks++] = row->n_pos;
	}
	c->x_min = 1;
	c->x_max = n_ticks > 0 ? ticks[n_ticks - 1] : 32;
	c->log_x = true;
	put_chart(c, "A check of several tokens", "tokens checked at once", ticks, n_ticks);
}

/* All sparse rows of the predictor and image of row `first`, as two curves. */
static void add_sparse(const mzm_cli_bench *b, chart *c, int32_t first, const char *color)
{
	const mzm_bench_row *head = &b->result->rows[first];
	curve *measured = new_curve(c, color, false), *bound = new_curve(c, color, true);
	if (!bound)
		return;
	snprintf(measured->label, sizeof measured->label, "%s%s", head->predictor, head->draft_image ? ", draft" : "");
	snprintf(bound->label, sizeof bound->label, "its bytes");
	for (int32_t i = first; i < b->result->n_rows; i++) {
		const mzm_bench_row *row = &b->result->rows[i];
		if (row->kind != MZM_BENCH_SPARSE || row->draft_image != head->draft_image ||
		    strcmp(row->predictor, head->predictor) != 0)
			continue;
		add_point(measured, (double)row->keep, row->ratio_to_dense);
		add_point(bound, (double)row->keep, row->density);
	}
}

static bool is_first_of_its_kind(const mzm_bench_result *r, int32_t i)
{
	for (int32_t k = 0; k < i; k++)
		if (r->rows[k].kind == MZM_BENCH_SPARSE && r->rows[k].draft_image == r->rows[i].draft_image &&
		    strcmp(r->rows[k].predictor, r->rows[i].predictor) == 0)
			return false;
	return r->rows[i].kind == MZM_BENCH_SPARSE;
}

static void put_sparse(const mzm_cli_bench *b, chart *c)
{
	static const double ticks[] = {0, 0.25, 0.5, 0.75, 1};
	int n = 0;
	for (int32_t i = 0; i < b->result->n_rows; i++)
		if (is_first_of_its_kind(b->result, i))
			add_sparse(b, c, i, colors[n++ % MZM_CLI_COUNT(colors)]);
	c->x_min = 0;
	c->x_max = 1;
	put_chart(c, "A sparse token", "share of FFN neurons kept", ticks, MZM_CLI_COUNT(ticks));
}

/* ---- bars ---- */

static bool has_bar(const mzm_bench_row *row)
{
	return row->kind != MZM_BENCH_READ && row->kind != MZM_BENCH_MATMUL && isfinite(row->percent_of_peak);
}

static int count_bars(const mzm_bench_result *r)
{
	int n = 0;
	for (int32_t i = 0; i < r->n_rows; i++)
		n += has_bar(&r->rows[i]);
	return n;
}

static void put_bars(const mzm_cli_bench *b, FILE *out, double top)
{
	const mzm_bench_result *r = b->result;
	double y = top + 14, max = 100, bottom = top + 14 + (double)count_bars(r) * BAR_H;
	for (int32_t i = 0; i < r->n_rows; i++)
		if (has_bar(&r->rows[i]))
			max = fmax(max, r->rows[i].percent_of_peak);
	put_text(out, 50, top, "start", "font-size=\"14\" font-weight=\"bold\"",
		 "Share of the peak (prefill: of multiplying; all others: of reading)");
	for (int32_t i = 0; i < r->n_rows; i++) {
		const mzm_bench_row *row = &r->rows[i];
		char label[64];
		if (!has_bar(row))
			continue;
		double width = BAR_W * row->percent_of_peak / max;
		put_text(out, BAR_X - 8, y + 12, "end", "font-size=\"11\"", row->name);
		fprintf(out, "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", BAR_X, y + 2,
			width, BAR_H - 5, colors[row->kind == MZM_BENCH_PREFILL ? 1 : 0]);
		snprintf(label, sizeof label, "%.0f%%", row->percent_of_peak);
		put_text(out, BAR_X + width + 6, y + 12, "start", "font-size=\"11\" fill=\"#333\"", label);
		y += BAR_H;
	}
	double hundred = BAR_X + BAR_W * 100 / max;
	put_line(out, hundred, top + 10, hundred, bottom + 4, "#222\"");
	put_text(out, hundred, bottom + 18, "middle", "font-size=\"11\" fill=\"#555\"", "100% of the peak");
}

/* ---- the picture ---- */

static void put_header(const mzm_cli_bench *b, FILE *out, int height)
{
	const mzm_bench_result *r = b->result;
	char line[256];
	fprintf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
		"font-family=\"sans-serif\" fill=\"#222\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
		PAGE_W, height, PAGE_W, height);
	snprintf(line, sizeof line, "%s, %s", b->name, b->info->dtype);
	put_text(out, 50, 30, "start", "font-size=\"17\" font-weight=\"bold\"", line);
	snprintf(line, sizeof line,
		 "%d threads, %s; reading %.1f GB/s, multiplying %.0f GFLOP/s (%s); medians of %d rounds%s%s",
		 r->n_threads, b->info->isa, r->peak_gb_per_s, r->peak_gflop_per_s, r->matmul_name, r->n_rounds,
		 mzm_cli_bench_in_cache(b) ? "; fits the cache" : "", r->disturbed ? "; disturbed" : "");
	put_text(out, 50, 50, "start", "font-size=\"12\" fill=\"#555\"", line);
	if (b->origin)
		put_text(out, 50, 66, "start", "font-size=\"12\" fill=\"#b8482e\"", b->origin);
}

void mzm_cli_bench_svg(const mzm_cli_bench *b, FILE *out)
{
	bool checks = mzm_cli_bench_find(b->result, MZM_BENCH_CHECK, 1, MZM_MODE_DENSE) != NULL;
	bool sparse = mzm_cli_bench_find(b->result, MZM_BENCH_SPARSE, 0, MZM_MODE_DENSE) != NULL;
	int bars_top = checks || sparse ? TOP + CHART_H + 76 : TOP;
	put_header(b, out, bars_top + count_bars(b->result) * BAR_H + 50);
	if (checks)
		put_checks(b, &(chart){.out = out, .left = 92, .top = TOP});
	if (sparse)
		put_sparse(b, &(chart){.out = out, .left = checks ? 562 : 92, .top = TOP});
	put_bars(b, out, bars_top);
	fputs("</svg>\n", out);
}
