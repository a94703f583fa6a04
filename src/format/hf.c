/* hf.c - a Hugging Face directory as a source of canonical tensors.
 *
 * Owns the directory's files while open: config.json, the safetensors set, the tokenizer texts. Opening
 * costs O(metadata) and settles everything about shapes and types: each needed tensor is there with
 * the right shape, no other is left over. Reading is streaming: a matrix goes straight to its
 * destination, also one that is cut out of a fused tensor; up and down of a layer are interleaved through one
 * block of a few MiB.
 *
 * It does not convert: a canonical tensor keeps the file's type, but norms and biases become f32, and so do up and
 * down where they differ. */
#include "format/source.h"
#include "format/tokenizer.h"

#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/io.h"
#include "base/str.h"
#include "format/chat_file.h"
#include "format/dijiang.h"
#include "format/names.h"
#include "format/safetensors.h"

#define BLOCK_BYTES   ((size_t)8 << 20)
#define TABLE_BLOCK   ((size_t)1 << 14) /* entries of a table at once */
#define TILE_COLS     256 /* of down's rows at once: their cache lines fit L1 */
#define MAX_CONFIG    ((size_t)4 << 20)
#define MAX_TEMPLATE  ((size_t)1 << 20)
#define MAX_SIDE_FILE ((size_t)64 << 20)

/* One tensor of the files and what a canonical one takes of it: see mzm_hf_part. */
typedef struct hf_part {
	const mzm_st_tensor *tensor;
	mzm_dtype            dtype;
	size_t               first, group, step;
	bool                 transposed, plus_one;
} hf_part;

typedef struct hf_tensor {
	hf_part part[2]; /* [n_parts] */
	int     n_parts;
} hf_tensor;

typedef struct hf_source {
	mzm_source  base;
	mzm_st_set *set;
	hf_tensor  *sources;                  /* [base.n_tensors] */
	size_t      skip;                     /* of the names: the files leave mzm_names_base() out */
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

/* Where there is no tokenizer.json, from what older directories have. */
static mzm_status read_older_tokenizer(hf_source *hf, mzm_err *err)
{
	const mzm_side_file json = MZM_TOKENIZER_JSON, config = MZM_TOKENIZER_CONFIG;
	if (hf->text[json])
		return MZM_OK;
	MZM_TRY(mzm_tokenizer_dir_json(&hf->text[json], &hf->base.side_len[json], hf->base.path, hf->text[config],
				       hf->base.side_len[config], err));
	hf->base.side[json] = hf->text[json];
	return MZM_OK;
}

/* A template in a file of its own joins the tokenizer's configuration, where the other forms have it. */
static mzm_status read_chat_template(hf_source *hf, mzm_err *err)
{
	const mzm_side_file config = MZM_TOKENIZER_CONFIG;
	char *template;
	size_t len;
	MZM_TRY(read_file(hf, "chat_template.jinja", true, MAX_TEMPLATE, &template, &len, err));
	if (!template)
		return MZM_OK;
	mzm_status st = mzm_chat_add_template(&hf->text[config], &hf->base.side_len[config], template, len, err);
	hf->base.side[config] = hf->text[config];
	mzm_free(template);
	if (st != MZM_OK)
		mzm_err_prefix(err, "%s", hf->base.path);
	return st;
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
	uint64_t shape[4];
	for (int32_t i = 0; i < want->n_dims; i++)
		shape[i] = (uint64_t)want->shape[i];
	shape_text(expected, want->n_dims, shape);
	if (!t)
		return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s [%s] is missing", hf->base.path, want->name, expected);
	if (t->n_dims != want->n_dims || memcmp(t->shape, shape, (size_t)want->n_dims * sizeof shape[0]) != 0) {
		shape_text(found, t->n_dims, t->shape);
		return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s: expected shape [%s], found [%s]", hf->base.path,
				t->name, expected, found);
	}
	if (!mzm_st_dtype(dtype, t))
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: tensor %s: type %s is not supported", hf->base.path,
				t->name, t->dtype);
	return MZM_OK;
}

static const mzm_st_tensor *find_part(const hf_source *hf, const mzm_hf_part *want)
{
	const char *base = mzm_names_base(&hf->base.cfg);
	bool in_base = strncmp(want->name, base, strlen(base)) == 0;
	return mzm_st_find(hf->set, want->name + (in_base ? hf->skip : 0));
}

/* Checkpoints of the bare model, without a head, have shorter names: the embedding shows which they are. */
static void settle_names(hf_source *hf)
{
	mzm_hf_part embed[2];
	mzm_names_parts(embed, &hf->base.tensors[0], &hf->base.cfg);
	size_t n = strlen(mzm_names_base(&hf->base.cfg));
	if (!mzm_st_find(hf->set, embed[0].name) && mzm_st_find(hf->set, embed[0].name + n))
		hf->skip = n;
}

static bool is_bias(mzm_tensor_kind kind)
{
	static const mzm_tensor_kind biases[] = {MZM_T_ATTN_NORM_BIAS, MZM_T_FFN_NORM_BIAS, MZM_T_OUT_NORM_BIAS,
						 MZM_T_BQ, MZM_T_BK, MZM_T_BV, MZM_T_BO,
						 MZM_T_B_GATE, MZM_T_B_UP, MZM_T_B_DOWN};
	for (size_t i = 0; i < sizeof biases / sizeof biases[0]; i++)
		if (biases[i] == kind)
			return true;
	return false;
}

static mzm_status resolve_one(hf_source *hf, mzm_tensor *t, hf_tensor *s, bool *used, mzm_err *err)
{
	char name[64];
	mzm_hf_part want[2];
	s->n_parts = mzm_names_parts(want, t, &hf->base.cfg);
	if (s->n_parts == 0 && !is_bias(t->kind))
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: %s has no tensor in checkpoints of this architecture",
				hf->base.path, mzm_tensor_name(t, name));
	for (int k = 0; k < s->n_parts; k++) {
		hf_part *p = &s->part[k];
		p->tensor = find_part(hf, &want[k]);
		MZM_TRY(check_part(hf, p->tensor, &want[k], &p->dtype, err));
		p->first = (size_t)want[k].first;
		p->group = (size_t)want[k].group;
		p->step = (size_t)want[k].step;
		p->transposed = want[k].transposed;
		p->plus_one = want[k].plus_one;
		used[p->tensor - mzm_st_at(hf->set, 0)] = true;
	}
	if (!mzm_tensor_is_vector(t->kind)) /* they stay f32 */
		t->dtype = s->n_parts == 2 && s->part[0].dtype != s->part[1].dtype ? MZM_F32 : s->part[0].dtype;
	return MZM_OK;
}

/* Finds the parts of every canonical tensor and settles its type. used: [mzm_st_count] */
static mzm_status resolve(hf_source *hf, bool *used, mzm_err *err)
{
	settle_names(hf);
	for (int32_t i = 0; i < hf->base.n_tensors; i++)
		MZM_TRY(resolve_one(hf, &hf->base.tensors[i], &hf->sources[i], used, err));
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

/* Rows row .. row+n-1 of what is taken of p, each of row_bytes in the file's type. */
static mzm_status read_rows(const hf_source *hf, const hf_part *p, char *dst, size_t row, size_t n, size_t row_bytes,
			    mzm_err *err)
{
	while (n > 0) {
		size_t left = p->group - row % p->group, run = n < left ? n : left;
		uint64_t at = p->first + (uint64_t)(row / p->group) * p->step + row % p->group;
		MZM_TRY(mzm_st_read(hf->set, p->tensor, dst, run * row_bytes, at * row_bytes, err));
		dst += run * row_bytes;
		row += run;
		n -= run;
	}
	return MZM_OK;
}

/* The same through b, in the canonical type: *rows is where they lie then. */
static mzm_status block_load(block *b, const char **rows, const hf_source *hf, const hf_part *p, size_t row, size_t n,
			     size_t n_cols, mzm_err *err)
{
	MZM_TRY(read_rows(hf, p, b->raw, row, n, n_cols * mzm_dtype_bytes(p->dtype), err));
	if (b->wide)
		widen((float *)(void *)b->wide, b->raw, p->dtype, n * n_cols);
	*rows = b->wide ? b->wide : b->raw;
	return MZM_OK;
}

static void put_up(char *dst, const char *rows, size_t row, size_t n, size_t row_bytes)
{
	for (size_t r = 0; r < n; r++)
		memcpy(dst + 2 * (row + r) * row_bytes, rows + r * row_bytes, row_bytes);
}

/* Rows col .. col+n-1 of down [dim, n_ffn] become columns of dst's rows, which are stride elements apart. Always
 * inlined with a constant elem, so that each copy is one move. */
static inline __attribute__((always_inline)) void put_down_as(char *dst, const char *rows, size_t col, size_t n,
							     size_t n_ffn, size_t stride, size_t elem)
{
	for (size_t c0 = 0; c0 < n; c0 += TILE_COLS) {
		size_t c1 = n - c0 < TILE_COLS ? n : c0 + TILE_COLS;
		for (size_t j = 0; j < n_ffn; j++) {
			char *out = dst + (j * stride + col) * elem;
			for (size_t c = c0; c < c1; c++)
				memcpy(out + c * elem, rows + (c * n_ffn + j) * elem, elem);
		}
	}
}

static void put_down(char *dst, const char *rows, size_t col, size_t n, size_t n_ffn, size_t stride, size_t elem)
{
	if (elem == 2)
		put_down_as(dst, rows, col, n, n_ffn, stride, 2);
	else
		put_down_as(dst, rows, col, n, n_ffn, stride, 4);
}

/* A matrix whose rows go to every other row of t (up), or become columns of it (down). */
static mzm_status read_blocks(hf_source *hf, const hf_part *p, const mzm_tensor *t, char *dst, mzm_err *err)
{
	mzm_status st;
	block b = {0};
	const char *rows;
	bool paired = t->kind == MZM_T_UPDOWN;
	size_t dim = (size_t)t->n_cols, n_ffn = (size_t)t->n_rows / (paired ? 2 : 1), elem = mzm_dtype_bytes(t->dtype);
	size_t n_rows = p->transposed ? dim : n_ffn, n_cols = p->transposed ? n_ffn : dim;
	MZM_TRY_OUT(block_alloc(&b, n_rows, n_cols, p->dtype, t->dtype, err));
	for (size_t row = 0; row < n_rows; row += b.n_rows) {
		size_t n = n_rows - row < b.n_rows ? n_rows - row : b.n_rows;
		MZM_TRY_OUT(block_load(&b, &rows, hf, p, row, n, n_cols, err));
		if (!p->transposed)
			put_up(dst, rows, row, n, dim * elem);
		else if (paired)
			put_down(dst + dim * elem, rows, row, n, n_ffn, 2 * dim, elem);
		else
			put_down(dst, rows, row, n, n_ffn, dim, elem);
	}
out:
	block_free(&b);
	return st;
}

/* Elements of a norm or a bias, which are rows of one column to read_rows; those that the files lack are 0. */
static mzm_status read_vector(hf_source *hf, const hf_tensor *s, const mzm_tensor *t, float *dst, mzm_err *err)
{
	mzm_status st;
	block b = {0};
	const char *values;
	size_t n = (size_t)t->n_cols;
	const hf_part *p = &s->part[0];
	if (s->n_parts == 0) {
		memset(dst, 0, n * sizeof dst[0]);
		return MZM_OK;
	}
	MZM_TRY_OUT(block_alloc(&b, 1, n, p->dtype, MZM_F32, err));
	MZM_TRY_OUT(block_load(&b, &values, hf, p, 0, n, 1, err));
	memcpy(dst, values, n * sizeof dst[0]);
	for (size_t i = 0; i < n && p->plus_one; i++)
		dst[i] += 1.0f;
out:
	block_free(&b);
	return st;
}

static mzm_status about_tables(mzm_status st, const hf_source *hf, const hf_part *p, mzm_err *err)
{
	if (st != MZM_OK)
		mzm_err_prefix(err, "%s: tensor %s", hf->base.path, p->tensor->name);
	return st;
}

/* DiJiang's scales, out of the matrix that the released code has. */
static mzm_status read_scales(hf_source *hf, const hf_part *p, float *dst, mzm_err *err)
{
	mzm_status st;
	block b = {0};
	const char *rows;
	size_t d = (size_t)hf->base.cfg.head_dim; /* limited, so that its square is one block */
	MZM_TRY_OUT(block_alloc(&b, d, d, p->dtype, MZM_F32, err));
	MZM_TRY_OUT(block_load(&b, &rows, hf, p, 0, d, d, err));
	st = about_tables(mzm_dijiang_scales(dst, (const float *)(const void *)rows, (int32_t)d, err), hf, p, err);
out:
	block_free(&b);
	return st;
}

/* Its decay, out of two tables as long as all heads' positions. */
static mzm_status read_decay(hf_source *hf, const hf_part part[2], float *dst, mzm_err *err)
{
	mzm_status st;
	block b[2] = {0};
	const char *rows[2];
	const mzm_config *cfg = &hf->base.cfg;
	mzm_dijiang_tables tables = {.len = cfg->decay_len, .goes_on = cfg->n_ctx > cfg->decay_len};
	size_t n = (size_t)cfg->n_kv_heads * (size_t)cfg->decay_len, most = n < TABLE_BLOCK ? n : TABLE_BLOCK;
	for (int k = 0; k < 2; k++)
		MZM_TRY_OUT(block_alloc(&b[k], most, 1, part[k].dtype, MZM_F32, err));
	for (size_t at = 0; at < n; at += most) {
		size_t step = n - at < most ? n - at : most;
		for (int k = 0; k < 2; k++)
			MZM_TRY_OUT(block_load(&b[k], &rows[k], hf, &part[k], at, step, 1, err));
		st = mzm_dijiang_decay(dst + 2 * at, &tables, (const float *)(const void *)rows[0],
				       (const float *)(const void *)rows[1], step, err);
		MZM_TRY_OUT(about_tables(st, hf, &part[0], err));
	}
out:
	block_free(&b[0]);
	block_free(&b[1]);
	return st;
}

static mzm_status hf_read(mzm_source *src, int32_t i, void *dst, mzm_err *err)
{
	hf_source *hf = (hf_source *)src;
	const hf_tensor *s = &hf->sources[i];
	const mzm_tensor *t = &src->tensors[i];
	if (t->kind == MZM_T_DECAY)
		return read_decay(hf, s->part, dst, err);
	if (t->kind == MZM_T_FREQ && s->part[0].tensor->n_dims == 2)
		return read_scales(hf, &s->part[0], dst, err);
	if (mzm_tensor_is_vector(t->kind))
		return read_vector(hf, s, t, dst, err);
	if (s->n_parts == 1 && !s->part[0].transposed)
		return read_rows(hf, &s->part[0], dst, 0, (size_t)t->n_rows, mzm_row_bytes(t->dtype, t->n_cols), err);
	for (int k = 0; k < s->n_parts; k++)
		MZM_TRY(read_blocks(hf, &s->part[k], t, dst, err));
	return MZM_OK;
}

/* ---- the rest of the interface ---- */

static uint64_t hf_bytes_read(const mzm_source *src)
{
	return mzm_st_bytes_read(((const hf_source *)src)->set);
}

static mzm_stored hf_stored(const mzm_source *src, int32_t i)
{
	const hf_tensor *s = &((const hf_source *)src)->sources[i];
	const mzm_tensor *t = &src->tensors[i];
	uint64_t n = (uint64_t)t->n_rows * (uint64_t)t->n_cols / (s->n_parts == 2 ? 2 : 1); /* of each part */
	mzm_stored out = {.codec = "raw", .n_extents = s->n_parts};
	for (int k = 0; k < s->n_parts; k++)
		out.bytes += n * mzm_dtype_bytes(s->part[k].dtype);
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
				     "model.safetensors.index.json", "tokenizer.model", "vocab.json", "merges.txt",
				     "encoder.json", "vocab.bpe", "special_tokens_map.json", "added_tokens.json",
				     "chat_template.jinja"};
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
	MZM_TRY_OUT(read_chat_template(hf, err));
	MZM_TRY_OUT(read_older_tokenizer(hf, err));
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
