/* test_chunk.c - the products of a prefill chunk (matmul_gemm.c), on every table this CPU can run and every type of
 * weight: right against double precision to the stated bound, no byte written beside the result, and the same bits on
 * any number of threads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kern/quant.h"
#include "model/state.h"

enum { GAP_COLS = 3, MAX_TEAM = 3 };

/* Two matrices as a layer has them: one with a row an output, one with a row an input; rows of the second lie among
 * those of another, as the down rows do. */
typedef struct bench {
	mzm_weights w;
	mzm_layer   layer;
	mzm_dtype   dtype;
	float      *exact[2]; /* [n_rows, n_cols] what the weights are in f32 */
	char       *bytes[2];
	float      *x, *z;    /* [MZM_CHUNK_BIG, dim], [MZM_CHUNK_BIG, n_ffn] */
} bench;

static float *random_floats(size_t n, uint64_t stream)
{
	float *p = malloc(n * sizeof *p);
	assert_non_null(p);
	for (size_t i = 0; i < n; i++)
		p[i] = (float)(2 * mzm_rng_unit(11, stream, i) - 1);
	return p;
}

static mzm_matrix make_matrix(bench *b, int which, int32_t n_rows, int32_t n_cols, size_t apart, uint64_t stream)
{
	const mzm_kern *scalar = mzm_kern_find("scalar");
	size_t row_bytes = mzm_row_bytes(b->dtype, n_cols), stride = row_bytes * apart, cols = (size_t)n_cols;
	size_t n = (size_t)n_rows * cols;
	float *w = random_floats(n, stream);
	char *bytes = malloc(stride * (size_t)n_rows);
	assert_non_null(bytes);
	memset(bytes, 0xff, stride * (size_t)n_rows); /* NaN, whatever the type */
	for (size_t r = 0; r < (size_t)n_rows; r++) {
		if (mzm_dtype_is_quant(b->dtype))
			assert_true(mzm_quant_row(bytes + r * stride, w + r * cols, b->dtype, n_cols,
						  MZM_QUANT_NEAREST));
		else
			scalar->narrow(bytes + r * stride, w + r * cols, b->dtype, n_cols);
		scalar->to_f32(w + r * cols, bytes + r * stride, b->dtype, n_cols);
	}
	b->exact[which] = w;
	b->bytes[which] = bytes;
	return (mzm_matrix){.dtype = b->dtype, .n_rows = n_rows, .n_cols = n_cols, .stride = stride, .w = bytes};
}

static void bench_open(bench *b, mzm_dtype dtype, int32_t dim, int32_t n_ffn)
{
	*b = (bench){.dtype = dtype};
	b->w.cfg = (mzm_config){.n_layers = 1, .dim = dim, .n_ffn = n_ffn, .n_heads = 1, .head_dim = dim};
	b->w.layer = &b->layer;
	b->layer.gate = make_matrix(b, 0, n_ffn, dim, 1, 1);
	b->layer.down = make_matrix(b, 1, n_ffn, dim, 2, 2);
	b->x = random_floats((size_t)MZM_CHUNK_BIG * (size_t)dim, 3);
	b->z = random_floats((size_t)MZM_CHUNK_BIG * (size_t)n_ffn, 4);
}

static void bench_close(bench *b)
{
	for (int i = 0; i < 2; i++) {
		free(b->exact[i]);
		free(b->bytes[i]);
	}
	free(b->x);
	free(b->z);
}

typedef struct products {
	mzm_state    *s;
	const bench  *b;
	float        *y;
} products;

static void compute(void *ctx, mzm_team *team, int rank)
{
	products *p = ctx;
	mzm_acts x = {.x = p->b->x};
	int32_t begin, end;
	size_t ldy = (size_t)p->b->w.cfg.n_ffn + GAP_COLS;
	const mzm_matrix *gate = &p->b->layer.gate, *down = &p->b->layer.down;
	mzm_product product = {.m = gate, .n_rows = gate->n_rows, .x = &x, .y = p->y, .ldy = ldy,
			       .n_pos = p->s->pass->n_pos};
	mzm_part part = {0};
	while (mzm_next_part(p->s, gate, &part, team, rank))
		mzm_gemm_rows(p->s, &product, &part, team, rank, &begin, &end);
	mzm_team_barrier(team, rank);
	part = (mzm_part){0};
	while (mzm_next_part(p->s, down, &part, team, rank))
		mzm_gemm_down(p->s, down, &part, (mzm_group){0, p->s->pass->n_pos}, p->b->z, team, rank);
}

/* y [n_pos, n_ffn + GAP_COLS] and down [n_pos, dim], both beginning as NaN or zero; -> free */
static float *run(const bench *b, const mzm_kern *kern, int32_t n_pos, int n_threads, float **down)
{
	size_t n = (size_t)n_pos, ldy = (size_t)b->w.cfg.n_ffn + GAP_COLS, dim = (size_t)b->w.cfg.dim;
	mzm_pass pass = {.n_pos = n_pos, .gemm = true};
	mzm_team *team;
	assert_int_equal(mzm_team_create(&team, n_threads, NULL), MZM_OK);
	mzm_state s = {.w = &b->w, .kern = kern, .team = team, .max_pos = MZM_CHUNK_BIG, .pass = &pass};
	assert_int_equal(mzm_gemm_start(&s, NULL), MZM_OK);
	mzm_carve c = {0};
	mzm_gemm_layout(&s, n_threads, &c);
	char *scratch = mzm_alloc(c.used);
	assert_non_null(scratch);
	memset(scratch, 0xff, c.used);
	c = (mzm_carve){.base = scratch};
	mzm_gemm_layout(&s, n_threads, &c);
	products p = {&s, b, malloc(n * ldy * sizeof(float))};
	memset(p.y, 0xff, n * ldy * sizeof(float));
	s.x = calloc(n * dim, sizeof(float));
	s.proj = malloc(n * dim * sizeof(float));
	memset(s.proj, 0xff, n * dim * sizeof(float));
	mzm_team_run(team, compute, &p);
	assert_int_equal(s.failed, MZM_OK);
	*down = s.x;
	free(s.proj);
	mzm_gemm_stop(&s);
	mzm_free(scratch);
	mzm_team_free(team);
	return p.y;
}

/* Products are exact in double; each operand that was rounded to bf16 brings 2^-9 of its size, the sum k roundings. */
static void check(float got, const float *a, const float *w, size_t step, int32_t k, const mzm_kern *kern,
		  mzm_dtype dtype)
{
	bool rounds = kern->bf16_acts && (dtype == MZM_BF16 || mzm_dtype_is_quant(dtype));
	double bound = (k + 1) * 0x1p-23 + (rounds ? 0x1.01p-9 : 0) * (dtype == MZM_BF16 ? 1 : 2), sum = 0, sum_abs = 0;
	for (size_t i = 0; i < (size_t)k; i++) {
		double term = (double)a[i] * (double)w[i * step];
		sum += term;
		sum_abs += fabs(term);
	}
	if (!(fabs((double)got - sum) <= bound * sum_abs))
		fail_msg("%s, %s, %d inputs: %g, not %g within %g", kern->name, mzm_dtype_name(dtype), k, (double)got,
			 sum, bound * sum_abs);
}

static void check_all(const bench *b, const mzm_kern *kern, int32_t n_pos)
{
	size_t dim = (size_t)b->w.cfg.dim, n_ffn = (size_t)b->w.cfg.n_ffn, ldy = n_ffn + GAP_COLS;
	float *down, *y = run(b, kern, n_pos, 2, &down);
	size_t most = getenv("MIRZAM_SHORT") ? 10000000 : 40000000; /* products to recompute */
	size_t step = 1 + (size_t)n_pos * n_ffn * dim / most;
	for (size_t i = 0; i < (size_t)n_pos * n_ffn; i += step) {
		size_t p = i / n_ffn, j = i % n_ffn;
		check(y[p * ldy + j], b->x + p * dim, b->exact[0] + j * dim, 1, b->w.cfg.dim, kern, b->dtype);
	}
	for (size_t i = 0; i < (size_t)n_pos * dim; i += step) {
		size_t p = i / dim, j = i % dim;
		check(down[i], b->z + p * n_ffn, b->exact[1] + j, dim, b->w.cfg.n_ffn, kern, b->dtype);
	}
	for (size_t p = 0; p < (size_t)n_pos; p++)
		for (size_t j = n_ffn; j < ldy; j++)
			assert_true(isnan(y[p * ldy + j]));
	free(y);
	free(down);
}

static void need_onednn(void)
{
	if (!mzm_gemm_available()) {
		print_message("skipped: built without oneDNN\n");
		skip();
	}
}

static const int32_t shapes[][2] = {{32, 64}, {96, 352}, {544, 1100}, {1056, 192}, {192, 4700}};
#define N_SHAPES (sizeof shapes / sizeof *shapes)

static void right_to_the_bound(void **state)
{
	(void)state;
	need_onednn();
	for (size_t i = 0; i < N_SHAPES; i++) {
		for (int d = 0; d < MZM_N_DTYPES; d++) {
			bench b;
			bench_open(&b, (mzm_dtype)d, shapes[i][0], shapes[i][1]);
			for (const mzm_kern *const *t = mzm_kern_tables; *t; t++)
				if ((*t)->supported())
					check_all(&b, *t, i % 2 ? MZM_CHUNK : MZM_CHUNK_BIG);
			bench_close(&b);
		}
	}
}

static void odd_widths(void **state)
{
	(void)state;
	need_onednn();
	for (int d = 0; d <= MZM_BF16; d++) {
		bench b;
		bench_open(&b, (mzm_dtype)d, 131, 77);
		for (const mzm_kern *const *t = mzm_kern_tables; *t; t++)
			if ((*t)->supported())
				check_all(&b, *t, MZM_CHUNK);
		bench_close(&b);
	}
}

static void same_bits_on_any_number_of_threads(void **state)
{
	(void)state;
	need_onednn();
	const mzm_kern *kern = mzm_kern_find(NULL);
	for (int d = 0; d < MZM_N_DTYPES; d++) {
		bench b;
		bench_open(&b, (mzm_dtype)d, 544, 1100);
		size_t y_bytes = (size_t)MZM_CHUNK * (1100 + GAP_COLS) * sizeof(float);
		float *first_down, *first = run(&b, kern, MZM_CHUNK, 1, &first_down);
		for (int n = 2; n <= MAX_TEAM; n++) {
			float *down, *y = run(&b, kern, MZM_CHUNK, n, &down);
			assert_memory_equal(y, first, y_bytes);
			assert_memory_equal(down, first_down, (size_t)MZM_CHUNK * 544 * sizeof(float));
			free(y);
			free(down);
		}
		free(first);
		free(first_down);
		bench_close(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(right_to_the_bound),
		cmocka_unit_test(odd_widths),
		cmocka_unit_test(same_bits_on_any_number_of_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
