/* held_rig.h - what tests of held neurons share: models of several sections with and without a draft image, opened
 * under budgets that leave room for some of their neurons. */
#ifndef HELD_RIG_H
#define HELD_RIG_H

#include "store_rig.h"

#include "temp_dir.h"

enum { N_NEW = 8 }; /* tokens of a text */

typedef struct way {
	mzm_mode    mode;
	const char *predictor;
	float       keep;
	bool        no_image;
	int         prompt; /* which */
} way;

static inline mzm_gen_params params_of(way w)
{
	mzm_gen_params p = mzm_gen_params_default();
	p.mode = w.mode;
	p.predictor = w.predictor;
	p.keep = w.keep;
	p.no_draft_image = w.no_image;
	p.period = 5;
	p.max_tokens = N_NEW;
	p.ignore_eos = true;
	return p;
}

static inline int32_t n_held(const rig *r)
{
	return r->model->weights->n_held;
}

static inline int32_t n_ffn(const rig *r)
{
	return r->model->weights->cfg.n_ffn;
}

typedef struct form {
	const char *quant, *draft;
	int         zstd, n_ffn;
	const char *method;
} form;

static inline void make_model(form f)
{
	mzm_err err = {0};
	mzm_import_params p = mzm_import_params_default();
	tiny_model *m = rig_tiny(64, f.n_ffn, 300, 3);
	p.quant = f.quant;
	p.draft_quant = f.draft;
	p.quant_method = f.method;
	p.zstd = f.zstd;
	if (mzm_import(m->dir, path, &p, &err) != MZM_OK)
		fail_msg("%s", err.message);
	tiny_free(m);
}

static const form forms[] = {
	{"bf16", "q4", 0, 2100, "best"}, {"f16", "off", 3, 2100, "nearest"}, {"f32", "q4", 3, 1100, "nearest"},
	{"q8", "off", 0, 1600, "nearest"}, {"bf16", "off", 3, 600, "nearest"}, {"q8", "q4", 3, 1600, "nearest"},
	{"f32", "off", 0, 600, "nearest"}, {"f16", "q4", 0, 1100, "best"},
};
enum { N_FORMS = sizeof forms / sizeof *forms };

/* Streams under a budget found by trying, with n neurons a layer held at least; exact: not one more. */
static inline rig open_held(const char *file, rig_how how, way drafts, int32_t n, bool exact)
{
	rig r = {0};
	mzm_err err = {0};
	mzm_gen_params gen = params_of(drafts);
	mzm_session_params sp = {.n_threads = how.n_threads ? how.n_threads : 1, .n_ctx = 160};
	how.store = "stream";
	how.drafts = &gen;
	how.n_ctx = sp.n_ctx;
	for (uint64_t more = 0; !r.model && more < (uint64_t)32 << 20; more += 16 << 10) {
		mzm_plan p;
		how.ram = 0;
		how.ram = rig_plan(file, &how, MZM_OK).smallest_bytes + (64 << 10) + more;
		mzm_model_params mp = {.store = how.store, .io = how.io, .ram_bytes = how.ram, .session = &sp,
				       .n_sessions = how.n_sessions, .drafts = &gen};
		if (!RIG_SANITIZED && (mzm_plan_make(&p, file, &mp, NULL) != MZM_OK || p.n_held < n))
			continue; /* quicker; but a process that grows plans something else the next time */
		if (mzm_model_open(&r.model, file, &mp, &err) == MZM_OK && n_held(&r) < n) {
			mzm_model_close(r.model);
			r.model = NULL;
		}
	}
	if (!r.model)
		fail_msg("no budget holds %d neurons: %s", (int)n, err.message);
	const mzm_plan *p = mzm_model_get_plan(r.model);
	assert_true(p->n_held == n_held(&r) && n_held(&r) >= n_ffn(&r) / 32 && n_held(&r) <= n_ffn(&r));
	assert_true(p->streamed_bytes > 0 && !p->draft_on_disk);
	if (exact) /* budgets are measured anew each time, so plans differ a little */
		r.model->weights->n_held = n;
	assert_int_equal(mzm_session_create(&r.session, r.model, &sp, NULL), MZM_OK);
	return r;
}

#endif
