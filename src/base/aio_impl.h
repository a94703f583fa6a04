/* aio_impl.h - what the two backends of aio.h share: a slot per read under way, and the calls a backend answers.
 *
 * aio.c owns slots and lists, checks what comes in and words what went wrong; a backend moves bytes. A slot belongs to
 * the backend between start and the next that returns it, and to aio.c otherwise. */
#ifndef MZM_AIO_IMPL_H
#define MZM_AIO_IMPL_H

#include "base/aio.h"

#define MZM_AIO_THREADS_MAX 8 /* enough for any disk's queue together with large reads */

typedef struct mzm_aio_slot {
	mzm_aio_read read;
	size_t       done;      /* bytes of it that are in place, from its start */
	int          error;     /* errno that ended it; 0: none */
	int          n_retries;
	bool         is_flipped; /* test hook: a wrong byte */
	int          next;      /* slot behind it in its list, -1: none */
} mzm_aio_slot;

typedef struct mzm_aio_list {
	int first, last; /* slots, -1: empty */
} mzm_aio_list;

typedef struct mzm_aio_ops {
	const char *name;
	mzm_status (*begin)(mzm_aio *a, const mzm_aio_buffer *buffers, int n_buffers, mzm_err *err);
	void (*end)(mzm_aio *a);             /* nothing is written to memory any more when it returns */
	bool (*start)(mzm_aio *a, int slot); /* false: did not start, slot->error says why */
	int (*next)(mzm_aio *a);             /* waits for a started slot to end; at least one must be started */
} mzm_aio_ops;

struct mzm_aio {
	const mzm_aio_ops *ops;
	void        *backend;
	char        *path;
	int          fd;
	bool         is_direct;
	int          depth, n_pending;
	uint64_t     n_read;
	mzm_aio_list unused;
	mzm_aio_list ended;     /* without the backend: never started */
	mzm_aio_slot slots[MZM_AIO_MAX_DEPTH];
};

extern const mzm_aio_ops mzm_aio_threads;
#ifdef MZM_URING
extern const mzm_aio_ops mzm_aio_uring;
#endif

void mzm_aio_push(mzm_aio *a, mzm_aio_list *list, int slot);
int  mzm_aio_pop(mzm_aio *a, mzm_aio_list *list); /* -1: empty */

/* Where in the read the next attempt starts: whole pages stay, as offsets must be aligned. */
size_t mzm_aio_from(const mzm_aio_slot *s);
/* Takes the result of an attempt at `asked` bytes from there (bytes or -errno). True: there is more to read. */
bool   mzm_aio_advance(mzm_aio_slot *s, size_t asked, int64_t result);
/* Gives the pages of a part of the file back to the system where reads went through its cache. */
void   mzm_aio_drop(const mzm_aio *a, uint64_t offset, size_t n);

/* Test hooks: files opened from now on are read as on a file system without O_DIRECT; no attempt brings more than so
 * many bytes (0: as many as it does). */
void mzm_aio_avoid_direct(bool avoid);
void mzm_aio_limit_attempts(size_t most);

#endif
