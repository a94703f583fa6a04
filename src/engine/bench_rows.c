/* bench_rows.c - from samples to figures: medians, ratios, bytes, shares of the peaks, and what must be said of them.
 *
 * Bytes are counted from shapes, not measured: each weight that a pass reads once, and the KV rows before it. */
#include "engine/bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

/* ---- statistics ---- */

static void sort(double *x, int32_t n)
{
	for (int32_t i = 1; i < n; i++) { /* insertion sort of a handful */
		double v = x[i];
		int32_t j = i;
		for (; j > 0 && x[j - 1] > v; j--)
			x[j] = x[j - 1];
		x[j] = v;
	}
}

mzm_bench_stats mzm_bench_stats_of(const double *values, int32_t n)
{
	double x[MZM_BENCH_MAX_ROUNDS];
	if (n < 1)
		return (mzm_bench_stats){NAN, NAN, NAN, NAN};
	n = n < MZM_BENCH_MAX_ROUNDS ? n : MZM_BENCH_MAX_ROUNDS;
	memcpy(x, values, (size_t)n * sizeof *x);
	sort(x, n);
	mzm_bench_stats s = {.median = (x[(n - 1) / 2] + x[n / 2]) / 2, .min = x[0], .max = x[n - 1]};
	s.spread_percent = s.median > 0 ? 100 * (s.max - s.min) / s.median : 0;
	return s;
}

double mzm_bench_median_ratio(const double *a, const double *b, int32_t n)
{
	double ratio[MZM_BENCH_MAX_ROUNDS];
	n = n < MZM_BENCH_MAX_ROUNDS ? n : MZM_BENCH_MAX_ROUNDS;
	for (int32_t i = 0; i < n; i++)
		ratio[i] = b[i] > 0 ? a[i] / b[i] : (double)NAN;
	return mzm_bench_stats_of(ratio, n).median;
}

/* ---- bytes and operations ---- */

static double matrix_bytes(const mzm_matrix *m)
{
	return (double)m->n_rows * (double)mzm_row_bytes(m->dtype, m->n_cols);
}

static double matrix_params(const mzm_matrix *m)
{
	return (double)m->n_rows * (double)m->n_cols;
}

mzm_bench_bytes mzm_bench_weight_bytes(const mzm_weights *w, bool draft)
{
	const mzm_config *cfg = &w->cfg;
	mzm_bench_bytes sum = {.fixed = matrix_bytes(draft ? &w->draft_head : &w->head)};
	sum.fixed += (2.0 * cfg->n_layers + 1) * cfg->dim * (double)sizeof(float); /* norms */
	for (int32_t i = 0; i < cfg->n_layers; i++) {
		const mzm_layer *l = draft ? &w->draft[i] : &w->layer[i];
		sum.fixed += matrix_bytes(&l->wq) + matrix_bytes(&l->wk) + matrix_bytes(&l->wv) + matrix_bytes(&l->wo) +
			     matrix_bytes(&l->wg);
		sum.ffn += matrix_bytes(&l->gate) + matrix_bytes(&l->up) + matrix_bytes(&l->down);
	}
	return sum;
}

/* Multiplications and additions in the matrices of one token, the head left out. */
static double layer_flop(const mzm_weights *w)
{
	double sum = 0;
	for (int32_t i = 0; i < w->cfg.n_layers; i++) {
		const mzm_layer *l = &w->layer[i];
		sum += matrix_params(&l->wq) + matrix_params(&l->wk) + matrix_params(&l->wv) + matrix_params(&l->wo) +
		       matrix_params(&l->wg) +
		       matrix_params(&l->gate) + matrix_params(&l->up) + matrix_params(&l->down);
	}
	return 2 * sum;
}

static double head_flop(const mzm_weights *w)
{
	return 2 * matrix_params(&w->head);
}

static double kv_bytes(const mzm_bench_run *b, double n_tokens)
{
	const mzm_kv *kv = mzm_state_kv(b->session->state);
	const mzm_config *cfg = &b->model->weights->cfg;
	double sum = 0;
	for (int32_t l = 0; l < cfg->n_layers; l++) /* local layers read no further back than their window */
		sum += mzm_kv_bytes_read(kv, mzm_config_is_local(cfg, l) && n_tokens > cfg->window ? cfg->window
												    : n_tokens);
	return sum;
}

static double dense_bytes(const mzm_bench_run *b, double context)
{
	mzm_bench_bytes w = mzm_bench_weight_bytes(b->model->weights, false);
	return w.fixed + w.ffn + kv_bytes(b, context);
}

static double pass_bytes(const mzm_bench_run *b, bool draft, double ffn_share, double context)
{
	mzm_bench_bytes w = mzm_bench_weight_bytes(b->model->weights, draft);
	return w.fixed + w.ffn * ffn_share + kv_bytes(b, context);
}

/* What the passes of the generations read for each token, counted with the KV of the middle of a text. */
static double generated_bytes(const mzm_bench_run *b, const mzm_bench_line *l)
{
	double context = b->prompt[0].n + b->n_gen / 2.0, share = 1;
	if (b->session->predictor)
		share = mzm_session_ffn_share(b->session);
	double sum = (double)l->n_dense_passes * dense_bytes(b, context);
	if (!mzm_verifier_for(l->mode) || strcmp(l->drafter, "sparse") == 0)
		sum += (double)l->n_sparse_passes * pass_bytes(b, l->draft, share, context);
	else /* by what the drafters themselves say */
		sum += l->draft_work * dense_bytes(b, 0) + (double)l->n_sparse_passes * kv_bytes(b, context);
	return l->n_tokens > 0 ? sum / (double)l->n_tokens : (double)NAN;
}

/* ---- names and notes ---- */

static void name_row(mzm_bench_row *row, const mzm_bench_run *b, const mzm_bench_line *l)
{
	char period[16] = "", image[16] = "";
	if (l->draft)
		snprintf(image, sizeof image, " %s", mzm_dtype_name(b->model->weights->draft[0].gate.dtype));
	if (l->period > 0)
		snprintf(period, sizeof period, " %d", l->period);
	if (l->kind == MZM_BENCH_GENERATE && mzm_verifier_for(l->mode) && strcmp(l->drafter, "sparse") != 0)
		snprintf(row->drafter, sizeof row->drafter, "%s", l->drafter);
	switch (l->kind) {
	case MZM_BENCH_READ:
		snprintf(row->name, sizeof row->name, "read memory");
		break;
	case MZM_BENCH_MATMUL:
		snprintf(row->name, sizeof row->name, "multiply");
		break;
	case MZM_BENCH_PREFILL:
		snprintf(row->name, sizeof row->name, "prefill %d", l->n_pos);
		break;
	case MZM_BENCH_DENSE:
		snprintf(row->name, sizeof row->name, "dense%s", image);
		break;
	case MZM_BENCH_SPARSE:
		snprintf(row->name, sizeof row->name, "sparse%s %s %.4g", image, l->pred->ops->name, (double)l->keep);
		break;
	case MZM_BENCH_CHECK:
		snprintf(row->name, sizeof row->name, "check %d", l->n_pos);
		break;
	case MZM_BENCH_CONTEXT:
		snprintf(row->name, sizeof row->name, "dense at %d", l->context + 1); /* itself the last */
		break;
	case MZM_BENCH_GENERATE:
		snprintf(row->name, sizeof row->name, "generate %s%s%.40s%s", mzm_mode_name(l->mode),
			 row->drafter[0] ? " " : "", row->drafter,
			 mzm_verifier_for(l->mode) ? l->period ? period : " auto" : "");
		break;
	}
}

static void add_note(mzm_bench_row *row, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add_note(mzm_bench_row *row, const char *fmt, ...)
{
	size_t n = strlen(row->note);
	va_list ap;
	if (n > 0 && n + 3 < sizeof row->note)
		n += (size_t)snprintf(row->note + n, sizeof row->note - n, "; ");
	va_start(ap, fmt);
	vsnprintf(row->note + n, sizeof row->note - n, fmt, ap);
	va_end(ap);
}

static void note_generation(mzm_bench_row *row, const mzm_bench_run *b, const mzm_bench_line *l)
{
	if (mzm_verifier_for(l->mode) && b->p.accept_rate > 0)
		add_note(row, "forced acceptance %.4g", b->p.accept_rate);
	mzm_gen_params gen = b->p.gen;
	gen.mode = l->mode;
	gen.draft = l->drafter;
	if (l->mode == MZM_MODE_SPARSE || (l->mode != MZM_MODE_DENSE && mzm_gen_needs_predictor(&gen)))
		add_note(row, "%s at keep %.4g", gen.predictor, (double)mzm_gen_keep(&gen));
	if (l->draft)
		add_note(row, "drafts by the draft image");
}

static void note_row(mzm_bench_row *row, const mzm_bench_run *b, const mzm_bench_line *l)
{
	if (l->kind == MZM_BENCH_MATMUL)
		add_note(row, "%s", mzm_peak_matmul_name(b->peak));
	if (l->kind == MZM_BENCH_CONTEXT)
		add_note(row, "KV filled with arbitrary numbers");
	if (l->kind == MZM_BENCH_SPARSE && row->ratio_to_dense >= 1)
		add_note(row, "slower than dense");
	if (l->kind == MZM_BENCH_GENERATE)
		note_generation(row, b, l);
}

/* ---- rows ---- */

static double tokens_of(const mzm_bench_line *l)
{
	return l->kind == MZM_BENCH_PREFILL || l->kind == MZM_BENCH_CHECK ? (double)l->n_pos : 1.0;
}

static double bytes_of(const mzm_bench_run *b, const mzm_bench_line *l)
{
	switch (l->kind) {
	case MZM_BENCH_READ:
		return (double)mzm_peak_read_bytes(b->peak);
	case MZM_BENCH_DENSE:
		return pass_bytes(b, l->draft, 1, l->context);
	case MZM_BENCH_SPARSE:
		return pass_bytes(b, l->draft, l->ffn_share, l->context);
	case MZM_BENCH_CHECK:
	case MZM_BENCH_CONTEXT:
		return dense_bytes(b, l->context);
	case MZM_BENCH_GENERATE:
		return generated_bytes(b, l);
	default:
		return (double)NAN;
	}
}

/* The figures of a line that need no other. */
static mzm_bench_row own_figures(const mzm_bench_run *b, const mzm_bench_line *l)
{
	mzm_bench_stats s = mzm_bench_stats_of(l->ns, b->n_rounds);
	mzm_bench_row row = {
		.kind = l->kind, .keep = l->keep, .draft_image = l->draft, .n_pos = l->n_pos, .context = l->context,
		.mode = l->mode, .period = l->period, .n_samples = b->n_rounds, .n_calls = l->n_calls,
		.ms_median = s.median * 1e-6, .ms_min = s.min * 1e-6, .ms_max = s.max * 1e-6,
		.spread_percent = s.spread_percent, .tok_per_s = NAN, .bytes_per_pass = bytes_of(b, l),
		.bytes_per_token = NAN, .gb_per_s = NAN, .gflop_per_s = NAN, .percent_of_peak = NAN,
		.ratio_to_dense = NAN, .bound_ratio = NAN, .speedup = NAN, .density = NAN, .aal = NAN,
		.accept_rate = NAN,
	};
	if (l->kind != MZM_BENCH_READ && l->kind != MZM_BENCH_MATMUL) {
		row.tok_per_s = tokens_of(l) * 1e9 / s.median;
		row.bytes_per_token = row.bytes_per_pass / tokens_of(l);
	}
	row.gb_per_s = row.bytes_per_pass / s.median; /* bytes a nanosecond */
	if (l->kind == MZM_BENCH_MATMUL)
		row.gflop_per_s = mzm_peak_matmul_flop(b->peak) / s.median;
	if (l->kind == MZM_BENCH_PREFILL)
		row.gflop_per_s = (layer_flop(b->model->weights) * l->n_pos + head_flop(b->model->weights)) / s.median;
	if (l->pred)
		snprintf(row.predictor, sizeof row.predictor, "%s", l->pred->ops->name);
	return row;
}

static void generation_figures(mzm_bench_row *row, const mzm_bench_run *b, const mzm_bench_line *l)
{
	int64_t drafted = l->n_accepted + l->n_dropped;
	row->n_pos = l->n_texts > 0 ? (int32_t)(l->n_tokens / l->n_texts) : 0;
	row->context = b->prompt[0].n;
	if (l->mode != MZM_MODE_DENSE) {
		snprintf(row->predictor, sizeof row->predictor, "%s", b->p.gen.predictor);
		row->keep = b->p.gen.keep;
	}
	if (l->n_checks > 0)
		row->aal = (double)l->n_gained / (double)l->n_checks;
	if (drafted > 0)
		row->accept_rate = (double)l->n_accepted / (double)drafted;
}

/* What the peaks allow a pass to cost: its bytes at the read peak or its operations at the matmul peak. */
static double bound_of(const mzm_bench_run *b, const mzm_bench_line *l, const mzm_bench_row *row,
		       const mzm_bench_result *r)
{
	const mzm_weights *w = b->model->weights;
	double unit_ns = dense_bytes(b, b->p.context) / r->peak_gb_per_s;
	double read_ns = row->bytes_per_pass / r->peak_gb_per_s;
	double flop_ns = (layer_flop(w) + head_flop(w)) * l->n_pos / r->peak_gflop_per_s;
	if (l->kind != MZM_BENCH_CHECK)
		return read_ns / unit_ns;
	return (read_ns > flop_ns ? read_ns : flop_ns) / unit_ns;
}

/* Adds what compares a line with the peaks and with the dense token. */
static void relate(mzm_bench_row *row, const mzm_bench_run *b, const mzm_bench_line *l, const mzm_bench_result *r)
{
	const mzm_bench_line *unit = &b->lines[b->dense];
	bool machine = l->kind == MZM_BENCH_READ || l->kind == MZM_BENCH_MATMUL;
	if (l->kind == MZM_BENCH_PREFILL || l->kind == MZM_BENCH_MATMUL)
		row->percent_of_peak = 100 * row->gflop_per_s / r->peak_gflop_per_s;
	else
		row->percent_of_peak = 100 * row->gb_per_s / r->peak_gb_per_s;
	if (l->kind == MZM_BENCH_GENERATE) {
		generation_figures(row, b, l);
		for (int32_t i = 0; i < b->n_lines; i++) /* dense mode is the unit of generations */
			if (b->lines[i].kind == MZM_BENCH_GENERATE && b->lines[i].mode == MZM_MODE_DENSE)
				unit = &b->lines[i];
	}
	if (!machine && l->kind != MZM_BENCH_PREFILL)
		row->ratio_to_dense = mzm_bench_median_ratio(l->ns, unit->ns, b->n_rounds);
	if (l->kind == MZM_BENCH_GENERATE)
		row->speedup = 1 / row->ratio_to_dense;
	else if (!isnan(row->ratio_to_dense))
		row->bound_ratio = bound_of(b, l, row, r);
	if (l->kind == MZM_BENCH_SPARSE)
		row->density = row->bytes_per_pass / dense_bytes(b, l->context);
	name_row(row, b, l);
	note_row(row, b, l);
}

static void machine_figures(mzm_bench_result *r, const mzm_bench_run *b)
{
	for (int32_t i = 0; i < b->n_lines; i++) {
		const mzm_bench_row *row = &r->rows[i];
		if (row->kind == MZM_BENCH_READ) {
			r->peak_gb_per_s = row->gb_per_s;
			r->best_gb_per_s = row->bytes_per_pass / (row->ms_min * 1e6);
			r->peak_spread_percent = row->spread_percent;
		}
		if (row->kind == MZM_BENCH_MATMUL) {
			r->peak_gflop_per_s = row->gflop_per_s;
			r->best_gflop_per_s = row->gflop_per_s * row->ms_median / row->ms_min;
		}
	}
	r->disturbed = r->peak_spread_percent > MZM_BENCH_CALM_PERCENT;
}

mzm_status mzm_bench_rows(mzm_bench_result **out, const mzm_bench_run *b)
{
	mzm_bench_result *r;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&r, sizeof *r, "the results", b->err));
	*r = (mzm_bench_result){
		.n_rows = b->n_lines, .n_rounds = b->n_rounds, .stopped = b->stopped, .shortened = b->shortened,
		.matmul_name = mzm_peak_matmul_name(b->peak), .peak_bytes = mzm_peak_read_bytes(b->peak),
		.cache_bytes = mzm_cache_bytes(), .n_threads = mzm_session_n_threads(b->session),
		.n_ctx = mzm_session_n_ctx(b->session), .n_prompt = b->p.n_prompt, .context = b->p.context,
		.long_context = b->p.long_context, .n_gen = b->n_gen, .forced_accept = b->p.accept_rate,
	};
	mzm_status st = mzm_alloc_for((void **)&r->rows, (size_t)b->n_lines * sizeof *r->rows, "the results", b->err);
	if (st != MZM_OK) {
		mzm_bench_free(r);
		return st;
	}
	for (int32_t i = 0; i < b->n_lines; i++)
		r->rows[i] = own_figures(b, &b->lines[i]);
	machine_figures(r, b);
	for (int32_t i = 0; i < b->n_lines; i++)
		relate(&r->rows[i], b, &b->lines[i], r);
	r->seconds = (double)(mzm_now_ns() - b->start_ns) * 1e-9;
	*out = r;
	return MZM_OK;
}

void mzm_bench_free(mzm_bench_result *r)
{
	if (!r)
		return;
	mzm_free(r->rows);
	mzm_free(r);
}
