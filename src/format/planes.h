/* planes.h - how an extent is packed: not at all, by zstd, or by zstd over byte planes.
 *
 * A float's sign, exponent and leading mantissa bits are worth compressing, its low mantissa bits are
 * noise. So each element is rotated left by one bit, which gathers the exponent in the top byte and
 * moves the sign to the bottom, and then byte b of all elements forms plane b; planes follow one
 * another from the lowest byte to the highest. zstd finds the top planes and leaves the others raw. */
#ifndef MZM_PLANES_H
#define MZM_PLANES_H

#include "base/mem.h"

/* Numbers in the file: never change one. */
typedef enum mzm_codec { MZM_CODEC_RAW = 0, MZM_CODEC_ZSTD = 1, MZM_CODEC_PLANES = 2, MZM_N_CODECS } mzm_codec;

const char *mzm_codec_name(mzm_codec codec); /* "raw", "zstd", "planes" */

/* A packed block is never smaller than 1/64 of what it unpacks to, so that a small file cannot ask for
 * much memory. What compresses further is stored raw. */
#define MZM_MAX_RATIO 64u

/* n_bytes / elem_bytes elements of 2 or 4 bytes each; dst and src [n_bytes], apart from each other. */
void mzm_planes_split(void *dst, const void *src, size_t n_bytes, size_t elem_bytes);
void mzm_planes_join(void *dst, const void *src, size_t n_bytes, size_t elem_bytes);

/* Working memory of one packing or unpacking thread; grows to the largest block seen. */
typedef struct mzm_packer mzm_packer;
mzm_status mzm_packer_create(mzm_packer **out, mzm_err *err);
void       mzm_packer_free(mzm_packer *p);

/* Packs src[n_bytes] (n_bytes > 0, a multiple of elem_bytes; elem_bytes 1 = no planes) at a zstd level; level 0
 * stores raw; 1..19 keeps the smallest of raw, zstd and planes; -1 is quick (bytes, in planes where there are
 * any, are only Huffman-coded) and stores raw what does not shrink by a tenth. *dst lives in p or
 * is src itself, until the next call. */
mzm_status mzm_pack(mzm_packer *p, mzm_codec *codec, const void **dst, size_t *n_dst, const void *src, size_t n_bytes,
		    size_t elem_bytes, int level, mzm_err *err);

/* Unpacks src[n_src] to exactly n_bytes at dst. EFORMAT unless src is one whole zstd frame that states
 * this size and needs no dictionary. */
mzm_status mzm_unpack(mzm_packer *p, void *dst, size_t n_bytes, size_t elem_bytes, mzm_codec codec, const void *src,
		      size_t n_src, mzm_err *err);

#endif
