/* bench_input_major.c - what it costs to store a projection by its inputs instead of its outputs, and what skipping
 * inputs then saves (TEAL, arXiv 2408.14690).
 *
 * Usage: bench_input_major [threads [n_inputs n_outputs [rounds [type]]]]    (default: all cores, 4096 x 4096, 9, all)
 *
 * By outputs: rows(), a row an output, the layout of every matrix but down. By inputs: accum(), a row an input, in the
 * sections of the forward pass; a list names the inputs that are not zero. Each round runs every line once, the plain
 * read of the same bytes among them; medians over the rounds. Matrices take turns over 512 MiB, so that none is found
 * in a cache. "x rows" is the time in units of rows() at as many positions in the same run; "of rows 1" in units of
 * rows() with one position, that is of the dense token's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "kern/threads.h"

#define POOL_BYTES ((size_t)512 << 20)
#define SECTION    512 /* rows whose sums are taken together: MZM_SECTION of model/state.h */
#define MAX_LINES  64
#define MAX_ROUNDS 99
#define MAX_RANKS  64

typedef enum kind { READ, ROWS, ACCUM } kind;

typedef struct line {
	kind   kind;
	int    n_pos;
	double density; /* share of the inputs on the list; 1: no list */
	double seconds[MAX_ROUNDS];
} line;

typedef struct bench {
	const mzm_kern *kern;
	mzm_team *team;
	mzm_dtype dtype;
	int32_t   n_in, n_out;
	int       n_rounds, n_lines;
	char     *pool;    /* [POOL_BYTES] */
	size_t    turn;
	float    *x, *y;   /* [MZM_MAX_POS, n_in], [MZM_MAX_POS, n_out] */
	char     *packed;  /* [MZM_MAX_POS] positions */
	float    *scratch; /* [MAX_RANKS] of accum */
	int32_t  *list;    /* [n_in] */
	uint64_t  sink[MAX_RANKS];
	line      lines[MAX_LINES];
} bench;

/* ---- one pass ---- */

typedef struct pass {
	bench      *b;
	const line *l;
	const char *w;
	int32_t     n_list; /* 0: all */
} pass;

/* Eight sums, so that the additions do not wait for each other. */
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

static void by_outputs(const pass *p, mzm_team *team, int rank)
{
	const bench *b = p->b;
	int32_t begin, end;
	size_t ldx = mzm_pack_stride(b->kern, b->dtype, b->n_in);
	mzm_rows_job job = {.dtype = b->dtype, .w = p->w, .stride = mzm_row_bytes(b->dtype, b->n_in),
			    .n_rows = b->n_out, .n_cols = b->n_in, .x = b->packed, .ldx = ldx, .n_pos = p->l->n_pos,
			    .y = b->y, .ldy = (size_t)b->n_out};
	mzm_team_range(b->n_out, 16, rank, mzm_team_size(team), &begin, &end);
	b->kern->rows(&job, begin, end);
}

static void by_inputs(const pass *p, mzm_team *team, int rank)
{
	const bench *b = p->b;
	int32_t begin, end, n = p->n_list ? p->n_list : b->n_in;
	size_t stride = mzm_row_bytes(b->dtype, b->n_out);
	mzm_team_range(mzm_accum_units(b->dtype, b->n_out), 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t row = 0; row < n; row += SECTION) {
		int32_t some = n - row < SECTION ? n - row : SECTION;
		mzm_accum_job job = {
			.dtype = b->dtype, .w = p->n_list ? p->w : p->w + (size_t)row * stride, .stride = stride,
			.rows = p->n_list ? b->list + row : NULL, .n_rows = some, .n_cols = b->n_out, .a = b->x + row,
			.lda = (size_t)b->n_in, .n_pos = p->l->n_pos, .y = b->y, .ldy = (size_t)b->n_out,
			.scratch = b->scratch + (size_t)rank * (MZM_ACCUM_SCRATCH / sizeof(float))};
		b->kern->accum(&job, begin, end);
	}
}

static void run_part(void *ctx, mzm_team *team, int rank)
{
	pass *p = ctx;
	int32_t begin, end;
	size_t stride = mzm_row_bytes(p->b->dtype, p->b->n_in);
	if (p->l->kind == ROWS) {
		by_outputs(p, team, rank);
	} else if (p->l->kind == ACCUM) {
		by_inputs(p, team, rank);
	} else {
		mzm_team_range(p->b->n_out, 1, rank, mzm_team_size(team), &begin, &end);
		p->b->sink[rank] += read_bytes(p->w, (size_t)begin * stride, (size_t)end * stride);
	}
}

/* Another choice for every pass: which inputs are large changes from token to token. */
static int32_t choose(bench *b, double density)
{
	int32_t n = 0;
	for (int32_t i = 0; i < b->n_in && density < 1; i++) {
		b->list[n] = i;
		n += mzm_rng_unit(1, b->turn, (uint64_t)i) < density;
	}
	return n;
}

/* One thread is timed by its CPU time, which other programs cannot add to. */
static int64_t now_ns(const bench *b)
{
	struct timespec t;
	if (mzm_team_size(b->team) > 1)
		return mzm_now_ns();
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double time_pass(bench *b, const line *l)
{
	size_t by_out = (size_t)b->n_out * mzm_row_bytes(b->dtype, b->n_in);
	size_t by_in = (size_t)b->n_in * mzm_row_bytes(b->dtype, b->n_out), matrix = by_out > by_in ? by_out : by_in;
	pass p = {b, l, b->pool + b->turn++ % (POOL_BYTES / matrix) * matrix, choose(b, l->density)};
	for (int i = 0; i < l->n_pos; i++)
		b->kern->pack(b->packed + (size_t)i * mzm_pack_stride(b->kern, b->dtype, b->n_in),
			      b->x + (size_t)i * (size_t)b->n_in, b->dtype, b->n_in);
	int64_t start = now_ns(b);
	mzm_team_run(b->team, run_part, &p);
	return (double)(now_ns(b) - start) * 1e-9;
}

/* ---- all of them ---- */

static void add_line(bench *b, kind k, int n_pos, double density)
{
	b->lines[b->n_lines++] = (line){.kind = k, .n_pos = n_pos, .density = density};
}

static void list_lines(bench *b)
{
	static const int positions[] = {1, 2, 4, 8, 16, 32};
	static const double densities[] = {0.9, 0.65, 0.5, 0.35, 0.25};
	add_line(b, READ, 0, 1);
	for (size_t i = 0; i < sizeof positions / sizeof *positions; i++) {
		add_line(b, ROWS, positions[i], 1);
		add_line(b, ACCUM, positions[i], 1);
	}
	for (size_t i = 0; i < sizeof densities / sizeof *densities; i++)
		add_line(b, ACCUM, 1, densities[i]);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(const bench *b, line *l)
{
	qsort(l->seconds, (size_t)b->n_rounds, sizeof *l->seconds, by_value);
	return l->seconds[b->n_rounds / 2];
}

static void print_lines(bench *b)
{
	static const char *const names[] = {"read", "by outputs", "by inputs"};
	double of_rows[MZM_MAX_POS + 1] = {0}, read = median(b, &b->lines[0]);
	double bytes = (double)b->n_out * (double)mzm_row_bytes(b->dtype, b->n_in);
	printf("%s, %s\n%-26s %9s %8s %8s %9s %9s\n", mzm_dtype_name(b->dtype), b->kern->name, "", "ms", "GB/s",
	       "of read", "x rows", "of rows 1");
	for (int i = 0; i < b->n_lines; i++) {
		line *l = &b->lines[i];
		double s = i ? median(b, l) : read;
		if (l->kind == ROWS)
			of_rows[l->n_pos] = s;
		printf("%-10s %2d pos  share %.2f %9.3f %8.2f %7.0f%%", names[l->kind], l->n_pos, l->density, s * 1e3,
		       bytes * l->density / s * 1e-9, 100 * read * l->density / s);
		if (l->kind != READ)
			printf(" %9.2f %9.2f", s / of_rows[l->n_pos], s / of_rows[1]);
		printf("\n");
	}
}

static void run(bench *b, mzm_dtype dtype)
{
	b->dtype = dtype;
	b->n_lines = 0;
	list_lines(b);
	for (int round = -1; round < b->n_rounds; round++) /* the first round warms up */
		for (int i = 0; i < b->n_lines; i++)
			b->lines[i].seconds[round < 0 ? 0 : round] = time_pass(b, &b->lines[i]);
	print_lines(b);
}

/* ---- */

static bool make_data(bench *b)
{
	b->pool = mzm_alloc(POOL_BYTES);
	b->x = mzm_alloc((size_t)b->n_in * MZM_MAX_POS * sizeof(float));
	b->y = mzm_alloc((size_t)b->n_out * MZM_MAX_POS * sizeof(float));
	b->packed = mzm_alloc(MZM_MAX_POS * ((size_t)b->n_in * sizeof(float) + 2048));
	b->scratch = mzm_alloc(MAX_RANKS * MZM_ACCUM_SCRATCH);
	b->list = mzm_alloc((size_t)b->n_in * sizeof(int32_t));
	if (!b->pool || !b->x || !b->y || !b->packed || !b->scratch || !b->list)
		return false;
	for (size_t i = 0; i < POOL_BYTES / 2; i++) { /* small finite numbers in every type */
		uint16_t h = (uint16_t)(0x2c00 + (i * 2654435761u >> 16 & 0x3ff));
		memcpy(b->pool + 2 * i, &h, 2);
	}
	for (size_t i = 0; i < (size_t)b->n_in * MZM_MAX_POS; i++)
		b->x[i] = (float)(i % 17) * 0.01f;
	return true;
}

static void free_data(bench *b)
{
	mzm_free(b->pool);
	mzm_free(b->x);
	mzm_free(b->y);
	mzm_free(b->packed);
	mzm_free(b->scratch);
	mzm_free(b->list);
	mzm_team_free(b->team);
	mzm_free(b);
}

int main(int argc, char **argv)
{
	static const mzm_dtype types[] = {MZM_BF16, MZM_Q8, MZM_Q4};
	bench *b = mzm_alloc(sizeof *b);
	mzm_err err = {0};
	if (!b || mzm_team_create(&b->team, argc > 1 ? atoi(argv[1]) : 0, &err) != MZM_OK) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	b->kern = mzm_kern_find(NULL);
	b->n_in = argc > 3 ? atoi(argv[2]) : 4096;
	b->n_out = argc > 3 ? atoi(argv[3]) : 4096;
	b->n_rounds = argc > 4 ? atoi(argv[4]) : 9;
	bool fits = b->n_in >= 32 && b->n_out >= 32 && b->n_in % 32 == 0 && b->n_out % 32 == 0 &&
		    (size_t)b->n_in * (size_t)b->n_out <= POOL_BYTES / 8;
	if (!fits || b->n_rounds < 1 || b->n_rounds > MAX_ROUNDS || mzm_team_size(b->team) > MAX_RANKS ||
	    !make_data(b)) {
		fprintf(stderr, "bench_input_major: wrong sizes or not enough memory\n");
		return 1;
	}
	printf("%d threads, %d inputs, %d outputs, %d rounds\n", mzm_team_size(b->team), (int)b->n_in, (int)b->n_out,
	       b->n_rounds);
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (argc < 6 || strcmp(argv[5], mzm_dtype_name(types[i])) == 0)
			run(b, types[i]);
	free_data(b);
	return 0;
}
