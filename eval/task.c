/* task.c - see task.h. */
#include "eval/task.h"

#include <stdlib.h>
#include <string.h>

#include "eval/eval.h"
#include "eval/mt19937.h"

static mze_span strict_hashes(const char *text, size_t len, bool *cut)
{
	*cut = false;
	return mze_extract_strict(text, len);
}

static const mze_task tasks[] = {
	{.name = "gsm8k", .version = "3.0", .before_question = "Question: ", .before_answer = "\nAnswer:",
	 .stop = {"Question:", "</s>", "<|im_end|>"}, .n_shots = 5, .draws_shots = true, .strict = strict_hashes},
	{.name = "gsm8k_cot", .version = "3.0", .before_question = "Q: ", .before_answer = "\nA:",
	 .stop = {"Q:", "</s>", "<|im_end|>"}, .n_shots = 8, .strict = mze_extract_cot, .splits_reference = true},
};

const char *mze_task_name(int i)
{
	return i >= 0 && (size_t)i < sizeof tasks / sizeof tasks[0] ? tasks[i].name : NULL;
}

const mze_task *mze_task_find(const char *name)
{
	for (size_t i = 0; i < sizeof tasks / sizeof tasks[0]; i++) {
		if (strcmp(tasks[i].name, name) == 0)
			return &tasks[i];
	}
	return NULL;
}

static void add_question(mze_buf *out, const mze_task *task, const mze_problem *problem)
{
	mze_buf_puts(out, task->before_question);
	mze_buf_puts(out, problem->question);
	mze_buf_puts(out, task->before_answer);
}

void mze_task_prompt(mze_buf *out, const mze_task *task, const mze_problem *problem, const mze_problems *examples,
		     const int32_t *shot, int32_t n_shots)
{
	for (int32_t i = 0; i < n_shots; i++) {
		const mze_problem *example = &examples->item[shot[i]];
		add_question(out, task, example);
		mze_buf_puts(out, " ");
		mze_buf_puts(out, example->answer);
		mze_buf_puts(out, "\n\n");
	}
	add_question(out, task, problem);
}

static bool is_taken(const int32_t *drawn, int32_t n, int32_t x)
{
	for (int32_t i = 0; i < n; i++) {
		if (drawn[i] == x)
			return true;
	}
	return false;
}

void mze_task_draw_shots(int32_t *shot, int32_t n_problems, int32_t n_shots, int32_t n_pool)
{
	mze_mt mt;
	mze_mt_seed(&mt, MZE_SHOT_SEED);
	for (int32_t p = 0; p < n_problems; p++) {
		int32_t *drawn = shot + (size_t)p * (size_t)n_shots;
		for (int32_t i = 0; i < n_shots; i++) {
			do
				drawn[i] = (int32_t)mze_mt_below(&mt, (uint32_t)n_pool);
			while (is_taken(drawn, i, drawn[i]));
		}
	}
}

/* ---- scoring ---- */

/* What follows the last "####", without white space around it. */
static mze_span after_hashes(const char *answer)
{
	const char *start = answer;
	for (const char *at = answer; (at = strstr(at, "####")) != NULL;)
		start = at += 4;
	start += strspn(start, " \t\n\r\v\f");
	size_t len = strlen(start);
	while (len && strchr(" \t\n\r\v\f", start[len - 1]))
		len--;
	return (mze_span){start, len};
}

/* Equal after both were normalised. scratch [a.len + b.len + 1] */
static bool equal_normalised(char *scratch, mze_span a, mze_span b)
{
	if (!a.data)
		return false;
	char *right = scratch + a.len;
	memcpy(scratch, a.data, a.len);
	memcpy(right, b.data, b.len);
	size_t n = mze_normalise(scratch, a.len), m = mze_normalise(right, b.len);
	return n == m && memcmp(scratch, right, n) == 0;
}

mzm_status mze_task_score(mze_score *out, const mze_task *task, const char *text, size_t len, const char *answer,
			  mzm_err *err)
{
	mze_span reference = task->splits_reference ? after_hashes(answer) : (mze_span){answer, strlen(answer)};
	*out = (mze_score){0};
	out->strict = task->strict(text, len, &out->cut);
	out->flexible = mze_extract_flexible(text, len);
	char *scratch = malloc(len + reference.len + 1);
	if (!scratch)
		return mze_no_memory(err);
	out->strict_right = equal_normalised(scratch, out->strict, reference);
	out->flexible_right = equal_normalised(scratch, out->flexible, reference);
	free(scratch);
	return MZM_OK;
}
