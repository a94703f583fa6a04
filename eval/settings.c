/* settings.c - everything that decides an answer, as JSON: the header of results, the head of reports. */
#include <string.h>

#include "eval/run.h"
#include "eval/util.h"

#define SET(object, key, value) bad |= json_object_set_new(object, key, value)

static json_t *text_or_null(const char *text)
{
	return text ? mze_json_text(text, strlen(text)) : json_null();
}

/* NULL when something could not be stored. */
static json_t *checked(json_t *object, int bad)
{
	if (!bad)
		return object;
	json_decref(object);
	return NULL;
}

/* JSON readers lose integers beyond 63 bits. */
static json_t *u64_json(uint64_t x)
{
	char text[24];
	snprintf(text, sizeof text, "%llu", (unsigned long long)x);
	return x <= INT64_MAX ? json_integer((json_int_t)x) : json_string(text);
}

/* Every setting, also where the mode has no use for it. */
json_t *mze_gen_json(const mzm_gen_params *g)
{
	char ablate[64];
	json_t *o = json_object();
	int bad = !o;
	SET(o, "mode", json_string(mzm_mode_name(g->mode)));
	SET(o, "draft", text_or_null(g->draft));
	SET(o, "jacobi", text_or_null(g->jacobi));
	SET(o, "jacobi_seed", text_or_null(g->jacobi_seed));
	SET(o, "skip", text_or_null(g->skip));
	SET(o, "skip_keep", mze_json_float(g->skip_keep));
	SET(o, "exit", mze_json_float(g->draft_exit)); /* -1: adaptive */
	SET(o, "draft_model", text_or_null(g->draft_model ? mzm_model_get_info(g->draft_model)->hash : NULL));
	SET(o, "predictor", text_or_null(g->predictor));
	SET(o, "keep", mze_json_float(g->keep));
	SET(o, "alloc", json_boolean(!g->no_alloc));
	SET(o, "attn_keep", mze_json_float(g->attn_keep));
	SET(o, "draft_image", json_boolean(!g->no_draft_image));
	SET(o, "period", g->period ? json_integer(g->period) : json_string("auto"));
	SET(o, "check_below", mze_json_float(g->check_below));
	SET(o, "tree", json_integer(g->tree_width));
	SET(o, "tree_path", json_string(mzm_tree_path_name(g->tree_path)));
	SET(o, "threshold", mze_json_float(g->threshold));
	SET(o, "accept", json_string(mzm_accept_name(g->accept)));
	SET(o, "check_temp", mze_json_float(g->check_temp));
	mzm_ablation_print(ablate, g->ablate);
	SET(o, "ablate", json_string(ablate));
	SET(o, "temp", mze_json_float(g->temp));
	SET(o, "top_k", json_integer(g->top_k));
	SET(o, "top_p", mze_json_float(g->top_p));
	SET(o, "min_p", mze_json_float(g->min_p));
	SET(o, "repeat_penalty", mze_json_float(g->repeat_penalty));
	SET(o, "repeat_last", json_integer(g->repeat_last));
	SET(o, "seed", u64_json(g->seed));
	SET(o, "max_tokens", json_integer(g->max_tokens));
	SET(o, "ignore_eos", json_boolean(g->ignore_eos));
	SET(o, "add_special", json_boolean(!g->no_special));
	return checked(o, bad);
}

/* ---- costs ---- */

json_t *mze_costs_json(const mzm_costs *c)
{
	json_t *o = json_object(), *check = json_array(), *draft = json_array();
	int bad = !o || !check || !draft;
	for (int m = 0; check && m <= MZM_MAX_PERIOD; m++)
		bad |= json_array_append_new(check, json_real((double)c->check[m])); /* exact: read back on resume */
	SET(o, "sparse", json_real((double)c->sparse));
	SET(o, "check", check);
	SET(o, "dense_ms", json_real((double)c->dense_ms));
	for (int i = 0; draft && i < MZM_MAX_DRAFTERS; i++)
		bad |= json_array_append_new(draft, json_real((double)c->draft[i]));
	SET(o, "draft", draft);
	return checked(o, bad);
}

static mzm_status cost(float *out, const json_t *value, mzm_err *err)
{
	double x = json_number_value(value);
	if (!json_is_number(value) || !(x >= 0) || x > 1e9)
		return mze_fail(err, MZM_EFORMAT, "the header's costs are broken");
	*out = (float)x;
	return MZM_OK;
}

mzm_status mze_costs_parse(mzm_costs *out, const json_t *json, mzm_err *err)
{
	const json_t *check = json_object_get(json, "check"), *draft = json_object_get(json, "draft");
	MZE_TRY(cost(&out->sparse, json_object_get(json, "sparse"), err));
	MZE_TRY(cost(&out->dense_ms, json_object_get(json, "dense_ms"), err));
	for (int m = 0; m <= MZM_MAX_PERIOD; m++)
		MZE_TRY(cost(&out->check[m], json_array_get(check, (size_t)m), err));
	for (size_t i = 0; i < MZM_MAX_DRAFTERS && i < json_array_size(draft); i++)
		MZE_TRY(cost(&out->draft[i], json_array_get(draft, i), err));
	return MZM_OK;
}

/* ---- the header ---- */

static json_t *task_json(const mze_eval *e)
{
	char name[64];
	json_t *o = json_object(), *stops = json_array();
	int bad = !o || !stops;
	snprintf(name, sizeof name, "%s@%s", e->task->name, e->task->version);
	for (int32_t i = 0; stops && i < e->n_stop; i++)
		bad |= json_array_append_new(stops, mze_json_text(e->stop[i], strlen(e->stop[i])));
	SET(o, "name", json_string(name));
	SET(o, "shots", json_integer(e->n_shots));
	SET(o, "examples_hash", e->n_shots ? json_string(e->examples.hash) : json_null());
	SET(o, "stop", stops);
	return checked(o, bad);
}

static json_t *data_json(const mze_eval *e)
{
	json_t *o = json_object();
	int bad = !o;
	SET(o, "hash", json_string(e->problems.hash));
	SET(o, "problems", json_integer(e->problems.n));
	SET(o, "skipped_lines", json_integer(e->problems.n_skipped));
	SET(o, "limit", e->params.limit ? json_integer(e->params.limit) : json_null());
	SET(o, "sample", e->params.sample ? json_integer(e->params.sample) : json_null());
	SET(o, "sample_seed", e->params.sample ? u64_json(e->params.sample_seed) : json_null());
	return checked(o, bad);
}

static json_t *model_json(const mze_eval *e)
{
	const mzm_model_info *info = mzm_model_get_info(e->model);
	json_t *o = json_object();
	int bad = !o;
	SET(o, "hash", json_string(info->hash));
	SET(o, "arch", json_string(info->arch));
	SET(o, "dtype", json_string(info->dtype));
	SET(o, "draft_dtype", info->draft_dtype[0] ? json_string(info->draft_dtype) : json_null());
	SET(o, "inflated", info->inflated ? json_integer(info->inflated) : json_null());
	SET(o, "params", json_integer((json_int_t)info->n_params));
	return checked(o, bad);
}

static json_t *engine_json(const mze_eval *e)
{
	char cpu[128];
	json_t *o = json_object();
	int bad = !o;
	mze_machine_cpu(cpu, sizeof cpu);
	SET(o, "version", text_or_null(mzm_version()));
	SET(o, "build", text_or_null(mzm_build_info()));
	SET(o, "isa", text_or_null(mzm_model_get_info(e->model)->isa));
	SET(o, "onednn", json_boolean(!e->params.no_onednn));
	SET(o, "cpu", mze_json_text(cpu, strlen(cpu)));
	SET(o, "threads", json_integer(e->n_threads));
	SET(o, "jobs", json_integer(e->n_jobs));
	SET(o, "ctx", json_integer(e->n_ctx));
	SET(o, "kv", json_string(e->params.kv_type ? e->params.kv_type : "f16"));
	return checked(o, bad);
}

json_t *mze_settings_json(const mze_eval *e)
{
	json_t *o = json_object(), *rows = json_array(), *costs = json_array();
	int bad = !o || !rows || !costs;
	for (int32_t i = 0; !bad && i < e->n_rows; i++) {
		bad |= json_array_append_new(rows, mze_gen_json(&e->gen[i]));
		bad |= json_array_append_new(costs, e->has_costs[i] ? mze_costs_json(&e->costs[i]) : json_null());
	}
	SET(o, MZE_RESULTS_KEY, json_integer(MZE_RESULTS_VERSION)); /* first: results files are known by it */
	SET(o, "task", task_json(e));
	SET(o, "data", data_json(e));
	SET(o, "model", model_json(e));
	SET(o, "engine", engine_json(e));
	SET(o, "rows", rows);
	SET(o, "cost_kind", json_string(e->params.nominal_costs ? "nominal" : "measured"));
	SET(o, "costs", costs);
	return checked(o, bad);
}

void mze_settings_title(mze_eval *e)
{
	const mze_params *p = &e->params;
	char part[80], skipped[48] = "";
	if (p->limit && e->n_items < e->problems.n)
		snprintf(part, sizeof part, "first %d of %d problems", e->n_items, e->problems.n);
	else if (p->sample && e->n_items < e->problems.n)
		snprintf(part, sizeof part, "sample of %d of %d problems (seed %llu)", e->n_items, e->problems.n,
			 (unsigned long long)p->sample_seed);
	else
		snprintf(part, sizeof part, "all %d problems", e->n_items);
	if (e->problems.n_skipped)
		snprintf(skipped, sizeof skipped, ", %d broken lines skipped", e->problems.n_skipped);
	snprintf(e->title, sizeof e->title, "%s@%s, %d-shot, %s%s", e->task->name, e->task->version, e->n_shots, part,
		 skipped);
}
