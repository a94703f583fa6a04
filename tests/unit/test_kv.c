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

enum { LAYERS = 3, HEADS = 2, DIM = 5, MAX = 40, ROW = LAYERS * HEADS * DIM };

/* Writes token t's rows from a seed, as a pass would. */
static void write_token(mzm_kv *kv, float (*k)[ROW], float (*v)[ROW], int t, uint64_t seed)
{
	for (int i = 0; i < ROW; i++) {
		k[t][i] = (float)mzm_rng_unit(seed, 1, (uint64_t)i);
		v[t][i] = (float)mzm_rng_unit(seed, 2, (uint64_t)i);
		mzm_kv_k(kv, i / DIM / HEADS, i / DIM % HEADS, t)[i % DIM] = k[t][i];
		mzm_kv_v(kv, i / DIM / HEADS, i / DIM % HEADS, t)[i % DIM] = v[t][i];
	}
}

static bool same(mzm_kv *kv, float (*k)[ROW], float (*v)[ROW])
{
	for (int t = 0; t < kv->len; t++) {
		for (int i = 0; i < ROW; i++) {
			if (mzm_kv_k(kv, i / DIM / HEADS, i / DIM % HEADS, t)[i % DIM] != k[t][i] ||
			    mzm_kv_v(kv, i / DIM / HEADS, i / DIM % HEADS, t)[i % DIM] != v[t][i])
				return false;
		}
	}
	return true;
}

/* With planted_at >= 0 the model forgets one truncation; the comparison must then fail. */
static bool random_program(uint64_t seed, int planted_at)
{
	static float k[MAX][ROW], v[MAX][ROW];
	const mzm_config cfg = {.n_layers = LAYERS, .n_kv_heads = HEADS, .head_dim = DIM};
	mzm_kv *kv;
	int len = 0;
	bool good = true;
	assert_int_equal(mzm_kv_create(&kv, &cfg, MAX, NULL), MZM_OK);
	for (int step = 0; step < 300; step++) {
		uint64_t r = mzm_rng_u64(seed, 9, (uint64_t)step);
		if (r % 3 && len < MAX) {
			write_token(kv, k, v, len, r);
			kv->len = ++len;
		} else {
			int to = (int)(r / 3 % (MAX + 5)); /* sometimes longer than it is: no effect */
			mzm_kv_truncate(kv, to);
			if (step != planted_at && to < len)
				len = to;
		}
		good = good && kv->len == len && same(kv, k, v);
		len = kv->len;
	}
	mzm_kv_free(kv);
	return good;
}

static void test_random_programs(void **state)
{
	(void)state;
	int caught = 0;
	for (uint64_t seed = 0; seed < 30; seed++) {
		assert_true(random_program(seed, -1));
		for (int at = 0; at < 300; at++)
			caught += !random_program(seed, at);
	}
	print_message("planted faults caught: %d\n", caught);
	assert_true(caught > 200);
}

static void test_sizes(void **state)
{
	(void)state;
	const mzm_config cfg = {.n_layers = 4096, .n_kv_heads = 1 << 20, .head_dim = 1 << 20};
	mzm_kv *kv;
	mzm_err err = {0};
	assert_int_equal(mzm_kv_create(&kv, &cfg, 1 << 28, &err), MZM_EARG); /* 2^80 bytes */
	assert_null(kv);
	const mzm_config small = {.n_layers = 2, .n_kv_heads = 3, .head_dim = 4};
	assert_int_equal(mzm_kv_create(&kv, &small, 10, NULL), MZM_OK);
	assert_int_equal(mzm_kv_bytes(kv), 2 * 4 * 2 * 3 * 4 * 10);
	mzm_kv_free(kv);
	mzm_kv_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_programs), cmocka_unit_test(test_sizes)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
