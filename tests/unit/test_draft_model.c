/* test_draft_model.c - drafts by a second model: the text stays the full model's; a draft model that is the model
 * itself is always right; what has other tokens is refused, and the token named; contexts and vocabularies of other
 * sizes; its rows from one draft to the next. */
#include "draft_rig.h"

#include "tiny_model.h"

static mzm_model *models[2]; /* SwiGLU, ReGLU: each other's draft models */
static mzm_session *dense_of[2], *sessions[2][3]; /* by threads */

static mzm_gen_params with(const mzm_model *draft, mzm_mode mode, int period)
{
	mzm_gen_params p = rig_params(mode, "model", period);
	p.draft_model = draft;
	return p;
}

static mzm_gen_result same_as_dense(int m, int threads, int i, mzm_gen_params p)
{
	return rig_as_dense(sessions[m][threads], dense_of[m], i, p);
}

/* ---- the text ---- */

static void test_exact_equals_dense(void **state)
{
	static const int periods[] = {16, 2, 5, 32};
	int64_t drafted = 0, kept = 0;
	(void)state;
	for (int i = 0; i < testing_count(8, 100); i++) {
		mzm_gen_params p = with(models[i % 2], MZM_MODE_EXACT, periods[i % 4]);
		p.draft_exit = i % 3 == 0 ? 0.0f : i % 3 == 1 ? -1.0f : 0.6f;
		p.temp = i % 4 == 3 ? 0.8f : 0;
		p.top_k = i % 8 == 3 ? 20 : 0;
		p.seed = (uint64_t)i;
		p.keep_prefix = i % 2;
		mzm_gen_result r = same_as_dense(1 - i % 2, i % 4 ? 1 : 2, i, p);
		assert_int_equal(r.n_drafters, 1);
		assert_string_equal(r.drafts[0].name, "model");
		assert_true(r.drafts[0].n_drafted > 0 && r.density == 1); /* two models of one size */
		drafted += r.drafts[0].n_drafted;
		kept += r.drafts[0].n_accepted;
	}
	assert_true(kept > drafted / 2 && kept < drafted);
}

static void test_itself(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		mzm_gen_params p = with(models[i % 2], i < 2 ? MZM_MODE_EXACT : MZM_MODE_LOSSLESS, 8);
		p.temp = i == 1 || i == 3 ? 0.9f : 0;
		p.draft_exit = 0;
		if (p.mode == MZM_MODE_LOSSLESS && p.temp > 0) {
			static rig_record r;
			mzm_gen_result result = rig_generate(&r, sessions[i % 2][1], i, p);
			assert_true(result.drafts[0].n_drafted > 0 && result.n_rolled_back == 0);
			continue;
		}
		mzm_gen_result r = same_as_dense(i % 2, 1, i, p);
		assert_int_equal(r.n_rolled_back, 0);
		assert_true(r.drafts[0].n_accepted == r.drafts[0].n_drafted);
		assert_int_equal(r.n_sparse_passes, r.drafts[0].n_drafted); /* what is missing is read with the next */
	}
}

static void test_monitor_decides(void **state)
{
	mzm_costs costs = rig_costs(), found;
	(void)state;
	for (int i = 0; i < 3; i++) {
		mzm_gen_params p = with(models[1], MZM_MODE_EXACT, 0);
		p.costs = i < 2 ? &costs : NULL; /* NULL: measured */
		mzm_gen_result r = same_as_dense(0, 1, i, p);
		assert_true(i == 2 || r.drafts[0].n_drafted > 0);
		assert_int_equal(mzm_session_measure_costs(sessions[0][1], &p, &found, NULL), MZM_OK);
		assert_true(found.sparse > 0 && found.dense_ms > 0);
		assert_int_equal(mzm_session_nominal_costs(sessions[0][1], &p, &found, NULL), MZM_OK);
		assert_true(found.sparse == 1);
	}
}

static void test_combinations(void **state)
{
	static const char *const names[] = {"model+sparse", "sparse+model", "ngram+model", "skip+model", "auto"};
	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		int list[MZM_MAX_DRAFTERS];
		mzm_gen_params p = with(models[1], MZM_MODE_EXACT, 8);
		p.draft = names[i];
		p.skip = "mlp:3";
		assert_true(mzm_drafter_list(list, names[i]) > 1);
		for (int k = 0; k < 2; k++) {
			p.temp = k ? 0.7f : 0;
			mzm_gen_result r = same_as_dense(0, i == 0 && k == 1 ? 2 : 1, (int)i, p);
			const mzm_draft_stats *model = NULL;
			for (int d = 0; d < r.n_drafters; d++)
				model = strcmp(r.drafts[d].name, "model") == 0 ? &r.drafts[d] : model;
			assert_non_null(model);
			assert_true(model->n_drafted > 0 || strcmp(names[i], "auto") == 0); /* which may have better */
		}
	}
}

/* Other models in turn, other texts, the same text again: what was kept of one never shows in another. */
static void test_changes(void **state)
{
	(void)state;
	mzm_gen_result first = same_as_dense(0, 1, 3, with(models[1], MZM_MODE_EXACT, 8)), again;
	same_as_dense(0, 1, 3, with(models[0], MZM_MODE_EXACT, 8));
	same_as_dense(0, 1, 4, with(models[1], MZM_MODE_EXACT, 8));
	mzm_gen_params p = with(models[1], MZM_MODE_EXACT, 8);
	for (int keep = 0; keep < 2; keep++) {
		p.keep_prefix = keep;
		again = same_as_dense(0, 1, 3, p);
		assert_int_equal(again.n_checks, first.n_checks);
		assert_true(again.drafts[0].n_drafted == first.drafts[0].n_drafted);
		assert_true(again.drafts[0].n_accepted == first.drafts[0].n_accepted);
	}
	p.draft = "sparse"; /* and it is not in the way */
	same_as_dense(0, 1, 3, p);
}

static void test_streaming(void **state)
{
	static rig_record dense, drafted;
	mzm_model *m = NULL;
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	char dir[256], file[300];
	(void)state;
	testing_temp_dir(dir);
	snprintf(file, sizeof file, "%s/model.mzm", dir);
	mp.store = "stream";
	if (mzm_import(DEMO_MODEL, file, NULL, &err) != MZM_OK || mzm_model_open(&m, file, &mp, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_session *s = rig_session(m, 1, 512);
	mzm_gen_params p = with(models[1], MZM_MODE_EXACT, 8);
	p.max_tokens = 30;
	mzm_gen_result r = rig_generate(&drafted, s, 1, p);
	p.mode = MZM_MODE_DENSE;
	rig_generate(&dense, dense_of[0], 1, p);
	rig_same_text(&drafted, &dense);
	assert_true(r.n_gained > 2 * r.n_checks);
	mzm_session_free(s);
	mzm_model_close(m);
	testing_remove(dir);
}

/* ---- a long prompt ---- */

typedef struct listener {
	int      n_prompt, n_draft, stop_at; /* calls; of the draft's the one that cancels, 0: none */
	uint64_t done;
} listener;

static int listen(void *user, const char *stage, uint64_t done, uint64_t total)
{
	listener *l = user;
	bool of_draft = strcmp(stage, "draft prompt") == 0;
	assert_true(of_draft || strcmp(stage, "prompt") == 0);
	assert_true(total == 400 && done <= total && (!of_draft || done > l->done || l->done == total));
	*(of_draft ? &l->n_draft : &l->n_prompt) += 1;
	l->done = done;
	return of_draft && l->n_draft == l->stop_at;
}

/* The draft model's reading is heard of, and can be ended; what it read stays. */
static void test_long_prompt(void **state)
{
	int32_t prompt[400], tokens[4];
	mzm_gen_result r;
	mzm_session *s = rig_session(models[0], 1, 448); /* chunks are short then */
	(void)state;
	for (int32_t i = 0; i < 400; i++)
		prompt[i] = (11 * i + 5) % 200;
	mzm_gen_params p = with(models[1], MZM_MODE_DENSE, 8);
	p.max_tokens = 4;
	assert_int_equal(mzm_generate(s, prompt, 400, &p, &r, NULL), MZM_OK);
	memcpy(tokens, r.tokens, sizeof tokens);
	p.mode = MZM_MODE_EXACT;
	p.keep_prefix = true;
	for (int i = 0; i < 2; i++) {
		listener l = {.stop_at = i == 0};
		mzm_err err = {0};
		p.on_prefill = listen;
		p.user = &l;
		mzm_status st = mzm_generate(s, prompt, 400, &p, &r, &err);
		assert_int_equal(st, i == 0 ? MZM_ECANCELLED : MZM_OK);
		assert_true(l.n_prompt > 0 && (i == 0 ? l.n_draft == 1 : l.n_draft > 1));
		if (i == 0) {
			assert_non_null(strstr(err.message, "draft model"));
			assert_true(l.done < 400);
			assert_int_equal(mzm_state_kv(s->own)->len, (int32_t)l.done);
			continue;
		}
		assert_true(l.done == 400);
		assert_int_equal(r.n_tokens, 4);
		assert_memory_equal(r.tokens, tokens, sizeof tokens);
	}
	mzm_session_free(s);
}

/* ---- models of other sizes ---- */

static const tiny_spec tiny = {.n_layers = 2, .dim = 32, .n_ffn = 48, .n_heads = 2, .n_kv_heads = 1, .head_dim = 16,
			       .n_vocab = 40, .n_ctx = 96, .tied = true, .dtype = "F32", .eos = -1, .scale = 0.5f};

static const char *const no_added = "";
static const char *const a_special =
	"{\"id\":1,\"content\":\"b\",\"special\":true,\"normalized\":false,\"lstrip\":false,\"rstrip\":false,"
	"\"single_word\":false}";

/* added: added_tokens; vocab: that of the model. */
static mzm_model *tiny_open(tiny_model **t, const tiny_spec *spec, uint64_t seed, const char *added, const char *vocab)
{
	char file[128];
	*t = tiny_make(spec, seed);
	if (vocab) {
		tiny_path(file, *t, "tokenizer.json");
		FILE *f = fopen(file, "w");
		assert_non_null(f);
		fprintf(f,
			"{\"added_tokens\":[%s],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\","
			"\"add_prefix_space\":false,\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},"
			"\"model\":{\"type\":\"BPE\",\"vocab\":{%s},\"merges\":[]}}",
			added, vocab);
		fclose(f);
	}
	return rig_open((*t)->dir, "off");
}

static void tiny_text(rig_record *r, mzm_session *s, mzm_gen_params p, int32_t most_id, mzm_gen_result *result)
{
	int32_t prompt[9];
	for (int32_t i = 0; i < 9; i++)
		prompt[i] = (5 * i + 3) % most_id;
	p.ignore_eos = true;
	p.max_tokens = 0;
	p.draft_exit = 0;
	*result = rig_generate_ids(r, s, prompt, 9, p);
}

#define VOCAB "\"a\":0,\"b\":1,\"ab\":2"

/* The draft model knows fewer tokens, or more; its context is shorter. */
static void test_sizes(void **state)
{
	static const struct {
		int n_vocab, n_ctx, most_id;
	} cases[] = {{40, 96, 40}, {24, 96, 24}, {24, 96, 40}, {56, 96, 40}, {40, 24, 40}, {40, 9, 40}, {40, 200, 40}};
	static rig_record dense, drafted;
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		tiny_model *t, *u;
		tiny_spec spec = tiny;
		mzm_gen_result r;
		mzm_model *m = tiny_open(&t, &tiny, 1, no_added, VOCAB);
		spec.n_vocab = cases[i].n_vocab;
		spec.n_ctx = cases[i].n_ctx;
		mzm_model *draft = tiny_open(&u, &spec, i < 1 || i > 4 ? 1 : 2 + i, no_added, VOCAB);
		mzm_session *a = rig_session(m, 1, 96), *b = rig_session(m, 1, 96);
		mzm_gen_params p = with(draft, MZM_MODE_DENSE, 6);
		for (int k = 0; k < 2; k++) {
			p.temp = k ? 1.5f : 0;
			p.mode = MZM_MODE_DENSE;
			tiny_text(&dense, a, p, cases[i].most_id, &r);
			p.mode = MZM_MODE_EXACT;
			tiny_text(&drafted, b, p, cases[i].most_id, &r);
			rig_same_text(&drafted, &dense);
			rig_same_state(b, a, 0);
			int64_t n = r.drafts[0].n_drafted;
			if (cases[i].n_ctx == 9) /* not even the prompt and a token */
				assert_int_equal(n, 0);
			else if (cases[i].n_ctx == 24)
				assert_true(n > 0 && n <= 24);
			else if (i != 2) /* the prompt has a token that it does not know */
				assert_true(n > 60);
			else
				assert_int_equal(n, 0);
			if (i == 0)
				assert_true(r.drafts[0].n_accepted == n);
		}
		mzm_session_free(a);
		mzm_session_free(b);
		mzm_model_close(m);
		mzm_model_close(draft);
		tiny_free(t);
		tiny_free(u);
	}
}

/* ---- the same tokens ---- */

static void test_tokens(void **state)
{
	static const struct {
		const char *added, *vocab, *says;
		int         eos;
	} cases[] = {
		{"", VOCAB, NULL, -1},
		{"", "\"a\":0,\"c\":1,\"ab\":2", "token 1 is \"c\" there and \"b\" here", -1},
		{"", "\"a\":1,\"b\":0,\"ab\":2", "token 0 is \"b\" there and \"a\" here", -1},
		{"", VOCAB ",\"ba\":3", "the first that one lacks is \"ba\"", -1},
		{"", "\"a\":0,\"b\":1", "the first that one lacks is \"ab\"", -1},
		{NULL, VOCAB, "token 1, \"b\", is special there", -1},
		{"", VOCAB, "token 2 ends a text there, and not here", 2},
		{"", NULL, "no tokenizer", -1},
	};
	(void)state;
	tiny_model *t;
	mzm_model *m = tiny_open(&t, &tiny, 1, no_added, VOCAB);
	mzm_session *s = rig_session(m, 1, 96);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		tiny_model *u;
		tiny_spec spec = tiny;
		spec.eos = cases[i].eos;
		mzm_model *draft = tiny_open(&u, &spec, 2, cases[i].added ? cases[i].added : a_special, cases[i].vocab);
		mzm_gen_params p = with(draft, MZM_MODE_EXACT, 4);
		if (cases[i].says) {
			rig_refuses(s, p, MZM_EARG, cases[i].says);
			p.draft = "auto"; /* a wrong file is not passed over */
			rig_refuses(s, p, MZM_EARG, cases[i].says);
			p.draft = "sparse"; /* but nobody looks at it in vain */
			p.max_tokens = 2;
		}
		static rig_record r;
		int32_t ids[2] = {0, 1};
		rig_generate_ids(&r, s, ids, 2, p);
		mzm_session_drop_draft(s); /* before its model is gone */
		mzm_model_close(draft);
		tiny_free(u);
	}
	mzm_session_free(s);
	mzm_model_close(m);
	tiny_free(t);
	mzm_gen_params p = rig_params(MZM_MODE_EXACT, "model", 4);
	rig_refuses(sessions[0][1], p, MZM_EUNDEFINED, "draft-model");
}

static void test_bytes(void **state)
{
	uint64_t small, large, longest;
	mzm_session_params p = {.n_threads = 1, .n_ctx = 128};
	(void)state;
	assert_int_equal(mzm_draft_model_bytes(&small, models[0], &p, NULL), MZM_OK);
	p.n_ctx = 512;
	assert_int_equal(mzm_draft_model_bytes(&large, models[0], &p, NULL), MZM_OK);
	p.n_ctx = 1 << 20; /* more than it has */
	assert_int_equal(mzm_draft_model_bytes(&longest, models[0], &p, NULL), MZM_OK);
	assert_true(small < large && large < longest && longest < (uint64_t)1 << 30);
}

static int open_all(void **state)
{
	(void)state;
	for (int m = 0; m < 2; m++) {
		models[m] = rig_open(m ? DEMO_MODEL_RELU : DEMO_MODEL, "off");
		dense_of[m] = rig_session(models[m], 1, 0);
		for (int i = 1; i < 3; i++)
			sessions[m][i] = rig_session(models[m], i, 0);
	}
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	for (int m = 0; m < 2; m++) {
		mzm_session_free(dense_of[m]);
		for (int i = 1; i < 3; i++)
			mzm_session_free(sessions[m][i]);
	}
	for (int m = 0; m < 2; m++)
		mzm_model_close(models[m]);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact_equals_dense),
		cmocka_unit_test(test_itself),
		cmocka_unit_test(test_monitor_decides),
		cmocka_unit_test(test_combinations),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_streaming),
		cmocka_unit_test(test_long_prompt),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_tokens),
		cmocka_unit_test(test_bytes),
	};
	return cmocka_run_group_tests(tests, open_all, close_all);
}
