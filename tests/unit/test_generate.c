/* test_generate.c - the generation loop on the shipped demo model: exact equals dense (tokens and bits), in every
 * format of weights and by every kernel table; stops and limits inside blocks, the counters, and no allocation while
 * decoding.
 *
 * MIRZAM_LONG=1 runs the whole grid over all 500 problems; MIRZAM_SHORT=1, for sanitizers, a corner of it. */
#include <math.h>

#include "counting.h"
#include "demo.h"
#include "state_rig.h"
#include "tiny_model.h"

/* ---- rig ---- */

enum { MAX_TOK = 300 };

typedef struct record {
	int32_t ids[MAX_TOK];
	float   full_prob[MAX_TOK]; /* of the verified tokens */
	int     n, n_kind[6];
	char    text[8192];
	size_t  text_len;
	int     stop_after; /* tokens; 0 = never */
	int     last_check, n_drafted;      /* draft tokens in all blocks, as the events tell */
	int     n_full_checks, n_full_gained, full_block; /* checks of blocks that long, and what they gained */
	int     n_calls_after_stop; /* callbacks that came although one had said stop */
	long    allocations_at_first, allocations_at_last;
} record;

static mzm_model *model;
static mzm_session *sessions[3]; /* by number of threads */

static int on_token(void *user, const mzm_token_event *e)
{
	record *r = user;
	r->n_calls_after_stop += r->stop_after && r->n >= r->stop_after;
	r->n_kind[e->kind]++;
	if (e->check != r->last_check) {
		r->n_drafted += e->block - 1;
		r->n_full_checks += e->block == r->full_block;
	}
	r->last_check = e->check;
	r->n_full_gained += e->block == r->full_block && e->kind != MZM_TOKEN_ROLLED_BACK;
	if (e->kind == MZM_TOKEN_ROLLED_BACK)
		return 0;
	if (r->n == 0)
		r->allocations_at_first = atomic_load(&n_allocations);
	r->allocations_at_last = atomic_load(&n_allocations);
	r->ids[r->n] = e->id;
	r->full_prob[r->n++] = e->full_prob;
	return r->stop_after && r->n >= r->stop_after;
}

static int on_text(void *user, const char *bytes, size_t n)
{
	record *r = user;
	r->n_calls_after_stop += r->stop_after && r->n >= r->stop_after;
	memcpy(r->text + r->text_len, bytes, n);
	r->text_len += n;
	r->text[r->text_len] = 0;
	return 0;
}

static mzm_gen_params params(mzm_mode mode, const char *predictor, double keep, int period)
{
	mzm_gen_params p = mzm_gen_params_default();
	p.mode = mode;
	p.predictor = predictor;
	p.keep = (float)keep;
	p.period = period;
	p.max_tokens = 256;
	return p;
}

static mzm_gen_result generate(record *r, int threads, const char *prompt, mzm_gen_params p)
{
	mzm_gen_result result;
	mzm_err err = {0};
	int stop_after = r->stop_after;
	memset(r, 0, sizeof *r);
	r->stop_after = stop_after;
	r->full_block = p.period;
	p.on_token = on_token;
	p.on_text = on_text;
	p.user = r;
	if (mzm_generate_text(sessions[threads], prompt, &p, &result, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(result.n_tokens, r->n);
	assert_memory_equal(result.tokens, r->ids, sizeof(int32_t) * (size_t)r->n);
	return result;
}

static void assert_same_text(const record *a, const record *b)
{
	assert_int_equal(a->n, b->n);
	assert_memory_equal(a->ids, b->ids, sizeof(int32_t) * (size_t)a->n);
	assert_int_equal(a->text_len, b->text_len);
	assert_memory_equal(a->text, b->text, a->text_len);
}

/* ---- exact equals dense ---- */

/* Costs that let the monitor draft, a little different for each problem. */
static mzm_costs some_costs(int i)
{
	mzm_costs c = {.sparse = 0.4f + 0.05f * (float)(i % 9)};
	for (int m = 1; m <= MZM_MAX_PERIOD; m++)
		c.check[m] = 1.0f + 0.01f * (float)(i % 5) * (float)(m - 1);
	return c;
}

static void exact_on_problem(int i, const record *dense, mzm_session *dense_session)
{
	static const char *const predictors[] = {"griffin", "topk",	 "random",
						 "wina",    "countdown", "griffin-live"};
	static const double keeps[] = {0.2, 0.5, 0.8};
	static const int periods[] = {2, 5, 16, 0};
	bool all = getenv("MIRZAM_LONG") && !getenv("MIRZAM_SHORT");
	char *prompt = demo_prompt(i);
	int32_t last = dense->ids[dense->n - 1];
	for (int c = 0; c < 144; c++) {
		int threads = 1 + c % 2, pred = c / 2 % 6, keep = c / 12 % 3, period = c / 36;
		if (!all && (c * 7 + i * 5) % 24 != 0) /* a 24th of the grid a problem, another one each time */
			continue;
		record r = {0};
		mzm_gen_params p = params(MZM_MODE_EXACT, predictors[pred], keeps[keep], periods[period]);
		p.seed = (uint64_t)i;
		mzm_costs costs = some_costs(i);
		p.costs = i % 4 ? &costs : NULL; /* NULL: measured, anew for each predictor, which takes its time */
		mzm_gen_result res = generate(&r, threads, prompt, p);
		assert_same_text(&r, dense);
		assert_memory_equal(r.full_prob, dense->full_prob, sizeof(float) * (size_t)r.n);
		assert_int_equal(res.finish, MZM_FINISH_EOS);
		if (!all || c % 24 == 0)
			rig_same_state(sessions[threads], dense_session, last);
	}
	free(prompt);
}

static void test_exact_equals_dense(void **state)
{
	(void)state;
	int n = getenv("MIRZAM_SHORT") ? 2 : getenv("MIRZAM_LONG") ? 500 : 10;
	for (int i = 0; i < n; i++) {
		char *prompt = demo_prompt(i);
		assert_non_null(prompt);
		record dense = {0};
		generate(&dense, 0, prompt, params(MZM_MODE_DENSE, "griffin", 1, 16)); /* a session of its own */
		exact_on_problem(i, &dense, sessions[0]);
		free(prompt);
		if (i % 10 == 9 && n > 16)
			print_message("%d problems\n", i + 1);
	}
}

static void test_exact_equals_dense_when_sampling(void **state)
{
	(void)state;
	int n_other = 0;
	for (int i = 0; i < (getenv("MIRZAM_SHORT") ? 4 : 8); i++) {
		char *prompt = demo_prompt(20 + i);
		mzm_gen_params p = params(MZM_MODE_DENSE, "topk", 0.4, i % 2 ? 8 : 0);
		record dense = {0}, exact = {0}, other = {0};
		p.temp = 2.5f;
		p.top_k = i & 1 ? 40 : 0;
		p.top_p = i & 2 ? 0.98f : 1;
		p.min_p = i & 4 ? 0.02f : 0;
		p.repeat_penalty = i & 1 ? 1.1f : 1;
		p.seed = 77 + (uint64_t)i;
		p.max_tokens = getenv("MIRZAM_SHORT") ? 36 : 100;
		generate(&dense, 1, prompt, p);
		p.mode = MZM_MODE_EXACT;
		generate(&exact, 2, prompt, p);
		assert_same_text(&exact, &dense);
		p.seed++;
		generate(&other, 1, prompt, p);
		n_other += other.n != exact.n || memcmp(other.ids, exact.ids, sizeof(int32_t) * (size_t)exact.n) != 0;
		free(prompt);
	}
	assert_true(n_other >= 2); /* the seed matters: it is sampling */
}

/* A threshold above one half accepts exactly the dense choice. */
static void test_high_threshold_equals_dense(void **state)
{
	(void)state;
	for (int i = 0; i < (getenv("MIRZAM_SHORT") ? 4 : 6); i++) { /* 4: every setting once */
		char *prompt = demo_prompt(40 + i);
		record dense = {0}, r = {0};
		generate(&dense, 1, prompt, params(MZM_MODE_DENSE, "griffin", 1, 16));
		for (int rule = MZM_ACCEPT_SIRIUS; rule <= MZM_ACCEPT_REFERENCE; rule++) {
			mzm_gen_params p = params(MZM_MODE_SIRIUS, i & 1 ? "topk" : "griffin", 0.4, i & 2 ? 16 : 3);
			p.threshold = 0.51f;
			p.accept = (mzm_accept)rule;
			generate(&r, 2, prompt, p);
			assert_same_text(&r, &dense);
		}
		free(prompt);
	}
}

static void test_keep_all_equals_dense(void **state)
{
	(void)state;
	char *prompt = demo_prompt(3);
	record dense = {0}, r = {0};
	mzm_gen_params p = params(MZM_MODE_DENSE, "griffin", 1, 16);
	p.max_tokens = getenv("MIRZAM_SHORT") ? 48 : 256;
	generate(&dense, 1, prompt, p);
	for (int i = 0; mzm_predictor_name(i); i++) {
		if (mzm_predictor_at(i)->calibration)
			continue; /* test_calibrate.c has those */
		p.predictor = mzm_predictor_name(i);
		p.mode = MZM_MODE_SPARSE;
		mzm_gen_result res = generate(&r, 2, prompt, p);
		assert_same_text(&r, &dense);
		assert_true(res.density == 1.0);
		p.mode = MZM_MODE_SIRIUS;
		res = generate(&r, 2, prompt, p);
		assert_same_text(&r, &dense);
		assert_int_equal(res.n_corrected, 0);
		assert_int_equal(res.n_rolled_back, 0);
	}
	generate(&r, 2, prompt, params(MZM_MODE_SPARSE, "griffin", 0.2, 16)); /* or this test could not fail */
	assert_true(r.n != dense.n || memcmp(r.ids, dense.ids, sizeof(int32_t) * (size_t)r.n) != 0);
	free(prompt);
}

/* ---- every format and table ---- */

/* Opens a model in place of the one that the tests share; -> restore */
typedef struct shared {
	mzm_model   *model;
	mzm_session *sessions[3];
} shared;

static shared replace(const char *path, const char *isa, const char *kv_type)
{
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	shared kept = {model, {sessions[0], sessions[1], sessions[2]}};
	mp.isa = isa;
	if (mzm_model_open(&model, path, &mp, &err) != MZM_OK)
		fail_msg("%s", err.message);
	for (int i = 0; i < 3; i++) {
		mzm_session_params sp = {.n_threads = i ? i : 1, .kv_type = kv_type};
		if (mzm_session_create(&sessions[i], model, &sp, &err) != MZM_OK)
			fail_msg("%s", err.message);
	}
	return kept;
}

static void restore(shared kept)
{
	for (int i = 0; i < 3; i++)
		mzm_session_free(sessions[i]);
	mzm_model_close(model);
	model = kept.model;
	memcpy(sessions, kept.sessions, sizeof sessions);
}

static void continue_ids(record *r, mzm_session *s, const int32_t *ids, int n, mzm_gen_params p)
{
	mzm_gen_result result;
	mzm_err err = {0};
	memset(r, 0, sizeof *r);
	p.on_token = on_token;
	p.user = r;
	if (mzm_generate(s, ids, n, &p, &result, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(result.n_tokens, r->n);
}

/* The shared model: exact equals dense to the last bit of its state; so do passes that keep every neuron. */
static void expect_modes_agree(const int32_t *ids, int n, int max_tokens, int turn)
{
	static const struct {
		const char *predictor;
		double keep;
		int period;
	} ways[] = {{"griffin", 0.5, 16}, {"topk", 0.3, 5}, {"random", 0.8, 0}, {"griffin", 0.2, 2}};
	static record dense, r;
	mzm_costs costs = some_costs(3);
	mzm_gen_params p = params(MZM_MODE_DENSE, "griffin", 1, 16);
	p.max_tokens = max_tokens;
	p.ignore_eos = true;
	continue_ids(&dense, sessions[1], ids, n, p);
	assert_int_equal(dense.n, max_tokens);
	int32_t last = dense.ids[dense.n - 1];
	for (int k = 0; k < 2; k++) {
		int i = (turn + k) % 4;
		p = params(MZM_MODE_EXACT, ways[i].predictor, ways[i].keep, ways[i].period);
		p.max_tokens = max_tokens;
		p.ignore_eos = true;
		p.costs = &costs;
		continue_ids(&r, sessions[2], ids, n, p);
		assert_int_equal(r.n, dense.n);
		assert_memory_equal(r.ids, dense.ids, (size_t)r.n * sizeof *r.ids);
		assert_memory_equal(r.full_prob, dense.full_prob, (size_t)r.n * sizeof *r.full_prob);
		rig_same_state(sessions[2], sessions[1], last);
	}
	p = params(MZM_MODE_SPARSE, "topk", 1, 16);
	p.no_draft_image = true;
	p.max_tokens = max_tokens;
	p.ignore_eos = true;
	continue_ids(&r, sessions[2], ids, n, p);
	assert_memory_equal(r.ids, dense.ids, (size_t)dense.n * sizeof *r.ids);
	rig_same_state(sessions[2], sessions[1], last);
}

static const struct {
	const char *name, *quant, *draft;
} formats[] = {
	{"bf16", "bf16", NULL}, {"q8", "q8", NULL}, {"q4", "q4", NULL}, {"f16 and a q8 draft image", "f16", "q8"},
	{"bf16 and a q4 draft image", "bf16", "q4"},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };
static const char *const kv_types[] = {"f16", "f32", "bf16"};

static void write_format(const char *from, const char *to, int i)
{
	mzm_err err = {0};
	mzm_import_params ip = mzm_import_params_default();
	ip.quant = formats[i].quant;
	ip.draft_quant = formats[i].draft;
	ip.zstd = 0;
	if (mzm_import(from, to, &ip, &err) != MZM_OK)
		fail_msg("%s", err.message);
}

/* By every table; KV types take turns. */
static void expect_every_table(const char *path, const int32_t *ids, int n, int max_tokens, int scalar_tokens, int turn)
{
	for (int t = 0; mzm_isa_name(t); t++) {
		bool scalar = strcmp(mzm_isa_name(t), "scalar") == 0;
		shared kept = replace(path, mzm_isa_name(t), kv_types[(turn + t) % 3]);
		expect_modes_agree(ids, n, scalar ? scalar_tokens : max_tokens, t + turn);
		restore(kept);
	}
}

/* Random weights: drafts are nearly always wrong, and roll-back is the rule. */
static void test_formats_of_random_weights(void **state)
{
	(void)state;
	tiny_spec spec = {.n_layers = 2, .dim = 96, .n_ffn = 130, .n_heads = 6, .n_kv_heads = 2, .head_dim = 16,
			  .n_vocab = 257, .n_ctx = 128, .dtype = "F32", .eos = -1, .relu = true};
	int32_t ids[20];
	char path[128];
	tiny_model *m = tiny_make(&spec, 41);
	tiny_write_tokenizer(m);
	tiny_path(path, m, "form.mzm");
	for (int i = 0; i < 20; i++)
		ids[i] = i * 37 % 257;
	for (int f = 0; f < N_FORMATS; f++) {
		write_format(m->dir, path, f);
		for (int turn = 0; turn < testing_count(1, 3); turn++)
			expect_every_table(path, ids, 20, getenv("MIRZAM_SHORT") ? 12 : 40, 8, turn + f);
	}
	tiny_free(m);
}

static void test_formats_of_the_demo_model(void **state)
{
	(void)state;
	char dir[256], path[300];
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/form.mzm", dir);
	for (int f = 1; f < N_FORMATS; f += 1 + (f == 2)) { /* bf16 alone is in test_forms.c */
		int32_t *ids;
		size_t n;
		char *prompt = demo_prompt(120 + f);
		write_format(DEMO_MODEL, path, f);
		assert_int_equal(mzm_tokenize(model->tokenizer, prompt, strlen(prompt), MZM_TOK_ADD_SPECIAL, &ids, &n,
					      NULL),
				 MZM_OK);
		assert_true(n > 16);
		if (getenv("MIRZAM_SHORT"))
			expect_every_table(path, ids, 8, 6, 3, f);
		else
			expect_every_table(path, ids, 16, 24, 6, f);
		mzm_ids_free(ids);
		free(prompt);
	}
	testing_remove(dir);
}

/* ---- stops and limits ---- */

static void test_limits(void **state)
{
	(void)state;
	static const mzm_mode modes[] = {MZM_MODE_EXACT, MZM_MODE_SIRIUS, MZM_MODE_DENSE};
	int each = getenv("MIRZAM_SHORT") ? 10 : 20; /* of the limits below: a block is 7 */
	char *prompt = demo_prompt(5);
	record whole = {0}, r = {0};
	mzm_gen_params p = params(MZM_MODE_DENSE, "griffin", 0.5, 7);
	generate(&whole, 1, prompt, p);
	for (int limit = 1; limit <= whole.n + 2; limit += limit < each || limit > whole.n - 3 ? 1 : 5) {
		for (int m = 0; m < 3; m++) {
			p = params(modes[m], "griffin", 0.5, 7);
			p.threshold = 0.51f; /* so that sirius, too, has the dense text */
			p.max_tokens = limit;
			mzm_gen_result res = generate(&r, 1, prompt, p);
			assert_int_equal(r.n, limit < whole.n ? limit : whole.n);
			assert_memory_equal(r.ids, whole.ids, sizeof(int32_t) * (size_t)r.n);
			assert_int_equal(res.finish, limit < whole.n ? MZM_FINISH_LENGTH : MZM_FINISH_EOS);
			assert_int_equal(mzm_session_len(sessions[1]), res.n_prompt + r.n - 1);
		}
	}
	free(prompt);
}

static void test_stop_strings(void **state)
{
	(void)state;
	char *prompt = demo_prompt(7);
	record whole = {0}, dense = {0}, r = {0};
	generate(&whole, 1, prompt, params(MZM_MODE_DENSE, "griffin", 0.5, 16));
	for (size_t at = 0; at + 9 < whole.text_len; at += 11) { /* every few bytes, across token borders */
		char stop[10] = {0};
		const char *stops[] = {"never there", stop};
		memcpy(stop, whole.text + at, 2 + at % 8);
		mzm_gen_params p = params(MZM_MODE_DENSE, "griffin", 0.5, 16);
		p.stop = stops;
		p.n_stop = 2;
		mzm_gen_result res = generate(&dense, 1, prompt, p);
		assert_int_equal(res.finish, MZM_FINISH_STOP);
		const char *first = strstr(whole.text, stop);
		assert_int_equal(dense.text_len, first - whole.text);
		assert_memory_equal(dense.text, whole.text, dense.text_len);
		p.mode = MZM_MODE_EXACT;
		res = generate(&r, 2, prompt, p);
		assert_int_equal(res.finish, MZM_FINISH_STOP);
		assert_same_text(&r, &dense);
		assert_int_equal(mzm_session_len(sessions[2]), res.n_prompt + r.n - 1);
	}
	/* a stop that spells a special token is that token, without being the model's end of text */
	const char *special[] = {"<|endoftext|>"};
	mzm_gen_params p = params(MZM_MODE_EXACT, "griffin", 0.5, 16);
	p.ignore_eos = true;
	p.stop = special;
	p.n_stop = 1;
	mzm_gen_result res = generate(&r, 1, prompt, p);
	assert_int_equal(res.finish, MZM_FINISH_STOP);
	assert_same_text(&r, &whole);
	free(prompt);
}

static void test_context_end(void **state)
{
	(void)state;
	mzm_session_params sp = {.n_ctx = 150, .n_threads = 1};
	mzm_session *kept = sessions[1], *small;
	assert_int_equal(mzm_session_create(&small, model, &sp, NULL), MZM_OK);
	sessions[1] = small;
	char *prompt = demo_prompt(9);
	record dense = {0}, r = {0};
	mzm_gen_params p = params(MZM_MODE_DENSE, "griffin", 0.5, 16);
	p.ignore_eos = true;
	p.max_tokens = 0;
	mzm_gen_result res = generate(&dense, 1, prompt, p);
	assert_int_equal(res.finish, MZM_FINISH_CONTEXT);
	assert_int_equal(res.n_prompt + res.n_tokens, 150);
	for (int period = 0; period <= 32; period += getenv("MIRZAM_SHORT") ? 8 : 4) {
		p.mode = MZM_MODE_EXACT;
		p.period = period;
		res = generate(&r, 1, prompt, p);
		assert_int_equal(res.finish, MZM_FINISH_CONTEXT);
		assert_same_text(&r, &dense);
	}
	/* a prompt that leaves no room for one token */
	int32_t ids[150] = {0};
	mzm_err err = {0};
	assert_int_equal(mzm_generate(small, ids, 150, &p, &res, &err), MZM_ECONTEXT);
	assert_non_null(strstr(err.message, "150"));
	assert_int_equal(mzm_generate(small, ids, 149, &p, &res, NULL), MZM_OK);
	assert_int_equal(res.n_tokens, 1);
	assert_int_equal(mzm_generate(small, ids, 0, &p, &res, NULL), MZM_EARG);
	free(prompt);
	mzm_session_free(small);
	sessions[1] = kept;
}

/* ---- counters ---- */

static void test_counters(void **state)
{
	(void)state;
	for (int i = 0; i < 6; i++) {
		char *prompt = demo_prompt(60 + i);
		record r = {0};
		int n = i & 1 ? 16 : 5;
		mzm_gen_params p = params(MZM_MODE_SIRIUS, i & 2 ? "topk" : "griffin", 0.5, n);
		p.ignore_eos = true; /* every block but the last one is then full */
		p.max_tokens = 120;
		mzm_gen_result res = generate(&r, 1, prompt, p);
		assert_int_equal(r.n_kind[MZM_TOKEN_FIRST], 1);
		assert_int_equal(r.n_kind[MZM_TOKEN_ACCEPTED], res.n_accepted);
		assert_int_equal(r.n_kind[MZM_TOKEN_CORRECTED], res.n_corrected);
		assert_int_equal(r.n_kind[MZM_TOKEN_BONUS], res.n_bonus);
		assert_int_equal(r.n_kind[MZM_TOKEN_ROLLED_BACK], res.n_rolled_back);
		assert_int_equal(res.n_gained, res.n_tokens - 1);
		assert_int_equal(res.n_gained, res.n_accepted + res.n_corrected + res.n_bonus);
		assert_int_equal(res.n_sparse_passes, res.n_accepted + res.n_rolled_back);
		assert_int_equal(res.n_dense_positions, res.n_sparse_passes + res.n_checks);
		assert_int_equal(res.n_checks_paper, res.n_checks - 1);
		assert_int_equal(res.n_sparse_passes, r.n_drafted);
		/* W over whole blocks is the paper's effective density; near the limit blocks get shorter */
		assert_true(r.n_full_checks > 0);
		double w = (r.n_full_checks * ((n - 1) * res.density + 1)) / r.n_full_gained;
		double aal = (double)r.n_full_gained / r.n_full_checks;
		assert_true(fabs(w - ((n - 1) * res.density + 1) / aal) < 1e-12);
		assert_true(aal <= n);
		/* MLP share 0.73 of the parameters: the reference's densities */
		assert_true(fabs(res.density - (i & 2 ? 0.7552 : 0.6328)) < 5e-5);
		free(prompt);
	}
}

static void test_cancel(void **state)
{
	(void)state;
	char *prompt = demo_prompt(2);
	for (int stop = 1; stop < 30; stop += 7) {
		record r = {.stop_after = stop};
		mzm_gen_result res = generate(&r, 2, prompt, params(MZM_MODE_EXACT, "griffin", 0.5, 16));
		assert_int_equal(res.finish, MZM_FINISH_CANCELLED);
		assert_int_equal(r.n, stop);
		assert_int_equal(r.n_calls_after_stop, 0);
		assert_int_equal(mzm_session_len(sessions[2]), res.n_prompt + r.n - 1);
	}
	free(prompt);
}

static void expect_no_allocation(int n_predictors, int max_tokens)
{
	static const mzm_mode modes[] = {MZM_MODE_DENSE, MZM_MODE_SPARSE, MZM_MODE_SIRIUS, MZM_MODE_EXACT};
	static const char *const stops[] = {"never there"};
	char *prompt = demo_prompt(4);
	for (int m = 0; m < 4; m++) {
		for (int i = 0; mzm_predictor_name(i) && i < n_predictors; i++) {
			if (mzm_predictor_at(i)->calibration)
				continue; /* test_calibrate.c has those */
			record r = {0};
			mzm_gen_params p = params(modes[m], mzm_predictor_name(i), 0.5, m == 3 ? 0 : 16);
			p.max_tokens = max_tokens;
			p.stop = stops;
			p.n_stop = 1;
			if (modes[m] != MZM_MODE_SIRIUS) {
				p.temp = 0.5f;
				p.top_p = 0.95f;
				p.repeat_penalty = 1.05f;
			}
			generate(&r, 2, prompt, p);
			assert_true(r.n > 5);
			assert_true(r.allocations_at_first > 0);
			assert_int_equal(r.allocations_at_last, r.allocations_at_first);
		}
	}
	free(prompt);
}

static void test_no_allocation_while_decoding(void **state)
{
	(void)state;
#ifdef NO_COUNTING
	print_message("a sanitizer owns malloc: not counted in this build\n");
	skip();
#endif
	char dir[256], path[300];
	expect_no_allocation(100, 256);
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/form.mzm", dir);
	for (int f = 1; f < N_FORMATS; f += 3) { /* quantised; with a draft image */
		write_format(DEMO_MODEL, path, f);
		shared kept = replace(path, NULL, kv_types[f % 3]);
		expect_no_allocation(1, 20);
		restore(kept);
	}
	testing_remove(dir);
}

/* A threshold of confidence ends drafts early, in any mode that checks, and alters no text in exact mode. */
static void test_check_below(void **state)
{
	(void)state;
	static const int periods[] = {16, 0};
	for (int i = 0; i < 4; i++) {
		char *prompt = demo_prompt(40 + i / 2);
		record dense = {0}, full = {0}, early = {0};
		mzm_costs costs = some_costs(0);
		generate(&dense, 1, prompt, params(MZM_MODE_DENSE, "griffin", 0.5, 16));
		mzm_gen_params p = params(MZM_MODE_EXACT, "griffin", 0.5, periods[i % 2]);
		p.costs = &costs;
		p.fresh_monitor = true;
		mzm_gen_result a = generate(&full, 1, prompt, p);
		p.check_below = 0.9f;
		mzm_gen_result b = generate(&early, 2, prompt, p);
		assert_same_text(&dense, &full);
		assert_same_text(&dense, &early);
		assert_true(b.n_sparse_passes * a.n_checks < a.n_sparse_passes * b.n_checks); /* shorter drafts */
		p.check_below = 1; /* nothing is that sure */
		mzm_gen_result c = generate(&early, 1, prompt, p);
		assert_same_text(&dense, &early);
		assert_true(c.n_sparse_passes <= c.n_checks);
		free(prompt);
	}
}

/* A request leaves nothing behind that the next one could see (E10). */
static void test_requests_are_independent(void **state)
{
	(void)state;
	mzm_session_params sp = {.n_threads = 2};
	mzm_costs costs = {.sparse = 0.7f};
	for (int i = 1; i <= MZM_MAX_PERIOD; i++)
		costs.check[i] = 1.0f + 0.02f * (float)i;
	for (int i = 0; i < (getenv("MIRZAM_SHORT") ? 2 : 4); i++) {
		char *prompt = demo_prompt(80 + i);
		record r = {0}, fresh = {0};
		mzm_gen_params p = params(MZM_MODE_SIRIUS, "griffin", 0.5, 0);
		p.costs = &costs;
		p.fresh_monitor = true;
		generate(&r, 2, prompt, p);
		mzm_session *kept = sessions[2];
		assert_int_equal(mzm_session_create(&sessions[2], model, &sp, NULL), MZM_OK);
		generate(&fresh, 2, prompt, p);
		assert_same_text(&r, &fresh);
		mzm_session_free(sessions[2]);
		sessions[2] = kept;
		free(prompt);
	}
}

static void test_measured_costs(void **state)
{
	(void)state;
	/* a context with no room for long checks must not leave its costs to the next request */
	int32_t *ids = calloc(1023, sizeof *ids);
	mzm_session *fresh;
	mzm_gen_result res;
	mzm_session_params sp = {.n_threads = 1};
	mzm_gen_params q = params(MZM_MODE_EXACT, "griffin", 0.5, 0);
	assert_int_equal(mzm_session_create(&fresh, model, &sp, NULL), MZM_OK);
	assert_int_equal(mzm_generate(fresh, ids, 1023, &q, &res, NULL), MZM_OK);
	assert_true(fresh->costs_of[0].sparse == 0);
	q.max_tokens = 5;
	assert_int_equal(mzm_generate(fresh, ids, 20, &q, &res, NULL), MZM_OK);
	assert_int_equal(res.finish, MZM_FINISH_LENGTH);
	assert_true(fresh->costs_of[0].sparse > 0 && fresh->costs_of[0].check[32] > 1);
	mzm_session_free(fresh);
	free(ids);

	mzm_costs c;
	mzm_gen_params p = params(MZM_MODE_EXACT, "griffin", 0.5, 0);
	int32_t len = mzm_session_len(sessions[1]);
	assert_int_equal(mzm_session_measure_costs(sessions[1], &p, &c, NULL), MZM_OK);
	assert_int_equal(mzm_session_len(sessions[1]), len);
	assert_true(c.dense_ms > 0 && c.sparse > 0);
	for (int i = 2; i <= MZM_MAX_PERIOD; i++)
		assert_true(c.check[i] >= c.check[i - 1]);
}

static void test_refusals(void **state)
{
	(void)state;
	mzm_gen_params p = params(MZM_MODE_SIRIUS, "griffin", 0.5, 16);
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_OK);
	p.temp = 0.7f;
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_EUNDEFINED);
	p.mode = MZM_MODE_EXACT;
	assert_int_equal(mzm_gen_params_check(&p, NULL), MZM_OK);
#define REFUSED(field, value)                                               \
	do {                                                                \
		mzm_gen_params q = params(MZM_MODE_DENSE, "griffin", 0.5, 16); \
		mzm_err err = {0};                                          \
		q.field = value;                                            \
		assert_int_equal(mzm_gen_params_check(&q, &err), MZM_EARG); \
		assert_true(strlen(err.message) > 5);                       \
	} while (0)
	REFUSED(keep, 0);
	REFUSED(keep, 1.01f);
	REFUSED(keep, NAN);
	REFUSED(period, 33);
	REFUSED(period, -1);
	REFUSED(check_below, 1.5f);
	REFUSED(check_below, NAN);
	REFUSED(threshold, 1.5f);
	REFUSED(check_temp, 0);
	REFUSED(temp, -1);
	REFUSED(temp, NAN);
	REFUSED(temp, 1e30f);
	REFUSED(top_k, -1);
	REFUSED(top_p, 1.1f);
	REFUSED(min_p, -0.1f);
	REFUSED(repeat_penalty, 0);
	REFUSED(max_tokens, -5);
	REFUSED(predictor, "clairvoyant");
	REFUSED(draft, "horoscope");
	REFUSED(n_stop, 1);
	const char *half_a_character[] = {"\x85zz"};
	mzm_costs no_costs = {0};
	mzm_gen_params r = params(MZM_MODE_EXACT, "griffin", 0.5, 0);
	r.stop = half_a_character;
	r.n_stop = 1;
	assert_int_equal(mzm_gen_params_check(&r, NULL), MZM_EARG); /* text leaves in whole characters */
	r.n_stop = 0;
	r.costs = &no_costs;
	assert_int_equal(mzm_gen_params_check(&r, NULL), MZM_EARG);
	assert_int_equal(mzm_gen_params_check(NULL, NULL), MZM_OK);
	REFUSED(mode, (mzm_mode)9);
#undef REFUSED
	mzm_mode m;
	for (int i = 0; i < 4; i++)
		assert_true(mzm_mode_parse(&m, mzm_mode_name((mzm_mode)i), NULL) == MZM_OK && (int)m == i);
	assert_int_equal(mzm_mode_parse(&m, "turbo", NULL), MZM_EARG);
}

static int open_all(void **state)
{
	mzm_err err = {0};
	(void)state;
	if (mzm_model_open(&model, DEMO_MODEL, NULL, &err) != MZM_OK) {
		print_error("%s\n", err.message);
		return -1;
	}
	for (int i = 0; i < 3; i++) {
		mzm_session_params sp = {.n_threads = i ? i : 1};
		if (mzm_session_create(&sessions[i], model, &sp, &err) != MZM_OK)
			return -1;
	}
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++)
		mzm_session_free(sessions[i]);
	mzm_model_close(model);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact_equals_dense),
		cmocka_unit_test(test_exact_equals_dense_when_sampling),
		cmocka_unit_test(test_high_threshold_equals_dense),
		cmocka_unit_test(test_keep_all_equals_dense),
		cmocka_unit_test(test_formats_of_random_weights),
		cmocka_unit_test(test_formats_of_the_demo_model),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_stop_strings),
		cmocka_unit_test(test_context_end),
		cmocka_unit_test(test_counters),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_no_allocation_while_decoding),
		cmocka_unit_test(test_check_below),
		cmocka_unit_test(test_requests_are_independent),
		cmocka_unit_test(test_measured_costs),
		cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests(tests, open_all, close_all);
}
