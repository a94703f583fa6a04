/* fuzz_calib.c - a whole side-car: opened and looked into. First as it is; then with its checksum made right, so that
 * changes reach what lies behind it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "format/calib.h"
#include "format/mzm.h"

#define HASH      "0123456789abcdef0123456789abcdef"
#define DIGITS_AT 64 /* of the checksum: see FORMAT.md */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
	if (!truth)
		__builtin_trap();
}

/* Every number of what is there is finite, aligned, and may be read. */
static void look_into(const mzm_calib *c)
{
	static const struct {
		const char *name;
		int32_t     n_rows, n_cols;
	} known[] = {{"one", 3, 4}, {"one", 4, 3}, {"whole", 1, 12}, {"cats", 22, 1}, {"static", 1, 16}};
	double sum = 0;
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		for (int32_t l = -1; l < 3; l++) {
			int32_t n_rows = known[i].n_rows, n_cols = known[i].n_cols;
			const float *at = mzm_calib_find(c, known[i].name, l, MZM_F32, n_rows, n_cols);
			require((uintptr_t)at % 64 == 0);
			for (int32_t k = 0; at && k < n_rows * n_cols; k++)
				sum += (double)at[k];
		}
	require(sum - sum == 0);
	require(mzm_calib_count(c, "one", 3) <= 3 && json_is_object(mzm_calib_info(c)));
}

static void use(const uint8_t *data, size_t size)
{
	char path[64];
	mzm_err err = {0};
	mzm_calib *c;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	require(fd >= 0);
	if (write(fd, data, size) == (ssize_t)size) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		mzm_status st = mzm_calib_open(&c, path, HASH, &err);
		require(st == err.code && (st == MZM_OK) == (c != NULL) && (st == MZM_OK || err.message[0]));
		if (c)
			look_into(c);
		mzm_calib_close(c);
	}
	close(fd);
}

static void reseal(uint8_t *file, size_t size)
{
	char hex[17];
	memset(file + DIGITS_AT, '0', 16);
	snprintf(hex, sizeof hex, "%016llx", (unsigned long long)mzm_sum64(file, size));
	memcpy(file + DIGITS_AT, hex, 16);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t live = mzm_mem_live();
	use(data, size);
	uint8_t *copy = malloc(size + 1);
	if (copy && size >= DIGITS_AT + 16) {
		memcpy(copy, data, size);
		reseal(copy, size);
		use(copy, size);
	}
	free(copy);
	require(mzm_mem_live() == live);
	return 0;
}
