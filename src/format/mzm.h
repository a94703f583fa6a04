/* mzm.h - the .mzm container: its layout, and the reader. FORMAT.md describes it byte by byte.
 *
 *     header page | extents of the tensors in canonical order, then of the draft image | metadata | index
 *
 * Everything is where it must be: each offset follows from what stands before it, so a reader can
 * demand equality, and no two things can overlap. */
#ifndef MZM_MZM_H
#define MZM_MZM_H

#include "base/io.h"
#include "format/planes.h"
#include "format/source.h"

#define MZM_FILE_MAGIC    "MZMIRZAM"
#define MZM_FILE_VERSION  3u                     /* newest: mzm_container_version() */
#define MZM_HEADER_BYTES  4096u                  /* one page; 128 bytes of it are used */
#define MZM_TENSOR_BYTES  48u                    /* of an index entry */
#define MZM_EXTENT_BYTES  48u
#define MZM_MAX_METADATA  ((uint64_t)256 << 20)
#define MZM_MAX_EXTENT    ((uint64_t)8 << 20)    /* raw; two rows of the widest f32 matrix */
#define MZM_EXTENT_TARGET ((uint64_t)1 << 20)    /* raw size that the writer aims at */
#define MZM_SMALL_EXTENT  131072u                /* raw sizes below share a page; larger ones start on one */

typedef struct mzm_header {
	uint64_t file_bytes;
	uint64_t meta_offset, meta_stored, meta_raw, meta_sum;
	uint64_t index_offset, index_bytes, index_sum;
	uint32_t n_tensors, n_extents;
	mzm_codec meta_codec; /* raw or zstd */
	uint32_t version;     /* 1 .. MZM_FILE_VERSION */
} mzm_header;

typedef struct mzm_extent {
	uint64_t  offset, stored_sum, raw_sum; /* XXH3-64 */
	uint32_t  stored_bytes, raw_bytes;
	uint32_t  row, n_rows;                 /* of its tensor */
	uint32_t  tensor;                      /* its number in the index */
	mzm_codec codec;
} mzm_extent;

/* Entry of a tensor in the index. */
typedef struct mzm_entry {
	uint32_t kind, dtype, role; /* role: mzm_role */
	int32_t  layer;
	uint32_t n_rows, n_cols;
	uint32_t first_extent, n_extents;
	uint64_t raw_bytes;
	uint64_t reserved;          /* 0 */
} mzm_entry;

/* The lowest version that tells what is in a file: 1; 2 with quantised rows or a draft image; 3 where the model has
 * what Llama has not. */
uint32_t mzm_container_version(const mzm_config *cfg, bool quant);

/* Little-endian images. parse checks magic, version, checksum and every number against file_bytes. */
void       mzm_header_pack(uint8_t page[MZM_HEADER_BYTES], const mzm_header *h);
mzm_status mzm_header_parse(mzm_header *out, const uint8_t page[MZM_HEADER_BYTES], uint64_t file_bytes, mzm_err *err);
void       mzm_entry_pack(uint8_t out[MZM_TENSOR_BYTES], const mzm_entry *e);
void       mzm_extent_pack(uint8_t out[MZM_EXTENT_BYTES], const mzm_extent *x);

/* Where the next extent stands when all before it end at `end`; and metadata and index: 64-byte steps. */
uint64_t mzm_extent_place(uint64_t end, uint64_t raw_bytes);

uint64_t mzm_sum64(const void *data, size_t n); /* XXH3-64 */

/* Opens a container as a source. Costs O(metadata): no weight is read. */
mzm_status mzm_container_open(mzm_source **out, const char *path, mzm_err *err);

/* The extents of a source that is a container, in file order; NULL for other sources. */
const mzm_extent *mzm_container_extents(const mzm_source *src, size_t *n);

/* The file of a source that is one, which the source closes. */
mzm_file         *mzm_container_file(const mzm_source *src);
/* Whether a source is a container; and the extents of its i-th tensor, [*n] in order of their rows. */
bool              mzm_container_is(const mzm_source *src);
const mzm_extent *mzm_container_tensor(const mzm_source *src, int32_t i, uint32_t *n);

#endif
