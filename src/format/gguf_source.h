/* gguf_source.h - the parts of GGUF files as a source of canonical tensors. */
#ifndef MZM_GGUF_SOURCE_H
#define MZM_GGUF_SOURCE_H

#include "format/gguf.h"
#include "format/source.h"

/* gguf_config.c: the configuration that the metadata, the shape of the embedding, the tensors of RoPE's factors and the
 * names of the first layer's tensors describe. EUNSUPPORTED names what the model has and this build does not: an
 * architecture, a scaling, experts. */
mzm_status mzm_gguf_config(mzm_config *out, const mzm_gguf *g, mzm_err *err);

#define MZM_GGUF_EMBED "token_embd.weight"
#define MZM_GGUF_HEAD  "output.weight"

/* gguf_rows.c: rows of one type on their way to another. Zeroed; of one thread. */
typedef struct mzm_gguf_rows {
	uint32_t  from;
	mzm_dtype to;
	int32_t   n_cols;
	float    *wide, *back; /* [n_cols] scratch: the row, and what became of it */
	double    error, norm; /* sums of squares so far: of what was changed, of all weights */
} mzm_gguf_rows;

/* -> mzm_gguf_rows_free, which may follow a failure too */
mzm_status mzm_gguf_rows_init(mzm_gguf_rows *r, uint32_t from, mzm_dtype to, int32_t n_cols, mzm_err *err);
void       mzm_gguf_rows_free(mzm_gguf_rows *r);
size_t     mzm_gguf_row_bytes(uint32_t type, int32_t n_cols);
/* The row exactly where `to` can hold it: numbers as they are or widened, Q8_0 and Q4_0 as blocks of the same scale.
 * Else quantised anew. False: a weight is NaN or too large for `to`. */
bool       mzm_gguf_row(mzm_gguf_rows *r, void *dst, const void *src);
/* From f32, to a quantised type. */
bool       mzm_gguf_quant(mzm_gguf_rows *r, void *dst, const float *x);
/* True when rows of blocks become `to` without rounding. */
bool       mzm_gguf_is_exact(uint32_t from, mzm_dtype to);

/* A tensor of the file, or some of its rows (gguf_names.h), as the part of a canonical one. */
typedef struct mzm_gguf_part {
	const mzm_gguf_tensor *t;
	int32_t                first;
	bool                   interleaved, transposed;
} mzm_gguf_part;

/* gguf_read.c: t, whole, in its type, from its parts [n_parts]; none: zeros. cfg: for the size of heads. *error: root
 * of the mean square of what rounding changed, relative to the weights. Thread-safe. */
mzm_status mzm_gguf_read_tensor(const mzm_gguf *g, const mzm_config *cfg, const mzm_tensor *t,
				const mzm_gguf_part *parts, int n_parts, void *dst, double *error, mzm_err *err);

mzm_status mzm_gguf_source_open(mzm_source **out, const char *path, mzm_err *err); /* gguf_source.c */

#endif
