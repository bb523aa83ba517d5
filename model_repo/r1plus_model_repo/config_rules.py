"""The rules by which Triton judges a config.pbtxt, told before anything is loaded and with the field's name.

Triton says most of them as "failed to poll from model repository", with the reason in its log only. Each was seen on
tritonserver 2.51: tests/engine/test_config_rules.py puts right and wrong configurations before it and before these.
Called by the operator's plan on what it renders.
"""

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import text_format

from r1plus_model_repo.config_pbtxt import parse, pb

CPU_BACKENDS = frozenset({"python"})
"""Backends that a server without GPUs has in our image."""
GPU_BACKENDS = frozenset({"python", "tensorrt"})
"""And those of NVIDIA's images that are used."""
DELIVERED_VERSION = 1
"""The folder of the model's version, as `delivery.assemble` lays it out."""
_SINCE_2_52 = ("model_metrics",)
"""Fields that tritonclient knows and server 2.51 does not: it refuses the whole file for one of them."""


def problems(text: str, *, name: str, gpus: bool, backends: frozenset[str] = CPU_BACKENDS) -> tuple[str, ...]:
    """All that Triton would refuse in this config.pbtxt, each as `field: value: why`; empty: it loads.

    `name` is the folder that it lies in; `gpus`, whether the server sees any; `backends`, those that it has.
    """
    try:
        config = parse(text)
    except text_format.ParseError as error:
        return (f"config.pbtxt: {error}",)
    found = [problem for rule in _RULES for problem in rule(config)]
    if config.name and config.name != name:
        found.append(f"name: {config.name}: lies in the folder {name}, which it must be named after")
    backend = config.backend or config.platform.removesuffix("_plan")
    if backend and backend not in backends:  # Where none is named, Triton goes by the name of the model's file.
        found.append(f"backend: {backend}: the server has {', '.join(sorted(backends))}")
    if not gpus and any(group.kind == pb.ModelInstanceGroup.KIND_GPU for group in config.instance_group):
        found.append("instance_group.kind: KIND_GPU: the server sees no GPU")
    return tuple(found)


def _newer(config: Any) -> Iterator[str]:
    for field in _SINCE_2_52:
        if config.HasField(field):
            yield f"{field}: tritonserver 2.51 does not know it, and refuses the whole configuration"


def _batch(config: Any) -> Iterator[str]:
    if config.max_batch_size < 0:
        yield f"max_batch_size: {config.max_batch_size}: must not be negative"


def _tensors(config: Any) -> Iterator[str]:
    for kind, tensors in (("input", config.input), ("output", config.output)):
        for tensor in tensors:
            where = f"{kind} {tensor.name or '?'}"
            if not tensor.name:
                yield f"{kind}.name: missing"
            if tensor.data_type == pb.TYPE_INVALID:
                yield f"{where}: data_type: missing"
            if not tensor.dims:
                yield f"{where}: dims: missing"
            for size in tensor.dims:
                if size < 1 and size != -1:
                    yield f"{where}: dims: {size}: must be 1 or more, or -1 for any"


def _groups(config: Any) -> Iterator[str]:
    for group in config.instance_group:
        if group.kind == pb.ModelInstanceGroup.KIND_CPU and group.gpus:
            yield f"instance_group.gpus: {list(group.gpus)}: with KIND_CPU there are none"


def _batching(config: Any) -> Iterator[str]:
    if not config.HasField("dynamic_batching"):
        return
    batching, most = config.dynamic_batching, config.max_batch_size
    for size in batching.preferred_batch_size:
        if size < 1:
            yield f"dynamic_batching.preferred_batch_size: {size}: must be 1 or more"
        elif size > most:
            yield f"dynamic_batching.preferred_batch_size: {size}: exceeds max_batch_size, which is {most}"
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        yield f"dynamic_batching.default_priority_level: {default}: must be in 1..{levels} (priority_levels)"
    if batching.preserve_ordering and levels > 1:
        yield f"dynamic_batching.preserve_ordering: true: with {levels} priority levels requests overtake each other"
    for level in batching.priority_queue_policy:
        if not 1 <= level <= levels:
            yield f"dynamic_batching.priority_queue_policy: {level}: must be in 1..{levels} (priority_levels)"


def _cache(config: Any) -> Iterator[str]:
    if config.response_cache.enable and config.model_transaction_policy.decoupled:
        yield "response_cache.enable: true: a decoupled model's answers cannot be cached"


def _versions(config: Any) -> Iterator[str]:
    for version in config.version_policy.specific.versions:
        if version != DELIVERED_VERSION:
            yield f"version_policy.specific.versions: {version}: what is delivered is version {DELIVERED_VERSION}"


def _warmup(config: Any) -> Iterator[str]:
    known = {tensor.name for tensor in config.input}
    needed = {tensor.name for tensor in config.input if not tensor.optional}
    for warmup in config.model_warmup:
        for name in sorted(set(warmup.inputs) - known):
            yield f"model_warmup {warmup.name}: inputs: {name}: the model has {', '.join(sorted(known)) or 'none'}"
        for name in sorted(needed - set(warmup.inputs)):
            yield f"model_warmup {warmup.name}: inputs: {name}: missing, and the model needs it"


_RULES: tuple[Callable[[Any], Iterator[str]], ...] = (
    _newer,
    _batch,
    _tensors,
    _groups,
    _batching,
    _cache,
    _versions,
    _warmup,
)
