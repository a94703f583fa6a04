/* problems.c - see problems.h. */
#include "eval/problems.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "eval/util.h"

static mzm_status text_member(char **out, const json_t *object, const char *key, mzm_err *err)
{
	const json_t *value = json_object_get(object, key);
	if (!json_is_string(value))
		return mze_fail(err, MZM_EFORMAT, "\"%s\" %s", key, value ? "is not a string" : "is missing");
	if (json_string_length(value) == 0)
		return mze_fail(err, MZM_EFORMAT, "\"%s\" is empty", key);
	*out = mze_strndup(json_string_value(value), json_string_length(value));
	return *out ? MZM_OK : mze_no_memory(err);
}

mzm_status mze_problem_parse(mze_problem *out, const char *line, size_t len, mzm_err *err)
{
	*out = (mze_problem){0};
	json_error_t why;
	json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, &why); /* without JSON_ALLOW_NUL: no NULs */
	if (!object)
		return mze_fail(err, MZM_EFORMAT, "not JSON: %s (byte %d)", why.text, why.position);
	mzm_status st = MZM_OK;
	if (!json_is_object(object))
		st = mze_fail(err, MZM_EFORMAT, "not a JSON object");
	if (st == MZM_OK)
		st = text_member(&out->question, object, "question", err);
	if (st == MZM_OK)
		st = text_member(&out->answer, object, "answer", err);
	json_decref(object);
	if (st != MZM_OK) {
		free(out->question);
		out->question = NULL;
	}
	return st;
}

static mzm_status append(mze_problems *p, const mze_problem *problem, mzm_err *err)
{
	if (p->n >= MZE_MAX_PROBLEMS)
		return mze_fail(err, MZM_EUNSUPPORTED, "more than %d problems", MZE_MAX_PROBLEMS);
	if (p->n == p->cap) {
		int32_t cap = p->cap ? p->cap * 2 : 64;
		mze_problem *item = realloc(p->item, (size_t)cap * sizeof *item);
		if (!item)
			return mze_no_memory(err);
		p->item = item;
		p->cap = cap;
	}
	p->item[p->n++] = *problem;
	return MZM_OK;
}

static bool is_blank(const mze_buf *line)
{
	return strspn(line->data, " \t\r") == line->len;
}

/* One line of the file, whatever it is. */
static mzm_status take_line(mze_problems *p, const mze_lines *lines, mze_line_kind kind, bool skip_bad, mzm_err *err)
{
	const mze_buf *line = &lines->line;
	mze_problem problem = {0};
	mzm_err why = {0};
	if (kind == MZE_LINE_TOO_LONG) {
		mze_fail(&why, MZM_EFORMAT, "longer than %zu bytes", lines->max_bytes);
	} else {
		bool marked = lines->number == 1 && line->len >= 3 && memcmp(line->data, "\xef\xbb\xbf", 3) == 0;
		size_t from = marked ? 3 : 0;
		if (is_blank(line) || line->len == from)
			return MZM_OK;
		mze_problem_parse(&problem, line->data + from, line->len - from, &why);
	}
	if (why.code == MZM_EFORMAT && skip_bad) {
		if (p->n_skipped < (int32_t)(sizeof p->skipped_line / sizeof p->skipped_line[0]))
			p->skipped_line[p->n_skipped] = (int32_t)lines->number;
		p->n_skipped++;
		return MZM_OK;
	}
	if (why.code != MZM_OK)
		return mze_fail(err, why.code, "line %lld: %s", (long long)lines->number, why.message);
	problem.line = (int32_t)lines->number;
	mzm_status st = append(p, &problem, err);
	if (st != MZM_OK) {
		free(problem.question);
		free(problem.answer);
	}
	return st;
}

static mzm_status read_lines(mze_problems *p, FILE *file, bool skip_bad, mzm_err *err)
{
	mze_lines lines = {.file = file, .max_bytes = MZE_MAX_LINE_BYTES};
	mze_line_kind kind;
	mzm_status st = MZM_OK;
	while (st == MZM_OK && (kind = mze_lines_next(&lines)) != MZE_LINE_END) {
		if (kind == MZE_LINE_ERROR)
			st = mze_fail(err, MZM_EIO, "%s", strerror(errno));
		else if (kind == MZE_LINE_NO_MEMORY)
			st = mze_no_memory(err);
		else if (lines.number >= INT32_MAX)
			st = mze_fail(err, MZM_EUNSUPPORTED, "too many lines");
		else
			st = take_line(p, &lines, kind, skip_bad, err);
	}
	mze_lines_free(&lines);
	return st;
}

static mzm_status hash_file(char hash[33], FILE *file, mzm_err *err)
{
	char block[16384];
	size_t got;
	XXH3_state_t *state = XXH3_createState();
	if (!state)
		return mze_no_memory(err);
	XXH3_128bits_reset(state);
	while ((got = fread(block, 1, sizeof block, file)) > 0)
		XXH3_128bits_update(state, block, got);
	XXH128_hash_t h = XXH3_128bits_digest(state);
	XXH3_freeState(state);
	if (ferror(file))
		return mze_fail(err, MZM_EIO, "%s", strerror(errno));
	snprintf(hash, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
	rewind(file);
	return MZM_OK;
}

mzm_status mze_problems_read(mze_problems *out, const char *path, bool skip_bad, mzm_err *err)
{
	FILE *file;
	*out = (mze_problems){0};
	MZE_TRY(mze_open_regular(&file, path, err));
	mzm_status st = hash_file(out->hash, file, err);
	if (st == MZM_OK)
		st = read_lines(out, file, skip_bad, err);
	if (st == MZM_OK && out->n == 0)
		st = mze_fail(err, MZM_EFORMAT,
			      out->n_skipped ? "no problem in it: every line is broken" : "no problem in it");
	if (st != MZM_OK)
		mze_err_prefix(err, "%s", path);
	fclose(file);
	return st;
}

void mze_problems_free(mze_problems *p)
{
	for (int32_t i = 0; i < p->n; i++) {
		free(p->item[i].question);
		free(p->item[i].answer);
	}
	free(p->item);
	*p = (mze_problems){0};
}
