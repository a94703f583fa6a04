/* import.c - mzm_import: a model directory, or a container, becomes a container.
 *
 * Workload: once a model, one pass over all weights in canonical order. Memory: one tensor, a second
 * where types are converted, and one packed extent. The source is only read; the target is the old file,
 * absent, or complete at any moment (base/io.h). It does not quantise below 16 bits. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/half.h"
#include "base/io.h"
#include "format/mzm_write.h"

mzm_import_params mzm_import_params_default(void)
{
	return (mzm_import_params){.zstd = -1};
}

typedef struct import {
	mzm_import_params     params;
	mzm_dtype             target;     /* where params.quant is given */
	mzm_source           *src;
	mzm_container_writer *out;
	void                 *raw, *conv; /* the largest tensor before and after conversion */
	bool                  converted;  /* some tensor was */
	mzm_dtype             matrix;     /* type of the matrices written so far */
	bool                  mixed;      /* more than one */
} import;

static mzm_status check_params(import *im, mzm_err *err)
{
	if (im->params.zstd < -1 || im->params.zstd > 19)
		return mzm_fail(err, MZM_EARG, "zstd level %d is outside 1 .. 19 (0 = off, -1 = where it pays)",
				im->params.zstd);
	if (im->params.quant && !mzm_dtype_parse(&im->target, im->params.quant))
		return mzm_fail(err, MZM_EARG, "cannot import as \"%.20s\"; known are f32, f16, bf16",
				im->params.quant);
	return MZM_OK;
}

/* ---- conversion ---- */

static float load(const char *p, mzm_dtype dtype)
{
	uint16_t h;
	float f;
	memcpy(&h, p, 2);
	if (dtype == MZM_F32)
		memcpy(&f, p, 4);
	return dtype == MZM_F32 ? f : dtype == MZM_BF16 ? mzm_bf16_to_f32(h) : mzm_f16_to_f32(h);
}

static void store(char *p, mzm_dtype dtype, float f)
{
	uint16_t h = dtype == MZM_BF16 ? mzm_f32_to_bf16(f) : mzm_f32_to_f16(f);
	if (dtype == MZM_F32)
		memcpy(p, &f, 4);
	else
		memcpy(p, &h, 2);
}

/* Rounds to nearest even. Returns how many finite weights are too large for the new type. */
static size_t convert(char *dst, mzm_dtype to, const char *src, mzm_dtype from, size_t n)
{
	size_t n_over = 0, to_bytes = mzm_dtype_bytes(to), from_bytes = mzm_dtype_bytes(from);
	for (size_t i = 0; i < n; i++) {
		float f = load(src + i * from_bytes, from);
		store(dst + i * to_bytes, to, f);
		n_over += isfinite(f) && !isfinite(load(dst + i * to_bytes, to));
	}
	return n_over;
}

/* The type tensor i will have: norms stay f32. */
static mzm_dtype target_type(const import *im, const mzm_tensor *t)
{
	bool norm = t->kind == MZM_T_ATTN_NORM || t->kind == MZM_T_FFN_NORM || t->kind == MZM_T_OUT_NORM;
	return im->params.quant && !norm ? im->target : t->dtype;
}

/* ---- tensors ---- */

static mzm_status alloc_buffers(import *im, uint64_t *total, mzm_err *err)
{
	int32_t n = mzm_tensor_count(mzm_source_config(im->src));
	size_t most_raw = 0, most_conv = 0;
	*total = 0;
	for (int32_t i = 0; i < n; i++) {
		mzm_tensor t = mzm_source_tensor(im->src, i);
		size_t bytes = mzm_tensor_bytes(&t);
		mzm_dtype to = target_type(im, &t);
		most_raw = bytes > most_raw ? bytes : most_raw;
		*total += bytes;
		if (to == t.dtype)
			continue;
		t.dtype = to;
		bytes = mzm_tensor_bytes(&t);
		most_conv = bytes > most_conv ? bytes : most_conv;
	}
	MZM_TRY(mzm_alloc_for(&im->raw, most_raw, "the largest tensor", err));
	return most_conv ? mzm_alloc_for(&im->conv, most_conv, "the largest tensor", err) : MZM_OK;
}

static void note_type(import *im, int32_t i, mzm_dtype dtype)
{
	if (i == 0) /* the embedding */
		im->matrix = dtype;
	im->mixed |= dtype != im->matrix;
}

static mzm_status copy_tensor(import *im, int32_t i, mzm_err *err)
{
	char name[64];
	mzm_tensor t = mzm_source_tensor(im->src, i);
	mzm_dtype from = t.dtype, to = target_type(im, &t);
	MZM_TRY(mzm_source_read(im->src, i, im->raw, err));
	if (t.n_rows > 1 || i == 0)
		note_type(im, i, to);
	if (from == to)
		return mzm_container_add(im->out, &t, im->raw, err);
	size_t n_over = convert(im->conv, to, im->raw, from, (size_t)t.n_rows * (size_t)t.n_cols);
	if (n_over)
		return mzm_fail(err, MZM_EUNSUPPORTED, "tensor %s: %zu weights are too large for %s",
				mzm_tensor_name(&t, name), n_over, mzm_dtype_name(to));
	t.dtype = to;
	im->converted = true;
	return mzm_container_add(im->out, &t, im->conv, err);
}

static mzm_status copy_tensors(import *im, uint64_t total, mzm_err *err)
{
	int32_t n = mzm_tensor_count(mzm_source_config(im->src));
	uint64_t done = 0;
	for (int32_t i = 0; i < n; i++) {
		mzm_tensor t = mzm_source_tensor(im->src, i);
		MZM_TRY(copy_tensor(im, i, err));
		done += mzm_tensor_bytes(&t);
		if (im->params.progress && im->params.progress(im->params.user, "import", done, total) != 0)
			return mzm_fail(err, MZM_ECANCELLED, "the import was cancelled");
	}
	return MZM_OK;
}

/* ---- metadata ---- */

/* A container that was damaged and given new checksums still has its old hash. */
static mzm_status check_hash(const import *im, const char *src_path, mzm_err *err)
{
	char hex[33];
	const char *said = mzm_source_hash(im->src);
	mzm_container_hash(im->out, hex);
	if (!im->converted && said && strcmp(said, hex) != 0)
		return mzm_fail(err, MZM_EFORMAT, "%s: the model's hash is %s, but the file says %s", src_path, hex,
				said);
	return MZM_OK;
}

static json_t *provenance(const import *im, const char *src_path)
{
	char when[32] = "";
	time_t now = time(NULL);
	struct tm tm;
	size_t len = strlen(src_path);
	while (len > 1 && src_path[len - 1] == '/')
		len--;
	size_t at = len;
	while (at > 0 && src_path[at - 1] != '/')
		at--;
	char *base = mzm_strndup(src_path + at, len - at);
	const char *hash = mzm_source_hash(im->src);
	if (gmtime_r(&now, &tm))
		strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
	json_t *o = base ? json_pack("{s:o, s:s, s:s?, s:s, s:s}", "source", mzm_json_text(base), "source_format",
				     mzm_source_format(im->src), "source_hash", hash, "tool",
				     "mirzam " MZM_VERSION_STRING, "time", when)
			 : NULL;
	mzm_free(base);
	return o;
}

static mzm_status add_side_files(const import *im, json_t *meta, const char *src_path, mzm_err *err)
{
	static const char *const keys[MZM_N_SIDE_FILES] = {"tokenizer", "tokenizer_config", "generation_config"};
	for (int i = 0; i < MZM_N_SIDE_FILES; i++) {
		size_t len;
		const char *text = mzm_source_side_file(im->src, (mzm_side_file)i, &len);
		if (text && json_object_set_new(meta, keys[i], json_stringn(text, len)) != 0)
			return mzm_fail(err, MZM_EFORMAT, "%s: %s is not UTF-8, or memory is short", src_path,
					mzm_side_file_name((mzm_side_file)i));
	}
	return MZM_OK;
}

static mzm_status finish(import *im, const char *src_path, mzm_err *err)
{
	mzm_status st = MZM_OK;
	json_t *meta = json_pack("{s:s, s:{s:s, s:b}, s:b, s:o}", "format", "mirzam model", "quant", "dtype",
				 im->mixed ? "mixed" : mzm_dtype_name(im->matrix), "converted", (int)im->converted,
				 "nonfinite", (int)im->params.allow_nonfinite, "provenance", provenance(im, src_path));
	if (!meta)
		return mzm_fail(err, MZM_ENOMEM, "out of memory: metadata");
	MZM_TRY_OUT(add_side_files(im, meta, src_path, err));
	MZM_TRY_OUT(mzm_container_finish(im->out, meta, err));
out:
	json_decref(meta);
	return st;
}

/* ---- the whole ---- */

static mzm_status check_tokenizer(const mzm_source *src, mzm_err *err)
{
	mzm_tokenizer *tok;
	MZM_TRY(mzm_source_tokenizer(&tok, src, err));
	mzm_tokenizer_close(tok);
	return MZM_OK;
}

mzm_status mzm_import(const char *src_path, const char *out_path, const mzm_import_params *params, mzm_err *err)
{
	mzm_status st;
	import im = {.params = params ? *params : mzm_import_params_default()};
	uint64_t total;
	if (!src_path || !out_path)
		return mzm_fail(err, MZM_EARG, "import needs a source and a target");
	MZM_TRY(check_params(&im, err));
	MZM_TRY(mzm_source_open(&im.src, src_path, err));
	if (strcmp(src_path, out_path) == 0 || mzm_source_uses(im.src, out_path))
		MZM_TRY_OUT(mzm_fail(err, MZM_EARG, "%s: the target is part of the source", out_path));
	mzm_source_allow_nonfinite(im.src, im.params.allow_nonfinite);
	MZM_TRY_OUT(check_tokenizer(im.src, err));
	MZM_TRY_OUT(alloc_buffers(&im, &total, err));
	MZM_TRY_OUT(mzm_container_create(&im.out, out_path, mzm_source_config(im.src), im.params.zstd, err));
	MZM_TRY_OUT(copy_tensors(&im, total, err));
	MZM_TRY_OUT(check_hash(&im, src_path, err));
	MZM_TRY_OUT(finish(&im, src_path, err));
out:
	mzm_container_discard(im.out);
	mzm_source_close(im.src);
	mzm_free(im.raw);
	mzm_free(im.conv);
	return st;
}
