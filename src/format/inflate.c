/* inflate.c - see inflate.h.
 *
 * Workload: a few megabytes in, gigabytes out, one pass. A row of the inner tensor is the unit of work: whoever has it
 * writes all its copies, because the rounding error travels along the copies. It goes in pieces that stay in the
 * nearest cache. */
#include "format/inflate.h"

#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "format/fill.h"
#include "kern/cores.h"

typedef struct inflated {
	mzm_source  base;
	mzm_source *inner;
	int32_t     factor;
	uint64_t    seed;
	int         n_threads;
} inflated;

/* One tensor on its way. in: [n_rows, n_cols]; out: [n_copies * n_rows, factor * n_cols]. */
typedef struct job {
	const char  *in;
	char        *out;
	mzm_dtype    dtype;
	size_t       elem;
	int32_t      n_rows, n_cols, factor;
	int32_t      n_copies; /* of each row: factor, or 1 where rows are tokens */
	const float *c;        /* [n_copies, factor]; sums to 1 over the input's copies */
	const float *d;        /* [factor, factor] of the down rows; NULL: none */
} job;

/* ---- random factors ---- */

/* n values that sum to 1, `step` apart. */
static void draw(float *c, int32_t n, size_t step, uint64_t stream)
{
	double sum = 0;
	for (int32_t i = 0; i < n; i++)
		sum += 0.5 + mzm_rng_unit(stream, 0, (uint64_t)i);
	for (int32_t i = 0; i < n; i++)
		c[(size_t)i * step] = (float)((0.5 + mzm_rng_unit(stream, 0, (uint64_t)i)) / sum);
}

/* Up to two tables, each [factor, factor]: the sums run along rows of the first and along columns of the second,
 * whose weights are stored transposed. -> mzm_free */
static mzm_status draw_factors(float **out, const inflated *inf, const mzm_tensor *t, mzm_err *err)
{
	size_t n = (size_t)inf->factor;
	uint64_t stream = mzm_rng_u64(inf->seed, (uint64_t)t->kind, (uint64_t)(t->layer + 1));
	MZM_TRY(mzm_alloc_for((void **)out, 2 * n * n * sizeof **out, "factors of the copies", err));
	for (size_t s = 0; s < n; s++) {
		draw(*out + s * n, inf->factor, 1, mzm_rng_mix(stream ^ (2 * s)));
		draw(*out + n * n + s, inf->factor, n, mzm_rng_mix(stream ^ (2 * s + 1)));
	}
	return MZM_OK;
}

/* ---- rows ---- */

#define PIECE 256 /* columns at a time */

static void widen(float *w, const char *in, mzm_dtype dtype, int32_t n)
{
	for (int32_t i = 0; i < n; i++) {
		uint16_t h;
		if (dtype == MZM_F32) {
			memcpy(&w[i], in + 4 * (size_t)i, 4);
			continue;
		}
		memcpy(&h, in + 2 * (size_t)i, 2);
		w[i] = dtype == MZM_BF16 ? mzm_bf16_to_f32(h) : mzm_f16_to_f32(h);
	}
}

/* One copy of a piece: c w, rounded, with what the copies before it lost; carry keeps what this one loses. All three
 * in one loop each, of whole blocks, which every compiler turns into vector code; what lies behind n is not used. */
#define BLOCK 16

static void put_bf16(char *out, float *restrict carry, const float *restrict w, float c, int32_t n)
{
	uint16_t h[PIECE];
	for (int32_t b = 0; b < n; b += BLOCK)
		for (int32_t i = b; i < b + BLOCK; i++) { /* mzm_f32_to_bf16 without NaN, which no weight is */
			float v = c * w[i] + carry[i];
			uint32_t u = mzm_f32_bits(v);
			u = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
			h[i] = (uint16_t)u;
			carry[i] = v - mzm_bits_f32(u << 16);
		}
	memcpy(out, h, (size_t)n * sizeof h[0]);
}

static void put_f16(char *out, float carry[PIECE], const float w[PIECE], float c, int32_t n)
{
	uint16_t h[PIECE];
	for (int32_t i = 0; i < n; i++) {
		float v = c * w[i] + carry[i];
		h[i] = mzm_f32_to_f16(v);
		carry[i] = v - mzm_f16_to_f32(h[i]);
	}
	memcpy(out, h, (size_t)n * sizeof h[0]);
}

/* Nothing is lost but what single-precision products always lose. */
static void put_f32(char *out, const float w[PIECE], float c, int32_t n)
{
	float v[PIECE];
	for (int32_t i = 0; i < n; i++)
		v[i] = c * w[i];
	memcpy(out, v, (size_t)n * sizeof v[0]);
}

/* Nothing carried yet: the zero that leaves the sign of a zero weight alone. */
static void clear(float *carry)
{
	for (int32_t i = 0; i < PIECE; i++)
		carry[i] = -0.0f;
}

static void put_copy(char *out, float carry[PIECE], const float w[PIECE], float c, int32_t n, mzm_dtype dtype)
{
	switch (dtype) {
	case MZM_BF16: put_bf16(out, carry, w, c, n); break;
	case MZM_F16: put_f16(out, carry, w, c, n); break;
	default: put_f32(out, w, c, n); break;
	}
}

static const char *in_at(const job *j, int32_t row, int32_t col)
{
	return j->in + ((size_t)row * (size_t)j->n_cols + (size_t)col) * j->elem;
}

/* Column col of copy r, in row `row` of the output. */
static char *out_at(const job *j, size_t row, int32_t r, int32_t col)
{
	size_t n_cols = (size_t)j->factor * (size_t)j->n_cols;
	return j->out + (row * n_cols + (size_t)r * (size_t)j->n_cols + (size_t)col) * j->elem;
}

/* The sum of copies runs along a row: blocks (s, 0) .. (s, factor-1). */
static void put_row(const job *j, size_t out_row, int32_t row, int32_t s)
{
	float w[PIECE] = {0}, carry[PIECE];
	const float *c = j->c + (size_t)s * (size_t)j->factor;
	for (int32_t col = 0; col < j->n_cols; col += PIECE) {
		int32_t n = j->n_cols - col < PIECE ? j->n_cols - col : PIECE;
		widen(w, in_at(j, row, col), j->dtype, n);
		clear(carry);
		for (int32_t r = 0; r < j->factor; r++)
			put_copy(out_at(j, out_row, r, col), carry, w, c[r], n, j->dtype);
	}
}

/* Row 2n+1 is the column of down of neuron n: its copies are rows, and the sum runs over those. */
static void put_down(const job *j, int32_t row)
{
	float w[PIECE] = {0}, carry[PIECE];
	size_t n_rows = (size_t)j->n_rows, factor = (size_t)j->factor;
	for (int32_t col = 0; col < j->n_cols; col += PIECE) {
		int32_t n = j->n_cols - col < PIECE ? j->n_cols - col : PIECE;
		widen(w, in_at(j, row, col), j->dtype, n);
		for (int32_t r = 0; r < j->factor; r++) {
			clear(carry);
			for (size_t s = 0; s < factor; s++)
				put_copy(out_at(j, s * n_rows + (size_t)row, r, col), carry, w,
					 j->d[s * factor + (size_t)r], n, j->dtype);
		}
	}
}

/* Rows of the inner tensor. Copy s of row i is row s * n_rows + i, also for pairs of rows. */
static void put_rows(void *ctx, int32_t begin, int32_t end)
{
	const job *j = ctx;
	for (int32_t row = begin; row < end; row++) {
		if (j->d && row % 2) {
			put_down(j, row);
			continue;
		}
		for (int32_t s = 0; s < j->n_copies; s++)
			put_row(j, (size_t)s * (size_t)j->n_rows + (size_t)row, row, s);
	}
}

/* Rows whose copies are the same bytes. */
static void repeat_rows(void *ctx, int32_t begin, int32_t end)
{
	const job *j = ctx;
	for (int32_t row = begin; row < end; row++)
		for (int32_t r = 0; r < j->factor; r++)
			memcpy(out_at(j, (size_t)row, r, 0), in_at(j, row, 0), (size_t)j->n_cols * j->elem);
}

/* A tied head adds up `factor` equal parts of each logit. */
static void scale_norm(void *norm, int32_t n, int32_t factor)
{
	for (int32_t i = 0; i < n; i++) {
		float f;
		memcpy(&f, (char *)norm + 4 * (size_t)i, 4);
		f /= (float)factor;
		memcpy((char *)norm + 4 * (size_t)i, &f, 4);
	}
}

/* ---- tensors ---- */

static bool is_norm(mzm_tensor_kind kind)
{
	return kind == MZM_T_ATTN_NORM || kind == MZM_T_FFN_NORM || kind == MZM_T_OUT_NORM;
}

/* The hash of a directory is known once all of it was read in order. */
static mzm_status note_hash(inflated *inf, mzm_err *err)
{
	const char *hash = mzm_source_hash(inf->inner);
	int bad = 0;
	pthread_mutex_lock(&inf->base.lock);
	if (hash && !json_object_get(inf->base.origin, "source_hash"))
		bad = json_object_set_new(inf->base.origin, "source_hash", json_string(hash));
	pthread_mutex_unlock(&inf->base.lock);
	return bad ? mzm_fail(err, MZM_ENOMEM, "out of memory: origin") : MZM_OK;
}

static mzm_status inflate(inflated *inf, const mzm_tensor *t, job *j, mzm_err *err)
{
	float *factors = NULL;
	bool same = t->kind == MZM_T_EMBED || is_norm(t->kind);
	uint64_t bytes = (uint64_t)mzm_tensor_bytes(t) * (uint64_t)inf->factor * (uint64_t)j->n_copies;
	if (!same)
		MZM_TRY(draw_factors(&factors, inf, t, err));
	j->c = factors;
	j->d = t->kind == MZM_T_UPDOWN ? factors + (size_t)inf->factor * (size_t)inf->factor : NULL;
	mzm_fill_rows(same ? repeat_rows : put_rows, j, j->n_rows, bytes, inf->n_threads);
	if (t->kind == MZM_T_OUT_NORM && inf->base.cfg.tied)
		scale_norm(j->out, inf->base.cfg.dim, inf->factor);
	mzm_free(factors);
	return MZM_OK;
}

static mzm_status inflate_read(mzm_source *src, int32_t i, void *dst, mzm_err *err)
{
	mzm_status st;
	inflated *inf = (inflated *)src;
	mzm_tensor t = mzm_source_tensor(inf->inner, i);
	bool tokens = t.kind == MZM_T_EMBED || t.kind == MZM_T_HEAD;
	void *in = NULL;
	MZM_TRY_OUT(mzm_alloc_for(&in, mzm_tensor_bytes(&t), "a tensor", err));
	MZM_TRY_OUT(mzm_source_read(inf->inner, i, in, err));
	job j = {.in = in,
		 .out = dst,
		 .dtype = t.dtype,
		 .elem = mzm_dtype_bytes(t.dtype),
		 .n_rows = t.n_rows,
		 .n_cols = t.n_cols,
		 .factor = inf->factor,
		 .n_copies = tokens || is_norm(t.kind) ? 1 : inf->factor};
	MZM_TRY_OUT(inflate(inf, &t, &j, err));
	MZM_TRY_OUT(note_hash(inf, err));
out:
	mzm_free(in);
	return st;
}

/* ---- the rest of the interface ---- */

static uint64_t inflate_bytes_read(const mzm_source *src)
{
	return mzm_source_bytes_read(((const inflated *)src)->inner);
}

static mzm_stored inflate_stored(const mzm_source *src, int32_t i)
{
	return (mzm_stored){.bytes = mzm_tensor_bytes(&src->tensors[i]), .n_extents = 1, .codec = "computed"};
}

static bool inflate_describe(const mzm_source *src, json_t *out)
{
	(void)src;
	(void)out;
	return true;
}

static bool inflate_uses(const mzm_source *src, const char *path)
{
	return mzm_source_uses(((const inflated *)src)->inner, path);
}

static void inflate_close(mzm_source *src)
{
	mzm_source_close(((inflated *)src)->inner);
}

static const mzm_source_ops inflate_ops = {
	.format = "inflated",
	.read = inflate_read,
	.bytes_read = inflate_bytes_read,
	.stored = inflate_stored,
	.describe = inflate_describe,
	.uses = inflate_uses,
	.close = inflate_close,
};

static mzm_status check_inner(const mzm_source *inner, mzm_err *err)
{
	char name[64];
	if (mzm_source_inflated(inner))
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"%s is inflated already; inflate the model that it was made from", inner->path);
	if (mzm_config_is_linear(&inner->cfg))
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"%s: only models with softmax attention can be inflated; this one's is linear "
				"(DiJiang)", inner->path);
	if (!mzm_config_is_plain(&inner->cfg) || inner->cfg.act >= MZM_ACT_GELU)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: only models built as Llama is can be inflated; this is %s",
				inner->path, inner->cfg.arch);
	for (int32_t i = 0; i < mzm_tensor_count(&inner->cfg); i++) {
		mzm_tensor t = mzm_source_tensor(inner, i);
		if (mzm_dtype_is_quant(t.dtype))
			return mzm_fail(err, MZM_EUNSUPPORTED,
					"%s: tensor %s is %s; only f32, f16 and bf16 weights can be inflated",
					inner->path, mzm_tensor_name(&t, name), mzm_dtype_name(t.dtype));
	}
	return MZM_OK;
}

static mzm_status widen_config(mzm_config *cfg, int32_t factor, mzm_err *err)
{
	int64_t widest = cfg->dim > cfg->n_ffn ? cfg->dim : cfg->n_ffn;
	int64_t heads = (int64_t)cfg->n_heads * cfg->head_dim;
	widest = heads > widest ? heads : widest;
	int64_t most = MZM_MAX_DIM / widest;
	if (factor < 1 || factor > MZM_MAX_INFLATE || factor > most)
		return mzm_fail(err, MZM_EARG, "cannot inflate %d times: for this model 1 .. %d are possible",
				(int)factor, (int)(most < MZM_MAX_INFLATE ? most : MZM_MAX_INFLATE));
	cfg->dim *= factor;
	cfg->n_ffn *= factor;
	cfg->n_heads *= factor;
	cfg->n_kv_heads *= factor;
	return mzm_config_check(cfg, err);
}

static mzm_status note_origin(mzm_source *src, const mzm_source *inner, int32_t factor, uint64_t seed, mzm_err *err)
{
	char text[24];
	snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
	json_t *o = json_pack("{s:s, s:i, s:s}", "kind", "inflated", "factor", (int)factor, "seed", text);
	bool ok = o && (!mzm_source_synthetic(inner) || json_object_set_new(o, "synthetic", json_true()) == 0);
	mzm_status st = ok ? mzm_source_set_origin(src, o, err) : mzm_fail(err, MZM_ENOMEM, "out of memory: origin");
	json_decref(o);
	return st;
}

static mzm_status inflate_init(inflated *inf, mzm_source *inner, int32_t factor, uint64_t seed, mzm_err *err)
{
	mzm_source *src = &inf->base;
	mzm_config cfg = inner->cfg;
	MZM_TRY(widen_config(&cfg, factor, err));
	mzm_source_allow_nonfinite(inner, false); /* NaN has no copies that add up to it */
	inf->factor = factor;
	inf->seed = seed;
	inf->n_threads = mzm_cores_usable("");
	MZM_TRY(mzm_source_set_config(src, &cfg, err));
	for (int32_t i = 0; i < src->n_tensors; i++)
		src->tensors[i].dtype = mzm_source_tensor(inner, i).dtype;
	for (int i = 0; i < MZM_N_SIDE_FILES; i++)
		src->side[i] = mzm_source_side_file(inner, (mzm_side_file)i, &src->side_len[i]);
	MZM_TRY(note_origin(src, inner, factor, seed, err));
	return mzm_hasher_create(&src->hasher, &src->cfg, err);
}

mzm_status mzm_source_open_inflated(mzm_source **out, mzm_source *inner, int32_t factor, uint64_t seed, mzm_err *err)
{
	mzm_status st;
	mzm_source *src = NULL;
	*out = NULL;
	MZM_TRY(check_inner(inner, err));
	MZM_TRY_OUT(mzm_source_init(&src, sizeof(inflated), &inflate_ops, inner->path, err));
	MZM_TRY_OUT(inflate_init((inflated *)src, inner, factor, seed, err));
	((inflated *)src)->inner = inner; /* ours from here on */
	*out = src;
	return MZM_OK;
out:
	mzm_source_close(src);
	return st;
}

void mzm_inflate_set_threads(mzm_source *src, int n_threads)
{
	((inflated *)src)->n_threads = n_threads > 0 ? n_threads : mzm_cores_usable("");
}
