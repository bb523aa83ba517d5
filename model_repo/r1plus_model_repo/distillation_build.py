"""The build of an engine as the student of a teacher: its options and its key.

Called by the operator's plan; no I/O. `r1plus_training.distill_job` trains it in the Job's container `build`. The
volume, its `built.json` and the revision's config.pbtxt carry the key.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

from r1plus_contract.engine.engine_fetch import Build, DistillationOptions
from r1plus_contract.jsonable import dumps
from r1plus_model_repo.catalog.quantity import MOST_BYTES, bytes_of, mebibytes
from r1plus_model_repo.catalog.types import Backend, EngineSpec

_KIND: Final = "distillation"
"""Part of the key: no other kind of build has the same."""
GGUF_PRECISIONS: Final = {"FP16": "F16", "Q8_0": "Q8_0", "Q4_0": "Q4_0", "Q4_1": "Q4_1"}
"""`spec.precision` of a student that OpenVINO serves -> precision of its GGUF file."""

EXAMPLES_TOGETHER: Final = 2
"""Examples of one pass: logits of a large vocabulary take more memory than the model."""
TRAINING_BYTES: Final = 16
"""Of a weight of the student in training: itself, its gradient and its two moments in float32."""


def find_problems(spec: EngineSpec) -> Iterator[str]:
    """Yield what is wrong with an engine that is distilled, and would be found after its training."""
    terms, layers = spec.distill, spec.architecture.layers
    if terms is None:
        return
    if terms.layers not in (None, layers):
        yield (
            f"spec.build.distill.layers: {terms.layers} differs from spec.architecture.layers, {layers}: memory would"
            " be sized for another model; set both to the student's layers"
        )
    if spec.backend is Backend.OPENVINO and spec.precision not in GGUF_PRECISIONS:
        yield f"spec.precision: {spec.precision}: a student for openvino has one of {', '.join(GGUF_PRECISIONS)}"
    parameters = spec.architecture.parameters
    # Without this check 0 would be a container without a limit.
    if bytes_of(terms.memory) < (least := TRAINING_BYTES * parameters):
        yield (
            f"spec.build.distill.memory: {terms.memory} is less than {mebibytes(least)}, what weights, gradients and"
            f" moments of {parameters} parameters take; raise it"
        )
    if terms.num_nodes is not None and terms.num_nodes > (parts := -(-terms.batch // EXAMPLES_TOGETHER)):
        yield (
            f"spec.build.distill.numNodes: {terms.num_nodes} is more than {parts}, the parts of a step: its batch of"
            f" {terms.batch} is computed {EXAMPLES_TOGETHER} at a time; lower it, or raise batch"
        )
    for name, quantity in (("memory", terms.memory), ("storage", terms.storage)):
        if bytes_of(quantity) > MOST_BYTES:
            yield f"spec.build.distill.{name}: {quantity} is more than {mebibytes(MOST_BYTES)}; lower it"


def build_distillation(spec: EngineSpec) -> Build | None:
    """Return what the Job of an engine builds; None: the engine is not distilled."""
    terms = spec.distill
    if terms is None:
        return None
    options = DistillationOptions(
        layers=terms.layers,
        temperature=terms.temperature,
        hard_weight=terms.hard_weight,
        steps=terms.steps,
        batch=terms.batch,
        length=terms.length,
        learning_rate=terms.learning_rate,
        top=terms.top,
        training_precision=terms.training_precision.value,
        seed=terms.seed,
        backend=spec.backend.value,
        precision=spec.precision,
    )
    return Build(compute_key(spec.files.sha256, options), "", options, bytes_of(terms.storage))


def compute_key(artifact: str, options: DistillationOptions) -> str:
    """Return the sha256 of the recipe, 64 hex digits.

    The artifact's digest covers teacher, data and student. Neither the trainer's image nor CPU, memory and storage are
    part of it, nor is how many machines train: a training of hours goes on after an upgrade, and with more room.
    """
    return hashlib.sha256(dumps([_KIND, artifact, options]).encode()).hexdigest()
