/* test_held_guess.c - drafts by predicted gates on the neurons that fit in memory: the dense text in exact mode, one
 * text for every number of threads and way of reading, neurons that follow the checks, and no allocation while
 * writing. */
#include "held_rig.h"

#include "counting.h"
#include "model/state.h"

static const char *const predictors[] = {"svd", "aware", "lowrank", "static"};
enum { N_PREDICTORS = sizeof predictors / sizeof *predictors, N_PROMPT = 75, N_IDS = 700 };

/* The side-car beside the model at path: from tokens drawn at random, which is all that this model knows. */
static void calibrate(void)
{
	mzm_err err = {0};
	mzm_model *m;
	mzm_calibration *c = NULL;
	char *at = NULL;
	int32_t ids[N_IDS];
	static const float keep[] = {0.1f};
	mzm_model_params mp = mzm_model_params_default();
	mzm_calibrate_params p = mzm_calibrate_params_default();
	mp.store = "resident";
	mp.calib = "off"; /* there may be one of the model before */
	p.fits = predictors;
	p.n_fits = N_PREDICTORS;
	p.n_threads = p.n_report = p.n_epochs = p.n_keep = 1;
	p.keep = keep;
	p.n_train = 300;
	p.n_test = 64;
	for (int i = 0; i < N_IDS; i++)
		ids[i] = (int32_t)((uint32_t)(i + 5) * 2654435761u % 2039 % 300);
	if (mzm_model_open(&m, path, &mp, &err) != MZM_OK || mzm_calibration_create(&c, m, &p, &err) != MZM_OK ||
	    mzm_calibration_add(c, ids, N_IDS, &err) != MZM_OK || mzm_calibration_path(&at, path, &err) != MZM_OK ||
	    mzm_calibration_finish(c, at, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_string_free(at);
	mzm_calibration_free(c);
	mzm_model_close(m);
}

typedef struct text {
	mzm_gen_result r;
	int32_t ids[N_NEW];
	bool    has_begun;
	long    allocations_at_first, allocations_at_last;
	int32_t first[2 * 2100]; /* neurons held after the prompt */
	mzm_held *held;
} text;

static int on_token(void *user, const mzm_token_event *e)
{
	text *t = user;
	long now = atomic_load(&n_allocations);
	(void)e;
	if (!t->has_begun) {
		t->allocations_at_first = now;
		if (t->held)
			memcpy(t->first, t->held->ids, 2 * (size_t)t->held->n * sizeof *t->first);
	}
	t->has_begun = true;
	t->allocations_at_last = now;
	return 0;
}

static text write_text(mzm_session *s, way w)
{
	text t = {.held = s->state->held};
	mzm_err err = {0};
	int32_t ids[N_PROMPT];
	mzm_gen_params p = params_of(w);
	for (int i = 0; i < N_PROMPT; i++)
		ids[i] = (int32_t)((uint32_t)(i + 3) * 2654435761u % 2039 % 300);
	p.on_token = on_token;
	p.user = &t;
	if (mzm_generate(s, ids, N_PROMPT, &p, &t.r, &err) != MZM_OK)
		fail_msg("%s: %s", w.predictor, err.message);
	assert_int_equal(t.r.n_tokens, N_NEW);
	memcpy(t.ids, t.r.tokens, sizeof t.ids);
	return t;
}

static void expect_same(const text *a, const text *b)
{
	assert_memory_equal(a->ids, b->ids, sizeof a->ids);
}

/* Two threads and another way to read: the same; and in the dense pass's middle nothing is asked of malloc. */
static void expect_one_text(const char *predictor, int32_t n, const text *dense)
{
	static const mzm_mode modes[] = {MZM_MODE_SPARSE, MZM_MODE_EXACT, MZM_MODE_SIRIUS};
	static const char *const ios[] = {NULL, "threads"};
	text want[3];
	for (int k = 0; k < 2; k++) {
		way w = {MZM_MODE_SIRIUS, predictor, 0.1f, false, 0};
		rig r = open_held(path, (rig_how){.io = ios[k], .n_threads = 1 + k}, w, n, true);
		assert_non_null(r.model->calib);
		for (int i = 0; i < 3; i++) {
			w.mode = modes[i];
			text got = write_text(r.session, w);
			if (k == 0)
				want[i] = got;
			expect_same(&got, &want[i]);
			assert_true(got.r.n_sparse_passes > 0 && got.r.density < 0.95);
			assert_true(mzm_held_is_complete(got.held));
#ifndef NO_COUNTING
			assert_int_equal(got.allocations_at_last, got.allocations_at_first);
#endif
		}
		expect_same(&want[1], dense);
		rig_close(&r);
	}
}

static void test_texts(void **state)
{
	(void)state;
	for (int f = 0; f < 2; f++) {
		make_model(forms[f]);
		calibrate();
		rig resident = rig_open(path, &(rig_how){.store = "resident", .n_ctx = 160});
		text dense = write_text(resident.session, (way){MZM_MODE_DENSE, "griffin", 0.1f, false, 0});
		rig_close(&resident);
		for (int i = 0; i < N_PREDICTORS; i++)
			expect_one_text(predictors[i], 400 - 300 * (i % 2), &dense);
	}
}

/* Neurons that checks show to matter come in: but not for static, which has its set. */
static void test_learning(void **state)
{
	(void)state;
	make_model(forms[1]);
	calibrate();
	for (int i = 0; i < N_PREDICTORS; i++) {
		way w = {MZM_MODE_SPARSE, predictors[i], 0.1f, false, 0};
		bool learns = mzm_predictor_find(predictors[i])->learns;
		assert_int_equal(learns, i < 3);
		rig r = open_held(path, (rig_how){0}, w, 150, true);
		text t = write_text(r.session, w);
		size_t bytes = 2 * (size_t)t.held->n * sizeof *t.first;
		assert_memory_equal(t.first, t.held->ids, bytes); /* no check, no news */
		w.mode = MZM_MODE_SIRIUS;
		t = write_text(r.session, w);
		assert_true(t.r.n_checks > 1);
		assert_int_equal(memcmp(t.first, t.held->ids, bytes) != 0, learns);
		rig_close(&r);
	}
}

typedef struct scoring {
	mzm_predictor *p;
	int32_t        layer;
	float         *x, *score;
} scoring;

static void score_rank(void *ctx, mzm_team *team, int rank)
{
	scoring *s = ctx;
	s->p->ops->score(s->p, s->layer, s->x, s->score, team, rank);
}

/* Of a layer that it was asked about, what it chooses is in memory; of another one it is as ever. */
static void test_choice_is_among_held(void **state)
{
	(void)state;
	enum { N_FFN = 600, DIM = 64, HELD = 90 };
	make_model((form){"f32", "off", 0, N_FFN, "nearest"});
	calibrate();
	rig r = rig_open(path, &(rig_how){.store = "resident", .n_ctx = 160});
	for (int i = 0; i < 3; i++) {
		const mzm_predictor_ops *ops = mzm_predictor_find(predictors[i]);
		mzm_pred_env env = mzm_model_pred_env(r.model, 0.2f, 0, (mzm_drafting){0});
		float x[DIM], score[N_FFN], *z = calloc(N_FFN, sizeof *z);
		int32_t held[N_FFN], rows[N_FFN], n_outside = 0;
		scoring s = {.x = x, .score = score};
		env.partial = true;
		assert_int_equal(ops->create(&s.p, &env, NULL), MZM_OK);
		assert_true(s.p->observes);
		ops->reset(s.p);
		for (int j = 0; j < N_FFN; j++)
			z[j] = j % 5 == 0 ? 1 + (float)j : 0.01f; /* every fifth carried something */
		for (int32_t l = 0; l < 2; l++)
			ops->observe(s.p, l, z, 1);
		assert_int_equal(ops->want(s.p, 0, HELD, held), HELD);
		for (int t = 0; t < 20; t++)
			for (s.layer = 0; s.layer < 2; s.layer++) {
				for (int c = 0; c < DIM; c++)
					x[c] = (float)((uint32_t)(c + 7 * t + 1) * 2654435761u % 1000) / 500 - 1;
				mzm_team_run(r.session->team, score_rank, &s);
				int32_t n = ops->select(s.p, s.layer, 0, score, rows), at = 0;
				assert_int_equal(n, s.layer == 0 ? HELD : strcmp(ops->name, "aware") ? 120 : 150);
				for (int32_t k = 0; k < n && s.layer == 0; k++)
					assert_int_equal(rows[k], held[at++]);
				for (int32_t k = 0; k < n; k++)
					n_outside += s.layer == 1 && rows[k] % 5 != 0;
			}
		assert_true(n_outside > 0 && held[0] % 5 == 0 && held[HELD - 1] % 5 == 0);
		ops->free(s.p);
		free(z);
	}
	rig_close(&r);
}

/* Its factors take memory of the budget: a session that drafts with them leaves less for neurons. */
static void test_plan_counts_factors(void **state)
{
	(void)state;
	mzm_plan plain, guessed;
	mzm_gen_params gen = mzm_gen_params_default();
	mzm_model_params mp = mzm_model_params_default();
	make_model(forms[1]);
	calibrate();
	gen.mode = MZM_MODE_SIRIUS;
	gen.predictor = "griffin";
	mp.drafts = &gen;
	assert_int_equal(mzm_plan_make(&plain, path, &mp, NULL), MZM_OK);
	gen.predictor = "aware";
	assert_int_equal(mzm_plan_make(&guessed, path, &mp, NULL), MZM_OK);
	assert_true(guessed.needed_bytes > plain.needed_bytes + (100 << 10));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_DIR(test_texts),
		IN_DIR(test_learning),
		IN_DIR(test_choice_is_among_held),
		IN_DIR(test_plan_counts_factors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
