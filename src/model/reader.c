/* reader.c - see reader.h.
 *
 * An extent is a job: asked for by the I/O thread, read by the kernel, checked and put in its place by a worker. Raw
 * extents of whole pages are read where they belong, several at a time; all others by way of the job's own stage.
 * Spans are counted from
 * the beginning of the stream on: span number s lies in slot s mod n_slots, and is asked for once span s - n_slots was
 * given back. Everything is allocated when the reader is made. */
#include "model/reader.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "model/store.h"

#define DEPTH       16
#define MAX_WORKERS 8
#define PAGE        MZM_AIO_ALIGN
#define READ_BYTES  ((size_t)4 << 20) /* of a read of several extents, at most: larger ones bring nothing */
#define STACK_BYTES ((size_t)256 << 10)
#define UNPACK_MORE ((size_t)1 << 20) /* zstd's own state */

typedef struct job {
	const mzm_extent *x;    /* [n] extents, one behind the other in the file and in memory */
	uint32_t          n;
	uint64_t          span; /* counted from the beginning */
	char             *dst;  /* of the span's first row */
	char             *at;   /* the stored bytes, once read */
	char             *stage;
	struct job       *next;
} job;

typedef struct worker {
	mzm_reader *reader;
	mzm_packer *packer;
	char       *raw;        /* [raw_bytes] an extent that a span only has a part of */
	pthread_t   thread;
} worker;

struct mzm_reader {
	mzm_source       *src;
	mzm_reader_params p;
	mzm_aio          *aio;
	size_t            stage_bytes, raw_bytes;
	char             *slots, *stages; /* page-aligned inside `block` */
	void             *block;
	atomic_bool      *seen;    /* [extents of the source] whose weights were looked at */
	job              *jobs;
	int               n_jobs;
	pthread_t         io;
	worker            worker[MAX_WORKERS];
	int               n_threads;      /* that were started: io, then workers */

	pthread_mutex_t lock;             /* of all that follows */
	pthread_cond_t  to_io, to_workers, to_pass;
	bool            stop, hold;       /* hold: ask for nothing more */
	const mzm_span *spans;
	int32_t         n_spans;          /* 0: nothing to do */
	bool            cycle, once;      /* by way of slots; up to the last span only */
	uint64_t        begun, used;      /* spans asked for (the last perhaps in part), spans given back */
	uint32_t        left;             /* extents of the last begun span still to ask for */
	const mzm_extent *next;           /* the first of those */
	int32_t        *pending;          /* [n_pending] extents of a span not yet in place */
	uint64_t        n_pending;        /* slots, or spans to load */
	job            *free, *queue, **queue_end;
	int             in_flight, n_queued, n_busy; /* reads; jobs that wait for a worker, that have one */
	mzm_err         why;              /* of what failed */
	mzm_reader_stats stats;
	int64_t         reading_since;
};

/* ---- sizes ---- */

static bool is_whole_pages(const mzm_extent *x)
{
	return x->codec == MZM_CODEC_RAW && x->offset % PAGE == 0 && x->stored_bytes % PAGE == 0;
}

static size_t padded(const mzm_extent *x)
{
	return (x->offset % PAGE + x->stored_bytes + PAGE - 1) / PAGE * PAGE;
}

typedef struct needs {
	size_t stage, raw; /* bytes of the largest extent that must be staged; unpacked size of the largest */
	bool   packed;
} needs;

static needs needs_of(const mzm_source *src, size_t slot_bytes)
{
	needs n = {0};
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		uint32_t n_extents;
		const mzm_extent *x = mzm_container_tensor(src, i, &n_extents);
		uint32_t rows = (uint32_t)mzm_span_rows(&t, slot_bytes);
		size_t row_bytes = mzm_row_bytes(t.dtype, t.n_cols);
		for (const mzm_extent *end = x + n_extents; x < end; x++) {
			bool cut = x->row / rows != (x->row + x->n_rows - 1) / rows;
			bool on_page = x->row * row_bytes % PAGE == 0 && x->row % rows * row_bytes % PAGE == 0;
			if ((cut || !on_page || !is_whole_pages(x)) && padded(x) > n.stage)
				n.stage = padded(x);
			if ((cut || x->codec != MZM_CODEC_RAW) && x->raw_bytes > n.raw)
				n.raw = x->raw_bytes;
			n.packed |= x->codec != MZM_CODEC_RAW;
		}
	}
	return n;
}

static mzm_reader_params settled(const mzm_reader_params *p, const needs *n)
{
	mzm_reader_params q = *p;
	q.depth = q.depth < 1 ? DEPTH : q.depth > MZM_AIO_MAX_DEPTH ? MZM_AIO_MAX_DEPTH : q.depth;
	if (q.n_workers < 1)
		q.n_workers = n->packed ? MZM_UNPACK_THREADS : 1;
	q.n_workers = q.n_workers > MAX_WORKERS ? MAX_WORKERS : q.n_workers;
	q.n_slots = q.n_slots < 2 ? 2 : q.n_slots;
	q.slot_bytes = (q.slot_bytes + PAGE - 1) / PAGE * PAGE;
	return q;
}

static int count_jobs(const mzm_reader_params *p)
{
	return p->depth + 2 * p->n_workers;
}

size_t mzm_reader_bytes(const mzm_reader_params *params, const mzm_source *src)
{
	needs n = needs_of(src, params->slot_bytes);
	mzm_reader_params p = settled(params, &n);
	size_t worker_bytes = 2 * n.raw + (n.packed ? UNPACK_MORE : 0) + STACK_BYTES;
	return (size_t)p.n_slots * p.slot_bytes + (size_t)count_jobs(&p) * (n.stage + sizeof(job)) +
	       (size_t)p.n_workers * worker_bytes + STACK_BYTES + PAGE;
}

/* ---- jobs ---- */

/* The extents that hold rows of a span. */
static const mzm_extent *extents_of(const mzm_reader *r, const mzm_span *span, uint32_t *n)
{
	const mzm_extent *x = mzm_container_tensor(r->src, span->tensor, n), *end = x + *n;
	while (x < end && x->row + x->n_rows <= (uint32_t)span->row0)
		x++;
	const mzm_extent *last = x;
	while (last < end && last->row < (uint32_t)span->row1)
		last++;
	*n = (uint32_t)(last - x);
	return x;
}

static const mzm_span *span_at(const mzm_reader *r, uint64_t number)
{
	return &r->spans[number % (uint64_t)r->n_spans];
}

/* Under the lock: whether there is something to ask for; the next span is begun when its turn has come. */
static bool more_to_ask(mzm_reader *r)
{
	if (r->stop || r->hold || !r->free || !r->n_spans || r->why.code != MZM_OK || r->in_flight >= r->p.depth)
		return false;
	if (r->left > 0)
		return true;
	if ((r->once && r->begun >= (uint64_t)r->n_spans) ||
	    (r->cycle && r->begun - r->used >= (uint64_t)r->p.n_slots))
		return false;
	r->next = extents_of(r, span_at(r, r->begun), &r->left);
	r->pending[r->begun % r->n_pending] = (int32_t)r->left;
	r->begun++;
	return true;
}

static size_t row_bytes_of(const mzm_reader *r, const mzm_extent *x)
{
	mzm_tensor t = mzm_source_tensor(r->src, (int32_t)x->tensor);
	return mzm_row_bytes(t.dtype, t.n_cols);
}

static bool is_inside(const mzm_extent *x, const mzm_span *span)
{
	return x->row >= (uint32_t)span->row0 && x->row + x->n_rows <= (uint32_t)span->row1;
}

/* Where an extent of whole pages that lies inside the span goes; NULL: by way of a stage. */
static char *direct_place(const mzm_reader *r, const mzm_extent *x, const mzm_span *span, char *dst)
{
	if (!is_inside(x, span) || !is_whole_pages(x))
		return NULL;
	char *at = dst + (x->row - (uint32_t)span->row0) * row_bytes_of(r, x);
	return (uintptr_t)at % PAGE == 0 ? at : NULL;
}

/* Under the lock: the next job, and the read that it needs. */
static job *take_job(mzm_reader *r, mzm_aio_read *read)
{
	job *j = r->free;
	const mzm_extent *x = r->next;
	const mzm_span *span = span_at(r, r->begun - 1);
	r->free = j->next;
	j->x = x;
	j->n = 1;
	j->span = r->begun - 1;
	j->dst = r->cycle ? r->slots + (j->span % (uint64_t)r->p.n_slots) * r->p.slot_bytes : span->dst;
	size_t lead = x->offset % PAGE, bytes = padded(x);
	char *place_of = direct_place(r, x, span, j->dst);
	j->at = place_of ? place_of : j->stage + lead;
	for (; place_of && j->n < r->left && bytes + x[j->n].stored_bytes <= READ_BYTES; j->n++) {
		if (x[j->n].offset != x->offset + bytes || direct_place(r, &x[j->n], span, j->dst) != place_of + bytes)
			break;
		bytes += x[j->n].stored_bytes;
	}
	r->next += j->n;
	r->left -= j->n;
	*read = (mzm_aio_read){
		.dst = place_of ? place_of : j->stage, .n = bytes, .need = place_of ? bytes : lead + x->stored_bytes,
		.offset = x->offset - lead, .tag = (uint64_t)(j - r->jobs),
	};
	return j;
}

/* Under the lock. */
static void give_back(mzm_reader *r, job *j)
{
	j->next = r->free;
	r->free = j;
	pthread_cond_signal(&r->to_io);
}

/* Under the lock: a job did not work out; the first failure is the one that is told. */
static void note_failure(mzm_reader *r, const mzm_err *why)
{
	if (r->why.code == MZM_OK)
		r->why = *why;
	pthread_cond_broadcast(&r->to_pass);
}

/* ---- the I/O thread ---- */

/* Under the lock, which it leaves while it asks. */
static void ask(mzm_reader *r)
{
	mzm_err why = {0};
	mzm_aio_read read;
	job *j = take_job(r, &read);
	if (r->in_flight++ == 0)
		r->reading_since = mzm_now_ns();
	pthread_mutex_unlock(&r->lock);
	mzm_status st = mzm_aio_submit(r->aio, &read, &why);
	pthread_mutex_lock(&r->lock);
	if (st != MZM_OK) {
		r->in_flight--;
		note_failure(r, &why);
		give_back(r, j);
	}
}

/* Under the lock, which it leaves while it waits. */
static void await(mzm_reader *r)
{
	mzm_err why = {0};
	uint64_t tag = 0;
	pthread_mutex_unlock(&r->lock);
	mzm_status st = mzm_aio_wait(r->aio, &tag, &why);
	pthread_mutex_lock(&r->lock);
	job *j = &r->jobs[tag];
	r->stats.bytes_read = mzm_aio_bytes_read(r->aio);
	if (--r->in_flight == 0)
		r->stats.read_ns += mzm_now_ns() - r->reading_since;
	if (st != MZM_OK) {
		note_failure(r, &why);
		give_back(r, j);
		return;
	}
	j->next = NULL;
	*r->queue_end = j;
	r->queue_end = &j->next;
	r->n_queued++;
	pthread_cond_signal(&r->to_workers);
}

static void *io_main(void *arg)
{
	mzm_reader *r = arg;
	pthread_mutex_lock(&r->lock);
	while (!r->stop || r->in_flight > 0) {
		if (more_to_ask(r)) {
			ask(r);
		} else if (r->in_flight > 0) {
			await(r);
		} else {
			pthread_cond_broadcast(&r->to_pass); /* somebody may wait for quiet */
			pthread_cond_wait(&r->to_io, &r->lock);
		}
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* ---- workers ---- */

/* Says where it was. */
static void say_where(const mzm_reader *r, const mzm_extent *x, mzm_err *err)
{
	char name[64];
	uint32_t n;
	mzm_tensor t = mzm_source_tensor(r->src, (int32_t)x->tensor);
	const mzm_extent *first = mzm_container_tensor(r->src, (int32_t)x->tensor, &n);
	mzm_err_prefix(err, "%s: tensor %s, extent %u at offset %llu", r->src->path, mzm_tensor_name(&t, name),
		       (unsigned)(x - first), (unsigned long long)x->offset);
}

/* The rows that the span wants of an unpacked extent. */
static void copy_rows(const mzm_reader *r, const mzm_extent *x, const mzm_span *span, char *dst, const char *raw)
{
	size_t row_bytes = row_bytes_of(r, x);
	uint32_t from = x->row > (uint32_t)span->row0 ? x->row : (uint32_t)span->row0;
	uint32_t to = x->row + x->n_rows < (uint32_t)span->row1 ? x->row + x->n_rows : (uint32_t)span->row1;
	memcpy(dst + (from - (uint32_t)span->row0) * row_bytes, raw + (from - x->row) * row_bytes,
	       (to - from) * row_bytes);
}

/* NaN and the like, which no checksum forbids: when an extent comes for the first time. */
static mzm_status look_at(mzm_reader *r, const mzm_extent *x, const char *rows, mzm_err *err)
{
	size_t n;
	atomic_bool *seen = &r->seen[x - mzm_container_extents(r->src, &n)];
	mzm_tensor t = mzm_source_tensor(r->src, (int32_t)x->tensor);
	t.n_rows = (int32_t)x->n_rows;
	if (!atomic_load_explicit(seen, memory_order_relaxed))
		MZM_TRY(mzm_source_check_rows(r->src, &t, rows, err));
	atomic_store_explicit(seen, true, memory_order_relaxed);
	return MZM_OK;
}

/* An extent whose stored bytes are at `at`. */
static mzm_status place(worker *w, const mzm_extent *x, const mzm_span *span, const char *at, const job *j,
			mzm_err *err)
{
	mzm_reader *r = w->reader;
	if (mzm_sum64(at, x->stored_bytes) != x->stored_sum)
		return mzm_fail(err, MZM_EFORMAT, "stored bytes: the checksum is wrong");
	if (x->codec == MZM_CODEC_RAW) {
		if (at >= j->stage && at < j->stage + r->stage_bytes)
			copy_rows(r, x, span, j->dst, at);
		return look_at(r, x, at, err);
	}
	mzm_tensor t = mzm_source_tensor(r->src, (int32_t)x->tensor);
	bool inside = is_inside(x, span);
	char *to = inside ? j->dst + (x->row - (uint32_t)span->row0) * row_bytes_of(r, x) : w->raw;
	MZM_TRY(mzm_unpack(w->packer, to, x->raw_bytes, mzm_dtype_bytes(t.dtype), x->codec, at, x->stored_bytes, err));
	if (mzm_sum64(to, x->raw_bytes) != x->raw_sum)
		return mzm_fail(err, MZM_EFORMAT, "unpacked bytes: the checksum is wrong");
	if (!inside)
		copy_rows(r, x, span, j->dst, to);
	return look_at(r, x, to, err);
}

static mzm_status place_all(worker *w, const job *j, const mzm_span *span, mzm_err *err)
{
	const char *at = j->at;
	for (uint32_t i = 0; i < j->n; at += j->x[i++].stored_bytes) {
		if (place(w, &j->x[i], span, at, j, err) != MZM_OK) {
			say_where(w->reader, &j->x[i], err);
			return err->code;
		}
	}
	return MZM_OK;
}

/* Under the lock, which it leaves while it works. */
static void work(worker *w)
{
	mzm_reader *r = w->reader;
	mzm_err why = {0};
	job *j = r->queue;
	r->queue = j->next;
	if (!r->queue)
		r->queue_end = &r->queue;
	r->n_queued--;
	r->n_busy++;
	const mzm_span *span = span_at(r, j->span);
	pthread_mutex_unlock(&r->lock);
	int64_t start = mzm_now_ns();
	mzm_status st = place_all(w, j, span, &why);
	int64_t took = mzm_now_ns() - start;
	pthread_mutex_lock(&r->lock);
	r->stats.unpack_ns += took;
	r->n_busy--;
	if (st != MZM_OK)
		note_failure(r, &why);
	else if ((r->pending[j->span % r->n_pending] -= (int32_t)j->n) == 0)
		pthread_cond_broadcast(&r->to_pass);
	give_back(r, j);
}

static void *worker_main(void *arg)
{
	worker *w = arg;
	mzm_reader *r = w->reader;
	pthread_mutex_lock(&r->lock);
	for (;;) {
		if (r->queue)
			work(w);
		else if (r->stop)
			break;
		else
			pthread_cond_wait(&r->to_workers, &r->lock);
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* ---- life ---- */

static char *page_up(void *p)
{
	return (char *)(((uintptr_t)p + PAGE - 1) / PAGE * PAGE);
}

static mzm_status allocate(mzm_reader *r, mzm_err *err)
{
	size_t slots = (size_t)r->p.n_slots * r->p.slot_bytes, stages = (size_t)r->n_jobs * r->stage_bytes;
	MZM_TRY(mzm_alloc_for(&r->block, slots + stages + PAGE, "streamed weights", err));
	size_t n_extents;
	(void)mzm_container_extents(r->src, &n_extents);
	MZM_TRY(mzm_alloc_for((void **)&r->seen, n_extents * sizeof *r->seen, "the reader", err));
	MZM_TRY(mzm_alloc_for((void **)&r->jobs, (size_t)r->n_jobs * sizeof *r->jobs, "the reader", err));
	r->slots = page_up(r->block);
	r->stages = r->slots + slots;
	for (int i = 0; i < r->n_jobs; i++) {
		r->jobs[i].stage = r->stages + (size_t)i * r->stage_bytes;
		r->jobs[i].next = r->free;
		r->free = &r->jobs[i];
	}
	for (int i = 0; i < r->p.n_workers; i++) {
		r->worker[i].reader = r;
		MZM_TRY(mzm_packer_create(&r->worker[i].packer, err));
		if (r->raw_bytes)
			MZM_TRY(mzm_alloc_for((void **)&r->worker[i].raw, r->raw_bytes, "an extent", err));
	}
	return MZM_OK;
}

static mzm_status start_threads(mzm_reader *r, mzm_err *err)
{
	pthread_attr_t attr;
	sigset_t all, before;
	int failed = pthread_attr_init(&attr);
	if (failed)
		return mzm_fail(err, MZM_ENOMEM, "out of memory: threads of the reader");
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the program's business */
	for (int i = -1; i < r->p.n_workers && !failed; i++) {
		failed = i < 0 ? pthread_create(&r->io, &attr, io_main, r)
			       : pthread_create(&r->worker[i].thread, &attr, worker_main, &r->worker[i]);
		r->n_threads += !failed;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return failed ? mzm_fail(err, MZM_ENOMEM, "a thread of the reader cannot be started: %s", strerror(failed))
		      : MZM_OK;
}

mzm_status mzm_reader_create(mzm_reader **out, mzm_source *src, const mzm_reader_params *p, mzm_err *err)
{
	mzm_status st;
	mzm_reader *r;
	*out = NULL;
	if (!mzm_container_is(src))
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: only a .mzm container can be streamed; import it first",
				src->path);
	MZM_TRY(mzm_alloc_for((void **)&r, sizeof *r, "the reader", err));
	pthread_mutex_init(&r->lock, NULL); /* neither can fail with default attributes here */
	pthread_cond_init(&r->to_io, NULL);
	pthread_cond_init(&r->to_workers, NULL);
	pthread_cond_init(&r->to_pass, NULL);
	needs n = needs_of(src, p->slot_bytes);
	r->src = src;
	r->p = settled(p, &n);
	r->stage_bytes = n.stage;
	r->raw_bytes = n.raw;
	r->n_jobs = count_jobs(&r->p);
	r->queue_end = &r->queue;
	MZM_TRY_OUT(allocate(r, err));
	mzm_aio_buffer told = {r->slots, (size_t)r->p.n_slots * r->p.slot_bytes + (size_t)r->n_jobs * r->stage_bytes};
	MZM_TRY_OUT(mzm_aio_open(&r->aio, src->path, r->p.kind, r->p.depth, &told, 1, err));
	MZM_TRY_OUT(start_threads(r, err));
	*out = r;
	return MZM_OK;
out:
	mzm_reader_free(r);
	return st;
}

void mzm_reader_free(mzm_reader *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_broadcast(&r->to_io);
	pthread_cond_broadcast(&r->to_workers);
	pthread_mutex_unlock(&r->lock);
	for (int i = 0; i < r->n_threads; i++)
		pthread_join(i == 0 ? r->io : r->worker[i - 1].thread, NULL);
	mzm_aio_close(r->aio);
	for (int i = 0; i < MAX_WORKERS; i++) {
		mzm_packer_free(r->worker[i].packer);
		mzm_free(r->worker[i].raw);
	}
	pthread_cond_destroy(&r->to_io);
	pthread_cond_destroy(&r->to_workers);
	pthread_cond_destroy(&r->to_pass);
	pthread_mutex_destroy(&r->lock);
	mzm_free(r->pending);
	mzm_free(r->seen);
	mzm_free(r->jobs);
	mzm_free(r->block);
	mzm_free(r);
}

/* ---- use ---- */

/* Under the lock: nothing is under way any more, and nothing is asked for. */
static void quiet(mzm_reader *r)
{
	r->hold = true;
	while (r->in_flight > 0 || r->n_queued > 0 || r->n_busy > 0)
		pthread_cond_wait(&r->to_pass, &r->lock);
	r->left = 0;
	r->begun = r->used = 0;
	r->why = (mzm_err){0};
}

/* Whether the span lies in its tensor, and slots, stages and workers have room for what it takes. */
static bool is_possible(const mzm_reader *r, const mzm_span *span, bool cycle)
{
	mzm_tensor t = mzm_source_tensor(r->src, span->tensor);
	size_t row_bytes = mzm_row_bytes(t.dtype, t.n_cols);
	if (span->row0 < 0 || span->row0 >= span->row1 || span->row1 > t.n_rows ||
	    span->bytes != (size_t)(span->row1 - span->row0) * row_bytes ||
	    (cycle ? span->bytes > r->p.slot_bytes : (uintptr_t)span->dst % PAGE != 0))
		return false;
	uint32_t n;
	const mzm_extent *x = extents_of(r, span, &n);
	for (const mzm_extent *end = x + n; x < end; x++) {
		bool inside = is_inside(x, span);
		bool direct = inside && is_whole_pages(x) && (x->row - (uint32_t)span->row0) * row_bytes % PAGE == 0;
		if (!direct && padded(x) > r->stage_bytes)
			return false;
		if (!inside && x->codec != MZM_CODEC_RAW && x->raw_bytes > r->raw_bytes)
			return false;
	}
	return true;
}

/* Under the lock. */
static mzm_status set_spans(mzm_reader *r, const mzm_span *spans, int32_t n, bool cycle, bool once, mzm_err *err)
{
	for (int32_t i = 0; i < n; i++)
		if (!is_possible(r, &spans[i], cycle))
			return mzm_fail(err, MZM_EINTERNAL, "span %d is not one that this reader was made for", (int)i);
	quiet(r);
	uint64_t n_pending = cycle ? (uint64_t)r->p.n_slots : (uint64_t)n;
	if (!r->pending || r->n_pending != n_pending) {
		mzm_free(r->pending);
		r->pending = NULL;
		r->n_spans = 0;
		MZM_TRY(mzm_alloc_for((void **)&r->pending, (size_t)n_pending * sizeof *r->pending, "the reader", err));
		r->n_pending = n_pending;
	}
	r->spans = spans;
	r->n_spans = n;
	r->cycle = cycle;
	r->once = once;
	r->hold = false;
	pthread_cond_signal(&r->to_io);
	return MZM_OK;
}

/* Under the lock. */
static bool is_there(const mzm_reader *r, uint64_t span)
{
	return r->begun > span && (r->begun > span + 1 || r->left == 0) && r->pending[span % r->n_pending] == 0;
}

mzm_status mzm_reader_load(mzm_reader *r, const mzm_span *spans, int32_t n, mzm_progress_fn progress, void *user,
			   mzm_err *err)
{
	uint64_t total = 0, done = 0;
	for (int32_t i = 0; i < n; i++)
		total += spans[i].bytes;
	pthread_mutex_lock(&r->lock);
	mzm_status st = n > 0 ? set_spans(r, spans, n, false, true, err) : MZM_OK;
	for (int32_t i = 0; i < n && st == MZM_OK; i++) {
		while (r->why.code == MZM_OK && !is_there(r, (uint64_t)i))
			pthread_cond_wait(&r->to_pass, &r->lock);
		if (r->why.code != MZM_OK)
			st = mzm_fail(err, r->why.code, "%s", r->why.message);
		done += spans[i].bytes;
		pthread_mutex_unlock(&r->lock);
		if (st == MZM_OK && progress && progress(user, "loading", done, total))
			st = mzm_fail(err, MZM_ECANCELLED, "loading was cancelled");
		pthread_mutex_lock(&r->lock);
	}
	quiet(r);
	r->n_spans = 0;
	pthread_mutex_unlock(&r->lock);
	return st;
}

mzm_status mzm_reader_stream(mzm_reader *r, const mzm_span *spans, int32_t n, bool once, mzm_err *err)
{
	pthread_mutex_lock(&r->lock);
	mzm_status st = set_spans(r, spans, n, true, once, err);
	pthread_mutex_unlock(&r->lock);
	return st;
}

void mzm_reader_begin(mzm_reader *r)
{
	pthread_mutex_lock(&r->lock);
	if (r->why.code != MZM_OK || r->used % (uint64_t)r->n_spans != 0) {
		quiet(r);
		r->hold = false;
		pthread_cond_signal(&r->to_io);
	}
	pthread_mutex_unlock(&r->lock);
}

mzm_status mzm_reader_pin(mzm_reader *r, int32_t span, const char **at, mzm_err *err)
{
	mzm_status st = MZM_OK;
	*at = NULL;
	pthread_mutex_lock(&r->lock);
	uint64_t s = r->used;
	if (s % (uint64_t)r->n_spans != (uint64_t)span)
		st = mzm_fail(err, MZM_EINTERNAL, "span %d was asked for, but %d is next", (int)span,
			      (int)(s % (uint64_t)r->n_spans));
	int64_t start = mzm_now_ns();
	while (st == MZM_OK && r->why.code == MZM_OK && !is_there(r, s))
		pthread_cond_wait(&r->to_pass, &r->lock);
	r->stats.wait_ns += mzm_now_ns() - start;
	if (st == MZM_OK && !is_there(r, s)) /* what failed may be another, further ahead */
		st = mzm_fail(err, r->why.code, "%s", r->why.message);
	if (st == MZM_OK)
		*at = r->slots + (s % (uint64_t)r->p.n_slots) * r->p.slot_bytes;
	pthread_mutex_unlock(&r->lock);
	return st;
}

void mzm_reader_unpin(mzm_reader *r)
{
	pthread_mutex_lock(&r->lock);
	r->used++;
	pthread_cond_signal(&r->to_io);
	pthread_mutex_unlock(&r->lock);
}

mzm_reader_stats mzm_reader_get_stats(mzm_reader *r)
{
	pthread_mutex_lock(&r->lock);
	mzm_reader_stats stats = r->stats;
	if (r->in_flight > 0)
		stats.read_ns += mzm_now_ns() - r->reading_since;
	pthread_mutex_unlock(&r->lock);
	return stats;
}

const char *mzm_reader_io_name(const mzm_reader *r)
{
	bool uring = strcmp(mzm_aio_name(r->aio), "io_uring") == 0;
	return mzm_aio_is_direct(r->aio) ? (uring ? "io_uring, direct" : "threads, direct")
					 : (uring ? "io_uring, buffered" : "threads, buffered");
}
