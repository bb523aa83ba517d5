"""What cluster and hardware have against an engine, in the order in which it is said, and what follows for a deployment."""

from dataclasses import replace
from typing import Any

from r1plus_model_repo.catalog.types import Engine, KvPrecision
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.observe.node_projection import project_node, read_gpus
from r1plus_operator.plan.engine.feasibility import EnginePlacement, Incumbent, find_placement, select_condition
from r1plus_operator.plan.observation import NodeFacts
from r1plus_operator.plan.podspec.pod import POD_OVERHEAD
from r1plus_policies.engine.hardware import Gpus
from r1plus_policies.engine.memory_fit import GIB, MIB, Fit, compute_fit
from r1plus_policies.engine.selection import Obstacle
from support.plan.builders import L40S, SHIPPED, delivered, machine
from support.tables import for_each

CPU = SHIPPED["smollm2-edge-q4-1"]
GPU, VLLM = SHIPPED["r1plus-full-fp16-tensorrtllm"], SHIPPED["r1plus-full-fp16-vllm"]
SPEC = R1PlusDeploymentSpec.model_validate({"tier": "full"})
SERVED = {"openvino": "2026.4", "tensorrtllm": "1.2.1", "vllm": "0.11", "tensorrt": "10.14.2"}
T4 = Gpus("Tesla-T4", 4, 15360, (7, 5))


def needing(engine: Engine, **requirements: Any) -> Engine:
    return delivered(engine, requirements=engine.spec.requirements.model_copy(update=requirements))


def fitted(*asked: Any) -> Fit | Obstacle:
    found = find_placement(*asked)
    return found.fit if isinstance(found, EnginePlacement) else found


def test_an_engine_with_files_on_a_gpu_that_it_fits_is_fitted_into_what_that_gpu_really_has() -> None:
    found = fitted(SPEC, delivered(GPU), (machine(T4), machine(L40S)), SERVED)
    assert isinstance(found, Fit)
    assert (found.batch, found.context) == (29, 65536)


def test_a_plan_of_tensorrt_is_fitted_where_its_own_backend_is_served() -> None:
    found = fitted(SPEC, delivered(SHIPPED["r1plus-edge-fp16-tensorrt"]), (machine(L40S),), SERVED)
    assert isinstance(found, Fit), found


OBSTACLES = {
    "a shape without files": (GPU, (machine(L40S),), SERVED, "EngineNotDelivered", "images.engines and engineDigests"),
    "a backend that is not served": (delivered(GPU), (machine(L40S),), {"openvino": "1"}, "RuntimeNotServed", "serves openvino"),
    "a runtime of another version": (delivered(GPU), (machine(L40S),), {"tensorrtllm": "1.2.0"}, "RuntimeNotServed", "but the version is 1.2.0"),
    "no node with the cores": (delivered(GPU), (machine(L40S, cores=1.0),), SERVED, "NoNodeFits", "2 CPU"),
    "no GPU": (delivered(GPU), (machine(),), SERVED, "GpuNotFound", "no matching node offers a GPU"),
    "a GPU too old": (delivered(GPU), (machine(T4),), SERVED, "GpuNotFound", "Tesla-T4: compute capability 7.5 is below 8.0"),
    "a GPU too small": (delivered(GPU), (machine(Gpus("NVIDIA-L4", 1)),), SERVED, "NoNodeFits", "a NVIDIA-L4 offers 21.37 GiB"),
    "a cache that the backend does not have": (
        delivered(SHIPPED["r1plus-full-fp16-vllm"], kv_precision=KvPrecision.INT8), (machine(L40S),), SERVED, "ConfigRefused", "spec.kvPrecision: INT8",
    ),
    "more GPUs than the backend is served on": (
        needing(GPU, gpu=GPU.spec.requirements.gpu.model_copy(update={"count": 2})), (machine(replace(L40S, count=2)),), SERVED, "ConfigRefused", "use vllm for several",
    ),
    "a build for a GPU that nobody names": (delivered(GPU), (machine(Gpus("unknown", 1, 46068)),), SERVED, "GpuNotFound", "gpu-feature-discovery"),
    "memory for nothing": (CPU, (machine(memory=POD_OVERHEAD),), SERVED, "NoNodeFits", "offers 0.00 GiB"),
}  # fmt: skip


@for_each("engine, nodes, runtimes, reason, says", OBSTACLES)
def test_the_first_obstacle_is_named(
    engine: Engine, nodes: tuple[NodeFacts, ...], runtimes: dict[str, str], reason: str, says: str
) -> None:
    found = fitted(SPEC, engine, nodes, runtimes)
    assert isinstance(found, Obstacle)
    assert found.reason == reason
    assert says in found.message


def test_what_can_be_served_at_all_is_said_with_how() -> None:
    for engine, way in ((GPU, True), (SHIPPED["r1plus-full-fp16-tensorrt"], False)):
        found = fitted(SPEC, delivered(engine), (machine(L40S),), {"openvino": "1"})
        assert isinstance(found, Obstacle)
        assert ("images.gpu" in found.message) is way


A100 = Gpus("NVIDIA-A100-SXM4-80GB", 8, 81920, (8, 0))


@for_each("nodes, product, taken", {
    "the largest": ((L40S, A100), "", A100.product),
    "where it is": ((L40S, A100), L40S.product, L40S.product),
    "where it was is gone": ((A100,), L40S.product, A100.product),
    "where it is no longer fits": ((T4, A100), T4.product, A100.product),
})  # fmt: skip
def test_what_serves_stays_on_its_gpu_while_it_fits(nodes: tuple[Gpus, ...], product: str, taken: str) -> None:
    found = find_placement(SPEC, delivered(GPU), tuple(machine(gpus) for gpus in nodes), SERVED, [product])
    assert isinstance(found, EnginePlacement)
    assert found.gpus.product == taken


def test_a_wish_that_its_gpu_cannot_fulfil_is_fulfilled_on_another() -> None:
    wish = R1PlusDeploymentSpec.model_validate({"tier": "full", "batching": {"maxBatchSize": 32}})
    found = find_placement(wish, delivered(GPU), (machine(L40S), machine(A100)), SERVED, [L40S.product])
    assert isinstance(found, EnginePlacement)
    assert (found.gpus, found.fit.batch) == (A100, 32)


@for_each("replicas, incumbent, taken", {
    "one pod": (1, None, A100),
    "two pods": (2, None, L40S),
    "two that serve: each is replaced by itself": (2, Incumbent(GPU.name, 8), A100),
})  # fmt: skip
def test_the_gpus_are_as_many_as_pods_start(replicas: int, incumbent: Incumbent | None, taken: Gpus) -> None:
    wish = R1PlusDeploymentSpec.model_validate({"tier": "full", "replicas": replicas})
    nodes = (machine(replace(A100, count=1)), machine(replace(L40S, count=2)))
    found = find_placement(wish, delivered(GPU), nodes, SERVED, incumbent=incumbent)
    assert isinstance(found, EnginePlacement)
    assert found.gpus.product == taken.product


def test_capacity_is_what_hardware_is_the_cause_of() -> None:
    assert (
        select_condition(Reason.GPU_NOT_FOUND) is select_condition(Reason.NO_NODE_FITS) is ConditionType.CAPACITY_FITS
    )
    assert (
        select_condition(Reason.REFERENCE_LOWER)
        is select_condition(Reason.CONFIG_REFUSED)
        is ConditionType.ENGINE_READY
    )


def test_the_node_must_hold_the_whole_pod_and_not_the_engine_alone() -> None:
    wish = R1PlusDeploymentSpec.model_validate(
        {"tier": "edge", "batching": {"maxBatchSize": 4}, "context": {"maxTokens": 512}}
    )
    exact = compute_fit(CPU.spec.shape, 4, 512).total_bytes + POD_OVERHEAD
    assert isinstance(fitted(wish, CPU, (machine(memory=exact),), SERVED), Fit)
    assert isinstance(fitted(wish, CPU, (machine(memory=exact - 1),), SERVED), Obstacle)


def test_pods_share_a_node_while_it_has_the_cpu_that_they_ask_for() -> None:
    wish = R1PlusDeploymentSpec.model_validate({"tier": "edge", "replicas": 2})
    whole = needing(CPU, cpu_request="1")
    one_each = (machine(memory=64 * GIB, cores=2.0), machine(name="m", memory=2 * GIB, cores=1.0))
    assert fitted(wish, whole, one_each, SERVED) == fitted(wish, whole, (machine(memory=2 * GIB),), SERVED)
    assert fitted(wish, CPU, one_each, SERVED) == fitted(wish, CPU, (machine(memory=32 * GIB),), SERVED)


def test_the_largest_matching_node_decides_and_labels_must_match() -> None:
    wish = R1PlusDeploymentSpec.model_validate({"tier": "edge", "placement": {"nodeSelector": {"disk": "fast"}}})
    small, large = machine(memory=2 * GIB, labels={"disk": "fast"}), machine(memory=64 * GIB, labels={"disk": "slow"})
    found = fitted(wish, CPU, (small, large), SERVED)
    assert isinstance(found, Fit)
    assert found.total_bytes + POD_OVERHEAD <= 2 * GIB
    assert isinstance(fitted(wish, CPU, (large,), SERVED), Obstacle)


def test_without_a_cluster_only_the_engines_own_limits_hold() -> None:
    found = fitted(SPEC, CPU, None, SERVED)
    assert isinstance(found, Fit)
    assert (found.batch, found.context) == (CPU.spec.batch.best, CPU.spec.architecture.context_length)


def test_an_engine_over_two_gpus_needs_them_in_one_node() -> None:
    two = needing(VLLM, gpu=VLLM.spec.requirements.gpu.model_copy(update={"count": 2}))  # type: ignore[union-attr]
    assert isinstance(fitted(SPEC, two, (machine(L40S), machine(L40S)), SERVED), Obstacle)
    found = fitted(SPEC, two, (machine(replace(L40S, count=2)),), SERVED)
    assert isinstance(found, Fit)
    assert (found.batch, found.devices) == (32, 2)


LABELS = {
    "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB",
    "nvidia.com/gpu.memory": "40960",
    "nvidia.com/gpu.compute.major": "8",
    "nvidia.com/gpu.compute.minor": "0",
    "nvidia.com/mig-1g.5gb.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb",
    "nvidia.com/mig-1g.5gb.memory": "4864",
}


@for_each("allocatable, labels, gpus", {
    "none": ({"cpu": "8"}, LABELS, ()),
    "none left": ({"nvidia.com/gpu": "0"}, {}, ()),
    "none for now": ({"nvidia.com/gpu": "0"}, LABELS, (Gpus("NVIDIA-A100-SXM4-40GB", 0, 40960, (8, 0)),)),
    "whole GPUs": ({"nvidia.com/gpu": "2"}, LABELS, (Gpus("NVIDIA-A100-SXM4-40GB", 2, 40960, (8, 0)),)),
    "slices, mixed": (
        {"nvidia.com/mig-1g.5gb": "7"},
        LABELS,
        (Gpus("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 7, 4864, (8, 0), "nvidia.com/mig-1g.5gb"),),
    ),
    "without gpu-feature-discovery": ({"nvidia.com/gpu": "1"}, {}, (Gpus("unknown", 1),)),
    "a count that is none": ({"nvidia.com/gpu": "lots"}, LABELS, ()),
})  # fmt: skip
def test_gpus_of_a_node(allocatable: dict[str, str], labels: dict[str, str], gpus: tuple[Gpus, ...]) -> None:
    assert read_gpus(allocatable, labels) == gpus
    body = {
        "metadata": {"name": "n", "uid": "u", "labels": labels},
        "status": {"allocatable": {"memory": "8Gi", "cpu": "4", **allocatable}},
    }
    kept = project_node(body)
    assert kept.value.gpus == gpus
    assert kept.value.memory_bytes == 8192 * MIB
