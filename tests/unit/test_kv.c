/* test_kv.c - the KV cache against a plain array under random programs of append and truncate. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/kv.h"

enum { LAYERS = 3, HEADS = 2, DIM = 5, MAX = 40, ROWS = LAYERS * HEADS, MAX_BYTES = DIM * 4 };

static const mzm_dtype types[] = {MZM_F32, MZM_F16, MZM_BF16};

/* What the cache must hold: the bytes of every row, in places of its own. */
typedef struct plain {
	uint8_t k[MAX][ROWS][MAX_BYTES], v[MAX][ROWS][MAX_BYTES];
} plain;

/* Writes token t's rows from a seed, as a pass would. */
static void write_token(mzm_kv *kv, plain *m, int t, uint64_t seed)
{
	for (int r = 0; r < ROWS; r++) {
		for (size_t i = 0; i < kv->row_bytes; i++) {
			m->k[t][r][i] = (uint8_t)mzm_rng_u64(seed, 1, (uint64_t)r * 64 + i);
			m->v[t][r][i] = (uint8_t)mzm_rng_u64(seed, 2, (uint64_t)r * 64 + i);
		}
		memcpy(mzm_kv_k(kv, r / HEADS, r % HEADS, t), m->k[t][r], kv->row_bytes);
		memcpy(mzm_kv_v(kv, r / HEADS, r % HEADS, t), m->v[t][r], kv->row_bytes);
	}
}

static bool same(mzm_kv *kv, const plain *m)
{
	for (int t = 0; t < kv->len; t++)
		for (int r = 0; r < ROWS; r++)
			if (memcmp(mzm_kv_k(kv, r / HEADS, r % HEADS, t), m->k[t][r], kv->row_bytes) != 0 ||
			    memcmp(mzm_kv_v(kv, r / HEADS, r % HEADS, t), m->v[t][r], kv->row_bytes) != 0)
				return false;
	return true;
}

/* With planted_at >= 0 the model forgets one truncation; the comparison must then fail. */
static bool random_program(uint64_t seed, mzm_dtype type, int planted_at)
{
	static plain m;
	const mzm_config cfg = {.n_layers = LAYERS, .n_kv_heads = HEADS, .head_dim = DIM};
	mzm_kv *kv;
	int len = 0;
	bool good = true;
	assert_int_equal(mzm_kv_create(&kv, &cfg, MAX, type, NULL), MZM_OK);
	assert_int_equal(kv->row_bytes, DIM * (type == MZM_F32 ? 4 : 2));
	for (int step = 0; step < 300 && good; step++) {
		uint64_t r = mzm_rng_u64(seed, 9, (uint64_t)step);
		if (r % 3 && len < MAX) {
			write_token(kv, &m, len, r);
			kv->len = ++len;
		} else {
			int to = (int)(r / 3 % (MAX + 5)); /* sometimes longer than it is: no effect */
			mzm_kv_truncate(kv, to);
			if (step != planted_at && to < len)
				len = to;
		}
		good = kv->len == len && same(kv, &m);
	}
	mzm_kv_free(kv);
	return good;
}

static void test_random_programs(void **state)
{
	(void)state;
	for (int d = 0; d < 3; d++) {
		int caught = 0;
		for (uint64_t seed = 0; seed < 10; seed++) {
			assert_true(random_program(seed, types[d], -1));
			for (int at = 0; at < 300; at++)
				caught += !random_program(seed, types[d], at);
		}
		print_message("%s: planted faults caught: %d\n", mzm_dtype_name(types[d]), caught);
		assert_true(caught > 70);
	}
}

/* A head's rows are one matrix, as attention reads them; no two rows share a byte. */
static void test_places(void **state)
{
	(void)state;
	const mzm_config cfg = {.n_layers = LAYERS, .n_kv_heads = HEADS, .head_dim = DIM};
	for (int d = 0; d < 3; d++) {
		mzm_kv *kv;
		assert_int_equal(mzm_kv_create(&kv, &cfg, MAX, types[d], NULL), MZM_OK);
		assert_int_equal(kv->type, types[d]);
		assert_int_equal((uintptr_t)kv->k % 64 + (uintptr_t)kv->v % 64, 0);
		char *k = kv->k, *v = kv->v;
		for (int r = 0; r < ROWS; r++) {
			for (int t = 0; t < MAX; t++, k += kv->row_bytes, v += kv->row_bytes) {
				assert_ptr_equal(mzm_kv_k(kv, r / HEADS, r % HEADS, t), k);
				assert_ptr_equal(mzm_kv_v(kv, r / HEADS, r % HEADS, t), v);
			}
		}
		assert_true(k <= kv->v || v <= kv->k);
		assert_int_equal(mzm_kv_bytes(kv), (size_t)(k - kv->k) + (size_t)(v - kv->v));
		mzm_kv_free(kv);
	}
}

static void test_sizes(void **state)
{
	(void)state;
	const mzm_config cfg = {.n_layers = 4096, .n_kv_heads = 1 << 20, .head_dim = 1 << 20};
	mzm_kv *kv;
	mzm_err err = {0};
	assert_int_equal(mzm_kv_create(&kv, &cfg, 1 << 28, MZM_F16, &err), MZM_EARG); /* 2^80 bytes */
	assert_null(kv);
	const mzm_config small = {.n_layers = 2, .n_kv_heads = 3, .head_dim = 4};
	for (int d = 0; d < 3; d++) {
		size_t elem = types[d] == MZM_F32 ? 4 : 2;
		assert_int_equal(mzm_kv_create(&kv, &small, 10, types[d], NULL), MZM_OK);
		assert_int_equal(mzm_kv_bytes(kv), 2 * elem * 2 * 3 * 4 * 10);
		mzm_kv_free(kv);
	}
	mzm_kv_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_programs), cmocka_unit_test(test_places), cmocka_unit_test(test_sizes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
