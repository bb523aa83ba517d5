"""GGUF files for tests: whole ones by gguf's own writer, and headers byte by byte, which say whatever a test wants."""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy

from r1plus_model_repo.importing.gguf.values import Kind

FEED_FORWARD = 96
LAYERS, EMBEDDING, HEADS, KV_HEADS, HEAD_SIZE, TOKENS, CONTEXT = 2, 64, 4, 2, 16, 96, 2048
TEMPLATE = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
Keys = dict[str, tuple[Any, gguf.GGUFValueType, gguf.GGUFValueType | None]]


def keys(architecture: str = "llama") -> Keys:
    """Metadata of a tiny whole model."""
    kind = gguf.GGUFValueType
    numbers = {
        "block_count": LAYERS,
        "context_length": CONTEXT,
        "embedding_length": EMBEDDING,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
    }
    return {
        **{f"{architecture}.{name}": (value, kind.UINT32, None) for name, value in numbers.items()},
        f"{architecture}.attention.layer_norm_rms_epsilon": (1e-5, kind.FLOAT32, None),
        "general.file_type": (int(gguf.LlamaFileType.MOSTLY_Q4_1), kind.UINT32, None),
        "tokenizer.ggml.model": ("gpt2", kind.STRING, None),
        "tokenizer.ggml.pre": ("smollm", kind.STRING, None),
        "tokenizer.ggml.tokens": ([f"t{i}ü" for i in range(TOKENS)], kind.ARRAY, kind.STRING),
        "tokenizer.ggml.token_type": ([1] * TOKENS, kind.ARRAY, kind.INT32),
        "tokenizer.ggml.merges": (["t 0", "t 1"], kind.ARRAY, kind.STRING),
        "tokenizer.ggml.eos_token_id": (2, kind.UINT32, None),
        "tokenizer.chat_template": (TEMPLATE, kind.STRING, None),
    }


def shapes() -> dict[str, tuple[int, ...]]:
    """Its tensors, outermost dimension first as numpy has them."""
    width = KV_HEADS * HEAD_SIZE
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (TOKENS, EMBEDDING), "output_norm.weight": (EMBEDDING,)}
    for layer in range(LAYERS):
        found[f"blk.{layer}.attn_norm.weight"] = (EMBEDDING,)
        found[f"blk.{layer}.attn_q.weight"] = (EMBEDDING, EMBEDDING)
        found[f"blk.{layer}.attn_k.weight"] = (width, EMBEDDING)
        found[f"blk.{layer}.attn_v.weight"] = (width, EMBEDDING)
        found[f"blk.{layer}.attn_output.weight"] = (EMBEDDING, EMBEDDING)
        found[f"blk.{layer}.ffn_norm.weight"] = (EMBEDDING,)
        found[f"blk.{layer}.ffn_gate.weight"] = (FEED_FORWARD, EMBEDDING)
        found[f"blk.{layer}.ffn_up.weight"] = (FEED_FORWARD, EMBEDDING)
        found[f"blk.{layer}.ffn_down.weight"] = (EMBEDDING, FEED_FORWARD)
    return found


def write(
    path: Path,
    architecture: str = "llama",
    metadata: Keys | None = None,
    tensors: Mapping[str, tuple[int, ...]] | None = None,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q4_1,
    alignment: int | None = None,
) -> Path:
    """A file by gguf's writer: matrices in `kind`, vectors in FP32, keys in the order given."""
    writer = gguf.GGUFWriter(path, architecture)
    if alignment:
        writer.add_custom_alignment(alignment)
    for name, (value, type_, inner) in (keys(architecture) if metadata is None else metadata).items():
        writer.add_key_value(name, value, type_, sub_type=inner)
    random = numpy.random.default_rng(0)
    for name, shape in (shapes() if tensors is None else tensors).items():
        numbers = random.standard_normal(shape).astype(numpy.float32)
        if len(shape) == 1:
            writer.add_tensor(name, numbers)
        else:
            add_matrix(writer, name, numbers, kind)
    return finish(writer, path)


def add_matrix(writer: gguf.GGUFWriter, name: str, numbers: Any, kind: gguf.GGMLQuantizationType) -> None:
    """Add a tensor that is stored as `kind`."""
    writer.add_tensor(name, gguf.quants.quantize(numbers, kind), raw_dtype=kind)


def finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    """Write the file; return its path."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def text(value: str | bytes) -> bytes:
    """A string as the format has it."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(name: str, kind: int, payload: bytes) -> bytes:
    """A metadata entry."""
    return text(name) + struct.pack("<I", kind) + payload


def number(name: str, value: int) -> bytes:
    """A UINT32 entry."""
    return entry(name, Kind.UINT32, struct.pack("<I", value))


def tensor(name: str, shape: Iterable[int], kind: int = 0, offset: int = 0, dimensions: int | None = None) -> bytes:
    """A tensor's description."""
    listed = list(shape)
    count = len(listed) if dimensions is None else dimensions
    return text(name) + struct.pack(f"<I{len(listed)}QIQ", count, *listed, kind, offset)


def head(*entries: bytes) -> bytes:
    """A file that ends with its metadata: no tensors, no padding."""
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries)


def raw(
    entries: Iterable[bytes] = (),
    tensors: Iterable[bytes] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    key_count: int | None = None,
    tensor_count: int | None = None,
    data: int = 4096,
) -> bytes:
    """A file with `data` bytes of weights; the counts may lie."""
    listed, placed = list(entries), list(tensors)
    counts = struct.pack(
        "<IQQ",
        version,
        len(placed) if tensor_count is None else tensor_count,
        len(listed) if key_count is None else key_count,
    )
    described = magic + counts + b"".join(listed) + b"".join(placed)
    return described + bytes(-len(described) % 32) + bytes(data)
