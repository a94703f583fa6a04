/* test_calib.c - side-cars: what is written is read, and nothing else is. */
#include "testing.h"

#include <errno.h>
#include <math.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/half.h"
#include "format/calib.h"
#include "temp_dir.h"

#define HASH  "0123456789abcdef0123456789abcdef"
#define OTHER "0123456789abcdef0123456789abcdee"
enum { DIGITS_AT = 8 + 56 }; /* of the checksum: behind the length and the fixed bytes */

static float values[12];

static mzm_calib_writer *filled(void)
{
	mzm_calib_writer *w;
	uint16_t halves[5];
	for (int i = 0; i < 12; i++)
		values[i] = (float)(i - 6) / 4;
	for (int i = 0; i < 5; i++)
		halves[i] = mzm_f32_to_f16((float)i);
	assert_int_equal(mzm_calib_create(&w, HASH, NULL), MZM_OK);
	assert_int_equal(mzm_calib_add(w, "one", 0, MZM_F32, 3, 4, values, NULL), MZM_OK);
	assert_int_equal(mzm_calib_add(w, "odd", 1, MZM_F16, 1, 5, halves, NULL), MZM_OK);
	assert_int_equal(mzm_calib_add(w, "one", 1, MZM_F32, 4, 3, values, NULL), MZM_OK);
	assert_int_equal(mzm_calib_add(w, "part.a", 10, MZM_BF16, 5, 1, halves, NULL), MZM_OK);
	assert_int_equal(mzm_calib_add(w, "whole", -1, MZM_F32, 1, 12, values, NULL), MZM_OK);
	return w;
}

static void write_file(void)
{
	mzm_err err = {0};
	mzm_calib_writer *w = filled();
	json_t *info = json_pack("{s:i, s:s}", "n", 7, "text", "a \"quoted\" \\ line\n");
	assert_int_equal(mzm_calib_finish(w, path, info, &err), MZM_OK);
	json_decref(info);
	mzm_calib_writer_free(w);
}

static mzm_status opens(mzm_err *err)
{
	mzm_calib *c;
	mzm_err none = {0};
	mzm_err *to = err ? err : &none;
	*to = none;
	mzm_status st = mzm_calib_open(&c, path, HASH, to);
	assert_int_equal(st, to->code);
	assert_true(st == MZM_OK ? c != NULL : c == NULL && to->message[0] != 0);
	mzm_calib_close(c);
	return st;
}

static void check_contents(const mzm_calib *c)
{
	const float *one = mzm_calib_find(c, "one", 1, MZM_F32, 4, 3);
	const uint16_t *odd = mzm_calib_find(c, "odd", 1, MZM_F16, 1, 5);
	assert_non_null(one);
	assert_non_null(odd);
	assert_int_equal((uintptr_t)one % 64, 0);
	assert_int_equal((uintptr_t)odd % 64, 0);
	assert_memory_equal(one, values, sizeof values);
	assert_true(mzm_f16_to_f32(odd[4]) == 4);
	assert_non_null(mzm_calib_find(c, "one", 0, MZM_F32, 3, 4));
	assert_non_null(mzm_calib_find(c, "part.a", 10, MZM_BF16, 5, 1));
	assert_non_null(mzm_calib_find(c, "whole", -1, MZM_F32, 1, 12));

	assert_null(mzm_calib_find(c, "one", 0, MZM_F32, 4, 3)); /* the shape of the other layer's */
	assert_null(mzm_calib_find(c, "one", 2, MZM_F32, 4, 3));
	assert_null(mzm_calib_find(c, "one", -1, MZM_F32, 4, 3));
	assert_null(mzm_calib_find(c, "odd", 1, MZM_BF16, 1, 5));
	assert_null(mzm_calib_find(c, "part", 10, MZM_BF16, 5, 1));
	assert_null(mzm_calib_find(NULL, "one", 0, MZM_F32, 3, 4));

	assert_int_equal(mzm_calib_count(c, "one", 2), 2);
	assert_int_equal(mzm_calib_count(c, "one", 11), 2);
	assert_int_equal(mzm_calib_count(c, "odd", 2), 1);
	assert_int_equal(mzm_calib_count(c, "part", 11), 1);
	assert_int_equal(mzm_calib_count(c, "par", 11), 0);
	assert_int_equal(mzm_calib_count(c, "whole", 11), 0);
	assert_int_equal(mzm_calib_count(NULL, "one", 2), 0);
}

static void reads_what_was_written(void **state)
{
	mzm_calib *c;
	mzm_err err = {0};
	(void)state;
	write_file();
	assert_int_equal(mzm_calib_open(&c, path, HASH, &err), MZM_OK);
	check_contents(c);
	assert_string_equal(json_string_value(json_object_get(mzm_calib_info(c), "text")), "a \"quoted\" \\ line\n");
	assert_true(mzm_calib_bytes(c) >= 3 * sizeof values && mzm_calib_bytes(c) < 1024);
	mzm_calib_close(c);
	size_t n;
	char *bytes = testing_read(path, &n);
	assert_int_equal((8 + (size_t)(unsigned char)bytes[0] + 256 * (size_t)(unsigned char)bytes[1]) % 64, 0);
	free(bytes);
	assert_int_equal(testing_dir_entries(dir), 1);
}

static void preview_is_the_same(void **state)
{
	mzm_calib *c;
	mzm_calib_writer *w = filled();
	(void)state;
	assert_int_equal(mzm_calib_preview(&c, w, NULL), MZM_OK);
	check_contents(c);
	mzm_calib_close(c);
	mzm_calib_writer_free(w);
	assert_int_equal(mzm_calib_create(&w, HASH, NULL), MZM_OK);
	assert_int_equal(mzm_calib_preview(&c, w, NULL), MZM_OK);
	assert_null(mzm_calib_find(c, "one", 0, MZM_F32, 3, 4));
	mzm_calib_close(c);
	mzm_calib_writer_free(w);
}

static void empty_one_is_fine(void **state)
{
	mzm_calib *c;
	mzm_calib_writer *w;
	json_t *info = json_object();
	(void)state;
	assert_int_equal(mzm_calib_create(&w, HASH, NULL), MZM_OK);
	assert_int_equal(mzm_calib_finish(w, path, info, NULL), MZM_OK);
	assert_int_equal(mzm_calib_open(&c, path, HASH, NULL), MZM_OK);
	assert_null(mzm_calib_find(c, "one", 0, MZM_F32, 1, 1));
	mzm_calib_close(c);
	mzm_calib_writer_free(w);
	json_decref(info);
}

static void other_models_are_refused(void **state)
{
	mzm_calib *c;
	mzm_err err = {0};
	(void)state;
	write_file();
	assert_int_equal(mzm_calib_open(&c, path, OTHER, &err), MZM_EFORMAT);
	assert_null(c);
	assert_non_null(strstr(err.message, HASH));
	assert_non_null(strstr(err.message, OTHER));
	assert_non_null(strstr(err.message, path));
}

static void absent_and_odd_files_are_refused(void **state)
{
	mzm_err err;
	(void)state;
	assert_int_equal(opens(&err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, path));
	testing_write(path, "", 0);
	assert_int_equal(opens(&err), MZM_EFORMAT);
	testing_write(path, "\377\377\377\377\377\377\377\177{}", 10);
	assert_int_equal(opens(&err), MZM_EFORMAT);
	remove(path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(opens(&err), MZM_EIO);
}

static void every_truncation_is_found(void **state)
{
	size_t n;
	(void)state;
	write_file();
	char *bytes = testing_read(path, &n);
	for (size_t len = 0; len < n; len++) {
		testing_write(path, bytes, len);
		assert_int_equal(opens(NULL), MZM_EFORMAT);
	}
	char *longer = calloc(n + 1, 1);
	assert_non_null(longer);
	memcpy(longer, bytes, n);
	testing_write(path, longer, n + 1);
	assert_int_equal(opens(NULL), MZM_EFORMAT);
	free(longer);
	free(bytes);
}

static void every_changed_byte_is_found(void **state)
{
	size_t n;
	(void)state;
	write_file();
	char *bytes = testing_read(path, &n);
	long n_bits = testing_count(2, 8);
	for (size_t i = 0; i < n; i++)
		for (long k = 0; k < n_bits; k++) {
			char was = bytes[i];
			bytes[i] = (char)(was ^ 1 << (n_bits == 8 ? k : k * 5));
			testing_write(path, bytes, n);
			assert_int_equal(opens(NULL), MZM_EFORMAT);
			bytes[i] = was;
		}
	testing_write(path, bytes, n);
	assert_int_equal(opens(NULL), MZM_OK);
	free(bytes);
}

/* Puts the right checksum in, so that what is behind it is put to the test. */
static void seal(char *bytes, size_t n)
{
	char hex[17];
	memset(bytes + DIGITS_AT, '0', 16);
	snprintf(hex, sizeof hex, "%016llx", (unsigned long long)XXH3_64bits(bytes, n));
	memcpy(bytes + DIGITS_AT, hex, 16);
}

static void replace(char *bytes, size_t n, const char *was, const char *with)
{
	char *at = memmem(bytes, n, was, strlen(was));
	assert_non_null(at);
	assert_int_equal(strlen(was), strlen(with));
	memcpy(at, with, strlen(with));
}

/* A file that is sealed, but says something that it must not. */
static void expect_refused(const char *was, const char *with, const char *why)
{
	size_t n;
	mzm_err err;
	write_file();
	char *bytes = testing_read(path, &n);
	replace(bytes, n, was, with);
	seal(bytes, n);
	testing_write(path, bytes, n);
	assert_int_equal(opens(&err), MZM_EFORMAT);
	if (!strstr(err.message, why))
		fail_msg("\"%s\" does not say \"%s\"", err.message, why);
	free(bytes);
}

static void sealed_nonsense_is_refused(void **state)
{
	size_t n;
	(void)state;
	write_file();
	char *bytes = testing_read(path, &n);
	seal(bytes, n);
	testing_write(path, bytes, n);
	assert_int_equal(opens(NULL), MZM_OK); /* the seal is right */
	free(bytes);
	expect_refused("\"shape\":[3,4]", "\"shape\":[4,4]", "spans");
	expect_refused("\"shape\":[3,4]", "\"shape\":[9e9]", "");
	expect_refused("\"shape\":[3,4]", "\"shape\":[ 12]", "not a matrix");
	expect_refused("\"BF16\"", "\"U16\" ", "not a matrix");
	expect_refused("\"BF16\"", "\"Q16_\"", "unknown dtype");
	expect_refused("[0,48]", "[1,49]", "");
	expect_refused("\"layers.0.one\"", "\"layers.1.one\"", "");
	expect_refused("\"info\":\"{", "\"info\":\"[", "info");
	expect_refused("calibration 1", "calibration 2", "version");
}

static void numbers_that_are_none_are_refused(void **state)
{
	size_t n;
	mzm_err err;
	mzm_calib_writer *w = filled();
	float bad[] = {1, NAN}, big[] = {INFINITY};
	uint16_t half[] = {0x7c00}, brain[] = {0xff80};
	(void)state;
	assert_int_equal(mzm_calib_add(w, "a", 0, MZM_F32, 1, 2, bad, NULL), MZM_EFORMAT);
	assert_int_equal(mzm_calib_add(w, "a", 0, MZM_F32, 1, 1, big, NULL), MZM_EFORMAT);
	assert_int_equal(mzm_calib_add(w, "a", 0, MZM_F16, 1, 1, half, NULL), MZM_EFORMAT);
	assert_int_equal(mzm_calib_add(w, "a", 0, MZM_BF16, 1, 1, half, NULL), MZM_OK);
	assert_int_equal(mzm_calib_add(w, "b", 0, MZM_BF16, 1, 1, brain, NULL), MZM_EFORMAT);
	mzm_calib_writer_free(w);
	write_file();
	char *bytes = testing_read(path, &n);
	memcpy(bytes + n - sizeof bad, bad, sizeof bad);
	seal(bytes, n);
	testing_write(path, bytes, n);
	assert_int_equal(opens(&err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "whole"));
	free(bytes);
}

static void names_and_shapes_are_checked(void **state)
{
	mzm_calib_writer *w = filled();
	static const char *const names[] = {"", "A", "a b", "layers.0.one", "a/b", "a\"b"};
	char name[80];
	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		assert_int_equal(mzm_calib_add(w, names[i], 0, MZM_F32, 1, 1, values, NULL), MZM_EARG);
	memset(name, 'x', sizeof name);
	name[65] = 0;
	assert_int_equal(mzm_calib_add(w, name, 0, MZM_F32, 1, 1, values, NULL), MZM_EARG);
	name[64] = 0;
	assert_int_equal(mzm_calib_add(w, name, 4095, MZM_F32, 1, 1, values, NULL), MZM_OK);
	assert_int_equal(mzm_calib_add(w, "one", 0, MZM_F32, 1, 1, values, NULL), MZM_EARG); /* twice */
	assert_int_equal(mzm_calib_add(w, "c", 0, MZM_Q8, 1, 32, values, NULL), MZM_EARG);
	assert_int_equal(mzm_calib_add(w, "c", 0, MZM_F32, 0, 1, values, NULL), MZM_EARG);
	assert_int_equal(mzm_calib_add(w, "c", -2, MZM_F32, 1, 1, values, NULL), MZM_EARG);
	assert_int_equal(mzm_calib_add(w, "c", 0, MZM_F32, 1 << 20, 1 << 20, values, NULL), MZM_EUNSUPPORTED);
	mzm_calib_writer_free(w);
}

static void failed_memory_is_reported(void **state)
{
	long nth = 1;
	mzm_status st = MZM_ENOMEM;
	(void)state;
	write_file();
	size_t live = mzm_mem_live();
	for (; st != MZM_OK; nth++) {
		mzm_calib *c;
		mzm_mem_fail_nth(nth);
		st = mzm_calib_open(&c, path, HASH, NULL);
		mzm_mem_fail_nth(0);
		assert_true(st == MZM_OK || st == MZM_ENOMEM);
		mzm_calib_close(c);
		assert_int_equal(mzm_mem_live(), live);
	}
	assert_true(nth > 5);
}

static void failed_writes_leave_the_old_file(void **state)
{
	size_t n, m;
	json_t *info = json_object();
	mzm_calib_writer *w = filled();
	(void)state;
	write_file();
	char *before = testing_read(path, &n);
	mzm_status st = MZM_EIO;
	long nth = 1;
	for (; st != MZM_OK && nth < 100; nth++) {
		mzm_io_fail_nth(nth, ENOSPC);
		st = mzm_calib_finish(w, path, info, NULL);
		mzm_io_fail_nth(0, 0);
		char *after = testing_read(path, &m);
		assert_true(st == MZM_OK || (st == MZM_EIO && m == n && memcmp(before, after, n) == 0));
		free(after);
		assert_int_equal(testing_dir_entries(dir), 1);
	}
	assert_true(nth > 4 && st == MZM_OK);
	free(before);
	json_decref(info);
	mzm_calib_writer_free(w);
}

static void wrong_reads_are_found(void **state)
{
	mzm_status st = MZM_EFORMAT;
	(void)state;
	write_file();
	for (long nth = 1; nth < 9; nth++) {
		mzm_calib *c;
		mzm_io_fail_nth(nth, -1);
		st = mzm_calib_open(&c, path, HASH, NULL);
		long calls = mzm_io_fail_nth(0, 0);
		assert_true(calls < nth ? st == MZM_OK : st != MZM_OK);
		mzm_calib_close(c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_DIR(reads_what_was_written),		IN_DIR(preview_is_the_same),
		IN_DIR(empty_one_is_fine),		IN_DIR(other_models_are_refused),
		IN_DIR(absent_and_odd_files_are_refused), IN_DIR(every_truncation_is_found),
		IN_DIR(every_changed_byte_is_found),	IN_DIR(sealed_nonsense_is_refused),
		IN_DIR(numbers_that_are_none_are_refused), IN_DIR(names_and_shapes_are_checked),
		IN_DIR(failed_memory_is_reported),	IN_DIR(failed_writes_leave_the_old_file),
		IN_DIR(wrong_reads_are_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
