/* testing.h - what unit tests share: the shared data's place, temporary folders, whole files. */
#ifndef MZM_TESTING_H
#define MZM_TESTING_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* Path of a file or folder of the shared data; NULL, with a message, when it is not there: then skip(). */
static inline const char *testing_shared(const char *name, char buf[512])
{
	const char *root = getenv("MIRZAM_SHARED");
	if (!root || snprintf(buf, 512, "%s/%s", root, name) >= 512 || access(buf, R_OK) != 0) {
		print_message("skipped: %s is missing (MIRZAM_SHARED is %s)\n", name, root ? root : "not set");
		return NULL;
	}
	return buf;
}

/* A short count normally, the long one with MIRZAM_LONG set (and not MIRZAM_SHORT, for sanitizers). */
static inline long testing_count(long normal, long with_long)
{
	return getenv("MIRZAM_LONG") && !getenv("MIRZAM_SHORT") ? with_long : normal;
}

/* A fresh folder; testing_remove() it. */
static inline void testing_temp_dir(char buf[256])
{
	const char *root = getenv("TMPDIR");
	snprintf(buf, 256, "%s/mirzam-XXXXXX", root && strlen(root) < 200 ? root : "/tmp");
	assert_non_null(mkdtemp(buf));
}

static inline void testing_remove(const char *path)
{
	DIR *d = opendir(path);
	if (d) {
		struct dirent *e;
		while ((e = readdir(d))) {
			char sub[1024];
			if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
			    snprintf(sub, sizeof sub, "%s/%s", path, e->d_name) < (int)sizeof sub)
				testing_remove(sub);
		}
		closedir(d);
	}
	remove(path);
}

static inline int testing_dir_entries(const char *path)
{
	int n = 0;
	DIR *d = opendir(path);
	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2; /* . and .. */
}

static inline void testing_write(const char *path, const void *bytes, size_t n)
{
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

/* malloc'ed, with a NUL behind its end. */
static inline char *testing_read(const char *path, size_t *n)
{
	struct stat sb;
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	assert_int_equal(fstat(fileno(f), &sb), 0);
	char *bytes = malloc((size_t)sb.st_size + 1);
	assert_non_null(bytes);
	assert_int_equal(fread(bytes, 1, (size_t)sb.st_size, f), sb.st_size);
	bytes[sb.st_size] = 0;
	fclose(f);
	*n = (size_t)sb.st_size;
	return bytes;
}

/* Deterministic random numbers. */
static inline uint64_t testing_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* Numbers with spaces between them, cap at most; returns how many. */
static inline size_t testing_parse_ids(const char *line, int32_t *ids, size_t cap)
{
	size_t n = 0;
	char *end;
	for (; n < cap; line = end, n++) {
		long id = strtol(line, &end, 10);
		if (end == line)
			break;
		ids[n] = (int32_t)id;
	}
	return n;
}

#endif
