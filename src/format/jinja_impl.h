/* jinja_impl.h - what the files of the template engine share; nobody else includes it.
 *
 *     text --jinja_lex.c--> tokens --jinja_parse.c, jinja_expr.c--> nodes --jinja_exec.c, jinja_eval.c--> text
 *
 * Filters, tests, methods and functions are rows of tables (jinja_filters.c, jinja_tests.c, jinja_methods.c,
 * jinja_globals.c), found when the template is parsed. Nodes live in the template's arena, values in that of one
 * rendering; both count what they take. Values are immutable and shared freely, except namespaces (a dictionary that
 * grows) and streams (walked once, as Python's generators). Nothing recurses without counting: the parser by
 * MZM_JINJA_MAX_DEPTH, a rendering by MZM_J_MAX_LEVELS. */
#ifndef MZM_JINJA_IMPL_H
#define MZM_JINJA_IMPL_H

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "format/jinja.h"

#define MZM_J_MAX_LEVELS 400     /* nested evaluations, macros included, and levels of a value */
#define MZM_J_MAX_ARGS   6       /* of a filter, test, method or function with named arguments */
#define MZM_J_MAX_NAME   120
#define MZM_J_MAX_RANGE  100000  /* as Jinja's sandbox has it */
#define MZM_J_STEP_BYTES 64      /* bytes copied or looked at that count as one step */

/* ---- arena ---- */

typedef struct mzm_jarena {
	struct mzm_jblock *blocks;
	char              *top, *end; /* free part of the last block */
	size_t             bytes;     /* of all blocks */
	size_t            *taken;     /* of all that the bound counts; NULL: this arena's alone */
	bool               over;      /* refused by MZM_JINJA_MAX_BYTES, not by the machine */
} mzm_jarena;

void *mzm_jarena_take(mzm_jarena *a, size_t n_items, size_t item_bytes); /* zeroed; NULL when refused */
char *mzm_jarena_text(mzm_jarena *a, size_t n);                          /* n bytes, not aligned */
void  mzm_jarena_free(mzm_jarena *a);

/* ---- values ---- */

typedef enum mzm_jkind {
	MZM_J_ABSENT, /* an argument that was not given; never seen by a template */
	MZM_J_UNDEFINED, /* s: what is undefined, for messages */
	MZM_J_NONE,
	MZM_J_BOOL,
	MZM_J_INT,
	MZM_J_FLOAT,
	MZM_J_STR,
	MZM_J_LIST,
	MZM_J_TUPLE,
	MZM_J_RANGE,
	MZM_J_VIEW,   /* the keys, values or items of a dictionary */
	MZM_J_STREAM, /* what map, select, reverse ... give */
	MZM_J_DICT,
	MZM_J_NAMESPACE,
	MZM_J_LOOP,
	MZM_J_MACRO,
	MZM_J_METHOD,
	MZM_J_FUNCTION,
} mzm_jkind;

typedef struct mzm_jlist mzm_jlist;
typedef struct mzm_jdict mzm_jdict;
typedef struct mzm_jloop mzm_jloop;
typedef struct mzm_jmacro mzm_jmacro;
typedef struct mzm_jmethod mzm_jmethod;
typedef struct mzm_jrow mzm_jrow;
typedef struct mzm_jnode mzm_jnode;
typedef struct mzm_jrun mzm_jrun;

typedef struct mzm_jv {
	mzm_jkind kind : 8;
	bool      safe : 1; /* MZM_J_STR: marked by the filter safe */
	uint32_t  len;      /* bytes of s */
	union {
		bool              b;
		int64_t           i;
		double            f;
		const char       *s; /* [len] UTF-8, no NUL behind it */
		mzm_jlist        *list;
		mzm_jdict        *dict;
		mzm_jloop        *loop;
		const mzm_jmacro *macro;
		mzm_jmethod      *method;
		const mzm_jrow   *function;
	};
} mzm_jv;

struct mzm_jlist {
	const mzm_jv *items; /* [n] */
	uint32_t      n;
	bool          spent; /* MZM_J_STREAM */
};

struct mzm_jdict {
	mzm_jv  *keys, *values; /* [n], in the order of insertion */
	uint32_t n, cap;
};

struct mzm_jloop {
	const mzm_jv *items; /* [n] */
	uint32_t      n, at;
	mzm_jv        changed; /* what loop.changed saw last */
};

struct mzm_jmethod {
	mzm_jv          self;
	const mzm_jrow *row;
};

/* Arguments as they were written, and, where the row names them, in its order: absent ones MZM_J_ABSENT. */
typedef struct mzm_jargs {
	const mzm_jv *pos, *names, *named; /* [n_pos], [n_named], [n_named] */
	uint32_t      n_pos, n_named;
	mzm_jv        v[MZM_J_MAX_ARGS];
} mzm_jargs;

typedef mzm_status (*mzm_jfn)(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args);

struct mzm_jrow {
	const char *name, *params; /* params: names with blanks between them; "*": takes what comes */
	uint32_t    n_required;
	mzm_jfn     fn;
};

static inline mzm_jv mzm_jv_bool(bool b)
{
	return (mzm_jv){.kind = MZM_J_BOOL, .b = b};
}
static inline mzm_jv mzm_jv_int(int64_t i)
{
	return (mzm_jv){.kind = MZM_J_INT, .i = i};
}
static inline mzm_jv mzm_jv_float(double f)
{
	return (mzm_jv){.kind = MZM_J_FLOAT, .f = f};
}
static inline mzm_jv mzm_jv_str(const char *s, size_t len) /* len: within MZM_JINJA_MAX_BYTES */
{
	return (mzm_jv){.kind = MZM_J_STR, .len = (uint32_t)len, .s = s};
}
static inline mzm_jv mzm_jv_undefined(const mzm_jv *name) /* name: a string, or NULL */
{
	mzm_jv v = name ? *name : mzm_jv_str("value", 5);
	v.kind = MZM_J_UNDEFINED;
	return v;
}
static inline bool mzm_jv_is(const mzm_jv *str, const char *word) /* str: a string or a name */
{
	return strlen(word) == str->len && memcmp(str->s, word, str->len) == 0;
}
static inline bool mzm_jv_same_text(const mzm_jv *a, const mzm_jv *b)
{
	return a->len == b->len && memcmp(a->s, b->s, a->len) == 0;
}
static inline bool mzm_jv_is_whole(const mzm_jv *v) /* an int, as Python sees it */
{
	return v->kind == MZM_J_INT || v->kind == MZM_J_BOOL;
}
static inline bool mzm_jv_is_number(const mzm_jv *v)
{
	return mzm_jv_is_whole(v) || v->kind == MZM_J_FLOAT;
}
static inline int64_t mzm_jv_whole(const mzm_jv *v)
{
	return v->kind == MZM_J_BOOL ? v->b : v->i;
}
static inline double mzm_jv_real(const mzm_jv *v)
{
	return v->kind == MZM_J_FLOAT ? v->f : (double)mzm_jv_whole(v);
}

/* ---- nodes ---- */

typedef enum mzm_jnode_kind {
	/* expressions; in a block they print themselves */
	MZM_JN_CONST,   /* value */
	MZM_JN_NAME,    /* value: the name */
	MZM_JN_LIST,    /* kids */
	MZM_JN_TUPLE,   /* kids */
	MZM_JN_DICT,    /* kids: key, value, key, value ... */
	MZM_JN_ATTR,    /* value of a */
	MZM_JN_ITEM,    /* a[b] */
	MZM_JN_SLICE,   /* a[b:c:d], each of which may be NULL */
	MZM_JN_CALL,    /* a(kids: n_pos arguments, then name, value, name, value ...) */
	MZM_JN_FILTER,  /* a | row(kids as of a call); a NULL: what the block around it wrote */
	MZM_JN_TEST,    /* a is row(kids as of a call) */
	MZM_JN_NOT,     /* a */
	MZM_JN_NEG,     /* a */
	MZM_JN_POS,     /* a */
	MZM_JN_AND,     /* kids */
	MZM_JN_OR,      /* kids */
	MZM_JN_COMPARE, /* kids[0] ops[0] kids[1] ops[1] ... */
	MZM_JN_MATH,    /* likewise */
	MZM_JN_CONCAT,  /* kids */
	MZM_JN_COND,    /* b if a else c (NULL: undefined) */
	/* statements */
	MZM_JN_TEXT,      /* value */
	MZM_JN_BLOCK,     /* kids */
	MZM_JN_IF,        /* kids: condition, block, condition, block ...; a: block of else, or NULL */
	MZM_JN_FOR,       /* for kids (unpack: of each item) in a if b: c else d */
	MZM_JN_SET,       /* kids (unpack) = a */
	MZM_JN_SET_BLOCK, /* kids[0] = what block a writes, through filters b (or NULL) */
	MZM_JN_MACRO,     /* value(kids: name, default or NULL, name, default ...): a */
	MZM_JN_FILTERED,  /* what block a writes, through filters b */
	MZM_JN_WITH,      /* kids: name, value, name, value ...; block a, in a scope of its own */
	MZM_JN_BREAK,
	MZM_JN_CONTINUE,
} mzm_jnode_kind;

struct mzm_jnode {
	mzm_jnode_kind          kind;
	int32_t                 line;
	uint32_t                n, n_pos;
	bool                    unpack;
	const mzm_jnode *const *kids; /* [n] */
	const char             *ops;  /* [n - 1] mzm_jop */
	const mzm_jrow         *row;
	mzm_jv                  value;
	const mzm_jnode        *a, *b, *c, *d;
};

/* Operators and other signs; those of one character are that character. */
typedef enum mzm_jop {
	MZM_JOP_EQ = 'E',
	MZM_JOP_NE = 'N',
	MZM_JOP_GE = 'G',
	MZM_JOP_LE = 'L',
	MZM_JOP_POW = 'P',
	MZM_JOP_FLOOR = 'F',
	MZM_JOP_IN = 'i',
	MZM_JOP_NOT_IN = 'n',
} mzm_jop;

struct mzm_jinja {
	mzm_jarena       mem;
	const mzm_jnode *body;
};

/* ---- jinja_lex.c ---- */

typedef enum mzm_jtoken_kind {
	MZM_JT_END,
	MZM_JT_TEXT,
	MZM_JT_PRINT, /* {{ */
	MZM_JT_BLOCK, /* {% */
	MZM_JT_CLOSE, /* }} or %}, whichever closes the open one */
	MZM_JT_NAME,
	MZM_JT_CONST,
	MZM_JT_OP,
} mzm_jtoken_kind;

typedef struct mzm_jtoken {
	mzm_jtoken_kind kind;
	int32_t         line;
	char            op;    /* mzm_jop */
	mzm_jv          value; /* text, name or constant */
} mzm_jtoken;

typedef struct mzm_jlex {
	const char *s;          /* [n] UTF-8, lines end in \n */
	size_t      n, at;
	int32_t     line;
	mzm_jtoken_kind open;   /* MZM_JT_TEXT outside of tags */
	bool        pending;    /* text was given out, its tag is next */
	bool        line_start; /* what came before ended in a new line */
	uint32_t    n_brackets;
	char        brackets[MZM_JINJA_MAX_DEPTH * 2];
	mzm_jarena *mem;
	mzm_err    *err;
} mzm_jlex;

mzm_status mzm_jlex_next(mzm_jlex *lex, mzm_jtoken *out);
/* Bytes of white space, as Python sees it, at the start or the end of s[0..n). */
size_t     mzm_jlex_spaces(const char *s, size_t n);
size_t     mzm_jlex_spaces_behind(const char *s, size_t n);

/* ---- jinja_parse.c, jinja_expr.c ---- */

typedef struct mzm_jparse {
	mzm_jlex          lex;
	mzm_jtoken        now, ahead;
	bool              has_ahead;
	int32_t           depth, loops, macros;
	const mzm_jnode **stack; /* [n_stack] children of nodes that are not whole yet */
	size_t            n_stack, cap_stack;
	mzm_str           ops;   /* likewise their operators */
	mzm_jarena       *mem;
	mzm_err          *err;
} mzm_jparse;

typedef struct mzm_jmark {
	size_t kids, ops;
} mzm_jmark;

mzm_status mzm_jparse_fail(mzm_jparse *p, mzm_status code, int32_t line, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
mzm_status mzm_jparse_unexpected(mzm_jparse *p, const char *wanted);
mzm_status mzm_jparse_advance(mzm_jparse *p);
mzm_status mzm_jparse_peek(mzm_jparse *p, const mzm_jtoken **out);
bool       mzm_jparse_at_op(const mzm_jparse *p, char op);
bool       mzm_jparse_at_name(const mzm_jparse *p, const char *name);
mzm_status mzm_jparse_op(mzm_jparse *p, char op);                              /* which must be there */
mzm_status mzm_jparse_name(mzm_jparse *p, mzm_jv *name);                       /* likewise */
mzm_status mzm_jparse_enter(mzm_jparse *p);                                    /* a level; ends with p->depth-- */
mzm_status mzm_jparse_node(mzm_jparse *p, mzm_jnode **out, mzm_jnode_kind kind, int32_t line);
mzm_jmark  mzm_jparse_mark(const mzm_jparse *p);
mzm_status mzm_jparse_push(mzm_jparse *p, const mzm_jnode *kid);
mzm_status mzm_jparse_take(mzm_jparse *p, mzm_jmark mark, mzm_jnode *node);    /* what was pushed since is node's */
mzm_status mzm_jparse_const(mzm_jparse *p, const mzm_jnode **out, mzm_jv value);

mzm_status mzm_jparse_expr(mzm_jparse *p, const mzm_jnode **out);              /* a if b else c */
mzm_status mzm_jparse_primary(mzm_jparse *p, const mzm_jnode **out);
/* Expressions with commas between them are a tuple; until (may be NULL): a name that ends it. */
mzm_status mzm_jparse_tuple(mzm_jparse *p, const mzm_jnode **out, bool with_cond, const char *until);
mzm_status mzm_jparse_filters(mzm_jparse *p, const mzm_jnode **node, bool bare); /* bare: the first without its | */

/* ---- a rendering ---- */

typedef struct mzm_jbinding mzm_jbinding;
typedef struct mzm_jscope {
	struct mzm_jscope *parent;
	mzm_jbinding      *first;
} mzm_jscope;

struct mzm_jmacro {
	const mzm_jnode *node;
	mzm_jscope      *scope; /* where it was defined */
};

typedef enum mzm_jflow { MZM_JF_ON, MZM_JF_BREAK, MZM_JF_CONTINUE } mzm_jflow;

struct mzm_jrun {
	mzm_jarena    mem, text; /* text apart, so that the last string made can grow in place */
	mzm_str       out;
	size_t        taken;     /* bytes of both and of out */
	const json_t *variables;
	mzm_jscope   *scope;
	mzm_jflow     flow;
	int32_t       line, level;
	uint64_t      steps;
	mzm_err      *err;
};

mzm_status mzm_jrun_fail(mzm_jrun *r, mzm_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
mzm_status mzm_jrun_full(mzm_jrun *r);                 /* why memory was refused */
mzm_status mzm_jrun_over(mzm_jrun *r);                 /* refused by MZM_JINJA_MAX_BYTES */
mzm_status mzm_jrun_charge(mzm_jrun *r, size_t steps);
mzm_status mzm_jrun_charge_bytes(mzm_jrun *r, size_t n);
mzm_status mzm_jrun_enter(mzm_jrun *r);                /* one level deeper; ends with r->level-- */

/* jinja_exec.c */
mzm_status mzm_jrun_write(mzm_jrun *r, const char *s, size_t n);
mzm_status mzm_jrun_captured(mzm_jrun *r, size_t since, mzm_jv *out); /* takes back what was written since */
mzm_status mzm_jrun_call_macro(mzm_jrun *r, mzm_jv *out, const mzm_jmacro *macro, const mzm_jargs *args);
mzm_status mzm_jrun_lookup(mzm_jrun *r, mzm_jv *out, const mzm_jv *name);

/* jinja_eval.c */
mzm_status mzm_jrun_eval(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node);
mzm_status mzm_jrun_filter(mzm_jrun *r, mzm_jv *out, const mzm_jnode *node, const mzm_jv *written);
mzm_status mzm_jrun_attr(mzm_jrun *r, mzm_jv *out, const mzm_jv *of, const mzm_jv *name);
mzm_status mzm_jrun_item(mzm_jrun *r, mzm_jv *out, const mzm_jv *of, const mzm_jv *key);
mzm_status mzm_jrun_row(mzm_jrun *r, mzm_jv *out, const mzm_jrow *row, const mzm_jv *in, mzm_jargs *args);
mzm_status mzm_jrun_math(mzm_jrun *r, mzm_jv *out, char op, const mzm_jv *a, const mzm_jv *b);
mzm_status mzm_jrun_compare(mzm_jrun *r, bool *out, char op, const mzm_jv *a, const mzm_jv *b);
mzm_status mzm_jrun_slice(mzm_jrun *r, mzm_jv *out, const mzm_jv *of, const mzm_jv part[3]); /* from, to, step */

/* jinja_math.c is where math, compare and slice are. jinja_value.c */
const char *mzm_jv_kind(const mzm_jv *v); /* its name in messages */
bool        mzm_jv_truth(const mzm_jv *v);
mzm_status mzm_jv_equal(mzm_jrun *r, bool *out, const mzm_jv *a, const mzm_jv *b);
mzm_status mzm_jv_order(mzm_jrun *r, int *out, const mzm_jv *a, const mzm_jv *b); /* -1, 0, 1 */
mzm_status mzm_jv_length(mzm_jrun *r, size_t *out, const mzm_jv *v);
mzm_status mzm_jv_items(mzm_jrun *r, mzm_jlist *out, const mzm_jv *v);            /* what a loop over it sees */
mzm_status mzm_jv_list(mzm_jrun *r, mzm_jv *out, mzm_jkind kind, const mzm_jv *items, size_t n); /* items stay */
mzm_status mzm_jv_room(mzm_jrun *r, mzm_jv **out, size_t n);                      /* [n] */
mzm_status mzm_jv_dict(mzm_jrun *r, mzm_jv *out, mzm_jkind kind, size_t cap);
mzm_status mzm_jv_put(mzm_jrun *r, mzm_jdict *d, const mzm_jv *key, const mzm_jv *value);
mzm_status mzm_jv_get(mzm_jrun *r, const mzm_jv **out, const mzm_jdict *d, const mzm_jv *key); /* NULL: not there */
mzm_status mzm_jv_pairs(mzm_jrun *r, mzm_jv *out, mzm_jkind kind, const mzm_jdict *d); /* tuples of two */
mzm_status mzm_jv_from_json(mzm_jrun *r, mzm_jv *out, const json_t *j);

typedef struct mzm_jjson {
	mzm_jv  item, colon; /* separators */
	mzm_jv  indent;      /* absent, or what one level is indented by */
	bool    ascii, sort;
	int32_t level;       /* that of the rendering where the text begins */
} mzm_jjson;

/* jinja_text.c: strings of values. Appending is in place while *s is the last string that was made. */
char      *mzm_jrun_text(mzm_jrun *r, size_t n); /* NULL when refused: mzm_jrun_full */
mzm_status mzm_jv_append(mzm_jrun *r, mzm_jv *s, const char *bytes, size_t n);
mzm_status mzm_jv_text(mzm_jrun *r, mzm_jv *out, const mzm_jv *v);             /* Python's str() */
mzm_status mzm_jv_add_text(mzm_jrun *r, mzm_jv *s, const mzm_jv *v);
mzm_status mzm_jv_add_repr(mzm_jrun *r, mzm_jv *s, const mzm_jv *v);           /* Python's repr() */
mzm_status mzm_jv_add_json(mzm_jrun *r, mzm_jv *s, const mzm_jv *v, const mzm_jjson *how);
size_t     mzm_jv_chars(const mzm_jv *str);
size_t     mzm_jv_byte_of(const mzm_jv *str, size_t chr);                      /* where that character starts */

/* ---- tables ---- */

const mzm_jrow *mzm_jrow_find(const mzm_jrow *rows, const mzm_jv *name); /* rows end with a NULL name */
const mzm_jrow *mzm_jinja_filter(const mzm_jv *name);
const mzm_jrow *mzm_jinja_test(const mzm_jv *name);
const mzm_jrow *mzm_jinja_method(const mzm_jv *self, const mzm_jv *name);
const mzm_jrow *mzm_jinja_global(const mzm_jv *name);
extern const mzm_jrow mzm_jinja_strftime;

#endif
