/* convert.c - see convert.h. Workload: every matrix once an import; quantising is what takes the time. */
#include "engine/convert.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "kern/threads.h"

struct mzm_converter {
	mzm_quant_method method;
	mzm_team *team;
	float *rows; /* [team size, max_cols] a row as f32 */
	size_t max_cols;

	/* of the conversion under way */
	const mzm_tensor *t;
	mzm_dtype to;
	const char *src;
	char *dst;
	atomic_size_t n_bad; /* weights that do not fit; of quantised types: rows */
};

mzm_status mzm_converter_create(mzm_converter **out, int32_t max_cols, mzm_quant_method method, mzm_err *err)
{
	mzm_status st;
	mzm_converter *c;
	size_t bytes;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&c, sizeof *c, "conversion", err));
	c->method = method;
	c->max_cols = (size_t)max_cols;
	MZM_TRY_OUT(mzm_team_create(&c->team, 0, err));
	if (!mzm_mul_size((size_t)mzm_team_size(c->team) * sizeof *c->rows, c->max_cols, &bytes))
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "out of memory: rows of %d columns", (int)max_cols));
	MZM_TRY_OUT(mzm_alloc_for((void **)&c->rows, bytes, "conversion", err));
	*out = c;
	return MZM_OK;
out:
	mzm_converter_free(c);
	return st;
}

void mzm_converter_free(mzm_converter *c)
{
	if (!c)
		return;
	mzm_team_free(c->team);
	mzm_free(c->rows);
	mzm_free(c);
}

static void load_row(float *y, const char *p, mzm_dtype dtype, size_t n)
{
	uint16_t h;
	if (dtype == MZM_F32) {
		memcpy(y, p, n * sizeof *y);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		memcpy(&h, p + 2 * i, 2);
		y[i] = dtype == MZM_BF16 ? mzm_bf16_to_f32(h) : mzm_f16_to_f32(h);
	}
}

/* Returns how many finite weights are too large for the type. */
static size_t store_row(char *p, mzm_dtype dtype, const float *x, size_t n)
{
	size_t n_over = 0;
	uint16_t h;
	if (dtype == MZM_F32) {
		memcpy(p, x, n * sizeof *x);
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		h = dtype == MZM_BF16 ? mzm_f32_to_bf16(x[i]) : mzm_f32_to_f16(x[i]);
		memcpy(p + 2 * i, &h, 2);
		n_over += isfinite(x[i]) && !isfinite(dtype == MZM_BF16 ? mzm_bf16_to_f32(h) : mzm_f16_to_f32(h));
	}
	return n_over;
}

/* A rank's share of the rows. */
static void convert_rows(void *ctx, mzm_team *team, int rank)
{
	mzm_converter *c = ctx;
	const mzm_tensor *t = c->t;
	size_t from_bytes = mzm_row_bytes(t->dtype, t->n_cols), to_bytes = mzm_row_bytes(c->to, t->n_cols), n_bad = 0;
	float *row = c->rows + (size_t)rank * c->max_cols;
	int32_t begin, end;
	mzm_team_range(t->n_rows, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i++) {
		char *dst = c->dst + (size_t)i * to_bytes;
		load_row(row, c->src + (size_t)i * from_bytes, t->dtype, (size_t)t->n_cols);
		n_bad += mzm_dtype_is_quant(c->to) ? !mzm_quant_row(dst, row, c->to, t->n_cols, c->method)
						   : store_row(dst, c->to, row, (size_t)t->n_cols);
	}
	atomic_fetch_add(&c->n_bad, n_bad);
}

mzm_status mzm_convert(mzm_converter *c, void *dst, mzm_dtype to, const void *src, const mzm_tensor *t, mzm_err *err)
{
	char name[64];
	c->t = t;
	c->to = to;
	c->src = src;
	c->dst = dst;
	atomic_store(&c->n_bad, 0);
	mzm_team_run(c->team, convert_rows, c);
	size_t n_bad = atomic_load(&c->n_bad);
	if (!n_bad)
		return MZM_OK;
	if (mzm_dtype_is_quant(to))
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"tensor %s: %zu rows have weights that are NaN, infinite or too "
				"large for %s",
				mzm_tensor_name(t, name), n_bad, mzm_dtype_name(to));
	return mzm_fail(err, MZM_EUNSUPPORTED, "tensor %s: %zu weights are too large for %s", mzm_tensor_name(t, name),
			n_bad, mzm_dtype_name(to));
}
