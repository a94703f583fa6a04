/* calibrate_layer.c - what the FFN of one layer makes of the sampled inputs, by the kernels of the forward pass.
 *
 * SPMD: each rank has its neurons, for all positions, so ranks need not meet. */
#include <string.h>

#include "base/carve.h"
#include "engine/calibrate.h"

#define GRAIN 64 /* neurons */

static size_t packed_bytes(const mzm_calibration *c)
{
	const mzm_weights *w = c->model->weights;
	size_t most = 0;
	for (int32_t l = 0; l < w->cfg.n_layers; l++) {
		size_t gate = mzm_pack_stride(c->model->kern, w->layer[l].gate.dtype, w->cfg.dim);
		size_t up = w->cfg.ungated ? 0 : mzm_pack_stride(c->model->kern, w->layer[l].up.dtype, w->cfg.dim);
		most = gate > most ? gate : most;
		most = up > most ? up : most;
	}
	return most * MZM_MAX_POS;
}

static void work_layout(mzm_layer_work *w, const mzm_calibration *c, int32_t n_train, int32_t n_test, mzm_carve *carve)
{
	const mzm_config *cfg = &c->model->weights->cfg;
	size_t n = (size_t)n_train + (size_t)n_test, dim = (size_t)cfg->dim, n_ffn = (size_t)cfg->n_ffn;
	w->n_ranks = mzm_team_size(c->session->team);
	w->packed_len = packed_bytes(c);
	w->x = MZM_CARVE(carve, float, n * dim);
	w->gate = MZM_CARVE(carve, float, n * n_ffn);
	w->z = MZM_CARVE(carve, float, n * n_ffn);
	w->up = MZM_CARVE(carve, float, (size_t)n_test * n_ffn);
	w->w_gate = MZM_CARVE(carve, float, n_ffn * dim);
	w->w_up = MZM_CARVE(carve, float, cfg->ungated ? 0 : n_ffn * dim);
	w->ones = MZM_CARVE(carve, float, n_ffn);
	w->packed = MZM_CARVE(carve, char, (size_t)w->n_ranks * w->packed_len);
	w->sums = MZM_CARVE(carve, float, (size_t)w->n_ranks * (MZM_ACCUM_SCRATCH / sizeof(float)));
}

static bool input_bytes(size_t *out, const mzm_calibration *c, int32_t n)
{
	const mzm_config *cfg = &c->model->weights->cfg;
	return mzm_mul_size((size_t)n, (size_t)cfg->dim * sizeof *c->x, out) &&
	       mzm_mul_size(*out, (size_t)cfg->n_layers, out);
}

bool mzm_calibrate_measure(uint64_t *bytes, const mzm_calibration *c, int32_t n_train, int32_t n_test)
{
	mzm_layer_work w;
	mzm_carve carve = {0};
	size_t inputs, sum;
	work_layout(&w, c, n_train, n_test, &carve);
	if (carve.overflow || !input_bytes(&inputs, c, n_train + n_test) || !mzm_add_size(inputs, carve.used, &sum))
		return false;
	*bytes = sum;
	return true;
}

mzm_status mzm_calibrate_alloc(mzm_calibration *c, mzm_err *err)
{
	mzm_carve carve = {0};
	size_t inputs;
	const mzm_config *cfg = &c->model->weights->cfg;
	work_layout(&c->work, c, c->n_train, c->n_test, &carve);
	if (carve.overflow || !input_bytes(&inputs, c, c->n_train + c->n_test))
		return mzm_fail(err, MZM_ENOMEM, "the sample is larger than memory can be");
	MZM_TRY(mzm_alloc_for((void **)&c->x, inputs, "the sample", err));
	MZM_TRY(mzm_alloc_for(&c->work.block, carve.used, "the work of a layer", err));
	carve = (mzm_carve){.base = c->work.block};
	work_layout(&c->work, c, c->n_train, c->n_test, &carve);
	for (int32_t j = 0; j < cfg->n_ffn; j++)
		c->work.ones[j] = 1;
	return MZM_OK;
}

/* ---- a layer ---- */

typedef struct task {
	mzm_calibration *c;
	int32_t          layer, row0, row1; /* positions */
	bool             held_out;
} task;

static void widen_inputs(const task *t, mzm_team *team, int rank)
{
	const mzm_calibration *c = t->c;
	int32_t dim = c->model->weights->cfg.dim, begin, end;
	const uint16_t *x = c->x + (size_t)t->layer * ((size_t)c->n_train + (size_t)c->n_test) * (size_t)dim;
	mzm_team_range(t->row1 - t->row0, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t p = t->row0 + begin; p < t->row0 + end; p++)
		c->model->kern->to_f32(c->work.x + (size_t)p * (size_t)dim, x + (size_t)p * (size_t)dim, MZM_BF16, dim);
}

static void widen(const task *t, float *to, const mzm_matrix *m, int32_t begin, int32_t end)
{
	for (int32_t j = begin; j < end; j++)
		t->c->model->kern->to_f32(to + (size_t)j * (size_t)m->n_cols,
					  (const char *)m->w + (size_t)j * m->stride, m->dtype, m->n_cols);
}

/* y[n_pos, n_ffn] = rows begin .. end-1 of m times inputs x, and their bias. */
static void product(const task *t, const mzm_matrix *m, const float *bias, float *y, const float *x, int32_t n_pos,
		    int32_t begin, int32_t end, int rank)
{
	const mzm_kern *kern = t->c->model->kern;
	size_t stride = mzm_pack_stride(kern, m->dtype, m->n_cols), n_ffn = (size_t)m->n_rows;
	char *packed = t->c->work.packed + (size_t)rank * t->c->work.packed_len;
	for (int32_t p = 0; p < n_pos; p++)
		kern->pack(packed + (size_t)p * stride, x + (size_t)p * (size_t)m->n_cols, m->dtype, m->n_cols);
	mzm_rows_job job = {.dtype = m->dtype, .w = m->w, .stride = m->stride, .n_rows = m->n_rows, .n_cols = m->n_cols,
			    .x = packed, .ldx = stride, .n_pos = n_pos, .y = y, .ldy = n_ffn};
	kern->rows(&job, begin, end);
	for (int32_t p = 0; bias && p < n_pos; p++)
		kern->add(y + (size_t)p * n_ffn + begin, bias + begin, end - begin);
}

/* A tile of positions from `row` on: gate, up where it is wanted, z. */
static void activate(const task *t, int32_t row, int32_t n_pos, int32_t begin, int32_t end, int rank)
{
	const mzm_calibration *c = t->c;
	const mzm_config *cfg = &c->model->weights->cfg;
	const mzm_layer *l = &c->model->weights->layer[t->layer];
	size_t n_ffn = (size_t)cfg->n_ffn, n = (size_t)(end - begin) * sizeof(float);
	const float *x = c->work.x + (size_t)row * (size_t)cfg->dim;
	float *gate = c->work.gate + (size_t)row * n_ffn, *z = c->work.z + (size_t)row * n_ffn;
	product(t, &l->gate, l->b_gate, gate, x, n_pos, begin, end, rank);
	if (!cfg->ungated)
		product(t, &l->up, l->b_up, z, x, n_pos, begin, end, rank);
	for (int32_t p = 0; p < n_pos; p++) {
		size_t at = (size_t)p * n_ffn + (size_t)begin;
		c->model->kern->act(gate + at, cfg->act, cfg->act_threshold, end - begin);
		if (cfg->ungated)
			memcpy(z + at, gate + at, n);
		if (t->held_out)
			memcpy(c->work.up + (size_t)(row - c->n_train) * n_ffn + at, z + at, n);
		if (!cfg->ungated)
			c->model->kern->mul(z + at, gate + at, end - begin);
	}
}

static void run_layer(void *ctx, mzm_team *team, int rank)
{
	const task *t = ctx;
	int32_t begin, end;
	widen_inputs(t, team, rank);
	mzm_team_barrier(team, rank);
	mzm_team_range(t->c->model->weights->cfg.n_ffn, GRAIN, rank, mzm_team_size(team), &begin, &end);
	const mzm_layer *l = &t->c->model->weights->layer[t->layer];
	if (!t->held_out)
		widen(t, t->c->work.w_gate, &l->gate, begin, end);
	if (!t->held_out && l->up.n_rows > 0)
		widen(t, t->c->work.w_up, &l->up, begin, end);
	for (int32_t row = t->row0; row < t->row1 && begin < end; row += MZM_MAX_POS)
		activate(t, row, t->row1 - row < MZM_MAX_POS ? t->row1 - row : MZM_MAX_POS, begin, end, rank);
}

void mzm_calibrate_layer(mzm_calibration *c, int32_t layer, bool held_out)
{
	task t = {c, layer, held_out ? c->n_train : 0, c->n_train + c->n_test, held_out};
	mzm_team_run(c->session->team, run_layer, &t);
}
