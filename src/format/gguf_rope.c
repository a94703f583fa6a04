/* gguf_rope.c - RoPE of a GGUF model (gguf_arch.h): the base, the rotated part of a head, and how angles are scaled.
 *
 * Files hold the outcome of a scaling, not the numbers it was made of: rope_freqs.weight divides the frequency of each
 * pair (Llama 3.1), rope_factors_long.weight and rope_factors_short.weight do so beyond and within the context that the
 * model was first trained with (Phi-3). The numbers of Llama 3 are found again where they fit; other divisors are taken
 * as they are. */
#include <math.h>
#include <string.h>

#include "format/gguf_arch.h"
#include "format/gguf_types.h"

#define ROPE_FREQS "rope_freqs.weight"
#define ROPE_LONG  "rope_factors_long.weight"
#define ROPE_SHORT "rope_factors_short.weight"
#define MAX_HEAD   4096 /* of which divisors are read */
#define KEY_CTX    "rope.scaling.original_context_length"

/* What the metadata says of scaling. */
typedef struct scaling {
	mzm_gguf_text type;
	double factor, attn_factor; /* 1: none */
} scaling;

static bool is_type(const scaling *s, const char *type)
{
	return s->type.n == strlen(type) && memcmp(s->type.s, type, s->type.n) == 0;
}

/* By what the frequency of pair i is divided (Llama 3.1). */
static double llama3_divisor(const mzm_config *c, int32_t i)
{
	double freq = pow(c->rope_theta, -2.0 * i / c->head_dim);
	double turns = c->rope_orig_ctx * freq / (2 * 3.14159265358979323846);
	if (turns < c->rope_low_freq)
		return c->rope_factor;
	if (turns > c->rope_high_freq)
		return 1;
	double smooth = (turns - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
	return 1 / ((1 - smooth) / c->rope_factor + smooth);
}

static mzm_status read_divisors(float out[MAX_HEAD / 2], const mzm_config *c, const mzm_gguf *g, const char *name,
				mzm_err *err)
{
	const mzm_gguf_tensor *t = mzm_gguf_find(g, name);
	int32_t n = (c->rope_dim ? c->rope_dim : c->head_dim) / 2;
	if (!t)
		return mzm_fail(err, MZM_EFORMAT, "tensor %s is missing", name);
	if (n < 1 || n > MAX_HEAD / 2 || t->type != MZM_GGML_F32 || t->n_dims != 1 || t->dims[0] != (uint64_t)n)
		return mzm_fail(err, MZM_EFORMAT, "tensor %s is not F32 of half a head", name);
	MZM_TRY(mzm_gguf_read(g, t, 0, (size_t)n * sizeof out[0], out, err));
	for (int32_t i = 0; i < n; i++)
		if (!(out[i] >= 1e-6f && out[i] <= 1e6f))
			return mzm_fail(err, MZM_EFORMAT, "tensor %s: factor %d is %g", name, (int)i, (double)out[i]);
	return MZM_OK;
}

/* One set of divisors for contexts up to rope_orig_ctx, and one for longer ones. */
static mzm_status set_divisors(mzm_config *c, const float *within, const float *beyond, const char *name, mzm_err *err)
{
	int32_t n = (c->rope_dim ? c->rope_dim : c->head_dim) / 2;
	if (n > MZM_MAX_PAIRS)
		return mzm_fail(err, MZM_EUNSUPPORTED, "tensor %s: more than %d factors are not supported", name,
				MZM_MAX_PAIRS);
	c->rope = MZM_ROPE_LONG;
	memcpy(c->rope_short, within, (size_t)n * sizeof within[0]);
	memcpy(c->rope_long, beyond, (size_t)n * sizeof beyond[0]);
	return MZM_OK;
}

/* True when the divisors are those of Llama 3 with the numbers of all its published models. */
static bool is_llama3(mzm_config *c, const float *found, int32_t n)
{
	c->rope_factor = (double)found[n - 1];
	c->rope_low_freq = 1;
	c->rope_high_freq = 4;
	for (int32_t i = 0; i < n; i++) {
		double want = llama3_divisor(c, i);
		if (!(fabs((double)found[i] - want) <= 1e-4 * want))
			return false;
	}
	return true;
}

static mzm_status from_one_tensor(mzm_config *c, const mzm_gguf_keys *k, const scaling *s, mzm_err *err)
{
	char buf[128];
	float found[MAX_HEAD / 2];
	int32_t n = c->head_dim / 2, orig = 8192, n_ones = 0;
	if (s->factor != 1 && is_type(s, "linear"))
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s %g beside tensor " ROPE_FREQS " is not supported",
				mzm_gguf_key(k, "rope.scaling.factor", buf), s->factor);
	MZM_TRY(read_divisors(found, c, k->g, ROPE_FREQS, err));
	for (int32_t i = 0; i < n; i++)
		n_ones += found[i] == 1.0f;
	if (n_ones == n)
		return MZM_OK;
	MZM_TRY(mzm_gguf_key_int(k, KEY_CTX, &orig, &c->rope_orig_ctx, err));
	if (c->rope_orig_ctx >= 1 && is_llama3(c, found, n)) {
		c->rope = MZM_ROPE_LLAMA3;
		return MZM_OK;
	}
	c->rope_factor = c->rope_low_freq = c->rope_high_freq = 0;
	c->rope_orig_ctx = c->n_ctx;
	c->rope_attn_factor = 1;
	return set_divisors(c, found, found, ROPE_FREQS, err);
}

static mzm_status from_two_tensors(mzm_config *c, const mzm_gguf_keys *k, const scaling *s, mzm_err *err)
{
	char buf[128];
	float within[MAX_HEAD / 2], beyond[MAX_HEAD / 2];
	if (s->factor != 1)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s %g beside tensor " ROPE_LONG " is not supported",
				mzm_gguf_key(k, "rope.scaling.factor", buf), s->factor);
	MZM_TRY(read_divisors(within, c, k->g, ROPE_SHORT, err));
	MZM_TRY(read_divisors(beyond, c, k->g, ROPE_LONG, err));
	MZM_TRY(mzm_gguf_key_int(k, KEY_CTX, NULL, &c->rope_orig_ctx, err));
	c->rope_attn_factor = s->attn_factor;
	return set_divisors(c, within, beyond, ROPE_LONG, err);
}

static mzm_status llama3_from_metadata(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err)
{
	c->rope = MZM_ROPE_LLAMA3;
	MZM_TRY(mzm_gguf_key_real(k, "rope.scaling.factor", NAN, &c->rope_factor, err));
	MZM_TRY(mzm_gguf_key_real(k, "rope.scaling.low_freq_factor", NAN, &c->rope_low_freq, err));
	MZM_TRY(mzm_gguf_key_real(k, "rope.scaling.high_freq_factor", NAN, &c->rope_high_freq, err));
	return mzm_gguf_key_int(k, KEY_CTX, NULL, &c->rope_orig_ctx, err);
}

/* A factor without a type is linear, and none where the type is none; scale_linear is its old name. */
static mzm_status read_scaling(scaling *s, const mzm_gguf_keys *k, mzm_err *err)
{
	char buf[128], shown[65];
	double old;
	*s = (scaling){.type = {"linear", 6}};
	const char *key = mzm_gguf_key(k, "rope.scaling.type", buf);
	if (mzm_gguf_has(k->g, key) && !mzm_gguf_string(k->g, key, &s->type))
		return mzm_fail(err, MZM_EFORMAT, "%s is not a string", key);
	if (!is_type(s, "none") && !is_type(s, "linear") && !is_type(s, "llama3") && !is_type(s, "longrope"))
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s \"%s\" is not supported", key,
				mzm_gguf_shown(shown, &s->type));
	MZM_TRY(mzm_gguf_key_real(k, "rope.scale_linear", 1, &old, err));
	MZM_TRY(mzm_gguf_key_real(k, "rope.scaling.factor", old, &s->factor, err));
	MZM_TRY(mzm_gguf_key_real(k, "rope.scaling.attn_factor", 1, &s->attn_factor, err));
	s->factor = s->factor == 0 || is_type(s, "none") ? 1 : s->factor;
	return MZM_OK;
}

/* Of local layers, which rotate plainly then. */
static mzm_status read_local_base(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err)
{
	double usual = k->arch->local_theta != 0 ? k->arch->local_theta : c->rope_theta, base;
	MZM_TRY(mzm_gguf_key_real(k, "rope.freq_base_swa", usual, &base, err));
	if (c->window > 0 && (k->arch->local_theta != 0 || base != c->rope_theta))
		c->rope_local_theta = base;
	return MZM_OK;
}

static mzm_status read_rotated(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err)
{
	char buf[128];
	int32_t n;
	MZM_TRY(mzm_gguf_key_int(k, "rope.dimension_count", &c->head_dim, &n, err));
	if (n < 1 || n > c->head_dim || (n != c->head_dim && !k->arch->partial_rope))
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s %d of heads of %d is not supported",
				mzm_gguf_key(k, "rope.dimension_count", buf), (int)n, (int)c->head_dim);
	c->rope_dim = n == c->head_dim ? 0 : n;
	return MZM_OK;
}

mzm_status mzm_gguf_rope(mzm_config *c, const mzm_gguf_keys *k, mzm_err *err)
{
	char buf[128];
	scaling s;
	bool one = mzm_gguf_find(k->g, ROPE_FREQS),
	     two = mzm_gguf_find(k->g, ROPE_LONG) || mzm_gguf_find(k->g, ROPE_SHORT);
	MZM_TRY(mzm_gguf_key_real(k, "rope.freq_base", 10000, &c->rope_theta, err));
	MZM_TRY(read_rotated(c, k, err));
	MZM_TRY(read_local_base(c, k, err));
	MZM_TRY(read_scaling(&s, k, err));
	if (one && two)
		return mzm_fail(err, MZM_EUNSUPPORTED, "tensors " ROPE_FREQS " and " ROPE_LONG " in one model");
	if (two)
		return from_two_tensors(c, k, &s, err);
	if (s.attn_factor != 1)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s other than 1 is not supported without tensor " ROPE_LONG,
				mzm_gguf_key(k, "rope.scaling.attn_factor", buf));
	if (one)
		return from_one_tensor(c, k, &s, err);
	if (is_type(&s, "llama3"))
		return llama3_from_metadata(c, k, err);
	if (is_type(&s, "longrope"))
		return mzm_fail(err, MZM_EFORMAT, "tensor " ROPE_LONG " is missing");
	if (s.factor != 1) {
		c->rope = MZM_ROPE_LINEAR;
		c->rope_factor = s.factor;
	}
	return MZM_OK;
}
