/* body_table.h - the matrix products by type of weight, and the table; the last header of a per-ISA file.
 *
 * A file that multiplies bf16 by bf16 (body_dot.h) has defined DOT_BF16 and replaces what concerns bf16, and the
 * transposed product of quantised rows. */
#ifndef MZM_BODY_TABLE_H
#define MZM_BODY_TABLE_H

#include "kern/body_quant.h"
#include "kern/body_vector.h"

ROWS_TILES(f32, MZM_F32)
ROWS_TILES(f16, MZM_F16)
QUANT_TILES(q8, MZM_Q8, Q8_DECODE_ROWS)
QUANT_TILES(q4, MZM_Q4, Q4_DECODE_ROWS)
#ifndef DOT_BF16
#define BF16_GROUP 8
ROWS_TILES(bf16, MZM_BF16)
#endif

static void rows(const mzm_rows_job *job, int32_t i0, int32_t i1)
{
	static const row_tiles by_dtype[MZM_N_DTYPES] = {
		[MZM_F32] = ROWS_ENTRY(f32, VEC_DECODE_ROWS),
		[MZM_F16] = ROWS_ENTRY(f16, VEC_DECODE_ROWS),
#ifndef DOT_BF16
		[MZM_BF16] = ROWS_ENTRY(bf16, VEC_DECODE_ROWS),
#endif
		[MZM_Q8] = ROWS_ENTRY(q8, Q8_DECODE_ROWS),
		[MZM_Q4] = ROWS_ENTRY(q4, Q4_DECODE_ROWS),
	};
#ifdef DOT_BF16
	if (job->dtype == MZM_BF16) {
		rows_dot(job, i0, i1);
		return;
	}
#endif
	rows_tiled(job, &by_dtype[job->dtype], i0, i1);
}

ACCUM_ADD(f32, MZM_F32)
ACCUM_ADD(f16, MZM_F16)
#ifndef DOT_BF16
ACCUM_ADD(bf16, MZM_BF16)
QUANT_ADD(add_q8, MZM_Q8)
QUANT_ADD(add_q4, MZM_Q4)
#endif

/* Rows of a group, chosen by measurement: few streams when memory sets the pace, many when sums do. */
static void accum(const mzm_accum_job *job, int32_t u0, int32_t u1)
{
	static const accum_format by_dtype[MZM_N_DTYPES] = {
		[MZM_F32] = {UNIT_COLS, 8, 16, add_f32, finish_cols},
		[MZM_F16] = {UNIT_COLS, 8, 16, add_f16, finish_cols},
		[MZM_BF16] = {UNIT_COLS, BF16_GROUP, 32, add_bf16, finish_cols},
		[MZM_Q8] = {Q_UNIT, 16, 32, add_q8, finish_unit},
		[MZM_Q4] = {Q_UNIT, 16, 32, add_q4, finish_unit},
	};
	accum_units(job, &by_dtype[job->dtype], u0, u1);
}

static void pack(void *dst, const float *x, mzm_dtype dtype, int32_t n_cols)
{
	if (dtype == MZM_Q8 || dtype == MZM_Q4)
		pack_quant(dst, x, n_cols);
#ifdef DOT_BF16
	else if (dtype == MZM_BF16)
		pack_bf16(dst, x, n_cols);
#endif
	else
		memcpy(dst, x, (size_t)n_cols * sizeof *x);
}

static void to_f32(float *y, const void *x, mzm_dtype dtype, int32_t n)
{
	if (dtype == MZM_BF16)
		widen(y, x, MZM_BF16, n);
	else if (dtype == MZM_F16)
		widen(y, x, MZM_F16, n);
	else if (dtype == MZM_F32)
		widen(y, x, MZM_F32, n);
	else
		widen_quant(y, x, dtype, n);
}

/* The other way, to 16 bits; the last few through a copy. */
static void narrow(void *dst, const float *x, mzm_dtype dtype, int32_t n)
{
	uint16_t *h = dst;
	if (dtype == MZM_F32) {
		memcpy(dst, x, (size_t)n * sizeof *x);
		return;
	}
	for (int32_t i = 0; i < n; i += 16) {
		uint16_t copy[16], *to = n - i < 16 ? copy : h + i;
		v16 v = get(x + i, n - i);
		if (dtype == MZM_BF16)
			v16_store_bf16(to, v);
		else
			v16_store_f16(to, v);
		if (n - i < 16)
			memcpy(h + i, copy, (size_t)(n - i) * sizeof *h);
	}
}

#ifdef DOT_BF16
#define ROUNDS_BF16 true
#else
#define ROUNDS_BF16 false
#endif

#define KERN_TABLE(isa, is_supported)                                                              \
	{                                                                                          \
		.name = isa, .supported = is_supported, .bf16_acts = ROUNDS_BF16, .rows = rows,    \
		.accum = accum, .pack = pack, .dot = dot, .axpy = axpy, .add = add, .mul = mul,    \
		.act = act, .softcap = softcap, .rmsnorm = rmsnorm, .layernorm = layernorm,        \
		.softmax = softmax, .max_abs = max_abs,                                            \
		.to_f32 = to_f32, .narrow = narrow, .rope = rope,                                  \
	}

#endif
