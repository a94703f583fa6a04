/* tiny_model.h - a random Llama-type model for tests: written as a Hugging Face directory, and run by a
 * plain double-precision forward pass that shares no code with the library. */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/half.h"

typedef struct tiny_spec {
	int n_layers, dim, n_ffn, n_heads, n_kv_heads, head_dim, n_vocab, n_ctx;
	bool relu, tied, llama3_rope;
	const char *dtype; /* "F32", "F16", "BF16" */
	int eos;           /* -1: none */
	float scale;       /* of the weights; 0 = 1 */
} tiny_spec;

typedef struct tiny_layer {
	float *attn_norm, *ffn_norm, *wq, *wk, *wv, *wo, *gate, *up, *down; /* Hugging Face shapes */
} tiny_layer;

typedef struct tiny_model {
	tiny_spec   spec;
	char        dir[64];
	float      *embed, *out_norm, *head;
	tiny_layer *layer;
	FILE       *data;
	char       *header;
	size_t      header_len, offset;
	uint64_t    seed;
} tiny_model;

static inline double tiny_unit(uint64_t *seed) /* uniform in (-1, 1) */
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (double)(int64_t)(*seed >> 11) / (double)(1ll << 52) - 1.0;
}

/* A tensor of the model, rounded as its dtype rounds, and its bytes in the file. */
static inline float *tiny_tensor(tiny_model *m, const char *name, int rows, int cols, double scale, double offset)
{
	size_t n = (size_t)rows * (size_t)cols;
	float *w = malloc(n * sizeof *w);
	size_t es = m->spec.dtype[0] == 'B' || m->spec.dtype[1] == '1' ? 2 : 4;
	for (size_t i = 0; i < n; i++) {
		w[i] = (float)(offset + tiny_unit(&m->seed) * scale);
		uint16_t h;
		if (es == 4) {
			fwrite(&w[i], 4, 1, m->data);
			continue;
		}
		h = m->spec.dtype[0] == 'B' ? mzm_f32_to_bf16(w[i]) : mzm_f32_to_f16(w[i]);
		w[i] = m->spec.dtype[0] == 'B' ? mzm_bf16_to_f32(h) : mzm_f16_to_f32(h);
		fwrite(&h, 2, 1, m->data);
	}
	char shape[64];
	if (strstr(name, "norm"))
		snprintf(shape, sizeof shape, "[%d]", cols);
	else
		snprintf(shape, sizeof shape, "[%d,%d]", rows, cols);
	m->header = realloc(m->header, m->header_len + 512);
	m->header_len += (size_t)snprintf(m->header + m->header_len, 512,
					  "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
					  m->header_len ? "," : "", name, m->spec.dtype, shape, m->offset,
					  m->offset + n * es);
	m->offset += n * es;
	return w;
}

static inline void tiny_path(char out[128], const tiny_model *m, const char *name)
{
	snprintf(out, 128, "%s/%s", m->dir, name);
}

static inline void tiny_write_config(const tiny_model *m)
{
	char path[128];
	tiny_path(path, m, "config.json");
	FILE *f = fopen(path, "w");
	const tiny_spec *s = &m->spec;
	fprintf(f,
		"{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"%s\","
		"\"hidden_size\":%d,\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%d,"
		"\"num_key_value_heads\":%d,\"head_dim\":%d,\"vocab_size\":%d,\"rms_norm_eps\":1e-05,"
		"\"rope_theta\":10000.0,"
		"\"max_position_embeddings\":%d,\"tie_word_embeddings\":%s,\"attention_bias\":false,\"mlp_bias\":false,"
		"\"bos_token_id\":null,\"torch_dtype\":\"float32\"",
		s->relu ? "relu" : "silu", s->dim, s->n_ffn, s->n_layers, s->n_heads, s->n_kv_heads, s->head_dim,
		s->n_vocab, s->n_ctx, s->tied ? "true" : "false");
	if (s->eos >= 0)
		fprintf(f, ",\"eos_token_id\":%d", s->eos);
	if (s->llama3_rope)
		fprintf(f, ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
			   "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":64}");
	fprintf(f, "}");
	fclose(f);
}

static inline void tiny_write_weights(tiny_model *m)
{
	const tiny_spec *s = &m->spec;
	double g = s->scale > 0 ? (double)s->scale : 1.0, in = g * 1.7 / sqrt(s->dim), ff = g * 1.7 / sqrt(s->n_ffn);
	int q = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim;
	m->embed = tiny_tensor(m, "model.embed_tokens.weight", s->n_vocab, s->dim, 1.0, 0);
	m->layer = calloc((size_t)s->n_layers, sizeof *m->layer);
	for (int i = 0; i < s->n_layers; i++) {
		tiny_layer *l = &m->layer[i];
		char name[96];
#define T(field, suffix, rows, cols, scale, offset)                                     \
	(snprintf(name, sizeof name, "model.layers.%d." suffix ".weight", i),           \
	 l->field = tiny_tensor(m, name, rows, cols, scale, offset))
		T(attn_norm, "input_layernorm", 1, s->dim, 0.2, 1);
		T(wq, "self_attn.q_proj", q, s->dim, in * 2, 0);
		T(wk, "self_attn.k_proj", kv, s->dim, in * 2, 0);
		T(wv, "self_attn.v_proj", kv, s->dim, in, 0);
		T(wo, "self_attn.o_proj", s->dim, q, g * 1.7 / sqrt(q), 0);
		T(ffn_norm, "post_attention_layernorm", 1, s->dim, 0.2, 1);
		T(gate, "mlp.gate_proj", s->n_ffn, s->dim, in * 2, 0);
		T(up, "mlp.up_proj", s->n_ffn, s->dim, in, 0);
		T(down, "mlp.down_proj", s->dim, s->n_ffn, ff, 0);
#undef T
	}
	m->out_norm = tiny_tensor(m, "model.norm.weight", 1, s->dim, 0.2, 1);
	m->head = s->tied ? m->embed : tiny_tensor(m, "lm_head.weight", s->n_vocab, s->dim, in, 0);
}

/* Makes the model and its directory. -> tiny_free */
static inline tiny_model *tiny_make(const tiny_spec *spec, uint64_t seed)
{
	tiny_model *m = calloc(1, sizeof *m);
	m->spec = *spec;
	m->seed = seed * 0x9e3779b97f4a7c15u + 1;
	snprintf(m->dir, sizeof m->dir, "/tmp/mirzam-tiny-XXXXXX");
	if (!mkdtemp(m->dir))
		abort();
	tiny_write_config(m);
	m->data = tmpfile();
	tiny_write_weights(m);

	char path[128], buf[4096];
	tiny_path(path, m, "model.safetensors");
	FILE *f = fopen(path, "wb");
	uint64_t len = m->header_len + 2;
	uint64_t padded = (len + 7) & ~(uint64_t)7;
	fwrite(&padded, 8, 1, f);
	fprintf(f, "{%s}%*s", m->header, (int)(padded - len), "");
	rewind(m->data);
	for (size_t n; (n = fread(buf, 1, sizeof buf, m->data)) > 0;)
		fwrite(buf, 1, n, f);
	fclose(f);
	fclose(m->data);
	return m;
}

/* A tokenizer of three tokens, which a container must have. */
static inline void tiny_write_tokenizer(const tiny_model *m)
{
	char path[128];
	tiny_path(path, m, "tokenizer.json");
	FILE *f = fopen(path, "w");
	fputs("{\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":"
	      "false,\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\","
	      "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}",
	      f);
	fclose(f);
}

static inline void tiny_free(tiny_model *m)
{
	static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json", "form.mzm"};
	char path[128];
	for (int i = 0; i < 4; i++) {
		tiny_path(path, m, files[i]);
		unlink(path);
	}
	rmdir(m->dir);
	for (int i = 0; i < m->spec.n_layers; i++) {
		tiny_layer *l = &m->layer[i];
		float *all[] = {l->attn_norm, l->ffn_norm, l->wq, l->wk, l->wv, l->wo, l->gate, l->up, l->down};
		for (int j = 0; j < 9; j++)
			free(all[j]);
	}
	if (m->head != m->embed)
		free(m->head);
	free(m->embed);
	free(m->out_norm);
	free(m->layer);
	free(m->header);
	free(m);
}

/* ---- the reference forward pass: textbook loops in double ---- */

static inline void tiny_norm(double *y, const double *x, const float *w, int n)
{
	double sum = 0;
	for (int i = 0; i < n; i++)
		sum += x[i] * x[i];
	double r = 1 / sqrt(sum / n + 1e-5);
	for (int i = 0; i < n; i++)
		y[i] = x[i] * r * (double)w[i];
}

static inline void tiny_mul(double *y, const float *w, const double *x, int rows, int cols)
{
	for (int r = 0; r < rows; r++) {
		y[r] = 0;
		for (int c = 0; c < cols; c++)
			y[r] += (double)w[(size_t)r * (size_t)cols + (size_t)c] * x[c];
	}
}

static inline void tiny_rope(const tiny_spec *s, double *x, int pos)
{
	for (int i = 0; i < s->head_dim / 2; i++) {
		double f = pow(10000.0, -2.0 * i / s->head_dim);
		if (s->llama3_rope) { /* as published with Llama 3.1: three bands of wavelengths */
			double wavelen = 2 * M_PI / f, low = 64.0 / 1.0, high = 64.0 / 4.0;
			if (wavelen > low)
				f /= 8;
			else if (wavelen > high) {
				double smooth = (64.0 / wavelen - 1.0) / (4.0 - 1.0);
				f = (1 - smooth) * f / 8 + smooth * f;
			}
		}
		double c = cos(pos * f), n = sin(pos * f), a = x[i], b = x[i + s->head_dim / 2];
		x[i] = a * c - b * n;
		x[i + s->head_dim / 2] = b * c + a * n;
	}
}

static inline void tiny_attention(const tiny_model *m, const tiny_layer *l, double *x, int n)
{
	const tiny_spec *s = &m->spec;
	int hd = s->head_dim, q_dim = s->n_heads * hd, kv_dim = s->n_kv_heads * hd;
	double *h = calloc((size_t)s->dim, sizeof *h), *out = calloc((size_t)s->dim, sizeof *out);
	double *q = calloc((size_t)n * (size_t)q_dim, sizeof *q), *k = calloc((size_t)n * (size_t)kv_dim, sizeof *k);
	double *v = calloc((size_t)n * (size_t)kv_dim, sizeof *v), *score = calloc((size_t)n, sizeof *score);
	double *att = calloc((size_t)q_dim, sizeof *att);
	for (int t = 0; t < n; t++) {
		tiny_norm(h, x + t * s->dim, l->attn_norm, s->dim);
		tiny_mul(q + t * q_dim, l->wq, h, q_dim, s->dim);
		tiny_mul(k + t * kv_dim, l->wk, h, kv_dim, s->dim);
		tiny_mul(v + t * kv_dim, l->wv, h, kv_dim, s->dim);
		for (int i = 0; i < s->n_heads; i++)
			tiny_rope(s, q + t * q_dim + i * hd, t);
		for (int i = 0; i < s->n_kv_heads; i++)
			tiny_rope(s, k + t * kv_dim + i * hd, t);
	}
	for (int t = 0; t < n; t++) {
		memset(att, 0, (size_t)q_dim * sizeof *att);
		for (int i = 0; i < s->n_heads; i++) {
			int g = i / (s->n_heads / s->n_kv_heads);
			double max = -1e300, sum = 0;
			for (int u = 0; u <= t; u++) {
				score[u] = 0;
				for (int j = 0; j < hd; j++)
					score[u] += q[t * q_dim + i * hd + j] * k[u * kv_dim + g * hd + j];
				score[u] /= sqrt(hd);
				max = score[u] > max ? score[u] : max;
			}
			for (int u = 0; u <= t; u++)
				sum += score[u] = exp(score[u] - max);
			for (int u = 0; u <= t; u++)
				for (int j = 0; j < hd; j++)
					att[i * hd + j] += score[u] / sum * v[u * kv_dim + g * hd + j];
		}
		tiny_mul(out, l->wo, att, s->dim, q_dim);
		for (int i = 0; i < s->dim; i++)
			x[t * s->dim + i] += out[i];
	}
	double *all[] = {h, out, q, k, v, score, att};
	for (int i = 0; i < 7; i++)
		free(all[i]);
}

static inline void tiny_ffn(const tiny_model *m, const tiny_layer *l, double *x, int n)
{
	const tiny_spec *s = &m->spec;
	double *h = calloc((size_t)s->dim, sizeof *h), *out = calloc((size_t)s->dim, sizeof *out);
	double *g = calloc((size_t)s->n_ffn, sizeof *g), *u = calloc((size_t)s->n_ffn, sizeof *u);
	for (int t = 0; t < n; t++) {
		tiny_norm(h, x + t * s->dim, l->ffn_norm, s->dim);
		tiny_mul(g, l->gate, h, s->n_ffn, s->dim);
		tiny_mul(u, l->up, h, s->n_ffn, s->dim);
		for (int j = 0; j < s->n_ffn; j++)
			g[j] = (s->relu ? (g[j] > 0 ? g[j] : 0) : g[j] / (1 + exp(-g[j]))) * u[j];
		tiny_mul(out, l->down, g, s->dim, s->n_ffn);
		for (int i = 0; i < s->dim; i++)
			x[t * s->dim + i] += out[i];
	}
	free(h);
	free(out);
	free(g);
	free(u);
}

/* logits: [n, n_vocab] of a dense pass over ids[0..n) from an empty context. */
static inline void tiny_forward(const tiny_model *m, const int32_t *ids, int n, double *logits)
{
	const tiny_spec *s = &m->spec;
	double *x = calloc((size_t)n * (size_t)s->dim, sizeof *x), *h = calloc((size_t)s->dim, sizeof *h);
	for (int t = 0; t < n; t++)
		for (int i = 0; i < s->dim; i++)
			x[t * s->dim + i] = (double)m->embed[ids[t] * s->dim + i];
	for (int l = 0; l < s->n_layers; l++) {
		tiny_attention(m, &m->layer[l], x, n);
		tiny_ffn(m, &m->layer[l], x, n);
	}
	for (int t = 0; t < n; t++) {
		tiny_norm(h, x + t * s->dim, m->out_norm, s->dim);
		tiny_mul(logits + t * s->n_vocab, m->head, h, s->n_vocab, s->dim);
	}
	free(x);
	free(h);
}

#endif
