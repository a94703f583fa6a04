/* store.h - where the weights of a model are: all in memory, in a mapped file, or some in memory and the rest on disk,
 * streamed past in the order of a pass.
 *
 * Which tensors stay in memory is decided once, when the model is opened (mzm_residency). Kernels read the same
 * bytes in the same order wherever they come from, so no bit of a result depends on it. */
#ifndef MZM_STORE_H
#define MZM_STORE_H

#include "model/reader.h"

typedef enum mzm_store_kind { MZM_STORE_RESIDENT, MZM_STORE_MMAP, MZM_STORE_STREAM, MZM_N_STORES } mzm_store_kind;

const char *mzm_store_name(mzm_store_kind kind); /* "resident", "mmap", "stream" */

typedef struct mzm_residency {
	mzm_store_kind    kind;
	const bool       *streamed; /* [n_tensors] STREAM: not kept in memory */
	bool              no_draft; /* leave the draft image on disk: drafts read the model itself */
	/* STREAM: neurons a layer that a state holds for sparse passes (held.h), of the draft image if there is one,
	 * whose FFN then stays on disk; 0: none. */
	int32_t           n_held;
	mzm_reader_params reader;   /* STREAM */
} mzm_residency;

typedef struct mzm_store mzm_store;

/* Rows of a span of this tensor when slots hold slot_bytes: whole sections of neurons (model/state.h), or multiples of
 * what oneDNN packs together; all, if they fit. */
int32_t mzm_span_rows(const mzm_tensor *t, size_t slot_bytes);
/* Slots that suffice for the widest section of the source. */
size_t  mzm_span_bytes(const mzm_source *src);

/* STREAM or MMAP; src is a container and outlives the store. -> mzm_store_close */
mzm_status mzm_store_open(mzm_store **out, mzm_source *src, const mzm_residency *r, mzm_err *err);
void       mzm_store_close(mzm_store *s);

/* STREAM: reads each span to its dst, now. */
mzm_status mzm_store_load(mzm_store *s, const mzm_span *spans, int32_t n, mzm_progress_fn progress, void *user,
			  mzm_err *err);
/* In which spans stream: that of a pass over the model, or that of the draft image's neurons, to take some of them. */
typedef enum mzm_store_order { MZM_ORDER_NONE, MZM_ORDER_PASS, MZM_ORDER_DRAFT, MZM_N_ORDERS } mzm_store_order;

/* STREAM: adds the spans of tensor i to the order of its role; *first: the number of its first one. */
mzm_status mzm_store_add(mzm_store *s, int32_t i, int32_t *first, mzm_err *err);
/* STREAM: all were added. */
mzm_status mzm_store_start(mzm_store *s, mzm_err *err);
/* MMAP: where tensor i lies, whole. EUNSUPPORTED where it is compressed or in pieces. */
mzm_status mzm_store_map(mzm_store *s, int32_t i, const void **at, mzm_err *err);

/* A pass, of which there is one at a time in a store that streams (others wait). NULL: the model is in memory. order:
 * in which it will pin all spans, or NONE. MMAP: EIO when the file was truncated. */
mzm_status mzm_store_begin(mzm_store *s, mzm_store_order order, mzm_err *err);
void       mzm_store_end(mzm_store *s, mzm_store_order order);
/* The next span of the pass, number `span`; unpin before the next. */
mzm_status mzm_store_pin(mzm_store *s, int32_t span, const char **at, mzm_err *err);
void       mzm_store_unpin(mzm_store *s);

int32_t          mzm_store_n_spans(const mzm_store *s, mzm_store_order order); /* that stream in it */
uint64_t         mzm_store_streamed_bytes(const mzm_store *s, mzm_store_order order); /* as stored in the file */
mzm_reader_stats mzm_store_stats(mzm_store *s);
mzm_store_kind   mzm_store_kind_of(const mzm_store *s);        /* NULL: RESIDENT */
const char      *mzm_store_io_name(const mzm_store *s);

#endif
