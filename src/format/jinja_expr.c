/* jinja_expr.c - parsing of expressions, by recursive descent; precedence is Jinja's, from the loosest:
 *
 *     a if b else c    or    and    not    == != < <= > >= in    + -    ~    * / // %    **    - +    . [] () | is
 *
 * Operators of one level make one node with all their operands, so that long chains cost no depth. */
#include "format/jinja_impl.h"

static mzm_status parse_or(mzm_jparse *p, const mzm_jnode **out);

/* What stands behind an operand nests as well: n so far. */
static mzm_status check_chain(mzm_jparse *p, int32_t n)
{
	if (n < MZM_JINJA_MAX_DEPTH)
		return MZM_OK;
	return mzm_jparse_fail(p, MZM_EFORMAT, p->now.line, "nested more than %d deep", MZM_JINJA_MAX_DEPTH);
}

/* ---- primary ---- */

mzm_status mzm_jparse_const(mzm_jparse *p, const mzm_jnode **out, mzm_jv value)
{
	mzm_jnode *node;
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_CONST, p->now.line));
	node->value = value;
	*out = node;
	return MZM_OK;
}

static bool is_word(const mzm_jv *name, const char *small, const char *big)
{
	return mzm_jv_is(name, small) || mzm_jv_is(name, big);
}

static mzm_status parse_name(mzm_jparse *p, const mzm_jnode **out)
{
	static const char *const refused[] = {"varargs", "kwargs", "caller", "lipsum", "cycler", "joiner"};
	mzm_jv name = p->now.value;
	int32_t line = p->now.line;
	mzm_jnode *node;
	if (is_word(&name, "true", "True") || is_word(&name, "false", "False"))
		MZM_TRY(mzm_jparse_const(p, out, mzm_jv_bool(is_word(&name, "true", "True"))));
	else if (is_word(&name, "none", "None"))
		MZM_TRY(mzm_jparse_const(p, out, (mzm_jv){.kind = MZM_J_NONE}));
	else {
		MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_NAME, line));
		node->value = name;
		*out = node;
	}
	MZM_TRY(mzm_jparse_advance(p));
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
		if (mzm_jv_is(&name, refused[i]) && (i < 3 ? p->macros > 0 : mzm_jparse_at_op(p, '(')))
			return mzm_jparse_fail(p, MZM_EUNSUPPORTED, line, "%s is not supported", refused[i]);
	return MZM_OK;
}

/* Numbers, and strings, of which neighbours are one. */
static mzm_status parse_const(mzm_jparse *p, const mzm_jnode **out)
{
	mzm_jv value = p->now.value;
	MZM_TRY(mzm_jparse_advance(p));
	while (value.kind == MZM_J_STR && p->now.kind == MZM_JT_CONST && p->now.value.kind == MZM_J_STR) {
		char *text = mzm_jarena_text(p->mem, (size_t)value.len + p->now.value.len);
		if (!text)
			return mzm_jparse_fail(p, p->mem->over ? MZM_EFORMAT : MZM_ENOMEM, p->now.line,
					       "out of memory");
		if (value.len)
			memcpy(text, value.s, value.len);
		if (p->now.value.len)
			memcpy(text + value.len, p->now.value.s, p->now.value.len);
		value = mzm_jv_str(text, (size_t)value.len + p->now.value.len);
		MZM_TRY(mzm_jparse_advance(p));
	}
	return mzm_jparse_const(p, out, value);
}

/* [a, b] and {a: b}; the opening bracket is current. */
static mzm_status parse_display(mzm_jparse *p, const mzm_jnode **out, mzm_jnode_kind kind, char close)
{
	mzm_jnode *node;
	const mzm_jnode *kid;
	MZM_TRY(mzm_jparse_node(p, &node, kind, p->now.line));
	mzm_jmark mark = mzm_jparse_mark(p);
	MZM_TRY(mzm_jparse_advance(p));
	while (!mzm_jparse_at_op(p, close)) {
		if (p->n_stack > mark.kids) {
			MZM_TRY(mzm_jparse_op(p, ','));
			if (mzm_jparse_at_op(p, close))
				break;
		}
		MZM_TRY(mzm_jparse_expr(p, &kid));
		MZM_TRY(mzm_jparse_push(p, kid));
		if (kind == MZM_JN_DICT) {
			MZM_TRY(mzm_jparse_op(p, ':'));
			MZM_TRY(mzm_jparse_expr(p, &kid));
			MZM_TRY(mzm_jparse_push(p, kid));
		}
	}
	MZM_TRY(mzm_jparse_advance(p));
	*out = node;
	return mzm_jparse_take(p, mark, node);
}

static bool at_tuple_end(const mzm_jparse *p, const char *until)
{
	return p->now.kind == MZM_JT_CLOSE || mzm_jparse_at_op(p, ')') || (until && mzm_jparse_at_name(p, until));
}

static mzm_status parse_items(mzm_jparse *p, const mzm_jnode **out, bool with_cond, const char *until,
			      bool may_be_empty)
{
	mzm_jnode *node;
	bool tuple = false;
	int32_t line = p->now.line;
	mzm_jmark mark = mzm_jparse_mark(p);
	while (!at_tuple_end(p, until)) {
		MZM_TRY(with_cond ? mzm_jparse_expr(p, out) : parse_or(p, out));
		MZM_TRY(mzm_jparse_push(p, *out));
		if (!mzm_jparse_at_op(p, ','))
			break;
		MZM_TRY(mzm_jparse_advance(p));
		tuple = true;
	}
	if (!tuple && p->n_stack > mark.kids) {
		p->n_stack = mark.kids;
		return MZM_OK;
	}
	if (!tuple && !may_be_empty)
		return mzm_jparse_unexpected(p, "an expression");
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_TUPLE, line));
	*out = node;
	return mzm_jparse_take(p, mark, node);
}

mzm_status mzm_jparse_tuple(mzm_jparse *p, const mzm_jnode **out, bool with_cond, const char *until)
{
	return parse_items(p, out, with_cond, until, false);
}

mzm_status mzm_jparse_primary(mzm_jparse *p, const mzm_jnode **out)
{
	if (p->now.kind == MZM_JT_NAME)
		return parse_name(p, out);
	if (p->now.kind == MZM_JT_CONST)
		return parse_const(p, out);
	if (mzm_jparse_at_op(p, '['))
		return parse_display(p, out, MZM_JN_LIST, ']');
	if (mzm_jparse_at_op(p, '{'))
		return parse_display(p, out, MZM_JN_DICT, '}');
	if (!mzm_jparse_at_op(p, '('))
		return mzm_jparse_unexpected(p, "an expression");
	MZM_TRY(mzm_jparse_advance(p));
	MZM_TRY(parse_items(p, out, true, NULL, true));
	return mzm_jparse_op(p, ')');
}

/* ---- what stands behind ---- */

static mzm_status parse_argument(mzm_jparse *p, bool *named)
{
	const mzm_jnode *kid;
	const mzm_jtoken *ahead;
	if (mzm_jparse_at_op(p, '*') || mzm_jparse_at_op(p, MZM_JOP_POW))
		return mzm_jparse_fail(p, MZM_EUNSUPPORTED, p->now.line, "arguments with * are not supported");
	if (p->now.kind == MZM_JT_NAME) {
		MZM_TRY(mzm_jparse_peek(p, &ahead));
		if (ahead->kind == MZM_JT_OP && ahead->op == '=') {
			*named = true;
			MZM_TRY(mzm_jparse_const(p, &kid, p->now.value));
			MZM_TRY(mzm_jparse_push(p, kid));
			MZM_TRY(mzm_jparse_advance(p));
			MZM_TRY(mzm_jparse_advance(p));
			MZM_TRY(mzm_jparse_expr(p, &kid));
			return mzm_jparse_push(p, kid);
		}
	}
	if (*named)
		return mzm_jparse_fail(p, MZM_EFORMAT, p->now.line,
				       "an argument without a name follows one with a name");
	MZM_TRY(mzm_jparse_expr(p, &kid));
	return mzm_jparse_push(p, kid);
}

/* (a, b, c=d), the bracket is current. */
static mzm_status parse_arguments(mzm_jparse *p, mzm_jnode *node)
{
	bool named = false;
	mzm_jmark mark = mzm_jparse_mark(p);
	MZM_TRY(mzm_jparse_op(p, '('));
	while (!mzm_jparse_at_op(p, ')')) {
		if (p->n_stack > mark.kids) {
			MZM_TRY(mzm_jparse_op(p, ','));
			if (mzm_jparse_at_op(p, ')'))
				break;
		}
		MZM_TRY(parse_argument(p, &named));
		if (!named)
			node->n_pos++;
	}
	MZM_TRY(mzm_jparse_advance(p));
	return mzm_jparse_take(p, mark, node);
}

static mzm_status parse_call(mzm_jparse *p, const mzm_jnode **node)
{
	mzm_jnode *call;
	MZM_TRY(mzm_jparse_node(p, &call, MZM_JN_CALL, p->now.line));
	call->a = *node;
	*node = call;
	return parse_arguments(p, call);
}

static mzm_status parse_slice_part(mzm_jparse *p, const mzm_jnode **out)
{
	*out = NULL;
	if (mzm_jparse_at_op(p, ':') || mzm_jparse_at_op(p, ']'))
		return MZM_OK;
	return mzm_jparse_expr(p, out);
}

/* [key], [from:to], [from:to:step] */
static mzm_status parse_subscript(mzm_jparse *p, const mzm_jnode **node)
{
	mzm_jnode *item;
	MZM_TRY(mzm_jparse_node(p, &item, MZM_JN_ITEM, p->now.line));
	item->a = *node;
	*node = item;
	MZM_TRY(mzm_jparse_advance(p));
	MZM_TRY(parse_slice_part(p, &item->b));
	if (mzm_jparse_at_op(p, ':')) {
		item->kind = MZM_JN_SLICE;
		MZM_TRY(mzm_jparse_advance(p));
		MZM_TRY(parse_slice_part(p, &item->c));
		if (mzm_jparse_at_op(p, ':')) {
			MZM_TRY(mzm_jparse_advance(p));
			MZM_TRY(parse_slice_part(p, &item->d));
		}
	} else if (!item->b) {
		return mzm_jparse_unexpected(p, "an index");
	}
	if (mzm_jparse_at_op(p, ','))
		return mzm_jparse_fail(p, MZM_EUNSUPPORTED, p->now.line, "an index of several parts is not supported");
	return mzm_jparse_op(p, ']');
}

/* .name, and .0 for [0] */
static mzm_status parse_attr(mzm_jparse *p, const mzm_jnode **node)
{
	mzm_jnode *attr;
	MZM_TRY(mzm_jparse_node(p, &attr, MZM_JN_ATTR, p->now.line));
	attr->a = *node;
	*node = attr;
	MZM_TRY(mzm_jparse_advance(p));
	if (p->now.kind == MZM_JT_CONST && p->now.value.kind == MZM_J_INT) {
		attr->kind = MZM_JN_ITEM;
		MZM_TRY(mzm_jparse_const(p, &attr->b, p->now.value));
		return mzm_jparse_advance(p);
	}
	return mzm_jparse_name(p, &attr->value);
}

static mzm_status find_row(mzm_jparse *p, mzm_jnode *node, const char *what)
{
	mzm_jv name;
	int32_t line = p->now.line;
	MZM_TRY(mzm_jparse_name(p, &name));
	node->row = node->kind == MZM_JN_FILTER ? mzm_jinja_filter(&name) : mzm_jinja_test(&name);
	if (!node->row)
		return mzm_jparse_fail(p, MZM_EUNSUPPORTED, line, "the %s %.*s is not supported", what,
				       name.len < 60 ? (int)name.len : 60, name.s);
	return MZM_OK;
}

static mzm_status parse_filter(mzm_jparse *p, const mzm_jnode **node)
{
	mzm_jnode *filter;
	MZM_TRY(mzm_jparse_node(p, &filter, MZM_JN_FILTER, p->now.line));
	MZM_TRY(find_row(p, filter, "filter"));
	filter->a = *node;
	*node = filter;
	return mzm_jparse_at_op(p, '(') ? parse_arguments(p, filter) : MZM_OK;
}

static mzm_status parse_postfix(mzm_jparse *p, const mzm_jnode **node, int32_t *n)
{
	for (; p->now.kind == MZM_JT_OP; ++*n) {
		MZM_TRY(check_chain(p, *n));
		if (p->now.op == '.')
			MZM_TRY(parse_attr(p, node));
		else if (p->now.op == '[')
			MZM_TRY(parse_subscript(p, node));
		else if (p->now.op == '(')
			MZM_TRY(parse_call(p, node));
		else
			break;
	}
	return MZM_OK;
}

/* An argument of a test may stand without brackets: x is divisibleby 3. */
static bool at_bare_argument(const mzm_jparse *p)
{
	if (p->now.kind == MZM_JT_NAME)
		return !mzm_jparse_at_name(p, "else") && !mzm_jparse_at_name(p, "or") && !mzm_jparse_at_name(p, "and");
	return p->now.kind == MZM_JT_CONST || mzm_jparse_at_op(p, '[') || mzm_jparse_at_op(p, '{');
}

static mzm_status parse_bare_argument(mzm_jparse *p, mzm_jnode *test)
{
	const mzm_jnode *kid;
	int32_t n = 0;
	if (mzm_jparse_at_name(p, "is"))
		return mzm_jparse_fail(p, MZM_EFORMAT, p->now.line, "tests cannot follow each other");
	mzm_jmark mark = mzm_jparse_mark(p);
	MZM_TRY(mzm_jparse_primary(p, &kid));
	MZM_TRY(parse_postfix(p, &kid, &n));
	MZM_TRY(mzm_jparse_push(p, kid));
	test->n_pos = 1;
	return mzm_jparse_take(p, mark, test);
}

static mzm_status parse_test(mzm_jparse *p, const mzm_jnode **node)
{
	mzm_jnode *test, *negated;
	MZM_TRY(mzm_jparse_node(p, &test, MZM_JN_TEST, p->now.line));
	test->a = *node;
	*node = test;
	MZM_TRY(mzm_jparse_advance(p));
	if (mzm_jparse_at_name(p, "not")) {
		MZM_TRY(mzm_jparse_advance(p));
		MZM_TRY(mzm_jparse_node(p, &negated, MZM_JN_NOT, test->line));
		negated->a = test;
		*node = negated;
	}
	MZM_TRY(find_row(p, test, "test"));
	if (mzm_jparse_at_op(p, '('))
		return parse_arguments(p, test);
	return at_bare_argument(p) ? parse_bare_argument(p, test) : MZM_OK;
}

mzm_status mzm_jparse_filters(mzm_jparse *p, const mzm_jnode **node, bool bare)
{
	for (int32_t n = 0; bare || mzm_jparse_at_op(p, '|'); n++, bare = false) {
		MZM_TRY(check_chain(p, n));
		if (!bare)
			MZM_TRY(mzm_jparse_advance(p));
		MZM_TRY(parse_filter(p, node));
	}
	return MZM_OK;
}

/* Filters, tests and calls behind an operand. n: what stands behind it already. */
static mzm_status parse_behind(mzm_jparse *p, const mzm_jnode **node, int32_t n)
{
	for (;; n++) {
		bool filter = mzm_jparse_at_op(p, '|'), test = mzm_jparse_at_name(p, "is");
		if (!filter && !test && !mzm_jparse_at_op(p, '('))
			return MZM_OK;
		MZM_TRY(check_chain(p, n));
		if (filter)
			MZM_TRY(mzm_jparse_advance(p));
		MZM_TRY(filter ? parse_filter(p, node) : test ? parse_test(p, node) : parse_call(p, node));
	}
}

/* ---- operators ---- */

/* A sign binds closer than a filter, and looser than what is called or indexed. */
static mzm_status parse_unary(mzm_jparse *p, const mzm_jnode **out, bool with_filter)
{
	int32_t n = 0;
	MZM_TRY(mzm_jparse_enter(p));
	if (mzm_jparse_at_op(p, '-') || mzm_jparse_at_op(p, '+')) {
		mzm_jnode *node;
		MZM_TRY(mzm_jparse_node(p, &node, p->now.op == '-' ? MZM_JN_NEG : MZM_JN_POS, p->now.line));
		MZM_TRY(mzm_jparse_advance(p));
		MZM_TRY(parse_unary(p, &node->a, false));
		*out = node;
	} else {
		MZM_TRY(mzm_jparse_primary(p, out));
	}
	MZM_TRY(parse_postfix(p, out, &n));
	if (with_filter)
		MZM_TRY(parse_behind(p, out, n));
	p->depth--;
	return MZM_OK;
}

/* The binary operators, loosest first. */
static const struct {
	mzm_jnode_kind kind;
	char           ops[8];
} levels[] = {
	{MZM_JN_MATH, "+-"},
	{MZM_JN_CONCAT, "~"},
	{MZM_JN_MATH, {'*', '/', '%', MZM_JOP_FLOOR, 0}},
	{MZM_JN_MATH, {MZM_JOP_POW, 0}},
};

static mzm_status parse_level(mzm_jparse *p, const mzm_jnode **out, size_t level)
{
	mzm_jnode *node = NULL;
	if (level == sizeof levels / sizeof *levels)
		return parse_unary(p, out, true);
	MZM_TRY(parse_level(p, out, level + 1));
	if (p->now.kind != MZM_JT_OP || !strchr(levels[level].ops, p->now.op))
		return MZM_OK;
	MZM_TRY(mzm_jparse_node(p, &node, levels[level].kind, p->now.line));
	mzm_jmark mark = mzm_jparse_mark(p);
	MZM_TRY(mzm_jparse_push(p, *out));
	while (p->now.kind == MZM_JT_OP && strchr(levels[level].ops, p->now.op)) {
		mzm_str_add(&p->ops, &p->now.op, 1);
		MZM_TRY(mzm_jparse_advance(p));
		MZM_TRY(parse_level(p, out, level + 1));
		MZM_TRY(mzm_jparse_push(p, *out));
	}
	*out = node;
	return mzm_jparse_take(p, mark, node);
}

/* The comparison here, or 0; *words: how many tokens it takes. */
static mzm_status comparison(mzm_jparse *p, char *op, int *words)
{
	static const char ops[] = {MZM_JOP_EQ, MZM_JOP_NE, MZM_JOP_GE, MZM_JOP_LE, '<', '>', 0};
	const mzm_jtoken *ahead;
	*op = 0;
	*words = 1;
	if (p->now.kind == MZM_JT_OP && strchr(ops, p->now.op)) {
		*op = p->now.op;
	} else if (mzm_jparse_at_name(p, "in")) {
		*op = MZM_JOP_IN;
	} else if (mzm_jparse_at_name(p, "not")) {
		MZM_TRY(mzm_jparse_peek(p, &ahead));
		if (ahead->kind == MZM_JT_NAME && mzm_jv_is(&ahead->value, "in")) {
			*op = MZM_JOP_NOT_IN;
			*words = 2;
		}
	}
	return MZM_OK;
}

static mzm_status parse_compare(mzm_jparse *p, const mzm_jnode **out)
{
	mzm_jnode *node;
	char op;
	int words;
	MZM_TRY(parse_level(p, out, 0));
	MZM_TRY(comparison(p, &op, &words));
	if (!op)
		return MZM_OK;
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_COMPARE, p->now.line));
	mzm_jmark mark = mzm_jparse_mark(p);
	MZM_TRY(mzm_jparse_push(p, *out));
	while (op) {
		mzm_str_add(&p->ops, &op, 1);
		while (words-- > 0)
			MZM_TRY(mzm_jparse_advance(p));
		MZM_TRY(parse_level(p, out, 0));
		MZM_TRY(mzm_jparse_push(p, *out));
		MZM_TRY(comparison(p, &op, &words));
	}
	*out = node;
	return mzm_jparse_take(p, mark, node);
}

static mzm_status parse_not(mzm_jparse *p, const mzm_jnode **out)
{
	mzm_jnode *node;
	if (!mzm_jparse_at_name(p, "not"))
		return parse_compare(p, out);
	MZM_TRY(mzm_jparse_enter(p));
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_NOT, p->now.line));
	MZM_TRY(mzm_jparse_advance(p));
	MZM_TRY(parse_not(p, &node->a));
	*out = node;
	p->depth--;
	return MZM_OK;
}

static mzm_status parse_words(mzm_jparse *p, const mzm_jnode **out, mzm_jnode_kind kind, const char *word,
			      mzm_status (*operand)(mzm_jparse *, const mzm_jnode **))
{
	mzm_jnode *node;
	MZM_TRY(operand(p, out));
	if (!mzm_jparse_at_name(p, word))
		return MZM_OK;
	MZM_TRY(mzm_jparse_node(p, &node, kind, p->now.line));
	mzm_jmark mark = mzm_jparse_mark(p);
	MZM_TRY(mzm_jparse_push(p, *out));
	while (mzm_jparse_at_name(p, word)) {
		MZM_TRY(mzm_jparse_advance(p));
		MZM_TRY(operand(p, out));
		MZM_TRY(mzm_jparse_push(p, *out));
	}
	*out = node;
	return mzm_jparse_take(p, mark, node);
}

static mzm_status parse_and(mzm_jparse *p, const mzm_jnode **out)
{
	return parse_words(p, out, MZM_JN_AND, "and", parse_not);
}

static mzm_status parse_or(mzm_jparse *p, const mzm_jnode **out)
{
	return parse_words(p, out, MZM_JN_OR, "or", parse_and);
}

mzm_status mzm_jparse_expr(mzm_jparse *p, const mzm_jnode **out)
{
	mzm_jnode *node;
	MZM_TRY(mzm_jparse_enter(p));
	MZM_TRY(parse_or(p, out));
	for (int32_t n = 0; mzm_jparse_at_name(p, "if"); n++) {
		MZM_TRY(check_chain(p, n));
		MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_COND, p->now.line));
		MZM_TRY(mzm_jparse_advance(p));
		node->b = *out;
		MZM_TRY(parse_or(p, &node->a));
		if (mzm_jparse_at_name(p, "else")) {
			MZM_TRY(mzm_jparse_advance(p));
			MZM_TRY(mzm_jparse_expr(p, &node->c));
		}
		*out = node;
	}
	p->depth--;
	return MZM_OK;
}
