/* test_container.c - the .mzm container: what is written is read, and whatever is wrong
 * with a file is noticed, with its place. Offsets of fields are written out here as FORMAT.md has them. */
#include "hf_build.h"

#include <time.h>

#include "base/io.h"
#include "base/mem.h"
#include "format/mzm_write.h"

static char dir[256], path[512];

static int make_dir(void **state)
{
	(void)state;
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/x.mzm", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	testing_remove(dir);
	return 0;
}

/* ---- containers ---- */

/* Writes a container of the model b at a level; returns its bytes (malloc'ed) too. draft: type of its draft image. */
static uint8_t *make_container(hf_build *b, int level, const char *draft, size_t *n)
{
	char src[512];
	mzm_err err = {0};
	snprintf(src, sizeof src, "%s/src", dir);
	testing_remove(src);
	assert_int_equal(mkdir(src, 0700), 0);
	hf_write(b, src);
	hf_free(b);
	mzm_import_params params = mzm_import_params_default();
	params.zstd = level;
	params.draft_quant = draft;
	if (mzm_import(src, path, &params, &err) != MZM_OK)
		fail_msg("%s", err.message);
	testing_remove(src);
	return (uint8_t *)testing_read(path, n);
}

static uint8_t *make_small(int level, size_t *n)
{
	hf_build b;
	hf_init(&b, "BF16", true);
	return make_container(&b, level, NULL, n);
}

/* 18 tensors of the model, 13 of a q4 draft image. */
static uint8_t *make_draft(int level, size_t *n)
{
	hf_build b;
	hf_init_blocks(&b, "BF16", true);
	return make_container(&b, level, "q4", n);
}

static mzm_status verify(mzm_err *err)
{
	char *json = NULL;
	*err = (mzm_err){0};
	mzm_status st = mzm_inspect(path, true, NULL, NULL, &json, err);
	assert_int_equal(st, err->code);
	assert_true((st == MZM_OK) == (json != NULL));
	mzm_string_free(json);
	return st;
}

static void expect(const uint8_t *file, size_t n, mzm_status code, const char *word)
{
	mzm_err err;
	testing_write(path, file, n);
	size_t live = mzm_mem_live();
	mzm_status st = verify(&err);
	if (st != code || (word && !strstr(err.message, word)))
		fail_msg("status %d, wanted %d and \"%s\": %s", st, code, word ? word : "", err.message);
	assert_int_equal(mzm_mem_live(), live);
}

static void put(uint8_t *p, uint64_t v, int n_bytes)
{
	for (int i = 0; i < n_bytes; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get(const uint8_t *p, int n_bytes)
{
	uint64_t v = 0;
	for (int i = n_bytes - 1; i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

/* Makes the checksums of header, metadata and index right again, where these lie inside the file. */
static void reseal(uint8_t *file, size_t n)
{
	uint64_t meta = get(file + 24, 8), meta_n = get(file + 32, 8), index = get(file + 56, 8),
		 index_n = get(file + 64, 8);
	if (meta <= n && meta_n <= n - meta)
		put(file + 48, mzm_sum64(file + meta, (size_t)meta_n), 8);
	if (index <= n && index_n <= n - index)
		put(file + 72, mzm_sum64(file + index, (size_t)index_n), 8);
	put(file + 120, mzm_sum64(file, 120), 8);
}

static void test_header_fields(void **state)
{
	(void)state;
	size_t n;
	uint8_t *file = make_small(-1, &n), *copy = malloc(n + 1);
	static const struct {
		size_t offset;
		int width;
		mzm_status code;
		const char *word;
	} fields[] = {
		{0, 8, MZM_EFORMAT, "not a .mzm"}, {12, 4, MZM_EFORMAT, "header"},
		{16, 8, MZM_EFORMAT, "header"}, {24, 8, MZM_EFORMAT, "header"}, {32, 8, MZM_EFORMAT, "header"},
		{40, 8, MZM_EFORMAT, ""}, {56, 8, MZM_EFORMAT, "header"}, {64, 8, MZM_EFORMAT, "header"},
		{80, 4, MZM_EFORMAT, "header"}, {84, 4, MZM_EFORMAT, "header"}, {88, 4, MZM_EFORMAT, "header"},
		{92, 4, MZM_EFORMAT, "reserved"}, {96, 8, MZM_EFORMAT, "reserved"}, {112, 8, MZM_EFORMAT, "reserved"},
		{128, 8, MZM_EFORMAT, "reserved"}, {4088, 8, MZM_EFORMAT, "reserved"},
	};
	static const uint64_t values[] = {1, 2, 3, 63, 4095, 4097, 0x7fffffff, 0x80000000u, 0xffffffffu,
					  1ull << 40, 1ull << 62, 1ull << 63, UINT64_MAX - 63, UINT64_MAX};
	expect(file, n, MZM_OK, NULL);
	for (size_t f = 0; f < sizeof fields / sizeof fields[0]; f++)
		for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
			if (fields[f].width == 4 && (uint32_t)values[v] != values[v])
				continue;
			memcpy(copy, file, n);
			put(copy + fields[f].offset, values[v], fields[f].width);
			if (memcmp(copy, file, n) == 0)
				continue;
			put(copy + 120, mzm_sum64(copy, 120), 8);
			expect(copy, n, fields[f].code, fields[f].word);
		}
	memcpy(copy, file, n);
	put(copy + 8, 0, 4);
	expect(copy, n, MZM_EFORMAT, "version 0");
	for (size_t v = 0; v < sizeof values / sizeof values[0]; v++)
		if (values[v] > 3 && (uint32_t)values[v] == values[v]) {
			put(copy + 8, values[v], 4);
			expect(copy, n, MZM_EUNSUPPORTED, "is newer than 3");
		}
	put(copy + 8, 7, 4);
	expect(copy, n, MZM_EUNSUPPORTED, "container version 7 is newer than 3");
	put(copy + 8, 2, 4);
	reseal(copy, n);
	expect(copy, n, MZM_EFORMAT, "header: version 2, but what the file holds is of version 1");
	memcpy(copy, file, n);
	copy[n] = 0;
	expect(copy, n + 1, MZM_EFORMAT, "the file should have");
	expect(copy, 0, MZM_EFORMAT, "not a .mzm");
	expect((const uint8_t *)"GGUF\3\0\0\0", 8, MZM_EFORMAT, "the number of tensors does not fit");
	expect((const uint8_t *)"MZMIRZAM", 8, MZM_EFORMAT, "header");
	free(copy);
	free(file);
}

/* Each field of the index entries set to awkward values, checksums made right. */
static void set_index_fields(const uint8_t *file, size_t n, uint64_t want_tensors)
{
	uint8_t *copy = malloc(n);
	static const uint64_t values[] = {0,           1,           2,          7,          0x7fffffff,
					  0x80000000u, 0xffffffffu, 1ull << 32, 1ull << 62, UINT64_MAX};
	uint64_t index = get(file + 56, 8), n_tensors = get(file + 80, 4), n_extents = get(file + 84, 4);
	uint64_t extents = index + 48 * n_tensors;
	assert_true(n_tensors == want_tensors && n_extents >= n_tensors);
	for (uint64_t row = 0; row < n_tensors + n_extents; row++)
		for (int at = 0; at < 48; at += 4)
			for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
				uint64_t entry = row < n_tensors ? index + 48 * row : extents + 48 * (row - n_tensors);
				bool wide = at >= 32 || (row >= n_tensors && at == 0);
				if (!wide && values[v] > 0xffffffffu)
					continue;
				memcpy(copy, file, n);
				put(copy + entry + at, values[v], wide && at % 8 == 0 ? 8 : 4);
				if (memcmp(copy, file, n) == 0)
					continue;
				reseal(copy, n);
				mzm_err err;
				testing_write(path, copy, n);
				mzm_status st = verify(&err);
				if (st == MZM_OK || !strstr(err.message, row < n_tensors && at == 32 ? "tensor" : ""))
					fail_msg("row %d, offset %d, value %llx: accepted", (int)row, at,
						 (unsigned long long)values[v]);
			}
	free(copy);
}

static void test_index_fields(void **state)
{
	(void)state;
	size_t n;
	uint8_t *file = make_draft(-1, &n);
	set_index_fields(file, n, 18 + 13);
	free(file);
	file = make_small(-1, &n);
	set_index_fields(file, n, 18);
	/* messages name tensor and extent */
	uint8_t *copy = malloc(n);
	uint64_t index = get(file + 56, 8), extents = index + 48 * 18;
	memcpy(copy, file, n);
	put(copy + index + 48 * 7 + 16, 5, 4);
	reseal(copy, n);
	expect(copy, n, MZM_EFORMAT, "tensor layers.0.gate: expected shape [6, 8], found [5, 8]");
	memcpy(copy, file, n);
	put(copy + index + 48 * 7 + 12, 1, 4);
	reseal(copy, n);
	expect(copy, n, MZM_EFORMAT, "tensor layers.0.gate: role 1 instead of 0");
	put(copy + index + 48 * 7 + 12, 2, 4);
	reseal(copy, n);
	expect(copy, n, MZM_EUNSUPPORTED, "tensor layers.0.gate: role 2 is not supported");
	memcpy(copy, file, n);
	put(copy + index + 48 * 7 + 8, 4, 4);
	reseal(copy, n);
	expect(copy, n, MZM_EFORMAT, "tensor layers.0.gate: 8 columns are not whole blocks of type q4");
	put(copy + index + 48 * 7 + 8, 5, 4);
	reseal(copy, n);
	expect(copy, n, MZM_EUNSUPPORTED, "tensor layers.0.gate: type 5 is not supported");
	memcpy(copy, file, n);
	put(copy + extents + 28, 3, 4);
	reseal(copy, n);
	expect(copy, n, MZM_EUNSUPPORTED, "tensor embed, extent 0: unknown codec 3");
	free(copy);
	free(file);
}

/* Parts that are whole, but too many, too few or in the wrong place. */
static void test_wrong_places(void **state)
{
	(void)state;
	size_t n;
	uint8_t *file = make_small(-1, &n), *copy = calloc(1, n + 64);
	uint64_t meta = get(file + 24, 8), index = get(file + 56, 8);
	memcpy(copy, file, n); /* an extent more than the tensors need */
	memcpy(copy + n, file + n - 48, 48);
	put(copy + 16, n + 48, 8);
	put(copy + 64, n + 48 - index, 8);
	put(copy + 84, get(file + 84, 4) + 1, 4);
	reseal(copy, n + 48);
	expect(copy, n + 48, MZM_EFORMAT, "index: 1 extents belong to no tensor");
	memset(copy, 0, n + 64); /* 64 bytes in front of the metadata */
	memcpy(copy, file, (size_t)meta);
	memcpy(copy + meta + 64, file + meta, n - (size_t)meta);
	put(copy + 16, n + 64, 8);
	put(copy + 24, meta + 64, 8);
	put(copy + 56, index + 64, 8);
	reseal(copy, n + 64);
	expect(copy, n + 64, MZM_EFORMAT, "index: the metadata does not follow the last extent");
	memcpy(copy, file, n); /* padding that is not zero, checksums notwithstanding */
	copy[meta - 1] = 1;
	expect(copy, n, MZM_EFORMAT, "padding in front of the metadata");
	free(copy);
	free(file);
}

/* Metadata replaced by other text; sizes and checksums right. */
static void with_metadata(const uint8_t *file, size_t n, const char *text, mzm_status code, const char *word)
{
	uint64_t meta = get(file + 24, 8), index = get(file + 56, 8), len = strlen(text),
		 place = (meta + len + 63) & ~63ull;
	uint8_t *copy = calloc(1, (size_t)(place + (n - index)));
	memcpy(copy, file, (size_t)meta);
	memcpy(copy + meta, text, (size_t)len);
	memcpy(copy + place, file + index, (size_t)(n - index));
	put(copy + 16, place + (n - index), 8);
	put(copy + 32, len, 8);
	put(copy + 40, len, 8);
	put(copy + 56, place, 8);
	put(copy + 88, 0, 4);
	reseal(copy, (size_t)(place + (n - index)));
	expect(copy, (size_t)(place + (n - index)), code, word);
	free(copy);
}

static void test_metadata(void **state)
{
	(void)state;
	size_t n;
	uint8_t *file = make_small(0, &n); /* raw metadata */
	uint64_t meta = get(file + 24, 8), len = get(file + 40, 8);
	assert_int_equal(get(file + 88, 4), 0);
	char *text = calloc(1, (size_t)len + 64), *at;
	memcpy(text, file + meta, (size_t)len);
	with_metadata(file, n, text, MZM_OK, NULL);
	with_metadata(file, n, "{}", MZM_EFORMAT, "metadata: config");
	with_metadata(file, n, "[]", MZM_EFORMAT, "metadata: not a JSON object");
	with_metadata(file, n, "{", MZM_EFORMAT, "metadata");
	at = strstr(text, "\"n_layers\":2");
	assert_non_null(at);
	at[11] = '3';
	with_metadata(file, n, text, MZM_EFORMAT, "18 tensors, but this configuration has 26");
	at[11] = '2';
	at = strstr(text, "\"n_ffn\":6");
	at[8] = '7';
	with_metadata(file, n, text, MZM_EFORMAT, "layers.0.gate");
	at[8] = '6';
	at = strstr(text, "\"hash\":\"");
	at[8] = at[8] == 'a' ? 'b' : 'a';
	with_metadata(file, n, text, MZM_EFORMAT, "the model's hash is");
	at[8] = 'x';
	with_metadata(file, n, text, MZM_EFORMAT, "hexadecimal");
	at = strstr(text, "\"tokenizer\":\"");
	memcpy(at, "\"tokenizer\":[ ", 14);
	with_metadata(file, n, text, MZM_EFORMAT, "metadata");
	free(text);
	free(file);
}

/* Every bit of a small container, and bits all over a larger one: noticed, and with its place. */
static void flip_bits(const uint8_t *file, size_t n, uint64_t step)
{
	uint8_t *copy = malloc(n);
	memcpy(copy, file, n);
	FILE *f = fopen(path, "wb");
	assert_int_equal(fwrite(file, 1, n, f), n);
	fclose(f);
	f = fopen(path, "r+b");
	for (uint64_t bit = 0; bit < n * 8; bit += step) {
		mzm_err err;
		uint8_t wrong = (uint8_t)(file[bit / 8] ^ 1 << bit % 8);
		fseek(f, (long)(bit / 8), SEEK_SET);
		fwrite(&wrong, 1, 1, f);
		fflush(f);
		if (verify(&err) == MZM_OK)
			fail_msg("bit %llu of byte %llu: not noticed", (unsigned long long)bit % 8,
				 (unsigned long long)bit / 8);
		if (!strstr(err.message, "header") && !strstr(err.message, "metadata") &&
		    !strstr(err.message, "index") && !strstr(err.message, "tensor") &&
		    !strstr(err.message, "version") && !strstr(err.message, "not a .mzm"))
			fail_msg("no place: %s", err.message);
		fseek(f, (long)(bit / 8), SEEK_SET);
		fwrite(&file[bit / 8], 1, 1, f);
		fflush(f);
	}
	fclose(f);
	free(copy);
}

static void test_bit_flips(void **state)
{
	(void)state;
	size_t n_draft;
	uint8_t *draft = make_draft(-1, &n_draft);
	flip_bits(draft, n_draft, (uint64_t)testing_count(83, 3));
	free(draft);
	for (int level = -1; level <= 0; level++) {
		size_t n;
		uint8_t *file = make_small(level, &n);
		flip_bits(file, n, (uint64_t)testing_count(11, 1)); /* 11: every bit number in turn */
		free(file);
	}
}

static void truncate_all(uint8_t *file, size_t n)
{
	testing_write(path, file, n);
	for (size_t len = n; len-- > 0;) {
		mzm_err err;
		assert_int_equal(truncate(path, (off_t)len), 0);
		mzm_source *src = NULL;
		err = (mzm_err){0};
		if (mzm_source_open(&src, path, &err) == MZM_OK)
			fail_msg("cut to %zu of %zu: accepted", len, n);
		assert_null(src);
		assert_true(err.message[0]);
	}
	free(file);
}

static void test_truncations(void **state)
{
	(void)state;
	size_t n;
	uint8_t *file = make_small(-1, &n);
	truncate_all(file, n);
	file = make_draft(-1, &n);
	truncate_all(file, n);
}

/* Random changes of header, metadata and index, checksums made right: an answer in bounded time and memory. */
static void mutate(uint8_t *file, size_t n, long count)
{
	size_t live = mzm_mem_live();
	uint8_t *copy = malloc(n);
	uint64_t meta = get(file + 24, 8), index = get(file + 56, 8), seed = 11;
	long n_ok = 0;
	for (long i = count; i > 0; i--) {
		memcpy(copy, file, n);
		for (uint64_t k = testing_random(&seed) % 3 + 1; k > 0; k--) {
			uint64_t r = testing_random(&seed), where = r >> 16;
			where = r % 4 == 0   ? where % 96
				: r % 4 == 1 ? meta + where % (index - meta)
					     : index + where % (n - index);
			copy[where] = (uint8_t)(r >> 8 & 1 ? copy[where] ^ 1u << (r >> 9 & 7) : r >> 48);
		}
		reseal(copy, n);
		mzm_err err;
		FILE *f = fopen(path, "r+b");
		assert_int_equal(fwrite(copy, 1, n, f), n);
		fclose(f);
		clock_t start = clock();
		n_ok += verify(&err) == MZM_OK;
		assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 5.0);
		assert_int_equal(mzm_mem_live(), live);
	}
	assert_true(n_ok > 0); /* bits of names and unused members: not every change is an error */
	free(copy);
	free(file);
}

static void test_mutations(void **state)
{
	(void)state;
	size_t n;
	uint8_t *file = make_small(0, &n);
	mutate(file, n, testing_count(5000, 100000));
	file = make_draft(0, &n);
	mutate(file, n, testing_count(3000, 50000));
}

/* ---- the draft image ---- */

/* The file without its last n_less tensors and their extents, everything else right. -> free */
static uint8_t *without_tensors(const uint8_t *file, size_t n, uint64_t n_less, size_t *n_out)
{
	uint64_t meta = get(file + 24, 8), meta_n = get(file + 32, 8), index = get(file + 56, 8);
	uint64_t n_tensors = get(file + 80, 4) - n_less, n_extents = get(file + 84, 4) - n_less;
	const uint8_t *extents = file + index + 48 * (n_tensors + n_less), *last = extents + 48 * (n_extents - 1);
	uint64_t end = get(last, 8) + get(last + 8, 4), new_meta = (end + 63) & ~63ull,
		 new_index = (new_meta + meta_n + 63) & ~63ull, size = new_index + 48 * (n_tensors + n_extents);
	uint8_t *copy = calloc(1, n);
	memcpy(copy, file, (size_t)end);
	memcpy(copy + new_meta, file + meta, (size_t)meta_n);
	memcpy(copy + new_index, file + index, (size_t)(48 * n_tensors));
	memcpy(copy + new_index + 48 * n_tensors, extents, (size_t)(48 * n_extents));
	put(copy + 16, size, 8);
	put(copy + 24, new_meta, 8);
	put(copy + 56, new_index, 8);
	put(copy + 64, size - new_index, 8);
	put(copy + 80, n_tensors, 4);
	put(copy + 84, n_extents, 4);
	reseal(copy, (size_t)size);
	*n_out = (size_t)size;
	return copy;
}

/* One entry of the index changed, checksums made right. */
static void with_entry(const uint8_t *file, size_t n, int tensor, int at, uint64_t value, const char *word)
{
	uint8_t *copy = malloc(n);
	memcpy(copy, file, n);
	put(copy + get(file + 56, 8) + 48 * tensor + at, value, 4);
	reseal(copy, n);
	expect(copy, n, MZM_EFORMAT, word);
	free(copy);
}

static void test_draft_entries(void **state)
{
	(void)state;
	size_t n, m;
	uint8_t *file = make_draft(0, &n), *copy;
	assert_true(get(file + 8, 4) == 2 && get(file + 80, 4) == 31 && get(file + 84, 4) == 31);
	expect(file, n, MZM_OK, NULL);
	for (uint64_t less = 1; less <= 14; less++) {
		copy = without_tensors(file, n, less, &m);
		expect(copy, m, MZM_EFORMAT, less != 13 ? "this configuration has 18, and 31 with a draft image"
						       : "metadata: \"draft\", but there is no draft image");
		free(copy);
	}
	with_entry(file, n, 18, 12, 0, "tensor draft.layers.0.wq: role 0 instead of 1");
	with_entry(file, n, 18, 0, 7, "tensor draft.layers.0.wq: kind 7");
	with_entry(file, n, 19, 4, 1, "tensor draft.layers.0.wk: kind 3 of layer 1");
	with_entry(file, n, 30, 4, 0, "tensor draft.head: kind 10 of layer 0");
	with_entry(file, n, 20, 8, 2, "tensor draft.layers.0.wv: a draft image of type bf16");
	with_entry(file, n, 21, 20, 64, "tensor draft.layers.0.wo: expected shape [64, 32], found [64, 64]");
	with_entry(file, n, 21, 8, 3, "the draft image's hash is"); /* rows of 32 are 64 bytes in either type */
	with_entry(file, n, 18, 8, 3, "tensor draft.layers.0.wq: 2048 raw bytes instead of 4096");
	with_entry(file, n, 31 + 18, 28, 2, "draft.layers.0.wq, extent 0: byte planes of type q4");
	copy = malloc(n);
	memcpy(copy, file, n);
	put(copy + 8, 1, 4);
	reseal(copy, n);
	expect(copy, n, MZM_EFORMAT, "header: version 1, but what the file holds is of version 2");
	free(copy);
	free(file);
}

/* The bytes of the first row of draft.layers.0.wq changed, the extent's checksums made right. */
static void with_byte(const uint8_t *file, size_t n, uint64_t at, uint8_t value, const char *word)
{
	uint8_t *copy = malloc(n), *x = copy + get(file + 56, 8) + 48 * (31 + 18);
	memcpy(copy, file, n);
	uint64_t offset = get(x, 8);
	copy[offset + at] = value;
	put(x + 32, mzm_sum64(copy + offset, get(x + 8, 4)), 8);
	memcpy(x + 40, x + 32, 8);
	reseal(copy, n);
	expect(copy, n, MZM_EFORMAT, word);
	free(copy);
}

static void test_draft_bytes(void **state)
{
	(void)state;
	size_t n;
	uint8_t *file = make_draft(0, &n); /* rows of 64 weights: 32 bytes, scales at 32 and 34, zeros from 36 to 64 */
	with_byte(file, n, 33, 0x7c, "tensor draft.layers.0.wq: 32 weights are NaN or infinite");
	with_byte(file, n, 35, 0xfe, "tensor draft.layers.0.wq: 32 weights are NaN or infinite");
	with_byte(file, n, 36, 1, "tensor draft.layers.0.wq: padding of row 0 is not zero");
	with_byte(file, n, 64 + 63, 0x80, "tensor draft.layers.0.wq: padding of row 1 is not zero");
	uint64_t wq = get(file + get(file + 56, 8) + 48 * (31 + 18), 8);
	with_byte(file, n, 3, (uint8_t)~file[wq + 3], "draft image's hash");
	uint64_t meta = get(file + 24, 8), len = get(file + 40, 8);
	char *text = calloc(1, (size_t)len + 64), *at;
	memcpy(text, file + meta, (size_t)len);
	at = strstr(text, "\"draft\":{");
	assert_non_null(at);
	char *hash = strstr(at, "\"hash\":\"") + 8;
	*hash = *hash == 'a' ? 'b' : 'a';
	with_metadata(file, n, text, MZM_EFORMAT, "the draft image's hash is");
	*hash = 'x';
	with_metadata(file, n, text, MZM_EFORMAT, "hexadecimal");
	memcpy(at, "\"craft\"", 7);
	with_metadata(file, n, text, MZM_EFORMAT, "metadata: \"draft\" is missing");
	free(text);
	free(file);
}

/* A draft image is whole, in order, behind the model; and what was written is read. */
static void test_draft_writer(void **state)
{
	(void)state;
	mzm_config cfg = {.arch = "llama", .n_layers = 1, .dim = 32, .n_ffn = 2, .n_heads = 1, .n_kv_heads = 1,
			  .head_dim = 32, .n_vocab = 3, .n_ctx = 8, .tied = true, .norm_eps = 1e-5f,
			  .rope_theta = 1e4, .bos_id = -1};
	mzm_container_writer *w;
	uint8_t data[32 * 64 * 4] = {0}, back[32 * 64 * 4];
	json_t *meta = json_object();
	int32_t n = mzm_tensor_count(&cfg), n_draft = mzm_draft_count(&cfg);
	assert_int_equal(mzm_container_create(&w, path, &cfg, 0, NULL), MZM_OK);
	for (int32_t i = 0; i < n; i++) {
		mzm_tensor t = mzm_tensor_at(&cfg, i), early = mzm_draft_at(&cfg, 0);
		assert_int_equal(mzm_container_add(w, &early, data, NULL), MZM_EINTERNAL);
		assert_int_equal(mzm_container_add(w, &t, data, NULL), MZM_OK);
	}
	for (int32_t i = 0; i < n_draft; i++) {
		mzm_tensor t = mzm_draft_at(&cfg, i), wrong = mzm_draft_at(&cfg, (i + 1) % n_draft);
		t.dtype = wrong.dtype = i % 2 ? MZM_Q8 : MZM_Q4;
		assert_int_equal(mzm_container_add(w, &wrong, data, NULL), MZM_EINTERNAL);
		if (i > 0)
			assert_int_equal(mzm_container_finish(w, meta, NULL), MZM_EINTERNAL);
		memset(data, i + 1, 16); /* the first row's weights */
		assert_int_equal(mzm_container_add(w, &t, data, NULL), MZM_OK);
	}
	assert_int_equal(mzm_container_add(w, &(mzm_tensor){.role = MZM_ROLE_DRAFT}, data, NULL), MZM_EINTERNAL);
	mzm_err err = {0};
	if (mzm_container_finish(w, meta, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_container_discard(w);
	assert_string_equal(json_string_value(json_object_get(json_object_get(meta, "draft"), "dtype")), "mixed");
	json_decref(meta);
	mzm_source *src;
	assert_int_equal(mzm_source_open(&src, path, &err), MZM_OK);
	assert_true(mzm_source_has_draft(src) && mzm_source_n_tensors(src) == n + n_draft);
	for (int32_t i = 0; i < n_draft; i++) {
		mzm_tensor t = mzm_source_tensor(src, n + i), want = mzm_draft_at(&cfg, i);
		assert_true(t.role == MZM_ROLE_DRAFT && t.kind == want.kind && t.dtype == (i % 2 ? MZM_Q8 : MZM_Q4));
		memset(data, i + 1, 16);
		assert_int_equal(mzm_source_read(src, n + i, back, &err), MZM_OK);
		assert_memory_equal(back, data, mzm_tensor_bytes(&t));
	}
	assert_int_equal(mzm_source_read(src, n + n_draft, back, &err), MZM_EARG);
	mzm_source_close(src);
	assert_int_equal(verify(&err), MZM_OK);
}

/* What the reader demands of a writer: order, completeness. */
static void test_writer_contract(void **state)
{
	(void)state;
	mzm_config cfg = {.arch = "llama",
			  .n_layers = 1,
			  .dim = 4,
			  .n_ffn = 2,
			  .n_heads = 1,
			  .n_kv_heads = 1,
			  .head_dim = 4,
			  .n_vocab = 3,
			  .n_ctx = 8,
			  .tied = true,
			  .norm_eps = 1e-5f,
			  .rope_theta = 1e4,
			  .bos_id = -1};
	mzm_container_writer *w;
	float data[16] = {1, 2, 3};
	json_t *meta = json_object();
	mzm_tensor first = mzm_tensor_at(&cfg, 0), second = mzm_tensor_at(&cfg, 1);
	assert_int_equal(mzm_container_create(&w, path, &cfg, 0, NULL), MZM_OK);
	assert_int_equal(mzm_container_add(w, &second, data, NULL), MZM_EINTERNAL);
	assert_int_equal(mzm_container_add(w, &first, data, NULL), MZM_OK);
	assert_int_equal(mzm_container_add(w, &first, data, NULL), MZM_EINTERNAL);
	assert_int_equal(mzm_container_finish(w, meta, NULL), MZM_EINTERNAL);
	mzm_container_writer *other;
	mzm_err err = {0};
	assert_int_equal(mzm_container_create(&other, path, &cfg, 0, &err), MZM_EIO); /* locked */
	assert_non_null(strstr(err.message, "another process"));
	mzm_container_discard(w);
	assert_int_equal(testing_dir_entries(dir), 0);
	json_decref(meta);
}

/* A layer whose matrices need several extents: sizes, alignment, whole neurons. */
static void test_extents(void **state)
{
	(void)state;
	hf_build b;
	hf_init(&b, "BF16", true);
	b.n_ffn = 5001;
	b.dim = 128;
	b.head_dim = 2;
	b.n_vocab = 3000;
	static const char *const parts[] = {"mlp.gate_proj",
					    "mlp.up_proj",
					    "mlp.down_proj",
					    "input_layernorm",
					    "post_attention_layernorm",
					    "self_attn.q_proj",
					    "self_attn.k_proj",
					    "self_attn.v_proj",
					    "self_attn.o_proj"};
	static const long shapes[][2] = {{5001, 128}, {5001, 128}, {128, 5001}, {128, 0}, {128, 0},
					 {4, 128},    {2, 128},    {2, 128},    {128, 4}};
	hf_remake(&b, "model.embed_tokens.weight", "BF16", 3000, 128);
	hf_remake(&b, "model.norm.weight", "BF16", 128, 0);
	for (int l = 0; l < 2; l++)
		for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
			char name[96];
			snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, parts[i]);
			hf_remake(&b, name, "BF16", shapes[i][0], shapes[i][1]);
		}
	size_t n, n_extents;
	uint8_t *file = make_container(&b, -1, NULL, &n);
	mzm_source *src;
	mzm_err err = {0};
	assert_int_equal(mzm_source_open(&src, path, &err), MZM_OK);
	const mzm_extent *x = mzm_container_extents(src, &n_extents);
	size_t n_updown = 0;
	for (size_t i = 0; i < n_extents; i++) {
		mzm_tensor t = mzm_source_tensor(src, (int32_t)x[i].tensor);
		size_t bytes = mzm_tensor_bytes(&t);
		assert_int_equal(x[i].offset % (x[i].raw_bytes >= 131072 ? 4096 : 64), 0);
		bool last = x[i].row + x[i].n_rows == (uint32_t)t.n_rows;
		assert_true(x[i].raw_bytes <= 3u << 19 && (bytes < 1u << 20 || last || x[i].raw_bytes >= 3u << 18));
		assert_true(last || x[i].raw_bytes % 4096 == 0);
		if (t.kind == MZM_T_UPDOWN) {
			assert_true(x[i].n_rows % 2 == 0 && x[i].row % 2 == 0);
			n_updown++;
		}
	}
	assert_int_equal(n_updown, 2 * 3); /* 2.56 MB each */
	assert_true(mzm_source_bytes_read(src) < n / 2);
	mzm_source_close(src);
	assert_int_equal(verify(&err), MZM_OK);
	uint64_t updown = get(file + 56, 8) + 48 * 8; /* with an extent less than its rows need */
	uint8_t *copy = malloc(n);
	memcpy(copy, file, n);
	put(copy + updown + 28, 2, 4);
	reseal(copy, n);
	expect(copy, n, MZM_EFORMAT, "layers.0.updown: its extents hold");
	testing_write(path, file, n);
	free(copy);
	for (size_t len = n - n % 4096; len > 0; len -= 4096) { /* cut at every page */
		assert_int_equal(truncate(path, (off_t)len), 0);
		if (len != n)
			assert_int_not_equal(verify(&err), MZM_OK);
	}
	testing_write(path, file, n);
	flip_bits(file, n, 1000003);
	free(file);
}

/* Truncated while open: reading says so. */
static void test_changed_while_open(void **state)
{
	(void)state;
	size_t n;
	uint8_t *file = make_small(0, &n), data[8192];
	mzm_source *src;
	mzm_err err = {0};
	assert_int_equal(mzm_source_open(&src, path, &err), MZM_OK);
	assert_int_equal(mzm_source_read(src, 0, data, &err), MZM_OK);
	assert_int_equal(truncate(path, 4200), 0);
	assert_int_equal(mzm_source_read(src, 0, data, &err), MZM_EIO);
	assert_non_null(strstr(err.message, "tensor embed, extent 0"));
	err = (mzm_err){0};
	assert_int_equal(mzm_source_read(src, 99, data, &err), MZM_EARG);
	assert_int_equal(mzm_source_read(src, -1, data, &err), MZM_EARG);
	mzm_source_close(src);
	free(file);
}

typedef struct reader {
	mzm_source *src;
	uint64_t    sum;
	mzm_status  status;
} reader;

static void *read_everything(void *arg)
{
	reader *r = arg;
	static const size_t most = 300 * 8 * 4;
	uint8_t *data = malloc(most);
	for (int round = 0; round < 20 && r->status == MZM_OK; round++)
		for (int32_t i = 0; i < 18 && r->status == MZM_OK; i++) {
			mzm_tensor t = mzm_source_tensor(r->src, i);
			r->status = mzm_source_read(r->src, i, data, NULL);
			r->sum = r->sum * 31 + mzm_sum64(data, mzm_tensor_bytes(&t));
		}
	free(data);
	return NULL;
}

/* Reading may run in any number of threads, from both kinds of source. */
static void test_threads(void **state)
{
	(void)state;
	size_t n;
	char src_dir[300];
	hf_build b;
	free(make_small(-1, &n));
	snprintf(src_dir, sizeof src_dir, "%s/src", dir);
	hf_init(&b, "BF16", true);
	assert_int_equal(mkdir(src_dir, 0700), 0);
	hf_write(&b, src_dir);
	hf_free(&b);
	uint64_t sums[2] = {0};
	for (int form = 0; form < 2; form++) {
		mzm_source *src;
		pthread_t threads[4];
		reader readers[4] = {{0}};
		assert_int_equal(mzm_source_open(&src, form ? path : src_dir, NULL), MZM_OK);
		for (int i = 0; i < 4; i++) {
			readers[i].src = src;
			assert_int_equal(pthread_create(&threads[i], NULL, read_everything, &readers[i]), 0);
		}
		for (int i = 0; i < 4; i++) {
			assert_int_equal(pthread_join(threads[i], NULL), 0);
			assert_int_equal(readers[i].status, MZM_OK);
			assert_true(readers[i].sum == readers[0].sum);
		}
		sums[form] = readers[0].sum;
		mzm_source_close(src);
	}
	assert_true(sums[0] == sums[1]);
}

/* Not files: refused, not waited for. */
static void test_not_files(void **state)
{
	(void)state;
	mzm_source *src;
	mzm_err err = {0};
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(mzm_source_open(&src, path, &err), MZM_EIO);
	err = (mzm_err){0};
	assert_int_equal(mzm_source_open(&src, "/dev/null", &err), MZM_EIO);
	err = (mzm_err){0};
	assert_int_equal(mzm_source_open(&src, dir, &err), MZM_EFORMAT);
	assert_non_null(strstr(err.message, "config.json is missing"));
	err = (mzm_err){0};
	assert_int_equal(mzm_source_open(&src, "/nonexistent/x.mzm", &err), MZM_EIO);
}

int main(void)
{
#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
	const struct CMUnitTest tests[] = {
		IN_DIR(test_header_fields),      IN_DIR(test_index_fields),    IN_DIR(test_wrong_places),
		IN_DIR(test_metadata),           IN_DIR(test_bit_flips),       IN_DIR(test_truncations),
		IN_DIR(test_mutations),          IN_DIR(test_writer_contract), IN_DIR(test_extents),
		IN_DIR(test_changed_while_open), IN_DIR(test_threads),         IN_DIR(test_not_files),
		IN_DIR(test_draft_entries),      IN_DIR(test_draft_bytes),     IN_DIR(test_draft_writer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
