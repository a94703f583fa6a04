/* fit_rig.h - a sample of a demo model's work, layer by layer, as fits want it (predictors/fit.h): for tests. The
 * working directory is the source tree's root. */
#ifndef FIT_RIG_H
#define FIT_RIG_H

#include "demo.h"
#include "engine/engine.h"
#include "kern/quant.h"
#include "predictors/fit.h"
#include "predictors/linalg.h"
#include "testing.h"

typedef struct fit_rig {
	mzm_model *model;
	mzm_session *session;
	int32_t n, cap;     /* positions */
	float **x;          /* [n_layers] of [cap, dim] */
	mzm_team *team;
	/* of the layer at hand */
	float *w_gate, *w_up, *gate, *z, *pre; /* [n_ffn, dim] twice; [cap, n_ffn] three times, pre before act() */
} fit_rig;

static inline void *fit_rig_floats(size_t n)
{
	void *p = malloc(n * sizeof(float));
	assert_non_null(p);
	return p;
}

static inline void fit_rig_see(void *ctx, int32_t layer, const float *x, int32_t n_pos)
{
	fit_rig *r = ctx;
	size_t dim = (size_t)r->model->weights->cfg.dim;
	if (r->n + n_pos <= r->cap)
		memcpy(r->x[layer] + (size_t)r->n * dim, x, (size_t)n_pos * dim * sizeof *x);
}

static inline void fit_rig_feed(fit_rig *r, const char *text)
{
	mzm_err err = {0};
	int32_t *ids;
	size_t n;
	const mzm_tokenizer *tok = mzm_model_tokenizer(r->model);
	if (mzm_tokenize(tok, text, strlen(text), MZM_TOK_ADD_SPECIAL, &ids, &n, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_session_truncate(r->session, 0);
	for (size_t i = 0; i < n && r->n < r->cap; i += 32) {
		mzm_pass pass = {.ids = ids + i, .n_pos = n - i < 32 ? (int32_t)(n - i) : 32,
				 .see_input = fit_rig_see, .see_ctx = r};
		if (mzm_forward(r->session->state, &pass, NULL, NULL, &err) != MZM_OK)
			fail_msg("%s", err.message);
		r->n = r->n + pass.n_pos <= r->cap ? r->n + pass.n_pos : r->cap;
	}
	mzm_ids_free(ids);
}

/* n positions of the model at work on the problems of a file. */
static inline void fit_rig_open(fit_rig *r, const char *model, const char *problems, int32_t n, int n_threads)
{
	mzm_err err = {0};
	mzm_session_params sp = mzm_session_params_default();
	*r = (fit_rig){.cap = n};
	sp.n_threads = 1;
	if (mzm_model_open(&r->model, model, NULL, &err) != MZM_OK ||
	    mzm_session_create(&r->session, r->model, &sp, &err) != MZM_OK ||
	    mzm_team_create(&r->team, n_threads, &err) != MZM_OK)
		fail_msg("%s", err.message);
	const mzm_config *cfg = &r->model->weights->cfg;
	size_t dim = (size_t)cfg->dim, n_ffn = (size_t)cfg->n_ffn;
	r->x = malloc((size_t)cfg->n_layers * sizeof *r->x);
	for (int32_t l = 0; l < cfg->n_layers; l++)
		r->x[l] = fit_rig_floats((size_t)n * dim);
	FILE *f = fopen(problems, "r");
	assert_non_null(f);
	char *line = NULL, text[8192];
	size_t cap = 0;
	while (r->n < n && getline(&line, &cap, f) > 0) {
		json_t *one = json_loads(line, 0, NULL);
		snprintf(text, sizeof text, "Question: %s\nAnswer: %s",
			 json_string_value(json_object_get(one, "question")),
			 json_string_value(json_object_get(one, "answer")));
		fit_rig_feed(r, text);
		json_decref(one);
	}
	free(line);
	fclose(f);
	assert_int_equal(r->n, n);
	r->w_gate = fit_rig_floats(n_ffn * dim);
	r->w_up = fit_rig_floats(n_ffn * dim);
	r->pre = fit_rig_floats((size_t)n * n_ffn);
	r->gate = fit_rig_floats((size_t)n * n_ffn);
	r->z = fit_rig_floats((size_t)n * n_ffn);
}

static inline void fit_rig_widen(float *to, const mzm_matrix *m, const mzm_kern *kern)
{
	for (int32_t i = 0; i < m->n_rows; i++)
		kern->to_f32(to + (size_t)i * (size_t)m->n_cols, (const char *)m->w + (size_t)i * m->stride, m->dtype,
			     m->n_cols);
}

/* The layer as a fit sees it, its last n_test positions held out. The rig's, until the next call. */
static inline mzm_fit_layer fit_rig_layer(fit_rig *r, int32_t layer, int32_t n_test)
{
	const mzm_weights *w = r->model->weights;
	const mzm_config *cfg = &w->cfg;
	const mzm_kern *kern = mzm_kern_find(NULL);
	size_t n_ffn = (size_t)cfg->n_ffn, n = (size_t)r->n * n_ffn;
	fit_rig_widen(r->w_gate, &w->layer[layer].gate, kern);
	fit_rig_widen(r->w_up, &w->layer[layer].up, kern);
	const float *x = r->x[layer];
	assert_int_equal(mzm_times_t(r->pre, x, r->w_gate, r->n, cfg->n_ffn, cfg->dim, r->team, NULL), MZM_OK);
	assert_int_equal(mzm_times_t(r->z, x, r->w_up, r->n, cfg->n_ffn, cfg->dim, r->team, NULL), MZM_OK);
	memcpy(r->gate, r->pre, n * sizeof(float));
	for (int32_t i = 0; i < r->n; i++) {
		size_t at = (size_t)i * n_ffn;
		kern->act(r->gate + at, cfg->act, cfg->act_threshold, cfg->n_ffn);
		kern->mul(r->z + at, r->gate + at, cfg->n_ffn);
	}
	return (mzm_fit_layer){.cfg = cfg, .layer = layer, .n_train = r->n - n_test, .n_test = n_test, .x = r->x[layer],
			       .gate = r->gate, .z = r->z, .w_gate = r->w_gate, .w_up = r->w_up,
			       .up_norm = w->up_norm + (size_t)layer * n_ffn,
			       .down_norm = w->down_norm + (size_t)layer * n_ffn, .seed = 1, .team = r->team};
}

static inline void fit_rig_close(fit_rig *r)
{
	for (int32_t l = 0; l < r->model->weights->cfg.n_layers; l++)
		free(r->x[l]);
	free(r->x);
	free(r->w_gate);
	free(r->w_up);
	free(r->pre);
	free(r->gate);
	free(r->z);
	mzm_session_free(r->session);
	mzm_model_close(r->model);
	mzm_team_free(r->team);
}

#endif
