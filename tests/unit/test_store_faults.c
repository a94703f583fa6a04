/* test_store_faults.c - reading goes wrong under a streamed or mapped model: the n-th read fails, comes back short or
 * brings garbage; the file is truncated or replaced while it is open; loading is cancelled, or the model closed while
 * reads are under way. A request fails with place and reason, or is right; the session goes on to be right. */
#include "store_rig.h"

#include <errno.h>
#include <limits.h>

#include "base/io.h"
#include "temp_dir.h"

enum { N_IDS = 7 };

static const char *const ios[] = {"uring", "threads"};
static const int32_t ids[N_IDS] = {5, 99, 3, 250, 41, 7, 128};

static void make_model(const char *to, uint64_t seed, const char *draft, int zstd)
{
	rig_write(rig_tiny(64, 2048 + 300, 300, seed), to, "bf16", draft, zstd);
}

/* Logits of a pass from an empty context. */
static mzm_status forward(rig *r, float *logits, mzm_err *err)
{
	mzm_session_truncate(r->session, 0);
	return mzm_session_forward(r->session, logits, ids, N_IDS, N_IDS, err);
}

/* -> free */
static float *right_logits(const char *file)
{
	rig_how how = {.store = "resident"};
	rig r = rig_open(file, &how);
	float *logits = malloc(N_IDS * rig_n_vocab(&r) * sizeof *logits);
	assert_int_equal(forward(&r, logits, NULL), MZM_OK);
	rig_close(&r);
	return logits;
}

static void expect_right(rig *r, const float *want)
{
	mzm_err err = {0};
	size_t bytes = N_IDS * rig_n_vocab(r) * sizeof(float);
	float *got = malloc(bytes);
	if (forward(r, got, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_memory_equal(got, want, bytes);
	free(got);
}

/* Place and reason. */
static void expect_told(mzm_status st, const mzm_err *err, const char *file, int code)
{
	if (!strstr(err->message, file))
		fail_msg("the file is not named: %s", err->message);
	if (code >= 0) {
		assert_int_equal(st, MZM_EIO);
		if (!strstr(err->message, code ? strerror(code) : "truncated"))
			fail_msg("the reason is not named: %s", err->message);
		return;
	}
	assert_true(st == MZM_EFORMAT || st == MZM_EUNSUPPORTED); /* a wrong byte in the version is a newer file */
	bool weights = strstr(err->message, "stored bytes") || strstr(err->message, "unpacked bytes");
	if (weights && !(strstr(err->message, "tensor ") && strstr(err->message, "offset ")))
		fail_msg("the tensor is not named: %s", err->message);
	if (!weights && !strstr(err->message, "header") && !strstr(err->message, "metadata") &&
	    !strstr(err->message, "index") && !strstr(err->message, "not a .mzm"))
		fail_msg("the place is not named: %s", err->message);
}

/* ---- the n-th read ---- */

typedef struct tally {
	long n_failed, n_harmless; /* opened, or passed, all the same */
} tally;

/* What is read ahead for the next pass may be wrong: then that one fails, and those behind it are right. */
static bool fails_read_ahead(rig *r, int code)
{
	float *got = malloc(N_IDS * rig_n_vocab(r) * sizeof *got);
	mzm_err err = {0};
	mzm_status st = forward(r, got, &err);
	if (st != MZM_OK)
		expect_told(st, &err, path, code);
	free(got);
	return st != MZM_OK;
}

/* While the model is opened. What goes wrong behind its loading, in what is read ahead, is met by a pass. */
static bool open_with_fault(const rig_how *how, long nth, int code, const float *want, tally *t)
{
	rig r;
	mzm_err err = {0};
	mzm_io_fail_nth(nth, code);
	mzm_status st = rig_try(&r, path, how, &err);
	if (st != MZM_OK) {
		assert_null(r.model);
		expect_told(st, &err, path, code);
		t->n_failed++;
	} else {
		float *logits = malloc(N_IDS * rig_n_vocab(&r) * sizeof *logits);
		st = forward(&r, logits, &err);
		if (st != MZM_OK)
			expect_told(st, &err, path, code);
		else
			assert_memory_equal(logits, want, N_IDS * rig_n_vocab(&r) * sizeof *logits);
		free(logits);
		t->n_harmless++;
	}
	bool reached = mzm_io_fail_nth(0, 0) >= nth;
	if (r.model) {
		if (st == MZM_OK)
			(void)fails_read_ahead(&r, code);
		expect_right(&r, want);
	}
	rig_close(&r);
	return reached;
}

/* While passes run; the same session must be right afterwards. */
static bool pass_with_fault(rig *r, long nth, int code, const float *want, tally *t)
{
	size_t bytes = N_IDS * rig_n_vocab(r) * sizeof(float);
	float *got = malloc(bytes);
	mzm_err err = {0};
	mzm_io_fail_nth(nth, code);
	mzm_status st = forward(r, got, &err);
	if (st != MZM_OK) {
		expect_told(st, &err, path, code);
		assert_int_equal(mzm_session_len(r->session), 0);
		t->n_failed++;
	} else {
		assert_memory_equal(got, want, bytes);
		t->n_harmless++;
		t->n_failed += fails_read_ahead(r, code);
	}
	bool reached = mzm_io_fail_nth(0, 0) >= nth;
	if (st == MZM_OK)
		(void)fails_read_ahead(r, code);
	expect_right(r, want);
	free(got);
	return reached;
}

static void expect_faults_are_met(const char *io)
{
	static const int codes[] = {EIO, 0, -1};
	rig_how how = {.store = "stream", .io = io, .n_threads = 2, .n_ctx = 60};
	long thin = getenv("MIRZAM_SHORT") ? 8 : LONG_MAX; /* all of so many first reads, then ever fewer */
	float *want = right_logits(path);
	for (size_t c = 0; c < sizeof codes / sizeof *codes; c++) {
		tally opened = {0}, passed = {0};
		for (long nth = 1; opened.n_harmless < 6 && open_with_fault(&how, nth, codes[c], want, &opened);
		     nth += 1 + nth / thin)
			;
		assert_true(opened.n_failed > 3); /* garbage may be in bytes of a page that nobody asked for */
		rig r = rig_open(path, &how);
		for (long nth = 1; nth < 500 && pass_with_fault(&r, nth, codes[c], want, &passed);
		     nth += 1 + nth / thin)
			;
		assert_true(passed.n_failed > 5);
		rig_close(&r);
	}
	free(want);
}

static void test_nth_read(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		for (int zstd = 0; zstd < 6; zstd += 3) {
			make_model(path, 1 + (uint64_t)zstd, zstd ? "q4" : "off", zstd);
			if (rig_has_io(path, ios[i]))
				expect_faults_are_met(ios[i]);
		}
	}
}

/* Extents that spans cut are read by way of stages. */
static void test_nth_read_of_odd_extents(void **state)
{
	(void)state;
	char whole[300];
	snprintf(whole, sizeof whole, "%s/whole.mzm", dir);
	make_model(whole, 2, "off", 0);
	rig_recut(whole, path, 3);
	rig_how how = {.store = "stream"};
	float *want = right_logits(path);
	rig r = rig_open(path, &how);
	tally t = {0};
	for (long nth = 1; nth < 500 && pass_with_fault(&r, nth, nth % 3 ? -1 : EIO, want, &t); nth += 1 + nth / 10)
		;
	assert_true(t.n_failed > 5);
	rig_close(&r);
	free(want);
}

/* A generation that failed leaves nothing behind: neither its tokens nor what its predictor saw. */
static void test_generations_after_a_fault(void **state)
{
	(void)state;
	static const mzm_mode modes[] = {MZM_MODE_DENSE, MZM_MODE_SPARSE, MZM_MODE_SIRIUS, MZM_MODE_EXACT};
	make_model(path, 4, "off", 0);
	rig_how how = {.store = "stream", .n_threads = 2, .n_ctx = 160};
	rig r = rig_open(path, &how);
	int n_failed = 0;
	for (int i = 0; i < 4 * 4; i++) {
		mzm_gen_params p = mzm_gen_params_default();
		mzm_gen_result result;
		mzm_err err = {0};
		int32_t prompt[100], want[12];
		for (int k = 0; k < 100; k++)
			prompt[k] = (k * 31 + i) % 300;
		p.mode = modes[i % 4];
		p.predictor = i % 8 < 4 ? "griffin" : "topk";
		p.max_tokens = 12;
		p.ignore_eos = true;
		assert_int_equal(mzm_generate(r.session, prompt, 100, &p, &result, &err), MZM_OK);
		memcpy(want, result.tokens, sizeof want);
		mzm_io_fail_nth(1 + 2 * i * i, EIO);
		mzm_status st = mzm_generate(r.session, prompt, 100, &p, &result, &err);
		mzm_io_fail_nth(0, 0);
		if (st != MZM_OK)
			expect_told(st, &err, path, EIO);
		n_failed += st != MZM_OK;
		assert_int_equal(mzm_generate(r.session, prompt, 100, &p, &result, NULL), MZM_OK);
		assert_int_equal(result.n_tokens, 12);
		assert_memory_equal(result.tokens, want, sizeof want);
	}
	assert_true(n_failed > 4);
	rig_close(&r);
}

/* ---- the file changes while it is open ---- */

static void expect_truncation(const char *store, const char *io)
{
	size_t n;
	make_model(path, 5, "off", 0);
	char *bytes = testing_read(path, &n);
	float *want = right_logits(path);
	rig_how how = {.store = store, .io = io};
	rig r = rig_open(path, &how);
	float *got = malloc(N_IDS * rig_n_vocab(&r) * sizeof *got);
	expect_right(&r, want);
	for (size_t cut = 1; cut <= 3; cut++) {
		mzm_err err = {0};
		assert_int_equal(truncate(path, (off_t)(n * cut / 4)), 0);
		mzm_status st = MZM_OK;
		for (int i = 0; i < 3 && st == MZM_OK; i++) /* the first may have its weights already */
			st = forward(&r, got, &err);
		expect_told(st, &err, path, 0);
		assert_int_equal(mzm_session_len(r.session), 0);
		testing_write(path, bytes, n); /* the same file again */
		expect_right(&r, want);
	}
	rig_close(&r);
	free(got);
	free(want);
	free(bytes);
}

static void test_truncated(void **state)
{
	(void)state;
	expect_truncation("mmap", NULL);
	for (int i = 0; i < 2; i++) {
		make_model(path, 5, "off", 0);
		if (rig_has_io(path, ios[i]))
			expect_truncation("stream", ios[i]);
	}
}

static void rewrite(const char *bytes, size_t n)
{
	FILE *f = fopen(path, "r+b"); /* never shorter in between */
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

/* Changed in place: the checksums tell. */
static void test_changed_in_place(void **state)
{
	(void)state;
	size_t n;
	make_model(path, 6, "off", 3);
	char *bytes = testing_read(path, &n);
	float *want = right_logits(path);
	rig_how how = {.store = "stream"};
	rig r = rig_open(path, &how);
	float *got = malloc(N_IDS * rig_n_vocab(&r) * sizeof *got);
	for (int round = 0; round < 5; round++) {
		mzm_err err = {0};
		char *copy = malloc(n);
		memcpy(copy, bytes, n);
		for (size_t at = 4096 + 7 * (size_t)round; at < n; at += 4096)
			copy[at] ^= 1;
		expect_right(&r, want);
		rewrite(copy, n);
		mzm_status st = MZM_OK;
		for (int i = 0; i < 3 && st == MZM_OK; i++)
			st = forward(&r, got, &err);
		expect_told(st, &err, path, -1);
		rewrite(bytes, n);
		expect_right(&r, want);
		free(copy);
	}
	rig_close(&r);
	free(got);
	free(want);
	free(bytes);
}

static void test_replaced(void **state)
{
	(void)state;
	static const char *const stores[] = {"stream", "mmap"};
	char other[300];
	snprintf(other, sizeof other, "%s/other.mzm", dir);
	for (int i = 0; i < 2; i++) {
		rig_how how = {.store = stores[i]};
		make_model(path, 7, "off", 0);
		make_model(other, 8, "off", 0);
		float *want = right_logits(path), *other_want = right_logits(other);
		rig r = rig_open(path, &how);
		expect_right(&r, want);
		assert_int_equal(rename(other, path), 0);
		for (int k = 0; k < 3; k++)
			expect_right(&r, want);
		rig now = rig_open(path, &how);
		expect_right(&now, other_want);
		expect_right(&r, want);
		unlink(path); /* gone altogether */
		expect_right(&r, want);
		rig_close(&now);
		rig_close(&r);
		free(want);
		free(other_want);
	}
}

/* ---- ending early ---- */

typedef struct counter {
	int n, stop_at;
} counter;

static int count_and_stop(void *user, const char *stage, uint64_t done, uint64_t total)
{
	counter *c = user;
	assert_string_equal(stage, "loading");
	assert_true(done > 0 && done <= total);
	return ++c->n == c->stop_at;
}

static void test_cancelled_loading(void **state)
{
	(void)state;
	make_model(path, 9, "q4", 3);
	for (int i = 0; i < 2; i++) {
		if (!rig_has_io(path, ios[i]))
			continue;
		mzm_model *m = NULL;
		counter c = {0};
		mzm_model_params mp = {.store = "stream", .io = ios[i], .progress = count_and_stop, .user = &c};
		assert_int_equal(mzm_model_open(&m, path, &mp, NULL), MZM_OK);
		mzm_model_close(m);
		int n = c.n;
		assert_true(n > 5);
		for (int stop = 1; stop <= n; stop++) {
			mzm_err err = {0};
			size_t live = mzm_mem_live();
			c = (counter){0, stop};
			assert_int_equal(mzm_model_open(&m, path, &mp, &err), MZM_ECANCELLED);
			assert_null(m);
			assert_int_equal(c.n, stop);
			assert_non_null(strstr(err.message, "cancelled"));
			assert_int_equal(mzm_mem_live(), live);
		}
	}
}

static void test_closed_while_reading(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		make_model(path, 10, "off", i / 2 * 3);
		if (!rig_has_io(path, ios[i % 2]))
			continue;
		rig_how how = {.store = "stream", .io = ios[i % 2], .n_ctx = 60};
		float *want = right_logits(path);
		size_t live = mzm_mem_live();
		for (int round = 0; round < 30; round++) {
			rig r = rig_open(path, &how);
			if (round % 3)
				expect_right(&r, want); /* then the next pass is read ahead */
			rig_close(&r);
			assert_int_equal(mzm_mem_live(), live);
		}
		free(want);
	}
}

/* The n-th allocation is refused: an error, nothing lost, and no thread left behind. */
static void test_no_memory(void **state)
{
	(void)state;
	make_model(path, 11, "q4", 3);
	rig_how how = {.store = "stream", .n_threads = 2, .n_ctx = 60};
	float *want = right_logits(path);
	size_t live = mzm_mem_live();
	bool done = false;
	for (long nth = 1; !done && nth < 2000; nth++) {
		rig r;
		mzm_err err = {0};
		mzm_mem_fail_nth(nth);
		mzm_status st = rig_try(&r, path, &how, &err);
		done = mzm_mem_fail_nth(0) < nth;
		if (st == MZM_OK)
			expect_right(&r, want);
		else if (st != MZM_ENOMEM)
			fail_msg("allocation %ld: %s", nth, err.message);
		rig_close(&r);
		assert_int_equal(mzm_mem_live(), live);
	}
	assert_true(done);
	free(want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_DIR(test_nth_read),
		IN_DIR(test_nth_read_of_odd_extents),
		IN_DIR(test_generations_after_a_fault),
		IN_DIR(test_truncated),
		IN_DIR(test_changed_in_place),
		IN_DIR(test_replaced),
		IN_DIR(test_cancelled_loading),
		IN_DIR(test_closed_while_reading),
		IN_DIR(test_no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
