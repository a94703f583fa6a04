/* test_import_faults.c - imports that go wrong: n-th allocation, n-th read or write, a full disk, kill -9,
 * two importers of one target. Afterwards the target is the old file or a complete one, and nothing is left. */
#include "import_env.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "base/io.h"

/* After a failure: nothing allocated, no file beside the target, the target as before. */
static void check_after(const char *before, size_t n, size_t live)
{
	size_t n_after;
	char *after = testing_read(out, &n_after);
	assert_int_equal(n, n_after);
	assert_memory_equal(before, after, n);
	free(after);
	assert_int_equal(testing_dir_entries(dir), 2);
	assert_int_equal(mzm_mem_live(), live);
}

static void fail_allocations(const mzm_import_params *params)
{
	hf_put(dir, "out.mzm", "old", 3);
	size_t live = mzm_mem_live();
	long n_failed = 0;
	for (long k = 1;; k++) {
		mzm_err err = {0};
		mzm_mem_fail_nth(k);
		mzm_status st = mzm_import(src_dir, out, params, &err);
		long n_calls = mzm_mem_fail_nth(0);
		assert_int_equal(st, err.code);
		if (st != MZM_OK) {
			assert_true(err.message[0]);
			check_after("old", 3, live);
			n_failed++;
			continue;
		}
		assert_int_equal(mzm_mem_live(), live);
		if (n_calls < k)
			break;
		hf_put(dir, "out.mzm", "old", 3); /* a failure that was a wish only */
	}
	print_message("%ld allocations of an import failed, one each time\n", n_failed);
	assert_true(n_failed > 50);
	json_t *tree = inspect(out, true);
	json_decref(tree);
	live = mzm_mem_live();
	for (long k = 1;; k++) {
		char *json = NULL;
		mzm_err err = {0};
		mzm_mem_fail_nth(k);
		mzm_status st = mzm_inspect(out, true, NULL, NULL, &json, &err);
		long n_calls = mzm_mem_fail_nth(0);
		assert_int_equal(st, err.code);
		mzm_string_free(json);
		assert_int_equal(mzm_mem_live(), live);
		if (st == MZM_OK && n_calls < k)
			break;
	}
}

static void test_allocation_failures(void **state)
{
	(void)state;
	mzm_import_params params = mzm_import_params_default();
	write_tiny("F32");
	params.quant = "bf16";
	fail_allocations(&params);
}

/* With quantised weights and a draft image. */
static void test_allocation_failures_draft(void **state)
{
	(void)state;
	mzm_import_params params = mzm_import_params_default();
	write_blocks("BF16", true);
	params.quant = "q8";
	params.draft_quant = "q4";
	fail_allocations(&params);
}

/* The JSON library's own allocations, while metadata are built and written. (Its parser aborts by an assert
 * of its own when it is out of memory; that part cannot be walked.) */
static long json_fail_in, json_calls;

static void *json_alloc(size_t n)
{
	json_calls++;
	return json_fail_in > 0 && --json_fail_in == 0 ? NULL : malloc(n);
}

static int arm_json(void *user, const char *stage, uint64_t done, uint64_t total)
{
	(void)stage;
	if (done == total) {
		json_calls = 0;
		json_fail_in = *(long *)user;
	}
	return 0;
}

static void test_json_failures(void **state)
{
	(void)state;
	long k = 0, n_failed = 0;
	mzm_import_params params = mzm_import_params_default();
	params.progress = arm_json;
	params.user = &k;
	params.draft_quant = "q4"; /* has metadata of its own */
	write_blocks("F32", true);
	hf_put(dir, "out.mzm", "old", 3);
	json_set_alloc_funcs(json_alloc, free);
	size_t live = mzm_mem_live();
	for (k = 1;; k++) {
		mzm_err err = {0};
		mzm_status st = mzm_import(src_dir, out, &params, &err);
		long n_calls = json_calls;
		json_fail_in = 0;
		if (st == MZM_OK) { /* a second try may have helped: then the container must be whole */
			json_t *tree = inspect(out, true), *from = json_object_get(tree, "provenance");
			assert_string_equal(json_string_value(json_object_get(from, "source")), "src");
			json_decref(tree);
			if (n_calls < k)
				break;
			hf_put(dir, "out.mzm", "old", 3);
			continue;
		}
		assert_true(err.message[0]);
		check_after("old", 3, live);
		n_failed++;
	}
	json_set_alloc_funcs(malloc, free);
	assert_true(n_failed > 30);
}

static void test_io_failures(void **state)
{
	(void)state;
	static const int codes[] = {EIO, ENOSPC, EDQUOT, 0};
	hf_build b;
	mzm_import_params params = mzm_import_params_default();
	params.draft_quant = "q4";
	hf_init_blocks(&b, "BF16", false);
	b.n_shards = 2;
	hf_write(&b, src_dir);
	hf_free(&b);
	hf_put(dir, "out.mzm", "old", 3);
	size_t live = mzm_mem_live();
	for (size_t c = 0; c < sizeof codes / sizeof codes[0]; c++) {
		long n_failed = 0;
		for (long k = 1;; k++) {
			mzm_err err = {0};
			mzm_io_fail_nth(k, codes[c]);
			mzm_status st = mzm_import(src_dir, out, &params, &err);
			long n_calls = mzm_io_fail_nth(0, 0);
			if (st == MZM_OK) {
				assert_true(n_calls < k);
				break;
			}
			assert_int_equal(st, MZM_EIO);
			if (codes[c])
				assert_non_null(strstr(err.message, strerror(codes[c])));
			check_after("old", 3, live);
			n_failed++;
		}
		assert_true(n_failed > 20);
		for (long k = 1;; k++) {
			char *json = NULL;
			mzm_err err = {0};
			mzm_io_fail_nth(k, codes[c]);
			mzm_status st = mzm_inspect(out, true, NULL, NULL, &json, &err);
			mzm_io_fail_nth(0, 0);
			mzm_string_free(json);
			assert_int_equal(mzm_mem_live(), live);
			if (st == MZM_OK)
				break;
			assert_int_equal(st, MZM_EIO);
		}
		hf_put(dir, "out.mzm", "old", 3);
	}
	for (long k = 1; k < 40; k += 3) { /* interrupted calls are repeated */
		mzm_io_fail_nth(k, EINTR);
		mzm_status st = mzm_import(src_dir, out, NULL, NULL);
		mzm_io_fail_nth(0, 0);
		assert_int_equal(st, MZM_OK);
	}
}

/* A disk that is full at some byte, by a limit on the size of files: a clear error, nothing left. */
static void test_disk_full(void **state)
{
	(void)state;
	write_tiny("F32");
	hf_put(dir, "out.mzm", "old", 3);
	for (rlim_t most = 0; most < 12000; most += 1500) {
		pid_t child = fork();
		int status;
		assert_true(child >= 0);
		if (child == 0) {
			mzm_err err = {0};
			mzm_import_params params = mzm_import_params_default();
			struct rlimit limit = {most, most};
			signal(SIGXFSZ, SIG_IGN);
			setrlimit(RLIMIT_FSIZE, &limit);
			mzm_status st = mzm_import(src_dir, out, &params, &err);
			_exit(st != MZM_EIO || !strstr(err.message, strerror(EFBIG)));
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		check_after("old", 3, mzm_mem_live());
	}
}

static pid_t start_import(void)
{
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		(void)mzm_import(src_dir, out, NULL, NULL);
		_exit(0);
	}
	return child;
}

/* kill -9 at random moments: the target stays the old file or is a complete one; a later import succeeds
 * over whatever the dead one left. */
static void test_kill(void **state)
{
	(void)state;
	uint64_t seed = 17;
	int n_old = 0, n_new = 0;
	char old_hash[33], new_hash[33], hash[33], keep[400];
	hf_build b;
	write_tiny("BF16");
	snprintf(keep, sizeof keep, "%s/old.mzm", dir);
	import_ok(src_dir, keep, 0, NULL);
	hash_of(keep, old_hash);
	hf_init(&b, "F32", true);
	hf_write(&b, src_dir);
	hf_free(&b);
	hash_of(src_dir, new_hash);
	size_t n;
	char *old = testing_read(keep, &n);
	struct timespec start, end;
	clock_gettime(CLOCK_MONOTONIC, &start);
	testing_write(out, old, n);
	import_ok(src_dir, out, -1, NULL);
	clock_gettime(CLOCK_MONOTONIC, &end);
	uint64_t once_us = (uint64_t)((end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000);
	for (long i = testing_count(40, 200); i > 0; i--) {
		testing_write(out, old, n);
		pid_t child = start_import();
		usleep((useconds_t)(testing_random(&seed) % (once_us * 3 / 2 + 500)));
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, NULL, 0), child);
		hash_of(out, hash); /* verifies every byte */
		bool is_new = strcmp(hash, new_hash) == 0;
		assert_true(is_new || strcmp(hash, old_hash) == 0);
		n_new += is_new;
		n_old += !is_new;
	}
	print_message("killed importers left %d old and %d new targets\n", n_old, n_new);
	import_ok(src_dir, out, -1, NULL);
	assert_int_equal(testing_dir_entries(dir), 3); /* no leftover */
	free(old);
}

/* While one process writes a target, another is refused; afterwards it may. */
static int wait_for_peer(void *user, const char *stage, uint64_t done, uint64_t total)
{
	int *fd = user;
	char c = 'x';
	(void)stage, (void)done, (void)total;
	if (fd[0] < 0)
		return 0;
	if (write(fd[1], &c, 1) != 1 || read(fd[0], &c, 1) != 1)
		return 1;
	fd[0] = -1;
	return 0;
}

static void test_two_importers(void **state)
{
	(void)state;
	int to_child[2], to_parent[2], status;
	char c;
	write_tiny("F32");
	assert_true(pipe(to_child) == 0 && pipe(to_parent) == 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		int fds[2] = {to_child[0], to_parent[1]};
		mzm_import_params params = mzm_import_params_default();
		params.progress = wait_for_peer;
		params.user = fds;
		_exit((int)mzm_import(src_dir, out, &params, NULL));
	}
	assert_int_equal(read(to_parent[0], &c, 1), 1);
	import_fails(src_dir, out, NULL, MZM_EIO, "another process is writing it");
	assert_int_equal(write(to_child[1], &c, 1), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == MZM_OK);
	json_decref(inspect(out, true));
	import_ok(src_dir, out, -1, NULL);
	assert_int_equal(testing_dir_entries(dir), 2);
	close(to_child[0]), close(to_child[1]), close(to_parent[0]), close(to_parent[1]);
}

/* The source is only read: no byte of it and no name in it changes. */
static void test_source_untouched(void **state)
{
	(void)state;
	char path[600];
	size_t n, m;
	write_tiny("F32");
	snprintf(path, sizeof path, "%s/model.safetensors", src_dir);
	char *before = testing_read(path, &n);
	int entries = testing_dir_entries(src_dir);
	assert_int_equal(chmod(src_dir, 0500), 0);
	import_ok(src_dir, out, 19, NULL);
	assert_int_equal(chmod(src_dir, 0700), 0);
	char *after = testing_read(path, &m);
	assert_int_equal(n, m);
	assert_memory_equal(before, after, n);
	assert_int_equal(testing_dir_entries(src_dir), entries);
	free(before);
	free(after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_DIR(test_allocation_failures), IN_DIR(test_json_failures), IN_DIR(test_io_failures),
		IN_DIR(test_disk_full),           IN_DIR(test_kill),          IN_DIR(test_two_importers),
		IN_DIR(test_source_untouched),    IN_DIR(test_allocation_failures_draft),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
