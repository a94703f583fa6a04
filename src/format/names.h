/* names.h - which tensors of a Hugging Face checkpoint make up a canonical tensor. */
#ifndef MZM_NAMES_H
#define MZM_NAMES_H

#include "format/config.h"

/* A tensor of a file that a canonical tensor, or the half of one, is made of. Fused tensors hold several: row r of the
 * canonical one is row first + r / group * step + r % group of the file's (of a vector: elements in place of
 * rows). Where the file's is the transposed one, r counts its columns, and there are no groups. */
typedef struct mzm_hf_part {
	char    name[96];
	int32_t n_dims;
	int32_t shape[4]; /* [n_dims] of the whole tensor in the file */
	int32_t first, group, step;
	bool    transposed; /* rows of the canonical tensor are columns of the file's: down */
	bool    plus_one;   /* the file's norm counts from 1 (Gemma) */
} mzm_hf_part;

/* The parts of t with the shapes that cfg demands; returns their number. Two for MZM_T_UPDOWN: up, then down; for
 * MZM_T_DECAY the tables of queries and keys, and for MZM_T_FREQ of MZM_ATTN_DIJIANG the matrix that has the scales in
 * it (dijiang.h): those are whole. One for all else; 0 for a bias that the family's checkpoints do not have (it is
 * zero). cfg->arch says which family. */
int mzm_names_parts(mzm_hf_part parts[2], const mzm_tensor *t, const mzm_config *cfg);

/* What the names of all but the head begin with in a whole checkpoint ("model."). Those saved without the head leave it
 * out. */
const char *mzm_names_base(const mzm_config *cfg);

/* Tensors that checkpoints carry although nothing needs them: RoPE's inverse frequencies, which are computed
 * from the configuration, the masks of GPT-NeoX, and a head beside a tied embedding, which Hugging Face ignores too. */
bool mzm_names_is_ignorable(const char *name, const mzm_config *cfg);

#endif
