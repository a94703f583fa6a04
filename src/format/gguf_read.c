/* gguf_read.c - canonical tensors out of those of a GGUF file (gguf_source.h).
 *
 * Workload: once a model; rows are shared out over all cores where they are quantised. Rows of the file's tensor become
 * rows here, in whatever order; down is transposed: straight to its place, or, on the way to blocks, by panels of
 * columns, when the tensor of the file is in memory whole. What rounding cost is measured on the way. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "format/gguf_source.h"
#include "format/gguf_types.h"
#include "kern/threads.h"

#define BLOCK_BYTES    ((size_t)4 << 20)
#define SHARED_WEIGHTS ((size_t)1 << 20) /* of a tensor that several threads convert */
#define PANEL_COLS     256 /* whole blocks of every type */
#define TILE_ROWS      64  /* of down, whose columns are written together */

/* A part on its way: rows of the file, or of a panel, that the threads share out. */
typedef struct conversion {
	const mzm_gguf      *g;
	const mzm_tensor    *t;
	const mzm_gguf_part *part;
	size_t               head_dim;     /* of interleaved rows */
	size_t               place, step;  /* row r of the part is row place + r * step of the canonical tensor */
	mzm_team            *team;
	mzm_gguf_rows       *rows;         /* [team size] */
	const char          *raw;          /* [n] rows of the file */
	const float         *panel;        /* [n, dim] columns of down; NULL: raw */
	size_t               first, n;     /* raw or panel are rows first .. first+n-1 of the part */
	char                *dst;          /* all of the canonical tensor */
	atomic_bool          unfit;        /* a row could not be held */
} conversion;

/* Where row r of the part belongs. */
static size_t place_of(const conversion *c, size_t r)
{
	if (c->part->interleaved) {
		size_t in_head = r % c->head_dim;
		r = r - in_head + in_head % 2 * (c->head_dim / 2) + in_head / 2;
	}
	return c->place + r * c->step;
}

static size_t n_part_rows(const conversion *c)
{
	return (size_t)c->t->n_rows / c->step;
}

/* ---- rows ---- */

static void convert(void *ctx, mzm_team *team, int rank)
{
	conversion *c = ctx;
	int32_t begin, end;
	mzm_gguf_rows *rows = &c->rows[rank];
	size_t from_bytes = mzm_gguf_row_bytes(rows->from, c->t->n_cols), dim = (size_t)c->t->n_cols;
	size_t to_bytes = mzm_row_bytes(c->t->dtype, c->t->n_cols);
	mzm_team_range((int32_t)c->n, 4, rank, mzm_team_size(team), &begin, &end);
	for (size_t r = (size_t)begin; r < (size_t)end; r++) {
		char *dst = c->dst + place_of(c, c->first + r) * to_bytes;
		if (!(c->panel ? mzm_gguf_quant(rows, dst, c->panel + r * dim)
			       : mzm_gguf_row(rows, dst, c->raw + r * from_bytes)))
			atomic_store(&c->unfit, true);
	}
}

static mzm_status convert_all(conversion *c, mzm_err *err)
{
	mzm_team_run(c->team, convert, c);
	if (!atomic_load(&c->unfit))
		return MZM_OK;
	return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s: weights are NaN, infinite or too large for %s",
			mzm_gguf_file_path(c->g, c->part->t->file), c->part->t->name, mzm_dtype_name(c->t->dtype));
}

static mzm_status read_rows(conversion *c, mzm_err *err)
{
	mzm_status st;
	char *raw = NULL;
	const mzm_gguf_tensor *from = c->part->t;
	size_t from_bytes = mzm_gguf_row_bytes(from->type, c->t->n_cols);
	size_t n_rows = n_part_rows(c), most = BLOCK_BYTES / from_bytes;
	most = most < 1 ? 1 : most > n_rows ? n_rows : most;
	MZM_TRY_OUT(mzm_alloc_for((void **)&raw, most * from_bytes, "a block of rows", err));
	c->raw = raw;
	for (c->first = 0; c->first < n_rows; c->first += most) {
		c->n = n_rows - c->first < most ? n_rows - c->first : most;
		uint64_t at = ((uint64_t)c->part->first + c->first) * from_bytes;
		MZM_TRY_OUT(mzm_gguf_read(c->g, from, at, c->n * from_bytes, raw, err));
		MZM_TRY_OUT(convert_all(c, err));
	}
out:
	mzm_free(raw);
	return st;
}

/* ---- columns ---- */

/* Rows col .. col+n-1 of the file's tensor, as numbers of the new type, become columns of dst. */
static void put_columns(const conversion *c, const char *rows, size_t col, size_t n, size_t n_ffn)
{
	size_t elem = mzm_dtype_bytes(c->t->dtype), dim = (size_t)c->t->n_cols;
	for (size_t j = 0; j < n_ffn; j++) {
		char *out = c->dst + (place_of(c, j) * dim + col) * elem;
		for (size_t k = 0; k < n; k++)
			memcpy(out + k * elem, rows + (k * n_ffn + j) * elem, elem);
	}
}

/* Down [dim, n_ffn] to a type without blocks. */
static mzm_status read_columns(conversion *c, mzm_err *err)
{
	mzm_status st;
	mzm_gguf_rows row = {0};
	char *raw = NULL, *wide = NULL;
	const mzm_gguf_tensor *from = c->part->t;
	size_t n_ffn = n_part_rows(c), dim = (size_t)c->t->n_cols;
	size_t from_bytes = mzm_gguf_row_bytes(from->type, (int32_t)n_ffn);
	size_t to_bytes = mzm_row_bytes(c->t->dtype, (int32_t)n_ffn);
	MZM_TRY_OUT(mzm_gguf_rows_init(&row, from->type, c->t->dtype, (int32_t)n_ffn, err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&raw, TILE_ROWS * from_bytes, "a block of rows", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&wide, TILE_ROWS * to_bytes, "a block of rows", err));
	for (size_t r0 = 0; r0 < dim; r0 += TILE_ROWS) {
		size_t n = dim - r0 < TILE_ROWS ? dim - r0 : TILE_ROWS;
		MZM_TRY_OUT(mzm_gguf_read(c->g, from, (uint64_t)r0 * from_bytes, n * from_bytes, raw, err));
		for (size_t r = 0; r < n; r++)
			(void)mzm_gguf_row(&row, wide + r * to_bytes, raw + r * from_bytes);
		put_columns(c, wide, r0, n, n_ffn);
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
static mzm_status quant_columns(conversion *c, mzm_err *err)
{
	mzm_status st;
	char *raw = NULL;
	float *panel = NULL;
	const mzm_gguf_tensor *from = c->part->t;
	size_t dim = (size_t)c->t->n_cols, n_ffn = n_part_rows(c);
	size_t from_bytes = mzm_gguf_row_bytes(from->type, (int32_t)n_ffn);
	MZM_TRY_OUT(mzm_alloc_for((void **)&raw, (size_t)from->bytes, from->name, err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&panel, PANEL_COLS * dim * sizeof(float), "a panel of columns", err));
	MZM_TRY_OUT(mzm_gguf_read(c->g, from, 0, (size_t)from->bytes, raw, err));
	c->panel = panel;
	for (c->first = 0; c->first < n_ffn; c->first += PANEL_COLS) {
		c->n = n_ffn - c->first < PANEL_COLS ? n_ffn - c->first : PANEL_COLS;
		fill_panel(panel, raw, from->type, from_bytes, c->first, c->n, dim);
		MZM_TRY_OUT(convert_all(c, err));
	}
out:
	mzm_free(raw);
	mzm_free(panel);
	return st;
}

/* ---- vectors ---- */

/* A norm or a bias: f32, f16 or bf16 in the file. */
static mzm_status read_vector(conversion *c, mzm_err *err)
{
	mzm_status st;
	char *raw = NULL;
	float *wide = NULL;
	const mzm_gguf_tensor *from = c->part->t;
	size_t n = (size_t)c->t->n_cols, elem = mzm_gguf_row_bytes(from->type, 1);
	MZM_TRY_OUT(mzm_alloc_for((void **)&raw, n * elem, "a vector", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&wide, n * sizeof *wide, "a vector", err));
	MZM_TRY_OUT(mzm_gguf_read(c->g, from, (uint64_t)c->part->first * elem, n * elem, raw, err));
	mzm_ggml_to_f32(wide, raw, from->type, n);
	for (size_t i = 0; i < n; i++)
		memcpy(c->dst + place_of(c, i) * sizeof *wide, &wide[i], sizeof *wide);
out:
	mzm_free(raw);
	mzm_free(wide);
	return st;
}

/* ---- all of it ---- */

/* The threads and what each needs; small tensors get one. -> conversion_free, whether it failed or not */
static mzm_status conversion_init(conversion *c, mzm_err *err)
{
	bool work = mzm_dtype_is_quant(c->t->dtype) || mzm_ggml_is_quant(c->part->t->type);
	bool large = work && (size_t)c->t->n_rows * (size_t)c->t->n_cols >= SHARED_WEIGHTS;
	MZM_TRY(mzm_team_create(&c->team, large ? 0 : 1, err));
	size_t n = (size_t)mzm_team_size(c->team);
	MZM_TRY(mzm_alloc_for((void **)&c->rows, n * sizeof c->rows[0], "conversion", err));
	for (size_t k = 0; k < n; k++)
		MZM_TRY(mzm_gguf_rows_init(&c->rows[k], c->part->t->type, c->t->dtype, c->t->n_cols, err));
	return MZM_OK;
}

static void conversion_free(conversion *c)
{
	for (int k = 0; c->rows && k < mzm_team_size(c->team); k++)
		mzm_gguf_rows_free(&c->rows[k]);
	mzm_free(c->rows);
	mzm_team_free(c->team);
}

/* sums: of squares of what was changed, and of all weights. */
static mzm_status read_part(conversion *c, double sums[2], mzm_err *err)
{
	mzm_status st;
	if (mzm_tensor_is_vector(c->t->kind))
		return read_vector(c, err);
	if (c->part->transposed && !mzm_dtype_is_quant(c->t->dtype))
		return read_columns(c, err);
	MZM_TRY_OUT(conversion_init(c, err));
	MZM_TRY_OUT(c->part->transposed ? quant_columns(c, err) : read_rows(c, err));
	for (int k = 0; k < mzm_team_size(c->team); k++) {
		sums[0] += c->rows[k].error;
		sums[1] += c->rows[k].norm;
	}
out:
	conversion_free(c);
	return st;
}

mzm_status mzm_gguf_read_tensor(const mzm_gguf *g, const mzm_config *cfg, const mzm_tensor *t,
				const mzm_gguf_part *parts, int n_parts, void *dst, double *error, mzm_err *err)
{
	double sums[2] = {0, 0};
	*error = 0;
	if (n_parts == 0)
		memset(dst, 0, mzm_tensor_bytes(t));
	for (int k = 0; k < n_parts; k++) {
		conversion c = {.g = g, .t = t, .part = &parts[k], .head_dim = (size_t)cfg->head_dim,
				.place = (size_t)k, .step = (size_t)n_parts, .dst = dst};
		MZM_TRY(read_part(&c, sums, err));
	}
	*error = sums[1] > 0 ? sqrt(sums[0] / sums[1]) : 0;
	return MZM_OK;
}
