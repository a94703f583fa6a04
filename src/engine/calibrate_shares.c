/* calibrate_shares.c - how many neurons each layer keeps, by what its errors do to the model's predictions.
 *
 * Held-out windows are read up to their middle; of what follows a piece counts. First, for each predictor that keeps
 * what keep_of says: the divergence of the next token's distribution from the dense model's when one layer alone uses
 * the neurons that the predictor chooses, at each share of a short list. All positions of a piece are one pass, in
 * which the others' gates of that layer are masked (forward.h), so a measurement costs a check and not a pass a
 * position. From these curves alloc.h finds the shares with the least sum of divergences for each average.
 *
 * Sums of single layers' harm are only a guide, so the shares are tried: sparse passes as drafts make them, token by
 * token on other windows than those of the search, against the same number of neurons in every layer. Where they are
 * not clearly better, or there is next to no harm to begin with, the even share stands; a predictor that gains nowhere
 * has no tensor. */
#include <math.h>
#include <string.h>

#include "engine/alloc.h"
#include "engine/calibrate.h"

static const float tried[] = {0.0125f, 0.025f, 0.05f, 0.1f, 0.2f, 0.4f, 0.7f}; /* shares of one layer */
static const float means[] = {0.05f, 0.1f, 0.2f, 0.3f, 0.5f, 0.7f};

enum { N_TRIED = sizeof tried / sizeof tried[0], N_MEANS = sizeof means / sizeof means[0] };

#define CLEARLY 0.95 /* of the even share's divergence, or less: then it is better */
#define MATTERS 1e-3 /* nats a token of the even share: with less, drafts are hardly ever rejected */
#define MODEL   1e9  /* parameters; of a smaller model it looks at more positions in the same time, up to ... */
#define MORE    8    /* ... so many times as many */

/* Held-out positions that follow each other. */
typedef struct piece {
	const mzm_window *w;
	int32_t pos, n;  /* of the window */
	size_t  row;     /* of the references */
} piece;

/* Sums over the pieces of the trial, of divergences and of their roots: a few positions make up most of the first. */
typedef struct harm_sum {
	double kld, root;
} harm_sum;

/* Of one predictor. */
typedef struct candidate {
	const mzm_predictor_ops *ops;
	mzm_predictor *p;    /* keeps what keep_of says */
	double        *harm; /* [n_layers, N_TRIED] sums of divergences */
	harm_sum       even[N_MEANS], chosen[N_MEANS];
	float         *share; /* [N_MEANS, n_layers] */
	bool           better[N_MEANS], gains; /* for that mean; for any */
} candidate;

typedef struct search {
	mzm_calibration *c;
	const mzm_calib *fitted;
	mzm_ask          ask;
	candidate       *of;
	int32_t          n, n_layers, n_pieces;
	piece           *pieces;    /* [n_pieces] every second one is for the trial */
	int32_t         *keep_of;   /* [n_layers] */
	float           *mask;      /* [MZM_MAX_POS, n_ffn] */
	float           *probs;     /* [positions, n_vocab] of the dense model */
	double          *entropy;   /* [positions] */
	double           klds[MZM_MAX_POS];
	uint64_t         done, total; /* for the progress */
	/* of the comparison under way */
	float           *logits;    /* [n_rows, n_vocab] */
	size_t           row;
	int32_t          n_rows;
	void            *block;
} search;

/* ---- divergence ---- */

/* log of the sum of exp(x); x becomes probabilities. */
static double soften(const mzm_kern *kern, float *x, int32_t n)
{
	int32_t best = 0;
	for (int32_t i = 1; i < n; i++)
		best = x[i] > x[best] ? i : best;
	double most = (double)x[best];
	kern->softmax(x, n);
	return most - log((double)x[best]);
}

static double product(const float *a, const float *b, int32_t n)
{
	double sum[8] = {0};
	int32_t i = 0;
	for (; i + 8 <= n; i += 8)
		for (int k = 0; k < 8; k++)
			sum[k] += (double)a[i + k] * (double)b[i + k];
	for (; i < n; i++)
		sum[0] += (double)a[i] * (double)b[i];
	return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/* KLD = sum p log p - sum p (x - log sum exp x). */
static void diverge(void *ctx, mzm_team *team, int rank)
{
	search *q = ctx;
	int32_t n = q->c->model->weights->cfg.n_vocab;
	for (int32_t i = rank; i < q->n_rows; i += mzm_team_size(team)) {
		float *x = q->logits + (size_t)i * (size_t)n;
		double mean = product(q->probs + (q->row + (size_t)i) * (size_t)n, x, n);
		double kld = soften(q->c->model->kern, x, n) - mean - q->entropy[q->row + (size_t)i];
		q->klds[i] = kld > 0 ? kld : 0;
	}
}

static double divergence(search *q, float *logits, size_t row, int32_t n_rows)
{
	double sum = 0;
	q->logits = logits;
	q->row = row;
	q->n_rows = n_rows;
	mzm_team_run(q->c->session->team, diverge, q);
	for (int32_t i = 0; i < n_rows; i++)
		sum += q->klds[i];
	return sum;
}

/* ---- passes ---- */

static const int32_t *ids_of(const search *q, const piece *p)
{
	return q->c->ids + p->w->first;
}

/* What stands before the piece, as a prompt. */
static mzm_status read_prompt(search *q, const piece *p, mzm_predictor *observer, mzm_err *err)
{
	mzm_session *s = q->c->session;
	mzm_session_truncate(s, 0);
	for (int32_t done = 0; done < p->pos;) {
		int32_t most = mzm_state_max_pos(s->state), n = p->pos - done < most ? p->pos - done : most;
		mzm_pass pass = {.ids = ids_of(q, p) + done, .n_pos = n, .observer = observer,
				 .gemm = q->c->model->gemm};
		MZM_TRY(mzm_forward(s->state, &pass, NULL, NULL, err));
		done += n;
	}
	return MZM_OK;
}

/* The piece behind its prompt, with a masked layer or (-1) without; *logits: of all its positions. */
static mzm_status read_piece(search *q, float **logits, const piece *p, int32_t masked, mzm_err *err)
{
	mzm_session_truncate(q->c->session, p->pos);
	mzm_pass pass = {.ids = ids_of(q, p) + p->pos, .n_pos = p->n, .n_rows = p->n, .mask_layer = masked,
			 .mask = masked < 0 ? NULL : q->mask};
	return mzm_forward(q->c->session->state, &pass, logits, NULL, err);
}

/* What the dense model says. */
static mzm_status refer(search *q, const piece *p, mzm_err *err)
{
	float *logits;
	size_t n_vocab = (size_t)q->c->model->weights->cfg.n_vocab;
	MZM_TRY(read_prompt(q, p, NULL, err));
	MZM_TRY(read_piece(q, &logits, p, -1, err));
	for (size_t i = 0; i < (size_t)p->n; i++) {
		float *probs = q->probs + (p->row + i) * n_vocab, *x = logits + i * n_vocab;
		memcpy(probs, x, n_vocab * sizeof *probs);
		double total = soften(q->c->model->kern, probs, (int32_t)n_vocab);
		q->entropy[p->row + i] = total - product(probs, x, (int32_t)n_vocab); /* so that its own KLD is 0 */
	}
	return MZM_OK;
}

/* ---- curves ---- */

static void keep_evenly(search *q, candidate *of, double share)
{
	mzm_pred_env env = {.cfg = &q->c->model->weights->cfg, .keep = (float)share};
	for (int32_t l = 0; l < q->n_layers; l++)
		q->keep_of[l] = mzm_pred_n_keep(&env);
	if (of->ops->settle)
		of->ops->settle(of->p);
}

/* 1 for the neurons that the predictor chooses. */
static void make_mask(search *q, const candidate *of, const piece *p)
{
	size_t n_ffn = (size_t)q->c->model->weights->cfg.n_ffn;
	memset(q->mask, 0, (size_t)p->n * n_ffn * sizeof *q->mask);
	for (int32_t i = 0; i < p->n; i++) {
		mzm_calibrate_ask_at(&q->ask, p->w->row - q->c->n_train + p->pos + i);
		mzm_calibrate_ask(&q->ask, of->p, p->pos + i);
		for (int32_t k = 0; k < q->ask.n; k++)
			q->mask[(size_t)i * n_ffn + (size_t)q->ask.rows[k]] = 1;
	}
}

static mzm_status measure_piece(search *q, const piece *p, int32_t layer, mzm_err *err)
{
	float *logits;
	MZM_TRY(read_prompt(q, p, NULL, err));
	for (int32_t i = 0; i < q->n; i++) {
		candidate *of = &q->of[i];
		mzm_calibrate_show_prompt(of->p, q->c, layer, p->w);
		for (int k = 0; k < N_TRIED; k++) {
			keep_evenly(q, of, (double)tried[k]);
			make_mask(q, of, p);
			MZM_TRY(read_piece(q, &logits, p, layer, err));
			of->harm[layer * N_TRIED + k] += divergence(q, logits, p->row, p->n);
		}
		MZM_TRY(mzm_calibrate_tell(q->c, "weighing layers", ++q->done, q->total, err));
	}
	return MZM_OK;
}

static mzm_status measure_curves(search *q, mzm_err *err)
{
	for (int32_t l = 0; l < q->n_layers; l++) {
		mzm_calibrate_layer(q->c, l, true);
		q->ask.layer = l;
		for (int32_t i = 0; i < q->n_pieces; i += 2)
			MZM_TRY(measure_piece(q, &q->pieces[i], l, err));
	}
	return MZM_OK;
}

static mzm_status solve(search *q, candidate *of, mzm_err *err)
{
	mzm_status st = MZM_OK;
	mzm_alloc_curve *curves;
	MZM_TRY(mzm_alloc_for((void **)&curves, (size_t)q->n_layers * sizeof *curves, "curves of layers", err));
	for (int32_t l = 0; l < q->n_layers; l++)
		curves[l] = (mzm_alloc_curve){tried, of->harm + l * N_TRIED, N_TRIED};
	for (int m = 0; m < N_MEANS && st == MZM_OK; m++)
		st = mzm_alloc_solve(of->share + m * q->n_layers, curves, q->n_layers, (double)means[m], err);
	mzm_free(curves);
	return st;
}

/* ---- the trial ---- */

/* The piece as a draft goes over it, its tokens given; adds to *sum. */
static mzm_status draft(search *q, harm_sum *sum, const piece *p, mzm_predictor *pred, mzm_err *err)
{
	mzm_session *s = q->c->session;
	if (pred->observes) {
		if (pred->ops->reset)
			pred->ops->reset(pred);
		MZM_TRY(read_prompt(q, p, pred, err));
	}
	if (pred->ops->settle)
		pred->ops->settle(pred);
	mzm_session_truncate(s, p->pos);
	for (int32_t i = 0; i < p->n; i++) {
		float *logits;
		mzm_pass pass = {.ids = ids_of(q, p) + p->pos + i, .n_pos = 1, .n_rows = 1, .sparse = pred};
		MZM_TRY(mzm_forward(s->state, &pass, &logits, NULL, err));
		double kld = divergence(q, logits, p->row + (size_t)i, 1);
		sum->kld += kld;
		sum->root += sqrt(kld);
	}
	return MZM_OK;
}

/* Over all pieces of the trial. */
static mzm_status draft_all(search *q, harm_sum *sum, mzm_predictor *pred, mzm_err *err)
{
	*sum = (harm_sum){0};
	for (int32_t i = 1; i < q->n_pieces; i += 2) {
		if (!pred->observes)
			MZM_TRY(read_prompt(q, &q->pieces[i], NULL, err));
		MZM_TRY(draft(q, sum, &q->pieces[i], pred, err));
	}
	return MZM_OK;
}

/* A predictor made as a session makes it. counts: NULL, or what it keeps. */
static mzm_status try_keep(search *q, harm_sum *sum, const mzm_predictor_ops *ops, float keep, const int32_t *counts,
			   mzm_err *err)
{
	mzm_predictor *p;
	mzm_pred_env env = mzm_model_pred_env(q->c->model, keep, q->c->params.seed, (mzm_drafting){0});
	env.calib = q->fitted;
	env.keep_of = counts;
	MZM_TRY(ops->create(&p, &env, err));
	mzm_status st = draft_all(q, sum, p, err);
	ops->free(p);
	return st;
}

static bool is_better(const harm_sum *chosen, const harm_sum *even, double n)
{
	return even->kld > MATTERS * n && chosen->kld < CLEARLY * even->kld && chosen->root < CLEARLY * even->root;
}

/* Positions of the trial. */
static int32_t n_trial(const search *q)
{
	int32_t n = 0;
	for (int32_t i = 1; i < q->n_pieces; i += 2)
		n += q->pieces[i].n;
	return n;
}

/* The shares as they were found against even ones, for each mean. */
static mzm_status try_shares(search *q, candidate *of, mzm_err *err)
{
	for (int m = 0; m < N_MEANS; m++) {
		float *share = of->share + m * q->n_layers;
		mzm_alloc_count(q->keep_of, share, 1, &q->c->model->weights->cfg, means[m]);
		MZM_TRY(try_keep(q, &of->even[m], of->ops, means[m], NULL, err));
		MZM_TRY(try_keep(q, &of->chosen[m], of->ops, means[m], q->keep_of, err));
		of->better[m] = is_better(&of->chosen[m], &of->even[m], n_trial(q));
		for (int32_t l = 0; l < q->n_layers && !of->better[m]; l++)
			share[l] = means[m];
		of->gains |= of->better[m];
		MZM_TRY(mzm_calibrate_tell(q->c, "weighing layers", ++q->done, q->total, err));
	}
	return MZM_OK;
}

static mzm_status add_shares(const search *q, const candidate *of, mzm_calib_writer *to, mzm_err *err)
{
	char name[64];
	if (!of->gains)
		return MZM_OK;
	snprintf(name, sizeof name, "alloc.%s", of->ops->name);
	return mzm_calib_add(to, name, -1, MZM_F32, N_MEANS, q->n_layers, of->share, err);
}

/* ---- from start to end ---- */

static bool takes_part(const search *q, const mzm_predictor_ops *ops)
{
	return ops->allocates && mzm_calibrate_is_ready(q->c, ops, q->fitted);
}

static int32_t n_positions(const search *q)
{
	if (q->n_pieces == 0)
		return 0;
	const piece *last = &q->pieces[q->n_pieces - 1];
	return (int32_t)last->row + last->n;
}

/* For the search, and as many for the trial. */
static int32_t positions_wanted(const mzm_calibration *c)
{
	double times = MODEL / (double)c->model->info.n_params;
	return (int32_t)(c->params.n_report * (times < 1 ? 1 : times > MORE ? MORE : times));
}

uint64_t mzm_calibrate_shares_bytes(const mzm_calibration *c)
{
	return 2 * (uint64_t)positions_wanted(c) * (uint64_t)c->model->weights->cfg.n_vocab * sizeof(float);
}

/* Pieces of as equal length as windows allow. */
static mzm_status choose_pieces(search *q, mzm_err *err)
{
	const mzm_calibration *c = q->c;
	int32_t n_windows = 0, left = 2 * positions_wanted(c);
	for (int32_t i = 0; i < c->n_windows; i++)
		n_windows += c->windows[i].held_out && c->windows[i].n_rows > 1;
	MZM_TRY(mzm_alloc_for((void **)&q->pieces, ((size_t)n_windows + 1) * sizeof *q->pieces, "the search", err));
	int32_t each = n_windows ? (left + n_windows - 1) / n_windows : 0;
	each = each < MZM_MAX_POS ? each : MZM_MAX_POS;
	for (int32_t i = 0; i < c->n_windows && left > 0; i++) {
		const mzm_window *w = &c->windows[i];
		int32_t half = w->n_rows / 2, n = w->n_rows - half < each ? w->n_rows - half : each;
		if (!w->held_out || w->n_rows < 2)
			continue;
		n = n < left ? n : left;
		left -= n;
		q->pieces[q->n_pieces] = (piece){.w = w, .pos = half, .n = n, .row = (size_t)n_positions(q)};
		q->n_pieces++;
	}
	return MZM_OK;
}

static void search_layout(search *q, mzm_carve *c)
{
	const mzm_config *cfg = &q->c->model->weights->cfg;
	size_t n = (size_t)n_positions(q), layers = (size_t)q->n_layers;
	q->of = MZM_CARVE(c, candidate, q->n);
	q->keep_of = MZM_CARVE(c, int32_t, layers);
	q->mask = MZM_CARVE(c, float, MZM_MAX_POS * (size_t)cfg->n_ffn);
	q->probs = (float *)mzm_carve_take(c, n, (size_t)cfg->n_vocab * sizeof *q->probs);
	q->entropy = MZM_CARVE(c, double, n);
	mzm_calibrate_ask_layout(&q->ask, cfg, c);
	for (int32_t i = 0; i < q->n; i++) {
		double *harm = MZM_CARVE(c, double, layers * N_TRIED);
		float *share = MZM_CARVE(c, float, layers * N_MEANS);
		if (c->base)
			q->of[i] = (candidate){.harm = harm, .share = share};
	}
}

static mzm_status search_begin(search *q, mzm_err *err)
{
	mzm_carve carve = {0};
	MZM_TRY(choose_pieces(q, err));
	for (int i = 0; mzm_predictor_at(i); i++)
		q->n += takes_part(q, mzm_predictor_at(i));
	search_layout(q, &carve);
	if (carve.overflow)
		return mzm_fail(err, MZM_ENOMEM, "the search is larger than memory can be");
	MZM_TRY(mzm_alloc_for(&q->block, carve.used, "the search for shares", err));
	carve = (mzm_carve){.base = q->block};
	search_layout(q, &carve);
	mzm_pred_env env = mzm_model_pred_env(q->c->model, 1, q->c->params.seed, (mzm_drafting){0});
	env.calib = q->fitted;
	env.keep_of = q->keep_of;
	for (int32_t l = 0; l < q->n_layers; l++)
		q->keep_of[l] = env.cfg->n_ffn;
	for (int i = 0, n = 0; mzm_predictor_at(i); i++)
		if (takes_part(q, mzm_predictor_at(i))) {
			q->of[n].ops = mzm_predictor_at(i);
			MZM_TRY(q->of[n].ops->create(&q->of[n].p, &env, err));
			n++;
		}
	q->total = (uint64_t)q->n * (uint64_t)(q->n_layers * ((q->n_pieces + 1) / 2) + N_MEANS);
	return MZM_OK;
}

static void free_predictors(search *q)
{
	for (int32_t i = 0; q->of && i < q->n; i++) {
		if (q->of[i].p)
			q->of[i].p->ops->free(q->of[i].p);
		q->of[i].p = NULL;
	}
}

static mzm_status run_search(search *q, mzm_err *err)
{
	MZM_TRY(search_begin(q, err));
	if (q->n_pieces < 2)
		return MZM_OK; /* nothing to try them on */
	for (int32_t i = 0; i < q->n_pieces; i++)
		MZM_TRY(refer(q, &q->pieces[i], err));
	MZM_TRY(measure_curves(q, err));
	free_predictors(q);
	for (int32_t i = 0; i < q->n; i++) {
		MZM_TRY(solve(q, &q->of[i], err));
		MZM_TRY(try_shares(q, &q->of[i], err));
	}
	return MZM_OK;
}

static double rounded(float x)
{
	return round((double)x * 1e6) / 1e6;
}

/* Divergences are means over the positions of the trial. */
static json_t *candidate_json(const search *q, const candidate *of)
{
	json_t *list = json_array(), *o = json_pack("{s:s, s:b, s:O}", "predictor", of->ops->name, "written", of->gains,
						    "points", list);
	double n = n_trial(q);
	for (int m = 0; m < N_MEANS; m++) {
		json_t *shares = json_array();
		for (int32_t l = 0; l < q->n_layers; l++)
			json_array_append_new(shares, json_real(rounded(of->share[m * q->n_layers + l])));
		json_array_append_new(list, json_pack("{s:f, s:f, s:f, s:b, s:o}", "keep", rounded(means[m]),
						      "kld_even", of->even[m].kld / n, "kld", of->chosen[m].kld / n,
						      "better", of->better[m], "shares", shares));
	}
	json_decref(list);
	return o;
}

mzm_status mzm_calibrate_shares(json_t **report, mzm_calibration *c, mzm_calib_writer *to, mzm_err *err)
{
	mzm_status st;
	mzm_calib *fitted = NULL;
	search q = {.c = c, .ask = {.c = c}, .n_layers = c->model->weights->cfg.n_layers};
	*report = NULL;
	MZM_TRY(mzm_calib_preview(&fitted, to, err));
	q.fitted = fitted;
	st = run_search(&q, err);
	mzm_calib_close(fitted);
	free_predictors(&q);
	if (st == MZM_OK && q.n_pieces >= 2)
		*report = json_array();
	for (int32_t i = 0; i < q.n && *report && st == MZM_OK; i++) {
		st = add_shares(&q, &q.of[i], to, err);
		json_array_append_new(*report, candidate_json(&q, &q.of[i]));
	}
	mzm_free(q.pieces);
	mzm_free(q.block);
	return st;
}
