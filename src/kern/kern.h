/* kern.h - the arithmetic of the forward pass, one table of functions per instruction set.
 *
 * Workload: decode and check passes, 1..32 positions against a weight matrix that is read once.
 * Every leaf is single-threaded over an output range; threads.h splits the range.
 *
 * Promise (invariants 2 and 3 of ARCHITECTURE.md): each output element is one sum in one fixed order,
 * whatever the range, the number of positions, the index list or the table. The order: 16 lanes, lane
 * i sums the products of columns i, i+16, ... by fused multiply-add from +0; then lanes fold 16 -> 8
 * -> 4 -> 2 -> 1 (lane i with lane i + half). Missing columns of the last 16 count as zero products.
 * All tables but "avx512-bf16", the scalar one too, keep this order, so they give equal bits (of a NaN, that it is
 * one). That one rounds what meets bf16 weights to bf16 and adds two products at a time. Quantised rows: quant.h and
 * body_quant.h. */
#ifndef MZM_KERN_H
#define MZM_KERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers in files: never change one. Q8 and Q4 are rows of blocks (quant.h). */
typedef enum mzm_dtype { MZM_F32, MZM_F16, MZM_BF16, MZM_Q8, MZM_Q4, MZM_N_DTYPES } mzm_dtype;

const char *mzm_dtype_name(mzm_dtype dtype);                   /* "f32" */
bool        mzm_dtype_parse(mzm_dtype *out, const char *name); /* false: unknown */
bool        mzm_dtype_is_quant(mzm_dtype dtype);               /* Q8, Q4 */
size_t      mzm_dtype_bytes(mzm_dtype dtype);                  /* of one element; 1 for those of blocks */
size_t      mzm_row_bytes(mzm_dtype dtype, int32_t n_cols);    /* of one row, which is also the step to the next */
bool        mzm_dtype_fits(mzm_dtype dtype, int32_t n_cols);   /* quantised rows are whole blocks */

/* Largest number of positions in one call of rows or accum; callers tile above it. */
#define MZM_MAX_POS 32

/* y[p][i] = dot(row i, x[p]): a matrix, or the rows of it that rows[] names. */
typedef struct mzm_rows_job {
	mzm_dtype      dtype;
	const void    *w;        /* row 0; rows are n_cols elements, stride bytes apart */
	size_t         stride;   /* bytes from row to row */
	const int32_t *rows;     /* [n_rows] ascending row numbers, or NULL for 0 .. n_rows-1 */
	int32_t        n_rows, n_cols;
	const void    *x;        /* [n_pos] packed positions, ldx bytes apart */
	size_t         ldx;      /* mzm_pack_stride() */
	int32_t        n_pos;    /* 1 .. MZM_MAX_POS */
	float         *y;        /* [n_pos, ldy]; element i belongs to the i-th row of the list */
	size_t         ldy;      /* floats */
} mzm_rows_job;

#define MZM_ACCUM_SCRATCH ((size_t)65536) /* bytes */

/* y[p][c] += sum over i of a[p][i] * W[row i][c]: the transposed product (down projection, weighted values). The sum
 * starts from +0, runs over i ascending, and is added to y once. Work is split by units of columns. */
typedef struct mzm_accum_job {
	mzm_dtype      dtype;
	const void    *w;
	size_t         stride;
	const int32_t *rows;
	int32_t        n_rows, n_cols;
	const float   *a;        /* [n_pos, lda] */
	size_t         lda;
	int32_t        n_pos;
	float         *y;        /* [n_pos, ldy] */
	size_t         ldy;
	float         *scratch;  /* MZM_ACCUM_SCRATCH bytes, 64-byte aligned, of the calling thread alone */
} mzm_accum_job;

/* Units of a row: 64 neighbouring columns each, or a quarter of a group of blocks (quant.h). */
int32_t mzm_accum_units(mzm_dtype dtype, int32_t n_cols);

/* Numbers in files and hashes: never change one. */
typedef enum mzm_act {
	MZM_ACT_SILU,      /* x / (1 + exp(-x)) */
	MZM_ACT_RELU,
	MZM_ACT_GELU,      /* x Phi(x), by the error function */
	MZM_ACT_GELU_TANH, /* its approximation by tanh, which models are trained with too */
	MZM_ACT_FATRELU,   /* x where x > threshold, else 0 (ProSparse, arXiv 2402.13516) */
} mzm_act;

typedef struct mzm_kern {
	const char *name;                                            /* "avx512", "avx2", "scalar" */
	bool (*supported)(void);
	bool bf16_acts;                                              /* rounds what meets bf16 weights to bf16 */
	void (*rows)(const mzm_rows_job *job, int32_t i0, int32_t i1);   /* list entries i0 .. i1-1 */
	void (*accum)(const mzm_accum_job *job, int32_t u0, int32_t u1); /* units u0 .. u1-1 */
	/* Activations in the form that rows of this type want: f32 as they are, bf16, or int8 in blocks. dst: 64-byte
	 * aligned, mzm_pack_stride() bytes. */
	void (*pack)(void *dst, const float *x, mzm_dtype dtype, int32_t n_cols);

	float (*dot)(const float *a, const float *b, int32_t n);         /* in the order above */
	void  (*axpy)(float *y, float a, const float *x, int32_t n);     /* y += a x, fused */
	void  (*add)(float *y, const float *x, int32_t n);               /* y += x */
	void  (*mul)(float *y, const float *x, int32_t n);               /* y *= x */
	void  (*act)(float *y, mzm_act act, float threshold, int32_t n); /* in place; threshold: of FATReLU */
	void  (*softcap)(float *y, float cap, int32_t n);                /* y = cap * tanh(y / cap) */
	void  (*rmsnorm)(float *y, const float *x, const float *weight, float eps, int32_t n);
	void  (*layernorm)(float *y, const float *x, const float *weight, const float *bias, float eps, int32_t n);
	void  (*softmax)(float *x, int32_t n);                           /* in place; n >= 1; if all are -inf: zeros */
	float (*max_abs)(const float *x, int32_t n);                     /* NaN when there is one */
	void  (*to_f32)(float *y, const void *x, mzm_dtype dtype, int32_t n); /* widen a whole row */
	void  (*narrow)(void *y, const float *x, mzm_dtype dtype, int32_t n); /* to f32, f16, bf16: nearest even */
	/* Rotates pairs (i, i + n/2) of one head, HF order. cos_sin: [n/2, 2] for this position. */
	void  (*rope)(float *x, const float *cos_sin, int32_t n);
} mzm_kern;

/* Bytes of a packed position, padded so that positions do not fall on the same cache sets. */
size_t mzm_pack_stride(const mzm_kern *kern, mzm_dtype dtype, int32_t n_cols);

/* All tables, best first, NULL-terminated; and the one for a name (NULL or "auto": first supported;
 * NULL when unknown or unsupported). */
extern const mzm_kern *const mzm_kern_tables[];
const mzm_kern *mzm_kern_find(const char *name);

/* The one exponential: |error| <= 2 ulp over the whole range, same bits in every table. */
float mzm_expf(float x);

#endif
