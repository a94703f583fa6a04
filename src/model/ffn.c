/* ffn.c - the gated FFN, z = act(gate x) * (up x), out = down z, or without a gate z = act(W x), whose W stands in the
 * place of the gate: dense, or on the neurons that a predictor names.
 *
 * Neurons are rows, so a sparse pass runs the kernels of the dense pass over a list of rows; with all
 * neurons in the list its bits are the dense ones. How much a predictor can save depends on what it
 * must see first (predictor.h): the layer input, act(gate), up, or z. */
#include <string.h>

#include "model/state.h"

static void activate(mzm_state *s, const mzm_product *p, int32_t begin, int32_t end)
{
	for (int32_t i = 0; i < p->n_pos; i++)
		s->kern->act(p->y + (size_t)i * p->ldy + begin, s->w->cfg.act, s->w->cfg.act_threshold, end - begin);
}

/* z *= y, both in list order. */
static void multiply(mzm_state *s, const mzm_product *p, int32_t begin, int32_t end)
{
	for (int32_t i = 0; i < p->n_pos; i++)
		s->kern->mul(p->z + (size_t)i * p->ldy + begin, p->y + (size_t)i * p->ldy + begin, end - begin);
}

/* A dense pass leaves there what sparse passes are to hold. */
static void take(mzm_state *s, const mzm_matrix *m, int32_t layer, int matrix, const mzm_part *part, mzm_team *team,
		 int rank)
{
	if (s->held && !s->pass->sparse)
		mzm_held_take(s->held, layer, matrix, m, part->row0, part->row1, part->base, rank, mzm_team_size(team));
}

/* gate[p, i] = act(gate row i . h); ends in a barrier. */
static void gate_rows(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_acts *h, mzm_neurons of, mzm_team *team,
		      int rank)
{
	mzm_product p = {.m = &l->gate, .rows = of.at ? of.at : of.rows, .n_rows = of.n, .x = h, .y = s->gate,
			 .ldy = (size_t)s->w->cfg.n_ffn, .n_pos = s->pass->n_pos, .after = activate,
			 .bias = s->w->layer[layer].b_gate, .bias_at = of.rows};
	mzm_part part = {0};
	while (mzm_next_part(s, &l->gate, &part, team, rank)) {
		take(s, &l->gate, layer, MZM_HELD_GATE, &part, team, rank);
		mzm_matmul_part(s, &p, &part, team, rank);
	}
	mzm_team_barrier(team, rank);
}

static mzm_product up_product(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_acts *h, mzm_neurons of, float *g)
{
	return (mzm_product){.m = &l->up, .rows = of.at ? of.at : of.rows, .n_rows = of.n, .x = h, .y = s->up,
			     .ldy = (size_t)s->w->cfg.n_ffn, .n_pos = s->pass->n_pos, .after = multiply,
			     .z = g, .bias = s->w->layer[layer].b_up, .bias_at = of.rows};
}

/* z = g * up in place of g, and the output += z times the down rows, part by part: the rows of a neuron come together.
 * g lies in list order; without a gate it is z. Ends in a barrier. */
static void up_down(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_acts *h, mzm_neurons of, float *g,
		    mzm_team *team, int rank)
{
	bool gated = l->up.n_rows > 0;
	const mzm_matrix *pairs = mzm_layer_pairs(l);
	mzm_product p = up_product(s, l, layer, h, of, g);
	mzm_part part = {0};
	while (mzm_next_part(s, pairs, &part, team, rank)) {
		mzm_part down = part;
		if (gated)
			down.base = (const char *)((uintptr_t)part.base + l->down.offset);
		if (s->pass->n_pos > MZM_MAX_POS)
			h->is_packed = false; /* the part before used its place */
		take(s, pairs, layer, MZM_HELD_UPDOWN, &part, team, rank);
		if (gated) {
			mzm_matmul_part(s, &p, &part, team, rank);
			mzm_team_barrier(team, rank);
		}
		mzm_matmul_down(s, &l->down, &down, of, g, team, rank);
	}
	mzm_team_barrier(team, rank);
}

/* What the down projection adds to: x, or nothing yet, and its bias. This rank's share of the positions; the next
 * barrier is before the first sum. */
static void start_sums(mzm_state *s, int32_t layer, mzm_team *team, int rank)
{
	const float *bias = s->w->layer[layer].b_down;
	size_t dim = (size_t)s->w->cfg.dim;
	float *sink = mzm_ffn_sink(s);
	int32_t begin, end;
	mzm_team_range(s->pass->n_pos, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t p = begin; p < end; p++) {
		if (s->post)
			memset(sink + (size_t)p * dim, 0, dim * sizeof *sink);
		if (bias)
			s->kern->add(sink + (size_t)p * dim, bias, s->w->cfg.dim);
	}
}

/* ---- sparse passes ---- */

/* What a sparse pass finds of a layer: all neurons, or those that are held. */
typedef struct supply {
	const mzm_layer *l;
	mzm_neurons      all;
	const int32_t   *place; /* [n_ffn] of the held ones; NULL: each is in its row */
} supply;

static supply supply_of(const mzm_state *s, const mzm_layer *l, int32_t layer)
{
	mzm_held *h = s->held;
	if (!s->pass->held || !h->layer[layer].gate.w)
		return (supply){l, {NULL, NULL, s->w->cfg.n_ffn}, NULL};
	size_t first = (size_t)layer * (size_t)h->n;
	return (supply){&h->layer[layer], {h->ids + first, h->at + first, h->n_of[layer]},
			h->place + (size_t)layer * (size_t)h->n_ffn};
}

/* Drops those that are not held. */
static void keep_held(mzm_state *s, const int32_t *place)
{
	int32_t n = 0;
	for (int32_t i = 0; i < s->n_rows; i++) {
		s->at[n] = place[s->rows[i]];
		s->rows[n] = s->rows[i];
		n += s->at[n] >= 0;
	}
	s->n_rows = n;
}

/* Rank 0 asks the predictor and gathers what it had computed for the chosen neurons. */
static mzm_neurons choose(mzm_state *s, const supply *from, int32_t layer, const float *score, bool gather,
			  mzm_team *team, int rank)
{
	if (rank == 0) {
		mzm_predictor *pred = s->pass->sparse;
		s->n_rows = pred->ops->select(pred, layer, s->pos0, score, s->rows);
		if (from->place)
			keep_held(s, from->place);
		for (int32_t i = 0; gather && i < s->n_rows; i++)
			s->picked[i] = score[s->rows[i]];
	}
	mzm_team_barrier(team, rank);
	return (mzm_neurons){s->rows, from->place ? s->at : NULL, s->n_rows};
}

/* act(gate) by neuron: where not all were computed, zeros between them. Rank 0's, until the up product. */
static const float *scores(mzm_state *s, const supply *from, int rank)
{
	if (!from->place || rank > 0)
		return s->gate;
	memset(s->up, 0, (size_t)s->w->cfg.n_ffn * sizeof *s->up);
	for (int32_t i = 0; i < from->all.n; i++)
		s->up[from->all.rows[i]] = s->gate[i];
	return s->up;
}

/* Stage FULL: the choice falls between up and down, so the matrix must be in memory (session.c sees to that). */
static void choose_of_all(mzm_state *s, const supply *from, int32_t layer, mzm_acts *h, mzm_team *team, int rank)
{
	const mzm_layer *l = from->l;
	if (l->up.n_rows > 0) {
		mzm_product p = up_product(s, l, layer, h, from->all, s->gate);
		mzm_matmul(s, &p, team, rank);
		mzm_team_barrier(team, rank);
	}
	mzm_neurons chosen = choose(s, from, layer, s->gate, true, team, rank);
	mzm_part whole = {0, l->down.n_rows, l->down.w};
	mzm_matmul_down(s, &l->down, &whole, chosen, s->picked, team, rank);
	mzm_team_barrier(team, rank);
}

/* Stage UP: up of all neurons, then the gates of the chosen ones. The matrix must be in memory, as above. */
static void choose_by_up(mzm_state *s, const supply *from, int32_t layer, mzm_acts *h, mzm_team *team, int rank)
{
	const mzm_layer *l = from->l;
	mzm_product p = up_product(s, l, layer, h, from->all, s->up);
	p.after = NULL;
	mzm_matmul(s, &p, team, rank);
	mzm_team_barrier(team, rank);
	mzm_neurons chosen = choose(s, from, layer, s->up, true, team, rank);
	gate_rows(s, l, layer, h, chosen, team, rank);
	int32_t begin, end;
	mzm_team_range(chosen.n, MZM_COL_GRAIN, rank, mzm_team_size(team), &begin, &end);
	if (begin < end)
		s->kern->mul(s->gate + begin, s->picked + begin, end - begin);
	mzm_team_barrier(team, rank);
	mzm_part whole = {0, l->down.n_rows, l->down.w};
	mzm_matmul_down(s, &l->down, &whole, chosen, s->gate, team, rank);
	mzm_team_barrier(team, rank);
}

static void count_rows(mzm_state *s, int32_t gate, int32_t up, int32_t down, int rank)
{
	if (rank == 0)
		s->n_read += (int64_t)gate + (s->w->cfg.ungated ? 0 : up) + down;
}

/* Of the candidates, whose gates are known now, those that the predictor wants. */
static mzm_neurons refine(mzm_state *s, const supply *from, int32_t layer, mzm_team *team, int rank)
{
	mzm_predictor *pred = s->pass->sparse;
	if (rank == 0) {
		s->n_rows = pred->ops->refine(pred, layer, s->gate, s->rows, s->n_rows);
		for (int32_t i = 0; from->place && i < s->n_rows; i++)
			s->at[i] = from->place[s->rows[i]];
	}
	mzm_team_barrier(team, rank);
	return (mzm_neurons){s->rows, from->place ? s->at : NULL, s->n_rows};
}

/* Stage INPUT: no gate is computed that was not asked for. */
static void sparse_from_input(mzm_state *s, const supply *from, int32_t layer, mzm_team *team, int rank)
{
	mzm_predictor *pred = s->pass->sparse;
	mzm_acts h = {.x = s->h};
	const float *score = s->h;
	if (pred->ops->score) {
		pred->ops->score(pred, layer, s->h, s->up, team, rank);
		mzm_team_barrier(team, rank);
		score = s->up;
	}
	mzm_neurons chosen = choose(s, from, layer, score, false, team, rank);
	int32_t n_gates = chosen.n;
	gate_rows(s, from->l, layer, &h, chosen, team, rank);
	if (pred->ops->refine)
		chosen = refine(s, from, layer, team, rank);
	up_down(s, from->l, layer, &h, chosen, s->gate, team, rank);
	count_rows(s, n_gates, chosen.n, chosen.n, rank);
}

static void ffn_sparse(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	supply from = supply_of(s, l, layer);
	mzm_acts h = {.x = s->h};
	if (s->pass->sparse->ops->stage == MZM_PRED_INPUT) {
		sparse_from_input(s, &from, layer, team, rank);
		return;
	}
	if (s->pass->sparse->ops->stage == MZM_PRED_UP && l->up.n_rows > 0) {
		choose_by_up(s, &from, layer, &h, team, rank);
		count_rows(s, s->n_rows, from.all.n, s->n_rows, rank);
		return;
	}
	gate_rows(s, from.l, layer, &h, from.all, team, rank);
	if (s->pass->sparse->ops->stage == MZM_PRED_FULL) {
		choose_of_all(s, &from, layer, &h, team, rank);
		count_rows(s, from.all.n, from.all.n, s->n_rows, rank);
		return;
	}
	mzm_neurons chosen = choose(s, &from, layer, scores(s, &from, rank), true, team, rank);
	up_down(s, from.l, layer, &h, chosen, s->picked, team, rank);
	count_rows(s, from.all.n, chosen.n, chosen.n, rank);
}

static void ffn_dense(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	mzm_neurons all = {NULL, NULL, s->w->cfg.n_ffn};
	mzm_acts h = {.x = s->h};
	gate_rows(s, l, layer, &h, all, team, rank);
	up_down(s, l, layer, &h, all, s->gate, team, rank);
	mzm_predictor *seen_by = s->pass->observer;
	if (seen_by && rank == 0) /* who reaches the next layer's gate has met rank 0 on the way */
		seen_by->ops->observe(seen_by, layer, s->gate, s->pass->n_pos);
}

void mzm_ffn(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	if (s->w->cfg.parallel == MZM_SERIAL) /* else h is there already (attention.c) */
		mzm_norm(s, s->h, s->x, l->ffn_norm, l->ffn_norm_bias, s->pass->n_pos, team, rank);
	start_sums(s, layer, team, rank);
	if (s->pass->see_input && rank == 0)
		s->pass->see_input(s->pass->see_ctx, layer, s->h, s->pass->n_pos);
	if (s->pass->sparse)
		ffn_sparse(s, l, layer, team, rank);
	else
		ffn_dense(s, l, layer, team, rank);
	if (l->ffn_post_norm)
		mzm_join_normed(s, s->post, l->ffn_post_norm, team, rank);
}
