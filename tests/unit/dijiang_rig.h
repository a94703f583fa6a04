/* dijiang_rig.h - the golden models with DiJiang attention, with any context: their directories copied, with other
 * numbers in the configuration. */
#ifndef DIJIANG_RIG_H
#define DIJIANG_RIG_H

#include "testing.h"

#include <jansson.h>

#include "engine/engine.h"
#include "isa.h"

typedef struct dj_dir {
	char path[256];
} dj_dir;

static inline void dj_copy_file(const char *from, const char *to, const char *name)
{
	char path[512];
	size_t n;
	snprintf(path, sizeof path, "%s/%s", from, name);
	char *text = testing_read(path, &n);
	snprintf(path, sizeof path, "%s/%s", to, name);
	testing_write(path, text, n);
	free(text);
}

/* A copy of tests/golden/name with members of its configuration replaced by those of `changes` (null: removed). */
static inline dj_dir dj_copy(const char *name, const char *changes)
{
	dj_dir d;
	char from[256], path[512];
	json_t *more = json_loads(changes, 0, NULL), *value;
	const char *key;
	snprintf(from, sizeof from, "tests/golden/%s", name);
	testing_temp_dir(d.path);
	dj_copy_file(from, d.path, "model.safetensors");
	dj_copy_file(from, d.path, "tokenizer.json");
	snprintf(path, sizeof path, "%s/config.json", from);
	json_t *config = json_load_file(path, 0, NULL);
	assert_non_null(config);
	assert_non_null(more);
	json_object_foreach(more, key, value) {
		if (json_is_null(value))
			json_object_del(config, key);
		else
			json_object_set(config, key, value);
	}
	snprintf(path, sizeof path, "%s/config.json", d.path);
	assert_int_equal(json_dump_file(config, path, 0), 0);
	json_decref(config);
	json_decref(more);
	return d;
}

static inline mzm_model *dj_open(const char *path, const char *isa, const char *store)
{
	mzm_model *m;
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	mp.isa = isa ? isa : isa_exact();
	mp.store = store;
	mp.calib = "off";
	if (mzm_model_open(&m, path, &mp, &err) != MZM_OK)
		fail_msg("%s: %s", path, err.message);
	return m;
}

static inline mzm_session *dj_session(const mzm_model *m, int n_threads)
{
	mzm_session *s;
	mzm_err err = {0};
	mzm_session_params sp = {.n_threads = n_threads, .n_ctx = mzm_model_get_info(m)->n_ctx};
	if (mzm_session_create(&s, m, &sp, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return s;
}

/* The message with which a directory is refused must have the text in it. */
static inline void dj_refused(const char *path, const char *text)
{
	mzm_model *m;
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	mp.calib = "off";
	assert_int_not_equal(mzm_model_open(&m, path, &mp, &err), MZM_OK);
	assert_null(m);
	if (!strstr(err.message, text))
		fail_msg("\"%s\" is not in \"%s\"", text, err.message);
}

#define DJ_LONG    "{\"max_position_embeddings\": 2048}"    /* of models without decay, or whose decay goes on */
#define DJ_LONGEST "{\"max_position_embeddings\": 131072}"

#endif
