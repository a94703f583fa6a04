/* dijiang.h - DiJiang attention (arXiv 2403.19928): scores are products of positive features of queries and keys, so
 * what a token adds to all later ones is a sum, whose size does not grow. For the files of the forward pass only. */
#ifndef MZM_DIJIANG_H
#define MZM_DIJIANG_H

#include "kern/dct.h"

/* Scratch, part of the state. */
typedef struct mzm_dijiang {
	bool    by_halves; /* dct.h */
	mzm_dct dct;     /* of a head: by halves */
	float  *matrix;  /* [head_dim, head_dim] else */
	float  *gate;    /* [max_pos, n_heads * head_dim]; NULL: there is none */
	float  *q_power; /* [max_pos, n_heads] of the paper's form: features are to be taken times 2^ this */
	float  *k_power; /* [max_pos, n_kv_heads] */
	float  *outer;   /* [n_ranks, head_dim, MZM_KV_STEP] weighted features of a step's keys */
	double *lanes;   /* [n_ranks, mzm_dct_scratch()] of the transform by halves */
} mzm_dijiang;

#endif
