/* test_kern_quant.c - the matrix products of every table the CPU has over rows of 8-bit and 4-bit blocks, against an
 * order written out here from the words of quant.h and kern.h: activations to int8 by blocks, sums of integers, lanes.
 *
 * Equal bits make tables, ranges, numbers of positions and lists equal among themselves. "avx512-bf16" has an order of
 * its own for the transposed product: it must equal itself, one unit and one position at a time, and lie within stated
 * bounds of double precision. How far the products are from those of exact activations has a bound, too. */
#include "kern_testing.h"

static const mzm_dtype quant_types[] = {MZM_Q8, MZM_Q4};
#define EACH_QUANT(d) \
	for (const mzm_dtype *d = quant_types; d < quant_types + 2; d++)

static const int32_t block_counts[] = {1, 2, 3, 15, 16, 17, 28, 31, 32, 33, 48, 64};
#define EACH_COUNT(n) \
	for (const int32_t *n = block_counts; n < block_counts + sizeof block_counts / sizeof *block_counts; n++)

/* ---- the order, written out ---- */

/* Activations of a block as int8 and their scale. */
typedef struct block8 {
	int   q[32];
	float scale;
} block8;

static block8 quantise(const float *x)
{
	block8 b = {.scale = 0};
	float most = 0;
	for (int i = 0; i < 32; i++) {
		if (!isfinite(x[i]))
			b.scale = NAN;
		most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
	}
	if (isnan(b.scale) || most < 1e-30f)
		return b; /* zeros */
	float inverse = 127.0f / most;
	for (int i = 0; i < 32; i++)
		b.q[i] = (int)nearbyintf(x[i] * inverse);
	b.scale = most / 127.0f;
	return b;
}

/* Lane l adds up block l of each group; a block that is not there counts as a zero product. */
static float stated_quant_dot(const product *p, int32_t i, const block8 *x)
{
	int32_t n_cols = p->m.n_cols, n_blocks = n_cols / 32;
	const char *row = product_row(p, i);
	float lane[16] = {0};
	for (int32_t b = 0; b < (n_blocks + 15) / 16 * 16; b++) {
		int sum = 0;
		for (int32_t c = 0; b < n_blocks && c < 32; c++)
			sum += quant_q(row, p->m.dtype, n_cols, 32 * b + c) * x[b].q[c];
		float scale = b < n_blocks ? quant_scale(row, p->m.dtype, n_cols, b) * x[b].scale : 0.0f;
		lane[b % 16] = fmaf((float)sum, scale, lane[b % 16]);
	}
	return fold(lane);
}

static void stated_rows(const product *p, float *y, size_t ldy)
{
	int32_t n_blocks = p->m.n_cols / 32;
	block8 *x = malloc((size_t)n_blocks * sizeof *x);
	assert_non_null(x);
	for (int32_t k = 0; k < p->n_pos; k++) {
		for (int32_t b = 0; b < n_blocks; b++)
			x[b] = quantise(p->x + (size_t)k * (size_t)p->m.n_cols + 32 * (size_t)b);
		for (int32_t i = 0; i < p->n; i++)
			y[(size_t)k * ldy + (size_t)i] = stated_quant_dot(p, i, x);
	}
	free(x);
}

/* Activation times scale, rounded once; then rows in order by fused multiply-add. */
static void stated_accum(const product *p, float *y, size_t ldy)
{
	int32_t n_cols = p->m.n_cols;
	for (int32_t k = 0; k < p->n_pos; k++) {
		for (int32_t c = 0; c < n_cols; c++) {
			float sum = 0.0f;
			for (int32_t i = 0; i < p->n; i++) {
				const char *row = product_row(p, i);
				float a = p->a[(size_t)k * (size_t)p->n + (size_t)i];
				float as = quant_scale(row, p->m.dtype, n_cols, c / 32) * a;
				sum = fmaf((float)quant_q(row, p->m.dtype, n_cols, c), as, sum);
			}
			y[(size_t)k * ldy + (size_t)c] += sum;
		}
	}
}

/* ---- double precision ---- */

/* Against exact activations: each may be off by half a step of its block, a hundredth of one more for the rounding of
 * the scale. Returns the largest share of that bound. */
static double check_rows_bound(const product *p, const float *y, size_t ldy)
{
	double worst = 0;
	for (int32_t k = 0; k < p->n_pos; k++) {
		const float *x = p->x + (size_t)k * (size_t)p->m.n_cols;
		for (int32_t i = 0; i < p->n; i++) {
			const float *w = product_wide(p, i);
			double sum = 0, sum_abs = 0, steps = 0;
			for (int32_t c = 0; c < p->m.n_cols; c++) {
				double most = 0;
				for (int32_t b = c / 32 * 32; b < c / 32 * 32 + 32; b++)
					most = fmax(most, fabs((double)x[b]));
				sum += (double)w[c] * (double)x[c];
				sum_abs += fabs((double)w[c]) * most;
				steps += fabs((double)w[c]) * most / 127;
			}
			double error = fabs((double)y[(size_t)k * ldy + (size_t)i] - sum);
			double bound = 0.51 * steps + 4e-6 * sum_abs + 1e-30;
			if (!(error <= bound))
				fail_msg("%s: an error of %g, the bound is %g", mzm_dtype_name(p->m.dtype), error,
					 bound);
			worst = fmax(worst, error / bound);
		}
	}
	return worst;
}

/* bf16_acts: activation times scale is rounded to bf16. */
static void check_accum_bound(const mzm_kern *t, const product *p, const float *y, size_t ldy)
{
	for (int32_t k = 0; k < p->n_pos; k++) {
		for (int32_t c = 0; c < p->m.n_cols; c++) {
			double sum = 0, sum_abs = 0, y0 = (double)p->y0[(size_t)k * (size_t)p->m.n_cols + (size_t)c];
			for (int32_t i = 0; i < p->n; i++) {
				const char *row = product_row(p, i);
				float as = quant_scale(row, p->m.dtype, p->m.n_cols, c / 32) *
					   p->a[(size_t)k * (size_t)p->n + (size_t)i];
				if (t->bf16_acts)
					as = mzm_bf16_to_f32(mzm_f32_to_bf16(as));
				double term = (double)as * quant_q(row, p->m.dtype, p->m.n_cols, c);
				sum += term;
				sum_abs += fabs(term);
			}
			check_bound((double)y[(size_t)k * ldy + (size_t)c], y0 + sum, fabs(y0) + sum_abs, p->n + 1,
				    t->bf16_acts ? 2 * 128 * 0x1p-126 : 0x1p-149);
		}
	}
}

/* ---- shapes ---- */

static uint64_t cuts;
static double   worst_share;

static void try_rows(mzm_dtype dtype, int32_t n_rows, int32_t n_blocks, int32_t n_pos, int32_t pad, bool listed)
{
	product p = product_new(dtype, n_rows, 32 * n_blocks, n_pos, pad, listed);
	size_t ldy = (size_t)p.n + 3;
	float *want = floats_new((size_t)n_pos * ldy);
	stated_rows(&p, want, ldy);
	worst_share = fmax(worst_share, check_rows_bound(&p, want, ldy));
	EACH_TABLE (t) {
		check_rows(*t, &p, want, ldy, 0);
		check_rows(*t, &p, want, ldy, (int32_t)(cuts++ % (uint64_t)(p.n + 1)));
	}
	floats_free(want);
	product_free(&p);
}

static void try_accum(mzm_dtype dtype, int32_t n_rows, int32_t n_blocks, int32_t n_pos, int32_t pad, bool listed)
{
	product p = product_new(dtype, n_rows, 32 * n_blocks, n_pos, pad, listed);
	size_t ldy = (size_t)p.m.n_cols + 3;
	float *stated = accum_start(&p, ldy), *own = accum_start(&p, ldy);
	stated_accum(&p, stated, ldy);
	EACH_TABLE (t) {
		if ((*t)->bf16_acts)
			accum_one_by_one(*t, &p, own, ldy);
		const float *want = (*t)->bf16_acts ? own : stated;
		check_accum(*t, &p, want, ldy, 0);
		check_accum(*t, &p, want, ldy,
			    (int32_t)(cuts++ % (uint64_t)(mzm_accum_units(dtype, p.m.n_cols) + 1)));
		check_accum_bound(*t, &p, want, ldy);
	}
	floats_free(stated);
	floats_free(own);
	product_free(&p);
}

typedef void (*try_fn)(mzm_dtype dtype, int32_t n_rows, int32_t n_blocks, int32_t n_pos, int32_t pad, bool listed);

static void try_shapes(try_fn try_one)
{
	bool is_short = getenv("MIRZAM_SHORT");
	EACH_QUANT (d) {
		EACH_COUNT (n) {
			try_one(*d, 1 + *n % 13, *n, 1 + *n % 5, *n % 3, false);
			try_one(*d, 2 + *n % 29, *n, 1, *n % 2, true);
			try_one(*d, 19, *n, 4 + *n % 4, 0, true);
		}
		for (int32_t n_pos = 1; n_pos <= MZM_MAX_POS; n_pos++) {
			try_one(*d, 19, 5, n_pos, 1, n_pos & 1);
			if (!is_short)
				try_one(*d, 9, 20, n_pos, 0, !(n_pos & 1));
		}
		for (int32_t n_rows = 1; n_rows <= 40; n_rows++)
			try_one(*d, n_rows, 3, 1 + n_rows % 4, 0, false);
		try_one(*d, 37, is_short ? 17 : 33, 32, 0, true);
		try_one(*d, 300, 2, 2, 0, true);
	}
}

static void rows_keep_the_order(void **state)
{
	(void)state;
	worst_share = 0;
	try_shapes(try_rows);
	print_message("rounding activations: at most %.3f of the bound of half a step each\n", worst_share);
}

static void accum_keeps_the_order(void **state)
{
	(void)state;
	try_shapes(try_accum);
	EACH_QUANT (d) /* wider than the scratch holds at a time */
		try_accum(*d, 5, 520, 1, 0, false);
}

static void any_split_is_equal(void **state)
{
	(void)state;
	EACH_QUANT (d) {
		product p = product_new(*d, 43, 33 * 32, 5, 0, false);
		size_t ld = (size_t)p.m.n_cols;
		EACH_TABLE (t) {
			float *y = floats_new(5 * 43), *z = accum_start(&p, ld);
			rows_one_by_one(*t, &p, y, 43);
			accum_one_by_one(*t, &p, z, ld);
			for (int32_t cut = 0; cut <= 43; cut++)
				check_rows(*t, &p, y, 43, cut);
			for (int32_t cut = 0; cut <= mzm_accum_units(*d, p.m.n_cols); cut++)
				check_accum(*t, &p, z, ld, cut);
			floats_free(y);
			floats_free(z);
		}
		product_free(&p);
	}
}

static void a_list_of_all_changes_nothing(void **state)
{
	(void)state;
	EACH_QUANT (d) {
		for (int32_t n_pos = 1; n_pos <= MZM_MAX_POS; n_pos += 1 + n_pos / 3) {
			product p = product_new(*d, 51, 576, n_pos, 2, false);
			int32_t all[51], n_units = mzm_accum_units(*d, 576);
			for (int32_t i = 0; i < 51; i++)
				all[i] = i;
			EACH_TABLE (t) {
				float *y = floats_new((size_t)n_pos * 51), *z = accum_start(&p, 576);
				run_rows(*t, &p, 0, 51, 0, n_pos, y, 51);
				run_accum(*t, &p, 0, n_units, 0, n_pos, z, 576);
				p.rows = all;
				check_rows(*t, &p, y, 51, 17);
				check_accum(*t, &p, z, 576, 5);
				p.rows = NULL;
				floats_free(y);
				floats_free(z);
			}
			product_free(&p);
		}
	}
}

/* ---- what no quantiser writes ---- */

/* The largest sums there are: -128, which only a hostile file has, against activations at the end of their range. */
static void extreme_integers(void **state)
{
	(void)state;
	EACH_QUANT (d) {
		for (int k = 0; k < 8; k++) {
			product p = product_new(*d, 9, 18 * 32, 1 + k % 5, 0, false);
			for (int32_t r = 0; r < 9; r++)
				memset(matrix_row(&p.m, r), k & 1 ? 0x80 : *d == MZM_Q8 ? 0x7f : 0xff,
				       (size_t)p.m.n_cols / (*d == MZM_Q8 ? 1 : 2));
			matrix_widen(&p.m);
			for (int32_t i = 0; i < p.n_pos * p.m.n_cols; i++)
				p.x[i] = k & 2 ? 3.0f : k & 4 && i & 1 ? 3.0f : -3.0f;
			float *want = floats_new((size_t)p.n_pos * 9);
			stated_rows(&p, want, 9);
			check_rows_bound(&p, want, 9);
			EACH_TABLE (t)
				check_rows(*t, &p, want, 9, 4);
			floats_free(want);
			product_free(&p);
		}
	}
}

/* Scales that are NaN, infinite, denormal, zero of both signs: the same in every table, and NaN where it must be. */
static void hostile_scales(void **state)
{
	(void)state;
	static const uint16_t scales[] = {0x7e00, 0xfe01, 0x7c00, 0xfc00, 0x0001,
					  0x83ff, 0x0000, 0x8000, 0x7bff, 0xfbff};
	enum { ROWS = 10, N = 17 * 32, POS = 3, LD = N };
	EACH_QUANT (d) {
		product p = product_new(*d, ROWS, N, POS, 0, false);
		for (int r = 0; r < ROWS; r++)
			memcpy(quant_scale_at(matrix_row(&p.m, r), *d, N, r < 5 ? 16 : r), &scales[r], 2);
		matrix_widen(&p.m);
		float *rows = floats_new(POS * ROWS), *sums = accum_start(&p, LD);
		stated_rows(&p, rows, ROWS);
		stated_accum(&p, sums, LD);
		for (int i = 0; i < POS * ROWS; i++) {
			int r = i % ROWS;
			assert_true(r < 2 ? isnan(rows[i]) : r < 4 ? !isfinite(rows[i]) : isfinite(rows[i]));
		}
		for (int i = 0; i < POS * LD; i++)
			assert_int_equal(isnan(sums[i]), i % LD / 32 == 16);
		EACH_TABLE (t) {
			float *own = accum_start(&p, LD);
			check_rows(*t, &p, rows, ROWS, 3);
			accum_one_by_one(*t, &p, own, LD);
			check_accum(*t, &p, (*t)->bf16_acts ? own : sums, LD, 3);
			for (int i = 0; i < POS * LD; i++)
				assert_int_equal(isnan(own[i]), isnan(sums[i]));
			floats_free(own);
		}
		floats_free(rows);
		floats_free(sums);
		product_free(&p);
	}
}

/* Rows of any bytes, scales included. */
static void any_bytes(void **state)
{
	(void)state;
	for (int round = 0; round < 40; round++) {
		EACH_QUANT (d) {
			int32_t n = 32 * (1 + (int32_t)(mzm_rng_u64(7, 4, draw++) % 40));
			product p = product_new(*d, 11, n, 1 + round % 6, 0, round & 1);
			for (int32_t r = 0; r < 11; r++)
				for (size_t i = 0; i < mzm_row_bytes(*d, n); i++)
					matrix_row(&p.m, r)[i] = (char)mzm_rng_u64(7, 5, draw++);
			matrix_widen(&p.m);
			float *rows = floats_new((size_t)(p.n_pos * p.n)), *sums = accum_start(&p, (size_t)n);
			stated_rows(&p, rows, (size_t)p.n);
			stated_accum(&p, sums, (size_t)n);
			EACH_TABLE (t) {
				if (p.n > 0)
					check_rows(*t, &p, rows, (size_t)p.n, 0);
				float *own = accum_start(&p, (size_t)n);
				if ((*t)->bf16_acts)
					accum_one_by_one(*t, &p, own, (size_t)n);
				check_accum(*t, &p, (*t)->bf16_acts ? own : sums, (size_t)n, 0);
				floats_free(own);
			}
			floats_free(rows);
			floats_free(sums);
			product_free(&p);
		}
	}
}

/* One NaN or infinity among the activations: every output of its position is NaN, and no other. */
static void non_finite_activations(void **state)
{
	(void)state;
	enum { ROWS = 9, N = 18 * 32, POS = 5 };
	static const float odd[] = {NAN, INFINITY, -INFINITY, -NAN};
	EACH_QUANT (d) {
		for (int k = 0; k < N; k += 7) {
			product p = product_new(*d, ROWS, N, POS, 0, false);
			int at = k % POS;
			p.x[at * N + k] = odd[k % 4];
			if (k % 3 == 0)
				p.x[at * N + k / 32 * 32] = odd[k / 3 % 4];
			float *want = floats_new(POS * ROWS);
			stated_rows(&p, want, ROWS);
			for (int i = 0; i < POS * ROWS; i++)
				assert_int_equal(isnan(want[i]), i / ROWS == at);
			EACH_TABLE (t)
				check_rows(*t, &p, want, ROWS, 2);
			floats_free(want);
			product_free(&p);
		}
	}
}

/* Blocks of zeros, of denormals, of what is too small for a scale, of the largest floats. */
static void activations_of_any_size(void **state)
{
	(void)state;
	static const float sizes[] = {0.0f, 1e-45f, 1e-39f, 1e-31f, 0x1.43p-100f, 1e-20f, 1e20f, 0x1.fffffep+127f};
	enum { ROWS = 5, N = 16 * 32, POS = 3 };
	EACH_QUANT (d) {
		for (int round = 0; round < 20; round++) {
			product p = product_new(*d, ROWS, N, POS, 0, false);
			for (int i = 0; i < POS * N; i++) {
				float size = sizes[(i / 32 + i / N + round) % 8];
				p.x[i] = i % 32 == round ? -size : size * fmodf(p.x[i], 1.0f);
			}
			float *want = floats_new(POS * ROWS);
			stated_rows(&p, want, ROWS);
			EACH_TABLE (t)
				check_rows(*t, &p, want, ROWS, 0);
			for (int i = 0; i < POS * N; i++) /* and alone: what is too small counts as zero */
				p.x[i] = sizes[round % 4];
			stated_rows(&p, want, ROWS);
			for (int i = 0; i < POS * ROWS; i++)
				assert_true(want[i] == 0);
			EACH_TABLE (t)
				check_rows(*t, &p, want, ROWS, 0);
			floats_free(want);
			product_free(&p);
		}
	}
}

/* Ties round to even, and no activation leaves -127 .. 127. */
static void activations_round_to_even(void **state)
{
	(void)state;
	product p = product_new(MZM_Q8, 32, 32, 1, 0, false);
	for (int32_t r = 0; r < 32; r++) { /* row r picks activation r */
		memset(matrix_row(&p.m, r), 0, 64);
		put_element(quant_scale_at(matrix_row(&p.m, r), MZM_Q8, 32, 0), MZM_F16, 1.0f);
		*(matrix_row(&p.m, r) + r) = 1; /* of a single block, byte c is weight c */
		for (int32_t c = 0; c < 32; c++)
			assert_int_equal(quant_q(matrix_row(&p.m, r), MZM_Q8, 32, c), c == r);
	}
	for (int32_t i = 0; i < 31; i++)
		p.x[i] = (float)(4 * i - 60) + 0.5f;
	p.x[31] = -127;
	EACH_TABLE (t) {
		float y[32];
		run_rows(*t, &p, 0, 32, 0, 1, y, 32);
		for (int32_t i = 0; i < 31; i++)
			assert_true(y[i] == (float)(4 * i - 60)); /* down to the even one */
		assert_true(y[31] == -127);
	}
	product_free(&p);
}

/* ---- widening ---- */

static void rows_widen_as_they_dequantise(void **state)
{
	(void)state;
	EACH_QUANT (d) {
		EACH_COUNT (count) {
			int32_t n = 32 * *count;
			matrix m = matrix_new(*d, 3, n, 1);
			memset(matrix_row(&m, 1), 0x5a, mzm_row_bytes(*d, n)); /* large scales; then NaN and infinity */
			for (int32_t b = 0; b < *count; b++)
				put_element(quant_scale_at(matrix_row(&m, 2), *d, n, b), MZM_F16,
					    b % 3 == 0 ? NAN : b % 3 == 1 ? INFINITY : 6e-8f);
			float *want = floats_new((size_t)n);
			for (int32_t r = 0; r < 3; r++) {
				mzm_dequant_row(want, matrix_row(&m, r), *d, n);
				EACH_TABLE (t) {
					float *y = floats_new((size_t)n);
					(*t)->to_f32(y, matrix_row(&m, r), *d, n);
					check_same(y, want, (size_t)n, (*t)->name, "to_f32");
					check_untouched(y, (size_t)n, (size_t)n, (size_t)n);
					floats_free(y);
				}
			}
			floats_free(want);
			matrix_free(&m);
		}
	}
}

/* Weights that were quantised, not drawn: a product close to that of the weights before. */
static void quantised_weights_keep_the_product(void **state)
{
	(void)state;
	enum { ROWS = 40, N = 1024 };
	static float w[ROWS * N];
	for (int i = 0; i < ROWS * N; i++)
		w[i] = fmodf(random_value(), 1.0f);
	EACH_QUANT (d) {
		product p = product_new(*d, ROWS, N, 1, 0, false);
		double error = 0, total = 0;
		for (int r = 0; r < ROWS; r++)
			assert_true(mzm_quant_row(matrix_row(&p.m, r), w + r * N, *d, N, MZM_QUANT_BEST));
		float *y = floats_new(ROWS);
		run_rows(mzm_kern_find(NULL), &p, 0, ROWS, 0, 1, y, ROWS);
		for (int r = 0; r < ROWS; r++) {
			double sum = 0;
			for (int c = 0; c < N; c++)
				sum += (double)w[r * N + c] * (double)p.x[c];
			error += ((double)y[r] - sum) * ((double)y[r] - sum);
			total += sum * sum;
		}
		double relative = sqrt(error / total);
		print_message("%s: the product is off by %.2f %%\n", mzm_dtype_name(*d), 100 * relative);
		assert_true(relative < (*d == MZM_Q8 ? 0.01 : 0.12));
		floats_free(y);
		product_free(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_keep_the_order),
		cmocka_unit_test(accum_keeps_the_order),
		cmocka_unit_test(any_split_is_equal),
		cmocka_unit_test(a_list_of_all_changes_nothing),
		cmocka_unit_test(extreme_integers),
		cmocka_unit_test(hostile_scales),
		cmocka_unit_test(any_bytes),
		cmocka_unit_test(non_finite_activations),
		cmocka_unit_test(activations_of_any_size),
		cmocka_unit_test(activations_round_to_even),
		cmocka_unit_test(rows_widen_as_they_dequantise),
		cmocka_unit_test(quantised_weights_keep_the_product),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
