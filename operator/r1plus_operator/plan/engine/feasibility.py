"""Whether cluster and hardware can serve an engine: files, runtime, node, GPU, memory, configuration.

`selection` checks every engine that the request admits. `r1plus explain` prints the same answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from r1plus_contract.remedies import LARGEST_NODE, Remedy, append_remedy, word
from r1plus_model_repo.catalog.types import Backend, Engine
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.types import DeliveryMode, R1PlusDeploymentSpec
from r1plus_operator.plan.engine.nodes import compute_memory_per_pod, explain_no_node, find_matching_nodes
from r1plus_operator.plan.observation import NodeFacts
from r1plus_operator.plan.podspec.pod import POD_OVERHEAD, compute_storage_bytes
from r1plus_operator.plan.podspec.triton_config import list_problems
from r1plus_operator.plan.settings import CPU_RUNTIMES
from r1plus_policies.engine.hardware import UNKNOWN, GpuNeed, Gpus, explain_version_refusal, place_engine
from r1plus_policies.engine.memory_fit import GIB, Fit, Misfit, compute_fit, fit_memory
from r1plus_policies.engine.selection import Obstacle

CAPACITY = frozenset({Reason.GPU_NOT_FOUND, Reason.NO_NODE_FITS, Reason.BATCH_TOO_LARGE, Reason.CONTEXT_TOO_LONG})
"""Reasons of obstacles that the hardware causes."""
SERVABLE = frozenset({Backend.TENSORRT_LLM, Backend.VLLM})
"""GPU backends that the chart can set an image for. A TensorRT plan returns logits, which nothing here decodes."""


def select_condition(reason: Reason) -> ConditionType:
    """Return the condition that an obstacle sets to False."""
    return ConditionType.CAPACITY_FITS if reason in CAPACITY else ConditionType.ENGINE_READY


@dataclass(frozen=True, slots=True)
class EnginePlacement:
    """Where an engine fits: batch, context and memory, and the GPUs (None: it runs on CPU)."""

    fit: Fit
    gpus: Gpus | None = None
    counts_storage: bool = False
    """Whether every matching node reports its ephemeral storage."""


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The engine that serves or is a candidate: it keeps its batch while a pod fits a node, and waits for its nodes."""

    engine: str
    batch: int


def find_placement(
    spec: R1PlusDeploymentSpec,
    engine: Engine,
    nodes: tuple[NodeFacts, ...] | None,
    runtimes: Mapping[str, str | None],
    products: Sequence[str] = (),
    incumbent: Incumbent | None = None,
) -> EnginePlacement | Obstacle:
    """Return where the engine fits `spec.replicas` times, or the first obstacle. `nodes=None`: no cluster is at hand.

    `products` are the GPUs of what serves and of candidates. If the engine fits one of them it stays there: a larger
    GPU in the cluster is no reason to build and gate again. `incumbent`: check whether this one still fits.
    """
    if obstacle := _check_files(engine) or _check_runtime(engine, runtimes):
        return obstacle
    if nodes is None:
        return _build_placement(_fit_memory(spec, engine, None, ""))
    if incumbent and incumbent.engine == engine.name and spec.batching.max_batch_size is None:
        batching = spec.batching.model_copy(update={"max_batch_size": incumbent.batch})
        spec = spec.model_copy(update={"batching": batching})
    pods = 1 if incumbent else max(1, spec.replicas)
    candidates = list(find_matching_nodes(spec, engine, nodes, ignore_temporary=incumbent is not None))
    if not candidates:
        return Obstacle(Reason.NO_NODE_FITS, explain_no_node(spec, engine, nodes))
    storage = 0
    if counts_storage := all(node.storage_bytes is not None for node in candidates):
        storage = compute_storage_bytes(engine, on_volume=choose_delivery_mode(spec, engine) is DeliveryMode.VOLUME)
        candidates = [node for node in candidates if incumbent or (node.storage_bytes or 0) >= storage]
    if not candidates:
        return Obstacle(Reason.NO_NODE_FITS, _explain_no_storage(engine, nodes, storage))
    if engine.spec.requirements.gpu is not None:
        placement = _place_on_gpus(spec, engine, [gpus for node in candidates for gpus in node.gpus], products, pods)
    else:
        placement = _place_on_cpus(spec, engine, candidates, pods, storage)
    return replace(placement, counts_storage=counts_storage) if isinstance(placement, EnginePlacement) else placement


def _explain_no_storage(engine: Engine, nodes: Iterable[NodeFacts], needed_bytes: int) -> str:
    most = max(node.storage_bytes or 0 for node in nodes)
    return (
        f"{engine.name} needs {needed_bytes / GIB:.2f} GiB of its node's ephemeral storage (twice the weights, and what"
        f" the pod writes); matching nodes have at most {most / GIB:.2f} GiB; add a larger disk, or set"
        " spec.delivery.mode to Volume"
    )


def _place_on_cpus(
    spec: R1PlusDeploymentSpec, engine: Engine, nodes: Sequence[NodeFacts], pods: int, storage: int
) -> EnginePlacement | Obstacle:
    shape = engine.spec.shape
    least = compute_fit(
        shape, spec.batching.max_batch_size or 1, spec.context.max_tokens or shape.context_length
    ).total_bytes
    room = compute_memory_per_pod(engine, nodes, pods, least + POD_OVERHEAD, storage) - POD_OVERHEAD
    reserve = f"without {POD_OVERHEAD / GIB:.2f} for the monitor and shared memory"
    return _build_placement(_fit_memory(spec, engine, max(0, room), f"{word(LARGEST_NODE)}, {reserve},"))


def choose_delivery_mode(spec: R1PlusDeploymentSpec, engine: Engine) -> DeliveryMode:
    """Return how the engine is delivered: as the spec says, or as its files allow."""
    by_volume = needs_volume(engine)
    return spec.delivery.mode or (DeliveryMode.VOLUME if by_volume else DeliveryMode.IMAGE)


def needs_volume(engine: Engine) -> bool:
    """Whether only a volume can deliver the engine."""
    return engine.spec.files.image is None or engine.spec.build is not None


def _place_on_gpus(
    spec: R1PlusDeploymentSpec, engine: Engine, offered: list[Gpus], products: Sequence[str], pods: int
) -> EnginePlacement | Obstacle:
    if engine.spec.is_built_for_gpu and offered:
        # An engine is built for one product, so the product of a node must be known.
        offered = [gpus for gpus in offered if gpus.product != UNKNOWN]
        if not offered:
            text = "it is built for one GPU product, but no node reports its own; install gpu-feature-discovery"
            return Obstacle(Reason.GPU_NOT_FOUND, f"{engine.name}: {text}")
    for product in products:
        if same_product := [gpus for gpus in offered if gpus.product == product]:
            placement = _place_on_best_gpu(spec, engine, same_product)
            # It also stays if none is offered for now: a restart of the device plugin is no reason to move.
            if isinstance(placement, EnginePlacement) or _is_none_offered(same_product):
                return placement
    sufficient = [gpus for gpus in offered if _count_pods(engine, offered, gpus) >= pods]
    placement = _place_on_best_gpu(spec, engine, sufficient)
    return placement if isinstance(placement, EnginePlacement) else _place_on_best_gpu(spec, engine, offered)


def _count_pods(engine: Engine, offered: Iterable[Gpus], of: Gpus) -> int:
    """Return how many pods all GPUs of this product have room for."""
    each = read_gpu_need(engine).count
    return sum(g.count // each for g in offered if (g.product, g.resource) == (of.product, of.resource))


def _is_none_offered(gpus: Iterable[Gpus]) -> bool:
    """Whether the nodes of a product offer none of its GPUs now."""
    return not any(gpu.count for gpu in gpus)


def is_gpu_unavailable(
    spec: R1PlusDeploymentSpec, engine: Engine, nodes: tuple[NodeFacts, ...], products: Sequence[str]
) -> bool:
    """Whether the nodes with the GPU that an engine serves on do not offer it now. The engine waits for it."""
    matching_nodes = find_matching_nodes(spec, engine, nodes, ignore_temporary=True)
    gpus_of_product = [gpus for node in matching_nodes for gpus in node.gpus if gpus.product in products[:1]]
    return bool(gpus_of_product) and _is_none_offered(gpus_of_product)


def _place_on_best_gpu(spec: R1PlusDeploymentSpec, engine: Engine, offered: list[Gpus]) -> EnginePlacement | Obstacle:
    choice = place_engine(read_gpu_need(engine), offered)
    if isinstance(choice, Gpus):
        return _build_placement(_fit_memory(spec, engine, choice.usable_bytes, f"a {choice.product}"), choice)
    return Obstacle(Reason.GPU_NOT_FOUND, f"{engine.name} needs a GPU that no matching node has: {choice}")


def _build_placement(fit: Fit | Obstacle, gpus: Gpus | None = None) -> EnginePlacement | Obstacle:
    return fit if isinstance(fit, Obstacle) else EnginePlacement(fit, gpus)


def read_gpu_need(engine: Engine) -> GpuNeed:
    """Return the GPUs that the engine needs."""
    need = engine.spec.requirements.gpu
    assert need is not None
    least = need.min_capability
    major, minor = map(int, least.split(".")) if least else (0, 0)
    return GpuNeed(need.count, need.products or (), (major, minor) if least else None)


def _fit_memory(spec: R1PlusDeploymentSpec, engine: Engine, memory: int | None, where: str) -> Fit | Obstacle:
    batch, context = spec.batching.max_batch_size, spec.context.max_tokens
    result = fit_memory(engine.spec.shape, batch=batch, context=context, memory_bytes=memory, where=where)
    if isinstance(result, Misfit):
        return Obstacle(Reason(result.reason), result.message)
    if problems := list_problems(engine.spec, result):
        text = f"spec.engine: {engine.name}: {'; '.join(problems)}; correct the R1PlusEngine or choose another"
        return Obstacle(Reason.CONFIG_REFUSED, text)
    return result


def _check_files(engine: Engine) -> Obstacle | None:
    if engine.spec.artifact is not None:
        return None
    text = f"spec.engine: {engine.name} has published sizes but no files here; {word(Remedy.PROVIDE_ENGINE)}"
    return Obstacle(Reason.ENGINE_NOT_DELIVERED, text)


def _check_runtime(engine: Engine, runtimes: Mapping[str, str | None]) -> Obstacle | None:
    runtime, need = engine.spec.runtime, engine.spec.requirements.runtime
    if runtime not in runtimes:
        return Obstacle(Reason.RUNTIME_NOT_SERVED, _explain_missing_runtime(engine, runtimes))
    version = runtimes[runtime]
    mismatch = explain_version_refusal(version, need.min, need.max) if need and version is not None else None
    if mismatch is None:
        return None
    backend = engine.spec.backend.value
    text = f"spec.engine: {engine.name}: {backend}: {mismatch}; use a build for this version or change the Triton image"
    return Obstacle(Reason.RUNTIME_NOT_SERVED, text)


def _explain_missing_runtime(engine: Engine, runtimes: Iterable[str]) -> str:
    backend, served = engine.spec.backend.value, " and ".join(sorted(runtimes))
    text = f"spec.engine: {engine.name} needs the backend {backend}"
    remedy = "choose an engine of one of these backends"
    if engine.spec.is_vllm_on_cpu:
        text += " on CPU (spec.requirements has no gpu)"
        remedy = _offer_runtime(remedy, f"{backend} for CPU", f"images.cpu.{backend}")
    elif engine.spec.backend is Backend.TORCH:
        remedy = append_remedy(remedy, Remedy.PROVIDE_TORCH, ", or ")
    elif backend in CPU_RUNTIMES:
        remedy = _offer_runtime(remedy, backend, f"images.cpu.{backend}")
    elif engine.spec.backend in SERVABLE:
        remedy = _offer_runtime(remedy, backend, "images.gpu")
    return f"{text}, but this installation serves {served}: {remedy}"


def _offer_runtime(remedy: str, backend: str, setting: str) -> str:
    return append_remedy(remedy, Remedy.PROVIDE_RUNTIME, ", or ", backend=backend, setting=setting)
