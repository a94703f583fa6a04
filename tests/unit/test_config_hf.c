/* test_config_hf.c - config.json of each family: the published models' (their numbers, as facts) and what they mean in
 * the canonical form; keys that change the computation and are refused by their names. */
#include "testing.h"

#include <math.h>

#include "base/mem.h"
#include "format/config.h"

#define N_OF(a) (sizeof(a) / sizeof(a)[0])

static mzm_status from_text(mzm_config *cfg, const char *text, mzm_err *err)
{
	json_t *config = NULL;
	*err = (mzm_err){0};
	memset(cfg, 0, sizeof *cfg);
	mzm_status st = mzm_json_parse(&config, text, strlen(text), "test", err);
	if (st == MZM_OK)
		st = mzm_config_from_hf(cfg, config, NULL, err);
	json_decref(config);
	return st;
}

static mzm_config good(const char *text)
{
	mzm_config cfg;
	mzm_err err;
	if (from_text(&cfg, text, &err) != MZM_OK)
		fail_msg("%s: %s", text, err.message);
	return cfg;
}

static void bad(const char *text, mzm_status code, const char *word)
{
	mzm_config cfg;
	mzm_err err;
	mzm_status st = from_text(&cfg, text, &err);
	if (st != code || !strstr(err.message, word))
		fail_msg("%s: status %d, wanted %d and \"%s\": %s", text, st, code, word, err.message);
}

/* text with `key` and its value replaced (value NULL: taken out; a new key is added). malloc'ed. */
static char *with(const char *text, const char *key, const char *value)
{
	json_t *tree, *v = NULL;
	mzm_err err = {0};
	assert_int_equal(mzm_json_parse(&tree, text, strlen(text), "test", &err), MZM_OK);
	if (value)
		v = json_loads(value, JSON_DECODE_ANY, NULL);
	if (value && !v)
		fail_msg("no JSON: %s", value);
	assert_int_equal(value ? json_object_set_new(tree, key, v) : json_object_del(tree, key), 0);
	char *out = json_dumps(tree, 0);
	json_decref(tree);
	assert_non_null(out);
	return out;
}

static mzm_config good_with(const char *text, const char *key, const char *value)
{
	char *changed = with(text, key, value);
	mzm_config c = good(changed);
	free(changed);
	return c;
}

static void bad_with(const char *text, const char *key, const char *value, mzm_status code, const char *word)
{
	char *changed = with(text, key, value);
	bad(changed, code, word);
	free(changed);
}

/* ---- published files ---- */

#define TEN(x) x "," x "," x "," x "," x "," x "," x "," x "," x "," x
#define FACTORS_48(x) TEN(x) "," TEN(x) "," TEN(x) "," TEN(x) "," x "," x "," x "," x "," x "," x "," x "," x

static const char llama31_8b[] =
	"{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,"
	"\"bos_token_id\":128000,\"eos_token_id\":[128001,128008,128009],\"hidden_act\":\"silu\",\"hidden_size\":4096,"
	"\"initializer_range\":0.02,\"intermediate_size\":14336,\"max_position_embeddings\":131072,\"mlp_bias\":false,"
	"\"model_type\":\"llama\",\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":8,"
	"\"pretraining_tp\":1,\"rms_norm_eps\":1e-05,\"rope_scaling\":{\"factor\":8.0,\"low_freq_factor\":1.0,"
	"\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192,\"rope_type\":\"llama3\"},"
	"\"rope_theta\":500000.0,\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"use_cache\":true,"
	"\"vocab_size\":128256}";

static const char smollm2_135m[] =
	"{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":0,\"eos_token_id\":0,"
	"\"hidden_act\":\"silu\",\"hidden_size\":576,\"intermediate_size\":1536,\"is_llama_config\":true,"
	"\"max_position_embeddings\":8192,\"mlp_bias\":false,\"model_type\":\"llama\",\"num_attention_heads\":9,"
	"\"num_hidden_layers\":30,\"num_key_value_heads\":3,\"pretraining_tp\":1,\"rms_norm_eps\":1e-05,"
	"\"rope_interleaved\":false,\"rope_scaling\":null,\"rope_theta\":100000,\"tie_word_embeddings\":true,"
	"\"vocab_size\":49152}";

static const char deepseek_coder_6_7b[] =
	"{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":32013,"
	"\"eos_token_id\":32014,\"hidden_act\":\"silu\",\"hidden_size\":4096,\"intermediate_size\":11008,"
	"\"max_position_embeddings\":16384,\"model_type\":\"llama\",\"num_attention_heads\":32,"
	"\"num_hidden_layers\":32,\"num_key_value_heads\":32,\"pretraining_tp\":1,\"rms_norm_eps\":1e-06,"
	"\"rope_scaling\":{\"factor\":4.0,\"type\":\"linear\"},\"rope_theta\":100000,\"tie_word_embeddings\":false,"
	"\"vocab_size\":32256}";

static const char relu_llama_7b[] =
	"{\"architectures\":[\"LlamaForCausalLM\"],\"bos_token_id\":1,\"eos_token_id\":2,\"hidden_act\":\"relu\","
	"\"hidden_size\":4096,\"intermediate_size\":11008,\"max_position_embeddings\":4096,\"model_type\":\"llama\","
	"\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":32,\"rms_norm_eps\":1e-05,"
	"\"rope_scaling\":null,\"tie_word_embeddings\":false,\"vocab_size\":32000}";

static const char prosparse_7b[] =
	"{\"architectures\":[\"SparseLlamaForCausalLM\"],\"attention_bias\":false,\"auto_map\":{\"AutoConfig\":"
	"\"configuration_sparsellama.SparseLlamaConfig\"},\"bos_token_id\":1,\"eos_token_id\":2,"
	"\"hidden_act\":\"fatrelu\",\"hidden_act_param\":0.01,\"hidden_size\":4096,\"intermediate_size\":11008,"
	"\"max_position_embeddings\":4096,\"model_type\":\"sparsellama\",\"num_attention_heads\":32,"
	"\"num_hidden_layers\":32,\"num_key_value_heads\":32,\"pretraining_tp\":1,\"rms_norm_eps\":1e-05,"
	"\"rope_scaling\":null,\"rope_theta\":10000.0,\"tie_word_embeddings\":false,\"vocab_size\":32000}";

static const char mistral_v01[] =
	"{\"architectures\":[\"MistralForCausalLM\"],\"bos_token_id\":1,\"eos_token_id\":2,\"hidden_act\":\"silu\","
	"\"hidden_size\":4096,\"intermediate_size\":14336,\"max_position_embeddings\":32768,"
	"\"model_type\":\"mistral\",\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":8,"
	"\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"sliding_window\":4096,\"tie_word_embeddings\":false,"
	"\"vocab_size\":32000}";

static const char mistral_nemo[] =
	"{\"architectures\":[\"MistralForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":1,\"eos_token_id\":2,"
	"\"head_dim\":128,\"hidden_act\":\"silu\",\"hidden_size\":5120,\"intermediate_size\":14336,"
	"\"max_position_embeddings\":131072,\"model_type\":\"mistral\",\"num_attention_heads\":32,"
	"\"num_hidden_layers\":40,\"num_key_value_heads\":8,\"rms_norm_eps\":1e-05,\"rope_theta\":1000000.0,"
	"\"sliding_window\":null,\"tie_word_embeddings\":false,\"vocab_size\":131072}";

static const char qwen25_7b[] =
	"{\"architectures\":[\"Qwen2ForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":151643,"
	"\"eos_token_id\":151643,\"hidden_act\":\"silu\",\"hidden_size\":3584,\"intermediate_size\":18944,"
	"\"max_position_embeddings\":131072,\"max_window_layers\":28,\"model_type\":\"qwen2\","
	"\"num_attention_heads\":28,\"num_hidden_layers\":28,\"num_key_value_heads\":4,\"rms_norm_eps\":1e-06,"
	"\"rope_theta\":1000000.0,\"sliding_window\":131072,\"tie_word_embeddings\":false,\"use_cache\":true,"
	"\"use_mrope\":false,\"use_sliding_window\":false,\"vocab_size\":152064}";

static const char qwen3_06b[] =
	"{\"architectures\":[\"Qwen3ForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":151643,"
	"\"eos_token_id\":151645,\"head_dim\":128,\"hidden_act\":\"silu\",\"hidden_size\":1024,"
	"\"intermediate_size\":3072,\"max_position_embeddings\":40960,\"max_window_layers\":28,"
	"\"model_type\":\"qwen3\",\"num_attention_heads\":16,\"num_hidden_layers\":28,\"num_key_value_heads\":8,"
	"\"rms_norm_eps\":1e-06,\"rope_scaling\":null,\"rope_theta\":1000000,\"sliding_window\":null,"
	"\"tie_word_embeddings\":true,\"use_sliding_window\":false,\"vocab_size\":151936}";

static const char gemma_2b[] =
	"{\"architectures\":[\"GemmaForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":2,\"eos_token_id\":1,"
	"\"head_dim\":256,\"hidden_act\":\"gelu\",\"hidden_size\":2048,\"intermediate_size\":16384,"
	"\"max_position_embeddings\":8192,\"model_type\":\"gemma\",\"num_attention_heads\":8,\"num_hidden_layers\":18,"
	"\"num_key_value_heads\":1,\"pad_token_id\":0,\"rms_norm_eps\":1e-06,\"rope_scaling\":null,"
	"\"rope_theta\":10000.0,\"vocab_size\":256000}";

static const char gemma2_9b[] =
	"{\"architectures\":[\"Gemma2ForCausalLM\"],\"attention_bias\":false,\"attn_logit_softcapping\":50.0,"
	"\"bos_token_id\":2,\"cache_implementation\":\"hybrid\",\"eos_token_id\":1,\"final_logit_softcapping\":30.0,"
	"\"head_dim\":256,\"hidden_act\":\"gelu_pytorch_tanh\",\"hidden_activation\":\"gelu_pytorch_tanh\","
	"\"hidden_size\":3584,\"intermediate_size\":14336,\"max_position_embeddings\":8192,\"model_type\":\"gemma2\","
	"\"num_attention_heads\":16,\"num_hidden_layers\":42,\"num_key_value_heads\":8,\"pad_token_id\":0,"
	"\"query_pre_attn_scalar\":256,\"rms_norm_eps\":1e-06,\"rope_theta\":10000.0,\"sliding_window\":4096,"
	"\"sliding_window_size\":4096,\"vocab_size\":256000}";

static const char gemma3_1b[] =
	"{\"architectures\":[\"Gemma3ForCausalLM\"],\"attention_bias\":false,\"attn_logit_softcapping\":null,"
	"\"bos_token_id\":2,\"cache_implementation\":\"hybrid\",\"eos_token_id\":[1,106],"
	"\"final_logit_softcapping\":null,\"head_dim\":256,\"hidden_activation\":\"gelu_pytorch_tanh\","
	"\"hidden_size\":1152,\"intermediate_size\":6912,\"max_position_embeddings\":32768,"
	"\"model_type\":\"gemma3_text\",\"num_attention_heads\":4,\"num_hidden_layers\":26,\"num_key_value_heads\":1,"
	"\"pad_token_id\":0,\"query_pre_attn_scalar\":256,\"rms_norm_eps\":1e-06,\"rope_local_base_freq\":10000,"
	"\"rope_scaling\":null,\"rope_theta\":1000000,\"sliding_window\":512,\"sliding_window_pattern\":6,"
	"\"vocab_size\":262144}";

static const char phi3_mini_128k[] =
	"{\"architectures\":[\"Phi3ForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":1,\"embd_pdrop\":0.0,"
	"\"eos_token_id\":32000,\"hidden_act\":\"silu\",\"hidden_size\":3072,\"intermediate_size\":8192,"
	"\"max_position_embeddings\":131072,\"model_type\":\"phi3\",\"num_attention_heads\":32,"
	"\"num_hidden_layers\":32,\"num_key_value_heads\":32,\"original_max_position_embeddings\":4096,"
	"\"pad_token_id\":32000,\"resid_pdrop\":0.0,\"rms_norm_eps\":1e-05,\"rope_scaling\":{\"long_factor\":["
	FACTORS_48("1.25") "],\"short_factor\":[" FACTORS_48("1.5") "],\"type\":\"longrope\"},\"rope_theta\":10000.0,"
	"\"sliding_window\":262144,\"tie_word_embeddings\":false,\"vocab_size\":32064}";

static const char phi3_mini_4k[] =
	"{\"architectures\":[\"Phi3ForCausalLM\"],\"bos_token_id\":1,\"eos_token_id\":32000,\"hidden_act\":\"silu\","
	"\"hidden_size\":3072,\"intermediate_size\":8192,\"max_position_embeddings\":4096,\"model_type\":\"phi3\","
	"\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":32,"
	"\"original_max_position_embeddings\":4096,\"rms_norm_eps\":1e-05,\"rope_scaling\":null,"
	"\"rope_theta\":10000.0,\"sliding_window\":2047,\"tie_word_embeddings\":false,\"vocab_size\":32064}";

static const char phi4_mini[] =
	"{\"architectures\":[\"Phi3ForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":199999,"
	"\"eos_token_id\":199999,\"full_attn_mod\":1,\"hidden_act\":\"silu\",\"hidden_size\":3072,"
	"\"interpolate_factor\":1,\"intermediate_size\":8192,\"lm_head_bias\":false,"
	"\"max_position_embeddings\":131072,\"mlp_bias\":false,\"model_type\":\"phi3\",\"num_attention_heads\":24,"
	"\"num_hidden_layers\":32,\"num_key_value_heads\":8,\"original_max_position_embeddings\":4096,"
	"\"partial_rotary_factor\":0.75,\"rms_norm_eps\":1e-05,\"rope_scaling\":{\"long_factor\":[" FACTORS_48("2")
	"],\"short_factor\":[" FACTORS_48("1") "],\"type\":\"longrope\"},\"rope_theta\":10000.0,"
	"\"sliding_window\":262144,\"tie_word_embeddings\":true,\"vocab_size\":200064}";

static const char opt_67b[] =
	"{\"_remove_final_layer_norm\":false,\"activation_dropout\":0.0,\"activation_function\":\"relu\","
	"\"architectures\":[\"OPTForCausalLM\"],\"bos_token_id\":2,\"do_layer_norm_before\":true,\"dropout\":0.1,"
	"\"eos_token_id\":2,\"ffn_dim\":16384,\"hidden_size\":4096,\"init_std\":0.02,\"layerdrop\":0.0,"
	"\"max_position_embeddings\":2048,\"model_type\":\"opt\",\"num_attention_heads\":32,"
	"\"num_hidden_layers\":32,\"pad_token_id\":1,\"prefix\":\"</s>\",\"vocab_size\":50272,"
	"\"word_embed_proj_dim\":4096}";

static const char stablelm2_16b[] =
	"{\"architectures\":[\"StableLmForCausalLM\"],\"bos_token_id\":100257,\"eos_token_id\":100257,"
	"\"hidden_act\":\"silu\",\"hidden_size\":2048,\"intermediate_size\":5632,\"layer_norm_eps\":1e-05,"
	"\"max_position_embeddings\":4096,\"model_type\":\"stablelm\",\"num_attention_heads\":32,"
	"\"num_hidden_layers\":24,\"num_key_value_heads\":32,\"partial_rotary_factor\":0.25,\"rope_theta\":10000,"
	"\"tie_word_embeddings\":false,\"use_qkv_bias\":true,\"vocab_size\":100352}";

static const char stablelm2_12b[] =
	"{\"architectures\":[\"StableLmForCausalLM\"],\"bos_token_id\":100257,\"eos_token_id\":100257,"
	"\"hidden_act\":\"silu\",\"hidden_size\":5120,\"intermediate_size\":13824,\"layer_norm_eps\":1e-05,"
	"\"max_position_embeddings\":4096,\"model_type\":\"stablelm\",\"num_attention_heads\":32,"
	"\"num_hidden_layers\":40,\"num_key_value_heads\":8,\"partial_rotary_factor\":0.25,\"qk_layernorm\":true,"
	"\"rope_theta\":10000,\"tie_word_embeddings\":false,\"use_parallel_residual\":true,\"use_qkv_bias\":false,"
	"\"vocab_size\":100352}";

static const char pythia_14b[] =
	"{\"architectures\":[\"GPTNeoXForCausalLM\"],\"bos_token_id\":0,\"eos_token_id\":0,\"hidden_act\":\"gelu\","
	"\"hidden_size\":2048,\"initializer_range\":0.02,\"intermediate_size\":8192,\"layer_norm_eps\":1e-05,"
	"\"max_position_embeddings\":2048,\"model_type\":\"gpt_neox\",\"num_attention_heads\":16,"
	"\"num_hidden_layers\":24,\"rotary_emb_base\":10000,\"rotary_pct\":0.25,\"tie_word_embeddings\":false,"
	"\"use_parallel_residual\":true,\"vocab_size\":50304}";

static const char neox_20b[] =
	"{\"architectures\":[\"GPTNeoXForCausalLM\"],\"attention_probs_dropout_prob\":0,\"bos_token_id\":0,"
	"\"eos_token_id\":0,\"hidden_act\":\"gelu_fast\",\"hidden_size\":6144,\"intermediate_size\":24576,"
	"\"layer_norm_eps\":1e-05,\"max_position_embeddings\":2048,\"model_type\":\"gpt_neox\","
	"\"num_attention_heads\":64,\"num_hidden_layers\":44,\"rotary_emb_base\":10000,\"rotary_pct\":0.25,"
	"\"tie_word_embeddings\":false,\"vocab_size\":50432}";

/* What each means, in our own form: every member is compared. The parameters are those that were published. */
static const struct {
	const char *name;
	uint64_t    n_params;
	const char *config, *own;
} models[] = {
	{"Llama-3.1-8B", 8030261248ull, llama31_8b,
	 "{\"arch\":\"llama\",\"n_layers\":32,\"dim\":4096,\"n_ffn\":14336,\"n_heads\":32,\"n_kv_heads\":8,"
	 "\"head_dim\":128,\"n_vocab\":128256,\"n_ctx\":131072,\"act\":\"silu\",\"tied\":false,\"norm_eps\":1e-5,"
	 "\"rope_theta\":500000,\"rope\":\"llama3\",\"rope_factor\":8,\"rope_low_freq\":1,\"rope_high_freq\":4,"
	 "\"rope_orig_ctx\":8192,\"bos_id\":128000,\"eos_ids\":[128001,128008,128009]}"},
	{"SmolLM2-135M", 134515008ull, smollm2_135m,
	 "{\"arch\":\"llama\",\"n_layers\":30,\"dim\":576,\"n_ffn\":1536,\"n_heads\":9,\"n_kv_heads\":3,"
	 "\"head_dim\":64,\"n_vocab\":49152,\"n_ctx\":8192,\"act\":\"silu\",\"tied\":true,\"norm_eps\":1e-5,"
	 "\"rope_theta\":100000,\"rope\":\"plain\",\"bos_id\":0,\"eos_ids\":[0]}"},
	{"deepseek-coder-6.7b", 6740512768ull, deepseek_coder_6_7b,
	 "{\"arch\":\"llama\",\"n_layers\":32,\"dim\":4096,\"n_ffn\":11008,\"n_heads\":32,\"n_kv_heads\":32,"
	 "\"head_dim\":128,\"n_vocab\":32256,\"n_ctx\":16384,\"act\":\"silu\",\"tied\":false,\"norm_eps\":1e-6,"
	 "\"rope_theta\":100000,\"rope\":\"linear\",\"rope_factor\":4,\"bos_id\":32013,\"eos_ids\":[32014]}"},
	{"ReluLLaMA-7B", 6738415616ull, relu_llama_7b,
	 "{\"arch\":\"llama\",\"n_layers\":32,\"dim\":4096,\"n_ffn\":11008,\"n_heads\":32,\"n_kv_heads\":32,"
	 "\"head_dim\":128,\"n_vocab\":32000,\"n_ctx\":4096,\"act\":\"relu\",\"tied\":false,\"norm_eps\":1e-5,"
	 "\"rope_theta\":10000,\"rope\":\"plain\",\"bos_id\":1,\"eos_ids\":[2]}"},
	{"prosparse-llama-2-7b", 6738415616ull, prosparse_7b,
	 "{\"arch\":\"llama\",\"n_layers\":32,\"dim\":4096,\"n_ffn\":11008,\"n_heads\":32,\"n_kv_heads\":32,"
	 "\"head_dim\":128,\"n_vocab\":32000,\"n_ctx\":4096,\"act\":\"fatrelu\",\"act_threshold\":0.01,"
	 "\"tied\":false,\"norm_eps\":1e-5,\"rope_theta\":10000,\"rope\":\"plain\",\"bos_id\":1,\"eos_ids\":[2]}"},
	{"Mistral-7B-v0.1", 7241732096ull, mistral_v01,
	 "{\"arch\":\"mistral\",\"n_layers\":32,\"dim\":4096,\"n_ffn\":14336,\"n_heads\":32,\"n_kv_heads\":8,"
	 "\"head_dim\":128,\"n_vocab\":32000,\"n_ctx\":32768,\"act\":\"silu\",\"tied\":false,\"norm_eps\":1e-5,"
	 "\"rope_theta\":10000,\"rope\":\"plain\",\"window\":4096,\"local_layers\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,"
	 "14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31],\"bos_id\":1,\"eos_ids\":[2]}"},
	{"Mistral-Nemo-Base-2407", 12247782400ull, mistral_nemo,
	 "{\"arch\":\"mistral\",\"n_layers\":40,\"dim\":5120,\"n_ffn\":14336,\"n_heads\":32,\"n_kv_heads\":8,"
	 "\"head_dim\":128,\"n_vocab\":131072,\"n_ctx\":131072,\"act\":\"silu\",\"tied\":false,\"norm_eps\":1e-5,"
	 "\"rope_theta\":1000000,\"rope\":\"plain\",\"bos_id\":1,\"eos_ids\":[2]}"},
	{"Qwen2.5-7B", 7615616512ull, qwen25_7b,
	 "{\"arch\":\"qwen2\",\"n_layers\":28,\"dim\":3584,\"n_ffn\":18944,\"n_heads\":28,\"n_kv_heads\":4,"
	 "\"head_dim\":128,\"n_vocab\":152064,\"n_ctx\":131072,\"act\":\"silu\",\"tied\":false,\"norm_eps\":1e-6,"
	 "\"rope_theta\":1000000,\"rope\":\"plain\",\"bias_qkv\":true,\"bos_id\":151643,\"eos_ids\":[151643]}"},
	{"Qwen3-0.6B", 596049920ull, qwen3_06b,
	 "{\"arch\":\"qwen3\",\"n_layers\":28,\"dim\":1024,\"n_ffn\":3072,\"n_heads\":16,\"n_kv_heads\":8,"
	 "\"head_dim\":128,\"n_vocab\":151936,\"n_ctx\":40960,\"act\":\"silu\",\"tied\":true,\"norm_eps\":1e-6,"
	 "\"rope_theta\":1000000,\"rope\":\"plain\",\"qk_norm\":true,\"bos_id\":151643,\"eos_ids\":[151645]}"},
	{"gemma-2b", 2506172416ull, gemma_2b,
	 "{\"arch\":\"gemma\",\"n_layers\":18,\"dim\":2048,\"n_ffn\":16384,\"n_heads\":8,\"n_kv_heads\":1,"
	 "\"head_dim\":256,\"n_vocab\":256000,\"n_ctx\":8192,\"act\":\"gelu_tanh\",\"tied\":true,\"norm_eps\":1e-6,"
	 "\"rope_theta\":10000,\"rope\":\"plain\",\"embed_scale\":45.254833995939045,\"bos_id\":2,\"eos_ids\":[1]}"},
	{"gemma-2-9b", 9241705984ull, gemma2_9b,
	 "{\"arch\":\"gemma2\",\"n_layers\":42,\"dim\":3584,\"n_ffn\":14336,\"n_heads\":16,\"n_kv_heads\":8,"
	 "\"head_dim\":256,\"n_vocab\":256000,\"n_ctx\":8192,\"act\":\"gelu_tanh\",\"tied\":true,\"norm_eps\":1e-6,"
	 "\"rope_theta\":10000,\"rope\":\"plain\",\"post_norm\":true,\"embed_scale\":59.866518188383061,"
	 "\"attn_softcap\":50,\"logit_softcap\":30,\"window\":4096,\"local_layers\":[0,2,4,6,8,10,12,14,16,18,20,22,"
	 "24,26,28,30,32,34,36,38,40],\"bos_id\":2,\"eos_ids\":[1]}"},
	{"gemma-3-1b-it", 999885952ull, gemma3_1b,
	 "{\"arch\":\"gemma3\",\"n_layers\":26,\"dim\":1152,\"n_ffn\":6912,\"n_heads\":4,\"n_kv_heads\":1,"
	 "\"head_dim\":256,\"n_vocab\":262144,\"n_ctx\":32768,\"act\":\"gelu_tanh\",\"tied\":true,\"norm_eps\":1e-6,"
	 "\"rope_theta\":1000000,\"rope\":\"plain\",\"post_norm\":true,\"qk_norm\":true,"
	 "\"embed_scale\":33.941125496954278,\"window\":512,\"rope_local_theta\":10000,\"local_layers\":[0,1,2,3,4,6,"
	 "7,8,9,10,12,13,14,15,16,18,19,20,21,22,24,25],\"bos_id\":2,\"eos_ids\":[1,106]}"},
	{"Phi-3-mini-128k-instruct", 3821079552ull, phi3_mini_128k,
	 "{\"arch\":\"phi3\",\"n_layers\":32,\"dim\":3072,\"n_ffn\":8192,\"n_heads\":32,\"n_kv_heads\":32,"
	 "\"head_dim\":96,\"n_vocab\":32064,\"n_ctx\":131072,\"act\":\"silu\",\"tied\":false,\"norm_eps\":1e-5,"
	 "\"rope_theta\":10000,\"rope\":\"long\",\"rope_short\":[" FACTORS_48("1.5") "],\"rope_long\":["
	 FACTORS_48("1.25") "],\"rope_attn_factor\":1.1902380714238083,\"rope_orig_ctx\":4096,\"bos_id\":1,"
	 "\"eos_ids\":[32000]}"},
	{"Phi-3-mini-4k-instruct", 3821079552ull, phi3_mini_4k,
	 "{\"arch\":\"phi3\",\"n_layers\":32,\"dim\":3072,\"n_ffn\":8192,\"n_heads\":32,\"n_kv_heads\":32,"
	 "\"head_dim\":96,\"n_vocab\":32064,\"n_ctx\":4096,\"act\":\"silu\",\"tied\":false,\"norm_eps\":1e-5,"
	 "\"rope_theta\":10000,\"rope\":\"plain\",\"window\":2047,\"local_layers\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,"
	 "14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31],\"bos_id\":1,\"eos_ids\":[32000]}"},
	{"Phi-4-mini-instruct", 3836021760ull, phi4_mini,
	 "{\"arch\":\"phi3\",\"n_layers\":32,\"dim\":3072,\"n_ffn\":8192,\"n_heads\":24,\"n_kv_heads\":8,"
	 "\"head_dim\":128,\"n_vocab\":200064,\"n_ctx\":131072,\"act\":\"silu\",\"tied\":true,\"norm_eps\":1e-5,"
	 "\"rope_theta\":10000,\"rope\":\"long\",\"rope_dim\":96,\"rope_short\":[" FACTORS_48("1") "],\"rope_long\":["
	 FACTORS_48("2") "],\"rope_attn_factor\":1.1902380714238083,\"rope_orig_ctx\":4096,\"bos_id\":199999,"
	 "\"eos_ids\":[199999]}"},
	{"opt-6.7b", 6658473984ull, opt_67b,
	 "{\"arch\":\"opt\",\"n_layers\":32,\"dim\":4096,\"n_ffn\":16384,\"n_heads\":32,\"n_kv_heads\":32,"
	 "\"head_dim\":128,\"n_vocab\":50272,\"n_ctx\":2048,\"act\":\"relu\",\"tied\":true,\"norm_eps\":1e-5,"
	 "\"rope_theta\":10000,\"rope\":\"none\",\"norm\":\"layer\",\"ungated\":true,\"bias_qkv\":true,"
	 "\"bias_o\":true,\"bias_ffn\":true,\"learned_pos\":true,\"bos_id\":2,\"eos_ids\":[2]}"},
	{"stablelm-2-1_6b", 1644515328ull, stablelm2_16b,
	 "{\"arch\":\"stablelm\",\"n_layers\":24,\"dim\":2048,\"n_ffn\":5632,\"n_heads\":32,\"n_kv_heads\":32,"
	 "\"head_dim\":64,\"n_vocab\":100352,\"n_ctx\":4096,\"act\":\"silu\",\"tied\":false,\"norm_eps\":1e-5,"
	 "\"rope_theta\":10000,\"rope\":\"plain\",\"rope_dim\":16,\"norm\":\"layer\",\"bias_qkv\":true,"
	 "\"bos_id\":100257,\"eos_ids\":[100257]}"},
	{"pythia-1.4b", 1414647808ull, pythia_14b,
	 "{\"arch\":\"gptneox\",\"n_layers\":24,\"dim\":2048,\"n_ffn\":8192,\"n_heads\":16,\"n_kv_heads\":16,"
	 "\"head_dim\":128,\"n_vocab\":50304,\"n_ctx\":2048,\"act\":\"gelu\",\"tied\":false,\"norm_eps\":1e-5,"
	 "\"rope_theta\":10000,\"rope\":\"plain\",\"rope_dim\":32,\"norm\":\"layer\",\"parallel\":\"yes\","
	 "\"ungated\":true,\"bias_qkv\":true,\"bias_o\":true,\"bias_ffn\":true,\"bos_id\":0,\"eos_ids\":[0]}"},
	{"gpt-neox-20b", 20554567680ull, neox_20b,
	 "{\"arch\":\"gptneox\",\"n_layers\":44,\"dim\":6144,\"n_ffn\":24576,\"n_heads\":64,\"n_kv_heads\":64,"
	 "\"head_dim\":96,\"n_vocab\":50432,\"n_ctx\":2048,\"act\":\"gelu_tanh\",\"tied\":false,\"norm_eps\":1e-5,"
	 "\"rope_theta\":10000,\"rope\":\"plain\",\"rope_dim\":24,\"norm\":\"layer\",\"parallel\":\"yes\","
	 "\"ungated\":true,\"bias_qkv\":true,\"bias_o\":true,\"bias_ffn\":true,\"bos_id\":0,\"eos_ids\":[0]}"},
};

static mzm_config own(const char *text)
{
	json_t *tree;
	mzm_config c;
	mzm_err err = {0};
	assert_int_equal(mzm_json_parse(&tree, text, strlen(text), "own", &err), MZM_OK);
	if (mzm_config_from_json(&c, tree, &err) != MZM_OK)
		fail_msg("%s: %s", text, err.message);
	json_decref(tree);
	return c;
}

static char *own_text(const mzm_config *c)
{
	json_t *tree = mzm_config_to_json(c);
	char *text = tree ? json_dumps(tree, JSON_REAL_PRECISION(15)) : NULL; /* the last bits of a root may differ */
	json_decref(tree);
	assert_non_null(text);
	return text;
}

static void assert_same(const char *name, const mzm_config *got, const mzm_config *want)
{
	char *a = own_text(got), *b = own_text(want);
	if (strcmp(a, b) != 0)
		fail_msg("%s:\ngot    %s\nwanted %s", name, a, b);
	free(a);
	free(b);
}

static void test_published(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_OF(models); i++) {
		mzm_config got = good(models[i].config), want = own(models[i].own), again;
		assert_same(models[i].name, &got, &want);
		/* and through the text of a container */
		json_t *tree = mzm_config_to_json(&got);
		char *text = json_dumps(tree, 0);
		again = own(text);
		assert_same(models[i].name, &again, &got);
		assert_true(memcmp(again.local, got.local, sizeof got.local) == 0);
		assert_true(memcmp(again.rope_short, got.rope_short, sizeof got.rope_short) == 0);
		free(text);
		json_decref(tree);
	}
}

/* The canonical tensors of each hold as many parameters as its files. */
static void test_parameters(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_OF(models); i++) {
		mzm_config c = good(models[i].config);
		uint64_t unused = c.learned_pos ? 2 * (uint64_t)c.dim : 0, n = 0; /* OPT's first two positions */
		for (int32_t k = 0; k < mzm_tensor_count(&c); k++) {
			mzm_tensor t = mzm_tensor_at(&c, k);
			n += (uint64_t)t.n_rows * (uint64_t)t.n_cols;
		}
		if (n + unused != models[i].n_params || mzm_config_n_params(&c) != n)
			fail_msg("%s: %llu parameters, wanted %llu", models[i].name, (unsigned long long)(n + unused),
				 (unsigned long long)models[i].n_params);
	}
}

/* ---- what the keys of each family do ---- */

static void test_llama(void **state)
{
	(void)state;
	mzm_config c = good_with(llama31_8b, "attention_bias", "true");
	assert_true(c.bias_qkv && c.bias_o && !c.bias_ffn);
	c = good_with(llama31_8b, "mlp_bias", "true");
	assert_true(!c.bias_qkv && !c.bias_o && c.bias_ffn);
	static const struct {
		const char *name;
		mzm_act     act;
	} acts[] = {{"\"silu\"", MZM_ACT_SILU},     {"\"swish\"", MZM_ACT_SILU},
		    {"\"relu\"", MZM_ACT_RELU},     {"\"gelu\"", MZM_ACT_GELU},
		    {"\"gelu_new\"", MZM_ACT_GELU_TANH}, {"\"gelu_pytorch_tanh\"", MZM_ACT_GELU_TANH},
		    {"\"gelu_fast\"", MZM_ACT_GELU_TANH}};
	for (size_t i = 0; i < N_OF(acts); i++)
		assert_int_equal(good_with(llama31_8b, "hidden_act", acts[i].name).act, acts[i].act);
	bad_with(llama31_8b, "hidden_act", "\"relu2\"", MZM_EUNSUPPORTED, "relu2");
	bad_with(llama31_8b, "hidden_act", "\"fatrelu\"", MZM_EFORMAT, "hidden_act_param");
	bad_with(prosparse_7b, "hidden_act", "\"shiftrelu\"", MZM_EUNSUPPORTED, "shiftrelu");
	bad_with(prosparse_7b, "hidden_act_param", "-1", MZM_EFORMAT, "hidden_act_param");
	assert_true(good_with(prosparse_7b, "hidden_act", "\"silu\"").act_threshold == 0);
	bad_with(prosparse_7b, "hidden_act_param", NULL, MZM_EUNSUPPORTED, "SparseLlamaForCausalLM");
	c = good_with(prosparse_7b, "model_type", "\"llama\"");
	assert_int_equal(c.act, MZM_ACT_FATRELU);
	bad_with(llama31_8b, "partial_rotary_factor", "0.5", MZM_EUNSUPPORTED, "partial_rotary_factor");
	bad_with(llama31_8b, "layer_types", "[\"full_attention\"]", MZM_EFORMAT, "layer_types");
}

/* All layers the same: "layer_types" of n names. malloc'ed. */
static char *layer_types(int n, const char *name)
{
	char *text = malloc(64 + (size_t)n * 32), *at = text;
	assert_non_null(text);
	*at++ = '[';
	for (int i = 0; i < n; i++)
		at += sprintf(at, "%s\"%s\"", i ? "," : "", name);
	strcpy(at, "]");
	return text;
}

static void test_mistral(void **state)
{
	(void)state;
	char *full = layer_types(32, "full_attention"), *local = layer_types(32, "sliding_attention");
	mzm_config c = good_with(mistral_v01, "sliding_window", "null");
	assert_true(c.window == 0 && !mzm_config_is_local(&c, 0));
	c = good_with(mistral_v01, "sliding_window", "32768"); /* as long as the context: it never matters */
	assert_true(c.window == 0 && !mzm_config_is_local(&c, 0));
	c = good_with(mistral_v01, "sliding_window", "32767");
	assert_true(c.window == 32767 && mzm_config_is_local(&c, 31));
	c = good_with(mistral_v01, "layer_types", local);
	assert_int_equal(c.window, 4096);
	bad_with(mistral_v01, "layer_types", full, MZM_EFORMAT, "layer_types");
	bad_with(mistral_v01, "sliding_window", NULL, MZM_EFORMAT, "sliding_window");
	bad_with(mistral_v01, "sliding_window", "0", MZM_EFORMAT, "sliding_window");
	bad_with(mistral_v01, "sliding_window", "true", MZM_EFORMAT, "sliding_window");
	bad_with(mistral_v01, "num_key_value_heads", NULL, MZM_EFORMAT, "num_key_value_heads");
	bad_with(mistral_v01, "attention_bias", "true", MZM_EUNSUPPORTED, "attention_bias");
	free(full);
	free(local);
}

static void test_qwen(void **state)
{
	(void)state;
	char *full = layer_types(28, "full_attention"), *local = layer_types(28, "sliding_attention");
	char *on = with(qwen25_7b, "use_sliding_window", "true"), *small = with(on, "sliding_window", "1000");
	char *most = with(small, "max_window_layers", "20"), *missing = with(small, "max_window_layers", NULL);
	mzm_config c = good(small); /* the first 28 of 28 see everything */
	assert_int_equal(c.window, 0);
	c = good(most);
	assert_true(c.window == 1000 && !mzm_config_is_local(&c, 19) && mzm_config_is_local(&c, 20));
	assert_true(mzm_config_is_local(&c, 27) && c.local[3] == 0x0f);
	c = good_with(most, "layer_types", full);
	assert_int_equal(c.window, 0);
	c = good_with(small, "layer_types", local);
	assert_true(c.window == 1000 && mzm_config_is_local(&c, 0));
	assert_int_equal(good_with(most, "sliding_window", "null").window, 0);
	bad(missing, MZM_EFORMAT, "max_window_layers");
	bad_with(qwen25_7b, "layer_types", local, MZM_EFORMAT, "use_sliding_window");
	bad_with(most, "layer_types", "[1]", MZM_EFORMAT, "layer_types");
	full[2] = 'b';
	bad_with(most, "layer_types", full, MZM_EUNSUPPORTED, "bull_attention");
	bad_with(qwen25_7b, "rope_scaling", "{\"type\":\"mrope\",\"mrope_section\":[16,24,24]}", MZM_EUNSUPPORTED,
		 "mrope");
	bad_with(qwen25_7b, "rope_scaling", "{\"type\":\"yarn\",\"factor\":4}", MZM_EUNSUPPORTED, "yarn");
	bad_with(qwen25_7b, "num_key_value_heads", NULL, MZM_EFORMAT, "num_key_value_heads");
	c = good_with(qwen3_06b, "attention_bias", "true");
	assert_true(c.bias_qkv && c.bias_o && c.qk_norm);
	assert_int_equal(good_with(qwen3_06b, "head_dim", NULL).head_dim, 128); /* not 1024 / 16 */
	char *all[] = {full, local, on, small, most, missing};
	for (size_t i = 0; i < N_OF(all); i++)
		free(all[i]);
}

static void test_gemma(void **state)
{
	(void)state;
	assert_int_equal(good_with(gemma_2b, "hidden_act", NULL).act, MZM_ACT_GELU_TANH);
	assert_int_equal(good_with(gemma_2b, "hidden_act", "\"gelu_pytorch_tanh\"").act, MZM_ACT_GELU_TANH);
	assert_int_equal(good_with(gemma_2b, "hidden_activation", "\"gelu\"").act, MZM_ACT_GELU);
	assert_int_equal(good_with(gemma_2b, "hidden_activation", "null").act, MZM_ACT_GELU_TANH);
	bad_with(gemma_2b, "hidden_act", "\"relu\"", MZM_EUNSUPPORTED, "hidden_act");
	bad_with(gemma_2b, "hidden_activation", "\"mish\"", MZM_EUNSUPPORTED, "mish");
	assert_int_equal(good_with(gemma_2b, "head_dim", NULL).head_dim, 256);
	assert_false(good_with(gemma_2b, "tie_word_embeddings", "false").tied);
	bad_with(gemma_2b, "num_key_value_heads", NULL, MZM_EFORMAT, "num_key_value_heads");
	bad_with(gemma_2b, "use_bidirectional_attention", "true", MZM_EUNSUPPORTED, "use_bidirectional_attention");
	bad_with(gemma_2b, "attn_logit_softcapping", "50", MZM_EUNSUPPORTED, "attn_logit_softcapping");
}

static void test_gemma2(void **state)
{
	(void)state;
	/* 27B: the scale is not that of its heads */
	char *text = with(gemma2_9b, "query_pre_attn_scalar", "144"), *full = layer_types(42, "full_attention");
	mzm_config c = good_with(text, "head_dim", "128");
	assert_true(c.attn_scale == 1.0 / 12);
	c = good_with(gemma2_9b, "attn_logit_softcapping", "null");
	assert_true(c.attn_softcap == 0 && c.logit_softcap == 30);
	c = good_with(gemma2_9b, "attn_logit_softcapping", NULL);
	assert_true(c.attn_softcap == 50);
	c = good_with(gemma2_9b, "final_logit_softcapping", "null");
	assert_true(c.attn_softcap == 50 && c.logit_softcap == 0);
	c = good_with(gemma2_9b, "final_logit_softcapping", NULL);
	assert_true(c.logit_softcap == 30);
	c = good_with(gemma2_9b, "layer_types", full);
	assert_true(c.window == 0 && !mzm_config_is_local(&c, 0));
	bad_with(gemma2_9b, "sliding_window", NULL, MZM_EFORMAT, "sliding_window");
	bad_with(gemma2_9b, "sliding_window", "null", MZM_EFORMAT, "sliding_window");
	bad_with(gemma2_9b, "attn_logit_softcapping", "-1", MZM_EFORMAT, "attn_logit_softcapping");
	bad_with(gemma2_9b, "query_pre_attn_scalar", "0", MZM_EFORMAT, "query_pre_attn_scalar");
	free(text);
	free(full);
}

static void test_gemma3(void **state)
{
	(void)state;
	mzm_config c = good_with(gemma3_1b, "rope_scaling", "{\"rope_type\":\"linear\",\"factor\":8.0}");
	assert_true(c.rope == MZM_ROPE_LINEAR && c.rope_factor == 8 && c.rope_local_theta == 10000);
	c = good_with(gemma3_1b, "sliding_window_pattern", "2");
	assert_true(mzm_config_is_local(&c, 0) && !mzm_config_is_local(&c, 1) && mzm_config_is_local(&c, 24));
	c = good_with(gemma3_1b, "sliding_window_pattern", NULL);
	assert_true(mzm_config_is_local(&c, 4) && !mzm_config_is_local(&c, 5));
	/* a window longer than the context stays: its layers rotate by another base */
	c = good_with(gemma3_1b, "sliding_window", "40000");
	assert_true(c.window == 40000 && c.rope_local_theta == 10000);
	c = good_with(gemma3_1b, "sliding_window_pattern", "1");
	assert_true(c.window == 0 && c.rope_local_theta == 0);
	/* the newer keys */
	char *a = with(gemma3_1b, "rope_theta", NULL), *b = with(a, "rope_local_base_freq", NULL);
	char *d = with(b, "rope_scaling", NULL);
	c = good_with(d, "rope_parameters",
		      "{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":8.0,\"rope_theta\":500000.0},"
		      "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":20000.0}}");
	assert_true(c.rope == MZM_ROPE_LINEAR && c.rope_theta == 500000 && c.rope_local_theta == 20000);
	c = good(d); /* the class's bases */
	assert_true(c.rope_theta == 1e6 && c.rope_local_theta == 10000);
	bad_with(d, "rope_parameters",
		 "{\"full_attention\":{\"rope_type\":\"default\"},\"sliding_attention\":{\"rope_type\":\"linear\"}}",
		 MZM_EUNSUPPORTED, "sliding_attention");
	bad_with(d, "rope_parameters", "{\"rope_type\":\"default\",\"rope_theta\":10000}", MZM_EFORMAT,
		 "full_attention");
	bad_with(gemma3_1b, "attn_logit_softcapping", "50", MZM_EUNSUPPORTED, "attn_logit_softcapping");
	bad_with(gemma3_1b, "use_bidirectional_attention", "true", MZM_EUNSUPPORTED, "use_bidirectional_attention");
	bad("{\"model_type\":\"gemma3\",\"architectures\":[\"Gemma3ForConditionalGeneration\"]}", MZM_EUNSUPPORTED,
	    "gemma3_text");
	bad_with(gemma3_1b, "model_type", "\"gemma3n_text\"", MZM_EUNSUPPORTED, "gemma3n_text");
	free(a);
	free(b);
	free(d);
}

static void test_phi3(void **state)
{
	(void)state;
	char *su = with(phi3_mini_128k, "rope_scaling",
			"{\"type\":\"su\",\"long_factor\":[" FACTORS_48("3") "],\"short_factor\":["
			FACTORS_48("2") "]}");
	mzm_config c = good(su);
	assert_true(c.rope == MZM_ROPE_LONG && c.rope_short[47] == 2 && c.rope_long[0] == 3);
	assert_true(fabs(c.rope_attn_factor - sqrt(1 + log(32) / log(4096))) < 1e-12);
	c = good_with(su, "max_position_embeddings", "4096");
	assert_true(c.rope_attn_factor == 1);
	c = good_with(su, "max_position_embeddings", "2048");
	assert_true(c.rope_attn_factor == 1);
	/* where the original context stands with the factors, and the newer keys */
	char *a = with(phi3_mini_128k, "original_max_position_embeddings", NULL), *b = with(a, "rope_scaling", NULL);
	c = good_with(b, "rope_parameters",
		      "{\"rope_type\":\"longrope\",\"long_factor\":[" FACTORS_48("3") "],\"short_factor\":["
		      FACTORS_48("2") "],\"original_max_position_embeddings\":8192,\"attention_factor\":1.5,"
		      "\"rope_theta\":10000.0,\"partial_rotary_factor\":1.0,\"factor\":16.0}");
	assert_true(c.rope_orig_ctx == 8192 && c.rope_attn_factor == 1.5);
	bad(a, MZM_EFORMAT, "original_max_position_embeddings");
	bad_with(phi3_mini_128k, "rope_scaling", "{\"type\":\"yarn\"}", MZM_EUNSUPPORTED, "yarn");
	bad_with(phi3_mini_128k, "rope_scaling", "{\"type\":\"longrope\"}", MZM_EFORMAT, "short_factor");
	bad_with(phi3_mini_128k, "rope_scaling", "{\"type\":\"su\",\"short_factor\":[1,1]}", MZM_EFORMAT,
		 "short_factor");
	bad_with(phi3_mini_128k, "rope_scaling",
		 "{\"type\":\"su\",\"short_factor\":[" FACTORS_48("1") "],\"long_factor\":[" FACTORS_48("0") "]}",
		 MZM_EFORMAT, "long_factor");
	bad_with(phi3_mini_128k, "rope_scaling",
		 "{\"type\":\"su\",\"short_factor\":[" FACTORS_48("1") "],\"long_factor\":[" FACTORS_48("2") "],"
		 "\"long_mscale\":1.2}", MZM_EUNSUPPORTED, "long_mscale");
	bad_with(phi3_mini_128k, "rope_scaling",
		 "{\"type\":\"su\",\"short_factor\":[" FACTORS_48("1") "],\"long_factor\":[" FACTORS_48("2") "],"
		 "\"factor\":4}", MZM_EUNSUPPORTED, "factor");
	bad_with(phi4_mini, "lm_head_bias", "true", MZM_EUNSUPPORTED, "lm_head_bias");
	bad_with(phi4_mini, "partial_rotary_factor", "0.5", MZM_EFORMAT, "short_factor"); /* 48 of 32 pairs */
	assert_int_equal(good_with(phi3_mini_4k, "partial_rotary_factor", "0.75").rope_dim, 72);
	assert_int_equal(good_with(phi3_mini_4k, "sliding_window", NULL).window, 0);
	bad_with(phi3_mini_4k, "partial_rotary_factor", "0.01", MZM_EFORMAT, "partial_rotary_factor");
	bad_with(phi3_mini_4k, "partial_rotary_factor", "1.5", MZM_EFORMAT, "partial_rotary_factor");
	bad_with(phi3_mini_4k, "model_type", "\"phi3small\"", MZM_EUNSUPPORTED, "phi3small");
	bad_with(phi3_mini_4k, "model_type", "\"phimoe\"", MZM_EUNSUPPORTED, "phimoe");
	free(su);
	free(a);
	free(b);
}

static void test_opt(void **state)
{
	(void)state;
	mzm_config c = good_with(opt_67b, "enable_bias", "false");
	assert_true(!c.bias_qkv && !c.bias_o && !c.bias_ffn && c.norm == MZM_NORM_LAYER);
	assert_int_equal(good_with(opt_67b, "word_embed_proj_dim", NULL).dim, 4096);
	assert_int_equal(good_with(opt_67b, "activation_function", "\"gelu\"").act, MZM_ACT_GELU);
	bad_with(opt_67b, "do_layer_norm_before", "false", MZM_EUNSUPPORTED, "do_layer_norm_before"); /* 350m */
	bad_with(opt_67b, "word_embed_proj_dim", "512", MZM_EUNSUPPORTED, "word_embed_proj_dim");
	bad_with(opt_67b, "layer_norm_elementwise_affine", "false", MZM_EUNSUPPORTED, "layer_norm_elementwise_affine");
	bad_with(opt_67b, "_remove_final_layer_norm", "true", MZM_EUNSUPPORTED, "_remove_final_layer_norm");
	bad_with(opt_67b, "ffn_dim", NULL, MZM_EFORMAT, "ffn_dim");
	bad_with(opt_67b, "num_key_value_heads", "8", MZM_EUNSUPPORTED, "num_key_value_heads");
	bad_with(opt_67b, "head_dim", "64", MZM_EUNSUPPORTED, "head_dim");
	bad_with(opt_67b, "num_attention_heads", "33", MZM_EFORMAT, "num_attention_heads");
}

static void test_stablelm(void **state)
{
	(void)state;
	mzm_config c = good_with(stablelm2_12b, "qk_layernorm", "false");
	assert_true(c.parallel == MZM_PARALLEL_SHARED && !c.bias_qkv && c.n_kv_heads == 8 && c.head_dim == 160);
	assert_int_equal(c.rope_dim, 40);
	bad(stablelm2_12b, MZM_EUNSUPPORTED, "qk_layernorm");
	/* the first files' names of things */
	char *a = with(stablelm2_16b, "partial_rotary_factor", NULL), *b = with(a, "layer_norm_eps", NULL);
	char *d = with(b, "norm_eps", "1e-6"), *e = with(d, "model_type", "\"stablelm_epoch\"");
	c = good_with(d, "rope_pct", "0.5");
	assert_true(c.rope_dim == 32 && c.norm_eps == 1e-6f);
	c = good_with(e, "architectures", "[\"StableLMEpochForCausalLM\"]");
	assert_string_equal(c.arch, "stablelm");
	assert_int_equal(c.rope_dim, 16);
	bad(b, MZM_EFORMAT, "layer_norm_eps");
	bad_with(stablelm2_16b, "rope_pct", "0.5", MZM_EFORMAT, "given twice");
	free(a);
	free(b);
	free(d);
	free(e);
}

static void test_gptneox(void **state)
{
	(void)state;
	mzm_config c = good_with(pythia_14b, "use_parallel_residual", "false");
	assert_int_equal(c.parallel, MZM_SERIAL);
	c = good_with(pythia_14b, "attention_bias", "false");
	assert_true(!c.bias_qkv && !c.bias_o && c.bias_ffn);
	assert_int_equal(good_with(pythia_14b, "rotary_pct", "1.0").rope_dim, 0);
	assert_int_equal(good_with(pythia_14b, "rotary_pct", NULL).rope_dim, 32);
	assert_true(good_with(pythia_14b, "rotary_emb_base", "25000").rope_theta == 25000);
	/* newer files */
	char *a = with(pythia_14b, "rotary_pct", NULL), *b = with(a, "rotary_emb_base", NULL);
	c = good_with(b, "rope_parameters",
		      "{\"rope_type\":\"default\",\"rope_theta\":30000,\"partial_rotary_factor\":0.5}");
	assert_true(c.rope_theta == 30000 && c.rope_dim == 64);
	bad_with(pythia_14b, "rope_parameters", "{\"rope_theta\":30000}", MZM_EFORMAT, "rope_theta");
	bad_with(pythia_14b, "rope_theta", "30000", MZM_EFORMAT, "rope_theta");
	bad_with(pythia_14b, "hidden_act", "\"relu6\"", MZM_EUNSUPPORTED, "relu6");
	free(a);
	free(b);
}

/* Keys that other families compute with, in each family, by their names. */
static void test_foreign(void **state)
{
	(void)state;
	static const struct {
		const char *key, *value, *neutral;
	} keys[] = {
		{"quantization_config", "{\"quant_method\":\"gptq\"}", "null"},
		{"num_local_experts", "8", "0"},
		{"num_experts", "60", "null"},
		{"n_routed_experts", "64", "null"},
		{"logit_scale", "0.0625", "1.0"},
		{"logits_scaling", "8", "1"},
		{"residual_multiplier", "0.22", "1"},
		{"embedding_multiplier", "12", "1"},
		{"attention_multiplier", "0.0156", "null"},
		{"scale_emb", "12", "1"},
		{"scale_depth", "1.4", "null"},
		{"no_rope_layers", "[1,1,1,0]", "[]"},
		{"clip_qkv", "8", "null"},
		{"alibi", "true", "false"},
		{"parallel_attn", "true", "false"},
		{"dual_chunk_attention_config", "{\"chunk_size\":8192}", "null"},
		{"attention_chunk_size", "8192", "null"},
		{"is_encoder_decoder", "true", "false"},
		{"add_cross_attention", "true", "false"},
		{"pruned_heads", "{\"0\":[1]}", "{}"},
		{"vision_config", "{\"depth\":32}", "null"},
		{"use_bidirectional_attention", "true", "false"},
		{"num_nextn_predict_layers", "1", "0"},
		{"kv_lora_rank", "512", "null"},
		{"use_mrope", "true", "false"},
		{"lm_head_bias", "\"yes\"", "false"},
	};
	for (size_t m = 0; m < N_OF(models); m++)
		for (size_t k = 0; k < N_OF(keys); k++) {
			mzm_config plain = good(models[m].config);
			mzm_config c = good_with(models[m].config, keys[k].key, keys[k].neutral);
			assert_same(models[m].name, &c, &plain);
			bad_with(models[m].config, keys[k].key, keys[k].value, MZM_EUNSUPPORTED, keys[k].key);
		}
}

/* Every key of every published file taken out, or of another type: an answer that names it, or the class's default. */
static void test_each_key(void **state)
{
	(void)state;
	static const char *const values[] = {NULL, "null", "true", "-1", "0.5", "\"x\"", "[]", "{}", "[[1]]", "1e300"};
	size_t live = mzm_mem_live();
	int n_ok = 0, n_bad = 0;
	for (size_t m = 0; m < N_OF(models); m++) {
		json_t *tree = json_loads(models[m].config, 0, NULL), *v;
		const char *key;
		json_object_foreach(tree, key, v)
			for (size_t i = 0; i < N_OF(values); i++) {
				char *text = with(models[m].config, key, values[i]);
				mzm_config c;
				mzm_err err;
				mzm_status st = from_text(&c, text, &err);
				assert_int_equal(st, err.code);
				assert_true(st == MZM_OK ? mzm_config_check(&c, NULL) == MZM_OK : err.message[0] != 0);
				n_ok += st == MZM_OK;
				n_bad += st != MZM_OK;
				free(text);
			}
		json_decref(tree);
	}
	assert_true(n_ok > 100 && n_bad > 500);
	assert_int_equal(mzm_mem_live(), live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_published), cmocka_unit_test(test_parameters), cmocka_unit_test(test_llama),
		cmocka_unit_test(test_mistral),	  cmocka_unit_test(test_qwen),	     cmocka_unit_test(test_gemma),
		cmocka_unit_test(test_gemma2),	  cmocka_unit_test(test_gemma3),     cmocka_unit_test(test_phi3),
		cmocka_unit_test(test_opt),	  cmocka_unit_test(test_stablelm),   cmocka_unit_test(test_gptneox),
		cmocka_unit_test(test_foreign),	  cmocka_unit_test(test_each_key),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
