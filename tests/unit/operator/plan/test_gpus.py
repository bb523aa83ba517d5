"""Engines on GPUs, as a deployment sees them: bound to what they were fitted to, and built there where they must be."""

from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import EXIT_PERMANENT
from r1plus_model_repo.catalog.types import Engine
from r1plus_model_repo.config_pbtxt import parse_config
from r1plus_operator.plan.observation import JOB_ENDED, ContainerFacts, NodeFacts, Taint, VolumeFacts
from r1plus_operator.plan.podspec.pod import GPU_TOLERATION, PLATFORM
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_operator.plan.settings import TritonRuntime
from r1plus_operator.plan.tenancy.volumes import VolumeNeed, VolumesObservation, VolumesPlan, plan_volumes
from r1plus_policies.engine.hardware import Gpus
from support.plan.builders import L40S, SHIPPED, delivered, job_pod, machine
from support.plan.world import CONFIG, World, suite
from support.tables import for_each

A100 = Gpus("NVIDIA-A100-SXM4-80GB", 2, 81920, (8, 0))
SLICE = Gpus("NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", 2, 40192, (8, 0), "nvidia.com/mig-3g.40gb")
SERVED = {
    "tensorrtllm": TritonRuntime("nvcr.example/tritonserver:trtllm", "1.2.1"),
    "vllm": TritonRuntime("nvcr.example/tritonserver:vllm", "0.11"),
}
CLAIM = {"metadata": {"uid": "c-1"}, "spec": {"resources": {"requests": {}}}}
LLM, VLLM = "r1plus-full-fp16-tensorrtllm", "r1plus-full-fp16-vllm"


def world_of(engine: str, *nodes: NodeFacts, **spec: Any) -> World:
    """One CR that gets this engine, whose files are there."""
    return World(
        {"tier": "full", "engine": {"family": "r1plus"}, "accuracy": {"suite": "r1plus-full-v1"}, **spec},
        engines=(delivered(SHIPPED[engine]),),
        suites={"r1plus-full-v1": suite("r1plus-full-v1")},
        nodes=nodes or (machine(L40S),),
        config=replace(CONFIG, gpu_runtimes=SERVED),
    )


def started(engine: str, *nodes: NodeFacts, **spec: Any) -> World:
    world = world_of(engine, *nodes, **spec)
    world.settle()
    return world


def pod_of(world: World) -> dict[str, Any]:
    return dict(world.revision().template["spec"])


def triton_of(world: World) -> dict[str, Any]:
    return next(c for c in pod_of(world)["containers"] if c["name"] == names.CONTAINER_TRITON)


def job_of(world: World) -> dict[str, Any]:
    """The Job that brings the candidate's engine to its volume."""
    planned = planned_volumes(world, PersistentVolumeClaim=CLAIM)
    return next(obj for stage in planned.apply[world.volume().name] for obj in stage if obj["kind"] == "Job")


def planned_volumes(world: World, now: float = 0.0, **live: Any) -> VolumesPlan:
    """What is done about the candidate's volume, of which there is this; kind -> object."""
    volume = world.volume()
    there = {(kind, volume.name): obj for kind, obj in live.items()}
    return plan_volumes(
        VolumesObservation("team", (VolumeNeed(volume, (("credit", "u-1"),)),), there), world.config, now
    )


def test_a_pod_on_a_gpu_is_bound_to_the_product_that_it_was_fitted_to() -> None:
    world = started(VLLM)
    triton, revision = triton_of(world), world.revision()
    assert triton["image"] == revision.identity.triton_image == SERVED["vllm"].image
    assert triton["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert ("command" in triton, triton["args"][:2]) == (False, ["/bin/bash", "-ec"]), (
        "NVIDIA's entry point runs what it is given"
    )
    assert triton["args"][3] == "tritonserver"
    assert pod_of(world)["nodeSelector"] == PLATFORM | {"nvidia.com/gpu.product": L40S.product}
    assert (revision.identity.gpu_product, revision.batch) == (L40S.product, 29)
    assert {"name": "HF_HUB_OFFLINE", "value": "1"} in triton["env"]
    assert {"name": "PYTHONNOUSERSITE", "value": "1"} in triton["env"], "its home outlives it"
    assert parse_config(revision.config_pbtxt).parameters["backend"].string_value == "vllm"


def test_a_slice_is_a_resource_of_its_own() -> None:
    world = started(VLLM, machine(SLICE, labels={"zone": "a"}), placement={"nodeSelector": {"zone": "a"}})
    limits = triton_of(world)["resources"]["limits"]
    assert (limits["nvidia.com/mig-3g.40gb"], limits.get("nvidia.com/gpu")) == ("1", None)
    assert pod_of(world)["nodeSelector"] == PLATFORM | {"zone": "a", "nvidia.com/mig-3g.40gb.product": SLICE.product}


def test_a_gpu_without_a_name_binds_to_nothing() -> None:
    world = started(VLLM, machine(Gpus("unknown", 1, 46068, (8, 9))))
    assert pod_of(world)["nodeSelector"] == PLATFORM


def test_the_taint_of_gpu_nodes_is_tolerated_by_what_asks_for_a_gpu() -> None:
    world = started(VLLM, replace(machine(L40S), taints=(Taint("nvidia.com/gpu", "present", "NoSchedule"),)))
    assert pod_of(world)["tolerations"] == [GPU_TOLERATION]
    world.expect(CapacityFits="Fits")


@for_each(
    "replicas, product",
    {"one": (1, A100.product), "more than it has": (2, L40S.product), "too many": (5, A100.product)},
)
def test_a_product_is_taken_that_all_replicas_find(replicas: int, product: str) -> None:
    nodes = machine(replace(A100, count=1)), machine(replace(L40S, count=2), name="g2")
    world = started(VLLM, *nodes, replicas=replicas)
    assert world.revision().identity.gpu_product == product


def test_memory_of_the_node_is_not_that_of_the_gpu() -> None:
    world = started(VLLM)
    resources = triton_of(world)["resources"]
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == ("5Gi", "28390Mi")


def test_a_checkpoint_is_built_before_any_pod_and_the_pods_say_for_which_key() -> None:
    world = started(LLM)
    world.expect(EngineReady="Unknown Delivering")
    assert world.live("Deployment") == []
    revision, volume = world.revision(), world.volume()
    assert volume.name == f"r1plus-engine-{volume.order.build.key[:16]}"
    assert volume.order.build.gpu_product == L40S.product
    assert parse_config(revision.config_pbtxt).parameters["built"].string_value == volume.order.build.key
    world.deliver().settle()
    assert len(world.live("Deployment")) == 1


def test_the_job_fetches_then_builds_on_the_right_gpu_then_seals() -> None:
    world = started(LLM)
    spec = job_of(world)["spec"]
    pod = spec["template"]["spec"]
    assert [c["name"] for c in pod["initContainers"]] == ["engine", "fetch", "build"]
    assert [c["name"] for c in pod["containers"]] == ["fill"]
    fetch, build, fill = *pod["initContainers"][1:], *pod["containers"]
    assert (fetch["command"][-2:], fill["command"][-2:]) == (["--stage", "fetch"], ["--stage", "seal"])
    assert build["image"] == SERVED["tensorrtllm"].image
    assert build["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "command" not in build
    assert (build["args"][:2], "trtllm-build" in build["args"][-1]) == (["/bin/sh", "-ec"], True)
    assert spec["backoffLimit"] == 2
    assert all("nvidia.com/gpu" not in c["resources"].get("limits", {}) for c in (fetch, fill))
    assert pod["nodeSelector"] == PLATFORM | {"nvidia.com/gpu.product": L40S.product}
    assert {m["name"] for m in build["volumeMounts"]} == {"volume", "build-tmp"}
    evicted, *rules = spec["podFailurePolicy"]["rules"]
    assert (evicted["action"], evicted["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert [rule["onExitCodes"]["containerName"] for rule in rules] == ["fill", "fetch", "build"]
    assert all(rule["onExitCodes"]["values"] == [EXIT_PERMANENT] for rule in rules)


def test_the_volume_holds_the_checkpoint_beside_what_is_built_of_it() -> None:
    world = started(LLM)
    (claim,) = planned_volumes(world).apply[world.volume().name][0]
    asked = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Mi"))
    assert asked > 2 * 23270


@for_each("other", {
    "another GPU": {"nodes": (machine(A100),)},
    "another batch": {"spec": {"batching": {"maxBatchSize": 8}}},
    "another context": {"spec": {"context": {"maxTokens": 4096}}},
})  # fmt: skip
def test_what_the_build_depends_on_makes_another_volume(other: dict[str, Any]) -> None:
    changed = started(LLM, *other.get("nodes", ()), **other.get("spec", {}))
    assert changed.volume().name != started(LLM).volume().name


def test_a_checkpoint_is_nothing_to_be_copied_out_of_an_image() -> None:
    world = started(LLM, delivery={"mode": "Image"})
    world.expect(EngineReady=("False EngineNotDelivered", "must be built"))


def test_a_larger_gpu_that_joins_moves_nobody() -> None:
    world = started(VLLM)
    stable = world.bring_up()
    world.alter(nodes=(machine(L40S), machine(A100, name="g2"))).settle()
    assert (world.candidate(), world.selected()) == (stable, stable)
    world.alter(nodes=(machine(A100, name="g2"),)).settle()
    assert world.candidate() != stable


def test_before_anything_serves_what_is_on_its_way_stays_where_it_is() -> None:
    world = started(LLM)
    first = world.candidate()
    world.alter(nodes=(machine(L40S), machine(A100, name="g2"))).settle()
    assert world.candidate() == first


@pytest.mark.parametrize("strategy", ["BlueGreen", "InPlace"])
def test_a_device_plugin_that_starts_anew_moves_nobody(strategy: str) -> None:
    world = started(VLLM, rollout={"strategy": strategy})
    stable = world.bring_up()
    world.alter(nodes=(machine(replace(L40S, count=0)), machine(A100, name="g2"))).settle()
    assert world.selected() == stable
    assert world.one("Deployment", stable)["spec"]["replicas"] == 1
    assert [*world.deployments()] == [stable]
    world.expect(CapacityFits="False GpuNotFound")


def test_another_image_to_build_with_has_nothing_built_anew() -> None:
    world = started(LLM)
    volume = world.volume()
    stable = world.deliver().bring_up()
    moved = TritonRuntime("mirror.example/tritonserver:trtllm", "1.2.1")
    terms = replace(world.config.volumes, require_signature=True)
    world.alter(config=replace(world.config, gpu_runtimes={**SERVED, "tensorrtllm": moved}, volumes=terms)).settle()
    assert (world.candidate(), world.selected()) == (stable, stable)
    world.expect(EngineReady="True EngineLoaded")
    fresh = world_of(LLM)
    fresh.alter(config=replace(fresh.config, gpu_runtimes=world.config.gpu_runtimes)).settle()
    assert fresh.volume().name != volume.name


@for_each("blip", {
    "the device plugin": {"nodes": (machine(replace(L40S, count=0)),)},
    "the device plugin, beside another GPU": {"nodes": (machine(replace(L40S, count=0)), machine(A100, name="g2"))},
    "the suite": {"suites": {}},
})  # fmt: skip
def test_a_build_goes_on_while_something_is_missing_for_a_moment(blip: dict[str, Any]) -> None:
    world = started(LLM)
    first, before = world.candidate(), (world.nodes, world.suites)
    for name, value in blip.items():
        setattr(world, name, value)
    world.settle()
    assert [obj["metadata"]["name"] for obj in world.live("ControllerRevision")] == [first]
    world.nodes, world.suites = before
    world.settle()
    assert [obj["metadata"]["name"] for obj in world.live("ControllerRevision")] == [first]
    world.expect(EngineReady="Unknown Delivering")


def test_an_image_to_build_with_that_is_corrected_is_used() -> None:
    world = world_of(LLM)
    world.config = replace(
        world.config, gpu_runtimes={**SERVED, "tensorrtllm": TritonRuntime("typo.example/x:1", "1.2.1")}
    )
    world.settle()
    wrong = world.candidate()
    world.alter(config=replace(world.config, gpu_runtimes=SERVED)).settle()
    volume = world.volume()
    assert volume.builder.image == SERVED["tensorrtllm"].image
    assert [obj["metadata"]["name"] for obj in world.live("ControllerRevision")] == [world.candidate()] != [wrong]


def test_what_is_built_is_there_for_other_deployments_as_well() -> None:
    world = started(LLM)
    volume = world.volume()
    other = world_of(LLM)
    other.alter(config=replace(other.config, volumes=replace(other.config.volumes, require_signature=True))).settle()
    other.expect(EngineReady="False EngineNotDelivered")
    other.volumes[volume.name] = VolumeFacts(delivered_digest=volume.order.digest)
    other.settle()
    assert len(other.live("Deployment")) == 1


def test_another_engine_does_not_take_over_while_a_device_plugin_is_away() -> None:
    world = started(VLLM)
    stable = world.bring_up()
    spec = SHIPPED["smollm2-full-f16"].spec.model_copy(update={"family": "r1plus"})
    world.alter(engines=(*world.engines, Engine("on-cpu", spec)), nodes=(machine(replace(L40S, count=0)),)).settle()
    assert [obj["metadata"]["name"] for obj in world.live("ControllerRevision")] == [stable]
    world.expect(CapacityFits="False GpuNotFound")


def test_what_is_on_its_way_beside_what_serves_stays_on_its_gpu_too() -> None:
    world = started(VLLM)
    world.bring_up()
    h200 = Gpus("NVIDIA-H200", 8, 143771, (9, 0))
    world.nodes = (machine(L40S), machine(A100, name="g2"))
    moving = world.apply(batching={"maxBatchSize": 40})
    world.alter(nodes=(*world.nodes, machine(h200, name="g3"))).settle()
    assert world.candidate() == moving


def test_nobody_builds_what_nobody_waits_for_any_more() -> None:
    world = world_of(LLM)
    for batch in (4, 8, 16):
        world.apply(batching={"maxBatchSize": batch})
    assert [read_revision(live).batch for live in world.live("ControllerRevision")] == [16]


def test_a_build_is_tried_again_seldom() -> None:
    world = started(LLM)
    job, name = job_of(world), world.volume().name
    failed = {**job, "metadata": {**job["metadata"], "uid": "j-1"}, JOB_ENDED: {"type": "Failed", "at": 0.0}}
    for now, goes in ((3599.0, False), (3601.0, True)):
        planned = planned_volumes(world, now, PersistentVolumeClaim=CLAIM, Job=failed)
        assert (("Job", name, "j-1") in planned.delete) is goes


def test_replicas_on_one_nodes_volume_are_refused_whatever_else_is_delivered() -> None:
    world = world_of(LLM, machine(L40S), machine(L40S, name="g2"), replicas=2, batching={"maxBatchSize": 4})
    world.volumes["r1plus-engine-of-another-batch"] = VolumeFacts(delivered_digest="a" * 64)
    world.settle()
    world.expect(CapacityFits="False StorageNotShared")
    assert "mode to Image" not in world.condition("CapacityFits")[2]


def test_whoever_waits_for_a_gpu_reads_how_to_come_by_one() -> None:
    world = started(LLM)
    pod = job_pod(unschedulable="0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    world.deliver(VolumeFacts(pods=(pod,))).settle()
    assert "a build needs a GPU of its own" in world.condition("EngineReady")[2]


def test_the_status_says_on_which_gpu() -> None:
    world = started(VLLM)
    assert world.status["gpu"] == L40S.product


def building(*containers: ContainerFacts) -> World:
    world = started(LLM)
    pod = job_pod(*containers)
    world.deliver(VolumeFacts(pods=(pod,))).settle()
    return world


FETCHED = ContainerFacts("fetch", ready=True, exit_code=0)


def test_who_waits_reads_that_it_is_being_built_and_why_a_build_failed() -> None:
    begun = building(FETCHED, ContainerFacts("build", ready=False))
    assert "building on its GPU" in begun.condition("EngineReady")[2]
    before = building(ContainerFacts("build", ready=False, waiting_reason="PodInitializing"))
    assert "its Job starts" in before.condition("EngineReady")[2]
    failed = building(FETCHED, ContainerFacts("build", ready=False, exit_code=1, message="[E] out of memory"))
    failed.expect(EngineReady=("False DeliveryFailed", "its builder ended with 1: [E] out of memory"))
