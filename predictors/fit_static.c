/* fit_static.c - how much each neuron carries on average: GRIFFIN's statistic (history.h) over the calibration text
 * instead of a prompt. */
#include "base/mem.h"
#include "predictors/fit.h"

static void add_position(double *sum, const float *z, int32_t n)
{
	double norm2 = 0;
	for (int32_t j = 0; j < n; j++)
		norm2 += (double)z[j] * z[j];
	for (int32_t j = 0; norm2 > 0 && j < n; j++)
		sum[j] += (double)z[j] * z[j] / norm2;
}

static mzm_status static_layer(const mzm_fit_layer *l, const mzm_fit_options *o, mzm_calib_writer *out, mzm_err *err)
{
	mzm_status st;
	double *sum = NULL;
	float *mean = NULL;
	size_t n = (size_t)l->cfg->n_ffn;
	(void)o;
	MZM_TRY_OUT(mzm_alloc_for((void **)&sum, n * sizeof *sum, "sums of neurons", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&mean, n * sizeof *mean, "means of neurons", err));
	for (int32_t p = 0; p < l->n_train; p++)
		add_position(sum, l->z + (size_t)p * n, l->cfg->n_ffn);
	for (size_t j = 0; j < n; j++)
		mean[j] = (float)(sum[j] / l->n_train);
	st = mzm_calib_add(out, "static", l->layer, MZM_F32, 1, l->cfg->n_ffn, mean, err);
out:
	mzm_free(sum);
	mzm_free(mean);
	return st;
}

const mzm_fit mzm_fit_static = {
	.name = "static",
	.about = "mean share of each neuron in the activations of the text",
	.layer = static_layer,
};
