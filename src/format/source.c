/* source.c - see source.h.
 *
 * Owns what all sources share: dispatch, the refusal of NaN and infinity, the hash, verification and the
 * description. Where bytes come from is the business of hf.c, gguf_source.c and mzm.c. */
#include "format/source.h"

#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/io.h"
#include "base/str.h"
#include "format/gguf_source.h"
#include "format/mzm.h"
#include "kern/quant.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little endian and read in place");
_Static_assert(MZM_ACT_SILU == 0 && MZM_ACT_RELU == 1 && MZM_ACT_GELU == 2 && MZM_ACT_GELU_TANH == 3 &&
		       MZM_ACT_FATRELU == 4 && MZM_ROPE_PLAIN == 0 && MZM_ROPE_LLAMA3 == 1 && MZM_ROPE_LINEAR == 2 &&
		       MZM_ROPE_LONG == 3 && MZM_ROPE_NONE == 4 && MZM_NORM_LAYER == 1 && MZM_PARALLEL == 1 &&
		       MZM_PARALLEL_SHARED == 2,
	       "numbers of the hash");

/* ---- hash ---- */

struct mzm_hasher {
	XXH3_state_t state;
};

static uint64_t double_bits(double d)
{
	uint64_t u;
	memcpy(&u, &d, 8);
	return u;
}

static void long_rope_text(mzm_str *s, const mzm_config *c)
{
	mzm_str_printf(s, " %d %016llx", (int)c->rope_orig_ctx, (unsigned long long)double_bits(c->rope_attn_factor));
	for (int32_t i = 0; i < mzm_config_rope_dim(c) / 2; i++)
		mzm_str_printf(s, " %016llx %016llx", (unsigned long long)double_bits((double)c->rope_short[i]),
			       (unsigned long long)double_bits((double)c->rope_long[i]));
}

/* What not all models have: a line where there is something, so that the hashes of those without stay. */
static void features_text(mzm_str *s, const mzm_config *c)
{
	const double reals[] = {(double)c->act_threshold, c->embed_scale,   c->attn_scale,
				c->attn_softcap,	  c->logit_softcap, c->rope_local_theta};
	if (c->norm || c->parallel || c->ungated || c->bias_qkv || c->bias_o || c->bias_ffn || c->qk_norm ||
	    c->post_norm || c->learned_pos)
		mzm_str_printf(s, "blocks %d %d %d %d %d %d %d %d %d\n", (int)c->norm, (int)c->parallel,
			       (int)c->ungated, (int)c->bias_qkv, (int)c->bias_o, (int)c->bias_ffn, (int)c->qk_norm,
			       (int)c->post_norm, (int)c->learned_pos);
	if (c->attn_by_input)
		mzm_str_puts(s, "attn_by_input\n");
	if (mzm_config_is_linear(c))
		mzm_str_printf(s, "attention %d %d %d\n", (int)c->attn, (int)c->decay_len, (int)c->no_denominator);
	if (c->rope_dim)
		mzm_str_printf(s, "rope_dim %d\n", (int)c->rope_dim);
	for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++)
		if (reals[i] != 0)
			mzm_str_printf(s, "real %zu %016llx\n", i, (unsigned long long)double_bits(reals[i]));
	if (c->window == 0)
		return;
	mzm_str_printf(s, "window %d ", (int)c->window);
	for (int32_t l = 0; l < c->n_layers; l++)
		mzm_str_puts(s, mzm_config_is_local(c, l) ? "l" : "g");
	mzm_str_puts(s, "\n");
}

/* Fixed text, so that no JSON library decides over the hash. FORMAT.md describes it. */
static void config_text(mzm_str *s, const mzm_config *c)
{
	mzm_str_printf(s, "mirzam model 1\narch %s\n", c->arch);
	mzm_str_printf(s, "shape %d %d %d %d %d %d %d %d\n", (int)c->n_layers, (int)c->dim, (int)c->n_ffn,
		       (int)c->n_heads, (int)c->n_kv_heads, (int)c->head_dim, (int)c->n_vocab, (int)c->n_ctx);
	mzm_str_printf(s, "act %d\ntied %d\nnorm_eps %016llx\n", (int)c->act, (int)c->tied,
		       (unsigned long long)double_bits((double)c->norm_eps));
	mzm_str_printf(s, "rope %d %016llx", (int)c->rope, (unsigned long long)double_bits(c->rope_theta));
	if (c->rope == MZM_ROPE_LLAMA3)
		mzm_str_printf(s, " %016llx %016llx %016llx %d", (unsigned long long)double_bits(c->rope_factor),
			       (unsigned long long)double_bits(c->rope_low_freq),
			       (unsigned long long)double_bits(c->rope_high_freq), (int)c->rope_orig_ctx);
	if (c->rope == MZM_ROPE_LINEAR)
		mzm_str_printf(s, " %016llx", (unsigned long long)double_bits(c->rope_factor));
	if (c->rope == MZM_ROPE_LONG)
		long_rope_text(s, c);
	mzm_str_printf(s, "\nbos %d\neos", (int)c->bos_id);
	for (int32_t i = 0; i < c->n_eos; i++)
		mzm_str_printf(s, " %d", (int)c->eos_ids[i]);
	mzm_str_puts(s, "\n");
	features_text(s, c);
}

mzm_status mzm_hasher_create(mzm_hasher **out, const mzm_config *cfg, mzm_err *err)
{
	mzm_str text = {0};
	config_text(&text, cfg);
	*out = mzm_alloc(sizeof **out);
	if (!*out || text.failed) {
		mzm_free(*out);
		*out = NULL;
		mzm_str_free(&text);
		return mzm_fail(err, MZM_ENOMEM, "out of memory: hash");
	}
	XXH3_INITSTATE(&(*out)->state);
	(void)XXH3_128bits_reset(&(*out)->state);
	(void)XXH3_128bits_update(&(*out)->state, text.data, text.len);
	mzm_str_free(&text);
	return MZM_OK;
}

void mzm_hasher_add(mzm_hasher *h, const mzm_tensor *t, const void *data)
{
	char name[64], line[128];
	int n = snprintf(line, sizeof line, "%s %s %d %d\n", mzm_tensor_name(t, name), mzm_dtype_name(t->dtype),
			 (int)t->n_rows, (int)t->n_cols);
	(void)XXH3_128bits_update(&h->state, line, (size_t)n);
	(void)XXH3_128bits_update(&h->state, data, mzm_tensor_bytes(t));
}

void mzm_hasher_finish(const mzm_hasher *h, char hex[33])
{
	XXH128_canonical_t bytes;
	XXH128_canonicalFromHash(&bytes, XXH3_128bits_digest(&h->state));
	for (int i = 0; i < 16; i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes.digest[i]);
}

void mzm_hasher_free(mzm_hasher *h)
{
	mzm_free(h);
}

/* ---- opening ---- */

mzm_status mzm_source_init(mzm_source **out, size_t n_bytes, const mzm_source_ops *ops, const char *path, mzm_err *err)
{
	mzm_source *src;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&src, n_bytes, path, err));
	if (pthread_mutex_init(&src->lock, NULL) != 0) {
		mzm_free(src);
		return mzm_fail(err, MZM_ENOMEM, "%s: out of memory: lock", path);
	}
	src->ops = ops;
	src->path = mzm_strdup(path);
	*out = src; /* close undoes the rest */
	return src->path ? MZM_OK : mzm_fail(err, MZM_ENOMEM, "%s: out of memory", path);
}

mzm_status mzm_source_set_config(mzm_source *src, const mzm_config *cfg, mzm_err *err)
{
	int32_t n = mzm_tensor_count(cfg);
	src->cfg = *cfg;
	MZM_TRY(mzm_alloc_for((void **)&src->tensors, (size_t)n * sizeof src->tensors[0], "the tensor table", err));
	for (int32_t i = 0; i < n; i++)
		src->tensors[i] = mzm_tensor_at(cfg, i);
	src->n_tensors = n;
	return MZM_OK;
}

mzm_status mzm_source_add_draft(mzm_source *src, mzm_err *err)
{
	int32_t n = src->n_tensors, n_draft = mzm_draft_count(&src->cfg);
	size_t old_bytes = (size_t)n * sizeof src->tensors[0];
	mzm_tensor *grown = mzm_realloc(src->tensors, old_bytes, old_bytes + (size_t)n_draft * sizeof src->tensors[0]);
	if (!grown)
		return mzm_fail(err, MZM_ENOMEM, "out of memory: the tensor table");
	for (int32_t i = 0; i < n_draft; i++)
		grown[n + i] = mzm_draft_at(&src->cfg, i);
	src->tensors = grown;
	src->n_tensors = n + n_draft;
	return MZM_OK;
}

static mzm_status begins_as_gguf(bool *is, const char *path, mzm_err *err)
{
	char magic[4] = {0};
	mzm_file *f;
	MZM_TRY(mzm_file_open(&f, path, err));
	size_t n = mzm_file_size(f) < sizeof magic ? (size_t)mzm_file_size(f) : sizeof magic;
	mzm_status st = mzm_file_read_at(f, magic, n, 0, err);
	*is = memcmp(magic, "GGUF", sizeof magic) == 0;
	mzm_file_close(f);
	return st;
}

mzm_status mzm_source_open(mzm_source **out, const char *path, mzm_err *err)
{
	bool gguf;
	*out = NULL;
	if (mzm_path_is_dir(path))
		return mzm_hf_open(out, path, err);
	MZM_TRY(begins_as_gguf(&gguf, path, err));
	return gguf ? mzm_gguf_source_open(out, path, err) : mzm_container_open(out, path, err);
}

void mzm_source_close(mzm_source *src)
{
	if (!src)
		return;
	src->ops->close(src);
	mzm_hasher_free(src->hasher);
	json_decref(src->origin);
	pthread_mutex_destroy(&src->lock);
	mzm_free(src->tensors);
	mzm_free(src->path);
	mzm_free(src);
}

/* ---- reading ---- */

#define COUNT_NONFINITE(type, mask)                              \
	for (size_t i = 0; i < n; i++) {                         \
		type u;                                          \
		memcpy(&u, bytes + i * sizeof u, sizeof u);      \
		count += (u & (mask)) == (mask);                 \
	}

/* Scales of quantised rows that are NaN or infinite, times the weights of a block. */
static size_t count_nonfinite_quant(const mzm_tensor *t, const char *rows)
{
	size_t n = (size_t)t->n_cols / MZM_Q_BLOCK, step = mzm_row_bytes(t->dtype, t->n_cols), count = 0;
	for (int32_t r = 0; r < t->n_rows; r++) {
		const char *bytes = rows + (size_t)r * step + mzm_quant_bytes(t->dtype, t->n_cols);
		COUNT_NONFINITE(uint16_t, 0x7c00u)
	}
	return count * MZM_Q_BLOCK;
}

static size_t count_nonfinite(const mzm_tensor *t, const void *data)
{
	const char *bytes = data;
	size_t n = (size_t)t->n_rows * (size_t)t->n_cols, count = 0;
	if (mzm_dtype_is_quant(t->dtype))
		return count_nonfinite_quant(t, data);
	switch (t->dtype) {
	case MZM_F32:
		COUNT_NONFINITE(uint32_t, 0x7f800000u)
		break;
	case MZM_F16:
		COUNT_NONFINITE(uint16_t, 0x7c00u)
		break;
	default:
		COUNT_NONFINITE(uint16_t, 0x7f80u)
		break;
	}
	return count;
}

/* What pads a quantised row to whole cache lines is zero, so that equal weights are equal bytes. */
static mzm_status check_row_padding(const mzm_source *src, const mzm_tensor *t, const char *rows, mzm_err *err)
{
	char name[64];
	size_t step = mzm_row_bytes(t->dtype, t->n_cols);
	size_t used = mzm_quant_bytes(t->dtype, t->n_cols) + (size_t)t->n_cols / MZM_Q_BLOCK * sizeof(uint16_t);
	for (int32_t r = 0; mzm_dtype_is_quant(t->dtype) && r < t->n_rows; r++)
		for (size_t i = used; i < step; i++)
			if (rows[(size_t)r * step + i])
				return mzm_fail(err, MZM_EFORMAT, "%s: tensor %s: padding of row %d is not zero",
						src->path, mzm_tensor_name(t, name), (int)r);
	return MZM_OK;
}

/* Feeds the hash of a directory while tensors come in order. */
static void hash_in_order(mzm_source *src, int32_t i, const void *data)
{
	pthread_mutex_lock(&src->lock);
	if (src->hasher && i == src->n_hashed) {
		mzm_hasher_add(src->hasher, &src->tensors[i], data);
		if (++src->n_hashed == src->n_tensors) {
			mzm_hasher_finish(src->hasher, src->hash);
			atomic_store(&src->has_hash, true);
		}
	}
	pthread_mutex_unlock(&src->lock);
}

mzm_status mzm_source_check_rows(const mzm_source *src, const mzm_tensor *t, const void *rows, mzm_err *err)
{
	char name[64];
	MZM_TRY(check_row_padding(src, t, rows, err));
	size_t n_bad = src->allow_nonfinite ? 0 : count_nonfinite(t, rows);
	return n_bad == 0 ? MZM_OK
			  : mzm_fail(err, MZM_EFORMAT, "%s: tensor %s: %zu weights are NaN or infinite", src->path,
				     mzm_tensor_name(t, name), n_bad);
}

mzm_status mzm_source_read(mzm_source *src, int32_t i, void *dst, mzm_err *err)
{
	if (i < 0 || i >= src->n_tensors)
		return mzm_fail(err, MZM_EARG, "%s: no tensor %d", src->path, (int)i);
	const mzm_tensor *t = &src->tensors[i];
	MZM_TRY(src->ops->read(src, i, dst, err));
	MZM_TRY(mzm_source_check_rows(src, t, dst, err));
	if (!atomic_load(&src->has_hash))
		hash_in_order(src, i, dst);
	return MZM_OK;
}

mzm_dtype mzm_source_type_for(const mzm_source *src, int32_t i, mzm_dtype wanted)
{
	return src->ops->type_for ? src->ops->type_for(src, i, wanted) : src->tensors[i].dtype;
}

mzm_status mzm_source_read_as(mzm_source *src, int32_t i, mzm_dtype dtype, void *dst, mzm_err *err)
{
	if (i < 0 || i >= src->n_tensors || (dtype != src->tensors[i].dtype && !src->ops->read_as))
		return mzm_fail(err, MZM_EARG, "%s: no tensor %d as %s", src->path, (int)i, mzm_dtype_name(dtype));
	mzm_tensor t = src->tensors[i];
	if (dtype == t.dtype)
		return mzm_source_read(src, i, dst, err);
	t.dtype = dtype;
	MZM_TRY(src->ops->read_as(src, i, dtype, dst, err));
	return mzm_source_check_rows(src, &t, dst, err);
}

void mzm_source_avoid_cache(mzm_source *src)
{
	if (src->ops->avoid_cache)
		src->ops->avoid_cache(src);
}

void mzm_source_allow_nonfinite(mzm_source *src, bool allow)
{
	src->allow_nonfinite = allow;
}

const mzm_config *mzm_source_config(const mzm_source *src)
{
	return &src->cfg;
}

mzm_tensor mzm_source_tensor(const mzm_source *src, int32_t i)
{
	return src->tensors[i];
}

int32_t mzm_source_n_tensors(const mzm_source *src)
{
	return src->n_tensors;
}

bool mzm_source_has_draft(const mzm_source *src)
{
	return src->n_tensors > mzm_tensor_count(&src->cfg);
}

const char *mzm_source_format(const mzm_source *src)
{
	return src->ops->format;
}

const char *mzm_source_hash(const mzm_source *src)
{
	return atomic_load(&((mzm_source *)(uintptr_t)src)->has_hash) ? src->hash : NULL;
}

const char *mzm_source_draft_hash(const mzm_source *src)
{
	return src->draft_hash[0] ? src->draft_hash : NULL;
}

uint64_t mzm_source_bytes_read(const mzm_source *src)
{
	return src->ops->bytes_read(src);
}

bool mzm_source_uses(const mzm_source *src, const char *path)
{
	return src->ops->uses(src, path);
}

/* ---- origin ---- */

mzm_status mzm_source_set_origin(mzm_source *src, json_t *origin, mzm_err *err)
{
	const char *kind;
	int64_t factor = 0;
	if (!origin || json_is_null(origin))
		return MZM_OK;
	if (!json_is_object(origin))
		return mzm_fail(err, MZM_EFORMAT, "\"origin\" is not a JSON object");
	MZM_TRY(mzm_json_string(origin, "kind", "", &kind, err));
	if (strcmp(kind, "inflated") == 0) {
		MZM_TRY(mzm_json_int(origin, "factor", 1, MZM_MAX_DIM, 0, &factor, err));
		if (factor == 0)
			return mzm_fail(err, MZM_EFORMAT, "\"origin\" is inflated, but \"factor\" is missing");
		MZM_TRY(mzm_json_bool(origin, "synthetic", false, &src->synthetic, err));
	} else if (strcmp(kind, "synthetic") == 0) {
		src->synthetic = true;
	} else {
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"origin\" of an unknown kind");
	}
	json_t *copy = json_deep_copy(origin);
	if (!copy || (factor && json_object_set_new(copy, "factor", json_integer(factor)) != 0)) {
		json_decref(copy);
		return mzm_fail(err, MZM_ENOMEM, "out of memory: origin");
	}
	src->inflated = (int32_t)factor;
	json_decref(src->origin);
	src->origin = copy;
	return MZM_OK;
}

const json_t *mzm_source_origin(const mzm_source *src)
{
	return src->origin;
}

int32_t mzm_source_inflated(const mzm_source *src)
{
	return src->inflated;
}

bool mzm_source_synthetic(const mzm_source *src)
{
	return src->synthetic;
}

/* ---- tokenizer files ---- */

const char *mzm_side_file_name(mzm_side_file which)
{
	static const char *const names[MZM_N_SIDE_FILES] = {
		[MZM_TOKENIZER_JSON] = "tokenizer.json",
		[MZM_TOKENIZER_CONFIG] = "tokenizer_config.json",
		[MZM_GENERATION_CONFIG] = "generation_config.json",
	};
	return names[which];
}

const char *mzm_source_side_file(const mzm_source *src, mzm_side_file which, size_t *len)
{
	*len = src->side_len[which];
	return src->side[which];
}

mzm_status mzm_source_tokenizer(mzm_tokenizer **out, const mzm_source *src, mzm_err *err)
{
	size_t len, config_len;
	const char *json = mzm_source_side_file(src, MZM_TOKENIZER_JSON, &len);
	const char *config = mzm_source_side_file(src, MZM_TOKENIZER_CONFIG, &config_len);
	*out = NULL;
	if (!json)
		return mzm_fail(err, MZM_EFORMAT, "%s: tokenizer.json is missing; a model needs its tokenizer",
				src->path);
	mzm_status st = mzm_tokenizer_parse(out, json, len, config, config_len, "tokenizer.json", err);
	if (st == MZM_OK && mzm_token_count(*out) > src->cfg.n_vocab) {
		st = mzm_fail(err, MZM_EFORMAT, "tokenizer.json has ids up to %d, the embedding only %d rows",
			      (int)mzm_token_count(*out) - 1, (int)src->cfg.n_vocab);
		mzm_tokenizer_close(*out);
		*out = NULL;
	}
	if (st != MZM_OK)
		mzm_err_prefix(err, "%s", src->path);
	return st;
}

/* ---- verification ---- */

/* First byte of the largest tensor's buffer; and the sum of all. */
static mzm_status largest_buffer(void **out, uint64_t *total, const mzm_source *src, mzm_err *err)
{
	size_t most = 0;
	*total = 0;
	for (int32_t i = 0; i < src->n_tensors; i++) {
		size_t n = mzm_tensor_bytes(&src->tensors[i]);
		most = n > most ? n : most;
		*total += n;
	}
	return mzm_alloc_for(out, most, "the largest tensor", err);
}

typedef struct verification {
	mzm_source     *src;
	void           *buf;  /* the largest tensor */
	uint64_t        done, total;
	mzm_progress_fn progress;
	void           *user;
} verification;

/* Tensors [begin, end) and the hash over them, against the one that was stated. */
static mzm_status verify_tensors(verification *v, int32_t begin, int32_t end, const char *what, const char *said,
				 mzm_err *err)
{
	mzm_status st;
	mzm_hasher *h = NULL;
	char hex[33];
	MZM_TRY_OUT(mzm_hasher_create(&h, &v->src->cfg, err));
	for (int32_t i = begin; i < end; i++) {
		MZM_TRY_OUT(mzm_source_read(v->src, i, v->buf, err));
		mzm_hasher_add(h, &v->src->tensors[i], v->buf);
		v->done += mzm_tensor_bytes(&v->src->tensors[i]);
		if (v->progress && v->progress(v->user, "verify", v->done, v->total) != 0)
			MZM_TRY_OUT(mzm_fail(err, MZM_ECANCELLED, "%s: cancelled", v->src->path));
	}
	mzm_hasher_finish(h, hex);
	if (said && strcmp(hex, said) != 0)
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "%s: the %s's hash is %s, but the file says %s", v->src->path,
				     what, hex, said));
out:
	mzm_hasher_free(h);
	return st;
}

mzm_status mzm_source_verify(mzm_source *src, mzm_progress_fn progress, void *user, mzm_err *err)
{
	mzm_status st;
	verification v = {.src = src, .progress = progress, .user = user};
	int32_t n = mzm_tensor_count(&src->cfg);
	MZM_TRY_OUT(largest_buffer(&v.buf, &v.total, src, err));
	MZM_TRY_OUT(verify_tensors(&v, 0, n, "model", mzm_source_hash(src), err));
	if (src->n_tensors > n)
		MZM_TRY_OUT(verify_tensors(&v, n, src->n_tensors, "draft image", mzm_source_draft_hash(src), err));
	if (src->ops->verify)
		MZM_TRY_OUT(src->ops->verify(src, err));
out:
	mzm_free(v.buf);
	return st;
}

/* ---- description ---- */

json_t *mzm_json_text(const char *s)
{
	json_t *v = json_string(s);
	if (v)
		return v;
	char *ascii = mzm_strdup(s);
	if (!ascii)
		return NULL;
	for (char *p = ascii; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			*p = '?';
	v = json_string(ascii);
	mzm_free(ascii);
	return v;
}

static json_t *describe_tensor(const mzm_source *src, int32_t i, mzm_stored where)
{
	char name[64];
	const mzm_tensor *t = &src->tensors[i];
	return json_pack("{s:s, s:s, s:[i,i], s:I, s:I, s:s, s:i}", "name", mzm_tensor_name(t, name), "dtype",
			 mzm_dtype_name(t->dtype), "shape", (int)t->n_rows, (int)t->n_cols, "raw_bytes",
			 (json_int_t)mzm_tensor_bytes(t), "stored_bytes", (json_int_t)where.bytes, "codec", where.codec,
			 "extents", (int)where.n_extents);
}

/* "tensors" and "totals". */
static bool describe_tensors(const mzm_source *src, json_t *out)
{
	json_t *list = json_array();
	uint64_t raw = 0, stored = 0, n_extents = 0;
	if (!list || json_object_set_new(out, "tensors", list) != 0)
		return false;
	for (int32_t i = 0; i < src->n_tensors; i++) {
		mzm_stored where = src->ops->stored(src, i);
		raw += mzm_tensor_bytes(&src->tensors[i]);
		stored += where.bytes;
		n_extents += (uint64_t)where.n_extents;
		if (json_array_append_new(list, describe_tensor(src, i, where)) != 0)
			return false;
	}
	json_t *totals = json_pack("{s:i, s:I, s:I, s:I, s:f}", "tensors", (int)src->n_tensors, "extents",
				   (json_int_t)n_extents, "raw_bytes", (json_int_t)raw, "stored_bytes",
				   (json_int_t)stored, "ratio", raw ? (double)stored / (double)raw : 1.0);
	return json_object_set_new(out, "totals", totals) == 0;
}

mzm_status mzm_source_describe(mzm_source *src, json_t **out, mzm_err *err)
{
	const char *hash = mzm_source_hash(src);
	json_t *o = json_object();
	bool ok = o && json_object_set_new(o, "path", mzm_json_text(src->path)) == 0 &&
		  json_object_set_new(o, "format", json_string(src->ops->format)) == 0 && src->ops->describe(src, o) &&
		  (!src->origin || json_object_set(o, "origin", src->origin) == 0) &&
		  json_object_set_new(o, "config", mzm_config_to_json(&src->cfg)) == 0 &&
		  json_object_set_new(o, "n_params", json_integer((json_int_t)mzm_config_n_params(&src->cfg))) == 0 &&
		  json_object_set_new(o, "hash", hash ? json_string(hash) : json_null()) == 0 &&
		  describe_tensors(src, o);
	*out = ok ? o : NULL;
	if (!ok) {
		json_decref(o);
		return mzm_fail(err, MZM_ENOMEM, "%s: out of memory: description", src->path);
	}
	return MZM_OK;
}
