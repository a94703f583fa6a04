/* mem.h - the one allocator, and arithmetic on sizes that cannot wrap.
 *
 * Everything the library allocates goes through here, so that tests can fail the n-th call and so
 * that live bytes are known. Memory is zeroed. mzm_free(NULL) is allowed. */
#ifndef MZM_MEM_H
#define MZM_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define MZM_ALIGN 64u                        /* every block, and every array carved from one */
#define MZM_HUGE_PAGE ((size_t)2 << 20)

void  *mzm_alloc(size_t n_bytes);                       /* zeroed, 64-byte aligned; NULL when refused */
void  *mzm_realloc(void *p, size_t old_bytes, size_t n_bytes); /* grown part zeroed */
void   mzm_free(void *p);
char  *mzm_strdup(const char *s);
char  *mzm_strndup(const char *s, size_t n);            /* copies n bytes and adds a NUL */
size_t mzm_mem_live(void);                              /* bytes allocated and not yet freed */

/* As mzm_alloc, but fills err: "out of memory: <bytes> bytes for <what>". */
mzm_status mzm_alloc_for(void **out, size_t n_bytes, const char *what, mzm_err *err);

/* Test hook: the call numbered `nth` (1 = next) from now fails once; 0 turns it off. Returns the
 * number of calls since the last change, so a test can walk k = 1, 2, ... until nothing failed. */
long mzm_mem_fail_nth(long nth);

static inline bool mzm_mul_size(size_t a, size_t b, size_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}
static inline bool mzm_add_size(size_t a, size_t b, size_t *out)
{
	return !__builtin_add_overflow(a, b, out);
}
static inline bool mzm_pad_size(size_t n, size_t align, size_t *out) /* align: a power of two */
{
	size_t up;
	if (!mzm_add_size(n, align - 1, &up))
		return false;
	*out = up & ~(align - 1);
	return true;
}

#endif
