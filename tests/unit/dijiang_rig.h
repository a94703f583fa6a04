/* dijiang_rig.h - the golden models with DiJiang attention, with any context: their directories copied, with other
 * numbers in the configuration. */
#ifndef DIJIANG_RIG_H
#define DIJIANG_RIG_H

#include "testing.h"

#include <jansson.h>

#include "base/half.h"
#include "engine/engine.h"
#include "isa.h"

enum { DJ_VOCAB = 64 };

#define DJ_LONG    "{\"max_position_embeddings\": 2048}"    /* of models without decay, or whose decay goes on */
#define DJ_LONGEST "{\"max_position_embeddings\": 131072}"
#define DJ_SUMS    "{\"max_position_embeddings\": 2048, \"dijiang_denominator\": false}"

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

/* Reads or overwrites the i-th element of a tensor, f32 or bf16, of a directory. */
static inline void dj_move(const char *path, const char *tensor, size_t i, float *value, bool writes)
{
	char file[512];
	size_t n;
	uint64_t len;
	snprintf(file, sizeof file, "%s/model.safetensors", path);
	char *bytes = testing_read(file, &n);
	memcpy(&len, bytes, 8);
	json_t *header = json_loadb(bytes + 8, (size_t)len, 0, NULL);
	const json_t *of = json_object_get(header, tensor), *span = json_object_get(of, "data_offsets");
	assert_non_null(span);
	size_t width = strcmp(json_string_value(json_object_get(of, "dtype")), "F32") == 0 ? 4 : 2;
	char *at = bytes + 8 + len + (size_t)json_integer_value(json_array_get(span, 0)) + width * i;
	uint16_t half = mzm_f32_to_bf16(writes ? *value : 0);
	if (writes) {
		memcpy(at, width == 4 ? (void *)value : (void *)&half, width);
		testing_write(file, bytes, n);
	} else {
		memcpy(width == 4 ? (void *)value : (void *)&half, at, width);
		*value = width == 4 ? *value : mzm_bf16_to_f32(half);
	}
	json_decref(header);
	free(bytes);
}

static inline float dj_value(const char *path, const char *tensor, size_t i)
{
	float value;
	dj_move(path, tensor, i, &value, false);
	return value;
}

static inline void dj_plant(const char *path, const char *tensor, size_t i, float value)
{
	dj_move(path, tensor, i, &value, true);
}

/* One of the two tables of decay, [n_heads, n], filled. */
typedef void (*dj_fill)(void *ctx, float *table, bool is_d2, size_t n_heads, size_t n);

/* Replaces the tables of a directory by such of n positions. */
static inline void dj_tables(const char *path, size_t n, dj_fill fill, void *ctx)
{
	char file[512];
	size_t size, at = 0, total;
	uint64_t len;
	json_t *of;
	const char *name;
	snprintf(file, sizeof file, "%s/model.safetensors", path);
	char *bytes = testing_read(file, &size), *data = malloc(size + 64 * n * sizeof(float));
	assert_non_null(data);
	memcpy(&len, bytes, 8);
	json_t *header = json_loadb(bytes + 8, (size_t)len, 0, NULL);
	json_object_foreach(header, name, of) {
		json_t *shape = json_object_get(of, "shape"), *span = json_object_get(of, "data_offsets");
		size_t from = (size_t)json_integer_value(json_array_get(span, 0)), m = strlen(name);
		size_t to = (size_t)json_integer_value(json_array_get(span, 1));
		if (!span)
			continue;
		if (strcmp(name + m - 3, ".D1") == 0 || strcmp(name + m - 3, ".D2") == 0) {
			size_t heads = (size_t)json_integer_value(json_array_get(shape, 1));
			fill(ctx, (float *)(void *)(data + at), name[m - 1] == '2', heads, n);
			json_array_set_new(shape, 2, json_integer((json_int_t)n));
			to = from + heads * n * sizeof(float);
		} else {
			memcpy(data + at, bytes + 8 + len + from, to - from);
		}
		json_object_set_new(of, "data_offsets", json_pack("[II]", (json_int_t)at,
								  (json_int_t)(at + to - from)));
		at += to - from;
	}
	char *text = json_dumps(header, JSON_COMPACT);
	len = strlen(text);
	total = 8 + (size_t)len + at;
	bytes = realloc(bytes, total);
	memcpy(bytes, &len, 8);
	memcpy(bytes + 8, text, (size_t)len);
	memcpy(bytes + 8 + len, data, at);
	testing_write(file, bytes, total);
	json_decref(header);
	free(text);
	free(data);
	free(bytes);
}

/* A copy of dijiang-paper whose exponents are so many times as large. */
static inline dj_dir dj_scaled(const char *changes, float by)
{
	dj_dir d = dj_copy("dijiang-paper", changes);
	for (int l = 0; l < 2; l++) {
		char name[64];
		snprintf(name, sizeof name, "model.layers.%d.self_attn.T", l);
		for (size_t i = 0; i < 8; i++)
			dj_plant(d.path, name, i, by * dj_value(d.path, name, i));
	}
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

static inline uint32_t dj_below(uint64_t *seed, uint32_t n)
{
	return (uint32_t)(testing_random(seed) % n);
}

static inline float *dj_run(mzm_session *s, const mzm_pass *pass)
{
	float *logits;
	mzm_err err = {0};
	if (mzm_forward(s->state, pass, &logits, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return logits;
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

#endif
