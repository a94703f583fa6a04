/* kern.c - see kern.h: the list of tables, the element types, the scalar exponential.
 *
 * Compiled for any x86-64. The tables themselves are kern_body.h, compiled once per instruction set. */
#include "kern/kern.h"

#include <cpuid.h>
#include <string.h>

#include "kern/exp_poly.h"
#include "kern/kern_tables.h"
#include "kern/quant.h"

/* ---- element types ---- */

static const struct {
	const char *name;
	size_t      n_bytes;
} dtypes[MZM_N_DTYPES] = {
	[MZM_F32] = {"f32", 4},
	[MZM_F16] = {"f16", 2},
	[MZM_BF16] = {"bf16", 2},
	[MZM_Q8] = {"q8", 1},
	[MZM_Q4] = {"q4", 1},
};

const char *mzm_dtype_name(mzm_dtype dtype)
{
	return dtypes[dtype].name;
}

bool mzm_dtype_parse(mzm_dtype *out, const char *name)
{
	for (int i = 0; i < MZM_N_DTYPES; i++) {
		if (strcmp(dtypes[i].name, name) == 0) {
			*out = (mzm_dtype)i;
			return true;
		}
	}
	return false;
}

size_t mzm_dtype_bytes(mzm_dtype dtype)
{
	return dtypes[dtype].n_bytes;
}

bool mzm_dtype_is_quant(mzm_dtype dtype)
{
	return dtype == MZM_Q8 || dtype == MZM_Q4;
}

size_t mzm_row_bytes(mzm_dtype dtype, int32_t n_cols)
{
	if (!mzm_dtype_is_quant(dtype))
		return (size_t)n_cols * mzm_dtype_bytes(dtype);
	size_t scales = (size_t)n_cols / MZM_Q_BLOCK * sizeof(uint16_t);
	return (mzm_quant_bytes(dtype, n_cols) + scales + 63) / 64 * 64;
}

bool mzm_dtype_fits(mzm_dtype dtype, int32_t n_cols)
{
	return !mzm_dtype_is_quant(dtype) || n_cols % MZM_Q_BLOCK == 0;
}

int32_t mzm_accum_units(mzm_dtype dtype, int32_t n_cols)
{
	if (mzm_dtype_is_quant(dtype))
		return 4 * ((n_cols + MZM_Q_GROUP - 1) / MZM_Q_GROUP);
	return (n_cols + 63) / 64;
}

/* An odd number of cache lines: with a power of two all positions would want the same few places in L1. */
size_t mzm_pack_stride(const mzm_kern *kern, mzm_dtype dtype, int32_t n_cols)
{
	size_t n = (size_t)n_cols, bytes = n * sizeof(float);
	if (mzm_dtype_is_quant(dtype))
		bytes = (n + MZM_Q_GROUP - 1) / MZM_Q_GROUP * (MZM_Q_GROUP + 128); /* body_quant.h: xgroup */
	else if (dtype == MZM_BF16 && kern->bf16_acts)
		bytes = (n + 31) / 32 * 64;
	return ((bytes + 63) / 64 | 1) * 64;
}

/* ---- tables ---- */

/* The AVX and AVX-512 answers of the builtin include that the operating system saves the registers. */
bool mzm_cpu_has_avx2(void)
{
	unsigned a, b, c, d;
	bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C); /* a name clang's builtin does not know */
	return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool mzm_cpu_has_avx512(void)
{
	return mzm_cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool mzm_cpu_has_avx512_vnni(void)
{
	return mzm_cpu_has_avx512() && __builtin_cpu_supports("avx512vnni");
}

/* Bits of leaf 7.1 that the builtins of older compilers do not know. */
static bool has_leaf_7_1(unsigned bit)
{
	unsigned a, b, c, d;
	return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit);
}

bool mzm_cpu_has_avx512_bf16(void)
{
	return mzm_cpu_has_avx512_vnni() && has_leaf_7_1(1u << 5);
}

bool mzm_cpu_has_avx2_vnni(void)
{
	return mzm_cpu_has_avx2() && has_leaf_7_1(1u << 4);
}

bool mzm_cpu_has_scalar(void)
{
	return true;
}

const mzm_kern *const mzm_kern_tables[] = {
	&mzm_kern_avx512_bf16, &mzm_kern_avx512_vnni, &mzm_kern_avx512,
	&mzm_kern_avx2_vnni,   &mzm_kern_avx2,	      &mzm_kern_scalar, NULL,
};

const mzm_kern *mzm_kern_find(const char *name)
{
	bool best = !name || strcmp(name, "auto") == 0;
	for (const mzm_kern *const *t = mzm_kern_tables; *t; t++)
		if ((best || strcmp((*t)->name, name) == 0) && (*t)->supported())
			return *t;
	return NULL;
}

/* ---- exp ---- */

float mzm_expf(float x)
{
	x = EXP_MIN > x ? EXP_MIN : x;
	x = EXP_MAX < x ? EXP_MAX : x;
	float t = fmaf(x, EXP_LOG2E, EXP_ROUNDER);
	float n = t - EXP_ROUNDER;
	float r = fmaf(n, -EXP_LN2_HI, x);
	r = fmaf(n, -EXP_LN2_LO, r);
	float q = fmaf(EXP_Q4, r, EXP_Q3);
	q = fmaf(q, r, EXP_Q2);
	q = fmaf(q, r, EXP_Q1);
	q = fmaf(q, r, EXP_Q0);
	float p = 1.0f + fmaf(r * r, q, r);
	return exp_scale(p, t);
}
