#!/usr/bin/env python3
"""Makes tests/data/unigram: two small unigram models by SentencePiece's trainer, hostile and ordinary texts, and the ids
that its encoder gives for them. Needs Debian's package sentencepiece; the tests themselves need only what is made.

usage: unigram_vectors.py        from the root of the tree

nfkc   the default normaliser (nmt_nfkc), blanks merged, unknown characters
bytes  no table, blanks kept, unknown characters as bytes
"""

import json
import random
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests" / "data" / "unigram"

ORDINARY = [
    "Das Stra\u00dfenfest f\u00e4llt aus, sch\u00f6ne Gr\u00fc\u00dfe!",
    "Le c\u0153ur d\u00e9\u00e7u mais l'\u00e2me plut\u00f4t na\u00efve.",
    "\u042d\u0442\u043e \u043f\u0440\u043e\u0441\u0442\u043e\u0439 \u043f\u0440\u0438\u043c\u0435\u0440 \u0442\u0435\u043a\u0441\u0442\u0430.",
    "\u4eca\u65e5\u306f\u3044\u3044\u5929\u6c17\u3067\u3059\u306d\u3002",
    "\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc785\ub2c8\ub2e4.",
    "\u03b1\u03b2\u03b3 \u03ba\u03b1\u03b9 \u03b4",
]

# What normalisers, blanks and unknown characters are made of; no line ends, as the encoder reads lines.
PARTS = [
    " ", "  ", "   ", "\t", "\r", "\u00a0", "\u3000", "\u2009", "\u200b", "\u2028", "\ufeff", "\u0085", "\u00ad",
    "a", "the", "Uma has", "stickers", "12", "3.14", "####", "=", "+", "-", "$5", "?!", "...", "'s", "n't",
    "\ufb01", "\ufb03", "\u00bd", "\u2122", "\u2460", "\u33a5", "\u212b", "\uff21\uff42\uff43", "\uff11\uff12", "\uff0c",
    "e\u0301", "\u00e9", "a\u0328\u0301", "\u1e9b\u0323", "o\u0308\u0304", "\u0301", "\u0315\u0300\u05ae",
    "\u1100\u1161", "\u1100\u1161\u11a8", "\ud55c", "\uff76\uff9e", "\u30ac", "\u304b\u3099", "\u0915\u093c",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "\U0001d400",
    "\u0001", "\u001f", "\u007f", "\u0080", "\ufffd", "\ufffe", "\U0010ffff", "\ue000",
    "<s>", "</s>", "<unk>", "<pad>", "<0x41>", "<tool>", "\u4eca\u65e5", "\u0442\u0435\u043a\u0441\u0442", "stra\u00dfe",
    "aaaaaaaaaaaaaaaaaaaaaaaaa", "11111111111", "\u00df\u00df\u00df\u00df", "zq",
]


def texts():
    rng = random.Random(5)
    problems = [json.loads(line) for line in (ROOT / "data" / "gsmini-test.jsonl").open()]
    out = ["", " ", "a", " a", "a ", "  a  b  ", *ORDINARY, *PARTS]
    for p in problems[:12]:
        out += [p["question"], p["answer"].replace("\n", "  ")]
    for _ in range(150):
        out.append("".join(rng.choice(PARTS) for _ in range(rng.randint(2, 9))))
    out += ["ab" * 120, "\u00e9" * 60, "Uma" + " " * 90 + "has", "e" + "\u0301" * 40, "\u4eca" * 30]
    assert not any("\n" in t or "\0" in t for t in out)
    return out


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    problems = [json.loads(line) for line in (ROOT / "data" / "gsmini-test.jsonl").open()]
    corpus = [s for p in problems for s in [p["question"], *p["answer"].split("\n")]] + 40 * ORDINARY
    plain = ["--character_coverage=0.9995", "--minloglevel=2", "--num_threads=1"]
    kinds = {
        "nfkc": ["--vocab_size=500", "--unk_id=2", "--bos_id=-1", "--eos_id=1",
                 "--pad_id=0"],
        "bytes": ["--vocab_size=560", "--byte_fallback=true", "--normalization_rule_name=identity",
                  "--remove_extra_whitespaces=false"],
    }
    lines = texts()
    (OUT / "texts.txt").write_bytes("".join(t + "\n" for t in lines).encode())
    with tempfile.TemporaryDirectory() as tmp:
        (Path(tmp) / "corpus.txt").write_bytes("".join(s + "\n" for s in corpus).encode())
        for name, options in kinds.items():
            subprocess.run(["spm_train", "--model_type=unigram", "--input=corpus.txt", f"--model_prefix={name}", *plain,
                            *options], check=True, cwd=tmp)
            (OUT / f"{name}.model").write_bytes(Path(f"{tmp}/{name}.model").read_bytes())
            ids = subprocess.run(["spm_encode", f"--model={tmp}/{name}.model", "--output_format=id"], check=True,
                                 stdin=(OUT / "texts.txt").open("rb"), stdout=subprocess.PIPE).stdout
            assert ids.count(b"\n") == len(lines)
            (OUT / f"{name}.ids.txt").write_bytes(ids)


if __name__ == "__main__":
    main()
