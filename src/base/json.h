/* json.h - jansson behind typed, range-checked getters that name the place in their errors.
 *
 * Parsing refuses duplicate keys, bytes that are not UTF-8 and depth beyond jansson's 2,048 levels.
 * Whole numbers are read as reals (exact to 2^53), because model files hold integers beyond 64 bits
 * that nobody needs. Trees belong to the caller: json_decref. */
#ifndef MZM_JSON_H
#define MZM_JSON_H

#include <jansson.h>

#include "base/err.h"

/* where: what the message calls the text, e.g. a path. */
mzm_status mzm_json_parse(json_t **out, const char *text, size_t len, const char *where, mzm_err *err);

/* Members of an object. Absent or null gives the fallback; a wrong type or range is an error. */
mzm_status mzm_json_int(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t fallback, int64_t *out,
			mzm_err *err);
mzm_status mzm_json_real(const json_t *obj, const char *key, double min, double max, double fallback, double *out,
			 mzm_err *err);
mzm_status mzm_json_bool(const json_t *obj, const char *key, bool fallback, bool *out, mzm_err *err);
/* *out borrows from obj. */
mzm_status mzm_json_string(const json_t *obj, const char *key, const char *fallback, const char **out, mzm_err *err);

#endif
