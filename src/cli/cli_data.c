/* cli_data.c - finds the files that come with the program, wherever it was built or installed. */
#include "cli.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Folders relative to the executable: installed, then inside a build folder of a checkout. */
static const char *const beside[] = {"../share/mirzam", "../data", "../../data", "../../../data"};

/* dir/name when it can be read, else NULL. -> free */
static char *readable(const char *dir, const char *name)
{
	char *path;
	if (asprintf(&path, "%s/%s", dir, name) < 0)
		return NULL;
	if (access(path, R_OK) == 0)
		return path;
	free(path);
	return NULL;
}

/* The folder that holds the executable; false when the system does not say. */
static bool executable_folder(char dir[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", dir, PATH_MAX - 1);
	if (n <= 0)
		return false;
	dir[n] = 0;
	char *slash = strrchr(dir, '/');
	if (slash)
		*slash = 0;
	return slash != NULL;
}

static char *find_beside(const char *name)
{
	char dir[PATH_MAX], *path = NULL, *folder;
	if (!executable_folder(dir))
		return NULL;
	for (int i = 0; !path && i < MZM_CLI_COUNT(beside); i++) {
		if (asprintf(&folder, "%s/%s", dir, beside[i]) < 0)
			return NULL;
		path = readable(folder, name);
		free(folder);
	}
	return path;
}

mzm_status mzm_cli_data_path(char **path, const char *name, mzm_err *err)
{
	const char *dir = getenv("MIRZAM_DATA");
	if (dir && *dir) {
		*path = readable(dir, name);
		if (*path)
			return MZM_OK;
		return mzm_cli_set_err(err, MZM_EIO,
				       "%s/%s: not found; MIRZAM_DATA names the folder of the shipped data", dir, name);
	}
	*path = find_beside(name);
#ifdef MZM_DATADIR
	if (!*path)
		*path = readable(MZM_DATADIR, name);
#endif
	if (*path)
		return MZM_OK;
	return mzm_cli_set_err(err, MZM_EIO,
			       "%s: not found beside the program (../share/mirzam, ../data, ../../data, ../../../data)"
#ifdef MZM_DATADIR
			       " nor in " MZM_DATADIR
#endif
			       "; set MIRZAM_DATA to the folder that holds it%s",
			       name, strstr(name, ".mzm") ? ", or name a model with -m" : "");
}
