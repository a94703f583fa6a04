/* config.h - the canonical model: one description that every source is translated into, so that the
 * forward pass has features, not architectures. Also the list of canonical tensors. */
#ifndef MZM_CONFIG_H
#define MZM_CONFIG_H

#include "base/json.h"
#include "kern/kern.h"

/* Numbers in files and hashes: never change one. Zero is what Llama does, in all of them. */
typedef enum mzm_rope_kind {
	MZM_ROPE_PLAIN,
	MZM_ROPE_LLAMA3, /* slow pairs stretched, fast ones kept */
	MZM_ROPE_LINEAR, /* all positions divided by rope_factor */
	MZM_ROPE_LONG,   /* "longrope": a divisor a pair; two sets, for contexts up to rope_orig_ctx and longer */
	MZM_ROPE_NONE,   /* nothing rotates */
} mzm_rope_kind;
typedef enum mzm_norm_kind {
	MZM_NORM_RMS,
	MZM_NORM_LAYER, /* centred, with a bias */
} mzm_norm_kind;
/* What attends. DiJiang (arXiv 2403.19928) is linear attention over positive features of queries and keys: exp of
 * scaled frequencies as the paper has it, or softmax of those of the inverse transform, with decay, group norm and
 * gate, as its released code has it. */
typedef enum mzm_attn_kind { MZM_ATTN_SOFTMAX, MZM_ATTN_DIJIANG_PAPER, MZM_ATTN_DIJIANG } mzm_attn_kind;
/* What the FFN of a layer reads: the residual stream behind the attention; or the one before it (attention and FFN
 * side by side), through a norm of its own, or through that of the attention. */
typedef enum mzm_parallel { MZM_SERIAL, MZM_PARALLEL, MZM_PARALLEL_SHARED } mzm_parallel;

/* Limits that no model reaches: they keep products inside 64 bits and refuse nonsense early. */
#define MZM_MAX_LAYERS 4096
#define MZM_MAX_DIM    (1 << 20)
#define MZM_MAX_VOCAB  (1 << 24)
#define MZM_MAX_CTX    (1 << 28)
#define MZM_MAX_PAIRS  256 /* rotated pairs of a head, where each has a divisor of its own */

typedef struct mzm_config {
	char    arch[32];          /* a label, the same from every file form: mzm_arch_names in config.c */
	int32_t n_layers, dim, n_ffn, n_heads, n_kv_heads, head_dim, n_vocab, n_ctx;
	mzm_act act;
	bool    tied;              /* the output head is the embedding */
	float   norm_eps;
	double  rope_theta;
	mzm_rope_kind rope;
	double  rope_factor, rope_low_freq, rope_high_freq; /* MZM_ROPE_LLAMA3 */
	int32_t rope_orig_ctx;
	int32_t bos_id;            /* -1: none */
	int32_t n_eos, eos_ids[MZM_MAX_EOS];

	/* What not all models have; all zero: Llama. */
	mzm_norm_kind norm;
	mzm_parallel  parallel;
	bool    ungated;           /* z = act(W x): W is the tensor "gate", and "down" stands in place of "updown" */
	bool    bias_qkv, bias_o;  /* added to q, k, v; to the attention's output */
	bool    bias_ffn;          /* added to gate, up and down */
	bool    qk_norm;           /* each head of q and k is RMS-normalised before it is rotated */
	bool    post_norm;         /* the outputs of attention and FFN are normalised before they join the residual */
	bool    learned_pos;       /* a vector for each position joins the embedding */
	float   act_threshold;     /* of MZM_ACT_FATRELU: x where x > threshold, else 0 */
	double  embed_scale;       /* the embedding is multiplied by it; 0: by nothing */
	double  attn_scale;        /* of q k; 0: 1 / sqrt(head_dim) */
	double  attn_softcap;      /* scores become cap * tanh(score / cap); 0: they stay */
	double  logit_softcap;     /* the same for logits */
	int32_t rope_dim;          /* leading dimensions of a head that are rotated; 0: all */
	double  rope_attn_factor;  /* MZM_ROPE_LONG: cosines and sines are multiplied by it; > 0 */
	float   rope_short[MZM_MAX_PAIRS], rope_long[MZM_MAX_PAIRS]; /* [rope_dim / 2] MZM_ROPE_LONG: divisors */
	int32_t window;            /* local layers see so many tokens, the current one among them; 0: there are none */
	double  rope_local_theta;  /* base of local layers, which then rotate plainly; 0: as all the others */
	bool    attn_by_input;     /* wq, wk, wv, wo lie transposed, a row an input: what those add that a sparse pass
				    * leaves out need not be read. The model is the same */
	mzm_attn_kind attn;
	int32_t decay_len;         /* MZM_ATTN_DIJIANG: positions that have a decay of their own; those behind have that
				    * of the last */
	bool    no_denominator;    /* MZM_ATTN_DIJIANG_PAPER: sums of values, not their means */
	uint8_t local[MZM_MAX_LAYERS / 8]; /* bit l % 8 of byte l / 8: layer l is local; all 0 without a window */
} mzm_config;

static inline bool mzm_config_is_local(const mzm_config *cfg, int32_t layer)
{
	return cfg->local[layer / 8] >> (layer % 8) & 1;
}
static inline int32_t mzm_config_rope_dim(const mzm_config *cfg) /* 0: nothing rotates */
{
	return cfg->rope == MZM_ROPE_NONE ? 0 : cfg->rope_dim ? cfg->rope_dim : cfg->head_dim;
}
static inline bool mzm_config_is_linear(const mzm_config *cfg)
{
	return cfg->attn != MZM_ATTN_SOFTMAX;
}
/* Matrices of an FFN: gate, up, down; two without a gate. */
static inline int32_t mzm_config_n_ffn_matrices(const mzm_config *cfg)
{
	return cfg->ungated ? 2 : 3;
}

/* Names of families, NULL-terminated: what arch may be. The forward pass does not look at it: messages, the hash and
 * the names of tensors in directories (names.c) do. */
extern const char *const mzm_arch_names[];

/* From a Hugging Face config.json, and generation_config.json when there is one (may be NULL): its eos
 * ids replace those of config.json. Unknown architectures, activations, rope scalings, biases and
 * quantised checkpoints are refused by name, never run wrongly. */
mzm_status mzm_config_from_hf(mzm_config *out, const json_t *config, const json_t *generation, mzm_err *err);

bool       mzm_config_is_plain(const mzm_config *cfg); /* nothing in it that Llama lacks, but for RoPE's scaling */
const char *mzm_act_name(mzm_act act); /* "silu", "gelu_tanh" */
/* Our own form, in the container's metadata; and back. from_json checks as strictly as from_hf. */
json_t    *mzm_config_to_json(const mzm_config *cfg); /* new reference; NULL = out of memory */
mzm_status mzm_config_from_json(mzm_config *out, const json_t *obj, mzm_err *err);
mzm_status mzm_config_check(const mzm_config *cfg, mzm_err *err); /* ranges and divisibility */

/* Numbers in files: never change one. Norms and biases are "vectors": one row, always f32. */
typedef enum mzm_tensor_kind {
	MZM_T_EMBED,     /* [n_vocab, dim] */
	MZM_T_ATTN_NORM, /* [1, dim] */
	MZM_T_WQ,        /* [n_heads * head_dim, dim]; this, the next three and wg the other way round: attn_by_input */
	MZM_T_WK,        /* [n_kv_heads * head_dim, dim] */
	MZM_T_WV,        /* [n_kv_heads * head_dim, dim] */
	MZM_T_WO,        /* [dim, n_heads * head_dim] */
	MZM_T_FFN_NORM,  /* [1, dim] */
	MZM_T_GATE,      /* [n_ffn, dim]: row j is neuron j */
	MZM_T_UPDOWN,    /* [2 * n_ffn, dim]: row 2j is up of neuron j, row 2j+1 its column of down */
	MZM_T_OUT_NORM,  /* [1, dim] */
	MZM_T_HEAD,      /* [n_vocab, dim]; absent when tied */
	MZM_T_ATTN_NORM_BIAS, /* [1, dim] MZM_NORM_LAYER, as the next two */
	MZM_T_FFN_NORM_BIAS,
	MZM_T_OUT_NORM_BIAS,
	MZM_T_BQ,        /* [1, n_heads * head_dim] */
	MZM_T_BK,        /* [1, n_kv_heads * head_dim] */
	MZM_T_BV,        /* [1, n_kv_heads * head_dim] */
	MZM_T_BO,        /* [1, dim] */
	MZM_T_Q_NORM,    /* [1, head_dim], the same for all heads */
	MZM_T_K_NORM,    /* [1, head_dim] */
	MZM_T_ATTN_POST_NORM, /* [1, dim] */
	MZM_T_FFN_POST_NORM,  /* [1, dim] */
	MZM_T_B_GATE,    /* [1, n_ffn] */
	MZM_T_B_UP,      /* [1, n_ffn]; absent when ungated */
	MZM_T_B_DOWN,    /* [1, dim] */
	MZM_T_DOWN,      /* [n_ffn, dim]: row j is neuron j's column of down; ungated models, in place of UPDOWN */
	MZM_T_POS,       /* [n_ctx, dim] learned positions */
	MZM_T_WG,        /* [n_heads * head_dim, dim] gate of the attention: MZM_ATTN_DIJIANG, as the next three */
	MZM_T_DECAY,     /* [1, n_kv_heads * decay_len * 2] by head and position: 1 - what the past is multiplied
			  * with, and the weight of the position itself */
	MZM_T_GROUP_NORM, /* [1, n_heads * head_dim] */
	MZM_T_GROUP_NORM_BIAS,
	MZM_T_FREQ,      /* [1, head_dim] scales of frequencies: both kinds of DiJiang */
	MZM_T_FEATURE,   /* [1, head_dim] weights of features: MZM_ATTN_DIJIANG_PAPER */
	MZM_N_TENSOR_KINDS
} mzm_tensor_kind;

/* A container may hold a second, smaller image of the matrices for drafts beside the model's own. */
typedef enum mzm_role { MZM_ROLE_MODEL, MZM_ROLE_DRAFT } mzm_role;

typedef struct mzm_tensor {
	mzm_role        role;
	mzm_tensor_kind kind;
	int32_t         layer;      /* -1 outside layers */
	mzm_dtype       dtype;
	int32_t         n_rows, n_cols;
	bool            by_input;   /* of the attention: a row an input */
} mzm_tensor;

int32_t mzm_tensor_count(const mzm_config *cfg);
/* The i-th canonical tensor in file order (embed; layer 0: attn_norm wq wk wv wo ffn_norm gate updown;
 * ...; out_norm; head; what not all models have stands beside what it belongs to: layer_kinds in config.c). dtype is
 * left at MZM_F32: the source knows it. */
mzm_tensor mzm_tensor_at(const mzm_config *cfg, int32_t i);
int32_t    mzm_tensor_index(const mzm_config *cfg, mzm_tensor_kind kind, int32_t layer);
size_t     mzm_tensor_bytes(const mzm_tensor *t);
bool       mzm_tensor_is_vector(mzm_tensor_kind kind); /* a norm or a bias */
bool       mzm_tensor_is_attention(mzm_tensor_kind kind); /* wq, wk, wv, wo, wg */
bool       mzm_tensor_is_ffn(mzm_tensor_kind kind);    /* a matrix of rows of neurons: gate, updown, down */
/* The tensors of a draft image in file order (layer 0: wq wk wv wo gate updown; ...; head, which a tied model has
 * here too). Embedding and norms are the model's. */
int32_t    mzm_draft_count(const mzm_config *cfg);
mzm_tensor mzm_draft_at(const mzm_config *cfg, int32_t i);
/* "layers.3.gate", "embed", "draft.layers.3.gate": the name in containers and messages. buf of 64. */
const char *mzm_tensor_name(const mzm_tensor *t, char buf[64]);

uint64_t mzm_config_n_params(const mzm_config *cfg);     /* a tied embedding counts once */
uint64_t mzm_config_n_ffn_params(const mzm_config *cfg);

#endif
