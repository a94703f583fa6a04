/* body_matrix.h - the two matrix products over vec_*.h; compiled once per instruction set.
 *
 * Workload: a weight matrix far larger than the caches, read once, against 1..32 positions. A register tile of rows
 * x positions holds one v16 sum per output, the sum kern.h prescribes; tiles differ in which outputs run side by
 * side, never in how one of them is summed. The tiles of all positions follow each other over the same few rows, so
 * the weights come from memory once and from L1 afterwards. */
#ifndef MZM_BODY_MATRIX_H
#define MZM_BODY_MATRIX_H

#include <string.h>

#include "kern/kern.h"

/* The sums of a tile only become registers when the loops over them vanish. Not where that gains nothing, or where a
 * sanitizer's checks would be unrolled with them (minutes to compile). */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(VEC_IS_ARRAY) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
	__has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UNROLL
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#define MAX_SUMS 16 /* of a tile */
#define MAX_SIDE 8

VEC size_t elem_bytes(mzm_dtype dtype)
{
	return dtype == MZM_F32 ? 4 : 2;
}

/* Sixteen weights from column c on. */
VEC v16 load_w(const char *row, int32_t c, mzm_dtype dtype)
{
	const char *p = row + (size_t)c * elem_bytes(dtype);
	if (dtype == MZM_BF16)
		return v16_load_bf16(p);
	return dtype == MZM_F16 ? v16_load_f16(p) : v16_load((const float *)(const void *)p);
}

/* The n < 16 weights from column c on, then zeros. */
VEC v16 load_w_tail(const char *row, int32_t c, int32_t n, mzm_dtype dtype)
{
	const char *p = row + (size_t)c * elem_bytes(dtype);
	if (dtype == MZM_BF16)
		return v16_load_bf16_tail(p, n);
	return dtype == MZM_F16 ? v16_load_f16_tail(p, n) : v16_load_tail((const float *)(const void *)p, n, 0.0f);
}

/* The i-th row of a list, or row i where there is none. */
VEC const char *row_at(const void *w, size_t stride, const int32_t *rows, int32_t i)
{
	return (const char *)w + (size_t)(rows ? rows[i] : i) * stride;
}

/* ---- rows ---- */

/* Columns c .. c+15, or the last `left` < 16 of them, into the sums of a tile. */
VEC void rows_step(v16 *sum, const char *const *w, const float *x, size_t ldx, int32_t c, int32_t left, int n_r,
		   int n_p, mzm_dtype dtype)
{
	v16 wide[MAX_SIDE];
	UNROLL
	for (int r = 0; r < n_r; r++)
		wide[r] = left < 16 ? load_w_tail(w[r], c, left, dtype) : load_w(w[r], c, dtype);
	UNROLL
	for (int p = 0; p < n_p; p++) {
		const float *at = x + (size_t)p * ldx + c;
		v16 xs = left < 16 ? v16_load_tail(at, left, 0.0f) : v16_load(at);
		UNROLL
		for (int r = 0; r < n_r; r++)
			sum[r * n_p + p] = v16_fma(wide[r], xs, sum[r * n_p + p]);
	}
}

/* With one position, where memory alone sets the pace, a little ahead in the same row is what to prefetch, into L1.
 * With several there is time for the rows that come next, wherever a list has them; into L2, as rows that lie a power
 * of two apart would push each other out of L1. */
#define AHEAD_BYTES 1024

/* An address as an integer, as it may point behind the matrix. */
VEC void prefetch(uintptr_t address, int n_p)
{
	if (n_p == 1)
		__builtin_prefetch((const void *)address, 0, 3);
	else
		__builtin_prefetch((const void *)address, 0, 2);
}

/* Where list entry i looks ahead when the tile or group holds n_rows entries. */
VEC uintptr_t look_ahead(const void *w, size_t stride, const int32_t *rows, int32_t n_list, int32_t i, int32_t n_rows,
			 int n_p)
{
	if (n_p > 1 && i + n_rows < n_list)
		return (uintptr_t)row_at(w, stride, rows, i + n_rows);
	return (uintptr_t)row_at(w, stride, rows, i) + AHEAD_BYTES;
}

/* Folds the sums of a tile, [n_r, n_p], into y. */
VEC void store_sums(const mzm_rows_job *job, const v16 *sum, int32_t i, int32_t p0, int n_r, int n_p)
{
	UNROLL
	for (int p = 0; p < n_p; p++) {
		float *y = job->y + (size_t)(p0 + p) * job->ldy + (size_t)i;
		UNROLL
		for (int r = 0; r + 4 <= n_r; r += 4)
			v16_store_fold4(y + r, sum + r * n_p + p, (size_t)n_p);
		UNROLL
		for (int r = n_r / 4 * 4; r < n_r; r++)
			y[r] = v16_fold_add(sum[r * n_p + p]);
	}
}

/* The tiles that pass over the same rows share the fetching evenly, as memory only delivers so fast: tile t of n looks
 * ahead for rows [*r0, *r1) of n_r. */
VEC void fetch_share(int32_t t, int32_t n, int n_r, int *r0, int *r1)
{
	*r0 = n_r * t / n;
	*r1 = n_r * (t + 1) / n;
}

/* Outputs of n_r list entries from i on and n_p positions from p0 on; n_r, n_p and dtype are constants. */
VEC void rows_tile(const mzm_rows_job *job, int32_t i, int32_t p0, int n_r, int n_p, mzm_dtype dtype)
{
	const char *w[MAX_SIDE];
	uintptr_t ahead[MAX_SIDE];
	int r0, r1;
	size_t ldx = job->ldx / sizeof(float), line = 64 / elem_bytes(dtype);
	const float *x = (const float *)job->x + (size_t)p0 * ldx;
	int32_t c = 0, n_cols = job->n_cols;
	v16 sum[MAX_SUMS];
	UNROLL
	for (int r = 0; r < n_r; r++) {
		w[r] = row_at(job->w, job->stride, job->rows, i + r);
		ahead[r] = look_ahead(job->w, job->stride, job->rows, job->n_rows, i + r, n_r, n_p);
	}
	UNROLL
	for (int k = 0; k < n_r * n_p; k++)
		sum[k] = v16_set1(0.0f);
	fetch_share(p0 / VEC_POS, (job->n_pos + VEC_POS - 1) / VEC_POS, n_r, &r0, &r1);
	for (; r0 < r1 && c + (int32_t)line <= n_cols; c += (int32_t)line) {
		UNROLL
		for (int r = 0; r < n_r; r++)
			if (r0 <= r && r < r1)
				prefetch(ahead[r] + (size_t)c * elem_bytes(dtype), n_p);
		UNROLL
		for (int32_t k = 0; k < (int32_t)line; k += 16)
			rows_step(sum, w, x, ldx, c + k, 16, n_r, n_p, dtype);
	}
	for (; c + 16 <= n_cols; c += 16)
		rows_step(sum, w, x, ldx, c, 16, n_r, n_p, dtype);
	if (c < n_cols)
		rows_step(sum, w, x, ldx, c, n_cols - c, n_r, n_p, dtype);
	store_sums(job, sum, i, p0, n_r, n_p);
}

typedef void (*rows_fn)(const mzm_rows_job *job, int32_t i, int32_t p);

typedef struct row_tiles {
	int32_t decode_rows;
	rows_fn decode; /* so many rows x 1 position */
	rows_fn pos[4]; /* VEC_ROWS rows x 1 .. 4 positions */
	rows_fn single; /* 1 row x 1 position */
} row_tiles;

#define ROWS_TILE(name, n_r, n_p, dtype)                                 \
	static void name(const mzm_rows_job *job, int32_t i, int32_t p)  \
	{                                                                \
		rows_tile(job, i, p, n_r, n_p, dtype);                   \
	}
#define ROWS_TILES(t, dtype)                                     \
	ROWS_TILE(rows_##t##_decode, VEC_DECODE_ROWS, 1, dtype)  \
	ROWS_TILE(rows_##t##_1, VEC_ROWS, 1, dtype)              \
	ROWS_TILE(rows_##t##_2, VEC_ROWS, 2, dtype)              \
	ROWS_TILE(rows_##t##_3, VEC_ROWS, 3, dtype)              \
	ROWS_TILE(rows_##t##_4, VEC_ROWS, 4, dtype)              \
	ROWS_TILE(rows_##t##_single, 1, 1, dtype)
#define ROWS_ENTRY(t, n_decode)                                                     \
	{                                                                           \
		n_decode, rows_##t##_decode,                                                \
			{rows_##t##_1, rows_##t##_2, rows_##t##_3, rows_##t##_4}, rows_##t##_single \
	}

/* All positions of VEC_ROWS rows from i on. */
static void rows_strip(const mzm_rows_job *job, const row_tiles *t, int32_t i)
{
	for (int32_t p = 0; p < job->n_pos; p += VEC_POS) {
		int32_t n = job->n_pos - p < VEC_POS ? job->n_pos - p : VEC_POS;
		t->pos[n - 1](job, i, p);
	}
}

/* The last tile may overlap the one before: an output computed twice is the same twice. Ranges of fewer rows than a
 * tile go one by one. */
static void rows_tiled(const mzm_rows_job *job, const row_tiles *t, int32_t i0, int32_t i1)
{
	int32_t i = i0;
	if (job->n_pos == 1)
		for (; i1 - i >= t->decode_rows; i += t->decode_rows)
			t->decode(job, i, 0);
	for (; i1 - i >= VEC_ROWS; i += VEC_ROWS)
		rows_strip(job, t, i);
	if (i < i1 && i1 - i0 >= VEC_ROWS) {
		rows_strip(job, t, i1 - VEC_ROWS);
		return;
	}
	for (; i < i1; i++)
		for (int32_t p = 0; p < job->n_pos; p++)
			t->single(job, i, p);
}

/* ---- accum ---- */

/* Rows of one group: sums are loaded and stored once per group, and each row is a stream of reading. */
#define GROUP_MAX 32

typedef struct group {
	const char  *w[GROUP_MAX];
	uintptr_t    ahead[GROUP_MAX];
	const float *a; /* [n_pos, lda], from the group's first row on */
	int32_t      n;
} group;

/* Adds a group of rows to the units [u0, u1) of all positions; sum: [n_pos, ld] from unit u0 on. */
typedef void (*add_fn)(float *sum, size_t ld, const mzm_accum_job *job, const group *g, int32_t u0, int32_t u1);

typedef struct accum_format {
	int32_t unit; /* floats of a unit in the scratch */
	int32_t one, several; /* rows of a group for one position, and for more: even, at most GROUP_MAX */
	add_fn  add;
	void (*finish)(float *y, const float *sum, int32_t n_cols, int32_t u); /* adds a unit's sums to its columns */
} accum_format;

/* `size` list entries from i on, or those that are left. */
static group make_group(const mzm_accum_job *job, int32_t i, int32_t size)
{
	group g = {.a = job->a + i, .n = job->n_rows - i < size ? job->n_rows - i : size};
	for (int32_t k = 0; k < g.n; k++) {
		g.w[k] = row_at(job->w, job->stride, job->rows, i + k);
		g.ahead[k] = look_ahead(job->w, job->stride, job->rows, job->n_rows, i + k, size, 2);
	}
	return g;
}

#define PAD 16 /* floats: positions a power of two apart would want the same places in L1 */

/* Units u0 .. u1-1, as many at a time as the scratch holds. */
static void accum_units(const mzm_accum_job *job, const accum_format *f, int32_t u0, int32_t u1)
{
	int32_t room = ((int32_t)(MZM_ACCUM_SCRATCH / sizeof(float)) / job->n_pos - PAD) / f->unit;
	int32_t size = job->n_pos == 1 ? f->one : f->several;
	for (int32_t u = u0, end; u < u1; u = end) {
		end = u1 - u < room ? u1 : u + room;
		size_t ld = (size_t)(end - u) * (size_t)f->unit + PAD;
		memset(job->scratch, 0, ld * (size_t)job->n_pos * sizeof(float));
		for (int32_t i = 0; i < job->n_rows; i += size) {
			group g = make_group(job, i, size);
			f->add(job->scratch, ld, job, &g, u, end);
		}
		for (int32_t p = 0; p < job->n_pos; p++)
			for (int32_t k = u; k < end; k++)
				f->finish(job->y + (size_t)p * job->ldy,
					  job->scratch + (size_t)p * ld + (size_t)(k - u) * (size_t)f->unit,
					  job->n_cols, k);
	}
}

/* The cache lines of n_c vectors from column c on. */
VEC void prefetch_w(uintptr_t row, int32_t c, int n_p, int n_c, mzm_dtype dtype)
{
	uintptr_t at = row + (size_t)c * elem_bytes(dtype);
	UNROLL
	for (size_t k = 0; k < (size_t)n_c * 16 * elem_bytes(dtype); k += 64)
		prefetch(at + k, n_p);
}

/* Adds a group of rows to n_p positions from p0 on, n_c vectors from column c on; with n_c == 1 only the `left`
 * columns that there are. sum: [n_p, ld] from that column on. n_p, n_c and dtype are constants. */
VEC void accum_tile(float *y, size_t ld, const mzm_accum_job *job, const group *g, int32_t p0, int32_t c, int32_t left,
		    int n_p, int n_c, mzm_dtype dtype)
{
	const float *a = g->a + (size_t)p0 * job->lda;
	size_t lda = job->lda;
	bool tail = n_c == 1 && left < 16;
	v16 sum[MAX_SUMS];
	UNROLL
	for (int k = 0; k < n_p * n_c; k++)
		sum[k] = v16_load(y + (size_t)(k / n_c) * ld + 16 * (k % n_c));
	for (int32_t i = 0; i < g->n; i++) {
		v16 wide[MAX_SIDE];
		UNROLL
		for (int k = 0; k < n_c; k++)
			wide[k] = tail ? load_w_tail(g->w[i], c, left, dtype) : load_w(g->w[i], c + 16 * k, dtype);
		if (p0 == 0)
			prefetch_w(g->ahead[i], c, 1, n_c, dtype);
		UNROLL
		for (int p = 0; p < n_p; p++) {
			v16 as = v16_set1(a[(size_t)p * lda + (size_t)i]);
			UNROLL
			for (int k = 0; k < n_c; k++)
				sum[p * n_c + k] = v16_fma(as, wide[k], sum[p * n_c + k]);
		}
	}
	UNROLL
	for (int k = 0; k < n_p * n_c; k++)
		v16_store(y + (size_t)(k / n_c) * ld + 16 * (k % n_c), sum[k]);
}

#define UNIT_COLS 64

/* n_p positions from p0 on, the columns of units [u0, u1). */
typedef void (*accum_fn)(float *sum, size_t ld, const mzm_accum_job *job, const group *g, int32_t p0, int32_t u0,
			 int32_t u1);

#define ACCUM_STRIP(name, n_p, dtype)                                                                                \
	static void name(float *sum, size_t ld, const mzm_accum_job *job, const group *g, int32_t p0, int32_t u0,    \
			 int32_t u1)                                                                                 \
	{                                                                                                            \
		int32_t c = u0 * UNIT_COLS, c0 = c, c1 = job->n_cols < u1 * UNIT_COLS ? job->n_cols : u1 * UNIT_COLS; \
		for (; c1 - c >= 16 * VEC_COLS; c += 16 * VEC_COLS)                                                  \
			accum_tile(sum + (c - c0), ld, job, g, p0, c, 16, n_p, VEC_COLS, dtype);                     \
		for (; c < c1; c += 16)                                                                              \
			accum_tile(sum + (c - c0), ld, job, g, p0, c, c1 - c, n_p, 1, dtype);                        \
	}
/* All positions. */
#define ACCUM_ADD(t, dtype)                                                                                          \
	ACCUM_STRIP(accum_##t##_1, 1, dtype)                                                                         \
	ACCUM_STRIP(accum_##t##_2, 2, dtype)                                                                         \
	ACCUM_STRIP(accum_##t##_3, 3, dtype)                                                                         \
	ACCUM_STRIP(accum_##t##_4, 4, dtype)                                                                         \
	static void add_##t(float *sum, size_t ld, const mzm_accum_job *job, const group *g, int32_t u0, int32_t u1) \
	{                                                                                                            \
		static const accum_fn fn[4] = {accum_##t##_1, accum_##t##_2, accum_##t##_3, accum_##t##_4};          \
		for (int32_t p = 0; p < job->n_pos; p += VEC_POS) {                                                  \
			int32_t n = job->n_pos - p < VEC_POS ? job->n_pos - p : VEC_POS;                             \
			fn[n - 1](sum + (size_t)p * ld, ld, job, g, p, u0, u1);                                      \
		}                                                                                                    \
	}

static void finish_cols(float *y, const float *sum, int32_t n_cols, int32_t u)
{
	int32_t c = u * UNIT_COLS, n = n_cols - c < UNIT_COLS ? n_cols - c : UNIT_COLS;
	int32_t i = 0;
	for (; i + 16 <= n; i += 16)
		v16_store(y + c + i, v16_add(v16_load(y + c + i), v16_load(sum + i)));
	for (; i < n; i++)
		y[c + i] += sum[i];
}

#endif
