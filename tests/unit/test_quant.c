/* test_quant.c - rows of 8-bit and 4-bit weights: each byte where quant.h says, read here by the formulas of its
 * comment alone; errors within half a step; and that searching for a scale never does harm. */
#include "testing.h"

#include <math.h>

#include "base/half.h"
#include "kern/quant.h"

static const mzm_dtype types[] = {MZM_Q8, MZM_Q4};
static const int block_counts[] = {1, 2, 3, 15, 16, 17, 28, 31, 32, 33, 64};
enum { MAX_COLS = 64 * 32, MAX_ROW = MAX_COLS * 2 };

/* ---- an independent reading ---- */

/* q of weight c of a row of n_cols, and the scale of its block. */
static int read_weight(const uint8_t *row, mzm_dtype dtype, int n_cols, int c, float *d)
{
	int group = c / 512, in_group = c % 512, l = in_group / 32, k = in_group % 32 / 4, b = in_group % 4;
	int m = n_cols - 512 * group >= 512 ? 16 : (n_cols - 512 * group) / 32; /* blocks of this group */
	int bytes = dtype == MZM_Q8 ? n_cols : n_cols / 2;
	const uint8_t *at = row + (dtype == MZM_Q8 ? 512 : 256) * group;
	uint16_t h;
	memcpy(&h, row + bytes + 2 * (c / 32), 2);
	*d = mzm_f16_to_f32(h);
	if (dtype == MZM_Q8)
		return (int8_t)at[4 * m * k + 4 * l + b];
	uint8_t byte = at[4 * m * (k % 4) + 4 * l + b];
	return (k < 4 ? byte & 15 : byte >> 4) - 8;
}

static double normal(uint64_t *seed)
{
	double u = ((double)(testing_random(seed) >> 11) + 1) * 0x1p-53;
	double v = (double)(testing_random(seed) >> 11) * 0x1p-53;
	return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* Weights of several natures: normal, with outliers, uniform, few values, zeros, tiny, large, one-sided. */
#define N_NATURES 9
static void fill(float *x, int n, int nature, uint64_t *seed)
{
	float scale = (float)ldexp(1, (int)(testing_random(seed) % 20) - 14);
	for (int i = 0; i < n; i++) {
		double g = normal(seed);
		uint64_t r = testing_random(seed);
		double v = nature == 1 ? g * (r % 40 == 0 ? 12 : 1) : nature == 2 ? (double)(r % 2001) / 1000 - 1 :
			   nature == 3 ? (double)(r % 3) - 1 : nature == 4 ? (r % 7 == 0 ? g : 0) :
			   nature == 5 ? g * 1e-7 : nature == 6 ? g * 3000 : nature == 7 ? fabs(g) : g;
		x[i] = nature == 8 ? (float)ldexp(g, -140) : (float)v * (nature == 5 || nature == 6 ? 1 : scale);
	}
}

static void test_layout(void **state)
{
	(void)state;
	static float x[MAX_COLS], y[MAX_COLS];
	static uint8_t row[MAX_ROW];
	uint64_t seed = 3;
	for (size_t t = 0; t < 2; t++)
		for (size_t i = 0; i < sizeof block_counts / sizeof block_counts[0]; i++)
			for (int nature = 0; nature < N_NATURES; nature++) {
				int n = 32 * block_counts[i];
				mzm_dtype dtype = types[t];
				size_t bytes = mzm_row_bytes(dtype, n), used = (size_t)n / (t ? 2 : 1) + (size_t)n / 16;
				assert_true(bytes % 64 == 0 && bytes >= used && bytes < used + 64);
				fill(x, n, nature, &seed);
				memset(row, 0xaa, sizeof row);
				assert_true(mzm_quant_row(row, x, dtype, n, (mzm_quant_method)(nature % 2)));
				for (size_t k = used; k < bytes; k++)
					assert_int_equal(row[k], 0);
				assert_int_equal(row[bytes], 0xaa); /* not one byte more */
				mzm_dequant_row(y, row, dtype, n);
				for (int c = 0; c < n; c++) {
					float d;
					int q = read_weight(row, dtype, n, c, &d);
					assert_true(q >= (t ? -8 : -127) && q <= (t ? 7 : 127));
					assert_true(y[c] == d * (float)q);
				}
			}
}

/* Every byte of a row belongs to one weight: each single weight changed changes its own reading alone. */
static void test_positions(void **state)
{
	(void)state;
	static float x[MAX_COLS], y[MAX_COLS];
	static uint8_t row[MAX_ROW];
	for (size_t t = 0; t < 2; t++)
		for (size_t i = 0; i < sizeof block_counts / sizeof block_counts[0]; i++) {
			int n = 32 * block_counts[i];
			for (int c = 0; c < n; c++) {
				memset(x, 0, sizeof x);
				x[c] = t ? -8 : -127; /* d = 1 whatever the method */
				assert_true(mzm_quant_row(row, x, types[t], n, MZM_QUANT_BEST));
				mzm_dequant_row(y, row, types[t], n);
				for (int k = 0; k < n; k++)
					assert_true(x[k] == y[k]);
				float d;
				assert_int_equal(read_weight(row, types[t], n, c, &d), t ? -8 : -127);
				assert_true(d == 1);
			}
		}
}

/* Any bytes can be read; the kernels meet no others than these readings. */
static void test_any_bytes(void **state)
{
	(void)state;
	static float y[MAX_COLS];
	static uint8_t row[MAX_ROW];
	uint64_t seed = 9;
	for (int round = 0; round < 200; round++)
		for (size_t t = 0; t < 2; t++) {
			int n = 32 * (int)(1 + testing_random(&seed) % 64);
			for (size_t k = 0; k < mzm_row_bytes(types[t], n); k++)
				row[k] = (uint8_t)testing_random(&seed);
			mzm_dequant_row(y, row, types[t], n);
			for (int c = 0; c < n; c++) {
				float d;
				int q = read_weight(row, types[t], n, c, &d);
				assert_true(y[c] == d * (float)q || (isnan(d * (float)q) && isnan(y[c])));
			}
		}
}

/* ---- errors ---- */

static double squared_error(const float *x, const float *y, int n)
{
	double sum = 0;
	for (int i = 0; i < n; i++)
		sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
	return sum;
}

static void test_errors(void **state)
{
	(void)state;
	float x[32], nearest[32], best[32];
	uint8_t row[64];
	uint64_t seed = 21;
	long n_better[2] = {0};
	double total[2][2] = {{0}};
	for (long round = testing_count(40000, 400000); round > 0; round--) {
		int nature = (int)(round % N_NATURES);
		fill(x, 32, nature, &seed);
		float most = 0;
		for (int i = 0; i < 32; i++)
			most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
		for (size_t t = 0; t < 2; t++) {
			assert_true(mzm_quant_row(row, x, types[t], 32, MZM_QUANT_NEAREST));
			mzm_dequant_row(nearest, row, types[t], 32);
			assert_true(mzm_quant_row(row, x, types[t], 32, MZM_QUANT_BEST));
			mzm_dequant_row(best, row, types[t], 32);
			double a = squared_error(x, nearest, 32), b = squared_error(x, best, 32);
			if (b > a * (1 + 1e-9))
				fail_msg("type %d, nature %d: best leaves %g, nearest %g", (int)t, nature, b, a);
			n_better[t] += b < a * 0.999;
			if (nature == 0 && most > 1e-3f) {
				total[t][0] += a;
				total[t][1] += b;
			}
			/* half a step inside the range, and the rounding of the scale at its ends; q4 has no +8 */
			double step = (double)most / (t ? 8 : 127);
			double bound = step * (t ? 1.0 : 0.5) + (double)most / 2048;
			for (int i = 0; i < 32 && most > 0x1p-6f; i++)
				if (fabs((double)x[i] - (double)nearest[i]) > bound * 1.0001)
					fail_msg("type %d: %g became %g, steps are %g", (int)t, (double)x[i],
						 (double)nearest[i], step);
		}
	}
	print_message("least squares leaves %.3f of the squared error in q8, %.3f in q4 rows of normal weights\n",
		      total[0][1] / total[0][0], total[1][1] / total[1][0]);
	assert_true(n_better[0] > 1000 && n_better[1] > 1000);
	assert_true(total[0][1] < 0.85 * total[0][0] && total[1][1] < 0.93 * total[1][0]);
}

/* Against an exhaustive search: a thousand scales, both signs. */
static void test_near_optimum(void **state)
{
	(void)state;
	uint64_t seed = 77;
	double got = 0, least = 0;
	for (int round = 0; round < 300; round++) {
		float x[32], y[32];
		uint8_t row[64];
		fill(x, 32, 0, &seed);
		assert_true(mzm_quant_row(row, x, MZM_Q4, 32, MZM_QUANT_BEST));
		mzm_dequant_row(y, row, MZM_Q4, 32);
		double most = 0, norm = 0, best = INFINITY;
		for (int i = 0; i < 32; i++) {
			most = fabs((double)x[i]) > most ? fabs((double)x[i]) : most;
			norm += (double)x[i] * (double)x[i];
		}
		for (int k = -1000; k <= 1000; k++) {
			double d = most / 8 * k / 500, error = 0;
			for (int i = 0; i < 32 && k; i++) {
				double q = nearbyint((double)x[i] / d);
				q = q < -8 ? -8 : q > 7 ? 7 : q;
				error += ((double)x[i] - d * q) * ((double)x[i] - d * q);
			}
			best = k && error < best ? error : best;
		}
		got += squared_error(x, y, 32) / norm;
		least += best / norm;
	}
	print_message("error of the search against an exhaustive one: %.4f\n", got / least);
	assert_true(got < least * 1.01);
}

static void test_refused(void **state)
{
	(void)state;
	static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 9e6f};
	float x[96] = {0};
	uint8_t row[256];
	for (size_t t = 0; t < 2; t++)
		for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
			for (int at = 0; at < 96; at++)
				for (int method = 0; method < 2; method++) {
					memset(x, 0, sizeof x);
					x[at] = bad[i];
					x[(at + 1) % 96] = 1;
					assert_false(mzm_quant_row(row, x, types[t], 96, (mzm_quant_method)method));
				}
	/* the largest that fit: the scale is the largest f16 */
	for (size_t t = 0; t < 2; t++) {
		float y[96], largest = t ? -8 * 65504.0f : -127 * 65504.0f;
		memset(x, 0, sizeof x);
		x[40] = largest;
		assert_true(mzm_quant_row(row, x, types[t], 96, MZM_QUANT_BEST));
		mzm_dequant_row(y, row, types[t], 96);
		assert_true(y[40] == largest && y[0] == 0);
	}
}

/* Weights that are multiples of a scale, as in rows that were quantised before, stay as they are. */
static void test_idempotent(void **state)
{
	(void)state;
	float x[512], y[512];
	uint8_t row[1024];
	uint64_t seed = 5;
	for (int round = 0; round < 300; round++)
		for (size_t t = 0; t < 2; t++) {
			float d = mzm_f16_to_f32(mzm_f32_to_f16(0.01f + (float)(testing_random(&seed) % 1000) * 1e-4f));
			for (int i = 0; i < 512; i++)
				x[i] = d * (float)((int)(testing_random(&seed) % (t ? 16 : 255)) - (t ? 8 : 127));
			for (int i = 0; i < 512; i += 32)
				x[i] = d * (t ? -8.0f : -127.0f);
			for (int method = 0; method < 2; method++) {
				assert_true(mzm_quant_row(row, x, types[t], 512, (mzm_quant_method)method));
				mzm_dequant_row(y, row, types[t], 512);
				for (int i = 0; i < 512; i++)
					assert_true(x[i] == y[i]);
			}
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),  cmocka_unit_test(test_positions),    cmocka_unit_test(test_any_bytes),
		cmocka_unit_test(test_errors),  cmocka_unit_test(test_near_optimum), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_idempotent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
