/* gguf_names.c - see gguf_names.h. One table serves all architectures: llama.cpp names the parts of a layer alike. */
#include "format/gguf_names.h"

#include <stdio.h>
#include <string.h>

#include "format/gguf_arch.h"
#include "format/gguf_source.h"

static const char *const names[MZM_N_TENSOR_KINDS] = {
	[MZM_T_EMBED] = MZM_GGUF_EMBED,
	[MZM_T_HEAD] = MZM_GGUF_HEAD,
	[MZM_T_OUT_NORM] = "output_norm.weight",
	[MZM_T_OUT_NORM_BIAS] = "output_norm.bias",
	[MZM_T_ATTN_NORM] = "attn_norm.weight",
	[MZM_T_ATTN_NORM_BIAS] = "attn_norm.bias",
	[MZM_T_FFN_NORM] = "ffn_norm.weight",
	[MZM_T_FFN_NORM_BIAS] = "ffn_norm.bias",
	[MZM_T_ATTN_POST_NORM] = "post_attention_norm.weight",
	[MZM_T_FFN_POST_NORM] = "post_ffw_norm.weight",
	[MZM_T_WQ] = "attn_q.weight",
	[MZM_T_WK] = "attn_k.weight",
	[MZM_T_WV] = "attn_v.weight",
	[MZM_T_WO] = "attn_output.weight",
	[MZM_T_BQ] = "attn_q.bias",
	[MZM_T_BK] = "attn_k.bias",
	[MZM_T_BV] = "attn_v.bias",
	[MZM_T_BO] = "attn_output.bias",
	[MZM_T_Q_NORM] = "attn_q_norm.weight",
	[MZM_T_K_NORM] = "attn_k_norm.weight",
	[MZM_T_GATE] = "ffn_gate.weight",
	[MZM_T_UPDOWN] = "ffn_up.weight",
	[MZM_T_DOWN] = "ffn_down.weight",
	[MZM_T_B_GATE] = "ffn_gate.bias",
	[MZM_T_B_UP] = "ffn_up.bias",
	[MZM_T_B_DOWN] = "ffn_down.bias",
	[MZM_T_POS] = "position_embd.weight",
};

void mzm_gguf_layout_of(mzm_gguf_layout *l, const mzm_gguf *g, const mzm_config *cfg)
{
	const mzm_gguf_arch *arch = mzm_gguf_arch_find(g);
	l->interleaved = arch && arch->interleaved;
	l->fused_qkv = mzm_gguf_find(g, "blk.0.attn_qkv.weight");
	l->fused_ffn = arch && arch->may_fuse_ffn && !mzm_gguf_find(g, "blk.0.ffn_gate.weight");
	l->norm_bias = cfg->norm == MZM_NORM_LAYER && mzm_gguf_find(g, "output_norm.bias");
}

static void set_name(mzm_gguf_part_name *p, int32_t layer, const char *name)
{
	if (layer >= 0)
		snprintf(p->name, sizeof p->name, "blk.%d.%s", (int)layer, name);
	else
		snprintf(p->name, sizeof p->name, "%s", name);
}

static bool is_norm_bias(mzm_tensor_kind kind)
{
	return kind == MZM_T_ATTN_NORM_BIAS || kind == MZM_T_FFN_NORM_BIAS || kind == MZM_T_OUT_NORM_BIAS;
}

/* q, k and v, and their biases, out of the tensor that holds all three. */
static void from_fused_qkv(mzm_gguf_part_name *p, const mzm_tensor *t, const mzm_config *cfg)
{
	bool bias = t->kind == MZM_T_BQ || t->kind == MZM_T_BK || t->kind == MZM_T_BV;
	int32_t q = cfg->n_heads * cfg->head_dim, kv = cfg->n_kv_heads * cfg->head_dim;
	if (!bias && t->kind != MZM_T_WQ && t->kind != MZM_T_WK && t->kind != MZM_T_WV)
		return;
	set_name(p, t->layer, bias ? "attn_qkv.bias" : "attn_qkv.weight");
	p->first = t->kind == MZM_T_WK || t->kind == MZM_T_BK   ? q
		   : t->kind == MZM_T_WV || t->kind == MZM_T_BV ? q + kv
								: 0;
	if (bias)
		p->n_cols = q + 2 * kv;
	else
		p->n_rows = q + 2 * kv;
}

static void from_fused_ffn(mzm_gguf_part_name *p, const mzm_tensor *t, const mzm_config *cfg)
{
	if (t->kind != MZM_T_GATE && t->kind != MZM_T_UPDOWN)
		return;
	set_name(p, t->layer, names[MZM_T_UPDOWN]);
	p->n_rows = 2 * cfg->n_ffn;
	p->first = t->kind == MZM_T_GATE ? 0 : cfg->n_ffn;
}

static void set_down(mzm_gguf_part_name *p, const mzm_tensor *t, const mzm_config *cfg)
{
	*p = (mzm_gguf_part_name){.n_rows = cfg->dim, .n_cols = cfg->n_ffn, .transposed = true};
	set_name(p, t->layer, names[MZM_T_DOWN]);
}

int mzm_gguf_parts(mzm_gguf_part_name parts[2], const mzm_tensor *t, const mzm_config *cfg, const mzm_gguf_layout *l)
{
	mzm_tensor_kind kind = t->kind;
	mzm_gguf_part_name *p = &parts[0];
	if (is_norm_bias(kind) && !l->norm_bias)
		return 0;
	if (kind == MZM_T_DOWN) {
		set_down(p, t, cfg);
		return 1;
	}
	*p = (mzm_gguf_part_name){.n_rows = mzm_tensor_is_vector(kind) ? 0 : t->n_rows, .n_cols = t->n_cols};
	if (cfg->ungated && (kind == MZM_T_GATE || kind == MZM_T_B_GATE)) /* the one matrix in front is called up */
		set_name(p, t->layer, names[kind == MZM_T_GATE ? MZM_T_UPDOWN : MZM_T_B_UP]);
	else
		set_name(p, t->layer, names[kind]);
	p->interleaved =
		l->interleaved && (kind == MZM_T_WQ || kind == MZM_T_WK || kind == MZM_T_BQ || kind == MZM_T_BK);
	if (kind == MZM_T_UPDOWN) {
		p->n_rows = cfg->n_ffn;
		set_down(&parts[1], t, cfg);
	}
	if (l->fused_qkv)
		from_fused_qkv(p, t, cfg);
	if (l->fused_ffn)
		from_fused_ffn(p, t, cfg);
	return kind == MZM_T_UPDOWN ? 2 : 1;
}

bool mzm_gguf_is_config(const char *name)
{
	return strcmp(name, "rope_freqs.weight") == 0 || strcmp(name, "rope_factors_long.weight") == 0 ||
	       strcmp(name, "rope_factors_short.weight") == 0;
}
