/* gguf_impl.h - what gguf.c and gguf_split.c share: the open file, or the files of a model in parts. */
#ifndef MZM_GGUF_IMPL_H
#define MZM_GGUF_IMPL_H

#include "base/io.h"
#include "format/gguf.h"

typedef struct mzm_gguf_chunk {
	struct mzm_gguf_chunk *next;
} mzm_gguf_chunk;

typedef struct mzm_gguf_entry {
	mzm_gguf_text  key;
	mzm_gguf_type  type;
	uint64_t       bits; /* of a number, in its own width */
	mzm_gguf_text  text;
	mzm_gguf_array array;
} mzm_gguf_entry;

struct mzm_gguf {
	mzm_file         *file;
	char             *path;
	mzm_gguf_entry   *entries;  /* [n_entries] by key */
	size_t            n_entries;
	mzm_gguf_tensor  *tensors;  /* [n_tensors] as in the file; of a model in parts: of all files */
	mzm_gguf_tensor **by_name;  /* [n_tensors] */
	size_t            n_tensors;
	mzm_gguf_chunk   *chunks;   /* the last one is filled up to chunk_used */
	size_t            chunk_used, chunk_bytes;
	mzm_gguf        **parts;    /* [n_parts] the files behind the first; their names of tensors are borrowed */
	int32_t           n_parts;
};

size_t      mzm_gguf_type_bytes(mzm_gguf_type type); /* of a number; 0: no number */
/* One file, whatever it says about others. -> mzm_gguf_close */
mzm_status  mzm_gguf_open_file(mzm_gguf **out, const char *path, mzm_err *err);
/* Sorts g->by_name, which names all tensors; EFORMAT: two have one name. */
mzm_status  mzm_gguf_sort_names(mzm_gguf *g, mzm_err *err);
/* gguf_split.c: opens the files behind the first, where there are any, and joins their tensors to g's. */
mzm_status  mzm_gguf_open_parts(mzm_gguf *g, mzm_err *err);

#endif
