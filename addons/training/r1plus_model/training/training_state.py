"""The state of a training: the student's weights, the optimiser's moments, and the step. One file, whole or absent.

It is written under another name, synced and renamed, so a kill at any moment leaves the state before or the new one.
safetensors, no pickle: nothing that a file says is executed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW

from r1plus_contract.atomic_files import sync
from r1plus_model.errors import DamagedWorkError, DistillationError, ForeignFolderError, StorageError

FILE: Final = "state.safetensors"
_KINDS: Final = {"exp_avg": "mean", "exp_avg_sq": "square"}
BYTES_PER_PARAMETER: Final = 12
Identity = Mapping[str, str]
"""What a training is of, such as its recipe -> a digest."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a training is."""

    step: int
    """Steps that are done."""
    tokens: int
    """Tokens that were predicted."""


def save_state(folder: Path, identity: Identity, position: Position, model: nn.Module, optimizer: AdamW) -> None:
    """Replace the state in `folder`, which is made if it is not there.

    Raises:
        StorageError: it cannot be written; the one before is still there.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight.{name}"] = parameter.detach()
        for kind, stored in _KINDS.items():
            tensors[f"{stored}.{name}"] = optimizer.state[parameter][kind]
    metadata = {**identity, "step": str(position.step), "tokens": str(position.tokens)}
    part = folder / f".part-{FILE}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata)
        sync(part)
        part.replace(folder / FILE)
        sync(folder)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"{folder}: the state after step {position.step} cannot be written: {error}",
            "make room and start again: the run goes on from the state before",
        ) from error


def read_step(folder: Path) -> int:
    """Return how many steps are done by the state in `folder`; 0 if there is none, or none that can be read."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            return int((file.metadata() or {})["step"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return 0


def load_state(folder: Path, identity: Identity, model: nn.Module, optimizer: AdamW) -> Position:
    """Read the state into model and optimiser; return its position, which is the start if there is none.

    Raises:
        DistillationError: the state is damaged, or has another identity.
    """
    path = folder / FILE
    if not path.is_file():
        return Position(0, 0)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if differences := _describe_differences(metadata, identity):
                raise ForeignFolderError(
                    f"{path}: a state of another training: {differences}", "give another folder, or remove this one"
                )
            position = Position(int(metadata["step"]), int(metadata["tokens"]))
            for name, parameter in model.named_parameters():
                parameter.data.copy_(file.get_tensor(f"weight.{name}"))
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(position.step)),
                    **{kind: file.get_tensor(f"{stored}.{name}").clone() for kind, stored in _KINDS.items()},
                }
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        if isinstance(error, DistillationError):
            raise
        remedy = "remove the file, and the training begins again"
        raise DamagedWorkError(f"{path}: damaged: {error}", remedy, path) from error
    return position


def _describe_differences(metadata: Mapping[str, str], identity: Identity) -> str:
    """Return what a state is of instead; empty: it has this identity."""
    pairs = [(name, metadata.get(name), own) for name, own in identity.items()]
    return ", ".join(
        f"{name} {theirs[:12] if theirs else 'not recorded'} (here {own[:12]})"
        for name, theirs, own in pairs
        if theirs != own
    )
