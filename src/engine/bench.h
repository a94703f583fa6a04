/* bench.h - the inside of mzm_bench: lines to measure, and the run that measures them; this folder and tests only.
 *
 * A line is one thing to time. Every round times every line once, a sample of several calls when one is short; what
 * it costs is the median over the rounds, a ratio the median of the rounds' ratios, so that what disturbs the machine
 * for a while disturbs all alike. bench.c plans and drives, bench_lines.c does what is timed, bench_rows.c turns
 * samples into figures. */
#ifndef MZM_BENCH_H
#define MZM_BENCH_H

#include "engine/engine.h"
#include "kern/peak.h"

#define MZM_BENCH_MAX_ROUNDS  99
#define MZM_BENCH_MAX_LINES   256
#define MZM_BENCH_MAX_PROMPTS 4

typedef struct mzm_bench_line {
	mzm_bench_kind kind;
	bool           draft;     /* through the draft image */
	bool           held;      /* SPARSE: on the neurons that the session holds */
	mzm_predictor *pred;      /* SPARSE: the line's own */
	float          keep;
	int32_t        n_pos;
	int32_t        context;   /* tokens before the pass */
	mzm_mode       mode;      /* GENERATE */
	int32_t        period;
	const char    *drafter;   /* same: a list of drafters */
	int32_t        n_calls;   /* of one sample */
	double         ffn_share; /* SPARSE: share of the FFN weights, of the latest call */
	double         ns[MZM_BENCH_MAX_ROUNDS]; /* of one pass, one prefill, one generated token */

	/* GENERATE: sums over all samples */
	int64_t n_texts, n_tokens, n_checks, n_gained, n_accepted, n_dropped;
	int64_t n_sparse_passes, n_dense_passes;
	double  draft_work; /* of those sparse passes, in dense ones */
} mzm_bench_line;

typedef struct mzm_bench_prompt {
	int32_t *ids; /* [n] */
	int32_t  n;
} mzm_bench_prompt;

typedef struct mzm_bench_run {
	const mzm_model *model;
	mzm_bench_params p;           /* every 0 replaced by what it stands for */
	mzm_session     *session;
	mzm_peak        *peak;
	mzm_bench_line  *lines;       /* [n_lines] */
	int32_t          n_lines;
	int32_t          dense;       /* the line that is the unit of costs */
	int32_t         *ids;         /* [max(n_prompt, context, MZM_MAX_POS)] tokens of prefill and passes */
	int32_t          n_ids;
	mzm_bench_prompt prompt[MZM_BENCH_MAX_PROMPTS];
	int32_t          n_prompts;   /* generations of a sample */
	int32_t          n_gen;       /* tokens of each at most */
	bool             ignore_eos;
	int32_t          n_rounds;    /* whole rounds measured */
	bool             stopped, shortened;
	uint64_t         n_done, n_planned; /* samples, for progress */
	int64_t          start_ns;
	mzm_err         *err;
} mzm_bench_run;

/* ---- bench_lines.c ---- */

/* Everything that lines need: session, peaks, tokens, and each predictor settled on the same prompt. */
mzm_status mzm_bench_prepare(mzm_bench_run *b);
void       mzm_bench_release(mzm_bench_run *b);
/* Times n_calls calls together: *ns of one unit. */
mzm_status mzm_bench_sample(mzm_bench_run *b, mzm_bench_line *l, int32_t n_calls, double *ns);
/* Where passes over n_pos positions behind about `context` tokens are timed, and what each place counts. With linear
 * attention what they cost goes round with the place: rows get more, then a step of the state makes them fewer. Two
 * places tell: the middle of those where a pass has a step in it, and of those where it has none. Their number. */
typedef struct mzm_bench_place {
	int32_t len; /* tokens before the pass */
	double  weight;
} mzm_bench_place;

int mzm_bench_places(mzm_bench_place out[2], const mzm_kv *kv, int32_t n_pos, int32_t context);
/* Fills out[n] with the prompt's tokens over and over. */
void       mzm_bench_repeat(int32_t *out, int32_t n, const int32_t *ids, int32_t n_ids);

/* ---- bench_rows.c ---- */

typedef struct mzm_bench_stats {
	double median, min, max;
	double spread_percent; /* (max - min) / median; 0 without a median above 0 */
} mzm_bench_stats;

/* Of values[n], which keep their order; the median of an even number is the mean of the middle two. n 0: NaN. */
mzm_bench_stats mzm_bench_stats_of(const double *values, int32_t n);
/* Median of a[i] / b[i]. */
double          mzm_bench_median_ratio(const double *a, const double *b, int32_t n);

/* Bytes of the weights that a pass reads: what every pass does, and what a sparse one reads a share of. */
typedef struct mzm_bench_bytes {
	double fixed, ffn;
} mzm_bench_bytes;

mzm_bench_bytes mzm_bench_weight_bytes(const mzm_weights *w, bool draft);
mzm_status      mzm_bench_rows(mzm_bench_result **out, const mzm_bench_run *b);

#endif
