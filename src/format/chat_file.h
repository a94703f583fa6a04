/* chat_file.h - a chat template that lies in a file of its own (chat_template.jinja), joined to the text of
 * tokenizer_config.json, so that everything behind knows one place for it and a container carries it along. */
#ifndef MZM_CHAT_FILE_H
#define MZM_CHAT_FILE_H

#include "base/mem.h"

/* Puts the template into the text of the configuration, which may be NULL, as its chat_template, unless it has one.
 * *config is replaced: -> mzm_free. EFORMAT: the configuration is no JSON object, or the template is not UTF-8. */
mzm_status mzm_chat_add_template(char **config, size_t *len, const char *template, size_t n, mzm_err *err);

#endif
