/* test_kern.c - the matrix products of every table the CPU has for weights in f32, f16 and bf16, against the order that
 * kern.h states and against double precision; quantised rows are in test_kern_quant.c, single vectors in
 * test_kern_vec.c.
 *
 * The order is written out once more here, one fused multiply-add after the other. That a table equals it bit for bit
 * is the strongest test: it makes tables, ranges, numbers of positions and index lists equal among themselves. The one
 * table with an order of its own, "avx512-bf16" on bf16 weights, must equal itself, one output and one position at a
 * time. The double-precision bound guards against an error that code and reference share. Inputs sit in a sea of NaN,
 * and once against an unreadable page; outputs in a pattern that must survive. */
#include <sys/mman.h>
#include <unistd.h>

#include "kern_testing.h"

static const mzm_dtype float_types[] = {MZM_F32, MZM_F16, MZM_BF16};
#define EACH_FLOAT(d) \
	for (const mzm_dtype *d = float_types; d < float_types + 3; d++)

/* ---- the stated order, written out ---- */

static void stated_rows(const product *p, float *y, size_t ldy)
{
	for (int32_t k = 0; k < p->n_pos; k++)
		for (int32_t i = 0; i < p->n; i++)
			y[(size_t)k * ldy + (size_t)i] = stated_dot(
				product_wide(p, i), p->x + (size_t)k * (size_t)p->m.n_cols, p->m.n_cols);
}

static void stated_accum(const product *p, float *y, size_t ldy)
{
	for (int32_t k = 0; k < p->n_pos; k++) {
		for (int32_t c = 0; c < p->m.n_cols; c++) {
			float sum = 0.0f;
			for (int32_t i = 0; i < p->n; i++)
				sum = fmaf(p->a[(size_t)k * (size_t)p->n + (size_t)i], product_wide(p, i)[c], sum);
			y[(size_t)k * ldy + (size_t)c] += sum;
		}
	}
}

/* ---- double precision ---- */

/* What a table makes of an activation that meets these weights. */
static double as_met(const mzm_kern *t, const product *p, float x)
{
	return (double)(rounds(t, p) ? mzm_bf16_to_f32(mzm_f32_to_bf16(x)) : x);
}

/* What a term may lose: a rounding in the denormals; where they count as zeros, all of it, and the largest factor is
 * 1000. */
static double lost(const mzm_kern *t, const product *p)
{
	return rounds(t, p) ? 2 * 1000 * 0x1p-126 : 0x1p-149;
}

static void check_rows_bound(const mzm_kern *t, const product *p, const float *y, size_t ldy)
{
	for (int32_t k = 0; k < p->n_pos; k++) {
		for (int32_t i = 0; i < p->n; i++) {
			const float *w = product_wide(p, i), *x = p->x + (size_t)k * (size_t)p->m.n_cols;
			double sum = 0, sum_abs = 0;
			for (int32_t c = 0; c < p->m.n_cols; c++) {
				double term = (double)w[c] * as_met(t, p, x[c]);
				sum += term;
				sum_abs += fabs(term);
			}
			check_bound((double)y[(size_t)k * ldy + (size_t)i], sum, sum_abs, p->m.n_cols, lost(t, p));
		}
	}
}

static void check_accum_bound(const mzm_kern *t, const product *p, const float *y, size_t ldy)
{
	for (int32_t k = 0; k < p->n_pos; k++) {
		for (int32_t c = 0; c < p->m.n_cols; c++) {
			double sum = 0, sum_abs = 0, y0 = (double)p->y0[(size_t)k * (size_t)p->m.n_cols + (size_t)c];
			for (int32_t i = 0; i < p->n; i++) {
				double term = (double)product_wide(p, i)[c] *
					      as_met(t, p, p->a[(size_t)k * (size_t)p->n + (size_t)i]);
				sum += term;
				sum_abs += fabs(term);
			}
			check_bound((double)y[(size_t)k * ldy + (size_t)c], y0 + sum, fabs(y0) + sum_abs, p->n + 1,
				    lost(t, p));
		}
	}
}

/* ---- rows and accum ---- */

static uint64_t cuts; /* so that each case is cut elsewhere */

/* One shape, with and without a list, in all tables. */
static void try_rows(mzm_dtype dtype, int32_t n_rows, int32_t n_cols, int32_t n_pos, int32_t pad, bool listed)
{
	product p = product_new(dtype, n_rows, n_cols, n_pos, pad, listed);
	size_t ldy = (size_t)p.n + 3, n_y = (size_t)n_pos * ldy;
	float *stated = floats_new(n_y), *own = floats_new(n_y);
	stated_rows(&p, stated, ldy);
	EACH_TABLE (t) {
		if (rounds(*t, &p))
			rows_one_by_one(*t, &p, own, ldy);
		const float *want = rounds(*t, &p) ? own : stated;
		check_rows(*t, &p, want, ldy, 0);
		check_rows(*t, &p, want, ldy, (int32_t)(cuts++ % (uint64_t)(p.n + 1)));
		check_rows_bound(*t, &p, want, ldy);
	}
	floats_free(stated);
	floats_free(own);
	product_free(&p);
}

static void try_accum(mzm_dtype dtype, int32_t n_rows, int32_t n_cols, int32_t n_pos, int32_t pad, bool listed)
{
	product p = product_new(dtype, n_rows, n_cols, n_pos, pad, listed);
	size_t ldy = (size_t)n_cols + 3;
	float *stated = accum_start(&p, ldy), *own = NULL;
	stated_accum(&p, stated, ldy);
	EACH_TABLE (t) {
		if (rounds(*t, &p)) {
			own = accum_start(&p, ldy);
			accum_one_by_one(*t, &p, own, ldy);
		}
		const float *want = rounds(*t, &p) ? own : stated;
		check_accum(*t, &p, want, ldy, 0);
		check_accum(*t, &p, want, ldy, (int32_t)(cuts++ % (uint64_t)(mzm_accum_units(dtype, n_cols) + 1)));
		check_accum_bound(*t, &p, want, ldy);
	}
	floats_free(stated);
	if (own)
		floats_free(own);
	product_free(&p);
}

typedef void (*try_fn)(mzm_dtype dtype, int32_t n_rows, int32_t n_cols, int32_t n_pos, int32_t pad, bool listed);

static void try_shapes(try_fn try_one)
{
	static const int32_t long_cols[] = {127, 172, 256, 1000, 1029};
	EACH_FLOAT (d) {
		for (int32_t n_cols = 1; n_cols <= 70; n_cols++) {
			try_one(*d, 1 + n_cols % 13, n_cols, 1 + n_cols % 5, n_cols % 3, false);
			try_one(*d, 2 + n_cols % 29, n_cols, 1, n_cols % 2, true);
		}
		for (int32_t n_pos = 1; n_pos <= MZM_MAX_POS; n_pos++)
			try_one(*d, 19, 45, n_pos, 4, n_pos & 1);
		for (int32_t n_rows = 1; n_rows <= 40; n_rows++)
			try_one(*d, n_rows, 70, 1 + n_rows % 4, 0, false);
		for (size_t k = 0; k < sizeof long_cols / sizeof *long_cols; k++) {
			try_one(*d, 7, long_cols[k], 3, 0, false);
			try_one(*d, 37, long_cols[k], 1, 1, true);
			try_one(*d, 21, long_cols[k], 32, 0, true);
		}
		try_one(*d, 1, 1, 1, 0, false);
		try_one(*d, 300, 20, 2, 0, true);
		try_one(*d, 11, 2077, 5, 1, false); /* longer than the blocks that stay in L1 */
	}
}

static void rows_keep_the_order(void **state)
{
	(void)state;
	try_shapes(try_rows);
}

static void accum_keeps_the_order(void **state)
{
	(void)state;
	try_shapes(try_accum);
	EACH_FLOAT (d) { /* wider than the scratch holds at a time */
		try_accum(*d, 5, 17001, 1, 0, false);
		try_accum(*d, 37, 700, 32, 0, false);
	}
}

/* Every cut, of rows and of units. */
static void any_split_is_equal(void **state)
{
	(void)state;
	EACH_FLOAT (d) {
		product p = product_new(*d, 43, 517, 5, 0, false);
		EACH_TABLE (t) {
			size_t n_y = (size_t)p.n_pos * (size_t)p.n;
			float *y = floats_new(n_y), *z = accum_start(&p, 517);
			rows_one_by_one(*t, &p, y, (size_t)p.n);
			accum_one_by_one(*t, &p, z, 517);
			for (int32_t cut = 0; cut <= p.n; cut++)
				check_rows(*t, &p, y, (size_t)p.n, cut);
			for (int32_t cut = 0; cut <= mzm_accum_units(*d, 517); cut++)
				check_accum(*t, &p, z, 517, cut);
			floats_free(y);
			floats_free(z);
		}
		product_free(&p);
	}
}

/* A list of all rows is no list: what a keep of 1.0 relies on. */
static void a_list_of_all_changes_nothing(void **state)
{
	(void)state;
	EACH_FLOAT (d) {
		for (int32_t n_pos = 1; n_pos <= MZM_MAX_POS; n_pos += 1 + n_pos / 4) {
			product p = product_new(*d, 51, 172, n_pos, 2, false);
			int32_t all[51];
			for (int32_t i = 0; i < 51; i++)
				all[i] = i;
			EACH_TABLE (t) {
				float *y = floats_new((size_t)n_pos * 51), *z = accum_start(&p, 172);
				run_rows(*t, &p, 0, 51, 0, n_pos, y, 51);
				run_accum(*t, &p, 0, 3, 0, n_pos, z, 172);
				p.rows = all;
				check_rows(*t, &p, y, 51, 17);
				check_accum(*t, &p, z, 172, 2);
				p.rows = NULL;
				floats_free(y);
				floats_free(z);
			}
			product_free(&p);
		}
	}
}

/* Rows whose weight is zero add nothing: what attention relies on, where a position does not see the tokens behind it,
 * and is alone in one pass and in company in the next. */
static void zeros_behind_the_last_row_change_nothing(void **state)
{
	(void)state;
	EACH_FLOAT (d) {
		for (int32_t seen = 0; seen <= 40; seen++) {
			product p = product_new(*d, 45, 70, 3, 0, false);
			for (int32_t k = 0; k < 3; k++)
				for (int32_t i = seen; i < 45; i++)
					p.a[k * 45 + i] = 0.0f;
			product alone = p;
			alone.n = seen;
			alone.a = floats_new(3 * (size_t)seen);
			for (int32_t k = 0; k < 3; k++)
				memcpy(alone.a + k * seen, p.a + k * 45, (size_t)seen * sizeof(float));
			memset(p.y0, 0, 3 * 70 * sizeof(float));
			EACH_TABLE (t) {
				float *y = accum_start(&p, 70);
				accum_one_by_one(*t, &alone, y, 70);
				check_accum(*t, &p, y, 70, 1);
				floats_free(y);
			}
			floats_free(alone.a);
			product_free(&p);
		}
	}
}

static void empty_products(void **state)
{
	(void)state;
	EACH_TABLE (t) {
		for (mzm_dtype d = 0; d < MZM_N_DTYPES; d++) {
			product p = product_new(d, 3, 64, 2, 0, false);
			p.n = 0;
			for (int i = 0; i < 2 * 64; i++)
				p.y0[i] += 0.0f; /* -0 becomes +0 */
			check_accum(*t, &p, p.y0, 64, 0); /* no rows: nothing is added */
			float *y = floats_new(2);
			run_rows(*t, &p, 0, 0, 0, 2, y, 1);
			assert_true(untouched(y - MARGIN, 2 * MARGIN + 2));
			floats_free(y);
			product_free(&p);
		}
	}
}

/* One NaN or infinity shows in the outputs it belongs to and in no other. */
static void non_finite_weights_stay_where_they_are(void **state)
{
	(void)state;
	enum { N = 9, COLS = 40 };
	EACH_FLOAT (d) {
		for (int32_t n_pos = 1; n_pos <= 5; n_pos += 2) {
			product p = product_new(*d, N, COLS, n_pos, 0, false);
			size_t elem = mzm_dtype_bytes(*d);
			put_element(matrix_row(&p.m, 3) + 38 * elem, *d, NAN);
			put_element(matrix_row(&p.m, 6) + 2 * elem, *d, INFINITY);
			for (int i = 0; i < n_pos * COLS; i++)
				p.x[i] = 1.0f;
			for (int i = 0; i < n_pos * N; i++)
				p.a[i] = 1.0f;
			EACH_TABLE (t) {
				float *y = floats_new((size_t)n_pos * N), *z = accum_start(&p, COLS);
				run_rows(*t, &p, 0, N, 0, n_pos, y, N);
				run_accum(*t, &p, 0, 1, 0, n_pos, z, COLS);
				for (int k = 0; k < n_pos * N; k++) {
					int i = k % N;
					assert_true(i == 3 ? isnan(y[k]) : i == 6 ? y[k] == INFINITY : isfinite(y[k]));
				}
				for (int k = 0; k < n_pos * COLS; k++) {
					int i = k % COLS;
					assert_true(i == 38  ? isnan(z[k])
						    : i == 2 ? z[k] == INFINITY
							     : isfinite(z[k]));
				}
				floats_free(y);
				floats_free(z);
			}
			product_free(&p);
		}
	}
}

/* And so do those of activations, with their position. */
static void non_finite_activations_stay_in_their_position(void **state)
{
	(void)state;
	enum { N = 9, COLS = 40, POS = 7 };
	static const float odd[] = {NAN, INFINITY, -INFINITY};
	EACH_FLOAT (d) {
		for (int32_t k = 0; k < 3 * POS; k++) {
			product p = product_new(*d, N, COLS, POS, 0, false);
			int32_t at = k % POS;
			p.x[at * COLS + k] = odd[k / POS];
			p.a[at * N + k % N] = odd[k / POS];
			EACH_TABLE (t) {
				float *y = floats_new(POS * N), *z = accum_start(&p, COLS);
				run_rows(*t, &p, 0, N, 0, POS, y, N);
				run_accum(*t, &p, 0, 1, 0, POS, z, COLS);
				for (int i = 0; i < POS * N; i++)
					assert_int_equal(!isfinite(y[i]), i / N == at);
				for (int i = 0; i < POS * COLS; i++)
					assert_int_equal(!isfinite(z[i]), i / COLS == at);
				floats_free(y);
				floats_free(z);
			}
			product_free(&p);
		}
	}
}

/* n bytes that end where an unreadable page begins. */
static char *at_the_fence(size_t n, void **map, size_t *map_bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t room = (n + page - 1) / page * page;
	*map_bytes = room + page;
	*map = mmap(NULL, *map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(*map != MAP_FAILED);
	assert_int_equal(mprotect((char *)*map + room, page, PROT_NONE), 0);
	return (char *)*map + room - n;
}

/* The last rows of a matrix and the last bytes of packed positions, sums and outputs, each against the fence. */
static void try_fenced_products(const mzm_kern *t, mzm_dtype d, int32_t n, int32_t n_pos)
{
	void *map[4];
	size_t bytes[4], row = mzm_row_bytes(d, n), ld = mzm_pack_stride(t, d, n), n_floats = (size_t)(n * n_pos);
	char *w = at_the_fence(2 * row, &map[0], &bytes[0]);
	char *packed = at_the_fence(ld * (size_t)n_pos, &map[1], &bytes[1]);
	float *x = (float *)(void *)at_the_fence(n_floats * 4, &map[2], &bytes[2]), y[2 * MZM_MAX_POS];
	float *scratch = (float *)(void *)at_the_fence(MZM_ACCUM_SCRATCH, &map[3], &bytes[3]);
	for (int32_t p = 0; p < n_pos; p++)
		t->pack(packed + (size_t)p * ld, x + p * n, d, n);
	mzm_rows_job rows = {d, w, row, NULL, 2, n, packed, ld, n_pos, y, 2};
	t->rows(&rows, 0, 2);
	t->rows(&rows, 1, 2);
	mzm_accum_job accum = {d, w, row, NULL, 2, n, x + (n * n_pos - 2 * n_pos), 2, n_pos, x, (size_t)n, scratch};
	accum.a = n > 1 ? accum.a : y;
	t->accum(&accum, 0, mzm_accum_units(d, n));
	t->to_f32(x + n * (n_pos - 1), w + row, d, n);
	for (int i = 0; i < 4; i++)
		munmap(map[i], bytes[i]);
}

/* Reading one byte past a last row or a vector would be a fault here. */
static void nothing_is_read_past_the_end(void **state)
{
	(void)state;
	for (int32_t n = 1; n <= 70; n++)
		EACH_TABLE (t)
			EACH_FLOAT (d)
				for (int32_t n_pos = 1; n_pos <= 4; n_pos++)
					try_fenced_products(*t, *d, n, n_pos);
	for (int32_t n = 32; n <= 34 * 32; n += 32)
		EACH_TABLE (t)
			for (int32_t n_pos = 1; n_pos <= 4; n_pos++) {
				try_fenced_products(*t, MZM_Q8, n, n_pos);
				try_fenced_products(*t, MZM_Q4, n, n_pos);
			}
}

static void no_vector_is_read_past_the_end(void **state)
{
	(void)state;
	void *map[2];
	size_t bytes[2];
	for (int32_t n = 1; n <= 50; n++) {
		float *x = (float *)(void *)at_the_fence((size_t)n * 4, &map[0], &bytes[0]);
		float *y = (float *)(void *)at_the_fence((size_t)n * 4, &map[1], &bytes[1]);
		EACH_TABLE (t) {
			(*t)->dot(x, y, n);
			(*t)->axpy(y, 0.5f, x, n);
			(*t)->add(y, x, n);
			(*t)->mul(y, x, n);
			(*t)->act(y, MZM_ACT_SILU, 0, n);
			(*t)->act(y, MZM_ACT_RELU, 0, n);
			(*t)->rmsnorm(y, x, x, 1e-5f, n);
			(*t)->softmax(y, n);
			(*t)->max_abs(y, n);
			(*t)->rope(y + n % 2, x + n % 2, n - n % 2);
			EACH_FLOAT (d)
				(*t)->narrow((char *)(y + n) - (size_t)n * mzm_dtype_bytes(*d), x, *d, n);
		}
		for (int i = 0; i < 2; i++)
			munmap(map[i], bytes[i]);
	}
}

/* ---- sizes ---- */

static void packed_positions_are_padded(void **state)
{
	(void)state;
	EACH_TABLE (t) {
		for (mzm_dtype d = 0; d < MZM_N_DTYPES; d++) {
			for (int32_t n = 32; n <= 20000; n += n < 4096 ? 32 : 992) {
				size_t ld = mzm_pack_stride(*t, d, n), least = (size_t)n * 4;
				if (mzm_dtype_is_quant(d))
					least = (size_t)n;
				else if (d == MZM_BF16 && (*t)->bf16_acts)
					least = (size_t)n * 2;
				assert_true(ld >= least && ld % 128 == 64); /* lines, an odd number of them */
			}
		}
	}
}

/* ---- names ---- */

static void tables_and_types_have_names(void **state)
{
	(void)state;
	const mzm_kern *best = mzm_kern_find(NULL);
	assert_non_null(best);
	assert_true(best->supported());
	assert_ptr_equal(mzm_kern_find("auto"), best);
	assert_null(mzm_kern_find("neon"));
	assert_null(mzm_kern_find(""));
	assert_non_null(mzm_kern_find("scalar"));
	bool before_best = true;
	for (const mzm_kern *const *t = mzm_kern_tables; *t; t++) {
		before_best = before_best && *t != best;
		assert_true(!before_best || !(*t)->supported());
		assert_ptr_equal(mzm_kern_find((*t)->name), (*t)->supported() ? *t : NULL);
		assert_int_equal((*t)->bf16_acts, strcmp((*t)->name, "avx512-bf16") == 0);
		print_message("%s: %s\n", (*t)->name, (*t)->supported() ? "tested" : "NOT TESTED, this CPU lacks it");
	}
	for (mzm_dtype d = 0; d < MZM_N_DTYPES; d++) {
		mzm_dtype parsed;
		assert_true(mzm_dtype_parse(&parsed, mzm_dtype_name(d)));
		assert_int_equal(parsed, d);
		assert_int_equal(mzm_dtype_bytes(d), d == MZM_F32 ? 4 : d == MZM_Q8 || d == MZM_Q4 ? 1 : 2);
		assert_int_equal(mzm_dtype_is_quant(d), d == MZM_Q8 || d == MZM_Q4);
		assert_int_equal(mzm_dtype_fits(d, 33), !mzm_dtype_is_quant(d));
		assert_true(mzm_dtype_fits(d, 64));
		assert_false(mzm_dtype_parse(&parsed, "f64"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_and_types_have_names),
		cmocka_unit_test(packed_positions_are_padded),
		cmocka_unit_test(rows_keep_the_order),
		cmocka_unit_test(accum_keeps_the_order),
		cmocka_unit_test(any_split_is_equal),
		cmocka_unit_test(a_list_of_all_changes_nothing),
		cmocka_unit_test(zeros_behind_the_last_row_change_nothing),
		cmocka_unit_test(empty_products),
		cmocka_unit_test(non_finite_weights_stay_where_they_are),
		cmocka_unit_test(non_finite_activations_stay_in_their_position),
		cmocka_unit_test(nothing_is_read_past_the_end),
		cmocka_unit_test(no_vector_is_read_past_the_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
