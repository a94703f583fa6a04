/* jinja_parse.c - parsing of templates: the token stream with one token of foresight, nodes, statements.
 *
 * A node's children gather on a stack until the node is whole and then move into the template's arena. What the engine
 * lacks is refused here, by name, with its line. */
#include "format/jinja_impl.h"

#include <stdarg.h>
#include <stdio.h>

#include "format/tokenizer_utf8.h"

static mzm_status parse_block(mzm_jparse *p, const mzm_jnode **out, const char *const *ends);

/* ---- tokens ---- */

mzm_status mzm_jparse_fail(mzm_jparse *p, mzm_status code, int32_t line, const char *fmt, ...)
{
	char text[200];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return mzm_fail(p->err, code, "line %d: %s", line, text);
}

mzm_status mzm_jparse_unexpected(mzm_jparse *p, const char *wanted)
{
	const mzm_jtoken *t = &p->now;
	static const char *const kinds[] = {
		[MZM_JT_END] = "the end of the template", [MZM_JT_TEXT] = "text",    [MZM_JT_PRINT] = "{{",
		[MZM_JT_BLOCK] = "{%",                    [MZM_JT_CLOSE] = "the end of the tag",
		[MZM_JT_CONST] = "a constant",
	};
	if (t->kind == MZM_JT_NAME)
		return mzm_jparse_fail(p, MZM_EFORMAT, t->line, "%s was expected, not %.*s", wanted,
				       t->value.len < 60 ? (int)t->value.len : 60, t->value.s);
	if (t->kind == MZM_JT_OP)
		return mzm_jparse_fail(p, MZM_EFORMAT, t->line, "%s was expected, not an operator or bracket", wanted);
	return mzm_jparse_fail(p, MZM_EFORMAT, t->line, "%s was expected, not %s", wanted, kinds[t->kind]);
}

mzm_status mzm_jparse_advance(mzm_jparse *p)
{
	if (p->has_ahead) {
		p->now = p->ahead;
		p->has_ahead = false;
		return MZM_OK;
	}
	return mzm_jlex_next(&p->lex, &p->now);
}

mzm_status mzm_jparse_peek(mzm_jparse *p, const mzm_jtoken **out)
{
	if (!p->has_ahead)
		MZM_TRY(mzm_jlex_next(&p->lex, &p->ahead));
	p->has_ahead = true;
	*out = &p->ahead;
	return MZM_OK;
}

bool mzm_jparse_at_op(const mzm_jparse *p, char op)
{
	return p->now.kind == MZM_JT_OP && p->now.op == op;
}

bool mzm_jparse_at_name(const mzm_jparse *p, const char *name)
{
	return p->now.kind == MZM_JT_NAME && mzm_jv_is(&p->now.value, name);
}

mzm_status mzm_jparse_op(mzm_jparse *p, char op)
{
	char wanted[] = {op, 0};
	return mzm_jparse_at_op(p, op) ? mzm_jparse_advance(p) : mzm_jparse_unexpected(p, wanted);
}

mzm_status mzm_jparse_name(mzm_jparse *p, mzm_jv *name)
{
	if (p->now.kind != MZM_JT_NAME)
		return mzm_jparse_unexpected(p, "a name");
	*name = p->now.value;
	return mzm_jparse_advance(p);
}

static mzm_status expect_close(mzm_jparse *p)
{
	return p->now.kind == MZM_JT_CLOSE ? mzm_jparse_advance(p) : mzm_jparse_unexpected(p, "the end of the tag");
}

/* ---- nodes ---- */

mzm_status mzm_jparse_enter(mzm_jparse *p)
{
	if (++p->depth > MZM_JINJA_MAX_DEPTH)
		return mzm_jparse_fail(p, MZM_EFORMAT, p->now.line, "nested more than %d deep", MZM_JINJA_MAX_DEPTH);
	return MZM_OK;
}

static mzm_status no_memory(mzm_jparse *p, bool over)
{
	if (over)
		return mzm_jparse_fail(p, MZM_EFORMAT, p->now.line, "the template takes more than %zu MiB of memory",
				       MZM_JINJA_MAX_BYTES >> 20);
	return mzm_jparse_fail(p, MZM_ENOMEM, p->now.line, "out of memory for the template");
}

mzm_status mzm_jparse_node(mzm_jparse *p, mzm_jnode **out, mzm_jnode_kind kind, int32_t line)
{
	*out = mzm_jarena_take(p->mem, 1, sizeof **out);
	if (!*out)
		return no_memory(p, p->mem->over);
	(*out)->kind = kind;
	(*out)->line = line;
	return MZM_OK;
}

mzm_jmark mzm_jparse_mark(const mzm_jparse *p)
{
	return (mzm_jmark){.kids = p->n_stack, .ops = p->ops.len};
}

mzm_status mzm_jparse_push(mzm_jparse *p, const mzm_jnode *kid)
{
	if (p->n_stack == p->cap_stack) {
		size_t cap = p->cap_stack ? 2 * p->cap_stack : 64, unit = sizeof *p->stack;
		void *grown = mzm_realloc(p->stack, p->cap_stack * unit, cap * unit); /* bounded by the text */
		if (!grown)
			return no_memory(p, false);
		p->stack = grown;
		p->cap_stack = cap;
	}
	p->stack[p->n_stack++] = kid;
	return MZM_OK;
}

mzm_status mzm_jparse_take(mzm_jparse *p, mzm_jmark mark, mzm_jnode *node)
{
	size_t n = p->n_stack - mark.kids, n_ops = p->ops.len - mark.ops;
	if (p->ops.failed)
		return no_memory(p, false);
	const mzm_jnode **kids = mzm_jarena_take(p->mem, n, sizeof *kids);
	char *ops = mzm_jarena_text(p->mem, n_ops);
	if (!kids || !ops)
		return no_memory(p, p->mem->over);
	if (n)
		memcpy(kids, p->stack + mark.kids, n * sizeof *kids);
	if (n_ops)
		memcpy(ops, p->ops.data + mark.ops, n_ops);
	node->kids = kids;
	node->ops = ops;
	node->n = (uint32_t)n;
	p->n_stack = mark.kids;
	p->ops.len = mark.ops;
	return MZM_OK;
}

/* ---- statements; each begins behind its word and ends before the end of its last tag ---- */

static const char *const no_end[] = {NULL};

/* The end of the tag, then everything up to one of the tags named, whose word is skipped. *end: which. */
static mzm_status parse_body(mzm_jparse *p, const mzm_jnode **out, const char *const *ends, int *end)
{
	if (mzm_jparse_at_op(p, ':'))
		MZM_TRY(mzm_jparse_advance(p));
	MZM_TRY(expect_close(p));
	MZM_TRY(parse_block(p, out, ends));
	for (int i = 0; ends[i]; i++)
		if (end && mzm_jparse_at_name(p, ends[i]))
			*end = i;
	return mzm_jparse_advance(p);
}

static mzm_status parse_if(mzm_jparse *p, const mzm_jnode **out)
{
	static const char *const any[] = {"elif", "else", "endif", NULL}, *const last[] = {"endif", NULL};
	mzm_jnode *node;
	const mzm_jnode *kid;
	int end = 0;
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_IF, p->now.line));
	mzm_jmark mark = mzm_jparse_mark(p);
	while (end == 0) {
		MZM_TRY(mzm_jparse_tuple(p, &kid, false, NULL));
		MZM_TRY(mzm_jparse_push(p, kid));
		MZM_TRY(parse_body(p, &kid, any, &end));
		MZM_TRY(mzm_jparse_push(p, kid));
	}
	if (end == 1)
		MZM_TRY(parse_body(p, &node->a, last, NULL));
	*out = node;
	return mzm_jparse_take(p, mark, node);
}

static mzm_status parse_target(mzm_jparse *p, const mzm_jnode **out, bool may_be_attr)
{
	static const char *const constants[] = {"true", "false", "none", "True", "False", "None"};
	mzm_jnode *node;
	for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
		if (mzm_jparse_at_name(p, constants[i]))
			return mzm_jparse_unexpected(p, "a name");
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_NAME, p->now.line));
	MZM_TRY(mzm_jparse_name(p, &node->value));
	*out = node;
	if (!may_be_attr || !mzm_jparse_at_op(p, '.'))
		return MZM_OK;
	mzm_jnode *attr;
	MZM_TRY(mzm_jparse_advance(p));
	MZM_TRY(mzm_jparse_node(p, &attr, MZM_JN_ATTR, p->now.line));
	attr->a = node;
	*out = attr;
	return mzm_jparse_name(p, &attr->value);
}

/* a or a, b or (a, b): what a for or a set gives values to. */
static mzm_status parse_targets(mzm_jparse *p, mzm_jnode *node, bool may_be_attr)
{
	const mzm_jnode *kid;
	bool bracket = mzm_jparse_at_op(p, '(');
	mzm_jmark mark = mzm_jparse_mark(p);
	if (bracket)
		MZM_TRY(mzm_jparse_advance(p));
	for (;;) {
		MZM_TRY(parse_target(p, &kid, may_be_attr));
		MZM_TRY(mzm_jparse_push(p, kid));
		if (!mzm_jparse_at_op(p, ','))
			break;
		node->unpack = true;
		MZM_TRY(mzm_jparse_advance(p));
		if (p->now.kind != MZM_JT_NAME || mzm_jparse_at_name(p, "in"))
			break; /* a comma behind the last one */
	}
	if (bracket)
		MZM_TRY(mzm_jparse_op(p, ')'));
	return mzm_jparse_take(p, mark, node);
}

static mzm_status parse_for(mzm_jparse *p, const mzm_jnode **out)
{
	static const char *const any[] = {"else", "endfor", NULL}, *const last[] = {"endfor", NULL};
	mzm_jnode *node;
	int end = 0;
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_FOR, p->now.line));
	*out = node;
	MZM_TRY(parse_targets(p, node, false));
	if (!mzm_jparse_at_name(p, "in"))
		return mzm_jparse_unexpected(p, "in");
	MZM_TRY(mzm_jparse_advance(p));
	MZM_TRY(mzm_jparse_tuple(p, &node->a, false, "recursive"));
	if (mzm_jparse_at_name(p, "if")) {
		MZM_TRY(mzm_jparse_advance(p));
		MZM_TRY(mzm_jparse_expr(p, &node->b));
	}
	if (mzm_jparse_at_name(p, "recursive"))
		return mzm_jparse_fail(p, MZM_EUNSUPPORTED, p->now.line, "recursive loops are not supported");
	p->loops++;
	MZM_TRY(parse_body(p, &node->c, any, &end));
	p->loops--;
	return end == 0 ? parse_body(p, &node->d, last, NULL) : MZM_OK;
}

static mzm_status parse_set(mzm_jparse *p, const mzm_jnode **out)
{
	static const char *const last[] = {"endset", NULL};
	mzm_jnode *node;
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_SET, p->now.line));
	*out = node;
	MZM_TRY(parse_targets(p, node, true));
	if (mzm_jparse_at_op(p, '=')) {
		MZM_TRY(mzm_jparse_advance(p));
		return mzm_jparse_tuple(p, &node->a, true, NULL);
	}
	node->kind = MZM_JN_SET_BLOCK;
	if (node->unpack)
		return mzm_jparse_unexpected(p, "=");
	MZM_TRY(mzm_jparse_filters(p, &node->b, false));
	return parse_body(p, &node->a, last, NULL);
}

/* (a, b=1): names and their defaults, those without one first. */
static mzm_status parse_parameters(mzm_jparse *p, mzm_jnode *node)
{
	const mzm_jnode *kid, *value = NULL;
	mzm_jmark mark = mzm_jparse_mark(p);
	MZM_TRY(mzm_jparse_op(p, '('));
	while (!mzm_jparse_at_op(p, ')')) {
		if (p->n_stack > mark.kids)
			MZM_TRY(mzm_jparse_op(p, ','));
		MZM_TRY(parse_target(p, &kid, false));
		MZM_TRY(mzm_jparse_push(p, kid));
		if (mzm_jparse_at_op(p, '=')) {
			MZM_TRY(mzm_jparse_advance(p));
			MZM_TRY(mzm_jparse_expr(p, &value));
		} else if (value) {
			return mzm_jparse_fail(p, MZM_EFORMAT, kid->line,
					       "a parameter without a default follows one with it");
		}
		MZM_TRY(mzm_jparse_push(p, value));
	}
	MZM_TRY(mzm_jparse_advance(p));
	return mzm_jparse_take(p, mark, node);
}

static mzm_status parse_macro(mzm_jparse *p, const mzm_jnode **out)
{
	static const char *const last[] = {"endmacro", NULL};
	mzm_jnode *node;
	int32_t loops = p->loops;
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_MACRO, p->now.line));
	*out = node;
	MZM_TRY(mzm_jparse_name(p, &node->value));
	p->loops = 0;
	p->macros++;
	MZM_TRY(parse_parameters(p, node));
	MZM_TRY(parse_body(p, &node->a, last, NULL));
	p->macros--;
	p->loops = loops;
	return MZM_OK;
}

static mzm_status parse_filtered(mzm_jparse *p, const mzm_jnode **out)
{
	static const char *const last[] = {"endfilter", NULL};
	mzm_jnode *node;
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_FILTERED, p->now.line));
	*out = node;
	MZM_TRY(mzm_jparse_filters(p, &node->b, true));
	return parse_body(p, &node->a, last, NULL);
}

static mzm_status parse_with(mzm_jparse *p, const mzm_jnode **out)
{
	static const char *const last[] = {"endwith", NULL};
	mzm_jnode *node;
	const mzm_jnode *kid;
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_WITH, p->now.line));
	*out = node;
	mzm_jmark mark = mzm_jparse_mark(p);
	while (p->now.kind != MZM_JT_CLOSE) {
		if (p->n_stack > mark.kids)
			MZM_TRY(mzm_jparse_op(p, ','));
		MZM_TRY(parse_target(p, &kid, false));
		MZM_TRY(mzm_jparse_push(p, kid));
		MZM_TRY(mzm_jparse_op(p, '='));
		MZM_TRY(mzm_jparse_expr(p, &kid));
		MZM_TRY(mzm_jparse_push(p, kid));
	}
	MZM_TRY(mzm_jparse_take(p, mark, node));
	return parse_body(p, &node->a, last, NULL);
}

/* {% generation %} marks what a model wrote, for training: here its body is all. */
static mzm_status parse_generation(mzm_jparse *p, const mzm_jnode **out)
{
	static const char *const last[] = {"endgeneration", NULL};
	mzm_jnode *node;
	int32_t loops = p->loops;
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_WITH, p->now.line));
	*out = node;
	p->loops = 0;
	MZM_TRY(parse_body(p, &node->a, last, NULL));
	p->loops = loops;
	return MZM_OK;
}

static mzm_status parse_jump(mzm_jparse *p, const mzm_jnode **out, mzm_jnode_kind kind)
{
	mzm_jnode *node;
	if (!p->loops)
		return mzm_jparse_fail(p, MZM_EFORMAT, p->now.line, "break or continue outside of a loop");
	MZM_TRY(mzm_jparse_node(p, &node, kind, p->now.line));
	*out = node;
	return MZM_OK;
}

static mzm_status parse_break(mzm_jparse *p, const mzm_jnode **out)
{
	return parse_jump(p, out, MZM_JN_BREAK);
}

static mzm_status parse_continue(mzm_jparse *p, const mzm_jnode **out)
{
	return parse_jump(p, out, MZM_JN_CONTINUE);
}

static const struct {
	const char *word;
	mzm_status (*parse)(mzm_jparse *, const mzm_jnode **); /* NULL: Jinja has it, we have not */
} statements[] = {
	{"if", parse_if},         {"for", parse_for},       {"set", parse_set},         {"macro", parse_macro},
	{"filter", parse_filtered}, {"with", parse_with},   {"generation", parse_generation},
	{"break", parse_break},   {"continue", parse_continue},
	{"block", NULL},          {"extends", NULL},        {"include", NULL},          {"import", NULL},
	{"from", NULL},           {"call", NULL},           {"autoescape", NULL},       {"do", NULL},
	{"print", NULL},          {"trans", NULL},          {"debug", NULL},
};

static mzm_status parse_statement(mzm_jparse *p, const mzm_jnode **out)
{
	mzm_jv word = p->now.value;
	int32_t line = p->now.line;
	for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
		if (!mzm_jparse_at_name(p, statements[i].word))
			continue;
		if (!statements[i].parse)
			return mzm_jparse_fail(p, MZM_EUNSUPPORTED, line, "the tag %s is not supported",
					       statements[i].word);
		MZM_TRY(mzm_jparse_advance(p));
		MZM_TRY(statements[i].parse(p, out));
		return expect_close(p);
	}
	if (p->now.kind != MZM_JT_NAME)
		return mzm_jparse_unexpected(p, "a tag's name");
	return mzm_jparse_fail(p, MZM_EFORMAT, line, "the tag %.*s is not known here",
			       word.len < 60 ? (int)word.len : 60, word.s);
}

static mzm_status parse_print(mzm_jparse *p, const mzm_jnode **out)
{
	MZM_TRY(mzm_jparse_advance(p));
	MZM_TRY(mzm_jparse_tuple(p, out, true, NULL));
	return expect_close(p);
}

static mzm_status parse_text(mzm_jparse *p, const mzm_jnode **out)
{
	mzm_jnode *node;
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_TEXT, p->now.line));
	node->value = p->now.value;
	*out = node;
	return mzm_jparse_advance(p);
}

/* Up to a block tag with one of these words, which is then current; without words up to the template's end. */
static mzm_status parse_block(mzm_jparse *p, const mzm_jnode **out, const char *const *ends)
{
	mzm_jnode *node;
	const mzm_jnode *kid;
	MZM_TRY(mzm_jparse_enter(p));
	MZM_TRY(mzm_jparse_node(p, &node, MZM_JN_BLOCK, p->now.line));
	mzm_jmark mark = mzm_jparse_mark(p);
	while (p->now.kind != MZM_JT_END) {
		if (p->now.kind == MZM_JT_BLOCK) {
			MZM_TRY(mzm_jparse_advance(p));
			for (int i = 0; ends[i]; i++) {
				if (mzm_jparse_at_name(p, ends[i])) {
					p->depth--;
					*out = node;
					return mzm_jparse_take(p, mark, node);
				}
			}
			MZM_TRY(parse_statement(p, &kid));
		} else if (p->now.kind == MZM_JT_PRINT) {
			MZM_TRY(parse_print(p, &kid));
		} else {
			MZM_TRY(parse_text(p, &kid));
		}
		MZM_TRY(mzm_jparse_push(p, kid));
	}
	if (ends[0])
		return mzm_jparse_fail(p, MZM_EFORMAT, p->now.line, "%s is missing", ends[1] && ends[2] ? ends[2] :
				       ends[1] ? ends[1] : ends[0]);
	p->depth--;
	*out = node;
	return mzm_jparse_take(p, mark, node);
}

/* ---- templates ---- */

/* The text with \n for \r\n and \r, and without one new line at its end: as Jinja reads it. */
static mzm_status normal_text(mzm_jarena *mem, const char *text, size_t len, mzm_jv *out, mzm_err *err)
{
	char *copy = mzm_jarena_text(mem, len + 1);
	size_t n = 0;
	if (!copy)
		return mzm_fail(err, MZM_ENOMEM, "out of memory for a template of %zu bytes", len);
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\n' && i > 0 && text[i - 1] == '\r')
			continue;
		copy[n++] = text[i] == '\r' ? '\n' : text[i];
	}
	if (n && copy[n - 1] == '\n')
		n--;
	copy[n] = 0;
	*out = mzm_jv_str(copy, n);
	return MZM_OK;
}

static mzm_status parse_template(mzm_jinja *t, const char *text, size_t len, mzm_err *err)
{
	mzm_jv normal;
	MZM_TRY(normal_text(&t->mem, text, len, &normal, err));
	mzm_jparse p = {.mem = &t->mem, .err = err};
	p.lex = (mzm_jlex){.s = normal.s, .n = normal.len, .line = 1, .open = MZM_JT_TEXT, .line_start = true,
			   .mem = &t->mem, .err = err};
	mzm_status st;
	MZM_TRY_OUT(mzm_jparse_advance(&p));
	MZM_TRY_OUT(parse_block(&p, &t->body, no_end));
out:
	mzm_free(p.stack);
	mzm_str_free(&p.ops);
	return st;
}

mzm_status mzm_jinja_parse(mzm_jinja **out, const char *text, size_t len, mzm_err *err)
{
	*out = NULL;
	if (len > MZM_JINJA_MAX_TEXT)
		return mzm_fail(err, MZM_EUNSUPPORTED, "a template of %zu bytes; %zu is the most", len,
				MZM_JINJA_MAX_TEXT);
	if (mzm_utf8_valid(text, len) != len)
		return mzm_fail(err, MZM_EFORMAT, "the template is not UTF-8");
	mzm_jinja *t;
	MZM_TRY(mzm_alloc_for((void **)&t, sizeof *t, "a template", err));
	mzm_status st = parse_template(t, text, len, err);
	if (st != MZM_OK) {
		mzm_jinja_free(t);
		return st;
	}
	*out = t;
	return MZM_OK;
}

void mzm_jinja_free(mzm_jinja *t)
{
	if (!t)
		return;
	mzm_jarena_free(&t->mem);
	mzm_free(t);
}
