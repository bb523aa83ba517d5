"""A whole GGUF model of random weights with a byte-level vocabulary, and the weights as transformers has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import gguf
import numpy

from support.model_repo import gguf_files

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_SIZE, INNER, CONTEXT = 2, 256, 4, 2, 64, 512, 512
KIND: Final = gguf.GGUFValueType
TEMPLATE: Final = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES: Final = ("h e", "l l", "he ll", "hell o", "Ġ w", "1 2", "Ã ©")


def list_bytes() -> list[str]:
    """Return the letters that byte-level BPE writes for the bytes 0 to 255 (GPT-2's bytes_to_unicode)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


TOKENS: Final = (*SPECIAL, *list_bytes(), *(merge.replace(" ", "") for merge in MERGES), "<tool>", "[PAD]")
TYPES: Final = (3,) * len(SPECIAL) + (1,) * (256 + len(MERGES)) + (4, 5)


@dataclass(frozen=True)
class TinyModel:
    """What the file has: change `keys` and `tensors` before it is written to make it wrong."""

    architecture: str
    weights: dict[str, Any]
    """The numbers under llama.cpp's names, but with Q and K in the order of transformers."""
    keys: gguf_files.Keys = field(default_factory=dict)


def make_model(architecture: str, *, tied: bool = True) -> TinyModel:
    """Make the numbers and metadata of a model."""
    random = numpy.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(TOKENS), WIDTH), "output_norm.weight": (WIDTH,)}
    if not tied:
        shapes["output.weight"] = (len(TOKENS), WIDTH)
    widths = {"q": HEADS * HEAD_SIZE, "k": KV_HEADS * HEAD_SIZE, "v": KV_HEADS * HEAD_SIZE}
    for n in range(LAYERS):
        for letter, rows in widths.items():
            shapes[f"blk.{n}.attn_{letter}.weight"] = (rows, WIDTH)
            if architecture == "qwen2":
                shapes[f"blk.{n}.attn_{letter}.bias"] = (rows,)
        shapes |= {f"blk.{n}.attn_norm.weight": (WIDTH,), f"blk.{n}.ffn_norm.weight": (WIDTH,)}
        shapes |= {f"blk.{n}.ffn_gate.weight": (INNER, WIDTH), f"blk.{n}.ffn_up.weight": (INNER, WIDTH)}
        shapes |= {f"blk.{n}.ffn_down.weight": (WIDTH, INNER), f"blk.{n}.attn_output.weight": (WIDTH, WIDTH)}
    weights = {name: random.standard_normal(shape).astype(numpy.float32) for name, shape in shapes.items()}
    return TinyModel(architecture, weights, _make_keys(architecture))


def _make_keys(architecture: str) -> gguf_files.Keys:
    numbers = {
        "block_count": LAYERS,
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
    }
    return {
        **{f"{architecture}.{name}": (value, KIND.UINT32, None) for name, value in numbers.items()},
        f"{architecture}.attention.layer_norm_rms_epsilon": (1e-6, KIND.FLOAT32, None),
        f"{architecture}.rope.freq_base": (1000000.0, KIND.FLOAT32, None),
        "general.file_type": (int(gguf.LlamaFileType.MOSTLY_Q8_0), KIND.UINT32, None),
        "tokenizer.ggml.model": ("gpt2", KIND.STRING, None),
        "tokenizer.ggml.pre": ("qwen2" if architecture == "qwen2" else "smollm", KIND.STRING, None),
        "tokenizer.ggml.tokens": (list(TOKENS), KIND.ARRAY, KIND.STRING),
        "tokenizer.ggml.token_type": (list(TYPES), KIND.ARRAY, KIND.INT32),
        "tokenizer.ggml.merges": (list(MERGES), KIND.ARRAY, KIND.STRING),
        "tokenizer.ggml.bos_token_id": (0, KIND.UINT32, None),
        "tokenizer.ggml.eos_token_id": (2, KIND.UINT32, None),
        "tokenizer.chat_template": (TEMPLATE, KIND.STRING, None),
    }


def write_model(
    path: Path, model: TinyModel, kinds: Mapping[str, gguf.GGMLQuantizationType] = {}, kind: Any = None
) -> Path:
    """Write the file. Matrices are stored as `kinds` says by name, else as `kind` (F32); Llama's Q and K are permuted."""
    writer = gguf.GGUFWriter(path, model.architecture)
    for name, (value, type_, inner) in model.keys.items():
        writer.add_key_value(name, value, type_, sub_type=inner)
    for name, numbers in model.weights.items():
        stored = permute(name, numbers) if model.architecture == "llama" else numbers
        wanted = kinds.get(name, kind)
        if stored.ndim == 1 or wanted is None:
            writer.add_tensor(name, stored)
        else:
            gguf_files.add_matrix(writer, name, stored, wanted)
    return gguf_files.finish(writer, path)


def permute(name: str, numbers: Any) -> Any:
    """Return a matrix as llama.cpp's converter stores it (convert_hf_to_gguf.py, LlamaModel.permute)."""
    part = name.split(".")[2] if name.startswith("blk.") else ""
    if part not in ("attn_q", "attn_k"):
        return numbers
    heads = HEADS if part == "attn_q" else KV_HEADS
    return (
        numbers.reshape(heads, 2, numbers.shape[0] // heads // 2, *numbers.shape[1:])
        .swapaxes(1, 2)
        .reshape(numbers.shape)
    )
