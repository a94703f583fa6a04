/* io.c - see io.h. */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"

struct mzm_file {
	int              fd;
	uint64_t         size;
	atomic_uint_least64_t n_read;
	char            *path;
	bool             avoid_cache;
};

static atomic_long fail_in, n_calls;
static atomic_int  fail_code;

long mzm_io_fail_nth(long nth, int code)
{
	atomic_store(&fail_code, code);
	atomic_store(&fail_in, nth);
	return atomic_exchange(&n_calls, 0);
}

bool mzm_io_injected(int *code)
{
	atomic_fetch_add_explicit(&n_calls, 1, memory_order_relaxed);
	long left = atomic_load_explicit(&fail_in, memory_order_relaxed);
	if (left <= 0 || atomic_fetch_sub_explicit(&fail_in, 1, memory_order_relaxed) != 1)
		return false;
	*code = atomic_load(&fail_code);
	return true;
}

/* ---- reading ---- */

mzm_status mzm_io_open_regular(int *fd, uint64_t *size, const char *path, mzm_err *err)
{
	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* NONBLOCK: a FIFO must not hang us */
	if (*fd < 0)
		return mzm_fail(err, MZM_EIO, "%s: %s", path, strerror(errno));
	struct stat sb;
	mzm_status st = MZM_OK;
	if (fstat(*fd, &sb) != 0)
		st = mzm_fail(err, MZM_EIO, "%s: %s", path, strerror(errno));
	else if (!S_ISREG(sb.st_mode))
		st = mzm_fail(err, MZM_EIO, "%s: %s", path,
			      S_ISDIR(sb.st_mode) ? "is a directory" : "not a regular file");
	if (st != MZM_OK) {
		close(*fd);
		*fd = -1;
		return st;
	}
	*size = (uint64_t)sb.st_size;
	return MZM_OK;
}

mzm_status mzm_file_open(mzm_file **out, const char *path, mzm_err *err)
{
	*out = NULL;
	int fd;
	uint64_t size;
	MZM_TRY(mzm_io_open_regular(&fd, &size, path, err));
	mzm_file *f = mzm_alloc(sizeof *f);
	if (!f || !(f->path = mzm_strdup(path))) {
		mzm_free(f);
		close(fd);
		return mzm_fail(err, MZM_ENOMEM, "%s: out of memory", path);
	}
	f->fd = fd;
	f->size = size;
	*out = f;
	return MZM_OK;
}

void mzm_file_close(mzm_file *f)
{
	if (!f)
		return;
	close(f->fd);
	mzm_free(f->path);
	mzm_free(f);
}

uint64_t mzm_file_size(const mzm_file *f)
{
	return f->size;
}

const char *mzm_file_path(const mzm_file *f)
{
	return f->path;
}

uint64_t mzm_file_bytes_read(const mzm_file *f)
{
	return atomic_load_explicit(&((mzm_file *)(uintptr_t)f)->n_read, memory_order_relaxed);
}

void mzm_file_avoid_cache(mzm_file *f)
{
	f->avoid_cache = true;
	(void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_RANDOM); /* no reading ahead */
	(void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* pread, or what the test hook puts in its place. */
static ssize_t read_some(int fd, char *dst, size_t n, uint64_t offset)
{
	int code = 0;
	bool fails = mzm_io_injected(&code);
	if (fails && code >= 0) {
		errno = code;
		return code ? -1 : 0;
	}
	ssize_t got = pread(fd, dst, n, (off_t)offset);
	if (fails && got > 0)
		dst[got / 2] ^= MZM_IO_FLIP;
	return got;
}

mzm_status mzm_file_read_at(mzm_file *f, void *dst, size_t n, uint64_t offset, mzm_err *err)
{
	if (offset > f->size || n > f->size - offset)
		return mzm_fail(err, MZM_EFORMAT, "%s: wanted %zu bytes at offset %llu, but the file has %llu", f->path,
				n, (unsigned long long)offset, (unsigned long long)f->size);
	size_t done = 0;
	while (done < n) {
		size_t most = f->avoid_cache ? (size_t)4 << 20 : (size_t)1 << 30;
		size_t want = n - done < most ? n - done : most;
		ssize_t got = read_some(f->fd, (char *)dst + done, want, offset + done);
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got < 0)
			return mzm_fail(err, MZM_EIO, "%s: reading %zu bytes at offset %llu: %s", f->path, want,
					(unsigned long long)(offset + done), strerror(errno));
		if (got == 0)
			return mzm_fail(err, MZM_EIO, "%s: ends at offset %llu; it was truncated while open", f->path,
					(unsigned long long)(offset + done));
		if (f->avoid_cache)
			(void)posix_fadvise(f->fd, (off_t)(offset + done), (off_t)got, POSIX_FADV_DONTNEED);
		done += (size_t)got;
	}
	atomic_fetch_add_explicit(&f->n_read, n, memory_order_relaxed);
	return MZM_OK;
}

mzm_status mzm_read_all(const char *path, size_t max_bytes, char **data, size_t *len, mzm_err *err)
{
	mzm_file *f;
	*data = NULL;
	*len = 0;
	MZM_TRY(mzm_file_open(&f, path, err));
	mzm_status st;
	char *buf = NULL;
	if (f->size > max_bytes) {
		st = mzm_fail(err, MZM_EFORMAT, "%s: %llu bytes, more than the limit of %zu", path,
			      (unsigned long long)f->size, max_bytes);
		goto out;
	}
	MZM_TRY_OUT(mzm_alloc_for((void **)&buf, (size_t)f->size + 1, path, err));
	MZM_TRY_OUT(mzm_file_read_at(f, buf, (size_t)f->size, 0, err));
	*data = buf;
	*len = (size_t)f->size;
	buf = NULL;
out:
	mzm_free(buf);
	mzm_file_close(f);
	return st;
}

bool mzm_read_small_text(const char *path, char *text, size_t cap)
{
	text[0] = '\0';
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	size_t len = 0;
	ssize_t got = 1;
	while (len < cap - 1 && got > 0) {
		got = read(fd, text + len, cap - 1 - len);
		if (got > 0)
			len += (size_t)got;
		else if (got < 0 && errno == EINTR)
			got = 1;
	}
	close(fd);
	text[got < 0 ? 0 : len] = '\0';
	return got >= 0;
}

bool mzm_path_is_dir(const char *path)
{
	struct stat sb;
	return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

bool mzm_path_exists(const char *path)
{
	struct stat sb;
	return stat(path, &sb) == 0;
}

bool mzm_path_is_same(const char *a, const char *b)
{
	struct stat sa, sb;
	return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

bool mzm_name_is_safe(const char *name)
{
	size_t n = strlen(name);
	return n >= 1 && n <= 128 && name[0] != '.' &&
	       strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

/* ---- mapping ---- */

struct mzm_mapping {
	mzm_file *file;
	void     *base;
};

mzm_status mzm_mapping_open(mzm_mapping **out, mzm_file *f, mzm_err *err)
{
	mzm_mapping *m;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&m, sizeof *m, f->path, err));
	m->file = f;
	m->base = mmap(NULL, (size_t)f->size, PROT_READ, MAP_SHARED, f->fd, 0);
	if (m->base == MAP_FAILED) {
		mzm_free(m);
		return mzm_fail(err, MZM_EIO, "%s: mapping %llu bytes: %s", f->path, (unsigned long long)f->size,
				strerror(errno));
	}
	*out = m;
	return MZM_OK;
}

void mzm_mapping_close(mzm_mapping *m)
{
	if (!m)
		return;
	munmap(m->base, (size_t)m->file->size);
	mzm_free(m);
}

const void *mzm_mapping_at(const mzm_mapping *m, uint64_t offset)
{
	return (const char *)m->base + offset;
}

mzm_status mzm_mapping_check(const mzm_mapping *m, mzm_err *err)
{
	struct stat sb;
	if (fstat(m->file->fd, &sb) != 0)
		return mzm_fail(err, MZM_EIO, "%s: %s", m->file->path, strerror(errno));
	if ((uint64_t)sb.st_size < m->file->size)
		return mzm_fail(err, MZM_EIO, "%s: ends at offset %llu; it was truncated while open", m->file->path,
				(unsigned long long)sb.st_size);
	return MZM_OK;
}

/* ---- writing ---- */

struct mzm_writer {
	int   fd;
	bool  committed;
	char *path, *tmp_path;
};

/* False when another writer has renamed or removed the file between our opening and locking it. */
static bool is_at(int fd, const char *path)
{
	struct stat a, b;
	return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

mzm_status mzm_writer_open(mzm_writer **out, const char *path, mzm_err *err)
{
	*out = NULL;
	mzm_writer *w = mzm_alloc(sizeof *w);
	mzm_str tmp = {0};
	mzm_str_printf(&tmp, "%s.partial", path);
	if (w)
		w->fd = -1;
	if (!w || tmp.failed || !(w->path = mzm_strdup(path))) {
		mzm_str_free(&tmp);
		mzm_free(w);
		return mzm_fail(err, MZM_ENOMEM, "%s: out of memory", path);
	}
	w->tmp_path = tmp.data;
	struct stat sb;
	mzm_status st = MZM_OK;
	if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode))
		MZM_TRY_OUT(mzm_fail(err, MZM_EIO, "%s: exists and is not a regular file", path));
	w->fd = open(w->tmp_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (w->fd < 0)
		MZM_TRY_OUT(mzm_fail(err, MZM_EIO, "%s: %s", w->tmp_path, strerror(errno)));
	if (flock(w->fd, LOCK_EX | LOCK_NB) != 0 || !is_at(w->fd, w->tmp_path)) {
		close(w->fd);
		w->fd = -1; /* the other writer's file: not ours to remove */
		MZM_TRY_OUT(mzm_fail(err, MZM_EIO, "%s: another process is writing it", path));
	}
	if (ftruncate(w->fd, 0) != 0)
		MZM_TRY_OUT(mzm_fail(err, MZM_EIO, "%s: %s", w->tmp_path, strerror(errno)));
	*out = w;
	return MZM_OK;
out:
	mzm_writer_close(w);
	return st;
}

mzm_status mzm_writer_write_at(mzm_writer *w, const void *src, size_t n, uint64_t offset, mzm_err *err)
{
	size_t done = 0;
	while (done < n) {
		ssize_t put;
		int code = 0;
		if (mzm_io_injected(&code)) {
			errno = code > 0 ? code : ENOSPC;
			put = -1;
		} else {
			put = pwrite(w->fd, (const char *)src + done, n - done, (off_t)(offset + done));
		}
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return mzm_fail(err, MZM_EIO, "%s: writing %zu bytes at offset %llu: %s", w->tmp_path, n - done,
					(unsigned long long)(offset + done), strerror(put < 0 ? errno : ENOSPC));
		done += (size_t)put;
	}
	return MZM_OK;
}

/* Makes the rename durable. Best effort: some file systems refuse to sync a directory. */
static void sync_directory(const char *path)
{
	char *copy = mzm_strdup(path);
	if (!copy)
		return;
	int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		(void)fsync(fd);
		close(fd);
	}
	mzm_free(copy);
}

mzm_status mzm_writer_sync(mzm_writer *w, mzm_err *err)
{
	if (fsync(w->fd) != 0)
		return mzm_fail(err, MZM_EIO, "%s: sync: %s", w->tmp_path, strerror(errno));
	return MZM_OK;
}

const char *mzm_writer_path(const mzm_writer *w)
{
	return w->tmp_path;
}

mzm_status mzm_writer_commit(mzm_writer *w, mzm_err *err)
{
	MZM_TRY(mzm_writer_sync(w, err));
	if (rename(w->tmp_path, w->path) != 0)
		return mzm_fail(err, MZM_EIO, "%s: renaming to %s: %s", w->tmp_path, w->path, strerror(errno));
	w->committed = true;
	sync_directory(w->path);
	return MZM_OK;
}

void mzm_writer_close(mzm_writer *w)
{
	if (!w)
		return;
	if (w->fd >= 0) {
		if (!w->committed)
			unlink(w->tmp_path);
		close(w->fd);
	}
	mzm_free(w->path);
	mzm_free(w->tmp_path);
	mzm_free(w);
}
