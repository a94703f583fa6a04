/* test_gguf_arch.c - architectures of GGUF files: what metadata comes to mean, what is refused by its name, which rows
 * of which tensors the canonical ones are; and that the GGUF form of each tiny model in tests/golden is its Hugging
 * Face form, bit for bit. */
#include <math.h>

#include "gguf_build.h"

#include "base/mem.h"
#include "format/gguf_source.h"
#include "format/gguf_types.h"
#include "kern/quant.h"

static char dir[256], path[300];

static int make_dir(void **state)
{
	(void)state;
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/model.gguf", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	testing_remove(dir);
	return 0;
}

/* The file that g describes; g stays. */
static mzm_source *open_model(gb *g)
{
	mzm_source *src;
	mzm_err err = {0};
	gb_bytes b = gb_file(g);
	testing_write(path, b.p, b.n);
	free(b.p);
	if (mzm_source_open(&src, path, &err) != MZM_OK)
		fail_msg("%s: %s", g->arch, err.message);
	return src;
}

/* Its configuration. Frees g. */
static mzm_config config_of(gb *g)
{
	mzm_source *src = open_model(g);
	mzm_config c = *mzm_source_config(src);
	mzm_source_close(src);
	gb_free(g);
	return c;
}

/* Where the metadata has that text. */
static uint8_t *meta_at(gb *g, const char *text)
{
	uint8_t *p = memmem(g->meta.p, g->meta.n, text, strlen(text));
	assert_non_null(p);
	return p;
}

static void start(gb *g, const char *arch, int n_layers)
{
	gb_family_model(g, gb_family_of(arch), 0, 8, n_layers);
}

/* Frees g. */
static void expect_refusal(gb *g, mzm_status code, const char *word)
{
	mzm_source *src;
	mzm_err err = {0};
	size_t live = mzm_mem_live();
	gb_bytes b = gb_file(g);
	testing_write(path, b.p, b.n);
	mzm_status st = mzm_source_open(&src, path, &err);
	mzm_source_close(src);
	assert_int_equal(mzm_mem_live(), live);
	if (st != code || !strstr(err.message, word))
		fail_msg("status %d, wanted %d and \"%s\": %s", st, code, word, err.message);
	free(b.p);
	gb_free(g);
}

/* ---- what metadata comes to mean ---- */

/* l and g, a letter for each layer: local and global. */
static void assert_layers(const mzm_config *c, const char *layers)
{
	assert_int_equal(c->n_layers, strlen(layers));
	for (int32_t l = 0; l < c->n_layers; l++)
		assert_int_equal(mzm_config_is_local(c, l), layers[l] == 'l');
}

static void test_families(void **state)
{
	(void)state;
	for (size_t i = 0; i < GB_N_FAMILIES; i++) {
		const gb_family *f = &gb_families[i];
		gb g;
		start(&g, f->arch, 2);
		mzm_config c = config_of(&g);
		bool gemma = strncmp(f->arch, "gemma", 5) == 0, neox = f->ungated;
		assert_string_equal(c.arch, f->arch);
		assert_true(c.n_layers == 2 && c.dim == 8 && c.n_ffn == 16 && c.n_heads == 2 && c.head_dim == 4);
		assert_int_equal(c.n_kv_heads, f->bias_all ? 2 : 1);
		assert_int_equal(c.act, gemma ? MZM_ACT_GELU_TANH : neox ? MZM_ACT_GELU : MZM_ACT_SILU);
		assert_int_equal(c.norm, f->layer_norm ? MZM_NORM_LAYER : MZM_NORM_RMS);
		assert_int_equal(c.parallel, neox ? MZM_PARALLEL : MZM_SERIAL);
		assert_true(c.ungated == f->ungated && c.tied == !f->head && !c.learned_pos);
		assert_true(c.bias_qkv == f->bias_qkv && c.bias_o == f->bias_all && c.bias_ffn == f->bias_all);
		assert_true(c.qk_norm == f->qk_norm && c.post_norm == f->post_norm);
		assert_true(c.embed_scale == (gemma ? sqrt(8) : 0) && c.attn_scale == 0);
		assert_true(c.rope == MZM_ROPE_PLAIN && c.rope_theta == 10000 && c.rope_dim == 0);
		bool two = strcmp(f->arch, "gemma2") == 0;
		assert_true(c.attn_softcap == (two ? 50 : 0) && c.logit_softcap == (two ? 30 : 0));
		assert_int_equal(c.window, 0);
	}
}

static void test_windows(void **state)
{
	(void)state;
	gb g;
	mzm_config c;
	for (int k = 0; k < 2; k++) { /* Mistral is a "llama" */
		start(&g, k ? "phi3" : "llama", 3);
		gb_arch_int(&g, "attention.sliding_window", 100);
		c = config_of(&g);
		assert_true(c.window == 100 && c.rope_local_theta == 0);
		assert_layers(&c, "lll");
		start(&g, k ? "phi3" : "llama", 3);
		gb_arch_int(&g, "attention.sliding_window", 128);
		c = config_of(&g);
		assert_int_equal(c.window, 0);
		assert_layers(&c, "ggg");
	}
	start(&g, "gemma2", 5);
	gb_arch_int(&g, "attention.sliding_window", 64);
	c = config_of(&g);
	assert_true(c.window == 64 && c.rope_local_theta == 0);
	assert_layers(&c, "lglgl");
	start(&g, "gemma3", 7);
	gb_arch_int(&g, "attention.sliding_window", 512);
	gb_arch_real(&g, "rope.freq_base", 1e6f);
	gb_arch_string(&g, "rope.scaling.type", "linear");
	gb_arch_real(&g, "rope.scaling.factor", 8);
	c = config_of(&g);
	assert_true(c.window == 512 && c.rope_local_theta == 10000 && c.rope_theta == 1e6);
	assert_true(c.rope == MZM_ROPE_LINEAR && c.rope_factor == 8);
	assert_layers(&c, "lllllgl");
	start(&g, "gemma3", 7);
	gb_arch_int(&g, "attention.sliding_window", 32);
	gb_arch_int(&g, "attention.sliding_window_pattern", 3);
	gb_arch_real(&g, "rope.freq_base_swa", 5000);
	c = config_of(&g);
	assert_true(c.window == 32 && c.rope_local_theta == 5000);
	assert_layers(&c, "llgllgl");
	start(&g, "gemma3", 3);
	gb_arch_int(&g, "attention.sliding_window", 32);
	gb_key(&g, "gemma3.attention.sliding_window_pattern", 9);
	gb_u32(&g.meta, 7);
	gb_u64(&g.meta, 3);
	gb_add(&g.meta, "\0\1\1", 3);
	c = config_of(&g);
	assert_layers(&c, "gll");
	start(&g, "gemma3", 2); /* all layers global: no window */
	gb_arch_int(&g, "attention.sliding_window", 32);
	gb_arch_int(&g, "attention.sliding_window_pattern", 1);
	c = config_of(&g);
	assert_true(c.window == 0 && c.rope_local_theta == 0);
	start(&g, "qwen2", 1);
	gb_arch_int(&g, "attention.sliding_window", 4096);
	assert_int_equal(config_of(&g).window, 0);
}

static void test_scales(void **state)
{
	(void)state;
	gb g;
	mzm_config c;
	start(&g, "gemma2", 1);
	gb_arch_real(&g, "attn_logit_softcapping", 0);
	gb_arch_real(&g, "final_logit_softcapping", 7.5f);
	gb_arch_real(&g, "attention.scale", 0.125f);
	c = config_of(&g);
	assert_true(c.attn_softcap == 0 && c.logit_softcap == 7.5 && c.attn_scale == 0.125);
	start(&g, "gemma3", 1);
	gb_arch_real(&g, "attention.scale", 0.5f); /* 1 / sqrt(4) */
	c = config_of(&g);
	assert_true(c.attn_scale == 0 && c.logit_softcap == 0);
	gb_family wide = *gb_family_of("llama");
	gb_family_model(&g, &wide, 0, 8, 1);
	gb_arch_int(&g, "attention.key_length", 6);
	gb_arch_int(&g, "attention.value_length", 6);
	gb_arch_int(&g, "rope.dimension_count", 6);
	for (int k = 0; k < 3; k++) {
		gb_tensor *t = gb_find(&g, k == 0   ? "blk.0.attn_q.weight"
					   : k == 1 ? "blk.0.attn_k.weight"
						    : "blk.0.attn_v.weight");
		t->dims[1] = t->dims[1] / 4 * 6;
		t->bytes = t->bytes / 4 * 6;
		t->data = realloc(t->data, t->bytes);
		gb_random(&g, t);
	}
	gb_find(&g, "blk.0.attn_output.weight")->dims[0] = 12;
	gb_tensor *o = gb_find(&g, "blk.0.attn_output.weight");
	o->bytes = 12 * 8 * 4;
	o->data = realloc(o->data, o->bytes);
	gb_random(&g, o);
	c = config_of(&g);
	assert_true(c.head_dim == 6 && c.dim == 8 && c.rope_dim == 0);
}

/* The two models of Gemma whose scale is that of dim / n_heads are known by their number of layers. */
static void test_odd_layers(void **state)
{
	(void)state;
	static const struct {
		const char *arch;
		uint32_t n_layers;
	} odd[] = {{"gemma2", 46}, {"gemma3", 62}};
	for (int k = 0; k < 2; k++) {
		gb g;
		mzm_err err = {0};
		mzm_source *src;
		start(&g, odd[k].arch, 1);
		memcpy(meta_at(&g, "block_count") + 15, &odd[k].n_layers, 4);
		gb_arch_int(&g, "attention.key_length", 16);
		gb_bytes b = gb_file(&g);
		testing_write(path, b.p, b.n);
		mzm_gguf *f;
		mzm_config c;
		assert_int_equal(mzm_source_open(&src, path, &err), MZM_EFORMAT); /* the layers are not there */
		assert_int_equal(mzm_gguf_open(&f, path, NULL), MZM_OK);
		assert_int_equal(mzm_gguf_config(&c, f, NULL), MZM_OK);
		assert_true(fabs(c.attn_scale - 0.5) < 1e-12); /* 1 / sqrt(8 / 2) */
		mzm_gguf_close(f);
		free(b.p);
		gb_free(&g);
	}
}

static void add_factors(gb *g, const char *name, const float *f, uint64_t n)
{
	memcpy(gb_add_tensor(g, name, 0, n, 0)->data, f, (size_t)n * sizeof *f);
}

static void test_rope(void **state)
{
	(void)state;
	gb g;
	mzm_config c;
	const float within[2] = {1, 1.5f}, beyond[2] = {2, 64};
	start(&g, "stablelm", 1);
	gb_arch_int(&g, "rope.dimension_count", 2);
	assert_int_equal(config_of(&g).rope_dim, 2);
	start(&g, "qwen3", 1);
	gb_arch_real(&g, "rope.scaling.factor", 4); /* without a type: linear */
	c = config_of(&g);
	assert_true(c.rope == MZM_ROPE_LINEAR && c.rope_factor == 4);
	start(&g, "llama", 1);
	gb_arch_real(&g, "rope.scale_linear", 2); /* the old name */
	c = config_of(&g);
	assert_true(c.rope == MZM_ROPE_LINEAR && c.rope_factor == 2);
	start(&g, "llama", 1);
	gb_arch_string(&g, "rope.scaling.type", "none");
	gb_arch_real(&g, "rope.scaling.factor", 4);
	assert_int_equal(config_of(&g).rope, MZM_ROPE_PLAIN);
	start(&g, "phi3", 1);
	gb_arch_int(&g, "rope.scaling.original_context_length", 64); /* says nothing without factors */
	assert_int_equal(config_of(&g).rope, MZM_ROPE_PLAIN);
	start(&g, "phi3", 1);
	gb_arch_int(&g, "rope.scaling.original_context_length", 64);
	gb_arch_real(&g, "rope.scaling.attn_factor", 1.25f);
	add_factors(&g, "rope_factors_long.weight", beyond, 2);
	add_factors(&g, "rope_factors_short.weight", within, 2);
	c = config_of(&g);
	assert_true(c.rope == MZM_ROPE_LONG && c.rope_orig_ctx == 64 && c.rope_attn_factor == 1.25);
	assert_memory_equal(c.rope_short, within, sizeof within);
	assert_memory_equal(c.rope_long, beyond, sizeof beyond);
}

static void test_parallel(void **state)
{
	(void)state;
	gb g;
	start(&g, "gptneox", 1);
	meta_at(&g, "use_parallel_residual")[25] = 0;
	assert_int_equal(config_of(&g).parallel, MZM_SERIAL);
	start(&g, "stablelm", 1);
	gb_arch_flag(&g, "use_parallel_residual", 1); /* as files of the serial 1.6B do */
	assert_int_equal(config_of(&g).parallel, MZM_SERIAL);
	start(&g, "stablelm", 2);
	for (int i = 0, kept = 0, n = g.n; i < n; i++) {
		if (strstr(g.t[i].name, "ffn_norm")) {
			free(g.t[i].data);
			g.n--;
		} else {
			g.t[kept++] = g.t[i];
		}
	}
	assert_int_equal(config_of(&g).parallel, MZM_PARALLEL_SHARED);
}

/* ---- tokens that end a turn ---- */

static void test_ends(void **state)
{
	(void)state;
	static const char *const tokens[] = {"a", "<|im_end|>", "<end_of_turn>", "<|end|>", "<|eot_id|>", "b"};
	const int32_t types[] = {1, 3, 4, 1, 3, 1};
	gb g;
	start(&g, "llama", 1);
	gb_int(&g, "tokenizer.ggml.eos_token_id", 4);
	gb_key(&g, "tokenizer.ggml.tokens", 9);
	gb_u32(&g.meta, 8);
	gb_u64(&g.meta, 6);
	for (int i = 0; i < 6; i++)
		gb_text(&g.meta, tokens[i]);
	gb_key(&g, "tokenizer.ggml.token_type", 9);
	gb_u32(&g.meta, 5);
	gb_u64(&g.meta, 6);
	gb_add(&g.meta, types, sizeof types);
	mzm_config c = config_of(&g);
	assert_int_equal(c.n_eos, 3); /* "<|end|>" is text here */
	assert_true(c.eos_ids[0] == 4 && c.eos_ids[1] == 1 && c.eos_ids[2] == 2);
}

/* ---- refusals ---- */

#define REFUSED(arch_name, code, word, ...)                                                                            \
	do {                                                                                                           \
		gb g;                                                                                                  \
		start(&g, arch_name, 1);                                                                               \
		__VA_ARGS__;                                                                                           \
		expect_refusal(&g, code, word);                                                                        \
	} while (0)

static void rename_arch(gb *g, const char *name)
{
	memcpy(meta_at(g, "llama"), name, 5);
}

static void test_refusals(void **state)
{
	(void)state;
	const float two[2] = {1, 1}, bad[2] = {1, 0};
	REFUSED("llama", MZM_EUNSUPPORTED, "architecture \"mamba\"", rename_arch(&g, "mamba"));
	REFUSED("qwen2", MZM_EUNSUPPORTED, "qwen2.attention.sliding_window",
		gb_arch_int(&g, "attention.sliding_window", 64));
	REFUSED("gemma3", MZM_EUNSUPPORTED, "gemma3.attention.sliding_window_pattern", {
		gb_arch_int(&g, "attention.sliding_window", 64);
		gb_key(&g, "gemma3.attention.sliding_window_pattern", 9);
		gb_u32(&g.meta, 7);
		gb_u64(&g.meta, 2);
		gb_add(&g.meta, "\0\1", 2);
	});
	REFUSED("gemma3", MZM_EUNSUPPORTED, "gemma3.rope.local.freq_base",
		gb_arch_real(&g, "rope.local.freq_base", 1e4f));
	REFUSED("qwen3", MZM_EUNSUPPORTED, "qwen3.expert_count", gb_arch_int(&g, "expert_count", 8));
	REFUSED("gemma", MZM_EUNSUPPORTED, "gemma.attn_logit_softcapping",
		gb_arch_real(&g, "attn_logit_softcapping", 50));
	REFUSED("llama", MZM_EUNSUPPORTED, "llama.attention.scale", gb_arch_real(&g, "attention.scale", 0.125f));
	REFUSED("gemma2", MZM_EUNSUPPORTED, "gemma2.attention.scale", gb_arch_real(&g, "attention.scale", -1));
	REFUSED("llama", MZM_EUNSUPPORTED, "llama.use_parallel_residual", gb_arch_flag(&g, "use_parallel_residual", 1));
	REFUSED("gptneox", MZM_EUNSUPPORTED, "gptneox.attention.causal", gb_arch_flag(&g, "attention.causal", 0));
	REFUSED("gptneox", MZM_EFORMAT, "gptneox.use_parallel_residual is missing",
		memcpy(meta_at(&g, "gptneox.use_par"), "general", 7));
	REFUSED("stablelm", MZM_EFORMAT, "stablelm.attention.layer_norm_epsilon is missing",
		memcpy(meta_at(&g, "stablelm.attention.layer"), "quantize", 8));
	REFUSED("qwen2", MZM_EUNSUPPORTED, "\"yarn\"", gb_arch_string(&g, "rope.scaling.type", "yarn"));
	REFUSED("qwen2", MZM_EUNSUPPORTED, "qwen2.rope.dimension_count 2", gb_arch_int(&g, "rope.dimension_count", 2));
	REFUSED("phi3", MZM_EFORMAT, "3 dimensions of a head", gb_arch_int(&g, "rope.dimension_count", 3));
	REFUSED("phi3", MZM_EUNSUPPORTED, "dimension_count 0", gb_arch_int(&g, "rope.dimension_count", 0));
	REFUSED("phi3", MZM_EFORMAT, "rope_factors_short.weight is missing",
		add_factors(&g, "rope_factors_long.weight", two, 2));
	REFUSED("phi3", MZM_EFORMAT, "original_context_length is missing", {
		add_factors(&g, "rope_factors_long.weight", two, 2);
		add_factors(&g, "rope_factors_short.weight", two, 2);
	});
	REFUSED("phi3", MZM_EFORMAT, "rope_factors_long.weight: factor 1 is 0", {
		gb_arch_int(&g, "rope.scaling.original_context_length", 64);
		add_factors(&g, "rope_factors_long.weight", bad, 2);
		add_factors(&g, "rope_factors_short.weight", two, 2);
	});
	REFUSED("phi3", MZM_EFORMAT, "rope_factors_long.weight is missing",
		gb_arch_string(&g, "rope.scaling.type", "longrope"));
	REFUSED("phi3", MZM_EUNSUPPORTED, "attn_factor", gb_arch_real(&g, "rope.scaling.attn_factor", 1.2f));
	REFUSED("stablelm", MZM_EUNSUPPORTED, "attn_q_norm.weight belongs to no part",
		gb_add_tensor(&g, "blk.0.attn_q_norm.weight", 0, 4, 2));
	REFUSED("qwen3", MZM_EFORMAT, "attn_k_norm.weight is missing",
		strcpy(gb_find(&g, "blk.0.attn_k_norm.weight")->name, "x"));
	REFUSED("gptneox", MZM_EFORMAT, "ffn_up.bias is missing", strcpy(gb_find(&g, "blk.0.ffn_up.bias")->name, "x"));
	REFUSED("gptneox", MZM_EFORMAT, "ffn_norm.bias is missing",
		strcpy(gb_find(&g, "blk.0.ffn_norm.bias")->name, "x"));
	REFUSED("phi3", MZM_EFORMAT, "attn_qkv.weight: expected [8, 16]",
		gb_find(&g, "blk.0.attn_qkv.weight")->dims[1] = 15);
	REFUSED("phi3", MZM_EFORMAT, "ffn_up.weight: expected [8, 32]",
		gb_find(&g, "blk.0.ffn_up.weight")->dims[1] = 31);
	REFUSED("gptneox", MZM_EUNSUPPORTED, "ffn_gate.weight belongs to no part",
		gb_add_tensor(&g, "blk.0.ffn_gate.weight", 0, 8, 16));
	REFUSED("qwen2", MZM_EUNSUPPORTED, "output.bias belongs to no part",
		gb_add_tensor(&g, "output.bias", 0, 40, 0));
	gb g;
	gb_family_model(&g, gb_family_of("qwen2"), 0, 32, 1);
	gb_find(&g, "blk.0.attn_q.bias")->type = 8;
	expect_refusal(&g, MZM_EUNSUPPORTED, "attn_q.bias: type 8 (Q8_0)");
}

/* Behind a key of 4 bytes: its value. */
static void set_u32(gb *g, const char *key, uint32_t v)
{
	memcpy(meta_at(g, key) + strlen(key) + 4, &v, 4);
}

static void set_real(gb *g, const char *key, float v)
{
	memcpy(meta_at(g, key) + strlen(key) + 4, &v, 4);
}

static void test_nonsense(void **state)
{
	(void)state;
	const float eps[] = {0, -1, NAN, INFINITY, 2};
	for (size_t i = 0; i < sizeof eps / sizeof eps[0]; i++)
		REFUSED("llama", MZM_EFORMAT, "eps", set_real(&g, "layer_norm_rms_epsilon", eps[i]));
	REFUSED("llama", MZM_EFORMAT, "llama.attention.head_count 0", set_u32(&g, "llama.attention.head_count", 0));
	REFUSED("llama", MZM_EFORMAT, "head_count 3 does not divide", set_u32(&g, "llama.attention.head_count", 3));
	REFUSED("llama", MZM_EFORMAT, "2 heads are no multiple of 3", set_u32(&g, "head_count_kv", 3));
	REFUSED("llama", MZM_EFORMAT, "KV heads", set_u32(&g, "head_count_kv", 0));
	REFUSED("llama", MZM_EFORMAT, "no whole number", set_u32(&g, "head_count_kv", 1u << 31));
	REFUSED("llama", MZM_EFORMAT, "heads of 0", gb_arch_int(&g, "attention.key_length", 0));
	REFUSED("llama", MZM_EUNSUPPORTED, "dimension_count 6", gb_arch_int(&g, "rope.dimension_count", 6));
	REFUSED("phi3", MZM_EUNSUPPORTED, "dimension_count 6", gb_arch_int(&g, "rope.dimension_count", 6));
	REFUSED("llama", MZM_EFORMAT, "the number of layers is 0", set_u32(&g, "block_count", 0));
	REFUSED("llama", MZM_EFORMAT, "blk.1.attn_norm.weight is missing", set_u32(&g, "block_count", 2));
	REFUSED("llama", MZM_EFORMAT, "1000 layers, but only 11 tensors", set_u32(&g, "block_count", 1000));
	REFUSED("llama", MZM_EFORMAT, "5000 layers", set_u32(&g, "block_count", 5000));
	REFUSED("gemma2", MZM_EFORMAT, "5000 layers", set_u32(&g, "block_count", 5000));
	REFUSED("llama", MZM_EFORMAT, "the context length is 0", set_u32(&g, "context_length", 0));
	REFUSED("llama", MZM_EFORMAT, "context length", set_u32(&g, "context_length", INT32_MAX));
	REFUSED("llama", MZM_EFORMAT, "llama.context_length is missing or no whole number", {
		const uint64_t huge = (uint64_t)1 << 40;
		memcpy(meta_at(&g, "llama.context_length"), "nobod", 5);
		gb_key(&g, "llama.context_length", 10);
		gb_add(&g.meta, &huge, 8);
	});
	REFUSED("gemma3", MZM_EFORMAT, "window of attention", gb_arch_int(&g, "attention.sliding_window", INT32_MAX));
	REFUSED("gemma2", MZM_EFORMAT, "cap of logits", gb_arch_real(&g, "final_logit_softcapping", -1));
	REFUSED("gemma2", MZM_EFORMAT, "attn_logit_softcapping", gb_arch_real(&g, "attn_logit_softcapping", NAN));
	REFUSED("llama", MZM_EFORMAT, "RoPE base", gb_arch_real(&g, "rope.freq_base", 0));
	REFUSED("gemma3", MZM_EFORMAT, "base of local layers", {
		gb_arch_int(&g, "attention.sliding_window", 32);
		gb_arch_real(&g, "rope.freq_base_swa", -5);
	});
	REFUSED("llama", MZM_EFORMAT, "rope.scaling.type is not a string", gb_arch_int(&g, "rope.scaling.type", 1));
	REFUSED("llama", MZM_EFORMAT, "no finite number", gb_arch_string(&g, "rope.scaling.factor", "8"));
	REFUSED("llama", MZM_EFORMAT, "bos_token_id", gb_int(&g, "tokenizer.ggml.bos_token_id", 40));
	REFUSED("llama", MZM_EFORMAT, "embedding_length", set_u32(&g, "embedding_length", 1u << 31));
	REFUSED("llama", MZM_EFORMAT, "expected [8, 8]", set_u32(&g, "feed_forward_length", 8));
}

/* More tokens than the embedding has rows: refused with the tokenizer. */
static void test_vocabulary(void **state)
{
	(void)state;
	gb g;
	mzm_tokenizer *tok;
	mzm_err err = {0};
	start(&g, "llama", 1);
	gb_tokenizer(&g);
	gb_find(&g, "token_embd.weight")->dims[1] = 39;
	mzm_source *src = open_model(&g);
	assert_int_equal(mzm_source_tokenizer(&tok, src, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "the embedding only 39 rows"));
	mzm_source_close(src);
	gb_free(&g);
}

/* ---- tensors ---- */

static float *read_f32(mzm_source *src, int32_t i)
{
	mzm_err err = {0};
	mzm_tensor t = mzm_source_tensor(src, i);
	size_t n = (size_t)t.n_cols, step = mzm_row_bytes(t.dtype, t.n_cols);
	char *raw = malloc(mzm_tensor_bytes(&t));
	float *x = malloc((size_t)t.n_rows * n * sizeof *x);
	if (mzm_source_read(src, i, raw, &err) != MZM_OK)
		fail_msg("%s", err.message);
	for (size_t r = 0; r < (size_t)t.n_rows; r++)
		if (mzm_dtype_is_quant(t.dtype))
			mzm_dequant_row(x + r * n, raw + r * step, t.dtype, t.n_cols);
		else
			mzm_ggml_to_f32(x + r * n, raw + r * step,
					t.dtype == MZM_F32   ? 0
					: t.dtype == MZM_F16 ? 1
							     : 30,
					n);
	free(raw);
	return x;
}

/* Rows of a tensor of the file as f32; of a vector: elements, as rows of one. */
typedef struct rows {
	float *x; /* all of the tensor */
	size_t n_cols;
} rows;

static rows rows_of(gb *g, int layer, const char *name)
{
	char full[64];
	if (layer < 0)
		snprintf(full, sizeof full, "%s", name);
	else
		snprintf(full, sizeof full, "blk.%d.%s", layer, name);
	gb_tensor *t = gb_find(g, full);
	rows r = {malloc((size_t)(t->dims[0] * t->dims[1]) * sizeof(float)), t->n_dims == 1 ? 1 : (size_t)t->dims[0]};
	mzm_ggml_to_f32(r.x, t->data, t->type, (size_t)(t->dims[0] * t->dims[1]));
	return r;
}

/* The name of the tensor that canonical tensor t of family f lies in, and where it begins there. Sizes: dim 256, two
 * heads. */
static const char *place_of(const gb_family *f, mzm_tensor_kind kind, size_t *first)
{
	size_t dim = 256, kv = f->bias_all ? dim : dim / 2;
	*first = 0;
	switch (kind) {
	case MZM_T_EMBED:
		return "token_embd.weight";
	case MZM_T_HEAD:
		return "output.weight";
	case MZM_T_OUT_NORM:
		return "output_norm.weight";
	case MZM_T_OUT_NORM_BIAS:
		return "output_norm.bias";
	case MZM_T_ATTN_NORM:
		return "attn_norm.weight";
	case MZM_T_ATTN_NORM_BIAS:
		return "attn_norm.bias";
	case MZM_T_FFN_NORM:
		return "ffn_norm.weight";
	case MZM_T_FFN_NORM_BIAS:
		return "ffn_norm.bias";
	case MZM_T_ATTN_POST_NORM:
		return "post_attention_norm.weight";
	case MZM_T_FFN_POST_NORM:
		return "post_ffw_norm.weight";
	case MZM_T_Q_NORM:
		return "attn_q_norm.weight";
	case MZM_T_K_NORM:
		return "attn_k_norm.weight";
	case MZM_T_WO:
		return "attn_output.weight";
	case MZM_T_BO:
		return "attn_output.bias";
	case MZM_T_WQ:
		return f->fused_qkv ? "attn_qkv.weight" : "attn_q.weight";
	case MZM_T_BQ:
		return f->fused_qkv ? "attn_qkv.bias" : "attn_q.bias";
	case MZM_T_WK:
		*first = f->fused_qkv ? dim : 0;
		return f->fused_qkv ? "attn_qkv.weight" : "attn_k.weight";
	case MZM_T_BK:
		*first = f->fused_qkv ? dim : 0;
		return f->fused_qkv ? "attn_qkv.bias" : "attn_k.bias";
	case MZM_T_WV:
		*first = f->fused_qkv ? dim + kv : 0;
		return f->fused_qkv ? "attn_qkv.weight" : "attn_v.weight";
	case MZM_T_BV:
		*first = f->fused_qkv ? dim + kv : 0;
		return f->fused_qkv ? "attn_qkv.bias" : "attn_v.bias";
	case MZM_T_GATE:
		return f->fused_ffn || f->ungated ? "ffn_up.weight" : "ffn_gate.weight";
	case MZM_T_B_GATE:
		return "ffn_up.bias";
	case MZM_T_UPDOWN:
		*first = f->fused_ffn ? 2 * dim : 0;
		return "ffn_up.weight";
	case MZM_T_DOWN:
		return "ffn_down.weight";
	case MZM_T_B_DOWN:
		return "ffn_down.bias";
	default:
		fail_msg("kind %d", kind);
		return NULL;
	}
}

/* Element [r, c] of the canonical tensor, where the file has it. */
static float wanted(const gb_family *f, const mzm_tensor *t, const rows *main, const rows *down, size_t first, size_t r,
		    size_t c)
{
	size_t half = 64;
	bool vector = mzm_tensor_is_vector(t->kind);
	size_t row = vector ? c : r;
	if (t->kind == MZM_T_DOWN || (t->kind == MZM_T_UPDOWN && r % 2 == 1))
		return down->x[c * down->n_cols + (t->kind == MZM_T_DOWN ? r : r / 2)];
	if (t->kind == MZM_T_UPDOWN)
		row = r / 2;
	if (strcmp(f->arch, "llama") == 0 &&
	    (t->kind == MZM_T_WQ || t->kind == MZM_T_WK || t->kind == MZM_T_BQ || t->kind == MZM_T_BK))
		row = row / (2 * half) * (2 * half) + row % half * 2 + row / half % 2;
	return main->x[(first + row) * main->n_cols + (vector ? 0 : c)];
}

static void check_tensor(gb *g, const gb_family *f, mzm_source *src, int32_t i, double tolerance)
{
	mzm_tensor t = mzm_source_tensor(src, i);
	size_t first;
	const char *name = place_of(f, t.kind, &first);
	rows from = rows_of(g, t.layer, name), down = {0};
	double error = 0, norm = 0;
	if (t.kind == MZM_T_UPDOWN || t.kind == MZM_T_DOWN)
		down = rows_of(g, t.layer, "ffn_down.weight");
	float *x = read_f32(src, i);
	for (size_t r = 0; r < (size_t)t.n_rows; r++)
		for (size_t c = 0; c < (size_t)t.n_cols; c++) {
			double w = (double)wanted(f, &t, &from, &down, first, r, c);
			double e = (double)x[r * (size_t)t.n_cols + c] - w;
			error += e * e;
			norm += w * w;
		}
	if (!(sqrt(error / norm) <= tolerance))
		fail_msg("%s %s: error %g, allowed %g", f->arch, name, sqrt(error / norm), tolerance);
	free(x);
	free(from.x);
	free(down.x);
}

/* All tensors of all families: numbers exactly, blocks too where rows of Q8_0 or Q4_0 stay rows, else rounded to q8. */
static void test_tensors(void **state)
{
	(void)state;
	static const uint32_t types[] = {0, 1, 30, 8, 2, 12, 14};
	for (size_t i = 0; i < GB_N_FAMILIES; i++)
		for (size_t k = 0; k < sizeof types / sizeof types[0]; k++) {
			const gb_family *f = &gb_families[i];
			gb g;
			gb_family_model(&g, f, types[k], 256, 2);
			for (int b = 0; b < 3 && i == 0; b++) /* Llama may have biases: q and k interleaved too */
				for (int l = 0; l < 2; l++) {
					static const char *const names[] = {"attn_q", "attn_k", "attn_v"};
					char name[64];
					snprintf(name, sizeof name, "blk.%d.%s.bias", l, names[b]);
					gb_add_tensor(&g, name, 0, b == 0 ? 256 : 128, 0);
				}
			mzm_source *src = open_model(&g);
			for (int32_t t = 0; t < mzm_source_n_tensors(src); t++) {
				mzm_tensor x = mzm_source_tensor(src, t);
				bool moved = x.kind == MZM_T_UPDOWN || x.kind == MZM_T_DOWN;
				bool exact = !mzm_ggml_is_quant(types[k]) || mzm_tensor_is_vector(x.kind) ||
					     ((types[k] == 8 || types[k] == 2) && !moved);
				check_tensor(&g, f, src, t, exact ? 0 : 0.008);
			}
			assert_non_null(mzm_source_hash(src));
			mzm_source_close(src);
			gb_free(&g);
		}
}

/* Norms of a layer norm without biases. */
static void test_no_norm_bias(void **state)
{
	(void)state;
	gb g;
	gb_family plain = *gb_family_of("stablelm");
	plain.layer_norm = false;
	gb_family_model(&g, &plain, 0, 8, 1);
	gb_arch_real(&g, "attention.layer_norm_epsilon", 1e-5f);
	mzm_source *src = open_model(&g);
	const mzm_config *c = mzm_source_config(src);
	assert_int_equal(c->norm, MZM_NORM_LAYER);
	float *x = read_f32(src, mzm_tensor_index(c, MZM_T_FFN_NORM_BIAS, 0));
	for (int i = 0; i < 8; i++)
		assert_true(x[i] == 0);
	free(x);
	json_t *o;
	assert_int_equal(mzm_source_describe(src, &o, NULL), MZM_OK);
	json_decref(o);
	mzm_source_close(src);
	gb_free(&g);
}

/* ---- the tiny models ---- */

/* Without the tokens, which those files do not have. */
static char *config_text(const mzm_source *src)
{
	json_t *o = mzm_config_to_json(mzm_source_config(src));
	json_object_del(o, "bos_id");
	json_object_del(o, "eos_ids");
	char *text = json_dumps(o, JSON_SORT_KEYS);
	json_decref(o);
	return text;
}

static void compare_forms(const char *name, const char *gguf_path, const char *hf_path)
{
	mzm_source *a, *b;
	mzm_err err = {0};
	if (mzm_source_open(&a, gguf_path, &err) != MZM_OK || mzm_source_open(&b, hf_path, &err) != MZM_OK)
		fail_msg("%s: %s", name, err.message);
	char *s = config_text(a), *t = config_text(b);
	if (strcmp(s, t) != 0)
		fail_msg("%s:\n%s\n%s", name, s, t);
	free(s);
	free(t);
	assert_int_equal(mzm_source_n_tensors(a), mzm_source_n_tensors(b));
	for (int32_t i = 0; i < mzm_source_n_tensors(a); i++) {
		mzm_tensor x = mzm_source_tensor(a, i), y = mzm_source_tensor(b, i);
		assert_int_equal(x.dtype, y.dtype);
		float *p = read_f32(a, i), *q = read_f32(b, i);
		if (memcmp(p, q, (size_t)x.n_rows * (size_t)x.n_cols * sizeof *p) != 0)
			fail_msg("%s: kind %d of layer %d differs", name, x.kind, (int)x.layer);
		free(p);
		free(q);
	}
	mzm_source_close(a);
	mzm_source_close(b);
}

static void test_golden(void **state)
{
	(void)state;
	static const char root[] = "tests/golden";
	int n = 0;
	DIR *d = opendir(root);
	if (!d) {
		print_message("skipped: %s is missing\n", root);
		skip();
	}
	struct dirent *e;
	while ((e = readdir(d))) {
		char gguf[600], hf[300];
		snprintf(hf, sizeof hf, "%s/%.200s", root, e->d_name);
		snprintf(gguf, sizeof gguf, "%s/%.200s.gguf", hf, e->d_name);
		if (access(gguf, R_OK) != 0)
			continue;
		compare_forms(e->d_name, gguf, hf);
		n++;
	}
	closedir(d);
	print_message("%d models: GGUF and directory are the same, bit for bit\n", n);
	assert_true(n >= 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_families),
		cmocka_unit_test(test_windows),
		cmocka_unit_test(test_scales),
		cmocka_unit_test(test_odd_layers),
		cmocka_unit_test(test_rope),
		cmocka_unit_test(test_parallel),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_vocabulary),
		cmocka_unit_test(test_tensors),
		cmocka_unit_test(test_no_norm_bias),
		cmocka_unit_test(test_golden),
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
