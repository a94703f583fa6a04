/* bench_gemm.c - products of a prefill chunk, as the model runs them, against oneDNN's own rate on the same shapes.
 *
 * Usage: bench_gemm [threads [n_pos [rounds [dim n_ffn [dtype]]]]]    (default: all cores, 512, 7, four shapes, bf16)
 *
 * "oneDNN" is one call for the whole product, weights packed beforehand, which the model cannot have, as it would be a
 * second copy of them. "row an output" is what gate and up do, "row an input" what down does, the rounding of the
 * activations included. Each round runs all of them once; medians over the rounds are printed: what disturbs the
 * machine for a while disturbs all alike. GFLOP/s; percentages are of oneDNN's. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "kern/quant.h"
#include "model/state.h"

#define MAX_ROUNDS 99

typedef struct rig {
	mzm_weights w;
	mzm_layer   layer;
	mzm_state   s;
	mzm_pass    pass;
	mzm_team   *team;
	mzm_gemm   *whole[2];   /* [gate, down] */
	void       *weights[2]; /* as oneDNN wants them */
	void       *acts;       /* [n_pos, max(dim, n_ffn)] bf16 or f32 */
	char       *bytes;      /* gate, then up and down rows in turn */
	void       *scratch;
	float      *in, *out;   /* [n_pos, max(dim, n_ffn)] */
} rig;

static void fill(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = (float)((i * 2654435761u >> 8) & 0xffff) * 0x1p-16f - 0.5f;
}

static mzm_status rig_open(rig *r, mzm_dtype dtype, int32_t n_pos, int32_t dim, int32_t n_ffn, mzm_err *err)
{
	size_t row = mzm_row_bytes(dtype, dim), rows = (size_t)n_ffn, width = (size_t)(dim > n_ffn ? dim : n_ffn);
	bool bf16 = r->s.kern->bf16_acts && (dtype == MZM_BF16 || mzm_dtype_is_quant(dtype));
	r->w.cfg = (mzm_config){.n_layers = 1, .dim = dim, .n_ffn = n_ffn, .n_heads = 1, .head_dim = dim};
	r->w.layer = &r->layer;
	MZM_TRY(mzm_alloc_for((void **)&r->bytes, 3 * rows * row, "weights", err));
	MZM_TRY(mzm_alloc_for((void **)&r->in, (size_t)n_pos * width * sizeof(float), "activations", err));
	MZM_TRY(mzm_alloc_for((void **)&r->out, (size_t)n_pos * width * sizeof(float), "results", err));
	MZM_TRY(mzm_alloc_for(&r->acts, (size_t)n_pos * width * sizeof(float), "activations", err));
	fill(r->in, (size_t)n_pos * width);
	r->s.kern->narrow(r->acts, r->in, bf16 ? MZM_BF16 : MZM_F32, n_pos * (int32_t)width);
	for (size_t i = 0; i < 3 * rows; i++) {
		if (mzm_dtype_is_quant(dtype))
			mzm_quant_row(r->bytes + i * row, r->in + i % 64, dtype, dim, MZM_QUANT_NEAREST);
		else
			r->s.kern->narrow(r->bytes + i * row, r->in + i % 64, dtype, dim);
	}
	r->layer.gate = (mzm_matrix){.dtype = dtype, .n_rows = n_ffn, .n_cols = dim, .stride = row, .w = r->bytes};
	r->layer.down = (mzm_matrix){.dtype = dtype, .n_rows = n_ffn, .n_cols = dim, .stride = 2 * row,
				      .w = r->bytes + (rows + 1) * row};
	for (int i = 0; i < 2; i++) {
		MZM_TRY(mzm_gemm_create_whole(&r->whole[i], n_pos, i ? dim : n_ffn, i ? n_ffn : dim, bf16, err));
		MZM_TRY(mzm_alloc_for(&r->weights[i], mzm_gemm_weight_bytes(r->whole[i]), "packed weights", err));
		memset(r->weights[i], 0x3c, mzm_gemm_weight_bytes(r->whole[i]));
	}
	r->pass = (mzm_pass){.n_pos = n_pos, .gemm = true};
	r->s.w = &r->w, r->s.team = r->team, r->s.pass = &r->pass, r->s.max_pos = MZM_CHUNK_BIG;
	r->s.x = r->s.proj = r->out;
	MZM_TRY(mzm_gemm_start(&r->s, err));
	mzm_carve c = {0};
	mzm_gemm_layout(&r->s, mzm_team_size(r->team), &c);
	MZM_TRY(mzm_alloc_for(&r->scratch, c.used, "scratch", err));
	c = (mzm_carve){.base = r->scratch};
	mzm_gemm_layout(&r->s, mzm_team_size(r->team), &c);
	return MZM_OK;
}

static void rig_close(rig *r)
{
	for (int i = 0; i < 2; i++) {
		mzm_gemm_free(r->whole[i]);
		mzm_free(r->weights[i]);
	}
	mzm_gemm_stop(&r->s);
	mzm_free(r->scratch);
	mzm_free(r->bytes);
	mzm_free(r->in);
	mzm_free(r->out);
	mzm_free(r->acts);
}

static void outputs(void *ctx, mzm_team *team, int rank)
{
	rig *r = ctx;
	mzm_acts x = {.x = r->in};
	int32_t begin, end;
	const mzm_matrix *m = &r->layer.gate;
	mzm_product p = {.m = m, .n_rows = m->n_rows, .x = &x, .y = r->out, .ldy = (size_t)m->n_rows,
			 .n_pos = r->pass.n_pos};
	mzm_part whole = {0, m->n_rows, m->w};
	mzm_gemm_rows(&r->s, &p, &whole, team, rank, &begin, &end);
}

static void inputs(void *ctx, mzm_team *team, int rank)
{
	rig *r = ctx;
	mzm_part whole = {0, r->layer.down.n_rows, r->layer.down.w};
	mzm_gemm_down(&r->s, &r->layer.down, &whole, (mzm_group){0, r->s.pass->n_pos}, r->in, team, rank);
}

/* kind 0, 1: oneDNN on gate and down; 2, 3: the model on them. */
static double time_one(rig *r, int kind)
{
	int64_t start = mzm_now_ns();
	if (kind < 2)
		mzm_gemm_run(r->whole[kind], 0, r->out, r->acts, r->weights[kind], NULL);
	else
		mzm_team_run(r->team, kind == 2 ? outputs : inputs, r);
	return (double)(mzm_now_ns() - start) * 1e-9;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void measure(rig *r, int n_rounds)
{
	static double seconds[4][MAX_ROUNDS];
	double work = 2.0 * r->pass.n_pos * r->w.cfg.dim * r->w.cfg.n_ffn * 1e-9, rate[4];
	for (int i = -1; i < n_rounds; i++)
		for (int k = 0; k < 4; k++) {
			double t = time_one(r, k);
			if (i >= 0)
				seconds[k][i] = t;
		}
	for (int k = 0; k < 4; k++) {
		qsort(seconds[k], (size_t)n_rounds, sizeof(double), by_size);
		rate[k] = work / seconds[k][n_rounds / 2];
	}
	printf("%4d x %5d x %5d %-7s %7.0f %7.0f %4.0f %% %13.0f %7.0f %4.0f %%\n", r->pass.n_pos, r->w.cfg.dim,
	       r->w.cfg.n_ffn, r->s.gemm.bf16 ? "bf16" : "f32", rate[0], rate[2], 100 * rate[2] / rate[0], rate[1],
	       rate[3], 100 * rate[3] / rate[1]);
}

int main(int argc, char **argv)
{
	static const int32_t shapes[][2] = {{2048, 5632}, {2048, 8192}, {4096, 11008}, {4096, 14336}};
	int n_threads = argc > 1 ? atoi(argv[1]) : 0, n_pos = argc > 2 ? atoi(argv[2]) : MZM_CHUNK_BIG;
	int n_rounds = argc > 3 ? atoi(argv[3]) : 7;
	mzm_dtype dtype = MZM_BF16;
	mzm_team *team;
	mzm_err err = {0};
	n_rounds = n_rounds < 1 ? 1 : n_rounds < MAX_ROUNDS ? n_rounds : MAX_ROUNDS;
	bool usage = (n_pos != MZM_CHUNK && n_pos != MZM_CHUNK_BIG) || argc == 5 || argc > 7 ||
		     (argc > 6 && !mzm_dtype_parse(&dtype, argv[6]));
	if (usage || mzm_team_create(&team, n_threads, &err) != MZM_OK) {
		fprintf(stderr, "usage: bench_gemm [threads [%d|%d [rounds [dim n_ffn [dtype]]]]]\n", MZM_CHUNK,
			MZM_CHUNK_BIG);
		return 2;
	}
	omp_set_num_threads(mzm_team_size(team));
	printf("%s, %s weights, %d threads\n", mzm_gemm_version(), mzm_dtype_name(dtype), mzm_team_size(team));
	printf("%-26s       row an output              row an input\n", "positions x dim x neurons");
	printf("%27s  oneDNN   model                oneDNN   model\n", "");
	for (int i = 0; i < (argc > 5 ? 1 : 4); i++) {
		rig r = {.team = team, .s.kern = mzm_kern_find(NULL)};
		int32_t dim = argc > 5 ? atoi(argv[4]) : shapes[i][0], n_ffn = argc > 5 ? atoi(argv[5]) : shapes[i][1];
		if (rig_open(&r, dtype, n_pos, dim, n_ffn, &err) == MZM_OK)
			measure(&r, n_rounds);
		else
			fprintf(stderr, "%s\n", err.message);
		rig_close(&r);
	}
	mzm_team_free(team);
	return 0;
}
