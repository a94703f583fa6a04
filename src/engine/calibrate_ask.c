/* calibrate_ask.c - a predictor's choice for one position of the sample, as a sparse pass would get it (ffn.c), but on
 * the inputs that the dense model had: what earlier layers did wrong is not in it. */
#include "base/clock.h"
#include "engine/calibrate.h"

void mzm_calibrate_ask_layout(mzm_ask *q, const mzm_config *cfg, mzm_carve *c)
{
	q->rows = MZM_CARVE(c, int32_t, cfg->n_ffn);
	q->score = MZM_CARVE(c, float, cfg->n_ffn);
	q->picked = MZM_CARVE(c, float, cfg->n_ffn);
}

void mzm_calibrate_ask_at(mzm_ask *q, int32_t at)
{
	const mzm_calibration *c = q->c;
	size_t n_ffn = (size_t)c->model->weights->cfg.n_ffn, i = (size_t)c->n_train + (size_t)at;
	q->x = c->work.x + i * (size_t)c->model->weights->cfg.dim;
	q->gate = c->work.gate + i * n_ffn;
	q->z = c->work.z + i * n_ffn;
	q->up = c->work.up + (size_t)at * n_ffn;
}

static void run_score(void *ctx, mzm_team *team, int rank)
{
	mzm_ask *q = ctx;
	mzm_team_barrier(team, rank);
	int64_t start = mzm_now_ns();
	q->p->ops->score(q->p, q->layer, q->x, q->score, team, rank);
	mzm_team_barrier(team, rank);
	if (rank == 0)
		q->score_ns = mzm_now_ns() - start;
}

static const float *input_of(mzm_ask *q)
{
	switch (q->p->ops->stage) {
	case MZM_PRED_GATE: return q->gate;
	case MZM_PRED_UP: return q->up;
	case MZM_PRED_FULL: return q->z;
	default: break;
	}
	if (!q->p->ops->score)
		return q->x;
	mzm_team_run(q->c->session->team, run_score, q);
	return q->score;
}

void mzm_calibrate_ask(mzm_ask *q, mzm_predictor *p, int32_t pos)
{
	q->p = p;
	q->score_ns = 0;
	const float *input = input_of(q);
	int64_t start = mzm_now_ns();
	q->n_chosen = q->n = p->ops->select(p, q->layer, pos, input, q->rows);
	if (p->ops->refine) {
		for (int32_t i = 0; i < q->n; i++)
			q->picked[i] = q->gate[q->rows[i]];
		q->n = p->ops->refine(p, q->layer, q->picked, q->rows, q->n);
	}
	q->ns = q->score_ns + mzm_now_ns() - start;
}

void mzm_calibrate_show_prompt(mzm_predictor *p, const mzm_calibration *c, int32_t layer, const mzm_window *w)
{
	const float *z = c->work.z + (size_t)w->row * (size_t)c->model->weights->cfg.n_ffn;
	if (p->ops->reset)
		p->ops->reset(p);
	if (p->observes && p->ops->observe && w->n_rows > 1)
		p->ops->observe(p, layer, z, w->n_rows / 2);
	if (p->ops->settle)
		p->ops->settle(p);
}

bool mzm_calibrate_is_ready(const mzm_calibration *c, const mzm_predictor_ops *ops, const mzm_calib *fitted)
{
	return !ops->calibration || mzm_calib_count(fitted, ops->calibration, c->model->weights->cfg.n_layers) > 0;
}
