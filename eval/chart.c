/* chart.c - accuracy against effective density as inline SVG: a point a row, with its 95 % interval.
 *
 * A row without effective density (automatic period) stands at its work per token, with a hollow point. */
#include <math.h>
#include <string.h>

#include "eval/report.h"

enum { WIDTH = 720, HEIGHT = 380, LEFT = 56, RIGHT = 20, TOP = 16, BOTTOM = 48, LABEL_HEIGHT = 14 };

typedef struct place {
	double x, y; /* of the point */
	double label_y;
	bool   is_left; /* label ends left of the point */
	bool   is_hollow, is_shown;
} place;

static double cost_of(const mze_row *r)
{
	return isfinite(r->effective_density) ? r->effective_density : r->work_per_token;
}

static double to_y(double accuracy)
{
	return TOP + (1 - accuracy) * (HEIGHT - TOP - BOTTOM);
}

static double to_x(double cost, double lo, double hi)
{
	return LEFT + (cost - lo) / (hi - lo) * (WIDTH - LEFT - RIGHT);
}

/* A range of whole tenths around all points. */
static void range(double *lo, double *hi, const mze_eval *e)
{
	*lo = INFINITY;
	*hi = -INFINITY;
	for (int32_t i = 0; i < e->n_rows; i++) {
		double x = cost_of(&e->row[i]);
		if (isfinite(x)) {
			*lo = fmin(*lo, x);
			*hi = fmax(*hi, x);
		}
	}
	if (!isfinite(*lo))
		*lo = *hi = 1;
	*lo = floor(*lo * 10 - .5) / 10;
	*hi = ceil(*hi * 10 + .5) / 10;
}

static void axes(double lo, double hi, FILE *out)
{
	int n_ticks = (int)lround((hi - lo) * 10), step = n_ticks / 10 + 1;
	for (int p = 0; p <= 100; p += 20) {
		fprintf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT, WIDTH - RIGHT,
			to_y(p / 100.), to_y(p / 100.));
		fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%d%%</text>\n", LEFT - 8,
			to_y(p / 100.) + 4, p);
	}
	for (int i = 0; i <= n_ticks; i += step) {
		double v = lo + i / 10., x = to_x(v, lo, hi);
		fprintf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", x, x, TOP,
			HEIGHT - BOTTOM);
		fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.1f</text>\n", x, HEIGHT - BOTTOM + 18,
			v);
	}
	fprintf(out, "<path class=\"axis\" d=\"M%d %dV%dH%d\"/>\n", LEFT, TOP, HEIGHT - BOTTOM, WIDTH - RIGHT);
	fprintf(out,
		"<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">effective density (1 = dense; hollow: work per "
		"token)</text>\n",
		(LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8);
	fprintf(out,
		"<text transform=\"translate(14 %d) rotate(-90)\" text-anchor=\"middle\">accuracy, strict</text>\n",
		(TOP + HEIGHT - BOTTOM) / 2);
}

/* One shape a mode, so that the chart does without colour. */
static void point(const mze_row *r, const place *p, FILE *out)
{
	const char *style = p->is_hollow ? " style=\"fill:none;stroke:currentColor\"" : "";
	const char *name = mzm_mode_name(r->gen->mode);
	switch (r->gen->mode) {
	case MZM_MODE_DENSE:
		fprintf(out, "<circle class=\"%s\"%s cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>", name, style, p->x, p->y);
		break;
	case MZM_MODE_SPARSE:
		fprintf(out, "<path class=\"%s\"%s d=\"M%.1f %.1fl6 -10h-12z\"/>", name, style, p->x, p->y + 6);
		break;
	case MZM_MODE_EXACT:
		fprintf(out, "<path class=\"%s\"%s d=\"M%.1f %.1fl6 6l-6 6l-6 -6z\"/>", name, style, p->x, p->y - 6);
		break;
	case MZM_MODE_LOSSLESS:
		fprintf(out, "<path class=\"%s\"%s d=\"M%.1f %.1fl6 10h-12z\"/>", name, style, p->x, p->y - 6);
		break;
	default:
		fprintf(out, "<path class=\"%s\"%s d=\"M%.1f %.1fh10v10h-10z\"/>", name, style, p->x - 5, p->y - 5);
		break;
	}
}

/* Labels near each other move down until they are free. */
static void place_labels(place *at, int n)
{
	for (int i = 0; i < n; i++) {
		at[i].label_y = at[i].y - 8;
		for (int k = 0, tries = 0; k < i && tries < 100; k++) {
			bool is_near = at[k].is_shown && fabs(at[k].x - at[i].x) < 200 &&
				    fabs(at[k].label_y - at[i].label_y) < LABEL_HEIGHT;
			if (is_near) {
				at[i].label_y = at[k].label_y + LABEL_HEIGHT;
				k = -1;
				tries++;
			}
		}
	}
}

static void draw(const mze_row *r, const place *p, FILE *out)
{
	double top = to_y(r->strict_ci.hi), bottom = to_y(r->strict_ci.lo);
	fprintf(out, "<g><title>");
	mze_escape(out, r->label, strlen(r->label));
	fprintf(out, ": %d of %d right</title><path class=\"bar\" d=\"M%.1f %.1fV%.1fM%.1f %.1fh8M%.1f %.1fh8\"/>",
		r->n_strict, r->n, p->x, top, bottom, p->x - 4, top, p->x - 4, bottom);
	point(r, p, out);
	fprintf(out, "<text x=\"%.1f\" y=\"%.1f\"%s>", p->x + (p->is_left ? -9 : 9), p->label_y,
		p->is_left ? " text-anchor=\"end\"" : "");
	mze_escape(out, r->label, strlen(r->label));
	fprintf(out, "</text></g>\n");
}

void mze_report_chart(const mze_eval *e, FILE *out)
{
	place at[MZE_MAX_ROWS] = {0};
	double lo, hi;
	range(&lo, &hi, e);
	for (int32_t i = 0; i < e->n_rows; i++) {
		double cost = cost_of(&e->row[i]);
		if (!isfinite(cost) || e->row[i].n == 0)
			continue;
		at[i] = (place){.x = to_x(cost, lo, hi),
				.y = to_y((double)e->row[i].n_strict / e->row[i].n),
				.is_shown = true,
				.is_hollow = !isfinite(e->row[i].effective_density)};
		at[i].is_left = at[i].x > WIDTH * .7;
	}
	place_labels(at, e->n_rows);
	fprintf(out,
		"<svg viewBox=\"0 0 %d %d\" width=\"%d\" role=\"img\" aria-label=\"accuracy against effective "
		"density\">\n",
		WIDTH, HEIGHT, WIDTH);
	axes(lo, hi, out);
	for (int32_t i = 0; i < e->n_rows; i++) {
		if (at[i].is_shown)
			draw(&e->row[i], &at[i], out);
	}
	fprintf(out, "</svg>\n");
}
