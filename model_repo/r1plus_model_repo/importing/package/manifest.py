"""The R1PlusEngine of an imported model: from the files, from the options, and estimated.

Estimates are rounded up from the measured memory of the demo's engines (catalog/smollm2.yaml). The manifest says which
figures are estimates.
"""

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from r1plus_contract import names
from r1plus_model_repo.catalog.quantity import mebibytes
from r1plus_model_repo.catalog.types import Backend, EngineName, EngineSpec, spec_problems
from r1plus_model_repo.importing.model import OPENVINO, SourceModel
from r1plus_model_repo.importing.options import ImportOptions, ImportOptionsError
from r1plus_model_repo.importing.tensorrt_llm import engine_fields

__all__ = (
    "ImportOptions",
    "ImportOptionsError",
    "build_spec",
    "check_name",
    "estimate_weights_memory",
    "render_manifest",
)
RUNTIME_MEMORY = "750Mi"
"""Server, backend and activations: the largest measured value, of smollm2-full-f16 at batch 32."""
BEST_BATCH, MAX_BATCH = 16, 32


def estimate_weights_memory(model: SourceModel) -> str:
    """Estimate the memory of the loaded weights.

    OpenVINO computes in FP32: weights of 16 bits or more are held both as stored and unpacked, quantised ones stay
    packed. On a GPU, and with vLLM, they take the size in which they are served.
    """
    if model.gpu is not None:
        return mebibytes(model.weights_bytes)
    is_float = model.precision.startswith(("FP", "BF"))
    need = (model.weights_bytes + 4 * model.parameters) * 1.05 if is_float else model.weights_bytes * 1.6
    return mebibytes(int(need))


def build_spec(options: ImportOptions, model: SourceModel, sha256: str, origin: str) -> EngineSpec:
    """Build the engine's spec.

    Raise ImportOptionsError with every problem as `spec.field: what is wrong (got value)`.
    """
    claim = {"claimedBy": f"nobody yet: imported from {origin}"[:256]}
    gpu, problems = model.gpu, engine_fields.find_gpu_problems(options, model)
    best, largest = engine_fields.choose_batches(options, gpu) if gpu else _choose_batches(options)
    fields = {
        "family": options.family,
        "tier": options.tier,
        "version": options.version,
        "precision": model.precision,
        "backend": gpu.backend if gpu else OPENVINO,
        "architecture": {
            "layers": model.shape.layers,
            "kvHeads": model.shape.kv_heads,
            "headSize": model.shape.head_size,
            "contextLength": model.context_length,
            "parameters": model.parameters,
            **(engine_fields.build_architecture_fields(gpu) if gpu else {}),
        },
        **({"attention": options.attention} if options.attention else {}),
        "artifact": {
            "image": options.image or f"r1plus.local/engine-{options.name}:{options.version}",
            "sha256": sha256,
        },
        "requirements": {
            "cpu": options.cpu,
            "weightsMemory": options.weights_memory or estimate_weights_memory(model),
            "runtimeMemory": options.runtime_memory
            or (engine_fields.choose_runtime_memory(options) if gpu else RUNTIME_MEMORY),
            **(engine_fields.build_requirement_fields(options, gpu) if gpu else {}),
        },
        "batch": {"best": best, "max": largest},
        "reference": {
            "suite": options.suite or f"{options.family}-{options.tier}-v1",
            **({"inheritedFrom": options.inherited_from} if options.inherited_from else claim),
        },
        **(engine_fields.build_spec_fields(options, gpu) if gpu else {}),
    }
    try:
        spec = EngineSpec.model_validate(fields)
    except ValidationError as error:
        raise ImportOptionsError((*problems, *spec_problems(error, EngineSpec))) from error
    if problems:
        raise ImportOptionsError(problems)
    return spec


def _choose_batches(options: ImportOptions) -> tuple[int, int]:
    """Return best and largest batch on CPU."""
    best, largest = options.best_batch, options.max_batch
    return BEST_BATCH if best is None else best, MAX_BATCH if largest is None else largest


def check_name(name: str) -> None:
    """Raise ImportOptionsError unless the name is valid for an R1PlusEngine, a label and a folder."""
    try:
        _NAME_ADAPTER.validate_python(name)
    except ValidationError as error:
        messages = (f"metadata.name: {item['msg']} (got {name!r:.80})" for item in error.errors(include_url=False))
        raise ImportOptionsError(tuple(messages)) from error


def render_manifest(name: str, spec: EngineSpec, origin: Mapping[str, Any]) -> str:
    """Return the R1PlusEngine as YAML, with a comment about its figures at the top."""
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND_ENGINE,
        "metadata": {"name": name},
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    head = _HEAD.format(file=origin["file"], sha256=origin["sha256"], figures=_choose_figures(spec))
    return head + yaml.safe_dump(body, sort_keys=False, width=110)


def _choose_figures(spec: EngineSpec) -> str:
    if spec.requirements.gpu is not None:
        return _FOR_GPU
    if spec.backend is Backend.TORCH:
        return _FOR_TORCH
    return _FOR_VLLM_ON_CPU if spec.is_vllm_on_cpu else _FOR_CPU


_NAME_ADAPTER: TypeAdapter[str] = TypeAdapter(EngineName)
_HEAD = """\
# Made by `r1plus engine import` from {file}, sha256 {sha256}.
#
{figures}
# Its accuracy is not measured yet: make its suite with r1plus suite build and baseline, then fill in reference.
---
"""
_FOR_CPU = """\
# Read from the model: precision, architecture. Computed: artifact.sha256, over the files under engine/; the pod's init
# container compares it, and the architecture with the files.
# Estimated from what the smollm2 engines take: requirements.weightsMemory, runtimeMemory; batch. Measure, and correct.\
"""
_FOR_VLLM_ON_CPU = """\
# Read from the model: architecture, requirements.weightsMemory (vLLM computes in 32 bits on CPU). Computed:
# artifact.sha256, over the files under engine/; the pod's init container compares it.
# Estimated from what vLLM 0.32 takes with SmolLM2: requirements.activationMemory, runtimeMemory; batch. Measure, and
# correct. The chart must name an image with vLLM for CPU: images.cpu.vllm.\
"""
_FOR_TORCH = """\
# Read from the model: architecture (its window has the sinks), requirements.weightsMemory (torch computes in 32 bits).
# Computed: artifact.sha256, over the files under engine/; it is compared before they are served.
# Estimated from what torch 2.13 takes with SmolLM2: requirements.activationMemory, runtimeMemory; batch. Measure, and
# correct. Triton's Python must have r1plus[torch]; in a cluster the chart names that image: images.cpu.torch.\
"""
_FOR_GPU = """\
# Read from the model: precision, architecture, requirements.weightsMemory. Computed: artifact.sha256, over the files
# under engine/; the pod's init container compares it.
# Estimated as for the published shapes: requirements.activationMemory, runtimeMemory; batch. Measure, and correct.
# Which batch and context fit which GPU: r1plus fit --engine NAME --catalog FOLDER, the folder that this file is in."""
