/* gguf_faults.h - everything that opening a GGUF file asks for fails, one thing each time. */
#ifndef GGUF_FAULTS_H
#define GGUF_FAULTS_H

#include "testing.h"

#include "base/io.h"
#include "base/mem.h"
#include "format/source.h"

/* Opens and reads all; true when that went well. */
static inline bool goes_well(const char *file, mzm_err *err)
{
	mzm_source *src;
	mzm_status st = mzm_source_open(&src, file, err);
	for (int32_t i = 0; st == MZM_OK && i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		char *data = malloc(mzm_tensor_bytes(&t));
		st = mzm_source_read(src, i, data, err);
		free(data);
	}
	mzm_source_close(src);
	assert_int_equal(st, err->code);
	return st == MZM_OK;
}

/* Every allocation, then every read of that fails once: it says so, and nothing is left behind. How many there were. */
typedef struct gguf_failures {
	long n_memory, n_reads;
} gguf_failures;

static inline gguf_failures fail_each(const char *file)
{
	size_t live = mzm_mem_live();
	long n_memory = 0, n_reads = 0;
	for (bool done = false; !done; n_memory++) {
		mzm_err err = {0};
		mzm_mem_fail_nth(n_memory + 1);
		bool well = goes_well(file, &err);
		done = mzm_mem_fail_nth(0) <= n_memory;
		assert_int_equal(well, done);
		assert_true(done || err.code == MZM_ENOMEM);
		assert_int_equal(mzm_mem_live(), live);
	}
	for (bool done = false; !done; n_reads++) {
		mzm_err err = {0};
		mzm_io_fail_nth(n_reads + 1, 5);
		bool well = goes_well(file, &err);
		done = mzm_io_fail_nth(0, 0) <= n_reads;
		assert_int_equal(well, done);
		assert_true(done || err.code == MZM_EIO);
		assert_int_equal(mzm_mem_live(), live);
	}
	print_message("%ld allocations, %ld reads\n", n_memory - 1, n_reads - 1);
	return (gguf_failures){n_memory, n_reads};
}

#endif
