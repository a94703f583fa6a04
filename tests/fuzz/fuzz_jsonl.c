/* fuzz_jsonl.c - lines of problem files and of results files: any bytes are read or refused. */
#include <stdint.h>
#include <stdlib.h>

#include "eval/item.h"
#include "eval/problems.h"
#include "eval/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void read_line(const char *line, size_t len)
{
	mze_problem problem;
	mze_item item;
	int32_t row, id;
	mzm_err err = {0};
	mzm_status st = mze_problem_parse(&problem, line, len, &err);
	check(st == err.code && (st == MZM_OK) == (problem.question != NULL));
	if (st == MZM_OK) {
		check(problem.question[0] && problem.answer[0]);
		free(problem.question);
		free(problem.answer);
	}
	err = (mzm_err){0};
	st = mze_item_parse(&item, &row, &id, line, len, 300, &err);
	check(st == err.code);
	if (st != MZM_OK)
		return;
	for (int32_t i = 0; i < item.gen.n_tokens; i++)
		check(item.gen.tokens[i] >= 0 && item.gen.tokens[i] < 300);
	for (int32_t i = 0; i < item.n_events; i++)
		check(mze_kind_letter(mze_kind_of(item.kinds[i])) == item.kinds[i]);
	mze_item_free(&item);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FILE *file = size ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;
	if (!file)
		return 0;
	mze_lines lines = {.file = file, .max_bytes = 4096};
	mze_line_kind kind;
	while ((kind = mze_lines_next(&lines)) == MZE_LINE_WHOLE || kind == MZE_LINE_TORN ||
	       kind == MZE_LINE_TOO_LONG) {
		check(lines.line.len <= lines.max_bytes && lines.next <= size && lines.offset < lines.next);
		if (kind != MZE_LINE_TOO_LONG)
			read_line(lines.line.data, lines.line.len);
	}
	check(kind == MZE_LINE_END && lines.next == size);
	mze_lines_free(&lines);
	fclose(file);
	return 0;
}
