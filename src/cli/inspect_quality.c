/* inspect_quality.c - `mirzam inspect MODEL --quality`: how far a model's predictions are from a reference's.
 *
 * The comparison is the library's; here are the texts (mzm_cli_read_texts), their tokens and the report. A text longer
 * than a window is read in windows. */
#include "inspect.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW = 1024 }; /* tokens at most: enough for what a context tells, and no more KV than a small machine has */
#define DEMO_TEXT "gsmini-test.jsonl"

typedef struct measure {
	mzm_model *model, *against; /* against: NULL without --against */
	int32_t *ids; /* [n] of all texts */
	size_t *ends; /* [n_texts] where each text ends in ids */
	size_t n, cap, n_texts, texts_cap, limit;
	int32_t window;
	uint64_t done, total; /* tokens */
	mzm_cli_progress progress;
	json_t *rows;
} measure;

/* ---- text ---- */

static bool grow(void **array, size_t *cap, size_t n, size_t width)
{
	if (n <= *cap)
		return true;
	size_t larger = n + n / 2 + 64;
	void *grown = larger < SIZE_MAX / width ? realloc(*array, larger * width) : NULL;
	if (!grown)
		return false;
	*array = grown;
	*cap = larger;
	return true;
}

/* Tokens of one text, up to the limit. */
static mzm_status add_text(void *user, const char *text, size_t len, mzm_err *err)
{
	measure *m = user;
	int32_t *ids;
	size_t n;
	if (m->limit && m->n >= m->limit)
		return MZM_OK;
	mzm_status st = mzm_tokenize(mzm_model_tokenizer(m->model), text, len, MZM_TOK_ADD_SPECIAL, &ids, &n, err);
	if (st != MZM_OK)
		return st;
	if (m->limit && n > m->limit - m->n)
		n = m->limit - m->n;
	if (grow((void **)&m->ids, &m->cap, m->n + n, sizeof *m->ids) &&
	    grow((void **)&m->ends, &m->texts_cap, m->n_texts + 1, sizeof *m->ends)) {
		if (n)
			memcpy(m->ids + m->n, ids, n * sizeof *ids);
		m->n += n;
		m->ends[m->n_texts++] = m->n;
	} else {
		st = mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for %zu tokens", m->n + n);
	}
	mzm_ids_free(ids);
	return st;
}

static mzm_status read_text(measure *m, const char *path, mzm_err *err)
{
	if (!mzm_model_tokenizer(m->model))
		return mzm_cli_set_err(err, MZM_EFORMAT, "the model has no tokenizer");
	return mzm_cli_read_texts(path, add_text, m, err);
}

/* ---- comparison ---- */

static mzm_status open_model(mzm_model **out, const char *path, measure *m, mzm_err *err)
{
	mzm_model_params params = mzm_model_params_default();
	mzm_cli_progress progress = mzm_cli_progress_init(NULL);
	params.progress = mzm_cli_progress_report;
	params.user = &progress;
	mzm_status st = mzm_model_open(out, path, &params, err);
	mzm_cli_progress_clear(&progress);
	if (st == MZM_OK) {
		int32_t n_ctx = mzm_model_get_info(*out)->n_ctx;
		m->window = n_ctx < m->window ? n_ctx : m->window;
	}
	return st;
}

/* One text, a window at a time, so that progress is seen and Ctrl-C is heard. */
static mzm_status add_windows(measure *m, mzm_quality *q, size_t begin, size_t end, mzm_err *err)
{
	while (begin < end) {
		/* a window of the library's takes this many tokens and one more, which is predicted only */
		size_t left = end - begin, step = left <= (size_t)m->window ? left : (size_t)m->window;
		mzm_status st = mzm_quality_add(q, m->ids + begin, step < left ? step + 1 : step, err);
		if (st != MZM_OK)
			return st;
		begin += step;
		m->done += step;
		if (mzm_cli_progress_report(&m->progress, "quality", m->done, m->total) != 0)
			return mzm_cli_set_err(err, MZM_ECANCELLED, "interrupted");
	}
	return MZM_OK;
}

static json_t *row_of(const mzm_quality_result *r, const char *image, const char *reference)
{
	json_t *row =
		json_pack("{s:s, s:s, s:I}", "image", image, "reference", reference, "tokens", (json_int_t)r->n_tokens);
	const struct {
		const char *key;
		double value;
	} numbers[] = {
		{"kld_mean", r->kld_mean},     {"kld_error", r->kld_error},
		{"kld_median", r->kld_median}, {"kld_p99", r->kld_p99},
		{"kld_max", r->kld_max},       {"top1", r->top1},
		{"perplexity", r->perplexity}, {"reference_perplexity", r->reference_perplexity},
	};
	for (int i = 0; row && i < MZM_CLI_COUNT(numbers); i++) {
		if (json_object_set_new(row, numbers[i].key, mzm_cli_json_double(numbers[i].value)) != 0) {
			json_decref(row);
			row = NULL;
		}
	}
	return row;
}

static mzm_status compare(measure *m, const mzm_model *reference, const char *image, const char *name, mzm_err *err)
{
	mzm_quality *q = NULL;
	mzm_quality_result result;
	mzm_session_params params = mzm_session_params_default();
	params.n_ctx = m->window;
	mzm_status st = mzm_quality_create(&q, m->model, reference, &params, err);
	for (size_t i = 0; st == MZM_OK && i < m->n_texts; i++)
		st = add_windows(m, q, i ? m->ends[i - 1] : 0, m->ends[i], err);
	if (st == MZM_OK)
		st = mzm_quality_result_get(q, &result, err);
	if (st == MZM_OK && json_array_append_new(m->rows, row_of(&result, image, name)) != 0)
		st = mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for the result");
	mzm_quality_free(q);
	return st;
}

/* The weights against the reference, if there is one; a draft image always against the model's own weights. */
static mzm_status compare_all(measure *m, const mzm_cli_quality *o, mzm_err *err)
{
	bool draft = mzm_model_has_draft(m->model);
	mzm_status st = MZM_OK;
	if (!draft && !m->against)
		return mzm_cli_set_err(err, MZM_EARG,
				       "%s has no draft image to compare with its weights; name a "
				       "reference with --against",
				       o->model);
	m->total = (uint64_t)m->n * (uint64_t)(draft + (m->against != NULL));
	m->progress = mzm_cli_progress_init("tokens");
	if (m->against)
		st = compare(m, m->against, "weights", o->against, err);
	if (st == MZM_OK && draft)
		st = compare(m, NULL, "draft", "own weights", err);
	mzm_cli_progress_clear(&m->progress);
	return st;
}

static mzm_status report(json_t **out, const measure *m, const mzm_cli_quality *o, const char *path, mzm_err *err)
{
	json_t *against = o->against ? mzm_cli_json_text(o->against, strlen(o->against)) : json_null();
	*out = json_pack("{s:o, s:o, s:o, s:I, s:I, s:i, s:O}", "model", mzm_cli_json_text(o->model, strlen(o->model)),
			 "against", against, "text", mzm_cli_json_text(path, strlen(path)), "texts",
			 (json_int_t)m->n_texts, "tokens", (json_int_t)m->n, "window", (int)m->window, "comparisons",
			 m->rows);
	return *out ? MZM_OK : mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for the result");
}

mzm_status mzm_cli_quality_measure(json_t **out, const mzm_cli_quality *o, mzm_err *err)
{
	measure m = {.limit = (size_t)o->limit, .window = WINDOW, .rows = json_array()};
	char *demo = NULL;
	const char *path = o->text;
	mzm_status st = m.rows ? MZM_OK : mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
	if (st == MZM_OK && !path) {
		st = mzm_cli_data_path(&demo, DEMO_TEXT, err);
		path = demo;
	}
	if (st == MZM_OK)
		st = open_model(&m.model, o->model, &m, err);
	if (st == MZM_OK && o->against)
		st = open_model(&m.against, o->against, &m, err);
	if (st == MZM_OK)
		st = read_text(&m, path, err);
	if (st == MZM_OK)
		st = compare_all(&m, o, err);
	if (st == MZM_OK)
		st = report(out, &m, o, path, err);
	mzm_model_close(m.model);
	mzm_model_close(m.against);
	json_decref(m.rows);
	free(m.ids);
	free(m.ends);
	free(demo);
	return st;
}
