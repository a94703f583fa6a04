/* names.c - see names.h.
 *
 * One table of names a family, and how a canonical tensor is cut out of the one that it shares with others. */
#include "format/names.h"

#include <stdio.h>
#include <string.h>

/* Where the rows of a canonical tensor lie in the file's. */
typedef enum cut {
	WHOLE,
	Q_ROWS, /* q, k and v, one behind the other */
	K_ROWS,
	V_ROWS,
	Q_OF_HEAD, /* head by head, and in each q, k and v */
	K_OF_HEAD,
	V_OF_HEAD,
	FIRST_HALF, /* gate and up, one behind the other */
	SECOND_HALF,
	AFTER_2, /* two rows that no position uses come first (OPT) */
} cut;

typedef struct entry {
	const char *name; /* of a layer's: behind its number */
	cut         cut;
} entry;

typedef struct family {
	const char  *base;   /* what all names but the head's begin with */
	const char  *layers; /* "layers.": between base and the number */
	const entry *names;  /* [MZM_N_TENSOR_KINDS]; MZM_T_UPDOWN has the name of up, MZM_T_DOWN that of down */
	bool         plus_one;
} family;

static const entry llama_names[MZM_N_TENSOR_KINDS] = {
	[MZM_T_EMBED] = {"embed_tokens.weight", WHOLE},
	[MZM_T_ATTN_NORM] = {"input_layernorm.weight", WHOLE},
	[MZM_T_ATTN_NORM_BIAS] = {"input_layernorm.bias", WHOLE},
	[MZM_T_WQ] = {"self_attn.q_proj.weight", WHOLE},
	[MZM_T_WK] = {"self_attn.k_proj.weight", WHOLE},
	[MZM_T_WV] = {"self_attn.v_proj.weight", WHOLE},
	[MZM_T_WO] = {"self_attn.o_proj.weight", WHOLE},
	[MZM_T_BQ] = {"self_attn.q_proj.bias", WHOLE},
	[MZM_T_BK] = {"self_attn.k_proj.bias", WHOLE},
	[MZM_T_BV] = {"self_attn.v_proj.bias", WHOLE},
	[MZM_T_BO] = {"self_attn.o_proj.bias", WHOLE},
	[MZM_T_Q_NORM] = {"self_attn.q_norm.weight", WHOLE},
	[MZM_T_K_NORM] = {"self_attn.k_norm.weight", WHOLE},
	[MZM_T_FFN_NORM] = {"post_attention_layernorm.weight", WHOLE},
	[MZM_T_FFN_NORM_BIAS] = {"post_attention_layernorm.bias", WHOLE},
	[MZM_T_GATE] = {"mlp.gate_proj.weight", WHOLE},
	[MZM_T_UPDOWN] = {"mlp.up_proj.weight", WHOLE},
	[MZM_T_DOWN] = {"mlp.down_proj.weight", WHOLE},
	[MZM_T_B_GATE] = {"mlp.gate_proj.bias", WHOLE},
	[MZM_T_B_UP] = {"mlp.up_proj.bias", WHOLE},
	[MZM_T_B_DOWN] = {"mlp.down_proj.bias", WHOLE},
	[MZM_T_OUT_NORM] = {"norm.weight", WHOLE},
	[MZM_T_OUT_NORM_BIAS] = {"norm.bias", WHOLE},
	[MZM_T_HEAD] = {"lm_head.weight", WHOLE},
};

/* Llama's post_attention_layernorm stands before the FFN, Gemma's behind the attention. */
/* Of a layer, behind "self_attn." or "attention.": as the released code calls them; T and D are the paper's letters. */
static const char *const dijiang_names[MZM_N_TENSOR_KINDS] = {
	[MZM_T_WG] = "W_G", [MZM_T_GROUP_NORM] = "group_norm.weight", [MZM_T_GROUP_NORM_BIAS] = "group_norm.bias",
	[MZM_T_FREQ] = "T", [MZM_T_FEATURE] = "D", [MZM_T_DECAY] = "D1",
};

static const entry gemma2_names[MZM_N_TENSOR_KINDS] = {
	[MZM_T_EMBED] = {"embed_tokens.weight", WHOLE},
	[MZM_T_ATTN_NORM] = {"input_layernorm.weight", WHOLE},
	[MZM_T_WQ] = {"self_attn.q_proj.weight", WHOLE},
	[MZM_T_WK] = {"self_attn.k_proj.weight", WHOLE},
	[MZM_T_WV] = {"self_attn.v_proj.weight", WHOLE},
	[MZM_T_WO] = {"self_attn.o_proj.weight", WHOLE},
	[MZM_T_BQ] = {"self_attn.q_proj.bias", WHOLE},
	[MZM_T_BK] = {"self_attn.k_proj.bias", WHOLE},
	[MZM_T_BV] = {"self_attn.v_proj.bias", WHOLE},
	[MZM_T_BO] = {"self_attn.o_proj.bias", WHOLE},
	[MZM_T_Q_NORM] = {"self_attn.q_norm.weight", WHOLE},
	[MZM_T_K_NORM] = {"self_attn.k_norm.weight", WHOLE},
	[MZM_T_ATTN_POST_NORM] = {"post_attention_layernorm.weight", WHOLE},
	[MZM_T_FFN_NORM] = {"pre_feedforward_layernorm.weight", WHOLE},
	[MZM_T_GATE] = {"mlp.gate_proj.weight", WHOLE},
	[MZM_T_UPDOWN] = {"mlp.up_proj.weight", WHOLE},
	[MZM_T_DOWN] = {"mlp.down_proj.weight", WHOLE},
	[MZM_T_FFN_POST_NORM] = {"post_feedforward_layernorm.weight", WHOLE},
	[MZM_T_OUT_NORM] = {"norm.weight", WHOLE},
	[MZM_T_HEAD] = {"lm_head.weight", WHOLE},
};

static const entry phi3_names[MZM_N_TENSOR_KINDS] = {
	[MZM_T_EMBED] = {"embed_tokens.weight", WHOLE},
	[MZM_T_ATTN_NORM] = {"input_layernorm.weight", WHOLE},
	[MZM_T_WQ] = {"self_attn.qkv_proj.weight", Q_ROWS},
	[MZM_T_WK] = {"self_attn.qkv_proj.weight", K_ROWS},
	[MZM_T_WV] = {"self_attn.qkv_proj.weight", V_ROWS},
	[MZM_T_WO] = {"self_attn.o_proj.weight", WHOLE},
	[MZM_T_FFN_NORM] = {"post_attention_layernorm.weight", WHOLE},
	[MZM_T_GATE] = {"mlp.gate_up_proj.weight", FIRST_HALF},
	[MZM_T_UPDOWN] = {"mlp.gate_up_proj.weight", SECOND_HALF},
	[MZM_T_DOWN] = {"mlp.down_proj.weight", WHOLE},
	[MZM_T_OUT_NORM] = {"norm.weight", WHOLE},
	[MZM_T_HEAD] = {"lm_head.weight", WHOLE},
};

static const entry opt_names[MZM_N_TENSOR_KINDS] = {
	[MZM_T_EMBED] = {"decoder.embed_tokens.weight", WHOLE},
	[MZM_T_POS] = {"decoder.embed_positions.weight", AFTER_2},
	[MZM_T_ATTN_NORM] = {"self_attn_layer_norm.weight", WHOLE},
	[MZM_T_ATTN_NORM_BIAS] = {"self_attn_layer_norm.bias", WHOLE},
	[MZM_T_WQ] = {"self_attn.q_proj.weight", WHOLE},
	[MZM_T_WK] = {"self_attn.k_proj.weight", WHOLE},
	[MZM_T_WV] = {"self_attn.v_proj.weight", WHOLE},
	[MZM_T_WO] = {"self_attn.out_proj.weight", WHOLE},
	[MZM_T_BQ] = {"self_attn.q_proj.bias", WHOLE},
	[MZM_T_BK] = {"self_attn.k_proj.bias", WHOLE},
	[MZM_T_BV] = {"self_attn.v_proj.bias", WHOLE},
	[MZM_T_BO] = {"self_attn.out_proj.bias", WHOLE},
	[MZM_T_FFN_NORM] = {"final_layer_norm.weight", WHOLE},
	[MZM_T_FFN_NORM_BIAS] = {"final_layer_norm.bias", WHOLE},
	[MZM_T_GATE] = {"fc1.weight", WHOLE},
	[MZM_T_DOWN] = {"fc2.weight", WHOLE},
	[MZM_T_B_GATE] = {"fc1.bias", WHOLE},
	[MZM_T_B_DOWN] = {"fc2.bias", WHOLE},
	[MZM_T_OUT_NORM] = {"decoder.final_layer_norm.weight", WHOLE},
	[MZM_T_OUT_NORM_BIAS] = {"decoder.final_layer_norm.bias", WHOLE},
	[MZM_T_HEAD] = {"lm_head.weight", WHOLE},
};

static const entry gptneox_names[MZM_N_TENSOR_KINDS] = {
	[MZM_T_EMBED] = {"embed_in.weight", WHOLE},
	[MZM_T_ATTN_NORM] = {"input_layernorm.weight", WHOLE},
	[MZM_T_ATTN_NORM_BIAS] = {"input_layernorm.bias", WHOLE},
	[MZM_T_WQ] = {"attention.query_key_value.weight", Q_OF_HEAD},
	[MZM_T_WK] = {"attention.query_key_value.weight", K_OF_HEAD},
	[MZM_T_WV] = {"attention.query_key_value.weight", V_OF_HEAD},
	[MZM_T_WO] = {"attention.dense.weight", WHOLE},
	[MZM_T_BQ] = {"attention.query_key_value.bias", Q_OF_HEAD},
	[MZM_T_BK] = {"attention.query_key_value.bias", K_OF_HEAD},
	[MZM_T_BV] = {"attention.query_key_value.bias", V_OF_HEAD},
	[MZM_T_BO] = {"attention.dense.bias", WHOLE},
	[MZM_T_FFN_NORM] = {"post_attention_layernorm.weight", WHOLE},
	[MZM_T_FFN_NORM_BIAS] = {"post_attention_layernorm.bias", WHOLE},
	[MZM_T_GATE] = {"mlp.dense_h_to_4h.weight", WHOLE},
	[MZM_T_DOWN] = {"mlp.dense_4h_to_h.weight", WHOLE},
	[MZM_T_B_GATE] = {"mlp.dense_h_to_4h.bias", WHOLE},
	[MZM_T_B_DOWN] = {"mlp.dense_4h_to_h.bias", WHOLE},
	[MZM_T_OUT_NORM] = {"final_layer_norm.weight", WHOLE},
	[MZM_T_OUT_NORM_BIAS] = {"final_layer_norm.bias", WHOLE},
	[MZM_T_HEAD] = {"embed_out.weight", WHOLE},
};

static const family *family_of(const mzm_config *cfg)
{
	static const family llama = {"model.", "layers.", llama_names, false};
	static const struct {
		const char *arch;
		family      family;
	} others[] = {
		{"gemma", {"model.", "layers.", llama_names, true}},
		{"gemma2", {"model.", "layers.", gemma2_names, true}},
		{"gemma3", {"model.", "layers.", gemma2_names, true}},
		{"phi3", {"model.", "layers.", phi3_names, false}},
		{"opt", {"model.", "decoder.layers.", opt_names, false}},
		{"gptneox", {"gpt_neox.", "layers.", gptneox_names, false}},
	};
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		if (strcmp(cfg->arch, others[i].arch) == 0)
			return &others[i].family;
	return &llama;
}

static void set_name(mzm_hf_part *p, const family *f, const char *name, const mzm_tensor *t)
{
	if (t->layer >= 0)
		snprintf(p->name, sizeof p->name, "%s%s%d.%s", f->base, f->layers, (int)t->layer, name);
	else
		snprintf(p->name, sizeof p->name, "%s%s", t->kind == MZM_T_HEAD ? "" : f->base, name);
}

/* n_rows of the canonical tensor begin at first; the file's has n_file. */
static void set_rows(mzm_hf_part *p, int32_t n_file, int32_t first, int32_t group, int32_t step)
{
	p->shape[0] = n_file;
	p->first = first;
	p->group = group;
	p->step = step;
}

static void set_cut(mzm_hf_part *p, cut how, int32_t n_rows, const mzm_config *cfg)
{
	int32_t q = cfg->n_heads * cfg->head_dim, kv = cfg->n_kv_heads * cfg->head_dim, d = cfg->head_dim;
	switch (how) {
	case Q_ROWS:
	case K_ROWS:
	case V_ROWS: set_rows(p, q + 2 * kv, how == Q_ROWS ? 0 : how == K_ROWS ? q : q + kv, n_rows, n_rows); break;
	case Q_OF_HEAD:
	case K_OF_HEAD:
	case V_OF_HEAD: set_rows(p, 3 * q, (int32_t)(how - Q_OF_HEAD) * d, d, 3 * d); break;
	case FIRST_HALF:
	case SECOND_HALF: set_rows(p, 2 * n_rows, how == FIRST_HALF ? 0 : n_rows, n_rows, n_rows); break;
	case AFTER_2: set_rows(p, n_rows + 2, 2, n_rows, n_rows); break;
	default: set_rows(p, n_rows, 0, n_rows, n_rows); break;
	}
}

/* A matrix of n_rows of n_cols, in the file's orientation; of a vector n_rows are its elements. */
static void set_part(mzm_hf_part *p, const family *f, const entry *e, const mzm_tensor *t, int32_t n_rows,
		     int32_t n_cols, const mzm_config *cfg)
{
	*p = (mzm_hf_part){.n_dims = n_cols ? 2 : 1, .shape = {0, n_cols}};
	set_name(p, f, e->name, t);
	set_cut(p, e->cut, n_rows, cfg);
}

static void set_whole(mzm_hf_part *p, const family *f, const char *name, const mzm_tensor *t, int32_t n_dims,
		      const int32_t *shape)
{
	char full[64];
	snprintf(full, sizeof full, "%s%s", f->names == gptneox_names ? "attention." : "self_attn.", name);
	*p = (mzm_hf_part){.n_dims = n_dims};
	for (int32_t i = 0; i < n_dims; i++)
		p->shape[i] = shape[i];
	p->group = p->step = t->n_rows > 1 ? t->n_rows : t->n_cols;
	set_name(p, f, full, t);
}

/* What DiJiang has beside what attention has. */
static int dijiang_parts(mzm_hf_part parts[2], const family *f, const mzm_tensor *t, const mzm_config *cfg)
{
	const int32_t vector[] = {t->n_cols}, gate[] = {cfg->dim, cfg->n_heads * cfg->head_dim};
	const int32_t square[] = {cfg->head_dim, cfg->head_dim}, table[] = {1, cfg->n_kv_heads, cfg->decay_len, 1};
	if (t->kind == MZM_T_DECAY) {
		set_whole(&parts[0], f, "D1", t, 4, table);
		set_whole(&parts[1], f, "D2", t, 4, table);
		return 2;
	}
	if (t->kind == MZM_T_FREQ && cfg->attn == MZM_ATTN_DIJIANG) {
		set_whole(&parts[0], f, "proj_matrix", t, 2, square);
		return 1;
	}
	bool is_gate = t->kind == MZM_T_WG;
	set_whole(&parts[0], f, dijiang_names[t->kind], t, is_gate ? 2 : 1, is_gate ? gate : vector);
	parts[0].transposed = is_gate;
	return 1;
}

static bool is_norm(mzm_tensor_kind kind)
{
	return kind == MZM_T_ATTN_NORM || kind == MZM_T_FFN_NORM || kind == MZM_T_OUT_NORM || kind == MZM_T_Q_NORM ||
	       kind == MZM_T_K_NORM || kind == MZM_T_ATTN_POST_NORM || kind == MZM_T_FFN_POST_NORM;
}

int mzm_names_parts(mzm_hf_part parts[2], const mzm_tensor *t, const mzm_config *cfg)
{
	const family *f = family_of(cfg);
	const entry *e = &f->names[t->kind];
	bool pair = t->kind == MZM_T_UPDOWN;
	if (dijiang_names[t->kind])
		return dijiang_parts(parts, f, t, cfg);
	if (!e->name)
		return 0;
	if (mzm_tensor_is_vector(t->kind)) {
		set_part(&parts[0], f, e, t, t->n_cols, 0, cfg);
		parts[0].plus_one = f->plus_one && is_norm(t->kind);
		return 1;
	}
	if (pair)
		set_part(&parts[0], f, e, t, cfg->n_ffn, cfg->dim, cfg);
	if (pair || t->kind == MZM_T_DOWN) {
		set_part(&parts[pair], f, &f->names[MZM_T_DOWN], t, cfg->dim, cfg->n_ffn, cfg);
		parts[pair].transposed = true;
		return 1 + pair;
	}
	set_part(&parts[0], f, e, t, t->n_rows, t->n_cols, cfg);
	return 1;
}

const char *mzm_names_base(const mzm_config *cfg)
{
	return family_of(cfg)->base;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);
	return n >= m && strcmp(s + n - m, end) == 0;
}

static bool begins_with(const char *s, const char *begin)
{
	return strncmp(s, begin, strlen(begin)) == 0;
}

/* The causal mask that old checkpoints of GPT-NeoX hold as if it were a weight. */
static bool is_mask(const char *name, const family *f)
{
	if (f->names != gptneox_names)
		return false;
	if (begins_with(name, f->base))
		name += strlen(f->base);
	return begins_with(name, f->layers) &&
	       (ends_with(name, ".attention.bias") || ends_with(name, ".attention.masked_bias"));
}

bool mzm_names_is_ignorable(const char *name, const mzm_config *cfg)
{
	const family *f = family_of(cfg);
	return ends_with(name, ".rotary_emb.inv_freq") || is_mask(name, f) ||
	       (cfg->tied && strcmp(name, f->names[MZM_T_HEAD].name) == 0);
}
