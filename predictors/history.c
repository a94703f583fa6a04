/* history.c - see history.h. */
#include "predictors/history.h"

#include <string.h>

#include "model/predictor.h"

void mzm_history_layout(mzm_history *h, mzm_carve *c)
{
	h->stat = MZM_CARVE(c, double, (size_t)h->n_layers * (size_t)h->n_ffn);
	h->score = MZM_CARVE(c, float, h->n_ffn);
	h->scratch = MZM_CARVE(c, float, h->n_ffn);
}

void mzm_history_reset(mzm_history *h)
{
	memset(h->stat, 0, sizeof *h->stat * (size_t)h->n_layers * (size_t)h->n_ffn);
}

void mzm_history_add(mzm_history *h, int32_t layer, const float *z, int32_t n_pos)
{
	double *stat = h->stat + (size_t)layer * (size_t)h->n_ffn;
	for (int32_t p = 0; p < n_pos; p++, z += h->n_ffn) {
		double norm2 = 0;
		for (int32_t j = 0; j < h->n_ffn; j++)
			norm2 += (double)z[j] * z[j];
		if (!(norm2 > 0))
			continue;
		double scale = 1 / norm2;
		for (int32_t j = 0; j < h->n_ffn; j++)
			stat[j] += (double)z[j] * z[j] * scale;
	}
}

void mzm_history_fade(mzm_history *h, int32_t layer, double factor)
{
	double *stat = h->stat + (size_t)layer * (size_t)h->n_ffn;
	for (int32_t j = 0; j < h->n_ffn; j++)
		stat[j] *= factor;
}

void mzm_history_top(mzm_history *h, int32_t layer, int32_t n, int32_t *rows)
{
	const double *stat = h->stat + (size_t)layer * (size_t)h->n_ffn;
	for (int32_t j = 0; j < h->n_ffn; j++)
		h->score[j] = (float)stat[j];
	mzm_select_top(rows, n, h->score, h->n_ffn, h->scratch);
}
