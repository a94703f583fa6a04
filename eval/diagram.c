/* diagram.c - reliability of the confidence monitor as inline SVG, one small square a row: how often draft tokens of a
 * confidence were accepted. A good monitor's points lie on the diagonal; their areas say for how many tokens they
 * stand. */
#include <math.h>
#include <string.h>

#include "eval/report.h"

enum { SIDE = 170, LEFT = 40, TOP = 12, BOTTOM = 40, RIGHT = 16, LARGEST = 11, SMALLEST = 2 };

static void frame(FILE *out)
{
	for (int p = 0; p <= 100; p += 50) {
		double at = SIDE * p / 100.;
		fprintf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT, LEFT + SIDE,
			TOP + SIDE - at, TOP + SIDE - at);
		fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%d%%</text>", LEFT - 5,
			TOP + SIDE - at + 4, p);
		fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d%%</text>\n", LEFT + at,
			TOP + SIDE + 16, p);
	}
	fprintf(out, "<path class=\"axis\" d=\"M%d %dV%dH%d\"/><path class=\"grid\" d=\"M%d %dL%d %d\"/>\n", LEFT, TOP,
		TOP + SIDE, LEFT + SIDE, LEFT, TOP + SIDE, LEFT + SIDE, TOP);
	fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">confidence</text>\n", LEFT + SIDE / 2,
		TOP + SIDE + BOTTOM - 6);
}

static void draw(const mze_row *r, FILE *out)
{
	const mze_reliability *m = &r->monitor;
	fprintf(out, "<figure><figcaption>");
	mze_escape(out, r->label, strlen(r->label));
	if (isfinite(m->auc))
		fprintf(out, ": AUC %.3f", m->auc);
	fprintf(out,
		"</figcaption><svg viewBox=\"0 0 %d %d\" width=\"%d\" role=\"img\" aria-label=\"confidence against "
		"acceptance\">\n",
		LEFT + SIDE + RIGHT, TOP + SIDE + BOTTOM, LEFT + SIDE + RIGHT);
	frame(out);
	for (int i = 0; i < MZE_N_BINS; i++) {
		const mze_bin *b = &m->bin[i];
		if (b->n == 0)
			continue;
		double radius = fmax(SMALLEST, LARGEST * sqrt((double)b->n / (double)m->n));
		fprintf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\">", mzm_mode_name(r->gen->mode),
			LEFT + SIDE * b->confidence, TOP + SIDE * (1 - b->accepted), radius);
		fprintf(out, "<title>%lld tokens of confidence %.3f: %.1f %% accepted</title></circle>\n",
			(long long)b->n, b->confidence, 100 * b->accepted);
	}
	fprintf(out, "</svg></figure>\n");
}

void mze_report_diagrams(const mze_eval *e, FILE *out)
{
	bool any = false;
	for (int32_t i = 0; i < e->n_rows; i++)
		any |= e->row[i].monitor.n > 0;
	if (!any)
		return;
	fputs("<h2>Draft tokens accepted, against the monitor's confidence in them</h2>\n<div class=\"small\">\n", out);
	for (int32_t i = 0; i < e->n_rows; i++) {
		if (e->row[i].monitor.n > 0)
			draw(&e->row[i], out);
	}
	fputs("</div>\n", out);
}
