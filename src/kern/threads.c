/* threads.c - see threads.h.
 *
 * A region is one OpenMP construct around one call; everything else is C11 atomics. OpenMP's own synchronisation
 * orders memory, but in code the thread sanitizer cannot see. So the caller's writes are handed over through
 * `started`, the members' through `finished`, which costs one atomic operation each. */
#include "kern/threads.h"

#include <limits.h>
#include <linux/futex.h>
#include <omp.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "kern/cores.h"

#define N_SPINS 2000 /* some 40 microseconds; who waits longer sleeps, so that a busy machine can run the others */

struct mzm_team {
	int         n_max;
	atomic_int  size; /* in a region the threads that are there, else n_max */
	mzm_team_fn fn;
	void       *ctx;
	bool        pinned;                 /* the team has a core for every thread */
	int         cpu[MZM_MAX_THREADS];   /* where rank i runs when it is pinned */
	cpu_set_t   mask[MZM_MAX_CPUS / CPU_SETSIZE]; /* where it may run when it is not */

	/* each on a cache line of its own */
	alignas(MZM_ALIGN) atomic_uint started;    /* regions begun: the caller releases fn, ctx and all behind */
	alignas(MZM_ALIGN) atomic_uint finished;   /* calls of fn returned: each releases what it wrote */
	alignas(MZM_ALIGN) atomic_int  arrived;    /* at the barrier */
	alignas(MZM_ALIGN) atomic_uint generation; /* barriers passed; what sleepers sleep on */
	alignas(MZM_ALIGN) atomic_int  sleeping;   /* threads that may be asleep in a barrier */
};

/* A team as large as the machine that this process may use gets a core for each thread, so that two of them never wait
 * for each other on one. A smaller one, or one of many, leaves the choice to the system. */
static void choose_cores(mzm_team *team)
{
	if (sched_getaffinity(0, sizeof team->mask, team->mask) != 0)
		return;
	int n = mzm_cores_list("", team->mask, MZM_MAX_CPUS, team->cpu, MZM_MAX_THREADS);
	team->pinned = n == team->n_max && n > 1;
}

/* Rank 0 is the caller's thread, whose affinity is not ours to change. */
static void settle(const mzm_team *team, int rank)
{
	static _Thread_local int pinned_to = -1;
	int cpu = team->pinned ? team->cpu[rank] : -1;
	cpu_set_t one[MZM_MAX_CPUS / CPU_SETSIZE];
	if (rank == 0 || cpu == pinned_to)
		return;
	if (cpu >= 0) {
		CPU_ZERO_S(sizeof one, one);
		CPU_SET_S((size_t)cpu, sizeof one, one);
	}
	if (sched_setaffinity(0, sizeof one, cpu >= 0 ? one : team->mask) == 0) /* a wish: nothing depends on it */
		pinned_to = cpu;
}

mzm_status mzm_team_create(mzm_team **out, int n_threads, mzm_err *err)
{
	*out = NULL;
	if (n_threads < 0 || n_threads > MZM_MAX_THREADS)
		return mzm_fail(err, MZM_EARG, "%d threads: 1 to %d, or 0 to choose", n_threads, MZM_MAX_THREADS);
	if (n_threads == 0) {
		n_threads = mzm_cores_usable("");
		n_threads = n_threads < MZM_MAX_THREADS ? n_threads : MZM_MAX_THREADS;
	}
	mzm_team *team;
	MZM_TRY(mzm_alloc_for((void **)&team, sizeof *team, "the thread team", err));
	team->n_max = n_threads;
	choose_cores(team);
	atomic_init(&team->size, n_threads);
	*out = team;
	return MZM_OK;
}

void mzm_team_free(mzm_team *team)
{
	mzm_free(team);
}

int mzm_team_size(const mzm_team *team)
{
	return atomic_load_explicit(&team->size, memory_order_relaxed);
}

/* What each thread of a region does. All store the same size, and each at least sees its own store. */
static void member(mzm_team *team, int rank, int size)
{
	(void)atomic_load_explicit(&team->started, memory_order_acquire);
	atomic_store_explicit(&team->size, size, memory_order_relaxed);
	settle(team, rank);
	team->fn(team->ctx, team, rank);
	atomic_fetch_add_explicit(&team->finished, 1, memory_order_release);
}

/* The arguments that the compiler passes to the region's threads are written and read out of the sanitizer's
 * sight, hence the attribute; they are one pointer. */
__attribute__((noinline, no_sanitize("thread"))) static void region(mzm_team *team, int n_threads)
{
#pragma omp parallel num_threads(n_threads) default(none) firstprivate(team)
	member(team, omp_get_thread_num(), omp_get_num_threads());
}

void mzm_team_run(mzm_team *team, mzm_team_fn fn, void *ctx)
{
	if (team->n_max == 1) {
		fn(ctx, team, 0);
		return;
	}
	team->fn = fn;
	team->ctx = ctx;
	atomic_fetch_add_explicit(&team->started, 1, memory_order_release);
	int dynamic = omp_get_dynamic();
	omp_set_dynamic(0); /* all the threads asked for, whatever the load */
	region(team, team->n_max);
	omp_set_dynamic(dynamic);
	(void)atomic_load_explicit(&team->finished, memory_order_acquire);
	atomic_store_explicit(&team->size, team->n_max, memory_order_relaxed);
}

static inline void pause_core(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

static long futex(atomic_uint *word, int operation, unsigned value)
{
	return syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

/* The last to arrive opens the next generation; the others wait for it. The generation is read before arriving, while
 * it cannot change. A thread counts itself as sleeping before the kernel compares the generation once more, and the
 * opener stores the generation before it looks for sleepers: one of the two sees the other. */
void mzm_team_barrier(mzm_team *team, int rank)
{
	(void)rank;
	int size = mzm_team_size(team);
	if (size == 1)
		return;
	unsigned now = atomic_load_explicit(&team->generation, memory_order_relaxed);
	if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == size - 1) {
		atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
		atomic_store(&team->generation, now + 1);
		if (atomic_load(&team->sleeping) > 0)
			futex(&team->generation, FUTEX_WAKE_PRIVATE, INT_MAX);
		return;
	}
	for (int spins = 0; spins < N_SPINS; spins++) {
		if (atomic_load_explicit(&team->generation, memory_order_acquire) != now)
			return;
		pause_core();
	}
	atomic_fetch_add(&team->sleeping, 1);
	while (atomic_load(&team->generation) == now)
		futex(&team->generation, FUTEX_WAIT_PRIVATE, now);
	atomic_fetch_sub(&team->sleeping, 1);
}

int mzm_threads_alone_begin(void)
{
	int previous = omp_get_max_threads();
	omp_set_num_threads(1);
	return previous;
}

void mzm_threads_alone_end(int previous)
{
	omp_set_num_threads(previous);
}
