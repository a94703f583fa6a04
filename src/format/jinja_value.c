/* jinja_value.c - the arena, and what values are to each other: truth, equality, order, length, items; dictionaries.
 *
 * Dictionaries are short in templates, so a look-up walks them; every step of a walk is charged, so that a template
 * that makes a long one runs into its bound instead of into a hang. */
#include "format/jinja_impl.h"

#include <math.h>

#include "format/tokenizer_utf8.h"

/* ---- arena ---- */

#define BLOCK_BYTES ((size_t)16 << 10)
#define UNIT        16u

struct mzm_jblock {
	struct mzm_jblock *next;
	size_t             bytes;
};

static bool add_block(mzm_jarena *a, size_t n)
{
	size_t left = MZM_JINJA_MAX_BYTES - (a->taken ? *a->taken : a->bytes);
	size_t bytes = a->bytes / 4 > BLOCK_BYTES ? a->bytes / 4 : BLOCK_BYTES;
	if (bytes < n || bytes > left)
		bytes = n;
	if (n > left) {
		a->over = true;
		return false;
	}
	struct mzm_jblock *block = mzm_alloc(2 * UNIT + bytes);
	if (!block)
		return false;
	block->next = a->blocks;
	block->bytes = bytes;
	a->blocks = block;
	a->bytes += bytes;
	if (a->taken)
		*a->taken += bytes;
	a->top = (char *)block + 2 * UNIT;
	a->end = a->top + bytes;
	return true;
}

void *mzm_jarena_take(mzm_jarena *a, size_t n_items, size_t item_bytes)
{
	size_t n;
	if (!mzm_mul_size(n_items, item_bytes, &n) || n > MZM_JINJA_MAX_BYTES - 2 * UNIT) {
		a->over = true;
		return NULL;
	}
	size_t skip = (UNIT - (uintptr_t)a->top % UNIT) % UNIT;
	if ((size_t)(a->end - a->top) < skip + n || !a->top) {
		if (!add_block(a, n + UNIT))
			return NULL;
		skip = (UNIT - (uintptr_t)a->top % UNIT) % UNIT;
	}
	char *p = a->top + skip;
	a->top = p + n;
	memset(p, 0, n);
	return p;
}

char *mzm_jarena_text(mzm_jarena *a, size_t n)
{
	if (n > MZM_JINJA_MAX_BYTES - 2 * UNIT) {
		a->over = true;
		return NULL;
	}
	if (((size_t)(a->end - a->top) < n || !a->top) && !add_block(a, n + UNIT))
		return NULL;
	char *p = a->top;
	a->top = p + n;
	return p;
}

void mzm_jarena_free(mzm_jarena *a)
{
	for (struct mzm_jblock *b = a->blocks; b;) {
		struct mzm_jblock *next = b->next;
		mzm_free(b);
		b = next;
	}
	*a = (mzm_jarena){0};
}

/* ---- kinds ---- */

const char *mzm_jv_kind(const mzm_jv *v)
{
	static const char *const names[] = {
		[MZM_J_ABSENT] = "nothing",     [MZM_J_UNDEFINED] = "undefined", [MZM_J_NONE] = "none",
		[MZM_J_BOOL] = "a bool",        [MZM_J_INT] = "an int",          [MZM_J_FLOAT] = "a float",
		[MZM_J_STR] = "a string",       [MZM_J_LIST] = "a list",         [MZM_J_TUPLE] = "a tuple",
		[MZM_J_RANGE] = "a range",
		[MZM_J_VIEW] = "a view of a dict", [MZM_J_STREAM] = "a generator", [MZM_J_DICT] = "a dict",
		[MZM_J_NAMESPACE] = "a namespace", [MZM_J_LOOP] = "a loop",      [MZM_J_MACRO] = "a macro",
		[MZM_J_METHOD] = "a method",    [MZM_J_FUNCTION] = "a function",
	};
	return names[v->kind];
}

bool mzm_jv_truth(const mzm_jv *v)
{
	switch (v->kind) {
	case MZM_J_ABSENT:
	case MZM_J_UNDEFINED:
	case MZM_J_NONE:
		return false;
	case MZM_J_BOOL:
		return v->b;
	case MZM_J_INT:
		return v->i != 0;
	case MZM_J_FLOAT:
		return v->f != 0;
	case MZM_J_STR:
		return v->len > 0;
	case MZM_J_LIST:
	case MZM_J_TUPLE:
	case MZM_J_RANGE:
	case MZM_J_VIEW:
		return v->list->n > 0;
	case MZM_J_DICT:
		return v->dict->n > 0;
	default:
		return true; /* a generator too, even one that has nothing to give */
	}
}

static int order_of(double a, double b)
{
	return a < b ? -1 : a > b;
}

static bool equal_numbers(const mzm_jv *a, const mzm_jv *b)
{
	if (a->kind == MZM_J_FLOAT || b->kind == MZM_J_FLOAT)
		return mzm_jv_real(a) == mzm_jv_real(b);
	return mzm_jv_whole(a) == mzm_jv_whole(b);
}

static mzm_status equal_lists(mzm_jrun *r, bool *out, const mzm_jlist *a, const mzm_jlist *b)
{
	*out = a->n == b->n;
	for (uint32_t i = 0; *out && i < a->n; i++)
		MZM_TRY(mzm_jv_equal(r, out, &a->items[i], &b->items[i]));
	return MZM_OK;
}

static mzm_status equal_dicts(mzm_jrun *r, bool *out, const mzm_jdict *a, const mzm_jdict *b)
{
	*out = a->n == b->n;
	for (uint32_t i = 0; *out && i < a->n; i++) {
		const mzm_jv *other;
		MZM_TRY(mzm_jv_get(r, &other, b, &a->keys[i]));
		*out = other != NULL;
		if (other)
			MZM_TRY(mzm_jv_equal(r, out, &a->values[i], other));
	}
	return MZM_OK;
}

static mzm_status equal_deep(mzm_jrun *r, bool *out, const mzm_jv *a, const mzm_jv *b)
{
	switch (a->kind) {
	case MZM_J_UNDEFINED:
	case MZM_J_NONE:
		*out = true;
		return MZM_OK;
	case MZM_J_STR:
		*out = mzm_jv_same_text(a, b);
		return mzm_jrun_charge_bytes(r, a->len < b->len ? a->len : b->len);
	case MZM_J_LIST:
	case MZM_J_TUPLE:
	case MZM_J_RANGE:
	case MZM_J_VIEW:
		return equal_lists(r, out, a->list, b->list);
	case MZM_J_DICT:
		return equal_dicts(r, out, a->dict, b->dict);
	default:
		*out = a->s == b->s; /* the same object */
		return MZM_OK;
	}
}

mzm_status mzm_jv_equal(mzm_jrun *r, bool *out, const mzm_jv *a, const mzm_jv *b)
{
	*out = false;
	MZM_TRY(mzm_jrun_charge(r, 1));
	if (mzm_jv_is_number(a) && mzm_jv_is_number(b)) {
		*out = equal_numbers(a, b);
		return MZM_OK;
	}
	if (a->kind != b->kind)
		return MZM_OK;
	MZM_TRY(mzm_jrun_enter(r));
	MZM_TRY(equal_deep(r, out, a, b));
	r->level--;
	return MZM_OK;
}

static mzm_status order_lists(mzm_jrun *r, int *out, const mzm_jlist *a, const mzm_jlist *b)
{
	uint32_t n = a->n < b->n ? a->n : b->n;
	for (uint32_t i = 0; i < n; i++) {
		bool same;
		MZM_TRY(mzm_jv_equal(r, &same, &a->items[i], &b->items[i]));
		if (same)
			continue;
		MZM_TRY(mzm_jrun_enter(r));
		MZM_TRY(mzm_jv_order(r, out, &a->items[i], &b->items[i]));
		r->level--;
		return MZM_OK;
	}
	*out = a->n < b->n ? -1 : a->n > b->n;
	return MZM_OK;
}

mzm_status mzm_jv_order(mzm_jrun *r, int *out, const mzm_jv *a, const mzm_jv *b)
{
	MZM_TRY(mzm_jrun_charge(r, 1));
	if (mzm_jv_is_whole(a) && mzm_jv_is_whole(b)) {
		*out = mzm_jv_whole(a) < mzm_jv_whole(b) ? -1 : mzm_jv_whole(a) > mzm_jv_whole(b);
		return MZM_OK;
	}
	if (mzm_jv_is_number(a) && mzm_jv_is_number(b)) {
		*out = order_of(mzm_jv_real(a), mzm_jv_real(b));
		return MZM_OK;
	}
	if (a->kind == MZM_J_STR && b->kind == MZM_J_STR) {
		uint32_t n = a->len < b->len ? a->len : b->len;
		int sign = n ? memcmp(a->s, b->s, n) : 0; /* the order of UTF-8 is that of code points */
		*out = sign < 0 ? -1 : sign > 0 ? 1 : a->len < b->len ? -1 : a->len > b->len;
		return mzm_jrun_charge_bytes(r, n);
	}
	if (a->kind == b->kind && (a->kind == MZM_J_LIST || a->kind == MZM_J_TUPLE))
		return order_lists(r, out, a->list, b->list);
	return mzm_jrun_fail(r, MZM_EFORMAT, "%s and %s have no order", mzm_jv_kind(a), mzm_jv_kind(b));
}

/* ---- lists ---- */

mzm_status mzm_jv_room(mzm_jrun *r, mzm_jv **out, size_t n)
{
	MZM_TRY(mzm_jrun_charge(r, n / 8));
	*out = mzm_jarena_take(&r->mem, n ? n : 1, sizeof **out);
	return *out ? MZM_OK : mzm_jrun_full(r);
}

mzm_status mzm_jv_list(mzm_jrun *r, mzm_jv *out, mzm_jkind kind, const mzm_jv *items, size_t n)
{
	mzm_jlist *list = mzm_jarena_take(&r->mem, 1, sizeof *list);
	if (!list)
		return mzm_jrun_full(r);
	*list = (mzm_jlist){.items = items, .n = (uint32_t)n};
	*out = (mzm_jv){.kind = kind, .list = list};
	return MZM_OK;
}

static mzm_status items_of_text(mzm_jrun *r, mzm_jlist *out, const mzm_jv *v)
{
	mzm_jv *items;
	size_t n = mzm_jv_chars(v), at = 0, len;
	MZM_TRY(mzm_jv_room(r, &items, n));
	for (size_t i = 0; i < n; i++, at += len) {
		(void)mzm_utf8_next(v->s + at, &len);
		items[i] = mzm_jv_str(v->s + at, len);
	}
	*out = (mzm_jlist){.items = items, .n = (uint32_t)n};
	return MZM_OK;
}

mzm_status mzm_jv_items(mzm_jrun *r, mzm_jlist *out, const mzm_jv *v)
{
	switch (v->kind) {
	case MZM_J_UNDEFINED:
		*out = (mzm_jlist){0};
		return MZM_OK;
	case MZM_J_LIST:
	case MZM_J_TUPLE:
	case MZM_J_RANGE:
	case MZM_J_VIEW:
		*out = *v->list;
		return MZM_OK;
	case MZM_J_STREAM:
		*out = *v->list;
		if (v->list->spent)
			out->n = 0;
		v->list->spent = true;
		return MZM_OK;
	case MZM_J_DICT: {
		mzm_jv *keys; /* a copy: the dictionary may grow while it is walked */
		MZM_TRY(mzm_jv_room(r, &keys, v->dict->n));
		if (v->dict->n)
			memcpy(keys, v->dict->keys, v->dict->n * sizeof *keys);
		*out = (mzm_jlist){.items = keys, .n = v->dict->n};
		return MZM_OK;
	}
	case MZM_J_STR:
		return items_of_text(r, out, v);
	default:
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s has no items to go through", mzm_jv_kind(v));
	}
}

mzm_status mzm_jv_length(mzm_jrun *r, size_t *out, const mzm_jv *v)
{
	switch (v->kind) {
	case MZM_J_UNDEFINED:
		*out = 0;
		return MZM_OK;
	case MZM_J_STR:
		*out = mzm_jv_chars(v);
		return mzm_jrun_charge_bytes(r, v->len);
	case MZM_J_LIST:
	case MZM_J_TUPLE:
	case MZM_J_RANGE:
	case MZM_J_VIEW:
		*out = v->list->n;
		return MZM_OK;
	case MZM_J_DICT:
		*out = v->dict->n;
		return MZM_OK;
	case MZM_J_LOOP:
		*out = v->loop->n;
		return MZM_OK;
	default:
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s has no length", mzm_jv_kind(v));
	}
}

/* ---- dictionaries ---- */

mzm_status mzm_jv_dict(mzm_jrun *r, mzm_jv *out, mzm_jkind kind, size_t cap)
{
	mzm_jdict *d = mzm_jarena_take(&r->mem, 1, sizeof *d);
	if (!d)
		return mzm_jrun_full(r);
	if (cap) {
		MZM_TRY(mzm_jv_room(r, &d->keys, cap));
		MZM_TRY(mzm_jv_room(r, &d->values, cap));
		d->cap = (uint32_t)cap;
	}
	*out = (mzm_jv){.kind = kind, .dict = d};
	return MZM_OK;
}

static mzm_status find_key(mzm_jrun *r, uint32_t *at, const mzm_jdict *d, const mzm_jv *key)
{
	if (key->kind == MZM_J_LIST || key->kind == MZM_J_DICT)
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s cannot be a key", mzm_jv_kind(key));
	MZM_TRY(mzm_jrun_charge(r, d->n / 8));
	for (*at = 0; *at < d->n; (*at)++) {
		const mzm_jv *have = &d->keys[*at];
		bool same = false, text = have->kind == MZM_J_STR && key->kind == MZM_J_STR;
		if (text ? have->len == key->len : have->kind != MZM_J_STR && key->kind != MZM_J_STR)
			MZM_TRY(mzm_jv_equal(r, &same, have, key));
		if (same)
			break;
	}
	return MZM_OK;
}

mzm_status mzm_jv_get(mzm_jrun *r, const mzm_jv **out, const mzm_jdict *d, const mzm_jv *key)
{
	uint32_t at;
	*out = NULL;
	MZM_TRY(find_key(r, &at, d, key));
	if (at < d->n)
		*out = &d->values[at];
	return MZM_OK;
}

static mzm_status grow_dict(mzm_jrun *r, mzm_jdict *d)
{
	mzm_jv *keys, *values;
	uint32_t cap = d->cap ? 2 * d->cap : 4;
	MZM_TRY(mzm_jv_room(r, &keys, cap));
	MZM_TRY(mzm_jv_room(r, &values, cap));
	if (d->n) {
		memcpy(keys, d->keys, d->n * sizeof *keys);
		memcpy(values, d->values, d->n * sizeof *values);
	}
	d->keys = keys;
	d->values = values;
	d->cap = cap;
	return MZM_OK;
}

mzm_status mzm_jv_put(mzm_jrun *r, mzm_jdict *d, const mzm_jv *key, const mzm_jv *value)
{
	uint32_t at;
	MZM_TRY(find_key(r, &at, d, key));
	if (at < d->n) {
		d->values[at] = *value;
		return MZM_OK;
	}
	if (d->n == d->cap)
		MZM_TRY(grow_dict(r, d));
	d->keys[d->n] = *key;
	d->values[d->n++] = *value;
	return MZM_OK;
}

mzm_status mzm_jv_pairs(mzm_jrun *r, mzm_jv *out, mzm_jkind kind, const mzm_jdict *d)
{
	mzm_jv *pairs, *both;
	MZM_TRY(mzm_jv_room(r, &pairs, d->n));
	MZM_TRY(mzm_jv_room(r, &both, 2 * (size_t)d->n));
	for (uint32_t i = 0; i < d->n; i++) {
		both[2 * i] = d->keys[i];
		both[2 * i + 1] = d->values[i];
		MZM_TRY(mzm_jv_list(r, &pairs[i], MZM_J_TUPLE, both + (size_t)2 * i, 2));
	}
	return mzm_jv_list(r, out, kind, pairs, d->n);
}

/* ---- from JSON; strings stay where they are ---- */

static mzm_status list_from_json(mzm_jrun *r, mzm_jv *out, const json_t *j)
{
	mzm_jv *items;
	size_t n = json_array_size(j);
	MZM_TRY(mzm_jv_room(r, &items, n));
	for (size_t i = 0; i < n; i++)
		MZM_TRY(mzm_jv_from_json(r, &items[i], json_array_get(j, i)));
	return mzm_jv_list(r, out, MZM_J_LIST, items, n);
}

static mzm_status dict_from_json(mzm_jrun *r, mzm_jv *out, const json_t *j)
{
	json_t *object = (json_t *)(uintptr_t)j; /* jansson's iterators take no const */
	MZM_TRY(mzm_jv_dict(r, out, MZM_J_DICT, json_object_size(j)));
	mzm_jdict *d = out->dict; /* its keys differ: they are put down without a search */
	for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it), d->n++) {
		const char *key = json_object_iter_key(it);
		d->keys[d->n] = mzm_jv_str(key, strlen(key));
		MZM_TRY(mzm_jv_from_json(r, &d->values[d->n], json_object_iter_value(it)));
	}
	return MZM_OK;
}

mzm_status mzm_jv_from_json(mzm_jrun *r, mzm_jv *out, const json_t *j)
{
	MZM_TRY(mzm_jrun_charge(r, 1));
	MZM_TRY(mzm_jrun_enter(r));
	switch (json_typeof(j)) {
	case JSON_OBJECT:
		MZM_TRY(dict_from_json(r, out, j));
		break;
	case JSON_ARRAY:
		MZM_TRY(list_from_json(r, out, j));
		break;
	case JSON_STRING:
		if (json_string_length(j) > MZM_JINJA_MAX_BYTES)
			return mzm_jrun_fail(r, MZM_EARG, "a variable has more than %zu bytes", MZM_JINJA_MAX_BYTES);
		*out = mzm_jv_str(json_string_value(j), json_string_length(j));
		break;
	case JSON_INTEGER:
		*out = mzm_jv_int(json_integer_value(j));
		break;
	case JSON_REAL:
		*out = mzm_jv_float(json_real_value(j));
		break;
	case JSON_NULL:
		*out = (mzm_jv){.kind = MZM_J_NONE};
		break;
	default:
		*out = mzm_jv_bool(json_is_true(j));
	}
	r->level--;
	return MZM_OK;
}
