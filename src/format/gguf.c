/* gguf.c - see gguf.h.
 *
 * Workload: once a model, up to a few hundred thousand strings (a vocabulary and its merges). The header is read from
 * front to back through one buffer; what it holds goes into chunks that are given back together. Keys and names are
 * sorted once: that finds duplicates, and look-ups are bisections. Memory for a count is taken once the bytes that the
 * count needs are known to be in the file, and no header may be longer than MAX_HEADER. */
#include "format/gguf_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "format/gguf_types.h"

#define BUFFER_BYTES  ((size_t)1 << 16)
#define CHUNK_BYTES   ((size_t)1 << 16)
#define MAX_HEADER    ((uint64_t)512 << 20)
#define MAX_KEY       65535
#define MAX_NAME      255
#define MAX_ALIGNMENT 65536
#define KEY_BYTES     13 /* the least that a key, its type and its value take */
#define TENSOR_BYTES  33 /* ... and a tensor of one dimension with a name of one byte */

static const uint8_t type_bytes[MZM_GGUF_N_TYPES] = {
	[MZM_GGUF_U8] = 1, [MZM_GGUF_I8] = 1, [MZM_GGUF_U16] = 2, [MZM_GGUF_I16] = 2, [MZM_GGUF_U32] = 4,
	[MZM_GGUF_I32] = 4, [MZM_GGUF_F32] = 4, [MZM_GGUF_BOOL] = 1, [MZM_GGUF_U64] = 8, [MZM_GGUF_I64] = 8,
	[MZM_GGUF_F64] = 8,
};

size_t mzm_gguf_type_bytes(mzm_gguf_type type)
{
	return type_bytes[type];
}

/* ---- memory that lives as long as the file ---- */

static mzm_status take(mzm_gguf *g, size_t n, void **out, mzm_err *err)
{
	size_t need;
	if (!mzm_pad_size(n, 8, &need) || !mzm_add_size(need, sizeof(mzm_gguf_chunk), &need))
		return mzm_fail(err, MZM_ENOMEM, "%s: out of memory: header", g->path);
	need -= sizeof(mzm_gguf_chunk);
	if (!g->chunks || g->chunk_bytes - g->chunk_used < need) {
		size_t bytes = need > CHUNK_BYTES / 4 ? need : CHUNK_BYTES;
		mzm_gguf_chunk *c;
		MZM_TRY(mzm_alloc_for((void **)&c, bytes + sizeof *c, "a GGUF header", err));
		c->next = g->chunks;
		g->chunks = c;
		g->chunk_bytes = bytes;
		g->chunk_used = 0;
	}
	*out = (char *)(g->chunks + 1) + g->chunk_used;
	g->chunk_used += need;
	return MZM_OK;
}

/* ---- the bytes of the header, one behind the other ---- */

typedef struct reader {
	mzm_gguf *g;
	char     *buffer;   /* [BUFFER_BYTES] */
	size_t    pos, len; /* in it */
	uint64_t  at;       /* of its end in the file */
	uint64_t  end;      /* nothing is read from here on */
} reader;

static uint64_t bytes_left(const reader *r)
{
	return r->end - r->at + (r->len - r->pos);
}

static mzm_status cut_short(const reader *r, const char *what, mzm_err *err)
{
	return mzm_fail(err, MZM_EFORMAT, "%s: byte %llu: %s does not fit into the file", r->g->path,
			(unsigned long long)(r->at - (r->len - r->pos)), what);
}

static mzm_status get(reader *r, void *dst, size_t n, const char *what, mzm_err *err)
{
	char *to = dst;
	if (n > bytes_left(r))
		return cut_short(r, what, err);
	while (n > 0) {
		if (r->pos == r->len) {
			uint64_t more = r->end - r->at;
			r->len = more < BUFFER_BYTES ? (size_t)more : BUFFER_BYTES;
			r->pos = 0;
			MZM_TRY(mzm_file_read_at(r->g->file, r->buffer, r->len, r->at, err));
			r->at += r->len;
		}
		size_t part = r->len - r->pos < n ? r->len - r->pos : n;
		memcpy(to, r->buffer + r->pos, part);
		r->pos += part;
		to += part;
		n -= part;
	}
	return MZM_OK;
}

static mzm_status get_u32(reader *r, uint32_t *out, const char *what, mzm_err *err)
{
	return get(r, out, sizeof *out, what, err);
}

static mzm_status get_u64(reader *r, uint64_t *out, const char *what, mzm_err *err)
{
	return get(r, out, sizeof *out, what, err);
}

static mzm_status get_text(reader *r, mzm_gguf_text *out, uint64_t max, const char *what, mzm_err *err)
{
	uint64_t n;
	void *s;
	MZM_TRY(get_u64(r, &n, what, err));
	if (n > bytes_left(r))
		return cut_short(r, what, err);
	if (n > max)
		return mzm_fail(err, MZM_EFORMAT, "%s: %s of %llu bytes is longer than %llu", r->g->path, what,
				(unsigned long long)n, (unsigned long long)max);
	MZM_TRY(take(r->g, (size_t)n + 1, &s, err)); /* zeroed: the NUL behind it */
	out->s = s;
	out->n = (size_t)n;
	return get(r, s, (size_t)n, what, err);
}

/* Printable, so that messages and look-ups can take it as it is. */
static mzm_status get_name(reader *r, mzm_gguf_text *out, uint64_t max, const char *what, mzm_err *err)
{
	MZM_TRY(get_text(r, out, max, what, err));
	bool plain = out->n > 0;
	for (size_t i = 0; i < out->n; i++)
		plain = plain && out->s[i] >= 0x20 && out->s[i] <= 0x7e;
	return plain ? MZM_OK : mzm_fail(err, MZM_EFORMAT, "%s: %s is empty or not printable", r->g->path, what);
}

/* ---- metadata ---- */

static mzm_status check_flags(const reader *r, const uint8_t *flags, uint64_t n, const char *key, mzm_err *err)
{
	for (uint64_t i = 0; i < n; i++)
		if (flags[i] > 1)
			return mzm_fail(err, MZM_EFORMAT, "%s: %.200s: a truth value is %d", r->g->path, key, flags[i]);
	return MZM_OK;
}

static mzm_status get_strings(reader *r, mzm_gguf_array *a, const char *key, mzm_err *err)
{
	void *list;
	if (a->n > bytes_left(r) / 8) /* each has its length */
		return cut_short(r, key, err);
	MZM_TRY(take(r->g, (size_t)a->n * sizeof(mzm_gguf_text), &list, err));
	mzm_gguf_text *texts = list;
	for (uint64_t i = 0; i < a->n; i++)
		MZM_TRY(get_text(r, &texts[i], UINT64_MAX, key, err));
	a->data = texts;
	return MZM_OK;
}

static mzm_status get_array(reader *r, mzm_gguf_array *a, const char *key, mzm_err *err)
{
	uint32_t type;
	void *data;
	MZM_TRY(get_u32(r, &type, key, err));
	MZM_TRY(get_u64(r, &a->n, key, err));
	if (type >= MZM_GGUF_N_TYPES)
		return mzm_fail(err, MZM_EFORMAT, "%s: %.200s: elements of type %u, which does not exist", r->g->path,
				key, type);
	if (type == MZM_GGUF_ARRAY)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: %.200s: an array of arrays", r->g->path, key);
	a->type = (mzm_gguf_type)type;
	if (type == MZM_GGUF_STRING)
		return get_strings(r, a, key, err);
	if (a->n > bytes_left(r) / type_bytes[type])
		return cut_short(r, key, err);
	size_t bytes = (size_t)a->n * type_bytes[type];
	MZM_TRY(take(r->g, bytes, &data, err));
	MZM_TRY(get(r, data, bytes, key, err));
	a->data = data;
	return type == MZM_GGUF_BOOL ? check_flags(r, data, a->n, key, err) : MZM_OK;
}

static mzm_status get_entry(reader *r, mzm_gguf_entry *e, mzm_err *err)
{
	uint32_t type;
	MZM_TRY(get_name(r, &e->key, MAX_KEY, "a key", err));
	MZM_TRY(get_u32(r, &type, e->key.s, err));
	if (type >= MZM_GGUF_N_TYPES)
		return mzm_fail(err, MZM_EFORMAT, "%s: %.200s: type %u does not exist", r->g->path, e->key.s, type);
	e->type = (mzm_gguf_type)type;
	if (e->type == MZM_GGUF_STRING)
		return get_text(r, &e->text, UINT64_MAX, e->key.s, err);
	if (e->type == MZM_GGUF_ARRAY)
		return get_array(r, &e->array, e->key.s, err);
	uint8_t bytes[8] = {0};
	MZM_TRY(get(r, bytes, type_bytes[type], e->key.s, err));
	memcpy(&e->bits, bytes, 8);
	return e->type == MZM_GGUF_BOOL ? check_flags(r, bytes, 1, e->key.s, err) : MZM_OK;
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const mzm_gguf_entry *)a)->key.s, ((const mzm_gguf_entry *)b)->key.s);
}

static mzm_status read_metadata(reader *r, uint64_t n, mzm_err *err)
{
	mzm_gguf *g = r->g;
	if (n > bytes_left(r) / KEY_BYTES)
		return cut_short(r, "the list of metadata", err);
	MZM_TRY(mzm_alloc_for((void **)&g->entries, (size_t)n * sizeof g->entries[0], "the list of metadata", err));
	g->n_entries = (size_t)n;
	for (uint64_t i = 0; i < n; i++)
		MZM_TRY(get_entry(r, &g->entries[i], err));
	qsort(g->entries, g->n_entries, sizeof g->entries[0], by_key);
	for (size_t i = 1; i < g->n_entries; i++)
		if (by_key(&g->entries[i - 1], &g->entries[i]) == 0)
			return mzm_fail(err, MZM_EFORMAT, "%s: %.200s is there twice", g->path, g->entries[i].key.s);
	return MZM_OK;
}

/* ---- tensors ---- */

/* Bytes of the tensor, 0 when its type is not known. */
static mzm_status measure(const mzm_gguf *g, mzm_gguf_tensor *t, mzm_err *err)
{
	uint32_t n_weights, n_bytes;
	uint64_t n = 1;
	for (int32_t i = 0; i < t->n_dims; i++)
		if (t->dims[i] == 0 || t->dims[i] > INT64_MAX || __builtin_mul_overflow(n, t->dims[i], &n))
			return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s: dimension %d of %llu elements", g->path,
					t->name, (int)i, (unsigned long long)t->dims[i]);
	if (!mzm_ggml_block(t->type, &n_weights, &n_bytes))
		return MZM_OK;
	if (t->dims[0] % n_weights != 0)
		return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s: rows of %llu are no whole blocks of %s", g->path,
				t->name, (unsigned long long)t->dims[0], mzm_ggml_name(t->type));
	if (__builtin_mul_overflow(n / n_weights, (uint64_t)n_bytes, &t->bytes))
		return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s is larger than any file", g->path, t->name);
	return MZM_OK;
}

static mzm_status get_tensor(reader *r, mzm_gguf_tensor *t, mzm_err *err)
{
	mzm_gguf_text name;
	uint32_t n_dims;
	MZM_TRY(get_name(r, &name, MAX_NAME, "the name of a tensor", err));
	t->name = name.s;
	MZM_TRY(get_u32(r, &n_dims, t->name, err));
	if (n_dims < 1 || n_dims > 4)
		return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s has %u dimensions", r->g->path, t->name, n_dims);
	t->n_dims = (int32_t)n_dims;
	for (uint32_t i = 0; i < 4; i++)
		t->dims[i] = 1;
	MZM_TRY(get(r, t->dims, n_dims * sizeof t->dims[0], t->name, err));
	MZM_TRY(get_u32(r, &t->type, t->name, err));
	MZM_TRY(get_u64(r, &t->offset, t->name, err));
	return measure(r->g, t, err);
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(mzm_gguf_tensor *const *)a)->name, (*(mzm_gguf_tensor *const *)b)->name);
}

static int by_offset(const void *a, const void *b)
{
	const mzm_gguf_tensor *x = *(mzm_gguf_tensor *const *)a, *y = *(mzm_gguf_tensor *const *)b;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

mzm_status mzm_gguf_sort_names(mzm_gguf *g, mzm_err *err)
{
	qsort(g->by_name, g->n_tensors, sizeof g->by_name[0], by_name);
	for (size_t i = 1; i < g->n_tensors; i++)
		if (by_name(&g->by_name[i - 1], &g->by_name[i]) == 0)
			return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s is there twice", g->path, g->by_name[i]->name);
	return MZM_OK;
}

/* Inside the file, aligned, none over another. Their offsets count from data until here. */
static mzm_status place_tensors(mzm_gguf *g, uint64_t data, uint64_t alignment, mzm_err *err)
{
	uint64_t size = mzm_file_size(g->file);
	for (size_t i = 0; i < g->n_tensors; i++) {
		mzm_gguf_tensor *t = g->by_name[i] = &g->tensors[i];
		if (t->offset % alignment != 0)
			return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s: offset %llu is no multiple of %llu", g->path,
					t->name, (unsigned long long)t->offset, (unsigned long long)alignment);
		if (data > size || t->offset > size - data || t->bytes > size - data - t->offset)
			return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s: %llu bytes at %llu end behind the file's end",
					g->path, t->name, (unsigned long long)t->bytes, (unsigned long long)t->offset);
		t->offset += data;
	}
	qsort(g->by_name, g->n_tensors, sizeof g->by_name[0], by_offset);
	for (size_t i = 1; i < g->n_tensors; i++) {
		const mzm_gguf_tensor *a = g->by_name[i - 1], *b = g->by_name[i];
		if (a->offset == b->offset || b->offset - a->offset < a->bytes)
			return mzm_fail(err, MZM_EFORMAT, "%s: tensors %s and %s overlap", g->path, a->name, b->name);
	}
	return mzm_gguf_sort_names(g, err);
}

static mzm_status read_tensors(reader *r, uint64_t n, mzm_err *err)
{
	mzm_gguf *g = r->g;
	if (n > bytes_left(r) / TENSOR_BYTES || n > INT32_MAX)
		return cut_short(r, "the list of tensors", err);
	MZM_TRY(mzm_alloc_for((void **)&g->tensors, (size_t)n * sizeof g->tensors[0], "the list of tensors", err));
	MZM_TRY(mzm_alloc_for((void **)&g->by_name, (size_t)n * sizeof g->by_name[0], "the list of tensors", err));
	for (uint64_t i = 0; i < n; i++, g->n_tensors++)
		MZM_TRY(get_tensor(r, &g->tensors[i], err));
	return MZM_OK;
}

/* ---- opening ---- */

static const mzm_gguf_entry *find_entry(const mzm_gguf *g, const char *key)
{
	mzm_gguf_entry wanted = {.key.s = key};
	return g->n_entries ? bsearch(&wanted, g->entries, g->n_entries, sizeof g->entries[0], by_key) : NULL;
}

static mzm_status alignment_of(const mzm_gguf *g, uint64_t *out, mzm_err *err)
{
	const mzm_gguf_entry *e = find_entry(g, "general.alignment");
	*out = 32;
	if (!e)
		return MZM_OK;
	if (e->type != MZM_GGUF_U32 || e->bits < 8 || e->bits > MAX_ALIGNMENT || (e->bits & (e->bits - 1)) != 0)
		return mzm_fail(err, MZM_EFORMAT, "%s: general.alignment is no power of two from 8 to %d", g->path,
				MAX_ALIGNMENT);
	*out = e->bits;
	return MZM_OK;
}

static mzm_status read_version(reader *r, mzm_err *err)
{
	char magic[4];
	uint32_t version;
	MZM_TRY(get(r, magic, sizeof magic, "the magic", err));
	if (memcmp(magic, "GGUF", 4) != 0)
		return mzm_fail(err, MZM_EFORMAT, "%s: not a GGUF file", r->g->path);
	MZM_TRY(get_u32(r, &version, "the version", err));
	if (version != 0 && (version & 0xffff) == 0)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: a big-endian GGUF file", r->g->path);
	if (version == 2 || version == 3)
		return MZM_OK;
	return mzm_fail(err, version == 0 ? MZM_EFORMAT : MZM_EUNSUPPORTED, "%s: GGUF version %u is not supported",
			r->g->path, version);
}

static mzm_status read_header(reader *r, mzm_err *err)
{
	uint64_t n_tensors, n_entries, alignment;
	size_t data;
	mzm_gguf *g = r->g;
	MZM_TRY(read_version(r, err));
	MZM_TRY(get_u64(r, &n_tensors, "the number of tensors", err));
	MZM_TRY(get_u64(r, &n_entries, "the number of metadata", err));
	MZM_TRY(read_metadata(r, n_entries, err));
	MZM_TRY(alignment_of(g, &alignment, err));
	MZM_TRY(read_tensors(r, n_tensors, err));
	if (!mzm_pad_size((size_t)(r->at - (r->len - r->pos)), (size_t)alignment, &data))
		return cut_short(r, "the padding", err);
	return place_tensors(g, data, alignment, err);
}

bool mzm_gguf_is(const char *path)
{
	mzm_file *f = NULL;
	char magic[4] = {0};
	bool is = mzm_file_open(&f, path, NULL) == MZM_OK && mzm_file_size(f) >= 4 &&
		  mzm_file_read_at(f, magic, 4, 0, NULL) == MZM_OK && memcmp(magic, "GGUF", 4) == 0;
	mzm_file_close(f);
	return is;
}

mzm_status mzm_gguf_open_file(mzm_gguf **out, const char *path, mzm_err *err)
{
	mzm_status st;
	reader r = {0};
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&r.g, sizeof *r.g, path, err));
	r.g->path = mzm_strdup(path);
	if (!r.g->path)
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "%s: out of memory", path));
	MZM_TRY_OUT(mzm_file_open(&r.g->file, path, err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&r.buffer, BUFFER_BYTES, "a GGUF header", err));
	r.end = mzm_file_size(r.g->file) < MAX_HEADER ? mzm_file_size(r.g->file) : MAX_HEADER;
	MZM_TRY_OUT(read_header(&r, err));
out:
	mzm_free(r.buffer);
	if (st != MZM_OK) {
		mzm_gguf_close(r.g);
		return st;
	}
	*out = r.g;
	return MZM_OK;
}

mzm_status mzm_gguf_open(mzm_gguf **out, const char *path, mzm_err *err)
{
	MZM_TRY(mzm_gguf_open_file(out, path, err));
	mzm_status st = mzm_gguf_open_parts(*out, err);
	if (st != MZM_OK) {
		mzm_gguf_close(*out);
		*out = NULL;
	}
	return st;
}

void mzm_gguf_close(mzm_gguf *g)
{
	if (!g)
		return;
	for (int32_t i = 0; i < g->n_parts; i++)
		mzm_gguf_close(g->parts[i]);
	mzm_free(g->parts);
	while (g->chunks) {
		mzm_gguf_chunk *next = g->chunks->next;
		mzm_free(g->chunks);
		g->chunks = next;
	}
	mzm_file_close(g->file);
	mzm_free(g->path);
	mzm_free(g->entries);
	mzm_free(g->tensors);
	mzm_free(g->by_name);
	mzm_free(g);
}

/* ---- looking up ---- */

/* The value as a signed number; false when it is no integer or does not fit. */
static bool integer_of(const mzm_gguf_entry *e, uint64_t *out)
{
	int64_t v;
	switch (e->type) {
	case MZM_GGUF_U8:
	case MZM_GGUF_U16:
	case MZM_GGUF_U32:
	case MZM_GGUF_U64:
		*out = e->bits;
		return true;
	case MZM_GGUF_I8:
		v = (int8_t)e->bits;
		break;
	case MZM_GGUF_I16:
		v = (int16_t)e->bits;
		break;
	case MZM_GGUF_I32:
		v = (int32_t)e->bits;
		break;
	case MZM_GGUF_I64:
		v = (int64_t)e->bits;
		break;
	default:
		return false;
	}
	if (v >= 0)
		*out = (uint64_t)v;
	return v >= 0;
}

bool mzm_gguf_u64(const mzm_gguf *g, const char *key, uint64_t *out)
{
	const mzm_gguf_entry *e = find_entry(g, key);
	return e && integer_of(e, out);
}

bool mzm_gguf_f64(const mzm_gguf *g, const char *key, double *out)
{
	const mzm_gguf_entry *e = find_entry(g, key);
	uint64_t whole;
	double v;
	if (!e)
		return false;
	if (e->type == MZM_GGUF_F32) {
		float f;
		memcpy(&f, &e->bits, sizeof f);
		v = (double)f;
	} else if (e->type == MZM_GGUF_F64) {
		memcpy(&v, &e->bits, sizeof v);
	} else if (integer_of(e, &whole)) {
		v = (double)whole;
	} else {
		return false;
	}
	if (isfinite(v))
		*out = v;
	return isfinite(v);
}

bool mzm_gguf_flag(const mzm_gguf *g, const char *key, bool *out)
{
	const mzm_gguf_entry *e = find_entry(g, key);
	if (e && e->type == MZM_GGUF_BOOL)
		*out = e->bits != 0;
	return e && e->type == MZM_GGUF_BOOL;
}

bool mzm_gguf_string(const mzm_gguf *g, const char *key, mzm_gguf_text *out)
{
	const mzm_gguf_entry *e = find_entry(g, key);
	if (e && e->type == MZM_GGUF_STRING)
		*out = e->text;
	return e && e->type == MZM_GGUF_STRING;
}

bool mzm_gguf_get_array(const mzm_gguf *g, const char *key, mzm_gguf_array *out)
{
	const mzm_gguf_entry *e = find_entry(g, key);
	if (e && e->type == MZM_GGUF_ARRAY)
		*out = e->array;
	return e && e->type == MZM_GGUF_ARRAY;
}

bool mzm_gguf_has(const mzm_gguf *g, const char *key)
{
	return find_entry(g, key) != NULL;
}

int32_t mzm_gguf_n_tensors(const mzm_gguf *g)
{
	return (int32_t)g->n_tensors;
}

const mzm_gguf_tensor *mzm_gguf_tensor_at(const mzm_gguf *g, int32_t i)
{
	return &g->tensors[i];
}

const mzm_gguf_tensor *mzm_gguf_find(const mzm_gguf *g, const char *name)
{
	mzm_gguf_tensor wanted = {.name = name}, *key = &wanted;
	mzm_gguf_tensor **found = g->n_tensors ? bsearch(&key, g->by_name, g->n_tensors, sizeof key, by_name) : NULL;
	return found ? *found : NULL;
}

int32_t mzm_gguf_n_keys(const mzm_gguf *g)
{
	return (int32_t)g->n_entries;
}

const char *mzm_gguf_key_at(const mzm_gguf *g, int32_t i)
{
	return g->entries[i].key.s;
}

/* ---- the files ---- */

static const mzm_gguf *file_at(const mzm_gguf *g, int32_t i)
{
	return i == 0 ? g : g->parts[i - 1];
}

int32_t mzm_gguf_n_files(const mzm_gguf *g)
{
	return 1 + g->n_parts;
}

const char *mzm_gguf_file_path(const mzm_gguf *g, int32_t i)
{
	return file_at(g, i)->path;
}

uint64_t mzm_gguf_file_bytes(const mzm_gguf *g, int32_t i)
{
	return mzm_file_size(file_at(g, i)->file);
}

uint64_t mzm_gguf_bytes_read(const mzm_gguf *g)
{
	uint64_t n = 0;
	for (int32_t i = 0; i < mzm_gguf_n_files(g); i++)
		n += mzm_file_bytes_read(file_at(g, i)->file);
	return n;
}

void mzm_gguf_avoid_cache(mzm_gguf *g)
{
	for (int32_t i = 0; i < mzm_gguf_n_files(g); i++)
		mzm_file_avoid_cache(file_at(g, i)->file);
}

mzm_status mzm_gguf_read(const mzm_gguf *g, const mzm_gguf_tensor *t, uint64_t from, size_t n, void *dst, mzm_err *err)
{
	const mzm_gguf *f = file_at(g, t->file);
	if (from > t->bytes || n > t->bytes - from)
		return mzm_fail(err, MZM_EARG, "%s: tensor %s: %zu bytes from %llu on are not there", f->path,
				t->name, n, (unsigned long long)from);
	return mzm_file_read_at(f->file, dst, n, t->offset + from, err);
}
