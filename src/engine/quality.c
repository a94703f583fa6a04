/* quality.c - how far one set of weights is from another: what both predict after every token of a text.
 *
 * Workload: dense passes of MZM_MAX_POS positions over a text, by two sessions; logits are compared where they are, in
 * double, one row a thread. Memory: the sessions, and a number for each token. It knows nothing of files or text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

typedef struct row {
	double kld;            /* of the reference's distribution from the model's */
	double loss, ref_loss; /* -log of the probability of the text's next token */
	bool agree;            /* the most likely token is the same */
} row;

struct mzm_quality {
	mzm_session *session, *reference;
	bool draft; /* the model's draft image instead of its weights */
	int32_t n_ctx, n_vocab;
	double *klds; /* [n] of cap */
	size_t n, cap;
	double loss, ref_loss;
	size_t n_agree;

	/* of the comparison under way */
	const float *logits, *ref_logits; /* [n_rows, n_vocab] */
	const int32_t *next;              /* [n_rows] */
	int32_t n_rows;
	row rows[MZM_MAX_POS];
};

bool mzm_model_has_draft(const mzm_model *m)
{
	return m->weights->draft != NULL;
}

static mzm_status check_models(const mzm_model *model, const mzm_model *reference, mzm_err *err)
{
	int32_t n = model->weights->cfg.n_vocab, m = reference->weights->cfg.n_vocab;
	if (model == reference && !mzm_model_has_draft(model))
		return mzm_fail(err, MZM_EARG, "%s: the model has no draft image to compare with its weights",
				model->path);
	if (n != m)
		return mzm_fail(err, MZM_EARG, "vocabularies of %d and %d tokens cannot be compared", (int)n, (int)m);
	return MZM_OK;
}

mzm_status mzm_quality_create(mzm_quality **out, const mzm_model *model, const mzm_model *reference,
			      const mzm_session_params *params, mzm_err *err)
{
	mzm_status st;
	mzm_quality *q;
	*out = NULL;
	if (!reference)
		reference = model;
	MZM_TRY(check_models(model, reference, err));
	MZM_TRY(mzm_alloc_for((void **)&q, sizeof *q, "the comparison", err));
	q->draft = model == reference;
	q->n_vocab = model->weights->cfg.n_vocab;
	MZM_TRY_OUT(mzm_session_create(&q->session, model, params, err));
	MZM_TRY_OUT(mzm_session_create(&q->reference, reference, params, err));
	int32_t a = mzm_session_n_ctx(q->session), b = mzm_session_n_ctx(q->reference);
	q->n_ctx = a < b ? a : b;
	*out = q;
	return MZM_OK;
out:
	mzm_quality_free(q);
	return st;
}

void mzm_quality_free(mzm_quality *q)
{
	if (!q)
		return;
	mzm_session_free(q->session);
	mzm_session_free(q->reference);
	mzm_free(q->klds);
	mzm_free(q);
}

/* log of the sum of exp(x), and the first index of the largest. */
static double log_sum_exp(const float *x, int32_t n, int32_t *best)
{
	int32_t at = 0;
	double sum = 0;
	for (int32_t i = 1; i < n; i++)
		at = x[i] > x[at] ? i : at;
	for (int32_t i = 0; i < n; i++)
		sum += exp((double)x[i] - (double)x[at]);
	*best = at;
	return (double)x[at] + log(sum);
}

static row compare_row(const float *model, const float *ref, int32_t n, int32_t next)
{
	int32_t best, ref_best;
	double total = log_sum_exp(model, n, &best), ref_total = log_sum_exp(ref, n, &ref_best), kld = 0;
	for (int32_t i = 0; i < n; i++) {
		double log_p = (double)ref[i] - ref_total, log_q = (double)model[i] - total, p = exp(log_p);
		kld += p > 0 ? p * (log_p - log_q) : 0;
	}
	return (row){
		.kld = kld < 0 ? 0 : kld, /* by rounding only */
		.loss = total - (double)model[next],
		.ref_loss = ref_total - (double)ref[next],
		.agree = best == ref_best,
	};
}

static void compare_rows(void *ctx, mzm_team *team, int rank)
{
	mzm_quality *q = ctx;
	for (int32_t i = rank; i < q->n_rows; i += mzm_team_size(team)) {
		size_t at = (size_t)i * (size_t)q->n_vocab;
		q->rows[i] = compare_row(q->logits + at, q->ref_logits + at, q->n_vocab, q->next[i]);
	}
}

static mzm_status reserve(mzm_quality *q, size_t n, mzm_err *err)
{
	if (n <= q->cap)
		return MZM_OK;
	size_t cap = q->cap ? q->cap : 1024;
	while (cap < n)
		cap *= 2;
	double *grown = mzm_realloc(q->klds, q->n * sizeof *grown, cap * sizeof *grown);
	if (!grown)
		return mzm_fail(err, MZM_ENOMEM, "out of memory: %zu tokens", cap);
	q->klds = grown;
	q->cap = cap;
	return MZM_OK;
}

static mzm_status pass(mzm_session *s, const float **logits, const int32_t *ids, int32_t n, bool draft, mzm_err *err)
{
	float *got;
	mzm_pass p = {.ids = ids, .n_pos = n, .n_rows = n, .draft = draft};
	MZM_TRY(mzm_forward(s->state, &p, &got, NULL, err));
	*logits = got;
	return MZM_OK;
}

/* Positions of one pass; next is behind the last of them. */
static mzm_status compare_block(mzm_quality *q, const int32_t *ids, int32_t n, mzm_err *err)
{
	MZM_TRY(reserve(q, q->n + (size_t)n, err));
	MZM_TRY(pass(q->session, &q->logits, ids, n, q->draft, err));
	MZM_TRY(pass(q->reference, &q->ref_logits, ids, n, false, err));
	q->next = ids + 1;
	q->n_rows = n;
	mzm_team_run(q->reference->team, compare_rows, q);
	for (int32_t i = 0; i < n; i++) {
		q->klds[q->n++] = q->rows[i].kld;
		q->loss += q->rows[i].loss;
		q->ref_loss += q->rows[i].ref_loss;
		q->n_agree += q->rows[i].agree;
	}
	return MZM_OK;
}

mzm_status mzm_quality_add(mzm_quality *q, const int32_t *ids, size_t n, mzm_err *err)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= q->n_vocab)
			return mzm_fail(err, MZM_EARG, "token %zu is %d; the vocabulary has 0 to %d", i, (int)ids[i],
					(int)q->n_vocab - 1);
	/* a window predicts all its tokens but the first, so its last one needs no pass and no room */
	for (size_t begin = 0; begin + 1 < n; begin += (size_t)q->n_ctx) {
		size_t left = n - 1 - begin;
		int32_t len = left < (size_t)q->n_ctx ? (int32_t)left : q->n_ctx;
		mzm_session_truncate(q->session, 0);
		mzm_session_truncate(q->reference, 0);
		for (int32_t done = 0; done < len; done += MZM_MAX_POS) {
			int32_t step = len - done < MZM_MAX_POS ? len - done : MZM_MAX_POS;
			MZM_TRY(compare_block(q, ids + begin + (size_t)done, step, err));
		}
	}
	return MZM_OK;
}

static int compare_doubles(const void *a, const void *b)
{
	double x, y;
	memcpy(&x, a, sizeof x);
	memcpy(&y, b, sizeof y);
	return (x > y) - (x < y);
}

/* Order statistics of n > 0 sorted numbers: the smallest that at least this share of them does not exceed. */
static double quantile(const double *sorted, size_t n, double share)
{
	double at = ceil(share * (double)n);
	return sorted[at < 1 ? 0 : (size_t)at - 1];
}

mzm_status mzm_quality_result_get(const mzm_quality *q, mzm_quality_result *out, mzm_err *err)
{
	double *sorted, n = (double)q->n, sum = 0, squares = 0;
	*out = (mzm_quality_result){.n_tokens = (int64_t)q->n};
	if (q->n == 0)
		return mzm_fail(err, MZM_EARG, "no text to compare on: two tokens are the least");
	MZM_TRY(mzm_alloc_for((void **)&sorted, q->n * sizeof *sorted, "sorting", err));
	memcpy(sorted, q->klds, q->n * sizeof *sorted);
	qsort(sorted, q->n, sizeof *sorted, compare_doubles);
	for (size_t i = 0; i < q->n; i++)
		sum += q->klds[i];
	for (size_t i = 0; i < q->n; i++)
		squares += (q->klds[i] - sum / n) * (q->klds[i] - sum / n);
	out->kld_mean = sum / n;
	out->kld_error = q->n > 1 ? sqrt(squares / (n - 1) / n) : 0;
	out->kld_median = quantile(sorted, q->n, 0.5);
	out->kld_p99 = quantile(sorted, q->n, 0.99);
	out->kld_max = sorted[q->n - 1];
	out->top1 = (double)q->n_agree / n;
	out->perplexity = exp(q->loss / n);
	out->reference_perplexity = exp(q->ref_loss / n);
	mzm_free(sorted);
	return MZM_OK;
}
