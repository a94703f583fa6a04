/* gguf_config.c - the configuration of a GGUF model of the architecture "llama" (gguf_source.h).
 *
 * Every key that would change what the forward pass computes is read, or refused by its name unless it says what this
 * engine does anyway. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "format/gguf_source.h"
#include "format/gguf_types.h"

#define N_OF(a) (sizeof(a) / sizeof(a)[0])
#define MAX_HEAD 4096 /* of which RoPE's factors are read */

static mzm_status get_int(const mzm_gguf *g, const char *key, const int32_t *fallback, int32_t *out, mzm_err *err)
{
	uint64_t v;
	if (!mzm_gguf_has(g, key) && fallback) {
		*out = *fallback;
		return MZM_OK;
	}
	if (!mzm_gguf_u64(g, key, &v) || v > INT32_MAX)
		return mzm_fail(err, MZM_EFORMAT, "%s is missing or no whole number below 2^31", key);
	*out = (int32_t)v;
	return MZM_OK;
}

static mzm_status get_real(const mzm_gguf *g, const char *key, double fallback, double *out, mzm_err *err)
{
	*out = fallback;
	if ((mzm_gguf_has(g, key) || isnan(fallback)) && !mzm_gguf_f64(g, key, out))
		return mzm_fail(err, MZM_EFORMAT, "%s is missing or no finite number", key);
	return MZM_OK;
}

static bool text_is(const mzm_gguf_text *t, const char *s)
{
	return t->n == strlen(s) && memcmp(t->s, s, t->n) == 0;
}

/* For a message: what cannot be printed becomes '?'. */
static const char *shown(char buf[65], const mzm_gguf_text *t)
{
	size_t n = t->n < 64 ? t->n : 64;
	for (size_t i = 0; i < n; i++)
		buf[i] = (char)(t->s[i] >= 0x20 && t->s[i] <= 0x7e ? t->s[i] : '?');
	buf[n] = 0;
	return buf;
}

static mzm_status check_arch(const mzm_gguf *g, mzm_err *err)
{
	char buf[65];
	mzm_gguf_text arch, type;
	if (!mzm_gguf_string(g, "general.architecture", &arch))
		return mzm_fail(err, MZM_EFORMAT, "general.architecture is missing");
	if (mzm_gguf_has(g, "general.type") && (!mzm_gguf_string(g, "general.type", &type) || !text_is(&type, "model")))
		return mzm_fail(err, MZM_EUNSUPPORTED, "general.type is not \"model\"");
	if (!text_is(&arch, "llama"))
		return mzm_fail(err, MZM_EUNSUPPORTED, "architecture \"%s\" is not supported", shown(buf, &arch));
	return MZM_OK;
}

/* ---- what only other models have ---- */

static mzm_status refuse_numbers(const mzm_gguf *g, mzm_err *err)
{
	static const struct {
		const char *key;
		double      neutral;
	} keys[] = {
		{"llama.expert_count", 0},
		{"llama.expert_used_count", 0},
		{"llama.expert_shared_count", 0},
		{"llama.attn_logit_softcapping", 0},
		{"llama.final_logit_softcapping", 0},
		{"llama.router_logit_softcapping", 0},
		{"llama.attention.clamp_kqv", 0},
		{"llama.attention.max_alibi_bias", 0},
		{"llama.nextn_predict_layers", 0},
		{"llama.pooling_type", 0},
		{"llama.logit_scale", 1},
		{"llama.residual_scale", 1},
		{"llama.embedding_scale", 1},
		{"llama.rope.scale_linear", 1},
		{"llama.rope.scaling.attn_factor", 1},
	};
	for (size_t i = 0; i < N_OF(keys); i++) {
		double v = NAN;
		if (!mzm_gguf_has(g, keys[i].key))
			continue;
		if (!mzm_gguf_f64(g, keys[i].key, &v) || v != keys[i].neutral)
			return mzm_fail(err, MZM_EUNSUPPORTED, "%s other than %g is not supported", keys[i].key,
					keys[i].neutral);
	}
	return MZM_OK;
}

static mzm_status refuse_others(const mzm_gguf *g, const mzm_config *c, mzm_err *err)
{
	bool flag = false;
	uint64_t window = 0;
	double scale = 1 / sqrt((double)c->head_dim), found = scale;
	MZM_TRY(refuse_numbers(g, err));
	if (mzm_gguf_has(g, "llama.attention.sliding_window") &&
	    (!mzm_gguf_u64(g, "llama.attention.sliding_window", &window) ||
	     (window > 0 && window < (uint64_t)c->n_ctx)))
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"llama.attention.sliding_window, smaller than the context of %d, is not supported",
				(int)c->n_ctx);
	if (mzm_gguf_has(g, "llama.use_parallel_residual") &&
	    (!mzm_gguf_flag(g, "llama.use_parallel_residual", &flag) || flag))
		return mzm_fail(err, MZM_EUNSUPPORTED, "llama.use_parallel_residual is not supported");
	if (mzm_gguf_has(g, "llama.attention.causal") && (!mzm_gguf_flag(g, "llama.attention.causal", &flag) || !flag))
		return mzm_fail(err, MZM_EUNSUPPORTED, "llama.attention.causal other than true is not supported");
	if (mzm_gguf_has(g, "llama.attention.scale") &&
	    (!mzm_gguf_f64(g, "llama.attention.scale", &found) || fabs(found - scale) > 1e-6 * scale))
		return mzm_fail(err, MZM_EUNSUPPORTED, "llama.attention.scale other than %g is not supported", scale);
	if (mzm_gguf_has(g, "llama.rope.dimension_sections"))
		return mzm_fail(err, MZM_EUNSUPPORTED, "llama.rope.dimension_sections is not supported");
	return MZM_OK;
}

/* ---- RoPE ---- */

/* By what the frequency of pair i is divided (Llama 3.1). */
static double llama3_divisor(const mzm_config *c, int32_t i)
{
	double freq = pow(c->rope_theta, -2.0 * i / c->head_dim);
	double turns = c->rope_orig_ctx * freq / (2 * 3.14159265358979323846);
	if (turns < c->rope_low_freq)
		return c->rope_factor;
	if (turns > c->rope_high_freq)
		return 1;
	double smooth = (turns - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
	return 1 / ((1 - smooth) / c->rope_factor + smooth);
}

/* Files hold the divisors, not the numbers they came from: those of all published models are tried. */
static mzm_status rope_from_tensor(mzm_config *c, const mzm_gguf *g, const mzm_gguf_tensor *t, mzm_err *err)
{
	float found[MAX_HEAD / 2];
	int32_t n = c->head_dim / 2, orig = 8192, n_ones = 0;
	if (c->head_dim < 2 || c->head_dim > MAX_HEAD || t->type != MZM_GGML_F32 || t->n_dims != 1 ||
	    t->dims[0] != (uint64_t)n)
		return mzm_fail(err, MZM_EFORMAT, "tensor %s is not F32 of half a head", t->name);
	MZM_TRY(mzm_gguf_read(g, t, 0, (size_t)n * sizeof found[0], found, err));
	for (int32_t i = 0; i < n; i++)
		n_ones += found[i] == 1.0f;
	if (n_ones == n)
		return MZM_OK;
	MZM_TRY(get_int(g, "llama.rope.scaling.original_context_length", &orig, &c->rope_orig_ctx, err));
	c->rope = MZM_ROPE_LLAMA3;
	c->rope_factor = (double)found[n - 1];
	c->rope_low_freq = 1;
	c->rope_high_freq = 4;
	for (int32_t i = 0; i < n; i++) {
		double want = llama3_divisor(c, i);
		if (!(fabs((double)found[i] - want) <= 1e-4 * want))
			return mzm_fail(err, MZM_EUNSUPPORTED,
					"tensor %s: factor %d is %g; only the scaling of Llama 3 is supported (%g)",
					t->name, (int)i, (double)found[i], want);
	}
	return MZM_OK;
}

static mzm_status llama3_from_metadata(mzm_config *c, const mzm_gguf *g, mzm_err *err)
{
	c->rope = MZM_ROPE_LLAMA3;
	MZM_TRY(get_real(g, "llama.rope.scaling.factor", NAN, &c->rope_factor, err));
	MZM_TRY(get_real(g, "llama.rope.scaling.low_freq_factor", NAN, &c->rope_low_freq, err));
	MZM_TRY(get_real(g, "llama.rope.scaling.high_freq_factor", NAN, &c->rope_high_freq, err));
	return get_int(g, "llama.rope.scaling.original_context_length", NULL, &c->rope_orig_ctx, err);
}

static mzm_status read_rope(mzm_config *c, const mzm_gguf *g, mzm_err *err)
{
	char buf[65];
	int32_t n_dims;
	double factor = 1;
	mzm_gguf_text type = {"none", 4};
	const mzm_gguf_tensor *t = mzm_gguf_find(g, MZM_GGUF_ROPE_FREQS);
	MZM_TRY(get_real(g, "llama.rope.freq_base", 10000, &c->rope_theta, err));
	MZM_TRY(get_int(g, "llama.rope.dimension_count", &c->head_dim, &n_dims, err));
	if (n_dims != c->head_dim)
		return mzm_fail(err, MZM_EUNSUPPORTED, "llama.rope.dimension_count %d of heads of %d is not supported",
				(int)n_dims, (int)c->head_dim);
	if (mzm_gguf_has(g, "llama.rope.scaling.type") && !mzm_gguf_string(g, "llama.rope.scaling.type", &type))
		return mzm_fail(err, MZM_EFORMAT, "llama.rope.scaling.type is not a string");
	if (text_is(&type, "llama3"))
		return t ? rope_from_tensor(c, g, t, err) : llama3_from_metadata(c, g, err);
	if (!text_is(&type, "none") && !text_is(&type, "linear"))
		return mzm_fail(err, MZM_EUNSUPPORTED, "llama.rope.scaling.type \"%s\" is not supported",
				shown(buf, &type));
	MZM_TRY(get_real(g, "llama.rope.scaling.factor", 1, &factor, err));
	if (factor != 1 && (!t || text_is(&type, "linear")))
		return mzm_fail(err, MZM_EUNSUPPORTED, "llama.rope.scaling.factor %g is not supported", factor);
	return t ? rope_from_tensor(c, g, t, err) : MZM_OK;
}

/* ---- tokens ---- */

/* -1: there is none, which files also write as 2^32 - 1. */
static mzm_status token_id(const mzm_gguf *g, const char *key, const mzm_config *c, int32_t *out, mzm_err *err)
{
	uint64_t v;
	*out = -1;
	if (!mzm_gguf_has(g, key))
		return MZM_OK;
	if (!mzm_gguf_u64(g, key, &v) || (v != UINT32_MAX && v >= (uint64_t)c->n_vocab))
		return mzm_fail(err, MZM_EFORMAT, "%s is no token of the vocabulary of %d", key, (int)c->n_vocab);
	*out = v == UINT32_MAX ? -1 : (int32_t)v;
	return MZM_OK;
}

/* Ends of a text, of a turn and of a message all end a generation. */
static mzm_status read_tokens(mzm_config *c, const mzm_gguf *g, mzm_err *err)
{
	static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
					   "tokenizer.ggml.eom_token_id"};
	MZM_TRY(token_id(g, "tokenizer.ggml.bos_token_id", c, &c->bos_id, err));
	for (size_t i = 0; i < N_OF(ends); i++) {
		int32_t id;
		bool known = false;
		MZM_TRY(token_id(g, ends[i], c, &id, err));
		for (int32_t k = 0; k < c->n_eos; k++)
			known = known || c->eos_ids[k] == id;
		if (id >= 0 && !known)
			c->eos_ids[c->n_eos++] = id;
	}
	return MZM_OK;
}

/* ---- all of it ---- */

static mzm_status read_shape(mzm_config *c, const mzm_gguf *g, mzm_err *err)
{
	int32_t head_dim, value_dim;
	MZM_TRY(get_int(g, "llama.block_count", NULL, &c->n_layers, err));
	MZM_TRY(get_int(g, "llama.embedding_length", NULL, &c->dim, err));
	MZM_TRY(get_int(g, "llama.feed_forward_length", NULL, &c->n_ffn, err));
	MZM_TRY(get_int(g, "llama.context_length", NULL, &c->n_ctx, err));
	MZM_TRY(get_int(g, "llama.attention.head_count", NULL, &c->n_heads, err));
	MZM_TRY(get_int(g, "llama.attention.head_count_kv", &c->n_heads, &c->n_kv_heads, err));
	if (c->n_heads < 1 || (!mzm_gguf_has(g, "llama.attention.key_length") && c->dim % c->n_heads != 0))
		return mzm_fail(err, MZM_EFORMAT, "llama.attention.head_count %d does not divide the size %d",
				(int)c->n_heads, (int)c->dim);
	head_dim = c->dim / c->n_heads;
	MZM_TRY(get_int(g, "llama.attention.key_length", &head_dim, &c->head_dim, err));
	MZM_TRY(get_int(g, "llama.attention.value_length", &c->head_dim, &value_dim, err));
	if (value_dim != c->head_dim)
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"llama.attention.value_length %d other than the key length %d is not supported",
				(int)value_dim, (int)c->head_dim);
	const mzm_gguf_tensor *embed = mzm_gguf_find(g, MZM_GGUF_EMBED);
	if (!embed)
		return mzm_fail(err, MZM_EFORMAT, "tensor %s is missing", MZM_GGUF_EMBED);
	if (embed->n_dims != 2 || embed->dims[1] > MZM_MAX_VOCAB)
		return mzm_fail(err, MZM_EFORMAT, "tensor %s is no matrix of at most %d tokens", MZM_GGUF_EMBED,
				MZM_MAX_VOCAB);
	c->n_vocab = (int32_t)embed->dims[1];
	return MZM_OK;
}

mzm_status mzm_gguf_config(mzm_config *out, const mzm_gguf *g, mzm_err *err)
{
	double eps;
	mzm_config c = {.arch = "llama", .act = MZM_ACT_SILU, .rope = MZM_ROPE_PLAIN, .bos_id = -1};
	MZM_TRY(check_arch(g, err));
	MZM_TRY(read_shape(&c, g, err));
	MZM_TRY(get_real(g, "llama.attention.layer_norm_rms_epsilon", NAN, &eps, err));
	c.norm_eps = (float)eps;
	c.tied = mzm_gguf_find(g, MZM_GGUF_HEAD) == NULL;
	MZM_TRY(refuse_others(g, &c, err));
	MZM_TRY(read_rope(&c, g, err));
	MZM_TRY(read_tokens(&c, g, err));
	MZM_TRY(mzm_config_check(&c, err));
	*out = c;
	return MZM_OK;
}
