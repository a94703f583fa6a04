/* sample.h - whether packing a model will pay, judged before its container is written: some of its weights are written
 * where the container will be, read back past the cache, packed and unpacked. The file is gone afterwards. Shared by
 * the files of this folder only. */
#ifndef MZM_SAMPLE_H
#define MZM_SAMPLE_H

#include "format/mzm.h"

#define MZM_SAMPLE_BYTES ((uint64_t)64 << 20) /* and the smallest model that is sampled: others are held in memory */

typedef struct mzm_sample mzm_sample;

/* False: too small to be worth it. */
bool       mzm_sample_is_due(uint64_t model_bytes);
/* target: the path of the container. Like a container being written, it locks that against other writers.
 * -> mzm_sample_end */
mzm_status mzm_sample_begin(mzm_sample **out, const char *target, mzm_err *err);
void       mzm_sample_end(mzm_sample *s);
/* How many rows of a tensor to add: a share of the sample, so that it is of several tensors; 0: it is large enough. */
int32_t    mzm_sample_rows(const mzm_sample *s, const mzm_tensor *t);
/* data: the t->n_rows rows of it that are added. */
mzm_status mzm_sample_add(mzm_sample *s, const mzm_tensor *t, const void *data, mzm_err *err);
/* So far; of about MZM_SAMPLE_BYTES. */
uint64_t   mzm_sample_bytes(const mzm_sample *s);
/* EUNSUPPORTED: there is no reading past the cache, or too little to read. */
mzm_status mzm_sample_judge(mzm_sample *s, mzm_file_speed *out, mzm_err *err);

/* Test hook: models from so many bytes on are sampled, and disks read so many bytes a second (0, 0: as it is). Returns
 * how many samples were begun since the last change. */
long mzm_sample_pretend(uint64_t min_bytes, uint64_t disk_bytes_per_s);

#endif
