/* params.c - generation parameters: defaults, names, and the checks that need no model. */
#include "engine/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode/skip_set.h"
#include "format/tokenizer_utf8.h"

static const char *const mode_names[] = {"dense", "sparse", "sirius", "exact", "lossless"};
static const char *const accept_names[] = {"sirius", "reference", "relative", "typical"};
static const char *const ablation_names[] = {"kv-rewrite", "rollback", "bonus"}; /* of bit 0, 1, 2 */
static const char *const path_names[] = {"longest", "likeliest", "jump"};
static const char *const kind_names[] = {"first", "plain", "accepted", "corrected", "bonus", "rolled_back"};
static const char *const finish_names[] = {"eos", "stop", "length", "context", "cancelled"};

#define COUNT(names) (sizeof(names) / sizeof *(names))

static const char *name_of(const char *const *names, size_t n, unsigned i)
{
	return i < n ? names[i] : "?";
}

const char *mzm_mode_name(mzm_mode mode)
{
	return name_of(mode_names, COUNT(mode_names), (unsigned)mode);
}

const char *mzm_accept_name(mzm_accept accept)
{
	return name_of(accept_names, COUNT(accept_names), (unsigned)accept);
}

const char *mzm_tree_path_name(mzm_tree_path path)
{
	return name_of(path_names, COUNT(path_names), (unsigned)path);
}

const char *mzm_token_kind_name(mzm_token_kind kind)
{
	return name_of(kind_names, COUNT(kind_names), (unsigned)kind);
}

const char *mzm_finish_name(mzm_finish finish)
{
	return name_of(finish_names, COUNT(finish_names), (unsigned)finish);
}

mzm_status mzm_mode_parse(mzm_mode *out, const char *name, mzm_err *err)
{
	for (unsigned i = 0; i < COUNT(mode_names); i++) {
		if (strcmp(name, mode_names[i]) == 0) {
			*out = (mzm_mode)i;
			return MZM_OK;
		}
	}
	return mzm_fail(err, MZM_EARG, "unknown mode \"%s\"; there are dense, sparse, sirius, exact and lossless",
			name);
}

mzm_status mzm_accept_parse(mzm_accept *out, const char *name, mzm_err *err)
{
	for (unsigned i = 0; i < COUNT(accept_names); i++) {
		if (strcmp(name, accept_names[i]) == 0) {
			*out = (mzm_accept)i;
			return MZM_OK;
		}
	}
	return mzm_fail(err, MZM_EARG, "unknown rule \"%s\"; there are sirius, reference, relative and typical", name);
}

void mzm_ablation_print(char out[64], uint32_t ablate)
{
	int n = snprintf(out, 64, "%s", ablate ? "" : "none");
	for (unsigned i = 0; i < COUNT(ablation_names); i++) {
		if (ablate & 1u << i)
			n += snprintf(out + n, 64 - (size_t)n, "%s%s", n ? "," : "", ablation_names[i]);
	}
}

mzm_status mzm_ablation_parse(uint32_t *out, const char *names, mzm_err *err)
{
	*out = 0;
	if (strcmp(names, "none") == 0)
		return MZM_OK;
	for (;;) {
		size_t n = strcspn(names, ",");
		unsigned i = 0;
		while (i < COUNT(ablation_names) &&
		       (strlen(ablation_names[i]) != n || strncmp(names, ablation_names[i], n) != 0))
			i++;
		if (i == COUNT(ablation_names))
			return mzm_fail(err, MZM_EARG,
					"unknown part \"%.*s\"; there are kv-rewrite, rollback and bonus",
					n < 100 ? (int)n : 100, names);
		*out |= 1u << i;
		if (!names[n])
			return MZM_OK;
		names += n + 1;
	}
}

mzm_status mzm_tree_path_parse(mzm_tree_path *out, const char *name, mzm_err *err)
{
	for (unsigned i = 0; i < COUNT(path_names); i++) {
		if (strcmp(name, path_names[i]) == 0) {
			*out = (mzm_tree_path)i;
			return MZM_OK;
		}
	}
	return mzm_fail(err, MZM_EARG, "unknown path \"%s\"; there are longest, likeliest and jump", name);
}

mzm_gen_params mzm_gen_params_default(void)
{
	return (mzm_gen_params){
		.mode = MZM_MODE_DENSE, .draft = "sparse", .jacobi = mzm_jacobi_form_at(0),
		.jacobi_seed = mzm_jacobi_seed_at(0), .skip = MZM_SKIP_AUTO, .skip_keep = 1, .draft_exit = -1,
		.predictor = "griffin", .keep = 0.5f, .attn_keep = 1,
		.period = 16,
		.accept = MZM_ACCEPT_SIRIUS, .threshold = 0.1f, .check_temp = 0.6f, .tree_width = 1,
		.temp = 0, .top_k = 0, .top_p = 1, .min_p = 0, .repeat_penalty = 1, .repeat_last = 64,
	};
}

static mzm_status check_range(const char *name, double value, double lo, double hi, mzm_err *err)
{
	if (!(value >= lo && value <= hi))
		return mzm_fail(err, MZM_EARG, "%s is %g; it must be within %g .. %g", name, value, lo, hi);
	return MZM_OK;
}

static mzm_status check_sampling(const mzm_gen_params *p, mzm_err *err)
{
	MZM_TRY(check_range("temp", p->temp, 0, 100, err));
	MZM_TRY(check_range("top-k", p->top_k, 0, MZM_MAX_VOCAB, err));
	MZM_TRY(check_range("top-p", p->top_p, 0, 1, err));
	MZM_TRY(check_range("min-p", p->min_p, 0, 1, err));
	MZM_TRY(check_range("repeat-penalty", p->repeat_penalty, 0.01, 100, err));
	MZM_TRY(check_range("repeat-last", p->repeat_last, 0, MZM_MAX_CTX, err));
	bool sampling = p->temp > 0 || p->top_k > 0 || p->top_p < 1 || p->min_p > 0;
	if (p->mode == MZM_MODE_SIRIUS && sampling)
		return mzm_fail(err, MZM_EUNDEFINED,
				"sampling (temp, top-k, top-p, min-p) is not defined in sirius mode, whose threshold "
				"presumes a greedy draft; use exact, lossless, dense or sparse mode");
	if (p->mode == MZM_MODE_SIRIUS && p->accept == MZM_ACCEPT_REFERENCE && p->repeat_penalty != 1)
		return mzm_fail(err, MZM_EUNDEFINED,
				"a repetition penalty is not defined with the published rule (reference)");
	return MZM_OK;
}

static mzm_status check_tree(const mzm_gen_params *p, mzm_err *err)
{
	MZM_TRY(check_range("tree", p->tree_width, 1, MZM_MAX_TREE_WIDTH, err));
	if (p->tree_width == 1 || !mzm_verifier_for(p->mode)) /* only checks have a use for it */
		return MZM_OK;
	if (strcmp(p->draft, "sparse") != 0)
		return mzm_fail(err, MZM_EUNDEFINED, "only sparse drafts grow trees (tree), not \"%s\"", p->draft);
	if (p->temp > 0)
		return mzm_fail(err, MZM_EUNDEFINED,
				"sampling (temp) is not defined for trees of drafts (tree), whose lines are the "
				"likeliest ones");
	if (p->ablate)
		return mzm_fail(err, MZM_EUNDEFINED,
				"trees of drafts (tree) leave no part of their checks out (ablate)");
	return MZM_OK;
}

static mzm_status check_stops(const mzm_gen_params *p, mzm_err *err)
{
	MZM_TRY(check_range("stop strings", p->n_stop, 0, 10000, err));
	for (int32_t i = 0; i < p->n_stop; i++) {
		if (!p->stop || !p->stop[i] || !*p->stop[i])
			return mzm_fail(err, MZM_EARG, "stop string %d is empty", i + 1);
		size_t len = strlen(p->stop[i]);
		if (mzm_utf8_valid(p->stop[i], len) != len) /* text is released in whole characters */
			return mzm_fail(err, MZM_EARG, "stop string %d is not UTF-8", i + 1);
	}
	return MZM_OK;
}

/* Costs handed in for the monitor, which divides by them. */
static mzm_status check_costs(const mzm_costs *c, mzm_err *err)
{
	MZM_TRY(check_range("cost of a sparse pass", (double)c->sparse, 1e-6, 1e6, err));
	for (int i = 1; i <= MZM_MAX_PERIOD; i++)
		MZM_TRY(check_range("cost of a check", (double)c->check[i], 1e-6, 1e6, err));
	for (int i = 0; i < MZM_MAX_DRAFTERS; i++)
		if (c->draft[i] != 0)
			MZM_TRY(check_range("cost of a draft pass", (double)c->draft[i], 1e-6, 1e6, err));
	return MZM_OK;
}

static mzm_status check_draft(const mzm_gen_params *p, mzm_err *err)
{
	int list[MZM_MAX_DRAFTERS];
	char names[256] = "";
	if (p->draft && mzm_drafter_list(list, p->draft) > 0)
		return MZM_OK;
	for (int i = 0, n = 0; mzm_drafter_at(i) && n < (int)sizeof names; i++)
		n += snprintf(names + n, sizeof names - (size_t)n, "%s%s", i ? ", " : "", mzm_drafter_at(i)->name);
	return mzm_fail(err, MZM_EARG,
			"unknown drafter \"%s\"; there are %s, several of them with + between them, and auto",
			p->draft ? p->draft : "", names);
}

/* ---- drafts that skip layers; when drafts of passes end ---- */

mzm_status mzm_draft_exit_parse(float *out, const char *text, mzm_err *err)
{
	char *end;
	*out = -1;
	if (strcmp(text, "adaptive") == 0)
		return MZM_OK;
	*out = strcmp(text, "off") == 0 ? 0 : strtof(text, &end);
	if (*out == 0 && strcmp(text, "off") == 0)
		return MZM_OK;
	if (end == text || *end || !(*out > 0 && *out <= 1))
		return mzm_fail(err, MZM_EARG,
				"exit: \"%.40s\" is neither adaptive nor off nor a probability above 0 and up to 1",
				text);
	return MZM_OK;
}

void mzm_draft_exit_print(char out[32], float draft_exit)
{
	if (draft_exit > 0)
		snprintf(out, 32, "%.9g", (double)draft_exit);
	else
		snprintf(out, 32, "%s", draft_exit < 0 ? "adaptive" : "off");
}

/* Sparse drafts and sparse passes of "skip" have one predictor. */
static mzm_status check_skip(const mzm_gen_params *p, mzm_err *err)
{
	mzm_gen_params alone = *p;
	alone.skip_keep = 1;
	if (p->skip && strcmp(p->skip, MZM_SKIP_AUTO) != 0)
		MZM_TRY(mzm_skip_parse(NULL, 0, p->skip, err));
	MZM_TRY(check_range("skip-keep", p->skip_keep, 0, 1, err));
	if (p->draft_exit != -1)
		MZM_TRY(check_range("exit", p->draft_exit, 0, 1, err));
	if (p->skip_keep > 0 && p->skip_keep < 1 && p->skip_keep != p->keep && mzm_verifier_for(p->mode) &&
	    mzm_gen_needs_predictor(&alone))
		return mzm_fail(err, MZM_EUNDEFINED,
				"beside sparse drafts, those that skip layers keep as many neurons (skip-keep) as "
				"these (keep), or all");
	return MZM_OK;
}

static bool has_name(const char *(*at)(int i), const char *name)
{
	int i = 0;
	while (name && at(i) && strcmp(at(i), name) != 0)
		i++;
	return !name || at(i);
}

static mzm_status check_jacobi(const mzm_gen_params *p, mzm_err *err)
{
	if (!has_name(mzm_jacobi_form_at, p->jacobi))
		return mzm_fail(err, MZM_EARG, "unknown form \"%s\" (jacobi); there are slide and block", p->jacobi);
	if (!has_name(mzm_jacobi_seed_at, p->jacobi_seed))
		return mzm_fail(err, MZM_EARG, "unknown guesses \"%s\" (jacobi-seed); there are prompt, ngram, pool "
				"and sparse", p->jacobi_seed);
	return MZM_OK;
}

mzm_status mzm_gen_params_check(const mzm_gen_params *p, mzm_err *err)
{
	mzm_gen_params defaults = mzm_gen_params_default();
	if (!p)
		p = &defaults;
	if ((unsigned)p->mode >= COUNT(mode_names) || (unsigned)p->accept >= COUNT(accept_names) ||
	    (unsigned)p->tree_path >= COUNT(path_names))
		return mzm_fail(err, MZM_EARG, "unknown mode, acceptance rule or path");
	MZM_TRY(check_draft(p, err));
	MZM_TRY(check_jacobi(p, err));
	MZM_TRY(check_skip(p, err));
	if (!p->predictor || !mzm_predictor_find(p->predictor))
		return mzm_fail(err, MZM_EARG, "unknown predictor \"%s\"", p->predictor ? p->predictor : "");
	if (!(p->keep > 0 && p->keep <= 1))
		return mzm_fail(err, MZM_EARG, "keep is %g; it must be above 0 and at most 1", (double)p->keep);
	MZM_TRY(check_range("attn-keep", (double)p->attn_keep, 0, 1, err));
	MZM_TRY(check_range("period", p->period, 0, MZM_MAX_PERIOD, err));
	MZM_TRY(check_range("check-below", p->check_below, 0, 1, err));
	MZM_TRY(check_range("threshold", p->threshold, 0, 1, err));
	MZM_TRY(check_range("check-temp", p->check_temp, 0.01, 100, err));
	MZM_TRY(check_range("ablate", p->ablate, 0, (1 << COUNT(ablation_names)) - 1, err));
	if (p->ablate && (p->mode == MZM_MODE_EXACT || p->mode == MZM_MODE_LOSSLESS))
		return mzm_fail(err, MZM_EUNDEFINED, "%s mode leaves no part of its checks out (ablate); use sirius",
				mzm_mode_name(p->mode));
	MZM_TRY(check_range("max-tokens", p->max_tokens, 0, MZM_MAX_CTX, err));
	if (p->ablate && strcmp(p->draft, "sparse") != 0)
		return mzm_fail(err, MZM_EUNDEFINED, "only checks of sparse drafts leave a part out (ablate)");
	MZM_TRY(check_stops(p, err));
	if (p->costs && (p->period == 0 || mzm_draft_is_auto(p->draft)))
		MZM_TRY(check_costs(p->costs, err));
	MZM_TRY(check_tree(p, err));
	return check_sampling(p, err);
}
