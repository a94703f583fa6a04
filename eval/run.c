/* run.c - answers problems, each in every row, in several threads at a time.
 *
 * Workload: minutes to days; one answer is hundreds of forward passes, so one lock around everything
 * else is free. Units go out in order, problem by problem; an answer depends on its problem and row
 * alone (a session is prefilled afresh, the confidence monitor forgets), so the order never shows. */
#include "eval/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "eval/util.h"

typedef struct capture {
	mze_eval *eval;
	mze_buf   text, kinds, ids, confidence;
	bool      asked_to_stop;
} capture;

static bool must_stop(mze_eval *e)
{
	if (!atomic_load(&e->stopping) && e->params.cancelled && e->params.cancelled(e->params.user))
		atomic_store(&e->stopping, true);
	return atomic_load(&e->stopping);
}

static bool capture_failed(const capture *c)
{
	return c->text.failed || c->kinds.failed || c->ids.failed || c->confidence.failed;
}

static int poll_stop(capture *c)
{
	c->asked_to_stop = must_stop(c->eval) || capture_failed(c);
	return c->asked_to_stop;
}

static int on_text(void *user, const char *bytes, size_t n)
{
	capture *c = user;
	mze_buf_add(&c->text, bytes, n);
	return poll_stop(c);
}

static int on_token(void *user, const mzm_token_event *event)
{
	capture *c = user;
	char letter = mze_kind_letter(event->kind);
	mze_buf_add(&c->kinds, &letter, 1);
	mze_buf_add(&c->ids, &event->id, sizeof event->id);
	if (mze_kind_is_draft(letter)) {
		bool known = event->confidence >= 0 && event->confidence <= 1;
		int32_t millionths = known ? (int32_t)lround(1e6 * (double)event->confidence) : -1;
		mze_buf_add(&c->confidence, &millionths, sizeof millionths);
	}
	return poll_stop(c);
}

static int on_prefill(void *user, const char *stage, uint64_t done, uint64_t total)
{
	(void)stage, (void)done, (void)total;
	return poll_stop(user);
}

static mzm_status copy_tokens(mze_item *item, const mzm_gen_result *result, mzm_err *err)
{
	int32_t *tokens = mze_calloc((size_t)result->n_tokens, sizeof *tokens);
	if (!tokens)
		return mze_no_memory(err);
	if (result->n_tokens > 0)
		memcpy(tokens, result->tokens, (size_t)result->n_tokens * sizeof *tokens);
	item->gen = *result;
	item->gen.tokens = tokens;
	return MZM_OK;
}

/* Gives the captured buffers to the item. */
static mzm_status keep_capture(mze_item *item, capture *c, mzm_err *err)
{
	mze_buf_add(&c->text, "", 0);
	mze_buf_add(&c->kinds, "", 0);
	mze_buf_add(&c->ids, "", 0);
	mze_buf_add(&c->confidence, "", 0);
	if (capture_failed(c))
		return mze_no_memory(err);
	item->text = c->text.data;
	item->text_len = c->text.len;
	item->kinds = c->kinds.data;
	item->n_events = (int32_t)c->kinds.len;
	item->event_id = (int32_t *)(void *)c->ids.data; /* malloc's alignment */
	item->n_drafts = (int32_t)(c->confidence.len / sizeof *item->confidence);
	item->confidence = (int32_t *)(void *)c->confidence.data;
	c->text = c->kinds = c->ids = c->confidence = (mze_buf){0};
	return MZM_OK;
}

static mzm_status generate(mze_item *item, mze_eval *e, mzm_session *session, const mzm_gen_params *row,
			   const int32_t *prompt, size_t n_prompt, mzm_err *err)
{
	capture c = {.eval = e};
	mzm_gen_result result = {0};
	mzm_gen_params gen = *row;
	gen.on_text = on_text;
	gen.on_token = on_token;
	gen.on_prefill = on_prefill;
	gen.on_stream = on_prefill;
	gen.user = &c;
	mzm_status st = mzm_generate(session, prompt, (int32_t)n_prompt, &gen, &result, err);
	if (c.asked_to_stop && (st == MZM_OK || st == MZM_ECANCELLED)) {
		if (err)
			*err = (mzm_err){0}; /* the engine's "cancelled" says less than the run's own message */
		st = MZM_ECANCELLED;
	}
	if (st == MZM_OK)
		st = copy_tokens(item, &result, err);
	if (st == MZM_OK || (st == MZM_ECANCELLED && capture_failed(&c)))
		st = keep_capture(item, &c, err);
	mze_buf_free(&c.text);
	mze_buf_free(&c.kinds);
	mze_buf_free(&c.ids);
	mze_buf_free(&c.confidence);
	return st;
}

static mzm_status tokenize(int32_t **ids, size_t *n, mze_item *item, const mze_eval *e, int32_t at, bool no_special,
			   mzm_err *err)
{
	mze_buf prompt = {0};
	const int32_t *shot = e->n_shots ? e->shot + (size_t)e->pick[at] * (size_t)e->n_shots : NULL;
	mze_task_prompt(&prompt, e->task, mze_eval_problem(e, at), &e->examples, shot, e->n_shots);
	mzm_status st = prompt.failed ? mze_no_memory(err)
				      : mzm_tokenize(e->tok, prompt.data, prompt.len,
						     no_special ? 0 : MZM_TOK_ADD_SPECIAL, ids, n, err);
	if (st == MZM_OK) {
		snprintf(item->prompt_hash, sizeof item->prompt_hash, "%016llx",
			 (unsigned long long)XXH3_64bits(prompt.data, prompt.len));
		if (*n == 0 || *n >= (size_t)e->n_ctx) {
			mzm_ids_free(*ids);
			*ids = NULL;
			st = mze_fail(err, MZM_ECONTEXT, "a prompt of %zu tokens does not fit a context of %d", *n,
				      e->n_ctx);
		}
	}
	mze_buf_free(&prompt);
	return st;
}

static mzm_status answer(mze_item *item, mze_eval *e, mzm_session *session, int32_t at, int32_t row, mzm_err *err)
{
	const mzm_gen_params *gen = &e->gen[row];
	int32_t *ids = NULL;
	size_t n_ids = 0;
	int64_t start = mze_now_ns();
	MZE_TRY(tokenize(&ids, &n_ids, item, e, at, gen->no_special, err));
	mzm_status st = generate(item, e, session, gen, ids, n_ids, err);
	mzm_ids_free(ids);
	item->wall_ns = mze_now_ns() - start;
	if (st == MZM_OK)
		st = mze_task_score(&item->score, e->task, item->text, item->text_len, mze_eval_problem(e, at)->answer,
				    err);
	return st;
}

/* ---- taking turns ---- */

static void report_progress(mze_eval *e, int32_t row)
{
	if (!e->params.progress)
		return;
	mze_progress at = {.n_done = e->n_done,
			   .n_total = e->n_items * e->n_rows,
			   .n_resumed = e->n_resumed,
			   .row = row,
			   .label = ""};
	if (row >= 0) {
		at.row_done = e->row_done[row];
		at.row_right = e->row_right[row];
		at.label = e->row[row].label;
	}
	e->params.progress(e->params.user, &at);
}

static void fail_run(mze_eval *e, mzm_status st, const mzm_err *why)
{
	atomic_store(&e->stopping, true);
	if (e->status == MZM_OK) {
		e->status = st;
		e->err = *why;
	}
}

/* Under the lock: writes the line of a finished answer and takes it in. Owns *item. */
static void finish(mze_eval *e, mze_item *item, int32_t at, int32_t row)
{
	mzm_err err = {0};
	mzm_status st = e->status; /* after a failed write no further line must follow */
	if (st == MZM_OK && e->results) {
		char *line = mze_item_print(item, row, mzm_mode_name(e->gen[row].mode), e->pick[at]);
		st = line ? mze_results_append(e->results, line, &err) : mze_no_memory(&err);
		free(line);
	}
	if (st != MZM_OK) {
		fail_run(e, st, &err);
		mze_item_free(item);
		return;
	}
	item->is_done = true;
	*mze_eval_item(e, at, row) = *item;
	e->n_done++;
	e->row_done[row]++;
	e->row_right[row] += item->score.strict_right;
	report_progress(e, row);
}

static void work(mze_eval *e, mzm_session *session)
{
	int32_t n_units = e->n_items * e->n_rows, unit;
	while (!must_stop(e) && (unit = atomic_fetch_add(&e->next, 1)) < n_units) {
		int32_t at = unit / e->n_rows, row = unit % e->n_rows;
		mze_item item = {0};
		mzm_err err = {0};
		if (mze_eval_item(e, at, row)->is_done)
			continue;
		mzm_status st = answer(&item, e, session, at, row, &err);
		if (st != MZM_OK && st != MZM_ECANCELLED)
			mze_err_prefix(&err, "problem %d (line %d), %s", e->pick[at], mze_eval_problem(e, at)->line,
				       e->row[row].label);
		pthread_mutex_lock(&e->lock);
		if (st == MZM_OK)
			finish(e, &item, at, row);
		else if (st != MZM_ECANCELLED)
			fail_run(e, st, &err);
		pthread_mutex_unlock(&e->lock);
		if (st != MZM_OK)
			mze_item_free(&item);
	}
}

typedef struct job {
	mze_eval    *eval;
	mzm_session *session;
	pthread_t    thread;
} job;

static void *job_main(void *user)
{
	job *j = user;
	work(j->eval, j->session);
	return NULL;
}

static mzm_status run_jobs(mze_eval *e, mzm_err *err)
{
	job *jobs = mze_calloc((size_t)e->n_jobs, sizeof *jobs);
	int32_t n = 0;
	if (!jobs)
		return mze_no_memory(err);
	for (; n < e->n_jobs; n++) {
		jobs[n] = (job){.eval = e, .session = e->session[n]};
		int code = pthread_create(&jobs[n].thread, NULL, job_main, &jobs[n]);
		if (code != 0) {
			mzm_err why = {0};
			mze_fail(&why, MZM_EIO, "starting job %d: %s", n + 1, strerror(code));
			pthread_mutex_lock(&e->lock);
			fail_run(e, why.code, &why);
			pthread_mutex_unlock(&e->lock);
			break;
		}
	}
	for (int32_t i = 0; i < n; i++)
		pthread_join(jobs[i].thread, NULL);
	free(jobs);
	return MZM_OK;
}

mzm_status mze_run_all(mze_eval *e, mzm_err *err)
{
	int32_t n_units = e->n_items * e->n_rows;
	int64_t start = mze_now_ns();
	report_progress(e, -1);
	if (e->n_jobs == 1)
		work(e, e->session[0]);
	else
		MZE_TRY(run_jobs(e, err));
	e->elapsed_ns = mze_now_ns() - start;
	if (e->results) { /* whatever happened: the finished lines are to stay */
		mzm_err why = {0};
		mzm_status st = mze_results_sync(e->results, &why);
		if (st != MZM_OK)
			fail_run(e, st, &why);
	}
	if (e->status != MZM_OK)
		return mze_fail(err, e->status, "%s", e->err.message);
	if (e->n_done < n_units)
		return mze_fail(err, MZM_ECANCELLED, "cancelled after %d of %d answers", e->n_done, n_units);
	return MZM_OK;
}
