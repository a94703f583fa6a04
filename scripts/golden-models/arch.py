"""Forward passes of the model families in float64, each written from what its authors published: the paper, and the
meaning of the fields of its Hugging Face config.json. Nothing here is shared with the engine, and nothing is fast.

A model is its config.json (a dict) and its tensors under the names of the checkpoint (float64 arrays, matrices
[outputs, inputs]). forward(config, tensors, ids, n_ctx) gives the logits [len(ids), vocabulary] of one pass over the
whole sequence, without a cache. n_ctx is the length of sequence that the pass belongs to: it chooses between the two
sets of factors of LongRoPE, which the Hugging Face code chooses by the length it sees.
"""
import math

import numpy as np

erf = np.vectorize(math.erf, otypes=[np.float64])


# ---- What they are built of ----------------------------------------------------------------------


def linear(t, name, x):
    y = x @ t[f"{name}.weight"].T
    bias = t.get(f"{name}.bias")
    return y if bias is None else y + bias


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * weight


def layer_norm(x, weight, bias, eps):
    d = x - np.mean(x, -1, keepdims=True)
    return d / np.sqrt(np.mean(d * d, -1, keepdims=True) + eps) * weight + bias


def fat_relu(threshold):
    return lambda x: np.where(x > threshold, x, 0.0)


ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0.0),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "gelu_pytorch_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


def soft_cap(x, cap):
    return x if cap is None else cap * np.tanh(x / cap)


def frequencies(dim, base):
    """Angle that pair i turns by from one position to the next (RoFormer, arXiv 2104.09864)."""
    return np.array([base ** (-2.0 * i / dim) for i in range(dim // 2)])


def llama3_frequencies(f, scaling):
    """Llama 3.1: waves that fit the original context less than low_freq_factor times are stretched, those that fit it
    more than high_freq_factor times are kept, and between the two it goes over smoothly."""
    out = []
    for w in f:
        turns = scaling["original_max_position_embeddings"] * w / (2 * math.pi)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        out.append(w * (kept + (1 - kept) / scaling["factor"]))
    return np.array(out)


def scaled_frequencies(dim, base, scaling):
    f = frequencies(dim, base)
    if scaling is None:
        return f
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "linear":
        return f / scaling["factor"]
    if kind == "llama3":
        return llama3_frequencies(f, scaling)
    raise ValueError(f"rope scaling {kind}")


def rotate(x, f, magnitude=1.0):
    """x [positions, heads, head_dim]: component i of the first half of the rotated part and component i of its second
    half are one pair. What lies behind the 2 * len(f) rotated components stays."""
    n = len(f)
    angle = np.outer(np.arange(x.shape[0]), f)[:, None, :]
    cos, sin = magnitude * np.cos(angle), magnitude * np.sin(angle)
    a, b, rest = x[..., :n], x[..., n : 2 * n], x[..., 2 * n :]
    return np.concatenate((a * cos - b * sin, b * cos + a * sin, rest), -1)


def attention(q, k, v, scale, window=None, cap=None):
    """q [positions, heads, head_dim], k and v [positions, kv_heads, head_dim]. A position sees itself and what lies
    before it; with a window so many positions, itself among them."""
    n, heads, _ = q.shape
    group = heads // k.shape[1]
    distance = np.arange(n)[:, None] - np.arange(n)[None, :]
    hidden = (distance < 0) if window is None else (distance < 0) | (distance >= window)
    out = np.empty_like(q)
    for h in range(heads):
        scores = soft_cap(q[:, h] @ k[:, h // group].T * scale, cap)
        scores = np.where(hidden, -np.inf, scores)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, h] = p / p.sum(-1, keepdims=True) @ v[:, h // group]
    return out.reshape(n, -1)


# ---- DiJiang (arXiv 2403.19928): linear attention, as the quadratic form that it is short for -------


def cosine_transform(d):
    """The orthonormal DCT-II: row k holds frequency k."""
    i = np.arange(d)
    c = np.cos(math.pi * np.outer(i, 2 * i + 1) / (2 * d)) * math.sqrt(2 / d)
    c[0] = math.sqrt(1 / d)
    return c


def softmax(x):
    p = np.exp(x - x.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def group_norm(x, weight, bias, n_groups):
    """Channels of a position in n_groups groups of neighbours."""
    g = x.reshape(x.shape[0], n_groups, -1)
    g = g - g.mean(-1, keepdims=True)
    g = g / np.sqrt(np.mean(g * g, -1, keepdims=True) + 1e-5)
    return g.reshape(x.shape) * weight + bias


def dijiang_paper(c, t, at, q, k, v):
    """phi(x) = D exp(T C x); an output is the mean of values weighted by phi(q) phi(k), or their sum."""
    n, heads, d = q.shape
    group = heads // k.shape[1]

    def phi(x):
        return t[f"{at}.D"] * np.exp(t[f"{at}.T"] * (x @ cosine_transform(d).T))

    out = np.empty_like(q)
    for h in range(heads):
        scores = np.tril(phi(q[:, h]) @ phi(k[:, h // group]).T)
        if c.get("dijiang_denominator", True):
            total = scores.sum(-1, keepdims=True)
            scores = np.divide(scores, total, out=np.zeros_like(scores), where=total != 0)
        out[:, h] = scores @ v[:, h // group]
    return out.reshape(n, -1)


def dijiang_released(c, t, at, q, k, v, x):
    """Softmax over what the stored matrix projects to; explicit decay; group norm over as many groups as a head has
    dimensions; a gate that reads what the projections read. Behind their end, D1 goes on by its last step, and D2 so
    that their product stays."""
    n, heads, d = q.shape
    group = heads // k.shape[1]

    d1, d2 = t[f"{at}.D1"][0, :, :, 0], t[f"{at}.D2"][0, :, :, 0]
    step = np.divide(d1[:, -1:], d1[:, -2:-1], out=np.ones_like(d1[:, -1:]), where=d1[:, -2:-1] != 0)
    steps = np.where(step == 0, 1, step) ** np.arange(1, max(n - d1.shape[1], 0) + 1)
    d1, d2 = (np.concatenate((d, d[:, -1:] * by), 1)[:, :n] for d, by in ((d1, steps), (d2, 1 / steps)))
    out = np.empty_like(q)
    for h in range(heads):
        m = h // group
        phi_q, phi_k = (softmax(y @ t[f"{at}.proj_matrix"]) for y in (q[:, h], k[:, m]))
        out[:, h] = np.tril((phi_q * d1[m][:, None]) @ (phi_k * d2[m][:, None]).T) @ v[:, m]
    out = group_norm(out.reshape(n, -1), t[f"{at}.group_norm.weight"], t[f"{at}.group_norm.bias"], d)
    return ACTIVATIONS["silu"](x @ t[f"{at}.W_G"]) * out


def mix(c, t, at, q, k, v, x):
    """Attention of rotated heads, of whichever kind. x: what q, k and v were projected from."""
    form = c.get("dijiang_form")
    if form == "paper":
        return dijiang_paper(c, t, at, q, k, v)
    if form == "released":
        return dijiang_released(c, t, at, q, k, v, x)
    return attention(q, k, v, q.shape[-1] ** -0.5)


def heads_of(x, head_dim):
    return x.reshape(x.shape[0], -1, head_dim)


def projections(t, name, h, head_dim):
    return (heads_of(linear(t, f"{name}.{x}_proj", h), head_dim) for x in "qkv")


def gated(t, name, h, act):
    return linear(t, f"{name}.down_proj", act(linear(t, f"{name}.gate_proj", h)) * linear(t, f"{name}.up_proj", h))


def head_dim_of(c):
    return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]


# ---- Llama, and what is Llama but for a few things: Mistral, Qwen2, Qwen3, ReLU Llamas ------------


def llama_window(c, layer):
    if c["model_type"] == "mistral":
        return c["sliding_window"]
    if c["model_type"] == "qwen2" and c["use_sliding_window"] and layer >= c["max_window_layers"]:
        return c["sliding_window"]
    return None


def llama_activation(c):
    if c["hidden_act"] == "fatrelu":
        return fat_relu(c["hidden_act_param"])
    return ACTIVATIONS[c["hidden_act"]]


def llama(c, t, ids, n_ctx):
    d, eps = head_dim_of(c), c["rms_norm_eps"]
    f = scaled_frequencies(d, c["rope_theta"], c.get("rope_scaling"))
    act = llama_activation(c)
    x = t["model.embed_tokens.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}"
        h = rms_norm(x, t[f"{at}.input_layernorm.weight"], eps)
        q, k, v = projections(t, f"{at}.self_attn", h, d)
        if c["model_type"] == "qwen3":
            q = rms_norm(q, t[f"{at}.self_attn.q_norm.weight"], eps)
            k = rms_norm(k, t[f"{at}.self_attn.k_norm.weight"], eps)
        if c.get("dijiang_form"):
            mixed = mix(c, t, f"{at}.self_attn", rotate(q, f), rotate(k, f), v, h)
        else:
            mixed = attention(rotate(q, f), rotate(k, f), v, d**-0.5, llama_window(c, i))
        x = x + linear(t, f"{at}.self_attn.o_proj", mixed)
        h = rms_norm(x, t[f"{at}.post_attention_layernorm.weight"], eps)
        x = x + gated(t, f"{at}.mlp", h, act)
    x = rms_norm(x, t["model.norm.weight"], eps)
    return x @ t["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"].T


# ---- Gemma 1, 2, 3 -------------------------------------------------------------------------------


def gemma_is_local(c, layer):
    if c["model_type"] == "gemma":
        return False
    if "layer_types" in c:
        return c["layer_types"][layer] == "sliding_attention"
    if c["model_type"] == "gemma2":
        return layer % 2 == 0
    return (layer + 1) % c["sliding_window_pattern"] != 0


def gemma_activation(c):
    """Gemma 1 was published with "gelu" and means the approximation by tanh, as its own code computes it."""
    return ACTIVATIONS[c["hidden_activation"] or "gelu_pytorch_tanh"]


def gemma(c, t, ids, n_ctx):
    d, eps, kind = c["head_dim"], c["rms_norm_eps"], c["model_type"]
    scale = (d if kind == "gemma" else c["query_pre_attn_scalar"]) ** -0.5
    f_global = scaled_frequencies(d, c["rope_theta"], c.get("rope_scaling"))
    f_local = frequencies(d, c["rope_local_base_freq"]) if kind == "gemma3_text" else f_global
    act = gemma_activation(c)

    def norm(x, name):
        return rms_norm(x, 1 + t[f"{name}.weight"], eps)

    x = t["model.embed_tokens.weight"][ids] * math.sqrt(c["hidden_size"])
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}"
        local = gemma_is_local(c, i)
        f = f_local if local else f_global
        q, k, v = projections(t, f"{at}.self_attn", norm(x, f"{at}.input_layernorm"), d)
        if kind == "gemma3_text":
            q, k = norm(q, f"{at}.self_attn.q_norm"), norm(k, f"{at}.self_attn.k_norm")
        window, cap = c["sliding_window"] if local else None, c.get("attn_logit_softcapping")
        mixed = attention(rotate(q, f), rotate(k, f), v, scale, window, cap)
        mixed = linear(t, f"{at}.self_attn.o_proj", mixed)
        if kind == "gemma":
            x = x + mixed
            x = x + gated(t, f"{at}.mlp", norm(x, f"{at}.post_attention_layernorm"), act)
            continue
        x = x + norm(mixed, f"{at}.post_attention_layernorm")
        y = gated(t, f"{at}.mlp", norm(x, f"{at}.pre_feedforward_layernorm"), act)
        x = x + norm(y, f"{at}.post_feedforward_layernorm")
    logits = norm(x, "model.norm") @ t["model.embed_tokens.weight"].T
    return soft_cap(logits, c.get("final_logit_softcapping"))


# ---- Phi-3 ---------------------------------------------------------------------------------------


def long_rope(c, dim, n_ctx):
    """LongRoPE (arXiv 2402.13753): a divisor for each pair, by the length of the sequence, and an attention factor by
    how far the context was stretched. -> frequencies, factor"""
    f, scaling = frequencies(dim, c["rope_theta"]), c["rope_scaling"]
    if scaling is None:
        return f, 1.0
    original = c["original_max_position_embeddings"]
    stretch = c["max_position_embeddings"] / original
    magnitude = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
    return f / np.array(scaling["long_factor" if n_ctx > original else "short_factor"]), magnitude


def phi3(c, t, ids, n_ctx):
    d, eps = head_dim_of(c), c["rms_norm_eps"]
    n_q, n_kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    f, magnitude = long_rope(c, int(d * c.get("partial_rotary_factor", 1.0)), n_ctx)
    x = t["model.embed_tokens.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}"
        h = rms_norm(x, t[f"{at}.input_layernorm.weight"], eps)
        qkv = linear(t, f"{at}.self_attn.qkv_proj", h)
        q, k, v = qkv[:, :n_q], qkv[:, n_q : n_q + n_kv], qkv[:, n_q + n_kv :]
        q, k = (rotate(heads_of(y, d), f, magnitude) for y in (q, k))
        mixed = attention(q, k, heads_of(v, d), d**-0.5, c["sliding_window"])
        x = x + linear(t, f"{at}.self_attn.o_proj", mixed)
        h = rms_norm(x, t[f"{at}.post_attention_layernorm.weight"], eps)
        gate, up = np.split(linear(t, f"{at}.mlp.gate_up_proj", h), 2, -1)
        x = x + linear(t, f"{at}.mlp.down_proj", ACTIVATIONS[c["hidden_act"]](gate) * up)
    x = rms_norm(x, t["model.norm.weight"], eps)
    return x @ t["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"].T


# ---- OPT -----------------------------------------------------------------------------------------


def opt(c, t, ids, n_ctx):
    d = c["hidden_size"] // c["num_attention_heads"]

    def norm(x, name):
        return layer_norm(x, t[f"{name}.weight"], t[f"{name}.bias"], 1e-5)

    at = "model.decoder"
    table = t[f"{at}.embed_positions.weight"]  # its first two rows belong to padding
    x = t[f"{at}.embed_tokens.weight"][ids] + table[2 : 2 + len(ids)]
    for i in range(c["num_hidden_layers"]):
        at = f"model.decoder.layers.{i}"
        q, k, v = projections(t, f"{at}.self_attn", norm(x, f"{at}.self_attn_layer_norm"), d)
        x = x + linear(t, f"{at}.self_attn.out_proj", attention(q, k, v, d**-0.5))
        h = linear(t, f"{at}.fc1", norm(x, f"{at}.final_layer_norm"))
        x = x + linear(t, f"{at}.fc2", ACTIVATIONS[c["activation_function"]](h))
    return norm(x, "model.decoder.final_layer_norm") @ t["model.decoder.embed_tokens.weight"].T


# ---- StableLM-2 ----------------------------------------------------------------------------------


def stablelm(c, t, ids, n_ctx):
    d, eps = head_dim_of(c), c["layer_norm_eps"]
    f = frequencies(int(d * c["partial_rotary_factor"]), c["rope_theta"])
    act = ACTIVATIONS[c["hidden_act"]]

    def norm(x, name):
        return layer_norm(x, t[f"{name}.weight"], t[f"{name}.bias"], eps)

    x = t["model.embed_tokens.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}"
        h = norm(x, f"{at}.input_layernorm")
        q, k, v = projections(t, f"{at}.self_attn", h, d)
        mixed = linear(t, f"{at}.self_attn.o_proj", attention(rotate(q, f), rotate(k, f), v, d**-0.5))
        if c.get("use_parallel_residual", False):
            x = x + mixed + gated(t, f"{at}.mlp", h, act)  # one norm for both
        else:
            x = x + mixed
            x = x + gated(t, f"{at}.mlp", norm(x, f"{at}.post_attention_layernorm"), act)
    return linear(t, "lm_head", norm(x, "model.norm"))


# ---- GPT-NeoX ------------------------------------------------------------------------------------


def gpt_neox(c, t, ids, n_ctx):
    d, eps = c["hidden_size"] // c["num_attention_heads"], c["layer_norm_eps"]
    f = frequencies(int(d * c["rotary_pct"]), c["rotary_emb_base"])
    act = ACTIVATIONS[c["hidden_act"]]

    def norm(x, name):
        return layer_norm(x, t[f"{name}.weight"], t[f"{name}.bias"], eps)

    def ffn(at, x):
        h = act(linear(t, f"{at}.mlp.dense_h_to_4h", norm(x, f"{at}.post_attention_layernorm")))
        return linear(t, f"{at}.mlp.dense_4h_to_h", h)

    x = t["gpt_neox.embed_in.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        at = f"gpt_neox.layers.{i}"
        h = norm(x, f"{at}.input_layernorm")
        qkv = linear(t, f"{at}.attention.query_key_value", h)
        qkv = qkv.reshape(len(ids), c["num_attention_heads"], 3 * d)  # of each head: query, key, value
        q, k, v = qkv[..., :d], qkv[..., d : 2 * d], qkv[..., 2 * d :]
        mixed = mix(c, t, f"{at}.attention", rotate(q, f), rotate(k, f), v, h)
        mixed = linear(t, f"{at}.attention.dense", mixed)
        if c["use_parallel_residual"]:
            x = x + mixed + ffn(at, x)  # a norm for each
        else:
            x = x + mixed
            x = x + ffn(at, x)
    return linear(t, "embed_out", norm(x, "gpt_neox.final_layer_norm"))


FAMILIES = {
    "llama": llama,
    "sparsellama": llama,
    "mistral": llama,
    "qwen2": llama,
    "qwen3": llama,
    "gemma": gemma,
    "gemma2": gemma,
    "gemma3_text": gemma,
    "phi3": phi3,
    "opt": opt,
    "stablelm": stablelm,
    "gpt_neox": gpt_neox,
}


def forward(config, tensors, ids, n_ctx):
    return FAMILIES[config["model_type"]](config, tensors, np.asarray(ids), n_ctx)
