/* source.h - where a model comes from: a .mzm container or a Hugging Face directory, behind one
 * interface that hands out canonical tensors (config.h). Nothing above knows which it was. */
#ifndef MZM_SOURCE_H
#define MZM_SOURCE_H

#include "format/config.h"

typedef struct mzm_source mzm_source;

/* The path's kind is decided by what it is: a directory, or a file with the container's magic. */
mzm_status mzm_source_open(mzm_source **out, const char *path, mzm_err *err);
void       mzm_source_close(mzm_source *src);

const mzm_config *mzm_source_config(const mzm_source *src);
mzm_tensor        mzm_source_tensor(const mzm_source *src, int32_t i); /* with its dtype */

/* The i-th canonical tensor, whole, rows packed without padding: dst holds mzm_tensor_bytes(). Checksums
 * are checked; NaN or infinity in it is an error unless allowed at import. Thread-safe. */
mzm_status mzm_source_read(mzm_source *src, int32_t i, void *dst, mzm_err *err);

/* Text of the three tokenizer files; NULL when the source has none. Borrowed from src. */
typedef enum mzm_side_file { MZM_TOKENIZER_JSON, MZM_TOKENIZER_CONFIG, MZM_GENERATION_CONFIG, MZM_N_SIDE_FILES } mzm_side_file;
const char *mzm_source_side_file(const mzm_source *src, mzm_side_file which, size_t *len);

/* 32 hex digits: XXH3-128 over the canonical config and the raw bytes of every tensor in order. From
 * a container it is stored; from a directory NULL until every tensor was read in order. */
const char *mzm_source_hash(const mzm_source *src);
uint64_t    mzm_source_bytes_read(const mzm_source *src);

/* What inspect prints, as a JSON object (new reference): file, format, config, provenance, tensors with dtype,
 * shape, raw and stored bytes, codec. */
mzm_status mzm_source_describe(mzm_source *src, json_t **out, mzm_err *err);

#endif
