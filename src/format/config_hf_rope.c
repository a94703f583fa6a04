/* config_hf_rope.c - rotary positions as config.json writes them (config_hf.h).
 *
 * Two generations of keys: "rope_theta" beside "rope_scaling", and "rope_parameters" with all of it inside. What is
 * said twice must agree. Kinds of scaling that are not known by name are refused by it. */
#include "format/config_hf.h"

#include <math.h>
#include <string.h>

#define N_OF(array) (sizeof(array) / sizeof(array)[0])

/* A number that may be said in several places, which must agree. */
typedef struct said_real {
	double value;
	bool   known;
} said_real;

static mzm_status hear_real(said_real *said, const json_t *obj, const char *key, double min, double max, mzm_err *err)
{
	double value;
	if (!key || !mzm_cfg_member(obj, key))
		return MZM_OK;
	MZM_TRY(mzm_json_real(obj, key, min, max, 0, &value, err));
	if (said->known && value != said->value)
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is given twice: %g and %g", key, said->value, value);
	*said = (said_real){value, true};
	return MZM_OK;
}

static mzm_status read_theta(mzm_config *c, const json_t *config, const json_t *params, const mzm_hf_rope *how,
			     mzm_err *err)
{
	said_real theta = {how->theta, false};
	MZM_TRY(hear_real(&theta, config, how->theta_key, 1, 1e15, err));
	MZM_TRY(hear_real(&theta, config, "rope_theta", 1, 1e15, err));
	MZM_TRY(hear_real(&theta, params, "rope_theta", 1, 1e15, err));
	c->rope_theta = theta.value;
	return MZM_OK;
}

/* The classes round the rotated part of a head down, as int() does. */
static mzm_status read_partial(mzm_config *c, const json_t *config, const json_t *params, const mzm_hf_rope *how,
			       mzm_err *err)
{
	static const char key[] = "partial_rotary_factor";
	said_real part = {how->partial != 0 ? how->partial : 1, false};
	MZM_TRY(hear_real(&part, config, how->partial_key, 0, 1, err));
	MZM_TRY(hear_real(&part, config, key, 0, 1, err));
	MZM_TRY(hear_real(&part, params, key, 0, 1, err));
	if (part.value == 1)
		return MZM_OK;
	if (how->partial == 0)
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"%s\" is %g; only 1 is supported", key, part.value);
	c->rope_dim = (int32_t)(c->head_dim * part.value);
	if (c->rope_dim < 2 || c->rope_dim % 2 != 0)
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" %g of heads of %d rotates %d dimensions: no whole pairs", key,
				part.value, (int)c->head_dim, (int)c->rope_dim);
	return MZM_OK;
}

/* ---- scaling ---- */

static mzm_status read_llama3(mzm_config *c, const json_t *rope, mzm_err *err)
{
	c->rope = MZM_ROPE_LLAMA3;
	MZM_TRY(mzm_cfg_need_real(rope, "factor", 1, 1e6, &c->rope_factor, err));
	MZM_TRY(mzm_cfg_need_real(rope, "low_freq_factor", 1e-6, 1e6, &c->rope_low_freq, err));
	MZM_TRY(mzm_cfg_need_real(rope, "high_freq_factor", 1e-6, 1e6, &c->rope_high_freq, err));
	return mzm_cfg_need_int(rope, "original_max_position_embeddings", 1, MZM_MAX_CTX, &c->rope_orig_ctx, err);
}

static mzm_status read_linear(mzm_config *c, const json_t *rope, mzm_err *err)
{
	c->rope = MZM_ROPE_LINEAR;
	return mzm_cfg_need_real(rope, "factor", 1, 1e6, &c->rope_factor, err);
}

static mzm_status read_divisors(const mzm_config *c, const json_t *rope, const char *key, float out[MZM_MAX_PAIRS],
				mzm_err *err)
{
	const json_t *list = mzm_cfg_member(rope, key);
	size_t n = (size_t)mzm_config_rope_dim(c) / 2;
	if (!list)
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is missing", key);
	if (n > MZM_MAX_PAIRS)
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"%s\" for heads of more than %d dimensions is not supported",
				key, 2 * MZM_MAX_PAIRS);
	if (!json_is_array(list) || json_array_size(list) != n)
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is no list of %zu numbers", key, n);
	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, i);
		double d = json_is_number(v) ? json_number_value(v) : 0;
		if (!(d >= 1e-6 && d <= 1e6))
			return mzm_fail(err, MZM_EFORMAT, "\"%s\" holds something other than a number in 1e-6 .. 1e6",
					key);
		out[i] = (float)d;
	}
	return MZM_OK;
}

/* "original_max_position_embeddings", which stands beside "rope_scaling", in it, or both. */
static mzm_status read_orig_ctx(mzm_config *c, const json_t *config, const json_t *rope, mzm_err *err)
{
	static const char key[] = "original_max_position_embeddings";
	said_real n = {0};
	MZM_TRY(hear_real(&n, config, key, 2, MZM_MAX_CTX, err));
	MZM_TRY(hear_real(&n, rope, key, 2, MZM_MAX_CTX, err));
	if (!n.known)
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is missing", key);
	if (n.value != floor(n.value))
		return mzm_fail(err, MZM_EFORMAT, "\"%s\" is %g, not a whole number", key, n.value);
	c->rope_orig_ctx = (int32_t)n.value;
	return MZM_OK;
}

/* Cosines and sines grow by sqrt(1 + ln(s) / ln(orig)), s times the context it was trained with (LongRoPE, arXiv
 * 2402.13753), unless the file says by how much. */
static mzm_status read_long(mzm_config *c, const json_t *config, const json_t *rope, mzm_err *err)
{
	static const char *const others[] = {"short_mscale", "long_mscale"};
	double stretch, said;
	for (size_t i = 0; i < N_OF(others); i++)
		if (mzm_cfg_member(rope, others[i]))
			return mzm_fail(err, MZM_EUNSUPPORTED, "\"%s\" is not supported", others[i]);
	c->rope = MZM_ROPE_LONG;
	MZM_TRY(read_orig_ctx(c, config, rope, err));
	MZM_TRY(read_divisors(c, rope, "short_factor", c->rope_short, err));
	MZM_TRY(read_divisors(c, rope, "long_factor", c->rope_long, err));
	stretch = (double)c->n_ctx / c->rope_orig_ctx;
	MZM_TRY(mzm_json_real(rope, "factor", 1e-6, 1e6, stretch, &said, err));
	if (fabs(said - stretch) > 1e-6 * stretch)
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"\"factor\" %g is not %g, by which \"max_position_embeddings\" is the longer context",
				said, stretch);
	c->rope_attn_factor = stretch <= 1 ? 1 : sqrt(1 + log(stretch) / log(c->rope_orig_ctx));
	return mzm_json_real(rope, "attention_factor", 1e-6, 1e6, c->rope_attn_factor, &c->rope_attn_factor, err);
}

/* "su" is what Phi-3's first files call longrope. */
static mzm_status read_scaling(mzm_config *c, const json_t *config, const json_t *rope, bool need_type,
			       const mzm_hf_rope *how, mzm_err *err)
{
	static const char *const types[] = {"default", "linear", "llama3", "longrope", "su"};
	const char *type, *old_type;
	int which;
	MZM_TRY(mzm_cfg_text(rope, "rope_type", &type, err));
	MZM_TRY(mzm_cfg_text(rope, "type", &old_type, err));
	if (type && old_type && strcmp(type, old_type) != 0)
		return mzm_fail(err, MZM_EFORMAT, "\"rope_type\" and \"type\" contradict each other");
	if (!type)
		type = old_type;
	if (!type && need_type)
		return mzm_fail(err, MZM_EFORMAT, "\"rope_scaling\" names no \"rope_type\"");
	size_t n = how->can_long ? N_OF(types) : 3;
	MZM_TRY(mzm_cfg_pick(types, n, "rope_type", type ? type : "default", &which, err));
	switch (which) {
	case 0: return MZM_OK;
	case 1: return read_linear(c, rope, err);
	case 2: return read_llama3(c, rope, err);
	default: return read_long(c, config, rope, err);
	}
}

/* ---- by type of layer (Gemma 3) ---- */

/* Local layers rotate plainly, by a base of their own. */
static mzm_status read_local(mzm_config *c, const json_t *config, const json_t *local, mzm_err *err)
{
	const char *type;
	said_real theta = {10000, false}; /* Gemma3TextConfig */
	MZM_TRY(hear_real(&theta, config, "rope_local_base_freq", 1, 1e15, err));
	MZM_TRY(hear_real(&theta, local, "rope_theta", 1, 1e15, err));
	MZM_TRY(mzm_cfg_text(local, "rope_type", &type, err));
	if (type && strcmp(type, "default") != 0)
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"\"rope_type\" \"%.40s\" of \"sliding_attention\" is not supported", type);
	if (c->window > 0)
		c->rope_local_theta = theta.value;
	return MZM_OK;
}

/* *params becomes the object of the layers that see everything. */
static mzm_status split_by_layer_type(mzm_config *c, const json_t *config, const json_t **params, mzm_err *err)
{
	const json_t *global = mzm_cfg_member(*params, "full_attention");
	const json_t *local = mzm_cfg_member(*params, "sliding_attention");
	if (*params && (!json_is_object(global) || !json_is_object(local)))
		return mzm_fail(err, MZM_EFORMAT,
				"\"rope_parameters\" holds no objects \"full_attention\" and \"sliding_attention\"");
	*params = global;
	return read_local(c, config, local, err);
}

mzm_status mzm_hf_read_rope(mzm_config *c, const json_t *config, const mzm_hf_rope *how, mzm_err *err)
{
	const json_t *scaling = mzm_cfg_member(config, "rope_scaling");
	const json_t *params = mzm_cfg_member(config, "rope_parameters");
	if (scaling && params)
		return mzm_fail(err, MZM_EFORMAT, "\"rope_scaling\" and \"rope_parameters\" are both given");
	if (scaling)
		MZM_TRY(mzm_cfg_need_object(scaling, "\"rope_scaling\"", err));
	if (params)
		MZM_TRY(mzm_cfg_need_object(params, "\"rope_parameters\"", err));
	if (how->by_layer_type)
		MZM_TRY(split_by_layer_type(c, config, &params, err));
	else if (mzm_cfg_member(params, "full_attention") || mzm_cfg_member(params, "sliding_attention"))
		return mzm_fail(err, MZM_EUNSUPPORTED, "\"rope_parameters\" for each type of layer are not supported");
	MZM_TRY(read_theta(c, config, params, how, err));
	MZM_TRY(read_partial(c, config, params, how, err));
	if (!scaling && !params)
		return MZM_OK;
	return read_scaling(c, config, scaling ? scaling : params, scaling != NULL, how, err);
}
