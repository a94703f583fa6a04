/* test_dct.c - the cosine transform: by halving and by the matrix against the sums of its definition in double, forward
 * and inverse, for powers of two, for 80 and for odd lengths; that the two undo each other; that a vector's bits do not
 * depend on those beside it. */
#include "testing.h"

#include <math.h>

#include "kern/dct.h"
#include "kern/kern.h"

#define TOLERANCE 1e-6 /* of an element, relative to the longest */

static const int32_t sizes[] = {16, 32, 64, 80, 128, 256, 1, 2, 3, 5, 24, 7, 96};

typedef struct rig {
	mzm_dct d;
	void   *block;
	double *scratch;
	float  *x, *y; /* [MZM_DCT_LANES, n] */
} rig;

static void *aligned(size_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
	assert_non_null(p);
	return p;
}

static rig rig_open(int32_t n, uint64_t seed)
{
	rig r = {0};
	mzm_carve c = {0};
	mzm_dct_layout(&r.d, n, &c);
	r.block = aligned(c.used);
	c = (mzm_carve){.base = r.block};
	mzm_dct_layout(&r.d, n, &c);
	mzm_dct_fill(&r.d);
	r.scratch = aligned(mzm_dct_scratch(n) * sizeof(double));
	r.x = aligned((size_t)n * MZM_DCT_LANES * sizeof(float));
	r.y = aligned((size_t)n * MZM_DCT_LANES * sizeof(float));
	for (int32_t i = 0; i < n * MZM_DCT_LANES; i++)
		r.y[i] = r.x[i] = (float)((double)(testing_random(&seed) >> 11) * 0x1p-53 - 0.5) * 4;
	return r;
}

static void rig_close(rig *r)
{
	free(r->block);
	free(r->scratch);
	free(r->x);
	free(r->y);
}

/* The definition; shares nothing with the library. */
static double by_sum(const float *x, int32_t n, int32_t i, bool inverse)
{
	double sum = 0;
	for (int32_t j = 0; j < n; j++) {
		int32_t k = inverse ? j : i, at = inverse ? i : j;
		double scale = k == 0 ? sqrt(1.0 / n) : sqrt(2.0 / n);
		sum += (double)x[j] * scale * cos(M_PI / n * (at + 0.5) * k);
	}
	return sum;
}

static double worst_error(const rig *r, const float *got, bool inverse)
{
	double worst = 0, most = 0;
	int32_t n = r->d.n;
	for (int32_t v = 0; v < MZM_DCT_LANES; v++) {
		for (int32_t i = 0; i < n; i++) {
			double want = by_sum(r->x + v * n, n, i, inverse);
			double error = fabs(want - (double)got[v * n + i]);
			worst = error > worst || isnan(error) ? error : worst;
			most = fabs(want) > most ? fabs(want) : most;
		}
	}
	return worst / most;
}

static void by_matrix(const rig *r, float *y, bool inverse)
{
	int32_t n = r->d.n;
	const mzm_kern *kern = mzm_kern_find(NULL);
	size_t stride = mzm_pack_stride(kern, MZM_F32, n);
	float *m = aligned((size_t)n * (size_t)n * sizeof *m);
	char *packed = aligned(stride * MZM_DCT_LANES);
	mzm_dct_matrix(m, n, inverse);
	for (int32_t v = 0; v < MZM_DCT_LANES; v++)
		kern->pack(packed + (size_t)v * stride, r->x + v * n, MZM_F32, n);
	mzm_rows_job job = {.dtype = MZM_F32, .w = m, .stride = (size_t)n * sizeof *m, .n_rows = n, .n_cols = n,
			    .x = packed, .ldx = stride, .n_pos = MZM_DCT_LANES, .y = y, .ldy = (size_t)n};
	kern->rows(&job, 0, n);
	free(m);
	free(packed);
}

static void test_definition(void **state)
{
	(void)state;
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		for (int inverse = 0; inverse < 2; inverse++) {
			rig r = rig_open(sizes[s], 7 + s);
			(inverse ? mzm_dct_inverse : mzm_dct_forward)(&r.d, r.y, MZM_DCT_LANES, r.scratch);
			double halves = worst_error(&r, r.y, inverse);
			by_matrix(&r, r.y, inverse);
			double matrix = worst_error(&r, r.y, inverse);
			if (!(halves < TOLERANCE && matrix < TOLERANCE))
				fail_msg("%d, %s: halving is off by %g, the matrix by %g", (int)sizes[s],
					 inverse ? "inverse" : "forward", halves, matrix);
			rig_close(&r);
		}
	}
}

static void test_undone(void **state)
{
	(void)state;
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		rig r = rig_open(sizes[s], 70 + s);
		mzm_dct_forward(&r.d, r.y, MZM_DCT_LANES, r.scratch);
		mzm_dct_inverse(&r.d, r.y, MZM_DCT_LANES, r.scratch);
		for (int32_t i = 0; i < sizes[s] * MZM_DCT_LANES; i++)
			assert_float_equal(r.x[i], r.y[i], 4e-6);
		rig_close(&r);
	}
}

static void test_lanes(void **state)
{
	(void)state;
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		int32_t n = sizes[s];
		size_t bytes = (size_t)n * sizeof(float);
		rig r = rig_open(n, 700 + s);
		mzm_dct_inverse(&r.d, r.y, MZM_DCT_LANES, r.scratch);
		for (int32_t v = 0; v < MZM_DCT_LANES; v++) {
			mzm_dct_inverse(&r.d, r.x + v * n, 1, r.scratch);
			assert_memory_equal(r.x + v * n, r.y + v * n, bytes);
		}
		rig_close(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_definition),
		cmocka_unit_test(test_undone),
		cmocka_unit_test(test_lanes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
