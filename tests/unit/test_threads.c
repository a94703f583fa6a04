/* test_threads.c - teams: every rank once, barriers that hold, ranges that cover, teams side by side, and how many
 * cores a system described by files grants. Run under the thread sanitizer as well: the plain (non-atomic) writes
 * here are the probe of what a region and a barrier order. */
#include <limits.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/mem.h"
#include "kern/cores.h"
#include "kern/threads.h"

#define MAX_RANKS 4 /* LLVM's OpenMP keeps what it allocates for larger teams, which the leak sanitizer reports */

#ifdef __has_feature /* clang */
#if __has_feature(thread_sanitizer)
/* In a region inside a region LLVM's OpenMP hands mutexes on in a way the sanitizer cannot see. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "called_from_lib:libomp.so\n";
}
#endif
#endif

static mzm_team *team_of(int n)
{
	mzm_team *team;
	mzm_err err = {0};
	assert_int_equal(mzm_team_create(&team, n, &err), MZM_OK);
	return team;
}

/* ---- regions ---- */

typedef struct visits {
	int n[MAX_RANKS];    /* plain ints: each rank writes its own */
	int size[MAX_RANKS];
} visits;

static void visit(void *ctx, mzm_team *team, int rank)
{
	visits *v = ctx;
	v->n[rank]++;
	v->size[rank] = mzm_team_size(team);
}

static void every_rank_runs_once(void **state)
{
	(void)state;
	for (int n = 1; n <= MAX_RANKS; n++) {
		mzm_team *team = team_of(n);
		assert_int_equal(mzm_team_size(team), n);
		visits v = {0};
		for (int round = 1; round <= 20; round++) {
			mzm_team_run(team, visit, &v);
			for (int r = 0; r < MAX_RANKS; r++)
				assert_int_equal(v.n[r], r < n ? round : 0);
		}
		for (int r = 0; r < n; r++)
			assert_int_equal(v.size[r], n);
		mzm_team_free(team);
	}
}

/* What one region leaves behind the next one finds, on whichever rank. */
typedef struct relay {
	int64_t value[MAX_RANKS];
	int     shift;
} relay;

static void pass_on(void *ctx, mzm_team *team, int rank)
{
	relay *r = ctx;
	int n = mzm_team_size(team), from = (rank + r->shift) % n;
	int64_t got = r->value[from];
	mzm_team_barrier(team, rank);
	r->value[rank] = got + 1;
}

static void short_regions(void **state)
{
	(void)state;
	mzm_team *team = team_of(2);
	relay r = {.value = {0, 1000000}};
	for (int i = 0; i < 10000; i++) {
		r.shift = i & 1;
		mzm_team_run(team, pass_on, &r);
	}
	assert_int_equal(r.value[0] + r.value[1], 1000000 + 20000);
	mzm_team_free(team);
}

/* ---- barriers ---- */

typedef struct phases {
	int  at[MAX_RANKS]; /* plain: the barrier alone keeps them apart */
	int  n_rounds;
	atomic_int n_wrong;
} phases;

static void march(void *ctx, mzm_team *team, int rank)
{
	phases *p = ctx;
	int n = mzm_team_size(team);
	for (int round = 1; round <= p->n_rounds; round++) {
		p->at[rank] = round;
		mzm_team_barrier(team, rank);
		for (int r = 0; r < n; r++)
			if (p->at[r] != round)
				atomic_fetch_add(&p->n_wrong, 1);
		if (round % 64 == rank)
			sched_yield(); /* now and then a rank is late */
		mzm_team_barrier(team, rank);
	}
}

static void barriers_hold(void **state)
{
	(void)state;
	for (int n = 1; n <= MAX_RANKS; n++) {
		mzm_team *team = team_of(n);
		phases p = {.n_rounds = n <= 2 ? 5000 : 300};
		mzm_team_run(team, march, &p);
		assert_int_equal(atomic_load(&p.n_wrong), 0);
		for (int r = 0; r < n; r++)
			assert_int_equal(p.at[r], p.n_rounds);
		mzm_team_free(team);
	}
}

/* ---- ranges ---- */

static void ranges_cover_exactly(void **state)
{
	(void)state;
	static const int32_t sizes[] = {0, 1, 15, 16, 17, 100, 4096, 11008, 151936, INT32_MAX};
	static const int32_t grains[] = {1, 8, 16, 64};
	for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
		for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) {
			for (int size = 1; size <= 9; size++) {
				int32_t next = 0;
				for (int rank = 0; rank < size; rank++) {
					int32_t b, e;
					mzm_team_range(sizes[k], grains[g], rank, size, &b, &e);
					assert_int_equal(b, next);
					assert_true(e >= b);
					assert_true(b % grains[g] == 0 || b == sizes[k]);
					next = e;
				}
				assert_int_equal(next, sizes[k]);
			}
		}
	}
}

/* ---- teams side by side, and fewer threads than asked for ---- */

static void *drive(void *result)
{
	mzm_team *team = team_of(2);
	phases p = {.n_rounds = 50};
	for (int i = 0; i < 100; i++)
		mzm_team_run(team, march, &p);
	*(int *)result = atomic_load(&p.n_wrong) == 0 && p.at[0] == 50 && p.at[1] == 50;
	mzm_team_free(team);
	return NULL;
}

static void two_callers_two_teams(void **state)
{
	(void)state;
	pthread_t a, b;
	int ok[2] = {0};
	assert_int_equal(pthread_create(&a, NULL, drive, &ok[0]), 0);
	assert_int_equal(pthread_create(&b, NULL, drive, &ok[1]), 0);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	assert_true(ok[0] && ok[1]);
}

typedef struct nest {
	mzm_team *inner;
	visits    v;
	int       outer_wrong;
} nest;

static void run_inner(void *ctx, mzm_team *team, int rank)
{
	nest *n = ctx;
	if (rank == 0)
		mzm_team_run(n->inner, visit, &n->v);
	mzm_team_barrier(team, rank);
}

/* OpenMP gives a region inside a region one thread by default: the inner team must see that. */
static void fewer_threads_than_asked(void **state)
{
	(void)state;
	int levels = omp_get_max_active_levels();
	omp_set_max_active_levels(1);
	mzm_team *outer = team_of(2);
	nest n = {.inner = team_of(3)};
	mzm_team_run(outer, run_inner, &n);
	omp_set_max_active_levels(levels);
	assert_int_equal(n.v.n[0], 1);
	assert_int_equal(n.v.n[1], 0);
	assert_int_equal(n.v.size[0], 1);
	assert_int_equal(mzm_team_size(n.inner), 3);
	mzm_team_run(n.inner, visit, &n.v); /* on its own again, it is whole */
	assert_int_equal(n.v.n[0], 2);
	assert_int_equal(n.v.n[2], 1);
	assert_int_equal(n.v.size[2], 3);
	mzm_team_free(n.inner);
	mzm_team_free(outer);
}

static void host_settings_are_kept(void **state)
{
	(void)state;
	mzm_team *team = team_of(2);
	visits v = {0};
	int threads = omp_get_max_threads();
	omp_set_dynamic(1);
	mzm_team_run(team, visit, &v);
	assert_true(omp_get_dynamic());
	omp_set_dynamic(0);
	assert_int_equal(v.n[1], 1); /* dynamic adjustment did not take the second thread */
	int previous = mzm_threads_alone_begin();
	assert_int_equal(omp_get_max_threads(), 1);
	mzm_threads_alone_end(previous);
	assert_int_equal(omp_get_max_threads(), threads);
	mzm_team_free(team);
}

static void wrong_counts_are_refused(void **state)
{
	(void)state;
	static const int wrong[] = {-1, INT_MIN, MZM_MAX_THREADS + 1, INT_MAX};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		mzm_team *team;
		mzm_err err = {0};
		assert_int_equal(mzm_team_create(&team, wrong[i], &err), MZM_EARG);
		assert_null(team);
		assert_true(err.message[0]);
	}
	mzm_team *team;
	mzm_err err = {0};
	mzm_mem_fail_nth(1);
	assert_int_equal(mzm_team_create(&team, 2, &err), MZM_ENOMEM);
	mzm_mem_fail_nth(0);
	assert_null(team);
	mzm_team_free(NULL);
}

/* ---- cores ---- */

static char root[] = "/tmp/mirzam-cores-XXXXXX";

/* Writes root/path, making its folders. */
static void put_file(const char *path, const char *text)
{
	char full[512];
	snprintf(full, sizeof full, "%s/%s", root, path);
	for (char *slash = strchr(full + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(full, 0700);
		*slash = '/';
	}
	FILE *f = fopen(full, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int make_root(void **state)
{
	(void)state;
	strcpy(root + strlen(root) - 6, "XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int drop_root(void **state)
{
	(void)state;
	char command[600];
	snprintf(command, sizeof command, "rm -rf '%s'", root);
	return system(command);
}

static void put_siblings(int cpu, const char *list)
{
	char path[128];
	snprintf(path, sizeof path, "sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
	put_file(path, list);
}

static void threads_of_a_core_count_once(void **state)
{
	(void)state;
	cpu_set_t mask;
	CPU_ZERO(&mask);
	for (int cpu = 0; cpu < 8; cpu++)
		CPU_SET((size_t)cpu, &mask);
	assert_int_equal(mzm_cores_physical(root, &mask, CPU_SETSIZE), 8); /* no topology: every CPU */
	for (int cpu = 0; cpu < 8; cpu++) { /* 0,4 1,5 2,6 3,7 */
		char list[32];
		snprintf(list, sizeof list, "%d,%d\n", cpu % 4, cpu % 4 + 4);
		put_siblings(cpu, list);
	}
	assert_int_equal(mzm_cores_physical(root, &mask, CPU_SETSIZE), 4);
	CPU_CLR(0, &mask); /* the second thread of core 0 is still ours */
	assert_int_equal(mzm_cores_physical(root, &mask, CPU_SETSIZE), 4);
	CPU_CLR(4, &mask);
	assert_int_equal(mzm_cores_physical(root, &mask, CPU_SETSIZE), 3);
	put_siblings(1, "1-2\n"); /* as a range */
	put_siblings(2, "1-2\n");
	put_siblings(5, "5-6\n");
	put_siblings(6, "5-6\n");
	assert_int_equal(mzm_cores_physical(root, &mask, CPU_SETSIZE), 3); /* 1-2, 5-6, 3,7 */
	put_siblings(3, "junk");
	put_siblings(7, "999999999999999999999,-1");
	assert_int_equal(mzm_cores_physical(root, &mask, CPU_SETSIZE), 4); /* 1-2, 5-6, 3, 7 */
}

static void quota_version_2(void **state)
{
	(void)state;
	assert_int_equal(mzm_cores_quota(root), INT_MAX);
	put_file("proc/self/cgroup", "0::/user.slice/job\n");
	assert_int_equal(mzm_cores_quota(root), INT_MAX);
	put_file("sys/fs/cgroup/user.slice/job/cpu.max", "max 100000\n");
	assert_int_equal(mzm_cores_quota(root), INT_MAX);
	put_file("sys/fs/cgroup/user.slice/job/cpu.max", "250000 100000\n");
	assert_int_equal(mzm_cores_quota(root), 3);
	put_file("sys/fs/cgroup/user.slice/cpu.max", "200000 100000\n"); /* the parent has less */
	assert_int_equal(mzm_cores_quota(root), 2);
	put_file("sys/fs/cgroup/cpu.max", "1000 100000\n"); /* a container's own root */
	assert_int_equal(mzm_cores_quota(root), 1);
	assert_int_equal(mzm_cores_usable(root), 1);
	put_file("sys/fs/cgroup/cpu.max", "0 0");
	assert_int_equal(mzm_cores_quota(root), 2);
	put_file("sys/fs/cgroup/cpu.max", "");
	assert_int_equal(mzm_cores_quota(root), 2);
	put_file("proc/self/cgroup", "no colons here\n0::/\n");
	put_file("sys/fs/cgroup/cpu.max", "400000 100000");
	assert_int_equal(mzm_cores_quota(root), 4);
}

static void quota_version_1(void **state)
{
	(void)state;
	put_file("proc/self/cgroup", "5:cpuset:/a\n4:cpuacct,cpu:/docker/1234\n0::/\n");
	put_file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
	assert_int_equal(mzm_cores_quota(root), INT_MAX);
	put_file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
	assert_int_equal(mzm_cores_quota(root), INT_MAX);
	put_file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n"); /* seen through the container's mount */
	assert_int_equal(mzm_cores_quota(root), 2);
	put_file("sys/fs/cgroup/cpu/docker/1234/cpu.cfs_quota_us", "50000\n");
	put_file("sys/fs/cgroup/cpu/docker/1234/cpu.cfs_period_us", "100000\n");
	assert_int_equal(mzm_cores_quota(root), 1);
	put_file("proc/self/cgroup", "5:cpuset:/a\n4:cpuacct:/docker/1234\n");
	assert_int_equal(mzm_cores_quota(root), INT_MAX); /* no line names the cpu controller */
}

static void this_machine(void **state)
{
	(void)state;
	mzm_team *team = team_of(0);
	cpu_set_t mask;
	assert_int_equal(sched_getaffinity(0, sizeof mask, &mask), 0);
	assert_in_range(mzm_team_size(team), 1, CPU_COUNT(&mask));
	mzm_team_free(team);
	CPU_ZERO(&mask); /* bound to one CPU, it is one thread */
	CPU_SET((size_t)sched_getcpu(), &mask);
	cpu_set_t before;
	assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
	assert_int_equal(sched_setaffinity(0, sizeof mask, &mask), 0);
	assert_int_equal(mzm_cores_usable(""), 1);
	assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void small_text_files(void **state)
{
	(void)state;
	char path[128], text[16];
	put_file("f", "0123456789abcdefghij");
	snprintf(path, sizeof path, "%s/f", root);
	memset(text, 'x', sizeof text);
	assert_true(mzm_read_small_text(path, text, 8));
	assert_string_equal(text, "0123456");
	assert_int_equal(text[8], 'x');
	assert_true(mzm_read_small_text("/proc/self/stat", text, sizeof text));
	assert_int_equal(strlen(text), sizeof text - 1); /* its size is said to be 0 */
	assert_false(mzm_read_small_text(root, text, sizeof text));
	assert_string_equal(text, "");
	snprintf(path, sizeof path, "%s/none", root);
	assert_false(mzm_read_small_text(path, text, sizeof text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_rank_runs_once),
		cmocka_unit_test(short_regions),
		cmocka_unit_test(barriers_hold),
		cmocka_unit_test(ranges_cover_exactly),
		cmocka_unit_test(two_callers_two_teams),
		cmocka_unit_test(fewer_threads_than_asked),
		cmocka_unit_test(host_settings_are_kept),
		cmocka_unit_test(wrong_counts_are_refused),
		cmocka_unit_test_setup_teardown(threads_of_a_core_count_once, make_root, drop_root),
		cmocka_unit_test_setup_teardown(quota_version_2, make_root, drop_root),
		cmocka_unit_test_setup_teardown(quota_version_1, make_root, drop_root),
		cmocka_unit_test(this_machine),
		cmocka_unit_test_setup_teardown(small_text_files, make_root, drop_root),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
