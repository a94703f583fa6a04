/* run.h - the inside of an evaluation, shared by the files that set it up, run it and show it. */
#ifndef MZE_RUN_H
#define MZE_RUN_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "eval/eval.h"
#include "eval/item.h"
#include "eval/results.h"
#include "eval/task.h"

struct mze_eval {
	mze_params       params;
	const mzm_model *model;
	const mzm_tokenizer *tok;
	const mze_task  *task;
	mze_problems     problems, examples;
	int32_t         *pick;     /* [n_items] ascending indices of problems */
	int32_t          n_items, n_rows, n_shots;
	int32_t         *shot;     /* [problems.n, n_shots] indices of examples */
	const char      *stop[MZE_MAX_STOPS];
	int32_t          n_stop, n_task_stop; /* the task's own, then the texts of end tokens */

	mzm_gen_params   gen[MZE_MAX_ROWS]; /* [n_rows] */
	mzm_costs        costs[MZE_MAX_ROWS];
	bool             has_costs[MZE_MAX_ROWS];
	mze_row          row[MZE_MAX_ROWS];

	mze_item        *item;     /* [n_items, n_rows] */
	mzm_session    **session;  /* [n_jobs]; only while running */
	int32_t          n_ctx, n_threads, n_jobs; /* as resolved */
	json_t          *settings; /* header of the results file, and "settings" of the JSON */
	char             title[192];
	mze_results     *results;  /* NULL: none */
	int32_t          n_resumed;
	int64_t          elapsed_ns; /* of this process's part */
	int64_t          peak_rss_bytes;

	/* while running */
	pthread_mutex_t  lock;     /* results, progress, failure */
	atomic_int       next;     /* unit: item * n_rows + row */
	atomic_bool      stopping;
	int32_t          n_done;
	int32_t          row_done[MZE_MAX_ROWS], row_right[MZE_MAX_ROWS];
	mzm_status       status;   /* first failure of any job */
	mzm_err          err;
};

static inline mze_item *mze_eval_item(const mze_eval *e, int32_t item, int32_t row)
{
	return &e->item[(size_t)item * (size_t)e->n_rows + (size_t)row];
}

static inline const mze_problem *mze_eval_problem(const mze_eval *e, int32_t item)
{
	return &e->problems.item[e->pick[item]];
}

/* True for modes that draft and check. */
static inline bool mze_has_checks(mzm_mode mode)
{
	return mode == MZM_MODE_SIRIUS || mode == MZM_MODE_EXACT || mode == MZM_MODE_LOSSLESS;
}

/* True when sparse passes take part that keep gen->keep. */
static inline bool mze_uses_predictor(const mzm_gen_params *gen)
{
	bool seeds = gen->jacobi_seed && strcmp(gen->jacobi_seed, "sparse") == 0;
	bool drafts = gen->draft && (strstr(gen->draft, "sparse") || strcmp(gen->draft, "auto") == 0 ||
				     (seeds && strstr(gen->draft, "jacobi")));
	return gen->mode == MZM_MODE_SPARSE || (mze_has_checks(gen->mode) && drafts);
}

/* Answers everything that is not done yet, in n_jobs threads. */
mzm_status mze_run_all(mze_eval *e, mzm_err *err);
/* Fills e->row from the answers. */
mzm_status mze_summarise(mze_eval *e, mzm_err *err);

/* settings.c: NULL out of memory; the title; costs as JSON and back. */
json_t    *mze_settings_json(const mze_eval *e);
void       mze_settings_title(mze_eval *e);
json_t    *mze_costs_json(const mzm_costs *costs);
mzm_status mze_costs_parse(mzm_costs *out, const json_t *json, mzm_err *err);
json_t    *mze_gen_json(const mzm_gen_params *gen); /* settings of one row */

/* machine.c */
json_t    *mze_machine_json(const mze_eval *e);
int32_t    mze_machine_threads(void); /* this process may use; at least 1 */
void       mze_machine_cpu(char *out, size_t cap);
int64_t    mze_machine_peak_rss(void);

/* table.c: cells that the table and the report share. Column c of row r; NULL past the last column. */
const char *mze_table_head(int c);
const char *mze_table_cell(char out[96], const mze_eval *e, const mze_row *r, int c);

#endif
