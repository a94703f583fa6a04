/* mzm_write.c - see mzm_write.h.
 *
 * Order of writing: extents as they come, metadata, index, and the header last; base/io.c syncs and
 * renames. Padding is never written: the file is new, what is skipped reads as zeros. */
#include "format/mzm_write.h"

#include <string.h>

#include "base/io.h"
#include "base/str.h"

#define META_LEVEL 12 /* for -1: it is small and mostly text */

struct mzm_container_writer {
	mzm_writer *file;
	mzm_config  cfg;
	int         level;
	mzm_packer *packer;
	mzm_hasher *hasher[2];           /* of the model, of the draft image */
	mzm_entry  *entries;             /* [n_entries] of mzm_tensor_count() + mzm_draft_count() */
	mzm_extent *extents;             /* [n_extents] of extents_cap */
	uint32_t    n_entries, n_extents, extents_cap;
	uint64_t    end;                 /* of the last extent */
};

mzm_status mzm_container_create(mzm_container_writer **out, const char *path, const mzm_config *cfg, int level,
				mzm_err *err)
{
	mzm_status st;
	mzm_container_writer *w = NULL;
	*out = NULL;
	MZM_TRY_OUT(mzm_alloc_for((void **)&w, sizeof *w, path, err));
	w->cfg = *cfg;
	w->level = level;
	w->end = MZM_HEADER_BYTES;
	size_t most = (size_t)mzm_tensor_count(cfg) + (size_t)mzm_draft_count(cfg);
	MZM_TRY_OUT(mzm_alloc_for((void **)&w->entries, most * sizeof w->entries[0], "the index", err));
	MZM_TRY_OUT(mzm_packer_create(&w->packer, err));
	for (int role = 0; role < 2; role++)
		MZM_TRY_OUT(mzm_hasher_create(&w->hasher[role], cfg, err));
	MZM_TRY_OUT(mzm_writer_open(&w->file, path, err));
	*out = w;
	return MZM_OK;
out:
	mzm_container_discard(w);
	return st;
}

void mzm_container_discard(mzm_container_writer *w)
{
	if (!w)
		return;
	mzm_writer_close(w->file);
	mzm_hasher_free(w->hasher[0]);
	mzm_hasher_free(w->hasher[1]);
	mzm_packer_free(w->packer);
	mzm_free(w->entries);
	mzm_free(w->extents);
	mzm_free(w);
}

void mzm_container_hash(const mzm_container_writer *w, char hex[33])
{
	mzm_hasher_finish(w->hasher[MZM_ROLE_MODEL], hex);
}

void mzm_container_draft_hash(const mzm_container_writer *w, char hex[33])
{
	mzm_hasher_finish(w->hasher[MZM_ROLE_DRAFT], hex);
}

/* Rows of every extent but the last: a power of two, so that extents fill whole pages and a run of a power of two of
 * rows is a run of extents; near the target, neurons undivided. */
static uint32_t rows_per_extent(const mzm_tensor *t)
{
	uint64_t row_bytes = mzm_row_bytes(t->dtype, t->n_cols), rows = t->kind == MZM_T_UPDOWN ? 2 : 1;
	while (rows < MZM_HEADER_BYTES && rows * row_bytes % MZM_HEADER_BYTES != 0 &&
	       2 * rows * row_bytes <= MZM_MAX_EXTENT)
		rows *= 2;
	while (2 * rows * row_bytes <= MZM_EXTENT_TARGET + MZM_EXTENT_TARGET / 2)
		rows *= 2;
	return (uint32_t)rows;
}

static mzm_status grow_extents(mzm_container_writer *w, mzm_err *err)
{
	if (w->n_extents < w->extents_cap)
		return MZM_OK;
	if (w->extents_cap > UINT32_MAX / 2)
		return mzm_fail(err, MZM_EUNSUPPORTED, "too many extents");
	uint32_t cap = w->extents_cap ? 2 * w->extents_cap : 64;
	mzm_extent *grown = mzm_realloc(w->extents, w->n_extents * sizeof *grown, cap * sizeof *grown);
	if (!grown)
		return mzm_fail(err, MZM_ENOMEM, "out of memory: the index");
	w->extents = grown;
	w->extents_cap = cap;
	return MZM_OK;
}

static mzm_status add_extent(mzm_container_writer *w, const mzm_tensor *t, uint32_t row, uint32_t n_rows,
			     const char *data, mzm_err *err)
{
	size_t elem = mzm_dtype_bytes(t->dtype), raw = n_rows * mzm_row_bytes(t->dtype, t->n_cols), n_stored;
	const void *stored;
	MZM_TRY(grow_extents(w, err));
	mzm_extent *x = &w->extents[w->n_extents];
	MZM_TRY(mzm_pack(w->packer, &x->codec, &stored, &n_stored, data, raw, elem, w->level, err));
	x->tensor = w->n_entries;
	x->row = row;
	x->n_rows = n_rows;
	x->raw_bytes = (uint32_t)raw;
	x->stored_bytes = (uint32_t)n_stored;
	x->offset = mzm_extent_place(w->end, raw);
	x->raw_sum = mzm_sum64(data, raw);
	x->stored_sum = x->codec == MZM_CODEC_RAW ? x->raw_sum : mzm_sum64(stored, n_stored);
	MZM_TRY(mzm_writer_write_at(w->file, stored, n_stored, x->offset, err));
	w->end = x->offset + n_stored;
	w->n_extents++;
	return MZM_OK;
}

static bool is_next(const mzm_container_writer *w, const mzm_tensor *t)
{
	int32_t i = (int32_t)w->n_entries, n = mzm_tensor_count(&w->cfg);
	if (i >= n + mzm_draft_count(&w->cfg))
		return false;
	mzm_tensor want = i < n ? mzm_tensor_at(&w->cfg, i) : mzm_draft_at(&w->cfg, i - n);
	return want.role == t->role && want.kind == t->kind && want.layer == t->layer;
}

mzm_status mzm_container_add(mzm_container_writer *w, const mzm_tensor *t, const void *data, mzm_err *err)
{
	size_t row_bytes = mzm_row_bytes(t->dtype, t->n_cols);
	if (!is_next(w, t))
		return mzm_fail(err, MZM_EINTERNAL, "tensors must be added in canonical order");
	uint32_t n_rows = (uint32_t)t->n_rows, step = rows_per_extent(t);
	mzm_entry *e = &w->entries[w->n_entries];
	*e = (mzm_entry){
		.role = (uint32_t)t->role,
		.kind = (uint32_t)t->kind,
		.layer = t->layer,
		.dtype = (uint32_t)t->dtype,
		.n_rows = n_rows,
		.n_cols = (uint32_t)t->n_cols,
		.first_extent = w->n_extents,
		.raw_bytes = mzm_tensor_bytes(t),
	};
	for (uint32_t row = 0; row < n_rows; row += step)
		MZM_TRY(add_extent(w, t, row, n_rows - row < step ? n_rows - row : step,
				   (const char *)data + row * row_bytes, err));
	e->n_extents = w->n_extents - e->first_extent;
	mzm_hasher_add(w->hasher[t->role], t, data);
	w->n_entries++;
	return MZM_OK;
}

static int add_text(const char *bytes, size_t n, void *str)
{
	mzm_str_add(str, bytes, n);
	return ((mzm_str *)str)->failed ? -1 : 0;
}

static bool has_draft(const mzm_container_writer *w)
{
	return w->n_entries > (uint32_t)mzm_tensor_count(&w->cfg);
}

/* The type of the draft image: of its tensors, "mixed" when they differ. */
static const char *draft_type(const mzm_container_writer *w)
{
	const mzm_entry *last = &w->entries[w->n_entries - 1];
	for (uint32_t i = (uint32_t)mzm_tensor_count(&w->cfg); i < w->n_entries; i++)
		if (w->entries[i].dtype != last->dtype)
			return "mixed";
	return mzm_dtype_name((mzm_dtype)last->dtype);
}

/* The members that follow from the tensors. */
static bool complete_metadata(const mzm_container_writer *w, json_t *meta)
{
	char hex[33], draft_hex[33];
	mzm_container_hash(w, hex);
	mzm_container_draft_hash(w, draft_hex);
	return json_object_set_new(meta, "config", mzm_config_to_json(&w->cfg)) == 0 &&
	       json_object_set_new(meta, "hash", json_string(hex)) == 0 &&
	       (!has_draft(w) || json_object_set_new(meta, "draft", json_pack("{s:s, s:s}", "dtype", draft_type(w),
									       "hash", draft_hex)) == 0);
}

static mzm_status write_metadata(mzm_container_writer *w, mzm_header *h, json_t *meta, mzm_err *err)
{
	mzm_status st = MZM_OK;
	mzm_str text = {0};
	const void *stored;
	size_t n_stored;
	if (!complete_metadata(w, meta) || json_dump_callback(meta, add_text, &text, JSON_COMPACT) != 0)
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "out of memory: metadata"));
	if (text.len > MZM_MAX_METADATA)
		MZM_TRY_OUT(mzm_fail(err, MZM_EUNSUPPORTED, "%zu bytes of metadata are more than a container may hold",
				     text.len));
	MZM_TRY_OUT(mzm_pack(w->packer, &h->meta_codec, &stored, &n_stored, text.data, text.len, 1,
			     w->level < 0 ? META_LEVEL : w->level, err));
	h->meta_raw = text.len;
	h->meta_stored = n_stored;
	h->meta_sum = mzm_sum64(stored, n_stored);
	h->meta_offset = mzm_extent_place(w->end, 0);
	MZM_TRY_OUT(mzm_writer_write_at(w->file, stored, n_stored, h->meta_offset, err));
out:
	mzm_str_free(&text);
	return st;
}

static mzm_status write_index(mzm_container_writer *w, mzm_header *h, mzm_err *err)
{
	uint8_t *bytes;
	h->n_tensors = w->n_entries;
	h->n_extents = w->n_extents;
	h->index_bytes = (uint64_t)w->n_entries * MZM_TENSOR_BYTES + (uint64_t)w->n_extents * MZM_EXTENT_BYTES;
	h->index_offset = mzm_extent_place(h->meta_offset + h->meta_stored, 0);
	h->file_bytes = h->index_offset + h->index_bytes;
	MZM_TRY(mzm_alloc_for((void **)&bytes, (size_t)h->index_bytes, "the index", err));
	for (uint32_t i = 0; i < w->n_entries; i++)
		mzm_entry_pack(bytes + (size_t)i * MZM_TENSOR_BYTES, &w->entries[i]);
	uint8_t *extents = bytes + (size_t)w->n_entries * MZM_TENSOR_BYTES;
	for (uint32_t i = 0; i < w->n_extents; i++)
		mzm_extent_pack(extents + (size_t)i * MZM_EXTENT_BYTES, &w->extents[i]);
	h->index_sum = mzm_sum64(bytes, (size_t)h->index_bytes);
	mzm_status st = mzm_writer_write_at(w->file, bytes, (size_t)h->index_bytes, h->index_offset, err);
	mzm_free(bytes);
	return st;
}

mzm_status mzm_container_finish(mzm_container_writer *w, json_t *meta, mzm_err *err)
{
	mzm_header h = {0};
	bool quant = has_draft(w);
	uint8_t page[MZM_HEADER_BYTES];
	uint32_t n = (uint32_t)mzm_tensor_count(&w->cfg);
	for (uint32_t i = 0; i < w->n_entries; i++)
		quant = quant || mzm_dtype_is_quant((mzm_dtype)w->entries[i].dtype);
	h.version = mzm_container_version(&w->cfg, quant);
	if (w->n_entries != n && w->n_entries != n + (uint32_t)mzm_draft_count(&w->cfg))
		return mzm_fail(err, MZM_EINTERNAL, "tensors are missing");
	MZM_TRY(write_metadata(w, &h, meta, err));
	MZM_TRY(write_index(w, &h, err));
	mzm_header_pack(page, &h);
	MZM_TRY(mzm_writer_write_at(w->file, page, sizeof page, 0, err));
	return mzm_writer_commit(w->file, err);
}
