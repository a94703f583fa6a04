/* drafters.c - the drafters of a generation: made from its params, told what a check found, and what they cost. */
#include "engine/generate_impl.h"

#include <string.h>

float mzm_drafter_cost(const mzm_drafter *d)
{
	return d && d->ops->cost ? (float)d->ops->cost(d) : 1e-4f; /* monitors divide by costs */
}

/* Whose sparse passes go by keep. */
static bool drafts_sparsely(const mzm_drafter_ops *ops, const mzm_gen_params *p)
{
	return ops->needs_predictor || (ops == &mzm_draft_jacobi && mzm_jacobi_predicts(p));
}

static bool skips_sparsely(const mzm_drafter_ops *ops, const mzm_gen_params *p)
{
	return ops == &mzm_draft_skip && p->skip_keep > 0 && p->skip_keep < 1;
}

bool mzm_gen_needs_predictor(const mzm_gen_params *p)
{
	int list[MZM_MAX_DRAFTERS], n = mzm_drafter_list(list, p->draft);
	for (int i = 0; i < n; i++) {
		const mzm_drafter_ops *ops = mzm_drafter_at(list[i]);
		if (drafts_sparsely(ops, p) || skips_sparsely(ops, p))
			return true;
	}
	return p->mode == MZM_MODE_SPARSE;
}

float mzm_gen_keep(const mzm_gen_params *p)
{
	int list[MZM_MAX_DRAFTERS], n = mzm_drafter_list(list, p->draft);
	float keep = p->keep;
	for (int i = 0; mzm_gen_is_checked(p->mode) && i < n; i++) {
		const mzm_drafter_ops *ops = mzm_drafter_at(list[i]);
		if (drafts_sparsely(ops, p))
			return p->keep;
		if (skips_sparsely(ops, p))
			keep = p->skip_keep;
	}
	return keep;
}

static bool drafts_with(const mzm_gen_params *p, const mzm_drafter_ops *ops)
{
	int list[MZM_MAX_DRAFTERS], n = mzm_drafter_list(list, p->draft), i = 0;
	while (i < n && mzm_drafter_at(list[i]) != ops)
		i++;
	return i < n;
}

static mzm_status add_draft_model(mzm_draft_env *env, mzm_session *s, const mzm_gen_params *p, mzm_err *err)
{
	if (!p->draft_model || !drafts_with(p, &mzm_draft_model))
		return MZM_OK;
	MZM_TRY(mzm_session_use_draft(s, p->draft_model, err));
	env->own = s->own;
	env->own_cfg = &p->draft_model->weights->cfg;
	env->own_ids = s->own_ids;
	env->own_gemm = p->draft_model->gemm;
	env->own_work = (double)p->draft_model->info.bytes_per_token / (double)s->model->info.bytes_per_token;
	return MZM_OK;
}

mzm_status mzm_session_draft_env(mzm_draft_env *out, mzm_session *s, const mzm_gen_params *p, mzm_err *err)
{
	mzm_draft_env env = {
		.p = p, .cfg = &s->model->weights->cfg, .n_ctx = mzm_session_n_ctx(s), .state = s->state,
		.sampler = s->sampler, .calib = s->model->calib, .tokenizer = s->model->tokenizer,
		.image = s->drafting.image, .held = s->drafting.held, .guess = s->guess, .guess_ctx = s->guess_ctx,
	};
	for (int image = 0; image < 2; image++) { /* density is linear in the share */
		env.work[image].base = mzm_model_density(s->model, 0, image);
		env.work[image].per_share = mzm_model_density(s->model, 1, image) - env.work[image].base;
	}
	env.whole_image = mzm_model_drafting(s->model, NULL, p->no_draft_image).image;
	if (mzm_gen_needs_predictor(p)) {
		env.predictor = s->predictor;
		env.sparse_share = mzm_session_ffn_share(s);
		env.sparse_work = mzm_model_density(s->model, env.sparse_share, s->drafting.image);
	}
	*out = env;
	return add_draft_model(out, s, p, err);
}

/* "auto" takes those that can be made for this model; who asks for one by name is told why it cannot. */
static mzm_status open_one(mzm_generation *g, const mzm_draft_env *env, int index)
{
	mzm_gen_drafter *slot = &g->drafter[g->n_drafters];
	mzm_err why = {0};
	mzm_status st = mzm_drafter_at(index)->create(&slot->d, env, &why);
	if (st == MZM_EUNDEFINED && mzm_draft_is_auto(g->p->draft))
		return MZM_OK;
	if (st != MZM_OK)
		return mzm_fail(g->err, st, "%s", why.message);
	slot->index = index;
	if (slot->d->ops->settings)
		mzm_session_note_settings(g->s, index, slot->d->ops->settings(slot->d));
	slot->monitor = index == 0 ? &g->s->monitor : &g->s->monitor_of[index];
	slot->stats = &g->r->drafts[g->n_drafters++];
	slot->stats->name = slot->d->ops->name;
	if (g->p->fresh_monitor)
		mzm_monitor_reset(slot->monitor);
	return MZM_OK;
}

mzm_status mzm_gen_open_drafters(mzm_generation *g)
{
	mzm_draft_env env;
	int list[MZM_MAX_DRAFTERS], n = mzm_drafter_list(list, g->p->draft);
	bool wants = false;
	if (g->p->fresh_monitor)
		g->s->policy = (mzm_draft_policy){0};
	MZM_TRY(mzm_session_draft_env(&env, g->s, g->p, g->err));
	for (int i = 0; i < n; i++)
		MZM_TRY(open_one(g, &env, list[i]));
	for (int i = 0; i < g->n_drafters; i++)
		wants = wants || g->drafter[i].d->ops->wants_choices;
	g->r->n_drafters = g->n_drafters;
	if (!wants)
		return MZM_OK;
	return mzm_alloc_for((void **)&g->choice, MZM_MAX_PERIOD * sizeof *g->choice, "choices", g->err);
}

void mzm_gen_close_drafters(mzm_generation *g)
{
	for (int i = 0; i < g->n_drafters; i++)
		g->drafter[i].d->ops->free(g->drafter[i].d);
	mzm_free(g->choice);
	g->n_drafters = 0;
}

/* Costs that were measured for another drafter of the session; NULL: there are none. A check costs the same, whoever
 * drafted. */
static const mzm_costs *known_costs(const mzm_session *s)
{
	for (int i = 0; i < MZM_MAX_DRAFTERS; i++) {
		if (s->costs_of[i].sparse > 0)
			return &s->costs_of[i];
	}
	return NULL;
}

/* Measured once a session. */
static mzm_status measured_costs(mzm_generation *g, int i, mzm_costs *out)
{
	mzm_session *s = g->s;
	mzm_costs *kept = &s->costs_of[g->drafter[i].index];
	const mzm_costs *known = known_costs(s);
	*out = *kept;
	if (kept->sparse > 0)
		return MZM_OK;
	if (known) {
		*out = *known;
		double dense_ns = (double)known->dense_ms * 1e6;
		MZM_TRY(mzm_session_draft_cost(s, g->drafter[i].d, dense_ns, &out->sparse, g->err));
	} else {
		MZM_TRY(mzm_session_complete_costs(s, g->drafter[i].d, g->prefill_pass_ns, out, g->err));
	}
	if (mzm_session_n_ctx(s) - g->kv->len >= MZM_MAX_PERIOD)
		*kept = *out; /* with less room long checks were not measured */
	return MZM_OK;
}

/* Tokens gained a dense pass's cost, before anything is known: passes are right as often as such drafts are, guesses
 * from the text seldom; at the length that is best so, or at the one that is asked for. */
static double expected_rate(const mzm_generation *g, const mzm_gen_drafter *slot, const mzm_costs *costs)
{
	const double right = slot->d->ops->runs_passes ? 0.9 : 0.3;
	double gained = 1, likely = 1, best = 0;
	for (int m = 2; m <= MZM_MAX_PERIOD; m++) {
		likely *= right;
		gained += likely;
		double rate = gained / ((m - 1) * (double)costs->sparse + (double)costs->check[m]);
		if (g->p->period > 0 ? m == g->p->period : rate > best)
			best = rate;
	}
	return best > 0 ? best : 1;
}

/* Costs decide how long a draft is, or who writes it. */
static bool reckons(const mzm_gen_params *p)
{
	return p->period == 0 || mzm_draft_is_auto(p->draft);
}

/* The costs that drafter i is reckoned with: given, measured, or nominal when they have no say. `sparse` of those that
 * are given is of the first drafter that runs passes; *first: nobody had it yet. */
static mzm_status costs_of(mzm_generation *g, int i, bool *first, mzm_costs *out)
{
	const mzm_costs *given = g->p->costs;
	bool passes = g->drafter[i].d->ops->cost != NULL;
	if (reckons(g->p) && !given)
		return measured_costs(g, i, out);
	*out = reckons(g->p) ? *given : (mzm_costs){0};
	for (int m = 1; !reckons(g->p) && m <= MZM_MAX_PERIOD; m++)
		out->check[m] = 1;
	if (out->draft[g->drafter[i].index] > 0)
		out->sparse = out->draft[g->drafter[i].index];
	else if (!(*first && passes && out->sparse > 0))
		out->sparse = mzm_drafter_cost(g->drafter[i].d);
	*first = *first && !passes;
	return MZM_OK;
}

/* What the generation reports: of the first drafter, or the first that runs passes, and beside it what each costs. */
static void report_costs(mzm_gen_result *r, const mzm_costs *costs, int index, bool passes)
{
	float draft[MZM_MAX_DRAFTERS];
	bool any = false;
	memcpy(draft, r->costs.draft, sizeof draft);
	for (int i = 0; i < MZM_MAX_DRAFTERS; i++)
		any = any || draft[i] > 0;
	if (passes)
		draft[index] = costs->sparse;
	if (!any)
		r->costs = *costs;
	memcpy(r->costs.draft, draft, sizeof draft);
}

mzm_status mzm_gen_settle_costs(mzm_generation *g)
{
	bool first = true;
	for (int i = 0; i < g->n_drafters; i++) {
		mzm_gen_drafter *slot = &g->drafter[i];
		mzm_costs costs;
		MZM_TRY(costs_of(g, i, &first, &costs));
		mzm_monitor_set_costs(slot->monitor, &costs);
		slot->cost = costs.sparse;
		if (reckons(g->p))
			report_costs(g->r, &costs, slot->index, slot->d->ops->cost != NULL);
		mzm_draft_policy_expect(&g->s->policy, slot->index, expected_rate(g, slot, &costs));
	}
	return MZM_OK;
}
