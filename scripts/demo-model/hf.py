"""Reading and writing of Hugging Face model directories: config.json and model.safetensors in bfloat16."""
import json
import os
import struct

import numpy as np
import torch


def read_safetensors(path):
    """-> {name: float32 tensor}; every tensor of the file must be BF16."""
    with open(path, "rb") as f:
        raw = f.read()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "BF16":
            raise ValueError(f"{path}: tensor {name} is {entry['dtype']}, expected BF16")
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        bits = torch.from_numpy(np.frombuffer(raw[begin:end], np.int16).copy())
        tensors[name] = bits.view(torch.bfloat16).float().view(entry["shape"])
    return tensors


def write_safetensors(path, tensors, exact=None):
    """Rounds the tensors to bfloat16, those of exact to float32, and writes all in the order of their names; atomic."""
    header, offset, blobs = {}, 0, []
    exact = exact or {}
    for name in sorted([*tensors, *exact]):
        tensor = (exact if name in exact else tensors)[name].detach()
        bits = tensor.float() if name in exact else tensor.bfloat16().contiguous().view(torch.int16)
        blob = bits.contiguous().numpy().tobytes()
        shape = list(tensor.shape)
        header[name] = {"dtype": "F32" if name in exact else "BF16", "shape": shape,
                        "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    header["__metadata__"] = {"format": "pt"}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(f"{path}.partial", "wb") as f:
        f.write(struct.pack("<Q", len(head)))
        f.write(head)
        for blob in blobs:
            f.write(blob)
    os.replace(f"{path}.partial", path)


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1)


def read_lines(path):
    """-> one value a line of a JSON lines file."""
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]
