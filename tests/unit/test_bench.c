/* test_bench.c - the benchmark: its statistics, its peaks, that its rows are complete and say what they must, that a
 * forced acceptance gives the AAL it should, cancelling, and its outputs. Nothing here asserts a time. */
#include "testing.h"

#include <float.h>
#include <math.h>

#include "cli/bench.h"
#include "demo.h"
#include "engine/bench.h"
#include "tiny_model.h"

/* ---- statistics ---- */

static void test_stats(void **state)
{
	(void)state;
	double odd[] = {5, 1, 4, 2, 3}, even[] = {8, 2, 4, 6}, same[] = {7, 7, 7}, zero[] = {0, 0};
	mzm_bench_stats s = mzm_bench_stats_of(odd, 5);
	assert_true(s.median == 3 && s.min == 1 && s.max == 5);
	assert_true(fabs(s.spread_percent - 100 * 4.0 / 3) < 1e-9);
	assert_true(odd[0] == 5 && odd[4] == 3); /* the rounds keep their order */
	s = mzm_bench_stats_of(even, 4);
	assert_true(s.median == 5 && s.min == 2 && s.max == 8);
	s = mzm_bench_stats_of(odd, 1);
	assert_true(s.median == 5 && s.spread_percent == 0);
	assert_true(mzm_bench_stats_of(same, 3).spread_percent == 0);
	assert_true(mzm_bench_stats_of(zero, 2).spread_percent == 0);
	assert_true(isnan(mzm_bench_stats_of(odd, 0).median));
}

static void test_median_ratio(void **state)
{
	(void)state;
	double a[] = {1, 20, 3}, b[] = {2, 10, 3}; /* a round that was twice as slow for both changes nothing */
	assert_true(mzm_bench_median_ratio(a, b, 3) == 1);
	double slow_a[] = {2, 2, 200, 2, 2}, slow_b[] = {4, 4, 400, 4, 4};
	assert_true(mzm_bench_median_ratio(slow_a, slow_b, 5) == 0.5);
}

static void test_repeat(void **state)
{
	(void)state;
	int32_t out[7], ids[] = {3, 1, 2};
	mzm_bench_repeat(out, 7, ids, 3);
	for (int i = 0; i < 7; i++)
		assert_int_equal(out[i], ids[i % 3]);
}

/* ---- peaks ---- */

static void test_peak_reads_every_byte(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		mzm_team *team;
		mzm_peak *peak;
		mzm_err err = {0};
		assert_int_equal(mzm_team_create(&team, threads, &err), MZM_OK);
		assert_int_equal(mzm_peak_create(&peak, team, mzm_kern_find(NULL), 3 << 20, &err), MZM_OK);
		uint64_t words = mzm_peak_read_bytes(peak) / 8;
		assert_int_equal(words * 8, 3 << 20);
		assert_int_equal(mzm_peak_read_sum(peak), 0);
		mzm_peak_read(peak);
		assert_int_equal(mzm_peak_read_sum(peak), words * (words + 1) / 2); /* they hold 1, 2, ... */
		assert_int_equal(mzm_peak_matmul(peak, &err), MZM_OK);
		assert_true(mzm_peak_matmul_flop(peak) > 1e6 * threads);
		assert_true(strlen(mzm_peak_matmul_name(peak)) > 0);
		mzm_peak_free(peak);
		mzm_team_free(team);
	}
	mzm_peak_free(NULL);
}

/* ---- a benchmark of a tiny model ---- */

static mzm_model *open_tiny(void)
{
	static const tiny_spec spec = {.n_layers = 2, .dim = 32, .n_ffn = 96, .n_heads = 4, .n_kv_heads = 2,
				       .head_dim = 8, .n_vocab = 64, .n_ctx = 512, .dtype = "BF16", .eos = -1};
	tiny_model *tiny = tiny_make(&spec, 7);
	mzm_model *model;
	mzm_err err = {0};
	if (mzm_model_open(&model, tiny->dir, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	tiny_free(tiny);
	return model;
}

/* As short as can be. */
static mzm_bench_params short_params(void)
{
	mzm_bench_params p = mzm_bench_params_default();
	p.session.n_threads = 1;
	p.n_prompt = 70;
	p.context = 20;
	p.n_gen = 100;
	p.n_repeats = 3;
	p.sample_seconds = 1e-5;
	p.peak_bytes = 1 << 20;
	return p;
}

static mzm_bench_result *run(const mzm_model *model, const mzm_bench_params *p)
{
	mzm_bench_result *r;
	mzm_err err = {0};
	if (mzm_bench(&r, model, p, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return r;
}

static const mzm_bench_row *named(const mzm_bench_result *r, const char *name)
{
	for (int32_t i = 0; i < r->n_rows; i++)
		if (strcmp(r->rows[i].name, name) == 0)
			return &r->rows[i];
	fail_msg("no row \"%s\"", name);
	return NULL;
}

static bool is_machine(const mzm_bench_row *row)
{
	return row->kind == MZM_BENCH_READ || row->kind == MZM_BENCH_MATMUL;
}

static void check_row(const mzm_bench_result *r, const mzm_bench_row *row)
{
	assert_int_equal(row->n_samples, r->n_rounds);
	assert_true(row->n_calls >= 1);
	assert_true(row->ms_min > 0 && row->ms_min <= row->ms_median && row->ms_median <= row->ms_max);
	assert_true(row->percent_of_peak > 0);
	if (is_machine(row))
		return;
	assert_true(row->tok_per_s > 0);
	if (row->kind == MZM_BENCH_PREFILL) {
		assert_true(row->gflop_per_s > 0 && isnan(row->ratio_to_dense));
		return;
	}
	assert_true(row->gb_per_s > 0 && row->bytes_per_token > 0 && row->ratio_to_dense > 0);
	assert_true(row->kind == MZM_BENCH_GENERATE ? row->speedup > 0 : row->bound_ratio > 0);
}

static void check_names(const mzm_bench_result *r)
{
	static const char *const names[] = {
		"read memory", "multiply", "prefill 70", "dense", "dense at 512", "check 1", "check 2", "check 4",
		"check 8", "check 16", "check 32", "sparse griffin 0.1", "sparse griffin 0.25", "sparse griffin 0.5",
		"sparse griffin 0.75", "sparse topk 0.1", "sparse topk 0.25", "sparse topk 0.5", "sparse topk 0.75",
		"generate dense", "generate sparse", "generate sirius 16", "generate sirius auto", "generate exact 16",
		"generate exact auto",
	};
	assert_int_equal(r->n_rows, sizeof names / sizeof *names);
	for (int32_t i = 0; i < r->n_rows; i++)
		assert_string_equal(r->rows[i].name, names[i]);
}

static void test_rows_are_complete(void **state)
{
	mzm_bench_params p = short_params();
	(void)state;
	size_t live = mzm_mem_live();
	mzm_model *model = open_tiny();
	mzm_bench_result *r = run(model, &p);
	check_names(r);
	assert_int_equal(r->n_rounds, 3);
	assert_int_equal(r->n_threads, 1);
	assert_false(r->stopped);
	assert_true(r->peak_gb_per_s > 0 && r->best_gb_per_s >= r->peak_gb_per_s);
	assert_true(r->peak_gflop_per_s > 0 && r->best_gflop_per_s >= r->peak_gflop_per_s);
	for (int32_t i = 0; i < r->n_rows; i++)
		check_row(r, &r->rows[i]);
	assert_true(named(r, "dense")->ratio_to_dense == 1);
	assert_true(named(r, "generate dense")->speedup == 1);
	assert_non_null(strstr(named(r, "dense at 512")->note, "arbitrary"));
	assert_int_equal(named(r, "prefill 70")->n_pos, 70);
	for (int32_t i = 0; i < r->n_rows; i++)
		assert_null(strstr(r->rows[i].note, "forced"));
	mzm_bench_free(r);
	mzm_model_close(model);
	assert_int_equal(mzm_mem_live(), live);
}

/* Bytes are counted from shapes: the dense ones are what the model says of itself, sparse ones follow from keep. */
static void test_bytes(void **state)
{
	static const float keep[] = {0.25f, 1.0f};
	mzm_bench_params p = short_params();
	(void)state;
	p.parts = MZM_BENCH_PART(MZM_BENCH_SPARSE) | MZM_BENCH_PART(MZM_BENCH_CHECK);
	p.keep = keep;
	p.n_keep = 2;
	mzm_model *model = open_tiny();
	const mzm_model_info *info = mzm_model_get_info(model);
	mzm_bench_bytes w = mzm_bench_weight_bytes(model->weights, false);
	assert_true(w.fixed + w.ffn == (double)info->bytes_per_token);
	assert_true(w.ffn == 2.0 * (double)info->n_ffn_params); /* bf16 */
	mzm_bench_result *r = run(model, &p);
	double dense = named(r, "dense")->bytes_per_pass, kv = dense - (w.fixed + w.ffn);
	assert_true(kv > 0 && kv < dense);
	assert_true(fabs(named(r, "sparse griffin 0.25")->bytes_per_pass - (w.fixed + w.ffn / 4 + kv)) < 1);
	assert_true(fabs(named(r, "sparse topk 0.25")->bytes_per_pass - (w.fixed + w.ffn / 2 + kv)) < 1);
	assert_true(fabs(named(r, "sparse griffin 1")->density - 1) < 1e-9);
	assert_true(fabs(named(r, "check 8")->bytes_per_token - dense / 8) < 1);
	assert_true(named(r, "check 32")->bound_ratio >= named(r, "check 1")->bound_ratio);
	assert_int_equal(r->n_rows, 2 + 1 + 6 + 4);
	mzm_bench_free(r);
	mzm_model_close(model);
}

/* ---- linear attention ---- */

/* What a pass over n_pos positions behind len tokens costs: rows, and steps of the state, which some bring. */
static double cost_at(int32_t len, int32_t n_pos)
{
	double sum = 0;
	for (int32_t t = len; t < len + n_pos; t++)
		sum += t - mzm_kv_base(t) + 1 + (mzm_kv_base(t) != mzm_kv_base(t - 1) ? 300 : 0);
	return sum;
}

/* The places at which passes are timed stand for a whole cycle of steps. */
static void test_places(void **state)
{
	(void)state;
	mzm_err err = {0};
	mzm_model *m;
	mzm_session *s;
	mzm_session_params sp = {.n_threads = 1};
	if (mzm_model_open(&m, "tests/golden/dijiang-groups", NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(mzm_session_create(&s, m, &sp, &err), MZM_OK);
	const mzm_kv *kv = mzm_state_kv(s->state);
	for (int32_t n_pos = 1; n_pos <= 32; n_pos++) {
		mzm_bench_place place[2];
		double mean = 0, got = 0;
		for (int32_t len = 200; len < 232; len++)
			mean += cost_at(len, n_pos) / 32;
		for (int32_t context = 64; context <= 96; context++) {
			int n = mzm_bench_places(place, kv, n_pos, context);
			got = 0;
			for (int i = 0; i < n; i++) {
				got += place[i].weight * cost_at(place[i].len, n_pos);
				assert_true(place[i].len + n_pos <= kv->max_tok && abs(place[i].len - context) <= 48);
			}
			assert_true(fabs(got - mean) < 0.02 * mean);
		}
		assert_int_equal(mzm_bench_places(place, kv, n_pos, 63), 1); /* there is no state */
		assert_int_equal(place[0].len, 63);
	}
	mzm_session_free(s);
	mzm_model_close(m);
}

static void test_linear_rows(void **state)
{
	static const float keep[] = {0.5f};
	mzm_err err = {0};
	mzm_model *m;
	mzm_bench_params p = short_params();
	(void)state;
	p.parts = MZM_BENCH_PART(MZM_BENCH_SPARSE) | MZM_BENCH_PART(MZM_BENCH_CHECK) |
		  MZM_BENCH_PART(MZM_BENCH_CONTEXT);
	p.context = 90;
	p.long_context = 128;
	p.n_prompt = 60;
	p.keep = keep;
	p.n_keep = 1;
	if (mzm_model_open(&m, "tests/golden/dijiang-groups", NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_bench_result *r = run(m, &p);
	for (int32_t i = 0; i < r->n_rows; i++)
		assert_true(isfinite(r->rows[i].ms_median) && r->rows[i].ms_median > 0);
	mzm_bench_free(r);
	mzm_model_close(m);
}

/* ---- forced acceptance ---- */

/* A block of a period P brings (1 - R^P) / (1 - R) tokens when each of its P-1 drafts stands with chance R. */
static void test_forced_acceptance(void **state)
{
	static const double rates[] = {0.5, 0.8, 0.95, 1};
	static const int32_t periods[] = {8, 4, 16, 8};
	mzm_model *model = open_tiny();
	(void)state;
	for (int i = getenv("MIRZAM_SHORT") ? 2 : 0; i < 4; i++) {
		double rate = rates[i], period = periods[i];
		double expected = rate < 1 ? (1 - pow(rate, period)) / (1 - rate) : period;
		mzm_bench_params p = short_params();
		p.parts = MZM_BENCH_PART(MZM_BENCH_GENERATE);
		p.n_gen = 400;
		p.accept_rate = rate;
		p.gen.period = periods[i];
		mzm_bench_result *r = run(model, &p);
		char sirius[32], exact[32];
		snprintf(sirius, sizeof sirius, "generate sirius %d", periods[i]);
		snprintf(exact, sizeof exact, "generate exact %d", periods[i]);
		double aal = named(r, sirius)->aal;
		if (!(fabs(aal - expected) < 0.1 * expected))
			fail_msg("rate %g period %g: AAL %g, expected %g", rate, period, aal, expected);
		assert_true(named(r, exact)->aal == aal); /* the same chances at the same places */
		assert_true(fabs(named(r, sirius)->speedup * named(r, sirius)->ratio_to_dense - 1) < 1e-9);
		assert_true(r->forced_accept == rate);
		mzm_bench_free(r);
	}
	mzm_model_close(model);
}

static void test_forced_lines_say_so(void **state)
{
	mzm_model *model = open_tiny();
	mzm_bench_params p = short_params();
	(void)state;
	p.parts = MZM_BENCH_PART(MZM_BENCH_GENERATE);
	p.accept_rate = 0.95;
	mzm_bench_result *r = run(model, &p);
	int n = 0;
	for (int32_t i = 0; i < r->n_rows; i++) {
		bool checked = r->rows[i].kind == MZM_BENCH_GENERATE && mzm_verifier_for(r->rows[i].mode);
		assert_int_equal(strstr(r->rows[i].note, "forced acceptance 0.95") != NULL, checked);
		n += checked;
	}
	assert_int_equal(n, 4);
	mzm_bench_free(r);
	mzm_model_close(model);
}

/* Outside a benchmark, and after one, the verifier alone decides: exact equals dense. */
static void test_force_ends_with_the_bench(void **state)
{
	mzm_model *model = open_tiny();
	mzm_session *s;
	mzm_gen_params gen = mzm_gen_params_default();
	mzm_gen_result a, b;
	int32_t prompt[] = {1, 2, 3, 4, 5}, kept[64];
	(void)state;
	assert_int_equal(mzm_session_create(&s, model, NULL, NULL), MZM_OK);
	assert_true(s->forced_accept == 0);
	gen.max_tokens = 64;
	gen.keep = 0.1f;
	assert_int_equal(mzm_generate(s, prompt, 5, &gen, &a, NULL), MZM_OK);
	memcpy(kept, a.tokens, sizeof kept);
	gen.mode = MZM_MODE_EXACT;
	assert_int_equal(mzm_generate(s, prompt, 5, &gen, &b, NULL), MZM_OK);
	assert_memory_equal(kept, b.tokens, sizeof kept);
	s->forced_accept = 1; /* the check of this test: forced, it is the draft's text */
	assert_int_equal(mzm_generate(s, prompt, 5, &gen, &b, NULL), MZM_OK);
	assert_int_equal(b.n_corrected, 0);
	assert_memory_not_equal(kept, b.tokens, sizeof kept);
	mzm_session_free(s);
	mzm_model_close(model);
}

/* ---- wrong parameters, cancelling, failing memory ---- */

static void expect_refusal(const mzm_model *model, mzm_bench_params p, mzm_status wanted, const char *text)
{
	mzm_bench_result *r = (mzm_bench_result *)1;
	mzm_err err = {0};
	assert_int_equal(mzm_bench(&r, model, &p, &err), wanted);
	assert_null(r);
	if (!strstr(err.message, text))
		fail_msg("\"%s\" does not say \"%s\"", err.message, text);
}

static void test_refusals(void **state)
{
	static const char *const unknown[] = {"psychic"};
	static const float zero[] = {0.0f}, two[] = {2.0f};
	const mzm_bench_params good = short_params();
	mzm_model *model = open_tiny();
	(void)state;
#define REFUSED(change, status, text)                      \
	do {                                               \
		mzm_bench_params p = good;                 \
		change;                                    \
		expect_refusal(model, p, status, text);    \
	} while (0)
	REFUSED((p.predictors = unknown, p.n_predictors = 1), MZM_EARG, "psychic");
	REFUSED((p.keep = zero, p.n_keep = 1), MZM_EARG, "keep");
	REFUSED((p.keep = two, p.n_keep = 1), MZM_EARG, "keep");
	REFUSED(p.n_keep = 1000, MZM_EARG, "number of shares");
	REFUSED(p.n_repeats = 2, MZM_EARG, "repeats");
	REFUSED(p.n_repeats = 100, MZM_EARG, "repeats");
	REFUSED(p.accept_rate = 1.5, MZM_EARG, "accept-rate");
	REFUSED(p.accept_rate = (double)NAN, MZM_EARG, "accept-rate");
	REFUSED(p.seconds = -1, MZM_EARG, "time");
	REFUSED(p.n_prompt = -1, MZM_EARG, "prompt");
	REFUSED(p.n_prompt = 512, MZM_ECONTEXT, "512");
	REFUSED(p.context = 500, MZM_ECONTEXT, "500");
	REFUSED(p.long_context = 513, MZM_ECONTEXT, "513");
	REFUSED(p.session.n_ctx = 20, MZM_EARG, "too small");
	REFUSED(p.session.n_ctx = 4096, MZM_EARG, "4096");
	REFUSED(p.gen.period = 33, MZM_EARG, "period");
	REFUSED(p.gen.predictor = "psychic", MZM_EARG, "psychic");
#undef REFUSED
	mzm_model_close(model);
}

static int stop_after(void *user, const char *stage, uint64_t done, uint64_t total)
{
	int *left = user;
	assert_non_null(stage);
	assert_true(done >= 1 && done <= total);
	return --*left <= 0;
}

static void test_cancelling(void **state)
{
	mzm_model *model = open_tiny();
	mzm_bench_params p = short_params();
	(void)state;
	p.parts = MZM_BENCH_PART(MZM_BENCH_CHECK); /* nine lines */
	p.progress = stop_after;
	static const int stops[] = {1, 9, 10, 17, 18, 26, 36, 37};
	for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
		int samples = stops[i], left = samples, rounds = samples / 9 - 1; /* the first nine warm up */
		mzm_bench_result *r;
		mzm_err err = {0};
		p.user = &left;
		assert_int_equal(mzm_bench(&r, model, &p, &err), samples <= 36 ? MZM_ECANCELLED : MZM_OK);
		assert_int_equal(r != NULL, rounds > 0);
		assert_int_equal(r ? r->n_rounds : 0, rounds > 0 ? rounds : 0);
		for (int32_t k = 0; r && k < r->n_rows; k++)
			check_row(r, &r->rows[k]);
		mzm_bench_free(r);
	}
	mzm_model_close(model);
}

static void test_failing_memory(void **state)
{
	mzm_model *model = open_tiny();
	mzm_bench_params p = short_params();
	size_t live = mzm_mem_live();
	bool done = false;
	(void)state;
	p.parts = MZM_BENCH_PART(MZM_BENCH_SPARSE) | MZM_BENCH_PART(MZM_BENCH_PREFILL);
	for (long nth = 1; !done && nth < 500; nth++) {
		mzm_bench_result *r;
		mzm_err err = {0};
		mzm_mem_fail_nth(nth);
		mzm_status st = mzm_bench(&r, model, &p, &err);
		done = mzm_mem_fail_nth(0) < nth;
		assert_int_equal(st, done ? MZM_OK : MZM_ENOMEM);
		assert_int_equal(r != NULL, done);
		mzm_bench_free(r);
		assert_int_equal(mzm_mem_live(), live);
	}
	assert_true(done);
	mzm_model_close(model);
}

static int allow(void *user, const char *stage, uint64_t done, uint64_t total)
{
	(void)user, (void)stage, (void)done, (void)total;
	return 0;
}

/* A time too short for anything still gives three rounds, and says that it was shortened. */
static void test_time_shortens(void **state)
{
	mzm_model *model = open_tiny();
	mzm_bench_params p = short_params();
	(void)state;
	p.n_repeats = 50;
	p.seconds = 1e-6;
	p.progress = allow;
	mzm_bench_result *r = run(model, &p);
	assert_int_equal(r->n_rounds, 3);
	assert_true(r->shortened);
	assert_true(r->n_gen < 100);
	mzm_bench_free(r);
	mzm_model_close(model);
}

/* Random weights in memory: no tokenizer, so that prompts are ids and generations go on behind an end. */
static void test_random_weights(void **state)
{
	mzm_model *model;
	mzm_bench_params p = short_params();
	mzm_err err = {0};
	(void)state;
	assert_int_equal(mzm_model_open_synth(&model, "psychic-7b", 0, 1, NULL, &err), MZM_EARG);
	assert_null(model);
	if (mzm_model_open_synth(&model, "gsmini-6m", 1, 1, NULL, NULL) != MZM_OK)
		fail_msg("no random weights");
	assert_int_equal(mzm_model_get_info(model)->n_layers, 1);
	assert_null(mzm_model_tokenizer(model));
	p.parts = MZM_BENCH_PART(MZM_BENCH_GENERATE);
	p.n_gen = 20;
	mzm_bench_result *r = run(model, &p);
	assert_int_equal(named(r, "generate dense")->n_pos, 19); /* without the first */
	for (int32_t i = 0; i < r->n_rows; i++)
		check_row(r, &r->rows[i]);
	mzm_bench_free(r);
	mzm_model_close(model);
}

/* ---- outputs ---- */

static void test_demo_has_a_real_aal(void **state)
{
	mzm_model *model;
	mzm_bench_params p = short_params();
	mzm_err err = {0};
	(void)state;
	if (mzm_model_open(&model, DEMO_MODEL, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	p.parts = MZM_BENCH_PART(MZM_BENCH_GENERATE);
	p.n_gen = getenv("MIRZAM_SHORT") ? 24 : 40;
	p.gen.keep = 1; /* drafts equal to the full model all stand */
	p.gen.period = 8;
	mzm_bench_result *r = run(model, &p);
	assert_true(named(r, "generate exact 8")->accept_rate == 1);
	assert_true(named(r, "generate exact 8")->aal > 5);
	assert_true(named(r, "generate dense")->n_pos >= 10);
	mzm_bench_free(r);
	mzm_model_close(model);
}

static double number(const json_t *o, const char *key)
{
	const json_t *value = json_object_get(o, key);
	if (!json_is_number(value))
		fail_msg("%s is no number", key);
	return json_number_value(value);
}

static void check_json_row(const json_t *row)
{
	static const char *const all[] = {
		"name", "kind", "predictor", "keep", "draft_image", "draft", "positions", "context", "mode", "period",
		"note",
		"tok_per_s", "gb_per_s", "peak_gb_per_s", "gflop_per_s", "peak_gflop_per_s", "percent_of_peak",
		"ratio_to_dense", "bound_ratio", "speedup", "ms_median", "ms_min", "ms_max", "spread_percent",
		"repeats", "calls", "bytes_per_token", "bytes_per_pass", "density", "aal", "accept_rate",
		"forced_accept_rate",
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (!json_object_get(row, all[i]))
			fail_msg("a row without %s", all[i]);
	assert_int_equal(json_object_size(row), sizeof all / sizeof *all);
	assert_true(number(row, "ms_median") > 0 && number(row, "peak_gb_per_s") > 0);
	assert_true(number(row, "percent_of_peak") > 0 && number(row, "repeats") == 3);
}

static mzm_cli_bench describe(const mzm_model *model, const mzm_bench_params *p, const mzm_bench_result *r)
{
	mzm_cli_bench b = {.model = model, .info = mzm_model_get_info(model), .params = p, .result = r,
			   .name = "a<b&\"c\".mzm"};
	return b;
}

static void test_json(void **state)
{
	mzm_model *model = open_tiny();
	mzm_bench_params p = short_params();
	(void)state;
	p.accept_rate = 0.9;
	mzm_bench_result *r = run(model, &p);
	mzm_cli_bench b = describe(model, &p, r);
	json_t *root = mzm_cli_bench_json(&b), *rows = json_object_get(root, "rows"), *row;
	size_t i, n_forced = 0;
	assert_non_null(root);
	assert_true(json_is_object(json_object_get(root, "settings")));
	assert_true(number(json_object_get(root, "machine"), "peak_gb_per_s") > 0);
	assert_true(number(json_object_get(root, "settings"), "forced_accept_rate") == 0.9);
	assert_int_equal(json_array_size(rows), r->n_rows);
	json_array_foreach(rows, i, row) {
		check_json_row(row);
		n_forced += json_is_number(json_object_get(row, "forced_accept_rate"));
	}
	assert_int_equal(n_forced, 4);
	json_decref(root);
	mzm_bench_free(r);
	mzm_model_close(model);
}

/* The text that a writer writes. -> free */
static char *written(void (*write)(const mzm_cli_bench *b, FILE *out), const mzm_cli_bench *b)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);
	assert_non_null(f);
	write(b, f);
	assert_int_equal(fclose(f), 0);
	return text;
}

static int occurrences(const char *text, const char *word)
{
	int n = 0;
	for (; (text = strstr(text, word)) != NULL; text += strlen(word))
		n++;
	return n;
}

static void test_table_and_picture(void **state)
{
	mzm_model *model = open_tiny();
	mzm_bench_params p = short_params();
	(void)state;
	p.accept_rate = 0.9;
	mzm_bench_result *r = run(model, &p);
	mzm_cli_bench b = describe(model, &p, r);
	b.origin = "made by a test";
	r->disturbed = true;
	char *table = written(mzm_cli_bench_table, &b), *words = written(mzm_cli_bench_words, &b);
	char *svg = written(mzm_cli_bench_svg, &b);
	for (int32_t i = 0; i < r->n_rows; i++) { /* a generation without the word that the heading has */
		bool generates = r->rows[i].kind == MZM_BENCH_GENERATE;
		assert_non_null(strstr(table, r->rows[i].name + (generates ? strlen("generate ") : 0)));
	}
	assert_int_equal(occurrences(table, "forced acceptance 0.9"), 4);
	assert_non_null(strstr(words, "Forced acceptance 0.9"));
	assert_non_null(strstr(words, "other work"));
	assert_non_null(strstr(words, "made by a test"));
	assert_memory_equal(svg, "<svg ", 5);
	assert_string_equal(svg + strlen(svg) - 7, "</svg>\n");
	assert_int_equal(occurrences(svg, "<text"), occurrences(svg, "</text>"));
	assert_int_equal(occurrences(svg, "<g"), occurrences(svg, "</g>"));
	assert_non_null(strstr(svg, "a&lt;b&amp;&quot;c&quot;.mzm"));
	assert_non_null(strstr(svg, "made by a test"));
	assert_null(strstr(svg, "nan"));
	assert_null(strstr(svg, "inf"));
	free(table);
	free(words);
	free(svg);
	mzm_bench_free(r);
	mzm_model_close(model);
}

/* Only the peaks and the dense token: outputs without most of their parts. */
static void test_outputs_of_little(void **state)
{
	mzm_model *model = open_tiny();
	mzm_bench_params p = short_params();
	(void)state;
	p.parts = MZM_BENCH_PART(MZM_BENCH_DENSE);
	mzm_bench_result *r = run(model, &p);
	mzm_cli_bench b = describe(model, &p, r);
	assert_int_equal(r->n_rows, 3);
	char *table = written(mzm_cli_bench_table, &b), *words = written(mzm_cli_bench_words, &b);
	char *svg = written(mzm_cli_bench_svg, &b);
	assert_null(strstr(table, "Generations"));
	assert_null(strstr(words, "A check of"));
	assert_non_null(strstr(svg, "Share of the peak"));
	assert_null(strstr(svg, "A sparse token"));
	free(table);
	free(words);
	free(svg);
	mzm_bench_free(r);
	mzm_model_close(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stats),
		cmocka_unit_test(test_median_ratio),
		cmocka_unit_test(test_repeat),
		cmocka_unit_test(test_peak_reads_every_byte),
		cmocka_unit_test(test_rows_are_complete),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_forced_acceptance),
		cmocka_unit_test(test_forced_lines_say_so),
		cmocka_unit_test(test_force_ends_with_the_bench),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_cancelling),
		cmocka_unit_test(test_failing_memory),
		cmocka_unit_test(test_time_shortens),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_linear_rows),
		cmocka_unit_test(test_random_weights),
		cmocka_unit_test(test_demo_has_a_real_aal),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_table_and_picture),
		cmocka_unit_test(test_outputs_of_little),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
