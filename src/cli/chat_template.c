/* chat_template.c - the template of a chat: a file, one of a few that are built in, or the model's own; see chat.h.
 *
 * Those built in are for models that come without one, and write the formats that their makers document. They use what
 * special tokens the model has; to a model without such tokens they are text. */
#include "chat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EACH "{%- for m in messages -%}"
#define DONE "{%- endif -%}{%- endfor -%}"

static const struct builtin {
	const char *name, *stop, *text;
} builtins[] = {
	{"chatml", "<|im_end|>",
	 EACH "{{- '<|im_start|>' ~ m['role'] ~ '\\n' ~ m['content'] ~ '<|im_end|>\\n' -}}{%- endfor -%}"
	      "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"},
	{"llama2", "[INST]",
	 EACH "{%- if m['role'] == 'user' -%}{{- bos_token ~ '[INST] ' -}}"
	 "{%- if loop.index0 == 1 and messages[0]['role'] == 'system' -%}"
	 "{{- '<<SYS>>\\n' ~ messages[0]['content'] ~ '\\n<</SYS>>\\n\\n' -}}{%- endif -%}"
	 "{{- m['content'] ~ ' [/INST]' -}}"
	 "{%- elif m['role'] == 'assistant' -%}{{- ' ' ~ m['content'] ~ ' ' ~ eos_token -}}" DONE},
	{"llama3", "<|eot_id|>",
	 "{{- bos_token -}}" EACH "{{- '<|start_header_id|>' ~ m['role'] ~ '<|end_header_id|>\\n\\n' -}}"
	 "{{- m['content'] | trim ~ '<|eot_id|>' -}}{%- endfor -%}"
	 "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"},
	{"mistral", "[INST]",
	 "{{- bos_token -}}" EACH "{%- if m['role'] == 'user' -%}{{- '[INST] ' -}}"
	 "{%- if loop.index0 == 1 and messages[0]['role'] == 'system' -%}"
	 "{{- messages[0]['content'] ~ '\\n\\n' -}}{%- endif -%}{{- m['content'] ~ ' [/INST]' -}}"
	 "{%- elif m['role'] == 'assistant' -%}{{- ' ' ~ m['content'] ~ eos_token -}}" DONE},
	{"zephyr", "<|user|>",
	 EACH "{{- '<|' ~ m['role'] ~ '|>\\n' ~ m['content'] ~ eos_token ~ '\\n' -}}{%- endfor -%}"
	      "{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"},
	{"plain", "\nQuestion:",
	 EACH "{%- if m['role'] == 'user' -%}{{- 'Question: ' ~ m['content'] ~ '\\nAnswer:' -}}"
	      "{%- elif m['role'] == 'assistant' -%}{{- ' ' ~ m['content'] ~ '\\n\\n' -}}"
	      "{%- else -%}{{- m['content'] ~ '\\n\\n' -}}" DONE},
};

const char *mzm_chat_form_names(void)
{
	return "chatml, llama2, llama3, mistral, zephyr, plain";
}

static mzm_status read_form(mzm_chat_form *form, FILE *f, mzm_err *err)
{
	mzm_cli_bytes text = {0};
	mzm_status st = mzm_cli_read_stream(&text, f, form->name, err);
	mzm_cli_bytes_add(&text, "", 1);
	if (st == MZM_OK && text.failed)
		st = mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for %s", form->name);
	if (st == MZM_OK && strlen(text.data) + 1 != text.n)
		st = mzm_cli_set_err(err, MZM_EFORMAT, "%s: a NUL in the template", form->name);
	form->text = text.data;
	return st;
}

mzm_status mzm_chat_form_find(mzm_chat_form *form, const char *name, mzm_err *err)
{
	*form = (mzm_chat_form){.name = name ? name : "of the model"};
	if (!name)
		return MZM_OK;
	FILE *f = fopen(name, "re");
	int why = errno;
	if (f) {
		mzm_status st = read_form(form, f, err);
		mzm_cli_note_input(name);
		fclose(f);
		return st;
	}
	for (int i = 0; i < MZM_CLI_COUNT(builtins); i++) {
		if (strcmp(builtins[i].name, name) != 0)
			continue;
		form->stop = builtins[i].stop;
		form->text = strdup(builtins[i].text);
		return form->text ? MZM_OK : mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
	}
	if (why != ENOENT)
		return mzm_cli_set_err(err, MZM_EIO, "%s: %s", name, strerror(why));
	return mzm_cli_set_err(err, MZM_EARG, "--template wants a file, or one of %s, not \"%s\"",
			       mzm_chat_form_names(), name);
}
