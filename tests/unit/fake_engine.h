/* fake_engine.h - stands in for the engine behind mirzam.h, as far as eval/ uses it, so that the evaluation is
 * tested without a model: answers are scripted, instant, and can be made to fail or to wait.
 *
 * Tokens are bytes (0..255), 256 is the end token. The answer to a prompt is a word of padding and "#### X", X
 * being the last number of the prompt: always right in dense mode; one too high in sparse mode when X is odd;
 * in sirius and exact mode right, with a correction when X is odd. Include in one file of a program, which
 * then must not need the engine itself. */
#ifndef MZM_FAKE_ENGINE_H
#define MZM_FAKE_ENGINE_H

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mirzam.h"

enum { FAKE_EOS = 256, FAKE_VOCAB = 257, FAKE_CTX = 2048 };

static struct fake {
	atomic_int  n_generated; /* calls so far */
	int         fail_at;     /* this call fails; 0: none */
	int         wait_us;     /* each call */
	float       cost;        /* what measuring finds */
	const char *padding;     /* before the marker */
	const char *hash;        /* of the model */
	int         n_live;      /* sessions */
} fake;

struct mzm_session {
	int32_t tokens[4096];
	int32_t n_threads;
};

static mzm_status fake_fail(mzm_err *err, mzm_status code, const char *text)
{
	if (err && err->code == MZM_OK) {
		err->code = code;
		snprintf(err->message, sizeof err->message, "%s", text);
	}
	return code;
}

/* ---- model, names ---- */

const char *mzm_version(void)
{
	return "0.0-fake";
}
const char *mzm_build_info(void)
{
	return "fake <build> & no oneDNN";
}
const mzm_model_info *mzm_model_get_info(const mzm_model *model)
{
	static mzm_model_info info = {.path = "fake/<model>", .arch = "fake", .dtype = "f32", .n_ctx = FAKE_CTX,
				      .n_vocab = FAKE_VOCAB, .eos_ids = {FAKE_EOS}, .n_eos = 1, .bos_id = -1,
				      .n_params = 1000, .isa = "none"};
	(void)model;
	snprintf(info.hash, sizeof info.hash, "%s", fake.hash ? fake.hash : "00fake");
	return &info;
}
const mzm_tokenizer *mzm_model_tokenizer(const mzm_model *model)
{
	(void)model;
	return NULL; /* no function here looks at it */
}
const char *mzm_mode_name(mzm_mode mode)
{
	static const char *const names[] = {"dense", "sparse", "sirius", "exact", "lossless"};
	return names[mode];
}
void mzm_ablation_print(char out[64], uint32_t ablate)
{
	(void)ablate;
	snprintf(out, 64, "none");
}

const char *mzm_tree_path_name(mzm_tree_path path)
{
	(void)path;
	return "longest";
}

const char *mzm_accept_name(mzm_accept accept)
{
	(void)accept;
	return "sirius";
}
const char *mzm_drafter_name(int i)
{
	static const char *const names[] = {"sparse", "ngram"};
	return i >= 0 && i < 2 ? names[i] : NULL;
}
const char *mzm_finish_name(mzm_finish finish)
{
	static const char *const names[] = {"eos", "stop", "length", "context", "cancelled"};
	return names[finish];
}
mzm_gen_params mzm_gen_params_default(void)
{
	return (mzm_gen_params){.draft = "sparse", .predictor = "griffin", .keep = .5f, .period = 16, .threshold = .1f,
				.check_temp = .6f, .top_p = 1, .repeat_penalty = 1, .repeat_last = 64};
}
mzm_status mzm_gen_params_check(const mzm_gen_params *p, mzm_err *err)
{
	return p->keep > 0 && p->keep <= 1 ? MZM_OK : fake_fail(err, MZM_EARG, "keep is out of range");
}

/* ---- tokens ---- */

mzm_status mzm_tokenize(const mzm_tokenizer *tok, const char *text, size_t len, unsigned flags, int32_t **ids,
			size_t *n_ids, mzm_err *err)
{
	(void)tok, (void)flags;
	*ids = malloc((len + 1) * sizeof **ids);
	if (!*ids)
		return fake_fail(err, MZM_ENOMEM, "no memory");
	for (size_t i = 0; i < len; i++)
		(*ids)[i] = (unsigned char)text[i];
	*n_ids = len;
	return MZM_OK;
}
void mzm_ids_free(int32_t *ids)
{
	free(ids);
}
int32_t mzm_token_count(const mzm_tokenizer *tok)
{
	(void)tok;
	return FAKE_VOCAB;
}
bool mzm_token_is_special(const mzm_tokenizer *tok, int32_t id)
{
	(void)tok;
	return id == FAKE_EOS;
}
const char *mzm_token_content(const mzm_tokenizer *tok, int32_t id)
{
	(void)tok;
	return id == FAKE_EOS ? "<|end|>" : "?";
}
mzm_text_decoder mzm_text_decoder_init(const mzm_tokenizer *tok)
{
	return (mzm_text_decoder){.tok = tok};
}
size_t mzm_text_decoder_max(const mzm_tokenizer *tok)
{
	(void)tok;
	return 8;
}
size_t mzm_text_decoder_push(mzm_text_decoder *dec, int32_t id, char *out, size_t cap)
{
	(void)dec, (void)cap;
	if (id >= FAKE_EOS)
		return 0;
	*out = (char)id;
	return 1;
}
size_t mzm_text_decoder_flush(mzm_text_decoder *dec, char *out, size_t cap)
{
	(void)dec, (void)out, (void)cap;
	return 0;
}

/* ---- sessions ---- */

mzm_session_params mzm_session_params_default(void)
{
	return (mzm_session_params){0};
}
mzm_status mzm_session_create(mzm_session **out, const mzm_model *model, const mzm_session_params *params, mzm_err *err)
{
	(void)model;
	*out = calloc(1, sizeof **out);
	if (!*out)
		return fake_fail(err, MZM_ENOMEM, "no memory");
	(*out)->n_threads = params->n_threads ? params->n_threads : 2;
	fake.n_live++;
	return MZM_OK;
}
void mzm_session_free(mzm_session *session)
{
	fake.n_live -= session != NULL;
	free(session);
}
int32_t mzm_session_n_ctx(const mzm_session *session)
{
	(void)session;
	return FAKE_CTX;
}
int32_t mzm_session_n_threads(const mzm_session *session)
{
	return session->n_threads;
}
mzm_status mzm_session_measure_costs(mzm_session *session, const mzm_gen_params *params, mzm_costs *out, mzm_err *err)
{
	(void)session, (void)params, (void)err;
	*out = (mzm_costs){.sparse = fake.cost, .dense_ms = 3};
	for (int m = 0; m <= MZM_MAX_PERIOD; m++)
		out->check[m] = 1 + fake.cost * (float)m;
	return MZM_OK;
}
mzm_status mzm_session_nominal_costs(mzm_session *session, const mzm_gen_params *params, mzm_costs *out, mzm_err *err)
{
	(void)session, (void)params, (void)err;
	*out = (mzm_costs){.sparse = .75f};
	for (int m = 1; m <= MZM_MAX_PERIOD; m++)
		out->check[m] = 1;
	return MZM_OK;
}

/* ---- generation ---- */

typedef struct fake_run {
	const mzm_gen_params *gen;
	mzm_gen_result *result;
	int32_t *tokens;
	bool cancelled;
} fake_run;

static void fake_event(fake_run *r, mzm_token_kind kind, int32_t id)
{
	mzm_token_event event = {.kind = kind, .id = id, .confidence = kind == MZM_TOKEN_ACCEPTED ? 0.9f : 0.25f};
	char byte = (char)id;
	if (r->cancelled)
		return;
	if (kind != MZM_TOKEN_ROLLED_BACK && r->result->n_tokens < 4096)
		r->tokens[r->result->n_tokens++] = id;
	r->result->n_accepted += kind == MZM_TOKEN_ACCEPTED;
	r->result->n_corrected += kind == MZM_TOKEN_CORRECTED;
	r->result->n_bonus += kind == MZM_TOKEN_BONUS;
	r->result->n_rolled_back += kind == MZM_TOKEN_ROLLED_BACK;
	if (r->gen->on_token && r->gen->on_token(r->gen->user, &event))
		r->cancelled = true;
	if (kind != MZM_TOKEN_ROLLED_BACK && id < FAKE_EOS && !r->cancelled && r->gen->on_text &&
	    r->gen->on_text(r->gen->user, &byte, 1))
		r->cancelled = true;
}

/* Blocks of the period: all but the last accepted, then a bonus; `wrong` adds a dropped token and a correction. */
static void fake_checked(fake_run *r, const char *text, size_t n, bool wrong)
{
	size_t period = r->gen->period ? (size_t)r->gen->period : 4;
	mzm_gen_result *g = r->result;
	for (size_t i = 0; i < n;) {
		size_t block = n - i < period ? n - i : period;
		for (size_t k = 0; k + 1 < block; k++)
			fake_event(r, MZM_TOKEN_ACCEPTED, (unsigned char)text[i + k]);
		if (wrong)
			fake_event(r, MZM_TOKEN_ROLLED_BACK, '<');
		fake_event(r, wrong ? MZM_TOKEN_CORRECTED : MZM_TOKEN_BONUS, (unsigned char)text[i + block - 1]);
		g->n_checks++;
		g->n_gained += (int32_t)block;
		g->n_sparse_passes += (int32_t)period - 1;
		g->n_dense_passes++;
		g->n_dense_positions += (int64_t)period;
		i += block;
		g->n_checks_paper = g->n_checks - 1;
		g->n_gained_paper = g->n_gained - (int32_t)block;
		wrong = false;
	}
}

/* All it says of each drafter of a list. */
static void fake_drafters(mzm_gen_result *g, const char *draft)
{
	for (int i = 0; draft && i < 2; i++) {
		if (!strstr(draft, mzm_drafter_name(i)))
			continue;
		g->drafts[g->n_drafters++] = (mzm_draft_stats){mzm_drafter_name(i), g->n_checks, g->n_sparse_passes - i,
							       g->n_accepted - i};
	}
}

static long fake_last_number(const int32_t *prompt, int32_t n)
{
	int32_t end = n;
	long value = 0, unit = 1;
	while (end > 0 && (prompt[end - 1] < '0' || prompt[end - 1] > '9'))
		end--;
	for (int32_t i = end; i > 0 && prompt[i - 1] >= '0' && prompt[i - 1] <= '9'; i--, unit *= 10)
		value += (prompt[i - 1] - '0') * unit;
	return value;
}

static void fake_answer(fake_run *r, long x)
{
	char text[1024];
	mzm_mode mode = r->gen->mode;
	bool checked = mode == MZM_MODE_SIRIUS || mode == MZM_MODE_EXACT, odd = x % 2 != 0;
	snprintf(text, sizeof text, "%s#### %ld", fake.padding ? fake.padding : " so ",
		 mode == MZM_MODE_SPARSE ? x + odd : x);
	size_t n = strlen(text);
	fake_event(r, MZM_TOKEN_FIRST, (unsigned char)text[0]);
	if (checked) {
		fake_checked(r, text + 1, n - 1, odd);
		fake_drafters(r->result, r->gen->draft);
	} else {
		for (size_t i = 1; i < n; i++)
			fake_event(r, MZM_TOKEN_PLAIN, (unsigned char)text[i]);
		*(mode == MZM_MODE_DENSE ? &r->result->n_dense_passes : &r->result->n_sparse_passes) = (int32_t)n - 1;
		r->result->n_dense_positions = r->result->n_dense_passes;
	}
	r->result->finish = MZM_FINISH_STOP;
}

mzm_status mzm_generate(mzm_session *session, const int32_t *prompt, int32_t n_prompt, const mzm_gen_params *gen,
			mzm_gen_result *result, mzm_err *err)
{
	fake_run run = {.gen = gen, .result = result, .tokens = session->tokens};
	int call = atomic_fetch_add(&fake.n_generated, 1) + 1;
	*result = (mzm_gen_result){.tokens = session->tokens, .n_prompt = n_prompt, .density = .75, .read_density = .7};
	if (call == fake.fail_at)
		return fake_fail(err, MZM_EIO, "disk on fire");
	if (!gen->fresh_monitor || (gen->period == 0 && !gen->costs))
		return fake_fail(err, MZM_EINTERNAL, "answers would depend on their order");
	if (fake.wait_us)
		nanosleep(&(struct timespec){.tv_nsec = fake.wait_us * 1000L}, NULL);
	fake_answer(&run, fake_last_number(prompt, n_prompt));
	if (gen->period == 0) /* shows in the results which costs it was given */
		result->bytes_read = (uint64_t)(gen->costs->sparse * 1000);
	result->sparse_work = result->density * result->n_sparse_passes;
	result->prefill_ns = 1000000 + call;
	result->decode_ns = 2000000 + call;
	if (run.cancelled) {
		result->finish = MZM_FINISH_CANCELLED;
		return fake_fail(err, MZM_ECANCELLED, "cancelled");
	}
	return MZM_OK;
}

#endif
