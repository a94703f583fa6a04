/* factors.c - see factors.h. */
#include "predictors/factors.h"

#include <stdalign.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "kern/quant.h"

#define N_SHAPE 3

static const void *tensor(const mzm_calib *calib, const char *name, const char *part, int32_t layer, mzm_dtype dtype,
			  int32_t n_rows, int32_t n_cols)
{
	char full[64];
	snprintf(full, sizeof full, "%s.%s", name, part);
	return mzm_calib_find(calib, full, layer, dtype, n_rows, n_cols);
}

/* Of both matrices: so many bits, or 16 where the rows of one are not whole blocks. */
static mzm_dtype shared_dtype(int32_t bits, int32_t rank, int32_t n_out)
{
	if (rank % MZM_Q_BLOCK != 0 || n_out % MZM_Q_BLOCK != 0)
		return MZM_BF16;
	return bits == 4 ? MZM_Q4 : bits == 8 ? MZM_Q8 : MZM_BF16;
}

/* A whole number that the file claims, if it is from 1 to most; else 0. */
static int32_t whole(float x, int32_t most)
{
	return x >= 1 && x <= (float)most && x == (float)(int32_t)x ? (int32_t)x : 0;
}

static bool find_layer(mzm_factor *of, const mzm_pred_env *env, const char *name, int32_t layer)
{
	const mzm_config *cfg = env->cfg;
	const float *shape = tensor(env->calib, name, "shape", layer, MZM_F32, 1, N_SHAPE);
	int32_t times = shape ? whole(shape[1], 2) : 0, bits = shape ? whole(shape[2], 16) : 0;
	*of = (mzm_factor){.rank = shape ? whole(shape[0], cfg->dim) : 0, .n_out = times * cfg->n_ffn};
	if (of->rank == 0 || times == 0 || bits == 0)
		return false;
	of->dtype = shared_dtype(bits, of->rank, of->n_out);
	of->bias = tensor(env->calib, name, "bias", layer, MZM_BF16, 1, of->n_out);
	return of->bias && tensor(env->calib, name, "a", layer, MZM_BF16, cfg->dim, of->rank) &&
	       tensor(env->calib, name, "b", layer, MZM_BF16, of->rank, of->n_out);
}

mzm_status mzm_factors_find(mzm_factors *f, mzm_factor *of, const mzm_pred_env *env, const char *name, mzm_err *err)
{
	*f = (mzm_factors){.kern = env->kern, .n_layers = env->cfg->n_layers, .dim = env->cfg->dim,
			   .n_ffn = env->cfg->n_ffn, .of = of};
	if (!env->calib)
		return mzm_fail(err, MZM_EFORMAT, "predictor \"%s\" needs the model's side-car", name);
	for (int32_t l = 0; l < f->n_layers; l++) {
		if (!find_layer(&of[l], env, name, l))
			return mzm_fail(err, MZM_EFORMAT, "the side-car has no fitting \"%s\" of layer %d", name,
					(int)l);
		f->max_rank = of[l].rank > f->max_rank ? of[l].rank : f->max_rank;
		f->max_out = of[l].n_out > f->max_out ? of[l].n_out : f->max_out;
	}
	return MZM_OK;
}

void mzm_factors_layout(mzm_factors *f, mzm_carve *c)
{
	mzm_factor *found = f->of;
	f->of = MZM_CARVE(c, mzm_factor, f->n_layers);
	f->h = MZM_CARVE(c, float, f->max_rank);
	for (int32_t l = 0; l < f->n_layers; l++) {
		mzm_factor of = found[l];
		of.a = MZM_CARVE(c, char, (size_t)f->dim * mzm_row_bytes(of.dtype, of.rank));
		of.b = MZM_CARVE(c, char, (size_t)of.rank * mzm_row_bytes(of.dtype, of.n_out));
		if (c->base)
			f->of[l] = of;
	}
	if (!c->base)
		f->of = found;
}

/* row: room for the widest. */
static bool load_rows(char *dst, const uint16_t *src, int32_t n_rows, int32_t n_cols, mzm_dtype dtype, float *row,
		      const mzm_kern *kern)
{
	size_t stride = mzm_row_bytes(dtype, n_cols);
	for (int32_t i = 0; i < n_rows; i++, dst += stride, src += n_cols) {
		if (dtype == MZM_BF16) {
			memcpy(dst, src, stride);
			continue;
		}
		kern->to_f32(row, src, MZM_BF16, n_cols);
		if (!mzm_quant_row(dst, row, dtype, n_cols, MZM_QUANT_NEAREST))
			return false;
	}
	return true;
}

mzm_status mzm_factors_load(mzm_factors *f, const mzm_pred_env *env, const char *name, mzm_err *err)
{
	int32_t widest = f->max_out > f->max_rank ? f->max_out : f->max_rank;
	float *row;
	bool good = true;
	MZM_TRY(mzm_alloc_for((void **)&row, (size_t)widest * sizeof *row, "a predictor", err));
	for (int32_t l = 0; l < f->n_layers && good; l++) {
		mzm_factor *of = &f->of[l];
		const uint16_t *a = tensor(env->calib, name, "a", l, MZM_BF16, f->dim, of->rank);
		const uint16_t *b = tensor(env->calib, name, "b", l, MZM_BF16, of->rank, of->n_out);
		good = load_rows(of->a, a, f->dim, of->rank, of->dtype, row, f->kern) &&
		       load_rows(of->b, b, of->rank, of->n_out, of->dtype, row, f->kern);
	}
	mzm_free(row);
	return good ? MZM_OK
		    : mzm_fail(err, MZM_EFORMAT, "the side-car's \"%s\" holds numbers that are too large", name);
}

/* y [n_cols] += sum over i of a[i] * row i, the columns of this rank. */
static void add_rows(const mzm_factors *f, const char *w, mzm_dtype dtype, int32_t n_rows, int32_t n_cols,
		     const float *a, float *y, mzm_team *team, int rank)
{
	alignas(MZM_ALIGN) float scratch[MZM_ACCUM_SCRATCH / sizeof(float)];
	int32_t begin, end;
	mzm_team_range(mzm_accum_units(dtype, n_cols), 1, rank, mzm_team_size(team), &begin, &end);
	mzm_accum_job job = {.dtype = dtype, .w = w, .stride = mzm_row_bytes(dtype, n_cols), .n_rows = n_rows,
			     .n_cols = n_cols, .a = a, .lda = (size_t)n_rows, .n_pos = 1, .y = y,
			     .ldy = (size_t)n_cols, .scratch = scratch};
	if (begin < end)
		f->kern->accum(&job, begin, end);
}

/* The units of quantised rows are strewn over the columns, so who sets an output and who adds to it may be two: they
 * meet in between. */
void mzm_factors_apply(mzm_factors *f, int32_t layer, const float *x, float *y, mzm_team *team, int rank)
{
	const mzm_factor *of = &f->of[layer];
	int32_t begin, end;
	mzm_team_range(of->n_out, 16, rank, mzm_team_size(team), &begin, &end);
	if (begin < end)
		f->kern->to_f32(y + begin, of->bias + begin, MZM_BF16, end - begin);
	if (rank == 0)
		memset(f->h, 0, (size_t)of->rank * sizeof *f->h);
	mzm_team_barrier(team, rank);
	add_rows(f, of->a, of->dtype, f->dim, of->rank, x, f->h, team, rank);
	mzm_team_barrier(team, rank);
	add_rows(f, of->b, of->dtype, of->rank, of->n_out, f->h, y, team, rank);
}

uint64_t mzm_factors_bytes(const mzm_factors *f)
{
	uint64_t sum = 0;
	for (int32_t l = 0; l < f->n_layers; l++) {
		const mzm_factor *of = &f->of[l];
		sum += (uint64_t)f->dim * mzm_row_bytes(of->dtype, of->rank) +
		       (uint64_t)of->rank * mzm_row_bytes(of->dtype, of->n_out) + 2 * (uint64_t)of->n_out;
	}
	return sum;
}

/* ---- for fits ---- */

static bool round_rows(float *m, int32_t n_rows, int32_t n_cols, mzm_dtype dtype, char *row)
{
	for (int32_t i = 0; i < n_rows; i++, m += n_cols) {
		for (int32_t k = 0; k < n_cols; k++)
			m[k] = mzm_bf16_to_f32(mzm_f32_to_bf16(m[k]));
		if (dtype == MZM_BF16)
			continue;
		if (!mzm_quant_row(row, m, dtype, n_cols, MZM_QUANT_NEAREST))
			return false;
		mzm_dequant_row(m, row, dtype, n_cols);
	}
	return true;
}

mzm_status mzm_factor_round(mzm_factor_fit *fit, mzm_err *err)
{
	int32_t n_out = fit->times * fit->n_ffn, widest = n_out > fit->rank ? n_out : fit->rank;
	mzm_dtype dtype = shared_dtype(fit->bits, fit->rank, n_out);
	char *row;
	MZM_TRY(mzm_alloc_for((void **)&row, mzm_row_bytes(MZM_F32, widest), "rounding", err));
	bool good = round_rows(fit->a, fit->dim, fit->rank, dtype, row) &&
		    round_rows(fit->b, fit->rank, n_out, dtype, row);
	mzm_free(row);
	return good ? MZM_OK : mzm_fail(err, MZM_EARG, "a fit of low rank went out of bounds");
}

static mzm_status write_bf16(mzm_calib_writer *out, const char *name, const char *part, int32_t layer, const float *m,
			     int32_t n_rows, int32_t n_cols, mzm_err *err)
{
	char full[64];
	size_t n = (size_t)n_rows * (size_t)n_cols;
	uint16_t *h;
	snprintf(full, sizeof full, "%s.%s", name, part);
	MZM_TRY(mzm_alloc_for((void **)&h, n * sizeof *h, "a calibration's tensor", err));
	for (size_t i = 0; i < n; i++)
		h[i] = mzm_f32_to_bf16(m[i]);
	mzm_status st = mzm_calib_add(out, full, layer, MZM_BF16, n_rows, n_cols, h, err);
	mzm_free(h);
	return st;
}

mzm_status mzm_factor_write(mzm_calib_writer *out, const char *name, int32_t layer, const mzm_factor_fit *fit,
			    mzm_err *err)
{
	char full[64];
	float shape[N_SHAPE] = {(float)fit->rank, (float)fit->times, (float)fit->bits};
	int32_t n_out = fit->times * fit->n_ffn;
	snprintf(full, sizeof full, "%s.shape", name);
	MZM_TRY(mzm_calib_add(out, full, layer, MZM_F32, 1, N_SHAPE, shape, err));
	MZM_TRY(write_bf16(out, name, "a", layer, fit->a, fit->dim, fit->rank, err));
	MZM_TRY(write_bf16(out, name, "b", layer, fit->b, fit->rank, n_out, err));
	return write_bf16(out, name, "bias", layer, fit->bias, 1, n_out, err);
}
