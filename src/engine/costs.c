/* costs.c - what a sparse pass and a check of m tokens cost on this machine, model and predictor, in
 * dense single-token passes: the unit in which --period auto decides.
 *
 * Passes run interleaved on the session's own KV and are rolled back; the median of a few rounds is
 * taken. Between the measured lengths the cost of a check is interpolated. */
#include "engine/engine.h"

#include <string.h>

#include "base/clock.h"

#define ROUNDS 5

static const int32_t measured[] = {1, 2, 4, 8, 16, 32};
#define N_MEASURED ((int)(sizeof measured / sizeof *measured))

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
static void interpolate(mzm_costs *out, const double *cost, int n)
{
	for (int32_t m = 1, i = 0; m <= MZM_MAX_PERIOD; m++) {
		while (i + 2 < n && m > measured[i + 1])
			i++;
		double at = cost[0];
		if (n >= 2)
			at = cost[i] + (cost[i + 1] - cost[i]) * (m - measured[i]) / (measured[i + 1] - measured[i]);
		out->check[m] = (float)(m > 1 && at < (double)out->check[m - 1] ? (double)out->check[m - 1] : at);
	}
}

mzm_status mzm_session_measure_costs(mzm_session *s, const mzm_gen_params *params, mzm_costs *out, mzm_err *err)
{
	double sparse[ROUNDS], check[N_MEASURED][ROUNDS], cost[N_MEASURED];
	int32_t ids[MZM_MAX_PERIOD] = {0};
	int32_t room = mzm_session_n_ctx(s) - mzm_session_len(s);
	int n = 0;
	mzm_gen_params defaults = mzm_gen_params_default();
	if (!params)
		params = &defaults;
	memset(out, 0, sizeof *out);
	MZM_TRY(mzm_gen_params_check(params, err));
	MZM_TRY(mzm_session_use_predictor(s, params, err));
	if (s->predictor->ops->settle)
		s->predictor->ops->settle(s->predictor); /* one that saw no prompt: any set will do for timing */
	while (n < N_MEASURED && measured[n] <= room)
		n++;
	if (n == 0)
		return mzm_fail(err, MZM_ECONTEXT, "no room in the context to measure costs");
	for (int r = -1; r < ROUNDS; r++) { /* the first round warms up */
		int at = r < 0 ? 0 : r;
		mzm_pass pass = {.ids = ids, .n_pos = 1, .n_rows = 1, .sparse = s->predictor,
				 .draft = mzm_model_drafts_from_image(s->model, params)};
		MZM_TRY(time_pass(s, &pass, &sparse[at], err));
		pass.sparse = NULL;
		pass.draft = false;
		for (int i = 0; i < n; i++) {
			pass.n_pos = pass.n_rows = measured[i];
			MZM_TRY(time_pass(s, &pass, &check[i][at], err));
		}
	}
	for (int i = 0; i < n; i++)
		cost[i] = median(check[i], ROUNDS);
	double unit = cost[0];
	for (int i = 0; i < n; i++)
		cost[i] /= unit;
	interpolate(out, cost, n);
	out->sparse = (float)(median(sparse, ROUNDS) / unit);
	out->dense_ms = (float)(unit * 1e-6);
	return MZM_OK;
}
