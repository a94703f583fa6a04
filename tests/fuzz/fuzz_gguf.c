/* fuzz_gguf.c - a GGUF file from its first byte: its header, and, where that is a model, every tensor, in its type and
 * in f32, and the tokenizer. Input that begins with "TWO" and the length of the first file (4 bytes) is a model in
 * two. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "format/gguf.h"
#include "format/source.h"

#define MAX_TENSOR ((size_t)16 << 20)
#define MAGIC      "TWO"
#define HEAD       7

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
	if (!truth)
		__builtin_trap();
}

/* ---- files in memory, whose names in a folder are links to them ---- */

static char   dir[64] = "/tmp/fuzz_gguf-XXXXXX", paths[3][128];
static int    fds[2];
static size_t sizes[2];

static void remove_names(void)
{
	for (int i = 0; i < 3; i++)
		unlink(paths[i]);
	rmdir(dir);
}

/* model.gguf is the first file too, under a name that is none of a part. */
static void make_files(void)
{
	static const char *const names[] = {"model.gguf", "model-00001-of-00002.gguf", "model-00002-of-00002.gguf"};
	require(mkdtemp(dir) != NULL);
	atexit(remove_names);
	for (int i = 0; i < 2; i++) {
		fds[i] = memfd_create("gguf", 0);
		require(fds[i] >= 0);
	}
	for (int i = 0; i < 3; i++) {
		char target[64];
		snprintf(target, sizeof target, "/proc/self/fd/%d", fds[i / 2]);
		snprintf(paths[i], sizeof paths[i], "%s/%s", dir, names[i]);
		require(symlink(target, paths[i]) == 0);
	}
}

static void fill(int i, const uint8_t *data, size_t size)
{
	sizes[i] = size;
	require(ftruncate(fds[i], 0) == 0);
	require(size == 0 || pwrite(fds[i], data, size, 0) == (ssize_t)size);
}

/* ---- what must hold ---- */

/* What is accepted lies inside its file; names find what they name. */
static void as_header(const char *path)
{
	mzm_gguf *g;
	mzm_err err = {0};
	mzm_status st = mzm_gguf_open(&g, path, &err);
	require(st == err.code && (st == MZM_OK || err.message[0]));
	for (int32_t i = 0; st == MZM_OK && i < mzm_gguf_n_tensors(g); i++) {
		const mzm_gguf_tensor *t = mzm_gguf_tensor_at(g, i);
		uint8_t byte;
		require(mzm_gguf_find(g, t->name) == t && t->n_dims >= 1 && t->n_dims <= 4);
		require(t->file >= 0 && t->file < mzm_gguf_n_files(g) && mzm_gguf_n_files(g) <= 2);
		require(t->offset <= sizes[t->file] && t->bytes <= sizes[t->file] - t->offset);
		require(t->bytes == 0 || mzm_gguf_read(g, t, t->bytes - 1, 1, &byte, NULL) == MZM_OK);
		require(mzm_gguf_read(g, t, t->bytes, 1, &byte, NULL) != MZM_OK);
	}
	mzm_gguf_close(g);
}

static void read_tensor(mzm_source *src, int32_t i)
{
	mzm_tensor t = mzm_source_tensor(src, i), wide = t;
	wide.dtype = mzm_source_type_for(src, i, MZM_F32);
	if (mzm_tensor_bytes(&t) > MAX_TENSOR || mzm_tensor_bytes(&wide) > MAX_TENSOR)
		return;
	void *rows = mzm_alloc(mzm_tensor_bytes(&t));
	if (rows)
		(void)mzm_source_read(src, i, rows, NULL);
	mzm_free(rows);
	rows = wide.dtype == t.dtype ? NULL : mzm_alloc(mzm_tensor_bytes(&wide));
	if (rows)
		(void)mzm_source_read_as(src, i, wide.dtype, rows, NULL);
	mzm_free(rows);
}

static void as_model(const char *path)
{
	mzm_source *src;
	mzm_tokenizer *tok = NULL;
	mzm_err err = {0};
	mzm_status st = mzm_source_open(&src, path, &err);
	require(st == err.code);
	for (int32_t i = 0; st == MZM_OK && i < mzm_source_n_tensors(src); i++)
		read_tensor(src, i);
	if (st == MZM_OK)
		(void)mzm_source_tokenizer(&tok, src, NULL);
	mzm_tokenizer_close(tok);
	mzm_source_close(src);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t live = mzm_mem_live(), first = size;
	uint32_t said;
	if (fds[0] == 0)
		make_files();
	bool two = size >= HEAD && memcmp(data, MAGIC, 3) == 0;
	if (two) {
		memcpy(&said, data + 3, 4);
		data += HEAD;
		size -= HEAD;
		first = said < size ? said : size;
	}
	fill(0, data, first);
	fill(1, data + first, size - first);
	as_header(paths[two]);
	as_model(paths[two]);
	require(mzm_mem_live() == live);
	return 0;
}
