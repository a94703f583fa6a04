/* store_rig.h - what tests of the stores share: small models whose matrices are several spans, containers whose extents
 * lie anyhow, and models opened in one store or another. */
#ifndef STORE_RIG_H
#define STORE_RIG_H

#include "testing.h"

#include <math.h>

#include "demo.h"
#include "engine/engine.h"
#include "engine/plan.h"
#include "format/mzm_write.h"
#include "tiny_model.h"

/* Sanitizers make a process grow all the time. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define RIG_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RIG_SANITIZED 1
#endif
#ifndef RIG_SANITIZED
#define RIG_SANITIZED 0
#endif

/* ---- files ---- */

/* Two layers of 2,048 neurons and more: several sections, the last one not whole; and a head of two spans. */
static inline tiny_model *rig_tiny(int dim, int n_ffn, int n_vocab, uint64_t seed)
{
	tiny_spec spec = {.n_layers = 2, .dim = dim, .n_ffn = n_ffn, .n_heads = 4, .n_kv_heads = 2, .head_dim = dim / 4,
			  .n_vocab = n_vocab, .n_ctx = 1024, .dtype = "F32", .eos = -1};
	tiny_model *m = tiny_make(&spec, seed);
	tiny_write_tokenizer(m);
	return m;
}

static inline void rig_import(const char *from, const char *to, const char *quant, const char *draft, int zstd)
{
	mzm_err err = {0};
	mzm_import_params p = mzm_import_params_default();
	p.quant = quant;
	p.draft_quant = draft;
	p.quant_method = "nearest"; /* quick */
	p.zstd = zstd;
	if (mzm_import(from, to, &p, &err) != MZM_OK)
		fail_msg("%s", err.message);
}

/* Imports m and frees it. */
static inline void rig_write(tiny_model *m, const char *to, const char *quant, const char *draft, int zstd)
{
	rig_import(m->dir, to, quant, draft, zstd);
	tiny_free(m);
}

static inline void rig_copy(const char *from, const char *to)
{
	size_t n;
	char *bytes = testing_read(from, &n);
	testing_write(to, bytes, n);
	free(bytes);
}

/* A container under construction. */
typedef struct rig_file {
	uint8_t    *bytes; /* zeros behind what was written */
	uint64_t    end;
	mzm_entry  *entries;
	mzm_extent *extents;
	uint32_t    n_entries, n_extents;
	mzm_packer *packer;
	uint64_t    seed;
} rig_file;

/* Rows of the next extent: often few or odd, often whole pages at an odd place. */
static inline uint32_t rig_cut(rig_file *f, const mzm_tensor *t, uint32_t left)
{
	uint32_t step = t->kind == MZM_T_UPDOWN ? 2 : 1, most = t->kind == MZM_T_UPDOWN ? 6000 : 3000;
	uint32_t n = 1 + (uint32_t)(testing_random(&f->seed) % (testing_random(&f->seed) % 3 ? most : 20));
	if (testing_random(&f->seed) % 2)
		n = n / 64 * 64; /* whole pages for rows of 64 bytes and more */
	n = n / step * step;
	n = n < step ? step : n;
	return n < left ? n : left;
}

static inline void rig_add_extent(rig_file *f, const mzm_tensor *t, uint32_t row, uint32_t n_rows, const char *data)
{
	static const int levels[] = {0, 0, 1};
	size_t raw = n_rows * mzm_row_bytes(t->dtype, t->n_cols), n_stored;
	const void *stored;
	mzm_extent *x = &f->extents[f->n_extents++];
	assert_int_equal(mzm_pack(f->packer, &x->codec, &stored, &n_stored, data, raw, mzm_dtype_bytes(t->dtype),
				  levels[testing_random(&f->seed) % 3], NULL),
			 MZM_OK);
	x->tensor = f->n_entries;
	x->row = row;
	x->n_rows = n_rows;
	x->raw_bytes = (uint32_t)raw;
	x->stored_bytes = (uint32_t)n_stored;
	x->offset = mzm_extent_place(f->end, raw);
	x->raw_sum = mzm_sum64(data, raw);
	x->stored_sum = mzm_sum64(stored, n_stored);
	memcpy(f->bytes + x->offset, stored, n_stored);
	f->end = x->offset + n_stored;
}

static inline void rig_add_tensor(rig_file *f, mzm_source *src, int32_t i)
{
	mzm_tensor t = mzm_source_tensor(src, i);
	size_t row_bytes = mzm_row_bytes(t.dtype, t.n_cols);
	char *data = malloc(mzm_tensor_bytes(&t));
	uint32_t first = f->n_extents;
	assert_int_equal(mzm_source_read(src, i, data, NULL), MZM_OK);
	for (uint32_t row = 0, n; row < (uint32_t)t.n_rows; row += n) {
		n = rig_cut(f, &t, (uint32_t)t.n_rows - row);
		rig_add_extent(f, &t, row, n, data + row * row_bytes);
	}
	f->entries[f->n_entries++] = (mzm_entry){
		.kind = (uint32_t)t.kind, .dtype = (uint32_t)t.dtype, .role = (uint32_t)t.role, .layer = t.layer,
		.n_rows = (uint32_t)t.n_rows, .n_cols = (uint32_t)t.n_cols, .first_extent = first,
		.n_extents = f->n_extents - first, .raw_bytes = mzm_tensor_bytes(&t)};
	free(data);
}

static inline void rig_finish(rig_file *f, const char *old, mzm_header h, const char *to)
{
	uint8_t *page = f->bytes;
	uint64_t meta = h.meta_offset;
	h.n_tensors = f->n_entries;
	h.n_extents = f->n_extents;
	h.meta_offset = mzm_extent_place(f->end, 0);
	memcpy(f->bytes + h.meta_offset, old + meta, h.meta_stored);
	h.index_offset = mzm_extent_place(h.meta_offset + h.meta_stored, 0);
	uint8_t *at = f->bytes + h.index_offset;
	for (uint32_t i = 0; i < f->n_entries; i++, at += MZM_TENSOR_BYTES)
		mzm_entry_pack(at, &f->entries[i]);
	for (uint32_t i = 0; i < f->n_extents; i++, at += MZM_EXTENT_BYTES)
		mzm_extent_pack(at, &f->extents[i]);
	h.file_bytes = (uint64_t)(at - f->bytes);
	h.index_bytes = h.file_bytes - h.index_offset;
	h.index_sum = mzm_sum64(f->bytes + h.index_offset, h.index_bytes);
	mzm_header_pack(page, &h);
	testing_write(to, f->bytes, h.file_bytes);
}

/* The same model in extents of any length and either codec, as no writer of ours would cut them. */
static inline void rig_recut(const char *from, const char *to, uint64_t seed)
{
	enum { MOST = 40000 };
	mzm_source *src;
	mzm_header h;
	size_t n;
	char *old = testing_read(from, &n);
	assert_int_equal(mzm_header_parse(&h, (const uint8_t *)old, n, NULL), MZM_OK);
	assert_int_equal(mzm_source_open(&src, from, NULL), MZM_OK);
	uint64_t room = (uint64_t)MOST * (MZM_EXTENT_BYTES + 64);
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		room += 2 * mzm_tensor_bytes(&t) + 8192;
	}
	rig_file f = {.bytes = calloc(1, n + room), .end = MZM_HEADER_BYTES, .seed = seed};
	f.entries = calloc((size_t)mzm_source_n_tensors(src), sizeof *f.entries);
	f.extents = calloc(MOST, sizeof *f.extents);
	assert_int_equal(mzm_packer_create(&f.packer, NULL), MZM_OK);
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++)
		rig_add_tensor(&f, src, i);
	rig_finish(&f, old, h, to);
	mzm_packer_free(f.packer);
	mzm_source_close(src);
	free(f.entries);
	free(f.extents);
	free(f.bytes);
	free(old);
}

/* Changes a weight of tensor i and makes its extent's checksums right again: a file that nothing is wrong with. */
static inline void rig_change_weight(const char *path, int32_t i)
{
	mzm_source *src;
	size_t n;
	uint32_t n_extents;
	assert_int_equal(mzm_source_open(&src, path, NULL), MZM_OK);
	uint8_t *bytes = (uint8_t *)testing_read(path, &n);
	mzm_header h;
	assert_int_equal(mzm_header_parse(&h, bytes, n, NULL), MZM_OK);
	mzm_extent x = *mzm_container_tensor(src, i, &n_extents);
	size_t n_all;
	const mzm_extent *all = mzm_container_extents(src, &n_all);
	size_t number = (size_t)(mzm_container_tensor(src, i, &n_extents) - all);
	assert_int_equal(x.codec, MZM_CODEC_RAW);
	bytes[x.offset + x.stored_bytes / 2] ^= 0x40;
	x.stored_sum = x.raw_sum = mzm_sum64(bytes + x.offset, x.stored_bytes);
	uint8_t *extents = bytes + h.index_offset + h.n_tensors * (size_t)MZM_TENSOR_BYTES;
	mzm_extent_pack(extents + number * MZM_EXTENT_BYTES, &x);
	h.index_sum = mzm_sum64(bytes + h.index_offset, h.index_bytes);
	mzm_header_pack(bytes, &h);
	mzm_source_close(src);
	testing_write(path, bytes, n);
	free(bytes);
}

/* ---- models ---- */

typedef struct rig_how {
	const char *store;
	const char *io;
	uint64_t    ram;
	int         n_threads, n_sessions;
	int32_t     n_ctx;
	const mzm_gen_params *drafts; /* to come; NULL: none, so that no neurons are held for them */
} rig_how;

typedef struct rig {
	mzm_model   *model;
	mzm_session *session;
} rig;

static inline mzm_status rig_try(rig *r, const char *path, const rig_how *how, mzm_err *err)
{
	mzm_session_params sp = {.n_threads = how->n_threads ? how->n_threads : 1, .n_ctx = how->n_ctx};
	mzm_model_params mp = {.store = how->store, .io = how->io, .ram_bytes = how->ram, .session = &sp,
			       .n_sessions = how->n_sessions, .drafts = how->drafts};
	*r = (rig){0};
	mzm_status st = mzm_model_open(&r->model, path, &mp, err);
	if (st == MZM_OK)
		st = mzm_session_create(&r->session, r->model, &sp, err);
	return st;
}

static inline void rig_close(rig *r)
{
	mzm_session_free(r->session);
	mzm_model_close(r->model);
	*r = (rig){0};
}

static inline rig rig_open(const char *path, const rig_how *how)
{
	rig r;
	mzm_err err = {0};
	if (rig_try(&r, path, how, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return r;
}

static inline mzm_plan rig_plan(const char *path, const rig_how *how, mzm_status want)
{
	mzm_plan plan;
	mzm_err err = {0};
	mzm_session_params sp = {.n_threads = how->n_threads ? how->n_threads : 1, .n_ctx = how->n_ctx};
	mzm_model_params mp = {.store = how->store, .io = how->io, .ram_bytes = how->ram, .session = &sp,
			       .n_sessions = how->n_sessions, .drafts = how->drafts};
	mzm_status st = mzm_plan_make(&plan, path, &mp, &err);
	if (st != want)
		fail_msg("%s: status %d instead of %d", err.message, (int)st, (int)want);
	return plan;
}

/* Streams under the smallest budget that is accepted now, and `more` bytes: what the process takes is measured anew at
 * every call, so it is found by trying. */
static inline rig rig_open_tight(const char *path, rig_how how, uint64_t more)
{
	rig r;
	mzm_err err = {0};
	mzm_status st = MZM_EARG;
	how.store = "stream";
	for (uint64_t i = 0; st == MZM_EARG && i < 1000; i++) {
		err = (mzm_err){0};
		how.ram = 0;
		how.ram = rig_plan(path, &how, MZM_OK).smallest_bytes + more + (i << 16);
		st = rig_try(&r, path, &how, &err);
		if (st != MZM_OK)
			rig_close(&r);
	}
	if (st != MZM_OK)
		fail_msg("%s", err.message);
	return r;
}

static inline size_t rig_n_vocab(const rig *r)
{
	return (size_t)mzm_model_get_info(r->model)->n_vocab;
}

/* False, with a message, where this machine does not let us use it. */
static inline bool rig_has_io(const char *path, const char *io)
{
	rig r;
	mzm_err err = {0};
	rig_how how = {.store = "stream", .io = io};
	mzm_status st = rig_try(&r, path, &how, &err);
	rig_close(&r);
	if (st == MZM_OK)
		return true;
	print_message("%s is left out: %s\n", io, err.message);
	assert_int_equal(st, MZM_EUNSUPPORTED);
	assert_string_equal(io, "uring");
	return false;
}

#endif
