/* test_gguf_types.c - the weight types of GGUF files, each against numbers placed here.
 *
 * For every type of blocks an encoder in this file puts random whole numbers (weights, scales, minima) where the
 * published layout wants them, in the order in which it is usually told: bytes from front to back, halves of 128
 * weights, shifts, runs. What they mean is computed in double from those numbers alone; the decoder has to agree to f32
 * rounding. Q8_0 and Q4_0 are also read from files of another program, against the f32 file of the same model quantised
 * here. */
#include <math.h>

#include "testing.h"

#include "base/half.h"
#include "format/gguf.h"
#include "format/gguf_types.h"

typedef struct trial {
	uint8_t  block[256];
	double   want[256];
	double   d, dmin; /* exact in f16 */
	int      q[256];
	uint64_t seed;
} trial;

static int upto(trial *t, int n)
{
	return (int)(testing_random(&t->seed) >> 33) % n;
}

/* A scale with an exact f16 form, written at p. */
static double put_scale(trial *t, uint8_t *p)
{
	double d = (double)(upto(t, 1024) - 512) * 0x1p-13;
	uint16_t h = mzm_f32_to_f16((float)d);
	memcpy(p, &h, 2);
	return d;
}

static void draw(trial *t, int n, int range)
{
	memset(t->block, 0, sizeof t->block);
	for (int i = 0; i < n; i++)
		t->q[i] = upto(t, range);
}

/* ---- 32 weights ---- */

static void put_nibbles(trial *t, uint8_t *p)
{
	for (int i = 0; i < 16; i++)
		p[i] = (uint8_t)((t->q[i] & 15) | (t->q[i + 16] & 15) << 4);
}

static void put_fifth(trial *t, uint8_t *p)
{
	for (int i = 0; i < 32; i++)
		p[i / 8] |= (uint8_t)((t->q[i] >> 4) << (i % 8));
}

static void make_q4_0(trial *t)
{
	draw(t, 32, 16);
	t->d = put_scale(t, t->block);
	put_nibbles(t, t->block + 2);
	for (int i = 0; i < 32; i++)
		t->want[i] = t->d * (t->q[i] - 8);
}

static void make_q4_1(trial *t)
{
	draw(t, 32, 16);
	t->d = put_scale(t, t->block);
	t->dmin = put_scale(t, t->block + 2);
	put_nibbles(t, t->block + 4);
	for (int i = 0; i < 32; i++)
		t->want[i] = t->d * t->q[i] + t->dmin;
}

static void make_q5_0(trial *t)
{
	draw(t, 32, 32);
	t->d = put_scale(t, t->block);
	put_fifth(t, t->block + 2);
	put_nibbles(t, t->block + 6);
	for (int i = 0; i < 32; i++)
		t->want[i] = t->d * (t->q[i] - 16);
}

static void make_q5_1(trial *t)
{
	draw(t, 32, 32);
	t->d = put_scale(t, t->block);
	t->dmin = put_scale(t, t->block + 2);
	put_fifth(t, t->block + 4);
	put_nibbles(t, t->block + 8);
	for (int i = 0; i < 32; i++)
		t->want[i] = t->d * t->q[i] + t->dmin;
}

static void make_q8_0(trial *t)
{
	draw(t, 32, 256);
	t->d = put_scale(t, t->block);
	for (int i = 0; i < 32; i++) {
		t->block[2 + i] = (uint8_t)(t->q[i] - 128);
		t->want[i] = t->d * (t->q[i] - 128);
	}
}

static const int iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static void make_iq4_nl(trial *t)
{
	draw(t, 32, 16);
	t->d = put_scale(t, t->block);
	put_nibbles(t, t->block + 2);
	for (int i = 0; i < 32; i++)
		t->want[i] = t->d * iq4[t->q[i]];
}

/* ---- 256 weights ---- */

/* Two bits of each weight, from bit `from` of it on: a half of the weights takes 32 bytes, in four layers. */
static void put_pairs(trial *t, uint8_t *p, int from)
{
	int i = 0;
	for (int half = 0; half < 2; half++)
		for (int shift = 0; shift < 8; shift += 2)
			for (int l = 0; l < 32; l++, i++)
				p[32 * half + l] |= (uint8_t)((t->q[i] >> from & 3) << shift);
}

static void make_q2_k(trial *t)
{
	int scale[16], min[16];
	draw(t, 256, 4);
	for (int r = 0; r < 16; r++) {
		scale[r] = upto(t, 16);
		min[r] = upto(t, 16);
		t->block[r] = (uint8_t)(scale[r] + 16 * min[r]);
	}
	put_pairs(t, t->block + 16, 0);
	t->d = put_scale(t, t->block + 80);
	t->dmin = put_scale(t, t->block + 82);
	for (int i = 0; i < 256; i++)
		t->want[i] = t->d * scale[i / 16] * t->q[i] - t->dmin * min[i / 16];
}

static void make_q3_k(trial *t)
{
	int scale[16];
	draw(t, 256, 8);
	for (int i = 0; i < 256; i++)
		t->block[i % 32] |= (uint8_t)((t->q[i] >> 2) << (i / 32));
	put_pairs(t, t->block + 32, 0);
	for (int r = 0; r < 16; r++) {
		scale[r] = upto(t, 64);
		if (r < 8)
			t->block[96 + r] |= (uint8_t)(scale[r] % 16);
		else
			t->block[96 + r - 8] |= (uint8_t)(scale[r] % 16 * 16);
		t->block[104 + r % 4] |= (uint8_t)(scale[r] / 16 << (2 * (r / 4)));
	}
	t->d = put_scale(t, t->block + 108);
	for (int i = 0; i < 256; i++)
		t->want[i] = t->d * (scale[i / 16] - 32) * (t->q[i] - 4);
}

/* d, dmin and six-bit scales and minima of eight runs; then what q means. */
static void put_head_of_45(trial *t)
{
	int scale[8], min[8];
	uint8_t *p = t->block + 4;
	for (int r = 0; r < 8; r++) {
		scale[r] = upto(t, 64);
		min[r] = upto(t, 64);
	}
	for (int r = 0; r < 4; r++) {
		p[r] = (uint8_t)(scale[r] + (scale[r + 4] / 16 << 6));
		p[r + 4] = (uint8_t)(min[r] + (min[r + 4] / 16 << 6));
		p[r + 8] = (uint8_t)(scale[r + 4] % 16 + (min[r + 4] % 16 << 4));
	}
	t->d = put_scale(t, t->block);
	t->dmin = put_scale(t, t->block + 2);
	for (int i = 0; i < 256; i++)
		t->want[i] = t->d * scale[i / 32] * t->q[i] - t->dmin * min[i / 32];
}

static void put_long_nibbles(trial *t, uint8_t *p)
{
	for (int chunk = 0; chunk < 4; chunk++)
		for (int l = 0; l < 32; l++)
			p[32 * chunk + l] =
				(uint8_t)((t->q[64 * chunk + l] & 15) | (t->q[64 * chunk + 32 + l] & 15) << 4);
}

static void make_q4_k(trial *t)
{
	draw(t, 256, 16);
	put_head_of_45(t);
	put_long_nibbles(t, t->block + 16);
}

static void make_q5_k(trial *t)
{
	draw(t, 256, 32);
	put_head_of_45(t);
	for (int i = 0; i < 256; i++)
		t->block[16 + i % 32] |= (uint8_t)((t->q[i] >> 4) << (i / 32));
	put_long_nibbles(t, t->block + 48);
}

static void make_q6_k(trial *t)
{
	int scale[16];
	draw(t, 256, 64);
	for (int half = 0; half < 2; half++)
		for (int l = 0; l < 64; l++)
			t->block[64 * half + l] =
				(uint8_t)((t->q[128 * half + l] & 15) | (t->q[128 * half + 64 + l] & 15) << 4);
	put_pairs(t, t->block + 128, 4);
	for (int r = 0; r < 16; r++) {
		scale[r] = upto(t, 256) - 128;
		t->block[192 + r] = (uint8_t)scale[r];
	}
	t->d = put_scale(t, t->block + 208);
	for (int i = 0; i < 256; i++)
		t->want[i] = t->d * scale[i / 16] * (t->q[i] - 32);
}

static void make_iq4_xs(trial *t)
{
	int scale[8], upper = 0;
	draw(t, 256, 16);
	t->d = put_scale(t, t->block);
	for (int r = 0; r < 8; r++) {
		scale[r] = upto(t, 64);
		t->block[4 + r / 2] |= (uint8_t)(r % 2 ? scale[r] % 16 * 16 : scale[r] % 16);
		upper |= scale[r] / 16 << (2 * r);
		for (int l = 0; l < 16; l++)
			t->block[8 + 16 * r + l] = (uint8_t)(t->q[32 * r + l] | t->q[32 * r + 16 + l] << 4);
	}
	t->block[2] = (uint8_t)(upper & 255);
	t->block[3] = (uint8_t)(upper >> 8);
	for (int i = 0; i < 256; i++)
		t->want[i] = t->d * (scale[i / 32] - 32) * iq4[t->q[i]];
}

static const struct {
	uint32_t    type;
	const char *name;
	uint32_t    n_weights, n_bytes;
	void      (*make)(trial *t);
} cases[] = {
	{2, "Q4_0", 32, 18, make_q4_0},     {3, "Q4_1", 32, 20, make_q4_1},
	{6, "Q5_0", 32, 22, make_q5_0},     {7, "Q5_1", 32, 24, make_q5_1},
	{8, "Q8_0", 32, 34, make_q8_0},     {10, "Q2_K", 256, 84, make_q2_k},
	{11, "Q3_K", 256, 110, make_q3_k},  {12, "Q4_K", 256, 144, make_q4_k},
	{13, "Q5_K", 256, 176, make_q5_k},  {14, "Q6_K", 256, 210, make_q6_k},
	{20, "IQ4_NL", 32, 18, make_iq4_nl}, {23, "IQ4_XS", 256, 136, make_iq4_xs},
};

static void test_blocks(void **state)
{
	(void)state;
	trial t = {.seed = 11};
	for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
		uint32_t n_weights = 0, n_bytes = 0, n = cases[c].n_weights;
		assert_true(mzm_ggml_block(cases[c].type, &n_weights, &n_bytes));
		assert_int_equal(n_weights, n);
		assert_int_equal(n_bytes, cases[c].n_bytes);
		assert_string_equal(mzm_ggml_name(cases[c].type), cases[c].name);
		assert_true(mzm_ggml_is_quant(cases[c].type));
		for (int k = 0; k < 200; k++) {
			float y[3 * 256];
			uint8_t row[2 * 256];
			cases[c].make(&t);
			memcpy(row, t.block, n_bytes); /* twice: blocks lie one behind the other */
			memcpy(row + n_bytes, t.block, n_bytes);
			y[2 * n] = 42;
			mzm_ggml_to_f32(y, row, cases[c].type, 2 * (size_t)n);
			assert_true(y[2 * n] == 42);
			for (uint32_t i = 0; i < 2 * n; i++) /* a minimum may cancel most of a weight */
				if (!(fabs((double)y[i] - t.want[i % n]) <= 1e-4 * fabs(t.d) + 1e-4 * fabs(t.dmin)))
					fail_msg("%s: weight %u is %.9g, wanted %.9g", cases[c].name, i, (double)y[i],
						 t.want[i % n]);
		}
	}
}

static void test_numbers(void **state)
{
	(void)state;
	float y[3];
	const float f32[3] = {1.5f, -0.0f, 3e38f};
	const uint16_t f16[3] = {0x3c00, 0xc000, 0x0001}, bf16[3] = {0x3f80, 0xc000, 0x0080};
	mzm_ggml_to_f32(y, f32, 0, 3);
	assert_memory_equal(y, f32, sizeof y);
	mzm_ggml_to_f32(y, f16, 1, 3);
	assert_true(y[0] == 1 && y[1] == -2 && y[2] == 0x1p-24f);
	mzm_ggml_to_f32(y, bf16, 30, 3);
	assert_true(y[0] == 1 && y[1] == -2 && y[2] == 0x1p-126f);
	uint32_t a, b;
	const uint32_t unknown[] = {4, 5, 9, 15, 16, 22, 24, 29, 31, 34, 39, 1000, UINT32_MAX};
	for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
		assert_false(mzm_ggml_block(unknown[i], &a, &b));
	assert_string_equal(mzm_ggml_name(16), "IQ2_XXS");
	assert_string_equal(mzm_ggml_name(UINT32_MAX), "unknown");
}

/* ---- files of another program ---- */

/* As files have it: the largest weight decides, quotients are rounded half away from zero. */
static void round_block(float *y, const float *x, bool four_bits)
{
	float far = 0;
	for (int i = 0; i < 32; i++)
		if (fabsf(x[i]) > fabsf(far))
			far = x[i];
	float d = four_bits ? far / -8 : fabsf(far) / 127, inv = d != 0 ? 1 / d : 0;
	float scale = mzm_f16_to_f32(mzm_f32_to_f16(d));
	for (int i = 0; i < 32; i++) {
		float v = x[i] * inv;
		int q = four_bits ? (int)fminf(15, truncf(v + 8.5f)) - 8 : (int)roundf(v);
		y[i] = scale * (float)q;
	}
}

static void compare_files(const char *name, uint32_t type, int want)
{
	char path[512], full[512];
	mzm_gguf *a, *b;
	int n = 0;
	assert_non_null(testing_shared("models/stories260K-gguf/stories260K-F32.gguf", full));
	assert_non_null(testing_shared(name, path));
	assert_int_equal(mzm_gguf_open(&a, full, NULL), MZM_OK);
	assert_int_equal(mzm_gguf_open(&b, path, NULL), MZM_OK);
	for (int32_t i = 0; i < mzm_gguf_n_tensors(b); i++) {
		const mzm_gguf_tensor *q = mzm_gguf_tensor_at(b, i), *f = mzm_gguf_find(a, q->name);
		if (q->type != type)
			continue;
		size_t n_weights = (size_t)(q->dims[0] * q->dims[1]);
		float *x = malloc(2 * n_weights * sizeof *x), *y = x + n_weights;
		char *raw = malloc(q->bytes);
		assert_int_equal(mzm_gguf_read(a, f, 0, f->bytes, x, NULL), MZM_OK);
		assert_int_equal(mzm_gguf_read(b, q, 0, q->bytes, raw, NULL), MZM_OK);
		mzm_ggml_to_f32(y, raw, type, n_weights);
		for (size_t k = 0; k < n_weights; k += 32) {
			float rounded[32];
			round_block(rounded, x + k, type == MZM_GGML_Q4_0);
			for (int l = 0; l < 32; l++)
				assert_true(rounded[l] == y[k + (size_t)l]);
		}
		free(x);
		free(raw);
		n++;
	}
	assert_int_equal(n, want);
	mzm_gguf_close(a);
	mzm_gguf_close(b);
}

static void test_shared(void **state)
{
	(void)state;
	char path[512];
	if (!testing_shared("models/stories260K-gguf/stories260K-F32.gguf", path))
		skip();
	compare_files("models/stories260K-gguf/stories260K-Q8_0.gguf", MZM_GGML_Q8_0, 31);
	compare_files("models/stories260K-gguf/stories260K-Q4_0.gguf", MZM_GGML_Q4_0, 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_blocks),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_shared),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
