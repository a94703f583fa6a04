/* test_held_drafts.c - drafts on the neurons that fit in memory: texts and probabilities against the whole model in
 * memory, what is learnt from checks, predictors that take turns, reads that fail, and cancellations.
 *
 * MIRZAM_LONG=1 runs more models and faults; MIRZAM_SHORT=1, for sanitizers, fewer. */
#include "held_rig.h"

#include <errno.h>
#include <pthread.h>

#include "base/io.h"
#include "counting.h"
#include "model/state.h"

static bool is_short(void)
{
	return getenv("MIRZAM_SHORT") != NULL;
}

/* ---- texts ---- */

enum { N_PROMPT = 75, MAX_EVENTS = 200, MAX_HELD = 2 * 2100 };

typedef struct event {
	int32_t kind, id;
	float   draft_prob, full_prob;
} event;

typedef struct text {
	mzm_gen_result r;
	int            n;
	event          events[MAX_EVENTS];
	long           allocations_at_first, allocations_at_last;
	mzm_held      *held;           /* of the session */
	int32_t        first[MAX_HELD]; /* the sets after the prompt */
	int            n_calls, stop_at; /* of on_stream */
} text;

static int on_token(void *user, const mzm_token_event *e)
{
	text *t = user;
	long now = atomic_load(&n_allocations);
	if (t->n == 0) {
		t->allocations_at_first = now;
		if (t->held)
			memcpy(t->first, t->held->ids,
			       (size_t)t->held->n_layers * (size_t)t->held->n * sizeof *t->first);
	}
	t->allocations_at_last = now;
	assert_true(t->n < MAX_EVENTS);
	t->events[t->n++] = (event){(int32_t)e->kind, e->id, e->draft_prob, e->full_prob};
	return 0;
}

static int on_stream(void *user, const char *stage, uint64_t done, uint64_t total)
{
	text *t = user;
	assert_string_equal(stage, "reading weights");
	assert_true(done < total);
	return ++t->n_calls == t->stop_at;
}

static mzm_status try_text(text *t, mzm_session *s, way w, mzm_err *err)
{
	int32_t ids[N_PROMPT];
	int stop_at = t->stop_at;
	uint64_t n_vocab = (uint64_t)s->model->info.n_vocab;
	mzm_gen_params p = params_of(w);
	for (int i = 0; i < N_PROMPT; i++)
		ids[i] = (int32_t)((uint64_t)(i + 3 + 100 * w.prompt) * 2654435761u % 2039 % n_vocab);
	*t = (text){.held = s->state->held, .stop_at = stop_at};
	p.on_token = on_token;
	p.on_stream = stop_at ? on_stream : NULL;
	p.user = t;
	return mzm_generate(s, ids, N_PROMPT, &p, &t->r, err);
}

static text write_text(mzm_session *s, way w)
{
	text t = {.n = 0};
	mzm_err err = {0};
	if (try_text(&t, s, w, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(t.r.n_tokens, N_NEW);
	return t;
}

static void expect_same(const text *got, const text *want)
{
	assert_int_equal(got->n, want->n);
	assert_memory_equal(got->events, want->events, (size_t)want->n * sizeof *want->events);
}

/* What is left of keep where n neurons are held. */
static float cut_keep(float keep, int32_t n, int32_t all)
{
	float most = nextafterf((float)n / (float)all, 1);
	return keep < most ? keep : most;
}

static rig open_resident(const char *file)
{
	rig_how how = {.store = "resident", .n_ctx = 160};
	return rig_open(file, &how);
}

static const mzm_mode modes[] = {MZM_MODE_SPARSE, MZM_MODE_EXACT, MZM_MODE_SIRIUS, MZM_MODE_DENSE};
static const char *const ios[] = {NULL, "threads"};
static int n_kept, n_dropped; /* of all drafts that were compared */

static void count_drafts(const text *t)
{
	n_kept += t->r.n_accepted;
	n_dropped += t->r.n_rolled_back;
}

static void expect_close(double got, double want)
{
	if (!(fabs(got - want) < 1e-9))
		fail_msg("%.12g instead of %.12g", got, want);
}

/* ---- griffin: as the model in memory that keeps as many ---- */

/* In the first n of the modes. */
static void expect_griffin(rig *r, rig *resident, float keep, int n)
{
	bool image = mzm_model_has_draft(r->model);
	int32_t wanted = (int32_t)((double)keep * n_ffn(r) + 1e-3), held = n_held(r);
	double share = (double)(wanted < held ? wanted : held) / n_ffn(r);
	float cut = cut_keep(keep, held, n_ffn(r));
	for (int i = 0; i < n; i++) {
		text want = write_text(resident->session, (way){modes[i], "griffin", cut, false, 0});
		text got = write_text(r->session, (way){modes[i], "griffin", keep, false, 0});
		expect_same(&got, &want);
		count_drafts(&got);
		assert_memory_equal(got.first, got.held->ids, /* and it stays with its choice */
				    2 * (size_t)got.held->n * sizeof *got.first);
		if (modes[i] == MZM_MODE_DENSE)
			continue;
		expect_close(got.r.density, mzm_model_density(r->model, share, image));
		expect_close(got.r.read_density, mzm_model_read_density(r->model, share, image));
		assert_true(got.r.n_sparse_passes > 0 && got.r.density < 1);
	}
}

static void test_griffin(void **state)
{
	(void)state;
	int turn = 0;
	n_kept = n_dropped = 0;
	for (int f = 0; f < N_FORMS; f += is_short() ? 3 : 1) {
		make_model(forms[f]);
		rig resident = open_resident(path);
		for (int part = 0; part < testing_count(2, 10); part++, turn++) {
			rig_how how = {.io = ios[turn / 3 % 2], .n_threads = 1 + turn % 3};
			way drafts = {MZM_MODE_SIRIUS, "griffin", part % 3 == 1 ? 0.75f : 0.5f, false, 0};
			int32_t least = forms[f].n_ffn * (1 + 5 * part) / 32; /* an image soon fits whole */
			int32_t most = forms[f].n_ffn / (strcmp(forms[f].draft, "off") == 0 ? 2 : 4);
			rig r = open_held(path, how, drafts, least < most ? least : most, false);
			expect_griffin(&r, &resident, drafts.keep, part ? 1 + turn % 3 : 4);
			expect_griffin(&r, &resident, 0.02f, 1); /* less than what is held */
			rig_close(&r);
		}
		rig_close(&resident);
	}
	assert_true(n_kept > 0 && n_dropped > 0);
}

/* ---- topk: among those that carried most lately ---- */

/* Rows of each layer that are read, as a share of all. */
static double topk_share(const rig *r, int32_t keep)
{
	double sum = 0;
	const mzm_held *h = r->session->state->held;
	for (int32_t l = 0; l < h->n_layers; l++)
		sum += (h->layer[l].gate.w ? h->n : h->n_ffn) + 2.0 * keep;
	return sum / (3.0 * h->n_layers * h->n_ffn);
}

static void expect_topk(rig *r, const text want[3])
{
	int32_t keep = n_ffn(r) / 20;
	bool image = mzm_model_has_draft(r->model);
	for (int i = 0; i < 3; i++) {
		text got = write_text(r->session, (way){modes[i], "topk", 0.05f, false, 0});
		expect_same(&got, &want[i]);
		expect_close(got.r.density, mzm_model_density(r->model, topk_share(r, keep), image));
		double all = mzm_pred_ffn_share(MZM_PRED_GATE, (double)keep / n_ffn(r), false);
		assert_true(got.r.density < mzm_model_density(r->model, all, image));
		count_drafts(&got);
	}
}

/* Tokens and probabilities of the full model. */
static void expect_exact_is_dense(const text *exact, const text *dense)
{
	int n = 0;
	for (int i = 0; i < exact->n; i++) {
		const event *e = &exact->events[i];
		if (e->kind == MZM_TOKEN_ROLLED_BACK)
			continue;
		assert_int_equal(e->id, dense->events[n].id);
		assert_memory_equal(&e->full_prob, &dense->events[n].full_prob, sizeof e->full_prob);
		n++;
	}
	assert_int_equal(n, dense->n);
}

static void test_topk(void **state)
{
	(void)state;
	n_kept = n_dropped = 0;
	for (int f = 0; f < N_FORMS; f += is_short() ? 3 : (int)testing_count(2, 1)) {
		text want[3];
		make_model(forms[f]);
		way drafts = {MZM_MODE_SIRIUS, "topk", 0.05f, false, 0};
		int32_t n = forms[f].n_ffn * (1 + f % 3) / 8;
		for (int k = 0; k < 3; k++) {
			rig_how how = {.io = ios[(k + f) % 2], .n_threads = 1 + k};
			rig r = open_held(path, how, drafts, n, true);
			for (int i = 0; i < 3 && k == 0; i++)
				want[i] = write_text(r.session, (way){modes[i], "topk", 0.05f, false, 0});
			expect_topk(&r, want);
			rig_close(&r);
		}
		rig resident = open_resident(path);
		text dense = write_text(resident.session, (way){MZM_MODE_DENSE, "topk", 0.05f, false, 0});
		expect_exact_is_dense(&want[1], &dense);
		rig_close(&resident);
	}
	assert_true(n_kept > 0 && n_dropped > 0);
}

static void test_learning(void **state)
{
	(void)state;
	for (int f = 0; f < 2; f++) {
		make_model(forms[f]);
		rig r = open_held(path, (rig_how){0}, (way){MZM_MODE_SIRIUS, "topk", 0.05f, false, 0}, 400, true);
		text t = write_text(r.session, (way){MZM_MODE_SPARSE, "topk", 0.05f, false, 0});
		size_t bytes = 2 * (size_t)t.held->n * sizeof *t.first;
		assert_memory_equal(t.first, t.held->ids, bytes); /* no check, no news */
		t = write_text(r.session, (way){MZM_MODE_SIRIUS, "topk", 0.05f, false, 0});
		assert_true(t.r.n_checks > 1 && memcmp(t.first, t.held->ids, bytes) != 0);
		assert_true(mzm_held_is_complete(t.held));
		rig_close(&r);
	}
}

/* ---- predictors and images that change ---- */

static void expect_turns(bool has_image)
{
	enum { N_TURNS = 9 };
	static const way turns[N_TURNS] = {
		{MZM_MODE_SPARSE, "griffin", 0.3f, false, 0}, {MZM_MODE_SIRIUS, "random", 0.5f, false, 0},
		{MZM_MODE_SIRIUS, "topk", 0.2f, false, 0},    {MZM_MODE_SPARSE, "griffin", 0.3f, false, 0},
		{MZM_MODE_SIRIUS, "griffin", 0.3f, true, 0},  {MZM_MODE_EXACT, "topk", 0.2f, true, 0},
		{MZM_MODE_EXACT, "dense", 0.3f, false, 0},    {MZM_MODE_SIRIUS, "topk", 0.2f, false, 0},
		{MZM_MODE_SPARSE, "griffin", 0.3f, false, 0}};
	rig_how how = {.n_threads = 2};
	rig r = open_held(path, how, (way){MZM_MODE_SIRIUS, "topk", 0.2f, false, 0}, 320, true);
	rig resident = open_resident(path);
	rig fresh = open_held(path, how, (way){MZM_MODE_SIRIUS, "topk", 0.2f, false, 0}, 320, true);
	text topk = write_text(fresh.session, turns[2]);
	for (int i = 0; i < N_TURNS; i++) {
		way w = turns[i];
		text got = write_text(r.session, w);
		bool wants = strcmp(w.predictor, "griffin") == 0 || strcmp(w.predictor, "topk") == 0;
		bool held = wants && (!has_image || !w.no_image);
		w.keep = held ? cut_keep(w.keep, n_held(&r), n_ffn(&r)) : w.keep;
		w.no_image |= has_image && !held; /* of the image there is a part only */
		text want = write_text(resident.session, w);
		if (held && strcmp(w.predictor, "topk") == 0)
			expect_same(&got, &topk);
		else
			expect_same(&got, &want);
	}
	rig_close(&fresh);
	rig_close(&resident);
	rig_close(&r);
}

static void test_turns(void **state)
{
	(void)state;
	static const form with_image[] = {{"bf16", "q4", 0, 2100, "nearest"}, {"bf16", "q4", 0, 2100, "best"}};
	make_model(forms[1]);
	expect_turns(false);
	for (int i = 0; i < 2; i++) {
		make_model(with_image[i]);
		expect_turns(true);
	}
}

/* Timing needs neurons, too: before any prompt, and in the middle of a text whose period is found by it. */
static void test_measured_costs(void **state)
{
	(void)state;
	for (int k = 0; k < 4; k += is_short() ? 3 : 1) {
		static const int32_t prompt[] = {7, 99, 3, 250, 41};
		int32_t want[N_NEW];
		mzm_costs costs;
		mzm_gen_result result;
		mzm_err err = {0};
		way w = {MZM_MODE_EXACT, k % 2 ? "topk" : "griffin", 0.2f, false, 0};
		make_model(forms[k / 2]);
		rig r = open_held(path, (rig_how){0}, w, 300, false);
		text before = write_text(r.session, w);
		mzm_gen_params p = params_of(w);
		p.period = 0;
		p.mode = MZM_MODE_DENSE;
		assert_int_equal(mzm_generate(r.session, prompt, 5, &p, &result, NULL), MZM_OK);
		memcpy(want, result.tokens, sizeof want);
		p.mode = MZM_MODE_EXACT;
		if (mzm_generate(r.session, prompt, 5, &p, &result, &err) != MZM_OK)
			fail_msg("%s", err.message);
		assert_memory_equal(result.tokens, want, sizeof want);
		assert_true(result.costs.sparse > 0);
		mzm_session_free(r.session);
		mzm_session_params sp = {.n_threads = 1, .n_ctx = 160};
		assert_int_equal(mzm_session_create(&r.session, r.model, &sp, NULL), MZM_OK);
		assert_int_equal(mzm_session_measure_costs(r.session, &p, &costs, NULL), MZM_OK);
		assert_true(costs.sparse > 0 && costs.check[1] > 0);
		text after = write_text(r.session, w);
		expect_same(&after, &before);
		rig_close(&r);
	}
}

/* ---- two sessions ---- */

typedef struct job {
	mzm_session *session;
	int          turn;
	text         texts[4];
} job;

static void *write_in_thread(void *arg)
{
	job *j = arg;
	for (int i = 0; i < 4; i++)
		j->texts[i] = write_text(j->session, (way){modes[(i + j->turn) % 3], "griffin", 0.3f, false, 0});
	return NULL;
}

static void test_sessions_in_threads(void **state)
{
	(void)state;
	for (int f = 0; f < 2; f++) {
		static job jobs[2];
		pthread_t threads[2];
		mzm_session_params sp = {.n_threads = 1, .n_ctx = 160};
		make_model(forms[f]);
		way drafts = {MZM_MODE_SPARSE, "griffin", 0.3f, false, 0};
		rig r = open_held(path, (rig_how){.n_sessions = 2}, drafts, 200, false);
		rig resident = open_resident(path);
		float cut = cut_keep(0.3f, n_held(&r), n_ffn(&r));
		jobs[0] = (job){.session = r.session};
		jobs[1] = (job){.turn = 1};
		assert_int_equal(mzm_session_create(&jobs[1].session, r.model, &sp, NULL), MZM_OK);
		for (int i = 0; i < 2; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, write_in_thread, &jobs[i]), 0);
		for (int i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
		for (int i = 0; i < 8; i++) {
			way w = {modes[(i / 2 + i % 2) % 3], "griffin", cut, false, 0};
			text want = write_text(resident.session, w);
			expect_same(&jobs[i % 2].texts[i / 2], &want);
		}
		mzm_session_free(jobs[1].session);
		rig_close(&resident);
		rig_close(&r);
	}
}

static void test_no_allocation_while_writing(void **state)
{
	(void)state;
#ifdef NO_COUNTING
	print_message("a sanitizer owns malloc: not counted in this build\n");
	skip();
#endif
	for (int k = 0; k < 4; k++) {
		const char *name = k % 2 ? "topk" : "griffin";
		make_model(forms[k / 2]);
		way w = {MZM_MODE_SIRIUS, name, 0.4f, false, 0};
		rig r = open_held(path, (rig_how){.n_threads = 2}, w, 300, false);
		for (int i = 0; i < 3; i++) {
			w.mode = modes[i];
			text t = write_text(r.session, w);
			assert_true(t.allocations_at_first > 0);
			assert_int_equal(t.allocations_at_last, t.allocations_at_first);
		}
		rig_close(&r);
	}
}

/* ---- what goes wrong ---- */

typedef struct tally {
	int n_failed, n_in_hold, n_stopped; /* n_in_hold: some neurons had not come */
} tally;

static void expect_told(mzm_status st, const mzm_err *err)
{
	assert_int_equal(st, MZM_EIO);
	if (!strstr(err->message, path) || !strstr(err->message, strerror(EIO)) || !strstr(err->message, "offset "))
		fail_msg("place or reason is not named: %s", err->message);
}

/* False: it ends before the n-th read. */
static bool text_with_fault(rig *r, way w, long nth, const text *want, tally *t)
{
	text got = {.n = 0};
	mzm_err err = {0};
	mzm_io_fail_nth(nth, EIO);
	mzm_status st = try_text(&got, r->session, w, &err);
	bool reached = mzm_io_fail_nth(0, 0) >= nth;
	if (st != MZM_OK) {
		expect_told(st, &err);
		t->n_failed++;
		t->n_in_hold += !mzm_held_is_complete(r->session->state->held);
	} else {
		expect_same(&got, want);
		st = try_text(&got, r->session, w, &err); /* meets what was read ahead */
		if (st != MZM_OK)
			expect_told(st, &err);
	}
	got = write_text(r->session, w);
	expect_same(&got, want);
	return reached;
}

/* False: it ends before the k-th call. */
static bool text_with_stop(rig *r, way w, int k, const text *want, tally *t)
{
	text got = {.stop_at = k};
	mzm_err err = {0};
	mzm_status st = try_text(&got, r->session, w, &err);
	bool reached = got.n_calls >= k;
	if (st == MZM_OK && reached) {
		assert_int_equal(got.r.finish, MZM_FINISH_CANCELLED);
		assert_true(got.n < want->n);
		assert_memory_equal(got.events, want->events, (size_t)got.n * sizeof *got.events);
		t->n_stopped++;
	} else if (st != MZM_OK) {
		assert_int_equal(st, MZM_ECANCELLED);
		t->n_failed++;
		t->n_in_hold += !mzm_held_is_complete(r->session->state->held);
	}
	if (reached) {
		got = write_text(r->session, w);
		expect_same(&got, want);
	}
	return reached;
}

static void expect_faults_are_met(form f, way w, int n_threads)
{
	tally failed = {0}, stopped = {0};
	int thin = (int)testing_count(8, 10000); /* all of so many first ones, then ever fewer */
	make_model(f);
	rig r = open_held(path, (rig_how){.n_threads = n_threads}, w, 300, true);
	text want[2];
	for (w.prompt = 0; w.prompt < 2; w.prompt++) /* each moves what the other one holds */
		want[w.prompt] = write_text(r.session, w);
	bool more = true;
	for (long nth = 1; more; nth += 1 + nth / thin) {
		w.prompt = !w.prompt;
		more = text_with_fault(&r, w, nth, &want[w.prompt], &failed);
	}
	more = true;
	for (int k = 1; more; k += 1 + k / thin) {
		w.prompt = !w.prompt;
		more = text_with_stop(&r, w, k, &want[w.prompt], &stopped);
	}
	assert_true(failed.n_failed > 5 && failed.n_in_hold > 0 && stopped.n_in_hold > 0);
	assert_true(stopped.n_failed > 5 && (w.mode == MZM_MODE_SPARSE || stopped.n_stopped > 0));
	rig_close(&r);
}

static void test_faults(void **state)
{
	(void)state;
	static const way ways[] = {{MZM_MODE_SPARSE, "griffin", 0.3f, false, 0},
				   {MZM_MODE_SIRIUS, "topk", 0.1f, false, 0}};
	for (int k = 0; k < 4; k++) {
		form f = forms[k / 2];
		f.n_ffn = 1100;
		expect_faults_are_met(f, ways[k % 2], 1 + k / 3);
	}
}

/* ---- a conversation goes on ---- */

enum { N_TALK = 20, MAX_TALK = 160 };

/* A turn: more tokens are asked, and the answer joins them. */
static mzm_gen_result talk_on(mzm_session *s, int32_t *ids, int32_t *n, way w, mzm_progress_fn watch, void *user)
{
	mzm_gen_params p = params_of(w);
	mzm_gen_result r;
	uint32_t n_vocab = (uint32_t)s->model->info.n_vocab;
	for (int i = 0; i < N_TALK; i++, ++*n)
		ids[*n] = (int32_t)((uint32_t)(*n * 7 + 11) * 2654435761u % 2039 % n_vocab);
	p.keep_prefix = true;
	p.on_stream = watch;
	p.user = user;
	mzm_status st = mzm_generate(s, ids, *n, &p, &r, NULL);
	assert_int_equal(st, watch ? MZM_ECANCELLED : MZM_OK);
	if (st == MZM_OK)
		memcpy(ids + *n, r.tokens, (size_t)r.n_tokens * sizeof *ids);
	*n += st == MZM_OK ? r.n_tokens : 0;
	return r;
}

static void test_conversations(void **state)
{
	static const char *const predictors[] = {"griffin", "topk"};
	(void)state;
	for (int k = 0; k < 4; k++) {
		form f = forms[k / 2];
		f.n_ffn = 1100;
		make_model(f);
		way w = {MZM_MODE_EXACT, predictors[k % 2], 0.3f, false, 0}, dense = w;
		dense.mode = MZM_MODE_DENSE;
		rig_how how = {.n_threads = 1 + k % 2};
		rig resident = open_resident(path), r = open_held(path, how, w, 100, false);
		int32_t got[MAX_TALK], want[MAX_TALK], n = 0, n_want = 0;
		for (int turn = 0; turn < 4; turn++) {
			int32_t known = n;
			mzm_gen_result a = talk_on(r.session, got, &n, w, NULL, NULL);
			talk_on(resident.session, want, &n_want, dense, NULL, NULL);
			assert_int_equal(a.n_kept, known ? known - 1 : 0);
			assert_true(a.n_sparse_passes > 0);
			assert_int_equal(n, n_want);
			assert_memory_equal(got, want, (size_t)n * sizeof *got);
		}
		text t = {.stop_at = 3}; /* the predictor has seen half of a pass, and starts anew */
		int32_t again = n - N_NEW;
		talk_on(r.session, got, &n, w, on_stream, &t);
		again -= N_TALK;
		assert_int_equal(talk_on(r.session, got, &again, w, NULL, NULL).n_kept, 0);
		rig_close(&r);
		rig_close(&resident);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_DIR(test_griffin),
		IN_DIR(test_topk),
		IN_DIR(test_learning),
		IN_DIR(test_turns),
		IN_DIR(test_measured_costs),
		IN_DIR(test_sessions_in_threads),
		IN_DIR(test_no_allocation_while_writing),
		IN_DIR(test_faults),
		IN_DIR(test_conversations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
