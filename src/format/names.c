/* names.c - see names.h. A new architecture with other names is a second table here. */
#include "format/names.h"

#include <stdio.h>
#include <string.h>

static const char *const llama_names[MZM_N_TENSOR_KINDS] = {
	[MZM_T_EMBED] = "model.embed_tokens.weight",
	[MZM_T_ATTN_NORM] = "input_layernorm.weight",
	[MZM_T_WQ] = "self_attn.q_proj.weight",
	[MZM_T_WK] = "self_attn.k_proj.weight",
	[MZM_T_WV] = "self_attn.v_proj.weight",
	[MZM_T_WO] = "self_attn.o_proj.weight",
	[MZM_T_FFN_NORM] = "post_attention_layernorm.weight",
	[MZM_T_GATE] = "mlp.gate_proj.weight",
	[MZM_T_UPDOWN] = "mlp.up_proj.weight",
	[MZM_T_OUT_NORM] = "model.norm.weight",
	[MZM_T_HEAD] = "lm_head.weight",
};

static void set_part(mzm_hf_part *p, int32_t layer, const char *name, int32_t n_rows, int32_t n_cols)
{
	if (layer >= 0)
		snprintf(p->name, sizeof p->name, "model.layers.%d.%s", (int)layer, name);
	else
		snprintf(p->name, sizeof p->name, "%s", name);
	p->n_dims = n_rows ? 2 : 1;
	p->shape[0] = n_rows ? n_rows : n_cols;
	p->shape[1] = n_rows ? n_cols : 0;
}

static bool is_norm(mzm_tensor_kind kind)
{
	return kind == MZM_T_ATTN_NORM || kind == MZM_T_FFN_NORM || kind == MZM_T_OUT_NORM;
}

int mzm_names_parts(mzm_hf_part parts[2], const mzm_tensor *t, const mzm_config *cfg)
{
	if (t->kind == MZM_T_UPDOWN) {
		set_part(&parts[0], t->layer, llama_names[t->kind], cfg->n_ffn, cfg->dim);
		set_part(&parts[1], t->layer, "mlp.down_proj.weight", cfg->dim, cfg->n_ffn);
		return 2;
	}
	set_part(&parts[0], t->layer, llama_names[t->kind], is_norm(t->kind) ? 0 : t->n_rows, t->n_cols);
	return 1;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);
	return n >= m && strcmp(s + n - m, end) == 0;
}

bool mzm_names_is_ignorable(const char *name, const mzm_config *cfg)
{
	return ends_with(name, ".rotary_emb.inv_freq") ||
	       (cfg->tied && strcmp(name, llama_names[MZM_T_HEAD]) == 0);
}
