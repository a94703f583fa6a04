/* source.h - where a model comes from: a .mzm container, a Hugging Face directory or a GGUF file, behind one
 * interface that hands out canonical tensors (config.h). Nothing above knows which it was. */
#ifndef MZM_SOURCE_H
#define MZM_SOURCE_H

#include <pthread.h>
#include <stdatomic.h>

#include "format/config.h"
#include "format/tokenizer.h"

typedef struct mzm_source mzm_source;

/* The path's kind is decided by what it is: a directory, or a file with the container's magic or GGUF's. */
mzm_status mzm_source_open(mzm_source **out, const char *path, mzm_err *err);
void       mzm_source_close(mzm_source *src);

const mzm_config *mzm_source_config(const mzm_source *src);
/* The i-th tensor with its dtype: canonical ones first, then those of the draft image, if there is one. */
mzm_tensor        mzm_source_tensor(const mzm_source *src, int32_t i);
int32_t           mzm_source_n_tensors(const mzm_source *src);
bool              mzm_source_has_draft(const mzm_source *src);
const char       *mzm_source_format(const mzm_source *src);            /* "huggingface", "gguf", "mzm" */

/* The i-th tensor, whole, rows one behind the other: dst holds mzm_tensor_bytes(). Checksums are checked; NaN or
 * infinity in it (of quantised rows: in a scale) is an error unless allowed at import. Thread-safe. */
mzm_status mzm_source_read(mzm_source *src, int32_t i, void *dst, mzm_err *err);

/* Which type the i-th tensor is best read in when it is to become `wanted`: its own, or, where that was rounded or has
 * blocks already (GGUF's), one that holds what the file says: `wanted` itself, or f32. */
mzm_dtype  mzm_source_type_for(const mzm_source *src, int32_t i, mzm_dtype wanted);
/* As read, in such a type. What comes in another type than the tensor's own does not count for the hash. */
mzm_status mzm_source_read_as(mzm_source *src, int32_t i, mzm_dtype dtype, void *dst, mzm_err *err);

/* What read checks of the weights themselves, of t->n_rows rows of a tensor. */
mzm_status mzm_source_check_rows(const mzm_source *src, const mzm_tensor *t, const void *rows, mzm_err *err);

/* From now on what is read does not stay in the system's cache, as far as that can be had. */
void mzm_source_avoid_cache(mzm_source *src);

/* Overrides what a container remembers of its import, and the refusal of a directory. */
void mzm_source_allow_nonfinite(mzm_source *src, bool allow);

/* Text of the three tokenizer files; NULL when the source has none. Borrowed from src. */
typedef enum mzm_side_file {
	MZM_TOKENIZER_JSON,
	MZM_TOKENIZER_CONFIG,
	MZM_GENERATION_CONFIG,
	MZM_N_SIDE_FILES
} mzm_side_file;
const char *mzm_source_side_file(const mzm_source *src, mzm_side_file which, size_t *len);
const char *mzm_side_file_name(mzm_side_file which); /* "tokenizer.json" */

/* The tokenizer of those texts, checked against the vocabulary of the model: no token may have an id that the
 * embedding lacks. EFORMAT when the source has no tokenizer.json. -> mzm_tokenizer_close */
mzm_status mzm_source_tokenizer(mzm_tokenizer **out, const mzm_source *src, mzm_err *err);

/* 32 hex digits: XXH3-128 over the canonical config and the raw bytes of every canonical tensor in order. From
 * a container it is stored; from a directory NULL until every tensor was read in order. A draft image has a hash of
 * its own, over the config and its tensors; NULL: there is none. */
const char *mzm_source_hash(const mzm_source *src);
const char *mzm_source_draft_hash(const mzm_source *src);
uint64_t    mzm_source_bytes_read(const mzm_source *src);

/* How weights came to be that nobody trained in this form (borrowed object, NULL for a model as published):
 *     {"kind": "inflated", "factor": 14, "seed": "1", "source_hash": "..."}     made wider (inflate.h)
 *     {"kind": "synthetic", "shape": "llama-2-7b", "seed": "1"}                 random (synth.h)
 * It follows the weights through containers and imports; whoever shows figures of such a model must say so. */
const json_t *mzm_source_origin(const mzm_source *src);
int32_t       mzm_source_inflated(const mzm_source *src);  /* its factor; 0: not inflated */
bool          mzm_source_synthetic(const mzm_source *src); /* random weights, inflated or not */

/* What inspect prints, as a JSON object (new reference): file, format, config, provenance, tensors with dtype,
 * shape, raw and stored bytes, codec. */
mzm_status mzm_source_describe(mzm_source *src, json_t **out, mzm_err *err);

/* Reads all there is: every checksum, padding byte and weight; recomputes the hashes. progress may be NULL. */
mzm_status mzm_source_verify(mzm_source *src, mzm_progress_fn progress, void *user, mzm_err *err);

/* True when path is one of the files the source reads; a link to one counts. */
bool mzm_source_uses(const mzm_source *src, const char *path);

/* ---- the hash, computed alike by the reader of directories, the writer of containers and verify ---- */

typedef struct mzm_hasher mzm_hasher;
mzm_status mzm_hasher_create(mzm_hasher **out, const mzm_config *cfg, mzm_err *err);
void       mzm_hasher_add(mzm_hasher *h, const mzm_tensor *t, const void *data); /* in the order of the file */
void       mzm_hasher_finish(const mzm_hasher *h, char hex[33]);
void       mzm_hasher_free(mzm_hasher *h);

/* ---- for implementations (hf.c, gguf_source.c, mzm.c) ---- */

/* How a tensor lies in its file. */
typedef struct mzm_stored {
	uint64_t    bytes;
	int32_t     n_extents;
	const char *codec;
} mzm_stored;

typedef struct mzm_source_ops {
	const char *format;
	mzm_status (*read)(mzm_source *src, int32_t i, void *dst, mzm_err *err); /* thread-safe */
	mzm_dtype  (*type_for)(const mzm_source *src, int32_t i, mzm_dtype wanted); /* this and the next: or NULL */
	mzm_status (*read_as)(mzm_source *src, int32_t i, mzm_dtype dtype, void *dst, mzm_err *err);
	uint64_t   (*bytes_read)(const mzm_source *src);
	mzm_stored (*stored)(const mzm_source *src, int32_t i);
	bool (*describe)(const mzm_source *src, json_t *out); /* adds its own members; false: no memory */
	mzm_status (*verify)(mzm_source *src, mzm_err *err);  /* what no tensor covers; may be NULL */
	bool       (*uses)(const mzm_source *src, const char *path);
	void       (*avoid_cache)(mzm_source *src);
	void       (*close)(mzm_source *src);                                    /* its own members only */
} mzm_source_ops;

/* First member of every implementation. Zeroed memory is a valid state to close. */
struct mzm_source {
	const mzm_source_ops *ops;
	char       *path;
	mzm_config  cfg;
	mzm_tensor *tensors;                     /* [n_tensors] with their dtypes */
	int32_t     n_tensors;
	bool        allow_nonfinite;
	const char *side[MZM_N_SIDE_FILES];      /* [side_len], NUL-terminated; the implementation's */
	size_t      side_len[MZM_N_SIDE_FILES];
	char        hash[33];
	atomic_bool has_hash;                    /* set once hash is complete */
	char        draft_hash[33];              /* "" without a draft image */
	json_t     *origin;                      /* NULL: as published */
	int32_t     inflated;                    /* its factor, 0: not */
	bool        synthetic;
	mzm_hasher *hasher;                      /* directories: what was read in order so far */
	int32_t     n_hashed;
	pthread_mutex_t lock;                    /* of hasher and n_hashed */
};

/* Fills the common members (path, ops, lock) of a zeroed source of n_bytes. -> mzm_source_close */
mzm_status mzm_source_init(mzm_source **out, size_t n_bytes, const mzm_source_ops *ops, const char *path, mzm_err *err);
/* cfg is known: the table of canonical tensors, all f32 yet. */
mzm_status mzm_source_set_config(mzm_source *src, const mzm_config *cfg, mzm_err *err);
/* The source has a draft image too: its tensors join the table. */
mzm_status mzm_source_add_draft(mzm_source *src, mzm_err *err);

/* Checks the object and keeps a copy; NULL: as published. */
mzm_status mzm_source_set_origin(mzm_source *src, json_t *origin, mzm_err *err);

mzm_status mzm_hf_open(mzm_source **out, const char *dir, mzm_err *err); /* hf.c */

/* A JSON string of any bytes: those that are not UTF-8 become '?'. NULL: out of memory. */
json_t *mzm_json_text(const char *s);

#endif
