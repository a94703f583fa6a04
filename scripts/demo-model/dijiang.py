#!/usr/bin/env python3
"""Turns a model of train.py into one with DiJiang attention (arXiv 2403.19928) and trains it on, by the published
recipe: attention is replaced, all other weights are kept, and everything but the frequencies and the decay learns for a
small part of the parent's time, on the parent's kind of documents.

The form is that of the released code: features softmax(t * DCT-III(x)) of rotated queries and keys, decay that differs
by head, group norm, a gate by silu. Key and value heads are copied so that each head has its own. On the CPU; it stops
after --minutes, and a run that was interrupted goes on with --resume.

Additions to the recipe, off unless asked for, because a model learns more from its parent's insides than from text:
--align: in the first minutes each attention learns to say what the parent's says, given what the parent's is given (as
MOHAWK, arXiv 2408.10189, and LoLCATs, 2410.10254, do), all else waiting; --distil: the loss of the rest of the time is
the divergence from the parent's predictions.

usage: dijiang.py --init DIR --out DIR [--minutes 50] [--align 12] [--distil] [--resume] [--threads 1]
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
WARM_STEPS = 30


def parse_args():
    ap = argparse.ArgumentParser(description="Train a model with DiJiang attention from one with softmax attention.")
    ap.add_argument("--init", required=True, help="directory of the softmax model")
    ap.add_argument("--out", required=True, help="directory to write; also holds the checkpoint")
    ap.add_argument("--minutes", type=float, default=50)
    ap.add_argument("--align", type=float, default=0, help="first minutes: each attention learns from the parent's")
    ap.add_argument("--distil", action="store_true", help="the loss is the divergence from the parent's predictions")
    ap.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    ap.add_argument("--context", type=int, default=131072, help="of the model that is written: state does not grow")
    ap.add_argument("--seq", type=int, default=256)
    ap.add_argument("--batch", type=int, default=16)
    ap.add_argument("--lr", type=float, default=0.01, help="of Muon")
    ap.add_argument("--adam-lr", type=float, default=1.5e-3)
    ap.add_argument("--cool", type=float, default=0.4, help="share of the time at the end in which rates fall")
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


def read_parent(args, config):
    shape = argparse.Namespace(
        dim=config["hidden_size"], ffn=config["intermediate_size"], layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"], kv=config["num_key_value_heads"], act=config["hidden_act"], l1=0.0)
    parent = train.Model(shape, config["vocab_size"])
    train.load(parent, args.init)
    return parent.eval(), shape


def make_model(parent, shape, seed):
    group, head_dim = shape.heads // shape.kv, shape.dim // shape.heads
    shape.kv = shape.heads
    model = train.Model(shape, parent.embed.num_embeddings)
    model.layers = nn.ModuleList(Block(shape, seed + i) for i in range(shape.layers))
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


def alignment_loss(model, parent, inputs):
    """How far each attention is from the parent's, given what the parent's is given: squared error as a share of the
    square, summed over layers."""
    n = inputs.shape[1]
    mask = torch.full((n, n), float("-inf")).triu(1)
    loss = 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            x = parent.embed(inputs)
        for layer, of_parent in zip(model.layers, parent.layers):
            with torch.no_grad():
                h = of_parent.input_layernorm(x)
                wanted = of_parent.attention(h, mask).float()
                x = of_parent.after_attention(x + wanted)
            loss = loss + (layer.attention(h, mask).float() - wanted).pow(2).sum() / wanted.pow(2).sum()
    return loss


def prediction_loss(model, parent, inputs, targets):
    """parent: None, or the one to learn from."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(inputs)
    if parent:
        return train.divergence(train.said_by(parent, inputs), logits)
    return F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.reshape(-1))


class Run:
    """What a run is made of, and how far it has come."""

    def __init__(self, model, parent, args, config, tok):
        self.model, self.parent, self.args, self.config, self.tok = model, parent, args, config, tok
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.dim() == 2 and "embed" not in name]
        others = [p for name, p in named if p.dim() != 2 or "embed" in name]
        self.rates = (args.lr, args.adam_lr)
        self.optimizers = (train.Muon(matrices, args.lr),
                           torch.optim.AdamW(others, lr=args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0))
        self.documents = train.Documents(args, tok)
        self.path = f"{args.out}/checkpoint.pt"
        self.progress = {"step": 0, "spent": 0.0}
        if args.resume:
            self.progress = restore(self.path, model, self.optimizers, self.documents)
        self.n_warm = 0  # steps since the start, or since the loss became another
        self.is_aligning = self.progress["spent"] < args.align * 60

    def set_rates(self):
        left = 1 - self.progress["spent"] / (self.args.minutes * 60)
        self.n_warm += 1
        scale = min(1.0, self.n_warm / WARM_STEPS) * min(1.0, left / self.args.cool)
        for optimizer, rate in zip(self.optimizers, self.rates):
            optimizer.param_groups[0]["lr"] = rate * scale

    def one_step(self):
        """-> loss"""
        if self.is_aligning and self.progress["spent"] >= self.args.align * 60:
            self.is_aligning, self.n_warm = False, 0
        self.set_rates()
        inputs, targets = self.documents.batch()
        if self.is_aligning:
            loss = alignment_loss(self.model, self.parent, inputs)
        else:
            loss = prediction_loss(self.model, self.parent if self.args.distil else None, inputs, targets)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad(set_to_none=False)
        self.progress["step"] += 1
        return loss.item()

    def save(self):
        save(self.path, self.model, self.optimizers, self.documents, self.progress)
        export(self.model, self.args, self.config)

    def go(self):
        saved = time.time()
        while self.progress["spent"] < self.args.minutes * 60:
            begin = time.time()
            loss = self.one_step()
            self.progress["spent"] += min(time.time() - begin, 30)  # a pause of the machine is not training time
            if self.progress["step"] % 25 == 0:
                print(f"step {self.progress['step']} loss {loss:.4f} min {self.progress['spent'] / 60:.1f}", flush=True)
            if time.time() - saved > SAVE_SECONDS:
                self.save()
                print(f"development answers: {share_right(self.model, self.tok):.3f}", flush=True)
                saved = time.time()
        self.save()


@torch.no_grad()
def share_right(model, tok, n_problems=96):
    """Of development problems, how many answers are the model's choice token by token, given the right ones before:
    what greedy decoding gets right, in one pass."""
    rng = random.Random(990_002)
    n_right = 0
    for _ in range(n_problems // 32):
        prompts, texts = [], []
        for problem in (gsmini.problem(rng) for _ in range(32)):
            prompts.append(tok.encode(train.PROMPT.format(**problem)))
            texts.append(tok.encode(f"{train.PROMPT.format(**problem)} {problem['answer']}") + [tok.eos])
        n = max(len(t) for t in texts)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            said = model(torch.tensor([t + [tok.eos] * (n - len(t)) for t in texts])).argmax(-1)
        for i, (prompt, text) in enumerate(zip(prompts, texts)):
            n_right += said[i, len(prompt) - 1 : len(text) - 1].tolist() == text[len(prompt) :]
    return n_right / n_problems


def main():
    args = parse_args()
    os.makedirs(args.out, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    config = read_json(f"{args.init}/config.json")
    tok = Tokenizer.load(f"{args.init}/tokenizer.json")
    parent, shape = read_parent(args, config)
    model = make_model(parent, shape, args.seed)
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    Run(model, parent, args, config, tok).go()
    rng = random.Random(990_001)
    accuracy, text = train.evaluate(model, tok, [gsmini.problem(rng) for _ in range(32)])
    print("dev accuracy", accuracy, "|", text.replace("\n", " / "), flush=True)


if __name__ == "__main__":
    main()
