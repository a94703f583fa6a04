/* test_dijiang_form.c - linear attention against its formulas, written here as the quadratic form in double: both
 * forms, denominators or none, large heads, and inputs whose exponentials no float holds, which change no bits between
 * ways to read a text; decay behind the end of its tables. What a session keeps of it: test_dijiang.c. */
#include "dijiang_rig.h"
#include "hf_build.h"

#include <math.h>

/* ---- the quadratic form ---- */

enum { LONG = 1500, MAX_HEAD = 512, MAX_Q = 1024 };

#define MOST 0x1p40 /* of an output */

static double largest; /* exponent of the features so far */

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

/* Rotated, transformed, scaled, positive. Long doubles hold what exponentials come to here. */
static void feature(const mzm_model *m, const mzm_layer *l, const double *in, long double *out, int32_t pos)
{
	const mzm_config *cfg = &m->weights->cfg;
	int32_t d = cfg->head_dim, half = d / 2;
	double x[MAX_HEAD], cosine[4 * MAX_HEAD];
	long double sum = 0;
	bool released = cfg->attn == MZM_ATTN_DIJIANG;
	for (int32_t i = 0; i < half; i++) {
		double angle = pos * pow(cfg->rope_theta, -2.0 * i / d), a = in[i], b = in[i + half];
		x[i] = a * cos(angle) - b * sin(angle);
		x[i + half] = b * cos(angle) + a * sin(angle);
	}
	for (int32_t i = 0; i < 4 * d; i++)
		cosine[i] = cos(M_PI * i / (2 * d));
	for (int32_t j = 0; j < d; j++) {
		double y = 0;
		for (int32_t i = 0; i < d; i++) {
			int32_t k = released ? i : j, at = released ? j : i;
			y += x[i] * sqrt((k ? 2.0 : 1.0) / d) * cosine[(2 * at + 1) * k % (4 * d)];
		}
		y *= (double)l->freq[j];
		largest = y > largest ? y : largest;
		out[j] = expl((long double)y);
		sum += out[j];
	}
	for (int32_t j = 0; j < d; j++)
		out[j] *= released ? 1 / sum : (long double)l->feature[j];
}

/* The output [q_dim] at one position. q, k, v: [LONG, heads, d] features and values; gate: [q_dim] */
static void attend(const mzm_model *m, const mzm_layer *l, const long double *q, const long double *k, const double *v,
		   const double *gate, int32_t pos, double *out)
{
	const mzm_config *cfg = &m->weights->cfg;
	int32_t d = cfg->head_dim, n_kv = cfg->n_kv_heads, group = cfg->n_heads / n_kv, q_dim = cfg->n_heads * d;
	for (int32_t h = 0; h < cfg->n_heads; h++) {
		long double sum = 0, o[MAX_HEAD] = {0};
		double weight = 1;
		for (int32_t t = pos; t >= 0; t--) {
			double sigma = 1, rho = 1;
			long double score = 0;
			if (l->decay) {
				int32_t i = t < cfg->decay_len ? t : cfg->decay_len - 1;
				const float *at = l->decay + 2 * (h / group * cfg->decay_len + i);
				rho = 1 - (double)at[0];
				sigma = (double)at[1];
			}
			for (int32_t c = 0; c < d; c++)
				score += q[(pos * cfg->n_heads + h) * d + c] * k[(t * n_kv + h / group) * d + c];
			score *= (long double)(weight * sigma);
			weight *= rho;
			sum += score;
			for (int32_t c = 0; c < d; c++)
				o[c] += score * (long double)v[(t * n_kv + h / group) * d + c];
		}
		if (cfg->attn == MZM_ATTN_DIJIANG || cfg->no_denominator)
			sum = 1;
		for (int32_t c = 0; c < d; c++)
			out[h * d + c] = (double)fmaxl(-MOST, fminl(o[c] / sum, MOST));
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
	long double *q = calloc((size_t)(c->at * q_dim), sizeof *q), *k = calloc((size_t)(c->at * kv_dim), sizeof *k);
	double *v = calloc((size_t)(c->at * kv_dim), sizeof *v), *gate = calloc((size_t)(c->at * q_dim), sizeof *gate);
	double out[MAX_Q], x[MAX_Q], worst = 0, most = 0;
	assert_true(q_dim <= MAX_Q && d <= MAX_HEAD);
	for (int32_t t = 0; t < c->at; t++) {
		const float *h = c->h + t * cfg->dim;
		multiply(m, v + t * kv_dim, &l->wv, h);
		multiply(m, gate + t * q_dim, &l->wg, h);
		multiply(m, x, &l->wq, h);
		for (int32_t i = 0; i < cfg->n_heads; i++)
			feature(m, l, x + i * d, q + t * q_dim + i * d, t);
		multiply(m, x, &l->wk, h);
		for (int32_t i = 0; i < cfg->n_kv_heads; i++)
			feature(m, l, x + i * d, k + t * kv_dim + i * d, t);
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
static void expect_quadratic(const char *path, const char *name, int32_t n_tok, double tolerance)
{
	mzm_model *m = dj_open(path, NULL, NULL);
	mzm_session *s = dj_session(m, 1);
	const mzm_config *cfg = &m->weights->cfg;
	seen c = {.h = calloc((size_t)n_tok * (size_t)cfg->dim, sizeof(float)),
		  .att = calloc((size_t)n_tok * (size_t)(cfg->n_heads * cfg->head_dim), sizeof(float))};
	uint64_t seed = 5, pieces = 6;
	largest = 0;
	while (c.at < n_tok) {
		int32_t ids[100], n = 1 + (int32_t)dj_below(&pieces, 100), most = mzm_state_max_pos(s->state);
		n = n < most ? n : most;
		n = n < n_tok - c.at ? n : n_tok - c.at;
		for (int32_t i = 0; i < n; i++) /* the same tokens whatever the pieces */
			ids[i] = (int32_t)dj_below(&seed, DJ_VOCAB);
		mzm_pass pass = {.ids = ids, .n_pos = n, .see_ctx = &c, .see_attention = see};
		dj_run(s, &pass);
	}
	double error = quadratic_error(m, &c);
	print_message("%s: off the quadratic form by %.2g, largest exponent %.3g\n", name, error, largest);
	assert_true(error < tolerance);
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
	expect_quadratic(path, "heads of 512", 60, 1e-5);
	hf_free(&b);
	testing_remove(path);
}

static void test_quadratic(void **state)
{
	static const char *const names[] = {"dijiang-groups", "dijiang-paper", "dijiang-paper"};
	static const char *const changes[] = {DJ_LONG, DJ_LONG, DJ_SUMS};
	(void)state;
	for (int k = 0; k < 3; k++) {
		dj_dir dir = dj_copy(names[k], changes[k]);
		expect_quadratic(dir.path, names[k], LONG, 1e-5);
		testing_remove(dir.path);
	}
}

/* ---- exponentials that no float holds ---- */

static void test_exponents(void **state)
{
	static const struct {
		float       by;
		const char *changes;
		double      exponent, tolerance;
	} cases[] = {
		{10, DJ_LONG, 40, 1e-4}, {20, DJ_LONG, 85, 1e-4},
		{4, DJ_SUMS, 15, 1e-4}, /* as they are */
		/* Of some positions nothing is left, or sums are as large as may be: finite. */
		{40, DJ_LONG, 160, 1e9}, {40, DJ_SUMS, 160, 1e9}, {160, DJ_LONG, 600, 1e9}, {160, DJ_SUMS, 600, 1e9},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		dj_dir d = dj_scaled(cases[i].changes, cases[i].by);
		expect_quadratic(d.path, "dijiang-paper, scaled", 400, cases[i].tolerance);
		assert_true(largest > cases[i].exponent);
		testing_remove(d.path);
	}
}

/* ---- behind the tables ---- */

enum { KNOWN = 40, ALL = 128 };

/* How a table goes on behind its first KNOWN positions; alone: D2 by its own last step, which is not the rule. */
typedef enum rule { ENDS, GOES_ON, ALONE } rule;

/* Tables as if trained: not geometric, no inverses of each other. */
static double known(bool is_d2, size_t head, size_t i)
{
	uint64_t seed = 1000 * head + 2 * i + is_d2;
	double noise = (double)(testing_random(&seed) >> 11) * 0x1p-53 - 0.5;
	double gamma = 1 - 0.03 / (double)(1 + head);
	if (i == KNOWN - 1) /* a last step that no state grows by */
		return known(is_d2, head, i - 1) * (is_d2 ? 1.01 : 0.96);
	return pow(gamma, is_d2 ? -(double)i : (double)i) * (1 + 0.2 * noise);
}

static double entry(bool is_d2, size_t head, size_t i, rule how)
{
	size_t last = KNOWN - 1;
	double d1 = known(false, head, last), d2 = known(true, head, last), steps = (double)i - (double)last;
	if (i < KNOWN)
		return known(is_d2, head, i);
	if (is_d2 && how == ALONE)
		return d2 * pow(d2 / known(true, head, last - 1), steps);
	double further = d1 * pow(d1 / known(false, head, last - 1), steps);
	return is_d2 ? d1 * d2 / further : further;
}

static void fill(void *ctx, float *table, bool is_d2, size_t n_heads, size_t n)
{
	for (size_t h = 0; h < n_heads; h++)
		for (size_t i = 0; i < n; i++)
			table[h * n + i] = (float)entry(is_d2, h, i, *(rule *)ctx);
}

/* Logits behind so many tokens. */
static void logits_of(float out[DJ_VOCAB], rule how)
{
	int32_t ids[ALL];
	uint64_t seed = 9;
	dj_dir d = dj_copy("dijiang", how == ENDS ? "{\"dijiang_table_len\": 40}" : "{}");
	dj_tables(d.path, how == ENDS ? KNOWN : ALL, fill, &how);
	mzm_model *m = dj_open(d.path, NULL, NULL);
	mzm_session *s = dj_session(m, 1);
	for (int32_t i = 0; i < ALL; i++)
		ids[i] = (int32_t)dj_below(&seed, DJ_VOCAB);
	for (int32_t i = 0; i < ALL; i += 32) {
		mzm_pass pass = {.ids = ids + i, .n_pos = 32, .n_rows = 1};
		memcpy(out, dj_run(s, &pass), DJ_VOCAB * sizeof *out);
	}
	mzm_session_free(s);
	mzm_model_close(m);
	testing_remove(d.path);
}

/* Behind a table's end rho and sigma are those of its last position: what D1 going on by its last step, and D2 so that
 * the product stays, would say. */
static void test_behind_tables(void **state)
{
	float ends[DJ_VOCAB], goes_on[DJ_VOCAB], alone[DJ_VOCAB];
	double off = 0, other = 0, most = 0;
	(void)state;
	logits_of(ends, ENDS);
	logits_of(goes_on, GOES_ON);
	logits_of(alone, ALONE);
	for (int i = 0; i < DJ_VOCAB; i++) {
		off = fmax(off, fabs((double)ends[i] - (double)goes_on[i]));
		other = fmax(other, fabs((double)ends[i] - (double)alone[i]));
		most = fmax(most, fabs((double)ends[i]));
	}
	print_message("off by %.2g; D2 alone by %.2g\n", off / most, other / most);
	assert_true(off < 1e-4 * most && other > 1e-2 * most);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quadratic),
		cmocka_unit_test(test_large_heads),
		cmocka_unit_test(test_exponents),
		cmocka_unit_test(test_behind_tables),
	};
	if (access("tests/golden/dijiang", R_OK) != 0) {
		print_message("no tests/golden: run in the root of the source tree\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
