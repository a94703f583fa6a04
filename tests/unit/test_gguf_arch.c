/* test_gguf_arch.c - architectures of GGUF files: what metadata comes to mean, and what is refused by its name. */
#include <math.h>

#include "gguf_rig.h"

#include "base/mem.h"
#include "format/gguf_source.h"

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

static void add_flags(gb *g, const char *key, uint64_t n, const char *flags)
{
	gb_key(g, key, 9);
	gb_u32(&g->meta, 7);
	gb_u64(&g->meta, n);
	gb_add(&g->meta, flags, (size_t)n);
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
	add_flags(&g, "gemma3.attention.sliding_window_pattern", 3, "\0\1\1");
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
	start(&g, "qwen2", 2);
	gb_arch_int(&g, "attention.sliding_window", 24);
	add_flags(&g, "qwen2.attention.sliding_window_pattern", 2, "\0\1");
	c = config_of(&g);
	assert_layers(&c, "gl");
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
		add_flags(&g, "gemma3.attention.sliding_window_pattern", 2, "\0\1");
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
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
