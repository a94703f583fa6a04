/* speed.c - how fast a model file is read past the cache and unpacked: whether compression pays on this machine; see
 * speed.h. Workload: a second, when somebody asks. Here finished containers are measured; what a container would be
 * like before it is written is sample.c's. */
#include "engine/speed.h"

#include "base/aio.h"
#include "base/clock.h"
#include "kern/cores.h"

#define PROBE_BYTES ((size_t)4 << 20)
#define PROBE_DEPTH 4

/* Reads on and on until the time is over, or the file; *bytes is what came. */
static mzm_status probe(mzm_aio *aio, char *buffer, uint64_t size, int64_t until, uint64_t *bytes, mzm_err *err)
{
	uint64_t at = 0, tag;
	mzm_status st = MZM_OK;
	for (int i = 0; i < PROBE_DEPTH && st == MZM_OK && at + PROBE_BYTES <= size; i++, at += PROBE_BYTES) {
		mzm_aio_read r = {buffer + (size_t)i * PROBE_BYTES, PROBE_BYTES, PROBE_BYTES, at, (uint64_t)i};
		st = mzm_aio_submit(aio, &r, err);
	}
	while (st == MZM_OK && mzm_aio_pending(aio) > 0) {
		st = mzm_aio_wait(aio, &tag, err);
		*bytes += PROBE_BYTES;
		if (st != MZM_OK || mzm_now_ns() >= until || at + PROBE_BYTES > size)
			continue;
		mzm_aio_read r = {buffer + (size_t)tag * PROBE_BYTES, PROBE_BYTES, PROBE_BYTES, at, tag};
		st = mzm_aio_submit(aio, &r, err);
		at += PROBE_BYTES;
	}
	return st;
}

mzm_status mzm_disk_probe(double *bytes_per_s, bool *direct, const char *path, double seconds, mzm_err *err)
{
	mzm_status st;
	mzm_aio *aio = NULL;
	mzm_file *file = NULL;
	void *block = NULL;
	*bytes_per_s = 0;
	*direct = false;
	MZM_TRY_OUT(mzm_file_open(&file, path, err));
	MZM_TRY_OUT(mzm_alloc_for(&block, PROBE_DEPTH * PROBE_BYTES + MZM_AIO_ALIGN, "measuring the disk", err));
	char *buffer = (char *)(((uintptr_t)block + MZM_AIO_ALIGN - 1) / MZM_AIO_ALIGN * MZM_AIO_ALIGN);
	MZM_TRY_OUT(mzm_aio_open(&aio, path, MZM_AIO_AUTO, PROBE_DEPTH, NULL, 0, err));
	*direct = mzm_aio_is_direct(aio);
	uint64_t bytes = 0;
	int64_t start = mzm_now_ns();
	MZM_TRY_OUT(probe(aio, buffer, mzm_file_size(file), start + (int64_t)(seconds * 1e9), &bytes, err));
	*bytes_per_s = (double)bytes / ((double)(mzm_now_ns() - start) * 1e-9);
out:
	mzm_aio_close(aio);
	mzm_free(block);
	mzm_file_close(file);
	return st;
}

mzm_status mzm_disk_speed(double *bytes_per_s, const char *path, double seconds, mzm_err *err)
{
	bool direct;
	return mzm_disk_probe(bytes_per_s, &direct, path, seconds, err);
}

/* ---- unpacking ---- */

mzm_status mzm_unpacking_begin(mzm_unpacking *u, mzm_err *err)
{
	*u = (mzm_unpacking){0};
	MZM_TRY(mzm_packer_create(&u->packer, err));
	return mzm_alloc_for((void **)&u->raw, MZM_MAX_EXTENT, "an extent", err);
}

void mzm_unpacking_end(mzm_unpacking *u)
{
	mzm_free(u->raw);
	mzm_packer_free(u->packer);
	*u = (mzm_unpacking){0};
}

mzm_status mzm_unpacking_add(mzm_unpacking *u, const mzm_extent *x, const void *stored, size_t elem_bytes,
			     mzm_err *err)
{
	int64_t start = mzm_now_ns();
	bool same = mzm_sum64(stored, x->stored_bytes) == x->stored_sum;
	mzm_status st = mzm_unpack(u->packer, u->raw, x->raw_bytes, elem_bytes, x->codec, stored, x->stored_bytes, err);
	same &= st != MZM_OK || mzm_sum64(u->raw, x->raw_bytes) == x->raw_sum;
	u->ns += mzm_now_ns() - start;
	u->bytes += x->raw_bytes;
	return same || st != MZM_OK ? st : mzm_fail(err, MZM_EFORMAT, "the checksum of an extent is wrong");
}

/* ---- the judgement ---- */

bool mzm_speed_pays(const mzm_file_speed *s)
{
	double as_stored = s->disk_bytes_per_s * (double)s->raw_bytes / (double)s->stored_bytes;
	double unpacked = s->unpack_bytes_per_s * s->unpack_threads;
	return s->is_compressed && (as_stored < unpacked ? as_stored : unpacked) > s->disk_bytes_per_s;
}

void mzm_speed_conclude(mzm_file_speed *s, const mzm_unpacking *u)
{
	int n_cores = mzm_cores_usable("");
	s->unpack_threads = n_cores < MZM_UNPACK_THREADS ? n_cores : MZM_UNPACK_THREADS;
	s->unpack_bytes_per_s = u->ns > 0 ? (double)u->bytes / ((double)u->ns * 1e-9) : 0;
	s->is_compressed = s->unpack_bytes_per_s > 0;
	s->pays = mzm_speed_pays(s);
}

/* ---- a container ---- */

typedef struct measuring {
	mzm_file     *file;
	char         *stored; /* [MZM_MAX_EXTENT] */
	mzm_unpacking unpacking;
} measuring;

static mzm_status unpack_some(measuring *m, mzm_source *src, mzm_file_speed *out, double seconds, mzm_err *err)
{
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		uint32_t n;
		mzm_tensor t = mzm_source_tensor(src, i);
		const mzm_extent *x = mzm_container_tensor(src, i, &n);
		for (uint32_t k = 0; k < n; k++) {
			out->raw_bytes += x[k].raw_bytes;
			out->stored_bytes += x[k].stored_bytes;
			if (x[k].codec == MZM_CODEC_RAW || (double)m->unpacking.ns >= seconds * 1e9)
				continue;
			MZM_TRY(mzm_file_read_at(m->file, m->stored, x[k].stored_bytes, x[k].offset, err));
			MZM_TRY(mzm_unpacking_add(&m->unpacking, &x[k], m->stored, mzm_dtype_bytes(t.dtype), err));
		}
	}
	return MZM_OK;
}

mzm_status mzm_file_measure(mzm_file_speed *out, const char *path, double seconds, mzm_err *err)
{
	mzm_status st;
	mzm_source *src = NULL;
	measuring m = {0};
	*out = (mzm_file_speed){0};
	MZM_TRY_OUT(mzm_source_open(&src, path, err));
	if (!mzm_container_is(src))
		MZM_TRY_OUT(mzm_fail(err, MZM_EUNSUPPORTED, "%s: only a .mzm container has a speed of its own", path));
	MZM_TRY_OUT(mzm_disk_speed(&out->disk_bytes_per_s, path, seconds, err));
	MZM_TRY_OUT(mzm_file_open(&m.file, path, err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&m.stored, MZM_MAX_EXTENT, "an extent", err));
	MZM_TRY_OUT(mzm_unpacking_begin(&m.unpacking, err));
	MZM_TRY_OUT(unpack_some(&m, src, out, seconds, err));
	mzm_speed_conclude(out, &m.unpacking);
out:
	mzm_unpacking_end(&m.unpacking);
	mzm_free(m.stored);
	mzm_file_close(m.file);
	mzm_source_close(src);
	return st;
}
