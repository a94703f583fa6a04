/* config.c - see config.h.
 *
 * Owns: our own JSON form of mzm_config, the checks that every source's must pass, and the list of canonical tensors.
 * Workload: once a file. Every number is read through typed getters that name the key. It opens no file. */
#include "format/config_impl.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* The limits keep every product below 2^63: (4 bytes) * 4096 layers * 3 * 2^20 * 2^20 = 2^55.6. */
_Static_assert((uint64_t)MZM_MAX_LAYERS * 16 * MZM_MAX_DIM <= UINT64_MAX / 4 / MZM_MAX_DIM, "parameter count fits");
_Static_assert((uint64_t)MZM_MAX_VOCAB * MZM_MAX_DIM <= UINT64_MAX / 16, "embedding fits");

const char *const mzm_arch_names[] = {"llama",  "mistral", "qwen2", "qwen3",    "gemma",   "gemma2",
				      "gemma3", "phi3",    "opt",   "stablelm", "gptneox", NULL};

static const char *const act_names[] = {
	[MZM_ACT_SILU] = "silu",	   [MZM_ACT_RELU] = "relu",	  [MZM_ACT_GELU] = "gelu",
	[MZM_ACT_GELU_TANH] = "gelu_tanh", [MZM_ACT_FATRELU] = "fatrelu",
};
static const char *const rope_names[] = {
	[MZM_ROPE_PLAIN] = "plain", [MZM_ROPE_LLAMA3] = "llama3", [MZM_ROPE_LINEAR] = "linear",
	[MZM_ROPE_LONG] = "long",   [MZM_ROPE_NONE] = "none",
};
static const char *const norm_names[] = {[MZM_NORM_RMS] = "rms", [MZM_NORM_LAYER] = "layer"};
static const char *const attn_names[] = {
	[MZM_ATTN_SOFTMAX] = "softmax", [MZM_ATTN_DIJIANG_PAPER] = "dijiang-paper", [MZM_ATTN_DIJIANG] = "dijiang"};
static const char *const parallel_names[] = {
	[MZM_SERIAL] = "no", [MZM_PARALLEL] = "yes", [MZM_PARALLEL_SHARED] = "shared"};

#define N_OF(array) (sizeof(array) / sizeof(array)[0])

/* ---- checks ---- */

static mzm_status check_range(const char *name, int64_t value, int64_t min, int64_t max, mzm_err *err)
{
	if (value < min || value > max)
		return mzm_fail(err, MZM_EFORMAT, "%s is %lld, outside %lld .. %lld", name, (long long)value,
				(long long)min, (long long)max);
	return MZM_OK;
}

static mzm_status check_shape(const mzm_config *c, mzm_err *err)
{
	MZM_TRY(check_range("the number of layers", c->n_layers, 1, MZM_MAX_LAYERS, err));
	MZM_TRY(check_range("the hidden size", c->dim, 1, MZM_MAX_DIM, err));
	MZM_TRY(check_range("the FFN size", c->n_ffn, 1, MZM_MAX_DIM, err));
	MZM_TRY(check_range("the number of heads", c->n_heads, 1, MZM_MAX_DIM, err));
	MZM_TRY(check_range("the number of KV heads", c->n_kv_heads, 1, MZM_MAX_DIM, err));
	MZM_TRY(check_range("the head size", c->head_dim, 1, MZM_MAX_DIM, err));
	MZM_TRY(check_range("the vocabulary", c->n_vocab, 1, MZM_MAX_VOCAB, err));
	MZM_TRY(check_range("the context length", c->n_ctx, 1, MZM_MAX_CTX, err));
	if (c->n_heads % c->n_kv_heads != 0)
		return mzm_fail(err, MZM_EFORMAT, "%d heads are no multiple of %d KV heads", (int)c->n_heads,
				(int)c->n_kv_heads);
	if (mzm_config_rope_dim(c) % 2 != 0)
		return mzm_fail(err, MZM_EFORMAT, "%d dimensions of a head are odd; RoPE rotates pairs",
				(int)mzm_config_rope_dim(c));
	return check_range("heads times head size", (int64_t)c->n_heads * c->head_dim, 1, MZM_MAX_DIM, err);
}

/* Negated comparisons, so that a NaN fails. */
static mzm_status check_real(const char *name, double value, double min, double max, mzm_err *err)
{
	if (!(value >= min && value <= max))
		return mzm_fail(err, MZM_EFORMAT, "%s %g is outside %g .. %g", name, value, min, max);
	return MZM_OK;
}

static mzm_status check_divisors(const mzm_config *c, mzm_err *err)
{
	int32_t n = mzm_config_rope_dim(c) / 2;
	MZM_TRY(check_range("the number of rotated pairs", n, 1, MZM_MAX_PAIRS, err));
	for (int32_t i = 0; i < n; i++) {
		MZM_TRY(check_real("a short RoPE factor", (double)c->rope_short[i], 1e-6, 1e6, err));
		MZM_TRY(check_real("a long RoPE factor", (double)c->rope_long[i], 1e-6, 1e6, err));
	}
	return check_real("the RoPE attention factor", c->rope_attn_factor, 1e-6, 1e6, err);
}

static mzm_status check_rope(const mzm_config *c, mzm_err *err)
{
	MZM_TRY(check_range("the rotated part of a head", c->rope_dim, 0, c->head_dim, err));
	MZM_TRY(check_real("the RoPE base", c->rope_theta, 1, 1e15, err));
	if (c->rope_local_theta != 0)
		MZM_TRY(check_real("the RoPE base of local layers", c->rope_local_theta, 1, 1e15, err));
	if (c->rope == MZM_ROPE_PLAIN || c->rope == MZM_ROPE_NONE)
		return MZM_OK;
	if (c->rope == MZM_ROPE_LONG)
		MZM_TRY(check_divisors(c, err));
	else
		MZM_TRY(check_real("the RoPE scaling factor", c->rope_factor, 1, 1e6, err));
	if (c->rope == MZM_ROPE_LINEAR)
		return MZM_OK;
	if (c->rope == MZM_ROPE_LLAMA3 &&
	    !(c->rope_low_freq > 0 && c->rope_low_freq < c->rope_high_freq && c->rope_high_freq <= 1e6))
		return mzm_fail(err, MZM_EFORMAT,
				"RoPE frequency factors: wanted 0 < low < high <= 1e6, found %g and %g",
				c->rope_low_freq, c->rope_high_freq);
	return check_range("the original context length of RoPE", c->rope_orig_ctx, 1, MZM_MAX_CTX, err);
}

static mzm_status check_reals(const mzm_config *c, mzm_err *err)
{
	MZM_TRY(check_real("the norm's epsilon", (double)c->norm_eps, 1e-30, 1, err));
	MZM_TRY(check_rope(c, err));
	if (c->embed_scale != 0)
		MZM_TRY(check_real("the scale of embeddings", c->embed_scale, 1e-6, 1e6, err));
	if (c->attn_scale != 0)
		MZM_TRY(check_real("the scale of attention", c->attn_scale, 1e-9, 1e3, err));
	if (c->attn_softcap != 0)
		MZM_TRY(check_real("the cap of attention scores", c->attn_softcap, 1e-3, 1e9, err));
	if (c->logit_softcap != 0)
		MZM_TRY(check_real("the cap of logits", c->logit_softcap, 1e-3, 1e9, err));
	return check_real("the threshold of the activation", (double)c->act_threshold, 0, 1e9, err);
}

static mzm_status check_window(const mzm_config *c, mzm_err *err)
{
	MZM_TRY(check_range("the window of attention", c->window, 0, MZM_MAX_CTX, err));
	bool any = false;
	for (int32_t l = 0; l < MZM_MAX_LAYERS; l++) {
		if (!mzm_config_is_local(c, l))
			continue;
		any = true;
		MZM_TRY(check_range("a local layer", l, 0, c->n_layers - 1, err));
	}
	if (any != (c->window > 0))
		return mzm_fail(err, MZM_EFORMAT, any ? "local layers without a window" : "a window without a layer");
	return MZM_OK;
}

#define MAX_FEATURES 1024    /* of a head whose attention is linear: its state is their square */
#define MAX_DECAYS   (1 << 24) /* of a layer; tables in f32 end long before: dijiang.h */

/* Linear attention has scores, but no softmax of them. */
static mzm_status check_attention(const mzm_config *c, mzm_err *err)
{
	bool decays = c->attn == MZM_ATTN_DIJIANG;
	if (c->decay_len != 0 && !decays)
		return mzm_fail(err, MZM_EFORMAT, "decay_len without attention that decays");
	if (c->no_denominator && c->attn != MZM_ATTN_DIJIANG_PAPER)
		return mzm_fail(err, MZM_EFORMAT, "no_denominator with attention \"%s\"", attn_names[c->attn]);
	if (!mzm_config_is_linear(c))
		return MZM_OK;
	if (c->window != 0 || c->attn_softcap != 0 || c->attn_scale != 0)
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"%s\" is not supported with attention \"%s\"",
				c->window ? "window" : c->attn_softcap != 0 ? "attn_softcap" : "attn_scale",
				attn_names[c->attn]);
	MZM_TRY(check_range("the head size of linear attention", c->head_dim, 1, MAX_FEATURES, err));
	if (!decays)
		return MZM_OK;
	MZM_TRY(check_range("the length of the decay tables", c->decay_len, 2, MZM_MAX_CTX, err));
	return check_range("heads times the length of the decay tables", (int64_t)c->n_kv_heads * c->decay_len, 2,
			   MAX_DECAYS, err);
}

static bool is_known_arch(const char *arch)
{
	for (size_t i = 0; mzm_arch_names[i]; i++)
		if (strcmp(arch, mzm_arch_names[i]) == 0)
			return true;
	return false;
}

mzm_status mzm_config_check(const mzm_config *c, mzm_err *err)
{
	if (memchr(c->arch, 0, sizeof c->arch) == NULL || !is_known_arch(c->arch))
		return mzm_fail(err, MZM_EUNSUPPORTED, "architecture \"%.*s\" is not supported",
				(int)sizeof c->arch - 1, c->arch);
	if ((unsigned)c->act >= N_OF(act_names) || (unsigned)c->rope >= N_OF(rope_names) ||
	    (unsigned)c->norm >= N_OF(norm_names) || (unsigned)c->parallel >= N_OF(parallel_names) ||
	    (unsigned)c->attn >= N_OF(attn_names))
		return mzm_fail(err, MZM_EFORMAT, "unknown activation, RoPE, norm, attention or kind of block");
	if (c->post_norm && (c->norm != MZM_NORM_RMS || c->parallel != MZM_SERIAL))
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"norms behind a block with layer norms or parallel blocks are not supported");
	MZM_TRY(check_shape(c, err));
	MZM_TRY(check_reals(c, err));
	MZM_TRY(check_window(c, err));
	MZM_TRY(check_attention(c, err));
	MZM_TRY(check_range("the BOS id", c->bos_id, -1, c->n_vocab - 1, err));
	MZM_TRY(check_range("the number of EOS ids", c->n_eos, 0, MZM_MAX_EOS, err));
	for (int32_t i = 0; i < c->n_eos; i++)
		MZM_TRY(check_range("an EOS id", c->eos_ids[i], 0, c->n_vocab - 1, err));
	return MZM_OK;
}

/* ---- reading JSON ---- */

const json_t *mzm_cfg_member(const json_t *obj, const char *key)
{
	const json_t *v = json_object_get(obj, key);
	return v && json_is_null(v) ? NULL : v;
}

mzm_status mzm_cfg_need_object(const json_t *v, const char *what, mzm_err *err)
{
	return json_is_object(v) ? MZM_OK : mzm_fail(err, MZM_EFORMAT, "%s is not a JSON object", what);
}

/* Printable ASCII only: all we look for, and safe to repeat in a message. */
bool mzm_cfg_is_plain(const json_t *v)
{
	const char *s = json_string_value(v);
	for (size_t i = 0; i < json_string_length(v); i++)
		if (s[i] < 0x20 || s[i] > 0x7e)
			return false;
	return true;
}

/* A plain string; NULL when absent. */
mzm_status mzm_cfg_text(const json_t *obj, const char *key, const char **out, mzm_err *err)
{
	MZM_TRY(mzm_json_string(obj, key, NULL, out, err));
	if (*out && !mzm_cfg_is_plain(json_object_get(obj, key)))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" holds characters beyond printable ASCII", key);
	return MZM_OK;
}

mzm_status mzm_cfg_need_text(const json_t *obj, const char *key, const char **out, mzm_err *err)
{
	MZM_TRY(mzm_cfg_text(obj, key, out, err));
	return *out ? MZM_OK : mzm_fail(err, MZM_EFORMAT, "\"%s\" is missing", key);
}

mzm_status mzm_cfg_need_int(const json_t *obj, const char *key, int64_t min, int64_t max, int32_t *out, mzm_err *err)
{
	int64_t v;
	if (!mzm_cfg_member(obj, key))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is missing", key);
	MZM_TRY(mzm_json_int(obj, key, min, max, 0, &v, err));
	*out = (int32_t)v;
	return MZM_OK;
}

mzm_status mzm_cfg_need_real(const json_t *obj, const char *key, double min, double max, double *out, mzm_err *err)
{
	if (!mzm_cfg_member(obj, key))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is missing", key);
	return mzm_json_real(obj, key, min, max, 0, out, err);
}

/* Index of text in names; EUNSUPPORTED naming the key and what was found. Hostile text is cut short. */
mzm_status mzm_cfg_pick(const char *const *names, size_t n, const char *key, const char *text, int *out, mzm_err *err)
{
	*out = 0;
	for (size_t i = 0; i < n; i++)
		if (strcmp(names[i], text) == 0) {
			*out = (int)i;
			return MZM_OK;
		}
	return mzm_fail(err, MZM_EUNSUPPORTED, "\"%s\" is \"%.40s\", which is not supported", key, text);
}

/* One id, or a list of them. */
mzm_status mzm_cfg_eos(mzm_config *c, const json_t *obj, const char *key, mzm_err *err)
{
	const json_t *v = mzm_cfg_member(obj, key);
	size_t n = json_is_array(v) ? json_array_size(v) : 1;
	if (!v)
		return MZM_OK;
	if (n > MZM_MAX_EOS)
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"%s\" lists %zu ids, more than %d", key, n, MZM_MAX_EOS);
	c->n_eos = (int32_t)n;
	for (size_t i = 0; i < n; i++) {
		const json_t *id = json_is_array(v) ? json_array_get(v, i) : v;
		double d = json_is_number(id) ? json_number_value(id) : -1;
		if (!(d >= 0 && d < c->n_vocab && d == (double)(int32_t)d))
			return mzm_fail(err, MZM_EFORMAT, "\"%s\" holds something other than a token id below %d", key,
					(int)c->n_vocab);
		c->eos_ids[i] = (int32_t)d;
	}
	return MZM_OK;
}

/* ---- our own form ---- */

/* Takes value; false when out of memory. */
static bool put(json_t *obj, const char *key, json_t *value)
{
	return json_object_set_new(obj, key, value) == 0;
}

static json_t *eos_to_json(const mzm_config *c)
{
	json_t *list = json_array();
	for (int32_t i = 0; list && i < c->n_eos; i++)
		if (json_array_append_new(list, json_integer(c->eos_ids[i])) != 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

static json_t *divisors_to_json(const mzm_config *c, const float *divisor)
{
	json_t *list = json_array();
	for (int32_t i = 0; list && i < mzm_config_rope_dim(c) / 2; i++)
		if (json_array_append_new(list, json_real((double)divisor[i])) != 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

static json_t *local_to_json(const mzm_config *c)
{
	json_t *list = json_array();
	for (int32_t l = 0; list && l < c->n_layers; l++)
		if (mzm_config_is_local(c, l) && json_array_append_new(list, json_integer(l)) != 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

/* What not all models have: a member only where it says something. One table for both directions. */
typedef struct feature {
	const char *key;
	enum { FLAG, REAL, FLOAT, INT } type;
	size_t offset;
} feature;

#define FEATURE(name, type) {#name, type, offsetof(mzm_config, name)}
static const feature features[] = {
	FEATURE(ungated, FLAG), FEATURE(bias_qkv, FLAG), FEATURE(bias_o, FLAG), FEATURE(bias_ffn, FLAG),
	FEATURE(qk_norm, FLAG), FEATURE(post_norm, FLAG), FEATURE(learned_pos, FLAG), FEATURE(act_threshold, FLOAT),
	FEATURE(embed_scale, REAL), FEATURE(attn_scale, REAL), FEATURE(attn_softcap, REAL),
	FEATURE(logit_softcap, REAL), FEATURE(rope_dim, INT), FEATURE(window, INT), FEATURE(rope_local_theta, REAL),
	FEATURE(attn_by_input, FLAG), FEATURE(decay_len, INT), FEATURE(no_denominator, FLAG),
};

static double number_of(const feature *f, const mzm_config *c)
{
	const void *at = (const char *)c + f->offset;
	switch (f->type) {
	case FLAG: return *(const bool *)at;
	case INT: return *(const int32_t *)at;
	case REAL: return *(const double *)at;
	default: return (double)*(const float *)at;
	}
}

static bool features_to_json(const mzm_config *c, json_t *o)
{
	bool ok = true;
	if (c->norm != MZM_NORM_RMS)
		ok = put(o, "norm", json_string(norm_names[c->norm]));
	if (ok && c->parallel != MZM_SERIAL)
		ok = put(o, "parallel", json_string(parallel_names[c->parallel]));
	if (ok && c->attn != MZM_ATTN_SOFTMAX)
		ok = put(o, "attention", json_string(attn_names[c->attn]));
	for (size_t i = 0; ok && i < N_OF(features); i++) {
		double value = number_of(&features[i], c);
		if (value != 0)
			ok = put(o, features[i].key,
				 features[i].type == FLAG  ? json_true()
				 : features[i].type == INT ? json_integer((json_int_t)value)
							   : json_real(value));
	}
	return ok && (c->window == 0 || put(o, "local_layers", local_to_json(c)));
}

const char *mzm_act_name(mzm_act act)
{
	return act_names[act];
}

bool mzm_config_is_plain(const mzm_config *c)
{
	bool plain = c->norm == MZM_NORM_RMS && c->parallel == MZM_SERIAL && c->attn == MZM_ATTN_SOFTMAX;
	for (size_t i = 0; i < N_OF(features); i++)
		plain = plain && number_of(&features[i], c) == 0;
	return plain;
}

json_t *mzm_config_to_json(const mzm_config *c)
{
	json_t *o = json_object();
	bool ok = o && put(o, "arch", json_string(c->arch)) && put(o, "n_layers", json_integer(c->n_layers)) &&
		  put(o, "dim", json_integer(c->dim)) && put(o, "n_ffn", json_integer(c->n_ffn)) &&
		  put(o, "n_heads", json_integer(c->n_heads)) && put(o, "n_kv_heads", json_integer(c->n_kv_heads)) &&
		  put(o, "head_dim", json_integer(c->head_dim)) && put(o, "n_vocab", json_integer(c->n_vocab)) &&
		  put(o, "n_ctx", json_integer(c->n_ctx)) && put(o, "act", json_string(act_names[c->act])) &&
		  put(o, "tied", json_boolean(c->tied)) && put(o, "norm_eps", json_real((double)c->norm_eps)) &&
		  put(o, "rope_theta", json_real(c->rope_theta)) && put(o, "rope", json_string(rope_names[c->rope]));
	if (ok && (c->rope == MZM_ROPE_LLAMA3 || c->rope == MZM_ROPE_LINEAR))
		ok = put(o, "rope_factor", json_real(c->rope_factor));
	if (ok && c->rope == MZM_ROPE_LLAMA3)
		ok = put(o, "rope_low_freq", json_real(c->rope_low_freq)) &&
		     put(o, "rope_high_freq", json_real(c->rope_high_freq)) &&
		     put(o, "rope_orig_ctx", json_integer(c->rope_orig_ctx));
	if (ok && c->rope == MZM_ROPE_LONG)
		ok = put(o, "rope_short", divisors_to_json(c, c->rope_short)) &&
		     put(o, "rope_long", divisors_to_json(c, c->rope_long)) &&
		     put(o, "rope_attn_factor", json_real(c->rope_attn_factor)) &&
		     put(o, "rope_orig_ctx", json_integer(c->rope_orig_ctx));
	ok = ok && features_to_json(c, o);
	ok = ok && put(o, "bos_id", json_integer(c->bos_id)) && put(o, "eos_ids", eos_to_json(c));
	if (!ok) {
		json_decref(o);
		return NULL;
	}
	return o;
}

static mzm_status shape_from_json(mzm_config *c, const json_t *obj, mzm_err *err)
{
	MZM_TRY(mzm_cfg_need_int(obj, "n_layers", 1, MZM_MAX_LAYERS, &c->n_layers, err));
	MZM_TRY(mzm_cfg_need_int(obj, "dim", 1, MZM_MAX_DIM, &c->dim, err));
	MZM_TRY(mzm_cfg_need_int(obj, "n_ffn", 1, MZM_MAX_DIM, &c->n_ffn, err));
	MZM_TRY(mzm_cfg_need_int(obj, "n_heads", 1, MZM_MAX_DIM, &c->n_heads, err));
	MZM_TRY(mzm_cfg_need_int(obj, "n_kv_heads", 1, MZM_MAX_DIM, &c->n_kv_heads, err));
	MZM_TRY(mzm_cfg_need_int(obj, "head_dim", 1, MZM_MAX_DIM, &c->head_dim, err));
	MZM_TRY(mzm_cfg_need_int(obj, "n_vocab", 1, MZM_MAX_VOCAB, &c->n_vocab, err));
	return mzm_cfg_need_int(obj, "n_ctx", 1, MZM_MAX_CTX, &c->n_ctx, err);
}

static mzm_status divisors_from_json(const mzm_config *c, const json_t *obj, const char *key, float *divisor,
				     mzm_err *err)
{
	const json_t *list = mzm_cfg_member(obj, key);
	int32_t n = mzm_config_rope_dim(c) / 2;
	if (!json_is_array(list) || json_array_size(list) != (size_t)n || n > MZM_MAX_PAIRS)
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is no list of %d numbers", key, (int)n);
	for (int32_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, (size_t)i);
		if (!json_is_number(v))
			return mzm_fail(err, MZM_EFORMAT, "\"%s\" is no list of %d numbers", key, (int)n);
		divisor[i] = (float)json_number_value(v);
	}
	return MZM_OK;
}

static mzm_status rope_from_json(mzm_config *c, const json_t *obj, mzm_err *err)
{
	const char *rope;
	int which;
	MZM_TRY(mzm_cfg_need_real(obj, "rope_theta", 1, 1e15, &c->rope_theta, err));
	MZM_TRY(mzm_cfg_need_text(obj, "rope", &rope, err));
	MZM_TRY(mzm_cfg_pick(rope_names, N_OF(rope_names), "rope", rope, &which, err));
	c->rope = (mzm_rope_kind)which;
	if (c->rope == MZM_ROPE_LLAMA3 || c->rope == MZM_ROPE_LINEAR)
		MZM_TRY(mzm_cfg_need_real(obj, "rope_factor", 1, 1e6, &c->rope_factor, err));
	if (c->rope == MZM_ROPE_LLAMA3) {
		MZM_TRY(mzm_cfg_need_real(obj, "rope_low_freq", 1e-6, 1e6, &c->rope_low_freq, err));
		MZM_TRY(mzm_cfg_need_real(obj, "rope_high_freq", 1e-6, 1e6, &c->rope_high_freq, err));
	}
	if (c->rope == MZM_ROPE_LONG) {
		MZM_TRY(divisors_from_json(c, obj, "rope_short", c->rope_short, err));
		MZM_TRY(divisors_from_json(c, obj, "rope_long", c->rope_long, err));
		MZM_TRY(mzm_cfg_need_real(obj, "rope_attn_factor", 1e-6, 1e6, &c->rope_attn_factor, err));
	}
	if (c->rope == MZM_ROPE_LLAMA3 || c->rope == MZM_ROPE_LONG)
		return mzm_cfg_need_int(obj, "rope_orig_ctx", 1, MZM_MAX_CTX, &c->rope_orig_ctx, err);
	return MZM_OK;
}

/* Members that this version does not know change what the model computes: it must not guess. */
static mzm_status refuse_unknown(const json_t *obj, mzm_err *err)
{
	static const char *const known[] = {
		"arch",	      "n_layers",    "dim",	    "n_ffn",	  "n_heads",	 "n_kv_heads",	  "head_dim",
		"n_vocab",    "n_ctx",	     "act",	    "tied",	  "norm_eps",	 "rope_theta",	  "rope",
		"rope_factor", "rope_low_freq", "rope_high_freq", "rope_orig_ctx", "rope_short", "rope_long",
		"rope_attn_factor", "bos_id", "eos_ids", "norm", "parallel", "local_layers",
		"attention",
	};
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)(uintptr_t)obj, key, value) {
		bool found = false;
		for (size_t i = 0; i < N_OF(known) && !found; i++)
			found = strcmp(key, known[i]) == 0;
		for (size_t i = 0; i < N_OF(features) && !found; i++)
			found = strcmp(key, features[i].key) == 0;
		if (!found)
			return mzm_fail(err, MZM_EUNSUPPORTED,
					"the configuration has \"%.40s\", which this version does not know", key);
	}
	return MZM_OK;
}

static mzm_status local_from_json(mzm_config *c, const json_t *obj, mzm_err *err)
{
	const json_t *list = mzm_cfg_member(obj, "local_layers");
	if (c->window == 0 && !list)
		return MZM_OK;
	if (!json_is_array(list))
		return mzm_fail(err, MZM_EFORMAT, "\"local_layers\" is missing or no list");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *v = json_array_get(list, i);
		double d = json_is_number(v) ? json_number_value(v) : -1;
		if (!(d >= 0 && d < c->n_layers && d == (double)(int32_t)d))
			return mzm_fail(err, MZM_EFORMAT, "\"local_layers\" holds something other than a layer");
		c->local[(int32_t)d / 8] |= (uint8_t)(1 << (int32_t)d % 8);
	}
	return MZM_OK;
}

static mzm_status feature_from_json(const feature *f, void *at, const json_t *obj, mzm_err *err)
{
	double real = 0;
	int64_t n;
	switch (f->type) {
	case FLAG: return mzm_json_bool(obj, f->key, false, at, err);
	case INT:
		MZM_TRY(mzm_json_int(obj, f->key, 0, MZM_MAX_CTX, 0, &n, err));
		*(int32_t *)at = (int32_t)n;
		return MZM_OK;
	case REAL: return mzm_json_real(obj, f->key, 0, 1e15, 0, at, err);
	default:
		MZM_TRY(mzm_json_real(obj, f->key, 0, 1e9, 0, &real, err));
		*(float *)at = (float)real;
		return MZM_OK;
	}
}

static mzm_status features_from_json(mzm_config *c, const json_t *obj, mzm_err *err)
{
	const char *name;
	int which;
	MZM_TRY(refuse_unknown(obj, err));
	MZM_TRY(mzm_cfg_text(obj, "norm", &name, err));
	MZM_TRY(mzm_cfg_pick(norm_names, N_OF(norm_names), "norm", name ? name : norm_names[0], &which, err));
	c->norm = (mzm_norm_kind)which;
	MZM_TRY(mzm_cfg_text(obj, "parallel", &name, err));
	MZM_TRY(mzm_cfg_pick(parallel_names, N_OF(parallel_names), "parallel", name ? name : parallel_names[0], &which,
			     err));
	c->parallel = (mzm_parallel)which;
	MZM_TRY(mzm_cfg_text(obj, "attention", &name, err));
	MZM_TRY(mzm_cfg_pick(attn_names, N_OF(attn_names), "attention", name ? name : attn_names[0], &which, err));
	c->attn = (mzm_attn_kind)which;
	for (size_t i = 0; i < N_OF(features); i++)
		MZM_TRY(feature_from_json(&features[i], (char *)c + features[i].offset, obj, err));
	return local_from_json(c, obj, err);
}

mzm_status mzm_config_from_json(mzm_config *out, const json_t *obj, mzm_err *err)
{
	mzm_config c = {.rope = MZM_ROPE_PLAIN};
	const char *arch, *act;
	int which;
	double eps = 0;
	MZM_TRY(mzm_cfg_need_object(obj, "the configuration", err));
	MZM_TRY(mzm_cfg_need_text(obj, "arch", &arch, err));
	MZM_TRY(mzm_cfg_pick(mzm_arch_names, N_OF(mzm_arch_names) - 1, "arch", arch, &which, err));
	snprintf(c.arch, sizeof c.arch, "%s", arch);
	MZM_TRY(shape_from_json(&c, obj, err));
	MZM_TRY(mzm_cfg_need_text(obj, "act", &act, err));
	MZM_TRY(mzm_cfg_pick(act_names, N_OF(act_names), "act", act, &which, err));
	c.act = (mzm_act)which;
	if (!mzm_cfg_member(obj, "tied") || !mzm_cfg_member(obj, "eos_ids"))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is missing",
				mzm_cfg_member(obj, "tied") ? "eos_ids" : "tied");
	MZM_TRY(mzm_json_bool(obj, "tied", false, &c.tied, err));
	MZM_TRY(mzm_cfg_need_real(obj, "norm_eps", 1e-30, 1, &eps, err));
	c.norm_eps = (float)eps;
	MZM_TRY(features_from_json(&c, obj, err));
	MZM_TRY(rope_from_json(&c, obj, err));
	MZM_TRY(mzm_cfg_need_int(obj, "bos_id", -1, c.n_vocab - 1, &c.bos_id, err));
	MZM_TRY(mzm_cfg_eos(&c, obj, "eos_ids", err));
	MZM_TRY(mzm_config_check(&c, err));
	*out = c;
	return MZM_OK;
}

/* ---- canonical tensors ---- */

#define MAX_KINDS 32 /* of a layer */

static int add(mzm_tensor_kind *kinds, int n, bool there, mzm_tensor_kind kind)
{
	kinds[n] = kind;
	return n + there;
}

/* What a layer has, in file order. All layers have the same. */
static int layer_kinds(mzm_tensor_kind kinds[MAX_KINDS], const mzm_config *c)
{
	bool centred = c->norm == MZM_NORM_LAYER, own_norm = c->parallel != MZM_PARALLEL_SHARED;
	int n = add(kinds, 0, true, MZM_T_ATTN_NORM);
	n = add(kinds, n, centred, MZM_T_ATTN_NORM_BIAS);
	n = add(kinds, n, true, MZM_T_WQ);
	n = add(kinds, n, c->bias_qkv, MZM_T_BQ);
	n = add(kinds, n, true, MZM_T_WK);
	n = add(kinds, n, c->bias_qkv, MZM_T_BK);
	n = add(kinds, n, true, MZM_T_WV);
	n = add(kinds, n, c->bias_qkv, MZM_T_BV);
	n = add(kinds, n, c->qk_norm, MZM_T_Q_NORM);
	n = add(kinds, n, c->qk_norm, MZM_T_K_NORM);
	n = add(kinds, n, mzm_config_is_linear(c), MZM_T_FREQ);
	n = add(kinds, n, c->attn == MZM_ATTN_DIJIANG_PAPER, MZM_T_FEATURE);
	n = add(kinds, n, c->attn == MZM_ATTN_DIJIANG, MZM_T_DECAY);
	n = add(kinds, n, c->attn == MZM_ATTN_DIJIANG, MZM_T_WG);
	n = add(kinds, n, c->attn == MZM_ATTN_DIJIANG, MZM_T_GROUP_NORM);
	n = add(kinds, n, c->attn == MZM_ATTN_DIJIANG, MZM_T_GROUP_NORM_BIAS);
	n = add(kinds, n, true, MZM_T_WO);
	n = add(kinds, n, c->bias_o, MZM_T_BO);
	n = add(kinds, n, c->post_norm, MZM_T_ATTN_POST_NORM);
	n = add(kinds, n, own_norm, MZM_T_FFN_NORM);
	n = add(kinds, n, own_norm && centred, MZM_T_FFN_NORM_BIAS);
	n = add(kinds, n, true, MZM_T_GATE);
	n = add(kinds, n, c->bias_ffn, MZM_T_B_GATE);
	n = add(kinds, n, true, c->ungated ? MZM_T_DOWN : MZM_T_UPDOWN);
	n = add(kinds, n, c->bias_ffn && !c->ungated, MZM_T_B_UP);
	n = add(kinds, n, c->bias_ffn, MZM_T_B_DOWN);
	return add(kinds, n, c->post_norm, MZM_T_FFN_POST_NORM);
}

static int n_before(const mzm_config *c) /* the layers */
{
	return c->learned_pos ? 2 : 1;
}

/* What comes behind the layers. */
static int last_kinds(mzm_tensor_kind kinds[3], const mzm_config *c)
{
	int n = add(kinds, 0, true, MZM_T_OUT_NORM);
	n = add(kinds, n, c->norm == MZM_NORM_LAYER, MZM_T_OUT_NORM_BIAS);
	return add(kinds, n, !c->tied, MZM_T_HEAD);
}

int32_t mzm_tensor_count(const mzm_config *cfg)
{
	mzm_tensor_kind kinds[MAX_KINDS];
	return n_before(cfg) + layer_kinds(kinds, cfg) * cfg->n_layers + last_kinds(kinds, cfg);
}

bool mzm_tensor_is_ffn(mzm_tensor_kind kind)
{
	return kind == MZM_T_GATE || kind == MZM_T_UPDOWN || kind == MZM_T_DOWN;
}

bool mzm_tensor_is_attention(mzm_tensor_kind kind)
{
	return kind == MZM_T_WQ || kind == MZM_T_WK || kind == MZM_T_WV || kind == MZM_T_WO || kind == MZM_T_WG;
}

bool mzm_tensor_is_vector(mzm_tensor_kind kind)
{
	return !(mzm_tensor_is_ffn(kind) || mzm_tensor_is_attention(kind) || kind == MZM_T_EMBED ||
		 kind == MZM_T_HEAD || kind == MZM_T_POS);
}

static void set_shape(mzm_tensor *t, int32_t n_rows, int32_t n_cols)
{
	t->n_rows = n_rows;
	t->n_cols = n_cols;
}

static mzm_tensor tensor_of(const mzm_config *cfg, mzm_tensor_kind kind, int32_t layer)
{
	int32_t q = cfg->n_heads * cfg->head_dim, kv = cfg->n_kv_heads * cfg->head_dim;
	mzm_tensor t = {.kind = kind, .layer = layer, .dtype = MZM_F32};
	switch (kind) {
	case MZM_T_WG:
	case MZM_T_WQ: set_shape(&t, q, cfg->dim); break;
	case MZM_T_WK:
	case MZM_T_WV: set_shape(&t, kv, cfg->dim); break;
	case MZM_T_WO: set_shape(&t, cfg->dim, q); break;
	case MZM_T_GATE:
	case MZM_T_DOWN: set_shape(&t, cfg->n_ffn, cfg->dim); break;
	case MZM_T_UPDOWN: set_shape(&t, 2 * cfg->n_ffn, cfg->dim); break;
	case MZM_T_EMBED:
	case MZM_T_HEAD: set_shape(&t, cfg->n_vocab, cfg->dim); break;
	case MZM_T_POS: set_shape(&t, cfg->n_ctx, cfg->dim); break;
	case MZM_T_BQ: set_shape(&t, 1, q); break;
	case MZM_T_BK:
	case MZM_T_BV: set_shape(&t, 1, kv); break;
	case MZM_T_GROUP_NORM:
	case MZM_T_GROUP_NORM_BIAS: set_shape(&t, 1, q); break;
	case MZM_T_DECAY: set_shape(&t, 1, cfg->n_kv_heads * cfg->decay_len * 2); break;
	case MZM_T_FREQ:
	case MZM_T_FEATURE:
	case MZM_T_Q_NORM:
	case MZM_T_K_NORM: set_shape(&t, 1, cfg->head_dim); break;
	case MZM_T_B_GATE:
	case MZM_T_B_UP: set_shape(&t, 1, cfg->n_ffn); break;
	default: set_shape(&t, 1, cfg->dim); break;
	}
	t.by_input = cfg->attn_by_input && mzm_tensor_is_attention(kind);
	if (t.by_input)
		set_shape(&t, t.n_cols, t.n_rows);
	return t;
}

mzm_tensor mzm_tensor_at(const mzm_config *cfg, int32_t i)
{
	mzm_tensor_kind kinds[MAX_KINDS], last[3];
	int n_kinds = layer_kinds(kinds, cfg), n_last = last_kinds(last, cfg);
	int32_t at = i - n_before(cfg), n_in_layers = n_kinds * cfg->n_layers;
	if (at < 0)
		return tensor_of(cfg, i == 0 ? MZM_T_EMBED : MZM_T_POS, -1);
	if (at < n_in_layers)
		return tensor_of(cfg, kinds[at % n_kinds], at / n_kinds);
	at -= n_in_layers;
	return tensor_of(cfg, last[at < n_last ? at : n_last - 1], -1);
}

static int32_t place_of(const mzm_tensor_kind *kinds, int n, mzm_tensor_kind kind)
{
	for (int i = 0; i < n; i++)
		if (kinds[i] == kind)
			return i;
	return -1;
}

int32_t mzm_tensor_index(const mzm_config *cfg, mzm_tensor_kind kind, int32_t layer)
{
	mzm_tensor_kind kinds[MAX_KINDS];
	int n_kinds = layer_kinds(kinds, cfg);
	int32_t at = place_of(kinds, n_kinds, kind);
	if (at >= 0)
		return layer < 0 || layer >= cfg->n_layers ? -1 : n_before(cfg) + n_kinds * layer + at;
	if (kind == MZM_T_EMBED || kind == MZM_T_POS)
		return kind == MZM_T_EMBED ? 0 : cfg->learned_pos ? 1 : -1;
	at = place_of(kinds, last_kinds(kinds, cfg), kind);
	return at < 0 ? -1 : n_before(cfg) + n_kinds * cfg->n_layers + at;
}

size_t mzm_tensor_bytes(const mzm_tensor *t)
{
	return (size_t)t->n_rows * mzm_row_bytes(t->dtype, t->n_cols);
}

#define N_DRAFT_KINDS 6

int32_t mzm_draft_count(const mzm_config *cfg)
{
	return N_DRAFT_KINDS * cfg->n_layers + 1;
}

mzm_tensor mzm_draft_at(const mzm_config *cfg, int32_t i)
{
	mzm_tensor_kind kinds[N_DRAFT_KINDS] = {MZM_T_WQ, MZM_T_WK,   MZM_T_WV,
						MZM_T_WO, MZM_T_GATE, cfg->ungated ? MZM_T_DOWN : MZM_T_UPDOWN};
	mzm_tensor t = i < N_DRAFT_KINDS * cfg->n_layers
			       ? tensor_of(cfg, kinds[i % N_DRAFT_KINDS], i / N_DRAFT_KINDS)
			       : tensor_of(cfg, MZM_T_HEAD, -1);
	t.role = MZM_ROLE_DRAFT;
	return t;
}

const char *mzm_tensor_name(const mzm_tensor *t, char buf[64])
{
	static const char *const names[MZM_N_TENSOR_KINDS] = {
		[MZM_T_EMBED] = "embed", [MZM_T_ATTN_NORM] = "attn_norm", [MZM_T_WQ] = "wq", [MZM_T_WK] = "wk",
		[MZM_T_WV] = "wv", [MZM_T_WO] = "wo", [MZM_T_FFN_NORM] = "ffn_norm", [MZM_T_GATE] = "gate",
		[MZM_T_UPDOWN] = "updown", [MZM_T_OUT_NORM] = "out_norm", [MZM_T_HEAD] = "head",
		[MZM_T_ATTN_NORM_BIAS] = "attn_norm_bias", [MZM_T_FFN_NORM_BIAS] = "ffn_norm_bias",
		[MZM_T_OUT_NORM_BIAS] = "out_norm_bias", [MZM_T_BQ] = "wq_bias", [MZM_T_BK] = "wk_bias",
		[MZM_T_BV] = "wv_bias", [MZM_T_BO] = "wo_bias", [MZM_T_Q_NORM] = "q_norm", [MZM_T_K_NORM] = "k_norm",
		[MZM_T_ATTN_POST_NORM] = "attn_post_norm", [MZM_T_FFN_POST_NORM] = "ffn_post_norm",
		[MZM_T_B_GATE] = "gate_bias", [MZM_T_B_UP] = "up_bias", [MZM_T_B_DOWN] = "down_bias",
		[MZM_T_DOWN] = "down", [MZM_T_POS] = "pos", [MZM_T_WG] = "wg", [MZM_T_DECAY] = "decay",
		[MZM_T_GROUP_NORM] = "group_norm", [MZM_T_GROUP_NORM_BIAS] = "group_norm_bias", [MZM_T_FREQ] = "freq",
		[MZM_T_FEATURE] = "feature",
	};
	const char *image = t->role == MZM_ROLE_DRAFT ? "draft." : "";
	if (t->layer >= 0)
		snprintf(buf, 64, "%slayers.%d.%s", image, (int)t->layer, names[t->kind]);
	else
		snprintf(buf, 64, "%s%s", image, names[t->kind]);
	return buf;
}

uint64_t mzm_config_n_ffn_params(const mzm_config *cfg)
{
	return (uint64_t)cfg->n_layers * (uint64_t)mzm_config_n_ffn_matrices(cfg) * (uint64_t)cfg->n_ffn *
	       (uint64_t)cfg->dim;
}

static uint64_t params_of(const mzm_config *cfg, mzm_tensor_kind kind)
{
	mzm_tensor t = tensor_of(cfg, kind, 0);
	return (uint64_t)t.n_rows * (uint64_t)t.n_cols;
}

uint64_t mzm_config_n_params(const mzm_config *cfg)
{
	mzm_tensor_kind kinds[MAX_KINDS], last[3];
	int n_kinds = layer_kinds(kinds, cfg), n_last = last_kinds(last, cfg);
	uint64_t layer = 0, n = params_of(cfg, MZM_T_EMBED);
	for (int i = 0; i < n_kinds; i++)
		layer += params_of(cfg, kinds[i]);
	for (int i = 0; i < n_last; i++)
		n += params_of(cfg, last[i]);
	return n + (cfg->learned_pos ? params_of(cfg, MZM_T_POS) : 0) + (uint64_t)cfg->n_layers * layer;
}
