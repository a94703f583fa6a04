/* problems.h - reads questions with reference answers, one JSON object a line.
 *
 * Needs {"question": text, "answer": text}; other members are ignored. A byte-order mark, CRLF ends,
 * blank lines and a last line without newline are fine. Anything else is a broken line: refused with
 * its number, or skipped and counted. The whole file is hashed, so that results know their data. */
#ifndef MZE_PROBLEMS_H
#define MZE_PROBLEMS_H

#include "mirzam.h"

#define MZE_MAX_LINE_BYTES ((size_t)1 << 20)
#define MZE_MAX_PROBLEMS   1000000

typedef struct mze_problem {
	char   *question, *answer; /* NUL-terminated, no NUL inside */
	int32_t line;              /* in the file, from 1 */
} mze_problem;

typedef struct mze_problems {
	mze_problem *item; /* [n] */
	int32_t n, cap;
	int32_t n_skipped;        /* broken lines left out */
	int32_t skipped_line[8];  /* the first of them */
	char    hash[33];         /* XXH3-128 of the file's bytes */
} mze_problems;

/* -> mze_problems_free, also after a failure. A file without a problem is an error. */
mzm_status mze_problems_read(mze_problems *out, const char *path, bool skip_bad, mzm_err *err);
void       mze_problems_free(mze_problems *problems);

/* One line into *out (strings -> free). err says what is wrong with it. */
mzm_status mze_problem_parse(mze_problem *out, const char *line, size_t len, mzm_err *err);

#endif
