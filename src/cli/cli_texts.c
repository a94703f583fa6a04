/* cli_texts.c - the texts of a file, one after the other: of a .jsonl file one a line, else the whole; see cli.h. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* A problem is one text as the demo model was taught them. */
static mzm_status read_line(const char *line, size_t len, mzm_cli_text_fn fn, void *user, mzm_err *err)
{
	char *problem = NULL;
	json_error_t bad;
	json_t *object = json_loadb(line, len, 0, &bad), *whole = json_object_get(object, "text");
	const char *question = json_string_value(json_object_get(object, "question"));
	const char *answer = json_string_value(json_object_get(object, "answer"));
	mzm_status st;
	if (json_is_string(whole))
		st = fn(user, json_string_value(whole), json_string_length(whole), err);
	else if (!question || !answer)
		st = mzm_cli_set_err(err, MZM_EFORMAT,
				     "no JSON object with \"text\", or with \"question\" and \"answer\"");
	else if (asprintf(&problem, "Question: %s\nAnswer: %s", question, answer) < 0)
		st = mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for a problem");
	else
		st = fn(user, problem, strlen(problem), err);
	free(problem);
	json_decref(object);
	return st;
}

static bool is_blank(const char *line, size_t len)
{
	size_t n = 0;
	while (n < len && strchr(" \t\r", line[n]))
		n++;
	return n == len;
}

static mzm_status read_lines(const char *data, const char *end, const char *path, mzm_cli_text_fn fn, void *user,
			     mzm_err *err)
{
	mzm_status st = MZM_OK;
	for (size_t number = 1; data < end && st == MZM_OK; number++) {
		mzm_err why = {0};
		const char *stop = memchr(data, '\n', (size_t)(end - data));
		size_t len = (size_t)((stop ? stop : end) - data);
		if (!is_blank(data, len))
			st = read_line(data, len, fn, user, &why);
		if (st != MZM_OK)
			return mzm_cli_set_err(err, st, "%s:%zu: %s", path, number, why.message);
		data += len + 1;
	}
	return st;
}

static bool is_jsonl(const char *path)
{
	size_t n = strlen(path);
	return n >= 6 && strcmp(path + n - 6, ".jsonl") == 0;
}

mzm_status mzm_cli_read_texts(const char *path, mzm_cli_text_fn fn, void *user, mzm_err *err)
{
	mzm_cli_bytes bytes = {0};
	FILE *f = fopen(path, "rb");
	if (!f)
		return mzm_cli_set_err(err, MZM_EIO, "%s: %m", path);
	mzm_status st = mzm_cli_read_stream(&bytes, f, path, err);
	fclose(f);
	const char *data = bytes.data ? bytes.data : "";
	if (st == MZM_OK)
		st = is_jsonl(path) ? read_lines(data, data + bytes.n, path, fn, user, err)
				    : fn(user, data, bytes.n, err);
	free(bytes.data);
	return st;
}
