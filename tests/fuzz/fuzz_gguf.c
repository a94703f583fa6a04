/* fuzz_gguf.c - a GGUF file from its first byte: its header, and, where that is a model, every tensor and
 * the tokenizer. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "format/gguf.h"
#include "format/source.h"

#define MAX_TENSOR ((size_t)16 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
	if (!truth)
		__builtin_trap();
}

/* What is accepted lies inside the file; names find what they name. */
static void as_header(const char *path, size_t size)
{
	mzm_gguf *g;
	mzm_err err = {0};
	mzm_status st = mzm_gguf_open(&g, path, &err);
	require(st == err.code && (st == MZM_OK || err.message[0]));
	for (int32_t i = 0; st == MZM_OK && i < mzm_gguf_n_tensors(g); i++) {
		const mzm_gguf_tensor *t = mzm_gguf_tensor_at(g, i);
		uint8_t byte;
		require(mzm_gguf_find(g, t->name) == t && t->n_dims >= 1 && t->n_dims <= 4);
		require(t->offset <= size && t->bytes <= size - t->offset);
		require(t->bytes == 0 || mzm_gguf_read(g, t, t->bytes - 1, 1, &byte, NULL) == MZM_OK);
		require(mzm_gguf_read(g, t, t->bytes, 1, &byte, NULL) != MZM_OK);
	}
	mzm_gguf_close(g);
}

static void as_model(const char *path)
{
	mzm_source *src;
	mzm_tokenizer *tok = NULL;
	mzm_err err = {0};
	mzm_status st = mzm_source_open(&src, path, &err);
	require(st == err.code);
	for (int32_t i = 0; st == MZM_OK && i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		if (mzm_tensor_bytes(&t) > MAX_TENSOR)
			continue;
		void *rows = mzm_alloc(mzm_tensor_bytes(&t));
		if (rows)
			(void)mzm_source_read(src, i, rows, NULL);
		mzm_free(rows);
	}
	if (st == MZM_OK)
		(void)mzm_source_tokenizer(&tok, src, NULL);
	mzm_tokenizer_close(tok);
	mzm_source_close(src);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];
	size_t live = mzm_mem_live();
	if (fd < 0) {
		fd = memfd_create("gguf", 0);
		require(fd >= 0);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	}
	require(ftruncate(fd, 0) == 0);
	require(size == 0 || pwrite(fd, data, size, 0) == (ssize_t)size);
	as_header(path, size);
	as_model(path);
	require(mzm_mem_live() == live);
	return 0;
}
