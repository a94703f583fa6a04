/* ffn.c - the gated FFN, z = act(gate x) * (up x), out = down z: dense, or on the neurons that a
 * predictor names.
 *
 * Neurons are rows, so a sparse pass runs the kernels of the dense pass over a list of rows; with all
 * neurons in the list its bits are the dense ones. How much a predictor can save depends on what it
 * must see first (predictor.h): the layer input, act(gate), or z. */
#include "model/state.h"

static void activate(mzm_state *s, const mzm_product *p, int32_t begin, int32_t end)
{
	for (int32_t i = 0; i < p->n_pos; i++)
		s->kern->act(p->y + (size_t)i * p->ldy + begin, s->w->cfg.act, end - begin);
}

/* z *= y, both in list order. */
static void multiply(mzm_state *s, const mzm_product *p, int32_t begin, int32_t end)
{
	for (int32_t i = 0; i < p->n_pos; i++)
		s->kern->mul(p->z + (size_t)i * p->ldy + begin, p->y + (size_t)i * p->ldy + begin, end - begin);
}

/* Neurons of a pass: a list, or all. */
typedef struct neurons {
	const int32_t *rows; /* [n] ascending; NULL: all */
	int32_t        n;
} neurons;

/* gate[p, i] = act(gate row i . h); ends in a barrier. */
static void gate_rows(mzm_state *s, const mzm_layer *l, mzm_acts *h, neurons of, mzm_team *team, int rank)
{
	mzm_product p = {.m = &l->gate, .rows = of.rows, .n_rows = of.n, .x = h, .y = s->gate,
			 .ldy = (size_t)s->w->cfg.n_ffn, .n_pos = s->pass->n_pos, .after = activate};
	mzm_matmul(s, &p, team, rank);
	mzm_team_barrier(team, rank);
}

static mzm_product up_product(mzm_state *s, const mzm_layer *l, mzm_acts *h, neurons of, float *g)
{
	return (mzm_product){.m = &l->up, .rows = of.rows, .n_rows = of.n, .x = h, .y = s->up,
			     .ldy = (size_t)s->w->cfg.n_ffn, .n_pos = s->pass->n_pos, .after = multiply,
			     .z = g};
}

/* z = g * up in place of g, and x += z times the down rows, part by part: the rows of a neuron come together. g lies
 * in list order. Ends in a barrier. */
static void up_down(mzm_state *s, const mzm_layer *l, mzm_acts *h, neurons of, float *g, mzm_team *team, int rank)
{
	mzm_product p = up_product(s, l, h, of, g);
	mzm_part up = {0};
	while (mzm_next_part(s, &l->up, &up, team, rank)) {
		mzm_part down = up;
		down.base = (const char *)((uintptr_t)up.base + l->down.offset);
		if (s->pass->n_pos > MZM_MAX_POS)
			h->is_packed = false; /* the part before used its place */
		mzm_matmul_part(s, &p, &up, team, rank);
		mzm_team_barrier(team, rank);
		mzm_matmul_down(s, &l->down, &down, of.rows, of.n, g, team, rank);
	}
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

/* Stage FULL: the choice falls between up and down, so the matrix must be in memory (session.c sees to that). */
static void choose_of_all(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_acts *h, mzm_team *team, int rank)
{
	neurons all = {NULL, s->w->cfg.n_ffn};
	mzm_product p = up_product(s, l, h, all, s->gate);
	mzm_matmul(s, &p, team, rank);
	mzm_team_barrier(team, rank);
	choose(s, layer, s->gate, s->gate, team, rank);
	mzm_part whole = {0, l->down.n_rows, l->down.w};
	mzm_matmul_down(s, &l->down, &whole, s->rows, s->n_rows, s->picked, team, rank);
	mzm_team_barrier(team, rank);
}

static void ffn_sparse(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	neurons all = {NULL, s->w->cfg.n_ffn};
	mzm_acts h = {.x = s->h};
	if (s->pass->sparse->ops->stage == MZM_PRED_INPUT) {
		choose(s, layer, s->h, NULL, team, rank);
		neurons chosen = {s->rows, s->n_rows};
		gate_rows(s, l, &h, chosen, team, rank);
		up_down(s, l, &h, chosen, s->gate, team, rank);
		return;
	}
	gate_rows(s, l, &h, all, team, rank);
	if (s->pass->sparse->ops->stage == MZM_PRED_FULL) {
		choose_of_all(s, l, layer, &h, team, rank);
		return;
	}
	choose(s, layer, s->gate, s->gate, team, rank);
	up_down(s, l, &h, (neurons){s->rows, s->n_rows}, s->picked, team, rank);
}

static void ffn_dense(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	neurons all = {NULL, s->w->cfg.n_ffn};
	mzm_acts h = {.x = s->h};
	gate_rows(s, l, &h, all, team, rank);
	up_down(s, l, &h, all, s->gate, team, rank);
	mzm_predictor *seen_by = s->pass->observer;
	if (seen_by && rank == 0) /* who reaches the next layer's gate has met rank 0 on the way */
		seen_by->ops->observe(seen_by, layer, s->gate, s->pass->n_pos);
}

void mzm_ffn(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	mzm_norm(s, s->h, s->x, l->ffn_norm, s->pass->n_pos, team, rank);
	if (s->pass->sparse)
		ffn_sparse(s, l, layer, team, rank);
	else
		ffn_dense(s, l, layer, team, rank);
}
