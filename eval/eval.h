/* eval.h - runs a task's problems in several decoding modes and says what each costs and gets right.
 *
 *     mze_params params = mze_params_default();
 *     mze_eval *eval = NULL;
 *     params.data_path = "test.jsonl";
 *     params.rows = rows;                              // mzm_gen_params, one a mode
 *     params.n_rows = 3;
 *     if (mze_eval_run(&eval, model, &params, &err) == MZM_OK)
 *         mze_eval_table(eval, stdout);
 *     mze_eval_free(eval);
 *
 * Every problem is answered in every row (mode), problem by problem, so that rows are compared on the
 * same items under the same conditions. Answers do not depend on the number of jobs or threads, on the
 * order, or on where an interrupted run was resumed. Built on mirzam.h alone. Prints nothing. */
#ifndef MZE_EVAL_H
#define MZE_EVAL_H

#include <jansson.h>
#include <stdio.h>

#include "mirzam.h"
#include "eval/reliability.h"
#include "eval/stats.h"

#define MZE_MAX_ROWS 32
#define MZE_DEFAULT_MAX_TOKENS 256

typedef struct mze_progress {
	int32_t     n_done, n_total; /* answers: problems times rows */
	int32_t     n_resumed;       /* of the done ones, taken over from the results file */
	int32_t     row;             /* of the answer just finished; -1: none yet */
	int32_t     row_done, row_right; /* in that row, by the strict filter */
	const char *label;           /* of that row; "" when none */
} mze_progress;

typedef struct mze_params {
	const char *task;         /* "gsm8k"; see mze_task_name() */
	const char *data_path;    /* JSONL of {question, answer} */
	const char *fewshot_path; /* NULL = zero-shot; JSONL of examples */
	int32_t     n_shots;      /* 0 with a few-shot file = the task's own number */
	int32_t     limit;        /* the first so many problems; 0 = all */
	int32_t     sample;       /* a seeded subset of so many; 0 = all; not together with limit */
	uint64_t    sample_seed;
	bool        skip_bad_lines;
	bool        no_onednn;    /* how the model was opened; recorded only */
	bool        nominal_costs; /* automatic periods reckon with mzm_session_nominal_costs, not with measured ones */

	const mzm_gen_params *rows; /* [n_rows]; stop, callbacks, fresh_monitor and costs are set by the run */
	int32_t n_rows;

	int32_t n_ctx;        /* of each session; 0 = mzm_session_params's choice */
	int32_t n_threads;    /* of each session; 0 = the cores this process may use, split among the jobs */
	const char *kv_type;  /* of each session; NULL = mzm_session_params's choice */
	int32_t n_jobs;       /* answers in work at a time; 1 */

	const char *results_path; /* NULL = none; one line an answer, appended as they finish */
	bool        resume;       /* go on with an existing results file; one that is there is refused otherwise */

	void (*progress)(void *user, const mze_progress *at); /* one call at a time, from any thread; may be NULL */
	bool (*cancelled)(void *user); /* polled from every thread; true stops the run; may be NULL */
	void *user;
} mze_params;

mze_params mze_params_default(void);

/* Name of the i-th task, NULL past the last. */
const char *mze_task_name(int i);

typedef struct mze_eval mze_eval;

/* -> mze_eval_free. ECANCELLED leaves a results file that resume goes on with. The model must outlive
 * the result. */
mzm_status mze_eval_run(mze_eval **out, const mzm_model *model, const mze_params *params, mzm_err *err);
void       mze_eval_free(mze_eval *eval);

/* ---- What a row got. NaN: not defined. ---- */

typedef struct mze_row {
	const mzm_gen_params *gen;
	char    label[48];            /* "sirius griffin" */
	int32_t n;                    /* problems */
	int32_t n_strict, n_flexible; /* right by either filter */
	int32_t n_invalid_strict, n_invalid_flexible;
	int32_t n_cut;                /* CoT filter: number ended the text and lost its last character */
	int32_t n_finish[5];          /* by mzm_finish */
	mze_interval strict_ci, flexible_ci; /* Wilson, 95 % */
	double  strict_se, flexible_se;

	bool    has_dense;            /* a dense row was part of the run; else the next block is undefined */
	int32_t n_same;               /* answers whose token ids equal the dense row's */
	mze_mcnemar strict_vs, flexible_vs; /* against the dense row */
	double  p_holm;               /* of strict_vs, corrected over the rows of the run */
	double  diff_min, diff_median, diff_mean; /* first differing token of the answers that differ */

	int64_t n_prompt_tok, n_tok;
	int64_t n_checks, n_gained, n_checks_paper, n_gained_paper;
	int64_t n_accepted, n_corrected, n_bonus, n_rolled_back;
	int64_t n_sparse_passes, n_dense_passes, n_dense_positions;
	double  sparse_work;          /* sum of densities over sparse passes */
	int64_t n_sparse_positions;   /* more than passes with trees; and the work weighted by them */
	double  sparse_node_work;
	int64_t n_nodes, n_live_nodes, n_dead_nodes, n_cut_nodes; /* of trees */
	mzm_draft_stats drafter[MZM_MAX_DRAFTERS]; /* [n_drafters] of rows that check, if all answers tell */
	int32_t n_drafters;
	double  aal, aal_paper;       /* 0 without checks */
	double  density, read_density, effective_density;
	double  work_per_token, w_nodes;
	mze_reliability monitor;      /* its confidence in draft tokens against what checks found; n 0: no checks */
	int64_t prefill_ns, decode_ns, wall_ns; /* summed over the answers */
	double  prefill_tok_per_s, tok_per_s;   /* of one job */
	double  tok_per_s_aggregate;            /* of all jobs together */
	double  ms_mean, ms_p10, ms_median, ms_p90; /* decode milliseconds a token, over answers */
	mze_interval ms_ci;                     /* bootstrap, 95 %, of ms_mean */
	uint64_t bytes_read;
	double   read_s, unpack_s, wait_s;      /* streaming; summed */
} mze_row;

int32_t        mze_eval_n_rows(const mze_eval *eval);
const mze_row *mze_eval_row(const mze_eval *eval, int32_t i);
/* "gsm8k@3.0, 0-shot, first 100 of 500 problems, seed 0" */
const char    *mze_eval_title(const mze_eval *eval);
/* Broken data lines that were skipped. */
int32_t        mze_eval_n_skipped(const mze_eval *eval);

/* ---- Output ---- */

/* {"settings", "machine", "run", "rows"}. NULL: out of memory. */
json_t    *mze_eval_json(const mze_eval *eval);
/* Writing errors are the stream's: the caller checks it. */
void       mze_eval_table(const mze_eval *eval, FILE *out);
void       mze_eval_markdown(const mze_eval *eval, FILE *out);
/* One self-contained HTML page. */
mzm_status mze_eval_report(const mze_eval *eval, FILE *out, mzm_err *err);

#endif
