#!/usr/bin/env python3
"""Independent reference for what the engine must do: dense, contextually sparse and corrected greedy
decoding of a Hugging Face Llama-type directory, in plain float32 PyTorch. Prints one JSON line a mode.

It shares no code with the engine and is written for reading, not for speed: the KV cache grows by
concatenation and neurons are switched off by multiplying with a mask of zeros and ones.

usage: oracle.py MODEL_DIR PROBLEMS.jsonl [--limit N] [--keep 0.5] [--period 16] [--thr 0.1] [--modes ...] [--dump FILE]
modes: dense griffin topk griffin+sirius topk+sirius griffin+exact topk+exact
"""
import argparse
import contextlib
import json
import math
import re
import time

import torch
import torch.nn.functional as F

from bpe import Tokenizer
from hf import read_json, read_lines, read_safetensors

MODES = "dense,griffin,topk,griffin+sirius,topk+sirius,griffin+exact,topk+exact"
CHECK_TEMPERATURE = 0.6
PROMPT = "Question: {question}\nAnswer:"

torch.set_grad_enabled(False)


class Llama:
    """The model and one sequence: KV cache, its length n, and GRIFFIN's choice of neurons."""

    def __init__(self, path):
        self.config = config = read_json(f"{path}/config.json")
        self.weights = read_safetensors(f"{path}/model.safetensors")
        self.n_layers = config["num_hidden_layers"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim = config.get("head_dim", config["hidden_size"] // self.heads)
        frequency = 1.0 / (config["rope_theta"] ** (torch.arange(0, self.head_dim, 2).float() / self.head_dim))
        angle = torch.outer(torch.arange(config["max_position_embeddings"]).float(), frequency)
        self.cos, self.sin = torch.cat((angle, angle), -1).cos(), torch.cat((angle, angle), -1).sin()
        self.act = F.relu if config["hidden_act"] == "relu" else F.silu
        self.embedding = self.weights["model.embed_tokens.weight"]
        self.head = self.weights.get("lm_head.weight", self.embedding)
        self.reset()

    def reset(self):
        self.n = 0
        self.keys, self.values = [None] * self.n_layers, [None] * self.n_layers
        self.selected = [None] * self.n_layers

    def rollback(self, n):
        self.n = n
        self.keys = [k[:, :n] for k in self.keys]
        self.values = [v[:, :n] for v in self.values]

    def density(self, predictor, keep):
        """Share of all parameters that a sparse pass uses; topk computes every gate."""
        if predictor == "dense":
            return 1.0
        total = sum(w.numel() for w in self.weights.values())
        ffn = sum(w.numel() for name, w in self.weights.items() if ".mlp." in name)
        dropped = (1 - keep) if predictor == "griffin" else (1 - keep) * 2 / 3
        return 1 - ffn * dropped / total

    def norm(self, x, name):
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return x * scale * self.weights[name]

    def rope(self, x):
        a, b = x.chunk(2, -1)
        here = slice(self.n, self.n + x.shape[1])
        return x * self.cos[here] + torch.cat((-b, a), -1) * self.sin[here]

    def attention(self, i, h, mask):
        n = h.shape[0]

        def project(name, heads):
            w = self.weights[f"model.layers.{i}.self_attn.{name}.weight"]
            return F.linear(h, w).view(n, heads, self.head_dim).transpose(0, 1)

        q = self.rope(project("q_proj", self.heads))
        k = self.rope(project("k_proj", self.kv_heads))
        v = project("v_proj", self.kv_heads)
        if self.keys[i] is not None:
            k, v = torch.cat((self.keys[i], k), 1), torch.cat((self.values[i], v), 1)
        self.keys[i], self.values[i] = k, v
        group = self.heads // self.kv_heads
        scores = (q @ k.repeat_interleave(group, 0).transpose(1, 2)) / math.sqrt(self.head_dim) + mask
        mixed = (scores.softmax(-1) @ v.repeat_interleave(group, 0)).transpose(0, 1).reshape(n, -1)
        return mixed @ self.weights[f"model.layers.{i}.self_attn.o_proj.weight"].T

    def ffn(self, i, h, predictor, keep, collect):
        gate, up, down = (self.weights[f"model.layers.{i}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        a = self.act(F.linear(h, gate))
        n_keep = int(keep * a.shape[1])
        if predictor == "topk":
            largest = a.abs().topk(n_keep, -1).indices
            a = torch.zeros_like(a).scatter(1, largest, a.gather(1, largest))
        z = a * F.linear(h, up)
        if collect:
            norm = z.norm(dim=1, keepdim=True)  # a position without any active neuron has no say
            statistic = torch.where(norm > 0, z / norm, torch.zeros_like(z)).norm(dim=0)
            self.selected[i] = torch.zeros(a.shape[1])
            self.selected[i][statistic.topk(n_keep).indices] = 1
        if predictor == "griffin":
            z = z * self.selected[i]
        return F.linear(z, down)

    def forward(self, ids, predictor="dense", keep=0.5, collect=False):
        """Tokens at positions n, n+1, .. -> logits [len(ids), vocabulary]; the KV cache grows by them.
        collect: choose GRIFFIN's neurons from this (dense) pass."""
        x = self.embedding[ids]
        mask = torch.full((len(ids), self.n + len(ids)), float("-inf")).triu(self.n + 1)
        for i in range(self.n_layers):
            x = x + self.attention(i, self.norm(x, f"model.layers.{i}.input_layernorm.weight"), mask)
            h = self.norm(x, f"model.layers.{i}.post_attention_layernorm.weight")
            x = x + self.ffn(i, h, predictor, keep, collect)
        self.n += len(ids)
        return self.norm(x, "model.norm.weight") @ self.head.T


class Counters:
    """What one answer, or all answers of a mode, took. *_tail: by the last check of each answer."""

    NAMES = ("checks", "gained", "checks_tail", "gained_tail", "sparse", "dense")

    def __init__(self):
        for name in self.NAMES:
            setattr(self, name, 0)

    def add(self, other):
        for name in self.NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def n_accepted(logits, block, rule, threshold):
    """How many draft tokens block[1:] the full model's logits keep, from the first on."""
    p = (logits / CHECK_TEMPERATURE).softmax(-1)
    for j in range(1, len(block)):
        if rule == "sirius":
            kept = float(p[j - 1, block[j]]) >= threshold
        else:
            kept = int(logits[j - 1].argmax()) == block[j]
        if not kept:
            return j - 1
    return len(block) - 1


def generate(model, prompt, mode, args, eos):
    """Greedy answer of at most args.max_new tokens (a last block may go past it) -> tokens, counters."""
    predictor, _, rule = mode.partition("+")
    count = Counters()
    model.reset()
    logits = model.forward(prompt, "dense", args.keep, collect=predictor == "griffin")
    out = [int(logits[-1].argmax())]

    def extend():
        out.append(int(model.forward([out[-1]], predictor, args.keep)[-1].argmax()))

    if not rule:
        while out[-1] != eos and len(out) < args.max_new:
            extend()
        passes = len(out) - 1
        count.dense, count.sparse = (passes, 0) if predictor == "dense" else (0, passes)
        return out, count
    while out[-1] != eos and len(out) < args.max_new:
        start = len(out) - 1  # out[start] is verified, its KV row is not yet written
        while len(out) - start < args.period and out[-1] != eos:
            extend()
            count.sparse += 1
        model.rollback(len(prompt) + start)
        block = out[start:]
        logits = model.forward(block, "dense")
        count.dense += 1
        n = n_accepted(logits, block, rule, args.thr)
        gained = n + (block[n] != eos)
        count.checks, count.checks_tail = count.checks + 1, 1
        count.gained, count.gained_tail = count.gained + gained, gained
        del out[start + n + 1 :]
        if out[-1] == eos:
            break
        out.append(int(logits[n].argmax()))
        model.rollback(len(prompt) + start + n + 1)
    return out, count


def is_correct(text, problem):
    found = re.search(r"#### (-?\d+)", text)
    return bool(found) and found.group(1) == problem["answer"].split("#### ")[1].replace(",", "")


def evaluate(model, tok, problems, mode, args, dense, dump):
    """One mode over all problems -> its row of results. dense: answers of the dense mode, filled by it."""
    begin, total = time.time(), Counters()
    n_correct = n_same = n_tokens = 0
    for i, problem in enumerate(problems):
        out, count = generate(model, tok.encode(PROMPT.format(**problem)), mode, args, tok.eos)
        if mode == "dense":
            dense[i] = out
        n_same += out == dense.get(i)
        n_tokens += len(out)
        n_correct += is_correct(tok.decode(out), problem)
        total.add(count)
        if dump:
            dump.write(json.dumps({"mode": mode, "problem": i, "tokens": out}) + "\n")
    d = model.density(mode.partition("+")[0], args.keep)
    paper_checks = total.checks - total.checks_tail
    aal = total.gained / total.checks if total.checks else 0
    aal_paper = (total.gained - total.gained_tail) / paper_checks if paper_checks else 0
    effective = ((args.period - 1) * d + 1) / aal_paper if aal_paper else d
    work = (total.sparse * d + total.dense) / max(1, n_tokens - len(problems))
    return {
        "mode": mode, "n": len(problems), "accuracy": round(n_correct / len(problems), 4),
        "same_as_dense": round(n_same / len(problems), 4), "density": round(d, 4), "keep": args.keep,
        "period": args.period, "threshold": args.thr, "aal": round(aal, 3), "aal_paper": round(aal_paper, 3),
        "checks": total.checks, "sparse_passes": total.sparse, "dense_passes": total.dense,
        "effective_density": round(effective, 4), "tokens": n_tokens, "work_per_token": round(work, 4),
        "s": round(time.time() - begin, 1),
    }


def parse_args():
    ap = argparse.ArgumentParser(description="Reference decoding in float32 PyTorch.")
    ap.add_argument("model", help="Hugging Face directory")
    ap.add_argument("problems", help="JSON lines with question and answer")
    ap.add_argument("--limit", type=int, default=100)
    ap.add_argument("--keep", type=float, default=0.5)
    ap.add_argument("--period", type=int, default=16)
    ap.add_argument("--thr", type=float, default=0.1, help="acceptance threshold of +sirius")
    ap.add_argument("--modes", default=MODES, help="comma-separated; default: %(default)s")
    ap.add_argument("--max-new", type=int, default=256)
    ap.add_argument("--dump", help="write every answer's tokens to this file")
    return ap.parse_args()


def main():
    args = parse_args()
    torch.set_num_threads(1)
    model = Llama(args.model)
    tok = Tokenizer.load(f"{args.model}/tokenizer.json")
    problems = read_lines(args.problems)[: args.limit]
    dense = {}
    with open(args.dump, "w", encoding="utf-8") if args.dump else contextlib.nullcontext() as dump:
        for mode in args.modes.split(","):
            print(json.dumps(evaluate(model, tok, problems, mode, args, dense, dump)), flush=True)


if __name__ == "__main__":
    main()
