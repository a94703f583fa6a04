/* threads.h - a team of threads that runs one function together; the only module that uses OpenMP.
 *
 * The forward pass is SPMD: every thread of the team runs the same function and they meet at
 * barriers. A team of one runs inline. A team belongs to one session and one calling thread; several
 * threads may run a team each at the same time.
 *
 * A team with a thread for every core that this process may use pins all but the calling one, each to its core.
 *
 * OpenMP may give a region fewer threads than the team has (OMP_THREAD_LIMIT, a host program's own
 * parallel region around the call). The function still runs once on every rank 0 .. size-1, but with
 * the size that mzm_team_size returns inside it, which is never larger than the one outside. */
#ifndef MZM_THREADS_H
#define MZM_THREADS_H

#include "base/err.h"

typedef struct mzm_team mzm_team;

#define MZM_MAX_THREADS 1024

/* n_threads 0: the cores this process may use (affinity and cgroup quota respected, one thread a core).
 * Above MZM_MAX_THREADS: MZM_EARG. -> mzm_team_free */
mzm_status mzm_team_create(mzm_team **out, int n_threads, mzm_err *err);
void       mzm_team_free(mzm_team *team);
int        mzm_team_size(const mzm_team *team); /* inside fn: the ranks that are really there */

/* Runs fn(ctx, team, rank) on every rank 0 .. size-1 and returns when all have. */
typedef void (*mzm_team_fn)(void *ctx, mzm_team *team, int rank);
void mzm_team_run(mzm_team *team, mzm_team_fn fn, void *ctx);

/* Inside fn only: waits until every rank has arrived. Spins briefly, then sleeps. */
void mzm_team_barrier(mzm_team *team, int rank);

/* Between the two calls a library that uses OpenMP itself stays on the calling thread. Pass what begin
 * returned to end. */
int  mzm_threads_alone_begin(void);
void mzm_threads_alone_end(int previous);

/* The part of 0 .. n-1 that belongs to a rank, cut at multiples of grain. */
static inline void mzm_team_range(int32_t n, int32_t grain, int rank, int size, int32_t *begin, int32_t *end)
{
	int64_t blocks = ((int64_t)n + grain - 1) / grain;
	int64_t b = blocks * rank / size * grain, e = blocks * (rank + 1) / size * grain;
	*begin = (int32_t)(b < n ? b : n);
	*end = (int32_t)(e < n ? e : n);
}

#endif
