/* str.c - see str.h. */
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void mzm_str_add(mzm_str *s, const void *bytes, size_t n)
{
	size_t need;
	if (s->failed || !mzm_add_size(s->len, n, &need) || !mzm_add_size(need, 1, &need)) {
		s->failed = true;
		return;
	}
	if (need > s->cap) {
		size_t cap = s->cap ? s->cap : 64;
		while (cap < need)
			cap = cap > SIZE_MAX / 2 ? need : cap * 2;
		char *grown = mzm_realloc(s->data, s->len, cap);
		if (!grown) {
			s->failed = true;
			return;
		}
		s->data = grown;
		s->cap = cap;
	}
	if (n)
		memcpy(s->data + s->len, bytes, n);
	s->len += n;
	s->data[s->len] = 0;
}

void mzm_str_puts(mzm_str *s, const char *text)
{
	mzm_str_add(s, text, strlen(text));
}

void mzm_str_printf(mzm_str *s, const char *fmt, ...)
{
	char small[512];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(small, sizeof small, fmt, ap);
	va_end(ap);
	if (n < 0) {
		s->failed = true;
	} else if ((size_t)n < sizeof small) {
		mzm_str_add(s, small, (size_t)n);
	} else {
		char *big = mzm_alloc((size_t)n + 1);
		if (!big) {
			s->failed = true;
			return;
		}
		va_start(ap, fmt);
		vsnprintf(big, (size_t)n + 1, fmt, ap);
		va_end(ap);
		mzm_str_add(s, big, (size_t)n);
		mzm_free(big);
	}
}

void mzm_str_path(mzm_str *s, const char *dir, const char *name)
{
	mzm_str_puts(s, dir);
	if (s->len && s->data[s->len - 1] != '/')
		mzm_str_puts(s, "/");
	mzm_str_puts(s, name);
}

void mzm_str_free(mzm_str *s)
{
	mzm_free(s->data);
	*s = (mzm_str){0};
}
