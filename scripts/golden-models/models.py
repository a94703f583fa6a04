"""The models: config.json as the published checkpoints of each family write it, small; random tensors; and ways to
switch off each feature, by which make.py sees that every one of them moves the logits.

A tensor is drawn from a normal distribution seeded by the model's name and its own, and rounded to bfloat16. Standard
deviations are chosen so that activations are about 1, attention is neither flat nor a single peak, and logits spread by
some units. Norms and biases are far from 1 and 0.
"""
import zlib

import numpy as np

import arch
from files import round_bf16

N_VOCAB, DIM, N_TOKENS, N_CTX = 64, 32, 96, 128
WINDOW = 12
NEARLY_SAME = 5e-4  # where two published formulas are so near each other that 1e-2 cannot be asked for


class Tensors(dict):
    """Named tensors of one model, drawn as they are added."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def add(self, name, shape, std, mean=0.0):
        rng = np.random.RandomState(zlib.crc32(f"{self.model}/{name}".encode()))
        self[name] = round_bf16(mean + std * rng.standard_normal(shape))

    def matrix(self, name, rows, columns, gain=1.0, bias=False):
        self.add(f"{name}.weight", (rows, columns), gain / columns**0.5)
        if bias:
            self.bias(name, rows)

    def bias(self, name, n):
        self.add(f"{name}.bias", (n,), 0.4)

    def norm(self, name, n, mean=1.0, bias=False):
        self.add(f"{name}.weight", (n,), 0.25, mean)
        if bias:
            self.bias(name, n)


def tokens(model, n=N_TOKENS):
    return np.random.RandomState(zlib.crc32(f"{model}/tokens".encode())).randint(0, N_VOCAB, n).tolist()


# ---- Tensors of the families -----------------------------------------------------------------------


def qkv_sizes(c):
    d = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    return d, c["num_attention_heads"] * d, c["num_key_value_heads"] * d


def llama_tensors(model, c, qkv_bias=False, o_bias=False, ffn_bias=False, layer_norm=False):
    """Also Mistral, Qwen, StableLM: biases, and norms with biases."""
    t, dim, n_ffn = Tensors(model), c["hidden_size"], c["intermediate_size"]
    d, n_q, n_kv = qkv_sizes(c)
    tied = c["tie_word_embeddings"]
    t.add("model.embed_tokens.weight", (N_VOCAB, dim), 0.4 if tied else 1.0)
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}"
        t.norm(f"{at}.input_layernorm", dim, bias=layer_norm)
        for x, n, gain in (("q", n_q, 1.5), ("k", n_kv, 1.5), ("v", n_kv, 1.0)):
            t.matrix(f"{at}.self_attn.{x}_proj", n, dim, gain, qkv_bias)
        if c["model_type"] == "qwen3":
            t.norm(f"{at}.self_attn.q_norm", d, 1.4)
            t.norm(f"{at}.self_attn.k_norm", d, 1.4)
        t.matrix(f"{at}.self_attn.o_proj", dim, n_q, 1.2, o_bias)
        if not c.get("use_parallel_residual"):
            t.norm(f"{at}.post_attention_layernorm", dim, bias=layer_norm)
        for x in ("gate", "up"):
            t.matrix(f"{at}.mlp.{x}_proj", n_ffn, dim, 1.2, ffn_bias)
        t.matrix(f"{at}.mlp.down_proj", dim, n_ffn, 1.5, ffn_bias)
    t.norm("model.norm", dim, bias=layer_norm)
    if not tied:
        t.matrix("lm_head", N_VOCAB, dim, 2.0)
    return t


def gemma_tensors(model, c):
    """Norms count from 1: their weights lie about 0."""
    t, dim, n_ffn = Tensors(model), c["hidden_size"], c["intermediate_size"]
    d, n_q, n_kv = qkv_sizes(c)
    t.add("model.embed_tokens.weight", (N_VOCAB, dim), 0.35)
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}"
        t.norm(f"{at}.input_layernorm", dim, 0.1)
        for x, n, gain in (("q", n_q, 1.5), ("k", n_kv, 1.5), ("v", n_kv, 1.0)):
            t.matrix(f"{at}.self_attn.{x}_proj", n, dim, gain)
        if c["model_type"] == "gemma3_text":
            t.norm(f"{at}.self_attn.q_norm", d, 0.4)
            t.norm(f"{at}.self_attn.k_norm", d, 0.4)
        t.matrix(f"{at}.self_attn.o_proj", dim, n_q, 1.2)
        t.norm(f"{at}.post_attention_layernorm", dim, 0.1)
        if c["model_type"] != "gemma":
            t.norm(f"{at}.pre_feedforward_layernorm", dim, 0.1)
            t.norm(f"{at}.post_feedforward_layernorm", dim, 0.1)
        for x in ("gate", "up"):
            t.matrix(f"{at}.mlp.{x}_proj", n_ffn, dim, 1.2)
        t.matrix(f"{at}.mlp.down_proj", dim, n_ffn, 1.5)
    t.norm("model.norm", dim, 0.1)
    return t


def phi3_tensors(model, c):
    t, dim, n_ffn = Tensors(model), c["hidden_size"], c["intermediate_size"]
    _, n_q, n_kv = qkv_sizes(c)
    t.add("model.embed_tokens.weight", (N_VOCAB, dim), 0.4 if c["tie_word_embeddings"] else 1.0)
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}"
        t.norm(f"{at}.input_layernorm", dim)
        t.matrix(f"{at}.self_attn.qkv_proj", n_q + 2 * n_kv, dim, 1.4)
        t.matrix(f"{at}.self_attn.o_proj", dim, n_q, 1.0)
        t.norm(f"{at}.post_attention_layernorm", dim)
        t.matrix(f"{at}.mlp.gate_up_proj", 2 * n_ffn, dim, 1.2)
        t.matrix(f"{at}.mlp.down_proj", dim, n_ffn, 1.5)
    t.norm("model.norm", dim)
    if not c["tie_word_embeddings"]:
        t.matrix("lm_head", N_VOCAB, dim, 2.0)
    return t


def opt_tensors(model, c):
    t, dim, n_ffn = Tensors(model), c["hidden_size"], c["ffn_dim"]
    at = "model.decoder"
    t.add(f"{at}.embed_tokens.weight", (N_VOCAB, dim), 0.4)
    t.add(f"{at}.embed_positions.weight", (c["max_position_embeddings"] + 2, dim), 0.3)
    t.norm(f"{at}.final_layer_norm", dim, bias=True)
    for i in range(c["num_hidden_layers"]):
        at = f"model.decoder.layers.{i}"
        t.norm(f"{at}.self_attn_layer_norm", dim, bias=True)
        for x, gain in (("q_proj", 1.5), ("k_proj", 1.5), ("v_proj", 1.0), ("out_proj", 1.2)):
            t.matrix(f"{at}.self_attn.{x}", dim, dim, gain, True)
        t.norm(f"{at}.final_layer_norm", dim, bias=True)
        t.matrix(f"{at}.fc1", n_ffn, dim, 1.4, True)
        t.matrix(f"{at}.fc2", dim, n_ffn, 1.4, True)
    return t


def gpt_neox_tensors(model, c):
    t, dim, n_ffn = Tensors(model), c["hidden_size"], c["intermediate_size"]
    t.add("gpt_neox.embed_in.weight", (N_VOCAB, dim), 1.0)
    for i in range(c["num_hidden_layers"]):
        at = f"gpt_neox.layers.{i}"
        t.norm(f"{at}.input_layernorm", dim, bias=True)
        t.norm(f"{at}.post_attention_layernorm", dim, bias=True)
        t.matrix(f"{at}.attention.query_key_value", 3 * dim, dim, 1.3, True)
        t.matrix(f"{at}.attention.dense", dim, dim, 1.2, True)
        t.matrix(f"{at}.mlp.dense_h_to_4h", n_ffn, dim, 1.4, True)
        t.matrix(f"{at}.mlp.dense_4h_to_h", dim, n_ffn, 1.4, True)
    t.norm("gpt_neox.final_layer_norm", dim, bias=True)
    t.matrix("embed_out", N_VOCAB, dim, 2.0)
    return t


# ---- Configurations --------------------------------------------------------------------------------


def config(architecture, model_type, layers, **more):
    """What all families write in one way; more: what a family writes beside it."""
    c = {
        "architectures": [architecture],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": DIM,
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "max_position_embeddings": N_CTX,
        "model_type": model_type,
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.44.0",
        "use_cache": True,
        "vocab_size": N_VOCAB,
    }
    c.update(more)
    return {key: value for key, value in c.items() if value is not ...}


def llama_config(layers, **more):
    base = dict(
        attention_bias=False, attention_dropout=0.0, hidden_act="silu", mlp_bias=False, num_key_value_heads=2,
        pretraining_tp=1, rms_norm_eps=1e-05, rope_scaling=None, rope_theta=10000.0, tie_word_embeddings=False,
    )
    return config("LlamaForCausalLM", "llama", layers, **{**base, **more})


def llama3_scaling(factor, original):
    return {
        "factor": factor, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": original, "rope_type": "llama3",
    }


def mistral_config(layers, **more):
    base = dict(
        hidden_act="silu", num_key_value_heads=2, rms_norm_eps=1e-05, rope_theta=10000.0, tie_word_embeddings=False,
    )
    return config("MistralForCausalLM", "mistral", layers, **{**base, **more})


def qwen2_config(layers, **more):
    base = dict(
        attention_dropout=0.0, hidden_act="silu", max_window_layers=1, num_key_value_heads=2, rms_norm_eps=1e-06,
        rope_theta=1000000.0, sliding_window=WINDOW, tie_word_embeddings=False, use_sliding_window=False,
    )
    return config("Qwen2ForCausalLM", "qwen2", layers, **{**base, **more})


def qwen3_config(layers):
    return config(
        "Qwen3ForCausalLM", "qwen3", layers, attention_bias=False, attention_dropout=0.0, head_dim=16,
        hidden_act="silu", max_window_layers=layers, num_key_value_heads=2, rms_norm_eps=1e-06, rope_scaling=None,
        rope_theta=1000000, sliding_window=None, tie_word_embeddings=True, use_sliding_window=False,
    )


def gemma_config(layers):
    return config(
        "GemmaForCausalLM", "gemma", layers, attention_bias=False, attention_dropout=0.0, bos_token_id=2,
        eos_token_id=1, head_dim=16, hidden_act="gelu", hidden_activation=None, num_key_value_heads=1,
        pad_token_id=0, rms_norm_eps=1e-06, rope_scaling=None, rope_theta=10000.0,
    )


def gemma2_config(layers, scalar):
    return config(
        "Gemma2ForCausalLM", "gemma2", layers, attention_bias=False, attention_dropout=0.0,
        attn_logit_softcapping=2.0, bos_token_id=2, cache_implementation="hybrid", eos_token_id=1,
        final_logit_softcapping=4.0, head_dim=16, hidden_act="gelu_pytorch_tanh",
        hidden_activation="gelu_pytorch_tanh", num_attention_heads=2, num_key_value_heads=1, pad_token_id=0,
        query_pre_attn_scalar=scalar, rms_norm_eps=1e-06, rope_theta=10000.0, sliding_window=WINDOW,
    )


def gemma3_config(layers, scalar, **more):
    return config(
        "Gemma3ForCausalLM", "gemma3_text", layers, attention_bias=False, attention_dropout=0.0,
        attn_logit_softcapping=None, bos_token_id=2, cache_implementation="hybrid", eos_token_id=[1, 3],
        final_logit_softcapping=None, head_dim=16, hidden_activation="gelu_pytorch_tanh", num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=0, query_pre_attn_scalar=scalar, rms_norm_eps=1e-06,
        rope_local_base_freq=10000, rope_theta=1000000, sliding_window=WINDOW, **more,
    )


PHI3 = {
    "AutoConfig": "configuration_phi3.Phi3Config",
    "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
}


def phi3_config(layers, **more):
    base = dict(
        attention_bias=False, attention_dropout=0.0, auto_map=PHI3, embd_pdrop=0.0, hidden_act="silu",
        num_key_value_heads=2, pad_token_id=0, resid_pdrop=0.0, rms_norm_eps=1e-05, rope_theta=10000.0,
        tie_word_embeddings=False,
    )
    return config("Phi3ForCausalLM", "phi3", layers, **{**base, **more})


def opt_config(layers):
    return config(
        "OPTForCausalLM", "opt", layers, _remove_final_layer_norm=False, activation_dropout=0.0,
        activation_function="relu", attention_dropout=0.0, bos_token_id=2, do_layer_norm_before=True, dropout=0.1,
        ffn_dim=48, init_std=0.02, initializer_range=..., intermediate_size=..., layerdrop=0.0, pad_token_id=1,
        prefix="</s>", word_embed_proj_dim=DIM,
    )


def stablelm_config(layers, kv_heads, **more):
    return config(
        "StableLmForCausalLM", "stablelm", layers, hidden_act="silu", layer_norm_eps=1e-05, num_attention_heads=2,
        num_key_value_heads=kv_heads, partial_rotary_factor=0.25, rope_theta=10000, tie_word_embeddings=False, **more,
    )


def gpt_neox_config(layers, parallel):
    return config(
        "GPTNeoXForCausalLM", "gpt_neox", layers, bos_token_id=0, eos_token_id=0, hidden_act="gelu",
        layer_norm_eps=1e-05, num_attention_heads=2, rotary_emb_base=10000, rotary_pct=0.25,
        tie_word_embeddings=False, use_parallel_residual=parallel,
    )


SPARSE_LLAMA = {
    "AutoConfig": "configuration_sparsellama.SparseLlamaConfig",
    "AutoModel": "modeling_sparsellama.SparseLlamaModel",
    "AutoModelForCausalLM": "modeling_sparsellama.SparseLlamaForCausalLM",
}


# ---- Features, and how each is switched off -------------------------------------------------------


def keys(**changes):
    def change(c, t):
        c.update(changes)

    return change


def shifted(by, suffix="norm.weight"):
    """Adds a number to all tensors of that name."""

    def change(c, t):
        for name in t:
            if name.endswith(suffix):
                t[name] = t[name] + by

    return change


def zeroed(suffix):
    def change(c, t):
        for name in t:
            if name.endswith(suffix):
                t[name] = np.zeros_like(t[name])

    return change


def position_shift(c, t):
    t["model.decoder.embed_positions.weight"] = np.roll(t["model.decoder.embed_positions.weight"], 1, 0)


class Model:
    """features: {what it has: (change(config, tensors) that takes it away, least change of some logit)}.
    cases: (n_ctx, number of tokens). gguf: False where llama.cpp's files cannot say what this model is. inert: tensors
    that change nothing by their nature."""

    def __init__(self, name, config, tensors, features, note, gguf=True, cases=((N_CTX, N_TOKENS),), inert=()):
        self.name, self.config, self.tensors, self.note = name, config, tensors, note
        self.features = {k: v if isinstance(v, tuple) else (v, 1e-2) for k, v in features.items()}
        self.gguf, self.cases, self.inert = gguf, cases, inert
        self.tokens = tokens(name, max(n for _, n in cases))


def window_features(key="sliding_window"):
    return {
        "sliding window": keys(**{key: None}),
        "window counts the position itself": keys(**{key: WINDOW + 1}),
        "window is not one shorter": keys(**{key: WINDOW - 1}),
    }


def llama_models():
    def make(name, c, features, note, gguf=True, **tensors):
        return Model(name, c, llama_tensors(name, c, **tensors), features, note, gguf)

    yield make(
        "llama3",
        llama_config(3, head_dim=8, max_position_embeddings=131072, rope_scaling=llama3_scaling(32.0, 8192),
                     rope_theta=500000.0, tie_word_embeddings=True),
        {"rope scaling llama3": keys(rope_scaling=None)},
        "Llama 3.2: two key heads for four query heads, tied head",
    )
    yield make(
        "llama3-short",
        llama_config(2, max_position_embeddings=768, rope_scaling=llama3_scaling(8.0, 96)),
        {"rope scaling llama3": keys(rope_scaling=None),
         "smooth between slow and fast": keys(rope_scaling=dict(llama3_scaling(8.0, 96), high_freq_factor=1.0001))},
        "Llama 3.1 with an original context of 96, so that the scaling shows; converters to GGUF take 8192 for granted",
        gguf=False,
    )
    yield make(
        "llama-bias",
        llama_config(2, attention_bias=True, mlp_bias=True, rope_scaling={"factor": 4.0, "type": "linear"}),
        {"rope scaling linear": keys(rope_scaling=None), "biases": zeroed("bias")},
        "Llama with all biases that its configuration knows",
        qkv_bias=True, o_bias=True, ffn_bias=True,
    )
    yield make(
        "mistral", mistral_config(3, sliding_window=WINDOW), window_features(),
        "Mistral 7B v0.1: all layers local. Its GGUF form carries no window", gguf=False,
    )
    yield make("qwen2", qwen2_config(2),
               {"biases of q, k and v": zeroed("bias"), "window is not used": keys(use_sliding_window=True)},
               "Qwen2.5: biases of q, k and v; a window that is not used",
               qkv_bias=True)
    yield make(
        "qwen2-window", qwen2_config(3, use_sliding_window=True),
        {**window_features(), "first layer is global": keys(max_window_layers=0),
         "second layer is local": keys(max_window_layers=2)},
        "Qwen2 with windows from the second layer on. Its GGUF form carries no window", gguf=False, qkv_bias=True,
    )
    yield make("qwen3", qwen3_config(2), {"norms of q and k": keys(model_type="llama")},
               "Qwen3 0.6B: heads larger than dim / heads, tied head")
    yield make(
        "relu-llama", llama_config(2, hidden_act="relu"), {"relu": keys(hidden_act="silu")},
        "ReluLLaMA. The GGUF form of llama.cpp cannot say that it is no SiLU", gguf=False,
    )
    c = llama_config(2, auto_map=SPARSE_LLAMA, hidden_act="fatrelu", hidden_act_param=0.125)
    c.update(architectures=["SparseLlamaForCausalLM"], model_type="sparsellama")
    yield make("prosparse", c, {"threshold of fatrelu": keys(hidden_act_param=0.0)},
               "ProSparse-Llama-2", gguf=False)


def gemma_models():
    tanh = ("hidden_activation", keys(hidden_activation="gelu"), NEARLY_SAME)
    both = {"GeGLU": keys(hidden_activation="silu"), "GELU by tanh": tanh[1:],
            "norms count from 1": shifted(-1.0), "embedding is scaled": keys(hidden_size=1)}
    c = gemma_config(2)
    yield Model("gemma", c, gemma_tensors("gemma", c), both,
                "Gemma 2B: one key head, heads larger than dim / heads; \"gelu\" means the approximation by tanh")

    def gemma2(name, layers, scalar, note, gguf, **features):
        c = gemma2_config(layers, scalar)
        odd = ["full_attention" if i % 2 == 0 else "sliding_attention" for i in range(layers)]
        return Model(name, c, gemma_tensors(name, c), {
            **both, **window_features(), **features, "soft cap of scores": keys(attn_logit_softcapping=None),
            "soft cap of logits": keys(final_logit_softcapping=None), "even layers are local": keys(layer_types=odd),
        }, note, gguf)

    yield gemma2("gemma2", 3, 16, "Gemma 2 2B: norms before and behind, soft caps, every other layer local", True)
    yield gemma2("gemma2-scale", 2, 24,
                 "Gemma 2 27B: queries scaled by another number than head_dim, which GGUF does not carry", False,
                 **{"query_pre_attn_scalar": keys(query_pre_attn_scalar=16)})

    linear = {"factor": 8.0, "rope_type": "linear"}
    c = gemma3_config(7, 16, rope_scaling=linear, sliding_window_pattern=6)
    yield Model("gemma3", c, gemma_tensors("gemma3", c), {
        **both, **window_features(), "pattern of six": keys(sliding_window_pattern=7),
        "norms of q and k": shifted(-0.5, "_norm.weight"), "scaling of global layers": keys(rope_scaling=None),
        "base of local layers": keys(rope_local_base_freq=1000000),
    }, "Gemma 3 4B, text: five local layers to a global one")
    c = gemma3_config(2, 24, rope_scaling=None, layer_types=["full_attention", "sliding_attention"])
    yield Model("gemma3-scale", c, gemma_tensors("gemma3-scale", c), {
        **window_features(), "query_pre_attn_scalar": keys(query_pre_attn_scalar=16),
        "layers by their types": keys(layer_types=["sliding_attention", "full_attention"]),
        "base of local layers": keys(rope_local_base_freq=1000000),
    }, "Gemma 3 as newer files write it (layer_types), queries scaled by another number than head_dim", False)


def other_models():
    original = 16  # stretched to 512: an attention factor of 1.5, which is the same in the single precision of GGUF
    factors = {"long_factor": [1.25, 2.5, 6.0, 12.0], "short_factor": [1.0, 1.125, 1.5, 2.0], "type": "longrope"}
    c = phi3_config(3, max_position_embeddings=512, original_max_position_embeddings=original, rope_scaling=factors,
                    sliding_window=262144)
    swapped = dict(factors, long_factor=factors["short_factor"], short_factor=factors["long_factor"])
    yield Model("phi3", c, phi3_tensors("phi3", c), {
        "factors of longrope": keys(rope_scaling=swapped),
        "attention factor": keys(max_position_embeddings=original),
    }, "Phi-3.5 mini: fused projections; the factors are those of the session's context",
        cases=((original, original), (N_CTX, N_TOKENS)))
    factors = {"long_factor": [1.5, 5.0, 9.0], "short_factor": [1.0, 1.25, 1.75], "type": "longrope"}
    c = phi3_config(2, max_position_embeddings=512, original_max_position_embeddings=original, rope_scaling=factors,
                    partial_rotary_factor=0.75, sliding_window=262144, tie_word_embeddings=True)
    yield Model("phi4-mini", c, phi3_tensors("phi4-mini", c), {
        "factors of longrope": keys(rope_scaling=dict(factors, long_factor=[1.0, 1.0, 1.0])),
    }, "Phi-4 mini: three quarters of a head rotate, by longrope; tied head")
    c = phi3_config(2, original_max_position_embeddings=N_CTX, partial_rotary_factor=0.75, rope_scaling=None,
                    sliding_window=WINDOW)
    yield Model("phi3-window", c, phi3_tensors("phi3-window", c),
                {**window_features(), "partial rotation": keys(partial_rotary_factor=1.0)},
                "Phi-3 mini 4k: a window, no scaling; and three quarters of a head rotate")

    c = opt_config(3)
    yield Model("opt", c, opt_tensors("opt", c), {
        "positions begin at row 2": position_shift, "relu": keys(activation_function="gelu"),
    }, "OPT: learned positions, no gate, biases everywhere, tied head. llama.cpp does not know it", gguf=False,
        inert=[f"model.decoder.layers.{i}.self_attn.k_proj.bias" for i in range(3)])  # the softmax cancels it

    c = stablelm_config(3, 2, use_qkv_bias=True)
    yield Model("stablelm", c, llama_tensors("stablelm", c, qkv_bias=True, layer_norm=True), {
        "partial rotation": keys(partial_rotary_factor=1.0), "serial residual": keys(use_parallel_residual=True),
        "biases of norms": zeroed("norm.bias"), "biases of q, k and v": zeroed("_proj.bias"),
    }, "StableLM-2 1.6B: norms with biases, a quarter of a head rotates")
    c = stablelm_config(2, 1, qk_layernorm=False, use_parallel_residual=True, use_qkv_bias=False)
    yield Model("stablelm-parallel", c, llama_tensors("stablelm-parallel", c, layer_norm=True),
                {"partial rotation": keys(partial_rotary_factor=1.0)},
                "StableLM-2 12B without the norms of q and k: one norm for attention and FFN side by side")

    for name, layers, parallel in (("gptneox", 3, True), ("gptneox-serial", 2, False)):
        c = gpt_neox_config(layers, parallel)
        yield Model(name, c, gpt_neox_tensors(name, c), {
            "partial rotation": keys(rotary_pct=1.0), "gelu": keys(hidden_act="relu"),
            "GELU by erf": (keys(hidden_act="gelu_pytorch_tanh"), NEARLY_SAME),
            "kind of residual": keys(use_parallel_residual=not parallel),
        }, "GPT-NeoX, Pythia: query, key and value of a head side by side, no gate, " +
            ("attention and FFN side by side" if parallel else "FFN behind the attention"))


# ---- DiJiang ---------------------------------------------------------------------------------------

DIJIANG_TABLES = (".proj_matrix", ".D1", ".D2")  # stored in F32: they are not rounded


def quantiles(name, d):
    """d random points of a normal distribution, not too near 0."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(d)


def decay_tables(name, heads, n, noise, goes_on):
    """gamma**n and gamma**-n of each head, each entry off by a little, as after training."""
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    gamma = 1 - np.exp(np.linspace(np.log(1 / 32), np.log(1 / 512), heads))
    d1 = gamma[:, None] ** np.arange(n) * (1 + noise * rng.standard_normal((heads, n)))
    d2 = gamma[:, None] ** -np.arange(n) * (1 + noise * rng.standard_normal((heads, n)))
    if goes_on:
        d1[:, -1] = d1[:, -2] * gamma  # behind the end, too: a state must not grow
    return [x.astype(np.float32).astype(np.float64).reshape(1, heads, n, 1) for x in (d1, d2)]


def add_dijiang(t, c, at, heads, kv_heads, d):
    """Beside the projections of a layer, what its form has. at: prefix of the attention's names."""
    if c["dijiang_form"] == "paper":
        t[f"{at}.T"] = round_bf16(0.5 * quantiles(f"{t.model}/{at}.T", d))
        t.add(f"{at}.D", (d,), 0.2, 1.0)
        return
    matrix = arch.cosine_transform(d) * quantiles(f"{t.model}/{at}.proj", d)
    t[f"{at}.proj_matrix"] = matrix.astype(np.float32).astype(np.float64)
    n = c.get("dijiang_table_len", c["max_position_embeddings"])
    t[f"{at}.D1"], t[f"{at}.D2"] = decay_tables(
        f"{t.model}/{at}.decay", kv_heads, n, 0.05, n < c["max_position_embeddings"]
    )
    t.add(f"{at}.W_G", (c["hidden_size"], heads * d), 1.3 / c["hidden_size"] ** 0.5)
    t.norm(f"{at}.group_norm", heads * d, bias=True)


def flat_decay(c, t):
    for name in t:
        if name.endswith((".D1", ".D2")):
            t[name] = np.ones_like(t[name])


def dijiang_models():
    """As many tokens as the context has: three steps of a state, whatever their size is within reason."""
    cases = ((N_CTX, N_CTX),)
    released = {
        "DiJiang": keys(dijiang_form=None), "decay": flat_decay,
        "bias of the group norm": zeroed("group_norm.bias"),
    }

    def llama(name, kv_heads, features, note, **more):
        c = llama_config(2, head_dim=8, num_key_value_heads=kv_heads, **more)
        t = llama_tensors(name, c)
        for i in range(2):
            add_dijiang(t, c, f"model.layers.{i}.self_attn", 4, kv_heads, 8)
        return Model(name, c, t, features, note, gguf=False, cases=cases)

    yield llama("dijiang", 4, released, "the released code's form in a Llama; tables as if trained", dijiang_form="released")
    yield llama("dijiang-groups", 2, released, "two key heads for four query heads; tables of 40 positions, as if "
                "trained, which go on", dijiang_form="released", dijiang_table_len=40)
    yield llama("dijiang-paper", 2,
                {"DiJiang": keys(dijiang_form=None), "denominators": keys(dijiang_denominator=False)},
                "the paper's form: exponential features, divided by their sum", dijiang_form="paper")
    c = dict(gpt_neox_config(2, True), dijiang_form="released")
    t = gpt_neox_tensors("dijiang-neox", c)
    for i in range(2):
        add_dijiang(t, c, f"gpt_neox.layers.{i}.attention", 2, 2, 16)
    yield Model("dijiang-neox", c, t, {**released, "partial rotation": keys(rotary_pct=1.0)},
                "the released code's own family: GPT-NeoX, Pythia", gguf=False, cases=cases)


def all_models():
    yield from llama_models()
    yield from gemma_models()
    yield from other_models()
    yield from dijiang_models()
