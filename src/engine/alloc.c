/* alloc.c - see alloc.h. */
#include "engine/alloc.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/carve.h"
#include "model/predictor.h"

/* ---- reading ---- */

/* The tensor and how many rows it has; NULL: there is none of a fitting shape. */
static const float *find(const mzm_calib *calib, const char *name, int32_t n_layers, int32_t *n)
{
	for (*n = 1; *n <= MZM_ALLOC_MOST_POINTS; ++*n) {
		const float *rows = mzm_calib_find(calib, name, -1, MZM_F32, *n, n_layers);
		if (rows)
			return rows;
	}
	return NULL;
}

static double mean_of(const float *row, int32_t n)
{
	double sum = 0;
	for (int32_t l = 0; l < n; l++)
		sum += (double)row[l];
	return sum / n;
}

static bool is_sound(const float *rows, int32_t n, int32_t n_layers)
{
	for (int32_t i = 0; i < n; i++) {
		for (int32_t l = 0; l < n_layers; l++)
			if (!(rows[i * n_layers + l] > 0 && rows[i * n_layers + l] <= 1))
				return false;
		if (i > 0 && !(mean_of(rows + i * n_layers, n_layers) > mean_of(rows + (i - 1) * n_layers, n_layers)))
			return false;
	}
	return true;
}

/* Share of layer l for that mean. */
static double share_at(const float *rows, int32_t n, int32_t n_layers, int32_t l, double keep)
{
	int32_t i = 0;
	double to = 1, to_mean = 1;
	while (i < n && mean_of(rows + i * n_layers, n_layers) < keep)
		i++;
	if (i < n) {
		to = (double)rows[i * n_layers + l];
		to_mean = mean_of(rows + i * n_layers, n_layers);
	}
	double from = i > 0 ? (double)rows[(i - 1) * n_layers + l] : 0;
	double from_mean = i > 0 ? mean_of(rows + (i - 1) * n_layers, n_layers) : 0;
	return to_mean > from_mean ? from + (to - from) * (keep - from_mean) / (to_mean - from_mean) : to;
}

/* Whole neurons, by the running sum of shares, so that no layer is off by more than one; what is left of the sum then
 * goes to the layers in turn that have room. */
void mzm_alloc_count(int32_t *counts, const float *rows, int32_t n, const mzm_config *cfg, float keep)
{
	mzm_pred_env even = {.cfg = cfg, .keep = keep};
	int64_t given = 0, sum = (int64_t)mzm_pred_n_keep(&even) * cfg->n_layers;
	double exact = 0;
	for (int32_t l = 0; l < cfg->n_layers; l++) {
		exact += share_at(rows, n, cfg->n_layers, l, (double)keep) / (double)keep * (double)sum / cfg->n_layers;
		int64_t k = llround(exact) - given;
		counts[l] = (int32_t)(k < 1 ? 1 : k > cfg->n_ffn ? cfg->n_ffn : k);
		given += counts[l];
	}
	for (int32_t l = 0, stuck = 0; given != sum && stuck < cfg->n_layers; l = (l + 1) % cfg->n_layers) {
		int32_t step = given < sum ? 1 : -1;
		bool room = step > 0 ? counts[l] < cfg->n_ffn : counts[l] > 1;
		counts[l] += room ? step : 0;
		given += room ? step : 0;
		stuck = room ? 0 : stuck + 1;
	}
}

mzm_status mzm_alloc_read(const int32_t **keep_of, int32_t *counts, const mzm_calib *calib, const char *predictor,
			  const mzm_config *cfg, float keep, mzm_err *err)
{
	int32_t n;
	char name[64];
	snprintf(name, sizeof name, "alloc.%s", predictor);
	const float *rows = find(calib, name, cfg->n_layers, &n);
	if (!mzm_calib_has(calib, name, -1))
		return MZM_OK;
	if (!rows || !is_sound(rows, n, cfg->n_layers))
		return mzm_fail(err, MZM_EFORMAT, "the side-car's \"%s\" is no list of shares by ascending mean", name);
	mzm_alloc_count(counts, rows, n, cfg, keep);
	for (int32_t l = 1; l < cfg->n_layers; l++) { /* even shares are what there is without any */
		if (counts[l] != counts[0])
			*keep_of = counts;
	}
	return MZM_OK;
}

/* ---- the search ---- */

#define PARTS 8  /* of the mean: the step of the grid */
#define LEAST (PARTS / 2) /* steps of a layer */
#define MOST  (2 * PARTS)

#define NO_HARM 1e-12 /* where logarithms end */

/* Of a layer that keeps this share. */
static double harm_at(const mzm_alloc_curve *c, double share)
{
	int32_t i = 0;
	double harm[MZM_ALLOC_MOST_POINTS + 1], most = 0;
	for (int32_t k = c->n_points; k-- > 0;) {
		most = c->harm[k] > most ? c->harm[k] : most;
		harm[k] = most + NO_HARM;
	}
	while (i < c->n_points && (double)c->keep[i] < share)
		i++;
	if (i == 0)
		return harm[0] * (double)c->keep[0] / share; /* nothing is known: less is worse */
	double from = (double)c->keep[i - 1];
	if (i == c->n_points)
		return harm[i - 1] * (1 - share) / (1 - from);
	double t = log(share / from) / log((double)c->keep[i] / from);
	return exp(log(harm[i - 1]) + t * (log(harm[i]) - log(harm[i - 1])));
}

/* Least harms of the first layers by the steps that they have together. */
typedef struct table {
	int32_t  n_layers, n_steps; /* in all */
	double  *least;             /* [n_layers + 1, n_steps + 1] */
	uint8_t *of;                /* [n_layers, n_steps + 1] the last one's */
} table;

static void table_layout(table *t, mzm_carve *c)
{
	size_t width = (size_t)t->n_steps + 1;
	t->least = MZM_CARVE(c, double, ((size_t)t->n_layers + 1) * width);
	t->of = MZM_CARVE(c, uint8_t, (size_t)t->n_layers * width);
}

/* Adds a layer behind the first l. */
static void add_layer(table *t, int32_t l, const mzm_alloc_curve *c, double step)
{
	size_t width = (size_t)t->n_steps + 1;
	double *before = t->least + (size_t)l * width, *now = before + width;
	for (size_t s = 0; s < width; s++)
		now[s] = INFINITY;
	for (int32_t k = LEAST; k <= MOST && k * step <= 1 + 1e-9; k++) {
		double harm = harm_at(c, k * step < 1 ? k * step : 1);
		for (size_t s = (size_t)k; s < width; s++)
			if (before[s - (size_t)k] + harm < now[s]) {
				now[s] = before[s - (size_t)k] + harm;
				t->of[(size_t)l * width + s] = (uint8_t)k;
			}
	}
}

mzm_status mzm_alloc_solve(float *share, const mzm_alloc_curve *of, int32_t n_layers, double mean, mzm_err *err)
{
	mzm_carve c = {0};
	table t = {.n_layers = n_layers, .n_steps = PARTS * n_layers};
	void *block;
	table_layout(&t, &c);
	if (c.overflow)
		return mzm_fail(err, MZM_ENOMEM, "the shares of %d layers are too many", (int)n_layers);
	MZM_TRY(mzm_alloc_for(&block, c.used, "the shares of layers", err));
	c = (mzm_carve){.base = block};
	table_layout(&t, &c);
	for (int32_t s = 0; s <= t.n_steps; s++)
		t.least[s] = s == 0 ? 0 : INFINITY;
	for (int32_t l = 0; l < n_layers; l++)
		add_layer(&t, l, &of[l], mean / PARTS);
	for (int32_t l = n_layers, s = t.n_steps; l-- > 0;) {
		int32_t k = t.of[(size_t)l * ((size_t)t.n_steps + 1) + (size_t)s];
		share[l] = (float)(k * mean / PARTS < 1 ? k * mean / PARTS : 1);
		s -= k;
	}
	mzm_free(block);
	return MZM_OK;
}
