/* gguf_types.c - see gguf_types.h. Workload: each row once a load.
 *
 * Written from the layouts; d, m and dmin are f16, little-endian. Weight i of a block:
 *     Q4_0, Q4_1   32 weights: q in nibble i / 16 of byte i mod 16.        Q4_0: d (q - 8)     Q4_1: d q + m
 *     Q5_0, Q5_1   as those, and bit i of a 32-bit word as the fifth.      Q5_0: d (q - 16)    Q5_1: d q + m
 *     Q8_0         32 weights: d q, q in a signed byte
 *     IQ4_NL       as Q4_0, but q is an index into a table of 16 values
 * and of the K types and IQ4_XS, 256 weights in halves of 128, whose quarters of 32 weights share bytes:
 *     Q2_K         16 runs of 16, each with a 4-bit scale and a 4-bit minimum: d scale q - dmin min
 *     Q3_K         16 runs of 16 with a 6-bit scale: d (scale - 32) (q - 4), the third bit in a mask of its own
 *     Q4_K, Q5_K   8 runs of 32, each with a 6-bit scale and a 6-bit minimum: d scale q - dmin min
 *     Q6_K         16 runs of 16 with an 8-bit scale: d scale (q - 32)
 *     IQ4_XS       8 runs of 32 with a 6-bit scale: d (scale - 32) table[q] */
#include "format/gguf_types.h"

#include <string.h>

#include "base/half.h"

static float half_at(const uint8_t *p)
{
	uint16_t h;
	memcpy(&h, p, 2);
	return mzm_f16_to_f32(h);
}

/* ---- plain numbers: a block is one weight ---- */

static void from_f32(float *y, const uint8_t *p)
{
	memcpy(y, p, 4);
}

static void from_f16(float *y, const uint8_t *p)
{
	*y = half_at(p);
}

static void from_bf16(float *y, const uint8_t *p)
{
	uint16_t h;
	memcpy(&h, p, 2);
	*y = mzm_bf16_to_f32(h);
}

/* ---- blocks of 32 ---- */

static void from_q4_0(float *y, const uint8_t *p)
{
	float d = half_at(p);
	for (int i = 0; i < 16; i++) {
		y[i] = d * (float)((p[2 + i] & 15) - 8);
		y[16 + i] = d * (float)((p[2 + i] >> 4) - 8);
	}
}

static void from_q4_1(float *y, const uint8_t *p)
{
	float d = half_at(p), m = half_at(p + 2);
	for (int i = 0; i < 16; i++) {
		y[i] = d * (float)(p[4 + i] & 15) + m;
		y[16 + i] = d * (float)(p[4 + i] >> 4) + m;
	}
}

/* The 32 numbers of five bits: word of fifth bits, nibbles. */
static void five_bits(int q[32], const uint8_t *p)
{
	uint32_t fifth;
	memcpy(&fifth, p, 4);
	for (int i = 0; i < 16; i++) {
		q[i] = (p[4 + i] & 15) | (int)(fifth >> i & 1) << 4;
		q[16 + i] = p[4 + i] >> 4 | (int)(fifth >> (16 + i) & 1) << 4;
	}
}

static void from_q5_0(float *y, const uint8_t *p)
{
	int q[32];
	float d = half_at(p);
	five_bits(q, p + 2);
	for (int i = 0; i < 32; i++)
		y[i] = d * (float)(q[i] - 16);
}

static void from_q5_1(float *y, const uint8_t *p)
{
	int q[32];
	float d = half_at(p), m = half_at(p + 2);
	five_bits(q, p + 4);
	for (int i = 0; i < 32; i++)
		y[i] = d * (float)q[i] + m;
}

static void from_q8_0(float *y, const uint8_t *p)
{
	float d = half_at(p);
	for (int i = 0; i < 32; i++)
		y[i] = d * (float)(int8_t)p[2 + i];
}

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static void iq4_run(float y[32], const uint8_t nibbles[16], float d)
{
	for (int i = 0; i < 16; i++) {
		y[i] = d * (float)iq4_values[nibbles[i] & 15];
		y[16 + i] = d * (float)iq4_values[nibbles[i] >> 4];
	}
}

static void from_iq4_nl(float *y, const uint8_t *p)
{
	iq4_run(y, p + 2, half_at(p));
}

/* ---- blocks of 256 ---- */

/* Two bits of weight i: bytes of a half are shared by its four quarters. */
static int two_bits(const uint8_t bytes[64], int i)
{
	return bytes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
}

/* scales [16], two bits [64], d, dmin */
static void from_q2_k(float *y, const uint8_t *p)
{
	float d = half_at(p + 80), dmin = half_at(p + 82);
	for (int i = 0; i < 256; i++) {
		float scale = d * (float)(p[i / 16] & 15), min = dmin * (float)(p[i / 16] >> 4);
		y[i] = scale * (float)two_bits(p + 16, i) - min;
	}
}

/* third bits [32], two bits [64], scales [12], d. Scale r: four bits as nibble r / 8 of byte r mod 8, then two in byte
 * 8 + r mod 4. */
static void from_q3_k(float *y, const uint8_t *p)
{
	const uint8_t *scales = p + 96;
	float d = half_at(p + 108);
	for (int i = 0; i < 256; i++) {
		int r = i / 16, third = p[i % 32] >> (i / 32) & 1;
		int scale = (scales[r % 8] >> (r / 8 * 4) & 15) | (scales[8 + r % 4] >> (r / 4 * 2) & 3) << 4;
		y[i] = d * (float)(scale - 32) * (float)(two_bits(p + 32, i) + 4 * third - 4);
	}
}

/* Scale and minimum r of eight, six bits each, in 12 bytes. Those of the first four runs are the low bits of bytes 0 to
 * 3 and 4 to 7; those of the others nibbles of bytes 8 to 11, their upper two bits the upper two of bytes 0 to 7. */
static void scale_and_min(int *scale, int *min, const uint8_t bytes[12], int r)
{
	if (r < 4) {
		*scale = bytes[r] & 63;
		*min = bytes[r + 4] & 63;
	} else {
		*scale = (bytes[r + 4] & 15) | bytes[r - 4] >> 6 << 4;
		*min = bytes[r + 4] >> 4 | bytes[r] >> 6 << 4;
	}
}

/* Nibbles of runs 2 k and 2 k + 1 share 32 bytes; fifth: bytes whose bit r is that of run r, NULL: there are none. */
static void from_k45(float *y, const uint8_t *p, const uint8_t *fifth, const uint8_t *nibbles)
{
	float d = half_at(p), dmin = half_at(p + 2);
	for (int r = 0; r < 8; r++) {
		int scale, min;
		scale_and_min(&scale, &min, p + 4, r);
		float ds = d * (float)scale, dm = dmin * (float)min;
		for (int i = 0; i < 32; i++) {
			int q = nibbles[r / 2 * 32 + i] >> (r % 2 * 4) & 15;
			if (fifth)
				q |= (fifth[i] >> r & 1) << 4;
			y[32 * r + i] = ds * (float)q - dm;
		}
	}
}

/* d, dmin, scales and minima [12], nibbles [128] */
static void from_q4_k(float *y, const uint8_t *p)
{
	from_k45(y, p, NULL, p + 16);
}

/* d, dmin, scales and minima [12], fifth bits [32], nibbles [128] */
static void from_q5_k(float *y, const uint8_t *p)
{
	from_k45(y, p, p + 16, p + 48);
}

/* nibbles [128], two more bits [64], scales [16], d. Quarters 0 and 2 of a half share 32 bytes of nibbles, 1 and 3 the
 * next. */
static void from_q6_k(float *y, const uint8_t *p)
{
	float d = half_at(p + 208);
	for (int i = 0; i < 256; i++) {
		int quarter = i / 32 % 4;
		int low = p[i / 128 * 64 + quarter % 2 * 32 + i % 32] >> (quarter / 2 * 4) & 15;
		int q = (low | two_bits(p + 128, i) << 4) - 32;
		y[i] = d * (float)(int8_t)p[192 + i / 16] * (float)q;
	}
}

/* d, upper bits of scales (16-bit word), their nibbles [4], nibbles [128] */
static void from_iq4_xs(float *y, const uint8_t *p)
{
	uint16_t upper;
	float d = half_at(p);
	memcpy(&upper, p + 2, 2);
	for (int r = 0; r < 8; r++) {
		int scale = (p[4 + r / 2] >> (r % 2 * 4) & 15) | (upper >> (2 * r) & 3) << 4;
		iq4_run(y + 32 * r, p + 8 + 16 * r, d * (float)(scale - 32));
	}
}

/* ---- the table ---- */

typedef struct ggml_type {
	const char *name;
	uint16_t    n_weights, n_bytes; /* of a block */
	void      (*to_f32)(float *y, const uint8_t *p);
} ggml_type;

static const ggml_type types[MZM_GGML_N_TYPES] = {
	[MZM_GGML_F32] = {"F32", 1, 4, from_f32},
	[MZM_GGML_F16] = {"F16", 1, 2, from_f16},
	[MZM_GGML_BF16] = {"BF16", 1, 2, from_bf16},
	[MZM_GGML_Q4_0] = {"Q4_0", 32, 18, from_q4_0},
	[MZM_GGML_Q4_1] = {"Q4_1", 32, 20, from_q4_1},
	[MZM_GGML_Q5_0] = {"Q5_0", 32, 22, from_q5_0},
	[MZM_GGML_Q5_1] = {"Q5_1", 32, 24, from_q5_1},
	[MZM_GGML_Q8_0] = {"Q8_0", 32, 34, from_q8_0},
	[MZM_GGML_Q2_K] = {"Q2_K", 256, 84, from_q2_k},
	[MZM_GGML_Q3_K] = {"Q3_K", 256, 110, from_q3_k},
	[MZM_GGML_Q4_K] = {"Q4_K", 256, 144, from_q4_k},
	[MZM_GGML_Q5_K] = {"Q5_K", 256, 176, from_q5_k},
	[MZM_GGML_Q6_K] = {"Q6_K", 256, 210, from_q6_k},
	[MZM_GGML_IQ4_NL] = {"IQ4_NL", 32, 18, from_iq4_nl},
	[MZM_GGML_IQ4_XS] = {"IQ4_XS", 256, 136, from_iq4_xs},
};

/* Known by name, so that a message can say which it is. */
static const char *const other_names[] = {
	[9] = "Q8_1", [15] = "Q8_K", [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S",
	[21] = "IQ3_S", [22] = "IQ2_S", [24] = "I8", [25] = "I16", [26] = "I32", [27] = "I64", [28] = "F64",
	[29] = "IQ1_M", [34] = "TQ1_0", [35] = "TQ2_0", [39] = "MXFP4",
};

static const ggml_type *type_of(uint32_t type)
{
	return type < MZM_GGML_N_TYPES && types[type].name ? &types[type] : NULL;
}

const char *mzm_ggml_name(uint32_t type)
{
	const ggml_type *t = type_of(type);
	if (t)
		return t->name;
	return type < sizeof other_names / sizeof other_names[0] && other_names[type] ? other_names[type] : "unknown";
}

bool mzm_ggml_block(uint32_t type, uint32_t *n_weights, uint32_t *n_bytes)
{
	const ggml_type *t = type_of(type);
	if (!t)
		return false;
	*n_weights = t->n_weights;
	*n_bytes = t->n_bytes;
	return true;
}

bool mzm_ggml_is_quant(uint32_t type)
{
	const ggml_type *t = type_of(type);
	return t && t->n_weights > 1;
}

void mzm_ggml_to_f32(float *dst, const void *src, uint32_t type, size_t n_cols)
{
	const ggml_type *t = &types[type];
	const uint8_t *p = src;
	for (size_t i = 0; i < n_cols; i += t->n_weights, p += t->n_bytes)
		t->to_f32(dst + i, p);
}
