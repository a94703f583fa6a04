/* config.c - see config.h.
 *
 * Owns: the translation of a Hugging Face config.json into mzm_config, our own JSON form of it, the checks
 * both must pass, and the list of canonical tensors. Workload: once a file. Every number is read through
 * typed getters that name the key; what is absent and not clearly harmless is an error. It opens no file. */
#include "format/config.h"

#include <stdio.h>
#include <string.h>

/* The limits keep every product below 2^63: (4 bytes) * 4096 layers * 3 * 2^20 * 2^20 = 2^55.6. */
_Static_assert((uint64_t)MZM_MAX_LAYERS * 16 * MZM_MAX_DIM <= UINT64_MAX / 4 / MZM_MAX_DIM, "parameter count fits");
_Static_assert((uint64_t)MZM_MAX_VOCAB * MZM_MAX_DIM <= UINT64_MAX / 16, "embedding fits");

static const char *const known_archs[] = {"llama", "mistral"};
static const char *const act_names[] = {[MZM_ACT_SILU] = "silu", [MZM_ACT_RELU] = "relu"};
static const char *const rope_names[] = {[MZM_ROPE_PLAIN] = "plain", [MZM_ROPE_LLAMA3] = "llama3"};

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
	if (c->head_dim % 2 != 0)
		return mzm_fail(err, MZM_EFORMAT, "the head size %d is odd; RoPE rotates pairs", (int)c->head_dim);
	return check_range("heads times head size", (int64_t)c->n_heads * c->head_dim, 1, MZM_MAX_DIM, err);
}

/* Negated comparisons, so that a NaN fails. */
static mzm_status check_reals(const mzm_config *c, mzm_err *err)
{
	if (!(c->norm_eps >= 1e-30f && c->norm_eps <= 1.0f))
		return mzm_fail(err, MZM_EFORMAT, "the norm's epsilon %g is outside 1e-30 .. 1", (double)c->norm_eps);
	if (!(c->rope_theta >= 1 && c->rope_theta <= 1e15))
		return mzm_fail(err, MZM_EFORMAT, "the RoPE base %g is outside 1 .. 1e15", c->rope_theta);
	if (c->rope == MZM_ROPE_PLAIN)
		return MZM_OK;
	if (!(c->rope_factor >= 1 && c->rope_factor <= 1e6))
		return mzm_fail(err, MZM_EFORMAT, "the RoPE scaling factor %g is outside 1 .. 1e6", c->rope_factor);
	if (!(c->rope_low_freq > 0 && c->rope_low_freq < c->rope_high_freq && c->rope_high_freq <= 1e6))
		return mzm_fail(err, MZM_EFORMAT,
				"RoPE frequency factors: wanted 0 < low < high <= 1e6, found %g and %g",
				c->rope_low_freq, c->rope_high_freq);
	return check_range("the original context length of RoPE", c->rope_orig_ctx, 1, MZM_MAX_CTX, err);
}

static bool is_known_arch(const char *arch)
{
	for (size_t i = 0; i < N_OF(known_archs); i++)
		if (strcmp(arch, known_archs[i]) == 0)
			return true;
	return false;
}

mzm_status mzm_config_check(const mzm_config *c, mzm_err *err)
{
	if (memchr(c->arch, 0, sizeof c->arch) == NULL || !is_known_arch(c->arch))
		return mzm_fail(err, MZM_EUNSUPPORTED, "architecture \"%.*s\" is not supported",
				(int)sizeof c->arch - 1, c->arch);
	if ((unsigned)c->act >= N_OF(act_names) || (unsigned)c->rope >= N_OF(rope_names))
		return mzm_fail(err, MZM_EFORMAT, "unknown activation or RoPE kind");
	MZM_TRY(check_shape(c, err));
	MZM_TRY(check_reals(c, err));
	MZM_TRY(check_range("the BOS id", c->bos_id, -1, c->n_vocab - 1, err));
	MZM_TRY(check_range("the number of EOS ids", c->n_eos, 0, MZM_MAX_EOS, err));
	for (int32_t i = 0; i < c->n_eos; i++)
		MZM_TRY(check_range("an EOS id", c->eos_ids[i], 0, c->n_vocab - 1, err));
	return MZM_OK;
}

/* ---- reading JSON ---- */

static const json_t *member(const json_t *obj, const char *key)
{
	const json_t *v = json_object_get(obj, key);
	return v && json_is_null(v) ? NULL : v;
}

static mzm_status need_object(const json_t *v, const char *what, mzm_err *err)
{
	return json_is_object(v) ? MZM_OK : mzm_fail(err, MZM_EFORMAT, "%s is not a JSON object", what);
}

/* Printable ASCII only: all we look for, and safe to repeat in a message. */
static bool is_plain(const json_t *v)
{
	const char *s = json_string_value(v);
	for (size_t i = 0; i < json_string_length(v); i++)
		if (s[i] < 0x20 || s[i] > 0x7e)
			return false;
	return true;
}

/* A plain string; NULL when absent. */
static mzm_status get_text(const json_t *obj, const char *key, const char **out, mzm_err *err)
{
	MZM_TRY(mzm_json_string(obj, key, NULL, out, err));
	if (*out && !is_plain(json_object_get(obj, key)))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" holds characters beyond printable ASCII", key);
	return MZM_OK;
}

static mzm_status need_text(const json_t *obj, const char *key, const char **out, mzm_err *err)
{
	MZM_TRY(get_text(obj, key, out, err));
	return *out ? MZM_OK : mzm_fail(err, MZM_EFORMAT, "\"%s\" is missing", key);
}

static mzm_status need_int(const json_t *obj, const char *key, int64_t min, int64_t max, int32_t *out, mzm_err *err)
{
	int64_t v;
	if (!member(obj, key))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is missing", key);
	MZM_TRY(mzm_json_int(obj, key, min, max, 0, &v, err));
	*out = (int32_t)v;
	return MZM_OK;
}

static mzm_status need_real(const json_t *obj, const char *key, double min, double max, double *out, mzm_err *err)
{
	if (!member(obj, key))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is missing", key);
	return mzm_json_real(obj, key, min, max, 0, out, err);
}

static mzm_status refuse_true(const json_t *obj, const char *key, mzm_err *err)
{
	bool on;
	MZM_TRY(mzm_json_bool(obj, key, false, &on, err));
	return on ? mzm_fail(err, MZM_EUNSUPPORTED, "\"%s\" is true; biases are not supported", key) : MZM_OK;
}

static mzm_status refuse_present(const json_t *obj, const char *key, mzm_err *err)
{
	return member(obj, key) ? mzm_fail(err, MZM_EUNSUPPORTED, "\"%s\" is not supported", key) : MZM_OK;
}

/* Index of text in names; EUNSUPPORTED naming the key and what was found. Hostile text is cut short. */
static mzm_status pick(const char *const *names, size_t n, const char *key, const char *text, int *out, mzm_err *err)
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
static mzm_status eos_from(mzm_config *c, const json_t *obj, const char *key, mzm_err *err)
{
	const json_t *v = member(obj, key);
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

/* ---- Hugging Face ---- */

/* Mistral without a sliding window computes what Llama does; its class defaults differ, so the two keys in
 * question must be spelt out. */
static mzm_status hf_arch(mzm_config *c, const json_t *config, mzm_err *err)
{
	static const char *const classes[] = {"LlamaForCausalLM", "MistralForCausalLM"};
	const char *type;
	int which, class_of;
	MZM_TRY(need_text(config, "model_type", &type, err));
	MZM_TRY(pick(known_archs, N_OF(known_archs), "model_type", type, &which, err));
	snprintf(c->arch, sizeof c->arch, "%s", type);
	const json_t *archs = member(config, "architectures");
	if (archs) {
		const json_t *first = json_array_get(archs, 0);
		if (!json_is_string(first) || !is_plain(first) || json_array_size(archs) != 1)
			return mzm_fail(err, MZM_EFORMAT, "\"architectures\" is not a list of one name");
		MZM_TRY(pick(classes, N_OF(classes), "architectures", json_string_value(first), &class_of, err));
		if (class_of != which)
			return mzm_fail(err, MZM_EFORMAT, "\"architectures\" and \"model_type\" contradict each other");
	}
	if (strcmp(type, "mistral") == 0) {
		if (!json_object_get(config, "sliding_window"))
			return mzm_fail(err, MZM_EFORMAT, "\"sliding_window\" is missing (null = none)");
		if (!member(config, "num_key_value_heads"))
			return mzm_fail(err, MZM_EFORMAT, "\"num_key_value_heads\" is missing");
	}
	return refuse_present(config, "sliding_window", err);
}

static mzm_status hf_shape(mzm_config *c, const json_t *config, mzm_err *err)
{
	int64_t v;
	MZM_TRY(need_int(config, "num_hidden_layers", 1, MZM_MAX_LAYERS, &c->n_layers, err));
	MZM_TRY(need_int(config, "hidden_size", 1, MZM_MAX_DIM, &c->dim, err));
	MZM_TRY(need_int(config, "intermediate_size", 1, MZM_MAX_DIM, &c->n_ffn, err));
	MZM_TRY(need_int(config, "num_attention_heads", 1, MZM_MAX_DIM, &c->n_heads, err));
	MZM_TRY(need_int(config, "vocab_size", 1, MZM_MAX_VOCAB, &c->n_vocab, err));
	MZM_TRY(need_int(config, "max_position_embeddings", 1, MZM_MAX_CTX, &c->n_ctx, err));
	MZM_TRY(mzm_json_int(config, "num_key_value_heads", 1, MZM_MAX_DIM, c->n_heads, &v, err));
	c->n_kv_heads = (int32_t)v;
	if (!member(config, "head_dim") && c->dim % c->n_heads != 0)
		return mzm_fail(err, MZM_EFORMAT, "\"hidden_size\" %d is no multiple of \"num_attention_heads\" %d",
				(int)c->dim, (int)c->n_heads);
	MZM_TRY(mzm_json_int(config, "head_dim", 1, MZM_MAX_DIM, c->dim / c->n_heads, &v, err));
	c->head_dim = (int32_t)v;
	return MZM_OK;
}

static mzm_status hf_rope_scaling(mzm_config *c, const json_t *rope, bool need_type, mzm_err *err)
{
	static const char *const types[] = {"default", "llama3"};
	const char *type, *old_type;
	int which;
	MZM_TRY(get_text(rope, "rope_type", &type, err));
	MZM_TRY(get_text(rope, "type", &old_type, err));
	if (type && old_type && strcmp(type, old_type) != 0)
		return mzm_fail(err, MZM_EFORMAT, "\"rope_type\" and \"type\" contradict each other");
	if (!type)
		type = old_type;
	if (!type && need_type)
		return mzm_fail(err, MZM_EFORMAT, "\"rope_scaling\" names no \"rope_type\"");
	MZM_TRY(pick(types, N_OF(types), "rope_type", type ? type : "default", &which, err));
	if (which == 0)
		return MZM_OK;
	c->rope = MZM_ROPE_LLAMA3;
	MZM_TRY(need_real(rope, "factor", 1, 1e6, &c->rope_factor, err));
	MZM_TRY(need_real(rope, "low_freq_factor", 1e-6, 1e6, &c->rope_low_freq, err));
	MZM_TRY(need_real(rope, "high_freq_factor", 1e-6, 1e6, &c->rope_high_freq, err));
	return need_int(rope, "original_max_position_embeddings", 1, MZM_MAX_CTX, &c->rope_orig_ctx, err);
}

/* "rope_scaling" with "rope_theta" beside it, or (newer) "rope_parameters" with both. */
static mzm_status hf_rope(mzm_config *c, const json_t *config, mzm_err *err)
{
	const json_t *scaling = member(config, "rope_scaling"), *params = member(config, "rope_parameters");
	double partial;
	MZM_TRY(mzm_json_real(config, "rope_theta", 1, 1e15, 10000, &c->rope_theta, err));
	MZM_TRY(mzm_json_real(config, "partial_rotary_factor", 0, 1, 1, &partial, err));
	if (partial != 1)
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"partial_rotary_factor\" is %g; only 1 is supported", partial);
	if (scaling && params)
		return mzm_fail(err, MZM_EFORMAT, "\"rope_scaling\" and \"rope_parameters\" are both given");
	if (scaling) {
		MZM_TRY(need_object(scaling, "\"rope_scaling\"", err));
		return hf_rope_scaling(c, scaling, true, err);
	}
	if (!params)
		return MZM_OK;
	MZM_TRY(need_object(params, "\"rope_parameters\"", err));
	double theta;
	MZM_TRY(mzm_json_real(params, "rope_theta", 1, 1e15, c->rope_theta, &theta, err));
	if (member(config, "rope_theta") && theta != c->rope_theta)
		return mzm_fail(err, MZM_EFORMAT, "\"rope_theta\" is given twice: %g and %g", c->rope_theta, theta);
	c->rope_theta = theta;
	return hf_rope_scaling(c, params, false, err);
}

mzm_status mzm_config_from_hf(mzm_config *out, const json_t *config, const json_t *generation, mzm_err *err)
{
	mzm_config c = {.rope = MZM_ROPE_PLAIN};
	const char *act;
	int64_t bos;
	int which;
	double eps = 0;
	MZM_TRY(need_object(config, "the configuration", err));
	MZM_TRY(hf_arch(&c, config, err));
	MZM_TRY(hf_shape(&c, config, err));
	MZM_TRY(need_text(config, "hidden_act", &act, err));
	MZM_TRY(pick(act_names, N_OF(act_names), "hidden_act", act, &which, err));
	c.act = (mzm_act)which;
	MZM_TRY(need_real(config, "rms_norm_eps", 1e-30, 1, &eps, err));
	c.norm_eps = (float)eps;
	MZM_TRY(hf_rope(&c, config, err));
	MZM_TRY(refuse_true(config, "attention_bias", err));
	MZM_TRY(refuse_true(config, "mlp_bias", err));
	MZM_TRY(refuse_present(config, "quantization_config", err));
	MZM_TRY(mzm_json_bool(config, "tie_word_embeddings", false, &c.tied, err));
	bool has_bos = member(config, "bos_token_id") != NULL;
	MZM_TRY(mzm_json_int(config, "bos_token_id", 0, c.n_vocab - 1, 0, &bos, err));
	c.bos_id = has_bos ? (int32_t)bos : -1;
	MZM_TRY(eos_from(&c, config, "eos_token_id", err));
	if (generation) {
		MZM_TRY(need_object(generation, "the generation configuration", err));
		MZM_TRY(eos_from(&c, generation, "eos_token_id", err));
	}
	MZM_TRY(mzm_config_check(&c, err));
	*out = c;
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
	if (ok && c->rope == MZM_ROPE_LLAMA3)
		ok = put(o, "rope_factor", json_real(c->rope_factor)) &&
		     put(o, "rope_low_freq", json_real(c->rope_low_freq)) &&
		     put(o, "rope_high_freq", json_real(c->rope_high_freq)) &&
		     put(o, "rope_orig_ctx", json_integer(c->rope_orig_ctx));
	ok = ok && put(o, "bos_id", json_integer(c->bos_id)) && put(o, "eos_ids", eos_to_json(c));
	if (!ok) {
		json_decref(o);
		return NULL;
	}
	return o;
}

static mzm_status shape_from_json(mzm_config *c, const json_t *obj, mzm_err *err)
{
	MZM_TRY(need_int(obj, "n_layers", 1, MZM_MAX_LAYERS, &c->n_layers, err));
	MZM_TRY(need_int(obj, "dim", 1, MZM_MAX_DIM, &c->dim, err));
	MZM_TRY(need_int(obj, "n_ffn", 1, MZM_MAX_DIM, &c->n_ffn, err));
	MZM_TRY(need_int(obj, "n_heads", 1, MZM_MAX_DIM, &c->n_heads, err));
	MZM_TRY(need_int(obj, "n_kv_heads", 1, MZM_MAX_DIM, &c->n_kv_heads, err));
	MZM_TRY(need_int(obj, "head_dim", 1, MZM_MAX_DIM, &c->head_dim, err));
	MZM_TRY(need_int(obj, "n_vocab", 1, MZM_MAX_VOCAB, &c->n_vocab, err));
	return need_int(obj, "n_ctx", 1, MZM_MAX_CTX, &c->n_ctx, err);
}

static mzm_status rope_from_json(mzm_config *c, const json_t *obj, mzm_err *err)
{
	const char *rope;
	int which;
	MZM_TRY(need_real(obj, "rope_theta", 1, 1e15, &c->rope_theta, err));
	MZM_TRY(need_text(obj, "rope", &rope, err));
	MZM_TRY(pick(rope_names, N_OF(rope_names), "rope", rope, &which, err));
	c->rope = (mzm_rope_kind)which;
	if (c->rope == MZM_ROPE_PLAIN)
		return MZM_OK;
	MZM_TRY(need_real(obj, "rope_factor", 1, 1e6, &c->rope_factor, err));
	MZM_TRY(need_real(obj, "rope_low_freq", 1e-6, 1e6, &c->rope_low_freq, err));
	MZM_TRY(need_real(obj, "rope_high_freq", 1e-6, 1e6, &c->rope_high_freq, err));
	return need_int(obj, "rope_orig_ctx", 1, MZM_MAX_CTX, &c->rope_orig_ctx, err);
}

mzm_status mzm_config_from_json(mzm_config *out, const json_t *obj, mzm_err *err)
{
	mzm_config c = {.rope = MZM_ROPE_PLAIN};
	const char *arch, *act;
	int which;
	double eps = 0;
	MZM_TRY(need_object(obj, "the configuration", err));
	MZM_TRY(need_text(obj, "arch", &arch, err));
	MZM_TRY(pick(known_archs, N_OF(known_archs), "arch", arch, &which, err));
	snprintf(c.arch, sizeof c.arch, "%s", arch);
	MZM_TRY(shape_from_json(&c, obj, err));
	MZM_TRY(need_text(obj, "act", &act, err));
	MZM_TRY(pick(act_names, N_OF(act_names), "act", act, &which, err));
	c.act = (mzm_act)which;
	if (!member(obj, "tied") || !member(obj, "eos_ids"))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is missing", member(obj, "tied") ? "eos_ids" : "tied");
	MZM_TRY(mzm_json_bool(obj, "tied", false, &c.tied, err));
	MZM_TRY(need_real(obj, "norm_eps", 1e-30, 1, &eps, err));
	c.norm_eps = (float)eps;
	MZM_TRY(rope_from_json(&c, obj, err));
	MZM_TRY(need_int(obj, "bos_id", -1, c.n_vocab - 1, &c.bos_id, err));
	MZM_TRY(eos_from(&c, obj, "eos_ids", err));
	MZM_TRY(mzm_config_check(&c, err));
	*out = c;
	return MZM_OK;
}

/* ---- canonical tensors ---- */

#define N_LAYER_KINDS (MZM_T_UPDOWN - MZM_T_ATTN_NORM + 1) /* the enumerators of a layer stand in file order */

int32_t mzm_tensor_count(const mzm_config *cfg)
{
	return 1 + N_LAYER_KINDS * cfg->n_layers + 1 + (cfg->tied ? 0 : 1);
}

static void set_shape(mzm_tensor *t, int32_t n_rows, int32_t n_cols)
{
	t->n_rows = n_rows;
	t->n_cols = n_cols;
}

mzm_tensor mzm_tensor_at(const mzm_config *cfg, int32_t i)
{
	int32_t n_in_layers = N_LAYER_KINDS * cfg->n_layers, q = cfg->n_heads * cfg->head_dim;
	mzm_tensor t = {.layer = -1, .dtype = MZM_F32};
	if (i >= 1 && i <= n_in_layers) {
		t.layer = (i - 1) / N_LAYER_KINDS;
		t.kind = (mzm_tensor_kind)(MZM_T_ATTN_NORM + (i - 1) % N_LAYER_KINDS);
	} else {
		t.kind = i == 0 ? MZM_T_EMBED : i == n_in_layers + 1 ? MZM_T_OUT_NORM : MZM_T_HEAD;
	}
	switch (t.kind) {
	case MZM_T_WQ: set_shape(&t, q, cfg->dim); break;
	case MZM_T_WK:
	case MZM_T_WV: set_shape(&t, cfg->n_kv_heads * cfg->head_dim, cfg->dim); break;
	case MZM_T_WO: set_shape(&t, cfg->dim, q); break;
	case MZM_T_GATE: set_shape(&t, cfg->n_ffn, cfg->dim); break;
	case MZM_T_UPDOWN: set_shape(&t, 2 * cfg->n_ffn, cfg->dim); break;
	case MZM_T_EMBED:
	case MZM_T_HEAD: set_shape(&t, cfg->n_vocab, cfg->dim); break;
	default: set_shape(&t, 1, cfg->dim); break;
	}
	return t;
}

int32_t mzm_tensor_index(const mzm_config *cfg, mzm_tensor_kind kind, int32_t layer)
{
	int32_t n_in_layers = N_LAYER_KINDS * cfg->n_layers;
	switch (kind) {
	case MZM_T_EMBED: return 0;
	case MZM_T_OUT_NORM: return n_in_layers + 1;
	case MZM_T_HEAD: return cfg->tied ? -1 : n_in_layers + 2;
	default: break;
	}
	if (kind < MZM_T_ATTN_NORM || kind > MZM_T_UPDOWN || layer < 0 || layer >= cfg->n_layers)
		return -1;
	return 1 + N_LAYER_KINDS * layer + (int32_t)(kind - MZM_T_ATTN_NORM);
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
	static const mzm_tensor_kind kinds[N_DRAFT_KINDS] = {MZM_T_WQ, MZM_T_WK,   MZM_T_WV,
							     MZM_T_WO, MZM_T_GATE, MZM_T_UPDOWN};
	mzm_tensor t = {.kind = MZM_T_HEAD, .layer = -1, .n_rows = cfg->n_vocab, .n_cols = cfg->dim};
	if (i < N_DRAFT_KINDS * cfg->n_layers)
		t = mzm_tensor_at(cfg, mzm_tensor_index(cfg, kinds[i % N_DRAFT_KINDS], i / N_DRAFT_KINDS));
	t.role = MZM_ROLE_DRAFT;
	return t;
}

const char *mzm_tensor_name(const mzm_tensor *t, char buf[64])
{
	static const char *const names[MZM_N_TENSOR_KINDS] = {
		[MZM_T_EMBED] = "embed", [MZM_T_ATTN_NORM] = "attn_norm", [MZM_T_WQ] = "wq", [MZM_T_WK] = "wk",
		[MZM_T_WV] = "wv", [MZM_T_WO] = "wo", [MZM_T_FFN_NORM] = "ffn_norm", [MZM_T_GATE] = "gate",
		[MZM_T_UPDOWN] = "updown", [MZM_T_OUT_NORM] = "out_norm", [MZM_T_HEAD] = "head",
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
	return (uint64_t)cfg->n_layers * 3 * (uint64_t)cfg->n_ffn * (uint64_t)cfg->dim;
}

uint64_t mzm_config_n_params(const mzm_config *cfg)
{
	uint64_t dim = (uint64_t)cfg->dim, q = (uint64_t)cfg->n_heads * (uint64_t)cfg->head_dim;
	uint64_t kv = (uint64_t)cfg->n_kv_heads * (uint64_t)cfg->head_dim;
	uint64_t layer = 2 * dim + 2 * q * dim + 2 * kv * dim;
	uint64_t tables = (cfg->tied ? 1 : 2) * (uint64_t)cfg->n_vocab * dim;
	return tables + (uint64_t)cfg->n_layers * layer + mzm_config_n_ffn_params(cfg) + dim;
}
