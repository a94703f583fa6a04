#!/usr/bin/env python3
"""Fine-tunes a model of this folder to guess many tokens at once (consistency large language models, arXiv
2403.00835), on the CPU, and writes it as a Hugging Face directory. The result is an ordinary checkpoint: `mirzam
import` takes it, and `--draft jacobi` decodes it in fewer passes.

A Jacobi trajectory starts from guesses drawn from the prompt behind one right token, and goes on with what the model
says behind each guess until nothing changes: that fixed point is the greedy text. The model learns to say at every
point of a trajectory what it says at the fixed point.

Fixed points: the answers of generated problems that the model itself would write. One pass shows it: an answer is the
greedy text if and only if every token of it is the model's choice behind those before. Others, one in five, are left
out.

Trajectories: those of the model as it is now, not of the one it started as: each batch keeps its state, and the pass
that trains it also gives its next state. So trajectories cost nothing, and their points are the ones that decoding will
meet. Now and then the end of a block is drawn anew, as it is where a window of guesses moves with the text.

Layout of a row: problem and answer, then copies of the answer in which blocks of n tokens are guesses. A copy's token
stands at its place in the text and sees the text before its block and its block up to itself. One pass gives the
logits of the fixed point and of every guess.

Loss: cross-entropy of guesses' logits against the fixed point's (no gradient through those), from the first wrong guess
of a block on; plus --ar times that of the answers themselves. The published loss weighs all places alike; --fade below
1 gives less weight to those far behind the first wrong guess, which cannot be known yet and cost a short run its time.
Matrices by Muon, the rest by AdamW, as in train.py.

Additions to the recipe, off unless asked for; they keep what the parent knows, which a short run soon loses otherwise:
--soft: answers learn the parent's distributions instead of its choices; --fresh: at every step also answers that were
not seen before, without guesses; --start and --share: begins with a mean of a first run's weights and the parent's.

usage: cllm.py --init DIR --out DIR [--minutes 60] [--n 16] [--copies 4] [--fade 0.85]
               [--soft] [--fresh N] [--start DIR --share X]
       It goes on from OUT/state.pt if that is there; --minutes counts what has been spent already.
"""
import argparse
import os
import random
import re
import time

import torch
import torch.nn.functional as F

import gsmini
import train
from bpe import Tokenizer
from hf import read_json

MAX_LENGTH = 448  # tokens of a problem with its answer
AR_WEIGHT = 10.0
REDRAW = 0.25  # share of blocks whose end is drawn anew
MAX_POINTS = 6  # of a trajectory
N_BATCHES = 8  # under way at once
NO_TARGET = -1


def parse_args():
    ap = argparse.ArgumentParser(description="Fine-tune a small model for Jacobi decoding.")
    ap.add_argument("--init", required=True, help="directory of the model to start from")
    ap.add_argument("--out", required=True, help="directory to write")
    ap.add_argument("--minutes", type=float, default=60, help="of training in all, evaluation left out")
    ap.add_argument("--n", type=int, default=16, help="tokens of a block, the right one at its head included")
    ap.add_argument("--copies", type=int, default=4, help="of each answer, with other blocks")
    ap.add_argument("--batch", type=int, default=10, help="problems")
    ap.add_argument("--fade", type=float, default=0.85, help="weight of a place by the one before; 1: published")
    ap.add_argument("--soft", action="store_true", help="answers learn the parent's distributions")
    ap.add_argument("--fresh", type=int, default=0, help="batches of new answers without guesses beside each step's")
    ap.add_argument("--start", help="directory of a model to start from; by default --init")
    ap.add_argument("--share", type=float, default=1.0, help="of --start in a mean of its weights and those of --init")
    ap.add_argument("--ar", type=float, default=AR_WEIGHT, help="weight of the answers' own cross-entropy")
    ap.add_argument("--lr", type=float, default=0.02, help="of Muon")
    ap.add_argument("--adam-lr", type=float, default=2e-3)
    ap.add_argument("--cool", type=float, default=0.4, help="share of the time at the end in which rates fall")
    ap.add_argument("--save-minutes", type=float, default=4)
    ap.add_argument("--seed", type=int, default=20261122)
    ap.add_argument("--threads", type=int, default=2)
    args = ap.parse_args()
    config = read_json(f"{args.init}/config.json")
    args.tok, args.l1, args.act = args.init, 0.0, config["hidden_act"]
    args.layers, args.dim, args.ffn = (config[k] for k in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    args.heads, args.kv = config["num_attention_heads"], config["num_key_value_heads"]
    return args


# ---- Model -------------------------------------------------------------------------------------


class PlacedRope:
    """Rotary embedding of tokens that stand at given places."""

    def __init__(self, rope):
        self.rope, self.cos, self.sin = rope, None, None

    def place(self, places):
        """places [n_seq, n]"""
        self.cos, self.sin = self.rope.cos[places].unsqueeze(1), self.rope.sin[places].unsqueeze(1)

    def __call__(self, x):
        a, b = x.chunk(2, -1)
        return x * self.cos + torch.cat((-b, a), -1) * self.sin


def make_model(args, n_vocab):
    model = train.Model(args, n_vocab)
    model.placed_rope = PlacedRope(model.layers[0].rope)
    for layer in model.layers:
        layer.rope = model.placed_rope
    return model


def hidden(model, ids, places, mask):
    """-> [n_seq, n, dim], normed; mask [n_seq, 1, n, n] is added to the scores."""
    model.placed_rope.place(places)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = model.embed(ids)
        for layer in model.layers:
            x = layer(x, mask)
        return model.norm(x)


def logits_of(model, h):
    return F.linear(h.bfloat16(), model.embed.weight.bfloat16()).float()


def causal(lengths, n):
    """-> mask [n_seq, 1, n, n] of rows of these lengths."""
    seen = torch.arange(n).view(1, 1, n) <= torch.arange(n).view(1, n, 1)
    seen = seen & (torch.arange(n).view(1, 1, n) < torch.tensor(lengths).view(-1, 1, 1).clamp(min=1))
    return torch.zeros(seen.shape).masked_fill(~seen, -1e9).unsqueeze(1)


@torch.no_grad()
def read(model, texts):
    """-> for each text, the logits [n, vocabulary] behind every token."""
    n = max(len(t) for t in texts)
    ids = torch.tensor([t + [0] * (n - len(t)) for t in texts])
    places = torch.arange(n).expand(len(texts), n)
    h = hidden(model, ids, places, causal([len(t) for t in texts], n))
    return [logits_of(model, h[i, : len(t)]) for i, t in enumerate(texts)]


# ---- Trajectories ------------------------------------------------------------------------------


class Answer:
    """A problem with its answer, and what the parent says of it."""

    def __init__(self, text, start, logits):
        """start: place of the answer's first token; logits [n, vocabulary] behind every token of the text."""
        self.text, self.start = text, start
        self.is_fixed = logits[start - 1 : -1].argmax(-1).tolist() == text[start:]
        self.wanted = logits[start - 1 : -1].bfloat16()  # bfloat16: they are many


class Problems:
    """Endless streams of problems in batches of similar length: with answers that are what the parent writes, and with
    any."""

    def __init__(self, args, tok, parent):
        self.args, self.tok, self.parent, self.n_made = args, tok, parent, 0
        self.fixed, self.any = [], []
        self.n_seen = self.n_fixed = 0

    def batches(self, answers):
        size = self.args.batch
        answers = sorted(answers, key=lambda a: len(a.text))
        made = [answers[i : i + size] for i in range(0, len(answers), size) if len(answers) - i >= size // 2]
        random.Random(self.n_made).shuffle(made)
        return made

    def make(self):
        rng = random.Random(f"{self.args.seed} {self.n_made}")
        self.n_made += 1
        texts, starts = [], []
        while len(texts) < 4 * self.args.batch:
            problem = gsmini.problem(rng)
            prompt = self.tok.encode(train.PROMPT.format(**problem))
            text = self.tok.encode(f"{train.PROMPT.format(**problem)} {problem['answer']}") + [self.tok.eos]
            if len(text) <= MAX_LENGTH and text[: len(prompt)] == prompt:
                texts.append(text)
                starts.append(len(prompt))
        return [Answer(*of) for of in zip(texts, starts, read(self.parent, texts))]

    def next_fixed(self):
        while not self.fixed:
            answers = self.make()
            fixed = [a for a in answers if a.is_fixed]
            self.n_seen, self.n_fixed = self.n_seen + len(answers), self.n_fixed + len(fixed)
            self.fixed = self.batches(fixed)
        return self.fixed.pop()

    def next_any(self):
        while not self.any:
            self.any = self.batches(self.make())
        return self.any.pop()


class Trajectories:
    """Some problems, copies of their answers with guesses in them, and what is needed to train and move these on."""

    def __init__(self, args, answers, rng):
        self.args, self.rng, self.n_points = args, rng, 0
        rows = [self.layout(a.text, a.start) for a in answers]
        n = max(len(row["ids"]) for row in rows)

        def stack(name, filler):
            return torch.tensor([row[name] + [filler] * (n - len(row[name])) for row in rows])

        self.ids, self.places = stack("ids", 0), stack("places", 0)
        self.truth, self.target = stack("ids", 0), stack("target", NO_TARGET)
        self.group, self.block_start = stack("group", -1), stack("block_start", 0)
        self.fixed = stack("fixed", 0)
        self.prompts = [a.text[: a.start] for a in answers]
        self.wanted = torch.cat([a.wanted for a in answers])
        self.guess = (self.group > 0) & (self.places > self.block_start)
        self.mask = self.visible()
        self.draw(self.guess)

    def layout(self, text, start):
        """Columns of a row. group: 0 of the text, else the number of a block; fixed: the text's column that says what a
        guess should; target: what comes behind, where that is learnt."""
        n = len(text)
        row = {
            "ids": list(text), "places": list(range(n)), "group": [0] * n, "block_start": [0] * n,
            "target": [NO_TARGET] * (start - 1) + text[start:] + [NO_TARGET], "fixed": list(range(n)),
        }
        block = 0
        for _ in range(self.args.copies):
            at = start - self.rng.randrange(self.args.n)
            while at < n - 1:
                first, end = max(at, start), min(at + self.args.n, n - 1)
                block += 1
                row["ids"] += text[first:end]
                row["places"] += range(first, end)
                row["fixed"] += range(first, end)
                row["target"] += text[first + 1 : end + 1]
                row["group"] += [block] * (end - first)
                row["block_start"] += [first] * (end - first)
                at = max(end, at + 1)
        return row

    def visible(self):
        """The text sees what is before; a guess the text before its block, and its block up to itself."""
        group, places = self.group.unsqueeze(2), self.places.unsqueeze(2)
        other, there = self.group.unsqueeze(1), self.places.unsqueeze(1)
        same = (group == other) & (there <= places)
        before = (other == 0) & (there < self.block_start.unsqueeze(2)) & (group > 0)
        seen = same | before
        return torch.zeros(seen.shape).masked_fill(~seen, -1e9).unsqueeze(1)

    def draw(self, where):
        """New guesses at these columns: tokens of the problem."""
        for i, prompt in enumerate(self.prompts):
            columns = where[i].nonzero().flatten().tolist()
            self.ids[i, columns] = torch.tensor([self.rng.choice(prompt) for _ in columns], dtype=torch.long)

    def since_block(self, counted):
        """counted [n_seq, n], true or not -> how many of a column's block up to itself are."""
        so_far = counted.int().cumsum(1)
        at_start = torch.where(self.places == self.block_start, so_far - counted.int(), torch.zeros_like(so_far))
        return so_far - at_start.cummax(1)[0]

    def wrong(self):
        """Columns of guesses at or behind the first wrong one of their block."""
        return (self.group > 0) & (self.since_block(self.ids != self.truth) > 0)

    def weights(self, fade):
        """Of the columns that are wrong(), by how far they are behind the first wrong guess."""
        wrong = self.wrong()
        return fade ** (self.since_block(wrong)[wrong] - 1).float()

    def move_on(self, said):
        """The next point: what was said [n_seq, n] behind each guess stands at the place after it."""
        new = self.ids.clone()
        new[:, 1:] = torch.where(self.guess[:, 1:], said[:, :-1], self.ids[:, 1:])
        self.ids, self.n_points = new, self.n_points + 1
        again = torch.zeros_like(self.guess)
        for i in range(len(self.prompts)):
            for block in range(1, int(self.group[i].max()) + 1):
                if self.rng.random() < REDRAW:
                    columns = (self.group[i] == block).nonzero().flatten().tolist()
                    again[i, columns[self.rng.randrange(len(columns)) :]] = True
        self.draw(again & self.guess)

    def is_done(self):
        return self.n_points >= MAX_POINTS or not bool(self.wrong().any())


def loss_of(model, batch, args):
    """-> loss, its two parts for people, and what the model says behind each token [n_seq, n]."""
    h = hidden(model, batch.ids, batch.places, batch.mask)
    wanted = batch.target != NO_TARGET
    logits = logits_of(model, h[wanted])  # [m, vocabulary], in the order of columns
    said = torch.zeros_like(batch.ids)
    said[wanted] = logits.detach().argmax(-1)
    index = torch.full(batch.ids.shape, NO_TARGET)
    index[wanted] = torch.arange(len(logits))
    fixed = index.gather(1, batch.fixed)  # of each column: the logits of its place in the text
    of_text, of_guess = wanted & (batch.group == 0), batch.wrong()
    if args.soft:
        ar = train.divergence(batch.wanted, logits[index[of_text]])
    else:
        ar = F.cross_entropy(logits[index[of_text]], batch.target[of_text])
    soft = logits[fixed[of_guess]].detach().softmax(-1)
    each = -(soft * logits[index[of_guess]].log_softmax(-1)).sum(-1)
    weight = batch.weights(args.fade)
    consistency = (each * weight).sum() / weight.sum() if len(weight) else 0 * ar
    return consistency + args.ar / (1 + args.fresh) * ar, float(consistency), float(ar), said


def loss_of_answers(model, answers, args):
    """Of answers without guesses."""
    n = max(len(a.text) for a in answers)
    ids = torch.tensor([a.text + [0] * (n - len(a.text)) for a in answers])
    h = hidden(model, ids, torch.arange(n).expand(len(answers), n), causal([len(a.text) for a in answers], n))
    logits = logits_of(model, torch.cat([h[i, a.start - 1 : len(a.text) - 1] for i, a in enumerate(answers)]))
    if args.soft:
        return train.divergence(torch.cat([a.wanted for a in answers]), logits)
    return F.cross_entropy(logits, torch.tensor([token for a in answers for token in a.text[a.start :]]))


# ---- Evaluation --------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(model, tok, n, problems, max_new=160):
    """-> accuracy and tokens per pass of greedy Jacobi decoding with a window of n that moves with the text."""
    rng = random.Random(1)
    prompts = [tok.encode(train.PROMPT.format(**p)) for p in problems]
    texts, guesses = [list(p) for p in prompts], [[] for _ in prompts]
    n_passes = 0
    live = list(range(len(texts)))
    while live:
        for i in live:
            guesses[i] += [rng.choice(prompts[i]) for _ in range(n - 1 - len(guesses[i]))]
        said = read(model, [texts[i] + guesses[i] for i in live])
        n_passes += len(live)
        for i, logits in zip(live, said):
            line = logits[len(texts[i]) - 1 :].argmax(-1).tolist()
            n_kept = 0
            while n_kept < n - 1 and line[n_kept] == guesses[i][n_kept]:
                n_kept += 1
            new = line[: n_kept + 1]
            if tok.eos in new:
                new = new[: new.index(tok.eos) + 1]
            texts[i] += new
            guesses[i] = line[n_kept + 1 :]
        live = [i for i in live if texts[i][-1] != tok.eos and len(texts[i]) - len(prompts[i]) < max_new]
    n_correct = n_tokens = 0
    for prompt, text, problem in zip(prompts, texts, problems):
        found = re.search(r"#### (-?\d+)", tok.decode(text[len(prompt) :]))
        n_correct += bool(found) and found.group(1) == problem["answer"].split("#### ")[1]
        n_tokens += len(text) - len(prompt)
    return n_correct / len(problems), n_tokens / n_passes


# ---- Training ----------------------------------------------------------------------------------


class Run:
    """What a run is made of, and how it is kept for the next one."""

    def __init__(self, args, tok):
        self.args, self.tok, self.spent, self.step = args, tok, 0.0, 0
        self.model, self.parent = make_model(args, len(tok.vocab)), make_model(args, len(tok.vocab))
        train.load(self.parent, args.init)
        train.load(self.model, args.start or args.init)
        with torch.no_grad():
            for p, of_parent in zip(self.model.parameters(), self.parent.parameters()):
                p.lerp_(of_parent, 1 - args.share)
        named = [(name, p) for name, p in self.model.named_parameters()]
        matrices = [p for name, p in named if p.dim() == 2 and "embed" not in name]
        others = [p for name, p in named if p.dim() != 2 or "embed" in name]
        self.muon = train.Muon(matrices, args.lr)
        self.adam = torch.optim.AdamW(others, lr=args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
        self.problems = Problems(args, tok, self.parent)
        self.resume()
        self.first_step = self.step
        self.rng = random.Random(f"{args.seed} step {self.step}")
        self.batches = [self.new_batch() for _ in range(N_BATCHES)]

    def new_batch(self):
        return Trajectories(self.args, self.problems.next_fixed(), self.rng)

    def parts(self):
        return {"model": self.model, "muon": self.muon, "adam": self.adam}

    def resume(self):
        path = f"{self.args.out}/state.pt"
        if not os.path.exists(path):
            return
        state = torch.load(path)
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.spent, self.step, self.problems.n_made = state["spent"], state["step"], state["n_made"]
        print(f"goes on behind step {self.step}, {self.spent / 60:.1f} minutes", flush=True)

    def save(self):
        train.export(self.model, self.args, self.tok)
        state = {name: part.state_dict() for name, part in self.parts().items()}
        state.update(spent=self.spent, step=self.step, n_made=self.problems.n_made)
        torch.save(state, f"{self.args.out}/state.pt.partial")
        os.replace(f"{self.args.out}/state.pt.partial", f"{self.args.out}/state.pt")

    def one_step(self):
        """-> consistency and autoregressive loss."""
        part = self.spent / (self.args.minutes * 60)
        scale = min(1.0, (self.step + 1 - self.first_step) / 30) * min(1.0, max(1 - part, 0) / self.args.cool)
        for optimizer, lr in ((self.muon, self.args.lr), (self.adam, self.args.adam_lr)):
            optimizer.param_groups[0]["lr"] = lr * scale
        i = self.rng.randrange(N_BATCHES)
        loss, consistency, ar, said = loss_of(self.model, self.batches[i], self.args)
        loss.backward()
        for _ in range(self.args.fresh):
            ar = loss_of_answers(self.model, self.problems.next_any(), self.args)
            (self.args.ar / (1 + self.args.fresh) * ar).backward()
        self.muon.step()
        self.adam.step()
        self.model.zero_grad(set_to_none=False)
        self.batches[i].move_on(said)
        if self.batches[i].is_done():
            self.batches[i] = self.new_batch()
        self.step += 1
        return consistency, float(ar)

    def report(self, problems):
        accuracy, rate = evaluate(self.model, self.tok, self.args.n, problems)
        share = self.problems.n_fixed / max(self.problems.n_seen, 1)
        print(f"step {self.step} min {self.spent / 60:.1f} development problems: {accuracy:.3f} right, "
              f"{rate:.2f} tokens a pass; {share:.3f} of the answers were fixed points, "
              f"now {self.share_fixed():.3f}", flush=True)

    def share_fixed(self):
        """Of development problems, how many answers the model would write so as they stand."""
        problems = Problems(argparse.Namespace(seed=990_002, batch=32), self.tok, self.model)
        answers = problems.make()
        return sum(a.is_fixed for a in answers) / len(answers)

    def go(self):
        rng = random.Random(990_001)
        development = [gsmini.problem(rng) for _ in range(24)]
        saved, shown, sums = self.spent, self.step, [0.0, 0.0]
        while self.spent < self.args.minutes * 60:
            begin = time.time()
            for i, x in enumerate(self.one_step()):
                sums[i] += x
            self.spent += min(time.time() - begin, 20)  # a pause of the machine is not training time
            if self.step - shown == 25:
                print(f"step {self.step} min {self.spent / 60:.1f} consistency {sums[0] / 25:.3f} "
                      f"answers {sums[1] / 25:.4f}", flush=True)
                shown, sums = self.step, [0.0, 0.0]
            if self.spent - saved > self.args.save_minutes * 60:
                self.save()
                self.report(development)
                saved = self.spent
        self.save()
        self.report(development)


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    os.makedirs(args.out, exist_ok=True)
    Run(args, Tokenizer.load(f"{args.init}/tokenizer.json")).go()


if __name__ == "__main__":
    main()
