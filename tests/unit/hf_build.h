/* hf_build.h - tiny Hugging Face directories, whole or broken on purpose, and an independent reading of
 * them as canonical tensors. Shares no code with src/format. */
#ifndef HF_BUILD_H
#define HF_BUILD_H

#include "testing.h"

#include "base/half.h"
#include "format/config.h"

#define HF_MAX_TENSORS 64

typedef struct hf_weight {
	char        name[96];
	const char *dtype; /* "F32", "F16", "BF16" or anything else of a given width */
	int         n_dims;
	long        shape[3];
	uint8_t    *data;
	size_t      bytes;
	int         shard;
} hf_weight;

typedef struct hf_build {
	int         n_layers, dim, n_ffn, n_heads, n_kv_heads, head_dim, n_vocab;
	bool        tied;
	const char *config;       /* text of config.json; NULL: that of a Llama of these sizes */
	const char *config_extra; /* more members of that one, each with a comma in front; may be NULL */
	const char *generation;   /* text of generation_config.json; may be NULL */
	bool        no_tokenizer;
	int         n_shards;     /* 0: one model.safetensors */
	hf_weight   w[HF_MAX_TENSORS];
	int         n;
	uint64_t    seed;
} hf_build;

static inline size_t hf_width(const char *dtype)
{
	return strcmp(dtype, "F32") == 0 || strcmp(dtype, "I32") == 0 ? 4 : strcmp(dtype, "I8") == 0 ? 1 : 2;
}

/* Finite, all signs and exponents of the type that the other types can hold. */
static inline void hf_random(hf_build *b, hf_weight *w)
{
	size_t width = hf_width(w->dtype);
	for (size_t i = 0; i < w->bytes / width; i++) {
		uint64_t r = testing_random(&b->seed);
		float f = (float)((double)(int64_t)(r >> 11) * 0x1p-52 - 1.0) * ((r & 7) == 0 ? 100.0f : 0.05f);
		uint16_t h = strcmp(w->dtype, "BF16") == 0 ? mzm_f32_to_bf16(f) : mzm_f32_to_f16(f);
		memcpy(w->data + i * width, width == 4 ? (void *)&f : (void *)&h, width);
	}
}

/* The n-th dimension may be 0 = absent. */
static inline hf_weight *hf_add(hf_build *b, const char *name, const char *dtype, long rows, long cols)
{
	hf_weight *w = &b->w[b->n++];
	assert_true(b->n <= HF_MAX_TENSORS);
	*w = (hf_weight){.dtype = dtype, .n_dims = cols ? 2 : 1, .shape = {rows, cols, 0}};
	snprintf(w->name, sizeof w->name, "%s", name);
	w->bytes = (size_t)rows * (size_t)(cols ? cols : 1) * hf_width(dtype);
	w->data = malloc(w->bytes + 1);
	assert_non_null(w->data);
	hf_random(b, w);
	return w;
}

static inline hf_weight *hf_find(hf_build *b, const char *name)
{
	for (int i = 0; i < b->n; i++)
		if (strcmp(b->w[i].name, name) == 0)
			return &b->w[i];
	return NULL;
}

static inline void hf_drop(hf_build *b, const char *name)
{
	hf_weight *w = hf_find(b, name);
	assert_non_null(w);
	free(w->data);
	*w = b->w[--b->n];
}

/* Same values in another type and shape are new values: the tensor is made anew. */
static inline void hf_remake(hf_build *b, const char *name, const char *dtype, long rows, long cols)
{
	char copy[96];
	snprintf(copy, sizeof copy, "%s", name);
	hf_drop(b, name);
	hf_add(b, copy, dtype, rows, cols);
}

/* A complete model of 2 layers with 2 heads; change b afterwards to break it. */
static inline void hf_init_sized(hf_build *b, const char *dtype, bool tied, int dim, int n_ffn, int head_dim)
{
	const int q = 2 * head_dim, kv = head_dim;
	const struct {
		const char *name;
		int rows, cols;
	} parts[] = {
		{"input_layernorm", dim, 0}, {"post_attention_layernorm", dim, 0}, {"self_attn.q_proj", q, dim},
		{"self_attn.k_proj", kv, dim}, {"self_attn.v_proj", kv, dim}, {"self_attn.o_proj", dim, q},
		{"mlp.gate_proj", n_ffn, dim}, {"mlp.up_proj", n_ffn, dim}, {"mlp.down_proj", dim, n_ffn},
	};
	*b = (hf_build){.n_layers = 2,
			.dim = dim,
			.n_ffn = n_ffn,
			.n_heads = 2,
			.n_kv_heads = 1,
			.head_dim = head_dim,
			.n_vocab = 300,
			.tied = tied,
			.seed = 7};
	hf_add(b, "model.embed_tokens.weight", dtype, b->n_vocab, dim);
	for (int l = 0; l < b->n_layers; l++)
		for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
			char name[96];
			snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, parts[i].name);
			hf_add(b, name, dtype, parts[i].rows, parts[i].cols);
		}
	hf_add(b, "model.norm.weight", dtype, dim, 0);
	if (!tied)
		hf_add(b, "lm_head.weight", dtype, b->n_vocab, dim);
}

static inline void hf_init(hf_build *b, const char *dtype, bool tied)
{
	hf_init_sized(b, dtype, tied, 8, 6, 4);
}

/* Rows of whole blocks, so that it can be quantised. */
static inline void hf_init_blocks(hf_build *b, const char *dtype, bool tied)
{
	hf_init_sized(b, dtype, tied, 64, 6, 16);
}

static inline void hf_free(hf_build *b)
{
	for (int i = 0; i < b->n; i++)
		free(b->w[i].data);
	b->n = 0;
}

static inline void hf_put(const char *dir, const char *name, const void *bytes, size_t n)
{
	char path[1024];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	testing_write(path, bytes, n);
}

/* One safetensors file of the weights of a shard; -1: all. *out malloc'ed. */
static inline void hf_safetensors(const hf_build *b, int shard, uint8_t **out, size_t *n_out)
{
	char *header = malloc((size_t)64 << 10);
	size_t at = 0, len;
	assert_non_null(header);
	len = (size_t)sprintf(header, "{\"__metadata__\":{\"format\":\"pt\"}");
	for (int i = 0; i < b->n; i++) {
		const hf_weight *w = &b->w[i];
		if (shard >= 0 && w->shard != shard)
			continue;
		len += (size_t)sprintf(header + len, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", w->name, w->dtype);
		for (int d = 0; d < w->n_dims; d++)
			len += (size_t)sprintf(header + len, "%s%ld", d ? "," : "", w->shape[d]);
		len += (size_t)sprintf(header + len, "],\"data_offsets\":[%zu,%zu]}", at, at + w->bytes);
		at += w->bytes;
	}
	header[len++] = '}';
	while (len % 8)
		header[len++] = ' ';
	uint8_t *file = malloc(8 + len + at);
	assert_non_null(file);
	for (int i = 0; i < 8; i++)
		file[i] = (uint8_t)(len >> 8 * i);
	memcpy(file + 8, header, len);
	free(header);
	at = 8 + len;
	for (int i = 0; i < b->n; i++)
		if (shard < 0 || b->w[i].shard == shard) {
			memcpy(file + at, b->w[i].data, b->w[i].bytes);
			at += b->w[i].bytes;
		}
	*out = file;
	*n_out = at;
}

static inline void hf_write_weights(hf_build *b, const char *dir)
{
	uint8_t *file;
	size_t n;
	if (!b->n_shards) {
		hf_safetensors(b, -1, &file, &n);
		hf_put(dir, "model.safetensors", file, n);
		free(file);
		return;
	}
	char *index = malloc((size_t)64 << 10);
	assert_non_null(index);
	size_t len = (size_t)sprintf(index, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
	for (int i = 0; i < b->n; i++) {
		b->w[i].shard = i % b->n_shards;
		len += (size_t)sprintf(index + len, "%s\"%s\":\"model-%d.safetensors\"", i ? "," : "", b->w[i].name,
				       b->w[i].shard);
	}
	len += (size_t)sprintf(index + len, "}}");
	hf_put(dir, "model.safetensors.index.json", index, len);
	free(index);
	for (int s = 0; s < b->n_shards; s++) {
		char name[64];
		snprintf(name, sizeof name, "model-%d.safetensors", s);
		hf_safetensors(b, s, &file, &n);
		hf_put(dir, name, file, n);
		free(file);
	}
}

/* Byte-level BPE over the 256 bytes and one merge. */
static inline char *hf_tokenizer(size_t *len)
{
	char *t = malloc(32768);
	assert_non_null(t);
	size_t n =
		(size_t)sprintf(t, "{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":"
				   "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
				   "\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},"
				   "\"model\":{\"type\":\"BPE\",\"vocab\":{");
	for (int i = 0, extra = 0; i < 256; i++) {
		bool printable = (i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i <= 0xac) || i >= 0xae;
		int c = printable ? i : 256 + extra++;
		n += (size_t)sprintf(t + n, "\"\\u%04x\":%d,", c, i);
	}
	n += (size_t)sprintf(t + n, "\"ab\":256},\"merges\":[\"a b\"]}}");
	*len = n;
	return t;
}

static inline void hf_write(hf_build *b, const char *dir)
{
	char config[4096];
	int n = snprintf(
		config, sizeof config,
		"{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_act\":\"silu\","
		"\"hidden_size\":%d,\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%d,"
		"\"num_key_value_heads\":%d,\"head_dim\":%d,\"vocab_size\":%d,\"max_position_embeddings\":64,"
		"\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":%s,\"eos_token_id\":2%s}",
		b->dim, b->n_ffn, b->n_layers, b->n_heads, b->n_kv_heads, b->head_dim, b->n_vocab,
		b->tied ? "true" : "false", b->config_extra ? b->config_extra : "");
	hf_put(dir, "config.json", b->config ? b->config : config, b->config ? strlen(b->config) : (size_t)n);
	if (b->generation)
		hf_put(dir, "generation_config.json", b->generation, strlen(b->generation));
	if (!b->no_tokenizer) {
		size_t len;
		char *t = hf_tokenizer(&len);
		hf_put(dir, "tokenizer.json", t, len);
		free(t);
	}
	hf_write_weights(b, dir);
}

/* ---- the canonical tensors of a checkpoint, worked out element by element ---- */

static inline float hf_value(const char *dtype, const uint8_t *data, size_t i)
{
	uint16_t h;
	float f;
	if (strcmp(dtype, "F32") == 0) {
		memcpy(&f, data + 4 * i, 4);
		return f;
	}
	memcpy(&h, data + 2 * i, 2);
	return strcmp(dtype, "BF16") == 0 ? mzm_bf16_to_f32(h) : mzm_f16_to_f32(h);
}

/* Where row r, column c of canonical tensor t is in a checkpoint: a name and an index into it. */
static inline size_t hf_locate(char name[96], const mzm_tensor *t, const mzm_config *cfg, int r, int c)
{
	static const char *const parts[] = {
		[MZM_T_ATTN_NORM] = "input_layernorm", [MZM_T_WQ] = "self_attn.q_proj",
		[MZM_T_WK] = "self_attn.k_proj",       [MZM_T_WV] = "self_attn.v_proj",
		[MZM_T_WO] = "self_attn.o_proj",       [MZM_T_FFN_NORM] = "post_attention_layernorm",
		[MZM_T_GATE] = "mlp.gate_proj",        [MZM_T_UPDOWN] = "mlp.up_proj",
	};
	const char *part = t->layer >= 0 ? parts[t->kind] : NULL;
	size_t index = (size_t)r * (size_t)t->n_cols + (size_t)c;
	if (t->kind == MZM_T_UPDOWN) {
		part = r % 2 ? "mlp.down_proj" : "mlp.up_proj";
		index = r % 2 ? (size_t)c * (size_t)cfg->n_ffn + (size_t)r / 2
			      : (size_t)(r / 2) * (size_t)t->n_cols + (size_t)c;
	}
	if (part)
		snprintf(name, 96, "model.layers.%d.%s.weight", (int)t->layer, part);
	else
		snprintf(name, 96, "%s", t->kind == MZM_T_EMBED ? "model.embed_tokens.weight"
				       : t->kind == MZM_T_HEAD ? "lm_head.weight" : "model.norm.weight");
	return index;
}

#endif
