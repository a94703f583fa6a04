/* test_held.c - drafts on the neurons that fit in memory: which are held and with which bytes, against a naive model;
 * texts and probabilities against the whole model in memory; what is learnt from checks; reads that fail, and
 * cancellations; the memory that a plan counts for them.
 *
 * MIRZAM_LONG=1 runs more models and faults; MIRZAM_SHORT=1, for sanitizers, fewer. */
#include "store_rig.h"

#include <errno.h>
#include <pthread.h>

#include "base/io.h"
#include "counting.h"
#include "kern/quant.h"
#include "model/state.h"
#include "temp_dir.h"

static bool is_short(void)
{
	return getenv("MIRZAM_SHORT") != NULL;
}

/* ---- against a naive model: sets, places, bytes ---- */

enum { MAX_FFN = 300, N_UNIT_LAYERS = 3 };

typedef struct unit {
	mzm_config cfg;
	mzm_layer  of[N_UNIT_LAYERS];
	mzm_dtype  from[2], to[2];                      /* gate, up with down: of the source; held */
	char      *rows[N_UNIT_LAYERS][2];              /* the source */
	mzm_held  *h;
	bool       wanted[N_UNIT_LAYERS][MAX_FFN];
	uint8_t    missing[N_UNIT_LAYERS][MAX_FFN];
	int32_t    place[N_UNIT_LAYERS][MAX_FFN];       /* where it was seen first since it came; -1: not yet */
	uint64_t   seed;
} unit;

static size_t row_bytes(const unit *u, mzm_dtype dtype)
{
	return mzm_row_bytes(dtype, u->cfg.dim);
}

static void make_row(char *dst, mzm_dtype dtype, int32_t n, uint64_t *seed)
{
	float x[256];
	for (int32_t i = 0; i < n; i++) {
		x[i] = (float)tiny_unit(seed);
		uint16_t half = dtype == MZM_BF16 ? mzm_f32_to_bf16(x[i]) : mzm_f32_to_f16(x[i]);
		if (dtype == MZM_BF16 || dtype == MZM_F16)
			memcpy(dst + 2 * i, &half, 2);
	}
	if (dtype == MZM_F32)
		memcpy(dst, x, (size_t)n * sizeof *x);
	else if (mzm_dtype_is_quant(dtype))
		assert_true(mzm_quant_row(dst, x, dtype, n, MZM_QUANT_BEST));
}

/* What a place must have of a source row. */
static void held_row(char *dst, mzm_dtype to, const char *src, mzm_dtype from, int32_t n)
{
	float x[256];
	for (int32_t i = 0; i < n && from != MZM_F32 && !mzm_dtype_is_quant(from); i++) {
		uint16_t half;
		memcpy(&half, src + 2 * i, 2);
		x[i] = from == MZM_BF16 ? mzm_bf16_to_f32(half) : mzm_f16_to_f32(half);
	}
	if (from == MZM_F32)
		memcpy(x, src, (size_t)n * sizeof *x);
	if (from == to)
		memcpy(dst, src, mzm_row_bytes(from, n));
	else
		assert_true(mzm_quant_row(dst, x, to, n, MZM_QUANT_NEAREST));
}

/* n_ffn neurons, n places. The last layer is in memory, every other time. */
static void unit_start(unit *u, int round)
{
	static const mzm_dtype types[][2] = {{MZM_BF16, MZM_BF16}, {MZM_BF16, MZM_Q4}, {MZM_F16, MZM_F16},
					     {MZM_BF16, MZM_Q8}, {MZM_F32, MZM_F32}, {MZM_F32, MZM_Q4},
					     {MZM_Q8, MZM_Q8}, {MZM_F16, MZM_Q8}, {MZM_Q4, MZM_Q4}};
	enum { N_TYPES = sizeof types / sizeof *types };
	static char whole;
	*u = (unit){.seed = (uint64_t)round};
	u->cfg.n_layers = N_UNIT_LAYERS;
	u->cfg.dim = 32 * (1 + round % 5);
	u->cfg.n_ffn = 10 + (int32_t)(testing_random(&u->seed) % (MAX_FFN - 9));
	int32_t n = 1 + (int32_t)(testing_random(&u->seed) % (uint64_t)u->cfg.n_ffn);
	for (int k = 0; k < 2; k++) {
		u->from[k] = types[(round + 4 * k) % N_TYPES][0];
		u->to[k] = types[(round + 4 * k) % N_TYPES][1];
	}
	for (int l = 0; l < N_UNIT_LAYERS; l++) {
		mzm_layer *layer = &u->of[l];
		for (int k = 0; k < 2; k++) {
			size_t bytes = row_bytes(u, u->from[k]), n_rows = (size_t)((k + 1) * u->cfg.n_ffn);
			u->rows[l][k] = malloc(n_rows * bytes);
			for (size_t i = 0; i < n_rows; i++)
				make_row(u->rows[l][k] + i * bytes, u->from[k], u->cfg.dim, &u->seed);
		}
		layer->gate.dtype = u->to[0];
		layer->up.dtype = layer->down.dtype = u->to[1];
		layer->gate.w = round % 2 && l == N_UNIT_LAYERS - 1 ? &whole : NULL;
		layer->up.w = round % 2 && l > 0 ? &whole : NULL; /* of the second layer one matrix only */
	}
	memset(u->place, 0xff, sizeof u->place);
	assert_int_equal(mzm_held_create(&u->h, &u->cfg, u->of, n, mzm_kern_find(NULL), NULL), MZM_OK);
}

static void unit_end(unit *u)
{
	mzm_held_free(u->h);
	for (int l = 0; l < N_UNIT_LAYERS; l++)
		for (int k = 0; k < 2; k++)
			free(u->rows[l][k]);
}

static bool is_whole(const unit *u, int l)
{
	return u->of[l].gate.w && u->of[l].up.w;
}

/* Another set, of which some were there before. */
static void unit_choose(unit *u, int l)
{
	int32_t ids[MAX_FFN], n = 0, most = (int32_t)(testing_random(&u->seed) % (uint64_t)(u->h->n + 1));
	uint64_t change = 2 + testing_random(&u->seed) % 6;
	for (int32_t j = 0; j < u->cfg.n_ffn; j++) {
		bool want = u->wanted[l][j] ^ (testing_random(&u->seed) % change == 0);
		if (want && n < (most ? most : u->h->n))
			ids[n++] = j;
		else
			want = false;
		if (want && !u->wanted[l][j])
			u->missing[l][j] = MZM_HELD_GATE | MZM_HELD_UPDOWN;
		if (!want || !u->wanted[l][j])
			u->place[l][j] = -1;
		if (!want)
			u->missing[l][j] = 0;
		u->wanted[l][j] = want;
	}
	mzm_held_choose(u->h, l, ids, n);
}

/* Rows row0 .. row1-1 stream by, and nothing else is there. */
static void unit_take(unit *u, int l, int k, int32_t row0, int32_t row1)
{
	mzm_matrix m = {.dtype = u->from[k], .n_rows = u->cfg.n_ffn, .n_cols = u->cfg.dim,
			.stride = (size_t)(k + 1) * row_bytes(u, u->from[k])};
	int n_ranks = 1 + (int)(testing_random(&u->seed) % 11), first = (int)(testing_random(&u->seed) % 11);
	size_t bytes = (size_t)(row1 - row0) * m.stride;
	char *span = malloc(bytes + 1);
	memcpy(span, u->rows[l][k] + (size_t)row0 * m.stride, bytes);
	const char *base = (const char *)((uintptr_t)span - (uintptr_t)row0 * m.stride);
	for (int i = 0; i < n_ranks; i++)
		mzm_held_take(u->h, l, 1 << k, &m, row0, row1, base, (i + first) % n_ranks, n_ranks);
	for (int32_t j = row0; j < row1; j++)
		u->missing[l][j] &= (uint8_t)~(1 << k);
	free(span);
}

static const char *wrong_bytes(const unit *u, int l, int32_t j, int32_t at)
{
	const mzm_layer *held = &u->h->layer[l];
	char want[2 * 1024];
	for (int k = 0; k < 2; k++) {
		size_t from = row_bytes(u, u->from[k]), to = row_bytes(u, u->to[k]), n = (size_t)k + 1;
		const char *got = (const char *)(k ? held->up.w : held->gate.w) + (size_t)at * n * to;
		for (size_t i = 0; i < n; i++)
			held_row(want + i * to, u->to[k], u->rows[l][k] + ((size_t)j * n + i) * from, u->from[k],
				 u->cfg.dim);
		if (!(u->missing[l][j] & 1 << k) && memcmp(got, want, n * to) != 0)
			return "bytes of a neuron";
	}
	return NULL;
}

static const char *wrong_layer(unit *u, int l, bool *complete)
{
	const mzm_held *h = u->h;
	size_t first = (size_t)l * (size_t)h->n;
	bool used[MAX_FFN] = {false};
	int32_t n = 0;
	for (int32_t j = 0; j < u->cfg.n_ffn; j++) {
		int32_t place = h->place[(size_t)l * (size_t)u->cfg.n_ffn + (size_t)j];
		if ((place >= 0) != u->wanted[l][j])
			return "a place, or none";
		if (!u->wanted[l][j])
			continue;
		if (n >= h->n_of[l] || h->ids[first + (size_t)n] != j || h->at[first + (size_t)n] != place)
			return "lists and places disagree";
		if (place >= h->n || used[place])
			return "a place that is not its own";
		used[place] = true;
		if (u->place[l][j] >= 0 && u->place[l][j] != place)
			return "it has moved";
		u->place[l][j] = place;
		if (h->missing[first + (size_t)place] != u->missing[l][j])
			return "what is missing";
		*complete &= u->missing[l][j] == 0;
		const char *why = wrong_bytes(u, l, j, place);
		if (why)
			return why;
		n++;
	}
	for (int32_t p = 0; p < h->n; p++)
		if (!used[p] && h->missing[first + (size_t)p])
			return "nobody's place misses something";
	return n == h->n_of[l] ? NULL : "too many";
}

/* What is wrong; NULL: nothing. */
static const char *wrong(unit *u)
{
	bool complete = true;
	for (int l = 0; l < N_UNIT_LAYERS; l++) {
		if (!is_whole(u, l) != (u->h->layer[l].gate.w && u->h->layer[l].up.w))
			return "places of a layer";
		const char *why = is_whole(u, l) ? NULL : wrong_layer(u, l, &complete);
		if (why)
			return why;
	}
	return complete == mzm_held_is_complete(u->h) ? NULL : "complete or not";
}

static void unit_step(unit *u)
{
	int l = (int)(testing_random(&u->seed) % N_UNIT_LAYERS), k = (int)(testing_random(&u->seed) % 2);
	int32_t a = (int32_t)(testing_random(&u->seed) % (uint64_t)u->cfg.n_ffn);
	int32_t b = a + (int32_t)(testing_random(&u->seed) % (uint64_t)(u->cfg.n_ffn - a + 1));
	bool all = testing_random(&u->seed) % 4 == 0;
	if (testing_random(&u->seed) % 4 == 0 && !is_whole(u, l))
		unit_choose(u, l);
	else
		unit_take(u, l, k, all ? 0 : a, all ? u->cfg.n_ffn : b);
	const char *why = wrong(u);
	if (why)
		fail_msg("%s", why);
}

static void test_sets_and_bytes(void **state)
{
	(void)state;
	for (int round = 0; round < (is_short() ? 9 : testing_count(45, 1000)); round++) {
		unit u;
		unit_start(&u, round);
		for (int i = 0; i < 60; i++)
			unit_step(&u);
		unit_end(&u);
	}
}

/* Or the comparison could not fail. */
static void test_planted_mistakes_are_found(void **state)
{
	(void)state;
	for (int round = 0; round < 18; round += 2) { /* the first layer, where nothing is in memory */
		unit u;
		unit_start(&u, round);
		while (u.h->n_of[0] < 2 && u.h->n > 1)
			unit_choose(&u, 0);
		if (u.h->n_of[0] < 2) {
			unit_end(&u);
			continue;
		}
		u.h->missing[u.h->at[0]] &= (uint8_t)~MZM_HELD_UPDOWN; /* as if it had come */
		assert_string_equal(wrong(&u), "what is missing");
		u.missing[0][u.h->ids[0]] &= (uint8_t)~MZM_HELD_UPDOWN; /* even then */
		assert_string_equal(wrong(&u), "bytes of a neuron");
		u.h->missing[u.h->at[0]] |= MZM_HELD_UPDOWN;
		unit_take(&u, 0, 0, 0, u.cfg.n_ffn);
		unit_take(&u, 0, 1, 0, u.cfg.n_ffn);
		assert_null(wrong(&u));
		char *row = (char *)(uintptr_t)u.h->layer[0].gate.w + (size_t)u.h->at[1] * u.h->layer[0].gate.stride;
		*row ^= 1;
		assert_string_equal(wrong(&u), "bytes of a neuron");
		*row ^= 1;
		assert_null(wrong(&u));
		int32_t at = u.h->at[0];
		u.h->at[0] = u.h->at[1];
		assert_string_equal(wrong(&u), "lists and places disagree");
		u.h->place[u.h->ids[0]] = u.h->at[0];
		assert_non_null(wrong(&u));
		u.h->at[0] = u.h->place[u.h->ids[0]] = at;
		assert_null(wrong(&u));
		unit_end(&u);
	}
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

typedef struct way {
	mzm_mode    mode;
	const char *predictor;
	float       keep;
	bool        no_image;
} way;

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

static mzm_gen_params params_of(way w)
{
	mzm_gen_params p = mzm_gen_params_default();
	p.mode = w.mode;
	p.predictor = w.predictor;
	p.keep = w.keep;
	p.no_draft_image = w.no_image;
	p.period = 5;
	p.max_tokens = 14;
	p.ignore_eos = true;
	return p;
}

static mzm_status try_text(text *t, mzm_session *s, way w, mzm_err *err)
{
	int32_t ids[N_PROMPT];
	int stop_at = t->stop_at;
	mzm_gen_params p = params_of(w);
	for (int i = 0; i < N_PROMPT; i++)
		ids[i] = (int32_t)((uint64_t)(i + 3) * 2654435761u % 2039 % (uint64_t)s->model->info.n_vocab);
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
	assert_int_equal(t.r.n_tokens, 14);
	return t;
}

static void expect_same(const text *got, const text *want)
{
	assert_int_equal(got->n, want->n);
	assert_memory_equal(got->events, want->events, (size_t)want->n * sizeof *want->events);
}

static int32_t n_held(const rig *r)
{
	return r->model->weights->n_held;
}

static int32_t n_ffn(const rig *r)
{
	return r->model->weights->cfg.n_ffn;
}

/* What is left of keep where n neurons are held. */
static float cut_keep(float keep, int32_t n, int32_t all)
{
	float most = nextafterf((float)n / (float)all, 1);
	return keep < most ? keep : most;
}

/* Streams under a budget found by trying, with n neurons a layer held at least; exact: not one more. */
static rig open_held(const char *file, rig_how how, way drafts, int32_t n, bool exact)
{
	rig r = {0};
	mzm_err err = {0};
	mzm_gen_params gen = params_of(drafts);
	mzm_session_params sp = {.n_threads = how.n_threads ? how.n_threads : 1, .n_ctx = 160};
	how.store = "stream";
	how.drafts = &gen;
	how.n_ctx = sp.n_ctx;
	for (uint64_t more = 0; !r.model && more < (uint64_t)32 << 20; more += 12 << 10) {
		how.ram = 0;
		how.ram = rig_plan(file, &how, MZM_OK).smallest_bytes + more;
		mzm_model_params mp = {.store = how.store, .io = how.io, .ram_bytes = how.ram, .session = &sp,
				       .n_sessions = how.n_sessions, .drafts = &gen};
		if (mzm_model_open(&r.model, file, &mp, &err) == MZM_OK && n_held(&r) < n) {
			mzm_model_close(r.model);
			r.model = NULL;
		}
	}
	if (!r.model)
		fail_msg("no budget holds %d neurons: %s", (int)n, err.message);
	const mzm_plan *p = mzm_model_get_plan(r.model);
	assert_true(p->n_held == n_held(&r) && n_held(&r) >= n_ffn(&r) / 32 && n_held(&r) <= n_ffn(&r));
	assert_true(p->streamed_bytes > 0 && !p->draft_on_disk);
	if (exact) /* budgets are measured anew each time, so plans differ a little */
		r.model->weights->n_held = n;
	assert_int_equal(mzm_session_create(&r.session, r.model, &sp, NULL), MZM_OK);
	return r;
}

static rig open_resident(const char *file)
{
	rig_how how = {.store = "resident", .n_ctx = 160};
	return rig_open(file, &how);
}
