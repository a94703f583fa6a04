/* test_forms.c - one model in every form gives one result: directory and container, compressed or not, any number of
 * threads, any kernel table but the one that rounds activations, which is one with itself. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "demo.h"
#include "isa.h"
#include "tiny_model.h"

/* Logits of the last of n tokens. -> free */
static float *logits_of(const char *path, const int32_t *ids, int n, const char *isa, int threads, char hash[33])
{
	mzm_err err = {0};
	mzm_model *model;
	mzm_session *session = NULL;
	mzm_model_params mp = mzm_model_params_default();
	mzm_session_params sp = mzm_session_params_default();
	mp.isa = isa;
	sp.n_threads = threads;
	if (mzm_model_open(&model, path, &mp, &err) != MZM_OK ||
	    mzm_session_create(&session, model, &sp, &err) != MZM_OK)
		fail_msg("%s", err.message);
	const mzm_model_info *info = mzm_model_get_info(model);
	float *logits = malloc((size_t)info->n_vocab * sizeof *logits);
	assert_int_equal(mzm_session_forward(session, logits, ids, n, 1, &err), MZM_OK);
	memcpy(hash, info->hash, 33);
	mzm_session_free(session);
	mzm_model_close(model);
	return logits;
}

static void test_tiny_forms(void **state)
{
	(void)state;
	static const char *const dtypes[] = {"F32", "F16", "BF16"};
	for (int d = 0; d < 3; d++) {
		tiny_spec spec = {.n_layers = 2, .dim = 40, .n_ffn = 70, .n_heads = 4, .n_kv_heads = 2, .head_dim = 10,
				  .n_vocab = 99, .n_ctx = 64, .dtype = dtypes[d], .eos = 3, .tied = d == 1};
		tiny_model *m = tiny_make(&spec, 31 + (uint64_t)d);
		int32_t ids[20];
		char hash[33], other[33], out[128];
		for (int i = 0; i < 20; i++)
			ids[i] = (i * 7 + 1) % 99;
		tiny_write_tokenizer(m);
		float *want = logits_of(m->dir, ids, 20, NULL, 1, hash);
		float *exact = logits_of(m->dir, ids, 20, isa_exact(), 1, other);
		assert_string_equal(other, hash);
		assert_int_equal(strlen(hash), 32);
		tiny_path(out, m, "out.mzm");
		for (int level = -1; level <= 19; level += level == -1 ? 1 : level == 0 ? 3 : 16) {
			mzm_err err = {0};
			mzm_import_params ip = mzm_import_params_default();
			ip.zstd = level;
			if (mzm_import(m->dir, out, &ip, &err) != MZM_OK)
				fail_msg("%s", err.message);
			float *got = logits_of(out, ids, 20, NULL, 2, other);
			assert_memory_equal(got, want, 99 * sizeof *got);
			assert_string_equal(other, hash);
			free(got);
		}
		for (int i = 0; mzm_isa_name(i); i++) {
			float *got = logits_of(out, ids, 20, mzm_isa_name(i), 1, other);
			assert_memory_equal(got, isa_rounds(mzm_isa_name(i)) ? want : exact, 99 * sizeof *got);
			free(got);
		}
		if (isa_rounds(NULL)) /* only what meets bf16 is rounded */
			assert_int_equal(memcmp(want, exact, 99 * sizeof *want) == 0, d != 2);
		free(exact);
		free(want);
		unlink(out);
		tiny_free(m);
	}
}

/* ---- the demo model: the same text in every mode ---- */

static mzm_gen_result generate(mzm_model *model, int threads, mzm_mode mode, const char *prompt, int max_tokens,
			       int32_t *ids)
{
	mzm_err err = {0};
	mzm_session *session;
	mzm_session_params sp = mzm_session_params_default();
	mzm_gen_params p = mzm_gen_params_default();
	mzm_gen_result r;
	sp.n_threads = threads;
	p.mode = mode;
	p.max_tokens = max_tokens;
	if (mzm_session_create(&session, model, &sp, &err) != MZM_OK ||
	    mzm_generate_text(session, prompt, &p, &r, &err) != MZM_OK)
		fail_msg("%s", err.message);
	memcpy(ids, r.tokens, (size_t)r.n_tokens * sizeof *ids);
	mzm_session_free(session);
	return r;
}

/* The first max_tokens tokens of one answer in each mode; the first call says what they are, for tables that round
 * activations and for those that do not. */
static void expect_same_text(const char *path, const char *isa, int threads, int max_tokens)
{
	static int32_t all_want[2][4][256], all_n_want[2][4];
	int32_t(*want)[256] = all_want[isa_rounds(isa)], *n_want = all_n_want[isa_rounds(isa)];
	mzm_err err = {0};
	mzm_model *model;
	mzm_model_params mp = mzm_model_params_default();
	char *prompt = demo_prompt(110);
	mp.isa = isa;
	if (mzm_model_open(&model, path, &mp, &err) != MZM_OK)
		fail_msg("%s", err.message);
	for (int mode = 0; mode < 4; mode++) {
		int32_t ids[256];
		mzm_gen_result r = generate(model, threads, (mzm_mode)mode, prompt, max_tokens, ids);
		if (n_want[mode] == 0) {
			n_want[mode] = r.n_tokens;
			memcpy(want[mode], ids, sizeof ids);
		}
		assert_int_equal(r.n_tokens, n_want[mode] < max_tokens ? n_want[mode] : max_tokens);
		assert_memory_equal(ids, want[mode], (size_t)r.n_tokens * sizeof *ids);
	}
	free(prompt);
	mzm_model_close(model);
}

static void test_demo_forms(void **state)
{
	(void)state;
	char out[] = "/tmp/mirzam-form-XXXXXX", target[64];
	bool is_short = getenv("MIRZAM_SHORT");
	int whole = is_short ? 40 : 200, part = is_short ? 6 : 24; /* tokens: plain C takes its time */
	expect_same_text(DEMO_MODEL, NULL, 1, whole);
	expect_same_text(DEMO_MODEL, NULL, 2, whole);
	expect_same_text(DEMO_MODEL, isa_exact(), 1, whole);
	for (int i = 0; mzm_isa_name(i); i++)
		expect_same_text(DEMO_MODEL, mzm_isa_name(i), 1, part);
	assert_non_null(mkdtemp(out));
	snprintf(target, sizeof target, "%s/raw.mzm", out);
	mzm_import_params ip = mzm_import_params_default();
	ip.zstd = 0;
	assert_int_equal(mzm_import(DEMO_MODEL, target, &ip, NULL), MZM_OK); /* container to container, uncompressed */
	expect_same_text(target, NULL, 1, whole);
	unlink(target);
	rmdir(out);
	const char *dir = getenv("MIRZAM_SHARED");
	char path[512];
	snprintf(path, sizeof path, "%s/models/gsmini-6m", dir ? dir : "");
	if (!dir || access(path, R_OK) != 0)
		print_message("the directory form of the demo model is absent (MIRZAM_SHARED/models/gsmini-6m): not "
			      "compared\n");
	else
		expect_same_text(path, NULL, 1, whole);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_tiny_forms), cmocka_unit_test(test_demo_forms)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
