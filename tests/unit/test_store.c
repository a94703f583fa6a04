/* test_store.c - wherever the weights are, the results are the same bits: in memory, mapped, streamed in part or whole;
 * for every form of container and however its extents are cut; in every mode; a thousand random sessions against the
 * resident model, with planted faults to prove that they would find one.
 *
 * MIRZAM_LONG=1 runs more containers and sessions; MIRZAM_SHORT=1, for sanitizers, fewer. */
#include "store_rig.h"

#include <pthread.h>

#include "counting.h"
#include "temp_dir.h"

/* ---- what a model answers ---- */

enum { N_PASSES = 5, N_POS = 1 + 2 + 7 + 31 + 32, N_TEXTS = 7, MAX_NEW = 40 };

typedef struct text {
	int     n;
	int32_t ids[MAX_NEW];
	float   prob[MAX_NEW]; /* of the full model; of the draft where there is no check */
	long    allocations_at_first, allocations_at_last;
} text;

typedef struct answers {
	float *logits; /* [N_POS, n_vocab] of passes of 1, 2, 7, 31 and 32 tokens */
	text   texts[N_TEXTS];
} answers;

static const struct {
	mzm_mode    mode;
	const char *predictor;
	float       keep;
	int         period, n_prompt, n_new;
	bool        no_draft_image;
} ways[N_TEXTS] = {
	{MZM_MODE_DENSE, "griffin", 0.5f, 16, 600, 4, false}, /* chunks of 512 and 64, and a rest */
	{MZM_MODE_DENSE, "griffin", 0.5f, 16, 20, 8, false},
	{MZM_MODE_EXACT, "griffin", 0.5f, 5, 70, 12, false},
	{MZM_MODE_EXACT, "topk", 0.3f, 3, 9, 9, true},
	{MZM_MODE_SIRIUS, "topk", 0.4f, 16, 17, 20, false},
	{MZM_MODE_SPARSE, "griffin", 0.5f, 16, 40, 8, true},
	{MZM_MODE_SPARSE, "topk", 0.4f, 16, 12, 8, false},
};

static int32_t some_id(int i, size_t n_vocab)
{
	return (int32_t)((uint64_t)(i + 3) * 2654435761u % 2039 % n_vocab);
}

static int on_token(void *user, const mzm_token_event *e)
{
	text *t = user;
	if (e->kind == MZM_TOKEN_ROLLED_BACK)
		return 0;
	if (t->n == 0)
		t->allocations_at_first = atomic_load(&n_allocations);
	t->allocations_at_last = atomic_load(&n_allocations);
	t->ids[t->n] = e->id;
	t->prob[t->n++] = isnan(e->full_prob) ? e->draft_prob : e->full_prob;
	return 0;
}

static bool no_images; /* all drafts read the model */

static mzm_status write_text(text *t, mzm_session *s, int way, mzm_gen_result *result, mzm_err *err)
{
	int32_t ids[600];
	size_t n_vocab = (size_t)s->model->info.n_vocab;
	mzm_gen_params p = mzm_gen_params_default();
	for (int i = 0; i < ways[way].n_prompt; i++)
		ids[i] = some_id(i, n_vocab);
	p.mode = ways[way].mode;
	p.predictor = ways[way].predictor;
	p.keep = ways[way].keep;
	p.period = ways[way].period;
	p.no_draft_image = ways[way].no_draft_image || no_images;
	p.max_tokens = ways[way].n_new;
	p.ignore_eos = true;
	p.on_token = on_token;
	p.user = t;
	t->n = 0;
	return mzm_generate(s, ids, ways[way].n_prompt, &p, result, err);
}

static void answer_passes(float *logits, mzm_session *s)
{
	static const int lengths[N_PASSES] = {1, 2, 7, 31, 32};
	size_t n_vocab = (size_t)s->model->info.n_vocab;
	int32_t ids[32];
	mzm_err err = {0};
	mzm_session_truncate(s, 0);
	for (int k = 0, at = 0; k < N_PASSES; at += lengths[k++]) {
		for (int i = 0; i < lengths[k]; i++)
			ids[i] = some_id(at + i, n_vocab);
		if (mzm_session_forward(s, logits + (size_t)at * n_vocab, ids, lengths[k], lengths[k], &err) != MZM_OK)
			fail_msg("%s", err.message);
	}
}

/* -> free_answers */
static answers ask(mzm_session *s)
{
	answers a = {.logits = malloc(N_POS * (size_t)s->model->info.n_vocab * sizeof(float))};
	mzm_err err = {0};
	mzm_gen_result result;
	answer_passes(a.logits, s);
	for (int i = 0; i < N_TEXTS; i++) {
		if (write_text(&a.texts[i], s, i, &result, &err) != MZM_OK)
			fail_msg("%s", err.message);
		assert_int_equal(a.texts[i].n, ways[i].n_new);
	}
	return a;
}

static void free_answers(answers *a)
{
	free(a->logits);
}

static void expect_same_text(const text *got, const text *want)
{
	assert_int_equal(got->n, want->n);
	assert_memory_equal(got->ids, want->ids, (size_t)want->n * sizeof *want->ids);
	for (int i = 0; i < want->n; i++) /* NaN where neither model was asked */
		assert_true(got->prob[i] == want->prob[i] || (isnan(got->prob[i]) && isnan(want->prob[i])));
}

static void expect_same_answers(const answers *got, const answers *want, size_t n_vocab)
{
	assert_memory_equal(got->logits, want->logits, N_POS * n_vocab * sizeof(float));
	for (int i = 0; i < N_TEXTS; i++)
		expect_same_text(&got->texts[i], &want->texts[i]);
}

/* ---- the same bits in every store ---- */

static int n_partial; /* models opened so far of which a part streamed and a part did not */

static void expect_answers(rig *r, const answers *want)
{
	answers got = ask(r->session);
	expect_same_answers(&got, want, rig_n_vocab(r));
	free_answers(&got);
}

static void expect_store(const char *file, const rig_how *how, const answers *want)
{
	rig r = rig_open(file, how);
	assert_string_equal(mzm_model_get_plan(r.model)->store, how->store);
	expect_answers(&r, want);
	rig_close(&r);
}

static uint64_t streamable_bytes(const char *file)
{
	rig_how how = {.store = "stream"};
	return rig_plan(file, &how, MZM_OK).streamed_bytes;
}

static answers ask_resident(const char *file)
{
	rig_how how = {.store = "resident"};
	rig r = rig_open(file, &how);
	answers a = ask(r.session);
	rig_close(&r);
	return a;
}

/* Budgets that leave a part in memory, and sometimes no room for the draft image. */
static void expect_partial(const char *file, int turn, const answers *want)
{
	uint64_t all = streamable_bytes(file);
	rig_how how = {.n_threads = 1 + turn % 3};
	rig r = rig_open_tight(file, how, turn % 2 ? all / 2 : all / 4);
	const mzm_plan *plan = mzm_model_get_plan(r.model);
	n_partial += plan->streamed_bytes > 0 && plan->streamed_bytes < all;
	if (plan->draft_on_disk) {
		no_images = true;
		answers without = ask_resident(file);
		no_images = false;
		expect_answers(&r, &without);
		free_answers(&without);
	} else {
		expect_answers(&r, want);
	}
	rig_close(&r);
}

static void expect_same_in_every_store(const char *file, bool mapped, int turn)
{
	bool whole = !getenv("MIRZAM_SHORT") && getenv("MIRZAM_LONG");
	answers want = ask_resident(file);
	for (int threads = 1; threads <= 3; threads++) {
		rig_how how = {.store = "stream", .io = threads % 2 ? "threads" : NULL, .n_threads = threads};
		if (whole || turn % 3 + 1 == threads)
			expect_store(file, &how, &want);
	}
	expect_partial(file, turn, &want);
	if (mapped) {
		rig_how how = {.store = "mmap", .n_threads = 1 + (turn + 1) % 3};
		expect_store(file, &how, &want);
	}
	free_answers(&want);
}

static const char *const quants[] = {"bf16", "f32", "f16", "q8", "q4"};
static const int levels[] = {0, 3, -1};
enum { N_FORMS = 5 * 3 * 2 };

static void import_form(const char *from, int form)
{
	rig_import(from, path, quants[form % 5], form / 15 ? "q4" : "off", levels[form / 5 % 3]);
}

static void test_forms_of_many_spans(void **state)
{
	(void)state;
	tiny_model *m = rig_tiny(64, 4096 + 300, 4500, 3);
	n_partial = 0;
	int step = (int)testing_count(7, 1); /* 7 meets every type, level and image */
	for (int form = 0; form < N_FORMS; form += step) {
		import_form(m->dir, form);
		expect_same_in_every_store(path, form / 5 % 3 == 0, form);
	}
	assert_true(n_partial > 0);
	tiny_free(m);
}

static void test_forms_of_the_demo_model(void **state)
{
	(void)state;
	for (int k = 0; k < testing_count(5, N_FORMS); k += (int)testing_count(2, 1)) {
		if (getenv("MIRZAM_SHORT") && k > 0)
			break;
		int form = k < 5 ? k + 5 * (k % 3) + 15 * (k % 2) : k;
		import_form(k % 2 ? DEMO_MODEL_RELU : DEMO_MODEL, form);
		expect_same_in_every_store(path, form / 5 % 3 == 0, form);
	}
}

/* Spans cut the extents anywhere. */
static void test_extents_of_any_length(void **state)
{
	(void)state;
	char cut[300];
	tiny_model *m = rig_tiny(64, 4096 + 300, 4500, 4);
	snprintf(cut, sizeof cut, "%s/cut.mzm", dir);
	for (int i = 0; i < (getenv("MIRZAM_SHORT") ? 2 : (int)testing_count(4, 60)); i++) {
		import_form(m->dir, i % 5 + 15 * (i % 2));
		rig_recut(path, cut, (uint64_t)i);
		expect_same_in_every_store(cut, false, i);
	}
	tiny_free(m);
}

/* ---- random sessions against the resident model ---- */

/* Whether both give the same bits, or fail alike. */
static bool same_pass(rig *a, rig *b, uint64_t *seed)
{
	size_t n_vocab = rig_n_vocab(a);
	int32_t ids[40], n = 1 + (int32_t)(testing_random(seed) % (testing_random(seed) % 8 ? 6 : 40));
	int32_t rows = testing_random(seed) % 4 ? 1 : (int32_t)(testing_random(seed) % (uint64_t)(n + 1));
	for (int32_t i = 0; i < n; i++)
		ids[i] = (int32_t)(testing_random(seed) % n_vocab);
	float *x = calloc((size_t)n * n_vocab, sizeof *x), *y = calloc((size_t)n * n_vocab, sizeof *y);
	mzm_err err = {0};
	mzm_status s = mzm_session_forward(a->session, x, ids, n, rows, &err);
	mzm_status t = mzm_session_forward(b->session, y, ids, n, rows, &err);
	bool same = s == t && memcmp(x, y, (size_t)n * n_vocab * sizeof *x) == 0;
	free(x);
	free(y);
	return same && mzm_session_len(a->session) == mzm_session_len(b->session);
}

static bool same_generation(rig *a, rig *b, uint64_t *seed)
{
	static text x, y;
	mzm_gen_result result;
	mzm_err err = {0};
	int way = 1 + (int)(testing_random(seed) % (N_TEXTS - 1));
	if (write_text(&x, a->session, way, &result, &err) != MZM_OK ||
	    write_text(&y, b->session, way, &result, &err) != MZM_OK)
		return false;
	return x.n == y.n && memcmp(x.ids, y.ids, (size_t)x.n * sizeof *x.ids) == 0;
}

/* The number of the first of n programs that found a difference, n: none. */
static long run_programs(rig *a, rig *b, long n, uint64_t seed)
{
	for (long i = 0; i < n; i++) {
		int n_steps = 2 + (int)(testing_random(&seed) % 4);
		mzm_session_truncate(a->session, 0);
		mzm_session_truncate(b->session, 0);
		for (int k = 0; k < n_steps; k++) {
			int32_t len = mzm_session_len(a->session);
			if (testing_random(&seed) % 4 == 0 && len > 0) {
				len = (int32_t)(testing_random(&seed) % (uint64_t)len);
				mzm_session_truncate(a->session, len);
				mzm_session_truncate(b->session, len);
			}
			if (!same_pass(a, b, &seed))
				return i;
		}
		if (testing_random(&seed) % 40 == 0 && !same_generation(a, b, &seed))
			return i;
	}
	return n;
}

static void make_small(const char *to)
{
	rig_write(rig_tiny(32, 2048 + 70, 270, 5), to, "bf16", "off", 0);
}

static void test_random_sessions(void **state)
{
	(void)state;
	make_small(path);
	rig_how resident = {.store = "resident"}, two = {.n_threads = 2};
	rig a = rig_open(path, &resident);
	rig b = rig_open_tight(path, two, 0);
	assert_true(mzm_model_get_plan(b.model)->streamed_bytes > streamable_bytes(path) / 2);
	long n = getenv("MIRZAM_SHORT") ? 60 : testing_count(400, 10000);
	assert_int_equal(run_programs(&a, &b, n, 11), n);
	rig_close(&b);
	rig_close(&a);
}

/* Or the programs could not fail: a weight of another value; rows that are taken one too far. */
static void test_planted_faults_are_found(void **state)
{
	(void)state;
	char other[300];
	snprintf(other, sizeof other, "%s/other.mzm", dir);
	make_small(path);
	rig_how resident = {.store = "resident"}, stream = {.store = "stream"};
	rig a = rig_open(path, &resident);
	for (int32_t i = 0; i < 2; i++) {
		mzm_tensor_kind kind = i ? MZM_T_UPDOWN : MZM_T_WV;
		rig_copy(path, other);
		rig_change_weight(other, mzm_tensor_index(&a.model->weights->cfg, kind, i));
		rig b = rig_open(other, &stream);
		assert_true(run_programs(&a, &b, 40, 12) < 40);
		rig_close(&b);
	}
	for (int i = 0; i < 3; i++) {
		rig b = rig_open(path, &stream);
		mzm_layer *l = &b.model->weights->layer[i % 2];
		mzm_matrix *m = i == 0 ? &l->gate : i == 1 ? &l->up : &l->wo;
		assert_null(m->w);
		m->offset += m->stride;
		assert_true(run_programs(&a, &b, 40, 13) < 40);
		rig_close(&b);
	}
	rig b = rig_open(path, &stream);
	assert_int_equal(run_programs(&a, &b, 40, 13), 40); /* and nothing is found where there is nothing */
	rig_close(&b);
	rig_close(&a);
}

/* ---- several sessions ---- */

typedef struct job {
	mzm_session *session;
	int          first;
	answers      got;
} job;

static void *answer_in_thread(void *arg)
{
	job *j = arg;
	j->got = ask(j->session);
	return NULL;
}

static void test_sessions_in_threads(void **state)
{
	(void)state;
	rig_write(rig_tiny(64, 2048 + 300, 600, 6), path, "bf16", "q4", 3);
	rig_how stream = {.store = "stream"};
	answers want = ask_resident(path);
	for (int round = 0; round < 2; round++) {
		pthread_t threads[2];
		job jobs[2] = {0};
		mzm_session_params sp = {.n_threads = 2};
		rig r = rig_open(path, &stream);
		jobs[0].session = r.session;
		assert_int_equal(mzm_session_create(&jobs[1].session, r.model, &sp, NULL), MZM_OK);
		for (int i = 0; i < 2; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, answer_in_thread, &jobs[i]), 0);
		for (int i = 0; i < 2; i++) {
			pthread_join(threads[i], NULL);
			expect_same_answers(&jobs[i].got, &want, rig_n_vocab(&r));
			free_answers(&jobs[i].got);
		}
		mzm_session_free(jobs[1].session);
		rig_close(&r);
	}
	free_answers(&want);
}

/* ---- what is counted ---- */

static void test_statistics(void **state)
{
	(void)state;
	static text t;
	mzm_gen_result result;
	/* no extent is in two spans: none is read twice */
	rig_write(rig_tiny(128, 4096, 512, 7), path, "bf16", "off", 0);
	rig_how stream = {.store = "stream"}, resident = {.store = "resident"};
	rig r = rig_open(path, &stream);
	uint64_t streamed = mzm_model_get_plan(r.model)->streamed_bytes;
	mzm_stream_stats before = mzm_model_stream_stats(r.model);
	assert_true(before.bytes_read > 0 && strlen(before.io) > 0); /* what stays in memory was read */
	assert_int_equal(write_text(&t, r.session, 1, &result, NULL), MZM_OK);
	uint64_t n_passes = (uint64_t)result.n_dense_passes + 1; /* 20 tokens of the prompt */
	assert_int_equal(result.bytes_read, n_passes * streamed);
	assert_true(result.read_ns > 0 && result.unpack_ns > 0 && result.wait_ns >= 0);
	mzm_stream_stats after = mzm_model_stream_stats(r.model);
	assert_true(after.bytes_read - before.bytes_read + streamed >= result.bytes_read); /* some was read before */
	rig_close(&r);
	r = rig_open(path, &resident);
	assert_int_equal(write_text(&t, r.session, 1, &result, NULL), MZM_OK);
	assert_true(result.bytes_read == 0 && result.read_ns == 0 && result.wait_ns == 0);
	assert_string_equal(mzm_model_stream_stats(r.model).io, "");
	rig_close(&r);
}

static void test_no_allocation_while_streaming(void **state)
{
	(void)state;
#ifdef NO_COUNTING
	print_message("a sanitizer owns malloc: not counted in this build\n");
	skip();
#endif
	static text t;
	mzm_gen_result result;
	for (int form = 0; form < 3; form++) {
		rig_import(DEMO_MODEL, path, "bf16", form == 2 ? "q4" : "off", form ? 3 : 0);
		rig_how stream = {.store = "stream", .n_threads = 2};
		rig r = rig_open(path, &stream);
		for (int way = 0; way < N_TEXTS; way++) {
			assert_int_equal(write_text(&t, r.session, way, &result, NULL), MZM_OK);
			assert_true(t.allocations_at_first > 0);
			assert_int_equal(t.allocations_at_last, t.allocations_at_first);
		}
		rig_close(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_DIR(test_forms_of_many_spans),
		IN_DIR(test_forms_of_the_demo_model),
		IN_DIR(test_extents_of_any_length),
		IN_DIR(test_random_sessions),
		IN_DIR(test_planted_faults_are_found),
		IN_DIR(test_sessions_in_threads),
		IN_DIR(test_statistics),
		IN_DIR(test_no_allocation_while_streaming),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
