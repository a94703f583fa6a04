/* store.c - see store.h. */
#include "model/store.h"

#include <pthread.h>

#include "base/io.h"
#include "model/state.h"

#define ROW_STEP 64 /* rows that oneDNN packs together */

typedef struct queue {
	mzm_span *spans; /* [n] of cap */
	int32_t   n, cap;
	uint64_t  stored_bytes;
} queue;

struct mzm_store {
	mzm_store_kind  kind;
	mzm_source     *src;
	mzm_reader     *reader;
	size_t          slot_bytes;
	queue           queue[MZM_N_ORDERS];
	mzm_store_order order;  /* of the reader */
	mzm_mapping    *map;
	pthread_mutex_t pass;   /* held from begin to end by what streams */
};

const char *mzm_store_name(mzm_store_kind kind)
{
	static const char *const names[MZM_N_STORES] = {"resident", "mmap", "stream"};
	return kind < MZM_N_STORES ? names[kind] : NULL;
}

/* Rows that belong together: a section of what is summed up, whole panels of the others. */
static int32_t row_step(const mzm_tensor *t)
{
	bool summed = t->kind == MZM_T_DOWN || t->by_input;
	return t->kind == MZM_T_UPDOWN ? 2 * MZM_SECTION : summed ? MZM_SECTION : ROW_STEP;
}

int32_t mzm_span_rows(const mzm_tensor *t, size_t slot_bytes)
{
	size_t step = (size_t)row_step(t), step_bytes = step * mzm_row_bytes(t->dtype, t->n_cols);
	bool down = t->kind == MZM_T_UPDOWN || t->kind == MZM_T_DOWN;
	size_t n = down ? 1 : slot_bytes / step_bytes; /* a section a span */
	n = n < 1 ? 1 : n;
	return n >= ((size_t)t->n_rows + step - 1) / step ? t->n_rows : (int32_t)(n * step);
}

size_t mzm_span_bytes(const mzm_source *src)
{
	size_t most = 0;
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		int32_t rows = row_step(&t) < t.n_rows ? row_step(&t) : t.n_rows;
		size_t bytes = (size_t)rows * mzm_row_bytes(t.dtype, t.n_cols);
		if (bytes > most)
			most = bytes;
	}
	return most;
}

mzm_status mzm_store_open(mzm_store **out, mzm_source *src, const mzm_residency *r, mzm_err *err)
{
	mzm_status st;
	mzm_store *s;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&s, sizeof *s, "the store", err));
	pthread_mutex_init(&s->pass, NULL);
	s->kind = r->kind;
	s->src = src;
	s->slot_bytes = r->reader.slot_bytes;
	if (!mzm_container_is(src))
		MZM_TRY_OUT(mzm_fail(err, MZM_EUNSUPPORTED,
				     "%s: only a .mzm container can be streamed or mapped; import it first",
				     src->path));
	if (r->kind == MZM_STORE_MMAP)
		MZM_TRY_OUT(mzm_mapping_open(&s->map, mzm_container_file(src), err));
	else
		MZM_TRY_OUT(mzm_reader_create(&s->reader, src, &r->reader, err));
	*out = s;
	return MZM_OK;
out:
	mzm_store_close(s);
	return st;
}

void mzm_store_close(mzm_store *s)
{
	if (!s)
		return;
	mzm_reader_free(s->reader);
	mzm_mapping_close(s->map);
	pthread_mutex_destroy(&s->pass);
	for (int i = 0; i < MZM_N_ORDERS; i++)
		mzm_free(s->queue[i].spans);
	mzm_free(s);
}

/* ---- streaming ---- */

mzm_status mzm_store_load(mzm_store *s, const mzm_span *spans, int32_t n, mzm_progress_fn progress, void *user,
			  mzm_err *err)
{
	return mzm_reader_load(s->reader, spans, n, progress, user, err);
}

static mzm_status reserve(queue *q, int32_t n, mzm_err *err)
{
	if (q->n + n <= q->cap)
		return MZM_OK;
	int32_t cap = 2 * (q->n + n);
	mzm_span *grown = mzm_realloc(q->spans, (size_t)q->n * sizeof *grown, (size_t)cap * sizeof *grown);
	if (!grown)
		return mzm_fail(err, MZM_ENOMEM, "out of memory: the order of streaming");
	q->spans = grown;
	q->cap = cap;
	return MZM_OK;
}

mzm_status mzm_store_add(mzm_store *s, int32_t i, int32_t *first, mzm_err *err)
{
	mzm_tensor t = mzm_source_tensor(s->src, i);
	queue *q = &s->queue[t.role == MZM_ROLE_DRAFT ? MZM_ORDER_DRAFT : MZM_ORDER_PASS];
	int32_t rows = mzm_span_rows(&t, s->slot_bytes);
	uint32_t n_extents;
	const mzm_extent *x = mzm_container_tensor(s->src, i, &n_extents);
	MZM_TRY(reserve(q, (t.n_rows + rows - 1) / rows, err));
	*first = q->n;
	for (int32_t row = 0; row < t.n_rows; row += rows) {
		int32_t end = t.n_rows - row < rows ? t.n_rows : row + rows;
		size_t bytes = (size_t)(end - row) * mzm_row_bytes(t.dtype, t.n_cols);
		q->spans[q->n++] = (mzm_span){.tensor = i, .row0 = row, .row1 = end, .bytes = bytes};
	}
	for (uint32_t k = 0; k < n_extents; k++)
		q->stored_bytes += x[k].stored_bytes;
	return MZM_OK;
}

/* The reader turns to another order, or back. */
static mzm_status turn_to(mzm_store *s, mzm_store_order order, mzm_err *err)
{
	const queue *q = &s->queue[order];
	s->order = MZM_ORDER_NONE;
	MZM_TRY(mzm_reader_stream(s->reader, q->spans, q->n, order != MZM_ORDER_PASS, err));
	s->order = order;
	return MZM_OK;
}

mzm_status mzm_store_start(mzm_store *s, mzm_err *err)
{
	return s->queue[MZM_ORDER_PASS].n > 0 ? turn_to(s, MZM_ORDER_PASS, err) : MZM_OK;
}

/* ---- mapping ---- */

mzm_status mzm_store_map(mzm_store *s, int32_t i, const void **at, mzm_err *err)
{
	char name[64];
	mzm_tensor t = mzm_source_tensor(s->src, i);
	uint32_t n;
	const mzm_extent *x = mzm_container_tensor(s->src, i, &n);
	bool whole = true;
	size_t row_bytes = mzm_row_bytes(t.dtype, t.n_cols);
	for (uint32_t k = 0; k < n; k++)
		whole &= x[k].codec == MZM_CODEC_RAW && x[k].offset == x[0].offset + x[k].row * row_bytes;
	if (!whole || x[0].offset % MZM_ALIGN != 0)
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"%s: tensor %s is compressed or in pieces and cannot be used in place; import the "
				"model again with --zstd off, or choose another store",
				s->src->path, mzm_tensor_name(&t, name));
	*at = mzm_mapping_at(s->map, x[0].offset);
	return MZM_OK;
}

/* ---- passes ---- */

mzm_status mzm_store_begin(mzm_store *s, mzm_store_order order, mzm_err *err)
{
	mzm_status st = MZM_OK;
	if (!s)
		return MZM_OK;
	if (s->kind == MZM_STORE_MMAP)
		return mzm_mapping_check(s->map, err);
	if (s->queue[order].n == 0)
		return MZM_OK;
	pthread_mutex_lock(&s->pass);
	if (s->order == order && order == MZM_ORDER_PASS)
		mzm_reader_begin(s->reader);
	else
		st = turn_to(s, order, err);
	if (st != MZM_OK)
		pthread_mutex_unlock(&s->pass);
	return st;
}

void mzm_store_end(mzm_store *s, mzm_store_order order)
{
	if (s && s->kind == MZM_STORE_STREAM && s->queue[order].n > 0)
		pthread_mutex_unlock(&s->pass);
}

mzm_status mzm_store_pin(mzm_store *s, int32_t span, const char **at, mzm_err *err)
{
	return mzm_reader_pin(s->reader, span, at, err);
}

void mzm_store_unpin(mzm_store *s)
{
	mzm_reader_unpin(s->reader);
}

int32_t mzm_store_n_spans(const mzm_store *s, mzm_store_order order)
{
	return s ? s->queue[order].n : 0;
}

uint64_t mzm_store_streamed_bytes(const mzm_store *s, mzm_store_order order)
{
	return s ? s->queue[order].stored_bytes : 0;
}

mzm_reader_stats mzm_store_stats(mzm_store *s)
{
	return s && s->reader ? mzm_reader_get_stats(s->reader) : (mzm_reader_stats){0};
}

mzm_store_kind mzm_store_kind_of(const mzm_store *s)
{
	return s ? s->kind : MZM_STORE_RESIDENT;
}

const char *mzm_store_io_name(const mzm_store *s)
{
	return s && s->reader ? mzm_reader_io_name(s->reader) : "";
}
