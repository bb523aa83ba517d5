"""Triton's rules for a config.pbtxt, checked before the model is loaded and reported with the field's name.

For most of them Triton reports "failed to poll from model repository", with the reason only in its log. They were
observed on tritonserver 2.51: tests/engine/test_config_rules.py compares this module with it. Called by the operator's
plan on what it renders.
"""

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import text_format

from r1plus_model_repo.config_pbtxt import parse_config, pb

CPU_BACKENDS = frozenset({"python"})
"""Backends of our image for servers without GPUs."""
GPU_BACKENDS = frozenset({"python", "tensorrt"})
"""Backends that we use of NVIDIA's images."""
DELIVERED_VERSION = 1
"""Folder of the model's version, as `delivery.assemble` writes it."""
_FIELDS_SINCE_2_52 = ("model_metrics",)
"""Fields of tritonclient that server 2.51 does not know; one of them makes it reject the whole file."""


def find_config_problems(
    text: str, *, name: str, gpus: bool, backends: frozenset[str] = CPU_BACKENDS
) -> tuple[str, ...]:
    """Return all that Triton would reject in this config.pbtxt, each as `field: value: reason`; empty if it loads.

    `name` is the folder of the file; `gpus` is whether the server has GPUs; `backends` are the server's backends.
    """
    try:
        config = parse_config(text)
    except text_format.ParseError as error:
        return (f"config.pbtxt: {error}",)
    config_problems = [problem for rule in _RULES for problem in rule(config)]
    if config.name and config.name != name:
        config_problems.append(f"name: {config.name}: differs from its folder {name}; use the folder's name")
    backend = config.backend or config.platform.removesuffix("_plan")
    if backend and backend not in backends:  # Without a backend, Triton derives it from the name of the model's file.
        config_problems.append(f"backend: {backend}: the server has {', '.join(sorted(backends))}")
    if not gpus and any(group.kind == pb.ModelInstanceGroup.KIND_GPU for group in config.instance_group):
        config_problems.append("instance_group.kind: KIND_GPU: the server sees no GPU")
    return tuple(config_problems)


def _check_unknown_fields(config: Any) -> Iterator[str]:
    for field in _FIELDS_SINCE_2_52:
        if config.HasField(field):
            yield f"{field}: tritonserver 2.51 does not know this field and rejects the whole configuration"


def _check_max_batch_size(config: Any) -> Iterator[str]:
    if config.max_batch_size < 0:
        yield f"max_batch_size: {config.max_batch_size}: must not be negative"


def _check_tensors(config: Any) -> Iterator[str]:
    for kind, tensors in (("input", config.input), ("output", config.output)):
        for tensor in tensors:
            tensor_name = f"{kind} {tensor.name or '?'}"
            if not tensor.name:
                yield f"{kind}.name: missing"
            if tensor.data_type == pb.TYPE_INVALID:
                yield f"{tensor_name}: data_type: missing"
            if not tensor.dims:
                yield f"{tensor_name}: dims: missing"
            for size in tensor.dims:
                if size < 1 and size != -1:
                    yield f"{tensor_name}: dims: {size}: must be 1 or more, or -1 for any"


def _check_instance_groups(config: Any) -> Iterator[str]:
    for group in config.instance_group:
        if group.kind == pb.ModelInstanceGroup.KIND_CPU and group.gpus:
            yield f"instance_group.gpus: {list(group.gpus)}: KIND_CPU has no GPUs; remove them"


def _check_dynamic_batching(config: Any) -> Iterator[str]:
    if not config.HasField("dynamic_batching"):
        return
    dynamic_batching, max_batch_size = config.dynamic_batching, config.max_batch_size
    for size in dynamic_batching.preferred_batch_size:
        if size < 1:
            yield f"dynamic_batching.preferred_batch_size: {size}: must be 1 or more"
        elif size > max_batch_size:
            yield f"dynamic_batching.preferred_batch_size: {size}: exceeds max_batch_size, which is {max_batch_size}"
    levels, default = dynamic_batching.priority_levels, dynamic_batching.default_priority_level
    if levels and not 1 <= default <= levels:
        yield f"dynamic_batching.default_priority_level: {default}: must be in 1..{levels} (priority_levels)"
    if dynamic_batching.preserve_ordering and levels > 1:
        yield f"dynamic_batching.preserve_ordering: true: requests with {levels} priority levels overtake each other"
    for level in dynamic_batching.priority_queue_policy:
        if not 1 <= level <= levels:
            yield f"dynamic_batching.priority_queue_policy: {level}: must be in 1..{levels} (priority_levels)"


def _check_response_cache(config: Any) -> Iterator[str]:
    if config.response_cache.enable and config.model_transaction_policy.decoupled:
        yield "response_cache.enable: true: answers of a decoupled model cannot be cached"


def _check_version_policy(config: Any) -> Iterator[str]:
    for version in config.version_policy.specific.versions:
        if version != DELIVERED_VERSION:
            yield f"version_policy.specific.versions: {version}: only version {DELIVERED_VERSION} is delivered"


def _check_warmup(config: Any) -> Iterator[str]:
    inputs = {tensor.name for tensor in config.input}
    required = {tensor.name for tensor in config.input if not tensor.optional}
    for warmup in config.model_warmup:
        for name in sorted(set(warmup.inputs) - inputs):
            yield f"model_warmup {warmup.name}: inputs: {name}: the model has {', '.join(sorted(inputs)) or 'none'}"
        for name in sorted(required - set(warmup.inputs)):
            yield f"model_warmup {warmup.name}: inputs: {name}: missing, and the model needs it"


_RULES: tuple[Callable[[Any], Iterator[str]], ...] = (
    _check_unknown_fields,
    _check_max_batch_size,
    _check_tensors,
    _check_instance_groups,
    _check_dynamic_batching,
    _check_response_cache,
    _check_version_policy,
    _check_warmup,
)
