/* mzm_write.h - writes a .mzm container: tensors in canonical order, those of a draft image if there is one, then
 * metadata. Memory: one packed extent and the index. Until finish succeeds the target is what it was before. */
#ifndef MZM_MZM_WRITE_H
#define MZM_MZM_WRITE_H

#include "format/mzm.h"

typedef struct mzm_container_writer mzm_container_writer;

/* level: as in mzm_pack(), 0 off, 1..19, -1 where it pays. Locks the target against other writers. */
mzm_status mzm_container_create(mzm_container_writer **out, const char *path, const mzm_config *cfg, int level,
				mzm_err *err);
/* The next tensor: all of the model, then all of the draft image or none; t has the type of data. */
mzm_status mzm_container_add(mzm_container_writer *w, const mzm_tensor *t, const void *data, mzm_err *err);
/* The hashes of what was added; complete after the last tensor of the model, of the draft image. */
void       mzm_container_hash(const mzm_container_writer *w, char hex[33]);
void       mzm_container_draft_hash(const mzm_container_writer *w, char hex[33]);
/* Adds "config", "hash" and "draft" to meta (an object, the caller's), writes it and the index, then commits. */
mzm_status mzm_container_finish(mzm_container_writer *w, json_t *meta, mzm_err *err);
void       mzm_container_discard(mzm_container_writer *w); /* always; drops what was not finished */

#endif
