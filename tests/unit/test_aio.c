/* test_aio.c - many reads under way: both backends, with O_DIRECT and without, against the file's own bytes. */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>

#include "base/aio.h"
#include "base/aio_impl.h"
#include "base/io.h"

#define PAGE      MZM_AIO_ALIGN
#define KIB       ((size_t)1 << 10)
#define FILE_SIZE (((size_t)3 << 20) + 1777) /* odd: its last page is not whole */
#define SPAN      (256 * KIB)                /* longest random read */
#define FILLER    0xa5

static char     dir[256], path[300];
static uint8_t *bytes;  /* [FILE_SIZE] of the file */
static uint8_t *memory; /* [MZM_AIO_MAX_DEPTH][SPAN + PAGE]: where reads go, a page between them */

typedef struct variant {
	mzm_aio_kind kind;
	bool         is_cached; /* as on a file system without O_DIRECT */
} variant;

static variant variants[] = {
	{MZM_AIO_URING, false}, {MZM_AIO_URING, true}, {MZM_AIO_THREADS, false}, {MZM_AIO_THREADS, true}};

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void sleep_ms(long ms)
{
	struct timespec t = {0, ms * 1000000};
	nanosleep(&t, NULL);
}

static uint8_t *lane(int i)
{
	return memory + (size_t)i * (SPAN + PAGE);
}

/* The file opened in that way; skips the test where there is no io_uring. */
static mzm_aio *open_as(const variant *v, const char *name, int depth)
{
	mzm_aio *a;
	mzm_err err = {0};
	mzm_aio_buffer told = {memory, MZM_AIO_MAX_DEPTH / 2 * (SPAN + PAGE)}; /* half of the lanes */
	mzm_aio_avoid_direct(v->is_cached);
	mzm_status st = mzm_aio_open(&a, name, v->kind, depth, &told, 1, &err);
	mzm_aio_avoid_direct(false);
	if (st == MZM_EUNSUPPORTED && v->kind == MZM_AIO_URING) {
		print_message("skipped: %s\n", err.message);
		skip();
	}
	if (st != MZM_OK)
		fail_msg("%s", err.message);
	assert_string_equal(mzm_aio_name(a), v->kind == MZM_AIO_URING ? "io_uring" : "threads");
	assert_false(v->is_cached && mzm_aio_is_direct(a));
	return a;
}

/* As much of n bytes as the file has there must come. */
static mzm_aio_read read_of(void *dst, size_t n, size_t offset, uint64_t tag)
{
	size_t have = offset < FILE_SIZE ? FILE_SIZE - offset : 0;
	return (mzm_aio_read){.dst = dst, .n = n, .need = min_size(n, have), .offset = offset, .tag = tag};
}

static mzm_status read_now(mzm_aio *a, const mzm_aio_read *r, mzm_err *err)
{
	uint64_t tag = ~r->tag;
	assert_int_equal(mzm_aio_submit(a, r, err), MZM_OK);
	mzm_status st = mzm_aio_wait(a, &tag, err);
	assert_true(tag == r->tag);
	assert_int_equal(mzm_aio_pending(a), 0);
	return st;
}

/* ---- what is read ---- */

static mzm_aio_read random_read(int i, uint64_t *seed)
{
	size_t n_pages = 1 + testing_random(seed) % (testing_random(seed) % 4 ? 4 : SPAN / PAGE);
	size_t page = testing_random(seed) % (FILE_SIZE / PAGE + 1);
	memset(lane(i), FILLER, SPAN + PAGE);
	return read_of(lane(i), n_pages * PAGE, page * PAGE, (uint64_t)i);
}

static void check_lane(int i, const mzm_aio_read *r)
{
	assert_memory_equal(lane(i), bytes + r->offset, r->need);
	for (size_t at = r->n; at < SPAN + PAGE; at++)
		if (lane(i)[at] != FILLER)
			fail_msg("a byte behind the read was written: %zu of %zu", at, r->n);
}

static void random_program(const variant *v, int depth, long n_reads)
{
	mzm_aio *a = open_as(v, path, depth);
	mzm_aio_read reads[MZM_AIO_MAX_DEPTH];
	bool is_used[MZM_AIO_MAX_DEPTH] = {false};
	uint64_t seed = (uint64_t)depth, tag, n_bytes = 0;
	mzm_err err = {0};
	while (n_reads > 0 || mzm_aio_pending(a) > 0) {
		int n_pending = mzm_aio_pending(a);
		if (n_reads > 0 && n_pending < depth && testing_random(&seed) % 8) {
			int i = (int)(testing_random(&seed) % (uint64_t)depth);
			while (is_used[i])
				i = (i + 1) % depth;
			is_used[i] = true;
			reads[i] = random_read(i, &seed);
			assert_int_equal(mzm_aio_submit(a, &reads[i], &err), MZM_OK);
			n_bytes += reads[i].need;
			n_reads--;
			assert_int_equal(mzm_aio_pending(a), n_pending + 1);
		} else if (n_pending > 0) {
			assert_int_equal(mzm_aio_wait(a, &tag, &err), MZM_OK);
			assert_true(tag < (uint64_t)depth && is_used[tag]);
			is_used[tag] = false;
			check_lane((int)tag, &reads[tag]);
		}
	}
	assert_true(mzm_aio_bytes_read(a) == n_bytes);
	mzm_aio_close(a);
}

static void random_reads(void **state)
{
	static const int depths[] = {1, 2, 3, 8, 17, 64};
	for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++)
		random_program(*state, depths[i], testing_count(150, 3000));
}

/* One read of all, one that starts in the last page, one behind the end. */
static void end_of_file(void **state)
{
	size_t n = (FILE_SIZE + PAGE - 1) / PAGE * PAGE;
	mzm_aio *a = open_as(*state, path, 2);
	uint8_t *all = aligned_alloc(PAGE, n);
	assert_non_null(all);
	memset(all, FILLER, n);
	mzm_err err = {0};
	mzm_aio_read r = read_of(all, n, 0, 1);
	assert_int_equal(read_now(a, &r, &err), MZM_OK);
	assert_memory_equal(all, bytes, FILE_SIZE);
	memset(all, FILLER, n); /* what is not needed comes as well, where the file has it */
	r.need = 1;
	assert_int_equal(read_now(a, &r, &err), MZM_OK);
	assert_memory_equal(all, bytes, FILE_SIZE);
	r = read_of(all, 8 * PAGE, n - PAGE, 2);
	assert_int_equal(r.need, FILE_SIZE % PAGE);
	assert_int_equal(read_now(a, &r, &err), MZM_OK);
	assert_memory_equal(all, bytes + n - PAGE, r.need);
	r = read_of(all, PAGE, n + PAGE, 3);
	assert_int_equal(r.need, 0);
	assert_int_equal(read_now(a, &r, &err), MZM_OK);
	assert_true(mzm_aio_bytes_read(a) == 2 * FILE_SIZE + FILE_SIZE % PAGE);
	mzm_aio_close(a);
	free(all);
}

/* More is needed than there is: the message says where the file ends. */
static void more_than_there_is(void **state)
{
	mzm_aio *a = open_as(*state, path, 2);
	mzm_err err = {0};
	char want[400];
	size_t last = FILE_SIZE / PAGE * PAGE;
	mzm_aio_read r = {lane(0), 4 * PAGE, FILE_SIZE - (last - PAGE) + 1, last - PAGE, 9};
	assert_int_equal(read_now(a, &r, &err), MZM_EIO);
	snprintf(want, sizeof want, "%s: ends at offset %zu; it was truncated while open", path, FILE_SIZE);
	assert_string_equal(err.message, want);
	r.need--;
	assert_int_equal(read_now(a, &r, NULL), MZM_OK);
	r.offset = last + 16 * PAGE;
	r.need = 1;
	assert_int_equal(read_now(a, &r, NULL), MZM_EIO);
	mzm_aio_close(a);
}

static void small_files(void **state)
{
	static const size_t sizes[] = {0, 1, 511, 512, 4095, 4096, 4097, 8191};
	char name[300];
	snprintf(name, sizeof name, "%s/small", dir);
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		testing_write(name, bytes, sizes[i]);
		mzm_aio *a = open_as(*state, name, 1);
		mzm_aio_read r = {lane(0), 2 * PAGE, sizes[i], 0, 5};
		assert_int_equal(read_now(a, &r, NULL), MZM_OK);
		assert_memory_equal(lane(0), bytes, sizes[i]);
		r.need++;
		assert_int_equal(read_now(a, &r, NULL), MZM_EIO);
		mzm_aio_close(a);
	}
}

/* The system may bring less than was asked for anywhere: the rest is fetched, again from a whole page on. */
static void short_attempts(void **state)
{
	static const size_t limits[] = {PAGE, PAGE + 1, 10000, 100 * KIB + 511};
	mzm_aio_close(open_as(*state, path, 1)); /* or is skipped here */
	for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
		mzm_aio_limit_attempts(limits[i]);
		random_program(*state, 5, 60);
		more_than_there_is(state);
		mzm_aio_limit_attempts(0);
	}
	mzm_aio_limit_attempts(1000); /* not even a page: no way on */
	mzm_aio *a = open_as(*state, path, 1);
	mzm_aio_read r = read_of(lane(0), PAGE, 0, 0);
	mzm_status st = read_now(a, &r, NULL);
	mzm_aio_limit_attempts(0);
	assert_int_equal(st, MZM_EIO);
	mzm_aio_close(a);
}

/* ---- what is refused ---- */

static void arguments(void **state)
{
	mzm_aio *a = open_as(*state, path, 2);
	mzm_aio_read good = read_of(lane(0), PAGE, 0, 1);
	mzm_aio_read bad[9];
	uint64_t tag = 77;
	for (size_t i = 0; i < 9; i++)
		bad[i] = good;
	bad[0].dst = lane(0) + 512;
	bad[1].n = PAGE + 512;
	bad[2].offset = 512;
	bad[3].need = PAGE + 1;
	bad[4].n = bad[4].need = 0;
	bad[5].n = ((size_t)1 << 30) + PAGE;
	bad[6].offset = UINT64_MAX - PAGE + 1;
	bad[7].offset = (uint64_t)INT64_MAX + 1;
	bad[8].dst = NULL;
	for (size_t i = 0; i < 9; i++) {
		mzm_err err = {0};
		assert_int_equal(mzm_aio_submit(a, &bad[i], &err), MZM_EARG);
		assert_int_equal(mzm_aio_pending(a), 0);
		assert_non_null(strstr(err.message, path));
	}
	assert_int_equal(mzm_aio_wait(a, &tag, NULL), MZM_EARG);
	assert_true(tag == 77);
	for (int i = 0; i < 2; i++) {
		good.dst = lane(i);
		assert_int_equal(mzm_aio_submit(a, &good, NULL), MZM_OK);
	}
	assert_int_equal(mzm_aio_submit(a, &good, NULL), MZM_EARG);
	assert_int_equal(mzm_aio_pending(a), 2);
	assert_int_equal(mzm_aio_wait(a, &tag, NULL), MZM_OK);
	assert_true(tag == 1);
	good.dst = lane(2);
	assert_int_equal(mzm_aio_submit(a, &good, NULL), MZM_OK);
	mzm_aio_close(a);
	mzm_aio_close(NULL);
}

static void refused_files(void **state)
{
	const variant *v = *state;
	static const struct {
		const char *name, *reason;
	} rows[] = {{"", "is a directory"}, {"fifo", "not a regular file"}, {"none", "No such file"}};
	char fifo[300];
	snprintf(fifo, sizeof fifo, "%s/fifo", dir);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	size_t live = mzm_mem_live();
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char name[300];
		mzm_aio *a = (mzm_aio *)(uintptr_t)1;
		mzm_err err = {0};
		snprintf(name, sizeof name, "%s/%s", dir, rows[i].name);
		assert_int_equal(mzm_aio_open(&a, name, v->kind, 4, NULL, 0, &err), MZM_EIO);
		assert_null(a);
		assert_non_null(strstr(err.message, name));
		assert_non_null(strstr(err.message, rows[i].reason));
	}
	static const int depths[] = {0, -1, MZM_AIO_MAX_DEPTH + 1};
	for (size_t i = 0; i < 3; i++) {
		mzm_aio *a;
		assert_int_equal(mzm_aio_open(&a, path, v->kind, depths[i], NULL, 0, NULL), MZM_EARG);
		assert_null(a);
	}
	assert_int_equal(mzm_mem_live(), live);
	unlink(fifo);
}

/* ---- what goes wrong ---- */

/* The k-th of eight reads under way fails, in each way; the others do not, and all goes on afterwards. */
static void one_fails(const variant *v, int k, int code)
{
	mzm_aio *a = open_as(v, path, 8);
	mzm_aio_read reads[8];
	int n_seen = 0;
	mzm_io_fail_nth(k + 1, code);
	for (int i = 0; i < 8; i++) {
		memset(lane(i), FILLER, SPAN);
		reads[i] = read_of(lane(i), 8 * PAGE, FILE_SIZE / PAGE * PAGE - (size_t)i * 3 * PAGE, (uint64_t)i);
		assert_int_equal(mzm_aio_submit(a, &reads[i], NULL), MZM_OK);
	}
	assert_int_equal(mzm_io_fail_nth(0, 0), 8); /* one call of the hook each */
	while (mzm_aio_pending(a) > 0) {
		uint64_t i = 99;
		char want[400];
		mzm_err err = {0};
		mzm_status st = mzm_aio_wait(a, &i, &err);
		assert_true(i < 8);
		n_seen |= 1 << i;
		bool fails = (int)i == k && code >= 0 && code != EINTR;
		unsigned long long at = reads[i].offset;
		assert_int_equal(st, fails ? MZM_EIO : MZM_OK);
		if (fails && code)
			snprintf(want, sizeof want, "%s: reading %zu bytes at offset %llu: %s", path, reads[i].n, at,
				 strerror(code));
		else
			snprintf(want, sizeof want, "%s: ends at offset %llu; it was truncated while open", path, at);
		assert_string_equal(err.message, fails ? want : "");
		size_t n_wrong = 0;
		for (size_t b = 0; b < reads[i].need; b++)
			n_wrong += lane((int)i)[b] != bytes[reads[i].offset + b];
		if (!fails)
			assert_int_equal(n_wrong, (int)i == k && code == -1 ? 1 : 0);
	}
	assert_int_equal(n_seen, 0xff);
	assert_int_equal(read_now(a, &reads[k], NULL), MZM_OK);
	assert_memory_equal(lane(k), bytes + reads[k].offset, reads[k].need);
	mzm_aio_close(a);
}

static void injected_faults(void **state)
{
	static const int codes[] = {EIO, ENOMEM, EINTR, 0, -1};
	for (size_t c = 0; c < sizeof codes / sizeof codes[0]; c++)
		for (int k = 0; k < 8; k += 3)
			one_fails(*state, k, codes[c]);
}

/* The plain reader knows the same codes. */
static void injected_into_plain_reads(void **state)
{
	(void)state;
	mzm_file *f;
	mzm_err err = {0};
	assert_int_equal(mzm_file_open(&f, path, &err), MZM_OK);
	mzm_io_fail_nth(1, -1);
	assert_int_equal(mzm_file_read_at(f, lane(0), 1000, 7, &err), MZM_OK);
	mzm_io_fail_nth(0, 0);
	lane(0)[500] ^= MZM_IO_FLIP;
	assert_memory_equal(lane(0), bytes + 7, 1000);
	mzm_file_close(f);

	char name[300];
	mzm_writer *w;
	snprintf(name, sizeof name, "%s/written", dir);
	assert_int_equal(mzm_writer_open(&w, name, &err), MZM_OK);
	mzm_io_fail_nth(1, -1);
	assert_int_equal(mzm_writer_write_at(w, bytes, 10, 0, &err), MZM_EIO);
	mzm_io_fail_nth(0, 0);
	assert_non_null(strstr(err.message, strerror(ENOSPC)));
	mzm_writer_close(w);
}

static void truncated_while_open(void **state)
{
	char name[300], want[400];
	snprintf(name, sizeof name, "%s/cut", dir);
	testing_write(name, bytes, FILE_SIZE);
	mzm_aio *a = open_as(*state, name, 4);
	mzm_aio_read r = read_of(lane(0), 64 * PAGE, 0, 3);
	assert_int_equal(read_now(a, &r, NULL), MZM_OK);
	assert_int_equal(truncate(name, 70001), 0);
	for (int i = 0; i < 2; i++) { /* into the end, behind it */
		mzm_err err = {0};
		r.offset = (uint64_t)i * 64 * PAGE;
		assert_int_equal(read_now(a, &r, &err), MZM_EIO);
		snprintf(want, sizeof want, "%s: ends at offset %llu; it was truncated while open", name,
			 i ? (unsigned long long)r.offset : 70001);
		assert_string_equal(err.message, want);
	}
	r.offset = 0; /* what is left can be read */
	r.need = 70001;
	memset(lane(0), FILLER, 70001);
	assert_int_equal(read_now(a, &r, NULL), MZM_OK);
	assert_memory_equal(lane(0), bytes, 70001);
	mzm_aio_close(a);
}

static void replaced_while_open(void **state)
{
	char name[300], other[300];
	snprintf(name, sizeof name, "%s/target", dir);
	snprintf(other, sizeof other, "%s/other", dir);
	testing_write(name, bytes, FILE_SIZE);
	testing_write(other, bytes + 1, 100);
	mzm_aio *a = open_as(*state, name, 4);
	mzm_aio_read r = read_of(lane(0), 32 * PAGE, 100 * PAGE, 3);
	assert_int_equal(rename(other, name), 0);
	assert_int_equal(read_now(a, &r, NULL), MZM_OK);
	assert_memory_equal(lane(0), bytes + r.offset, r.need);
	mzm_aio_close(a);
}

/* ---- what it leaves alone ---- */

/* Nothing is written to memory after close, however much was under way. */
static void close_under_way(void **state)
{
	size_t live = mzm_mem_live();
	uint64_t seed = 4;
	for (long round = 0; round < testing_count(20, 200); round++) {
		int depth = 1 + (int)(testing_random(&seed) % MZM_AIO_MAX_DEPTH);
		mzm_aio *a = open_as(*state, path, depth);
		for (int i = 0; i < depth; i++) {
			mzm_aio_read r = read_of(lane(i), SPAN, testing_random(&seed) % (FILE_SIZE / PAGE) * PAGE, 0);
			assert_int_equal(mzm_aio_submit(a, &r, NULL), MZM_OK);
		}
		mzm_aio_close(a);
		memset(memory, FILLER, (size_t)depth * (SPAN + PAGE));
		sleep_ms(2);
		for (size_t at = 0; at < (size_t)depth * (SPAN + PAGE); at++)
			if (memory[at] != FILLER)
				fail_msg("written after close: byte %zu at depth %d", at, depth);
	}
	assert_int_equal(mzm_mem_live(), live);
}

static void allocates_at_open_only(void **state)
{
	const variant *v = *state;
	mzm_aio *a = open_as(v, path, 8);
	size_t live = mzm_mem_live();
	mzm_mem_fail_nth(0);
	for (int round = 0; round < 50; round++) {
		mzm_aio_read r = read_of(lane(round), 16 * PAGE, (size_t)round * 10 * PAGE, 0);
		if (round % 10 == 9)
			mzm_io_fail_nth(1, round % 20 == 9 ? EIO : 0);
		assert_int_equal(read_now(a, &r, NULL), round % 10 == 9 ? MZM_EIO : MZM_OK);
		mzm_io_fail_nth(0, 0);
	}
	assert_int_equal(mzm_mem_fail_nth(0), 0);
	assert_int_equal(mzm_mem_live(), live);
	mzm_aio_close(a);
	live = mzm_mem_live();
	for (long k = 1;; k++) {
		mzm_err err = {0};
		mzm_mem_fail_nth(k);
		mzm_status st = mzm_aio_open(&a, path, v->kind, 8, NULL, 0, &err);
		long n_calls = mzm_mem_fail_nth(0);
		if (st == MZM_OK) {
			assert_true(n_calls < k && k > 2);
			break;
		}
		assert_int_equal(st, MZM_ENOMEM);
		assert_null(a);
		assert_int_equal(mzm_mem_live(), live);
	}
	mzm_aio_close(a);
	assert_int_equal(mzm_mem_live(), live);
}

static size_t n_cached_pages(const char *name, bool drop)
{
	int fd = open(name, O_RDONLY);
	assert_true(fd >= 0);
	if (drop) {
		assert_int_equal(fsync(fd), 0);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	}
	size_t n_pages = (FILE_SIZE + PAGE - 1) / PAGE, n = 0;
	unsigned char in_memory[FILE_SIZE / PAGE + 1];
	void *map = mmap(NULL, FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(mincore(map, FILE_SIZE, in_memory), 0);
	for (size_t i = 0; i < n_pages; i++)
		n += in_memory[i] & 1;
	munmap(map, FILE_SIZE);
	close(fd);
	return n;
}

/* What was read does not stay in the page cache, and neither does anything near it. */
static void page_cache(void **state)
{
	struct statfs fs;
	assert_int_equal(statfs(dir, &fs), 0);
	if (fs.f_type == 0x01021994 || n_cached_pages(path, true) > 0) { /* tmpfs lives in the cache */
		print_message("skipped: %s does not leave the page cache when told to\n", dir);
		skip();
	}
	mzm_aio *a = open_as(*state, path, 4);
	size_t n_read = 0;
	for (size_t offset = 0; offset < FILE_SIZE; offset += 3 * SPAN) {
		for (int i = 0; i < 2; i++) {
			mzm_aio_read r = read_of(lane(i), SPAN, offset + (size_t)i * SPAN, (uint64_t)i);
			assert_int_equal(mzm_aio_submit(a, &r, NULL), MZM_OK);
		}
		for (uint64_t tag; mzm_aio_pending(a) > 0; n_read++)
			assert_int_equal(mzm_aio_wait(a, &tag, NULL), MZM_OK);
	}
	size_t n_left = n_cached_pages(path, false);
	if (n_left > 0)
		fail_msg("%zu pages are cached after %zu reads", n_left, n_read);
	mzm_aio_close(a);
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	assert_int_equal(fgetc(f), bytes[0]);
	fclose(f);
	assert_true(n_cached_pages(path, false) > 0); /* the count can tell */
}

static void tmpfs(void **state)
{
	char name[] = "/dev/shm/mirzam-XXXXXX";
	mzm_aio_close(open_as(*state, path, 1)); /* or is skipped here */
	int fd = mkstemp(name);
	if (fd < 0) {
		print_message("skipped: /dev/shm: %s\n", strerror(errno));
		skip();
	}
	close(fd);
	testing_write(name, bytes, FILE_SIZE);
	mzm_aio *a = open_as(*state, name, 4);
	unlink(name);
	for (size_t offset = 0; offset < FILE_SIZE; offset += SPAN) {
		mzm_aio_read r = read_of(lane(40), SPAN, offset, 0);
		assert_int_equal(read_now(a, &r, NULL), MZM_OK);
		assert_memory_equal(lane(40), bytes + offset, r.need);
	}
	mzm_aio_close(a);
}

/* A file of the system's own: no O_DIRECT, no size. */
static void odd_file_system(void **state)
{
	char text[300];
	if (!mzm_read_small_text("/proc/version", text, sizeof text) || !text[0]) {
		print_message("skipped: no /proc/version\n");
		skip();
	}
	mzm_aio *a = open_as(*state, "/proc/version", 2);
	mzm_aio_read r = {lane(0), PAGE, strlen(text), 0, 0};
	assert_false(mzm_aio_is_direct(a));
	assert_int_equal(read_now(a, &r, NULL), MZM_OK);
	assert_memory_equal(lane(0), text, strlen(text));
	mzm_aio_close(a);
}

/* ---- the choice, and signals ---- */

static void automatic(void **state)
{
	(void)state;
	mzm_aio *a, *uring = NULL;
	mzm_err err = {0};
	mzm_status st = mzm_aio_open(&uring, path, MZM_AIO_URING, 4, NULL, 0, &err);
	if (st != MZM_OK) {
		assert_int_equal(st, MZM_EUNSUPPORTED);
		assert_memory_equal(err.message, "io_uring: ", 10);
	}
	mzm_aio_close(uring);
	assert_int_equal(mzm_aio_open(&a, path, MZM_AIO_AUTO, 4, NULL, 0, NULL), MZM_OK);
	print_message("%s, %s\n", mzm_aio_name(a), mzm_aio_is_direct(a) ? "direct" : "not direct");
	bool takes_uring = st == MZM_OK && mzm_aio_is_direct(a);
	assert_string_equal(mzm_aio_name(a), takes_uring ? "io_uring" : "threads");
	mzm_aio_close(a);
	mzm_aio_avoid_direct(true);
	assert_int_equal(mzm_aio_open(&a, path, MZM_AIO_AUTO, 4, NULL, 0, NULL), MZM_OK);
	mzm_aio_avoid_direct(false);
	assert_string_equal(mzm_aio_name(a), "threads");
	mzm_aio_close(a);
}

/* From now on that system call is refused, as in a container. */
static bool forbid(unsigned number)
{
	struct sock_filter rules[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof rules / sizeof rules[0], rules};
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* In a process of its own, for what cannot be undone: 0 well, 77 not possible here, else it failed. */
static int in_child(int (*f)(void))
{
	int status;
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(f());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

#define EXPECT(condition)                                                  \
	do {                                                               \
		if (!(condition)) {                                        \
			print_message("line %d: %s\n", __LINE__, #condition); \
			return 1;                                          \
		}                                                          \
	} while (0)

static int no_io_uring(void)
{
	mzm_aio *a;
	mzm_err err = {0};
	mzm_aio_read r = read_of(lane(0), SPAN, 0, 0);
	uint64_t tag;
	if (!forbid(SYS_io_uring_setup))
		return 77;
	EXPECT(mzm_aio_open(&a, path, MZM_AIO_URING, 4, NULL, 0, &err) == MZM_EUNSUPPORTED && !a);
	EXPECT(strstr(err.message, "io_uring: "));
	EXPECT(mzm_aio_open(&a, path, MZM_AIO_AUTO, 4, NULL, 0, NULL) == MZM_OK);
	EXPECT(strcmp(mzm_aio_name(a), "threads") == 0);
	EXPECT(mzm_aio_submit(a, &r, NULL) == MZM_OK && mzm_aio_wait(a, &tag, NULL) == MZM_OK);
	EXPECT(memcmp(lane(0), bytes, SPAN) == 0);
	mzm_aio_close(a);
	return 0;
}

/* Refused after it was opened, too: what is under way ends, what comes later fails, nothing hangs. */
static int io_uring_taken_away(void)
{
	mzm_aio *a;
	uint64_t tag;
	mzm_err err = {0};
	if (mzm_aio_open(&a, path, MZM_AIO_URING, 8, NULL, 0, NULL) != MZM_OK)
		return 77;
	for (int i = 0; i < 6; i++) {
		mzm_aio_read r = read_of(lane(i), SPAN, (size_t)i * SPAN, (uint64_t)i);
		if (i == 4 && !forbid(SYS_io_uring_enter))
			return 77;
		EXPECT(mzm_aio_submit(a, &r, NULL) == MZM_OK);
	}
	for (int i = 0; i < 4; i++) {
		mzm_err refused = {0};
		mzm_status st = mzm_aio_wait(a, &tag, &refused);
		EXPECT(st == (tag < 4 ? MZM_OK : MZM_EIO));
		EXPECT(tag >= 4 || memcmp(lane((int)tag), bytes + tag * SPAN, SPAN) == 0);
		EXPECT(tag < 4 || strstr(refused.message, strerror(EPERM)));
	}
	EXPECT(mzm_aio_pending(a) == 2);
	mzm_aio_close(a);
	EXPECT(mzm_aio_open(&a, path, MZM_AIO_THREADS, 8, NULL, 0, &err) == MZM_OK);
	mzm_aio_close(a);
	return 0;
}

static void in_a_sandbox(void **state)
{
	(void)state;
	int before = in_child(no_io_uring), later = in_child(io_uring_taken_away);
	assert_true(before == 0 || before == 77);
	assert_true(later == 0 || later == 77);
	if (before || later) {
		print_message("skipped: no io_uring, or system calls cannot be filtered here\n");
		skip();
	}
}

/* Buffers that cannot be registered are no reason to fail, and reads across their edges work. */
static void odd_buffers(void **state)
{
	const variant *v = *state;
	mzm_aio_buffer told[] = {{memory, PAGE}, {memory, 0}, {memory + PAGE, PAGE}, {memory + 64 * PAGE, 100}};
	mzm_aio_buffer absurd = {(void *)(uintptr_t)PAGE, (size_t)5 << 30};
	mzm_aio *a;
	mzm_status st = mzm_aio_open(&a, path, v->kind, 2, told, 4, NULL);
	if (st == MZM_EUNSUPPORTED)
		skip();
	assert_int_equal(st, MZM_OK);
	for (size_t at = 0; at < 4; at++) {
		mzm_aio_read r = read_of(memory + at * PAGE, 2 * PAGE, at * 7 * PAGE, at);
		assert_int_equal(read_now(a, &r, NULL), MZM_OK);
		assert_memory_equal(r.dst, bytes + r.offset, r.need);
	}
	mzm_aio_close(a);
	assert_int_equal(mzm_aio_open(&a, path, v->kind, 2, &absurd, 1, NULL), MZM_OK);
	mzm_aio_read r = read_of(memory, PAGE, 0, 0);
	assert_int_equal(read_now(a, &r, NULL), MZM_OK);
	r.dst = absurd.base; /* nothing there: an error, not a crash */
	mzm_err err = {0};
	assert_int_equal(read_now(a, &r, &err), MZM_EIO);
	assert_non_null(strstr(err.message, strerror(EFAULT)));
	mzm_aio_close(a);
}

static volatile sig_atomic_t n_signals;

static void count_signal(int number)
{
	(void)number;
	n_signals++;
}

/* Signals are for the program's own threads. */
static void signals(void **state)
{
	sigset_t usr, before;
	struct sigaction sa = {.sa_handler = count_signal}, old;
	sigemptyset(&sa.sa_mask);
	sigemptyset(&usr);
	sigaddset(&usr, SIGUSR1);
	sigaction(SIGUSR1, &sa, &old);
	mzm_aio *a = open_as(*state, path, 16);
	pthread_sigmask(SIG_BLOCK, &usr, &before);
	assert_false(sigismember(&before, SIGUSR1));
	n_signals = 0;
	kill(getpid(), SIGUSR1);
	mzm_aio_read r = read_of(lane(0), SPAN, 0, 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(read_now(a, &r, NULL), MZM_OK);
		sleep_ms(1);
	}
	assert_int_equal(n_signals, 0);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	sleep_ms(1);
	assert_int_equal(n_signals, 1);
	mzm_aio_close(a);
	sigaction(SIGUSR1, &old, NULL);
}

static int set_up(void **state)
{
	(void)state;
	uint64_t seed = 1;
	size_t n_memory = MZM_AIO_MAX_DEPTH * (SPAN + PAGE);
	bytes = malloc(FILE_SIZE + 8);
	memory = aligned_alloc(PAGE, n_memory);
	if (!bytes || !memory)
		return 1;
	memset(memory, FILLER, n_memory);
	for (size_t i = 0; i < FILE_SIZE; i += 8) {
		uint64_t eight = testing_random(&seed);
		memcpy(bytes + i, &eight, 8);
	}
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/data", dir);
	testing_write(path, bytes, FILE_SIZE);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	testing_remove(dir);
	free(bytes);
	free(memory);
	return 0;
}

#define IN_ALL_VARIANTS(f)                                                                                     \
	{#f ": io_uring", f, NULL, NULL, &variants[0]}, {#f ": io_uring, cached", f, NULL, NULL, &variants[1]}, \
	{#f ": threads", f, NULL, NULL, &variants[2]}, {#f ": threads, cached", f, NULL, NULL, &variants[3]}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_ALL_VARIANTS(random_reads),
		IN_ALL_VARIANTS(end_of_file),
		IN_ALL_VARIANTS(more_than_there_is),
		IN_ALL_VARIANTS(small_files),
		IN_ALL_VARIANTS(short_attempts),
		IN_ALL_VARIANTS(arguments),
		IN_ALL_VARIANTS(refused_files),
		IN_ALL_VARIANTS(injected_faults),
		IN_ALL_VARIANTS(truncated_while_open),
		IN_ALL_VARIANTS(replaced_while_open),
		IN_ALL_VARIANTS(close_under_way),
		IN_ALL_VARIANTS(allocates_at_open_only),
		IN_ALL_VARIANTS(page_cache),
		IN_ALL_VARIANTS(tmpfs),
		IN_ALL_VARIANTS(odd_file_system),
		IN_ALL_VARIANTS(odd_buffers),
		IN_ALL_VARIANTS(signals),
		cmocka_unit_test(automatic),
		cmocka_unit_test(in_a_sandbox),
		cmocka_unit_test(injected_into_plain_reads),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
