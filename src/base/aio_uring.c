/* aio_uring.c - the backend of aio.h that uses io_uring; the only file that knows liburing.
 *
 * A slot is one entry of the ring at a time, its index the entry's user data. What was told about memory is registered,
 * in pieces of at most 1 GiB, so that the kernel holds the pages instead of looking them up for each read. A slot is
 * either with the kernel or ended when start returns: no entry waits in the ring to be submitted by a later call. */
#ifdef MZM_URING

#include <errno.h>
#include <liburing.h>
#include <string.h>
#include <time.h>

#include "base/aio_impl.h"

#define MAX_PIECE   ((size_t)1 << 30)
#define MAX_PIECES  1024                /* what older kernels register at most */
#define MAX_REFUSED 1000                /* milliseconds in which the kernel has no memory for a request */
#define CANCEL_DATA UINT64_MAX

typedef struct ring {
	struct io_uring ring;
	int             n_under_way;    /* slots with the kernel */
	int             broken;         /* errno of a submit that failed for good: none is made any more */
	int             n_pieces;       /* registered; 0: none */
	struct iovec    pieces[];
} ring;

/* ---- registered memory ---- */

static size_t count_pieces(const mzm_aio_buffer *buffers, int n_buffers)
{
	size_t n = 0;
	for (int i = 0; i < n_buffers; i++)
		n += buffers[i].n_bytes / MAX_PIECE + (buffers[i].n_bytes % MAX_PIECE != 0);
	return n <= MAX_PIECES ? n : 0;
}

static void register_pieces(ring *u, const mzm_aio_buffer *buffers, int n_buffers)
{
	int n = 0;
	for (int i = 0; i < n_buffers; i++) {
		for (size_t at = 0; at < buffers[i].n_bytes; at += MAX_PIECE) {
			size_t left = buffers[i].n_bytes - at;
			u->pieces[n++] = (struct iovec){(char *)buffers[i].base + at,
							left < MAX_PIECE ? left : MAX_PIECE};
		}
	}
	if (n > 0 && io_uring_register_buffers(&u->ring, u->pieces, (unsigned)n) == 0)
		u->n_pieces = n;
}

/* The piece that holds all of it, -1: none. */
static int find_piece(const ring *u, const char *dst, size_t n)
{
	for (int i = 0; i < u->n_pieces; i++) {
		uintptr_t base = (uintptr_t)u->pieces[i].iov_base, at = (uintptr_t)dst;
		if (at >= base && at - base <= u->pieces[i].iov_len && n <= u->pieces[i].iov_len - (at - base))
			return i;
	}
	return -1;
}

/* ---- submitting and reaping ---- */

static void sleep_ms(void)
{
	struct timespec ms = {0, 1000000};
	(void)nanosleep(&ms, NULL);
}

/* Hands the one entry in the ring to the kernel; 0 or an errno, after which the ring takes no more. */
static int submit(ring *u)
{
	int rc;
	for (int n_refused = 0; (rc = io_uring_submit(&u->ring)) <= 0 && n_refused < MAX_REFUSED; n_refused++) {
		if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
			break;
		sleep_ms();
	}
	if (rc > 0)
		return 0;
	u->broken = rc < 0 ? -rc : EAGAIN;
	return u->broken;
}

static bool uring_start(mzm_aio *a, int slot)
{
	ring *u = a->backend;
	mzm_aio_slot *s = &a->slots[slot];
	size_t from = mzm_aio_from(s);
	unsigned n = (unsigned)(s->read.n - from);
	char *dst = (char *)s->read.dst + from;
	struct io_uring_sqe *e = u->broken ? NULL : io_uring_get_sqe(&u->ring);
	if (!e) {
		s->error = u->broken ? u->broken : EBUSY;
		return false;
	}
	int piece = find_piece(u, dst, n);
	if (piece >= 0)
		io_uring_prep_read_fixed(e, a->fd, dst, n, s->read.offset + from, piece);
	else
		io_uring_prep_read(e, a->fd, dst, n, s->read.offset + from);
	if (!a->is_direct)
		e->flags |= IOSQE_ASYNC; /* or what the page cache holds would be copied here and now */
	e->user_data = (unsigned)slot;
	s->error = submit(u);
	if (s->error)
		return false;
	u->n_under_way++;
	return true;
}

/* Waits for an entry to end. Goes on asking whatever the system call says: what is with the kernel does end, and
 * until it has, the kernel may write to the memory. */
static uint64_t reap(ring *u, int *result)
{
	struct io_uring_cqe *e;
	int rc;
	while ((rc = io_uring_wait_cqe(&u->ring, &e)) != 0) {
		if (rc != -EINTR)
			sleep_ms();
	}
	uint64_t data = e->user_data;
	*result = e->res;
	io_uring_cqe_seen(&u->ring, e);
	if (data != CANCEL_DATA)
		u->n_under_way--;
	return data;
}

static int uring_next(mzm_aio *a)
{
	ring *u = a->backend;
	for (;;) {
		int result;
		int slot = (int)reap(u, &result);
		mzm_aio_slot *s = &a->slots[slot];
		size_t from = mzm_aio_from(s), asked = s->read.n - from;
		mzm_aio_drop(a, s->read.offset + from, asked);
		if (!mzm_aio_advance(s, asked, result) || !uring_start(a, slot))
			return slot;
	}
}

/* ---- opening and closing ---- */

static bool can_read(struct io_uring *r)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(r);
	bool can = probe && io_uring_opcode_supported(probe, IORING_OP_READ) &&
		   io_uring_opcode_supported(probe, IORING_OP_READ_FIXED);
	io_uring_free_probe(probe);
	return can;
}

static mzm_status uring_begin(mzm_aio *a, const mzm_aio_buffer *buffers, int n_buffers, mzm_err *err)
{
	ring *u;
	size_t n_pieces = count_pieces(buffers, n_buffers);
	MZM_TRY(mzm_alloc_for((void **)&u, sizeof *u + n_pieces * sizeof u->pieces[0], "io_uring", err));
	int rc = io_uring_queue_init((unsigned)a->depth, &u->ring, 0);
	if (rc < 0) {
		mzm_free(u);
		return mzm_fail(err, MZM_EUNSUPPORTED, "io_uring: %s", strerror(-rc));
	}
	if (!can_read(&u->ring)) {
		io_uring_queue_exit(&u->ring);
		mzm_free(u);
		return mzm_fail(err, MZM_EUNSUPPORTED, "io_uring: the kernel is too old to read with it");
	}
	if (n_pieces > 0)
		register_pieces(u, buffers, n_buffers);
	a->backend = u;
	return MZM_OK;
}

/* A wish: reads that the disk has begun cannot be taken back. */
static void cancel_all(ring *u)
{
#ifdef IORING_ASYNC_CANCEL_ANY
	struct io_uring_sqe *e = u->broken ? NULL : io_uring_get_sqe(&u->ring);
	if (!e)
		return;
	io_uring_prep_cancel64(e, 0, (int)IORING_ASYNC_CANCEL_ANY);
	e->user_data = CANCEL_DATA;
	(void)submit(u);
#else
	(void)u;
#endif
}

static void uring_end(mzm_aio *a)
{
	ring *u = a->backend;
	if (u->n_under_way > 0)
		cancel_all(u);
	while (u->n_under_way > 0) {
		int result;
		(void)reap(u, &result);
	}
	if (u->n_pieces > 0)
		(void)io_uring_unregister_buffers(&u->ring); /* now; the ring itself goes in the kernel's own time */
	io_uring_queue_exit(&u->ring);
	mzm_free(u);
	a->backend = NULL;
}

const mzm_aio_ops mzm_aio_uring = {"io_uring", uring_begin, uring_end, uring_start, uring_next};

#else
typedef int mzm_aio_uring_is_left_out; /* a file must hold something */
#endif
