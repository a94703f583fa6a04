/* task.h - what a task asks, where its answers stop, and how they are read. Versioned: a changed byte
 * of a prompt or of a rule is a new version.
 *
 * gsm8k 3.0 and gsm8k_cot 3.0 are those of EleutherAI/lm-evaluation-harness, zero-shot unless examples
 * are given. gsm8k draws its examples anew for each question, gsm8k_cot takes the first of the file. */
#ifndef MZE_TASK_H
#define MZE_TASK_H

#include "eval/extract.h"
#include "mirzam.h"
#include "eval/problems.h"
#include "eval/util.h"

#define MZE_SHOT_SEED 1234 /* the harness's */
#define MZE_MAX_SHOTS 64
#define MZE_MAX_STOPS (4 + MZM_MAX_EOS)

typedef struct mze_task {
	const char *name, *version;
	const char *before_question, *before_answer; /* "Question: " "\nAnswer:" */
	const char *stop[4];                         /* NULL past the last */
	int32_t     n_shots;                         /* with a few-shot file, unless told otherwise */
	bool        draws_shots;                     /* anew for each question */
	mze_span  (*strict)(const char *text, size_t len, bool *cut);
	bool splits_reference; /* takes what follows the last "####", stripped, before it normalises */
} mze_task;

const mze_task *mze_task_find(const char *name); /* NULL: unknown */

/* Appends examples [n_shots] and the question. */
void mze_task_prompt(mze_buf *out, const mze_task *task, const mze_problem *problem, const mze_problems *examples,
		     const int32_t *shot, int32_t n_shots);

/* The examples of n_problems questions: shot[i * n_shots ..] are distinct indices below n_pool, drawn one
 * question after the other from a Mersenne Twister seeded with MZE_SHOT_SEED, as Python's random does. */
void mze_task_draw_shots(int32_t *shot, int32_t n_problems, int32_t n_shots, int32_t n_pool);

typedef struct mze_score {
	mze_span strict, flexible; /* into the text */
	bool     strict_right, flexible_right;
	bool     cut;              /* see mze_extract_cot */
} mze_score;

mzm_status mze_task_score(mze_score *out, const mze_task *task, const char *text, size_t len, const char *answer,
			  mzm_err *err);

#endif
