/* test_gguf_rows.c - which rows of which tensors of a GGUF file the canonical ones are, for all architectures and
 * through all kinds of types; and that the GGUF form of each tiny model in tests/golden is its Hugging Face form, bit
 * for bit. */
#include <math.h>

#include "gguf_rig.h"

#include "format/gguf_types.h"
#include "format/source.h"
#include "kern/quant.h"

static float *read_f32(mzm_source *src, int32_t i)
{
	mzm_err err = {0};
	mzm_tensor t = mzm_source_tensor(src, i);
	size_t n = (size_t)t.n_cols, step = mzm_row_bytes(t.dtype, t.n_cols);
	char *raw = malloc(mzm_tensor_bytes(&t));
	float *x = malloc((size_t)t.n_rows * n * sizeof *x);
	if (mzm_source_read(src, i, raw, &err) != MZM_OK)
		fail_msg("%s", err.message);
	for (size_t r = 0; r < (size_t)t.n_rows; r++)
		if (mzm_dtype_is_quant(t.dtype))
			mzm_dequant_row(x + r * n, raw + r * step, t.dtype, t.n_cols);
		else
			mzm_ggml_to_f32(x + r * n, raw + r * step,
					t.dtype == MZM_F32   ? 0
					: t.dtype == MZM_F16 ? 1
							     : 30,
					n);
	free(raw);
	return x;
}

/* Rows of a tensor of the file as f32; of a vector: elements, as rows of one. */
typedef struct rows {
	float *x; /* all of the tensor */
	size_t n_cols;
} rows;

static rows rows_of(gb *g, int layer, const char *name)
{
	char full[64];
	if (layer < 0)
		snprintf(full, sizeof full, "%s", name);
	else
		snprintf(full, sizeof full, "blk.%d.%s", layer, name);
	gb_tensor *t = gb_find(g, full);
	rows r = {malloc((size_t)(t->dims[0] * t->dims[1]) * sizeof(float)), t->n_dims == 1 ? 1 : (size_t)t->dims[0]};
	mzm_ggml_to_f32(r.x, t->data, t->type, (size_t)(t->dims[0] * t->dims[1]));
	return r;
}

/* The name of the tensor that canonical tensor t of family f lies in, and where it begins there. Sizes: dim 256, two
 * heads. */
static const char *place_of(const gb_family *f, mzm_tensor_kind kind, size_t *first)
{
	size_t dim = 256, kv = f->bias_all ? dim : dim / 2;
	*first = 0;
	switch (kind) {
	case MZM_T_EMBED:
		return "token_embd.weight";
	case MZM_T_HEAD:
		return "output.weight";
	case MZM_T_OUT_NORM:
		return "output_norm.weight";
	case MZM_T_OUT_NORM_BIAS:
		return "output_norm.bias";
	case MZM_T_ATTN_NORM:
		return "attn_norm.weight";
	case MZM_T_ATTN_NORM_BIAS:
		return "attn_norm.bias";
	case MZM_T_FFN_NORM:
		return "ffn_norm.weight";
	case MZM_T_FFN_NORM_BIAS:
		return "ffn_norm.bias";
	case MZM_T_ATTN_POST_NORM:
		return "post_attention_norm.weight";
	case MZM_T_FFN_POST_NORM:
		return "post_ffw_norm.weight";
	case MZM_T_Q_NORM:
		return "attn_q_norm.weight";
	case MZM_T_K_NORM:
		return "attn_k_norm.weight";
	case MZM_T_WO:
		return "attn_output.weight";
	case MZM_T_BO:
		return "attn_output.bias";
	case MZM_T_WQ:
		return f->fused_qkv ? "attn_qkv.weight" : "attn_q.weight";
	case MZM_T_BQ:
		return f->fused_qkv ? "attn_qkv.bias" : "attn_q.bias";
	case MZM_T_WK:
		*first = f->fused_qkv ? dim : 0;
		return f->fused_qkv ? "attn_qkv.weight" : "attn_k.weight";
	case MZM_T_BK:
		*first = f->fused_qkv ? dim : 0;
		return f->fused_qkv ? "attn_qkv.bias" : "attn_k.bias";
	case MZM_T_WV:
		*first = f->fused_qkv ? dim + kv : 0;
		return f->fused_qkv ? "attn_qkv.weight" : "attn_v.weight";
	case MZM_T_BV:
		*first = f->fused_qkv ? dim + kv : 0;
		return f->fused_qkv ? "attn_qkv.bias" : "attn_v.bias";
	case MZM_T_GATE:
		return f->fused_ffn || f->ungated ? "ffn_up.weight" : "ffn_gate.weight";
	case MZM_T_B_GATE:
		return "ffn_up.bias";
	case MZM_T_UPDOWN:
		*first = f->fused_ffn ? 2 * dim : 0;
		return "ffn_up.weight";
	case MZM_T_DOWN:
		return "ffn_down.weight";
	case MZM_T_B_DOWN:
		return "ffn_down.bias";
	default:
		fail_msg("kind %d", kind);
		return NULL;
	}
}

/* Element [r, c] of the canonical tensor, where the file has it. */
static float wanted(const gb_family *f, const mzm_tensor *t, const rows *main, const rows *down, size_t first, size_t r,
		    size_t c)
{
	size_t half = 64;
	bool vector = mzm_tensor_is_vector(t->kind);
	size_t row = vector ? c : r;
	if (t->kind == MZM_T_DOWN || (t->kind == MZM_T_UPDOWN && r % 2 == 1))
		return down->x[c * down->n_cols + (t->kind == MZM_T_DOWN ? r : r / 2)];
	if (t->kind == MZM_T_UPDOWN)
		row = r / 2;
	if (strcmp(f->arch, "llama") == 0 &&
	    (t->kind == MZM_T_WQ || t->kind == MZM_T_WK || t->kind == MZM_T_BQ || t->kind == MZM_T_BK))
		row = row / (2 * half) * (2 * half) + row % half * 2 + row / half % 2;
	return main->x[(first + row) * main->n_cols + (vector ? 0 : c)];
}

static void check_tensor(gb *g, const gb_family *f, mzm_source *src, int32_t i, double tolerance)
{
	mzm_tensor t = mzm_source_tensor(src, i);
	size_t first;
	const char *name = place_of(f, t.kind, &first);
	rows from = rows_of(g, t.layer, name), down = {0};
	double error = 0, norm = 0;
	if (t.kind == MZM_T_UPDOWN || t.kind == MZM_T_DOWN)
		down = rows_of(g, t.layer, "ffn_down.weight");
	float *x = read_f32(src, i);
	for (size_t r = 0; r < (size_t)t.n_rows; r++)
		for (size_t c = 0; c < (size_t)t.n_cols; c++) {
			double w = (double)wanted(f, &t, &from, &down, first, r, c);
			double e = (double)x[r * (size_t)t.n_cols + c] - w;
			error += e * e;
			norm += w * w;
		}
	if (!(sqrt(error / norm) <= tolerance))
		fail_msg("%s %s: error %g, allowed %g", f->arch, name, sqrt(error / norm), tolerance);
	free(x);
	free(from.x);
	free(down.x);
}

/* All tensors of all families: numbers exactly, blocks too where rows of Q8_0 or Q4_0 stay rows, else rounded to q8. */
static void test_tensors(void **state)
{
	(void)state;
	static const uint32_t types[] = {0, 1, 30, 8, 2, 12, 14};
	for (size_t i = 0; i < GB_N_FAMILIES; i++)
		for (size_t k = 0; k < sizeof types / sizeof types[0]; k++) {
			const gb_family *f = &gb_families[i];
			gb g;
			gb_family_model(&g, f, types[k], 256, 2);
			for (int b = 0; b < 3 && i == 0; b++) /* Llama may have biases: q and k interleaved too */
				for (int l = 0; l < 2; l++) {
					static const char *const names[] = {"attn_q", "attn_k", "attn_v"};
					char name[64];
					snprintf(name, sizeof name, "blk.%d.%s.bias", l, names[b]);
					gb_add_tensor(&g, name, 0, b == 0 ? 256 : 128, 0);
				}
			mzm_source *src = open_model(&g);
			for (int32_t t = 0; t < mzm_source_n_tensors(src); t++) {
				mzm_tensor x = mzm_source_tensor(src, t);
				bool moved = x.kind == MZM_T_UPDOWN || x.kind == MZM_T_DOWN;
				bool exact = !mzm_ggml_is_quant(types[k]) || mzm_tensor_is_vector(x.kind) ||
					     ((types[k] == 8 || types[k] == 2) && !moved);
				check_tensor(&g, f, src, t, exact ? 0 : 0.008);
			}
			assert_non_null(mzm_source_hash(src));
			mzm_source_close(src);
			gb_free(&g);
		}
}

/* What the description says of it: all matrices, and what rounding cost, once they were read. */
static void test_conversions(void **state)
{
	(void)state;
	for (size_t i = 0; i < GB_N_FAMILIES; i++) {
		gb g;
		size_t n_matrices = 0;
		gb_family_model(&g, &gb_families[i], 12, 256, 1);
		mzm_source *src = open_model(&g);
		for (int k = 0; k < 2; k++) {
			json_t *o, *list;
			assert_int_equal(mzm_source_describe(src, &o, NULL), MZM_OK);
			list = json_object_get(o, "conversions");
			for (size_t c = 0; c < json_array_size(list); c++) {
				json_t *e = json_array_get(list, c), *error = json_object_get(e, "relative_rms_error");
				assert_string_equal(json_string_value(json_object_get(e, "from")), "Q4_K");
				assert_string_equal(json_string_value(json_object_get(e, "to")), "q8");
				assert_true(k == 0 ? json_is_null(error) : json_real_value(error) > 1e-4);
				assert_true(k == 0 || json_real_value(error) < 0.008);
			}
			assert_true(k == 0 || json_array_size(list) == n_matrices);
			json_decref(o);
			for (int32_t t = 0; k == 0 && t < mzm_source_n_tensors(src); t++) {
				mzm_tensor x = mzm_source_tensor(src, t);
				n_matrices += !mzm_tensor_is_vector(x.kind);
				free(read_f32(src, t));
			}
		}
		mzm_source_close(src);
		gb_free(&g);
	}
}

/* Norms of a layer norm without biases. */
static void test_no_norm_bias(void **state)
{
	(void)state;
	gb g;
	gb_family plain = *gb_family_of("stablelm");
	plain.layer_norm = false;
	gb_family_model(&g, &plain, 0, 8, 1);
	gb_arch_real(&g, "attention.layer_norm_epsilon", 1e-5f);
	mzm_source *src = open_model(&g);
	const mzm_config *c = mzm_source_config(src);
	assert_int_equal(c->norm, MZM_NORM_LAYER);
	float *x = read_f32(src, mzm_tensor_index(c, MZM_T_FFN_NORM_BIAS, 0));
	for (int i = 0; i < 8; i++)
		assert_true(x[i] == 0);
	free(x);
	json_t *o;
	assert_int_equal(mzm_source_describe(src, &o, NULL), MZM_OK);
	json_decref(o);
	mzm_source_close(src);
	gb_free(&g);
}

/* ---- the tiny models ---- */

/* Without the tokens, which those files do not have. */
static char *config_text(const mzm_source *src)
{
	json_t *o = mzm_config_to_json(mzm_source_config(src));
	json_object_del(o, "bos_id");
	json_object_del(o, "eos_ids");
	char *text = json_dumps(o, JSON_SORT_KEYS);
	json_decref(o);
	return text;
}

static void compare_forms(const char *name, const char *gguf_path, const char *hf_path)
{
	mzm_source *a, *b;
	mzm_err err = {0};
	if (mzm_source_open(&a, gguf_path, &err) != MZM_OK || mzm_source_open(&b, hf_path, &err) != MZM_OK)
		fail_msg("%s: %s", name, err.message);
	char *s = config_text(a), *t = config_text(b);
	if (strcmp(s, t) != 0)
		fail_msg("%s:\n%s\n%s", name, s, t);
	free(s);
	free(t);
	assert_int_equal(mzm_source_n_tensors(a), mzm_source_n_tensors(b));
	for (int32_t i = 0; i < mzm_source_n_tensors(a); i++) {
		mzm_tensor x = mzm_source_tensor(a, i), y = mzm_source_tensor(b, i);
		assert_int_equal(x.dtype, y.dtype);
		float *p = read_f32(a, i), *q = read_f32(b, i);
		if (memcmp(p, q, (size_t)x.n_rows * (size_t)x.n_cols * sizeof *p) != 0)
			fail_msg("%s: kind %d of layer %d differs", name, x.kind, (int)x.layer);
		free(p);
		free(q);
	}
	mzm_source_close(a);
	mzm_source_close(b);
}

static void test_golden(void **state)
{
	(void)state;
	static const char root[] = "tests/golden";
	int n = 0;
	DIR *d = opendir(root);
	if (!d) {
		print_message("skipped: %s is missing\n", root);
		skip();
	}
	struct dirent *e;
	while ((e = readdir(d))) {
		char gguf[600], hf[300];
		snprintf(hf, sizeof hf, "%s/%.200s", root, e->d_name);
		snprintf(gguf, sizeof gguf, "%s/%.200s.gguf", hf, e->d_name);
		if (access(gguf, R_OK) != 0)
			continue;
		compare_forms(e->d_name, gguf, hf);
		n++;
	}
	closedir(d);
	print_message("%d models: GGUF and directory are the same, bit for bit\n", n);
	assert_true(n >= 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tensors),
		cmocka_unit_test(test_conversions),
		cmocka_unit_test(test_no_norm_bias),
		cmocka_unit_test(test_golden),
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
