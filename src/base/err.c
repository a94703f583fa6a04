/* err.c - see err.h. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *mzm_status_text(mzm_status status)
{
	switch (status) {
#define X(name, code, text) \
	case MZM_##name:    \
		return text;
		MZM_STATUS_LIST(X)
#undef X
	}
	return "unknown status";
}

mzm_status mzm_fail(mzm_err *err, mzm_status code, const char *fmt, ...)
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

void mzm_err_prefix(mzm_err *err, const char *fmt, ...)
{
	if (!err || err->code == MZM_OK)
		return;
	char old[sizeof err->message];
	memcpy(old, err->message, sizeof old);
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(err->message, sizeof err->message, fmt, ap);
	va_end(ap);
	if (n < 0)
		n = 0;
	if ((size_t)n + 3 < sizeof err->message) {
		size_t room = sizeof err->message - (size_t)n;
		snprintf(err->message + n, room, ": %.*s", (int)(room - 3), old);
	}
}
