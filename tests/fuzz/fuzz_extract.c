/* fuzz_extract.c - answer scanners and scoring on any bytes: what they find lies in the text and is spelt as the
 * patterns say. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "eval/task.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

/* span is in text and is an optional '-' and then characters of set. */
static void check_span(mze_span span, const char *text, size_t len, const char *set)
{
	if (!span.data)
		return;
	check(span.data >= text && span.len > 0 && span.data + span.len <= text + len);
	size_t from = span.data[0] == '-';
	check(span.len > from);
	for (size_t i = from; i < span.len; i++)
		check(span.data[i] && strchr(set, span.data[i]));
}

static void check_scanners(const char *text, size_t len)
{
	bool cut = false;
	mze_span strict = mze_extract_strict(text, len), cot = mze_extract_cot(text, len, &cut);
	check_span(strict, text, len, "0123456789.,");
	check_span(cot, text, len, "0123456789.,");
	check_span(mze_extract_flexible(text, len), text, len, "0123456789.,$");
	check(!strict.data || (strict.data >= text + 5 && memcmp(strict.data - 5, "#### ", 5) == 0));
	check(!cot.data || (cot.data >= text + 14 && memcmp(cot.data - 14, "The answer is ", 14) == 0));
	check(!cut || cot.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *copy = malloc(2 * size + 2), *reference = copy + size + 1; /* a copy: reading past it is seen */
	mze_score score;
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	copy[size] = 0;
	check_scanners(copy, size);
	memcpy(reference, copy, size + 1);
	for (int i = 0; i < 2; i++) {
		const mze_task *task = mze_task_find(i ? "gsm8k_cot" : "gsm8k");
		check(mze_task_score(&score, task, copy, size, reference, NULL) == MZM_OK);
		check(!score.strict_right || score.strict.data);
		check(!score.flexible_right || score.flexible.data);
	}
	size_t n = mze_normalise(reference, size);
	check(n <= size && !memchr(reference, ',', n) && !memchr(reference, '$', n));
	free(copy);
	return 0;
}
