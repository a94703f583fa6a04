/* bench_lines.c - what a benchmark times: one call of each kind, samples of several, and what they need beforehand.
 *
 * Passes run on the KV of one session behind a real prompt and are rolled back. Sampling is no part of a pass, the
 * logits are. Generations overwrite the KV of that prompt with their own, which is as good: a pass costs what its
 * context is long, not what it says. */
#include "engine/bench.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"

#define SYNTH_PROMPT 48 /* tokens of a prompt for a model without a tokenizer */

/* Word problems, which the shipped model was made for; any model can go on with them. */
static const char *const texts[MZM_BENCH_MAX_PROMPTS] = {
	"Question: Ben has 12 apples. He buys 7 more. He gives Olga 5 apples. How many apples does Ben have in the "
	"end?\nAnswer:",
	"Question: There are 17 pens in a box. Maya takes out 4 pens and puts in 9 more. How many pens are in the "
	"box?\nAnswer:",
	"Question: Tom reads 6 pages a day for 5 days. The book has 42 pages. How many pages are left?\nAnswer:",
	"Question: A cake costs 8 dollars. Anna buys 3 cakes and pays with 30 dollars. How much change does she "
	"get?\nAnswer:",
};

/* ---- tokens ---- */

void mzm_bench_repeat(int32_t *out, int32_t n, const int32_t *ids, int32_t n_ids)
{
	for (int32_t i = 0; i < n; i++)
		out[i] = ids[i % n_ids];
}

static mzm_status make_prompt(mzm_bench_run *b, int32_t i)
{
	mzm_bench_prompt *prompt = &b->prompt[i];
	const mzm_tokenizer *tok = b->model->tokenizer;
	size_t n = SYNTH_PROMPT;
	if (tok) {
		MZM_TRY(mzm_tokenize(tok, texts[i], strlen(texts[i]), MZM_TOK_ADD_SPECIAL, &prompt->ids, &n, b->err));
	} else {
		int32_t n_vocab = b->model->weights->cfg.n_vocab;
		MZM_TRY(mzm_alloc_for((void **)&prompt->ids, n * sizeof *prompt->ids, "a prompt", b->err));
		for (size_t k = 0; k < n; k++)
			prompt->ids[k] = (int32_t)(mzm_rng_u64(1, (uint64_t)i, k) % (uint64_t)n_vocab);
	}
	int32_t most = mzm_session_n_ctx(b->session) / 2; /* a context so small leaves room for an answer */
	prompt->n = n < (size_t)most ? (int32_t)n : most;
	return prompt->n > 0 ? MZM_OK
			     : mzm_fail(b->err, MZM_EUNSUPPORTED, "the tokenizer makes no token of the prompt");
}

static mzm_status make_tokens(mzm_bench_run *b)
{
	for (int32_t i = 0; i < MZM_BENCH_MAX_PROMPTS; i++)
		MZM_TRY(make_prompt(b, i));
	b->n_ids = b->p.n_prompt > b->p.context ? b->p.n_prompt : b->p.context;
	b->n_ids = b->n_ids > MZM_MAX_POS ? b->n_ids : MZM_MAX_POS;
	MZM_TRY(mzm_alloc_for((void **)&b->ids, (size_t)b->n_ids * sizeof *b->ids, "the tokens", b->err));
	mzm_bench_repeat(b->ids, b->n_ids, b->prompt[0].ids, b->prompt[0].n);
	return MZM_OK;
}

/* ---- context and predictors ---- */

/* Numbers that are finite and not denormal as f32, f16 and bf16 alike. */
static void fill_kv(mzm_kv *kv)
{
	uint16_t *at = kv->block;
	for (size_t i = 0; i < mzm_kv_bytes(kv) / sizeof *at; i++)
		at[i] = (uint16_t)(0x2c00u | (unsigned)(mzm_rng_mix(i) & 0x3ff));
}

/* Hands what a dense pass saw to the predictors of all lines: one prefill for all of them. */
typedef struct audience {
	mzm_predictor  base;
	mzm_bench_run *b;
} audience;

static void tell_all(mzm_predictor *base, int32_t layer, const float *z, int32_t n_pos)
{
	mzm_bench_run *b = ((audience *)base)->b;
	for (int32_t i = 0; i < b->n_lines; i++) {
		mzm_predictor *pred = b->lines[i].pred;
		if (pred && pred->observes)
			pred->ops->observe(pred, layer, z, n_pos);
	}
}

static const mzm_predictor_ops audience_ops = {.name = "audience", .observe = tell_all};

static mzm_status read_context(mzm_bench_run *b)
{
	mzm_kv *kv = mzm_state_kv(b->session->state);
	audience all = {{.ops = &audience_ops, .observes = true}, b};
	mzm_kv_truncate(kv, 0);
	while (kv->len < b->p.context) {
		int32_t left = b->p.context - kv->len;
		mzm_pass pass = {.ids = b->ids + kv->len, .n_pos = left < MZM_MAX_POS ? left : MZM_MAX_POS,
				 .observer = &all.base};
		MZM_TRY(mzm_forward(b->session->state, &pass, NULL, NULL, b->err));
	}
	for (int32_t i = 0; i < b->n_lines; i++) {
		mzm_predictor *pred = b->lines[i].pred;
		if (pred && pred->ops->settle)
			pred->ops->settle(pred);
	}
	return MZM_OK;
}

mzm_status mzm_bench_prepare(mzm_bench_run *b)
{
	const mzm_model *m = b->model;
	bool wants_long = false;
	MZM_TRY(mzm_session_create(&b->session, m, &b->p.session, b->err));
	MZM_TRY(mzm_peak_create(&b->peak, b->session->team, m->kern, (size_t)b->p.peak_bytes, b->err));
	MZM_TRY(make_tokens(b));
	for (int32_t i = 0; i < b->n_lines; i++)
		wants_long |= b->lines[i].kind == MZM_BENCH_CONTEXT;
	if (wants_long)
		fill_kv(mzm_state_kv(b->session->state));
	return read_context(b);
}

void mzm_bench_release(mzm_bench_run *b)
{
	for (int32_t i = 0; i < b->n_lines; i++) {
		if (b->lines[i].pred)
			b->lines[i].pred->ops->free(b->lines[i].pred);
	}
	for (int32_t i = 0; i < MZM_BENCH_MAX_PROMPTS; i++)
		mzm_ids_free(b->prompt[i].ids);
	mzm_free(b->ids);
	mzm_free(b->lines);
	mzm_peak_free(b->peak);
	mzm_session_free(b->session);
}

/* ---- one call ---- */

int mzm_bench_places(mzm_bench_place out[2], const mzm_kv *kv, int32_t n_pos, int32_t context)
{
	int32_t step = MZM_KV_STEP, at = context / step * step, with = n_pos < step ? n_pos : step;
	while (at + step > kv->max_tok)
		at -= step;
	if (!kv->sums || at < MZM_KV_LAG + step) { /* no state yet */
		out[0] = (mzm_bench_place){context, 1};
		return 1;
	}
	out[0] = (mzm_bench_place){at - (with - 1) / 2, (double)with / step};
	out[1] = (mzm_bench_place){at + 1 + (step - 1 - with) / 2, 1 - (double)with / step};
	return with < step ? 2 : 1;
}

static mzm_status time_pass(mzm_bench_run *b, mzm_bench_line *l, int32_t len, double *ns)
{
	mzm_kv *kv = mzm_state_kv(b->session->state);
	float *logits;
	mzm_pass pass = {.ids = b->ids, .n_pos = l->n_pos, .n_rows = l->n_pos, .sparse = l->pred, .draft = l->draft,
			 .held = l->held};
	if (l->held) /* not timed */
		MZM_TRY(mzm_state_hold(b->session->state, l->pred, b->err));
	mzm_kv_pretend(kv, len); /* rows up to there are numbers, if not always of this prompt */
	int64_t start = mzm_now_ns();
	MZM_TRY(mzm_forward(b->session->state, &pass, &logits, &l->ffn_share, b->err));
	*ns = (double)(mzm_now_ns() - start);
	return MZM_OK;
}

/* By way of a generation of one token, so that prefills here are the ones that users get. */
static mzm_status time_prefill(mzm_bench_run *b, double *ns)
{
	mzm_gen_params gen = mzm_gen_params_default();
	mzm_gen_result r;
	gen.max_tokens = 1;
	gen.ignore_eos = true;
	MZM_TRY(mzm_generate(b->session, b->ids, b->p.n_prompt, &gen, &r, b->err));
	*ns = (double)r.prefill_ns;
	return MZM_OK;
}

static mzm_gen_params generation_params(const mzm_bench_run *b, const mzm_bench_line *l)
{
	const mzm_gen_params plain = mzm_gen_params_default();
	mzm_gen_params gen = b->p.gen;
	gen.temp = plain.temp;
	gen.top_k = plain.top_k;
	gen.top_p = plain.top_p;
	gen.min_p = plain.min_p;
	gen.repeat_penalty = plain.repeat_penalty;
	gen.n_stop = 0;
	gen.on_text = NULL;
	gen.on_token = NULL; /* would cost a pass over the vocabulary a token */
	gen.on_prefill = NULL;
	gen.mode = l->mode;
	gen.period = l->period;
	gen.draft = l->drafter;
	gen.max_tokens = b->n_gen;
	gen.ignore_eos = b->ignore_eos;
	return gen;
}

static void count(mzm_bench_line *l, const mzm_gen_result *r)
{
	l->n_texts++;
	l->n_tokens += r->n_tokens - 1; /* the prefill brought the first */
	l->n_checks += r->n_checks;
	l->n_gained += r->n_gained;
	l->n_accepted += r->n_accepted;
	l->n_dropped += r->n_rolled_back;
	l->n_sparse_passes += r->n_sparse_passes;
	l->draft_work += r->sparse_work;
	l->n_dense_passes += r->n_dense_passes;
}

/* Each prompt once: *ns of all of it, *n_tokens the tokens after the prefills. A forced acceptance is another one in
 * each round, for each prompt and call, but one for all lines. */
static mzm_status time_generations(mzm_bench_run *b, mzm_bench_line *l, int32_t call, double *ns, int64_t *n_tokens)
{
	mzm_status st = MZM_OK;
	mzm_gen_params gen = generation_params(b, l);
	int64_t before = l->n_tokens;
	*ns = 0;
	b->session->forced_accept = b->p.accept_rate;
	for (int32_t i = 0; i < b->n_prompts && st == MZM_OK; i++) {
		mzm_gen_result r;
		b->session->forced_seed = mzm_rng_u64((uint64_t)b->n_rounds, (uint64_t)call, (uint64_t)i);
		gen.fresh_monitor = i == 0; /* what other modes taught it is not this line's */
		st = mzm_generate(b->session, b->prompt[i].ids, b->prompt[i].n, &gen, &r, b->err);
		*ns += (double)r.decode_ns;
		if (st == MZM_OK)
			count(l, &r);
	}
	b->session->forced_accept = 0;
	*n_tokens = l->n_tokens - before;
	return st;
}

/* ---- samples ---- */

static mzm_status time_machine(mzm_bench_run *b, mzm_bench_line *l, double *ns)
{
	int64_t start = mzm_now_ns();
	if (l->kind == MZM_BENCH_READ)
		mzm_peak_read(b->peak);
	else
		MZM_TRY(mzm_peak_matmul(b->peak, b->err));
	*ns = (double)(mzm_now_ns() - start);
	return MZM_OK;
}

static mzm_status sample_passes(mzm_bench_run *b, mzm_bench_line *l, int32_t n_calls, double *ns)
{
	mzm_bench_place place[2];
	int n = mzm_bench_places(place, mzm_state_kv(b->session->state), l->n_pos, l->context);
	*ns = 0;
	for (int i = 0; i < n; i++) {
		double sum = 0, one, calls = ceil(n_calls * place[i].weight);
		for (int32_t k = 0; k < (int32_t)calls; k++) {
			MZM_TRY(time_pass(b, l, place[i].len, &one));
			sum += one;
		}
		*ns += place[i].weight * sum / calls;
	}
	return MZM_OK;
}

mzm_status mzm_bench_sample(mzm_bench_run *b, mzm_bench_line *l, int32_t n_calls, double *ns)
{
	bool machine = l->kind == MZM_BENCH_READ || l->kind == MZM_BENCH_MATMUL;
	double sum = 0;
	int64_t units = 0;
	if (!machine && l->kind != MZM_BENCH_PREFILL && l->kind != MZM_BENCH_GENERATE)
		return sample_passes(b, l, n_calls, ns);
	for (int32_t i = 0; i < n_calls; i++) {
		double one;
		int64_t n = 1;
		if (machine)
			MZM_TRY(time_machine(b, l, &one));
		else if (l->kind == MZM_BENCH_PREFILL)
			MZM_TRY(time_prefill(b, &one));
		else
			MZM_TRY(time_generations(b, l, i, &one, &n));
		sum += one;
		units += n;
	}
	*ns = units > 0 ? sum / (double)units : (double)NAN;
	return MZM_OK;
}
