/* test_hf.c - checkpoints of every family, tiny and random: each element of each canonical tensor against the place in
 * the files that the published layout gives it; tensors that are missing, of another shape or left over. */
#include "hf_build.h"

#include "base/mem.h"
#include "format/names.h"
#include "format/source.h"

#define N_OF(a) (sizeof(a) / sizeof(a)[0])

/* How a canonical tensor lies in a file's. Row and column of the canonical one are r and c. */
enum layout {
	ROWS,       /* the same */
	QKV_Q,      /* [q + 2 kv, dim]: rows of q, k, v */
	QKV_K,
	QKV_V,
	PER_HEAD_Q, /* [heads, 3, head_dim, dim] */
	PER_HEAD_K,
	PER_HEAD_V,
	HALF_0,     /* [2, n_ffn, dim] */
	HALF_1,
	OFFSET_2,   /* two rows nobody uses, then these */
	COLUMNS,    /* [dim, n_ffn]: row r is column r */
};

typedef struct place {
	mzm_tensor_kind kind;
	const char     *name; /* %d: the layer */
	enum layout     layout;
	bool            plus_one;
} place;

/* The down half of MZM_T_UPDOWN is listed as MZM_T_DOWN. */
typedef struct checkpoint {
	const char  *name;
	const char  *config; /* what is of its own, behind the sizes */
	const place *places;
	int          n_places;
	bool         own_kv; /* two KV heads */
} checkpoint;

#define LLAMA_ATTENTION                                                                                          \
	{MZM_T_ATTN_NORM, "model.layers.%d.input_layernorm.weight", ROWS, false},                                \
	{MZM_T_WQ, "model.layers.%d.self_attn.q_proj.weight", ROWS, false},                                      \
	{MZM_T_WK, "model.layers.%d.self_attn.k_proj.weight", ROWS, false},                                      \
	{MZM_T_WV, "model.layers.%d.self_attn.v_proj.weight", ROWS, false},                                      \
	{MZM_T_WO, "model.layers.%d.self_attn.o_proj.weight", ROWS, false}
#define LLAMA_QKV_BIAS                                                                                           \
	{MZM_T_BQ, "model.layers.%d.self_attn.q_proj.bias", ROWS, false},                                        \
	{MZM_T_BK, "model.layers.%d.self_attn.k_proj.bias", ROWS, false},                                        \
	{MZM_T_BV, "model.layers.%d.self_attn.v_proj.bias", ROWS, false}
#define LLAMA_FFN                                                                                                \
	{MZM_T_FFN_NORM, "model.layers.%d.post_attention_layernorm.weight", ROWS, false},                        \
	{MZM_T_GATE, "model.layers.%d.mlp.gate_proj.weight", ROWS, false},                                       \
	{MZM_T_UPDOWN, "model.layers.%d.mlp.up_proj.weight", ROWS, false},                                       \
	{MZM_T_DOWN, "model.layers.%d.mlp.down_proj.weight", COLUMNS, false}
#define LLAMA_ENDS                                                                                               \
	{MZM_T_EMBED, "model.embed_tokens.weight", ROWS, false}, {MZM_T_OUT_NORM, "model.norm.weight", ROWS, false}
#define LLAMA_HEAD {MZM_T_HEAD, "lm_head.weight", ROWS, false}

static const place llama_places[] = {
	LLAMA_ATTENTION, LLAMA_QKV_BIAS, {MZM_T_BO, "model.layers.%d.self_attn.o_proj.bias", ROWS, false}, LLAMA_FFN,
	{MZM_T_B_GATE, "model.layers.%d.mlp.gate_proj.bias", ROWS, false},
	{MZM_T_B_UP, "model.layers.%d.mlp.up_proj.bias", ROWS, false},
	{MZM_T_B_DOWN, "model.layers.%d.mlp.down_proj.bias", ROWS, false}, LLAMA_ENDS, LLAMA_HEAD,
};
static const place qwen2_places[] = {LLAMA_ATTENTION, LLAMA_QKV_BIAS, LLAMA_FFN, LLAMA_ENDS, LLAMA_HEAD};
static const place qwen3_places[] = {
	LLAMA_ATTENTION, {MZM_T_Q_NORM, "model.layers.%d.self_attn.q_norm.weight", ROWS, false},
	{MZM_T_K_NORM, "model.layers.%d.self_attn.k_norm.weight", ROWS, false}, LLAMA_FFN, LLAMA_ENDS,
};
static const place gemma_places[] = {
	{MZM_T_ATTN_NORM, "model.layers.%d.input_layernorm.weight", ROWS, true},
	{MZM_T_WQ, "model.layers.%d.self_attn.q_proj.weight", ROWS, false},
	{MZM_T_WK, "model.layers.%d.self_attn.k_proj.weight", ROWS, false},
	{MZM_T_WV, "model.layers.%d.self_attn.v_proj.weight", ROWS, false},
	{MZM_T_WO, "model.layers.%d.self_attn.o_proj.weight", ROWS, false},
	{MZM_T_FFN_NORM, "model.layers.%d.post_attention_layernorm.weight", ROWS, true},
	{MZM_T_GATE, "model.layers.%d.mlp.gate_proj.weight", ROWS, false},
	{MZM_T_UPDOWN, "model.layers.%d.mlp.up_proj.weight", ROWS, false},
	{MZM_T_DOWN, "model.layers.%d.mlp.down_proj.weight", COLUMNS, false},
	{MZM_T_EMBED, "model.embed_tokens.weight", ROWS, false},
	{MZM_T_OUT_NORM, "model.norm.weight", ROWS, true},
};
static const place gemma_bias_places[] = {
	{MZM_T_ATTN_NORM, "model.layers.%d.input_layernorm.weight", ROWS, true},
	{MZM_T_WQ, "model.layers.%d.self_attn.q_proj.weight", ROWS, false},
	{MZM_T_WK, "model.layers.%d.self_attn.k_proj.weight", ROWS, false},
	{MZM_T_WV, "model.layers.%d.self_attn.v_proj.weight", ROWS, false},
	{MZM_T_WO, "model.layers.%d.self_attn.o_proj.weight", ROWS, false},
	LLAMA_QKV_BIAS,
	{MZM_T_BO, "model.layers.%d.self_attn.o_proj.bias", ROWS, false},
	{MZM_T_ATTN_POST_NORM, "model.layers.%d.post_attention_layernorm.weight", ROWS, true},
	{MZM_T_FFN_NORM, "model.layers.%d.pre_feedforward_layernorm.weight", ROWS, true},
	{MZM_T_GATE, "model.layers.%d.mlp.gate_proj.weight", ROWS, false},
	{MZM_T_UPDOWN, "model.layers.%d.mlp.up_proj.weight", ROWS, false},
	{MZM_T_DOWN, "model.layers.%d.mlp.down_proj.weight", COLUMNS, false},
	{MZM_T_FFN_POST_NORM, "model.layers.%d.post_feedforward_layernorm.weight", ROWS, true},
	{MZM_T_EMBED, "model.embed_tokens.weight", ROWS, false},
	{MZM_T_OUT_NORM, "model.norm.weight", ROWS, true},
};
static const place gemma3_places[] = {
	{MZM_T_ATTN_NORM, "model.layers.%d.input_layernorm.weight", ROWS, true},
	{MZM_T_WQ, "model.layers.%d.self_attn.q_proj.weight", ROWS, false},
	{MZM_T_WK, "model.layers.%d.self_attn.k_proj.weight", ROWS, false},
	{MZM_T_WV, "model.layers.%d.self_attn.v_proj.weight", ROWS, false},
	{MZM_T_WO, "model.layers.%d.self_attn.o_proj.weight", ROWS, false},
	{MZM_T_Q_NORM, "model.layers.%d.self_attn.q_norm.weight", ROWS, true},
	{MZM_T_K_NORM, "model.layers.%d.self_attn.k_norm.weight", ROWS, true},
	{MZM_T_ATTN_POST_NORM, "model.layers.%d.post_attention_layernorm.weight", ROWS, true},
	{MZM_T_FFN_NORM, "model.layers.%d.pre_feedforward_layernorm.weight", ROWS, true},
	{MZM_T_GATE, "model.layers.%d.mlp.gate_proj.weight", ROWS, false},
	{MZM_T_UPDOWN, "model.layers.%d.mlp.up_proj.weight", ROWS, false},
	{MZM_T_DOWN, "model.layers.%d.mlp.down_proj.weight", COLUMNS, false},
	{MZM_T_FFN_POST_NORM, "model.layers.%d.post_feedforward_layernorm.weight", ROWS, true},
	{MZM_T_EMBED, "model.embed_tokens.weight", ROWS, false},
	{MZM_T_OUT_NORM, "model.norm.weight", ROWS, true},
};
static const place phi3_places[] = {
	{MZM_T_ATTN_NORM, "model.layers.%d.input_layernorm.weight", ROWS, false},
	{MZM_T_WQ, "model.layers.%d.self_attn.qkv_proj.weight", QKV_Q, false},
	{MZM_T_WK, "model.layers.%d.self_attn.qkv_proj.weight", QKV_K, false},
	{MZM_T_WV, "model.layers.%d.self_attn.qkv_proj.weight", QKV_V, false},
	{MZM_T_WO, "model.layers.%d.self_attn.o_proj.weight", ROWS, false},
	{MZM_T_FFN_NORM, "model.layers.%d.post_attention_layernorm.weight", ROWS, false},
	{MZM_T_GATE, "model.layers.%d.mlp.gate_up_proj.weight", HALF_0, false},
	{MZM_T_UPDOWN, "model.layers.%d.mlp.gate_up_proj.weight", HALF_1, false},
	{MZM_T_DOWN, "model.layers.%d.mlp.down_proj.weight", COLUMNS, false},
	{MZM_T_EMBED, "model.embed_tokens.weight", ROWS, false},
	{MZM_T_OUT_NORM, "model.norm.weight", ROWS, false},
	{MZM_T_HEAD, "lm_head.weight", ROWS, false},
};
static const place opt_places[] = {
	{MZM_T_ATTN_NORM, "model.decoder.layers.%d.self_attn_layer_norm.weight", ROWS, false},
	{MZM_T_ATTN_NORM_BIAS, "model.decoder.layers.%d.self_attn_layer_norm.bias", ROWS, false},
	{MZM_T_WQ, "model.decoder.layers.%d.self_attn.q_proj.weight", ROWS, false},
	{MZM_T_WK, "model.decoder.layers.%d.self_attn.k_proj.weight", ROWS, false},
	{MZM_T_WV, "model.decoder.layers.%d.self_attn.v_proj.weight", ROWS, false},
	{MZM_T_WO, "model.decoder.layers.%d.self_attn.out_proj.weight", ROWS, false},
	{MZM_T_BQ, "model.decoder.layers.%d.self_attn.q_proj.bias", ROWS, false},
	{MZM_T_BK, "model.decoder.layers.%d.self_attn.k_proj.bias", ROWS, false},
	{MZM_T_BV, "model.decoder.layers.%d.self_attn.v_proj.bias", ROWS, false},
	{MZM_T_BO, "model.decoder.layers.%d.self_attn.out_proj.bias", ROWS, false},
	{MZM_T_FFN_NORM, "model.decoder.layers.%d.final_layer_norm.weight", ROWS, false},
	{MZM_T_FFN_NORM_BIAS, "model.decoder.layers.%d.final_layer_norm.bias", ROWS, false},
	{MZM_T_GATE, "model.decoder.layers.%d.fc1.weight", ROWS, false},
	{MZM_T_DOWN, "model.decoder.layers.%d.fc2.weight", COLUMNS, false},
	{MZM_T_B_GATE, "model.decoder.layers.%d.fc1.bias", ROWS, false},
	{MZM_T_B_DOWN, "model.decoder.layers.%d.fc2.bias", ROWS, false},
	{MZM_T_EMBED, "model.decoder.embed_tokens.weight", ROWS, false},
	{MZM_T_POS, "model.decoder.embed_positions.weight", OFFSET_2, false},
	{MZM_T_OUT_NORM, "model.decoder.final_layer_norm.weight", ROWS, false},
	{MZM_T_OUT_NORM_BIAS, "model.decoder.final_layer_norm.bias", ROWS, false},
};
static const place stablelm_places[] = {
	LLAMA_ATTENTION, LLAMA_QKV_BIAS, LLAMA_FFN, LLAMA_ENDS, LLAMA_HEAD,
	{MZM_T_ATTN_NORM_BIAS, "model.layers.%d.input_layernorm.bias", ROWS, false},
	{MZM_T_FFN_NORM_BIAS, "model.layers.%d.post_attention_layernorm.bias", ROWS, false},
	{MZM_T_OUT_NORM_BIAS, "model.norm.bias", ROWS, false},
};
static const place stablelm_parallel_places[] = {
	LLAMA_ATTENTION, LLAMA_ENDS, LLAMA_HEAD,
	{MZM_T_ATTN_NORM_BIAS, "model.layers.%d.input_layernorm.bias", ROWS, false},
	{MZM_T_GATE, "model.layers.%d.mlp.gate_proj.weight", ROWS, false},
	{MZM_T_UPDOWN, "model.layers.%d.mlp.up_proj.weight", ROWS, false},
	{MZM_T_DOWN, "model.layers.%d.mlp.down_proj.weight", COLUMNS, false},
	{MZM_T_OUT_NORM_BIAS, "model.norm.bias", ROWS, false},
};
static const place gptneox_places[] = {
	{MZM_T_ATTN_NORM, "gpt_neox.layers.%d.input_layernorm.weight", ROWS, false},
	{MZM_T_ATTN_NORM_BIAS, "gpt_neox.layers.%d.input_layernorm.bias", ROWS, false},
	{MZM_T_WQ, "gpt_neox.layers.%d.attention.query_key_value.weight", PER_HEAD_Q, false},
	{MZM_T_WK, "gpt_neox.layers.%d.attention.query_key_value.weight", PER_HEAD_K, false},
	{MZM_T_WV, "gpt_neox.layers.%d.attention.query_key_value.weight", PER_HEAD_V, false},
	{MZM_T_BQ, "gpt_neox.layers.%d.attention.query_key_value.bias", PER_HEAD_Q, false},
	{MZM_T_BK, "gpt_neox.layers.%d.attention.query_key_value.bias", PER_HEAD_K, false},
	{MZM_T_BV, "gpt_neox.layers.%d.attention.query_key_value.bias", PER_HEAD_V, false},
	{MZM_T_WO, "gpt_neox.layers.%d.attention.dense.weight", ROWS, false},
	{MZM_T_BO, "gpt_neox.layers.%d.attention.dense.bias", ROWS, false},
	{MZM_T_FFN_NORM, "gpt_neox.layers.%d.post_attention_layernorm.weight", ROWS, false},
	{MZM_T_FFN_NORM_BIAS, "gpt_neox.layers.%d.post_attention_layernorm.bias", ROWS, false},
	{MZM_T_GATE, "gpt_neox.layers.%d.mlp.dense_h_to_4h.weight", ROWS, false},
	{MZM_T_B_GATE, "gpt_neox.layers.%d.mlp.dense_h_to_4h.bias", ROWS, false},
	{MZM_T_DOWN, "gpt_neox.layers.%d.mlp.dense_4h_to_h.weight", COLUMNS, false},
	{MZM_T_B_DOWN, "gpt_neox.layers.%d.mlp.dense_4h_to_h.bias", ROWS, false},
	{MZM_T_EMBED, "gpt_neox.embed_in.weight", ROWS, false},
	{MZM_T_OUT_NORM, "gpt_neox.final_layer_norm.weight", ROWS, false},
	{MZM_T_OUT_NORM_BIAS, "gpt_neox.final_layer_norm.bias", ROWS, false},
	{MZM_T_HEAD, "embed_out.weight", ROWS, false},
};

#define RMS ",\"hidden_act\":\"silu\",\"rms_norm_eps\":1e-5"
#define PLACES(p) p, (int)N_OF(p)

static const checkpoint checkpoints[] = {
	{"llama", ",\"model_type\":\"llama\",\"attention_bias\":true,\"mlp_bias\":true" RMS,
	 PLACES(llama_places), true},
	{"qwen2", ",\"model_type\":\"qwen2\"" RMS, PLACES(qwen2_places), true},
	{"qwen3", ",\"model_type\":\"qwen3\",\"head_dim\":6,\"tie_word_embeddings\":true" RMS,
	 PLACES(qwen3_places), true},
	{"gemma", ",\"model_type\":\"gemma\",\"head_dim\":6,\"rms_norm_eps\":1e-6", PLACES(gemma_places), true},
	{"gemma2-bias", ",\"model_type\":\"gemma2\",\"head_dim\":6,\"rms_norm_eps\":1e-6,\"sliding_window\":3,"
	 "\"attention_bias\":true", PLACES(gemma_bias_places), true},
	{"gemma3", ",\"model_type\":\"gemma3_text\",\"head_dim\":6,\"rms_norm_eps\":1e-6,\"sliding_window\":3",
	 PLACES(gemma3_places), true},
	{"phi3", ",\"model_type\":\"phi3\"" RMS, PLACES(phi3_places), true},
	{"opt", ",\"model_type\":\"opt\",\"activation_function\":\"relu\",\"ffn_dim\":10", PLACES(opt_places), false},
	{"stablelm", ",\"model_type\":\"stablelm\",\"hidden_act\":\"silu\",\"layer_norm_eps\":1e-5,"
	 "\"use_qkv_bias\":true,\"partial_rotary_factor\":0.5", PLACES(stablelm_places), true},
	{"stablelm-parallel", ",\"model_type\":\"stablelm\",\"hidden_act\":\"silu\",\"layer_norm_eps\":1e-5,"
	 "\"use_parallel_residual\":true,\"partial_rotary_factor\":0.5", PLACES(stablelm_parallel_places), true},
	{"gptneox", ",\"model_type\":\"gpt_neox\",\"hidden_act\":\"gelu\",\"layer_norm_eps\":1e-5,\"rotary_pct\":0.5",
	 PLACES(gptneox_places), false},
};

#define N_LAYERS 2
#define N_CTX    13
#define N_VOCAB  19

/* Sizes: 4 heads of 4, or of the family's choice of 6. */
typedef struct sizes {
	int dim, n_ffn, n_heads, n_kv_heads, head_dim;
} sizes;

static sizes sizes_of(const checkpoint *k)
{
	return (sizes){.dim = 16, .n_ffn = 10, .n_heads = 4, .n_kv_heads = k->own_kv ? 2 : 4,
		       .head_dim = strstr(k->config, "\"head_dim\":6") ? 6 : 4};
}

static void shape_of(const place *p, const sizes *z, int *rows, int *cols)
{
	const int q = z->n_heads * z->head_dim, kv = z->n_kv_heads * z->head_dim;
	*cols = z->dim;
	switch (p->kind) {
	case MZM_T_EMBED:
	case MZM_T_HEAD: *rows = N_VOCAB; break;
	case MZM_T_POS: *rows = N_CTX; break;
	case MZM_T_WQ: *rows = q; break;
	case MZM_T_WK:
	case MZM_T_WV: *rows = kv; break;
	case MZM_T_WO: *rows = z->dim, *cols = q; break;
	case MZM_T_GATE:
	case MZM_T_UPDOWN: *rows = z->n_ffn; break;
	case MZM_T_DOWN: *rows = z->dim, *cols = z->n_ffn; break;
	case MZM_T_BQ: *rows = q, *cols = 0; break;
	case MZM_T_BK:
	case MZM_T_BV: *rows = kv, *cols = 0; break;
	case MZM_T_Q_NORM:
	case MZM_T_K_NORM: *rows = z->head_dim, *cols = 0; break;
	case MZM_T_B_GATE:
	case MZM_T_B_UP: *rows = z->n_ffn, *cols = 0; break;
	default: *rows = z->dim, *cols = 0; break;
	}
	if (p->layout >= QKV_Q && p->layout <= QKV_V)
		*rows = q + 2 * kv;
	else if (p->layout >= PER_HEAD_Q && p->layout <= PER_HEAD_V)
		*rows = 3 * q;
	else if (p->layout == HALF_0 || p->layout == HALF_1)
		*rows *= 2;
	else if (p->layout == OFFSET_2)
		*rows += 2;
}

static bool in_layers(const place *p)
{
	return strchr(p->name, '%') != NULL;
}

static void name_of(char name[96], const place *p, int layer)
{
	const char *at = strchr(p->name, '%');
	if (at)
		snprintf(name, 96, "%.*s%d%s", (int)(at - p->name), p->name, layer, at + 2);
	else
		snprintf(name, 96, "%s", p->name);
}

static char config_text[1024];

static void build(hf_build *b, const checkpoint *k, const char *dtype)
{
	sizes z = sizes_of(k);
	*b = (hf_build){.config = config_text, .seed = 11, .no_tokenizer = true};
	snprintf(config_text, sizeof config_text,
		 "{\"hidden_size\":%d,\"intermediate_size\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,"
		 "\"num_hidden_layers\":%d,\"vocab_size\":%d,\"max_position_embeddings\":%d%s}",
		 z.dim, z.n_ffn, z.n_heads, z.n_kv_heads, N_LAYERS, N_VOCAB, N_CTX, k->config);
	for (int l = 0; l < N_LAYERS; l++)
		for (int i = 0; i < k->n_places; i++) {
			char name[96];
			int rows, cols;
			name_of(name, &k->places[i], l);
			if (hf_find(b, name) || (l > 0 && !in_layers(&k->places[i])))
				continue;
			shape_of(&k->places[i], &z, &rows, &cols);
			hf_add(b, name, dtype, rows, cols);
		}
}

/* Row and column in the file. */
static void where(const place *p, const sizes *z, int r, int c, int *file_r, int *file_c)
{
	const int q = z->n_heads * z->head_dim, kv = z->n_kv_heads * z->head_dim, d = z->head_dim;
	*file_c = c;
	switch (p->layout) {
	case QKV_K: *file_r = q + r; break;
	case QKV_V: *file_r = q + kv + r; break;
	case PER_HEAD_Q: *file_r = r / d * 3 * d + r % d; break;
	case PER_HEAD_K: *file_r = (r / d * 3 + 1) * d + r % d; break;
	case PER_HEAD_V: *file_r = (r / d * 3 + 2) * d + r % d; break;
	case HALF_1: *file_r = z->n_ffn + r; break;
	case OFFSET_2: *file_r = 2 + r; break;
	case COLUMNS: *file_r = c, *file_c = r; break;
	default: *file_r = r; break;
	}
}

static const place *place_of(const checkpoint *k, mzm_tensor_kind kind)
{
	for (int i = 0; i < k->n_places; i++)
		if (k->places[i].kind == kind)
			return &k->places[i];
	fail_msg("%s has no tensor of kind %d", k->name, kind);
	return NULL;
}

/* The value that row r, column c of t must have. */
static float expected(hf_build *b, const checkpoint *k, const mzm_tensor *t, int r, int c)
{
	char name[96];
	int file_r, file_c;
	sizes z = sizes_of(k);
	bool down = t->kind == MZM_T_UPDOWN && r % 2;
	const place *p = place_of(k, down ? MZM_T_DOWN : t->kind);
	if (t->kind == MZM_T_UPDOWN)
		r /= 2;
	if (mzm_tensor_is_vector(t->kind)) {
		r = c; /* element by element */
		c = 0;
	}
	where(p, &z, r, c, &file_r, &file_c);
	name_of(name, p, t->layer);
	const hf_weight *w = hf_find(b, name);
	assert_non_null(w);
	assert_true(file_r < w->shape[0] && (w->n_dims == 1 || file_c < w->shape[1]));
	size_t stride = w->n_dims == 2 ? (size_t)w->shape[1] : 1;
	float v = hf_value(w->dtype, w->data, (size_t)file_r * stride + (size_t)file_c);
	return p->plus_one ? 1.0f + v : v;
}

static char dir[256];

static int make_dir(void **state)
{
	(void)state;
	testing_temp_dir(dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	testing_remove(dir);
	return 0;
}

static mzm_source *open_ok(hf_build *b, const char *name)
{
	mzm_source *src;
	mzm_err err = {0};
	testing_remove(dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	hf_write(b, dir);
	if (mzm_source_open(&src, dir, &err) != MZM_OK)
		fail_msg("%s: %s", name, err.message);
	return src;
}

static void check_elements(hf_build *b, const checkpoint *k, mzm_source *src)
{
	static const char *const dtype_names[] = {[MZM_F32] = "F32", [MZM_F16] = "F16", [MZM_BF16] = "BF16"};
	mzm_err err = {0};
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		size_t n = mzm_tensor_bytes(&t);
		uint8_t *data = malloc(n + 8);
		memset(data, 0xee, n + 8);
		if (mzm_source_read(src, i, data, &err) != MZM_OK)
			fail_msg("%s: %s", k->name, err.message);
		for (int r = 0; r < t.n_rows; r++)
			for (int c = 0; c < t.n_cols; c++) {
				char name[64];
				size_t at = (size_t)r * (size_t)t.n_cols + (size_t)c;
				if (hf_value(dtype_names[t.dtype], data, at) != expected(b, k, &t, r, c))
					fail_msg("%s: %s [%d, %d]", k->name, mzm_tensor_name(&t, name), r, c);
			}
		for (size_t j = 0; j < 8; j++)
			assert_int_equal(data[n + j], 0xee);
		free(data);
	}
	assert_non_null(mzm_source_hash(src));
}

static void test_elements(void **state)
{
	(void)state;
	static const char *const dtypes[] = {"F32", "F16", "BF16"};
	for (size_t k = 0; k < N_OF(checkpoints); k++)
		for (size_t d = 0; d < N_OF(dtypes); d++) {
			hf_build b;
			size_t live = mzm_mem_live();
			build(&b, &checkpoints[k], dtypes[d]);
			b.n_shards = (int)d;
			mzm_source *src = open_ok(&b, checkpoints[k].name);
			check_elements(&b, &checkpoints[k], src);
			mzm_source_close(src);
			hf_free(&b);
			assert_int_equal(mzm_mem_live(), live);
		}
}

/* Each tensor in a type of its own: matrices keep it, or meet in f32; vectors are f32 always. */
static void test_mixed_types(void **state)
{
	(void)state;
	static const char *const dtypes[] = {"BF16", "F32", "F16"};
	for (size_t k = 0; k < N_OF(checkpoints); k++) {
		hf_build b;
		build(&b, &checkpoints[k], "F32");
		for (int i = 0; i < b.n; i++) {
			hf_weight *w = &b.w[i];
			w->dtype = dtypes[(i + (int)k) % 3];
			w->bytes = w->bytes / 4 * hf_width(w->dtype);
			hf_random(&b, w);
		}
		mzm_source *src = open_ok(&b, checkpoints[k].name);
		for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
			mzm_tensor t = mzm_source_tensor(src, i);
			assert_true(!mzm_tensor_is_vector(t.kind) || t.dtype == MZM_F32);
		}
		check_elements(&b, &checkpoints[k], src);
		mzm_source_close(src);
		hf_free(&b);
	}
}

/* Every element of the files but those that no position uses is in some canonical tensor. */
static void test_bytes_read(void **state)
{
	(void)state;
	for (size_t k = 0; k < N_OF(checkpoints); k++) {
		hf_build b;
		build(&b, &checkpoints[k], "BF16");
		mzm_source *src = open_ok(&b, checkpoints[k].name);
		uint64_t before = mzm_source_bytes_read(src), total = 0;
		check_elements(&b, &checkpoints[k], src);
		for (int i = 0; i < b.n; i++)
			total += b.w[i].bytes;
		if (strcmp(checkpoints[k].name, "opt") == 0)
			total -= 2 * 16 * 2;
		assert_int_equal(mzm_source_bytes_read(src) - before, total);
		json_t *about, *t;
		size_t i;
		assert_int_equal(mzm_source_describe(src, &about, NULL), MZM_OK);
		json_array_foreach(json_object_get(about, "tensors"), i, t)
			total -= (uint64_t)json_number_value(json_object_get(t, "stored_bytes"));
		assert_int_equal(total, 0);
		json_decref(about);
		mzm_source_close(src);
		hf_free(&b);
	}
}

/* ---- what does not fit ---- */

static void open_fails(hf_build *b, mzm_status code, const char *first, const char *second)
{
	mzm_source *src;
	mzm_err err = {0};
	size_t live = mzm_mem_live();
	testing_remove(dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	hf_write(b, dir);
	mzm_status st = mzm_source_open(&src, dir, &err);
	if (st != code || !strstr(err.message, first) || !strstr(err.message, second))
		fail_msg("status %d, wanted %d, \"%s\" and \"%s\": %s", st, code, first, second, err.message);
	assert_null(src);
	assert_int_equal(mzm_mem_live(), live);
	hf_free(b);
}

static void test_missing(void **state)
{
	(void)state;
	for (size_t k = 0; k < N_OF(checkpoints); k++) {
		hf_build b;
		build(&b, &checkpoints[k], "F16");
		const int n = b.n;
		hf_free(&b);
		for (int i = 0; i < n; i++) {
			char name[96];
			build(&b, &checkpoints[k], "F16");
			snprintf(name, sizeof name, "%s", b.w[i].name);
			hf_drop(&b, name);
			open_fails(&b, MZM_EFORMAT, name, "is missing");
		}
	}
}

static void test_shapes(void **state)
{
	(void)state;
	for (size_t k = 0; k < N_OF(checkpoints); k++) {
		hf_build b;
		build(&b, &checkpoints[k], "F16");
		const int n = b.n;
		hf_free(&b);
		for (int i = 0; i < n; i++) {
			char name[96];
			build(&b, &checkpoints[k], "F16");
			hf_weight w = b.w[i];
			snprintf(name, sizeof name, "%s", w.name);
			if (((size_t)i + k) % 2) /* one more row, one column less */
				hf_remake(&b, name, "F16", w.shape[0] + 1, w.n_dims == 2 ? w.shape[1] : 0);
			else
				hf_remake(&b, name, "F16", w.shape[0], w.n_dims == 2 ? w.shape[1] - 1 : 1);
			open_fails(&b, MZM_EFORMAT, name, "expected shape");
			build(&b, &checkpoints[k], "F16");
			hf_remake(&b, name, "I8", w.shape[0], w.n_dims == 2 ? w.shape[1] : 0);
			open_fails(&b, MZM_EUNSUPPORTED, name, "I8");
		}
	}
}

static void test_leftover(void **state)
{
	(void)state;
	static const char *const extra[] = {
		"model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_norm.weight",
		"model.layers.0.mlp.gate_proj.bias", "model.layers.0.self_attn.qkv_proj.weight",
		"model.layers.0.pre_feedforward_layernorm.weight", "model.layers.0.post_attention_layernorm.weight",
		"model.layers.2.input_layernorm.weight", "model.layers.0.attention.bias", "lm_head.bias",
		"score.weight", "gpt_neox.layers.0.attention.query_key_value.scale", "embed_out.weight",
		"model.decoder.project_in.weight", "vision_tower.patch.weight",
	};
	for (size_t k = 0; k < N_OF(checkpoints); k++)
		for (size_t i = 0; i < N_OF(extra); i++) {
			hf_build b;
			build(&b, &checkpoints[k], "F16");
			if (hf_find(&b, extra[i])) {
				hf_free(&b);
				continue;
			}
			hf_add(&b, extra[i], "F16", 4, 4);
			open_fails(&b, MZM_EUNSUPPORTED, extra[i], "belongs to no part");
		}
}

static const checkpoint *named(const char *name)
{
	for (size_t k = 0; k < N_OF(checkpoints); k++)
		if (strlen(checkpoints[k].name) == strlen(name) &&
		    memcmp(checkpoints[k].name, name, strlen(name)) == 0)
			return &checkpoints[k];
	fail_msg("no checkpoint %s", name);
	return NULL;
}

static void test_ignored(void **state)
{
	(void)state;
	hf_build b;
	mzm_source *src;
	build(&b, named("gptneox"), "BF16");
	hf_add(&b, "gpt_neox.layers.0.attention.bias", "I8", 13, 13);
	hf_add(&b, "gpt_neox.layers.0.attention.masked_bias", "F32", 1, 0);
	hf_add(&b, "gpt_neox.layers.1.attention.rotary_emb.inv_freq", "F32", 1, 0);
	src = open_ok(&b, "gptneox");
	check_elements(&b, named("gptneox"), src);
	mzm_source_close(src);
	hf_free(&b);
	/* a head beside a tied embedding, whatever it holds, but of its shape */
	static const char *const tied[] = {"qwen3", "gemma", "gemma3", "opt"};
	for (size_t i = 0; i < N_OF(tied); i++) {
		build(&b, named(tied[i]), "BF16");
		hf_add(&b, "lm_head.weight", "F32", N_VOCAB, 16);
		src = open_ok(&b, tied[i]);
		check_elements(&b, named(tied[i]), src);
		mzm_source_close(src);
		hf_free(&b);
		build(&b, named(tied[i]), "BF16");
		hf_add(&b, "lm_head.weight", "F32", N_VOCAB + 1, 16);
		open_fails(&b, MZM_EFORMAT, "lm_head.weight", "expected shape");
	}
}

/* Checkpoints saved without the head: shorter names for all. */
static void test_bare_names(void **state)
{
	(void)state;
	static const char *const names[] = {"opt", "gemma3", "qwen3"};
	for (size_t k = 0; k < N_OF(names); k++) {
		hf_build whole, bare;
		build(&whole, named(names[k]), "F16");
		build(&bare, named(names[k]), "F16");
		for (int i = 0; i < bare.n; i++)
			memmove(bare.w[i].name, bare.w[i].name + 6, strlen(bare.w[i].name) - 5); /* "model." */
		hf_add(&bare, "layers.0.self_attn.rotary_emb.inv_freq", "F32", 2, 0);
		mzm_source *src = open_ok(&bare, names[k]);
		check_elements(&whole, named(names[k]), src); /* the same values, by the whole names */
		mzm_source_close(src);
		hf_free(&whole);
		/* half of them is neither */
		hf_weight *w = &bare.w[3];
		char copy[128];
		snprintf(copy, sizeof copy, "model.%s", w->name);
		snprintf(w->name, sizeof w->name, "%.95s", copy);
		open_fails(&bare, MZM_EFORMAT, copy, "is missing");
	}
}

/* More than a block of rows: up out of a fused tensor, and down alone. */
static void test_blocks(void **state)
{
	(void)state;
	const int dim = 48, n_ffn = 61001;
	for (int fused = 0; fused < 2; fused++) {
		hf_build b = {.config = config_text, .seed = 5, .no_tokenizer = true};
		snprintf(config_text, sizeof config_text,
			 "{\"hidden_size\":%d,\"%s\":%d,\"num_attention_heads\":2,\"num_hidden_layers\":1,"
			 "\"vocab_size\":3,\"max_position_embeddings\":3%s}",
			 dim, fused ? "intermediate_size" : "ffn_dim", n_ffn,
			 fused ? ",\"model_type\":\"phi3\",\"tie_word_embeddings\":true" RMS
			       : ",\"model_type\":\"opt\",\"activation_function\":\"relu\",\"enable_bias\":false");
		const checkpoint *k = named(fused ? "phi3" : "opt");
		sizes z = {.dim = dim, .n_ffn = n_ffn, .n_heads = 2, .n_kv_heads = 2, .head_dim = dim / 2};
		for (int i = 0; i < k->n_places; i++) {
			char name[96];
			int rows, cols;
			mzm_tensor_kind kind = k->places[i].kind;
			bool bias = strstr(k->places[i].name, ".bias") && !strstr(k->places[i].name, "norm");
			name_of(name, &k->places[i], 0);
			shape_of(&k->places[i], &z, &rows, &cols);
			rows = kind == MZM_T_EMBED ? 3 : kind == MZM_T_POS ? 5 : rows;
			if (kind != MZM_T_HEAD && !bias && !hf_find(&b, name))
				hf_add(&b, name, kind == MZM_T_DOWN ? "F32" : "BF16", rows, cols);
		}
		mzm_source *src = open_ok(&b, k->name);
		const mzm_config *cfg = mzm_source_config(src);
		int32_t at = mzm_tensor_index(cfg, fused ? MZM_T_UPDOWN : MZM_T_DOWN, 0);
		mzm_tensor t = mzm_source_tensor(src, at);
		assert_int_equal(t.dtype, MZM_F32);
		float *data = malloc(mzm_tensor_bytes(&t));
		assert_int_equal(mzm_source_read(src, at, data, NULL), MZM_OK);
		const hf_weight *up = hf_find(&b, "model.layers.0.mlp.gate_up_proj.weight");
		const hf_weight *down = hf_find(&b, fused ? "model.layers.0.mlp.down_proj.weight"
							  : "model.decoder.layers.0.fc2.weight");
		for (int r = 0; r < t.n_rows; r++)
			for (int c = 0; c < dim; c++) {
				bool is_up = fused && r % 2 == 0;
				int j = fused ? r / 2 : r;
				size_t up_at = (size_t)(n_ffn + j) * (size_t)dim + (size_t)c;
				size_t down_at = (size_t)c * (size_t)n_ffn + (size_t)j;
				float want = is_up ? hf_value("BF16", up->data, up_at)
						   : hf_value("F32", down->data, down_at);
				if (data[(size_t)r * (size_t)dim + (size_t)c] != want)
					fail_msg("row %d, column %d", r, c);
			}
		free(data);
		mzm_source_close(src);
		hf_free(&b);
	}
}

/* The k-th allocation of opening and reading fails, for each k: an error, and nothing is kept. */
static void test_out_of_memory(void **state)
{
	(void)state;
	static const char *const names[] = {"phi3", "opt"}; /* fused and paired; down alone, biases */
	for (size_t m = 0; m < N_OF(names); m++) {
		hf_build b;
		build(&b, named(names[m]), "F16");
		testing_remove(dir);
		assert_int_equal(mkdir(dir, 0700), 0);
		hf_write(&b, dir);
		long k = 1, calls = 0;
		for (; calls >= k - 1; k++) {
			mzm_source *src;
			mzm_err err = {0};
			size_t live = mzm_mem_live();
			mzm_mem_fail_nth(k);
			mzm_status st = mzm_source_open(&src, dir, &err);
			for (int32_t i = 0; st == MZM_OK && i < mzm_source_n_tensors(src); i++) {
				mzm_tensor t = mzm_source_tensor(src, i);
				void *data = malloc(mzm_tensor_bytes(&t));
				st = mzm_source_read(src, i, data, &err);
				free(data);
			}
			calls = mzm_mem_fail_nth(0);
			assert_int_equal(st, calls >= k ? MZM_ENOMEM : MZM_OK);
			assert_true(st == MZM_OK || err.message[0]);
			mzm_source_close(src);
			assert_int_equal(mzm_mem_live(), live);
		}
		assert_true(k > 30);
		hf_free(&b);
	}
}

/* Kinds that a family's files do not have have no parts: its biases are zero. */
static void test_no_parts(void **state)
{
	(void)state;
	mzm_hf_part parts[2];
	mzm_config phi3 = {
		.arch = "phi3", .n_layers = 1, .dim = 8, .n_ffn = 8, .n_heads = 2, .n_kv_heads = 2, .head_dim = 4};
	mzm_tensor t = {.kind = MZM_T_BQ, .layer = 0, .n_rows = 1, .n_cols = 8};
	assert_int_equal(mzm_names_parts(parts, &t, &phi3), 0);
	t.kind = MZM_T_ATTN_NORM;
	assert_int_equal(mzm_names_parts(parts, &t, &phi3), 1);
	assert_string_equal(parts[0].name, "model.layers.0.input_layernorm.weight");
	assert_true(mzm_names_is_ignorable("model.layers.0.self_attn.rotary_emb.inv_freq", &phi3));
	assert_false(mzm_names_is_ignorable("lm_head.weight", &phi3));
	phi3.tied = true;
	assert_true(mzm_names_is_ignorable("lm_head.weight", &phi3));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_elements, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_mixed_types, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_bytes_read, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_missing, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_shapes, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_leftover, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_ignored, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_bare_names, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_blocks, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_out_of_memory, make_dir, remove_dir),
		cmocka_unit_test(test_no_parts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
