/* aio.h - many reads of one file under way at once: io_uring where the system has it, else threads with pread. AUTO
 * takes threads for files that cannot be read directly, too: io_uring would copy from the page cache within submit.
 *
 * Reads go past the page cache (O_DIRECT) where the file system can; where it cannot, the pages are dropped as soon as
 * they were read, so that a process under a memory limit does not pay for them. All calls come from one thread. A file
 * that is replaced while it is open is read on as it was; one that is truncated fails the reads behind its new end. */
#ifndef MZM_AIO_H
#define MZM_AIO_H

#include "base/err.h"
#include "base/mem.h"

typedef struct mzm_aio mzm_aio;

#define MZM_AIO_ALIGN     ((size_t)4096) /* offsets, lengths and destinations are multiples of it */
#define MZM_AIO_MAX_DEPTH 64

typedef enum mzm_aio_kind { MZM_AIO_AUTO, MZM_AIO_URING, MZM_AIO_THREADS } mzm_aio_kind;

/* Memory that reads go to, told beforehand so that the kernel need not look it up for every read. A wish: where it
 * refuses (limits on locked memory), reads work all the same. */
typedef struct mzm_aio_buffer {
	void  *base;
	size_t n_bytes;
} mzm_aio_buffer;

typedef struct mzm_aio_read {
	void    *dst;    /* anywhere; fastest inside a buffer that was told */
	size_t   n;      /* bytes to ask for, up to 1 GiB */
	size_t   need;   /* of which so many must be there, <= n: the last page of a file is not whole */
	uint64_t offset;
	uint64_t tag;    /* the caller's own */
} mzm_aio_read;

/* depth: reads under way at once, 1..MZM_AIO_MAX_DEPTH. kind URING: EUNSUPPORTED where there is none.
 * -> mzm_aio_close */
mzm_status  mzm_aio_open(mzm_aio **out, const char *path, mzm_aio_kind kind, int depth, const mzm_aio_buffer *buffers,
			 int n_buffers, mzm_err *err);
void        mzm_aio_close(mzm_aio *a); /* waits for what is under way; NULL is fine */

/* Starts a read. EARG when depth are under way already or something is not aligned. Allocates nothing. */
mzm_status  mzm_aio_submit(mzm_aio *a, const mzm_aio_read *r, mzm_err *err);
/* Waits for a read to end, in whatever order: *tag is its own, the status too (EIO: file, offset, reason). EARG when
 * none is under way, with *tag untouched. Allocates nothing. */
mzm_status  mzm_aio_wait(mzm_aio *a, uint64_t *tag, mzm_err *err);

int         mzm_aio_pending(const mzm_aio *a);
uint64_t    mzm_aio_bytes_read(const mzm_aio *a);
bool        mzm_aio_is_direct(const mzm_aio *a);
const char *mzm_aio_name(const mzm_aio *a); /* "io_uring" or "threads" */

#endif
