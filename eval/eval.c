/* eval.c - sets an evaluation up: checks, data, examples, sessions, results file; see eval.h. */
#include "eval/eval.h"

#include <stdlib.h>
#include <string.h>

#include "eval/mt19937.h"
#include "eval/run.h"
#include "eval/util.h"

mze_params mze_params_default(void)
{
	return (mze_params){.task = "gsm8k", .n_jobs = 1};
}

/* ---- what is asked ---- */

static mzm_status check_params(const mze_eval *e, mzm_err *err)
{
	const mze_params *p = &e->params;
	if (!e->task)
		return mze_fail(err, MZM_EARG, "unknown task '%s'", p->task ? p->task : "");
	if (!p->data_path)
		return mze_fail(err, MZM_EARG, "no problem file given");
	if (!p->rows || p->n_rows < 1 || p->n_rows > MZE_MAX_ROWS)
		return mze_fail(err, MZM_EARG, "%d modes; 1 to %d are possible", p->n_rows, MZE_MAX_ROWS);
	if (p->limit < 0 || p->sample < 0 || (p->limit > 0 && p->sample > 0))
		return mze_fail(err, MZM_EARG, "limit and sample exclude each other, and neither is negative");
	if (p->n_jobs < 1 || p->n_jobs > 1024)
		return mze_fail(err, MZM_EARG, "%d jobs; 1 to 1024 are possible", p->n_jobs);
	if (p->n_shots < 0 || p->n_shots > MZE_MAX_SHOTS)
		return mze_fail(err, MZM_EARG, "%d shots; 0 to %d are possible", p->n_shots, MZE_MAX_SHOTS);
	if (p->n_shots > 0 && !p->fewshot_path)
		return mze_fail(err, MZM_EARG, "%d shots need a file of examples", p->n_shots);
	if (p->resume && !p->results_path)
		return mze_fail(err, MZM_EARG, "resuming needs a results file");
	return MZM_OK;
}

/* Task's stops, then the texts of the model's end tokens. */
static void set_stops(mze_eval *e)
{
	const mzm_model_info *info = mzm_model_get_info(e->model);
	for (size_t i = 0; i < 4 && e->task->stop[i]; i++)
		e->stop[e->n_stop++] = e->task->stop[i];
	e->n_task_stop = e->n_stop;
	for (int32_t i = 0; i < info->n_eos && i < MZM_MAX_EOS; i++) {
		const char *text = mzm_token_content(e->tok, info->eos_ids[i]);
		bool is_new = text && *text;
		for (int32_t k = 0; is_new && k < e->n_stop; k++)
			is_new = strcmp(e->stop[k], text) != 0;
		if (is_new)
			e->stop[e->n_stop++] = text;
	}
}

static mzm_status set_rows(mze_eval *e, mzm_err *err)
{
	e->n_rows = e->params.n_rows;
	for (int32_t i = 0; i < e->n_rows; i++) {
		mzm_gen_params *gen = &e->gen[i];
		*gen = e->params.rows[i];
		gen->stop = e->stop;
		gen->n_stop = gen->ignore_eos ? e->n_task_stop : e->n_stop;
		gen->fresh_monitor = true;
		if (gen->max_tokens <= 0)
			gen->max_tokens = MZE_DEFAULT_MAX_TOKENS;
		MZE_TRY(mzm_gen_params_check(gen, err));
		bool drafts = gen->mode != MZM_MODE_DENSE;
		bool alone = gen->mode == MZM_MODE_SPARSE || (gen->draft && strcmp(gen->draft, "sparse") == 0);
		snprintf(e->row[i].label, sizeof e->row[i].label, "%s%s%.32s", mzm_mode_name(gen->mode),
			 drafts ? " " : "", !drafts ? "" : alone ? gen->predictor : gen->draft);
		e->row[i].gen = gen;
	}
	return MZM_OK;
}

/* ---- data ---- */

static int ascending(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
	return (x > y) - (x < y);
}

/* The problems to answer: all, the first few, or a seeded subset, in file order. */
static mzm_status pick_problems(mze_eval *e, mzm_err *err)
{
	int32_t n = e->problems.n, want = e->params.limit ? e->params.limit : e->params.sample;
	mze_mt mt;
	e->pick = mze_calloc((size_t)n, sizeof *e->pick);
	if (!e->pick)
		return mze_no_memory(err);
	for (int32_t i = 0; i < n; i++)
		e->pick[i] = i;
	e->n_items = want && want < n ? want : n;
	if (e->params.sample) {
		mze_mt_seed(&mt, (uint32_t)(e->params.sample_seed ^ (e->params.sample_seed >> 32)));
		for (int32_t i = 0; i < e->n_items; i++) { /* Fisher and Yates, as far as needed */
			int32_t j = i + (int32_t)mze_mt_below(&mt, (uint32_t)(n - i));
			int32_t x = e->pick[i];
			e->pick[i] = e->pick[j];
			e->pick[j] = x;
		}
		qsort(e->pick, (size_t)e->n_items, sizeof *e->pick, ascending);
	}
	if (e->n_items > INT32_MAX / 2 / e->n_rows)
		return mze_fail(err, MZM_EUNSUPPORTED, "%d problems in %d modes are too many", e->n_items, e->n_rows);
	e->item = mze_calloc((size_t)e->n_items * (size_t)e->n_rows, sizeof *e->item);
	return e->item ? MZM_OK : mze_no_memory(err);
}

static mzm_status read_examples(mze_eval *e, mzm_err *err)
{
	const char *path = e->params.fewshot_path;
	if (!path)
		return MZM_OK;
	MZE_TRY(mze_problems_read(&e->examples, path, e->params.skip_bad_lines, err));
	e->n_shots = e->params.n_shots ? e->params.n_shots : e->task->n_shots;
	if (e->n_shots > e->examples.n)
		return mze_fail(err, MZM_EFORMAT, "%s: holds %d examples, fewer than the %d shots", path, e->examples.n,
				e->n_shots);
	e->shot = mze_calloc((size_t)e->problems.n * (size_t)e->n_shots, sizeof *e->shot);
	if (!e->shot)
		return mze_no_memory(err);
	if (e->task->draws_shots)
		mze_task_draw_shots(e->shot, e->problems.n, e->n_shots, e->examples.n);
	else
		for (int32_t i = 0; i < e->problems.n * e->n_shots; i++)
			e->shot[i] = i % e->n_shots;
	return MZM_OK;
}

/* ---- sessions and costs ---- */

static mzm_status open_sessions(mze_eval *e, mzm_err *err)
{
	mzm_session_params sp = mzm_session_params_default();
	sp.n_ctx = e->params.n_ctx;
	sp.n_threads = e->params.n_threads;
	sp.kv_type = e->params.kv_type;
	e->n_jobs = e->params.n_jobs < e->n_items * e->n_rows ? e->params.n_jobs : e->n_items * e->n_rows;
	if (sp.n_threads == 0 && e->n_jobs > 1) {
		sp.n_threads = mze_machine_threads() / e->n_jobs;
		sp.n_threads = sp.n_threads < 1 ? 1 : sp.n_threads;
	}
	e->session = mze_calloc((size_t)e->n_jobs, sizeof *e->session);
	if (!e->session)
		return mze_no_memory(err);
	for (int32_t i = 0; i < e->n_jobs; i++)
		MZE_TRY(mzm_session_create(&e->session[i], e->model, &sp, err));
	e->n_ctx = mzm_session_n_ctx(e->session[0]);
	e->n_threads = mzm_session_n_threads(e->session[0]);
	return MZM_OK;
}

static void close_sessions(mze_eval *e)
{
	for (int32_t i = 0; e->session && i < e->n_jobs; i++)
		mzm_session_free(e->session[i]);
	free(e->session);
	e->session = NULL;
}

static bool goes_by_costs(const mzm_gen_params *gen)
{
	return mze_has_checks(gen->mode) && (gen->period == 0 || (gen->draft && strcmp(gen->draft, "auto") == 0));
}

/* Costs of rows with an automatic period or drafter: the stored run's, so that it goes on as it began, else nominal or
 * measured once. Either way every answer sees the same. */
static mzm_status set_costs(mze_eval *e, const json_t *stored, mzm_err *err)
{
	const json_t *list = json_object_get(stored, "costs");
	for (int32_t i = 0; i < e->n_rows; i++) {
		mzm_gen_params *gen = &e->gen[i];
		if (!goes_by_costs(gen))
			continue;
		if (stored)
			MZE_TRY(mze_costs_parse(&e->costs[i], json_array_get(list, (size_t)i), err));
		else if (gen->costs)
			e->costs[i] = *gen->costs;
		else
			MZE_TRY((e->params.nominal_costs ? mzm_session_nominal_costs : mzm_session_measure_costs)(
				e->session[0], gen, &e->costs[i], err));
		gen->costs = &e->costs[i];
		e->has_costs[i] = true;
	}
	return MZM_OK;
}

/* ---- results file ---- */

/* Index of a problem among the picked ones; -1: not picked. */
static int32_t find_item(const mze_eval *e, int32_t problem)
{
	const int32_t *at = bsearch(&problem, e->pick, (size_t)e->n_items, sizeof *e->pick, ascending);
	return at ? (int32_t)(at - e->pick) : -1;
}

static mzm_status take_stored(void *user, const char *line, size_t len, mzm_err *err)
{
	mze_eval *e = user;
	mze_item item;
	int32_t row, id;
	MZE_TRY(mze_item_parse(&item, &row, &id, line, len, mzm_token_count(e->tok), err));
	int32_t at = find_item(e, id);
	mzm_status st = MZM_OK;
	if (at < 0 || row >= e->n_rows)
		st = mze_fail(err, MZM_EFORMAT, "row %d of problem %d is not part of this run", row, id);
	else if (mze_eval_item(e, at, row)->is_done)
		st = mze_fail(err, MZM_EFORMAT, "row %d of problem %d stands there twice", row, id);
	else
		st = mze_task_score(&item.score, e->task, item.text, item.text_len, mze_eval_problem(e, at)->answer,
				    err);
	if (st != MZM_OK) {
		mze_item_free(&item);
		return st;
	}
	*mze_eval_item(e, at, row) = item;
	e->n_done++;
	e->n_resumed++;
	e->row_done[row]++;
	e->row_right[row] += item.score.strict_right;
	return MZM_OK;
}

static mzm_status go_on_with(mze_eval *e, const json_t *stored, mzm_err *err)
{
	if (!stored)
		return mze_results_write_header(e->results, e->settings, err);
	mzm_status st = mze_results_compare(stored, e->settings, "costs", err);
	if (st != MZM_OK) {
		mze_err_prefix(err, "%s: made with other settings", e->params.results_path);
		return st;
	}
	return mze_results_replay(e->results, take_stored, e, err);
}

static mzm_status open_results(mze_eval *e, mzm_err *err)
{
	json_t *stored = NULL;
	mzm_status st = MZM_OK;
	if (e->params.results_path)
		MZE_TRY(mze_results_open(&e->results, &stored, e->params.results_path, e->params.resume, err));
	MZE_TRY_OUT(set_costs(e, stored, err));
	e->settings = mze_settings_json(e);
	if (!e->settings)
		st = mze_no_memory(err);
	if (st == MZM_OK && e->results)
		st = go_on_with(e, stored, err);
out:
	json_decref(stored);
	return st;
}

/* ---- the whole ---- */

static mzm_status set_up_and_run(mze_eval *e, mzm_err *err)
{
	MZE_TRY(check_params(e, err));
	set_stops(e);
	MZE_TRY(set_rows(e, err));
	MZE_TRY(mze_problems_read(&e->problems, e->params.data_path, e->params.skip_bad_lines, err));
	MZE_TRY(pick_problems(e, err));
	MZE_TRY(read_examples(e, err));
	mze_settings_title(e);
	MZE_TRY(open_sessions(e, err));
	MZE_TRY(open_results(e, err));
	MZE_TRY(mze_run_all(e, err));
	e->peak_rss_bytes = mze_machine_peak_rss();
	return mze_summarise(e, err);
}

mzm_status mze_eval_run(mze_eval **out, const mzm_model *model, const mze_params *params, mzm_err *err)
{
	*out = NULL;
	mze_eval *e = mze_calloc(1, sizeof *e);
	if (!e)
		return mze_no_memory(err);
	e->params = *params;
	e->model = model;
	e->tok = mzm_model_tokenizer(model);
	e->task = params->task ? mze_task_find(params->task) : NULL;
	pthread_mutex_init(&e->lock, NULL);
	mzm_status st = set_up_and_run(e, err);
	close_sessions(e);
	mze_results_close(e->results);
	e->results = NULL;
	if (st == MZM_OK)
		*out = e;
	else
		mze_eval_free(e);
	return st;
}

void mze_eval_free(mze_eval *e)
{
	if (!e)
		return;
	for (size_t i = 0; e->item && i < (size_t)e->n_items * (size_t)e->n_rows; i++)
		mze_item_free(&e->item[i]);
	free(e->item);
	free(e->pick);
	free(e->shot);
	mze_problems_free(&e->problems);
	mze_problems_free(&e->examples);
	json_decref(e->settings);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

int32_t mze_eval_n_rows(const mze_eval *e)
{
	return e->n_rows;
}

const mze_row *mze_eval_row(const mze_eval *e, int32_t i)
{
	return i >= 0 && i < e->n_rows ? &e->row[i] : NULL;
}

const char *mze_eval_title(const mze_eval *e)
{
	return e->title;
}

int32_t mze_eval_n_skipped(const mze_eval *e)
{
	return e->problems.n_skipped;
}
