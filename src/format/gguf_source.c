/* gguf_source.c - a GGUF model, of one file or several, as a source of canonical tensors.
 *
 * Opening costs O(metadata) and settles everything about names, shapes and types. Types:
 *     F32, F16, BF16    as they are; norms and biases f32; up and down f32 where they differ
 *     Q8_0 / Q4_0       q8 / q4, the same values, where rows stay rows
 *     all other blocks  q8, rounded anew; so is down, and up unless it is Q8_0 or Q4_0, when one of the two has blocks:
 *                       they share a type
 * Who wants another type than that reads the numbers that the blocks stand for (mzm_source_read_as). What rounding cost
 * is measured while tensors are read. */
#include "format/gguf_source.h"

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "format/gguf_names.h"
#include "format/gguf_types.h"

typedef struct gguf_tensor {
	mzm_gguf_part part[2]; /* [n_parts] */
	int n_parts;
	_Atomic double error; /* relative, root of the mean square; < 0: not measured yet */
} gguf_tensor;

typedef struct gguf_source {
	mzm_source base;
	mzm_gguf *file;
	gguf_tensor *sources; /* [base.n_tensors] */
	char *text[2];        /* tokenizer.json, tokenizer_config.json */
} gguf_source;

/* ---- opening ---- */

static mzm_status wrong_shape(const char *path, const mzm_gguf_tensor *t, const mzm_gguf_part_name *want, mzm_err *err)
{
	return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s: expected [%d, %d], found [%llu, %llu, %llu, %llu]", path,
			t->name, (int)want->n_cols, (int)(want->n_rows ? want->n_rows : 1),
			(unsigned long long)t->dims[0], (unsigned long long)t->dims[1], (unsigned long long)t->dims[2],
			(unsigned long long)t->dims[3]);
}

static mzm_status find_part(const gguf_source *s, const mzm_gguf_part_name *want, mzm_gguf_part *out, mzm_err *err)
{
	const mzm_gguf_tensor *t = mzm_gguf_find(s->file, want->name);
	bool vector = want->n_rows == 0;
	if (!t)
		return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s is missing", s->base.path, want->name);
	const char *path = mzm_gguf_file_path(s->file, t->file);
	if (t->n_dims != (vector ? 1 : 2) || t->dims[0] != (uint64_t)want->n_cols ||
	    t->dims[1] != (uint64_t)(vector ? 1 : want->n_rows))
		return wrong_shape(path, t, want, err);
	if (t->bytes == 0 || (vector && mzm_ggml_is_quant(t->type)))
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: tensor %s: type %u (%s) is not supported", path, t->name,
				t->type, mzm_ggml_name(t->type));
	*out = (mzm_gguf_part){
		.t = t, .first = want->first, .interleaved = want->interleaved, .transposed = want->transposed};
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

static bool has_blocks(const gguf_tensor *x)
{
	for (int k = 0; k < x->n_parts; k++)
		if (mzm_ggml_is_quant(x->part[k].t->type))
			return true;
	return false;
}

static bool keeps_rows(const gguf_tensor *x)
{
	return x->n_parts == 1 && !x->part[0].transposed;
}

static mzm_dtype dtype_of(const gguf_tensor *x, const mzm_tensor *t)
{
	if (mzm_tensor_is_vector(t->kind))
		return MZM_F32;
	if (keeps_rows(x))
		return dtype_for(x->part[0].t->type);
	if (has_blocks(x))
		return mzm_dtype_fits(MZM_Q8, t->n_cols) ? MZM_Q8 : MZM_F32;
	return x->part[0].t->type == x->part[x->n_parts - 1].t->type ? dtype_for(x->part[0].t->type) : MZM_F32;
}

static mzm_status refuse_leftovers(const gguf_source *s, const bool *used, mzm_err *err)
{
	for (int32_t i = 0; i < mzm_gguf_n_tensors(s->file); i++) {
		const mzm_gguf_tensor *t = mzm_gguf_tensor_at(s->file, i);
		if (!used[i] && !mzm_gguf_is_config(t->name))
			return mzm_fail(err, MZM_EUNSUPPORTED, "%s: tensor %s belongs to no part of this architecture",
					mzm_gguf_file_path(s->file, t->file), t->name);
	}
	return MZM_OK;
}

/* Finds the parts of every canonical tensor; no other may be left. used: [mzm_gguf_n_tensors] */
static mzm_status resolve(gguf_source *s, bool *used, mzm_err *err)
{
	mzm_gguf_layout layout;
	mzm_gguf_layout_of(&layout, s->file, &s->base.cfg);
	for (int32_t i = 0; i < s->base.n_tensors; i++) {
		mzm_tensor *t = &s->base.tensors[i];
		gguf_tensor *x = &s->sources[i];
		mzm_gguf_part_name want[2];
		x->error = -1;
		x->n_parts = mzm_gguf_parts(want, t, &s->base.cfg, &layout);
		for (int k = 0; k < x->n_parts; k++) {
			MZM_TRY(find_part(s, &want[k], &x->part[k], err));
			used[x->part[k].t - mzm_gguf_tensor_at(s->file, 0)] = true;
		}
		t->dtype = dtype_of(x, t);
	}
	return refuse_leftovers(s, used, err);
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

/* A layer has tensors of its own: no table is made for layers that cannot be there. */
static mzm_status check_layers(const gguf_source *s, const mzm_config *cfg, mzm_err *err)
{
	if (cfg->n_layers > mzm_gguf_n_tensors(s->file))
		return mzm_fail(err, MZM_EFORMAT, "%d layers, but only %d tensors", (int)cfg->n_layers,
				(int)mzm_gguf_n_tensors(s->file));
	return MZM_OK;
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

/* What another type is best made of: itself, where blocks hold no more than it does, else the numbers. */
static mzm_dtype gguf_type_for(const mzm_source *src, int32_t i, mzm_dtype wanted)
{
	const gguf_tensor *x = &((const gguf_source *)src)->sources[i];
	if (!has_blocks(x))
		return src->tensors[i].dtype;
	return keeps_rows(x) && mzm_gguf_is_exact(x->part[0].t->type, wanted) ? wanted : MZM_F32;
}

static mzm_status gguf_read_as(mzm_source *src, int32_t i, mzm_dtype dtype, void *dst, mzm_err *err)
{
	gguf_source *s = (gguf_source *)src;
	gguf_tensor *x = &s->sources[i];
	mzm_tensor t = src->tensors[i];
	double error;
	t.dtype = dtype;
	MZM_TRY(mzm_gguf_read_tensor(s->file, &src->cfg, &t, x->part, x->n_parts, dst, &error, err));
	if (dtype == src->tensors[i].dtype)
		x->error = error;
	return MZM_OK;
}

static mzm_status gguf_read(mzm_source *src, int32_t i, void *dst, mzm_err *err)
{
	return gguf_read_as(src, i, src->tensors[i].dtype, dst, err);
}

/* ---- the rest of the interface ---- */

static uint64_t gguf_bytes_read(const mzm_source *src)
{
	return mzm_gguf_bytes_read(((const gguf_source *)src)->file);
}

/* Of a tensor that holds several canonical ones, the share of this one. */
static mzm_stored gguf_stored(const mzm_source *src, int32_t i)
{
	const gguf_tensor *x = &((const gguf_source *)src)->sources[i];
	const mzm_tensor *t = &src->tensors[i];
	mzm_stored out = {.codec = x->n_parts ? mzm_ggml_name(x->part[0].t->type) : "zero", .n_extents = x->n_parts};
	for (int k = 0; k < x->n_parts; k++)
		out.bytes += x->part[k].transposed ? x->part[k].t->bytes
						   : (uint64_t)(t->n_rows / x->n_parts) *
							     mzm_gguf_row_bytes(x->part[k].t->type, t->n_cols);
	return out;
}

/* From which types a tensor came, and what that cost: null until it was read. */
static json_t *describe_tensor(const gguf_source *s, int32_t i)
{
	char name[64], from[32];
	const gguf_tensor *x = &s->sources[i];
	double error = x->error;
	const char *a = mzm_ggml_name(x->part[0].t->type), *b = mzm_ggml_name(x->part[x->n_parts - 1].t->type);
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
		converted = converted || mzm_ggml_is_quant(x->part[k].t->type) ||
			    dtype_for(x->part[k].t->type) != s->base.tensors[i].dtype;
	return converted;
}

static bool describe_files(const gguf_source *s, json_t *out)
{
	uint64_t total = 0;
	json_t *list = json_array();
	bool ok = json_object_set_new(out, "files", list) == 0;
	for (int32_t i = 0; ok && i < mzm_gguf_n_files(s->file); i++) {
		const char *path = mzm_gguf_file_path(s->file, i), *slash = strrchr(path, '/');
		uint64_t bytes = mzm_gguf_file_bytes(s->file, i);
		total += bytes;
		ok = json_array_append_new(list,
					   json_pack("{s:o, s:I}", "name", mzm_json_text(slash ? slash + 1 : path),
						     "bytes", (json_int_t)bytes)) == 0;
	}
	return ok && json_object_set_new(out, "file_bytes", json_integer((json_int_t)total)) == 0;
}

static bool gguf_describe(const mzm_source *src, json_t *out)
{
	const gguf_source *s = (const gguf_source *)src;
	json_t *list = json_array();
	bool ok = json_object_set_new(out, "conversions", list) == 0 && describe_files(s, out);
	for (int32_t i = 0; ok && i < src->n_tensors; i++)
		ok = !is_converted(s, i) || json_array_append_new(list, describe_tensor(s, i)) == 0;
	return ok;
}

static bool gguf_uses(const mzm_source *src, const char *path)
{
	const gguf_source *s = (const gguf_source *)src;
	for (int32_t i = 0; i < mzm_gguf_n_files(s->file); i++)
		if (mzm_path_is_same(path, mzm_gguf_file_path(s->file, i)))
			return true;
	return false;
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
	.type_for = gguf_type_for,
	.read_as = gguf_read_as,
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
		st = check_layers(s, &cfg, err);
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
