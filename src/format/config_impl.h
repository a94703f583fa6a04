/* config_impl.h - reading configurations from JSON: what config.c and config_hf.c share. */
#ifndef MZM_CONFIG_IMPL_H
#define MZM_CONFIG_IMPL_H

#include "format/config.h"

const json_t *mzm_cfg_member(const json_t *obj, const char *key); /* NULL: absent, or null */
mzm_status    mzm_cfg_need_object(const json_t *v, const char *what, mzm_err *err);
bool          mzm_cfg_is_plain(const json_t *v); /* a string of printable ASCII */
mzm_status    mzm_cfg_text(const json_t *obj, const char *key, const char **out, mzm_err *err); /* NULL when absent */
mzm_status    mzm_cfg_need_text(const json_t *obj, const char *key, const char **out, mzm_err *err);
mzm_status    mzm_cfg_need_int(const json_t *obj, const char *key, int64_t min, int64_t max, int32_t *out,
			       mzm_err *err);
mzm_status    mzm_cfg_need_real(const json_t *obj, const char *key, double min, double max, double *out, mzm_err *err);
/* Index of text in names; EUNSUPPORTED naming the key and what was found. */
mzm_status    mzm_cfg_pick(const char *const *names, size_t n, const char *key, const char *text, int *out,
			   mzm_err *err);
/* One id, or a list of them; untouched when absent. c->n_vocab is known. */
mzm_status    mzm_cfg_eos(mzm_config *c, const json_t *obj, const char *key, mzm_err *err);

#endif
