/* gguf_split.c - a model in parts: NAME-00001-of-00003.gguf and the files behind it (gguf_impl.h).
 *
 * The first file has the metadata, each has some of the tensors, and keys say which part it is ("split.no", from 0), of
 * how many ("split.count"), and how many tensors there are in all ("split.tensors.count"). All of it is believed once
 * all of it agrees: with the names of the files, between them, and with what they hold. What else a later file says
 * must be what the first says. A part of another model with the same parts, names and shapes cannot be told apart: the
 * format has no mark of belonging together. */
#include "format/gguf_impl.h"

#include <string.h>

#include "base/str.h"

#define MAX_PARTS   65535
#define KEY_NO      "split.no"
#define KEY_COUNT   "split.count"
#define KEY_TENSORS "split.tensors.count"

typedef struct split {
	uint64_t no, count, n_tensors;
} split;

/* count 1: the whole model. */
static mzm_status read_split(split *s, const mzm_gguf *g, mzm_err *err)
{
	*s = (split){.count = 1};
	if (!mzm_gguf_has(g, KEY_COUNT) && !mzm_gguf_has(g, KEY_NO))
		return MZM_OK;
	if (!mzm_gguf_u64(g, KEY_COUNT, &s->count) || s->count < 1 || s->count > MAX_PARTS)
		return mzm_fail(err, MZM_EFORMAT, "%s: " KEY_COUNT " is missing or no number from 1 to %d", g->path,
				MAX_PARTS);
	if (!mzm_gguf_u64(g, KEY_NO, &s->no) ? s->count > 1 : s->no >= s->count)
		return mzm_fail(err, MZM_EFORMAT, "%s: " KEY_NO " is missing or no number below %d", g->path,
				(int)s->count);
	if (!mzm_gguf_u64(g, KEY_TENSORS, &s->n_tensors) && s->count > 1)
		return mzm_fail(err, MZM_EFORMAT, "%s: " KEY_TENSORS " is missing or no number", g->path);
	return MZM_OK;
}

static void suffix_of(mzm_str *out, uint64_t no, uint64_t count)
{
	mzm_str_printf(out, "-%05d-of-%05d.gguf", (int)no + 1, (int)count);
}

/* Path of part `no`, from that of part `of`; empty when the name is none of a part. */
static mzm_status path_of_part(mzm_str *out, const mzm_gguf *g, const split *s, uint64_t no, mzm_err *err)
{
	mzm_str suffix = {0};
	size_t n = strlen(g->path);
	suffix_of(&suffix, s->no, s->count);
	if (!suffix.failed && n >= suffix.len && strcmp(g->path + n - suffix.len, suffix.data) == 0) {
		mzm_str_add(out, g->path, n - suffix.len);
		suffix_of(out, no, s->count);
	}
	bool failed = suffix.failed || out->failed;
	mzm_str_free(&suffix);
	return failed ? mzm_fail(err, MZM_ENOMEM, "%s: out of memory: parts", g->path) : MZM_OK;
}

static mzm_status not_first(const mzm_gguf *g, const split *s, mzm_err *err)
{
	mzm_status st;
	mzm_str first = {0};
	MZM_TRY_OUT(path_of_part(&first, g, s, 0, err));
	st = mzm_fail(err, MZM_EFORMAT, "%s: part %d of %d of a model; open the first, %s", g->path, (int)s->no + 1,
		      (int)s->count, first.len ? first.data : "whose name ends in -00001-of-*.gguf");
out:
	mzm_str_free(&first);
	return st;
}

static bool is_same_text(mzm_gguf_text a, mzm_gguf_text b)
{
	return a.n == b.n && memcmp(a.s, b.s, a.n) == 0;
}

static bool is_same_array(const mzm_gguf_array *a, const mzm_gguf_array *b)
{
	const mzm_gguf_text *x = a->data, *y = b->data;
	if (a->type != b->type || a->n != b->n)
		return false;
	if (a->type != MZM_GGUF_STRING)
		return a->n == 0 || memcmp(a->data, b->data, (size_t)a->n * mzm_gguf_type_bytes(a->type)) == 0;
	for (uint64_t i = 0; i < a->n; i++)
		if (!is_same_text(x[i], y[i]))
			return false;
	return true;
}

static bool is_same_value(const mzm_gguf_entry *a, const mzm_gguf_entry *b)
{
	if (a->type != b->type)
		return false;
	return a->type == MZM_GGUF_STRING  ? is_same_text(a->text, b->text)
	       : a->type == MZM_GGUF_ARRAY ? is_same_array(&a->array, &b->array)
					   : a->bits == b->bits;
}

/* Both lists are sorted by key. */
static mzm_status check_metadata(const mzm_gguf *first, const mzm_gguf *part, mzm_err *err)
{
	size_t k = 0;
	for (size_t i = 0; i < part->n_entries; i++) {
		const mzm_gguf_entry *e = &part->entries[i];
		if (strcmp(e->key.s, KEY_NO) == 0 || strcmp(e->key.s, "general.alignment") == 0)
			continue;
		while (k < first->n_entries && strcmp(first->entries[k].key.s, e->key.s) < 0)
			k++;
		if (k == first->n_entries || strcmp(first->entries[k].key.s, e->key.s) != 0 ||
		    !is_same_value(&first->entries[k], e))
			return mzm_fail(err, MZM_EFORMAT, "%s: %.200s is not what %s says: a part of another model",
					part->path, e->key.s, first->path);
	}
	return MZM_OK;
}

static mzm_status open_part(mzm_gguf *g, const split *s, uint64_t no, mzm_err *err)
{
	mzm_status st;
	mzm_str path = {0};
	split found;
	mzm_gguf **part = &g->parts[no - 1];
	MZM_TRY_OUT(path_of_part(&path, g, s, no, err));
	if (path.len == 0)
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT,
				     "%s: part 1 of %d of a model, but its name does not end in "
				     "-00001-of-%05d.gguf",
				     g->path, (int)s->count, (int)s->count));
	if (!mzm_path_exists(path.data))
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "%s: part %d of %d, %s, is missing", g->path, (int)no + 1,
				     (int)s->count, path.data));
	MZM_TRY_OUT(mzm_gguf_open_file(part, path.data, err));
	MZM_TRY_OUT(read_split(&found, *part, err));
	if (found.no != no || found.count != s->count)
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "%s: is part %d of %d, and should be part %d of %d", path.data,
				     (int)found.no + 1, (int)found.count, (int)no + 1, (int)s->count));
	MZM_TRY_OUT(check_metadata(g, *part, err));
out:
	mzm_str_free(&path);
	return st;
}

/* The tensors of all files in g's table. */
static mzm_status join_tensors(mzm_gguf *g, const split *s, mzm_err *err)
{
	size_t n = g->n_tensors, old_bytes = n * sizeof g->tensors[0], at = n;
	for (int32_t i = 0; i < g->n_parts; i++)
		n += g->parts[i]->n_tensors;
	if (n != s->n_tensors)
		return mzm_fail(err, MZM_EFORMAT,
				"%s: the files of the model have %zu tensors, " KEY_TENSORS " says %llu", g->path, n,
				(unsigned long long)s->n_tensors);
	if (n > INT32_MAX)
		return mzm_fail(err, MZM_EFORMAT, "%s: %zu tensors", g->path, n);
	mzm_gguf_tensor *grown = mzm_realloc(g->tensors, old_bytes, n * sizeof g->tensors[0]);
	if (!grown)
		return mzm_fail(err, MZM_ENOMEM, "%s: out of memory: the list of tensors", g->path);
	g->tensors = grown;
	for (int32_t i = 0; i < g->n_parts; i++)
		for (size_t k = 0; k < g->parts[i]->n_tensors; k++) {
			grown[at] = g->parts[i]->tensors[k];
			grown[at++].file = i + 1;
		}
	mzm_free(g->by_name);
	g->by_name = NULL;
	MZM_TRY(mzm_alloc_for((void **)&g->by_name, n * sizeof g->by_name[0], "the list of tensors", err));
	g->n_tensors = n;
	for (size_t i = 0; i < n; i++)
		g->by_name[i] = &grown[i];
	return mzm_gguf_sort_names(g, err);
}

mzm_status mzm_gguf_open_parts(mzm_gguf *g, mzm_err *err)
{
	split s;
	MZM_TRY(read_split(&s, g, err));
	if (s.no != 0)
		return not_first(g, &s, err);
	if (s.count == 1)
		return MZM_OK;
	MZM_TRY(mzm_alloc_for((void **)&g->parts, (size_t)(s.count - 1) * sizeof g->parts[0], "parts of a model", err));
	g->n_parts = (int32_t)s.count - 1;
	for (uint64_t no = 1; no < s.count; no++)
		MZM_TRY(open_part(g, &s, no, err));
	return join_tensors(g, &s, err);
}
