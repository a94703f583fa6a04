/* cores.c - see cores.h. */
#include "kern/cores.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"

#define PATH_CAP 4352

/* ---- cores ---- */

static bool has_cpu(const void *mask, int n_cpus, long cpu)
{
	return cpu >= 0 && cpu < n_cpus && CPU_ISSET_S((size_t)cpu, (size_t)n_cpus / 8, (const cpu_set_t *)mask);
}

/* The lowest CPU of a list such as "0-1,64" that the mask has, or -1. */
static long lowest_of(const char *list, const void *mask, int n_cpus)
{
	while (*list >= '0' && *list <= '9') {
		char *end;
		long first = strtol(list, &end, 10), last = first;
		if (*end == '-')
			last = strtol(end + 1, &end, 10);
		for (long cpu = first; cpu <= last && cpu < n_cpus; cpu++)
			if (has_cpu(mask, n_cpus, cpu))
				return cpu;
		list = *end == ',' ? end + 1 : "";
	}
	return -1;
}

int mzm_cores_list(const char *root, const void *mask, int n_cpus, int *cpus, int cap)
{
	int n = 0;
	for (int cpu = 0; cpu < n_cpus; cpu++) {
		char path[PATH_CAP], text[1024];
		if (!has_cpu(mask, n_cpus, cpu))
			continue;
		snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", root, cpu);
		long lowest = mzm_read_small_text(path, text, sizeof text) ? lowest_of(text, mask, n_cpus) : -1;
		if (lowest >= 0 && lowest != cpu)
			continue; /* a core counts at its first thread */
		if (n < cap)
			cpus[n] = cpu;
		n++;
	}
	return n;
}

int mzm_cores_physical(const char *root, const void *mask, int n_cpus)
{
	return mzm_cores_list(root, mask, n_cpus, NULL, 0);
}

/* ---- quota ---- */

/* CPUs, rounded up, that quota out of every period allows. */
static int quota_cpus(long long quota, long long period)
{
	if (quota <= 0 || period <= 0)
		return INT_MAX;
	long long n = quota / period + (quota % period != 0);
	return n < INT_MAX ? (int)n : INT_MAX;
}

static int quota_v2(const char *folder)
{
	char path[PATH_CAP + 16], text[128];
	long long quota, period;
	snprintf(path, sizeof path, "%s/cpu.max", folder);
	if (!mzm_read_small_text(path, text, sizeof text) || sscanf(text, "%lld %lld", &quota, &period) != 2)
		return INT_MAX; /* "max 100000" */
	return quota_cpus(quota, period);
}

static int quota_v1(const char *folder)
{
	char path[PATH_CAP + 32], quota[64], period[64];
	snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
	if (!mzm_read_small_text(path, quota, sizeof quota))
		return INT_MAX;
	snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
	if (!mzm_read_small_text(path, period, sizeof period))
		return INT_MAX;
	return quota_cpus(strtoll(quota, NULL, 10), strtoll(period, NULL, 10));
}

/* The smallest quota on the way from a cgroup up to the root of the mount. In a container the path may be the
 * host's; then only the last step, the mount's own folder, exists. */
static int quota_upwards(const char *mount, const char *cgroup, int (*quota)(const char *folder))
{
	char folder[PATH_CAP];
	size_t base = strlen(mount);
	int len = snprintf(folder, sizeof folder, "%s%s", mount, cgroup);
	if (len < 0 || (size_t)len >= sizeof folder)
		return quota(mount);
	int least = quota(folder);
	for (char *slash; strlen(folder) > base && (slash = strrchr(folder + base, '/'));) {
		*slash = '\0';
		int q = quota(folder);
		least = q < least ? q : least;
	}
	return least;
}

/* True when a comma-separated list of controllers names "cpu". */
static bool names_cpu(const char *list, size_t len)
{
	while (len > 0) {
		const char *comma = memchr(list, ',', len);
		size_t word = comma ? (size_t)(comma - list) : len;
		if (word == 3 && memcmp(list, "cpu", 3) == 0)
			return true;
		size_t step = comma ? word + 1 : len;
		list += step;
		len -= step;
	}
	return false;
}

/* Lines are "number:controllers:path"; version 2 has no controllers. */
int mzm_cores_quota(const char *root)
{
	char path[PATH_CAP], text[16384], v1[PATH_CAP], v2[PATH_CAP];
	int least = INT_MAX;
	snprintf(v1, sizeof v1, "%s/sys/fs/cgroup/cpu", root);
	snprintf(v2, sizeof v2, "%s/sys/fs/cgroup", root);
	snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
	mzm_read_small_text(path, text, sizeof text);
	for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *list = strchr(line, ':');
		char *cgroup = list ? strchr(list + 1, ':') : NULL;
		int q = INT_MAX;
		if (!cgroup)
			continue;
		size_t len = (size_t)(cgroup - list - 1);
		if (len == 0)
			q = quota_upwards(v2, cgroup + 1, quota_v2);
		else if (names_cpu(list + 1, len))
			q = quota_upwards(v1, cgroup + 1, quota_v1);
		least = q < least ? q : least;
	}
	return least;
}

int mzm_cores_usable(const char *root)
{
	cpu_set_t mask[MZM_MAX_CPUS / CPU_SETSIZE];
	memset(mask, 0, sizeof mask);
	int n = 1;
	if (sched_getaffinity(0, sizeof mask, mask) == 0)
		n = mzm_cores_physical(root, mask, MZM_MAX_CPUS);
	int quota = mzm_cores_quota(root);
	n = n < quota ? n : quota;
	return n > 1 ? n : 1;
}
