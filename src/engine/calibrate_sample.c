/* calibrate_sample.c - which pieces of the texts are read, and the inputs of every layer's FFN over them.
 *
 * All texts are cut into windows. Of more text than is wanted, windows are left out evenly; of what is left, windows
 * are held out evenly. Both by counting tokens, so that the choice depends on nothing but the texts' lengths. */
#include <string.h>

#include "engine/calibrate.h"
#include "predictors/teal.h"

#define LEAST_WINDOW 16 /* of a short text: shorter ones tell nothing of a context */
#define WINDOWS      8  /* a text alone is cut into */

/* ---- choosing ---- */

static int32_t window_tokens(const mzm_calibration *c)
{
	size_t most = c->n_ids / WINDOWS < LEAST_WINDOW ? LEAST_WINDOW : c->n_ids / WINDOWS;
	int32_t n_ctx = mzm_session_n_ctx(c->session);
	return most < (size_t)n_ctx ? (int32_t)most : n_ctx;
}

static mzm_status list_windows(mzm_calibration *c, mzm_err *err)
{
	int32_t len = window_tokens(c);
	size_t most = c->n_ids / (size_t)len + c->n_texts + 1, bytes;
	if (most > INT32_MAX || !mzm_mul_size(most, sizeof c->windows[0], &bytes))
		return mzm_fail(err, MZM_EARG, "%zu tokens are more than a calibration reads", c->n_ids);
	MZM_TRY(mzm_alloc_for((void **)&c->windows, bytes, "the pieces of the texts", err));
	for (size_t t = 0, at = 0; t < c->n_texts; t++)
		for (; at < c->ends[t]; at += (size_t)c->windows[c->n_windows++].n_tok) {
			size_t left = c->ends[t] - at;
			c->windows[c->n_windows] =
				(mzm_window){.first = at, .n_tok = left < (size_t)len ? (int32_t)left : len};
		}
	return MZM_OK;
}

/* Leaves out what is beyond the wanted number of tokens. */
static void thin_out(mzm_calibration *c, int32_t wanted)
{
	double share = (double)wanted / (double)c->n_ids, seen = 0, taken = 0;
	int32_t n = 0;
	for (int32_t w = 0; w < c->n_windows && share < 1; w++) {
		seen += c->windows[w].n_tok;
		if (taken >= share * seen)
			continue;
		taken += c->windows[w].n_tok;
		c->windows[n++] = c->windows[w];
	}
	c->n_windows = share < 1 ? n : c->n_windows;
}

static void hold_out(mzm_calibration *c, double share)
{
	double all = 0, held = 0;
	for (int32_t w = 0; w < c->n_windows; w++) {
		double n = c->windows[w].n_tok;
		all += n;
		c->windows[w].held_out = held + n / 2 <= share * all;
		held += c->windows[w].held_out ? n : 0;
	}
}

/* Rows for the windows of one kind, `most` at the most; returns how many. */
static int32_t number_rows(mzm_calibration *c, bool held_out, int32_t first, int32_t most)
{
	int32_t n = 0;
	for (int32_t i = 0; i < c->n_windows; i++) {
		mzm_window *w = &c->windows[i];
		if (w->held_out != held_out)
			continue;
		w->row = first + n;
		w->n_rows = w->n_tok < most - n ? w->n_tok : most - n;
		n += w->n_rows;
	}
	return n;
}

mzm_status mzm_calibrate_choose(mzm_calibration *c, int32_t most, mzm_err *err)
{
	int32_t n_train = c->params.n_train, n_test = c->params.n_test;
	double share = (double)n_test / ((double)n_train + n_test);
	if (n_train + n_test > most) {
		n_test = (int32_t)(share * most);
		n_train = most - n_test;
	}
	if (c->n_ids < MZM_CALIBRATE_LEAST)
		return mzm_fail(err, MZM_EARG, "a text of %zu tokens is too little to learn from: %d are the least",
				c->n_ids, MZM_CALIBRATE_LEAST);
	MZM_TRY(list_windows(c, err));
	thin_out(c, n_train + n_test + 2 * window_tokens(c)); /* whole windows do not come out even */
	hold_out(c, share);
	c->n_train = number_rows(c, false, 0, n_train);
	c->n_test = number_rows(c, true, c->n_train, n_test);
	if (c->n_train < 1 || c->n_test < 2)
		return mzm_fail(err, MZM_EARG, "the texts are too few to hold some of them out: %d positions to learn "
					       "from, %d held out", (int)c->n_train, (int)c->n_test);
	return MZM_OK;
}

/* ---- reading ---- */

typedef struct gather {
	mzm_calibration *c;
	int32_t row, n_left; /* of the window: where the next position goes, and how many more are wanted */
} gather;

/* Of a pass: mzm_pass.see_input. */
static void keep_inputs(void *ctx, int32_t layer, const float *x, int32_t n_pos)
{
	const gather *g = ctx;
	const mzm_calibration *c = g->c;
	int32_t dim = c->model->weights->cfg.dim, n = c->n_train + c->n_test;
	uint16_t *to = c->x + ((size_t)layer * (size_t)n + (size_t)g->row) * (size_t)dim;
	for (int32_t p = 0; p < n_pos && p < g->n_left; p++)
		c->model->kern->narrow(to + (size_t)p * (size_t)dim, x + (size_t)p * (size_t)dim, MZM_BF16, dim);
}

/* Of a pass: mzm_pass.see_attention. */
static void count_inputs(void *ctx, int32_t layer, bool of_o, const float *x, int32_t n_pos, int32_t n)
{
	const gather *g = ctx;
	uint64_t *bins = g->c->attn_bins + (2 * (size_t)layer + of_o) * MZM_TEAL_BINS;
	mzm_teal_count(bins, x, (size_t)(n_pos < g->n_left ? n_pos : g->n_left) * (size_t)n);
}

static mzm_status read_window(mzm_calibration *c, const mzm_window *w, mzm_err *err)
{
	gather g = {c, w->row, w->n_rows};
	int32_t most = mzm_state_max_pos(c->session->state);
	mzm_session_truncate(c->session, 0);
	for (int32_t done = 0; done < w->n_tok && g.n_left > 0;) {
		int32_t n = w->n_tok - done < most ? w->n_tok - done : most;
		mzm_pass pass = {.ids = c->ids + w->first + done, .n_pos = n, .see_input = keep_inputs, .see_ctx = &g,
				 .see_attention = c->attn_bins && !w->held_out ? count_inputs : NULL,
				 .gemm = c->model->gemm};
		MZM_TRY(mzm_forward(c->session->state, &pass, NULL, NULL, err));
		done += n;
		g.row += n;
		g.n_left -= n;
	}
	return MZM_OK;
}

mzm_status mzm_calibrate_sample(mzm_calibration *c, mzm_err *err)
{
	uint64_t done = 0, total = (uint64_t)c->n_train + (uint64_t)c->n_test;
	for (int32_t w = 0; w < c->n_windows; w++) {
		if (c->windows[w].n_rows < 1)
			continue;
		MZM_TRY(read_window(c, &c->windows[w], err));
		done += (uint64_t)c->windows[w].n_rows;
		MZM_TRY(mzm_calibrate_tell(c, "reading", done, total, err));
	}
	return MZM_OK;
}
