/* fill.c - see fill.h. Threads live for one tensor: tens of microseconds against the milliseconds it takes. */
#include "format/fill.h"

#include <pthread.h>

#define MAX_THREADS    64
#define WORTH_A_THREAD ((uint64_t)1 << 20) /* bytes */

typedef struct part {
	mzm_fill_fn fn;
	void       *ctx;
	int32_t     begin, end;
	pthread_t   thread;
} part;

static void *make_part(void *arg)
{
	const part *p = arg;
	p->fn(p->ctx, p->begin, p->end);
	return 0;
}

void mzm_fill_rows(mzm_fill_fn fn, void *ctx, int32_t n_rows, uint64_t n_bytes, int n_threads)
{
	part parts[MAX_THREADS];
	uint64_t n = n_bytes / WORTH_A_THREAD;
	n = n > MAX_THREADS ? MAX_THREADS : n;
	n = n > (uint64_t)n_rows ? (uint64_t)n_rows : n;
	n = n_threads > 0 && n > (uint64_t)n_threads ? (uint64_t)n_threads : n;
	uint64_t n_started = 1; /* part 0 is the caller's */
	for (uint64_t i = 0; i < n; i++)
		parts[i] = (part){.fn = fn,
				  .ctx = ctx,
				  .begin = (int32_t)((uint64_t)n_rows * i / n),
				  .end = (int32_t)((uint64_t)n_rows * (i + 1) / n)};
	while (n_started < n && pthread_create(&parts[n_started].thread, NULL, make_part, &parts[n_started]) == 0)
		n_started++;
	fn(ctx, 0, n > 1 ? parts[0].end : n_rows);
	for (uint64_t i = n_started; i < n; i++)
		make_part(&parts[i]);
	for (uint64_t i = 1; i < n_started && i < n; i++)
		pthread_join(parts[i].thread, NULL);
}
