/* held.c - see held.h. */
#include "model/held.h"

#include <string.h>

#include "base/carve.h"
#include "kern/quant.h"
#include "model/state.h"

/* The places of one layer. dtypes and widths are set. */
static void layer_layout(mzm_layer *l, int32_t n, mzm_carve *c)
{
	size_t gate_bytes = mzm_row_bytes(l->gate.dtype, l->gate.n_cols);
	size_t down_bytes = mzm_row_bytes(l->down.dtype, l->down.n_cols);
	size_t up_bytes = l->up.n_rows ? down_bytes : 0;
	l->gate.stride = gate_bytes;
	l->up.stride = l->down.stride = up_bytes + down_bytes;
	l->down.offset = up_bytes;
	l->gate.w = mzm_carve_take(c, (size_t)n, gate_bytes);
	char *pairs = mzm_carve_take(c, (size_t)n, up_bytes + down_bytes);
	l->up.w = l->up.n_rows ? pairs : NULL;
	l->down.w = pairs ? pairs + up_bytes : NULL;
}

static void held_layout(mzm_held *h, int32_t dim, mzm_carve *c)
{
	size_t layers = (size_t)h->n_layers, n = (size_t)h->n;
	h->n_of = MZM_CARVE(c, int32_t, layers);
	h->ids = MZM_CARVE(c, int32_t, layers * n);
	h->at = MZM_CARVE(c, int32_t, layers * n);
	h->place = MZM_CARVE(c, int32_t, layers * (size_t)h->n_ffn);
	h->missing = MZM_CARVE(c, uint8_t, layers * n);
	h->taken = MZM_CARVE(c, uint8_t, n);
	h->wide = MZM_CARVE(c, float, MZM_HELD_RANKS * (size_t)dim);
}

/* A matrix of places: rows are counted as the model's, of which those named in `at` are there. */
static mzm_matrix places(mzm_dtype dtype, const mzm_config *cfg)
{
	return (mzm_matrix){.dtype = dtype, .n_rows = cfg->n_ffn, .n_cols = cfg->dim};
}

bool mzm_held_measure(uint64_t *bytes, const mzm_config *cfg, mzm_dtype gate, mzm_dtype updown, int32_t n)
{
	mzm_held h = {.n_layers = cfg->n_layers, .n_ffn = cfg->n_ffn, .n = n};
	mzm_layer l = {.gate = places(gate, cfg), .up = places(updown, cfg), .down = places(updown, cfg)};
	l.up.n_rows = cfg->ungated ? 0 : l.up.n_rows;
	mzm_carve c = {0}, one = {0};
	size_t of_layers, sum;
	held_layout(&h, cfg->dim, &c);
	MZM_CARVE(&c, mzm_layer, cfg->n_layers);
	layer_layout(&l, n, &one);
	if (c.overflow || one.overflow || !mzm_mul_size(one.used, (size_t)cfg->n_layers, &of_layers) ||
	    !mzm_add_size(c.used, of_layers, &sum))
		return false;
	*bytes = sum;
	return true;
}

static void layers_layout(mzm_held *h, const mzm_config *cfg, const mzm_layer *of, mzm_carve *c)
{
	for (int32_t l = 0; l < h->n_layers; l++) {
		mzm_layer layer = {.gate = places(of[l].gate.dtype, cfg), .up = places(of[l].up.dtype, cfg),
				   .down = places(of[l].down.dtype, cfg)};
		layer.up.n_rows = cfg->ungated ? 0 : cfg->n_ffn;
		if (!of[l].gate.w || !(cfg->ungated ? of[l].down.w : of[l].up.w))
			layer_layout(&layer, h->n, c);
		if (h->layer)
			h->layer[l] = layer;
	}
}

/* Nothing is held. */
static void forget(mzm_held *h)
{
	memset(h->n_of, 0, (size_t)h->n_layers * sizeof *h->n_of);
	memset(h->missing, 0, (size_t)h->n_layers * (size_t)h->n);
	memset(h->place, 0xff, (size_t)h->n_layers * (size_t)h->n_ffn * sizeof *h->place);
}

mzm_status mzm_held_create(mzm_held **out, const mzm_config *cfg, const mzm_layer *of, int32_t n, const mzm_kern *kern,
			   mzm_err *err)
{
	mzm_held *h, shape = {.n_layers = cfg->n_layers, .n_ffn = cfg->n_ffn, .n = n, .kern = kern};
	mzm_carve c = {0};
	*out = NULL;
	held_layout(&shape, cfg->dim, &c);
	shape.layer = NULL;
	MZM_CARVE(&c, mzm_layer, cfg->n_layers);
	layers_layout(&shape, cfg, of, &c);
	if (c.overflow)
		return mzm_fail(err, MZM_EARG, "the neurons to hold are larger than memory can be");
	MZM_TRY(mzm_alloc_for((void **)&h, sizeof *h, "held neurons", err));
	*h = shape;
	mzm_status st = mzm_alloc_for(&h->block, c.used, "held neurons", err);
	if (st != MZM_OK) {
		mzm_held_free(h);
		return st;
	}
	c = (mzm_carve){.base = h->block};
	held_layout(h, cfg->dim, &c);
	h->layer = MZM_CARVE(&c, mzm_layer, cfg->n_layers);
	layers_layout(h, cfg, of, &c);
	forget(h);
	*out = h;
	return MZM_OK;
}

void mzm_held_free(mzm_held *h)
{
	if (!h)
		return;
	mzm_free(h->block);
	mzm_free(h);
}

/* ---- choosing ---- */

/* Frees the places of those that go, and marks those that stay. */
static void clear_places(mzm_held *h, int32_t layer, const int32_t *ids, int32_t n)
{
	const int32_t *old = h->ids + (size_t)layer * (size_t)h->n;
	int32_t *place = h->place + (size_t)layer * (size_t)h->n_ffn;
	memset(h->taken, 0, (size_t)h->n);
	for (int32_t i = 0; i < n; i++)
		if (place[ids[i]] >= 0)
			h->taken[place[ids[i]]] = 1;
	for (int32_t i = 0; i < h->n_of[layer]; i++)
		if (!h->taken[place[old[i]]])
			place[old[i]] = -1;
}

void mzm_held_choose(mzm_held *h, int32_t layer, const int32_t *ids, int32_t n)
{
	size_t first = (size_t)layer * (size_t)h->n;
	int32_t *place = h->place + (size_t)layer * (size_t)h->n_ffn, next = 0;
	if (!h->layer[layer].gate.w)
		return;
	clear_places(h, layer, ids, n);
	for (int32_t i = 0; i < n; i++) {
		if (place[ids[i]] < 0) {
			while (h->taken[next])
				next++;
			h->taken[next] = 1;
			place[ids[i]] = next;
			h->missing[first + (size_t)next] = MZM_HELD_GATE | MZM_HELD_UPDOWN;
		}
		h->ids[first + (size_t)i] = ids[i];
		h->at[first + (size_t)i] = place[ids[i]];
	}
	h->n_of[layer] = n;
	for (int32_t p = 0; p < h->n; p++)
		if (!h->taken[p])
			h->missing[first + (size_t)p] = 0;
}

/* One neuron's row, or its pair of rows. */
static bool copy_row(const mzm_held *h, const mzm_matrix *to, char *dst, const mzm_matrix *from, const char *src,
		     int rank)
{
	size_t to_bytes = mzm_row_bytes(to->dtype, to->n_cols), from_bytes = mzm_row_bytes(from->dtype, from->n_cols);
	float *wide = h->wide + (size_t)rank * (size_t)to->n_cols;
	bool fine = true;
	if (to->dtype == from->dtype) {
		memcpy(dst, src, to->stride);
		return true;
	}
	for (size_t at = 0, row = 0; at < to->stride && fine; at += to_bytes, row++) {
		h->kern->to_f32(wide, src + row * from_bytes, from->dtype, from->n_cols);
		fine = mzm_quant_row(dst + at, wide, to->dtype, to->n_cols, MZM_QUANT_NEAREST);
	}
	return fine;
}

void mzm_held_take(mzm_held *h, int32_t layer, int matrix, const mzm_matrix *m, int32_t row0, int32_t row1,
		   const char *base, int rank, int n_ranks)
{
	const mzm_layer *l = &h->layer[layer];
	const mzm_matrix *to = matrix == MZM_HELD_GATE ? &l->gate : mzm_layer_pairs(l);
	size_t first = (size_t)layer * (size_t)h->n;
	const int32_t *ids = h->ids + first, *at = h->at + first;
	int32_t lo, hi, begin, end;
	if (!to->w || rank >= MZM_HELD_RANKS || (to->dtype != m->dtype && !mzm_dtype_is_quant(to->dtype)))
		return;
	mzm_list_range(ids, h->n_of[layer], row0, row1, &lo, &hi);
	mzm_team_range(hi - lo, 1, rank, n_ranks < MZM_HELD_RANKS ? n_ranks : MZM_HELD_RANKS, &begin, &end);
	char *rows = (char *)(uintptr_t)to->w;
	for (int32_t i = lo + begin; i < lo + end; i++) {
		uint8_t *missing = &h->missing[first + (size_t)at[i]];
		if ((*missing & matrix) && copy_row(h, to, rows + (size_t)at[i] * to->stride, m,
						    base + (size_t)ids[i] * m->stride, rank))
			*missing &= (uint8_t)~matrix;
	}
}

bool mzm_held_is_complete(const mzm_held *h)
{
	uint8_t any = 0;
	for (size_t i = 0; i < (size_t)h->n_layers * (size_t)h->n; i++)
		any |= h->missing[i];
	return any == 0;
}

/* ---- bringing them into memory ---- */

/* All spans of a matrix of the order, one after the other; what is missing of the layer is taken from them. matrix 0:
 * nothing is. */
static mzm_status walk(mzm_state *s, mzm_store_order order, const mzm_matrix *m, int32_t layer, int matrix)
{
	if (m->w) {
		if (matrix)
			mzm_held_take(s->held, layer, matrix, m, 0, m->n_rows, m->w, 0, 1);
		return MZM_OK;
	}
	for (int32_t row = 0; row < m->n_rows; row += m->span_rows) {
		int32_t end = m->n_rows - row < m->span_rows ? m->n_rows : row + m->span_rows;
		MZM_TRY(mzm_pin_span(s, order, m->span + row / m->span_rows));
		const char *base = (const char *)((uintptr_t)(s->span + m->offset) - (uintptr_t)row * m->stride);
		if (matrix)
			mzm_held_take(s->held, layer, matrix, m, row, end, base, 0, 1);
		mzm_store_unpin(s->w->store);
	}
	return MZM_OK;
}

static mzm_status walk_all(mzm_state *s, mzm_store_order order)
{
	for (int32_t i = 0; i < s->w->cfg.n_layers; i++) {
		const mzm_layer *l = &s->w->held_of[i];
		const mzm_matrix *const attention[] = {&l->wq, &l->wk, &l->wv, &l->wo};
		for (int k = 0; k < 4; k++)
			MZM_TRY(walk(s, order, attention[k], i, 0));
		MZM_TRY(walk(s, order, &l->gate, i, MZM_HELD_GATE));
		MZM_TRY(walk(s, order, mzm_layer_pairs(l), i, MZM_HELD_UPDOWN));
	}
	return walk(s, order, s->w->held_of == s->w->draft ? &s->w->draft_head : &s->w->head, 0, 0);
}

static void choose_all(mzm_state *s, mzm_predictor *p)
{
	for (int32_t l = 0; l < s->w->cfg.n_layers; l++) {
		if (!s->held->layer[l].gate.w)
			continue;
		int32_t n = p->ops->want(p, l, s->held->n, s->rows);
		mzm_held_choose(s->held, l, s->rows, n);
	}
}

void mzm_state_rehold(mzm_state *s, mzm_predictor *p)
{
	s->held->mixed = s->w->held_of == s->w->draft;
	choose_all(s, p);
}

mzm_status mzm_state_hold(mzm_state *s, mzm_predictor *p, mzm_err *err)
{
	bool draft = s->w->held_of == s->w->draft;
	mzm_store_order order = draft ? MZM_ORDER_DRAFT : MZM_ORDER_PASS;
	if (s->held->mixed) /* what a prompt finds does not depend on the one before */
		forget(s->held);
	choose_all(s, p);
	s->held->mixed = false;
	if (mzm_held_is_complete(s->held))
		return MZM_OK;
	s->held->mixed = draft; /* what an error leaves to be taken comes with a pass over the model */
	s->why = (mzm_err){0};
	MZM_TRY(mzm_store_begin(s->w->store, order, err));
	mzm_status st = walk_all(s, order);
	mzm_store_end(s->w->store, order);
	if (st != MZM_OK)
		return mzm_fail(err, s->why.code, "%s", s->why.message);
	s->held->mixed = false;
	s->bytes_streamed += mzm_store_streamed_bytes(s->w->store, order);
	return MZM_OK;
}
