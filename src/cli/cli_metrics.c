/* cli_metrics.c - the numbers of a generation, derived and written as JSON; see cli.h.
 *
 * One place for every ratio, so that run, compare and eval print the same thing under the same name. */
#include "cli.h"

#include <sys/resource.h>

#include <math.h>

static double ratio(double a, double b)
{
	return b > 0 ? a / b : (double)NAN;
}

/* The paper's formula; without checks, what a token costs is one pass of the mode's kind. */
static double effective_density(const mzm_gen_result *r, const mzm_gen_params *gen, double aal_paper)
{
	if (gen->mode == MZM_MODE_DENSE)
		return 1;
	if (gen->mode == MZM_MODE_SPARSE)
		return r->density;
	if (gen->period == 0 || gen->check_below > 0)
		return (double)NAN; /* it needs one period */
	return ((gen->period - 1) * r->density + 1) / aal_paper;
}

mzm_cli_derived mzm_cli_derive(const mzm_gen_result *r, const mzm_gen_params *gen, int32_t n_answers)
{
	mzm_cli_derived d;
	double n_decoded = (double)r->n_tokens - n_answers; /* an answer's first token is the prefill's */
	d.aal = ratio(r->n_gained, r->n_checks);
	d.aal_paper = ratio(r->n_gained_paper, r->n_checks_paper);
	d.effective_density = effective_density(r, gen, d.aal_paper);
	d.work_per_token = ratio(r->sparse_work + r->n_dense_passes, n_decoded);
	d.w_nodes = ratio(r->sparse_node_work + (double)r->n_dense_positions, n_decoded);
	d.prefill_tok_per_s = ratio((r->n_prompt - r->n_kept) * 1e9, (double)r->prefill_ns);
	d.tok_per_s = n_decoded > 0 ? ratio(n_decoded * 1e9, (double)r->decode_ns) : (double)NAN;
	return d;
}

void mzm_cli_counters_add(mzm_gen_result *sum, const mzm_gen_result *r)
{
	sum->n_prompt += r->n_prompt;
	sum->n_kept += r->n_kept;
	sum->n_tokens += r->n_tokens;
	sum->n_checks += r->n_checks;
	sum->n_gained += r->n_gained;
	sum->n_checks_paper += r->n_checks_paper;
	sum->n_gained_paper += r->n_gained_paper;
	sum->n_accepted += r->n_accepted;
	sum->n_corrected += r->n_corrected;
	sum->n_bonus += r->n_bonus;
	sum->n_rolled_back += r->n_rolled_back;
	sum->n_sparse_passes += r->n_sparse_passes;
	sum->n_dense_passes += r->n_dense_passes;
	sum->n_dense_positions += r->n_dense_positions;
	sum->n_sparse_positions += r->n_sparse_positions;
	sum->sparse_work += r->sparse_work;
	sum->sparse_node_work += r->sparse_node_work;
	sum->n_nodes += r->n_nodes;
	sum->n_live += r->n_live;
	sum->n_dead += r->n_dead;
	sum->n_cut += r->n_cut;
	sum->density = r->density;
	sum->read_density = r->read_density;
	sum->prefill_ns += r->prefill_ns;
	sum->decode_ns += r->decode_ns;
	sum->bytes_read += r->bytes_read;
	sum->read_ns += r->read_ns;
	sum->unpack_ns += r->unpack_ns;
	sum->wait_ns += r->wait_ns;
	sum->costs = r->costs;
}

static json_t *costs_json(const mzm_costs *costs)
{
	json_t *check = json_array(), *draft = json_object();
	for (int m = 1; check && m <= MZM_MAX_PERIOD; m++)
		json_array_append_new(check, mzm_cli_json_float(costs->check[m]));
	for (int i = 0; i < MZM_MAX_DRAFTERS && mzm_drafter_name(i); i++)
		if (costs->draft[i] > 0)
			json_object_set_new(draft, mzm_drafter_name(i), mzm_cli_json_float(costs->draft[i]));
	return json_pack("{s:o, s:o, s:o, s:o}", "sparse", mzm_cli_json_float(costs->sparse), "check", check,
			 "dense_ms", mzm_cli_json_float(costs->dense_ms), "draft", draft);
}

int64_t mzm_cli_peak_rss(void)
{
	struct rusage usage;
	return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

json_t *mzm_cli_plan_json(const mzm_plan *p)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:b}", "store", p->store,
			 "ram_bytes", (json_int_t)p->ram_bytes, "needed_bytes", (json_int_t)p->needed_bytes,
			 "smallest_bytes", (json_int_t)p->smallest_bytes, "process_bytes", (json_int_t)p->process_bytes,
			 "session_bytes", (json_int_t)p->session_bytes, "weight_bytes", (json_int_t)p->weight_bytes,
			 "draft_bytes", (json_int_t)p->draft_bytes, "held_bytes", (json_int_t)p->held_bytes,
			 "window_bytes", (json_int_t)p->window_bytes, "reader_bytes", (json_int_t)p->reader_bytes,
			 "streamed_bytes", (json_int_t)p->streamed_bytes, "n_held", (int)p->n_held, "draft_on_disk",
			 (int)p->draft_on_disk);
}

/* What each drafter proposed, and how much of it was kept. */
static json_t *drafters_json(const mzm_gen_result *r)
{
	json_t *list = json_array();
	for (int32_t i = 0; list && i < r->n_drafters; i++) {
		const mzm_draft_stats *d = &r->drafts[i];
		json_array_append_new(list, json_pack("{s:s, s:i, s:I, s:I}", "name", d->name, "checks",
						      (int)d->n_rounds, "drafted", (json_int_t)d->n_drafted,
						      "accepted", (json_int_t)d->n_accepted));
	}
	return list;
}

int mzm_cli_counters_json(json_t *object, const mzm_gen_result *r, const mzm_gen_params *gen, int32_t n_answers)
{
	mzm_cli_derived d = mzm_cli_derive(r, gen, n_answers);
	int bad = 0;
	bad |= json_object_set_new(object, "checks", json_integer(r->n_checks));
	bad |= json_object_set_new(object, "aal", mzm_cli_json_double(d.aal));
	bad |= json_object_set_new(object, "aal_paper", mzm_cli_json_double(d.aal_paper));
	bad |= json_object_set_new(object, "density", mzm_cli_json_double(r->density));
	bad |= json_object_set_new(object, "read_density", mzm_cli_json_double(r->read_density));
	bad |= json_object_set_new(object, "effective_density", mzm_cli_json_double(d.effective_density));
	bad |= json_object_set_new(object, "work_per_token", mzm_cli_json_double(d.work_per_token));
	bad |= json_object_set_new(object, "w_nodes", mzm_cli_json_double(d.w_nodes));
	bad |= json_object_set_new(object, "sparse_passes", json_integer(r->n_sparse_passes));
	bad |= json_object_set_new(object, "sparse_positions", json_integer(r->n_sparse_positions));
	bad |= json_object_set_new(object, "dense_passes", json_integer(r->n_dense_passes));
	bad |= json_object_set_new(object, "dense_positions", json_integer(r->n_dense_positions));
	bad |= json_object_set_new(object, "nodes", json_integer(r->n_nodes));
	bad |= json_object_set_new(object, "live_nodes", json_integer(r->n_live));
	bad |= json_object_set_new(object, "dead_nodes", json_integer(r->n_dead));
	bad |= json_object_set_new(object, "cut_nodes", json_integer(r->n_cut));
	bad |= json_object_set_new(object, "rollback_tokens", json_integer(r->n_rolled_back));
	bad |= json_object_set_new(object, "accepted", json_integer(r->n_accepted));
	bad |= json_object_set_new(object, "corrected", json_integer(r->n_corrected));
	bad |= json_object_set_new(object, "bonus", json_integer(r->n_bonus));
	bad |= json_object_set_new(object, "prefill_ms", mzm_cli_json_double((double)r->prefill_ns * 1e-6));
	bad |= json_object_set_new(object, "decode_ms", mzm_cli_json_double((double)r->decode_ns * 1e-6));
	bad |= json_object_set_new(object, "prefill_tok_per_s", mzm_cli_json_double(d.prefill_tok_per_s));
	bad |= json_object_set_new(object, "tok_per_s", mzm_cli_json_double(d.tok_per_s));
	bad |= json_object_set_new(object, "bytes_read", json_integer((json_int_t)r->bytes_read));
	bad |= json_object_set_new(object, "read_ms", mzm_cli_json_double((double)r->read_ns * 1e-6));
	bad |= json_object_set_new(object, "unpack_ms", mzm_cli_json_double((double)r->unpack_ns * 1e-6));
	bad |= json_object_set_new(object, "wait_ms", mzm_cli_json_double((double)r->wait_ns * 1e-6));
	bad |= json_object_set_new(object, "peak_rss_bytes", json_integer(mzm_cli_peak_rss()));
	if (r->n_drafters > 0)
		bad |= json_object_set_new(object, "drafters", drafters_json(r));
	if (r->costs.dense_ms > 0)
		bad |= json_object_set_new(object, "costs", costs_json(&r->costs));
	return bad ? -1 : 0;
}

json_t *mzm_cli_settings_json(const mzm_gen_params *gen)
{
	json_t *period = gen->period > 0 ? json_integer(gen->period) : json_string("auto");
	char seed_text[24]; /* JSON readers lose integers beyond 63 bits */
	snprintf(seed_text, sizeof seed_text, "%llu", (unsigned long long)gen->seed);
	json_t *seed = gen->seed <= INT64_MAX ? json_integer((json_int_t)gen->seed) : json_string(seed_text);
	char ablate[64];
	mzm_ablation_print(ablate, gen->ablate);
	char exit_text[32];
	mzm_draft_exit_print(exit_text, gen->draft_exit);
	return json_pack("{s:s, s:s, s:s?, s:s?, s:s?, s:o, s:s, s:s?, s:s, s:o, s:o, s:b, s:o, s:o, s:i, s:s, s:s, "
			 "s:o, s:o, s:s, s:o, s:i, s:o, s:o, s:o, s:i, s:o, s:i, s:b}",
			 "mode", mzm_mode_name(gen->mode), "draft", gen->draft, "jacobi", gen->jacobi,
			 "jacobi_seed", gen->jacobi_seed, "skip", gen->skip, "skip_keep",
			 mzm_cli_json_float(gen->skip_keep), "exit", exit_text, "draft_model",
			 gen->draft_model ? mzm_model_get_info(gen->draft_model)->path : NULL, "predictor",
			 gen->predictor, "keep",
			 mzm_cli_json_float(gen->keep), "attn_keep", mzm_cli_json_float(gen->attn_keep), "alloc",
			 !gen->no_alloc, "period", period, "check_below",
			 mzm_cli_json_float(gen->check_below), "tree", (int)gen->tree_width, "tree_path",
			 mzm_tree_path_name(gen->tree_path), "accept", mzm_accept_name(gen->accept),
			 "threshold", mzm_cli_json_float(gen->threshold), "check_temp",
			 mzm_cli_json_float(gen->check_temp), "ablate", ablate, "temp",
			 mzm_cli_json_float(gen->temp), "top_k", (int)gen->top_k, "top_p",
			 mzm_cli_json_float(gen->top_p), "min_p", mzm_cli_json_float(gen->min_p), "repeat_penalty",
			 mzm_cli_json_float(gen->repeat_penalty),
			 "repeat_last", (int)gen->repeat_last, "seed", seed, "max_tokens", (int)gen->max_tokens,
			 "ignore_eos", (int)gen->ignore_eos);
}
