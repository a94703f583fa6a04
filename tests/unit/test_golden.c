/* test_golden.c - every architecture end to end against independent float64 forward passes: the models and logits of
 * tests/golden, which scripts/golden-models makes. Each model as Hugging Face directory, as containers of several
 * types, as GGUF where it has that form; passes of any number of positions; every kernel table; every store; and
 * generation in all modes. The largest errors are printed. */
#include "testing.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>

#include "engine/engine.h"
#include "isa.h"
#include "kern/gemm.h"

#define GOLDEN "tests/golden"

/* Largest error of a logit, and the root of the mean of their squares; logits spread by about 2. Weights of the models
 * are exact in bf16. Three times what was measured, of the model that is worst. */
typedef struct bound {
	double most, rms;
} bound;

static const bound bound_f32 = {1e-4, 1e-5};
static const bound bound_kv = {0.1, 0.008};  /* keys and values in f16 */
static const bound bound_acts = {1, 0.1};    /* and activations rounded to bf16 */
static const bound bound_jumps = {1, 0.04};  /* in place of bound_kv, where an activation is not continuous */
static const bound bound_q8 = {4, 0.35};
static const bound bound_q4 = {24, 1.7};     /* rows of 32 weights suffer: that it is the same model, no more */

enum { MAX_CASES = 4, MAX_MODELS = 64, MAX_TOKENS = 128, MAX_TESTS = 512 };

typedef struct golden_case {
	int32_t n_ctx, n, tokens[MAX_TOKENS];
	size_t  offset; /* into logits */
} golden_case;

typedef struct golden {
	char        name[64], path[128], gguf[256];
	golden_case cases[MAX_CASES];
	int         n_cases;
	float      *logits; /* of all cases, [positions, n_vocab] */
	size_t      n_logits;
	bool        has_gguf, jumps;
	char        dir[256], f32[300], other[300]; /* temporary: containers */
} golden;

/* ---- the files ---- */

static void read_case(golden_case *c, const json_t *from)
{
	const json_t *tokens = json_object_get(from, "tokens");
	c->n_ctx = (int32_t)json_integer_value(json_object_get(from, "n_ctx"));
	c->offset = (size_t)json_integer_value(json_object_get(from, "offset"));
	c->n = (int32_t)json_array_size(tokens);
	assert_in_range(c->n, 1, MAX_TOKENS);
	for (int32_t i = 0; i < c->n; i++)
		c->tokens[i] = (int32_t)json_integer_value(json_array_get(tokens, (size_t)i));
}

static void golden_read(golden *g)
{
	char file[256];
	size_t n;
	snprintf(file, sizeof file, "%s/expected.json", g->path);
	json_t *expected = json_load_file(file, 0, NULL);
	assert_non_null(expected);
	const json_t *cases = json_object_get(expected, "cases");
	g->n_cases = (int)json_array_size(cases);
	assert_in_range(g->n_cases, 1, MAX_CASES);
	for (int i = 0; i < g->n_cases; i++)
		read_case(&g->cases[i], json_array_get(cases, (size_t)i));
	json_decref(expected);
	g->jumps = strcmp(g->name, "prosparse") == 0;
	snprintf(file, sizeof file, "%s/logits.bin", g->path);
	g->logits = (float *)(void *)testing_read(file, &n);
	g->n_logits = n / sizeof *g->logits;
	snprintf(g->gguf, sizeof g->gguf, "%s/%s.gguf", g->path, g->name);
	g->has_gguf = access(g->gguf, R_OK) == 0;
}

static int golden_open(void **state)
{
	golden *g = calloc(1, sizeof *g);
	snprintf(g->name, sizeof g->name, "%s", (const char *)*state);
	snprintf(g->path, sizeof g->path, "%s/%s", GOLDEN, g->name);
	golden_read(g);
	testing_temp_dir(g->dir);
	snprintf(g->f32, sizeof g->f32, "%s/f32.mzm", g->dir);
	snprintf(g->other, sizeof g->other, "%s/other.mzm", g->dir);
	*state = g;
	return 0;
}

static int golden_close(void **state)
{
	golden *g = *state;
	testing_remove(g->dir);
	free(g->logits);
	free(g);
	return 0;
}

static void import_as(const char *from, const char *to, const char *quant, const char *draft)
{
	mzm_err err = {0};
	mzm_import_params p = mzm_import_params_default();
	p.quant = quant;
	p.draft_quant = draft;
	p.zstd = 0;
	if (mzm_import(from, to, &p, &err) != MZM_OK)
		fail_msg("import of %s: %s", from, err.message);
}

/* ---- a model that is open ---- */

typedef struct rig {
	mzm_model   *model;
	mzm_session *session;
	int32_t      n_vocab;
} rig;

typedef struct how {
	const char *isa, *kv_type, *store;
	bool        no_onednn;
	int         n_threads; /* 0: one */
} how;

static rig rig_open(const char *path, int32_t n_ctx, const how *h)
{
	rig r;
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	mzm_session_params sp = {.n_ctx = n_ctx, .n_threads = h->n_threads ? h->n_threads : 1, .kv_type = h->kv_type};
	mp.isa = h->isa;
	mp.store = h->store;
	mp.no_onednn = h->no_onednn;
	mp.session = &sp;
	if (mzm_model_open(&r.model, path, &mp, &err) != MZM_OK)
		fail_msg("%s: %s", path, err.message);
	if (mzm_session_create(&r.session, r.model, &sp, &err) != MZM_OK)
		fail_msg("%s: %s", path, err.message);
	r.n_vocab = mzm_model_get_info(r.model)->n_vocab;
	return r;
}

static void rig_close(rig *r)
{
	mzm_session_free(r->session);
	mzm_model_close(r->model);
}

/* ---- passes ---- */

static size_t case_len(const rig *r, const golden_case *c)
{
	return (size_t)c->n * (size_t)r->n_vocab;
}

/* All positions in pieces of 1 to most; seed 0: of most. -> free */
static float *pass_in_pieces(rig *r, const golden_case *c, int32_t most, uint64_t seed)
{
	mzm_err err = {0};
	float *logits = malloc(case_len(r, c) * sizeof *logits);
	mzm_session_truncate(r->session, 0);
	for (int32_t done = 0, n; done < c->n; done += n) {
		n = seed ? 1 + (int32_t)(testing_random(&seed) % (uint64_t)most) : most;
		n = n < c->n - done ? n : c->n - done;
		if (mzm_session_forward(r->session, logits + (size_t)done * (size_t)r->n_vocab, c->tokens + done, n, n,
					&err) != MZM_OK)
			fail_msg("%s", err.message);
	}
	return logits;
}

/* As a prompt goes through the session: whole chunks of the grid through oneDNN, then the rest. Only the last positions
 * of a pass give logits; the others stay what the row kernels said. */
static void pass_as_prompt(rig *r, const golden_case *c, float *logits)
{
	mzm_err err = {0};
	int32_t chunk = r->model->gemm ? MZM_CHUNK : MZM_MAX_POS;
	mzm_session_truncate(r->session, 0);
	for (int32_t done = 0, n; done < c->n; done += n) {
		float *got;
		n = c->n - done >= chunk ? chunk : c->n - done < MZM_MAX_POS ? c->n - done : MZM_MAX_POS;
		int32_t rows = n < MZM_MAX_POS ? n : MZM_MAX_POS;
		mzm_pass pass = {.ids = c->tokens + done, .n_pos = n, .n_rows = rows, .gemm = r->model->gemm};
		if (mzm_forward(r->session->state, &pass, &got, NULL, &err) != MZM_OK)
			fail_msg("%s", err.message);
		memcpy(logits + (size_t)(done + n - rows) * (size_t)r->n_vocab, got,
		       (size_t)rows * (size_t)r->n_vocab * sizeof *logits);
	}
}

typedef struct errors {
	double most, squares;
	size_t n;
} errors;

static double rms(const errors *e)
{
	return e->n ? sqrt(e->squares / (double)e->n) : 0;
}

static double larger(double a, double b)
{
	return a > b || isnan(a) ? a : b;
}

static void add_errors(errors *e, const rig *r, const golden *g, const golden_case *c, const float *logits)
{
	assert_true(c->offset + case_len(r, c) <= g->n_logits);
	for (size_t i = 0; i < case_len(r, c); i++) {
		double error = fabs((double)logits[i] - (double)g->logits[c->offset + i]);
		e->most = larger(error, e->most);
		e->squares += error * error;
		e->n++;
	}
}

static void check_errors(const golden *g, const errors *e, bound b, const char *what)
{
	if (!(e->most <= b.most && rms(e) <= b.rms))
		fail_msg("%s, %s: logits are off by %.2g, rms %.2g", g->name, what, e->most, rms(e));
}

static void check_bits(const rig *r, const golden *g, const golden_case *c, const float *a, const float *b,
		       const char *what)
{
	double worst = 0;
	for (size_t i = 0; i < case_len(r, c); i++) {
		double d = fabs((double)a[i] - (double)b[i]);
		worst = larger(d, worst);
	}
	if (memcmp(a, b, case_len(r, c) * sizeof *a) != 0)
		fail_msg("%s, context %d, %s: bits differ, by %g at most", g->name, (int)c->n_ctx, what, worst);
}

/* ---- f32: what the architecture is ---- */

static void check_passes(errors *e, const golden *g, const golden_case *c, bool no_onednn)
{
	how exact = {.isa = isa_exact(), .kv_type = "f32", .no_onednn = no_onednn}, threads = exact;
	threads.n_threads = 2;
	rig r = rig_open(g->f32, c->n_ctx, &exact), other = rig_open(g->f32, c->n_ctx, &threads);
	float *whole = pass_in_pieces(&r, c, c->n, 0), *single = pass_in_pieces(&r, c, 1, 0);
	add_errors(e, &r, g, c, whole);
	check_bits(&r, g, c, whole, single, "one pass against single tokens");
	for (uint64_t seed = 1; seed <= 4; seed++) {
		float *pieces = pass_in_pieces(seed % 2 ? &r : &other, c, 7, seed);
		check_bits(&r, g, c, pieces, single, "pieces of 1 to 7 against single tokens");
		free(pieces);
	}
	pass_as_prompt(&r, c, whole);
	add_errors(e, &r, g, c, whole);
	memcpy(single, whole, case_len(&r, c) * sizeof *single);
	pass_as_prompt(&other, c, single);
	check_bits(&r, g, c, whole, single, "a prompt by one thread against two");
	free(whole);
	free(single);
	rig_close(&r);
	rig_close(&other);
}

static void test_f32(void **state)
{
	golden *g = *state;
	errors e = {0};
	import_as(g->path, g->f32, "f32", NULL);
	for (int i = 0; i < g->n_cases; i++) {
		check_passes(&e, g, &g->cases[i], false);
		if (mzm_gemm_available())
			check_passes(&e, g, &g->cases[i], true);
	}
	check_errors(g, &e, bound_f32, "f32");
	print_message("%s: f32 %.2g (rms %.2g)\n", g->name, e.most, rms(&e));
}

/* ---- other types and tables ---- */

static void add_form(errors *e, const golden *g, const char *path, const how *h)
{
	for (int i = 0; i < g->n_cases; i++) {
		const golden_case *c = &g->cases[i];
		rig r = rig_open(path, c->n_ctx, h);
		float *logits = pass_in_pieces(&r, c, c->n, 0);
		add_errors(e, &r, g, c, logits);
		pass_as_prompt(&r, c, logits);
		add_errors(e, &r, g, c, logits);
		free(logits);
		rig_close(&r);
	}
}

static void test_forms(void **state)
{
	golden *g = *state;
	errors exact = {0}, kv = {0}, acts = {0};
	for (int i = 0; mzm_isa_name(i); i++) {
		how plain = {.isa = mzm_isa_name(i)}, f32_kv = {.isa = plain.isa, .kv_type = "f32"};
		add_form(isa_rounds(plain.isa) ? &acts : &kv, g, g->path, &plain);
		if (!isa_rounds(plain.isa))
			add_form(&exact, g, g->path, &f32_kv);
	}
	check_errors(g, &exact, bound_f32, "bf16");
	check_errors(g, &kv, g->jumps ? bound_jumps : bound_kv, "bf16, keys and values f16");
	check_errors(g, &acts, bound_acts, "bf16, activations rounded");
	print_message("%s: bf16 %.2g (rms %.2g), keys and values f16 %.2g (%.2g), activations rounded %.2g (%.2g)\n",
		      g->name, exact.most, rms(&exact), kv.most, rms(&kv), acts.most, rms(&acts));
}

static errors converted(const golden *g, const char *quant)
{
	errors e = {0};
	how plain = {0}; /* that tables give equal bits is tested elsewhere */
	import_as(g->path, g->other, quant, NULL);
	add_form(&e, g, g->other, &plain);
	return e;
}

static void test_quants(void **state)
{
	golden *g = *state;
	errors f16 = converted(g, "f16"), q8 = converted(g, "q8"), q4 = converted(g, "q4");
	check_errors(g, &f16, g->jumps ? bound_jumps : bound_kv, "f16");
	check_errors(g, &q8, bound_q8, "q8");
	check_errors(g, &q4, bound_q4, "q4");
	print_message("%s: f16 %.2g (rms %.2g), q8 %.2g (%.2g), q4 %.2g (%.2g)\n", g->name, f16.most, rms(&f16),
		      q8.most, rms(&q8), q4.most, rms(&q4));
}

/* ---- the same weights from elsewhere ---- */

static void check_same(const golden *g, const char *a, const how *as, const char *b, const how *bs, const char *what)
{
	for (int i = 0; i < g->n_cases; i++) {
		const golden_case *c = &g->cases[i];
		rig one = rig_open(a, c->n_ctx, as), other = rig_open(b, c->n_ctx, bs);
		float *x = pass_in_pieces(&one, c, c->n, 0), *y = pass_in_pieces(&other, c, c->n, 0);
		check_bits(&one, g, c, x, y, what);
		free(x);
		free(y);
		rig_close(&one);
		rig_close(&other);
	}
}

static void test_gguf(void **state)
{
	golden *g = *state;
	how exact = {.isa = isa_exact(), .kv_type = "f32"}, plain = {0};
	errors e = {0};
	if (!g->has_gguf) {
		print_message("%s: has no GGUF form\n", g->name);
		return;
	}
	add_form(&e, g, g->gguf, &exact);
	check_errors(g, &e, bound_f32, "GGUF");
	check_same(g, g->gguf, &exact, g->path, &exact, "GGUF against the directory");
	check_same(g, g->gguf, &plain, g->path, &plain, "GGUF against the directory");
}

static void test_stores(void **state)
{
	golden *g = *state;
	how plain = {0}, streams = {.store = "stream"}, mapped = {.store = "mmap"};
	import_as(g->path, g->other, NULL, NULL);
	rig r = rig_open(g->other, g->cases[0].n_ctx, &streams);
	const mzm_plan *plan = mzm_model_get_plan(r.model);
	assert_string_equal(plan->store, "stream");
	assert_true(plan->streamed_bytes > 0);
	rig_close(&r);
	check_same(g, g->path, &plain, g->other, &plain, "the directory against its container");
	check_same(g, g->path, &plain, g->other, &streams, "resident against streamed");
	check_same(g, g->path, &plain, g->other, &mapped, "resident against mapped");
}

/* ---- generation ---- */

enum { N_PROMPT = 20, N_NEW = 60 };

static mzm_gen_result generate(rig *r, const golden_case *c, mzm_gen_params p, mzm_mode mode)
{
	mzm_err err = {0};
	mzm_gen_result result;
	p.mode = mode;
	p.period = 6;
	p.max_tokens = N_NEW;
	p.ignore_eos = true;
	if (mzm_generate(r->session, c->tokens, N_PROMPT, &p, &result, &err) != MZM_OK)
		fail_msg("%s, %s: %s", mzm_mode_name(mode), p.predictor, err.message);
	assert_int_equal(result.n_tokens, N_NEW);
	return result;
}

static void check_tokens(const golden *g, const mzm_gen_result *got, const int32_t *want, const char *what)
{
	for (int32_t i = 0; i < N_NEW; i++) {
		if (got->tokens[i] != want[i])
			fail_msg("%s: token %d of %s is %d, dense's is %d", g->name, (int)i, what, (int)got->tokens[i],
				 (int)want[i]);
	}
}

/* One predictor at one keep; returns how many drafted tokens exact mode dropped. */
static int check_drafts(rig *r, const golden *g, const golden_case *c, mzm_gen_params p, const int32_t *dense)
{
	mzm_gen_result result = generate(r, c, p, MZM_MODE_EXACT);
	int dropped = result.n_rolled_back;
	check_tokens(g, &result, dense, "exact mode");
	assert_true(result.n_sparse_passes > 0);
	result = generate(r, c, p, MZM_MODE_SPARSE);
	assert_int_equal(result.n_dense_passes, 0);
	assert_true(result.density < 1);
	if (p.temp == 0) { /* sirius is defined for greedy decoding alone */
		result = generate(r, c, p, MZM_MODE_SIRIUS);
		assert_true(result.n_checks > 0 && result.n_sparse_passes > 0);
	}
	return dropped;
}

/* By topk, or that and griffin, in all modes, greedy and sampled; returns how many drafted tokens were dropped. */
static int check_modes(const golden *g, const char *path, const how *h, int n_predictors)
{
	static const char *const predictors[] = {"topk", "griffin"};
	const golden_case *c = &g->cases[g->n_cases - 1];
	rig r = rig_open(path, c->n_ctx, h);
	int n_dropped = 0;
	for (int turn = 0; turn < n_predictors * 2; turn++) {
		int32_t dense[N_NEW];
		mzm_gen_params p = mzm_gen_params_default();
		p.predictor = predictors[turn / 2];
		p.temp = (float)(turn % 2);
		p.seed = 3;
		p.keep = 1;
		mzm_gen_result result = generate(&r, c, p, MZM_MODE_DENSE);
		memcpy(dense, result.tokens, sizeof dense);
		p.no_draft_image = true;
		result = generate(&r, c, p, MZM_MODE_SPARSE);
		check_tokens(g, &result, dense, "sparse mode that keeps all");
		p.no_draft_image = false;
		for (p.keep = 0.3f; p.keep < 1; p.keep += 0.4f)
			n_dropped += check_drafts(&r, g, c, p, dense);
	}
	rig_close(&r);
	return n_dropped;
}

static void test_modes(void **state)
{
	golden *g = *state;
	how plain = {0};
	assert_true(check_modes(g, g->path, &plain, 2) > 0); /* drafts did differ */
}

/* Drafts by an image of the weights in q4, in memory and streamed. */
static void test_drafts(void **state)
{
	golden *g = *state;
	how plain = {0}, streams = {.store = "stream"};
	import_as(g->path, g->other, "q8", "q4");
	assert_true(check_modes(g, g->other, &plain, 2) > 0);
	assert_true(check_modes(g, g->other, &streams, 1) > 0);
}

/* ---- and it can fail ---- */

static void link_into(const golden *g, const char *file)
{
	char from[PATH_MAX], to[512], here[PATH_MAX / 2];
	assert_non_null(getcwd(here, sizeof here));
	snprintf(from, sizeof from, "%s/%s/%s", here, g->path, file);
	snprintf(to, sizeof to, "%s/%s", g->dir, file);
	assert_int_equal(symlink(from, to), 0);
}

/* A window of one token more. */
static void test_planted(void **state)
{
	golden *g = *state;
	char file[512];
	how exact = {.isa = isa_exact(), .kv_type = "f32"};
	errors e = {0};
	snprintf(file, sizeof file, "%s/config.json", g->path);
	json_t *config = json_load_file(file, 0, NULL);
	json_int_t window = json_integer_value(json_object_get(config, "sliding_window"));
	assert_true(window > 0);
	json_object_set_new(config, "sliding_window", json_integer(window + 1));
	snprintf(file, sizeof file, "%s/config.json", g->dir);
	assert_int_equal(json_dump_file(config, file, 0), 0);
	json_decref(config);
	link_into(g, "model.safetensors");
	link_into(g, "tokenizer.json");
	add_form(&e, g, g->dir, &exact);
	assert_true(e.most > 100 * bound_f32.most && rms(&e) > 100 * bound_f32.rms);
}

/* ---- all of it, once a model ---- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int find_models(char *names[MAX_MODELS])
{
	int n = 0;
	const struct dirent *e;
	DIR *d = opendir(GOLDEN);
	while (d && (e = readdir(d)) && n < MAX_MODELS) {
		char file[512];
		snprintf(file, sizeof file, "%s/%s/expected.json", GOLDEN, e->d_name);
		if (access(file, R_OK) == 0)
			names[n++] = strdup(e->d_name);
	}
	if (d)
		closedir(d);
	qsort(names, (size_t)n, sizeof names[0], by_name);
	return n;
}

static struct CMUnitTest tests[MAX_TESTS];
static char titles[MAX_TESTS][96];

static int add_test(int n, const char *wanted, char *model, const char *kind, CMUnitTestFunction run)
{
	snprintf(titles[n], sizeof titles[n], "%s %s", model, kind);
	if (wanted && !strstr(titles[n], wanted))
		return n;
	tests[n] = (struct CMUnitTest){titles[n], run, golden_open, golden_close, model};
	return n + 1;
}

int main(int argc, char **argv) /* test_golden [PART OF A TITLE] */
{
	static const struct {
		const char        *name;
		CMUnitTestFunction run;
	} kinds[] = {{"f32", test_f32},	      {"forms", test_forms}, {"quants", test_quants}, {"gguf", test_gguf},
		     {"stores", test_stores}, {"modes", test_modes}, {"drafts", test_drafts}};
	enum { N_KINDS = sizeof kinds / sizeof kinds[0] };
	_Static_assert(MAX_MODELS * N_KINDS < MAX_TESTS, "room for all tests");
	static char planted[] = "mistral";
	const char *wanted = argc > 1 ? argv[1] : NULL;
	char *names[MAX_MODELS];
	int n_models = find_models(names), n = 0;
	for (int i = 0; i < n_models * N_KINDS; i++)
		n = add_test(n, wanted, names[i / N_KINDS], kinds[i % N_KINDS].name, kinds[i % N_KINDS].run);
	n = add_test(n, wanted, planted, "planted", test_planted);
	if (n_models == 0)
		print_message("no model in %s: run in the root of the source tree\n", GOLDEN);
	int failed = n_models == 0 || n == 0 ? 1 : _cmocka_run_group_tests("golden", tests, (size_t)n, NULL, NULL);
	for (int m = 0; m < n_models; m++)
		free(names[m]);
	return failed;
}
