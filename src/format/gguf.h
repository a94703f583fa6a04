/* gguf.h - the header of a GGUF file (versions 2 and 3, little-endian): metadata and where tensors lie; of a model in
 * parts (NAME-00001-of-00003.gguf), of all its files.
 *
 * Nothing in the file is believed: every count is checked against the bytes that are left before memory is taken for
 * it, every offset against the file. Keys and tensor names are unique. What is found is copied; the file may change
 * later, which reading tensors then notices or not, but never reads outside it. Immutable after opening. */
#ifndef MZM_GGUF_H
#define MZM_GGUF_H

#include "base/mem.h"

/* Numbers of the format. */
typedef enum mzm_gguf_type {
	MZM_GGUF_U8, MZM_GGUF_I8, MZM_GGUF_U16, MZM_GGUF_I16, MZM_GGUF_U32, MZM_GGUF_I32, MZM_GGUF_F32, MZM_GGUF_BOOL,
	MZM_GGUF_STRING, MZM_GGUF_ARRAY, MZM_GGUF_U64, MZM_GGUF_I64, MZM_GGUF_F64, MZM_GGUF_N_TYPES
} mzm_gguf_type;

typedef struct mzm_gguf_text {
	const char *s; /* [n], any bytes, a NUL behind them */
	size_t      n;
} mzm_gguf_text;

typedef struct mzm_gguf_array {
	mzm_gguf_type type; /* of the elements; never ARRAY */
	uint64_t      n;
	const void   *data; /* [n] aligned numbers of that type (BOOL: one byte each); STRING: mzm_gguf_text */
} mzm_gguf_array;

typedef struct mzm_gguf_tensor {
	const char *name;
	uint32_t    type;    /* ggml's number of it */
	int32_t     n_dims;  /* 1..4 */
	uint64_t    dims[4]; /* the first is the length of a row; 1 behind n_dims */
	uint64_t    offset;  /* in its file */
	uint64_t    bytes;   /* 0: of a type that this build does not know */
	int32_t     file;    /* which one of a model in parts, from 0 */
} mzm_gguf_tensor;

typedef struct mzm_gguf mzm_gguf;

/* True when the file begins as a GGUF file does. */
bool       mzm_gguf_is(const char *path);
/* The path of a model in parts is that of the first; the others lie beside it. EFORMAT with the place, and, of parts
 * that are missing, repeated, in the wrong place or of another model, with the file; EUNSUPPORTED: version 1,
 * big-endian. -> mzm_gguf_close */
mzm_status mzm_gguf_open(mzm_gguf **out, const char *path, mzm_err *err);
void       mzm_gguf_close(mzm_gguf *g);

/* Metadata. False, and *out untouched, when the key is absent or of another kind. */
bool mzm_gguf_u64(const mzm_gguf *g, const char *key, uint64_t *out);  /* any integer that is not negative */
bool mzm_gguf_f64(const mzm_gguf *g, const char *key, double *out);    /* any finite number */
bool mzm_gguf_flag(const mzm_gguf *g, const char *key, bool *out);
bool mzm_gguf_string(const mzm_gguf *g, const char *key, mzm_gguf_text *out);
bool mzm_gguf_get_array(const mzm_gguf *g, const char *key, mzm_gguf_array *out);
bool mzm_gguf_has(const mzm_gguf *g, const char *key); /* of whatever kind */
int32_t     mzm_gguf_n_keys(const mzm_gguf *g);
const char *mzm_gguf_key_at(const mzm_gguf *g, int32_t i); /* ascending */

int32_t                mzm_gguf_n_tensors(const mzm_gguf *g);
const mzm_gguf_tensor *mzm_gguf_tensor_at(const mzm_gguf *g, int32_t i);
const mzm_gguf_tensor *mzm_gguf_find(const mzm_gguf *g, const char *name); /* NULL: there is none */

int32_t     mzm_gguf_n_files(const mzm_gguf *g);
const char *mzm_gguf_file_path(const mzm_gguf *g, int32_t i);
uint64_t    mzm_gguf_file_bytes(const mzm_gguf *g, int32_t i);
uint64_t    mzm_gguf_bytes_read(const mzm_gguf *g); /* so far, all threads and files */
void        mzm_gguf_avoid_cache(mzm_gguf *g);      /* as mzm_file_avoid_cache */
/* n bytes of the tensor from byte `from` of it. Thread-safe. */
mzm_status mzm_gguf_read(const mzm_gguf *g, const mzm_gguf_tensor *t, uint64_t from, size_t n, void *dst, mzm_err *err);

/* The tokenizer of the metadata (tokenizer.ggml.*) as the texts of tokenizer.json and tokenizer_config.json, each
 * -> mzm_free; *json NULL when there is none. EUNSUPPORTED names the model or pre-tokenizer that is not known.
 * (gguf_tokenizer.c) */
mzm_status mzm_gguf_tokenizer_json(char **json, char **config, const mzm_gguf *g, mzm_err *err);

#endif
