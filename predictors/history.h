/* history.h - how much each neuron carried so far: GRIFFIN's statistic (arXiv 2404.01365), shared by the predictors
 * that look back.
 *
 * With z_t the FFN activations of position t: s_j^2 = sum over t of (z_tj / |z_t|)^2. Every position counts once; one
 * with |z_t| = 0 adds nothing. Sums run over positions in the order they come, in double. */
#ifndef MZM_HISTORY_H
#define MZM_HISTORY_H

#include "base/carve.h"

typedef struct mzm_history {
	int32_t n_layers, n_ffn;
	double *stat;    /* [n_layers, n_ffn] s_j^2 so far */
	float  *score;   /* [n_ffn] */
	float  *scratch; /* [n_ffn] */
} mzm_history;

void mzm_history_layout(mzm_history *h, mzm_carve *c); /* n_layers and n_ffn are set */
void mzm_history_reset(mzm_history *h);
/* z: [n_pos, n_ffn] */
void mzm_history_add(mzm_history *h, int32_t layer, const float *z, int32_t n_pos);
/* What it knows counts for so much less against what comes. */
void mzm_history_fade(mzm_history *h, int32_t layer, double factor);
/* The n neurons with the largest sums, ascending; ties go to the lower one. rows: [n], n <= n_ffn. */
void mzm_history_top(mzm_history *h, int32_t layer, int32_t n, int32_t *rows);

#endif
