/* test_dijiang.c - linear attention's state: random programs of passes, drafts, trees, cuts, far jumps back and
 * cancelled passes leave logits, rows and states with the bits of a fresh run, by any number of threads; so do all
 * kernel tables; states do not grow with the context and stay finite over 100,000 tokens. Generations with drafts of
 * all kinds give dense's tokens, and go on from kept rows where those can be had. What its outputs are:
 * test_dijiang_form.c. What is imported, and refused: test_dijiang_import.c. That logits are right, in all forms of
 * file and store: test_golden.c. */
#include "dijiang_rig.h"
#include "hf_build.h"

#include <math.h>

enum { MAX_TOK = 2048, VOCAB = DJ_VOCAB };

/* Reads ids up to n, from where the session is, in pieces of 1 to most, or as many as a pass takes. */
static void read_to(mzm_session *s, const int32_t *ids, int32_t n, int32_t most, uint64_t seed)
{
	mzm_kv *kv = mzm_state_kv(s->state);
	most = most < mzm_state_max_pos(s->state) ? most : mzm_state_max_pos(s->state);
	while (kv->len < n) {
		int32_t step = 1 + (int32_t)dj_below(&seed, (uint32_t)most);
		mzm_pass pass = {.ids = ids + kv->len, .n_pos = step < n - kv->len ? step : n - kv->len};
		dj_run(s, &pass);
	}
}

/* What two sessions know of the same tokens, and will say next. */
static void expect_same(mzm_session *a, mzm_session *b, const char *what)
{
	mzm_kv *x = mzm_state_kv(a->state), *y = mzm_state_kv(b->state);
	int32_t len = x->len, base = mzm_kv_base(len), next = 7;
	size_t d = (size_t)x->head_dim;
	mzm_pass pass = {.ids = &next, .n_pos = 1, .n_rows = 1};
	assert_int_equal(x->len, y->len);
	float *logits_a = dj_run(a, &pass), *logits_b = dj_run(b, &pass);
	for (int32_t i = 0; i < VOCAB; i++)
		assert_true(isfinite(logits_a[i]));
	if (memcmp(logits_a, logits_b, VOCAB * sizeof(float)) != 0)
		fail_msg("%s, %d tokens: logits differ", what, (int)len);
	for (int l = 0; l < x->n_layers; l++) {
		for (int h = 0; h < x->n_kv_heads; h++) {
			size_t bytes = (size_t)(len - base) * x->row_bytes;
			assert_memory_equal(mzm_kv_k(x, l, h, base), mzm_kv_k(y, l, h, base), bytes);
			assert_memory_equal(mzm_kv_v(x, l, h, base), mzm_kv_v(y, l, h, base), bytes);
			if (base)
				assert_memory_equal(mzm_kv_sums(x, l, h, base), mzm_kv_sums(y, l, h, base),
						    (d + 1) * d * sizeof(float));
		}
	}
	mzm_kv_truncate(x, len);
	mzm_kv_truncate(y, len);
	assert_int_equal(x->len, len);
}

/* ---- random programs ---- */

/* So far back from where a session has been, tokens can be had. */
#define SURE (MZM_KV_LAG + 1 + (MZM_KV_STATES - 2) * MZM_KV_STEP)

typedef struct program {
	mzm_session *s;
	int32_t      n, most; /* tokens now, and at most */
	int32_t      high;    /* it has been at so many since it last began at none */
	int32_t      ids[MAX_TOK + MZM_MAX_POS];
	uint64_t     seed;
	int          n_spans; /* until a pass is cancelled; 0: it is not */
} program;

static void new_tokens(program *p, int32_t n)
{
	for (int32_t i = 0; i < n; i++)
		p->ids[p->n + i] = (int32_t)dj_below(&p->seed, VOCAB);
}

static int32_t room_for(const program *p, int32_t n)
{
	return n < p->most - p->n ? n : p->most - p->n;
}

static void go_on(program *p, int32_t n)
{
	mzm_pass pass = {.ids = p->ids + p->n, .n_pos = room_for(p, n)};
	new_tokens(p, n);
	if (pass.n_pos < 1)
		return;
	dj_run(p->s, &pass);
	p->n += pass.n_pos;
}

/* A draft of single passes, some of which leave layers out; then it is gone. */
static void draft(program *p)
{
	int32_t n = room_for(p, 1 + (int32_t)dj_below(&p->seed, MZM_MAX_POS - 1));
	uint8_t skip[16] = {0};
	for (int i = 0; i < 4; i++)
		skip[i] = (uint8_t)dj_below(&p->seed, 2);
	for (int32_t i = 0; i < n; i++) {
		int32_t id = (int32_t)dj_below(&p->seed, VOCAB);
		mzm_pass pass = {.ids = &id, .n_pos = 1, .skip = p->n % 2 && p->n_spans == 0 ? skip : NULL};
		dj_run(p->s, &pass);
	}
	mzm_kv_truncate(mzm_state_kv(p->s->state), p->n);
}

/* A tree behind the last token; one of its lines stays. */
static void tree(program *p)
{
	int32_t id[MZM_MAX_POS], parent[MZM_MAX_POS] = {-1}, depth[MZM_MAX_POS] = {0}, rows[MZM_MAX_POS];
	int32_t n = room_for(p, 1 + (int32_t)dj_below(&p->seed, MZM_MAX_POS)), root = p->n - 1, step = 1 + n % 5;
	mzm_kv *kv = mzm_state_kv(p->s->state);
	if (n < 1)
		return;
	id[0] = p->ids[root];
	for (int32_t i = 1; i < n; i++) {
		id[i] = (int32_t)dj_below(&p->seed, VOCAB);
		parent[i] = i - 1 - (int32_t)dj_below(&p->seed, (uint32_t)(i < step ? i : step));
		depth[i] = depth[parent[i]] + 1;
	}
	mzm_tree shape = {root, parent, depth};
	mzm_pass pass = {.ids = id, .n_pos = n, .tree = &shape};
	mzm_kv_truncate(kv, root);
	if (kv->len < root) { /* as far back as could be, and a token more */
		assert_true(p->high - root > SURE);
		p->high = 0;
		read_to(p->s, p->ids, root, 40, p->seed);
	}
	dj_run(p->s, &pass);
	int32_t node = (int32_t)dj_below(&p->seed, (uint32_t)n), m = depth[node] + 1;
	for (; node >= 0; node = parent[node]) {
		rows[depth[node]] = root + node;
		p->ids[root + depth[node]] = id[node];
	}
	mzm_kv_gather(kv, root, rows, m);
	p->n = root + m;
	mzm_kv_truncate(kv, p->n);
}

/* So far back it must be had, further back it may be gone: see SURE. */

static void go_back(program *p, int32_t most)
{
	mzm_kv *kv = mzm_state_kv(p->s->state);
	int32_t to = p->n - (int32_t)dj_below(&p->seed, (uint32_t)most);
	to = to < 1 ? 1 : to;
	int32_t reach = mzm_kv_reach(kv, to);
	mzm_kv_truncate(kv, to);
	assert_int_equal(kv->len, reach);
	assert_true(reach == to || (reach == 0 && p->high - to > SURE));
	p->n = to;
	if (reach == 0)
		p->high = 0;
	read_to(p->s, p->ids, p->n, mzm_state_max_pos(p->s->state), p->seed);
}

static int countdown(void *user, const char *stage, uint64_t done, uint64_t total)
{
	program *p = user;
	(void)stage, (void)done, (void)total;
	return --p->n_spans == 0;
}

/* A pass that ends in the middle of a layer. */
static void cancelled(program *p)
{
	mzm_kv *kv = mzm_state_kv(p->s->state);
	int32_t most = mzm_state_max_pos(p->s->state), n = 1 + (int32_t)dj_below(&p->seed, 100);
	n = room_for(p, n < most ? n : most);
	mzm_pass pass = {.ids = p->ids + p->n, .n_pos = n};
	new_tokens(p, n);
	if (n < 1)
		return;
	p->n_spans = 1 + (int32_t)dj_below(&p->seed, 8);
	mzm_state_watch(p->s->state, countdown, p);
	mzm_status st = mzm_forward(p->s->state, &pass, NULL, NULL, NULL);
	mzm_state_watch(p->s->state, NULL, NULL);
	if (st == MZM_OK) {
		p->n += n;
	} else {
		assert_int_equal(st, MZM_ECANCELLED);
		assert_true(kv->len == p->n || (kv->len == 0 && p->high + n - p->n > SURE));
		if (kv->len == 0)
			p->high = 0;
		read_to(p->s, p->ids, p->n, 50, p->seed);
	}
	p->n_spans = -1;
}

static void one_step(program *p, bool streams)
{
	p->high = p->n + MZM_MAX_POS > p->high ? p->n + MZM_MAX_POS : p->high;
	switch (dj_below(&p->seed, streams ? 8 : 7)) {
	case 0: go_on(p, 1); break;
	case 1: go_on(p, 1 + (int32_t)dj_below(&p->seed, MZM_MAX_POS)); break;
	case 2: go_on(p, 1 + (int32_t)dj_below(&p->seed, (uint32_t)mzm_state_max_pos(p->s->state))); break;
	case 3: draft(p); break;
	case 4: tree(p); break;
	case 5: go_back(p, MZM_KV_LAG + 1); break;
	case 6: go_back(p, p->n > p->most / 2 || dj_below(&p->seed, 4) == 0 ? p->n + 1 : MZM_KV_LAG); break;
	default: cancelled(p); break;
	}
}

static void run_program(const mzm_model *m, int n_threads, int32_t most, int n_steps, bool streams, uint64_t seed)
{
	program *p = calloc(1, sizeof *p);
	mzm_session *fresh = dj_session(m, 1);
	*p = (program){.s = dj_session(m, n_threads), .most = most, .seed = seed, .n_spans = streams ? -1 : 0};
	go_on(p, 1);
	for (int i = 0; i < n_steps; i++) {
		one_step(p, streams);
		if (i % 3 != 0)
			continue;
		mzm_kv_truncate(mzm_state_kv(fresh->state), 0);
		read_to(fresh, p->ids, p->n, 40, seed + (uint64_t)i);
		expect_same(p->s, fresh, "a program");
	}
	mzm_session_free(p->s);
	mzm_session_free(fresh);
	free(p);
}

static void test_programs(void **state)
{
	static const struct {
		const char *name, *changes;
		int32_t     most;
		float       scale; /* 0: as it is; else exponentials are beyond what a float holds */
	} models[] = {{"dijiang", "{}", 120, 0}, {"dijiang-neox", "{}", 120, 0}, {"dijiang-groups", DJ_LONG, 1500, 0},
		      {"dijiang-paper", DJ_LONG, 1500, 0}, {"dijiang-paper", DJ_LONG, 400, 20}};
	int n_steps = (int)testing_count(60, 600);
	(void)state;
	for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
		dj_dir d = models[i].scale > 0 ? dj_scaled(models[i].changes, models[i].scale)
					       : dj_copy(models[i].name, models[i].changes);
		mzm_model *m = dj_open(d.path, NULL, NULL);
		for (int threads = 1; threads <= 3; threads++)
			run_program(m, threads, models[i].most, n_steps, false, 10 * i + (uint64_t)threads);
		mzm_model_close(m);
		testing_remove(d.path);
	}
}

static void test_cancelled(void **state)
{
	char file[300];
	mzm_err err = {0};
	mzm_import_params ip = mzm_import_params_default();
	(void)state;
	dj_dir d = dj_copy("dijiang-groups", DJ_LONG);
	snprintf(file, sizeof file, "%s/form.mzm", d.path);
	if (mzm_import(d.path, file, &ip, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_model *m = dj_open(file, NULL, "stream");
	run_program(m, 2, 700, (int)testing_count(60, 400), true, 99);
	mzm_model_close(m);
	testing_remove(d.path);
}

static void test_tables(void **state)
{
	int32_t ids[200];
	uint64_t seed = 3;
	(void)state;
	for (int32_t i = 0; i < 200; i++)
		ids[i] = (int32_t)dj_below(&seed, VOCAB);
	for (int k = 0; k < 2; k++) {
		dj_dir d = dj_copy(k ? "dijiang-paper" : "dijiang-groups", DJ_LONG);
		mzm_model *m = dj_open(d.path, isa_exact(), NULL);
		mzm_session *want = dj_session(m, 1);
		read_to(want, ids, 200, 64, 1);
		for (int i = 0; mzm_isa_name(i); i++) {
			if (isa_rounds(mzm_isa_name(i)))
				continue;
			mzm_model *other = dj_open(d.path, mzm_isa_name(i), NULL);
			mzm_session *got = dj_session(other, 1);
			read_to(got, ids, 200, 5, 2);
			expect_same(got, want, mzm_isa_name(i));
			mzm_session_free(got);
			mzm_model_close(other);
		}
		mzm_session_free(want);
		mzm_model_close(m);
		testing_remove(d.path);
	}
}

/* That differences would be seen: one number of the state, or of the rows behind it, moves the logits; rows before it
 * are looked at no more. */
static void test_planted(void **state)
{
	int32_t ids[150];
	float want[VOCAB];
	uint64_t seed = 6;
	(void)state;
	dj_dir d = dj_copy("dijiang-groups", DJ_LONG);
	mzm_model *m = dj_open(d.path, NULL, NULL);
	mzm_session *s = dj_session(m, 1);
	mzm_kv *kv = mzm_state_kv(s->state);
	for (int32_t i = 0; i < 150; i++)
		ids[i] = (int32_t)dj_below(&seed, VOCAB);
	read_to(s, ids, 150, 64, 1);
	int32_t base = mzm_kv_base(150);
	assert_true(base > 0);
	float *const places[] = {mzm_kv_sums(kv, 0, 1, base) + 3, mzm_kv_v(kv, 1, 0, base), mzm_kv_k(kv, 0, 0, 149),
				 mzm_kv_v(kv, 0, 0, base - 1), NULL};
	mzm_pass pass = {.ids = ids, .n_pos = 1, .n_rows = 1};
	memcpy(want, dj_run(s, &pass), sizeof want);
	mzm_kv_truncate(kv, 150);
	for (int i = 0; places[i]; i++) {
		float was = *places[i];
		*places[i] = was + 0.5f;
		bool same = memcmp(want, dj_run(s, &pass), sizeof want) == 0;
		assert_true(same == (i == 3));
		*places[i] = was;
		mzm_kv_truncate(kv, 150);
	}
	assert_memory_equal(want, dj_run(s, &pass), sizeof want);
	mzm_session_free(s);
	mzm_model_close(m);
	testing_remove(d.path);
}

/* ---- size and length ---- */

static void test_size(void **state)
{
	size_t sizes[2], states[2];
	(void)state;
	dj_dir d = dj_copy("dijiang-groups", DJ_LONGEST);
	mzm_model *m = dj_open(d.path, NULL, NULL);
	const mzm_config *cfg = &m->weights->cfg;
	for (int i = 0; i < 2; i++) {
		int32_t n_ctx = i ? 1 << 17 : 1024;
		assert_true(mzm_kv_measure(&sizes[i], cfg, n_ctx, MZM_F16));
		assert_true(mzm_state_measure(&states[i], cfg, false, m->kern, 2, n_ctx, MZM_F16));
	}
	assert_int_equal(sizes[0], sizes[1]);
	assert_int_equal(states[0], states[1]);
	mzm_model_close(m);
	testing_remove(d.path);
}

static void test_finite(void **state)
{
	int32_t n = getenv("MIRZAM_SHORT") ? 20000 : 100000, ids[64];
	uint64_t seed = 4;
	(void)state;
	for (int k = 0; k < 2; k++) {
		dj_dir d = dj_copy(k ? "dijiang-paper" : "dijiang-groups", DJ_LONGEST);
		mzm_model *m = dj_open(d.path, NULL, NULL);
		mzm_session *s = dj_session(m, 1);
		mzm_kv *kv = mzm_state_kv(s->state);
		float *logits = NULL;
		while (kv->len < n) {
			for (int32_t i = 0; i < 64; i++)
				ids[i] = (int32_t)dj_below(&seed, VOCAB);
			mzm_pass pass = {.ids = ids, .n_pos = mzm_state_max_pos(s->state) < 64 ? 32 : 64, .n_rows = 1};
			logits = dj_run(s, &pass);
			for (int32_t i = 0; i < VOCAB; i++)
				assert_true(isfinite(logits[i]));
		}
		const float *sums = mzm_kv_sums(kv, 0, 0, mzm_kv_base(kv->len - 1));
		for (int32_t i = 0; i < (kv->head_dim + 1) * kv->head_dim; i++)
			assert_true(isfinite(sums[i]));
		mzm_session_free(s);
		mzm_model_close(m);
		testing_remove(d.path);
	}
}

/* What a benchmark pretends is where a session stands that has read so much. */
static void test_pretended(void **state)
{
	int32_t ids[400];
	uint64_t seed = 14;
	(void)state;
	dj_dir d = dj_copy("dijiang-groups", DJ_LONG);
	mzm_model *m = dj_open(d.path, NULL, NULL);
	mzm_session *s = dj_session(m, 1), *other = dj_session(m, 1);
	mzm_kv *kv = mzm_state_kv(s->state), *pretended = mzm_state_kv(other->state);
	for (int32_t i = 0; i < 400; i++)
		ids[i] = (int32_t)dj_below(&seed, VOCAB);
	for (int32_t n = 1; n <= 400; n++) {
		read_to(s, ids, n, 1, 1);
		mzm_kv_pretend(pretended, n);
		assert_int_equal(pretended->len, n);
		assert_int_equal(pretended->place[0].base, kv->place[0].base);
		assert_int_equal(pretended->place[0].oldest, kv->place[0].oldest);
	}
	mzm_session_free(s);
	mzm_session_free(other);
	mzm_model_close(m);
	testing_remove(d.path);
}

/* ---- generation ---- */

enum { N_PROMPT = 40, N_NEW = 300 };

static mzm_gen_result generate(mzm_session *s, const int32_t *prompt, int32_t n, mzm_gen_params p)
{
	mzm_gen_result r;
	mzm_err err = {0};
	p.ignore_eos = true;
	if (mzm_generate(s, prompt, n, &p, &r, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return r;
}

static void test_exact(void **state)
{
	static const char *const drafts[] = {"sparse", "ngram", "jacobi", "sparse+ngram"};
	int32_t prompt[N_PROMPT], want[N_NEW];
	uint64_t seed = 12;
	(void)state;
	dj_dir d = dj_copy("dijiang-groups", DJ_LONG);
	mzm_model *m = dj_open(d.path, NULL, NULL);
	mzm_session *s = dj_session(m, 2);
	for (int32_t i = 0; i < N_PROMPT; i++)
		prompt[i] = (int32_t)dj_below(&seed, VOCAB);
	mzm_gen_params p = mzm_gen_params_default();
	p.max_tokens = N_NEW;
	mzm_gen_result r = generate(s, prompt, N_PROMPT, p);
	memcpy(want, r.tokens, sizeof want);
	for (int i = 0; i < 4 * 3; i++) {
		p.mode = MZM_MODE_EXACT;
		p.draft = drafts[i % 4];
		p.period = i / 4 == 0 ? 6 : i / 4 == 1 ? 0 : 32;
		p.tree_width = i == 8 ? 10 : 1; /* sparse, of the longest: narrower than that, as rows are few */
		p.keep = 0.6f;
		p.predictor = "topk";
		r = generate(s, prompt, N_PROMPT, p);
		assert_int_equal(r.n_tokens, N_NEW);
		if (memcmp(r.tokens, want, sizeof want) != 0)
			fail_msg("%s, period %d: other tokens than dense's", drafts[i % 4], p.period);
	}
	mzm_session_free(s);
	mzm_model_close(m);
	testing_remove(d.path);
}

/* A text by exact mode, whose drafts went further than it; then a dense one that leaves it 1 to 100 tokens before its
 * end. What is kept, and said, is what a dense text leaves, and what a fresh session says. */
static void test_keep_behind_drafts(void **state)
{
	enum { N_TEXT = 130 };
	static const char *const drafts[] = {"sparse", "ngram", "jacobi"};
	static const int32_t backs[] = {1, 31, 32, 60, 77, 100};
	int32_t text[N_PROMPT + N_TEXT], again[N_PROMPT + N_TEXT];
	uint64_t seed = 22;
	(void)state;
	dj_dir d = dj_copy("dijiang-groups", DJ_LONG);
	mzm_model *m = dj_open(d.path, NULL, NULL);
	mzm_session *of[3] = {dj_session(m, 1), dj_session(m, 1), dj_session(m, 1)}; /* exact, dense, fresh */
	for (int32_t i = 0; i < N_PROMPT; i++)
		text[i] = (int32_t)dj_below(&seed, VOCAB);
	for (int i = 0; i < 6; i++) {
		int32_t back = backs[i], n = N_PROMPT + N_TEXT - back, kept[3], said[3][12];
		for (int k = 0; k < 3; k++) {
			mzm_gen_params p = mzm_gen_params_default();
			p.max_tokens = N_TEXT;
			p.mode = k == 0 ? MZM_MODE_EXACT : MZM_MODE_DENSE;
			p.draft = drafts[i % 3];
			p.predictor = "topk";
			p.period = i % 2 ? 32 : 7;
			mzm_gen_result r = generate(of[k], text, N_PROMPT, p);
			memcpy(text + N_PROMPT, r.tokens, N_TEXT * sizeof *text);
			memcpy(again, text, sizeof text);
			again[n - 1] = (text[n - 1] + 1) % VOCAB; /* here they part */
			p.mode = MZM_MODE_DENSE;
			p.max_tokens = 12;
			p.keep_prefix = k < 2;
			r = generate(of[k], again, n, p);
			kept[k] = r.n_kept;
			memcpy(said[k], r.tokens, sizeof said[k]);
			assert_memory_equal(said[k], said[0], sizeof said[0]);
		}
		assert_int_equal(kept[0], kept[1]);
		assert_int_equal(kept[0], back < MZM_KV_LAG ? n - 1 : 0);
		expect_same(of[0], of[1], "behind drafts");
	}
	for (int k = 0; k < 3; k++)
		mzm_session_free(of[k]);
	mzm_model_close(m);
	testing_remove(d.path);
}

static void test_keep_prefix(void **state)
{
	int32_t text[N_PROMPT + N_NEW + 20];
	uint64_t seed = 21;
	(void)state;
	dj_dir d = dj_copy("dijiang-groups", DJ_LONG);
	mzm_model *m = dj_open(d.path, NULL, NULL);
	mzm_session *s = dj_session(m, 1), *fresh = dj_session(m, 1);
	for (int32_t i = 0; i < N_PROMPT; i++)
		text[i] = (int32_t)dj_below(&seed, VOCAB);
	mzm_gen_params p = mzm_gen_params_default();
	p.max_tokens = N_NEW;
	p.keep_prefix = true;
	mzm_gen_result r = generate(s, text, N_PROMPT, p), again;
	memcpy(text + N_PROMPT, r.tokens, N_NEW * sizeof *text);
	for (int i = 0; i < 20; i++)
		text[N_PROMPT + N_NEW + i] = (int32_t)dj_below(&seed, VOCAB);
	p.max_tokens = 10;
	for (int i = 0; i < 3; i++) { /* goes on; a little back; far back */
		int32_t n = i == 0 ? N_PROMPT + N_NEW + 20 : i == 1 ? N_PROMPT + N_NEW + 10 : N_PROMPT + 20;
		r = generate(s, text, n, p);
		if (i < 2)
			assert_in_range(r.n_kept, N_PROMPT + N_NEW - 1, n);
		else
			assert_int_equal(r.n_kept, 0);
		p.keep_prefix = false;
		again = generate(fresh, text, n, p);
		p.keep_prefix = true;
		assert_memory_equal(r.tokens, again.tokens, 10 * sizeof *text);
	}
	mzm_session_free(s);
	mzm_session_free(fresh);
	mzm_model_close(m);
	testing_remove(d.path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_programs),
		cmocka_unit_test(test_cancelled),
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_planted),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_finite),
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_keep_prefix),
		cmocka_unit_test(test_keep_behind_drafts),
		cmocka_unit_test(test_pretended),
	};
	if (access("tests/golden/dijiang", R_OK) != 0) {
		print_message("no tests/golden: run in the root of the source tree\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
