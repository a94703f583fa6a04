/* weights.c - see weights.h. One block holds the table of layers, the norms of the down rows and the
 * tensors, laid out by one function that runs twice (carve.h). */
#include "model/weights.h"

#include <math.h>
#include <string.h>

#include "base/carve.h"

/* How a tensor is held. */
typedef struct holding {
	bool    skipped, streamed;
	void   *data;      /* in memory, or mapped */
	int32_t span;      /* streamed */
	int32_t span_rows;
} holding;

static mzm_matrix matrix(const mzm_tensor *t, const holding *h)
{
	return (mzm_matrix){.by_input = t->by_input, .dtype = t->dtype, .n_rows = t->n_rows, .n_cols = t->n_cols,
			    .stride = mzm_row_bytes(t->dtype, t->n_cols), .w = h->data, .span = h->span,
			    .span_rows = h->span_rows};
}

/* Where a vector is bound. */
static const float **vector_at(mzm_weights *w, mzm_layer *l, mzm_tensor_kind kind)
{
	switch (kind) {
	case MZM_T_ATTN_NORM: return &l->attn_norm;
	case MZM_T_FFN_NORM: return &l->ffn_norm;
	case MZM_T_ATTN_NORM_BIAS: return &l->attn_norm_bias;
	case MZM_T_FFN_NORM_BIAS: return &l->ffn_norm_bias;
	case MZM_T_BQ: return &l->bq;
	case MZM_T_BK: return &l->bk;
	case MZM_T_BV: return &l->bv;
	case MZM_T_BO: return &l->bo;
	case MZM_T_Q_NORM: return &l->q_norm;
	case MZM_T_K_NORM: return &l->k_norm;
	case MZM_T_ATTN_POST_NORM: return &l->attn_post_norm;
	case MZM_T_FFN_POST_NORM: return &l->ffn_post_norm;
	case MZM_T_B_GATE: return &l->b_gate;
	case MZM_T_B_UP: return &l->b_up;
	case MZM_T_B_DOWN: return &l->b_down;
	case MZM_T_OUT_NORM_BIAS: return &w->out_norm_bias;
	case MZM_T_FREQ: return &l->freq;
	case MZM_T_FEATURE: return &l->feature;
	case MZM_T_DECAY: return &l->decay;
	case MZM_T_GROUP_NORM: return &l->group_norm;
	case MZM_T_GROUP_NORM_BIAS: return &l->group_norm_bias;
	default: return &w->out_norm;
	}
}

/* Gives the tensor its place in the model, or in its draft image. */
static void bind(mzm_weights *w, const mzm_tensor *t, const holding *h)
{
	mzm_matrix m = matrix(t, h);
	bool draft = t->role == MZM_ROLE_DRAFT;
	mzm_layer *l = t->layer < 0 ? NULL : draft ? &w->draft[t->layer] : &w->layer[t->layer];
	switch (t->kind) {
	case MZM_T_EMBED:
		w->embed = m;
		if (w->cfg.tied)
			w->head = m;
		break;
	case MZM_T_POS: w->pos = m; break;
	case MZM_T_WQ: l->wq = m; break;
	case MZM_T_WK: l->wk = m; break;
	case MZM_T_WV: l->wv = m; break;
	case MZM_T_WO: l->wo = m; break;
	case MZM_T_WG: l->wg = m; break;
	case MZM_T_GATE: l->gate = m; break;
	case MZM_T_DOWN: l->down = m; break;
	case MZM_T_UPDOWN: /* rows 2j and 2j+1 belong to neuron j */
		m.n_rows /= 2;
		m.span_rows /= 2;
		m.stride *= 2;
		l->up = l->down = m;
		l->down.offset = m.stride / 2;
		l->down.w = m.w ? (const char *)m.w + m.stride / 2 : NULL;
		break;
	case MZM_T_HEAD: *(draft ? &w->draft_head : &w->head) = m; break;
	default: *vector_at(w, l, t->kind) = h->data; break;
	}
}

/* The draft image has no vectors of its own, and no gate of the attention. */
static void share_vectors(mzm_weights *w)
{
	for (int32_t i = 0; w->draft && i < w->cfg.n_layers; i++) {
		mzm_layer d = w->draft[i];
		w->draft[i] = w->layer[i];
		w->draft[i].wq = d.wq;
		w->draft[i].wk = d.wk;
		w->draft[i].wv = d.wv;
		w->draft[i].wo = d.wo;
		w->draft[i].gate = d.gate;
		w->draft[i].up = d.up;
		w->draft[i].down = d.down;
	}
}

/* held: [mzm_source_n_tensors], data filled when the carve has a base. Tensors start on pages where a store reads them,
 * if the block does. */
static void weights_layout(mzm_weights *w, mzm_source *src, const mzm_residency *r, holding *held, mzm_carve *c)
{
	w->layer = MZM_CARVE(c, mzm_layer, w->cfg.n_layers);
	if (mzm_source_has_draft(src) && !(r && r->no_draft))
		w->draft = MZM_CARVE(c, mzm_layer, w->cfg.n_layers);
	if (!r || r->kind == MZM_STORE_RESIDENT)
		w->down_norm = MZM_CARVE(c, float, (size_t)w->cfg.n_layers * (size_t)w->cfg.n_ffn);
	if ((!r || r->kind == MZM_STORE_RESIDENT) && !w->cfg.ungated)
		w->up_norm = MZM_CARVE(c, float, (size_t)w->cfg.n_layers * (size_t)w->cfg.n_ffn);
	if (r && r->kind == MZM_STORE_MMAP)
		return;
	bool pages = r && r->kind == MZM_STORE_STREAM;
	if (pages)
		c->used = (c->used + MZM_AIO_ALIGN - 1) / MZM_AIO_ALIGN * MZM_AIO_ALIGN;
	size_t before = c->used;
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		size_t bytes = mzm_tensor_bytes(&t), whole;
		if (held[i].skipped || held[i].streamed)
			continue;
		if (pages && mzm_pad_size(bytes, MZM_AIO_ALIGN, &whole))
			bytes = whole;
		held[i].data = mzm_carve_take(c, 1, bytes);
	}
	w->bytes = c->used - before;
}

static void norms_of_rows(float *norm, const mzm_matrix *m, float *wide)
{
	const mzm_kern *kern = mzm_kern_find(NULL);
	for (int32_t j = 0; j < m->n_rows; j++) {
		kern->to_f32(wide, (const char *)m->w + (size_t)j * m->stride, m->dtype, m->n_cols);
		norm[j] = sqrtf(kern->dot(wide, wide, m->n_cols));
	}
}

static mzm_status norms_of_neurons(mzm_weights *w, mzm_err *err)
{
	float *wide;
	if (!w->down_norm)
		return MZM_OK;
	MZM_TRY(mzm_alloc_for((void **)&wide, (size_t)w->cfg.dim * sizeof *wide, "a row", err));
	for (int32_t l = 0; l < w->cfg.n_layers; l++) {
		size_t first = (size_t)l * (size_t)w->cfg.n_ffn;
		norms_of_rows(w->down_norm + first, &w->layer[l].down, wide);
		if (w->up_norm)
			norms_of_rows(w->up_norm + first, &w->layer[l].up, wide);
	}
	mzm_free(wide);
	return MZM_OK;
}

static mzm_status read_all(mzm_weights *w, mzm_source *src, const holding *held, mzm_progress_fn progress, void *user,
			   mzm_err *err)
{
	uint64_t done = 0;
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		if (held[i].skipped)
			continue;
		MZM_TRY(mzm_source_read(src, i, held[i].data, err));
		done += mzm_tensor_bytes(&t);
		if (progress && progress(user, "loading", done, w->bytes))
			return mzm_fail(err, MZM_ECANCELLED, "loading was cancelled");
	}
	return MZM_OK;
}

static mzm_status map_all(mzm_weights *w, mzm_source *src, holding *held, mzm_err *err)
{
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		const void *at;
		if (held[i].skipped)
			continue;
		MZM_TRY(mzm_store_map(w->store, i, &at, err));
		held[i].data = (void *)(uintptr_t)at;
	}
	return MZM_OK;
}

/* What stays in memory is read; the rest gets its place in the order of a pass, which is that of the tensors. */
static mzm_status read_and_queue(mzm_weights *w, mzm_source *src, size_t slot_bytes, holding *held,
				 mzm_progress_fn progress, void *user, mzm_err *err)
{
	mzm_status st;
	mzm_span *spans = NULL;
	int32_t n = 0;
	size_t bytes = (size_t)mzm_source_n_tensors(src) * sizeof *spans;
	MZM_TRY_OUT(mzm_alloc_for((void **)&spans, bytes, "the tensors", err));
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		if (held[i].streamed) {
			held[i].span_rows = mzm_span_rows(&t, slot_bytes);
			MZM_TRY_OUT(mzm_store_add(w->store, i, &held[i].span, err));
		} else if (!held[i].skipped) {
			spans[n++] = (mzm_span){i, 0, t.n_rows, mzm_tensor_bytes(&t), held[i].data};
		}
	}
	MZM_TRY_OUT(mzm_store_load(w->store, spans, n, progress, user, err));
	MZM_TRY_OUT(mzm_store_start(w->store, err));
out:
	mzm_free(spans);
	return st;
}

static mzm_status fill(mzm_weights *w, mzm_source *src, const mzm_residency *r, holding *held, mzm_progress_fn progress,
		       void *user, mzm_err *err)
{
	if (!r || r->kind == MZM_STORE_RESIDENT)
		MZM_TRY(read_all(w, src, held, progress, user, err));
	else if (r->kind == MZM_STORE_MMAP)
		MZM_TRY(map_all(w, src, held, err));
	else
		MZM_TRY(read_and_queue(w, src, r->reader.slot_bytes, held, progress, user, err));
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		if (!held[i].skipped)
			bind(w, &t, &held[i]);
	}
	w->n_held = r ? r->n_held : 0;
	w->held_of = w->n_held == 0 ? NULL : w->draft ? w->draft : w->layer;
	share_vectors(w);
	return norms_of_neurons(w, err);
}

static mzm_status place_tensors(mzm_weights *w, mzm_source *src, const mzm_residency *r, holding *held, mzm_err *err)
{
	mzm_carve c = {0};
	weights_layout(w, src, r, held, &c);
	if (c.overflow)
		return mzm_fail(err, MZM_EFORMAT, "the tensors are larger than memory can be");
	MZM_TRY(mzm_alloc_for(&w->block, c.used + MZM_AIO_ALIGN, "the weights", err));
	uintptr_t base = ((uintptr_t)w->block + MZM_AIO_ALIGN - 1) / MZM_AIO_ALIGN * MZM_AIO_ALIGN;
	c = (mzm_carve){.base = (void *)base};
	weights_layout(w, src, r, held, &c);
	return MZM_OK;
}

mzm_status mzm_weights_load(mzm_weights **out, mzm_source *src, const mzm_residency *r, mzm_progress_fn progress,
			    void *user, mzm_err *err)
{
	mzm_status st;
	mzm_weights *w;
	holding *held = NULL;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&w, sizeof *w, "the model", err));
	w->cfg = *mzm_source_config(src);
	int32_t n = mzm_source_n_tensors(src);
	MZM_TRY_OUT(mzm_alloc_for((void **)&held, (size_t)n * sizeof *held, "the tensors", err));
	for (int32_t i = 0; i < n && r; i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		bool in_part = r->n_held > 0 && t.role == MZM_ROLE_DRAFT && mzm_tensor_is_ffn(t.kind);
		held[i].skipped = r->no_draft && t.role == MZM_ROLE_DRAFT;
		held[i].streamed = r->kind == MZM_STORE_STREAM && (r->streamed[i] || in_part) && !held[i].skipped;
	}
	MZM_TRY_OUT(place_tensors(w, src, r, held, err));
	if (r && r->kind != MZM_STORE_RESIDENT)
		MZM_TRY_OUT(mzm_store_open(&w->store, src, r, err));
	MZM_TRY_OUT(fill(w, src, r, held, progress, user, err));
	*out = w;
	w = NULL;
out:
	mzm_free(held);
	mzm_weights_free(w);
	return st;
}

void mzm_weights_free(mzm_weights *w)
{
	if (!w)
		return;
	mzm_store_close(w->store);
	mzm_free(w->block);
	mzm_free(w);
}
