/* jinja_tests.c - the tests: what stands behind "is". */
#include "format/jinja_str.h"

static mzm_status say(mzm_jv *out, bool verdict)
{
	*out = mzm_jv_bool(verdict);
	return MZM_OK;
}

#define TEST(name) static mzm_status name(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jargs *args)
#define UNUSED     ((void)r, (void)args)

TEST(is_defined)
{
	UNUSED;
	return say(out, in->kind != MZM_J_UNDEFINED);
}

TEST(is_undefined)
{
	UNUSED;
	return say(out, in->kind == MZM_J_UNDEFINED);
}

TEST(is_none)
{
	UNUSED;
	return say(out, in->kind == MZM_J_NONE);
}

TEST(is_string)
{
	UNUSED;
	return say(out, in->kind == MZM_J_STR);
}

TEST(is_mapping)
{
	UNUSED;
	return say(out, in->kind == MZM_J_DICT);
}

TEST(is_iterable)
{
	UNUSED;
	return say(out, in->kind == MZM_J_UNDEFINED || (in->kind >= MZM_J_STR && in->kind <= MZM_J_DICT) ||
				in->kind == MZM_J_LOOP);
}

TEST(is_sequence)
{
	UNUSED;
	return say(out, in->kind == MZM_J_UNDEFINED || (in->kind >= MZM_J_STR && in->kind <= MZM_J_RANGE) ||
				in->kind == MZM_J_DICT);
}

TEST(is_number)
{
	UNUSED;
	return say(out, mzm_jv_is_number(in));
}

TEST(is_integer)
{
	UNUSED;
	return say(out, in->kind == MZM_J_INT);
}

TEST(is_float)
{
	UNUSED;
	return say(out, in->kind == MZM_J_FLOAT);
}

TEST(is_boolean)
{
	UNUSED;
	return say(out, in->kind == MZM_J_BOOL);
}

TEST(is_true)
{
	UNUSED;
	return say(out, in->kind == MZM_J_BOOL && in->b);
}

TEST(is_false)
{
	UNUSED;
	return say(out, in->kind == MZM_J_BOOL && !in->b);
}

TEST(is_callable)
{
	UNUSED;
	return say(out, in->kind >= MZM_J_MACRO);
}

static mzm_status remainder_is(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, const mzm_jv *by, int64_t wanted)
{
	mzm_jv rest, want = mzm_jv_int(wanted);
	bool same;
	if (!mzm_jv_is_number(in) || !mzm_jv_is_number(by))
		return mzm_jrun_fail(r, MZM_EFORMAT, "%s is not divided by %s", mzm_jv_kind(in), mzm_jv_kind(by));
	MZM_TRY(mzm_jrun_math(r, &rest, '%', in, by));
	MZM_TRY(mzm_jv_equal(r, &same, &rest, &want));
	return say(out, same);
}

TEST(is_odd)
{
	const mzm_jv two = mzm_jv_int(2);
	(void)args;
	return remainder_is(r, out, in, &two, 1);
}

TEST(is_even)
{
	const mzm_jv two = mzm_jv_int(2);
	(void)args;
	return remainder_is(r, out, in, &two, 0);
}

TEST(is_divisible)
{
	return remainder_is(r, out, in, &args->v[0], 0);
}

static mzm_status has_case(mzm_jrun *r, mzm_jv *out, const mzm_jv *in, mzm_jcase how)
{
	mzm_jv text, same, other;
	MZM_TRY(mzm_jv_text(r, &text, in));
	MZM_TRY(mzm_jstr_case(r, &same, &text, how));
	MZM_TRY(mzm_jstr_case(r, &other, &text, how == MZM_JCASE_UPPER ? MZM_JCASE_LOWER : MZM_JCASE_UPPER));
	return say(out, mzm_jv_same_text(&same, &text) && !mzm_jv_same_text(&other, &text));
}

TEST(is_upper)
{
	(void)args;
	return has_case(r, out, in, MZM_JCASE_UPPER);
}

TEST(is_lower)
{
	(void)args;
	return has_case(r, out, in, MZM_JCASE_LOWER);
}

static mzm_status compare(mzm_jrun *r, mzm_jv *out, char op, const mzm_jv *a, const mzm_jv *b)
{
	bool holds;
	MZM_TRY(mzm_jrun_compare(r, &holds, op, a, b));
	return say(out, holds);
}

TEST(is_eq)
{
	return compare(r, out, MZM_JOP_EQ, in, &args->v[0]);
}

TEST(is_ne)
{
	return compare(r, out, MZM_JOP_NE, in, &args->v[0]);
}

TEST(is_lt)
{
	return compare(r, out, '<', in, &args->v[0]);
}

TEST(is_le)
{
	return compare(r, out, MZM_JOP_LE, in, &args->v[0]);
}

TEST(is_gt)
{
	return compare(r, out, '>', in, &args->v[0]);
}

TEST(is_ge)
{
	return compare(r, out, MZM_JOP_GE, in, &args->v[0]);
}

TEST(is_in)
{
	return compare(r, out, MZM_JOP_IN, in, &args->v[0]);
}

/* Whether two values are one object: only asked for true, false and none. */
TEST(is_sameas)
{
	const mzm_jv *other = &args->v[0];
	if (other->kind != MZM_J_NONE && other->kind != MZM_J_BOOL)
		return mzm_jrun_fail(r, MZM_EUNSUPPORTED, "sameas: only true, false and none can be the same");
	return say(out, in->kind == other->kind && (in->kind == MZM_J_NONE || in->b == other->b));
}

static const mzm_jrow tests[] = {
	{"!=", "value", 1, is_ne},
	{"<", "value", 1, is_lt},
	{"<=", "value", 1, is_le},
	{"==", "value", 1, is_eq},
	{">", "value", 1, is_gt},
	{">=", "value", 1, is_ge},
	{"boolean", "", 0, is_boolean},
	{"callable", "", 0, is_callable},
	{"defined", "", 0, is_defined},
	{"divisibleby", "num", 1, is_divisible},
	{"eq", "value", 1, is_eq},
	{"equalto", "value", 1, is_eq},
	{"even", "", 0, is_even},
	{"false", "", 0, is_false},
	{"float", "", 0, is_float},
	{"ge", "value", 1, is_ge},
	{"greaterthan", "value", 1, is_gt},
	{"gt", "value", 1, is_gt},
	{"in", "seq", 1, is_in},
	{"integer", "", 0, is_integer},
	{"iterable", "", 0, is_iterable},
	{"le", "value", 1, is_le},
	{"lessthan", "value", 1, is_lt},
	{"lower", "", 0, is_lower},
	{"lt", "value", 1, is_lt},
	{"mapping", "", 0, is_mapping},
	{"ne", "value", 1, is_ne},
	{"none", "", 0, is_none},
	{"number", "", 0, is_number},
	{"odd", "", 0, is_odd},
	{"sameas", "other", 1, is_sameas},
	{"sequence", "", 0, is_sequence},
	{"string", "", 0, is_string},
	{"true", "", 0, is_true},
	{"undefined", "", 0, is_undefined},
	{"upper", "", 0, is_upper},
	{0},
};

const mzm_jrow *mzm_jinja_test(const mzm_jv *name)
{
	return mzm_jrow_find(tests, name);
}
