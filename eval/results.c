/* results.c - see results.h. */
#include "eval/results.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "eval/util.h"

struct mze_results {
	char    *path;
	FILE    *reader;     /* a second descriptor; its position is the replay's */
	mze_lines lines;
	int      fd;         /* appends */
	int      n_unsynced;
};

static mzm_status fail_errno(const mze_results *r, mzm_err *err)
{
	return mze_fail(err, MZM_EIO, "%s: %s", r->path, strerror(errno));
}

/* ---- opening ---- */

static mzm_status open_locked(mze_results *r, bool resume, uint64_t *size, mzm_err *err)
{
	struct stat sb;
	r->fd = open(r->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
	if (r->fd < 0 || fstat(r->fd, &sb) != 0)
		return fail_errno(r, err);
	if (!S_ISREG(sb.st_mode))
		return mze_fail(err, MZM_EIO, "%s: not a regular file", r->path);
	if (flock(r->fd, LOCK_EX | LOCK_NB) != 0)
		return mze_fail(err, MZM_EIO, "%s: %s", r->path,
				errno == EWOULDBLOCK ? "another run is writing to it" : strerror(errno));
	if (fstat(r->fd, &sb) != 0) /* again: another run may just have ended */
		return fail_errno(r, err);
	if (sb.st_size > 0 && !resume)
		return mze_fail(err, MZM_EARG, "%s: holds results already; --resume goes on with them", r->path);
	*size = (uint64_t)sb.st_size;
	return MZM_OK;
}

static mzm_status cut(mze_results *r, uint64_t size, mzm_err *err)
{
	return ftruncate(r->fd, (off_t)size) == 0 ? MZM_OK : fail_errno(r, err);
}

/* A torn header is what a run killed at its start leaves; anything else must not be overwritten. */
static bool is_torn_header(const mze_buf *line)
{
	const char *start = "{\"" MZE_RESULTS_KEY "\":";
	size_t n = strlen(start) < line->len ? strlen(start) : line->len;
	return memcmp(line->data, start, n) == 0;
}

static mzm_status read_header(mze_results *r, json_t **stored, mzm_err *err)
{
	json_error_t why;
	mze_line_kind kind = mze_lines_next(&r->lines);
	if (kind == MZE_LINE_ERROR)
		return fail_errno(r, err);
	if (kind == MZE_LINE_NO_MEMORY)
		return mze_no_memory(err);
	if (kind == MZE_LINE_TORN && is_torn_header(&r->lines.line))
		return cut(r, 0, err);
	json_t *header = kind == MZE_LINE_WHOLE
				 ? json_loadb(r->lines.line.data, r->lines.line.len, JSON_REJECT_DUPLICATES, &why)
				 : NULL;
	if (!json_is_object(header) || !json_object_get(header, MZE_RESULTS_KEY)) {
		json_decref(header);
		return mze_fail(err, MZM_EFORMAT, "%s: line 1 is not the header of a results file", r->path);
	}
	*stored = header;
	return MZM_OK;
}

mzm_status mze_results_open(mze_results **out, json_t **stored, const char *path, bool resume, mzm_err *err)
{
	uint64_t size = 0;
	mzm_status st = MZM_OK;
	*out = NULL;
	*stored = NULL;
	mze_results *r = mze_calloc(1, sizeof *r);
	if (!r)
		return mze_no_memory(err);
	r->fd = -1;
	r->path = mze_strndup(path, strlen(path));
	if (!r->path)
		st = mze_no_memory(err);
	if (st == MZM_OK)
		st = open_locked(r, resume, &size, err);
	if (st == MZM_OK)
		st = mze_open_regular(&r->reader, path, err);
	if (st == MZM_OK) {
		r->lines = (mze_lines){.file = r->reader, .max_bytes = MZE_MAX_RESULT_BYTES};
		if (size > 0)
			st = read_header(r, stored, err);
	}
	if (st != MZM_OK) {
		mze_results_close(r);
		return st;
	}
	*out = r;
	return MZM_OK;
}

void mze_results_close(mze_results *r)
{
	if (!r)
		return;
	mze_lines_free(&r->lines);
	if (r->reader)
		fclose(r->reader);
	if (r->fd >= 0)
		close(r->fd); /* and gives the lock back */
	free(r->path);
	free(r);
}

/* ---- comparing headers ---- */

static void print_value(char out[64], const json_t *value)
{
	char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) : NULL;
	snprintf(out, 64, "%s", text ? text : "absent");
	if (text && strlen(text) > 63)
		memcpy(out + 60, "...", 4);
	free(text);
}

static mzm_status differ(const char *place, const json_t *stored, const json_t *now, mzm_err *err)
{
	char left[64], right[64];
	print_value(left, stored);
	print_value(right, now);
	return mze_fail(err, MZM_EFORMAT, "%s: %s in the file, %s now", place, left, right);
}

static mzm_status compare(const char *place, const json_t *stored, const json_t *now, const char *ignored,
			  mzm_err *err);

static mzm_status compare_members(const char *place, const json_t *stored, const json_t *now, const char *ignored,
				  mzm_err *err)
{
	char inner[256];
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)(uintptr_t)now, key, value) {
		snprintf(inner, sizeof inner, "%s%s%s", place, *place ? "." : "", key);
		if (!ignored || strcmp(inner, ignored) != 0)
			MZE_TRY(compare(inner, json_object_get(stored, key), value, ignored, err));
	}
	json_object_foreach((json_t *)(uintptr_t)stored, key, value) {
		snprintf(inner, sizeof inner, "%s%s%s", place, *place ? "." : "", key);
		if (!json_object_get(now, key) && (!ignored || strcmp(inner, ignored) != 0))
			return differ(inner, value, NULL, err);
	}
	return MZM_OK;
}

static mzm_status compare(const char *place, const json_t *stored, const json_t *now, const char *ignored, mzm_err *err)
{
	char inner[256];
	if (json_is_object(stored) && json_is_object(now))
		return compare_members(place, stored, now, ignored, err);
	if (!json_is_array(stored) || !json_is_array(now) || json_array_size(stored) != json_array_size(now))
		return json_equal(stored, now) ? MZM_OK : differ(*place ? place : "header", stored, now, err);
	for (size_t i = 0; i < json_array_size(now); i++) {
		snprintf(inner, sizeof inner, "%s[%zu]", place, i);
		MZE_TRY(compare(inner, json_array_get(stored, i), json_array_get(now, i), ignored, err));
	}
	return MZM_OK;
}

mzm_status mze_results_compare(const json_t *stored, const json_t *now, const char *ignored, mzm_err *err)
{
	return compare("", stored, now, ignored, err);
}

/* ---- reading ---- */

mzm_status mze_results_replay(mze_results *r, mze_line_fn on_line, void *user, mzm_err *err)
{
	mze_line_kind kind = mze_lines_next(&r->lines);
	while (kind != MZE_LINE_END) {
		uint64_t start = r->lines.offset;
		int64_t number = r->lines.number;
		mzm_err why = {0};
		if (kind == MZE_LINE_ERROR)
			return fail_errno(r, err);
		if (kind == MZE_LINE_NO_MEMORY)
			return mze_no_memory(err);
		if (kind == MZE_LINE_TOO_LONG)
			mze_fail(&why, MZM_EFORMAT, "longer than %zu bytes", r->lines.max_bytes);
		else if (kind == MZE_LINE_TORN)
			mze_fail(&why, MZM_EFORMAT, "torn");
		else
			on_line(user, r->lines.line.data, r->lines.line.len, &why);
		kind = mze_lines_next(&r->lines);
		if (why.code == MZM_EFORMAT && kind == MZE_LINE_END)
			return cut(r, start, err);
		if (why.code != MZM_OK)
			return mze_fail(err, why.code, "%s: line %lld: %s", r->path, (long long)number, why.message);
	}
	return MZM_OK;
}

/* ---- writing ---- */

static mzm_status write_all(mze_results *r, const char *bytes, size_t n, mzm_err *err)
{
	while (n > 0) {
		ssize_t put = write(r->fd, bytes, n);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return fail_errno(r, err);
		bytes += put;
		n -= (size_t)put;
	}
	return MZM_OK;
}

mzm_status mze_results_sync(mze_results *r, mzm_err *err)
{
	r->n_unsynced = 0;
	return fsync(r->fd) == 0 ? MZM_OK : fail_errno(r, err);
}

mzm_status mze_results_append(mze_results *r, const char *line, mzm_err *err)
{
	mze_buf whole = {0};
	mze_buf_puts(&whole, line);
	mze_buf_puts(&whole, "\n");
	mzm_status st = whole.failed ? mze_no_memory(err) : write_all(r, whole.data, whole.len, err);
	mze_buf_free(&whole);
	if (st == MZM_OK && ++r->n_unsynced >= MZE_SYNC_LINES)
		st = mze_results_sync(r, err);
	return st;
}

mzm_status mze_results_write_header(mze_results *r, const json_t *header, mzm_err *err)
{
	char *line = json_dumps(header, JSON_COMPACT | JSON_REAL_PRECISION(9)); /* any float is that again */
	if (!line)
		return mze_no_memory(err);
	mzm_status st = mze_results_append(r, line, err);
	free(line);
	return st == MZM_OK ? mze_results_sync(r, err) : st;
}
