"""Checkpoints in Hugging Face's format: a folder with config.json and safetensors.

A Llama's checkpoint may be loaded with R1+'s options: what they add begins so that it changes as little as possible.
One of R1+'s own architecture has its options in config.json.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from r1plus_contract.engine.llama_architecture import (
    DERIVED,
    LlamaArchitecture,
    LlamaShape,
    ModelError,
    check_window,
    read_architecture,
    read_shape,
    write_fields,
)
from r1plus_model.model import R1PlusModel

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PREFIX: Final = "model."
HEAD: Final = "lm_head.weight"
ADDED: Final = ("relative_bias", "spans", "predictor")
"""Parts of names of what R1+ adds to a Llama."""
TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
)
MOST_NAMED: Final = 3
HARMLESS: Final = 2**27
"""Numbers of a model that may be allocated before its files are read, which say better what is wrong."""


def load_model(
    folder: Path, architecture: LlamaArchitecture | None = None, dtype: torch.dtype = torch.float32
) -> R1PlusModel:
    """Return the model in the folder, with these options instead of those that config.json has.

    Raises:
        ModelError: another architecture, a tensor that is missing, too many or of another shape, or a file that cannot
            be read.
    """
    fields = read_fields(folder)
    stored = read_architecture(fields)
    shape = read_shape(fields)
    check_window(shape, architecture or stored)
    _check_size(folder, shape, stored)
    model = R1PlusModel(shape, architecture or stored)
    model.to(dtype)
    expected, loaded = model.state_dict(), set()
    for name, tensor in _read_tensors(folder):
        short = name.removeprefix(PREFIX)
        if short.endswith(DERIVED) or (name == HEAD and model.lm_head is None):
            continue
        _check_tensor(folder, name, tensor, expected.get(short))
        expected[short].copy_(tensor)  # One after the other: memory for all of them twice may be lacking.
        loaded.add(short)
    missing = sorted(set(expected) - loaded)
    is_converted = stored.is_llama and not model.architecture.is_llama
    needed = [name for name in missing if not (is_converted and any(part in name.split(".") for part in ADDED))]
    if needed:
        names = ", ".join(name if name == HEAD else PREFIX + name for name in needed[:MOST_NAMED])
        raise ModelError(f"{folder}: {len(needed)} tensors are missing: {names}; get the whole checkpoint")
    _initialise(model, missing)
    return model


def save_model(model: R1PlusModel, folder: Path, source: Path) -> None:
    """Write the model to the folder, with the tokenizer of the checkpoint `source` and the rest of its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = write_fields(read_fields(source), model.architecture)
    tensors = {name: tensor.contiguous() for name, tensor in name_tensors(model).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def name_tensors(model: R1PlusModel) -> dict[str, Tensor]:
    """Return the model's tensors by the names that a checkpoint has for them."""
    return {name if name == HEAD else PREFIX + name: tensor for name, tensor in model.state_dict().items()}


def read_fields(folder: Path) -> dict[str, Any]:
    """Return the fields of config.json.

    Raises:
        ModelError: it is missing or no object.
    """
    try:
        fields = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG}: cannot be read: {error}; give the folder of a checkpoint") from error
    if not isinstance(fields, dict):
        raise ModelError(f"{folder / CONFIG}: not an object; get the file again")
    return fields


def _read_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file in _list_files(folder):
        try:
            with safe_open(file, "pt") as stream:
                for name in stream.keys():  # noqa: SIM118 (safe_open is no mapping)
                    yield name, stream.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: cannot be read: {error}; get the file again") from error


def _check_size(folder: Path, shape: LlamaShape, stored: LlamaArchitecture) -> None:
    """Refuse a config.json whose model is larger than the files: its memory would be allocated before they are read."""
    attention = shape.hidden_size * shape.head_size * 2 * (shape.heads + shape.kv_heads)
    layer = attention + 3 * shape.hidden_size * shape.intermediate_size
    if stored.relative_bias and stored.window and stored.global_every is None:
        layer += shape.heads * stored.window
    numbers = shape.vocabulary * shape.hidden_size + shape.layers * layer
    size = sum(file.stat().st_size for file in _list_files(folder) if file.is_file())
    if numbers > max(size, HARMLESS):  # A number has a byte at least.
        raise ModelError(
            f"{folder / CONFIG}: a model of {numbers} numbers, and its files have {size} bytes; get the whole"
            f" checkpoint, with weights and {CONFIG} of the same model"
        )


def _list_files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.exists():
        return [folder / WEIGHTS]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: has no weight_map that can be read; get the file again") from error
    if bad := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise ModelError(f"{index}: {bad[0]!r:.80} is not the name of a file in the folder; get the file again")
    return [folder / name for name in sorted(names)]


def _check_tensor(folder: Path, name: str, tensor: Tensor, expected: Tensor | None) -> None:
    if expected is None:
        raise ModelError(f"{folder}: {name!r:.120}: this architecture has no such tensor; give a Llama's checkpoint")
    if tensor.shape != expected.shape:
        shapes = f"shape {list(tensor.shape)}, and {CONFIG} says {list(expected.shape)}"
        raise ModelError(f"{folder}: {name!r:.120}: {shapes}; get weights and {CONFIG} of the same model")
    if not tensor.is_floating_point():
        raise ModelError(f"{folder}: {name!r:.120}: {tensor.dtype} is no floating type; get it in F16, BF16 or F32")


def _initialise(model: R1PlusModel, missing: list[str]) -> None:
    """Let predictors that have no weights yet begin as approximations of the gates."""
    if any(".predictor." in name for name in missing):
        for layer in model.layers:
            layer.mlp.predictor.approximate(layer.mlp.gate_proj.weight)
