/* util.c - see util.h. */
#include "eval/util.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- errors ---- */

mzm_status mze_fail(mzm_err *err, mzm_status code, const char *fmt, ...)
{
	if (err && err->code == MZM_OK) {
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(err->message, sizeof err->message, fmt, ap);
		va_end(ap);
		err->code = code;
	}
	return code;
}

mzm_status mze_no_memory(mzm_err *err)
{
	return mze_fail(err, MZM_ENOMEM, "out of memory");
}

void mze_err_prefix(mzm_err *err, const char *fmt, ...)
{
	if (!err || err->code == MZM_OK)
		return;
	char old[sizeof err->message];
	memcpy(old, err->message, sizeof old);
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(err->message, sizeof err->message, fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof err->message)
		snprintf(err->message + n, sizeof err->message - (size_t)n, ": %s", old);
}

/* ---- memory and time ---- */

int64_t mze_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void *mze_calloc(size_t n, size_t size)
{
	return calloc(n ? n : 1, size);
}

char *mze_strndup(const char *s, size_t n)
{
	char *copy = n < SIZE_MAX ? malloc(n + 1) : NULL;
	if (!copy)
		return NULL;
	if (n)
		memcpy(copy, s, n);
	copy[n] = 0;
	return copy;
}

static bool grow(mze_buf *b, size_t more)
{
	size_t need;
	if (b->failed || __builtin_add_overflow(b->len, more, &need) || __builtin_add_overflow(need, 1, &need))
		b->failed = true;
	else if (need > b->cap) {
		size_t cap = b->cap ? b->cap : 128;
		while (cap < need)
			cap = cap > SIZE_MAX / 2 ? need : cap * 2;
		char *data = realloc(b->data, cap);
		if (data) {
			b->data = data;
			b->cap = cap;
		}
		b->failed = !data;
	}
	return !b->failed;
}

void mze_buf_add(mze_buf *b, const void *bytes, size_t n)
{
	if (!grow(b, n))
		return;
	if (n)
		memcpy(b->data + b->len, bytes, n);
	b->len += n;
	b->data[b->len] = 0;
}

void mze_buf_puts(mze_buf *b, const char *text)
{
	mze_buf_add(b, text, strlen(text));
}

void mze_buf_printf(mze_buf *b, const char *fmt, ...)
{
	va_list ap, again;
	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		b->failed = true;
	else if (grow(b, (size_t)n))
		b->len += (size_t)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
	va_end(again);
}

void mze_buf_free(mze_buf *b)
{
	free(b->data);
	*b = (mze_buf){0};
}

/* ---- files ---- */

mze_line_kind mze_lines_next(mze_lines *l)
{
	bool too_long = false;
	int c;
	l->line.len = 0;
	l->offset = l->next;
	while ((c = getc_unlocked(l->file)) != EOF) {
		l->next++;
		if (c == '\n')
			break;
		if (l->line.len >= l->max_bytes) {
			too_long = true;
		} else {
			char byte = (char)c;
			mze_buf_add(&l->line, &byte, 1);
			if (l->line.failed)
				return MZE_LINE_NO_MEMORY;
		}
	}
	if (c == EOF && ferror(l->file))
		return MZE_LINE_ERROR;
	if (l->next == l->offset)
		return MZE_LINE_END;
	l->number++;
	if (too_long)
		return MZE_LINE_TOO_LONG;
	mze_buf_add(&l->line, "", 0); /* an empty line, too, is a string */
	if (l->line.failed)
		return MZE_LINE_NO_MEMORY;
	return c == EOF ? MZE_LINE_TORN : MZE_LINE_WHOLE;
}

void mze_lines_free(mze_lines *l)
{
	mze_buf_free(&l->line);
}

mzm_status mze_open_regular(FILE **out, const char *path, mzm_err *err)
{
	*out = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* NONBLOCK: a FIFO must not hang us */
	if (fd < 0)
		return mze_fail(err, MZM_EIO, "%s: %s", path, strerror(errno));
	struct stat sb;
	mzm_status st = MZM_OK;
	if (fstat(fd, &sb) != 0)
		st = mze_fail(err, MZM_EIO, "%s: %s", path, strerror(errno));
	else if (!S_ISREG(sb.st_mode))
		st = mze_fail(err, MZM_EIO, "%s: %s", path,
			      S_ISDIR(sb.st_mode) ? "is a directory" : "not a regular file");
	else if (!(*out = fdopen(fd, "rb")))
		st = mze_no_memory(err);
	if (st != MZM_OK)
		close(fd);
	return st;
}

/* ---- text and numbers as JSON ---- */

size_t mze_utf8_len(const char *text, size_t n)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t len = s[0] < 0x80                   ? 1
		     : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
		     : (s[0] & 0xf0) == 0xe0       ? 3
		     : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
						   : 0;
	if (len == 0 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
	bool outside = (s[0] == 0xed && s[1] >= 0xa0) || (s[0] == 0xf4 && s[1] >= 0x90);
	return overlong || outside ? 0 : len;
}

json_t *mze_json_text(const char *text, size_t n)
{
	mze_buf clean = {0};
	size_t whole = 0;
	for (size_t i = 0; i < n;) {
		size_t len = mze_utf8_len(text + i, n - i);
		if (len == 0) {
			mze_buf_add(&clean, text + whole, i - whole);
			mze_buf_puts(&clean, "\xef\xbf\xbd");
			whole = i + 1;
		}
		i += len ? len : 1;
	}
	json_t *value = NULL;
	if (whole == 0) {
		value = json_stringn_nocheck(n ? text : "", n);
	} else {
		mze_buf_add(&clean, text + whole, n - whole);
		value = clean.failed ? NULL : json_stringn_nocheck(clean.data, clean.len);
	}
	mze_buf_free(&clean);
	return value;
}

json_t *mze_json_float(float x)
{
	char text[32];
	if (!isfinite(x))
		return json_null();
	for (int digits = 6; digits <= 9; digits++) {
		snprintf(text, sizeof text, "%.*g", digits, (double)x);
		if (strtof(text, NULL) == x)
			break;
	}
	return json_real(strtod(text, NULL));
}

json_t *mze_json_real(double x)
{
	return isfinite(x) ? json_real(x) : json_null();
}
