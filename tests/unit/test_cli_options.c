/* test_cli_options.c - the program's option parser, help, amounts, files and derived numbers.
 *
 * Needs no model. Messages are read back from stderr, which each parse has pointed at a temporary file. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/cli.h"

#define ARRAY_LEN(a) ((int)(sizeof(a) / sizeof(a)[0]))

struct mine {
	bool flag;
	const char *text, *fruit;
	mzm_cli_list list;
	int32_t number, kind;
	float share;
	uint64_t big, size;
};

static const char *fruit(int i)
{
	static const char *const names[] = {"apple", "banana", "cherry"};
	return i < ARRAY_LEN(names) ? names[i] : NULL;
}

#define AT(field) .at = offsetof(struct mine, field)

static const mzm_opt rows[] = {
	{.name = "flag", .letter = 'F', .type = MZM_OPT_FLAG, AT(flag), .help = "A flag."},
	{.name = "text", .letter = 't', .type = MZM_OPT_STRING, AT(text), .arg = "TEXT", .help = "A text."},
	{.name = "list", .type = MZM_OPT_LIST, AT(list), .arg = "TEXT", .help = "Again and again."},
	{.name = "number", .letter = 'n', .type = MZM_OPT_INT, AT(number), .min = -3, .max = 32, .word = "auto",
	 .word_value = 99, .word2 = "off", .word2_value = 77, .arg = "N", .group = "Numbers", .help = "A number."},
	{.name = "share", .type = MZM_OPT_FLOAT, AT(share), .open_min = true, .max = 1, .group = "Numbers",
	 .help = "A share."},
	{.name = "big", .type = MZM_OPT_U64, AT(big), .group = "Numbers", .help = "A big number."},
	{.name = "size", .type = MZM_OPT_SIZE, AT(size), .max = 1e12, .group = "Numbers", .help = "A size."},
	{.name = "kind", .type = MZM_OPT_ENUM, AT(kind), .choice = fruit, .help = "A kind."},
	{.name = "fruit", .type = MZM_OPT_CHOICE, AT(fruit), .choice = fruit, .help = "A fruit."},
};

static const mzm_cli_command command = {.name = "try",
					.usage = "[options] FILE",
					.summary = "For the tests.",
					.examples = "mirzam try a\nmirzam try b"};

static struct mine got;
static mzm_cli_args args;
static char said[8192]; /* on stderr, or stdout for help */

/* Runs the parser on a command line with one stream captured; arguments end at NULL. */
static int parse_on(FILE *stream, char **argv)
{
	int argc = 0, saved = dup(fileno(stream));
	FILE *temp = tmpfile();
	assert_non_null(temp);
	while (argv[argc])
		argc++;
	fflush(stream);
	dup2(fileno(temp), fileno(stream));
	mzm_cli_list_free(&got.list);
	got = (struct mine){.share = 0.5f, .number = 7, .kind = 1};
	args = (mzm_cli_args){.max = 2};
	const mzm_opt_table tables[] = {{rows, ARRAY_LEN(rows), &got}, mzm_cli_common_table()};
	int code = mzm_cli_parse(&command, tables, ARRAY_LEN(tables), argc, argv, &args);
	fflush(stream);
	dup2(saved, fileno(stream));
	close(saved);
	rewind(temp);
	said[fread(said, 1, sizeof said - 1, temp)] = 0;
	fclose(temp);
	return code;
}

#define PARSE(...) parse_on(stderr, (char *[]){"try", __VA_ARGS__, NULL})
#define HELP(...)  parse_on(stdout, (char *[]){"try", __VA_ARGS__, NULL})

static void assert_says(const char *text)
{
	if (!strstr(said, text))
		fail_msg("expected \"%s\" in:\n%s", text, said);
}

static void reads_every_type(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--flag", "--text", "a b", "--number=-3", "--share", "1e-3", "--big",
			       "18446744073709551615", "--size", "1.5G", "--kind", "cherry", "--fruit=apple", "--list",
			       "x", "--list=y"),
			 MZM_CLI_GO);
	assert_true(got.flag);
	assert_string_equal(got.text, "a b");
	assert_int_equal(got.number, -3);
	assert_true(got.share == 1e-3f);
	assert_true(got.big == UINT64_MAX);
	assert_true(got.size == (uint64_t)3 << 29);
	assert_int_equal(got.kind, 2);
	assert_string_equal(got.fruit, "apple");
	assert_int_equal(got.list.n, 2);
	assert_string_equal(got.list.item[1], "y");
}

static void short_forms_and_arguments(void **state)
{
	(void)state;
	assert_int_equal(PARSE("-n5", "one", "-t", "-F", "-F", "--", "--flag"), MZM_CLI_GO);
	assert_int_equal(got.number, 5);
	assert_string_equal(got.text, "-F");
	assert_true(got.flag);
	assert_int_equal(args.n, 2);
	assert_string_equal(args.item[0], "one");
	assert_string_equal(args.item[1], "--flag");
	assert_int_equal(PARSE("-"), MZM_CLI_GO);
	assert_string_equal(args.item[0], "-");
	assert_int_equal(PARSE("--text="), MZM_CLI_GO);
	assert_string_equal(got.text, "");
	assert_int_equal(PARSE("--number", "auto"), MZM_CLI_GO);
	assert_int_equal(got.number, 99);
	assert_int_equal(PARSE("--number", "off", "--number=4"), MZM_CLI_GO);
	assert_int_equal(got.number, 4); /* the last one counts */
}

static void sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t    bytes;
	} good[] = {{"0", 0}, {"123", 123}, {"64K", 65536}, {"64k", 65536}, {"2MiB", 2 << 20}, {"1GB", 1 << 30}};
	static const char *const bad[] = {"", "K", "-1", "1X", "1KK", "2T", "0x10", "1e99", "inf", "1 K"};
	(void)state;
	for (int i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(PARSE("--size", (char *)(uintptr_t)good[i].text), MZM_CLI_GO);
		assert_true(got.size == good[i].bytes);
	}
	for (int i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(PARSE("--size", (char *)(uintptr_t)bad[i]), MZM_CLI_USAGE);
	assert_says("--size wants a size from 0 bytes to 931 GiB");
}

static void refuses_what_is_no_number(void **state)
{
	static const char *const words[] = {"",      " 5", "5 ", "5x", "0x5", "nan", "inf",
					    "1e999", "--", "+",  "33", "-4",  "5.5", "99999999999999999999",
					    "1e1"};
	static const char *const shares[] = {"",       "0",     "-0.5", "1.0001", "nan", "inf",
					     "0x1p-1", "1e999", ".",    "half",   " .5"};
	static const char *const bigs[] = {"", "-1", "+1", "18446744073709551616", "1.0", " 1"};
	(void)state;
	for (int i = 0; i < ARRAY_LEN(words); i++)
		assert_int_equal(PARSE("--number", (char *)(uintptr_t)words[i]), MZM_CLI_USAGE);
	for (int i = 0; i < ARRAY_LEN(shares); i++)
		assert_int_equal(PARSE("--share", (char *)(uintptr_t)shares[i]), MZM_CLI_USAGE);
	for (int i = 0; i < ARRAY_LEN(bigs); i++)
		assert_int_equal(PARSE("--big", (char *)(uintptr_t)bigs[i]), MZM_CLI_USAGE);
	assert_int_equal(got.number, 7);
	assert_true(got.share == 0.5f);
}

static void messages_name_option_value_and_range(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--share", "2"), MZM_CLI_USAGE);
	assert_string_equal(
		said, "mirzam: --share wants a number above 0 and at most 1, not \"2\"\ntry: mirzam try --help\n");
	assert_int_equal(PARSE("-n", "x"), MZM_CLI_USAGE);
	assert_says("--number wants a whole number from -3 to 32, auto or off, not \"x\"");
	assert_int_equal(PARSE("--kind", "bananna"), MZM_CLI_USAGE);
	assert_says("--kind wants one of apple, banana, cherry, not \"bananna\"; did you mean banana?");
	assert_int_equal(PARSE("--share"), MZM_CLI_USAGE);
	assert_says("--share needs a value: a number above 0");
	assert_int_equal(PARSE("--flag=1"), MZM_CLI_USAGE);
	assert_says("--flag takes no value");
	assert_int_equal(PARSE("--nubmer", "3"), MZM_CLI_USAGE);
	assert_says("unknown option --nubmer; did you mean --number?");
	assert_int_equal(PARSE("--num=3"), MZM_CLI_USAGE);
	assert_says("unknown option --num; did you mean --number?");
	assert_int_equal(PARSE("--zzzzzzzz"), MZM_CLI_USAGE);
	assert_says("unknown option --zzzzzzzz\n");
	assert_int_equal(PARSE("-z"), MZM_CLI_USAGE);
	assert_says("unknown option -z\n");
	assert_int_equal(PARSE("a", "b", "c"), MZM_CLI_USAGE);
	assert_says("unexpected argument \"c\"");
	assert_int_equal(PARSE("--text\033[31m"), MZM_CLI_USAGE);
	assert_null(strchr(said, '\033'));
}

static void given_options_are_known(void **state)
{
	(void)state;
	assert_int_equal(PARSE("-n3"), MZM_CLI_GO);
	assert_true(mzm_cli_was_given("number"));
	assert_false(mzm_cli_was_given("share"));
	assert_int_equal(PARSE("a"), MZM_CLI_GO);
	assert_false(mzm_cli_was_given("number"));
}

static void help_shows_groups_and_defaults(void **state)
{
	(void)state;
	assert_int_equal(HELP("--share", "0.25", "--help"), MZM_CLI_DONE);
	assert_says("Usage: mirzam try [options] FILE\n");
	assert_says("\nNumbers\n");
	assert_says("-n, --number N");
	assert_says("A share. [default: 0.5]"); /* not the 0.25 of the same command line */
	assert_says("One of: apple, banana, cherry.\n                            [default: banana]");
	assert_says("\nExamples\n  mirzam try a\n  mirzam try b\n");
	assert_says("--color WHEN");
	for (const char *line = said; *line;) {
		size_t n = strcspn(line, "\n");
		if (n > 80)
			fail_msg("wider than 80 columns: %.*s", (int)n, line);
		line += n + (line[n] != 0);
	}
	for (int i = 0; i < ARRAY_LEN(rows); i++) {
		char option[64];
		snprintf(option, sizeof option, " --%s", rows[i].name);
		assert_says(option);
	}
	assert_int_not_equal(HELP("--text", "--help"), MZM_CLI_DONE); /* a value is no option */
	assert_string_equal(got.text, "--help");
}

static void earlier_table_wins(void **state)
{
	static const mzm_opt other[] = {
		{.name = "number", .letter = 'n', .type = MZM_OPT_STRING, AT(text), .help = "A text here."}};
	struct mine first = {0}, second = {0};
	mzm_cli_args none = {0};
	char *argv[] = {"try", "-n", "word", NULL};
	const mzm_opt_table tables[] = {{other, 1, &first}, {rows, ARRAY_LEN(rows), &second}};
	(void)state;
	assert_int_equal(mzm_cli_parse(&command, tables, 2, 3, argv, &none), MZM_CLI_GO);
	assert_string_equal(first.text, "word");
	assert_int_equal(second.number, 0);
	FILE *f = tmpfile();
	assert_non_null(f);
	mzm_cli_print_help(f, &command, tables, 2);
	rewind(f);
	said[fread(said, 1, sizeof said - 1, f)] = 0;
	fclose(f);
	assert_says("A text here.");
	assert_null(strstr(said, "A number."));
}

static void decoding_options_fill_the_params(void **state)
{
	mzm_cli_decode d = mzm_cli_decode_default();
	mzm_cli_args none = {0};
	char *argv[] = {"try",  "--mode",   "sirius",   "--keep",       "0.25",   "--period", "auto", "--threshold",
			"0.05", "--accept", "relative", "--predictor",  "topk",   "-n",       "9",    "--stop",
			"a",    "--stop",   "b",        "--ignore-eos", "--seed", "5",
			"--check-below", "0.8", NULL};
	const mzm_opt_table tables[] = {mzm_cli_decode_table(&d)};
	(void)state;
	assert_int_equal(mzm_cli_parse(&command, tables, 1, ARRAY_LEN(argv) - 1, argv, &none), MZM_CLI_GO);
	assert_int_equal(mzm_cli_decode_finish(&command, &d), MZM_CLI_GO);
	assert_int_equal(d.gen.mode, MZM_MODE_SIRIUS);
	assert_true(d.gen.keep == 0.25f);
	assert_int_equal(d.gen.period, 0);
	assert_true(d.gen.check_below == 0.8f);
	assert_true(d.gen.threshold == 0.05f);
	assert_int_equal(d.gen.accept, MZM_ACCEPT_RELATIVE);
	assert_string_equal(d.gen.predictor, "topk");
	assert_int_equal(d.gen.max_tokens, 9);
	assert_int_equal(d.gen.n_stop, 2);
	assert_string_equal(d.gen.stop[1], "b");
	assert_true(d.gen.ignore_eos);
	assert_true(d.gen.seed == 5);
	mzm_cli_decode_free(&d);
}

static void exit_codes(void **state)
{
	(void)state;
	assert_int_equal(mzm_cli_exit_code(MZM_OK), 0);
	assert_int_equal(mzm_cli_exit_code(MZM_EARG), 2);
	assert_int_equal(mzm_cli_exit_code(MZM_EUNDEFINED), 2);
	assert_int_equal(mzm_cli_exit_code(MZM_EFORMAT), 3);
	assert_int_equal(mzm_cli_exit_code(MZM_EUNSUPPORTED), 3);
	assert_int_equal(mzm_cli_exit_code(MZM_EIO), 1);
	assert_int_equal(mzm_cli_exit_code(MZM_ENOMEM), 1);
	assert_int_equal(mzm_cli_exit_code(MZM_ECONTEXT), 1);
	assert_int_equal(mzm_cli_exit_code(MZM_EINTERNAL), 1);
	assert_int_equal(mzm_cli_exit_code(MZM_ECANCELLED), 130);
}

static void amounts(void **state)
{
	char buf[32];
	(void)state;
	assert_string_equal(mzm_cli_format_bytes(buf, 999), "999 bytes");
	assert_string_equal(mzm_cli_format_bytes(buf, 1536), "1.5 KiB");
	assert_string_equal(mzm_cli_format_bytes(buf, (uint64_t)1 << 30), "1.0 GiB");
	assert_string_equal(mzm_cli_format_bytes(buf, ((uint64_t)1 << 30) - 1), "1.0 GiB");
	assert_string_equal(mzm_cli_format_bytes(buf, UINT64_MAX), "16384 PiB");
	assert_string_equal(mzm_cli_format_count(buf, 950), "950");
	assert_string_equal(mzm_cli_format_count(buf, 34500), "34.5k");
	assert_string_equal(mzm_cli_format_seconds(buf, .25), "250 ms");
	assert_string_equal(mzm_cli_format_seconds(buf, 9.4), "9.4s");
	assert_string_equal(mzm_cli_format_seconds(buf, 59.99), "1m00s");
	assert_string_equal(mzm_cli_format_seconds(buf, 125), "2m05s");
	assert_string_equal(mzm_cli_format_seconds(buf, 7260), "2h01m");
}

static void widths(void **state)
{
	(void)state;
	assert_int_equal(mzm_cli_text_width("abc", 3), 3);
	assert_int_equal(mzm_cli_text_width("\xC3\xA9", 2), 1);
	assert_int_equal(mzm_cli_text_width("e\xCC\x81", 3), 1);         /* combining accent */
	assert_int_equal(mzm_cli_text_width("\xE4\xB8\xAD", 3), 2);      /* Chinese */
	assert_int_equal(mzm_cli_text_width("\xF0\x9F\x98\x80", 4), 2);  /* emoji */
	assert_int_equal(mzm_cli_text_width("\xE4\xB8", 2), 2);          /* broken: one a byte */
	assert_int_equal(mzm_cli_text_width("\xED\xA0\x80", 3), 3);      /* a surrogate is broken */
}

static void inline_text_is_safe_and_cut(void **state)
{
	FILE *f = tmpfile();
	char text[64];
	(void)state;
	assert_non_null(f);
	assert_int_equal(mzm_cli_put_inline(f, "a\n\t\033b\xFF", 6, 0), 9);
	assert_int_equal(mzm_cli_put_inline(f, "0123456789", 10, 6), 6);
	assert_int_equal(mzm_cli_put_inline(f, "012345", 6, 6), 6);
	rewind(f);
	text[fread(text, 1, sizeof text - 1, f)] = 0;
	assert_string_equal(text, "a\\n\\t^[b\xEF\xBF\xBD" "0123..012345");
	fclose(f);
}

static char *slurp(const char *path)
{
	static char text[4096];
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	text[fread(text, 1, sizeof text - 1, f)] = 0;
	fclose(f);
	return text;
}

static void files_are_whole_or_untouched(void **state)
{
	char dir[] = "mirzam-test-XXXXXX", path[64];
	mzm_cli_file file;
	mzm_err err = {0};
	struct stat sb;
	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/out", dir);
	assert_int_equal(mzm_cli_write_file(path, "old", 3, &err), MZM_OK);
	assert_int_equal(mzm_cli_file_create(&file, path, &err), MZM_OK);
	fputs("new", file.f);
	fflush(file.f);
	assert_string_equal(slurp(path), "old");
	char *temp = strdup(file.temp);
	mzm_cli_file_abort(&file);
	assert_string_equal(slurp(path), "old");
	assert_int_not_equal(stat(temp, &sb), 0);
	free(temp);
	mzm_cli_file_abort(&file); /* again: no effect */
	assert_int_equal(mzm_cli_write_file(path, "new", 3, &err), MZM_OK);
	assert_string_equal(slurp(path), "new");
	assert_int_equal(mzm_cli_write_file("/dev/full", "x", 1, &err), MZM_EIO);
	assert_non_null(strstr(err.message, "/dev/full: No space left on device"));
	err = (mzm_err){0};
	assert_int_equal(mzm_cli_write_file("mirzam-no-such-folder/x", "x", 1, &err), MZM_EIO);
	unlink(path);
	assert_int_equal(rmdir(dir), 0); /* nothing was left behind */
}

static void json_numbers_and_text(void **state)
{
	json_t *v;
	(void)state;
	v = mzm_cli_json_float(0.1f);
	assert_true(json_real_value(v) == 0.1);
	json_decref(v);
	v = mzm_cli_json_float(NAN);
	assert_true(json_is_null(v));
	json_decref(v);
	v = mzm_cli_json_double((double)INFINITY);
	assert_true(json_is_null(v));
	json_decref(v);
	v = mzm_cli_json_text("a\xFF\0b", 4);
	assert_int_equal(json_string_length(v), 6);
	assert_memory_equal(json_string_value(v), "a\xEF\xBF\xBD\0b", 6);
	json_decref(v);
}

/* Whatever byte of a line fills the buffer, its newline too, the reason is that of the write that failed. */
static void a_full_disk_is_named_at_every_byte(void **state)
{
	(void)state;
	if (access("/dev/full", W_OK) != 0)
		skip();
	json_t *line = json_pack("{s:i, s:s}", "pos", 34, "token", " apples");
	for (int pad = 0; pad < 64; pad++) {
		mzm_err err = {0};
		FILE *f = fopen("/dev/full", "we");
		assert_non_null(f);
		for (int i = 0; i < pad; i++)
			fputc(' ', f);
		for (int i = 0; i < 100000 && err.code == MZM_OK; i++)
			mzm_cli_json_line(f, line, "/dev/full", &err);
		fclose(f);
		assert_int_equal(err.code, MZM_EIO);
		assert_string_equal(err.message, "/dev/full: No space left on device");
	}
	json_decref(line);
}

static void derived_numbers(void **state)
{
	mzm_gen_params gen = mzm_gen_params_default();
	mzm_gen_result r = {.n_prompt = 50, .n_tokens = 33, .n_checks = 3, .n_gained = 32, .n_checks_paper = 2,
			    .n_gained_paper = 28, .n_sparse_passes = 45, .n_dense_passes = 3, .sparse_work = 22.5,
			    .density = 0.5, .prefill_ns = 500000000, .decode_ns = 2000000000};
	mzm_gen_result sum = {0};
	(void)state;
	gen.mode = MZM_MODE_SIRIUS;
	gen.period = 16;
	mzm_cli_derived d = mzm_cli_derive(&r, &gen, 1);
	assert_true(fabs(d.aal - 32. / 3) < 1e-12);
	assert_true(d.aal_paper == 14);
	assert_true(fabs(d.effective_density - (15 * .5 + 1) / 14) < 1e-12);
	assert_true(fabs(d.work_per_token - 25.5 / 32) < 1e-12);
	assert_true(d.tok_per_s == 16);
	assert_true(d.prefill_tok_per_s == 100);
	gen.period = 0;
	assert_true(isnan(mzm_cli_derive(&r, &gen, 1).effective_density));
	mzm_cli_counters_add(&sum, &r);
	mzm_cli_counters_add(&sum, &r);
	d = mzm_cli_derive(&sum, &gen, 2);
	assert_true(d.aal_paper == 14 && d.tok_per_s == 16);
	r.n_tokens = 1;
	d = mzm_cli_derive(&r, &gen, 1);
	assert_true(isnan(d.tok_per_s) && isnan(d.work_per_token));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_every_type),
		cmocka_unit_test(short_forms_and_arguments),
		cmocka_unit_test(sizes),
		cmocka_unit_test(refuses_what_is_no_number),
		cmocka_unit_test(messages_name_option_value_and_range),
		cmocka_unit_test(given_options_are_known),
		cmocka_unit_test(help_shows_groups_and_defaults),
		cmocka_unit_test(earlier_table_wins),
		cmocka_unit_test(decoding_options_fill_the_params),
		cmocka_unit_test(exit_codes),
		cmocka_unit_test(amounts),
		cmocka_unit_test(widths),
		cmocka_unit_test(inline_text_is_safe_and_cut),
		cmocka_unit_test(files_are_whole_or_untouched),
		cmocka_unit_test(json_numbers_and_text),
		cmocka_unit_test(a_full_disk_is_named_at_every_byte),
		cmocka_unit_test(derived_numbers),
	};
	unsetenv("NO_COLOR");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
