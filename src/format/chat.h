/* chat.h - a model's chat template and what it needs of tokenizer_config.json: the special tokens it writes.
 *
 * The variables that a template sees are Hugging Face's: messages (role, content), add_generation_prompt, bos_token,
 * eos_token, unk_token and pad_token where the model has them, tools and documents (both none), and strftime_now where
 * the caller says what time it is: this module never reads the clock, so a rendering depends on its arguments alone.
 * Immutable after creation; renders in any number of threads at once. It knows no token ids: the text that comes out
 * holds special tokens by their contents. */
#ifndef MZM_CHAT_H
#define MZM_CHAT_H

#include <time.h>

#include "base/mem.h"

typedef struct mzm_chat_template mzm_chat_template;

/* config: the text of tokenizer_config.json, or an object made of GGUF metadata with the same keys (bos_token,
 * eos_token, unk_token, pad_token: a string or an object with "content"; chat_template: a string, or a list of
 * {"name", "template"}, of which "default" is taken, else "chat", else the only one); may be NULL. text: a template in
 * place of that of config, e.g. of chat_template.jinja (NUL-terminated); NULL: that of config. EUNSUPPORTED: neither
 * has one, or it uses what the subset lacks; EFORMAT: it is no template. -> mzm_chat_template_free */
mzm_status mzm_chat_template_create(mzm_chat_template **out, const char *config, size_t config_len, const char *text,
				    mzm_err *err);
void       mzm_chat_template_free(mzm_chat_template *t);

/* roles, contents: [n], UTF-8. generate: ends where the answer begins. now: the local time for templates that print a
 * date (tm_year .. tm_sec; the day of the week and of the year are worked out), NULL: they print what they have for
 * that case. EARG: the template refuses the conversation (its raise_exception). *text -> mzm_free; len may be NULL */
mzm_status mzm_chat_template_render(const mzm_chat_template *t, const char *const *roles, const char *const *contents,
				    size_t n, bool generate, const struct tm *now, char **text, size_t *len,
				    mzm_err *err);

/* Whether renderings begin with the BOS token: found out once, by rendering a small conversation. */
bool       mzm_chat_template_writes_bos(const mzm_chat_template *t);

/* The contents of a special token ("bos_token", "eos_token", "unk_token", "pad_token"); NULL where there is none. */
const char *mzm_chat_template_token(const mzm_chat_template *t, const char *key);

#endif
