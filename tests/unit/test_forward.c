/* test_forward.c - the forward pass against a plain double-precision one, and the equalities it promises bit for bit:
 * any split into passes, any number of threads, any kernel table but the one that rounds, any roll-back; for every type
 * of weights, of keys and values, and for the draft image. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/engine.h"
#include "isa.h"
#include "kern/quant.h"
#include "tiny_model.h"

static const tiny_spec base_spec = {
	.n_layers = 3, .dim = 48, .n_ffn = 100, .n_heads = 6, .n_kv_heads = 2, .head_dim = 8, .n_vocab = 131,
	.n_ctx = 256, .dtype = "F32", .eos = -1,
};

/* The same with rows that are whole blocks, so that they can be quantised. */
static const tiny_spec block_spec = {
	.n_layers = 3, .dim = 64, .n_ffn = 100, .n_heads = 4, .n_kv_heads = 2, .head_dim = 16, .n_vocab = 131,
	.n_ctx = 256, .dtype = "BF16", .eos = -1,
};

static const char *const kv_types[] = {"f32", "f16", "bf16"};

typedef struct rig {
	tiny_model  *tiny;
	mzm_model   *model;
	mzm_session *session;
} rig;

/* What a model file holds: the weights of the tiny model as they are, or quantised, with a draft image or none. */
typedef struct form {
	const char *name, *dtype, *quant, *draft;
} form;

static const form forms[] = {
	{"f32", "F32", NULL, NULL}, {"f16", "F16", NULL, NULL}, {"bf16", "BF16", NULL, NULL},
	{"q8", "BF16", "q8", NULL}, {"q4", "BF16", "q4", NULL},
};
enum { N_FORMS = sizeof forms / sizeof *forms };

/* The tiny model in that form; its path in out. -> tiny_free */
static tiny_model *make_form(const form *f, tiny_spec spec, uint64_t seed, char out[128])
{
	mzm_err err = {0};
	mzm_import_params ip = mzm_import_params_default();
	spec.dtype = f->dtype;
	tiny_model *m = tiny_make(&spec, seed);
	ip.quant = f->quant;
	ip.draft_quant = f->draft;
	tiny_write_tokenizer(m);
	tiny_path(out, m, "form.mzm");
	if (mzm_import(m->dir, out, &ip, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return m;
}

static void open_with(rig *r, const char *path, const char *isa, const char *kv_type, int n_threads)
{
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	mzm_session_params sp = mzm_session_params_default();
	mp.isa = isa;
	sp.kv_type = kv_type;
	sp.n_threads = n_threads;
	if (mzm_model_open(&r->model, path, &mp, &err) != MZM_OK ||
	    mzm_session_create(&r->session, r->model, &sp, &err) != MZM_OK)
		fail_msg("%s", err.message);
}

static void open_on(rig *r, const char *path, const char *isa, int n_threads)
{
	open_with(r, path, isa, NULL, n_threads);
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

/* Puts the weights that a model really has, of its draft image if asked, in place of those of the tiny model. */
static void take_matrix(float *to, const mzm_matrix *m, bool transposed)
{
	float *row = malloc((size_t)m->n_cols * sizeof *row);
	for (int32_t r = 0; r < m->n_rows; r++) {
		const char *from = (const char *)m->w + (size_t)r * m->stride;
		if (mzm_dtype_is_quant(m->dtype))
			mzm_dequant_row(row, from, m->dtype, m->n_cols);
		else
			mzm_kern_find("scalar")->to_f32(row, from, m->dtype, m->n_cols);
		for (int32_t c = 0; c < m->n_cols; c++)
			to[transposed ? (size_t)c * (size_t)m->n_rows + (size_t)r
				      : (size_t)r * (size_t)m->n_cols + (size_t)c] = row[c];
	}
	free(row);
}

static void take_weights(tiny_model *m, const mzm_weights *w, bool draft)
{
	size_t n_head = (size_t)m->spec.n_vocab * (size_t)m->spec.dim;
	if (m->head == m->embed)
		m->head = malloc(n_head * sizeof *m->head);
	take_matrix(m->embed, &w->embed, false);
	take_matrix(m->head, draft ? &w->draft_head : &w->head, false);
	for (int i = 0; i < m->spec.n_layers; i++) {
		const mzm_layer *from = draft ? &w->draft[i] : &w->layer[i];
		tiny_layer *to = &m->layer[i];
		take_matrix(to->wq, &from->wq, false);
		take_matrix(to->wk, &from->wk, false);
		take_matrix(to->wv, &from->wv, false);
		take_matrix(to->wo, &from->wo, false);
		take_matrix(to->gate, &from->gate, false);
		take_matrix(to->up, &from->up, false);
		take_matrix(to->down, &from->down, true);
	}
}

typedef struct errors {
	double worst, rms; /* largest; root of the mean square against that of the logits */
	double scale;      /* largest logit */
} errors;

static errors errors_of(const float *got, const double *want, size_t n)
{
	errors e = {0};
	double squares = 0, total = 0;
	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)got[i] - want[i]);
		e.worst = fmax(e.worst, isnan(d) ? INFINITY : d);
		e.scale = fmax(e.scale, fabs(want[i]));
		squares += d * d;
		total += want[i] * want[i];
	}
	e.rms = sqrt(squares / total);
	return e;
}

enum { N_REF = 90 };

/* Logits of all N_REF tokens, of the draft image if asked. -> free */
static float *logits_of(mzm_session *s, const int32_t *ids, int n_vocab, bool draft)
{
	float *all = malloc((size_t)N_REF * (size_t)n_vocab * sizeof *all), *got;
	for (int at = 0; at < N_REF; at += 30) {
		mzm_pass pass = {.ids = ids + at, .n_pos = 30, .n_rows = 30, .draft = draft};
		assert_int_equal(mzm_forward(s->state, &pass, &got, NULL, NULL), MZM_OK);
		memcpy(all + (size_t)at * (size_t)n_vocab, got, 30 * (size_t)n_vocab * sizeof *all);
	}
	return all;
}

/* The tolerance of the mean error, against the mean logit; 0: f32 throughout, where the largest error is to stay below
 * 1e-4. What is rounded on the way, keys and values or activations, is off by half a unit of its type, and these
 * models, whose attention is sharp, make about ten times that of it (bf16: 1.3e-2; blocks of int8: 3.7e-2). */
static double tolerance(const form *f, const char *isa, const char *kv)
{
	double of_kv = strcmp(kv, "f16") == 0 ? 2.5e-3 : strcmp(kv, "bf16") == 0 ? 0.02 : 0;
	double of_acts = f->quant ? 0.05 : isa_rounds(isa) && strcmp(f->name, "bf16") == 0 ? 0.02 : 0;
	return sqrt(of_kv * of_kv + of_acts * of_acts);
}

static void expect_close(const char *what, const form *f, const char *isa, const char *kv, errors e, errors *most)
{
	double rms = tolerance(f, isa, kv);
	bool exact = rms == 0;
	if (!(e.scale > 1) || !(e.worst < (exact ? 1e-4 * fmax(1, e.scale / 10) : 3 * rms * e.scale)) ||
	    !(e.rms < (exact ? 1e-5 : rms)))
		fail_msg("%s, %s, %s, KV %s: largest error %.2e, mean %.2e of logits up to %.1f", what, f->name,
			 isa ? isa : "auto", kv, e.worst, e.rms, e.scale);
	most->worst = fmax(most->worst, e.worst / e.scale);
	most->rms = fmax(most->rms, e.rms);
}

/* most: [tables: exact, best][KV types]. */
static void expect_reference(const form *f, const tiny_spec *spec, uint64_t seed, errors most[2][3])
{
	char path[128];
	rig r = {.tiny = make_form(f, *spec, seed, path)};
	int32_t ids[N_REF];
	size_t n_logits = (size_t)N_REF * (size_t)spec->n_vocab;
	double *want = malloc(n_logits * sizeof *want);
	some_ids(ids, N_REF, spec->n_vocab, seed);
	for (int i = 0; i < 6; i++) {
		const char *isa = i % 2 ? NULL : isa_exact(), *kv = kv_types[i / 2];
		open_with(&r, path, isa, kv, 2);
		if (i == 0) {
			take_weights(r.tiny, r.model->weights, false);
			tiny_forward(r.tiny, ids, N_REF, want);
		}
		float *got = logits_of(r.session, ids, spec->n_vocab, false);
		expect_close(spec->relu ? "relu" : "silu", f, isa, kv, errors_of(got, want, n_logits),
			     &most[i % 2][i / 2]);
		free(got);
		close_rig(&r);
	}
	tiny_free(r.tiny);
	free(want);
}

static void print_most(const form *f, errors most[2][3])
{
	for (int k = 0; k < 3; k++)
		print_message("%-4s KV %-4s: mean error %.1e, largest %.1e of the largest logit; best table %.1e, "
			      "%.1e\n",
			      f->name, kv_types[k], most[0][k].rms, most[0][k].worst, most[1][k].rms, most[1][k].worst);
}

static void test_reference(void **state)
{
	(void)state;
	for (int f = 0; f < N_FORMS; f++) {
		errors most[2][3] = {0};
		for (unsigned i = 0; i < 8; i++) {
			bool odd = (i ^ i >> 1 ^ i >> 2) & 1; /* the others have any two settings in all four ways */
			if (odd && getenv("MIRZAM_SHORT"))
				continue;
			tiny_spec s = i % 2 && !forms[f].quant ? base_spec : block_spec;
			s.relu = i & 1;
			s.tied = i & 2;
			s.llama3_rope = i & 4;
			expect_reference(&forms[f], &s, 100 + i, most);
		}
		print_most(&forms[f], most);
	}
}

static void test_reference_odd_shapes(void **state)
{
	(void)state;
	errors most[2][3] = {0};
	tiny_spec s = base_spec;
	s.dim = 33, s.n_ffn = 1, s.n_heads = 1, s.n_kv_heads = 1, s.head_dim = 2, s.n_vocab = 7, s.n_layers = 1;
	expect_reference(&forms[0], &s, 1, most);
	s.dim = 17, s.n_ffn = 51, s.n_heads = 5, s.n_kv_heads = 5, s.head_dim = 22, s.n_vocab = 19, s.n_layers = 2;
	expect_reference(&forms[0], &s, 2, most);
	s.dim = 128, s.n_ffn = 300, s.n_heads = 8, s.n_kv_heads = 1, s.head_dim = 16, s.n_vocab = 515;
	for (int f = 0; f < N_FORMS; f++)
		expect_reference(&forms[f], &s, 3, most);
	s.dim = 544, s.n_ffn = 35, s.n_heads = 17, s.n_kv_heads = 17, s.head_dim = 32, s.n_vocab = 33, s.n_layers = 1;
	for (int f = 0; f < N_FORMS; f++) /* a group of blocks and a last one of a single block */
		expect_reference(&forms[f], &s, 4, most);
}

/* ---- bit equalities ---- */

enum { LEN = 100 };

/* Logits of every position of LEN tokens, in passes of the given size. -> free */
static float *in_passes(const char *path, const char *isa, const char *kv_type, int n_threads, const int32_t *ids,
			int step, int n_vocab)
{
	rig r = {0};
	float *logits = malloc((size_t)LEN * (size_t)n_vocab * sizeof *logits);
	open_with(&r, path, isa, kv_type, n_threads);
	for (int at = 0; at < LEN; at += step) {
		int n = LEN - at < step ? LEN - at : step;
		forward(r.session, logits + (size_t)at * (size_t)n_vocab, ids + at, n, n);
	}
	close_rig(&r);
	return logits;
}

static const struct {
	int step, threads;
} ways[] = {{LEN, 2}, {7, 1}, {33, 3}, {2, 1}, {16, 2}, {32, 1}, {LEN, 5}, {1, 2}};
enum { N_WAYS = sizeof ways / sizeof *ways };

/* Equal bits by one table, whatever the passes and the threads: n ways from `first` on. Returns the logits, -> free */
static float *expect_invariance(const char *path, const char *isa, const char *kv, const int32_t *ids, int n_vocab,
				int first, int n)
{
	size_t bytes = (size_t)LEN * (size_t)n_vocab * sizeof(float);
	float *want = in_passes(path, isa, kv, 1, ids, 1, n_vocab);
	for (int i = first; i < first + n; i++) {
		int step = ways[i % N_WAYS].step, threads = ways[i % N_WAYS].threads;
		float *got = in_passes(path, isa, kv, threads, ids, step, n_vocab);
		if (memcmp(got, want, bytes) != 0)
			fail_msg("%s, KV %s: passes of %d tokens on %d threads differ from single tokens", isa, kv,
				 step, threads);
		free(got);
	}
	return want;
}

static void test_batch_invariance(void **state)
{
	(void)state;
	int32_t ids[LEN];
	size_t bytes = (size_t)LEN * (size_t)block_spec.n_vocab * sizeof(float);
	int turn = 0, few = getenv("MIRZAM_SHORT") ? 1 : 2;
	some_ids(ids, LEN, block_spec.n_vocab, 7);
	for (int f = 0; f < N_FORMS; f++) {
		char path[128];
		tiny_model *m = make_form(&forms[f], block_spec, 7, path);
		for (int k = 0; k < 3; k++) {
			float *exact = in_passes(path, isa_exact(), kv_types[k], 2, ids, 9, block_spec.n_vocab);
			for (int i = 0; mzm_isa_name(i); i++, turn += few) {
				const char *isa = mzm_isa_name(i);
				bool all = k == f % 3 && (i == 0 || strcmp(isa, isa_exact()) == 0);
				if (few == 1 && !all && (k + i + f) % 3 != 0) /* each with one KV type */
					continue;
				bool any_bf16 = f >= 2 || k == 2; /* or quantised, for which it is the same */
				bool equal = !isa_rounds(isa) || !any_bf16;
				float *got = expect_invariance(path, isa, kv_types[k], ids, block_spec.n_vocab, turn,
							       all ? N_WAYS : few);
				assert_int_equal(memcmp(got, exact, bytes) == 0, equal);
				free(got);
			}
			free(exact);
		}
		tiny_free(m);
	}
}

/* ---- the draft image ---- */

/* One session: logits of passes over the draft image, equal to those of a model that has nothing else. */
static void expect_draft(const char *path, const char *isa, const char *kv, const int32_t *ids, bool tied)
{
	rig r = {0};
	mzm_team *team;
	mzm_state *other;
	float *got, *want;
	size_t n = (size_t)block_spec.n_vocab;
	open_with(&r, path, isa, kv, 2);
	const mzm_weights *w = r.model->weights;
	mzm_dtype kv_type;
	assert_true(mzm_dtype_parse(&kv_type, kv));
	assert_non_null(w->draft);
	assert_ptr_not_equal(w->draft_head.w, w->head.w);
	assert_true(!tied || w->head.w == w->embed.w);
	mzm_weights alone = *w;
	alone.layer = w->draft;
	alone.head = w->draft_head;
	alone.draft = NULL;
	assert_int_equal(mzm_team_create(&team, 1, NULL), MZM_OK);
	assert_int_equal(mzm_state_create(&other, &alone, r.model->kern, team, 256, kv_type, NULL), MZM_OK);
	for (int at = 0, step = 1; at < LEN; at += step, step = 1 + (at * 7) % 20) {
		step = LEN - at < step ? LEN - at : step;
		mzm_pass pass = {.ids = ids + at, .n_pos = step, .n_rows = step};
		assert_int_equal(mzm_forward(other, &pass, &want, NULL, NULL), MZM_OK);
		pass.draft = true;
		assert_int_equal(mzm_forward(r.session->state, &pass, &got, NULL, NULL), MZM_OK);
		assert_memory_equal(got, want, (size_t)step * n * sizeof *got);
	}
	mzm_state_free(other);
	mzm_team_free(team);
	close_rig(&r);
}

/* Drafts that are rolled back leave the model itself as it is without a draft image. */
static void expect_untouched_by_drafts(const char *path, const char *plain, const int32_t *ids)
{
	rig with = {0}, without = {0};
	float *a, *b, *junk;
	size_t bytes = (size_t)block_spec.n_vocab * sizeof *a;
	open_on(&with, path, NULL, 2);
	open_on(&without, plain, NULL, 1);
	for (int at = 0; at < 60; at += 5) {
		mzm_pass draft = {.ids = ids + at, .n_pos = 1 + at % 9, .n_rows = 1, .draft = true};
		mzm_pass pass = {.ids = ids + at, .n_pos = 5, .n_rows = 1};
		assert_int_equal(mzm_forward(with.session->state, &draft, &junk, NULL, NULL), MZM_OK);
		mzm_session_truncate(with.session, at);
		assert_int_equal(mzm_forward(with.session->state, &pass, &a, NULL, NULL), MZM_OK);
		assert_int_equal(mzm_forward(without.session->state, &pass, &b, NULL, NULL), MZM_OK);
		assert_memory_equal(a, b, bytes);
	}
	close_rig(&with);
	close_rig(&without);
}

/* And they are the passes of a model with those weights, by the book. */
static void expect_draft_reference(tiny_model *m, const char *path, const form *f, const int32_t *ids)
{
	rig r = {0};
	errors most = {0};
	size_t n = (size_t)N_REF * (size_t)block_spec.n_vocab;
	double *want = malloc(n * sizeof *want), differ = 0;
	open_with(&r, path, NULL, "f32", 1);
	take_weights(m, r.model->weights, true);
	tiny_forward(m, ids, N_REF, want);
	float *got = logits_of(r.session, ids, block_spec.n_vocab, true);
	expect_close("draft", f, NULL, "f32", errors_of(got, want, n), &most);
	mzm_session_truncate(r.session, 0);
	float *full = logits_of(r.session, ids, block_spec.n_vocab, false);
	for (size_t i = 0; i < n; i++)
		differ = fmax(differ, fabs((double)got[i] - (double)full[i]));
	assert_true(differ > 0.01); /* or this test could not fail */
	print_message("draft %s: mean error %.1e; from the full model by up to %.2f\n", f->draft, most.rms, differ);
	close_rig(&r);
	free(got);
	free(full);
	free(want);
}

static void test_draft_image(void **state)
{
	(void)state;
	int32_t ids[LEN];
	some_ids(ids, LEN, block_spec.n_vocab, 29);
	for (int i = 0; i < 4; i++) {
		form f = {"draft", i == 3 ? "F32" : "BF16", i == 2 ? "q8" : NULL, i % 2 ? "q8" : "q4"};
		char path[128];
		tiny_spec s = block_spec;
		s.tied = i & 1;
		tiny_model *m = make_form(&f, s, 29, path);
		for (int k = 0; mzm_isa_name(k); k++)
			for (int kv = 0; kv < (getenv("MIRZAM_SHORT") ? 1 : 3); kv++)
				expect_draft(path, mzm_isa_name(k), kv_types[(kv + k + i) % 3], ids, s.tied);
		if (!f.quant)
			expect_untouched_by_drafts(path, m->dir, ids);
		form as_quant = {f.draft, f.dtype, f.draft, f.draft};
		expect_draft_reference(m, path, &as_quant, ids);
		tiny_free(m);
	}
}

/* A random program of appends and roll-backs must end in the KV of a fresh run (E6). */
static void expect_rollback(const form *f, const char *kv_type)
{
	char path[128];
	tiny_spec s = block_spec;
	rig a = {.tiny = make_form(f, s, 11, path)}, b = {0};
	open_with(&a, path, NULL, kv_type, 2);
	open_with(&b, path, NULL, kv_type, 1);
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

static void test_rollback(void **state)
{
	(void)state;
	for (int f = 0; f < N_FORMS; f++)
		expect_rollback(&forms[f], kv_types[f % 3]);
}

/* A sparse pass that keeps every neuron has the bits of the dense pass (E1), for each predictor. */
static void expect_keep_all(const form *f, const char *isa)
{
	char path[128];
	tiny_spec s = block_spec;
	rig r = {.tiny = make_form(f, s, 13, path)};
	open_on(&r, path, isa, 2);
	int32_t ids[21];
	some_ids(ids, 21, s.n_vocab, 1);
	float *dense = malloc((size_t)s.n_vocab * sizeof *dense);
	forward(r.session, dense, ids, 21, 1);
	for (int i = 0; mzm_predictor_name(i); i++) {
		if (mzm_predictor_at(i)->calibration)
			continue; /* test_calibrate.c has those */
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
		double expected = all ? 1.0 : mzm_pred_ffn_share(r.session->predictor->ops->stage, 0.5, false);
		assert_true(fabs(share - expected) < 1e-9);
	}
	free(dense);
	close_rig(&r);
	tiny_free(r.tiny);
}

static void test_keep_all(void **state)
{
	(void)state;
	for (int f = 0; f < N_FORMS; f++)
		for (int i = 0; mzm_isa_name(i); i++)
			expect_keep_all(&forms[f], mzm_isa_name(i));
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

/* ---- passes of several chunks ---- */

enum { LONG = 512 + 3 * 64 + 45 };

/* Remembers z of every position and layer, in the order of positions. */
typedef struct witness {
	mzm_predictor base;
	float        *z;         /* [n_layers, LONG, n_ffn] */
	int32_t       n_ffn, at[8]; /* positions seen of each layer */
} witness;

static void see(mzm_predictor *base, int32_t layer, const float *z, int32_t n_pos)
{
	witness *w = (witness *)base;
	memcpy(w->z + ((size_t)layer * LONG + (size_t)w->at[layer]) * (size_t)w->n_ffn, z,
	       (size_t)n_pos * (size_t)w->n_ffn * sizeof *z);
	w->at[layer] += n_pos;
}

static const mzm_predictor_ops witness_ops = {.name = "witness", .observe = see};

/* A prompt in passes of `most` positions, or, 0, of a chunk or 32 of a rest each; what came of it. */
typedef struct prompt_run {
	float  *logits;
	char   *kv;
	size_t  kv_bytes;
	witness seen;
} prompt_run;

static prompt_run read_prompt(mzm_session *s, const int32_t *ids, int32_t most, bool gemm)
{
	const mzm_config *cfg = &s->model->weights->cfg;
	mzm_kv *kv = mzm_state_kv(s->state);
	prompt_run r = {.seen = {.base = {.ops = &witness_ops}, .n_ffn = cfg->n_ffn}};
	float *logits = NULL;
	r.seen.z = malloc((size_t)cfg->n_layers * LONG * (size_t)cfg->n_ffn * sizeof(float));
	kv->len = 0;
	memset(kv->k, 0, mzm_kv_bytes(kv) / 2);
	memset(kv->v, 0, mzm_kv_bytes(kv) / 2);
	while (kv->len < LONG) {
		int32_t left = LONG - kv->len, n = left < most ? left : most;
		if (!most && gemm && left >= 64)
			n = kv->len % 512 == 0 && left >= 512 ? 512 : 64;
		else if (!most)
			n = left < 32 ? left : 32;
		mzm_pass pass = {.ids = ids + kv->len, .n_pos = n, .n_rows = n == left, .gemm = gemm,
				 .observer = &r.seen.base};
		assert_int_equal(mzm_forward(s->state, &pass, &logits, NULL, NULL), MZM_OK);
	}
	r.kv_bytes = (size_t)(kv->v - kv->k);
	r.kv = malloc(2 * r.kv_bytes);
	memcpy(r.kv, kv->k, 2 * r.kv_bytes);
	r.logits = malloc((size_t)cfg->n_vocab * sizeof(float));
	memcpy(r.logits, logits, (size_t)cfg->n_vocab * sizeof(float));
	return r;
}

static void free_run(prompt_run *r)
{
	free(r->logits);
	free(r->kv);
	free(r->seen.z);
}

static void expect_same_prompt(mzm_session *s, const int32_t *ids, const prompt_run *want, int32_t most, bool gemm)
{
	const mzm_config *cfg = &s->model->weights->cfg;
	prompt_run got = read_prompt(s, ids, most, gemm);
	assert_memory_equal(got.logits, want->logits, (size_t)cfg->n_vocab * sizeof(float));
	assert_memory_equal(got.kv, want->kv, 2 * want->kv_bytes);
	assert_memory_equal(got.seen.z, want->seen.z,
			    (size_t)cfg->n_layers * LONG * (size_t)cfg->n_ffn * sizeof(float));
	free_run(&got);
}

/* However many chunks and rests of a prompt share a pass, the bits are those of passes of one each. */
static void test_passes_of_several_chunks(void **state)
{
	(void)state;
	static const int32_t most[] = {512, 320, 64}; /* multiples of the chunks that come whole */
	char path[128];
	int32_t ids[LONG];
	tiny_spec spec = block_spec;
	spec.n_ctx = 1024, spec.n_ffn = 600;
	some_ids(ids, LONG, spec.n_vocab, 23);
	for (int f = 0; f < N_FORMS; f++) {
		tiny_model *m = make_form(&forms[f], spec, 23, path);
		rig one = {0}, many = {0};
		open_on(&one, path, NULL, 1);
		open_on(&many, path, NULL, 1 + f % 3);
		for (int gemm = 0; gemm <= one.model->gemm; gemm++) {
			prompt_run want = read_prompt(one.session, ids, 0, gemm);
			for (int i = 0; i < 3; i++) /* with less than 512 the large chunk would not come whole */
				if (!gemm || i == 0)
					expect_same_prompt(many.session, ids, &want,
							   one.model->gemm ? most[i] : 32, gemm);
			free_run(&want);
		}
		close_rig(&one);
		close_rig(&many);
		tiny_free(m);
	}
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
	mzm_session_params sp = {.n_ctx = 257}, no_kv = {.kv_type = "q8"}, odd_kv = {.kv_type = "f64"};
	mzm_session *other;
	assert_int_equal(mzm_session_create(&other, r.model, &sp, NULL), MZM_EARG);
	assert_int_equal(mzm_session_create(&other, r.model, &no_kv, NULL), MZM_EARG);
	assert_int_equal(mzm_session_create(&other, r.model, &odd_kv, NULL), MZM_EARG);
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
		cmocka_unit_test(test_draft_image),
		cmocka_unit_test(test_rollback),
		cmocka_unit_test(test_keep_all),
		cmocka_unit_test(test_prefill_chunk),
		cmocka_unit_test(test_passes_of_several_chunks),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_allocation_failures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
