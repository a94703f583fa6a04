/* bench.c - the benchmark: what to measure, in rounds that measure everything once, within a time.
 *
 * A warm-up round, which does not count, finds how many calls make a sample of a length worth timing, and what a token
 * takes, which decides how many are generated. Rounds go on as long as one more fits the time. */
#include "engine/bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define MIN_ROUNDS      3
#define MIN_GEN         16
#define DEFAULT_PROMPT  512
#define DEFAULT_CONTEXT 128
#define DEFAULT_LONG    8192
#define LONG_KV_BYTES   ((double)4294967296) /* of a long context that nobody named */
#define MAX_LIST        32
#define MAX_CALLS       100000

static const float    default_keep[] = {0.1f, 0.25f, 0.5f, 0.75f};
static const char *const default_predictors[] = {"griffin", "topk"};
static const int32_t  check_sizes[] = {1, 2, 4, 8, 16, 32};

#define COUNT(array) ((int32_t)(sizeof(array) / sizeof *(array)))

const char *mzm_bench_kind_name(mzm_bench_kind kind)
{
	static const char *const names[] = {"read",   "matmul", "prefill", "dense",
					    "sparse", "check",	"context", "generate"};
	return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "?";
}

mzm_bench_params mzm_bench_params_default(void)
{
	return (mzm_bench_params){.gen = mzm_gen_params_default()};
}

/* ---- parameters ---- */

static mzm_status check_range(const char *name, double value, double lo, double hi, mzm_err *err)
{
	if (!(value >= lo && value <= hi))
		return mzm_fail(err, MZM_EARG, "%s is %g; it must be within %g .. %g", name, value, lo, hi);
	return MZM_OK;
}

static mzm_status check_lists(const mzm_bench_params *p, mzm_err *err)
{
	MZM_TRY(check_range("number of predictors", p->n_predictors, 0, MAX_LIST, err));
	MZM_TRY(check_range("number of shares to keep", p->n_keep, 0, MAX_LIST, err));
	for (int32_t i = 0; p->predictors && i < p->n_predictors; i++) {
		if (!p->predictors[i] || !mzm_predictor_find(p->predictors[i]))
			return mzm_fail(err, MZM_EARG, "unknown predictor \"%s\"",
					p->predictors[i] ? p->predictors[i] : "");
	}
	for (int32_t i = 0; p->keep && i < p->n_keep; i++) {
		if (!(p->keep[i] > 0 && p->keep[i] <= 1))
			return mzm_fail(err, MZM_EARG, "keep is %g; it must be above 0 and at most 1",
					(double)p->keep[i]);
	}
	return MZM_OK;
}

static mzm_status check_params(const mzm_bench_params *p, mzm_err *err)
{
	MZM_TRY(check_lists(p, err));
	MZM_TRY(check_range("prompt", p->n_prompt, 0, MZM_MAX_CTX, err));
	MZM_TRY(check_range("context", p->context, 0, MZM_MAX_CTX, err));
	MZM_TRY(check_range("long context", p->long_context, 0, MZM_MAX_CTX, err));
	MZM_TRY(check_range("tokens", p->n_gen, 0, MZM_MAX_CTX, err));
	MZM_TRY(check_range("accept-rate", p->accept_rate, 0, 1, err));
	if (p->n_repeats)
		MZM_TRY(check_range("repeats", p->n_repeats, MIN_ROUNDS, MZM_BENCH_MAX_ROUNDS, err));
	MZM_TRY(check_range("time", p->seconds, 0, 1e6, err));
	MZM_TRY(check_range("time of a sample", p->sample_seconds, 0, 100, err));
	return mzm_gen_params_check(&p->gen, err);
}

static void fill_lists(mzm_bench_params *p)
{
	if (!p->predictors || p->n_predictors == 0) {
		p->predictors = default_predictors;
		p->n_predictors = COUNT(default_predictors);
	}
	if (!p->keep || p->n_keep == 0) {
		p->keep = default_keep;
		p->n_keep = COUNT(default_keep);
	}
}

static int32_t least(int32_t a, int32_t b)
{
	return a < b ? a : b;
}

static int32_t at_least(int32_t a, int32_t b)
{
	return a > b ? a : b;
}

/* What is asked for must fit, what is chosen here is made to. Every 0 becomes what it stands for. */
static mzm_status fill_sizes(mzm_bench_params *p, const mzm_config *cfg, mzm_err *err)
{
	int32_t limit = p->session.n_ctx > 0 ? p->session.n_ctx : cfg->n_ctx;
	bool f32 = p->session.kv_type && strcmp(p->session.kv_type, "f32") == 0;
	double kv_row = (f32 ? 8.0 : 4.0) * cfg->n_layers * cfg->n_kv_heads * cfg->head_dim;
	if (limit < 2 * MZM_MAX_POS)
		return mzm_fail(err, MZM_EARG, "a context of %d tokens is too small to measure in; it takes %d", limit,
				2 * MZM_MAX_POS);
	if (p->n_prompt >= limit || p->context > limit - MZM_MAX_POS || p->long_context > limit)
		return mzm_fail(err, MZM_ECONTEXT,
				"a prompt of %d, a context of %d or a long one of %d tokens does not fit: the context "
				"has %d, and %d of them are for passes", p->n_prompt, p->context, p->long_context,
				limit, MZM_MAX_POS);
	if (!p->n_prompt)
		p->n_prompt = least(DEFAULT_PROMPT, limit - 1);
	if (!p->context)
		p->context = least(DEFAULT_CONTEXT, limit - MZM_MAX_POS);
	if (!p->long_context && LONG_KV_BYTES / kv_row < DEFAULT_LONG)
		p->long_context = least(at_least((int32_t)(LONG_KV_BYTES / kv_row), p->context), limit);
	else if (!p->long_context)
		p->long_context = least(DEFAULT_LONG, limit);
	if (!p->n_gen)
		p->n_gen = 128;
	return MZM_OK;
}

static bool wants(const mzm_bench_params *p, mzm_bench_kind kind)
{
	return !p->parts || (p->parts & MZM_BENCH_PART(kind));
}

/* The session's context: what the measurements need, unless the caller named one. */
static void size_session(mzm_bench_params *p, const mzm_config *cfg)
{
	int32_t need = at_least(p->n_prompt + 1, p->context + MZM_MAX_POS);
	if (p->session.n_ctx > 0)
		return;
	if (wants(p, MZM_BENCH_CONTEXT))
		need = at_least(need, p->long_context);
	if (wants(p, MZM_BENCH_GENERATE))
		need = at_least(need, least(p->n_gen, MZM_MAX_CTX) + 2 * DEFAULT_CONTEXT);
	p->session.n_ctx = least(need, cfg->n_ctx);
}

static mzm_status settle_params(mzm_bench_run *b, const mzm_bench_params *given)
{
	const mzm_config *cfg = &b->model->weights->cfg;
	b->p = *given;
	MZM_TRY(check_params(&b->p, b->err));
	fill_lists(&b->p);
	MZM_TRY(fill_sizes(&b->p, cfg, b->err));
	size_session(&b->p, cfg);
	if (!b->p.n_repeats)
		b->p.n_repeats = 7;
	if (b->p.seconds <= 0)
		b->p.seconds = 60;
	if (b->p.sample_seconds <= 0)
		b->p.sample_seconds = 0.05;
	b->ignore_eos = b->p.gen.ignore_eos || b->p.accept_rate > 0 || !b->model->tokenizer;
	return MZM_OK;
}

/* ---- lines ---- */

static void add_line(mzm_bench_run *b, mzm_bench_line line)
{
	if (b->n_lines < MZM_BENCH_MAX_LINES)
		b->lines[b->n_lines++] = line;
}

static mzm_status add_sparse(mzm_bench_run *b, const char *name, float keep, bool draft)
{
	const mzm_predictor_ops *ops = mzm_predictor_find(name);
	mzm_drafting d = mzm_model_drafting(b->model, ops, !draft);
	mzm_pred_env env = mzm_model_pred_env(b->model, keep, b->p.gen.seed, d);
	mzm_bench_line line = {.kind = MZM_BENCH_SPARSE, .draft = draft, .held = d.held, .keep = env.keep, .n_pos = 1,
			       .context = b->p.context};
	MZM_TRY(mzm_model_check_predictor(b->model, ops, b->err));
	if (draft && !d.image)
		return MZM_OK; /* it needs the image whole */
	MZM_TRY(ops->create(&line.pred, &env, b->err));
	add_line(b, line);
	return MZM_OK;
}

/* By the model's own weights, and by the draft image where there is one. */
static mzm_status add_sparse_lines(mzm_bench_run *b)
{
	for (int draft = 0; draft <= (b->model->weights->draft != NULL); draft++) {
		if (draft && b->model->weights->held_of != b->model->weights->draft)
			add_line(b, (mzm_bench_line){.kind = MZM_BENCH_DENSE, .draft = true, .n_pos = 1,
						     .context = b->p.context});
		for (int32_t i = 0; i < b->p.n_predictors; i++)
			for (int32_t k = 0; k < b->p.n_keep; k++)
				if (b->n_lines < MZM_BENCH_MAX_LINES)
					MZM_TRY(add_sparse(b, b->p.predictors[i], b->p.keep[k], draft));
	}
	return MZM_OK;
}

/* Where there are checks, also with the period that the monitor finds. */
static void add_generation(mzm_bench_run *b, mzm_bench_line line)
{
	if (!mzm_verifier_for(line.mode))
		line.period = 0;
	add_line(b, line);
	if (line.period > 0) {
		line.period = 0;
		add_line(b, line);
	}
}

static void add_generations(mzm_bench_run *b)
{
	static const mzm_mode modes[] = {MZM_MODE_DENSE, MZM_MODE_SPARSE, MZM_MODE_SIRIUS, MZM_MODE_EXACT};
	const mzm_gen_params *gen = &b->p.gen;
	const char *first = b->p.n_drafts > 0 ? b->p.drafts[0] : gen->draft;
	bool draft =
		mzm_model_drafting(b->model, mzm_predictor_find(gen->predictor), gen->no_draft_image).image;
	for (int32_t i = 0; i < COUNT(modes); i++) {
		mzm_bench_line line = {.kind = MZM_BENCH_GENERATE, .mode = modes[i], .period = gen->period,
				       .draft = draft && modes[i] != MZM_MODE_DENSE, .drafter = first};
		add_generation(b, line);
	}
	for (int32_t i = 1; i < b->p.n_drafts; i++)
		add_generation(b, (mzm_bench_line){.kind = MZM_BENCH_GENERATE, .mode = MZM_MODE_EXACT, .draft = draft,
						   .period = gen->period, .drafter = b->p.drafts[i]});
}

static mzm_status plan_lines(mzm_bench_run *b)
{
	const mzm_bench_params *p = &b->p;
	MZM_TRY(mzm_alloc_for((void **)&b->lines, MZM_BENCH_MAX_LINES * sizeof *b->lines, "the measurements", b->err));
	add_line(b, (mzm_bench_line){.kind = MZM_BENCH_READ});
	add_line(b, (mzm_bench_line){.kind = MZM_BENCH_MATMUL});
	if (wants(p, MZM_BENCH_PREFILL))
		add_line(b, (mzm_bench_line){.kind = MZM_BENCH_PREFILL, .n_pos = p->n_prompt});
	b->dense = b->n_lines;
	add_line(b, (mzm_bench_line){.kind = MZM_BENCH_DENSE, .n_pos = 1, .context = p->context});
	if (wants(p, MZM_BENCH_CONTEXT)) /* so long with the token itself */
		add_line(b, (mzm_bench_line){.kind = MZM_BENCH_CONTEXT, .n_pos = 1, .context = p->long_context - 1});
	for (int32_t i = 0; wants(p, MZM_BENCH_CHECK) && i < COUNT(check_sizes); i++)
		add_line(b, (mzm_bench_line){.kind = MZM_BENCH_CHECK, .n_pos = check_sizes[i], .context = p->context});
	if (wants(p, MZM_BENCH_SPARSE))
		MZM_TRY(add_sparse_lines(b));
	if (wants(p, MZM_BENCH_GENERATE))
		add_generations(b);
	return MZM_OK;
}

/* ---- rounds ---- */

static double seconds_so_far(const mzm_bench_run *b)
{
	return (double)(mzm_now_ns() - b->start_ns) * 1e-9;
}

/* True when the caller wants no more. */
static bool report(mzm_bench_run *b, const char *stage)
{
	b->n_done++;
	b->n_planned = b->n_planned > b->n_done ? b->n_planned : b->n_done;
	if (b->p.progress && b->p.progress(b->p.user, stage, b->n_done, b->n_planned))
		b->stopped = true;
	return b->stopped;
}

/* What generations count from here on: the warm-up's are not to be in the figures. */
static void forget_counts(mzm_bench_line *l)
{
	l->n_texts = l->n_tokens = l->n_checks = l->n_gained = l->n_accepted = l->n_dropped = 0;
	l->n_sparse_passes = l->n_dense_passes = 0;
	l->draft_work = 0;
}

/* Calls a line until its pace is known, and decides how many make a sample. */
static mzm_status warm_up(mzm_bench_run *b, mzm_bench_line *l)
{
	double ns = 0, timed = 0; /* of one unit; seconds of one call */
	for (int32_t n = 1;; n *= 2) {
		int64_t start = mzm_now_ns();
		forget_counts(l);
		MZM_TRY(mzm_bench_sample(b, l, n, &ns));
		timed = l->kind == MZM_BENCH_GENERATE ? ns * (double)l->n_tokens : (double)(mzm_now_ns() - start);
		timed *= 1e-9 / n;
		if (l->kind == MZM_BENCH_GENERATE && isnan(ns) && !b->ignore_eos)
			b->ignore_eos = true; /* nothing but an end: then go on behind it */
		else if (isnan(ns))
			return mzm_fail(b->err, MZM_ECONTEXT, "no room in the context to generate");
		else if (timed * n >= b->p.sample_seconds / 4 || n > MAX_CALLS / 2)
			break;
	}
	double calls = ceil(b->p.sample_seconds / (timed > 1e-9 ? timed : 1e-9));
	l->n_calls = calls < 1 ? 1 : calls > MAX_CALLS ? MAX_CALLS : (int32_t)calls;
	l->ns[0] = ns;
	forget_counts(l);
	return MZM_OK;
}

/* As many prompts and tokens as the time allows, 45 % of it being for generations. */
static void plan_generations(mzm_bench_run *b)
{
	int32_t n = 0;
	for (int32_t i = 0; i < b->n_lines; i++)
		n += b->lines[i].kind == MZM_BENCH_GENERATE;
	double token_s = b->lines[b->dense].ns[0] * 1e-9;
	double tokens = 0.45 * b->p.seconds / ((b->p.n_repeats + 1) * (n ? n : 1) * token_s);
	b->n_gen = tokens >= b->p.n_gen ? b->p.n_gen : tokens > MIN_GEN ? (int32_t)tokens : MIN_GEN;
	b->n_gen = at_least(2, least(b->n_gen, b->p.n_gen));
	double prompts = tokens / b->n_gen;
	b->n_prompts = prompts < 1 ? 1 : prompts > MZM_BENCH_MAX_PROMPTS ? MZM_BENCH_MAX_PROMPTS : (int32_t)prompts;
	b->shortened |= n > 0 && b->n_gen < b->p.n_gen;
}

static mzm_status warm_up_all(mzm_bench_run *b)
{
	b->n_planned = (uint64_t)b->n_lines * (uint64_t)(b->p.n_repeats + 1);
	for (int32_t i = 0; i < b->n_lines && !b->stopped; i++) {
		if (b->lines[i].kind == MZM_BENCH_GENERATE && b->n_prompts == 0)
			plan_generations(b);
		MZM_TRY(warm_up(b, &b->lines[i]));
		report(b, "warming up");
	}
	return MZM_OK;
}

/* True when one more round, taken to be like those before it, fits the time; the first three are measured anyway. */
static bool has_time(const mzm_bench_run *b, double rounds_began_s)
{
	double now = seconds_so_far(b);
	if (b->n_rounds < MIN_ROUNDS)
		return true;
	return now + (now - rounds_began_s) / b->n_rounds <= b->p.seconds;
}

static mzm_status measure(mzm_bench_run *b)
{
	MZM_TRY(warm_up_all(b));
	double began = seconds_so_far(b);
	while (!b->stopped && b->n_rounds < b->p.n_repeats && has_time(b, began)) {
		int32_t i = 0;
		for (; i < b->n_lines && !b->stopped; i++) {
			mzm_bench_line *l = &b->lines[i];
			MZM_TRY(mzm_bench_sample(b, l, l->n_calls, &l->ns[b->n_rounds]));
			report(b, "measuring");
		}
		b->n_rounds += i == b->n_lines; /* whole ones only */
	}
	b->shortened |= !b->stopped && b->n_rounds < b->p.n_repeats;
	return MZM_OK;
}

mzm_status mzm_bench(mzm_bench_result **out, const mzm_model *model, const mzm_bench_params *params, mzm_err *err)
{
	mzm_status st;
	mzm_bench_params defaults = mzm_bench_params_default();
	mzm_bench_run b = {.model = model, .err = err, .start_ns = mzm_now_ns()};
	*out = NULL;
	MZM_TRY_OUT(settle_params(&b, params ? params : &defaults));
	MZM_TRY_OUT(plan_lines(&b));
	MZM_TRY_OUT(mzm_bench_prepare(&b));
	MZM_TRY_OUT(measure(&b));
	if (b.n_rounds > 0)
		MZM_TRY_OUT(mzm_bench_rows(out, &b));
	if (b.stopped)
		st = mzm_fail(err, MZM_ECANCELLED, "stopped after %d whole rounds", b.n_rounds);
out:
	mzm_bench_release(&b);
	return st;
}
