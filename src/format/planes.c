/* planes.c - see planes.h. */
#include "format/planes.h"

#include <string.h>

#define ZSTD_STATIC_LINKING_ONLY /* for contexts that allocate through base/mem.h */
#include <zstd.h>

struct mzm_packer {
	ZSTD_CCtx *cctx;      /* made at first use, as dctx */
	ZSTD_DCtx *dctx;
	char      *planes;    /* [planes_cap] split elements */
	size_t     planes_cap;
	char      *packed[2]; /* [packed_cap] the best so far, and a spare */
	size_t     packed_cap[2];
};

const char *mzm_codec_name(mzm_codec codec)
{
	switch (codec) {
	case MZM_CODEC_RAW: return "raw";
	case MZM_CODEC_ZSTD: return "zstd";
	case MZM_CODEC_PLANES: return "planes";
	default: return "unknown";
	}
}

/* ---- planes ---- */

void mzm_planes_split(void *dst, const void *src, size_t n_bytes, size_t elem_bytes)
{
	size_t n = n_bytes / elem_bytes;
	const char *in = src;
	uint8_t *out = dst;
	if (elem_bytes == 2) {
		for (size_t i = 0; i < n; i++) {
			uint16_t u;
			memcpy(&u, in + 2 * i, 2);
			unsigned r = ((unsigned)u << 1 | (unsigned)u >> 15) & 0xffffu;
			out[i] = (uint8_t)r;
			out[n + i] = (uint8_t)(r >> 8);
		}
	} else if (elem_bytes == 4) {
		for (size_t i = 0; i < n; i++) {
			uint32_t u;
			memcpy(&u, in + 4 * i, 4);
			uint32_t r = u << 1 | u >> 31;
			out[i] = (uint8_t)r;
			out[n + i] = (uint8_t)(r >> 8);
			out[2 * n + i] = (uint8_t)(r >> 16);
			out[3 * n + i] = (uint8_t)(r >> 24);
		}
	} else {
		memcpy(dst, src, n_bytes);
	}
}

void mzm_planes_join(void *dst, const void *src, size_t n_bytes, size_t elem_bytes)
{
	size_t n = n_bytes / elem_bytes;
	const uint8_t *in = src;
	char *out = dst;
	if (elem_bytes == 2) {
		for (size_t i = 0; i < n; i++) {
			unsigned r = (unsigned)in[i] | (unsigned)in[n + i] << 8;
			uint16_t u = (uint16_t)(r >> 1 | r << 15);
			memcpy(out + 2 * i, &u, 2);
		}
	} else if (elem_bytes == 4) {
		for (size_t i = 0; i < n; i++) {
			uint32_t r = (uint32_t)in[i] | (uint32_t)in[n + i] << 8 | (uint32_t)in[2 * n + i] << 16 |
				     (uint32_t)in[3 * n + i] << 24;
			uint32_t u = r >> 1 | r << 31;
			memcpy(out + 4 * i, &u, 4);
		}
	} else {
		memcpy(dst, src, n_bytes);
	}
}

/* ---- zstd ---- */

static void *zstd_alloc(void *opaque, size_t n_bytes)
{
	(void)opaque;
	return mzm_alloc(n_bytes);
}

static void zstd_free(void *opaque, void *p)
{
	(void)opaque;
	mzm_free(p);
}

static const ZSTD_customMem zstd_mem = {zstd_alloc, zstd_free, NULL};

mzm_status mzm_packer_create(mzm_packer **out, mzm_err *err)
{
	return mzm_alloc_for((void **)out, sizeof **out, "a compressor", err);
}

void mzm_packer_free(mzm_packer *p)
{
	if (!p)
		return;
	ZSTD_freeCCtx(p->cctx);
	ZSTD_freeDCtx(p->dctx);
	mzm_free(p->planes);
	mzm_free(p->packed[0]);
	mzm_free(p->packed[1]);
	mzm_free(p);
}

/* Makes *buf hold n bytes; what it held is lost. */
static mzm_status reserve(char **buf, size_t *cap, size_t n, mzm_err *err)
{
	if (n <= *cap)
		return MZM_OK;
	mzm_free(*buf);
	*buf = NULL;
	*cap = 0;
	MZM_TRY(mzm_alloc_for((void **)buf, n, "packing", err));
	*cap = n;
	return MZM_OK;
}

/* How zstd is driven. HUFFMAN codes the literals and looks for no matches: on weights that gives smaller
 * files than levels 1..18, four times as fast to pack and twice as fast to unpack, since the few
 * matches found in noise cost more than they save. */
typedef enum effort { HUFFMAN, LEVEL } effort;

static mzm_status set_up(mzm_packer *p, effort how, int level, mzm_err *err)
{
	if (!p->cctx && !(p->cctx = ZSTD_createCCtx_advanced(zstd_mem)))
		return mzm_fail(err, MZM_ENOMEM, "out of memory: zstd context");
	size_t r = ZSTD_CCtx_reset(p->cctx, ZSTD_reset_session_and_parameters);
	if (!ZSTD_isError(r))
		r = ZSTD_CCtx_setParameter(p->cctx, ZSTD_c_compressionLevel, how == HUFFMAN ? -100 : level);
	if (!ZSTD_isError(r) && how == HUFFMAN)
		r = ZSTD_CCtx_setParameter(p->cctx, ZSTD_c_literalCompressionMode, 1); /* always */
	if (ZSTD_isError(r))
		return mzm_fail(err, MZM_EINTERNAL, "zstd: %s", ZSTD_getErrorName(r));
	return MZM_OK;
}

/* src, n_parts parts of equal size, into the spare buffer as one frame. A block of zstd has one Huffman table,
 * so blocks end where parts do: a part is a plane, and planes differ. */
static mzm_status compress(mzm_packer *p, size_t *n_out, const void *src, size_t n, size_t n_parts, effort how,
			   int level, mzm_err *err)
{
	size_t bound = ZSTD_compressBound(n);
	if (ZSTD_isError(bound))
		return mzm_fail(err, MZM_EARG, "zstd: %zu bytes are too many for one block", n);
	MZM_TRY(set_up(p, how, level, err));
	bound += 64 * n_parts; /* headers of blocks that a part ends early */
	MZM_TRY(reserve(&p->packed[1], &p->packed_cap[1], bound, err));
	size_t r = ZSTD_CCtx_setPledgedSrcSize(p->cctx, n);
	ZSTD_outBuffer out = {p->packed[1], bound, 0};
	for (size_t i = 0; i < n_parts && !ZSTD_isError(r); i++) {
		ZSTD_inBuffer in = {(const char *)src + n / n_parts * i, n / n_parts, 0};
		r = ZSTD_compressStream2(p->cctx, &out, &in, i + 1 < n_parts ? ZSTD_e_flush : ZSTD_e_end);
	}
	if (ZSTD_isError(r))
		return mzm_fail(err, MZM_ENOMEM, "zstd: %s", ZSTD_getErrorName(r));
	if (r != 0)
		return mzm_fail(err, MZM_EINTERNAL, "zstd: a frame larger than its bound");
	*n_out = out.pos;
	return MZM_OK;
}

/* The spare buffer becomes the result. */
static void keep(mzm_packer *p)
{
	char *buf = p->packed[0];
	size_t cap = p->packed_cap[0];
	p->packed[0] = p->packed[1];
	p->packed_cap[0] = p->packed_cap[1];
	p->packed[1] = buf;
	p->packed_cap[1] = cap;
}

mzm_status mzm_pack(mzm_packer *p, mzm_codec *codec, const void **dst, size_t *n_dst, const void *src, size_t n_bytes,
		    size_t elem_bytes, int level, mzm_err *err)
{
	const struct {
		mzm_codec codec;
		effort    how;
		bool      wanted;
	} tries[] = {
		{MZM_CODEC_PLANES, HUFFMAN, level != 0 && elem_bytes > 1},
		{MZM_CODEC_PLANES, LEVEL, level > 0 && elem_bytes > 1},
		{MZM_CODEC_ZSTD, HUFFMAN, level != 0 && elem_bytes == 1},
		{MZM_CODEC_ZSTD, LEVEL, level > 0},
	};
	size_t limit = level < 0 ? n_bytes - n_bytes / 10 : n_bytes, n = n_bytes;
	*codec = MZM_CODEC_RAW;
	*dst = src;
	*n_dst = n_bytes;
	if (level != 0 && elem_bytes > 1) {
		MZM_TRY(reserve(&p->planes, &p->planes_cap, n_bytes, err));
		mzm_planes_split(p->planes, src, n_bytes, elem_bytes);
	}
	for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
		if (!tries[i].wanted)
			continue;
		bool planes = tries[i].codec == MZM_CODEC_PLANES;
		MZM_TRY(compress(p, &n, planes ? p->planes : src, n_bytes, planes ? elem_bytes : 1, tries[i].how,
				 level, err));
		if (n >= limit || n_bytes / MZM_MAX_RATIO > n)
			continue;
		keep(p);
		limit = n;
		*codec = tries[i].codec;
		*dst = p->packed[0];
		*n_dst = n;
	}
	return MZM_OK;
}

/* One frame, of the size we expect, without a dictionary. */
static mzm_status check_frame(const void *src, size_t n_src, size_t n_bytes, mzm_err *err)
{
	unsigned long long size = ZSTD_getFrameContentSize(src, n_src);
	if (size == ZSTD_CONTENTSIZE_ERROR)
		return mzm_fail(err, MZM_EFORMAT, "not a zstd frame");
	if (size == ZSTD_CONTENTSIZE_UNKNOWN)
		return mzm_fail(err, MZM_EFORMAT, "the zstd frame states no size");
	if (size != n_bytes)
		return mzm_fail(err, MZM_EFORMAT, "the zstd frame holds %llu bytes instead of %zu", size, n_bytes);
	if (ZSTD_getDictID_fromFrame(src, n_src) != 0)
		return mzm_fail(err, MZM_EFORMAT, "the zstd frame needs a dictionary");
	if (ZSTD_findFrameCompressedSize(src, n_src) != n_src)
		return mzm_fail(err, MZM_EFORMAT, "the zstd frame is cut short or something follows it");
	return MZM_OK;
}

mzm_status mzm_unpack(mzm_packer *p, void *dst, size_t n_bytes, size_t elem_bytes, mzm_codec codec, const void *src,
		      size_t n_src, mzm_err *err)
{
	if (codec == MZM_CODEC_RAW) {
		if (n_src != n_bytes)
			return mzm_fail(err, MZM_EFORMAT, "%zu raw bytes instead of %zu", n_src, n_bytes);
		memcpy(dst, src, n_bytes);
		return MZM_OK;
	}
	MZM_TRY(check_frame(src, n_src, n_bytes, err));
	if (!p->dctx && !(p->dctx = ZSTD_createDCtx_advanced(zstd_mem)))
		return mzm_fail(err, MZM_ENOMEM, "out of memory: zstd context");
	void *out = dst;
	if (codec == MZM_CODEC_PLANES) {
		MZM_TRY(reserve(&p->planes, &p->planes_cap, n_bytes, err));
		out = p->planes;
	}
	size_t got = ZSTD_decompressDCtx(p->dctx, out, n_bytes, src, n_src);
	if (ZSTD_isError(got))
		return mzm_fail(err, MZM_EFORMAT, "zstd: %s", ZSTD_getErrorName(got));
	if (got != n_bytes)
		return mzm_fail(err, MZM_EFORMAT, "zstd gave %zu bytes instead of %zu", got, n_bytes);
	if (codec == MZM_CODEC_PLANES)
		mzm_planes_join(dst, p->planes, n_bytes, elem_bytes);
	return MZM_OK;
}
