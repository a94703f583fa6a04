/* json.c - an evaluation as JSON: what it ran with, on what, and a row a mode. NaN becomes null. */
#include <math.h>
#include <string.h>

#include "eval/run.h"
#include "eval/util.h"

#define SET(key, value)  bad |= json_object_set_new(o, key, value)
#define INT(key, value)  SET(key, json_integer((json_int_t)(value)))
#define REAL(key, value) SET(key, mze_json_real(value))

static json_t *checked(json_t *o, int bad)
{
	if (!bad)
		return o;
	json_decref(o);
	return NULL;
}

static json_t *interval_json(mze_interval x)
{
	json_t *a = json_array();
	int bad = !a || json_array_append_new(a, mze_json_real(x.lo)) || json_array_append_new(a, mze_json_real(x.hi));
	return checked(a, bad);
}

static json_t *filter_json(int32_t n_right, int32_t n, mze_interval ci, double se, int32_t n_invalid)
{
	json_t *o = json_object();
	int bad = !o;
	INT("correct", n_right);
	REAL("accuracy", n ? (double)n_right / n : (double)NAN);
	SET("ci95", interval_json(ci));
	REAL("se", se);
	INT("invalid", n_invalid);
	return checked(o, bad);
}

static json_t *finish_json(const mze_row *r)
{
	json_t *o = json_object();
	int bad = !o;
	for (mzm_finish f = MZM_FINISH_EOS; f < MZM_FINISH_CANCELLED; f++)
		INT(mzm_finish_name(f), r->n_finish[f]);
	return checked(o, bad);
}

static json_t *mcnemar_json(const mze_mcnemar *t, double p_holm)
{
	json_t *o = json_object();
	int bad = !o;
	INT("b", t->b);
	INT("c", t->c);
	REAL("p", t->p);
	if (isfinite(p_holm))
		REAL("p_holm", p_holm);
	REAL("effect", t->effect);
	REAL("se", t->se);
	return checked(o, bad);
}

static json_t *difference_json(const mze_row *r)
{
	json_t *o = json_object();
	int bad = !o;
	INT("n", r->n - r->n_same);
	REAL("min", r->diff_min);
	REAL("median", r->diff_median);
	REAL("mean", r->diff_mean);
	return checked(o, bad);
}

static json_t *latency_json(const mze_row *r)
{
	json_t *o = json_object();
	int bad = !o;
	REAL("mean", r->ms_mean);
	SET("ci95", interval_json(r->ms_ci));
	REAL("p10", r->ms_p10);
	REAL("median", r->ms_median);
	REAL("p90", r->ms_p90);
	return checked(o, bad);
}

static int set_accuracy(json_t *o, const mze_row *r)
{
	int bad = 0;
	bool compared = r->has_dense && isfinite(r->p_holm);
	INT("n", r->n);
	INT("correct", r->n_strict);
	REAL("accuracy", r->n ? (double)r->n_strict / r->n : (double)NAN);
	SET("ci95", interval_json(r->strict_ci));
	SET("strict", filter_json(r->n_strict, r->n, r->strict_ci, r->strict_se, r->n_invalid_strict));
	SET("flexible", filter_json(r->n_flexible, r->n, r->flexible_ci, r->flexible_se, r->n_invalid_flexible));
	INT("strict_cut", r->n_cut);
	SET("finish", finish_json(r));
	REAL("same_as_dense", r->has_dense && r->n ? (double)r->n_same / r->n : (double)NAN);
	SET("mcnemar", compared ? mcnemar_json(&r->strict_vs, r->p_holm) : json_null());
	SET("mcnemar_flexible", compared ? mcnemar_json(&r->flexible_vs, (double)NAN) : json_null());
	SET("first_difference", compared ? difference_json(r) : json_null());
	return bad;
}

static int set_work(json_t *o, const mze_row *r)
{
	int bad = 0;
	INT("checks", r->n_checks);
	INT("gained", r->n_gained);
	INT("checks_paper", r->n_checks_paper);
	INT("gained_paper", r->n_gained_paper);
	REAL("aal", r->aal);
	REAL("aal_paper", r->aal_paper);
	REAL("density", r->density);
	REAL("read_density", r->read_density);
	REAL("effective_density", r->effective_density);
	REAL("work_per_token", r->work_per_token);
	REAL("w_nodes", r->w_nodes);
	INT("tokens", r->n_tok);
	INT("prompt_tokens", r->n_prompt_tok);
	INT("sparse_passes", r->n_sparse_passes);
	INT("sparse_positions", r->n_sparse_positions);
	INT("dense_passes", r->n_dense_passes);
	INT("dense_positions", r->n_dense_positions);
	REAL("sparse_work", r->sparse_work);
	INT("nodes", r->n_nodes);
	INT("live_nodes", r->n_live_nodes);
	INT("dead_nodes", r->n_dead_nodes);
	INT("cut_nodes", r->n_cut_nodes);
	INT("accepted", r->n_accepted);
	INT("corrected", r->n_corrected);
	INT("bonus", r->n_bonus);
	INT("rollback_tokens", r->n_rolled_back);
	REAL("corrections_per_100_tokens", r->n_tok ? 100 * (double)r->n_corrected / (double)r->n_tok : (double)NAN);
	return bad;
}

/* Bins without a token are left out. */
static json_t *monitor_json(const mze_reliability *m)
{
	json_t *o = json_object(), *bins = json_array();
	int bad = !o || !bins;
	for (int i = 0; bins && i < MZE_N_BINS; i++) {
		const mze_bin *b = &m->bin[i];
		if (b->n > 0)
			bad |= json_array_append_new(bins, json_pack("{s:o, s:o, s:I}", "confidence",
								     mze_json_real(b->confidence), "accepted",
								     mze_json_real(b->accepted), "n", (json_int_t)b->n));
	}
	INT("judged", m->n);
	REAL("auc", m->auc);
	REAL("brier", m->brier);
	SET("bins", bins);
	return checked(o, bad);
}

static int set_speed(json_t *o, const mze_eval *e, const mze_row *r)
{
	int bad = 0;
	REAL("prefill_tok_per_s", r->prefill_tok_per_s);
	REAL("tok_per_s", r->tok_per_s);
	REAL("tok_per_s_aggregate", r->tok_per_s_aggregate);
	SET("ms_per_token", latency_json(r));
	REAL("prefill_s", (double)r->prefill_ns / 1e9);
	REAL("decode_s", (double)r->decode_ns / 1e9);
	REAL("wall_s", (double)r->wall_ns / 1e9);
	INT("bytes_read", r->bytes_read);
	REAL("read_s", r->read_s);
	REAL("unpack_s", r->unpack_s);
	REAL("wait_s", r->wait_s);
	REAL("bytes_read_per_token", r->n_tok ? (double)r->bytes_read / (double)r->n_tok : (double)NAN);
	INT("peak_rss_bytes", e->peak_rss_bytes); /* of the process: rows take turns in it */
	return bad;
}

static json_t *row_json(const mze_eval *e, int32_t i)
{
	const mze_row *r = &e->row[i];
	json_t *o = mze_gen_json(r->gen);
	if (!o)
		return NULL;
	int bad = 0;
	SET("label", json_string(r->label));
	bad |= set_accuracy(o, r);
	bad |= set_work(o, r);
	SET("drafters", r->n_drafters > 0 ? mze_drafters_json(r->drafter, r->n_drafters) : json_null());
	SET("monitor", r->monitor.n > 0 ? monitor_json(&r->monitor) : json_null());
	bad |= set_speed(o, e, r);
	SET("costs", e->has_costs[i] ? mze_costs_json(&e->costs[i]) : json_null());
	return checked(o, bad);
}

/* This process's part of the run: all rows together, by the clock on the wall. */
static json_t *run_json(const mze_eval *e)
{
	int64_t n_tok = 0;
	json_t *o = json_object();
	int bad = !o;
	for (int32_t i = 0; i < e->n_rows; i++)
		n_tok += e->row[i].n_tok;
	INT("answers", e->n_items * e->n_rows);
	INT("answers_resumed", e->n_resumed);
	REAL("elapsed_s", (double)e->elapsed_ns / 1e9);
	REAL("tok_per_s_elapsed",
	     e->n_resumed || e->elapsed_ns <= 0 ? (double)NAN : (double)n_tok * 1e9 / (double)e->elapsed_ns);
	INT("peak_rss_bytes", e->peak_rss_bytes);
	return checked(o, bad);
}

static json_t *settings_json(const mze_eval *e)
{
	json_t *o = json_copy(e->settings);
	int bad = !o;
	const char *path = mzm_model_get_info(e->model)->path;
	SET("title", json_string(e->title));
	SET("model_path", path ? mze_json_text(path, strlen(path)) : json_null());
	SET("data_path", mze_json_text(e->params.data_path, strlen(e->params.data_path)));
	return checked(o, bad);
}

json_t *mze_eval_json(const mze_eval *e)
{
	json_t *o = json_object(), *rows = json_array();
	int bad = !o || !rows;
	for (int32_t i = 0; rows && i < e->n_rows; i++)
		bad |= json_array_append_new(rows, row_json(e, i));
	SET("settings", settings_json(e));
	SET("machine", mze_machine_json(e));
	SET("run", run_json(e));
	SET("rows", rows);
	return checked(o, bad);
}
