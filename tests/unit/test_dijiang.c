/* test_dijiang.c - linear attention's state: random programs of passes, drafts, trees, cuts, far jumps back and
 * cancelled passes leave logits, rows and states with the bits of a fresh run, by any number of threads; so do all
 * kernel tables; states do not grow with the context and stay finite over 100,000 tokens; and its outputs are those of
 * the quadratic form in double, written here from the formulas. Generations with drafts of all kinds give dense's
 * tokens, and go on from kept rows where those can be had. What is imported, and refused: test_dijiang_import.c. That
 * logits are right, in all forms of file and store: test_golden.c. */
#include "dijiang_rig.h"
#include "hf_build.h"

#include <math.h>

enum { MAX_TOK = 2048, VOCAB = 64 };

static uint32_t below(uint64_t *seed, uint32_t n)
{
	return (uint32_t)(testing_random(seed) % n);
}

static float *run(mzm_session *s, const mzm_pass *pass)
{
	float *logits;
	mzm_err err = {0};
	if (mzm_forward(s->state, pass, &logits, NULL, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return logits;
}

/* Reads ids up to n, from where the session is, in pieces of 1 to most. */
static void read_to(mzm_session *s, const int32_t *ids, int32_t n, int32_t most, uint64_t seed)
{
	mzm_kv *kv = mzm_state_kv(s->state);
	while (kv->len < n) {
		int32_t step = 1 + (int32_t)below(&seed, (uint32_t)most);
		mzm_pass pass = {.ids = ids + kv->len, .n_pos = step < n - kv->len ? step : n - kv->len};
		run(s, &pass);
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
	float *logits_a = run(a, &pass), *logits_b = run(b, &pass);
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
		p->ids[p->n + i] = (int32_t)below(&p->seed, VOCAB);
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
	run(p->s, &pass);
	p->n += pass.n_pos;
}

/* A draft of single passes, some of which leave layers out; then it is gone. */
static void draft(program *p)
{
	int32_t n = room_for(p, 1 + (int32_t)below(&p->seed, MZM_MAX_POS - 1));
	uint8_t skip[16] = {0};
	for (int i = 0; i < 4; i++)
		skip[i] = (uint8_t)below(&p->seed, 2);
	for (int32_t i = 0; i < n; i++) {
		int32_t id = (int32_t)below(&p->seed, VOCAB);
		mzm_pass pass = {.ids = &id, .n_pos = 1, .skip = p->n % 2 && p->n_spans == 0 ? skip : NULL};
		run(p->s, &pass);
	}
	mzm_kv_truncate(mzm_state_kv(p->s->state), p->n);
}

/* A tree behind the last token; one of its lines stays. */
static void tree(program *p)
{
	int32_t id[MZM_MAX_POS], parent[MZM_MAX_POS] = {-1}, depth[MZM_MAX_POS] = {0}, rows[MZM_MAX_POS];
	int32_t n = room_for(p, 1 + (int32_t)below(&p->seed, MZM_MAX_POS)), root = p->n - 1, step = 1 + n % 5;
	mzm_kv *kv = mzm_state_kv(p->s->state);
	if (n < 1)
		return;
	id[0] = p->ids[root];
	for (int32_t i = 1; i < n; i++) {
		id[i] = (int32_t)below(&p->seed, VOCAB);
		parent[i] = i - 1 - (int32_t)below(&p->seed, (uint32_t)(i < step ? i : step));
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
	run(p->s, &pass);
	int32_t node = (int32_t)below(&p->seed, (uint32_t)n), m = depth[node] + 1;
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
	int32_t to = p->n - (int32_t)below(&p->seed, (uint32_t)most);
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
	int32_t n = room_for(p, 1 + (int32_t)below(&p->seed, 100));
	mzm_pass pass = {.ids = p->ids + p->n, .n_pos = n};
	new_tokens(p, n);
	if (n < 1)
		return;
	p->n_spans = 1 + (int32_t)below(&p->seed, 8);
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
	switch (below(&p->seed, streams ? 8 : 7)) {
	case 0: go_on(p, 1); break;
	case 1: go_on(p, 1 + (int32_t)below(&p->seed, MZM_MAX_POS)); break;
	case 2: go_on(p, 1 + (int32_t)below(&p->seed, (uint32_t)mzm_state_max_pos(p->s->state))); break;
	case 3: draft(p); break;
	case 4: tree(p); break;
	case 5: go_back(p, MZM_KV_LAG + 1); break;
	case 6: go_back(p, p->n > p->most / 2 || below(&p->seed, 4) == 0 ? p->n + 1 : MZM_KV_LAG); break;
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
	} models[] = {{"dijiang", "{}", 120}, {"dijiang-neox", "{}", 120}, {"dijiang-groups", DJ_LONG, 1500},
		      {"dijiang-paper", DJ_LONG, 1500}};
	int n_steps = (int)testing_count(60, 600);
	(void)state;
	for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
		dj_dir d = dj_copy(models[i].name, models[i].changes);
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
		ids[i] = (int32_t)below(&seed, VOCAB);
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

/* ---- the quadratic form ---- */

enum { LONG = 1500, MAX_HEAD = 512, MAX_Q = 1024 };

/* What the attention of the first layer got and gave. */
typedef struct seen {
	float  *h, *att; /* [LONG, n] */
	int32_t at;      /* positions */
} seen;

static void see(void *ctx, int32_t layer, bool of_o, const float *x, int32_t n_pos, int32_t n)
{
	seen *c = ctx;
	if (layer != 0)
		return;
	memcpy((of_o ? c->att : c->h) + (size_t)c->at * (size_t)n, x, (size_t)(n_pos * n) * sizeof *x);
	c->at += of_o ? n_pos : 0;
}

/* y = rows of m times x. */
static void multiply(const mzm_model *m, double *y, const mzm_matrix *w, const float *x)
{
	float row[256];
	assert_true(w->n_cols <= 256);
	for (int32_t r = 0; r < w->n_rows; r++) {
		m->kern->to_f32(row, (const char *)w->w + (size_t)r * w->stride, w->dtype, w->n_cols);
		y[r] = 0;
		for (int32_t c = 0; c < w->n_cols; c++)
			y[r] += (double)row[c] * (double)x[c];
	}
}

/* Rotated, transformed, scaled, positive. */
static void feature(const mzm_model *m, const mzm_layer *l, double *x, int32_t pos)
{
	const mzm_config *cfg = &m->weights->cfg;
	int32_t d = cfg->head_dim, half = d / 2;
	double y[MAX_HEAD], cosine[4 * MAX_HEAD], sum = 0;
	bool released = cfg->attn == MZM_ATTN_DIJIANG;
	for (int32_t i = 0; i < half; i++) {
		double angle = pos * pow(cfg->rope_theta, -2.0 * i / d), a = x[i], b = x[i + half];
		x[i] = a * cos(angle) - b * sin(angle);
		x[i + half] = b * cos(angle) + a * sin(angle);
	}
	for (int32_t i = 0; i < 4 * d; i++)
		cosine[i] = cos(M_PI * i / (2 * d));
	for (int32_t j = 0; j < d; j++) {
		y[j] = 0;
		for (int32_t i = 0; i < d; i++) {
			int32_t k = released ? i : j, at = released ? j : i;
			y[j] += x[i] * sqrt((k ? 2.0 : 1.0) / d) * cosine[(2 * at + 1) * k % (4 * d)];
		}
		y[j] = exp(y[j] * (double)l->freq[j]);
		sum += y[j];
	}
	for (int32_t j = 0; j < d; j++)
		x[j] = released ? y[j] / sum : y[j] * (double)l->feature[j];
}

/* The output [q_dim] at one position. q, k, v: [LONG, heads, d] features and values; gate: [q_dim] */
static void attend(const mzm_model *m, const mzm_layer *l, const double *q, const double *k, const double *v,
		   const double *gate, int32_t pos, double *out)
{
	const mzm_config *cfg = &m->weights->cfg;
	int32_t d = cfg->head_dim, n_kv = cfg->n_kv_heads, group = cfg->n_heads / n_kv, q_dim = cfg->n_heads * d;
	for (int32_t h = 0; h < cfg->n_heads; h++) {
		double sum = 0, weight = 1;
		memset(out + h * d, 0, (size_t)d * sizeof *out);
		for (int32_t t = pos; t >= 0; t--) {
			double score = 0, sigma = 1, rho = 1;
			if (l->decay) {
				int32_t i = t < cfg->decay_len ? t : cfg->decay_len - 1;
				const float *at = l->decay + 2 * (h / group * cfg->decay_len + i);
				rho = 1 - (double)at[0];
				sigma = (double)at[1];
			}
			for (int32_t c = 0; c < d; c++)
				score += q[(pos * cfg->n_heads + h) * d + c] * k[(t * n_kv + h / group) * d + c];
			score *= weight * sigma;
			weight *= rho;
			sum += score;
			for (int32_t c = 0; c < d; c++)
				out[h * d + c] += score * v[(t * n_kv + h / group) * d + c];
		}
		for (int32_t c = 0; c < d && cfg->attn == MZM_ATTN_DIJIANG_PAPER && !cfg->no_denominator; c++)
			out[h * d + c] /= sum;
	}
	for (int32_t g = 0; g < d && l->group_norm; g++) {
		double mean = 0, var = 0, *x = out + g * cfg->n_heads;
		for (int32_t i = 0; i < cfg->n_heads; i++)
			mean += x[i] / cfg->n_heads;
		for (int32_t i = 0; i < cfg->n_heads; i++)
			var += (x[i] - mean) * (x[i] - mean) / cfg->n_heads;
		for (int32_t i = 0; i < cfg->n_heads; i++)
			x[i] = (x[i] - mean) / sqrt(var + 1e-5);
	}
	for (int32_t i = 0; i < q_dim && l->group_norm; i++)
		out[i] = (out[i] * (double)l->group_norm[i] + (double)l->group_norm_bias[i]) * gate[i] /
			 (1 + exp(-gate[i]));
}

static double quadratic_error(const mzm_model *m, const seen *c)
{
	const mzm_config *cfg = &m->weights->cfg;
	const mzm_layer *l = &m->weights->layer[0];
	int32_t d = cfg->head_dim, q_dim = cfg->n_heads * d, kv_dim = cfg->n_kv_heads * d;
	double *q = calloc((size_t)(c->at * q_dim), sizeof *q), *k = calloc((size_t)(c->at * kv_dim), sizeof *k);
	double *v = calloc((size_t)(c->at * kv_dim), sizeof *v), *gate = calloc((size_t)(c->at * q_dim), sizeof *gate);
	double out[MAX_Q], worst = 0, most = 0;
	assert_true(q_dim <= MAX_Q && d <= MAX_HEAD);
	for (int32_t t = 0; t < c->at; t++) {
		const float *h = c->h + t * cfg->dim;
		multiply(m, q + t * q_dim, &l->wq, h);
		multiply(m, k + t * kv_dim, &l->wk, h);
		multiply(m, v + t * kv_dim, &l->wv, h);
		multiply(m, gate + t * q_dim, &l->wg, h);
		for (int32_t i = 0; i < cfg->n_heads; i++)
			feature(m, l, q + t * q_dim + i * d, t);
		for (int32_t i = 0; i < cfg->n_kv_heads; i++)
			feature(m, l, k + t * kv_dim + i * d, t);
	}
	for (int32_t t = 0; t < c->at; t += t < 200 ? 1 : 53) {
		attend(m, l, q, k, v, gate + t * q_dim, t, out);
		for (int32_t i = 0; i < q_dim; i++) {
			double error = fabs(out[i] - (double)c->att[t * q_dim + i]);
			worst = error > worst || isnan(error) ? error : worst;
			most = fabs(out[i]) > most ? fabs(out[i]) : most;
		}
	}
	free(q);
	free(k);
	free(v);
	free(gate);
	return worst / most;
}

/* n random tokens in pieces, and what the quadratic form says of them. */
static void expect_quadratic(const char *path, const char *name, int32_t n_tok)
{
	mzm_model *m = dj_open(path, NULL, NULL);
	mzm_session *s = dj_session(m, 1);
	const mzm_config *cfg = &m->weights->cfg;
	seen c = {.h = calloc((size_t)n_tok * (size_t)cfg->dim, sizeof(float)),
		  .att = calloc((size_t)n_tok * (size_t)(cfg->n_heads * cfg->head_dim), sizeof(float))};
	uint64_t seed = 5;
	while (c.at < n_tok) {
		int32_t ids[100], n = 1 + (int32_t)below(&seed, 100);
		n = n < n_tok - c.at ? n : n_tok - c.at;
		n = n < mzm_state_max_pos(s->state) ? n : 1;
		for (int32_t i = 0; i < n; i++)
			ids[i] = (int32_t)below(&seed, VOCAB);
		mzm_pass pass = {.ids = ids, .n_pos = n, .see_ctx = &c, .see_attention = see};
		run(s, &pass);
	}
	double error = quadratic_error(m, &c);
	print_message("%s: off the quadratic form by %.2g\n", name, error);
	assert_true(error < 1e-5);
	free(c.h);
	free(c.att);
	mzm_session_free(s);
	mzm_model_close(m);
}

/* Heads so large that the transform goes by halves. */
static void test_large_heads(void **state)
{
	hf_build b;
	char path[256], name[96];
	(void)state;
	hf_init_sized(&b, "F32", true, 8, 6, MAX_HEAD);
	b.config_extra = ",\"dijiang_form\":\"paper\"";
	for (int l = 0; l < b.n_layers; l++) {
		snprintf(name, sizeof name, "model.layers.%d.self_attn.T", l);
		hf_add(&b, name, "F32", MAX_HEAD, 0);
		snprintf(name, sizeof name, "model.layers.%d.self_attn.D", l);
		hf_add(&b, name, "F32", MAX_HEAD, 0);
	}
	for (int i = 0; i < b.n; i++) {
		for (size_t k = 0; k < b.w[i].bytes / sizeof(float); k++) {
			float x = (float)((double)(testing_random(&b.seed) >> 11) * 0x1p-53 + 0.2) *
				  (testing_random(&b.seed) % 2 || b.w[i].n_dims == 1 ? 1.0f : -1.0f);
			memcpy(b.w[i].data + 4 * k, &x, sizeof x);
		}
	}
	testing_temp_dir(path);
	hf_write(&b, path);
	expect_quadratic(path, "heads of 512", 60);
	hf_free(&b);
	testing_remove(path);
}

static void test_quadratic(void **state)
{
	static const char *const names[] = {"dijiang-groups", "dijiang-paper", "dijiang-paper"};
	static const char *const changes[] = {DJ_LONG, DJ_LONG,
					      "{\"max_position_embeddings\": 2048, \"dijiang_denominator\": false}"};
	(void)state;
	for (int k = 0; k < 3; k++) {
		dj_dir dir = dj_copy(names[k], changes[k]);
		expect_quadratic(dir.path, names[k], LONG);
		testing_remove(dir.path);
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
		ids[i] = (int32_t)below(&seed, VOCAB);
	read_to(s, ids, 150, 64, 1);
	int32_t base = mzm_kv_base(150);
	assert_true(base > 0);
	float *const places[] = {mzm_kv_sums(kv, 0, 1, base) + 3, mzm_kv_v(kv, 1, 0, base), mzm_kv_k(kv, 0, 0, 149),
				 mzm_kv_v(kv, 0, 0, base - 1), NULL};
	mzm_pass pass = {.ids = ids, .n_pos = 1, .n_rows = 1};
	memcpy(want, run(s, &pass), sizeof want);
	mzm_kv_truncate(kv, 150);
	for (int i = 0; places[i]; i++) {
		float was = *places[i];
		*places[i] = was + 0.5f;
		bool same = memcmp(want, run(s, &pass), sizeof want) == 0;
		assert_true(same == (i == 3));
		*places[i] = was;
		mzm_kv_truncate(kv, 150);
	}
	assert_memory_equal(want, run(s, &pass), sizeof want);
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
				ids[i] = (int32_t)below(&seed, VOCAB);
			mzm_pass pass = {.ids = ids, .n_pos = mzm_state_max_pos(s->state) < 64 ? 32 : 64, .n_rows = 1};
			logits = run(s, &pass);
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
		prompt[i] = (int32_t)below(&seed, VOCAB);
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

static void test_keep_prefix(void **state)
{
	int32_t text[N_PROMPT + N_NEW + 20];
	uint64_t seed = 21;
	(void)state;
	dj_dir d = dj_copy("dijiang-groups", DJ_LONG);
	mzm_model *m = dj_open(d.path, NULL, NULL);
	mzm_session *s = dj_session(m, 1), *fresh = dj_session(m, 1);
	for (int32_t i = 0; i < N_PROMPT; i++)
		text[i] = (int32_t)below(&seed, VOCAB);
	mzm_gen_params p = mzm_gen_params_default();
	p.max_tokens = N_NEW;
	p.keep_prefix = true;
	mzm_gen_result r = generate(s, text, N_PROMPT, p), again;
	memcpy(text + N_PROMPT, r.tokens, N_NEW * sizeof *text);
	for (int i = 0; i < 20; i++)
		text[N_PROMPT + N_NEW + i] = (int32_t)below(&seed, VOCAB);
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
		cmocka_unit_test(test_quadratic),
		cmocka_unit_test(test_large_heads),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_finite),
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_keep_prefix),
	};
	if (access("tests/golden/dijiang", R_OK) != 0) {
		print_message("no tests/golden: run in the root of the source tree\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
