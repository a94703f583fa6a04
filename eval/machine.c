/* machine.c - what the numbers were measured on. Linux: /proc, /sys, uname; what cannot be read is null. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "eval/run.h"
#include "eval/util.h"

int32_t mze_machine_threads(void)
{
	cpu_set_t set;
	if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
		return CPU_COUNT(&set);
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	return n < 1 ? 1 : (int32_t)n;
}

int64_t mze_machine_peak_rss(void)
{
	struct rusage usage;
	return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

/* Value of a "key : value" line, or NULL. Cuts the line's end off. */
static const char *field(char *line, const char *key)
{
	char *colon = strchr(line, ':');
	if (!colon || strncmp(line, key, strlen(key)) != 0)
		return NULL;
	colon[1 + strcspn(colon + 1, "\n")] = 0;
	return colon + 1 + strspn(colon + 1, " \t");
}

void mze_machine_cpu(char *out, size_t cap)
{
	char line[512];
	const char *value = NULL;
	FILE *f = fopen("/proc/cpuinfo", "re");
	while (f && !value && fgets(line, sizeof line, f))
		value = field(line, "model name");
	snprintf(out, cap, "%s", value && *value ? value : "unknown");
	if (f)
		fclose(f);
}

/* Different (package, core) pairs; 0: unknown. */
static int32_t count_cores(void)
{
	static const int32_t max = 8192;
	int32_t *seen = malloc((size_t)max * sizeof *seen), n = 0, package = 0;
	char line[512];
	FILE *f = seen ? fopen("/proc/cpuinfo", "re") : NULL;
	while (f && fgets(line, sizeof line, f)) {
		const char *value;
		if ((value = field(line, "physical id")) != NULL)
			package = atoi(value);
		if ((value = field(line, "core id")) == NULL)
			continue;
		int32_t core = package * 65536 + atoi(value), i = 0;
		while (i < n && seen[i] != core)
			i++;
		if (i == n && n < max)
			seen[n++] = core;
	}
	if (f)
		fclose(f);
	free(seen);
	return n;
}

static json_t *governor(void)
{
	char line[64] = "";
	FILE *f = fopen("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "re");
	bool got = f && fgets(line, sizeof line, f);
	if (f)
		fclose(f);
	line[strcspn(line, "\n")] = 0;
	return got ? mze_json_text(line, strlen(line)) : json_null();
}

/* What the build says of oneDNN; null when it says nothing. */
static json_t *onednn(const char *build, bool is_off)
{
	const char *at = strstr(build, "oneDNN");
	if (!at)
		return json_null();
	bool is_absent = (at - build >= 3 && memcmp(at - 3, "no ", 3) == 0) ||
			 (at - build >= 8 && memcmp(at - 8, "without ", 8) == 0);
	return json_boolean(!is_off && !is_absent);
}

json_t *mze_machine_json(const mze_eval *e)
{
	char cpu[128];
	struct utsname un;
	int32_t cores = count_cores();
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	json_t *o = json_object();
	int bad = !o;
#define SET(key, value) bad |= json_object_set_new(o, key, value)
	mze_machine_cpu(cpu, sizeof cpu);
	SET("cpu", mze_json_text(cpu, strlen(cpu)));
	SET("cores", cores ? json_integer(cores) : json_null());
	SET("threads", json_integer(mze_machine_threads()));
	SET("isa", json_string(mzm_model_get_info(e->model)->isa ? mzm_model_get_info(e->model)->isa : "unknown"));
	SET("onednn", onednn(mzm_build_info(), e->params.no_onednn));
	SET("build", json_string(mzm_build_info()));
	SET("kernel", uname(&un) == 0 ? json_pack("s++", un.sysname, " ", un.release) : json_null());
	SET("mem_bytes", pages > 0 && page > 0 ? json_integer((json_int_t)pages * page) : json_null());
	SET("governor", governor());
#undef SET
	if (bad) {
		json_decref(o);
		return NULL;
	}
	return o;
}
