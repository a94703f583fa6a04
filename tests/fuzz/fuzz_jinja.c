/* fuzz_jinja.c - a hostile template; behind a NUL, its variables as JSON. What is parsed must be rendered, or refused,
 * within its bounds, twice in the same way, and give text that is UTF-8 again; nothing may stay behind. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/jinja.h"
#include "format/tokenizer_utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char fallback[] =
	"{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
	"\"content\": \"<think>a</think> b\"}], \"bos_token\": \"<s>\", \"eos_token\": \"</s>\", "
	"\"add_generation_prompt\": true, \"tools\": null, \"strftime_now\": \"2024-07-06\", "
	"\"l\": [3, 1.5, \"x\"], \"d\": {\"b\": 1, \"a\": [true]}, \"s\": \"a\\u00e9 b\"}";

static void demand(bool ok)
{
	if (!ok)
		abort();
}

static void check_rendering(const mzm_jinja *t, const json_t *variables)
{
	char *text[2];
	size_t len[2];
	mzm_err err[2] = {{0}, {0}};
	mzm_status st[2];
	for (int i = 0; i < 2; i++) {
		st[i] = mzm_jinja_render(t, variables, &text[i], &len[i], &err[i]);
		demand((st[i] == MZM_OK) == (text[i] != NULL) && st[i] == err[i].code);
	}
	demand(st[0] == st[1] && strcmp(err[0].message, err[1].message) == 0);
	if (text[0]) {
		demand(len[0] == len[1] && memcmp(text[0], text[1], len[0]) == 0 && !text[0][len[0]]);
		demand(len[0] <= MZM_JINJA_MAX_BYTES && mzm_utf8_valid(text[0], len[0]) == len[0]);
	}
	mzm_free(text[0]);
	mzm_free(text[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *cut = memchr(data, 0, size);
	size_t len = cut ? (size_t)(cut - data) : size, rest = cut ? size - len - 1 : 0, live = mzm_mem_live();
	json_t *variables = rest ? json_loadb((const char *)cut + 1, rest, JSON_ALLOW_NUL, NULL) : NULL;
	if (!json_is_object(variables)) {
		json_decref(variables);
		variables = json_loads(fallback, 0, NULL);
	}
	mzm_jinja *t;
	mzm_err err = {0};
	if (mzm_jinja_parse(&t, (const char *)data, len, &err) == MZM_OK)
		check_rendering(t, variables);
	else
		demand(!t && err.code != MZM_OK && err.message[0]);
	mzm_jinja_free(t);
	json_decref(variables);
	demand(mzm_mem_live() == live);
	return 0;
}
