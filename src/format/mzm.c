/* mzm.c - see mzm.h.
 *
 * Owns: the byte images of header and index, and the reader. Nothing of a file is used before it was
 * checked: the header against its checksum and the file's size; counts against the bytes that hold
 * them, before any allocation; the index against the canonical tensors of the configuration, extent by
 * extent; stored bytes against their checksum before unpacking and raw bytes after it. */
#include "format/mzm.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/io.h"

/* Numbers of the index are those of the enums; FORMAT.md lists them. */
_Static_assert(MZM_F32 == 0 && MZM_F16 == 1 && MZM_BF16 == 2 && MZM_Q8 == 3 && MZM_Q4 == 4,
	       "dtype numbers of the file");
_Static_assert(MZM_ROLE_MODEL == 0 && MZM_ROLE_DRAFT == 1, "role numbers of the file");
_Static_assert(MZM_T_EMBED == 0 && MZM_T_ATTN_NORM == 1 && MZM_T_WQ == 2 && MZM_T_WK == 3 && MZM_T_WV == 4 &&
		       MZM_T_WO == 5 && MZM_T_FFN_NORM == 6 && MZM_T_GATE == 7 && MZM_T_UPDOWN == 8 &&
		       MZM_T_OUT_NORM == 9 && MZM_T_HEAD == 10 && MZM_T_ATTN_NORM_BIAS == 11 &&
		       MZM_T_FFN_NORM_BIAS == 12 && MZM_T_OUT_NORM_BIAS == 13 && MZM_T_BQ == 14 && MZM_T_BK == 15 &&
		       MZM_T_BV == 16 && MZM_T_BO == 17 && MZM_T_Q_NORM == 18 && MZM_T_K_NORM == 19 &&
		       MZM_T_ATTN_POST_NORM == 20 && MZM_T_FFN_POST_NORM == 21 && MZM_T_B_GATE == 22 &&
		       MZM_T_B_UP == 23 && MZM_T_B_DOWN == 24 && MZM_T_DOWN == 25 && MZM_T_POS == 26 &&
		       MZM_T_WG == 27 && MZM_T_DECAY == 28 && MZM_T_GROUP_NORM == 29 && MZM_T_GROUP_NORM_BIAS == 30 &&
		       MZM_T_FREQ == 31 && MZM_T_FEATURE == 32,
	       "tensor numbers of the file");

typedef struct mzm_container {
	mzm_source  base;
	mzm_file   *file;
	mzm_header  head;
	json_t     *meta;    /* holds the side files' texts */
	mzm_entry  *entries; /* [base.n_tensors] */
	mzm_extent *extents; /* [head.n_extents] */
} mzm_container;

uint64_t mzm_sum64(const void *data, size_t n)
{
	return XXH3_64bits(data, n);
}

/* ---- byte images ---- */

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, 4);
}

static void put64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, 8);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return v;
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, 8);
	return v;
}

#define SUMMED_HEADER 120u /* bytes in front of the header's own checksum */
#define USED_HEADER   128u

void mzm_header_pack(uint8_t page[MZM_HEADER_BYTES], const mzm_header *h)
{
	memset(page, 0, MZM_HEADER_BYTES);
	memcpy(page, MZM_FILE_MAGIC, 8);
	put32(page + 8, h->version);
	put32(page + 12, MZM_HEADER_BYTES);
	put64(page + 16, h->file_bytes);
	put64(page + 24, h->meta_offset);
	put64(page + 32, h->meta_stored);
	put64(page + 40, h->meta_raw);
	put64(page + 48, h->meta_sum);
	put64(page + 56, h->index_offset);
	put64(page + 64, h->index_bytes);
	put64(page + 72, h->index_sum);
	put32(page + 80, h->n_tensors);
	put32(page + 84, h->n_extents);
	put32(page + 88, (uint32_t)h->meta_codec);
	put64(page + SUMMED_HEADER, mzm_sum64(page, SUMMED_HEADER));
}

static bool is_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

/* Magic, version, checksum: that these 4,096 bytes are a header at all. */
static mzm_status check_page(const uint8_t *page, mzm_err *err)
{
	if (memcmp(page, MZM_FILE_MAGIC, 8) != 0)
		return mzm_fail(err, MZM_EFORMAT, "header: the magic is wrong");
	uint32_t version = get32(page + 8);
	if (version > MZM_FILE_VERSION)
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"container version %u is newer than %u, the newest this program reads", version,
				MZM_FILE_VERSION);
	if (version < 1)
		return mzm_fail(err, MZM_EFORMAT, "header: version 0");
	if (get64(page + SUMMED_HEADER) != mzm_sum64(page, SUMMED_HEADER))
		return mzm_fail(err, MZM_EFORMAT, "header: the checksum is wrong");
	if (get32(page + 12) != MZM_HEADER_BYTES)
		return mzm_fail(err, MZM_EFORMAT, "header: its size is %u instead of %u", get32(page + 12),
				MZM_HEADER_BYTES);
	if (!is_zero(page + 92, SUMMED_HEADER - 92) || !is_zero(page + USED_HEADER, MZM_HEADER_BYTES - USED_HEADER))
		return mzm_fail(err, MZM_EFORMAT, "header: reserved bytes are not zero");
	return MZM_OK;
}

/* meta and index end the file, one behind the other; every size is bounded by the file. */
static mzm_status check_sections(const mzm_header *h, uint64_t file_bytes, mzm_err *err)
{
	if (h->file_bytes != file_bytes)
		return mzm_fail(err, MZM_EFORMAT, "header: the file should have %llu bytes, but has %llu",
				(unsigned long long)h->file_bytes, (unsigned long long)file_bytes);
	if (h->index_offset > file_bytes || h->index_bytes != file_bytes - h->index_offset)
		return mzm_fail(err, MZM_EFORMAT, "header: the index does not end the file");
	if (h->meta_offset < MZM_HEADER_BYTES || h->meta_offset > h->index_offset || h->meta_offset % MZM_ALIGN ||
	    h->meta_stored > h->index_offset - h->meta_offset ||
	    mzm_extent_place(h->meta_offset + h->meta_stored, 0) != h->index_offset)
		return mzm_fail(err, MZM_EFORMAT, "header: the metadata is not in front of the index");
	if (h->meta_codec != MZM_CODEC_RAW && h->meta_codec != MZM_CODEC_ZSTD)
		return mzm_fail(err, MZM_EFORMAT, "header: unknown codec of the metadata");
	if (h->meta_raw > MZM_MAX_METADATA || h->meta_raw / MZM_MAX_RATIO > h->meta_stored ||
	    (h->meta_codec == MZM_CODEC_RAW && h->meta_raw != h->meta_stored))
		return mzm_fail(err, MZM_EFORMAT, "header: %llu bytes of metadata from %llu stored ones",
				(unsigned long long)h->meta_raw, (unsigned long long)h->meta_stored);
	if ((uint64_t)h->n_tensors * MZM_TENSOR_BYTES + (uint64_t)h->n_extents * MZM_EXTENT_BYTES != h->index_bytes)
		return mzm_fail(err, MZM_EFORMAT,
				"header: %u tensors and %u extents do not make an index of %llu bytes", h->n_tensors,
				h->n_extents, (unsigned long long)h->index_bytes);
	return MZM_OK;
}

mzm_status mzm_header_parse(mzm_header *out, const uint8_t page[MZM_HEADER_BYTES], uint64_t file_bytes, mzm_err *err)
{
	MZM_TRY(check_page(page, err));
	*out = (mzm_header){
		.file_bytes = get64(page + 16),
		.meta_offset = get64(page + 24),
		.meta_stored = get64(page + 32),
		.meta_raw = get64(page + 40),
		.meta_sum = get64(page + 48),
		.index_offset = get64(page + 56),
		.index_bytes = get64(page + 64),
		.index_sum = get64(page + 72),
		.n_tensors = get32(page + 80),
		.n_extents = get32(page + 84),
		.meta_codec = (mzm_codec)get32(page + 88),
		.version = get32(page + 8),
	};
	return check_sections(out, file_bytes, err);
}

void mzm_entry_pack(uint8_t out[MZM_TENSOR_BYTES], const mzm_entry *e)
{
	put32(out, e->kind);
	put32(out + 4, (uint32_t)e->layer);
	put32(out + 8, e->dtype);
	put32(out + 12, e->role);
	put32(out + 16, e->n_rows);
	put32(out + 20, e->n_cols);
	put32(out + 24, e->first_extent);
	put32(out + 28, e->n_extents);
	put64(out + 32, e->raw_bytes);
	put64(out + 40, e->reserved);
}

static mzm_entry entry_unpack(const uint8_t *p)
{
	return (mzm_entry){
		.kind = get32(p),
		.layer = (int32_t)get32(p + 4),
		.dtype = get32(p + 8),
		.role = get32(p + 12),
		.n_rows = get32(p + 16),
		.n_cols = get32(p + 20),
		.first_extent = get32(p + 24),
		.n_extents = get32(p + 28),
		.raw_bytes = get64(p + 32),
		.reserved = get64(p + 40),
	};
}

void mzm_extent_pack(uint8_t out[MZM_EXTENT_BYTES], const mzm_extent *x)
{
	put64(out, x->offset);
	put32(out + 8, x->stored_bytes);
	put32(out + 12, x->raw_bytes);
	put32(out + 16, x->row);
	put32(out + 20, x->n_rows);
	put32(out + 24, x->tensor);
	put32(out + 28, (uint32_t)x->codec);
	put64(out + 32, x->stored_sum);
	put64(out + 40, x->raw_sum);
}

static mzm_extent extent_unpack(const uint8_t *p)
{
	return (mzm_extent){
		.offset = get64(p),
		.stored_bytes = get32(p + 8),
		.raw_bytes = get32(p + 12),
		.row = get32(p + 16),
		.n_rows = get32(p + 20),
		.tensor = get32(p + 24),
		.codec = (mzm_codec)get32(p + 28),
		.stored_sum = get64(p + 32),
		.raw_sum = get64(p + 40),
	};
}

uint64_t mzm_extent_place(uint64_t end, uint64_t raw_bytes)
{
	uint64_t align = raw_bytes < MZM_SMALL_EXTENT ? MZM_ALIGN : 4096;
	uint64_t up = end + (align - 1); /* wraps only behind the end of any file: the result is then too small */
	return up & ~(align - 1);
}

/* ---- metadata ---- */

static mzm_status read_summed(mzm_container *c, void *dst, uint64_t offset, uint64_t n, uint64_t sum, const char *what,
			      mzm_err *err)
{
	MZM_TRY(mzm_file_read_at(c->file, dst, (size_t)n, offset, err));
	if (mzm_sum64(dst, (size_t)n) != sum)
		return mzm_fail(err, MZM_EFORMAT, "%s: the checksum is wrong", what);
	return MZM_OK;
}

static bool is_hash(const char *text)
{
	return strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32;
}

static mzm_status parse_metadata(mzm_container *c, mzm_err *err)
{
	static const char *const keys[MZM_N_SIDE_FILES] = {"tokenizer", "tokenizer_config", "generation_config"};
	mzm_source *src = &c->base;
	const char *hash;
	mzm_config cfg;
	if (!json_is_object(c->meta))
		return mzm_fail(err, MZM_EFORMAT, "metadata: not a JSON object");
	mzm_status st = mzm_config_from_json(&cfg, json_object_get(c->meta, "config"), err);
	if (st != MZM_OK) {
		mzm_err_prefix(err, "metadata: config");
		return st;
	}
	MZM_TRY(mzm_source_set_config(src, &cfg, err));
	for (int i = 0; i < MZM_N_SIDE_FILES; i++) {
		MZM_TRY(mzm_json_string(c->meta, keys[i], NULL, &src->side[i], err));
		src->side_len[i] = src->side[i] ? json_string_length(json_object_get(c->meta, keys[i])) : 0;
	}
	st = mzm_source_set_origin(src, json_object_get(c->meta, "origin"), err);
	if (st != MZM_OK) {
		mzm_err_prefix(err, "metadata");
		return st;
	}
	MZM_TRY(mzm_json_bool(c->meta, "nonfinite", false, &src->allow_nonfinite, err));
	MZM_TRY(mzm_json_string(c->meta, "hash", "", &hash, err));
	if (!is_hash(hash))
		return mzm_fail(err, MZM_EFORMAT, "metadata: \"hash\" is not 32 hexadecimal digits");
	memcpy(src->hash, hash, 33);
	atomic_store(&src->has_hash, true);
	return MZM_OK;
}

static mzm_status read_metadata(mzm_container *c, mzm_err *err)
{
	mzm_status st;
	const mzm_header *h = &c->head;
	char *stored = NULL, *raw = NULL;
	mzm_packer *packer = NULL;
	MZM_TRY_OUT(mzm_alloc_for((void **)&stored, (size_t)h->meta_stored, "metadata", err));
	MZM_TRY_OUT(read_summed(c, stored, h->meta_offset, h->meta_stored, h->meta_sum, "metadata", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&raw, (size_t)h->meta_raw, "metadata", err));
	MZM_TRY_OUT(mzm_packer_create(&packer, err));
	st = mzm_unpack(packer, raw, (size_t)h->meta_raw, 1, h->meta_codec, stored, (size_t)h->meta_stored, err);
	if (st == MZM_EFORMAT)
		mzm_err_prefix(err, "metadata");
	if (st == MZM_OK)
		st = mzm_json_parse(&c->meta, raw, (size_t)h->meta_raw, "metadata", err);
	if (st == MZM_OK)
		st = parse_metadata(c, err);
out:
	mzm_packer_free(packer);
	mzm_free(raw);
	mzm_free(stored);
	return st;
}

/* ---- index ---- */

static mzm_status check_extent(const mzm_extent *x, const mzm_tensor *t, uint32_t row, uint64_t end, mzm_err *err)
{
	uint64_t row_bytes = mzm_row_bytes(t->dtype, t->n_cols);
	bool paired = t->kind == MZM_T_UPDOWN;
	if (x->row != row || x->n_rows < 1 || x->n_rows > (uint32_t)t->n_rows - row)
		return mzm_fail(err, MZM_EFORMAT, "rows %u + %u of %d, wanted from %u", x->row, x->n_rows,
				(int)t->n_rows, row);
	if (paired && x->n_rows % 2 != 0)
		return mzm_fail(err, MZM_EFORMAT, "parts the up row of a neuron from its down row");
	if (x->raw_bytes != x->n_rows * row_bytes || x->raw_bytes > MZM_MAX_EXTENT)
		return mzm_fail(err, MZM_EFORMAT, "%u raw bytes for %u rows of %llu", x->raw_bytes, x->n_rows,
				(unsigned long long)row_bytes);
	if (x->codec < 0 || x->codec >= MZM_N_CODECS)
		return mzm_fail(err, MZM_EUNSUPPORTED, "unknown codec %d", (int)x->codec);
	if (x->codec == MZM_CODEC_PLANES && mzm_dtype_is_quant(t->dtype))
		return mzm_fail(err, MZM_EFORMAT, "byte planes of type %s", mzm_dtype_name(t->dtype));
	if (x->codec == MZM_CODEC_RAW
		    ? x->stored_bytes != x->raw_bytes || x->stored_sum != x->raw_sum
		    : x->stored_bytes >= x->raw_bytes || x->raw_bytes / MZM_MAX_RATIO > x->stored_bytes)
		return mzm_fail(err, MZM_EFORMAT, "%u stored bytes for %u raw ones as %s", x->stored_bytes,
				x->raw_bytes, mzm_codec_name(x->codec));
	if (x->offset != mzm_extent_place(end, x->raw_bytes))
		return mzm_fail(err, MZM_EFORMAT, "at offset %llu instead of %llu", (unsigned long long)x->offset,
				(unsigned long long)mzm_extent_place(end, x->raw_bytes));
	return MZM_OK;
}

/* A tensor's type is the file's choice within these limits. */
static mzm_status check_type(mzm_dtype dtype, const mzm_tensor *t, mzm_err *err)
{
	bool norm = mzm_tensor_is_vector(t->kind);
	if (norm && dtype != MZM_F32)
		return mzm_fail(err, MZM_EFORMAT, "a norm of type %s; they are f32", mzm_dtype_name(dtype));
	if (t->role == MZM_ROLE_DRAFT && !mzm_dtype_is_quant(dtype))
		return mzm_fail(err, MZM_EFORMAT, "a draft image of type %s; it is q8 or q4", mzm_dtype_name(dtype));
	if (!mzm_dtype_fits(dtype, t->n_cols))
		return mzm_fail(err, MZM_EFORMAT, "%d columns are not whole blocks of type %s", (int)t->n_cols,
				mzm_dtype_name(dtype));
	return MZM_OK;
}

/* The entry says what the configuration demands. */
static mzm_status check_entry(const mzm_entry *e, mzm_tensor *t, uint32_t first_extent, uint32_t n_left, mzm_err *err)
{
	if (e->role > MZM_ROLE_DRAFT)
		return mzm_fail(err, MZM_EUNSUPPORTED, "role %u is not supported", e->role);
	if (e->role != (uint32_t)t->role)
		return mzm_fail(err, MZM_EFORMAT, "role %u instead of %d", e->role, (int)t->role);
	if (e->reserved != 0)
		return mzm_fail(err, MZM_EFORMAT, "reserved bytes are not zero");
	if (e->dtype >= MZM_N_DTYPES)
		return mzm_fail(err, MZM_EUNSUPPORTED, "type %u is not supported", e->dtype);
	if (e->kind != (uint32_t)t->kind || e->layer != t->layer)
		return mzm_fail(err, MZM_EFORMAT, "kind %u of layer %d stands in its place", e->kind, (int)e->layer);
	if (e->n_rows != (uint32_t)t->n_rows || e->n_cols != (uint32_t)t->n_cols)
		return mzm_fail(err, MZM_EFORMAT, "expected shape [%d, %d], found [%u, %u]", (int)t->n_rows,
				(int)t->n_cols, e->n_rows, e->n_cols);
	MZM_TRY(check_type((mzm_dtype)e->dtype, t, err));
	t->dtype = (mzm_dtype)e->dtype;
	if (e->raw_bytes != mzm_tensor_bytes(t))
		return mzm_fail(err, MZM_EFORMAT, "%llu raw bytes instead of %zu", (unsigned long long)e->raw_bytes,
				mzm_tensor_bytes(t));
	if (e->first_extent != first_extent || e->n_extents < 1 || e->n_extents > n_left)
		return mzm_fail(err, MZM_EFORMAT, "extents %u + %u, wanted from %u, %u left", e->first_extent,
				e->n_extents, first_extent, n_left);
	return MZM_OK;
}

/* Entry i and its extents; *end moves behind the last of them. */
static mzm_status check_tensor(mzm_container *c, int32_t i, uint32_t first_extent, uint64_t *end, mzm_err *err)
{
	char name[64];
	mzm_tensor *t = &c->base.tensors[i];
	const mzm_entry *e = &c->entries[i];
	uint32_t row = 0;
	mzm_status st = check_entry(e, t, first_extent, c->head.n_extents - first_extent, err);
	if (st != MZM_OK) {
		mzm_err_prefix(err, "index: tensor %s", mzm_tensor_name(t, name));
		return st;
	}
	for (uint32_t k = 0; k < e->n_extents; k++) {
		const mzm_extent *x = &c->extents[first_extent + k];
		st = x->tensor == (uint32_t)i ? check_extent(x, t, row, *end, err)
					      : mzm_fail(err, MZM_EFORMAT, "belongs to tensor %u", x->tensor);
		if (st != MZM_OK) {
			mzm_err_prefix(err, "index: tensor %s, extent %u", mzm_tensor_name(t, name), k);
			return st;
		}
		row += x->n_rows;
		*end = x->offset + x->stored_bytes;
	}
	if (row != (uint32_t)t->n_rows)
		return mzm_fail(err, MZM_EFORMAT, "index: tensor %s: its extents hold %u of %d rows",
				mzm_tensor_name(t, name), row, (int)t->n_rows);
	return MZM_OK;
}

uint32_t mzm_container_version(const mzm_config *cfg, bool quant)
{
	if (!mzm_config_is_plain(cfg) || cfg->act > MZM_ACT_RELU || cfg->rope > MZM_ROPE_LLAMA3)
		return 3;
	return quant ? 2 : 1;
}

static mzm_status check_version(const mzm_container *c, mzm_err *err)
{
	bool quant = mzm_source_has_draft(&c->base);
	for (int32_t i = 0; i < c->base.n_tensors; i++)
		quant = quant || mzm_dtype_is_quant(c->base.tensors[i].dtype);
	uint32_t needs = mzm_container_version(&c->base.cfg, quant);
	if (needs != c->head.version)
		return mzm_fail(err, MZM_EFORMAT, "header: version %u, but what the file holds is of version %u",
				c->head.version, needs);
	return MZM_OK;
}

static mzm_status check_index(mzm_container *c, mzm_err *err)
{
	uint64_t end = MZM_HEADER_BYTES;
	uint32_t n = 0;
	for (int32_t i = 0; i < c->base.n_tensors; i++) {
		MZM_TRY(check_tensor(c, i, n, &end, err));
		n += c->entries[i].n_extents;
	}
	if (n != c->head.n_extents)
		return mzm_fail(err, MZM_EFORMAT, "index: %u extents belong to no tensor", c->head.n_extents - n);
	if (mzm_extent_place(end, 0) != c->head.meta_offset)
		return mzm_fail(err, MZM_EFORMAT, "index: the metadata does not follow the last extent");
	return check_version(c, err);
}

/* The draft image comes whole or not at all; only a file that has one states its hash. */
static mzm_status check_count(mzm_container *c, mzm_err *err)
{
	mzm_source *src = &c->base;
	uint32_t n = (uint32_t)src->n_tensors, n_draft = (uint32_t)mzm_draft_count(&src->cfg);
	const json_t *draft = json_object_get(c->meta, "draft");
	const char *hash;
	if (c->head.n_tensors != n && c->head.n_tensors != n + n_draft)
		return mzm_fail(err, MZM_EFORMAT,
				"index: %u tensors, but this configuration has %u, and %u with a draft image",
				c->head.n_tensors, n, n + n_draft);
	if (c->head.n_tensors == n)
		return !draft ? MZM_OK : mzm_fail(err, MZM_EFORMAT, "metadata: \"draft\", but there is no draft image");
	if (!json_is_object(draft))
		return mzm_fail(err, MZM_EFORMAT, "metadata: \"draft\" is missing or not an object");
	MZM_TRY(mzm_json_string(draft, "hash", "", &hash, err));
	if (!is_hash(hash))
		return mzm_fail(err, MZM_EFORMAT, "metadata: the draft's \"hash\" is not 32 hexadecimal digits");
	memcpy(src->draft_hash, hash, 33);
	return mzm_source_add_draft(src, err);
}

static mzm_status read_index(mzm_container *c, mzm_err *err)
{
	mzm_status st;
	const mzm_header *h = &c->head;
	uint8_t *bytes = NULL;
	MZM_TRY(check_count(c, err));
	/* both counts were bounded by the index's size, and that by the file's */
	MZM_TRY_OUT(mzm_alloc_for((void **)&bytes, (size_t)h->index_bytes, "the index", err));
	MZM_TRY_OUT(read_summed(c, bytes, h->index_offset, h->index_bytes, h->index_sum, "index", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&c->entries, h->n_tensors * sizeof c->entries[0], "the index", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&c->extents, h->n_extents * sizeof c->extents[0], "the index", err));
	for (uint32_t i = 0; i < h->n_tensors; i++)
		c->entries[i] = entry_unpack(bytes + (size_t)i * MZM_TENSOR_BYTES);
	const uint8_t *extents = bytes + (size_t)h->n_tensors * MZM_TENSOR_BYTES;
	for (uint32_t i = 0; i < h->n_extents; i++)
		c->extents[i] = extent_unpack(extents + (size_t)i * MZM_EXTENT_BYTES);
	MZM_TRY_OUT(check_index(c, err));
out:
	mzm_free(bytes);
	return st;
}

/* ---- reading weights ---- */

/* stored: [x->stored_bytes] working space, used unless the extent is raw. */
static mzm_status read_extent(mzm_container *c, const mzm_extent *x, void *dst, size_t elem_bytes, mzm_packer *packer,
			      void *stored, mzm_err *err)
{
	void *where = x->codec == MZM_CODEC_RAW ? dst : stored;
	MZM_TRY(read_summed(c, where, x->offset, x->stored_bytes, x->stored_sum, "stored bytes", err));
	if (x->codec == MZM_CODEC_RAW)
		return MZM_OK;
	MZM_TRY(mzm_unpack(packer, dst, x->raw_bytes, elem_bytes, x->codec, stored, x->stored_bytes, err));
	if (mzm_sum64(dst, x->raw_bytes) != x->raw_sum)
		return mzm_fail(err, MZM_EFORMAT, "unpacked bytes: the checksum is wrong");
	return MZM_OK;
}

static mzm_status container_read(mzm_source *src, int32_t i, void *dst, mzm_err *err)
{
	mzm_container *c = (mzm_container *)src;
	const mzm_tensor *t = &src->tensors[i];
	const mzm_entry *e = &c->entries[i];
	const mzm_extent *x = &c->extents[e->first_extent];
	mzm_status st = MZM_OK;
	mzm_packer *packer = NULL;
	void *stored = NULL;
	uint32_t most = 0;
	char *at = dst, name[64];
	for (uint32_t k = 0; k < e->n_extents; k++)
		if (x[k].codec != MZM_CODEC_RAW && x[k].stored_bytes > most)
			most = x[k].stored_bytes;
	if (most) {
		MZM_TRY_OUT(mzm_packer_create(&packer, err));
		MZM_TRY_OUT(mzm_alloc_for(&stored, most, "stored bytes", err));
	}
	for (uint32_t k = 0; k < e->n_extents; k++) {
		st = read_extent(c, &x[k], at, mzm_dtype_bytes(t->dtype), packer, stored, err);
		if (st != MZM_OK) {
			mzm_err_prefix(err, "%s: tensor %s, extent %u", src->path, mzm_tensor_name(t, name), k);
			goto out;
		}
		at += x[k].raw_bytes;
	}
out:
	mzm_free(stored);
	mzm_packer_free(packer);
	return st;
}

/* ---- the rest of the interface ---- */

static uint64_t container_bytes_read(const mzm_source *src)
{
	return mzm_file_bytes_read(((const mzm_container *)src)->file);
}

static mzm_stored container_stored(const mzm_source *src, int32_t i)
{
	const mzm_container *c = (const mzm_container *)src;
	const mzm_entry *e = &c->entries[i];
	const mzm_extent *x = &c->extents[e->first_extent];
	mzm_stored out = {.n_extents = (int32_t)e->n_extents, .codec = mzm_codec_name(x[0].codec)};
	for (uint32_t k = 0; k < e->n_extents; k++) {
		out.bytes += x[k].stored_bytes;
		if (x[k].codec != x[0].codec)
			out.codec = "mixed";
	}
	return out;
}

static bool container_describe(const mzm_source *src, json_t *out)
{
	const mzm_container *c = (const mzm_container *)src;
	static const char *const keys[] = {"quant", "draft", "nonfinite", "provenance"};
	if (json_object_set_new(out, "version", json_integer((json_int_t)c->head.version)) != 0 ||
	    json_object_set_new(out, "file_bytes", json_integer((json_int_t)c->head.file_bytes)) != 0 ||
	    json_object_set_new(out, "metadata_bytes", json_integer((json_int_t)c->head.meta_stored)) != 0)
		return false;
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		json_t *v = json_object_get(c->meta, keys[i]);
		if (json_object_set(out, keys[i], v ? v : json_null()) != 0)
			return false;
	}
	return true;
}

static mzm_status check_padding(mzm_container *c, uint64_t from, uint64_t to, const char *before, mzm_err *err)
{
	uint8_t pad[4096];
	size_t n = (size_t)(to - from); /* below 4,096: check_index compared every offset with its place */
	MZM_TRY(mzm_file_read_at(c->file, pad, n, from, err));
	if (!is_zero(pad, n))
		return mzm_fail(err, MZM_EFORMAT, "%s: padding in front of %s at offset %llu is not zero", c->base.path,
				before, (unsigned long long)to);
	return MZM_OK;
}

static mzm_status container_verify(mzm_source *src, mzm_err *err)
{
	mzm_container *c = (mzm_container *)src;
	uint64_t end = MZM_HEADER_BYTES;
	char name[64], place[128];
	for (uint32_t i = 0; i < c->head.n_extents; i++) {
		const mzm_extent *x = &c->extents[i];
		snprintf(place, sizeof place, "tensor %s, extent %u", mzm_tensor_name(&src->tensors[x->tensor], name),
			 i - c->entries[x->tensor].first_extent);
		MZM_TRY(check_padding(c, end, x->offset, place, err));
		end = x->offset + x->stored_bytes;
	}
	MZM_TRY(check_padding(c, end, c->head.meta_offset, "the metadata", err));
	return check_padding(c, c->head.meta_offset + c->head.meta_stored, c->head.index_offset, "the index", err);
}

static bool container_uses(const mzm_source *src, const char *path)
{
	return mzm_path_is_same(path, src->path);
}

static void container_avoid_cache(mzm_source *src)
{
	mzm_file_avoid_cache(((mzm_container *)src)->file);
}

static void container_close(mzm_source *src)
{
	mzm_container *c = (mzm_container *)src;
	mzm_file_close(c->file);
	json_decref(c->meta);
	mzm_free(c->entries);
	mzm_free(c->extents);
}

static const mzm_source_ops container_ops = {
	.format = "mzm",
	.read = container_read,
	.bytes_read = container_bytes_read,
	.stored = container_stored,
	.describe = container_describe,
	.verify = container_verify,
	.uses = container_uses,
	.avoid_cache = container_avoid_cache,
	.close = container_close,
};

const mzm_extent *mzm_container_extents(const mzm_source *src, size_t *n)
{
	const mzm_container *c = (const mzm_container *)src;
	*n = src->ops == &container_ops ? c->head.n_extents : 0;
	return src->ops == &container_ops ? c->extents : NULL;
}

bool mzm_container_is(const mzm_source *src)
{
	return src->ops == &container_ops;
}

mzm_file *mzm_container_file(const mzm_source *src)
{
	return ((const mzm_container *)src)->file;
}

const mzm_extent *mzm_container_tensor(const mzm_source *src, int32_t i, uint32_t *n)
{
	const mzm_container *c = (const mzm_container *)src;
	*n = c->entries[i].n_extents;
	return c->extents + c->entries[i].first_extent;
}

/* Says what a file is that is no container. */
static mzm_status read_header(mzm_container *c, mzm_err *err)
{
	mzm_status st;
	uint8_t *page = NULL;
	uint64_t size = mzm_file_size(c->file);
	uint8_t magic[8] = {0};
	MZM_TRY(mzm_file_read_at(c->file, magic, size < 8 ? (size_t)size : 8, 0, err));
	if (memcmp(magic, "GGUF", 4) == 0)
		return mzm_fail(err, MZM_EUNSUPPORTED, "a GGUF file, not a .mzm container");
	if (memcmp(magic, MZM_FILE_MAGIC, 8) != 0)
		return mzm_fail(err, MZM_EFORMAT, "not a .mzm container");
	if (size < MZM_HEADER_BYTES)
		return mzm_fail(err, MZM_EFORMAT, "%llu bytes are fewer than the header has", (unsigned long long)size);
	MZM_TRY(mzm_alloc_for((void **)&page, MZM_HEADER_BYTES, "the header", err));
	MZM_TRY_OUT(mzm_file_read_at(c->file, page, MZM_HEADER_BYTES, 0, err));
	MZM_TRY_OUT(mzm_header_parse(&c->head, page, size, err));
out:
	mzm_free(page);
	return st;
}

mzm_status mzm_container_open(mzm_source **out, const char *path, mzm_err *err)
{
	mzm_status st;
	mzm_source *src = NULL;
	*out = NULL;
	MZM_TRY_OUT(mzm_source_init(&src, sizeof(mzm_container), &container_ops, path, err));
	mzm_container *c = (mzm_container *)src;
	MZM_TRY_OUT(mzm_file_open(&c->file, path, err));
	st = read_header(c, err);
	if (st == MZM_OK)
		st = read_metadata(c, err);
	if (st == MZM_OK)
		st = read_index(c, err);
	if (st != MZM_OK) {
		if (st != MZM_EIO) /* those name the file already */
			mzm_err_prefix(err, "%s", path);
		goto out;
	}
	*out = src;
	return MZM_OK;
out:
	mzm_source_close(src);
	return st;
}
