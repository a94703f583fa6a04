/* draft_state.c - what a session has for a draft model: its own keys, values and scratch, on the session's threads;
 * whether two models have the same tokens, one by one; and what becomes of what is known of a drafter that is no longer
 * the same. */
#include "engine/engine.h"

#include <string.h>

/* ---- the same tokens ---- */

static const char *content_of(const mzm_tokenizer *t, int32_t id)
{
	const char *content = mzm_token_content(t, id);
	return content ? content : "";
}

static mzm_status differ(const mzm_model *draft, int32_t id, const char *theirs, const char *ours, mzm_err *err)
{
	return mzm_fail(err, MZM_EARG,
			"the draft model %s has other tokens: token %d is \"%.60s\" there and \"%.60s\" here",
			draft->path, (int)id, theirs, ours);
}

static mzm_status check_tokens(const mzm_model *m, const mzm_model *draft, mzm_err *err)
{
	const mzm_tokenizer *ours = m->tokenizer, *theirs = draft->tokenizer;
	int32_t n = mzm_token_count(ours), n_theirs = mzm_token_count(theirs);
	for (int32_t id = 0; id < n && id < n_theirs; id++) {
		const char *a = content_of(ours, id), *b = content_of(theirs, id);
		bool special = mzm_token_is_special(ours, id);
		if (strcmp(a, b) != 0)
			return differ(draft, id, b, a, err);
		if (special != mzm_token_is_special(theirs, id))
			return mzm_fail(err, MZM_EARG,
					"the draft model %s has other tokens: token %d, \"%.60s\", is%s special there",
					draft->path, (int)id, a, special ? " not" : "");
	}
	if (n != n_theirs)
		return mzm_fail(err, MZM_EARG,
				"the draft model %s has %d tokens, this one %d; the first that one lacks is \"%.60s\"",
				draft->path, (int)n_theirs, (int)n,
				content_of(n > n_theirs ? ours : theirs, n > n_theirs ? n_theirs : n));
	return MZM_OK;
}

static bool ends_with(const mzm_model *m, int32_t id)
{
	bool found = false;
	for (int32_t i = 0; i < m->info.n_eos; i++)
		found = found || m->info.eos_ids[i] == id;
	return found;
}

/* Every token that ends a text of a ends one of b. */
static mzm_status check_ends(const mzm_model *draft, const mzm_model *a, const mzm_model *b, mzm_err *err)
{
	for (int32_t i = 0; i < a->info.n_eos; i++) {
		if (!ends_with(b, a->info.eos_ids[i]))
			return mzm_fail(err, MZM_EARG,
					"the draft model %s has other tokens: token %d ends a text %s, and not %s",
					draft->path, (int)a->info.eos_ids[i], a == draft ? "there" : "here",
					a == draft ? "here" : "there");
	}
	return MZM_OK;
}

mzm_status mzm_model_check_draft(const mzm_model *m, const mzm_model *draft, mzm_err *err)
{
	if (!m->tokenizer != !draft->tokenizer)
		return mzm_fail(err, MZM_EARG,
				"%s has no tokenizer, so nobody knows whether it has the same tokens as %s",
				m->tokenizer ? draft->path : m->path, m->tokenizer ? m->path : draft->path);
	if (!m->tokenizer && m->info.n_vocab != draft->info.n_vocab)
		return mzm_fail(err, MZM_EARG, "the draft model %s has %d tokens, this one %d", draft->path,
				(int)draft->info.n_vocab, (int)m->info.n_vocab);
	if (m->tokenizer)
		MZM_TRY(check_tokens(m, draft, err));
	MZM_TRY(check_ends(draft, m, draft, err));
	return check_ends(draft, draft, m, err);
}

/* ---- its state ---- */

mzm_status mzm_draft_model_bytes(uint64_t *bytes, const mzm_model *draft, const mzm_session_params *session,
				 mzm_err *err)
{
	mzm_session_params p = session ? *session : mzm_session_params_default();
	int32_t most = draft->weights->cfg.n_ctx, n_ctx = p.n_ctx > 0 ? p.n_ctx : MZM_DEFAULT_CTX;
	p.n_ctx = n_ctx < most ? n_ctx : most;
	return mzm_session_measure(bytes, &draft->weights->cfg, draft->has_bf16, draft->kern, &p, err);
}

static void forget(mzm_session *s, int index)
{
	memset(&s->costs_of[index], 0, sizeof s->costs_of[index]);
	memset(&s->policy.of[index], 0, sizeof s->policy.of[index]);
	mzm_monitor_reset(&s->monitor_of[index]);
}

void mzm_session_note_settings(mzm_session *s, int index, uint64_t settings)
{
	if (s->settings_of[index] != settings)
		forget(s, index);
	s->settings_of[index] = settings;
}

void mzm_session_drop_draft(mzm_session *s)
{
	mzm_state_free(s->own);
	mzm_free(s->own_ids);
	s->own = NULL;
	s->own_ids = NULL;
	s->own_of = NULL;
}

mzm_status mzm_session_use_draft(mzm_session *s, const mzm_model *draft, mzm_err *err)
{
	mzm_status st;
	int32_t n_ctx = mzm_session_n_ctx(s);
	if (s->own_of == draft)
		return MZM_OK;
	MZM_TRY(mzm_model_check_draft(s->model, draft, err));
	mzm_session_drop_draft(s);
	forget(s, mzm_drafter_index("model", 5));
	n_ctx = n_ctx < draft->weights->cfg.n_ctx ? n_ctx : draft->weights->cfg.n_ctx;
	MZM_TRY_OUT(mzm_state_create(&s->own, draft->weights, draft->kern, s->team, n_ctx, s->kv_type, err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&s->own_ids, (size_t)n_ctx * sizeof *s->own_ids, "the tokens", err));
	s->own_of = draft;
	return MZM_OK;
out:
	mzm_session_drop_draft(s);
	return st;
}
