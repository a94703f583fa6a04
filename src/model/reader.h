/* reader.h - brings spans of tensors from a container into memory: once, to load them, or again and again, to stream
 * them past a model that is larger than memory.
 *
 * A span is a run of rows of one tensor. Streamed spans have one order, that in which a pass needs them; behind the
 * last comes the first of the next pass. The reader runs ahead by as many spans as it has slots: one thread keeps
 * reads under way (base/aio.h), workers check and unpack what came. A span that could not be read fails the pass
 * that needs it, with place and reason; the next pass begins anew. One pass at a time. */
#ifndef MZM_READER_H
#define MZM_READER_H

#include "base/aio.h"
#include "format/mzm.h"

typedef struct mzm_reader mzm_reader;

typedef struct mzm_span {
	int32_t tensor;     /* of the source */
	int32_t row0, row1;
	size_t  bytes;
	void   *dst;        /* [bytes] on a page, when it is loaded; streamed ones go to slots */
} mzm_span;

typedef struct mzm_reader_params {
	mzm_aio_kind kind;
	int          depth;      /* reads under way; 0: 16 */
	int          n_workers;  /* that check and unpack; 0: 1, or MZM_UNPACK_THREADS where extents are compressed */
	int          n_slots;    /* spans in memory, the one in use included: at least 2 */
	size_t       slot_bytes; /* of the largest streamed span */
} mzm_reader_params;

/* What has been read, by all passes so far, and what it took. */
typedef struct mzm_reader_stats {
	uint64_t bytes_read;  /* from the file, loading included */
	int64_t  read_ns;     /* while at least one read was under way */
	int64_t  unpack_ns;   /* of the workers, checksums included */
	int64_t  wait_ns;     /* passes waited for a span */
} mzm_reader_stats;

/* Memory that a reader of these params takes for this source. */
size_t     mzm_reader_bytes(const mzm_reader_params *p, const mzm_source *src);

/* src: a container, which outlives the reader. EUNSUPPORTED for other sources. -> mzm_reader_free */
mzm_status mzm_reader_create(mzm_reader **out, mzm_source *src, const mzm_reader_params *p, mzm_err *err);
void       mzm_reader_free(mzm_reader *r);

/* Reads each span to its dst. Not while streaming. Spans here and below: whole tensors, or parts as mzm_span_rows()
 * cuts them (store.h). */
mzm_status mzm_reader_load(mzm_reader *r, const mzm_span *spans, int32_t n, mzm_progress_fn progress, void *user,
			   mzm_err *err);

/* From now on these spans, [n] kept by the caller, stream in this order; once: nothing is read behind the last. */
mzm_status mzm_reader_stream(mzm_reader *r, const mzm_span *spans, int32_t n, bool once, mzm_err *err);
/* A pass begins: the next span is the first one. */
void       mzm_reader_begin(mzm_reader *r);
/* Waits for the next span, which must be number `span`. At most one is pinned. */
mzm_status mzm_reader_pin(mzm_reader *r, int32_t span, const char **at, mzm_err *err);
void       mzm_reader_unpin(mzm_reader *r);

mzm_reader_stats mzm_reader_get_stats(mzm_reader *r);
const char      *mzm_reader_io_name(const mzm_reader *r); /* "io_uring, direct" */

#endif
