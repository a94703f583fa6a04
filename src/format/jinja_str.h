/* jinja_str.h - operations on strings that filters and methods share; positions are in characters, as in Python. */
#ifndef MZM_JINJA_STR_H
#define MZM_JINJA_STR_H

#include "format/jinja_impl.h"

typedef enum mzm_jcase {
	MZM_JCASE_UPPER,
	MZM_JCASE_LOWER,
	MZM_JCASE_CAPITALIZE,
	MZM_JCASE_TITLE,        /* Python's: behind what has no case a word begins */
	MZM_JCASE_TITLE_FILTER, /* Jinja's: behind blanks and opening brackets */
} mzm_jcase;

typedef enum mzm_jstrip { MZM_JSTRIP_LEFT = 1, MZM_JSTRIP_RIGHT = 2, MZM_JSTRIP_BOTH = 3 } mzm_jstrip;

mzm_status mzm_jstr_case(mzm_jrun *r, mzm_jv *out, const mzm_jv *s, mzm_jcase how);
/* chars: absent or none means white space; else a string of the characters to take off. */
mzm_status mzm_jstr_strip(mzm_jrun *r, mzm_jv *out, const mzm_jv *s, const mzm_jv *chars, mzm_jstrip sides);
mzm_status mzm_jstr_replace(mzm_jrun *r, mzm_jv *out, const mzm_jv *s, const mzm_jv *old, const mzm_jv *fresh,
			    int64_t count); /* below 0: all */
mzm_status mzm_jstr_lines(mzm_jrun *r, mzm_jlist *out, const mzm_jv *s, bool keep_ends);
/* Byte position of the first (or last) place of what in s, SIZE_MAX where there is none. */
mzm_status mzm_jstr_find(mzm_jrun *r, size_t *out, const mzm_jv *s, const mzm_jv *what, bool last);

#endif
