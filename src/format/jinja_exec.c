/* jinja_exec.c - a rendering: its bounds, scopes, statements and macros.
 *
 * Scopes are Jinja's: a loop's turn, a macro, a block that is captured each have their own, if has none, and what is
 * set in a scope is gone with it; only a namespace carries values out. A scope outlives its block while a macro knows
 * it, so scopes stay in the arena until the end. What blocks write goes into one output; a block whose text is wanted
 * as a value takes its part of the output back. */
#include "format/jinja_impl.h"

#include <stdarg.h>
#include <stdio.h>

struct mzm_jbinding {
	mzm_jbinding *next;
	mzm_jv        name, value;
};

static mzm_status run_block(mzm_jrun *r, const mzm_jnode *block);

/* ---- bounds ---- */

mzm_status mzm_jrun_fail(mzm_jrun *r, mzm_status code, const char *fmt, ...)
{
	char text[400];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return mzm_fail(r->err, code, "line %d: %s", r->line, text);
}

mzm_status mzm_jrun_over(mzm_jrun *r)
{
	return mzm_jrun_fail(r, MZM_EFORMAT, "the rendering takes more than %zu MiB", MZM_JINJA_MAX_BYTES >> 20);
}

mzm_status mzm_jrun_full(mzm_jrun *r)
{
	return r->mem.over || r->text.over ? mzm_jrun_over(r) : mzm_jrun_fail(r, MZM_ENOMEM, "out of memory");
}

mzm_status mzm_jrun_charge(mzm_jrun *r, size_t steps)
{
	r->steps += steps;
	if (r->steps > MZM_JINJA_MAX_STEPS)
		return mzm_jrun_fail(r, MZM_EFORMAT, "the rendering takes more than %d steps", MZM_JINJA_MAX_STEPS);
	return MZM_OK;
}

mzm_status mzm_jrun_charge_bytes(mzm_jrun *r, size_t n)
{
	return mzm_jrun_charge(r, n / MZM_J_STEP_BYTES);
}

mzm_status mzm_jrun_enter(mzm_jrun *r)
{
	if (++r->level > MZM_J_MAX_LEVELS)
		return mzm_jrun_fail(r, MZM_EFORMAT, "nested more than %d deep", MZM_J_MAX_LEVELS);
	return MZM_OK;
}

/* ---- output ---- */

mzm_status mzm_jrun_write(mzm_jrun *r, const char *s, size_t n)
{
	MZM_TRY(mzm_jrun_charge_bytes(r, n));
	if (n > MZM_JINJA_MAX_BYTES - r->taken)
		return mzm_jrun_over(r);
	r->taken += n;
	mzm_str_add(&r->out, s, n);
	return r->out.failed ? mzm_jrun_full(r) : MZM_OK;
}

mzm_status mzm_jrun_captured(mzm_jrun *r, size_t since, mzm_jv *out)
{
	size_t n = r->out.len - since;
	char *copy = mzm_jrun_text(r, n);
	if (!copy)
		return mzm_jrun_full(r);
	if (n)
		memcpy(copy, r->out.data + since, n);
	*out = mzm_jv_str(copy, n);
	r->out.len = since;
	r->taken -= n;
	return mzm_jrun_charge_bytes(r, n);
}

static mzm_status print_value(mzm_jrun *r, const mzm_jv *v)
{
	mzm_jv text;
	MZM_TRY(mzm_jv_text(r, &text, v));
	return mzm_jrun_write(r, text.s, text.len);
}

/* ---- scopes ---- */

static mzm_status open_scope(mzm_jrun *r, mzm_jscope *parent)
{
	mzm_jscope *scope = mzm_jarena_take(&r->mem, 1, sizeof *scope);
	if (!scope)
		return mzm_jrun_full(r);
	scope->parent = parent;
	r->scope = scope;
	return MZM_OK;
}

/* The binding of the name in this scope alone, or NULL. */
static mzm_status find_in(mzm_jrun *r, mzm_jbinding **out, const mzm_jscope *scope, const mzm_jv *name)
{
	size_t walked = 0;
	mzm_jbinding *b = scope->first;
	for (; b && !mzm_jv_same_text(&b->name, name); b = b->next)
		walked++;
	*out = b;
	return mzm_jrun_charge(r, walked / 8);
}

static mzm_status bind(mzm_jrun *r, mzm_jscope *scope, const mzm_jv *name, const mzm_jv *value)
{
	mzm_jbinding *b;
	MZM_TRY(find_in(r, &b, scope, name));
	if (!b) {
		b = mzm_jarena_take(&r->mem, 1, sizeof *b);
		if (!b)
			return mzm_jrun_full(r);
		b->name = *name;
		b->next = scope->first;
		scope->first = b;
	}
	b->value = *value;
	return MZM_OK;
}

/* A variable of the caller becomes a value when it is first asked for, in the outermost scope. */
static mzm_status from_outside(mzm_jrun *r, mzm_jv *out, const mzm_jv *name, mzm_jscope *outermost)
{
	char key[128];
	const mzm_jrow *global = mzm_jinja_global(name);
	const json_t *j = NULL;
	if (name->len < sizeof key) {
		memcpy(key, name->s, name->len);
		key[name->len] = 0;
		j = json_object_get(r->variables, key);
	}
	*out = mzm_jv_undefined(name);
	if (j && json_is_string(j) && mzm_jv_is(name, "strftime_now"))
		*out = (mzm_jv){.kind = MZM_J_FUNCTION, .function = &mzm_jinja_strftime};
	else if (j)
		MZM_TRY(mzm_jv_from_json(r, out, j));
	else if (global)
		*out = (mzm_jv){.kind = MZM_J_FUNCTION, .function = global};
	return j ? bind(r, outermost, name, out) : MZM_OK;
}

mzm_status mzm_jrun_lookup(mzm_jrun *r, mzm_jv *out, const mzm_jv *name)
{
	mzm_jscope *scope = r->scope;
	for (size_t walked = 1;; walked++, scope = scope->parent) {
		mzm_jbinding *b;
		MZM_TRY(mzm_jrun_charge(r, walked % 8 == 0));
		MZM_TRY(find_in(r, &b, scope, name));
		if (b) {
			*out = b->value;
			return MZM_OK;
		}
		if (!scope->parent)
			return from_outside(r, out, name, scope);
	}
}

/* ---- statements ---- */

static mzm_status run_if(mzm_jrun *r, const mzm_jnode *node)
{
	for (uint32_t i = 0; i < node->n; i += 2) {
		mzm_jv v;
		MZM_TRY(mzm_jrun_eval(r, &v, node->kids[i]));
		if (mzm_jv_truth(&v))
			return run_block(r, node->kids[i + 1]);
	}
	return node->a ? run_block(r, node->a) : MZM_OK;
}

static mzm_status assign(mzm_jrun *r, const mzm_jnode *target, const mzm_jv *value)
{
	if (target->kind == MZM_JN_NAME)
		return bind(r, r->scope, &target->value, value);
	mzm_jv space;
	MZM_TRY(mzm_jrun_lookup(r, &space, &target->a->value));
	if (space.kind != MZM_J_NAMESPACE)
		return mzm_jrun_fail(r, MZM_EFORMAT, "only a namespace's attributes can be set, not those of %s",
				     mzm_jv_kind(&space));
	return mzm_jv_put(r, space.dict, &target->value, value);
}

static mzm_status assign_all(mzm_jrun *r, const mzm_jnode *node, const mzm_jv *value)
{
	if (!node->unpack)
		return assign(r, node->kids[0], value);
	mzm_jlist items;
	if (value->kind == MZM_J_UNDEFINED)
		return mzm_jrun_fail(r, MZM_EFORMAT, "%.*s is undefined", (int)value->len, value->s);
	MZM_TRY(mzm_jv_items(r, &items, value));
	if (items.n != node->n)
		return mzm_jrun_fail(r, MZM_EFORMAT, "%u values for %u names", items.n, node->n);
	for (uint32_t i = 0; i < node->n; i++)
		MZM_TRY(assign(r, node->kids[i], &items.items[i]));
	return MZM_OK;
}

static mzm_status run_set(mzm_jrun *r, const mzm_jnode *node)
{
	mzm_jv v;
	MZM_TRY(mzm_jrun_eval(r, &v, node->a));
	return assign_all(r, node, &v);
}

/* What the block writes, in a scope of its own, through the filters. */
static mzm_status capture(mzm_jrun *r, mzm_jv *out, const mzm_jnode *block, const mzm_jnode *filters)
{
	mzm_jscope *outer = r->scope;
	size_t since = r->out.len;
	mzm_jv text;
	MZM_TRY(open_scope(r, outer));
	MZM_TRY(run_block(r, block));
	MZM_TRY(mzm_jrun_captured(r, since, &text));
	r->scope = outer;
	*out = text;
	return filters ? mzm_jrun_filter(r, out, filters, &text) : MZM_OK;
}

static mzm_status run_with(mzm_jrun *r, const mzm_jnode *node)
{
	mzm_jscope *outer = r->scope, *inner;
	MZM_TRY(open_scope(r, outer));
	inner = r->scope;
	for (uint32_t i = 0; i < node->n; i += 2) { /* the values see the scope outside */
		mzm_jv v;
		r->scope = outer;
		MZM_TRY(mzm_jrun_eval(r, &v, node->kids[i + 1]));
		MZM_TRY(bind(r, inner, &node->kids[i]->value, &v));
	}
	r->scope = inner;
	MZM_TRY(run_block(r, node->a));
	r->scope = outer;
	return MZM_OK;
}

/* ---- loops ---- */

static mzm_status filter_items(mzm_jrun *r, mzm_jlist *items, const mzm_jnode *node)
{
	mzm_jscope *outer = r->scope;
	mzm_jv *kept;
	uint32_t n = 0;
	MZM_TRY(mzm_jv_room(r, &kept, items->n));
	for (uint32_t i = 0; i < items->n; i++) {
		mzm_jv v;
		MZM_TRY(open_scope(r, outer));
		MZM_TRY(assign_all(r, node, &items->items[i]));
		MZM_TRY(mzm_jrun_eval(r, &v, node->b));
		if (mzm_jv_truth(&v))
			kept[n++] = items->items[i];
	}
	r->scope = outer;
	*items = (mzm_jlist){.items = kept, .n = n};
	return MZM_OK;
}

/* *whole: a turn came to its end. Jinja runs the else of a loop whose turns were all cut short, too. */
static mzm_status run_turns(mzm_jrun *r, bool *whole, const mzm_jnode *node, mzm_jloop *loop)
{
	mzm_jscope *outer = r->scope;
	mzm_jv name = mzm_jv_str("loop", 4), value = {.kind = MZM_J_LOOP, .loop = loop};
	for (; loop->at < loop->n; loop->at++) {
		MZM_TRY(mzm_jrun_charge(r, 1));
		MZM_TRY(open_scope(r, outer));
		MZM_TRY(bind(r, r->scope, &name, &value));
		MZM_TRY(assign_all(r, node, &loop->items[loop->at]));
		MZM_TRY(run_block(r, node->c));
		mzm_jflow flow = r->flow;
		r->flow = MZM_JF_ON;
		*whole = *whole || flow == MZM_JF_ON;
		if (flow == MZM_JF_BREAK)
			break;
	}
	r->scope = outer;
	return MZM_OK;
}

static mzm_status run_for(mzm_jrun *r, const mzm_jnode *node)
{
	mzm_jv over;
	mzm_jlist items;
	bool whole = false;
	MZM_TRY(mzm_jrun_eval(r, &over, node->a));
	MZM_TRY(mzm_jv_items(r, &items, &over));
	if (node->b)
		MZM_TRY(filter_items(r, &items, node));
	mzm_jloop *loop = mzm_jarena_take(&r->mem, 1, sizeof *loop);
	if (!loop)
		return mzm_jrun_full(r);
	*loop = (mzm_jloop){.items = items.items, .n = items.n};
	MZM_TRY(run_turns(r, &whole, node, loop));
	return node->d && !whole ? run_block(r, node->d) : MZM_OK;
}

/* ---- macros ---- */

static mzm_status define_macro(mzm_jrun *r, const mzm_jnode *node)
{
	mzm_jmacro *macro = mzm_jarena_take(&r->mem, 1, sizeof *macro);
	if (!macro)
		return mzm_jrun_full(r);
	macro->node = node;
	macro->scope = r->scope;
	mzm_jv v = {.kind = MZM_J_MACRO, .macro = macro};
	return bind(r, r->scope, &node->value, &v);
}

static mzm_status check_names(mzm_jrun *r, const mzm_jnode *node, const mzm_jargs *args)
{
	if (args->n_pos > node->n / 2)
		return mzm_jrun_fail(r, MZM_EFORMAT, "macro %.*s takes %u arguments, not %u", (int)node->value.len,
				     node->value.s, node->n / 2, args->n_pos);
	for (uint32_t i = 0; i < args->n_named; i++) {
		uint32_t k = 0;
		while (k < node->n && !mzm_jv_same_text(&node->kids[k]->value, &args->names[i]))
			k += 2;
		if (k / 2 < args->n_pos || k >= node->n)
			return mzm_jrun_fail(r, MZM_EFORMAT, "macro %.*s: argument %.*s is given twice, or not known",
					     (int)node->value.len, node->value.s, (int)args->names[i].len,
					     args->names[i].s);
	}
	return MZM_OK;
}

static mzm_status bind_parameter(mzm_jrun *r, const mzm_jnode *node, uint32_t i, const mzm_jargs *args)
{
	const mzm_jv *name = &node->kids[2 * i]->value;
	mzm_jv v = mzm_jv_undefined(name);
	const mzm_jv *given = i < args->n_pos ? &args->pos[i] : NULL;
	for (uint32_t k = 0; !given && k < args->n_named; k++)
		if (mzm_jv_same_text(name, &args->names[k]))
			given = &args->named[k];
	if (!given && node->kids[2 * i + 1]) {
		MZM_TRY(mzm_jrun_eval(r, &v, node->kids[2 * i + 1]));
		given = &v;
	}
	return bind(r, r->scope, name, given ? given : &v);
}

mzm_status mzm_jrun_call_macro(mzm_jrun *r, mzm_jv *out, const mzm_jmacro *macro, const mzm_jargs *args)
{
	const mzm_jnode *node = macro->node;
	mzm_jscope *outer = r->scope;
	size_t since = r->out.len;
	MZM_TRY(mzm_jrun_enter(r));
	MZM_TRY(check_names(r, node, args));
	MZM_TRY(open_scope(r, macro->scope));
	for (uint32_t i = 0; i < node->n / 2; i++)
		MZM_TRY(bind_parameter(r, node, i, args));
	MZM_TRY(run_block(r, node->a));
	MZM_TRY(mzm_jrun_captured(r, since, out));
	r->scope = outer;
	r->level--;
	return MZM_OK;
}

/* ---- blocks ---- */

static mzm_status run_node(mzm_jrun *r, const mzm_jnode *node)
{
	mzm_jv v;
	switch (node->kind) {
	case MZM_JN_TEXT:
		return mzm_jrun_write(r, node->value.s, node->value.len);
	case MZM_JN_IF:
		return run_if(r, node);
	case MZM_JN_FOR:
		return run_for(r, node);
	case MZM_JN_SET:
		return run_set(r, node);
	case MZM_JN_SET_BLOCK:
		MZM_TRY(capture(r, &v, node->a, node->b));
		return assign(r, node->kids[0], &v);
	case MZM_JN_MACRO:
		return define_macro(r, node);
	case MZM_JN_FILTERED:
		MZM_TRY(capture(r, &v, node->a, node->b));
		return print_value(r, &v);
	case MZM_JN_WITH:
		return run_with(r, node);
	case MZM_JN_BREAK:
	case MZM_JN_CONTINUE:
		r->flow = node->kind == MZM_JN_BREAK ? MZM_JF_BREAK : MZM_JF_CONTINUE;
		return MZM_OK;
	default:
		MZM_TRY(mzm_jrun_eval(r, &v, node));
		return print_value(r, &v);
	}
}

static mzm_status run_block(mzm_jrun *r, const mzm_jnode *block)
{
	MZM_TRY(mzm_jrun_enter(r));
	for (uint32_t i = 0; i < block->n && r->flow == MZM_JF_ON; i++) {
		MZM_TRY(mzm_jrun_charge(r, 1));
		r->line = block->kids[i]->line;
		MZM_TRY(run_node(r, block->kids[i]));
	}
	r->level--;
	return MZM_OK;
}

mzm_status mzm_jinja_render(const mzm_jinja *t, const json_t *variables, char **text, size_t *len, mzm_err *err)
{
	mzm_err own = {0};
	mzm_jrun r = {.variables = variables, .line = 1, .err = err ? err : &own};
	mzm_status st;
	*text = NULL;
	if (!json_is_object(variables))
		return mzm_fail(err, MZM_EARG, "the variables of a template are an object");
	r.mem.taken = r.text.taken = &r.taken;
	MZM_TRY_OUT(open_scope(&r, NULL));
	MZM_TRY_OUT(run_block(&r, t->body));
	mzm_str_add(&r.out, "", 0);
	if (r.out.failed)
		MZM_TRY_OUT(mzm_jrun_full(&r));
	*text = r.out.data;
	if (len)
		*len = r.out.len;
	r.out = (mzm_str){0};
out:
	mzm_jarena_free(&r.mem);
	mzm_jarena_free(&r.text);
	mzm_str_free(&r.out);
	return st;
}
