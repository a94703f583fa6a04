/* import.c - mzm_import: a model directory, or a container, becomes a container.
 *
 * Workload: once a model, one pass over all weights in canonical order, and a second one over the matrices when a draft
 * image is made of them; where packing is to pay, some tensors are read once more before that (sample.h). Memory: one
 * tensor, a second where types are converted, and one packed extent. The source is only read; the target is the old
 * file, absent, or complete at any moment (base/io.h). Quantised weights of a container are copied, never
 * converted: their type says what was lost already. Blocks of a GGUF file become another type from the numbers that
 * they stand for. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "engine/convert.h"
#include "engine/import.h"
#include "engine/sample.h"
#include "format/mzm_write.h"

mzm_import_params mzm_import_params_default(void)
{
	return (mzm_import_params){.zstd = -1};
}

typedef enum draft_plan { DRAFT_NONE, DRAFT_COPY, DRAFT_MAKE } draft_plan;

typedef struct import {
	mzm_import_params     params;     /* zstd: 0 once a sample said that packing does not pay */
	mzm_dtype             target;     /* where params.quant is given */
	mzm_quant_method      method;
	draft_plan            draft;
	mzm_dtype             draft_type; /* of DRAFT_MAKE */
	mzm_source           *src;
	mzm_config            cfg;        /* of the target: the source's, but for attn_by_input */
	mzm_container_writer *out;
	mzm_converter        *converter;  /* NULL: nothing is converted */
	void                 *raw, *turned, *conv; /* the largest tensor as read, transposed, converted */
	mzm_import_report     report;
} import;

static mzm_status check_params(import *im, mzm_err *err)
{
	const mzm_import_params *p = &im->params;
	const char *method = p->quant_method ? p->quant_method : "best";
	if (p->zstd < -1 || p->zstd > 19)
		return mzm_fail(err, MZM_EARG, "zstd level %d is outside 1 .. 19 (0 = off, -1 = where it pays)",
				p->zstd);
	if (p->quant && !mzm_dtype_parse(&im->target, p->quant))
		return mzm_fail(err, MZM_EARG, "cannot import as \"%.20s\"; known are f32, f16, bf16, q8, q4",
				p->quant);
	if (strcmp(method, "best") != 0 && strcmp(method, "nearest") != 0)
		return mzm_fail(err, MZM_EARG, "unknown method \"%.20s\" of quantising; known are best, nearest",
				method);
	im->method = strcmp(method, "best") == 0 ? MZM_QUANT_BEST : MZM_QUANT_NEAREST;
	if (p->attn_layout && strcmp(p->attn_layout, "input") != 0 && strcmp(p->attn_layout, "output") != 0)
		return mzm_fail(err, MZM_EARG, "no layout \"%.20s\" of the attention; known are output, input",
				p->attn_layout);
	im->draft_type = MZM_F32;
	if (p->draft_quant && strcmp(p->draft_quant, "off") != 0 &&
	    (!mzm_dtype_parse(&im->draft_type, p->draft_quant) || !mzm_dtype_is_quant(im->draft_type)))
		return mzm_fail(err, MZM_EARG, "no draft image of type \"%.20s\"; known are q8, q4, off",
				p->draft_quant);
	return MZM_OK;
}

/* ---- what becomes of each tensor ---- */

static bool is_table(const mzm_tensor *t)
{
	return t->kind == MZM_T_EMBED || t->kind == MZM_T_POS || t->kind == MZM_T_HEAD;
}

/* The type a tensor of the model will have: norms stay f32, rows that are no whole blocks what they are; and q4 costs
 * the embedding and the head more than the layers, so these become q8. */
static mzm_dtype target_type(const import *im, const mzm_tensor *t)
{
	mzm_dtype to = im->target == MZM_Q4 && is_table(t) ? MZM_Q8 : im->target;
	return im->params.quant && !mzm_tensor_is_vector(t->kind) && mzm_dtype_fits(to, t->n_cols) ? to : t->dtype;
}

static int32_t n_model(const import *im)
{
	return mzm_tensor_count(&im->cfg);
}

static int32_t n_steps(const import *im)
{
	return n_model(im) + (im->draft == DRAFT_NONE ? 0 : mzm_draft_count(&im->cfg));
}

/* The tensor lies the other way round in the target. */
static bool is_turned(const import *im, const mzm_tensor *t)
{
	return mzm_tensor_is_attention(t->kind) &&
	       im->cfg.attn_by_input != mzm_source_config(im->src)->attn_by_input;
}

/* The i-th tensor of the target, and the number of the source's tensor that it is made from. */
static mzm_tensor step_at(const import *im, int32_t i, int32_t *from)
{
	const mzm_config *cfg = &im->cfg;
	mzm_tensor t;
	*from = i;
	if (i < n_model(im)) {
		t = mzm_tensor_at(cfg, i);
		t.dtype = mzm_source_tensor(im->src, i).dtype;
		t.dtype = target_type(im, &t);
	} else if (im->draft == DRAFT_COPY) {
		t = mzm_draft_at(cfg, i - n_model(im));
		t.dtype = mzm_source_tensor(im->src, i).dtype;
	} else {
		t = mzm_draft_at(cfg, i - n_model(im));
		t.dtype = im->draft_type;
		*from = mzm_tensor_index(cfg, t.kind == MZM_T_HEAD && cfg->tied ? MZM_T_EMBED : t.kind, t.layer);
	}
	return t;
}

/* Tensor `from` of the source as it is read on its way to t: a file that was rounded to be read (GGUF) is asked for its
 * own numbers, when it is to have another type, or to be rounded by another method. */
static mzm_tensor source_of(const import *im, const mzm_tensor *t, int32_t from)
{
	mzm_tensor s = mzm_source_tensor(im->src, from);
	bool remade = im->params.quant && mzm_dtype_is_quant(t->dtype) && im->method != MZM_QUANT_BEST;
	if (t->dtype != s.dtype || remade)
		s.dtype = mzm_source_type_for(im->src, from, t->dtype);
	if (is_turned(im, t) && mzm_dtype_is_quant(s.dtype)) /* blocks lie along rows */
		s.dtype = mzm_source_type_for(im->src, from, MZM_F32);
	return s;
}

/* True when the source has a draft image of the wanted type; then it is not lost where none can be made. */
static bool has_wanted_draft(const import *im)
{
	if (!mzm_source_has_draft(im->src))
		return false;
	for (int32_t i = n_model(im); i < mzm_source_n_tensors(im->src); i++)
		if (mzm_source_tensor(im->src, i).dtype != im->draft_type)
			return false;
	return true;
}

static bool is_source_quantised(const import *im)
{
	for (int32_t i = 0; i < n_model(im); i++)
		if (mzm_dtype_is_quant(mzm_source_tensor(im->src, i).dtype))
			return true;
	return false;
}

static void plan_draft(import *im)
{
	const char *wanted = im->params.draft_quant;
	if (!wanted)
		im->draft = mzm_source_has_draft(im->src) ? DRAFT_COPY : DRAFT_NONE;
	else if (strcmp(wanted, "off") == 0)
		im->draft = DRAFT_NONE;
	else
		im->draft = is_source_quantised(im) && has_wanted_draft(im) ? DRAFT_COPY : DRAFT_MAKE;
}

/* Refuses what cannot be converted, before anything is written; finds the sizes of all buffers. */
static mzm_status plan(import *im, uint64_t *total, mzm_err *err)
{
	size_t most_raw = 0, most_turned = 0, most_conv = 0;
	int32_t from, max_cols = 0;
	char name[64];
	*total = 0;
	plan_draft(im);
	for (int32_t i = 0; i < n_steps(im); i++) {
		mzm_tensor t = step_at(im, i, &from), s = source_of(im, &t, from);
		size_t raw = mzm_tensor_bytes(&s), conv = mzm_tensor_bytes(&t);
		*total += raw;
		most_raw = raw > most_raw ? raw : most_raw;
		most_turned = is_turned(im, &t) && raw > most_turned ? raw : most_turned;
		if (is_turned(im, &t) && mzm_dtype_is_quant(s.dtype))
			return mzm_fail(err, MZM_EUNSUPPORTED,
					"tensor %s is %s already and cannot be turned round: import from the weights "
					"that it was made of",
					mzm_tensor_name(&s, name), mzm_dtype_name(s.dtype));
		if (t.dtype == s.dtype)
			continue;
		if (mzm_dtype_is_quant(s.dtype))
			return mzm_fail(err, MZM_EUNSUPPORTED,
					"tensor %s is %s already and cannot become %s%s: import from the weights that "
					"it was made of",
					mzm_tensor_name(&s, name), mzm_dtype_name(s.dtype),
					t.role == MZM_ROLE_DRAFT ? "a draft image of " : "", mzm_dtype_name(t.dtype));
		if (!mzm_dtype_fits(t.dtype, t.n_cols))
			return mzm_fail(err, MZM_EUNSUPPORTED,
					"%s: tensor %s has %d columns, which are no whole blocks of 32",
					t.role == MZM_ROLE_DRAFT ? "no draft image of this model"
								 : "the attention cannot be turned round",
					mzm_tensor_name(&s, name), (int)t.n_cols);
		most_conv = conv > most_conv ? conv : most_conv;
		max_cols = t.n_cols > max_cols ? t.n_cols : max_cols;
	}
	MZM_TRY(mzm_alloc_for(&im->raw, most_raw, "the largest tensor", err));
	if (most_turned)
		MZM_TRY(mzm_alloc_for(&im->turned, most_turned, "the largest tensor", err));
	if (!most_conv)
		return MZM_OK;
	MZM_TRY(mzm_alloc_for(&im->conv, most_conv, "the largest tensor", err));
	return mzm_converter_create(&im->converter, max_cols, im->method, err);
}

/* ---- tensors ---- */

#define TILE 32 /* rows and columns that stay in the nearest cache */

/* Rows become columns. */
static void turn(char *to, const char *from, const mzm_tensor *t)
{
	size_t n_rows = (size_t)t->n_rows, n_cols = (size_t)t->n_cols, n = mzm_dtype_bytes(t->dtype);
	for (size_t r0 = 0; r0 < n_rows; r0 += TILE)
		for (size_t c0 = 0; c0 < n_cols; c0 += TILE)
			for (size_t r = r0; r < r0 + TILE && r < n_rows; r++)
				for (size_t c = c0; c < c0 + TILE && c < n_cols; c++)
					memcpy(to + (c * n_rows + r) * n, from + (r * n_cols + c) * n, n);
}

/* The first t->n_rows rows of t, which is made from the source's tensor `from`; *data is im's. */
static mzm_status make_rows(import *im, const mzm_tensor *t, int32_t from, const void **data, mzm_err *err)
{
	mzm_tensor s = source_of(im, t, from);
	const void *raw = im->raw;
	MZM_TRY(mzm_source_read_as(im->src, from, s.dtype, im->raw, err));
	if (is_turned(im, t)) {
		turn(im->turned, im->raw, &s);
		s.n_cols = t->n_cols;
		raw = im->turned;
	}
	s.n_rows = t->n_rows;
	*data = t->dtype == s.dtype ? raw : im->conv;
	return t->dtype == s.dtype ? MZM_OK : mzm_convert(im->converter, im->conv, t->dtype, raw, &s, err);
}

static mzm_status report_progress(const import *im, const char *stage, uint64_t done, uint64_t total, mzm_err *err)
{
	if (im->params.progress && im->params.progress(im->params.user, stage, done, total) != 0)
		return mzm_fail(err, MZM_ECANCELLED, "the import was cancelled");
	return MZM_OK;
}

static mzm_status copy_tensor(import *im, int32_t i, uint64_t *done, mzm_err *err)
{
	int32_t from;
	const void *data;
	mzm_tensor t = step_at(im, i, &from), s = source_of(im, &t, from);
	*done += mzm_tensor_bytes(&s);
	MZM_TRY(make_rows(im, &t, from, &data, err));
	return mzm_container_add(im->out, &t, data, err);
}

static mzm_status copy_tensors(import *im, uint64_t total, mzm_err *err)
{
	uint64_t done = 0;
	for (int32_t i = 0; i < n_steps(im); i++) {
		MZM_TRY(copy_tensor(im, i, &done, err));
		MZM_TRY(report_progress(im, "import", done, total, err));
	}
	return MZM_OK;
}

/* ---- where packing pays ---- */

/* Matrices of layers first: those stream, and of the tables the embedding never does. */
static mzm_status fill_sample(import *im, mzm_sample *s, mzm_err *err)
{
	int32_t from, n = n_model(im);
	for (int32_t i = 0; i < 2 * n; i++) {
		const void *data;
		mzm_tensor t = step_at(im, i % n, &from);
		if (mzm_tensor_is_vector(t.kind) || is_table(&t) != (i >= n))
			continue;
		t.n_rows = mzm_sample_rows(s, &t);
		if (t.n_rows == 0)
			break;
		MZM_TRY(make_rows(im, &t, from, &data, err));
		MZM_TRY(mzm_sample_add(s, &t, data, err));
		MZM_TRY(report_progress(im, "measuring", mzm_sample_bytes(s), MZM_SAMPLE_BYTES, err));
	}
	return MZM_OK;
}

static mzm_status measure(import *im, const char *out_path, mzm_file_speed *speed, mzm_err *err)
{
	mzm_status st;
	mzm_sample *s;
	MZM_TRY(mzm_sample_begin(&s, out_path, err));
	MZM_TRY_OUT(fill_sample(im, s, err));
	MZM_TRY_OUT(mzm_sample_judge(s, speed, err));
out:
	mzm_sample_end(s);
	return st;
}

/* What cannot be measured is packed where it shrinks; what else is wrong shows when it is done in earnest. */
static mzm_status choose_packing(import *im, const char *out_path, mzm_err *err)
{
	mzm_import_report *r = &im->report;
	mzm_file_speed speed;
	mzm_err why = {0};
	if (im->params.zstd != -1 || !mzm_sample_is_due(r->weight_bytes))
		return MZM_OK;
	mzm_status st = measure(im, out_path, &speed, &why);
	if (st == MZM_ECANCELLED)
		return mzm_fail(err, st, "%s", why.message);
	if (st != MZM_OK)
		return MZM_OK;
	r->sample = speed;
	r->is_raw = speed.is_compressed && !speed.pays;
	if (r->is_raw)
		im->params.zstd = 0;
	return MZM_OK;
}

/* ---- report ---- */

typedef struct type_name {
	bool      seen, mixed;
	mzm_dtype dtype;
} type_name;

static void note_type(type_name *n, mzm_dtype dtype)
{
	n->mixed |= n->seen && n->dtype != dtype;
	n->seen = true;
	n->dtype = dtype;
}

static void fill_report(import *im)
{
	mzm_import_report *r = &im->report;
	type_name layers = {0}, tables = {0};
	int32_t from;
	r->n_tensors = n_model(im);
	r->n_draft = n_steps(im) - r->n_tensors;
	for (int32_t i = 0; i < n_steps(im); i++) {
		mzm_tensor t = step_at(im, i, &from);
		bool changed = t.dtype != mzm_source_tensor(im->src, from).dtype;
		*(t.role == MZM_ROLE_DRAFT ? &r->draft_bytes : &r->weight_bytes) += mzm_tensor_bytes(&t);
		if (t.role == MZM_ROLE_DRAFT || mzm_tensor_is_vector(t.kind))
			continue;
		r->n_converted += changed;
		r->n_unchanged += im->params.quant && !mzm_dtype_fits(im->target, t.n_cols);
		note_type(is_table(&t) ? &tables : &layers, t.dtype);
	}
	if (layers.mixed || tables.mixed)
		snprintf(r->dtype, sizeof r->dtype, "mixed");
	else if (layers.dtype == tables.dtype)
		snprintf(r->dtype, sizeof r->dtype, "%s", mzm_dtype_name(layers.dtype));
	else
		snprintf(r->dtype, sizeof r->dtype, "%s (embedding and head %s)", mzm_dtype_name(layers.dtype),
			 mzm_dtype_name(tables.dtype));
}

/* ---- metadata ---- */

/* A container that was damaged and given new checksums still has its old hashes. */
static mzm_status check_hash(const import *im, const char *src_path, mzm_err *err)
{
	char hex[33];
	const char *said = mzm_source_hash(im->src), *draft_said = mzm_source_draft_hash(im->src);
	mzm_container_hash(im->out, hex);
	bool same = im->cfg.attn_by_input == mzm_source_config(im->src)->attn_by_input;
	if (!im->report.n_converted && same && said && strcmp(said, hex) != 0)
		return mzm_fail(err, MZM_EFORMAT, "%s: the model's hash is %s, but the file says %s", src_path, hex,
				said);
	mzm_container_draft_hash(im->out, hex);
	if (im->draft == DRAFT_COPY && same && strcmp(draft_said, hex) != 0)
		return mzm_fail(err, MZM_EFORMAT, "%s: the draft image's hash is %s, but the file says %s", src_path,
				hex, draft_said);
	return MZM_OK;
}

/* What the choice between packed and raw was made by; NULL: it was not. */
static json_t *packing(const mzm_import_report *r)
{
	const mzm_file_speed *s = &r->sample;
	if (s->raw_bytes == 0)
		return NULL;
	return json_pack("{s:I, s:I, s:I, s:I, s:b}", "sample_bytes", (json_int_t)s->raw_bytes, "sample_packed_bytes",
			 (json_int_t)s->stored_bytes, "disk_read_a_second_bytes", (json_int_t)s->disk_bytes_per_s,
			 "unpacks_a_second_bytes", (json_int_t)(s->unpack_bytes_per_s * s->unpack_threads),
			 "compression_pays", (int)s->pays);
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
	json_t *o = base ? json_pack("{s:o, s:s, s:s?, s:s, s:s, s:o*}", "source", mzm_json_text(base), "source_format",
				     mzm_source_format(im->src), "source_hash", hash, "tool",
				     "mirzam " MZM_VERSION_STRING, "time", when, "packing", packing(&im->report))
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

/* It stays with the weights. */
static mzm_status add_origin(const import *im, json_t *meta, mzm_err *err)
{
	const json_t *origin = mzm_source_origin(im->src);
	if (origin && json_object_set_new(meta, "origin", json_deep_copy(origin)) != 0)
		return mzm_fail(err, MZM_ENOMEM, "out of memory: metadata");
	return MZM_OK;
}

static mzm_status finish(import *im, const char *src_path, mzm_err *err)
{
	mzm_status st = MZM_OK;
	json_t *meta = json_pack("{s:s, s:{s:s, s:b}, s:b, s:o}", "format", "mirzam model", "quant", "dtype",
				 im->report.dtype, "converted", im->report.n_converted > 0,
				 "nonfinite", (int)im->params.allow_nonfinite, "provenance", provenance(im, src_path));
	if (!meta)
		return mzm_fail(err, MZM_ENOMEM, "out of memory: metadata");
	MZM_TRY_OUT(add_side_files(im, meta, src_path, err));
	MZM_TRY_OUT(add_origin(im, meta, err));
	MZM_TRY_OUT(mzm_container_finish(im->out, meta, err));
out:
	json_decref(meta);
	return st;
}

/* ---- the whole ---- */

/* Models made for measuring may have none. */
static mzm_status check_tokenizer(const mzm_source *src, mzm_err *err)
{
	mzm_tokenizer *tok;
	size_t len;
	if (mzm_source_origin(src) && !mzm_source_side_file(src, MZM_TOKENIZER_JSON, &len))
		return MZM_OK;
	MZM_TRY(mzm_source_tokenizer(&tok, src, err));
	mzm_tokenizer_close(tok);
	return MZM_OK;
}

mzm_status mzm_import_source(mzm_source *src, const char *out_path, const mzm_import_params *params, mzm_err *err)
{
	mzm_status st;
	import im = {.params = params ? *params : mzm_import_params_default(), .src = src};
	uint64_t total;
	MZM_TRY(check_params(&im, err));
	if (mzm_source_uses(src, out_path))
		return mzm_fail(err, MZM_EARG, "%s: the target is part of the source", out_path);
	im.cfg = *mzm_source_config(src);
	if (im.params.attn_layout)
		im.cfg.attn_by_input = strcmp(im.params.attn_layout, "input") == 0;
	mzm_source_allow_nonfinite(src, im.params.allow_nonfinite);
	MZM_TRY_OUT(check_tokenizer(src, err));
	MZM_TRY_OUT(plan(&im, &total, err));
	fill_report(&im);
	MZM_TRY_OUT(choose_packing(&im, out_path, err));
	MZM_TRY_OUT(mzm_container_create(&im.out, out_path, &im.cfg, im.params.zstd, err));
	MZM_TRY_OUT(copy_tensors(&im, total, err));
	MZM_TRY_OUT(check_hash(&im, src->path, err));
	MZM_TRY_OUT(finish(&im, src->path, err));
	if (im.params.report)
		*im.params.report = im.report;
out:
	mzm_container_discard(im.out);
	mzm_converter_free(im.converter);
	mzm_free(im.raw);
	mzm_free(im.turned);
	mzm_free(im.conv);
	return st;
}

mzm_status mzm_import(const char *src_path, const char *out_path, const mzm_import_params *params, mzm_err *err)
{
	import im = {.params = params ? *params : mzm_import_params_default()};
	mzm_source *src;
	mzm_status st;
	if (!src_path || !out_path)
		return mzm_fail(err, MZM_EARG, "import needs a source and a target");
	MZM_TRY(check_params(&im, err)); /* before a file is looked at */
	MZM_TRY(mzm_source_open(&src, src_path, err));
	st = strcmp(src_path, out_path) == 0
		     ? mzm_fail(err, MZM_EARG, "%s: the target is part of the source", out_path)
		     : mzm_import_source(src, out_path, params, err);
	mzm_source_close(src);
	return st;
}
