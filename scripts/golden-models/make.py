#!/usr/bin/env python3
"""Tiny random models of all architectures with the logits that they must give, for tests/golden: see README.md.

usage: make.py [--check] [--verbose] [NAME...]     all models, or those named
"""
import argparse
import copy
import json
import os
import sys

import numpy as np

import arch
import files
import models
import to_gguf

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden")
MAX_BYTES = 2900 * 1000  # of all models
LEAST_CHANGE = 1e-2
LEAST_MARGIN = 2e-5  # of an input of fatrelu to its threshold, where it jumps


def logits_of(model, config=None, tensors=None):
    config, tensors = config or model.config, tensors or model.tensors
    return [arch.forward(config, tensors, model.tokens[:n], n_ctx) for n_ctx, n in model.cases]


def difference(a, b):
    return max(np.abs(x - y).max() for x, y in zip(a, b))


def check_features(model, logits, verbose):
    """Each feature and each tensor moves some logit by far more than the tests allow for errors."""
    for feature, (change, least) in model.features.items():
        config, tensors = copy.deepcopy(model.config), dict(model.tensors)
        change(config, tensors)
        moved = difference(logits, logits_of(model, config, tensors))
        if verbose:
            print(f"  {feature:40} {moved:.3g}")
        if not moved > least:
            raise SystemExit(f"{model.name}: without \"{feature}\" no logit moves by more than {moved:.3g}")
    for name, x in model.tensors.items():
        moved = difference(logits, logits_of(model, None, {**model.tensors, name: np.zeros_like(x)}))
        if (moved > LEAST_CHANGE) == (name in model.inert):
            raise SystemExit(f"{model.name}: without {name} logits move by {moved:.3g}")


def check_scale(model, logits):
    """Logits that say something, and no activation so near to a jump that rounding would decide."""
    spread = np.concatenate(logits).std(-1)
    if not 0.8 < spread.min() <= spread.max() < 6:
        raise SystemExit(f"{model.name}: logits spread by {spread.min():.2f} .. {spread.max():.2f}")
    if model.config.get("hidden_act") == "fatrelu":
        near = []
        act = arch.fat_relu(model.config["hidden_act_param"])
        watched = dict(model.config, hidden_act="watched")
        arch.ACTIVATIONS["watched"] = lambda x: near.append(np.abs(x - watched["hidden_act_param"]).min()) or act(x)
        logits_of(model, watched)
        if min(near) < LEAST_MARGIN:
            raise SystemExit(f"{model.name}: an activation is {min(near):.2g} from the threshold: choose another seed")
    return spread.mean()


def expected_json(model):
    cases, offset = [], 0
    for n_ctx, n in model.cases:
        cases.append({"n_ctx": n_ctx, "tokens": model.tokens[:n], "offset": offset})
        offset += n * models.N_VOCAB
    expected = {"name": model.name, "features": list(model.features), "cases": cases, "note": model.note}
    return json.dumps(expected, indent=1).encode() + b"\n"


def tokenizer_json():
    """A model is not imported without one. Byte-level: a token for each of 64 characters."""
    vocabulary = {chr(ord("?") + i): i for i in range(models.N_VOCAB)}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    return json.dumps(tokenizer).encode() + b"\n"


def files_of(model, verbose):
    """-> {file name: bytes}"""
    logits = logits_of(model)
    spread = check_scale(model, logits)
    if verbose:
        print(f"{model.name}: logits spread by {spread:.2f}")
    check_features(model, logits, verbose)
    out = {
        "config.json": json.dumps(model.config, indent=2, sort_keys=True).encode() + b"\n",
        "tokenizer.json": tokenizer_json(),
        "model.safetensors": files.safetensors(model.tensors, models.DIJIANG_TABLES),
        "expected.json": expected_json(model),
        "logits.bin": b"".join(files.f32_bytes(x) for x in logits),
    }
    if model.gguf:
        out[f"{model.name}.gguf"] = to_gguf.gguf_of(model.name, model.config, model.tensors)
    return out


def read(path):
    if not os.path.exists(path):
        return b""
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.partial", "wb") as f:
        f.write(data)
    os.replace(f"{path}.partial", path)


def main():
    ap = argparse.ArgumentParser(description="Make the models of tests/golden.")
    ap.add_argument("--check", action="store_true", help="write nothing; fail if a file differs from what is there")
    ap.add_argument("--verbose", action="store_true", help="show by how much each feature moves the logits")
    ap.add_argument("names", nargs="*", metavar="NAME")
    args = ap.parse_args()
    to_gguf.check_paired_rows()
    total, wrong, known = 0, [], set()
    for model in models.all_models():
        known.add(model.name)
        if args.names and model.name not in args.names:
            continue
        for name, data in files_of(model, args.verbose).items():
            path = os.path.join(GOLDEN, model.name, name)
            total += len(data)
            if not args.check:
                write(path, data)
            elif read(path) != data:
                wrong.append(f"{model.name}/{name}")
    for name in wrong:
        print(f"{name} differs from what this script makes")
    if total > MAX_BYTES:
        raise SystemExit(f"{total} bytes are more than {MAX_BYTES}")
    if set(args.names) - known:
        raise SystemExit(f"unknown: {' '.join(sorted(set(args.names) - known))}")
    print(f"{total} bytes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
