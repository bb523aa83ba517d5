"""A Hugging Face checkpoint from a GGUF file: the file's numbers, in the order and under the names of transformers.

Called by `r1plus engine convert`. Tensors are expanded and written in blocks of rows, so memory stays at a few hundred
MiB whatever the model. What llama.cpp's converter does (convert_hf_to_gguf.py: `LlamaModel.permute`, the tensor names)
is undone here:

- Llama: rows of Q and K are in the order of interleaved rotary positions; transformers rotates halves.
- A missing output.weight means that the output layer shares the embeddings.
- Norms and biases keep their numbers; RMS norms of these architectures have no offset.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gguf
import numpy
from gguf.quants import dequantize

from r1plus_contract.engine.delivery import hash_file
from r1plus_model_repo.importing.errors import ImportingError, WeightsError
from r1plus_model_repo.importing.folder_files import CONFIG, GENERATION_CONFIG, TOKENIZER_CONFIG
from r1plus_model_repo.importing.gguf.header import Header, read_header
from r1plus_model_repo.importing.gguf.model import ModelConsumer, ModelFacts, read_model
from r1plus_model_repo.importing.huggingface.checkpoint import read_checkpoint
from r1plus_model_repo.importing.huggingface.gguf_tokenizer import (
    SPLITTERS,
    Vocabulary,
    build_tokenizer,
    build_tokenizer_config,
    find_vocabulary_problems,
    list_end_ids,
)
from r1plus_model_repo.importing.huggingface.safetensors_writer import TensorPlan, write_safetensors
from r1plus_model_repo.importing.huggingface.tokenizer_files import TOKENIZER
from r1plus_model_repo.importing.model import Claims
from r1plus_model_repo.importing.package.folders import lock_folder, stage_folder

DTYPES: Final[Mapping[str, tuple[str, Any]]] = {
    "F16": ("float16", numpy.dtype("<f2")),
    "F32": ("float32", numpy.dtype("<f4")),
}
"""Precision -> its name in config.json, and how it is stored."""
BLOCK_BYTES: Final = 16 * 2**20
"""Of one block of rows, in FP32."""
WEIGHTS_FILE: Final = "model.safetensors"
_LLAMA, _QWEN2 = "llama", "qwen2"
_MODEL_CLASSES: Final = {_LLAMA: "LlamaForCausalLM", _QWEN2: "Qwen2ForCausalLM"}
_CONVERTER: Final = ModelConsumer(
    "this conversion",
    (_LLAMA, _QWEN2),
    ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"),
    SPLITTERS,
    "get the checkpoint from the model's publisher",
    "write the file in one of them with llama.cpp's llama-quantize, or get the checkpoint from the publisher",
)
LAYER_NAMES: Final = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
TOP_NAMES: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_EPSILON: Final = "attention.layer_norm_rms_epsilon"
_FREQUENCY: Final = "rope.freq_base"
PERMUTED: Final = ("attn_q", "attn_k")
MOST_TOLD: Final = 10
PICKLE_PROTOCOLS: Final = b"\x02\x03\x04\x05"


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """A finished checkpoint: its folder, the sha256 of its weights file, and notes for the user."""

    folder: Path
    sha256: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor under its new name."""

    name: str
    source: gguf.ReaderTensor
    rows: Any | None
    """For each row, where it is in the file; None: in the same place."""


def convert_gguf_to_checkpoint(
    source: Path,
    target: Path,
    precision: str,
    progress: Callable[[str], None],
    block_bytes: int = BLOCK_BYTES,
) -> ConversionResult:
    """Write the checkpoint folder `target`. It appears when it is complete; a failure leaves nothing.

    `block_bytes`: of the rows that are expanded at once, in FP32.

    Raises:
        WeightsError: the file is no model that can be converted; it has every reason.
        ImportingError: `target` exists, or a number does not fit the precision.
    """
    if target.exists():
        raise ImportingError(f"{target}: already exists; remove it, or give another --out")
    progress(f"reading {source}")
    _refuse_pickle(source)
    header, facts = read_header(source), read_model(source, _CONVERTER)
    shapes = _expect_shapes(header, facts)
    reader = gguf.GGUFReader(source)  # It trusts the file, so the header was checked first.
    vocabulary = _read_vocabulary(reader, header)
    problems = [
        *_find_number_problems(header, facts),
        *_find_tensor_problems(header, facts, shapes),
        *find_vocabulary_problems(vocabulary),
    ]
    if problems:
        raise WeightsError(str(source), tuple(problems[:MOST_TOLD]))
    with lock_folder(target.absolute().parent), stage_folder(target) as folder:
        tensors = _order_tensors(reader, facts)
        _write_json_files(folder, facts, header, vocabulary, precision)
        plans = {one.name: TensorPlan(precision, shapes[one.source.name]) for one in tensors}
        write_safetensors(folder / WEIGHTS_FILE, plans, _expand_all(tensors, precision, block_bytes, progress))
        progress("checking the checkpoint")
        read_checkpoint(folder, Claims())
        return ConversionResult(target, hash_file(folder / WEIGHTS_FILE), facts.notes)


def _refuse_pickle(source: Path) -> None:
    """Refuse a file of PyTorch before anything else, with the reason that matters."""
    if not source.is_file():
        return  # read_header says so.
    with source.open("rb") as stream:
        start = stream.read(4)
    if start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in PICKLE_PROTOCOLS):
        danger = "a pickle or an archive of them, which executes code when it is loaded, so it is never read"
        raise WeightsError(str(source), (f"magic: {start!r}: {danger}; get the model as .gguf, or in safetensors",))


def _expect_shapes(header: Header, facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    """Return the tensors that a model of this shape has, outermost dimension first."""
    width = int(str(header.metadata[f"{facts.architecture}.embedding_length"]))
    inner = header.metadata.get(f"{facts.architecture}.feed_forward_length")
    inner = inner if type(inner) is int else 0
    queries, keys = facts.heads * facts.head_size, facts.kv_heads * facts.head_size
    layer_shapes: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (width,),
        "attn_q.weight": (queries, width),
        "attn_k.weight": (keys, width),
        "attn_v.weight": (keys, width),
        "attn_output.weight": (width, queries),
        "ffn_norm.weight": (width,),
        "ffn_gate.weight": (inner, width),
        "ffn_up.weight": (inner, width),
        "ffn_down.weight": (width, inner),
    }
    if facts.architecture == _QWEN2:
        layer_shapes |= {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (facts.vocabulary, width),
        "output_norm.weight": (width,),
        **{f"blk.{n}.{name}": shape for n in range(facts.layers) for name, shape in layer_shapes.items()},
    }
    if any(tensor.name == "output.weight" for tensor in header.tensors):
        shapes["output.weight"] = (facts.vocabulary, width)
    return shapes


def _find_number_problems(header: Header, facts: ModelFacts) -> Iterator[str]:
    """Yield numbers that config.json cannot say, so that the checkpoint would answer wrongly."""
    name, metadata = facts.architecture, header.metadata
    for key in (f"{name}.{_EPSILON}", f"{name}.{_FREQUENCY}"):
        value = metadata.get(key, 1.0)
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            yield f"{key}: {value!r:.40} is not a number above 0; get the file again"
    key = f"{name}.rope.dimension_count"
    if (turned := metadata.get(key, facts.head_size)) != facts.head_size:
        yield (
            f"{key}: {turned!r:.40} of the {facts.head_size} numbers of a head have a position: a part of them is not"
            " converted; get the checkpoint from the model's publisher"
        )
    for key in (f"{name}.rope.scaling.factor", f"{name}.rope.scale_linear"):  # llama.cpp scales also without a type.
        if metadata.get(key, 1.0) not in (0.0, 1.0):
            yield (
                f"{key}: {metadata[key]!r:.40}: scaled positions are not converted; get the checkpoint from the model's"
                " publisher"
            )


def _find_tensor_problems(header: Header, facts: ModelFacts, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Yield tensors that are missing, of another shape, or that the checkpoint has no place for."""
    present = {tensor.name: tuple(reversed(tensor.shape)) for tensor in header.tensors}
    for name, shape in shapes.items():
        if name not in present:
            yield f"tensor {name}: missing; get the file again"
        elif present[name] != shape:
            yield f"tensor {name}: shape {list(present[name])}, the metadata says {list(shape)}; get the file again"
    for name in sorted(present.keys() - shapes.keys()):
        yield (
            f"tensor {name}: a {facts.architecture} checkpoint has no such tensor, so it would be lost; get the"
            " checkpoint from the model's publisher"
        )
    if facts.window is not None:
        yield (
            f"{facts.architecture}.attention.sliding_window: {facts.window}: windows are not converted; get the"
            " checkpoint from the model's publisher"
        )


def _read_vocabulary(reader: gguf.GGUFReader, header: Header) -> Vocabulary:
    roles = {"bos": "bos", "eos": "eos", "eot": "eot", "eom": "eom", "padding": "padding", "unknown": "unknown"}
    ids = {role: header.metadata.get(f"tokenizer.ggml.{key}_token_id") for role, key in roles.items()}
    return Vocabulary(
        splitter=str(header.metadata.get("tokenizer.ggml.pre", "default")),
        tokens=reader.fields["tokenizer.ggml.tokens"].contents(),
        types=reader.fields["tokenizer.ggml.token_type"].contents(),
        merges=reader.fields["tokenizer.ggml.merges"].contents(),
        special_ids={role: token for role, token in ids.items() if type(token) is int},
        adds_bos=header.metadata.get("tokenizer.ggml.add_bos_token") is True,
    )


def _order_tensors(reader: gguf.GGUFReader, facts: ModelFacts) -> list[_Tensor]:
    """Return the tensors under their new names, in the order of these names: the same file gives the same bytes."""
    return sorted((_place_tensor(one, facts) for one in reader.tensors), key=lambda one: one.name)


def _place_tensor(source: gguf.ReaderTensor, facts: ModelFacts) -> _Tensor:
    if source.name in TOP_NAMES:
        return _Tensor(TOP_NAMES[source.name], source, None)
    _, layer, part, kind = source.name.split(".")
    heads = facts.heads if part == "attn_q" else facts.kv_heads
    is_permuted = facts.architecture == _LLAMA and part in PERMUTED
    rows = order_rows(heads, facts.head_size) if is_permuted else None
    return _Tensor(f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}", source, rows)


def order_rows(heads: int, head_size: int) -> Any:
    """Return, for each row of a Q or K matrix of transformers, its row in llama.cpp's order.

    llama.cpp pairs row 2i with 2i + 1 of each head, transformers row i with i + head_size / 2.
    """
    rows = numpy.arange(heads * head_size).reshape(heads, head_size // 2, 2)
    return rows.swapaxes(1, 2).reshape(-1)


def _expand_all(
    tensors: list[_Tensor], precision: str, block_bytes: int, progress: Callable[[str], None]
) -> Iterator[bytes]:
    for number, tensor in enumerate(tensors):
        if number % 50 == 0:
            progress(f"tensor {number + 1} of {len(tensors)}")
        yield from _expand(tensor, precision, block_bytes)


def _expand(tensor: _Tensor, precision: str, block_bytes: int) -> Iterator[bytes]:
    """Yield the numbers of a tensor, a block of rows at a time."""
    data, columns = tensor.source.data, int(tensor.source.shape[0])
    if data.ndim == 1:
        data = data.reshape(1, -1)
    step = max(1, block_bytes // (4 * columns))
    for start in range(0, len(data), step):
        block = data[start : start + step] if tensor.rows is None else data[tensor.rows[start : start + step]]
        numbers = dequantize(block, tensor.source.tensor_type)
        with numpy.errstate(over="ignore"):
            stored = numbers.astype(DTYPES[precision][1])
        _check_finite(tensor, numbers, stored, precision)
        yield stored.tobytes()


def _check_finite(tensor: _Tensor, numbers: Any, stored: Any, precision: str) -> None:
    if not numpy.isfinite(numbers).all():
        raise ImportingError(f"tensor {tensor.source.name}: has a number that is infinite or none; get the file again")
    if not numpy.isfinite(stored).all():
        largest = float(numpy.abs(numbers).max())
        raise ImportingError(
            f"tensor {tensor.source.name}: {largest:g} does not fit {precision}, whose largest number is 65504; give"
            " --precision F32"
        )


def _write_json_files(folder: Path, facts: ModelFacts, header: Header, vocabulary: Vocabulary, precision: str) -> None:
    files = {
        CONFIG: _build_config(facts, header, vocabulary, precision),
        GENERATION_CONFIG: {"eos_token_id": list_end_ids(vocabulary)},
        TOKENIZER: build_tokenizer(vocabulary),
        TOKENIZER_CONFIG: build_tokenizer_config(vocabulary, facts.chat_template, facts.context_length),
    }
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=None if name == TOKENIZER else 2)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _build_config(facts: ModelFacts, header: Header, vocabulary: Vocabulary, precision: str) -> dict[str, Any]:
    def read(key: str, default: Any = None) -> Any:
        return header.metadata.get(f"{facts.architecture}.{key}", default)

    is_tied = all(tensor.name != "output.weight" for tensor in header.tensors)
    return {
        "architectures": [_MODEL_CLASSES[facts.architecture]],
        "model_type": facts.architecture,
        "hidden_act": "silu",
        "hidden_size": read("embedding_length"),
        "intermediate_size": read("feed_forward_length"),
        "num_hidden_layers": facts.layers,
        "num_attention_heads": facts.heads,
        "num_key_value_heads": facts.kv_heads,
        "head_dim": facts.head_size,
        "max_position_embeddings": facts.context_length,
        # The file has them in 32 bits: 9.99999997e-07 is 1e-06.
        "rms_norm_eps": float(f"{read(_EPSILON):.6g}"),
        "rope_theta": float(f"{read(_FREQUENCY, 10000.0):.7g}"),
        "tie_word_embeddings": is_tied,
        "use_sliding_window": False,
        "vocab_size": facts.vocabulary,
        "torch_dtype": DTYPES[precision][0],
        "bos_token_id": vocabulary.special_ids.get("bos"),
        "eos_token_id": vocabulary.special_ids["eos"],
    }
