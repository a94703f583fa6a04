/* session.c - one token timeline: KV, scratch, team of threads, sampler, monitor; and plain passes. */
#include "engine/engine.h"

#include <string.h>

#include "decode/ngram.h"
#include "engine/alloc.h"
#include "kern/cores.h"
#include "predictors/teal.h"

mzm_session_params mzm_session_params_default(void)
{
	return (mzm_session_params){0};
}

static mzm_status context_size(int32_t *n_ctx, const mzm_config *cfg, int32_t wanted, mzm_err *err)
{
	if (wanted < 0 || wanted > cfg->n_ctx)
		return mzm_fail(err, MZM_EARG, "a context of %d tokens was asked for; the model allows 1 to %d", wanted,
				(int)cfg->n_ctx);
	*n_ctx = wanted ? wanted : cfg->n_ctx < MZM_DEFAULT_CTX ? cfg->n_ctx : MZM_DEFAULT_CTX;
	return MZM_OK;
}

static mzm_status check_params(int32_t *n_ctx, mzm_dtype *kv_type, const mzm_config *cfg,
			       const mzm_session_params *params, mzm_err *err)
{
	*kv_type = MZM_F16;
	if (params->kv_type && (!mzm_dtype_parse(kv_type, params->kv_type) || mzm_dtype_is_quant(*kv_type)))
		return mzm_fail(err, MZM_EARG, "keys and values cannot be \"%.20s\"; known are f32, f16, bf16",
				params->kv_type);
	if (params->n_threads < 0 || params->n_threads > MZM_MAX_THREADS)
		return mzm_fail(err, MZM_EARG, "%d threads were asked for; 1 to %d are possible, 0 = all cores",
				params->n_threads, MZM_MAX_THREADS);
	return context_size(n_ctx, cfg, params->n_ctx, err);
}

#define OUTPUT_BYTES ((uint64_t)1 << 20) /* text held back, and the like */
#define N_INDICES    2                   /* of a text's n-grams: drafters that guess have one each */

mzm_status mzm_session_measure(uint64_t *bytes, const mzm_config *cfg, bool has_bf16, const mzm_kern *kern,
			       const mzm_session_params *params, mzm_err *err)
{
	int32_t n_ctx;
	mzm_dtype kv_type;
	size_t state;
	MZM_TRY(check_params(&n_ctx, &kv_type, cfg, params, err));
	int n_ranks = params->n_threads ? params->n_threads : mzm_cores_usable("");
	if (!mzm_state_measure(&state, cfg, has_bf16, kern, n_ranks, n_ctx, kv_type))
		return mzm_fail(err, MZM_EARG, "a context of %d tokens is larger than memory can be", (int)n_ctx);
	*bytes = state + mzm_sampler_bytes(cfg->n_vocab) + 4 * ((uint64_t)n_ctx + MZM_MAX_PERIOD) +
		 12 * (uint64_t)cfg->n_layers * (uint64_t)cfg->n_ffn + OUTPUT_BYTES +
		 N_INDICES * (uint64_t)mzm_ngram_bytes(n_ctx);
	return MZM_OK;
}

mzm_status mzm_model_reserve(const mzm_model *m, uint64_t bytes, const char *what, mzm_err *err)
{
	if (!m->plan.ram_bytes)
		return MZM_OK;
	pthread_mutex_lock(&m->ledger->lock);
	uint64_t left = m->plan.session_bytes - m->ledger->spent;
	if (bytes <= left)
		m->ledger->spent += bytes;
	pthread_mutex_unlock(&m->ledger->lock);
	return bytes <= left ? MZM_OK
			     : mzm_fail(err, MZM_ENOMEM,
					"%s needs %.1f MiB, and the memory budget has %.1f left for sessions", what,
					(double)bytes / (1 << 20), (double)left / (1 << 20));
}

void mzm_model_release(const mzm_model *m, uint64_t bytes)
{
	if (!m->plan.ram_bytes)
		return;
	pthread_mutex_lock(&m->ledger->lock);
	m->ledger->spent -= bytes;
	pthread_mutex_unlock(&m->ledger->lock);
}

/* Under a budget a session takes its memory out of what the plan left for sessions. */
static mzm_status reserve(mzm_session *s, const mzm_session_params *params, mzm_err *err)
{
	const mzm_model *m = s->model;
	uint64_t bytes;
	if (!m->plan.ram_bytes)
		return MZM_OK;
	MZM_TRY(mzm_session_measure(&bytes, &m->weights->cfg, m->has_bf16, m->kern, params, err));
	MZM_TRY(mzm_model_reserve(m, bytes, "the session", err));
	s->reserved = bytes;
	return MZM_OK;
}

mzm_status mzm_session_create(mzm_session **out, const mzm_model *model, const mzm_session_params *params, mzm_err *err)
{
	mzm_status st;
	mzm_session *s;
	mzm_session_params defaults = mzm_session_params_default();
	int32_t n_ctx;
	mzm_dtype kv_type;
	*out = NULL;
	if (!params)
		params = &defaults;
	MZM_TRY(check_params(&n_ctx, &kv_type, &model->weights->cfg, params, err));
	MZM_TRY(mzm_alloc_for((void **)&s, sizeof *s, "the session", err));
	s->model = model;
	s->kv_type = kv_type;
	MZM_TRY_OUT(reserve(s, params, err));
	MZM_TRY_OUT(mzm_team_create(&s->team, params->n_threads, err));
	MZM_TRY_OUT(mzm_state_create(&s->state, model->weights, model->kern, s->team, n_ctx, kv_type, err));
	MZM_TRY_OUT(mzm_sampler_create(&s->sampler, model->weights->cfg.n_vocab, model->kern, err));
	MZM_TRY_OUT(
		mzm_alloc_for((void **)&s->ids, ((size_t)n_ctx + MZM_MAX_PERIOD) * sizeof *s->ids, "the tokens", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&s->keep_of, (size_t)model->weights->cfg.n_layers * sizeof *s->keep_of,
				  "the session", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&s->attn_threshold,
				  2 * (size_t)model->weights->cfg.n_layers * sizeof *s->attn_threshold, "the session",
				  err));
	s->monitor.prior = mzm_calib_find(model->calib, MZM_MONITOR_TENSOR, -1, MZM_F32, 2, MZM_MONITOR_FEATURES);
	mzm_monitor_reset(&s->monitor);
	for (int i = 0; i < MZM_MAX_DRAFTERS; i++)
		mzm_monitor_reset(&s->monitor_of[i]);
	s->n_observed = MZM_NOT_OBSERVED;
	*out = s;
	return MZM_OK;
out:
	mzm_session_free(s);
	return st;
}

void mzm_session_free(mzm_session *s)
{
	if (!s)
		return;
	if (s->predictor)
		s->predictor->ops->free(s->predictor);
	mzm_free(s->ids);
	mzm_free(s->keep_of);
	mzm_free(s->attn_threshold);
	mzm_sampler_free(s->sampler);
	mzm_session_drop_draft(s);
	mzm_state_free(s->state);
	mzm_team_free(s->team);
	mzm_model_release(s->model, s->reserved);
	mzm_free(s);
}

int32_t mzm_session_n_ctx(const mzm_session *s)
{
	return mzm_state_kv(s->state)->max_tok;
}

int32_t mzm_session_n_threads(const mzm_session *s)
{
	return mzm_team_size(s->team);
}

int32_t mzm_session_len(const mzm_session *s)
{
	return mzm_state_kv(s->state)->len;
}

void mzm_session_truncate(mzm_session *s, int32_t len)
{
	mzm_kv *kv = mzm_state_kv(s->state);
	mzm_kv_truncate(kv, len < 0 ? 0 : len);
	s->n_full = s->n_full < kv->len ? s->n_full : kv->len;
}

size_t mzm_session_bytes(const mzm_session *s)
{
	return mzm_state_bytes(s->state);
}

/* Rows of n more tokens were made behind the others, without the predictor. */
static void note_tokens(mzm_session *s, const int32_t *ids, int32_t n)
{
	int32_t len = mzm_session_len(s);
	memmove(s->ids + len - n, ids, (size_t)n * sizeof *ids);
	if (s->n_full >= len - n)
		s->n_full = len;
	s->n_observed = MZM_NOT_OBSERVED;
	s->n_high = s->n_high > len ? s->n_high : len;
}

mzm_status mzm_session_forward(mzm_session *s, float *logits, const int32_t *ids, int32_t n, int32_t n_rows,
			       mzm_err *err)
{
	const mzm_config *cfg = &s->model->weights->cfg;
	int32_t room = mzm_session_n_ctx(s) - mzm_session_len(s);
	if (n < 1 || n_rows < 0 || n_rows > n)
		return mzm_fail(err, MZM_EARG, "%d tokens with %d rows of logits", n, n_rows);
	if (n > room)
		return mzm_fail(err, MZM_ECONTEXT, "%d tokens do not fit: the context has room for %d more of %d", n,
				room, mzm_session_n_ctx(s));
	for (int32_t i = 0; i < n; i++) {
		if (ids[i] < 0 || ids[i] >= cfg->n_vocab)
			return mzm_fail(err, MZM_EARG, "token %d is %d; the vocabulary has 0 to %d", i, ids[i],
					cfg->n_vocab - 1);
	}
	for (int32_t done = 0; done < n;) {
		int32_t step = n - done < MZM_MAX_POS ? n - done : MZM_MAX_POS;
		int32_t before = n - (done + step); /* positions that come after this step */
		int32_t rows = n_rows - before < 0 ? 0 : n_rows - before < step ? n_rows - before : step;
		float *got;
		mzm_pass pass = {.ids = ids + done, .n_pos = step, .n_rows = rows};
		MZM_TRY(mzm_forward(s->state, &pass, &got, NULL, err));
		note_tokens(s, ids + done, step);
		if (rows) {
			memcpy(logits, got, (size_t)rows * (size_t)cfg->n_vocab * sizeof *logits);
			logits += (size_t)rows * (size_t)cfg->n_vocab;
		}
		done += step;
	}
	return MZM_OK;
}

mzm_status mzm_model_check_predictor(const mzm_model *m, const mzm_predictor_ops *ops, mzm_err *err)
{
	const mzm_weights *w = m->weights;
	bool streams = mzm_store_n_spans(w->store, MZM_ORDER_PASS) > 0;
	bool chooses_late = ops->stage == MZM_PRED_FULL || ops->stage == MZM_PRED_UP;
	if ((ops->needs_down_norm && !w->down_norm) || (chooses_late && streams))
		return mzm_fail(err, MZM_EUNDEFINED,
				"predictor \"%s\" needs the whole model in memory (--store resident)", ops->name);
	if (ops->calibration && mzm_calib_count(m->calib, ops->calibration, w->cfg.n_layers) < w->cfg.n_layers)
		return mzm_fail(err, MZM_EUNDEFINED,
				"predictor \"%s\" needs a calibration of the model: mirzam calibrate -m %s --data TEXT",
				ops->name, m->path);
	return MZM_OK;
}

/* Finds the thresholds of the attention's inputs. */
static mzm_status use_attn_keep(mzm_session *s, float keep, mzm_err *err)
{
	const mzm_model *m = s->model;
	const mzm_config *cfg = &m->weights->cfg;
	if (keep >= 1)
		return MZM_OK;
	if (!cfg->attn_by_input)
		return mzm_fail(err, MZM_EUNDEFINED,
				"attn-keep below 1 needs a model whose attention lies by input: mirzam import %s -o "
				"NEW --attn-layout input",
				m->path);
	if (mzm_calib_count(m->calib, MZM_TEAL_ATTENTION, cfg->n_layers) < cfg->n_layers)
		return mzm_fail(err, MZM_EUNDEFINED,
				"attn-keep below 1 needs a calibration of the model: mirzam calibrate -m %s --data "
				"TEXT",
				m->path);
	return mzm_teal_attention(s->attn_threshold, m->calib, cfg, keep, err);
}

mzm_status mzm_session_use_predictor(mzm_session *s, const mzm_gen_params *params, mzm_err *err)
{
	float keep = mzm_gen_keep(params), attn_keep = params->attn_keep > 0 ? params->attn_keep : 1;
	const mzm_predictor_ops *ops = mzm_predictor_find(params->predictor);
	if (!ops)
		return mzm_fail(err, MZM_EARG, "unknown predictor \"%s\"", params->predictor);
	MZM_TRY(mzm_model_check_predictor(s->model, ops, err));
	MZM_TRY(use_attn_keep(s, attn_keep, err));
	mzm_drafting d = mzm_model_drafting(s->model, ops, params->no_draft_image), was = s->drafting;
	if (was.image != d.image || was.held != d.held)
		memset(s->costs_of, 0, sizeof s->costs_of);
	s->drafting = d;
	if (s->predictor && s->predictor->ops == ops && s->keep == keep && s->seed == params->seed &&
	    s->attn_keep == attn_keep && s->no_alloc == params->no_alloc && was.held == d.held)
		return MZM_OK;
	if (s->predictor)
		s->predictor->ops->free(s->predictor);
	s->predictor = NULL;
	s->n_observed = MZM_NOT_OBSERVED;
	memset(s->costs_of, 0, sizeof s->costs_of);
	mzm_pred_env env = mzm_model_pred_env(s->model, keep, params->seed, d);
	if (!params->no_alloc && !d.held && ops->allocates)
		MZM_TRY(mzm_alloc_read(&env.keep_of, s->keep_of, env.calib, ops->name, env.cfg, env.keep, err));
	MZM_TRY(ops->create(&s->predictor, &env, err));
	s->predictor->attn_threshold = attn_keep < 1 ? s->attn_threshold : NULL;
	s->keep = keep;
	s->attn_keep = attn_keep;
	s->no_alloc = params->no_alloc;
	s->seed = params->seed;
	return MZM_OK;
}

double mzm_session_ffn_share(const mzm_session *s)
{
	const mzm_weights *w = s->model->weights;
	const mzm_predictor *pred = s->predictor;
	double kept = 0;
	for (int32_t l = 0; l < w->cfg.n_layers; l++)
		kept += (double)mzm_pred_keep(pred, l) / ((double)w->cfg.n_layers * w->cfg.n_ffn);
	double cost = mzm_state_cost_share(s->state, pred, s->drafting.image) -
		      (1 - (double)s->attn_keep) * mzm_state_attention_share(s->state, s->drafting.image);
	if (pred->ops->share)
		return pred->ops->share(pred) + cost;
	if (s->drafting.held && pred->ops->stage == MZM_PRED_GATE)
		return mzm_pred_ffn_share(MZM_PRED_GATE, kept, w->cfg.ungated) -
		       (1 - (double)w->n_held / w->cfg.n_ffn) / mzm_config_n_ffn_matrices(&w->cfg) + cost;
	return mzm_pred_ffn_share(pred->ops->stage, kept, w->cfg.ungated) + cost;
}
