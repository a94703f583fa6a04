/* util.h - what the files of eval share: errors, a growing byte string, bounded lines, JSON of text.
 *
 * eval stands on mirzam.h alone, so it has its own of these and not the library's. */
#ifndef MZE_UTIL_H
#define MZE_UTIL_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "mirzam.h"

/* Records code and message unless err is NULL or already holds a failure. Returns code. */
mzm_status mze_fail(mzm_err *err, mzm_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
mzm_status mze_no_memory(mzm_err *err);
/* Puts "context: " in front of the message already in err. */
void mze_err_prefix(mzm_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define MZE_TRY(expr)                    \
	do {                             \
		mzm_status st_ = (expr); \
		if (st_ != MZM_OK)       \
			return st_;      \
	} while (0)

#define MZE_TRY_OUT(expr)          \
	do {                       \
		st = (expr);       \
		if (st != MZM_OK)  \
			goto out;  \
	} while (0)

int64_t mze_now_ns(void);
char   *mze_strndup(const char *s, size_t n); /* copies n bytes, NULs too, and adds a NUL; NULL: no memory */
/* n zeroed elements; never 0 bytes. */
void   *mze_calloc(size_t n, size_t size);

/* Growing byte string. Allocation failure is sticky: test failed once, at the end. */
typedef struct mze_buf {
	char  *data; /* NUL-terminated once anything was added; -> mze_buf_free */
	size_t len, cap;
	bool   failed;
} mze_buf;

void mze_buf_add(mze_buf *b, const void *bytes, size_t n);
void mze_buf_puts(mze_buf *b, const char *text);
void mze_buf_printf(mze_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void mze_buf_free(mze_buf *b);

/* Lines of a stream, each at most max_bytes long. */
typedef enum mze_line_kind {
	MZE_LINE_END,
	MZE_LINE_WHOLE,    /* ended by a newline, which is not part of it */
	MZE_LINE_TORN,     /* the file ends without one */
	MZE_LINE_TOO_LONG, /* read past, not kept */
	MZE_LINE_ERROR,    /* reading failed; errno */
	MZE_LINE_NO_MEMORY,
} mze_line_kind;

typedef struct mze_lines {
	FILE    *file;
	size_t   max_bytes;
	mze_buf  line;
	int64_t  number;       /* of the line just read, from 1 */
	uint64_t offset, next; /* bytes before the line, and past it with its newline */
} mze_lines;

mze_line_kind mze_lines_next(mze_lines *lines);
void          mze_lines_free(mze_lines *lines);

/* Opens a regular file for reading; directories, FIFOs and devices are refused. -> fclose */
mzm_status mze_open_regular(FILE **out, const char *path, mzm_err *err);

/* Length of the UTF-8 character at s[0..n), n > 0; 0: broken. */
size_t  mze_utf8_len(const char *s, size_t n);
/* A JSON string; broken bytes become U+FFFD. */
json_t *mze_json_text(const char *text, size_t n);
/* The shortest decimal that is this float again; NaN and infinities are null. */
json_t *mze_json_float(float x);
json_t *mze_json_real(double x); /* NaN and infinities are null */

#endif
