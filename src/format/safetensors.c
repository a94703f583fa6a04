/* safetensors.c - see safetensors.h.
 *
 * Stricter than the reference where that costs nobody: names are printable ASCII, numbers are whole and
 * below 2^53. As strict elsewhere: tensors cover the data without hole or overlap, each spans exactly
 * dtype x shape. The JSON header is dropped once its tensors are listed. */
#include "format/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define MAX_NAME 256
#define INDEX_NAME "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"
#define MAX_INDEX_BYTES ((size_t)64 << 20)

static const struct {
	const char *name;
	uint64_t    bytes;
} dtypes[] = {
	{"BOOL", 1}, {"U8", 1}, {"I8", 1}, {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1}, {"I16", 2}, {"U16", 2},
	{"F16", 2}, {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4}, {"F64", 8}, {"I64", 8}, {"U64", 8}, {"C64", 8},
};

bool mzm_st_dtype(mzm_dtype *out, const mzm_st_tensor *t)
{
	if (strcmp(t->dtype, "F32") == 0)
		*out = MZM_F32;
	else if (strcmp(t->dtype, "F16") == 0)
		*out = MZM_F16;
	else if (strcmp(t->dtype, "BF16") == 0)
		*out = MZM_BF16;
	else
		return false;
	return true;
}

/* Fit for messages and look-ups. */
static bool is_plain_name(const char *name, size_t len)
{
	if (len < 1 || len > MAX_NAME)
		return false;
	for (size_t i = 0; i < len; i++)
		if (name[i] < 0x21 || name[i] > 0x7e)
			return false;
	return true;
}

/* ---- one header ---- */

mzm_status mzm_st_header_bytes(size_t *out, const uint8_t first[8], uint64_t file_bytes, mzm_err *err)
{
	uint64_t n = 0;
	for (int i = 7; i >= 0; i--)
		n = n << 8 | first[i];
	if (file_bytes < 8 || n > file_bytes - 8)
		return mzm_fail(err, MZM_EFORMAT, "a header of %llu bytes does not fit the file of %llu",
				(unsigned long long)n, (unsigned long long)file_bytes);
	if (n < 2 || n > MZM_ST_MAX_HEADER)
		return mzm_fail(err, MZM_EFORMAT, "a header of %llu bytes is outside 2 .. %u", (unsigned long long)n,
				MZM_ST_MAX_HEADER);
	*out = (size_t)n;
	return MZM_OK;
}

static mzm_status whole_number(const json_t *v, const char *what, uint64_t *out, mzm_err *err)
{
	double d = json_is_number(v) ? json_number_value(v) : -1;
	if (!(d >= 0 && d <= 0x1p53 && d == (double)(uint64_t)d))
		return mzm_fail(err, MZM_EFORMAT, "%s holds something other than a whole number", what);
	*out = (uint64_t)d;
	return MZM_OK;
}

static mzm_status parse_dtype(mzm_st_tensor *t, const json_t *v, uint64_t *elem_bytes, mzm_err *err)
{
	const char *name = json_string_value(v);
	for (size_t i = 0; name && i < sizeof dtypes / sizeof dtypes[0]; i++)
		if (strcmp(name, dtypes[i].name) == 0 && strlen(name) == json_string_length(v)) {
			t->dtype = dtypes[i].name;
			*elem_bytes = dtypes[i].bytes;
			return MZM_OK;
		}
	if (name && is_plain_name(name, json_string_length(v)))
		return mzm_fail(err, MZM_EUNSUPPORTED, "unknown dtype \"%.32s\"", name);
	return mzm_fail(err, MZM_EFORMAT, "\"dtype\" is not a type name");
}

static mzm_status parse_extent(mzm_st_tensor *t, const json_t *shape, const json_t *offsets, uint64_t elem_bytes,
			       mzm_err *err)
{
	uint64_t want = elem_bytes;
	if (!json_is_array(shape) || json_array_size(shape) > MZM_ST_MAX_DIMS)
		return mzm_fail(err, MZM_EFORMAT, "\"shape\" is not a list of at most %d numbers", MZM_ST_MAX_DIMS);
	t->n_dims = (int32_t)json_array_size(shape);
	for (int32_t i = 0; i < t->n_dims; i++) {
		MZM_TRY(whole_number(json_array_get(shape, (size_t)i), "\"shape\"", &t->shape[i], err));
		if (__builtin_mul_overflow(want, t->shape[i], &want))
			return mzm_fail(err, MZM_EFORMAT, "\"shape\" has more elements than any file");
	}
	if (!json_is_array(offsets) || json_array_size(offsets) != 2)
		return mzm_fail(err, MZM_EFORMAT, "\"data_offsets\" is not a list of two numbers");
	MZM_TRY(whole_number(json_array_get(offsets, 0), "\"data_offsets\"", &t->begin, err));
	MZM_TRY(whole_number(json_array_get(offsets, 1), "\"data_offsets\"", &t->end, err));
	if (t->begin > t->end)
		return mzm_fail(err, MZM_EFORMAT, "begins at %llu behind its end %llu", (unsigned long long)t->begin,
				(unsigned long long)t->end);
	if (t->end - t->begin != want)
		return mzm_fail(err, MZM_EFORMAT, "spans %llu bytes, but dtype and shape need %llu",
				(unsigned long long)(t->end - t->begin), (unsigned long long)want);
	return MZM_OK;
}

static mzm_status parse_tensor(mzm_st_tensor *t, const json_t *v, mzm_err *err)
{
	uint64_t elem_bytes = 0;
	if (!json_is_object(v) || json_object_size(v) != 3)
		return mzm_fail(err, MZM_EFORMAT, "is not an object of dtype, shape and data_offsets");
	MZM_TRY(parse_dtype(t, json_object_get(v, "dtype"), &elem_bytes, err));
	return parse_extent(t, json_object_get(v, "shape"), json_object_get(v, "data_offsets"), elem_bytes, err);
}

static int by_offset(const void *a, const void *b)
{
	const mzm_st_tensor *x = a, *y = b;
	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const mzm_st_tensor *)a)->name, ((const mzm_st_tensor *)b)->name);
}

/* Contiguous from 0 to the end of the data; leaves the tensors in name order. */
static mzm_status check_coverage(mzm_st_header *h, uint64_t data_bytes, mzm_err *err)
{
	uint64_t at = 0;
	qsort(h->tensors, h->n, sizeof h->tensors[0], by_offset);
	for (size_t i = 0; i < h->n; i++) {
		const mzm_st_tensor *t = &h->tensors[i];
		if (t->end > data_bytes)
			return mzm_fail(err, MZM_EFORMAT, "tensor %s ends %llu bytes past the end of the file", t->name,
					(unsigned long long)(t->end - data_bytes));
		if (t->begin != at)
			return mzm_fail(err, MZM_EFORMAT,
					"tensor %s begins at %llu, the one before it ends at %llu: %s", t->name,
					(unsigned long long)t->begin, (unsigned long long)at,
					t->begin < at ? "they overlap" : "a hole");
		at = t->end;
	}
	if (at != data_bytes)
		return mzm_fail(err, MZM_EFORMAT, "%llu bytes follow the last tensor",
				(unsigned long long)(data_bytes - at));
	qsort(h->tensors, h->n, sizeof h->tensors[0], by_name);
	return MZM_OK;
}

static mzm_status check_metadata(const json_t *v, mzm_err *err)
{
	const char *key;
	json_t *text;
	if (!json_is_object(v))
		return mzm_fail(err, MZM_EFORMAT, "\"__metadata__\" is not an object");
	json_object_foreach((json_t *)(uintptr_t)v, key, text)
		if (!json_is_string(text))
			return mzm_fail(err, MZM_EFORMAT, "\"__metadata__\" holds something other than strings");
	return MZM_OK;
}

/* Room for every name; refuses names that are not plain. */
static mzm_status alloc_tensors(mzm_st_header *h, json_t *root, mzm_err *err)
{
	const char *key;
	json_t *v;
	size_t n_chars = 0;
	json_object_foreach(root, key, v) {
		size_t len = strlen(key);
		if (!is_plain_name(key, len))
			return mzm_fail(err, MZM_EFORMAT, "a tensor's name is empty, too long or not printable ASCII");
		n_chars += len + 1; /* the sum of all is below the header's length */
	}
	MZM_TRY(mzm_alloc_for((void **)&h->names, n_chars, "tensor names", err));
	size_t bytes;
	if (!mzm_mul_size(json_object_size(root), sizeof h->tensors[0], &bytes))
		return mzm_fail(err, MZM_EFORMAT, "too many tensors");
	return mzm_alloc_for((void **)&h->tensors, bytes, "the list of tensors", err);
}

static mzm_status fill_tensors(mzm_st_header *h, json_t *root, mzm_err *err)
{
	const char *key;
	json_t *v;
	char *name = h->names;
	json_object_foreach(root, key, v) {
		if (strcmp(key, "__metadata__") == 0) {
			MZM_TRY(check_metadata(v, err));
			continue;
		}
		mzm_st_tensor *t = &h->tensors[h->n++];
		size_t len = strlen(key);
		memcpy(name, key, len + 1);
		t->name = name;
		name += len + 1;
		mzm_status st = parse_tensor(t, v, err);
		if (st != MZM_OK) {
			mzm_err_prefix(err, "tensor %s", t->name);
			return st;
		}
	}
	return MZM_OK;
}

mzm_status mzm_st_header_parse(mzm_st_header *out, const char *json, size_t len, uint64_t data_bytes, mzm_err *err)
{
	mzm_status st;
	mzm_st_header h = {0};
	json_t *root = NULL;
	*out = h;
	if (len < 1 || json[0] != '{')
		return mzm_fail(err, MZM_EFORMAT, "the header is not a JSON object");
	MZM_TRY_OUT(mzm_json_parse(&root, json, len, "header", err));
	if (!json_is_object(root))
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "the header is not a JSON object"));
	MZM_TRY_OUT(alloc_tensors(&h, root, err));
	MZM_TRY_OUT(fill_tensors(&h, root, err));
	MZM_TRY_OUT(check_coverage(&h, data_bytes, err));
	*out = h;
	h = (mzm_st_header){0};
out:
	mzm_st_header_free(&h);
	json_decref(root);
	return st;
}

void mzm_st_header_free(mzm_st_header *h)
{
	mzm_free(h->tensors);
	mzm_free(h->names);
	*h = (mzm_st_header){0};
}

/* ---- the index of shards ---- */

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Each file once. files[] borrows from the JSON tree. */
static mzm_status collect_files(mzm_st_map *map, const json_t *weights, mzm_err *err)
{
	const char *key;
	json_t *v;
	size_t n = 0;
	MZM_TRY(mzm_alloc_for((void **)&map->files, json_object_size(weights) * sizeof map->files[0],
			      "the list of shards", err));
	json_object_foreach((json_t *)(uintptr_t)weights, key, v) {
		const char *file = json_string_value(v);
		if (!is_plain_name(key, strlen(key)))
			return mzm_fail(err, MZM_EFORMAT, "a tensor's name is empty, too long or not printable ASCII");
		if (!file || strlen(file) != json_string_length(v) || !mzm_name_is_safe(file))
			return mzm_fail(err, MZM_EFORMAT, "tensor %s: its file is not a plain file name", key);
		map->files[n++] = (char *)(uintptr_t)file;
	}
	qsort(map->files, n, sizeof map->files[0], by_text);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || strcmp(map->files[i], map->files[map->n_files - 1]) != 0)
			map->files[map->n_files++] = map->files[i];
	if (map->n_files > MZM_ST_MAX_SHARDS)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%zu shards, more than %d", map->n_files, MZM_ST_MAX_SHARDS);
	return MZM_OK;
}

mzm_status mzm_st_map_parse(mzm_st_map *out, const char *json, size_t len, mzm_err *err)
{
	mzm_status st;
	mzm_st_map map = {0};
	*out = map;
	MZM_TRY_OUT(mzm_json_parse(&map.json, json, len, "index", err));
	const json_t *weights = json_object_get(map.json, "weight_map");
	if (!json_is_object(weights) || json_object_size(weights) == 0)
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "\"weight_map\" is missing or empty"));
	map.n_tensors = json_object_size(weights);
	MZM_TRY_OUT(collect_files(&map, weights, err));
	*out = map;
	return MZM_OK;
out:
	mzm_st_map_free(&map);
	return st;
}

void mzm_st_map_free(mzm_st_map *map)
{
	mzm_free(map->files);
	json_decref(map->json);
	*map = (mzm_st_map){0};
}

/* ---- sets ---- */

struct mzm_st_set {
	mzm_file     **files;    /* [n_files] */
	mzm_st_header *headers;  /* [n_files] own the names */
	uint64_t      *data;     /* [n_files] offset of each file's data */
	int32_t        n_files;
	mzm_st_tensor *tensors;  /* [n] ascending by name */
	size_t         n;
};

static mzm_status read_header(mzm_st_set *set, int32_t i, mzm_err *err)
{
	mzm_status st;
	mzm_file *f = set->files[i];
	uint8_t first[8];
	char *json = NULL;
	size_t len;
	if (mzm_file_size(f) < 8)
		return mzm_fail(err, MZM_EFORMAT, "%llu bytes are too few", (unsigned long long)mzm_file_size(f));
	MZM_TRY(mzm_file_read_at(f, first, 8, 0, err));
	MZM_TRY(mzm_st_header_bytes(&len, first, mzm_file_size(f), err));
	MZM_TRY(mzm_alloc_for((void **)&json, len, "a safetensors header", err));
	MZM_TRY_OUT(mzm_file_read_at(f, json, len, 8, err));
	set->data[i] = 8 + (uint64_t)len;
	MZM_TRY_OUT(mzm_st_header_parse(&set->headers[i], json, len, mzm_file_size(f) - set->data[i], err));
out:
	mzm_free(json);
	return st;
}

static mzm_status open_shard(mzm_st_set *set, int32_t i, const char *dir, const char *name, mzm_err *err)
{
	mzm_status st;
	mzm_str path = {0};
	mzm_str_path(&path, dir, name);
	if (path.failed)
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "out of memory: path of %s", name));
	MZM_TRY_OUT(mzm_file_open(&set->files[i], path.data, err));
	st = read_header(set, i, err);
	if (st == MZM_EFORMAT || st == MZM_EUNSUPPORTED)
		mzm_err_prefix(err, "%s", path.data);
out:
	mzm_str_free(&path);
	return st;
}

/* One list of all tensors, in name order; a name in two shards is an error. */
static mzm_status merge(mzm_st_set *set, mzm_err *err)
{
	size_t n = 0, bytes;
	for (int32_t i = 0; i < set->n_files; i++)
		n += set->headers[i].n; /* each counted tensor is in memory: no overflow */
	if (!mzm_mul_size(n, sizeof set->tensors[0], &bytes))
		return mzm_fail(err, MZM_EFORMAT, "too many tensors");
	MZM_TRY(mzm_alloc_for((void **)&set->tensors, bytes, "the list of tensors", err));
	for (int32_t i = 0; i < set->n_files; i++)
		for (size_t k = 0; k < set->headers[i].n; k++) {
			set->tensors[set->n] = set->headers[i].tensors[k];
			set->tensors[set->n++].shard = i;
		}
	qsort(set->tensors, set->n, sizeof set->tensors[0], by_name);
	for (size_t i = 1; i < set->n; i++)
		if (strcmp(set->tensors[i].name, set->tensors[i - 1].name) == 0)
			return mzm_fail(err, MZM_EFORMAT, "tensor %s is in two shards", set->tensors[i].name);
	return MZM_OK;
}

/* Every listed tensor is in the shard that the index says, and no shard holds another. */
static mzm_status check_map(const mzm_st_set *set, const mzm_st_map *map, mzm_err *err)
{
	const char *key;
	json_t *v, *weights = json_object_get(map->json, "weight_map");
	json_object_foreach(weights, key, v) {
		const mzm_st_tensor *t = mzm_st_find(set, key);
		if (!t || strcmp(map->files[t->shard], json_string_value(v)) != 0)
			return mzm_fail(err, MZM_EFORMAT, "tensor %s is not in %s, where the index has it", key,
					json_string_value(v));
	}
	for (size_t i = 0; i < set->n; i++)
		if (!json_object_get(weights, set->tensors[i].name))
			return mzm_fail(err, MZM_EFORMAT, "tensor %s of %s is not in the index", set->tensors[i].name,
					map->files[set->tensors[i].shard]);
	return MZM_OK;
}

static mzm_status open_files(mzm_st_set *set, const char *dir, char *const *names, size_t n, mzm_err *err)
{
	MZM_TRY(mzm_alloc_for((void **)&set->files, n * sizeof set->files[0], "shards", err));
	MZM_TRY(mzm_alloc_for((void **)&set->headers, n * sizeof set->headers[0], "shards", err));
	MZM_TRY(mzm_alloc_for((void **)&set->data, n * sizeof set->data[0], "shards", err));
	set->n_files = (int32_t)n;
	for (int32_t i = 0; i < set->n_files; i++)
		MZM_TRY(open_shard(set, i, dir, names[i], err));
	return merge(set, err);
}

static mzm_status open_index(mzm_st_set *set, const char *dir, const char *path, mzm_err *err)
{
	mzm_status st;
	mzm_st_map map = {0};
	char *json = NULL;
	size_t len;
	MZM_TRY_OUT(mzm_read_all(path, MAX_INDEX_BYTES, &json, &len, err));
	st = mzm_st_map_parse(&map, json, len, err);
	if (st != MZM_OK) {
		mzm_err_prefix(err, "%s", path);
		goto out;
	}
	MZM_TRY_OUT(open_files(set, dir, map.files, map.n_files, err));
	MZM_TRY_OUT(check_map(set, &map, err));
out:
	mzm_st_map_free(&map);
	mzm_free(json);
	return st;
}

mzm_status mzm_st_open(mzm_st_set **out, const char *dir, mzm_err *err)
{
	mzm_status st;
	mzm_st_set *set = NULL;
	mzm_str index = {0}, single = {0};
	char *one_name[] = {(char[]){SINGLE_NAME}};
	*out = NULL;
	mzm_str_path(&index, dir, INDEX_NAME);
	mzm_str_path(&single, dir, SINGLE_NAME);
	if (index.failed || single.failed)
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "%s: out of memory", dir));
	MZM_TRY_OUT(mzm_alloc_for((void **)&set, sizeof *set, "a set of shards", err));
	bool has_index = mzm_path_exists(index.data), has_single = mzm_path_exists(single.data);
	if (has_index && has_single)
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "%s: holds both %s and %s; remove one", dir, SINGLE_NAME,
				     INDEX_NAME));
	if (!has_index && !has_single)
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "%s: holds neither %s nor %s", dir, SINGLE_NAME, INDEX_NAME));
	MZM_TRY_OUT(has_index ? open_index(set, dir, index.data, err) : open_files(set, dir, one_name, 1, err));
	*out = set;
	set = NULL;
out:
	mzm_st_close(set);
	mzm_str_free(&index);
	mzm_str_free(&single);
	return st;
}

void mzm_st_close(mzm_st_set *set)
{
	if (!set)
		return;
	for (int32_t i = 0; i < set->n_files; i++) {
		mzm_file_close(set->files[i]);
		mzm_st_header_free(&set->headers[i]);
	}
	mzm_free(set->files);
	mzm_free(set->headers);
	mzm_free(set->data);
	mzm_free(set->tensors);
	mzm_free(set);
}

size_t mzm_st_count(const mzm_st_set *set)
{
	return set->n;
}

const mzm_st_tensor *mzm_st_at(const mzm_st_set *set, size_t i)
{
	return &set->tensors[i];
}

const mzm_st_tensor *mzm_st_find(const mzm_st_set *set, const char *name)
{
	mzm_st_tensor key = {.name = name};
	return set->n ? bsearch(&key, set->tensors, set->n, sizeof key, by_name) : NULL;
}

mzm_status mzm_st_read(const mzm_st_set *set, const mzm_st_tensor *t, void *dst, size_t n, uint64_t offset,
		       mzm_err *err)
{
	uint64_t span = t->end - t->begin;
	if (offset > span || n > span - offset)
		return mzm_fail(err, MZM_EINTERNAL, "tensor %s: read past its end", t->name);
	return mzm_file_read_at(set->files[t->shard], dst, n, set->data[t->shard] + t->begin + offset, err);
}

uint64_t mzm_st_bytes_read(const mzm_st_set *set)
{
	uint64_t sum = 0;
	for (int32_t i = 0; i < set->n_files; i++)
		sum += mzm_file_bytes_read(set->files[i]);
	return sum;
}

void mzm_st_avoid_cache(mzm_st_set *set)
{
	for (int32_t i = 0; i < set->n_files; i++)
		mzm_file_avoid_cache(set->files[i]);
}

int32_t mzm_st_n_files(const mzm_st_set *set)
{
	return set->n_files;
}

const char *mzm_st_file_path(const mzm_st_set *set, int32_t i)
{
	return mzm_file_path(set->files[i]);
}

uint64_t mzm_st_file_bytes(const mzm_st_set *set, int32_t i)
{
	return mzm_file_size(set->files[i]);
}
