/* gguf_arch.c - see gguf_arch.h. What is not in files but in the programs that run them stands in this table; its
 * source is llama.cpp's converter and loader, and for what those leave open the published models. */
#include "format/gguf_arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const mzm_gguf_arch archs[] = {
	{.name = "llama", .act = MZM_ACT_SILU, .window = MZM_GGUF_ALL_LOCAL, .interleaved = true, .may_bias_qkv = true,
	 .may_bias_o = true, .may_bias_ffn = true},
	{.name = "qwen2", .act = MZM_ACT_SILU, .bias_qkv = true},
	{.name = "qwen3", .act = MZM_ACT_SILU, .qk_norm = true, .may_bias_qkv = true, .may_bias_o = true},
	{.name = "gemma", .act = MZM_ACT_GELU_TANH, .is_gemma = true},
	{.name = "gemma2", .act = MZM_ACT_GELU_TANH, .window = MZM_GGUF_ALL_BUT_NTH, .period = 2, .window_size = 4096,
	 .attn_softcap = 50, .logit_softcap = 30, .odd_layers = 46, .has_softcap = true, .is_gemma = true,
	 .post_norm = true},
	{.name = "gemma3", .act = MZM_ACT_GELU_TANH, .window = MZM_GGUF_ALL_BUT_NTH, .period = 6, .local_theta = 10000,
	 .odd_layers = 62, .has_softcap = true, .is_gemma = true, .qk_norm = true, .post_norm = true},
	{.name = "phi3", .act = MZM_ACT_SILU, .window = MZM_GGUF_ALL_LOCAL, .may_fuse_ffn = true, .partial_rope = true},
	{.name = "stablelm", .norm = MZM_NORM_LAYER, .act = MZM_ACT_SILU, .may_bias_qkv = true, .partial_rope = true},
	{.name = "gptneox", .norm = MZM_NORM_LAYER, .act = MZM_ACT_GELU, .ungated = true, .bias_qkv = true,
	 .bias_o = true, .bias_ffn = true, .partial_rope = true},
};

const mzm_gguf_arch *mzm_gguf_arch_find(const mzm_gguf *g)
{
	mzm_gguf_text t;
	if (!mzm_gguf_string(g, "general.architecture", &t))
		return NULL;
	for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++)
		if (t.n == strlen(archs[i].name) && memcmp(t.s, archs[i].name, t.n) == 0)
			return &archs[i];
	return NULL;
}

const char *mzm_gguf_key(const mzm_gguf_keys *k, const char *name, char buf[128])
{
	snprintf(buf, 128, "%s.%s", k->arch->name, name);
	return buf;
}

bool mzm_gguf_has_key(const mzm_gguf_keys *k, const char *name)
{
	char buf[128];
	return mzm_gguf_has(k->g, mzm_gguf_key(k, name, buf));
}

mzm_status mzm_gguf_key_int(const mzm_gguf_keys *k, const char *name, const int32_t *fallback, int32_t *out,
			    mzm_err *err)
{
	uint64_t v;
	char buf[128];
	const char *key = mzm_gguf_key(k, name, buf);
	if (!mzm_gguf_has(k->g, key) && fallback) {
		*out = *fallback;
		return MZM_OK;
	}
	if (!mzm_gguf_u64(k->g, key, &v) || v > INT32_MAX)
		return mzm_fail(err, MZM_EFORMAT, "%s is missing or no whole number below 2^31", key);
	*out = (int32_t)v;
	return MZM_OK;
}

mzm_status mzm_gguf_key_real(const mzm_gguf_keys *k, const char *name, double fallback, double *out, mzm_err *err)
{
	char buf[128];
	const char *key = mzm_gguf_key(k, name, buf);
	*out = fallback;
	if ((mzm_gguf_has(k->g, key) || isnan(fallback)) && !mzm_gguf_f64(k->g, key, out))
		return mzm_fail(err, MZM_EFORMAT, "%s is missing or no finite number", key);
	return MZM_OK;
}

const char *mzm_gguf_shown(char buf[65], const mzm_gguf_text *t)
{
	size_t n = t->n < 64 ? t->n : 64;
	for (size_t i = 0; i < n; i++)
		buf[i] = (char)(t->s[i] >= 0x20 && t->s[i] <= 0x7e ? t->s[i] : '?');
	buf[n] = 0;
	return buf;
}
