/* jinja.h - the subset of Jinja that chat templates of published models are written in.
 *
 * Parsed once, rendered any number of times, from any thread. A template is hostile input: nesting, steps, and the
 * memory of values and output are bounded, and it sees nothing but the values that it is given. What the subset lacks
 * is refused when it is parsed, with the line; what only a run shows (an undefined filter's argument, a missing method)
 * fails that rendering. What is rendered equals what Jinja2 renders, in Hugging Face's environment for chat templates:
 * trim_blocks, lstrip_blocks, break and continue, {% generation %}, an immutable sandbox, tojson without HTML escapes,
 * raise_exception, strftime_now. Left out: inheritance and includes, call blocks, recursive loops, * in arguments,
 * format strings, whole numbers beyond 64 bits, and filters, tests and methods that no published template was seen to
 * use. Nothing is ever escaped for HTML: joining a safe string to one that Jinja would escape then is refused. */
#ifndef MZM_JINJA_H
#define MZM_JINJA_H

#include <jansson.h>

#include "base/mem.h"

typedef struct mzm_jinja mzm_jinja;

/* Bounds of one rendering. */
#define MZM_JINJA_MAX_STEPS  2000000
#define MZM_JINJA_MAX_BYTES  ((size_t)64 << 20) /* values and output */
#define MZM_JINJA_MAX_TEXT   ((size_t)1 << 20)  /* of the template */
#define MZM_JINJA_MAX_DEPTH  64

/* EFORMAT, EUNSUPPORTED: "line 3: ...". -> mzm_jinja_free */
mzm_status mzm_jinja_parse(mzm_jinja **out, const char *text, size_t len, mzm_err *err);
void       mzm_jinja_free(mzm_jinja *t);

/* variables: a JSON object, the names that the template sees. One is not seen as it is: with a string "strftime_now",
 * "2026-11-22T13:02:23" or "2026-11-22", the template has the function strftime_now, which prints that time; without it
 * that name is undefined. EARG: the template called raise_exception; its text is the message. *text is NUL-terminated
 * -> mzm_free; len may be NULL. */
mzm_status mzm_jinja_render(const mzm_jinja *t, const json_t *variables, char **text, size_t *len, mzm_err *err);

#endif
