/* jinja_globals.c - functions that every template sees, and the look-up that all tables share.
 *
 * strftime_now prints the time that the caller handed in as the variable strftime_now ("2026-11-22T13:02:23"), in
 * English whatever the locale; without that variable it is undefined, and templates print what they have for it. */
#include "format/jinja_impl.h"

#include <stdio.h>

#define FUNCTION(name) static mzm_status name(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)

const mzm_jrow *mzm_jrow_find(const mzm_jrow *rows, const mzm_jv *name)
{
	for (; rows->name; rows++)
		if (mzm_jv_is(name, rows->name))
			return rows;
	return NULL;
}

FUNCTION(raise_exception)
{
	const mzm_jv *text = &args->v[0];
	(void)in;
	(void)out;
	if (text->kind != MZM_J_STR)
		return mzm_jrun_fail(r, MZM_EARG, "the template raised an exception");
	return mzm_fail(r->err, MZM_EARG, "%.*s", (int)text->len, text->s);
}

FUNCTION(make_range)
{
	int64_t from = 0, to, step = 1;
	mzm_jv *items;
	(void)in;
	for (uint32_t i = 0; i < args->n_pos; i++)
		if (!mzm_jv_is_whole(&args->pos[i]))
			return mzm_jrun_fail(r, MZM_EFORMAT, "range: %s is no whole number",
					     mzm_jv_kind(&args->pos[i]));
	if (args->n_pos < 1 || args->n_pos > 3 || args->n_named)
		return mzm_jrun_fail(r, MZM_EFORMAT, "range takes one to three numbers");
	to = mzm_jv_whole(&args->pos[args->n_pos > 1]);
	if (args->n_pos > 1)
		from = mzm_jv_whole(&args->pos[0]);
	if (args->n_pos > 2)
		step = mzm_jv_whole(&args->pos[2]);
	if (!step || step == INT64_MIN)
		return mzm_jrun_fail(r, MZM_EFORMAT, "range: a step of %lld", (long long)step);
	double span = step > 0 ? (double)to - (double)from : (double)from - (double)to;
	double count = span <= 0 ? 0 : span / (step > 0 ? (double)step : -(double)step);
	if (count > MZM_J_MAX_RANGE)
		return mzm_jrun_fail(r, MZM_EFORMAT, "range: more than %d numbers", MZM_J_MAX_RANGE);
	size_t n = 0;
	MZM_TRY(mzm_jv_room(r, &items, (size_t)count + 1));
	for (int64_t i = from; step > 0 ? i < to : i > to;) {
		items[n++] = mzm_jv_int(i);
		if (__builtin_add_overflow(i, step, &i))
			break;
	}
	return mzm_jv_list(r, out, MZM_J_RANGE, items, n);
}

/* namespace(dict, a=1) and dict(dict, a=1) */
static mzm_status gather(mzm_jrun *r, mzm_jv *out, const mzm_jargs *args, mzm_jkind kind)
{
	mzm_jv made;
	MZM_TRY(mzm_jv_dict(r, &made, kind, 0));
	if (args->n_pos > 1 || (args->n_pos && args->pos[0].kind != MZM_J_DICT))
		return mzm_jrun_fail(r, MZM_EUNSUPPORTED, "dict and namespace take one dict, and names with values");
	for (uint32_t i = 0; args->n_pos && i < args->pos[0].dict->n; i++)
		MZM_TRY(mzm_jv_put(r, made.dict, &args->pos[0].dict->keys[i], &args->pos[0].dict->values[i]));
	for (uint32_t i = 0; i < args->n_named; i++)
		MZM_TRY(mzm_jv_put(r, made.dict, &args->names[i], &args->named[i]));
	*out = made;
	return MZM_OK;
}

FUNCTION(make_namespace)
{
	(void)in;
	return gather(r, out, args, MZM_J_NAMESPACE);
}

FUNCTION(make_dict)
{
	(void)in;
	return gather(r, out, args, MZM_J_DICT);
}

/* ---- time ---- */

typedef struct moment {
	int year, month, day, hour, minute, second;
	int weekday, yearday; /* 0 = Sunday, 1 = January 1st */
} moment;

static int days_of(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	return days[month - 1] + (month == 2 && leap);
}

static bool read_moment(moment *out, const char *text)
{
	moment m = {0};
	int n = sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d", &m.year, &m.month, &m.day, &m.hour, &m.minute, &m.second);
	if ((n != 3 && n != 6) || m.year < 1 || m.month < 1 || m.month > 12 || m.day < 1 ||
	    m.day > days_of(m.year, m.month) || m.hour < 0 || m.hour > 23 || m.minute < 0 || m.minute > 59 ||
	    m.second < 0 || m.second > 60)
		return false;
	m.yearday = m.day;
	for (int month = 1; month < m.month; month++)
		m.yearday += days_of(m.year, month);
	int years = m.year - 1; /* January 1st of year 1 was a Monday */
	m.weekday = (years * 365 + years / 4 - years / 100 + years / 400 + m.yearday) % 7;
	*out = m;
	return true;
}

static const char *const months[] = {"January", "February", "March",     "April",   "May",      "June",
				     "July",    "August",   "September", "October", "November", "December"};
static const char *const weekdays[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};

/* One conversion; false: it is not supported. padded: 07, not 7. */
static bool print_part(char out[40], const moment *m, char what, bool padded)
{
	int hour12 = m->hour % 12 ? m->hour % 12 : 12, value, digits = 2;
	switch (what) {
	case 'a':
	case 'A':
		return snprintf(out, 40, what == 'a' ? "%.3s" : "%s", weekdays[m->weekday]) > 0;
	case 'b':
	case 'h':
	case 'B':
		return snprintf(out, 40, what != 'B' ? "%.3s" : "%s", months[m->month - 1]) > 0;
	case 'p':
		return snprintf(out, 40, "%s", m->hour < 12 ? "AM" : "PM") > 0;
	case 'F':
		return snprintf(out, 40, "%d-%02d-%02d", m->year, m->month, m->day) > 0;
	case 'T':
		return snprintf(out, 40, "%02d:%02d:%02d", m->hour, m->minute, m->second) > 0;
	case '%':
		return snprintf(out, 40, "%%") > 0;
	case 'Y':
		return snprintf(out, 40, "%d", m->year) > 0;
	default:
		break;
	}
	value = what == 'd' || what == 'e' ? m->day : what == 'm' ? m->month : what == 'H' ? m->hour :
		what == 'I' ? hour12 : what == 'M' ? m->minute : what == 'S' ? m->second : what == 'y' ? m->year % 100 :
		what == 'j' ? m->yearday : -1;
	digits = !padded ? 1 : what == 'j' ? 3 : 2;
	return value >= 0 && snprintf(out, 40, what == 'e' && padded ? "%*d" : "%0*d", digits, value) > 0;
}

FUNCTION(strftime_now)
{
	const mzm_jv *format = &args->v[0];
	mzm_jv text = mzm_jv_str("", 0);
	moment now;
	(void)in;
	if (format->kind != MZM_J_STR)
		return mzm_jrun_fail(r, MZM_EFORMAT, "strftime_now: the format is a string");
	if (!read_moment(&now, json_string_value(json_object_get(r->variables, "strftime_now"))))
		return mzm_jrun_fail(r, MZM_EARG, "strftime_now: the time is not like 2026-11-22T13:02:23");
	for (uint32_t i = 0; i < format->len; i++) {
		char part[40] = {format->s[i], 0};
		if (part[0] == '%') {
			bool bare = i + 1 < format->len && format->s[i + 1] == '-';
			i += 1 + bare;
			if (i >= format->len || !print_part(part, &now, format->s[i], !bare))
				return mzm_jrun_fail(r, MZM_EUNSUPPORTED,
						     "strftime_now: a conversion is not supported");
		}
		MZM_TRY(mzm_jv_append(r, &text, part, part[0] ? strlen(part) : 1));
	}
	*out = text;
	return MZM_OK;
}

const mzm_jrow mzm_jinja_strftime = {"strftime_now", "format", 1, strftime_now};

static const mzm_jrow globals[] = {
	{"dict", "*", 0, make_dict},
	{"namespace", "*", 0, make_namespace},
	{"raise_exception", "message", 1, raise_exception},
	{"range", "*", 0, make_range},
	{0},
};

const mzm_jrow *mzm_jinja_global(const mzm_jv *name)
{
	return mzm_jrow_find(globals, name);
}
