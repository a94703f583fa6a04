/* gguf_source.c - a GGUF file of the architecture "llama" as a source of canonical tensors.
 *
 * Opening costs O(metadata) and settles everything about names, shapes and types. Types:
 *     F32, F16, BF16    as they are; norms f32; up and down f32 where they differ
 *     Q8_0 / Q4_0       q8 / q4, the same values, where rows stay rows
 *     all other blocks  q8, rounded anew; so is down, and up unless it is Q8_0 or Q4_0, when one of the two has blocks:
 *                       they share a type
 * Rows of q and k lie in the file as interleaved rotation wants them: rows 2 i and 2 i + 1 of a head are rows i and
 * i + head_dim / 2 of ours. Down is transposed: straight to its place, or, on the way to q8, by panels of columns; then
 * the tensor of the file is in memory whole. What rounding cost is measured while tensors are read. */
#include "format/gguf_source.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "format/gguf_types.h"
#include "kern/threads.h"

#define BLOCK_BYTES    ((size_t)4 << 20)
#define SHARED_WEIGHTS ((size_t)1 << 20) /* of a tensor that several threads convert */
#define PANEL_COLS     256 /* whole blocks of every type */
#define TILE_ROWS      64  /* of down, whose columns are written together */

typedef struct gguf_tensor {
	const mzm_gguf_tensor *part[2]; /* [n_parts] */
	int                    n_parts;
	_Atomic double         error;   /* relative, root of the mean square; < 0: not measured yet */
} gguf_tensor;

typedef struct gguf_source {
	mzm_source   base;
	mzm_gguf    *file;
	gguf_tensor *sources; /* [base.n_tensors] */
	char        *text[2]; /* tokenizer.json, tokenizer_config.json */
} gguf_source;

/* ---- opening ---- */

static const char *const names[MZM_N_TENSOR_KINDS] = {
	[MZM_T_EMBED] = MZM_GGUF_EMBED,
	[MZM_T_ATTN_NORM] = "attn_norm.weight",
	[MZM_T_WQ] = "attn_q.weight",
	[MZM_T_WK] = "attn_k.weight",
	[MZM_T_WV] = "attn_v.weight",
	[MZM_T_WO] = "attn_output.weight",
	[MZM_T_FFN_NORM] = "ffn_norm.weight",
	[MZM_T_GATE] = "ffn_gate.weight",
	[MZM_T_UPDOWN] = "ffn_up.weight",
	[MZM_T_OUT_NORM] = "output_norm.weight",
	[MZM_T_HEAD] = MZM_GGUF_HEAD,
};

static bool is_norm(mzm_tensor_kind kind)
{
	return kind == MZM_T_ATTN_NORM || kind == MZM_T_FFN_NORM || kind == MZM_T_OUT_NORM;
}

/* Part k of a canonical tensor: there, of n_rows rows of n_cols. */
static mzm_status find_part(const gguf_source *s, const mzm_tensor *t, int k, const mzm_gguf_tensor **out, mzm_err *err)
{
	char name[64];
	uint64_t n_cols = (uint64_t)t->n_cols, n_rows = (uint64_t)t->n_rows;
	if (t->kind == MZM_T_UPDOWN) {
		n_cols = (uint64_t)(k ? s->base.cfg.n_ffn : s->base.cfg.dim);
		n_rows = (uint64_t)(k ? s->base.cfg.dim : s->base.cfg.n_ffn);
	}
	const char *what = k ? "ffn_down.weight" : names[t->kind];
	if (t->layer >= 0)
		snprintf(name, sizeof name, "blk.%d.%s", (int)t->layer, what);
	else
		snprintf(name, sizeof name, "%s", what);
	const mzm_gguf_tensor *g = *out = mzm_gguf_find(s->file, name);
	if (!g)
		return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s is missing", s->base.path, name);
	if (g->n_dims != (is_norm(t->kind) ? 1 : 2) || g->dims[0] != n_cols || g->dims[1] != n_rows)
		return mzm_fail(err, MZM_EFORMAT,
				"%s: tensor %s: expected [%llu, %llu], found [%llu, %llu, %llu, %llu]", s->base.path,
				name, (unsigned long long)n_cols, (unsigned long long)n_rows,
				(unsigned long long)g->dims[0], (unsigned long long)g->dims[1],
				(unsigned long long)g->dims[2], (unsigned long long)g->dims[3]);
	if (g->bytes == 0 || (is_norm(t->kind) && mzm_ggml_is_quant(g->type)))
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: tensor %s: type %u (%s) is not supported", s->base.path,
				name, g->type, mzm_ggml_name(g->type));
	return MZM_OK;
}

/* Of a whole tensor that keeps its rows. */
static mzm_dtype dtype_for(uint32_t type)
{
	switch (type) {
	case MZM_GGML_F32:
		return MZM_F32;
	case MZM_GGML_F16:
		return MZM_F16;
	case MZM_GGML_BF16:
		return MZM_BF16;
	case MZM_GGML_Q4_0:
		return MZM_Q4;
	default:
		return MZM_Q8;
	}
}

static mzm_dtype dtype_of(const gguf_tensor *s, const mzm_tensor *t)
{
	if (is_norm(t->kind))
		return MZM_F32;
	if (s->n_parts == 1)
		return dtype_for(s->part[0]->type);
	if (mzm_ggml_is_quant(s->part[0]->type) || mzm_ggml_is_quant(s->part[1]->type))
		return mzm_dtype_fits(MZM_Q8, t->n_cols) ? MZM_Q8 : MZM_F32;
	return s->part[0]->type == s->part[1]->type ? dtype_for(s->part[0]->type) : MZM_F32;
}

/* Finds the parts of every canonical tensor; no other may be left. used: [mzm_gguf_n_tensors] */
static mzm_status resolve(gguf_source *s, bool *used, mzm_err *err)
{
	const mzm_gguf_tensor *first = mzm_gguf_tensor_at(s->file, 0);
	for (int32_t i = 0; i < s->base.n_tensors; i++) {
		mzm_tensor *t = &s->base.tensors[i];
		gguf_tensor *x = &s->sources[i];
		x->error = -1;
		x->n_parts = t->kind == MZM_T_UPDOWN ? 2 : 1;
		for (int k = 0; k < x->n_parts; k++) {
			MZM_TRY(find_part(s, t, k, &x->part[k], err));
			used[x->part[k] - first] = true;
		}
		t->dtype = dtype_of(x, t);
	}
	for (int32_t i = 0; i < mzm_gguf_n_tensors(s->file); i++)
		if (!used[i] && strcmp(first[i].name, MZM_GGUF_ROPE_FREQS) != 0)
			return mzm_fail(err, MZM_EUNSUPPORTED, "%s: tensor %s belongs to no part of this architecture",
					s->base.path, first[i].name);
	return MZM_OK;
}

static mzm_status match_tensors(gguf_source *s, mzm_err *err)
{
	mzm_status st;
	bool *used = NULL;
	MZM_TRY_OUT(mzm_alloc_for((void **)&s->sources, (size_t)s->base.n_tensors * sizeof s->sources[0],
				  "the tensor table", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&used, (size_t)mzm_gguf_n_tensors(s->file) * sizeof used[0],
				  "the tensor table", err));
	MZM_TRY_OUT(resolve(s, used, err));
out:
	mzm_free(used);
	return st;
}

static mzm_status read_tokenizer(gguf_source *s, mzm_err *err)
{
	static const mzm_side_file which[2] = {MZM_TOKENIZER_JSON, MZM_TOKENIZER_CONFIG};
	MZM_TRY(mzm_gguf_tokenizer_json(&s->text[0], &s->text[1], s->file, err));
	for (int i = 0; i < 2; i++) {
		s->base.side[which[i]] = s->text[i];
		s->base.side_len[which[i]] = s->text[i] ? strlen(s->text[i]) : 0;
	}
	return MZM_OK;
}

/* ---- reading ---- */

static mzm_status unfit(const gguf_source *s, const mzm_gguf_tensor *part, mzm_err *err)
{
	return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s: weights are NaN, infinite or too large for q8", s->base.path,
			part->name);
}

/* Row of the canonical tensor that is row r of the file's. */
static size_t place_of_row(const gguf_source *s, const mzm_tensor *t, size_t r)
{
	if (t->kind == MZM_T_UPDOWN)
		return 2 * r;
	if (t->kind != MZM_T_WQ && t->kind != MZM_T_WK)
		return r;
	size_t head_dim = (size_t)s->base.cfg.head_dim, in_head = r % head_dim;
	return r - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
}

/* A tensor on its way: rows of the file, or of a panel, that the threads share out. */
typedef struct conversion {
	const gguf_source *s;
	const mzm_tensor  *t;
	mzm_team          *team;
	mzm_gguf_rows     *rows;     /* [team size] */
	const char        *raw;      /* [n] rows of the file */
	const float       *panel;    /* [n, dim] columns of down; NULL: raw */
	size_t             first, n; /* raw or panel are rows first .. first+n-1 */
	char              *dst;      /* all of the canonical tensor */
	atomic_bool        unfit;    /* a row could not be held */
} conversion;

static void convert(void *ctx, mzm_team *team, int rank)
{
	conversion *c = ctx;
	int32_t begin, end;
	mzm_gguf_rows *rows = &c->rows[rank];
	size_t from_bytes = mzm_gguf_row_bytes(rows->from, c->t->n_cols), dim = (size_t)c->t->n_cols;
	size_t to_bytes = mzm_row_bytes(c->t->dtype, c->t->n_cols);
	mzm_team_range((int32_t)c->n, 4, rank, mzm_team_size(team), &begin, &end);
	for (size_t r = (size_t)begin; r < (size_t)end; r++) {
		bool fits = c->panel ? mzm_gguf_quant(rows, c->dst + (2 * (c->first + r) + 1) * to_bytes,
						      c->panel + r * dim)
				     : mzm_gguf_row(rows, c->dst + place_of_row(c->s, c->t, c->first + r) * to_bytes,
						    c->raw + r * from_bytes);
		if (!fits)
			atomic_store(&c->unfit, true);
	}
}

static mzm_status convert_all(conversion *c, const mzm_gguf_tensor *part, mzm_err *err)
{
	mzm_team_run(c->team, convert, c);
	return atomic_load(&c->unfit) ? unfit(c->s, part, err) : MZM_OK;
}

/* Rows that stay rows: all but down. */
static mzm_status read_rows(conversion *c, const mzm_gguf_tensor *part, mzm_err *err)
{
	mzm_status st;
	char *raw = NULL;
	size_t from_bytes = mzm_gguf_row_bytes(part->type, c->t->n_cols);
	size_t n_rows = (size_t)part->dims[1], most = BLOCK_BYTES / from_bytes;
	most = most < 1 ? 1 : most > n_rows ? n_rows : most;
	MZM_TRY_OUT(mzm_alloc_for((void **)&raw, most * from_bytes, "a block of rows", err));
	c->raw = raw;
	for (c->first = 0; c->first < n_rows; c->first += most) {
		c->n = n_rows - c->first < most ? n_rows - c->first : most;
		MZM_TRY_OUT(mzm_gguf_read(c->s->file, part, (uint64_t)c->first * from_bytes, c->n * from_bytes, raw,
					  err));
		MZM_TRY_OUT(convert_all(c, part, err));
	}
out:
	mzm_free(raw);
	return st;
}

/* Rows col .. col+n-1 of down become columns of dst's odd rows. */
static void put_columns(char *dst, const char *rows, size_t col, size_t n, const mzm_tensor *t, size_t n_ffn)
{
	size_t elem = mzm_dtype_bytes(t->dtype), dim = (size_t)t->n_cols;
	for (size_t j = 0; j < n_ffn; j++) {
		char *out = dst + ((2 * j + 1) * dim + col) * elem;
		for (size_t c = 0; c < n; c++)
			memcpy(out + c * elem, rows + (c * n_ffn + j) * elem, elem);
	}
}

/* Down [dim, n_ffn] to a type without blocks. */
static mzm_status read_down(gguf_source *s, const mzm_gguf_tensor *part, const mzm_tensor *t, char *dst, mzm_err *err)
{
	mzm_status st;
	mzm_gguf_rows row = {0};
	char *raw = NULL, *wide = NULL;
	int32_t n_ffn = t->n_rows / 2;
	size_t dim = (size_t)t->n_cols, from_bytes = mzm_gguf_row_bytes(part->type, n_ffn);
	size_t to_bytes = mzm_row_bytes(t->dtype, n_ffn);
	MZM_TRY_OUT(mzm_gguf_rows_init(&row, part->type, t->dtype, n_ffn, err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&raw, TILE_ROWS * from_bytes, "a block of rows", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&wide, TILE_ROWS * to_bytes, "a block of rows", err));
	for (size_t r0 = 0; r0 < dim; r0 += TILE_ROWS) {
		size_t n = dim - r0 < TILE_ROWS ? dim - r0 : TILE_ROWS;
		MZM_TRY_OUT(mzm_gguf_read(s->file, part, (uint64_t)r0 * from_bytes, n * from_bytes, raw, err));
		for (size_t r = 0; r < n; r++)
			(void)mzm_gguf_row(&row, wide + r * to_bytes, raw + r * from_bytes);
		put_columns(dst, wide, r0, n, t, (size_t)n_ffn);
	}
out:
	mzm_gguf_rows_free(&row);
	mzm_free(raw);
	mzm_free(wide);
	return st;
}

/* Columns c0 .. c0+n-1 of down as rows. panel: [n, dim] */
static void fill_panel(float *panel, const char *raw, uint32_t type, size_t row_bytes, size_t c0, size_t n, size_t dim)
{
	float cols[PANEL_COLS];
	size_t skip = mzm_gguf_row_bytes(type, (int32_t)c0);
	for (size_t r = 0; r < dim; r++) {
		mzm_ggml_to_f32(cols, raw + r * row_bytes + skip, type, n);
		for (size_t c = 0; c < n; c++)
			panel[c * dim + r] = cols[c];
	}
}

/* Down [dim, n_ffn] to rows of blocks. */
static mzm_status quant_down(conversion *c, const mzm_gguf_tensor *part, mzm_err *err)
{
	mzm_status st;
	char *raw = NULL;
	float *panel = NULL;
	size_t dim = (size_t)c->t->n_cols, n_ffn = (size_t)c->t->n_rows / 2;
	size_t from_bytes = mzm_gguf_row_bytes(part->type, c->t->n_rows / 2);
	MZM_TRY_OUT(mzm_alloc_for((void **)&raw, (size_t)part->bytes, part->name, err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&panel, PANEL_COLS * dim * sizeof(float), "a panel of columns", err));
	MZM_TRY_OUT(mzm_gguf_read(c->s->file, part, 0, (size_t)part->bytes, raw, err));
	c->panel = panel;
	for (c->first = 0; c->first < n_ffn; c->first += PANEL_COLS) {
		c->n = n_ffn - c->first < PANEL_COLS ? n_ffn - c->first : PANEL_COLS;
		fill_panel(panel, raw, part->type, from_bytes, c->first, c->n, dim);
		MZM_TRY_OUT(convert_all(c, part, err));
	}
out:
	mzm_free(raw);
	mzm_free(panel);
	return st;
}

/* The threads and what each needs; small tensors get one. -> conversion_free, whether it failed or not */
static mzm_status conversion_init(conversion *c, const mzm_gguf_tensor *part, mzm_err *err)
{
	bool large = (size_t)c->t->n_rows * (size_t)c->t->n_cols >= SHARED_WEIGHTS && mzm_dtype_is_quant(c->t->dtype);
	MZM_TRY(mzm_team_create(&c->team, large ? 0 : 1, err));
	size_t n = (size_t)mzm_team_size(c->team);
	MZM_TRY(mzm_alloc_for((void **)&c->rows, n * sizeof c->rows[0], "conversion", err));
	for (size_t k = 0; k < n; k++)
		MZM_TRY(mzm_gguf_rows_init(&c->rows[k], part->type, c->t->dtype, c->t->n_cols, err));
	return MZM_OK;
}

/* The relative error of what was converted. */
static double conversion_error(const conversion *c)
{
	double error = 0, norm = 0;
	for (int k = 0; k < mzm_team_size(c->team); k++) {
		error += c->rows[k].error;
		norm += c->rows[k].norm;
	}
	return norm > 0 ? sqrt(error / norm) : 0;
}

static void conversion_free(conversion *c)
{
	for (int k = 0; c->rows && k < mzm_team_size(c->team); k++)
		mzm_gguf_rows_free(&c->rows[k]);
	mzm_free(c->rows);
	mzm_team_free(c->team);
}

static mzm_status gguf_read(mzm_source *src, int32_t i, void *dst, mzm_err *err)
{
	mzm_status st;
	gguf_source *s = (gguf_source *)src;
	gguf_tensor *x = &s->sources[i];
	conversion c = {.s = s, .t = &src->tensors[i], .dst = dst};
	MZM_TRY_OUT(conversion_init(&c, x->part[0], err));
	MZM_TRY_OUT(read_rows(&c, x->part[0], err));
	if (x->n_parts == 2 && mzm_dtype_is_quant(c.t->dtype))
		MZM_TRY_OUT(quant_down(&c, x->part[1], err));
	else if (x->n_parts == 2)
		MZM_TRY_OUT(read_down(s, x->part[1], c.t, dst, err));
	x->error = conversion_error(&c);
out:
	conversion_free(&c);
	return st;
}

/* ---- the rest of the interface ---- */

static uint64_t gguf_bytes_read(const mzm_source *src)
{
	return mzm_gguf_bytes_read(((const gguf_source *)src)->file);
}

static mzm_stored gguf_stored(const mzm_source *src, int32_t i)
{
	const gguf_tensor *x = &((const gguf_source *)src)->sources[i];
	mzm_stored out = {.codec = mzm_ggml_name(x->part[0]->type), .n_extents = x->n_parts};
	for (int k = 0; k < x->n_parts; k++)
		out.bytes += x->part[k]->bytes;
	return out;
}

/* From which types a tensor came, and what that cost: null until it was read. */
static json_t *describe_tensor(const gguf_source *s, int32_t i)
{
	char name[64], from[32];
	const gguf_tensor *x = &s->sources[i];
	double error = x->error;
	const char *a = mzm_ggml_name(x->part[0]->type), *b = mzm_ggml_name(x->part[x->n_parts - 1]->type);
	snprintf(from, sizeof from, "%s%s%s", a, strcmp(a, b) == 0 ? "" : " and ", strcmp(a, b) == 0 ? "" : b);
	return json_pack("{s:s, s:s, s:s, s:o}", "name", mzm_tensor_name(&s->base.tensors[i], name), "from", from, "to",
			 mzm_dtype_name(s->base.tensors[i].dtype), "relative_rms_error",
			 error < 0 ? json_null() : json_real(error));
}

static bool is_converted(const gguf_source *s, int32_t i)
{
	const gguf_tensor *x = &s->sources[i];
	bool converted = false;
	for (int k = 0; k < x->n_parts; k++)
		converted = converted || mzm_ggml_is_quant(x->part[k]->type) ||
			    dtype_for(x->part[k]->type) != s->base.tensors[i].dtype;
	return converted;
}

static bool gguf_describe(const mzm_source *src, json_t *out)
{
	const gguf_source *s = (const gguf_source *)src;
	const char *slash = strrchr(src->path, '/');
	json_int_t bytes = (json_int_t)mzm_gguf_file_bytes(s->file);
	json_t *files = json_pack("[{s:o, s:I}]", "name", mzm_json_text(slash ? slash + 1 : src->path), "bytes", bytes);
	json_t *list = json_array();
	bool ok = json_object_set_new(out, "files", files) == 0 && json_object_set_new(out, "conversions", list) == 0 &&
		  json_object_set_new(out, "file_bytes", json_integer(bytes)) == 0;
	for (int32_t i = 0; ok && i < src->n_tensors; i++)
		ok = !is_converted(s, i) || json_array_append_new(list, describe_tensor(s, i)) == 0;
	return ok;
}

static bool gguf_uses(const mzm_source *src, const char *path)
{
	return mzm_path_is_same(path, src->path);
}

static void gguf_avoid_cache(mzm_source *src)
{
	mzm_gguf_avoid_cache(((gguf_source *)src)->file);
}

static void gguf_close(mzm_source *src)
{
	gguf_source *s = (gguf_source *)src;
	mzm_gguf_close(s->file);
	mzm_free(s->sources);
	mzm_free(s->text[0]);
	mzm_free(s->text[1]);
}

static const mzm_source_ops gguf_ops = {
	.format = "gguf",
	.read = gguf_read,
	.bytes_read = gguf_bytes_read,
	.stored = gguf_stored,
	.describe = gguf_describe,
	.uses = gguf_uses,
	.avoid_cache = gguf_avoid_cache,
	.close = gguf_close,
};

mzm_status mzm_gguf_source_open(mzm_source **out, const char *path, mzm_err *err)
{
	mzm_status st;
	mzm_config cfg;
	mzm_source *src = NULL;
	*out = NULL;
	MZM_TRY_OUT(mzm_source_init(&src, sizeof(gguf_source), &gguf_ops, path, err));
	gguf_source *s = (gguf_source *)src;
	MZM_TRY_OUT(mzm_gguf_open(&s->file, path, err));
	st = mzm_gguf_config(&cfg, s->file, err);
	if (st == MZM_OK)
		st = read_tokenizer(s, err);
	if (st != MZM_OK) {
		mzm_err_prefix(err, "%s", path);
		goto out;
	}
	MZM_TRY_OUT(mzm_source_set_config(src, &cfg, err));
	MZM_TRY_OUT(match_tensors(s, err));
	MZM_TRY_OUT(mzm_hasher_create(&src->hasher, &src->cfg, err));
	*out = src;
	return MZM_OK;
out:
	mzm_source_close(src);
	return st;
}
