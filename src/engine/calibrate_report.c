/* calibrate_report.c - how well predictors choose, layer by layer, on held-out text.
 *
 * Every predictor is asked as a sparse pass asks it (ffn.c), but on the inputs that the dense model had: what earlier
 * layers did wrong is not in it. Of each held-out window the first half stands for a prompt, which predictors that
 * observe may see; of the rest the positions that follow count, for all predictors the same. Predictors run one behind
 * the other on warm caches, so their times are lower bounds. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/carve.h"
#include "base/clock.h"
#include "engine/calibrate.h"

#define WORTH_A_TEAM (1 << 20) /* products; below, waking the threads takes longer */

/* Of one predictor and keep over the positions of a layer. Shares are summed up, and divided when they are shown. */
typedef struct tally {
	int32_t n; /* positions */
	double  recall, precision, chosen, kept, read, error; /* chosen: before refine() */
	double  n_active, n_found, n_chosen; /* ReLU: neurons that are not zero, those of them chosen, all that were */
} tally;

typedef struct row {
	mzm_predictor *p;
	float          keep;
	tally         *layers; /* [n_layers] */
	int64_t       *took;   /* [n_report] ns to choose, of each position of the layer under way */
	int64_t        ns;     /* medians of those, over all layers */
} row;

struct mzm_calibrate_report {
	row    *rows; /* [n_rows] */
	int32_t n_rows, n_layers, n_positions;
	bool    relu;
	double *cost_share; /* [n_rows] of the FFN's bytes */
};

/* Scratch of a layer's position. */
typedef struct probe {
	mzm_ask          ask;
	mzm_calibration *c;
	void            *block;
	row             *r;
	int32_t         *best; /* [n_ffn] */
	float           *value, *scratch, *missing; /* [n_ffn] */
	unsigned char   *is_best; /* [n_ffn] */
	float           *out;     /* [dim] */
	const int32_t   *list;    /* [n_list] neurons that are added up; NULL: all */
	const float     *list_z;
	int32_t          n_list;
} probe;

/* ---- the rows ---- */

static bool is_wanted(const mzm_calibrate_params *p, const char *name)
{
	for (int32_t i = 0; i < p->n_predictors; i++)
		if (strcmp(p->predictors[i], name) == 0)
			return true;
	return !p->predictors;
}

static mzm_status add_rows(mzm_calibrate_report *r, mzm_calibration *c, const mzm_predictor_ops *ops,
			   const mzm_calib *fitted, mzm_err *err)
{
	size_t n_layers = (size_t)r->n_layers;
	for (int32_t i = 0; i < c->params.n_keep; i++) {
		row *w = &r->rows[r->n_rows];
		mzm_pred_env env = mzm_model_pred_env(c->model, c->params.keep[i], c->params.seed, (mzm_drafting){0});
		env.calib = fitted;
		w->keep = env.keep;
		MZM_TRY(mzm_alloc_for((void **)&w->layers, n_layers * sizeof w->layers[0], "the report", err));
		r->n_rows++;
		MZM_TRY(mzm_alloc_for((void **)&w->took, (size_t)c->params.n_report * sizeof w->took[0], "times", err));
		MZM_TRY(ops->create(&w->p, &env, err));
		r->cost_share[r->n_rows - 1] = mzm_state_cost_share(c->session->state, w->p, false);
	}
	return MZM_OK;
}

static mzm_status make_rows(mzm_calibrate_report *r, mzm_calibration *c, const mzm_calib *fitted, mzm_err *err)
{
	size_t n = 0;
	for (int i = 0; mzm_predictor_at(i); i++)
		n += (size_t)c->params.n_keep;
	MZM_TRY(mzm_alloc_for((void **)&r->rows, n * sizeof r->rows[0], "the report", err));
	MZM_TRY(mzm_alloc_for((void **)&r->cost_share, n * sizeof r->cost_share[0], "the report", err));
	for (int i = 0; mzm_predictor_at(i); i++) {
		const mzm_predictor_ops *ops = mzm_predictor_at(i);
		bool is_ready = ops != &mzm_pred_dense && mzm_calibrate_is_ready(c, ops, fitted);
		if (is_ready && is_wanted(&c->params, ops->name))
			MZM_TRY(add_rows(r, c, ops, fitted, err));
	}
	return MZM_OK;
}

void mzm_calibrate_report_free(mzm_calibrate_report *r)
{
	if (!r)
		return;
	for (int32_t i = 0; i < r->n_rows; i++) {
		if (r->rows[i].p)
			r->rows[i].p->ops->free(r->rows[i].p);
		mzm_free(r->rows[i].layers);
		mzm_free(r->rows[i].took);
	}
	mzm_free(r->rows);
	mzm_free(r->cost_share);
	mzm_free(r);
}

/* ---- one position ---- */

/* Share of the FFN's rows that a pass reads for the choice. */
static double share_read(const probe *q)
{
	const mzm_config *cfg = &q->c->model->weights->cfg;
	double n_ffn = cfg->n_ffn, kept = q->ask.n / n_ffn;
	if (q->r->p->ops->stage != MZM_PRED_INPUT)
		return mzm_pred_ffn_share(q->r->p->ops->stage, kept, cfg->ungated);
	return cfg->ungated ? (q->ask.n_chosen / n_ffn + kept) / 2 : (q->ask.n_chosen / n_ffn + 2 * kept) / 3;
}

static void choose(probe *q, int32_t pos, tally *t)
{
	mzm_calibrate_ask(&q->ask, q->r->p, pos);
	q->r->took[t->n] = q->ask.ns;
	t->chosen += (double)q->ask.n_chosen / q->c->model->weights->cfg.n_ffn;
	t->kept += (double)q->ask.n / q->c->model->weights->cfg.n_ffn;
	t->read += share_read(q);
}

/* Against as many neurons as it was to choose, those that contribute most. */
static void compare_best(probe *q, tally *t)
{
	const mzm_weights *w = q->c->model->weights;
	const float *norm = w->down_norm + (size_t)q->ask.layer * (size_t)w->cfg.n_ffn;
	int32_t k = mzm_pred_keep(q->r->p, q->ask.layer), hits = 0;
	for (int32_t j = 0; j < w->cfg.n_ffn; j++)
		q->value[j] = q->ask.z[j] * norm[j];
	mzm_select_top(q->best, k, q->value, w->cfg.n_ffn, q->scratch);
	memset(q->is_best, 0, (size_t)w->cfg.n_ffn);
	for (int32_t i = 0; i < k; i++)
		q->is_best[q->best[i]] = 1;
	for (int32_t i = 0; i < q->ask.n; i++)
		hits += q->is_best[q->ask.rows[i]];
	t->recall += (double)hits / k;
	t->precision += (double)hits / q->ask.n;
}

/* Against all that are not zero. */
static void compare_active(probe *q, tally *t)
{
	for (int32_t j = 0; j < q->c->model->weights->cfg.n_ffn; j++)
		t->n_active += q->ask.gate[j] != 0;
	for (int32_t i = 0; i < q->ask.n; i++)
		t->n_found += q->ask.gate[q->ask.rows[i]] != 0;
	t->n_chosen += q->ask.n_chosen;
}

static void add_columns(const probe *q, int32_t begin, int32_t end, int rank)
{
	const mzm_matrix *m = &q->c->model->weights->layer[q->ask.layer].down;
	mzm_accum_job job = {.dtype = m->dtype, .w = m->w, .stride = m->stride, .rows = q->list, .n_rows = q->n_list,
			     .n_cols = m->n_cols, .a = q->list_z, .lda = (size_t)q->n_list, .n_pos = 1, .y = q->out,
			     .ldy = (size_t)m->n_cols,
			     .scratch = q->c->work.sums + (size_t)rank * (MZM_ACCUM_SCRATCH / sizeof(float))};
	if (begin < end)
		q->c->model->kern->accum(&job, begin, end);
}

static int32_t n_units(const probe *q)
{
	const mzm_matrix *m = &q->c->model->weights->layer[q->ask.layer].down;
	return mzm_accum_units(m->dtype, m->n_cols);
}

static void run_sum(void *ctx, mzm_team *team, int rank)
{
	int32_t begin, end;
	mzm_team_range(n_units(ctx), 1, rank, mzm_team_size(team), &begin, &end);
	add_columns(ctx, begin, end, rank);
}

/* Norm of the FFN's output from the listed neurons alone. */
static double norm_of_sum(probe *q, const int32_t *list, const float *z, int32_t n)
{
	double sum = 0;
	int32_t dim = q->c->model->weights->cfg.dim;
	memset(q->out, 0, (size_t)dim * sizeof *q->out);
	q->list = list;
	q->list_z = z;
	q->n_list = n;
	if ((int64_t)n * dim >= WORTH_A_TEAM)
		mzm_team_run(q->c->session->team, run_sum, q);
	else if (n > 0)
		add_columns(q, 0, n_units(q), 0);
	for (int32_t i = 0; i < dim; i++)
		sum += (double)q->out[i] * q->out[i];
	return sqrt(sum);
}

/* What is missing from the output, against all of it. */
static void compare_output(probe *q, double whole, tally *t)
{
	int32_t n = 0, at = 0;
	for (int32_t j = 0; j < q->c->model->weights->cfg.n_ffn; j++) {
		if (at < q->ask.n && q->ask.rows[at] == j) {
			at++;
			continue;
		}
		q->best[n] = j;
		q->missing[n++] = q->ask.z[j];
	}
	double missing = norm_of_sum(q, q->best, q->missing, n);
	t->error += whole > 0 ? missing / whole : 0;
}

/* ---- all positions ---- */

static void place_probe(probe *q, const mzm_config *cfg, mzm_carve *c)
{
	mzm_calibrate_ask_layout(&q->ask, cfg, c);
	q->best = MZM_CARVE(c, int32_t, cfg->n_ffn);
	q->value = MZM_CARVE(c, float, cfg->n_ffn);
	q->scratch = MZM_CARVE(c, float, cfg->n_ffn);
	q->missing = MZM_CARVE(c, float, cfg->n_ffn);
	q->is_best = MZM_CARVE(c, unsigned char, cfg->n_ffn);
	q->out = MZM_CARVE(c, float, cfg->dim);
}

static mzm_status make_probe(probe *q, mzm_calibration *c, mzm_err *err)
{
	mzm_carve carve = {0};
	q->c = q->ask.c = c;
	place_probe(q, &c->model->weights->cfg, &carve);
	MZM_TRY(mzm_alloc_for(&q->block, carve.used, "the report", err));
	carve = (mzm_carve){.base = q->block};
	place_probe(q, &c->model->weights->cfg, &carve);
	return MZM_OK;
}

static void measure_position(mzm_calibrate_report *r, probe *q, int32_t pos)
{
	double whole = norm_of_sum(q, NULL, q->ask.z, q->c->model->weights->cfg.n_ffn);
	for (int32_t i = 0; i < r->n_rows; i++) {
		tally *t = &r->rows[i].layers[q->ask.layer];
		q->r = &r->rows[i];
		choose(q, pos, t);
		t->n++;
		compare_best(q, t);
		if (r->relu)
			compare_active(q, t);
		compare_output(q, whole, t);
	}
}

static void show_prompt(mzm_calibrate_report *r, const mzm_calibration *c, int32_t layer, const mzm_window *w)
{
	for (int32_t i = 0; i < r->n_rows; i++)
		mzm_calibrate_show_prompt(r->rows[i].p, c, layer, w);
}

/* At most `each` positions of every held-out window, n in all. */
static int32_t measure_layer(mzm_calibrate_report *r, probe *q, int32_t each, int32_t n)
{
	const mzm_calibration *c = q->c;
	int32_t left = n;
	for (int32_t i = 0; i < c->n_windows && left > 0; i++) {
		const mzm_window *w = &c->windows[i];
		if (!w->held_out || w->n_rows < 1)
			continue;
		show_prompt(r, c, q->ask.layer, w);
		for (int32_t pos = w->n_rows / 2, k = 0; pos < w->n_rows && k < each && left > 0; pos++, k++, left--) {
			mzm_calibrate_ask_at(&q->ask, w->row - c->n_train + pos);
			measure_position(r, q, pos);
		}
	}
	return n - left;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static void add_times(mzm_calibrate_report *r)
{
	for (int32_t i = 0; i < r->n_rows && r->n_positions > 0; i++) {
		qsort(r->rows[i].took, (size_t)r->n_positions, sizeof r->rows[i].took[0], by_value);
		r->rows[i].ns += r->rows[i].took[r->n_positions / 2];
	}
}

static int32_t n_held_out(const mzm_calibration *c)
{
	int32_t n = 0;
	for (int32_t i = 0; i < c->n_windows; i++)
		n += c->windows[i].held_out && c->windows[i].n_rows > 0;
	return n;
}

mzm_status mzm_calibrate_report_make(mzm_calibrate_report **out, mzm_calibration *c, const mzm_calib *fitted,
				     mzm_err *err)
{
	mzm_status st;
	probe q = {0};
	mzm_calibrate_report *r = NULL;
	const mzm_config *cfg = &c->model->weights->cfg;
	int32_t n_windows = n_held_out(c), n = c->params.n_report;
	*out = NULL;
	MZM_TRY_OUT(mzm_alloc_for((void **)&r, sizeof *r, "the report", err));
	r->n_layers = cfg->n_layers;
	r->relu = cfg->act == MZM_ACT_RELU || cfg->act == MZM_ACT_FATRELU;
	MZM_TRY_OUT(make_rows(r, c, fitted, err));
	MZM_TRY_OUT(make_probe(&q, c, err));
	for (int32_t l = 0; l < cfg->n_layers && r->n_rows > 0; l++) {
		mzm_calibrate_layer(c, l, true);
		q.ask.layer = l;
		r->n_positions = measure_layer(r, &q, (n + n_windows - 1) / n_windows, n);
		add_times(r);
		MZM_TRY_OUT(mzm_calibrate_tell(c, "measuring", (uint64_t)l + 1, (uint64_t)cfg->n_layers, err));
	}
	*out = r;
	r = NULL;
out:
	mzm_free(q.block);
	mzm_calibrate_report_free(r);
	return st;
}

/* ---- JSON ---- */

/* Six digits behind the point are more than are true. */
static json_t *rounded(double sum, double n)
{
	return n > 0 && isfinite(sum) ? json_real(round(sum / n * 1e6) / 1e6) : json_null();
}

static void add_up(tally *sum, const tally *t)
{
	sum->n += t->n;
	sum->n_active += t->n_active;
	sum->recall += t->recall;
	sum->precision += t->precision;
	sum->chosen += t->chosen;
	sum->kept += t->kept;
	sum->read += t->read;
	sum->error += t->error;
	sum->n_found += t->n_found;
	sum->n_chosen += t->n_chosen;
}

static json_t *tally_json(const tally *t, double cost_share, bool relu)
{
	json_t *o = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "chosen", rounded(t->chosen, t->n), "kept",
			      rounded(t->kept, t->n), "recall",
			      rounded(t->recall, t->n), "precision", rounded(t->precision, t->n), "error",
			      rounded(t->error, t->n), "read", rounded(t->read + cost_share * t->n, t->n));
	if (relu && (json_object_set_new(o, "active_recall", rounded(t->n_found, t->n_active)) != 0 ||
		     json_object_set_new(o, "chosen_per_active", rounded(t->n_chosen, t->n_active)) != 0)) {
		json_decref(o);
		return NULL;
	}
	return o;
}

static json_t *layers_json(const mzm_calibrate_report *r, const row *w, double cost_share)
{
	json_t *list = json_array();
	for (int32_t l = 0; list && l < r->n_layers; l++)
		if (json_array_append_new(list, tally_json(&w->layers[l], cost_share, r->relu)) != 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

static json_t *row_json(const mzm_calibrate_report *r, int32_t i, bool timed)
{
	const row *w = &r->rows[i];
	tally sum = {0};
	uint64_t cost = w->p->ops->cost ? w->p->ops->cost(w->p) : 0;
	for (int32_t l = 0; l < r->n_layers; l++)
		add_up(&sum, &w->layers[l]);
	json_t *o = json_pack("{s:s, s:o, s:I, s:o, s:o}", "predictor", w->p->ops->name, "keep",
			      json_real(round((double)w->keep * 1e6) / 1e6), "cost_bytes", (json_int_t)cost, "mean",
			      tally_json(&sum, r->cost_share[i], r->relu), "layers",
			      layers_json(r, w, r->cost_share[i]));
	if (timed && json_object_set_new(o, "ms_per_pass", json_real((double)w->ns * 1e-6)) != 0) {
		json_decref(o);
		return NULL;
	}
	return o;
}

json_t *mzm_calibrate_report_json(const mzm_calibrate_report *r, bool timed)
{
	json_t *list = json_array();
	for (int32_t i = 0; list && i < r->n_rows; i++)
		if (json_array_append_new(list, row_json(r, i, timed)) != 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}
