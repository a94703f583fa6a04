#!/usr/bin/env python3
"""Trains a byte-level BPE tokenizer and writes it as a Hugging Face tokenizer.json.

The text is split as Qwen2's tokenizer does (single digits); merges are counted within the pieces.

usage: bpe.py OUT_DIR VOCAB_SIZE TEXT_FILE...
"""
import collections
import json
import re
import sys

# The pattern that tokenizer.json gets. Python's re lacks \p{L}, so PATTERN says the same for this script.
HF_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERN = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\w]?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = "<|endoftext|>"
NO_RANK = 1 << 30


def byte_alphabet():
    """-> {byte: printable character}, GPT-2's table."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, n_extra = {}, 0
    for byte in range(256):
        if byte in printable:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + n_extra)
            n_extra += 1
    return table


BYTES = byte_alphabet()


def words(text):
    """-> the pieces of the text, each in the byte alphabet."""
    return ["".join(BYTES[byte] for byte in piece.encode()) for piece in PATTERN.findall(text)]


def merge_pair(symbols, pair):
    """-> symbols with every occurrence of the pair joined, left to right."""
    out, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            out.append(pair[0] + pair[1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


def train(texts, vocab_size):
    """-> {token: id}, [merges]. Greedy: the most frequent pair next, ties to the greater pair."""
    frequency = collections.Counter()
    for text in texts:
        frequency.update(words(text))
    pieces = [(list(word), n) for word, n in frequency.items()]
    vocab = {c: i for i, c in enumerate(sorted(BYTES.values(), key=ord))}
    merges = []
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, (symbols, n) in enumerate(pieces):
        for pair in zip(symbols, symbols[1:]):
            pairs[pair] += n
            where[pair].add(i)
    while len(vocab) < vocab_size - 1 and pairs:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        if pairs[best] < 2:
            break
        merges.append(best)
        vocab.setdefault(best[0] + best[1], len(vocab))
        for i in list(where[best]):
            symbols, n = pieces[i]
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] -= n
                where[pair].discard(i)
            symbols = merge_pair(symbols, best)
            pieces[i] = (symbols, n)
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += n
                where[pair].add(i)
        del pairs[best]
    vocab[SPECIAL] = len(vocab)
    return vocab, merges


class Tokenizer:
    """Encodes and decodes with a trained vocabulary."""

    def __init__(self, vocab, merges):
        self.vocab = vocab
        self.rank = {tuple(merge): i for i, merge in enumerate(merges)}
        self.cache = {}
        self.eos = vocab[SPECIAL]
        self.content = {i: token for token, i in vocab.items()}
        self.byte = {c: byte for byte, c in BYTES.items()}

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as f:
            model = json.load(f)["model"]
        vocab = dict(model["vocab"])
        vocab[SPECIAL] = max(vocab.values()) + 1
        merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        return cls(vocab, merges)

    def encode_word(self, word):
        if word not in self.cache:
            symbols = list(word)
            while len(symbols) > 1:
                ranks = ((self.rank.get(pair, NO_RANK), i) for i, pair in enumerate(zip(symbols, symbols[1:])))
                rank, i = min(ranks)
                if rank == NO_RANK:
                    break
                symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
            self.cache[word] = [self.vocab[symbol] for symbol in symbols]
        return self.cache[word]

    def encode(self, text):
        return [i for word in words(text) for i in self.encode_word(word)]

    def decode(self, ids):
        text = bytes(self.byte[c] for i in ids if i != self.eos for c in self.content[i])
        return text.decode(errors="replace")


def tokenizer_json(vocab, merges):
    """-> the value of tokenizer.json."""
    special = {
        "id": vocab[SPECIAL], "content": SPECIAL, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": True,
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": HF_PATTERN}, "behavior": "Isolated", "invert": False}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
        "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {token: i for token, i in vocab.items() if token != SPECIAL},
        "merges": [" ".join(merge) for merge in merges],
    }
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [special],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level, "decoder": byte_level, "model": model,
    }


def tokenizer_config(n_context):
    """-> the value of tokenizer_config.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL, "pad_token": SPECIAL,
        "bos_token": None, "add_bos_token": False, "model_max_length": n_context,
    }


def save(vocab, merges, out_dir):
    with open(f"{out_dir}/tokenizer.json", "w", encoding="utf-8") as f:
        json.dump(tokenizer_json(vocab, merges), f, ensure_ascii=False, indent=1)
    with open(f"{out_dir}/tokenizer_config.json", "w", encoding="utf-8") as f:
        json.dump(tokenizer_config(1024), f, indent=1)


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    out_dir, vocab_size, files = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    texts = []
    for path in files:
        with open(path, encoding="utf-8") as f:
            texts.append(f.read())
    save(*train(texts, vocab_size), out_dir)
    tok = Tokenizer.load(f"{out_dir}/tokenizer.json")
    sample = "Question: Mia buys 37 boxes of 9 apples.\nAnswer: The boxes hold 37 * 9 = 333 apples.\n#### 333"
    ids = tok.encode(sample)
    if tok.decode(ids) != sample:
        sys.exit("the tokenizer does not give its text back")
    print(len(tok.vocab), "tokens;", len(sample), "characters ->", len(ids), "tokens")


if __name__ == "__main__":
    main()
