/* calib.c - reader and writer of side-cars; see calib.h. FORMAT.md has the form.
 *
 * Workload: a few hundred tensors, read once, looked up when a predictor is made. The header opens with fixed bytes and
 * the checksum behind them, which is taken over the whole file with that checksum's own digits as zeros: so every other
 * byte is covered, the header's too. Nothing is allocated by what a file claims before its size bears it out. Tensors
 * are copied apart, so that each is aligned, whatever its neighbours' sizes. It knows no model: that shapes fit is the
 * business of who looks a tensor up. */
#include "format/calib.h"

#include <stdio.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/io.h"
#include "base/str.h"
#include "format/safetensors.h"

#define OPENING    "{\"__metadata__\":{\"format\":\"mirzam calibration 1\",\"sum\":\""
#define N_DIGITS   16
#define MAX_HEADER ((size_t)16 << 20)
#define MAX_BYTES  ((uint64_t)4 << 30)
#define MAX_NAME   64

static const char zeros[N_DIGITS + 1] = "0000000000000000";

static void print_sum(char hex[N_DIGITS + 1], const XXH3_state_t *sum)
{
	snprintf(hex, N_DIGITS + 1, "%016llx", (unsigned long long)XXH3_64bits_digest(sum));
}

/* "layers.3.NAME", or NAME. */
static void full_name(char out[2 * MAX_NAME], const char *name, int32_t layer)
{
	if (layer < 0)
		snprintf(out, 2 * MAX_NAME, "%s", name);
	else
		snprintf(out, 2 * MAX_NAME, "layers.%d.%s", (int)layer, name);
}

/* Bytes of a tensor; false: more than a side-car holds. */
static bool tensor_bytes(size_t *out, mzm_dtype dtype, int32_t n_rows, int32_t n_cols)
{
	size_t n;
	return mzm_mul_size((size_t)n_rows, (size_t)n_cols, &n) && mzm_mul_size(n, mzm_dtype_bytes(dtype), out) &&
	       *out <= MAX_BYTES;
}

/* Every exponent is below the largest: neither NaN nor infinite. */
static bool is_finite(const void *data, mzm_dtype dtype, size_t n)
{
	const uint32_t *wide = data;
	const uint16_t *narrow = data, mask = dtype == MZM_F16 ? 0x7c00 : 0x7f80;
	bool bad = false;
	for (size_t i = 0; dtype == MZM_F32 && i < n; i++)
		bad |= (wide[i] & 0x7f800000u) == 0x7f800000u;
	for (size_t i = 0; dtype != MZM_F32 && i < n; i++)
		bad |= (narrow[i] & mask) == mask;
	return !bad;
}

/* ---- reading ---- */

struct mzm_calib {
	mzm_st_header head;
	void        **data;  /* [head.n] each 64-byte aligned */
	char         *block; /* that they are in */
	json_t       *info;
	size_t        bytes;
};

void mzm_calib_close(mzm_calib *c)
{
	if (!c)
		return;
	mzm_st_header_free(&c->head);
	mzm_free(c->data);
	mzm_free(c->block);
	json_decref(c->info);
	mzm_free(c);
}

static mzm_status check_tensor(const mzm_st_tensor *t, mzm_err *err)
{
	mzm_dtype dtype;
	if (!mzm_st_dtype(&dtype, t) || t->n_dims != 2 || t->shape[0] < 1 || t->shape[1] < 1 ||
	    t->shape[0] > INT32_MAX || t->shape[1] > INT32_MAX)
		return mzm_fail(err, MZM_EFORMAT, "tensor %s is not a matrix of f32, f16 or bf16", t->name);
	return MZM_OK;
}

/* Where each tensor goes, in a block made for them. */
static mzm_status place(mzm_calib *c, mzm_err *err)
{
	size_t used = 0, n_places;
	for (size_t i = 0; i < c->head.n; i++) {
		const mzm_st_tensor *t = &c->head.tensors[i];
		MZM_TRY(check_tensor(t, err));
		size_t bytes = (size_t)(t->end - t->begin);
		if (!mzm_pad_size(bytes, MZM_ALIGN, &bytes) || !mzm_add_size(used, bytes, &used))
			return mzm_fail(err, MZM_EFORMAT, "the tensors are larger than memory can be");
	}
	if (!mzm_mul_size(c->head.n, sizeof c->data[0], &n_places))
		return mzm_fail(err, MZM_EFORMAT, "too many tensors");
	MZM_TRY(mzm_alloc_for((void **)&c->data, n_places, "the list of tensors", err));
	MZM_TRY(mzm_alloc_for((void **)&c->block, used, "the calibration", err));
	c->bytes = used;
	used = 0;
	for (size_t i = 0; i < c->head.n; i++) {
		size_t bytes = (size_t)(c->head.tensors[i].end - c->head.tensors[i].begin);
		c->data[i] = c->block + used;
		used += (bytes + MZM_ALIGN - 1) / MZM_ALIGN * MZM_ALIGN;
	}
	return MZM_OK;
}

typedef struct span {
	uint64_t begin;
	size_t   tensor;
} span;

static int by_begin(const void *a, const void *b)
{
	const span *x = a, *y = b;
	return (x->begin > y->begin) - (x->begin < y->begin);
}

/* In the file's order, for the checksum; the list is in that of names. */
static mzm_status read_tensors(mzm_calib *c, mzm_file *f, uint64_t data, XXH3_state_t *sum, mzm_err *err)
{
	mzm_status st = MZM_OK;
	span *order = NULL;
	MZM_TRY(mzm_alloc_for((void **)&order, c->head.n * sizeof order[0], "the list of tensors", err));
	for (size_t i = 0; i < c->head.n; i++)
		order[i] = (span){c->head.tensors[i].begin, i};
	qsort(order, c->head.n, sizeof order[0], by_begin);
	for (size_t k = 0; k < c->head.n; k++) {
		size_t i = order[k].tensor;
		const mzm_st_tensor *t = &c->head.tensors[i];
		size_t bytes = (size_t)(t->end - t->begin);
		MZM_TRY_OUT(mzm_file_read_at(f, c->data[i], bytes, data + t->begin, err));
		(void)XXH3_64bits_update(sum, c->data[i], bytes);
	}
out:
	mzm_free(order);
	return st;
}

static mzm_status check_values(const mzm_calib *c, mzm_err *err)
{
	for (size_t i = 0; i < c->head.n; i++) {
		const mzm_st_tensor *t = &c->head.tensors[i];
		mzm_dtype dtype = MZM_F32;
		(void)mzm_st_dtype(&dtype, t);
		if (!is_finite(c->data[i], dtype, (size_t)(t->end - t->begin) / mzm_dtype_bytes(dtype)))
			return mzm_fail(err, MZM_EFORMAT, "tensor %s holds a number that is not finite", t->name);
	}
	return MZM_OK;
}

/* The hash of the model, and what the calibration says of itself. */
static mzm_status read_metadata(mzm_calib *c, const char *header, size_t len, const char *model_hash, mzm_err *err)
{
	mzm_status st;
	json_t *root = NULL;
	const char *hash, *info;
	MZM_TRY(mzm_json_parse(&root, header, len, "header", err));
	const json_t *meta = json_object_get(root, "__metadata__");
	MZM_TRY_OUT(mzm_json_string(meta, "model_hash", "", &hash, err));
	if (strcmp(hash, model_hash) != 0)
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT,
				     "it was made for another model: for weights of hash %.40s, and this model's is "
				     "%.40s",
				     hash[0] ? hash : "(none)", model_hash[0] ? model_hash : "(none)"));
	MZM_TRY_OUT(mzm_json_string(meta, "info", "", &info, err));
	MZM_TRY_OUT(mzm_json_parse(&c->info, info, strlen(info), "info", err));
	if (!json_is_object(c->info))
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "\"info\" is not a JSON object"));
out:
	json_decref(root);
	return st;
}

/* The header's bytes; *len of them. -> mzm_free */
static mzm_status read_header(char **out, size_t *len, mzm_file *f, XXH3_state_t *sum, char claimed[N_DIGITS + 1],
			      mzm_err *err)
{
	mzm_status st;
	uint8_t first[8] = {0};
	char *header = NULL;
	size_t at = strlen(OPENING);
	if (mzm_file_size(f) > MAX_BYTES + MAX_HEADER || mzm_file_size(f) < 8)
		return mzm_fail(err, MZM_EFORMAT, "%llu bytes are no side-car", (unsigned long long)mzm_file_size(f));
	MZM_TRY(mzm_file_read_at(f, first, sizeof first, 0, err));
	MZM_TRY(mzm_st_header_bytes(len, first, mzm_file_size(f), err));
	if (*len > MAX_HEADER || *len < at + N_DIGITS)
		return mzm_fail(err, MZM_EFORMAT, "a header of %zu bytes is none of a side-car", *len);
	MZM_TRY(mzm_alloc_for((void **)&header, *len, "the header", err));
	MZM_TRY_OUT(mzm_file_read_at(f, header, *len, 8, err));
	if (memcmp(header, OPENING, at) != 0)
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "it is not a side-car of a version that this program knows"));
	memcpy(claimed, header + at, N_DIGITS);
	(void)XXH3_64bits_update(sum, first, sizeof first);
	(void)XXH3_64bits_update(sum, header, at);
	(void)XXH3_64bits_update(sum, zeros, N_DIGITS);
	(void)XXH3_64bits_update(sum, header + at + N_DIGITS, *len - at - N_DIGITS);
	*out = header;
	return MZM_OK;
out:
	mzm_free(header);
	return st;
}

static mzm_status read_all(mzm_calib *c, mzm_file *f, const char *model_hash, mzm_err *err)
{
	mzm_status st;
	XXH3_state_t sum;
	char claimed[N_DIGITS + 1] = "", found[N_DIGITS + 1], *header = NULL;
	size_t len = 0;
	XXH3_INITSTATE(&sum);
	(void)XXH3_64bits_reset(&sum);
	MZM_TRY(read_header(&header, &len, f, &sum, claimed, err));
	MZM_TRY_OUT(read_metadata(c, header, len, model_hash, err));
	MZM_TRY_OUT(mzm_st_header_parse(&c->head, header, len, mzm_file_size(f) - 8 - len, err));
	MZM_TRY_OUT(place(c, err));
	MZM_TRY_OUT(read_tensors(c, f, 8 + (uint64_t)len, &sum, err));
	print_sum(found, &sum);
	if (memcmp(found, claimed, N_DIGITS) != 0)
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "it is damaged: the checksum is %s, not %.16s", found, claimed));
	MZM_TRY_OUT(check_values(c, err));
out:
	mzm_free(header);
	return st;
}

mzm_status mzm_calib_open(mzm_calib **out, const char *path, const char *model_hash, mzm_err *err)
{
	mzm_status st;
	mzm_calib *c = NULL;
	mzm_file *f = NULL;
	*out = NULL;
	if (!mzm_path_exists(path))
		return mzm_fail(err, MZM_EFORMAT, "%s: no such side-car", path);
	MZM_TRY_OUT(mzm_file_open(&f, path, err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&c, sizeof *c, "the calibration", err));
	st = read_all(c, f, model_hash, err);
	if (st == MZM_EFORMAT || st == MZM_EUNSUPPORTED) {
		if (err && !strstr(err->message, path))
			mzm_err_prefix(err, "%s", path);
		if (st == MZM_EUNSUPPORTED && err)
			err->code = MZM_EFORMAT;
		st = MZM_EFORMAT; /* a type of tensor that no version of ours writes */
	}
	if (st != MZM_OK)
		goto out;
	*out = c;
	c = NULL;
out:
	mzm_calib_close(c);
	mzm_file_close(f);
	return st;
}

static int by_name(const void *key, const void *tensor)
{
	return strcmp(key, ((const mzm_st_tensor *)tensor)->name);
}

static const mzm_st_tensor *find(const mzm_calib *c, const char *name, int32_t layer)
{
	char full[2 * MAX_NAME];
	if (!c || strlen(name) > MAX_NAME || c->head.n == 0)
		return NULL;
	full_name(full, name, layer);
	return bsearch(full, c->head.tensors, c->head.n, sizeof c->head.tensors[0], by_name);
}

const void *mzm_calib_find(const mzm_calib *c, const char *name, int32_t layer, mzm_dtype dtype, int32_t n_rows,
			   int32_t n_cols)
{
	const mzm_st_tensor *t = find(c, name, layer);
	mzm_dtype has;
	if (!t || !mzm_st_dtype(&has, t) || has != dtype || n_rows < 1 || n_cols < 1 ||
	    t->shape[0] != (uint64_t)n_rows || t->shape[1] != (uint64_t)n_cols)
		return NULL;
	return c->data[t - c->head.tensors];
}

bool mzm_calib_has(const mzm_calib *c, const char *name, int32_t layer)
{
	return find(c, name, layer) != NULL;
}

/* Whether a name begins so. */
static bool any_begins(const mzm_calib *c, const char *begin)
{
	size_t lo = 0, hi = c->head.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (strcmp(c->head.tensors[mid].name, begin) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < c->head.n && strncmp(c->head.tensors[lo].name, begin, strlen(begin)) == 0;
}

int32_t mzm_calib_count(const mzm_calib *c, const char *name, int32_t n_layers)
{
	int32_t n = 0;
	char parts[2 * MAX_NAME];
	for (int32_t l = 0; c && l < n_layers && strlen(name) < MAX_NAME; l++) {
		snprintf(parts, sizeof parts, "layers.%d.%s.", (int)l, name);
		n += find(c, name, l) || any_begins(c, parts);
	}
	return n;
}

const json_t *mzm_calib_info(const mzm_calib *c)
{
	return c->info;
}

size_t mzm_calib_bytes(const mzm_calib *c)
{
	return c->bytes;
}

/* ---- writing ---- */

typedef struct entry {
	char      name[2 * MAX_NAME];
	mzm_dtype dtype;
	int32_t   n_rows, n_cols;
	size_t    bytes;
	void     *data;
} entry;

struct mzm_calib_writer {
	char     hash[64];
	entry   *entries; /* [n] of cap, in the order of the file */
	size_t   n, cap;
	uint64_t bytes;
};

mzm_status mzm_calib_create(mzm_calib_writer **out, const char *model_hash, mzm_err *err)
{
	mzm_calib_writer *w;
	*out = NULL;
	if (strlen(model_hash) >= sizeof w->hash)
		return mzm_fail(err, MZM_EARG, "a model's hash of %zu characters", strlen(model_hash));
	MZM_TRY(mzm_alloc_for((void **)&w, sizeof *w, "the calibration", err));
	snprintf(w->hash, sizeof w->hash, "%s", model_hash);
	*out = w;
	return MZM_OK;
}

void mzm_calib_writer_free(mzm_calib_writer *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->n; i++)
		mzm_free(w->entries[i].data);
	mzm_free(w->entries);
	mzm_free(w);
}

static mzm_status check_name(const mzm_calib_writer *w, const char *name, const char *full, mzm_err *err)
{
	size_t len = strlen(name);
	if (len < 1 || len > MAX_NAME || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") != len ||
	    strncmp(name, "layers.", 7) == 0)
		return mzm_fail(err, MZM_EARG, "\"%.70s\" is no name of a calibration's tensor", name);
	for (size_t i = 0; i < w->n; i++)
		if (strcmp(w->entries[i].name, full) == 0)
			return mzm_fail(err, MZM_EARG, "tensor %s is there already", full);
	return MZM_OK;
}

static mzm_status grow(mzm_calib_writer *w, mzm_err *err)
{
	if (w->n < w->cap)
		return MZM_OK;
	size_t cap = w->cap ? 2 * w->cap : 64, bytes;
	entry *grown = mzm_mul_size(cap, sizeof *grown, &bytes)
			       ? mzm_realloc(w->entries, w->n * sizeof *grown, bytes)
			       : NULL;
	if (!grown)
		return mzm_fail(err, MZM_ENOMEM, "out of memory: %zu tensors", cap);
	w->entries = grown;
	w->cap = cap;
	return MZM_OK;
}

mzm_status mzm_calib_add(mzm_calib_writer *w, const char *name, int32_t layer, mzm_dtype dtype, int32_t n_rows,
			 int32_t n_cols, const void *data, mzm_err *err)
{
	entry e = {.dtype = dtype, .n_rows = n_rows, .n_cols = n_cols};
	full_name(e.name, name, layer);
	MZM_TRY(check_name(w, name, e.name, err));
	if (mzm_dtype_is_quant(dtype) || n_rows < 1 || n_cols < 1 || layer < -1)
		return mzm_fail(err, MZM_EARG, "tensor %s: [%d, %d] of %s", e.name, (int)n_rows, (int)n_cols,
				mzm_dtype_name(dtype));
	if (!tensor_bytes(&e.bytes, dtype, n_rows, n_cols) || e.bytes > MAX_BYTES - w->bytes)
		return mzm_fail(err, MZM_EUNSUPPORTED, "a side-car of more than %llu GiB",
				(unsigned long long)(MAX_BYTES >> 30));
	if (!is_finite(data, dtype, (size_t)n_rows * (size_t)n_cols))
		return mzm_fail(err, MZM_EFORMAT, "tensor %s holds a number that is not finite", e.name);
	MZM_TRY(grow(w, err));
	MZM_TRY(mzm_alloc_for(&e.data, e.bytes, "a calibration's tensor", err));
	memcpy(e.data, data, e.bytes);
	w->entries[w->n++] = e;
	w->bytes += e.bytes;
	return MZM_OK;
}

static const char *dtype_in_file(mzm_dtype dtype)
{
	return dtype == MZM_F32 ? "F32" : dtype == MZM_F16 ? "F16" : "BF16";
}

static int by_full_name(const void *a, const void *b)
{
	return strcmp(((const mzm_st_tensor *)a)->name, ((const mzm_st_tensor *)b)->name);
}

mzm_status mzm_calib_preview(mzm_calib **out, const mzm_calib_writer *w, mzm_err *err)
{
	mzm_status st;
	mzm_calib *c = NULL;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&c, sizeof *c, "the calibration", err));
	c->info = json_object();
	if (!c->info)
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "out of memory"));
	MZM_TRY_OUT(mzm_alloc_for((void **)&c->head.tensors, (w->n + 1) * sizeof c->head.tensors[0], "tensors", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&c->data, (w->n + 1) * sizeof c->data[0], "tensors", err));
	for (size_t i = 0; i < w->n; i++) {
		const entry *e = &w->entries[i];
		c->head.tensors[i] = (mzm_st_tensor){.name = e->name, .dtype = dtype_in_file(e->dtype), .n_dims = 2,
						     .shape = {(uint64_t)e->n_rows, (uint64_t)e->n_cols}, .begin = i};
	}
	c->head.n = w->n;
	qsort(c->head.tensors, c->head.n, sizeof c->head.tensors[0], by_full_name);
	for (size_t i = 0; i < w->n; i++)
		c->data[i] = w->entries[c->head.tensors[i].begin].data;
	*out = c;
	return MZM_OK;
out:
	mzm_calib_close(c);
	return st;
}

/* The header, blanks behind it up to where the data may begin, and zeros for the checksum. */
static mzm_status print_header(mzm_str *h, const mzm_calib_writer *w, const json_t *info, mzm_err *err)
{
	uint64_t at = 0;
	char *text = json_dumps(info, JSON_COMPACT);
	json_t *string = text ? json_string(text) : NULL;
	char *quoted = string ? json_dumps(string, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	h->failed |= !quoted;
	mzm_str_printf(h, "%s%s\",\"model_hash\":\"%s\",\"info\":", OPENING, zeros, w->hash);
	mzm_str_puts(h, quoted ? quoted : "");
	mzm_str_puts(h, "}");
	for (size_t i = 0; i < w->n; i++) {
		const entry *e = &w->entries[i];
		mzm_str_printf(h, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%d,%d],\"data_offsets\":[%llu,%llu]}", e->name,
			       dtype_in_file(e->dtype), (int)e->n_rows, (int)e->n_cols, (unsigned long long)at,
			       (unsigned long long)(at + e->bytes));
		at += e->bytes;
	}
	mzm_str_puts(h, "}");
	while (!h->failed && (8 + h->len) % MZM_ALIGN != 0)
		mzm_str_puts(h, " ");
	free(quoted);
	free(text);
	json_decref(string);
	if (h->failed)
		return mzm_fail(err, MZM_ENOMEM, "out of memory: the header");
	return h->len <= MAX_HEADER ? MZM_OK : mzm_fail(err, MZM_EUNSUPPORTED, "a header of %zu bytes", h->len);
}

/* Puts the checksum of all into the header. */
static void sum_up(const mzm_calib_writer *w, const uint8_t first[8], mzm_str *header)
{
	XXH3_state_t sum;
	char hex[N_DIGITS + 1];
	XXH3_INITSTATE(&sum);
	(void)XXH3_64bits_reset(&sum);
	(void)XXH3_64bits_update(&sum, first, 8);
	(void)XXH3_64bits_update(&sum, header->data, header->len);
	for (size_t i = 0; i < w->n; i++)
		(void)XXH3_64bits_update(&sum, w->entries[i].data, w->entries[i].bytes);
	print_sum(hex, &sum);
	memcpy(header->data + strlen(OPENING), hex, N_DIGITS);
}

mzm_status mzm_calib_finish(mzm_calib_writer *w, const char *path, const json_t *info, mzm_err *err)
{
	mzm_status st;
	mzm_str header = {0};
	mzm_writer *f = NULL;
	uint8_t first[8];
	MZM_TRY_OUT(print_header(&header, w, info, err));
	for (int i = 0; i < 8; i++)
		first[i] = (uint8_t)((uint64_t)header.len >> (8 * i));
	sum_up(w, first, &header);
	MZM_TRY_OUT(mzm_writer_open(&f, path, err));
	MZM_TRY_OUT(mzm_writer_write_at(f, first, sizeof first, 0, err));
	MZM_TRY_OUT(mzm_writer_write_at(f, header.data, header.len, 8, err));
	uint64_t at = 8 + (uint64_t)header.len;
	for (size_t i = 0; i < w->n; i++) {
		MZM_TRY_OUT(mzm_writer_write_at(f, w->entries[i].data, w->entries[i].bytes, at, err));
		at += w->entries[i].bytes;
	}
	MZM_TRY_OUT(mzm_writer_commit(f, err));
out:
	mzm_writer_close(f);
	mzm_str_free(&header);
	return st;
}
