/* calibrate.c - calibration: texts in, a side-car and a report out.
 *
 * Texts are only collected; the work is done at the end, when it is known how much there is to draw from: read
 * (calibrate_sample.c), fit layer by layer (predictors/fit.h), measure on what was held out (calibrate_report.c),
 * write. All in memory, within a share of what is free; the file appears when everything went well. */
#include "engine/calibrate.h"

#include <string.h>

#include "base/clock.h"
#include "base/str.h"
#include "decode/skip_set.h"
#include "engine/plan.h"
#include "predictors/teal.h"

#define MOST_POSITIONS (1 << 22)

static const float default_keep[] = {0.1f, 0.25f, 0.5f};

mzm_calibrate_params mzm_calibrate_params_default(void)
{
	return (mzm_calibrate_params){.n_train = 4096, .n_test = 1024, .keep = default_keep, .n_keep = 3,
				      .n_report = 64, .n_judged = 1000};
}

#define SHARES "alloc"

/* Behind the fits of predictors stand those of what is no predictor's own. */
static const struct other {
	const char *name, *about;
} others[] = {
	{MZM_MONITOR_TENSOR, "when drafts are wrong, for --period auto"},
	{SHARES, "how many neurons each layer keeps, for predictors that gain by it"},
	{MZM_SKIP_TENSOR, "which layers drafts leave out, for --draft skip"},
};

/* NULL past the last. */
static const struct other *other_at(int i)
{
	int n = 0;
	while (mzm_fit_at(n))
		n++;
	return i >= n && i < n + (int)(sizeof others / sizeof others[0]) ? &others[i - n] : NULL;
}

const char *mzm_fit_name(int i)
{
	const struct other *o = other_at(i);
	return mzm_fit_at(i) ? mzm_fit_at(i)->name : o ? o->name : NULL;
}

const char *mzm_fit_about(int i)
{
	const struct other *o = other_at(i);
	return mzm_fit_at(i) ? mzm_fit_at(i)->about : o ? o->about : NULL;
}

mzm_status mzm_calibrate_tell(const mzm_calibration *c, const char *stage, uint64_t done, uint64_t total, mzm_err *err)
{
	if (c->params.progress && c->params.progress(c->params.user, stage, done, total))
		return mzm_fail(err, MZM_ECANCELLED, "the calibration was cancelled");
	return MZM_OK;
}

/* ---- parameters ---- */

static mzm_status add_fit(mzm_calibration *c, const mzm_fit *fit, const char *name, mzm_err *err)
{
	if (!fit)
		return mzm_fail(err, MZM_EARG, "no fit \"%.40s\"", name);
	for (int32_t i = 0; i < c->n_fits; i++)
		if (c->fits[i] == fit)
			return mzm_fail(err, MZM_EARG, "the fit \"%s\" was named twice", name);
	if (c->n_fits == MZM_MAX_FITS)
		return mzm_fail(err, MZM_EINTERNAL, "more than %d fits", MZM_MAX_FITS);
	c->fits[c->n_fits++] = fit;
	return MZM_OK;
}

static mzm_status name_fit(mzm_calibration *c, const char *name, mzm_err *err)
{
	bool *other = strcmp(name, MZM_MONITOR_TENSOR) == 0 ? &c->fits_monitor
		      : strcmp(name, SHARES) == 0	    ? &c->fits_alloc
		      : strcmp(name, MZM_SKIP_TENSOR) == 0  ? &c->fits_skip
							    : NULL;
	if (!other)
		return add_fit(c, mzm_fit_find(name), name, err);
	if (*other)
		return mzm_fail(err, MZM_EARG, "the fit \"%s\" was named twice", name);
	*other = true;
	return MZM_OK;
}

static mzm_status choose_fits(mzm_calibration *c, mzm_err *err)
{
	c->fits_monitor = c->fits_alloc = !c->params.fits;
	c->fits_skip = !c->params.fits && c->params.with_skip;
	for (int i = 0; !c->params.fits && mzm_fit_at(i); i++)
		if (!mzm_fit_at(i)->named_only)
			MZM_TRY(add_fit(c, mzm_fit_at(i), mzm_fit_at(i)->name, err));
	for (int32_t i = 0; c->params.fits && i < c->params.n_fits; i++)
		MZM_TRY(name_fit(c, c->params.fits[i], err));
	return MZM_OK;
}

static mzm_status check_report(const mzm_calibrate_params *p, mzm_err *err)
{
	for (int32_t i = 0; i < p->n_keep; i++)
		if (!(p->keep[i] > 0 && p->keep[i] <= 1))
			return mzm_fail(err, MZM_EARG, "a keep of %g; it is above 0 and at most 1", (double)p->keep[i]);
	for (int32_t i = 0; p->predictors && i < p->n_predictors; i++)
		if (!mzm_predictor_find(p->predictors[i]))
			return mzm_fail(err, MZM_EARG, "unknown predictor \"%.40s\"", p->predictors[i]);
	return MZM_OK;
}

static mzm_status check_params(mzm_calibration *c, const mzm_calibrate_params *given, mzm_err *err)
{
	mzm_calibrate_params *p = &c->params, defaults = mzm_calibrate_params_default();
	*p = given ? *given : defaults;
	p->n_train = p->n_train ? p->n_train : defaults.n_train;
	p->n_test = p->n_test ? p->n_test : defaults.n_test;
	p->n_report = p->n_report ? p->n_report : defaults.n_report;
	p->n_judged = p->n_judged ? p->n_judged : defaults.n_judged;
	if (!p->keep) {
		p->keep = defaults.keep;
		p->n_keep = defaults.n_keep;
	}
	if (p->n_train < 1 || p->n_test < 2 || p->n_train > MOST_POSITIONS || p->n_test > MOST_POSITIONS ||
	    p->n_report < 1 || p->n_report > MOST_POSITIONS || p->n_judged < 1 || p->n_judged > MOST_POSITIONS ||
	    p->n_tries < 0 || p->n_tries > MZM_MAX_TRIES || p->rank < 0 || p->n_epochs < 0 || p->n_keep < 0 ||
	    p->n_predictors < 0 || p->n_fits < 0)
		return mzm_fail(err, MZM_EARG, "a calibration on %d and %d positions", (int)p->n_train, (int)p->n_test);
	MZM_TRY(check_report(p, err));
	return choose_fits(c, err);
}

/* ---- collecting ---- */

mzm_status mzm_calibration_create(mzm_calibration **out, const mzm_model *model, const mzm_calibrate_params *params,
				  mzm_err *err)
{
	mzm_status st;
	mzm_calibration *c = NULL;
	mzm_session_params sp = mzm_session_params_default();
	int32_t n_ctx = model->weights->cfg.n_ctx;
	*out = NULL;
	if (!model->weights->down_norm)
		return mzm_fail(err, MZM_EUNDEFINED,
				"%s: a calibration needs the whole model in memory (--store resident, or more of it)",
				model->path);
	if (!model->info.hash[0])
		return mzm_fail(err, MZM_EUNDEFINED, "%s: a model without a hash, to which nothing can be bound",
				model->path);
	MZM_TRY_OUT(mzm_alloc_for((void **)&c, sizeof *c, "the calibration", err));
	c->model = model;
	MZM_TRY_OUT(check_params(c, params, err));
	sp.n_threads = c->params.n_threads;
	sp.n_ctx = n_ctx < MZM_CALIBRATE_WINDOW ? n_ctx : MZM_CALIBRATE_WINDOW;
	MZM_TRY_OUT(mzm_session_create(&c->session, model, &sp, err));
	*out = c;
	c = NULL;
out:
	mzm_calibration_free(c);
	return st;
}

void mzm_calibration_free(mzm_calibration *c)
{
	if (!c)
		return;
	mzm_session_free(c->session);
	mzm_free(c->ids);
	mzm_free(c->ends);
	mzm_free(c->windows);
	mzm_free(c->attn_bins);
	mzm_free(c->x);
	mzm_free(c->work.block);
	mzm_free(c);
}

/* Room for n elements. */
static mzm_status grow(void **array, size_t *cap, size_t n, size_t width, mzm_err *err)
{
	size_t larger = *cap ? *cap : 256, bytes;
	while (larger < n && larger <= SIZE_MAX / 2)
		larger *= 2;
	if (larger == *cap)
		return MZM_OK;
	void *grown = mzm_mul_size(larger, width, &bytes) ? mzm_realloc(*array, *cap * width, bytes) : NULL;
	if (!grown)
		return mzm_fail(err, MZM_ENOMEM, "out of memory: %zu tokens", n);
	*array = grown;
	*cap = larger;
	return MZM_OK;
}

mzm_status mzm_calibration_add(mzm_calibration *c, const int32_t *ids, size_t n, mzm_err *err)
{
	int32_t n_vocab = c->model->weights->cfg.n_vocab;
	for (size_t i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= n_vocab)
			return mzm_fail(err, MZM_EARG, "token %zu is %d; the vocabulary has 0 to %d", i, (int)ids[i],
					(int)n_vocab - 1);
	size_t sum;
	if (n == 0)
		return MZM_OK;
	if (!mzm_add_size(c->n_ids, n, &sum))
		return mzm_fail(err, MZM_EARG, "%zu tokens more than a calibration reads", n);
	MZM_TRY(grow((void **)&c->ids, &c->ids_cap, sum, sizeof c->ids[0], err));
	MZM_TRY(grow((void **)&c->ends, &c->texts_cap, c->n_texts + 1, sizeof c->ends[0], err));
	memcpy(c->ids + c->n_ids, ids, n * sizeof *ids);
	c->n_ids = sum;
	c->ends[c->n_texts++] = sum;
	return MZM_OK;
}

/* ---- fitting ---- */

/* Where TEAL is fitted, and the attention can use it, its inputs are counted; else 0. */
static size_t bins_bytes(const mzm_calibration *c)
{
	const mzm_config *cfg = &c->model->weights->cfg;
	bool wanted = false;
	for (int32_t i = 0; i < c->n_fits; i++)
		wanted = wanted || c->fits[i] == &mzm_fit_teal;
	return wanted && cfg->attn_by_input ? 2 * (size_t)cfg->n_layers * MZM_TEAL_BINS * sizeof *c->attn_bins : 0;
}

/* As many positions as have room: what a budget leaves, else half of what is free. */
static mzm_status most_positions(int32_t *most, const mzm_calibration *c, mzm_err *err)
{
	const mzm_plan *plan = &c->model->plan;
	uint64_t bytes = UINT64_MAX, room = mzm_memory_available() / 2;
	int32_t n = c->params.n_train + c->params.n_test;
	if (c->n_ids < (size_t)n) /* where they are too few, it is choose that says so */
		n = c->n_ids < MZM_CALIBRATE_LEAST ? MZM_CALIBRATE_LEAST : (int32_t)c->n_ids;
	if (plan->ram_bytes)
		room = plan->ram_bytes > plan->needed_bytes ? plan->ram_bytes - plan->needed_bytes : 0;
	uint64_t aside = bins_bytes(c) + (c->fits_alloc ? mzm_calibrate_shares_bytes(c) : 0);
	aside += c->fits_skip ? mzm_calibrate_skip_bytes(c) : 0;
	room = room > aside ? room - aside : 0;
	while (n >= MZM_CALIBRATE_LEAST && (!mzm_calibrate_measure(&bytes, c, n - n / 5, n / 5) || bytes > room))
		n -= n / 8;
	if (n < MZM_CALIBRATE_LEAST)
		return mzm_fail(err, MZM_ENOMEM, "%.1f MiB are free, and the least sample takes %.1f",
				(double)room / (1 << 20), (double)bytes / (1 << 20));
	*most = n;
	return MZM_OK;
}

static mzm_fit_layer layer_of(const mzm_calibration *c, int32_t layer)
{
	const mzm_weights *w = c->model->weights;
	size_t first = (size_t)layer * (size_t)w->cfg.n_ffn;
	return (mzm_fit_layer){.cfg = &w->cfg, .layer = layer, .n_train = c->n_train, .n_test = c->n_test,
			       .x = c->work.x, .gate = c->work.gate, .z = c->work.z, .w_gate = c->work.w_gate,
			       .b_gate = w->layer[layer].b_gate,
			       .w_up = w->cfg.ungated ? NULL : c->work.w_up, .b_up = w->layer[layer].b_up,
			       .up_norm = w->up_norm ? w->up_norm + first : c->work.ones,
			       .down_norm = w->down_norm + first, .seed = c->params.seed, .team = c->session->team,
			       .attn_bins = c->attn_bins ? c->attn_bins + 2 * (size_t)layer * MZM_TEAL_BINS : NULL};
}

/* Where a fit is, in all of them. */
typedef struct place {
	const mzm_calibration *c;
	uint64_t done, total; /* fits */
} place;

#define PARTS 100u /* of a fit */

static int tell_part(void *user, const char *stage, uint64_t done, uint64_t total)
{
	const place *at = user;
	uint64_t part = total ? (uint64_t)((double)done / (double)total * PARTS) : 0;
	(void)stage;
	return mzm_calibrate_tell(at->c, "fitting", at->done * PARTS + (part < PARTS ? part : PARTS), at->total * PARTS,
				  NULL) != MZM_OK;
}

static mzm_status fit_layer(mzm_calibration *c, int32_t layer, mzm_calib_writer *to, mzm_err *err)
{
	mzm_fit_layer l = layer_of(c, layer);
	uint64_t n = (uint64_t)c->n_fits;
	place at = {c, (uint64_t)layer * n, n * (uint64_t)l.cfg->n_layers};
	mzm_fit_options o = {.rank = c->params.rank, .n_epochs = c->params.n_epochs, .progress = tell_part,
			     .user = &at};
	for (int32_t i = 0; i < c->n_fits; i++, at.done++) {
		int64_t start = mzm_now_ns();
		MZM_TRY(mzm_calibrate_tell(c, "fitting", at.done * PARTS, at.total * PARTS, err));
		MZM_TRY(c->fits[i]->layer(&l, &o, to, err));
		c->fit_seconds[i] += (double)(mzm_now_ns() - start) * 1e-9;
	}
	return MZM_OK;
}

static mzm_status fit_all(mzm_calibration *c, mzm_calib_writer *to, mzm_err *err)
{
	int32_t n_layers = c->model->weights->cfg.n_layers;
	for (int32_t l = 0; l < n_layers && c->n_fits > 0; l++) {
		mzm_calibrate_layer(c, l, false);
		MZM_TRY(fit_layer(c, l, to, err));
	}
	return MZM_OK;
}

/* ---- the result ---- */

static json_t *fits_json(const mzm_calibration *c, bool timed)
{
	json_t *list = json_array();
	for (int32_t i = 0; list && i < c->n_fits; i++) {
		json_t *o = timed ? json_pack("{s:s, s:f}", "name", c->fits[i]->name, "seconds", c->fit_seconds[i])
				  : json_pack("{s:s}", "name", c->fits[i]->name);
		if (json_array_append_new(list, o) != 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

/* timed: for the caller; else for the file, which shall be the same from every machine. */
static mzm_status describe(json_t **out, const mzm_calibration *c, const mzm_calibrate_report *r, json_t *shares,
			   json_t *skip, bool timed, mzm_err *err)
{
	*out = json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:i, s:I, s:i, s:I, s:O?, s:O*, s:o, s:o}", "program",
			 MZM_VERSION_STRING, "arch", c->model->info.arch, "model_hash", c->model->info.hash, "texts",
			 (json_int_t)c->n_texts, "tokens", (json_int_t)c->n_ids, "n_train", (int)c->n_train, "n_test",
			 (int)c->n_test, "seed", (json_int_t)c->params.seed, "rank", (int)c->params.rank,
			 "n_judged", (json_int_t)c->n_judged, SHARES, shares, MZM_SKIP_TENSOR, skip, "fits",
			 fits_json(c, timed), "report", mzm_calibrate_report_json(r, timed));
	return *out ? MZM_OK : mzm_fail(err, MZM_ENOMEM, "out of memory: the report");
}

static int add_text(const char *bytes, size_t n, void *str)
{
	mzm_str_add(str, bytes, n);
	return ((mzm_str *)str)->failed ? -1 : 0;
}

static mzm_status write_results(mzm_calibration *c, const mzm_calibrate_report *r, json_t *const found[2],
				mzm_calib_writer *w, const char *out_path, char **report, mzm_err *err)
{
	mzm_status st;
	json_t *info = NULL, *timed = NULL;
	mzm_str text = {0};
	MZM_TRY_OUT(describe(&info, c, r, found[0], found[1], false, err));
	MZM_TRY_OUT(describe(&timed, c, r, found[0], found[1], true, err));
	if (report && json_dump_callback(timed, add_text, &text, JSON_INDENT(1)) != 0)
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "out of memory: the report"));
	if (out_path)
		MZM_TRY_OUT(mzm_calib_finish(w, out_path, info, err));
	if (report) {
		*report = text.data;
		text = (mzm_str){0};
	}
out:
	mzm_str_free(&text);
	json_decref(info);
	json_decref(timed);
	return st;
}

mzm_status mzm_calibration_finish(mzm_calibration *c, const char *out_path, char **report, mzm_err *err)
{
	mzm_status st;
	mzm_calib_writer *w = NULL;
	mzm_calib *fitted = NULL;
	mzm_calibrate_report *r = NULL;
	json_t *found[2] = {NULL, NULL}; /* what was found of shares, and of layers to skip */
	int32_t most;
	if (report)
		*report = NULL;
	if (c->is_finished)
		return mzm_fail(err, MZM_EARG, "this calibration is finished already");
	c->is_finished = true;
	MZM_TRY_OUT(most_positions(&most, c, err));
	MZM_TRY_OUT(mzm_calibrate_choose(c, most, err));
	MZM_TRY_OUT(mzm_calibrate_alloc(c, err));
	MZM_TRY_OUT(mzm_calib_create(&w, c->model->info.hash, err));
	if (bins_bytes(c))
		MZM_TRY_OUT(mzm_alloc_for((void **)&c->attn_bins, bins_bytes(c), "counts of inputs", err));
	MZM_TRY_OUT(mzm_calibrate_sample(c, err));
	MZM_TRY_OUT(fit_all(c, w, err));
	if (c->fits_monitor)
		MZM_TRY_OUT(mzm_calibrate_monitor(c, w, err));
	if (c->fits_alloc)
		MZM_TRY_OUT(mzm_calibrate_shares(&found[0], c, w, err));
	if (c->fits_skip)
		MZM_TRY_OUT(mzm_calibrate_skip(&found[1], c, w, err));
	MZM_TRY_OUT(mzm_calib_preview(&fitted, w, err));
	MZM_TRY_OUT(mzm_calibrate_report_make(&r, c, fitted, err));
	st = write_results(c, r, found, w, out_path, report, err);
out:
	json_decref(found[0]);
	json_decref(found[1]);
	mzm_calibrate_report_free(r);
	mzm_calib_close(fitted);
	mzm_calib_writer_free(w);
	return st;
}
