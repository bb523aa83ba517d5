"""Small checkpoints for GPUs, as their own tools write them: real files, with weights of zeros."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Engine
from r1plus_model_repo.importing.engine import import_engine
from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.huggingface.safetensors_header import ELEMENT_BITS
from r1plus_model_repo.importing.model import Claims
from r1plus_model_repo.importing.package.manifest import ImportOptions, ImportOptionsError

Shaped = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor -> type and shape."""
Change = Callable[[Path], None]
LAYERS, HEADS, KV_HEADS, HEAD_SIZE, HIDDEN, INTERMEDIATE, VOCABULARY = 2, 4, 2, 8, 32, 48, 64
CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": 4096,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": VOCABULARY,
}
TRTLLM: Mapping[str, Any] = {
    "architecture": "LlamaForCausalLM",
    "dtype": "float16",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": 4096,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "head_size": HEAD_SIZE,
    "vocab_size": VOCABULARY,
    "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
    "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
}
BUILD: Mapping[str, Any] = {
    "max_batch_size": 16,
    "max_seq_len": 2048,
    "max_num_tokens": 4096,
    "plugin_config": {"use_paged_context_fmha": True},
}
PLAN: Mapping[str, Any] = {"version": "1.2.1", "pretrained_config": TRTLLM, "build_config": BUILD}


def safetensors(header: Mapping[str, Any], data: bytes) -> bytes:
    """A file as the format says: length, header, data."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def lay_out(tensors: Shaped) -> tuple[dict[str, Any], int]:
    """The header of tensors one after the other, and the bytes that they take."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * ELEMENT_BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    return header, end


def write_tensors(path: Path, tensors: Shaped) -> None:
    """The tensors, all zeros."""
    header, size = lay_out(tensors)
    path.write_bytes(safetensors(header, bytes(size)))


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def llama(layers: Iterable[int] = range(LAYERS), dtype: str = "BF16", *, ends: bool = True) -> dict[str, Any]:
    """Some layers of a model of that kind, and what is before and behind them."""
    kv = KV_HEADS * HEAD_SIZE
    found: dict[str, Any] = {}
    for layer in layers:
        name = f"model.layers.{layer}"
        found |= {
            f"{name}.self_attn.q_proj.weight": (dtype, (HIDDEN, HIDDEN)),
            f"{name}.self_attn.k_proj.weight": (dtype, (kv, HIDDEN)),
            f"{name}.self_attn.v_proj.weight": (dtype, (kv, HIDDEN)),
            f"{name}.self_attn.o_proj.weight": (dtype, (HIDDEN, HIDDEN)),
            f"{name}.mlp.gate_proj.weight": (dtype, (INTERMEDIATE, HIDDEN)),
            f"{name}.mlp.up_proj.weight": (dtype, (INTERMEDIATE, HIDDEN)),
            f"{name}.mlp.down_proj.weight": (dtype, (HIDDEN, INTERMEDIATE)),
            f"{name}.input_layernorm.weight": (dtype, (HIDDEN,)),
            f"{name}.post_attention_layernorm.weight": (dtype, (HIDDEN,)),
        }
    if ends:
        found |= {
            "model.embed_tokens.weight": (dtype, (VOCABULARY, HIDDEN)),
            "model.norm.weight": (dtype, (HIDDEN,)),
            "lm_head.weight": (dtype, (VOCABULARY, HIDDEN)),
        }
    return found


def with_biases(*parts: str, matrices: tuple[str, ...] = ("",)) -> dict[str, Any]:
    """The model with a bias for each matrix of these parts of a layer, or for those whose names begin so."""
    tensors = llama()
    for name, (dtype, shape) in llama().items():
        part, matrix = name.split(".")[-3:-1] if "layers" in name else ("", "")
        if part in parts and matrix.startswith(matrices):
            tensors[name.removesuffix("weight") + "bias"] = (dtype, shape[:1])
    return tensors


def elements(tensors: Shaped) -> int:
    """Of all of them."""
    return sum(math.prod(shape) for _, shape in tensors.values())


def tokenizer(folder: Path) -> None:
    """A tokenizer's files."""
    folder.mkdir(exist_ok=True)
    write_json(folder / "tokenizer.json", {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}}})
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"})
    write_json(folder / "generation_config.json", {"eos_token_id": [1, 2]})
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")


def checkpoint(folder: Path, *, shards: int = 1, dtype: str = "BF16") -> Path:
    """A Hugging Face checkpoint, as `save_pretrained` writes it."""
    tokenizer(folder)
    write_json(folder / "config.json", CONFIG)
    (folder / "README.md").write_text("not for pods", encoding="utf-8")
    if shards == 1:
        write_tensors(folder / "model.safetensors", llama(dtype=dtype))
        return folder
    places: dict[str, str] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        tensors = llama(range(shard, LAYERS, shards), dtype, ends=shard == 0)
        write_tensors(folder / name, tensors)
        places |= dict.fromkeys(tensors, name)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": places})
    return folder


def trtllm_tensors(dtype: str = "F16") -> dict[str, Any]:
    """As `convert_checkpoint.py` names them."""
    rows = (HEADS + 2 * KV_HEADS) * HEAD_SIZE
    found: dict[str, Any] = {"transformer.vocab_embedding.weight": (dtype, (VOCABULARY, HIDDEN))}
    for layer in range(LAYERS):
        found |= {
            f"transformer.layers.{layer}.attention.qkv.weight": (dtype, (rows, HIDDEN)),
            f"transformer.layers.{layer}.mlp.fc.weight": (dtype, (INTERMEDIATE, HIDDEN)),
        }
    return found


def trtllm_checkpoint(folder: Path) -> Path:
    """What TensorRT-LLM builds an engine of."""
    (folder / "checkpoint").mkdir(parents=True)
    tokenizer(folder / "tokenizer")
    write_json(folder / "checkpoint" / "config.json", TRTLLM)
    write_tensors(folder / "checkpoint" / "rank0.safetensors", trtllm_tensors())
    return folder


def trtllm_plan(folder: Path) -> Path:
    """What `trtllm-build` leaves; of the plan itself nothing is read."""
    (folder / "plan").mkdir(parents=True)
    tokenizer(folder / "tokenizer")
    write_json(folder / "plan" / "config.json", PLAN)
    (folder / "plan" / "rank0.engine").write_bytes(bytes(3 * 2**20))
    return folder


def changed(name: str, **values: Any) -> Change:
    """The JSON file `name` with other values; None takes one away, and `a__b` is b within a."""

    def change(folder: Path) -> None:
        said = json.loads((folder / name).read_text(encoding="utf-8"))
        for key, value in values.items():
            *parts, last = key.split("__")
            at = said
            for part in parts:
                at = at[part]
            at[last] = value
            if value is None:
                del at[last]
        write_json(folder / name, said)

    return change


def without(*names: str) -> Change:
    """Files taken away."""

    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def with_file(name: str, content: bytes | str = b"") -> Change:
    """A file more, or another in its place."""

    def change(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def moved(name: str, to: str) -> Change:
    """A file or folder by another name."""

    def change(folder: Path) -> None:
        (folder / name).rename(folder / to)

    return change


def linked(name: str, to: str) -> Change:
    """A link in the file's place."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return change


def with_tensors(name: str, tensors: Shaped) -> Change:
    """Other weights in the file."""

    def change(folder: Path) -> None:
        write_tensors(folder / name, tensors)

    return change


def both(*changes: Change) -> Change:
    """One after the other."""

    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def rows(table: Mapping[str, tuple[Any, ...]], default: Any) -> list[Any]:
    """Return pytest's parameters of a table: its keys are ids, and a row that is one short ends with the default."""
    width = max(map(len, table.values()))
    return [pytest.param(*row, *[default] * (width - len(row)), id=name) for name, row in table.items()]


def silent(_: str) -> None:
    """Progress that nobody reads."""


def loaded(made: Path) -> Engine:
    """The one engine of the catalog in the folder that the import made."""
    (engine,) = load_catalog(made)
    return engine


def fill_disk(when: str) -> Callable[[str], None]:
    """Return a receiver of progress at which the disk is full once a line begins so."""

    def full(line: str) -> None:
        if line.startswith(when):
            raise OSError(28, "No space left on device")

    return full


def check_same_wherever(source: Path, wish: ImportOptions, claims: Claims) -> None:
    """Import a model from two places; the engines must be the same."""
    root = source.parent
    one = import_engine(source, root / "one", wish, claims, silent)
    (root / "moved").mkdir()
    other = import_engine(source.rename(root / "moved" / source.name), root / "two", wish, claims, silent)
    assert one.sha256 == other.sha256
    assert (one.folder / "engine.yaml").read_text() == (other.folder / "engine.yaml").read_text()


def refused(source: Path, wish: ImportOptions, claims: Claims) -> str:
    """What the import says, which leaves nothing behind."""
    out = source.parent / "engines"
    with pytest.raises((WeightsError, ImportOptionsError)) as raised:
        import_engine(source, out, wish, claims, silent)
    assert not out.exists()
    return str(raised.value)
