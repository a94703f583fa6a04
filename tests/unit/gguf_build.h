/* gguf_build.h - GGUF files made for tests, whole or broken on purpose. Shares no code with src/format. */
#ifndef GGUF_BUILD_H
#define GGUF_BUILD_H

#include "testing.h"

#define GB_MAX 64

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

/* A model of one layer, whose FFN has 2 dim neurons. type: of its matrices. */
static inline void gb_model(gb *g, uint32_t type, uint32_t dim)
{
	*g = (gb){.magic = "GGUF", .version = 3, .alignment = 32, .seed = 7};
	gb_string(g, "general.architecture", "llama");
	gb_int(g, "llama.block_count", 1);
	gb_int(g, "llama.embedding_length", dim);
	gb_int(g, "llama.feed_forward_length", 2 * dim);
	gb_int(g, "llama.context_length", 128);
	gb_int(g, "llama.attention.head_count", 2);
	gb_int(g, "llama.attention.head_count_kv", 1);
	gb_real(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
	gb_add_tensor(g, "token_embd.weight", type, dim, 40);
	gb_add_tensor(g, "blk.0.attn_norm.weight", 0, dim, 0);
	gb_add_tensor(g, "blk.0.attn_q.weight", type, dim, dim);
	gb_add_tensor(g, "blk.0.attn_k.weight", type, dim, dim / 2);
	gb_add_tensor(g, "blk.0.attn_v.weight", type, dim, dim / 2);
	gb_add_tensor(g, "blk.0.attn_output.weight", type, dim, dim);
	gb_add_tensor(g, "blk.0.ffn_norm.weight", 0, dim, 0);
	gb_add_tensor(g, "blk.0.ffn_gate.weight", type, dim, 2 * dim);
	gb_add_tensor(g, "blk.0.ffn_up.weight", type, dim, 2 * dim);
	gb_add_tensor(g, "blk.0.ffn_down.weight", type, 2 * dim, dim);
	gb_add_tensor(g, "output_norm.weight", 0, dim, 0);
}

#endif
