/* hf.c - a Hugging Face directory as a source of canonical tensors.
 *
 * Owns the directory's files while open: config.json, the safetensors set, the tokenizer texts. Opening
 * costs O(metadata) and settles everything about shapes and types: each needed tensor is there with
 * the right shape, no other is left over. Reading is streaming: a matrix goes straight to its
 * destination; up and down of a layer are interleaved through one block of a few MiB.
 *
 * It does not convert: a canonical tensor keeps the file's type, but norms become f32, and so do up and
 * down where they differ. */
#include "format/source.h"

#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/io.h"
#include "base/str.h"
#include "format/names.h"
#include "format/safetensors.h"

#define BLOCK_BYTES   ((size_t)8 << 20)
#define TILE_COLS     256 /* of down's rows at once: their cache lines fit L1 */
#define MAX_CONFIG    ((size_t)4 << 20)
#define MAX_SIDE_FILE ((size_t)64 << 20)

typedef struct hf_tensor {
	const mzm_st_tensor *part[2]; /* [n_parts] */
	mzm_dtype            dtype[2];
	int                  n_parts;
} hf_tensor;

typedef struct hf_source {
	mzm_source  base;
	mzm_st_set *set;
	hf_tensor  *sources;                  /* [base.n_tensors] */
	char       *text[MZM_N_SIDE_FILES];
} hf_source;

/* ---- opening ---- */

static mzm_status path_of(mzm_str *out, const hf_source *hf, const char *name, mzm_err *err)
{
	mzm_str_path(out, hf->base.path, name);
	return out->failed ? mzm_fail(err, MZM_ENOMEM, "%s: out of memory", hf->base.path) : MZM_OK;
}

/* *data NULL when an optional file is absent. -> mzm_free */
static mzm_status read_file(const hf_source *hf, const char *name, bool optional, size_t max, char **data, size_t *len,
			    mzm_err *err)
{
	mzm_status st;
	mzm_str path = {0};
	*data = NULL;
	*len = 0;
	MZM_TRY_OUT(path_of(&path, hf, name, err));
	if (!mzm_path_exists(path.data)) {
		if (!optional)
			st = mzm_fail(err, MZM_EFORMAT, "%s: %s is missing", hf->base.path, name);
		goto out;
	}
	MZM_TRY_OUT(mzm_read_all(path.data, max, data, len, err));
out:
	mzm_str_free(&path);
	return st;
}

static mzm_status read_side_files(hf_source *hf, mzm_err *err)
{
	for (int i = 0; i < MZM_N_SIDE_FILES; i++) {
		MZM_TRY(read_file(hf, mzm_side_file_name((mzm_side_file)i), true, MAX_SIDE_FILE, &hf->text[i],
				  &hf->base.side_len[i], err));
		hf->base.side[i] = hf->text[i];
	}
	return MZM_OK;
}

static mzm_status read_config(hf_source *hf, mzm_err *err)
{
	mzm_status st;
	mzm_config cfg;
	char *text = NULL;
	size_t len;
	json_t *config = NULL, *generation = NULL;
	const char *gen_text = hf->base.side[MZM_GENERATION_CONFIG];
	MZM_TRY_OUT(read_file(hf, "config.json", false, MAX_CONFIG, &text, &len, err));
	st = mzm_json_parse(&config, text, len, "config.json", err);
	if (st == MZM_OK && gen_text)
		st = mzm_json_parse(&generation, gen_text, hf->base.side_len[MZM_GENERATION_CONFIG],
				    mzm_side_file_name(MZM_GENERATION_CONFIG), err);
	if (st == MZM_OK) {
		st = mzm_config_from_hf(&cfg, config, generation, err);
		if (st != MZM_OK)
			mzm_err_prefix(err, "config.json");
	}
	if (st != MZM_OK) {
		mzm_err_prefix(err, "%s", hf->base.path);
		goto out;
	}
	MZM_TRY_OUT(mzm_source_set_config(&hf->base, &cfg, err));
out:
	json_decref(config);
	json_decref(generation);
	mzm_free(text);
	return st;
}

#define SHAPE_TEXT (MZM_ST_MAX_DIMS * 22)

static void shape_text(char out[SHAPE_TEXT], int32_t n_dims, const uint64_t *shape)
{
	int at = 0;
	out[0] = 0;
	for (int32_t i = 0; i < n_dims; i++)
		at += snprintf(out + at, (size_t)(SHAPE_TEXT - at), "%s%llu", i ? ", " : "",
			       (unsigned long long)shape[i]);
}

static mzm_status check_part(const hf_source *hf, const mzm_st_tensor *t, const mzm_hf_part *want, mzm_dtype *dtype,
			     mzm_err *err)
{
	char expected[SHAPE_TEXT], found[SHAPE_TEXT];
	uint64_t shape[2] = {(uint64_t)want->shape[0], (uint64_t)want->shape[1]};
	shape_text(expected, want->n_dims, shape);
	if (!t)
		return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s [%s] is missing", hf->base.path, want->name, expected);
	if (t->n_dims != want->n_dims || memcmp(t->shape, shape, (size_t)want->n_dims * sizeof shape[0]) != 0) {
		shape_text(found, t->n_dims, t->shape);
		return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s: expected shape [%s], found [%s]", hf->base.path,
				want->name, expected, found);
	}
	if (!mzm_st_dtype(dtype, t))
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: tensor %s: type %s is not supported", hf->base.path,
				want->name, t->dtype);
	return MZM_OK;
}

/* Finds the parts of every canonical tensor and settles its type. used: [mzm_st_count] */
static mzm_status resolve(hf_source *hf, bool *used, mzm_err *err)
{
	for (int32_t i = 0; i < hf->base.n_tensors; i++) {
		mzm_tensor *t = &hf->base.tensors[i];
		hf_tensor *s = &hf->sources[i];
		mzm_hf_part want[2];
		s->n_parts = mzm_names_parts(want, t, &hf->base.cfg);
		for (int k = 0; k < s->n_parts; k++) {
			s->part[k] = mzm_st_find(hf->set, want[k].name);
			MZM_TRY(check_part(hf, s->part[k], &want[k], &s->dtype[k], err));
			used[s->part[k] - mzm_st_at(hf->set, 0)] = true;
		}
		if (want[0].n_dims == 2) /* norms stay f32 */
			t->dtype = s->n_parts == 2 && s->dtype[0] != s->dtype[1] ? MZM_F32 : s->dtype[0];
	}
	return MZM_OK;
}

static mzm_status refuse_leftovers(const hf_source *hf, const bool *used, mzm_err *err)
{
	mzm_hf_part head[2];
	mzm_tensor t = {.kind = MZM_T_HEAD, .layer = -1, .n_rows = hf->base.cfg.n_vocab, .n_cols = hf->base.cfg.dim};
	mzm_dtype dtype;
	mzm_names_parts(head, &t, &hf->base.cfg);
	for (size_t i = 0; i < mzm_st_count(hf->set); i++) {
		const mzm_st_tensor *s = mzm_st_at(hf->set, i);
		if (used[i])
			continue;
		if (!mzm_names_is_ignorable(s->name, &hf->base.cfg))
			return mzm_fail(err, MZM_EUNSUPPORTED, "%s: tensor %s belongs to no part of this architecture",
					hf->base.path, s->name);
		if (strcmp(s->name, head[0].name) == 0)
			MZM_TRY(check_part(hf, s, &head[0], &dtype, err));
	}
	return MZM_OK;
}

static mzm_status match_tensors(hf_source *hf, mzm_err *err)
{
	mzm_status st;
	bool *used = NULL;
	MZM_TRY_OUT(mzm_alloc_for((void **)&hf->sources, (size_t)hf->base.n_tensors * sizeof hf->sources[0],
				  "the tensor table", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&used, mzm_st_count(hf->set) * sizeof used[0], "the tensor table", err));
	MZM_TRY_OUT(resolve(hf, used, err));
	MZM_TRY_OUT(refuse_leftovers(hf, used, err));
out:
	mzm_free(used);
	return st;
}

/* ---- reading ---- */

static void widen(float *dst, const void *src, mzm_dtype dtype, size_t n)
{
	const char *bytes = src;
	for (size_t i = 0; i < n; i++) {
		uint16_t h;
		if (dtype == MZM_F32) {
			memcpy(&dst[i], bytes + 4 * i, 4);
			continue;
		}
		memcpy(&h, bytes + 2 * i, 2);
		dst[i] = dtype == MZM_BF16 ? mzm_bf16_to_f32(h) : mzm_f16_to_f32(h);
	}
}

/* Rows of one part, in the canonical type. */
typedef struct block {
	char  *raw, *wide; /* as in the file; as f32, where that differs */
	size_t n_rows;     /* that fit */
} block;

static mzm_status block_alloc(block *b, size_t n_rows, size_t n_cols, mzm_dtype from, mzm_dtype to, mzm_err *err)
{
	size_t row = n_cols * mzm_dtype_bytes(to); /* the wider of the two */
	b->n_rows = BLOCK_BYTES / row;
	b->n_rows = b->n_rows < 1 ? 1 : b->n_rows > n_rows ? n_rows : b->n_rows;
	MZM_TRY(mzm_alloc_for((void **)&b->raw, b->n_rows * row, "a block of rows", err));
	if (from != to)
		MZM_TRY(mzm_alloc_for((void **)&b->wide, b->n_rows * row, "a block of rows", err));
	return MZM_OK;
}

static void block_free(block *b)
{
	mzm_free(b->raw);
	mzm_free(b->wide);
}

/* Rows row .. row+n-1 of a matrix of n_cols; *rows is what b holds them in. */
static mzm_status block_load(block *b, const char **rows, const hf_source *hf, const mzm_st_tensor *part,
			     mzm_dtype dtype, size_t row, size_t n, size_t n_cols, mzm_err *err)
{
	size_t elem = mzm_dtype_bytes(dtype);
	MZM_TRY(mzm_st_read(hf->set, part, b->raw, n * n_cols * elem, (uint64_t)row * n_cols * elem, err));
	if (b->wide)
		widen((float *)(void *)b->wide, b->raw, dtype, n * n_cols);
	*rows = b->wide ? b->wide : b->raw;
	return MZM_OK;
}

static void put_up(char *dst, const char *rows, size_t row, size_t n, size_t row_bytes)
{
	for (size_t r = 0; r < n; r++)
		memcpy(dst + 2 * (row + r) * row_bytes, rows + r * row_bytes, row_bytes);
}

/* Rows col .. col+n-1 of down [dim, n_ffn] become columns of dst's odd rows. Always inlined with a constant
 * elem, so that each copy is one move. */
static inline __attribute__((always_inline)) void put_down_as(char *dst, const char *rows, size_t col, size_t n,
							     size_t n_ffn, size_t dim, size_t elem)
{
	for (size_t c0 = 0; c0 < n; c0 += TILE_COLS) {
		size_t c1 = n - c0 < TILE_COLS ? n : c0 + TILE_COLS;
		for (size_t j = 0; j < n_ffn; j++) {
			char *out = dst + ((2 * j + 1) * dim + col) * elem;
			for (size_t c = c0; c < c1; c++)
				memcpy(out + c * elem, rows + (c * n_ffn + j) * elem, elem);
		}
	}
}

static void put_down(char *dst, const char *rows, size_t col, size_t n, size_t n_ffn, size_t dim, size_t elem)
{
	if (elem == 2)
		put_down_as(dst, rows, col, n, n_ffn, dim, 2);
	else
		put_down_as(dst, rows, col, n, n_ffn, dim, 4);
}

/* Half of an up-down matrix: k 0 the up rows, 1 the down columns. */
static mzm_status read_half(hf_source *hf, const hf_tensor *s, int k, const mzm_tensor *t, char *dst, mzm_err *err)
{
	mzm_status st;
	block b = {0};
	const char *rows;
	size_t dim = (size_t)t->n_cols, n_ffn = (size_t)t->n_rows / 2, elem = mzm_dtype_bytes(t->dtype);
	size_t n_rows = k ? dim : n_ffn, n_cols = k ? n_ffn : dim;
	MZM_TRY_OUT(block_alloc(&b, n_rows, n_cols, s->dtype[k], t->dtype, err));
	for (size_t row = 0; row < n_rows; row += b.n_rows) {
		size_t n = n_rows - row < b.n_rows ? n_rows - row : b.n_rows;
		MZM_TRY_OUT(block_load(&b, &rows, hf, s->part[k], s->dtype[k], row, n, n_cols, err));
		if (k)
			put_down(dst, rows, row, n, n_ffn, dim, elem);
		else
			put_up(dst, rows, row, n, dim * elem);
	}
out:
	block_free(&b);
	return st;
}

static mzm_status read_whole(hf_source *hf, const hf_tensor *s, const mzm_tensor *t, char *dst, mzm_err *err)
{
	mzm_status st;
	block b = {0};
	const char *rows;
	size_t n_cols = (size_t)t->n_cols;
	if (s->dtype[0] == t->dtype)
		return mzm_st_read(hf->set, s->part[0], dst, mzm_tensor_bytes(t), 0, err);
	MZM_TRY_OUT(block_alloc(&b, 1, n_cols, s->dtype[0], t->dtype, err)); /* a norm: one row */
	MZM_TRY_OUT(block_load(&b, &rows, hf, s->part[0], s->dtype[0], 0, 1, n_cols, err));
	memcpy(dst, rows, mzm_tensor_bytes(t));
out:
	block_free(&b);
	return st;
}

static mzm_status hf_read(mzm_source *src, int32_t i, void *dst, mzm_err *err)
{
	hf_source *hf = (hf_source *)src;
	const hf_tensor *s = &hf->sources[i];
	const mzm_tensor *t = &src->tensors[i];
	if (s->n_parts == 1)
		return read_whole(hf, s, t, dst, err);
	MZM_TRY(read_half(hf, s, 0, t, dst, err));
	return read_half(hf, s, 1, t, dst, err);
}

/* ---- the rest of the interface ---- */

static uint64_t hf_bytes_read(const mzm_source *src)
{
	return mzm_st_bytes_read(((const hf_source *)src)->set);
}

static mzm_stored hf_stored(const mzm_source *src, int32_t i)
{
	const hf_tensor *s = &((const hf_source *)src)->sources[i];
	mzm_stored out = {.codec = "raw", .n_extents = s->n_parts};
	for (int k = 0; k < s->n_parts; k++)
		out.bytes += s->part[k]->end - s->part[k]->begin;
	return out;
}

static bool hf_describe(const mzm_source *src, json_t *out)
{
	const hf_source *hf = (const hf_source *)src;
	json_t *files = json_array();
	uint64_t total = 0;
	if (!files || json_object_set_new(out, "files", files) != 0)
		return false;
	for (int32_t i = 0; i < mzm_st_n_files(hf->set); i++) {
		const char *path = mzm_st_file_path(hf->set, i), *slash = strrchr(path, '/');
		uint64_t bytes = mzm_st_file_bytes(hf->set, i);
		total += bytes;
		json_t *entry = json_pack("{s:o, s:I}", "name", mzm_json_text(slash ? slash + 1 : path), "bytes",
					  (json_int_t)bytes);
		if (json_array_append_new(files, entry) != 0)
			return false;
	}
	return json_object_set_new(out, "file_bytes", json_integer((json_int_t)total)) == 0;
}

static bool hf_uses(const mzm_source *src, const char *path)
{
	const hf_source *hf = (const hf_source *)src;
	for (int32_t i = 0; i < mzm_st_n_files(hf->set); i++)
		if (mzm_path_is_same(path, mzm_st_file_path(hf->set, i)))
			return true;
	const char *const names[] = {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
				     "model.safetensors.index.json"};
	bool same = mzm_path_is_same(path, src->path);
	for (size_t i = 0; i < sizeof names / sizeof names[0] && !same; i++) {
		mzm_str file = {0};
		mzm_str_path(&file, src->path, names[i]);
		same = file.failed || mzm_path_is_same(path, file.data);
		mzm_str_free(&file);
	}
	return same;
}

static void hf_avoid_cache(mzm_source *src)
{
	mzm_st_avoid_cache(((hf_source *)src)->set);
}

static void hf_close(mzm_source *src)
{
	hf_source *hf = (hf_source *)src;
	mzm_st_close(hf->set);
	mzm_free(hf->sources);
	for (int i = 0; i < MZM_N_SIDE_FILES; i++)
		mzm_free(hf->text[i]);
}

static const mzm_source_ops hf_ops = {
	.format = "huggingface",
	.read = hf_read,
	.bytes_read = hf_bytes_read,
	.stored = hf_stored,
	.describe = hf_describe,
	.uses = hf_uses,
	.avoid_cache = hf_avoid_cache,
	.close = hf_close,
};

mzm_status mzm_hf_open(mzm_source **out, const char *dir, mzm_err *err)
{
	mzm_status st;
	mzm_source *src = NULL;
	*out = NULL;
	MZM_TRY_OUT(mzm_source_init(&src, sizeof(hf_source), &hf_ops, dir, err));
	hf_source *hf = (hf_source *)src;
	MZM_TRY_OUT(read_side_files(hf, err));
	MZM_TRY_OUT(read_config(hf, err));
	MZM_TRY_OUT(mzm_st_open(&hf->set, dir, err));
	MZM_TRY_OUT(match_tensors(hf, err));
	MZM_TRY_OUT(mzm_hasher_create(&src->hasher, &src->cfg, err));
	*out = src;
	return MZM_OK;
out:
	mzm_source_close(src);
	return st;
}
