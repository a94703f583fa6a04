/* skip_set.h - which sub-layers drafts of --draft skip leave out: as text, as a pass wants it, in a side-car.
 *
 * A set is a byte a sub-layer, [2 * n_layers]: attention and FFN of each layer, not 0 where it is left out. Text names
 * layers from 0: "attn:3,4 mlp:1-5"; "none" is the empty set; "auto" stands for that of the side-car. */
#ifndef MZM_SKIP_SET_H
#define MZM_SKIP_SET_H

#include "format/calib.h"

#define MZM_SKIP_AUTO   "auto"
#define MZM_SKIP_NONE   "none"
#define MZM_SKIP_TENSOR "skip" /* of the model, [n_layers, 2] f32: 1 where it is left out, 0 elsewhere */

/* EARG: it is no set, or names a layer that is not there. n_layers 0: not known, and skip NULL; the form alone counts.
 */
mzm_status mzm_skip_parse(uint8_t *skip, int32_t n_layers, const char *text, mzm_err *err);
/* As text that mzm_skip_parse reads, cut where buf[cap] ends; returns buf. */
const char *mzm_skip_print(char *buf, size_t cap, const uint8_t *skip, int32_t n_layers);
/* That of a side-car; false: it has none. c may be NULL. */
bool       mzm_skip_find(uint8_t *skip, const mzm_calib *c, int32_t n_layers);
mzm_status mzm_skip_store(mzm_calib_writer *to, const uint8_t *skip, int32_t n_layers, mzm_err *err);
int32_t    mzm_skip_count(const uint8_t *skip, int32_t n_layers, bool ffn); /* FFNs, or attentions */

#endif
