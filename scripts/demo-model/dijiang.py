#!/usr/bin/env python3
"""Turns a model of train.py into one with DiJiang attention (arXiv 2403.19928) and trains it on, by the published recipe:
attention is replaced, all other weights are kept, and everything but the frequencies and the decay learns for a small
part of the parent's time, on the parent's kind of documents.

The form is that of the released code: features softmax(t * DCT-III(x)) of rotated queries and keys, decay that differs
by head, group norm, a gate by silu. Key and value heads are copied so that each head has its own. On the CPU; it stops
after --minutes, and a run that was interrupted goes on with --resume.

usage: dijiang.py --init DIR --out DIR [--minutes 50] [--resume] [--threads 1]
"""
import argparse
import math
import os
import pickle
import random
import shutil
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

import gsmini
import train
from bpe import Tokenizer
from hf import read_json, write_json, write_safetensors

GROUP_NORM_EPS = 1e-5
TABLE_LEN = 2  # of the decay tables: it goes on geometrically
SAVE_SECONDS = 240


def parse_args():
    ap = argparse.ArgumentParser(description="Train a model with DiJiang attention from one with softmax attention.")
    ap.add_argument("--init", required=True, help="directory of the softmax model")
    ap.add_argument("--out", required=True, help="directory to write; also holds the checkpoint")
    ap.add_argument("--minutes", type=float, default=50)
    ap.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    ap.add_argument("--context", type=int, default=131072, help="of the model that is written: state does not grow")
    ap.add_argument("--seq", type=int, default=256)
    ap.add_argument("--batch", type=int, default=16)
    ap.add_argument("--lr", type=float, default=0.01, help="of Muon")
    ap.add_argument("--adam-lr", type=float, default=1.5e-3)
    ap.add_argument("--gsm8k", help="GSM8K's train split, 3%% of the documents")
    ap.add_argument("--seed", type=int, default=4321)
    ap.add_argument("--threads", type=int, default=1)
    return ap.parse_args()


# ---- Model -------------------------------------------------------------------------------------


def dct_matrix(d):
    """-> the orthonormal DCT-II: row k holds frequency k."""
    n = torch.arange(d, dtype=torch.float64)
    c = torch.cos(math.pi * (2 * n + 1) * n[:, None] / (2 * d)) * math.sqrt(2 / d)
    c[0] /= math.sqrt(2)
    return c.float()


def normal_points(d, seed):
    """-> d points of a normal distribution by quantiles of equal weight (quasi-Monte-Carlo), in a random order."""
    u = (torch.arange(d, dtype=torch.float64) + 0.5) / d
    t = math.sqrt(2) * torch.erfinv(2 * u - 1)
    return t[torch.randperm(d, generator=torch.Generator().manual_seed(seed))].float()


def decays(heads):
    return 1 - torch.exp(torch.linspace(math.log(1 / 32), math.log(1 / 512), heads))


class Block(train.Block):
    """A block of the parent with another attention."""

    def __init__(self, args, seed):
        super().__init__(args)
        v_dim = self.heads * self.head_dim
        self.W_G = nn.Parameter(torch.empty(args.dim, v_dim))
        nn.init.xavier_uniform_(self.W_G, gain=2**-2.5)
        self.group_norm = nn.GroupNorm(self.head_dim, v_dim, eps=GROUP_NORM_EPS)
        self.t = normal_points(self.head_dim, seed)
        self.proj_matrix = dct_matrix(self.head_dim) * self.t
        self.gamma = decays(self.heads)
        n = torch.arange(train.N_CONTEXT)
        distance = (n[:, None] - n).clamp(min=0)
        self.decay = self.gamma[:, None, None] ** distance * (n[:, None] >= n)

    def attention(self, h, mask):
        n_seq, n, _ = h.shape

        def split(x):
            return x.view(n_seq, n, self.heads, self.head_dim).transpose(1, 2)

        def features(x):
            return (self.rope(split(x).float()) @ self.proj_matrix).softmax(-1)

        scores = features(self.q_proj(h)) @ features(self.k_proj(h)).transpose(-1, -2) * self.decay[:, :n, :n]
        mixed = scores.to(h.dtype) @ split(self.v_proj(h)).to(h.dtype)
        mixed = self.group_norm(mixed.transpose(1, 2).reshape(n_seq * n, -1).float()).view(n_seq, n, -1)
        return self.o_proj(F.silu(h @ self.W_G) * mixed)


def make_model(args, config):
    shape = argparse.Namespace(
        dim=config["hidden_size"], ffn=config["intermediate_size"], layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"], kv=config["num_key_value_heads"], act=config["hidden_act"], l1=0.0)
    parent = train.Model(shape, config["vocab_size"])
    train.load(parent, args.init)
    group, head_dim = shape.heads // shape.kv, shape.dim // shape.heads
    shape.kv = shape.heads
    model = train.Model(shape, config["vocab_size"])
    model.layers = nn.ModuleList(Block(shape, args.seed + i) for i in range(shape.layers))
    kept = parent.state_dict()
    for name in kept:
        if name.endswith(("k_proj.weight", "v_proj.weight")):
            heads = kept[name].view(-1, head_dim, shape.dim)
            kept[name] = heads.repeat_interleave(group, 0).reshape(-1, shape.dim)
    model.load_state_dict(kept, strict=False)
    return model


# ---- Files -------------------------------------------------------------------------------------


def tables(layer):
    """What does not learn, as the released code stores it."""
    n = torch.arange(TABLE_LEN, dtype=torch.float64)
    d1 = (layer.gamma.double()[:, None] ** n).view(1, layer.heads, TABLE_LEN, 1)
    return {"self_attn.proj_matrix": layer.proj_matrix, "self_attn.D1": d1, "self_attn.D2": 1 / d1}


def hf_tensors(model):
    """-> {name: tensor}, {name: table, kept in float32}."""
    tensors = {"model.embed_tokens.weight": model.embed.weight, "model.norm.weight": model.norm.weight}
    exact = {}
    for i, layer in enumerate(model.layers):
        for name, p in layer.named_parameters():
            if name.startswith(("q_", "k_", "v_", "o_", "W_G", "group_norm")):
                name = "self_attn." + name
            elif "norm" not in name:
                name = "mlp." + name
            tensors[f"model.layers.{i}.{name}"] = p
        exact.update({f"model.layers.{i}.{name}": t for name, t in tables(layer).items()})
    return tensors, exact


def export(model, args, config):
    tensors, exact = hf_tensors(model)
    write_safetensors(f"{args.out}/model.safetensors", tensors, exact)
    write_json(f"{args.out}/config.json", {
        **config, "num_key_value_heads": config["num_attention_heads"], "max_position_embeddings": args.context,
        "dijiang_form": "released", "dijiang_table_len": TABLE_LEN})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(f"{args.init}/{name}", f"{args.out}/{name}")


def save(path, model, optimizers, documents, progress):
    state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
             "documents": pickle.dumps((documents.rng.getstate(), documents.buffer)), **progress}
    torch.save(state, f"{path}.partial")
    os.replace(f"{path}.partial", path)


def restore(path, model, optimizers, documents):
    """-> progress."""
    state = torch.load(path)
    model.load_state_dict(state["model"])
    for optimizer, stored in zip(optimizers, state["optimizers"]):
        optimizer.load_state_dict(stored)
    rng, documents.buffer = pickle.loads(state["documents"])
    documents.rng.setstate(rng)
    return {"step": state["step"], "spent": state["spent"]}


# ---- Training ----------------------------------------------------------------------------------


def one_step(model, optimizers, documents):
    inputs, targets = documents.batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(inputs)
    loss = F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.reshape(-1))
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    model.zero_grad(set_to_none=False)
    return loss.item()


def fine_tune(model, args, config, tok):
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in named if p.dim() != 2 or "embed" in name]
    rates = (args.lr, args.adam_lr)
    optimizers = (train.Muon(matrices, args.lr),
                  torch.optim.AdamW(others, lr=args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0))
    documents = train.Documents(args, tok)
    path = f"{args.out}/checkpoint.pt"
    progress = restore(path, model, optimizers, documents) if args.resume else {"step": 0, "spent": 0.0}
    budget, saved = args.minutes * 60, time.time()
    while progress["spent"] < budget:
        begin = time.time()
        scale = min(1.0, (progress["step"] + 1) / 50) * min(1.0, (1 - progress["spent"] / budget) / 0.4)
        for optimizer, rate in zip(optimizers, rates):
            optimizer.param_groups[0]["lr"] = rate * scale
        loss = one_step(model, optimizers, documents)
        progress["step"] += 1
        progress["spent"] += min(time.time() - begin, 30)  # a pause of the machine is not training time
        if progress["step"] % 25 == 0:
            n_tok = progress["step"] * args.batch * args.seq
            print(f"step {progress['step']} tokens {n_tok / 1e6:.2f}M loss {loss:.4f} "
                  f"min {progress['spent'] / 60:.1f}", flush=True)
        if time.time() - saved > SAVE_SECONDS:
            save(path, model, optimizers, documents, progress)
            export(model, args, config)
            saved = time.time()
    save(path, model, optimizers, documents, progress)
    export(model, args, config)


def main():
    args = parse_args()
    os.makedirs(args.out, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    config = read_json(f"{args.init}/config.json")
    tok = Tokenizer.load(f"{args.init}/tokenizer.json")
    model = make_model(args, config)
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    fine_tune(model, args, config, tok)
    rng = random.Random(990_001)
    accuracy, text = train.evaluate(model, tok, [gsmini.problem(rng) for _ in range(32)])
    print("dev accuracy", accuracy, "|", text.replace("\n", " / "), flush=True)


if __name__ == "__main__":
    main()
