/* ffn.c - the gated FFN, z = act(gate x) * (up x), out = down z, or without a gate z = act(W x), whose W stands in the
 * place of the gate: dense, or on the neurons that a predictor names.
 *
 * Neurons are rows, so a sparse pass runs the kernels of the dense pass over a list of rows; with all
 * neurons in the list its bits are the dense ones. How much a predictor can save depends on what it
 * must see first (predictor.h): the layer input, act(gate), up, or z.
 *
 * Several positions of a sparse pass (nodes of a tree) read the neurons of one list, or nothing would be saved: those
 * with the largest mean score over the positions. Where scores are the predictor's own affair it chooses for each
 * position, and those stay that were chosen most often. */
#include <math.h>
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
	if (s->held && !s->pass->sparse && !s->pass->draft)
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

static int32_t ask(mzm_state *s, int32_t layer, const float *score)
{
	mzm_predictor *pred = s->pass->sparse;
	return pred->ops->select(pred, layer, mzm_pass_position(s, 0), score, s->rows);
}

/* What rank 0 left in s->rows, for all. */
static mzm_neurons chosen(mzm_state *s, const supply *from, mzm_team *team, int rank)
{
	mzm_team_barrier(team, rank);
	return (mzm_neurons){s->rows, from->place ? s->at : NULL, s->n_rows};
}

/* Moves the values of n rows to the front. list: whose values there are, ascending; NULL: those of all neurons. */
static void pick(float *value, const int32_t *list, const int32_t *rows, int32_t n)
{
	for (int32_t i = 0, k = 0; i < n; i++) {
		while (list && list[k] != rows[i])
			k++;
		value[i] = value[list ? k : rows[i]];
	}
}

/* The mean sizes of values [n_pos, n_ffn] that were computed for the n neurons of a list, in list order. */
static void mean_sizes(mzm_state *s, const float *value, int32_t n)
{
	memset(s->sizes, 0, (size_t)n * sizeof *s->sizes);
	for (int32_t p = 0; p < s->pass->n_pos; p++, value += s->w->cfg.n_ffn) {
		for (int32_t i = 0; i < n; i++)
			s->sizes[i] += fabsf(value[i]);
	}
	for (int32_t i = 0; i < n && s->pass->n_pos > 1; i++)
		s->sizes[i] *= 1.0f / (float)s->pass->n_pos;
}

/* What a predictor chooses by, a score a neuron: of one position what was computed; zeros for those that are not
 * there. */
static const float *scores(mzm_state *s, const supply *from, const float *value)
{
	if (s->pass->n_pos == 1 && !from->place)
		return value;
	mean_sizes(s, value, from->all.n);
	int32_t n = s->w->cfg.n_ffn, i = from->all.n;
	while (from->place && n > 0) { /* from behind: a neuron is never before its place in the list */
		n--;
		bool there = i > 0 && from->all.rows[i - 1] == n;
		s->sizes[n] = there ? s->sizes[i - 1] : 0;
		i -= there;
	}
	return s->sizes;
}

/* Rank 0 asks the predictor by values [n_pos, n_ffn] of all neurons there are, of which those of the chosen ones stay,
 * in the order of their list. */
static mzm_neurons choose(mzm_state *s, const supply *from, int32_t layer, float *value, mzm_team *team, int rank)
{
	if (rank == 0) {
		s->n_rows = ask(s, layer, scores(s, from, value));
		if (from->place)
			keep_held(s, from->place);
		for (int32_t p = 0; p < s->pass->n_pos; p++)
			pick(value + (size_t)p * (size_t)s->w->cfg.n_ffn, from->all.rows, s->rows, s->n_rows);
	}
	return chosen(s, from, team, rank);
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
	mzm_neurons of = choose(s, from, layer, s->gate, team, rank);
	mzm_part whole = {0, l->down.n_rows, l->down.w};
	mzm_matmul_down(s, &l->down, &whole, of, s->gate, team, rank);
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
	mzm_neurons of = choose(s, from, layer, s->up, team, rank);
	gate_rows(s, l, layer, h, of, team, rank);
	int32_t begin, end;
	mzm_team_range(of.n, MZM_COL_GRAIN, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = 0; i < s->pass->n_pos && begin < end; i++) {
		size_t at = (size_t)i * (size_t)s->w->cfg.n_ffn + (size_t)begin;
		s->kern->mul(s->gate + at, s->up + at, end - begin);
	}
	mzm_team_barrier(team, rank);
	mzm_part whole = {0, l->down.n_rows, l->down.w};
	mzm_matmul_down(s, &l->down, &whole, of, s->gate, team, rank);
	mzm_team_barrier(team, rank);
}

static void count_rows(mzm_state *s, int32_t gate, int32_t up, int32_t down, int rank)
{
	if (rank == 0)
		s->n_read += (int64_t)gate + (s->w->cfg.ungated ? 0 : up) + down;
}

/* Rank 0: of the candidates those that the predictor wants by the mean sizes of their gates. */
static int32_t refine_shared(mzm_state *s, int32_t layer)
{
	mzm_predictor *pred = s->pass->sparse;
	int32_t *candidates = s->at; /* filled anew behind this */
	memcpy(candidates, s->rows, (size_t)s->n_rows * sizeof *candidates);
	mean_sizes(s, s->gate, s->n_rows);
	int32_t n = pred->ops->refine(pred, layer, s->sizes, s->rows, s->n_rows);
	for (int32_t p = 0; p < s->pass->n_pos; p++)
		pick(s->gate + (size_t)p * (size_t)s->w->cfg.n_ffn, candidates, s->rows, n);
	return n;
}

/* Of the candidates, whose gates are known now, those that the predictor wants. */
static mzm_neurons refine(mzm_state *s, const supply *from, int32_t layer, mzm_team *team, int rank)
{
	mzm_predictor *pred = s->pass->sparse;
	if (rank == 0) {
		s->n_rows = s->pass->n_pos > 1 ? refine_shared(s, layer)
					       : pred->ops->refine(pred, layer, s->gate, s->rows, s->n_rows);
		for (int32_t i = 0; from->place && i < s->n_rows; i++)
			s->at[i] = from->place[s->rows[i]];
	}
	mzm_team_barrier(team, rank);
	return (mzm_neurons){s->rows, from->place ? s->at : NULL, s->n_rows};
}

/* Rank 0: as many as the position p with most would have, those that most positions want; among equals the ones of the
 * first position, which is the best line of the tree. Positions come from the last to the first. */
static int32_t vote(mzm_state *s, int32_t layer, int32_t p, int32_t n_most)
{
	int32_t n_ffn = s->w->cfg.n_ffn, n = ask(s, layer, s->up);
	n_most = n > n_most ? n : n_most;
	if (p == s->pass->n_pos - 1)
		memset(s->sizes, 0, (size_t)n_ffn * sizeof *s->sizes);
	for (int32_t i = 0; i < n; i++)
		s->sizes[s->rows[i]] += p == 0 ? 1.5f : 1.0f;
	if (p == 0)
		mzm_select_top(s->rows, n_most, s->sizes, n_ffn, s->gate);
	return n_most;
}

/* Stage INPUT: by the predictor's own scores, or none. */
static mzm_neurons choose_by_input(mzm_state *s, const supply *from, int32_t layer, mzm_team *team, int rank)
{
	mzm_predictor *pred = s->pass->sparse;
	int32_t n_pos = pred->ops->score ? s->pass->n_pos : 1, n = 0;
	for (int32_t p = n_pos - 1; p >= 0; p--) {
		if (pred->ops->score) {
			pred->ops->score(pred, layer, s->h + (size_t)p * (size_t)s->w->cfg.dim, s->up, team, rank);
			mzm_team_barrier(team, rank);
		}
		if (rank == 0 && n_pos > 1)
			n = vote(s, layer, p, n);
		if (n_pos > 1)
			mzm_team_barrier(team, rank);
	}
	if (rank == 0) {
		s->n_rows = n_pos > 1 ? n : ask(s, layer, pred->ops->score ? s->up : s->h);
		if (from->place)
			keep_held(s, from->place);
	}
	return chosen(s, from, team, rank);
}

/* Stage INPUT: no gate is computed that was not asked for. */
static void sparse_from_input(mzm_state *s, const supply *from, int32_t layer, mzm_team *team, int rank)
{
	mzm_acts h = {.x = s->h};
	mzm_neurons of = choose_by_input(s, from, layer, team, rank);
	int32_t n_gates = of.n;
	gate_rows(s, from->l, layer, &h, of, team, rank);
	if (s->pass->sparse->ops->refine)
		of = refine(s, from, layer, team, rank);
	up_down(s, from->l, layer, &h, of, s->gate, team, rank);
	count_rows(s, n_gates, of.n, of.n, rank);
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
	mzm_neurons of = choose(s, &from, layer, s->gate, team, rank);
	up_down(s, from.l, layer, &h, of, s->gate, team, rank);
	count_rows(s, from.all.n, of.n, of.n, rank);
}

/* This rank's share of the positions; ends in a barrier. */
static void mask_gates(mzm_state *s, mzm_team *team, int rank)
{
	size_t n_ffn = (size_t)s->w->cfg.n_ffn;
	int32_t begin, end;
	mzm_team_range(s->pass->n_pos, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t p = begin; p < end; p++)
		s->kern->mul(s->gate + (size_t)p * n_ffn, s->pass->mask + (size_t)p * n_ffn, s->w->cfg.n_ffn);
	mzm_team_barrier(team, rank);
}

static void ffn_dense(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	mzm_neurons all = {NULL, NULL, s->w->cfg.n_ffn};
	mzm_acts h = {.x = s->h};
	gate_rows(s, l, layer, &h, all, team, rank);
	if (s->pass->mask && s->pass->mask_layer == layer)
		mask_gates(s, team, rank);
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
