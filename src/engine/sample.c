/* sample.c - see sample.h.
 *
 * Workload: once an import that is to pack where it pays, some 64 MiB: well under a second, most of it packing and the
 * disk. The speed of disks varies with time and place, and what was just written may come faster than a file that
 * has lain there for long: so this decides how a file is stored, and inspect --speed and --plan judge again. */
#include "engine/sample.h"

#include <stdatomic.h>

#include "engine/speed.h"

#define PER_TENSOR (MZM_SAMPLE_BYTES / 4)
#define SECONDS    1.0 /* for reading, at most */

struct mzm_sample {
	mzm_writer    *file;
	mzm_packer    *packer;
	mzm_unpacking  unpacking;
	mzm_file_speed speed;
};

static atomic_uint_least64_t pretended_min, pretended_disk;
static atomic_long           n_begun;

long mzm_sample_pretend(uint64_t min_bytes, uint64_t disk_bytes_per_s)
{
	atomic_store(&pretended_min, min_bytes);
	atomic_store(&pretended_disk, disk_bytes_per_s);
	return atomic_exchange(&n_begun, 0);
}

bool mzm_sample_is_due(uint64_t model_bytes)
{
	uint64_t min = atomic_load(&pretended_min);
	return model_bytes >= (min ? min : MZM_SAMPLE_BYTES);
}

mzm_status mzm_sample_begin(mzm_sample **out, const char *target, mzm_err *err)
{
	mzm_status st;
	mzm_sample *s;
	*out = NULL;
	atomic_fetch_add(&n_begun, 1);
	MZM_TRY(mzm_alloc_for((void **)&s, sizeof *s, "a sample", err));
	MZM_TRY_OUT(mzm_packer_create(&s->packer, err));
	MZM_TRY_OUT(mzm_unpacking_begin(&s->unpacking, err));
	MZM_TRY_OUT(mzm_writer_open(&s->file, target, err));
	*out = s;
	return MZM_OK;
out:
	mzm_sample_end(s);
	return st;
}

void mzm_sample_end(mzm_sample *s)
{
	if (!s)
		return;
	mzm_writer_close(s->file);
	mzm_unpacking_end(&s->unpacking);
	mzm_packer_free(s->packer);
	mzm_free(s);
}

uint64_t mzm_sample_bytes(const mzm_sample *s)
{
	return s->speed.raw_bytes;
}

int32_t mzm_sample_rows(const mzm_sample *s, const mzm_tensor *t)
{
	if (s->speed.raw_bytes >= MZM_SAMPLE_BYTES)
		return 0;
	uint64_t left = MZM_SAMPLE_BYTES - s->speed.raw_bytes, most = left < PER_TENSOR ? left : PER_TENSOR;
	uint64_t row_bytes = mzm_row_bytes(t->dtype, t->n_cols), n = (most + row_bytes - 1) / row_bytes;
	return n < (uint64_t)t->n_rows ? (int32_t)n : t->n_rows;
}

/* An extent as the container would have it, which goes nowhere. */
static mzm_status try_extent(mzm_sample *s, const char *data, size_t n, size_t elem_bytes, mzm_err *err)
{
	mzm_extent x = {.raw_bytes = (uint32_t)n};
	const void *stored;
	size_t n_stored;
	MZM_TRY(mzm_pack(s->packer, &x.codec, &stored, &n_stored, data, n, elem_bytes, -1, err));
	s->speed.raw_bytes += n;
	s->speed.stored_bytes += n_stored;
	if (x.codec == MZM_CODEC_RAW)
		return MZM_OK;
	x.stored_bytes = (uint32_t)n_stored;
	x.stored_sum = mzm_sum64(stored, n_stored);
	x.raw_sum = mzm_sum64(data, n);
	return mzm_unpacking_add(&s->unpacking, &x, stored, elem_bytes, err);
}

mzm_status mzm_sample_add(mzm_sample *s, const mzm_tensor *t, const void *data, mzm_err *err)
{
	size_t row_bytes = mzm_row_bytes(t->dtype, t->n_cols), n = (size_t)t->n_rows * row_bytes;
	size_t step = row_bytes < MZM_EXTENT_TARGET ? MZM_EXTENT_TARGET / row_bytes * row_bytes : row_bytes;
	MZM_TRY(mzm_writer_write_at(s->file, data, n, s->speed.raw_bytes, err)); /* as is: the disk may pack, too */
	for (size_t at = 0; at < n; at += step)
		MZM_TRY(try_extent(s, (const char *)data + at, n - at < step ? n - at : step,
				   mzm_dtype_bytes(t->dtype), err));
	return MZM_OK;
}

mzm_status mzm_sample_judge(mzm_sample *s, mzm_file_speed *out, mzm_err *err)
{
	const char *path = mzm_writer_path(s->file);
	double pretended = (double)atomic_load(&pretended_disk);
	bool direct;
	*out = s->speed;
	MZM_TRY(mzm_writer_sync(s->file, err));
	MZM_TRY(mzm_disk_probe(&out->disk_bytes_per_s, &direct, path, SECONDS, err));
	if (pretended > 0)
		out->disk_bytes_per_s = pretended;
	else if (!direct || out->disk_bytes_per_s <= 0)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: cannot be read past the cache", path);
	mzm_speed_conclude(out, &s->unpacking);
	return MZM_OK;
}
