/* config.h - the canonical model: one description that every source is translated into, so that the
 * forward pass has features, not architectures. Also the list of canonical tensors. */
#ifndef MZM_CONFIG_H
#define MZM_CONFIG_H

#include "base/json.h"
#include "kern/kern.h"

typedef enum mzm_rope_kind { MZM_ROPE_PLAIN, MZM_ROPE_LLAMA3 } mzm_rope_kind;

typedef struct mzm_config {
	char    arch[32];          /* of the source: "llama" */
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
} mzm_config;

/* Limits that no model reaches: they keep products inside 64 bits and refuse nonsense early. */
#define MZM_MAX_LAYERS 4096
#define MZM_MAX_DIM    (1 << 20)
#define MZM_MAX_VOCAB  (1 << 24)
#define MZM_MAX_CTX    (1 << 28)

/* From a Hugging Face config.json, and generation_config.json when there is one (may be NULL): its eos
 * ids replace those of config.json. Unknown architectures, activations, rope scalings, biases and
 * quantised checkpoints are refused by name, never run wrongly. */
mzm_status mzm_config_from_hf(mzm_config *out, const json_t *config, const json_t *generation, mzm_err *err);

/* Our own form, in the container's metadata; and back. from_json checks as strictly as from_hf. */
json_t    *mzm_config_to_json(const mzm_config *cfg); /* new reference; NULL = out of memory */
mzm_status mzm_config_from_json(mzm_config *out, const json_t *obj, mzm_err *err);
mzm_status mzm_config_check(const mzm_config *cfg, mzm_err *err); /* ranges and divisibility */

typedef enum mzm_tensor_kind {
	MZM_T_EMBED,     /* [n_vocab, dim] */
	MZM_T_ATTN_NORM, /* [1, dim], always f32, as all norms */
	MZM_T_WQ,        /* [n_heads * head_dim, dim] */
	MZM_T_WK,        /* [n_kv_heads * head_dim, dim] */
	MZM_T_WV,        /* [n_kv_heads * head_dim, dim] */
	MZM_T_WO,        /* [dim, n_heads * head_dim] */
	MZM_T_FFN_NORM,  /* [1, dim] */
	MZM_T_GATE,      /* [n_ffn, dim]: row j is neuron j */
	MZM_T_UPDOWN,    /* [2 * n_ffn, dim]: row 2j is up of neuron j, row 2j+1 its column of down */
	MZM_T_OUT_NORM,  /* [1, dim] */
	MZM_T_HEAD,      /* [n_vocab, dim]; absent when tied */
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
} mzm_tensor;

int32_t mzm_tensor_count(const mzm_config *cfg);
/* The i-th canonical tensor in file order (embed; layer 0: attn_norm wq wk wv wo ffn_norm gate updown;
 * ...; out_norm; head). dtype is left at MZM_F32: the source knows it. */
mzm_tensor mzm_tensor_at(const mzm_config *cfg, int32_t i);
int32_t    mzm_tensor_index(const mzm_config *cfg, mzm_tensor_kind kind, int32_t layer);
size_t     mzm_tensor_bytes(const mzm_tensor *t);
/* The tensors of a draft image in file order (layer 0: wq wk wv wo gate updown; ...; head, which a tied model has
 * here too). Embedding and norms are the model's. */
int32_t    mzm_draft_count(const mzm_config *cfg);
mzm_tensor mzm_draft_at(const mzm_config *cfg, int32_t i);
/* "layers.3.gate", "embed", "draft.layers.3.gate": the name in containers and messages. buf of 64. */
const char *mzm_tensor_name(const mzm_tensor *t, char buf[64]);

uint64_t mzm_config_n_params(const mzm_config *cfg);     /* a tied embedding counts once */
uint64_t mzm_config_n_ffn_params(const mzm_config *cfg);

#endif
