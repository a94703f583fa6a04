/* test_held.c - neurons that are held: which, where and with which bytes, against a naive model; how many a plan finds
 * room for, and what they take.
 *
 * MIRZAM_LONG=1 runs more; MIRZAM_SHORT=1, for sanitizers, less. */
#include "held_rig.h"

#include "kern/quant.h"
#include "model/state.h"

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
	uint64_t measured, before = mzm_mem_live(), taken;
	assert_true(mzm_held_measure(&measured, &u->cfg, u->to[0], u->to[1], n));
	assert_int_equal(mzm_held_create(&u->h, &u->cfg, u->of, n, mzm_kern_find(NULL), NULL), MZM_OK);
	taken = mzm_mem_live() - before;
	assert_true(taken <= measured + 1024 && (taken >= measured || round % 2)); /* the structure itself is small */
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
	for (int round = 0; round < (getenv("MIRZAM_SHORT") ? 9 : testing_count(45, 1000)); round++) {
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

/* keep is cut to what is held, by no neuron less or more. */
static void test_keep_is_cut_exactly(void **state)
{
	(void)state;
	static const int32_t sizes[] = {1, 7, 63, 1000, 2100, 8192, 11008, 14336, 28672, 53248};
	mzm_drafting held = {.held = true};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		mzm_weights w = {.cfg = {.n_ffn = sizes[i]}};
		mzm_model m = {.weights = &w};
		for (w.n_held = 1; w.n_held <= sizes[i]; w.n_held++) {
			mzm_pred_env env = mzm_model_pred_env(&m, 1, 0, held);
			assert_int_equal(mzm_pred_n_keep(&env), w.n_held);
			assert_true(env.partial && env.keep <= 1);
			env = mzm_model_pred_env(&m, 1e-4f, 0, held);
			assert_true(env.keep == 1e-4f || mzm_pred_n_keep(&env) == w.n_held);
		}
	}
}

/* ---- the plan ---- */

static uint64_t sum_of_parts(const mzm_plan *p)
{
	return p->process_bytes + p->session_bytes + p->weight_bytes + p->draft_bytes + p->held_bytes +
	       p->window_bytes + p->reader_bytes;
}

/* What is planned covers what a session takes, to the byte. */
static void expect_planned(const form *f, int n_sessions)
{
	make_model(*f);
	rig r = open_held(path, (rig_how){.n_sessions = n_sessions}, (way){MZM_MODE_EXACT, "topk", 0.4f, false, 0}, 200,
			  false);
	const mzm_plan *p = mzm_model_get_plan(r.model);
	const mzm_layer *of = r.model->weights->held_of;
	const mzm_held *h = r.session->state->held;
	const mzm_layer *last = &h->layer[h->n_layers - 1];
	uint64_t bytes;
	assert_true(mzm_held_measure(&bytes, &r.model->weights->cfg, of[0].gate.dtype, of[0].up.dtype, p->n_held));
	assert_int_equal(p->held_bytes, bytes * (uint64_t)(n_sessions ? n_sessions : 1));
	assert_int_equal(sum_of_parts(p), p->needed_bytes);
	assert_true(p->needed_bytes <= p->ram_bytes);
	assert_true(last->gate.w && last->up.w);
	uint64_t taken = (uint64_t)((const char *)last->up.w + (size_t)h->n * last->up.stride - (char *)h->block);
	assert_true(taken <= bytes && bytes - taken < MZM_ALIGN);
	rig_close(&r);
}

/* Neurons of a layer that drafts find in memory, INT32_MAX: all; and what the plan leaves for the model when the
 * process is taken off. */
typedef struct offer {
	uint64_t room;
	int32_t  n;
} offer;

static offer make_offer(way drafts, uint64_t ram)
{
	mzm_gen_params gen = params_of(drafts);
	mzm_session_params sp = {.n_threads = 1, .n_ctx = 160};
	mzm_model_params mp = {.store = "stream", .ram_bytes = ram, .session = &sp, .drafts = &gen};
	mzm_plan p;
	mzm_status st = mzm_plan_make(&p, path, &mp, NULL);
	if (st != MZM_OK) { /* it has grown since the smallest budget was told */
		assert_int_equal(st, MZM_EARG);
		return (offer){0, 0};
	}
	assert_int_equal(sum_of_parts(&p), p.needed_bytes);
	assert_true(p.needed_bytes <= ram && (p.n_held > 0) == (p.held_bytes > 0));
	bool all = p.streamed_bytes == 0 || (p.n_held == 0 && p.draft_bytes > 0);
	return (offer){ram - p.process_bytes, all ? INT32_MAX : p.n_held};
}

static void test_planned_bytes(void **state)
{
	(void)state;
	for (int f = 0; f < 4; f++)
		expect_planned(&forms[f], f % 3);
}

static void expect_more_is_better(way drafts, int32_t all)
{
	enum { N = 150 };
	static offer offers[N];
	static const way none[] = {{MZM_MODE_DENSE, "griffin", 0.5f, false, 0},
				   {MZM_MODE_EXACT, "random", 0.5f, false, 0}};
	rig_how how = {.store = "stream", .n_ctx = 160};
	mzm_plan p = rig_plan(path, &how, MZM_OK);
	uint64_t from = p.smallest_bytes + (1 << 18), step = (3 * p.model_bytes + (1 << 21)) / N;
	int32_t most = 0;
	for (uint64_t i = 0; i < N; i++) {
		offers[i] = make_offer(drafts, from + i * step);
		assert_true(offers[i].n <= all || offers[i].n == INT32_MAX);
		most = offers[i].n > most && offers[i].n < INT32_MAX ? offers[i].n : most;
		int32_t n = make_offer(none[i % 2], from + i * step).n;
		assert_true(n == 0 || n == INT32_MAX);
	}
	for (int i = 0; i < N && !RIG_SANITIZED; i++) /* a sanitizer's own memory comes and goes between two offers */
		for (int k = 0; k < N; k++)
			assert_true(offers[i].room > offers[k].room || offers[i].n <= offers[k].n);
	assert_true(offers[N - 1].n == INT32_MAX || RIG_SANITIZED);
	assert_true(most >= all / 4 || RIG_SANITIZED);
}

static void test_more_memory_holds_more(void **state)
{
	(void)state;
	for (int f = 0; f < 4; f++) {
		make_model(forms[f / 2]);
		way drafts = {MZM_MODE_SIRIUS, f % 2 ? "topk" : "griffin", 0.5f, false, 0};
		expect_more_is_better(drafts, forms[f / 2].n_ffn);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sets_and_bytes),
		cmocka_unit_test(test_planted_mistakes_are_found),
		cmocka_unit_test(test_keep_is_cut_exactly),
		IN_DIR(test_planned_bytes),
		IN_DIR(test_more_memory_holds_more),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
