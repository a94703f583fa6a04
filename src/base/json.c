/* json.c - see json.h. */
#include "base/json.h"

#include <math.h>

mzm_status mzm_json_parse(json_t **out, const char *text, size_t len, const char *where, mzm_err *err)
{
	json_error_t je;
	*out = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &je);
	if (!*out)
		return mzm_fail(err, MZM_EFORMAT, "%s: line %d, column %d: %s", where, je.line, je.column, je.text);
	return MZM_OK;
}

static const json_t *member(const json_t *obj, const char *key)
{
	const json_t *v = json_object_get(obj, key);
	return v && json_is_null(v) ? NULL : v;
}

mzm_status mzm_json_real(const json_t *obj, const char *key, double min, double max, double fallback, double *out,
			 mzm_err *err)
{
	const json_t *v = member(obj, key);
	*out = fallback;
	if (!v)
		return MZM_OK;
	if (!json_is_number(v))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is not a number", key);
	double d = json_number_value(v);
	if (!(d >= min && d <= max))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is %.9g, outside %.9g .. %.9g", key, d, min, max);
	*out = d;
	return MZM_OK;
}

mzm_status mzm_json_int(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t fallback, int64_t *out,
			mzm_err *err)
{
	double d;
	*out = fallback;
	if (!member(obj, key))
		return MZM_OK;
	MZM_TRY(mzm_json_real(obj, key, (double)min, (double)max, 0, &d, err));
	if (d != floor(d) || fabs(d) > 0x1p53)
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is %.17g, not a whole number", key, d);
	*out = (int64_t)d;
	return MZM_OK;
}

mzm_status mzm_json_bool(const json_t *obj, const char *key, bool fallback, bool *out, mzm_err *err)
{
	const json_t *v = member(obj, key);
	*out = fallback;
	if (!v)
		return MZM_OK;
	if (!json_is_boolean(v))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is neither true nor false", key);
	*out = json_is_true(v);
	return MZM_OK;
}

mzm_status mzm_json_string(const json_t *obj, const char *key, const char *fallback, const char **out, mzm_err *err)
{
	const json_t *v = member(obj, key);
	*out = fallback;
	if (!v)
		return MZM_OK;
	if (!json_is_string(v))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is not a string", key);
	*out = json_string_value(v);
	return MZM_OK;
}
