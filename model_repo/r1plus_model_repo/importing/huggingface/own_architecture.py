"""A checkpoint of R1+'s own architecture, or of a Llama, which the backend torch serves.

Everything that loading it would refuse is refused here, without torch: options, shapes and missing tensors.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from r1plus_contract.engine.llama_architecture import (
    DERIVED,
    LlamaArchitecture,
    LlamaShape,
    ModelError,
    check_window,
    list_shapes,
    read_architecture,
    read_shape,
)
from r1plus_model_repo.importing.folder_files import CONFIG, read_json
from r1plus_model_repo.importing.huggingface.checkpoint import read_checkpoint
from r1plus_model_repo.importing.huggingface.safetensors_header import Tensor
from r1plus_model_repo.importing.huggingface.weights import HEAD, SERVED_ON_CPU, read_shards
from r1plus_model_repo.importing.model import TORCH, Claims, ImportFindings, SourceModel

MOST_NAMED: Final = 3


def read_own_architecture(source: Path, claims: Claims) -> SourceModel:
    """Read the checkpoint in the folder. Raise WeightsError with everything that is wrong or missing."""
    model, findings = read_checkpoint(source, claims, served=SERVED_ON_CPU), ImportFindings()
    _, tensors = read_shards(source, findings)
    try:
        shape, architecture = _read_options(read_json(source, CONFIG, findings))
    except ModelError as error:
        findings.problems.append(f"{CONFIG}: {error}")
    else:
        _check_tensors(tensors, list_shapes(shape, architecture), findings)
    findings.raise_problems(source)
    assert model.gpu is not None
    has_window = architecture.window is not None
    details = replace(
        model.gpu,
        backend=TORCH,
        # Sinks keep slots of their own.
        window=(architecture.window or 0) + architecture.sinks if has_window else None,
        global_layers=_count_global_layers(shape, architecture) if has_window else None,
        is_sparse=architecture.active < 1,
    )
    return replace(model, gpu=details, notes=(*model.notes, *_list_notes(architecture)))


def _read_options(fields: Mapping[str, Any]) -> tuple[LlamaShape, LlamaArchitecture]:
    shape, architecture = read_shape(fields), read_architecture(fields)
    check_window(shape, architecture)
    return shape, architecture


def _count_global_layers(shape: LlamaShape, architecture: LlamaArchitecture) -> int | None:
    return sum(not architecture.has_window(layer) for layer in range(shape.layers)) or None


def _check_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], findings: ImportFindings
) -> None:
    """Check that the tensors are those of the architecture: what R1+ adds is trained, and has no default."""
    if missing := sorted(set(expected) - set(tensors)):
        names = ", ".join(missing[:MOST_NAMED])
        findings.problems.append(
            f"{len(missing)} tensors are missing: {names}; get the whole checkpoint, or change the model and heal it"
            " (docs/model.md)"
        )
    for name, tensor in tensors.items():
        shape = expected.get(name)
        if shape is None and not name.endswith(DERIVED) and name != HEAD:
            findings.problems.append(f"{name!r:.120}: this architecture has no such tensor; give a Llama's checkpoint")
        elif shape is not None and tuple(tensor.shape) != shape:
            findings.problems.append(
                f"{name!r:.120}: shape {list(tensor.shape)}, and {CONFIG} says {list(shape)}; get both of one model"
            )


def _list_notes(architecture: LlamaArchitecture) -> tuple[str, ...]:
    if architecture.active == 1:
        return ()
    text = (
        f"{architecture.active:.0%} of the neurons are active: that makes one request at a time faster and a batch"
        " slower, so batch.best is 1; serve it on tier edge"
    )
    return (text,)
