/* import_env.h - what the tests of mzm_import share: a folder with a source and a target, imports that must
 * succeed or fail, and the answers of mzm_inspect. */
#ifndef IMPORT_ENV_H
#define IMPORT_ENV_H

#include "hf_build.h"

#include "base/json.h"
#include "base/mem.h"

static char dir[256], src_dir[300], out[300];

static inline int make_dir(void **state)
{
	(void)state;
	testing_temp_dir(dir);
	snprintf(src_dir, sizeof src_dir, "%s/src", dir);
	snprintf(out, sizeof out, "%s/out.mzm", dir);
	return mkdir(src_dir, 0700);
}

static inline int remove_dir(void **state)
{
	(void)state;
	testing_remove(dir);
	return 0;
}

static inline void import_ok(const char *src, const char *target, int zstd, const char *quant)
{
	mzm_err err = {0};
	mzm_import_params params = mzm_import_params_default();
	params.zstd = zstd;
	params.quant = quant;
	if (mzm_import(src, target, &params, &err) != MZM_OK)
		fail_msg("%s", err.message);
}

static inline void import_fails(const char *src, const char *target, const mzm_import_params *params, mzm_status code,
			 const char *word)
{
	mzm_err err = {0};
	size_t live = mzm_mem_live();
	mzm_status st = mzm_import(src, target, params, &err);
	if (st != code || !strstr(err.message, word))
		fail_msg("status %d, wanted %d and \"%s\": %s", st, code, word, err.message);
	assert_int_equal(mzm_mem_live(), live);
}

/* Parsed answer of mzm_inspect. */
static inline json_t *inspect(const char *path, bool verify)
{
	char *json;
	mzm_err err = {0};
	json_t *tree;
	if (mzm_inspect(path, verify, NULL, NULL, &json, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(mzm_json_parse(&tree, json, strlen(json), "inspect", &err), MZM_OK);
	mzm_string_free(json);
	return tree;
}

static inline void hash_of(const char *path, char hash[33])
{
	json_t *tree = inspect(path, true);
	const char *h = json_string_value(json_object_get(tree, "hash"));
	assert_non_null(h);
	assert_int_equal(strlen(h), 32);
	strcpy(hash, h);
	json_decref(tree);
}

static inline void write_tiny(const char *dtype)
{
	hf_build b;
	hf_init(&b, dtype, true);
	b.generation = "{\"eos_token_id\":[3,4]}";
	hf_write(&b, src_dir);
	hf_free(&b);
}

/* One whose rows are whole blocks. */
static inline void write_blocks(const char *dtype, bool tied)
{
	hf_build b;
	hf_init_blocks(&b, dtype, tied);
	hf_write(&b, src_dir);
	hf_free(&b);
}

#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

#endif
