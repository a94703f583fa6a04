/* summary.c - the numbers of each row from its answers. Counters are pooled over all answers, never a mean
 * of means; definitions stand beside each. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/run.h"
#include "eval/util.h"

#define BOOTSTRAP_DRAWS 2000
#define BOOTSTRAP_SEED 20240906

static double ratio(double a, double b)
{
	return b > 0 ? a / b : NAN;
}

/* ---- sums ---- */

static void add_counters(mze_row *r, const mzm_gen_result *g)
{
	r->n_prompt_tok += g->n_prompt;
	r->n_tok += g->n_tokens;
	r->n_checks += g->n_checks;
	r->n_gained += g->n_gained;
	r->n_checks_paper += g->n_checks_paper;
	r->n_gained_paper += g->n_gained_paper;
	r->n_accepted += g->n_accepted;
	r->n_corrected += g->n_corrected;
	r->n_bonus += g->n_bonus;
	r->n_rolled_back += g->n_rolled_back;
	r->n_sparse_passes += g->n_sparse_passes;
	r->n_dense_passes += g->n_dense_passes;
	r->n_dense_positions += g->n_dense_positions;
	r->sparse_work += g->sparse_work;
	r->n_sparse_positions += g->n_nodes ? g->n_sparse_positions : g->n_sparse_passes;
	r->sparse_node_work += g->n_nodes ? g->sparse_node_work : g->sparse_work;
	r->n_nodes += g->n_nodes;
	r->n_live_nodes += g->n_live;
	r->n_dead_nodes += g->n_dead;
	r->n_cut_nodes += g->n_cut;
	r->density += g->density;           /* sums until derive() divides them */
	r->read_density += g->read_density;
	r->prefill_ns += g->prefill_ns;
	r->decode_ns += g->decode_ns;
	r->bytes_read += g->bytes_read;
	r->read_s += (double)g->read_ns * 1e-9;
	r->unpack_s += (double)g->unpack_ns * 1e-9;
	r->wait_s += (double)g->wait_ns * 1e-9;
}

/* By name: an answer may lack a drafter that others have. */
static void add_drafters(mze_row *r, const mzm_gen_result *g)
{
	for (int32_t i = 0; i < g->n_drafters; i++) {
		int32_t k = 0;
		while (k < r->n_drafters && strcmp(r->drafter[k].name, g->drafts[i].name) != 0)
			k++;
		if (k == MZM_MAX_DRAFTERS)
			continue;
		if (k == r->n_drafters)
			r->drafter[r->n_drafters++] = (mzm_draft_stats){.name = g->drafts[i].name};
		r->drafter[k].n_rounds += g->drafts[i].n_rounds;
		r->drafter[k].n_drafted += g->drafts[i].n_drafted;
		r->drafter[k].n_accepted += g->drafts[i].n_accepted;
	}
}

static void add_item(mze_row *r, const mze_item *item)
{
	r->n++;
	r->n_strict += item->score.strict_right;
	r->n_flexible += item->score.flexible_right;
	r->n_invalid_strict += !item->score.strict.data;
	r->n_invalid_flexible += !item->score.flexible.data;
	r->n_cut += item->score.cut;
	if ((int)item->gen.finish >= 0 && item->gen.finish <= MZM_FINISH_CANCELLED)
		r->n_finish[item->gen.finish]++;
	r->wall_ns += item->wall_ns;
	add_counters(r, &item->gen);
}

/* ---- what follows from the sums ---- */

static double effective_density(const mze_row *r)
{
	if (r->gen->mode == MZM_MODE_DENSE)
		return 1;
	if (r->n_checks == 0)
		return r->density;
	if (r->gen->period == 0 || r->gen->check_below > 0)
		return NAN; /* the formula needs one period */
	return ratio((double)(r->gen->period - 1) * r->density + 1, r->aal_paper);
}

static void derive(mze_row *r, int32_t n_jobs)
{
	double decoded = (double)(r->n_tok - r->n),
	       n = (double)r->n; /* an answer's first token belongs to its prefill */
	r->strict_ci = mze_wilson(r->n_strict, r->n);
	r->flexible_ci = mze_wilson(r->n_flexible, r->n);
	r->strict_se = mze_accuracy_se(r->n_strict, r->n);
	r->flexible_se = mze_accuracy_se(r->n_flexible, r->n);
	r->aal = r->n_checks ? (double)r->n_gained / (double)r->n_checks : 0;
	r->aal_paper = r->n_checks_paper ? (double)r->n_gained_paper / (double)r->n_checks_paper : 0;
	r->density = r->n_sparse_passes ? r->sparse_work / (double)r->n_sparse_passes : ratio(r->density, n);
	r->read_density = ratio(r->read_density, n);
	if (r->gen->mode == MZM_MODE_DENSE)
		r->density = r->read_density = 1;
	r->effective_density = effective_density(r);
	r->work_per_token = ratio(r->sparse_work + (double)r->n_dense_passes, decoded);
	r->w_nodes = ratio(r->sparse_node_work + (double)r->n_dense_positions, decoded);
	r->prefill_tok_per_s = ratio((double)r->n_prompt_tok * 1e9, (double)r->prefill_ns);
	r->tok_per_s = ratio(decoded * 1e9, (double)r->decode_ns);
	r->tok_per_s_aggregate = r->tok_per_s * n_jobs;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* scratch [n_items] */
static void latency(mze_row *r, const mze_eval *e, int32_t row, double *scratch)
{
	size_t n = 0;
	double sum = 0;
	for (int32_t i = 0; i < e->n_items; i++) {
		const mzm_gen_result *g = &mze_eval_item(e, i, row)->gen;
		if (g->n_tokens > 1)
			sum += scratch[n++] = (double)g->decode_ns / 1e6 / (g->n_tokens - 1);
	}
	r->ms_mean = ratio(sum, (double)n);
	r->ms_ci = mze_bootstrap_mean(scratch, n, BOOTSTRAP_DRAWS, BOOTSTRAP_SEED);
	qsort(scratch, n, sizeof *scratch, ascending);
	r->ms_p10 = mze_quantile(scratch, n, .1);
	r->ms_median = mze_quantile(scratch, n, .5);
	r->ms_p90 = mze_quantile(scratch, n, .9);
}

/* ---- the confidence monitor ---- */

static mzm_status judge_monitor(mze_row *r, const mze_eval *e, int32_t row, mzm_err *err)
{
	size_t most = 0, n = 0;
	for (int32_t i = 0; i < e->n_items; i++)
		most += (size_t)mze_eval_item(e, i, row)->n_drafts;
	mze_judged *judged = mze_calloc(most, sizeof *judged);
	if (!judged)
		return mze_no_memory(err);
	for (int32_t i = 0; i < e->n_items; i++) {
		const mze_item *item = mze_eval_item(e, i, row);
		if (item->n_drafts > 0)
			n += mze_judged_of(judged + n, item->kinds, (size_t)item->n_events, item->confidence);
	}
	mze_reliability_of(&r->monitor, judged, n);
	free(judged);
	return MZM_OK;
}

/* ---- against the dense row ---- */

/* Index of the first token that differs; -1: none. */
static int32_t first_difference(const mzm_gen_result *a, const mzm_gen_result *b)
{
	int32_t n = a->n_tokens < b->n_tokens ? a->n_tokens : b->n_tokens;
	for (int32_t i = 0; i < n; i++) {
		if (a->tokens[i] != b->tokens[i])
			return i;
	}
	return a->n_tokens == b->n_tokens ? -1 : n;
}

static void compare(mze_row *r, const mze_eval *e, int32_t row, int32_t dense, double *scratch)
{
	int64_t strict_only[2] = {0}, flexible_only[2] = {0};
	size_t n_diff = 0;
	double sum = 0;
	r->has_dense = true;
	for (int32_t i = 0; i < e->n_items; i++) {
		const mze_item *a = mze_eval_item(e, i, row), *b = mze_eval_item(e, i, dense);
		int32_t at = first_difference(&a->gen, &b->gen);
		if (at < 0)
			r->n_same++;
		else
			sum += scratch[n_diff++] = at;
		if (a->score.strict_right != b->score.strict_right)
			strict_only[b->score.strict_right]++;
		if (a->score.flexible_right != b->score.flexible_right)
			flexible_only[b->score.flexible_right]++;
	}
	qsort(scratch, n_diff, sizeof *scratch, ascending);
	r->diff_min = mze_quantile(scratch, n_diff, 0);
	r->diff_median = mze_quantile(scratch, n_diff, .5);
	r->diff_mean = ratio(sum, (double)n_diff);
	r->strict_vs = mze_mcnemar_test(strict_only[0], strict_only[1], r->n);
	r->flexible_vs = mze_mcnemar_test(flexible_only[0], flexible_only[1], r->n);
}

/* Holm over the rows that are compared with row `dense`. */
static void correct_for_many(mze_eval *e, int32_t dense)
{
	double p[MZE_MAX_ROWS], adjusted[MZE_MAX_ROWS];
	int n = 0;
	for (int32_t i = 0; i < e->n_rows; i++) {
		if (i != dense)
			p[n++] = e->row[i].strict_vs.p;
	}
	mze_holm(adjusted, p, n);
	n = 0;
	for (int32_t i = 0; i < e->n_rows; i++)
		e->row[i].p_holm = i == dense ? NAN : adjusted[n++];
}

static int32_t find_dense(const mze_eval *e)
{
	for (int32_t i = 0; i < e->n_rows; i++) {
		if (e->gen[i].mode == MZM_MODE_DENSE)
			return i;
	}
	return -1;
}

mzm_status mze_summarise(mze_eval *e, mzm_err *err)
{
	mzm_status st = MZM_OK;
	int32_t dense = find_dense(e);
	double *scratch = mze_calloc((size_t)e->n_items, sizeof *scratch);
	if (!scratch)
		return mze_no_memory(err);
	for (int32_t row = 0; row < e->n_rows; row++) {
		mze_row *r = &e->row[row];
		bool tell = true;
		for (int32_t i = 0; i < e->n_items; i++) {
			const mze_item *item = mze_eval_item(e, i, row);
			add_item(r, item);
			add_drafters(r, &item->gen);
			tell = tell && item->gen.n_drafters > 0;
		}
		if (!tell) /* some were taken over from a file of before there were such */
			r->n_drafters = 0;
		derive(r, e->n_jobs);
		latency(r, e, row, scratch);
		if (st == MZM_OK)
			st = judge_monitor(r, e, row, err);
		if (dense >= 0)
			compare(r, e, row, dense, scratch);
	}
	if (dense >= 0)
		correct_for_many(e, dense);
	free(scratch);
	return st;
}
