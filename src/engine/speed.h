/* speed.h - what decides whether packing pays: the disk, the unpacking, and the judgement over the two. Shared by the
 * files of this folder only. */
#ifndef MZM_SPEED_H
#define MZM_SPEED_H

#include "format/mzm.h"

/* As mzm_disk_speed. *direct: the reads went past the cache; else this says little of a file just written. */
mzm_status mzm_disk_probe(double *bytes_per_s, bool *direct, const char *path, double seconds, mzm_err *err);

/* Adds up what packed extents give, and how long checking and unpacking them takes on one thread. */
typedef struct mzm_unpacking {
	mzm_packer *packer;
	char       *raw; /* [MZM_MAX_EXTENT], which no extent exceeds */
	uint64_t    bytes;
	int64_t     ns;
} mzm_unpacking;

mzm_status mzm_unpacking_begin(mzm_unpacking *u, mzm_err *err); /* -> mzm_unpacking_end, also after a failure */
void       mzm_unpacking_end(mzm_unpacking *u);
/* stored [x->stored_bytes], elem_bytes as for mzm_unpack(). EFORMAT: a checksum is wrong. */
mzm_status mzm_unpacking_add(mzm_unpacking *u, const mzm_extent *x, const void *stored, size_t elem_bytes,
			     mzm_err *err);

/* Fills unpack_bytes_per_s, unpack_threads, is_compressed and pays; sizes and disk_bytes_per_s are there already. */
void mzm_speed_conclude(mzm_file_speed *s, const mzm_unpacking *u);
/* The judgement alone. Reading and unpacking overlap while weights stream, so the slower sets the pace: packing pays
 * when its unpacked bytes come faster than raw ones would be read. */
bool mzm_speed_pays(const mzm_file_speed *s);

#endif
