/* test_sample.c - where packing pays: the judgement, imports that measure before they choose, those that must not
 * measure, and measurements that fail. */
#include "import_env.h"

#include <errno.h>

#include "base/aio_impl.h"
#include "base/io.h"
#include "engine/sample.h"
#include "engine/speed.h"

#define DEMO_MODEL "data/gsmini-6m.mzm"
#define SLOW       1                   /* disks, bytes a second */
#define FAST       1000000000000000000

static int end_pretending(void **state)
{
	mzm_sample_pretend(0, 0);
	mzm_aio_avoid_direct(false);
	mzm_io_fail_nth(0, 0);
	mzm_mem_fail_nth(0);
	return remove_dir(state);
}

/* ---- the judgement ---- */

static void test_judgement(void **state)
{
	(void)state;
	static const struct {
		double disk, unpack; /* of one thread */
		int    threads;
		double stored;       /* of 100 */
		bool   pays;
	} cases[] = {
		{0.5e9, 1.0e9, 2, 68, true},   /* a slow disk: 0.74 of 2 */
		{0.5e9, 0.3e9, 2, 68, true},   /* unpacking sets the pace, 0.6 */
		{0.5e9, 0.3e9, 1, 68, false},  /* on one core it is slower than the disk */
		{3.0e9, 1.0e9, 2, 68, false},
		{3.0e9, 1.6e9, 2, 68, true},
		{2.0e9, 1.0e9, 2, 68, false},  /* as fast is not faster */
		{2.0e9, 1.1e9, 2, 68, true},
		{2.0e9, 1.1e9, 2, 100, false}, /* nothing saved */
		{2.0e9, 9.0e9, 2, 99, true},
		{2.0e9, 0, 2, 68, false},      /* nothing is packed */
		{1.0, 1e-3, 2, 1, false},
		{1e18, 1e9, 2, 1, false},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		mzm_file_speed s = {
			.raw_bytes = 100,
			.stored_bytes = (uint64_t)cases[i].stored,
			.disk_bytes_per_s = cases[i].disk,
			.unpack_bytes_per_s = cases[i].unpack,
			.unpack_threads = cases[i].threads,
			.is_compressed = cases[i].unpack > 0,
		};
		if (mzm_speed_pays(&s) != cases[i].pays)
			fail_msg("case %zu: %d", i, !cases[i].pays);
	}
}

static void test_conclusion(void **state)
{
	(void)state;
	mzm_file_speed s = {.raw_bytes = 100, .stored_bytes = 70, .disk_bytes_per_s = 1};
	mzm_unpacking u = {.bytes = 3000, .ns = 1500};
	mzm_speed_conclude(&s, &u);
	assert_true(s.unpack_threads >= 1 && s.unpack_threads <= MZM_UNPACK_THREADS);
	assert_true(s.unpack_bytes_per_s > 1.99e9 && s.unpack_bytes_per_s < 2.01e9);
	assert_true(s.is_compressed && s.pays);
	u = (mzm_unpacking){0};
	mzm_speed_conclude(&s, &u);
	assert_true(!s.is_compressed && !s.pays && s.unpack_bytes_per_s == 0);
}

/* ---- imports ---- */

static mzm_import_report report;

static mzm_status import_at(const char *src, const char *target, int zstd, mzm_err *err)
{
	mzm_import_params params = mzm_import_params_default();
	memset(&report, 0, sizeof report);
	params.zstd = zstd;
	params.report = &report;
	return mzm_import(src, target, &params, err);
}

/* Everything from the first extent to the metadata -> free. */
static char *weights_of(const char *path, size_t *n)
{
	uint64_t meta;
	char *file = testing_read(path, n);
	memcpy(&meta, file + 24, 8);
	assert_true(meta > 4096 && meta < *n);
	*n = (size_t)meta - 4096;
	memmove(file, file + 4096, *n);
	return file;
}

static bool same_weights(const char *a, const char *b)
{
	size_t n, m;
	char *x = weights_of(a, &n), *y = weights_of(b, &m);
	bool same = n == m && memcmp(x, y, n) == 0;
	free(x);
	free(y);
	return same;
}

static json_t *packing_of(const char *path)
{
	json_t *tree = inspect(path, true);
	json_t *o = json_incref(json_object_get(json_object_get(tree, "provenance"), "packing"));
	json_decref(tree);
	return o;
}

static void test_choice(void **state)
{
	(void)state;
	char raw[400], packed[400];
	mzm_err err = {0};
	snprintf(raw, sizeof raw, "%s/raw.mzm", dir);
	snprintf(packed, sizeof packed, "%s/packed.mzm", dir);
	import_ok(DEMO_MODEL, raw, 0, NULL);
	import_ok(DEMO_MODEL, packed, -1, NULL); /* too small to be measured */
	assert_null(packing_of(packed));
	assert_false(same_weights(raw, packed));
	for (int fast = 0; fast < 2; fast++) {
		mzm_sample_pretend(1, fast ? FAST : SLOW);
		assert_int_equal(import_at(DEMO_MODEL, out, -1, &err), MZM_OK);
		assert_int_equal(mzm_sample_pretend(0, 0), 1);
		assert_true(same_weights(out, fast ? raw : packed));
		assert_int_equal(report.is_raw, fast);
		assert_int_equal(report.sample.pays, !fast);
		assert_true(report.sample.is_compressed && report.sample.unpack_bytes_per_s > 1e6);
		assert_true(report.sample.raw_bytes > 10000000);
		assert_true((double)report.sample.stored_bytes < 0.75 * (double)report.sample.raw_bytes);
		json_t *o = packing_of(out);
		assert_int_equal(json_is_true(json_object_get(o, "compression_pays")), !fast);
		assert_int_equal((uint64_t)json_number_value(json_object_get(o, "sample_bytes")),
				 report.sample.raw_bytes);
		json_decref(o);
		assert_int_equal(testing_dir_entries(dir), 4);
	}
	/* what is made of it is judged anew */
	import_ok(out, packed, 0, NULL);
	assert_null(packing_of(packed));
}

/* A level and "off" measure nothing; neither does what is small. */
static void test_without_measuring(void **state)
{
	(void)state;
	static const int levels[] = {0, 1, 19};
	mzm_err err = {0};
	write_tiny("BF16");
	mzm_sample_pretend(1, FAST);
	for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
		assert_int_equal(import_at(src_dir, out, levels[i], &err), MZM_OK);
		assert_null(packing_of(out));
		assert_true(report.sample.raw_bytes == 0 && !report.is_raw);
	}
	assert_int_equal(mzm_sample_pretend(0, FAST), 0);
	assert_int_equal(import_at(src_dir, out, -1, &err), MZM_OK);
	assert_int_equal(mzm_sample_pretend(0, 0), 0);
	assert_false(mzm_sample_is_due(((uint64_t)64 << 20) - 1));
	assert_true(mzm_sample_is_due((uint64_t)64 << 20));
}

/* Nothing in the sample shrinks: nothing is to be judged, and the rule for single extents stays. */
static void test_nothing_to_gain(void **state)
{
	(void)state;
	mzm_import_params params = mzm_import_params_default();
	hf_build b;
	uint64_t seed = 5;
	char packed[400];
	snprintf(packed, sizeof packed, "%s/packed.mzm", dir);
	hf_init_blocks(&b, "F32", true);
	for (int i = 0; i < b.n; i++) /* noise with exponents that are noise, too, but finite */
		for (size_t k = 0; k < b.w[i].bytes; k++)
			b.w[i].data[k] = (uint8_t)(testing_random(&seed) & (k % 4 == 3 ? 0xbf : 0xff));
	hf_write(&b, src_dir);
	hf_free(&b);
	import_ok(src_dir, packed, -1, NULL);
	mzm_sample_pretend(1, FAST);
	params.report = &report;
	assert_int_equal(mzm_import(src_dir, out, &params, NULL), MZM_OK);
	assert_true(report.sample.raw_bytes > 0 && !report.sample.is_compressed && !report.is_raw);
	assert_true(same_weights(out, packed));
}

/* Shares of a sample: several tensors, and no more than it wants. */
static void test_shares(void **state)
{
	(void)state;
	mzm_sample *s;
	mzm_file_speed speed;
	mzm_err err = {0};
	mzm_tensor t = {.kind = MZM_T_GATE, .dtype = MZM_BF16, .n_rows = 1 << 14, .n_cols = 3000};
	size_t live = mzm_mem_live(), n = 0;
	char *data = calloc((size_t)64 << 20, 1);
	assert_int_equal(mzm_sample_begin(&s, out, &err), MZM_OK);
	for (int32_t rows; (rows = mzm_sample_rows(s, &t)) > 0; n++) {
		mzm_tensor part = t;
		part.n_rows = rows;
		assert_true((uint64_t)rows * 6000 < MZM_SAMPLE_BYTES / 4 + 6000);
		for (size_t k = 0; k < (size_t)rows * 6000; k += 2)
			data[k] = (char)(k * k >> 7);
		assert_int_equal(mzm_sample_add(s, &part, data, &err), MZM_OK);
		assert_true(n < 5);
	}
	assert_true(n == 4);
	assert_true(mzm_sample_bytes(s) >= MZM_SAMPLE_BYTES && mzm_sample_bytes(s) < MZM_SAMPLE_BYTES + 6000);
	mzm_status st = mzm_sample_judge(s, &speed, &err);
	if (st == MZM_OK)
		assert_true(speed.disk_bytes_per_s > 1e5 && speed.is_compressed);
	else
		assert_int_equal(st, MZM_EUNSUPPORTED); /* a file system without O_DIRECT */
	mzm_sample_end(s);
	free(data);
	assert_int_equal(mzm_mem_live(), live);
	assert_int_equal(testing_dir_entries(dir), 1);
}

/* A model that is large enough, as it comes: whatever this disk is like, the file is what the report says. */
static void test_measured(void **state)
{
	(void)state;
	mzm_err err = {0};
	mzm_synth_params params = mzm_synth_params_default();
	params.inflate = DEMO_MODEL;
	params.factor = 3;
	params.import.report = &report;
	memset(&report, 0, sizeof report);
	mzm_sample_pretend(0, 0);
	if (mzm_synth(out, &params, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(mzm_sample_pretend(0, 0), 1);
	const mzm_file_speed *s = &report.sample;
	json_t *tree = inspect(out, false);
	double ratio = json_number_value(json_object_get(json_object_get(tree, "totals"), "ratio"));
	json_decref(tree);
	if (s->raw_bytes == 0)
		print_message("no reading past the cache here: nothing was measured\n");
	else
		print_message("disk %.2f GB/s, a thread unpacks %.2f GB/s, to %.3f in the sample: %s\n",
			      s->disk_bytes_per_s * 1e-9, s->unpack_bytes_per_s * 1e-9,
			      (double)s->stored_bytes / (double)s->raw_bytes, report.is_raw ? "raw" : "packed");
	assert_int_equal(report.is_raw, s->raw_bytes && !s->pays);
	assert_true(s->raw_bytes == 0 || s->raw_bytes >= MZM_SAMPLE_BYTES);
	assert_true(report.is_raw ? ratio == 1 : ratio < 0.75);
}

/* ---- measurements that fail ---- */

/* Packed, as where nothing is measured. */
static void test_no_direct_reading(void **state)
{
	(void)state;
	char packed[400];
	mzm_err err = {0};
	snprintf(packed, sizeof packed, "%s/packed.mzm", dir);
	import_ok(DEMO_MODEL, packed, -1, NULL);
	mzm_sample_pretend(1, 0);
	mzm_aio_avoid_direct(true);
	assert_int_equal(import_at(DEMO_MODEL, out, -1, &err), MZM_OK);
	assert_true(report.sample.raw_bytes == 0 && !report.is_raw && err.code == MZM_OK);
	assert_null(packing_of(out));
	assert_true(same_weights(out, packed));
	/* nor where there is too little to read */
	mzm_aio_avoid_direct(false);
	write_tiny("BF16");
	assert_int_equal(import_at(src_dir, out, -1, &err), MZM_OK);
	assert_int_equal(mzm_sample_pretend(0, 0), 2);
	assert_true(report.sample.raw_bytes == 0);
}

static void expect_old_file(size_t live)
{
	size_t n;
	char *file = testing_read(out, &n);
	assert_true(n == 3 && memcmp(file, "old", 3) == 0);
	free(file);
	assert_int_equal(testing_dir_entries(dir), 2);
	assert_int_equal(mzm_mem_live(), live);
}

/* The n-th read, write or allocation fails: an import that fails leaves everything as it was; one that succeeds
 * is whole, and raw exactly when the measurement was. */
static void fail_each(const char *src, long step, bool memory)
{
	long n_failed = 0, n_unmeasured = 0;
	size_t live = mzm_mem_live();
	mzm_sample_pretend(1, FAST);
	for (long k = 1;; k += step) {
		mzm_err err = {0};
		hf_put(dir, "out.mzm", "old", 3);
		memory ? mzm_mem_fail_nth(k) : mzm_io_fail_nth(k, EIO);
		mzm_status st = import_at(src, out, -1, &err);
		long n_calls = memory ? mzm_mem_fail_nth(0) : mzm_io_fail_nth(0, 0);
		if (st != MZM_OK) {
			if (st != err.code || (!memory && st != MZM_EIO))
				fail_msg("status %d: %s", st, err.message);
			expect_old_file(live);
			n_failed++;
			continue;
		}
		assert_int_equal(report.is_raw, report.sample.raw_bytes > 0);
		n_unmeasured += !report.is_raw;
		json_t *tree = inspect(out, true);
		assert_int_equal(testing_dir_entries(dir), 2);
		json_decref(tree);
		if (n_calls < k)
			break;
	}
	print_message("%ld imports failed, %ld went on without the measurement\n", n_failed, n_unmeasured);
	assert_true(n_failed > 10 && n_unmeasured > 3);
}

static void test_failures(void **state)
{
	(void)state;
	long step = testing_count(3, 1);
	write_blocks("BF16", true);
	fail_each(src_dir, step, false);
	fail_each(src_dir, step, true);
	fail_each(DEMO_MODEL, 3 * step, false); /* large enough that the disk is read */
}

/* ---- cancelling ---- */

typedef struct stages {
	int      n_measuring, n_import, stop_at;
	uint64_t last;
} stages;

static int on_progress(void *user, const char *stage, uint64_t done, uint64_t total)
{
	stages *s = user;
	bool measuring = strcmp(stage, "measuring") == 0;
	assert_true(done > 0 && total > 0 && (!measuring || s->n_import == 0));
	assert_true(done > s->last || (!measuring && s->n_import == 0));
	s->last = done;
	*(measuring ? &s->n_measuring : &s->n_import) += 1;
	return s->n_measuring + s->n_import == s->stop_at;
}

static void test_cancelled(void **state)
{
	(void)state;
	stages s = {0};
	mzm_import_params params = mzm_import_params_default();
	params.progress = on_progress;
	params.user = &s;
	write_tiny("F32");
	hf_put(dir, "out.mzm", "old", 3);
	size_t live = mzm_mem_live();
	mzm_sample_pretend(1, SLOW);
	for (int k = 1; k < 20; k++) {
		s = (stages){.stop_at = k};
		import_fails(src_dir, out, &params, MZM_ECANCELLED, "cancelled");
		expect_old_file(live);
	}
	s = (stages){0};
	assert_int_equal(mzm_import(src_dir, out, &params, NULL), MZM_OK);
	assert_int_equal(s.n_measuring, 13); /* all matrices */
	assert_int_equal(s.n_import, 18);
}

/* Somebody else is writing the target: that is the reason given, whatever met it first. */
static void test_second_writer(void **state)
{
	(void)state;
	mzm_writer *w;
	write_tiny("F32");
	mzm_sample_pretend(1, FAST);
	assert_int_equal(mzm_writer_open(&w, out, NULL), MZM_OK);
	import_fails(src_dir, out, NULL, MZM_EIO, "another process is writing it");
	mzm_writer_close(w);
	import_ok(src_dir, out, -1, NULL);
}

#define PRETENDING(f) cmocka_unit_test_setup_teardown(f, make_dir, end_pretending)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_judgement),   cmocka_unit_test(test_conclusion),
		PRETENDING(test_choice),            PRETENDING(test_without_measuring),
		PRETENDING(test_nothing_to_gain),   PRETENDING(test_shares),
		PRETENDING(test_measured),          PRETENDING(test_no_direct_reading),
		PRETENDING(test_failures),          PRETENDING(test_cancelled),
		PRETENDING(test_second_writer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
