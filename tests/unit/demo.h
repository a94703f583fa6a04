/* demo.h - the shipped demo models and problems, for tests. The working directory is the source tree's root. */
#ifndef DEMO_H
#define DEMO_H

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mirzam.h"

#define DEMO_MODEL      "data/gsmini-6m.mzm"
#define DEMO_MODEL_RELU "data/gsmini-6m-relu.mzm"
#define DEMO_MODEL_DRAFT "data/gsmini-draft.mzm" /* small, with the same tokens */
#define DEMO_MODEL_CLLM "data/gsmini-cllm.mzm" /* trained to guess ahead */
#define DEMO_PROBLEMS   "data/gsmini-test.jsonl"

/* Prompt of the i-th shipped problem, as the reference builds it. -> free; NULL past the end */
static inline char *demo_prompt(int i)
{
	static json_t *lines[1024];
	static int n = -1;
	if (n < 0) {
		FILE *f = fopen(DEMO_PROBLEMS, "r");
		char *line = NULL;
		size_t cap = 0;
		for (n = 0; f && n < 1024 && getline(&line, &cap, f) > 0; n++)
			lines[n] = json_loads(line, 0, NULL);
		free(line);
		if (f)
			fclose(f);
	}
	if (i >= n || !lines[i])
		return NULL;
	const char *q = json_string_value(json_object_get(lines[i], "question"));
	size_t len = strlen(q) + 32;
	char *prompt = malloc(len);
	snprintf(prompt, len, "Question: %s\nAnswer:", q);
	return prompt;
}

#endif
