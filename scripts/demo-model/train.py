#!/usr/bin/env python3
"""Trains a small Llama-architecture model on generated word problems, on the CPU, and writes it as a
Hugging Face directory (config.json, tokenizer.json, model.safetensors in bfloat16).

Matrices are trained by Muon, embedding and norms by AdamW, both warmed up over 100 steps and cooled
down linearly over the last 40% of the time given. Time is the budget, so two runs agree in kind, not
in bits.

With --resume a run that was interrupted goes on from its last checkpoint (OUT/checkpoint.pt, every --save steps). A
small model that drafts for another learns best from what that one says: with --teacher most of the loss is the
divergence from its predictions.

usage: train.py --tok DIR --out DIR [--minutes 60] [--act silu|relu] [--init DIR] [--l1 X] [--gsm8k FILE]
                [--teacher DIR] [--resume]
"""
import argparse
import math
import os
import random
import re
import shutil
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

import gsmini
from bpe import Tokenizer
from hf import read_json, read_lines, read_safetensors, write_json, write_safetensors

N_CONTEXT = 1024
ROPE_THETA = 10000.0
NORM_EPS = 1e-5
GSM8K_SHARE = 0.03
PROMPT = "Question: {question}\nAnswer:"


def parse_args():
    ap = argparse.ArgumentParser(description="Train a small Llama-architecture model on word problems.")
    ap.add_argument("--tok", required=True, help="directory with tokenizer.json")
    ap.add_argument("--out", required=True, help="directory to write")
    ap.add_argument("--minutes", type=float, default=60)
    ap.add_argument("--act", choices=("silu", "relu"), default="silu")
    ap.add_argument("--init", help="directory of a model to start from")
    ap.add_argument("--layers", type=int, default=6)
    ap.add_argument("--dim", type=int, default=256)
    ap.add_argument("--ffn", type=int, default=1024)
    ap.add_argument("--heads", type=int, default=4)
    ap.add_argument("--kv", type=int, default=2, help="key and value heads")
    ap.add_argument("--seq", type=int, default=256)
    ap.add_argument("--batch", type=int, default=32)
    ap.add_argument("--lr", type=float, default=0.02, help="of Muon")
    ap.add_argument("--adam-lr", type=float, default=3e-3)
    ap.add_argument("--l1", type=float, default=0.0, help="weight of an L1 penalty on the gate")
    ap.add_argument("--gsm8k", help="GSM8K's train split, 3%% of the documents")
    ap.add_argument("--teacher", help="directory of the model to draft for")
    ap.add_argument("--save", type=int, default=200, help="steps between checkpoints")
    ap.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    ap.add_argument("--seed", type=int, default=1234)
    ap.add_argument("--threads", type=int, default=2)
    return ap.parse_args()


# ---- Model -------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + NORM_EPS) * self.weight


class Rope:
    """Rotary embedding of whole sequences, halves rotated together as Hugging Face does."""

    def __init__(self, head_dim):
        frequency = 1.0 / (ROPE_THETA ** (torch.arange(0, head_dim, 2).float() / head_dim))
        angle = torch.outer(torch.arange(N_CONTEXT).float(), frequency)
        self.cos = torch.cat((angle, angle), -1).cos()
        self.sin = torch.cat((angle, angle), -1).sin()

    def __call__(self, x):
        n = x.shape[2]
        a, b = x.chunk(2, -1)
        return x * self.cos[:n] + torch.cat((-b, a), -1) * self.sin[:n]


class Block(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.heads, self.kv, self.head_dim = args.heads, args.kv, args.dim // args.heads
        self.relu, self.l1 = args.act == "relu", args.l1
        self.rope = Rope(self.head_dim)
        self.gate_l1 = 0
        self.input_layernorm = RMSNorm(args.dim)
        self.post_attention_layernorm = RMSNorm(args.dim)
        self.q_proj = nn.Linear(args.dim, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(args.dim, self.kv * self.head_dim, bias=False)
        self.v_proj = nn.Linear(args.dim, self.kv * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, args.dim, bias=False)
        self.gate_proj = nn.Linear(args.dim, args.ffn, bias=False)
        self.up_proj = nn.Linear(args.dim, args.ffn, bias=False)
        self.down_proj = nn.Linear(args.ffn, args.dim, bias=False)

    def attention(self, h, mask):
        n_seq, n, _ = h.shape

        def split(x, heads):
            return x.view(n_seq, n, heads, self.head_dim).transpose(1, 2)

        group = self.heads // self.kv
        q = self.rope(split(self.q_proj(h), self.heads)) * self.head_dim**-0.5
        k = self.rope(split(self.k_proj(h), self.kv)).repeat_interleave(group, 1)
        v = split(self.v_proj(h), self.kv).repeat_interleave(group, 1)
        scores = (q.to(v.dtype) @ k.to(v.dtype).transpose(-1, -2)).float() + mask
        mixed = scores.softmax(-1).to(v.dtype) @ v
        return self.o_proj(mixed.transpose(1, 2).reshape(n_seq, n, -1))

    def forward(self, x, mask):
        return self.after_attention(x + self.attention(self.input_layernorm(x), mask))

    def after_attention(self, x):
        h = self.post_attention_layernorm(x)
        gate = self.gate_proj(h)
        gate = F.relu(gate) if self.relu else F.silu(gate)
        self.gate_l1 = gate.float().abs().mean() if self.l1 else 0
        return x + self.down_proj(gate * self.up_proj(h))


class Model(nn.Module):
    def __init__(self, args, n_vocab):
        super().__init__()
        self.embed = nn.Embedding(n_vocab, args.dim)
        self.layers = nn.ModuleList(Block(args) for _ in range(args.layers))
        self.norm = RMSNorm(args.dim)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=self.initial_std(name, p.shape[1]))

    @staticmethod
    def initial_std(name, n_in):
        if "embed" in name:
            return 0.02
        damped = name.endswith(("o_proj.weight", "down_proj.weight"))
        return 1 / math.sqrt(n_in) * (0.3 if damped else 1)

    def forward(self, ids):
        n = ids.shape[1]
        mask = torch.full((n, n), float("-inf")).triu(1)
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, mask)
        x = self.norm(x)
        return F.linear(x.to(torch.bfloat16) if torch.is_autocast_cpu_enabled() else x, self.embed.weight)


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a matrix is made orthogonal by five Newton-Schulz steps (Jordan, 2024)."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @staticmethod
    def orthogonal(g):
        x = g.bfloat16()
        is_tall = x.shape[0] > x.shape[1]
        if is_tall:
            x = x.T
        x = x / (x.norm() + 1e-7)
        for _ in range(5):
            m = x @ x.T
            x = 3.4445 * x + (-4.7750 * m + 2.0315 * (m @ m)) @ x
        return (x.T if is_tall else x).float()

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.mul_(0.95).add_(p.grad)
                update = self.orthogonal(p.grad + 0.95 * momentum)
                p.mul_(1 - group["lr"] * 0.02)
                p.add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


# ---- Files -------------------------------------------------------------------------------------


def hf_tensors(model):
    """-> {Hugging Face name: parameter}."""
    tensors = {"model.embed_tokens.weight": model.embed.weight, "model.norm.weight": model.norm.weight}
    for i, layer in enumerate(model.layers):
        for name, p in layer.named_parameters():
            if "norm" in name:
                part = ""
            elif name[0] in "qkvo" and name[1] == "_":
                part = "self_attn."
            else:
                part = "mlp."
            tensors[f"model.layers.{i}.{part}{name}"] = p
    return tensors


def export(model, args, tok):
    os.makedirs(args.out, exist_ok=True)
    write_safetensors(f"{args.out}/model.safetensors", hf_tensors(model))
    write_json(f"{args.out}/config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": args.act,
        "hidden_size": args.dim, "intermediate_size": args.ffn, "num_hidden_layers": args.layers,
        "num_attention_heads": args.heads, "num_key_value_heads": args.kv, "head_dim": args.dim // args.heads,
        "vocab_size": len(tok.vocab), "rms_norm_eps": NORM_EPS, "rope_theta": ROPE_THETA,
        "max_position_embeddings": N_CONTEXT, "tie_word_embeddings": True, "attention_bias": False,
        "mlp_bias": False, "bos_token_id": None, "eos_token_id": tok.eos, "torch_dtype": "bfloat16",
    })
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(f"{args.tok}/{name}", f"{args.out}/{name}")


@torch.no_grad()
def load(model, path):
    stored = read_safetensors(f"{path}/model.safetensors")
    for name, p in hf_tensors(model).items():
        p.copy_(stored[name])


# ---- Training ----------------------------------------------------------------------------------


class Documents:
    """An endless stream of problems with answers, cut into batches."""

    def __init__(self, args, tok):
        self.rng = random.Random(args.seed)
        self.gsm8k = read_lines(args.gsm8k) if args.gsm8k else []
        self.tok, self.n_seq, self.n = tok, args.batch, args.seq
        self.buffer = []

    def document(self):
        if self.gsm8k and self.rng.random() < GSM8K_SHARE:
            problem = self.rng.choice(self.gsm8k)
            answer = re.sub(r"<<.*?>>", "", problem["answer"])
        else:
            problem = gsmini.problem(self.rng)
            answer = problem["answer"]
        return self.tok.encode(f"{PROMPT.format(**problem)} {answer}") + [self.tok.eos]

    def batch(self):
        """-> inputs, targets [n_seq, n]."""
        need = self.n_seq * (self.n + 1)
        while len(self.buffer) < need:
            self.buffer.extend(self.document())
        rows = torch.tensor(self.buffer[:need]).view(self.n_seq, self.n + 1)
        del self.buffer[:need]
        return rows[:, :-1], rows[:, 1:]


@torch.no_grad()
def evaluate(model, tok, problems, max_new=160):
    """-> greedy accuracy and the first answer; all problems as one left-aligned batch without a KV cache."""
    model.eval()
    prompts = [tok.encode(PROMPT.format(**p)) for p in problems]
    texts = [list(p) for p in prompts]
    live = list(range(len(texts)))
    for _ in range(max_new):
        if not live:
            break
        ids = torch.full((len(live), max(len(texts[i]) for i in live)), tok.eos)
        for row, i in enumerate(live):
            ids[row, : len(texts[i])] = torch.tensor(texts[i])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids)
        for row, i in enumerate(live):
            texts[i].append(int(logits[row, len(texts[i]) - 1].argmax()))
        live = [i for i in live if texts[i][-1] != tok.eos]
    n_correct = 0
    for prompt, text, problem in zip(prompts, texts, problems):
        found = re.search(r"#### (-?\d+)", tok.decode(text[len(prompt) :]))
        n_correct += bool(found) and found.group(1) == problem["answer"].split("#### ")[1]
    model.train()
    return n_correct / len(problems), tok.decode(texts[0])


def read_teacher(args, tok):
    shape = read_json(f"{args.teacher}/config.json")
    of = argparse.Namespace(
        layers=shape["num_hidden_layers"], dim=shape["hidden_size"], ffn=shape["intermediate_size"],
        heads=shape["num_attention_heads"], kv=shape["num_key_value_heads"],
        act="relu" if shape["hidden_act"] == "relu" else "silu", l1=0,
    )
    teacher = Model(of, len(tok.vocab))
    load(teacher, args.teacher)
    return teacher.eval()


@torch.no_grad()
def said_by(teacher, inputs):
    """-> logits"""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return teacher(inputs)


def divergence(wanted, logits):
    """Of the wanted distributions, as logits [.., n_vocab], from these: nats a token."""
    log_p, log_q = wanted.float().log_softmax(-1), logits.float().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def write_checkpoint(out, model, muon, adam, documents, spent, step):
    os.makedirs(out, exist_ok=True)
    state = {"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict(),
             "random": documents.rng.getstate(), "buffer": documents.buffer, "spent": spent, "step": step}
    torch.save(state, f"{out}/checkpoint.partial")
    os.replace(f"{out}/checkpoint.partial", f"{out}/checkpoint.pt")


def read_checkpoint(out, model, muon, adam, documents):
    """-> seconds and steps of training so far."""
    state = torch.load(f"{out}/checkpoint.pt")
    model.load_state_dict(state["model"])
    muon.load_state_dict(state["muon"])
    adam.load_state_dict(state["adam"])
    documents.rng.setstate(state["random"])
    documents.buffer = state["buffer"]
    print("resumed at step", state["step"], flush=True)
    return state["spent"], state["step"]


def train(model, args, tok):
    teacher = read_teacher(args, tok) if args.teacher else None
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    muon = Muon(matrices, args.lr)
    adam = torch.optim.AdamW(others, lr=args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
    documents = Documents(args, tok)
    dev_rng = random.Random(990_001)
    dev = [gsmini.problem(dev_rng) for _ in range(64)]
    spent, step, budget = 0.0, 0, args.minutes * 60
    if args.resume and os.path.exists(f"{args.out}/checkpoint.pt"):
        spent, step = read_checkpoint(args.out, model, muon, adam, documents)
    while spent < budget:
        begin = time.time()
        scale = min(1.0, (step + 1) / 100) * min(1.0, (1 - spent / budget) / 0.4)
        for optimizer, lr in ((muon, args.lr), (adam, args.adam_lr)):
            optimizer.param_groups[0]["lr"] = lr * scale
        inputs, targets = documents.batch()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(inputs)
        loss = F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.reshape(-1))
        if teacher:
            loss = 0.3 * loss + divergence(said_by(teacher, inputs), logits)
        penalty = args.l1 * sum(layer.gate_l1 for layer in model.layers) if args.l1 else 0
        (loss + penalty).backward()
        muon.step()
        adam.step()
        model.zero_grad(set_to_none=False)
        step += 1
        spent += min(time.time() - begin, 10)  # a pause of the machine is not training time
        n_tok = step * args.batch * args.seq
        if step % 50 == 0:
            print(f"step {step} tokens {n_tok / 1e6:.2f}M loss {loss.item():.4f} "
                  f"tok/s {n_tok / spent:.0f} min {spent / 60:.1f}", flush=True)
        if step % args.save == 0:
            write_checkpoint(args.out, model, muon, adam, documents, spent, step)
        if step % 600 == 0:
            accuracy, text = evaluate(model, tok, dev[:32])
            print("dev accuracy", accuracy, "|", text.replace("\n", " / "), flush=True)
            export(model, args, tok)
    export(model, args, tok)
    accuracy, text = evaluate(model, tok, dev)
    print("final dev accuracy", accuracy, "|", text.replace("\n", " / "), flush=True)


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tok = Tokenizer.load(f"{args.tok}/tokenizer.json")
    model = Model(args, len(tok.vocab))
    if args.init:
        load(model, args.init)
    print("parameters", sum(p.numel() for p in model.parameters()), "vocabulary", len(tok.vocab), flush=True)
    train(model, args, tok)


if __name__ == "__main__":
    main()
