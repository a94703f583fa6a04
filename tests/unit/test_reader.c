/* test_reader.c - spans of a container as they come from the reader, against the tensors as the source reads them:
 * loaded once and streamed round and round, through few slots and many, with extents of any length, and passes broken
 * off. */
#include "store_rig.h"

#include <errno.h>

#include "base/io.h"
#include "temp_dir.h"

/* A source and its tensors, read whole. */
typedef struct book {
	mzm_source *src;
	char      **tensors; /* [n] */
	int32_t     n;
} book;

static book open_book(const char *file)
{
	book b = {0};
	mzm_err err = {0};
	if (mzm_source_open(&b.src, file, &err) != MZM_OK)
		fail_msg("%s", err.message);
	b.n = mzm_source_n_tensors(b.src);
	b.tensors = calloc((size_t)b.n, sizeof *b.tensors);
	for (int32_t i = 0; i < b.n; i++) {
		mzm_tensor t = mzm_source_tensor(b.src, i);
		b.tensors[i] = malloc(mzm_tensor_bytes(&t));
		assert_int_equal(mzm_source_read(b.src, i, b.tensors[i], NULL), MZM_OK);
	}
	return b;
}

static void close_book(book *b)
{
	for (int32_t i = 0; i < b->n; i++)
		free(b->tensors[i]);
	free(b->tensors);
	mzm_source_close(b->src);
}

static const char *bytes_of(const book *b, const mzm_span *span)
{
	mzm_tensor t = mzm_source_tensor(b->src, span->tensor);
	return b->tensors[span->tensor] + (size_t)span->row0 * mzm_row_bytes(t.dtype, t.n_cols);
}

/* Tensors whose number leaves `rest` when divided by `by`, in spans as slots of that size hold them. -> free */
static mzm_span *cut_spans(const book *b, size_t slot_bytes, int by, int rest, int32_t *n)
{
	mzm_span *spans = NULL;
	*n = 0;
	for (int32_t i = 0; i < b->n; i++) {
		mzm_tensor t = mzm_source_tensor(b->src, i);
		int32_t rows = mzm_span_rows(&t, slot_bytes);
		if (i % by != rest || t.role != MZM_ROLE_MODEL)
			continue;
		for (int32_t row = 0; row < t.n_rows; row += rows) {
			int32_t end = t.n_rows - row < rows ? t.n_rows : row + rows;
			spans = realloc(spans, (size_t)(*n + 1) * sizeof *spans);
			spans[(*n)++] = (mzm_span){i, row, end, (size_t)(end - row) * mzm_row_bytes(t.dtype, t.n_cols),
						   NULL};
		}
	}
	return spans;
}

static mzm_reader *open_reader(const book *b, const mzm_reader_params *p)
{
	mzm_reader *r;
	mzm_err err = {0};
	if (mzm_reader_create(&r, b->src, p, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return r;
}

static void expect_span(mzm_reader *r, const book *b, const mzm_span *spans, int32_t i)
{
	const char *at;
	mzm_err err = {0};
	if (mzm_reader_pin(r, i, &at, &err) != MZM_OK)
		fail_msg("span %d: %s", (int)i, err.message);
	assert_memory_equal(at, bytes_of(b, &spans[i]), spans[i].bytes);
	mzm_reader_unpin(r);
}

static void make_file(const char *quant, int zstd, uint64_t cut)
{
	char whole[300];
	snprintf(whole, sizeof whole, "%s/whole.mzm", dir);
	rig_write(rig_tiny(64, 4096 + 300, 900, cut), whole, quant, "q4", zstd);
	if (cut)
		rig_recut(whole, path, cut);
	else
		rig_copy(whole, path);
}

/* Turns of parameters; slots as small as can be, and larger. */
static mzm_reader_params some_params(const mzm_source *src, int i)
{
	static const int depths[] = {1, 4, 0, 64}, workers[] = {0, 1, 3, 8}, slots[] = {2, 3, 8, 40};
	return (mzm_reader_params){.kind = i % 2 ? MZM_AIO_AUTO : MZM_AIO_THREADS, .depth = depths[i % 4],
				   .n_workers = workers[i / 2 % 4], .n_slots = slots[i / 3 % 4],
				   .slot_bytes = mzm_span_bytes(src) + (size_t)(i % 3) * 100000};
}

/* ---- right bytes ---- */

static void stream_rounds(mzm_reader *r, const book *b, const mzm_span *spans, int32_t n, uint64_t seed)
{
	mzm_err err = {0};
	if (mzm_reader_stream(r, spans, n, false, &err) != MZM_OK)
		fail_msg("%s", err.message);
	for (int pass = 0; pass < 6; pass++) {
		bool broken_off = pass % 3 == 1;
		int32_t end = broken_off ? (int32_t)(testing_random(&seed) % (uint64_t)(n + 1)) : n;
		mzm_reader_begin(r);
		for (int32_t i = 0; i < end; i++)
			expect_span(r, b, spans, i);
	}
}

static void test_streaming(void **state)
{
	(void)state;
	static const char *const quants[] = {"bf16", "f32", "q4", "q8"};
	for (int i = 0; i < (getenv("MIRZAM_SHORT") ? 6 : (int)testing_count(16, 240)); i++) {
		make_file(quants[i % 4], i % 5 < 2 ? 3 : 0, i % 3 ? (uint64_t)i : 0);
		book b = open_book(path);
		mzm_reader_params p = some_params(b.src, i);
		mzm_reader *r = open_reader(&b, &p);
		int32_t n;
		mzm_span *spans = cut_spans(&b, p.slot_bytes, 1 + i % 3, 0, &n);
		stream_rounds(r, &b, spans, n, (uint64_t)i);
		assert_true(mzm_reader_get_stats(r).bytes_read > 0);
		mzm_reader_free(r);
		free(spans);
		close_book(&b);
	}
}

static void *page_alloc(size_t n)
{
	void *p;
	assert_int_equal(posix_memalign(&p, MZM_AIO_ALIGN, n), 0);
	return p;
}

static void load_all(mzm_reader *r, const book *b, int turn)
{
	mzm_span *spans = calloc((size_t)b->n, sizeof *spans);
	int32_t n = 0;
	mzm_err err = {0};
	for (int32_t i = 0; i < b->n; i++) {
		int32_t k = turn % 2 ? i : b->n - 1 - i;
		mzm_tensor t = mzm_source_tensor(b->src, k);
		if (k % (1 + turn % 3) == 0) /* a byte behind each, to see that it stays */
			spans[n++] = (mzm_span){k, 0, t.n_rows, mzm_tensor_bytes(&t),
						page_alloc(mzm_tensor_bytes(&t) + 1)};
	}
	for (int32_t i = 0; i < n; i++)
		((char *)spans[i].dst)[spans[i].bytes] = 77;
	if (mzm_reader_load(r, spans, n, NULL, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	for (int32_t i = 0; i < n; i++) {
		assert_memory_equal(spans[i].dst, bytes_of(b, &spans[i]), spans[i].bytes);
		assert_int_equal(((char *)spans[i].dst)[spans[i].bytes], 77);
		free(spans[i].dst);
	}
	free(spans);
}

static void test_loading(void **state)
{
	(void)state;
	for (int i = 0; i < (getenv("MIRZAM_SHORT") ? 4 : 8); i++) {
		make_file(i % 2 ? "bf16" : "q8", i % 3 ? 3 : 0, i % 4 ? (uint64_t)i : 0);
		book b = open_book(path);
		mzm_reader_params p = some_params(b.src, i);
		mzm_reader *r = open_reader(&b, &p);
		int32_t n;
		mzm_span *spans = cut_spans(&b, p.slot_bytes, 2, 1, &n);
		load_all(r, &b, i);
		load_all(r, &b, i + 1);
		stream_rounds(r, &b, spans, n, (uint64_t)i);
		assert_int_equal(mzm_reader_load(r, NULL, 0, NULL, NULL, NULL), MZM_OK); /* ends the stream */
		stream_rounds(r, &b, spans, n < 3 ? n : 3, 1); /* fewer than slots */
		mzm_reader_free(r);
		free(spans);
		close_book(&b);
	}
}

/* ---- what is planned for it ---- */

static void test_memory_is_as_stated(void **state)
{
	(void)state;
	for (int i = 0; i < 8; i++) {
		make_file("bf16", i % 2 * 3, i % 3 ? (uint64_t)i : 0);
		book b = open_book(path);
		mzm_reader_params p = some_params(b.src, i);
		size_t before = mzm_mem_live();
		mzm_reader *r = open_reader(&b, &p);
		int32_t n;
		mzm_span *spans = cut_spans(&b, p.slot_bytes, 1, 0, &n);
		stream_rounds(r, &b, spans, n, 3);
		/* 64 KiB: the structs of the reader and of the module that reads; the counts of slots */
		assert_true(mzm_mem_live() - before <= mzm_reader_bytes(&p, b.src) + (64 << 10));
		mzm_reader_free(r);
		assert_int_equal(mzm_mem_live(), before);
		free(spans);
		close_book(&b);
	}
}

/* ---- wrong use ---- */

static void expect_refused(mzm_reader *r, mzm_span span)
{
	mzm_err err = {0};
	assert_int_equal(mzm_reader_stream(r, &span, 1, false, &err), MZM_EINTERNAL);
	assert_non_null(strstr(err.message, "span 0"));
}

static void test_wrong_use(void **state)
{
	(void)state;
	make_file("bf16", 0, 0);
	book b = open_book(path);
	mzm_reader_params p = {.n_slots = 2, .slot_bytes = mzm_span_bytes(b.src)};
	mzm_reader *r = open_reader(&b, &p);
	int32_t n;
	mzm_span *spans = cut_spans(&b, p.slot_bytes, 1, 0, &n);
	int32_t big = mzm_tensor_index(mzm_source_config(b.src), MZM_T_UPDOWN, 0);
	size_t row = 64 * sizeof(uint16_t);
	expect_refused(r, (mzm_span){big, 0, 2 * (4096 + 300), 2 * (4096 + 300) * row, NULL}); /* no slot holds it */
	expect_refused(r, (mzm_span){big, 0, 10, 11 * row, NULL});
	expect_refused(r, (mzm_span){big, 10, 10, 0, NULL});
	expect_refused(r, (mzm_span){big, -1, 10, 11 * row, NULL});
	expect_refused(r, (mzm_span){big, 8790, 8800, 10 * row, NULL});
	mzm_span crooked = {big, 0, 10, 10 * row, path + 1};
	assert_int_equal(mzm_reader_load(r, &crooked, 1, NULL, NULL, NULL), MZM_EINTERNAL);
	const char *at;
	mzm_err err = {0};
	stream_rounds(r, &b, spans, n, 1);
	mzm_reader_begin(r);
	assert_int_equal(mzm_reader_pin(r, 1, &at, &err), MZM_EINTERNAL);
	assert_null(at);
	expect_span(r, &b, spans, 0);
	expect_span(r, &b, spans, 1);
	mzm_reader_free(r);
	mzm_reader_free(NULL);
	free(spans);
	close_book(&b);
	tiny_model *m = rig_tiny(32, 100, 270, 1);
	assert_int_equal(mzm_source_open(&b.src, m->dir, NULL), MZM_OK);
	assert_int_equal(mzm_reader_create(&r, b.src, &p, &err), MZM_EUNSUPPORTED);
	mzm_source_close(b.src);
	tiny_free(m);
}

/* ---- faults ---- */

/* A span that is there is handed out though one behind it failed; the next pass begins anew. */
static void test_faults_hit_the_span_they_are_in(void **state)
{
	(void)state;
	make_file("bf16", 3, 0);
	book b = open_book(path);
	mzm_reader_params p = {.n_slots = 3, .slot_bytes = mzm_span_bytes(b.src), .depth = 2};
	mzm_reader *r = open_reader(&b, &p);
	int32_t n;
	mzm_span *spans = cut_spans(&b, p.slot_bytes, 1, 0, &n);
	assert_int_equal(mzm_reader_stream(r, spans, n, false, NULL), MZM_OK);
	for (int round = 0; round < 40; round++) {
		mzm_err err = {0};
		int32_t i = 0;
		mzm_status st = MZM_OK;
		mzm_reader_begin(r);
		mzm_io_fail_nth(1 + round % 13, round % 2 ? EIO : 0);
		for (; i < n; i++) {
			const char *at;
			st = mzm_reader_pin(r, i, &at, &err);
			if (st != MZM_OK)
				break;
			assert_memory_equal(at, bytes_of(&b, &spans[i]), spans[i].bytes);
			mzm_reader_unpin(r);
		}
		mzm_io_fail_nth(0, 0);
		assert_int_equal(st, MZM_EIO); /* n is above what is read ahead */
		assert_non_null(strstr(err.message, path));
		mzm_reader_begin(r);
		for (i = 0; i < n; i++)
			expect_span(r, &b, spans, i);
	}
	mzm_reader_free(r);
	free(spans);
	close_book(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_DIR(test_streaming),
		IN_DIR(test_loading),
		IN_DIR(test_memory_is_as_stated),
		IN_DIR(test_wrong_use),
		IN_DIR(test_faults_hit_the_span_they_are_in),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
