/* peak.c - see peak.h. Reading is a sum of 64-bit words in vectors as wide as the CPU has; the sums are kept, so that
 * no compiler leaves the reading out. */
#include "kern/peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/half.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kern/gemm.h"

#define MIN_BUFFER   ((size_t)512 << 20)
#define MAX_BUFFER   ((size_t)64 << 30)
#define LINE         64   /* bytes of a cache line, and of a vector */
#define GRAIN        64   /* lines a thread takes at once */
#define AHEAD        64   /* lines to prefetch ahead: a page; half of it reads a tenth less */
#define SIDE         1024 /* of the square product */
#define N_PANELS     (SIDE / MZM_GEMM_COLS)
#define KERNEL_ROWS  128  /* of the row kernels' product: a matrix that stays in L2 */

typedef uint64_t lane8 __attribute__((vector_size(LINE), may_alias));

typedef uint64_t (*read_fn)(const lane8 *p, size_t n);

struct mzm_peak {
	mzm_team       *team;
	const mzm_kern *kern;
	read_fn         read;
	lane8          *buffer;   /* [n_lines] */
	int32_t         n_lines;
	int             n_ranks;
	uint64_t       *sum;      /* [n_ranks, 8]: a cache line each */
	mzm_gemm       *gemm;     /* bf16 products; NULL: this CPU, or this build, has none that are fast */
	uint16_t       *a16;      /* [SIDE, SIDE] bf16 */
	uint16_t       *panels;   /* [N_PANELS] of SIDE rows */
	float          *a, *b;    /* [SIDE, SIDE] */
	float          *c;        /* [n_ranks, SIDE, SIDE]; of panels [n_ranks, N_PANELS, SIDE, MZM_GEMM_COLS] */
	mzm_status     *status;   /* [n_ranks] */
	mzm_err         reason;   /* of the first rank */
};

/* ---- reading ---- */

/* Four sums, so that the additions do not wait for each other. n is a multiple of four. */
static inline __attribute__((always_inline)) uint64_t read_lines(const lane8 *p, size_t n)
{
	lane8 sum[4] = {{0}};
	for (size_t i = 0; i < n; i += 4) {
		for (size_t k = 0; k < 4; k++) {
			__builtin_prefetch((const void *)((uintptr_t)(p + i + k) + AHEAD * LINE), 0, 3);
			sum[k] += p[i + k];
		}
	}
	lane8 all = sum[0] + sum[1] + (sum[2] + sum[3]);
	uint64_t total = 0;
	for (int k = 0; k < 8; k++)
		total += all[k];
	return total;
}

static uint64_t read_plain(const lane8 *p, size_t n)
{
	return read_lines(p, n);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t read_avx2(const lane8 *p, size_t n)
{
	return read_lines(p, n);
}

__attribute__((target("avx512f"))) static uint64_t read_avx512(const lane8 *p, size_t n)
{
	return read_lines(p, n);
}

static read_fn widest(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx512f") ? read_avx512
	       : __builtin_cpu_supports("avx2")	 ? read_avx2
						 : read_plain;
}
#else
static read_fn widest(void)
{
	return read_plain;
}
#endif

static void read_part(void *ctx, mzm_team *team, int rank)
{
	mzm_peak *p = ctx;
	int32_t begin, end;
	mzm_team_range(p->n_lines, GRAIN, rank, mzm_team_size(team), &begin, &end);
	p->sum[(size_t)rank * 8] = p->read(p->buffer + begin, (size_t)(end - begin));
}

void mzm_peak_read(mzm_peak *p)
{
	memset(p->sum, 0, (size_t)p->n_ranks * LINE); /* a smaller team leaves some out */
	mzm_team_run(p->team, read_part, p);
}

size_t mzm_peak_read_bytes(const mzm_peak *p)
{
	return (size_t)p->n_lines * LINE;
}

uint64_t mzm_peak_read_sum(const mzm_peak *p)
{
	uint64_t sum = 0;
	for (int r = 0; r < p->n_ranks; r++)
		sum += p->sum[(size_t)r * 8];
	return sum;
}

/* ---- multiplying ---- */

/* The square product, a panel of outputs after the other. */
static mzm_status multiply_bf16(const mzm_peak *p, int rank, float *c, mzm_err *err)
{
	for (size_t i = 0; i < N_PANELS; i++)
		MZM_TRY(mzm_gemm_run(p->gemm, rank, c + i * SIDE * MZM_GEMM_COLS, p->a16,
				     p->panels + i * mzm_gemm_panel_len(SIDE), err));
	return MZM_OK;
}

static void multiply_rows(const mzm_peak *p, float *c)
{
	for (int32_t i = 0; i < SIDE / KERNEL_ROWS; i++) {
		mzm_rows_job job = {.dtype = MZM_F32, .w = p->a, .stride = SIDE * sizeof(float), .n_rows = KERNEL_ROWS,
				    .n_cols = SIDE, .x = p->b, .ldx = SIDE, .n_pos = MZM_MAX_POS, .y = c, .ldy = SIDE};
		p->kern->rows(&job, 0, KERNEL_ROWS);
	}
}

static void matmul_part(void *ctx, mzm_team *team, int rank)
{
	mzm_peak *p = ctx;
	float *c = p->c + (size_t)rank * SIDE * SIDE;
	mzm_err *err = rank == 0 ? &p->reason : NULL;
	(void)team;
	if (p->gemm)
		p->status[rank] = multiply_bf16(p, rank, c, err);
	else if (mzm_gemm_available())
		p->status[rank] = mzm_gemm_nt(c, SIDE, p->a, SIDE, p->b, SIDE, SIDE, SIDE, SIDE, err);
	else
		multiply_rows(p, c);
}

mzm_status mzm_peak_matmul(mzm_peak *p, mzm_err *err)
{
	memset(&p->reason, 0, sizeof p->reason);
	memset(p->status, 0, (size_t)p->n_ranks * sizeof *p->status);
	mzm_team_run(p->team, matmul_part, p);
	for (int r = 0; r < p->n_ranks; r++) {
		if (p->status[r] != MZM_OK)
			return mzm_fail(err, p->status[r], "%s",
					p->reason.code ? p->reason.message : "a matrix product failed");
	}
	return MZM_OK;
}

double mzm_peak_matmul_flop(const mzm_peak *p)
{
	double n_pos = mzm_gemm_available() ? SIDE : MZM_MAX_POS;
	return 2.0 * SIDE * SIDE * n_pos * p->n_ranks;
}

const char *mzm_peak_matmul_name(const mzm_peak *p)
{
	if (p->gemm)
		return "bf16, oneDNN";
	return mzm_gemm_available() ? "f32, oneDNN" : "f32, row kernels at 32 positions";
}

/* ---- life ---- */

/* Of the first core: what its threads share. sysconf, on some machines, adds up all caches of a package. */
static size_t cache_by_system(void)
{
	char path[80], text[32];
	size_t bytes = 0;
	for (int i = 0; i < 8; i++) {
		char *end;
		snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
		if (!mzm_read_small_text(path, text, sizeof text))
			break;
		size_t size = (size_t)strtoull(text, &end, 10); /* before its end is looked at */
		size <<= *end == 'G' ? 30 : *end == 'M' ? 20 : 10;
		bytes = size > bytes ? size : bytes;
	}
	return bytes;
}

size_t mzm_cache_bytes(void)
{
	long bytes = (long)cache_by_system();
#ifdef _SC_LEVEL3_CACHE_SIZE
	if (bytes <= 0)
		bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
#ifdef _SC_LEVEL2_CACHE_SIZE
	if (bytes <= 0)
		bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
	return bytes > 0 ? (size_t)bytes : 0;
}

/* What the system could give without swapping; SIZE_MAX when it does not say. */
static size_t available_bytes(void)
{
	char text[512]; /* the line is one of the first */
	const char *line = NULL;
	if (mzm_read_small_text("/proc/meminfo", text, sizeof text))
		line = strstr(text, "MemAvailable:");
	return line ? (size_t)strtoull(line + strlen("MemAvailable:"), NULL, 10) << 10 : SIZE_MAX;
}

/* Chosen here, it takes no more than a quarter of what is left: a large model may be in memory. */
static size_t choose_size(void)
{
	size_t cache = mzm_cache_bytes(), quarter = available_bytes() / 4, bytes = MIN_BUFFER;
	if (cache < MAX_BUFFER / 4 && 4 * cache > bytes)
		bytes = 4 * cache;
	return bytes < quarter ? bytes : quarter;
}

static size_t buffer_size(size_t wanted)
{
	size_t bytes = wanted ? wanted : choose_size();
	bytes = bytes < MAX_BUFFER ? bytes : MAX_BUFFER;
	return bytes < GRAIN * LINE ? GRAIN * LINE : bytes / (GRAIN * LINE) * (GRAIN * LINE);
}

/* Written by the threads that will read it, each its own part. */
static void fill_part(void *ctx, mzm_team *team, int rank)
{
	mzm_peak *p = ctx;
	int32_t begin, end;
	mzm_team_range(p->n_lines, GRAIN, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i++)
		for (int k = 0; k < 8; k++)
			p->buffer[i][k] = (uint64_t)i * 8 + (uint64_t)k + 1;
}

static void fill_matrices(mzm_peak *p)
{
	for (size_t i = 0; i < (size_t)SIDE * SIDE; i++) {
		p->a[i] = (float)mzm_rng_unit(1, 0, i) - 0.5f;
		p->b[i] = (float)mzm_rng_unit(2, 0, i) - 0.5f;
		if (p->gemm)
			p->a16[i] = mzm_f32_to_bf16(p->a[i]);
	}
	for (size_t i = 0; p->gemm && i < N_PANELS; i++)
		mzm_gemm_pack_nt(p->panels + i * mzm_gemm_panel_len(SIDE), p->a16 + i * MZM_GEMM_COLS * SIDE,
				 SIDE * sizeof *p->a16, MZM_GEMM_COLS, SIDE, SIDE);
}

/* bf16 products where there are fast ones. */
static mzm_status allocate_bf16(mzm_peak *p, mzm_err *err)
{
	mzm_err why = {0};
	mzm_status st = mzm_gemm_create(&p->gemm, SIDE, SIDE, p->n_ranks, &why);
	if (st == MZM_EUNSUPPORTED)
		return MZM_OK;
	if (st != MZM_OK)
		return mzm_fail(err, st, "%s", why.message);
	MZM_TRY(mzm_alloc_for((void **)&p->a16, (size_t)SIDE * SIDE * sizeof *p->a16, "the matmul peak", err));
	return mzm_alloc_for((void **)&p->panels, N_PANELS * mzm_gemm_panel_len(SIDE) * sizeof *p->panels,
			     "the matmul peak", err);
}

static mzm_status allocate(mzm_peak *p, size_t bytes, mzm_err *err)
{
	size_t square = (size_t)SIDE * SIDE * sizeof(float), ranks = (size_t)p->n_ranks;
	MZM_TRY(mzm_alloc_for((void **)&p->buffer, bytes, "the buffer of the read peak", err));
	MZM_TRY(mzm_alloc_for((void **)&p->sum, ranks * LINE, "the sums of the read peak", err));
	MZM_TRY(mzm_alloc_for((void **)&p->a, square, "the matmul peak", err));
	MZM_TRY(mzm_alloc_for((void **)&p->b, square, "the matmul peak", err));
	MZM_TRY(mzm_alloc_for((void **)&p->c, ranks * square, "the matmul peak", err));
	MZM_TRY(mzm_alloc_for((void **)&p->status, ranks * sizeof *p->status, "the matmul peak", err));
	return allocate_bf16(p, err);
}

mzm_status mzm_peak_create(mzm_peak **out, mzm_team *team, const mzm_kern *kern, size_t buffer_bytes, mzm_err *err)
{
	mzm_peak *p;
	size_t bytes = buffer_size(buffer_bytes);
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&p, sizeof *p, "the peaks", err));
	p->team = team;
	p->kern = kern;
	p->read = widest();
	p->n_lines = (int32_t)(bytes / LINE);
	p->n_ranks = mzm_team_size(team);
	mzm_status st = allocate(p, bytes, err);
	if (st != MZM_OK) {
		mzm_peak_free(p);
		return st;
	}
	mzm_team_run(team, fill_part, p);
	fill_matrices(p);
	*out = p;
	return MZM_OK;
}

void mzm_peak_free(mzm_peak *p)
{
	if (!p)
		return;
	mzm_free(p->buffer);
	mzm_free(p->sum);
	mzm_gemm_free(p->gemm);
	mzm_free(p->a16);
	mzm_free(p->panels);
	mzm_free(p->a);
	mzm_free(p->b);
	mzm_free(p->c);
	mzm_free(p->status);
	mzm_free(p);
}
