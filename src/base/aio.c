/* aio.c - see aio.h: the checks, direct reading or not, and the backend with threads.
 *
 * Workload: up to 64 reads of 64 KiB to some MiB under way, again and again, for as long as a model is used. All memory
 * is taken at open. The threads take slots from a list in the order in which they were started, so that reads sorted
 * by offset reach the disk nearly sorted. */
#include "base/aio.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/aio_impl.h"
#include "base/io.h"

#define MAX_READ      ((size_t)1 << 30)
#define MAX_RETRIES   1000              /* after EAGAIN: then it is an error */
#define CACHED_PIECE  ((size_t)1 << 20) /* read at once where pages stay in memory until they are dropped */
#define STACK_BYTES   ((size_t)128 << 10)

static atomic_bool   avoid_direct;
static atomic_size_t attempt_limit;

void mzm_aio_avoid_direct(bool avoid)
{
	atomic_store(&avoid_direct, avoid);
}

void mzm_aio_limit_attempts(size_t most)
{
	atomic_store(&attempt_limit, most);
}

/* ---- what both backends use ---- */

void mzm_aio_push(mzm_aio *a, mzm_aio_list *list, int slot)
{
	a->slots[slot].next = -1;
	if (list->first < 0)
		list->first = slot;
	else
		a->slots[list->last].next = slot;
	list->last = slot;
}

int mzm_aio_pop(mzm_aio *a, mzm_aio_list *list)
{
	int slot = list->first;
	if (slot >= 0)
		list->first = a->slots[slot].next;
	return slot;
}

size_t mzm_aio_from(const mzm_aio_slot *s)
{
	return s->done & ~(MZM_AIO_ALIGN - 1);
}

bool mzm_aio_advance(mzm_aio_slot *s, size_t asked, int64_t result)
{
	if (result == -EINTR || (result == -EAGAIN && s->n_retries++ < MAX_RETRIES))
		return true;
	if (result < 0) {
		s->error = (int)-result;
		return false;
	}
	size_t got = (size_t)result, before = s->done;
	size_t most = atomic_load_explicit(&attempt_limit, memory_order_relaxed);
	if (most && got > most)
		got = most;
	s->done = mzm_aio_from(s) + got;
	if (s->done >= s->read.n)
		return false;
	if (got == asked)
		return true;
	return s->done < s->read.need && s->done > before; /* nothing new: the file ends here */
}

void mzm_aio_drop(const mzm_aio *a, uint64_t offset, size_t n)
{
	if (!a->is_direct)
		(void)posix_fadvise(a->fd, (off_t)offset, (off_t)n, POSIX_FADV_DONTNEED);
}

/* ---- the backend with threads ---- */

typedef struct pool {
	pthread_mutex_t lock;      /* of all below, and of the slots in the lists */
	pthread_cond_t  has_work, has_ended;
	mzm_aio_list    started, ended;
	bool            stop;
	int             n_threads;
	pthread_t       threads[MZM_AIO_THREADS_MAX];
} pool;

static void read_slot(const mzm_aio *a, mzm_aio_slot *s)
{
	size_t asked;
	int64_t result;
	do {
		size_t from = mzm_aio_from(s);
		uint64_t offset = s->read.offset + from;
		asked = s->read.n - from;
		if (!a->is_direct && asked > CACHED_PIECE)
			asked = CACHED_PIECE;
		result = pread(a->fd, (char *)s->read.dst + from, asked, (off_t)offset);
		if (result < 0)
			result = -errno;
		mzm_aio_drop(a, offset, asked);
	} while (mzm_aio_advance(s, asked, result));
}

static void *work(void *arg)
{
	mzm_aio *a = arg;
	pool *p = a->backend;
	pthread_mutex_lock(&p->lock);
	for (;;) {
		while (!p->stop && p->started.first < 0)
			pthread_cond_wait(&p->has_work, &p->lock);
		if (p->stop) /* what was not begun is never read */
			break;
		int slot = mzm_aio_pop(a, &p->started);
		pthread_mutex_unlock(&p->lock);
		read_slot(a, &a->slots[slot]);
		pthread_mutex_lock(&p->lock);
		mzm_aio_push(a, &p->ended, slot);
		pthread_cond_signal(&p->has_ended);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static void threads_end(mzm_aio *a)
{
	pool *p = a->backend;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->has_work);
	pthread_mutex_unlock(&p->lock);
	for (int i = 0; i < p->n_threads; i++)
		pthread_join(p->threads[i], NULL);
	pthread_cond_destroy(&p->has_work);
	pthread_cond_destroy(&p->has_ended);
	pthread_mutex_destroy(&p->lock);
	mzm_free(p);
	a->backend = NULL;
}

/* Starts up to n threads; the errno of the first that did not. They take no signals: those are the program's. */
static int start_threads(mzm_aio *a, pool *p, int n)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int rc = pthread_attr_init(&attr);
	if (rc != 0)
		return rc;
	(void)pthread_attr_setstacksize(&attr, STACK_BYTES); /* refused where a system wants more: then its default */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (p->n_threads < n && (rc = pthread_create(&p->threads[p->n_threads], &attr, work, a)) == 0)
		p->n_threads++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return rc;
}

static mzm_status threads_begin(mzm_aio *a, const mzm_aio_buffer *buffers, int n_buffers, mzm_err *err)
{
	(void)buffers;
	(void)n_buffers;
	pool *p;
	MZM_TRY(mzm_alloc_for((void **)&p, sizeof *p, "reading threads", err));
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->has_work, NULL);
	pthread_cond_init(&p->has_ended, NULL);
	p->started = p->ended = (mzm_aio_list){-1, -1};
	a->backend = p;
	int rc = start_threads(a, p, a->depth < MZM_AIO_THREADS_MAX ? a->depth : MZM_AIO_THREADS_MAX);
	if (p->n_threads > 0) /* fewer than wanted do as well */
		return MZM_OK;
	threads_end(a);
	return mzm_fail(err, MZM_ENOMEM, "%s: no thread for reading: %s", a->path, strerror(rc));
}

static bool threads_start(mzm_aio *a, int slot)
{
	pool *p = a->backend;
	pthread_mutex_lock(&p->lock);
	mzm_aio_push(a, &p->started, slot);
	pthread_cond_signal(&p->has_work);
	pthread_mutex_unlock(&p->lock);
	return true;
}

static int threads_next(mzm_aio *a)
{
	pool *p = a->backend;
	pthread_mutex_lock(&p->lock);
	while (p->ended.first < 0)
		pthread_cond_wait(&p->has_ended, &p->lock);
	int slot = mzm_aio_pop(a, &p->ended);
	pthread_mutex_unlock(&p->lock);
	return slot;
}

const mzm_aio_ops mzm_aio_threads = {"threads", threads_begin, threads_end, threads_start, threads_next};

/* ---- opening ---- */

/* Turns O_DIRECT on where it works: some file systems take the flag and then refuse to read. It is the same open file
 * as before, so nobody can put another one in its place meanwhile. */
static bool go_direct(int fd, int flags)
{
	_Alignas(4096) char page[4096];
	if (atomic_load(&avoid_direct) || fcntl(fd, F_SETFL, flags | O_DIRECT) != 0)
		return false;
	ssize_t got;
	do
		got = pread(fd, page, sizeof page, 0);
	while (got < 0 && errno == EINTR);
	if (got >= 0)
		return true;
	(void)fcntl(fd, F_SETFL, flags);
	return false;
}

static mzm_status open_file(mzm_aio *a, mzm_err *err)
{
	uint64_t size;
	MZM_TRY(mzm_io_open_regular(&a->fd, &size, a->path, err));
	int flags = fcntl(a->fd, F_GETFL);
	if (flags < 0 || fcntl(a->fd, F_SETFL, flags & ~O_NONBLOCK) != 0) /* or io_uring would not wait for the disk */
		return mzm_fail(err, MZM_EIO, "%s: %s", a->path, strerror(errno));
	a->is_direct = go_direct(a->fd, flags & ~O_NONBLOCK);
	if (!a->is_direct)
		(void)posix_fadvise(a->fd, 0, 0, POSIX_FADV_RANDOM); /* no more than was asked for */
	return MZM_OK;
}

/* Through the page cache io_uring copies within submit, and threads do it beside the caller: AUTO takes those then. */
static mzm_status choose(mzm_aio *a, mzm_aio_kind kind, const mzm_aio_buffer *buffers, int n_buffers, mzm_err *err)
{
#ifdef MZM_URING
	if (kind == MZM_AIO_URING || (kind == MZM_AIO_AUTO && a->is_direct)) {
		mzm_status st = mzm_aio_uring.begin(a, buffers, n_buffers, kind == MZM_AIO_URING ? err : NULL);
		if (st == MZM_OK)
			a->ops = &mzm_aio_uring;
		if (st == MZM_OK || kind == MZM_AIO_URING)
			return st;
	}
#else
	if (kind == MZM_AIO_URING)
		return mzm_fail(err, MZM_EUNSUPPORTED, "io_uring: left out when this program was built");
#endif
	MZM_TRY(mzm_aio_threads.begin(a, buffers, n_buffers, err));
	a->ops = &mzm_aio_threads;
	return MZM_OK;
}

mzm_status mzm_aio_open(mzm_aio **out, const char *path, mzm_aio_kind kind, int depth, const mzm_aio_buffer *buffers,
			int n_buffers, mzm_err *err)
{
	*out = NULL;
	if (depth < 1 || depth > MZM_AIO_MAX_DEPTH || n_buffers < 0)
		return mzm_fail(err, MZM_EARG, "%s: %d reads at once, with %d buffers (1 to %d)", path, depth,
				n_buffers, MZM_AIO_MAX_DEPTH);
	mzm_aio *a;
	mzm_status st;
	MZM_TRY(mzm_alloc_for((void **)&a, sizeof *a, path, err));
	a->fd = -1;
	a->depth = depth;
	a->unused = a->ended = (mzm_aio_list){-1, -1};
	for (int i = 0; i < depth; i++)
		mzm_aio_push(a, &a->unused, i);
	a->path = mzm_strdup(path);
	if (!a->path)
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "%s: out of memory", path));
	MZM_TRY_OUT(open_file(a, err));
	MZM_TRY_OUT(choose(a, kind, buffers, n_buffers, err));
	*out = a;
	return MZM_OK;
out:
	mzm_aio_close(a);
	return st;
}

void mzm_aio_close(mzm_aio *a)
{
	if (!a)
		return;
	if (a->ops)
		a->ops->end(a);
	if (a->fd >= 0)
		close(a->fd);
	mzm_free(a->path);
	mzm_free(a);
}

/* ---- reading ---- */

static mzm_status check_read(const mzm_aio *a, const mzm_aio_read *r, mzm_err *err)
{
	size_t mask = MZM_AIO_ALIGN - 1;
	if (a->n_pending == a->depth)
		return mzm_fail(err, MZM_EARG, "%s: %d reads are under way already", a->path, a->depth);
	if (!r->dst || r->n == 0 || r->n > MAX_READ || r->need > r->n || r->offset > INT64_MAX - r->n ||
	    ((uintptr_t)r->dst & mask) || (r->n & mask) || (r->offset & mask))
		return mzm_fail(err, MZM_EARG, "%s: not a read that can be done: %zu bytes, %zu needed, at offset %llu "
			"to %p", a->path, r->n, r->need, (unsigned long long)r->offset, r->dst);
	return MZM_OK;
}

/* False when the test hook ends the read here, before anything is read. */
static bool passes_hook(mzm_aio_slot *s)
{
	int code = 0;
	if (!mzm_io_injected(&code) || code == EINTR || code == EAGAIN) /* those are repeated */
		return true;
	if (code < 0) {
		s->is_flipped = true;
		return true;
	}
	s->error = code;
	return false;
}

mzm_status mzm_aio_submit(mzm_aio *a, const mzm_aio_read *r, mzm_err *err)
{
	MZM_TRY(check_read(a, r, err));
	int i = mzm_aio_pop(a, &a->unused);
	mzm_aio_slot *s = &a->slots[i];
	*s = (mzm_aio_slot){.read = *r};
	a->n_pending++;
	if (!passes_hook(s) || !a->ops->start(a, i))
		mzm_aio_push(a, &a->ended, i);
	return MZM_OK;
}

static mzm_status conclude(mzm_aio *a, const mzm_aio_slot *s, mzm_err *err)
{
	size_t from = mzm_aio_from(s);
	if (s->error)
		return mzm_fail(err, MZM_EIO, "%s: reading %zu bytes at offset %llu: %s", a->path, s->read.n - from,
				(unsigned long long)(s->read.offset + from), strerror(s->error));
	if (s->done < s->read.need)
		return mzm_fail(err, MZM_EIO, "%s: ends at offset %llu; it was truncated while open", a->path,
				(unsigned long long)(s->read.offset + s->done));
	if (s->is_flipped && s->done > 0)
		((char *)s->read.dst)[(s->read.need ? s->read.need : s->done) / 2] ^= MZM_IO_FLIP;
	a->n_read += s->done;
	return MZM_OK;
}

mzm_status mzm_aio_wait(mzm_aio *a, uint64_t *tag, mzm_err *err)
{
	if (a->n_pending == 0)
		return mzm_fail(err, MZM_EARG, "%s: no read is under way", a->path);
	int i = mzm_aio_pop(a, &a->ended);
	if (i < 0)
		i = a->ops->next(a);
	*tag = a->slots[i].read.tag;
	mzm_status st = conclude(a, &a->slots[i], err);
	mzm_aio_push(a, &a->unused, i);
	a->n_pending--;
	return st;
}

/* ---- questions ---- */

int mzm_aio_pending(const mzm_aio *a)
{
	return a->n_pending;
}

uint64_t mzm_aio_bytes_read(const mzm_aio *a)
{
	return a->n_read;
}

bool mzm_aio_is_direct(const mzm_aio *a)
{
	return a->is_direct;
}

const char *mzm_aio_name(const mzm_aio *a)
{
	return a->ops->name;
}
