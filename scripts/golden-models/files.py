"""Files of models: safetensors and GGUF v3, as bytes; bfloat16."""
import json
import struct

import numpy as np


def round_bf16(x):
    """To the nearest bfloat16, ties to even -> float64."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).astype(np.float64).reshape(np.shape(x))


def bf16_bytes(x):
    """Of values that are bfloat16 already."""
    single = np.ascontiguousarray(x, np.float32)
    bits = single.view(np.uint32)
    if np.any(single != x) or np.any(bits & 0xFFFF):
        raise ValueError("not a bfloat16")
    return (bits >> 16).astype("<u2").tobytes()


def f32_bytes(x):
    return np.ascontiguousarray(x, "<f4").tobytes()


def safetensors(tensors, exact=()):
    """In BF16, those whose names end like exact in F32, in the order of their names."""
    header, offset, blobs = {"__metadata__": {"format": "pt"}}, 0, []
    for name in sorted(tensors):
        is_exact = name.endswith(tuple(exact))
        blob = f32_bytes(tensors[name]) if is_exact else bf16_bytes(tensors[name])
        span = [offset, offset + len(blob)]
        header[name] = {"dtype": "F32" if is_exact else "BF16", "shape": list(tensors[name].shape), "data_offsets": span}
        offset += len(blob)
        blobs.append(blob)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + b"".join(blobs)


GGUF_U32, GGUF_F32, GGUF_BOOL, GGUF_STRING = 4, 6, 7, 8
GGUF_ALIGNMENT = 32
GGML_F32, GGML_BF16 = 0, 30


def gguf_string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def gguf_value(v):
    if isinstance(v, bool):
        return struct.pack("<IB", GGUF_BOOL, v)
    if isinstance(v, int):
        return struct.pack("<II", GGUF_U32, v)
    if isinstance(v, float):
        return struct.pack("<If", GGUF_F32, v)
    return struct.pack("<I", GGUF_STRING) + gguf_string(v)


def padded(b):
    return b + bytes(-len(b) % GGUF_ALIGNMENT)


def gguf(metadata, tensors):
    """Version 3: matrices in BF16, vectors in F32."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += gguf_string(key) + gguf_value(value)
    offset, blobs = 0, []
    for name, x in tensors.items():
        kind, blob = (GGML_BF16, bf16_bytes(x)) if x.ndim == 2 else (GGML_F32, f32_bytes(x))
        head += gguf_string(name) + struct.pack("<I", x.ndim) + struct.pack(f"<{x.ndim}Q", *reversed(x.shape))
        head += struct.pack("<IQ", kind, offset)
        blobs.append(padded(blob))
        offset += len(blobs[-1])
    return padded(head) + b"".join(blobs)
