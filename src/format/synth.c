/* synth.c - see synth.h.
 *
 * Owns the table of shapes and the generator. Workload: gigabytes at a time. One mixed 64-bit counter gives four
 * weights: 12 bits of each quarter pick one of the 4,096 equally likely values of a table, so that a weight costs a
 * look-up and no arithmetic on reals. The table is computed by operations whose result is the same on every machine. */
#include "format/synth.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "format/fill.h"
#include "kern/cores.h"

#define N_VALUES 4096 /* of a weight */

typedef struct synth {
	mzm_source base;
	uint64_t   seed;
	int32_t    whole_layers; /* of the shape, before it was cut */
	int        n_threads;
	float      normal[N_VALUES];
} synth;

/* ---- shapes ---- */

#define SHAPE(layers, width, ffn, heads, kv_heads, head, vocab, ctx)                                          \
	.n_layers = layers, .dim = width, .n_ffn = ffn, .n_heads = heads, .n_kv_heads = kv_heads, .head_dim = head, \
	.n_vocab = vocab, .n_ctx = ctx
#define ROPE3(theta, factor)                                                                                    \
	.rope_theta = theta, .rope = MZM_ROPE_LLAMA3, .rope_factor = factor, .rope_low_freq = 1, .rope_high_freq = 4, \
	.rope_orig_ctx = 8192
#define IDS(bos, eos) .bos_id = bos, .n_eos = 1, .eos_ids = {eos}

typedef struct shape {
	const char *name;
	mzm_config  cfg;
} shape;

/* From the public config.json files; mistral-7b is version 0.3, the first without a sliding window. */
static const shape shapes[] = {
	{"gsmini-6m", {"llama", SHAPE(6, 256, 1024, 4, 2, 64, 2048, 1024), .tied = true, .norm_eps = 1e-5f,
		       .rope_theta = 10000, IDS(-1, 2047)}},
	{"smollm2-135m", {"llama", SHAPE(30, 576, 1536, 9, 3, 64, 49152, 8192), .tied = true, .norm_eps = 1e-5f,
			  .rope_theta = 100000, IDS(0, 0)}},
	{"smollm2-360m", {"llama", SHAPE(32, 960, 2560, 15, 5, 64, 49152, 8192), .tied = true, .norm_eps = 1e-5f,
			  .rope_theta = 100000, IDS(0, 0)}},
	{"smollm2-1.7b", {"llama", SHAPE(24, 2048, 8192, 32, 32, 64, 49152, 8192), .tied = true, .norm_eps = 1e-5f,
			  .rope_theta = 130000, IDS(0, 0)}},
	{"qwen2.5-0.5b", {"llama", SHAPE(24, 896, 4864, 14, 2, 64, 151936, 32768), .tied = true, .norm_eps = 1e-6f,
			  .rope_theta = 1e6, IDS(151643, 151643)}},
	{"qwen2.5-1.5b", {"llama", SHAPE(28, 1536, 8960, 12, 2, 128, 151936, 131072), .tied = true, .norm_eps = 1e-6f,
			  .rope_theta = 1e6, IDS(151643, 151643)}},
	{"qwen2.5-3b", {"llama", SHAPE(36, 2048, 11008, 16, 2, 128, 151936, 32768), .tied = true, .norm_eps = 1e-6f,
			.rope_theta = 1e6, IDS(151643, 151643)}},
	{"qwen2.5-7b", {"llama", SHAPE(28, 3584, 18944, 28, 4, 128, 152064, 131072), .norm_eps = 1e-6f,
			.rope_theta = 1e6, IDS(151643, 151643)}},
	{"tinyllama-1.1b", {"llama", SHAPE(22, 2048, 5632, 32, 4, 64, 32000, 2048), .norm_eps = 1e-5f,
			    .rope_theta = 10000, IDS(1, 2)}},
	{"llama-3.2-1b", {"llama", SHAPE(16, 2048, 8192, 32, 8, 64, 128256, 131072), .tied = true, .norm_eps = 1e-5f,
			  ROPE3(500000, 32), IDS(128000, 128001)}},
	{"llama-3.2-3b", {"llama", SHAPE(28, 3072, 8192, 24, 8, 128, 128256, 131072), .tied = true, .norm_eps = 1e-5f,
			  ROPE3(500000, 32), IDS(128000, 128001)}},
	{"llama-3.1-8b", {"llama", SHAPE(32, 4096, 14336, 32, 8, 128, 128256, 131072), .norm_eps = 1e-5f,
			  ROPE3(500000, 8), IDS(128000, 128001)}},
	{"llama-2-7b", {"llama", SHAPE(32, 4096, 11008, 32, 32, 128, 32000, 4096), .norm_eps = 1e-5f,
			.rope_theta = 10000, IDS(1, 2)}},
	{"llama-2-13b", {"llama", SHAPE(40, 5120, 13824, 40, 40, 128, 32000, 4096), .norm_eps = 1e-5f,
			 .rope_theta = 10000, IDS(1, 2)}},
	{"mistral-7b", {"mistral", SHAPE(32, 4096, 14336, 32, 8, 128, 32768, 32768), .norm_eps = 1e-5f,
			.rope_theta = 1e6, IDS(1, 2)}},
};

#define N_SHAPES ((int)(sizeof shapes / sizeof shapes[0]))

const char *mzm_synth_arch(int i, mzm_config *cfg)
{
	if (i < 0 || i >= N_SHAPES)
		return NULL;
	if (cfg)
		*cfg = shapes[i].cfg;
	return shapes[i].name;
}

static const shape *find_shape(const char *name)
{
	for (int i = 0; i < N_SHAPES; i++)
		if (strcmp(shapes[i].name, name) == 0)
			return &shapes[i];
	return NULL;
}

/* ---- values ---- */

#define STEP   (1.0 / 1024)
#define N_STEP 4608 /* up to 4.5 standard deviations; what lies beyond is a millionth */

/* The middle quantiles of 4,096 equal slices of the normal distribution, then scaled to variance 1: its area is summed
 * by trapezoids and the sum inverted by interpolation. */
static void fill_normal(float normal[N_VALUES])
{
	double area[N_STEP + 1] = {0}, squares = 0;
	int half = N_VALUES / 2, k = 0;
	for (int i = 0; i < N_STEP; i++) {
		double a = i * STEP, b = (i + 1) * STEP;
		double mean = ((double)mzm_expf((float)(-a * a / 2)) + (double)mzm_expf((float)(-b * b / 2))) / 2;
		area[i + 1] = area[i] + mean * STEP;
	}
	for (int i = 0; i < half; i++) {
		double want = (i + 0.5) / half * area[N_STEP];
		while (area[k + 1] < want)
			k++;
		double x = (k + (want - area[k]) / (area[k + 1] - area[k])) * STEP;
		normal[half + i] = (float)x;
		squares += x * x;
	}
	float scale = (float)(1 / sqrt(squares / half));
	for (int i = 0; i < half; i++) {
		normal[half + i] *= scale;
		normal[half - 1 - i] = -normal[half + i];
	}
}

static void fill_values(uint16_t values[N_VALUES], const float normal[N_VALUES], double deviation)
{
	for (int i = 0; i < N_VALUES; i++)
		values[i] = mzm_f32_to_bf16(normal[i] * (float)deviation);
}

/* Smaller on the way back into the residual stream, which sums over all layers. */
static double deviation_of(const synth *s, mzm_tensor_kind kind, bool down)
{
	const mzm_config *c = &s->base.cfg;
	double into_stream = 1 / sqrt(2.0 * s->whole_layers);
	if (kind == MZM_T_WO)
		return into_stream / sqrt((double)c->n_heads * c->head_dim);
	return down ? into_stream / sqrt(c->n_ffn) : 1 / sqrt(c->dim);
}

/* ---- rows ---- */

typedef struct job {
	uint16_t *dst; /* [n_rows, n_cols] */
	int32_t   n_cols;
	uint64_t  stream;
	uint16_t  values[2][N_VALUES]; /* of even and odd rows */
} job;

#define GOLDEN 0x9e3779b97f4a7c15u /* steps of a counter that mix well (Steele, Lea, Flood 2014) */

static void make_row(uint16_t *dst, const uint16_t values[N_VALUES], uint64_t stream, int32_t n)
{
	int32_t i = 0;
	for (; i + 4 <= n; i += 4) {
		uint64_t u = mzm_rng_mix(stream);
		dst[i] = values[u & (N_VALUES - 1)];
		dst[i + 1] = values[u >> 16 & (N_VALUES - 1)];
		dst[i + 2] = values[u >> 32 & (N_VALUES - 1)];
		dst[i + 3] = values[u >> 48 & (N_VALUES - 1)];
		stream += GOLDEN;
	}
	for (uint64_t u = mzm_rng_mix(stream); i < n; i++, u >>= 16)
		dst[i] = values[u & (N_VALUES - 1)];
}

static void make_rows(void *ctx, int32_t begin, int32_t end)
{
	const job *j = ctx;
	for (int32_t r = begin; r < end; r++)
		make_row(j->dst + (size_t)r * (size_t)j->n_cols, j->values[r & 1],
			 mzm_rng_mix(j->stream ^ (uint64_t)r), j->n_cols);
}

static void make_norm(void *dst, int32_t n)
{
	float one = 1;
	for (int32_t i = 0; i < n; i++)
		memcpy((char *)dst + (size_t)i * sizeof one, &one, sizeof one);
}

static mzm_status synth_read(mzm_source *src, int32_t i, void *dst, mzm_err *err)
{
	synth *s = (synth *)src;
	const mzm_tensor *t = &src->tensors[i];
	job *j;
	if (t->dtype == MZM_F32) {
		make_norm(dst, t->n_cols);
		return MZM_OK;
	}
	MZM_TRY(mzm_alloc_for((void **)&j, sizeof *j, "random weights", err));
	j->dst = dst;
	j->n_cols = t->n_cols;
	j->stream = mzm_rng_u64(s->seed, (uint64_t)t->kind, (uint64_t)(t->layer + 1));
	fill_values(j->values[0], s->normal, deviation_of(s, t->kind, false));
	fill_values(j->values[1], s->normal, deviation_of(s, t->kind, t->kind == MZM_T_UPDOWN));
	mzm_fill_rows(make_rows, j, t->n_rows, mzm_tensor_bytes(t), s->n_threads);
	mzm_free(j);
	return MZM_OK;
}

/* ---- the rest of the interface ---- */

static uint64_t synth_bytes_read(const mzm_source *src)
{
	(void)src;
	return 0;
}

static mzm_stored synth_stored(const mzm_source *src, int32_t i)
{
	return (mzm_stored){.bytes = mzm_tensor_bytes(&src->tensors[i]), .n_extents = 1, .codec = "computed"};
}

static bool synth_describe(const mzm_source *src, json_t *out)
{
	(void)src;
	(void)out;
	return true;
}

static bool synth_uses(const mzm_source *src, const char *path)
{
	(void)src;
	(void)path;
	return false;
}

static void synth_close(mzm_source *src)
{
	(void)src;
}

static const mzm_source_ops synth_ops = {
	.format = "synthetic",
	.read = synth_read,
	.bytes_read = synth_bytes_read,
	.stored = synth_stored,
	.describe = synth_describe,
	.uses = synth_uses,
	.close = synth_close,
};

static mzm_status check_layers(const shape *s, int32_t n_layers, mzm_err *err)
{
	if (n_layers < 0 || n_layers > s->cfg.n_layers)
		return mzm_fail(err, MZM_EARG, "%s has %d layers; cannot take %d of them (0 = all)", s->name,
				(int)s->cfg.n_layers, (int)n_layers);
	return MZM_OK;
}

static mzm_status note_origin(mzm_source *src, const char *name, uint64_t seed, mzm_err *err)
{
	char text[24];
	snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
	json_t *o = json_pack("{s:s, s:s, s:s}", "kind", "synthetic", "shape", name, "seed", text);
	mzm_status st = o ? mzm_source_set_origin(src, o, err) : mzm_fail(err, MZM_ENOMEM, "out of memory: origin");
	json_decref(o);
	return st;
}

mzm_status mzm_source_open_synth(mzm_source **out, const char *arch, int32_t n_layers, uint64_t seed, mzm_err *err)
{
	mzm_status st;
	mzm_source *src = NULL;
	const shape *whole = find_shape(arch);
	char path[64];
	*out = NULL;
	if (!whole)
		return mzm_fail(err, MZM_EARG, "no architecture \"%.40s\" is known", arch);
	MZM_TRY(check_layers(whole, n_layers, err));
	mzm_config cfg = whole->cfg;
	cfg.n_layers = n_layers ? n_layers : cfg.n_layers;
	snprintf(path, sizeof path, "synthetic %s", arch);
	MZM_TRY_OUT(mzm_source_init(&src, sizeof(synth), &synth_ops, path, err));
	synth *s = (synth *)src;
	s->seed = seed;
	s->whole_layers = whole->cfg.n_layers;
	s->n_threads = mzm_cores_usable("");
	fill_normal(s->normal);
	MZM_TRY_OUT(mzm_source_set_config(src, &cfg, err));
	for (int32_t i = 0; i < src->n_tensors; i++)
		src->tensors[i].dtype = src->tensors[i].n_rows > 1 ? MZM_BF16 : MZM_F32;
	src->allow_nonfinite = true; /* there are none: saves a pass over all weights */
	MZM_TRY_OUT(note_origin(src, arch, seed, err));
	MZM_TRY_OUT(mzm_hasher_create(&src->hasher, &src->cfg, err));
	*out = src;
	return MZM_OK;
out:
	mzm_source_close(src);
	return st;
}

void mzm_synth_set_threads(mzm_source *src, int n_threads)
{
	((synth *)src)->n_threads = n_threads > 0 ? n_threads : mzm_cores_usable("");
}
