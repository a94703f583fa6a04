/* counting.h - counts the allocations of the whole process, libraries included. Include in one file of a program. */
#ifndef COUNTING_H
#define COUNTING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

static atomic_long n_allocations;

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define NO_COUNTING 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NO_COUNTING 1
#endif

#ifndef NO_COUNTING
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

void *malloc(size_t n)
{
	atomic_fetch_add(&n_allocations, 1);
	return __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
	atomic_fetch_add(&n_allocations, 1);
	return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
	atomic_fetch_add(&n_allocations, 1);
	return __libc_realloc(p, n);
}
void *aligned_alloc(size_t align, size_t n)
{
	atomic_fetch_add(&n_allocations, 1);
	return __libc_memalign(align, n);
}
#endif

#endif
