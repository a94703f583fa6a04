/* fuzz_mzm.c - a whole container: opened, described, verified. First as it is; then with the checksums of
 * header, metadata and index made right, so that changes reach the parsers behind them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "format/mzm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
	if (!truth)
		__builtin_trap();
}

static void use(const uint8_t *data, size_t size)
{
	char path[64], *json = NULL;
	mzm_err err = {0};
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	require(fd >= 0);
	if (write(fd, data, size) == (ssize_t)size) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		mzm_status st = mzm_inspect(path, true, NULL, NULL, &json, &err);
		require(st == err.code && (st == MZM_OK) == (json != NULL) && (st == MZM_OK || err.message[0]));
		mzm_string_free(json);
	}
	close(fd);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, 8);
	return v;
}

static void put64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, 8);
}

/* Offsets as in FORMAT.md. */
static void reseal(uint8_t *file, size_t size)
{
	uint64_t meta = get64(file + 24), meta_n = get64(file + 32), index = get64(file + 56),
		 index_n = get64(file + 64);
	put64(file + 16, size);
	if (meta <= size && meta_n <= size - meta)
		put64(file + 48, mzm_sum64(file + meta, (size_t)meta_n));
	if (index <= size && index_n <= size - index)
		put64(file + 72, mzm_sum64(file + index, (size_t)index_n));
	put64(file + 120, mzm_sum64(file, 120));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t live = mzm_mem_live();
	use(data, size);
	uint8_t *copy = malloc(size + 1);
	if (copy && size >= 4096) {
		memcpy(copy, data, size);
		reseal(copy, size);
		use(copy, size);
	}
	free(copy);
	require(mzm_mem_live() == live);
	return 0;
}
