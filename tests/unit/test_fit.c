/* test_fit.c - what low-rank predictors learn, and how well: the linear algebra against known matrices, factors against
 * layers that have a known rank, the fits on the demo models' own work, the predictors on their side-cars. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "base/rng.h"
#include "fit_rig.h"
#include "predictors/eigen.h"
#include "predictors/factor_fit.h"

static mzm_team *team_of(int n)
{
	mzm_team *t;
	assert_int_equal(mzm_team_create(&t, n, NULL), MZM_OK);
	return t;
}

static float draw(uint64_t stream, size_t i)
{
	return (float)(2 * mzm_rng_unit(77, stream, i) - 1);
}

static float *drawn(uint64_t stream, size_t n)
{
	float *m = fit_rig_floats(n);
	for (size_t i = 0; i < n; i++)
		m[i] = draw(stream, i);
	return m;
}

/* ---- linear algebra ---- */

static void test_products(void **state)
{
	(void)state;
	enum { M = 45, K = 37, N = 70 };
	float *x = drawn(1, M * N), *w = drawn(2, K * N), *weight = drawn(3, M), y[M * K], again[M * K];
	double g[N * N], *g2 = malloc(sizeof g);
	mzm_team *one = team_of(1), *three = team_of(3);
	assert_int_equal(mzm_times_t(y, x, w, M, K, N, one, NULL), MZM_OK);
	assert_int_equal(mzm_times_t(again, x, w, M, K, N, three, NULL), MZM_OK);
	assert_memory_equal(y, again, sizeof y);
	for (int i = 0; i < M; i++)
		for (int k = 0; k < K; k++) {
			double sum = 0;
			for (int c = 0; c < N; c++)
				sum += (double)x[i * N + c] * (double)w[k * N + c];
			assert_true(fabs(sum - (double)y[i * K + k]) < 1e-5);
		}
	assert_int_equal(mzm_gram(g, x, weight, M, N, one, NULL), MZM_OK);
	assert_int_equal(mzm_gram(g2, x, weight, M, N, three, NULL), MZM_OK);
	assert_memory_equal(g, g2, sizeof g);
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			double sum = 0;
			for (int r = 0; r < M; r++)
				sum += (double)weight[r] * (double)x[r * N + i] * (double)x[r * N + j];
			assert_true(fabs(sum - g[i * N + j]) < 1e-5);
		}
	free(x);
	free(w);
	free(weight);
	free(g2);
	mzm_team_free(one);
	mzm_team_free(three);
}

/* s = Q diag(values) Q^T, with Q the product of a few reflections, which are orthogonal whatever their vectors. */
static double *with_spectrum(const double *values, int32_t n)
{
	size_t ld = (size_t)n;
	double *s = calloc(ld * ld, sizeof *s), *v = malloc(ld * sizeof *v), *sv = malloc(ld * sizeof *sv);
	for (size_t i = 0; i < ld; i++)
		s[i * ld + i] = values[i];
	for (uint64_t turn = 0; turn < 3; turn++) { /* s <- H s H, H = 1 - 2 v v^T */
		double norm = 0, vsv = 0;
		for (size_t i = 0; i < ld; i++) {
			v[i] = (double)draw(10 + turn, i);
			norm += v[i] * v[i];
		}
		for (size_t i = 0; i < ld; i++)
			v[i] /= sqrt(norm);
		for (size_t i = 0; i < ld; i++) {
			sv[i] = 0;
			for (size_t j = 0; j < ld; j++)
				sv[i] += s[i * ld + j] * v[j];
			vsv += v[i] * sv[i];
		}
		for (size_t i = 0; i < ld; i++)
			for (size_t j = 0; j < ld; j++)
				s[i * ld + j] += 4 * v[i] * v[j] * vsv - 2 * v[i] * sv[j] - 2 * sv[i] * v[j];
	}
	free(v);
	free(sv);
	return s;
}

static double share_held(const double *s, const float *vectors, int32_t r, int32_t n)
{
	double sum = 0;
	for (size_t k = 0; k < (size_t)r; k++)
		for (size_t i = 0; i < (size_t)n; i++)
			for (size_t j = 0; j < (size_t)n; j++)
				sum += (double)vectors[k * (size_t)n + i] * s[i * (size_t)n + j] *
				       (double)vectors[k * (size_t)n + j];
	return sum;
}

/* The direct way, and the iterated one on the spectrum that falls slowest of those it is meant for. */
static void check_eigen(int32_t n, int32_t r, double tolerance)
{
	double *want = malloc((size_t)n * sizeof *want), *values = malloc((size_t)r * sizeof *values), best = 0;
	float *vectors = fit_rig_floats((size_t)r * (size_t)n);
	mzm_team *team = team_of(2);
	for (int32_t i = 0; i < n; i++) {
		want[i] = 1.0 / (1 + i);
		best += i < r ? want[i] : 0;
	}
	double *s = with_spectrum(want, n);
	assert_int_equal(mzm_eigen_top(values, vectors, s, r, n, 5, team, NULL), MZM_OK);
	for (int32_t k = 0; k < r; k++)
		for (int32_t j = 0; j <= k; j++) {
			double dot = 0;
			for (int32_t i = 0; i < n; i++)
				dot += (double)vectors[(size_t)k * (size_t)n + (size_t)i] *
				       (double)vectors[(size_t)j * (size_t)n + (size_t)i];
			assert_true(fabs(dot - (k == j)) < 1e-4);
		}
	double held = share_held(s, vectors, r, n) / best;
	if (!(held > 1 - tolerance && held < 1 + 1e-5))
		fail_msg("%d of %d eigenvectors hold %.6f of what the best do", (int)r, (int)n, held);
	for (int32_t k = 0; tolerance < 1e-4 && k < r; k++)
		assert_true(fabs(values[k] - want[k]) < 1e-9);
	free(want);
	free(values);
	free(vectors);
	free(s);
	mzm_team_free(team);
}

static void test_eigen(void **state)
{
	(void)state;
	check_eigen(1, 1, 1e-6);
	check_eigen(2, 2, 1e-6);
	check_eigen(61, 20, 1e-6);
	check_eigen(61, 61, 1e-6);
	check_eigen(MZM_EIGEN_DIRECT + 16, 40, 1e-3);
}

static void test_cholesky(void **state)
{
	(void)state;
	enum { N = 75 };
	double values[N], l[N * N], again[N * N];
	for (int i = 0; i < N; i++)
		values[i] = 1 + i * 0.25;
	double *s = with_spectrum(values, N);
	mzm_team *one = team_of(1), *three = team_of(3);
	mzm_err err = {0};
	memcpy(l, s, sizeof l);
	memcpy(again, s, sizeof l);
	assert_int_equal(mzm_cholesky(l, N, one, NULL), MZM_OK);
	assert_int_equal(mzm_cholesky(again, N, three, NULL), MZM_OK);
	assert_memory_equal(l, again, sizeof l);
	for (int i = 0; i < N; i++)
		for (int j = 0; j <= i; j++) {
			double sum = 0;
			for (int k = 0; k <= j; k++)
				sum += l[i * N + k] * l[j * N + k];
			assert_true(fabs(sum - s[i * N + j]) < 1e-9);
		}
	s[40 * N + 40] -= 100; /* no longer positive definite */
	assert_int_equal(mzm_cholesky(s, N, three, &err), MZM_EARG);
	assert_non_null(strstr(err.message, "positive definite"));
	free(s);
	mzm_team_free(one);
	mzm_team_free(three);
}

/* ---- factors of a layer whose gate has a known rank ---- */

enum { DIM = 64, N_FFN = 96, RANK = 32, N_TRAIN = 400, N_TEST = 50, N_POS = N_TRAIN + N_TEST };

static const mzm_config cfg = {.n_layers = 1, .dim = DIM, .n_ffn = N_FFN, .act = MZM_ACT_RELU};

typedef struct layer_rig {
	float *x, *w, *wu, *b, *pre, *gate, *z, *norm;
	mzm_team *team;
	mzm_fit_layer l;
} layer_rig;

static void times(float *y, const float *x, const float *w, int32_t m, int32_t k, int32_t n, mzm_team *team)
{
	assert_int_equal(mzm_times_t(y, x, w, m, k, n, team, NULL), MZM_OK);
}

/* The gate's weights are the product of two of width `rank`. */
static void layer_rig_make(layer_rig *r, int32_t rank, int n_threads)
{
	float *tall = drawn(20, (size_t)(N_FFN * rank)), *wide = drawn(21, (size_t)(DIM * rank));
	r->team = team_of(n_threads);
	r->x = drawn(22, N_POS * DIM);
	r->w = fit_rig_floats(N_FFN * DIM);
	r->wu = drawn(23, N_FFN * DIM);
	r->b = drawn(24, N_FFN);
	r->norm = fit_rig_floats(N_FFN);
	r->pre = fit_rig_floats(N_POS * N_FFN);
	r->gate = fit_rig_floats(N_POS * N_FFN);
	r->z = fit_rig_floats(N_POS * N_FFN);
	for (size_t i = 0; i < N_POS * DIM; i++)
		r->x[i] = r->x[i] * (float)(1 + i % DIM % 7) + 0.5f; /* neither of equal variances nor of mean zero */
	times(r->w, tall, wide, N_FFN, DIM, rank, r->team);
	times(r->pre, r->x, r->w, N_POS, N_FFN, DIM, r->team);
	times(r->z, r->x, r->wu, N_POS, N_FFN, DIM, r->team);
	for (size_t i = 0; i < N_POS * N_FFN; i++) {
		r->pre[i] += r->b[i % N_FFN];
		r->gate[i] = r->pre[i] > 0 ? r->pre[i] : 0;
		r->z[i] *= r->gate[i];
	}
	for (size_t j = 0; j < N_FFN; j++)
		r->norm[j] = 1;
	r->l = (mzm_fit_layer){.cfg = &cfg, .n_train = N_TRAIN, .n_test = N_TEST, .x = r->x, .gate = r->gate,
			       .z = r->z, .w_gate = r->w, .b_gate = r->b, .w_up = r->wu, .up_norm = r->norm,
			       .down_norm = r->norm, .seed = 3, .team = r->team};
	free(tall);
	free(wide);
}

static void layer_rig_free(layer_rig *r)
{
	float *all[] = {r->x, r->w, r->wu, r->b, r->pre, r->gate, r->z, r->norm};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
	mzm_team_free(r->team);
}

static double relative_error(const float *got, size_t ld, const float *want, size_t n, size_t n_rows)
{
	double off = 0, all = 0;
	for (size_t i = 0; i < n_rows * n; i++) {
		double d = (double)got[i / n * ld + i % n] - (double)want[i];
		off += d * d;
		all += (double)want[i] * (double)want[i];
	}
	return sqrt(off / all);
}

static double error_of(const layer_rig *r, const mzm_factor_want *want, double *explained)
{
	mzm_factor_fit f;
	size_t ld = want->target == MZM_FACTOR_GATE_UP ? 2 * N_FFN : N_FFN;
	float *y = fit_rig_floats(N_TEST * ld);
	assert_int_equal(mzm_factor_make(&f, explained, &r->l, want, NULL), MZM_OK);
	assert_int_equal(mzm_factor_predict(y, &f, r->x + N_TRAIN * DIM, N_TEST, r->team, NULL), MZM_OK);
	double error = relative_error(y, ld, r->pre + N_TRAIN * N_FFN, N_FFN, N_TEST);
	mzm_factor_free(&f);
	free(y);
	return error;
}

static void test_known_rank(void **state)
{
	(void)state;
	layer_rig r;
	double explained, exact, aware, plain;
	layer_rig_make(&r, RANK, 2);
	mzm_factor_want want = {.target = MZM_FACTOR_GATE, .inputs = true, .rank = RANK, .bits = 16};
	exact = error_of(&r, &want, &explained);
	assert_true(exact < 1e-4 && fabs(explained - 1) < 1e-4);
	want.inputs = false;
	assert_true(error_of(&r, &want, &explained) < 1e-4 && fabs(explained - 1) < 1e-4);
	want.rank = RANK / 2; /* not enough: then it counts which directions the inputs take */
	plain = error_of(&r, &want, &explained);
	want.inputs = true;
	aware = error_of(&r, &want, &explained);
	print_message("half the rank: error %.3f by the weights, %.3f by the inputs too (%.3f explained)\n", plain,
		      aware, explained);
	assert_true(aware < 0.9 * plain && explained < 0.999);
	want.rank = DIM; /* with up no low rank is exact, but all of it; and the least that is enough is found */
	want.target = MZM_FACTOR_GATE_UP;
	assert_true(error_of(&r, &want, &explained) < 1e-4);
	want.target = MZM_FACTOR_GATE;
	want.energy = 0.9999;
	mzm_factor_fit f;
	assert_int_equal(mzm_factor_make(&f, &explained, &r.l, &want, NULL), MZM_OK);
	assert_int_equal(f.rank, RANK);
	mzm_factor_free(&f);
	layer_rig_free(&r);
}

/* ---- side-cars ---- */

typedef struct car {
	char       dir[256], path[512];
	mzm_calib *calib;
} car;

static void car_close(car *c)
{
	mzm_calib_close(c->calib);
	testing_remove(c->dir);
}

static void car_save(car *c, mzm_calib_writer *w)
{
	mzm_err err = {0};
	json_t *info = json_object();
	testing_temp_dir(c->dir);
	snprintf(c->path, sizeof c->path, "%s/a.mzc", c->dir);
	if (mzm_calib_finish(w, c->path, info, &err) != MZM_OK ||
	    mzm_calib_open(&c->calib, c->path, "a hash", &err) != MZM_OK)
		fail_msg("%s", err.message);
	json_decref(info);
	mzm_calib_writer_free(w);
}

static mzm_calib_writer *new_writer(void)
{
	mzm_calib_writer *w;
	assert_int_equal(mzm_calib_create(&w, "a hash", NULL), MZM_OK);
	return w;
}

static const mzm_fit *const fits[] = {&mzm_fit_svd, &mzm_fit_aware, &mzm_fit_lowrank, &mzm_fit_countdown_d};
enum { N_FITS = sizeof fits / sizeof *fits };

/* All fits of the synthetic layer. */
static void car_make(car *c, int n_threads)
{
	layer_rig r;
	mzm_calib_writer *w = new_writer();
	mzm_fit_options o = {.rank = RANK, .n_epochs = 3};
	layer_rig_make(&r, RANK, n_threads);
	for (size_t i = 0; i < N_FITS; i++)
		assert_int_equal(fits[i]->layer(&r.l, &o, w, NULL), MZM_OK);
	car_save(c, w);
	layer_rig_free(&r);
}

static void test_fits_by_threads(void **state)
{
	(void)state;
	car one, three;
	size_t n1, n3;
	car_make(&one, 1);
	car_make(&three, 3);
	char *a = testing_read(one.path, &n1), *b = testing_read(three.path, &n3);
	assert_int_equal(n1, n3);
	assert_memory_equal(a, b, n1);
	free(a);
	free(b);
	car_close(&one);
	car_close(&three);
}

/* The n-th allocation fails: nothing is lost, and the reason is told. */
static void test_fits_without_memory(void **state)
{
	(void)state;
	layer_rig r;
	mzm_fit_options o = {.rank = RANK, .n_epochs = 1};
	layer_rig_make(&r, RANK, 1);
	for (size_t i = 0; i < N_FITS; i++) {
		long nth = 1;
		for (mzm_status st = MZM_ENOMEM; st != MZM_OK; nth++) {
			size_t live = mzm_mem_live();
			mzm_calib_writer *w = new_writer();
			mzm_err err = {0};
			mzm_mem_fail_nth(nth);
			st = fits[i]->layer(&r.l, &o, w, &err);
			mzm_mem_fail_nth(0);
			assert_true(st == MZM_OK || (st == MZM_ENOMEM && err.code == MZM_ENOMEM));
			mzm_calib_writer_free(w);
			assert_int_equal(mzm_mem_live(), live);
		}
		assert_true(nth > 10);
	}
	layer_rig_free(&r);
}

static int stop_at_once(void *user, const char *stage, uint64_t done, uint64_t total)
{
	(void)stage, (void)done, (void)total;
	return *(int *)user;
}

static void test_cancelled(void **state)
{
	(void)state;
	layer_rig r;
	int answer = 1;
	mzm_err err = {0};
	mzm_calib_writer *w = new_writer();
	mzm_fit_options o = {.rank = RANK, .n_epochs = 1, .user = &answer};
	layer_rig_make(&r, RANK, 1);
	o.progress = stop_at_once;
	assert_int_equal(mzm_fit_lowrank.layer(&r.l, &o, w, &err), MZM_ECANCELLED);
	answer = 0;
	assert_int_equal(mzm_fit_lowrank.layer(&r.l, &o, w, &err), MZM_OK);
	mzm_calib_writer_free(w);
	layer_rig_free(&r);
}

/* ---- predictors ---- */

typedef struct scoring {
	mzm_predictor *p;
	const float   *x;
	float         *score;
} scoring;

static void score_rank(void *ctx, mzm_team *team, int rank)
{
	scoring *s = ctx;
	s->p->ops->score(s->p, 0, s->x, s->score, team, rank);
}

static int32_t choose(mzm_predictor *p, const float *x, const float *gate, int32_t *rows, mzm_team *team)
{
	float score[N_FFN], chosen[N_FFN];
	scoring s = {p, x, score};
	mzm_team_run(team, score_rank, &s);
	int32_t n = p->ops->select(p, 0, 0, score, rows);
	for (int32_t i = 0; i < n; i++) {
		assert_true(rows[i] >= 0 && rows[i] < N_FFN && (i == 0 || rows[i] > rows[i - 1]));
		chosen[i] = gate[rows[i]];
	}
	n = p->ops->refine(p, 0, chosen, rows, n);
	for (int32_t i = 0; i < n; i++)
		assert_true(chosen[i] == gate[rows[i]] && (i == 0 || rows[i] > rows[i - 1]));
	return n;
}

static mzm_pred_env env_of(const car *c, float keep)
{
	return (mzm_pred_env){.cfg = &cfg, .keep = keep, .kern = mzm_kern_find(NULL), .calib = c->calib};
}

static void check_predictor(const layer_rig *r, const car *c, const mzm_predictor_ops *ops)
{
	mzm_predictor *p, *all;
	mzm_pred_env env = env_of(c, 0.5f), whole = env_of(c, 1);
	mzm_team *teams[] = {team_of(1), team_of(2), team_of(5)};
	assert_int_equal(ops->create(&p, &env, NULL), MZM_OK);
	assert_int_equal(ops->create(&all, &whole, NULL), MZM_OK);
	assert_true(ops->cost(p) > 0 && ops->cost(p) == ops->cost(all));
	for (int t = N_TRAIN; t < N_POS; t++) {
		const float *x = r->x + t * DIM, *gate = r->gate + t * N_FFN;
		int32_t rows[3][N_FFN], n[3];
		for (int i = 0; i < 3; i++)
			n[i] = choose(p, x, gate, rows[i], teams[i]);
		for (int i = 1; i < 3; i++) { /* for every size of the team */
			assert_int_equal(n[i], n[0]);
			assert_memory_equal(rows[i], rows[0], (size_t)n[0] * sizeof rows[0][0]);
		}
		int32_t active = 0;
		for (int j = 0; j < N_FFN; j++)
			active += gate[j] > 0;
		assert_int_equal(choose(all, x, gate, rows[0], teams[1]), active); /* all that are not zero */
	}
	ops->free(p);
	ops->free(all);
	for (int i = 0; i < 3; i++)
		mzm_team_free(teams[i]);
}

static const mzm_predictor_ops *const predictors[N_FITS] = {&mzm_pred_svd, &mzm_pred_aware, &mzm_pred_lowrank,
							    &mzm_pred_countdown_d};

static void test_predictors(void **state)
{
	(void)state;
	layer_rig r;
	car c;
	layer_rig_make(&r, RANK, 1);
	car_make(&c, 1);
	for (size_t i = 0; i < N_FITS; i++)
		check_predictor(&r, &c, predictors[i]);
	layer_rig_free(&r);
	car_close(&c);
}

static void refused(const mzm_predictor_ops *ops, const mzm_pred_env *env)
{
	mzm_predictor *p = NULL;
	mzm_err err = {0};
	assert_int_equal(ops->create(&p, env, &err), MZM_EFORMAT);
	assert_null(p);
	assert_non_null(strstr(err.message, "side-car"));
	assert_non_null(strstr(err.message, ops->name));
}

/* No side-car; an empty one; that of another shape of layer; one whose shape lies; and no memory. */
static void test_refusals(void **state)
{
	(void)state;
	car c, empty;
	car_make(&c, 1);
	mzm_calib_writer *w = new_writer();
	float lies[3] = {1e9f, 1, 4}, some[N_FFN] = {0};
	assert_int_equal(mzm_calib_add(w, "svd.shape", 0, MZM_F32, 1, 3, lies, NULL), MZM_OK);
	assert_int_equal(mzm_calib_add(w, "svd.bias", 0, MZM_BF16, 1, N_FFN, some, NULL), MZM_OK);
	car_save(&empty, w);
	mzm_config wider = cfg, deeper = cfg;
	wider.n_ffn *= 2;
	deeper.n_layers = 2;
	for (size_t i = 0; i < N_FITS; i++) {
		mzm_pred_env env = env_of(&c, 0.5f);
		long n = 0;
		const struct {
			const mzm_config *cfg;
			const mzm_calib  *calib;
		} wrong[] = {{&cfg, NULL}, {&cfg, empty.calib}, {&wider, c.calib}, {&deeper, c.calib}};
		for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
			mzm_pred_env bad = env;
			bad.cfg = wrong[k].cfg;
			bad.calib = wrong[k].calib;
			refused(predictors[i], &bad);
		}
		for (long nth = 1;; nth++) {
			mzm_predictor *p = NULL;
			size_t live = mzm_mem_live();
			mzm_mem_fail_nth(nth);
			mzm_status st = predictors[i]->create(&p, &env, NULL);
			mzm_mem_fail_nth(0);
			if (st == MZM_OK) {
				predictors[i]->free(p);
				break;
			}
			assert_int_equal(st, MZM_ENOMEM);
			assert_int_equal(mzm_mem_live(), live);
			n++;
		}
		assert_true(n >= 3);
	}
	car_close(&c);
	car_close(&empty);
}

/* ---- the demo models ---- */

typedef struct found {
	double recall, precision, chosen; /* of the neurons that count; of all, for each that counts */
} found;

/* What the predictor finds of the neurons that count (each position's: counts [n_ffn]) where their gates decide. */
static found look(mzm_predictor *p, const fit_rig *r, const mzm_fit_layer *l, const uint8_t *counts)
{
	size_t n_ffn = (size_t)l->cfg->n_ffn, dim = (size_t)l->cfg->dim;
	int32_t *rows = malloc(n_ffn * sizeof *rows);
	float *score = fit_rig_floats(n_ffn);
	double hit = 0, all = 0, chosen = 0;
	for (size_t t = (size_t)l->n_train; t < (size_t)(l->n_train + l->n_test); t++) {
		scoring s = {p, l->x + t * dim, score};
		mzm_team_run(r->team, score_rank, &s);
		int32_t n = p->ops->select(p, 0, 0, score, rows);
		chosen += n;
		for (int32_t i = 0; i < n; i++)
			hit += counts[t * n_ffn + (size_t)rows[i]];
		for (size_t j = 0; j < n_ffn; j++)
			all += counts[t * n_ffn + j];
	}
	free(rows);
	free(score);
	return (found){hit / all, hit / chosen, chosen / all};
}

/* A demo model's layer, as the only one of a model. */
typedef struct demo_layer {
	fit_rig       r;
	mzm_config    one;
	mzm_fit_layer l;
	car           c;
	uint8_t      *counts; /* [n, n_ffn] */
} demo_layer;

static void demo_fit(demo_layer *d, const char *model, int32_t n, const mzm_fit *const *which, size_t n_fits)
{
	mzm_calib_writer *w = new_writer();
	mzm_fit_options o = {0};
	fit_rig_open(&d->r, model, DEMO_PROBLEMS, n, 1);
	d->one = d->r.model->weights->cfg;
	d->one.n_layers = 1;
	d->l = fit_rig_layer(&d->r, 2, n / 6);
	d->l.cfg = &d->one;
	d->l.layer = 0;
	for (size_t i = 0; i < n_fits; i++)
		assert_int_equal(which[i]->layer(&d->l, &o, w, NULL), MZM_OK);
	car_save(&d->c, w);
	d->counts = calloc((size_t)n * (size_t)d->one.n_ffn, 1);
}

static void demo_free(demo_layer *d)
{
	free(d->counts);
	car_close(&d->c);
	fit_rig_close(&d->r);
}

static found demo_look(demo_layer *d, const mzm_predictor_ops *ops, double keep)
{
	mzm_predictor *p;
	mzm_err err = {0};
	mzm_pred_env env = {.cfg = &d->one, .keep = (float)keep, .kern = mzm_kern_find(NULL), .calib = d->c.calib};
	if (ops->create(&p, &env, &err) != MZM_OK)
		fail_msg("%s", err.message);
	found f = look(p, &d->r, &d->l, d->counts);
	double cost = (double)ops->cost(p) / (3.0 * 2 * d->one.dim * d->one.n_ffn);
	print_message("%-8s keep %.3f: %.2f chosen for each that counts, recall %.3f, precision %.3f; it reads %.3f of "
		      "the FFN\n", ops->name, keep, f.chosen, f.recall, f.precision, cost);
	ops->free(p);
	return f;
}

/* ---- the whole model ---- */

/* A side-car for all layers, of fits that do not train. */
static void car_of_model(car *c, fit_rig *r)
{
	mzm_calib_writer *w = new_writer();
	mzm_fit_options o = {0};
	for (int32_t l = 0; l < r->model->weights->cfg.n_layers; l++) {
		mzm_fit_layer layer = fit_rig_layer(r, l, 16);
		assert_int_equal(mzm_fit_svd.layer(&layer, &o, w, NULL), MZM_OK);
		assert_int_equal(mzm_fit_aware.layer(&layer, &o, w, NULL), MZM_OK);
	}
	car_save(c, w);
}

/* Logits of a token behind a few others; keep 0: a dense pass. share: of the FFN that it read. */
static void logits_of(float *out, double *share, const fit_rig *r, const car *c, const mzm_predictor_ops *ops,
		      float keep, int n_threads)
{
	static const int32_t ids[] = {5, 9, 200, 31, 77, 5};
	mzm_session *s;
	mzm_predictor *p = NULL;
	mzm_session_params sp = mzm_session_params_default();
	mzm_pred_env env = {.cfg = &r->model->weights->cfg, .keep = keep, .kern = r->model->kern, .calib = c->calib};
	float *logits;
	sp.n_threads = n_threads;
	assert_int_equal(mzm_session_create(&s, r->model, &sp, NULL), MZM_OK);
	mzm_pass pass = {.ids = ids, .n_pos = 5};
	assert_int_equal(mzm_forward(s->state, &pass, NULL, NULL, NULL), MZM_OK);
	if (keep > 0)
		assert_int_equal(ops->create(&p, &env, NULL), MZM_OK);
	(void)mzm_mem_fail_nth(0); /* counts from here */
	pass = (mzm_pass){.ids = ids + 5, .n_pos = 1, .n_rows = 1, .sparse = p};
	assert_int_equal(mzm_forward(s->state, &pass, &logits, share, NULL), MZM_OK);
	assert_int_equal(mzm_mem_fail_nth(0), 0); /* nothing was allocated */
	memcpy(out, logits, (size_t)env.cfg->n_vocab * sizeof *out);
	if (p)
		ops->free(p);
	mzm_session_free(s);
}

/* All neurons: the dense logits bit for bit. Some: the same for every number of threads, and what was read is counted,
 * the predictor's own bytes too. */
static void check_model(const char *path)
{
	fit_rig r;
	car c;
	double share;
	fit_rig_open(&r, path, DEMO_PROBLEMS, 400, 1);
	car_of_model(&c, &r);
	size_t n = (size_t)r.model->weights->cfg.n_vocab * sizeof(float);
	float *dense = malloc(n), *one = malloc(n), *three = malloc(n);
	logits_of(dense, &share, &r, &c, NULL, 0, 1);
	assert_true(fabs(share - 1) < 1e-9);
	for (size_t i = 0; i < 2; i++) {
		logits_of(one, &share, &r, &c, predictors[i], 1, 3);
		assert_memory_equal(one, dense, n);
		logits_of(one, &share, &r, &c, predictors[i], 0.1f, 1);
		logits_of(three, &share, &r, &c, predictors[i], 0.1f, 3);
		assert_memory_equal(one, three, n);
		assert_true(memcmp(one, dense, n) != 0 && share > 0.04 && share < 0.25);
	}
	free(dense);
	free(one);
	free(three);
	car_close(&c);
	fit_rig_close(&r);
}

static void test_whole_models(void **state)
{
	(void)state;
	check_model(DEMO_MODEL);
	check_model(DEMO_MODEL_RELU);
}

/* Active neurons behind a ReLU: no more than half as many again as there are, and 95 of 100 of them found. */
static void test_relu_demo(void **state)
{
	(void)state;
	demo_layer d;
	size_t n_active = 0, n = 9600;
	demo_fit(&d, DEMO_MODEL_RELU, (int32_t)n, (const mzm_fit *const[]){&mzm_fit_lowrank, &mzm_fit_svd}, 2);
	for (size_t i = 0; i < n * (size_t)d.one.n_ffn; i++)
		n_active += d.counts[i] = d.l.gate[i] > 0;
	double active = (double)n_active / (double)(n * (size_t)d.one.n_ffn);
	found f = demo_look(&d, &mzm_pred_lowrank, 1.3 * active), plain = demo_look(&d, &mzm_pred_svd, 1.5 * active);
	assert_true(f.chosen <= 1.5 && f.recall >= 0.95 && plain.recall < f.recall - 0.2);
	demo_free(&d);
}

/* The tenth of the neurons that contribute most, in the SwiGLU model. */
static void test_silu_demo(void **state)
{
	(void)state;
	demo_layer d;
	enum { N = 3000 };
	demo_fit(&d, DEMO_MODEL, N, (const mzm_fit *const[]){&mzm_fit_aware, &mzm_fit_svd}, 2);
	size_t n_ffn = (size_t)d.one.n_ffn;
	int32_t keep = (int32_t)n_ffn / 10, *rows = malloc(n_ffn * sizeof *rows);
	float *score = fit_rig_floats(2 * n_ffn);
	for (size_t t = 0; t < N; t++) {
		for (size_t j = 0; j < n_ffn; j++)
			score[j] = d.l.z[t * n_ffn + j] * d.l.down_norm[j];
		mzm_select_top(rows, keep, score, (int32_t)n_ffn, score + n_ffn);
		for (int32_t i = 0; i < keep; i++)
			d.counts[t * n_ffn + (size_t)rows[i]] = 1;
	}
	found f = demo_look(&d, &mzm_pred_aware, 0.1), plain = demo_look(&d, &mzm_pred_svd, 0.125);
	assert_true(f.chosen < 1.26 && f.recall > 0.67 && plain.recall < f.recall - 0.2);
	free(rows);
	free(score);
	demo_free(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_products),   cmocka_unit_test(test_eigen),      cmocka_unit_test(test_cholesky),
		cmocka_unit_test(test_known_rank), cmocka_unit_test(test_fits_by_threads),
		cmocka_unit_test(test_predictors), cmocka_unit_test(test_refusals),   cmocka_unit_test(test_relu_demo),
		cmocka_unit_test(test_fits_without_memory), cmocka_unit_test(test_cancelled),
		cmocka_unit_test(test_silu_demo),  cmocka_unit_test(test_whole_models),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
