/* mem.c - see mem.h. A header of one alignment unit in front of each block holds its size. */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static atomic_size_t live_bytes;
static atomic_long   fail_in;    /* > 0: that many calls from now one fails */
static atomic_long   n_calls;

static bool refused(void)
{
	atomic_fetch_add_explicit(&n_calls, 1, memory_order_relaxed);
	long left = atomic_load_explicit(&fail_in, memory_order_relaxed);
	return left > 0 && atomic_fetch_sub_explicit(&fail_in, 1, memory_order_relaxed) == 1;
}

long mzm_mem_fail_nth(long nth)
{
	atomic_store(&fail_in, nth);
	return atomic_exchange(&n_calls, 0);
}

size_t mzm_mem_live(void)
{
	return atomic_load(&live_bytes);
}

void *mzm_alloc(size_t n_bytes)
{
	size_t total;
	size_t align = n_bytes >= MZM_HUGE_PAGE ? MZM_HUGE_PAGE : MZM_ALIGN;
	if (refused() || !mzm_add_size(n_bytes, MZM_ALIGN, &total) || !mzm_pad_size(total, align, &total))
		return NULL;
	char *block = aligned_alloc(align, total);
	if (!block)
		return NULL;
	if (align == MZM_HUGE_PAGE)
		(void)madvise(block, total, MADV_HUGEPAGE); /* a wish: nothing depends on it */
	memset(block, 0, total);
	*(size_t *)(void *)block = n_bytes;
	atomic_fetch_add_explicit(&live_bytes, n_bytes, memory_order_relaxed);
	return block + MZM_ALIGN;
}

void mzm_free(void *p)
{
	if (!p)
		return;
	char *block = (char *)p - MZM_ALIGN;
	atomic_fetch_sub_explicit(&live_bytes, *(size_t *)(void *)block, memory_order_relaxed);
	free(block);
}

void *mzm_realloc(void *p, size_t old_bytes, size_t n_bytes)
{
	void *q = mzm_alloc(n_bytes);
	if (q && p) {
		memcpy(q, p, old_bytes < n_bytes ? old_bytes : n_bytes);
		mzm_free(p);
	}
	return q;
}

char *mzm_strndup(const char *s, size_t n)
{
	size_t total;
	char *copy = mzm_add_size(n, 1, &total) ? mzm_alloc(total) : NULL;
	if (copy && n)
		memcpy(copy, s, n);
	return copy;
}

char *mzm_strdup(const char *s)
{
	return mzm_strndup(s, strlen(s));
}

mzm_status mzm_alloc_for(void **out, size_t n_bytes, const char *what, mzm_err *err)
{
	*out = mzm_alloc(n_bytes);
	if (!*out)
		return mzm_fail(err, MZM_ENOMEM, "out of memory: %zu bytes for %s", n_bytes, what);
	return MZM_OK;
}
