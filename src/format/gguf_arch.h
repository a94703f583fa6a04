/* gguf_arch.h - the architectures of GGUF files that this build knows, and their keys; shared by gguf_config.c,
 * gguf_rope.c and gguf_names.c. */
#ifndef MZM_GGUF_ARCH_H
#define MZM_GGUF_ARCH_H

#include "format/config.h"
#include "format/gguf.h"

/* Which layers are local where the file says how far they see, but not which. */
typedef enum mzm_gguf_window { MZM_GGUF_NO_WINDOW, MZM_GGUF_ALL_LOCAL, MZM_GGUF_ALL_BUT_NTH } mzm_gguf_window;

/* What the programs that write and run these files take for granted. */
typedef struct mzm_gguf_arch {
	const char     *name;       /* general.architecture, the prefix of keys, and mzm_config.arch */
	mzm_norm_kind   norm;
	mzm_act         act;
	mzm_gguf_window window;
	int32_t         period;      /* MZM_GGUF_ALL_BUT_NTH: each period-th layer is global */
	int32_t         window_size; /* where the file does not say */
	double          local_theta; /* of MZM_GGUF_ALL_BUT_NTH, where the file does not say; 0: as all the others */
	double          attn_softcap, logit_softcap; /* where the file does not say */
	int32_t         odd_layers;  /* n_layers of the one model that scales q k by 1 / sqrt(dim / n_heads) */
	bool            has_softcap; /* the file may say */
	bool            is_gemma;    /* embeddings are scaled; q k may be scaled by a number of the file */
	bool            interleaved; /* rows 2 i and 2 i + 1 of a head of q and k are a pair of RoPE */
	bool            ungated, qk_norm, post_norm;
	bool            bias_qkv, bias_o, bias_ffn;          /* always */
	bool            may_bias_qkv, may_bias_o, may_bias_ffn; /* where the first layer has one */
	bool            may_fuse_ffn; /* ffn_up may hold gate and up, one behind the other */
	bool            partial_rope; /* fewer dimensions than a head has may be rotated */
} mzm_gguf_arch;

const mzm_gguf_arch *mzm_gguf_arch_find(const mzm_gguf *g); /* NULL: unknown */

/* Keys of an architecture. */
typedef struct mzm_gguf_keys {
	const mzm_gguf      *g;
	const mzm_gguf_arch *arch;
} mzm_gguf_keys;

/* "llama.block_count"; buf of 128. */
const char *mzm_gguf_key(const mzm_gguf_keys *k, const char *name, char buf[128]);
bool        mzm_gguf_has_key(const mzm_gguf_keys *k, const char *name);
/* A whole number below 2^31. fallback NULL: it must be there. */
mzm_status  mzm_gguf_key_int(const mzm_gguf_keys *k, const char *name, const int32_t *fallback, int32_t *out,
			     mzm_err *err);
/* A finite number. fallback NAN: it must be there. */
mzm_status  mzm_gguf_key_real(const mzm_gguf_keys *k, const char *name, double fallback, double *out, mzm_err *err);
/* For a message: what cannot be printed becomes '?'. */
const char *mzm_gguf_shown(char buf[65], const mzm_gguf_text *t);

/* gguf_rope.c: all of RoPE, once shape and window are known. */
mzm_status mzm_gguf_rope(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err);

#endif
