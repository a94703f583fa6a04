/* bench_features.c - whether the confidence monitor would foretell rejections better if it knew more: the change of a
 * draft token's probability against the recent past, and the overlap of the neurons it was made with with those of the
 * token before.
 *
 * Usage: bench_features MODEL.mzm FIT.jsonl N_FIT TEST.jsonl N_TEST PREDICTOR KEEP PERIOD
 * Sparse drafts of answers are checked as in exact mode, of the first N problems of each file. A logistic model is
 * fitted (Newton) to the judged tokens of the first, and measured on those of the second: the area under the curve
 * (AUC), the mean log loss, and how much that falls by further features, with its standard error over problems. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "eval/reliability.h"

enum { BASE = MZM_MONITOR_FEATURES, CHANGE = BASE, OVERLAP, N_FEATURES, MAX_TOKENS = 300, N_STEPS = 30 };

#define MEMORY 0.8 /* of the recent past, a token */
#define RIDGE  0.1

/* A judged draft token. */
typedef struct judged {
	double x[N_FEATURES];
	bool   accepted;
	int    problem;
} judged;

typedef struct cases {
	judged *at;
	size_t  n, cap;
} cases;

typedef struct bench {
	mzm_model     *model;
	mzm_session   *s;
	mzm_predictor *predictor;
	int32_t        period, n_prompt;
	int32_t        ids[2 * MAX_TOKENS + MZM_MAX_PERIOD];
	int32_t        n;       /* of ids, verified; the KV has rows of all but the last */
	double         past;    /* mean log-odds of the draft tokens that stood lately */
	cases         *to;
	int            problem;
} bench;

static void must(mzm_status st, const mzm_err *err)
{
	if (st == MZM_OK)
		return;
	fprintf(stderr, "bench_features: %s\n", err->message);
	exit(1);
}

/* ---- which neurons ---- */

static struct {
	int32_t (*select)(mzm_predictor *p, int32_t layer, int32_t pos, const float *score, int32_t *rows);
	int32_t  n_layers, n_ffn;
	uint8_t *now, *before; /* [n_layers, n_ffn] of the latest two passes */
	double   shared, chosen;
	bool     started; /* there was a pass before, of this answer */
} watch;

static int32_t select_watched(mzm_predictor *p, int32_t layer, int32_t pos, const float *score, int32_t *rows)
{
	int32_t n = watch.select(p, layer, pos, score, rows);
	uint8_t *now = watch.now + (size_t)layer * (size_t)watch.n_ffn;
	const uint8_t *before = watch.before + (size_t)layer * (size_t)watch.n_ffn;
	memset(now, 0, (size_t)watch.n_ffn);
	for (int32_t i = 0; i < n; i++) {
		now[rows[i]] = 1;
		watch.shared += before[rows[i]];
	}
	watch.chosen += n;
	return n;
}

/* Of the neurons of the latest pass, the share that the pass before had, too; of an answer's first all. */
static double take_overlap(void)
{
	double overlap = watch.started ? watch.shared / watch.chosen : 1;
	uint8_t *now = watch.now;
	watch.started = true;
	watch.now = watch.before;
	watch.before = now;
	watch.shared = watch.chosen = 0;
	return overlap;
}

static void begin_watching(bench *b, const mzm_predictor_ops *ops, mzm_predictor_ops *copy)
{
	const mzm_config *cfg = &b->model->weights->cfg;
	size_t n = (size_t)cfg->n_layers * (size_t)cfg->n_ffn;
	watch.select = ops->select;
	watch.n_ffn = cfg->n_ffn;
	watch.now = calloc(n, 1);
	watch.before = calloc(n, 1);
	*copy = *ops;
	copy->select = select_watched;
	b->predictor->ops = copy;
}

/* ---- drafts and checks, as in exact mode ---- */

static float *forward(bench *b, mzm_pass pass)
{
	mzm_err err = {0};
	float *logits = NULL;
	must(mzm_forward(b->s->state, &pass, &logits, NULL, &err), &err);
	return logits;
}

static bool ends(const bench *b, int32_t id)
{
	bool found = false;
	for (int32_t i = 0; i < b->model->info.n_eos; i++)
		found = found || b->model->info.eos_ids[i] == id;
	return found;
}

/* What the monitor knows of the draft token behind n, and what it might know. */
static void look(const bench *b, judged *c, const float *logits, int32_t n, double past)
{
	const uint8_t *classes = b->model->token_classes;
	mzm_evidence e = {mzm_sampler_certainty(b->s->sampler, logits, b->ids[n]), classes[b->ids[n]],
			  classes[b->ids[n - 1]]};
	(void)mzm_monitor_features(c->x, &e);
	c->x[CHANGE] = c->x[1] - past;
	c->x[OVERLAP] = take_overlap() - 1;
	c->problem = b->problem;
}

/* A draft behind the verified tokens; what is known about it. Returns its length. */
static int32_t draft(bench *b, judged *known)
{
	int32_t k = 0;
	double past = b->past;
	for (bool done = false; !done; done = ends(b, b->ids[b->n + k - 1]) || k + 1 == b->period) {
		mzm_pass pass = {.ids = b->ids + b->n + k - 1, .n_pos = 1, .n_rows = 1, .sparse = b->predictor};
		float *logits = forward(b, pass);
		b->ids[b->n + k] = mzm_sampler_choose(b->s->sampler, logits, b->n + k);
		look(b, &known[k], logits, b->n + k, past);
		past = MEMORY * past + (1 - MEMORY) * known[k].x[1];
		k++;
	}
	return k;
}

/* Checks k draft tokens: what stands, and the model's own token behind it, is text. False: the text ends here. */
static bool check(bench *b, judged *known, int32_t k)
{
	mzm_kv *kv = mzm_state_kv(b->s->state);
	size_t n_vocab = (size_t)b->model->info.n_vocab;
	int32_t next, i = 0;
	mzm_kv_truncate(kv, b->n - 1);
	mzm_pass pass = {.ids = b->ids + b->n - 1, .n_pos = k + 1, .n_rows = k + 1};
	const float *rows = forward(b, pass);
	for (;; i++) {
		next = mzm_sampler_choose(b->s->sampler, rows + (size_t)i * n_vocab, b->n + i);
		if (i == k)
			break;
		known[i].accepted = b->ids[b->n + i] == next;
		if (b->to->n < b->to->cap)
			b->to->at[b->to->n++] = known[i];
		if (!known[i].accepted)
			break;
		b->past = MEMORY * b->past + (1 - MEMORY) * known[i].x[1];
	}
	bool ended = i > 0 && ends(b, b->ids[b->n + i - 1]);
	b->n += i;
	b->ids[b->n++] = next;
	mzm_kv_truncate(kv, b->n - 1);
	return !ended && !ends(b, next) && b->n + b->period < b->n_prompt + MAX_TOKENS;
}

static void answer(bench *b, const char *question)
{
	char prompt[4096];
	int32_t *ids;
	size_t n;
	judged known[MZM_MAX_PERIOD];
	snprintf(prompt, sizeof prompt, "Question: %s\nAnswer:", question);
	if (mzm_tokenize(b->model->tokenizer, prompt, strlen(prompt), 0, &ids, &n, NULL) != MZM_OK || n > MAX_TOKENS)
		return;
	memcpy(b->ids, ids, n * sizeof *ids);
	mzm_ids_free(ids);
	b->n = b->n_prompt = (int32_t)n;
	b->past = 1; /* an odds ratio of e^4 */
	watch.started = false;
	mzm_kv_truncate(mzm_state_kv(b->s->state), 0);
	if (b->predictor->ops->reset)
		b->predictor->ops->reset(b->predictor);
	const float *logits = NULL;
	for (int32_t at = 0, most = MZM_MAX_POS; at < b->n; at += most) {
		most = b->n - at < most ? b->n - at : most;
		logits = forward(b, (mzm_pass){.ids = b->ids + at, .n_pos = most, .n_rows = 1,
					       .observer = b->predictor->observes ? b->predictor : NULL});
	}
	if (b->predictor->ops->settle)
		b->predictor->ops->settle(b->predictor);
	b->ids[b->n] = mzm_sampler_choose(b->s->sampler, logits, b->n);
	b->n++;
	while (check(b, known, draft(b, known))) {
	}
}

static void answer_all(bench *b, cases *to, const char *path, int n)
{
	char *line = NULL;
	size_t cap = 0;
	FILE *in = fopen(path, "r");
	if (!in) {
		perror(path);
		exit(1);
	}
	*to = (cases){.cap = (size_t)n * MAX_TOKENS};
	to->at = calloc(to->cap + 1, sizeof *to->at);
	b->to = to;
	for (b->problem = 0; b->problem < n && getline(&line, &cap, in) > 0; b->problem++) {
		json_t *problem = json_loads(line, 0, NULL);
		const char *question = json_string_value(json_object_get(problem, "question"));
		if (question)
			answer(b, question);
		json_decref(problem);
	}
	free(line);
	fclose(in);
}

/* ---- models of acceptance ---- */

typedef struct model {
	const char *name;
	bool        change, overlap;
	double      w[N_FEATURES];
} model;

static bool has(const model *m, int j)
{
	return j < BASE || (j == CHANGE ? m->change : m->overlap);
}

static double logit(const model *m, const judged *c)
{
	double z = 0;
	for (int j = 0; j < N_FEATURES; j++)
		z += has(m, j) ? m->w[j] * c->x[j] : 0;
	return z;
}

static double loss(const model *m, const judged *c)
{
	double z = c->accepted ? logit(m, c) : -logit(m, c);
	return z > 0 ? log1p(exp(-z)) : log1p(exp(z)) - z;
}

/* x becomes the solution of a x = x, by elimination; a is positive definite. */
static void solve(double a[N_FEATURES][N_FEATURES], double x[N_FEATURES])
{
	for (int j = 0; j < N_FEATURES; j++) {
		for (int i = j + 1; i < N_FEATURES; i++) {
			double f = a[i][j] / a[j][j];
			for (int k = j; k < N_FEATURES; k++)
				a[i][k] -= f * a[j][k];
			x[i] -= f * x[j];
		}
	}
	for (int j = N_FEATURES - 1; j >= 0; j--) {
		for (int k = j + 1; k < N_FEATURES; k++)
			x[j] -= a[j][k] * x[k];
		x[j] /= a[j][j];
	}
}

/* Newton's method on the ridge-penalised log loss; a feature that the model lacks keeps its weight of 0. */
static void fit(model *m, const cases *c)
{
	for (int step = 0; step < N_STEPS; step++) {
		double by[N_FEATURES], curve[N_FEATURES][N_FEATURES] = {{0}};
		for (int j = 0; j < N_FEATURES; j++) {
			by[j] = -RIDGE * m->w[j];
			curve[j][j] = RIDGE;
		}
		for (size_t i = 0; i < c->n; i++) {
			double p = 1 / (1 + exp(-logit(m, &c->at[i])));
			for (int j = 0; j < N_FEATURES; j++) {
				double x = has(m, j) ? c->at[i].x[j] : 0;
				by[j] += (c->at[i].accepted - p) * x;
				for (int k = 0; k < N_FEATURES; k++)
					curve[j][k] += has(m, k) ? p * (1 - p) * x * c->at[i].x[k] : 0;
			}
		}
		solve(curve, by);
		for (int j = 0; j < N_FEATURES; j++)
			m->w[j] += by[j];
	}
}

/* How much less than by `than` the mean loss is, and its standard error, problems being independent. */
static double gain(const model *m, const model *than, const cases *c, int n_problems, double *error)
{
	double *of = calloc((size_t)n_problems, sizeof *of), sum = 0, square = 0;
	for (size_t i = 0; i < c->n; i++)
		of[c->at[i].problem] += loss(than, &c->at[i]) - loss(m, &c->at[i]);
	for (int i = 0; i < n_problems; i++) {
		sum += of[i];
		square += of[i] * of[i];
	}
	free(of);
	*error = sqrt(square - sum * sum / n_problems) / (double)c->n;
	return sum / (double)c->n;
}

static void report(const model *m, const model *base, const cases *c, int n_problems)
{
	mze_reliability r;
	mze_judged *all = calloc(c->n + 1, sizeof *all);
	double sum = 0, error;
	for (size_t i = 0; i < c->n; i++) {
		all[i] = (mze_judged){1 / (1 + exp(-logit(m, &c->at[i]))), c->at[i].accepted};
		sum += loss(m, &c->at[i]);
	}
	mze_reliability_of(&r, all, c->n);
	free(all);
	double less = gain(m, base, c, n_problems, &error);
	printf("%-24s AUC %.4f  log loss %.4f  less by %+.5f +- %.5f", m->name, r.auc, sum / (double)c->n, less, error);
	if (m->change)
		printf("  weight of change %+.2f", m->w[CHANGE]);
	if (m->overlap)
		printf("  of overlap %+.2f", m->w[OVERLAP]);
	printf("\n");
}

static void open_all(bench *b, char **argv, mzm_predictor_ops *copy)
{
	mzm_err err = {0};
	mzm_session_params sp = mzm_session_params_default();
	mzm_gen_params gen = mzm_gen_params_default();
	const mzm_predictor_ops *ops = mzm_predictor_find(argv[6]);
	if (!ops) {
		fprintf(stderr, "bench_features: unknown predictor %s\n", argv[6]);
		exit(1);
	}
	must(mzm_model_open(&b->model, argv[1], NULL, &err), &err);
	sp.n_threads = 1;
	must(mzm_session_create(&b->s, b->model, &sp, &err), &err);
	mzm_sampler_configure(b->s->sampler, &gen);
	mzm_pred_env env = mzm_model_pred_env(b->model, (float)atof(argv[7]), 0, (mzm_drafting){0});
	must(ops->create(&b->predictor, &env, &err), &err);
	begin_watching(b, ops, copy);
}

int main(int argc, char **argv)
{
	static bench b;
	mzm_predictor_ops copy;
	cases train, test;
	model models[] = {{.name = "as it is"}, {.name = "and change", .change = true},
			  {.name = "and overlap", .overlap = true}, {.name = "and both", true, true}};
	if (argc != 9 || (b.period = atoi(argv[8])) < 2 || b.period > MZM_MAX_PERIOD) {
		fprintf(stderr, "bench_features: wrong usage, see the source\n");
		return 1;
	}
	open_all(&b, argv, &copy);
	answer_all(&b, &train, argv[2], atoi(argv[3]));
	answer_all(&b, &test, argv[4], atoi(argv[5]));
	size_t n_rejected = 0;
	for (size_t i = 0; i < test.n; i++)
		n_rejected += !test.at[i].accepted;
	printf("%s keep %s, period %s: fitted to %zu judged tokens, measured on %zu, %zu of them rejected\n", argv[6],
	       argv[7], argv[8], train.n, test.n, n_rejected);
	for (int i = 0; i < 4; i++) {
		fit(&models[i], &train);
		report(&models[i], &models[0], &test, atoi(argv[5]));
	}
	b.predictor->ops->free(b.predictor);
	free(train.at);
	free(test.at);
	free(watch.now);
	free(watch.before);
	mzm_session_free(b.s);
	mzm_model_close(b.model);
	return 0;
}
