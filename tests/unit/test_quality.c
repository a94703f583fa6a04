/* test_quality.c - comparing two models: against formulas worked out here from plain passes, what it refuses, and what
 * quantising the demo model costs. */
#include "demo.h"
#include "import_env.h"

#include <math.h>

static mzm_model *open_ok(const char *path)
{
	mzm_model *m;
	mzm_err err = {0};
	if (mzm_model_open(&m, path, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return m;
}

/* A container of the tiny model, with rows of whole blocks, in a type. */
static void make(const char *target, const char *dtype, const char *draft)
{
	hf_build b;
	mzm_err err = {0};
	mzm_import_params params = mzm_import_params_default();
	hf_init_blocks(&b, "F32", true);
	for (int i = 0; i < b.n; i++) /* weights that make distributions neither flat nor sharp */
		for (size_t k = 0; k < b.w[i].bytes / 4; k++) {
			float f = (float)((double)(testing_random(&b.seed) >> 11) * 0x1p-53 - 0.5);
			memcpy(b.w[i].data + 4 * k, &f, 4);
		}
	hf_write(&b, src_dir);
	hf_free(&b);
	params.quant = dtype;
	params.draft_quant = draft;
	if (mzm_import(src_dir, target, &params, &err) != MZM_OK)
		fail_msg("%s", err.message);
}

static void logits_of(const mzm_model *m, float *logits, const int32_t *ids, int n)
{
	mzm_session *s;
	assert_int_equal(mzm_session_create(&s, m, NULL, NULL), MZM_OK);
	assert_int_equal(mzm_session_forward(s, logits, ids, n, n, NULL), MZM_OK);
	mzm_session_free(s);
}

static void softmax(double *p, const float *x, int n)
{
	double sum = 0;
	for (int i = 0; i < n; i++)
		sum += p[i] = exp((double)x[i]);
	for (int i = 0; i < n; i++)
		p[i] /= sum;
}

static int largest(const double *p, int n)
{
	int at = 0;
	for (int i = 1; i < n; i++)
		at = p[i] > p[at] ? i : at;
	return at;
}

static void near(double got, double want, double bound, const char *what)
{
	if (!(fabs(got - want) <= bound * (fabs(want) + 1e-12)))
		fail_msg("%s: %.12g, wanted %.12g", what, got, want);
}

static int compare_doubles(const void *a, const void *b)
{
	return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

enum { N_IDS = 60, N_VOCAB = 300 };

/* The formulas of the definition over one window. */
static void expect_result(const mzm_quality_result *r, const mzm_model *model, const mzm_model *ref, const int32_t *ids)
{
	static float a[N_IDS * N_VOCAB], b[N_IDS * N_VOCAB];
	double klds[N_IDS], sum = 0, squares = 0, loss = 0, ref_loss = 0;
	int n = N_IDS - 1, agree = 0;
	logits_of(model, a, ids, N_IDS);
	logits_of(ref, b, ids, N_IDS);
	for (int i = 0; i < n; i++) {
		double q[N_VOCAB], p[N_VOCAB];
		softmax(q, a + i * N_VOCAB, N_VOCAB);
		softmax(p, b + i * N_VOCAB, N_VOCAB);
		klds[i] = 0;
		for (int k = 0; k < N_VOCAB; k++)
			klds[i] += p[k] * log(p[k] / q[k]);
		sum += klds[i];
		loss -= log(q[ids[i + 1]]);
		ref_loss -= log(p[ids[i + 1]]);
		agree += largest(p, N_VOCAB) == largest(q, N_VOCAB);
	}
	for (int i = 0; i < n; i++)
		squares += (klds[i] - sum / n) * (klds[i] - sum / n);
	qsort(klds, (size_t)n, sizeof *klds, compare_doubles);
	assert_int_equal(r->n_tokens, n);
	near(r->kld_mean, sum / n, 1e-6, "mean");
	near(r->kld_error, sqrt(squares / (n - 1) / n), 1e-6, "standard error");
	near(r->kld_median, klds[29], 1e-6, "median"); /* the 30th of 59 */
	near(r->kld_p99, klds[58], 1e-6, "99th percentile");
	near(r->kld_max, klds[58], 1e-6, "largest");
	near(r->top1, (double)agree / n, 1e-12, "agreement");
	near(r->perplexity, exp(loss / n), 1e-9, "perplexity");
	near(r->reference_perplexity, exp(ref_loss / n), 1e-9, "the reference's perplexity");
}

static void measure(mzm_quality_result *r, const mzm_model *model, const mzm_model *ref, const int32_t *ids, size_t n,
		    int n_ctx)
{
	mzm_quality *q;
	mzm_err err = {0};
	mzm_session_params params = {.n_ctx = n_ctx};
	if (mzm_quality_create(&q, model, ref, &params, &err) != MZM_OK ||
	    mzm_quality_add(q, ids, n, &err) != MZM_OK || mzm_quality_result_get(q, r, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_quality_free(q);
}

static void some_ids(int32_t *ids, int n)
{
	uint64_t seed = 4;
	for (int i = 0; i < n; i++)
		ids[i] = (int32_t)(testing_random(&seed) % N_VOCAB);
}

static void test_formulas(void **state)
{
	(void)state;
	static const char *const types[] = {"f16", "bf16", "q8", "q4"};
	int32_t ids[N_IDS];
	char path[400];
	some_ids(ids, N_IDS);
	make(out, "f32", NULL);
	mzm_model *ref = open_ok(out);
	double before = 0;
	for (int i = 0; i < 4; i++) {
		mzm_quality_result r;
		snprintf(path, sizeof path, "%s/%s.mzm", dir, types[i]);
		make(path, types[i], NULL);
		mzm_model *model = open_ok(path);
		measure(&r, model, ref, ids, N_IDS, 0);
		expect_result(&r, model, ref, ids);
		print_message("%s: mean KLD %g\n", types[i], r.kld_mean);
		assert_true(r.kld_mean > before); /* each of these types is coarser than the one before */
		before = r.kld_mean;
		mzm_model_close(model);
	}
	mzm_model_close(ref);
}

/* A model against itself, loaded twice: no divergence at all. */
static void test_itself(void **state)
{
	(void)state;
	int32_t ids[N_IDS];
	mzm_quality_result r;
	some_ids(ids, N_IDS);
	make(out, "bf16", NULL);
	mzm_model *a = open_ok(out), *b = open_ok(out);
	measure(&r, a, b, ids, N_IDS, 0);
	assert_true(r.kld_mean == 0 && r.kld_error == 0 && r.kld_max == 0 && r.top1 == 1);
	assert_true(r.perplexity == r.reference_perplexity);
	mzm_model_close(a);
	mzm_model_close(b);
}

/* A text longer than the context is read in windows, each from an empty context. */
static void test_windows(void **state)
{
	(void)state;
	int32_t ids[N_IDS];
	mzm_quality *q;
	mzm_quality_result whole, parts;
	some_ids(ids, N_IDS);
	make(out, "f32", NULL);
	char path[400];
	snprintf(path, sizeof path, "%s/b.mzm", dir);
	make(path, "bf16", NULL);
	mzm_model *a = open_ok(path), *b = open_ok(out);
	measure(&whole, a, b, ids, N_IDS, 20);
	mzm_session_params params = {.n_ctx = 20};
	assert_int_equal(mzm_quality_create(&q, a, b, &params, NULL), MZM_OK);
	assert_int_equal(mzm_quality_add(q, ids, 21, NULL), MZM_OK);
	assert_int_equal(mzm_quality_add(q, ids + 20, 21, NULL), MZM_OK);
	assert_int_equal(mzm_quality_add(q, ids + 40, 20, NULL), MZM_OK);
	assert_int_equal(mzm_quality_result_get(q, &parts, NULL), MZM_OK);
	assert_memory_equal(&whole, &parts, sizeof whole);
	assert_int_equal(whole.n_tokens, N_IDS - 1);
	mzm_quality_free(q);
	mzm_model_close(a);
	mzm_model_close(b);
}

static void test_refusals(void **state)
{
	(void)state;
	mzm_quality *q;
	mzm_quality_result r;
	mzm_err err = {0};
	int32_t ids[2] = {0, N_VOCAB};
	make(out, "f32", NULL);
	mzm_model *m = open_ok(out), *demo = open_ok(DEMO_MODEL);
	assert_false(mzm_model_has_draft(m));
	assert_int_equal(mzm_quality_create(&q, m, NULL, NULL, &err), MZM_EARG);
	assert_null(q);
	assert_non_null(strstr(err.message, "no draft image"));
	err = (mzm_err){0};
	assert_int_equal(mzm_quality_create(&q, m, demo, NULL, &err), MZM_EARG);
	assert_non_null(strstr(err.message, "300 and 2048"));
	mzm_model_close(demo);
	demo = open_ok(out);
	assert_int_equal(mzm_quality_create(&q, m, demo, NULL, NULL), MZM_OK);
	assert_int_equal(mzm_quality_result_get(q, &r, NULL), MZM_EARG); /* nothing yet */
	err = (mzm_err){0};
	assert_int_equal(mzm_quality_add(q, ids, 2, &err), MZM_EARG);
	assert_non_null(strstr(err.message, "token 1 is 300"));
	assert_int_equal(mzm_quality_add(q, ids, 1, NULL), MZM_OK); /* predicts nothing */
	assert_int_equal(mzm_quality_add(q, ids, 0, NULL), MZM_OK);
	assert_int_equal(mzm_quality_result_get(q, &r, NULL), MZM_EARG);
	mzm_quality_free(q);
	mzm_quality_free(NULL);
	mzm_model_close(m);
	mzm_model_close(demo);
}

/* Every allocation of a comparison fails once: an error, nothing lost. */
static void test_allocations(void **state)
{
	(void)state;
	int32_t ids[N_IDS];
	some_ids(ids, N_IDS);
	make(out, "f32", NULL);
	mzm_model *a = open_ok(out), *b = open_ok(out);
	size_t live = mzm_mem_live();
	long n_failed = 0;
	for (long k = 1;; k++) {
		mzm_quality *q = NULL;
		mzm_quality_result r;
		mzm_err err = {0};
		mzm_mem_fail_nth(k);
		mzm_status st = mzm_quality_create(&q, a, b, NULL, &err);
		if (st == MZM_OK)
			st = mzm_quality_add(q, ids, N_IDS, &err);
		if (st == MZM_OK)
			st = mzm_quality_result_get(q, &r, &err);
		long n_calls = mzm_mem_fail_nth(0);
		mzm_quality_free(q);
		assert_int_equal(st, err.code);
		assert_int_equal(mzm_mem_live(), live);
		n_failed += st != MZM_OK;
		if (st == MZM_OK && n_calls < k)
			break;
	}
	assert_true(n_failed > 5);
	mzm_model_close(a);
	mzm_model_close(b);
}

/* ---- the demo model ---- */

/* Prompt and answer tokens of the first shipped problems. */
static void add_problems(mzm_quality *q, const mzm_model *m, int n)
{
	for (int i = 0; i < n; i++) {
		char *prompt = demo_prompt(i);
		int32_t *ids;
		size_t n_ids;
		assert_non_null(prompt);
		assert_int_equal(mzm_tokenize(mzm_model_tokenizer(m), prompt, strlen(prompt), 0, &ids, &n_ids, NULL),
				 MZM_OK);
		assert_int_equal(mzm_quality_add(q, ids, n_ids, NULL), MZM_OK);
		mzm_ids_free(ids);
		free(prompt);
	}
}

static void measure_demo(mzm_quality_result *r, const mzm_model *model, const mzm_model *ref)
{
	mzm_quality *q;
	mzm_err err = {0};
	if (mzm_quality_create(&q, model, ref, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	add_problems(q, model, getenv("MIRZAM_SHORT") ? 6 : (int)testing_count(15, 100));
	if (mzm_quality_result_get(q, r, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_quality_free(q);
	print_message("%lld tokens: mean KLD %.6f +- %.6f, median %.6f, same choice %.4f, perplexity %.4f (%.4f)\n",
		      (long long)r->n_tokens, r->kld_mean, r->kld_error, r->kld_median, r->top1, r->perplexity,
		      r->reference_perplexity);
}

static void import_demo(const char *quant, const char *draft, const char *method)
{
	mzm_err err = {0};
	mzm_import_params params = mzm_import_params_default();
	params.quant = quant;
	params.draft_quant = draft;
	params.quant_method = method;
	if (mzm_import(DEMO_MODEL, out, &params, &err) != MZM_OK)
		fail_msg("%s", err.message);
}

static void test_demo(void **state)
{
	(void)state;
	static const struct {
		const char *type, *method;
		double most; /* mean KLD */
	} forms[] = {{"f16", NULL, 1e-5}, {"q8", NULL, 3e-4}, {"q4", "best", 0.05}, {"q4", "nearest", 0.05}};
	double kld[4], median[4], error[4];
	mzm_quality_result r;
	mzm_model *ref = open_ok(DEMO_MODEL);
	for (int i = 0; i < 4; i++) {
		import_demo(forms[i].type, NULL, forms[i].method);
		mzm_model *model = open_ok(out);
		print_message("%s %s, ", forms[i].type, forms[i].method ? forms[i].method : "");
		measure_demo(&r, model, ref);
		kld[i] = r.kld_mean;
		median[i] = r.kld_median;
		error[i] = r.kld_error;
		assert_true(r.kld_mean > 0 && r.kld_mean < forms[i].most);
		mzm_model_close(model);
	}
	assert_true(kld[0] < kld[1] && kld[1] < kld[2] && kld[1] < kld[3]);
	/* which roundings suit a small model is chance: the typical token decides, the mean within its error */
	assert_true(median[2] < median[3] && kld[2] < kld[3] + 2 * error[3]);
	mzm_model_close(ref);
}

/* The draft image of a container against its own weights is what a container of these matrices, and the reference's
 * embedding, is against them. */
static void test_draft(void **state)
{
	(void)state;
	mzm_quality_result r;
	import_demo(NULL, "q4", NULL);
	mzm_model *two = open_ok(out);
	assert_true(mzm_model_has_draft(two));
	print_message("q4 draft image, ");
	measure_demo(&r, two, NULL);
	assert_true(r.kld_mean > 0 && r.kld_mean < 0.1 && r.top1 > 0.8);
	mzm_quality_result weights;
	mzm_model *ref = open_ok(DEMO_MODEL);
	measure_demo(&weights, two, ref); /* the weights themselves did not change */
	assert_true(weights.kld_max == 0 && weights.perplexity == r.reference_perplexity);
	mzm_model_close(ref);
	mzm_model_close(two);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_DIR(test_formulas),    IN_DIR(test_itself), IN_DIR(test_windows), IN_DIR(test_refusals),
		IN_DIR(test_allocations), IN_DIR(test_demo),   IN_DIR(test_draft),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
