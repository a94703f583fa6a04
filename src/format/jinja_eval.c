/* jinja_eval.c - the value of an expression: names, attributes, calls, filters, tests and logic. */
#include "format/jinja_impl.h"

static mzm_status undefined_used(mzm_jrun *r, const mzm_jv *v)
{
	return mzm_jrun_fail(r, MZM_EFORMAT, "%.*s is undefined", v->len < 100 ? (int)v->len : 100, v->s);
}

/* ---- attributes and items ---- */

static void attr_of_loop(mzm_jv *out, const mzm_jv *of, const mzm_jv *name)
{
	const mzm_jloop *loop = of->loop;
	static const char *const names[] = {"index", "index0", "revindex", "revindex0", "length", "depth", "depth0"};
	const uint32_t values[] = {loop->at + 1, loop->at, loop->n - loop->at, loop->n - loop->at - 1, loop->n,
				   1, 0}; /* the depth is that of recursive loops, which there are none of */
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		if (mzm_jv_is(name, names[i])) {
			*out = mzm_jv_int(values[i]);
			return;
		}
	}
	if (mzm_jv_is(name, "first"))
		*out = mzm_jv_bool(loop->at == 0);
	else if (mzm_jv_is(name, "last"))
		*out = mzm_jv_bool(loop->at + 1 == loop->n);
	else if (mzm_jv_is(name, "previtem") && loop->at > 0)
		*out = loop->items[loop->at - 1];
	else if (mzm_jv_is(name, "nextitem") && loop->at + 1 < loop->n)
		*out = loop->items[loop->at + 1];
}

static mzm_status method_of(mzm_jrun *r, mzm_jv *out, const mzm_jv *of, const mzm_jrow *row)
{
	mzm_jmethod *method = mzm_jarena_take(&r->mem, 1, sizeof *method);
	if (!method)
		return mzm_jrun_full(r);
	*method = (mzm_jmethod){.self = *of, .row = row};
	*out = (mzm_jv){.kind = MZM_J_METHOD, .method = method};
	return MZM_OK;
}

static mzm_status member(mzm_jrun *r, mzm_jv *out, const mzm_jv *of, const mzm_jv *key, bool *found)
{
	const mzm_jv *v = NULL;
	if (of->kind == MZM_J_DICT || of->kind == MZM_J_NAMESPACE)
		MZM_TRY(mzm_jv_get(r, &v, of->dict, key));
	if (v)
		*out = *v;
	*found = v != NULL;
	return MZM_OK;
}

/* a.name: a method, else the item of that name. */
mzm_status mzm_jrun_attr(mzm_jrun *r, mzm_jv *out, const mzm_jv *of, const mzm_jv *name)
{
	bool found;
	if (of->kind == MZM_J_UNDEFINED)
		return undefined_used(r, of);
	if (name->len >= 2 && memcmp(name->s, "__", 2) == 0)
		return mzm_jrun_fail(r, MZM_EFORMAT, "%.*s is out of a template's reach",
				     name->len < 60 ? (int)name->len : 60, name->s);
	const mzm_jrow *row = mzm_jinja_method(of, name);
	*out = mzm_jv_undefined(name);
	if (row)
		return method_of(r, out, of, row);
	if (of->kind == MZM_J_LOOP) {
		attr_of_loop(out, of, name);
		return MZM_OK;
	}
	return member(r, out, of, name, &found);
}

static bool index_of(const mzm_jv *key, size_t n, size_t *at)
{
	int64_t i = mzm_jv_whole(key);
	if (i < 0)
		i += (int64_t)n;
	*at = (size_t)i;
	return i >= 0 && (size_t)i < n;
}

static mzm_status char_at(mzm_jrun *r, mzm_jv *out, const mzm_jv *of, const mzm_jv *key)
{
	size_t at;
	MZM_TRY(mzm_jrun_charge_bytes(r, of->len));
	if (index_of(key, mzm_jv_chars(of), &at)) {
		size_t from = mzm_jv_byte_of(of, at);
		mzm_jv rest = mzm_jv_str(of->s + from, of->len - from);
		*out = mzm_jv_str(rest.s, mzm_jv_byte_of(&rest, 1));
	}
	return MZM_OK;
}

/* a[key]: the item, else the method of that name. */
mzm_status mzm_jrun_item(mzm_jrun *r, mzm_jv *out, const mzm_jv *of, const mzm_jv *key)
{
	bool found = false;
	size_t at;
	if (of->kind == MZM_J_UNDEFINED)
		return undefined_used(r, of);
	*out = mzm_jv_undefined(key->kind == MZM_J_STR ? key : NULL);
	if (of->kind == MZM_J_DICT && key->kind != MZM_J_LIST && key->kind != MZM_J_DICT)
		MZM_TRY(member(r, out, of, key, &found));
	if (!found && key->kind == MZM_J_STR)
		return mzm_jrun_attr(r, out, of, key);
	if (found || !mzm_jv_is_whole(key))
		return MZM_OK;
	if (of->kind == MZM_J_STR)
		return char_at(r, out, of, key);
	if ((of->kind == MZM_J_LIST || of->kind == MZM_J_TUPLE || of->kind == MZM_J_RANGE) &&
	    index_of(key, of->list->n, &at))
		*out = of->list->items[at];
	return MZM_OK;
}

static mzm_status eval_slice(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	const mzm_jnode *const parts[3] = {node->b, node->c, node->d};
	mzm_jv of, values[3];
	MZM_TRY(mzm_jrun_eval(r, &of, node->a));
	for (int i = 0; i < 3; i++) {
		values[i] = (mzm_jv){.kind = MZM_J_NONE};
		if (parts[i])
			MZM_TRY(mzm_jrun_eval(r, &values[i], parts[i]));
	}
	if (of.kind == MZM_J_UNDEFINED)
		return undefined_used(r, &of);
	return mzm_jrun_slice(r, out, &of, values);
}

/* ---- calls ---- */

/* Arguments of a call, filter or test, as they are written. */
static mzm_status eval_arguments(mzm_jrun *r, mzm_jargs *args, const mzm_jnode *node)
{
	mzm_jv *values;
	uint32_t n_named = (node->n - node->n_pos) / 2, named = node->n_pos, names = named + n_named;
	MZM_TRY(mzm_jv_room(r, &values, (size_t)names + n_named));
	for (uint32_t i = 0; i < node->n_pos; i++)
		MZM_TRY(mzm_jrun_eval(r, &values[i], node->kids[i]));
	for (uint32_t i = 0; i < n_named; i++) {
		values[names + i] = node->kids[node->n_pos + 2 * i]->value;
		values[names + i].kind = MZM_J_STR;
		MZM_TRY(mzm_jrun_eval(r, &values[named + i], node->kids[node->n_pos + 2 * i + 1]));
	}
	args->pos = values;
	args->n_pos = node->n_pos;
	args->named = values + named;
	args->names = values + names;
	args->n_named = n_named;
	return MZM_OK;
}

static mzm_status bad_arguments(mzm_jrun *r, const mzm_jrow *row, const char *why, const mzm_jv *name)
{
	return mzm_jrun_fail(r, MZM_EFORMAT, "%s: %s%s%.*s", row->name, why, name ? " " : "",
			     !name ? 0 : name->len < 60 ? (int)name->len : 60, name ? name->s : "");
}

/* Which parameter has this name; the number of parameters when none has. */
static uint32_t parameter(const char *params, const mzm_jv *name, uint32_t *n)
{
	uint32_t at = UINT32_MAX;
	*n = 0;
	for (const char *p = params; *p; (*n)++) {
		size_t len = strcspn(p, " ");
		if (name && len == name->len && memcmp(p, name->s, len) == 0)
			at = *n;
		p += len + (p[len] == ' ');
	}
	return at;
}

static mzm_status place_arguments(mzm_jrun *r, const mzm_jrow *row, mzm_jargs *args)
{
	uint32_t n, at;
	(void)parameter(row->params, NULL, &n);
	memset(args->v, 0, sizeof args->v);
	if (args->n_pos > n)
		return bad_arguments(r, row, "too many arguments", NULL);
	for (uint32_t i = 0; i < args->n_pos; i++)
		args->v[i] = args->pos[i];
	for (uint32_t i = 0; i < args->n_named; i++) {
		at = parameter(row->params, &args->names[i], &n);
		if (at >= n)
			return bad_arguments(r, row, "no argument is named", &args->names[i]);
		if (args->v[at].kind != MZM_J_ABSENT)
			return bad_arguments(r, row, "given twice:", &args->names[i]);
		args->v[at] = args->named[i];
	}
	for (uint32_t i = 0; i < row->n_required; i++)
		if (args->v[i].kind == MZM_J_ABSENT)
			return bad_arguments(r, row, "too few arguments", NULL);
	return MZM_OK;
}

mzm_status mzm_jrun_row(mzm_jrun *r, mzm_jv *out, const mzm_jrow *row, const mzm_jv *in, mzm_jargs *args)
{
	MZM_TRY(mzm_jrun_charge(r, 1));
	if (row->params[0] != '*')
		MZM_TRY(place_arguments(r, row, args));
	return row->fn(r, out, in, args);
}

static mzm_status eval_call(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	mzm_jv callee;
	mzm_jargs args;
	int32_t line = r->line;
	MZM_TRY(mzm_jrun_eval(r, &callee, node->a));
	if (callee.kind == MZM_J_UNDEFINED)
		return undefined_used(r, &callee);
	MZM_TRY(eval_arguments(r, &args, node));
	if (callee.kind == MZM_J_MACRO)
		MZM_TRY(mzm_jrun_call_macro(r, out, callee.macro, &args));
	else if (callee.kind == MZM_J_METHOD)
		MZM_TRY(mzm_jrun_row(r, out, callee.method->row, &callee.method->self, &args));
	else if (callee.kind == MZM_J_FUNCTION)
		MZM_TRY(mzm_jrun_row(r, out, callee.function, NULL, &args));
	else
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s cannot be called", mzm_jv_kind(&callee));
	r->line = line;
	return MZM_OK;
}

mzm_status mzm_jrun_filter(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node, const mzm_jv *written)
{
	mzm_jv in = {0};
	mzm_jargs args;
	MZM_TRY(mzm_jrun_enter(r));
	if (!node->a)
		in = *written;
	else if (written)
		MZM_TRY(mzm_jrun_filter(r, &in, node->a, written));
	else
		MZM_TRY(mzm_jrun_eval(r, &in, node->a));
	MZM_TRY(eval_arguments(r, &args, node));
	MZM_TRY(mzm_jrun_row(r, out, node->row, &in, &args));
	r->level--;
	return MZM_OK;
}

static mzm_status eval_test(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	mzm_jv in;
	mzm_jargs args;
	MZM_TRY(mzm_jrun_eval(r, &in, node->a));
	MZM_TRY(eval_arguments(r, &args, node));
	return mzm_jrun_row(r, out, node->row, &in, &args);
}

/* ---- literals and operators ---- */

static mzm_status eval_kids(mzm_jrun *r, mzm_jv **out, const mzm_jnode *node)
{
	MZM_TRY(mzm_jv_room(r, out, node->n));
	for (uint32_t i = 0; i < node->n; i++)
		MZM_TRY(mzm_jrun_eval(r, &(*out)[i], node->kids[i]));
	return MZM_OK;
}

static mzm_status eval_list(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	mzm_jv *items;
	MZM_TRY(eval_kids(r, &items, node));
	return mzm_jv_list(r, out, node->kind == MZM_JN_LIST ? MZM_J_LIST : MZM_J_TUPLE, items, node->n);
}

static mzm_status eval_dict(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	mzm_jv *items, dict;
	MZM_TRY(eval_kids(r, &items, node));
	MZM_TRY(mzm_jv_dict(r, &dict, MZM_J_DICT, node->n / 2));
	for (uint32_t i = 0; i < node->n; i += 2)
		MZM_TRY(mzm_jv_put(r, dict.dict, &items[i], &items[i + 1]));
	*out = dict;
	return MZM_OK;
}

/* Whether HTML would escape something in it. */
static bool has_marks(const mzm_jv *v)
{
	static const char marks[] = {'&', '<', '>', '\'', '"'};
	for (size_t i = 0; i < sizeof marks; i++)
		if (v->len && memchr(v->s, marks[i], v->len))
			return true;
	return false;
}

static mzm_status join(mzm_jrun *r, mzm_jv *out, const mzm_jv *items, uint32_t n)
{
	bool grows = n && items[0].kind == MZM_J_STR; /* in place, if that is the last string that was made */
	mzm_jv text = grows ? items[0] : mzm_jv_str("", 0);
	text.safe = false;
	for (uint32_t i = grows; i < n; i++)
		MZM_TRY(mzm_jv_add_text(r, &text, &items[i]));
	*out = text;
	return MZM_OK;
}

/* Jinja escapes what is added to a safe string. That is refused rather than done: no template means it. */
static mzm_status add_texts(mzm_jrun *r, mzm_jv *out, const mzm_jv *items, uint32_t n)
{
	bool safe = false, marked = false;
	for (uint32_t i = 0; i < n; i++)
		safe = safe || items[i].safe;
	for (uint32_t i = 0; safe && i < n; i++)
		marked = marked || (!items[i].safe && has_marks(&items[i]));
	if (marked)
		return mzm_jrun_fail(r, MZM_EUNSUPPORTED,
				     "a safe string is joined to one that would be escaped for HTML");
	MZM_TRY(join(r, out, items, n));
	out->safe = safe;
	return MZM_OK;
}

static mzm_status eval_concat(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	mzm_jv *items;
	MZM_TRY(eval_kids(r, &items, node));
	return join(r, out, items, node->n);
}

/* a + b - c ...; strings that are all added are joined at once. */
static mzm_status eval_math(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	mzm_jv *items, sum;
	bool texts = true;
	MZM_TRY(eval_kids(r, &items, node));
	for (uint32_t i = 0; i < node->n; i++)
		texts = texts && items[i].kind == MZM_J_STR && (i == 0 || node->ops[i - 1] == '+');
	if (texts)
		return add_texts(r, out, items, node->n);
	sum = items[0];
	for (uint32_t i = 1; i < node->n; i++) {
		if (sum.kind == MZM_J_UNDEFINED || items[i].kind == MZM_J_UNDEFINED)
			return undefined_used(r, sum.kind == MZM_J_UNDEFINED ? &sum : &items[i]);
		MZM_TRY(mzm_jrun_math(r, &sum, node->ops[i - 1], &sum, &items[i]));
	}
	*out = sum;
	return MZM_OK;
}

static mzm_status eval_compare(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	mzm_jv left, right;
	bool holds = true;
	MZM_TRY(mzm_jrun_eval(r, &left, node->kids[0]));
	for (uint32_t i = 1; i < node->n && holds; i++) {
		MZM_TRY(mzm_jrun_eval(r, &right, node->kids[i]));
		MZM_TRY(mzm_jrun_compare(r, &holds, node->ops[i - 1], &left, &right));
		left = right;
	}
	*out = mzm_jv_bool(holds);
	return MZM_OK;
}

/* and, or: the value of the operand that decides. */
static mzm_status eval_logic(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	for (uint32_t i = 0; i < node->n; i++) {
		MZM_TRY(mzm_jrun_eval(r, out, node->kids[i]));
		if (mzm_jv_truth(out) == (node->kind == MZM_JN_OR))
			break;
	}
	return MZM_OK;
}

static mzm_status eval_cond(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	mzm_jv v;
	MZM_TRY(mzm_jrun_eval(r, &v, node->a));
	if (mzm_jv_truth(&v))
		return mzm_jrun_eval(r, out, node->b);
	if (node->c)
		return mzm_jrun_eval(r, out, node->c);
	*out = mzm_jv_undefined(NULL);
	return MZM_OK;
}

static mzm_status eval_sign(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	mzm_jv v, zero = mzm_jv_int(0);
	MZM_TRY(mzm_jrun_eval(r, &v, node->a));
	if (node->kind == MZM_JN_NOT) {
		*out = mzm_jv_bool(!mzm_jv_truth(&v));
		return MZM_OK;
	}
	if (!mzm_jv_is_number(&v))
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s has no sign", mzm_jv_kind(&v));
	if (v.kind == MZM_J_FLOAT) {
		*out = mzm_jv_float(node->kind == MZM_JN_NEG ? -v.f : v.f);
		return MZM_OK;
	}
	return mzm_jrun_math(r, out, node->kind == MZM_JN_NEG ? '-' : '+', &zero, &v);
}

static mzm_status eval_attr_or_item(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	mzm_jv of, key = node->value;
	MZM_TRY(mzm_jrun_eval(r, &of, node->a));
	if (node->kind == MZM_JN_ATTR)
		return mzm_jrun_attr(r, out, &of, &key);
	MZM_TRY(mzm_jrun_eval(r, &key, node->b));
	return mzm_jrun_item(r, out, &of, &key);
}

static mzm_status eval_node(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	switch (node->kind) {
	case MZM_JN_CONST:
		*out = node->value;
		return MZM_OK;
	case MZM_JN_NAME:
		return mzm_jrun_lookup(r, out, &node->value);
	case MZM_JN_LIST:
	case MZM_JN_TUPLE:
		return eval_list(r, out, node);
	case MZM_JN_DICT:
		return eval_dict(r, out, node);
	case MZM_JN_ATTR:
	case MZM_JN_ITEM:
		return eval_attr_or_item(r, out, node);
	case MZM_JN_SLICE:
		return eval_slice(r, out, node);
	case MZM_JN_CALL:
		return eval_call(r, out, node);
	case MZM_JN_FILTER:
		return mzm_jrun_filter(r, out, node, NULL);
	case MZM_JN_TEST:
		return eval_test(r, out, node);
	case MZM_JN_AND:
	case MZM_JN_OR:
		return eval_logic(r, out, node);
	case MZM_JN_COMPARE:
		return eval_compare(r, out, node);
	case MZM_JN_MATH:
		return eval_math(r, out, node);
	case MZM_JN_CONCAT:
		return eval_concat(r, out, node);
	case MZM_JN_COND:
		return eval_cond(r, out, node);
	default:
		return eval_sign(r, out, node);
	}
}

mzm_status mzm_jrun_eval(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node)
{
	mzm_jv value = {0};
	MZM_TRY(mzm_jrun_charge(r, 1));
	MZM_TRY(mzm_jrun_enter(r));
	MZM_TRY(eval_node(r, &value, node));
	r->level--;
	*out = value;
	return MZM_OK;
}
