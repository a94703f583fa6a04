/* cores.h - how many threads this process should start.
 *
 * The smaller of the physical cores its affinity mask touches and its cgroup CPU quota (v1 or v2, rounded up, the
 * ancestors' quotas as well). A second hyperthread of a core adds nothing to work that waits for memory. What cannot
 * be read does not limit. */
#ifndef MZM_CORES_H
#define MZM_CORES_H

/* At least 1. root: "" for the running system, else a folder that holds proc/ and sys/ (tests). */
int mzm_cores_usable(const char *root);
/* Its parts: INT_MAX without a quota; n_cpus bits of affinity in mask, as sched_getaffinity fills it. */
int mzm_cores_quota(const char *root);
int mzm_cores_physical(const char *root, const void *mask, int n_cpus);
/* One CPU of each of those cores, ascending: fills cpus[0 .. cap-1] and returns how many there are. */
int mzm_cores_list(const char *root, const void *mask, int n_cpus, int *cpus, int cap);

#define MZM_MAX_CPUS 8192

#endif
