/* bench_kern.c - speed of the row kernels against the memory's, and the cost of a region and of a barrier.
 *
 * Usage: bench_kern [threads [n_rows n_cols [rounds [table [dtype]]]]]    (default: all cores, 4096 x 11008, 7, all)
 *
 * Each round runs every measurement once, a plain read of as many bytes among them, and the median over the rounds is
 * printed: what disturbs the machine for a while disturbs all alike. The best round stands beside it. Matrices take
 * turns so that no pass finds its weights in a cache. GB/s counts each weight once per pass; "peak" is the plain
 * read's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "kern/kern.h"
#include "kern/threads.h"

#define MAX_LINES 256
#define MAX_ROUNDS 99

typedef enum kind { READ, ROWS, GATHER, ACCUM } kind;

typedef struct line {
	kind            kind;
	const mzm_kern *kern;
	mzm_dtype       dtype;
	int             n_pos;
	double          seconds[MAX_ROUNDS];
} line;

typedef struct bench {
	int      n_threads, n_rounds, n_lines;
	int32_t  n_rows, n_cols;
	char    *w;      /* n_rows * n_cols * 4 bytes, and the same again: two f32 or four 16-bit matrices */
	float   *x, *y;  /* [MZM_MAX_POS, max(n_rows, n_cols)] */
	char    *packed; /* x for the table and type of the pass */
	float   *scratch; /* [64] of accum */
	int32_t *every_other;
	int      turn;
	line     lines[MAX_LINES];
} bench;

/* ---- one pass ---- */

typedef struct pass {
	const bench *b;
	const line  *l;
	const char  *w;
	uint64_t     read_sum[64];
	float       *scratch; /* [64] parts */
} pass;

/* Sums 64-bit words of the bytes begin .. end-1; eight sums, so that the additions do not wait for each other. */
static uint64_t read_bytes(const char *w, size_t begin, size_t end)
{
	uint64_t sum[8] = {0};
	for (size_t i = begin; i + 64 <= end; i += 64) {
		uint64_t v[8];
		memcpy(v, w + i, sizeof v);
		for (int k = 0; k < 8; k++)
			sum[k] += v[k];
	}
	return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

static void run_part(void *ctx, mzm_team *team, int rank)
{
	pass *p = ctx;
	const bench *b = p->b;
	const line *l = p->l;
	int32_t begin, end, n_rows = l->kind == GATHER ? b->n_rows / 2 : b->n_rows;
	size_t stride = mzm_row_bytes(l->dtype, b->n_cols);
	const int32_t *list = l->kind == GATHER ? b->every_other : NULL;
	size_t ld = (size_t)(b->n_rows > b->n_cols ? b->n_rows : b->n_cols);
	if (l->kind == READ) {
		mzm_team_range(n_rows, 1, rank, mzm_team_size(team), &begin, &end);
		p->read_sum[rank % 64] = read_bytes(p->w, (size_t)begin * stride, (size_t)end * stride);
	} else if (l->kind == ACCUM) {
		mzm_accum_job job = {l->dtype, p->w, stride, NULL, n_rows, b->n_cols, b->x, ld, l->n_pos, b->y, ld,
				     p->scratch + (size_t)(rank % 64) * (MZM_ACCUM_SCRATCH / sizeof(float))};
		mzm_team_range(mzm_accum_units(l->dtype, b->n_cols), 1, rank, mzm_team_size(team), &begin, &end);
		l->kern->accum(&job, begin, end);
	} else {
		size_t ldx = mzm_pack_stride(l->kern, l->dtype, b->n_cols);
		mzm_rows_job job = {l->dtype,  p->w, stride,   list, n_rows, b->n_cols,
				    b->packed, ldx,  l->n_pos, b->y, ld};
		mzm_team_range(n_rows, 8, rank, mzm_team_size(team), &begin, &end);
		l->kern->rows(&job, begin, end);
	}
}

static double pass_bytes(const bench *b, const line *l)
{
	double bytes = (double)b->n_rows * (double)mzm_row_bytes(l->dtype, b->n_cols);
	return l->kind == GATHER ? bytes / 2 : bytes;
}

/* One thread is timed by its CPU time, which other programs cannot add to. */
static int64_t now_ns(int n_threads)
{
	struct timespec t;
	if (n_threads > 1)
		return mzm_now_ns();
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double time_pass(bench *b, mzm_team *team, const line *l)
{
	size_t matrix = (size_t)b->n_rows * mzm_row_bytes(l->dtype, b->n_cols);
	int n_copies = (int)((size_t)b->n_rows * (size_t)b->n_cols * 8 / matrix);
	pass p = {.b = b, .l = l, .w = b->w + (size_t)(b->turn++ % n_copies) * matrix, .scratch = b->scratch};
	for (int i = 0; l->kern && i < l->n_pos; i++)
		l->kern->pack(b->packed + (size_t)i * mzm_pack_stride(l->kern, l->dtype, b->n_cols),
			      b->x + (size_t)i * (size_t)b->n_cols, l->dtype, b->n_cols);
	int64_t start = now_ns(b->n_threads);
	mzm_team_run(team, run_part, &p);
	double seconds = (double)(now_ns(b->n_threads) - start) * 1e-9;
	volatile uint64_t keep = p.read_sum[0];
	(void)keep;
	return seconds;
}

/* ---- all of them ---- */

static void add_line(bench *b, kind k, const mzm_kern *kern, mzm_dtype dtype, int n_pos)
{
	if (b->n_lines < MAX_LINES)
		b->lines[b->n_lines++] = (line){.kind = k, .kern = kern, .dtype = dtype, .n_pos = n_pos};
}

/* table and dtype: the only ones to measure, or NULL. */
static void list_lines(bench *b, const char *table, const char *dtype)
{
	static const int positions[] = {1, 2, 4, 8, 16, 32};
	for (int d = MZM_N_DTYPES - 1; d >= 0; d--)
		if (d != MZM_F16 && (!dtype || strcmp(dtype, mzm_dtype_name((mzm_dtype)d)) == 0))
			add_line(b, READ, NULL, (mzm_dtype)d, 0);
	for (const mzm_kern *const *t = mzm_kern_tables; *t; t++) {
		const char *name = (*t)->name;
		if (!(*t)->supported() || strcmp(table ? table : name, name) != 0 || (!table && !t[1]))
			continue; /* the last one, scalar, only when asked for: it takes very long */
		for (int d = MZM_N_DTYPES - 1; d >= 0; d--) {
			if (dtype && strcmp(dtype, mzm_dtype_name((mzm_dtype)d)) != 0)
				continue;
			for (size_t i = 0; i < sizeof positions / sizeof *positions; i++)
				add_line(b, ROWS, *t, (mzm_dtype)d, positions[i]);
			add_line(b, GATHER, *t, (mzm_dtype)d, 1);
			for (size_t i = 0; i < sizeof positions / sizeof *positions; i++)
				add_line(b, ACCUM, *t, (mzm_dtype)d, positions[i]);
		}
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *values, int n)
{
	qsort(values, (size_t)n, sizeof *values, by_value);
	return values[n / 2];
}

static void print_lines(bench *b)
{
	static const char *const names[] = {"read", "rows", "gather", "accum"};
	double peak = 0;
	printf("%d threads, %d x %d, %d rounds\n", b->n_threads, b->n_rows, b->n_cols, b->n_rounds);
	printf("%-33s %10s %8s %6s %9s %12s\n", "", "median ms", "GB/s", "peak", "GFLOP/s", "best ms");
	for (int i = 0; i < b->n_lines; i++) {
		line *l = &b->lines[i];
		double s = median(l->seconds, b->n_rounds), bytes = pass_bytes(b, l);
		double flop = 2.0 * b->n_rows / (l->kind == GATHER ? 2 : 1) * b->n_cols * l->n_pos;
		if (l->kind == READ && bytes / s > peak)
			peak = bytes / s;
		printf("%-6s %-12s %-4s %2d pos  %10.3f %8.2f %5.0f%% %9.1f %12.3f\n", names[l->kind],
		       l->kern ? l->kern->name : "-", mzm_dtype_name(l->dtype), l->n_pos, s * 1e3, bytes / s * 1e-9,
		       peak > 0 ? 100 * bytes / s / peak : 0, flop / s * 1e-9, l->seconds[0] * 1e3);
	}
}

/* ---- regions and barriers ---- */

#define N_CALLS 2000

static void nothing(void *ctx, mzm_team *team, int rank)
{
	(void)ctx, (void)team, (void)rank;
}

static void barriers(void *ctx, mzm_team *team, int rank)
{
	(void)ctx;
	for (int i = 0; i < N_CALLS; i++)
		mzm_team_barrier(team, rank);
}

static void print_team_costs(mzm_team *team)
{
	double region[21], barrier[21];
	for (int i = 0; i < 21; i++) {
		int64_t t0 = mzm_now_ns();
		for (int k = 0; k < N_CALLS; k++)
			mzm_team_run(team, nothing, NULL);
		int64_t t1 = mzm_now_ns();
		mzm_team_run(team, barriers, NULL);
		region[i] = (double)(t1 - t0) / N_CALLS;
		barrier[i] = (double)(mzm_now_ns() - t1) / N_CALLS;
	}
	double r = median(region, 21), b = median(barrier, 21); /* sorted now: the best is the first */
	printf("region %.0f ns (best %.0f), barrier %.0f ns (best %.0f)\n", r, region[0], b, barrier[0]);
}

/* ---- */

static bool make_data(bench *b)
{
	size_t n = (size_t)b->n_rows * (size_t)b->n_cols;
	size_t side = (size_t)(b->n_rows > b->n_cols ? b->n_rows : b->n_cols);
	b->w = mzm_alloc(n * 8);
	b->x = mzm_alloc(side * MZM_MAX_POS * sizeof(float));
	b->y = mzm_alloc(side * MZM_MAX_POS * sizeof(float));
	b->packed = mzm_alloc(MZM_MAX_POS * (side * sizeof(float) + 2048));
	b->scratch = mzm_alloc(64 * MZM_ACCUM_SCRATCH);
	b->every_other = mzm_alloc((size_t)b->n_rows * sizeof(int32_t));
	if (!b->w || !b->x || !b->y || !b->packed || !b->scratch || !b->every_other)
		return false;
	for (size_t i = 0; i < n * 4; i++) { /* small finite numbers in all three types */
		uint16_t h = (uint16_t)(0x2c00 + (i * 2654435761u >> 16 & 0x3ff));
		memcpy(b->w + 2 * i, &h, 2);
	}
	for (size_t i = 0; i < side * MZM_MAX_POS; i++)
		b->x[i] = (float)(i % 17) * 0.01f;
	for (int32_t i = 0; i < b->n_rows; i++)
		b->every_other[i] = 2 * i;
	return true;
}

int main(int argc, char **argv)
{
	bench *b = mzm_alloc(sizeof *b);
	mzm_team *team = NULL;
	mzm_err err = {0};
	if (!b || mzm_team_create(&team, argc > 1 ? atoi(argv[1]) : 0, &err) != MZM_OK) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	b->n_threads = mzm_team_size(team);
	b->n_rows = argc > 3 ? atoi(argv[2]) : 4096;
	b->n_cols = argc > 3 ? atoi(argv[3]) : 11008;
	b->n_rounds = argc > 4 ? atoi(argv[4]) : 7;
	if (b->n_rows < 2 || b->n_cols < 1 || b->n_rounds < 1 || b->n_rounds > MAX_ROUNDS || !make_data(b)) {
		fprintf(stderr, "bench_kern: wrong sizes or not enough memory\n");
		return 1;
	}
	list_lines(b, argc > 5 ? argv[5] : NULL, argc > 6 ? argv[6] : NULL);
	print_team_costs(team);
	for (int round = 0; round < b->n_rounds; round++)
		for (int i = 0; i < b->n_lines; i++)
			b->lines[i].seconds[round] = time_pass(b, team, &b->lines[i]);
	print_lines(b);
	mzm_free(b->w);
	mzm_free(b->x);
	mzm_free(b->y);
	mzm_free(b->packed);
	mzm_free(b->scratch);
	mzm_free(b->every_other);
	mzm_free(b);
	mzm_team_free(team);
	return 0;
}
