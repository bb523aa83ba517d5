"""What cluster and hardware have against an engine: files, runtime, node, GPU, memory, configuration; the first.

Asked by `target` about every engine that the wish admits; the same answers are what `r1plus explain` tells.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from r1plus_model_repo.catalog.types import Backend, Engine
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.types import DeliveryMode, R1PlusDeploymentSpec
from r1plus_operator.plan.engine.nodes import explain_no_node, matching, memory_per_pod
from r1plus_operator.plan.observation import NodeFacts
from r1plus_operator.plan.podspec.pod import POD_OVERHEAD, storage_bytes
from r1plus_operator.plan.podspec.triton_config import refusals
from r1plus_policies.engine.hardware import UNKNOWN, GpuNeed, Gpus, explain_version_refusal, place_engine
from r1plus_policies.engine.memory_fit import GIB, Fit, Misfit, compute_fit, fit_memory
from r1plus_policies.engine.selection import Obstacle

CAPACITY = frozenset({Reason.GPU_NOT_FOUND, Reason.NO_NODE_FITS, Reason.BATCH_TOO_LARGE, Reason.CONTEXT_TOO_LONG})
"""Of the obstacles, those that hardware is the cause of."""
SERVABLE = frozenset({Backend.TENSORRT_LLM, Backend.VLLM})
"""GPU backends that an image can be named for. A TensorRT plan gives logits, which nothing here makes answers of."""


def condition_of(reason: Reason) -> ConditionType:
    """The condition that an obstacle falsifies."""
    return ConditionType.CAPACITY_FITS if reason in CAPACITY else ConditionType.ENGINE_READY


@dataclass(frozen=True, slots=True)
class Seat:
    """Batch and context with the memory that they need, and the GPUs that this was fitted to (None: there are none)."""

    fit: Fit
    gpus: Gpus | None = None
    counts_storage: bool = False
    """Whether each matching node counts its ephemeral storage."""


@dataclass(frozen=True, slots=True)
class Incumbent:
    """What serves, or is on its way: it keeps its batch while one of its pods fits a node, and waits for its nodes."""

    engine: str
    batch: int


def seated(
    spec: R1PlusDeploymentSpec,
    engine: Engine,
    nodes: tuple[NodeFacts, ...] | None,
    runtimes: Mapping[str, str | None],
    products: Sequence[str] = (),
    incumbent: Incumbent | None = None,
) -> Seat | Obstacle:
    """Where the engine fits `spec.replicas` times, or what stands before it. `nodes=None`: no cluster is at hand.

    `products` are the GPUs of what serves and of what is on its way. Where the engine fits one it stays there: a larger
    GPU that joins the cluster is no reason to build and to gate anew. `incumbent`: whether this one still fits.
    """
    if obstacle := _files(engine) or _runtime(engine, runtimes):
        return obstacle
    if nodes is None:
        return _seat(_fit(spec, engine, None, ""))
    if incumbent and incumbent.engine == engine.name and spec.batching.max_batch_size is None:
        held = spec.batching.model_copy(update={"max_batch_size": incumbent.batch})
        spec = spec.model_copy(update={"batching": held})
    pods = 1 if incumbent else max(1, spec.replicas)
    able = list(matching(spec, engine, nodes, lasting=incumbent is not None))
    if not able:
        return Obstacle(Reason.NO_NODE_FITS, explain_no_node(spec, engine, nodes))
    storage = 0
    if counts := all(node.storage_bytes is not None for node in able):
        storage = storage_bytes(engine, on_volume=delivery_mode(spec, engine) is DeliveryMode.VOLUME)
        able = [node for node in able if incumbent or (node.storage_bytes or 0) >= storage]
    if not able:
        return Obstacle(Reason.NO_NODE_FITS, _no_storage(engine, nodes, storage))
    if engine.spec.requirements.gpu is not None:
        found = _on_gpus(spec, engine, [gpus for node in able for gpus in node.gpus], products, pods)
    else:
        found = _on_cpus(spec, engine, able, pods, storage)
    return replace(found, counts_storage=counts) if isinstance(found, Seat) else found


def _no_storage(engine: Engine, nodes: Iterable[NodeFacts], needed: int) -> str:
    most = max(node.storage_bytes or 0 for node in nodes)
    return (
        f"{engine.name} needs {needed / GIB:.2f} GiB of its node's ephemeral storage (twice the weights, and what the"
        f" pod writes); the nodes that match have at most {most / GIB:.2f} GiB; add a larger disk, or set"
        " spec.delivery.mode to Volume"
    )


def _on_cpus(
    spec: R1PlusDeploymentSpec, engine: Engine, able: Sequence[NodeFacts], pods: int, storage: int
) -> Seat | Obstacle:
    shape = engine.spec.shape
    least = compute_fit(
        shape, spec.batching.max_batch_size or 1, spec.context.max_tokens or shape.context_length
    ).total_bytes
    room = memory_per_pod(engine, able, pods, least + POD_OVERHEAD, storage) - POD_OVERHEAD
    beside = f"beside {POD_OVERHEAD / GIB:.2f} for the monitor and shared memory"
    return _seat(_fit(spec, engine, max(0, room), f"the largest matching node, {beside},"))


def delivery_mode(spec: R1PlusDeploymentSpec, engine: Engine) -> DeliveryMode:
    """Return by which way the engine gets to its pods: as the spec says, or as its files allow."""
    by_volume = is_without_image(engine)
    return spec.delivery.mode or (DeliveryMode.VOLUME if by_volume else DeliveryMode.IMAGE)


def is_without_image(engine: Engine) -> bool:
    """Whether the engine, as it is served, comes by a volume alone."""
    return engine.spec.files.image is None or engine.spec.build is not None


def _on_gpus(
    spec: R1PlusDeploymentSpec, engine: Engine, offered: list[Gpus], products: Sequence[str], pods: int
) -> Seat | Obstacle:
    if engine.spec.build is not None and offered:
        # What is built is built for one product: nobody may be left to guess which one a node has.
        offered = [gpus for gpus in offered if gpus.product != UNKNOWN]
        if not offered:
            text = "it is built for one product, and no node tells its own (gpu-feature-discovery)"
            return Obstacle(Reason.GPU_NOT_FOUND, f"{engine.name}: {text}")
    for product in products:
        if kept := [gpus for gpus in offered if gpus.product == product]:
            found = _on_best(spec, engine, kept)
            # Where there is none of it for now it stays, too: a device plugin that starts anew is no reason to move.
            if isinstance(found, Seat) or _away(kept):
                return found
    roomy = [gpus for gpus in offered if _places(engine, offered, gpus) >= pods]
    found = _on_best(spec, engine, roomy)
    return found if isinstance(found, Seat) else _on_best(spec, engine, offered)


def _places(engine: Engine, offered: Iterable[Gpus], of: Gpus) -> int:
    """Return how many pods GPUs of this product hold together."""
    each = gpu_need(engine).count
    return sum(g.count // each for g in offered if (g.product, g.resource) == (of.product, of.resource))


def _away(gpus: Iterable[Gpus]) -> bool:
    """Whether nodes bear the product's name, and offer none of it."""
    return not any(found.count for found in gpus)


def is_away(spec: R1PlusDeploymentSpec, engine: Engine, nodes: tuple[NodeFacts, ...], products: Sequence[str]) -> bool:
    """Whether the GPU that an engine serves on is there and not offered: what serves is to be waited for."""
    able = matching(spec, engine, nodes, lasting=True)
    kept = [gpus for node in able for gpus in node.gpus if gpus.product in products[:1]]
    return bool(kept) and _away(kept)


def _on_best(spec: R1PlusDeploymentSpec, engine: Engine, offered: list[Gpus]) -> Seat | Obstacle:
    found = place_engine(gpu_need(engine), offered)
    if isinstance(found, Gpus):
        return _seat(_fit(spec, engine, found.usable_bytes, f"a {found.product}"), found)
    return Obstacle(Reason.GPU_NOT_FOUND, f"{engine.name} needs a GPU that no matching node has: {found}")


def _seat(fit: Fit | Obstacle, gpus: Gpus | None = None) -> Seat | Obstacle:
    return fit if isinstance(fit, Obstacle) else Seat(fit, gpus)


def gpu_need(engine: Engine) -> GpuNeed:
    """What the engine asks of GPUs."""
    need = engine.spec.requirements.gpu
    assert need is not None
    least = need.min_capability
    major, minor = map(int, least.split(".")) if least else (0, 0)
    return GpuNeed(need.count, need.products or (), (major, minor) if least else None)


def _fit(spec: R1PlusDeploymentSpec, engine: Engine, memory: int | None, where: str) -> Fit | Obstacle:
    batch, context = spec.batching.max_batch_size, spec.context.max_tokens
    found = fit_memory(engine.spec.shape, batch=batch, context=context, memory_bytes=memory, where=where)
    if isinstance(found, Misfit):
        return Obstacle(Reason(found.reason), found.message)
    if refused := refusals(engine.spec, found):
        text = f"spec.engine: {engine.name}: {'; '.join(refused)}; correct the R1PlusEngine or take another"
        return Obstacle(Reason.CONFIG_REFUSED, text)
    return found


def _files(engine: Engine) -> Obstacle | None:
    if engine.spec.artifact is not None:
        return None
    text = (
        f"spec.engine: {engine.name} is a published shape without files; name its image and digest in the chart's"
        f" images.engines and engineDigests, or register an R1PlusEngine with spec.artifact"
    )
    return Obstacle(Reason.ENGINE_NOT_DELIVERED, text)


def _runtime(engine: Engine, runtimes: Mapping[str, str | None]) -> Obstacle | None:
    backend, need = engine.spec.backend.value, engine.spec.requirements.runtime
    if backend not in runtimes:
        served = " and ".join(sorted(runtimes))
        text = f"spec.engine: {engine.name} runs on {backend}; this installation serves {served}"
        remedy = "take an engine of such a backend"
        if engine.spec.backend in SERVABLE:
            remedy += f", or name a Triton image with {backend} in the chart's images.gpu"
        return Obstacle(Reason.RUNTIME_NOT_SERVED, f"{text}: {remedy}")
    version = runtimes[backend]
    refused = explain_version_refusal(version, need.min, need.max) if need and version is not None else None
    if refused is None:
        return None
    text = (
        f"spec.engine: {engine.name}: {backend}: {refused}; deliver a build for this version or change the Triton image"
    )
    return Obstacle(Reason.RUNTIME_NOT_SERVED, text)
