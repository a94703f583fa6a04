/* weights.c - see weights.h. One block holds the table of layers, the norms of the down rows and the
 * tensors, laid out by one function that runs twice (carve.h). */
#include "model/weights.h"

#include <math.h>
#include <string.h>

#include "base/carve.h"

static mzm_matrix matrix(const mzm_tensor *t, const void *data)
{
	return (mzm_matrix){t->dtype, t->n_rows, t->n_cols, mzm_row_bytes(t->dtype, t->n_cols), data};
}

/* Gives the tensor its place in the model, or in its draft image. */
static void bind(mzm_weights *w, const mzm_tensor *t, const void *data)
{
	mzm_matrix m = matrix(t, data);
	bool draft = t->role == MZM_ROLE_DRAFT;
	mzm_layer *l = t->layer < 0 ? NULL : draft ? &w->draft[t->layer] : &w->layer[t->layer];
	switch (t->kind) {
	case MZM_T_EMBED:
		w->embed = m;
		if (w->cfg.tied)
			w->head = m;
		break;
	case MZM_T_ATTN_NORM: l->attn_norm = data; break;
	case MZM_T_WQ: l->wq = m; break;
	case MZM_T_WK: l->wk = m; break;
	case MZM_T_WV: l->wv = m; break;
	case MZM_T_WO: l->wo = m; break;
	case MZM_T_FFN_NORM: l->ffn_norm = data; break;
	case MZM_T_GATE: l->gate = m; break;
	case MZM_T_UPDOWN: /* rows 2j and 2j+1 belong to neuron j */
		l->up = l->down = m;
		l->up.n_rows = l->down.n_rows = m.n_rows / 2;
		l->up.stride = l->down.stride = 2 * m.stride;
		l->down.w = (const char *)data + m.stride;
		break;
	case MZM_T_OUT_NORM: w->out_norm = data; break;
	case MZM_T_HEAD: *(draft ? &w->draft_head : &w->head) = m; break;
	case MZM_N_TENSOR_KINDS: break;
	}
}

/* data: [mzm_source_n_tensors] places, filled when the carve has a base. */
static void weights_layout(mzm_weights *w, mzm_source *src, void **data, mzm_carve *c)
{
	w->layer = MZM_CARVE(c, mzm_layer, w->cfg.n_layers);
	if (mzm_source_has_draft(src))
		w->draft = MZM_CARVE(c, mzm_layer, w->cfg.n_layers);
	w->down_norm = MZM_CARVE(c, float, (size_t)w->cfg.n_layers * (size_t)w->cfg.n_ffn);
	size_t before = c->used;
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		data[i] = mzm_carve_take(c, 1, mzm_tensor_bytes(&t));
	}
	w->bytes = c->used - before;
}

static void norm_of_down(mzm_weights *w, int32_t layer, float *wide)
{
	const mzm_kern *kern = mzm_kern_find(NULL);
	const mzm_matrix *m = &w->layer[layer].down;
	float *norm = w->down_norm + (size_t)layer * (size_t)w->cfg.n_ffn;
	for (int32_t j = 0; j < m->n_rows; j++) {
		kern->to_f32(wide, (const char *)m->w + (size_t)j * m->stride, m->dtype, m->n_cols);
		norm[j] = sqrtf(kern->dot(wide, wide, m->n_cols));
	}
}

static mzm_status read_all(mzm_weights *w, mzm_source *src, void **data, mzm_progress_fn progress, void *user,
			   mzm_err *err)
{
	uint64_t done = 0;
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		MZM_TRY(mzm_source_read(src, i, data[i], err));
		bind(w, &t, data[i]);
		done += mzm_tensor_bytes(&t);
		if (progress && progress(user, "loading", done, w->bytes))
			return mzm_fail(err, MZM_ECANCELLED, "loading was cancelled");
	}
	for (int32_t l = 0; w->draft && l < w->cfg.n_layers; l++) {
		w->draft[l].attn_norm = w->layer[l].attn_norm;
		w->draft[l].ffn_norm = w->layer[l].ffn_norm;
	}
	float *wide;
	MZM_TRY(mzm_alloc_for((void **)&wide, (size_t)w->cfg.dim * sizeof *wide, "a row", err));
	for (int32_t l = 0; l < w->cfg.n_layers; l++)
		norm_of_down(w, l, wide);
	mzm_free(wide);
	return MZM_OK;
}

mzm_status mzm_weights_load(mzm_weights **out, mzm_source *src, mzm_progress_fn progress, void *user, mzm_err *err)
{
	mzm_status st;
	mzm_weights *w;
	void **data = NULL;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&w, sizeof *w, "the model", err));
	w->cfg = *mzm_source_config(src);
	MZM_TRY_OUT(
		mzm_alloc_for((void **)&data, (size_t)mzm_source_n_tensors(src) * sizeof *data, "the tensors", err));
	mzm_carve c = {0};
	weights_layout(w, src, data, &c);
	if (c.overflow)
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "the tensors are larger than memory can be"));
	MZM_TRY_OUT(mzm_alloc_for(&w->block, c.used, "the weights", err));
	c = (mzm_carve){.base = w->block};
	weights_layout(w, src, data, &c);
	MZM_TRY_OUT(read_all(w, src, data, progress, user, err));
	*out = w;
	w = NULL;
out:
	mzm_free(data);
	mzm_weights_free(w);
	return st;
}

void mzm_weights_free(mzm_weights *w)
{
	if (!w)
		return;
	mzm_free(w->block);
	mzm_free(w);
}
