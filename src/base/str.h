/* str.h - a growing byte string. Allocation failure is sticky: test s->failed once, at the end. */
#ifndef MZM_STR_H
#define MZM_STR_H

#include "base/mem.h"

typedef struct mzm_str {
	char  *data;   /* NUL-terminated once anything was added; -> mzm_str_free */
	size_t len, cap;
	bool   failed;
} mzm_str;

void mzm_str_add(mzm_str *s, const void *bytes, size_t n);
void mzm_str_puts(mzm_str *s, const char *text);
void mzm_str_printf(mzm_str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void mzm_str_free(mzm_str *s);
/* Path: dir + "/" + name. */
void mzm_str_path(mzm_str *s, const char *dir, const char *name);

#endif
