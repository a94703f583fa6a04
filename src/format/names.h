/* names.h - which tensors of a Hugging Face checkpoint make up a canonical tensor. */
#ifndef MZM_NAMES_H
#define MZM_NAMES_H

#include "format/config.h"

typedef struct mzm_hf_part {
	char    name[96];
	int32_t n_dims;
	int32_t shape[2]; /* [n_dims] */
} mzm_hf_part;

/* The parts of t with the shapes that cfg demands; returns their number. Two for MZM_T_UPDOWN: up_proj
 * [n_ffn, dim], then down_proj [dim, n_ffn]; one for all else. */
int mzm_names_parts(mzm_hf_part parts[2], const mzm_tensor *t, const mzm_config *cfg);

/* Tensors that checkpoints carry although nothing needs them: RoPE's inverse frequencies, which are computed
 * from the configuration, and a head beside a tied embedding, which Hugging Face ignores as well. */
bool mzm_names_is_ignorable(const char *name, const mzm_config *cfg);

#endif
