/* gguf_build.h - GGUF files made for tests, whole or broken on purpose. Shares no code with src/format. */
#ifndef GGUF_BUILD_H
#define GGUF_BUILD_H

#include "testing.h"

#define GB_MAX 128

typedef struct gb_bytes {
	uint8_t *p;
	size_t   n, cap;
} gb_bytes;

static inline void gb_add(gb_bytes *b, const void *data, size_t n)
{
	if (b->n + n > b->cap) {
		b->cap = 2 * (b->n + n) + 64;
		b->p = realloc(b->p, b->cap);
		assert_non_null(b->p);
	}
	if (n)
		memcpy(b->p + b->n, data, n);
	b->n += n;
}

static inline void gb_u32(gb_bytes *b, uint32_t v)
{
	gb_add(b, &v, 4);
}

static inline void gb_u64(gb_bytes *b, uint64_t v)
{
	gb_add(b, &v, 8);
}

static inline void gb_text(gb_bytes *b, const char *s)
{
	gb_u64(b, strlen(s));
	gb_add(b, s, strlen(s));
}

typedef struct gb_tensor {
	char     name[64];
	uint32_t type;
	int      n_dims;
	uint64_t dims[4];
	uint64_t shift; /* added to its offset: to break it */
	uint8_t *data;
	size_t   bytes;
} gb_tensor;

/* A file in parts. Set what is to be wrong, then gb_file(). */
typedef struct gb {
	char      magic[5];
	uint32_t  version;
	uint64_t  alignment, n_more_tensors, n_more_keys; /* the counts say more than there is */
	gb_bytes  meta;                                   /* entries, one behind the other */
	uint64_t  n_keys;
	gb_tensor t[GB_MAX];
	int       n;
	uint64_t  seed;
	char      arch[32];
} gb;

static inline void gb_key(gb *g, const char *key, uint32_t type)
{
	gb_text(&g->meta, key);
	gb_u32(&g->meta, type);
	g->n_keys++;
}

static inline void gb_int(gb *g, const char *key, uint32_t v)
{
	gb_key(g, key, 4);
	gb_u32(&g->meta, v);
}

static inline void gb_real(gb *g, const char *key, float v)
{
	gb_key(g, key, 6);
	gb_add(&g->meta, &v, 4);
}

static inline void gb_string(gb *g, const char *key, const char *v)
{
	gb_key(g, key, 8);
	gb_text(&g->meta, v);
}

static inline void gb_flag(gb *g, const char *key, uint8_t v)
{
	gb_key(g, key, 7);
	gb_add(&g->meta, &v, 1);
}

static inline size_t gb_block_bytes(uint32_t type, size_t *n_weights)
{
	*n_weights = type < 2 || type == 30 ? 1 : type < 10 || type == 20 ? 32 : 256;
	switch (type) {
	case 0: return 4;
	case 1: case 30: return 2;
	case 2: case 20: return 18;
	case 3: return 20;
	case 6: return 22;
	case 7: return 24;
	case 8: return 34;
	case 10: return 84;
	case 11: return 110;
	case 12: return 144;
	case 13: return 176;
	case 14: return 210;
	default: return 136;
	}
}

/* Where the f16 scales of a block are; -1: there is no second one. */
static inline void gb_scales(uint32_t type, int at[2])
{
	at[0] = type == 10 ? 80 : type == 11 ? 108 : type == 14 ? 208 : 0;
	at[1] = type == 10 ? 82 : type == 3 || type == 7 || type == 12 || type == 13 ? 2 : -1;
}

/* Random weights of moderate size. */
static inline void gb_random(gb *g, gb_tensor *t)
{
	size_t n_weights, step = gb_block_bytes(t->type, &n_weights);
	int at[2];
	gb_scales(t->type, at);
	for (size_t i = 0; i + step <= t->bytes; i += step) {
		for (size_t k = 0; k < step; k++)
			t->data[i + k] = (uint8_t)testing_random(&g->seed);
		for (size_t k = 2; t->type == 8 && k < step; k++)
			t->data[i + k] = t->data[i + k] == 0x80 ? 0x81 : t->data[i + k]; /* writers never use -128 */
		if (t->type == 0) {
			float f = (float)((double)(int64_t)testing_random(&g->seed) * 0x1p-66);
			memcpy(t->data + i, &f, 4);
		} else if (t->type == 1) {
			t->data[i + 1] = (uint8_t)(0x20 | (t->data[i + 1] & 0x83)); /* about 0.01 */
		} else if (t->type == 30) {
			t->data[i + 1] = (uint8_t)(0x3c | (t->data[i + 1] & 0x80));
		}
		for (int k = 0; n_weights > 1 && k < 2 && at[k] >= 0; k++)
			t->data[i + (size_t)at[k] + 1] = (uint8_t)(0x10 | (t->data[i + (size_t)at[k] + 1] & 0x83));
	}
}

/* rows 0: a vector */
static inline gb_tensor *gb_add_tensor(gb *g, const char *name, uint32_t type, uint64_t cols, uint64_t rows)
{
	size_t n_weights, bytes = gb_block_bytes(type, &n_weights);
	gb_tensor *t = &g->t[g->n++];
	assert_true(g->n <= GB_MAX);
	*t = (gb_tensor){.type = type, .n_dims = rows ? 2 : 1, .dims = {cols, rows ? rows : 1, 1, 1}};
	snprintf(t->name, sizeof t->name, "%s", name);
	t->bytes = (size_t)(cols * (rows ? rows : 1)) / n_weights * bytes;
	t->data = malloc(t->bytes + 1);
	assert_non_null(t->data);
	gb_random(g, t);
	return t;
}

static inline gb_tensor *gb_find(gb *g, const char *name)
{
	for (int i = 0; i < g->n; i++)
		if (strcmp(g->t[i].name, name) == 0)
			return &g->t[i];
	fail_msg("%s", name);
	return NULL;
}

static inline gb_bytes gb_file(const gb *g)
{
	gb_bytes b = {0};
	uint64_t at = 0;
	gb_add(&b, g->magic, 4);
	gb_u32(&b, g->version);
	gb_u64(&b, (uint64_t)g->n + g->n_more_tensors);
	gb_u64(&b, g->n_keys + g->n_more_keys);
	gb_add(&b, g->meta.p, g->meta.n);
	for (int i = 0; i < g->n; i++) {
		const gb_tensor *t = &g->t[i];
		gb_text(&b, t->name);
		gb_u32(&b, (uint32_t)t->n_dims);
		for (int k = 0; k < t->n_dims; k++)
			gb_u64(&b, k < 4 ? t->dims[k] : 1);
		gb_u32(&b, t->type);
		gb_u64(&b, at + t->shift);
		at += (t->bytes + g->alignment - 1) / g->alignment * g->alignment;
	}
	for (int i = 0; i < g->n; i++) {
		while (b.n % g->alignment)
			gb_add(&b, "", 1);
		gb_add(&b, g->t[i].data, g->t[i].bytes);
	}
	return b;
}

static inline void gb_free(gb *g)
{
	for (int i = 0; i < g->n; i++)
		free(g->t[i].data);
	free(g->meta.p);
}

/* ---- models ---- */

/* What the files of a family look like. */
typedef struct gb_family {
	const char *arch;
	bool fused_qkv, fused_ffn, ungated, layer_norm, bias_qkv, bias_all, qk_norm, post_norm, head;
} gb_family;

static const gb_family gb_families[] = {
	{.arch = "llama"},
	{.arch = "qwen2", .bias_qkv = true, .head = true},
	{.arch = "qwen3", .qk_norm = true},
	{.arch = "gemma"},
	{.arch = "gemma2", .post_norm = true},
	{.arch = "gemma3", .qk_norm = true, .post_norm = true},
	{.arch = "phi3", .fused_qkv = true, .fused_ffn = true, .head = true},
	{.arch = "stablelm", .layer_norm = true, .bias_qkv = true, .head = true},
	{.arch = "gptneox", .fused_qkv = true, .ungated = true, .layer_norm = true, .bias_qkv = true, .bias_all = true,
	 .head = true},
};
#define GB_N_FAMILIES (sizeof gb_families / sizeof gb_families[0])

/* Keys of the architecture: "block_count". */
static inline const char *gb_arch_key(const gb *g, const char *name, char buf[128])
{
	snprintf(buf, 128, "%s.%s", g->arch, name);
	return buf;
}

static inline void gb_arch_int(gb *g, const char *name, uint32_t v)
{
	char buf[128];
	gb_int(g, gb_arch_key(g, name, buf), v);
}

static inline void gb_arch_real(gb *g, const char *name, float v)
{
	char buf[128];
	gb_real(g, gb_arch_key(g, name, buf), v);
}

static inline void gb_arch_string(gb *g, const char *name, const char *v)
{
	char buf[128];
	gb_string(g, gb_arch_key(g, name, buf), v);
}

static inline void gb_arch_flag(gb *g, const char *name, uint8_t v)
{
	char buf[128];
	gb_flag(g, gb_arch_key(g, name, buf), v);
}

/* A tensor of a layer (< 0: outside), and its bias where there is one. rows 0: a vector */
static inline void gb_part(gb *g, int layer, const char *name, uint32_t type, uint64_t cols, uint64_t rows, bool bias)
{
	char full[64];
	for (int k = 0; k < 1 + bias; k++) {
		if (layer >= 0)
			snprintf(full, sizeof full, "blk.%d.%.40s.%s", layer, name, k ? "bias" : "weight");
		else
			snprintf(full, sizeof full, "%.40s.%s", name, k ? "bias" : "weight");
		gb_add_tensor(g, full, k ? 0 : type, k && rows ? rows : cols, k ? 0 : rows);
	}
}

/* Two heads, one for k and v, but where all three are one tensor of equal thirds. */
static inline void gb_layer(gb *g, const gb_family *f, int l, uint32_t type, uint64_t dim)
{
	uint64_t kv = f->bias_all ? dim : dim / 2;
	gb_part(g, l, "attn_norm", 0, dim, 0, f->layer_norm);
	if (f->fused_qkv) {
		gb_part(g, l, "attn_qkv", type, dim, dim + 2 * kv, f->bias_qkv);
	} else {
		gb_part(g, l, "attn_q", type, dim, dim, f->bias_qkv);
		gb_part(g, l, "attn_k", type, dim, kv, f->bias_qkv);
		gb_part(g, l, "attn_v", type, dim, kv, f->bias_qkv);
	}
	for (int k = 0; f->qk_norm && k < 2; k++)
		gb_part(g, l, k ? "attn_k_norm" : "attn_q_norm", 0, dim / 2, 0, false);
	gb_part(g, l, "attn_output", type, dim, dim, f->bias_all);
	if (f->post_norm)
		gb_part(g, l, "post_attention_norm", 0, dim, 0, false);
	gb_part(g, l, "ffn_norm", 0, dim, 0, f->layer_norm);
	if (!f->ungated && !f->fused_ffn)
		gb_part(g, l, "ffn_gate", type, dim, 2 * dim, false);
	gb_part(g, l, "ffn_up", type, dim, f->fused_ffn ? 4 * dim : 2 * dim, f->bias_all);
	gb_part(g, l, "ffn_down", type, 2 * dim, dim, f->bias_all);
	if (f->post_norm)
		gb_part(g, l, "post_ffw_norm", 0, dim, 0, false);
}

/* A model of that many layers, whose FFN has 2 dim neurons, of 40 tokens. type: of its matrices. */
static inline void gb_family_model(gb *g, const gb_family *f, uint32_t type, uint32_t dim, int n_layers)
{
	*g = (gb){.magic = "GGUF", .version = 3, .alignment = 32, .seed = 7};
	snprintf(g->arch, sizeof g->arch, "%s", f->arch);
	gb_string(g, "general.architecture", f->arch);
	gb_arch_int(g, "block_count", (uint32_t)n_layers);
	gb_arch_int(g, "embedding_length", dim);
	gb_arch_int(g, "feed_forward_length", 2 * dim);
	gb_arch_int(g, "context_length", 128);
	gb_arch_int(g, "attention.head_count", 2);
	gb_arch_int(g, "attention.head_count_kv", f->bias_all ? 2 : 1);
	gb_arch_real(g, f->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", 1e-5f);
	if (f->ungated)
		gb_arch_flag(g, "use_parallel_residual", 1);
	gb_part(g, -1, "token_embd", type, dim, 40, false);
	for (int l = 0; l < n_layers; l++)
		gb_layer(g, f, l, type, dim);
	gb_part(g, -1, "output_norm", 0, dim, 0, f->layer_norm);
	if (f->head)
		gb_part(g, -1, "output", type, dim, 40, false);
}

/* Forty tokens and one merge: what an import asks for. */
static inline void gb_tokenizer(gb *g)
{
	gb_string(g, "tokenizer.ggml.model", "gpt2");
	gb_string(g, "tokenizer.ggml.pre", "gpt-2");
	gb_key(g, "tokenizer.ggml.tokens", 9);
	gb_u32(&g->meta, 8);
	gb_u64(&g->meta, 40);
	for (int i = 0; i < 39; i++) {
		const char text[2] = {(char)(i < 26 ? 'a' + i : 'A' + i - 26), 0};
		gb_text(&g->meta, text);
	}
	gb_text(&g->meta, "ab");
	gb_key(g, "tokenizer.ggml.merges", 9);
	gb_u32(&g->meta, 8);
	gb_u64(&g->meta, 1);
	gb_text(&g->meta, "a b");
}

static inline const gb_family *gb_family_of(const char *arch)
{
	for (size_t i = 0; i < GB_N_FAMILIES; i++)
		if (strcmp(gb_families[i].arch, arch) == 0)
			return &gb_families[i];
	fail_msg("%s", arch);
	return NULL;
}

/* Llama, of one layer. */
static inline void gb_model(gb *g, uint32_t type, uint32_t dim)
{
	gb_family_model(g, gb_family_of("llama"), type, dim, 1);
}

#endif
