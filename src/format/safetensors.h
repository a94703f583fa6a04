/* safetensors.h - Hugging Face's weight files: where each tensor's bytes are.
 *
 * One file: 8 bytes of header length, a JSON header, then the tensors without a gap. A large model is cut
 * into shards that model.safetensors.index.json lists. A set is one model.safetensors or all shards of one
 * index, with one list of tensors. Immutable after opening; reading may run in any number of threads. */
#ifndef MZM_SAFETENSORS_H
#define MZM_SAFETENSORS_H

#include "base/io.h"
#include "base/json.h"
#include "kern/kern.h"

#define MZM_ST_MAX_DIMS   8
#define MZM_ST_MAX_HEADER 100000000u /* the reference implementation's limit */
#define MZM_ST_MAX_SHARDS 1000

typedef struct mzm_st_tensor {
	const char *name;                   /* printable ASCII, at most 256 */
	const char *dtype;                  /* as the file spells it: "BF16" */
	int32_t     n_dims;
	uint64_t    shape[MZM_ST_MAX_DIMS];
	uint64_t    begin, end;             /* within the file's data; span = dtype x shape */
	int32_t     shard;                  /* index into the set's files */
} mzm_st_tensor;

/* The header of one file. */
typedef struct mzm_st_header {
	mzm_st_tensor *tensors; /* [n] ascending by name */
	size_t         n;
	char          *names;   /* all names, NUL-terminated */
} mzm_st_header;

/* Length of the JSON header from the first 8 bytes of a file of file_bytes. */
mzm_status mzm_st_header_bytes(size_t *out, const uint8_t first[8], uint64_t file_bytes, mzm_err *err);
/* json[len]: the header; data_bytes: what follows it in the file. -> mzm_st_header_free */
mzm_status mzm_st_header_parse(mzm_st_header *out, const char *json, size_t len, uint64_t data_bytes, mzm_err *err);
void       mzm_st_header_free(mzm_st_header *h);

/* The shards an index lists: which file holds which tensor. */
typedef struct mzm_st_map {
	char  **files;   /* [n_files] safe names, each once */
	size_t  n_files;
	size_t  n_tensors;
	json_t *json;    /* the whole index; "weight_map" was checked */
} mzm_st_map;

mzm_status mzm_st_map_parse(mzm_st_map *out, const char *json, size_t len, mzm_err *err);
void       mzm_st_map_free(mzm_st_map *map);

typedef struct mzm_st_set mzm_st_set;

/* model.safetensors or model.safetensors.index.json of a directory. */
mzm_status mzm_st_open(mzm_st_set **out, const char *dir, mzm_err *err);
void       mzm_st_close(mzm_st_set *set);

size_t               mzm_st_count(const mzm_st_set *set);
const mzm_st_tensor *mzm_st_at(const mzm_st_set *set, size_t i);
const mzm_st_tensor *mzm_st_find(const mzm_st_set *set, const char *name); /* NULL: none */
/* n bytes of tensor t from `offset` on. */
mzm_status           mzm_st_read(const mzm_st_set *set, const mzm_st_tensor *t, void *dst, size_t n, uint64_t offset,
				 mzm_err *err);
uint64_t             mzm_st_bytes_read(const mzm_st_set *set);

void     mzm_st_avoid_cache(mzm_st_set *set); /* of the system, from now on */
int32_t  mzm_st_n_files(const mzm_st_set *set);
const char *mzm_st_file_path(const mzm_st_set *set, int32_t i);
uint64_t mzm_st_file_bytes(const mzm_st_set *set, int32_t i);

/* F32, F16 and BF16; false: known or not, we do not compute with it. */
bool mzm_st_dtype(mzm_dtype *out, const mzm_st_tensor *t);

#endif
