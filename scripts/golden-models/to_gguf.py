"""The same model as a GGUF file: architecture, keys, names, order of rows and offsets of norms as llama.cpp's
convert_hf_to_gguf.py writes them, without a tokenizer. What that converter leaves out, since llama.cpp knows it anyway
(the scale of Gemma's embedding, which layers are local), is left out here.
"""
import math

import numpy as np

import arch
from files import gguf

MOSTLY_BF16 = 32

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
NAMES_TWO_NORMS = {  # Gemma 2 and 3
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
NAMES_OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "gpt_neox.embed_in": "token_embd",
    "gpt_neox.final_layer_norm": "output_norm",
    "embed_out": "output",
}


def gguf_name(name, kind):
    stem, suffix = name.rsplit(".", 1)
    if stem in NAMES_OUTSIDE:
        return f"{NAMES_OUTSIDE[stem]}.{suffix}"
    layer, part = stem.split(".layers.")[1].split(".", 1)
    names = {**NAMES, **NAMES_TWO_NORMS} if kind in ("gemma2", "gemma3_text") else NAMES
    return f"blk.{layer}.{names[part]}.{suffix}"


# ---- Rows ------------------------------------------------------------------------------------------


def paired_rows(x, heads):
    """Llama alone: rows i and i + half of a head become neighbours, which llama.cpp rotates as a pair."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def parted_qkv(x, heads):
    """GPT-NeoX: from query, key, value of each head to all queries, all keys, all values."""
    return x.reshape(heads, 3, x.shape[0] // heads // 3, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)


def converted(name, x, c):
    kind = c["model_type"]
    if kind == "llama" and ".q_proj." in name:
        return paired_rows(x, c["num_attention_heads"])
    if kind == "llama" and ".k_proj." in name:
        return paired_rows(x, c["num_key_value_heads"])
    if kind == "gpt_neox" and ".query_key_value." in name:
        return parted_qkv(x, c["num_attention_heads"])
    if kind.startswith("gemma") and name.endswith("norm.weight"):
        return np.float32(1) + x.astype(np.float32)
    return x


def extra_tensors(c):
    scaling = c.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "llama3":
        f = arch.frequencies(arch.head_dim_of(c), c["rope_theta"])
        return {"rope_freqs.weight": f / arch.llama3_frequencies(f, scaling)}
    if kind == "longrope":
        return {f"rope_factors_{x}.weight": np.array(scaling[f"{x}_factor"]) for x in ("long", "short")}
    return {}


# ---- Metadata --------------------------------------------------------------------------------------


def general_keys(c, a):
    """Families whose parameters the converter writes by its general code."""
    m = {
        f"{a}.block_count": c["num_hidden_layers"],
        f"{a}.context_length": c["max_position_embeddings"],
        f"{a}.embedding_length": c["hidden_size"],
        f"{a}.feed_forward_length": c["intermediate_size"],
        f"{a}.attention.head_count": c["num_attention_heads"],
        f"{a}.attention.head_count_kv": c["num_key_value_heads"],
    }
    scaling = c.get("rope_scaling") or {}
    if scaling.get("rope_type", scaling.get("type")) == "linear":
        m[f"{a}.rope.scaling.type"] = "linear"
        m[f"{a}.rope.scaling.factor"] = float(scaling["factor"])
    m[f"{a}.rope.freq_base"] = float(c["rope_theta"])
    if "rope_local_base_freq" in c:
        m[f"{a}.rope.freq_base_swa"] = float(c["rope_local_base_freq"])
    m[f"{a}.attention.layer_norm_rms_epsilon"] = float(c["rms_norm_eps"])
    if "head_dim" in c:
        m[f"{a}.attention.key_length"] = m[f"{a}.attention.value_length"] = c["head_dim"]
    return m


def llama_keys(c, a):
    d = arch.head_dim_of(c)
    return {**general_keys(c, a), f"{a}.vocab_size": c["vocab_size"], f"{a}.rope.dimension_count": d}


def gemma_keys(c, a):
    m = {
        f"{a}.context_length": c["max_position_embeddings"],
        f"{a}.embedding_length": c["hidden_size"],
        f"{a}.block_count": c["num_hidden_layers"],
        f"{a}.feed_forward_length": c["intermediate_size"],
        f"{a}.attention.head_count": c["num_attention_heads"],
        f"{a}.attention.head_count_kv": c["num_key_value_heads"],
        f"{a}.attention.layer_norm_rms_epsilon": float(c["rms_norm_eps"]),
        f"{a}.attention.key_length": c["head_dim"],
        f"{a}.attention.value_length": c["head_dim"],
    }
    if a == "gemma2":
        m[f"{a}.attn_logit_softcapping"] = c["attn_logit_softcapping"]
        m[f"{a}.final_logit_softcapping"] = c["final_logit_softcapping"]
        m[f"{a}.attention.sliding_window"] = c["sliding_window"]
    return m


def gemma3_keys(c, a):
    return {**general_keys(c, a), f"{a}.attention.sliding_window": c["sliding_window"]}


def phi3_keys(c, a):
    d, original = arch.head_dim_of(c), c["original_max_position_embeddings"]
    m = {
        f"{a}.context_length": c["max_position_embeddings"],
        f"{a}.rope.scaling.original_context_length": original,
        f"{a}.embedding_length": c["hidden_size"],
        f"{a}.feed_forward_length": c["intermediate_size"],
        f"{a}.block_count": c["num_hidden_layers"],
        f"{a}.attention.head_count": c["num_attention_heads"],
        f"{a}.attention.head_count_kv": c["num_key_value_heads"],
        f"{a}.attention.layer_norm_rms_epsilon": float(c["rms_norm_eps"]),
        f"{a}.rope.dimension_count": int(d * c.get("partial_rotary_factor", 1.0)),
        f"{a}.rope.freq_base": float(c["rope_theta"]),
        f"{a}.attention.sliding_window": c["sliding_window"] or 0,
    }
    if c["rope_scaling"]:
        stretch = c["max_position_embeddings"] / original
        m[f"{a}.rope.scaling.attn_factor"] = math.sqrt(1 + math.log(stretch) / math.log(original))
    return m


def stablelm_keys(c, a):
    d = arch.head_dim_of(c)
    return {
        f"{a}.context_length": c["max_position_embeddings"],
        f"{a}.embedding_length": c["hidden_size"],
        f"{a}.block_count": c["num_hidden_layers"],
        f"{a}.feed_forward_length": c["intermediate_size"],
        f"{a}.rope.dimension_count": int(c["partial_rotary_factor"] * d),
        f"{a}.attention.head_count": c["num_attention_heads"],
        f"{a}.attention.head_count_kv": c["num_key_value_heads"],
        # True where config.json does not say: so do files of the serial 1.6B. Whether there is an ffn_norm decides.
        f"{a}.use_parallel_residual": c.get("use_parallel_residual", True),
        f"{a}.attention.layer_norm_epsilon": float(c["layer_norm_eps"]),
    }


def gpt_neox_keys(c, a):
    d = arch.head_dim_of(c)
    return {
        f"{a}.context_length": c["max_position_embeddings"],
        f"{a}.embedding_length": c["hidden_size"],
        f"{a}.block_count": c["num_hidden_layers"],
        f"{a}.feed_forward_length": c["intermediate_size"],
        f"{a}.rope.dimension_count": int(c["rotary_pct"] * d),
        f"{a}.attention.head_count": c["num_attention_heads"],
        f"{a}.use_parallel_residual": c["use_parallel_residual"],
        f"{a}.attention.layer_norm_epsilon": float(c["layer_norm_eps"]),
    }


ARCHITECTURES = {
    "llama": ("llama", llama_keys),
    "qwen2": ("qwen2", general_keys),
    "qwen3": ("qwen3", general_keys),
    "gemma": ("gemma", gemma_keys),
    "gemma2": ("gemma2", gemma_keys),
    "gemma3_text": ("gemma3", gemma3_keys),
    "phi3": ("phi3", phi3_keys),
    "stablelm": ("stablelm", stablelm_keys),
    "gpt_neox": ("gptneox", gpt_neox_keys),
}


def check_paired_rows():
    """Rotating neighbours of the re-ordered rows gives the scores of rotating halves of the rows as they were."""
    rng = np.random.RandomState(1)
    n, heads, d = 5, 3, 8
    f = arch.frequencies(d, 10000.0)
    q, k = rng.standard_normal((2, heads * d, n))
    turn = np.exp(1j * np.outer(np.arange(n), f))[:, None, :]

    def neighbours(x):
        x = paired_rows(x, heads).T.reshape(n, heads, d)
        return (x[..., 0::2] + 1j * x[..., 1::2]) * turn

    def halves(x):
        return arch.rotate(x.T.reshape(n, heads, d), f)

    a = np.einsum("ihd,jhd->hij", neighbours(q), neighbours(k).conj()).real
    b = np.einsum("ihd,jhd->hij", halves(q), halves(k))
    assert np.abs(a - b).max() < 1e-12


def gguf_of(name, c, tensors):
    a, family_keys = ARCHITECTURES[c["model_type"]]
    metadata = {"general.architecture": a, "general.type": "model", "general.name": name}
    metadata.update(family_keys(c, a))
    metadata.update({"general.file_type": MOSTLY_BF16, "general.quantization_version": 2})
    out = extra_tensors(c)
    for key, x in tensors.items():
        out[gguf_name(key, c["model_type"])] = converted(key, x, c)
    return gguf(metadata, out)
