"""The checkpoints of a distillation: checked, cut to fewer layers, and written.

What is read was checked by the importer's reader: safetensors of the shape in config.json, no pickle, no code.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from r1plus_contract.engine.delivery import digest_listing, hash_file
from r1plus_contract.engine.llama_architecture import (
    LlamaShape,
    ModelError,
    read_architecture,
    read_shape,
    write_fields,
)
from r1plus_model.checkpoint import WEIGHTS, load_model, name_tensors
from r1plus_model.errors import DistillationError
from r1plus_model.model import R1PlusModel
from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.folder_files import CONFIG
from r1plus_model_repo.importing.huggingface.checkpoint import read_checkpoint
from r1plus_model_repo.importing.model import Claims, SourceModel

_LAYER: Final = re.compile(r"layers\.(\d+)\.(.*)")
_LARGEST_F16: Final = 65504.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was checked."""

    folder: Path
    files: tuple[str, ...]
    fields: Mapping[str, Any]
    """config.json."""
    shape: LlamaShape
    parameters: int
    digest: str
    """Of all its files, 64 hex digits."""


def open_checkpoint(folder: Path, role: str) -> Checkpoint:
    """Check a checkpoint; `role` (teacher, student) names it in errors.

    Raises:
        DistillationError: it is no checkpoint, or of a model that is not trained here.
    """
    if folder.is_file():
        remedy = f"r1plus engine convert {folder} --out DIR writes a checkpoint of a .gguf file"
        raise DistillationError(f"{role}: {folder} is a file, and a checkpoint is a folder; {remedy}")
    try:
        model, fields, shape = _read(folder)
    except (WeightsError, ModelError) as error:
        raise DistillationError("\n".join(f"{role}: {line}" for line in str(error).splitlines())) from error
    listing = "".join(f"{hash_file(folder / name)}  {name}\n" for name in sorted(model.files))
    return Checkpoint(folder, model.files, fields, shape, model.parameters, digest_listing(listing))


def can_train(folder: Path) -> bool:
    """Return whether `open_checkpoint` takes a folder. Reads no weights."""
    try:
        _read(folder)
    except (WeightsError, ModelError):
        return False
    return True


def _read(folder: Path) -> tuple[SourceModel, Mapping[str, Any], LlamaShape]:
    model = read_checkpoint(folder, Claims())
    fields = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    shape = read_shape(fields)
    if not read_architecture(fields).is_llama:
        raise ModelError("model_type: r1plus: only a Llama is distilled by this command; use its checkpoint")
    return model, fields, shape


def load(checkpoint: Checkpoint, role: str) -> R1PlusModel:
    """Return the model in float32.

    Raises:
        DistillationError: a tensor is missing, or is none of the model's.
    """
    try:
        return load_model(checkpoint.folder)
    except ModelError as error:
        raise DistillationError(f"{role}: {error}") from error


def cut_layers(model: R1PlusModel, kept: Sequence[int]) -> R1PlusModel:
    """Return a model of these layers of it, counted from 0, with copies of its weights."""
    weights = {}
    for name, tensor in model.state_dict().items():
        match = _LAYER.fullmatch(name)
        if match is None:
            weights[name] = tensor
        elif int(match[1]) in kept:
            weights[f"layers.{kept.index(int(match[1]))}.{match[2]}"] = tensor
    student = R1PlusModel(replace(model.shape, layers=len(kept)), model.architecture)
    student.load_state_dict(weights)
    return student


def write_checkpoint(folder: Path, model: R1PlusModel, source: Checkpoint) -> str:
    """Write a model into an empty folder, with the tokenizer of `source`, in F16; return the sha256 of its weights.

    In F32 if a number does not fit F16. The same model gives the same bytes.
    """
    tensors = name_tensors(model)
    is_half = all(tensor.abs().max() <= _LARGEST_F16 for tensor in tensors.values())
    dtype = torch.float16 if is_half else torch.float32
    save_file({name: one.to(dtype).contiguous() for name, one in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    fields = dict(source.fields)
    fields["num_hidden_layers"] = model.shape.layers
    fields["torch_dtype"] = "float16" if is_half else "float32"
    fields.pop("dtype", None)
    fields.pop("layer_types", None)
    text = json.dumps(write_fields(fields, model.architecture), ensure_ascii=False, indent=2)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    for name in source.files:
        if name != CONFIG and not name.endswith((".safetensors", ".index.json")):
            shutil.copyfile(source.folder / name, folder / name)
    return hash_file(folder / WEIGHTS)


def check_same_tokenizer(teacher: Checkpoint, student: Checkpoint) -> None:
    """Raise DistillationError unless both have the same tokens under the same numbers, and split texts alike."""
    contents = [json.loads((one.folder / "tokenizer.json").read_text(encoding="utf-8")) for one in (teacher, student)]
    for part in ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor"):
        if contents[0].get(part) != contents[1].get(part):
            raise DistillationError(
                f"student: tokenizer.json: {part}: differs from the teacher's, so a number of one means another token"
                " in the other; take a student of the same family, or give layers"
            )
    if teacher.shape.vocabulary != student.shape.vocabulary:
        raise DistillationError(
            f"student: config.json: vocab_size: {student.shape.vocabulary}, the teacher has"
            f" {teacher.shape.vocabulary}; take a student of the same family, or give layers"
        )
