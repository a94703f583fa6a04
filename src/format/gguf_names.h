/* gguf_names.h - which tensors of a GGUF file make up a canonical tensor. */
#ifndef MZM_GGUF_NAMES_H
#define MZM_GGUF_NAMES_H

#include "format/config.h"
#include "format/gguf.h"

/* How the file lays out what files lay out in more than one way. */
typedef struct mzm_gguf_layout {
	bool interleaved; /* rows of q and k */
	bool fused_qkv;   /* attn_qkv: q, k, v one behind the other */
	bool fused_ffn;   /* ffn_up: gate, then up */
	bool norm_bias;   /* of layer norms; false: they are zero */
} mzm_gguf_layout;

/* A tensor of the file that a canonical tensor, or the half of one, is made of. */
typedef struct mzm_gguf_part_name {
	char    name[64];
	int32_t n_rows, n_cols; /* of the whole tensor; n_rows 0: a vector of n_cols */
	int32_t first;          /* its row (of a vector: element) that is the first one here */
	bool    interleaved;    /* rows (elements) 2 i and 2 i + 1 of a head are rows i and i + head_dim / 2 here */
	bool    transposed;     /* its columns are rows here */
} mzm_gguf_part_name;

void mzm_gguf_layout_of(mzm_gguf_layout *l, const mzm_gguf *g, const mzm_config *cfg);
/* The parts of t; returns their number: two for MZM_T_UPDOWN (up, then down), none for a bias that is zero, one for all
 * else. */
int  mzm_gguf_parts(mzm_gguf_part_name parts[2], const mzm_tensor *t, const mzm_config *cfg, const mzm_gguf_layout *l);
/* Tensors that mzm_gguf_config reads. */
bool mzm_gguf_is_config(const char *name);

#endif
