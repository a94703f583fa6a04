/* test_config.c - config.json and our own form of it: what is accepted, what is refused and by which words;
 * the list of canonical tensors. */
#include "testing.h"

#include <math.h>

#include "base/mem.h"
#include "format/config.h"

#define BASE                                                                                                  \
	"\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,"               \
	"\"intermediate_size\":172,\"num_hidden_layers\":5,\"num_attention_heads\":8,\"vocab_size\":512,"     \
	"\"max_position_embeddings\":512"
#define REST "\"hidden_act\":\"silu\",\"rms_norm_eps\":1e-5"

static mzm_status from_text(mzm_config *cfg, const char *text, const char *generation, mzm_err *err)
{
	json_t *config = NULL, *gen = NULL;
	*err = (mzm_err){0};
	mzm_status st = mzm_json_parse(&config, text, strlen(text), "test", err);
	if (st == MZM_OK && generation)
		st = mzm_json_parse(&gen, generation, strlen(generation), "test", err);
	if (st == MZM_OK)
		st = mzm_config_from_hf(cfg, config, gen, err);
	json_decref(config);
	json_decref(gen);
	return st;
}

static mzm_config good(const char *text)
{
	mzm_config cfg;
	mzm_err err;
	if (from_text(&cfg, text, NULL, &err) != MZM_OK)
		fail_msg("%s: %s", text, err.message);
	return cfg;
}

/* The message must name `word`. */
static void bad(const char *text, mzm_status code, const char *word)
{
	mzm_config cfg;
	mzm_err err;
	mzm_status st = from_text(&cfg, text, NULL, &err);
	if (st != code || !strstr(err.message, word))
		fail_msg("%s: status %d, wanted %d and \"%s\": %s", text, st, code, word, err.message);
}

static void test_defaults(void **state)
{
	(void)state;
	mzm_config c = good("{" BASE "," REST "}");
	assert_string_equal(c.arch, "llama");
	assert_int_equal(c.n_layers, 5);
	assert_int_equal(c.dim, 64);
	assert_int_equal(c.n_ffn, 172);
	assert_int_equal(c.n_heads, 8);
	assert_int_equal(c.n_kv_heads, 8);
	assert_int_equal(c.head_dim, 8);
	assert_int_equal(c.n_vocab, 512);
	assert_int_equal(c.n_ctx, 512);
	assert_int_equal(c.act, MZM_ACT_SILU);
	assert_false(c.tied);
	assert_true(c.norm_eps == 1e-5f);
	assert_true(c.rope_theta == 10000.0);
	assert_int_equal(c.rope, MZM_ROPE_PLAIN);
	assert_int_equal(c.bos_id, -1);
	assert_int_equal(c.n_eos, 0);
	c = good("{" BASE "," REST
		 ",\"head_dim\":null,\"num_key_value_heads\":null,\"rope_scaling\":null,\"bos_token_id\":0}");
	assert_int_equal(c.head_dim, 8);
	assert_int_equal(c.bos_id, 0);
	c = good("{" BASE ",\"hidden_act\":\"relu\",\"rms_norm_eps\":1e-6,\"head_dim\":10,\"num_key_value_heads\":2,"
		 "\"tie_word_embeddings\":true,\"rope_theta\":500000}");
	assert_int_equal(c.act, MZM_ACT_RELU);
	assert_int_equal(c.head_dim, 10);
	assert_int_equal(c.n_kv_heads, 2);
	assert_true(c.tied && c.rope_theta == 500000.0);
}

static void test_eos(void **state)
{
	(void)state;
	mzm_config c = good("{" BASE "," REST ",\"eos_token_id\":2}");
	mzm_err err;
	assert_int_equal(c.n_eos, 1);
	assert_int_equal(c.eos_ids[0], 2);
	c = good("{" BASE "," REST ",\"eos_token_id\":[1,2,511]}");
	assert_int_equal(c.n_eos, 3);
	assert_int_equal(c.eos_ids[2], 511);
	const char *two = "{" BASE "," REST ",\"eos_token_id\":2}";
	assert_int_equal(from_text(&c, two, "{\"eos_token_id\":[1,7]}", &err), MZM_OK);
	assert_int_equal(c.n_eos, 2);
	assert_int_equal(c.eos_ids[1], 7);
	assert_int_equal(from_text(&c, two, "{\"eos_token_id\":null}", &err), MZM_OK);
	assert_int_equal(c.n_eos, 1);
	assert_int_equal(from_text(&c, two, "{\"eos_token_id\":512}", &err), MZM_EFORMAT);
	assert_int_equal(from_text(&c, two, "[]", &err), MZM_EFORMAT);
	static const char *const wrong[] = {"512",   "-1",       "1.5",   "\"2\"", "[1,\"2\"]",
					    "[[1]]", "[1,null]", "1e300", "true",  "{}"};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		char text[1024];
		snprintf(text, sizeof text, "{" BASE "," REST ",\"eos_token_id\":%s}", wrong[i]);
		bad(text, MZM_EFORMAT, "eos_token_id");
	}
	bad("{" BASE "," REST ",\"eos_token_id\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}", MZM_EUNSUPPORTED, "17");
	bad("{" BASE "," REST ",\"bos_token_id\":512}", MZM_EFORMAT, "bos_token_id");
	bad("{" BASE "," REST ",\"bos_token_id\":-1}", MZM_EFORMAT, "bos_token_id");
}

static void test_rope(void **state)
{
	(void)state;
#define LLAMA3                                                                                                     \
	"\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":8192"
	mzm_config c = good("{" BASE "," REST ",\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3 "}}");
	assert_int_equal(c.rope, MZM_ROPE_LLAMA3);
	assert_true(c.rope_factor == 8 && c.rope_low_freq == 1 && c.rope_high_freq == 4 && c.rope_orig_ctx == 8192);
	c = good("{" BASE "," REST ",\"rope_scaling\":{\"type\":\"llama3\"," LLAMA3 "}}");
	assert_int_equal(c.rope, MZM_ROPE_LLAMA3);
	c = good("{" BASE "," REST ",\"rope_scaling\":{\"type\":\"default\"}}");
	assert_int_equal(c.rope, MZM_ROPE_PLAIN);
	c = good("{" BASE "," REST ",\"rope_parameters\":{\"rope_theta\":123456,\"rope_type\":\"llama3\"," LLAMA3 "}}");
	assert_true(c.rope == MZM_ROPE_LLAMA3 && c.rope_theta == 123456);
	c = good("{" BASE "," REST ",\"rope_parameters\":{\"rope_theta\":123456}}");
	assert_true(c.rope == MZM_ROPE_PLAIN && c.rope_theta == 123456);
	bad("{" BASE "," REST ",\"rope_theta\":5,\"rope_parameters\":{\"rope_theta\":6}}", MZM_EFORMAT, "rope_theta");
	bad("{" BASE "," REST ",\"rope_scaling\":{},\"rope_parameters\":{}}", MZM_EFORMAT, "rope_parameters");
	bad("{" BASE "," REST ",\"rope_scaling\":{\"factor\":2}}", MZM_EFORMAT, "rope_type");
	c = good("{" BASE "," REST ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}}");
	assert_true(c.rope == MZM_ROPE_LINEAR && c.rope_factor == 2.5);
	bad("{" BASE "," REST ",\"rope_scaling\":{\"type\":\"linear\"}}", MZM_EFORMAT, "factor");
	bad("{" BASE "," REST ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.5}}", MZM_EFORMAT, "factor");
	bad("{" BASE "," REST ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}", MZM_EUNSUPPORTED, "dynamic");
	bad("{" BASE "," REST ",\"rope_scaling\":{\"type\":\"longrope\"}}", MZM_EUNSUPPORTED, "longrope");
	bad("{" BASE "," REST ",\"rope_scaling\":{\"type\":\"llama3\",\"rope_type\":\"yarn\"}}", MZM_EFORMAT,
	    "contradict");
	bad("{" BASE "," REST ",\"rope_scaling\":{\"rope_type\":\"yarn\"}}", MZM_EUNSUPPORTED, "yarn");
	bad("{" BASE "," REST ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}", MZM_EFORMAT,
	    "low_freq_factor");
	bad("{" BASE "," REST ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
	    "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}}", MZM_EFORMAT, "low < high");
	bad("{" BASE "," REST ",\"rope_scaling\":7}", MZM_EFORMAT, "rope_scaling");
	bad("{" BASE "," REST ",\"rope_theta\":0}", MZM_EFORMAT, "rope_theta");
	bad("{" BASE "," REST ",\"rope_theta\":\"1e4\"}", MZM_EFORMAT, "rope_theta");
	bad("{" BASE "," REST ",\"partial_rotary_factor\":0.5}", MZM_EUNSUPPORTED, "partial_rotary_factor");
}

static void test_refused_by_name(void **state)
{
	(void)state;
	bad("[]", MZM_EFORMAT, "object");
	bad("{}", MZM_EFORMAT, "model_type");
	bad("{\"model_type\":\"qwen2_moe\"}", MZM_EUNSUPPORTED, "qwen2_moe");
	bad("{\"model_type\":7}", MZM_EFORMAT, "model_type");
	bad("{\"model_type\":\"llama\\u0000x\"}", MZM_EFORMAT, "model_type");
	bad("{\"model_type\":\"\\u001b[2J\"}", MZM_EFORMAT, "model_type");
	bad("{\"model_type\":\"llama\",\"architectures\":[\"LlamaForSequenceClassification\"]}", MZM_EUNSUPPORTED,
	    "LlamaForSequenceClassification");
	bad("{\"model_type\":\"llama\",\"architectures\":[\"MistralForCausalLM\"]}", MZM_EFORMAT, "contradict");
	bad("{\"model_type\":\"llama\",\"architectures\":\"x\"}", MZM_EFORMAT, "architectures");
	bad("{" BASE ",\"hidden_act\":\"quick_gelu\",\"rms_norm_eps\":1e-5}", MZM_EUNSUPPORTED, "quick_gelu");
	bad("{" BASE ",\"rms_norm_eps\":1e-5}", MZM_EFORMAT, "hidden_act");
	bad("{" BASE "," REST ",\"attention_bias\":\"yes\"}", MZM_EFORMAT, "attention_bias");
	bad("{" BASE "," REST ",\"mlp_bias\":1}", MZM_EFORMAT, "mlp_bias");
	bad("{" BASE "," REST ",\"quantization_config\":{}}", MZM_EUNSUPPORTED, "quantization_config");
	bad("{" BASE "," REST ",\"sliding_window\":4096}", MZM_EUNSUPPORTED, "sliding_window");
	bad("{" BASE "," REST ",\"tie_word_embeddings\":\"yes\"}", MZM_EFORMAT, "tie_word_embeddings");
	bad("{\"a\":1,\"a\":2}", MZM_EFORMAT, "duplicate");
}

static void test_mistral(void **state)
{
	(void)state;
#define MISTRAL                                                                                                    \
	"\"model_type\":\"mistral\",\"hidden_size\":64,\"intermediate_size\":172,\"num_hidden_layers\":5,"         \
	"\"num_attention_heads\":8,\"vocab_size\":512,\"max_position_embeddings\":512," REST
	mzm_config c = good("{" MISTRAL ",\"sliding_window\":null,\"num_key_value_heads\":2}");
	assert_string_equal(c.arch, "mistral");
	bad("{" MISTRAL ",\"num_key_value_heads\":2}", MZM_EFORMAT, "sliding_window");
	bad("{" MISTRAL ",\"sliding_window\":null}", MZM_EFORMAT, "num_key_value_heads");
}

/* Each number missing, of a wrong type, zero, negative, broken and far too large. */
static void test_ranges(void **state)
{
	(void)state;
	static const char *const keys[] = {"hidden_size",         "intermediate_size", "num_hidden_layers",
					   "num_attention_heads", "vocab_size",        "max_position_embeddings",
					   "num_key_value_heads", "head_dim"};
	static const char *const values[] = {"0", "-1", "1.5", "\"8\"", "[8]", "true", "4611686018427387904", "1e300",
					     "1099511627776", "null"};
	for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++)
		for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
			char text[1024] = "{\"model_type\":\"llama\"," REST;
			for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
				snprintf(text + strlen(text), sizeof text - strlen(text), ",\"%s\":%s", keys[i],
					 i == k ? values[v] : "8");
			strcat(text, "}");
			if (k >= 6 && strcmp(values[v], "null") == 0)
				continue; /* optional */
			bad(text, MZM_EFORMAT, keys[k]);
		}
	bad("{" BASE "," REST ",\"num_key_value_heads\":3}", MZM_EFORMAT, "multiple");
	bad("{" BASE "," REST ",\"head_dim\":7}", MZM_EFORMAT, "odd");
	bad("{" BASE "," REST ",\"head_dim\":1048576}", MZM_EFORMAT, "heads times head size");
	static const char *const eps[] = {"0", "-1e-5", "2", "null", "\"1e-5\"", "1e-60"};
	for (size_t i = 0; i < sizeof eps / sizeof eps[0]; i++) {
		char text[1024];
		snprintf(text, sizeof text, "{" BASE ",\"hidden_act\":\"silu\",\"rms_norm_eps\":%s}", eps[i]);
		bad(text, MZM_EFORMAT, "rms_norm_eps");
	}
	bad("{\"model_type\":\"llama\",\"hidden_size\":65,\"intermediate_size\":8,\"num_hidden_layers\":1,"
	    "\"num_attention_heads\":8,\"vocab_size\":8,\"max_position_embeddings\":8," REST "}",
	    MZM_EFORMAT, "hidden_size");
}

static void test_round_trip(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"{" BASE "," REST ",\"eos_token_id\":[5,6],\"bos_token_id\":4}",
		"{" BASE ",\"hidden_act\":\"relu\",\"rms_norm_eps\":3.3e-7,\"rope_theta\":12345.678,\"tie_word_"
			 "embeddings\":true}",
		"{" BASE "," REST ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.1,\"low_freq_factor\":1.1,"
		"\"high_freq_factor\":4.3,\"original_max_position_embeddings\":8192}}",
	};
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		mzm_config a, b;
		mzm_err err = {0};
		memset(&a, 0, sizeof a);
		memset(&b, 0, sizeof b);
		a = good(texts[i]);
		json_t *tree = mzm_config_to_json(&a), *again;
		assert_non_null(tree);
		char *text = json_dumps(tree, 0);
		assert_int_equal(mzm_json_parse(&again, text, strlen(text), "test", &err), MZM_OK);
		assert_int_equal(mzm_config_from_json(&b, again, &err), MZM_OK);
		assert_string_equal(a.arch, b.arch);
		assert_memory_equal(&a.n_layers, &b.n_layers, (size_t)((char *)&a.act - (char *)&a.n_layers));
		assert_true(a.act == b.act && a.tied == b.tied && a.norm_eps == b.norm_eps &&
			    a.rope_theta == b.rope_theta);
		assert_true(a.rope == b.rope && a.rope_factor == b.rope_factor && a.rope_low_freq == b.rope_low_freq &&
			    a.rope_high_freq == b.rope_high_freq && a.rope_orig_ctx == b.rope_orig_ctx);
		assert_true(a.bos_id == b.bos_id && a.n_eos == b.n_eos);
		assert_memory_equal(a.eos_ids, b.eos_ids, sizeof a.eos_ids);
		/* and each member of our form is needed */
		const char *key;
		json_t *v;
		json_object_foreach(tree, key, v) {
			json_t *less = json_copy(again);
			json_object_del(less, key);
			err = (mzm_err){0};
			assert_int_not_equal(mzm_config_from_json(&b, less, &err), MZM_OK);
			assert_non_null(strstr(err.message, key));
			json_decref(less);
		}
		free(text);
		json_decref(tree);
		json_decref(again);
	}
}

static void test_check(void **state)
{
	(void)state;
	const mzm_config ok = good("{" BASE "," REST ",\"eos_token_id\":2}");
	mzm_config c;
#define CHECK_FAILS(change)                                       \
	do {                                                      \
		mzm_err err = {0};                                \
		c = ok;                                           \
		change;                                           \
		assert_int_not_equal(mzm_config_check(&c, &err), MZM_OK); \
		assert_true(err.message[0]);                      \
	} while (0)
	assert_int_equal(mzm_config_check(&ok, NULL), MZM_OK);
	CHECK_FAILS(strcpy(c.arch, "gpt2"));
	CHECK_FAILS(c.norm = (mzm_norm_kind)7);
	CHECK_FAILS(c.parallel = (mzm_parallel)7);
	CHECK_FAILS(c.rope = MZM_ROPE_LINEAR);
	CHECK_FAILS(c.rope = MZM_ROPE_LONG);
	CHECK_FAILS(c.rope_dim = 10);
	CHECK_FAILS(c.rope_dim = 3);
	CHECK_FAILS(c.window = 5);
	CHECK_FAILS(c.local[0] = 1);
	CHECK_FAILS((c.window = 5, c.local[0] = 1 << 5)); /* of 5 layers */
	CHECK_FAILS(c.window = -1);
	CHECK_FAILS(c.rope_local_theta = NAN);
	CHECK_FAILS(c.embed_scale = -1);
	CHECK_FAILS(c.attn_scale = NAN);
	CHECK_FAILS(c.attn_softcap = INFINITY);
	CHECK_FAILS(c.logit_softcap = -1);
	CHECK_FAILS(c.act_threshold = NAN);
	CHECK_FAILS(memset(c.arch, 'a', sizeof c.arch));
	CHECK_FAILS(c.n_layers = 0);
	CHECK_FAILS(c.n_layers = MZM_MAX_LAYERS + 1);
	CHECK_FAILS(c.dim = -1);
	CHECK_FAILS(c.n_ffn = 0);
	CHECK_FAILS(c.n_heads = 0);
	CHECK_FAILS(c.n_kv_heads = 0);
	CHECK_FAILS(c.n_kv_heads = 16);
	CHECK_FAILS(c.head_dim = 9);
	CHECK_FAILS(c.n_vocab = MZM_MAX_VOCAB + 1);
	CHECK_FAILS(c.n_ctx = 0);
	CHECK_FAILS(c.act = (mzm_act)9);
	CHECK_FAILS(c.rope = (mzm_rope_kind)9);
	CHECK_FAILS(c.norm_eps = NAN);
	CHECK_FAILS(c.norm_eps = 0);
	CHECK_FAILS(c.rope_theta = NAN);
	CHECK_FAILS(c.rope_theta = INFINITY);
	CHECK_FAILS(c.rope = MZM_ROPE_LLAMA3);
	CHECK_FAILS(c.bos_id = -2);
	CHECK_FAILS(c.bos_id = 512);
	CHECK_FAILS(c.n_eos = MZM_MAX_EOS + 1);
	CHECK_FAILS(c.n_eos = -1);
	CHECK_FAILS(c.eos_ids[0] = 512);
}

static void test_tensors(void **state)
{
	(void)state;
	for (int tied = 0; tied < 2; tied++) {
		mzm_config c = good("{" BASE "," REST ",\"num_key_value_heads\":4,\"head_dim\":6}");
		c.tied = tied;
		int32_t n = mzm_tensor_count(&c);
		uint64_t n_params = 0, n_ffn = 0;
		assert_int_equal(n, 1 + 5 * 8 + 1 + !tied);
		for (int32_t i = 0; i < n; i++) {
			char name[64];
			mzm_tensor t = mzm_tensor_at(&c, i);
			assert_int_equal(mzm_tensor_index(&c, t.kind, t.layer), i);
			assert_int_equal(mzm_tensor_bytes(&t), (size_t)t.n_rows * (size_t)t.n_cols * 4);
			assert_true(mzm_tensor_name(&t, name) == name && name[0]);
			n_params += (uint64_t)t.n_rows * (uint64_t)t.n_cols;
			if (t.kind == MZM_T_GATE || t.kind == MZM_T_UPDOWN)
				n_ffn += (uint64_t)t.n_rows * (uint64_t)t.n_cols;
		}
		assert_int_equal(mzm_config_n_params(&c), n_params);
		assert_int_equal(mzm_config_n_ffn_params(&c), n_ffn);
		char name[64];
		mzm_tensor t = mzm_tensor_at(&c, 1 + 3 * 8 + 7);
		assert_string_equal(mzm_tensor_name(&t, name), "layers.3.updown");
		assert_true(t.n_rows == 344 && t.n_cols == 64);
		t = mzm_tensor_at(&c, mzm_tensor_index(&c, MZM_T_WO, 4));
		assert_true(t.n_rows == 64 && t.n_cols == 48);
		t = mzm_tensor_at(&c, mzm_tensor_index(&c, MZM_T_WK, 0));
		assert_true(t.n_rows == 24 && t.n_cols == 64);
		assert_int_equal(mzm_tensor_index(&c, MZM_T_HEAD, -1), tied ? -1 : n - 1);
		assert_int_equal(mzm_tensor_index(&c, MZM_T_GATE, 5), -1);
		assert_int_equal(mzm_tensor_index(&c, MZM_T_GATE, -1), -1);
		assert_int_equal(mzm_tensor_index(&c, MZM_N_TENSOR_KINDS, 0), -1);
	}
}

static void test_shared_models(void **state)
{
	(void)state;
	char buf[512];
	size_t len;
	if (!testing_shared("models/stories260K/config.json", buf))
		skip();
	char *text = testing_read(buf, &len);
	mzm_config c = good(text);
	free(text);
	assert_int_equal(mzm_config_n_params(&c), 260032);
	assert_true(c.tied && c.head_dim == 8 && c.n_kv_heads == 4 && c.bos_id == 1 && c.eos_ids[0] == 2);
	if (!testing_shared("models/gsmini-6m-relu/config.json", buf))
		skip();
	text = testing_read(buf, &len);
	c = good(text);
	free(text);
	assert_true(c.act == MZM_ACT_RELU && c.bos_id == -1 && c.n_eos == 1);
}

/* Bytes of a valid text changed at random: an answer, never a crash, no memory kept. */
static void test_mutations(void **state)
{
	(void)state;
	static const char base[] =
		"{" BASE "," REST ",\"eos_token_id\":[1,2],\"bos_token_id\":1,\"rope_scaling\":{\"rope_type\":"
		"\"llama3\"," LLAMA3 "},\"tie_word_embeddings\":true,\"head_dim\":8,\"num_key_value_heads\":4}";
	uint64_t seed = 1;
	long n_ok = 0, n = testing_count(5000, 100000);
	size_t live = mzm_mem_live();
	for (long i = 0; i < n; i++) {
		char text[sizeof base];
		mzm_config c;
		mzm_err err = {0};
		json_t *tree;
		memcpy(text, base, sizeof base);
		for (uint64_t k = testing_random(&seed) % 3 + 1; k > 0; k--) {
			static const char digits[] = "0123456789-.eE\"[]{},:nt";
			uint64_t r = testing_random(&seed);
			text[r % (sizeof base - 1)] =
				r >> 40 & 3 ? digits[(r >> 32) % (sizeof digits - 1)] : (char)(r >> 24);
		}
		if (mzm_json_parse(&tree, text, sizeof base - 1, "test", &err) != MZM_OK)
			continue;
		mzm_status st = mzm_config_from_hf(&c, tree, NULL, &err);
		assert_int_equal(st, err.code);
		assert_true(st == MZM_OK || err.message[0]);
		n_ok += st == MZM_OK && mzm_config_check(&c, NULL) == MZM_OK;
		json_decref(tree);
	}
	assert_true(n_ok > 0);
	assert_int_equal(mzm_mem_live(), live);
	for (size_t len = 0; len < sizeof base - 1; len++) {
		json_t *tree;
		assert_int_equal(mzm_json_parse(&tree, base, len, "test", NULL), MZM_EFORMAT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults), cmocka_unit_test(test_eos), cmocka_unit_test(test_rope),
		cmocka_unit_test(test_refused_by_name), cmocka_unit_test(test_mistral), cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_check), cmocka_unit_test(test_tensors),
		cmocka_unit_test(test_shared_models), cmocka_unit_test(test_mutations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
