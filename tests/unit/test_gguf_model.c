/* test_gguf_model.c - a whole model in GGUF files of another program's making, against the Hugging Face form of the
 * same model, and against what double-precision arithmetic makes of each file's weights. The files lie outside the
 * repository: MIRZAM_SHARED names the folder, else these tests skip.
 *
 * Rows of blocks meet activations that are rounded to 8 bits, so for the quantised files logits have a wider tolerance
 * (the folder's README allows 0.6), and greedy ids may part where two logits are close. */
#include <jansson.h>
#include <math.h>
#include <time.h>

#include "gguf_build.h"
#include "isa.h"

#include "base/mem.h"
#include "format/source.h"
#include "mirzam.h"

static const char folder[] = "models/stories260K-gguf";

static char *read_tensor(mzm_source *src, int32_t i)
{
	mzm_err err = {0};
	mzm_tensor t = mzm_source_tensor(src, i);
	char *data = malloc(mzm_tensor_bytes(&t));
	assert_non_null(data);
	if (mzm_source_read(src, i, data, &err) != MZM_OK)
		fail_msg("%s", err.message);
	return data;
}

static void test_same_as_directory(void **state)
{
	(void)state;
	char a_path[512], b_path[512], file[128];
	mzm_source *a, *b;
	mzm_err err = {0};
	snprintf(file, sizeof file, "%s/stories260K-F32.gguf", folder);
	if (!testing_shared(file, a_path) || !testing_shared("models/stories260K", b_path))
		skip();
	if (mzm_source_open(&a, a_path, &err) != MZM_OK || mzm_source_open(&b, b_path, &err) != MZM_OK)
		fail_msg("%s", err.message);
	const mzm_config *c = mzm_source_config(a), *d = mzm_source_config(b);
	assert_true(c->n_layers == d->n_layers && c->dim == d->dim && c->n_ffn == d->n_ffn);
	assert_true(c->n_heads == d->n_heads && c->n_kv_heads == d->n_kv_heads && c->head_dim == d->head_dim);
	assert_true(c->n_vocab == d->n_vocab && c->n_ctx == d->n_ctx && c->tied == d->tied && c->rope == d->rope);
	assert_true(c->norm_eps == d->norm_eps && c->rope_theta == d->rope_theta && c->bos_id == d->bos_id);
	assert_int_equal(mzm_source_n_tensors(a), mzm_source_n_tensors(b));
	for (int32_t i = 0; i < mzm_source_n_tensors(a); i++) {
		mzm_tensor s = mzm_source_tensor(a, i), t = mzm_source_tensor(b, i);
		assert_true(s.dtype == MZM_F32 && t.dtype == MZM_F32);
		assert_int_equal(mzm_tensor_bytes(&s), mzm_tensor_bytes(&t));
		char *x = read_tensor(a, i), *y = read_tensor(b, i);
		assert_memory_equal(x, y, mzm_tensor_bytes(&s));
		free(x);
		free(y);
	}
	print_message("%d tensors equal the directory's bit for bit\n", (int)mzm_source_n_tensors(a));
	mzm_source_close(a);
	mzm_source_close(b);
}

typedef struct bench {
	mzm_model   *model;
	mzm_session *session;
	float       *logits;
	double       worst;          /* difference of a logit */
	int32_t      n_agreed, n_steps; /* greedy ids until the first that differs, and all */
} bench;

static void open_bench(bench *b, const char *path)
{
	mzm_err err = {0};
	mzm_model_params mp = mzm_model_params_default();
	mzm_session_params sp = mzm_session_params_default();
	*b = (bench){0};
	sp.n_threads = 1;
	sp.kv_type = "f32";
	mp.isa = isa_exact();
	if (mzm_model_open(&b->model, path, &mp, &err) != MZM_OK ||
	    mzm_session_create(&b->session, b->model, &sp, &err) != MZM_OK)
		fail_msg("%s", err.message);
	b->logits = malloc((size_t)mzm_model_get_info(b->model)->n_vocab * sizeof *b->logits);
}

static int32_t *ids_of(const json_t *list, int32_t *n)
{
	*n = (int32_t)json_array_size(list);
	int32_t *ids = malloc(((size_t)*n + 1) * sizeof *ids);
	for (int32_t i = 0; i < *n; i++)
		ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
	return ids;
}

/* The five best logits at some steps along the ids that the file's weights lead to. */
static void compare_logits(bench *b, const json_t *top5, const int32_t *prompt, int32_t n, const int32_t *greedy)
{
	for (size_t i = 0; i < json_array_size(top5); i++) {
		json_t *at = json_array_get(top5, i), *pairs = json_object_get(at, "logits");
		int32_t step = (int32_t)json_integer_value(json_object_get(at, "step"));
		mzm_session_truncate(b->session, 0);
		assert_int_equal(mzm_session_forward(b->session, b->logits, prompt, n, 1, NULL), MZM_OK);
		if (step > 0)
			assert_int_equal(mzm_session_forward(b->session, b->logits, greedy, step, 1, NULL), MZM_OK);
		assert_int_equal(json_array_size(pairs), 5);
		for (size_t k = 0; k < 5; k++) {
			json_t *pair = json_array_get(pairs, k);
			size_t id = (size_t)json_integer_value(json_array_get(pair, 0));
			double d = fabs((double)b->logits[id] - json_number_value(json_array_get(pair, 1)));
			b->worst = d > b->worst ? d : b->worst;
		}
	}
}

/* Greedy ids by single steps: the files' ids go on behind an end of the text. */
static int32_t n_same_greedy(bench *b, const int32_t *prompt, int32_t n, const int32_t *greedy, int32_t n_greedy)
{
	int32_t n_vocab = mzm_model_get_info(b->model)->n_vocab;
	mzm_session_truncate(b->session, 0);
	assert_int_equal(mzm_session_forward(b->session, b->logits, prompt, n, 1, NULL), MZM_OK);
	for (int32_t i = 0; i < n_greedy; i++) {
		int32_t best = 0;
		for (int32_t v = 1; v < n_vocab; v++)
			best = b->logits[v] > b->logits[best] ? v : best;
		if (best != greedy[i])
			return i;
		assert_int_equal(mzm_session_forward(b->session, b->logits, &best, 1, 1, NULL), MZM_OK);
	}
	return n_greedy;
}

static void compare_prompt(bench *b, const json_t *o)
{
	int32_t n_prompt, n_greedy;
	int32_t *prompt = ids_of(json_object_get(o, "prompt_ids"), &n_prompt), *ids;
	int32_t *greedy = ids_of(json_object_get(o, "greedy_ids"), &n_greedy);
	const char *text = json_string_value(json_object_get(o, "prompt"));
	size_t n_ids;
	assert_int_equal(mzm_tokenize(mzm_model_tokenizer(b->model), text, strlen(text), MZM_TOK_ADD_SPECIAL, &ids,
				      &n_ids, NULL),
			 MZM_OK);
	assert_int_equal(n_ids, n_prompt);
	assert_memory_equal(ids, prompt, n_ids * sizeof *ids);
	mzm_ids_free(ids);
	compare_logits(b, json_object_get(o, "top5"), prompt, n_prompt, greedy);
	b->n_agreed += n_same_greedy(b, prompt, n_prompt, greedy, n_greedy);
	b->n_steps += n_greedy;
	free(prompt);
	free(greedy);
}

/* tolerance: of logits; min_agreed: share of greedy ids. */
static void compare_file(const char *name, const char *dtype, double tolerance, double min_agreed)
{
	char path[512], expected[512], file[128];
	bench b;
	snprintf(file, sizeof file, "%s/expected.json", folder);
	assert_non_null(testing_shared(file, expected));
	snprintf(file, sizeof file, "%s/%s", folder, name);
	assert_non_null(testing_shared(file, path));
	json_t *all = json_load_file(expected, 0, NULL);
	json_t *prompts = json_object_get(json_object_get(json_object_get(all, "files"), name), "prompts");
	assert_true(json_array_size(prompts) == 5);
	open_bench(&b, path);
	assert_string_equal(mzm_model_get_info(b.model)->dtype, dtype);
	for (size_t i = 0; i < json_array_size(prompts); i++)
		compare_prompt(&b, json_array_get(prompts, i));
	print_message("%s: largest difference of a logit %.1e, %d of %d greedy ids before a difference\n", name,
		      b.worst, (int)b.n_agreed, (int)b.n_steps);
	assert_true(b.worst < tolerance);
	assert_true(b.n_agreed >= min_agreed * b.n_steps);
	free(b.logits);
	mzm_session_free(b.session);
	mzm_model_close(b.model);
	json_decref(all);
}

static void test_expected(void **state)
{
	(void)state;
	char path[512];
	if (!testing_shared(folder, path))
		skip();
	compare_file("stories260K-F32.gguf", "f32", 1e-3, 1);
	compare_file("stories260K-F16.gguf", "f16", 1e-3, 1);
	compare_file("stories260K-Q8_0.gguf", "q8", 0.3, 0.5);
	compare_file("stories260K-Q4_0.gguf", "q4", 0.3, 0.1);
}

/* The divergence of a file from the directory it was made of, over the ids that the directory leads to. */
static double divergence_of(const bench *reference, const char *name, const json_t *prompts)
{
	char path[512], file[128];
	mzm_quality *q;
	mzm_quality_result result;
	bench b;
	snprintf(file, sizeof file, "%s/%s", folder, name);
	assert_non_null(testing_shared(file, path));
	open_bench(&b, path);
	assert_int_equal(mzm_quality_create(&q, b.model, reference->model, NULL, NULL), MZM_OK);
	for (size_t i = 0; i < json_array_size(prompts); i++) {
		const json_t *o = json_array_get(prompts, i);
		int32_t n_prompt, n_greedy;
		int32_t *prompt = ids_of(json_object_get(o, "prompt_ids"), &n_prompt);
		int32_t *greedy = ids_of(json_object_get(o, "greedy_ids"), &n_greedy);
		int32_t *ids = malloc(((size_t)n_prompt + (size_t)n_greedy) * sizeof *ids);
		memcpy(ids, prompt, (size_t)n_prompt * sizeof *ids);
		memcpy(ids + n_prompt, greedy, (size_t)n_greedy * sizeof *ids);
		assert_int_equal(mzm_quality_add(q, ids, (size_t)n_prompt + (size_t)n_greedy, NULL), MZM_OK);
		free(prompt);
		free(greedy);
		free(ids);
	}
	assert_int_equal(mzm_quality_result_get(q, &result, NULL), MZM_OK);
	print_message("%s: divergence %.2e nats a token, %.1f %% the same most likely one\n", name, result.kld_mean,
		      100 * result.top1);
	mzm_quality_free(q);
	free(b.logits);
	mzm_session_free(b.session);
	mzm_model_close(b.model);
	return result.kld_mean;
}

/* Bounds are three times what was measured. */
static void test_divergence(void **state)
{
	(void)state;
	char dir[512], expected[512];
	bench reference;
	if (!testing_shared("models/stories260K", dir) || !testing_shared("models/stories260K/expected.json", expected))
		skip();
	json_t *all = json_load_file(expected, 0, NULL), *prompts = json_object_get(all, "prompts");
	assert_true(json_array_size(prompts) > 0);
	open_bench(&reference, dir);
	assert_true(divergence_of(&reference, "stories260K-F32.gguf", prompts) == 0);
	assert_true(divergence_of(&reference, "stories260K-F16.gguf", prompts) < 2e-5);
	assert_true(divergence_of(&reference, "stories260K-Q8_0.gguf", prompts) < 3e-3);
	assert_true(divergence_of(&reference, "stories260K-Q4_0.gguf", prompts) < 0.2);
	free(reference.logits);
	mzm_session_free(reference.session);
	mzm_model_close(reference.model);
	json_decref(all);
}

/* A container of such a file is the same model. */
static void test_import(void **state)
{
	(void)state;
	char path[512], file[128], dir[256], to[300];
	mzm_err err = {0};
	snprintf(file, sizeof file, "%s/stories260K-Q4_0.gguf", folder);
	if (!testing_shared(file, path))
		skip();
	testing_temp_dir(dir);
	snprintf(to, sizeof to, "%s/m.mzm", dir);
	mzm_import_params params = mzm_import_params_default();
	if (mzm_import(path, to, &params, &err) != MZM_OK)
		fail_msg("%s", err.message);
	mzm_source *a, *b;
	assert_int_equal(mzm_source_open(&a, path, NULL), MZM_OK);
	assert_int_equal(mzm_source_open(&b, to, NULL), MZM_OK);
	for (int32_t i = 0; i < mzm_source_n_tensors(a); i++) {
		mzm_tensor s = mzm_source_tensor(a, i), t = mzm_source_tensor(b, i);
		assert_int_equal(s.dtype, t.dtype);
		char *x = read_tensor(a, i), *y = read_tensor(b, i);
		assert_memory_equal(x, y, mzm_tensor_bytes(&s));
		free(x);
		free(y);
	}
	assert_string_equal(mzm_source_hash(a), mzm_source_hash(b));
	mzm_source_close(a);
	mzm_source_close(b);
	testing_remove(dir);
}

/* ---- a large vocabulary ---- */

/* Llama 3's, as a converter writes it: tokens by id, types, merges with a blank between. Returns how many tokens. */
static uint64_t add_vocabulary(gb *g, const json_t *tokenizer)
{
	const json_t *model = json_object_get(tokenizer, "model"), *merges = json_object_get(model, "merges");
	const json_t *added = json_object_get(tokenizer, "added_tokens"), *entry;
	json_t *vocab = json_object_get(model, "vocab"), *id;
	const char *text;
	size_t i;
	uint64_t n = json_object_size(vocab) + json_array_size(added);
	const char **tokens = calloc(n, sizeof *tokens);
	json_object_foreach(vocab, text, id)
		tokens[json_integer_value(id)] = text;
	json_array_foreach(added, i, entry)
		tokens[json_integer_value(json_object_get(entry, "id"))] =
			json_string_value(json_object_get(entry, "content"));
	gb_string(g, "tokenizer.ggml.model", "gpt2");
	gb_string(g, "tokenizer.ggml.pre", "llama-bpe");
	gb_int(g, "tokenizer.ggml.bos_token_id", 128000);
	gb_key(g, "tokenizer.ggml.tokens", 9);
	gb_u32(&g->meta, 8);
	gb_u64(&g->meta, n);
	for (i = 0; i < n; i++)
		gb_text(&g->meta, tokens[i]);
	gb_key(g, "tokenizer.ggml.token_type", 9);
	gb_u32(&g->meta, 5);
	gb_u64(&g->meta, n);
	for (i = 0; i < n; i++)
		gb_u32(&g->meta, i < json_object_size(vocab) ? 1 : 3);
	gb_key(g, "tokenizer.ggml.merges", 9);
	gb_u32(&g->meta, 8);
	gb_u64(&g->meta, json_array_size(merges));
	json_array_foreach(merges, i, entry)
		gb_text(&g->meta, json_string_value(entry));
	free(tokens);
	return n;
}

static double seconds(clockid_t clock)
{
	struct timespec ts;
	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* A model of 128,256 tokens: the time of one thread that opens it, with its tokenizer. */
static void test_load_time(void **state)
{
	(void)state;
	char tokenizer[512], dir[256], path[300];
	gb g;
	mzm_model *model;
	mzm_err err = {0};
	mzm_model_params params = mzm_model_params_default();
	if (!testing_shared("tokenizers/llama3/tokenizer.json", tokenizer))
		skip();
	json_t *root = json_load_file(tokenizer, 0, NULL);
	assert_non_null(root);
	gb_model(&g, 1, 8);
	uint64_t n = add_vocabulary(&g, root);
	gb_tensor *embed = gb_find(&g, "token_embd.weight");
	embed->dims[1] = n;
	embed->bytes = n * 8 * 2;
	embed->data = realloc(embed->data, embed->bytes);
	gb_random(&g, embed);
	gb_bytes b = gb_file(&g);
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/m.gguf", dir);
	testing_write(path, b.p, b.n);
	params.isa = isa_exact();
	double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
	if (mzm_model_open(&model, path, &params, &err) != MZM_OK)
		fail_msg("%s", err.message);
	wall = seconds(CLOCK_MONOTONIC) - wall;
	cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
	print_message("%d tokens: open in %.0f ms (%.0f ms of one core)\n", (int)n, 1e3 * wall, 1e3 * cpu);
	assert_int_equal(mzm_model_get_info(model)->n_vocab, n);
	assert_true(cpu < 1 || getenv("MIRZAM_SHORT"));
	mzm_model_close(model);
	json_decref(root);
	free(b.p);
	gb_free(&g);
	testing_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_as_directory),
		cmocka_unit_test(test_expected),
		cmocka_unit_test(test_divergence),
		cmocka_unit_test(test_import),
		cmocka_unit_test(test_load_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
