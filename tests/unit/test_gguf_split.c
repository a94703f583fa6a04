/* test_gguf_split.c - a GGUF model in parts: the same as in one file, and every way in which parts can fail to belong
 * together. */
#include "gguf_build.h"
#include "gguf_faults.h"

#include "base/io.h"
#include "base/mem.h"
#include "format/gguf.h"
#include "format/source.h"
#include "mirzam.h"

#define N_PARTS 3

static char dir[256];

static int make_dir(void **state)
{
	(void)state;
	testing_temp_dir(dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	testing_remove(dir);
	return 0;
}

static const char *part_path(int no)
{
	static char paths[N_PARTS + 1][300];
	snprintf(paths[no], sizeof paths[no], "%s/model-%05d-of-%05d.gguf", dir, no + 1, N_PARTS);
	return paths[no];
}

/* A key of 16 bits, as the tools write them. */
static void add_u16(gb *g, const char *key, uint16_t v)
{
	gb_key(g, key, 2);
	gb_add(&g->meta, &v, 2);
}

/* Parts of one model, the first without tensors, as splitting can leave it. Borrow their data from it. */
typedef struct parts {
	gb whole, part[N_PARTS];
} parts;

static void make_parts(parts *p, uint32_t type)
{
	int n_each[N_PARTS] = {0, 8, 100}, at = 0;
	gb_family_model(&p->whole, gb_family_of("llama"), type, 32, 2);
	for (int k = 0; k < N_PARTS; k++) {
		gb *g = &p->part[k];
		*g = (gb){.magic = "GGUF", .version = 3, .alignment = 32};
		if (k == 0) {
			gb_add(&g->meta, p->whole.meta.p, p->whole.meta.n);
			g->n_keys = p->whole.n_keys;
		}
		add_u16(g, "split.no", (uint16_t)k);
		add_u16(g, "split.count", N_PARTS);
		gb_key(g, "split.tensors.count", 5);
		gb_u32(&g->meta, (uint32_t)p->whole.n);
		for (int i = 0; i < n_each[k] && at < p->whole.n; i++)
			g->t[g->n++] = p->whole.t[at++];
	}
}

static void write_part(const gb *g, const char *path)
{
	gb_bytes b = gb_file(g);
	testing_write(path, b.p, b.n);
	free(b.p);
}

static void write_parts(const parts *p)
{
	for (int k = 0; k < N_PARTS; k++)
		write_part(&p->part[k], part_path(k));
}

static void free_parts(parts *p)
{
	gb_free(&p->whole);
	for (int k = 0; k < N_PARTS; k++)
		free(p->part[k].meta.p);
}

static void assert_same_tensors(mzm_source *a, mzm_source *b)
{
	assert_int_equal(mzm_source_n_tensors(a), mzm_source_n_tensors(b));
	for (int32_t i = 0; i < mzm_source_n_tensors(a); i++) {
		mzm_tensor t = mzm_source_tensor(a, i);
		char *x = malloc(mzm_tensor_bytes(&t)), *y = malloc(mzm_tensor_bytes(&t));
		assert_int_equal(mzm_source_read(a, i, x, NULL), MZM_OK);
		assert_int_equal(mzm_source_read(b, i, y, NULL), MZM_OK);
		assert_memory_equal(x, y, mzm_tensor_bytes(&t));
		free(x);
		free(y);
	}
	assert_string_equal(mzm_source_hash(a), mzm_source_hash(b));
}

static void test_same_as_whole(void **state)
{
	(void)state;
	static const uint32_t types[] = {0, 8, 2};
	for (size_t i = 0; i < 3; i++) {
		parts p;
		mzm_source *a = NULL, *b = NULL;
		mzm_err err = {0};
		char whole[300], copy[300];
		json_t *o;
		snprintf(whole, sizeof whole, "%s/whole.gguf", dir);
		make_parts(&p, types[i]);
		write_parts(&p);
		write_part(&p.whole, whole);
		if (mzm_source_open(&a, part_path(0), &err) != MZM_OK || mzm_source_open(&b, whole, &err) != MZM_OK)
			fail_msg("%s", err.message);
		assert_same_tensors(a, b);
		assert_int_equal(mzm_source_describe(a, &o, NULL), MZM_OK);
		json_t *files = json_object_get(o, "files");
		assert_int_equal(json_array_size(files), N_PARTS);
		json_int_t total = 0;
		for (int k = 0; k < N_PARTS; k++) {
			json_t *f = json_array_get(files, (size_t)k);
			assert_string_equal(json_string_value(json_object_get(f, "name")),
					    strrchr(part_path(k), '/') + 1);
			total += json_integer_value(json_object_get(f, "bytes"));
		}
		assert_int_equal(total, json_integer_value(json_object_get(o, "file_bytes")));
		json_decref(o);
		snprintf(copy, sizeof copy, "%s/link.gguf", dir);
		assert_int_equal(symlink(part_path(2), copy), 0);
		assert_true(mzm_source_uses(a, part_path(0)) && mzm_source_uses(a, part_path(1)));
		assert_true(mzm_source_uses(a, copy) && !mzm_source_uses(a, whole));
		assert_true(mzm_source_bytes_read(a) > 0);
		mzm_source_avoid_cache(a);
		unlink(copy);
		mzm_source_close(a);
		mzm_source_close(b);
		free_parts(&p);
	}
}

/* The import of a model onto one of its parts is refused, and leaves it alone. */
static void test_import_onto_part(void **state)
{
	(void)state;
	parts p;
	mzm_err err = {0};
	size_t before, after;
	make_parts(&p, 0);
	write_parts(&p);
	char *x = testing_read(part_path(1), &before);
	assert_int_equal(mzm_import(part_path(0), part_path(1), NULL, &err), MZM_EARG);
	char *y = testing_read(part_path(1), &after);
	assert_int_equal(before, after);
	assert_memory_equal(x, y, before);
	free(x);
	free(y);
	free_parts(&p);
}

static void expect(const char *path, mzm_status code, const char *word)
{
	mzm_source *src;
	mzm_err err = {0};
	size_t live = mzm_mem_live();
	mzm_status st = mzm_source_open(&src, path, &err);
	mzm_source_close(src);
	assert_int_equal(mzm_mem_live(), live);
	if (st != code || !strstr(err.message, word))
		fail_msg("status %d, wanted %d and \"%s\": %s", st, code, word, err.message);
}

/* Writes all parts after the change; opens the first. */
#define BROKEN(code, word, ...)                                                                                        \
	do {                                                                                                           \
		parts p;                                                                                               \
		make_parts(&p, 0);                                                                                     \
		__VA_ARGS__;                                                                                           \
		write_parts(&p);                                                                                       \
		expect(part_path(0), code, word);                                                                      \
		free_parts(&p);                                                                                        \
	} while (0)

/* The number of a part's 16-bit key. */
static void set_u16(gb *g, const char *key, uint16_t v)
{
	uint8_t *at = memmem(g->meta.p, g->meta.n, key, strlen(key));
	assert_non_null(at);
	memcpy(at + strlen(key) + 4, &v, 2);
}

static void test_faults(void **state)
{
	(void)state;
	BROKEN(MZM_OK, "", (void)p);
	BROKEN(MZM_EFORMAT, "model-00002-of-00003.gguf: is part 3 of 3, and should be part 2 of 3",
	       { set_u16(&p.part[1], "split.no", 2); });
	BROKEN(MZM_EFORMAT, "model-00003-of-00003.gguf: is part 2", set_u16(&p.part[2], "split.no", 1));
	BROKEN(MZM_EFORMAT, "model-00002-of-00003.gguf: is part 2 of 4", set_u16(&p.part[1], "split.count", 4));
	BROKEN(MZM_EFORMAT, "model-00003-of-00003.gguf: split.no is missing or no number below 3",
	       set_u16(&p.part[2], "split.no", 3));
	BROKEN(MZM_EFORMAT, "split.count is missing",
	       memcpy(memmem(p.part[0].meta.p, p.part[0].meta.n, "split.count", 11), "other.count", 11));
	BROKEN(MZM_EFORMAT, "model-00003-of-00003.gguf: is part 1 of 1", {
		free(p.part[2].meta.p);
		p.part[2].meta = (gb_bytes){0};
		p.part[2].n_keys = 0;
	});
	BROKEN(MZM_EFORMAT, "split.count is missing or no number from 1", set_u16(&p.part[0], "split.count", 0));
	BROKEN(MZM_EFORMAT, "its name does not end in", set_u16(&p.part[0], "split.count", 4));
	BROKEN(MZM_EFORMAT, "blk.0.attn_k.weight is there twice", p.part[2].t[1] = p.whole.t[3]);
	BROKEN(MZM_EFORMAT, "have 19 tensors, split.tensors.count says 20", p.part[2].n--);
	BROKEN(MZM_EFORMAT, "tensor token_embd.weight is missing", strcpy(p.part[1].t[0].name, "x"));
	BROKEN(MZM_EFORMAT, "end behind the file's end", p.part[2].t[0].shift = 1 << 20);
	BROKEN(MZM_EFORMAT, "model-00002-of-00003.gguf: general.name is not what", {
		gb_string(&p.part[0], "general.name", "one");
		gb_string(&p.part[1], "general.name", "two");
	});
	BROKEN(MZM_EFORMAT, "general.name is not what", gb_string(&p.part[1], "general.name", "two"));
	BROKEN(MZM_OK, "", {
		gb_string(&p.part[0], "general.name", "one");
		gb_string(&p.part[2], "general.name", "one");
		gb_string(&p.part[2], "general.architecture", "llama");
	});
	BROKEN(MZM_EFORMAT, "not a GGUF file", p.part[1].magic[3] = 'Q');
	BROKEN(MZM_EFORMAT, "expected [32, 32]", p.part[1].t[2].dims[1] = 31);
}

/* Lists: of numbers, and of strings. */
static void test_foreign_lists(void **state)
{
	(void)state;
	for (int k = 0; k < 4; k++) /* 0: equal; 1: a string, 2: a number, 3: the length differs */
		BROKEN(k ? MZM_EFORMAT : MZM_OK,
		       k == 0   ? ""
		       : k == 2 ? "numbers is not what"
				: "strings is not what",
		       {
			       for (int i = 0; i < 2; i++) {
				       gb *g = &p.part[i];
				       gb_key(g, "x.strings", 9);
				       gb_u32(&g->meta, 8);
				       gb_u64(&g->meta, k == 3 && i ? 1 : 2);
				       gb_text(&g->meta, "a");
				       if (k != 3 || !i)
					       gb_text(&g->meta, k == 1 && i ? "c" : "b");
				       gb_key(g, "x.numbers", 9);
				       gb_u32(&g->meta, 4);
				       gb_u64(&g->meta, 1);
				       gb_u32(&g->meta, k == 2 && i ? 2 : 1);
			       }
		       });
}

static void test_other_parts(void **state)
{
	(void)state;
	parts p;
	char other[300];
	make_parts(&p, 0);
	write_parts(&p);
	expect(part_path(1), MZM_EFORMAT, "part 2 of 3 of a model; open the first, ");
	expect(part_path(1), MZM_EFORMAT, "model-00001-of-00003.gguf");
	snprintf(other, sizeof other, "%s/second.gguf", dir);
	write_part(&p.part[1], other);
	expect(other, MZM_EFORMAT, "open the first, whose name ends in -00001-of-*.gguf");
	write_part(&p.part[0], other);
	expect(other, MZM_EFORMAT, "its name does not end in -00001-of-00003.gguf");
	unlink(part_path(2));
	expect(part_path(0), MZM_EFORMAT, "model-00003-of-00003.gguf, is missing");
	assert_int_equal(mkdir(part_path(2), 0755), 0);
	expect(part_path(0), MZM_EIO, "model-00003-of-00003.gguf");
	rmdir(part_path(2));
	assert_int_equal(mkfifo(part_path(2), 0644), 0);
	expect(part_path(0), MZM_EIO, "model-00003-of-00003.gguf");
	unlink(part_path(2));
	free_parts(&p);
}

/* Each part cut short everywhere. */
static void test_truncations(void **state)
{
	(void)state;
	parts p;
	make_parts(&p, 8);
	for (int k = 0; k < N_PARTS; k++) {
		write_parts(&p);
		gb_bytes b = gb_file(&p.part[k]);
		for (size_t n = 0; n < b.n; n += n < 2048 ? 1 : 509) {
			mzm_gguf *g;
			mzm_err err = {0};
			testing_write(part_path(k), b.p, n);
			assert_int_equal(mzm_gguf_open(&g, part_path(0), &err), MZM_EFORMAT);
			assert_non_null(strstr(err.message, part_path(k)));
		}
		free(b.p);
	}
	free_parts(&p);
}

static void test_no_memory(void **state)
{
	(void)state;
	parts p;
	make_parts(&p, 8);
	write_parts(&p);
	gguf_failures f = fail_each(part_path(0));
	assert_true(f.n_memory > 10 && f.n_reads > 5);
	free_parts(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_as_whole),
		cmocka_unit_test(test_import_onto_part),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_foreign_lists),
		cmocka_unit_test(test_other_parts),
		cmocka_unit_test(test_truncations),
		cmocka_unit_test(test_no_memory),
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
