/* costs.c - what a draft pass and a check of m tokens cost on this machine, model and predictor, in
 * dense single-token passes: the unit in which --period auto decides.
 *
 * Passes run interleaved on the session's own KV and are rolled back; the median of a few rounds is
 * taken. Between the measured lengths the cost of a check is interpolated. Where weights stream a pass is dear, and a
 * check of whatever length costs what it reads: one round, one length, or none where a pass was timed before. */
#include "engine/engine.h"

#include <string.h>

#include "base/clock.h"

#define ROUNDS   5
#define N_LENGTHS 6

/* What is measured. */
typedef struct survey {
	int     n_rounds, n_warm; /* rounds, after so many that do not count */
	int     n;                /* lengths */
	int32_t length[N_LENGTHS];
} survey;

static survey survey_for(const mzm_session *s, int32_t room, double dense_ns)
{
	survey v = {ROUNDS, 1, N_LENGTHS, {1, 2, 4, 8, 16, 32}};
	if (mzm_store_streamed_bytes(s->model->weights->store, MZM_ORDER_PASS) > 0)
		v = (survey){dense_ns > 0 ? 3 : 1, 0, dense_ns > 0 ? 0 : 1, {room < 32 ? room : 32}};
	while (v.n > 0 && v.length[v.n - 1] > room)
		v.n--;
	return v;
}

static mzm_status time_pass(mzm_session *s, const mzm_pass *pass, double *ns, mzm_err *err)
{
	mzm_kv *kv = mzm_state_kv(s->state);
	int32_t len = kv->len;
	int64_t start = mzm_now_ns();
	MZM_TRY(mzm_forward(s->state, pass, NULL, NULL, err));
	*ns = (double)(mzm_now_ns() - start);
	mzm_kv_truncate(kv, len);
	return MZM_OK;
}

static double median(double *x, int n)
{
	for (int i = 1; i < n; i++) { /* insertion sort of a handful */
		double v = x[i];
		int j = i;
		for (; j > 0 && x[j - 1] > v; j--)
			x[j] = x[j - 1];
		x[j] = v;
	}
	return x[n / 2];
}

/* Fills check[1..MZM_MAX_PERIOD] from the measured lengths; costs never fall with length. */
static void interpolate(mzm_costs *out, const double *cost, const survey *v)
{
	const int32_t *length = v->length;
	for (int32_t m = 1, i = 0; m <= MZM_MAX_PERIOD; m++) {
		while (i + 2 < v->n && m > length[i + 1])
			i++;
		double at = cost[0];
		if (v->n >= 2)
			at = cost[i] + (cost[i + 1] - cost[i]) * (m - length[i]) / (length[i + 1] - length[i]);
		out->check[m] = (float)(m > 1 && at < (double)out->check[m - 1] ? (double)out->check[m - 1] : at);
	}
}

/* A round: a pass of the drafter, if it runs any, and a dense one of each length; nanoseconds. */
static mzm_status run_round(mzm_session *s, mzm_drafter *d, const survey *v, double *draft, double *check, mzm_err *err)
{
	int32_t ids[MZM_MAX_PERIOD] = {0};
	mzm_pass pass = {.ids = ids};
	int64_t start = mzm_now_ns();
	if (d && d->ops->try_pass)
		MZM_TRY(d->ops->try_pass(d, err));
	*draft = (double)(mzm_now_ns() - start);
	for (int i = 0; i < v->n; i++) {
		pass.n_pos = pass.n_rows = v->length[i];
		MZM_TRY(time_pass(s, &pass, &check[i], err));
	}
	return MZM_OK;
}

/* What a pass of drafter `index` costs; the first that is measured brings the costs of checks with it. */
static mzm_status cost_of_drafter(mzm_session *s, mzm_drafter *d, int index, bool measured, mzm_costs *out,
				  mzm_err *err)
{
	bool first = !(out->sparse > 0);
	float cost = mzm_drafter_cost(d);
	if (measured && out->dense_ms > 0)
		MZM_TRY(mzm_session_draft_cost(s, d, (double)out->dense_ms * 1e6, &cost, err));
	else if (measured) {
		MZM_TRY(mzm_session_complete_costs(s, d, 0, out, err));
		cost = out->sparse;
	}
	out->draft[index] = cost;
	if (first)
		out->sparse = cost;
	return MZM_OK;
}

/* Of all drafters of these params that run passes. */
static mzm_status costs_of_drafters(mzm_session *s, const mzm_gen_params *params, bool measured, mzm_costs *out,
				    mzm_err *err)
{
	mzm_draft_env env;
	int list[MZM_MAX_DRAFTERS];
	memset(out, 0, sizeof *out);
	MZM_TRY(mzm_gen_params_check(params, err));
	if (mzm_gen_needs_predictor(params))
		MZM_TRY(mzm_session_use_predictor(s, params, err));
	MZM_TRY(mzm_session_draft_env(&env, s, params, err));
	int n = mzm_drafter_list(list, params->draft);
	for (int i = 0; i < n; i++) {
		mzm_drafter *d;
		const mzm_drafter_ops *ops = mzm_drafter_at(list[i]);
		if (!ops->runs_passes && !(ops == &mzm_draft_jacobi && mzm_jacobi_predicts(params)))
			continue;
		mzm_status st = ops->create(&d, &env, err);
		if (st == MZM_EUNDEFINED && mzm_draft_is_auto(params->draft))
			continue;
		MZM_TRY(st);
		st = cost_of_drafter(s, d, list[i], measured, out, err);
		d->ops->free(d);
		MZM_TRY(st);
	}
	return MZM_OK;
}

mzm_status mzm_session_measure_costs(mzm_session *s, const mzm_gen_params *params, mzm_costs *out, mzm_err *err)
{
	mzm_gen_params defaults = mzm_gen_params_default();
	MZM_TRY(costs_of_drafters(s, params ? params : &defaults, true, out, err));
	return out->sparse > 0 ? MZM_OK : mzm_session_complete_costs(s, NULL, 0, out, err);
}

mzm_status mzm_session_nominal_costs(mzm_session *s, const mzm_gen_params *params, mzm_costs *out, mzm_err *err)
{
	mzm_gen_params defaults = mzm_gen_params_default();
	MZM_TRY(costs_of_drafters(s, params ? params : &defaults, false, out, err));
	for (int32_t m = 1; m <= MZM_MAX_PERIOD; m++)
		out->check[m] = 1;
	if (!(out->sparse > 0))
		out->sparse = mzm_drafter_cost(NULL);
	return MZM_OK;
}

/* A predictor that saw no prompt: any set will do for timing. */
static mzm_status make_ready(mzm_session *s, const mzm_drafter *d, mzm_err *err)
{
	if (s->predictor && s->predictor->ops->settle)
		s->predictor->ops->settle(s->predictor);
	bool predicts = d && (d->ops->needs_predictor || (d->ops->predicts && d->ops->predicts(d)));
	return predicts && s->drafting.held ? mzm_state_hold(s->state, s->predictor, err) : MZM_OK;
}

mzm_status mzm_session_draft_cost(mzm_session *s, mzm_drafter *d, double dense_ns, float *out, mzm_err *err)
{
	double ns[ROUNDS];
	*out = mzm_drafter_cost(d);
	if (!d->ops->try_pass || mzm_session_n_ctx(s) - mzm_session_len(s) < 1)
		return MZM_OK;
	MZM_TRY(make_ready(s, d, err));
	for (int r = -1; r < ROUNDS; r++) { /* the first warms up */
		int64_t start = mzm_now_ns();
		MZM_TRY(d->ops->try_pass(d, err));
		ns[r < 0 ? 0 : r] = (double)(mzm_now_ns() - start);
	}
	*out = (float)(median(ns, ROUNDS) / dense_ns);
	return MZM_OK;
}

mzm_status mzm_session_complete_costs(mzm_session *s, mzm_drafter *d, double dense_ns, mzm_costs *out, mzm_err *err)
{
	double draft[ROUNDS], check[ROUNDS][N_LENGTHS], cost[N_LENGTHS] = {dense_ns}, column[ROUNDS];
	int32_t room = mzm_session_n_ctx(s) - mzm_session_len(s);
	survey v = survey_for(s, room, dense_ns);
	if (room < 1)
		return mzm_fail(err, MZM_ECONTEXT, "no room in the context to measure costs");
	MZM_TRY(make_ready(s, d, err));
	for (int r = -v.n_warm; r < v.n_rounds; r++) {
		int at = r < 0 ? 0 : r;
		MZM_TRY(run_round(s, d, &v, &draft[at], check[at], err));
	}
	for (int i = 0; i < v.n; i++) {
		for (int r = 0; r < v.n_rounds; r++)
			column[r] = check[r][i];
		cost[i] = median(column, v.n_rounds);
	}
	double unit = cost[0];
	for (int i = 0; i < v.n || i < 1; i++)
		cost[i] /= unit;
	interpolate(out, cost, &v);
	out->sparse = d && d->ops->try_pass ? (float)(median(draft, v.n_rounds) / unit) : mzm_drafter_cost(d);
	out->dense_ms = (float)(unit * 1e-6);
	return MZM_OK;
}
