/* memory.c - how much memory this process may use, as the system and its cgroups (v1 or v2, ancestors too) say. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "engine/plan.h"

static uint64_t meminfo(const char *key)
{
	char text[4096];
	if (!mzm_read_small_text("/proc/meminfo", text, sizeof text))
		return UINT64_MAX;
	const char *at = strstr(text, key);
	return at ? strtoull(at + strlen(key), NULL, 10) << 10 : UINT64_MAX;
}

/* The smallest limit from a group up to the root. path: of the group, shortened on the way. */
static uint64_t group_limit(const char *mount, char *path, const char *file)
{
	uint64_t least = UINT64_MAX;
	for (;;) {
		char name[1024], text[64], *end;
		snprintf(name, sizeof name, "%s%s/%s", mount, path, file);
		if (mzm_read_small_text(name, text, sizeof text)) {
			uint64_t limit = strtoull(text, &end, 10);
			if (end != text && limit < least) /* "max" is no number */
				least = limit;
		}
		char *cut = strrchr(path, '/');
		if (!cut)
			return least;
		*cut = '\0';
	}
}

static uint64_t cgroup_limit(void)
{
	char text[4096], *save = NULL;
	uint64_t least = UINT64_MAX;
	if (!mzm_read_small_text("/proc/self/cgroup", text, sizeof text))
		return least;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *path = strchr(line, ':'), *list = path ? path + 1 : NULL;
		path = list ? strchr(list, ':') : NULL;
		if (!path)
			continue;
		*path++ = '\0';
		uint64_t limit = UINT64_MAX;
		if (!*list)
			limit = group_limit("/sys/fs/cgroup", path, "memory.max");
		else if (strcmp(list, "memory") == 0)
			limit = group_limit("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes");
		least = limit < least ? limit : least;
	}
	return least;
}

uint64_t mzm_machine_memory(void)
{
	uint64_t total = meminfo("MemTotal:"), limit = cgroup_limit();
	return limit < total ? limit : total;
}

uint64_t mzm_memory_available(void)
{
	uint64_t available = meminfo("MemAvailable:"), limit = cgroup_limit();
	return limit < available ? limit : available;
}
