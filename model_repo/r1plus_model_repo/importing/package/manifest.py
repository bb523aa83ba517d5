"""The R1PlusEngine of an imported model: what was read, what whoever imports it says, and what is estimated.

Estimates are rounded up from what the demo's engines were measured to take (catalog/smollm2.yaml), and the manifest
says which figures they are.
"""

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from r1plus_contract import names
from r1plus_model_repo.catalog.quantity import mebibytes
from r1plus_model_repo.catalog.types import EngineName, EngineSpec, spec_problems
from r1plus_model_repo.importing.model import OPENVINO, Model
from r1plus_model_repo.importing.options import Wish, WishError
from r1plus_model_repo.importing.tensorrt_llm import engine_fields

__all__ = ("Wish", "WishError", "check_name", "manifest", "spec_of", "weights_memory")
RUNTIME_MEMORY = "750Mi"
"""Server, backend and activations: smollm2-full-f16's at batch 32, the most that was measured."""
BEST_BATCH, MAX_BATCH = 16, 32


def weights_memory(model: Model) -> str:
    """What the weights take once loaded, estimated.

    On CPU computing is in FP32: weights kept in 16 bits or more are held as they are and unpacked; quantised ones stay
    packed. On a GPU they are what they are.
    """
    if model.gpu is not None:
        return mebibytes(model.weights_bytes)
    floating = model.precision.startswith(("FP", "BF"))
    need = (model.weights_bytes + 4 * model.parameters) * 1.05 if floating else model.weights_bytes * 1.6
    return mebibytes(int(need))


def spec_of(wish: Wish, model: Model, sha256: str, origin: str) -> EngineSpec:
    """The engine's spec; WishError lists every problem as `spec.field: what is wrong (got value)`."""
    unmeasured = {"claimedBy": f"nobody yet: imported from {origin}"[:256]}
    gpu, problems = model.gpu, engine_fields.gpu_problems(wish, model)
    best, largest = engine_fields.batches(wish, gpu) if gpu else _batches(wish)
    given = {
        "family": wish.family,
        "tier": wish.tier,
        "version": wish.version,
        "precision": model.precision,
        "backend": gpu.backend if gpu else OPENVINO,
        "architecture": {
            "layers": model.shape.layers,
            "kvHeads": model.shape.kv_heads,
            "headSize": model.shape.head_size,
            "contextLength": model.context_length,
            "parameters": model.parameters,
            **(engine_fields.architecture(gpu) if gpu else {}),
        },
        "artifact": {"image": wish.image or f"r1plus.local/engine-{wish.name}:{wish.version}", "sha256": sha256},
        "requirements": {
            "cpu": wish.cpu,
            "weightsMemory": wish.weights_memory or weights_memory(model),
            "runtimeMemory": wish.runtime_memory or (engine_fields.RUNTIME_MEMORY if gpu else RUNTIME_MEMORY),
            **(engine_fields.requirements(wish, gpu) if gpu else {}),
        },
        "batch": {"best": best, "max": largest},
        "reference": {
            "suite": wish.suite or f"{wish.family}-{wish.tier}-v1",
            **({"inheritedFrom": wish.inherited_from} if wish.inherited_from else unmeasured),
        },
        **(engine_fields.terms(wish, gpu) if gpu else {}),
    }
    try:
        spec = EngineSpec.model_validate(given)
    except ValidationError as error:
        raise WishError((*problems, *spec_problems(error, EngineSpec))) from error
    if problems:
        raise WishError(problems)
    return spec


def _batches(wish: Wish) -> tuple[int, int]:
    """On CPU."""
    best, largest = wish.best_batch, wish.max_batch
    return BEST_BATCH if best is None else best, MAX_BATCH if largest is None else largest


def check_name(name: str) -> None:
    """WishError unless an R1PlusEngine, a label and a folder may bear the name."""
    try:
        _NAME.validate_python(name)
    except ValidationError as error:
        told = (f"metadata.name: {item['msg']} (got {name!r:.80})" for item in error.errors(include_url=False))
        raise WishError(tuple(told)) from error


def manifest(name: str, spec: EngineSpec, origin: Mapping[str, Any]) -> str:
    """The R1PlusEngine as YAML, with what to know of its figures above it."""
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND_ENGINE,
        "metadata": {"name": name},
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    figures = _FOR_CPU if spec.requirements.gpu is None else _FOR_GPU
    head = _HEAD.format(file=origin["file"], sha256=origin["sha256"], figures=figures)
    return head + yaml.safe_dump(body, sort_keys=False, width=110)


_NAME: TypeAdapter[str] = TypeAdapter(EngineName)
_HEAD = """\
# Made by `r1plus engine import` from {file}, sha256 {sha256}.
#
{figures}
# Nobody has measured what it reaches: make its suite with r1plus suite build and baseline, then fill in reference.
---
"""
_FOR_CPU = """\
# Read from the model: precision, architecture. Computed: artifact.sha256, over the files under engine/; the pod's init
# container compares it, and the architecture with the files.
# Estimated from what the smollm2 engines take: requirements.weightsMemory, runtimeMemory; batch. Measure, and correct.\
"""
_FOR_GPU = """\
# Read from the model: precision, architecture, requirements.weightsMemory. Computed: artifact.sha256, over the files
# under engine/; the pod's init container compares it.
# Estimated as for the published shapes: requirements.activationMemory, runtimeMemory; batch. Measure, and correct.
# Which batch and context fit which GPU: r1plus fit --engine NAME --catalog FOLDER, the folder that this file is in."""
