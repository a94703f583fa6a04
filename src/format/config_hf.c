/* config_hf.c - the configuration of a Hugging Face directory (config.h).
 *
 * Owns: the translation of config.json into mzm_config, one row of a table and one function a family. A key may be
 * missing only where the family's class has a certain default, which the table then states; a key that another family
 * would compute with must be neutral. Rotary positions: config_hf_rope.c. */
#include "format/config_hf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define N_OF(array) (sizeof(array) / sizeof(array)[0])

typedef enum family_id {
	LLAMA,
	MISTRAL,
	QWEN2,
	QWEN3,
	GEMMA,
	GEMMA2,
	GEMMA3,
	PHI3,
	OPT,
	STABLELM,
	GPTNEOX,
	N_FAMILIES
} family_id;
#define IN(family) (1u << (family))

#define OF_SHAPE (-1) /* the class computes head_dim */

/* Defaults are those of the classes in Hugging Face's transformers. */
typedef struct family {
	const char *arch;    /* mzm_arch_names */
	const char *ffn_key, *act_key, *eps_key; /* NULL: read_own sets what it stands for */
	int32_t     head_dim;    /* where the key is missing; 0: hidden_size / heads */
	bool        needs_kv;    /* the class has another default than as many KV heads as heads */
	bool        tied;        /* where the key is missing */
	mzm_hf_rope rope;        /* no theta_key: it does not rotate */
	mzm_status (*read_own)(mzm_config *c, const json_t *config, mzm_err *err);
} family;

/* ---- keys ---- */

static mzm_status need_true(const json_t *obj, const char *key, mzm_err *err)
{
	bool on;
	MZM_TRY(mzm_json_bool(obj, key, true, &on, err));
	return on ? MZM_OK : mzm_fail(err, MZM_EUNSUPPORTED, "\"%s\" false is not supported", key);
}

/* A key that must say nothing, except to the families that know it. */
typedef struct foreign_key {
	const char *key;
	double      neutral;     /* NAN: no number is */
	unsigned    known_to;    /* IN() of families */
} foreign_key;

static const foreign_key foreign_keys[] = {
	/* biases, norms and blocks; Qwen2 has its biases whatever the key says, and the tensors tell */
	{"attention_bias", 0, IN(LLAMA) | IN(QWEN2) | IN(QWEN3) | IN(GEMMA) | IN(GEMMA2) | IN(GEMMA3) | IN(GPTNEOX)},
	{"mlp_bias", 0, IN(LLAMA)},
	{"lm_head_bias", 0, 0},
	{"use_qkv_bias", 0, IN(STABLELM)},
	{"use_parallel_residual", 0, IN(STABLELM) | IN(GPTNEOX)},
	{"parallel_attn", 0, 0},
	{"qk_layernorm", 0, 0},
	{"use_qk_norm", 0, IN(QWEN3) | IN(GEMMA3)},
	{"qk_norm", 0, IN(QWEN3) | IN(GEMMA3)},
	{"_remove_final_layer_norm", 0, 0},
	{"is_encoder_decoder", 0, 0},
	{"add_cross_attention", 0, 0},
	{"pruned_heads", NAN, 0},
	{"block_configs", NAN, 0},
	/* attention */
	{"sliding_window", NAN, IN(MISTRAL) | IN(QWEN2) | IN(QWEN3) | IN(GEMMA2) | IN(GEMMA3) | IN(PHI3)},
	{"use_sliding_window", 0, IN(QWEN2) | IN(QWEN3)},
	{"sliding_window_pattern", NAN, IN(GEMMA3)},
	{"attn_logit_softcapping", 0, IN(GEMMA2)},
	{"final_logit_softcapping", 0, IN(GEMMA2) | IN(GEMMA3)},
	{"query_pre_attn_scalar", NAN, IN(GEMMA2) | IN(GEMMA3)},
	{"rope_local_base_freq", NAN, IN(GEMMA3)},
	{"use_bidirectional_attention", 0, 0},
	{"dijiang_form", NAN, IN(LLAMA) | IN(GPTNEOX)},
	{"dijiang_table_len", NAN, IN(LLAMA) | IN(GPTNEOX)},
	{"dijiang_denominator", NAN, IN(LLAMA) | IN(GPTNEOX)},
	{"attention_chunk_size", 0, 0},
	{"dual_chunk_attention_config", NAN, 0},
	{"sparse_config", NAN, 0},
	{"no_rope_layers", NAN, 0},
	{"no_rope_layer_interval", 0, 0},
	{"use_mrope", 0, 0},
	{"alibi", 0, 0},
	{"clip_qkv", 0, 0},
	{"q_lora_rank", 0, 0},
	{"kv_lora_rank", 0, 0},
	/* scales */
	{"attention_multiplier", NAN, 0},
	{"embedding_multiplier", 1, 0},
	{"residual_multiplier", 1, 0},
	{"logits_scaling", 1, 0},
	{"logit_scale", 1, 0},
	{"scale_emb", 1, 0},
	{"scale_depth", NAN, 0},
	{"dim_model_base", NAN, 0},
	{"interpolate_factor", 1, 0},
	/* experts and modalities */
	{"num_local_experts", 0, 0},
	{"num_experts", 0, 0},
	{"n_routed_experts", 0, 0},
	{"moe_intermediate_size", 0, 0},
	{"num_nextn_predict_layers", 0, 0},
	{"text_config", NAN, 0},
	{"vision_config", NAN, 0},
	{"audio_config", NAN, 0},
};

static bool is_neutral(const json_t *v, double neutral)
{
	if (json_is_number(v))
		return json_number_value(v) == neutral;
	if (json_is_object(v) || json_is_array(v))
		return json_object_size(v) == 0 && json_array_size(v) == 0;
	return json_is_false(v);
}

static mzm_status refuse_foreign(family_id f, const json_t *config, mzm_err *err)
{
	if (mzm_cfg_member(config, "quantization_config"))
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"quantization_config\" is not supported");
	for (size_t i = 0; i < N_OF(foreign_keys); i++) {
		const foreign_key *k = &foreign_keys[i];
		const json_t *v = mzm_cfg_member(config, k->key);
		if (v && !(k->known_to & IN(f)) && !is_neutral(v, k->neutral))
			return mzm_fail(err, MZM_EUNSUPPORTED, "\"%s\" is not supported with this architecture",
					k->key);
	}
	return MZM_OK;
}

/* ---- activations ---- */

static mzm_status set_act(mzm_config *c, const char *key, const char *name, mzm_err *err)
{
	static const struct {
		const char *name;
		mzm_act     act;
	} acts[] = {
		{"silu", MZM_ACT_SILU},		 {"swish", MZM_ACT_SILU},
		{"relu", MZM_ACT_RELU},		 {"fatrelu", MZM_ACT_FATRELU},
		{"gelu", MZM_ACT_GELU},		 {"gelu_python", MZM_ACT_GELU},
		{"gelu_new", MZM_ACT_GELU_TANH}, {"gelu_pytorch_tanh", MZM_ACT_GELU_TANH},
		{"gelu_fast", MZM_ACT_GELU_TANH}, /* the same formula again */
	};
	for (size_t i = 0; i < N_OF(acts); i++)
		if (strcmp(acts[i].name, name) == 0) {
			c->act = acts[i].act;
			return MZM_OK;
		}
	return mzm_fail(err, MZM_EUNSUPPORTED, "\"%s\" is \"%.40s\", which is not supported", key, name);
}

static mzm_status read_act(mzm_config *c, const json_t *config, const char *key, mzm_err *err)
{
	const char *name;
	double threshold = 0;
	MZM_TRY(mzm_cfg_need_text(config, key, &name, err));
	MZM_TRY(set_act(c, key, name, err));
	if (c->act == MZM_ACT_FATRELU)
		MZM_TRY(mzm_cfg_need_real(config, "hidden_act_param", 0, 1e6, &threshold, err));
	c->act_threshold = (float)threshold;
	return MZM_OK;
}

/* Gemma's: "hidden_activation" counts where it is given. "hidden_act" of the first files says "gelu" and means the
 * approximation that all Gemmas were trained with; releases of the class differ in whether they read it, so it must
 * mean the same. */
static mzm_status read_gemma_act(mzm_config *c, const json_t *config, mzm_err *err)
{
	const char *name, *old;
	MZM_TRY(mzm_cfg_text(config, "hidden_activation", &name, err));
	MZM_TRY(mzm_cfg_text(config, "hidden_act", &old, err));
	if (name)
		return set_act(c, "hidden_activation", name, err);
	if (old && strcmp(old, "gelu") != 0) {
		MZM_TRY(set_act(c, "hidden_act", old, err));
		if (c->act != MZM_ACT_GELU_TANH)
			return mzm_fail(err, MZM_EUNSUPPORTED, "\"hidden_act\" \"%.40s\" without \"hidden_activation\" "
					"is not supported", old);
	}
	c->act = MZM_ACT_GELU_TANH;
	return MZM_OK;
}

/* ---- windows ---- */

static void set_local(mzm_config *c, int32_t layer)
{
	c->local[layer / 8] |= (uint8_t)(1u << layer % 8);
}

static bool any_local(const mzm_config *c)
{
	for (int32_t l = 0; l < c->n_layers; l++)
		if (mzm_config_is_local(c, l))
			return true;
	return false;
}

/* "layer_types" into local; *found false when there is none. */
static mzm_status read_layer_types(mzm_config *c, const json_t *config, bool *found, mzm_err *err)
{
	static const char *const types[] = {"full_attention", "sliding_attention"};
	const json_t *list = mzm_cfg_member(config, "layer_types");
	*found = list != NULL;
	if (!list)
		return MZM_OK;
	if (!json_is_array(list) || json_array_size(list) != (size_t)c->n_layers)
		return mzm_fail(err, MZM_EFORMAT, "\"layer_types\" is no list of %d names", (int)c->n_layers);
	memset(c->local, 0, sizeof c->local);
	for (int32_t l = 0; l < c->n_layers; l++) {
		const json_t *v = json_array_get(list, (size_t)l);
		int which;
		if (!json_is_string(v) || !mzm_cfg_is_plain(v))
			return mzm_fail(err, MZM_EFORMAT, "\"layer_types\" is no list of %d names", (int)c->n_layers);
		MZM_TRY(mzm_cfg_pick(types, N_OF(types), "layer_types", json_string_value(v), &which, err));
		if (which == 1)
			set_local(c, l);
	}
	return MZM_OK;
}

/* local is filled: the size of the window that its layers have. */
static mzm_status need_window(mzm_config *c, const json_t *config, mzm_err *err)
{
	return any_local(c) ? mzm_cfg_need_int(config, "sliding_window", 1, MZM_MAX_CTX, &c->window, err) : MZM_OK;
}

/* All layers, when the key holds a number. */
static mzm_status read_window_of_all(mzm_config *c, const json_t *config, mzm_err *err)
{
	if (!mzm_cfg_member(config, "sliding_window"))
		return MZM_OK;
	for (int32_t l = 0; l < c->n_layers; l++)
		set_local(c, l);
	return need_window(c, config, err);
}

/* Qwen: off by default; then layers from "max_window_layers" on, unless "layer_types" lists them. */
static mzm_status read_qwen_window(mzm_config *c, const json_t *config, mzm_err *err)
{
	bool on, listed;
	int32_t first = 0;
	MZM_TRY(mzm_json_bool(config, "use_sliding_window", false, &on, err));
	MZM_TRY(read_layer_types(c, config, &listed, err));
	on = on && mzm_cfg_member(config, "sliding_window");
	if (!on && any_local(c))
		return mzm_fail(err, MZM_EFORMAT, "\"layer_types\" contradicts \"use_sliding_window\"");
	if (!on)
		return MZM_OK;
	if (!listed) {
		MZM_TRY(mzm_cfg_need_int(config, "max_window_layers", 0, MZM_MAX_LAYERS, &first, err));
		for (int32_t l = first; l < c->n_layers; l++)
			set_local(c, l);
	}
	return need_window(c, config, err);
}

/* Every `pattern`-th layer sees everything, unless "layer_types" says which. */
static mzm_status read_pattern(mzm_config *c, const json_t *config, int64_t pattern, mzm_err *err)
{
	bool listed;
	MZM_TRY(read_layer_types(c, config, &listed, err));
	for (int32_t l = 0; l < c->n_layers && !listed; l++)
		if ((l + 1) % pattern != 0)
			set_local(c, l);
	return need_window(c, config, err);
}

/* Families that do not read "layer_types" may carry it when it says what they do. */
static mzm_status check_layer_types(const mzm_config *c, const json_t *config, mzm_err *err)
{
	mzm_config listed = {.n_layers = c->n_layers};
	bool found;
	MZM_TRY(read_layer_types(&listed, config, &found, err));
	if (found && memcmp(listed.local, c->local, sizeof c->local) != 0)
		return mzm_fail(err, MZM_EFORMAT, "\"layer_types\" contradicts what this architecture does");
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

/* ---- what each family has of its own ---- */

static mzm_status read_attention_bias(mzm_config *c, const json_t *config, bool fallback, mzm_err *err)
{
	MZM_TRY(mzm_json_bool(config, "attention_bias", fallback, &c->bias_qkv, err));
	c->bias_o = c->bias_qkv;
	return MZM_OK;
}

/* DiJiang in place of softmax. The released code marks its checkpoints by their class's file alone, so the key is ours:
 * whoever imports one says which form it has. */
static mzm_status read_dijiang(mzm_config *c, const json_t *config, mzm_err *err)
{
	static const char *const forms[] = {"paper", "released"};
	const char *form;
	int which;
	bool means = true;
	MZM_TRY(mzm_cfg_text(config, "dijiang_form", &form, err));
	if (!form)
		return MZM_OK;
	MZM_TRY(mzm_cfg_pick(forms, N_OF(forms), "dijiang_form", form, &which, err));
	c->attn = which ? MZM_ATTN_DIJIANG : MZM_ATTN_DIJIANG_PAPER;
	if (which) {
		int64_t len;
		MZM_TRY(mzm_json_int(config, "dijiang_table_len", 2, MZM_MAX_CTX, c->n_ctx, &len, err));
		c->decay_len = (int32_t)len;
	} else {
		MZM_TRY(mzm_json_bool(config, "dijiang_denominator", true, &means, err));
		c->no_denominator = !means;
	}
	return MZM_OK;
}

static mzm_status read_llama(mzm_config *c, const json_t *config, mzm_err *err)
{
	MZM_TRY(read_dijiang(c, config, err));
	MZM_TRY(read_attention_bias(c, config, false, err));
	return mzm_json_bool(config, "mlp_bias", false, &c->bias_ffn, err);
}

/* The class's default is a window of 4,096: a file without the key is not trusted to mean it. */
static mzm_status read_mistral(mzm_config *c, const json_t *config, mzm_err *err)
{
	if (!json_object_get(config, "sliding_window"))
		return mzm_fail(err, MZM_EFORMAT, "\"sliding_window\" is missing (null = none)");
	return read_window_of_all(c, config, err);
}

static mzm_status read_qwen2(mzm_config *c, const json_t *config, mzm_err *err)
{
	c->bias_qkv = true;
	return read_qwen_window(c, config, err);
}

static mzm_status read_qwen3(mzm_config *c, const json_t *config, mzm_err *err)
{
	c->qk_norm = true;
	MZM_TRY(read_attention_bias(c, config, false, err));
	return read_qwen_window(c, config, err);
}

static mzm_status read_gemma(mzm_config *c, const json_t *config, mzm_err *err)
{
	c->embed_scale = sqrt(c->dim);
	MZM_TRY(read_gemma_act(c, config, err));
	return read_attention_bias(c, config, false, err);
}

/* A cap: a number, null for none, the class's when the key is missing. */
static mzm_status read_softcap(const json_t *config, const char *key, double fallback, double *out, mzm_err *err)
{
	if (!json_object_get(config, key)) {
		*out = fallback;
		return MZM_OK;
	}
	return mzm_json_real(config, key, 1e-3, 1e9, 0, out, err);
}

/* Scores are divided by the root of this number; 256 in both classes. */
static mzm_status read_query_scale(mzm_config *c, const json_t *config, mzm_err *err)
{
	double scalar;
	MZM_TRY(mzm_json_real(config, "query_pre_attn_scalar", 1e-3, 1e9, 256, &scalar, err));
	if (scalar != c->head_dim)
		c->attn_scale = 1 / sqrt(scalar);
	return MZM_OK;
}

static mzm_status read_gemma2(mzm_config *c, const json_t *config, mzm_err *err)
{
	c->post_norm = true;
	MZM_TRY(read_gemma(c, config, err));
	MZM_TRY(read_query_scale(c, config, err));
	MZM_TRY(read_softcap(config, "attn_logit_softcapping", 50, &c->attn_softcap, err));
	MZM_TRY(read_softcap(config, "final_logit_softcapping", 30, &c->logit_softcap, err));
	return read_pattern(c, config, 2, err);
}

static mzm_status read_gemma3(mzm_config *c, const json_t *config, mzm_err *err)
{
	int64_t pattern;
	c->post_norm = true;
	c->qk_norm = true;
	MZM_TRY(read_gemma(c, config, err));
	MZM_TRY(read_query_scale(c, config, err));
	MZM_TRY(read_softcap(config, "final_logit_softcapping", 0, &c->logit_softcap, err));
	MZM_TRY(mzm_json_int(config, "_sliding_window_pattern", 1, MZM_MAX_LAYERS, 6, &pattern, err));
	MZM_TRY(mzm_json_int(config, "sliding_window_pattern", 1, MZM_MAX_LAYERS, pattern, &pattern, err));
	return read_pattern(c, config, pattern, err);
}

static mzm_status read_phi3(mzm_config *c, const json_t *config, mzm_err *err)
{
	return read_window_of_all(c, config, err); /* the class has none by default */
}

/* Without gates, with biases throughout, positions learned. Its norms are torch's, with torch's epsilon. */
static mzm_status read_opt(mzm_config *c, const json_t *config, mzm_err *err)
{
	bool biases;
	int64_t proj;
	c->norm = MZM_NORM_LAYER;
	c->norm_eps = 1e-5f;
	c->ungated = true;
	c->learned_pos = true;
	c->rope = MZM_ROPE_NONE;
	c->rope_theta = 10000;
	MZM_TRY(need_true(config, "do_layer_norm_before", err));
	MZM_TRY(need_true(config, "layer_norm_elementwise_affine", err));
	MZM_TRY(mzm_json_int(config, "word_embed_proj_dim", 1, MZM_MAX_DIM, c->dim, &proj, err));
	if (proj != c->dim)
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"\"word_embed_proj_dim\" %d other than \"hidden_size\" %d is not supported", (int)proj,
				(int)c->dim);
	MZM_TRY(mzm_json_bool(config, "enable_bias", true, &biases, err));
	c->bias_qkv = c->bias_o = c->bias_ffn = biases;
	return MZM_OK;
}

/* "norm_eps" is what its first files call it. */
static mzm_status read_stablelm(mzm_config *c, const json_t *config, mzm_err *err)
{
	bool parallel;
	double eps = 0;
	bool old = !mzm_cfg_member(config, "layer_norm_eps") && mzm_cfg_member(config, "norm_eps");
	MZM_TRY(mzm_cfg_need_real(config, old ? "norm_eps" : "layer_norm_eps", 1e-30, 1, &eps, err));
	c->norm_eps = (float)eps;
	c->norm = MZM_NORM_LAYER;
	MZM_TRY(mzm_json_bool(config, "use_qkv_bias", false, &c->bias_qkv, err));
	MZM_TRY(mzm_json_bool(config, "use_parallel_residual", false, &parallel, err));
	c->parallel = parallel ? MZM_PARALLEL_SHARED : MZM_SERIAL;
	return MZM_OK;
}

static mzm_status read_gptneox(mzm_config *c, const json_t *config, mzm_err *err)
{
	bool parallel;
	c->norm = MZM_NORM_LAYER;
	c->ungated = true;
	c->bias_ffn = true;
	MZM_TRY(read_dijiang(c, config, err));
	MZM_TRY(read_attention_bias(c, config, true, err));
	MZM_TRY(mzm_json_bool(config, "use_parallel_residual", true, &parallel, err));
	c->parallel = parallel ? MZM_PARALLEL : MZM_SERIAL;
	return MZM_OK;
}

#define FFN "intermediate_size"
#define ACT "hidden_act"
#define RMS "rms_norm_eps"
#define PLAIN_ROPE {"rope_theta", 10000, NULL, 0, false, false}

static const family families[N_FAMILIES] = {
	[LLAMA] = {"llama", FFN, ACT, RMS, 0, false, false, PLAIN_ROPE, read_llama},
	[MISTRAL] = {"mistral", FFN, ACT, RMS, 0, true, false, PLAIN_ROPE, read_mistral},
	[QWEN2] = {"qwen2", FFN, ACT, RMS, 0, true, false, PLAIN_ROPE, read_qwen2},
	[QWEN3] = {"qwen3", FFN, ACT, RMS, 128, true, false, PLAIN_ROPE, read_qwen3},
	[GEMMA] = {"gemma", FFN, NULL, RMS, 256, true, true, PLAIN_ROPE, read_gemma},
	[GEMMA2] = {"gemma2", FFN, NULL, RMS, 256, true, true, PLAIN_ROPE, read_gemma2},
	[GEMMA3] = {"gemma3", FFN, NULL, RMS, 256, true, true, {"rope_theta", 1e6, NULL, 0, false, true}, read_gemma3},
	[PHI3] = {"phi3", FFN, ACT, RMS, 0, false, false, {"rope_theta", 10000, NULL, 1, true, false}, read_phi3},
	[OPT] = {"opt", "ffn_dim", "activation_function", NULL, OF_SHAPE, false, true, {0}, read_opt},
	[STABLELM] = {"stablelm", FFN, ACT, NULL, OF_SHAPE, true, false,
		      {"rope_theta", 10000, "rope_pct", 0.25, false, false}, read_stablelm},
	[GPTNEOX] = {"gptneox", FFN, ACT, "layer_norm_eps", OF_SHAPE, false, false,
		     {"rotary_emb_base", 10000, "rotary_pct", 0.25, false, false}, read_gptneox},
};

/* ---- all of it ---- */

/* "model_type" and the class in "architectures" that may stand with it. */
static const struct {
	const char *type, *class_name;
	family_id   family;
} published[] = {
	{"llama", "LlamaForCausalLM", LLAMA},
	{"llama", "SparseLlamaForCausalLM", LLAMA}, /* ProSparse: see check_sparse_class */
	{"sparsellama", "SparseLlamaForCausalLM", LLAMA},
	{"mistral", "MistralForCausalLM", MISTRAL},
	{"qwen2", "Qwen2ForCausalLM", QWEN2},
	{"qwen3", "Qwen3ForCausalLM", QWEN3},
	{"gemma", "GemmaForCausalLM", GEMMA},
	{"gemma2", "Gemma2ForCausalLM", GEMMA2},
	{"gemma3_text", "Gemma3ForCausalLM", GEMMA3},
	{"phi3", "Phi3ForCausalLM", PHI3},
	{"opt", "OPTForCausalLM", OPT},
	{"stablelm", "StableLmForCausalLM", STABLELM},
	{"stablelm_epoch", "StableLMEpochForCausalLM", STABLELM},
	{"gpt_neox", "GPTNeoXForCausalLM", GPTNEOX},
};

/* The one class of "architectures"; NULL when the key is missing. */
static mzm_status read_class(const json_t *config, const char **out, mzm_err *err)
{
	const json_t *archs = mzm_cfg_member(config, "architectures"), *first = json_array_get(archs, 0);
	*out = NULL;
	if (!archs)
		return MZM_OK;
	if (!json_is_string(first) || !mzm_cfg_is_plain(first) || json_array_size(archs) != 1)
		return mzm_fail(err, MZM_EFORMAT, "\"architectures\" is not a list of one name");
	*out = json_string_value(first);
	return MZM_OK;
}

/* ProSparse's class is a Llama with a threshold in its activation. Others of the same name are sparse in attention. */
static mzm_status check_sparse_class(const json_t *config, const char *class_name, mzm_err *err)
{
	bool sparse = class_name && strcmp(class_name, "SparseLlamaForCausalLM") == 0;
	if (!sparse || mzm_cfg_member(config, "hidden_act_param"))
		return MZM_OK;
	return mzm_fail(err, MZM_EUNSUPPORTED, "\"architectures\" is \"%s\" without \"hidden_act_param\", which is not "
			"supported", class_name);
}

static mzm_status read_family(family_id *out, const json_t *config, mzm_err *err)
{
	const char *type, *class_name;
	bool type_known = false, class_known = false;
	MZM_TRY(mzm_cfg_need_text(config, "model_type", &type, err));
	MZM_TRY(read_class(config, &class_name, err));
	for (size_t i = 0; i < N_OF(published); i++) {
		bool same_type = strcmp(published[i].type, type) == 0;
		bool same_class = class_name && strcmp(published[i].class_name, class_name) == 0;
		*out = published[i].family;
		if (same_type && (same_class || !class_name))
			return check_sparse_class(config, class_name, err);
		type_known = type_known || same_type;
		class_known = class_known || same_class;
	}
	if (strcmp(type, "gemma3") == 0)
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"\"model_type\" is \"gemma3\" (with images), which is not supported; "
				"\"gemma3_text\" is");
	if (!type_known)
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"model_type\" is \"%.40s\", which is not supported", type);
	if (!class_known)
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"architectures\" is \"%.40s\", which is not supported",
				class_name);
	return mzm_fail(err, MZM_EFORMAT, "\"architectures\" and \"model_type\" contradict each other");
}

static mzm_status read_heads(mzm_config *c, const json_t *config, const family *f, mzm_err *err)
{
	int64_t v;
	MZM_TRY(mzm_cfg_need_int(config, "num_attention_heads", 1, MZM_MAX_DIM, &c->n_heads, err));
	c->n_kv_heads = c->n_heads;
	if (f->needs_kv || mzm_cfg_member(config, "num_key_value_heads"))
		MZM_TRY(mzm_cfg_need_int(config, "num_key_value_heads", 1, MZM_MAX_DIM, &c->n_kv_heads, err));
	if (f->head_dim <= 0 && (f->head_dim == OF_SHAPE || !mzm_cfg_member(config, "head_dim")) &&
	    c->dim % c->n_heads != 0)
		return mzm_fail(err, MZM_EFORMAT, "\"hidden_size\" %d is no multiple of \"num_attention_heads\" %d",
				(int)c->dim, (int)c->n_heads);
	int32_t fallback = f->head_dim > 0 ? f->head_dim : c->dim / c->n_heads;
	MZM_TRY(mzm_json_int(config, "head_dim", 1, MZM_MAX_DIM, fallback, &v, err));
	c->head_dim = (int32_t)v;
	if (f->head_dim == OF_SHAPE && v != fallback)
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"head_dim\" %d other than %d is not supported", (int)v,
				(int)fallback);
	return MZM_OK;
}

static mzm_status read_shape(mzm_config *c, const json_t *config, const family *f, mzm_err *err)
{
	MZM_TRY(mzm_cfg_need_int(config, "num_hidden_layers", 1, MZM_MAX_LAYERS, &c->n_layers, err));
	MZM_TRY(mzm_cfg_need_int(config, "hidden_size", 1, MZM_MAX_DIM, &c->dim, err));
	MZM_TRY(mzm_cfg_need_int(config, f->ffn_key, 1, MZM_MAX_DIM, &c->n_ffn, err));
	MZM_TRY(mzm_cfg_need_int(config, "vocab_size", 1, MZM_MAX_VOCAB, &c->n_vocab, err));
	MZM_TRY(mzm_cfg_need_int(config, "max_position_embeddings", 1, MZM_MAX_CTX, &c->n_ctx, err));
	return read_heads(c, config, f, err);
}

/* Classes without groups have one K and one V a head. */
static mzm_status check_groups(const mzm_config *c, family_id f, mzm_err *err)
{
	if ((f == OPT || f == GPTNEOX) && c->n_kv_heads != c->n_heads)
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"num_key_value_heads\" %d of %d heads is not supported",
				(int)c->n_kv_heads, (int)c->n_heads);
	return MZM_OK;
}

static mzm_status read_tokens(mzm_config *c, const json_t *config, const json_t *generation, mzm_err *err)
{
	int64_t bos;
	bool has_bos = mzm_cfg_member(config, "bos_token_id") != NULL;
	MZM_TRY(mzm_json_int(config, "bos_token_id", 0, c->n_vocab - 1, 0, &bos, err));
	c->bos_id = has_bos ? (int32_t)bos : -1;
	MZM_TRY(mzm_cfg_eos(c, config, "eos_token_id", err));
	if (!generation)
		return MZM_OK;
	MZM_TRY(mzm_cfg_need_object(generation, "the generation configuration", err));
	return mzm_cfg_eos(c, generation, "eos_token_id", err);
}

static mzm_status read_all(mzm_config *c, const json_t *config, const json_t *generation, mzm_err *err)
{
	family_id id;
	double eps = 0;
	MZM_TRY(mzm_cfg_need_object(config, "the configuration", err));
	MZM_TRY(read_family(&id, config, err));
	const family *f = &families[id];
	snprintf(c->arch, sizeof c->arch, "%s", f->arch);
	MZM_TRY(refuse_foreign(id, config, err));
	MZM_TRY(read_shape(c, config, f, err));
	MZM_TRY(check_groups(c, id, err));
	if (f->act_key)
		MZM_TRY(read_act(c, config, f->act_key, err));
	if (f->eps_key) {
		MZM_TRY(mzm_cfg_need_real(config, f->eps_key, 1e-30, 1, &eps, err));
		c->norm_eps = (float)eps;
	}
	MZM_TRY(f->read_own(c, config, err));
	MZM_TRY(check_layer_types(c, config, err));
	if (f->rope.theta_key)
		MZM_TRY(mzm_hf_read_rope(c, config, &f->rope, err));
	drop_idle_window(c);
	MZM_TRY(mzm_json_bool(config, "tie_word_embeddings", f->tied, &c->tied, err));
	MZM_TRY(read_tokens(c, config, generation, err));
	return mzm_config_check(c, err);
}

mzm_status mzm_config_from_hf(mzm_config *out, const json_t *config, const json_t *generation, mzm_err *err)
{
	mzm_config c = {.rope = MZM_ROPE_PLAIN};
	MZM_TRY(read_all(&c, config, generation, err));
	*out = c;
	return MZM_OK;
}
