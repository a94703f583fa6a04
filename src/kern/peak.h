/* peak.h - what the machine can do at best, for the benchmark to compare with: reading memory, and multiplying.
 *
 * Workload: a buffer far larger than the last-level cache, read from end to end by every thread of a team, each its
 * own contiguous part; and a square product per thread that stays in its caches. A call is one such pass: the caller
 * times it, repeats it, and lets it take turns with what it is compared to. Nothing is allocated after creation. */
#ifndef MZM_PEAK_H
#define MZM_PEAK_H

#include "kern/kern.h"
#include "kern/threads.h"

typedef struct mzm_peak mzm_peak;

/* buffer_bytes 0: 512 MiB or four times the last-level cache, whichever is more. The team stays the caller's; kern is
 * for builds without oneDNN, whose matmul peak is that of the row kernels. -> mzm_peak_free */
mzm_status mzm_peak_create(mzm_peak **out, mzm_team *team, const mzm_kern *kern, size_t buffer_bytes, mzm_err *err);
void       mzm_peak_free(mzm_peak *p);

void       mzm_peak_read(mzm_peak *p);                  /* reads mzm_peak_read_bytes() */
mzm_status mzm_peak_matmul(mzm_peak *p, mzm_err *err);  /* computes mzm_peak_matmul_flop() */

size_t      mzm_peak_read_bytes(const mzm_peak *p);
uint64_t    mzm_peak_read_sum(const mzm_peak *p);       /* of the 64-bit words last read: that they were is a test */
double      mzm_peak_matmul_flop(const mzm_peak *p);    /* multiplications and additions of all threads */
const char *mzm_peak_matmul_name(const mzm_peak *p);    /* "f32, oneDNN" */

size_t mzm_cache_bytes(void); /* one last-level cache; 0: the system does not say */

#endif
