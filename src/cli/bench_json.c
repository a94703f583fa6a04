/* bench_json.c - `mirzam bench --json`: settings, machine, and one row a measurement. */
#include <math.h>
#include <string.h>
#include <sys/utsname.h>

#include "bench.h"
#include "eval/run.h"

const mzm_bench_row *mzm_cli_bench_find(const mzm_bench_result *r, mzm_bench_kind kind, int32_t n_pos, mzm_mode mode)
{
	for (int32_t i = 0; i < r->n_rows; i++) {
		const mzm_bench_row *row = &r->rows[i];
		if (row->kind == kind && (kind != MZM_BENCH_CHECK || row->n_pos == n_pos) &&
		    (kind != MZM_BENCH_GENERATE || row->mode == mode) &&
		    (kind != MZM_BENCH_DENSE || !row->draft_image))
			return row;
	}
	return NULL;
}

bool mzm_cli_bench_in_cache(const mzm_cli_bench *b)
{
	const mzm_bench_row *dense = mzm_cli_bench_find(b->result, MZM_BENCH_DENSE, 0, MZM_MODE_DENSE);
	return dense && dense->bytes_per_pass < (double)b->result->cache_bytes;
}

#define SET(object, key, value) bad |= json_object_set_new(object, key, value)

static json_t *text(const char *s)
{
	return s ? mzm_cli_json_text(s, strlen(s)) : json_null();
}

static json_t *names(const char *const *item, int32_t n)
{
	json_t *list = json_array();
	for (int32_t i = 0; i < n; i++)
		if (json_array_append_new(list, text(item[i])) != 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

static json_t *shares(const float *item, int32_t n)
{
	json_t *list = json_array();
	for (int32_t i = 0; i < n; i++)
		if (json_array_append_new(list, mzm_cli_json_float(item[i])) != 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

static int set_generation(json_t *o, const mzm_bench_params *p)
{
	int bad = 0;
	SET(o, "generation_predictor", text(p->gen.predictor));
	SET(o, "generation_keep", mzm_cli_json_float(p->gen.keep));
	SET(o, "period", json_integer(p->gen.period));
	SET(o, "accept", text(mzm_accept_name(p->gen.accept)));
	SET(o, "threshold", mzm_cli_json_float(p->gen.threshold));
	SET(o, "check_temp", mzm_cli_json_float(p->gen.check_temp));
	SET(o, "forced_accept_rate", p->accept_rate > 0 ? mzm_cli_json_float((float)p->accept_rate) : json_null());
	return bad;
}

static json_t *settings_json(const mzm_cli_bench *b)
{
	const mzm_model_info *m = b->info;
	const mzm_bench_result *r = b->result;
	json_t *o = json_object();
	int bad = 0;
	SET(o, "model", text(b->name));
	SET(o, "model_path", text(m->path));
	SET(o, "model_hash", text(m->hash));
	SET(o, "origin", text(b->origin));
	SET(o, "dtype", text(m->dtype));
	SET(o, "act", text(m->act));
	SET(o, "n_params", json_integer((json_int_t)m->n_params));
	SET(o, "n_ffn_params", json_integer((json_int_t)m->n_ffn_params));
	SET(o, "bytes_per_token", json_integer((json_int_t)m->bytes_per_token));
	SET(o, "prompt", json_integer(r->n_prompt));
	SET(o, "context", json_integer(r->context));
	SET(o, "long_context", json_integer(r->long_context));
	SET(o, "n_ctx", json_integer(r->n_ctx));
	SET(o, "tokens", json_integer(r->n_gen));
	SET(o, "predictors", names(b->params->predictors, b->params->n_predictors));
	SET(o, "keep", shares(b->params->keep, b->params->n_keep));
	bad |= set_generation(o, b->params);
	SET(o, "repeats", json_integer(r->n_rounds));
	SET(o, "shortened", json_boolean(r->shortened));
	SET(o, "interrupted", json_boolean(r->stopped));
	SET(o, "seconds", mzm_cli_json_double(r->seconds));
	if (!bad)
		return o;
	json_decref(o);
	return NULL;
}

static json_t *machine_json(const mzm_cli_bench *b)
{
	const mzm_bench_result *r = b->result;
	struct utsname u;
	char cpu[256];
	json_t *o = json_object();
	int bad = 0;
	mze_machine_cpu(cpu, sizeof cpu);
	SET(o, "cpu", text(cpu));
	SET(o, "system", uname(&u) == 0 ? json_sprintf("%s %s", u.sysname, u.release) : json_null());
	SET(o, "threads", json_integer(r->n_threads));
	SET(o, "isa", text(b->info->isa));
	SET(o, "version", text(mzm_version()));
	SET(o, "build", text(mzm_build_info()));
	SET(o, "cache_bytes", r->cache_bytes ? json_integer((json_int_t)r->cache_bytes) : json_null());
	SET(o, "peak_buffer_bytes", json_integer((json_int_t)r->peak_bytes));
	SET(o, "peak_gb_per_s", mzm_cli_json_double(r->peak_gb_per_s));
	SET(o, "best_gb_per_s", mzm_cli_json_double(r->best_gb_per_s));
	SET(o, "peak_gflop_per_s", mzm_cli_json_double(r->peak_gflop_per_s));
	SET(o, "best_gflop_per_s", mzm_cli_json_double(r->best_gflop_per_s));
	SET(o, "peak_matmul", text(r->matmul_name));
	SET(o, "peak_spread_percent", mzm_cli_json_double(r->peak_spread_percent));
	SET(o, "disturbed", json_boolean(r->disturbed));
	if (!bad)
		return o;
	json_decref(o);
	return NULL;
}

/* What the row is about. */
static int set_subject(json_t *o, const mzm_bench_row *row)
{
	int bad = 0;
	bool sparse = row->predictor[0] != 0;
	SET(o, "name", text(row->name));
	SET(o, "kind", text(mzm_bench_kind_name(row->kind)));
	SET(o, "predictor", sparse ? text(row->predictor) : json_null());
	SET(o, "keep", sparse ? mzm_cli_json_float(row->keep) : json_null());
	SET(o, "draft_image", json_boolean(row->draft_image));
	SET(o, "positions", row->n_pos > 0 ? json_integer(row->n_pos) : json_null());
	SET(o, "context", row->context > 0 ? json_integer(row->context) : json_null());
	SET(o, "draft", row->drafter[0] ? text(row->drafter) : json_null());
	SET(o, "mode", row->kind == MZM_BENCH_GENERATE ? text(mzm_mode_name(row->mode)) : json_null());
	SET(o, "period", isnan(row->aal)   ? json_null()
			 : row->period > 0 ? json_integer(row->period)
					   : json_string("auto"));
	SET(o, "note", text(row->note));
	return bad;
}

static json_t *row_json(const mzm_bench_row *row, const mzm_bench_result *r)
{
	bool forced = r->forced_accept > 0 && !isnan(row->aal);
	json_t *o = json_object();
	int bad = set_subject(o, row);
	SET(o, "tok_per_s", mzm_cli_json_double(row->tok_per_s));
	SET(o, "gb_per_s", mzm_cli_json_double(row->gb_per_s));
	SET(o, "peak_gb_per_s", mzm_cli_json_double(r->peak_gb_per_s));
	SET(o, "gflop_per_s", mzm_cli_json_double(row->gflop_per_s));
	SET(o, "peak_gflop_per_s", mzm_cli_json_double(r->peak_gflop_per_s));
	SET(o, "percent_of_peak", mzm_cli_json_double(row->percent_of_peak));
	SET(o, "ratio_to_dense", mzm_cli_json_double(row->ratio_to_dense));
	SET(o, "bound_ratio", mzm_cli_json_double(row->bound_ratio));
	SET(o, "speedup", mzm_cli_json_double(row->speedup));
	SET(o, "ms_median", mzm_cli_json_double(row->ms_median));
	SET(o, "ms_min", mzm_cli_json_double(row->ms_min));
	SET(o, "ms_max", mzm_cli_json_double(row->ms_max));
	SET(o, "spread_percent", mzm_cli_json_double(row->spread_percent));
	SET(o, "repeats", json_integer(row->n_samples));
	SET(o, "calls", json_integer(row->n_calls));
	SET(o, "bytes_per_token", mzm_cli_json_double(row->bytes_per_token));
	SET(o, "bytes_per_pass", mzm_cli_json_double(row->bytes_per_pass));
	SET(o, "density", mzm_cli_json_double(row->density));
	SET(o, "aal", mzm_cli_json_double(row->aal));
	SET(o, "accept_rate", mzm_cli_json_double(row->accept_rate));
	SET(o, "forced_accept_rate", forced ? mzm_cli_json_float((float)r->forced_accept) : json_null());
	if (!bad)
		return o;
	json_decref(o);
	return NULL;
}

/* What streaming read in all of the measurements together. */
static json_t *streaming_json(const mzm_model *model)
{
	mzm_stream_stats s = mzm_model_stream_stats(model);
	return json_pack("{s:I, s:f, s:f, s:f, s:s, s:I}", "bytes_read", (json_int_t)s.bytes_read, "read_s",
			 (double)s.read_ns * 1e-9, "unpack_s", (double)s.unpack_ns * 1e-9, "wait_s",
			 (double)s.wait_ns * 1e-9, "io", s.io, "peak_rss_bytes", (json_int_t)mzm_cli_peak_rss());
}

json_t *mzm_cli_bench_json(const mzm_cli_bench *b)
{
	json_t *root = json_object(), *rows = json_array();
	int bad = 0;
	SET(root, "settings", settings_json(b));
	SET(root, "machine", machine_json(b));
	SET(root, "memory", mzm_cli_plan_json(mzm_model_get_plan(b->model)));
	SET(root, "streaming", streaming_json(b->model));
	for (int32_t i = 0; i < b->result->n_rows; i++)
		bad |= json_array_append_new(rows, row_json(&b->result->rows[i], b->result));
	SET(root, "rows", rows);
	if (!bad)
		return root;
	json_decref(root);
	return NULL;
}
