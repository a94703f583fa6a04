/* err.h - status codes and the error record every fallible function fills.
 *
 * What can fail returns mzm_status and takes a last, nullable mzm_err *. The deepest function that
 * knows the reason fills it with the place and the reason; the first failure wins; callers forward
 * with MZM_TRY while they own nothing, else through one out: label. The types are public (mirzam.h). */
#ifndef MZM_ERR_H
#define MZM_ERR_H

#include "mirzam.h"

/* Forwards a failure. Only where the caller owns nothing yet. */
#define MZM_TRY(expr)                       \
	do {                                \
		mzm_status st_ = (expr);    \
		if (st_ != MZM_OK)          \
			return st_;         \
	} while (0)

/* Forwards a failure through the one clean-up label; needs `mzm_status st` in scope. */
#define MZM_TRY_OUT(expr)               \
	do {                            \
		st = (expr);            \
		if (st != MZM_OK)       \
			goto out;       \
	} while (0)

/* Records code and message unless err is NULL or already holds a failure. Returns code, so that
 * `return mzm_fail(err, MZM_EFORMAT, "...", ...)` is the one idiom. Long messages are cut. */
mzm_status mzm_fail(mzm_err *err, mzm_status code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "context: " in front of the message already in err (a file name before a reason). */
void mzm_err_prefix(mzm_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
