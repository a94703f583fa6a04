/* fuzz_safetensors.c - a safetensors file from its first byte; input that opens with '{' is taken as the
 * index of shards instead. */
#include "base/mem.h"
#include "format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
	if (!truth)
		__builtin_trap();
}

static void as_index(const uint8_t *data, size_t size)
{
	mzm_st_map map;
	mzm_err err = {0};
	mzm_status st = mzm_st_map_parse(&map, (const char *)data, size, &err);
	require(st == err.code);
	for (size_t i = 0; st == MZM_OK && i < map.n_files; i++)
		require(mzm_name_is_safe(map.files[i]));
	if (st == MZM_OK)
		mzm_st_map_free(&map);
}

/* What is accepted covers the data without hole or overlap. */
static void as_file(const uint8_t *data, size_t size)
{
	mzm_st_header h;
	mzm_err err = {0};
	size_t len;
	if (size < 8 || mzm_st_header_bytes(&len, data, size, &err) != MZM_OK)
		return;
	mzm_status st = mzm_st_header_parse(&h, (const char *)data + 8, len, size - 8 - len, &err);
	require(st == err.code && (st == MZM_OK || err.message[0]));
	if (st != MZM_OK)
		return;
	uint64_t sum = 0;
	for (size_t i = 0; i < h.n; i++) {
		const mzm_st_tensor *t = &h.tensors[i];
		require(t->begin <= t->end && t->end <= size - 8 - len && t->n_dims >= 0 &&
			t->n_dims <= MZM_ST_MAX_DIMS);
		sum += t->end - t->begin;
	}
	require(sum == size - 8 - len);
	mzm_st_header_free(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t live = mzm_mem_live();
	if (size > 0 && data[0] == '{')
		as_index(data, size);
	else
		as_file(data, size);
	require(mzm_mem_live() == live);
	return 0;
}
