/* jinja_math.c - arithmetic, comparison and slices, as Python has them; whole numbers beyond 64 bits are refused. */
#include "format/jinja_impl.h"

#include <math.h>

static mzm_status no_operator(mzm_jrun *r, const mzm_jv *a, const mzm_jv *b)
{
	return mzm_jrun_fail(r, MZM_EFORMAT, "this operator does not work on %s and %s", mzm_jv_kind(a),
			     mzm_jv_kind(b));
}

/* ---- numbers ---- */

static int64_t floor_div(int64_t a, int64_t b)
{
	int64_t q = a / b;
	return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

static int64_t floor_mod(int64_t a, int64_t b)
{
	int64_t rest = a % b;
	return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

static bool power(int64_t base, int64_t exponent, int64_t *out)
{
	*out = 1;
	if (base == 0 || base == 1 || base == -1) {
		*out = exponent == 0 || base == 1 ? 1 : base == 0 ? 0 : exponent % 2 ? -1 : 1;
		return true;
	}
	for (; exponent > 0; exponent--) /* at most 64 turns until it overflows */
		if (__builtin_mul_overflow(*out, base, out))
			return false;
	return true;
}

static bool whole_math(char op, int64_t a, int64_t b, int64_t *out)
{
	switch (op) {
	case '+':
		return !__builtin_add_overflow(a, b, out);
	case '-':
		return !__builtin_sub_overflow(a, b, out);
	case '*':
		return !__builtin_mul_overflow(a, b, out);
	case MZM_JOP_POW:
		return power(a, b, out);
	default:
		if (a == INT64_MIN && b == -1)
			return false;
		*out = op == '%' ? floor_mod(a, b) : floor_div(a, b);
		return true;
	}
}

static double real_math(char op, double a, double b)
{
	double rest;
	switch (op) {
	case '+':
		return a + b;
	case '-':
		return a - b;
	case '*':
		return a * b;
	case '/':
		return a / b;
	case MZM_JOP_POW:
		return pow(a, b);
	default:
		rest = fmod(a, b);
		if (rest != 0 && (rest < 0) != (b < 0))
			rest += b;
		return op == '%' ? (rest == 0 ? copysign(0, b) : rest) : floor((a - rest) / b + 0.5);
	}
}

static mzm_status number_math(mzm_jrun *r, mzm_jv *out, char op, const mzm_jv *a, const mzm_jv *b)
{
	bool whole = mzm_jv_is_whole(a) && mzm_jv_is_whole(b), divides = op == '/' || op == '%' || op == MZM_JOP_FLOOR;
	int64_t i;
	if (divides && mzm_jv_real(b) == 0)
		return mzm_jrun_fail(r, MZM_EFORMAT, "division by zero");
	if (op == MZM_JOP_POW && mzm_jv_real(a) <= 0 && (mzm_jv_real(b) < 0 || b->kind == MZM_J_FLOAT))
		return mzm_jrun_fail(r, MZM_EUNSUPPORTED, "this power is not supported");
	if (!whole || op == '/' || (op == MZM_JOP_POW && mzm_jv_whole(b) < 0)) {
		*out = mzm_jv_float(real_math(op, mzm_jv_real(a), mzm_jv_real(b)));
		return MZM_OK;
	}
	if (!whole_math(op, mzm_jv_whole(a), mzm_jv_whole(b), &i))
		return mzm_jrun_fail(r, MZM_EUNSUPPORTED, "a whole number beyond 64 bits");
	*out = mzm_jv_int(i);
	return MZM_OK;
}

/* ---- sequences ---- */

static bool is_sequence(const mzm_jv *v)
{
	return v->kind == MZM_J_STR || v->kind == MZM_J_LIST || v->kind == MZM_J_TUPLE;
}

static mzm_status join_lists(mzm_jrun *r, mzm_jv *out, const mzm_jv *a, const mzm_jv *b)
{
	mzm_jv *items;
	size_t n_a = a->list->n, n_b = b->list->n;
	MZM_TRY(mzm_jv_room(r, &items, n_a + n_b));
	if (n_a)
		memcpy(items, a->list->items, n_a * sizeof *items);
	if (n_b)
		memcpy(items + n_a, b->list->items, n_b * sizeof *items);
	return mzm_jv_list(r, out, a->kind, items, n_a + n_b);
}

static mzm_status repeat_text(mzm_jrun *r, mzm_jv *out, const mzm_jv *text, size_t times)
{
	size_t n;
	if (!mzm_mul_size(text->len, times, &n) || n > MZM_JINJA_MAX_BYTES)
		return mzm_jrun_over(r);
	MZM_TRY(mzm_jrun_charge_bytes(r, n));
	char *copy = mzm_jrun_text(r, n);
	if (!copy)
		return mzm_jrun_full(r);
	for (size_t i = 0; i < n; i++)
		copy[i] = text->s[i % text->len];
	*out = mzm_jv_str(copy, n);
	return MZM_OK;
}

static mzm_status repeat(mzm_jrun *r, mzm_jv *out, const mzm_jv *what, const mzm_jv *by)
{
	size_t times = mzm_jv_whole(by) > 0 ? (size_t)mzm_jv_whole(by) : 0, n;
	mzm_jv *items;
	if (what->kind == MZM_J_STR)
		return repeat_text(r, out, what, times);
	if (!mzm_mul_size(what->list->n, times, &n) || n > MZM_JINJA_MAX_BYTES)
		return mzm_jrun_over(r);
	MZM_TRY(mzm_jv_room(r, &items, n));
	for (size_t i = 0; i < n; i++)
		items[i] = what->list->items[i % what->list->n];
	return mzm_jv_list(r, out, what->kind, items, n);
}

mzm_status mzm_jrun_math(mzm_jrun *r, mzm_jv *out, char op, const mzm_jv *a, const mzm_jv *b)
{
	mzm_jv text;
	if (mzm_jv_is_number(a) && mzm_jv_is_number(b))
		return number_math(r, out, op, a, b);
	if (op == '*' && is_sequence(a) && mzm_jv_is_whole(b))
		return repeat(r, out, a, b);
	if (op == '*' && is_sequence(b) && mzm_jv_is_whole(a))
		return repeat(r, out, b, a);
	if (op == '%' && a->kind == MZM_J_STR)
		return mzm_jrun_fail(r, MZM_EUNSUPPORTED, "formatting with %% is not supported");
	if (op != '+' || a->kind != b->kind || !is_sequence(a))
		return no_operator(r, a, b);
	if (a->kind != MZM_J_STR)
		return join_lists(r, out, a, b);
	text = *a;
	MZM_TRY(mzm_jv_append(r, &text, b->s, b->len));
	*out = text;
	return MZM_OK;
}

/* ---- comparison ---- */

static mzm_status contains(mzm_jrun *r, bool *out, const mzm_jv *in, const mzm_jv *what)
{
	mzm_jlist items;
	*out = false;
	if (in->kind == MZM_J_STR) {
		if (what->kind != MZM_J_STR)
			return mzm_jrun_fail(r, MZM_EFORMAT, "%s cannot be in a string", mzm_jv_kind(what));
		*out = !what->len || (in->len && memmem(in->s, in->len, what->s, what->len) != NULL);
		return mzm_jrun_charge_bytes(r, in->len);
	}
	if (in->kind == MZM_J_DICT) {
		const mzm_jv *value;
		MZM_TRY(mzm_jv_get(r, &value, in->dict, what));
		*out = value != NULL;
		return MZM_OK;
	}
	MZM_TRY(mzm_jv_items(r, &items, in));
	for (uint32_t i = 0; i < items.n && !*out; i++)
		MZM_TRY(mzm_jv_equal(r, out, &items.items[i], what));
	return MZM_OK;
}

mzm_status mzm_jrun_compare(mzm_jrun *r, bool *out, char op, const mzm_jv *a, const mzm_jv *b)
{
	int sign = 0;
	bool negated = op == MZM_JOP_NE || op == MZM_JOP_NOT_IN;
	if (op == MZM_JOP_EQ || op == MZM_JOP_NE || op == MZM_JOP_IN || op == MZM_JOP_NOT_IN) {
		if (op == MZM_JOP_EQ || op == MZM_JOP_NE)
			MZM_TRY(mzm_jv_equal(r, out, a, b));
		else
			MZM_TRY(contains(r, out, b, a));
		*out = *out != negated;
		return MZM_OK;
	}
	MZM_TRY(mzm_jv_order(r, &sign, a, b));
	*out = op == '<' ? sign < 0 : op == '>' ? sign > 0 : op == MZM_JOP_LE ? sign <= 0 : sign >= 0;
	if (mzm_jv_is_number(a) && mzm_jv_is_number(b) && (isnan(mzm_jv_real(a)) || isnan(mzm_jv_real(b))))
		*out = false;
	return MZM_OK;
}

/* ---- slices ---- */

/* A bound of a slice over n items, as Python reads it. */
static int64_t bound(const mzm_jv *v, int64_t n, int64_t missing, bool backwards)
{
	if (v->kind == MZM_J_NONE)
		return missing;
	int64_t i = mzm_jv_whole(v), low = backwards ? -1 : 0, high = backwards ? n - 1 : n;
	if (i < 0)
		i += n;
	return i < low ? low : i > high ? high : i;
}

static mzm_status slice_items(mzm_jrun *r, mzm_jv *out, const mzm_jv *of, const mzm_jlist *from, int64_t first,
			      int64_t step, size_t n)
{
	mzm_jv *items;
	if (step == 1 && of->kind != MZM_J_STR)
		return mzm_jv_list(r, out, of->kind, from->items + (n ? first : 0), n);
	MZM_TRY(mzm_jv_room(r, &items, n));
	mzm_jv text = mzm_jv_str("", 0);
	for (size_t i = 0; i < n; i++) {
		items[i] = from->items[first + (int64_t)i * step];
		if (of->kind == MZM_J_STR)
			MZM_TRY(mzm_jv_append(r, &text, items[i].s, items[i].len));
	}
	*out = text;
	return of->kind == MZM_J_STR ? MZM_OK : mzm_jv_list(r, out, of->kind, items, n);
}

static mzm_status slice_text(mzm_jrun *r, mzm_jv *out, const mzm_jv *of, int64_t first, int64_t end)
{
	MZM_TRY(mzm_jrun_charge_bytes(r, of->len));
	if (end <= first) {
		*out = mzm_jv_str("", 0);
		return MZM_OK;
	}
	size_t from = mzm_jv_byte_of(of, (size_t)first);
	mzm_jv rest = mzm_jv_str(of->s + from, of->len - from);
	*out = mzm_jv_str(rest.s, mzm_jv_byte_of(&rest, (size_t)(end - first)));
	return MZM_OK;
}

mzm_status mzm_jrun_slice(mzm_jrun *r, mzm_jv *out, const mzm_jv *of, const mzm_jv part[3])
{
	mzm_jlist items;
	size_t length;
	for (int i = 0; i < 3; i++)
		if (part[i].kind != MZM_J_NONE && !mzm_jv_is_whole(&part[i]))
			return mzm_jrun_fail(r, MZM_EFORMAT, "%s cannot bound a slice", mzm_jv_kind(&part[i]));
	if (!is_sequence(of) && of->kind != MZM_J_RANGE)
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s has no slices", mzm_jv_kind(of));
	int64_t step = part[2].kind == MZM_J_NONE ? 1 : mzm_jv_whole(&part[2]);
	if (!step || step == INT64_MIN)
		return mzm_jrun_fail(r, MZM_EFORMAT, "a slice with a step of %lld", (long long)step);
	MZM_TRY(mzm_jv_length(r, &length, of));
	int64_t n = (int64_t)length, first = bound(&part[0], n, step < 0 ? n - 1 : 0, step < 0);
	int64_t end = bound(&part[1], n, step < 0 ? -1 : n, step < 0);
	if (of->kind == MZM_J_STR && step == 1)
		return slice_text(r, out, of, first, end);
	int64_t span = step < 0 ? first - end : end - first, pace = step < 0 ? -step : step;
	MZM_TRY(mzm_jv_items(r, &items, of));
	return slice_items(r, out, of, &items, first, step, span > 0 ? (size_t)((span - 1) / pace + 1) : 0);
}
