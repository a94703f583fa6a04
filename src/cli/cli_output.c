/* cli_output.c - byte strings, files that are whole or not there, JSON, checked flushes; see cli.h.
 *
 * Every byte is checked: a full disk is an error at the latest at commit or flush, and a reader that
 * went away (EPIPE on stdout) is a quiet end. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_TRIES = 100, DIGITS = 10 };

static bool pipe_closed;

bool mzm_cli_pipe_closed(void)
{
	return pipe_closed;
}

mzm_status mzm_cli_flush(FILE *f, const char *name, mzm_err *err)
{
	if (!ferror(f)) /* else errno is that of the write that failed: a flush of what is left may succeed */
		errno = 0;
	if (fflush(f) == 0 && !ferror(f))
		return MZM_OK;
	if (errno == EPIPE && f == stdout) {
		pipe_closed = true;
		return mzm_cli_set_err(err, MZM_ECANCELLED, "the reader of the output went away");
	}
	return mzm_cli_set_err(err, MZM_EIO, "%s: %s", name, errno ? strerror(errno) : "writing failed");
}

/* ---- bytes ---- */

void mzm_cli_bytes_add(mzm_cli_bytes *b, const void *data, size_t n)
{
	if (b->failed || n == 0)
		return;
	if (n > b->cap - b->n) {
		size_t cap = b->cap < 256 ? 256 : b->cap;
		while (cap - b->n < n && cap <= SIZE_MAX / 4)
			cap *= 2;
		char *grown = cap - b->n < n ? NULL : realloc(b->data, cap);
		if (!grown) {
			b->failed = true;
			return;
		}
		b->data = grown;
		b->cap = cap;
	}
	memcpy(b->data + b->n, data, n);
	b->n += n;
}

mzm_status mzm_cli_read_stream(mzm_cli_bytes *b, FILE *f, const char *name, mzm_err *err)
{
	char block[1 << 14];
	size_t n;
	errno = 0;
	while (b->n <= MZM_CLI_MAX_TEXT && (n = fread(block, 1, sizeof block, f)) > 0)
		mzm_cli_bytes_add(b, block, n);
	if (ferror(f))
		return mzm_cli_set_err(err, MZM_EIO, "%s: %s", name, errno ? strerror(errno) : "reading failed");
	if (b->n > MZM_CLI_MAX_TEXT)
		return mzm_cli_set_err(err, MZM_EARG, "%s: longer than %zu MiB", name, MZM_CLI_MAX_TEXT >> 20);
	return b->failed ? mzm_cli_set_err(err, MZM_ENOMEM, "%s: out of memory", name) : MZM_OK;
}

/* ---- files ---- */

/* Files that this run reads, the first few: an output must not take the place of one. */
static struct {
	dev_t dev;
	ino_t ino;
} inputs[8];
static int n_inputs;

void mzm_cli_note_input(const char *path)
{
	struct stat sb;
	if (path && n_inputs < (int)MZM_CLI_COUNT(inputs) && stat(path, &sb) == 0 && S_ISREG(sb.st_mode)) {
		inputs[n_inputs].dev = sb.st_dev;
		inputs[n_inputs++].ino = sb.st_ino;
	}
}

mzm_status mzm_cli_check_output(const char *path, mzm_err *err)
{
	struct stat sb;
	if (stat(path, &sb) != 0)
		return MZM_OK;
	for (int i = 0; i < n_inputs; i++) {
		if (inputs[i].dev == sb.st_dev && inputs[i].ino == sb.st_ino)
			return mzm_cli_set_err(err, MZM_EARG, "%s: this run reads it; writing would replace it", path);
	}
	return MZM_OK;
}

static mzm_status cannot(mzm_err *err, const char *path)
{
	return mzm_cli_set_err(err, errno == ENOMEM ? MZM_ENOMEM : MZM_EIO, "%s: %s", path, strerror(errno));
}

static void forget(mzm_cli_file *file)
{
	free(file->path);
	free(file->temp);
	*file = (mzm_cli_file){0};
}

/* A new file beside the target, opened for writing. */
static mzm_status create_temp(mzm_cli_file *file, mzm_err *err)
{
	int fd = -1;
	for (int i = 0; fd < 0 && i < MAX_TRIES; i++) {
		free(file->temp);
		if (asprintf(&file->temp, "%s.%ld-%d.partial", file->path, (long)getpid(), i) < 0) {
			file->temp = NULL;
			return mzm_cli_set_err(err, MZM_ENOMEM, "%s: out of memory", file->path);
		}
		fd = open(file->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (fd < 0 && errno != EEXIST)
			break;
	}
	if (fd >= 0)
		file->f = fdopen(fd, "w");
	if (file->f)
		return MZM_OK;
	mzm_status st = cannot(err, file->path);
	if (fd >= 0) {
		close(fd);
		unlink(file->temp);
	}
	return st;
}

mzm_status mzm_cli_file_create(mzm_cli_file *file, const char *path, mzm_err *err)
{
	struct stat sb;
	mzm_status st = MZM_OK;
	bool exists = stat(path, &sb) == 0;
	*file = (mzm_cli_file){0};
	if (strcmp(path, "-") == 0) {
		file->f = stdout;
		file->path = strdup("standard output");
		return file->path ? MZM_OK : mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
	}
	if (mzm_cli_check_output(path, err) != MZM_OK)
		return MZM_EARG;
	file->path = exists ? realpath(path, NULL) : strdup(path);
	if (!file->path)
		return cannot(err, path);
	if (!exists || S_ISREG(sb.st_mode))
		st = create_temp(file, err);
	else if ((file->f = fopen(path, "we")) == NULL) /* a device or a pipe: nothing to replace */
		st = cannot(err, path);
	if (st != MZM_OK)
		forget(file);
	return st;
}

/* The rename must reach the disk too; where directories cannot be synced, it is left to the system. */
static void sync_folder(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		(void)fsync(fd);
		close(fd);
	}
	free(copy);
}

mzm_status mzm_cli_file_commit(mzm_cli_file *file, mzm_err *err)
{
	mzm_status st = mzm_cli_flush(file->f, file->path, err);
	if (st == MZM_OK && file->temp && fsync(fileno(file->f)) != 0)
		st = cannot(err, file->path);
	if (file->f != stdout && fclose(file->f) != 0 && st == MZM_OK)
		st = cannot(err, file->path);
	file->f = NULL;
	if (st == MZM_OK && file->temp && rename(file->temp, file->path) != 0)
		st = cannot(err, file->path);
	if (st == MZM_OK && file->temp)
		sync_folder(file->path);
	else if (file->temp)
		unlink(file->temp);
	forget(file);
	return st;
}

void mzm_cli_file_abort(mzm_cli_file *file)
{
	if (file->f && file->f != stdout)
		fclose(file->f);
	if (file->temp)
		unlink(file->temp);
	forget(file);
}

mzm_status mzm_cli_file_probe(const char *path, mzm_err *err)
{
	mzm_cli_file file = {0};
	if (!path || strcmp(path, "-") == 0)
		return MZM_OK;
	mzm_status st = mzm_cli_file_create(&file, path, err);
	mzm_cli_file_abort(&file);
	return st;
}

mzm_status mzm_cli_write_file(const char *path, const char *bytes, size_t n, mzm_err *err)
{
	mzm_cli_file file;
	mzm_status st = mzm_cli_file_create(&file, path, err);
	if (st != MZM_OK)
		return st;
	fwrite(bytes, 1, n, file.f); /* a failure is sticky; commit finds it */
	return mzm_cli_file_commit(&file, err);
}

/* ---- JSON ---- */

static bool is_container(const json_t *value)
{
	return json_is_object(value) || json_is_array(value);
}

/* True for what goes on one line: scalars, arrays of scalars, empty objects. */
static bool fits_line(const json_t *value)
{
	size_t i;
	json_t *item;
	if (json_is_object(value))
		return json_object_size(value) == 0;
	json_array_foreach(value, i, item)
		if (is_container(item))
			return false;
	return true;
}

static int dump(FILE *f, const json_t *value)
{
	return json_dumpf(value, f, JSON_ENCODE_ANY | JSON_REAL_PRECISION(DIGITS));
}

static void put_gap(FILE *f, bool first, int depth)
{
	fprintf(f, "%s\n%*s", first ? "" : ",", 2 * depth, "");
}

/* One member a line, but arrays of numbers stay together: token ids would fill the screen. */
static int put_pretty(FILE *f, const json_t *value, int depth)
{
	bool is_object = json_is_object(value), first = true;
	const char *key;
	json_t *item;
	size_t i;
	int bad = 0;
	if (!is_container(value) || fits_line(value))
		return dump(f, value);
	fputc(is_object ? '{' : '[', f);
	if (is_object) {
		json_object_foreach((json_t *)(uintptr_t)value, key, item) {
			put_gap(f, first, depth + 1);
			json_t *quoted = json_string(key);
			bad |= !quoted || dump(f, quoted);
			json_decref(quoted);
			fputs(": ", f);
			bad |= put_pretty(f, item, depth + 1);
			first = false;
		}
	} else {
		json_array_foreach(value, i, item) {
			put_gap(f, i == 0, depth + 1);
			bad |= put_pretty(f, item, depth + 1);
		}
	}
	put_gap(f, true, depth);
	fputc(is_object ? '}' : ']', f);
	return bad;
}

mzm_status mzm_cli_json_write(const json_t *root, const char *path, mzm_err *err)
{
	mzm_cli_file file;
	mzm_status st = mzm_cli_file_create(&file, path ? path : "-", err);
	if (st != MZM_OK)
		return st;
	int bad = !root || put_pretty(file.f, root, 0);
	fputc('\n', file.f);
	if (bad && !ferror(file.f)) {
		mzm_cli_file_abort(&file);
		return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for JSON output");
	}
	return mzm_cli_file_commit(&file, err);
}

mzm_status mzm_cli_json_line(FILE *f, const json_t *value, const char *name, mzm_err *err)
{
	int bad = !value || json_dumpf(value, f, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(DIGITS));
	if (bad && !ferror(f))
		return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for JSON output");
	fputc('\n', f);
	return ferror(f) ? mzm_cli_flush(f, name, err) : MZM_OK;
}

json_t *mzm_cli_json_float(float x)
{
	char text[48];
	for (int digits = 6; digits <= 9; digits++) {
		snprintf(text, sizeof text, "%.*g", digits, (double)x);
		if (strtof(text, NULL) == x)
			break;
	}
	return mzm_cli_json_double(isfinite(x) ? strtod(text, NULL) : (double)NAN);
}

json_t *mzm_cli_json_double(double x)
{
	return isfinite(x) ? json_real(x) : json_null();
}

/* The first n of text as a JSON string, broken bytes replaced. */
static json_t *mend(const char *text, size_t n)
{
	char *clean = malloc(3 * n + 1), *out = clean;
	if (!clean)
		return NULL;
	for (size_t i = 0, len; i < n; i += len) {
		int columns;
		len = mzm_cli_char(text + i, n - i, &columns);
		bool broken = len == 1 && (unsigned char)text[i] >= 0x80;
		memcpy(out, broken ? "\xEF\xBF\xBD" : text + i, broken ? 3 : len);
		out += broken ? 3 : len;
	}
	json_t *value = json_stringn(clean, (size_t)(out - clean));
	free(clean);
	return value;
}

json_t *mzm_cli_json_text(const char *text, size_t n)
{
	json_t *value = json_stringn(text, n); /* refuses what is not UTF-8 */
	return value ? value : mend(text, n);
}
