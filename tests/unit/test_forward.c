/* test_forward.c - the forward pass against a plain double-precision one, and the equalities it
 * promises bit for bit: any split into passes, any number of threads, any kernel table, any roll-back. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/engine.h"
#include "tiny_model.h"

static const tiny_spec base_spec = {
	.n_layers = 3, .dim = 48, .n_ffn = 100, .n_heads = 6, .n_kv_heads = 2, .head_dim = 8, .n_vocab = 131,
	.n_ctx = 256, .dtype = "F32", .eos = -1,
};

typedef struct rig {
	tiny_model  *tiny;
	mzm_model   *model;
	mzm_session *session;
} rig;

static void open_on(rig *r, const char *path, const char *isa, int n_threads)
{
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	mzm_session_params sp = mzm_session_params_default();
	mp.isa = isa;
	sp.n_threads = n_threads;
	if (mzm_model_open(&r->model, path, &mp, &err) != MZM_OK ||
	    mzm_session_create(&r->session, r->model, &sp, &err) != MZM_OK)
		fail_msg("%s", err.message);
}

static void close_rig(rig *r)
{
	mzm_session_free(r->session);
	mzm_model_close(r->model);
	r->session = NULL;
	r->model = NULL;
}

static void some_ids(int32_t *ids, int n, int n_vocab, uint64_t seed)
{
	for (int i = 0; i < n; i++)
		ids[i] = (int32_t)((tiny_unit(&seed) + 1) / 2 * n_vocab) % n_vocab;
}

static void forward(mzm_session *s, float *logits, const int32_t *ids, int n, int rows)
{
	mzm_err err = {0};
	if (mzm_session_forward(s, logits, ids, n, rows, &err) != MZM_OK)
		fail_msg("%s", err.message);
}

/* ---- against the reference ---- */

static void expect_reference(const tiny_spec *spec, uint64_t seed)
{
	enum { N = 90 };
	rig r = {.tiny = tiny_make(spec, seed)};
	int32_t ids[N];
	size_t n_logits = (size_t)N * (size_t)spec->n_vocab;
	float *got = malloc(n_logits * sizeof *got);
	double *want = malloc(n_logits * sizeof *want), worst = 0, scale = 0;
	some_ids(ids, N, spec->n_vocab, seed);
	open_on(&r, r.tiny->dir, NULL, 2);
	forward(r.session, got, ids, N, N);
	tiny_forward(r.tiny, ids, N, want);
	for (size_t i = 0; i < n_logits; i++) {
		worst = fmax(worst, fabs((double)got[i] - want[i]));
		scale = fmax(scale, fabs(want[i]));
	}
	print_message("%s %s%s%s: largest error %.2e of logits up to %.1f\n", spec->dtype, spec->relu ? "relu" : "silu",
		      spec->tied ? " tied" : "", spec->llama3_rope ? " llama3" : "", worst, scale);
	assert_true(scale > 1);
	assert_true(worst < 1e-4 * fmax(1, scale / 10));
	close_rig(&r);
	tiny_free(r.tiny);
	free(got);
	free(want);
}

static void test_reference(void **state)
{
	(void)state;
	static const char *const dtypes[] = {"F32", "F16", "BF16"};
	for (unsigned i = 0; i < 12; i++) {
		tiny_spec s = base_spec;
		s.dtype = dtypes[i % 3];
		s.relu = i & 1;
		s.tied = i & 2;
		s.llama3_rope = i & 4;
		expect_reference(&s, 100 + i);
	}
}

static void test_reference_odd_shapes(void **state)
{
	(void)state;
	tiny_spec s = base_spec;
	s.dim = 33, s.n_ffn = 1, s.n_heads = 1, s.n_kv_heads = 1, s.head_dim = 2, s.n_vocab = 7, s.n_layers = 1;
	expect_reference(&s, 1);
	s.dim = 17, s.n_ffn = 51, s.n_heads = 5, s.n_kv_heads = 5, s.head_dim = 22, s.n_vocab = 19, s.n_layers = 2;
	expect_reference(&s, 2);
	s.dim = 128, s.n_ffn = 300, s.n_heads = 8, s.n_kv_heads = 1, s.head_dim = 16, s.n_vocab = 515, s.dtype = "BF16";
	expect_reference(&s, 3);
}

/* ---- bit equalities ---- */

enum { LEN = 100 };

/* Logits of every position of LEN tokens, in passes of the given size. */
static float *in_passes(const char *path, const char *isa, int n_threads, const int32_t *ids, int step, int n_vocab)
{
	rig r = {0};
	float *logits = malloc((size_t)LEN * (size_t)n_vocab * sizeof *logits);
	open_on(&r, path, isa, n_threads);
	for (int at = 0; at < LEN; at += step) {
		int n = LEN - at < step ? LEN - at : step;
		forward(r.session, logits + (size_t)at * (size_t)n_vocab, ids + at, n, n);
	}
	close_rig(&r);
	return logits;
}

static void test_batch_invariance(void **state)
{
	(void)state;
	static const char *const dtypes[] = {"F32", "F16", "BF16"};
	for (int d = 0; d < 3; d++) {
		tiny_spec s = base_spec;
		s.dtype = dtypes[d];
		tiny_model *m = tiny_make(&s, 7);
		int32_t ids[LEN];
		some_ids(ids, LEN, s.n_vocab, 7);
		size_t bytes = (size_t)LEN * (size_t)s.n_vocab * sizeof(float);
		float *want = in_passes(m->dir, NULL, 1, ids, 1, s.n_vocab);
		static const struct {
			int step, threads;
		} ways[] = {{LEN, 1}, {2, 1}, {7, 2}, {16, 3}, {32, 1}, {33, 2}, {1, 2}, {LEN, 5}};
		for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
			float *got = in_passes(m->dir, NULL, ways[i].threads, ids, ways[i].step, s.n_vocab);
			assert_memory_equal(got, want, bytes);
			free(got);
		}
		for (int i = 0; mzm_isa_name(i); i++) {
			float *got = in_passes(m->dir, mzm_isa_name(i), 2, ids, 9, s.n_vocab);
			assert_memory_equal(got, want, bytes);
			free(got);
		}
		free(want);
		tiny_free(m);
	}
}

/* A random program of appends and roll-backs must end in the KV of a fresh run (E6). */
static void test_rollback(void **state)
{
	(void)state;
	tiny_spec s = base_spec;
	rig a = {.tiny = tiny_make(&s, 11)}, b = {0};
	open_on(&a, a.tiny->dir, NULL, 2);
	open_on(&b, a.tiny->dir, NULL, 1);
	int32_t ids[256], junk[40];
	uint64_t seed = 5;
	int len = 0;
	float *x = malloc((size_t)s.n_vocab * sizeof *x), *y = malloc((size_t)s.n_vocab * sizeof *y);
	for (int step = 0; step < 100; step++) {
		int n = 1 + (int)((tiny_unit(&seed) + 1) * 10), back = (int)((tiny_unit(&seed) + 1) * 12);
		if (len + n > 200)
			back = len;
		some_ids(junk, 40, s.n_vocab, seed);
		forward(a.session, NULL, junk, 1 + back % 33, 0); /* a draft that is dropped */
		mzm_session_truncate(a.session, len);
		some_ids(ids + len, n, s.n_vocab, seed + 1);
		forward(a.session, NULL, ids + len, n, 0);
		len = len + n - back < 0 ? 0 : len + n - back;
		mzm_session_truncate(a.session, len);
	}
	assert_int_equal(mzm_session_len(a.session), len);
	some_ids(ids + len, 1, s.n_vocab, 3);
	forward(a.session, x, ids + len, 1, 1);
	forward(b.session, y, ids, len + 1, 1);
	assert_memory_equal(x, y, (size_t)s.n_vocab * sizeof *x);
	free(x);
	free(y);
	close_rig(&a);
	close_rig(&b);
	tiny_free(a.tiny);
}

/* A sparse pass that keeps every neuron has the bits of the dense pass (E1), for each predictor. */
static void test_keep_all(void **state)
{
	(void)state;
	tiny_spec s = base_spec;
	rig r = {.tiny = tiny_make(&s, 13)};
	open_on(&r, r.tiny->dir, NULL, 2);
	int32_t ids[21];
	some_ids(ids, 21, s.n_vocab, 1);
	float *dense = malloc((size_t)s.n_vocab * sizeof *dense);
	forward(r.session, dense, ids, 21, 1);
	for (int i = 0; mzm_predictor_name(i); i++) {
		mzm_gen_params p = mzm_gen_params_default();
		p.predictor = mzm_predictor_name(i);
		p.keep = 1;
		assert_int_equal(mzm_session_use_predictor(r.session, &p, NULL), MZM_OK);
		if (r.session->predictor->ops->settle)
			r.session->predictor->ops->settle(r.session->predictor);
		mzm_session_truncate(r.session, 20);
		float *sparse;
		double share;
		mzm_pass pass = {.ids = ids + 20, .n_pos = 1, .n_rows = 1, .sparse = r.session->predictor};
		assert_int_equal(mzm_forward(r.session->state, &pass, &sparse, &share, NULL), MZM_OK);
		assert_memory_equal(sparse, dense, (size_t)s.n_vocab * sizeof *dense);
		assert_true(share == 1.0);
		/* and half of them must change the result, or this test could not fail */
		p.keep = 0.5f;
		assert_int_equal(mzm_session_use_predictor(r.session, &p, NULL), MZM_OK);
		if (r.session->predictor->ops->settle)
			r.session->predictor->ops->settle(r.session->predictor);
		mzm_session_truncate(r.session, 20);
		pass.sparse = r.session->predictor;
		assert_int_equal(mzm_forward(r.session->state, &pass, &sparse, &share, NULL), MZM_OK);
		bool all = strcmp(p.predictor, "dense") == 0;
		assert_int_equal(memcmp(sparse, dense, (size_t)s.n_vocab * sizeof *dense) == 0, all);
		double expected = all ? 1.0 : mzm_pred_ffn_share(r.session->predictor->ops->stage, 0.5);
		assert_true(fabs(share - expected) < 1e-9);
	}
	free(dense);
	close_rig(&r);
	tiny_free(r.tiny);
}

/* The oneDNN chunk agrees with the row kernels to rounding, and with itself on any number of threads. */
static void test_prefill_chunk(void **state)
{
	(void)state;
	tiny_spec s = base_spec;
	s.dim = 130, s.n_ffn = 300, s.dtype = "BF16";
	tiny_model *m = tiny_make(&s, 17);
	int32_t ids[MZM_CHUNK];
	some_ids(ids, MZM_CHUNK, s.n_vocab, 17);
	size_t n = (size_t)s.n_vocab;
	float *rows = malloc(n * sizeof *rows), *first = malloc(n * sizeof *first);
	for (int threads = 1; threads <= 3; threads++) {
		rig r = {0};
		open_on(&r, m->dir, NULL, threads);
		if (!r.model->gemm) {
			print_message("built without oneDNN: nothing to compare\n");
			close_rig(&r);
			tiny_free(m);
			free(rows);
			free(first);
			skip();
		}
		forward(r.session, rows, ids, MZM_CHUNK, 1);
		mzm_session_truncate(r.session, 0);
		float *got;
		mzm_pass pass = {.ids = ids, .n_pos = MZM_CHUNK, .n_rows = 1, .gemm = true};
		assert_int_equal(mzm_forward(r.session->state, &pass, &got, NULL, NULL), MZM_OK);
		for (size_t i = 0; i < n; i++)
			assert_true(fabsf(got[i] - rows[i]) < (r.model->kern->bf16_acts ? 0.05f : 1e-3f));
		if (threads == 1)
			memcpy(first, got, n * sizeof *first);
		assert_memory_equal(got, first, n * sizeof *first);
		close_rig(&r);
	}
	tiny_free(m);
	free(rows);
	free(first);
}

static void test_refusals(void **state)
{
	(void)state;
	tiny_spec s = base_spec;
	rig r = {.tiny = tiny_make(&s, 19)};
	mzm_err err = {0};
	int32_t ids[300] = {0}, bad = s.n_vocab;
	float logits[131];
	open_on(&r, r.tiny->dir, NULL, 1);
	assert_int_equal(mzm_session_forward(r.session, NULL, ids, 257, 0, &err), MZM_ECONTEXT);
	err = (mzm_err){0};
	assert_int_equal(mzm_session_forward(r.session, logits, &bad, 1, 1, &err), MZM_EARG);
	assert_non_null(strstr(err.message, "131"));
	assert_int_equal(mzm_session_forward(r.session, logits, ids, 1, 2, NULL), MZM_EARG);
	assert_int_equal(mzm_session_forward(r.session, NULL, ids, 256, 0, NULL), MZM_OK);
	assert_int_equal(mzm_session_forward(r.session, logits, ids, 1, 1, NULL), MZM_ECONTEXT);
	mzm_session_truncate(r.session, 255);
	assert_int_equal(mzm_session_forward(r.session, logits, ids, 1, 1, NULL), MZM_OK);
	mzm_session_params sp = {.n_ctx = 257};
	mzm_session *other;
	assert_int_equal(mzm_session_create(&other, r.model, &sp, NULL), MZM_EARG);
	mzm_model_params mp = {.isa = "quantum"};
	mzm_model *model;
	assert_int_equal(mzm_model_open(&model, r.tiny->dir, &mp, NULL), MZM_EARG);
	close_rig(&r);
	tiny_free(r.tiny);
}

/* Every allocation made to fail in turn, from opening to the first logits. */
static void test_allocation_failures(void **state)
{
	(void)state;
	tiny_spec s = base_spec;
	s.n_layers = 1;
	tiny_model *m = tiny_make(&s, 23);
	int32_t id = 1;
	size_t before = mzm_mem_live();
	bool ok = false;
	for (long k = 1; !ok && k < 2000; k++) {
		mzm_model *model = NULL;
		mzm_session *session = NULL;
		mzm_err err = {0};
		mzm_gen_params p = mzm_gen_params_default();
		mzm_gen_result res;
		p.mode = MZM_MODE_EXACT;
		p.max_tokens = 4;
		mzm_mem_fail_nth(k);
		ok = mzm_model_open(&model, m->dir, NULL, &err) == MZM_OK &&
		     mzm_session_create(&session, model, NULL, &err) == MZM_OK &&
		     mzm_generate(session, &id, 1, &p, &res, &err) == MZM_OK;
		mzm_mem_fail_nth(0);
		if (!ok)
			assert_int_equal(err.code, MZM_ENOMEM);
		mzm_session_free(session);
		mzm_model_close(model);
		assert_int_equal(mzm_mem_live(), before);
	}
	assert_true(ok);
	tiny_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reference),
		cmocka_unit_test(test_reference_odd_shapes),
		cmocka_unit_test(test_batch_invariance),
		cmocka_unit_test(test_rollback),
		cmocka_unit_test(test_keep_all),
		cmocka_unit_test(test_prefill_chunk),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_allocation_failures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
