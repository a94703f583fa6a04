/* gguf_config.c - the configuration of a GGUF model (gguf_source.h), of the architectures in gguf_arch.c.
 *
 * Every key of the architecture is read, or refused by its name unless it says what this engine does anyway; a key that
 * this file has never heard of is refused too, for nobody knows what it would change. Features that no key tells of are
 * those of the architecture's table, or of the tensors of the first layer; all other layers must be like it, since
 * every tensor must be there and none may be left over (gguf_source.c). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "format/gguf_arch.h"
#include "format/gguf_source.h"

#define N_OF(a) (sizeof(a) / sizeof(a)[0])

static bool text_is(const mzm_gguf_text *t, const char *s)
{
	return t->n == strlen(s) && memcmp(t->s, s, t->n) == 0;
}

static mzm_status find_arch(mzm_gguf_keys *k, const mzm_gguf *g, mzm_err *err)
{
	char buf[65];
	mzm_gguf_text arch, type;
	*k = (mzm_gguf_keys){.g = g, .arch = mzm_gguf_arch_find(g)};
	if (!mzm_gguf_string(g, "general.architecture", &arch))
		return mzm_fail(err, MZM_EFORMAT, "general.architecture is missing");
	if (mzm_gguf_has(g, "general.type") && (!mzm_gguf_string(g, "general.type", &type) || !text_is(&type, "model")))
		return mzm_fail(err, MZM_EUNSUPPORTED, "general.type is not \"model\"");
	if (!k->arch)
		return mzm_fail(err, MZM_EUNSUPPORTED, "architecture \"%s\" is not supported",
				mzm_gguf_shown(buf, &arch));
	return MZM_OK;
}

/* ---- what nobody reads ---- */

/* Keys that other functions read or that change nothing. */
static const char *const known_keys[] = {
	"attention.causal",
	"attention.head_count",
	"attention.head_count_kv",
	"attention.key_length",
	"attention.layer_norm_epsilon",
	"attention.layer_norm_rms_epsilon",
	"attention.scale",
	"attention.sliding_window",
	"attention.sliding_window_pattern",
	"attention.value_length",
	"attn_logit_softcapping",
	"block_count",
	"context_length",
	"embedding_length",
	"feed_forward_length",
	"final_logit_softcapping",
	"rope.dimension_count",
	"rope.freq_base",
	"rope.freq_base_swa",
	"rope.scale_linear",
	"rope.scaling.attn_factor",
	"rope.scaling.factor",
	"rope.scaling.finetuned",
	"rope.scaling.high_freq_factor",
	"rope.scaling.low_freq_factor",
	"rope.scaling.original_context_length",
	"rope.scaling.type",
	"tensor_data_layout",
	"use_parallel_residual",
	"vocab_size",
};

static const struct neutral {
	const char *key;
	double value;
} neutral_keys[] = {
	{"attention.clamp_kqv", 0},
	{"attention.max_alibi_bias", 0},
	{"embedding_scale", 1},
	{"expert_count", 0},
	{"expert_feed_forward_length", 0},
	{"expert_shared_count", 0},
	{"expert_used_count", 0},
	{"leading_dense_block_count", 0},
	{"logit_scale", 1},
	{"nextn_predict_layers", 0},
	{"pooling_type", 0},
	{"residual_scale", 1},
	{"router_logit_softcapping", 0},
};

static mzm_status check_key(const mzm_gguf_keys *k, const char *key, const char *name, mzm_err *err)
{
	for (size_t i = 0; i < N_OF(known_keys); i++)
		if (strcmp(name, known_keys[i]) == 0)
			return MZM_OK;
	for (size_t i = 0; i < N_OF(neutral_keys); i++) {
		double v = NAN;
		if (strcmp(name, neutral_keys[i].key) != 0)
			continue;
		if (!mzm_gguf_f64(k->g, key, &v) || v != neutral_keys[i].value)
			return mzm_fail(err, MZM_EUNSUPPORTED, "%s other than %g is not supported", key,
					neutral_keys[i].value);
		return MZM_OK;
	}
	return mzm_fail(err, MZM_EUNSUPPORTED, "%.200s is not supported", key);
}

/* All keys of the architecture. */
static mzm_status check_keys(const mzm_gguf_keys *k, mzm_err *err)
{
	size_t n = strlen(k->arch->name);
	for (int32_t i = 0; i < mzm_gguf_n_keys(k->g); i++) {
		const char *key = mzm_gguf_key_at(k->g, i);
		if (strncmp(key, k->arch->name, n) == 0 && key[n] == '.')
			MZM_TRY(check_key(k, key, key + n + 1, err));
	}
	return MZM_OK;
}

/* ---- shape ---- */

static mzm_status read_heads(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err)
{
	char buf[128];
	int32_t head_dim, value_dim;
	MZM_TRY(mzm_gguf_key_int(k, "attention.head_count", NULL, &c->n_heads, err));
	MZM_TRY(mzm_gguf_key_int(k, "attention.head_count_kv", &c->n_heads, &c->n_kv_heads, err));
	if (c->n_heads < 1 || (!mzm_gguf_has_key(k, "attention.key_length") && c->dim % c->n_heads != 0))
		return mzm_fail(err, MZM_EFORMAT, "%s %d does not divide the size %d",
				mzm_gguf_key(k, "attention.head_count", buf), (int)c->n_heads, (int)c->dim);
	head_dim = c->dim / c->n_heads;
	MZM_TRY(mzm_gguf_key_int(k, "attention.key_length", &head_dim, &c->head_dim, err));
	MZM_TRY(mzm_gguf_key_int(k, "attention.value_length", &c->head_dim, &value_dim, err));
	if (c->head_dim < 1)
		return mzm_fail(err, MZM_EFORMAT, "heads of %d", (int)c->head_dim);
	if (value_dim != c->head_dim)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s %d other than the key length %d is not supported",
				mzm_gguf_key(k, "attention.value_length", buf), (int)value_dim, (int)c->head_dim);
	return MZM_OK;
}

static mzm_status read_shape(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err)
{
	MZM_TRY(mzm_gguf_key_int(k, "block_count", NULL, &c->n_layers, err));
	MZM_TRY(mzm_gguf_key_int(k, "embedding_length", NULL, &c->dim, err));
	MZM_TRY(mzm_gguf_key_int(k, "feed_forward_length", NULL, &c->n_ffn, err));
	MZM_TRY(mzm_gguf_key_int(k, "context_length", NULL, &c->n_ctx, err));
	MZM_TRY(read_heads(c, k, err));
	const mzm_gguf_tensor *embed = mzm_gguf_find(k->g, MZM_GGUF_EMBED);
	if (!embed)
		return mzm_fail(err, MZM_EFORMAT, "tensor %s is missing", MZM_GGUF_EMBED);
	if (embed->n_dims != 2 || embed->dims[1] > MZM_MAX_VOCAB)
		return mzm_fail(err, MZM_EFORMAT, "tensor %s is no matrix of at most %d tokens", MZM_GGUF_EMBED,
				MZM_MAX_VOCAB);
	c->n_vocab = (int32_t)embed->dims[1];
	c->tied = mzm_gguf_find(k->g, MZM_GGUF_HEAD) == NULL;
	return MZM_OK;
}

/* ---- features ---- */

/* Attention and FFN side by side: NeoX says so; StableLM then has no norm of the FFN, whatever the key says. */
static mzm_status read_parallel(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err)
{
	char buf[128];
	bool flag = false, is_neox = strcmp(k->arch->name, "gptneox") == 0;
	const char *key = mzm_gguf_key(k, "use_parallel_residual", buf);
	if ((is_neox || mzm_gguf_has(k->g, key)) && !mzm_gguf_flag(k->g, key, &flag))
		return mzm_fail(err, MZM_EFORMAT, "%s is missing or no truth value", key);
	if (is_neox)
		c->parallel = flag ? MZM_PARALLEL : MZM_SERIAL;
	else if (strcmp(k->arch->name, "stablelm") == 0)
		c->parallel = mzm_gguf_find(k->g, "blk.0.ffn_norm.weight") ? MZM_SERIAL : MZM_PARALLEL_SHARED;
	else if (flag)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s is not supported", key);
	return MZM_OK;
}

static mzm_status read_caps(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err)
{
	static const char *const keys[] = {"attn_logit_softcapping", "final_logit_softcapping"};
	char buf[128];
	double *caps[] = {&c->attn_softcap, &c->logit_softcap};
	double usual[] = {k->arch->attn_softcap, k->arch->logit_softcap};
	for (size_t i = 0; i < N_OF(keys); i++) {
		MZM_TRY(mzm_gguf_key_real(k, keys[i], usual[i], caps[i], err));
		if (*caps[i] != 0 && !k->arch->has_softcap)
			return mzm_fail(err, MZM_EUNSUPPORTED, "%s other than 0 is not supported",
					mzm_gguf_key(k, keys[i], buf));
	}
	return MZM_OK;
}

/* attn_scale stays 0 where it is 1 / sqrt(head_dim). */
static mzm_status read_attn_scale(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err)
{
	char buf[128];
	double usual = 1 / sqrt((double)c->head_dim), scale = usual;
	if (k->arch->odd_layers && c->n_layers == k->arch->odd_layers)
		scale = 1 / sqrt((double)c->dim / c->n_heads);
	MZM_TRY(mzm_gguf_key_real(k, "attention.scale", scale, &scale, err));
	if (fabs(scale - usual) <= 1e-6 * usual)
		return MZM_OK;
	if (!k->arch->is_gemma || !(scale > 0))
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s other than %g is not supported",
				mzm_gguf_key(k, "attention.scale", buf), usual);
	c->attn_scale = scale;
	return MZM_OK;
}

static mzm_status read_features(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err)
{
	char buf[128];
	bool causal = true;
	double eps;
	const mzm_gguf_arch *a = k->arch;
	const mzm_gguf *g = k->g;
	c->bias_qkv =
		a->bias_qkv ||
		(a->may_bias_qkv && (mzm_gguf_find(g, "blk.0.attn_q.bias") || mzm_gguf_find(g, "blk.0.attn_qkv.bias")));
	c->bias_o = a->bias_o || (a->may_bias_o && mzm_gguf_find(g, "blk.0.attn_output.bias"));
	c->bias_ffn = a->bias_ffn || (a->may_bias_ffn && mzm_gguf_find(g, "blk.0.ffn_up.bias"));
	c->embed_scale = a->is_gemma ? sqrt((double)c->dim) : 0;
	MZM_TRY(mzm_gguf_key_real(
		k, c->norm == MZM_NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", NAN,
		&eps, err));
	c->norm_eps = (float)eps;
	if (mzm_gguf_has_key(k, "attention.causal") &&
	    (!mzm_gguf_flag(g, mzm_gguf_key(k, "attention.causal", buf), &causal) || !causal))
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s other than true is not supported",
				mzm_gguf_key(k, "attention.causal", buf));
	MZM_TRY(read_parallel(c, k, err));
	MZM_TRY(read_caps(c, k, err));
	return read_attn_scale(c, k, err);
}

/* ---- the window ---- */

static void set_local(mzm_config *c, int32_t layer)
{
	c->local[layer / 8] = (uint8_t)(c->local[layer / 8] | 1 << layer % 8);
}

/* A truth value for each layer. */
static mzm_status local_from_list(mzm_config *c, const char *key, const mzm_gguf_array *list, mzm_err *err)
{
	if (list->type != MZM_GGUF_BOOL || list->n != (uint64_t)c->n_layers)
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"%s: a list of other things than %d truth values is not supported", key,
				(int)c->n_layers);
	for (int32_t l = 0; l < c->n_layers; l++)
		if (((const uint8_t *)list->data)[l])
			set_local(c, l);
	return MZM_OK;
}

/* Of period layers the last one is global; 0: none is. */
static mzm_status local_by_period(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err)
{
	int32_t usual = k->arch->window == MZM_GGUF_ALL_BUT_NTH ? k->arch->period : 0, period;
	MZM_TRY(mzm_gguf_key_int(k, "attention.sliding_window_pattern", &usual, &period, err));
	for (int32_t l = 0; l < c->n_layers; l++)
		if (period == 0 || l % period < period - 1)
			set_local(c, l);
	return MZM_OK;
}

static mzm_status read_window(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err)
{
	char buf[128];
	mzm_gguf_array list;
	int32_t window;
	bool any = false, known = k->arch->window != MZM_GGUF_NO_WINDOW;
	MZM_TRY(mzm_gguf_key_int(k, "attention.sliding_window", &k->arch->window_size, &window, err));
	if (c->n_layers > MZM_MAX_LAYERS)
		return mzm_fail(err, MZM_EFORMAT, "%d layers", (int)c->n_layers);
	const char *key = mzm_gguf_key(k, "attention.sliding_window_pattern", buf);
	bool listed = mzm_gguf_get_array(k->g, key, &list);
	if (window == 0 || (!known && !listed && window >= c->n_ctx))
		return MZM_OK;
	if (!known && !listed)
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"a window of %d in a context of %d without a list of layers, %s, is not supported",
				(int)window, (int)c->n_ctx, key);
	MZM_TRY(listed ? local_from_list(c, key, &list, err) : local_by_period(c, k, err));
	for (int32_t l = 0; l < c->n_layers; l++)
		any = any || mzm_config_is_local(c, l);
	c->window = any ? window : 0;
	return MZM_OK;
}

/* A window as long as the context never matters, where its layers are like all others. */
static void drop_idle_window(mzm_config *c)
{
	if (c->window < c->n_ctx || c->rope_local_theta != 0)
		return;
	c->window = 0;
	memset(c->local, 0, sizeof c->local);
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

static void add_end(mzm_config *c, int32_t id)
{
	for (int32_t k = 0; k < c->n_eos; k++)
		if (c->eos_ids[k] == id)
			return;
	if (id >= 0 && c->n_eos < MZM_MAX_EOS)
		c->eos_ids[c->n_eos++] = id;
}

/* Most files name one end alone. These are ends of turns wherever they are special tokens (type 3 or 4). */
static void add_known_ends(mzm_config *c, const mzm_gguf *g)
{
	static const char *const ends[] = {"<|eot_id|>", "<|eom_id|>",    "<|im_end|>",
					   "<|end|>",    "<end_of_turn>", "<|endoftext|>"};
	mzm_gguf_array tokens, types;
	if (!mzm_gguf_get_array(g, "tokenizer.ggml.tokens", &tokens) || tokens.type != MZM_GGUF_STRING ||
	    !mzm_gguf_get_array(g, "tokenizer.ggml.token_type", &types) || types.n != tokens.n ||
	    (types.type != MZM_GGUF_I32 && types.type != MZM_GGUF_U32))
		return;
	for (uint64_t i = 0; i < tokens.n && i < (uint64_t)c->n_vocab; i++) {
		int32_t type = ((const int32_t *)types.data)[i];
		for (size_t k = 0; (type == 3 || type == 4) && k < N_OF(ends); k++)
			if (text_is(&((const mzm_gguf_text *)tokens.data)[i], ends[k]))
				add_end(c, (int32_t)i);
	}
}

/* Ends of a text, of a turn and of a message all end a generation. */
static mzm_status read_tokens(mzm_config *c, const mzm_gguf *g, mzm_err *err)
{
	static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
					   "tokenizer.ggml.eom_token_id"};
	int32_t id;
	MZM_TRY(token_id(g, "tokenizer.ggml.bos_token_id", c, &c->bos_id, err));
	for (size_t i = 0; i < N_OF(ends); i++) {
		MZM_TRY(token_id(g, ends[i], c, &id, err));
		add_end(c, id);
	}
	add_known_ends(c, g);
	return MZM_OK;
}

/* ---- all of it ---- */

mzm_status mzm_gguf_config(mzm_config *out, const mzm_gguf *g, mzm_err *err)
{
	mzm_gguf_keys k;
	MZM_TRY(find_arch(&k, g, err));
	mzm_config c = {.act = k.arch->act,
			.norm = k.arch->norm,
			.ungated = k.arch->ungated,
			.qk_norm = k.arch->qk_norm,
			.post_norm = k.arch->post_norm,
			.bos_id = -1};
	snprintf(c.arch, sizeof c.arch, "%s", k.arch->name);
	MZM_TRY(check_keys(&k, err));
	MZM_TRY(read_shape(&c, &k, err));
	MZM_TRY(read_window(&c, &k, err));
	MZM_TRY(read_features(&c, &k, err));
	MZM_TRY(mzm_gguf_rope(&c, &k, err));
	drop_idle_window(&c);
	MZM_TRY(read_tokens(&c, g, err));
	MZM_TRY(mzm_config_check(&c, err));
	*out = c;
	return MZM_OK;
}
