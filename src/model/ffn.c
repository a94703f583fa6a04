/* ffn.c - the gated FFN, z = act(gate x) * (up x), out = down z: dense, or on the neurons that a
 * predictor names.
 *
 * Neurons are rows, so a sparse pass runs the kernels of the dense pass over a list of rows; with all
 * neurons in the list its bits are the dense ones. How much a predictor can save depends on what it
 * must see first (predictor.h): the layer input, act(gate), or z. */
#include "model/state.h"

/* gate[p, i] = act(gate row i . h) for this rank's share of the list; no barrier. */
static void gate_rows(mzm_state *s, const mzm_layer *l, mzm_acts *h, const int32_t *rows, int32_t n, mzm_team *team,
		      int rank)
{
	int32_t begin, end;
	size_t ld = (size_t)s->w->cfg.n_ffn;
	mzm_matmul(s, &l->gate, rows, n, h, s->gate, ld, s->pass->n_pos, team, rank, &begin, &end);
	for (int32_t p = 0; p < s->pass->n_pos && begin < end; p++)
		s->kern->act(s->gate + (size_t)p * ld + begin, s->w->cfg.act, end - begin);
}

/* z = g * up over this rank's share of the list, in place of g; g lies in list order; no barrier. */
static void up_rows(mzm_state *s, const mzm_layer *l, mzm_acts *h, const int32_t *rows, int32_t n, float *g,
		    mzm_team *team, int rank)
{
	int32_t begin, end;
	size_t ld = (size_t)s->w->cfg.n_ffn;
	mzm_matmul(s, &l->up, rows, n, h, s->up, ld, s->pass->n_pos, team, rank, &begin, &end);
	for (int32_t p = 0; p < s->pass->n_pos && begin < end; p++)
		s->kern->mul(g + (size_t)p * ld + begin, s->up + (size_t)p * ld + begin, end - begin);
}

/* x += z times the down rows of the list; ends in a barrier. */
static void down_rows(mzm_state *s, const mzm_layer *l, const int32_t *rows, int32_t n, const float *z, mzm_team *team,
		      int rank)
{
	mzm_matmul_down(s, &l->down, rows, n, z, (size_t)s->w->cfg.n_ffn, team, rank);
	mzm_team_barrier(team, rank);
}

/* Rank 0 asks the predictor and gathers what it had computed for the chosen neurons. */
static void choose(mzm_state *s, int32_t layer, const float *score, const float *from, mzm_team *team, int rank)
{
	if (rank == 0) {
		mzm_predictor *pred = s->pass->sparse;
		s->n_rows = pred->ops->select(pred, layer, s->pos0, score, s->rows);
		s->n_picked += s->n_rows;
		for (int32_t i = 0; from && i < s->n_rows; i++)
			s->picked[i] = from[s->rows[i]];
	}
	mzm_team_barrier(team, rank);
}

static void ffn_sparse(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	int32_t n_ffn = s->w->cfg.n_ffn;
	mzm_acts h = {.x = s->h};
	switch (s->pass->sparse->ops->stage) {
	case MZM_PRED_INPUT:
		choose(s, layer, s->h, NULL, team, rank);
		gate_rows(s, l, &h, s->rows, s->n_rows, team, rank);
		up_rows(s, l, &h, s->rows, s->n_rows, s->gate, team, rank);
		mzm_team_barrier(team, rank);
		down_rows(s, l, s->rows, s->n_rows, s->gate, team, rank);
		break;
	case MZM_PRED_GATE:
		gate_rows(s, l, &h, NULL, n_ffn, team, rank);
		mzm_team_barrier(team, rank);
		choose(s, layer, s->gate, s->gate, team, rank);
		up_rows(s, l, &h, s->rows, s->n_rows, s->picked, team, rank);
		mzm_team_barrier(team, rank);
		down_rows(s, l, s->rows, s->n_rows, s->picked, team, rank);
		break;
	case MZM_PRED_FULL:
		gate_rows(s, l, &h, NULL, n_ffn, team, rank);
		up_rows(s, l, &h, NULL, n_ffn, s->gate, team, rank);
		mzm_team_barrier(team, rank);
		choose(s, layer, s->gate, s->gate, team, rank);
		down_rows(s, l, s->rows, s->n_rows, s->picked, team, rank);
		break;
	}
}

static void ffn_dense(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	int32_t n_ffn = s->w->cfg.n_ffn;
	mzm_acts h = {.x = s->h};
	gate_rows(s, l, &h, NULL, n_ffn, team, rank);
	up_rows(s, l, &h, NULL, n_ffn, s->gate, team, rank);
	mzm_team_barrier(team, rank);
	mzm_predictor *seen_by = s->pass->observer;
	if (seen_by && rank == 0)
		seen_by->ops->observe(seen_by, layer, s->gate, s->pass->n_pos);
	down_rows(s, l, NULL, n_ffn, s->gate, team, rank);
}

void mzm_ffn(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	mzm_norm(s, s->h, s->x, l->ffn_norm, s->pass->n_pos, team, rank);
	if (s->pass->sparse)
		ffn_sparse(s, l, layer, team, rank);
	else
		ffn_dense(s, l, layer, team, rank);
}
