/* gemm_pack.c - see gemm.h: panels of weights for oneDNN.
 *
 * A chunk of positions reads each panel once and a panel is written once, so packing costs one read of the weights and
 * one write to the cache: some 6 % of the product at 512 positions. A pair of bf16 moves as one 32-bit word. With a
 * row an output the words of eight rows are transposed in registers, eight by eight; with a row an input the words are
 * woven from two rows. Nothing is computed, so all paths give the same bytes. */
#include "kern/gemm.h"

#include <string.h>

#define TILE_ROWS 8
#define TILE_LEN  32 /* weights of a row in a tile: 64 bytes, a cache line */

static void tile_plain(uint16_t *to, const char *from, size_t stride)
{
	for (size_t i = 0; i < TILE_ROWS; i++)
		for (size_t k = 0; k < TILE_LEN / 2; k++)
			memcpy(to + 2 * (MZM_GEMM_COLS * k + i), from + i * stride + 4 * k, 4);
}

static void weave_plain(uint16_t *to, const uint16_t *even, const uint16_t *odd)
{
	for (int j = 0; j < MZM_GEMM_COLS; j++) {
		to[2 * j] = even[j];
		to[2 * j + 1] = odd[j];
	}
}

#if defined(__x86_64__)
#include <immintrin.h>

#define AHEAD 512 /* bytes of a row: far enough for memory to answer, near enough to stay in L1 */

/* Eight rows of eight words to eight columns. */
__attribute__((target("avx2"), always_inline)) static inline void transpose(uint16_t *to, const __m256i *r)
{
	__m256i t[8], u[8];
	for (int i = 0; i < 4; i++) {
		t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
		t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
	}
	for (int i = 0; i < 8; i += 4) {
		u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
		u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
		u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
		u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
	}
	for (int i = 0; i < 4; i++) {
		__m256i low = _mm256_permute2x128_si256(u[i], u[4 + i], 0x20);
		__m256i high = _mm256_permute2x128_si256(u[i], u[4 + i], 0x31);
		_mm256_storeu_si256((__m256i *)(void *)(to + 2 * MZM_GEMM_COLS * i), low);
		_mm256_storeu_si256((__m256i *)(void *)(to + 2 * MZM_GEMM_COLS * (4 + i)), high);
	}
}

__attribute__((target("avx2"))) static void tile_avx2(uint16_t *to, const char *from, size_t stride)
{
	__m256i left[TILE_ROWS], right[TILE_ROWS];
	for (int i = 0; i < TILE_ROWS; i++) {
		const char *row = from + (size_t)i * stride;
		left[i] = _mm256_loadu_si256((const __m256i *)(const void *)row);
		right[i] = _mm256_loadu_si256((const __m256i *)(const void *)(row + 32));
		_mm_prefetch(row + AHEAD, _MM_HINT_T0);
	}
	transpose(to, left);
	transpose(to + 2 * MZM_GEMM_COLS * 8, right);
}

__attribute__((target("avx2"))) static void weave_avx2(uint16_t *to, const uint16_t *even, const uint16_t *odd)
{
	for (int j = 0; j < MZM_GEMM_COLS; j += 16) {
		__m256i e = _mm256_loadu_si256((const __m256i *)(const void *)(even + j));
		__m256i o = _mm256_loadu_si256((const __m256i *)(const void *)(odd + j));
		__m256i low = _mm256_unpacklo_epi16(e, o), high = _mm256_unpackhi_epi16(e, o);
		__m256i *at = (__m256i *)(void *)(to + 2 * j);
		_mm256_storeu_si256(at, _mm256_permute2x128_si256(low, high, 0x20));
		_mm256_storeu_si256(at + 1, _mm256_permute2x128_si256(low, high, 0x31));
	}
}

static bool has_vectors(void)
{
	return __builtin_cpu_supports("avx2");
}
#else
#define tile_avx2  tile_plain
#define weave_avx2 weave_plain

static bool has_vectors(void)
{
	return false;
}
#endif

/* What a tile at the edge has of rows and weights, zeros behind. */
static void tile_edge(uint16_t *to, const char *from, size_t stride, int32_t n, int32_t k)
{
	uint16_t copy[TILE_ROWS][TILE_LEN] = {{0}};
	for (int32_t i = 0; i < n && k > 0; i++)
		memcpy(copy[i], from + (size_t)i * stride, (size_t)k * sizeof(uint16_t));
	tile_plain(to, (const char *)copy, sizeof copy[0]);
}

void mzm_gemm_pack_nt(uint16_t *panel, const void *rows, size_t stride, int32_t n, int32_t k, int32_t depth)
{
	bool vectors = has_vectors();
	for (int32_t i = 0; i < MZM_GEMM_COLS; i += TILE_ROWS) {
		int32_t n_rows = n - i < TILE_ROWS ? n - i : TILE_ROWS;
		const char *from = (const char *)rows + (size_t)i * stride;
		uint16_t *to = panel + 2 * (size_t)i;
		for (int32_t j = 0; j < depth; j += TILE_LEN, from += TILE_LEN * sizeof *to) {
			int32_t len = k - j < TILE_LEN ? k - j : TILE_LEN;
			if (n_rows < TILE_ROWS || len < TILE_LEN)
				tile_edge(to, from, stride, n_rows, len);
			else if (vectors)
				tile_avx2(to, from, stride);
			else
				tile_plain(to, from, stride);
			to += mzm_gemm_panel_len(TILE_LEN);
		}
	}
}

/* Row j of n weights, or a copy with zeros behind n and for rows from k on. */
static const uint16_t *whole_row(uint16_t *copy, const void *rows, size_t stride, int32_t j, int32_t n, int32_t k)
{
	const char *row = (const char *)rows + (size_t)j * stride;
	if (j < k && n == MZM_GEMM_COLS)
		return (const uint16_t *)(const void *)row;
	memset(copy, 0, MZM_GEMM_COLS * sizeof *copy);
	if (j < k)
		memcpy(copy, row, (size_t)n * sizeof *copy);
	return copy;
}

void mzm_gemm_pack_nn(uint16_t *panel, const void *rows, size_t stride, int32_t n, int32_t k, int32_t depth)
{
	bool vectors = has_vectors();
	const int32_t ahead = 16; /* rows: each lies on a page of its own, where no hardware looks ahead */
	for (int32_t j = 0; j < depth; j += 2, panel += 2 * MZM_GEMM_COLS) {
		uint16_t copy[2][MZM_GEMM_COLS];
		for (int32_t r = j + ahead; r < j + ahead + 2 && r < k; r++) {
			__builtin_prefetch((const char *)rows + (size_t)r * stride);
			__builtin_prefetch((const char *)rows + (size_t)r * stride + 64);
		}
		const uint16_t *even = whole_row(copy[0], rows, stride, j, n, k);
		const uint16_t *odd = whole_row(copy[1], rows, stride, j + 1, n, k);
		if (vectors)
			weave_avx2(panel, even, odd);
		else
			weave_plain(panel, even, odd);
	}
}
