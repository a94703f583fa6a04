/* model.c - opening a model: source, tokenizer, weights, kernel table. Immutable afterwards. */
#include "engine/engine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/plan.h"
#include "engine/sidecar.h"
#include "kern/gemm.h"

const char *mzm_version(void)
{
	return MZM_VERSION_STRING;
}

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif
#ifdef MZM_ONEDNN
#define ONEDNN "oneDNN"
#else
#define ONEDNN "no oneDNN"
#endif
#ifdef NDEBUG
#define KIND "release"
#else
#define KIND "with assertions"
#endif

const char *mzm_build_info(void)
{
	return COMPILER ", " KIND ", OpenMP, " ONEDNN;
}

const char *mzm_isa_name(int i)
{
	for (int t = 0; i >= 0 && mzm_kern_tables[t]; t++) {
		if (mzm_kern_tables[t]->supported() && i-- == 0)
			return mzm_kern_tables[t]->name;
	}
	return NULL;
}

const char *mzm_drafter_name(int i)
{
	const mzm_drafter_ops *ops = mzm_drafter_at(i);
	return ops ? ops->name : NULL;
}

const char *mzm_drafter_about(int i)
{
	const mzm_drafter_ops *ops = mzm_drafter_at(i);
	return ops ? ops->about : NULL;
}

const char *mzm_jacobi_name(int i)
{
	return mzm_jacobi_form_at(i);
}

const char *mzm_jacobi_seed_name(int i)
{
	return mzm_jacobi_seed_at(i);
}

const char *mzm_predictor_name(int i)
{
	const mzm_predictor_ops *ops = mzm_predictor_at(i);
	return ops ? ops->name : NULL;
}

mzm_model_params mzm_model_params_default(void)
{
	return (mzm_model_params){0};
}

/* Adds up what the model's tensors, and those of its draft image, take in memory. */
static void count_bytes(mzm_model_info *info, mzm_source *src, const mzm_config *cfg)
{
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		uint64_t bytes = mzm_tensor_bytes(&t);
		bool ffn = mzm_tensor_is_ffn(t.kind);
		if (t.role == MZM_ROLE_DRAFT) {
			info->draft_bytes += bytes;
			info->draft_ffn_bytes += ffn ? bytes : 0;
			continue;
		}
		info->weight_bytes += bytes;
		if (t.kind == MZM_T_POS)
			continue; /* looked up */
		if (t.kind != MZM_T_EMBED || cfg->tied) /* a tied embedding is read as the head */
			info->bytes_per_token += bytes;
	}
}

static void fill_info(mzm_model *m, mzm_source *src)
{
	const mzm_config *cfg = &m->weights->cfg;
	mzm_model_info *info = &m->info;
	const char *hash = mzm_source_hash(src);
	*info = (mzm_model_info){
		.path = m->path, .n_layers = cfg->n_layers, .dim = cfg->dim, .n_ffn = cfg->n_ffn,
		.n_heads = cfg->n_heads, .n_kv_heads = cfg->n_kv_heads, .head_dim = cfg->head_dim,
		.n_vocab = cfg->n_vocab, .n_ctx = cfg->n_ctx, .bos_id = cfg->bos_id, .n_eos = cfg->n_eos,
		.n_params = mzm_config_n_params(cfg), .n_ffn_params = mzm_config_n_ffn_params(cfg),
		.inflated = mzm_source_inflated(src), .isa = m->kern->name,
	};
	count_bytes(info, src, cfg);
	snprintf(info->arch, sizeof info->arch, "%s", cfg->arch);
	snprintf(info->hash, sizeof info->hash, "%s", hash ? hash : "");
	snprintf(info->dtype, sizeof info->dtype, "%s", mzm_dtype_name(m->weights->layer[0].gate.dtype));
	if (m->weights->draft)
		snprintf(info->draft_dtype, sizeof info->draft_dtype, "%s",
			 mzm_dtype_name(m->weights->draft[0].gate.dtype));
	snprintf(info->act, sizeof info->act, "%s", mzm_act_name(cfg->act));
	memcpy(info->eos_ids, cfg->eos_ids, sizeof info->eos_ids);
}

/* A model without one can still continue tokens. */
static mzm_status open_tokenizer(mzm_model *m, mzm_source *src, mzm_err *err)
{
	size_t len;
	return mzm_source_side_file(src, MZM_TOKENIZER_JSON, &len) ? mzm_source_tokenizer(&m->tokenizer, src, err)
								   : MZM_OK;
}

/* The source may be closed before a chat asks for its template. */
static mzm_status keep_tokenizer_config(mzm_model *m, const mzm_source *src, mzm_err *err)
{
	size_t len;
	const char *text = mzm_source_side_file(src, MZM_TOKENIZER_CONFIG, &len);
	if (!text)
		return MZM_OK;
	MZM_TRY(mzm_alloc_for((void **)&m->tokenizer_config, len + 1, "tokenizer_config.json", err));
	memcpy(m->tokenizer_config, text, len);
	m->tokenizer_config_len = len;
	return MZM_OK;
}

static mzm_status load(mzm_model *m, mzm_source *src, const mzm_model_params *params, mzm_err *err)
{
	mzm_status st;
	mzm_residency residency;
	bool *streamed;
	size_t n = (size_t)mzm_source_n_tensors(src);
	MZM_TRY(mzm_alloc_for((void **)&streamed, n * sizeof *streamed, "the plan", err));
	MZM_TRY_OUT(mzm_plan_residency(&m->plan, &residency, streamed, src, params, m->kern, err));
	if (m->plan.ram_bytes)
		mzm_source_avoid_cache(src);
	const mzm_residency *r = residency.kind == MZM_STORE_RESIDENT ? NULL : &residency;
	MZM_TRY_OUT(mzm_weights_load(&m->weights, src, r, params->progress, params->user, err));
out:
	mzm_free(streamed);
	return st;
}

mzm_status mzm_model_open_source(mzm_model **out, mzm_source *src, const char *name, const mzm_model_params *params,
				 mzm_err *err)
{
	mzm_status st;
	mzm_model *m = NULL;
	mzm_model_params defaults = mzm_model_params_default();
	*out = NULL;
	if (!params)
		params = &defaults;
	const mzm_kern *kern = mzm_kern_find(params->isa);
	if (!kern)
		MZM_TRY_OUT(mzm_fail(err, MZM_EARG, "no kernel table \"%s\" for this CPU", params->isa));
	MZM_TRY_OUT(mzm_alloc_for((void **)&m, sizeof *m, "the model", err));
	m->kern = kern;
	m->gemm = mzm_gemm_available() && !params->no_onednn;
	m->path = mzm_strdup(name);
	if (!m->path)
		MZM_TRY_OUT(mzm_fail(err, MZM_ENOMEM, "out of memory"));
	MZM_TRY_OUT(mzm_alloc_for((void **)&m->ledger, sizeof *m->ledger, "the model", err));
	pthread_mutex_init(&m->ledger->lock, NULL);
	m->has_bf16 = mzm_plan_has_bf16(src);
	MZM_TRY_OUT(open_tokenizer(m, src, err));
	MZM_TRY_OUT(mzm_token_classes_create(&m->token_classes, m->tokenizer, mzm_source_config(src)->n_vocab, err));
	MZM_TRY_OUT(keep_tokenizer_config(m, src, err));
	MZM_TRY_OUT(load(m, src, params, err));
	fill_info(m, src);
	if (m->weights->store) {
		m->source = src;
		src = NULL;
	}
	*out = m;
	m = NULL;
out:
	mzm_source_close(src);
	mzm_model_close(m);
	return st;
}

/* The side-car is read first where the hash is known, so that a wrong one is found before the weights are read. */
static mzm_status open_with_sidecar(mzm_model **out, mzm_source *src, const char *path, mzm_model_params params,
				    mzm_err *err)
{
	mzm_status st = MZM_OK;
	mzm_calib *calib = NULL;
	const char *hash = mzm_source_hash(src);
	params.reserve_bytes += mzm_sidecar_factor_bytes(path, &params);
	if (hash)
		st = mzm_sidecar_open(&calib, path, hash, &params, err);
	else
		params.reserve_bytes += mzm_sidecar_bytes(path, &params);
	if (st == MZM_OK)
		st = mzm_model_open_source(out, src, path, &params, err);
	else
		mzm_source_close(src);
	if (st == MZM_OK && !hash)
		st = mzm_sidecar_open(&calib, path, (*out)->info.hash, &params, err);
	if (st == MZM_OK) {
		(*out)->calib = calib;
		return st;
	}
	mzm_calib_close(calib);
	mzm_model_close(*out);
	*out = NULL;
	return st;
}

mzm_status mzm_model_open(mzm_model **out, const char *path, const mzm_model_params *params, mzm_err *err)
{
	mzm_source *src;
	*out = NULL;
	mzm_status st = mzm_source_open(&src, path, err);
	if (st == MZM_OK)
		st = open_with_sidecar(out, src, path, params ? *params : mzm_model_params_default(), err);
	if (st != MZM_OK && err && !strstr(err->message, path))
		mzm_err_prefix(err, "%s", path);
	return st;
}

void mzm_model_close(mzm_model *m)
{
	if (!m)
		return;
	mzm_tokenizer_close(m->tokenizer);
	mzm_weights_free(m->weights);
	mzm_calib_close(m->calib);
	mzm_source_close(m->source);
	if (m->ledger)
		pthread_mutex_destroy(&m->ledger->lock);
	mzm_free(m->ledger);
	mzm_free(m->token_classes);
	mzm_free(m->tokenizer_config);
	mzm_free(m->path);
	mzm_free(m);
}

const mzm_model_info *mzm_model_get_info(const mzm_model *m)
{
	return &m->info;
}

const mzm_plan *mzm_model_get_plan(const mzm_model *m)
{
	return &m->plan;
}

mzm_stream_stats mzm_model_stream_stats(const mzm_model *m)
{
	mzm_store *store = m->weights->store;
	mzm_reader_stats s = mzm_store_stats(store);
	return (mzm_stream_stats){s.bytes_read, s.read_ns, s.unpack_ns, s.wait_ns, mzm_store_io_name(store)};
}

const mzm_tokenizer *mzm_model_tokenizer(const mzm_model *m)
{
	return m->tokenizer;
}

mzm_drafting mzm_model_drafting(const mzm_model *m, const mzm_predictor_ops *ops, bool no_draft_image)
{
	const mzm_weights *w = m->weights;
	mzm_drafting d = {.image = w->draft && !no_draft_image};
	d.held = w->held_of && (w->held_of == w->draft) == d.image && ops && ops->want;
	d.image &= w->held_of != w->draft || d.held; /* of an image in part, what is held */
	return d;
}

mzm_pred_env mzm_model_pred_env(const mzm_model *m, float keep, uint64_t seed, mzm_drafting d)
{
	const mzm_weights *w = m->weights;
	float most = nextafterf((float)w->n_held / (float)w->cfg.n_ffn, 1.0f);
	return (mzm_pred_env){.cfg = &w->cfg, .keep = d.held && keep > most ? most : keep, .seed = seed,
			      .down_norm = w->down_norm, .up_norm = w->up_norm, .partial = d.held,
			      .kern = m->kern, .calib = m->calib};
}

static double draft_bytes(const mzm_model *m, double ffn_share)
{
	return (double)m->info.draft_bytes - (double)m->info.draft_ffn_bytes * (1 - ffn_share);
}

double mzm_model_density(const mzm_model *m, double ffn_share, bool draft_image)
{
	if (draft_image)
		return draft_bytes(m, ffn_share) / (double)m->info.weight_bytes;
	return 1 - (double)m->info.n_ffn_params * (1 - ffn_share) / (double)m->info.n_params;
}

double mzm_model_read_density(const mzm_model *m, double ffn_share, bool draft_image)
{
	if (draft_image)
		return draft_bytes(m, ffn_share) / (double)m->info.bytes_per_token;
	const mzm_config *cfg = &m->weights->cfg;
	uint64_t look_up = cfg->tied ? 0 : (uint64_t)cfg->n_vocab * (uint64_t)cfg->dim;
	look_up += cfg->learned_pos ? (uint64_t)cfg->n_ctx * (uint64_t)cfg->dim : 0;
	return 1 - (double)m->info.n_ffn_params * (1 - ffn_share) / (double)(m->info.n_params - look_up);
}
