/* io.h - the only module, beside aio.h, that opens, reads, writes or renames files.
 *
 * Reading: regular files only (a directory, FIFO or device is refused), pread, EINTR retried, a short
 * read is an error that names file, offset and bytes. Writing: into a temporary name in the target's
 * directory, synced and renamed on commit, so that the target is the old file, absent, or complete. */
#ifndef MZM_IO_H
#define MZM_IO_H

#include "base/err.h"
#include "base/mem.h"

typedef struct mzm_file mzm_file;

mzm_status  mzm_file_open(mzm_file **out, const char *path, mzm_err *err);
void        mzm_file_close(mzm_file *f);
uint64_t    mzm_file_size(const mzm_file *f);
const char *mzm_file_path(const mzm_file *f);
uint64_t    mzm_file_bytes_read(const mzm_file *f); /* so far, all threads */
/* From now on what is read does not stay in the system's cache. A wish, for who must not take more memory than said. */
void        mzm_file_avoid_cache(mzm_file *f);
/* Exactly n bytes at offset, else an error. Thread-safe. Notices a file truncated since it was opened. */
mzm_status  mzm_file_read_at(mzm_file *f, void *dst, size_t n, uint64_t offset, mzm_err *err);

/* The whole file, NUL-terminated behind its end; refused above max_bytes. *data -> mzm_free */
mzm_status  mzm_read_all(const char *path, size_t max_bytes, char **data, size_t *len, mzm_err *err);

/* For the system's own text files (/proc, /sys), whose size is not known before they are read: at most cap - 1 bytes,
 * NUL-terminated. False, and an empty text, where the file cannot be read. */
bool mzm_read_small_text(const char *path, char *text, size_t cap);

bool mzm_path_is_dir(const char *path);
bool mzm_path_exists(const char *path);
/* True when both exist and are one file, by whatever names. */
bool mzm_path_is_same(const char *a, const char *b);
/* True for a plain file name: 1..128 of [A-Za-z0-9._-], not starting with a point. */
bool mzm_name_is_safe(const char *name);

/* A file as memory, read only. Reading a page behind the end of one that was truncated since kills the process
 * (SIGBUS): check notices it, unless it happens in the meantime. */
typedef struct mzm_mapping mzm_mapping;

mzm_status  mzm_mapping_open(mzm_mapping **out, mzm_file *f, mzm_err *err); /* f outlives it */
void        mzm_mapping_close(mzm_mapping *m);
const void *mzm_mapping_at(const mzm_mapping *m, uint64_t offset);
mzm_status  mzm_mapping_check(const mzm_mapping *m, mzm_err *err); /* EIO: the file became shorter */

typedef struct mzm_writer mzm_writer;

/* Refuses when a second writer holds the same target (lock on the temporary file, which a crashed
 * writer leaves behind and the next one takes over). */
mzm_status mzm_writer_open(mzm_writer **out, const char *path, mzm_err *err);
mzm_status mzm_writer_write_at(mzm_writer *w, const void *src, size_t n, uint64_t offset, mzm_err *err);
mzm_status mzm_writer_sync(mzm_writer *w, mzm_err *err);   /* all of it is on the disk */
const char *mzm_writer_path(const mzm_writer *w);          /* where it is until commit */
mzm_status mzm_writer_commit(mzm_writer *w, mzm_err *err); /* sync, rename, sync directory */
void       mzm_writer_close(mzm_writer *w);                /* uncommitted: removes the temporary file */

/* For aio.h: a descriptor of a regular file, opened for reading; anything else is refused. -> close */
mzm_status mzm_io_open_regular(int *fd, uint64_t *size, const char *path, mzm_err *err);

/* Test hooks: the nth read or write from now fails with errno `code` (0: comes back short; -1: a read succeeds, but a
 * byte in its middle is wrong, and a write meets a full disk). nth 0 = off; returns the calls since the last change. */
long mzm_io_fail_nth(long nth, int code);
/* Counts a call of a read or write; true, with the code, when the hook wants this one to fail. */
bool mzm_io_injected(int *code);
#define MZM_IO_FLIP 0x10 /* the wrong bit */

#endif
