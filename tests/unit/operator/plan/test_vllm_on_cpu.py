"""vLLM without a GPU, as a deployment sees it: which image, which nodes, how much memory, and what its pod has."""

from dataclasses import replace
from typing import Any

from r1plus_contract import names
from r1plus_contract.engine.heartbeat import ENV_HEARTBEAT, HEARTBEAT
from r1plus_model_repo.catalog.types import VLLM_ON_CPU, Engine
from r1plus_model_repo.config_pbtxt import parse_config
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine.feasibility import EnginePlacement, find_placement
from r1plus_operator.plan.engine.nodes import has_room
from r1plus_operator.plan.observation import NodeFacts, Taint
from r1plus_operator.plan.podspec.pod import HAS_AVX2, IS_EXAMINED, OFFLINE, PLATFORM, SHM
from r1plus_operator.plan.settings import OperatorConfig, TritonRuntime
from r1plus_policies.engine.memory_fit import GIB, MIB, compute_fit
from r1plus_policies.engine.selection import Obstacle
from support.plan.builders import L40S, SHIPPED, delivered, machine, on_cpu
from support.plan.world import CONFIG, World, suite
from support.tables import for_each

IMAGE = TritonRuntime("registry.example.com/triton-vllm-cpu:1", "0.32.0")
WITH_IMAGE = replace(CONFIG, cpu_runtimes={"vllm": IMAGE})
FOR_GPUS = replace(CONFIG, gpu_runtimes={"vllm": TritonRuntime("nvcr.example/tritonserver:vllm", "0.11")})
GPU_ENGINE = SHIPPED["r1plus-full-fp16-vllm"]
SPEC: dict[str, Any] = {
    "tier": "full",
    "engine": {"family": "r1plus"},
    "accuracy": {"suite": "r1plus-full-v1"},
    "batching": {"maxBatchSize": 4},
    "context": {"maxTokens": 1000},
}


ENGINE = on_cpu(GPU_ENGINE)
SMALL = on_cpu(GPU_ENGINE, weightsMemory="23270Mi")
NODE = machine(memory=128 * GIB)
EXAMINED = {IS_EXAMINED: "Intel"}


def world_of(engine: Engine = ENGINE, *, config: OperatorConfig = WITH_IMAGE, node: NodeFacts = NODE) -> World:
    world = World(
        SPEC, engines=(engine,), suites={"r1plus-full-v1": suite("r1plus-full-v1")}, nodes=(node,), config=config
    )
    world.settle()
    return world


def pod_of(world: World) -> dict[str, Any]:
    return dict(world.revision().template["spec"])


def triton_of(world: World) -> dict[str, Any]:
    return next(one for one in pod_of(world)["containers"] if one["name"] == names.CONTAINER_TRITON)


NO_IMAGE = (
    "spec.engine: r1plus-full-fp16-vllm needs the backend vllm on CPU (spec.requirements has no gpu), but this"
    " installation serves openvino: choose an engine of one of these backends, or name a Triton image with vllm for"
    " CPU in the chart's images.cpu.vllm"
)
REFUSED = {
    "no image": (
        ENGINE, CONFIG, NODE, "EngineReady", "RuntimeNotServed",
        NO_IMAGE,
    ),
    "an image for GPUs only": (ENGINE, FOR_GPUS, NODE, "EngineReady", "RuntimeNotServed", "serves openvino and vllm: "),
    "an image for CPU only, and an engine for GPUs": (
        delivered(GPU_ENGINE), WITH_IMAGE, machine(L40S), "EngineReady", "RuntimeNotServed",
        f"needs the backend vllm, but this installation serves openvino and {VLLM_ON_CPU}",
    ),
    "an image with an older vLLM": (
        on_cpu(GPU_ENGINE, runtime={"min": "0.33"}), WITH_IMAGE, NODE, "EngineReady", "RuntimeNotServed",
        "vllm: it needs 0.33 to any, but the version is 0.32.0",
    ),
    "memory for weights of 16 bits": (
        SMALL, WITH_IMAGE, NODE, "EngineReady", "ConfigRefused",
        "23270Mi: vllm computes in 32 bits on CPU, so 12200000000 weights take 46540Mi; give at least that",
    ),
    "and of a precision in small letters": (
        Engine(SMALL.name, SMALL.spec.model_copy(update={"precision": "bf16"})), WITH_IMAGE, NODE, "EngineReady",
        "ConfigRefused", "23270Mi: vllm computes in 32 bits on CPU",
    ),
    "a node that is too small": (
        ENGINE, WITH_IMAGE, machine(memory=32 * GIB), "CapacityFits", "NoNodeFits", "the largest matching node",
    ),
    "nodes without AVX2": (
        ENGINE, WITH_IMAGE, machine(memory=128 * GIB, labels=EXAMINED), "CapacityFits", "NoNodeFits", "1 node: no AVX2",
    ),
    "a node for another architecture": (
        ENGINE, WITH_IMAGE, machine(memory=128 * GIB, labels={"kubernetes.io/arch": "arm64"}), "CapacityFits",
        "NoNodeFits", "arm64",
    ),
    "a node that is kept for GPUs": (
        ENGINE, WITH_IMAGE, replace(NODE, taints=(Taint("nvidia.com/gpu", "present", "NoSchedule"),)), "CapacityFits",
        "NoNodeFits", "taint nvidia.com/gpu",
    ),
}  # fmt: skip


@for_each("engine, config, node, condition, reason, says", REFUSED)
def test_a_condition_says_why_it_is_not_served_and_what_to_do(
    engine: Engine, config: OperatorConfig, node: NodeFacts, condition: str, reason: str, says: str
) -> None:
    world = world_of(engine, config=config, node=node)
    found = next(one for one in world.status["conditions"] if one["type"] == condition)
    assert (found["status"], found["reason"]) == ("False", reason), found
    assert says in found["message"]
    assert world.live("Deployment") == []


@for_each("labels", {
    "nobody has examined": {},
    "that has AVX2": EXAMINED | {HAS_AVX2: "true"},
})  # fmt: skip
def test_a_node_is_taken(labels: dict[str, str]) -> None:
    world = world_of(node=replace(NODE, labels=labels))
    world.expect(CapacityFits="Fits")
    assert has_room(pod_of(world), [replace(NODE, labels=labels)])
    assert not has_room(pod_of(world), [replace(NODE, labels=EXAMINED)])


def test_memory_is_weights_in_32_bits_and_a_cache_of_whole_blocks_for_every_layer() -> None:
    """The window of the model is not counted on: less memory than vLLM asks for is an engine that does not start."""
    spec = R1PlusDeploymentSpec.model_validate(SPEC)
    placement = find_placement(spec, ENGINE, (NODE,), WITH_IMAGE.runtimes)
    assert isinstance(placement, EnginePlacement)
    token = 2 * 40 * 8 * 128 * 4
    assert placement.fit.kv_cache_bytes == (4 * 1024 + 128) * token
    assert placement.fit.weights_bytes >= 4 * ENGINE.spec.architecture.parameters
    assert placement.gpus is None


def test_an_open_batch_is_the_largest_that_the_node_holds() -> None:
    spec = R1PlusDeploymentSpec.model_validate({**SPEC, "batching": {}, "context": {"maxTokens": 8192}})
    sizes = {}
    for gib in (64, 96, 512):
        found = find_placement(spec, ENGINE, (machine(memory=gib * GIB),), WITH_IMAGE.runtimes)
        assert not isinstance(found, Obstacle)
        sizes[gib] = found.fit.batch
        assert found.fit.total_bytes <= gib * GIB
        if found.fit.batch < ENGINE.spec.batch.best:
            assert compute_fit(ENGINE.spec.shape, found.fit.batch + 1, 8192).total_bytes > (gib - 1) * GIB
    assert sizes[64] < sizes[96] < sizes[512] == ENGINE.spec.batch.best


def test_the_pod_has_the_image_for_cpu_and_nothing_of_a_gpu() -> None:
    world = world_of()
    triton, pod, revision = triton_of(world), pod_of(world), world.revision()
    assert triton["image"] == revision.identity.triton_image == IMAGE.image
    assert revision.identity.gpu_product == ""
    assert (triton["command"][:2], triton["args"][0]) == (["/bin/bash", "-ec"], "--model-repository=/delivery/models")
    environment = {one["name"]: one["value"] for one in triton["env"]}
    assert environment == {
        names.ENV_IDENTITY: revision.identity.digest(), ENV_HEARTBEAT: HEARTBEAT,
        "HOME": "/tmp", "PYTHONNOUSERSITE": "1", **OFFLINE,
    }  # fmt: skip
    assert triton["startupProbe"]["failureThreshold"] * triton["startupProbe"]["periodSeconds"] == 1800
    assert pod["nodeSelector"] == PLATFORM
    assert "tolerations" not in pod
    shm = next(one for one in pod["volumes"] if one["name"] == "shm")
    assert shm["emptyDir"]["sizeLimit"] == SHM


def test_the_pod_may_hold_the_checkpoints_pages_beside_what_it_requests() -> None:
    world = world_of()
    revision, resources = world.revision(), triton_of(world)["resources"]
    fit = compute_fit(ENGINE.spec.shape, revision.batch, revision.context)
    requested, limit = (int(resources[kind]["memory"].removesuffix("Mi")) for kind in ("requests", "limits"))
    assert requested == -(-(fit.total_bytes + 256 * MIB) // MIB)
    assert limit == -(-(fit.total_bytes + 256 * MIB + fit.weights_bytes) // MIB)
    assert resources["limits"].keys() == {"cpu", "memory"}


def test_the_configuration_has_the_cache_of_the_fit_and_the_threads_of_the_cpu_limit() -> None:
    config = parse_config(world_of().revision().config_pbtxt)
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "backend": "vllm",
        "engine_path": "/delivery/engine",
        "max_batch": "4",
        "context": "1000",
        "kv_cache_bytes": str((4 * 1024 + 128) * 2 * 40 * 8 * 128 * 4),
        "threads": "4",
    }
    (group,) = config.instance_group
    assert group.kind == group.KIND_CPU


def test_another_image_reaches_what_serves_as_a_candidate_only() -> None:
    world = world_of()
    first = world.revision().name
    moved = replace(WITH_IMAGE, cpu_runtimes={"vllm": replace(IMAGE, image="mirror.example/triton-vllm-cpu:1")})
    world.alter(config=moved).settle()
    assert world.revision().name == first
    assert triton_of(world)["image"] == IMAGE.image
