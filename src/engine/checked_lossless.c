/* checked_lossless.c - lossless mode at a temperature: what a generation keeps of its drafts to judge them by, and the
 * random numbers that it does so with. The rule is in decode/lossless.h; greedily, the mode is exact mode. */
#include "engine/generate_impl.h"

#include "base/carve.h"
#include "base/rng.h"

static bool draws(const mzm_gen_params *p)
{
	return p->mode == MZM_MODE_LOSSLESS && p->temp > 0;
}

/* Lines that are there at once each have weights; where a round has one line, drafters share them. */
static void lossless_layout(mzm_gen_lossless *l, const mzm_gen_params *p, int32_t n_vocab, mzm_carve *c)
{
	int list[MZM_MAX_DRAFTERS], n = p->draft ? mzm_drafter_list(list, p->draft) : 0;
	size_t rows = (size_t)(p->period ? p->period : MZM_MAX_PERIOD) - 1;
	bool share = n > 0 && mzm_draft_is_auto(p->draft);
	l->p = MZM_CARVE(c, float, n_vocab);
	l->place.left = MZM_CARVE(c, double, n_vocab);
	for (int i = 0; i < n; i++) {
		if (!share && !mzm_drafter_at(list[i])->runs_passes)
			continue;
		bool first = !share || i == 0;
		l->q[i] = first ? mzm_carve_take(c, rows, (size_t)n_vocab * sizeof *l->q[i]) : l->q[0];
		l->q_total[i] = first ? MZM_CARVE(c, double, rows) : l->q_total[0];
	}
}

uint64_t mzm_gen_lossless_bytes(const mzm_gen_params *p, int32_t n_vocab)
{
	mzm_gen_lossless shape = {0};
	mzm_carve c = {0};
	if (!draws(p))
		return 0;
	MZM_CARVE(&c, mzm_gen_lossless, 1);
	lossless_layout(&shape, p, n_vocab, &c);
	return c.overflow ? UINT64_MAX : c.used;
}

mzm_status mzm_gen_prepare_lossless(mzm_generation *g)
{
	int32_t n_vocab = g->s->model->weights->cfg.n_vocab;
	uint64_t bytes = mzm_gen_lossless_bytes(g->p, n_vocab);
	mzm_carve c = {0};
	if (bytes == 0)
		return MZM_OK;
	MZM_TRY(mzm_model_reserve(g->s->model, bytes, "lossless sampling", g->err));
	mzm_status st = mzm_alloc_for((void **)&c.base, bytes, "distributions of drafts", g->err);
	if (st != MZM_OK) {
		mzm_model_release(g->s->model, bytes);
		return st;
	}
	g->lossless = MZM_CARVE(&c, mzm_gen_lossless, 1);
	g->lossless->reserved = bytes;
	g->lossless->place.n_vocab = n_vocab;
	lossless_layout(g->lossless, g->p, n_vocab, &c);
	for (int32_t i = 0; i < g->n; i++)
		g->lossless->prompt = mzm_rng_mix(g->lossless->prompt ^ (uint64_t)g->s->ids[i]);
	return MZM_OK;
}

void mzm_gen_free_lossless(mzm_generation *g)
{
	if (g->lossless)
		mzm_model_release(g->s->model, g->lossless->reserved);
	mzm_free(g->lossless);
}

static uint64_t round_key(const mzm_generation *g)
{
	return g->lossless->prompt + (uint64_t)g->r->n_checks;
}

void mzm_gen_lossless_job(const mzm_generation *g, int i, mzm_draft_job *job)
{
	job->q = g->lossless->q[i];
	job->q_total = g->lossless->q_total[i];
	job->round = round_key(g);
	job->line = i;
}

void mzm_gen_lossless_begin(mzm_generation *g, const float *logits)
{
	mzm_gen_lossless *l = g->lossless;
	mzm_lossless_begin(&l->place, l->p, mzm_sampler_weights(g->s->sampler, l->p, logits));
}

bool mzm_gen_lossless_stands(mzm_generation *g, int i, int32_t k, int32_t id)
{
	mzm_gen_lossless *l = g->lossless;
	const float *q = l->q[i] ? l->q[i] + (size_t)k * (size_t)l->place.n_vocab : NULL;
	double u = mzm_sampler_unit(g->s->sampler, MZM_FOR_ACCEPT, g->n + k, round_key(g), i);
	return mzm_lossless_judge(&l->place, id, q, q ? l->q_total[i][k] : 0, u);
}

int32_t mzm_gen_lossless_draw(mzm_generation *g, int32_t k, bool bonus)
{
	mzm_purpose purpose = bonus ? MZM_FOR_BONUS : MZM_FOR_RESIDUAL;
	return mzm_lossless_draw(&g->lossless->place,
				 mzm_sampler_unit(g->s->sampler, purpose, g->n + k, round_key(g), 0));
}
