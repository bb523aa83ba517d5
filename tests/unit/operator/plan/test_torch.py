"""R1+'s own architecture in torch, as a deployment sees it: which image, and how much memory its rings take."""

from dataclasses import replace
from typing import Any

from r1plus_contract import names
from r1plus_model_repo.catalog.types import Engine, EngineSpec
from r1plus_model_repo.config_pbtxt import parse_config
from r1plus_operator.plan.settings import OperatorConfig, TritonRuntime
from r1plus_policies.engine.memory_fit import GIB, MIB, compute_fit
from support.plan.builders import SHIPPED, delivered, machine
from support.plan.world import CONFIG, World, suite

IMAGE = TritonRuntime("registry.example.com/triton-torch:1", "2.13.0")
WITH_IMAGE = replace(CONFIG, cpu_runtimes={"torch": IMAGE})
BATCH, CONTEXT, KEPT, GLOBAL_LAYERS = 4, 1000, 132, 5
SPEC: dict[str, Any] = {
    "tier": "edge",
    "engine": {"family": "r1plus"},
    "accuracy": {"suite": "r1plus-edge-v1"},
    "batching": {"maxBatchSize": BATCH},
    "context": {"maxTokens": CONTEXT},
}


def build_engine(**requirements: Any) -> Engine:
    published = SHIPPED["r1plus-edge-fp16-vllm"]
    document = published.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    del document["requirements"]["gpu"]
    weights = f"{-(-4 * published.spec.architecture.parameters // MIB)}Mi"
    document["requirements"] |= {"cpu": "2", "weightsMemory": weights, "runtimeMemory": "1Gi", **requirements}
    document["architecture"] |= {"window": KEPT, "globalLayers": GLOBAL_LAYERS}
    return delivered(
        Engine("r1plus-edge", EngineSpec.model_validate(document | {"precision": "FP32", "backend": "torch"}))
    )


def plan_for(engine: Engine, config: OperatorConfig) -> World:
    suites = {"r1plus-edge-v1": suite("r1plus-edge-v1")}
    world = World(SPEC, engines=(engine,), suites=suites, nodes=(machine(memory=256 * GIB),), config=config)
    world.settle()
    return world


def find_condition(world: World, kind: str) -> Any:
    return next(one for one in world.status["conditions"] if one["type"] == kind)


def test_without_an_image_it_is_not_served_and_the_condition_names_the_charts_value() -> None:
    found = find_condition(plan_for(build_engine(), CONFIG), "EngineReady")
    assert (found["status"], found["reason"]) == ("False", "RuntimeNotServed")
    assert found["message"].endswith(
        "needs the backend torch, but this installation serves openvino: choose an engine of one of these backends, or"
        " name a Triton image with torch in the chart's images.cpu.torch"
    )


def test_a_torch_that_is_too_old_is_refused() -> None:
    engine = build_engine(runtime={"min": "3.0"})
    assert (
        "torch: it needs 3.0 to any, but the version is 2.13.0"
        in find_condition(plan_for(engine, WITH_IMAGE), "EngineReady")["message"]
    )


def test_memory_for_weights_of_16_bits_is_refused() -> None:
    found = find_condition(plan_for(build_engine(weightsMemory="100Mi"), WITH_IMAGE), "EngineReady")
    assert found["reason"] == "ConfigRefused"
    assert "spec.requirements.weightsMemory: 100Mi: torch computes in 32 bits on CPU" in found["message"]


def test_its_pod_has_the_image_and_memory_for_rings() -> None:
    engine = build_engine()
    world = plan_for(engine, WITH_IMAGE)
    world.expect(CapacityFits="Fits")
    template = world.revision().template["spec"]
    triton = next(one for one in template["containers"] if one["name"] == names.CONTAINER_TRITON)
    assert triton["image"] == IMAGE.image
    shape = engine.spec.architecture
    token = 2 * 4 * shape.kv_heads * shape.head_size
    kept = (shape.layers - GLOBAL_LAYERS) * KEPT + GLOBAL_LAYERS * CONTEXT
    assert compute_fit(engine.spec.shape, BATCH, CONTEXT).kv_cache_bytes == BATCH * token * kept
    config = parse_config(world.revision().config_pbtxt)
    parameters = {name: one.string_value for name, one in config.parameters.items()}
    assert (parameters["backend"], parameters["threads"]) == ("torch", "2")
    assert int(parameters["kv_cache_bytes"]) == BATCH * token * kept
