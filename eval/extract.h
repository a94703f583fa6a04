/* extract.h - finds the answer in a model's text, as lm-evaluation-harness does.
 *
 * Each scanner agrees with Python's re on any bytes:
 *   strict    first  #### (\-?[0-9\.\,]+)
 *   cot       first  The answer is (\-?[0-9\.\,]+).
 *   flexible  last   (-?[$0-9.,]{2,})|(-?[0-9]+)
 * They allocate nothing and point into the text. */
#ifndef MZE_EXTRACT_H
#define MZE_EXTRACT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct mze_span {
	const char *data; /* NULL: no match */
	size_t      len;
} mze_span;

mze_span mze_extract_strict(const char *text, size_t len);
/* *cut: the number stood at the end of the text or of a line and so lost its last character to the
 * pattern's final point, which matches anything. May be NULL. */
mze_span mze_extract_cot(const char *text, size_t len, bool *cut);
mze_span mze_extract_flexible(const char *text, size_t len);

/* Before prediction and reference are compared, in place: drops every ',', every '$', all up to the
 * last "#### ", one final '.'; lower-cases ASCII. Returns the new length. */
size_t mze_normalise(char *s, size_t len);

#endif
