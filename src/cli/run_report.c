/* run_report.c - the numbers of one generation, as JSON and as three lines for people; see run.h. */
#include "run.h"

#include <math.h>
#include <string.h>

json_t *mzm_run_ids_json(const int32_t *ids, size_t n)
{
	json_t *array = json_array();
	for (size_t i = 0; array && i < n; i++)
		json_array_append_new(array, json_integer(ids[i]));
	return array;
}

static json_t *model_json(const mzm_run *run)
{
	const mzm_model_info *info = mzm_model_get_info(run->model);
	return json_pack("{s:o, s:s, s:s, s:s, s:I, s:s, s:i, s:i}", "path",
			 mzm_cli_json_text(info->path, strlen(info->path)), "hash", info->hash, "arch", info->arch,
			 "dtype", info->dtype, "parameters", (json_int_t)info->n_params, "isa", info->isa, "threads",
			 (int)mzm_session_n_threads(run->session), "ctx", (int)mzm_session_n_ctx(run->session));
}

json_t *mzm_run_head_json(const mzm_run *run, const mzm_gen_params *gen)
{
	return json_pack("{s:s, s:o, s:o, s:o, s:o}", "version", mzm_version(), "model", model_json(run), "memory",
			 mzm_cli_plan_json(mzm_model_get_plan(run->model)), "settings", mzm_cli_settings_json(gen),
			 "prompt_tokens", mzm_run_ids_json(run->ids, run->n_ids));
}

int mzm_run_answer_json(json_t *object, const mzm_gen_result *r, const mzm_gen_params *gen, const char *text, size_t n)
{
	int bad = json_object_set_new(object, "tokens", mzm_run_ids_json(r->tokens, (size_t)r->n_tokens));
	bad |= json_object_set_new(object, "text", mzm_cli_json_text(text ? text : "", n));
	bad |= json_object_set_new(object, "finish", json_string(mzm_finish_name(r->finish)));
	return bad | mzm_cli_counters_json(object, r, gen, 1);
}

static const char *or_dash(char buf[32], int decimals, double x)
{
	if (isfinite(x))
		snprintf(buf, 32, "%.*f", decimals, x);
	else
		snprintf(buf, 32, "-");
	return buf;
}

static const char *period_text(char buf[32], const mzm_gen_params *gen)
{
	if (gen->period > 0)
		snprintf(buf, 32, "%d", gen->period);
	else
		snprintf(buf, 32, "auto");
	return buf;
}

/* Who wrote the drafts, where it was not sparse passes alone, and how much of each was kept. */
static void print_drafters(const mzm_gen_result *r, const mzm_gen_params *gen)
{
	if (r->n_drafters == 0 || strcmp(gen->draft, "sparse") == 0)
		return;
	fprintf(stderr, "\ndrafts:");
	for (int32_t i = 0; i < r->n_drafters; i++) {
		const mzm_draft_stats *d = &r->drafts[i];
		fprintf(stderr, "%s %s %lld of %lld tokens kept in %d checks", i ? "," : "", d->name,
			(long long)d->n_accepted, (long long)d->n_drafted, (int)d->n_rounds);
	}
}

void mzm_run_print_stats(const mzm_gen_result *r, const mzm_gen_params *gen)
{
	mzm_cli_derived d = mzm_cli_derive(r, gen, 1);
	char a[32], b[32], c[32];
	fprintf(stderr, "prompt %d tokens", r->n_prompt);
	if (r->n_kept > 0)
		fprintf(stderr, " (%d of them still known)", r->n_kept);
	fprintf(stderr, ", %s tok/s; %d new tokens, %s tok/s; ended by %s\n", or_dash(a, 1, d.prefill_tok_per_s),
		r->n_tokens, or_dash(b, 1, d.tok_per_s), mzm_finish_name(r->finish));
	fprintf(stderr, "%s", mzm_mode_name(gen->mode));
	if (gen->mode == MZM_MODE_SPARSE || (r->n_drafters > 0 && strcmp(gen->draft, "sparse") == 0))
		fprintf(stderr, ", %s keep %.3g", gen->predictor, (double)gen->keep);
	if (r->n_checks > 0)
		fprintf(stderr,
			", period %s: %d checks, %s tokens a check (%s without the last), %d corrected, %d rolled back",
			period_text(c, gen), r->n_checks, or_dash(a, 2, d.aal), or_dash(b, 2, d.aal_paper),
			r->n_corrected, r->n_rolled_back);
	print_drafters(r, gen);
	fprintf(stderr, "\n%d draft and %d dense passes, density %s, work per token %s", r->n_sparse_passes,
		r->n_dense_passes, or_dash(a, 3, r->density), or_dash(b, 3, d.work_per_token));
	fprintf(stderr, "\n");
	mzm_cli_print_streaming(r);
}
